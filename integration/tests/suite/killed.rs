//! The runtime itself is killed at every one of its system calls in turn: whatever it leaves, `delete --force` takes away.

use integration::{host, skip, Container, Peer, Run};
use std::fs;
use std::path::Path;

/// How many system calls a verb makes, as strace counts them. The container is gone afterwards.
///
/// strace is not the parent (-DDD): it stays as long as the container does, and must not keep the caller waiting.
fn count_calls(c: &Container, verb: &[&str]) -> usize {
    let log = c.bundle.dir.join("trace");
    c.bundle.write();
    let traced = Run::new("strace").args(["-DDD", "-f", "-qq", "-o"]).args([&log]).args([host::runtime()]);
    traced.args(["--root"]).args([&c.root]).args(verb).out().ok();
    check(c, "undisturbed");
    fs::read_to_string(&log)
        .unwrap()
        .lines()
        .filter(|l| !l.contains("+++") && !l.contains("resumed>"))
        .count()
}

/// Runs a verb under strace, which kills the process that makes the n-th call.
fn killed_at(c: &Container, verb: &[&str], n: usize) {
    let inject = format!("inject=all:signal=KILL:when={n}");
    let traced = Run::new("strace")
        .args(["-DDD", "-f", "-qq", "-o", "/dev/null", "-e", &inject])
        .args([host::runtime()]);
    traced.args(["--root"]).args([&c.root]).args(verb).out();
}

fn check(c: &Container, what: &str) {
    let out = c.delete_force();
    assert_eq!(out.code, 0, "{what}: {out}");
    assert_eq!(c.leftovers(), Vec::<String>::new(), "{what}");
    let strays = host::processes_with(&c.id);
    assert_eq!(strays, Vec::<i32>::new(), "{what}: processes stay");
}

/// The numbers of the calls at which to kill: all, or enough to see the shape.
fn moments(calls: usize) -> Vec<usize> {
    let step = if host::quick() { (calls / 25).max(1) } else { 1 };
    (1..=calls).step_by(step).collect()
}

fn ready() -> bool {
    Path::new("/usr/bin/strace").exists() && integration::peer() == Peer::Hydra
}

#[test]
fn create_killed_at_any_call_can_be_cleaned_up() {
    if !ready() {
        skip!("needs strace, and a promise that only this runtime makes");
    }
    let c = Container::new("killcreate");
    let dir = c.bundle.dir.to_str().unwrap().to_string();
    let verb = ["create", "--bundle", &dir, &c.id];
    let calls = count_calls(&c, &verb);
    for n in moments(calls) {
        killed_at(&c, &verb, n);
        check(&c, &format!("create killed at its call {n} of {calls}"));
    }
}

#[test]
fn start_killed_at_any_call_can_be_cleaned_up() {
    if !ready() {
        skip!("needs strace, and a promise that only this runtime makes");
    }
    let c = Container::sleeping("killstart");
    c.create().ok();
    let verb = ["start", &c.id];
    let calls = count_calls(&c, &verb);
    for n in moments(calls) {
        c.create().ok();
        killed_at(&c, &verb, n);
        check(&c, &format!("start killed at its call {n} of {calls}"));
    }
}

#[test]
fn delete_killed_at_any_call_can_be_repeated() {
    if !ready() {
        skip!("needs strace, and a promise that only this runtime makes");
    }
    let c = Container::sleeping("killdelete").up();
    let verb = ["delete", "--force", &c.id];
    let calls = count_calls(&c, &verb);
    for n in moments(calls) {
        c.create().ok();
        c.start().ok();
        killed_at(&c, &verb, n);
        check(&c, &format!("delete killed at its call {n} of {calls}"));
    }
}
