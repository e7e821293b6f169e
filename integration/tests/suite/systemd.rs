//! Containers in systemd's care: what it is told outlives its own housekeeping, and a plain user's instance serves too.

use integration::{differs, host, janitor, skip, Container, Run};
use serde_json::json;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The files of a container's cgroup that limits are written to, with what is in them.
fn limits(c: &Container) -> Vec<(&'static str, Option<String>)> {
    const V2: &[&str] = &[
        "memory.max",
        "memory.low",
        "memory.high",
        "memory.swap.max",
        "cpu.max",
        "cpu.weight",
        "cpuset.cpus",
        "cpuset.mems",
        "pids.max",
        "io.max",
        "io.weight",
    ];
    const V1: &[&str] = &[
        "memory/memory.limit_in_bytes",
        "memory/memory.soft_limit_in_bytes",
        "memory/memory.memsw.limit_in_bytes",
        "cpu/cpu.shares",
        "cpu/cpu.cfs_quota_us",
        "cpu/cpu.cfs_period_us",
        "cpuset/cpuset.cpus",
        "cpuset/cpuset.mems",
        "pids/pids.max",
        "blkio/blkio.throttle.read_bps_device",
    ];
    let files = if host::cgroups() == host::Cgroups::V2 { V2 } else { V1 };
    let read = |name: &&'static str| {
        let (controller, file) = name.split_once('/').unwrap_or(("", name));
        (*name, c.cgroup_file(controller, file))
    };
    files.iter().map(read).collect()
}

fn value(limits: &[(&'static str, Option<String>)], v1: &str, v2: &str) -> String {
    let name = if host::cgroups() == host::Cgroups::V2 { v2 } else { v1 };
    let found = limits.iter().find(|(n, _)| *n == name).and_then(|(_, text)| text.clone());
    found.unwrap_or_else(|| panic!("no {name} in {limits:?}"))
}

/// A whole disk, as `MAJOR:MINOR`.
fn disk() -> Option<(u32, u32)> {
    let name = ["vda", "sda", "nvme0n1"].into_iter().find(|n| Path::new("/sys/block").join(n).exists())?;
    let text = fs::read_to_string(format!("/sys/block/{name}/dev")).ok()?;
    let (major, minor) = text.trim().split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[test]
fn a_daemon_reload_resets_no_limit() {
    if !host::systemd_driver() {
        skip!("needs systemd as the cgroup driver");
    }
    let c = Container::sleeping("reload").with(|c| {
        let resources = c["linux"]["resources"].as_object_mut().unwrap();
        resources.insert(
            "memory".into(),
            json!({ "limit": 134_217_728, "reservation": 33_554_432, "swap": 201_326_592 }),
        );
        resources.insert(
            "cpu".into(),
            json!({ "shares": 512, "quota": 50_000, "period": 100_000, "cpus": "0", "mems": "0" }),
        );
        resources.insert("pids".into(), json!({ "limit": 77 }));
        if let Some((major, minor)) = disk() {
            let read = json!([{ "major": major, "minor": minor, "rate": 1_048_576 }]);
            resources.insert("blockIO".into(), json!({ "throttleReadBpsDevice": read }));
        }
        if host::cgroups() == host::Cgroups::V2 {
            resources.insert("unified".into(), json!({ "memory.high": "100663296" }));
        }
    });
    let c = c.up();
    let set = limits(&c);
    assert_eq!(value(&set, "memory/memory.limit_in_bytes", "memory.max"), "134217728");
    assert_eq!(value(&set, "cpuset/cpuset.cpus", "cpuset.cpus"), "0");
    host::daemon_reload();
    assert_eq!(limits(&c), set, "after a daemon-reload");
    // What update changes is told to systemd as well.
    let quota = ["--cpu-quota", "20000", "--cpu-period", "100000", "--cpu-share", "256"];
    let memory = ["--memory", "160M", "--memory-swap", "256M", "--pids-limit", "99"];
    c.runtime().args(["update"]).args(quota).args(memory).args([&c.id]).ok();
    let set = limits(&c);
    assert_eq!(value(&set, "pids/pids.max", "pids.max"), "99");
    assert_eq!(value(&set, "memory/memory.limit_in_bytes", "memory.max"), "167772160");
    host::daemon_reload();
    assert_eq!(limits(&c), set, "after update and a daemon-reload");
}

#[test]
fn a_daemon_reload_resets_no_device_rule() {
    if !host::systemd_driver() {
        skip!("needs systemd as the cgroup driver");
    }
    let c = Container::sleeping("reloaddev").with(|c| {
        c["linux"]["devices"] = json!([
            { "path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11, "fileMode": 0o666 },
            { "path": "/dev/mem", "type": "c", "major": 1, "minor": 1, "fileMode": 0o666 }
        ]);
        c["linux"]["resources"]["devices"] = json!([
            { "allow": false, "access": "rwm" },
            { "allow": true, "type": "c", "major": 1, "minor": 11, "access": "rw" }
        ]);
    });
    let c = c.up();
    let look = || {
        c.exec(&["sh", "-c", "exec 3>/dev/kmsg && echo opened; exec 3<>/dev/null && echo null"]).ok();
        let denied = c.exec(&["sh", "-c", "exec 3</dev/mem"]);
        assert!(denied.code != 0 && denied.stderr.contains("Operation not permitted"), "{denied}");
    };
    look();
    host::daemon_reload();
    look();
    c.verb(&["update", "--pids-limit", "99", &c.id]).ok();
    look();
    host::daemon_reload();
    look();
}

/// With a user and a cgroup namespace and a writable mount, the container manages what is below its own cgroup.
#[test]
fn a_cgroup_of_its_own_is_given_to_the_containers_root() {
    if host::cgroups() != host::Cgroups::V2 {
        skip!("needs cgroup v2");
    }
    differs!(Crun, "gives the cgroup to nobody unless asked by an annotation");
    let mount = integration::bundle::mount(
        "/sys/fs/cgroup",
        "cgroup",
        "cgroup",
        &["rw", "nosuid", "noexec", "nodev"],
    );
    let script = "mkdir /sys/fs/cgroup/own && echo $$ >/sys/fs/cgroup/own/cgroup.procs && cat /proc/self/cgroup; sleep 1000000";
    let c = Container::sh("delegated", script)
        .namespace("cgroup", None)
        .user_namespace()
        .mount(mount.clone())
        .up();
    let dir = host::cgroup_dir("", &c.cgroup());
    integration::eventually("its own cgroup", || c.output().contains("0::/own"));
    for file in ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
        assert_eq!(fs::metadata(dir.join(file)).unwrap().uid(), 100_000, "{file}");
    }
    assert_eq!(fs::metadata(dir.join("memory.max")).unwrap().uid(), 0, "limits stay the host's");
    c.delete_force().ok();
    assert_eq!(c.leftovers(), Vec::<String>::new());
    // Without the writable mount nothing is given away.
    let c = Container::sleeping("kept").namespace("cgroup", None).user_namespace().up();
    assert_eq!(fs::metadata(host::cgroup_dir("", &c.cgroup())).unwrap().uid(), 0);
}

/// The plain user that rootless containers run as, with an instance of systemd.
const USER: &str = "1000";

/// Starts the user's own systemd, or says why there is none.
fn user_manager() -> Result<(), String> {
    if !host::systemd_driver() || host::cgroups() != host::Cgroups::V2 {
        return Err("needs systemd as the cgroup driver, and cgroup v2".into());
    }
    let known = Run::new("getent").args(["passwd", USER]).out().code == 0;
    if !known {
        Run::new("useradd").args(["--uid", USER, "--create-home", "--shell", "/bin/sh", "hydrauser"]).ok();
    }
    match Run::new("systemctl").args(["start", &format!("user@{USER}.service")]).patient(2).out() {
        out if out.code == 0 => Ok(()),
        out => Err(format!("no systemd for user {USER}: {}", out.stderr.trim())),
    }
}

#[test]
fn a_plain_users_limits_are_set_by_the_users_systemd() {
    if let Err(reason) = user_manager() {
        skip!("{reason}");
    }
    let c = Container::sleeping("usermanager").namespace("user", None).with(|c| {
        let map = json!([{ "containerID": 0, "hostID": 1000, "size": 1 }]);
        c["linux"]["uidMappings"] = map.clone();
        c["linux"]["gidMappings"] = map;
        let id = c["linux"]["cgroupsPath"].as_str().unwrap().rsplit(':').next().unwrap().to_string();
        c["linux"]["cgroupsPath"] = format!("user.slice:hydratest:{id}").into();
        c["linux"]["resources"] = json!({ "memory": { "limit": 67_108_864 }, "pids": { "limit": 77 } });
        let pts = c["mounts"].as_array_mut().unwrap().iter_mut().find(|m| m["destination"] == "/dev/pts");
        pts.unwrap()["options"] = json!(["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]);
    });
    c.bundle.write();
    let own = "cp -a rootfs own && rm -rf rootfs && mv own rootfs && chown -R 1000:1000 .";
    Run::sh(own).dir(&c.bundle.dir).ok();
    Run::new("chown").args([USER]).args([&c.root]).ok();
    let runtime = |args: &[&str]| {
        let run = Run::new("setpriv").args([
            "--reuid",
            USER,
            "--regid",
            USER,
            "--clear-groups",
            "--inh-caps=-all",
            "--",
        ]);
        let run = run.args([host::runtime().as_os_str(), "--root".as_ref(), c.root.as_os_str()]);
        let run = run.args(["--systemd-cgroup"]).args(args).dir(&c.bundle.dir);
        run.env("XDG_RUNTIME_DIR", format!("/run/user/{USER}"))
            .env("DBUS_SESSION_BUS_ADDRESS", format!("unix:path=/run/user/{USER}/bus"))
            .stdout_to(c.bundle.dir.join("output"))
            .out()
    };
    runtime(&["run", "--detach", &c.id]).ok();
    let pid = fs::read_to_string(c.bundle.dir.join("output")).unwrap_or_default();
    assert_eq!(pid, "");
    let state = Run::new(host::runtime()).args(["--root"]).args([&c.root]).args(["state", &c.id]).ok().json();
    let cgroup = fs::read_to_string(format!("/proc/{}/cgroup", state["pid"])).unwrap();
    assert!(cgroup.contains(&format!("user@{USER}.service/")), "{cgroup}");
    let dir = Path::new("/sys/fs/cgroup").join(cgroup.trim().trim_start_matches("0::/"));
    assert_eq!(fs::read_to_string(dir.join("memory.max")).unwrap().trim(), "67108864");
    assert_eq!(fs::read_to_string(dir.join("pids.max")).unwrap().trim(), "77");
    runtime(&["update", "--pids-limit", "88", &c.id]).ok();
    assert_eq!(fs::read_to_string(dir.join("pids.max")).unwrap().trim(), "88");
    runtime(&["delete", "--force", &c.id]).ok();
    assert!(!dir.exists(), "{}", dir.display());
    janitor::at_end(&format!("systemctl stop user@{USER}.service"));
}
