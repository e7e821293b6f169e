//! What the knobs come to on one host: resources, raw files, network limits and totals. Pure: which devices a
//! selector means and which cgroup version a controller has are asked of the caller.

mod blkio;
mod lift;

use std::collections::BTreeMap;

use cgroup::block::Device;
use cgroup::layout::{Mode, Version};
use cgroup::resources::HugepageLimit;
use cgroup::Resources;
use netlimit::Cap;
use serde::{Deserialize, Serialize};

pub use blkio::{throttle_index, throttles, upsert, NOT_BUFFERED, NO_DEVICE};
pub use lift::lift;
use lift::usual;

use super::layers::{Asked, Effective};
use super::table::{Value, RAW};
use super::value::{Amount, Selector};
use crate::error::{Context, Error, Result};
use crate::invalid;

/// What the limits depend on besides the knobs.
pub struct World<'a> {
    /// Which version's files a controller has, `None` if the host lacks it.
    pub version: &'a dyn Fn(&str) -> Option<Version>,
    /// The devices behind a selector. For one that names a path or a device it is an error if there are none.
    pub devices: &'a dyn Fn(&Selector) -> Result<Vec<Device>>,
}

impl World<'_> {
    fn need(&self, asked: &Asked, controller: &str) -> Result<Version> {
        (self.version)(controller).ok_or_else(|| {
            Error::unsupported(format!(
                "{}: this host has no cgroup controller {controller}",
                asked.knob.name
            ))
        })
    }

    fn need_v2(&self, asked: &Asked, controller: &str, instead: &str) -> Result<()> {
        match self.need(asked, controller)? {
            Version::V2 => Ok(()),
            Version::V1 => Err(Error::unsupported(format!(
                "{}: cgroup v1, which this host has for {controller}, can't do this: {instead}",
                asked.knob.name
            ))),
        }
    }
}

/// One budget over all of a container's devices, in bytes or operations per second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Totals {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_bps: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write_bps: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_iops: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write_iops: Option<u64>,
}

impl Totals {
    /// In the order read bps, write bps, read iops, write iops.
    pub fn all(&self) -> [Option<u64>; 4] {
        [self.read_bps, self.write_bps, self.read_iops, self.write_iops]
    }

    pub fn is_empty(&self) -> bool {
        self.all() == [None; 4]
    }
}

/// Where a knob for devices ended up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    pub knob: String,
    #[serde(with = "number")]
    pub device: Device,
    /// The rate, weight or target; absent when lifted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub amount: Option<u64>,
    pub selector: String,
}

/// Devices as `MAJOR:MINOR`.
pub mod number {
    use cgroup::block::Device;
    use serde::{de::Error, Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(device: &Device, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(device)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Device, D::Error> {
        String::deserialize(d)?.parse().map_err(D::Error::custom)
    }
}

/// A line of a kernel file: the file, and what the line is for in files that hold many (`8:0`).
pub type Line = (String, String);

/// Everything to be set.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    pub resources: Resources,
    /// Written after the resources, in the order of the file names.
    pub raw: BTreeMap<Line, String>,
    pub net: netlimit::Limits,
    pub totals: Totals,
    /// The devices that share the totals.
    pub shared: Vec<Device>,
    /// Limits of the single devices, which no share of a total may exceed.
    pub placed: Vec<Placed>,
    pub follow_mounts: bool,
    /// What holds less than it seems to, as sentences.
    pub notes: Vec<String>,
}

impl Limits {
    /// What a systemd unit is told: on v2 it has properties for some of the raw files too.
    pub fn of_unit(&self, mode: Mode) -> Resources {
        let mut resources = self.resources.clone();
        if mode == Mode::V2 {
            for ((file, _), line) in self.raw.iter().filter(|(line, _)| usual(line).is_some()) {
                let text = resources.unified.entry(file.clone()).or_default();
                *text = format!("{text}\n{line}").trim().to_string();
            }
        }
        resources
    }

    /// The raw lines as writes for a cgroup.
    pub fn raw_writes(&self) -> Result<Vec<cgroup::Write>> {
        let mut writes = Vec::new();
        for ((file, _), line) in &self.raw {
            writes.extend(cgroup::Write::raw(file, line, "knob").map_err(|e| Error::invalid(e.to_string()))?);
        }
        Ok(writes)
    }
}

/// The container's own resources with the knobs laid over them.
pub fn limits(base: &Resources, effective: &Effective, world: &World<'_>) -> Result<Limits> {
    let mut limits = Limits { resources: base.clone(), ..Limits::default() };
    for asked in effective.0.values() {
        forget_unified(&mut limits.resources.unified, asked);
    }
    for (name, asked) in &effective.0 {
        put(&mut limits, name, asked, world).with_context(|| format!("from the {}", asked.from))?;
    }
    blkio::share_totals(&mut limits, world)?;
    Ok(limits)
}

/// A file of config.json's `unified` that a knob sets too must not be written after it.
fn forget_unified(unified: &mut BTreeMap<String, String>, asked: &Asked) {
    for file in asked.knob.v2.split([',', ' ']).filter(|f| *f != "io.max" && f.contains('.')) {
        unified.remove(file);
    }
}

fn put(limits: &mut Limits, name: &str, asked: &Asked, world: &World<'_>) -> Result<()> {
    if let Some(file) = name.strip_prefix(RAW) {
        return put_raw(limits, file, asked, world);
    }
    match name.split('.').next().unwrap_or_default() {
        "blkio" => blkio::put(limits, name, asked, world),
        "memory" => put_memory(limits, name, asked, world),
        "cpu" | "cpuset" => put_cpu(limits, name, asked, world),
        "net" => put_net(&mut limits.net, name, &asked.value),
        _ => put_other(limits, name, asked, world),
    }
}

fn put_raw(limits: &mut Limits, file: &str, asked: &Asked, world: &World<'_>) -> Result<()> {
    let controller = file.split('.').next().unwrap_or_default();
    if controller != "cgroup" && (world.version)(controller).is_none() {
        return Err(Error::unsupported(format!(
            "{RAW}{file}: this host has no cgroup controller {controller}"
        )));
    }
    limits.resources.unified.remove(file);
    if let Value::Text(text) = &asked.value {
        for line in text.lines().filter(|l| !l.trim().is_empty()) {
            limits.raw.insert((file.into(), line_key(file, line)), line.trim().into());
        }
    }
    Ok(())
}

/// Files of one line for each device or name begin their lines with it.
fn line_key(file: &str, line: &str) -> String {
    let many = ["io.max", "io.weight", "io.bfq.weight", "io.latency", "rdma.max", "misc.max"].contains(&file)
        || file.ends_with("_device");
    match line.split_once([' ', '\t']) {
        Some((key, _)) if many => key.into(),
        _ => String::new(),
    }
}

fn amount(value: &Value) -> Amount {
    match value {
        Value::Amount(amount) => *amount,
        Value::Switch(on) => Amount::N((*on).into()),
        _ => Amount::Max,
    }
}

fn put_memory(limits: &mut Limits, name: &str, asked: &Asked, world: &World<'_>) -> Result<()> {
    let version = world.need(asked, "memory")?;
    let amount = amount(&asked.value);
    let memory = limits.resources.memory.get_or_insert_default();
    let v1 = version == Version::V1;
    match name {
        "memory.limit" => memory.limit = Some(amount.signed()),
        "memory.swap" => memory.swap = Some(amount.signed()),
        "memory.reservation" | "memory.low" => memory.reservation = Some(amount.signed()),
        "memory.swappiness" if v1 => memory.swappiness = amount.number(),
        "memory.swappiness" => {
            let text = "memory.swappiness: cgroup v2 has no such limit: use memory.swap-max";
            return Err(Error::unsupported(text));
        }
        // The sum is what v1 can limit. The knobs come in the order of their names: limit was before.
        "memory.swap-max" if v1 => {
            memory.swap = match (amount.number(), memory.limit) {
                (None, _) => Some(-1),
                (Some(swap), Some(limit)) if limit > 0 => Some(limit.saturating_add(swap as i64)),
                (Some(_), _) => invalid!("memory.swap-max: on cgroup v1 it wants memory.limit too"),
            }
        }
        _ => {
            let instead = match name {
                "memory.high" | "memory.swap-high" => "use memory.limit",
                "memory.min" => "use memory.low",
                "memory.zswap-max" => "use memory.swap",
                _ => "the OOM killer takes one process at a time",
            };
            world.need_v2(asked, "memory", instead)?;
            if name == "memory.swap-max" {
                memory.swap = None;
            }
            limits.raw.insert((asked.knob.v2.into(), String::new()), amount.to_string());
        }
    }
    Ok(())
}

fn put_cpu(limits: &mut Limits, name: &str, asked: &Asked, world: &World<'_>) -> Result<()> {
    let controller = name.split('.').next().unwrap_or_default();
    let version = world.need(asked, controller)?;
    let cpu = limits.resources.cpu.get_or_insert_default();
    let amount = amount(&asked.value);
    match (name, &asked.value) {
        ("cpu.weight", _) if version == Version::V1 => {
            cpu.shares = amount.number().map(|n| (n * 1024 / 100).max(2));
        }
        ("cpu.weight", _) => {
            cpu.shares = None;
            limits.raw.insert(("cpu.weight".into(), String::new()), amount.to_string());
        }
        ("cpu.share", _) => cpu.shares = amount.number(),
        ("cpu.max", Value::CpuMax(max)) => {
            cpu.quota = Some(max.quota.signed());
            cpu.period = max.period.or(cpu.period);
        }
        ("cpu.quota", _) => cpu.quota = Some(amount.signed()),
        ("cpu.period", _) => cpu.period = amount.number(),
        ("cpu.burst", _) => cpu.burst = amount.number(),
        ("cpu.idle", _) => cpu.idle = Some(amount.signed()),
        ("cpuset.cpus", Value::Text(list)) => cpu.cpus = Some(list.clone()),
        ("cpuset.mems", Value::Text(list)) => cpu.mems = Some(list.clone()),
        (_, _) if version == Version::V2 => {
            return Err(Error::unsupported(format!("{name}: cgroup v2 has no real-time limits: use cpu.max")))
        }
        ("cpu.rt-period", _) => cpu.realtime_period = amount.number(),
        _ => cpu.realtime_runtime = Some(amount.signed()),
    }
    Ok(())
}

fn put_other(limits: &mut Limits, name: &str, asked: &Asked, world: &World<'_>) -> Result<()> {
    let controller = name.split('.').next().unwrap_or_default();
    world.need(asked, controller)?;
    if name == "pids.limit" {
        limits.resources.pids.get_or_insert_default().limit = Some(amount(&asked.value).signed());
        return Ok(());
    }
    let Value::Keyed(list) = &asked.value else { return Ok(()) };
    for (key, amount) in list {
        match name {
            "hugetlb.limit" => {
                let all = &mut limits.resources.hugepage_limits;
                all.retain(|l| l.page_size != *key);
                let limit = amount.number().unwrap_or(i64::MAX as u64);
                all.push(HugepageLimit { page_size: key.clone(), limit });
            }
            "misc.max" => {
                limits.raw.insert(("misc.max".into(), key.clone()), format!("{key} {amount}"));
            }
            _ => {
                let word = if name == "rdma.hca-handles" { "hca_handle" } else { "hca_object" };
                let line = limits.raw.entry(("rdma.max".into(), key.clone())).or_insert_with(|| key.clone());
                line.push_str(&format!(" {word}={amount}"));
            }
        }
    }
    Ok(())
}

fn put_net(net: &mut netlimit::Limits, name: &str, value: &Value) -> Result<()> {
    let cap = Some(match amount(value) {
        Amount::N(n) => Cap::At(n),
        Amount::Max => Cap::Max,
    });
    match (name, value) {
        ("net.egress-rate", _) => net.egress_rate = cap,
        ("net.ingress-rate", _) => net.ingress_rate = cap,
        ("net.egress-pps", _) => net.egress_pps = cap,
        ("net.ingress-pps", _) => net.ingress_pps = cap,
        ("net.egress-burst", _) => net.egress_burst = cap,
        ("net.ingress-burst", _) => net.ingress_burst = cap,
        ("net.egress-pps-burst", _) => net.egress_pps_burst = cap,
        ("net.ingress-pps-burst", _) => net.ingress_pps_burst = cap,
        ("net.new-conns", _) => net.new_conns = cap,
        ("net.new-conns-burst", _) => net.new_conns_burst = cap,
        ("net.count-loopback", Value::Switch(on)) => net.count_loopback = Some(*on),
        ("net.classid", Value::ClassId(id)) => net.classid = Some(*id),
        ("net.ingress-mode", Value::Text(mode)) => {
            let queue = mode == "queue";
            net.ingress_mode =
                Some(if queue { netlimit::IngressMode::Queue } else { netlimit::IngressMode::Police });
        }
        ("net.priority", Value::Keyed(list)) => {
            let number = |(name, n): &(String, Amount)| match n.number() {
                Some(n) => Ok((name.clone(), n as u32)),
                None => Err(Error::invalid(format!(
                    "net.priority: '{name}=max' is not a priority; allowed: a number"
                ))),
            };
            net.priority = Some(list.iter().map(number).collect::<Result<_>>()?);
        }
        _ => invalid!("{name}: unknown knob"),
    }
    net.validate().map_err(|e| Error::invalid(e.to_string()))
}

#[cfg(test)]
mod tests;
