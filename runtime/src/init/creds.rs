//! The last phases before the program: standard streams, ids, capabilities, labels, the seccomp filter.
//!
//! The order matters. Without no_new_privileges a filter may only be loaded by CAP_SYS_ADMIN, so that is before
//! capabilities go; with it, as late as possible, so that the profile need not allow what we do ourselves.

use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::fcntl::{fcntl, FcntlArg, FdFlag, OFlag};
use nix::sys::stat::Mode;

use super::{attrs, Init};
use crate::error::{Context, Result};
use crate::link::{Request, ToParent};
use crate::plan::Process;
use crate::seccomp;
use crate::sys::process;

/// What needs the host's procfs.
pub fn labels_and_attributes(init: &Init<'_>) -> Result<()> {
    let plan = &init.plan.process;
    if let Some(profile) = &plan.apparmor_profile {
        attrs::labels::apparmor_exec(init.procfs.as_fd(), profile)?;
    }
    if let Some(label) = &plan.selinux_label {
        attrs::labels::selinux_exec(init.procfs.as_fd(), label)?;
    }
    attrs::apply(&plan.attrs)
}

pub fn apply(init: &Init<'_>, link: &ToParent) -> Result<()> {
    let plan = &init.plan.process;
    reopen_null()?;
    own_stdio(plan.uid);
    // Before the filter, so that a profile need not allow getcwd.
    let entered = nix::unistd::chdir(plan.cwd.as_c_str()).is_ok();
    if entered {
        verify_cwd()?;
    }
    // Before the filter too: it may deny what this takes.
    hand_over_descriptors(init).context("handing descriptors to the container's program")?;
    if plan.no_new_privileges {
        nix::sys::prctl::set_no_new_privs().context("setting no_new_privs")?;
    } else {
        load_filter(init, link)?;
    }
    if !init.loses_privileges() {
        // Else the parent does it, with the host's privileges.
        attrs::rlimits::apply(&init.plan.process.rlimits, 0)?;
    }
    take_ids(plan, entered)?;
    nix::sys::stat::umask(Mode::from_bits_truncate(plan.umask.unwrap_or(0o022)));
    Ok(())
}

/// The filter of a process that can gain no privileges.
pub fn filter_last(init: &Init<'_>, link: &ToParent) -> Result<()> {
    if init.plan.process.no_new_privileges {
        load_filter(init, link)?;
    }
    Ok(())
}

fn load_filter(init: &Init<'_>, link: &ToParent) -> Result<()> {
    let Some(filter) = &init.plan.seccomp else { return Ok(()) };
    match seccomp::install(filter)? {
        Some(listener) => link.ask(Request::SeccompListener(listener)),
        None => Ok(()),
    }
}

/// A stream that is the host's /dev/null becomes the container's own: the host's inode must not be reachable, say for
/// a chmod, through /proc/self/fd.
fn reopen_null() -> Result<()> {
    let mut own = None;
    for stream in 0..3 {
        let Ok(fd) = process::inherited(stream) else { continue };
        if !is_null(fd) {
            continue;
        }
        if own.is_none() {
            let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
            match nix::fcntl::open("/dev/null", flags, Mode::empty()) {
                Ok(fd) if is_null(fd.as_fd()) => own = Some(fd),
                // A root without a /dev/null keeps the host's.
                _ => return Ok(()),
            }
        }
        if let Some(fd) = &own {
            process::dup_to_stdio(fd, stream).context("reopening /dev/null")?;
        }
    }
    Ok(())
}

fn is_null(fd: BorrowedFd<'_>) -> bool {
    nix::sys::stat::fstat(fd).is_ok_and(|s| {
        s.st_mode & libc::S_IFMT == libc::S_IFCHR && s.st_rdev == nix::sys::stat::makedev(1, 3)
    })
}

/// The container's user may reopen its streams through /proc/self/fd. The group stays: a terminal's is the one that
/// devpts was mounted with. Not so /dev/null, which is everybody's; what can't be given away (a socket, a foreign owner
/// in a user namespace, a read-only mount) stays as it is.
fn own_stdio(uid: u32) {
    for stream in 0..3 {
        let Ok(fd) = process::inherited(stream) else { continue };
        let Ok(stat) = nix::sys::stat::fstat(fd) else { continue };
        if stat.st_uid == uid || is_null(fd) {
            continue;
        }
        let _ = nix::unistd::fchown(fd, Some(uid.into()), None);
    }
}

/// What was asked for survives the exec. Until here nothing did (`sockets::hide_inherited`), so that no hook has the container's
/// descriptors.
fn hand_over_descriptors(init: &Init<'_>) -> Result<()> {
    for fd in (3..).take(init.preserve_fds as usize) {
        fcntl(process::inherited(fd)?, FcntlArg::F_SETFD(FdFlag::empty()))?;
    }
    Ok(())
}

/// `entered`: root could go to the working directory, and is there.
fn take_ids(plan: &Process, entered: bool) -> Result<()> {
    attrs::caps::bound(&plan.caps)?;
    nix::sys::prctl::set_keepcaps(true).context("keeping capabilities over the change of ids")?;
    set_groups(&plan.groups)?;
    process::set_ids(None, Some(plan.gid)).with_context(|| format!("setgid {}", plan.gid))?;
    process::set_ids(Some(plan.uid), None).with_context(|| format!("setuid {}", plan.uid))?;
    if !entered {
        // Root may enter what the user can't name on its own; a network file system may let only the user in.
        nix::unistd::chdir(plan.cwd.as_c_str())
            .with_context(|| format!("chdir to cwd ({:?}) set in config.json failed", plan.cwd))?;
        verify_cwd()?;
    }
    nix::sys::prctl::set_keepcaps(false).context("clearing keepcaps")?;
    let missing = attrs::caps::apply(&plan.caps)?;
    if missing != 0 {
        log::warn!("capabilities that can't be granted: [{}]", attrs::caps::names(missing).join(" "));
    }
    Ok(())
}

fn set_groups(groups: &[u32]) -> Result<()> {
    match process::set_groups(groups) {
        // Denied in the user namespace of somebody without privileges; there is nothing to drop then.
        Err(Errno::EPERM) if groups.is_empty() => Ok(()),
        other => other.with_context(|| format!("setgroups {groups:?}: is it denied in this user namespace?")),
    }
}

/// A working directory outside the root (a leaked descriptor of the host, by way of /proc/self/fd/N) is an escape
/// (CVE-2024-21626).
fn verify_cwd() -> Result<()> {
    match process::getcwd() {
        Ok(path) if path.first() == Some(&b'/') => Ok(()),
        Err(Errno::ENOENT) | Ok(_) => {
            crate::invalid!("current working directory is outside of container mount namespace root -- possible container breakout detected")
        }
        Err(e) => Err(e).context("failed to verify if current working directory is safe"),
    }
}
