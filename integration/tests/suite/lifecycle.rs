//! create, start, kill, delete: the states, who may go where, and how a container's end is told.

use integration::{differs, eventually, host, peer, skip, Container, Peer, Run};
use nix::sys::signal::Signal;
use std::fs;
use std::os::unix::fs::PermissionsExt;

#[test]
fn a_container_passes_through_its_states() {
    let c = Container::sh("states", "echo started; exec sleep 1000000");
    c.create().ok();
    assert_eq!(c.status(), "created");
    assert_eq!(c.output(), "", "the program must not run before start");
    c.start().ok();
    assert_eq!(c.status(), "running");
    eventually("its output", || c.output() == "started\n");
    c.verb(&["pause", &c.id]).ok();
    assert_eq!(c.status(), "paused");
    c.verb(&["resume", &c.id]).ok();
    assert_eq!(c.status(), "running");
    c.kill("KILL").ok();
    c.wait_for("stopped");
    c.delete().ok();
    c.verb(&["state", &c.id]).fails_with("does not exist");
    assert_eq!(c.leftovers(), Vec::<String>::new());
}

#[test]
fn every_exit_status_comes_back() {
    let step = if host::quick() { 51 } else { 1 };
    let mut c = Container::new("codes");
    for code in (0..=255).step_by(step) {
        c = c.args(&["sh", "-c", &format!("exit {code}")]);
        c.run().exits(code);
    }
    assert_eq!(c.leftovers(), Vec::<String>::new());
}

#[test]
fn death_by_a_signal_is_128_and_its_number() {
    for (name, number) in [("KILL", 9), ("TERM", 15), ("USR1", 10), ("ABRT", 6)] {
        // The first process of a pid namespace is deaf to its own signals.
        let c = Container::sh("signal", &format!("kill -{name} $$")).without_namespace("pid");
        c.run().exits(128 + number);
    }
    let c = Container::sleeping("killed");
    let run = c.running(&[]);
    eventually("it runs", || c.verb(&["state", &c.id]).code == 0 && c.status() == "running");
    c.kill("KILL").ok();
    run.out().exits(137);
}

#[test]
fn signals_are_known_by_name_and_number() {
    for (given, number) in [
        ("TERM", 15),
        ("SIGTERM", 15),
        ("15", 15),
        ("HUP", 1),
        ("SIGUSR2", 12),
        ("10", 10),
        ("34", 34),
        ("64", 64),
    ] {
        let script =
            format!("trap 'echo got {number}; exit 0' {number}; echo ready; while :; do sleep 0.1; done");
        let c = Container::sh("signals", &script).up();
        eventually("it is ready", || c.output().contains("ready"));
        c.kill(given).ok();
        c.wait_for("stopped");
        assert!(c.output().contains(&format!("got {number}")), "{given}: {}", c.output());
    }
    let c = Container::sh(
        "default",
        "trap 'echo got TERM; exit 0' TERM; echo ready; while :; do sleep 0.1; done",
    )
    .up();
    eventually("it is ready", || c.output().contains("ready"));
    c.verb(&["kill", &c.id]).ok();
    c.wait_for("stopped");
    assert!(c.output().contains("got TERM"));
    let c = Container::sleeping("badsignal").up();
    for bad in ["NOSUCH", "-1", "65", "1x"] {
        assert_ne!(c.kill(bad).code, 0, "{bad:?}");
        assert_eq!(c.status(), "running");
    }
}

#[test]
fn a_stopped_container_cannot_be_killed_but_all_of_it_can() {
    let c = Container::new("stopped").up();
    c.wait_for("stopped");
    differs!(Crun, "says so in other words");
    c.kill("TERM").exits(1).fails_with("container not running");
    c.verb(&["kill", "--all", &c.id, "KILL"]).ok();
    c.verb(&["kill", "-a", &c.id, "9"]).ok();
}

#[test]
fn kill_all_reaches_every_process() {
    let c = Container::sh("killall", "sleep 1000000 & sleep 1000000 & wait").without_namespace("pid").up();
    eventually("three processes", || {
        c.verb(&["ps", "-f", "json", &c.id]).ok().json().as_array().is_some_and(|a| a.len() == 3)
    });
    let pids: Vec<i32> = c
        .verb(&["ps", "-f", "json", &c.id])
        .ok()
        .json()
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p.as_i64().unwrap() as i32)
        .collect();
    c.verb(&["kill", "--all", &c.id, "KILL"]).ok();
    eventually("all are gone", || pids.iter().all(|p| !host::alive(*p)));
}

#[test]
fn without_a_pid_namespace_the_rest_dies_with_delete() {
    let c = Container::sh("shared", "sleep 1000000 & sleep 1000000 & echo up; exit 0")
        .without_namespace("pid")
        .up();
    eventually("its start", || c.output().contains("up"));
    c.wait_for("stopped");
    c.delete_force().ok();
    assert_eq!(c.leftovers(), Vec::<String>::new());
}

#[test]
fn without_a_pid_namespace_the_rest_dies_with_a_kill() {
    differs!(Runc, "1.1.5 wants --all");
    differs!(Crun, "says that it is not running");
    let c = Container::sh("sharedkill", "sleep 1000000 & echo $! >/tmp/pid; exit 0")
        .without_namespace("pid")
        .up();
    c.wait_for("stopped");
    let text = fs::read_to_string(c.bundle.rootfs().join("tmp/pid")).unwrap();
    let rest: i32 = text.trim().parse().unwrap();
    assert!(host::alive(rest));
    c.kill("KILL").ok();
    eventually("the rest is gone", || !host::alive(rest));
    c.delete().ok();
    c.kill("KILL").fails_with("does not exist");
    assert_eq!(c.leftovers(), Vec::<String>::new());
}

#[test]
fn delete_wants_a_stopped_container_or_force() {
    let c = Container::sleeping("delete").up();
    let out = c.delete().exits(1);
    assert!(out.stderr.contains("not stopped"), "{out}");
    assert_eq!(c.status(), "running");
    c.verb(&["pause", &c.id]).ok();
    c.delete().fails();
    let pid = c.pid();
    c.delete_force().ok();
    assert!(!host::alive(pid));
    assert_eq!(c.leftovers(), Vec::<String>::new());
}

#[test]
fn what_was_never_started_can_be_deleted() {
    differs!(Crun, "wants force");
    let c = Container::new("created");
    c.create().ok();
    let pid = c.pid();
    c.delete().ok();
    assert!(!host::alive(pid));
    assert_eq!(c.leftovers(), Vec::<String>::new());
}

#[test]
fn a_created_container_can_be_killed() {
    let c = Container::new("killcreated");
    c.create().ok();
    c.kill("KILL").ok();
    c.wait_for("stopped");
    c.start().fails();
    c.delete().ok();
    assert_eq!(c.leftovers(), Vec::<String>::new());
}

#[test]
fn start_is_for_created_containers_only() {
    let c = Container::sleeping("startonce").up();
    c.start().fails();
    c.kill("KILL").ok();
    c.wait_for("stopped");
    c.start().fails();
}

#[test]
fn pause_and_resume_want_the_right_state() {
    let c = Container::sh("pause", "while :; do date +%s%N >/tmp/tick; done");
    c.create().ok();
    c.verb(&["resume", &c.id]).fails();
    c.start().ok();
    c.verb(&["resume", &c.id]).fails();
    let tick = || fs::read_to_string(c.bundle.rootfs().join("tmp/tick")).unwrap_or_default();
    eventually("it ticks", || !tick().is_empty());
    c.verb(&["pause", &c.id]).ok();
    let (before, _) = (tick(), std::thread::sleep(std::time::Duration::from_millis(100)));
    assert_eq!(tick(), before, "it ran while it was paused");
    c.exec(&["true"]).fails();
    c.verb(&["resume", &c.id]).ok();
    eventually("it ticks again", || tick() != before);
    c.exec(&["true"]).ok();
}

#[test]
fn a_paused_container_dies_when_killed() {
    let c = Container::sleeping("pausedkill").up();
    c.verb(&["pause", &c.id]).ok();
    c.kill("KILL").ok();
    if peer() != Peer::Hydra {
        let _ = c.verb(&["resume", &c.id]);
    }
    c.wait_for("stopped");
    c.delete().ok();
    assert_eq!(c.leftovers(), Vec::<String>::new());
}

#[test]
fn run_leaves_nothing_unless_told_to_keep() {
    let c = Container::sh("keep", "exit 3");
    c.run().exits(3);
    assert_eq!(c.leftovers(), Vec::<String>::new());
    c.verb(&["state", &c.id]).fails();
    c.run_with(&["--keep"]).exits(3);
    assert_eq!(c.status(), "stopped");
    c.delete().ok();
}

#[test]
fn run_detached_returns_at_once() {
    let c = Container::sleeping("detached");
    c.run_detached().ok();
    assert_eq!(c.status(), "running");
}

#[test]
fn a_foreground_run_passes_signals_on() {
    let c = Container::sh(
        "forward",
        "trap 'echo got TERM; exit 9' TERM; echo ready; while :; do sleep 0.1; done",
    );
    let run = c.running(&[]);
    eventually("it is ready", || run.stdout().contains("ready"));
    run.signal(Signal::SIGTERM);
    let out = run.out().exits(9);
    assert!(out.stdout.contains("got TERM"), "{out}");
}

/// By the words Docker and Podman tell 127 from 126.
#[test]
fn a_program_is_looked_up_as_runc_does() {
    differs!(Crun, "has rules of its own");
    let planted = |name: &str, dir: &str, mode: u32| {
        Container::new("lookup").args(&[name]).prepare(|root| {
            fs::create_dir_all(root.join(dir)).unwrap();
            let script = root.join(dir).join(name);
            fs::write(&script, "#!/bin/sh\necho planted\n").unwrap();
            fs::set_permissions(&script, fs::Permissions::from_mode(mode)).unwrap();
        })
    };
    let env = |c: Container, env: &[&str]| c.with(|c| c["process"]["env"] = env.into());
    let missing = r#"executable file not found in $PATH"#;

    let c = env(planted("not-executable", "opt/x", 0o644), &["PATH=/opt/x:/bin"]);
    c.run().fails_with(missing);
    let c = planted("out-of-reach", "opt/root", 0o755).prepare(|root| {
        fs::set_permissions(root.join("opt/root"), fs::Permissions::from_mode(0o700)).unwrap();
    });
    let c = env(c, &["PATH=/opt/root:/bin"]).with(|c| {
        c["process"]["user"]["uid"] = 1000.into();
        c["process"]["capabilities"] = serde_json::json!({});
    });
    c.run().fails_with(missing);

    // A working directory that others may write.
    let here = |path: &[&str]| env(planted("here", "opt/here", 0o755), path);
    let here = |path: &[&str]| here(path).with(|c| c["process"]["cwd"] = "/opt/here".into());
    here(&["A=b"]).run().fails_with(missing);
    here(&["PATH="]).run().fails_with(missing);
    let relative = "cannot run executable found relative to current directory";
    for path in ["PATH=:/bin", "PATH=/bin:", "PATH=/bin:.", "PATH=../here"] {
        here(&[path]).run().fails_with(relative);
    }
    here(&["PATH=/opt/here:."]).run().ok().says("planted");

    let c = Container::sleeping("execlookup").with(|c| c["process"]["cwd"] = "/tmp".into()).up();
    let script = c.bundle.rootfs().join("tmp/here");
    fs::write(&script, "#!/bin/sh\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let exec = |env: &[&str]| {
        c.exec_process(&[], |p| {
            p["args"] = serde_json::json!(["here"]);
            p["env"] = env.into();
        })
    };
    exec(&[]).exits(255).fails_with(missing);
    exec(&["PATH=:/bin"]).exits(255).fails_with(relative);
}

#[test]
fn standard_streams_are_the_callers() {
    let c = Container::sh("stdio", "read line; echo out $line; echo err $line >&2");
    c.bundle.write();
    let out = c.runtime().args(["run", "-b"]).args([&c.bundle.dir]).args([&c.id]).stdin("word\n").ok();
    assert_eq!((out.stdout.as_str(), out.stderr.as_str()), ("out word\n", "err word\n"));
}

#[test]
fn a_program_that_is_not_there_is_found_missing_at_create() {
    let c = Container::new("nofile").args(&["no-such-program"]);
    let out = c.create().fails();
    assert!(out.stderr.contains("executable file") && out.stderr.contains("not found in $PATH"), "{out}");
    if peer() != Peer::Crun {
        let text = out.stderr.replace('\\', "");
        assert!(text.contains(r#"exec: "no-such-program": executable file not found in $PATH"#), "{out}");
    }
    let c = Container::new("nopath").args(&["/no/such/program"]);
    c.create().fails_with("no such file or directory");
    let c = Container::new("noexec").args(&["/etc/passwd"]);
    let out = c.create();
    let out = if out.code == 0 { c.start() } else { out };
    assert!(out.stderr.to_lowercase().contains("permission denied"), "{out}");
    let c = Container::new("isdir").args(&["/etc"]);
    let out = c.create();
    let out = if out.code == 0 { c.start() } else { out };
    let text = out.stderr.to_lowercase();
    assert!(text.contains("permission denied") || text.contains("is a directory"), "{out}");
    c.delete_force().ok();
    assert_eq!(c.leftovers(), Vec::<String>::new());
}

/// What can't be executed is known only after the pid was told.
#[test]
fn no_pid_file_tells_of_what_did_not_start() {
    differs!(Runc, "1.1 leaves it");
    differs!(Crun, "1.8.1 leaves it");
    let c = Container::new("nopid").args(&["/tmp/garbage"]).prepare(|root| {
        fs::write(root.join("tmp/garbage"), "\u{7f}ELF").unwrap();
        fs::set_permissions(root.join("tmp/garbage"), fs::Permissions::from_mode(0o755)).unwrap();
    });
    let file = c.bundle.dir.join("pid");
    let flags = ["--pid-file", file.to_str().unwrap()];
    c.run_with(&flags).fails_with("exec format error");
    assert!(!file.exists(), "by run");
    let c = c.args(&["sleep", "1000000"]).up();
    c.exec_with(&flags, &["/tmp/garbage"]).fails_with("exec format error");
    assert!(!file.exists(), "by exec");
    c.exec_with(&flags, &["true"]).ok();
    assert!(file.exists());
}

/// A create that fails in its first step doesn't take the name for ever; a start that fails has started nothing.
#[test]
fn what_fails_before_it_begins_changes_nothing() {
    if peer() != Peer::Hydra {
        skip!("by strace, in the calls and files of this runtime");
    }
    let c = Container::sleeping("early").with(|c| {
        c["hooks"] = serde_json::json!({ "poststart": [{ "path": "/bin/true" }] });
    });
    c.bundle.write();
    let folder = c.root.join(&c.id);
    let run = Run::new("strace").args(["-f", "-q", "-o", "/dev/null", "-P"]).args([&folder]);
    let run = run.args(["-e", "inject=openat:error=EMFILE:when=1"]).args([host::runtime()]);
    let run = run.args(["--root"]).args([&c.root]).args(host::systemd_driver().then_some("--systemd-cgroup"));
    run.args(["create", "--bundle"])
        .args([&c.bundle.dir])
        .args([&c.id])
        .out()
        .fails_with("too many open files");
    assert_eq!(c.leftovers(), Vec::<String>::new());
    c.create().ok();
    let kept = fs::read(folder.join("config.json")).unwrap();
    fs::write(folder.join("config.json"), "{").unwrap();
    c.start().fails_with("config.json");
    assert_eq!(c.status(), "created");
    fs::write(folder.join("config.json"), kept).unwrap();
    c.start().ok();
    assert_eq!(c.status(), "running");
}

#[test]
fn a_failed_create_leaves_nothing() {
    type Breakage = (&'static str, fn(&mut serde_json::Value));
    let breakages: [Breakage; 6] = [
        ("args", |c| c["process"]["args"] = serde_json::json!(["no-such-program"])),
        ("mount", |c| c["mounts"][1]["type"] = "nosuchfs".into()),
        ("cwd", |c| c["process"]["cwd"] = "/etc/passwd/below".into()),
        ("rootfs", |c| c["root"]["path"] = "nowhere".into()),
        ("namespace", |c| c["linux"]["namespaces"][1]["path"] = "/no/such/netns".into()),
        ("sysctl", |c| c["linux"]["sysctl"] = serde_json::json!({"net.no.such": "1"})),
    ];
    for (name, change) in breakages {
        let c = Container::new(name).with(change);
        c.create().fails();
        let left: Vec<_> = c.leftovers();
        assert_eq!(left, Vec::<String>::new(), "{name}");
        assert_eq!(host::processes_with(&c.id), Vec::<i32>::new(), "{name}");
    }
}

#[test]
fn a_process_is_told_apart_from_a_later_one_with_its_number() {
    // The program under test must look at the start time too: here the state names a living process of ours.
    differs!(Crun, "its state is laid out otherwise");
    differs!(Runc, "its state is laid out otherwise");
    let c = Container::new("reuse").up();
    c.wait_for("stopped");
    let mut other = Run::new("sleep").args(["1000000"]).start();
    let file = c.root.join(&c.id).join("state.json");
    let mut state: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let pid = ["pid", "init_pid", "initPid"].into_iter().find(|k| state[k].is_number()).map(str::to_string);
    let Some(pid) = pid else { integration::skip!("no number in state.json to change") };
    state[pid.as_str()] = other.pid().into();
    fs::write(&file, state.to_string()).unwrap();
    assert_eq!(c.status(), "stopped");
    c.delete_force().ok();
    assert!(host::alive(other.pid()), "a stranger was killed");
    let _ = &mut other;
}

/// `CYCLES=10000` for more than the thousand of every day.
#[test]
fn many_containers_come_and_go_without_a_trace() {
    let asked = std::env::var("CYCLES").ok().and_then(|n| n.parse().ok());
    let cycles = asked.unwrap_or(if host::quick() { 20 } else { 1000 });
    let cycles = if peer() == Peer::Hydra { cycles } else { cycles.min(50) };
    let c = Container::new("cycle").args(&["sleep", "1000000"]);
    let trace = || {
        let fds = fs::read_dir("/proc/self/fd").unwrap().count();
        let bytes = Run::new("du").args(["-sb"]).args([&c.root]).ok().stdout;
        let own = host::cgroup_dirs(&integration::janitor::name());
        let cgroups: usize =
            own.iter().map(|d| fs::read_dir(d).map_or(0, |all| all.filter(is_cycles).count())).sum();
        (fds < 200, bytes, cgroups, host::mounts_below(&c.bundle.dir).len(), c.leftovers())
    };
    fn is_cycles(entry: &std::io::Result<fs::DirEntry>) -> bool {
        entry.as_ref().is_ok_and(|e| e.file_name().to_string_lossy().starts_with("cycle-"))
    }
    c.create().ok();
    c.delete_force().ok();
    let before = trace();
    let start = std::time::Instant::now();
    for n in 0..cycles {
        c.create().ok();
        c.start().ok();
        if n % 10 == 0 {
            c.exec(&["true"]).ok();
        }
        if n % 2 == 0 {
            c.kill("KILL").ok();
            eventually("its end", || c.status() == "stopped");
            c.delete().ok();
        } else {
            c.delete_force().ok();
        }
    }
    assert_eq!(trace(), before);
    assert_eq!(host::processes_with(&c.id), Vec::<i32>::new());
    println!("{cycles} cycles in {:.0} s", start.elapsed().as_secs_f64());
}

/// Between the moment when its process is ready and the end of `create`, which waits here for the pid file's reader.
#[test]
fn a_create_whose_process_dies_at_the_end_leaves_nothing() {
    if peer() != Peer::Hydra {
        skip!("a peer's pid file is made otherwise");
    }
    let c = Container::sleeping("diesready");
    c.bundle.write();
    let (file, fifo) = (c.bundle.dir.join("pid"), c.bundle.dir.join(".pid"));
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let create = c.runtime().args(["create", "--pid-file"]).args([&file]);
    let create = create.args(["--bundle".as_ref(), c.bundle.dir.as_os_str()]).args([&c.id]).start();
    let pid = || Some(c.verb(&["state", &c.id])).filter(|out| out.code == 0)?.json()["pid"].as_i64();
    eventually("its process is ready", || pid().is_some_and(|pid| pid > 0));
    let pid = nix::unistd::Pid::from_raw(pid().unwrap() as i32);
    nix::sys::signal::kill(pid, Signal::SIGKILL).unwrap();
    eventually("its process is dead", || c.status() == "stopped");
    fs::read(&fifo).unwrap();
    create.out().fails_with("SIGKILL");
    assert_eq!(c.leftovers(), Vec::<String>::new());
}

/// runc keeps a `state.json` too, and both may be given one root.
#[test]
fn another_runtimes_container_is_left_alone() {
    if peer() != Peer::Hydra {
        skip!("the other runtime is runc");
    }
    let runc = std::path::Path::new("/usr/sbin/runc");
    if !runc.exists() {
        skip!("runc is not installed");
    }
    let c = Container::sleeping("foreign");
    c.bundle.write();
    let by_runc = |args: &[&str]| Run::new(runc).args(["--root".as_ref(), c.root.as_os_str()]).args(args);
    let bundle = c.bundle.dir.to_str().unwrap();
    let start = by_runc(&["run", "--detach", "--bundle", bundle, &c.id]);
    start.stdout_to(c.bundle.dir.join("output")).ok();
    let pid = by_runc(&["state", &c.id]).ok().json()["pid"].as_i64().unwrap() as i32;
    assert_eq!(c.verb(&["list", "-q"]).ok().stdout, "");
    for verb in ["state", "start", "pause"] {
        c.verb(&[verb, &c.id]).fails_with("container does not exist");
    }
    c.kill("KILL").fails_with("container does not exist");
    c.delete().fails_with("another runtime's");
    c.delete_force().fails_with("another runtime's");
    c.create().fails_with("already exists");
    assert!(host::alive(pid));
    assert_eq!(by_runc(&["state", &c.id]).ok().json()["status"], "running");
    by_runc(&["delete", "--force", &c.id]).ok();
    // crun's directory has a file of another name.
    let dir = c.root.join(&c.id);
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("status"), "{}").unwrap();
    c.delete_force().fails_with("another runtime's");
    fs::remove_file(dir.join("status")).unwrap();
    // A create that was killed before it wrote its state.
    fs::write(dir.join("config.json"), "{").unwrap();
    c.delete_force().ok();
    assert_eq!(c.leftovers(), Vec::<String>::new());
}
