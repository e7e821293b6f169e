//! The messages between the runtime and the child that becomes the container's process.
//!
//! One SOCK_SEQPACKET pair: one record a message, its first byte the kind. A closed end is a message too: the
//! parent that died ends the child; the child's end closes with its `execve`.

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::socket::{
    recvmsg, sendmsg, socketpair, AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag,
    SockType,
};

use crate::error::{Context, Error, Kind, Result};

/// From the child to its parent.
#[derive(Debug)]
pub enum Request {
    /// In a new user namespace: write my id maps.
    MapIds,
    /// I am the go-between; the container's process has this pid (in my pid namespace).
    Forked(i32),
    /// Put me into the cgroup (systemd driver), or: move network devices, set what only a parent can set.
    Prepare,
    /// Mounts are in place, the root isn't changed yet: run the hooks of the runtime's namespace.
    RunHooks,
    /// The master of the console, for a parent that stays in the foreground.
    Console(OwnedFd),
    /// The seccomp listener, to be passed on.
    SeccompListener(OwnedFd),
    /// The same as the parent hears of it: the descriptor's number in the child. The filter is in force, and may send any
    /// call but write(2) to the very agent that the listener is for.
    ListenerNumber(i32),
    /// For the log, which the child can't reach. No answer is awaited.
    Warning(String),
    /// All done that can fail; waiting for `Go`.
    Ready,
    /// What went wrong; nothing follows.
    Failed(Error),
}

/// Far more than a busy machine needs for one message, in ms.
const ANNOUNCED_WITHIN: u16 = 30_000;

/// From the parent to its child: the answer to any request.
const GO: u8 = b'g';

/// The child's end.
pub struct ToParent(OwnedFd);

/// The parent's end.
pub struct ToChild(OwnedFd);

pub fn pair() -> Result<(ToChild, ToParent)> {
    let (a, b) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
        .context("making the link to the container's process")?;
    Ok((ToChild(a), ToParent(b)))
}

impl AsFd for ToParent {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl ToParent {
    pub(crate) fn send(&self, text: &[u8], fd: Option<BorrowedFd<'_>>) -> Result<()> {
        let Some(fd) = fd else {
            // write(2): every seccomp profile allows it, and one may be in force already.
            nix::unistd::write(&self.0, text).context("telling the runtime")?;
            return Ok(());
        };
        let fds = [fd.as_raw_fd()];
        let control = [ControlMessage::ScmRights(&fds)];
        sendmsg::<()>(self.0.as_raw_fd(), &[IoSlice::new(text)], &control, MsgFlags::MSG_NOSIGNAL, None)
            .context("telling the runtime")?;
        Ok(())
    }

    /// Asks the parent for something and waits until it is done.
    pub fn ask(&self, request: Request) -> Result<()> {
        match &request {
            Request::MapIds => self.send(b"m", None),
            Request::Forked(pid) => return self.tell_forked(*pid),
            Request::Prepare => self.send(b"a", None),
            Request::RunHooks => self.send(b"h", None),
            Request::Console(fd) => self.send(b"c", Some(fd.as_fd())),
            Request::SeccompListener(fd) => self.tell_listener(fd.as_raw_fd()),
            Request::ListenerNumber(number) => self.tell_listener(*number),
            Request::Warning(text) => return self.warn(text),
            Request::Ready => self.send(b"r", None),
            Request::Failed(e) => {
                self.fail(e);
                return Ok(());
            }
        }?;
        self.await_go()
    }

    fn tell_listener(&self, number: i32) -> Result<()> {
        let mut text = vec![b's'];
        text.extend_from_slice(&number.to_le_bytes());
        self.send(&text, None)
    }

    /// In the clone of a go-between: returns when the parent knows this process by what `tell_forked` said. One that was killed
    /// before it said so must not keep the two waiting for each other.
    pub fn await_announcement(&self) -> Result<()> {
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        loop {
            match poll(&mut fds, PollTimeout::from(ANNOUNCED_WITHIN)) {
                Err(Errno::EINTR) => {}
                Ok(0) => {
                    return Err(Error::new(
                        Kind::System,
                        "the process between the runtime and the container's was killed (for lack of memory?): try again",
                    ))
                }
                _ => return self.await_go(),
            }
        }
    }

    /// From the go-between, which does not wait for an answer: its clone does.
    pub fn tell_forked(&self, pid: i32) -> Result<()> {
        let mut text = vec![b'p'];
        text.extend_from_slice(&pid.to_le_bytes());
        self.send(&text, None)
    }

    /// Has the parent log a warning.
    pub fn warn(&self, words: &str) -> Result<()> {
        let mut text = vec![b'w'];
        text.extend_from_slice(&words.as_bytes()[..words.len().min(MAX_RECORD - 1)]);
        self.send(&text, None)
    }

    fn await_go(&self) -> Result<()> {
        let mut answer = [0u8; 1];
        loop {
            match nix::unistd::read(&self.0, &mut answer) {
                Ok(1) if answer[0] == GO => return Ok(()),
                Err(Errno::EINTR) => {}
                _ => {
                    return Err(Error::new(
                        Kind::System,
                        "the runtime that was creating the container has gone",
                    ))
                }
            }
        }
    }

    /// Tells what went wrong. The parent may be gone; then there is nobody to tell.
    pub fn fail(&self, error: &Error) {
        let _ = self.send(&encode_failure(error), None);
    }
}

/// `f`, the kind, the errno, then the text; at most what fits a record.
fn encode_failure(error: &Error) -> Vec<u8> {
    let mut text = vec![b'f', error.kind() as u8];
    text.extend_from_slice(&error.errno().unwrap_or(0).to_le_bytes());
    let words = error.to_string();
    text.extend_from_slice(&words.as_bytes()[..words.len().min(MAX_RECORD - 6)]);
    text
}

fn decode_failure(text: &[u8]) -> Error {
    let kind = text.first().and_then(|&k| Kind::from_u8(k)).unwrap_or(Kind::System);
    let errno = text.get(1..5).and_then(|b| b.try_into().ok()).map_or(0, i32::from_le_bytes);
    let words = String::from_utf8_lossy(text.get(5..).unwrap_or_default()).into_owned();
    Error::new(kind, words).with_errno(errno)
}

const MAX_RECORD: usize = 16 * 1024;

impl ToChild {
    /// The next request; `None` when the child's end closed: it exec'd, or died.
    ///
    /// # Errors
    /// A failure that the child reported, as it was there.
    pub fn next(&self) -> Result<Option<Request>> {
        let mut record = vec![0u8; MAX_RECORD];
        let (length, fd) = loop {
            match receive(&self.0, &mut record) {
                Err(Errno::EINTR) => {}
                Err(Errno::ECONNRESET) => return Ok(None),
                other => break other.context("listening to the container's process")?,
            }
        };
        let text = &record[..length];
        let Some((&kind, rest)) = text.split_first() else { return Ok(None) };
        let with_fd = |make: fn(OwnedFd) -> Request| {
            fd.map(make).ok_or_else(|| Error::new(Kind::System, "the container's process sent no descriptor"))
        };
        Ok(Some(match kind {
            b'm' => Request::MapIds,
            b'p' => Request::Forked(rest.try_into().map_or(0, i32::from_le_bytes)),
            b'a' => Request::Prepare,
            b'h' => Request::RunHooks,
            b'c' => return with_fd(Request::Console).map(Some),
            b's' => Request::ListenerNumber(rest.try_into().map_or(-1, i32::from_le_bytes)),
            b'w' => Request::Warning(String::from_utf8_lossy(rest).into_owned()),
            b'r' => Request::Ready,
            b'f' => Request::Failed(decode_failure(rest)),
            other => {
                return Err(Error::new(
                    Kind::System,
                    format!("unknown message {other} from the container's process"),
                ))
            }
        }))
    }

    /// Answers the last request.
    pub fn go(&self) -> Result<()> {
        nix::unistd::write(&self.0, &[GO]).context("answering the container's process")?;
        Ok(())
    }
}

/// One record, and the descriptor that came with it.
pub fn receive(socket: &OwnedFd, record: &mut [u8]) -> Result<(usize, Option<OwnedFd>), Errno> {
    let mut space = nix::cmsg_space!([std::os::fd::RawFd; 1]);
    let mut parts = [std::io::IoSliceMut::new(record)];
    let message =
        recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let mut fd = None;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = control {
            for raw in fds {
                fd = Some(crate::sys::process::own(raw));
            }
        }
    }
    Ok((message.bytes, fd))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_arrives_as_it_left() {
        let (parent, child) = pair().unwrap();
        let sent = Error::from(Errno::ENOENT).context("mounting \"/x\"").with_kind(Kind::Invalid);
        child.fail(&sent);
        let Some(Request::Failed(got)) = parent.next().unwrap() else { panic!() };
        assert_eq!(got.to_string(), "mounting \"/x\": no such file or directory");
        assert_eq!((got.kind(), got.errno()), (Kind::Invalid, Some(libc::ENOENT)));
        drop(child);
        assert!(parent.next().unwrap().is_none());
    }
}
