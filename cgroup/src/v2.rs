//! `linux.resources` in the files of cgroup v2.

use std::collections::BTreeMap;

use crate::error::{Error, Kind, Result};
use crate::resources::{BlockIo, Cpu, Memory};
use crate::v1::{check_idle, check_shares, check_swap, check_weight};
use crate::write::{device, max_or, throttles, Facts, Plan, Write};

/// `memory.swap` is the sum of memory and swap there, swap alone here.
pub fn memory(memory: &Memory, facts: &Facts<'_>, plan: &mut Plan) -> Result<()> {
    let limit = memory.limit.filter(|n| *n != 0);
    if memory.check_before_update == Some(true) && !facts.fresh {
        check_usage(limit, memory.swap, facts)?;
    }
    let swap = swap_alone(limit, memory.swap.filter(|n| *n != 0))?;
    if let Some(n) = swap {
        // A kernel without swap accounting has no file; no limit and no swap are then what holds anyway.
        let write = Write::new("memory", "memory.swap.max", max_or(n), "memory.swap");
        plan.writes.push(write.optional(n <= 0));
    }
    if let Some(n) = limit {
        plan.writes.push(Write::new("memory", "memory.max", max_or(n), "memory.limit"));
    }
    if let Some(n) = memory.reservation.filter(|n| *n != 0) {
        plan.writes.push(Write::new("memory", "memory.low", max_or(n), "memory.reservation"));
    }
    let ignored = [
        ("memory.kernel", memory.kernel.is_some_and(|n| n != 0)),
        ("memory.kernelTCP", memory.kernel_tcp.is_some_and(|n| n != 0)),
        ("memory.swappiness", memory.swappiness.is_some()),
        ("memory.disableOOMKiller", memory.disable_oom_killer == Some(true)),
    ];
    for (field, _) in ignored.iter().filter(|(_, asked)| *asked) {
        plan.warnings.push(format!("{field} is ignored: cgroup v2 has no such setting"));
    }
    Ok(())
}

fn swap_alone(limit: Option<i64>, sum: Option<i64>) -> Result<Option<i64>> {
    check_swap(limit, sum)?;
    match (limit, sum) {
        (Some(-1), None) => Ok(Some(-1)),
        (_, None) => Ok(None),
        (_, Some(-1)) => Ok(Some(-1)),
        (Some(limit), Some(sum)) => Ok(Some(sum - limit)),
        (None, Some(_)) => Err(Error::invalid("memory.swap: unable to set swap limit without memory limit")),
    }
}

fn check_usage(limit: Option<i64>, sum: Option<i64>, facts: &Facts<'_>) -> Result<()> {
    let Some(limit) = limit.filter(|n| *n > 0) else { return Ok(()) };
    let used = facts.number("memory", "memory.current").unwrap_or(0);
    if limit < used {
        return Err(Error::new(Kind::Busy, format!("rejecting memory limit {limit} < usage {used}")));
    }
    let swapped = facts.number("memory", "memory.swap.current").unwrap_or(0);
    match sum.filter(|n| *n > 0) {
        Some(sum) if sum < used + swapped => {
            let text = format!("rejecting memory+swap limit {sum} < usage {}", used + swapped);
            Err(Error::new(Kind::Busy, text))
        }
        _ => Ok(()),
    }
}

pub fn cpu(cpu: &Cpu, facts: &Facts<'_>, plan: &mut Plan) -> Result<()> {
    if let Some(idle) = cpu.idle.filter(|n| !(facts.fresh && *n == 0)) {
        check_idle(idle)?;
        plan.writes.push(Write::new("cpu", "cpu.idle", idle, "cpu.idle"));
    }
    if let Some(shares) = cpu.shares.filter(|n| *n != 0) {
        check_shares(shares)?;
        if cpu.idle == Some(1) {
            plan.warnings.push("cpu.shares is ignored while cpu.idle is 1".to_string());
        } else {
            plan.writes.push(Write::new("cpu", "cpu.weight", weight_of_shares(shares), "cpu.shares"));
        }
    }
    let quota = cpu.quota.filter(|n| *n != 0);
    let period = cpu.period.filter(|n| *n != 0);
    let bandwidth = (quota.is_some() || period.is_some()).then(|| {
        let quota = max_or(quota.unwrap_or(-1));
        Write::new("cpu", "cpu.max", format!("{quota} {}", period.unwrap_or(100_000)), "cpu.quota")
    });
    // A burst above zero on a kernel without bursts (before 5.14) is refused.
    let burst = cpu.burst.filter(|n| !(facts.fresh && *n == 0));
    let burst = burst.map(|n| Write::new("cpu", "cpu.max.burst", n, "cpu.burst").optional(n == 0));
    // burst <= quota at every moment.
    let held = if facts.fresh { 0 } else { facts.number("cpu", "cpu.max.burst").unwrap_or(0) };
    let shrinks = quota.is_some_and(|q| q > 0 && q < held);
    plan.writes.extend(if shrinks { [burst, bandwidth] } else { [bandwidth, burst] }.into_iter().flatten());
    if cpu.realtime_runtime.is_some_and(|n| n != 0) || cpu.realtime_period.is_some_and(|n| n != 0) {
        plan.warnings.push("cpu.realtimeRuntime is ignored: cgroup v2 has no such setting".to_string());
    }
    Ok(())
}

/// Shares of v1 (2 to 262144, 1024 by default) as a weight of v2 (1 to 10000, 100 by default): a quadratic in
/// the logarithm which meets minimum, default and maximum, as runc has it since 1.3 and crun since 1.24.
pub fn weight_of_shares(shares: u64) -> u64 {
    match shares {
        0..=2 => 1,
        262_144.. => 10_000,
        _ => {
            let l = (shares as f64).log2();
            10f64.powf((l * l + 125.0 * l) / 612.0 - 7.0 / 34.0).ceil() as u64
        }
    }
}

/// Weights of v1 (10 to 1000) as `io.weight` (1 to 10000), for a kernel without BFQ.
fn io_weight(weight: u16) -> u64 {
    1 + (u64::from(weight) - 10) * 9999 / 990
}

pub fn block_io(io: &BlockIo, facts: &Facts<'_>, plan: &mut Plan) -> Result<()> {
    let weights = io.weight.is_some_and(|n| n != 0) || !io.weight_device.is_empty();
    let bfq = weights && (facts.read)("io", "io.bfq.weight").is_some();
    let value = |w: u16| if bfq { u64::from(w) } else { io_weight(w) };
    let file = if bfq { "io.bfq.weight" } else { "io.weight" };
    if let Some(n) = io.weight.filter(|n| *n != 0) {
        check_weight(n, "blockIO.weight")?;
        plan.writes.push(Write::new("io", file, value(n), "blockIO.weight"));
    }
    for d in &io.weight_device {
        let name = device(d.major, d.minor, "blockIO.weightDevice")?;
        if let Some(n) = d.weight.filter(|n| *n != 0) {
            check_weight(n, "blockIO.weightDevice")?;
            plan.writes.push(Write::new("io", file, format!("{name} {}", value(n)), "blockIO.weightDevice"));
        }
    }
    if io.leaf_weight.is_some_and(|n| n != 0) || io.weight_device.iter().any(|d| d.leaf_weight.is_some()) {
        plan.warnings.push("blockIO.leafWeight is ignored: cgroup v2 has no such setting".to_string());
    }
    // One line for a device holds all four rates: a device is never half limited, and what isn't asked for is lifted.
    let mut lines: BTreeMap<(i64, i64), [u64; 4]> = BTreeMap::new();
    for (i, (field, list)) in throttles(io).into_iter().enumerate() {
        for d in list {
            device(d.major, d.minor, field)?;
            lines.entry((d.major, d.minor)).or_default()[i] = d.rate;
        }
    }
    for ((major, minor), rates) in lines {
        let mut line = format!("{major}:{minor}");
        for (key, rate) in ["rbps", "wbps", "riops", "wiops"].iter().zip(rates) {
            let rate = if rate == 0 { "max".to_string() } else { rate.to_string() };
            line.push_str(&format!(" {key}={rate}"));
        }
        plan.writes.push(Write::new("io", "io.max", line, "blockIO.throttle"));
    }
    Ok(())
}
