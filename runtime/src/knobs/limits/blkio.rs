//! Limits of block devices, each and all together.

use std::collections::BTreeMap;

use cgroup::block::Device;
use cgroup::layout::Version;
use cgroup::resources::{BlockIo, ThrottleDevice, WeightDevice};

use super::{amount, forget_line, Ceiling, Limits, Placed, World};
use crate::error::{Context, Result};
use crate::invalid;
use crate::knobs::layers::Asked;
use crate::knobs::table::Value;
use crate::knobs::value::{Amount, Selector};

/// The devices of a list with their amounts. A named path or device outweighs `disks`, which outweighs `all`.
fn place(
    name: &str,
    list: &[(Selector, Amount)],
    world: &World<'_>,
) -> Result<BTreeMap<Device, (Amount, Selector)>> {
    let rank = |s: &Selector| match s {
        Selector::All => 0,
        Selector::Disks => 1,
        _ => 2,
    };
    let mut placed: BTreeMap<Device, (Amount, Selector)> = BTreeMap::new();
    for (selector, amount) in list {
        for device in (world.devices)(selector).with_context(|| name.to_string())? {
            match placed.get(&device) {
                Some((_, known)) if rank(known) > rank(selector) => continue,
                Some((other, known)) if rank(known) == rank(selector) && other != amount => invalid!(
                    "{name}: {known} and {selector} are the same device {device}; allowed: one limit for it"
                ),
                _ => placed.insert(device, (*amount, selector.clone())),
            };
        }
    }
    Ok(placed)
}

pub fn put(limits: &mut Limits, name: &str, asked: &Asked, world: &World<'_>) -> Result<()> {
    let knob = name.strip_prefix("blkio.").unwrap_or(name);
    let controller = if (world.version)("blkio") == Some(Version::V1) { "blkio" } else { "io" };
    match knob {
        "follow-mounts" => limits.follow_mounts = asked.value == Value::Switch(true),
        "weight" => {
            world.need(asked, controller)?;
            let weight = amount(&asked.value).number().map(|n| n as u16);
            limits.resources.block_io.get_or_insert_default().weight = weight;
        }
        _ if knob.starts_with("total-") => {
            let version = world.need(asked, controller)?;
            let total = amount(&asked.value).number();
            match knob {
                "total-read-bps" => limits.totals.read_bps = total,
                "total-write-bps" => limits.totals.write_bps = total,
                "total-read-iops" => limits.totals.read_iops = total,
                _ => limits.totals.write_iops = total,
            }
            if version == Version::V1 && knob.starts_with("total-write-") {
                limits.notes.push(format!("{name}: {NOT_BUFFERED}"));
            }
        }
        _ => {
            let version = world.need(asked, controller)?;
            let Value::Devices(list) = &asked.value else { return Ok(()) };
            if knob == "latency" {
                world.need_v2(asked, controller, "use blkio.read-bps and blkio.write-bps")?;
            }
            let places = place(name, list, world)?;
            if places.is_empty() {
                limits.notes.push(format!("{name}: {NO_DEVICE}"));
            }
            for (device, (amount, selector)) in places {
                let (amount, selector) = (amount.number(), selector.to_string());
                put_device(limits, knob, device, amount);
                limits.placed.push(Placed { knob: name.into(), device, amount, selector });
            }
            if version == Version::V1 && knob.starts_with("write-") {
                limits.notes.push(format!("{name}: {NOT_BUFFERED}"));
            }
        }
    }
    Ok(())
}

/// What is said of a limit that has no device to go to.
pub const NO_DEVICE: &str = "there is no device behind the container's mounts that could be limited";
/// What is said of limits on writes on cgroup v1.
pub const NOT_BUFFERED: &str = "cgroup v1 holds direct and synchronous writes, not buffered ones";

fn put_device(limits: &mut Limits, knob: &str, device: Device, amount: Option<u64>) {
    let io = limits.resources.block_io.get_or_insert_default();
    let Device { major, minor } = device;
    let (major, minor) = (i64::from(major), i64::from(minor));
    if knob == "weight-device" {
        io.weight_device.retain(|w| (w.major, w.minor) != (major, minor));
        let weight = amount.map(|n| n as u16);
        io.weight_device.push(WeightDevice { major, minor, weight, leaf_weight: None });
        for file in ["io.weight", "io.bfq.weight"] {
            forget_line(&mut limits.resources.unified, file, &device.to_string());
        }
    } else if knob == "latency" {
        let target = amount.map_or("max".into(), |n| n.to_string());
        limits.raw.insert(("io.latency".into(), device.to_string()), format!("{device} target={target}"));
    } else {
        let Some(index) = THROTTLES.iter().position(|(name, _)| *name == knob) else { return };
        // 0 lifts, as in the OCI specification.
        upsert(throttles(io, index), device, amount.unwrap_or(0));
        forget_rate(&mut limits.resources.unified, device, index);
    }
}

/// Takes a device's rate out of config.json's `io.max`, which is written later, and says what it was.
fn forget_rate(unified: &mut BTreeMap<String, String>, device: Device, index: usize) -> Option<u64> {
    let text = unified.remove("io.max")?;
    let (name, key) = (device.to_string(), THROTTLES[index].1);
    let mut was = None;
    let mut keep = |line: &str| {
        let mut words = line.split_whitespace();
        let first = words.next()?;
        let mut rest = String::new();
        for word in words {
            match word.split_once('=') {
                Some((k, rate)) if first == name && k == key => was = rate.parse().ok(),
                _ => rest = format!("{rest} {word}"),
            }
        }
        (!rest.is_empty()).then(|| format!("{first}{rest}"))
    };
    let rest = text.lines().filter_map(&mut keep).collect::<Vec<_>>().join("\n");
    if !rest.is_empty() {
        unified.insert("io.max".into(), rest);
    }
    was
}

/// The throttles by knob and by key in io.max.
const THROTTLES: [(&str, &str); 4] =
    [("read-bps", "rbps"), ("write-bps", "wbps"), ("read-iops", "riops"), ("write-iops", "wiops")];

/// Which throttle a knob sets, in the order of [`Totals::all`].
pub fn throttle_index(knob: &str) -> Option<usize> {
    let name = knob.strip_prefix("blkio.")?;
    THROTTLES.iter().position(|(throttle, _)| *throttle == name)
}

/// The list that holds a throttle; `index` as in [`Totals::all`].
pub fn throttles(io: &mut BlockIo, index: usize) -> &mut Vec<ThrottleDevice> {
    match index {
        0 => &mut io.throttle_read_bps_device,
        1 => &mut io.throttle_write_bps_device,
        2 => &mut io.throttle_read_iops_device,
        _ => &mut io.throttle_write_iops_device,
    }
}

/// Sets a device's rate, keeping the others.
pub fn upsert(list: &mut Vec<ThrottleDevice>, device: Device, rate: u64) {
    let (major, minor) = (i64::from(device.major), i64::from(device.minor));
    match list.iter_mut().find(|t| (t.major, t.minor) == (major, minor)) {
        Some(known) => known.rate = rate,
        None => list.push(ThrottleDevice { major, minor, rate }),
    }
}

/// Until the helper knows better, every device gets an equal share of each total.
pub fn share_totals(limits: &mut Limits, world: &World<'_>) -> Result<()> {
    if limits.totals.is_empty() {
        return Ok(());
    }
    let devices = (world.devices)(&Selector::All)?;
    if devices.is_empty() {
        limits.notes.push(format!("blkio.total-*: {NO_DEVICE}"));
    }
    for (index, total) in limits.totals.all().into_iter().enumerate() {
        let Some(total) = total else { continue };
        for device in &devices {
            let raw = forget_rate(&mut limits.resources.unified, *device, index);
            let list = throttles(limits.resources.block_io.get_or_insert_default(), index);
            let own = [raw, rate_of(list, *device)].into_iter().flatten().filter(|rate| *rate > 0).min();
            limits.caps.extend(own.map(|rate| Ceiling { throttle: index, device: *device, rate }));
            let share = (total / devices.len() as u64).max(1);
            upsert(list, *device, own.map_or(share, |own| own.min(share)));
        }
    }
    limits.shared = devices;
    Ok(())
}

/// What a device is limited to.
fn rate_of(list: &[ThrottleDevice], device: Device) -> Option<u64> {
    let own = list.iter().find(|t| (t.major, t.minor) == (device.major.into(), device.minor.into()));
    own.map(|t| t.rate)
}
