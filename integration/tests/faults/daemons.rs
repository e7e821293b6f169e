//! dockerd and containerd killed, again and again, under containers that write and end all the while.

use crate::{full, missing};
use integration::engine::{away, killed, Engine, IMAGE, KILLED};
use integration::{eventually, host, skip, Run};

const KILLS: u64 = 3;

/// How many containers write in each of the two Dockers.
fn containers() -> usize {
    if full() {
        100
    } else {
        20
    }
}

/// Many write slower: each line is a program that starts, in all some 800 a second.
fn slower() -> usize {
    containers() / 20
}

/// Lines that the container writes before it ends, one in some 50 ms of twenty. Those with a high number are started first and write
/// the most; they end around and between the kills, some while the daemons are away.
fn lines(n: usize) -> usize {
    (60 + n * 20 + n * 37 % 150) / slower()
}

fn code(n: usize) -> usize {
    1 + n % 100
}

fn name(n: usize) -> String {
    format!("writer{n}")
}

fn start(engine: &Engine, runtime: &str) {
    for n in (0..containers()).rev() {
        let script = format!(
            "i=0; while [ $i -lt {} ]; do i=$((i+1)); echo line $i; sleep {}; done; exit {}",
            lines(n),
            0.05 * slower() as f64,
            code(n)
        );
        let args =
            ["run", "-d", "--network", "none", "--runtime", runtime, "--name", &name(n), IMAGE, "sh", "-c"];
        engine.cli().args(args).args([&script]).ok();
    }
}

/// What a daemon was told, and what it has of it.
#[derive(Debug, Default)]
struct Ledger {
    lines_lost: usize,
    /// Whose they are: the lines before and after each gap.
    gaps: Vec<String>,
    /// Statuses that dockerd had been told and forgot, as with any monitor: see `was_told`.
    forgotten: usize,
    /// Other wrong ones, each with what the daemons said of it.
    wrong: Vec<String>,
}

/// No line of a log may be doubled or out of order.
fn ledger(engine: &Engine) -> Ledger {
    let mut ledger = Ledger::default();
    for n in 0..containers() {
        let ended = engine.cli().args(["wait", &name(n)]).patient(4).ok().stdout;
        if ended.trim() != code(n).to_string() {
            let id = engine.docker(&["inspect", "-f", "{{.Id}}", &name(n)]).ok().stdout;
            let said = engine.said_of(id.trim());
            let whose = engine.dir().display();
            match was_told(&said) {
                true => ledger.forgotten += 1,
                false => ledger.wrong.push(format!("{} of {whose} {} is {ended}{said}", name(n), code(n))),
            }
        }
        let text = engine.docker(&["logs", &name(n)]).ok().stdout;
        let number = |l: &str| l.strip_prefix("line ").and_then(|n| n.parse::<usize>().ok());
        let seen: Vec<usize> = text.lines().filter_map(number).collect();
        assert!(seen.windows(2).all(|w| w[0] < w[1]), "the log of {}: {text}", name(n));
        ledger.lines_lost += lines(n) - seen.len();
        let ends: Vec<usize> = [0].into_iter().chain(seen).chain([lines(n) + 1]).collect();
        let gaps = ends.windows(2).filter(|w| w[0] + 1 != w[1]);
        ledger.gaps.extend(gaps.map(|w| format!("{}: {}, {}", name(n), w[0], w[1])));
        engine.docker(&["rm", &name(n)]).ok();
    }
    ledger
}

/// dockerd has the task of an ended container deleted, waits up to two seconds for its output, and only then writes the status down.
/// Killed in between, it finds no task when it is back, and makes a status up: 255, or 0. Its log shows the delete, and the kill a few
/// seconds after it.
fn was_told(said: &str) -> bool {
    let seconds = |line: &str| {
        let clock = line.split_once('T')?.1;
        let mut parts = clock.splitn(3, ':').map(|p| p.get(..2).and_then(|p| p.parse::<u64>().ok()));
        Some(parts.next()?? * 3600 + parts.next()?? * 60 + parts.next()??)
    };
    let mut lines = said.lines().skip_while(|l| !l.contains("topic=/tasks/delete"));
    let deleted = lines.next().and_then(seconds);
    let killed = lines.find(|l| l.ends_with(KILLED)).and_then(seconds);
    deleted.zip(killed).is_some_and(|(deleted, killed)| killed.saturating_sub(deleted) <= 10)
}

/// While the daemons are away, the monitor tells what they would.
fn ask_the_monitor(id: &str) {
    let runtime = |verb: &str| Run::new(host::runtime()).args([verb, id]);
    // Among a hundred it may not have come to write yet.
    eventually("logs without a daemon", || runtime("logs").ok().stdout.starts_with("line 1\n"));
    runtime("wait").patient(4).out().exits(code(0) as i32);
}

#[test]
fn both_daemons_killed_under_writing_containers() {
    if let Some(reason) = missing() {
        skip!("{reason}");
    }
    let (ours, theirs) = match killed() {
        Ok(both) => both,
        Err(reason) => skip!("{reason}"),
    };
    start(&theirs, "runc");
    start(&ours, "shimmed");
    let id = ours.docker(&["inspect", "-f", "{{.Id}}", &name(0)]).ok().stdout.trim().to_string();
    for round in 0..KILLS {
        for engine in [&ours, &theirs] {
            engine.kill();
        }
        if round == 0 {
            ask_the_monitor(&id);
        }
        std::thread::sleep(std::time::Duration::from_millis(300 * round));
        for engine in [&ours, &theirs] {
            engine.launch().expect("the daemons come back");
        }
        let fresh = ["run", "--rm", "--network", "none", "--runtime", "shimmed", IMAGE, "sh", "-c", "exit 9"];
        ours.cli().args(fresh).out().exits(9);
    }
    let [ours, theirs] = [ledger(&ours), ledger(&theirs)];
    println!("{} containers, {KILLS} kills of both daemons: {ours:?} with our monitor, {theirs:?} with containerd's", containers());
    assert!(ours.lines_lost <= theirs.lines_lost, "{ours:?} {theirs:?}");
    // With its own shim containerd, from 1.7 on, deletes at its start what has ended, and nobody learns how.
    assert!(ours.wrong.is_empty(), "{}", ours.wrong.join("\n"));
}

/// Docker's containers by what is done to each while both daemons are away. Each daemon that is back knows it, and can go on from it.
#[test]
fn what_is_done_without_the_daemons_they_learn() {
    if let Some(reason) = missing() {
        skip!("{reason}");
    }
    let engine = match away() {
        Ok(engine) => engine,
        Err(reason) => skip!("{reason}"),
    };
    let docker = |args: &[&str]| engine.docker(args).ok().stdout.trim().to_string();
    let all = ["paused", "resumed", "killed", "deleted", "updated", "attached", "ended"];
    // It lingers after it was told to end, or who tells it would be killed with it.
    let script = "i=0; while [ ! -e /end ]; do i=$((i+1)); echo tick $i; sleep 0.1; done; sleep 2; exit 33";
    let ids = all.map(|name| {
        let args =
            ["run", "-d", "--network", "none", "--runtime", "shimmed", "--pids-limit", "60", "--name", name];
        engine.cli().args(args).args([IMAGE, "sh", "-c", script]).ok().stdout.trim().to_string()
    });
    let id = |name: &str| ids[all.iter().position(|n| *n == name).expect("a name")].as_str();
    docker(&["pause", "resumed"]);
    let find = format!("find {0}/exec /run/containerd/hydra/moby -type d -name {1} -path '*moby/{1}' | grep -v containerd/daemon | head -1", engine.dir().display(), id("paused"));
    let root = Run::sh(&find).ok().stdout.trim().rsplit_once('/').expect("the runtime's state").0.to_string();
    let runtime = |verb: &str, name: &str, more: &[&str]| {
        Run::new(host::runtime()).args(["--root", &root, verb]).args([id(name)]).args(more).patient(4)
    };
    let pid = docker(&["inspect", "-f", "{{.State.Pid}}", "updated"]);
    let limit = || {
        let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("its cgroup");
        let of = |l: &str| {
            l.contains(":pids:")
                .then(|| format!("/sys/fs/cgroup/pids{}", l.rsplit(':').next().unwrap_or_default()))
        };
        let v2 = || format!("/sys/fs/cgroup{}", groups.trim().trim_start_matches("0::"));
        let dir = groups.lines().find_map(of).unwrap_or_else(v2);
        std::fs::read_to_string(format!("{dir}/pids.max")).expect("the limit").trim().to_string()
    };
    assert_eq!(limit(), "60");

    engine.kill();
    let attached = runtime("attach", "attached", &["--no-stdin"]).start();
    let waiting = runtime("wait", "ended", &[]).start();
    runtime("pause", "paused", &[]).ok();
    runtime("resume", "resumed", &[]).ok();
    runtime("exec", "updated", &["sh", "-c", "echo seen >/mark; exit 5"]).out().exits(5);
    runtime("update", "updated", &["--pids-limit", "77"]).ok();
    runtime("kill", "killed", &["KILL"]).ok();
    runtime("wait", "killed", &[]).out().exits(137);
    runtime("delete", "deleted", &["--force"]).ok();
    eventually("what it writes is seen", || attached.stdout().matches("tick").count() > 3);
    runtime("exec", "attached", &["touch", "/end"]).ok();
    attached.out().exits(33);
    assert!(runtime("logs", "attached", &[]).ok().stdout.starts_with("tick 1\n"));
    assert!(runtime("exec", "killed", &["true"]).out().code != 0, "it has ended");
    engine.launch().expect("the daemons come back");

    let state = |name: &str, of: &str| docker(&["inspect", "-f", &format!("{{{{.State.{of}}}}}"), name]);
    assert_eq!([state("resumed", "Status"), state("updated", "Status")], ["running", "running"]);
    // dockerd asks only about those that it knows as paused; containerd knows of this one too.
    let ctr = Run::new("ctr").args(["--namespace", "moby", "--address"]).args([engine.containerd()]);
    let tasks = ctr.args(["task", "ls"]).ok().stdout;
    let of = |l: &&str| l.starts_with(id("paused"));
    assert!(tasks.lines().find(of).is_some_and(|l| l.trim().ends_with("PAUSED")), "{tasks}");
    runtime("resume", "paused", &[]).ok();
    // Where the news of the pause has reached dockerd after all, that of the end has to as well.
    eventually("it runs for dockerd, too", || state("paused", "Status") == "running");
    docker(&["exec", "paused", "true"]);
    for (name, code) in [("killed", "137"), ("deleted", "137"), ("attached", "33")] {
        assert_eq!(engine.cli().args(["wait", name]).patient(4).ok().stdout.trim(), code, "{name}");
        assert_eq!([state(name, "Status"), state(name, "ExitCode")], ["exited", code], "{name}");
    }
    assert_eq!(limit(), "77");
    assert_eq!(docker(&["exec", "updated", "cat", "/mark"]), "seen");
    // Who waited at the monitor all the while hears of an end that a daemon has brought about, at the same time as others do.
    let other = engine.cli().args(["wait", "ended"]).patient(4).start();
    docker(&["exec", "ended", "touch", "/end"]);
    waiting.out().exits(33);
    assert_eq!(other.out().ok().stdout.trim(), "33");
    // What was deleted under dockerd's hands can be started anew, and deleted.
    docker(&["start", "deleted"]);
    assert_eq!(state("deleted", "Status"), "running");
    for name in all {
        docker(&["rm", "-f", name]);
    }
    let left = Run::new(host::shim()).args(["list"]).ok().stdout;
    assert!(!ids.iter().any(|id| left.contains(id)), "{left}");
}
