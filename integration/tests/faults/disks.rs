//! File systems that are full: that of the monitor's state (`/run`), and that of rings and spools.

use crate::{missing, with_ledger};
use integration::monitor::{fifo, namespace, target, Monitor, Reader};
use integration::{eventually, janitor, skip};
use nix::mount::{mount, umount2, MntFlags, MsFlags};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// A file system of so many bytes in place of a directory that a monitor will use.
struct Small(PathBuf);

impl Small {
    fn at(place: PathBuf, size: &str) -> Small {
        fs::create_dir_all(&place).expect("directory");
        janitor::at_end(&format!("umount -l {}", place.display()));
        mount(Some("small"), &place, Some("tmpfs"), MsFlags::empty(), Some(format!("size={size}").as_str()))
            .expect("a small tmpfs");
        Small(place)
    }

    /// Takes every page that is left.
    fn fill(&self) {
        let mut file = fs::File::create(self.0.join("filler")).expect("filler");
        while file.write(&[1; 4096]).is_ok_and(|n| n > 0) {}
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

/// The first connection to containerd's event service is made when nothing can be written any more.
#[test]
fn events_are_told_from_a_full_state_directory() {
    if let Some(reason) = missing() {
        skip!("{reason}");
    }
    let small = Small::at(Path::new("/run/hydra-shim").join(namespace()).join("full-events"), "2m");
    let monitor = Monitor::named("full-events", &integration::monitor::shim(), &[]);
    let away = monitor.events.path.with_extension("away");
    fs::rename(&monitor.events.path, &away).expect("containerd goes");
    let task = monitor.task(&monitor.id, &["sleep", "1000"]);
    let client = monitor.client();
    client.ok("Create", task.create());
    client.ok("Start", target(&task.id, ""));
    small.fill();
    fs::rename(&away, &monitor.events.path).expect("containerd comes");
    let told = ["/tasks/create", "/tasks/start"];
    eventually("events", || monitor.events.topics(&task.id, "") == told);
    fs::remove_file(small.0.join("filler")).expect("room again");
    integration::monitor::end(&client, &task.id);
    drop(small);
}

/// With not a page left under `/run` a container that runs goes on, with its output, its connection and new ones; its end is
/// told, answered and written down, also when a head is killed meanwhile.
#[test]
fn a_full_state_directory_costs_nothing() {
    if let Some(reason) = missing() {
        skip!("{reason}");
    }
    let small = Small::at(Path::new("/run/hydra-shim").join(namespace()).join("full-state"), "2m");
    let monitor = Monitor::named("full-state", &integration::monitor::shim(), &[]);
    let mut task = monitor.task(&monitor.id, &["ledger", "60000", "200000", "6"]);
    with_ledger(&task.bundle.rootfs());
    task.stdout = Some(fifo("full-state"));
    let output = Reader::new(task.stdout.as_ref().expect("fifo"));
    let client = monitor.client();
    client.ok("Create", task.create());
    client.ok("Start", target(&task.id, ""));
    let waiting = client.begin("Wait", target(&task.id, ""));
    eventually("output", || output.seen().lines > 0);
    small.fill();
    for head in [1, 0] {
        let pid = nix::unistd::Pid::from_raw(monitor.heads()[head]);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::SIGKILL);
        eventually("the next head", || {
            monitor.heads()[head] != pid.as_raw() && integration::monitor::whole(&monitor.dir)
        });
    }
    assert_eq!(client.ok("State", target(&task.id, "")).int(4), 2);
    assert_eq!(client.answer(waiting).expect("Wait").int(1), 6);
    let text = fs::read(monitor.dir.join("exit.json")).expect("the record");
    let record: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    assert_eq!((&record["exitCode"], &record["status"]), (&6.into(), &"exact".into()));
    let seen = output.whole();
    assert_eq!((seen.lines, seen.wrong), (60_000, None));
    let told = ["/tasks/create", "/tasks/start", "/tasks/exit"];
    eventually("events", || monitor.events.topics(&task.id, "").len() >= told.len());
    assert_eq!(monitor.events.topics(&task.id, ""), told);
    fs::remove_file(small.0.join("filler")).expect("room again");
    assert_eq!(client.ok("Delete", target(&task.id, "")).int(2), 6);
    drop(small);
}

/// With the disk of ring and spool full a container whose client reads loses no byte; one whose client reads nothing is held
/// up no longer than its deadline. What is dropped, and what `logs` lacks, is counted.
#[test]
fn a_full_disk_loses_what_is_counted() {
    if let Some(reason) = missing() {
        skip!("{reason}");
    }
    for reads in [true, false] {
        let name = if reads { "full-read" } else { "full-unread" };
        let small = Small::at(Path::new("/var/lib/hydra-shim").join(namespace()).join(name), "1m");
        small.fill();
        let knobs = [("hydra-shim.spool-deadline-ms", "1500")];
        let monitor = Monitor::named(name, &integration::monitor::shim(), &knobs);
        let mut task = monitor.task(&monitor.id, &["ledger", "60000", "0", "5"]);
        with_ledger(&task.bundle.rootfs());
        let path = fifo(name);
        task.stdout = Some(path.clone());
        // A client that reads nothing is there nevertheless: what the FIFO holds is not lost.
        let _held = integration::monitor::open_fifo(&path);
        let output = reads.then(|| Reader::new(&path));
        let client = monitor.client();
        client.ok("Create", task.create());
        client.ok("Start", target(&task.id, ""));
        assert_eq!(client.ok("Wait", target(&task.id, "")).int(1), 5);
        let late = output.unwrap_or_else(|| Reader::new(&path));
        assert_eq!(client.ok("Delete", target(&task.id, "")).int(2), 5);
        eventually("the end of the output", || late.seen().ended);
        let text = fs::read(monitor.dir.join("exit.json")).expect("the record");
        let record: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
        let number = |name: &str| record[name].as_u64().unwrap_or(0);
        assert!(number("unloggedBytes") > 0, "{record}");
        let seen = late.seen();
        match reads {
            true => assert_eq!((seen.lines, seen.wrong, number("droppedBytes")), (60_000, None, 0)),
            false => assert_eq!(seen.lines * 16 + number("droppedBytes"), 960_000, "{record}"),
        }
        drop(small);
    }
}
