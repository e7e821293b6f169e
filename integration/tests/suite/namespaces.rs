//! Namespaces made, joined and left alone; users mapped.

use integration::{differs, Container, Run};
use serde_json::json;
use std::fs;

fn of(pid: impl std::fmt::Display, ns: &str) -> String {
    fs::read_link(format!("/proc/{pid}/ns/{ns}")).map(|l| l.display().to_string()).unwrap_or_default()
}

/// containerd and CRI-O give both, and they agree.
#[test]
fn mappings_beside_a_joined_user_namespace_must_be_its_own() {
    differs!(Runc, "1.1 takes any");
    differs!(Crun, "1.8.1 takes any");
    let first = Container::sleeping("userns").user_namespace().up();
    let path = format!("/proc/{}/ns/user", first.pid());
    let second = |host: u32| {
        let map = json!([{ "containerID": 0, "hostID": host, "size": 65536 }]);
        Container::new("useragain").user_namespace().namespace("user", Some(&path)).with(|c| {
            c["linux"]["uidMappings"] = map.clone();
            c["linux"]["gidMappings"] = map;
        })
    };
    second(100_000).run().ok();
    second(200_000).run().fails_with("non-matching mapping");
}

#[test]
fn named_namespaces_are_private_and_others_shared() {
    let c = Container::sleeping("private").namespace("cgroup", None).up();
    for ns in ["pid", "net", "ipc", "uts", "mnt", "cgroup"] {
        assert_ne!(of(c.pid(), ns), of("self", ns), "{ns}");
    }
    for ns in ["user", "time"] {
        assert_eq!(of(c.pid(), ns), of("self", ns), "{ns}");
    }
    let c = Container::sleeping("shared")
        .without_namespace("network")
        .without_namespace("ipc")
        .without_namespace("pid");
    let c = c.up();
    for ns in ["net", "ipc", "pid"] {
        assert_eq!(of(c.pid(), ns), of("self", ns), "{ns}");
    }
}

#[test]
fn namespaces_are_joined_by_path() {
    let first = Container::sleeping("first").up();
    let mut second = Container::sleeping("second");
    for (kind, file) in [("network", "net"), ("ipc", "ipc"), ("uts", "uts"), ("pid", "pid")] {
        let path = format!("/proc/{}/ns/{file}", first.pid());
        second = second.namespace(kind, Some(&path));
    }
    // A name can't be set in a namespace that isn't the container's own.
    let second = second.with(|c| drop(c.as_object_mut().unwrap().remove("hostname"))).up();
    for ns in ["net", "ipc", "uts", "pid"] {
        assert_eq!(of(second.pid(), ns), of(first.pid(), ns), "{ns}");
    }
    assert_ne!(of(second.pid(), "mnt"), of(first.pid(), "mnt"));
}

#[test]
fn a_namespace_of_the_wrong_kind_is_refused() {
    let first = Container::sleeping("wrongkind").up();
    let path = format!("/proc/{}/ns/ipc", first.pid());
    Container::new("joins").namespace("network", Some(&path)).run().fails();
    Container::new("joins").namespace("network", Some("/etc/passwd")).run().fails();
}

#[test]
fn a_namespace_named_twice_is_refused() {
    differs!(Crun, "does not mind");
    let c = Container::new("dupns")
        .with(|c| c["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "ipc" })));
    c.run().fails();
}

#[test]
fn the_network_has_a_loopback_that_is_up() {
    let c = Container::sh("lo", "ping -c 1 -W 5 127.0.0.1 >/dev/null && echo up").with(|c| {
        c["process"]["noNewPrivileges"] = false.into();
    });
    c.run().ok().says("up");
}

#[test]
fn users_are_mapped() {
    let c = Container::sh(
        "userns",
        "id -u; cat /proc/self/uid_map; touch /tmp/mine; grep CapEff /proc/self/status",
    )
    .user_namespace();
    let out = c.run().ok();
    let words: Vec<_> = out.stdout.split_whitespace().collect();
    assert_eq!(&words[..4], ["0", "0", "100000", "65536"], "{out}");
    let owner =
        std::os::unix::fs::MetadataExt::uid(&fs::metadata(c.bundle.rootfs().join("tmp/mine")).unwrap());
    assert_eq!(owner, 100_000);
    assert_eq!(c.leftovers(), Vec::<String>::new());
}

#[test]
fn mapped_users_get_devices_groups_and_exec() {
    let c =
        Container::sh("usernsdev", "[ -c /dev/null ] && echo x >/dev/null && echo ok; exec sleep 1000000")
            .user_namespace();
    let c = c.with(|c| c["process"]["user"]["additionalGids"] = json!([10])).up();
    integration::eventually("its output", || c.output() == "ok\n");
    let out = c.exec(&["sh", "-c", "id -u; cat /proc/self/uid_map"]).ok();
    assert_eq!(out.stdout.split_whitespace().collect::<Vec<_>>(), ["0", "0", "100000", "65536"]);
}

#[test]
fn a_user_namespace_without_mappings_is_refused() {
    differs!(Crun, "maps by itself");
    Container::new("nomap").namespace("user", None).run().fails();
}

#[test]
fn a_time_namespace_has_its_offsets() {
    differs!(Runc, "1.1 has none");
    differs!(Crun, "1.8.1 takes the offsets otherwise");
    let c = Container::sh("time", "cut -d. -f1 /proc/uptime").namespace("time", None).with(|c| {
        c["linux"]["timeOffsets"] = json!({ "boottime": { "secs": 1_000_000_000, "nanosecs": 0 } });
    });
    let uptime: u64 = c.run().ok().stdout.trim().parse().unwrap();
    assert!(uptime > 1_000_000_000, "{uptime}");
}

#[test]
fn a_cgroup_namespace_hides_the_path() {
    let c = Container::sh("cgroupns", "cat /proc/self/cgroup").namespace("cgroup", None);
    let out = c.run().ok().stdout;
    assert!(!out.contains("hydra"), "{out}");
}

#[test]
fn a_network_made_by_others_is_entered() {
    let name = format!("hyt{}", std::process::id());
    Run::new("ip").args(["netns", "add", &name]).ok();
    let c = Container::sh("netns", "ip -o link | wc -l")
        .namespace("network", Some(&format!("/run/netns/{name}")));
    let out = c.run();
    Run::new("ip").args(["netns", "del", &name]).ok();
    out.ok();
}

#[test]
fn the_first_process_is_number_one() {
    Container::sh("one", "echo $$").run().ok().says("1");
}
