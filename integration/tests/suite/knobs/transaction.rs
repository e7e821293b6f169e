//! `update` is one transaction: it happens whole or not at all, whatever fails and whenever it is killed.

use super::{annotated, files, inspected, memory, pids, update};
use integration::disk::{self, sh};
use integration::host::{self, Cgroups};
use integration::{eventually, skip, Container, Out, Run};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// A container with a network of its own, a veth into it and a disk to limit.
/// Network limits want a cgroup2 mount.
fn network() -> bool {
    host::cgroups() != Cgroups::V1
}

struct Rig {
    c: Container,
    node: String,
    image: PathBuf,
}

impl Rig {
    fn new(name: &str) -> Result<Rig, String> {
        let (image, node) = disk::image(16)?;
        if !network() {
            return Ok(Rig { c: Container::sleeping(name).up(), node, image });
        }
        let c = annotated(Container::sleeping(name), &[("hydra.net.ingress-rate", "80mbit")]).up();
        let (pid, host, peer) = (c.pid(), format!("hk{}", c.pid()), format!("hp{}", c.pid()));
        sh(&format!("ip link add {host} type veth peer name {peer} netns {pid} && ip link set {host} up"))?;
        Ok(Rig { c, node, image })
    }

    /// One update that names cgroup, block IO and, where they can be had, network knobs.
    fn flags(&self) -> Vec<String> {
        let blkio = format!("{}=3MB", self.node);
        let mut flags = vec![
            "--memory-limit",
            "96MiB",
            "--pids-limit",
            "77",
            "--cpu-max",
            "50000 100000",
            "--blkio-write-bps",
            &blkio,
        ];
        let net = ["--net-egress-rate=20mbit", "--net-ingress-rate=30mbit", "--net-ingress-mode=queue"];
        flags.extend(net.iter().filter(|_| network()));
        flags.into_iter().map(String::from).collect()
    }

    /// What sets everything back.
    fn back(&self) {
        let unset = [
            "memory.limit",
            "cpu.max",
            "blkio.write-bps",
            "net.egress-rate",
            "net.ingress-rate",
            "net.ingress-mode",
        ];
        let held = inspected(&self.c);
        let operator = |knob: &str| {
            held.as_array().into_iter().flatten().any(|r| r["knob"] == knob && r["from"] == "operator")
        };
        let mut args = vec!["--pids-limit", "90"];
        unset.iter().filter(|k| operator(k)).for_each(|k| args.extend(["--unset", k]));
        update(&self.c, &args).ok();
    }

    /// The program under strace, which does `inject` to it; not waited for longer than the program.
    fn under_strace(&self, inject: &[&str], log: &Path) -> Out {
        let mut args = vec!["-f".to_string(), "-qq".into(), "-o".into(), log.display().to_string()];
        for rule in inject {
            args.extend(["-e".to_string(), rule.to_string()]);
        }
        let run =
            Run::new("strace").args(&args).args([host::runtime()]).args(["--root"]).args([&self.c.root]);
        let run = if host::systemd_driver() { run.args(["--systemd-cgroup"]) } else { run };
        run.args(["update"]).args(self.flags()).args([&self.c.id]).out()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = sh(&format!("losetup -d {}; rm -f {}", self.node, self.image.display()));
    }
}

/// The calls by which `update` changes anything, and how often it makes each.
fn changing_calls(rig: &Rig) -> Vec<(String, usize)> {
    const CALLS: [&str; 11] = [
        "write",
        "bpf",
        "sendto",
        "sendmsg",
        "rename",
        "renameat",
        "renameat2",
        "unlink",
        "unlinkat",
        "openat",
        "writev",
    ];
    let log = rig.c.bundle.dir.join("calls");
    rig.under_strace(&[], &log).ok();
    rig.back();
    let text = fs::read_to_string(&log).unwrap();
    let count = |call: &str| {
        text.lines()
            .filter(|l| {
                l.split_once(' ').is_some_and(|(_, l)| l.trim_start().starts_with(&format!("{call}(")))
            })
            .count()
    };
    CALLS.iter().map(|call| (call.to_string(), count(call))).filter(|(_, n)| *n > 0).collect()
}

/// Everything as it was before, or everything as asked, and the state says which.
#[track_caller]
fn whole(
    rig: &Rig,
    old: &(BTreeMap<PathBuf, String>, Value),
    new: &(BTreeMap<PathBuf, String>, Value),
    what: &str,
) -> bool {
    let state = inspected(&rig.c);
    let files = files(&rig.c);
    assert_eq!(rig.c.status(), "running", "{what}");
    let is_new = state == new.1;
    assert!(
        is_new || state == old.1,
        "{what}: neither the old state nor the new: {state}\nold {}\nnew {}",
        old.1,
        new.1
    );
    let wanted = if is_new { &new.0 } else { &old.0 };
    for (path, text) in wanted {
        assert_eq!(
            files.get(path),
            Some(text),
            "{what}: the state is {}, but {}",
            if is_new { "new" } else { "old" },
            path.display()
        );
    }
    is_new
}

fn rig(name: &str) -> Result<(Rig, Vec<(String, usize)>), String> {
    if !Path::new("/usr/bin/strace").exists() {
        return Err("needs strace".into());
    }
    let rig = Rig::new(name)?;
    let calls = changing_calls(&rig);
    Ok((rig, calls))
}

/// What is before and after an undisturbed update.
fn ends(rig: &Rig) -> [(BTreeMap<PathBuf, String>, Value); 2] {
    rig.back();
    let old = (files(&rig.c), inspected(&rig.c));
    let flags = rig.flags();
    update(&rig.c, &flags.iter().map(String::as_str).collect::<Vec<_>>()).ok();
    let new = (files(&rig.c), inspected(&rig.c));
    rig.back();
    assert_eq!(old.1, inspected(&rig.c));
    assert!(old.0 != new.0 && old.1 != new.1);
    [old, new]
}

/// Each call that writes fails in turn: cgroup files, BPF, tc, systemd's socket, the journal, the state.
#[test]
fn every_write_fails_in_turn() {
    ours!();
    let (rig, calls) = match rig("fails") {
        Ok(made) => made,
        Err(why) => skip!("{why}"),
    };
    let [old, new] = ends(&rig);
    let log = rig.c.bundle.dir.join("log");
    let (mut failed, mut tried) = (0, 0);
    for (call, count) in &calls {
        let step = if host::quick() { (count / 8).max(1) } else { 1 };
        for n in (1..=*count).step_by(step) {
            tried += 1;
            let out = rig.under_strace(&[&format!("inject={call}:error=EIO:when={n}")], &log);
            let what = format!("{call} {n} of {count} fails");
            let complete = whole(&rig, &old, &new, &what);
            // The one that may fail after the fact is the removal of the journal, and a line on standard output.
            assert!(out.code != 0 || complete, "{what}: succeeded, and nothing changed: {out}");
            assert!(
                !complete || out.code == 0 || call.starts_with("unlink") || call == "write",
                "{what}: failed, and all is changed: {out}"
            );
            failed += usize::from(out.code != 0);
            if complete {
                rig.back();
            }
        }
    }
    println!("FIGURE update: {failed} of {tried} calls made to fail, each left the whole or nothing");
    assert!(failed >= 10, "{failed} of {tried}: {calls:?}");
}

/// From one call on all of a kind fail, so that nothing can be put back: that is said, and the next command does it.
#[test]
fn what_cannot_be_put_back_is_put_back_later() {
    ours!();
    let (rig, calls) = match rig("half") {
        Ok(made) => made,
        Err(why) => skip!("{why}"),
    };
    let [old, new] = ends(&rig);
    let log = rig.c.bundle.dir.join("log");
    let mut halves = 0;
    for (call, count) in calls.iter().filter(|(call, _)| ["write", "bpf", "sendto"].contains(&call.as_str()))
    {
        let step = if host::quick() { (count / 6).max(1) } else { 1 };
        for n in (1..=*count).step_by(step) {
            let out = rig.under_strace(&[&format!("inject={call}:error=EIO:when={n}+")], &log);
            let half = rig.c.root.join(&rig.c.id).join("update.json").exists();
            halves += usize::from(half);
            let what = format!("{call} fails from number {n} of {count} on");
            assert!(!half || out.code != 0, "{what}: {out}");
            if whole(&rig, &old, &new, &what) {
                rig.back();
            }
        }
    }
    println!("FIGURE update: {halves} halves were put back by the next command");
    assert!(halves > if network() { 3 } else { 0 }, "{halves}: {calls:?}");
}

/// Killed at each call that changes something: the next command finds the old state or the new one, and the kernel
/// agrees with it.
#[test]
fn killed_at_any_write() {
    ours!();
    let (rig, calls) = match rig("killed") {
        Ok(made) => made,
        Err(why) => skip!("{why}"),
    };
    let [old, new] = ends(&rig);
    let log = rig.c.bundle.dir.join("log");
    let (mut halves, mut complete) = (0, 0);
    let journal = rig.c.root.join(&rig.c.id).join("update.json");
    // Whatever comes next finishes it.
    let id = rig.c.id.as_str();
    let verbs: [&[&str]; 5] = [
        &["state", id],
        &["exec", id, "true"],
        &["stats", "--once", "--json", id],
        &["ps", id],
        &["inspect", id],
    ];
    for (call, count) in &calls {
        let step = if host::quick() || call == "openat" { (count / 8).max(1) } else { 1 };
        for n in (1..=*count).step_by(step) {
            rig.under_strace(&[&format!("inject={call}:signal=KILL:when={n}")], &log);
            if journal.exists() {
                rig.c.verb(verbs[(complete + halves) % verbs.len()]).ok();
                assert!(!journal.exists(), "killed at {call} {n}: the next command left it");
            }
            match whole(&rig, &old, &new, &format!("killed at {call} {n} of {count}")) {
                true => complete += 1,
                false => halves += 1,
            }
            rig.back();
        }
    }
    println!("FIGURE update killed {} times: {halves} taken back, {complete} complete", halves + complete);
    assert!(halves > 10 && complete > 0, "{calls:?}");
}

/// Updates at the same time come one after the other: what one of them wrote is never mixed with another's.
#[test]
fn updates_serialise() {
    ours!();
    let c = Container::sleeping("many").up();
    std::thread::scope(|scope| {
        for n in 1..=8u64 {
            let c = &c;
            scope.spawn(move || {
                for _ in 0..3 {
                    update(c, &["--memory", &format!("{}M", 32 * n), "--pids-limit", &(32 * n).to_string()])
                        .ok();
                }
            });
        }
    });
    let (memory, pids): (u64, u64) = (memory(&c).parse().unwrap(), pids(&c).parse().unwrap());
    assert_eq!(memory, pids << 20);
}

#[test]
fn a_lock_that_is_held_is_an_error_after_a_while() {
    ours!();
    let c = Container::sleeping("lock").up();
    let dir = fs::File::open(c.root.join(&c.id)).unwrap();
    let held = nix::fcntl::Flock::lock(dir, nix::fcntl::FlockArg::LockExclusive).unwrap();
    let text =
        format!("another command has been changing container {} for 10 s: wait for it or end it", c.id);
    let before = memory(&c);
    update(&c, &["--memory", "64M"]).fails_with(&text);
    assert_eq!(memory(&c), before);
    let _ = held.as_fd();
    drop(held);
    update(&c, &["--memory", "64M"]).ok();
}

/// /dev/null opens all the time, and the container is not frozen, but where systemd has a v1 list of devices, which it empties for a
/// moment with every change.
#[test]
fn an_update_never_stops_the_container() {
    ours!();
    let _alone = host::without_reloads();
    let script = "n=0; while :; do : >/dev/null || echo denied; n=$((n+1)); echo $n >/tmp/n; done";
    let c = annotated(Container::sh("null", script), &[("hydra.cpu.weight", "100")]).up();
    let counted = || {
        let text = fs::read_to_string(c.bundle.rootfs().join("tmp/n")).unwrap_or_default();
        text.trim().parse::<u64>().unwrap_or(0)
    };
    eventually("the loop runs", || counted() > 0);
    let before = counted();
    for n in 0..30 {
        update(&c, &["--pids-limit", &(50 + n).to_string(), "--cpu-weight", &(50 + n).to_string()]).ok();
    }
    eventually("the loop runs on", || counted() > before);
    assert_eq!(c.output(), "", "an open was denied");
    if Path::new("/usr/bin/strace").exists() {
        let log = c.bundle.dir.join("log");
        let run = Run::new("strace")
            .args(["-f", "-qq", "-o"])
            .args([&log])
            .args(["-e", "trace=openat,write,kill,bpf"]);
        run.args([host::runtime()])
            .args(["--root"])
            .args([&c.root])
            .args(["update", "--pids-limit", "40", &c.id])
            .ok();
        let text = fs::read_to_string(&log).unwrap();
        let systemd_v1 = host::systemd_driver() && host::cgroups() != Cgroups::V2;
        let stops = ["freezer", "cgroup.freeze", "devices.", "SIGSTOP", "PROG_ATTACH"];
        let stops = &stops[usize::from(systemd_v1)..];
        let found: Vec<_> =
            text.lines().filter(|l| !l.contains("O_RDONLY") && stops.iter().any(|s| l.contains(s))).collect();
        assert!(found.is_empty(), "{found:?}");
    }
}
