//! What each part of `linux.resources` comes to, in the files of v1 and of v2, side by side.

use std::collections::HashMap;

use cgroup::layout::Version;
use cgroup::write::{plan, Facts};
use cgroup::{Kind, Plan};

struct Host<'a> {
    version: Version,
    /// Present texts of files; `None` for a cgroup that was just made.
    files: Option<&'a [(&'a str, &'a str)]>,
    /// Present also in a cgroup that was just made.
    exist: &'a [&'a str],
}

fn ask(host: &Host<'_>, json: &str) -> cgroup::Result<Plan> {
    let files: HashMap<&str, &str> = host.files.unwrap_or(&[]).iter().copied().collect();
    let read = |_: &str, file: &str| match files.get(file) {
        Some(text) => Some(text.to_string()),
        None => host.exist.contains(&file).then(|| "0".to_string()),
    };
    let version = |controller: &str| {
        let v1 = ["blkio", "net_cls", "net_prio"].contains(&controller);
        let v2 = ["io", "misc"].contains(&controller);
        match host.version {
            Version::V1 if v2 => None,
            Version::V2 if v1 => None,
            version => (controller != "absent").then_some(version),
        }
    };
    let facts = Facts { version: &version, read: &read, fresh: host.files.is_none() };
    plan(&serde_json::from_str(json).unwrap(), &facts)
}

const V1: Host<'_> = Host { version: Version::V1, files: None, exist: &[] };
const V2: Host<'_> = Host { version: Version::V2, files: None, exist: &[] };

fn lines(host: &Host<'_>, json: &str) -> Vec<String> {
    let plan = ask(host, json).unwrap_or_else(|e| panic!("{json}: {e}"));
    plan.writes.iter().map(|w| format!("{}={}", w.file, w.value)).collect()
}

fn both(json: &str, v1: &[&str], v2: &[&str]) {
    assert_eq!(lines(&V1, json), v1, "v1: {json}");
    assert_eq!(lines(&V2, json), v2, "v2: {json}");
}

#[test]
fn memory() {
    both(r#"{"memory":{"limit":4096}}"#, &["memory.limit_in_bytes=4096"], &["memory.max=4096"]);
    both(r#"{"memory":{"limit":0,"swap":0}}"#, &[], &[]);
    both(
        r#"{"memory":{"limit":4096,"swap":6144,"reservation":1024}}"#,
        &[
            "memory.limit_in_bytes=4096",
            "memory.memsw.limit_in_bytes=6144",
            "memory.soft_limit_in_bytes=1024",
        ],
        &["memory.swap.max=2048", "memory.max=4096", "memory.low=1024"],
    );
    both(
        r#"{"memory":{"limit":4096,"swap":-1}}"#,
        &["memory.limit_in_bytes=4096", "memory.memsw.limit_in_bytes=-1"],
        &["memory.swap.max=max", "memory.max=4096"],
    );
    both(
        r#"{"memory":{"limit":-1}}"#,
        &["memory.limit_in_bytes=-1"],
        &["memory.swap.max=max", "memory.max=max"],
    );
    both(
        r#"{"memory":{"swappiness":60,"disableOOMKiller":true,"kernelTCP":5}}"#,
        &["memory.kmem.tcp.limit_in_bytes=5", "memory.swappiness=60", "memory.oom_control=1"],
        &[],
    );
    assert_eq!(
        ask(&V2, r#"{"memory":{"swappiness":60,"disableOOMKiller":true}}"#).unwrap().warnings.len(),
        2
    );
}

#[test]
fn memory_and_swap_change_in_the_order_that_works() {
    let host = |sum| Host { version: Version::V1, files: Some(sum), exist: &[] };
    let now = [("memory.memsw.limit_in_bytes", "5000\n")];
    let (grow, shrink) =
        (r#"{"memory":{"limit":6000,"swap":7000}}"#, r#"{"memory":{"limit":100,"swap":200}}"#);
    assert_eq!(lines(&host(&now), grow), ["memory.memsw.limit_in_bytes=7000", "memory.limit_in_bytes=6000"]);
    assert_eq!(lines(&host(&now), shrink), ["memory.limit_in_bytes=100", "memory.memsw.limit_in_bytes=200"]);
    let lift = r#"{"memory":{"limit":-1}}"#;
    assert_eq!(lines(&host(&now), lift), ["memory.memsw.limit_in_bytes=-1", "memory.limit_in_bytes=-1"]);
}

#[test]
fn cpu() {
    both(
        r#"{"cpu":{"shares":1024,"quota":50000,"period":100000,"burst":1000,"cpus":"0-1","mems":"0"}}"#,
        &[
            "cpu.shares=1024",
            "cpu.cfs_period_us=100000",
            "cpu.cfs_quota_us=50000",
            "cpu.cfs_burst_us=1000",
            "cpuset.cpus=0-1",
            "cpuset.mems=0",
        ],
        &["cpu.weight=100", "cpu.max=50000 100000", "cpu.max.burst=1000", "cpuset.cpus=0-1", "cpuset.mems=0"],
    );
    both(r#"{"cpu":{"quota":-1}}"#, &["cpu.cfs_quota_us=-1"], &["cpu.max=max 100000"]);
    both(r#"{"cpu":{"period":5000}}"#, &["cpu.cfs_period_us=5000"], &["cpu.max=max 5000"]);
    both(r#"{"cpu":{"shares":0,"quota":0,"period":0,"cpus":"","idle":0}}"#, &[], &[]);
    both(r#"{"cpu":{"idle":1,"shares":512}}"#, &["cpu.idle=1"], &["cpu.idle=1"]);
    both(
        r#"{"cpu":{"realtimePeriod":1000000,"realtimeRuntime":950000}}"#,
        &["cpu.rt_period_us=1000000", "cpu.rt_runtime_us=950000"],
        &[],
    );
    // A shorter period goes after the quota, or the share in between would exceed the parent's.
    assert_eq!(
        lines(&V1, r#"{"cpu":{"quota":5000,"period":10000}}"#),
        ["cpu.cfs_quota_us=5000", "cpu.cfs_period_us=10000"]
    );
}

#[test]
fn a_burst_never_exceeds_the_quota() {
    let json = r#"{"cpu":{"quota":5000,"burst":1000}}"#;
    let v1 = [("cpu.cfs_burst_us", "9000"), ("cpu.cfs_period_us", "100000")];
    let host = Host { version: Version::V1, files: Some(&v1), exist: &[] };
    assert_eq!(lines(&host, json), ["cpu.cfs_burst_us=1000", "cpu.cfs_quota_us=5000"]);
    let host = Host { version: Version::V2, files: Some(&[("cpu.max.burst", "9000")]), exist: &[] };
    assert_eq!(lines(&host, json), ["cpu.max.burst=1000", "cpu.max=5000 100000"]);
}

#[test]
fn shares_become_weights_as_in_runc() {
    for (shares, weight) in [(2, 1), (512, 59), (1024, 100), (2048, 174), (262_144, 10_000)] {
        assert_eq!(cgroup::v2::weight_of_shares(shares), weight, "{shares}");
    }
}

#[test]
fn pids() {
    both(r#"{"pids":{"limit":0}}"#, &["pids.max=0"], &["pids.max=0"]);
    both(r#"{"pids":{"limit":-1}}"#, &["pids.max=max"], &["pids.max=max"]);
    both(r#"{"pids":{}}"#, &[], &[]);
}

#[test]
fn block_io() {
    let json = r#"{"blockIO":{"weight":500,"weightDevice":[{"major":8,"minor":0,"weight":10}],
        "throttleReadBpsDevice":[{"major":8,"minor":0,"rate":100},{"major":8,"minor":16,"rate":0}],
        "throttleWriteBpsDevice":[{"major":8,"minor":0,"rate":200}],
        "throttleReadIOPSDevice":[{"major":8,"minor":0,"rate":3}],
        "throttleWriteIOPSDevice":[{"major":8,"minor":16,"rate":4}]}}"#;
    both(
        json,
        &[
            "blkio.bfq.weight=500",
            "blkio.bfq.weight_device=8:0 10",
            "blkio.throttle.read_bps_device=8:0 100",
            "blkio.throttle.read_bps_device=8:16 0",
            "blkio.throttle.write_bps_device=8:0 200",
            "blkio.throttle.read_iops_device=8:0 3",
            "blkio.throttle.write_iops_device=8:16 4",
        ],
        &[
            "io.weight=4950",
            "io.weight=8:0 1",
            "io.max=8:0 rbps=100 wbps=200 riops=3 wiops=max",
            "io.max=8:16 rbps=max wbps=max riops=max wiops=4",
        ],
    );
    let bfq = Host { exist: &["io.bfq.weight"], ..V2 };
    assert_eq!(lines(&bfq, r#"{"blockIO":{"weight":500}}"#), ["io.bfq.weight=500"]);
    let cfq = Host { exist: &["blkio.weight"], ..V1 };
    let json = r#"{"blockIO":{"weight":500,"leafWeight":20}}"#;
    assert_eq!(lines(&cfq, json), ["blkio.weight=500", "blkio.leaf_weight=20"]);
    both(r#"{"blockIO":{"weight":0}}"#, &[], &[]);
}

#[test]
fn the_rest() {
    both(
        r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4194304}]}"#,
        &["hugetlb.2MB.limit_in_bytes=4194304", "hugetlb.2MB.rsvd.limit_in_bytes=4194304"],
        &["hugetlb.2MB.max=4194304", "hugetlb.2MB.rsvd.max=4194304"],
    );
    let rdma = ["rdma.max=mlx5_0 hca_handle=3 hca_object=4", "rdma.max=mlx5_1 hca_object=5"];
    let json = r#"{"rdma":{"mlx5_0":{"hcaHandles":3,"hcaObjects":4},"mlx5_1":{"hcaObjects":5}}}"#;
    both(json, &rdma, &rdma);
    both(
        r#"{"network":{"classID":65552,"priorities":[{"name":"eth0","priority":7}]}}"#,
        &["net_cls.classid=65552", "net_prio.ifpriomap=eth0 7"],
        &[],
    );
    assert_eq!(
        lines(
            &V2,
            r#"{"unified":{"memory.high":"5","io.latency":"8:0 target=1\n8:16 target=2\n","cgroup.max.depth":"3"}}"#
        ),
        ["cgroup.max.depth=3", "io.latency=8:0 target=1", "io.latency=8:16 target=2", "memory.high=5"]
    );
}

#[test]
fn what_is_wrong_is_refused_by_name() {
    let wrong = [
        (r#"{"memory":{"limit":-5}}"#, "memory.limit"),
        (r#"{"memory":{"limit":100,"swap":50}}"#, "memory.swap"),
        (r#"{"memory":{"limit":-1,"swap":50}}"#, "memory.swap"),
        (r#"{"cpu":{"shares":1}}"#, "minimum allowed cpu-shares is 2"),
        (r#"{"cpu":{"shares":262145}}"#, "maximum allowed cpu-shares is 262144"),
        (r#"{"cpu":{"idle":2}}"#, "cpu.idle"),
        (r#"{"cpu":{"cpus":"3-1"}}"#, "cpu.cpus"),
        (r#"{"cpu":{"mems":"a"}}"#, "cpu.mems"),
        (r#"{"blockIO":{"weight":5}}"#, "blockIO.weight"),
        (
            r#"{"blockIO":{"throttleReadBpsDevice":[{"major":-8,"minor":0,"rate":1}]}}"#,
            "throttleReadBpsDevice",
        ),
        (r#"{"hugepageLimits":[{"pageSize":"../2MB","limit":1}]}"#, "hugepageLimits"),
        (r#"{"rdma":{"a b":{"hcaHandles":1}}}"#, "rdma"),
        (r#"{"network":{"priorities":[{"name":"a/b","priority":1}]}}"#, "network.priorities"),
        (r#"{"unified":{"../x.y":"1"}}"#, "unified"),
        (r#"{"unified":{"memory":"1"}}"#, "unified"),
        (r#"{"unified":{"cgroup.procs":"1"}}"#, "unified"),
    ];
    for (json, name) in wrong {
        for host in [&V1, &V2] {
            let e = ask(host, json).expect_err(json);
            assert_eq!(e.kind(), Kind::Invalid, "{json}: {e}");
            assert!(e.to_string().contains(name), "{json}: {e}");
        }
    }
}

#[test]
fn what_the_host_lacks_is_refused_by_name() {
    let e = ask(&V2, r#"{"unified":{"absent.max":"1"}}"#).unwrap_err();
    assert!(e.kind() == Kind::Unsupported && e.to_string().contains("absent"), "{e}");
    let bare = |controller: &str| (controller == "memory").then_some(Version::V1);
    let facts = Facts { version: &bare, read: &|_, _| None, fresh: true };
    for (json, field) in [
        (r#"{"network":{"classID":7}}"#, "network.classID"),
        (r#"{"network":{"priorities":[{"name":"eth0","priority":7}]}}"#, "network.priorities"),
        (r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4194304}]}"#, "hugepageLimits"),
        (r#"{"pids":{"limit":7}}"#, "pids.limit"),
    ] {
        let e = plan(&serde_json::from_str(json).unwrap(), &facts).expect_err(json);
        assert!(e.kind() == Kind::Unsupported && e.to_string().contains(field), "{json}: {e}");
    }
    let e = ask(&V1, r#"{"unified":{"memory.max":"1"}}"#).unwrap_err();
    assert!(e.kind() == Kind::Unsupported && e.to_string().contains("cgroup v1"), "{e}");
}

#[test]
fn a_limit_below_the_usage_is_refused_when_asked() {
    let host = Host { version: Version::V2, files: Some(&[("memory.current", "500")]), exist: &[] };
    let e = ask(&host, r#"{"memory":{"limit":100,"checkBeforeUpdate":true}}"#).unwrap_err();
    assert_eq!(e.to_string(), "rejecting memory limit 100 < usage 500");
    assert_eq!(lines(&host, r#"{"memory":{"limit":100}}"#), ["memory.max=100"]);
}
