//! Limits measured with real traffic, in network namespaces that the test makes. The whole test runs in one of its own
//! ("the host"); each case has another ("the container") behind a veth, and a cgroup.
//!
//! `cargo test -p netlimit --test traffic [-- PART_OF_A_NAME]`

mod cases;
mod line;
mod net;
mod senders;
#[allow(unsafe_code)]
mod sys;

use std::process::{exit, Command};

type Case = (&'static str, fn() -> Outcome);

/// A case that doesn't fail has passed, or says why it couldn't run.
pub enum Outcome {
    Passed,
    Skipped(String),
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|a| a == "send") {
        return senders::main(&args[1..]);
    }
    if std::env::var_os("NETLIMIT_TEST_HOST").is_none() {
        let me = std::env::current_exe().expect("own path");
        let status = Command::new("unshare")
            .args(["-n", "-m", "--"])
            .arg(me)
            .args(&args)
            .env("NETLIMIT_TEST_HOST", "1")
            .status();
        match status {
            Ok(s) if std::fs::metadata("/proc/self/ns/net").is_ok() => exit(s.code().unwrap_or(1)),
            _ => return println!("SKIP all: no unshare(1)"),
        }
    }
    if let Err(why) = net::prepare_host() {
        return println!("1 SKIP: {why}");
    }
    let wanted = args.iter().find(|a| !a.starts_with('-')).cloned().unwrap_or_default();
    let (mut passed, mut skipped, mut failed) = (0, 0, 0);
    for (name, case) in cases::ALL.iter().filter(|(name, _)| name.contains(&wanted)) {
        // Each in a process of its own, so that a failure (a panic) spoils no other.
        if !wanted.is_empty() && *name == wanted {
            match case() {
                Outcome::Passed => exit(0),
                Outcome::Skipped(why) => {
                    println!("     {why}");
                    exit(77)
                }
            }
        }
        let begun = std::time::Instant::now();
        let status =
            Command::new(std::env::current_exe().expect("own path")).arg(name).status().expect("runs");
        let word = match status.code() {
            Some(0) => {
                passed += 1;
                "ok"
            }
            Some(77) => {
                skipped += 1;
                "SKIP"
            }
            _ => {
                failed += 1;
                "FAILED"
            }
        };
        println!("{word:6} {name} ({:.1} s)", begun.elapsed().as_secs_f64());
    }
    println!("{passed} passed, {failed} failed, {skipped} SKIP");
    exit(i32::from(failed > 0));
}
