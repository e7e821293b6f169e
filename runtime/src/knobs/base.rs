//! The weakest layer: the container's own resources, as runc's `update` changes them.
//!
//! runc's rules, with two of its gaps closed: what a change doesn't name stays known (runc forgets burst, idle,
//! cpusets and pids), and huge pages, network tags, rdma and swappiness are applied instead of passed over.

use cgroup::block::Device;
use cgroup::layout::Version;
use cgroup::resources::{BlockIo, Cpu, Memory, WeightDevice};
use cgroup::Resources;
use serde_json::Value;

use super::limits::{moved_swap, throttles, upsert};
use super::value;
use crate::error::{Error, Result};
use crate::init::attrs::rdt::change as rdt;
use crate::invalid;

/// Lays `change` over `base`: absent, and for most numbers 0, means "as it is". What that is for swap depends on the version that
/// the controller `memory` has.
pub fn merge(base: &mut Resources, change: Resources, memory_version: Option<Version>) {
    if let Some(memory) = change.memory {
        merge_memory(base.memory.get_or_insert_default(), &memory, memory_version);
    }
    if let Some(cpu) = change.cpu {
        merge_cpu(base.cpu.get_or_insert_default(), cpu);
    }
    if let Some(limit) = change.pids.and_then(|p| p.limit) {
        base.pids.get_or_insert_default().limit = Some(limit);
    }
    if let Some(io) = change.block_io {
        merge_block_io(base.block_io.get_or_insert_default(), io);
    }
    for limit in change.hugepage_limits {
        base.hugepage_limits.retain(|l| l.page_size != limit.page_size);
        base.hugepage_limits.push(limit);
    }
    if let Some(network) = change.network {
        let known = base.network.get_or_insert_default();
        known.class_id = network.class_id.or(known.class_id);
        for priority in network.priorities {
            known.priorities.retain(|p| p.name != priority.name);
            known.priorities.push(priority);
        }
    }
    base.rdma.extend(change.rdma);
    base.unified.extend(change.unified);
}

fn merge_memory(base: &mut Memory, change: &Memory, version: Option<Version>) {
    fn set(known: &mut Option<i64>, new: Option<i64>) {
        *known = new.filter(|n| *n != 0).or(*known);
    }
    let before = base.limit;
    set(&mut base.limit, change.limit);
    set(&mut base.reservation, change.reservation);
    set(&mut base.kernel, change.kernel);
    set(&mut base.kernel_tcp, change.kernel_tcp);
    match (change.limit, change.swap.filter(|n| *n != 0)) {
        // Memory without limit makes no sense under a limit of memory and swap.
        (Some(-1), None) => base.swap = base.swap.map(|_| -1),
        // v2 limits swap alone, and runc leaves that file as it is; v1 has the sum in a file, which stays as it is.
        (Some(limit), None) if limit > 0 && version == Some(Version::V2) => {
            base.swap = moved_swap(before, base.swap, limit);
        }
        (_, swap) => set(&mut base.swap, swap),
    }
    base.swappiness = change.swappiness.or(base.swappiness);
    base.disable_oom_killer = change.disable_oom_killer.or(base.disable_oom_killer);
    base.check_before_update = change.check_before_update.or(base.check_before_update);
}

fn merge_cpu(base: &mut Cpu, change: Cpu) {
    base.shares = change.shares.filter(|n| *n != 0).or(base.shares);
    base.quota = change.quota.filter(|n| *n != 0).or(base.quota);
    base.period = change.period.filter(|n| *n != 0).or(base.period);
    base.realtime_runtime = change.realtime_runtime.filter(|n| *n != 0).or(base.realtime_runtime);
    base.realtime_period = change.realtime_period.filter(|n| *n != 0).or(base.realtime_period);
    base.burst = change.burst.or(base.burst);
    base.idle = change.idle.or(base.idle);
    base.cpus = change.cpus.filter(|l| !l.is_empty()).or(base.cpus.take());
    base.mems = change.mems.filter(|l| !l.is_empty()).or(base.mems.take());
}

fn merge_block_io(base: &mut BlockIo, mut change: BlockIo) {
    base.weight = change.weight.filter(|n| *n != 0).or(base.weight);
    base.leaf_weight = change.leaf_weight.filter(|n| *n != 0).or(base.leaf_weight);
    for WeightDevice { major, minor, weight, leaf_weight } in change.weight_device.drain(..) {
        base.weight_device.retain(|w| (w.major, w.minor) != (major, minor));
        base.weight_device.push(WeightDevice { major, minor, weight, leaf_weight });
    }
    for index in 0..4 {
        for throttle in std::mem::take(throttles(&mut change, index)) {
            let device = Device { major: throttle.major as u32, minor: throttle.minor as u32 };
            upsert(throttles(base, index), device, throttle.rate);
        }
    }
}

/// runc's resource flags as a change.
pub fn from_flags(flags: &[(&str, String)]) -> Result<Resources> {
    let mut change = Resources::default();
    for (flag, text) in flags {
        let wrong = |why: &str| Error::invalid(format!("--{flag}: '{text}' {why}"));
        let signed = || text.parse::<i64>().map_err(|_| wrong("is not a whole number"));
        let unsigned =
            || text.parse::<u64>().map_err(|_| wrong("is not a whole number; allowed: 0 and above"));
        let size = || value::runc_size(text).map_err(|why| wrong(&why));
        let cpu = change.cpu.get_or_insert_default();
        let memory = change.memory.get_or_insert_default();
        match *flag {
            "blkio-weight" => {
                let weight = unsigned()?;
                if weight != 0 && !(10..=1000).contains(&weight) {
                    return Err(wrong("is out of range; allowed: 10 to 1000"));
                }
                change.block_io.get_or_insert_default().weight = Some(weight as u16);
            }
            "cpu-period" => cpu.period = Some(unsigned()?),
            "cpu-quota" => cpu.quota = Some(signed()?),
            "cpu-burst" => cpu.burst = Some(unsigned()?),
            "cpu-share" => cpu.shares = Some(unsigned()?),
            "cpu-rt-period" => cpu.realtime_period = Some(unsigned()?),
            "cpu-rt-runtime" => cpu.realtime_runtime = Some(signed()?),
            "cpu-idle" => cpu.idle = Some(signed()?),
            "cpuset-cpus" => cpu.cpus = Some(text.clone()),
            "cpuset-mems" => cpu.mems = Some(text.clone()),
            "memory" => memory.limit = Some(size()?),
            "memory-reservation" => memory.reservation = Some(size()?),
            "memory-swap" => memory.swap = Some(size()?),
            // Linux has limited kernel memory together with the rest since 5.4: runc takes and ignores these too.
            "kernel-memory" => memory.kernel = Some(size()?),
            "kernel-memory-tcp" => drop(size()?),
            "pids-limit" => change.pids.get_or_insert_default().limit = Some(signed()?),
            // No resource of a cgroup.
            flag if rdt::is_flag(flag) => {}
            _ => invalid!("--{flag}: unknown flag"),
        }
    }
    Ok(change)
}

/// What `update --resources` was given.
#[derive(Debug, Default)]
pub struct Given {
    pub resources: Resources,
    /// Knobs of the operator, from the key `hydra`; `None` takes one away.
    pub knobs: Vec<(String, Option<String>)>,
}

/// Names of `linux.resources`, on all its levels.
const NAMES: [&str; 46] = [
    "devices",
    "allow",
    "type",
    "major",
    "minor",
    "access",
    "memory",
    "limit",
    "reservation",
    "swap",
    "kernel",
    "kernelTCP",
    "swappiness",
    "disableOOMKiller",
    "useHierarchy",
    "checkBeforeUpdate",
    "cpu",
    "shares",
    "quota",
    "burst",
    "period",
    "realtimeRuntime",
    "realtimePeriod",
    "cpus",
    "mems",
    "idle",
    "pids",
    "blockIO",
    "weight",
    "leafWeight",
    "weightDevice",
    "throttleReadBpsDevice",
    "throttleWriteBpsDevice",
    "throttleReadIOPSDevice",
    "throttleWriteIOPSDevice",
    "rate",
    "hugepageLimits",
    "pageSize",
    "network",
    "classID",
    "priorities",
    "name",
    "priority",
    "hcaHandles",
    "hcaObjects",
    "rdma",
];

/// Go takes keys in any case, and so do those who wrote for runc: a limit in other letters must not be passed over.
fn fold(json: &mut Value) {
    match json {
        Value::Object(map) => {
            for (key, mut value) in std::mem::take(map) {
                let name = NAMES.iter().find(|name| name.eq_ignore_ascii_case(&key));
                // Its keys are files of the kernel.
                match key.eq_ignore_ascii_case("unified") {
                    true => drop(map.insert("unified".into(), value)),
                    false => {
                        fold(&mut value);
                        map.insert(name.map_or(key, |name| (*name).to_string()), value);
                    }
                }
            }
        }
        Value::Array(all) => all.iter_mut().for_each(fold),
        _ => {}
    }
}

/// Reads the JSON of `update --resources`: `linux.resources`, and under `hydra` knobs by name, where `null` unsets.
pub fn from_json(text: &str) -> Result<Given> {
    let wrong = |e: serde_json::Error| Error::invalid(format!("--resources: {e}"));
    let mut json: Value = serde_json::from_str(text).map_err(wrong)?;
    if !json.is_object() {
        invalid!("--resources: {json} is no object like linux.resources");
    }
    let own = json.as_object_mut().and_then(|o| o.remove("hydra"));
    fold(&mut json);
    let resources = serde_json::from_value(json).map_err(wrong)?;
    let mut knobs = Vec::new();
    match own {
        None | Some(Value::Null) => {}
        Some(Value::Object(map)) => {
            for (name, value) in map {
                let value = match value {
                    Value::Null => None,
                    Value::String(text) => Some(text),
                    Value::Number(n) => Some(n.to_string()),
                    Value::Bool(on) => Some(if on { "on" } else { "off" }.to_string()),
                    other => invalid!(
                        "--resources: hydra.{name}: {other} is no value; allowed: a string, a number, null"
                    ),
                };
                knobs.push((name, value));
            }
        }
        Some(other) => invalid!("--resources: hydra: {other} is not an object of knobs"),
    }
    Ok(Given { resources, knobs })
}

/// The knobs that say what a runc flag or resource in `change` says too.
pub fn said(change: &Resources) -> impl Iterator<Item = &'static str> {
    let cpu = change.cpu.clone().unwrap_or_default();
    let memory = change.memory.clone().unwrap_or_default();
    let said = [
        ("cpu.share", cpu.shares.is_some()),
        ("cpu.weight", cpu.shares.is_some()),
        ("cpu.quota", cpu.quota.is_some()),
        ("cpu.period", cpu.period.is_some()),
        ("cpu.max", cpu.quota.is_some() || cpu.period.is_some()),
        ("cpu.burst", cpu.burst.is_some()),
        ("cpu.idle", cpu.idle.is_some()),
        ("cpuset.cpus", cpu.cpus.is_some()),
        ("cpuset.mems", cpu.mems.is_some()),
        ("memory.limit", memory.limit.is_some()),
        ("memory.swap", memory.swap.is_some()),
        ("memory.swap-max", memory.swap.is_some()),
        ("memory.reservation", memory.reservation.is_some()),
        ("memory.low", memory.reservation.is_some()),
        ("pids.limit", change.pids.is_some()),
        ("blkio.weight", change.block_io.as_ref().is_some_and(|io| io.weight.is_some())),
    ];
    said.into_iter().filter(|(_, said)| *said).map(|(knob, _)| knob)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_any_case() {
        let text = r#"{"Memory": {"LIMIT": 64}, "blockio": {"throttlereadiopsdevice": [{"Major": 7, "minor": 1, "RATE": 5}]},
            "Unified": {"memory.HIGH": "1"}}"#;
        let given = from_json(text).unwrap().resources;
        assert_eq!(given.memory.unwrap().limit, Some(64));
        let io = &given.block_io.unwrap().throttle_read_iops_device[0];
        assert_eq!((io.major, io.minor, io.rate), (7, 1, 5));
        assert_eq!(given.unified["memory.HIGH"], "1");
        assert!(from_json("[]").is_err());
        let all = r#"{"devices":[],"memory":{"limit":1},"cpu":{"idle":1},"pids":{"limit":1},"hugepageLimits":[],
            "network":{"classID":1},"rdma":{"mlx":{"hcaHandles":1}}}"#;
        let known = serde_json::to_value(from_json(all).unwrap().resources).unwrap();
        let names = known.as_object().unwrap().keys().all(|key| NAMES.contains(&key.as_str()));
        assert!(names, "{known}");
    }

    #[test]
    fn flags_change_what_they_name() {
        let mut base: Resources = serde_json::from_str(
            r#"{"memory":{"limit":1048576,"swap":2097152},"cpu":{"shares":512,"cpus":"0"},
                "blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":5},{"major":8,"minor":16,"rate":6}]}}"#,
        )
        .unwrap();
        let flags =
            [("memory", "2M".to_string()), ("cpu-quota", "50000".into()), ("pids-limit", "-1".into())];
        merge(&mut base, from_flags(&flags).unwrap(), Some(Version::V1));
        assert_eq!(base.memory.as_ref().unwrap().limit, Some(2 << 20));
        assert_eq!(base.cpu.as_ref().unwrap().shares, Some(512));
        assert_eq!(base.cpu.as_ref().unwrap().cpus.as_deref(), Some("0"));
        assert_eq!(base.pids.as_ref().unwrap().limit, Some(-1));
        let json = r#"{"cpu":{"shares":0},"blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":0}]},
                       "memory":{"limit":-1}, "hydra":{"blkio.write-bps":"1MB","pids.limit":null}}"#;
        let given = from_json(json).unwrap();
        assert_eq!(given.knobs.len(), 2);
        merge(&mut base, given.resources, None);
        assert_eq!(base.cpu.as_ref().unwrap().shares, Some(512));
        assert_eq!(base.memory.as_ref().unwrap().swap, Some(-1));
        let rates: Vec<_> = base.block_io.unwrap().throttle_read_bps_device.iter().map(|t| t.rate).collect();
        assert_eq!(rates, [0, 6]);
    }

    #[test]
    fn a_limit_alone_leaves_v1_its_sum_and_v2_its_swap() {
        let sum = |version, limit: i64| {
            let mut base = Memory { limit: Some(100), swap: Some(150), ..Memory::default() };
            merge_memory(&mut base, &Memory { limit: Some(limit), ..Memory::default() }, Some(version));
            base.swap
        };
        assert_eq!(
            [sum(Version::V1, 50), sum(Version::V2, 50), sum(Version::V2, 300)],
            [Some(150), Some(100), Some(350)]
        );
        assert_eq!(
            [sum(Version::V1, -1), sum(Version::V2, -1), sum(Version::V2, 0)],
            [Some(-1), Some(-1), Some(150)]
        );
    }

    #[test]
    fn mistakes_are_named() {
        let e = from_flags(&[("memory", "much".to_string())]).unwrap_err().to_string();
        assert_eq!(e, "--memory: 'much' is not a size such as 512m, 1G or 1073741824");
        assert!(from_flags(&[("cpu-share", "-1".to_string())])
            .unwrap_err()
            .to_string()
            .contains("0 and above"));
        assert!(from_json("{").unwrap_err().to_string().starts_with("--resources: "));
        assert!(from_json(r#"{"hydra":{"x":[1]}}"#).unwrap_err().to_string().contains("hydra.x"));
    }
}
