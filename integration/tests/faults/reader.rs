//! Readers that are slow or gone, disks that are full, and crowds.

use crate::{full, missing, with_ledger};
use integration::monitor::{end, fifo, open_fifo, target, Monitor, Reader};
use integration::{eventually, skip};
use std::fs;
use std::io::Read;

/// So many bytes, then the end; nobody reads. Returns the exit status and the record.
fn unread(name: &str, annotations: &[(&str, &str)], lines: u64) -> (u64, serde_json::Value, u64) {
    let monitor = Monitor::with(name, annotations);
    let mut task = monitor.task(&monitor.id, &["ledger", &lines.to_string(), "0", "3"]);
    with_ledger(&task.bundle.rootfs());
    let path = fifo(name);
    task.stdout = Some(path.clone());
    let client = monitor.client();
    client.ok("Create", task.create());
    client.ok("Start", target(&task.id, ""));
    let code = client.ok("Wait", target(&task.id, "")).int(1);
    // Somebody comes at last, and gets what was kept.
    let mut late = open_fifo(&path);
    let mut kept = 0u64;
    let mut buffer = vec![0; 1 << 16];
    let deleted = client.begin("Delete", target(&task.id, ""));
    eventually("what was kept", || loop {
        match late.read(&mut buffer) {
            Ok(0) => return true,
            Ok(n) => kept += n as u64,
            Err(_) => return false,
        }
    });
    client.answer(deleted).expect("Delete");
    let text = fs::read(monitor.dir.join("exit.json")).expect("the record");
    (code, serde_json::from_slice(&text).expect("JSON"), kept)
}

#[test]
fn without_a_reader_output_waits_on_disk() {
    if let Some(reason) = missing() {
        skip!("{reason}");
    }
    let (code, record, kept) = unread("spool", &[], 200_000);
    assert_eq!((code, kept), (3, 3_200_000), "{record}");
    assert!(record["droppedBytes"].is_null(), "{record}");
}

#[test]
fn what_exceeds_the_spool_is_dropped_and_counted() {
    if let Some(reason) = missing() {
        skip!("{reason}");
    }
    let small = ("hydra-shim.spool-bytes", "500000");
    for (policy, deadline) in [("drop-oldest", "30000"), ("drop-newest", "30000"), ("block", "1500")] {
        let knobs = [small, ("hydra-shim.spool-policy", policy), ("hydra-shim.spool-deadline-ms", deadline)];
        let (code, record, kept) = unread(policy, &knobs, 100_000);
        assert_eq!(code, 3, "{policy}: it was not held up for ever, nor ended by a signal");
        assert!(kept < 1_600_000, "{policy}: {kept} bytes were kept");
        assert_eq!(record["droppedBytes"].as_u64().unwrap_or(0) + kept, 1_600_000, "{policy}: {record}");
    }
}

/// A reader that comes and goes gets everything, in order.
#[test]
fn a_reader_may_go_and_another_come() {
    if let Some(reason) = missing() {
        skip!("{reason}");
    }
    let monitor = Monitor::start("relay");
    let mut task = monitor.task(&monitor.id, &["ledger", "60000", "500000", "4"]);
    with_ledger(&task.bundle.rootfs());
    let path = fifo("relay");
    task.stdout = Some(path.clone());
    let client = monitor.client();
    client.ok("Create", task.create());
    client.ok("Start", target(&task.id, ""));
    std::thread::sleep(std::time::Duration::from_millis(2500));
    let output = Reader::new(&path);
    assert_eq!(client.ok("Wait", target(&task.id, "")).int(1), 4);
    client.ok("Delete", target(&task.id, ""));
    let seen = output.whole();
    assert_eq!((seen.lines, seen.wrong), (60_000, None));
}

/// Descriptors and resident memory of both heads.
fn size(monitor: &Monitor) -> (usize, u64) {
    let heads = monitor.heads();
    let fds = fs::read_dir(format!("/proc/{}/fd", heads[1])).map_or(0, |d| d.count());
    let private = |pid: i32| {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let line = text.lines().find_map(|l| l.strip_prefix("Private_Dirty:")).unwrap_or("0 kB");
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0)
    };
    (fds, heads.map(private).iter().sum())
}

/// Hundreds of execs (ten thousand with FULL=1): no descriptor, no file, no zombie, no memory stays.
#[test]
fn execs_leave_nothing() {
    if let Some(reason) = missing() {
        skip!("{reason}");
    }
    let monitor = Monitor::start("execs");
    let task = monitor.task(&monitor.id, &["sleep", "100000"]);
    let client = monitor.client();
    client.ok("Create", task.create());
    client.ok("Start", target(&task.id, ""));
    let rounds = if full() { 10_000 } else { 200 };
    let one = |n: usize| {
        let name = format!("x{n}");
        client.ok("Exec", task.exec(&name, &["true"], None));
        client.ok("Start", target(&task.id, &name));
        assert_eq!(client.ok("Wait", target(&task.id, &name)).int(1), 0);
        client.ok("Delete", target(&task.id, &name));
    };
    (0..20).for_each(one);
    std::thread::sleep(std::time::Duration::from_secs(2));
    let (fds, memory) = size(&monitor);
    let files = fs::read_dir(&monitor.dir).map_or(0, |d| d.count());
    (20..20 + rounds).for_each(one);
    std::thread::sleep(std::time::Duration::from_secs(2));
    let (fds_after, memory_after) = size(&monitor);
    println!("{rounds} execs: {fds} -> {fds_after} descriptors, {memory} -> {memory_after} kB private dirty");
    assert_eq!(fds_after, fds);
    assert_eq!(fs::read_dir(&monitor.dir).map_or(0, |d| d.count()), files);
    assert!(memory_after <= memory + 64, "{memory} kB grew to {memory_after} kB");
    assert_eq!(zombies(&monitor), 0);
    end(&client, &task.id);
}

fn zombies(monitor: &Monitor) -> usize {
    let parents = monitor.heads().map(|h| h.to_string());
    let stats = fs::read_dir("/proc").into_iter().flatten().flatten();
    stats
        .filter_map(|e| fs::read_to_string(e.path().join("stat")).ok())
        .filter_map(|s| s.rsplit(')').next().map(|r| r.trim().to_string()))
        .filter(|rest| {
            let words: Vec<&str> = rest.split(' ').collect();
            words[0] == "Z" && parents.iter().any(|p| p == words[1])
        })
        .count()
}

/// Orphans of a container that has no process namespace of its own come to the monitor, by the thousand (ten with FULL=1).
#[test]
fn thousands_of_orphans_are_buried() {
    if let Some(reason) = missing() {
        skip!("{reason}");
    }
    let monitor = Monitor::start("orphans");
    let orphans = if full() { 10_000 } else { 1000 };
    let script = format!("i=0; while [ $i -lt {orphans} ]; do (true &); i=$((i+1)); done; exit 6");
    let mut task = monitor.task(&monitor.id, &["sh", "-c", &script]);
    let namespaces = task.bundle.config["linux"]["namespaces"].as_array_mut().expect("namespaces");
    namespaces.retain(|n| n["type"] != "pid");
    let client = monitor.client();
    client.ok("Create", task.create());
    let (fds, _) = size(&monitor);
    client.ok("Start", target(&task.id, ""));
    let waiting = client.begin("Wait", target(&task.id, ""));
    // A head that dies meanwhile hands its orphans to the other one.
    std::thread::sleep(std::time::Duration::from_millis(200));
    let worker = nix::unistd::Pid::from_raw(monitor.heads()[1]);
    let _ = nix::sys::signal::kill(worker, nix::sys::signal::SIGKILL);
    assert_eq!(client.answer(waiting).expect("Wait").int(1), 6);
    eventually("no zombies", || zombies(&monitor) == 0);
    client.ok("Delete", target(&task.id, ""));
    eventually("as few descriptors as before", || size(&monitor).0 <= fds);
    let (fds_after, memory) = size(&monitor);
    println!("{orphans} orphans: {fds} -> {fds_after} descriptors, {memory} kB private dirty");
}
