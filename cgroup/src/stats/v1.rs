//! Statistics of cgroup v1.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{device, number, page_sizes, rdma, signed, table, HugePages, Pids, Pressures, Rdma};
use crate::cgroup::Cgroup;
use crate::dir::Dir;

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Stats {
    pub cpu: Cpu,
    pub cpuset: Cpuset,
    pub memory: Memory,
    pub pids: Pids,
    pub blkio: BlkIo,
    /// By page size: `2MB`.
    pub hugetlb: BTreeMap<String, HugePages>,
    pub rdma_current: Vec<Rdma>,
    pub rdma_limit: Vec<Rdma>,
    pub pressure: Pressures,
}

/// Times in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Cpu {
    pub total: u64,
    pub user: u64,
    pub kernel: u64,
    pub per_cpu: Vec<u64>,
    pub per_cpu_user: Vec<u64>,
    pub per_cpu_kernel: Vec<u64>,
    pub periods: u64,
    pub throttled_periods: u64,
    pub throttled_time: u64,
    pub bursts: u64,
    pub burst_time: u64,
    /// Quota in microseconds a period, `None` without a limit.
    pub quota: Option<i64>,
    pub period: u64,
    pub shares: u64,
}

/// Lists as the kernel writes them, and its flags by name (`cpu_exclusive`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Cpuset {
    pub cpus: String,
    pub mems: String,
    pub flags: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// `memory.stat`, by its own names.
    pub stat: BTreeMap<String, u64>,
    pub usage: Counter,
    /// Memory and swap together.
    pub swap: Counter,
    pub kernel: Counter,
    pub kernel_tcp: Counter,
    pub use_hierarchy: bool,
    pub soft_limit: u64,
    /// `oom_kill_disable`, `under_oom`, `oom_kill`
    pub oom_control: BTreeMap<String, u64>,
}

/// Bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counter {
    pub usage: u64,
    /// The highest usage there was.
    pub max: u64,
    pub failcnt: u64,
    /// 9223372036854771712 when there is no limit.
    pub limit: u64,
}

/// Each list recursive: with the cgroups below.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct BlkIo {
    pub service_bytes: Vec<Entry>,
    pub serviced: Vec<Entry>,
    pub queued: Vec<Entry>,
    pub service_time: Vec<Entry>,
    pub wait_time: Vec<Entry>,
    pub merged: Vec<Entry>,
    pub time: Vec<Entry>,
    pub sectors: Vec<Entry>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Entry {
    pub major: u64,
    pub minor: u64,
    /// `Read`, `Write`, `Sync`, `Async`, `Discard`, `Total`, or empty.
    pub op: String,
    pub value: u64,
}

pub(super) fn read(cgroup: &Cgroup) -> Stats {
    // What no v1 hierarchy has is not to be looked for in the second one.
    let dir = |controller: &str| {
        let named = cgroup.branches().find(|(b, _)| b.controllers.iter().any(|c| c == controller));
        named.map(|(_, dir)| dir)
    };
    let pids = Pids { current: number(dir("pids"), "pids.current"), limit: number(dir("pids"), "pids.max") };
    Stats {
        cpu: cpu(dir("cpu"), dir("cpuacct")),
        cpuset: dir("cpuset").map(cpuset).unwrap_or_default(),
        memory: dir("memory").map(memory).unwrap_or_default(),
        pids,
        blkio: dir("blkio").map(blkio).unwrap_or_default(),
        hugetlb: match dir("hugetlb") {
            Some(dir) => hugetlb(dir),
            None => cgroup.unified().map(super::v2::hugetlb).unwrap_or_default(),
        },
        rdma_current: rdma(dir("rdma"), "rdma.current"),
        rdma_limit: rdma(dir("rdma"), "rdma.max"),
        pressure: cgroup.pressure(),
    }
}

fn cpu(cpu: Option<&Dir>, acct: Option<&Dir>) -> Cpu {
    let stat = table(cpu, "cpu.stat");
    let get = |key: &str| stat.get(key).copied().unwrap_or(0);
    let list = |file: &str| acct.and_then(|d| d.peek(file)).unwrap_or_default();
    let numbers = |text: &str| text.split_whitespace().filter_map(|n| n.parse().ok()).collect();
    let mut found = Cpu {
        total: number(acct, "cpuacct.usage"),
        user: number(acct, "cpuacct.usage_user"),
        kernel: number(acct, "cpuacct.usage_sys"),
        per_cpu: numbers(&list("cpuacct.usage_percpu")),
        periods: get("nr_periods"),
        throttled_periods: get("nr_throttled"),
        throttled_time: get("throttled_time"),
        bursts: get("nr_bursts"),
        burst_time: get("burst_time"),
        quota: signed(cpu, "cpu.cfs_quota_us").filter(|q| *q > 0),
        period: number(cpu, "cpu.cfs_period_us"),
        shares: number(cpu, "cpu.shares"),
        ..Cpu::default()
    };
    // "cpu user system", then a line for each.
    for line in list("cpuacct.usage_all").lines().skip(1) {
        let values: Vec<u64> = numbers(line);
        if let [_, user, kernel] = values[..] {
            found.per_cpu_user.push(user);
            found.per_cpu_kernel.push(kernel);
        }
    }
    found
}

fn cpuset(dir: &Dir) -> Cpuset {
    const FLAGS: [&str; 8] = [
        "cpu_exclusive",
        "mem_exclusive",
        "mem_hardwall",
        "memory_migrate",
        "memory_pressure",
        "memory_spread_page",
        "memory_spread_slab",
        "sched_load_balance",
    ];
    let list = |file: &str| dir.peek(file).unwrap_or_default().trim().to_string();
    let flags = FLAGS.map(|f| (f.to_string(), number(Some(dir), &format!("cpuset.{f}"))));
    Cpuset { cpus: list("cpuset.cpus"), mems: list("cpuset.mems"), flags: flags.into() }
}

fn memory(dir: &Dir) -> Memory {
    let counter = |prefix: &str| {
        let get = |name: &str| number(Some(dir), &format!("{prefix}.{name}"));
        let (usage, max) = (get("usage_in_bytes"), get("max_usage_in_bytes"));
        Counter { usage, max, failcnt: get("failcnt"), limit: get("limit_in_bytes") }
    };
    Memory {
        stat: table(Some(dir), "memory.stat"),
        usage: counter("memory"),
        swap: counter("memory.memsw"),
        kernel: counter("memory.kmem"),
        kernel_tcp: counter("memory.kmem.tcp"),
        use_hierarchy: number(Some(dir), "memory.use_hierarchy") == 1,
        soft_limit: number(Some(dir), "memory.soft_limit_in_bytes"),
        oom_control: table(Some(dir), "memory.oom_control"),
    }
}

fn blkio(dir: &Dir) -> BlkIo {
    let list = |file: &str| parse_blkio(&dir.peek(file).unwrap_or_default());
    // The scheduler's own counts where it has any, else those of the throttle.
    let counted = |name: &str| {
        let scheduler = [format!("blkio.bfq.{name}_recursive"), format!("blkio.{name}_recursive")];
        let found = scheduler.iter().map(|f| list(f)).find(|l| l.iter().any(|e| e.value != 0));
        found.unwrap_or_else(|| list(&format!("blkio.throttle.{name}_recursive")))
    };
    let own = |name: &str| {
        let found = list(&format!("blkio.bfq.{name}_recursive"));
        if found.is_empty() {
            list(&format!("blkio.{name}_recursive"))
        } else {
            found
        }
    };
    BlkIo {
        service_bytes: counted("io_service_bytes"),
        serviced: counted("io_serviced"),
        queued: own("io_queued"),
        service_time: own("io_service_time"),
        wait_time: own("io_wait_time"),
        merged: own("io_merged"),
        time: own("time"),
        sectors: own("sectors"),
    }
}

/// `8:0 Read 100`, or `8:0 100`; the sum over all devices is left out.
fn parse_blkio(text: &str) -> Vec<Entry> {
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let (major, minor) = device(&mut words)?;
        let (first, second) = (words.next()?, words.next());
        let (op, value) = second.map_or(("", first), |value| (first, value));
        Some(Entry { major, minor, op: op.to_string(), value: value.parse().ok()? })
    };
    text.lines().filter_map(line).collect()
}

fn hugetlb(dir: &Dir) -> BTreeMap<String, HugePages> {
    let read = |size: String| {
        let get = |name: &str| number(Some(dir), &format!("hugetlb.{size}.{name}"));
        let pages = HugePages {
            usage: get("usage_in_bytes"),
            max: get("max_usage_in_bytes"),
            failcnt: get("failcnt"),
        };
        (size, pages)
    };
    page_sizes(dir, ".usage_in_bytes").into_iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_counters() {
        let got = parse_blkio("8:0 Read 10\n8:0 Total 12\n7:1 5\nTotal 27\n");
        assert_eq!(got.len(), 3);
        assert_eq!(got[1], Entry { major: 8, minor: 0, op: "Total".into(), value: 12 });
        assert_eq!(got[2], Entry { major: 7, minor: 1, op: "".into(), value: 5 });
    }
}
