//! `NOTIFY_SOCKET`: what a container says of its readiness, told to the service manager in our own name.
//!
//! The manager's own socket doesn't go into the container: with it, root in there could name another main process or
//! leave descriptors with the host's manager, and what comes from a process other than the service's main one the
//! manager ignores (`NotifyAccess=main`). The container gets a socket of ours, and of all that comes only `READY=1` is
//! passed on, with the main process as we know it.

use std::io::{ErrorKind, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::{fs, io};

use nix::fcntl::OFlag;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::socket::{
    sendmsg, socket, AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr,
};
use nix::sys::stat::Mode;

use crate::error::{Context, Result};
use crate::spec::{Mount, Spec};
use crate::state::{self, ProcessId};
use crate::sys::process;

/// In a container's state directory, for the socket; the container sees it read-only.
const FOLDER: &str = "notify";
const SOCKET: &str = "notify.sock";
/// Where the container finds it.
const INSIDE: &str = "/run/notify";
/// In milliseconds: a manager that knows no barriers doesn't answer one.
const BARRIER_DEADLINE: u16 = 30_000;

/// Where the service manager listens, as it says itself (sd_notify(3)): a path, or a name in the abstract namespace.
fn manager() -> Result<Option<UnixAddr>> {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
        return Ok(None);
    };
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => UnixAddr::new_abstract(name),
        None => UnixAddr::new(Path::new(&name)),
    };
    address.map(Some).with_context(|| format!("NOTIFY_SOCKET={name:?}"))
}

/// Tells the container where the socket will be. `dir` is its state directory, which needn't be there yet.
pub fn pass_on(spec: &mut Spec, dir: &Path) -> Result<()> {
    let (Some(_), Some(process)) = (manager()?, &mut spec.process) else { return Ok(()) };
    process.env.push(format!("NOTIFY_SOCKET={INSIDE}/{SOCKET}"));
    spec.mounts.push(Mount {
        destination: INSIDE.into(),
        kind: Some("bind".into()),
        source: Some(dir.join(FOLDER).to_string_lossy().into_owned()),
        options: ["bind", "nosuid", "nodev", "noexec", "ro"].map(String::from).to_vec(),
        ..Mount::default()
    });
    Ok(())
}

/// Makes the folder that [`pass_on`] has bound.
pub fn make_folder(dir: &Path) -> Result<()> {
    if manager()?.is_none() {
        return Ok(());
    }
    let path = dir.join(FOLDER);
    // Not as the umask has it: the container's user may be anybody.
    let made = fs::DirBuilder::new().mode(0o755).create(&path);
    made.and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o755)))
        .with_context(|| format!("creating {}", path.display()))
}

/// The socket that the container writes to.
pub struct Notify {
    socket: UnixDatagram,
    manager: UnixAddr,
}

impl Notify {
    /// Opens the socket, before the container's program can look for it. None without a manager, or where the container
    /// was created without one.
    pub fn open(dir: &Path) -> Result<Option<Notify>> {
        let Some(manager) = manager()? else { return Ok(None) };
        let path = dir.join(FOLDER);
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let folder = match nix::fcntl::open(&path, flags, Mode::empty()) {
            Err(nix::errno::Errno::ENOENT) => return Ok(None),
            other => other.with_context(|| format!("opening {}", path.display()))?,
        };
        let socket = bind(folder.as_fd()).with_context(|| format!("binding {}/{SOCKET}", path.display()))?;
        Ok(Some(Notify { socket, manager }))
    }

    /// Takes one message, and passes on that the service is ready if it says so; true if it did. `main` is the service's
    /// main process.
    pub fn forward(&self, main: i32) -> Result<bool> {
        // Longer than any line of ours; what is cut off concerns us as little. Descriptors in it are closed by the kernel.
        let mut message = [0u8; 4096];
        match self.socket.recv(&mut message) {
            Ok(length) if is_ready(&message[..length]) => {
                self.tell(&format!("READY=1\nMAINPID={main}"), None)?;
                Ok(true)
            }
            Ok(_) => Ok(false),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(false),
            Err(e) => Err(e).context("reading from the container's NOTIFY_SOCKET"),
        }
    }

    /// Until the container is ready or has ended. Afterwards we may end too: the manager has read what we sent, and needn't
    /// look for who it was. What goes wrong is warned of: the container runs.
    pub fn wait(&self, init: ProcessId) {
        if let Err(e) = self.until_ready(init) {
            log::warn!("telling the service manager that the container is ready: {e}");
        }
    }

    fn until_ready(&self, init: ProcessId) -> Result<()> {
        // Before Linux 5.3 its end is noticed a little later.
        let pidfd = process::pidfd_open(init.pid).ok();
        while state::is_alive(init) {
            let mut fds = vec![PollFd::new(self.as_fd(), PollFlags::POLLIN)];
            fds.extend(pidfd.as_ref().map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)));
            let _ = poll(&mut fds, PollTimeout::from(100u8));
            if self.forward(init.pid)? {
                return self.barrier();
            }
        }
        Ok(())
    }

    /// Returns when the manager has read all that we sent: it then closes the descriptor that comes with this message.
    fn barrier(&self) -> Result<()> {
        let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        self.tell("BARRIER=1", Some(write))?;
        let mut fds = [PollFd::new(read.as_fd(), PollFlags::empty())];
        if poll(&mut fds, PollTimeout::from(BARRIER_DEADLINE))? == 0 {
            log::warn!("the service manager doesn't answer BARRIER=1");
        }
        Ok(())
    }

    fn tell(&self, text: &str, fd: Option<OwnedFd>) -> Result<()> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let client = socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
        let fds: Vec<i32> = fd.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&fds)];
        let control = if fds.is_empty() { &rights[..0] } else { &rights[..] };
        let text = [IoSlice::new(text.as_bytes())];
        sendmsg(client.as_raw_fd(), &text, control, MsgFlags::MSG_NOSIGNAL, Some(&self.manager))
            .context("writing to NOTIFY_SOCKET")?;
        Ok(())
    }
}

impl AsFd for Notify {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// By the folder's descriptor: a socket's address holds about a hundred bytes.
fn bind(folder: BorrowedFd<'_>) -> io::Result<UnixDatagram> {
    let path = format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd());
    // One that a killed `start` has left.
    match fs::remove_file(&path) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let socket = UnixDatagram::bind(&path)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn is_ready(message: &[u8]) -> bool {
    message.split(|&b| b == b'\n').any(|line| line == b"READY=1")
}

#[cfg(test)]
mod tests {
    use super::is_ready;

    #[test]
    fn what_says_ready() {
        assert!(is_ready(b"READY=1"));
        assert!(is_ready(b"STATUS=up\nREADY=1\nMAINPID=7\n"));
        assert!(!is_ready(b"READY=0\nSTATUS=READY=1\n"));
        assert!(!is_ready(b"MAINPID=1\n"));
    }
}
