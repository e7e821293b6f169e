//! What a container uses of its limits: one sample, and what two of them say together.

use cgroup::block::Device;
use cgroup::stats::{Stats, UNLIMITED};
use cgroup::{Cgroup, Dir, Location};
use serde::Serialize;

use super::applied::Saved;
use super::devices::Resolver;

/// Counters and limits of one device, each as read bps, write bps, read iops, write iops.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceSample {
    pub device: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Since the container began: bytes read, bytes written, reads, writes.
    pub counters: [u64; 4],
    /// Bytes and operations per second; absent where there is no limit.
    pub limits: [Option<u64>; 4],
}

/// What a container has used so far.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sample {
    pub id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// Nanoseconds.
    pub cpu: u64,
    /// Nanoseconds during which a CPU limit stopped it.
    pub cpu_throttled: u64,
    /// Bytes.
    pub memory: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_limit: Option<u64>,
    pub pids: u64,
    pub io: Vec<DeviceSample>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<netlimit::Counters>,
}

/// Looks at a container now.
pub fn sample(id: &str, saved: &Saved, location: &Location, pid: i32) -> cgroup::Result<Sample> {
    let cgroup = Cgroup::open(location)?;
    let mut sample = Sample {
        id: id.into(),
        class: saved.layers.class_name().map(str::to_string),
        network: saved.net.as_ref().and_then(|record| netlimit::counters(record).ok().flatten()),
        ..Sample::default()
    };
    // v1 counts memory up to a multiple of the page near 2^63 where nothing limits it.
    let limit = |n: u64| Some(n).filter(|n| *n != UNLIMITED && *n < i64::MAX as u64 - 65_536);
    let mut io: Vec<(Device, [u64; 4])> = Vec::new();
    match cgroup.stats() {
        Stats::V1(stats) => {
            sample.cpu = stats.cpu.total;
            sample.cpu_throttled = stats.cpu.throttled_time;
            sample.memory = stats.memory.usage.usage;
            sample.memory_limit = limit(stats.memory.usage.limit);
            sample.pids = stats.pids.current;
            for (entries, kinds) in [(&stats.blkio.service_bytes, [0, 1]), (&stats.blkio.serviced, [2, 3])] {
                for entry in entries {
                    let kind = match entry.op.as_str() {
                        "Read" => kinds[0],
                        "Write" => kinds[1],
                        _ => continue,
                    };
                    of(&mut io, entry.major, entry.minor)[kind] += entry.value;
                }
            }
        }
        Stats::V2(stats) => {
            let cpu = |key: &str| stats.cpu.stat.get(key).copied().unwrap_or(0) * 1000;
            sample.cpu = cpu("usage_usec");
            sample.cpu_throttled = cpu("throttled_usec");
            sample.memory = stats.memory.usage;
            sample.memory_limit = limit(stats.memory.limit);
            sample.pids = stats.pids.current;
            for d in &stats.io {
                *of(&mut io, d.major, d.minor) = [d.rbytes, d.wbytes, d.rios, d.wios];
            }
        }
    }
    let limits = limits(&cgroup);
    // A device that has a limit and no traffic yet is worth a line too.
    for (device, _) in &limits {
        of(&mut io, device.major.into(), device.minor.into());
    }
    let resolver = Resolver::running(pid);
    sample.io = io
        .into_iter()
        .map(|(device, counters)| DeviceSample {
            device: device.to_string(),
            name: resolver.name(device),
            counters,
            limits: limits.iter().find(|(d, _)| *d == device).map_or([None; 4], |(_, l)| *l),
        })
        .collect();
    Ok(sample)
}

fn of(io: &mut Vec<(Device, [u64; 4])>, major: u64, minor: u64) -> &mut [u64; 4] {
    let device = Device { major: major as u32, minor: minor as u32 };
    let at = match io.iter().position(|(d, _)| *d == device) {
        Some(at) => at,
        None => {
            io.push((device, [0; 4]));
            io.len() - 1
        }
    };
    &mut io[at].1
}

/// The throttles in force: devices with their rates as read bps, write bps, read iops, write iops.
pub fn limits(cgroup: &Cgroup) -> Vec<(Device, [Option<u64>; 4])> {
    cgroup.dir("blkio").or(cgroup.dir("io")).map(limits_in).unwrap_or_default()
}

/// The throttles in force in the directory of the block IO controller.
pub fn limits_in(dir: &Dir) -> Vec<(Device, [Option<u64>; 4])> {
    let mut found: Vec<(Device, [Option<u64>; 4])> = Vec::new();
    let mut set = |device: Device, kind: usize, rate: u64| match found.iter_mut().find(|(d, _)| *d == device)
    {
        Some((_, limits)) => limits[kind] = Some(rate),
        None => {
            let mut limits = [None; 4];
            limits[kind] = Some(rate);
            found.push((device, limits));
        }
    };
    let lines = |file: &str, each: &mut dyn FnMut(Device, &str)| {
        for line in dir.peek(file).unwrap_or_default().lines() {
            let Some((device, rest)) = line.split_once(' ') else { continue };
            if let Ok(device) = device.parse() {
                each(device, rest);
            }
        }
    };
    for (kind, name) in ["read_bps", "write_bps", "read_iops", "write_iops"].iter().enumerate() {
        lines(&format!("blkio.throttle.{name}_device"), &mut |device, rest| {
            rest.parse().into_iter().for_each(|rate| set(device, kind, rate));
        });
    }
    lines("io.max", &mut |device, rest| {
        for (kind, key) in ["rbps=", "wbps=", "riops=", "wiops="].iter().enumerate() {
            let word = rest.split(' ').find_map(|w| w.strip_prefix(key));
            word.and_then(|w| w.parse().ok()).into_iter().for_each(|rate| set(device, kind, rate));
        }
    });
    found
}

/// A number of bytes for a table.
fn bytes(n: f64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB"];
    let mut n = n;
    let mut unit = 0;
    while n >= 1000.0 && unit + 1 < units.len() {
        n /= 1000.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{n:.0}{}", units[0])
    } else {
        format!("{n:.1}{}", units[unit])
    }
}

/// A table of what happened between two samples, `seconds` apart.
pub fn table(pairs: &[(Option<Sample>, Sample)], seconds: f64) -> String {
    let mut rows =
        vec![["CONTAINER", "CLASS", "CPU", "THROTTLED", "MEMORY", "LIMIT", "PIDS", "NET OUT", "NET IN"]
            .map(String::from)];
    let mut devices = vec![[
        "CONTAINER",
        "DEVICE",
        "READ/s",
        "LIMIT",
        "USED",
        "WRITE/s",
        "LIMIT",
        "USED",
        "IOPS R/W",
        "LIMIT",
    ]
    .map(String::from)];
    for (before, now) in pairs {
        let rate = |old: u64, new: u64| new.saturating_sub(old) as f64 / seconds;
        let old = before.as_ref().unwrap_or(now);
        let net = |pick: fn(&netlimit::Counters) -> u64| match (&old.network, &now.network) {
            (Some(old), Some(now)) => bytes(rate(pick(old), pick(now))) + "/s",
            _ => "-".into(),
        };
        rows.push([
            now.id.chars().take(24).collect(),
            now.class.clone().unwrap_or_else(|| "-".into()),
            format!("{:.1}%", rate(old.cpu, now.cpu) / 1e7),
            format!("{:.1}%", rate(old.cpu_throttled, now.cpu_throttled) / 1e7),
            bytes(now.memory as f64),
            now.memory_limit.map_or("-".into(), |n| bytes(n as f64)),
            now.pids.to_string(),
            net(|c| c.egress.bytes),
            net(|c| c.ingress.bytes),
        ]);
        for d in &now.io {
            let was = old.io.iter().find(|o| o.device == d.device).unwrap_or(d);
            let rates: Vec<f64> = (0..4).map(|i| rate(was.counters[i], d.counters[i])).collect();
            let limit = |i: usize| d.limits[i].map_or("-".into(), |n| bytes(n as f64));
            // Of the limit of bytes or of operations, whichever is nearer.
            let used = |i: usize| {
                let part = |i: usize| d.limits[i].map(|n| 100.0 * rates[i] / n as f64);
                let nearer = part(i).into_iter().chain(part(i + 2)).reduce(f64::max);
                nearer.map_or("-".into(), |percent| format!("{percent:.0}%"))
            };
            let count = |i: usize| d.limits[i].map_or("-".into(), |n| n.to_string());
            devices.push([
                now.id.chars().take(24).collect(),
                format!("{} {}", d.device, d.name.as_deref().unwrap_or_default()).trim_end().into(),
                bytes(rates[0]),
                limit(0),
                used(0),
                bytes(rates[1]),
                limit(1),
                used(1),
                format!("{:.0}/{:.0}", rates[2], rates[3]),
                format!("{}/{}", count(2), count(3)),
            ]);
        }
    }
    align(&rows) + "\n" + &align(&devices)
}

fn align<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|r| r[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let line = |row: &[String; N]| {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        cells.join("  ").trim_end().to_string() + "\n"
    };
    rows.iter().map(line).collect()
}

/// Samples as Prometheus reads them.
pub fn prometheus(samples: &[Sample]) -> String {
    let mut text = String::new();
    let mut metric = |name: &str, kind: &str, each: &dyn Fn(&Sample) -> Vec<(String, f64)>| {
        text += &format!("# TYPE hydra_{name} {kind}\n");
        for sample in samples {
            for (labels, value) in each(sample) {
                // IDs and classes have no characters that would need escaping.
                let class = sample.class.as_deref().unwrap_or_default();
                text += &format!("hydra_{name}{{id=\"{}\",class=\"{class}\"{labels}}} {value}\n", sample.id);
            }
        }
    };
    let one = |value: f64| vec![(String::new(), value)];
    metric("cpu_seconds_total", "counter", &|s| one(s.cpu as f64 / 1e9));
    metric("cpu_throttled_seconds_total", "counter", &|s| one(s.cpu_throttled as f64 / 1e9));
    metric("memory_bytes", "gauge", &|s| one(s.memory as f64));
    metric("memory_limit_bytes", "gauge", &|s| {
        s.memory_limit.map(|n| (String::new(), n as f64)).into_iter().collect()
    });
    metric("pids", "gauge", &|s| one(s.pids as f64));
    const KINDS: [&str; 4] = ["read_bytes", "written_bytes", "reads", "writes"];
    for (i, kind) in KINDS.iter().enumerate() {
        let label = |d: &DeviceSample| format!(",device=\"{}\"", d.device);
        metric(&format!("io_{kind}_total"), "counter", &|s| {
            s.io.iter().map(|d| (label(d), d.counters[i] as f64)).collect()
        });
        metric(&format!("io_{kind}_limit"), "gauge", &|s| {
            s.io.iter().filter_map(|d| Some((label(d), d.limits[i]? as f64))).collect()
        });
    }
    let net = |s: &Sample, pick: fn(&netlimit::DirectionCounters) -> f64| {
        let both = s.network.iter().flat_map(|n| [("egress", n.egress), ("ingress", n.ingress)]);
        both.map(|(name, c)| (format!(",direction=\"{name}\""), pick(&c))).collect()
    };
    metric("network_bytes_total", "counter", &|s| net(s, |c| c.bytes as f64));
    metric("network_packets_total", "counter", &|s| net(s, |c| c.packets as f64));
    metric("network_dropped_packets_total", "counter", &|s| net(s, |c| c.dropped_packets as f64));
    metric("network_throttled_seconds_total", "counter", &|s| net(s, |c| c.throttled_ns as f64 / 1e9));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_and_the_metrics() {
        let mut now = Sample { id: "web".into(), cpu: 2_000_000_000, memory: 5_000_000, ..Sample::default() };
        now.io.push(DeviceSample {
            device: "8:0".into(),
            counters: [0, 3_000_000, 0, 3],
            limits: [None, Some(6_000_000), None, None],
            ..DeviceSample::default()
        });
        let mut old = now.clone();
        old.cpu = 1_000_000_000;
        old.io[0].counters[1] = 0;
        let text = table(&[(Some(old), now.clone())], 1.0);
        assert!(text.contains("100.0%") && text.contains("3.0MB    6.0MB  50%"), "{text}");
        let text = prometheus(&[now]);
        assert!(text.contains("hydra_cpu_seconds_total{id=\"web\",class=\"\"} 2\n"), "{text}");
        assert!(text.contains("hydra_io_written_bytes_limit{id=\"web\",class=\"\",device=\"8:0\"} 6000000\n"));
    }
}
