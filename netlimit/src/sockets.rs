//! Sockets that are older than a change. The programs see TCP when it connects and sockets when they are made; what was there
//! before is taken from its processes, one after another, by pidfd_getfd(2).
//!
//! Nothing here can fail: what can't be had (a socket on its way between processes, one that no process holds any more, a
//! kernel before 5.6) stays as it was, and the limit holds for it all the same.

use std::collections::HashSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use crate::attach::Cgroup;
use crate::bpf::socket::{CALLBACK_FLAGS, LEAST_PACE};
use crate::limits::{Cap, Limits};
use crate::state::State;
use crate::sys::net::{self, Sockopt};

/// No pace.
const UNPACED: u32 = u32::MAX;

/// Has TCP's connections paced that are older than the program, and tells those with a fixed pace of a change.
pub fn pace(path: &Path, state: &State) {
    let fixed = match state.limits().egress_rate {
        // Without the headers, which TCP doesn't count: 4.4 % of full packets, with IPv6 5.7.
        Some(Cap::At(rate)) => u32::try_from((rate - rate / 16).max(LEAST_PACE as u64)).unwrap_or(UNPACED),
        _ => UNPACED,
    };
    connections(path, state, |socket, follows| {
        if !follows {
            state.note_fixed_paces();
            let _ = net::set(socket, Sockopt::MAX_PACING_RATE, fixed);
        }
    });
}

/// Before the programs go and the processes don't: no socket keeps a pace or a mark.
pub fn let_go(path: &Path, state: &State) {
    let classid = state.limits().classid.unwrap_or(0);
    // From now on the program sets no pace either.
    state.write(&Limits { egress_rate: Some(Cap::Max), ..Limits::default() }, false, &Default::default());
    connections(path, state, |socket, _| {
        let _ = net::set(socket, Sockopt::MAX_PACING_RATE, UNPACED);
    });
    retag(path, classid, 0);
}

/// Calls `f` with every TCP socket that belongs to the cgroup, and whether its pace follows the bucket from now on. A socket
/// of another cgroup's that was passed on isn't touched.
fn connections(path: &Path, state: &State, mut f: impl FnMut(BorrowedFd<'_>, bool)) {
    let Ok(Some(cgroup)) = Cgroup::open(path) else { return };
    let mut adopting = None;
    each(path, &mut |socket| {
        if net::get(socket, Sockopt::PROTOCOL).ok() != Some(libc::IPPROTO_TCP as u32) {
            return true;
        }
        if adopting.is_none() {
            adopting = cgroup.adopt(state).ok();
        }
        match net::set(socket, Sockopt { level: libc::IPPROTO_TCP, name: CALLBACK_FLAGS }, 0) {
            Ok(()) => f(socket, true),
            Err(e) if e.raw_os_error() == Some(libc::EPERM) => f(socket, false),
            Err(_) => {}
        }
        adopting.is_some()
    });
}

/// Changes the mark and priority of sockets that have the old class's.
pub fn retag(path: &Path, from: u32, to: u32) {
    if from == 0 || from == to {
        return;
    }
    each(path, &mut |socket| {
        for option in [Sockopt::MARK, Sockopt::PRIORITY] {
            if net::get(socket, option).ok() == Some(from) {
                let _ = net::set(socket, option, to);
            }
        }
        true
    });
}

/// Calls `f` with every socket of IP's that a process of the cgroup, or of one below it, has open, until it says false.
fn each(path: &Path, f: &mut dyn FnMut(BorrowedFd<'_>) -> bool) {
    let mut seen = HashSet::new();
    below(path, &mut |pid| {
        let Ok(process) = net::pidfd(pid) else { return true };
        let Ok(open) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return true };
        for entry in open.flatten() {
            let Ok(target) = std::fs::read_link(entry.path()) else { continue };
            if !target.to_string_lossy().starts_with("socket:") || !seen.insert(target) {
                continue;
            }
            let number = entry.file_name().to_str().and_then(|n| n.parse().ok());
            let Some(socket) = number.and_then(|n| taken(process.as_fd(), n)) else { continue };
            if !f(socket.as_fd()) {
                return false;
            }
        }
        true
    });
}

fn taken(process: BorrowedFd<'_>, number: i32) -> Option<OwnedFd> {
    let socket = net::pidfd_getfd(process, number).ok()?;
    let domain = net::get(socket.as_fd(), Sockopt::DOMAIN).ok()?;
    [libc::AF_INET, libc::AF_INET6].contains(&(domain as i32)).then_some(socket)
}

/// Calls `f` with every process of a cgroup and those below it, until it says false.
fn below(path: &Path, f: &mut dyn FnMut(i32) -> bool) -> bool {
    let processes = std::fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    // 0 stands for one that isn't in our pid namespace.
    for pid in processes.lines().filter_map(|l| l.parse().ok()).filter(|pid| *pid > 0) {
        if !f(pid) {
            return false;
        }
    }
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let directories = entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
    directories.into_iter().all(|d| below(&d.path(), f))
}
