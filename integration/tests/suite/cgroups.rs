//! Limits: from config.json to the kernel's files, and changed while the container runs.

use integration::{differs, eventually, host, Container};
use serde_json::{json, Value};

fn with_resources(name: &str, resources: Value) -> Container {
    Container::sleeping(name).with(|c| {
        for (key, value) in resources.as_object().unwrap() {
            c["linux"]["resources"][key] = value.clone();
        }
    })
}

/// A file by its name on v1 (controller/file) or on v2.
fn limit(c: &Container, v1: &str, v2: &str) -> Option<String> {
    match host::cgroups() {
        host::Cgroups::V2 => c.cgroup_file("", v2),
        _ => {
            let (controller, file) = v1.split_once('/').unwrap();
            c.cgroup_file(controller, file)
        }
    }
}

#[test]
fn limits_are_written() {
    let c = with_resources(
        "limits",
        json!({
            "memory": { "limit": 67_108_864, "reservation": 33_554_432 }, "pids": { "limit": 77 },
            "cpu": { "shares": 512, "quota": 50_000, "period": 100_000 }
        }),
    );
    let c = c.up();
    assert_eq!(limit(&c, "memory/memory.limit_in_bytes", "memory.max").unwrap(), "67108864");
    assert_eq!(limit(&c, "memory/memory.soft_limit_in_bytes", "memory.low").unwrap(), "33554432");
    assert_eq!(limit(&c, "pids/pids.max", "pids.max").unwrap(), "77");
    if host::cgroups() == host::Cgroups::V2 {
        assert_eq!(c.cgroup_file("", "cpu.max").unwrap(), "50000 100000");
    } else {
        assert_eq!(c.cgroup_file("cpu", "cpu.shares").unwrap(), "512");
        assert_eq!(c.cgroup_file("cpu", "cpu.cfs_quota_us").unwrap(), "50000");
    }
}

#[test]
fn every_process_is_in_every_cgroup() {
    let c = Container::sleeping("joined").up();
    for dir in host::cgroup_dirs(&c.cgroup()).iter().filter(|d| d.join("cgroup.procs").exists()) {
        let procs = std::fs::read_to_string(dir.join("cgroup.procs")).unwrap();
        // The v2 twin of a hybrid host may be there for its BPF programs alone.
        let twin = dir.starts_with("/sys/fs/cgroup/unified");
        assert!(twin || procs.lines().any(|l| l == c.pid().to_string()), "{}: {procs:?}", dir.display());
    }
}

#[test]
fn limits_hold() {
    let c = with_resources("pids", json!({ "pids": { "limit": 5 } })).args(&[
        "sh",
        "-c",
        "for i in 1 2 3 4 5 6 7 8; do sleep 1000000 & done; wait",
    ]);
    let out = c.run();
    assert!(out.stderr.contains("fork"), "{out}");
    let c = with_resources("oom", json!({ "memory": { "limit": 16_777_216, "swap": 16_777_216 } })).args(&[
        "sh",
        "-c",
        "tail /dev/zero",
    ]);
    c.run().exits(137);
}

#[test]
fn update_changes_what_it_names_and_nothing_else() {
    let c =
        with_resources("update", json!({ "memory": { "limit": 67_108_864 }, "pids": { "limit": 77 } })).up();
    c.verb(&["update", "--pids-limit", "99", &c.id]).ok();
    assert_eq!(limit(&c, "pids/pids.max", "pids.max").unwrap(), "99");
    assert_eq!(limit(&c, "memory/memory.limit_in_bytes", "memory.max").unwrap(), "67108864");
    c.verb(&["update", "--memory", "128M", &c.id]).ok();
    assert_eq!(limit(&c, "memory/memory.limit_in_bytes", "memory.max").unwrap(), "134217728");
    assert_eq!(limit(&c, "pids/pids.max", "pids.max").unwrap(), "99");
    c.verb(&["update", "--cpu-quota", "20000", "--cpu-period", "100000", &c.id]).ok();
    match host::cgroups() {
        host::Cgroups::V2 => assert_eq!(c.cgroup_file("", "cpu.max").unwrap(), "20000 100000"),
        _ => assert_eq!(c.cgroup_file("cpu", "cpu.cfs_quota_us").unwrap(), "20000"),
    }
}

#[test]
fn update_reads_resources_from_standard_input() {
    let c = Container::sleeping("updatestdin").up();
    let resources = json!({ "pids": { "limit": 44 }, "memory": { "limit": 100_663_296 } }).to_string();
    for flags in [vec!["--resources=-"], vec!["-r", "-"], vec!["--resources", "-"]] {
        c.runtime().args(["update"]).args(flags).args([&c.id]).stdin(resources.clone()).ok();
        assert_eq!(limit(&c, "pids/pids.max", "pids.max").unwrap(), "44");
    }
    assert_eq!(limit(&c, "memory/memory.limit_in_bytes", "memory.max").unwrap(), "100663296");
    c.runtime().args(["update", "-r", "-", &c.id]).stdin("{ no").out().fails();
}

#[test]
fn update_wants_a_container_with_processes() {
    let c = Container::new("updatestopped").up();
    c.wait_for("stopped");
    differs!(Crun, "writes to whatever is there");
    differs!(Runc, "1.1 writes to whatever is there");
    c.verb(&["update", "--pids-limit", "9", &c.id]).fails_with("container not running");
}

#[test]
fn stats_follow_the_container() {
    differs!(Crun, "has no events");
    let c =
        with_resources("stats", json!({ "pids": { "limit": 50 }, "memory": { "limit": 67_108_864 } })).up();
    let data = c.verb(&["events", "--stats", &c.id]).ok().json()["data"].clone();
    assert_eq!(data["pids"]["limit"], 50);
    assert_eq!(data["memory"]["usage"]["limit"], 67_108_864);
}

/// The names of all that a JSON value holds: `cpu.usage.total`.
fn fields(value: &Value, name: &str, found: &mut std::collections::BTreeSet<String>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(key, v)| fields(v, &format!("{name}.{key}"), found)),
        Value::Array(list) => list.iter().for_each(|v| fields(v, &format!("{name}[]"), found)),
        _ => drop(found.insert(name.to_string())),
    }
}

#[test]
fn statistics_have_all_of_runcs_fields() {
    differs!(Crun, "has no events");
    let Some(runc) =
        ["/usr/sbin/runc", "/usr/bin/runc"].into_iter().find(|p| std::path::Path::new(p).exists())
    else {
        integration::skip!("runc is not installed");
    };
    let limits = json!({ "pids": { "limit": 50 }, "memory": { "limit": 67_108_864 } });
    let (ours, theirs) =
        (with_resources("fields", limits.clone()).up(), with_resources("fieldsrunc", limits));
    let peer = |args: &[&str]| {
        let run = integration::Run::new(runc).args(["--root".as_ref(), theirs.root.as_os_str()]);
        let run = if host::systemd_driver() { run.args(["--systemd-cgroup"]) } else { run };
        run.args(args).dir(&theirs.bundle.dir).stdout_to(theirs.bundle.dir.join("runc")).out()
    };
    theirs.bundle.write();
    peer(&["run", "--detach", &theirs.id]).ok();
    let events = peer(&["events", "--stats", &theirs.id]);
    let gone = peer(&["delete", "--force", &theirs.id]);
    let (mut wanted, mut found) = Default::default();
    fields(&events.ok().json()["data"], "", &mut wanted);
    fields(&ours.verb(&["events", "--stats", &ours.id]).ok().json()["data"], "", &mut found);
    gone.ok();
    // Absent where nothing was read or written yet, as it may be in one of the two.
    let counted = |name: &&String| !name.starts_with(".blkio.io") && *name != ".memory.cache";
    let missing: Vec<_> = wanted.difference(&found).filter(counted).collect();
    assert!(missing.is_empty() && !wanted.is_empty(), "missing: {missing:?}\nfound: {found:?}");
}

#[test]
fn a_container_out_of_memory_is_told_as_an_event() {
    differs!(Crun, "has no events");
    let c = with_resources("oomevent", json!({ "memory": { "limit": 16_777_216, "swap": 16_777_216 } }))
        .args(&["sh", "-c", "while [ ! -e /tmp/go ]; do sleep 0.1; done; tail /dev/zero; sleep 1000000"])
        .up();
    let events = c.runtime().args(["events", "--interval", "1s", &c.id]).start();
    eventually("statistics", || events.stdout().contains("stats"));
    std::fs::write(c.bundle.rootfs().join("tmp/go"), "").unwrap();
    eventually("an OOM event", || events.stdout().contains(r#""type":"oom""#));
}

#[test]
fn a_relative_cgroup_path_is_taken() {
    if host::systemd_driver() {
        integration::skip!("the systemd driver has slices, not paths");
    }
    let name = integration::janitor::name();
    let c = Container::sleeping("relcg")
        .with(|c| c["linux"]["cgroupsPath"] = format!("{name}/relative").into())
        .up();
    let text = std::fs::read_to_string(format!("/proc/{}/cgroup", c.pid())).unwrap();
    assert!(text.contains(&format!("{name}/relative")), "{text}");
    c.delete_force().ok();
}

#[test]
fn unified_keys_reach_their_files() {
    if host::cgroups() != host::Cgroups::V2 {
        integration::skip!("needs cgroup v2");
    }
    let c =
        with_resources("unified", json!({ "unified": { "memory.high": "50331648", "pids.max": "33" } })).up();
    assert_eq!(c.cgroup_file("", "memory.high").unwrap(), "50331648");
    assert_eq!(c.cgroup_file("", "pids.max").unwrap(), "33");
}

#[test]
fn systemd_knows_the_scope() {
    if !host::systemd_driver() {
        integration::skip!("needs systemd as the cgroup driver");
    }
    let c =
        with_resources("scope", json!({ "memory": { "limit": 67_108_864 }, "pids": { "limit": 77 } })).up();
    let unit = format!("hydratest-{}.scope", c.id);
    let show = integration::Run::new("systemctl")
        .args(["show", &unit, "-p", "TasksMax", "-p", "MemoryMax", "-p", "ActiveState", "-p", "MemoryLimit"])
        .ok();
    assert!(show.stdout.contains("TasksMax=77") && show.stdout.contains("67108864"), "{show}");
    host::daemon_reload();
    assert_eq!(limit(&c, "pids/pids.max", "pids.max").unwrap(), "77");
    c.delete_force().ok();
    let gone = || {
        !integration::Run::new("systemctl")
            .args(["show", &unit, "-p", "ActiveState"])
            .ok()
            .stdout
            .contains("=active")
    };
    eventually("the scope is gone", gone);
}

#[test]
fn version_2_is_mounted_where_it_is_named() {
    let point =
        json!({ "destination": "/mnt", "type": "cgroup2", "source": "cgroup2", "options": ["ro", "nosuid"] });
    let c = Container::new("cgroup2").args(&["cat", "/proc/self/mountinfo"]).namespace("cgroup", None);
    let out = c.mount(point).run().ok().stdout;
    let line = out.lines().find(|l| l.split(' ').nth(4) == Some("/mnt")).unwrap_or_else(|| panic!("{out}"));
    assert!(line.contains(" - cgroup2 "), "{line}");
}

/// Without a cgroup of its own a container is shown its caller's, of the version that the host has.
#[test]
fn the_callers_cgroups_are_shown_to_who_has_none() {
    if integration::peer() != integration::Peer::Hydra || host::systemd_driver() {
        integration::skip!("no such manager");
    }
    let point =
        json!({ "destination": "/mnt", "type": "cgroup", "source": "cgroup", "options": ["ro", "nosuid"] });
    let c = Container::new("nocgroup").args(&["cat", "/proc/self/mountinfo"]).mount(point);
    c.bundle.write();
    let run = c.runtime().args(["--cgroup-manager", "disabled", "run", "--bundle"]);
    let out = run.args([&c.bundle.dir]).args([&c.id]).out().ok().stdout;
    let shows = |kind: &str| out.lines().any(|l| l.contains(" /mnt") && l.contains(&format!(" - {kind} ")));
    match host::cgroups() {
        host::Cgroups::V2 => assert!(shows("cgroup2"), "{out}"),
        _ => assert!(shows("cgroup"), "{out}"),
    }
}

/// systemd takes controllers back that it has no use for, also while a cgroup is being made whose parents had them a moment ago.
#[test]
fn controllers_that_come_and_go_are_had() {
    if host::cgroups() != host::Cgroups::V2 || host::systemd_driver() {
        integration::skip!("cgroup v2, by files");
    }
    let base = format!("flap-{}", std::process::id());
    let dir = std::path::Path::new("/sys/fs/cgroup").join(&base);
    std::fs::create_dir_all(&dir).unwrap();
    let control = dir.join("cgroup.subtree_control");
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let file = control.clone();
    // Who looks at each file that is opened takes a millisecond for it.
    let pause = std::time::Duration::from_millis(if host::lacks(&["cgroup.kill"]) { 20 } else { 1 });
    let flapping = std::thread::spawn(move || {
        while stopped.recv_timeout(pause) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            // Refused while a cgroup below has it enabled.
            let _ = std::fs::write(&file, "-cpu");
        }
    });
    for n in 0..30 {
        let c = with_resources(&format!("flap{n}"), json!({ "cpu": { "shares": 100 } }))
            .with(|c| c["linux"]["cgroupsPath"] = format!("/{base}/{n}/c").into());
        c.create().ok();
        c.delete_force();
        std::fs::remove_dir(dir.join(n.to_string())).unwrap();
    }
    drop(stop);
    flapping.join().unwrap();
    std::fs::remove_dir(&dir).unwrap();
}

/// Who asks for a cgroup that is another's is refused, and the other lives on: of the same name under another root, one above
/// it, and one that has processes in a single hierarchy.
#[test]
fn a_refusal_leaves_the_cgroups_owner_alone() {
    differs!(Runc, "1.1 only warns, and shares it");
    differs!(Crun, "1.8.1 shares it");
    let owner = Container::sleeping("owner");
    let path = match host::systemd_driver() {
        true => format!("system.slice:hydratest:{}", owner.id),
        false => format!("/{}/refusal/{}", integration::janitor::name(), owner.id),
    };
    let owner = owner.with(|c| c["linux"]["cgroupsPath"] = path.clone().into()).up();
    let refused = |path: &str| {
        let c = Container::sleeping("refused").with(|c| c["linux"]["cgroupsPath"] = path.into());
        c.create().fails_with("container's cgroup is not empty: 1 process(es) found");
        c.verb(&[
            "restore",
            "--bundle",
            c.bundle.dir.to_str().unwrap(),
            "--image-path",
            c.bundle.dir.join("nonexistent").to_str().unwrap(),
            &c.id,
        ])
        .fails();
        c.delete_force();
        assert_eq!(owner.status(), "running", "{path}");
        owner.exec(&["true"]).ok();
    };
    refused(&path);
    if host::systemd_driver() {
        return;
    }
    refused(path.rsplit_once('/').unwrap().0);
    if host::cgroups() != host::Cgroups::V2 {
        let path = format!("/lonely-{}", std::process::id());
        let dir = std::path::PathBuf::from(format!("/sys/fs/cgroup/pids{path}"));
        std::fs::create_dir(&dir).unwrap();
        let mut sleeper = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        std::fs::write(dir.join("cgroup.procs"), sleeper.id().to_string()).unwrap();
        refused(&path);
        assert!(sleeper.try_wait().unwrap().is_none(), "it was killed");
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
        std::fs::remove_dir(&dir).unwrap();
    }
    owner.delete_force();
    for dir in host::cgroup_dirs(path.rsplit_once('/').unwrap().0) {
        let _ = std::fs::remove_dir(dir);
    }
}
