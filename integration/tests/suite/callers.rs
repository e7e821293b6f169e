//! What go-runc, conmon, Podman and CRI-O count on, as far as no other module shows it: docs/callers.md has the list.

use integration::bundle::mount;
use integration::{differs, eventually, host, peer, skip, Container, Peer, Run};
use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt;

#[test]
fn a_folder_without_a_state_goes_with_force_and_without() {
    let c = Container::new("stateless");
    let dir = c.root.join(&c.id);
    differs!(Crun, "leaves it");
    for flags in [vec!["delete", "--force"], vec!["delete"]] {
        fs::create_dir(&dir).unwrap();
        // What a create that was killed leaves; with a stranger's file in it, it is another runtime's.
        fs::write(dir.join("config.json"), "").unwrap();
        let out = c.runtime().args(&flags).args([&c.id]).out();
        assert_eq!(out.code, if flags.len() == 2 { 0 } else { 1 }, "{out}");
        assert!(!dir.exists() || peer() == Peer::Runc, "{flags:?}");
        let _ = fs::remove_dir_all(&dir);
    }
}

/// A container that may write to its cgroups.
fn delegated(name: &str, script: &str) -> Container {
    Container::sh(name, script).namespace("cgroup", None).mount(mount(
        "/sys/fs/cgroup",
        "cgroup",
        "cgroup",
        &["rw"],
    ))
}

#[test]
fn ps_and_kill_reach_what_moved_to_a_cgroup_below() {
    let own = if host::cgroups() == host::Cgroups::V2 { "/sys/fs/cgroup" } else { "/sys/fs/cgroup/*" };
    let script = format!(
        "sleep 1000000 & for d in {own}; do [ -L $d ] || mkdir $d/below 2>/dev/null && echo $! >$d/below/cgroup.procs; done; echo moved; wait"
    );
    let c = delegated("subcgroup", &script).up();
    eventually("it has moved", || c.output().contains("moved"));
    let pids = c.verb(&["ps", "-f", "json", &c.id]).ok().json();
    assert_eq!(pids.as_array().unwrap().len(), 2, "{pids}");
    c.delete_force().ok();
    for pid in pids.as_array().unwrap() {
        assert!(!host::alive(pid.as_i64().unwrap() as i32));
    }
    assert_eq!(c.leftovers(), Vec::<String>::new());
}

/// Who may make cgroups decides how deep they lie: here 5000 bytes of path, of which the kernel takes 4096 at once.
#[test]
fn cgroups_deeper_than_a_path_can_say_are_reached() {
    differs!(Runc, "walks by path: the processes aren't found, the cgroups stay");
    differs!(Crun, "leaves cgroups behind");
    let own = if host::cgroups() == host::Cgroups::V2 { "/sys/fs/cgroup" } else { "/sys/fs/cgroup/*" };
    // A cpuset without CPUs takes no process, nor does the second version that of another user namespace.
    let script = format!(
        "sleep 1000000 & sleep 1000000 & n=$(printf %0250d 0)
        for d in {own}; do
            cd $d && for i in $(seq 20); do
                mkdir $n && cd -P $n && for f in cpus mems; do cat ../cpuset.$f >cpuset.$f; done 2>/dev/null
            done
            echo $! >cgroup.procs
        done
        echo 1 >cgroup.procs
        echo deep
        wait"
    );
    let c = delegated("deep", &script).up();
    eventually("it has moved", || c.output().contains("deep"));
    let pids = c.verb(&["ps", "-f", "json", &c.id]).ok().json();
    assert_eq!(pids.as_array().unwrap().len(), 3, "{pids}");
    c.exec(&["true"]).ok();
    c.verb(&["kill", "--all", &c.id, "KILL"]).ok();
    for pid in pids.as_array().unwrap() {
        eventually("it is dead", || !host::alive(pid.as_i64().unwrap() as i32));
    }
    c.delete().ok();
    assert_eq!(c.leftovers(), Vec::<String>::new());
}

#[test]
fn exec_follows_the_first_process_out_of_an_inner_cgroup() {
    if host::cgroups() != host::Cgroups::V2 {
        skip!("only cgroup v2 has no processes in inner cgroups");
    }
    let script = "cd /sys/fs/cgroup && mkdir own && echo 1 >own/cgroup.procs && echo +pids >cgroup.subtree_control && echo moved; sleep 1000000";
    let c = delegated("inner", script).up();
    eventually("it has moved", || c.output().contains("moved"));
    c.exec(&["cat", "/proc/self/cgroup"]).ok().says("0::/own");
}

#[test]
fn what_start_has_let_go_is_never_shown_as_created() {
    for _ in 0..if host::quick() { 5 } else { 30 } {
        let c = Container::sh("letgo", "echo up; exec sleep 1000000").up();
        assert_eq!(c.status(), "running");
    }
}

#[test]
fn a_null_stream_is_the_containers_own() {
    differs!(Crun, "keeps the caller's");
    // Created, not run: runc's `run` puts pipes between.
    let c = Container::sh("null", "[ /dev/null -ef /proc/self/fd/0 ] && echo own; chmod 600 /proc/self/fd/0");
    let before = fs::metadata("/dev/null").unwrap().permissions().mode();
    let c = c.up();
    c.wait_for("stopped");
    assert_eq!(c.output(), "own\n");
    assert_eq!(fs::metadata("/dev/null").unwrap().permissions().mode(), before);
}

#[test]
fn the_callers_groups_are_dropped() {
    let c = Container::sh("groups", "grep Groups: /proc/self/status | tr -d ' \\t'; id -G");
    c.bundle.write();
    let line = format!(
        "setpriv --groups 5,6,7 {} --root {} run --bundle {} {}",
        host::runtime().display(),
        c.root.display(),
        c.bundle.dir.display(),
        c.id
    );
    let out = Run::sh(&line).ok();
    assert!(!["5", "6", "7"].iter().any(|g| out.stdout.split_whitespace().any(|w| w == *g)), "{out}");
}

#[test]
fn a_user_namespace_sees_its_cgroups() {
    let c = Container::sh(
        "usercgroup",
        "ls /sys/fs/cgroup | wc -l; touch /sys/fs/cgroup/x 2>/dev/null || echo closed",
    )
    .user_namespace()
    .mount(mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "ro"]));
    let out = c.run().ok();
    let mut lines = out.stdout.lines();
    assert!(lines.next().unwrap().parse::<u32>().unwrap() > 0, "{out}");
    // The peers mount every hierarchy read-only, but not the tmpfs that holds them.
    if peer() == Peer::Hydra {
        assert_eq!(lines.next(), Some("closed"), "{out}");
    }
}

#[test]
fn flags_that_a_user_namespace_may_not_clear_stay() {
    differs!(Runc, "1.1 asks for less and is refused");
    differs!(Crun, "1.8.1 mounts without them");
    let c = Container::sh("locked", "grep ' /mnt ' /proc/self/mountinfo | cut -d' ' -f6").user_namespace();
    let source = c.bundle.dir.join("source");
    fs::create_dir(&source).unwrap();
    Run::new("mount")
        .args(["-t", "tmpfs", "-o", "nosuid,nodev,noexec,mode=755", "tmpfs"])
        .args([&source])
        .ok();
    let c = c.mount(mount("/mnt", "bind", source.to_str().unwrap(), &["rbind", "ro"]));
    let out = c.run().ok();
    for flag in ["ro", "nosuid", "nodev", "noexec"] {
        assert!(out.stdout.trim().split(',').any(|f| f == flag), "{flag}: {out}");
    }
}

#[test]
fn a_source_that_the_mapped_root_cannot_reach_is_bound() {
    differs!(Crun, "1.8.1 opens it inside");
    let c = Container::sh("closedsource", "cat /mnt/file").user_namespace();
    let closed = c.bundle.dir.join("closed");
    fs::create_dir_all(closed.join("source")).unwrap();
    fs::write(closed.join("source/file"), "content\n").unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    let source = closed.join("source").display().to_string();
    let c = c.mount(mount("/mnt", "bind", &source, &["rbind"]));
    if host::lacks(&["open_tree", "move_mount"]) {
        // Nobody outside can open it for the container.
        c.run().fails_with("permission denied");
        return;
    }
    c.run().ok().says("content");
}

#[test]
fn a_systemd_path_is_taken_by_the_other_driver() {
    if host::systemd_driver() {
        skip!("its own way of naming");
    }
    let c = Container::sleeping("slice");
    let path = format!("system.slice:{}:{}", integration::janitor::name(), c.id);
    let c = c.with(|c| c["linux"]["cgroupsPath"] = path.into()).up();
    assert_eq!(c.status(), "running");
    c.exec(&["true"]).ok();
    c.delete_force().ok();
    // In hierarchies only: where one is not mounted a peer may write to the place.
    let find = "find /sys/fs/cgroup '(' -fstype cgroup -o -fstype cgroup2 ')'";
    let left = Run::sh(&format!("{find} -name '*{}*'", c.id)).ok();
    assert_eq!(left.stdout, "");
}

#[test]
fn update_leaves_the_device_rules_alone() {
    differs!(Crun, "writes what update is given");
    let c = Container::sleeping("updatedevices").with(|c| {
        c["linux"]["resources"]["devices"]
            .as_array_mut()
            .unwrap()
            .push(json!({ "allow": true, "type": "c", "major": 10, "minor": 200, "access": "rwm" }));
    });
    let c = c.up();
    let script =
        "mknod /tmp/a c 10 200 && echo made; mknod /tmp/b c 1 1; head -c 1 /tmp/b; rm -f /tmp/a /tmp/b";
    let before = c.exec(&["sh", "-c", script]);
    // A host whose /tmp takes no devices says "denied", whatever the rules.
    let refused = ["not permitted", "denied"].iter().any(|text| before.stderr.contains(text));
    assert!(before.stdout.contains("made") && refused, "{before}");
    let rules = r#"{ "devices": [{ "allow": true, "access": "rwm" }], "pids": { "limit": 77 } }"#;
    c.runtime().args(["update", "--resources", "-", &c.id]).stdin(rules).ok();
    let after = c.exec(&["sh", "-c", script]);
    assert_eq!((&before.stdout, &before.stderr), (&after.stdout, &after.stderr));
}
