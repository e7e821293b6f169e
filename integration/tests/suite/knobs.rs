//! The layers of knobs, the ways to say them, and how they are seen.

use integration::disk::{self, sh};
use integration::host::{self, Cgroups};
use integration::{skip, Container, Out, Run};
use serde_json::{json, Value};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Skips where the question makes no sense to another runtime.
macro_rules! ours {
    () => {
        if integration::peer() != integration::Peer::Hydra {
            skip!("knobs are ours");
        }
    };
}

mod layers;
mod transaction;

fn annotated(c: Container, annotations: &[(&str, &str)]) -> Container {
    c.with(|config| {
        for (key, value) in annotations {
            config["annotations"][*key] = Value::from(*value);
        }
    })
}

fn v2() -> bool {
    host::cgroups() == Cgroups::V2
}

/// Memory's limit as the kernel has it.
fn memory(c: &Container) -> String {
    let file = if v2() { "memory.max" } else { "memory.limit_in_bytes" };
    c.cgroup_file("memory", file).expect("memory")
}

fn pids(c: &Container) -> String {
    c.cgroup_file("pids", "pids.max").expect("pids")
}

/// `update` with global options of its own.
fn update(c: &Container, args: &[&str]) -> Out {
    let mut all = vec!["update"];
    all.extend(args);
    all.push(&c.id);
    c.verb(&all)
}

/// Every file that limits something, in every hierarchy.
fn files(c: &Container) -> BTreeMap<PathBuf, String> {
    const CHANGING: [&str; 6] = [".stat", "usage", ".events", ".current", ".peak", "pressure"];
    let mut found = BTreeMap::new();
    for dir in host::cgroup_dirs(&c.cgroup()) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            let limit = [
                "max",
                "limit",
                "throttle.read",
                "throttle.write",
                "quota",
                "period",
                "shares",
                "weight",
                "low",
                "high",
                "cpus",
                "mems",
                "burst",
            ];
            let wanted = limit.iter().any(|part| name.contains(part))
                && !CHANGING.iter().any(|part| name.contains(part));
            if let (true, Ok(text)) = (wanted && !name.contains("max_usage"), fs::read_to_string(&path)) {
                found.insert(path, text);
            }
        }
    }
    found
}

/// What the runtime believes: each knob, what was asked, what the kernel says.
fn inspected(c: &Container) -> Value {
    c.verb(&["inspect", "--json", &c.id]).ok().json()[0]["knobs"].clone()
}

/// A file of classes of the test's own.
fn classes(c: &Container, text: &str) -> PathBuf {
    let path = c.bundle.dir.join("hydra.toml");
    fs::write(&path, text).unwrap();
    path
}

/// The runtime with a class file; the verb comes next.
fn with_config(c: &Container, config: &Path) -> Run {
    c.runtime().args(["--config".as_ref(), config.as_os_str()])
}

#[track_caller]
fn up_with(c: &Container, config: &Path, flags: &[&str]) {
    c.bundle.write();
    let verb = with_config(c, config).args(flags).args(["create", "--bundle"]).args([&c.bundle.dir]);
    verb.args([&c.id]).stdout_to(c.bundle.dir.join("out")).ok();
    c.start().ok();
}

/// `--reload` applies changed classes to those that run in them; `--select` and several IDs.
#[test]
fn many_containers_at_once() {
    ours!();
    let (a, b, other) = (Container::sleeping("ra"), Container::sleeping("rb"), Container::sleeping("rc"));
    // One root for all three, as an engine has it.
    let text = |limit: u32| format!("[class.gold.pids]\nlimit = {limit}\n[class.silver.pids]\nlimit = 30\n");
    let config = classes(&a, &text(40));
    let root = a.root.to_str().unwrap().to_string();
    let run = |args: &[&str]| {
        Run::new(host::runtime()).args(["--root", &root, "--config"]).args([&config]).args(args)
    };
    let run = |args: &[&str]| {
        if host::systemd_driver() {
            run(&[]).args(["--systemd-cgroup"]).args(args)
        } else {
            run(args)
        }
    };
    for (c, class) in [(&a, "gold"), (&b, "gold"), (&other, "silver")] {
        c.bundle.write();
        let dir = c.bundle.dir.to_str().unwrap();
        run(&["create", "--class", class, "--bundle", dir, &c.id]).stdout_to(c.bundle.dir.join("out")).ok();
        run(&["start", &c.id]).ok();
    }
    fs::write(&config, text(45)).unwrap();
    let report = run(&["update", "--reload", "--json"]).ok().json();
    assert_eq!(report.as_array().unwrap().len(), 3);
    for entry in report.as_array().unwrap() {
        // With systemd the unit's property changes too.
        let files =
            entry["changes"].as_array().unwrap().iter().filter(|c| !c["target"].to_string().contains("unit"));
        assert_eq!(files.count(), usize::from(entry["id"] != other.id.as_str()), "{entry}");
    }
    assert_eq!([pids(&a), pids(&b), pids(&other)], ["45", "45", "30"]);
    run(&["update", "--select", "class=gold", "--memory-limit", "64MiB"]).ok();
    let limited = (64u64 << 20).to_string();
    assert!(memory(&a) == limited && memory(&b) == limited && memory(&other) != limited);
    run(&["update", "--pids-limit", "21", &a.id, &other.id]).ok();
    assert_eq!([pids(&a), pids(&b), pids(&other)], ["45", "45", "30"], "a class outvotes runc's flag");
    run(&["update", "--cpu-weight", "50", &a.id, &other.id]).ok();
    let rows = |c: &Container| run(&["inspect", "--json", &c.id]).ok().json()[0]["knobs"].to_string();
    assert!(
        rows(&a).contains("cpu.weight")
            && !rows(&b).contains("cpu.weight")
            && rows(&other).contains("cpu.weight")
    );
    let listed = run(&["list", "--long"]).ok().stdout;
    assert!(listed.lines().any(|l| l.starts_with(&a.id) && l.contains("gold")), "{listed}");
    [&a, &b, &other].iter().for_each(|c| drop(run(&["delete", "--force", &c.id]).ok()));
}

/// Without `--root`: prefixes and Docker's names, in the roots of all engines.
#[test]
fn containers_by_what_people_call_them() {
    ours!();
    let c = Container::sleeping("named");
    let (id, twin) =
        (format!("ab12{:060x}", std::process::id()), format!("ab12{:059x}f", std::process::id()));
    c.bundle.write();
    let scratch = c.bundle.dir.display().to_string();
    // Engines' directories of the test's own, in a mount namespace of its own.
    let script = format!(
        "set -e; mkdir -p /run/docker /var/lib/docker /run/containerd; for d in /run/docker /var/lib/docker /run/containerd; do mount -t tmpfs tmpfs $d; done
        mkdir -p /run/docker/runtime-runc/moby /run/containerd/runc/k8s.io /var/lib/docker/containers/{id}
        echo '{{\"ID\":\"{id}\",\"Name\":\"/web\"}}' >/var/lib/docker/containers/{id}/config.v2.json
        cd {scratch}
        $R --root /run/docker/runtime-runc/moby run -d {id} >/dev/null 2>&1 </dev/null
        sed -i 's/{c}/{c}-twin/' config.json
        $R --root /run/containerd/runc/k8s.io run -d {twin} >/dev/null 2>&1 </dev/null
        trap '$R --root /run/docker/runtime-runc/moby delete -f {id}; $R --root /run/containerd/runc/k8s.io delete -f {twin}' EXIT
        $R update --pids-limit 31 web
        $R inspect --json web >inspected
        $R update --pids-limit 32 {id}
        $R update --pids-limit 33 {twin_prefix}
        $R list >table; $R list -f json >json
        $R update --pids-limit 34 ab12 2>ambiguous && exit 9
        $R --root /run/docker/runtime-runc/moby update --pids-limit 34 web 2>exact && exit 9
        $R --root /run/docker/runtime-runc/moby list >plain
        true",
        c = c.id,
        twin_prefix = &twin[..64],
    );
    // A systemd unit's name must be new.
    let run = Run::new("unshare").args(["-m", "sh", "-c", &script]);
    let program = match host::systemd_driver() {
        true => format!("{} --systemd-cgroup", host::runtime().display()),
        false => host::runtime().display().to_string(),
    };
    run.env("R", &program).patient(2).ok();
    let text = |name: &str| fs::read_to_string(c.bundle.dir.join(name)).unwrap();
    assert!(text("inspected").contains(&format!("\"id\":\"{id}\"")), "{}", text("inspected"));
    let ambiguous = text("ambiguous");
    assert!(
        ambiguous.contains("ab12 is ambiguous: ")
            && ambiguous.contains(&format!("moby/{id}"))
            && ambiguous.contains(&format!("k8s.io/{twin}")),
        "{ambiguous}"
    );
    assert!(text("exact").contains("container does not exist"), "{}", text("exact"));
    let table = text("table");
    assert!(table.starts_with("ID ") && table.contains("MONITOR"), "{table}");
    assert!(
        table.lines().any(|l| l.starts_with("ab12") && l.contains(" web ") && l.contains(" running ")),
        "{table}"
    );
    assert!(text("plain").starts_with("ID ") && text("plain").contains("OWNER"), "{}", text("plain"));
    let json: Value = serde_json::from_str(&text("json")).unwrap();
    let ours = json.as_array().unwrap().iter().find(|e| e["id"] == id.as_str()).unwrap().clone();
    assert_eq!(ours["name"], "web");
    assert_eq!(ours["root"], "/run/docker/runtime-runc/moby");
    assert!(ours["since"].is_string() && ours["status"] == "running", "{ours}");
}

/// Bad input: one line that names the knob, the value and what is allowed, and nothing is changed.
#[test]
fn bad_input_changes_nothing() {
    ours!();
    let c = Container::sleeping("bad").up();
    let before = files(&c);
    for (args, text) in [
        (&["--blkio-write-bps", "10mbps"][..], "blkio.write-bps: '10mbps' is ambiguous"),
        (&["--memory-limit", "64MiB", "--blkio-write-bps", "/nowhere=1MB"], "/nowhere"),
        (&["--pids-limit", "40", "--blkio-write-bps", "/proc=1MB"], "proc has no block device"),
        (&["--blkio-write-bps", "9:77=1MB"], "there is no block device 9:77"),
        (&["--cgroup-file", "memory.nothing=1"], "memory.nothing"),
        (&["--cgroup-file", "nothing.max=1"], "this host has no cgroup controller nothing"),
        (&["--cgroup-file", "cgroup.procs=1"], "cgroup.procs is not a limit"),
        (&["--cgroup-file", "../x.y=1"], "is not the name of a controller's file"),
        (&["--unset", "pids.limit"], "'pids.limit' is not set by the operator: nobody set it"),
        (
            &["--annotation", "com.x=1"],
            "'com.x' can't be changed on a running container; allowed: hydra.KNOB",
        ),
        (&["--class", "a b"], "class"),
    ] {
        let out = update(&c, args).fails_with(text);
        assert_eq!(out.stderr.trim_end().lines().count(), 1, "{out}");
        assert_eq!(files(&c), before, "{args:?}");
    }
    for (key, value, text) in [
        ("hydra.blkio.write-bps", "10k", "annotation: blkio.write-bps: '10k'"),
        ("hydra.blkio.wirte-bps", "10kB", "annotation: unknown knob blkio.wirte-bps"),
        ("hydra.class", "none", "class: 'none' is not defined"),
        ("hydra.cgroup.memory.nothing", "1", "memory.nothing"),
    ] {
        let c = annotated(Container::sleeping("badnote"), &[(key, value)]);
        c.create().fails_with(text);
        assert_eq!(c.leftovers(), Vec::<String>::new(), "{key}");
    }
    // What only the kernel can refuse is told by the knob too.
    let c = Container::new("badcpus");
    c.bundle.write();
    c.run_with(&["--cpuset-cpus=4000"]).fails_with("cpuset.cpus: '4000' (operator)");
    assert_eq!(c.leftovers(), Vec::<String>::new());
}

/// A setting that this kernel lacks is refused before anything is made for it.
#[test]
fn what_a_kernel_lacks_is_seen_before_the_cgroup_is_made() {
    ours!();
    if !Path::new("/usr/bin/strace").exists() {
        skip!("needs strace");
    }
    for (key, value, text) in [
        ("hydra.cgroup.memory.nothing", "1", "the kernel has no such setting"),
        ("hydra.cgroup.pids.nothing", "1", "the kernel has no such setting"),
    ] {
        let c = annotated(Container::sleeping("lacks"), &[(key, value)]);
        c.bundle.write();
        let log = c.bundle.dir.join("log");
        let run = Run::new("strace").args(["-f", "-qq", "-e", "trace=mkdir,mkdirat,fork,clone,clone3", "-o"]);
        let run = run.args([&log]).args([host::runtime()]).args(["--root"]).args([&c.root]);
        let run = if host::systemd_driver() { run.args(["--systemd-cgroup"]) } else { run };
        run.args(["create", "--bundle"]).args([&c.bundle.dir]).args([&c.id]).out().fails_with(text);
        let made = fs::read_to_string(&log).unwrap();
        assert!(!made.contains("cgroup") && !made.contains("clone"), "{key}: {made}");
    }
}

/// A path that was named and is gone is in nobody's way: not an engine's, nor of mounts that are to be followed. Its
/// limit stays where it was.
#[test]
fn a_path_that_is_gone_keeps_its_limit() {
    ours!();
    let (image, node) = disk::image(16).expect("a loop device");
    let number = disk::number(&node).unwrap();
    let path = integration::janitor::scratch().join(format!("node{}", number.replace(':', "-")));
    sh(&format!("mknod {} b {}", path.display(), number.replace(':', " "))).unwrap();
    let c = annotated(
        Container::sleeping("gone"),
        &[("hydra.blkio.write-bps", &format!("{}=3MB", path.display()))],
    )
    .up();
    let file = if v2() { ("io", "io.max") } else { ("blkio", "blkio.throttle.write_bps_device") };
    let held = |rate: &str| {
        let text = c.cgroup_file(file.0, file.1).unwrap();
        text.lines().any(|l| l.starts_with(&format!("{number} ")) && l.contains(rate))
    };
    assert!(held("3000000"));
    fs::remove_file(&path).unwrap();
    let said = update(&c, &["--memory-limit", "64MiB"]).ok().stdout;
    assert!(said.contains(&format!("its limits stay with {number}")), "{said}");
    c.runtime().args(["update", "--resources", "-", &c.id]).stdin(r#"{"pids":{"limit":7}}"#).ok();
    assert!(held("3000000"));
    // Named anew it is an error.
    update(&c, &["--blkio-write-bps", &format!("{}=4MB", path.display())]).fails_with(path.to_str().unwrap());
    update(&c, &["--blkio-write-bps", &format!("{number}=max")]).ok();
    assert!(!held("3000000"));
    sh(&format!("losetup -d {node}; rm -f {}", image.display())).unwrap();
}

/// Limits that are in force are no failure when only the helper, which moves a total, can't be started; it is said.
#[test]
fn a_helper_that_cannot_start_is_said() {
    ours!();
    let c = Container::sleeping("helpless").up();
    let lock = c.root.join(&c.id).join("helper.lock");
    fs::create_dir(&lock).unwrap();
    let said = update(&c, &["--blkio-total-write-bps", "3MB", "--pids-limit", "44"]).ok().stdout;
    assert!(
        said.contains("helper.lock") && said.contains("the next `update` or `inspect` tries again"),
        "{said}"
    );
    assert_eq!(pids(&c), "44");
    let seen = c.verb(&["inspect", &c.id]).ok();
    assert!(seen.stdout.contains("blkio.total-write-bps"), "{seen}");
    c.delete_force().ok();
    assert_eq!(c.leftovers(), Vec::<String>::new());
}

/// Without a cgroup nothing can be limited, and that is said.
#[test]
fn knobs_want_a_cgroup() {
    ours!();
    let c = annotated(Container::sleeping("nowhere"), &[("hydra.pids.limit", "44")]);
    c.bundle.write();
    let run = Run::new(host::runtime()).args(["--root"]).args([&c.root]);
    let run = run.args(["--cgroup-manager", "disabled", "create", "--bundle"]).args([&c.bundle.dir]);
    run.args([&c.id]).out().fails_with("pids.limit: the container is to have no cgroup");
    assert_eq!(c.leftovers(), Vec::<String>::new());
}

/// `--dry-run` says what `update` then does.
#[test]
fn a_dry_run_prints_the_plan() {
    ours!();
    let c = Container::sleeping("dry").up();
    let before = files(&c);
    let flags = ["--memory-limit", "64MiB", "--pids-limit", "33", "--json"];
    let plan = |extra: &[&str]| {
        let out = update(&c, &[&flags[..], extra].concat()).ok().json();
        let each =
            |change: &Value| [change["target"].clone(), change["old"].clone(), change["asked"].clone()];
        out[0]["changes"].as_array().unwrap().iter().map(each).collect::<Vec<_>>()
    };
    let planned = plan(&["--dry-run"]);
    assert_eq!(files(&c), before, "a dry run changed something");
    assert!(planned.len() >= 2);
    assert_eq!(planned, plan(&[]));
    // What any of our words changed is said, and so is what the kernel rounds.
    let unset = update(&c, &["--unset", "memory.limit"]).ok().stdout;
    assert!(unset.contains("memory."), "{unset}");
    let json = json!({ "hydra": { "memory.limit": "67108865" } });
    let run = c.runtime().args(["update", "--resources", "-", &c.id]).stdin(json.to_string());
    let said = run.ok().stdout;
    assert!(said.contains("asked 67108865, the kernel made it 67108864"), "{said}");
    // A raw line for the file of a knob that goes: one change, and none where it is in force already.
    let raw = if v2() { "memory.max" } else { "memory.limit_in_bytes" };
    let set = format!("{raw}=67108864");
    let lifting = ["--unset", "memory.limit", "--cgroup-file", &set];
    let plan = update(&c, &[&lifting[..], &["--dry-run"]].concat()).ok().stdout;
    assert!(!plan.contains(&format!("{raw}: ")), "{plan}");
    update(&c, &lifting).ok();
    assert_eq!(memory(&c), "67108864");
    update(&c, &["--unset", &format!("cgroup.{raw}")]).ok();
    // What would fail then fails now.
    if host::cgroups() != Cgroups::V1 {
        update(&c, &["--dry-run", "--net-ingress-rate", "8mbit", "--net-ingress-mode", "queue"])
            .fails_with("net.ingress-mode=queue: the container has no veth");
        let plan = update(&c, &["--dry-run", "--net-ingress-rate", "8mbit"]).ok().stdout;
        assert!(plan.contains("net.ingress-rate: max -> 1000000"), "{plan}");
    }
    let text = update(&c, &["--dry-run", "--pids-limit", "34"]).ok().stdout;
    assert!(text.contains("pids.max: 33 -> 34"), "{text}");
    // What the kernel rounds is said: it counts pages.
    let text = update(&c, &["--memory-limit", "67108865"]).ok().stdout;
    assert!(text.contains("asked 67108865, the kernel made it 67108864"), "{text}");
}

/// Flags of `create` and `run`, raw files, JSON.
#[test]
fn four_ways_to_say_it() {
    ours!();
    let raw = if v2() { "memory.high" } else { "memory.soft_limit_in_bytes" };
    let c = Container::sleeping("ways");
    let file = format!("{raw}=50331648");
    c.create_with(&["--pids-limit", "44", "--memory-limit", "64MiB", "--cgroup-file", &file]).ok();
    c.start().ok();
    let held = |c: &Container| [pids(c), memory(c), c.cgroup_file("memory", raw).unwrap()];
    assert_eq!(held(&c), ["44".to_string(), (64u64 << 20).to_string(), (48u64 << 20).to_string()]);
    let json = json!({ "hydra": { "memory.limit": "80MiB", "pids.limit": null, format!("cgroup.{raw}"): (40 << 20) } });
    c.runtime().args(["update", "--resources", "-", &c.id]).stdin(json.to_string()).ok();
    assert_eq!(held(&c)[1..], [(80u64 << 20).to_string(), (40u64 << 20).to_string()]);
    assert_eq!(pids(&c), "max");
    let key = format!("hydra.cgroup.{raw}");
    let d = annotated(Container::sleeping("raw"), &[(&key, "50331648"), ("hydra.pids.limit", "44")]).up();
    assert_eq!(
        [pids(&d), d.cgroup_file("memory", raw).unwrap()],
        ["44".to_string(), (48u64 << 20).to_string()]
    );
}

/// Shares of a contended device and targets of its latency, where the kernel has them; elsewhere refused by name.
#[test]
fn weights_and_latency() {
    ours!();
    let (image, node) = disk::image(16).expect("a loop device");
    let number = disk::number(&node).unwrap();
    let c = Container::sleeping("weight").up();
    let text = |file: &str| {
        let controller = if v2() { "io" } else { "blkio" };
        c.cgroup_file(controller, file)
    };
    let file = ["blkio.bfq.weight", "blkio.weight", "io.bfq.weight", "io.weight"]
        .into_iter()
        .find(|f| text(f).is_some());
    let set = update(&c, &["--blkio-weight", "300"]);
    match file {
        Some(file) => {
            set.ok();
            let wanted = if file == "io.weight" { 1 + 290 * 9999 / 990 } else { 300 };
            let held = text(file).unwrap();
            assert!(
                held.lines().any(|l| l.trim_start_matches("default ") == wanted.to_string()),
                "{file}: {held}"
            );
        }
        None => drop(set.fails()),
    }
    // Refused where the device's scheduler isn't BFQ, as that of a loop device.
    let each = update(&c, &["--blkio-weight-device", &format!("{node}=200")]);
    println!(
        "FIGURE blkio.weight-device on {node}: {}",
        if each.code == 0 { "taken" } else { each.stderr.trim() }
    );
    let latency = update(&c, &["--blkio-latency", &format!("{node}=75ms")]);
    match text("io.latency") {
        Some(_) => {
            latency.ok();
            assert!(text("io.latency").unwrap().contains(&format!("{number} target=75000")));
            update(&c, &["--unset", "blkio.latency"]).ok();
            assert!(!text("io.latency").unwrap().contains("75000"));
        }
        None if v2() => drop(latency.fails_with("io.latency")),
        None => {
            drop(latency.fails_with("blkio.latency: cgroup v1, which this host has for blkio, can't do this"))
        }
    }
    sh(&format!("losetup -d {node}; rm -f {}", image.display())).unwrap();
}

/// `stats` in its three forms.
#[test]
fn stats_show_use_and_limits() {
    ours!();
    if host::cgroups() == Cgroups::V1 {
        skip!("network limits want a cgroup2 mount");
    }
    let c = annotated(
        Container::sleeping("stats"),
        &[("hydra.memory.limit", "64MiB"), ("hydra.net.egress-rate", "8mbit")],
    )
    .up();
    let json = c.verb(&["stats", "--once", "--json", &c.id]).ok().json();
    assert_eq!(json[0]["memoryLimit"], 64 << 20, "{json}");
    assert!(json[0]["network"]["egress"].is_object() && json[0]["pids"] == 1, "{json}");
    let table = c.verb(&["stats", "--once", &c.id]).ok().stdout;
    assert!(
        table.starts_with("CONTAINER") && table.contains("NET OUT") && table.contains("67.1MB"),
        "{table}"
    );
    let text = c.verb(&["stats", "--format", "prometheus", &c.id]).ok().stdout;
    assert!(
        text.contains("# TYPE hydra_memory_limit_bytes gauge")
            && text.contains(&format!("hydra_memory_limit_bytes{{id=\"{}\"", c.id)),
        "{text}"
    );
}

/// Where systemd owns the cgroups, limits are properties of the unit too, and outlive a reload.
#[test]
fn limits_outlive_daemon_reload() {
    ours!();
    if !host::systemd_driver() {
        skip!("needs systemd as the cgroup driver");
    }
    let (image, node) = disk::image(16).expect("a loop device");
    let blkio = format!("{node}=3MB");
    let mut annotations =
        vec![("hydra.memory.limit", "64MiB"), ("hydra.pids.limit", "44"), ("hydra.blkio.write-bps", &blkio)];
    if host::cgroups() != Cgroups::V1 {
        annotations.push(("hydra.net.egress-rate", "8mbit"));
    }
    if v2() {
        annotations.extend([("hydra.memory.high", "60MiB"), ("hydra.cgroup.memory.low", "1048576")]);
    }
    let c = annotated(Container::sleeping("reload"), &annotations).up();
    let asked = files(&c);
    let reload = |what: &str, wanted: &BTreeMap<PathBuf, String>| {
        host::daemon_reload();
        // systemd applies the properties of a unit again when something about it changes.
        sh(&format!(
            "systemctl set-property --runtime hydratest-{}.scope Description=x 2>/dev/null; true",
            c.id
        ))
        .unwrap();
        for (path, text) in wanted {
            assert_eq!(fs::read_to_string(path).ok().as_ref(), Some(text), "{what}: {}", path.display());
        }
    };
    reload("as created", &asked);
    let second = format!("{node}=5MB");
    let mut flags = vec![
        "--memory-limit",
        "96MiB",
        "--pids-limit",
        "55",
        "--cpu-max",
        "40000 100000",
        "--blkio-write-bps",
        &second,
    ];
    if v2() {
        flags.extend(["--memory-high", "80MiB"]);
    }
    update(&c, &flags).ok();
    let updated = files(&c);
    assert!(updated != asked && memory(&c) == (96u64 << 20).to_string());
    let unit = format!("hydratest-{}.scope", c.id);
    let name = if v2() { "MemoryMax" } else { "MemoryLimit" };
    assert_eq!(sh(&format!("systemctl show --value -p {name} {unit}")).unwrap(), (96u64 << 20).to_string());
    reload("after update", &updated);
    c.delete_force().ok();
    assert_eq!(c.leftovers(), Vec::<String>::new());
    sh(&format!("losetup -d {node}; rm -f {}", image.display())).unwrap();
}
