//! Valid configurations, each decided by one number: what both peers of Debian 12 can do, in every mixture.

use integration::bundle::{config, mount};
use serde_json::{json, Value};

/// A configuration in which `BUNDLE` stands for the bundle's path.
pub struct Case {
    pub config: Value,
}

/// SplitMix64.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// True in so many of a hundred.
    fn percent(&mut self, n: usize) -> bool {
        self.below(100) < n
    }

    fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    /// Each with a chance of so many of a hundred.
    fn some<'a, T>(&mut self, of: &'a [T], percent: usize) -> Vec<&'a T> {
        of.iter().filter(|_| self.percent(percent)).collect()
    }
}

pub fn generate(r: &mut Random, id: &str, holder: i32) -> Case {
    let mut c = config(id);
    let mapped = r.percent(12);
    namespaces(r, &mut c, holder, mapped);
    process(r, &mut c, mapped);
    capabilities(r, &mut c);
    mounts(r, &mut c, mapped);
    paths(r, &mut c);
    resources(r, &mut c);
    devices(r, &mut c, mapped);
    let keys = sysctls(r, &mut c);
    if r.percent(50) {
        c["linux"]["seccomp"] = seccomp(r);
    }
    let mut args = vec!["/probe".to_string(), own_namespaces()];
    args.extend(keys);
    c["process"]["args"] = json!(args);
    Case { config: c }
}

/// The namespaces of this process, for the probe.
fn own_namespaces() -> String {
    let mut all = Vec::new();
    for name in
        ["cgroup", "ipc", "mnt", "net", "pid", "pid_for_children", "time", "time_for_children", "user", "uts"]
    {
        let link = std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap_or_default();
        let link = link.to_string_lossy().into_owned();
        all.push(format!("{name}={}", link.split(['[', ']']).nth(1).unwrap_or_default()));
    }
    all.join(",")
}

fn namespaces(r: &mut Random, c: &mut Value, holder: i32, mapped: bool) {
    let mut list = vec![json!({ "type": "mount" })];
    for (kind, file) in [("network", Some("net")), ("ipc", Some("ipc")), ("uts", Some("uts")), ("pid", None)]
    {
        match file {
            Some(file) if !mapped && r.percent(10) => {
                list.push(json!({ "type": kind, "path": format!("/proc/{holder}/ns/{file}") }));
            }
            // In a user namespace sysfs and mqueue want namespaces that belong to it.
            _ if mapped || r.percent(88) => list.push(json!({ "type": kind })),
            _ => {}
        }
    }
    if r.percent(30) {
        list.push(json!({ "type": "cgroup" }));
    }
    if mapped {
        list.push(json!({ "type": "user" }));
        let map = match r.percent(50) {
            true => json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]),
            false => json!([{ "containerID": 0, "hostID": 100_000, "size": 2000 },
                { "containerID": 2000, "hostID": 300_000, "size": 65536 }]),
        };
        c["linux"]["uidMappings"] = map.clone();
        c["linux"]["gidMappings"] = map;
    }
    c["linux"]["namespaces"] = json!(list);
    // What is joined is shared by all that run at the same time.
    let own = c["linux"]["namespaces"]
        .as_array()
        .expect("namespaces")
        .iter()
        .any(|n| n["type"] == "uts" && n["path"].is_null());
    match own {
        true => c["hostname"] = (*r.one::<&str>(&["box", "a", "a-longer-name.example.org"])).into(),
        false => drop(c.as_object_mut().expect("an object").remove("hostname")),
    }
}

fn process(r: &mut Random, c: &mut Value, mapped: bool) {
    let p = &mut c["process"];
    let uid = *r.one(&[0, 0, 0, 1, 1000, 65534]);
    p["user"] = json!({ "uid": uid, "gid": *r.one(&[uid, 0, 100, 65534]) });
    if r.percent(50) {
        let groups = r.some(&[5, 10, 44, 2000, 60000], 40);
        p["user"]["additionalGids"] = json!(groups);
    }
    if r.percent(50) {
        p["user"]["umask"] = (*r.one(&[0, 0o22, 0o27, 0o77, 0o777])).into();
    }
    p["noNewPrivileges"] = r.percent(50).into();
    p["cwd"] = (*r.one::<&str>(&["/", "/", "/tmp", "/data-of-the-image", "/srv/deep"])).into();
    if r.percent(40) {
        // The host's root may lack the right to lower it.
        p["oomScoreAdj"] = (*r.one(&[0, 1, 100, 1000])).into();
    }
    let mut env = vec![json!("PATH=/usr/bin:/bin")];
    for one in r.some(
        &["A=1", "A=2", "B=", "HOME=/there", "HOME=", "TERM=xterm", "LONG= spaces and = signs", "C=ü"],
        35,
    ) {
        env.push(json!(one));
    }
    p["env"] = json!(env);
    let mut limits = Vec::new();
    for (kind, most) in [
        ("RLIMIT_NOFILE", 4096),
        ("RLIMIT_CORE", 1 << 30),
        ("RLIMIT_NPROC", 20000),
        ("RLIMIT_FSIZE", 1 << 40),
        ("RLIMIT_STACK", 64 << 20),
        ("RLIMIT_AS", 1 << 44),
        ("RLIMIT_MEMLOCK", 4 << 20),
        ("RLIMIT_SIGPENDING", 5000),
        ("RLIMIT_MSGQUEUE", 819200),
        ("RLIMIT_CPU", 100000),
        ("RLIMIT_DATA", 1 << 44),
        ("RLIMIT_RSS", 1 << 44),
        ("RLIMIT_LOCKS", 1 << 20),
    ] {
        if r.percent(25) {
            let hard = most - r.next() % (most / 8);
            let soft = hard - r.next() % (hard / 2);
            limits.push(json!({ "type": kind, "hard": hard, "soft": soft }));
        }
    }
    p["rlimits"] = json!(limits);
    // A mapped user's terminal belongs to whom the peers please.
    if !mapped && r.percent(10) {
        p["terminal"] = true.into();
        if r.percent(60) {
            p["consoleSize"] = json!({ "height": 20 + r.below(100), "width": 80 + r.below(100) });
        }
    }
    if r.percent(20) {
        c["annotations"] = json!({ "org.example.key": "value", "org.example.empty": "" });
    }
}

fn capabilities(r: &mut Random, c: &mut Value) {
    const ALL: &[&str] = &[
        "CAP_AUDIT_WRITE",
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_DAC_READ_SEARCH",
        "CAP_FOWNER",
        "CAP_FSETID",
        "CAP_IPC_LOCK",
        "CAP_IPC_OWNER",
        "CAP_KILL",
        "CAP_MKNOD",
        "CAP_NET_ADMIN",
        "CAP_NET_BIND_SERVICE",
        "CAP_NET_RAW",
        "CAP_SETFCAP",
        "CAP_SETGID",
        "CAP_SETPCAP",
        "CAP_SETUID",
        "CAP_SYS_ADMIN",
        "CAP_SYS_CHROOT",
        "CAP_SYS_NICE",
        "CAP_SYS_PTRACE",
        "CAP_SYS_TIME",
        "CAP_SYSLOG",
    ];
    match r.below(10) {
        0 => {
            let process = c["process"].as_object_mut().expect("an object");
            process.remove("capabilities");
        }
        1..=6 => {
            let bounding = r.some(ALL, 60);
            let permitted: Vec<_> = bounding.iter().filter(|_| r.percent(70)).copied().collect();
            let effective: Vec<_> = permitted.iter().filter(|_| r.percent(80)).copied().collect();
            let inheritable: Vec<_> = match r.percent(50) {
                true => bounding.iter().filter(|_| r.percent(60)).copied().collect(),
                false => Vec::new(),
            };
            let both = permitted.iter().filter(|p| inheritable.contains(p));
            let ambient: Vec<_> = both.filter(|_| r.percent(70)).collect();
            c["process"]["capabilities"] = json!({ "bounding": bounding, "permitted": permitted,
                "effective": effective, "inheritable": inheritable, "ambient": ambient });
        }
        _ => {}
    }
}

fn mounts(r: &mut Random, c: &mut Value, mapped: bool) {
    const FLAGS: &[&str] = &["nosuid", "nodev", "noexec", "noatime", "nodiratime"];
    const PROPAGATION: &[&str] =
        &["private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable", "runbindable"];
    let list = c["mounts"].as_array_mut().expect("mounts");
    list[0]["options"] = json!(r.some(&["nosuid", "noexec", "nodev"], 60));
    list.retain(|m| m["destination"] != "/dev/mqueue" || r.percent(70));
    if r.percent(50) {
        let mut options: Vec<String> = r.some(FLAGS, 40).iter().map(|s| s.to_string()).collect();
        options.extend(
            r.some(&["size=1m", "mode=750", "ro", "sync", "strictatime"], 30).iter().map(|s| s.to_string()),
        );
        list.push(json!({ "destination": "/made", "type": "tmpfs", "source": *r.one(&["tmpfs", "none", "name"]), "options": options }));
    }
    if r.percent(60) {
        let mut options = vec![*r.one(&["bind", "rbind"])];
        options.extend(r.some(FLAGS, 30));
        if r.percent(40) {
            options.push("ro");
        }
        if r.percent(50) {
            options.push(*r.one::<&str>(PROPAGATION));
        }
        if !mapped && r.percent(15) {
            options.push(*r.one::<&str>(&["rro", "rnosuid", "rnodev", "rnoexec", "rnoatime"]));
        }
        list.push(mount("/data", r.one::<&str>(&["bind", "none"]), "BUNDLE/data", &options));
    }
    if r.percent(30) {
        list.push(mount(
            "/file",
            "bind",
            "BUNDLE/data/file",
            r.one::<&[&str]>(&[&["bind"], &["rbind", "ro"]]),
        ));
    }
    if r.percent(40) {
        let mut options = vec!["nosuid", "noexec", "nodev", "relatime"];
        if r.percent(80) {
            options.push("ro");
        }
        list.push(mount("/sys/fs/cgroup", "cgroup", "cgroup", &options));
    }
    c["root"]["readonly"] = r.percent(30).into();
    if r.percent(40) {
        c["linux"]["rootfsPropagation"] =
            (*r.one::<&str>(&["private", "rprivate", "slave", "rslave", "shared", "rshared"])).into();
    }
}

fn paths(r: &mut Random, c: &mut Value) {
    const MASKED: &[&str] = &[
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/timer_list",
        "/proc/sched_debug",
        "/proc/scsi",
        "/sys/firmware",
        "/proc/acpi",
        "/proc/none",
        "/data-of-the-image",
    ];
    const READONLY: &[&str] =
        &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger", "/none", "/tmp"];
    c["linux"]["maskedPaths"] = json!(r.some(MASKED, 60));
    c["linux"]["readonlyPaths"] = json!(r.some(READONLY, 60));
}

fn resources(r: &mut Random, c: &mut Value) {
    let resources = &mut c["linux"]["resources"];
    if r.percent(50) {
        let limit = (32 + r.below(200)) as i64 * (1 << 20);
        resources["memory"] = json!({ "limit": limit });
        if r.percent(40) {
            resources["memory"]["reservation"] = (limit / 2).into();
        }
        if r.percent(40) {
            resources["memory"]["swap"] = (*r.one(&[limit, limit * 2, -1])).into();
        }
        if r.percent(20) {
            resources["memory"]["swappiness"] = r.below(101).into();
        }
        if r.percent(20) {
            resources["memory"]["disableOOMKiller"] = true.into();
        }
    }
    if r.percent(50) {
        resources["cpu"] = json!({});
        if r.percent(50) {
            resources["cpu"]["shares"] = (*r.one(&[2, 100, 1024, 4096, 262144])).into();
        }
        if r.percent(50) {
            resources["cpu"]["period"] = (*r.one(&[10000, 50000, 100000, 1000000])).into();
            resources["cpu"]["quota"] = (*r.one(&[5000, 50000, 200000, -1])).into();
        }
        if r.percent(40) {
            resources["cpu"]["cpus"] = (*r.one::<&str>(&["0", "0-1", "1"])).into();
            resources["cpu"]["mems"] = "0".into();
        }
    }
    if r.percent(50) {
        resources["pids"] = json!({ "limit": *r.one(&[200, 1000, 5000]) });
    }
}

fn devices(r: &mut Random, c: &mut Value, mapped: bool) {
    let mut rules = vec![json!({ "allow": false, "access": "rwm" })];
    const NODES: &[(&str, &str, i64, i64)] = &[
        ("/dev/fuse", "c", 10, 229),
        ("/dev/net/tun", "c", 10, 200),
        ("/dev/loop7", "b", 7, 7),
        ("/dev/kmsg", "c", 1, 11),
    ];
    let mut nodes = Vec::new();
    for (path, kind, major, minor) in r.some(NODES, 25) {
        let mut node = json!({ "path": path, "type": kind, "major": major, "minor": minor });
        // In a user namespace the host's node is shown, with the host's owner and mode.
        if !mapped {
            node["fileMode"] = (*r.one(&[0o600, 0o666, 0o640])).into();
            node["uid"] = (*r.one(&[0, 1000])).into();
            node["gid"] = (*r.one(&[0, 10])).into();
        }
        nodes.push(node);
        if r.percent(70) {
            rules.push(json!({ "allow": true, "type": kind, "major": major, "minor": minor,
                "access": *r.one(&["rwm", "r", "rw"]) }));
        }
    }
    if r.percent(20) {
        rules.push(json!({ "allow": true, "type": "c", "major": 1, "access": "rw" }));
    }
    c["linux"]["devices"] = json!(nodes);
    c["linux"]["resources"]["devices"] = json!(rules);
}

/// Returns the keys that the probe shall look at.
fn sysctls(r: &mut Random, c: &mut Value) -> Vec<String> {
    const IPC: &[(&str, &str)] = &[
        ("kernel.shmmax", "68719476736"),
        ("kernel.msgmax", "65536"),
        ("kernel.sem", "250 32000 100 128"),
        ("kernel.shm_rmid_forced", "1"),
        ("fs.mqueue.msg_max", "20"),
    ];
    const NET: &[(&str, &str)] = &[
        ("net.ipv4.ip_forward", "1"),
        ("net.ipv4.ip_unprivileged_port_start", "80"),
        ("net.core.somaxconn", "777"),
        ("net.ipv4.ping_group_range", "0 1000"),
    ];
    // What is joined belongs to others.
    let new = |kind: &str| {
        c["linux"]["namespaces"]
            .as_array()
            .expect("namespaces")
            .iter()
            .any(|n| n["type"] == kind && n["path"].is_null())
    };
    let (ipc, net) = (new("ipc"), new("network"));
    let mut given = serde_json::Map::new();
    for (key, value) in
        r.some(IPC, 30).into_iter().filter(|_| ipc).chain(r.some(NET, 30).into_iter().filter(|_| net))
    {
        given.insert(key.to_string(), json!(value));
    }
    c["linux"]["sysctl"] = Value::Object(given);
    IPC.iter().chain(NET).map(|(key, _)| key.replace('.', "/")).collect()
}

fn seccomp(r: &mut Random) -> Value {
    const NAMES: &[&str] = &[
        "acct",
        "add_key",
        "bpf",
        "chmod",
        "chown",
        "clock_settime",
        "copy_file_range",
        "delete_module",
        "fanotify_init",
        "flock",
        "fsopen",
        "get_mempolicy",
        "getcpu",
        "getpriority",
        "inotify_init1",
        "io_uring_setup",
        "ioperm",
        "kcmp",
        "kexec_load",
        "lookup_dcookie",
        "mbind",
        "memfd_create",
        "mincore",
        "mkdir",
        "mkdirat",
        "mknod",
        "mlock2",
        "move_pages",
        "msgget",
        "name_to_handle_at",
        "nfsservctl",
        "open_by_handle_at",
        "perf_event_open",
        "pidfd_getfd",
        "process_vm_readv",
        "ptrace",
        "quotactl",
        "renameat2",
        "request_key",
        "rmdir",
        "sched_setattr",
        "semget",
        "settimeofday",
        "shmget",
        "splice",
        "swapon",
        "symlink",
        "syslog",
        "timerfd_create",
        "unlink",
        "unshare",
        "uselib",
        "userfaultfd",
        "ustat",
        "utimensat",
        "no_such_call",
    ];
    let mut rules = Vec::new();
    let mut left: Vec<&str> = NAMES.to_vec();
    for _ in 0..1 + r.below(6) {
        // Each call in one rule at most: two that disagree are refused.
        let names: Vec<_> = left.iter().filter(|_| r.percent(12)).copied().collect();
        left.retain(|name| !names.contains(name));
        if names.is_empty() {
            continue;
        }
        let mut rule = json!({ "names": names, "action": *r.one(&["SCMP_ACT_ERRNO", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL",
            "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_TRAP", "SCMP_ACT_LOG"]) });
        if rule["action"] == "SCMP_ACT_ERRNO" && r.percent(60) {
            rule["errnoRet"] = (*r.one(&[1, 2, 38, 95, 110])).into();
        }
        rules.push(rule);
    }
    for (name, index) in [("kill", 1), ("personality", 0), ("socket", 0), ("setpriority", 0), ("prctl", 0)] {
        if r.percent(35) {
            let op = *r.one(&[
                "SCMP_CMP_EQ",
                "SCMP_CMP_NE",
                "SCMP_CMP_LT",
                "SCMP_CMP_GE",
                "SCMP_CMP_GT",
                "SCMP_CMP_LE",
                "SCMP_CMP_MASKED_EQ",
            ]);
            // So that no runtime's own calls are hit: those set small options of prctl and signals below 10.
            let (op, value) = match name {
                "prctl" => ("SCMP_CMP_EQ", 99999),
                "kill" if op != "SCMP_CMP_GT" => ("SCMP_CMP_EQ", 10),
                _ => (op, *r.one(&[1, 2, 8, 9, 10, 40, 0xffff_ffffu64])),
            };
            let any_will_do = matches!(name, "socket" | "personality" | "setpriority");
            let op = if any_will_do || op == "SCMP_CMP_GT" { op } else { "SCMP_CMP_EQ" };
            let mut arg = json!({ "index": index, "value": value, "op": op });
            if op == "SCMP_CMP_MASKED_EQ" {
                arg["valueTwo"] = (value & 8).into();
            }
            rules.push(json!({ "names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": 95, "args": [arg] }));
        }
    }
    let mut all = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules });
    if r.percent(70) {
        all["architectures"] = json!(r.one(&[
            &["SCMP_ARCH_X86_64"] as &[&str],
            &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
        ]));
    }
    all
}
