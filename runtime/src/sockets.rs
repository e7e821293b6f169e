//! Unix sockets that callers name on the command line, and descriptors sent through them.

use std::io::IoSlice;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::sys::socket::{sendmsg, ControlMessage, MsgFlags};

use crate::error::{Context, Result};

pub fn connect(path: &Path) -> Result<OwnedFd> {
    let stream = UnixStream::connect(path).with_context(|| format!("connecting to {}", path.display()))?;
    Ok(stream.into())
}

/// Sends one descriptor along with `payload`.
pub fn send_fd(socket: BorrowedFd<'_>, fd: BorrowedFd<'_>, payload: &[u8]) -> Result<()> {
    let fds = [fd.as_raw_fd()];
    let control = [ControlMessage::ScmRights(&fds)];
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(payload)], &control, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

/// How many descriptors socket activation gave us (sd_listen_fds(3)).
pub fn activated() -> u32 {
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u32>().ok());
    match (number("LISTEN_PID"), number("LISTEN_FDS")) {
        (Some(pid), Some(count)) if pid == std::process::id() => count.min(1024),
        _ => 0,
    }
}
