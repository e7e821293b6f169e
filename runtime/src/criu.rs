//! criu, driven by its RPC: `criu swrk FD` serves one client on a SOCK_SEQPACKET pair, one message a packet.

pub mod mounts;
pub mod points;
mod proto;
pub mod rpc;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::errno::Errno;
use nix::fcntl::{fcntl, FcntlArg, FdFlag};
use nix::sys::socket::{send, socketpair, AddressFamily, MsgFlags, SockFlag, SockType};

use crate::error::{Context, Error, Kind, Result};
use rpc::Response;

/// A running `criu swrk`.
pub struct Criu {
    child: Child,
    socket: OwnedFd,
}

/// What criu tells while it works.
pub struct Notification {
    pub script: String,
    pub pid: i32,
    /// The master of a terminal, with `orphan-pts-master`.
    pub fd: Option<OwnedFd>,
}

impl Criu {
    /// Starts criu for a question or a dump, silent: it writes warnings to standard error, where nothing may be.
    pub fn start(program: Option<&Path>) -> Result<Criu> {
        Criu::spawn(program, &[], true)
    }

    /// Starts criu for a restore: its standard streams become the container's. `inherit` stay open in it, under the
    /// same numbers.
    pub fn start_with(program: Option<&Path>, inherit: &[BorrowedFd<'_>]) -> Result<Criu> {
        Criu::spawn(program, inherit, false)
    }

    fn spawn(program: Option<&Path>, inherit: &[BorrowedFd<'_>], silent: bool) -> Result<Criu> {
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
                .context("socketpair")?;
        let program = program.map_or_else(|| PathBuf::from("criu"), Path::to_path_buf);
        // Single-threaded: no other child can be made while these are inheritable.
        let all = || inherit.iter().copied().chain([theirs.as_fd()]);
        all().try_for_each(|fd| close_on_exec(fd, false))?;
        let mut command = Command::new(&program);
        command.arg("swrk").arg(theirs.as_raw_fd().to_string());
        if silent {
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        }
        let child = command.spawn();
        all().try_for_each(|fd| close_on_exec(fd, true))?;
        let child = child.map_err(|e| {
            let kind =
                if e.kind() == std::io::ErrorKind::NotFound { Kind::Unsupported } else { Kind::System };
            Error::from(e)
                .with_kind(kind)
                .context(format!("exec: {:?}: starting criu (is it installed?)", program))
        })?;
        Ok(Criu { child, socket: ours })
    }

    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Sends a request and answers notifications until criu has the result.
    pub fn ask(
        &mut self,
        request: &proto::Message,
        mut on: impl FnMut(Notification) -> Result<()>,
    ) -> Result<Response> {
        self.send(request)?;
        loop {
            let (response, fd) = self.receive()?;
            if !response.success {
                let why = match (response.message.as_str(), response.errno) {
                    ("", 0) => String::new(),
                    ("", errno) => format!(": {}", crate::error::strerror(errno)),
                    (message, _) => format!(": {}", message.trim()),
                };
                return Err(Error::new(Kind::System, format!("criu failed{why}")));
            }
            if response.kind != rpc::Kind::Notify as i64 {
                return Ok(response);
            }
            let (script, pid) = response.script.unwrap_or_default();
            log::debug!("criu: {script}, pid {pid}");
            on(Notification { script, pid, fd })?;
            self.send(&rpc::notified())?;
        }
    }

    fn send(&self, message: &proto::Message) -> Result<()> {
        send(self.socket.as_raw_fd(), message.as_bytes(), MsgFlags::MSG_NOSIGNAL)
            .context("writing to criu")?;
        Ok(())
    }

    fn receive(&self) -> Result<(Response, Option<OwnedFd>)> {
        let mut buffer = vec![0u8; 64 * 1024];
        let (len, fd) = loop {
            match crate::link::receive(&self.socket, &mut buffer) {
                Err(Errno::EINTR) => {}
                other => break other.context("reading from criu")?,
            }
        };
        if len == 0 {
            return Err(Error::new(Kind::System, "criu ended without an answer"));
        }
        let response = Response::parse(&buffer[..len]);
        Ok((response.ok_or_else(|| Error::new(Kind::System, "criu's answer can't be read"))?, fd))
    }

    /// Waits for criu's end; true if it was content.
    pub fn finish(mut self) -> Result<bool> {
        drop(self.socket);
        Ok(self.child.wait().context("waiting for criu")?.success())
    }

    /// Ends criu, which failed or is not wanted any more.
    pub fn abandon(mut self) {
        drop(self.socket);
        let _ = self.child.wait();
    }
}

fn close_on_exec(fd: BorrowedFd<'_>, on: bool) -> Result<()> {
    let flag = if on { FdFlag::FD_CLOEXEC } else { FdFlag::empty() };
    fcntl(fd, FcntlArg::F_SETFD(flag)).context("fcntl F_SETFD")?;
    Ok(())
}

/// Refuses what this criu on this kernel can't do.
pub fn require(program: Option<&Path>, track_memory: bool, lazy_pages: bool) -> Result<()> {
    if !track_memory && !lazy_pages {
        return Ok(());
    }
    let mut criu = Criu::start(program)?;
    let answer = criu.ask(&rpc::feature_request(track_memory, lazy_pages), |_| Ok(()));
    criu.abandon();
    let (memory, pages) = answer.context("asking criu for its features")?.features;
    let missing: Vec<_> = [("MemTrack", track_memory && !memory), ("LazyPages", lazy_pages && !pages)]
        .iter()
        .filter_map(|(name, lacks)| lacks.then_some(*name))
        .collect();
    match missing.is_empty() {
        true => Ok(()),
        false => Err(Error::unsupported(format!("criu is missing features: {}", missing.join(", ")))),
    }
}

/// The last errors of criu's log, one line: they say more than its answer.
pub fn quote_log(path: &Path) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let errors: Vec<_> = text.lines().filter(|l| l.contains("Error")).collect();
    let last = errors.iter().rev().take(3).rev().map(|l| l.trim()).collect::<Vec<_>>().join("; ");
    (!last.is_empty()).then(|| format!("{last} (see {})", path.display()))
}
