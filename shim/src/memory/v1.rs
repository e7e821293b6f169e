//! Figures of cgroup v1, in the message that containerd and dockerd read.

use super::{huge_pages, pairs, rdma, text, v1_dir, value, NetworkStat, RdmaStat};
use crate::pb::message;
use std::path::Path;

message! {
    struct Hugetlb { 1 usage: u64, 2 max: u64, 3 failcnt: u64, 4 pagesize: String }
    struct Pids { 1 current: u64, 2 limit: u64 }
    struct CpuUsage { 1 total: u64, 2 kernel: u64, 3 user: u64, 4 per_cpu: Vec<u64> }
    struct Throttle { 1 periods: u64, 2 throttled_periods: u64, 3 throttled_time: u64 }
    struct Cpu { 1 usage: Option<CpuUsage>, 2 throttling: Option<Throttle> }
    struct MemoryEntry { 1 limit: u64, 2 usage: u64, 3 max: u64, 4 failcnt: u64 }
    struct Memory {
        1 cache: u64, 2 rss: u64, 3 rss_huge: u64, 4 mapped_file: u64, 5 dirty: u64, 6 writeback: u64, 7 pgpgin: u64,
        8 pgpgout: u64, 9 pgfault: u64, 10 pgmajfault: u64, 11 inactive_anon: u64, 12 active_anon: u64,
        13 inactive_file: u64, 14 active_file: u64, 15 unevictable: u64, 16 hierarchical_memory_limit: u64,
        17 hierarchical_memsw_limit: u64, 18 total_cache: u64, 19 total_rss: u64, 20 total_rss_huge: u64,
        21 total_mapped_file: u64, 22 total_dirty: u64, 23 total_writeback: u64, 24 total_pgpgin: u64,
        25 total_pgpgout: u64, 26 total_pgfault: u64, 27 total_pgmajfault: u64, 28 total_inactive_anon: u64,
        29 total_active_anon: u64, 30 total_inactive_file: u64, 31 total_active_file: u64, 32 total_unevictable: u64,
        33 usage: Option<MemoryEntry>, 34 swap: Option<MemoryEntry>, 35 kernel: Option<MemoryEntry>,
        36 kernel_tcp: Option<MemoryEntry>,
    }
    struct BlkioEntry { 1 op: String, 2 device: String, 3 major: u64, 4 minor: u64, 5 value: u64 }
    struct Blkio {
        1 service_bytes: Vec<BlkioEntry>, 2 serviced: Vec<BlkioEntry>, 3 queued: Vec<BlkioEntry>,
        4 service_time: Vec<BlkioEntry>, 5 wait_time: Vec<BlkioEntry>, 6 merged: Vec<BlkioEntry>, 7 time: Vec<BlkioEntry>,
        8 sectors: Vec<BlkioEntry>,
    }
    struct OomControl { 1 oom_kill_disable: u64, 2 under_oom: u64, 3 oom_kill: u64 }
    struct Metrics {
        1 hugetlb: Vec<Hugetlb>, 2 pids: Option<Pids>, 3 cpu: Option<Cpu>, 4 memory: Option<Memory>, 5 blkio: Option<Blkio>,
        6 rdma: Option<RdmaStat>, 7 network: Vec<NetworkStat>, 9 memory_oom_control: Option<OomControl>,
    }
}

pub fn metrics(cgroup: &str, network: Vec<NetworkStat>) -> Metrics {
    let directory = |controller| v1_dir(cgroup, controller).filter(|d| d.exists());
    Metrics {
        hugetlb: directory("hugetlb").map(|d| hugetlb(&d)).unwrap_or_default(),
        pids: directory("pids").map(|d| Pids { current: value(&d, "pids.current"), limit: pids_limit(&d) }),
        cpu: directory("cpuacct").map(|d| cpu(&d, directory("cpu").as_deref())),
        memory: directory("memory").map(|d| memory(&d)),
        blkio: directory("blkio").map(|d| blkio(&d)),
        rdma: directory("rdma").and_then(|d| rdma(&d)),
        network,
        memory_oom_control: directory("memory").map(|d| oom(&d)),
    }
}

/// No limit is told as 0 here.
fn pids_limit(d: &Path) -> u64 {
    match value(d, "pids.max") {
        u64::MAX => 0,
        n => n,
    }
}

fn hugetlb(d: &Path) -> Vec<Hugetlb> {
    let one = |size: String| Hugetlb {
        usage: value(d, &format!("hugetlb.{size}.usage_in_bytes")),
        max: value(d, &format!("hugetlb.{size}.max_usage_in_bytes")),
        failcnt: value(d, &format!("hugetlb.{size}.failcnt")),
        pagesize: size,
    };
    huge_pages(d).into_iter().map(one).collect()
}

fn cpu(acct: &Path, cpu: Option<&Path>) -> Cpu {
    /// The kernel tells user and system time in ticks of 1/100 s.
    const TICK_NS: u64 = 10_000_000;
    let split = text(acct, "cpuacct.stat");
    let part = |name: &str| pairs(&split).find(|(n, _)| *n == name).map_or(0, |(_, v)| v * TICK_NS);
    let usage = CpuUsage {
        total: value(acct, "cpuacct.usage"),
        kernel: part("system"),
        user: part("user"),
        per_cpu: text(acct, "cpuacct.usage_percpu")
            .split_ascii_whitespace()
            .filter_map(|n| n.parse().ok())
            .collect(),
    };
    let throttling = cpu.map(|d| {
        let stat = text(d, "cpu.stat");
        let part = |name: &str| pairs(&stat).find(|(n, _)| *n == name).map_or(0, |(_, v)| v);
        Throttle {
            periods: part("nr_periods"),
            throttled_periods: part("nr_throttled"),
            throttled_time: part("throttled_time"),
        }
    });
    Cpu { usage: Some(usage), throttling }
}

fn memory(d: &Path) -> Memory {
    let stat = text(d, "memory.stat");
    let entry = |kind: &str| {
        let file = |name: &str| format!("memory.{kind}{name}");
        d.join(file("usage_in_bytes")).exists().then(|| MemoryEntry {
            limit: value(d, &file("limit_in_bytes")),
            usage: value(d, &file("usage_in_bytes")),
            max: value(d, &file("max_usage_in_bytes")),
            failcnt: value(d, &file("failcnt")),
        })
    };
    let mut m = Memory {
        usage: entry(""),
        swap: entry("memsw."),
        kernel: entry("kmem."),
        kernel_tcp: entry("kmem.tcp."),
        ..Memory::default()
    };
    for (name, v) in pairs(&stat) {
        set(&mut m, name, v);
    }
    m
}

fn set(m: &mut Memory, name: &str, v: u64) {
    macro_rules! by_name {
        ($($field:ident),* $(,)?) => { match name {
            $(stringify!($field) => m.$field = v,)*
            "hierarchical_memory_limit" => m.hierarchical_memory_limit = v,
            "hierarchical_memsw_limit" => m.hierarchical_memsw_limit = v,
            _ => {}
        } };
    }
    by_name!(
        cache,
        rss,
        rss_huge,
        mapped_file,
        dirty,
        writeback,
        pgpgin,
        pgpgout,
        pgfault,
        pgmajfault,
        inactive_anon,
        active_anon,
        inactive_file,
        active_file,
        unevictable,
        total_cache,
        total_rss,
        total_rss_huge,
        total_mapped_file,
        total_dirty,
        total_writeback,
        total_pgpgin,
        total_pgpgout,
        total_pgfault,
        total_pgmajfault,
        total_inactive_anon,
        total_active_anon,
        total_inactive_file,
        total_active_file,
        total_unevictable,
    );
}

/// `MAJOR:MINOR OP VALUE`, or `MAJOR:MINOR VALUE`; totals name no device.
fn entries(text: &str) -> Vec<BlkioEntry> {
    let line = |l: &str| {
        let mut words = l.split_ascii_whitespace();
        let (major, minor) = words.next()?.split_once(':')?;
        let rest: Vec<&str> = words.collect();
        let (op, value) = match rest[..] {
            [op, value] => (op, value),
            [value] => ("", value),
            _ => return None,
        };
        let (major, minor) = (major.parse().ok()?, minor.parse().ok()?);
        Some(BlkioEntry {
            op: op.into(),
            device: device(major, minor),
            major,
            minor,
            value: value.parse().ok()?,
        })
    };
    text.lines().filter_map(line).collect()
}

fn device(major: u64, minor: u64) -> String {
    let link = std::fs::read_link(format!("/sys/dev/block/{major}:{minor}")).unwrap_or_default();
    match link.file_name() {
        Some(name) => format!("/dev/{}", name.to_string_lossy()),
        None => String::new(),
    }
}

fn blkio(d: &Path) -> Blkio {
    let read = |name: &str| entries(&text(d, name));
    let mut b = Blkio {
        service_bytes: read("blkio.bfq.io_service_bytes_recursive"),
        serviced: read("blkio.bfq.io_serviced_recursive"),
        queued: read("blkio.io_queued_recursive"),
        service_time: read("blkio.io_service_time_recursive"),
        wait_time: read("blkio.io_wait_time_recursive"),
        merged: read("blkio.io_merged_recursive"),
        time: read("blkio.time_recursive"),
        sectors: read("blkio.sectors_recursive"),
    };
    if b.service_bytes.is_empty() {
        b.service_bytes = read("blkio.throttle.io_service_bytes_recursive");
        b.serviced = read("blkio.throttle.io_serviced_recursive");
    }
    b
}

fn oom(d: &Path) -> OomControl {
    let text = text(d, "memory.oom_control");
    let part = |name: &str| pairs(&text).find(|(n, _)| *n == name).map_or(0, |(_, v)| v);
    OomControl {
        oom_kill_disable: part("oom_kill_disable"),
        under_oom: part("under_oom"),
        oom_kill: part("oom_kill"),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn blkio_lines() {
        let found = super::entries("7:0 Read 4096\n7:0 Write 0\nTotal 4096\n8:16 77\n");
        let told: Vec<_> = found.iter().map(|e| (e.major, e.minor, e.op.as_str(), e.value)).collect();
        assert_eq!(told, [(7, 0, "Read", 4096), (7, 0, "Write", 0), (8, 16, "", 77)]);
    }
}
