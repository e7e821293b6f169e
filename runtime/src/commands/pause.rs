//! `pause` and `resume`.

use cgroup::Cgroup;

use super::{monitor, Setting, LOCK_DEADLINE};
use crate::error::{Context, Error, Kind, Result};
use crate::state::{Container, Status};

pub fn pause(setting: &Setting, id: &str) -> Result<u8> {
    let mut container = setting.load(id)?;
    if container.state.monitored && monitor::relay(setting, "pause", id)? {
        return Ok(0);
    }
    let _lock = container.lock(LOCK_DEADLINE)?;
    match container.status() {
        Status::Running | Status::Created => {}
        status => return refuse(format!("container not running or created: {status}")),
    }
    open(&container)?.freeze().context("freezing the container's processes")?;
    Ok(0)
}

pub fn resume(setting: &Setting, id: &str) -> Result<u8> {
    let mut container = setting.load(id)?;
    if container.state.monitored && monitor::relay(setting, "resume", id)? {
        return Ok(0);
    }
    let _lock = container.lock(LOCK_DEADLINE)?;
    if container.status() != Status::Paused {
        return refuse("container not paused".into());
    }
    open(&container)?.thaw().context("thawing the container's processes")?;
    Ok(0)
}

fn open(container: &Container) -> Result<Cgroup> {
    match &container.state.cgroup {
        Some(location) => Cgroup::open(location).context("opening the container's cgroup"),
        None => Err(Error::unsupported(
            "the container has no cgroup of its own (--cgroup-manager disabled, or no right to make one)",
        )),
    }
}

fn refuse(text: String) -> Result<u8> {
    Err(Error::new(Kind::State, text))
}
