//! The container's terminal: made from its own devpts, its master sent out, its slave the controlling terminal.

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag};
use nix::sys::socket::{sendmsg, ControlMessage, MsgFlags};

use super::rootfs::Prepared;
use super::Init;
use crate::error::{Context, Result};
use crate::invalid;
use crate::link::{Request, ToParent};
use crate::sys::{process, tty};

/// In a root that is being made (where it goes on /dev/console as well), or in the present one.
pub fn attach(init: &Init<'_>, link: &ToParent, prepared: Option<&Prepared>) -> Result<()> {
    let master = match prepared {
        Some(prepared) => open_master(prepared.root()),
        None => open_root().and_then(|root| open_master(root.as_fd())),
    }
    .context("opening the container's /dev/pts/ptmx")?;
    tty::unlock(master.as_fd()).context("unlocking the console")?;
    let name = format!("/dev/pts/{}", tty::number(master.as_fd()).context("numbering the console")?);
    let slave = tty::open_slave(master.as_fd()).with_context(|| format!("opening {name}"))?;
    if let Some((height, width)) = init.plan.process.console_size {
        tty::set_size(master.as_fd(), height, width).context("setting process.consoleSize")?;
    }
    // The program's user must be able to open its terminal anew.
    nix::unistd::fchown(&slave, Some(init.plan.process.uid.into()), None)
        .with_context(|| format!("giving {name} to the container's user"))?;
    if let Some(prepared) = prepared {
        prepared.bind_console(slave.as_fd())?;
    }
    match &init.console_socket {
        Some(socket) => {
            send(socket.as_fd(), master.as_fd(), &name).context("sending the console to --console-socket")?
        }
        None => link.ask(Request::Console(master))?,
    }
    tty::make_controlling(slave.as_fd()).with_context(|| format!("taking {name} as controlling terminal"))?;
    for stream in 0..3 {
        process::dup_to_stdio(&slave, stream).context("putting the console on the standard streams")?;
    }
    Ok(())
}

fn open_root() -> Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    Ok(nix::fcntl::open("/", flags, nix::sys::stat::Mode::empty())?)
}

/// The image may have put anything at that path: no link is followed, and it must be on a devpts.
fn open_master(root: BorrowedFd<'_>) -> Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let master = match nix::fcntl::openat2(root, "dev/pts/ptmx", how) {
        Err(nix::errno::Errno::ENOSYS) => {
            let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
            nix::fcntl::openat(root, "dev/pts/ptmx", flags, nix::sys::stat::Mode::empty())?
        }
        other => other?,
    };
    if nix::sys::statfs::fstatfs(&master)?.filesystem_type()
        != nix::sys::statfs::FsType(libc::DEVPTS_SUPER_MAGIC as _)
    {
        invalid!("it is not on a devpts file system: mount one at /dev/pts");
    }
    Ok(master)
}

/// The master with its name as the payload, as runc's users expect it.
fn send(socket: BorrowedFd<'_>, master: BorrowedFd<'_>, name: &str) -> Result<()> {
    let fds = [master.as_raw_fd()];
    let control = [ControlMessage::ScmRights(&fds)];
    sendmsg::<()>(
        socket.as_raw_fd(),
        &[IoSlice::new(name.as_bytes())],
        &control,
        MsgFlags::MSG_NOSIGNAL,
        None,
    )?;
    Ok(())
}
