//! `start`: lets a created container's process go.

use std::os::fd::AsFd;

use nix::poll::{poll, PollFd, PollFlags, PollTimeout};

use super::{kill, Setting, LOCK_DEADLINE};
use crate::error::{Context, Error, Kind, Result};
use crate::hooks;
use crate::notify::Notify;
use crate::spec::{Hooks, Spec};
use crate::state::{Container, Status, START_ERROR};

pub fn run(setting: &Setting, id: &str) -> Result<u8> {
    let mut container = setting.load(id)?;
    let lock = container.lock(LOCK_DEADLINE)?;
    match container.status() {
        Status::Created => {}
        Status::Running => return refuse("cannot start an already running container"),
        Status::Stopped => return refuse("cannot start a container that has stopped"),
        Status::Paused => return refuse("cannot start a container in the paused state"),
        Status::Creating => return refuse("cannot start a container that is still being created"),
    }
    if let Some(init) = container.state.init {
        network(&mut container, init.pid)?;
    }
    let notify = Notify::open(container.path())?;
    // While nothing runs yet that would have to be ended if they can't be read.
    let hooks = later_hooks(&container)?;
    release(&container)?;
    drop(lock);
    if let Err(e) = poststart(&container, &hooks) {
        // runtime-spec 1.3, lifecycle: a failing poststart hook ends the container.
        if let Some(init) = container.state.init {
            // It may have ended by itself, and its number be somebody else's.
            let _ = kill::end(&container, init);
        }
        return Err(e);
    }
    if let (Some(notify), Some(init)) = (notify, container.state.init) {
        notify.wait(init);
    }
    Ok(0)
}

fn refuse(text: &str) -> Result<u8> {
    Err(Error::new(Kind::State, text))
}

/// The hooks that run after the start and after the end; most containers have none.
pub fn later_hooks(container: &Container) -> Result<Hooks> {
    match container.state.has_later_hooks {
        true => Ok(config(container)?.hooks.unwrap_or_default()),
        false => Ok(Hooks::default()),
    }
}

/// The configuration as it was at `create`.
pub fn config(container: &Container) -> Result<Spec> {
    serde_json::from_slice(&container.config()?)
        .map_err(|e| Error::new(Kind::System, format!("{}/config.json: {e}", container.path().display())))
}

/// Writes the byte that init waits for, then waits until it has exec'd or failed.
fn release(container: &Container) -> Result<()> {
    let fifo = container.open_exec_fifo().context("reaching the container's process: has it ended?")?;
    nix::unistd::write(&fifo, b"0").context("letting the container's process go")?;
    // The last reader goes with the exec, or with the process.
    let mut fds = [PollFd::new(fifo.as_fd(), PollFlags::empty())];
    while let Ok(0) | Err(nix::errno::Errno::EINTR) = poll(&mut fds, PollTimeout::NONE) {}
    let errors = container.path().join(START_ERROR);
    match std::fs::read_to_string(&errors) {
        Ok(text) if !text.is_empty() => Err(Error::new(Kind::Exec, text)),
        _ => Ok(()),
    }
}

/// What waits for the network's interfaces, which a prestart hook or CNI has made by now.
pub fn network(container: &mut Container, pid: i32) -> Result<()> {
    if crate::knobs::attach_links(&mut container.state.knobs, pid)? {
        container.save()?;
    }
    Ok(())
}

/// What follows the start: the helper of knobs that need one, the poststart hooks.
pub fn poststart(container: &Container, hooks: &Hooks) -> Result<()> {
    crate::knobs::helper::ensure(container.path(), &container.state.knobs)?;
    if hooks.poststart.is_empty() {
        return Ok(());
    }
    let pid = container.state.init.map_or(0, |p| p.pid);
    hooks::run("poststart", &hooks.poststart, &container.oci_state(Status::Running, pid), None)
}
