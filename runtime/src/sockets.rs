//! Unix sockets that callers name on the command line, and descriptors sent through them.

use std::io::IoSlice;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::sys::socket::{sendmsg, ControlMessage, MsgFlags};

use crate::error::{Context, Result};
use crate::spec::Spec;
use crate::sys::process;

/// `what` names the socket in the error.
pub fn connect(path: &Path, what: &str) -> Result<OwnedFd> {
    let stream =
        UnixStream::connect(path).with_context(|| format!("connecting to the {what} {}", path.display()))?;
    Ok(stream.into())
}

/// Sends one descriptor along with `payload`.
pub fn send_fd(socket: BorrowedFd<'_>, fd: BorrowedFd<'_>, payload: &[u8]) -> Result<()> {
    let fds = [fd.as_raw_fd()];
    let control = [ControlMessage::ScmRights(&fds)];
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(payload)], &control, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

/// What the caller leaked, or meant for the container alone, is for none of the programs that are run on the way: hooks,
/// newuidmap, criu. The container's own process gets back what it is to have when it is about to become the program.
pub fn hide_inherited() -> Result<()> {
    process::cloexec_from(3, || {
        let entries = std::fs::read_dir("/proc/self/fd")?;
        let names = entries.map(|entry| Ok(entry?.file_name()));
        let names: Vec<_> = names.collect::<std::io::Result<_>>()?;
        Ok::<_, std::io::Error>(names.iter().filter_map(|name| name.to_str()?.parse().ok()).collect())
    })
    .context("listing open descriptors in /proc/self/fd, to hide them from hooks")
}

/// How many descriptors socket activation gave us (sd_listen_fds(3)).
pub fn activated() -> u32 {
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u32>().ok());
    match (number("LISTEN_PID"), number("LISTEN_FDS")) {
        (Some(pid), Some(count)) if pid == std::process::id() => count.min(1024),
        _ => 0,
    }
}

/// What a service manager gave us is meant for the container: activated sockets, as process 1 of its own pid namespace.
pub fn pass_on(spec: &mut Spec) {
    let Some(program) = &mut spec.process else { return };
    let count = activated();
    if count > 0 {
        program.env.extend([format!("LISTEN_FDS={count}"), "LISTEN_PID=1".into()]);
    }
}
