//! `linux.resources` as properties of a unit.
//!
//! What is only written to the files is lost when systemd writes its own idea of them, at the next daemon-reload.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::value::Value;
use crate::devices;
use crate::error::{Error, Result};
use crate::layout::Mode;
use crate::resources::{BlockIo, Cpu, Resources, ThrottleDevice};
use crate::v2::weight_of_shares;
use crate::write::throttles;

/// One property of a unit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Property {
    pub name: String,
    pub value: Value,
}

impl Property {
    pub fn new(name: impl Into<String>, value: Value) -> Property {
        Property { name: name.into(), value }
    }

    fn number(name: &str, n: u64) -> Property {
        Property::new(name, Value::U64(n))
    }
}

/// systemd's "infinity".
const INFINITY: u64 = u64::MAX;

fn limit(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(INFINITY)
}

/// Limits that systemd knows. `version` is systemd's, `None` for the newest.
pub fn properties(mode: Mode, resources: &Resources, version: Option<u32>) -> Result<Vec<Property>> {
    let since = |wanted: u32| version.is_none_or(|v| v >= wanted);
    let mut out = device_properties(resources)?;
    let memory = resources.memory.clone().unwrap_or_default();
    let (size, sum) = (memory.limit.filter(|n| *n != 0), memory.swap.filter(|n| *n != 0));
    let name = if mode == Mode::V2 { "MemoryMax" } else { "MemoryLimit" };
    out.extend(size.map(|n| Property::number(name, limit(n))));
    if mode == Mode::V2 {
        out.extend(memory.reservation.filter(|n| *n != 0).map(|n| Property::number("MemoryLow", limit(n))));
        let swap = match (size, sum) {
            (_, Some(-1)) | (Some(-1), None) => Some(INFINITY),
            (Some(size), Some(sum)) => Some(limit(sum - size)),
            _ => None,
        };
        out.extend(swap.map(|n| Property::number("MemorySwapMax", n)));
    }
    if let Some(cpu) = &resources.cpu {
        cpu_properties(cpu, mode, &since, &mut out)?;
    }
    if let Some(n) = resources.pids.as_ref().and_then(|p| p.limit) {
        // systemd takes no 0; the file gets it afterwards.
        out.push(Property::number("TasksMax", limit(n).max(1)));
    }
    if let Some(io) = &resources.block_io {
        io_properties(io, mode, &mut out);
    }
    for (file, value) in &resources.unified {
        unified(file, value.trim(), &since, &mut out)?;
    }
    Ok(last_words(out))
}

/// Of values said twice the later holds. Lists add up.
fn last_words(mut all: Vec<Property>) -> Vec<Property> {
    let list = |p: &Property| matches!(&p.value, Value::Array(element, _) if element.starts_with('('));
    let mut i = 0;
    while i < all.len() {
        match !list(&all[i]) && all[i + 1..].iter().any(|later| later.name == all[i].name) {
            true => drop(all.remove(i)),
            false => i += 1,
        }
    }
    all
}

fn cpu_properties(cpu: &Cpu, mode: Mode, since: &dyn Fn(u32) -> bool, out: &mut Vec<Property>) -> Result<()> {
    let idle = cpu.idle == Some(1) && mode == Mode::V2 && since(252);
    if idle {
        out.push(Property::number("CPUWeight", 0));
    } else if let Some(shares) = cpu.shares.filter(|n| *n != 0) {
        out.push(match mode {
            Mode::V2 => Property::number("CPUWeight", weight_of_shares(shares)),
            Mode::V1 | Mode::Hybrid => Property::number("CPUShares", shares),
        });
    }
    quota(cpu.quota.unwrap_or(0), cpu.period.unwrap_or(0), since, out);
    let lists = [("AllowedCPUs", &cpu.cpus, "cpu.cpus"), ("AllowedMemoryNodes", &cpu.mems, "cpu.mems")];
    for (name, list, field) in lists {
        if let Some(list) = list.as_ref().filter(|l| !l.is_empty() && since(244)) {
            out.push(Property::new(name, bits(list, field)?));
        }
    }
    Ok(())
}

/// systemd keeps a whole percentage of a CPU: rounded up, so that it never limits more than was asked. The file
/// gets the exact value afterwards.
fn quota(quota: i64, period: u64, since: &dyn Fn(u32) -> bool, out: &mut Vec<Property>) {
    if period != 0 && since(242) {
        out.push(Property::number("CPUQuotaPeriodUSec", period));
    }
    if quota == 0 && period == 0 {
        return;
    }
    let period = if period == 0 { 100_000 } else { period };
    let second = match u64::try_from(quota) {
        Ok(n) if n > 0 => (n.saturating_mul(1_000_000) / period).next_multiple_of(10_000),
        _ => INFINITY,
    };
    out.push(Property::number("CPUQuotaPerSecUSec", second));
}

/// `0-2,8` as a bit mask, lowest byte first.
fn bits(list: &str, field: &str) -> Result<Value> {
    let mut mask = Vec::new();
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |n: &str| n.trim().parse::<usize>().ok().filter(|n| *n < 8192);
        let (Some(first), Some(last)) = (number(first), number(last)) else {
            return Err(Error::invalid(format!("{field}: \"{list}\" is no list such as \"0-3,7\"")));
        };
        for n in first..=last {
            if mask.len() <= n / 8 {
                mask.resize(n / 8 + 1, 0u8);
            }
            mask[n / 8] |= 1 << (n % 8);
        }
    }
    Ok(Value::Array("y".to_string(), mask.into_iter().map(Value::Byte).collect()))
}

/// Pairs of a device and a number.
fn per_device(name: &str, pairs: impl Iterator<Item = (String, u64)>) -> Option<Property> {
    let pair = |(device, n): (String, u64)| {
        Value::Struct(vec![Value::Str(format!("/dev/block/{device}")), Value::U64(n)])
    };
    let list: Vec<Value> = pairs.map(pair).collect();
    (!list.is_empty()).then(|| Property::new(name, Value::Array("(st)".to_string(), list)))
}

fn io_properties(io: &BlockIo, mode: Mode, out: &mut Vec<Property>) {
    let rates = |list: &[ThrottleDevice]| {
        let rate = |d: &ThrottleDevice| {
            (format!("{}:{}", d.major, d.minor), if d.rate == 0 { INFINITY } else { d.rate })
        };
        list.iter().map(rate).collect::<Vec<_>>().into_iter()
    };
    let names = match mode {
        Mode::V2 => ["IOReadBandwidthMax", "IOWriteBandwidthMax", "IOReadIOPSMax", "IOWriteIOPSMax"],
        Mode::V1 | Mode::Hybrid => ["BlockIOReadBandwidth", "BlockIOWriteBandwidth", "", ""],
    };
    for (name, (_, list)) in names.into_iter().zip(throttles(io)).filter(|(name, _)| !name.is_empty()) {
        out.extend(per_device(name, rates(list)));
    }
    let weight = |w: u16| match mode {
        Mode::V2 => 1 + (u64::from(w).max(10) - 10) * 9999 / 990,
        Mode::V1 | Mode::Hybrid => u64::from(w),
    };
    let (all, each) = if mode == Mode::V2 {
        ("IOWeight", "IODeviceWeight")
    } else {
        ("BlockIOWeight", "BlockIODeviceWeight")
    };
    out.extend(io.weight.filter(|n| *n != 0).map(|n| Property::number(all, weight(n))));
    let pairs =
        io.weight_device.iter().filter_map(|d| Some((format!("{}:{}", d.major, d.minor), weight(d.weight?))));
    out.extend(per_device(each, pairs));
}

/// Files of version 2 that systemd has a property for; the others are written to the file alone.
fn unified(file: &str, value: &str, since: &dyn Fn(u32) -> bool, out: &mut Vec<Property>) -> Result<()> {
    let bad = || Error::invalid(format!("unified \"{file}\": value \"{value}\" is not understood"));
    let number = |text: &str| if text == "max" { Ok(INFINITY) } else { text.parse().map_err(|_| bad()) };
    let plain = match file {
        "memory.high" => "MemoryHigh",
        "memory.low" => "MemoryLow",
        "memory.min" => "MemoryMin",
        "memory.max" => "MemoryMax",
        "memory.swap.max" => "MemorySwapMax",
        "memory.zswap.max" if since(253) => "MemoryZSwapMax",
        "cpu.weight" => "CPUWeight",
        "pids.max" => "TasksMax",
        _ => "",
    };
    match file {
        "pids.max" => out.push(Property::number(plain, number(value)?.max(1))),
        _ if !plain.is_empty() => out.push(Property::number(plain, number(value)?)),
        "cpu.idle" if value == "1" && since(252) => out.push(Property::number("CPUWeight", 0)),
        "cpu.max" => {
            let mut words = value.split_whitespace();
            let first = words.next().ok_or_else(bad)?;
            let n = if first == "max" { -1 } else { first.parse().map_err(|_| bad())? };
            let period = words.next().map_or(Ok(100_000), |p| p.parse().map_err(|_| bad()))?;
            quota(n, period, since, out);
        }
        "cpuset.cpus" if since(244) && !value.is_empty() => {
            out.push(Property::new("AllowedCPUs", bits(value, file)?))
        }
        "cpuset.mems" if since(244) && !value.is_empty() => {
            out.push(Property::new("AllowedMemoryNodes", bits(value, file)?))
        }
        "io.max" | "io.latency" | "io.weight" => io_lines(value, file, out).ok_or_else(bad)?,
        _ => {}
    }
    Ok(())
}

fn io_lines(value: &str, file: &str, out: &mut Vec<Property>) -> Option<()> {
    let mut lists: BTreeMap<&str, Vec<(String, u64)>> = BTreeMap::new();
    for line in value.lines().map(str::trim).filter(|l| !l.is_empty()) {
        let mut words = line.split_whitespace();
        let device = words.next()?;
        if file == "io.weight" {
            let weight: Option<u64> = words.next().unwrap_or(device).parse().ok();
            match (device.contains(':'), weight) {
                (false, Some(n)) => out.push(Property::number("IOWeight", n)),
                (true, Some(n)) => lists.entry("IODeviceWeight").or_default().push((device.to_string(), n)),
                // "8:0 default": systemd can't forget the weight of one device. It forgets all, and is told the others again.
                (true, None) => {
                    out.insert(0, Property::new("IODeviceWeight", Value::Array("(st)".into(), vec![])))
                }
                (false, None) => {}
            }
            continue;
        }
        for (key, n) in words.filter_map(|w| w.split_once('=')) {
            let n = if n == "max" { INFINITY } else { n.parse().ok()? };
            let name = match key {
                "rbps" => "IOReadBandwidthMax",
                "wbps" => "IOWriteBandwidthMax",
                "riops" => "IOReadIOPSMax",
                "wiops" => "IOWriteIOPSMax",
                "target" => "IODeviceLatencyTargetUSec",
                _ => return None,
            };
            lists.entry(name).or_default().push((device.to_string(), n));
        }
    }
    out.extend(lists.into_iter().filter_map(|(name, pairs)| per_device(name, pairs.into_iter())));
    Some(())
}

/// systemd attaches a filter of its own besides ours: it must let pass what ours does.
fn device_properties(resources: &Resources) -> Result<Vec<Property>> {
    if resources.devices.is_empty() {
        return Ok(Vec::new());
    }
    let list = |items: Vec<Value>| Property::new("DeviceAllow", Value::Array("(ss)".to_string(), items));
    // An empty list first: assignments add to what is there.
    let with = |policy: &str| vec![Property::new("DevicePolicy", Value::str(policy)), list(vec![])];
    // A list that cannot be said in systemd's terms is left to the program of the runtime.
    let Some(grants) = devices::grants(&resources.devices).ok().flatten() else { return Ok(with("auto")) };
    let groups = std::fs::read_to_string("/proc/devices").unwrap_or_default();
    let mut items = Vec::new();
    for g in grants {
        let kind = if g.block { "block" } else { "char" };
        let names = match (g.major, g.minor) {
            (None, None) => vec![format!("{kind}-*")],
            (Some(major), None) => {
                group_names(&groups, g.block, major).map(|n| format!("{kind}-{n}")).collect()
            }
            (Some(major), Some(minor)) => vec![format!("/dev/{kind}/{major}:{minor}")],
            // Any major number with one minor: systemd has no word for it.
            (None, Some(_)) => return Ok(with("auto")),
        };
        items.extend(
            names.into_iter().map(|n| Value::Struct(vec![Value::Str(n), Value::str(g.access.as_str())])),
        );
    }
    let mut out = with("strict");
    out.push(list(items));
    Ok(out)
}

/// Names that /proc/devices has for a major number.
fn group_names(text: &str, block: bool, major: u32) -> impl Iterator<Item = &str> {
    let start = if block { "Block devices:" } else { "Character devices:" };
    let section = text.lines().skip_while(move |l| *l != start).skip(1).take_while(|l| !l.trim().is_empty());
    section.filter_map(move |l| {
        let (number, name) = l.trim().split_once(' ')?;
        (number.parse() == Ok(major)).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str, mode: Mode) -> Vec<(String, Value)> {
        let resources = serde_json::from_str(json).unwrap();
        let found = properties(mode, &resources, None).unwrap();
        found.into_iter().map(|p| (p.name, p.value)).collect()
    }

    fn number(name: &str, n: u64) -> (String, Value) {
        (name.to_string(), Value::U64(n))
    }

    #[test]
    fn limits_of_v2() {
        let json = r#"{"memory":{"limit":1000,"swap":1500,"reservation":-1},"pids":{"limit":0},
            "cpu":{"shares":1024,"quota":12345,"cpus":"0,9"}}"#;
        let cpus = Value::Array("y".into(), vec![Value::Byte(1), Value::Byte(2)]);
        let want = [
            number("MemoryMax", 1000),
            number("MemoryLow", u64::MAX),
            number("MemorySwapMax", 500),
            number("CPUWeight", 100),
            number("CPUQuotaPerSecUSec", 130_000),
            ("AllowedCPUs".to_string(), cpus),
            number("TasksMax", 1),
        ];
        assert_eq!(of(json, Mode::V2), want);
    }

    #[test]
    fn rates_are_properties_too() {
        let json = r#"{"blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":7}],
            "throttleWriteIOPSDevice":[{"major":8,"minor":16,"rate":0}]},"unified":{"io.max":"7:0 wbps=9 rbps=max"}}"#;
        let pair =
            |d: &str, n| Value::Array("(st)".into(), vec![Value::Struct(vec![Value::str(d), Value::U64(n)])]);
        let want = [
            ("IOReadBandwidthMax".to_string(), pair("/dev/block/8:0", 7)),
            ("IOWriteIOPSMax".to_string(), pair("/dev/block/8:16", u64::MAX)),
            ("IOReadBandwidthMax".to_string(), pair("/dev/block/7:0", u64::MAX)),
            ("IOWriteBandwidthMax".to_string(), pair("/dev/block/7:0", 9)),
        ];
        assert_eq!(of(json, Mode::V2), want);
    }

    #[test]
    fn the_last_word_holds() {
        let json = r#"{"memory":{"limit":1000},"pids":{"limit":5},"unified":{"memory.max":"2000","pids.max":"max"}}"#;
        assert_eq!(of(json, Mode::V2), [number("MemoryMax", 2000), number("TasksMax", u64::MAX)]);
    }

    #[test]
    fn weights_go_back_to_the_usual() {
        let list = |pairs: &[(&str, u64)]| {
            let pair = |(d, n): &(&str, u64)| Value::Struct(vec![Value::str(*d), Value::U64(*n)]);
            ("IODeviceWeight".to_string(), Value::Array("(st)".into(), pairs.iter().map(pair).collect()))
        };
        let json = r#"{"unified":{"io.weight":"100\n8:0 default"}}"#;
        assert_eq!(of(json, Mode::V2), [list(&[]), number("IOWeight", 100)]);
        let json = r#"{"blockIO":{"weightDevice":[{"major":8,"minor":16,"weight":10}]},"unified":{"io.weight":"8:0 default"}}"#;
        assert_eq!(of(json, Mode::V2), [list(&[]), list(&[("/dev/block/8:16", 1)])]);
    }

    #[test]
    fn limits_of_v1() {
        let json = r#"{"memory":{"limit":-1},"cpu":{"shares":512},"blockIO":{"weight":100}}"#;
        let want = [number("MemoryLimit", u64::MAX), number("CPUShares", 512), number("BlockIOWeight", 100)];
        assert_eq!(of(json, Mode::V1), want);
    }

    #[test]
    fn groups_of_devices() {
        let text = "Character devices:\n  1 mem\n136 pts\n136 more\n\nBlock devices:\n  1 ramdisk\n";
        assert_eq!(group_names(text, false, 136).collect::<Vec<_>>(), ["pts", "more"]);
        assert_eq!(group_names(text, true, 1).collect::<Vec<_>>(), ["ramdisk"]);
    }
}
