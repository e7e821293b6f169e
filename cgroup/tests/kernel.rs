//! On the running kernel, whatever version of cgroups it has. Needs root; each test has cgroups of its own and removes
//! them.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cgroup::location::Manager;
use cgroup::{Cgroup, Kind, Layout, Location, Mode, Options, Request, Resources, Stats, Sub, Transaction};

/// A cgroup that goes with the test.
struct Own {
    layout: Layout,
    location: Location,
}

impl Own {
    /// `None` with a counted SKIP where the test can't run.
    fn new(name: &str) -> Option<Own> {
        if !nix::unistd::geteuid().is_root() {
            println!("SKIP making cgroups needs root");
            return None;
        }
        let layout = Layout::detect().unwrap();
        let path = format!("/hydra-test-{name}-{}/c", std::process::id());
        let location = locate(&layout, &path);
        for b in &location.branches {
            if let Err(e) = fs::create_dir(b.path.parent().unwrap()) {
                println!("SKIP {} can't be written: {e}", b.mount.display());
                return None;
            }
        }
        Some(Own { layout, location })
    }

    fn create(&self, json: &str) -> cgroup::Result<Cgroup> {
        Cgroup::create(&self.layout, self.location.clone(), &resources(json), Options::default())
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        if let Ok(c) = Cgroup::open(&self.location) {
            let _ = c.kill_all();
        }
        let gone = self.location.destroy();
        for b in &self.location.branches {
            let _ = fs::remove_dir(b.path.parent().unwrap());
        }
        if !std::thread::panicking() {
            gone.unwrap();
        }
    }
}

/// What a cgroup will have is seen at one above it, which may go at any time with others' containers.
#[test]
fn a_neighbour_that_goes_says_nothing_about_files() {
    let Some(own) = Own::new("neighbour") else { return };
    let io = if own.layout.mode == Mode::V2 { "io.max" } else { "blkio.throttle.write_bps_device" };
    let branch = own.location.branch(if own.layout.mode == Mode::V2 { "" } else { "blkio" }).cloned();
    let Some(above) = branch.and_then(|b| Some(b.path.parent()?.to_path_buf())) else {
        println!("SKIP no blkio controller");
        return;
    };
    let limits = match own.layout.mode {
        Mode::V2 => format!(r#"{{"unified": {{"{io}": "7:0 wbps=1000000"}}, "pids": {{"limit": 9}}}}"#),
        _ => r#"{"blockIO": {"throttleWriteBpsDevice": [{"major": 7, "minor": 0, "rate": 1000000}]}}"#
            .to_string(),
    };
    let limits = resources(&limits);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let _ = fs::remove_dir(&above);
                let _ = fs::create_dir(&above);
            }
        });
        let end = Instant::now() + Duration::from_secs(2);
        let mut seen = Ok(());
        while Instant::now() < end && seen.is_ok() {
            seen = cgroup::foresee(&own.layout, &own.location, &limits, &[]);
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        seen.unwrap();
    });
}

fn locate(layout: &Layout, path: &str) -> Location {
    let request = Request {
        manager: Manager::Cgroupfs,
        cgroups_path: Some(path),
        id: "x",
        rootless: false,
        user_root: None,
    };
    Location::resolve(layout, &request).unwrap()
}

fn resources(json: &str) -> Resources {
    serde_json::from_str(json).unwrap()
}

/// A process that ends with the test.
struct Process(Child);

impl Process {
    fn sleep() -> Process {
        Process(Command::new("sleep").arg("1000").spawn().unwrap())
    }

    fn pid(&self) -> i32 {
        self.0.id() as i32
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(30), "{what} does not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn has(layout: &Layout, controller: &str) -> bool {
    let found = layout.version_of(controller).is_some();
    if !found {
        println!("SKIP no {controller} controller");
    }
    found
}

const LIMITS: &str = r#"{"memory":{"limit":67108864,"reservation":33554432},
    "cpu":{"shares":512,"quota":50000,"period":100000,"burst":10000},"pids":{"limit":50}}"#;

#[test]
fn a_life() {
    let Some(own) = Own::new("life") else { return };
    let start = Instant::now();
    let mut cgroup = own.create(LIMITS).unwrap();
    println!("created in {:?}", start.elapsed());
    let read = |c: &Cgroup, controller: &str, file: &str| c.dir(controller).unwrap().read(file).unwrap();
    match own.layout.mode {
        Mode::V2 => {
            assert_eq!(read(&cgroup, "cpu", "cpu.max"), "50000 100000\n");
            assert_eq!(read(&cgroup, "memory", "memory.max"), "67108864\n");
            assert_eq!(read(&cgroup, "cpu", "cpu.weight"), "59\n");
        }
        _ => {
            assert_eq!(read(&cgroup, "cpu", "cpu.cfs_quota_us"), "50000\n");
            assert_eq!(read(&cgroup, "memory", "memory.limit_in_bytes"), "67108864\n");
        }
    }
    assert_eq!(read(&cgroup, "pids", "pids.max"), "50\n");

    let (one, two) = (Process::sleep(), Process::sleep());
    cgroup.attach(one.pid()).unwrap();
    cgroup.attach(two.pid()).unwrap();
    let mut want = vec![one.pid(), two.pid()];
    want.sort();
    assert_eq!(cgroup.procs().unwrap(), want);
    let e = own.create("{}").unwrap_err();
    assert_eq!(e.to_string(), "container's cgroup is not empty: 2 process(es) found");

    assert!(!cgroup.is_frozen().unwrap());
    cgroup.freeze().unwrap();
    assert!(cgroup.is_frozen().unwrap());
    cgroup.thaw().unwrap();
    assert!(!cgroup.is_frozen().unwrap());
    match cgroup.stats() {
        Stats::V1(s) => assert_eq!((s.pids.current, s.memory.usage.limit), (2, 67_108_864)),
        Stats::V2(s) => assert_eq!((s.pids.current, s.memory.limit, s.cpu.quota), (2, 67_108_864, 50_000)),
    }

    // Killed while frozen.
    cgroup.freeze().unwrap();
    cgroup.kill_all().unwrap();
    drop((one, two));
    until("the end of the killed", || cgroup.procs().unwrap().is_empty());
    let location = cgroup.location().clone();
    cgroup.destroy().unwrap();
    assert!(location.branches.iter().all(|b| !b.path.exists()));
    assert_eq!(Cgroup::open(&location).unwrap_err().kind(), Kind::NotFound);
    location.destroy().unwrap();
}

/// A process enters through the descriptor that a clone is given.
#[test]
fn a_process_enters_by_itself() {
    let Some(own) = Own::new("entry") else { return };
    let cgroup = own.create("{}").unwrap();
    let entry = cgroup.entry().unwrap();
    assert!(!entry.by_pid);
    assert_eq!(entry.into.is_some(), own.layout.mode != Mode::V1);
    for tasks in entry.tasks {
        let mut command = Command::new("sh");
        let child = child_with(command.args(["-c", "echo 0 && exec cat /proc/self/cgroup >&2"]), tasks);
        let text = String::from_utf8(child.stderr).unwrap();
        assert!(text.contains("/hydra-test-entry-"), "{text}");
    }
    assert!(cgroup.entry_below(&Sub::parse(&["none"]).unwrap()).is_err());
    assert!(Sub::parse(&["../x"]).is_err() && Sub::parse(&[":x"]).is_err());
    cgroup.destroy().unwrap();
}

fn child_with(command: &mut Command, out: OwnedFd) -> std::process::Output {
    command.stdout(Stdio::from(out)).stderr(Stdio::piped()).output().unwrap()
}

#[test]
fn a_refused_limit_leaves_no_directory() {
    let Some(own) = Own::new("rollback") else { return };
    // More CPUs than any machine has: the kernel says no after directories were made and limits set.
    let e = own.create(r#"{"pids":{"limit":5},"cpu":{"cpus":"4000-4001"}}"#).unwrap_err();
    assert!(e.to_string().contains("cpu.cpus"), "{e}");
    for b in &own.location.branches {
        assert!(!b.path.exists(), "{}", b.path.display());
        fs::remove_dir(b.path.parent().unwrap()).unwrap();
    }
    own.create(r#"{"cpu":{"cpus":"4000-4001"}}"#).unwrap_err();
    assert!(own.location.branches.iter().all(|b| !b.path.parent().unwrap().exists()), "also those above");
}

/// Every setting of a cgroup.
fn settings(location: &Location) -> BTreeMap<PathBuf, String> {
    let mut all = BTreeMap::new();
    for b in &location.branches {
        for entry in fs::read_dir(&b.path).unwrap().flatten() {
            let (name, path) = (entry.file_name(), entry.path());
            let name = name.to_string_lossy().into_owned();
            let counts =
                ["usage", "stat", "pressure", "event", "current", "numa", "slab", "peak", "procs", "reclaim"];
            let skip = entry.file_type().unwrap().is_dir() || counts.iter().any(|c| name.contains(c));
            // Groups of real-time tasks get their share as a whole.
            if skip || name == "tasks" || name == "cgroup.threads" {
                continue;
            }
            if let Ok(text) = fs::read_to_string(&path) {
                all.insert(path, text);
            }
        }
    }
    all
}

#[test]
fn each_failing_write_leaves_the_kernel_as_it_was() {
    let Some(own) = Own::new("faults") else { return };
    let cgroup = own.create(LIMITS).unwrap();
    let update = resources(
        r#"{"memory":{"limit":134217728,"reservation":8388608},"pids":{"limit":7},
        "cpu":{"shares":2048,"quota":20000,"period":50000,"burst":5000}}"#,
    );
    let plan = cgroup.plan(&own.layout, &update).unwrap();
    let before = settings(&own.location);
    assert!(plan.writes.len() >= 6);
    for failing in 0..plan.writes.len() {
        let mut t = Transaction::new();
        t.writes(&cgroup, &plan.writes).unwrap();
        let mut fault = |i: usize, _: &str| match i == failing {
            true => Err(cgroup::Error::new(Kind::System, "asked to fail")),
            false => Ok(()),
        };
        t.prepare().unwrap().commit_with(&mut fault).unwrap_err();
        assert_eq!(settings(&own.location), before, "after write {failing}");
    }
    let mut t = Transaction::new();
    t.writes(&cgroup, &plan.writes).unwrap();
    let report = t.run().unwrap();
    assert!(report.iter().all(|c| !c.rounded()), "{report:?}");
    assert_ne!(settings(&own.location), before);

    // What the kernel rounds is said.
    let odd = cgroup.plan(&own.layout, &resources(r#"{"memory":{"limit":100000001}}"#)).unwrap();
    let mut t = Transaction::new();
    t.writes(&cgroup, &odd.writes).unwrap();
    let report = t.run().unwrap();
    assert!(report[0].rounded(), "{report:?}");
    cgroup.destroy().unwrap();
}

#[test]
fn throttles_come_and_go() {
    let Some(own) = Own::new("io") else { return };
    if own.layout.version_of("blkio").is_none() && !has(&own.layout, "io") {
        return;
    }
    let host = cgroup::block::Host::new().unwrap();
    let loops = fs::read_to_string("/sys/block/loop0/dev").ok().and_then(|t| t.trim().parse().ok());
    let Some(device) = host.disks().first().copied().or(loops) else {
        println!("SKIP no disk and no loop device");
        return;
    };
    let list = |rate: u64| {
        let d = format!(r#"[{{"major":{},"minor":{},"rate":{rate}}}]"#, device.major, device.minor);
        format!(r#"{{"blockIO":{{"throttleReadBpsDevice":{d},"throttleWriteIOPSDevice":{d}}}}}"#)
    };
    let cgroup = own.create(&list(1_000_000)).unwrap();
    let shown = || {
        let (controller, file) = match own.layout.mode {
            Mode::V2 => ("io", "io.max"),
            _ => ("blkio", "blkio.throttle.read_bps_device"),
        };
        cgroup.dir(controller).unwrap().read(file).unwrap()
    };
    assert!(shown().contains(&device.to_string()) && shown().contains("1000000"), "{}", shown());
    let lifted = cgroup.plan(&own.layout, &resources(&list(0))).unwrap();
    let mut t = Transaction::new();
    t.writes(&cgroup, &lifted.writes).unwrap();
    t.pair("foreign", || Err(cgroup::Error::new(Kind::System, "no")), || Ok(()));
    t.run().unwrap_err();
    assert!(shown().contains("1000000"), "put back: {}", shown());
    let mut t = Transaction::new();
    t.writes(&cgroup, &lifted.writes).unwrap();
    t.run().unwrap();
    assert!(!shown().contains("1000000"), "{}", shown());
    cgroup.destroy().unwrap();
}

#[test]
fn running_out_of_memory_is_told() {
    let Some(own) = Own::new("oom") else { return };
    if !has(&own.layout, "memory") {
        return;
    }
    let mut cgroup = own.create(r#"{"memory":{"limit":8388608,"swap":8388608}}"#).unwrap();
    let mut watch = cgroup.watch_oom().unwrap();
    let mut command = Command::new("sh");
    let mut child = Process(child_piped(command.args(["-c", "read go && exec tail /dev/zero"])));
    cgroup.attach(child.pid()).unwrap();
    drop(child.0.stdin.take().map(|mut pipe| std::io::Write::write_all(&mut pipe, b"go\n")));
    let mut fds = [nix::poll::PollFd::new(watch.as_fd(), nix::poll::PollFlags::POLLIN)];
    nix::poll::poll(&mut fds, nix::poll::PollTimeout::from(30_000u16)).unwrap();
    child.0.wait().unwrap();
    let mut kills = 0;
    until("the count of kills", || {
        kills += watch.read().kills;
        kills > 0
    });
    assert_eq!(kills, 1);
    until("the empty cgroup", || watch.read().empty);
    assert_eq!(watch.read().kills, 0);
    cgroup.destroy().unwrap();
}

fn child_piped(command: &mut Command) -> Child {
    command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
}

/// Opens a device for reading inside a cgroup, and says what comes of it.
fn open_in(cgroup: &mut Cgroup, device: &str) -> String {
    let script = format!("read go; head -c0 {device} 2>&1");
    let mut command = Command::new("sh");
    let mut child =
        command.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    cgroup.attach(child.id() as i32).unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"go\n").unwrap();
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    child.wait().unwrap();
    text
}

const DEVICES: &str = r#"{"devices":[{"allow":false,"access":"rwm"},
    {"allow":true,"type":"c","major":1,"minor":3,"access":"rwm"},
    {"allow":true,"type":"c","major":1,"access":"r"},{"allow":false,"type":"c","major":1,"minor":9,"access":"r"}]}"#;

#[test]
fn devices_are_denied() {
    let Some(own) = Own::new("devices") else { return };
    // A hole in a wildcard can only be had on v2.
    let v1 = DEVICES.replace(r#"{"allow":true,"type":"c","major":1,"access":"r"},"#, "");
    let mut cgroup = own.create(if own.layout.mode == Mode::V2 { DEVICES } else { &v1 }).unwrap();
    assert_eq!(open_in(&mut cgroup, "/dev/null"), "");
    assert!(open_in(&mut cgroup, "/dev/urandom").contains("Operation not permitted"));
    cgroup.destroy().unwrap();
}

/// The program of v2 also works in the second hierarchy of a hybrid host.
#[test]
fn the_device_program_decides_and_is_replaced() {
    let Some(own) = Own::new("program") else { return };
    if own.layout.mode == Mode::V1 {
        println!("SKIP no hierarchy of version 2");
        return;
    }
    let mut cgroup = own.create("{}").unwrap();
    let dir = |c: &Cgroup| fs::File::open(c.unified().unwrap().path()).unwrap();
    let rules = resources(DEVICES).devices;
    cgroup::devices::attach(dir(&cgroup).as_fd(), &rules, true).unwrap();
    assert_eq!(open_in(&mut cgroup, "/dev/null"), "");
    assert_eq!(open_in(&mut cgroup, "/dev/zero"), "");
    assert!(open_in(&mut cgroup, "/dev/urandom").contains("Operation not permitted"));
    assert!(open_in(&mut cgroup, "/dev/tty").contains("Operation not permitted"));

    let mut all = rules;
    all.extend(cgroup::devices::default_rules());
    cgroup::devices::attach(dir(&cgroup).as_fd(), &all, false).unwrap();
    assert_eq!(open_in(&mut cgroup, "/dev/urandom"), "");
    cgroup.destroy().unwrap();
}

#[test]
fn what_lies_below_goes_too() {
    let Some(own) = Own::new("below") else { return };
    let cgroup = own.create("{}").unwrap();
    for b in &own.location.branches {
        fs::create_dir_all(b.path.join("a/b")).unwrap();
    }
    let sub = cgroup.entry_below(&Sub::parse(&["a/b"]).unwrap()).unwrap();
    assert_eq!(sub.tasks.len() + usize::from(sub.into.is_some()), own.location.branches.len());
    cgroup.destroy().unwrap();
    assert!(own.location.branches.iter().all(|b| !Path::new(&b.path).exists()));
}
