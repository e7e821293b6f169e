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
    assert_eq!(new.raw[&("memory.high".to_string(), String::new())], "max");
    assert_eq!(new.net.egress_rate, Some(Cap::Max));
}
