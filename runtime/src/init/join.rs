//! Entering namespaces that are there, by file or by pidfd.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::PathBuf;

use nix::errno::Errno;

use crate::create::open_namespaces;
use crate::error::{Context, Error, Kind, Result};
use crate::sys::process;
use crate::validate::CLONE_NEWTIME;

/// In the order of joining: the user namespace gives the right to join the others, the mount namespace takes away the
/// sight of /proc.
const FILES: [(&str, i32); 8] = [
    ("user", libc::CLONE_NEWUSER),
    ("pid", libc::CLONE_NEWPID),
    ("net", libc::CLONE_NEWNET),
    ("ipc", libc::CLONE_NEWIPC),
    ("uts", libc::CLONE_NEWUTS),
    ("cgroup", libc::CLONE_NEWCGROUP),
    ("time", CLONE_NEWTIME),
    ("mnt", libc::CLONE_NEWNS),
];

/// The files of a process's namespaces, in the order of joining.
pub fn files(pid: i32, flags: i32) -> Vec<(i32, PathBuf)> {
    let wanted = FILES.iter().filter(|(_, flag)| flags & flag != 0);
    wanted.map(|(name, flag)| (*flag, format!("/proc/{pid}/ns/{name}").into())).collect()
}

/// Joins the namespace of a file, or those of a process that `flags` names.
pub fn enter(fd: BorrowedFd<'_>, flags: i32) -> Result<()> {
    let joined = match process::setns(fd, flags) {
        // Before Linux 5.8 a pidfd names no namespaces.
        Err(Errno::EINVAL) if pid_of(fd).is_some() => by_files(fd, flags),
        other => other.map_err(Error::from),
    };
    joined.with_context(|| format!("joining {}", describe(flags)))
}

fn by_files(pidfd: BorrowedFd<'_>, flags: i32) -> Result<()> {
    let gone = || Error::new(Kind::State, "container not running");
    let pid = pid_of(pidfd).ok_or_else(gone)?;
    let opened = open_namespaces(&files(pid, flags))?;
    // Still the same process, or the number may have been another's meanwhile.
    process::pidfd_send_signal(pidfd, 0).map_err(|_| gone())?;
    opened.iter().try_for_each(|(flag, file)| Ok(process::setns(file.as_fd(), *flag)?))
}

/// The process that a pidfd stands for, as the /proc at hand numbers it.
fn pid_of(fd: BorrowedFd<'_>) -> Option<i32> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).ok()?;
    info.lines().find_map(|l| l.strip_prefix("Pid:"))?.trim().parse().ok().filter(|pid| *pid > 0)
}

fn describe(flags: i32) -> &'static str {
    match flags {
        libc::CLONE_NEWPID => "the pid namespace",
        libc::CLONE_NEWNET => "the network namespace",
        libc::CLONE_NEWNS => "the mount namespace",
        libc::CLONE_NEWIPC => "the ipc namespace",
        libc::CLONE_NEWUTS => "the uts namespace",
        libc::CLONE_NEWUSER => "the user namespace",
        libc::CLONE_NEWCGROUP => "the cgroup namespace",
        CLONE_NEWTIME => "the time namespace",
        _ => "the container's namespaces",
    }
}
