//! Taking back limits that nobody asks for any more.

use std::collections::BTreeMap;

use cgroup::block::Device;
use cgroup::resources::HugepageLimit;
use netlimit::{Cap, Network};

use super::{idle, throttles, upsert, Limits, Line, WEIGHTS};

/// What takes back that which `old` had set and `new` doesn't name any more is added to `new`. Files whose usual value nobody
/// knows are left to `originals`. Weights of block IO are for [`lift_weights`], `count_loopback` is for [`loopback`].
pub fn lift(old: &Limits, new: &mut Limits, originals: &BTreeMap<String, String>) {
    for index in 0..4 {
        let had = old.resources.block_io.clone().map(|mut io| std::mem::take(throttles(&mut io, index)));
        for gone in had.unwrap_or_default() {
            let device = Device { major: gone.major as u32, minor: gone.minor as u32 };
            let list = throttles(new.resources.block_io.get_or_insert_default(), index);
            if gone.rate > 0 && !list.iter().any(|t| (t.major, t.minor) == (gone.major, gone.minor)) {
                upsert(list, device, 0);
            }
        }
    }
    lift_memory_and_cpu(old, new);
    if old.resources.pids.as_ref().is_some_and(|p| p.limit.is_some()) {
        new.resources.pids.get_or_insert_default().limit.get_or_insert(-1);
    }
    for had in &old.resources.hugepage_limits {
        if !new.resources.hugepage_limits.iter().any(|l| l.page_size == had.page_size) {
            let limit = HugepageLimit { page_size: had.page_size.clone(), limit: i64::MAX as u64 };
            new.resources.hugepage_limits.push(limit);
        }
    }
    // The kernel set the weight aside when the container went idle.
    let idle = idle(new);
    let gone = |line: &&Line| !(new.raw.contains_key(*line) || idle && WEIGHTS.contains(&line.0.as_str()));
    for line in old.raw.keys().filter(gone).cloned().collect::<Vec<_>>() {
        let cpu = &mut new.resources.cpu;
        match line.0.as_str() {
            "cpuset.cpus" => drop(cpu.get_or_insert_default().cpus.get_or_insert_default()),
            "cpuset.mems" => drop(cpu.get_or_insert_default().mems.get_or_insert_default()),
            file => {
                if let Some(text) = usual(&line).or_else(|| originals.get(file).cloned()) {
                    new.lifted.insert(line, text);
                }
            }
        }
    }
    lift_net(&old.net, &mut new.net);
}

/// The same for weights of block IO, which are kept in the first of these files that the cgroup has.
pub fn lift_weights(old: &Limits, new: &mut Limits, has: &dyn Fn(&str) -> bool) {
    let files = [
        ("blkio.weight", "blkio.weight_device"),
        ("blkio.bfq.weight", "blkio.bfq.weight_device"),
        ("io.bfq.weight", "io.bfq.weight"),
        ("io.weight", "io.weight"),
    ];
    let Some((file, per_device)) = files.into_iter().find(|(file, _)| has(file)) else { return };
    let had = old.resources.block_io.clone().unwrap_or_default();
    let asked = new.resources.block_io.clone().unwrap_or_default();
    let all = (had.weight.is_some() && asked.weight.is_none()).then(|| (file.to_string(), String::new()));
    let gone = had.weight_device.iter().map(|w| (w.major, w.minor));
    let gone = gone.filter(|d| !asked.weight_device.iter().any(|w| (w.major, w.minor) == *d));
    let each = gone.map(|(major, minor)| (per_device.to_string(), format!("{major}:{minor}")));
    for line in all.into_iter().chain(each).filter(|line| !new.raw.contains_key(line)).collect::<Vec<_>>() {
        let text = usual(&line).unwrap_or_default();
        new.lifted.insert(line, text);
    }
}

fn lift_memory_and_cpu(old: &Limits, new: &mut Limits) {
    fn back<T>(had: &Option<T>, has: &mut Option<T>, usual: T) {
        if had.is_some() && has.is_none() {
            *has = Some(usual);
        }
    }
    if let Some(had) = &old.resources.memory {
        let has = new.resources.memory.get_or_insert_default();
        back(&had.limit, &mut has.limit, -1);
        if !new.raw.contains_key(&("memory.swap.max".to_string(), String::new())) {
            back(&had.swap, &mut has.swap, -1);
        }
        back(&had.swappiness, &mut has.swappiness, 60);
    }
    let idle = idle(new);
    if let Some(had) = &old.resources.cpu {
        let has = new.resources.cpu.get_or_insert_default();
        if !idle && !new.raw.contains_key(&("cpu.weight".to_string(), String::new())) {
            back(&had.shares, &mut has.shares, 1024);
        }
        back(&had.quota, &mut has.quota, -1);
        back(&had.period, &mut has.period, 100_000);
        back(&had.burst, &mut has.burst, 0);
        back(&had.idle, &mut has.idle, 0);
        // An empty list means "as the parent"; who writes it has to fill it in.
        back(&had.cpus, &mut has.cpus, String::new());
        back(&had.mems, &mut has.mems, String::new());
    }
}

/// The value that a kernel file, or the line for a device or name in it, has when nobody wrote to it.
pub fn usual((file, key): &Line) -> Option<String> {
    if !key.is_empty() {
        return Some(format!("{key} {}", cgroup::apply::unset_line(file)));
    }
    Some(match file.as_str() {
        "memory.high" | "memory.max" | "memory.swap.max" | "memory.swap.high" | "memory.zswap.max" => {
            "max".into()
        }
        "memory.min" | "memory.low" | "memory.oom.group" | "cpu.idle" | "cpu.max.burst" => "0".into(),
        "memory.soft_limit_in_bytes" | "memory.limit_in_bytes" | "memory.memsw.limit_in_bytes" => "-1".into(),
        "cpu.weight" => "100".into(),
        "cpu.shares" => "1024".into(),
        "cpu.cfs_quota_us" => "-1".into(),
        "cpu.cfs_period_us" => "100000".into(),
        "cpu.weight.nice" | "cpu.cfs_burst_us" => "0".into(),
        "pids.max" => "max".into(),
        "cpu.max" => "max 100000".into(),
        "io.weight" | "io.bfq.weight" | "blkio.bfq.weight" => "100".into(),
        // CFQ's.
        "blkio.weight" => "500".into(),
        file if file.starts_with("hugetlb.") && file.ends_with("max") => "max".into(),
        file if file.starts_with("hugetlb.") => "-1".into(),
        _ => return None,
    })
}

fn lift_net(old: &netlimit::Limits, new: &mut netlimit::Limits) {
    fn back<T>(had: &Option<T>, has: &mut Option<T>, usual: T) {
        if had.is_some() && has.is_none() {
            *has = Some(usual);
        }
    }
    back(&old.egress_rate, &mut new.egress_rate, Cap::Max);
    back(&old.ingress_rate, &mut new.ingress_rate, Cap::Max);
    back(&old.egress_pps, &mut new.egress_pps, Cap::Max);
    back(&old.ingress_pps, &mut new.ingress_pps, Cap::Max);
    back(&old.egress_burst, &mut new.egress_burst, Cap::Max);
    back(&old.ingress_burst, &mut new.ingress_burst, Cap::Max);
    back(&old.egress_pps_burst, &mut new.egress_pps_burst, Cap::Max);
    back(&old.ingress_pps_burst, &mut new.ingress_pps_burst, Cap::Max);
    back(&old.new_conns, &mut new.new_conns, Cap::Max);
    back(&old.new_conns_burst, &mut new.new_conns_burst, Cap::Max);
    back(&old.classid, &mut new.classid, 0);
    back(&old.priority, &mut new.priority, BTreeMap::new());
    back(&old.ingress_mode, &mut new.ingress_mode, netlimit::IngressMode::Police);
}

/// What `count_loopback` goes back to where nobody says it any more: what the kind of network has by default.
pub fn loopback(had: Option<bool>, has: Option<bool>, network: Network) -> Option<bool> {
    has.or(had.map(|_| network != Network::Private))
}
