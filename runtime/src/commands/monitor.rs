//! `attach`, `logs`, `wait`: the container's monitor (`shim`) answers, and its own program asks it.
//!
//! What a verb of this runtime changes under a monitor, the monitor is told: `pause` and `resume` go through it, and after
//! `delete` it forgets an ended container's record and output.

use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use nix::errno::Errno;
use nix::unistd::{access, AccessFlags};

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

/// Whether a head of a container's own monitor lives: it then holds a lock on the monitor's state, which is asked of the kernel's list,
/// since trying the lock could keep a monitor from starting. None: there is no such monitor (one of a pod has the pod's name).
pub fn is_present(id: &str) -> Option<bool> {
    let spaces = std::fs::read_dir(monitors()).ok()?.flatten();
    let state = spaces.map(|space| space.path().join(id).join("state")).find_map(|p| p.metadata().ok())?;
    let (device, inode) = (state.dev(), state.ino());
    let file = format!("{:02x}:{:02x}:{inode}", nix::sys::stat::major(device), nix::sys::stat::minor(device));
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    Some(locks.lines().any(|l| l.contains(" FLOCK ") && l.split_whitespace().any(|field| field == file)))
}

/// Root of a user namespace may not write there, and has them in `$XDG_RUNTIME_DIR`: by the monitor's own rule (its `place.rs`).
fn monitors() -> PathBuf {
    let denied = |path: &str| access(path, AccessFlags::W_OK) == Err(Errno::EACCES);
    let usual = PathBuf::from(MONITORS);
    let own = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
    match denied(MONITORS) || (!usual.exists() && denied("/run")) {
        true => own.map_or(usual, |own| own.join("hydra-shim")),
        false => usual,
    }
}

fn any_monitor() -> bool {
    std::fs::read_dir(monitors()).is_ok_and(|mut entries| entries.next().is_some())
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
