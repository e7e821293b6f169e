//! Hooks of all six kinds: when, where, with what, and what happens when they fail.

use integration::{differs, eventually, skip, Container, Peer};
use serde_json::{json, Value};
use std::fs;

/// A hook that appends a line to a file.
fn hook(script: &str) -> Value {
    json!([{ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"] }])
}

/// Hooks of the runtime's namespaces are not in a pid namespace that the container joins, where its processes could kill them, nor in
/// its time.
#[test]
fn hooks_stay_in_the_runtimes_namespaces() {
    differs!(Runc, "1.1 knows no time namespaces");
    differs!(Crun, "1.8.1 knows no time namespaces");
    let host = Container::sleeping("hookns").up();
    let own = |name: &str| fs::read_link(format!("/proc/self/ns/{name}")).unwrap().display().to_string();
    let kinds = ["prestart", "createRuntime", "poststart", "poststop"];
    let seen = |c: Container| {
        let log = c.bundle.dir.join("log");
        let c = c.with(|config| {
            let script =
                format!("(readlink /proc/self/ns/pid; readlink /proc/self/ns/time) >>{}", log.display());
            for kind in kinds {
                config["hooks"][kind] = hook(&script);
            }
        });
        c.run().ok();
        c.delete_force();
        let text = fs::read_to_string(&log).unwrap();
        text.lines().map(str::to_string).collect::<Vec<_>>()
    };
    let wanted: Vec<String> = kinds.iter().flat_map(|_| [own("pid"), own("time")]).collect();
    let path = format!("/proc/{}/ns/pid", host.pid());
    assert_eq!(seen(Container::new("hookpid").args(&["true"]).namespace("pid", Some(&path))), wanted);
    if std::path::Path::new("/proc/self/ns/time").exists() {
        assert_eq!(seen(Container::new("hooktime").args(&["true"]).namespace("time", None)), wanted);
    }
}

/// A filter that denies what no program of the container's needs doesn't keep its hooks from running.
#[test]
fn start_hooks_run_under_narrow_filters() {
    let c = Container::new("hookfilter").args(&["ls", "/tmp/hooked"]).with(|c| {
        let denied = ["memfd_create", "lseek", "fcntl"];
        c["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": denied, "action": "SCMP_ACT_ERRNO" }]
        });
        c["hooks"]["startContainer"] = hook("touch /tmp/hooked");
    });
    c.run().ok().says("/tmp/hooked");
}

#[test]
fn a_timeout_may_be_longer_than_the_clock() {
    differs!(Crun, "takes no more than 32 bits");
    let c = Container::new("hooktime").args(&["true"]).with(|c| {
        for kind in ["createRuntime", "createContainer", "startContainer", "poststart", "poststop"] {
            c["hooks"][kind] =
                json!([{ "path": "/bin/sh", "args": ["sh", "-c", "exit 0"], "timeout": 1_u64 << 33 }]);
        }
    });
    c.run().ok();
    let c = c.with(|c| c["hooks"]["poststop"][0]["timeout"] = i64::MAX.into());
    differs!(Runc, "multiplies it by nanoseconds");
    c.run().ok();
}

#[test]
fn create_hooks_have_the_callers_umask() {
    let c = Container::new("hookumask").args(&["true"]);
    let made = c.bundle.dir.join("made");
    let c = c.with(|c| c["hooks"]["createContainer"] = hook(&format!("touch {}", made.display())));
    c.run().ok();
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&made).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o644);
}

#[test]
fn a_create_container_hook_begins_in_the_root() {
    differs!(Crun, "1.8.1 leaves it in the bundle");
    let c = Container::new("hookcwd").args(&["cat", "/etc/made-by-hook"]);
    let c = c.with(|c| c["hooks"]["createContainer"] = hook("echo made >etc/made-by-hook"));
    c.run().ok().says("made");
}

#[test]
fn hooks_run_in_order_with_the_state_on_stdin() {
    let c = Container::sleeping("hooks");
    let log = c.bundle.dir.join("log");
    fs::write(&log, "").unwrap();
    let kinds = ["prestart", "createRuntime", "createContainer", "poststart", "poststop"];
    let c = c.with(|config| {
        for kind in kinds {
            config["hooks"][kind] = hook(&format!("(echo {kind}; cat; echo) >>{}", log.display()));
        }
    });
    c.create().ok();
    let seen = || fs::read_to_string(&log).unwrap();
    let names = |text: &str| -> Vec<String> {
        text.lines().filter(|l| kinds.contains(l)).map(str::to_string).collect()
    };
    if integration::peer() != Peer::Runc {
        // runc 1.1 runs poststart at the end of create.
        assert_eq!(names(&seen()), kinds[..3], "{}", seen());
    }
    c.start().ok();
    assert_eq!(names(&seen()), kinds[..4], "{}", seen());
    let pid = c.pid();
    c.delete_force().ok();
    assert_eq!(names(&seen()), kinds, "{}", seen());
    for line in seen().lines().filter(|l| l.starts_with('{')) {
        let state: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert_eq!(state["id"], c.id.as_str());
        assert_eq!(state["bundle"], c.bundle.dir.to_str().unwrap());
        // A hook inside the container's namespaces may be told the number that counts there.
        assert!(state["status"] == "stopped" || state["pid"] == pid || state["pid"] == 1, "{state}");
    }
}

#[test]
fn create_hooks_find_the_network_namespace_by_pid() {
    let c = Container::new("netnshook");
    let out = c.bundle.dir.join("ns");
    let script = format!(
        "pid=$(tr ',' '\\n' | grep '\"pid\"' | tr -dc 0-9); readlink /proc/$pid/ns/net >{}",
        out.display()
    );
    let c = c.with(|config| config["hooks"]["createRuntime"] = hook(&script));
    c.create().ok();
    let own = fs::read_link(format!("/proc/{}/ns/net", c.pid())).unwrap();
    assert_eq!(fs::read_to_string(&out).unwrap().trim(), own.to_str().unwrap());
}

#[test]
fn a_start_container_hook_runs_inside() {
    let c = Container::sh("starthook", "cat /tmp/made").with(|config| {
        config["hooks"]["startContainer"] =
            json!([{ "path": "/bin/sh", "args": ["sh", "-c", "hostname >/tmp/made"] }]);
    });
    c.run().ok().says("box");
}

#[test]
fn the_hooks_environment_is_its_own() {
    let c = Container::new("hookenv");
    let out = c.bundle.dir.join("env");
    let c = c.with(|config| {
        config["hooks"]["createRuntime"] = json!([{
            "path": "/usr/bin/env", "args": ["env", "sh", "-c", format!("env >{}", out.display())], "env": ["PATH=/usr/bin:/bin", "ONLY=this"]
        }]);
    });
    c.run().ok();
    let env = fs::read_to_string(&out).unwrap();
    assert!(env.contains("ONLY=this") && !env.contains("HOME="), "{env}");
}

#[test]
fn a_hook_without_an_environment_has_the_runtimes() {
    differs!(Crun, "gives it the state of the container alone");
    let kinds = ["prestart", "createRuntime", "poststart", "poststop"];
    let mut c = Container::new("hookenv");
    let dir = c.bundle.dir.clone();
    let hook = |name: &str| {
        let line = format!("env >{}", dir.join(name).display());
        json!({ "path": "/bin/sh", "args": ["sh", "-c", line] })
    };
    for kind in kinds {
        let mut empty = hook(&format!("{kind}-empty"));
        empty["env"] = json!([]);
        c = c.with(|config| config["hooks"][kind] = json!([hook(kind), empty]));
    }
    c.bundle.write();
    let run = c.runtime().args(["run", "--bundle"]).args([&c.bundle.dir]).args([&c.id]);
    run.env("OF_THE_RUNTIME", "yes").ok();
    for kind in kinds {
        let env = |name: &str| fs::read_to_string(dir.join(name)).unwrap();
        assert!(env(kind).contains("OF_THE_RUNTIME=yes"), "{kind}: {}", env(kind));
        let empty = env(&format!("{kind}-empty"));
        assert!(!empty.contains("OF_THE_RUNTIME") && !empty.contains("PATH="), "{kind}: {empty}");
    }
}

#[test]
fn a_hook_inside_without_an_environment_has_the_containers() {
    differs!(Crun, "gives it the state of the container alone");
    let c = Container::sh("hookenv", "cat /tmp/env");
    let created = c.bundle.dir.join("env");
    let env = |file: &str| json!([{ "path": "/bin/sh", "args": ["sh", "-c", format!("env >{file}")] }]);
    let c = c.with(|config| {
        config["process"]["env"] = json!(["HOME=", "A=1", "PATH=/usr/bin:/bin", "A=2"]);
        config["hooks"]["createContainer"] = env(created.to_str().unwrap());
        config["hooks"]["startContainer"] = env("/tmp/env");
    });
    let started = c.run().ok().stdout;
    for line in ["HOME=/root", "A=2", "PATH=/usr/bin:/bin"] {
        assert!(started.lines().any(|l| l == line), "{line}: {started}");
    }
    let created = fs::read_to_string(created).unwrap();
    assert!(created.contains("PATH=/usr/bin:/bin"), "{created}");
    differs!(Runc, "1.1 gives createContainer hooks all but HOME");
    assert!(!created.contains("A="), "{created}");
}

/// Neither what the caller leaked, nor what is meant for the container.
#[test]
fn hooks_have_no_descriptors_but_their_streams() {
    differs!(Crun, "1.8.1 gives them what is preserved");
    let kinds = ["prestart", "createRuntime", "createContainer", "poststart", "poststop"];
    let mut c = Container::sh("hookfds", "cat <&3; [ -e /proc/self/fd/9 ] && echo leaked");
    let dir = c.bundle.dir.clone();
    let file = dir.join("given");
    fs::write(&file, "given").unwrap();
    for kind in kinds {
        let line = format!("readlink /proc/self/fd/* >{}; true", dir.join(kind).display());
        c = c.with(|config| config["hooks"][kind] = hook(&line));
    }
    c.bundle.write();
    let (runtime, root) = (integration::host::runtime(), &c.root);
    let line = format!(
        "exec 3<{0} 9<{0}; exec {1} --root {2} run --preserve-fds 1 --bundle {3} {4}",
        file.display(),
        runtime.display(),
        root.display(),
        dir.display(),
        c.id
    );
    let out = integration::Run::sh(&line).out();
    assert_eq!(out.stdout, "given", "{out}");
    for kind in kinds {
        let open = fs::read_to_string(dir.join(kind)).unwrap();
        // runc's createContainer hooks have what it preserves for the container.
        if integration::peer() == Peer::Hydra || kind != "createContainer" {
            assert!(!open.contains("given"), "{kind}: {open}");
        }
    }
}

#[test]
fn a_failing_hook_before_start_fails_the_create() {
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let c = Container::sleeping("hookfail")
            .with(|config| config["hooks"][kind] = hook("echo because >&2; exit 7"));
        let out = c.create().fails();
        if integration::peer() != Peer::Crun {
            assert!(out.stderr.contains("hook") && out.stderr.contains("exit status 7"), "{kind}: {out}");
        }
        c.verb(&["state", &c.id]).fails();
        assert_eq!(c.leftovers(), Vec::<String>::new(), "{kind}");
    }
}

#[test]
fn a_failing_poststart_hook_ends_all_of_the_container() {
    differs!(Runc, "1.1.5 runs poststart at the end of create");
    differs!(Crun, "1.8.1 lets it live");
    let c = Container::sh("poststart", "sleep 1000000 & echo $! >/tmp/pid; wait").without_namespace("pid");
    let pid = c.bundle.rootfs().join("tmp/pid");
    let wait = format!("until [ -s {} ]; do sleep 0.05; done; exit 7", pid.display());
    let c = c.with(|config| config["hooks"]["poststart"] = hook(&wait));
    c.create().ok();
    c.start().fails_with("exit status 7");
    c.wait_for("stopped");
    let rest: i32 = fs::read_to_string(&pid).unwrap().trim().parse().unwrap();
    eventually("the rest is gone", || !integration::host::alive(rest));
    c.delete().ok();
    assert_eq!(c.leftovers(), Vec::<String>::new());
}

#[test]
fn a_failing_poststop_hook_only_warns() {
    let c = Container::new("poststop");
    let log = c.bundle.dir.join("ran");
    let line = |script: &str| hook(&format!("echo {script} >>{}; {script}", log.display()))[0].clone();
    let hooks = json!([line("false"), line("true")]);
    let c = c.with(|config| config["hooks"]["poststop"] = hooks).up();
    c.wait_for("stopped");
    let said = c.bundle.dir.join("log");
    c.runtime().args(["--log"]).args([&said]).args(["delete", &c.id]).out().ok();
    assert_eq!(c.leftovers(), Vec::<String>::new());
    let ran = fs::read_to_string(&log).unwrap_or_default();
    differs!(Runc, "1.1.5 runs none after it");
    differs!(Crun, "1.8.1 runs none after it");
    assert_eq!(ran, "false\ntrue\n", "the remaining hooks are run");
    let said = fs::read_to_string(said).unwrap_or_default();
    assert!(said.contains("poststop hook #0"), "no warning: {said}");
}

/// A container whose poststop hook leaves what it was told, and a mark if the state was there still.
fn with_poststop(name: &str) -> Container {
    let c = Container::sleeping(name);
    let (log, state) = (c.bundle.dir.join("poststop"), c.root.join(&c.id));
    let script = format!("(cat; test ! -e {} || echo early; echo) >>{}", state.display(), log.display());
    c.with(|config| config["hooks"]["poststop"] = hook(&script))
}

/// The poststop hook ran once, for a stopped container, and nothing is left.
#[track_caller]
fn poststop_ran_once(c: &Container, what: &str) {
    let told = fs::read_to_string(c.bundle.dir.join("poststop")).unwrap_or_default();
    let state: Value = serde_json::from_str(&told).unwrap_or_else(|e| panic!("{what}: {e}: {told:?}"));
    assert_eq!(state["id"], c.id.as_str(), "{what}");
    assert_eq!(state["status"], "stopped", "{what}");
    assert!(state["pid"].as_i64().unwrap_or(0) == 0, "{what}: {state}");
    assert_eq!(c.leftovers(), Vec::<String>::new(), "{what}");
}

#[test]
fn what_fails_before_the_start_ends_with_the_poststop_hooks() {
    differs!(Crun, "1.8.1 runs none after a failure");
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let c = with_poststop("stophook").with(|config| config["hooks"][kind] = hook("exit 7"));
        c.create().fails();
        poststop_ran_once(&c, kind);
    }
    for verb in ["create", "run"] {
        let c = with_poststop("stopprogram").args(&["/nowhere/program"]);
        match verb {
            "create" => c.create().fails(),
            _ => c.run().fails(),
        };
        poststop_ran_once(&c, verb);
    }
    for kind in ["startContainer", "poststart"] {
        let c = with_poststop("stopstart").with(|config| {
            config["hooks"][kind] = json!([{ "path": "/bin/sh", "args": ["sh", "-c", "exit 7"] }]);
        });
        c.run().fails();
        poststop_ran_once(&c, kind);
    }
}

#[test]
fn a_failed_restore_ends_with_the_poststop_hooks() {
    differs!(Crun, "1.8.1 runs none after a failure");
    let c = with_poststop("stoprestore");
    let images = c.bundle.dir.join("images");
    fs::create_dir(&images).unwrap();
    c.bundle.write();
    let restore = c.runtime().args(["restore", "--image-path"]).args([&images]);
    restore.args(["--bundle".as_ref(), c.bundle.dir.as_os_str()]).args([&c.id]).out().fails();
    poststop_ran_once(&c, "restore");
}

#[test]
fn a_start_that_fails_leaves_the_poststop_hooks_to_delete() {
    differs!(Crun, "1.8.1 runs them before the state goes");
    let c = with_poststop("stoplater").with(|config| {
        config["hooks"]["startContainer"] = json!([{ "path": "/bin/sh", "args": ["sh", "-c", "exit 7"] }]);
    });
    c.create().ok();
    let out = c.start();
    if integration::peer() == Peer::Hydra {
        out.fails();
    }
    c.wait_for("stopped");
    c.delete().ok();
    poststop_ran_once(&c, "delete");
}

#[test]
fn a_hook_that_takes_too_long_is_ended() {
    differs!(Crun, "1.8.1 waits on for what the hook started");
    let c = Container::sleeping("hooktime").with(|config| {
        config["hooks"]["createRuntime"] =
            json!([{ "path": "/bin/sleep", "args": ["sleep", "1000000"], "timeout": 1 }]);
    });
    c.create().fails();
    assert_eq!(c.leftovers(), Vec::<String>::new());
}

#[test]
fn a_hooks_path_must_be_absolute() {
    let c = Container::new("hookpath")
        .with(|config| config["hooks"]["createRuntime"] = json!([{ "path": "sh" }]));
    c.create().fails();
}

/// A create that hangs can be deleted, and what it does afterwards harms nobody who has its name by then.
#[test]
fn a_create_that_hangs_in_a_hook_can_be_deleted() {
    if integration::peer() != Peer::Hydra {
        skip!("what becomes of the other create is a promise that only this runtime makes");
    }
    let c = Container::sleeping("hanging");
    let file = |name: &str| c.bundle.dir.join(name);
    let (begun, go) = (file("begun"), file("go"));
    let (b, g) = (begun.display().to_string(), go.display().to_string());
    let script = format!("test ! -e {b} || exit 0; touch {b}; while test ! -e {g}; do sleep 0.05; done");
    let c = c.with(|config| config["hooks"]["createRuntime"] = hook(&script));
    c.bundle.write();
    for again in [false, true] {
        let _ = fs::remove_file(&begun);
        let _ = fs::remove_file(&go);
        let create = c.runtime().args(["create", "--bundle"]).args([&c.bundle.dir]).args([&c.id]).start();
        eventually("it is in the hook", || begun.exists());
        c.delete_force().ok();
        assert_eq!(c.leftovers(), Vec::<String>::new());
        if again {
            c.create().ok();
        }
        fs::write(&go, "").unwrap();
        create.out().fails();
        match again {
            false => assert_eq!(c.leftovers(), Vec::<String>::new()),
            true => {
                assert_eq!(c.status(), "created");
                c.start().ok();
                assert_eq!(c.status(), "running");
            }
        }
    }
}
