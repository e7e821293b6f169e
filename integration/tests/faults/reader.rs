//! Readers that are slow or gone, disks that are full, and crowds.

use crate::storm::{limit_files, setting};
use crate::{full, missing, with_ledger};
use integration::monitor::{end, fifo, open_fifo, signal, target, Monitor, Reader};
use integration::wire::{read_frame, write_frame, Client, Fields, Msg};
use integration::{eventually, skip};
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;

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

/// Children of both heads.
fn children(monitor: &Monitor) -> usize {
    let of = |pid: i32| fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    monitor.heads().map(|pid| of(pid).split_whitespace().count()).iter().sum()
}

/// Hundreds of execs (`EXECS` of them; a hundred thousand with FULL=1): no descriptor, no file, no process, no memory stays.
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
    let rounds = setting("EXECS", if full() { 100_000 } else { 200 }) as usize;
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
    let processes = children(&monitor);
    let files = fs::read_dir(&monitor.dir).map_or(0, |d| d.count());
    (20..20 + rounds).for_each(one);
    std::thread::sleep(std::time::Duration::from_secs(2));
    let (fds_after, memory_after) = size(&monitor);
    let processes_after = children(&monitor);
    println!("{rounds} execs: {fds} -> {fds_after} descriptors, {memory} -> {memory_after} kB private dirty, {processes} -> {processes_after} children");
    assert_eq!((fds_after, processes_after), (fds, processes));
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
    std::thread::sleep(std::time::Duration::from_secs(2));
    let (fds, before) = size(&monitor);
    client.ok("Start", target(&task.id, ""));
    let waiting = client.begin("Wait", target(&task.id, ""));
    // A head that dies meanwhile hands its orphans to the other one.
    std::thread::sleep(std::time::Duration::from_millis(200));
    let worker = Pid::from_raw(monitor.heads()[1]);
    let _ = kill(worker, Signal::SIGKILL);
    assert_eq!(client.answer(waiting).expect("Wait").int(1), 6);
    eventually("no zombies", || zombies(&monitor) == 0);
    client.ok("Delete", target(&task.id, ""));
    eventually("as few descriptors as before", || size(&monitor).0 <= fds);
    std::thread::sleep(std::time::Duration::from_secs(2));
    let (fds_after, memory) = size(&monitor);
    println!("{orphans} orphans: {fds} -> {fds_after} descriptors, {before} -> {memory} kB private dirty");
    assert!(memory <= 200, "{before} kB grew to {memory} kB");
}

/// With so many descriptors to be had and no more, what needs one is refused with a reason; nothing of the attempt stays, what was
/// there goes on, and with descriptors again all is as before.
#[test]
fn without_descriptors_requests_are_refused() {
    if let Some(reason) = missing() {
        skip!("{reason}");
    }
    let monitor = Monitor::start("descriptors");
    let mut task = monitor.task(&monitor.id, &["ledger", "0", "100000", "0"]);
    with_ledger(&task.bundle.rootfs());
    task.stdout = Some(fifo("descriptors"));
    let output = Reader::new(task.stdout.as_ref().expect("fifo"));
    let client = monitor.client();
    client.ok("Create", task.create());
    client.ok("Start", target(&task.id, ""));
    eventually("output", || output.seen().lines > 0);
    let [keeper, worker] = monitor.heads();
    let open = || -> Vec<u64> {
        let names = fs::read_dir(format!("/proc/{worker}/fd")).into_iter().flatten().flatten();
        names.filter_map(|e| e.file_name().to_str()?.parse().ok()).collect()
    };
    let tap = fifo("tap");
    let _tapped = open_fifo(&tap);
    let spoken = fifo("spoken");
    let mut refused = [0; 3];
    // From none to enough for all of it: each place where the last one is missing.
    for spare in 0..16 {
        let before = open();
        let limit = (0..).filter(|n| !before.contains(n)).nth(spare).expect("a free number");
        let old = [keeper, worker].map(|pid| limit_files(pid, limit));
        let name = format!("d{spare}");
        let other = monitor.task(&format!("{}-{name}", monitor.id), &["sleep", "100000"]);
        let other = integration::monitor::Task { stdout: Some(fifo("other")), ..other };
        let _other_output = open_fifo(other.stdout.as_ref().expect("fifo"));
        let create = client.call("Create", other.create());
        client.ok("Exec", task.exec(&name, &["sh", "-c", "exit 7"], Some(&spoken)));
        let _exec_output = open_fifo(&spoken);
        let exec = client.call("Start", target(&task.id, &name));
        let attach = attach(&client, &task.id, &tap);
        assert_eq!(client.ok("State", target(&task.id, "")).int(4), 2, "it goes on");
        for (pid, old) in [keeper, worker].into_iter().zip(old) {
            limit_files(pid, old);
        }
        for (n, answer) in [&create, &exec, &attach].into_iter().enumerate() {
            if let Err((_, text)) = answer {
                refused[n] += 1;
                // The runtime has as few, and says so itself if it can.
                let known = ["too many open files", "oci runtime"];
                assert!(known.iter().any(|k| text.to_lowercase().contains(k)), "{text}");
            }
        }
        match create {
            Ok(_) => end(&client, &other.id),
            Err(_) => assert_eq!(client.call("State", target(&other.id, "")).map(|_| ()).unwrap_err().0, 5),
        }
        if exec.is_ok() {
            assert_eq!(client.ok("Wait", target(&task.id, &name)).int(1), 7);
        }
        client.ok("Delete", target(&task.id, &name));
        let attached = if attach.is_ok() { 3 } else { 0 };
        let more = || open().len().saturating_sub(before.len() + attached);
        let start = std::time::Instant::now();
        while more() > 0 && start.elapsed() < integration::host::patience() {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let new = open().into_iter().filter(|n| !before.contains(n));
        let new: Vec<_> = new.map(|n| fs::read_link(format!("/proc/{worker}/fd/{n}"))).collect();
        assert_eq!(
            more(),
            0,
            "{spare} spare, {create:?} {exec:?} {attach:?}: descriptors that stay: {new:?}"
        );
    }
    println!(
        "refused for want of descriptors: {} creates, {} execs, {} attaches of 16 each",
        refused[0], refused[1], refused[2]
    );
    assert!(refused.iter().all(|n| (1..16).contains(n)), "{refused:?}");
    assert_eq!(monitor.heads(), [keeper, worker], "nobody died of it");
    assert_eq!(output.seen().wrong, None);
    end(&client, &task.id);
    assert_eq!(output.whole().wrong, None);
}

fn attach(client: &Client, id: &str, to: &std::path::Path) -> integration::wire::Answer {
    let request = Msg::new().text(1, id).text(4, &to.display().to_string());
    client.answer(client.begin_at("hydra.shim.v1.Monitor", "Attach", request))
}

/// Who listens in and types when the container's stdin is over types to nobody: the monitor lets go of it, and is not kept busy.
#[test]
fn a_listener_types_after_the_end_of_stdin() {
    if let Some(reason) = missing() {
        skip!("{reason}");
    }
    let monitor = Monitor::start("typing");
    let client = monitor.client();
    let mut task = monitor.task(&monitor.id, &["sleep", "1000"]);
    (task.stdin, task.stdout) = (Some(fifo("own")), Some(fifo("out")));
    client.ok("Create", task.create());
    client.ok("Start", target(&task.id, ""));
    let keys = fifo("listener");
    let request = Msg::new().text(1, &task.id).text(3, &keys.display().to_string());
    client.answer(client.begin_at("hydra.shim.v1.Monitor", "Attach", request)).expect("Attach");
    let mut typing = fs::File::options().read(true).write(true).open(&keys).expect("fifo");
    client.ok("CloseIO", Msg::new().text(1, &task.id).int(3, 1));
    typing.write_all(b"typed\n").expect("typing");
    let worker = monitor.heads()[1];
    // It opened the FIFO once.
    let open = || {
        let links = fs::read_dir(format!("/proc/{worker}/fd")).expect("fds").flatten();
        links.filter(|l| fs::read_link(l.path()).is_ok_and(|to| to == keys)).count()
    };
    eventually("the listener is let go", || open() == 0);
    end(&client, &task.id);
}

/// Clients of the monitor's own socket are more than it has places: a containerd that comes back still finds one, and they get their
/// turn one after the other.
#[test]
fn a_crowd_does_not_keep_containerd_out() {
    if let Some(reason) = missing() {
        skip!("{reason}");
    }
    let monitor = Monitor::start("crowd");
    let task = monitor.task(&monitor.id, &["sleep", "100000"]);
    let client = monitor.client();
    client.ok("Create", task.create());
    client.ok("Start", target(&task.id, ""));
    drop(client);
    let own = monitor.dir.join(format!("{}.sock", monitor.id));
    let crowd: Vec<Client> = (0..40).map(|_| Client::connect(&own).expect("its own socket")).collect();
    let crowd: Vec<(Client, u32)> = crowd
        .into_iter()
        .map(|c| {
            let waiting = c.begin("Wait", target(&task.id, ""));
            (c, waiting)
        })
        .collect();
    // These have a place; and by the second time so has everybody else who can get one.
    for (served, _) in crowd[..20].iter().chain(&crowd[..20]) {
        served.ok("State", target(&task.id, ""));
    }
    let client = monitor.client();
    let again = monitor.client();
    assert_eq!(again.ok("State", target(&task.id, "")).int(4), 2);
    client.ok("Kill", signal(&task.id, 9));
    for (waiter, waiting) in crowd {
        assert_eq!(waiter.answer(waiting).expect("Wait").int(1), 137);
    }
    client.ok("Delete", target(&task.id, ""));
}

/// A request that is longer than the protocol allows is refused as containerd's own server does it: the connection stands, its
/// bytes are dropped as they come, and what follows it is answered. The worker is killed in the midst of them.
#[test]
fn a_request_that_is_too_long_is_refused_alone() {
    if let Some(reason) = missing() {
        skip!("{reason}");
    }
    const LENGTH: u32 = 40 << 20;
    let monitor = Monitor::start("too-long");
    let mut socket = UnixStream::connect(&monitor.address).expect("connection");
    let mut header = LENGTH.to_be_bytes().to_vec();
    header.extend([0, 0, 0, 1, 1, 0]);
    socket.write_all(&header).expect("the header");
    let (stream, _, answer) = read_frame(&mut socket).expect("an answer");
    let status = Fields::read(&answer).message(1);
    assert_eq!((stream, status.int(1)), (1, 8), "{}", status.text(2));
    let chunk = vec![1; 1 << 20];
    for n in 0..LENGTH >> 20 {
        if n == 20 {
            let worker = monitor.heads()[1];
            kill(Pid::from_raw(worker), Signal::SIGKILL).expect("kill");
        }
        socket.write_all(&chunk).expect("the connection stands");
    }
    let question = Msg::new().text(1, "containerd.task.v2.Task").text(2, "State");
    let question = question.bytes(3, &target("nobody", "").0);
    write_frame(&mut socket, 3, 1, &question.0).expect("the next request");
    let (stream, _, answer) = read_frame(&mut socket).expect("its answer");
    assert_eq!((stream, Fields::read(&answer).message(1).int(1)), (3, 5));
    let size = || fs::metadata(monitor.dir.join("state")).expect("the state").blocks() * 512;
    eventually("what was dropped takes no memory", || size() < 1 << 20);
    monitor.client().ok("Shutdown", target(&monitor.id, ""));
}
