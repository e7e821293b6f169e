//! `kill`: a signal to the container's first process, or to all.

use std::os::fd::AsFd;

use cgroup::Cgroup;

use super::Setting;
use crate::error::{Context, Error, Kind, Result};
use crate::invalid;
use crate::state::{Container, ProcessId, Status};
use crate::sys::process;

pub fn run(setting: &Setting, id: &str, signal: &str, all: bool) -> Result<u8> {
    let container = setting.load(id)?;
    let signal = parse_signal(signal)?;
    if all {
        // Of a container whose init has gone others may live on; none is fine too.
        return signal_all(&container, signal).map(|()| 0);
    }
    let Some(init) = container.state.init else { return Err(not_running()) };
    if signal == libc::SIGKILL && container.state.shares_pid_namespace {
        // Its init may have ended before the rest.
        if !crate::state::is_alive(init) && !has_cgroup(&container) {
            return Err(not_running());
        }
    } else if container.status() == Status::Stopped {
        return Err(not_running());
    }
    match signal {
        libc::SIGKILL => end(&container, init)?,
        signal => signal_init(init, signal)?,
    }
    Ok(0)
}

/// Kills the container: its first process, with which the pid namespace dies, or all if that isn't its own.
pub fn end(container: &Container, init: ProcessId) -> Result<()> {
    match container.state.shares_pid_namespace {
        true => signal_all(container, libc::SIGKILL)?,
        false => signal_init(init, libc::SIGKILL)?,
    }
    thaw(container);
    Ok(())
}

fn has_cgroup(container: &Container) -> bool {
    container.state.cgroup.as_ref().is_some_and(|location| Cgroup::open(location).is_ok())
}

fn not_running() -> Error {
    Error::new(Kind::State, "container not running")
}

/// By pidfd, after a look at the start time: never to a process that only has the same number.
pub fn signal_init(init: ProcessId, signal: i32) -> Result<()> {
    let sent = match process::pidfd_open(init.pid) {
        Ok(pidfd) if crate::state::is_alive(init) => process::pidfd_send_signal(pidfd.as_fd(), signal),
        Err(nix::errno::Errno::ENOSYS) if crate::state::is_alive(init) => process::kill(init.pid, signal),
        Ok(_) | Err(nix::errno::Errno::ESRCH) => return Err(not_running()),
        Err(e) => Err(e),
    };
    match sent {
        Err(nix::errno::Errno::ESRCH) => Err(not_running()),
        other => other.with_context(|| format!("sending signal {signal} to process {}", init.pid)),
    }
}

/// To every process in the container's cgroup, or to those that are known without one.
pub fn signal_all(container: &Container, signal: i32) -> Result<()> {
    let Some(location) = &container.state.cgroup else {
        for process in
            super::ps::without_cgroup(container).into_iter().filter_map(|p| crate::state::identify(p).ok())
        {
            match signal_init(process, signal) {
                Err(e) if e.kind() == Kind::State => {}
                other => other?,
            }
        }
        return Ok(());
    };
    match Cgroup::open(location) {
        Ok(cgroup) => match signal {
            libc::SIGKILL => cgroup.kill_all(),
            signal => cgroup.signal_all(signal),
        }
        .context("signalling the container's processes"),
        Err(e) if e.kind() == cgroup::Kind::NotFound => Ok(()),
        Err(e) => Err(e).context("opening the container's cgroup"),
    }
}

/// On cgroup v1 a frozen process dies only once it is thawed.
pub fn thaw(container: &Container) {
    if let Some(Ok(cgroup)) = container.state.cgroup.as_ref().map(Cgroup::open) {
        if let Ok(true) = cgroup.is_frozen() {
            let _ = cgroup.thaw();
        }
    }
}

/// A number from 1 to 64 (0 probes), a name with or without `SIG`, or `RTMIN+n`, `RTMAX-n`.
pub fn parse_signal(text: &str) -> Result<i32> {
    if let Ok(number) = text.parse::<i32>() {
        if (0..=64).contains(&number) {
            return Ok(number);
        }
        invalid!("unknown signal {text:?}: numbers go from 1 to 64");
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(number) = real_time(name) {
        return Ok(number);
    }
    let alias = match name {
        "CLD" => "CHLD",
        "POLL" => "IO",
        "IOT" => "ABRT",
        "UNUSED" => "SYS",
        other => other,
    };
    match format!("SIG{alias}").parse::<nix::sys::signal::Signal>() {
        Ok(signal) => Ok(signal as i32),
        Err(_) => invalid!("unknown signal {text:?}"),
    }
}

fn real_time(name: &str) -> Option<i32> {
    let (first, last) = (libc::SIGRTMIN(), libc::SIGRTMAX());
    let number = match name.split_once(['+', '-']) {
        None if name == "RTMIN" => first,
        None if name == "RTMAX" => last,
        Some(("RTMIN", n)) if name.contains('+') => first.checked_add(n.parse().ok()?)?,
        Some(("RTMAX", n)) if name.contains('-') => last.checked_sub(n.parse().ok()?)?,
        _ => return None,
    };
    (first..=last).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::parse_signal;

    #[test]
    fn signals_by_every_name() {
        for (text, number) in [
            ("9", 9),
            ("KILL", 9),
            ("SIGKILL", 9),
            ("sigterm", 15),
            ("64", 64),
            ("37", 37),
            ("0", 0),
            ("CLD", 17),
        ] {
            assert_eq!(parse_signal(text).unwrap(), number, "{text}");
        }
        assert_eq!(parse_signal("RTMIN+3").unwrap(), libc::SIGRTMIN() + 3);
        assert_eq!(parse_signal("SIGRTMAX-1").unwrap(), libc::SIGRTMAX() - 1);
        for bad in ["", "65", "-1", "FOO", "SIG", "RTMIN+99", "RTMAX+1", "9x"] {
            assert!(parse_signal(bad).is_err(), "{bad}");
        }
    }
}
