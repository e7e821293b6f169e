//! `process`: what the container's first process is given, seen from inside.

use integration::bundle::copy_program;
use integration::console::ConsoleSocket;
use integration::{differs, host, peer, skip, Container, Peer, Run};
use serde_json::json;
use std::fs;

/// The lines of /proc/self/status, as the container's `cat` has them.
fn status(c: &Container) -> impl Fn(&str) -> String {
    let text = c.run().ok().stdout;
    move |key| {
        let line = text.lines().find(|l| l.starts_with(key)).unwrap_or_else(|| panic!("no {key} in {text}"));
        line[key.len()..].trim_start_matches(':').split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

#[test]
fn the_environment_is_the_one_given() {
    let c = Container::new("env")
        .args(&["env"])
        .with(|c| c["process"]["env"] = json!(["PATH=/bin", "A=1", "B=x=y", "EMPTY="]));
    let out = c.run().ok().stdout;
    let mut lines: Vec<_> = out.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["A=1", "B=x=y", "EMPTY=", "HOME=/root", "PATH=/bin"]);
}

#[test]
fn what_is_no_variable_is_refused() {
    differs!(Crun, "passes it on");
    for entry in ["NAME", "=value", ""] {
        let c = Container::new("badenv").with(|c| c["process"]["env"] = json!(["PATH=/bin", entry]));
        c.run().fails_with("environment variable");
        assert_eq!(c.leftovers(), Vec::<String>::new());
    }
}

#[test]
fn the_last_of_two_values_counts() {
    differs!(Crun, "passes both on");
    let c =
        Container::sh("dup", "echo $A").with(|c| c["process"]["env"] = json!(["PATH=/bin", "A=1", "A=2"]));
    c.run().ok().says("2");
}

#[test]
fn home_comes_from_the_containers_passwd() {
    let c = Container::sh("home", "echo $HOME")
        .with(|c| c["process"]["user"] = json!({ "uid": 1000, "gid": 1000 }));
    c.run().ok().says("/home/user");
    let c = Container::sh("home", "echo $HOME").with(|c| {
        c["process"]["env"] = json!(["PATH=/bin", "HOME=/given"]);
    });
    c.run().ok().says("/given");
    let c =
        Container::sh("home", "echo $HOME").with(|c| c["process"]["user"] = json!({ "uid": 4242, "gid": 0 }));
    c.run().ok().says("/");
}

#[test]
fn programs_are_looked_up_in_the_containers_path() {
    let c = Container::new("path")
        .args(&["hello"])
        .with(|c| c["process"]["env"] = json!(["PATH=/nowhere:/opt:/bin"]));
    let c = c.prepare(|root| {
        fs::create_dir(root.join("opt")).unwrap();
        fs::write(root.join("opt/hello"), "#!/bin/sh\necho from opt\n").unwrap();
        Run::new("chmod").args(["755".as_ref(), root.join("opt/hello").as_os_str()]).ok();
    });
    c.run().ok().says("from opt");
}

#[test]
fn the_working_folder_is_made_when_missing() {
    Container::new("cwd")
        .args(&["pwd"])
        .with(|c| c["process"]["cwd"] = "/home/user".into())
        .run()
        .ok()
        .says("/home/user");
    Container::new("cwd")
        .args(&["pwd"])
        .with(|c| c["process"]["cwd"] = "/new/one".into())
        .run()
        .ok()
        .says("/new/one");
    Container::new("cwd").with(|c| c["process"]["cwd"] = "relative".into()).run().fails();
}

#[test]
fn user_and_groups_are_those_given() {
    let c = Container::sh("user", "id -u; id -g; grep Groups /proc/self/status").with(|c| {
        c["process"]["user"] = json!({ "uid": 1000, "gid": 1001, "additionalGids": [7, 2000] });
    });
    let out = c.run().ok().stdout;
    let words: Vec<_> = out.split_whitespace().collect();
    assert_eq!(&words[..2], ["1000", "1001"], "{out}");
    assert!(words.contains(&"7") && words.contains(&"2000"), "{out}");
    // Without any, the caller's own must be gone.
    let out = Container::sh("user", "grep Groups /proc/self/status").run().ok().stdout;
    assert!(
        ["Groups:", "Groups: 0"].contains(&out.split_whitespace().collect::<Vec<_>>().join(" ").as_str()),
        "{out}"
    );
}

#[test]
fn the_umask_is_the_one_given() {
    Container::sh("umask", "umask").run().ok().says("0022");
    let c = Container::sh("umask", "umask").with(|c| c["process"]["user"]["umask"] = 0o77.into());
    c.run().ok().says("0077");
}

#[test]
fn capabilities_are_exactly_those_named() {
    let c = Container::new("caps").args(&["cat", "/proc/self/status"]).with(|c| {
        let (kill, chown) = (json!(["CAP_KILL"]), json!(["CAP_KILL", "CAP_CHOWN"]));
        c["process"]["capabilities"] = json!({ "bounding": chown, "effective": kill, "permitted": chown });
    });
    let s = status(&c);
    assert_eq!(s("CapBnd"), "0000000000000021");
    assert_eq!(s("CapEff"), "0000000000000021", "root gets back by execve what is permitted");
    assert_eq!(s("CapInh"), "0000000000000000");
    assert_eq!(s("CapAmb"), "0000000000000000");
}

#[test]
fn a_plain_user_keeps_only_ambient_capabilities() {
    let set = json!(["CAP_NET_BIND_SERVICE"]);
    let c = Container::new("ambient").args(&["cat", "/proc/self/status"]).with(|c| {
        c["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
        c["process"]["capabilities"] =
            json!({ "bounding": set, "effective": set, "permitted": set, "inheritable": set, "ambient": set });
    });
    let s = status(&c);
    assert_eq!(s("CapEff"), "0000000000000400");
    assert_eq!(s("CapAmb"), "0000000000000400");
    let c = c.with(|c| {
        c["process"]["capabilities"] = json!({ "bounding": set, "effective": set, "permitted": set })
    });
    let s = status(&c);
    assert_eq!(s("CapEff"), "0000000000000000");
    assert_eq!(s("CapBnd"), "0000000000000400");
}

#[test]
fn without_capabilities_there_are_none() {
    differs!(Crun, "keeps the bounding set");
    let c = Container::new("nocaps").args(&["cat", "/proc/self/status"]).with(|c| {
        c["process"].as_object_mut().unwrap().remove("capabilities");
    });
    let s = status(&c);
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(s(set), "0000000000000000", "{set}");
    }
}

#[test]
fn no_new_privileges_is_as_given() {
    let c = Container::new("nnp").args(&["cat", "/proc/self/status"]);
    assert_eq!(status(&c)("NoNewPrivs"), "1");
    let c = c.with(|c| c["process"]["noNewPrivileges"] = false.into());
    assert_eq!(status(&c)("NoNewPrivs"), "0");
}

#[test]
fn rlimits_are_set() {
    let c = Container::sh("rlimits", "ulimit -S -n; ulimit -H -n; ulimit -S -c").with(|c| {
        c["process"]["rlimits"] = json!([
            { "type": "RLIMIT_NOFILE", "soft": 100, "hard": 200 }, { "type": "RLIMIT_CORE", "soft": 0, "hard": 0 }
        ]);
    });
    c.run().ok().says("100\n200\n0");
    Container::new("badlimit")
        .with(|c| c["process"]["rlimits"] = json!([{ "type": "RLIMIT_X", "soft": 1, "hard": 1 }]))
        .run()
        .fails();
}

/// In a user namespace no privilege counts for it: the runtime raises the limit from outside.
#[test]
fn a_hard_limit_is_raised_in_a_user_namespace() {
    const SYS_RESOURCE: u64 = 1 << 24;
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let caps = status.lines().find_map(|l| l.strip_prefix("CapEff:")).unwrap().trim().to_string();
    if u64::from_str_radix(&caps, 16).unwrap() & SYS_RESOURCE == 0 {
        skip!("root lacks CAP_SYS_RESOURCE here");
    }
    let show = "cat /proc/self/limits";
    let raise = |c: Container| {
        c.with(|c| {
            c["process"]["rlimits"] = json!([
                { "type": "RLIMIT_NOFILE", "soft": 3000, "hard": 4000 },
                { "type": "RLIMIT_NPROC", "soft": 5000, "hard": 6000 },
            ]);
        })
    };
    let raised = |whose: &str, limits: &str| {
        for (name, wanted) in [("Max open files", ["3000", "4000"]), ("Max processes", ["5000", "6000"])] {
            let line = limits.lines().find_map(|l| l.strip_prefix(name)).expect(limits);
            assert_eq!(line.split_whitespace().take(2).collect::<Vec<_>>(), wanted, "{name} of {whose}");
        }
    };
    // The runtime's own limit is below.
    let low = |c: &Container, verb: &[&str]| {
        c.bundle.write();
        let run =
            Run::new("prlimit").args(["--nofile=2000:2000", "--nproc=2500:2500"]).args([host::runtime()]);
        let run = run.args(["--root".as_ref(), c.root.as_os_str()]);
        if host::systemd_driver() { run.args(["--systemd-cgroup"]) } else { run }.args(verb).out()
    };
    let bundle = |c: &Container| c.bundle.dir.to_str().unwrap().to_string();
    let c = raise(Container::sleeping("userlimit").user_namespace());
    low(&c, &["run", "--detach", "--bundle", &bundle(&c), &c.id]).ok();
    raised("create", &fs::read_to_string(format!("/proc/{}/limits", c.pid())).unwrap());
    differs!(Crun, "gives what exec adds no limits of config.json's");
    raised("exec", &low(&c, &["exec", &c.id, "sh", "-c", show]).ok().stdout);
    // Another container joins the same user namespace.
    let path = format!("/proc/{}/ns/user", c.pid());
    let joined = raise(Container::sh("userlimitjoin", show).user_namespace()).namespace("user", Some(&path));
    differs!(Runc, "1.1 wants mappings and refuses them");
    let joined = joined.with(|c| {
        for maps in ["uidMappings", "gidMappings"] {
            drop(c["linux"].as_object_mut().unwrap().remove(maps));
        }
    });
    raised(
        "a joined namespace",
        &low(&joined, &["run", "--bundle", &bundle(&joined), &joined.id]).ok().stdout,
    );
}

#[test]
fn a_limit_named_twice_is_refused() {
    differs!(Crun, "takes the last");
    differs!(Runc, "1.1 takes the last");
    let limit = json!({ "type": "RLIMIT_NOFILE", "soft": 100, "hard": 200 });
    Container::new("twolimits").with(|c| c["process"]["rlimits"] = json!([limit, limit])).run().fails();
}

#[test]
fn the_oom_score_is_adjusted() {
    let c = Container::sh("oom", "cat /proc/self/oom_score_adj")
        .with(|c| c["process"]["oomScoreAdj"] = 321.into());
    c.run().ok().says("321");
}

#[test]
fn host_and_domain_names() {
    Container::new("host").args(&["hostname"]).run().ok().says("box");
    differs!(Runc, "1.1 has no domain names");
    let c = Container::sh("domain", "cat /proc/sys/kernel/domainname")
        .with(|c| c["domainname"] = "example.org".into());
    c.run().ok().says("example.org");
}

#[test]
fn a_scheduler_can_be_chosen() {
    differs!(Runc, "1.1 knows none");
    differs!(Crun, "1.8.1 sets it for real-time only");
    let c = Container::sh("sched", "cut -d' ' -f41,19 /proc/self/stat").with(|c| {
        c["process"]["scheduler"] = json!({ "policy": "SCHED_BATCH", "nice": 5 });
    });
    c.run().ok().says("5 3");
}

#[test]
fn an_io_priority_can_be_chosen() {
    differs!(Runc, "1.1 knows none");
    differs!(Crun, "1.8.1 knows none");
    let c = Container::sh("ionice", "ionice").with(|c| {
        c["process"]["ioPriority"] = json!({ "class": "IOPRIO_CLASS_BE", "priority": 6 });
    });
    let out = c.run().ok();
    assert!(out.stdout.contains("prio 6"), "{out}");
}

#[test]
fn personality_is_set() {
    differs!(Runc, "1.1.5 knows none");
    let c = Container::sh("personality", "uname -m")
        .with(|c| c["linux"]["personality"] = json!({ "domain": "LINUX32" }));
    c.run().ok().says("i686");
}

#[test]
fn only_standard_streams_are_open() {
    let c = Container::sh("fds", "for f in /proc/self/fd/*; do echo ${f##*/} $(readlink $f); done");
    // The callers' descriptors must not reach the container.
    let leak = fs::File::open("/etc/passwd").unwrap();
    nix::fcntl::fcntl(&leak, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
    let out = c.run().ok().stdout;
    drop(leak);
    assert!(!out.contains("/etc/passwd"), "{out}");
    let open: Vec<_> =
        out.lines().filter_map(|l| l.split(' ').next()).filter_map(|n| n.parse::<u32>().ok()).collect();
    // 3 is the shell's own look into the folder.
    assert!(open.iter().all(|n| *n <= 3), "{out}");
}

/// A filter that denies what hides them doesn't keep them open: they are hidden before it.
#[test]
fn no_filter_keeps_descriptors_open() {
    differs!(Runc, "hides them behind the filter, and fails");
    differs!(Crun, "hides them behind the filter, and fails");
    let c = Container::sh("fdfilter", "cat <&3; [ -e /proc/self/fd/9 ] || echo none").with(|c| {
        c["process"]["noNewPrivileges"] = false.into();
        c["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{
                "names": ["close_range", "open", "openat", "openat2", "getdents", "getdents64"],
                "action": "SCMP_ACT_ERRNO"
            }]
        });
    });
    c.bundle.write();
    let file = c.bundle.dir.join("given");
    fs::write(&file, "given\n").unwrap();
    let line = format!(
        "exec 3<{0} 9<{0}; exec {1} --root {2} run --preserve-fds 1 --bundle {3} {4}",
        file.display(),
        host::runtime().display(),
        c.root.display(),
        c.bundle.dir.display(),
        c.id
    );
    Run::sh(&line).ok().says("given\nnone");
}

#[test]
fn more_descriptors_than_there_can_be_are_refused() {
    differs!(Crun, "takes any number");
    let c = Container::new("fdcount");
    c.bundle.write();
    for count in ["1000000", "2147483645", "2147483648", "4294967295"] {
        let flags = ["--preserve-fds", count];
        c.run_with(&flags).fails();
    }
    assert_eq!(c.leftovers(), Vec::<String>::new());
}

#[test]
fn preserved_descriptors_are_passed_on() {
    let c = Container::sh("preserve", "cat <&3");
    c.bundle.write();
    let file = c.bundle.dir.join("given");
    fs::write(&file, "through the third").unwrap();
    let line = format!(
        "exec 3<{}; exec {} --root {} run --preserve-fds 1 --bundle {} {}",
        file.display(),
        host::runtime().display(),
        c.root.display(),
        c.bundle.dir.display(),
        c.id
    );
    Run::sh(&line).ok().says("through the third");
}

#[test]
fn listen_fds_are_passed_on() {
    differs!(Crun, "sets LISTEN_PID for create only");
    let c = Container::sh("listen", "echo $LISTEN_FDS $LISTEN_PID; cat <&3");
    c.bundle.write();
    let file = c.bundle.dir.join("given");
    fs::write(&file, "activated").unwrap();
    let line = format!(
        "exec 3<{}; export LISTEN_FDS=1 LISTEN_PID=$$; exec {} --root {} run --bundle {} {}",
        file.display(),
        host::runtime().display(),
        c.root.display(),
        c.bundle.dir.display(),
        c.id
    );
    Run::sh(&line).ok().says("1 1\nactivated");
}

#[test]
fn a_terminal_goes_through_the_console_socket() {
    let c = Container::sh(
        "tty",
        "tty; stty size; [ -c /dev/console ] && echo console; read word; echo got $word",
    )
    .with(|c| {
        c["process"]["terminal"] = true.into();
        c["process"]["consoleSize"] = json!({ "height": 33, "width": 111 });
    });
    let socket = ConsoleSocket::new(&c.id);
    c.create_with(&["--console-socket", socket.path.to_str().unwrap()]).ok();
    let (mut terminal, name) = socket.receive();
    assert!(name.contains("pts") || name.contains("ptmx"), "the payload names the terminal: {name:?}");
    c.start().ok();
    let mut seen = terminal.read_until("console\n");
    terminal.type_in("hello\n");
    seen += &terminal.read_to_end();
    assert!(
        seen.starts_with("/dev/pts/0\n") && seen.contains("33 111") && seen.contains("got hello"),
        "{seen}"
    );
    c.wait_for("stopped");
}

#[test]
fn the_terminal_controls_its_session() {
    let c =
        Container::sh("ctty", "trap 'echo interrupted; exit 5' INT; echo ready; while :; do sleep 0.1; done")
            .with(|c| c["process"]["terminal"] = true.into());
    let socket = ConsoleSocket::new(&c.id);
    c.create_with(&["--console-socket", socket.path.to_str().unwrap()]).ok();
    let (mut terminal, _) = socket.receive();
    c.start().ok();
    terminal.read_until("ready");
    terminal.type_in("\x03");
    assert!(terminal.read_to_end().contains("interrupted"));
}

#[test]
fn terminal_and_console_socket_go_together() {
    let c = Container::new("notty").with(|c| c["process"]["terminal"] = true.into());
    c.create().fails_with("console socket");
    let c = Container::new("nosocket");
    differs!(Crun, "does not mind");
    c.create_with(&["--console-socket", "/no/such/socket"]).fails_with("console socket");
}

#[test]
fn exec_has_a_terminal_of_its_own() {
    let c = Container::sleeping("exectty").up();
    let socket = ConsoleSocket::new(&c.id);
    let path = socket.path.to_str().unwrap().to_string();
    c.exec_with(&["-t", "-d", "--console-socket", &path], &["sh", "-c", "tty; read word; echo got $word"])
        .ok();
    let (mut terminal, _) = socket.receive();
    terminal.read_until("/dev/pts/0");
    terminal.type_in("more\n");
    assert!(terminal.read_to_end().contains("got more"));
}

#[test]
fn standard_streams_can_be_reopened_by_a_plain_user() {
    // docker run -u 1000 ... > /dev/stdout: the stream's owner is the container's user.
    let c = Container::sh("chown", "echo hello >/dev/stdout")
        .with(|c| c["process"]["user"] = json!({ "uid": 1000, "gid": 1000 }));
    c.bundle.write();
    let line = format!(
        "exec {} --root {} run --bundle {} {} | cat",
        host::runtime().display(),
        c.root.display(),
        c.bundle.dir.display(),
        c.id
    );
    Run::sh(&line).ok().says("hello");
}

#[test]
fn a_first_process_is_the_callers_child() {
    // Whoever calls `create` as a subreaper must get the SIGCHLD of the container's first process.
    let c = Container::sleeping("parent");
    c.create().ok();
    let status = fs::read_to_string(format!("/proc/{}/status", c.pid())).unwrap();
    let parent: i32 = status.lines().find_map(|l| l.strip_prefix("PPid:")).unwrap().trim().parse().unwrap();
    let name = fs::read_to_string(format!("/proc/{parent}/comm")).unwrap();
    assert!(!["runtime", "runc", "crun"].contains(&name.trim()), "a process of the runtime stays: {name}");
    // The first process may still carry the command line of `create`: nobody else may.
    let mut left = host::processes_with(&format!("create\0--bundle\0{}", c.bundle.dir.display()));
    left.retain(|pid| *pid != c.pid());
    assert_eq!(left, Vec::<i32>::new());
}

/// The service manager's side of sd_notify(3): every line that came, up to one that begins with `last`.
fn told(manager: &std::os::unix::net::UnixDatagram, last: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut buffer = [0u8; 4096];
    manager.set_read_timeout(Some(host::patience())).unwrap();
    while !lines.iter().any(|line: &String| line.starts_with(last)) {
        // A descriptor that comes along is closed, which answers a barrier.
        let length = manager.recv(&mut buffer).expect("a message of the container's");
        lines.extend(String::from_utf8_lossy(&buffer[..length]).lines().map(String::from));
    }
    lines
}

#[test]
fn the_manager_hears_that_the_container_is_ready_and_no_more() {
    differs!(Crun, "binds the manager's own socket");
    let beside = host::runtime().with_file_name("notifier");
    let notifier = if beside.exists() { beside } else { env!("CARGO_BIN_EXE_notifier").into() };
    let container = |name: &str| {
        let tell = "/notifier WATCHDOG=1 MAINPID=1 'READY=1\nSTATUS=up'";
        Container::sh(name, &format!("[ -S \"$NOTIFY_SOCKET\" ] && {tell} && exec sleep 1000000"))
            .prepare(|root| copy_program(&notifier, &root.join("notifier")))
    };
    let listen = |c: &Container| {
        c.bundle.write();
        let path = c.bundle.dir.join("manager");
        (std::os::unix::net::UnixDatagram::bind(&path).unwrap(), path)
    };
    let check = |c: &Container, lines: &[String], main: u32| {
        let main = format!("MAINPID={main}");
        assert!(lines.contains(&"READY=1".into()) && lines.contains(&main), "{}: {main}: {lines:?}", c.id);
        let other = |l: &&String| !["READY=1", "BARRIER=1", &main].contains(&l.as_str());
        assert_eq!(lines.iter().find(other), None, "{}", c.id);
    };

    // runc 1.1 sends no barrier.
    let last = if peer() == Peer::Runc { "MAINPID=" } else { "BARRIER=1" };
    let c = container("notifydetached");
    let (manager, path) = listen(&c);
    let hear = std::thread::spawn(move || told(&manager, last));
    let run = c.runtime().args(["run", "--detach", "--bundle"]).args([&c.bundle.dir]).args([&c.id]);
    run.env("NOTIFY_SOCKET", &path).stdout_to(c.bundle.dir.join("output")).ok();
    check(&c, &hear.join().unwrap(), c.pid() as u32);
    c.delete_force().ok();
    assert_eq!(c.leftovers(), Vec::<String>::new());

    let c = container("notifystart");
    let (manager, path) = listen(&c);
    let create = c.runtime().args(["create", "--bundle"]).args([&c.bundle.dir]).args([&c.id]);
    create.env("NOTIFY_SOCKET", &path).stdout_to(c.bundle.dir.join("output")).ok();
    let hear = std::thread::spawn(move || told(&manager, last));
    c.runtime().args(["start", &c.id]).env("NOTIFY_SOCKET", &path).ok();
    check(&c, &hear.join().unwrap(), c.pid() as u32);
    c.delete_force().ok();
    assert_eq!(c.leftovers(), Vec::<String>::new());

    // In the foreground the runtime is the service's main process.
    let c = container("notifyfront");
    let (manager, path) = listen(&c);
    let run = c.runtime().args(["run", "--bundle"]).args([&c.bundle.dir]).args([&c.id]);
    let run = run.env("NOTIFY_SOCKET", &path).start();
    check(&c, &told(&manager, "MAINPID="), run.pid() as u32);
    drop(manager);
    c.kill("KILL").ok();
    run.out().exits(137);
    assert_eq!(c.leftovers(), Vec::<String>::new());
}

#[test]
fn a_container_that_ends_before_it_is_ready_holds_nobody_up() {
    differs!(Runc, "1.1.5 waits on: it has a zombie for alive");
    differs!(Crun, "binds the manager's own socket");
    let c = Container::new("notifyend");
    c.bundle.write();
    let path = c.bundle.dir.join("manager");
    let manager = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    let run = c.runtime().args(["run", "--detach", "--bundle"]).args([&c.bundle.dir]).args([&c.id]);
    run.env("NOTIFY_SOCKET", &path).stdout_to(c.bundle.dir.join("output")).ok();
    manager.set_nonblocking(true).unwrap();
    assert!(manager.recv(&mut [0; 16]).is_err());
    c.delete_force().ok();
    assert_eq!(c.leftovers(), Vec::<String>::new());
}
