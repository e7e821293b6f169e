use super::*;

fn given(clos: &str, schemata: &[&str], monitoring: bool) -> spec::IntelRdt {
    spec::IntelRdt {
        clos_id: clos.into(),
        schemata: schemata.iter().map(|line| line.to_string()).collect(),
        enable_monitoring: monitoring,
        ..Default::default()
    }
}

/// A directory that looks like resctrl: no machine of ours has the real one.
pub struct Fake(pub PathBuf);

impl Fake {
    pub fn new(name: &str) -> Fake {
        let root = std::env::temp_dir().join(format!("hydra-rdt-{name}-{}", std::process::id()));
        fs::create_dir_all(root.join("info/L3")).unwrap();
        fs::create_dir_all(root.join("mon_groups")).unwrap();
        Fake(root)
    }

    /// Writes a file, and makes its folders.
    pub fn write(&self, file: &str, text: &str) {
        let file = self.0.join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_class_of_its_own() {
    let fake = Fake::new("own");
    let rdt = parse(&given("", &["L3:0=f"], false), "c1").unwrap();
    rdt.check(Some(&fake.0)).unwrap();
    let undo = rdt.to_undo(&fake.0);
    assert_eq!(undo, [fake.0.join("c1")]);
    rdt.apply(&fake.0, 42).unwrap();
    assert_eq!(fs::read_to_string(fake.0.join("c1/schemata")).unwrap(), "L3:0=f\n");
    assert_eq!(fs::read_to_string(fake.0.join("c1/tasks")).unwrap(), "42");
    assert!(rdt.to_undo(&fake.0).is_empty(), "what exists is not to be removed");
    assert!(remove(&fake.0.join("absent")).is_ok());
}

#[test]
fn the_root_class_with_monitoring() {
    let fake = Fake::new("root");
    let rdt = parse(&given("/", &[], true), "c1").unwrap();
    rdt.check(Some(&fake.0)).unwrap();
    assert_eq!(rdt.to_undo(&fake.0), [fake.0.join("mon_groups/c1")]);
    rdt.apply(&fake.0, 42).unwrap();
    assert_eq!(fs::read_to_string(fake.0.join("mon_groups/c1/tasks")).unwrap(), "42");
}

#[test]
fn refusals() {
    let fake = Fake::new("refusals");
    for clos in [".", "..", "a/b", "/x"] {
        assert!(parse(&given(clos, &[], false), "c").is_err(), "{clos}");
    }
    assert!(parse(&given("", &[], false), "c").unwrap().check(None).is_err());
    let text =
        parse(&given("shared", &[], false), "c").unwrap().check(Some(&fake.0)).unwrap_err().to_string();
    assert!(text.contains("must be pre-created"), "{text}");
    let mb = spec::IntelRdt { mem_bw_schema: "MB:0=20".into(), ..given("", &[], false) };
    assert!(parse(&mb, "c")
        .unwrap()
        .check(Some(&fake.0))
        .unwrap_err()
        .to_string()
        .contains("MBA is not enabled"));
}

#[test]
fn a_class_that_is_there_must_match_and_stays() {
    let fake = Fake::new("match");
    let class = fake.0.join("gold");
    fs::create_dir_all(fake.0.join("info/MB")).unwrap();
    fs::write(fake.0.join("info/MB/bandwidth_gran"), "10\n").unwrap();
    fs::create_dir(&class).unwrap();
    let found = "    MB:0= 30;1=100\n    L3:0=7ff;1=00f\n";
    fs::write(class.join("schemata"), found).unwrap();
    for same in [&["L3:0=7FF"][..], &["L3:1=f;0=7ff", "MB:0=25"], &["MB:0=30"], &[]] {
        let rdt = parse(&given("gold", same, false), "c").unwrap();
        rdt.apply(&fake.0, 42).unwrap();
        assert!(rdt.to_undo(&fake.0).is_empty());
    }
    for other in ["L3:0=7f", "MB:0=40", "L2:0=7ff", "L3:2=1", "nonsense"] {
        let rdt = parse(&given("gold", &[other], false), "c").unwrap();
        let text = rdt.apply(&fake.0, 43).unwrap_err().to_string();
        assert!(text.contains("gold") && text.contains(other), "{text}");
    }
    assert_eq!(fs::read_to_string(class.join("schemata")).unwrap(), found);
    assert_eq!(fs::read_to_string(class.join("tasks")).unwrap(), "42");
}

#[test]
fn the_kernels_own_words() {
    let fake = Fake::new("words");
    fs::write(fake.0.join("info/last_cmd_status"), "bit mask 0x1 is bad\n").unwrap();
    let rdt = parse(&given("absent/", &[], false), "c");
    assert!(rdt.is_err());
    let rdt = parse(&given("absent", &["L3:0=1"], false), "c").unwrap();
    fs::write(fake.0.join("absent"), "a file, not a directory").unwrap();
    let text = rdt.apply(&fake.0, 1).unwrap_err().to_string();
    assert!(text.ends_with("last_cmd_status: bit mask 0x1 is bad"), "{text}");
}

#[test]
fn an_update_is_refused_where_the_machine_or_the_container_has_no_class() {
    let fake = Fake::new("decide");
    let class = parse(&given("", &[], false), "c1").unwrap();
    let l3 = change::asked(&[("memory", "1".into()), ("l3-cache-schema", "L3:0=f".into())]);
    let mb = change::asked(&[("mem-bw-schema", "MB:0=20".into())]);
    let refusal =
        |root: Option<&Path>, class, asked| change::decide(root, class, asked).unwrap_err().to_string();
    assert!(refusal(None, Some(&class), &l3).contains("l3 cache schema is not enabled"));
    assert!(refusal(Some(&fake.0), Some(&class), &mb).contains("memory bandwidth schema is not enabled"));
    assert!(refusal(Some(&fake.0), None, &l3).contains("updating a non-existent Intel RDT configuration"));
    assert!(change::decide(Some(&fake.0), Some(&class), &l3).unwrap().is_some());
    let empty = change::asked(&[("l3-cache-schema", "".into()), ("memory", "1".into())]);
    assert!(change::decide(None, None, &empty).unwrap().is_none());
}

#[test]
fn statistics_have_runcs_names() {
    let fake = Fake::new("stats");
    let plain = parse(&given("gold", &[], false), "c1").unwrap();
    let monitored = parse(&given("gold", &[], true), "c1").unwrap();
    fake.write("schemata", "    MB:0=100;1=100\n    L3:0=7ff;1=7ff\n");
    fake.write("gold/schemata", "    MB:0= 20;1=100\n    L3:0=00f;1=7ff\n");
    let l3 = [("cbm_mask", "7ff\n"), ("min_cbm_bits", "1\n"), ("num_closids", "16\n")];
    l3.iter().for_each(|(file, text)| fake.write(&format!("info/L3/{file}"), text));
    let mut expected = serde_json::json!({
        "l3_cache_info": { "cbm_mask": "7ff", "min_cbm_bits": 1, "num_closids": 16 },
        "l3_cache_schema_root": "L3:0=7ff;1=7ff",
        "l3_cache_schema": "L3:0=00f;1=7ff",
        "schemata": ["MB:0= 20;1=100", "    L3:0=00f;1=7ff"],
    });
    let read = |class| serde_json::to_value(stats::read(&fake.0, class).unwrap()).unwrap();
    assert_eq!(read(&plain), expected, "a machine that allocates cache and counts nothing");

    let mb = [("bandwidth_gran", "10"), ("delay_linear", "0"), ("min_bandwidth", "10"), ("num_closids", "8")];
    mb.iter().for_each(|(file, text)| fake.write(&format!("info/MB/{file}"), text));
    fake.write("info/L3_MON/mon_features", "llc_occupancy\nmbm_total_bytes\nmbm_local_bytes\n");
    for (group, n) in [("gold", 10), ("gold/mon_groups/c1", 20)] {
        for (domain, n) in [("mon_L3_00", n), ("mon_L3_01", n + 1)] {
            for file in ["llc_occupancy", "mbm_total_bytes", "mbm_local_bytes"] {
                fake.write(&format!("{group}/mon_data/{domain}/{file}"), &format!("{}\n", n + file.len()));
            }
        }
    }
    expected["mem_bw_info"] =
        serde_json::json!({ "bandwidth_gran": 10, "min_bandwidth": 10, "num_closids": 8 });
    expected["mem_bw_schema_root"] = "MB:0=100;1=100".into();
    expected["mem_bw_schema"] = "MB:0= 20;1=100".into();
    for (class, n) in [(&plain, 10), (&monitored, 20)] {
        let domains = [n, n + 1];
        expected["mbm_stats"] = domains
            .map(|n| serde_json::json!({ "mbm_total_bytes": n + 15, "mbm_local_bytes": n + 15 }))
            .to_vec()
            .into();
        expected["cmt_stats"] =
            domains.map(|n| serde_json::json!({ "llc_occupancy": n + 13 })).to_vec().into();
        assert_eq!(read(class), expected);
    }
    fake.write("gold/mon_data/mon_L3_01/mbm_total_bytes", "Unavailable\n");
    let text = stats::read(&fake.0, &plain).unwrap_err().to_string();
    assert!(text.contains("mon_L3_01/mbm_total_bytes says \"Unavailable\""), "{text}");
}
