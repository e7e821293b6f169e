//! Attributes that few containers ask for: those of the scheduler and the memory, keyrings, network devices, the
//! seccomp agent; and what is refused of them before anything is touched.

use integration::console::receive_fds;
use integration::{differs, eventually, host, peer, skip, Container, Peer, Run};
use serde_json::{json, Value};
use std::fs;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

const ALLOWED: &str = "grep Cpus_allowed_list /proc/self/status | cut -f2";

fn cpus() -> usize {
    let text = fs::read_to_string("/proc/self/status").unwrap();
    let mask = text.lines().find_map(|l| l.strip_prefix("Cpus_allowed:\t")).unwrap();
    mask.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit.count_ones() as usize).sum()
}

#[test]
fn the_callers_cpu_affinity_is_not_inherited() {
    if cpus() < 2 {
        skip!("one CPU has no affinity");
    }
    differs!(Runc, "1.1 passes the affinity of its caller on");
    differs!(Crun, "1.8.1 passes the affinity of its caller on");
    let c = Container::sh("affinity", ALLOWED);
    c.bundle.write();
    let line = format!(
        "exec taskset -c 0 {} --root {} run --bundle {} {}",
        host::runtime().display(),
        c.root.display(),
        c.bundle.dir.display(),
        c.id
    );
    let narrow = Run::sh(&line).ok().stdout;
    assert_ne!(narrow.trim(), "0");
}

#[test]
fn exec_has_its_own_cpu_affinity() {
    if cpus() < 2 {
        skip!("one CPU has no affinity");
    }
    differs!(Runc, "1.1 knows none");
    differs!(Crun, "1.8.1 knows none");
    let c = Container::sleeping("execaffinity").up();
    let ask = |affinity: Value| {
        c.exec_process(&[], |p| {
            p["args"] = json!(["sh", "-c", ALLOWED]);
            p["execCPUAffinity"] = affinity;
        })
    };
    ask(json!({ "final": "1" })).ok().says("1");
    let initial = ask(json!({ "initial": "0" })).ok();
    // Linux before 6.2 gives who enters a cpuset all of its CPUs, and a final list was not asked for.
    if !host::kernel_before(6, 2) {
        initial.says("0");
    }
    ask(json!({ "initial": "0", "final": "1" })).ok().says("1");
    ask(json!({ "final": "x" })).fails_with("CPUAffinity");
}

#[test]
fn a_memory_policy_binds() {
    differs!(Runc, "1.1 knows none");
    differs!(Crun, "1.8.1 knows none");
    if !Path::new("/proc/self/numa_maps").exists() {
        skip!("this kernel has no CONFIG_NUMA");
    }
    let c = Container::new("mempolicy").args(&["grep", "-m1", "-o", "bind[=a-z]*:0", "/proc/self/numa_maps"]);
    let c = c.with(|c| {
        c["linux"]["memoryPolicy"] =
            json!({ "mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"] });
    });
    c.run().ok().says("bind=static:0");
}

#[test]
fn a_session_keyring_of_its_own() {
    if !Path::new("/proc/keys").exists() {
        skip!("this kernel has no CONFIG_KEYS");
    }
    differs!(Crun, "names the keyring otherwise");
    let keys = |c: Container| c.with(|c| c["linux"]["maskedPaths"] = json!([]));
    let c = keys(Container::sleeping("keyring")).up();
    let name = format!("_ses.{}", c.id);
    let seen = c.exec(&["cat", "/proc/keys"]).ok().stdout;
    assert!(seen.contains(&name), "{seen}");
    let c = keys(Container::sleeping("nokeyring"));
    c.create_with(&["--no-new-keyring"]).ok();
    c.start().ok();
    let seen = c.exec(&["cat", "/proc/keys"]).ok().stdout;
    assert!(!seen.contains(&format!("_ses.{}", c.id)), "{seen}");
}

#[test]
fn clocks_are_shifted() {
    differs!(Runc, "1.1 knows no time namespaces");
    differs!(Crun, "1.8.1 takes other names");
    let c = Container::sh("time", "cut -d. -f1 /proc/uptime").namespace("time", None).with(|c| {
        c["linux"]["timeOffsets"] = json!({ "boottime": { "secs": 100_000_000, "nanosecs": 0 } });
    });
    let uptime: u64 = c.run().ok().stdout.trim().parse().unwrap();
    assert!(uptime > 100_000_000, "{uptime}");
}

#[test]
fn sysctls_are_the_containers_own() {
    let script = "cat /proc/sys/net/core/somaxconn /proc/sys/kernel/msgmax /proc/sys/net/ipv4/ip_unprivileged_port_start";
    let c = Container::sh("sysctl", script).with(|c| {
        c["linux"]["sysctl"] =
            json!({ "net.core.somaxconn": "777", "kernel.msgmax": "4711", "net.ipv4.ip_unprivileged_port_start": "0" });
    });
    let before = fs::read_to_string("/proc/sys/kernel/msgmax").unwrap();
    c.run().ok().says("777\n4711\n0");
    assert_eq!(fs::read_to_string("/proc/sys/kernel/msgmax").unwrap(), before);
}

/// A pair of devices of the host, gone again when dropped.
struct Pair(String, String);

impl Pair {
    fn new() -> Pair {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        // At most 15 bytes, and several tests at once.
        let n = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let id = format!("{}{}", std::process::id(), char::from(b'g' + (n % 20) as u8));
        let pair = Pair(format!("hta{id}"), format!("htb{id}"));
        Run::sh(&format!("ip link add {} type veth peer name {}", pair.0, pair.1)).ok();
        pair
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        let _ = Run::sh(&format!(
            "ip link delete {} 2>/dev/null; ip link delete {} 2>/dev/null; true",
            self.0, self.1
        ))
        .out();
    }
}

/// The process that joins the user namespace has made the container's by the time at which its score is set.
#[test]
fn the_oom_score_is_that_of_who_joins_a_user_namespace() {
    if peer() != Peer::Hydra || host::lacks(&["clone3"]) {
        skip!("by strace, in the calls of this runtime");
    }
    let c = Container::sleeping("oomexec").user_namespace().up();
    let file = c.bundle.dir.join("process.json");
    let mut process = c.bundle.config["process"].clone();
    process["oomScoreAdj"] = 500.into();
    process["args"] = json!(["cat", "/proc/self/oom_score_adj"]);
    fs::write(&file, process.to_string()).unwrap();
    let slow = |c: &Container| {
        let args = ["-f", "-q", "-o", "/dev/null", "-e", "trace=clone3", "-e"];
        let run = Run::new("strace").args(args).args(["inject=clone3:delay_exit=300000:when=1"]);
        let run = run.args([host::runtime()]).args(["--root"]).args([&c.root]);
        run.args(host::systemd_driver().then_some("--systemd-cgroup"))
    };
    let out = slow(&c).args(["exec", "--process"]).args([&file]).args([&c.id]).out().ok();
    assert_eq!(out.stdout.trim(), "500");
    let mut joins = Container::new("oomjoins").args(&["cat", "/proc/self/oom_score_adj"]).user_namespace();
    for kind in ["user", "pid"] {
        joins = joins.namespace(kind, Some(&format!("/proc/{}/ns/{kind}", c.pid())));
    }
    let joins = joins.with(|config| {
        config["process"]["oomScoreAdj"] = 700.into();
        // Looking at those of the other would be the first clone.
        let linux = config["linux"].as_object_mut().unwrap();
        linux.retain(|key, _| !key.ends_with("idMappings"));
    });
    joins.bundle.write();
    let out = slow(&joins).args(["run", "--bundle"]).args([&joins.bundle.dir]).args([&joins.id]).out().ok();
    assert_eq!(out.stdout.trim(), "700");
}

/// Whoever enters a container has closed the log by the time at which there is something to say.
#[test]
fn what_an_exec_could_not_have_is_in_the_log() {
    if peer() != Peer::Hydra {
        skip!("by strace, in the calls of this runtime");
    }
    let c = Container::sleeping("execwarns").up();
    for (call, error, words) in [
        ("keyctl", "ENOSYS", "no session keyring"),
        ("sched_setaffinity", "EPERM", "resetting the CPU affinity failed"),
    ] {
        let log = c.bundle.dir.join(call);
        let args = ["-f", "-q", "-o", "/dev/null", "-e", &format!("trace={call}"), "-e"].map(str::to_string);
        let run = Run::new("strace").args(args).args([format!("inject={call}:error={error}")]);
        let run = run.args([host::runtime()]).args(["--root"]).args([&c.root]).args(["--log"]).args([&log]);
        let run = run.args(host::systemd_driver().then_some("--systemd-cgroup"));
        run.args(["exec", &c.id, "true"]).ok();
        let log = fs::read_to_string(log).unwrap();
        assert!(log.lines().count() == 1 && log.contains("level=warning") && log.contains(words), "{log}");
    }
}

#[test]
fn network_devices_are_moved() {
    differs!(Runc, "1.1 knows none");
    differs!(Crun, "1.8.1 knows none");
    let pair = Pair::new();
    Run::sh(&format!("ip address add 192.0.2.77/24 dev {0} && ip link set {0} up", pair.0)).ok();
    let c = Container::sh("netdev", "ip address show dev eth7").with(|c| {
        c["linux"]["netDevices"] = json!({ pair.0.as_str(): { "name": "eth7" } });
    });
    let out = c.run().ok().stdout;
    assert!(out.contains("192.0.2.77/24") && out.contains(",UP"), "{out}");
    // It goes with the network namespace, as the kernel has it; nobody moves it back.
    eventually("the namespace is gone", || !Path::new("/sys/class/net").join(&pair.1).exists());
    assert!(!Path::new("/sys/class/net").join(&pair.0).exists());
    let absent = Container::new("nonetdev").with(|c| c["linux"]["netDevices"] = json!({ "nosuchdev": {} }));
    absent.run().fails_with("nosuchdev");
    eventually("nothing is left", || absent.leftovers().is_empty());
}

#[test]
fn network_devices_come_back_from_a_container_that_fails() {
    differs!(Runc, "1.1 knows none");
    differs!(Crun, "1.8.1 knows none");
    let pair = Pair::new();
    Run::sh(&format!("ip address add 192.0.2.78/24 dev {0} && ip link set {0} up", pair.0)).ok();
    let other = Container::sleeping("netdevother").up();
    let joined = format!("/proc/{}/ns/net", other.pid());
    for namespace in [None, Some(joined.as_str())] {
        let c = Container::new("netdevfails").args(&["/bin/nonexistent"]).namespace("network", namespace);
        let c = c.with(|c| c["linux"]["netDevices"] = json!({ pair.0.as_str(): { "name": "eth7" } }));
        c.create().fails_with("nonexistent");
        let out = Run::sh(&format!("ip address show dev {}", pair.0)).ok().stdout;
        assert!(out.contains("192.0.2.78/24") && out.contains(",UP"), "{namespace:?}: {out}");
        assert_eq!(c.leftovers(), Vec::<String>::new());
    }
    other.exec(&["ip", "link", "show", "dev", "eth7"]).fails();
}

#[test]
fn a_seccomp_agent_gets_the_listener() {
    let c = Container::sh("agent", "mkdir /tmp/x 2>&1");
    c.bundle.write();
    let path = c.bundle.dir.join("agent.sock");
    let agent = UnixListener::bind(&path).unwrap();
    // sendmsg too: nothing that the runtime itself has to do may hang on the agent.
    let c = c.with(|c| {
        c["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path, "listenerMetadata": "opaque",
            "syscalls": [{ "names": ["mkdir", "mkdirat", "sendmsg"], "action": "SCMP_ACT_NOTIFY" }]
        });
    });
    if host::lacks(&["cgroup.kill", "clone_into_cgroup", "setns_pidfd"]) {
        skip!("a process has one seccomp agent, and here that is `without`");
    }
    if host::lacks(&["pidfd"]) {
        c.run().fails_with("Linux 5.6");
        return;
    }
    let running = c.running(&[]);
    let mut connection = agent.accept().unwrap().0;
    let (fds, told) = receive_fds(&connection);
    // runc 1.1 and crun 1.8 leave it open until they end themselves.
    if peer() == Peer::Hydra {
        let mut more = Vec::new();
        connection.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        connection.read_to_end(&mut more).expect("the connection is closed");
        assert!(more.is_empty(), "one state a connection: {more:?}");
    }
    let told: Value = serde_json::from_str(&told).unwrap();
    let [listener] = fds.try_into().expect("one descriptor");
    let link = fs::read_link(format!("/proc/self/fd/{}", listener.as_raw_fd())).unwrap();
    assert_eq!(link.to_str(), Some("anon_inode:seccomp notify"));
    assert_eq!((&told["fds"], &told["metadata"]), (&json!(["seccompFd"]), &json!("opaque")));
    assert_eq!((&told["state"]["id"], &told["state"]["status"]), (&json!(c.id), &json!("creating")));
    assert_eq!(told["pid"], told["state"]["pid"]);
    assert!(told["pid"].as_i64().unwrap() > 1 && told["ociVersion"].is_string(), "{told}");
    // An agent that goes away: the kernel answers for it.
    drop(listener);
    let out = running.out();
    assert!(out.stdout.contains("Function not implemented"), "{out}");
}

#[test]
fn impossible_wishes_are_refused_by_name() {
    differs!(Runc, "1.1 knows half of them");
    differs!(Crun, "has other words");
    let wishes: &[(&str, Value, &str)] = &[
        ("/process/rlimits", json!([{ "type": "RLIMIT_NOSUCH", "soft": 1, "hard": 1 }]), "RLIMIT_NOSUCH"),
        ("/process/scheduler", json!({ "policy": "SCHED_NOSUCH" }), "SCHED_NOSUCH"),
        ("/process/scheduler", json!({ "policy": "SCHED_OTHER", "nice": 77 }), "scheduler.nice: 77"),
        ("/process/ioPriority", json!({ "class": "IOPRIO_NOSUCH", "priority": 1 }), "IOPRIO_NOSUCH"),
        ("/process/oomScoreAdj", json!(1001), "1001"),
        ("/linux/memoryPolicy", json!({ "mode": "MPOL_NOSUCH" }), "MPOL_NOSUCH"),
        ("/linux/personality", json!({ "domain": "NOSUCH" }), "NOSUCH"),
        ("/linux/sysctl", json!({ "kernel.panic": "1" }), "kernel.panic"),
        ("/linux/sysctl", json!({ "net.//.//.kernel.panic": "1" }), "net."),
        ("/linux/timeOffsets", json!({ "boottime": { "secs": 1 } }), "time"),
        ("/linux/netDevices", json!({ "a/b": {} }), "a/b"),
        ("/linux/seccomp", json!({ "defaultAction": "SCMP_ACT_NOSUCH" }), "SCMP_ACT_NOSUCH"),
        ("/linux/seccomp", json!({ "defaultAction": "SCMP_ACT_ALLOW", "flags": ["NOSUCH"] }), "NOSUCH"),
    ];
    for (place, wish, word) in wishes {
        let c = Container::new("wish").with(|c| {
            let (object, key) = place.rsplit_once('/').unwrap();
            c.pointer_mut(object).unwrap()[key] = wish.clone();
        });
        c.create().fails_with(word);
        assert!(c.leftovers().is_empty(), "{place} {wish}: {:?}", c.leftovers());
    }
    if !Path::new("/sys/fs/resctrl/schemata").exists() {
        let c = Container::new("rdt").with(|c| c["linux"]["intelRdt"] = json!({ "closID": "x" }));
        c.create().fails_with("Intel RDT");
    }
}

/// What the kernel lacks is refused by name, not passed over.
#[test]
fn labels_that_this_kernel_cannot_enforce_are_refused() {
    differs!(Runc, "1.1 passes some of them over");
    differs!(Crun, "has other words");
    let on = |file: &str| Path::new(file).exists();
    let lacking = [
        (on("/sys/kernel/security/apparmor"), "/process/apparmorProfile", "apparmor"),
        (on("/sys/fs/selinux/enforce"), "/process/selinuxLabel", "selinux"),
        (on("/sys/fs/selinux/enforce"), "/linux/mountLabel", "selinux"),
    ];
    for (there, place, word) in lacking {
        let c = Container::new("label").with(|c| {
            let (object, key) = place.rsplit_once('/').unwrap();
            c.pointer_mut(object).unwrap()[key] = "some-label".into();
        });
        if there {
            continue;
        }
        let out = c.create().fails();
        assert!(out.stderr.to_lowercase().contains(word), "{place}: {out}");
        assert_eq!(c.leftovers(), Vec::<String>::new());
    }
}

#[test]
fn an_selinux_label_is_the_processs() {
    if !Path::new("/sys/fs/selinux/enforce").exists() {
        skip!("this kernel has no SELinux");
    }
    let own = fs::read_to_string("/proc/self/attr/current").unwrap().trim_end_matches('\0').to_string();
    let c = Container::sh("selinux", "cat /proc/self/attr/current")
        .with(|c| c["process"]["selinuxLabel"] = own.clone().into());
    let out = c.run().ok();
    assert_eq!(out.stdout.trim_end_matches(['\0', '\n']), own);
}

#[test]
fn a_resctrl_group_is_made_and_taken_away() {
    let root = Path::new("/sys/fs/resctrl");
    if !root.join("schemata").exists() {
        skip!("resctrl is not mounted here");
    }
    let c = Container::sleeping("resctrl");
    let clos = format!("hydra-{}", c.id);
    let c = c.with(|c| c["linux"]["intelRdt"] = json!({ "closID": clos })).up();
    let tasks = fs::read_to_string(root.join(&clos).join("tasks")).unwrap();
    assert!(tasks.lines().any(|l| l == c.pid().to_string()), "{tasks}");
    let schemata = || fs::read_to_string(root.join(&clos).join("schemata")).unwrap();
    let before = schemata();
    if let Some(line) = before.lines().map(str::trim).find(|l| l.starts_with("L3:")) {
        let (domain, mask) =
            line.trim_start_matches("L3:").split(';').next().unwrap().split_once('=').unwrap();
        let half = u64::from_str_radix(mask, 16).unwrap() >> 1;
        c.verb(&["update", "--l3-cache-schema", &format!("L3:{domain}={half:x}"), &c.id]).ok();
        assert_ne!(schemata(), before);
    }
    let stats = c.verb(&["events", "--stats", &c.id]).ok().json();
    assert_eq!(
        stats["data"]["intel_rdt"]["schemata"].as_array().unwrap().len(),
        before.lines().count(),
        "{stats}"
    );
    c.delete_force().ok();
    assert!(!root.join(&clos).exists());
}

#[test]
fn schemata_are_refused_where_there_is_no_resctrl() {
    if Path::new("/sys/fs/resctrl/schemata").exists() {
        skip!("this machine has resctrl");
    }
    let c = Container::sleeping("schemata")
        .with(|c| c["linux"]["resources"] = json!({ "pids": { "limit": 90 } }))
        .up();
    for schema in ["--l3-cache-schema=L3:0=f", "--mem-bw-schema=MB:0=20"] {
        c.verb(&["update", "--pids-limit=50", schema, &c.id]).fails();
        assert_eq!(c.cgroup_file("pids", "pids.max").as_deref(), Some("90"), "{schema}");
    }
}

#[test]
fn every_mount_flag_reaches_the_mount() {
    let flags = [
        ("noatime", "noatime"),
        ("nodiratime", "nodiratime"),
        ("relatime", "relatime"),
        ("nosymfollow", "nosymfollow"),
        ("nosuid", "nosuid"),
        ("nodev", "nodev"),
        ("noexec", "noexec"),
        ("ro", "ro"),
        ("sync", "sync"),
        ("dirsync", "dirsync"),
    ];
    for (given, shown) in flags {
        if given == "nosymfollow" && peer() != Peer::Hydra {
            continue;
        }
        let c = Container::new("mountflag").args(&["grep", " /mnt ", "/proc/self/mountinfo"]);
        let out = c.mount(integration::bundle::mount("/mnt", "tmpfs", "tmpfs", &[given])).run().ok();
        assert!(out.stdout.split([' ', ',', '\n']).any(|w| w == shown), "{given}: {out}");
    }
    // On a bind of something else's, a flag can be set and cleared, for the mount or for the tree.
    differs!(Runc, "1.1 knows half of the recursive ones");
    differs!(Crun, "1.8.1 knows half of the recursive ones");
    let recursive = [
        ("rro", "ro"),
        ("rnosuid", "nosuid"),
        ("rnodev", "nodev"),
        ("rnoexec", "noexec"),
        ("rnodiratime", "nodiratime"),
        ("rnoatime", "noatime"),
        ("rnosymfollow", "nosymfollow"),
    ];
    for (given, shown) in recursive {
        let c = Container::new("mountattr").args(&["grep", " /mnt", "/proc/self/mountinfo"]);
        let source = c.bundle.dir.join("source");
        fs::create_dir_all(source.join("sub")).unwrap();
        Run::new("mount").args(["-t", "tmpfs", "tmpfs"]).args([source.join("sub")]).ok();
        let source = source.to_str().unwrap().to_string();
        let c = c.mount(integration::bundle::mount("/mnt", "bind", &source, &["rbind", given]));
        if host::lacks(&["mount_setattr"]) {
            c.run().fails_with("Linux 5.12");
            continue;
        }
        let out = c.run().ok();
        let lines: Vec<_> = out.stdout.lines().map(|l| l.split(' ').nth(5).unwrap()).collect();
        assert!(lines.len() == 2 && lines.iter().all(|l| l.split(',').any(|w| w == shown)), "{given}: {out}");
    }
}
