//! Mounts, devices, masked paths: the file system as the container sees it.

use integration::bundle::mount;
use integration::{differs, host, Container, Run};
use serde_json::json;
use std::fs;

/// The line of the container's mountinfo for a mount point.
fn mountinfo(c: Container, point: &str) -> String {
    let out = c.args(&["cat", "/proc/self/mountinfo"]).run().ok().stdout;
    let line = out.lines().rfind(|l| l.split(' ').nth(4) == Some(point));
    line.unwrap_or_else(|| panic!("{point} is no mount: {out}")).to_string()
}

#[test]
fn the_hosts_mounts_are_gone() {
    let out = Container::new("pivot").args(&["cat", "/proc/self/mountinfo"]).run().ok().stdout;
    assert!(
        !out.contains("/old") && !out.contains("hydra-test")
            || out.lines().filter(|l| l.contains("hydra-test")).count() <= 1,
        "{out}"
    );
    assert!(out.lines().count() < 40, "{out}");
}

#[test]
fn default_devices_and_links_are_there() {
    let script = r#"
        for d in null zero full random urandom tty; do [ -c /dev/$d ] || echo no $d; done
        [ "$(stat -c %t:%T /dev/null)" = 1:3 ] || echo null; [ "$(stat -c %a /dev/null)" = 666 ] || echo mode
        [ "$(readlink /dev/ptmx)" = pts/ptmx ] || echo ptmx
        [ "$(readlink /dev/fd)" = /proc/self/fd ] || echo fd; [ "$(readlink /dev/stdin)" = /proc/self/fd/0 ] || echo stdin
        echo x >/dev/null || echo write; [ "$(head -c 2 /dev/zero | wc -c)" = 2 ] || echo zero"#;
    Container::sh("devices", script).run().ok().says("");
}

#[test]
fn mount_options_reach_the_mount() {
    let c = Container::new("options").mount(mount(
        "/mnt",
        "tmpfs",
        "tmpfs",
        &["nosuid", "noexec", "nodev", "ro", "size=1m", "mode=700"],
    ));
    let line = mountinfo(c, "/mnt");
    for word in ["ro", "nosuid", "nodev", "noexec", "size=1024k", "mode=700"] {
        assert!(line.contains(word), "{word}: {line}");
    }
    let line = mountinfo(Container::new("sysro"), "/sys");
    assert!(line.contains(" ro,"), "{line}");
}

#[test]
fn unknown_mount_options_go_to_the_file_system_which_refuses_them() {
    Container::new("badoption").mount(mount("/mnt", "tmpfs", "tmpfs", &["nosuchoption=1"])).run().fails();
}

#[test]
fn bind_mounts_of_files_and_folders() {
    let c = Container::sh(
        "bind",
        "cat /etc/given; cat /deep/er/inner; echo new >/deep/er/made; touch /etc/given",
    );
    let source = c.bundle.dir.join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("inner"), "inner\n").unwrap();
    fs::write(c.bundle.dir.join("file"), "file\n").unwrap();
    let file = c.bundle.dir.join("file").display().to_string();
    let c = c.mount(mount("/etc/given", "bind", &file, &["rbind", "ro"])).mount(mount(
        "/deep/er",
        "bind",
        source.to_str().unwrap(),
        &["bind", "rw"],
    ));
    let out = c.run().fails();
    assert_eq!(out.stdout, "file\ninner\n");
    assert!(out.stderr.contains("Read-only"), "{out}");
    assert_eq!(fs::read_to_string(source.join("made")).unwrap(), "new\n");
}

#[test]
fn a_relative_source_is_looked_for_in_the_bundle() {
    differs!(Crun, "takes the working folder");
    let c = Container::sh("relative", "cat /mnt/inner").mount(mount("/mnt", "bind", "source", &["bind"]));
    fs::create_dir(c.bundle.dir.join("source")).unwrap();
    fs::write(c.bundle.dir.join("source/inner"), "inner\n").unwrap();
    c.run().ok().says("inner");
}

#[test]
fn a_missing_source_is_named() {
    let c = Container::new("nosource").mount(mount("/mnt", "bind", "/no/such/source", &["bind"]));
    let out = c.run().fails();
    assert!(
        out.stderr.contains("no such file or directory") && out.stderr.contains("/no/such/source"),
        "{out}"
    );
}

#[test]
fn a_file_is_not_bound_on_a_folder_nor_the_other_way_round() {
    for (source, destination) in [("/etc/hostname", "/tmp"), ("/etc", "/etc/passwd")] {
        let c = Container::new("mismatch").mount(mount(destination, "bind", source, &["bind"]));
        let out = c.run().fails();
        assert!(out.stderr.to_lowercase().contains("not a directory"), "{out}");
        assert_eq!(c.leftovers(), Vec::<String>::new());
    }
}

#[test]
fn a_read_only_root_is_read_only() {
    let c = Container::sh("readonly", "touch /x; touch /tmp/x; touch /dev/shm/ok && echo shm")
        .with(|c| c["root"]["readonly"] = true.into());
    let out = c.run().ok();
    assert_eq!(out.stderr.matches("Read-only file system").count(), 2, "{out}");
    assert_eq!(out.stdout, "shm\n");
}

#[test]
fn recursive_read_only_covers_what_lies_below() {
    let c = Container::sh("rro", "touch /mnt/x; touch /mnt/sub/x; true");
    let source = c.bundle.dir.join("source");
    fs::create_dir_all(source.join("sub")).unwrap();
    Run::new("mount").args(["-t", "tmpfs", "tmpfs"]).args([source.join("sub")]).ok();
    let c = c.mount(mount("/mnt", "bind", source.to_str().unwrap(), &["rbind", "rro"]));
    let out = c.run();
    if host::lacks(&["mount_setattr"]) {
        out.fails_with("Linux 5.12");
        return;
    }
    assert_eq!(out.stderr.matches("Read-only file system").count(), 2, "{out}");
}

#[test]
fn masked_and_read_only_paths() {
    let script = r#"
        cat /etc/secret; ls -A /etc/hidden; cat /dev/zero </etc/secret | head -c 1 | wc -c
        echo x >/etc/frozen/file; mount | grep -c ' /etc/secret '"#;
    let c = Container::sh("masked", script).prepare(|root| {
        for dir in ["hidden", "frozen"] {
            fs::create_dir(root.join("etc").join(dir)).unwrap();
            fs::write(root.join("etc").join(dir).join("file"), "content").unwrap();
        }
        fs::write(root.join("etc/secret"), "secret").unwrap();
    });
    let c = c.with(|c| {
        c["linux"]["maskedPaths"] = json!(["/etc/secret", "/etc/hidden", "/not/there"]);
        c["linux"]["readonlyPaths"] = json!(["/etc/frozen", "/not/there/either"]);
    });
    let out = c.run();
    assert!(!out.stdout.contains("secret") && !out.stdout.contains("file"), "{out}");
    assert!(out.stderr.contains("Read-only file system"), "{out}");
}

#[test]
fn named_devices_are_made_and_allowed() {
    let c = Container::sh("mknod", "stat -c '%t:%T %a %u:%g %F' /dev/mine; head -c 1 /dev/mine | wc -c; stat -c %F /dev/pipe").with(|c| {
        c["linux"]["devices"] = json!([
            { "path": "/dev/mine", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 5, "gid": 6 },
            { "path": "/dev/pipe", "type": "p", "fileMode": 0o600 }
        ]);
        c["linux"]["resources"]["devices"].as_array_mut().unwrap()
            .push(json!({ "allow": true, "type": "c", "major": 1, "minor": 5, "access": "r" }));
    });
    c.run().ok().says("1:5 640 5:6 character special file\n1\nfifo");
}

/// Made anew or there already, it is as config.json has it.
#[test]
fn a_device_that_is_there_is_given_its_mode_and_owner() {
    differs!(Runc, "leaves it as it is");
    differs!(Crun, "1.8.1 leaves it as it is");
    let c = Container::sh("devthere", "stat -c '%t:%T %a %u:%g' /opt/there").prepare(|root| {
        Run::sh("mkdir -p opt && mknod -m 600 opt/there c 1 5").dir(root).ok();
    });
    let c = c.with(|c| {
        c["linux"]["devices"] = json!([
            { "path": "/opt/there", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 5, "gid": 6 }
        ]);
    });
    c.run().ok().says("1:5 640 5:6");
}

#[test]
fn devices_not_allowed_are_denied() {
    let c = Container::sh("denied", "mknod /dev/d c 1 1; head -c 1 /dev/d")
        .with(|c| c["process"]["noNewPrivileges"] = false.into());
    let out = c.run().fails();
    assert!(out.stderr.contains("not permitted"), "{out}");
}

#[test]
fn tmpcopyup_brings_the_files_along() {
    differs!(Crun, "1.8.1 wants it otherwise");
    let c = Container::sh("copyup", "cat /etc/passwd | head -c 4; echo x >/etc/new").mount(mount(
        "/etc",
        "tmpfs",
        "tmpfs",
        &["tmpcopyup"],
    ));
    c.run().ok().says("root");
    assert!(!c.bundle.rootfs().join("etc/new").exists());
}

#[test]
fn propagation_is_as_asked() {
    let c = Container::new("slave").with(|c| c["linux"]["rootfsPropagation"] = "rslave".into());
    let line = mountinfo(c, "/");
    assert!(!line.contains("shared:"), "{line}");
    let source = Container::new("share");
    let dir = source.bundle.dir.join("source");
    fs::create_dir(&dir).unwrap();
    Run::new("mount").args(["-t", "tmpfs", "tmpfs"]).args([&dir]).ok();
    Run::new("mount").args(["--make-shared"]).args([&dir]).ok();
    let c =
        Container::new("rshared").mount(mount("/mnt", "bind", dir.to_str().unwrap(), &["rbind", "rshared"]));
    assert!(mountinfo(c, "/mnt").contains("shared:"));
    let c = Container::new("rprivate").mount(mount(
        "/mnt",
        "bind",
        dir.to_str().unwrap(),
        &["rbind", "rprivate"],
    ));
    assert!(!mountinfo(c, "/mnt").contains("shared:"));
}

/// What Kubernetes calls Bidirectional: a storage driver in a container mounts for the host. HostToContainer must not.
#[test]
fn what_a_container_mounts_reaches_the_host_when_asked() {
    for (propagation, option, reaches) in
        [("rshared", "rshared", true), ("rshared", "rslave", false), ("rslave", "rslave", false)]
    {
        let mut c = Container::sh("gives", "mount -t tmpfs tmpfs /mnt/below && echo mounted").with(|c| {
            c["linux"]["rootfsPropagation"] = propagation.into();
            for set in ["bounding", "effective", "permitted"] {
                c["process"]["capabilities"][set].as_array_mut().unwrap().push("CAP_SYS_ADMIN".into());
            }
        });
        let source = c.bundle.dir.join("source");
        fs::create_dir(&source).unwrap();
        c = c.mount(mount("/mnt", "bind", source.to_str().unwrap(), &["rbind", option]));
        c.bundle.write();
        // A mount namespace of the test's own, which is the host for the container.
        let script = format!(
            "cd {bundle}; mount -t tmpfs tmpfs source; mkdir source/below; mount --make-shared source
             {runtime} --root {root} run --bundle {bundle} {id}; grep -c source/below /proc/self/mountinfo; true",
            bundle = c.bundle.dir.display(),
            runtime = host::runtime().display(),
            root = c.root.display(),
            id = c.id
        );
        let out = Run::new("unshare").args(["-m", "sh", "-c", &script]).ok();
        assert_eq!(
            out.stdout,
            format!("mounted\n{}\n", i32::from(reaches)),
            "{propagation}, {option}: {out}"
        );
    }
}

/// Mounts that are shared with every namespace: what a container mounts or unmounts on its way must not reach them.
#[test]
fn no_propagation_reaches_the_hosts_mounts() {
    differs!(Crun, "not asked");
    for propagation in ["", "private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable"] {
        let c = Container::new("shares").with(|c| c["linux"]["rootfsPropagation"] = propagation.into());
        c.bundle.write();
        // In a mount namespace of the test's own, which is the host for the container: the root lies on a shared mount,
        // and beside it there is another with a mount below.
        let script = format!(
            "cd {bundle}; mkdir shared; mount -t tmpfs tmpfs shared; mount --make-shared shared
             mkdir shared/below; mount -t tmpfs tmpfs shared/below
             mount --bind rootfs rootfs; mount --make-shared rootfs
             table() {{ cut -d' ' -f5 /proc/self/mountinfo | grep {bundle}; }}
             before=$(table); {runtime} --root {root} run --bundle {bundle} {id} >/dev/null 2>&1
             [ \"$before\" = \"$(table)\" ] || table",
            bundle = c.bundle.dir.display(),
            runtime = host::runtime().display(),
            root = c.root.display(),
            id = c.id
        );
        let out = Run::new("unshare").args(["-m", "sh", "-c", &script]).ok();
        assert_eq!(out.stdout, "", "{propagation}: the host's mounts are others now");
    }
}

#[test]
fn the_cgroup_mount_shows_the_containers_own() {
    let c = Container::sh("cgmount", "ls /sys/fs/cgroup; grep cgroup /proc/self/mountinfo").mount(mount(
        "/sys/fs/cgroup",
        "cgroup",
        "cgroup",
        &["nosuid", "noexec", "nodev", "relatime", "ro"],
    ));
    let out = c.run().ok().stdout;
    match host::cgroups() {
        host::Cgroups::V2 => assert!(out.contains("cgroup.procs"), "{out}"),
        _ => assert!(out.contains("memory") && out.contains("pids"), "{out}"),
    }
}

#[test]
fn a_root_without_pivot() {
    let c = Container::sh("nopivot", "ls / | grep -c proc");
    c.run_with(&["--no-pivot"]).ok().says("1");
}

/// In a user namespace the kernel gives a new procfs only to who sees a whole one already. The container's is masked.
#[test]
fn without_pivot_the_hosts_procfs_is_out_of_reach() {
    differs!(Crun, "1.8.1 leaves it mounted");
    let script =
        "unshare -U -r -m -p -f mount -t proc proc /tmp && echo whole; unshare -U -r true && echo tried";
    let c = Container::sh("nopivotproc", script).with(|c| {
        c["linux"]["maskedPaths"] = json!(["/proc/kcore", "/proc/sys"]);
    });
    let out = c.run_with(&["--no-pivot"]);
    assert_eq!(out.stdout, "tried\n", "{out}");
    for propagation in ["private", "rprivate"] {
        let c = Container::new("nopivotprivate").with(|c| {
            c["linux"]["rootfsPropagation"] = propagation.into();
        });
        c.run_with(&["--no-pivot"]).fails_with("is not safe without pivot_root");
    }
}

#[test]
fn what_would_be_mounted_in_the_wrong_place_is_refused() {
    differs!(Runc, "1.1 looks at the source of a bind alone, and mounts on the root");
    differs!(Crun, "1.8.1 mounts it");
    let mount = |to: &str, kind: &str, from: &str, options: &[&str]| {
        let mount = json!({ "destination": to, "type": kind, "source": from, "options": options });
        let links = |root: &std::path::Path| {
            std::os::unix::fs::symlink("/", root.join("top")).unwrap();
            std::os::unix::fs::symlink("/proc", root.join("to-proc")).unwrap();
        };
        Container::new("wrongplace").prepare(links).mount(mount)
    };
    for to in ["/proc", "/to-proc"] {
        mount(to, "tmpfs", "tmpfs", &[]).run().fails_with("not of type proc");
        mount(to, "bind", "/etc", &["bind"]).run().fails_with("not of type proc");
    }
    mount("/proc", "bind", "/proc", &["rbind"]).run().ok();
    for to in ["/", "/top", "/bin/.."] {
        mount(to, "tmpfs", "tmpfs", &[]).run().fails_with("is on the top of rootfs");
        mount(to, "bind", "/etc", &["bind"]).run().fails_with("is on the top of rootfs");
    }
}

/// Images have /etc/resolv.conf or /var/run as links to what isn't there yet.
#[test]
fn mount_points_behind_dangling_links_are_made() {
    differs!(Crun, "1.8.1 makes none");
    let link = |root: &std::path::Path, name: &str, target: &str| {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
        std::os::unix::fs::symlink(target, path).unwrap();
    };
    let c = Container::sh(
        "dangling",
        "cat /made/jump/hosts /run/stub; ls /gone/secrets /made/up; cat /var/run/secrets/key /made/loop",
    );
    let source = c.bundle.dir.join("source");
    fs::create_dir_all(&source).unwrap();
    fs::write(source.join("key"), "content\n").unwrap();
    let (folder, file) = (source.display().to_string(), source.join("key").display().to_string());
    let c = c.prepare(|root| {
        link(root, "jump", "/made/jump");
        link(root, "etc/hosts", "/jump/hosts");
        link(root, "etc/resolv.conf", "../run/stub");
        link(root, "var/run", "/gone");
        link(root, "up", "../../../../made/down/../up");
        let _ = fs::remove_file(root.join("run/stub"));
    });
    let c = c
        .mount(mount("/etc/hosts", "bind", &file, &["bind"]))
        .mount(mount("/etc/resolv.conf", "bind", &file, &["bind"]))
        .mount(mount("/var/run/secrets", "bind", &folder, &["bind"]))
        .mount(mount("/up", "bind", &folder, &["bind"]));
    let out = c.run();
    assert_eq!(out.stdout, "content\ncontent\n/gone/secrets:\nkey\n\n/made/up:\nkey\ncontent\n", "{out}");
    let c = Container::new("looping").prepare(|root| link(root, "loop", "loop"));
    c.mount(mount("/loop/x", "tmpfs", "tmpfs", &[])).run().fails();
}

#[test]
fn the_rootfs_may_be_a_symlink_of_the_hosts() {
    differs!(Runc, "refuses it");
    let c = Container::sh("symlink", "echo here").with(|c| c["root"]["path"] = "link".into());
    std::os::unix::fs::symlink("rootfs", c.bundle.dir.join("link")).unwrap();
    c.run().ok().says("here");
}

#[test]
fn sysctls_are_set_in_their_namespace() {
    let c = Container::sh("sysctl", "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shm_rmid_forced")
        .with(|c| {
            c["linux"]["sysctl"] = json!({ "net.ipv4.ip_forward": "1", "kernel.shm_rmid_forced": "1" });
        });
    c.run().ok().says("1\n1");
    for (key, without) in
        [("net.ipv4.ip_forward", "network"), ("kernel.shmmax", "ipc"), ("vm.swappiness", "")]
    {
        let c = Container::new("hostctl").with(|c| c["linux"]["sysctl"] = json!({ key: "1" }));
        let c = if without.is_empty() { c } else { c.without_namespace(without) };
        differs!(Crun, "leaves that to the kernel");
        let out = c.run().fails();
        assert!(out.stderr.contains(key), "{out}");
    }
}

#[test]
fn idmapped_mounts_show_other_owners() {
    differs!(Runc, "1.1 has none");
    let c = Container::sh("idmap", "stat -c %u:%g /mnt/file").user_namespace();
    let source = c.bundle.dir.join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "").unwrap();
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
    let mut entry = mount("/mnt", "bind", source.to_str().unwrap(), &["bind", "idmap"]);
    entry["uidMappings"] = map.clone();
    entry["gidMappings"] = map;
    let c = c.mount(entry);
    let out = c.run();
    if host::lacks(&["open_tree", "move_mount", "mount_setattr"]) {
        out.fails_with("Linux 5.12");
        return;
    }
    if integration::peer() == integration::Peer::Crun && out.code != 0 {
        integration::skip!("Crun: 1.8.1 reads the mappings from the option");
    }
    out.ok().says("0:0");
}

#[test]
fn consoles_pts_are_the_containers_own() {
    Container::sh("pts", "ls /dev/pts; stat -c %a /dev/pts/ptmx").run().ok().says("ptmx\n666");
}
