//! What the runtime specification demands and no other file here asks for, clause by clause (docs/spec-conformance.md).

use integration::bundle::mount;
use integration::{differs, host, Container, Run};
use serde_json::{json, Value};
use std::fs;

/// A container's mount table.
fn table(c: Container) -> String {
    c.args(&["cat", "/proc/self/mountinfo"]).run().ok().stdout
}

#[track_caller]
fn line<'a>(table: &'a str, point: &str) -> &'a str {
    let found = table.lines().rfind(|l| l.split(' ').nth(4) == Some(point));
    found.unwrap_or_else(|| panic!("nothing is mounted at {point}:\n{table}"))
}

#[test]
fn operations_want_an_id() {
    let c = Container::new("noid");
    c.bundle.write();
    for verb in ["state", "start", "kill", "delete", "create"] {
        c.runtime().args([verb]).dir(&c.bundle.dir).out().fails();
    }
}

#[test]
fn the_program_waits_for_start_and_the_config_is_read_once() {
    let c = Container::sh("once", "echo first");
    c.create().ok();
    assert_eq!(c.output(), "", "it ran before start");
    let mut other = c.bundle.config.clone();
    other["process"]["args"] = json!(["sh", "-c", "echo second"]);
    fs::write(c.bundle.dir.join("config.json"), other.to_string()).unwrap();
    assert_eq!(c.output(), "");
    c.start().ok();
    c.wait_for("stopped");
    assert_eq!(c.output(), "first\n");
}

#[test]
fn unknown_properties_and_annotations_are_ignored() {
    let c = Container::sh("unknown", "echo runs").with(|c| {
        c["unknown"] = json!({ "a": [1, null] });
        c["process"]["unknown"] = json!("x");
        c["linux"]["unknown"] = json!(7);
        c["annotations"] = json!({ "org.example.unknown": "x", "org.opencontainers.image.unknown": "y" });
    });
    c.run().ok().says("runs");
}

#[test]
fn an_id_can_be_used_again_after_delete() {
    let c = Container::new("again");
    for _ in 0..3 {
        c.create().ok();
        c.delete_force().ok();
    }
}

#[test]
fn mounts_are_made_in_the_order_listed() {
    let c = Container::sh("order", "ls /mnt; ls /mnt/below; ls /rel | wc -l");
    let source = c.bundle.dir.join("source");
    fs::create_dir_all(&source).unwrap();
    fs::write(source.join("file"), "x").unwrap();
    let source = source.to_str().unwrap().to_string();
    // The other way round the tmpfs would hide what is below.
    let c = c
        .mount(mount("/mnt", "tmpfs", "tmpfs", &[]))
        .mount(mount("/mnt/below", "bind", &source, &["bind"]))
        .mount(mount("rel", "bind", &source, &["bind"]));
    assert_eq!(c.run().ok().stdout, "below\nfile\n1\n");
}

#[test]
fn a_mount_shows_its_source() {
    let shown = table(Container::new("source").mount(mount("/mnt", "tmpfs", "a-name", &["size=1m"])));
    assert!(line(&shown, "/mnt").contains(" - tmpfs a-name "), "{shown}");
    assert!(line(&shown, "/dev/shm").contains(" - tmpfs shm "), "{shown}");
}

#[test]
fn every_mount_option_is_taken() {
    differs!(Crun, "1.8.1 knows no loud, silent and noiversion, and no propagation of a tmpfs");
    // Option, and what the mount table shows of it, if anything.
    let options = [
        ("async", ""),
        ("atime", ""),
        ("defaults", ""),
        ("dev", ""),
        ("diratime", ""),
        ("dirsync", "dirsync"),
        ("exec", ""),
        ("lazytime", "lazytime"),
        ("loud", ""),
        ("noatime", "noatime"),
        ("nodev", "nodev"),
        ("nodiratime", "nodiratime"),
        ("noexec", "noexec"),
        ("noiversion", ""),
        ("nolazytime", ""),
        ("nomand", ""),
        ("norelatime", ""),
        ("nostrictatime", ""),
        ("nosuid", "nosuid"),
        ("private", ""),
        ("relatime", "relatime"),
        ("ro", "ro"),
        ("rprivate", ""),
        ("rshared", "shared:"),
        ("rslave", ""),
        ("runbindable", "unbindable"),
        ("rw", "rw"),
        ("shared", "shared:"),
        ("silent", ""),
        ("slave", ""),
        ("strictatime", ""),
        ("suid", ""),
        ("sync", "sync"),
        ("unbindable", "unbindable"),
    ];
    // runc 1.1 hands "defaults" to the file system, which refuses it.
    let known = |option: &str| integration::peer() != integration::Peer::Runc || option != "defaults";
    let options: Vec<_> = options.into_iter().filter(|(option, _)| known(option)).collect();
    let mut c = Container::new("options");
    for (i, (option, _)) in options.iter().enumerate() {
        c = c.mount(mount(&format!("/tmp/{i}"), "tmpfs", "tmpfs", &[option]));
    }
    let shown = table(c);
    for (i, (option, sign)) in options.iter().enumerate() {
        let line = line(&shown, &format!("/tmp/{i}"));
        assert!(line.contains(sign), "{option}: {line}");
        assert!(*option != "strictatime" || !line.contains("relatime"), "{option}: {line}");
    }
}

#[test]
fn every_recursive_option_is_taken() {
    differs!(Crun, "1.8.1 hands the kernel half of the access time field, which it refuses");
    if host::lacks(&["mount_setattr"]) {
        integration::skip!("recursive options want Linux 5.12");
    }
    // Option, what is shown of it, and what is not.
    let options = [
        ("rro", "ro,", "rw,"),
        ("rnosuid", "nosuid", "-"),
        ("rnodev", "nodev", "-"),
        ("rnoexec", "noexec", "-"),
        ("rnoatime", "noatime", "relatime"),
        ("rnodiratime", "nodiratime", "-"),
        ("rstrictatime", "rw", "relatime"),
        ("rrelatime", "relatime", "-"),
        ("rrw", "rw,", "-"),
        ("rsuid", "rw", "nosuid"),
        ("rdev", "rw", "nodev"),
        ("rexec", "rw", "noexec"),
        ("rdiratime", "rw", "nodiratime"),
        ("rsymfollow", "rw", "-"),
        ("rnosymfollow", "", "-"),
    ];
    let ours = [
        ("ratime", "relatime", "noatime"),
        ("rnostrictatime", "relatime", "-"),
        ("rnorelatime", "rw", "noatime"),
    ];
    let mut c = Container::new("recursive");
    let source = c.bundle.dir.join("source");
    fs::create_dir_all(source.join("sub")).unwrap();
    Run::new("mount").args(["-t", "tmpfs", "tmpfs"]).args([source.join("sub")]).ok();
    // runc 1.1 hands the kernel half of the access time field for these, which it refuses.
    let ours = if integration::peer() == integration::Peer::Hydra { &ours[..] } else { &[] };
    let all: Vec<_> = options.iter().chain(ours).collect();
    for (i, (option, ..)) in all.iter().enumerate() {
        c = c.mount(mount(&format!("/tmp/{i}"), "bind", source.to_str().unwrap(), &["rbind", option]));
    }
    let shown = table(c);
    for (i, (option, sign, against)) in all.iter().enumerate() {
        let flags = line(&shown, &format!("/tmp/{i}/sub")).split(' ').nth(5).unwrap().to_string() + ",";
        assert!(flags.contains(sign) && !flags.contains(against), "{option}: {flags}");
    }
}

#[test]
fn mounts_keep_their_propagation_under_a_shared_root() {
    let c = Container::new("shared").with(|c| c["linux"]["rootfsPropagation"] = "shared".into());
    let source = c.bundle.dir.join("source");
    fs::create_dir_all(&source).unwrap();
    let shown = table(c.mount(mount("/mnt", "bind", source.to_str().unwrap(), &["rbind", "shared"])));
    assert!(line(&shown, "/mnt").contains(" shared:"), "{shown}");
}

#[test]
fn the_rootfs_can_be_unbindable() {
    differs!(Runc, "binds the root file system after making it unbindable");
    let c = Container::new("unbindable").with(|c| c["linux"]["rootfsPropagation"] = "unbindable".into());
    assert!(line(&table(c), "/").contains("unbindable"));
}

#[test]
fn sealed_paths_must_be_absolute() {
    differs!(Runc, "takes them from the working folder");
    differs!(Crun, "takes them from the root");
    for field in ["maskedPaths", "readonlyPaths"] {
        let c = Container::new("relative").with(|c| c["linux"][field] = json!(["proc/kcore"]));
        c.run().fails_with("absolute");
    }
}

#[test]
fn a_device_in_the_place_of_something_else_is_an_error() {
    differs!(Runc, "1.1 takes whatever is there for the device");
    differs!(Crun, "1.8.1 takes whatever is there for the device");
    let device = json!([{ "path": "/etc/passwd", "type": "c", "major": 1, "minor": 3 }]);
    Container::new("taken").with(|c| c["linux"]["devices"] = device).run().fails();
}

#[test]
fn no_processes_at_all_is_a_limit_too() {
    differs!(Runc, "1.1 takes 0 for no limit");
    differs!(Crun, "1.8.1 takes 0 for no limit");
    let c = Container::sleeping("zero").with(|c| c["linux"]["resources"]["pids"] = json!({ "limit": 0 }));
    if c.create().code == 0 {
        assert_eq!(c.cgroup_file("pids", "pids.max").as_deref(), Some("0"));
    }
}

#[test]
fn a_filter_need_not_allow_what_the_runtime_does_itself() {
    differs!(Runc, "asks for its working folder under the filter");
    let c = Container::sh("getcwd", "echo runs").with(|c| {
        c["process"]["noNewPrivileges"] = false.into();
        c["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": ["getcwd"], "action": "SCMP_ACT_ERRNO" }] });
    });
    c.run().ok().says("runs");
}

#[test]
fn memory_policies_that_have_no_nodes() {
    differs!(Runc, "1.1 knows none");
    differs!(Crun, "1.8.1 knows none");
    for mode in ["MPOL_DEFAULT", "MPOL_LOCAL", "MPOL_PREFERRED"] {
        for given in [json!({ "mode": mode }), json!({ "mode": mode, "nodes": "", "flags": [] })] {
            Container::new("policy").with(|c| c["linux"]["memoryPolicy"] = given).run().ok();
        }
    }
}

#[test]
fn capabilities_that_cannot_be_granted_are_warned_of() {
    let c = Container::sh("warned", "echo runs").with(|c| {
        for set in ["bounding", "permitted", "effective"] {
            c["process"]["capabilities"][set].as_array_mut().unwrap().push("CAP_NO_SUCH".into());
        }
    });
    c.bundle.write();
    let log = c.bundle.dir.join("log");
    let run = c.runtime().args(["--log".as_ref(), log.as_os_str()]).args(["run", "--bundle"]);
    run.args([&c.bundle.dir]).args([&c.id]).ok().says("runs");
    if integration::peer() != integration::Peer::Crun {
        let log = fs::read_to_string(log).unwrap();
        assert!(log.contains("CAP_NO_SUCH") && log.contains("warning"), "{log}");
    }
}

#[test]
fn capabilities_that_the_caller_lacks_are_warned_of() {
    differs!(Runc, "1.1 fails");
    differs!(Crun, "1.8.1 fails");
    let c = Container::sh("lacking", "grep CapPrm /proc/self/status").with(|c| {
        for set in ["bounding", "permitted", "effective"] {
            c["process"]["capabilities"][set] = json!(["CAP_KILL", "CAP_WAKE_ALARM"]);
        }
    });
    c.bundle.write();
    let log = c.bundle.dir.join("log");
    let run = Run::new("setpriv").args(["--bounding-set", "-wake_alarm"]).args([host::runtime()]);
    let run = run.args(["--root".as_ref(), c.root.as_os_str(), "--log".as_ref(), log.as_os_str()]);
    let run = run.args(["run".as_ref(), "--bundle".as_ref(), c.bundle.dir.as_os_str()]);
    run.args([&c.id]).ok().says("CapPrm:\t0000000000000020");
    let log = fs::read_to_string(log).unwrap();
    assert!(log.contains("level=warning") && log.contains("[CAP_WAKE_ALARM]"), "{log}");
}

#[test]
fn what_is_absent_of_the_process_is_left_alone() {
    let own = fs::read_to_string("/proc/self/oom_score_adj").unwrap();
    let c = Container::sh("absent", "cat /proc/self/oom_score_adj; tty").with(|c| {
        c["process"]["consoleSize"] = json!({ "height": 10, "width": 20 });
    });
    assert_eq!(c.run().stdout, format!("{own}not a tty\n"));
}

#[test]
fn what_is_not_the_containers_own_stays() {
    let holder = Run::new("unshare").args(["--net", "sleep", "1000000"]).start();
    let net = format!("/proc/{}/ns/net", holder.pid());
    let own = fs::read_link("/proc/self/ns/net").unwrap();
    integration::eventually("it has a network of its own", || fs::read_link(&net).is_ok_and(|n| n != own));
    let before = fs::read_link(&net).unwrap();
    let c = Container::new("joined").namespace("network", Some(&net)).with(|c| {
        c["hooks"] = Value::Null;
    });
    let parent = host::cgroup_dir("pids", &c.cgroup()).parent().unwrap().to_path_buf();
    fs::create_dir_all(&parent).unwrap();
    c.run().ok();
    assert_eq!(fs::read_link(&net).unwrap(), before);
    assert!(parent.exists());
}

fn failing(name: &str, hook: &str) -> Container {
    Container::sleeping(name).with(|c| {
        c["hooks"] = json!({ hook: [{ "path": "/bin/sh", "args": ["sh", "-c", "cat >/dev/null; exit 3"] }] });
    })
}

#[test]
fn a_failing_hook_of_start_stops_the_container() {
    differs!(Runc, "1.1 only warns of a failing poststart hook");
    differs!(Crun, "1.8.1 only warns of a failing poststart hook");
    for hook in ["startContainer", "poststart"] {
        let c = failing("hook", hook);
        c.create().ok();
        let out = c.start().fails();
        assert!(out.stderr.contains(hook), "{hook}: {out}");
        integration::eventually("it is stopped or gone", || {
            let state = c.verb(&["state", &c.id]);
            state.code != 0 || state.json()["status"] == "stopped"
        });
    }
}

#[test]
fn a_hooks_timeout_must_be_positive() {
    differs!(Runc, "takes it for none");
    differs!(Crun, "takes it for none");
    for timeout in [0, -1] {
        let c =
            failing("timeout", "poststop").with(|c| c["hooks"]["poststop"][0]["timeout"] = timeout.into());
        c.run().fails_with("timeout");
    }
}

#[test]
fn what_features_name_is_recognised() {
    differs!(Crun, "1.8.1 has no features");
    let c = Container::new("features");
    let features = c.verb(&["features"]).ok().json();
    let words = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(|v| v.as_str().map(String::from)).collect()
    };
    for version in [&features["ociVersionMin"], &features["ociVersionMax"]] {
        Container::new("version").with(|c| c["ociVersion"] = version.clone()).run().ok();
    }
    for hook in words(&features["hooks"]) {
        // It ran and failed, so it is understood: a name that isn't would be ignored.
        let c = failing("known", &hook).args(&["true"]);
        let out = c.run();
        // That of poststop is no more than a warning.
        assert!(out.code != 0 || hook == "poststop", "{hook}: {out}");
    }
    let seccomp = &features["linux"]["seccomp"];
    // A filter holds architectures of one byte order, and those that can be had here.
    let archs: Vec<String> =
        words(&seccomp["archs"]).into_iter().filter(|a| a.contains("X86") || a.contains("X32")).collect();
    let mut rules = Vec::new();
    for (i, operator) in words(&seccomp["operators"]).iter().enumerate() {
        let name = ["acct", "swapon", "swapoff", "quotactl", "reboot", "uselib", "ustat"][i % 7];
        rules.push(json!({ "names": [name],
            "action": "SCMP_ACT_ERRNO", "args": [{ "index": 0, "value": 77, "valueTwo": 5, "op": operator }] }));
    }
    for action in words(&seccomp["actions"]).iter().filter(|a| !a.ends_with("NOTIFY")) {
        rules.push(json!({ "names": ["syslog"], "action": action }));
        Container::new("action")
            .with(|c| {
                c["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": archs,
                "syscalls": rules });
            })
            .run()
            .ok();
        rules.pop();
    }
    for flag in words(&seccomp["supportedFlags"]).iter().filter(|f| !f.contains("WAIT_KILLABLE")) {
        Container::new("flag")
            .with(|c| {
                c["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW", "flags": [flag],
                "syscalls": [{ "names": ["acct"], "action": "SCMP_ACT_ERRNO" }] });
            })
            .run()
            .ok();
    }
}
