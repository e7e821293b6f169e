//! What is to be written: decided from `linux.resources` as data, before anything is touched.

use std::borrow::Cow;

use crate::error::{invalid, Error, Result};
use crate::layout::Version;
use crate::resources::{DeviceRule, HugepageLimit, Resources, ThrottleDevice};
use crate::{v1, v2};

type Text = Cow<'static, str>;

/// One value for one file of a cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The controller whose hierarchy has the file; `""` for core files of version 2 (`cgroup.…`).
    pub controller: Text,
    pub file: Text,
    /// One line, without the newline.
    pub value: String,
    /// The setting this comes from, for messages: `memory.limit`.
    pub field: Text,
    /// Passed over when the kernel has no such file: the value asks for what holds anyway.
    pub optional: bool,
}

impl Write {
    pub fn new(
        controller: impl Into<Text>,
        file: impl Into<Text>,
        value: impl ToString,
        field: impl Into<Text>,
    ) -> Write {
        let (controller, file, field) = (controller.into(), file.into(), field.into());
        Write { controller, file, value: value.to_string(), field, optional: false }
    }

    #[must_use]
    pub fn optional(self, optional: bool) -> Write {
        Write { optional, ..self }
    }

    /// A raw file such as `memory.high` with its value, several lines as several writes. The controller is the part
    /// before the first dot.
    pub fn raw(file: &str, value: &str, field: &str) -> Result<Vec<Write>> {
        if file.contains('/') || file.contains('\0') {
            invalid!("{field}: \"{file}\" must be a file name (no slashes)");
        }
        let Some((controller, rest)) = file.split_once('.').filter(|(c, r)| !c.is_empty() && !r.is_empty())
        else {
            invalid!("{field}: \"{file}\" must be in the form CONTROLLER.PARAMETER");
        };
        const REFUSED: [&str; 8] = [
            "procs",
            "threads",
            "kill",
            "freeze",
            "type",
            "subtree_control",
            "event_control",
            "clone_children",
        ];
        if controller == "cgroup" && REFUSED.contains(&rest)
            || file.starts_with("devices.")
            || file == "freezer.state"
        {
            invalid!("{field}: \"{file}\" is no limit and is not written by hand");
        }
        let controller = if controller == "cgroup" { "" } else { controller };
        let lines: Vec<&str> = value.split('\n').map(str::trim).filter(|l| !l.is_empty()).collect();
        let lines = if lines.is_empty() { vec![""] } else { lines };
        let one = |line: &&str| {
            Write::new(controller.to_string(), file.to_string(), line, format!("{field} \"{file}\""))
        };
        Ok(lines.iter().map(one).collect())
    }
}

/// Everything that resources come to on a host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// In an order in which no write fails for the values of another.
    pub writes: Vec<Write>,
    /// Device rules in force; empty leaves the list as it is.
    pub devices: Vec<DeviceRule>,
    /// What was asked for and has no meaning here, as sentences.
    pub warnings: Vec<String>,
}

/// What a plan depends on besides the resources.
pub struct Facts<'a> {
    /// Which vocabulary a controller speaks on this host.
    pub version: &'a dyn Fn(&str) -> Option<Version>,
    /// The present text of a controller's file, `None` if there is no such file. Only asked where the order of
    /// writes or the choice of a file depends on it.
    pub read: &'a dyn Fn(&str, &str) -> Option<String>,
    /// The cgroup was just made: all limits are at their defaults and need not be read.
    pub fresh: bool,
}

impl Facts<'_> {
    pub(crate) fn number(&self, controller: &str, file: &str) -> Option<i64> {
        let text = (self.read)(controller, file)?;
        let first = text.split_whitespace().next()?;
        Some(if first == "max" { i64::MAX } else { first.parse().unwrap_or(i64::MAX) })
    }
}

/// Decides all writes for `resources`. `devices` is handed through.
pub fn plan(resources: &Resources, facts: &Facts<'_>) -> Result<Plan> {
    let mut plan = Plan { devices: resources.devices.clone(), ..Plan::default() };
    let has =
        |controller: &str, field: &str| (facts.version)(controller).ok_or_else(|| missing(controller, field));
    if let Some(pids) = &resources.pids {
        if let Some(limit) = pids.limit {
            has("pids", "pids.limit")?;
            plan.writes.push(Write::new("pids", "pids.max", max_or(limit), "pids.limit"));
        }
    }
    if let Some(memory) = &resources.memory {
        match (facts.version)("memory") {
            Some(Version::V1) => v1::memory(memory, facts, &mut plan)?,
            Some(Version::V2) => v2::memory(memory, facts, &mut plan)?,
            None if memory == &Default::default() => {}
            None => return Err(missing("memory", "memory")),
        }
    }
    if let Some(io) = resources.block_io.as_ref().filter(|io| **io != Default::default()) {
        let name = if (facts.version)("blkio") == Some(Version::V1) { "blkio" } else { "io" };
        match has(name, "blockIO")? {
            Version::V1 => v1::block_io(io, facts, &mut plan)?,
            Version::V2 => v2::block_io(io, facts, &mut plan)?,
        }
    }
    if let Some(cpu) = &resources.cpu {
        cpu_and_cpuset(cpu, facts, &mut plan)?;
    }
    for limit in &resources.hugepage_limits {
        hugepages(limit, has("hugetlb", "hugepageLimits")?, &mut plan)?;
    }
    for (device, limit) in &resources.rdma {
        has("rdma", "rdma")?;
        plan.writes.extend(rdma(device, limit)?);
    }
    if let Some(network) = &resources.network {
        v1::network(network, facts, &mut plan)?;
    }
    for (file, value) in &resources.unified {
        for write in Write::raw(file, value, "unified")? {
            if !write.controller.is_empty() && has(&write.controller, &write.field)? == Version::V1 {
                return Err(Error::unsupported(format!(
                    "unified \"{file}\": the {} controller is mounted as cgroup v1 on this host",
                    write.controller
                )));
            }
            plan.writes.push(write);
        }
    }
    Ok(plan)
}

fn cpu_and_cpuset(cpu: &crate::resources::Cpu, facts: &Facts<'_>, plan: &mut Plan) -> Result<()> {
    let times = [cpu.quota, cpu.idle, cpu.realtime_runtime].iter().any(Option::is_some)
        || [cpu.shares, cpu.burst, cpu.period, cpu.realtime_period].iter().any(Option::is_some);
    if times {
        match (facts.version)("cpu") {
            Some(Version::V1) => v1::cpu(cpu, facts, plan)?,
            Some(Version::V2) => v2::cpu(cpu, facts, plan)?,
            None => return Err(missing("cpu", "cpu")),
        }
    }
    for (list, file, field) in
        [(&cpu.cpus, "cpuset.cpus", "cpu.cpus"), (&cpu.mems, "cpuset.mems", "cpu.mems")]
    {
        if let Some(list) = list.as_ref().filter(|l| !l.is_empty()) {
            (facts.version)("cpuset").ok_or_else(|| missing("cpuset", field))?;
            check_list(list, field)?;
            plan.writes.push(Write::new("cpuset", file, list, field));
        }
    }
    Ok(())
}

pub(crate) fn missing(controller: &str, field: &str) -> Error {
    Error::unsupported(format!("{field}: this host has no cgroup controller \"{controller}\""))
}

/// `max` for negative numbers.
pub(crate) fn max_or(limit: i64) -> String {
    if limit < 0 {
        "max".to_string()
    } else {
        limit.to_string()
    }
}

/// A list of CPUs or memory nodes: `0-3,7`.
fn check_list(list: &str, field: &str) -> Result<()> {
    let number = |n: &str| n.trim().parse::<u32>().ok();
    let good = list.trim().split(',').all(|part| {
        // The kernel also knows strides: 0-31:2/8.
        let range = part.split(':').next().unwrap_or(part);
        match range.split_once('-') {
            Some((a, b)) => number(a).zip(number(b)).is_some_and(|(a, b)| a <= b),
            None => number(range).is_some(),
        }
    });
    if !good {
        invalid!("{field}: \"{list}\" is no list such as \"0-3,7\"");
    }
    Ok(())
}

pub(crate) fn device(major: i64, minor: i64, field: &str) -> Result<String> {
    match (u32::try_from(major), u32::try_from(minor)) {
        (Ok(major), Ok(minor)) => Ok(format!("{major}:{minor}")),
        _ => Err(Error::invalid(format!("{field}: {major}:{minor} is no device number"))),
    }
}

/// The four throttle lists with their fields, in the order read bps, write bps, read iops, write iops.
pub(crate) fn throttles(io: &crate::resources::BlockIo) -> [(&'static str, &[ThrottleDevice]); 4] {
    [
        ("blockIO.throttleReadBpsDevice", &io.throttle_read_bps_device),
        ("blockIO.throttleWriteBpsDevice", &io.throttle_write_bps_device),
        ("blockIO.throttleReadIOPSDevice", &io.throttle_read_iops_device),
        ("blockIO.throttleWriteIOPSDevice", &io.throttle_write_iops_device),
    ]
}

fn hugepages(limit: &HugepageLimit, version: Version, plan: &mut Plan) -> Result<()> {
    let size = limit.page_size.as_str();
    let digits = size.trim_end_matches(|c: char| c.is_ascii_uppercase());
    let good = !digits.is_empty()
        && digits.bytes().all(|b| b.is_ascii_digit())
        && ["KB", "MB", "GB"].contains(&&size[digits.len()..]);
    if !good {
        invalid!("hugepageLimits: page size \"{size}\" is none such as 64KB, 2MB, 1GB");
    }
    let (file, reserved) = match version {
        Version::V1 => ("limit_in_bytes", "rsvd.limit_in_bytes"),
        Version::V2 => ("max", "rsvd.max"),
    };
    let field = format!("hugepageLimits {size}");
    plan.writes.push(Write::new("hugetlb", format!("hugetlb.{size}.{file}"), limit.limit, field.clone()));
    // Reservations are counted since Linux 5.7; an older kernel limits by faults alone.
    let write = Write::new("hugetlb", format!("hugetlb.{size}.{reserved}"), limit.limit, field);
    plan.writes.push(write.optional(true));
    Ok(())
}

fn rdma(device: &str, limit: &crate::resources::Rdma) -> Result<Option<Write>> {
    if device.is_empty() || device.contains(|c: char| c.is_whitespace() || c == '\0') {
        invalid!("rdma: \"{device}\" is no device name");
    }
    let part = |key: &str, n: Option<u32>| n.map(|n| format!(" {key}={n}")).unwrap_or_default();
    let values = part("hca_handle", limit.hca_handles) + &part("hca_object", limit.hca_objects);
    let line = || Write::new("rdma", "rdma.max", format!("{device}{values}"), format!("rdma \"{device}\""));
    Ok((!values.is_empty()).then(line))
}
