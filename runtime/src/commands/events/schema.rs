//! runc's `events` in its own names (types/events.go): zero and empty are left out where runc leaves them out.

use std::collections::BTreeMap;

use cgroup::stats::{v1, v2, HugePages, Pids, Pressure, Stats, UNLIMITED};
use serde_json::{json, Map, Value};

use crate::init::attrs::rdt::stats as rdt;

/// One line. `network` is ours: what the network limits counted, where there are any.
pub fn stats(
    id: &str,
    stats: &Stats,
    rdt: Option<&rdt::Stats>,
    network: Option<netlimit::Counters>,
) -> String {
    let mut data = match stats {
        Stats::V1(stats) => from_v1(stats),
        Stats::V2(stats) => from_v2(stats),
    };
    if let Some(rdt) = rdt {
        data["intel_rdt"] = json!(rdt);
    }
    if let Some(counters) = network {
        data["network"] = json!(counters);
    }
    format!("{}\n", json!({ "type": "stats", "id": id, "data": data }))
}

pub fn oom(id: &str) -> String {
    format!("{}\n", json!({ "type": "oom", "id": id }))
}

/// An object without the members that are zero, empty or absent; those named in `keep` stay.
fn object(members: &[(&str, Value)], keep: &[&str]) -> Value {
    let empty = |v: &Value| match v {
        Value::Null => true,
        Value::Number(n) => n.as_u64() == Some(0),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    };
    let members = members.iter().filter(|(name, v)| keep.contains(name) || !empty(v));
    Value::Object(members.map(|(name, v)| (name.to_string(), v.clone())).collect::<Map<_, _>>())
}

fn from_v1(s: &v1::Stats) -> Value {
    let usage = object(
        &[
            ("total", s.cpu.total.into()),
            ("percpu", s.cpu.per_cpu.clone().into()),
            ("percpu_kernel", s.cpu.per_cpu_kernel.clone().into()),
            ("percpu_user", s.cpu.per_cpu_user.clone().into()),
            ("kernel", s.cpu.kernel.into()),
            ("user", s.cpu.user.into()),
        ],
        &["kernel", "user"],
    );
    let throttling = throttling(s.cpu.periods, s.cpu.throttled_periods, s.cpu.throttled_time);
    let memory = object(
        &[
            ("cache", s.memory.stat.get("cache").copied().unwrap_or(0).into()),
            ("usage", counter(&s.memory.usage)),
            ("swap", counter(&s.memory.swap)),
            ("kernel", counter(&s.memory.kernel)),
            ("kernelTCP", counter(&s.memory.kernel_tcp)),
            ("raw", raw(&s.memory.stat)),
            ("psi", psi(s.pressure.memory)),
        ],
        &[],
    );
    let blkio = object(
        &[
            ("ioServiceBytesRecursive", entries(&s.blkio.service_bytes)),
            ("ioServicedRecursive", entries(&s.blkio.serviced)),
            ("ioQueueRecursive", entries(&s.blkio.queued)),
            ("ioServiceTimeRecursive", entries(&s.blkio.service_time)),
            ("ioWaitTimeRecursive", entries(&s.blkio.wait_time)),
            ("ioMergedRecursive", entries(&s.blkio.merged)),
            ("ioTimeRecursive", entries(&s.blkio.time)),
            ("sectorsRecursive", entries(&s.blkio.sectors)),
            ("psi", psi(s.pressure.io)),
        ],
        &[],
    );
    let cpu = object(&[("usage", usage), ("throttling", throttling), ("psi", psi(s.pressure.cpu))], &[]);
    whole(cpu, cpuset(&s.cpuset), memory, blkio, s.pids, &s.hugetlb)
}

fn from_v2(s: &v2::Stats) -> Value {
    let cpu = |name: &str| s.cpu.stat.get(name).copied().unwrap_or(0);
    // Microseconds; runc shows nanoseconds on both versions.
    let nanos = |name: &str| cpu(name).saturating_mul(1000);
    let usage = object(
        &[
            ("total", nanos("usage_usec").into()),
            ("kernel", nanos("system_usec").into()),
            ("user", nanos("user_usec").into()),
        ],
        &["kernel", "user"],
    );
    let throttling = throttling(cpu("nr_periods"), cpu("nr_throttled"), nanos("throttled_usec"));
    let m = &s.memory;
    let entry = |limit: u64, usage: u64, max: u64| counter(&v1::Counter { limit, usage, max, failcnt: 0 });
    // As on v1, memory and swap together; their common peak is not known.
    let swap_limit = if m.swap_limit == UNLIMITED { UNLIMITED } else { m.swap_limit.saturating_add(m.limit) };
    let memory = object(
        &[
            ("cache", m.stat.get("file").copied().unwrap_or(0).into()),
            ("usage", entry(m.limit, m.usage, m.peak)),
            ("swap", entry(swap_limit, m.swap_usage + m.usage, 0)),
            // Not counted apart on v2; runc's readers find zeros.
            ("kernel", entry(0, 0, 0)),
            ("kernelTCP", entry(0, 0, 0)),
            ("raw", raw(&m.stat)),
            ("psi", psi(s.pressure.memory)),
        ],
        &[],
    );
    let table = |read: fn(&v2::Io) -> u64, write: fn(&v2::Io) -> u64| {
        let both = |io: &v2::Io| {
            [("Read", read(io)), ("Write", write(io))].map(|(op, value)| blkio(io.major, io.minor, op, value))
        };
        Value::Array(s.io.iter().flat_map(both).collect())
    };
    let blkio = object(
        &[
            ("ioServiceBytesRecursive", table(|io| io.rbytes, |io| io.wbytes)),
            ("ioServicedRecursive", table(|io| io.rios, |io| io.wios)),
            ("psi", psi(s.pressure.io)),
        ],
        &[],
    );
    let cpu = object(&[("usage", usage), ("throttling", throttling), ("psi", psi(s.pressure.cpu))], &[]);
    whole(cpu, cpuset(&v1::Cpuset::default()), memory, blkio, s.pids, &s.hugetlb)
}

fn whole(
    cpu: Value,
    cpuset: Value,
    memory: Value,
    blkio: Value,
    pids: Pids,
    hugetlb: &BTreeMap<String, HugePages>,
) -> Value {
    let limit = if pids.limit == UNLIMITED { 0 } else { pids.limit };
    let pages = |p: &HugePages| {
        object(
            &[("usage", p.usage.into()), ("max", p.max.into()), ("failcnt", p.failcnt.into())],
            &["failcnt"],
        )
    };
    let hugetlb: Map<_, _> = hugetlb.iter().map(|(size, p)| (size.clone(), pages(p))).collect();
    json!({
        "cpu": cpu,
        "cpuset": cpuset,
        "memory": memory,
        "pids": object(&[("current", pids.current.into()), ("limit", limit.into())], &[]),
        "blkio": blkio,
        "hugetlb": hugetlb,
        "intel_rdt": {},
        // Of interfaces that runc made itself, which it has not done for a decade.
        "network_interfaces": null,
    })
}

fn throttling(periods: u64, throttled: u64, time: u64) -> Value {
    let members =
        [("periods", periods.into()), ("throttledPeriods", throttled.into()), ("throttledTime", time.into())];
    object(&members, &[])
}

/// Left out when all of it is zero.
/// Never absent: runc's has no `omitempty` that would reach a structure.
fn counter(c: &v1::Counter) -> Value {
    object(
        &[
            ("limit", c.limit.into()),
            ("usage", c.usage.into()),
            ("max", c.max.into()),
            ("failcnt", c.failcnt.into()),
        ],
        &["limit", "failcnt"],
    )
}

fn raw(stat: &BTreeMap<String, u64>) -> Value {
    Value::Object(stat.iter().map(|(k, v)| (k.clone(), (*v).into())).collect())
}

fn entries(list: &[v1::Entry]) -> Value {
    Value::Array(list.iter().map(|e| blkio(e.major, e.minor, &e.op, e.value)).collect())
}

fn blkio(major: u64, minor: u64, op: &str, value: u64) -> Value {
    let op = if op.is_empty() { Value::Null } else { op.into() };
    object(&[("major", major.into()), ("minor", minor.into()), ("op", op), ("value", value.into())], &[])
}

fn cpuset(set: &v1::Cpuset) -> Value {
    let mut members = vec![("cpus", list(&set.cpus)), ("mems", list(&set.mems))];
    members.extend(FLAGS.map(|name| (name, set.flags.get(name).copied().unwrap_or(0).into())));
    // The one signed flag; -1 is the kernel's own, and what a cgroup has unless somebody wrote the file.
    members.push((RELAX, set.flags.get(RELAX).map_or(json!(-1), |n| (*n as i64).into())));
    let mut keep = FLAGS.to_vec();
    keep.push(RELAX);
    object(&members, &keep)
}

/// As the files are called behind `cpuset.`.
const FLAGS: [&str; 8] = [
    "cpu_exclusive",
    "mem_hardwall",
    "mem_exclusive",
    "memory_migrate",
    "memory_spread_page",
    "memory_spread_slab",
    "memory_pressure",
    "sched_load_balance",
];
const RELAX: &str = "sched_relax_domain_level";

/// `0-2,7` as numbers.
fn list(text: &str) -> Value {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse::<u16>().ok()?..=last.trim().parse().ok()?)
    };
    Value::Array(text.split(',').filter_map(range).flatten().map(Value::from).collect())
}

fn psi(pressure: Option<Pressure>) -> Value {
    let Some(p) = pressure else { return Value::Null };
    let line = |l: cgroup::stats::PressureLine| json!({ "avg10": l.avg10, "avg60": l.avg60, "avg300": l.avg300, "total": l.total });
    json!({ "some": line(p.some), "full": line(p.full) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_1_by_runcs_names() {
        let mut s = v1::Stats::default();
        (s.cpu.total, s.cpu.user) = (30, 20);
        s.cpuset.cpus = "0-1,4".into();
        s.memory.usage = v1::Counter { usage: 5, max: 7, failcnt: 0, limit: 9 };
        s.memory.stat.insert("cache".into(), 3);
        s.blkio.serviced.push(v1::Entry { major: 8, minor: 0, op: "Read".into(), value: 4 });
        s.pids = Pids { current: 1, limit: UNLIMITED };
        let event: Value = serde_json::from_str(&stats("c", &Stats::V1(Box::new(s)), None, None)).unwrap();
        let data = &event["data"];
        assert_eq!((&event["type"], &event["id"]), (&json!("stats"), &json!("c")));
        assert_eq!(data["cpu"], json!({ "usage": { "total": 30, "kernel": 0, "user": 20 } }));
        assert_eq!(data["cpuset"]["cpus"], json!([0, 1, 4]));
        assert_eq!(data["cpuset"]["sched_load_balance"], 0);
        assert_eq!(data["memory"]["usage"], json!({ "limit": 9, "usage": 5, "max": 7, "failcnt": 0 }));
        assert_eq!(data["memory"]["raw"], json!({ "cache": 3 }));
        assert_eq!(data["memory"]["swap"], json!({ "limit": 0, "failcnt": 0 }));
        assert_eq!(data["blkio"]["ioServicedRecursive"], json!([{ "major": 8, "op": "Read", "value": 4 }]));
        assert_eq!(data["pids"], json!({ "current": 1 }));
        assert_eq!((&data["hugetlb"], &data["network_interfaces"]), (&json!({}), &Value::Null));
    }

    #[test]
    fn version_2_in_the_units_of_version_1() {
        let mut s = v2::Stats::default();
        s.cpu.stat.insert("usage_usec".into(), 7);
        s.memory = v2::Memory { usage: 10, limit: 100, swap_usage: 1, swap_limit: 50, ..Default::default() };
        s.io.push(v2::Io { major: 8, minor: 16, rbytes: 4096, ..Default::default() });
        let event: Value = serde_json::from_str(&stats("c", &Stats::V2(Box::new(s)), None, None)).unwrap();
        let data = &event["data"];
        assert_eq!(data["cpu"]["usage"]["total"], 7000);
        assert_eq!(data["memory"]["swap"], json!({ "limit": 150, "usage": 11, "failcnt": 0 }));
        let read = json!({ "major": 8, "minor": 16, "op": "Read", "value": 4096 });
        assert_eq!(data["blkio"]["ioServiceBytesRecursive"][0], read);
    }

    #[test]
    fn out_of_memory() {
        assert_eq!(oom("c"), "{\"id\":\"c\",\"type\":\"oom\"}\n");
    }
}
