//! Taking back limits that nobody asks for any more.

use std::collections::BTreeMap;

use cgroup::block::Device;
use cgroup::resources::{HugepageLimit, WeightDevice};
use netlimit::Cap;

use super::{throttles, upsert, Limits, Line};

/// What takes back that which `old` had set and `new` doesn't name any more. `Resources` and raw lines are added to
/// `new`; net limits lifted. Files whose usual value nobody knows are left to `originals`.
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
    lift_block_weights(old, new);
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
    for line in old.raw.keys() {
        if !new.raw.contains_key(line) && !new.resources.unified.contains_key(&line.0) {
            if let Some(text) = usual(line).or_else(|| originals.get(&line.0).cloned()) {
                new.raw.insert(line.clone(), text);
            }
        }
    }
    lift_net(&old.net, &mut new.net);
}

fn lift_block_weights(old: &Limits, new: &mut Limits) {
    const USUAL: u16 = 100;
    let Some(had) = &old.resources.block_io else { return };
    let io = new.resources.block_io.get_or_insert_default();
    if had.weight.is_some() {
        io.weight.get_or_insert(USUAL);
    }
    for gone in &had.weight_device {
        if !io.weight_device.iter().any(|w| (w.major, w.minor) == (gone.major, gone.minor)) {
            io.weight_device.push(WeightDevice { weight: Some(io.weight.unwrap_or(USUAL)), ..gone.clone() });
        }
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
        back(&had.swap, &mut has.swap, -1);
        back(&had.reservation, &mut has.reservation, -1);
        back(&had.swappiness, &mut has.swappiness, 60);
    }
    if let Some(had) = &old.resources.cpu {
        let has = new.resources.cpu.get_or_insert_default();
        if !new.raw.contains_key(&("cpu.weight".to_string(), String::new())) {
            back(&had.shares, &mut has.shares, 1024);
        }
        back(&had.quota, &mut has.quota, -1);
        back(&had.period, &mut has.period, 100_000);
        back(&had.burst, &mut has.burst, 0);
        back(&had.idle, &mut has.idle, 0);
        // An empty list means "as the parent"; who writes it on v1 has to fill it in.
        back(&had.cpus, &mut has.cpus, String::new());
        back(&had.mems, &mut has.mems, String::new());
    }
}

/// The value that a kernel file has when nobody wrote to it.
pub fn usual((file, key): &Line) -> Option<String> {
    Some(match file.as_str() {
        "memory.high" | "memory.max" | "memory.swap.max" | "memory.swap.high" | "memory.zswap.max" => {
            "max".into()
        }
        "memory.min" | "memory.low" | "memory.oom.group" | "cpu.idle" | "cpu.max.burst" => "0".into(),
        "cpu.weight" => "100".into(),
        "pids.max" => "max".into(),
        "cpu.max" => "max 100000".into(),
        "io.weight" if key.is_empty() || key == "default" => "default 100".into(),
        "io.weight" => format!("{key} default"),
        "io.latency" => format!("{key} target=max"),
        "io.max" => format!("{key} rbps=max wbps=max riops=max wiops=max"),
        "rdma.max" => format!("{key} hca_handle=max hca_object=max"),
        "misc.max" => format!("{key} max"),
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
    back(&old.count_loopback, &mut new.count_loopback, false);
    back(&old.ingress_mode, &mut new.ingress_mode, netlimit::IngressMode::Police);
}
