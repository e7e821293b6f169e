//! Attacks that worked on runtimes once. Each test builds the hostile bundle of one CVE and looks for the damage.

use integration::bundle::copy_program;
use integration::bundle::mount;
use integration::{differs, host, skip, Container, Run};
use serde_json::json;
use std::fs;
use std::os::unix::fs::{symlink, PermissionsExt};
use std::path::Path;

/// CVE-2019-5736: the container executes the runtime that enters it (its own /proc/self/exe), gets hold of that program
/// file, and writes to it once nobody executes it any more. Here on a copy, so that a success does no harm.
#[test]
fn cve_2019_5736_the_runtimes_program_cannot_be_written() {
    differs!(Runc, "is linked to libraries, so it does not start inside a root without them");
    differs!(Crun, "is linked to libraries, so it does not start inside a root without them");
    let c = Container::sleeping("cve5736")
        .prepare(|root| drop(Run::new("mkfifo").args([root.join("fifo")]).ok()))
        .up();
    let program = c.bundle.dir.join("program");
    copy_program(&host::runtime(), &program);
    let before = fs::read(&program).unwrap();
    let run = |args: &[&str]| Run::new(&program).args(["--root".as_ref(), c.root.as_os_str()]).args(args);
    // Its log is a fifo without a reader: the runtime waits there, inside the container.
    run(&["exec", "-d", &c.id, "/proc/self/exe", "--log", "/fifo", "state", "nobody"]).ok();
    let script = r#"
        for round in $(seq 100); do
            for p in /proc/[0-9]*; do
                case $(readlink $p/exe) in /bin/busybox | "") ;; *) victim=${p#/proc/};; esac
            done
            [ "$victim" ] && break; sleep 0.1
        done
        exec 3</proc/$victim/exe && echo held $(tr '\0' ' ' </proc/$victim/cmdline)
        kill -KILL $victim; while grep -q . /proc/$victim/cmdline; do sleep 0.1; done
        echo owned >/proc/self/fd/3 && echo wrote"#;
    // Not with that program: it could not be written as long as it runs.
    let out = c.exec(&["timeout", "60", "sh", "-c", script]);
    assert_eq!(out.stdout, "held /proc/self/exe --log /fifo state nobody\n", "{out}");
    assert!(before == fs::read(&program).unwrap(), "the runtime's own program was changed");
}

/// CVE-2024-21626: a working folder of /proc/self/fd/N leads to a descriptor of the host that was left open.
#[test]
fn cve_2024_21626_no_descriptor_leads_to_the_host() {
    for fd in 3..20 {
        let c = Container::new("cve21626")
            .args(&["true"])
            .with(|c| c["process"]["cwd"] = format!("/proc/self/fd/{fd}").into());
        c.run().fails();
    }
    let c = Container::sleeping("cve21626").up();
    for fd in 3..20 {
        let out = c.exec_with(
            &["--cwd", &format!("/proc/self/fd/{fd}")],
            &["sh", "-c", "cat ../../../../../etc/hostname; pwd"],
        );
        assert!(
            out.code != 0
                || !out.stdout.contains(fs::read_to_string("/etc/hostname").unwrap_or("\0".into()).trim()),
            "{fd}: {out}"
        );
    }
}

/// The kernel looks a program up before it closes what is close-on-exec: no link of the image may lead through a descriptor of
/// the runtime's, as program, or as the list of users.
#[test]
fn cve_2019_5736_no_program_of_the_hosts_is_reached() {
    let victim = integration::janitor::scratch().join("reached");
    fs::create_dir_all(&victim).unwrap();
    fs::copy(integration::bundle::template().join("bin/sh"), victim.join("sh")).unwrap();
    fs::write(victim.join("passwd"), "root:x:0:0:root:/reached:/bin/sh\n").unwrap();
    let through = |fd: i32, name: &str| {
        format!("/proc/self/fd/{fd}{}{}", "/..".repeat(20), victim.join(name).display())
    };
    let linked = |root: &Path| {
        for fd in 3..45 {
            fs::create_dir(root.join(format!("by{fd}"))).unwrap();
            symlink(through(fd, "sh"), root.join(format!("by{fd}/sh"))).unwrap();
        }
    };
    let waiting = Container::sleeping("reach").prepare(linked).up();
    for fd in 3..45 {
        let name = format!("/by{fd}/sh");
        let out = waiting.exec(&[&name, "-c", "echo reached"]);
        assert!(out.code != 0 && !out.stdout.contains("reached"), "{fd}: {out}");
    }
    for fd in 3..45 {
        let name = format!("/by{fd}/sh");
        let c = Container::new("reached").args(&[&name, "-c", "echo reached"]).prepare(linked);
        let out = c.run();
        assert!(out.code != 0 && !out.stdout.contains("reached"), "{fd}: {out}");
    }
    for fd in 3..45 {
        let c = Container::sh("passwd", "echo $HOME").prepare(|root| {
            let passwd = root.join("etc/passwd");
            let _ = fs::remove_file(&passwd);
            symlink(through(fd, "passwd"), passwd).unwrap();
        });
        let c = c.with(|c| c["process"]["env"] = json!(["PATH=/bin:/usr/bin"]));
        c.run().ok().says("/");
    }
}

/// A container's process that may trace others sees one that waits for `start`, and through /proc its descriptors.
#[test]
fn a_waiting_process_holds_nothing_of_the_hosts() {
    differs!(Runc, "looks into how ours does it");
    differs!(Crun, "looks into how ours does it");
    let c = Container::sleeping("holds");
    c.create().ok();
    let dir = format!("/proc/{}/fd", c.pid());
    for entry in fs::read_dir(&dir).unwrap().flatten() {
        let (fd, target) = (entry.file_name(), fs::read_link(entry.path()).unwrap());
        let number: i32 = fd.to_str().unwrap().parse().unwrap();
        let file = fs::metadata(entry.path()).unwrap();
        assert!(number < 3 || !file.is_dir(), "{number} -> {}", target.display());
        let text = target.to_string_lossy();
        let own = text.starts_with("socket:") || text.starts_with(c.root.to_str().unwrap());
        assert!(number < 3 || own, "{number} -> {text}");
    }
}

/// CVE-2016-9962: who enters a container can't be traced by those in it, from the first moment on.
#[test]
fn cve_2016_9962_who_enters_is_not_dumpable() {
    differs!(Runc, "looks into how ours does it");
    differs!(Crun, "looks into how ours does it");
    if !Path::new("/usr/bin/strace").exists() {
        integration::skip!("needs strace");
    }
    let c = Container::sleeping("dumpable").with(|c| {
        c["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
        let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 1000 }]);
        c["linux"]["uidMappings"] = map.clone();
        c["linux"]["gidMappings"] = map;
    });
    let c = c.up();
    let log = c.bundle.dir.join("strace");
    let run =
        Run::new("strace").args(["-f", "-qq", "-e", "trace=prctl,setns,clone3,clone", "-o"]).args([&log]);
    let run = run.args([host::runtime()]).args(["--root"]).args([&c.root]);
    let run = if host::systemd_driver() { run.args(["--systemd-cgroup"]) } else { run };
    run.args(["exec", &c.id, "true"]).ok();
    let text = fs::read_to_string(&log).unwrap();
    let user = text.lines().find(|l| l.contains("setns(")).expect("a namespace is joined");
    let child = user.split(' ').next().unwrap();
    let calls: Vec<_> = text.lines().filter(|l| l.split(' ').next() == Some(child)).collect();
    let at = |what: &str| calls.iter().position(|l| l.contains(what)).unwrap_or(usize::MAX);
    assert!(at("PR_SET_DUMPABLE") < at("setns("), "{}", calls.join("\n"));
}

/// CVE-2019-16884, CVE-2019-19921, CVE-2023-27561: /proc is a symlink in the image, so what is written there goes astray.
#[test]
fn cve_2019_19921_proc_must_be_a_folder() {
    for target in ["/tmp", "../tmp", "tmp"] {
        for point in ["proc", "sys"] {
            let c = Container::new("cve19921").prepare(|root| {
                fs::remove_dir(root.join(point)).unwrap();
                symlink(target, root.join(point)).unwrap();
            });
            differs!(Crun, "1.8.1 follows it inside the root");
            c.run().fails();
            assert_eq!(c.leftovers(), Vec::<String>::new());
        }
    }
}

/// CVE-2021-30465 and its kin: a mount's destination is a symlink that leads out of the root.
#[test]
fn cve_2021_30465_mount_points_stay_below_the_root() {
    let victim = integration::janitor::scratch().join("victim");
    fs::create_dir_all(&victim).unwrap();
    for link in [victim.display().to_string(), format!("../../../../../../../..{}", victim.display())] {
        let c =
            Container::sh("cve30465", "true").prepare(|root| symlink(&link, root.join("escape")).unwrap());
        let c = c.mount(mount("/escape/made", "tmpfs", "tmpfs", &[])).mount(mount(
            "/escape",
            "bind",
            "/etc",
            &["bind"],
        ));
        c.run();
        assert_eq!(fs::read_dir(&victim).unwrap().count(), 0, "something was made outside of the root");
        assert_eq!(host::mounts_below(&victim), Vec::<std::path::PathBuf>::new());
    }
}

/// CVE-2021-30465: somebody who shares the root swaps a folder for a link while it is mounted on.
#[test]
fn cve_2021_30465_a_swap_while_mounting_leads_nowhere() {
    differs!(Crun, "not put to peers: it is a race");
    differs!(Runc, "not put to peers: it is a race");
    let victim = integration::janitor::scratch().join("victim5");
    fs::create_dir_all(victim.join("below")).unwrap();
    let c = Container::new("swap").prepare(|root| {
        fs::create_dir_all(root.join("a/below")).unwrap();
        symlink(format!("../../../../../../../../../..{}", victim.display()), root.join("b")).unwrap();
    });
    let c = c
        .mount(mount("/a/below/made", "tmpfs", "tmpfs", &[]))
        .mount(mount("/a/below/file", "bind", "/etc/hostname", &["bind"]))
        .mount(mount("/a/below", "tmpfs", "tmpfs", &[]));
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let root = fs::File::open(c.bundle.rootfs()).unwrap();
            let exchange = nix::fcntl::RenameFlags::RENAME_EXCHANGE;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                nix::fcntl::renameat2(&root, "a", &root, "b", exchange).unwrap();
            }
        });
        for _ in 0..if host::quick() { 10 } else { 60 } {
            c.run();
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(
        fs::read_dir(victim.join("below")).unwrap().count(),
        0,
        "something was made outside of the root"
    );
    assert_eq!(host::mounts_below(&victim), Vec::<std::path::PathBuf>::new());
}

/// The same for what a mount is given once it is there: read-only must be the mount, not what its path leads to by then.
#[test]
fn a_swap_after_mounting_leaves_no_mount_writable() {
    differs!(Crun, "not put to peers: it is a race");
    differs!(Runc, "not put to peers: it is a race");
    if !Path::new("/usr/bin/strace").exists() {
        skip!("needs strace");
    }
    if host::lacks(&["open_tree", "move_mount", "mount_setattr", "fsopen"]) {
        skip!("stops at a call that Linux before 5.12 has not");
    }
    let shared = integration::janitor::scratch().join("shared");
    let source = shared.join("source");
    for one in [
        mount("/vol/a", "bind", source.to_str().unwrap(), &["rbind", "rro"]),
        mount("/vol/a", "tmpfs", "tmpfs", &["ro"]),
    ] {
        let _ = fs::remove_dir_all(&shared);
        fs::create_dir_all(&source).unwrap();
        fs::create_dir(shared.join("a")).unwrap();
        let c = Container::new("swapped").args(&["cat", "/proc/self/mountinfo"]);
        let c = c.mount(mount("/vol", "bind", shared.to_str().unwrap(), &["bind"])).mount(one);
        c.bundle.write();
        let calls = "inject=move_mount:delay_exit=3000000:when=2";
        let run = Run::new("strace").args(["-f", "-qq", "-e", "trace=move_mount", "-e", calls, "-o"]);
        let run =
            run.args([c.bundle.dir.join("log")]).args([host::runtime()]).args(["--root"]).args([&c.root]);
        let run = if host::systemd_driver() { run.args(["--systemd-cgroup"]) } else { run };
        let run = run.args(["run", "--bundle"]).args([&c.bundle.dir]).args([&c.id]).start();
        let point = format!(" {} ", c.bundle.rootfs().join("vol/a").display());
        integration::eventually("the mount is there", || {
            let tables = fs::read_dir("/proc").unwrap().flatten().map(|p| p.path().join("mountinfo"));
            tables.into_iter().any(|t| fs::read_to_string(t).is_ok_and(|t| t.contains(&point)))
        });
        fs::rename(shared.join("a"), shared.join("b")).unwrap();
        symlink("/proc", shared.join("a")).unwrap();
        let out = run.out().ok().stdout;
        let line = out.lines().find(|l| l.split(' ').nth(4) == Some("/vol/b"));
        let line = line.unwrap_or_else(|| panic!("the mount is gone: {out}"));
        assert!(line.split(' ').nth(5).unwrap().split(',').any(|o| o == "ro"), "writable: {line}");
    }
}

/// CVE-2024-45310, CVE-2025-24965: missing mount points, working folders and devices are made inside the root only.
#[test]
fn cve_2024_45310_nothing_is_made_outside_of_the_root() {
    let victim = integration::janitor::scratch().join("victim2");
    fs::create_dir_all(&victim).unwrap();
    let up = format!("../../../../../../../../../..{}", victim.display());
    let prepare = |root: &Path| symlink(&up, root.join("out")).unwrap();
    Container::new("cwd").prepare(prepare).with(|c| c["process"]["cwd"] = "/out/cwd".into()).run();
    let device = json!([{ "path": "/out/null", "type": "c", "major": 1, "minor": 3 }]);
    Container::new("device").prepare(prepare).with(|c| c["linux"]["devices"] = device).run();
    Container::new("file")
        .prepare(prepare)
        .mount(mount("/out/file", "bind", "/etc/hostname", &["bind"]))
        .run();
    assert_eq!(fs::read_dir(&victim).unwrap().count(), 0, "something was made outside of the root");
}

/// CVE-2025-31133, CVE-2026-41579: the image's own /dev/null (here without a fresh /dev) is no mask for paths.
#[test]
fn cve_2025_31133_a_mask_is_the_real_null() {
    differs!(Runc, "1.1.5 is open to it");
    let c =
        Container::sh("cve31133", "cat /proc/kcore | head -c 1 | wc -c; cat /etc/secret").prepare(|root| {
            fs::write(root.join("etc/secret"), "secret\n").unwrap();
            fs::write(root.join("dev/null"), "fake\n").unwrap();
        });
    let c = c.with(|c| {
        let mounts = c["mounts"].as_array_mut().unwrap();
        mounts.retain(|m| !m["destination"].as_str().unwrap().starts_with("/dev"));
        c["linux"]["maskedPaths"] = json!(["/etc/secret", "/proc/kcore"]);
    });
    let out = c.run();
    assert!(!out.stdout.contains("secret") && !out.stdout.contains("fake"), "{out}");
}

/// CVE-2025-31133: a /dev from elsewhere, in which no device is made, and whose null is something else.
#[test]
fn cve_2025_31133_a_mask_is_the_hosts_null() {
    differs!(Runc, "1.1.5 is open to it");
    differs!(Crun, "1.8.1 is open to it");
    let c = Container::sh("bounddev", "cat /etc/secret").prepare(|root| {
        fs::write(root.join("etc/secret"), "secret\n").unwrap();
        fs::create_dir(root.join("otherdev")).unwrap();
        fs::write(root.join("otherdev/null"), "fake\n").unwrap();
    });
    let source = c.bundle.rootfs().join("otherdev").display().to_string();
    let c = c.with(|c| {
        let mounts = c["mounts"].as_array_mut().unwrap();
        mounts.retain(|m| !m["destination"].as_str().unwrap().starts_with("/dev"));
        mounts.push(mount("/dev", "bind", &source, &["rbind"]));
        c["linux"]["maskedPaths"] = json!(["/etc/secret"]);
    });
    c.run().ok().says("");
}

/// CVE-2025-31133: /dev/null as a symlink that the runtime would follow when it masks.
#[test]
fn cve_2025_31133_a_linked_null_leads_nowhere() {
    let victim = integration::janitor::scratch().join("victim3");
    fs::write(&victim, "content\n").unwrap();
    let c = Container::sh("linkednull", "cat /etc/secret").prepare(|root| {
        fs::write(root.join("etc/secret"), "secret\n").unwrap();
        symlink("/etc/passwd", root.join("dev/null")).unwrap();
    });
    let c = c.with(|c| {
        c["mounts"]
            .as_array_mut()
            .unwrap()
            .retain(|m| !m["destination"].as_str().unwrap().starts_with("/dev"));
        c["linux"]["maskedPaths"] = json!(["/etc/secret"]);
    });
    let out = c.run();
    assert!(!out.stdout.contains("secret") && !out.stdout.contains("root:"), "{out}");
    assert_eq!(fs::read_to_string(&victim).unwrap(), "content\n");
}

/// CVE-2025-52565: /dev/console and /dev/pts/N as symlinks.
#[test]
fn cve_2025_52565_the_console_is_the_containers() {
    differs!(Runc, "1.1.5 is open to it");
    let c = Container::sh("cve52565", "stat -c %t:%T /dev/console; tty").prepare(|root| {
        let _ = symlink("/etc/passwd", root.join("dev/console"));
    });
    let c = c.with(|c| {
        c["process"]["terminal"] = true.into();
        // No fresh /dev: the image's own is used.
        c["mounts"].as_array_mut().unwrap().retain(|m| m["destination"] != "/dev");
    });
    let socket = integration::console::ConsoleSocket::new(&c.id);
    let out = c.create_with(&["--console-socket", socket.path.to_str().unwrap()]);
    if out.code == 0 {
        c.start();
        let _ = socket.receive();
    }
    let passwd = fs::read_to_string(c.bundle.rootfs().join("etc/passwd")).unwrap();
    assert!(passwd.starts_with("root:"), "{passwd}");
}

/// CVE-2025-52565: the image's /dev/pts is no devpts: its ptmx leads to the host's, and the numbers to a file that the
/// console would then be.
#[test]
fn cve_2025_52565_the_terminal_comes_from_a_devpts() {
    differs!(Runc, "1.1.5 is open to it");
    differs!(Crun, "opens ptmx of the mount it made");
    let c = Container::sh("fakepts", "cat /dev/console").prepare(|root| {
        fs::create_dir_all(root.join("dev/pts")).unwrap();
        fs::write(root.join("etc/secret"), "secret\n").unwrap();
        symlink("/dev/ptmx", root.join("dev/pts/ptmx")).unwrap();
        (0..200).for_each(|n| symlink("/etc/secret", root.join(format!("dev/pts/{n}"))).unwrap());
    });
    let c = c.with(|c| {
        c["process"]["terminal"] = true.into();
        let mounts = c["mounts"].as_array_mut().unwrap();
        mounts.retain(|m| !m["destination"].as_str().unwrap().starts_with("/dev"));
    });
    let socket = integration::console::ConsoleSocket::new(&c.id);
    c.create_with(&["--console-socket", socket.path.to_str().unwrap()]).fails_with("/dev/pts/ptmx");
    assert_eq!(c.leftovers(), Vec::<String>::new());
}

/// CVE-2025-52881: without a procfs of its own the container has at /proc what the image put there.
#[test]
fn cve_2025_52881_a_fake_proc_gets_no_writes() {
    differs!(Runc, "1.1.5 is open to it");
    differs!(Crun, "1.8.1 writes by path");
    let c =
        Container::sh("fakeproc", "cat /real/sys/kernel/msgmax /real/self/oom_score_adj").prepare(|root| {
            fs::create_dir_all(root.join("proc/sys/kernel")).unwrap();
            fs::write(root.join("proc/sys/kernel/msgmax"), "").unwrap();
        });
    let c = c.with(|c| {
        c["mounts"].as_array_mut().unwrap().retain(|m| m["destination"] != "/proc");
        c["linux"]["sysctl"] = json!({ "kernel.msgmax": "4711" });
        c["process"]["oomScoreAdj"] = 300.into();
        c["linux"]["maskedPaths"] = json!([]);
        c["linux"]["readonlyPaths"] = json!([]);
    });
    let c = c.mount(mount("/real", "proc", "proc", &[]));
    c.run().ok().says("4711\n300");
    assert_eq!(fs::read_to_string(c.bundle.rootfs().join("proc/sys/kernel/msgmax")).unwrap(), "");
}

/// CVE-2025-52881: what is written to /proc (sysctl, labels) goes to the real procfs, whatever lies over it.
#[test]
fn cve_2025_52881_writes_go_to_the_real_procfs() {
    differs!(Crun, "lets most of /proc be covered");
    differs!(Runc, "1.1.5 lets files of /proc/self be covered");
    // Only the files that lxcfs covers may be covered.
    for point in ["/proc/sys", "/proc/self/attr", "/proc/1", "/proc/self/task/1/attr"] {
        let c = Container::new("cover").mount(mount(point, "tmpfs", "tmpfs", &[]));
        c.run().fails();
        assert_eq!(c.leftovers(), Vec::<String>::new());
    }
    let c = Container::sh("lxcfs", "cat /proc/uptime").mount(mount(
        "/proc/uptime",
        "bind",
        "/etc/hostname",
        &["bind"],
    ));
    c.run().ok();
}

/// CVE-2022-24769, CVE-2022-29162, CVE-2022-27650: inheritable capabilities stay empty unless named.
#[test]
fn cve_2022_29162_no_inheritable_capabilities() {
    let c = Container::sleeping("cve29162").up();
    let script = "grep CapInh /proc/self/status";
    c.exec(&["sh", "-c", script]).ok().says("CapInh:\t0000000000000000");
    let out = c.exec_with(&["--cap", "CAP_SYS_PTRACE"], &["sh", "-c", script]).ok();
    if integration::peer() == integration::Peer::Hydra {
        out.says("CapInh:\t0000000000000000");
    }
    Container::sh("inherit", script).run().ok().says("CapInh:\t0000000000000000");
}

/// CVE-2026-41579: /dev is a symlink in the image.
#[test]
fn cve_2026_41579_dev_must_not_lead_out() {
    differs!(Runc, "1.1.5 is open to it");
    let victim = integration::janitor::scratch().join("victim4");
    fs::create_dir_all(&victim).unwrap();
    for with_mount in [true, false] {
        let c = Container::new("cve41579").prepare(|root| {
            fs::remove_dir_all(root.join("dev")).unwrap();
            symlink(format!("../../../../../../../../../..{}", victim.display()), root.join("dev")).unwrap();
        });
        let c = c.with(|c| {
            c["mounts"].as_array_mut().unwrap().retain(|m| {
                let point = m["destination"].as_str().unwrap();
                !point.starts_with("/dev/") && (with_mount || point != "/dev")
            });
        });
        c.run();
        assert_eq!(fs::read_dir(&victim).unwrap().count(), 0, "devices were made outside of the root");
        assert_eq!(host::mounts_below(&victim), Vec::<std::path::PathBuf>::new());
    }
}

/// CVE-2026-30892: `exec -u` takes numbers and nothing else.
#[test]
fn cve_2026_30892_users_are_numbers() {
    differs!(Runc, "1.1.5 is open to it");
    differs!(Crun, "the one that had it");
    let c = Container::sleeping("cve30892").up();
    for user in ["user", "1000:user", "0x3e8", "1e3", "-1", "4294967296", ""] {
        let out = c.exec_with(&[&format!("--user={user}")], &["id", "-u"]);
        assert!(out.code != 0 || (user.is_empty() && out.stdout.trim() == "0"), "{user:?}: {out}");
    }
}

/// To setresuid(2) the greatest number means "as it is": who asks for that user must not be root.
#[test]
fn the_number_of_no_user_is_refused() {
    differs!(Crun, "1.8 runs it as root");
    const NOBODY: u32 = u32::MAX;
    for user in [
        json!({ "uid": NOBODY, "gid": 1000 }),
        json!({ "uid": 1000, "gid": NOBODY }),
        json!({ "uid": 1000, "gid": 1000, "additionalGids": [NOBODY] }),
    ] {
        let c = Container::new("nouser").args(&["true"]).with(|c| c["process"]["user"] = user);
        c.run().fails();
    }
    let c = Container::sleeping("nouserexec").up();
    for flag in ["--user=4294967295", "--user=1000:4294967295"] {
        c.exec_with(&[flag], &["true"]).fails();
    }
}

/// CVE-2023-25809: without a cgroup namespace the host's cgroup tree must not be writable from inside.
#[test]
fn cve_2023_25809_the_hosts_cgroups_cannot_be_written() {
    let c = Container::sh("cve25809", "for f in $(find /sys/fs/cgroup -name cgroup.procs -maxdepth 2); do mkdir ${f%/*}/escape && echo made ${f%/*}; done; true")
        .mount(mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "ro"]));
    let out = c.run();
    assert!(!out.stdout.contains("made") && out.stderr.contains("Read-only file system"), "{out}");
}

/// The same through /sys, of which only the host's can be shown to a user namespace in the host's network.
#[test]
fn cve_2023_25809_nor_through_the_hosts_sys() {
    differs!(Runc, "refuses the mount");
    differs!(Crun, "leaves them writable");
    let map = json!([{ "containerID": 0, "hostID": 0, "size": 1000 }]);
    let c = Container::sh("cve25809sys", "cat /proc/self/mountinfo")
        .namespace("user", None)
        .without_namespace("network")
        .with(|c| {
            c["linux"]["uidMappings"] = map.clone();
            c["linux"]["gidMappings"] = map.clone();
            let mounts = c["mounts"].as_array_mut().unwrap();
            mounts.retain(|m| !m["destination"].as_str().unwrap_or_default().starts_with("/sys"));
        })
        .mount(mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]));
    let out = c.run();
    if host::kernel_before(5, 12) || out.stderr.contains("Linux 5.12") {
        return;
    }
    let below = |line: &&str| line.split(' ').nth(4).is_some_and(|point| point.starts_with("/sys"));
    // The mask is ours.
    let below = |line: &&str| below(line) && !line.contains(" /sys/firmware ");
    let lines: Vec<_> = out.stdout.lines().filter(below).collect();
    assert!(!lines.is_empty(), "{out}");
    for line in lines {
        let options = line.split(' ').nth(5).unwrap();
        let all = ["ro", "nosuid", "nodev", "noexec"];
        assert!(all.iter().all(|o| options.split(',').any(|has| has == *o)), "{line}");
    }
}

/// CVE-2021-43784: a length of 16 bits overflowed in the message that runc sends its first process. There is no such
/// message here (that process is a copy of the runtime, with the plan in its memory); long lists must arrive all the same.
#[test]
fn cve_2021_43784_long_lists_keep_their_end() {
    let many: Vec<String> = (0..4000).map(|i| format!("V{i}={}", "x".repeat(20))).collect();
    let c = Container::sh("cve43784", "echo $V3999; echo $LAST").with(|c| {
        let env = c["process"]["env"].as_array_mut().unwrap();
        env.extend(many.into_iter().map(Into::into));
        env.push("LAST=end".into());
    });
    let out = c.run().ok();
    assert!(out.stdout.contains("xxxxxxxxxxxxxxxxxxxx") && out.stdout.ends_with("end\n"), "{out}");
}

/// What the runtime leaves on disk is nobody else's business.
#[test]
fn the_state_cannot_be_written_by_others() {
    let c = Container::sleeping("statemode").up();
    for entry in fs::read_dir(c.root.join(&c.id)).unwrap().flatten() {
        let mode = entry.metadata().unwrap().permissions().mode();
        let socket_or_fifo = !entry.file_type().unwrap().is_file();
        assert!(mode & 0o022 == 0 || socket_or_fifo, "{}: {mode:o}", entry.path().display());
    }
    Run::new("true").ok();
}
