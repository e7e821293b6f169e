//! `delete`: takes back all that `create` made.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{poll, PollFd, PollFlags, PollTimeout};

use super::{kill, monitor, start, Setting, LOCK_DEADLINE};
use crate::error::{Error, Kind, Result};
use crate::state::{self, Container, ProcessId, Status};
use crate::sys::process;
use crate::{hooks, undo};

/// How long a killed process may take to die; one stuck in the kernel takes longer.
const DEATH_DEADLINE: Duration = Duration::from_secs(10);

pub fn run(setting: &Setting, id: &str, force: bool) -> Result<u8> {
    let mut container = match setting.load(id) {
        Ok(container) => container,
        Err(e) if e.kind() == Kind::NotFound => return without_state(setting, id, force, e),
        Err(e) => return Err(e),
    };
    let _lock = match container.lock(LOCK_DEADLINE) {
        Ok(lock) => lock,
        Err(e) if e.kind() == Kind::NotFound && force => return Ok(0),
        Err(e) => return Err(e),
    };
    match container.status() {
        Status::Stopped => {}
        Status::Created => end(&container)?,
        _ if force => end(&container)?,
        status => {
            return Err(Error::new(
                Kind::State,
                format!("cannot delete container {id} that is not stopped: {status}"),
            ))
        }
    }
    destroy(&container)?;
    // The record and output of one that ended under a monitor go too; a monitor that lives keeps them for its daemon.
    if container.state.monitored {
        if let Err(e) = monitor::relay(setting, "forget", id) {
            log::warn!("what the monitor of {id} left: {e}");
        }
    }
    Ok(0)
}

/// A directory whose state file was never written: the `create` that made it was killed before its first side effect.
fn without_state(setting: &Setting, id: &str, force: bool, missing: Error) -> Result<u8> {
    setting.store.remove_without_state(id)?;
    match force {
        true => Ok(0),
        false => Err(missing),
    }
}

/// Kills the first process and waits for its death.
fn end(container: &Container) -> Result<()> {
    let Some(init) = container.state.init else { return Ok(()) };
    match kill::signal_init(init, libc::SIGKILL) {
        Err(e) if e.kind() == Kind::State => return Ok(()),
        other => other?,
    }
    kill::thaw(container);
    await_death(init)
}

fn await_death(init: ProcessId) -> Result<()> {
    let end = Instant::now() + DEATH_DEADLINE;
    while state::is_alive(init) {
        if Instant::now() > end {
            return Err(Error::new(
                Kind::State,
                format!("container init still running: process {} was killed but doesn't die", init.pid),
            ));
        }
        match process::pidfd_open(init.pid) {
            Ok(pidfd) => {
                let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
                let _ = poll(&mut fds, PollTimeout::from(1000u16));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(2)),
        }
    }
    Ok(())
}

/// Removes a container whose first process is dead, with whatever is left in its cgroup, and runs its poststop hooks.
pub fn destroy(container: &Container) -> Result<()> {
    let hooks = start::later_hooks(container).unwrap_or_default();
    undo::take_back(container)?;
    let state = container.oci_state(Status::Stopped, 0);
    // runtime-spec, lifecycle: a failure is only a warning, and the rest of them are run.
    hooks::run_all("poststop", &hooks.poststop, &state)
}
