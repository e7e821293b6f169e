//! Figures of cgroup v2, in the message that containerd and dockerd read.

use super::{huge_pages, pairs, rdma, text, value, NetworkStat, RdmaStat};
use crate::pb::message;
use std::path::Path;

message! {
    struct Pids { 1 current: u64, 2 limit: u64 }
    struct PsiData { 1 avg10: f64, 2 avg60: f64, 3 avg300: f64, 4 total: u64 }
    struct Psi { 1 some: Option<PsiData>, 2 full: Option<PsiData> }
    struct Cpu {
        1 usage_usec: u64, 2 user_usec: u64, 3 system_usec: u64, 4 nr_periods: u64, 5 nr_throttled: u64, 6 throttled_usec: u64,
        7 psi: Option<Psi>, 8 nr_bursts: u64, 9 burst_usec: u64,
    }
    struct Memory {
        1 anon: u64, 2 file: u64, 3 kernel_stack: u64, 4 slab: u64, 5 sock: u64, 6 shmem: u64, 7 file_mapped: u64,
        8 file_dirty: u64, 9 file_writeback: u64, 10 anon_thp: u64, 11 inactive_anon: u64, 12 active_anon: u64,
        13 inactive_file: u64, 14 active_file: u64, 15 unevictable: u64, 16 slab_reclaimable: u64,
        17 slab_unreclaimable: u64, 18 pgfault: u64, 19 pgmajfault: u64, 20 workingset_refault: u64,
        21 workingset_activate: u64, 22 workingset_nodereclaim: u64, 23 pgrefill: u64, 24 pgscan: u64, 25 pgsteal: u64,
        26 pgactivate: u64, 27 pgdeactivate: u64, 28 pglazyfree: u64, 29 pglazyfreed: u64, 30 thp_fault_alloc: u64,
        31 thp_collapse_alloc: u64, 32 usage: u64, 33 usage_limit: u64, 34 swap_usage: u64, 35 swap_limit: u64,
        36 max_usage: u64, 37 swap_max_usage: u64, 38 psi: Option<Psi>,
    }
    struct MemoryEvents { 1 low: u64, 2 high: u64, 3 max: u64, 4 oom: u64, 5 oom_kill: u64, 6 oom_group_kill: u64 }
    struct IoEntry { 1 major: u64, 2 minor: u64, 3 rbytes: u64, 4 wbytes: u64, 5 rios: u64, 6 wios: u64 }
    struct Io { 1 usage: Vec<IoEntry>, 2 psi: Option<Psi> }
    struct Hugetlb { 1 current: u64, 2 max: u64, 3 pagesize: String, 4 failcnt: u64 }
    struct Metrics {
        1 pids: Option<Pids>, 2 cpu: Option<Cpu>, 4 memory: Option<Memory>, 5 rdma: Option<RdmaStat>, 6 io: Option<Io>,
        7 hugetlb: Vec<Hugetlb>, 8 memory_events: Option<MemoryEvents>, 9 network: Vec<NetworkStat>,
    }
}

pub fn metrics(d: &Path, network: Vec<NetworkStat>) -> Metrics {
    let has = |file: &str| d.join(file).exists();
    Metrics {
        pids: has("pids.current").then(|| Pids { current: value(d, "pids.current"), limit: pids_limit(d) }),
        cpu: Some(cpu(d)),
        memory: has("memory.current").then(|| memory(d)),
        rdma: rdma(d),
        io: has("io.stat").then(|| Io { usage: io(&text(d, "io.stat")), psi: psi(&text(d, "io.pressure")) }),
        hugetlb: hugetlb(d),
        memory_events: has("memory.events").then(|| events(&text(d, "memory.events"))),
        network,
    }
}

/// No limit is told as 0 here.
fn pids_limit(d: &Path) -> u64 {
    match value(d, "pids.max") {
        u64::MAX => 0,
        n => n,
    }
}

macro_rules! by_name {
    ($into:ident, $text:expr, $($field:ident),* $(,)?) => {
        for (name, v) in pairs($text) {
            match name {
                $(stringify!($field) => $into.$field = v,)*
                _ => {}
            }
        }
    };
}

fn cpu(d: &Path) -> Cpu {
    let mut c = Cpu { psi: psi(&text(d, "cpu.pressure")), ..Cpu::default() };
    by_name!(
        c,
        &text(d, "cpu.stat"),
        usage_usec,
        user_usec,
        system_usec,
        nr_periods,
        nr_throttled,
        throttled_usec,
        nr_bursts,
        burst_usec,
    );
    c
}

fn memory(d: &Path) -> Memory {
    let mut m = Memory {
        usage: value(d, "memory.current"),
        usage_limit: value(d, "memory.max"),
        swap_usage: value(d, "memory.swap.current"),
        swap_limit: value(d, "memory.swap.max"),
        max_usage: value(d, "memory.peak"),
        swap_max_usage: value(d, "memory.swap.peak"),
        psi: psi(&text(d, "memory.pressure")),
        ..Memory::default()
    };
    let stat = text(d, "memory.stat");
    by_name!(
        m,
        &stat,
        anon,
        file,
        kernel_stack,
        slab,
        sock,
        shmem,
        file_mapped,
        file_dirty,
        file_writeback,
        anon_thp,
        inactive_anon,
        active_anon,
        inactive_file,
        active_file,
        unevictable,
        slab_reclaimable,
        slab_unreclaimable,
        pgfault,
        pgmajfault,
        workingset_nodereclaim,
        pgrefill,
        pgscan,
        pgsteal,
        pgactivate,
        pgdeactivate,
        pglazyfree,
        pglazyfreed,
        thp_fault_alloc,
        thp_collapse_alloc,
    );
    // Since 5.9 these are told for anonymous and file pages apart.
    let sum =
        |a: &str, b: &str, c: &str| pairs(&stat).filter(|(n, _)| [a, b, c].contains(n)).map(|(_, v)| v).sum();
    m.workingset_refault = sum("workingset_refault", "workingset_refault_anon", "workingset_refault_file");
    m.workingset_activate =
        sum("workingset_activate", "workingset_activate_anon", "workingset_activate_file");
    m
}

fn events(text: &str) -> MemoryEvents {
    let mut e = MemoryEvents::default();
    by_name!(e, text, low, high, max, oom, oom_kill, oom_group_kill);
    e
}

/// `MAJOR:MINOR rbytes=N wbytes=N rios=N wios=N ...`
fn io(text: &str) -> Vec<IoEntry> {
    let line = |l: &str| {
        let mut words = l.split_ascii_whitespace();
        let (major, minor) = words.next()?.split_once(':')?;
        let mut e = IoEntry { major: major.parse().ok()?, minor: minor.parse().ok()?, ..IoEntry::default() };
        for (key, value) in words.filter_map(|w| w.split_once('=')) {
            let value = value.parse().unwrap_or(0);
            match key {
                "rbytes" => e.rbytes = value,
                "wbytes" => e.wbytes = value,
                "rios" => e.rios = value,
                "wios" => e.wios = value,
                _ => {}
            }
        }
        Some(e)
    };
    text.lines().filter_map(line).collect()
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`
fn psi(text: &str) -> Option<Psi> {
    let part = |kind: &str| {
        let line = text.lines().find_map(|l| l.strip_prefix(kind))?;
        let word = |key: &str| line.split_ascii_whitespace().find_map(|w| w.strip_prefix(key));
        let float = |key: &str| word(key).and_then(|v| v.parse().ok()).unwrap_or(0.0);
        Some(PsiData {
            avg10: float("avg10="),
            avg60: float("avg60="),
            avg300: float("avg300="),
            total: word("total=").and_then(|v| v.parse().ok()).unwrap_or(0),
        })
    };
    (!text.is_empty()).then(|| Psi { some: part("some"), full: part("full") })
}

fn hugetlb(d: &Path) -> Vec<Hugetlb> {
    let one = |size: String| Hugetlb {
        current: value(d, &format!("hugetlb.{size}.current")),
        max: value(d, &format!("hugetlb.{size}.max")),
        failcnt: pairs(&text(d, &format!("hugetlb.{size}.events")))
            .find(|(n, _)| *n == "max")
            .map_or(0, |(_, v)| v),
        pagesize: size,
    };
    huge_pages(d).into_iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn lines_of_the_kernel() {
        let io = super::io("254:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n");
        assert_eq!((io[0].major, io[0].rbytes, io[0].wios), (254, 1, 4));
        let psi = super::psi("some avg10=1.50 avg60=0.00 avg300=0.00 total=7\n").unwrap();
        assert_eq!((psi.some.unwrap().avg10, psi.full), (1.5, None));
    }
}
