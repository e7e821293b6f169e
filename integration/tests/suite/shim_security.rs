//! Known attacks on monitors: what made them possible in others is not there in ours.

use crate::shim_options::{heads, runtime, sh, start};
use integration::ttrpc::Shim;
use integration::Peer;
use std::fs;
use std::os::unix::fs::PermissionsExt;

const NONE: [&str; 3] = ["", "", ""];

fn running(name: &str) -> Option<Shim> {
    if integration::peer() != Peer::Hydra {
        return None;
    }
    let mut shim = start(name, &[], sh("sleep 1000000"));
    let options = shim.options(&runtime());
    shim.create(false, NONE, options).expect("Create");
    shim.call("Start").expect("Start");
    Some(shim)
}

macro_rules! running {
    ($name:expr) => {
        match running($name) {
            Some(shim) => shim,
            None => integration::skip!("the shim is ours"),
        }
    };
}

/// A FIFO for output that is open, and from which nobody reads.
fn unread(shim: &Shim) -> (String, fs::File) {
    let path = shim.bundle.dir.join("unread");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o600)).expect("a FIFO");
    let held = fs::File::options().read(true).write(true).open(&path).expect("its reader");
    (path.to_str().expect("a path").to_string(), held)
}

fn open_files(pids: &[i32]) -> Vec<String> {
    let links = |pid: &i32| fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    pids.iter()
        .flat_map(links)
        .filter_map(|e| fs::read_link(e.path()).ok()?.to_str().map(str::to_string))
        .collect()
}

/// A socket without a path is open to everybody in the network namespace: to containers of the host's network too.
#[test]
fn cve_2020_15257_no_socket_of_the_monitor_is_abstract() {
    let shim = running!("abstract");
    let pids = heads(&shim.id);
    assert!(!pids.is_empty(), "a monitor");
    let own = open_files(&pids);
    let listed = fs::read_to_string("/proc/net/unix").expect("the sockets");
    let of =
        |line: &&str| line.split_whitespace().nth(6).is_some_and(|n| own.contains(&format!("socket:[{n}]")));
    let named: Vec<&str> = listed.lines().filter(of).filter_map(|l| l.split_whitespace().nth(7)).collect();
    assert!(named.len() >= 2, "containerd's socket and the monitor's own: {named:?}");
    for path in named {
        assert!(path.starts_with('/'), "an abstract socket: {path}");
        assert_eq!(fs::metadata(path).expect(path).permissions().mode() & 0o777, 0o600, "{path}");
    }
    shim.end();
}

/// What a probe's exec prints is never the monitor's memory, however much it is and whether or not somebody reads.
#[test]
fn cve_2022_31030_output_that_nobody_reads_is_not_kept_in_memory() {
    let mut shim = running!("unread");
    let (out, _held) = unread(&shim);
    shim.exec("big", false, ["", &out, ""], &["sh", "-c", "head -c 268435456 /dev/zero"]).expect("Exec");
    shim.start_exec("big").expect("Start");
    std::thread::sleep(std::time::Duration::from_secs(2));
    for pid in heads(&shim.id) {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).expect("a peak");
        let kib: u64 = peak.trim().trim_end_matches(" kB").parse().expect("a number");
        assert!(kib < 8192, "head {pid} has grown to {kib} KiB");
    }
    shim.kill("big", 9, false).expect("Kill");
    shim.wait("big").expect("Wait");
    shim.delete_exec("big").expect("Delete");
    shim.end();
}

/// A terminal whose process never came to life leaves no task, descriptor or socket waiting for its size.
#[test]
fn cve_2022_23471_a_terminal_that_never_lived_leaves_nothing() {
    let mut shim = running!("terminals");
    let count = |shim: &Shim| open_files(&heads(&shim.id)).len();
    let mut before = 0;
    for n in 0..20 {
        let name = format!("t{n}");
        shim.exec(&name, true, NONE, &["/no/such/program"]).expect("Exec");
        shim.start_exec(&name).expect_err("Start of a program that isn't there");
        shim.delete_exec(&name).expect("Delete");
        if n == 4 {
            before = count(&shim);
        }
    }
    integration::eventually("no descriptor more", || count(&shim) <= before);
    shim.end();
}

/// Somebody holds the output of a container that has ended open and reads nothing: its end is told and its deletion done all the same.
#[test]
fn cve_2026_53495_output_that_is_stuck_holds_up_no_end() {
    if integration::peer() != Peer::Hydra {
        integration::skip!("the shim is ours");
    }
    let mut shim = start("stuck", &[], sh("head -c 1048576 /dev/zero & sleep 0.5; exit 7"));
    let (out, _held) = unread(&shim);
    let options = shim.options(&runtime());
    shim.create(false, ["", &out, ""], options).expect("Create");
    shim.call("Start").expect("Start");
    assert_eq!(shim.wait("").expect("Wait").get(1), 7);
    shim.call("Delete").expect("Delete");
    shim.end();
}
