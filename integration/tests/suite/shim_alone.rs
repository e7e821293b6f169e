//! A monitor without any daemon: `shim run`, and the runtime's `attach`, `logs` and `wait`.

use integration::{eventually, host, janitor, Container, Out, Peer, Run};
use std::fs;
use std::path::PathBuf;

/// One container under a monitor of its own; gone at the end.
struct Alone {
    container: Container,
    root: String,
}

impl Alone {
    fn new(name: &str, script: &str) -> Alone {
        let container = Container::sh(name, script);
        container.bundle.write();
        let root = container.root.to_str().unwrap().to_string();
        let namespace = namespace();
        let shim = host::shim();
        janitor::at_end(&format!("rm -rf /run/hydra-shim/{namespace} /var/lib/hydra-shim/{namespace}"));
        janitor::at_end(&format!(
            "{} --root {root} delete --force {id}; {} forget --namespace {namespace} {id}",
            host::runtime().display(),
            shim.display(),
            id = container.id
        ));
        Alone { container, root }
    }

    fn with(self, change: impl FnOnce(&mut serde_json::Value)) -> Alone {
        let container = self.container.with(change);
        container.bundle.write();
        Alone { container, ..self }
    }

    fn run(&self, options: &[&str]) -> Run {
        let bundle = self.container.bundle.dir.to_str().unwrap();
        Run::new(host::shim())
            .args(["run", "--namespace", &namespace(), "--bundle", bundle, "--root", &self.root])
            .args(options)
            .args([&self.container.id])
    }

    /// The runtime, with its root and this container's name in front of `args`.
    fn runtime(&self, verb: &str, args: &[&str]) -> Run {
        let run = Run::new(host::runtime()).args(["--root", &self.root, verb]);
        run.args([&self.container.id]).args(args)
    }

    fn folder(&self) -> PathBuf {
        PathBuf::from(format!("/run/hydra-shim/{}/{}", namespace(), self.container.id))
    }

    fn record(&self) -> serde_json::Value {
        let text = fs::read_to_string(self.folder().join("exit.json")).expect("the record");
        serde_json::from_str(&text).expect("a whole record")
    }

    fn heads(&self) -> Vec<i32> {
        let name = format!("{}/{}", namespace(), self.container.id);
        let mut pids = host::processes_with(&name);
        pids.retain(|p| fs::read_link(format!("/proc/{p}/exe")).is_ok_and(|e| e.ends_with("shim")));
        pids
    }

    fn gone(&self) {
        eventually("the monitor goes", || self.heads().is_empty());
    }
}

fn namespace() -> String {
    format!("alone-{}", std::process::id())
}

macro_rules! ours {
    () => {
        if integration::peer() != Peer::Hydra {
            integration::skip!("the monitor is ours");
        }
    };
}

/// Where there are no pidfds the heads could not see each other's end, and none begins.
#[test]
fn a_kernel_without_pidfds_is_refused() {
    let without = host::runtime().with_file_name("without");
    if !without.exists() {
        integration::skip!("the program `without` isn't built");
    }
    let alone = Alone::new("nopidfd", "true");
    let bundle = alone.container.bundle.dir.to_str().unwrap();
    let shim = host::shim();
    let run = Run::new(&without).args(["pidfd"]).args([&shim]);
    let run = run.args(["run", "--namespace", &namespace(), "--bundle", bundle, "--root", &alone.root]);
    run.args([&alone.container.id]).out().fails_with("the monitor needs pidfds (Linux 5.3)");
    assert!(alone.heads().is_empty());
}

#[test]
fn a_container_runs_ends_and_is_remembered() {
    ours!();
    let alone = Alone::new("whole", "echo out; echo err >&2; read w </tmp/go; exit 6").with(|_| ());
    nix::unistd::mkfifo(&alone.container.bundle.rootfs().join("tmp/go"), nix::sys::stat::Mode::S_IRWXU)
        .unwrap();
    let pid = alone.run(&["--pid-file", alone.container.bundle.dir.join("pid").to_str().unwrap()]).ok();
    assert_eq!(fs::read_to_string(alone.container.bundle.dir.join("pid")).unwrap(), pid.stdout.trim());
    // Nobody's child: its starter has gone.
    assert_eq!(alone.heads().len(), 2, "two heads");
    let socket = alone.folder().join(format!("{}.sock", alone.container.id));
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(socket).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    // Several who ask at once get the same answer.
    let waiting: Vec<_> = (0..3).map(|_| alone.runtime("wait", &[]).start()).collect();
    eventually("the output is kept", || alone.runtime("logs", &[]).ok().stdout == "out\n");
    let state = alone.runtime("state", &[]).ok();
    assert_eq!(state.json()["status"], "running");
    // What lets it end is not done by an exec, which might end with it.
    alone.runtime("exec", &["test", "-p", "/tmp/go"]).ok();
    fs::write(alone.container.bundle.rootfs().join("tmp/go"), "\n").unwrap();
    for waiting in waiting {
        waiting.out().exits(6);
    }
    alone.gone();
    let record = alone.record();
    assert_eq!((&record["exitCode"], &record["signal"]), (&6.into(), &0.into()), "{record}");
    assert_eq!(record["status"], "exact");
    assert_eq!(record["pid"].to_string(), pid.stdout.trim());
    assert!(record["exitedAtNs"].as_u64() > record["createdOrStartedAtNs"].as_u64(), "{record}");
    // Afterwards too.
    alone.runtime("wait", &[]).out().exits(6);
    let logs = alone.runtime("logs", &["--follow"]).ok();
    assert_eq!((logs.stdout.as_str(), logs.stderr.as_str()), ("out\n", "err\n"));
    alone.runtime("delete", &[]).ok();
    assert!(!alone.folder().exists(), "delete takes the record along");
    alone.runtime("wait", &[]).out().exits(4);
}

#[test]
fn a_signal_and_its_core_are_recorded() {
    ours!();
    let alone = Alone::new("signal", "kill -KILL $$").with(|c| {
        let namespaces = c["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|n| n["type"] != "pid");
    });
    alone.run(&[]).ok();
    alone.gone();
    let record = alone.record();
    assert_eq!((&record["exitCode"], &record["signal"]), (&137.into(), &9.into()), "{record}");
}

#[test]
fn want_of_memory_is_recorded() {
    ours!();
    let alone = Alone::new("oom", "tail /dev/zero").with(|c| {
        c["linux"]["resources"]["memory"] = serde_json::json!({ "limit": 16 << 20, "swap": 16 << 20 });
    });
    alone.run(&[]).ok();
    alone.gone();
    let record = alone.record();
    assert_eq!(record["oomKilled"], true, "{record}");
    assert!(record["oomCgroup"].as_str().unwrap().contains(&alone.container.id), "{record}");
}

/// The paper's word to the daemon: a real-time signal, when the record is there to be read; and a command.
#[test]
fn a_daemon_gets_the_signal_and_a_command_is_run() {
    ours!();
    let alone = Alone::new("notify", "sleep 0.2; exit 3");
    let dir = alone.container.bundle.dir.clone();
    let daemon = format!(
        "trap 'cp {0}/exit.json {1}/seen' RTMIN+10; echo $$ >{1}/daemon.pid; while [ ! -e {1}/seen ]; do sleep 0.05; done",
        alone.folder().display(),
        dir.display()
    );
    let daemon = Run::new("bash").args(["-c", &daemon]).start();
    eventually("the daemon is up", || dir.join("daemon.pid").exists());
    let command = dir.join("command");
    fs::write(
        &command,
        format!("#!/bin/sh\necho $1 $CONTAINER_EXIT_STATUS $CONTAINER_ID >{}/ran\n", dir.display()),
    )
    .unwrap();
    Run::new("chmod").args(["755", command.to_str().unwrap()]).ok();
    let pid_file = dir.join("daemon.pid");
    alone
        .run(&[
            "--notify-pid-file",
            pid_file.to_str().unwrap(),
            "--exit-command",
            &format!("{} word", command.display()),
        ])
        .ok();
    daemon.out().ok();
    let seen: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(dir.join("seen")).unwrap()).unwrap();
    assert_eq!(seen["exitCode"], 3);
    alone.gone();
    let ran = fs::read_to_string(dir.join("ran")).unwrap();
    assert_eq!(ran.trim(), format!("word 3 {}", alone.container.id));
}

/// The paper's lazy mode: the monitor is its starter's child, and outlives it.
#[test]
fn a_lazy_monitor_is_its_starters_child() {
    ours!();
    let alone = Alone::new("lazy", "sleep 1000");
    let starter = alone.run(&["--lazy"]).start();
    eventually("it runs", || alone.runtime("state", &[]).out().stdout.contains("running"));
    assert!(alone.heads().contains(&starter.pid()), "the starter's child is a head");
    // Dropped, the starter's child is killed: the other head takes its place, the container lives.
    drop(starter);
    eventually("there are two heads again", || alone.heads().len() == 2);
    assert_eq!(alone.runtime("state", &[]).ok().json()["status"], "running");
    alone.runtime("kill", &["KILL"]).ok();
    alone.gone();
    assert_eq!(alone.record()["exitCode"], 137);
}

#[test]
fn what_changes_by_hand_the_monitor_knows() {
    ours!();
    let alone = Alone::new("hand", "sleep 1000");
    alone.run(&[]).ok();
    alone.runtime("pause", &[]).ok();
    assert!(listed(&alone).contains("paused"));
    assert_eq!(alone.runtime("state", &[]).ok().json()["status"], "paused");
    alone.runtime("pause", &[]).out().fails();
    alone.runtime("resume", &[]).ok();
    assert!(listed(&alone).contains("running"));
    alone.runtime("exec", &["true"]).ok();
    alone.runtime("update", &["--pids-limit", "77"]).ok();
    alone.runtime("delete", &["--force"]).ok();
    alone.gone();
    assert!(!alone.folder().exists());
}

fn listed(alone: &Alone) -> String {
    let out = Run::new(host::shim()).args(["list"]).ok();
    let line = out.stdout.lines().find(|l| l.contains(&alone.container.id)).unwrap_or_default();
    line.to_string()
}

#[test]
fn with_rm_nothing_is_left() {
    ours!();
    let alone = Alone::new("rm", "exit 5");
    alone.run(&["--rm"]).ok();
    alone.gone();
    eventually("the record is gone", || !alone.folder().exists());
    alone.runtime("state", &[]).out().fails_with("does not exist");
}

#[test]
fn what_cant_start_leaves_nothing() {
    ours!();
    let alone = Alone::new("broken", "").with(|c| c["process"]["args"] = serde_json::json!(["nothing"]));
    alone.run(&[]).out().fails_with("nothing");
    alone.gone();
    alone.runtime("state", &[]).out().fails_with("does not exist");
    assert!(!alone.folder().exists());
}

/// On a terminal of this many columns and rows: what is typed, with a pause before each part.
fn at_a_terminal(alone: &Alone, typed: &[&str], command: &str) -> Out {
    let typed: String = typed.iter().map(|t| format!("sleep 1; printf '{t}'; ")).collect();
    let attach = format!(
        "stty cols 77 rows 20; {} --root {} {command} {}; echo ended with \\$?",
        host::runtime().display(),
        alone.root,
        alone.container.id
    );
    Run::sh(&format!("( {typed} sleep 1 ) | script -qec \"{attach}\" /dev/null | tr -d '\\r'")).ok()
}

#[test]
fn a_terminal_is_attached_resized_and_let_go() {
    ours!();
    let alone = Alone::new("tty", "while read w; do stty size; echo got $w; [ $w = end ] && exit 7; done")
        .with(|c| c["process"]["terminal"] = true.into());
    alone.run(&["--interactive"]).ok();
    let out = at_a_terminal(&alone, &["one\\n", "\\020\\021"], "attach");
    assert!(out.stdout.contains("20 77") && out.stdout.contains("got one"), "{out}");
    assert!(out.stdout.contains("ended with 0"), "let go by ctrl-p ctrl-q: {out}");
    assert!(listed(&alone).contains("running"));
    let out = at_a_terminal(&alone, &["two\\n", "\\030q"], "attach --detach-keys=ctrl-x,q");
    assert!(out.stdout.contains("got two") && out.stdout.contains("ended with 0"), "{out}");
    let out = at_a_terminal(&alone, &["end\\n"], "attach");
    assert!(out.stdout.contains("got end") && out.stdout.contains("ended with 7"), "{out}");
    alone.gone();
}

#[test]
fn streams_are_attached() {
    ours!();
    let alone =
        Alone::new("streams", "while read w; do echo got $w; echo not $w >&2; [ $w = end ] && exit 9; done");
    alone.run(&["--interactive"]).ok();
    let out = alone.runtime("attach", &[]).stdin("one\nend\n").out().exits(9);
    assert_eq!((out.stdout.as_str(), out.stderr.as_str()), ("got one\ngot end\n", "not one\nnot end\n"));
    alone.gone();
}

/// The end of what a container wrote, however much that was.
#[test]
fn logs_keep_the_last_of_the_output() {
    ours!();
    let alone = Alone::new("ring", "seq 1 200000; sleep 1000")
        .with(|c| c["annotations"] = serde_json::json!({ "hydra-shim.ring-bytes": "10000" }));
    alone.run(&[]).ok();
    eventually("all is written", || alone.runtime("logs", &[]).ok().stdout.ends_with("\n200000\n"));
    // What is on its way from the spool to the ring may be missed for a moment (docs/monitor.md).
    eventually("it is read without a gap or a double", || {
        let text = alone.runtime("logs", &[]).ok().stdout;
        assert!(text.len() < 200_000, "{} bytes", text.len());
        let lines: Vec<u32> = text.lines().skip(1).map(|l| l.parse().unwrap()).collect();
        text.len() >= 10000 && lines.windows(2).all(|w| w[1] == w[0] + 1)
    });
    // On disk there is no more than a few times that.
    let ring =
        format!("/var/lib/hydra-shim/{}/{}/{}.1.ring", namespace(), alone.container.id, alone.container.id);
    let blocks = std::os::unix::fs::MetadataExt::blocks(&fs::metadata(ring).unwrap());
    assert!(blocks * 512 < 200_000, "{blocks} blocks");
}

/// Knobs hold without any daemon: said by annotation, not undone by an update that knows nothing of them, and changed live.
#[test]
fn knobs_hold_without_a_daemon() {
    ours!();
    let knobs = serde_json::json!({ "hydra.pids.limit": "55", "hydra.memory.limit": "64MiB" });
    let alone = Alone::new("knobs", "sleep 1000").with(|c| c["annotations"] = knobs);
    alone.run(&[]).ok();
    let limit = || alone.container.cgroup_file("pids", "pids.max").expect("a limit");
    assert_eq!(limit(), "55");
    alone.runtime("update", &["--resources", "-"]).stdin(r#"{"pids":{"limit":7}}"#).ok();
    assert_eq!(limit(), "55", "it is a layer of its own");
    alone.runtime("update", &["--annotation", "hydra.pids.limit=66"]).ok();
    assert_eq!(limit(), "66");
    let file = if host::cgroups() == host::Cgroups::V2 { "memory.max" } else { "memory.limit_in_bytes" };
    assert_eq!(alone.container.cgroup_file("memory", file).expect("a limit"), (64 << 20).to_string());
}

#[test]
fn unknown_wishes_are_refused() {
    ours!();
    let alone = Alone::new("unknown", "true")
        .with(|c| c["annotations"] = serde_json::json!({ "hydra-shim.colour": "red" }));
    alone.run(&[]).out().fails_with("hydra-shim.colour");
    assert!(!alone.folder().exists());
    let alone = Alone::new("unknown", "true");
    alone.run(&["--colour"]).out().fails_with("--colour");
    alone.runtime("attach", &[]).out().exits(4);
}

/// All of the monitor is killed at once, and another one takes over: it is nobody's parent, and knows the status all the same.
#[test]
fn what_lost_its_monitor_is_adopted_and_its_end_known() {
    ours!();
    let alone = Alone::new("adopted", "until [ -e /tmp/go ]; do sleep 0.1; done; exit 6");
    alone.run(&[]).ok();
    while !alone.heads().is_empty() {
        let all: Vec<String> = alone.heads().iter().map(i32::to_string).collect();
        Run::new("kill").args(["-KILL"]).args(all).out();
    }
    assert!(listed(&alone).contains("orphaned"));
    Run::new(host::shim()).args(["adopt", "--namespace", &namespace(), &alone.container.id]).ok();
    eventually("two heads", || alone.heads().len() == 2);
    let waiting = alone.runtime("wait", &[]).start();
    fs::write(alone.container.bundle.rootfs().join("tmp/go"), "").unwrap();
    waiting.out().exits(6);
    alone.gone();
    let record = alone.record();
    assert_eq!((&record["exitCode"], &record["status"]), (&6.into(), &"exact".into()), "{record}");
}

/// Somebody who reads slowly what attach prints: it comes through whole, and the container is not held up.
#[test]
fn attach_keeps_what_is_read_late() {
    ours!();
    let script = "while [ ! -e /tmp/go ]; do echo ready; sleep 0.05; done; head -c 3000000 /dev/zero | tr '\\0' x; exit 4";
    let alone = Alone::new("late", script);
    alone.run(&[]).ok();
    let go = alone.container.bundle.rootfs().join("tmp/go");
    let late = format!(
        "{} attach --namespace {} --no-stdin {} | (read w; touch {}; sleep 3; tr -dc x | wc -c)",
        host::shim().display(),
        namespace(),
        alone.container.id,
        go.display()
    );
    let out = Run::sh(&late).ok();
    assert_eq!(out.stdout.trim(), "3000000", "{out}");
    assert_eq!(out.stderr, "", "{out}");
    alone.gone();
}
