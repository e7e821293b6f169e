//! `shim attach`: output, input, window size and detach keys of a running container, straight from its monitor.
//!
//! The client makes FIFOs in the monitor's directory and names them in `Attach`; bytes then pass through them alone. On the same
//! connection it asks to `Wait`, and ends with the container's exit status.

use super::{link::Link, Options, Place};
use crate::api::*;
use crate::error::{Context, Error, Kind, Result};
use crate::pb::Message;
use crate::sys::{self, Fd};
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::sys::termios;
use std::os::fd::AsFd;
use std::path::PathBuf;

/// FIFOs of this client, removed when it leaves.
struct Fifos([PathBuf; 3]);

impl Drop for Fifos {
    fn drop(&mut self) {
        self.0.iter().for_each(|p| drop(std::fs::remove_file(p)));
    }
}

/// The terminal as it was before.
struct Raw(Option<termios::Termios>);

impl Raw {
    fn set() -> Raw {
        let stdin = std::io::stdin();
        let Ok(old) = termios::tcgetattr(stdin.as_fd()) else { return Raw(None) };
        let mut raw = old.clone();
        termios::cfmakeraw(&mut raw);
        let _ = termios::tcsetattr(stdin.as_fd(), termios::SetArg::TCSANOW, &raw);
        Raw(Some(old))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(old) = &self.0 {
            let _ = termios::tcsetattr(std::io::stdin().as_fd(), termios::SetArg::TCSANOW, old);
        }
    }
}

/// `ctrl-p,ctrl-q` as the bytes that a terminal sends for them.
fn detach_keys(text: &str) -> Result<Vec<u8>> {
    let key = |name: &str| match name.strip_prefix("ctrl-").map(str::as_bytes) {
        Some([c]) if c.is_ascii_alphabetic() => Some(c.to_ascii_lowercase() & 0x1f),
        Some([c @ (b'@' | b'[' | b'\\' | b']' | b'^' | b'_')]) => Some(c & 0x1f),
        None if name.len() == 1 => Some(name.as_bytes()[0]),
        _ => None,
    };
    let wrong = |name: &str| {
        Error::new(Kind::Invalid, format!("{name:?} is no key: use a letter, or ctrl- and a letter"))
    };
    text.split(',').map(|name| key(name).ok_or_else(|| wrong(name))).collect()
}

pub fn attach(place: &Place, options: &Options) -> Result<i32> {
    let keys = detach_keys(options.value("--detach-keys").unwrap_or("ctrl-p,ctrl-q"))?;
    let exec = options.value("--exec").unwrap_or_default().to_string();
    let mut link = Link::open(place)?;
    let name = |n: u8| place.directory.join(format!("attach.{}.{n}", std::process::id()));
    let fifos = Fifos([name(0), name(1), name(2)]);
    let open = |path: &PathBuf, flags: OFlag| -> Result<Fd> {
        let fd = nix::fcntl::open(path, flags | OFlag::O_CLOEXEC, Mode::empty())
            .context(|| format!("opening {}", path.display()))?;
        Ok(Fd::keep(fd))
    };
    for path in &fifos.0 {
        nix::unistd::mkfifo(path, Mode::from_bits_truncate(0o600))
            .context(|| format!("making {}", path.display()))?;
    }
    let outputs = [
        open(&fifos.0[1], OFlag::O_RDONLY | OFlag::O_NONBLOCK)?,
        open(&fifos.0[2], OFlag::O_RDONLY | OFlag::O_NONBLOCK)?,
    ];
    let text = |p: &PathBuf| p.to_string_lossy().into_owned();
    let stdin = !options.is("--no-stdin");
    // Opened for both ways, so that it opens at once and the monitor sees its end when this process goes.
    let input = open(&fifos.0[0], OFlag::O_RDWR | OFlag::O_NONBLOCK)?;
    let request = AttachRequest {
        id: place.task.clone(),
        exec_id: exec.clone(),
        stdin: if stdin { text(&fifos.0[0]) } else { String::new() },
        stdout: text(&fifos.0[1]),
        stderr: text(&fifos.0[2]),
    };
    let answer = AttachResponse::decode(&link.call(MONITOR, "Attach", &request.bytes())?)?;
    let target = place.target(options);
    let waiting = link.send(TASK_V3, "Wait", &target.bytes())?;
    let _raw = answer.terminal.then(Raw::set);
    let mut session = Session {
        link,
        waiting,
        outputs: outputs.map(|fd| Output {
            from: Some(fd),
            held: Vec::new(),
            written: 0,
            full: None,
            late: false,
        }),
        input,
        keys,
        matched: 0,
        size: None,
        stdin,
        terminal: answer.terminal,
    };
    session.serve(&target)
}

/// So much is held for whoever reads this program's output, who may be slow; the monitor lets a client go that reads nothing.
const HELD: usize = 64 << 20;

/// One stream on its way through.
struct Output {
    /// The FIFO; None: at its end.
    from: Option<Fd>,
    /// What was read and is still to be written, and how much of it was.
    held: Vec<u8>,
    written: usize,
    /// Since when there has been no room for more; and whether that was so for long enough to be let go.
    full: Option<std::time::Instant>,
    late: bool,
}

impl Output {
    fn waits(&self) -> bool {
        self.written < self.held.len()
    }

    /// The FIFO, while there is room for what comes from it.
    fn wanted(&mut self) -> i32 {
        if self.held.len() - self.written < HELD {
            self.full = None;
            return self.from.map_or(-1, |fd| fd.0);
        }
        let since = self.full.get_or_insert_with(std::time::Instant::now);
        self.late |= since.elapsed().as_millis() >= 1000;
        -1
    }

    /// Takes what there is.
    fn read(&mut self) {
        let Some(from) = self.from else { return };
        let mut buffer = [0; 16384];
        match sys::read(from, &mut buffer) {
            Ok(n) if n > 0 => {
                if self.written > HELD / 4 {
                    self.held.drain(..std::mem::take(&mut self.written));
                }
                self.held.extend_from_slice(&buffer[..n]);
            }
            Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => {}
            _ => {
                self.from = None;
                if std::mem::take(&mut self.late) {
                    eprintln!(
                        "attach: the monitor let this client go, and the rest of the output is missing: {} MiB were waiting for \
                         whoever reads it here (`logs` has the last of it)",
                        HELD >> 20
                    );
                }
            }
        }
    }

    /// Gives on a piece that a pipe with room for anything takes whole, so that this never waits.
    fn write(&mut self, to: Fd) {
        let end = self.held.len().min(self.written + libc::PIPE_BUF);
        match sys::write(to, &self.held[self.written..end]) {
            Ok(n) => self.written += n,
            Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => {}
            // Nobody is there any more.
            Err(_) => (self.from, self.written) = (None, self.held.len()),
        }
        if !self.waits() {
            (self.held, self.written) = (Vec::new(), 0);
        }
    }
}

struct Session {
    link: Link,
    waiting: u32,
    outputs: [Output; 2],
    input: Fd,
    keys: Vec<u8>,
    matched: usize,
    size: Option<(u16, u16)>,
    stdin: bool,
    terminal: bool,
}

impl Session {
    fn serve(&mut self, target: &Target) -> Result<i32> {
        loop {
            self.resize(target)?;
            let stdin = if self.stdin { 0 } else { -1 };
            let link = sys::number(&self.link.socket).0;
            let ready = self.poll([link, stdin], 250);
            if ready[1] && self.typed()? {
                return Ok(0);
            }
            if ready[0] {
                let (header, payload) = self.link.receive().inspect_err(|_| self.drain())?;
                if header.stream == self.waiting {
                    let answer = crate::ttrpc::answer(&payload)?;
                    self.drain();
                    return Ok(WaitResponse::decode(&answer)?.exit_status as i32);
                }
            }
        }
    }

    /// Waits for news of two other descriptors while it passes on what the container writes.
    fn poll(&mut self, others: [i32; 2], timeout_ms: i32) -> [bool; 2] {
        let input = |fd: i32| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        let mut fds: Vec<libc::pollfd> = others.map(input).into();
        fds.extend(self.outputs.iter_mut().map(|o| input(o.wanted())));
        let to = |(n, o): (usize, &Output)| if o.waits() { n as i32 + 1 } else { -1 };
        let sinks = self.outputs.iter().enumerate().map(to);
        fds.extend(sinks.map(|fd| libc::pollfd { fd, events: libc::POLLOUT, revents: 0 }));
        let _ = sys::poll(&mut fds, timeout_ms);
        for (n, output) in self.outputs.iter_mut().enumerate() {
            if fds[2 + n].revents != 0 {
                output.read();
            }
            if fds[4 + n].revents != 0 {
                output.write(Fd(n as i32 + 1));
            }
        }
        [fds[0].revents != 0, fds[1].revents != 0]
    }

    /// The process has ended: what it wrote still comes, up to the end that the monitor makes. Somebody whom it left behind may
    /// hold the streams open for ever, so silence is an end too. Who reads it here may take all the time that there is.
    fn drain(&mut self) {
        let mut quiet = std::time::Instant::now();
        while self.outputs.iter().any(Output::waits)
            || (self.outputs.iter().any(|o| o.from.is_some()) && quiet.elapsed().as_millis() < 500)
        {
            let before = std::time::Instant::now();
            self.poll([-1, -1], 100);
            if before.elapsed().as_millis() < 100 {
                quiet = std::time::Instant::now();
            }
        }
    }

    /// Passes on what was typed. True if the detach keys were.
    fn typed(&mut self) -> Result<bool> {
        let mut buffer = [0; 4096];
        let n = sys::read(Fd(0), &mut buffer).unwrap_or(0);
        if n == 0 {
            self.stdin = false;
            return Ok(false);
        }
        for byte in &buffer[..n] {
            if self.terminal && self.keys.get(self.matched) == Some(byte) {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    return Ok(true);
                }
                continue;
            }
            // What looked like the beginning of the keys was meant for the container.
            let held = std::mem::take(&mut self.matched);
            self.pass(&self.keys[..held]);
            self.pass(&[*byte]);
        }
        Ok(false)
    }

    fn pass(&self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            match sys::write(self.input, rest) {
                Ok(n) => rest = &rest[n..],
                Err(nix::errno::Errno::EAGAIN) => std::thread::sleep(std::time::Duration::from_millis(5)),
                Err(_) => return,
            }
        }
    }

    fn resize(&mut self, target: &Target) -> Result<()> {
        let now = sys::window(Fd(0));
        if self.terminal && now.is_some() && now != self.size {
            self.size = now;
            let (width, height) = now.map_or((0, 0), |(c, r)| (u32::from(c), u32::from(r)));
            let request =
                ResizeRequest { id: target.id.clone(), exec_id: target.exec_id.clone(), width, height };
            self.link.send(TASK_V3, "ResizePty", &request.bytes())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn keys_are_bytes() {
        assert_eq!(super::detach_keys("ctrl-p,ctrl-q,x").unwrap(), [16, 17, b'x']);
        assert!(super::detach_keys("f13").is_err());
    }
}
