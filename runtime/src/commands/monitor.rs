//! `attach`, `logs`, `wait`: the container's monitor (`shim`) answers, and its own program asks it.
//!
//! What a verb of this runtime changes under a monitor, the monitor is told: `pause` and `resume` go through it, and after
//! `delete` it forgets an ended container's record and output.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use super::{find, Setting};
use crate::cli;
use crate::error::{Context, Error, Kind, Result};

/// Where monitors are found: `NAMESPACE/ID/`.
const MONITORS: &str = "/run/hydra-shim";
/// Set by a monitor for the runtime that it runs: that one must not ask back.
const ASKED_BY_MONITOR: &str = "HYDRA_SHIM";
/// The program's exit code where no monitor knows the container.
const NO_MONITOR: i32 = 4;

pub fn run(setting: &Setting, args: &cli::Monitor) -> Result<u8> {
    // A container that has ended may be known to its monitor alone.
    let id = match find::one(setting, &args.id) {
        Ok(container) => container.state.id,
        Err(_) => args.id.clone(),
    };
    let mut command = command(setting, args.verb, &id)?;
    command.args(&args.options);
    Err(Error::from(command.exec())).context("executing the monitor's program")
}

/// Whether it is a monitor that runs this.
pub fn asks() -> bool {
    std::env::var_os(ASKED_BY_MONITOR).is_some()
}

/// Lets the container's monitor do it, so that it knows, and tells its daemon. False: there is no monitor.
pub fn relay(setting: &Setting, verb: &'static str, id: &str) -> Result<bool> {
    if asks() || !any_monitor() {
        return Ok(false);
    }
    let Ok(mut command) = command(setting, verb, id) else { return Ok(false) };
    let out = command.stdin(Stdio::null()).output().context("running the monitor's program")?;
    match out.status.code() {
        Some(0) => Ok(true),
        Some(NO_MONITOR) => Ok(false),
        _ => Err(said(&out.stderr, out.status)),
    }
}

fn said(stderr: &[u8], status: ExitStatus) -> Error {
    let text = String::from_utf8_lossy(stderr);
    match text.trim() {
        "" => Error::invalid(format!("the monitor's program: {status}")),
        text => Error::invalid(text.trim_start_matches("shim: ").to_string()),
    }
}

fn any_monitor() -> bool {
    std::fs::read_dir(MONITORS).is_ok_and(|mut entries| entries.next().is_some())
}

/// The monitor's program, asked about one container of this `--root`.
fn command(setting: &Setting, verb: &str, id: &str) -> Result<Command> {
    let mut command = Command::new(program()?);
    command.arg(verb);
    if setting.global.root.is_some() {
        command.arg("--root").arg(setting.store.root());
    }
    command.arg(format!("--id={id}"));
    Ok(command)
}

/// `shim` beside this program, or in `$PATH` under one of its names.
fn program() -> Result<PathBuf> {
    let own = std::fs::read_link("/proc/self/exe").unwrap_or_default();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = own.parent().map(Path::to_path_buf).into_iter().chain(std::env::split_paths(&path));
    let names = ["shim", "containerd-shim-hydra-v2"];
    let mut places = folders.flat_map(|f| names.map(|n| f.join(n)));
    places.find(|p| p.is_file()).ok_or_else(|| {
        Error::new(
            Kind::NotFound,
            "the program shim, which speaks with monitors, is neither beside this one nor in $PATH",
        )
    })
}
