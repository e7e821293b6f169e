//! A comparison of the ways to limit one container's traffic, in one interleaved run: `make bench-net`.
//!
//! A container behind a veth, a router (the host), and a peer behind another veth or a line with a delay; all of
//! them network namespaces that this program makes. Every method takes its turn on the same bed. Nothing is judged.
//!
//! `study [SECTION]...` measures (default: all sections) and writes a CSV file each; `study plot` draws them and prints
//! the tables. QUICK=1 shortens it. OUT names the folder (default: docs/figures/net), METHODS those that take part,
//! ROUNDS how often; APPEND=1 keeps what is in the folder.

mod agents;
mod bed;
mod even;
#[path = "../../tests/traffic/line/mod.rs"]
mod line;
mod load;
mod methods;
mod plot;
mod sections;
#[allow(unsafe_code)]
mod sys;
mod table;

use std::process::{exit, Command};

fn main() {
    // cargo bench adds a flag of its own.
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    match args.first().map(String::as_str) {
        Some("agent") => return agents::main(&args[1..]),
        Some("plot") => return plot::main(&sections::folder()),
        _ => {}
    }
    if std::env::var_os("STUDY_HOST").is_none() {
        let me = std::env::current_exe().expect("own path");
        let inside = Command::new("unshare")
            .args(["-n", "-m", "--"])
            .arg(me)
            .args(&args)
            .env("STUDY_HOST", "1")
            .status();
        match inside {
            Ok(status) => exit(status.code().unwrap_or(1)),
            Err(e) => return println!("SKIP no unshare(1): {e}"),
        }
    }
    if let Some(why) = sections::lacking() {
        return println!("SKIP {why}");
    }
    sections::main(&args);
}
