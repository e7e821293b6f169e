//! Verdicts of compiled profiles, read off by interpreting the program as the kernel does.

mod differential;
mod interpreter;
mod kernel;
mod oracle;
mod profiles;
mod verdicts;

use super::*;
use interpreter::{run, Data};

fn profile(json: serde_json::Value) -> spec::Seccomp {
    serde_json::from_value(json).unwrap()
}

fn arch(name: &str) -> &'static Arch {
    Arch::find(&format!("SCMP_ARCH_{name}")).unwrap()
}

fn row(name: &str) -> &'static table::Row {
    &table::ROWS[table::find(name, 0).unwrap_or_else(|| panic!("{name} is missing"))].1
}
