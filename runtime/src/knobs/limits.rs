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
use lift::usual;
pub use lift::{lift, lift_weights, loopback};

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

/// A single device's own limit in a throttle that a total is shared out by, whoever set it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ceiling {
    /// Which throttle, in the order of [`Totals::all`].
    pub throttle: usize,
    #[serde(with = "number")]
    pub device: Device,
    pub rate: u64,
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
    /// What takes back raw lines that nobody asks for any more. Written before the resources.
    pub lifted: BTreeMap<Line, String>,
    pub net: netlimit::Limits,
    pub totals: Totals,
    /// The devices that share the totals.
    pub shared: Vec<Device>,
    /// Limits of the single devices, which no share of a total may exceed.
    pub caps: Vec<Ceiling>,
    /// Where knobs for devices ended up.
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
            // systemd has one property for both weights. What is usual is the same for them.
            let weight = |file: &str| if file == "io.bfq.weight" { "io.weight" } else { file }.to_string();
            let lifted = self.lifted.iter().map(|((file, _), line)| (weight(file), line));
            let known = self.raw.iter().filter(|(line, _)| usual(line).is_some());
            for (file, line) in lifted.chain(known.map(|((file, _), line)| (file.clone(), line))) {
                let text = resources.unified.entry(file).or_default();
                *text = format!("{text}\n{line}").trim().to_string();
            }
        }
        resources
    }

    /// The raw lines as writes for a cgroup.
    pub fn raw_writes(&self) -> Result<Vec<cgroup::Write>> {
        writes(self.raw.iter())
    }

    /// What takes back former raw lines, as writes for a cgroup.
    pub fn lifting_writes(&self) -> Result<Vec<cgroup::Write>> {
        // v1's sum of memory and swap grows before memory does.
        writes(self.lifted.iter().rev())
    }

    /// The knob that a write comes from.
    fn knob_of<'a>(&self, effective: &'a Effective, write: &cgroup::Write) -> Option<&'a str> {
        let file = write.file.as_ref();
        let key = cgroup::apply::line_key(file, &write.value).unwrap_or_default();
        let device = |known: &Device| known.to_string() == key;
        let found = effective.0.iter().find(|(name, asked)| match (name.strip_prefix(RAW), &asked.value) {
            (Some(raw), _) => raw == file,
            _ if !asked.knob.writes(file) => false,
            (_, Value::Devices(_)) => self.placed.iter().any(|p| p.knob == **name && device(&p.device)),
            (_, Value::Keyed(list)) => {
                list.iter().any(|(k, _)| k == key || file.split('.').nth(1) == Some(k))
            }
            _ if name.starts_with("blkio.total-") => self.shared.iter().any(device),
            _ => key.is_empty(),
        });
        found.map(|(name, _)| name.as_str())
    }
}

fn writes<'a>(lines: impl Iterator<Item = (&'a Line, &'a String)>) -> Result<Vec<cgroup::Write>> {
    let mut writes = Vec::new();
    for ((file, _), line) in lines {
        writes.extend(cgroup::Write::raw(file, line, "knob").map_err(|e| Error::invalid(e.to_string()))?);
    }
    Ok(writes)
}

/// Messages name the knob where one is behind a write. `said` are the knobs with what they came to.
pub fn name_writes(writes: &mut [cgroup::Write], said: &[(&Effective, &Limits)]) {
    for write in writes {
        if let Some(knob) = said.iter().find_map(|(knobs, limits)| limits.knob_of(knobs, write)) {
            write.field = knob.to_string().into();
        }
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
    check_swap(&limits, effective)?;
    no_weight_while_idle(&mut limits);
    Ok(limits)
}

/// A file of config.json's `unified` that a knob sets too must not be written after it. Of files with a line for each
/// device or name only the lines that the knob sets go.
fn forget_unified(unified: &mut BTreeMap<String, String>, asked: &Asked) {
    if let (true, Value::Keyed(list)) = (asked.knob.writes("hugetlb.SIZE.max"), &asked.value) {
        for (size, _) in list {
            unified.remove(&format!("hugetlb.{size}.max"));
            unified.remove(&format!("hugetlb.{size}.rsvd.max"));
        }
    }
    if !matches!(asked.value, Value::Keyed(_) | Value::Devices(_)) && !asked.knob.writes("io.max") {
        for file in asked.knob.v2.split([',', ' ']).filter(|f| f.contains('.')) {
            forget_line(unified, file, "");
        }
    }
}

/// Takes the line for a device or name, or the one for none, out of a file of `unified`.
fn forget_line(unified: &mut BTreeMap<String, String>, file: &str, key: &str) {
    let Some(text) = unified.remove(file) else { return };
    let rest: Vec<&str> = text.lines().filter(|line| line_key(file, line) != key).collect();
    if !rest.is_empty() {
        unified.insert(file.into(), rest.join("\n"));
    }
}

/// The sum of memory and swap must not be below memory. Said here, where it is known who said which.
fn check_swap(limits: &Limits, effective: &Effective) -> Result<()> {
    let said = ["memory.limit", "memory.swap"].map(|name| effective.0.get(name));
    let memory = limits.resources.memory.clone().unwrap_or_default();
    let (Some(limit), Some(swap)) = (memory.limit, memory.swap) else { return Ok(()) };
    let fits = limit == 0 || swap <= 0 || limit > 0 && swap >= limit;
    if fits || said.iter().all(Option::is_none) {
        return Ok(());
    }
    let who =
        |asked: Option<&Asked>| asked.map_or("container's configuration".into(), |a| a.from.to_string());
    let limit = if limit < 0 { "max".into() } else { limit.to_string() };
    invalid!(
        "memory.swap: '{swap}' (from the {}) is memory and swap together and less than memory.limit {limit} (from the {}); \
         allowed: {limit} and above",
        who(said[1]),
        who(said[0])
    )
}

/// The container runs only where nothing else wants the CPU.
fn idle(limits: &Limits) -> bool {
    let text = limits.raw.get(&("cpu.idle".into(), String::new()));
    let text = text.or_else(|| limits.resources.unified.get("cpu.idle"));
    match text {
        Some(text) => text.trim() == "1",
        None => limits.resources.cpu.as_ref().is_some_and(|cpu| cpu.idle == Some(1)),
    }
}

/// The files of a CPU weight.
const WEIGHTS: [&str; 3] = ["cpu.weight", "cpu.weight.nice", "cpu.shares"];

/// The kernel refuses a weight while cpu.idle is 1.
fn no_weight_while_idle(limits: &mut Limits) {
    if !idle(limits) {
        return;
    }
    for file in WEIGHTS {
        let raw = limits.raw.remove(&(file.into(), String::new())).is_some();
        if limits.resources.unified.remove(file).is_some() || raw {
            limits.notes.push(format!("{file} is ignored while cpu.idle is on"));
        }
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
    if let Value::Text(text) = &asked.value {
        for line in text.lines().filter(|l| !l.trim().is_empty()) {
            forget_line(&mut limits.resources.unified, file, &line_key(file, line));
            limits.raw.insert((file.into(), line_key(file, line)), line.trim().into());
        }
    }
    Ok(())
}

/// What a line is for, in files of one for each device or name; empty elsewhere.
fn line_key(file: &str, line: &str) -> String {
    cgroup::apply::line_key(file, line).unwrap_or_default().to_string()
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
        "memory.limit" => {
            memory.swap = moved_swap(memory.limit, memory.swap, amount.signed());
            memory.limit = Some(amount.signed());
        }
        "memory.swap" => memory.swap = Some(amount.signed()),
        // As it is: in the resources 0 would mean "as before".
        "memory.reservation" | "memory.low" => {
            memory.reservation = None;
            let (file, text) = match v1 {
                true => (asked.knob.v1, amount.signed().to_string()),
                false => (asked.knob.v2, amount.to_string()),
            };
            limits.raw.insert((file.into(), String::new()), text);
        }
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

/// A weaker sum of memory and swap follows the limit: the room for swap that was asked for stays.
pub fn moved_swap(before: Option<i64>, sum: Option<i64>, limit: i64) -> Option<i64> {
    match (before, sum) {
        (_, Some(sum)) if sum <= 0 => Some(sum),
        (_, Some(_)) if limit < 0 => Some(-1),
        (Some(before), Some(sum)) if before > 0 => Some(limit.saturating_add((sum - before).max(0))),
        (_, sum) => sum.map(|sum| sum.max(limit)),
    }
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
                let size = key.trim_end_matches(|c: char| c.is_ascii_uppercase());
                let unit = ["KB", "MB", "GB"].contains(&&key[size.len()..]);
                if !unit || size.is_empty() || !size.bytes().all(|b| b.is_ascii_digit()) {
                    invalid!("hugetlb.limit: '{key}' is no size of pages; allowed: such as 64KB, 2MB, 1GB");
                }
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
