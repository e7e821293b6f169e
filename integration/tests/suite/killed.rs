//! The runtime is killed at every one of its system calls in turn: whatever it leaves, `delete --force` takes away.
//!
//! Killed is the program itself, or (`Whose::Children`) the process it makes, which is to become the container's.

use crate::checkpoint::{images, no_criu};
use integration::stepper::{self, Calls, Whose};
use integration::{eventually, host, skip, Container, Peer};
use serde_json::json;
use std::fs;
use std::process::{Command, Stdio};

/// A container all of whose processes carry its name.
fn container(name: &str, args: &[&str]) -> Container {
    let c = Container::new(name).args(args);
    let mark = format!("MARK={}", c.id);
    c.with(|c| c["process"]["env"].as_array_mut().unwrap().push(mark.into()))
}

fn command(c: &Container, verb: &[&str]) -> Command {
    let mut command = Command::new(host::runtime());
    // Programs of others that it starts are known by this.
    command.env("CALLER", caller(c)).arg("--root").arg(&c.root);
    if host::systemd_driver() {
        command.arg("--systemd-cgroup");
    }
    command.args(verb).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn caller(c: &Container) -> String {
    format!("caller-of-{}", c.id)
}

fn take_away(c: &Container, what: &str) {
    let out = c.delete_force();
    assert_eq!(out.code, 0, "{what}: {out}");
    assert_eq!(c.leftovers(), Vec::<String>::new(), "{what}");
}

fn check(c: &Container, what: &str) {
    take_away(c, what);
    assert_eq!(processes(&c.id), Vec::<String>::new(), "{what}: processes stay");
}

/// Those that have `mark` in their command line or environment, with what they say of themselves.
fn processes(mark: &str) -> Vec<String> {
    let told = |pid: i32| {
        let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        format!("{pid} {} {}", read("stat"), read("cmdline").replace('\0', " "))
    };
    host::processes_with(mark).into_iter().map(told).collect()
}

/// The numbers of the calls at which to kill: every `step`th, or enough to see the shape.
fn moments(calls: usize, step: usize) -> impl Iterator<Item = usize> {
    let step = if host::quick() { (calls / 25).max(1) } else { step };
    (1..=calls).step_by(step)
}

/// Kills `verb` and its children at each of their calls, or at every `step`th, every time from the state that `before` makes.
/// `check` looks at what is left, and is told how many times it did before.
#[track_caller]
fn at_every_call(
    c: &Container,
    verb: &[&str],
    whose: &[Whose],
    step: usize,
    before: impl Fn(),
    check: impl Fn(&str, usize),
) {
    c.bundle.write();
    let devices = devices();
    before();
    let calls = stepper::run(command(c, verb), None);
    assert!(!calls.failed, "{verb:?} undisturbed");
    check("undisturbed", 0);
    for &whose in whose {
        for (round, n) in moments(calls.of(whose), step).enumerate() {
            before();
            let end = stepper::run(command(c, verb), Some((whose, n)));
            let what = format!("{verb:?} killed at call {n} of {calls:?}, {whose:?}");
            if end.failed && ["create", "run", "restore"].contains(&verb[0]) {
                assert_eq!(c.leftovers(), Vec::<String>::new(), "{what}: it failed, and leaves something");
            }
            check(&what, round);
        }
    }
    assert_eq!(devices, self::devices(), "network devices");
    let Calls { program, children, .. } = calls;
    println!("{} {}: {program} calls, and {children} of its children", c.id, verb[0]);
}

/// The host's network devices but for those of other tests, which begin with an `h`, and Docker's.
fn devices() -> Vec<String> {
    let all = fs::read_dir("/sys/class/net").unwrap().flatten();
    let mut names: Vec<_> = all.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.retain(|n| !["veth", "br-", "h"].iter().any(|others| n.starts_with(others)));
    names.sort();
    names
}

macro_rules! killed {
    ($name:ident: $args:expr, $before:expr, $whose:expr, |$id:ident, $dir:ident| $verb:expr) => {
        killed!($name: container(stringify!($name), &$args), $before, $whose, |$id, $dir| $verb, every 1);
    };
    ($name:ident: $container:expr, $before:expr, $whose:expr, |$id:ident, $dir:ident| $verb:expr, every $step:expr) => {
        #[test]
        fn $name() {
            if integration::peer() != Peer::Hydra {
                skip!("a promise that only this runtime makes");
            }
            let c = $container;
            let $id = c.id.clone();
            let $dir = c.bundle.dir.to_str().unwrap().to_string();
            let before: fn(&Container) = $before;
            at_every_call(&c, &$verb, &$whose, $step, || before(&c), |what, _| check(&c, what));
        }
    };
}

fn nothing(_: &Container) {}

fn created(c: &Container) {
    c.create().ok();
}

fn running(c: &Container) {
    c.create().ok();
    c.start().ok();
}

fn paused(c: &Container) {
    running(c);
    c.verb(&["pause", &c.id]).ok();
}

const SLEEP: [&str; 2] = ["sleep", "1000000"];

/// In a user namespace, with a hook of each kind that `create` runs, and one for the end.
fn with_users_and_hooks(name: &str) -> Container {
    let hook = json!([{ "path": "/bin/true" }]);
    container(name, &SLEEP).user_namespace().with(|c| {
        for kind in ["createRuntime", "createContainer", "poststop"] {
            c["hooks"][kind] = hook.clone();
        }
    })
}

const BOTH: [Whose; 2] = [Whose::Program, Whose::Children];
const PROGRAM: [Whose; 1] = [Whose::Program];

killed!(create: SLEEP, nothing, BOTH, |id, dir| ["create", "--bundle", &dir, &id]);
killed!(create_with_users_and_hooks: with_users_and_hooks("users"), nothing, BOTH, |id, dir| ["create", "--bundle", &dir, &id], every 4);
killed!(start: SLEEP, created, PROGRAM, |id, _dir| ["start", &id]);
killed!(run: ["true"], nothing, BOTH, |id, dir| ["run", "--bundle", &dir, &id]);
killed!(run_detached: SLEEP, nothing, PROGRAM, |id, dir| ["run", "--detach", "--bundle", &dir, &id]);
killed!(exec: SLEEP, running, BOTH, |id, _dir| ["exec", &id, "true"]);
killed!(exec_detached: SLEEP, running, PROGRAM, |id, _dir| ["exec", "--detach", &id, "sleep", "1000000"]);
killed!(update: SLEEP, running, PROGRAM, |id, _dir| ["update", "--memory", "64M", "--pids-limit", "70", &id]);
killed!(pause: SLEEP, running, PROGRAM, |id, _dir| ["pause", &id]);
killed!(resume: SLEEP, paused, PROGRAM, |id, _dir| ["resume", &id]);
killed!(kill: SLEEP, running, PROGRAM, |id, _dir| ["kill", &id, "KILL"]);
killed!(delete: SLEEP, running, PROGRAM, |id, _dir| ["delete", "--force", &id]);

/// A container that criu can save: it holds nothing of the host's. With the arguments of a verb for its images.
fn with_images(name: &str) -> Option<(Container, String)> {
    if integration::peer() != Peer::Hydra {
        println!("SKIP a promise that only this runtime makes");
        return None;
    }
    if let Some(reason) = no_criu() {
        println!("SKIP {reason}");
        return None;
    }
    let c = container(name, &["sh", "-c", "exec sleep 1000000 </dev/null >/dev/null 2>&1"]);
    let images = images(&c).to_str().unwrap().to_string();
    Some((c, images))
}

/// As `running`, and it is the program at last.
fn asleep(c: &Container) {
    running(c);
    let file = format!("/proc/{}/cmdline", c.pid());
    eventually("it sleeps", || fs::read(&file).is_ok_and(|line| line.starts_with(b"sleep")));
}

/// As `check`; criu, whose caller is gone, ends by itself.
fn check_with_criu(c: &Container, what: &str) {
    take_away(c, what);
    eventually(&format!("{what}: its processes and criu end"), || host::processes_with(&c.id).is_empty());
}

/// Every second time criu is awaited, and then the container runs as before, or has ended, and says so. Else it is deleted
/// while criu may still be at work.
#[test]
fn checkpoint() {
    let Some((c, images)) = with_images("dumped") else { return };
    let verb = ["checkpoint", "--image-path", &images, &c.id];
    let check = |what: &str, round: usize| {
        if round % 2 == 1 {
            eventually(&format!("{what}: criu ends"), || host::processes_with(&caller(&c)).is_empty());
            let mut status = String::new();
            eventually(&format!("{what}: it runs, has ended, or is gone"), || {
                let state = c.verb(&["state", &c.id]);
                status = if state.code == 0 { c.status() } else { state.fails_with("does not exist").stdout };
                ["running", "stopped", ""].contains(&status.as_str())
            });
            if status == "running" {
                c.exec(&["true"]).ok();
            }
        }
        check_with_criu(&c, what);
    };
    at_every_call(&c, &verb, &BOTH, 1, || asleep(&c), check);
}

#[test]
fn restore() {
    let Some((c, images)) = with_images("restored") else { return };
    c.bundle.write();
    asleep(&c);
    c.verb(&["checkpoint", "--image-path", &images, &c.id]).ok();
    let bundle = c.bundle.dir.to_str().unwrap();
    let verb = ["restore", "--detach", "--image-path", &images, "--bundle", bundle, &c.id];
    at_every_call(&c, &verb, &BOTH, 1, || (), |what, _| check_with_criu(&c, what));
}
