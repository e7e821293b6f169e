//! Statistics of cgroup v2.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{device, number, page_sizes, rdma, table, HugePages, Pids, Pressures, Rdma, UNLIMITED};
use crate::cgroup::Cgroup;
use crate::dir::Dir;

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Stats {
    pub cpu: Cpu,
    pub memory: Memory,
    pub pids: Pids,
    pub io: Vec<Io>,
    /// By page size: `2MB`.
    pub hugetlb: BTreeMap<String, HugePages>,
    pub rdma_current: Vec<Rdma>,
    pub rdma_limit: Vec<Rdma>,
    pub pressure: Pressures,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Cpu {
    /// `cpu.stat` by its own names; times in microseconds.
    pub stat: BTreeMap<String, u64>,
    /// Microseconds a period, `UNLIMITED` without a limit.
    pub quota: u64,
    pub period: u64,
    pub weight: u64,
}

/// Bytes; limits may be `UNLIMITED`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// `memory.stat` by its own names.
    pub stat: BTreeMap<String, u64>,
    pub usage: u64,
    pub limit: u64,
    /// The highest usage there was (Linux 5.19).
    pub peak: u64,
    pub swap_usage: u64,
    pub swap_limit: u64,
    pub swap_peak: u64,
    /// `memory.events` by its own names: `oom_kill`.
    pub events: BTreeMap<String, u64>,
}

/// Counters of one device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Io {
    pub major: u64,
    pub minor: u64,
    pub rbytes: u64,
    pub wbytes: u64,
    pub rios: u64,
    pub wios: u64,
    pub dbytes: u64,
    pub dios: u64,
}

pub(super) fn read(cgroup: &Cgroup) -> Stats {
    let dir = cgroup.unified();
    let Some(open) = dir else { return Stats::default() };
    Stats {
        cpu: cpu(open),
        memory: memory(open),
        pids: Pids { current: number(dir, "pids.current"), limit: number(dir, "pids.max") },
        io: parse_io(&open.peek("io.stat").unwrap_or_default()),
        hugetlb: hugetlb(open),
        rdma_current: rdma(dir, "rdma.current"),
        rdma_limit: rdma(dir, "rdma.max"),
        pressure: cgroup.pressure(),
    }
}

fn cpu(dir: &Dir) -> Cpu {
    let max = dir.peek("cpu.max").unwrap_or_default();
    let mut words = max.split_whitespace();
    let quota = words.next().map_or(UNLIMITED, |w| w.parse().unwrap_or(UNLIMITED));
    let period = words.next().and_then(|w| w.parse().ok()).unwrap_or(100_000);
    Cpu { stat: table(Some(dir), "cpu.stat"), quota, period, weight: number(Some(dir), "cpu.weight") }
}

fn memory(dir: &Dir) -> Memory {
    let get = |file: &str| number(Some(dir), file);
    Memory {
        stat: table(Some(dir), "memory.stat"),
        usage: get("memory.current"),
        limit: get("memory.max"),
        peak: get("memory.peak"),
        swap_usage: get("memory.swap.current"),
        swap_limit: get("memory.swap.max"),
        swap_peak: get("memory.swap.peak"),
        events: table(Some(dir), "memory.events"),
    }
}

/// `8:0 rbytes=1 wbytes=2 …`; a device without traffic may have no values.
pub(crate) fn parse_io(text: &str) -> Vec<Io> {
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let (major, minor) = device(&mut words)?;
        let mut io = Io { major, minor, ..Io::default() };
        for (key, value) in words.filter_map(|w| w.split_once('=')) {
            let target = match key {
                "rbytes" => &mut io.rbytes,
                "wbytes" => &mut io.wbytes,
                "rios" => &mut io.rios,
                "wios" => &mut io.wios,
                "dbytes" => &mut io.dbytes,
                "dios" => &mut io.dios,
                _ => continue,
            };
            *target = value.parse().ok()?;
        }
        Some(io)
    };
    text.lines().filter_map(line).collect()
}

pub(super) fn hugetlb(dir: &Dir) -> BTreeMap<String, HugePages> {
    let read = |size: String| {
        let get = |name: &str| number(Some(dir), &format!("hugetlb.{size}.{name}"));
        let events = table(Some(dir), &format!("hugetlb.{size}.events"));
        let failcnt = events.get("max").copied().unwrap_or(0);
        let pages = HugePages { usage: get("current"), max: get("max"), failcnt };
        (size, pages)
    };
    page_sizes(dir, ".current").into_iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_counters() {
        let got = parse_io("8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n7:0 \n");
        assert_eq!((got[0].wbytes, got[0].dios, got[1].major, got[1].rbytes), (2, 6, 7, 0));
    }
}
