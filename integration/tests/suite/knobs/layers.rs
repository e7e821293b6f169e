//! The layers: which of two that say the same wins, and what is left when one goes.

use super::*;

/// Layers, weakest first: the configuration, the default class, the class, annotations, the operator. Engines'
/// updates, which know nothing of knobs, change the weakest alone.
#[test]
fn layers_and_engines() {
    ours!();
    let c = annotated(Container::sleeping("layers"), &[("hydra.class", "gold"), ("hydra.cpu.weight", "200")]);
    let c = c.with(|config| config["linux"]["resources"]["pids"] = json!({ "limit": 111 }));
    let config = classes(&c, "[class.bronze.pids]\nlimit = 50\n[class.bronze.memory]\nlimit = \"32MiB\"\n[class.gold.memory]\nlimit = \"64MiB\"\n");
    up_with(&c, &config, &["--default-class", "bronze"]);
    assert_eq!((pids(&c), memory(&c)), ("50".into(), (64u64 << 20).to_string()));
    // docker update, containerd's Update: JSON on standard input.
    let json = r#"{"memory":{"limit":16777216},"pids":{"limit":7},"cpu":{"shares":2048}}"#;
    let verb = c.runtime().args(["update", "--resources", "-", &c.id]).stdin(json);
    verb.ok();
    assert_eq!(
        (pids(&c), memory(&c)),
        ("50".into(), (64u64 << 20).to_string()),
        "an engine's update undid a class"
    );
    let weight = if v2() { "200".to_string() } else { "2048".into() };
    let file = if v2() { "cpu.weight" } else { "cpu.shares" };
    assert_eq!(c.cgroup_file("cpu", file), Some(weight));
    // The operator's word is the strongest, and goes.
    update(&c, &["--memory-limit", "96MiB"]).ok();
    assert_eq!(memory(&c), (96u64 << 20).to_string());
    update(&c, &["--unset", "memory.limit"]).ok();
    assert_eq!(memory(&c), (64u64 << 20).to_string());
    update(&c, &["--unset", "memory.limit"])
        .fails_with("'memory.limit' is not set by the operator: it comes from the class gold");
    update(&c, &["--class", "bronze"]).ok();
    assert_eq!(memory(&c), (32u64 << 20).to_string());
    // Without any class the engine's update shows.
    update(&c, &["--annotation", "hydra.pids.limit=60"]).ok();
    assert_eq!(pids(&c), "60");
    update(&c, &["--class", "lead"]).fails_with("class: 'lead' is not defined; allowed: bronze, gold");
    let rows = inspected(&c);
    let row = rows.as_array().unwrap().iter().find(|r| r["knob"] == "pids.limit").unwrap().clone();
    assert_eq!(
        (row["asked"].as_str(), row["from"].as_str(), row["effective"].as_str()),
        (Some("60"), Some("annotation"), Some("60"))
    );
}

/// The operator's knobs outlive what engines send, which is everything they know each time; runc's flag of the same spelling
/// is the operator's later word, a flag of another spelling isn't.
#[test]
fn the_operators_knobs_and_runcs_flags() {
    ours!();
    let mib = |n: u64| (n << 20).to_string();
    let c = Container::sleeping("later");
    c.create_with(&["--pids-limit", "44"]).ok();
    c.start().ok();
    update(&c, &["--memory-limit", "96MiB"]).ok();
    let json = json!({ "memory": { "limit": 64 << 20, "reservation": 32 << 20 }, "cpu": { "shares": 512 }, "pids": { "limit": 77 } });
    let engine = || c.runtime().args(["update", "--resources", "-", &c.id]).stdin(json.to_string()).ok();
    engine();
    assert_eq!(
        (pids(&c), memory(&c)),
        ("44".into(), mib(96)),
        "an engine's update took the operator's knobs"
    );
    // Another spelling: the knob has precedence, and it is said.
    let out = update(&c, &["--memory", "48m"]).ok();
    assert!(format!("{out}").contains("memory.limit: the operator says 96MiB and has precedence"), "{out}");
    assert_eq!(memory(&c), mib(96));
    // The same spelling: the later word counts.
    update(&c, &["--pids-limit", "55"]).ok();
    assert_eq!(pids(&c), "55");
    let knob = json!({ "hydra": { "pids.limit": 33 } }).to_string();
    c.runtime().args(["update", "--resources", "-", &c.id]).stdin(knob).ok();
    assert_eq!(pids(&c), "33");
    engine();
    assert_eq!(pids(&c), "33");
    update(&c, &["--unset", "memory.limit", "--unset", "pids.limit"]).ok();
    assert_eq!((pids(&c), memory(&c)), ("77".into(), mib(64)));
}

/// The operator's class covers the annotation's, and goes alone; annotations can be taken away by their names.
#[test]
fn classes_and_annotations_go_again() {
    ours!();
    let c = annotated(Container::sleeping("unset"), &[("hydra.class", "gold"), ("hydra.cpu.weight", "200")]);
    let config = classes(&c, "[class.gold.pids]\nlimit = 40\n[class.silver.pids]\nlimit = 30\n");
    up_with(&c, &config, &[]);
    assert_eq!(pids(&c), "40");
    update(&c, &["--unset", "class"])
        .fails_with("'class' is not set by the operator: it comes from the annotation");
    update(&c, &["--class", "silver"]).ok();
    assert_eq!(pids(&c), "30");
    update(&c, &["--unset", "class"]).ok();
    assert_eq!(pids(&c), "40");
    update(&c, &["--unset", "hydra.class", "--unset", "hydra.cpu.weight"]).ok();
    assert_eq!((pids(&c).as_str(), inspected(&c).as_array().unwrap().len()), ("max", 0));
    let file = if v2() { "cpu.weight" } else { "cpu.shares" };
    assert_eq!(c.cgroup_file("cpu", file).unwrap(), if v2() { "100" } else { "1024" });
}

/// A raw file and the knob that is kept in it: the stronger layer's word holds, whichever it is.
#[test]
fn raw_files_and_knobs_are_one() {
    ours!();
    let c = annotated(Container::sleeping("one"), &[("hydra.cgroup.pids.max", "44")]).up();
    let json = json!({ "hydra": { "pids.limit": 55 } }).to_string();
    c.runtime().args(["update", "--resources", "-", &c.id]).stdin(json).ok();
    assert_eq!(pids(&c), "55");
    let names = |c: &Container| {
        let rows = inspected(c);
        rows.as_array().unwrap().iter().map(|r| r["knob"].as_str().unwrap().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names(&c), ["pids.limit"]);
    update(&c, &["--cgroup-file", "pids.max=66"]).ok();
    assert_eq!((pids(&c).as_str(), names(&c)), ("66", vec!["cgroup.pids.max".to_string()]));
    update(&c, &["--unset", "cgroup.pids.max"]).ok();
    assert_eq!(pids(&c), "44");
    update(&c, &["--cgroup-file", "cpu.max=1000 10000", "--cpu-max", "50%"])
        .fails_with("cgroup.cpu.max: '1000 10000' and cpu.max say the same thing; allowed: one of the two");
}

/// What is unset is as if it had never been said: in the files, and with systemd also after a reload.
#[test]
fn what_is_unset_leaves_nothing() {
    ours!();
    // Without one systemd has a limit of its own for tasks.
    let own = |config: &mut Value| config["linux"]["resources"]["pids"] = json!({ "limit": 111 });
    let c = Container::sleeping("gone").with(own).up();
    let knobs = |list: &[(&str, Option<&str>)]| {
        let all: serde_json::Map<_, _> = list.iter().map(|(k, v)| (k.to_string(), json!(v))).collect();
        c.runtime()
            .args(["update", "--resources", "-", &c.id])
            .stdin(json!({ "hydra": all }).to_string())
            .out()
    };
    // On v2 the list of all CPUs comes in place of none: the kernel takes no empty one back.
    let held = || {
        let mut all = files(&c);
        all.retain(|path, _| !v2() || !(path.ends_with("cpuset.cpus") || path.ends_with("cpuset.mems")));
        all
    };
    let before = held();
    let mut said = vec![
        ("cpuset.cpus", "0"),
        ("cpuset.mems", "0"),
        ("memory.reservation", "32MiB"),
        ("memory.limit", "64MiB"),
        ("cpu.weight", "300"),
        ("cpu.max", "50%"),
        ("pids.limit", "50"),
    ];
    if knobs(&[("blkio.weight", Some("300"))]).code == 0 {
        said.push(("blkio.weight", "300"));
    }
    let set: Vec<_> = said.iter().map(|(knob, value)| (*knob, Some(*value))).collect();
    let unset: Vec<_> = said.iter().map(|(knob, _)| (*knob, None)).collect();
    knobs(&set).ok();
    assert_ne!(held(), before);
    // A weight is set aside while the container is idle, and is there again after it.
    let weight = || c.cgroup_file("cpu", if v2() { "cpu.weight" } else { "cpu.shares" });
    let heavy = weight();
    if c.cgroup_file("cpu", "cpu.idle").is_some() {
        knobs(&[("cpu.idle", Some("on"))]).ok();
        assert_eq!(c.cgroup_file("cpu", "cpu.idle").as_deref(), Some("1"));
        // One that changes meanwhile holds later.
        knobs(&[("cpu.weight", Some("400"))]).ok();
        knobs(&[("cpu.weight", Some("300"))]).ok();
        knobs(&[("cpu.idle", None)]).ok();
        assert_eq!(weight(), heavy);
    }
    knobs(&unset).ok();
    assert_eq!(held(), before);
    if host::systemd_driver() {
        host::daemon_reload();
        sh(&format!(
            "systemctl set-property --runtime hydratest-{}.scope Description=x 2>/dev/null; true",
            c.id
        ))
        .unwrap();
        assert_eq!(held(), before, "after a reload");
    }
    assert_eq!(inspected(&c), json!([]));
}
