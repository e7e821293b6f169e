//! `exec`: one more process in a container.

use integration::{differs, eventually, host, Container};
use serde_json::json;
use std::fs;

#[test]
fn exec_runs_inside_and_returns_the_status() {
    let c = Container::sleeping("exec").up();
    c.exec(&["sh", "-c", "echo inside $(hostname); exit 7"]).exits(7).says("inside box");
    c.exec(&["true"]).exits(0);
    for code in [1, 2, 125, 126, 127, 128, 255] {
        c.exec(&["sh", "-c", &format!("exit {code}")]).exits(code);
    }
    c.exec(&["sh", "-c", "kill -TERM $$"]).exits(143);
}

#[test]
fn what_cannot_be_started_is_255_and_named() {
    let c = Container::sleeping("execbad").up();
    let out = c.exec(&["no-such-program"]);
    assert!(out.stderr.contains("not found in $PATH"), "{out}");
    assert!(out.code == 255 || integration::peer() == integration::Peer::Crun, "{out}");
    let out = c.exec(&["/etc/passwd"]).fails();
    assert!(out.stderr.to_lowercase().contains("permission denied"), "{out}");
}

/// What a flag says wrongly is told apart from the command's own exit codes, too.
#[test]
fn wrong_values_of_flags_are_255() {
    differs!(Crun, "has other codes");
    let c = Container::sleeping("execvalues").up();
    for flag in ["--user=x", "--user=1:x", "--additional-gids=-3", "--cgroup=:x", "--cgroup=a:x,--cgroup=y"] {
        let flags: Vec<&str> = flag.split(',').collect();
        let out = c.exec_with(&flags, &["true"]);
        assert!(out.code == 255 && out.stderr.contains("exec failed: "), "{flag}: {out}");
    }
}

#[test]
fn options_end_at_the_id() {
    let c = Container::sleeping("execflags").up();
    c.exec(&["echo", "--tty", "-d", "--", "-x"]).ok().says("--tty -d -- -x");
}

#[test]
fn exec_sees_the_containers_namespaces() {
    let c = Container::sleeping("execns").up();
    for ns in ["pid", "net", "ipc", "uts", "mnt"] {
        let link = format!("/proc/self/ns/{ns}");
        let first = fs::read_link(format!("/proc/{}/ns/{ns}", c.pid())).unwrap();
        c.exec(&["readlink", &link]).ok().says(first.to_str().unwrap());
    }
    c.exec(&["sh", "-c", "echo 1 2>/dev/null >/proc/sys/kernel/x; cat /proc/1/comm"]).ok().says("sleep");
}

#[test]
fn exec_joins_every_cgroup() {
    let c = Container::sleeping("execcg").up();
    let file = c.bundle.dir.join("pid");
    c.exec_with(&["--detach", "--pid-file", file.to_str().unwrap()], &["sleep", "1000000"]).ok();
    let pid = fs::read_to_string(&file).unwrap();
    let of = |pid: &str| fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert_eq!(of(&pid), of(&c.pid().to_string()));
    let pids = c.verb(&["ps", "-f", "json", &c.id]).ok().json();
    let pid: i64 = pid.parse().unwrap();
    assert!(pids.as_array().unwrap().iter().any(|p| *p == pid), "{pids}");
}

#[test]
fn flags_change_the_process() {
    let c = Container::sleeping("execflag").up();
    c.exec_with(&["--cwd", "/home/user"], &["pwd"]).ok().says("/home/user");
    c.exec_with(&["-e", "A=1", "-e", "B=2"], &["sh", "-c", "echo $A $B"]).ok().says("1 2");
    c.exec_with(&["--user", "1000:2000"], &["sh", "-c", "id -u; id -g"]).ok().says("1000\n2000");
    c.exec_with(&["-u", "1000"], &["id", "-u"]).ok().says("1000");
    c.exec_with(&["--no-new-privs"], &["grep", "NoNewPrivs", "/proc/self/status"])
        .ok()
        .says("NoNewPrivs:\t1");
    c.exec_with(&["--cap", "CAP_SYS_NICE"], &["sh", "-c", "grep CapEff /proc/self/status"]).ok();
    for bad in ["-5", "1000:", "x:y", "1:2:3", "99999999999", "+1"] {
        let out = c.exec_with(&[&format!("--user={bad}")], &["true"]);
        if integration::peer() == integration::Peer::Hydra {
            out.fails();
        }
    }
}

#[test]
fn additional_groups_can_be_given() {
    differs!(Crun, "has no -g");
    let c = Container::sleeping("execgroups").up();
    let out = c.exec_with(&["-g", "7", "-g", "8"], &["id", "-G"]).ok();
    assert_eq!(out.stdout.split_whitespace().collect::<Vec<_>>(), ["0", "7", "8"], "{out}");
}

#[test]
fn a_process_object_replaces_everything() {
    let c = Container::sleeping("execproc").up();
    let out = c.exec_process(&[], |p| {
        p["args"] =
            json!(["sh", "-c", "echo $ONLY; pwd; id -u; id -G; ulimit -n; grep CapEff /proc/self/status"]);
        p["env"] = json!(["PATH=/bin", "ONLY=this"]);
        p["cwd"] = "/tmp".into();
        p["user"] = json!({ "uid": 1000, "gid": 1000, "additionalGids": [2000] });
        p["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 77, "hard": 77 }]);
    });
    assert_eq!(out.ok().stdout, "this\n/tmp\n1000\n1000 2000\n77\nCapEff:\t0000000000000000\n");
}

#[test]
fn what_a_process_object_leaves_out_is_the_containers() {
    let c = Container::sleeping("execinherit").with(|c| {
        let p = &mut c["process"];
        p["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 77, "hard": 88 }]);
        p["oomScoreAdj"] = 321.into();
        p["user"]["umask"] = 0o27.into();
        p["scheduler"] = json!({ "policy": "SCHED_BATCH", "nice": 5 });
        p["ioPriority"] = json!({ "class": "IOPRIO_CLASS_BE", "priority": 6 });
        p["execCPUAffinity"] = json!({ "final": "0" });
    });
    let c = c.up();
    let ask = |script: &str| {
        let out = c.exec_process(&[], |p| {
            *p = json!({ "args": ["sh", "-c", script], "cwd": "/", "env": ["PATH=/bin:/usr/bin"], "user": { "uid": 0, "gid": 0 } });
        });
        out.ok().stdout
    };
    differs!(Crun, "1.8.1 takes none");
    assert_eq!(ask("cat /proc/self/oom_score_adj"), "321\n");
    differs!(Runc, "1.1 knows none of the others, nor takes the limits");
    let limits = "ulimit -S -n; ulimit -H -n; cat /proc/self/oom_score_adj";
    assert_eq!(ask(limits), "77\n88\n321\n");
    let others =
        "umask; cut -d' ' -f41,19 /proc/self/stat; ionice -p $$; grep Cpus_allowed_list /proc/self/status";
    assert_eq!(ask(others), "0027\n5 3\nbest-effort: prio 6\nCpus_allowed_list:\t0\n");
    let own = c.exec_process(&[], |p| {
        p["args"] = json!(["sh", "-c", limits]);
        p["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 66, "hard": 66 }]);
        p["oomScoreAdj"] = 322.into();
    });
    assert_eq!(own.ok().stdout, "66\n66\n322\n", "what it says counts");
}

#[test]
fn a_process_object_has_its_own_umask() {
    differs!(Runc, "1.1 keeps 0022");
    let c = Container::sleeping("execumask").up();
    c.exec_process(&[], |p| {
        p["args"] = json!(["sh", "-c", "umask"]);
        p["user"]["umask"] = 0o27.into();
    })
    .ok()
    .says("0027");
}

#[test]
fn exec_detached_leaves_an_orphan_that_runs() {
    let c = Container::sleeping("execd").up();
    let file = c.bundle.dir.join("pid");
    c.exec_with(&["-d", "--pid-file", file.to_str().unwrap()], &["sleep", "1000000"]).ok();
    let pid: i32 = fs::read_to_string(&file).unwrap().parse().unwrap();
    assert!(host::alive(pid));
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let parent: i32 = status.lines().find_map(|l| l.strip_prefix("PPid:")).unwrap().trim().parse().unwrap();
    let comm = fs::read_to_string(format!("/proc/{parent}/comm")).unwrap();
    assert!(!["runtime", "runc", "crun"].contains(&comm.trim()), "its parent is {comm}");
    c.kill("KILL").ok();
    eventually("it dies with the container", || !host::alive(pid));
}

#[test]
fn exec_wants_a_running_container() {
    let c = Container::sleeping("execstate");
    c.create().ok();
    c.exec(&["true"]).ok();
    c.start().ok();
    c.verb(&["pause", &c.id]).ok();
    c.exec(&["true"]).fails();
    c.verb(&["resume", &c.id]).ok();
    c.kill("KILL").ok();
    c.wait_for("stopped");
    c.exec(&["true"]).fails();
}

#[test]
fn exec_has_its_own_streams() {
    let c = Container::sleeping("execio").up();
    let run =
        c.runtime().args(["exec", &c.id, "sh", "-c", "read x; echo out $x; echo err $x >&2"]).stdin("word\n");
    let out = run.ok();
    assert_eq!((out.stdout.as_str(), out.stderr.as_str()), ("out word\n", "err word\n"));
}

#[test]
fn exec_under_the_containers_seccomp_filter() {
    let c = Container::sleeping("execseccomp").with(|c| {
        c["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
            "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95 }]
        });
    });
    let c = c.up();
    let out = c.exec(&["mkdir", "/tmp/x"]).fails();
    assert!(out.stderr.contains("not supported"), "{out}");
}

#[test]
fn many_execs_leave_nothing() {
    let c = Container::sleeping("execmany").up();
    let rounds = if host::quick() { 5 } else { 50 };
    for _ in 0..rounds {
        c.exec(&["true"]).ok();
    }
    c.verb(&["ps", "-f", "json", &c.id]).ok().json().as_array().map(|a| assert_eq!(a.len(), 1)).unwrap();
}
