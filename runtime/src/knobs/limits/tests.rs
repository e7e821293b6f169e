use super::*;
use crate::knobs::layers::Layers;

const A: Device = Device { major: 8, minor: 0 };
const B: Device = Device { major: 7, minor: 1 };

fn effective(knobs: &[(&str, &str)]) -> Effective {
    let mut layers = Layers::default();
    for (name, value) in knobs {
        layers.set(name, value).unwrap();
    }
    layers.effective().unwrap()
}

fn devices(selector: &Selector) -> Result<Vec<Device>> {
    match selector {
        Selector::All => Ok(vec![A, B]),
        Selector::Disks => Ok(vec![A]),
        Selector::Host(path) if path == "/a" => Ok(vec![A]),
        Selector::Number(major, minor) => Ok(vec![Device { major: *major, minor: *minor }]),
        other => Err(Error::unsupported(format!("{other} lies on tmpfs, which has no block device"))),
    }
}

fn on(version: Version, base: &Resources, knobs: &[(&str, &str)]) -> Result<Limits> {
    let world = World {
        version: &|name| (name != "io" || version == Version::V2).then_some(version),
        devices: &devices,
    };
    limits(base, &effective(knobs), &world)
}

fn rates(limits: &Limits) -> Vec<(Device, u64)> {
    let list = limits.resources.block_io.as_ref().unwrap().throttle_write_bps_device.iter();
    list.map(|t| (Device { major: t.major as u32, minor: t.minor as u32 }, t.rate)).collect()
}

#[test]
fn a_named_device_outweighs_all() {
    let got = on(Version::V1, &Resources::default(), &[("blkio.write-bps", "all=10,/a=5")]).unwrap();
    assert_eq!(rates(&got), [(B, 10), (A, 5)]);
    assert_eq!(got.placed[1].selector, "/a");
    assert!(got.notes[0].contains("not buffered"));
    let e = on(Version::V1, &Resources::default(), &[("blkio.write-bps", "/a=10,8:0=5")])
        .unwrap_err()
        .to_string();
    assert_eq!(
        e,
        "from the operator: blkio.write-bps: /a and 8:0 are the same device 8:0; allowed: one limit for it"
    );
    let e =
        on(Version::V1, &Resources::default(), &[("blkio.write-bps", "/tmpfs=10")]).unwrap_err().to_string();
    assert!(e.contains("blkio.write-bps: /tmpfs lies on tmpfs"), "{e}");
}

#[test]
fn knobs_lie_over_the_containers_own() {
    let mut base = Resources::default();
    upsert(&mut base.block_io.get_or_insert_default().throttle_write_bps_device, A, 99);
    base.unified.insert("io.max".into(), "8:0 wbps=1 rbps=2\n7:1 wbps=3".into());
    base.unified.insert("memory.high".into(), "1".into());
    let got = on(Version::V2, &base, &[("blkio.write-bps", "8:0=max"), ("memory.high", "1MiB")]).unwrap();
    assert_eq!(rates(&got), [(A, 0)]);
    assert_eq!(got.resources.unified["io.max"], "8:0 rbps=2\n7:1 wbps=3");
    assert!(!got.resources.unified.contains_key("memory.high"));
    assert_eq!(got.raw[&("memory.high".to_string(), String::new())], "1048576");
}

#[test]
fn totals_are_shared_out() {
    let knobs = [("blkio.total-write-bps", "10kB"), ("blkio.write-bps", "8:0=2kB")];
    let got = on(Version::V1, &Resources::default(), &knobs).unwrap();
    assert_eq!(rates(&got), [(A, 2000), (B, 5000)]);
    assert_eq!(
        (got.shared.as_slice(), (!got.totals.is_empty() || got.follow_mounts)),
        ([A, B].as_slice(), true)
    );
    let caps =
        |limits: &Limits| limits.caps.iter().map(|c| (c.throttle, c.device, c.rate)).collect::<Vec<_>>();
    assert_eq!(caps(&got), [(1, A, 2000)]);
    // What config.json limits is no less a limit: `docker run --device-write-bps`.
    let base = r#"{"blockIO":{"throttleWriteBpsDevice":[{"major":8,"minor":0,"rate":900}]},"unified":{"io.max":"7:1 wbps=800"}}"#;
    let base = serde_json::from_str(base).unwrap();
    let got = on(Version::V2, &base, &[("blkio.total-write-bps", "10kB")]).unwrap();
    assert_eq!(rates(&got), [(A, 900), (B, 800)]);
    assert_eq!(caps(&got), [(1, A, 900), (1, B, 800)]);
}

#[test]
fn what_a_version_lacks_is_refused_by_name() {
    let e = on(Version::V1, &Resources::default(), &[("memory.high", "1MiB")]).unwrap_err().to_string();
    assert!(e.contains("memory.high: cgroup v1") && e.contains("use memory.limit"), "{e}");
    let e = on(Version::V2, &Resources::default(), &[("memory.swappiness", "1")]).unwrap_err().to_string();
    assert!(e.contains("memory.swappiness: cgroup v2"), "{e}");
    assert!(on(Version::V1, &Resources::default(), &[("memory.swap-max", "1MiB")]).is_err());
    let knobs = [("memory.swap-max", "1MiB"), ("memory.limit", "2MiB")];
    let got = on(Version::V1, &Resources::default(), &knobs).unwrap();
    assert_eq!(got.resources.memory.unwrap().swap, Some(3 << 20));
}

#[test]
fn every_knob_goes_somewhere() {
    use crate::knobs::table::{Grammar, KNOBS};
    for knob in KNOBS {
        let value = match knob.grammar {
            Grammar::CpuMax => "max".to_string(),
            Grammar::CpuList => "0".into(),
            Grammar::Switch => "on".into(),
            Grammar::ClassId => "1:1".into(),
            Grammar::Word(words) => words[1].into(),
            // Not less than memory's limit.
            _ if knob.name == "memory.swap" => "2GiB".into(),
            _ if knob.name == "hugetlb.limit" => "2MB=1".into(),
            Grammar::Keyed(_) => format!("x={}", knob.range.0.max(1)),
            _ => knob.range.0.max(1).to_string(),
        };
        let placed = |version| {
            let mut base = Resources::default();
            // memory.swap-max on v1 is said as a sum.
            base.memory.get_or_insert_default().limit = Some(1 << 30);
            let got = on(version, &base, &[(knob.name, &value)]).ok()?;
            let res = got.resources != base || !got.raw.is_empty();
            (!got.net.is_empty() || res || (!got.totals.is_empty() || got.follow_mounts)).then_some(())
        };
        let anywhere = ["blkio.follow-mounts", "net.count-loopback", "net.ingress-mode"].contains(&knob.name);
        assert_eq!(placed(Version::V1).is_some(), anywhere || !knob.v1.is_empty(), "{} on v1", knob.name);
        assert_eq!(placed(Version::V2).is_some(), anywhere || !knob.v2.is_empty(), "{} on v2", knob.name);
    }
}

#[test]
fn lifting_takes_back_what_is_gone() {
    let none = Resources::default();
    let old = on(
        Version::V2,
        &none,
        &[("blkio.write-bps", "5"), ("memory.high", "1MiB"), ("net.egress-rate", "1MB")],
    );
    let mut new = on(Version::V2, &none, &[("blkio.write-bps", "8:0=7")]).unwrap();
    lift(&old.unwrap(), &mut new, &BTreeMap::new());
    assert_eq!(rates(&new), [(A, 7), (B, 0)]);
    assert_eq!(new.lifted[&("memory.high".to_string(), String::new())], "max");
    assert_eq!(new.net.egress_rate, Some(Cap::Max));
}

fn line(file: &str, key: &str) -> Line {
    (file.to_string(), key.to_string())
}

/// What lifts `knobs` once nobody says them.
fn lifted(version: Version, knobs: &[(&str, &str)]) -> Limits {
    let none = Resources::default();
    let old = on(version, &none, knobs).unwrap();
    let mut new = on(version, &none, &[]).unwrap();
    lift(&old, &mut new, &BTreeMap::new());
    new
}

#[test]
fn protection_is_lifted_to_none() {
    for knob in ["memory.reservation", "memory.low"] {
        for (version, file, nothing) in
            [(Version::V1, "memory.soft_limit_in_bytes", "-1"), (Version::V2, "memory.low", "0")]
        {
            let back = lifted(version, &[(knob, "1MiB")]);
            assert_eq!(back.lifted, BTreeMap::from([(line(file, ""), nothing.to_string())]));
            assert_eq!(back.resources.memory.unwrap_or_default().reservation, None);
            // 0 is written, though in config.json it would mean "as before".
            let mut base = Resources::default();
            base.memory.get_or_insert_default().reservation = Some(5);
            let none = on(version, &base, &[(knob, "0")]).unwrap();
            assert_eq!(
                (none.raw[&line(file, "")].as_str(), none.resources.memory.unwrap().reservation),
                ("0", None)
            );
        }
    }
}

#[test]
fn weights_are_lifted_to_the_kernels_own() {
    let none = Resources::default();
    let old = on(Version::V2, &none, &[("blkio.weight", "300"), ("blkio.weight-device", "8:0=200")]).unwrap();
    for (has, all, each, text) in [
        ("io.weight", "100", "io.weight", "8:0 default"),
        ("io.bfq.weight", "100", "io.bfq.weight", "8:0 default"),
        ("blkio.bfq.weight", "100", "blkio.bfq.weight_device", "8:0 default"),
        ("blkio.weight", "500", "blkio.weight_device", "8:0 0"),
    ] {
        let mut new = on(Version::V2, &none, &[]).unwrap();
        lift(&old, &mut new, &BTreeMap::new());
        lift_weights(&old, &mut new, &|file| file == has);
        let wanted = [(line(has, ""), all.to_string()), (line(each, "8:0"), text.to_string())];
        assert_eq!(new.lifted, BTreeMap::from(wanted));
        let io = new.resources.block_io.clone().unwrap_or_default();
        assert!(io.weight.is_none() && io.weight_device.is_empty());
        let unit = new.of_unit(Mode::V2).unified.remove("io.weight");
        let v2 = has.starts_with("io.").then(|| "100\n8:0 default".to_string());
        assert_eq!(unit, v2, "{has}");
    }
    // What is asked for still is not lifted.
    let mut new =
        on(Version::V2, &none, &[("blkio.weight", "50"), ("blkio.weight-device", "8:0=60")]).unwrap();
    lift_weights(&old, &mut new, &|_| true);
    assert!(new.lifted.is_empty());
}

#[test]
fn lines_for_devices_and_names_are_lifted_one_by_one() {
    let knobs = [
        ("cgroup.blkio.throttle.read_bps_device", "8:0 5\n7:1 6"),
        ("cgroup.io.bfq.weight", "default 50\n8:0 60"),
        ("cgroup.net_prio.ifpriomap", "lo 1\neth0 2"),
        ("cgroup.dmem.max", "a/b 1\nc/d 2"),
    ];
    let all = |_: &str| Some(Version::V2);
    let world = World { version: &all, devices: &devices };
    let none = Resources::default();
    let old = limits(&none, &effective(&knobs), &world).unwrap();
    assert_eq!(old.raw.len(), 8, "{:?}", old.raw);
    let mut new = limits(&none, &effective(&[]), &world).unwrap();
    // Whole files as they were are no lines.
    let originals = BTreeMap::from([("blkio.throttle.read_bps_device".to_string(), String::new())]);
    lift(&old, &mut new, &originals);
    let texts: Vec<_> = new.lifted.values().map(String::as_str).collect();
    assert_eq!(texts, ["7:1 0", "8:0 0", "a/b max", "c/d max", "100", "8:0 default", "eth0 0", "lo 0"]);
}

/// Nobody knows what a file said before the first of several knobs, so what the kernel has by itself is known.
#[test]
fn raw_limits_are_lifted_to_the_kernels_own() {
    let knobs = [
        ("cgroup.memory.limit_in_bytes", "4096"),
        ("cgroup.memory.memsw.limit_in_bytes", "8192"),
        ("cgroup.hugetlb.2MB.max", "0"),
        ("cgroup.cpu.shares", "2"),
    ];
    let world = World { version: &|_| Some(Version::V1), devices: &devices };
    let none = Resources::default();
    let old = limits(&none, &effective(&knobs), &world).unwrap();
    let mut new = limits(&none, &effective(&[]), &world).unwrap();
    let originals = BTreeMap::from([("memory.limit_in_bytes".to_string(), "7".to_string())]);
    lift(&old, &mut new, &originals);
    let writes = new.lifting_writes().unwrap();
    let writes: Vec<_> = writes.iter().map(|w| (w.file.as_ref(), w.value.as_str())).collect();
    // The sum before the limit: it must not be less at any time.
    let wanted = [
        ("memory.memsw.limit_in_bytes", "-1"),
        ("memory.limit_in_bytes", "-1"),
        ("hugetlb.2MB.max", "max"),
        ("cpu.shares", "1024"),
    ];
    assert_eq!(writes, wanted);
    let e = on(Version::V2, &none, &[("hugetlb.limit", "3mb=1MiB")]).unwrap_err().to_string();
    assert!(e.contains("hugetlb.limit: '3mb' is no size of pages; allowed: such as"), "{e}");
}

#[test]
fn a_weaker_unified_file_yields() {
    let mut base = Resources::default();
    let mut unified = |file: &str, text: &str| drop(base.unified.insert(file.into(), text.into()));
    unified("io.max", "8:0 wbps=999999 rbps=5\n7:1 wbps=3");
    unified("hugetlb.2MB.max", "1");
    unified("hugetlb.2MB.rsvd.max", "1");
    unified("hugetlb.1GB.max", "2");
    unified("io.weight", "default 10\n8:0 20\n7:1 30");
    unified("misc.max", "a 1\nb 2");
    let knobs = [
        ("blkio.total-write-bps", "10kB"),
        ("hugetlb.limit", "2MB=4MiB"),
        ("blkio.weight-device", "8:0=60"),
        ("misc.max", "a=3"),
    ];
    let world = World { version: &|_| Some(Version::V2), devices: &devices };
    let got = limits(&base, &effective(&knobs), &world).unwrap();
    assert_eq!(rates(&got), [(A, 5000), (B, 3)]);
    let left: Vec<_> = got.resources.unified.iter().map(|(f, t)| (f.as_str(), t.as_str())).collect();
    let wanted = [
        ("hugetlb.1GB.max", "2"),
        ("io.max", "8:0 rbps=5"),
        ("io.weight", "default 10\n7:1 30"),
        ("misc.max", "a 1\nb 2"),
    ];
    assert_eq!(left, wanted);
    assert_eq!(got.raw[&line("misc.max", "a")], "a 3");
}

#[test]
fn a_memory_limit_moves_the_weaker_sum() {
    let of = |limit: i64, swap: i64, knobs: &[(&str, &str)]| {
        let mut base = Resources::default();
        *base.memory.get_or_insert_default() =
            cgroup::resources::Memory { limit: Some(limit), swap: Some(swap), ..Default::default() };
        on(Version::V2, &base, knobs).map(|got| {
            let memory = got.resources.memory.unwrap();
            (memory.limit.unwrap(), memory.swap.unwrap())
        })
    };
    const M: i64 = 1 << 20;
    assert_eq!(of(256 * M, 512 * M, &[("memory.limit", "1GiB")]).unwrap(), (1024 * M, 1280 * M));
    assert_eq!(of(256 * M, 256 * M, &[("memory.limit", "128MiB")]).unwrap(), (128 * M, 128 * M));
    assert_eq!(of(256 * M, 256 * M, &[("memory.limit", "max")]).unwrap(), (-1, -1));
    assert_eq!(of(256 * M, -1, &[("memory.limit", "1GiB")]).unwrap(), (1024 * M, -1));
    let e = of(256 * M, 512 * M, &[("memory.swap", "128MiB")]).unwrap_err().to_string();
    assert_eq!(
        e,
        "memory.swap: '134217728' (from the operator) is memory and swap together and less than memory.limit 268435456 \
         (from the container's configuration); allowed: 268435456 and above"
    );
}

#[test]
fn no_weight_is_written_while_idle() {
    let mut base = Resources::default();
    base.unified.insert("cpu.weight".into(), "70".into());
    for knobs in [
        &[("cpu.idle", "on"), ("cpu.weight", "50")][..],
        &[("cgroup.cpu.idle", "1"), ("cpu.weight", "50")],
        &[("cpu.idle", "on")],
    ] {
        let got = on(Version::V2, &base, knobs).unwrap();
        assert!(
            !got.raw.contains_key(&line("cpu.weight", "")) && got.resources.unified.is_empty(),
            "{knobs:?}"
        );
        assert_eq!(got.notes, ["cpu.weight is ignored while cpu.idle is on"]);
    }
    // Nor is one that was there before.
    let old = on(Version::V2, &Resources::default(), &[("cpu.weight", "50")]).unwrap();
    let mut new =
        on(Version::V2, &Resources::default(), &[("cpu.weight", "50"), ("cpu.idle", "on")]).unwrap();
    lift(&old, &mut new, &BTreeMap::new());
    assert!(new.lifted.is_empty() && new.of_unit(Mode::V2).unified.is_empty());
    let off = on(Version::V2, &base, &[("cpu.idle", "off"), ("cpu.weight", "50")]).unwrap();
    assert_eq!(off.raw[&line("cpu.weight", "")], "50");
}

#[test]
fn loopback_goes_back_to_what_the_network_has() {
    use netlimit::Network;
    let back = lifted(Version::V2, &[("net.count-loopback", "off")]);
    assert_eq!(back.net.count_loopback, None);
    for (network, usual) in [(Network::Private, false), (Network::Host, true), (Network::Shared, true)] {
        assert_eq!(loopback(Some(!usual), None, network), Some(usual));
    }
    assert_eq!(loopback(None, None, Network::Host), None);
    assert_eq!(loopback(Some(true), Some(false), Network::Host), Some(false));
}
