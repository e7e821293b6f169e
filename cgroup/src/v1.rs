//! `linux.resources` in the files of cgroup v1.

use crate::error::{invalid, Error, Result};
use crate::layout::Version;
use crate::resources::{BlockIo, Cpu, Memory, Network};
use crate::write::{device, missing, throttles, Facts, Plan, Write};

/// memory + swap must never be below memory, so the order of the two writes depends on what is in force.
pub fn memory(memory: &Memory, facts: &Facts<'_>, plan: &mut Plan) -> Result<()> {
    const FILE: &str = "memory.limit_in_bytes";
    const SWAP: &str = "memory.memsw.limit_in_bytes";
    let limit = memory.limit.filter(|n| *n != 0);
    let mut swap = memory.swap.filter(|n| *n != 0);
    if limit == Some(-1) && swap.is_none() && !facts.fresh && (facts.read)("memory", SWAP).is_some() {
        // Lifting the memory limit alone would leave the sum in force.
        swap = Some(-1);
    }
    check_swap(limit, swap)?;
    let limit = limit.map(|n| Write::new("memory", FILE, n, "memory.limit"));
    let sum = swap.map(|n| Write::new("memory", SWAP, n, "memory.swap").optional(n == -1));
    let grows = match (&limit, swap, facts.fresh) {
        (Some(limit), Some(_), false) => {
            let asked = limit.value.parse().map_or(i64::MAX, |n: i64| if n < 0 { i64::MAX } else { n });
            asked > facts.number("memory", SWAP).unwrap_or(i64::MAX)
        }
        _ => false,
    };
    let ordered = if grows { [sum, limit] } else { [limit, sum] };
    plan.writes.extend(ordered.into_iter().flatten());
    if memory.kernel.is_some_and(|n| n != 0) {
        plan.warnings.push("memory.kernel is ignored: Linux limits kernel memory with the rest".to_string());
    }
    let mut set = |file: &'static str, value: Option<i64>, field: &'static str| {
        plan.writes.extend(value.map(|n| Write::new("memory", file, n, field)));
    };
    set("memory.kmem.tcp.limit_in_bytes", memory.kernel_tcp.filter(|n| *n != 0), "memory.kernelTCP");
    set("memory.soft_limit_in_bytes", memory.reservation.filter(|n| *n != 0), "memory.reservation");
    if let Some(n) = memory.swappiness {
        if n > 100 {
            invalid!("memory.swappiness: {n} is not in 0 to 100");
        }
        set("memory.swappiness", Some(n as i64), "memory.swappiness");
    }
    if let Some(disable) = memory.disable_oom_killer.filter(|d| *d || !facts.fresh) {
        set("memory.oom_control", Some(i64::from(disable)), "memory.disableOOMKiller");
    }
    Ok(())
}

/// The rule that both versions share: `swap` is the sum of memory and swap.
pub(crate) fn check_swap(limit: Option<i64>, swap: Option<i64>) -> Result<()> {
    for (n, field) in [(limit, "memory.limit"), (swap, "memory.swap")] {
        if n.is_some_and(|n| n < -1) {
            invalid!("{field}: {} is neither a size nor -1", n.unwrap_or_default());
        }
    }
    match (limit, swap) {
        (Some(limit), Some(swap)) if limit > 0 && swap > 0 && swap < limit => {
            invalid!("memory.swap: memory+swap limit ({swap}) should be >= memory limit ({limit})")
        }
        (Some(-1), Some(swap)) if swap > 0 => {
            invalid!("memory.swap: memory+swap limit ({swap}) should be >= memory limit (unlimited)")
        }
        _ => Ok(()),
    }
}

pub fn cpu(cpu: &Cpu, facts: &Facts<'_>, plan: &mut Plan) -> Result<()> {
    let set = |file: &'static str, value: String, field: &'static str| Write::new("cpu", file, value, field);
    if let Some(idle) = cpu.idle.filter(|n| !(facts.fresh && *n == 0)) {
        check_idle(idle)?;
        plan.writes.push(set("cpu.idle", idle.to_string(), "cpu.idle"));
    }
    if let Some(shares) = cpu.shares.filter(|n| *n != 0) {
        check_shares(shares)?;
        if cpu.idle == Some(1) {
            plan.warnings.push("cpu.shares is ignored while cpu.idle is 1".to_string());
        } else {
            plan.writes.push(set("cpu.shares", shares.to_string(), "cpu.shares"));
        }
    }
    let quota = cpu.quota.filter(|n| *n != 0);
    let period = cpu.period.filter(|n| *n != 0);
    let period = period.map(|p| set("cpu.cfs_period_us", p.to_string(), "cpu.period"));
    // A burst above zero on a kernel without bursts (before 5.14) is refused.
    let burst = cpu
        .burst
        .map(|n| set("cpu.cfs_burst_us", n.to_string(), "cpu.burst").optional(n == 0))
        .filter(|b| !(facts.fresh && b.value == "0"));
    let quota_write = quota.map(|q| set("cpu.cfs_quota_us", q.to_string(), "cpu.quota"));
    // quota/period must stay within the parent's share between the two writes: the longer period goes first,
    // the shorter one last, so that the value in between is below the old or below the new one.
    let longer = match &period {
        Some(p) => p.value.parse::<i64>().unwrap_or(i64::MAX) >= present(facts, "cpu.cfs_period_us", 100_000),
        None => true,
    };
    let bandwidth = if longer { [period, quota_write] } else { [quota_write, period] };
    // burst <= quota at every moment.
    let shrinks = quota.is_some_and(|q| q > 0 && q < present(facts, "cpu.cfs_burst_us", 0));
    if shrinks {
        plan.writes.extend(burst.into_iter().chain(bandwidth.into_iter().flatten()));
    } else {
        plan.writes.extend(bandwidth.into_iter().flatten().chain(burst));
    }
    realtime(cpu, facts, plan);
    Ok(())
}

fn realtime(cpu: &Cpu, facts: &Facts<'_>, plan: &mut Plan) {
    let set = |file: &'static str, value: String, field: &'static str| Write::new("cpu", file, value, field);
    let period = cpu.realtime_period.filter(|n| *n != 0);
    let period_write = period.map(|n| set("cpu.rt_period_us", n.to_string(), "cpu.realtimePeriod"));
    let runtime = cpu.realtime_runtime.filter(|n| *n != 0);
    let runtime = runtime.map(|n| set("cpu.rt_runtime_us", n.to_string(), "cpu.realtimeRuntime"));
    let longer = period.is_none_or(|p| p as i64 >= present(facts, "cpu.rt_period_us", 1_000_000));
    let ordered = if longer { [period_write, runtime] } else { [runtime, period_write] };
    plan.writes.extend(ordered.into_iter().flatten());
}

fn present(facts: &Facts<'_>, file: &str, default: i64) -> i64 {
    if facts.fresh {
        default
    } else {
        facts.number("cpu", file).unwrap_or(default)
    }
}

pub(crate) fn check_idle(idle: i64) -> Result<()> {
    if !(0..=1).contains(&idle) {
        invalid!("cpu.idle: {idle} is neither 0 nor 1");
    }
    Ok(())
}

/// The kernel would round these in silence.
pub(crate) fn check_shares(shares: u64) -> Result<()> {
    match shares {
        0..=1 => Err(Error::invalid("cpu.shares: the minimum allowed cpu-shares is 2")),
        2..=262_144 => Ok(()),
        _ => Err(Error::invalid("cpu.shares: the maximum allowed cpu-shares is 262144")),
    }
}

pub fn block_io(io: &BlockIo, facts: &Facts<'_>, plan: &mut Plan) -> Result<()> {
    let weights = io.weight.is_some_and(|n| n != 0) || !io.weight_device.is_empty();
    // CFQ's files went with Linux 5.0; BFQ has its own.
    let old = weights && (facts.read)("blkio", "blkio.weight").is_some();
    let (weight, per_device) = if old {
        ("blkio.weight", "blkio.weight_device")
    } else {
        ("blkio.bfq.weight", "blkio.bfq.weight_device")
    };
    if let Some(n) = io.weight.filter(|n| *n != 0) {
        check_weight(n, "blockIO.weight")?;
        plan.writes.push(Write::new("blkio", weight, n, "blockIO.weight"));
    }
    if let Some(n) = io.leaf_weight.filter(|n| *n != 0) {
        check_weight(n, "blockIO.leafWeight")?;
        plan.writes.push(Write::new("blkio", "blkio.leaf_weight", n, "blockIO.leafWeight"));
    }
    for d in &io.weight_device {
        let name = device(d.major, d.minor, "blockIO.weightDevice")?;
        if let Some(n) = d.weight.filter(|n| *n != 0) {
            check_weight(n, "blockIO.weightDevice")?;
            plan.writes.push(Write::new("blkio", per_device, format!("{name} {n}"), "blockIO.weightDevice"));
        }
        if let Some(n) = d.leaf_weight.filter(|n| *n != 0) {
            let (file, field) = ("blkio.leaf_weight_device", "blockIO.weightDevice leafWeight");
            plan.writes.push(Write::new("blkio", file, format!("{name} {n}"), field));
        }
    }
    const FILES: [&str; 4] = [
        "blkio.throttle.read_bps_device",
        "blkio.throttle.write_bps_device",
        "blkio.throttle.read_iops_device",
        "blkio.throttle.write_iops_device",
    ];
    for ((field, list), file) in throttles(io).into_iter().zip(FILES) {
        for d in list {
            let line = format!("{} {}", device(d.major, d.minor, field)?, d.rate);
            plan.writes.push(Write::new("blkio", file, line, field));
        }
    }
    Ok(())
}

pub(crate) fn check_weight(weight: u16, field: &str) -> Result<()> {
    if !(10..=1000).contains(&weight) {
        invalid!("{field}: {weight} is not in 10 to 1000");
    }
    Ok(())
}

/// Tags for traffic exist in v1 alone. A host of v2 passes them over with a warning, as it does all that v2 has no word
/// for; one of v1 that lacks the hierarchy can't apply what was asked.
pub fn network(network: &Network, facts: &Facts<'_>, plan: &mut Plan) -> Result<()> {
    let v1 = |controller: &str| (facts.version)(controller) == Some(Version::V1);
    let speaks_v1 = ["cpu", "memory", "pids", "devices"].into_iter().any(v1);
    let mut tag = |controller: &str, write: Write| {
        if v1(controller) {
            plan.writes.push(write);
        } else if speaks_v1 {
            return Err(missing(controller, &write.field));
        } else {
            plan.warnings.push(format!("{} is ignored: cgroup v2 has no such setting", write.field));
        }
        Ok(())
    };
    if let Some(id) = network.class_id.filter(|n| *n != 0) {
        tag("net_cls", Write::new("net_cls", "net_cls.classid", id, "network.classID"))?;
    }
    for p in &network.priorities {
        if p.name.is_empty() || p.name.len() > 15 || p.name.contains(|c: char| c.is_whitespace() || c == '/')
        {
            invalid!("network.priorities: \"{}\" is no interface name", p.name);
        }
        let line = format!("{} {}", p.name, p.priority);
        tag("net_prio", Write::new("net_prio", "net_prio.ifpriomap", line, "network.priorities"))?;
    }
    Ok(())
}
