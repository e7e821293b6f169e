//! Staying in front of a container's process: signals and the terminal pass through, its end becomes ours.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::signal::{SigSet, SigmaskHow};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::termios::{self, OutputFlags, SetArg, Termios};
use nix::sys::wait::{waitpid, WaitPidFlag, WaitStatus};
use nix::unistd::Pid;

use crate::error::{Context, Result};
use crate::notify::Notify;
use crate::sys::{memory, process, tty};

/// How a process ended, as its parent's exit code: 128 plus the signal for one that was killed.
pub fn exit_code(status: WaitStatus) -> u8 {
    match status {
        WaitStatus::Exited(_, code) => code as u8,
        WaitStatus::Signaled(_, signal, _) => 128 + signal as u8,
        _ => 255,
    }
}

/// Signals are ours to read from here on.
pub struct Foreground {
    signals: SignalFd,
}

impl Foreground {
    /// Before the process is made, so that no signal is missed. A subreaper also reaps what the container leaves.
    pub fn begin(subreaper: bool) -> Result<Foreground> {
        if subreaper {
            nix::sys::prctl::set_child_subreaper(true).context("becoming the container's subreaper")?;
        }
        let mut all = SigSet::all();
        for fatal in [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE] {
            if let Ok(signal) = nix::sys::signal::Signal::try_from(fatal) {
                all.remove(signal);
            }
        }
        nix::sys::signal::sigprocmask(SigmaskHow::SIG_SETMASK, Some(&all), None)
            .context("blocking signals")?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Foreground { signals: SignalFd::with_flags(&all, flags).context("opening a signalfd")? })
    }

    /// Until `pid` ends. With a console, our standard streams are its terminal. `notify` is served meanwhile: the service's
    /// main process are we.
    pub fn stay(&self, pid: i32, console: Option<OwnedFd>, notify: Option<&Notify>) -> Result<WaitStatus> {
        let terminal = console.map(Terminal::new);
        let mut from_input = terminal.is_some();
        // From here on we mostly wait, perhaps for weeks.
        memory::leave_text();
        loop {
            if let Some(status) = reap(pid)? {
                if let Some(terminal) = &terminal {
                    while terminal.output() == Flow::More {}
                }
                return Ok(status);
            }
            let stdin = std::io::stdin();
            let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
            if let Some(terminal) = &terminal {
                fds.push(PollFd::new(terminal.master.as_fd(), PollFlags::POLLIN));
                if from_input {
                    fds.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
                }
            }
            let told = fds.len();
            fds.extend(notify.map(|notify| PollFd::new(notify.as_fd(), PollFlags::POLLIN)));
            match poll(&mut fds, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                other => other.context("waiting for the container")?,
            };
            let ready: Vec<bool> = fds.iter().map(|f| f.any().unwrap_or(false)).collect();
            if ready[0] {
                self.pass_signals(pid, terminal.as_ref());
            }
            if let Some(notify) = notify.filter(|_| ready[told]) {
                if let Err(e) = notify.forward(std::process::id() as i32) {
                    log::warn!("telling the service manager that the container is ready: {e}");
                }
            }
            if let Some(terminal) = &terminal {
                if ready.get(1) == Some(&true) && terminal.output() == Flow::Ended {
                    // EIO: no slave is open. The process may have closed it and live on, so look again in a moment.
                    let mut fds = [PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
                    let _ = poll(&mut fds, PollTimeout::from(50u8));
                }
                if from_input && ready.get(2) == Some(&true) {
                    from_input = terminal.input() != Flow::Ended;
                }
            }
        }
    }

    fn pass_signals(&self, pid: i32, terminal: Option<&Terminal>) {
        while let Ok(Some(info)) = self.signals.read_signal() {
            match info.ssi_signo as i32 {
                // Ours, or the Go callers' own way to preempt their threads.
                libc::SIGCHLD | libc::SIGURG => {}
                libc::SIGWINCH => {
                    if let Some(terminal) = terminal {
                        terminal.resize();
                    }
                }
                signal => {
                    let _ = process::kill(pid, signal);
                }
            }
        }
    }
}

/// Reaps every dead child; the status of `pid` once it is among them.
fn reap(pid: i32) -> Result<Option<WaitStatus>> {
    let mut found = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => return Ok(found),
            Err(Errno::ECHILD) if found.is_some() => return Ok(found),
            Err(Errno::EINTR) => {}
            Ok(status) if status.pid() == Some(Pid::from_raw(pid)) => found = Some(status),
            Ok(_) => {}
            Err(e) => return Err(e).context("waiting for the container's process"),
        }
    }
}

#[derive(PartialEq, Eq)]
enum Flow {
    More,
    Ended,
}

/// Our terminal in raw mode, and the container's master.
struct Terminal {
    master: OwnedFd,
    before: Option<Termios>,
}

impl Terminal {
    fn new(master: OwnedFd) -> Terminal {
        let stdin = std::io::stdin();
        let before = termios::tcgetattr(&stdin).ok();
        if let Some(before) = &before {
            let mut raw = before.clone();
            termios::cfmakeraw(&mut raw);
            // Here, and not in the container's, line ends become what a terminal wants: who captures the output wants them plain.
            raw.output_flags |= OutputFlags::OPOST;
            let _ = termios::tcsetattr(&stdin, SetArg::TCSANOW, &raw);
        }
        if let Ok(mut inner) = termios::tcgetattr(&master) {
            inner.output_flags &= !OutputFlags::ONLCR;
            let _ = termios::tcsetattr(&master, SetArg::TCSANOW, &inner);
        }
        let terminal = Terminal { master, before };
        terminal.resize();
        terminal
    }

    fn resize(&self) {
        if let Ok((rows, columns)) = tty::size(std::io::stdin().as_fd()) {
            let _ = tty::set_size(self.master.as_fd(), rows, columns);
        }
    }

    fn output(&self) -> Flow {
        copy(self.master.as_fd(), std::io::stdout().as_fd())
    }

    fn input(&self) -> Flow {
        copy(std::io::stdin().as_fd(), self.master.as_fd())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = termios::tcsetattr(std::io::stdin(), SetArg::TCSANOW, before);
        }
    }
}

/// What is there to read, once.
fn copy(from: impl AsFd, to: impl AsFd) -> Flow {
    let mut fds = [PollFd::new(from.as_fd(), PollFlags::POLLIN)];
    if !matches!(poll(&mut fds, PollTimeout::ZERO), Ok(n) if n > 0) {
        return Flow::Ended;
    }
    let mut buffer = [0u8; 16 * 1024];
    let mut left = match nix::unistd::read(from.as_fd(), &mut buffer) {
        Ok(0) | Err(_) => return Flow::Ended,
        Ok(n) => &buffer[..n],
    };
    while !left.is_empty() {
        match nix::unistd::write(to.as_fd(), left) {
            Ok(n) => left = &left[n..],
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => {
                let mut fds = [PollFd::new(to.as_fd(), PollFlags::POLLOUT)];
                let _ = poll(&mut fds, PollTimeout::NONE);
            }
            Err(_) => return Flow::Ended,
        }
    }
    Flow::More
}
