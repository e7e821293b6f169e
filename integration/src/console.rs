//! The other end of `--console-socket`: receives the master of a container's terminal, and talks to it.

use nix::cmsg_space;
use nix::sys::socket::{recvmsg, ControlMessageOwned, MsgFlags, UnixAddr};
use std::fs::File;
use std::io::{IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

/// A listening socket for one terminal.
pub struct ConsoleSocket {
    listener: UnixListener,
    pub path: PathBuf,
}

impl ConsoleSocket {
    pub fn new(id: &str) -> ConsoleSocket {
        // The kernel allows 107 bytes.
        let path = crate::janitor::scratch().join(format!("{id}.sock"));
        let _ = std::fs::remove_file(&path);
        ConsoleSocket { listener: UnixListener::bind(&path).expect("console socket"), path }
    }

    /// Waits for the terminal; returns it with the name that came along.
    pub fn receive(&self) -> (Terminal, String) {
        let (stream, _) = self.listener.accept().expect("accept");
        let (fds, payload) = receive_fds(&stream);
        let fd = fds.into_iter().next().expect("a descriptor came along");
        (Terminal { file: File::from(fd) }, payload)
    }
}

/// One message and the descriptors that came with it.
pub fn receive_fds(socket: &impl AsRawFd) -> (Vec<OwnedFd>, String) {
    let mut data = [0u8; 4096];
    let mut space = cmsg_space!([std::os::fd::RawFd; 8]);
    let mut iov = [IoSliceMut::new(&mut data)];
    let message =
        recvmsg::<UnixAddr>(socket.as_raw_fd(), &mut iov, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)
            .expect("recvmsg");
    let mut fds = Vec::new();
    for control in message.cmsgs().expect("control messages") {
        if let ControlMessageOwned::ScmRights(raw) = control {
            fds.extend(raw.into_iter().map(sys::owned));
        }
    }
    let length = message.bytes;
    (fds, String::from_utf8_lossy(&data[..length]).trim_end_matches('\0').to_string())
}

#[allow(unsafe_code)]
mod sys {
    use std::os::fd::{FromRawFd, OwnedFd, RawFd};

    pub fn owned(fd: RawFd) -> OwnedFd {
        // SAFETY: the kernel has just put this descriptor into our table with SCM_RIGHTS; nobody else knows it.
        unsafe { OwnedFd::from_raw_fd(fd) }
    }
}

/// The master of a container's terminal.
pub struct Terminal {
    file: File,
}

impl Terminal {
    pub fn type_in(&mut self, text: &str) {
        self.file.write_all(text.as_bytes()).expect("terminal");
    }

    /// Everything until the last process lets go of the terminal.
    pub fn read_to_end(&mut self) -> String {
        let mut all = Vec::new();
        let mut chunk = [0u8; 1024];
        // EIO is a terminal's way to say that nobody is left.
        while let Ok(n @ 1..) = self.file.read(&mut chunk) {
            all.extend_from_slice(&chunk[..n]);
        }
        String::from_utf8_lossy(&all).replace("\r\n", "\n")
    }

    /// Reads until `text` has come by.
    pub fn read_until(&mut self, text: &str) -> String {
        let mut all = String::new();
        let mut chunk = [0u8; 1024];
        while !all.contains(text) {
            match self.file.read(&mut chunk) {
                Ok(n @ 1..) => all.push_str(&String::from_utf8_lossy(&chunk[..n]).replace("\r\n", "\n")),
                _ => panic!("the terminal ended before {text:?} came: {all:?}"),
            }
        }
        all
    }
}
