//! `probe NAMESPACES [SYSCTL]...`: says what a process finds around it, as lines `what: value` that two runtimes can be
//! compared by. Runs as a container's only program, without a C library or a shell in the root file system.
//!
//! NAMESPACES are the caller's own, as `name=number,...`, so that a namespace can be told to be `host` or `other`.

#![no_main]

#[allow(unsafe_code)]
mod sys;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

fn probe() {
    let mut args = std::env::args().skip(1);
    let host = args.next().unwrap_or_default();
    // Before anything is opened here.
    descriptors();
    status();
    namespaces(&host);
    process(&host);
    mounts();
    devices(Path::new("/dev"));
    files();
    args.for_each(|key| show(&format!("sysctl {key}"), read(&format!("/proc/sys/{key}"))));
    verdicts();
    println!("end: of the probe");
}

fn show(what: &str, value: impl std::fmt::Display) {
    println!("{what}: {}", value.to_string().trim_end().replace('\n', " | "));
}

/// A file's text, or why there is none.
fn read(path: &str) -> String {
    let mut bytes = Vec::new();
    match fs::File::open(path).and_then(|mut f| f.read_to_end(&mut bytes)) {
        Ok(_) => String::from_utf8_lossy(&bytes).replace('\t', " "),
        Err(e) => format!("({})", errno(&e)),
    }
}

fn errno(e: &std::io::Error) -> String {
    e.raw_os_error().map_or(e.to_string(), |n| format!("errno {n}"))
}

fn descriptors() {
    for fd in 0..64 {
        let Ok(target) = fs::read_link(format!("/proc/self/fd/{fd}")) else { continue };
        let target = target.to_string_lossy().into_owned();
        // Pipes and files of the caller's differ from run to run.
        let kind = target.split(':').next().unwrap_or_default();
        let kind = if target.starts_with('/') && !target.starts_with("/dev") { "file" } else { kind };
        show(&format!("fd {fd}"), format!("{kind} tty={}", sys::is_a_tty(fd)));
    }
    show("window", sys::window());
}

/// What `/proc/self/status` says of ids, capabilities, signals, masks and modes.
fn status() {
    const WANTED: &[&str] = &[
        "Umask",
        "TracerPid",
        "Uid",
        "Gid",
        "Groups",
        "NStgid",
        "NSpgid",
        "NSsid",
        "Threads",
        "SigPnd",
        "ShdPnd",
        "SigBlk",
        "SigIgn",
        "SigCgt",
        "CapInh",
        "CapPrm",
        "CapEff",
        "CapBnd",
        "CapAmb",
        "NoNewPrivs",
        "Seccomp",
        "Seccomp_filters",
        "Speculation_Store_Bypass",
        "Cpus_allowed_list",
        "Mems_allowed_list",
        "CoreDumping",
    ];
    let text = read("/proc/self/status");
    for line in text.lines() {
        let Some((key, value)) = line.split_once(':') else { continue };
        if WANTED.contains(&key) {
            // In the host's pid namespace the numbers differ.
            let value = match key.starts_with("NS") && value.split_whitespace().next() != Some("1") {
                true => format!("{} levels", value.split_whitespace().count()),
                false => value.trim().to_string(),
            };
            show(&format!("status {key}"), value);
        }
    }
    for line in read("/proc/self/limits").lines().skip(1) {
        let words: Vec<&str> = line.split("  ").map(str::trim).filter(|w| !w.is_empty()).collect();
        show(&format!("limit {}", words[0]), words[1..].join(" "));
    }
}

fn namespaces(host: &str) {
    let own: BTreeMap<&str, &str> = host.split(',').filter_map(|n| n.split_once('=')).collect();
    for name in
        ["cgroup", "ipc", "mnt", "net", "pid", "pid_for_children", "time", "time_for_children", "user", "uts"]
    {
        let link = fs::read_link(format!("/proc/self/ns/{name}"));
        let link = link.map_or_else(|e| errno(&e), |l| l.to_string_lossy().into_owned());
        let number = link.split(['[', ']']).nth(1).unwrap_or(&link).to_string();
        let whose = if own.get(name) == Some(&number.as_str()) { "host" } else { "other" };
        show(&format!("namespace {name}"), whose);
    }
    for file in ["uid_map", "gid_map", "setgroups", "timens_offsets", "cgroup"] {
        let text = read(&format!("/proc/self/{file}"));
        let lines: Vec<String> =
            text.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        show(&format!("proc {file}"), lines.join(" | "));
    }
}

fn process(host: &str) {
    let mut env: Vec<String> = std::env::vars_os()
        .map(|(k, v)| format!("{}={}", k.to_string_lossy(), v.to_string_lossy()))
        .collect();
    env.sort();
    show("environment", env.join(" "));
    show("cwd", std::env::current_dir().map_or_else(|e| errno(&e), |d| d.display().to_string()));
    let name = nix::sys::utsname::uname().expect("uname");
    show("hostname", name.nodename().to_string_lossy());
    show("domainname", name.domainname().to_string_lossy());
    for file in [
        "oom_score_adj",
        "personality",
        "coredump_filter",
        "timerslack_ns",
        "comm",
        "loginuid",
        "attr/current",
    ] {
        show(&format!("proc {file}"), read(&format!("/proc/self/{file}")));
    }
    sys::priorities(show);
    show("session keyring", sys::session_keyring());
    let names: Vec<String> =
        read("/proc/net/dev").lines().filter_map(|l| Some(l.split_once(':')?.0.trim().to_string())).collect();
    let link = fs::read_link("/proc/self/ns/net").unwrap_or_default();
    let own =
        link.to_string_lossy().split(['[', ']']).nth(1).is_some_and(|n| host.contains(&format!("net={n},")));
    // The host's interfaces come and go.
    show("network", if own { "the host's".into() } else { names.join(" ") });
    show("loopback is up", read("/proc/net/fib_trie").contains("127.0.0.1"));
    show(
        "parent",
        match nix::unistd::getppid().as_raw() {
            0 => "none",
            _ => "some",
        },
    );
}

/// The mount table, each line without the numbers that change from run to run.
fn mounts() {
    let text = read("/proc/self/mountinfo");
    let mut lines: Vec<String> = text.lines().map(mount).collect();
    // Runtimes mask in different orders; of several mounts at one place the order stays.
    lines.sort_by_key(|l| l.split(' ').next().unwrap_or_default().to_string());
    let mut seen = BTreeMap::new();
    for line in lines {
        let (point, rest) = line.split_once(' ').unwrap_or_default();
        let nth = seen.entry(point.to_string()).and_modify(|n| *n += 1).or_insert(1);
        show(&format!("mount {point} {nth}"), rest);
    }
}

fn mount(line: &str) -> String {
    let (before, after) = line.split_once(" - ").unwrap_or_default();
    let fields: Vec<&str> = before.split(' ').collect();
    let propagation: Vec<&str> =
        fields[6..].iter().map(|f| f.split(':').next().unwrap_or_default()).collect();
    let kind: Vec<&str> = after.split(' ').collect();
    format!(
        "{} root={} {} [{}] {} {} {}",
        fields[4],
        fields[3],
        fields[5],
        propagation.join(","),
        kind[0],
        kind[1],
        kind.get(2).unwrap_or(&"")
    )
}

/// Every node below /dev: its kind, mode, owner, numbers or target, and whether it can be opened.
fn devices(dir: &Path) {
    let mut entries: Vec<_> = fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()).collect();
    entries.sort();
    for path in entries {
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        let kind = meta.file_type();
        let mut text = format!("mode={:o} owner={}:{}", meta.mode(), meta.uid(), meta.gid());
        if kind.is_symlink() {
            let target = fs::read_link(&path).map(|t| t.display().to_string());
            text = format!("-> {}", target.unwrap_or_default());
        } else if kind.is_char_device() || kind.is_block_device() {
            let opened = fs::File::options().read(true).custom_flags(0o4000).open(&path);
            let opened = opened.map_or_else(|e| errno(&e), |_| "opens".into());
            // A terminal's number is the next free one.
            let number = if path.ends_with("console") { 0 } else { meta.rdev() };
            text += &format!(" device={}:{} {opened}", number >> 8, number & 0xff);
        }
        show(&format!("node {}", path.display()), text);
        if kind.is_dir() && !path.ends_with("pts") {
            devices(&path);
        }
    }
}

/// Folders that a runtime makes or seals, and what can be done in them.
fn files() {
    for path in [
        "/",
        "/proc",
        "/sys",
        "/dev",
        "/tmp",
        "/made",
        "/made/deep",
        "/data",
        "/data/file",
        "/work",
        "/srv/deep",
    ] {
        let text = match fs::metadata(path) {
            Ok(m) => format!("mode={:o} owner={}:{}", m.mode(), m.uid(), m.gid()),
            Err(e) => errno(&e),
        };
        show(&format!("path {path}"), text);
    }
    for path in ["/", "/tmp", "/data", "/made", "/dev", "/dev/shm", "/sys", "/proc/sys/kernel"] {
        let file = format!("{path}/written");
        let written = fs::write(&file, "x").map_or_else(|e| errno(&e), |()| "yes".into());
        let _ = fs::remove_file(&file);
        show(&format!("writable {path}"), written);
    }
    for path in [
        "/proc/kcore",
        "/proc/keys",
        "/proc/timer_list",
        "/proc/latency_stats",
        "/proc/sched_debug",
        "/proc/scsi",
        "/sys/firmware",
        "/proc/acpi",
        "/proc/sys",
        "/proc/irq",
        "/proc/bus",
        "/proc/sysrq-trigger",
    ] {
        let what = match fs::metadata(path) {
            Ok(m) if m.is_dir() => {
                format!("folder of {}", fs::read_dir(path).map_or(0, |d| d.count().min(1)))
            }
            Ok(m) if m.file_type().is_char_device() => format!("device {}", m.rdev()),
            Ok(_) => "file".into(),
            Err(e) => errno(&e),
        };
        let open = fs::File::options().write(true).open(path);
        let open = if what.starts_with("folder") {
            "-".into()
        } else {
            open.map_or_else(|e| errno(&e), |_| "can be written".into())
        };
        show(&format!("sealed {path}"), format!("{what} {open}"));
    }
}

/// What each of these system calls comes back with, made by a child of its own with arguments that do no harm.
fn verdicts() {
    use libc::*;
    let bad = -1;
    // Number, and the arguments: wrong descriptors and addresses, so that an allowed call fails in its own way.
    let calls: &[(&str, c_long, [c_long; 4])] = &[
        ("acct", SYS_acct, [bad, 0, 0, 0]),
        ("add_key", SYS_add_key, [0, 0, 0, 0]),
        ("bpf", SYS_bpf, [bad, 0, 0, 0]),
        ("chmod", SYS_chmod, [bad, 0, 0, 0]),
        ("chown", SYS_chown, [bad, 0, 0, 0]),
        ("chroot", SYS_chroot, [bad, 0, 0, 0]),
        ("clock_adjtime", SYS_clock_adjtime, [0, bad, 0, 0]),
        ("clock_settime", SYS_clock_settime, [0, bad, 0, 0]),
        ("close_range", SYS_close_range, [900, 901, 0, 0]),
        ("copy_file_range", SYS_copy_file_range, [bad, 0, bad, 0]),
        ("delete_module", SYS_delete_module, [bad, 0, 0, 0]),
        ("dup3", SYS_dup3, [bad, bad, 0, 0]),
        ("epoll_create1", SYS_epoll_create1, [bad, 0, 0, 0]),
        ("faccessat2", SYS_faccessat2, [bad, bad, 0, 0]),
        ("fanotify_init", SYS_fanotify_init, [bad, 0, 0, 0]),
        ("flock", SYS_flock, [bad, 0, 0, 0]),
        ("fsopen", SYS_fsopen, [bad, 0, 0, 0]),
        ("fsmount", SYS_fsmount, [bad, 0, 0, 0]),
        ("futex", SYS_futex, [0, 99, 0, 0]),
        ("get_mempolicy", SYS_get_mempolicy, [0, 0, 0, 0]),
        ("getcpu", SYS_getcpu, [0, 0, 0, 0]),
        ("getpriority", SYS_getpriority, [0, 0, 0, 0]),
        ("getrandom", SYS_getrandom, [bad, 0, 0, 0]),
        ("inotify_init1", SYS_inotify_init1, [bad, 0, 0, 0]),
        ("io_uring_setup", SYS_io_uring_setup, [0, 0, 0, 0]),
        ("ioperm", SYS_ioperm, [bad, bad, 1, 0]),
        ("kcmp", SYS_kcmp, [bad, bad, 0, 0]),
        ("kexec_load", SYS_kexec_load, [0, 99, 0, bad]),
        ("keyctl", SYS_keyctl, [bad, 0, 0, 0]),
        ("kill", SYS_kill, [0x7fff_fff0, 0, 0, 0]),
        ("kill 10", SYS_kill, [0x7fff_fff0, 10, 0, 0]),
        ("lookup_dcookie", SYS_lookup_dcookie, [bad, 0, 0, 0]),
        ("mbind", SYS_mbind, [bad, 0, 99, 0]),
        ("memfd_create", SYS_memfd_create, [bad, 0, 0, 0]),
        ("mincore", SYS_mincore, [1, 0, 0, 0]),
        ("mkdir", SYS_mkdir, [bad, 0, 0, 0]),
        ("mkdirat", SYS_mkdirat, [bad, bad, 0, 0]),
        ("mknod", SYS_mknod, [bad, 0, 0, 0]),
        ("mlock2", SYS_mlock2, [bad, 1, 99, 0]),
        ("mount", SYS_mount, [bad, bad, bad, 0]),
        ("mount_setattr", SYS_mount_setattr, [bad, bad, 0, 0]),
        ("move_pages", SYS_move_pages, [bad, 0, 0, 0]),
        ("msgget", SYS_msgget, [77, 0, 0, 0]),
        ("name_to_handle_at", SYS_name_to_handle_at, [bad, bad, 0, 0]),
        ("nfsservctl", SYS_nfsservctl, [0, 0, 0, 0]),
        ("open_by_handle_at", SYS_open_by_handle_at, [bad, bad, 0, 0]),
        ("openat2", SYS_openat2, [bad, bad, 0, 0]),
        ("perf_event_open", SYS_perf_event_open, [bad, 0, 0, 0]),
        ("personality", SYS_personality, [0xffff_ffff, 0, 0, 0]),
        ("personality 8", SYS_personality, [8, 0, 0, 0]),
        ("pidfd_getfd", SYS_pidfd_getfd, [bad, 0, 0, 0]),
        ("pidfd_open", SYS_pidfd_open, [bad, 0, 0, 0]),
        ("pivot_root", SYS_pivot_root, [bad, bad, 0, 0]),
        ("prctl", SYS_prctl, [99999, 0, 0, 0]),
        ("process_vm_readv", SYS_process_vm_readv, [bad, 0, 0, 0]),
        ("ptrace", SYS_ptrace, [bad, bad, 0, 0]),
        ("quotactl", SYS_quotactl, [bad, bad, 0, 0]),
        ("renameat2", SYS_renameat2, [bad, bad, bad, bad]),
        ("request_key", SYS_request_key, [bad, 0, 0, 0]),
        ("rmdir", SYS_rmdir, [bad, 0, 0, 0]),
        ("sched_setattr", SYS_sched_setattr, [0, bad, 0, 0]),
        ("seccomp", SYS_seccomp, [bad, 0, 0, 0]),
        ("semget", SYS_semget, [77, 0, 0, 0]),
        ("sethostname", SYS_sethostname, [bad, 1, 0, 0]),
        ("setns", SYS_setns, [bad, 0, 0, 0]),
        ("setpriority", SYS_setpriority, [9, 0, 0, 0]),
        ("setrlimit", SYS_setrlimit, [99, bad, 0, 0]),
        ("settimeofday", SYS_settimeofday, [bad, bad, 0, 0]),
        ("shmget", SYS_shmget, [77, 0, 0, 0]),
        ("socket unix", SYS_socket, [1, 99, 0, 0]),
        ("socket vsock", SYS_socket, [40, 99, 0, 0]),
        ("socket inet", SYS_socket, [2, 99, 0, 0]),
        ("splice", SYS_splice, [bad, 0, bad, 0]),
        ("statx", SYS_statx, [bad, bad, 0, 0]),
        ("swapon", SYS_swapon, [bad, 0, 0, 0]),
        ("symlink", SYS_symlink, [bad, bad, 0, 0]),
        ("syslog", SYS_syslog, [99, 0, 0, 0]),
        ("timerfd_create", SYS_timerfd_create, [99, 0, 0, 0]),
        ("umount2", SYS_umount2, [bad, 0, 0, 0]),
        ("unlink", SYS_unlink, [bad, 0, 0, 0]),
        ("unshare", SYS_unshare, [8, 0, 0, 0]),
        ("unshare user", SYS_unshare, [CLONE_NEWUSER as c_long | 8, 0, 0, 0]),
        ("uselib", SYS_uselib, [bad, 0, 0, 0]),
        ("userfaultfd", SYS_userfaultfd, [99, 0, 0, 0]),
        ("ustat", SYS_ustat, [bad, bad, 0, 0]),
        ("utimensat", SYS_utimensat, [bad, bad, bad, 0]),
        ("vhangup of a call unknown", 999, [0, 0, 0, 0]),
        ("a call of x32", 0x4000_0000 + 39, [0, 0, 0, 0]),
    ];
    for (name, number, arguments) in calls {
        show(&format!("call {name}"), sys::verdict(*number, arguments));
    }
}
