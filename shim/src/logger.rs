//! Logging binaries: `binary://PATH?NAME=VALUE`, a program of the operator's that reads a container's output itself. With
//! `binary-v2://` (containerd 2.2) it says that it is ready by a byte, so that one that dies at once is not taken for ready.

use crate::error::{Context, Error, Kind, Result};
use crate::state::Setup;
use crate::stream::fd;
use crate::sys::{self, Fd, Side};
use std::ffi::CString;
use std::sync::atomic::AtomicI32;

/// Starts the program with both streams at fds 3 and 4 and waits, for at most ten seconds, until it closes or writes to fd 5.
pub fn start(setup: &Setup, id: &str, address: &str, streams: [u32; 2]) -> Result<()> {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let mut args = vec![path.to_string()];
    args.extend(arguments(query));
    nix::unistd::access(path, nix::unistd::AccessFlags::X_OK)
        .context(|| format!("the logging binary {path}"))?;
    let (ready, signal) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).context(|| "making a pipe")?;
    let (pid, pidfd) = (AtomicI32::new(0), AtomicI32::new(-1));
    if let Side::Child = sys::fork_child(&pid, &pidfd).context(|| "starting the logging binary")? {
        let failed = run(setup, id, &args, streams, sys::number(&signal));
        sys::exit_now(i32::from(failed.is_err()));
    }
    Fd(pidfd.into_inner()).close();
    drop(signal);
    let mut fds = [libc::pollfd { fd: sys::number(&ready).0, events: libc::POLLIN, revents: 0 }];
    match sys::poll(&mut fds, 10_000) {
        Ok(n) if n > 0 => {
            let said = sys::read(sys::number(&ready), &mut [0]).unwrap_or(0);
            if said == 0 && address.starts_with("binary-v2://") {
                let text = format!("the logging binary {path} closed descriptor 5 without a byte: it did not get ready (with binary-v2:// it has to write one there first)");
                return Err(Error::new(Kind::System, text));
            }
            Ok(())
        }
        _ => Err(Error::new(Kind::System, format!("the logging binary {path} was not ready within 10 s"))),
    }
}

fn run(setup: &Setup, id: &str, args: &[String], streams: [u32; 2], signal: Fd) -> Result<()> {
    sys::unblock_signals();
    let [out, err] = streams.map(fd);
    let (Some(out), Some(err)) = (out, err) else { return Err(Error::system("no streams")) };
    // Out of the way of the numbers that are about to be given.
    let up = |f: Fd| nix::fcntl::fcntl(f, nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(20)).map(Fd);
    let (out, err, signal) = (up(out)?, up(err)?, up(signal)?);
    for (from, to) in [(out, 3), (err, 4), (signal, 5)] {
        sys::place(from, to)?;
    }
    std::env::set_var("CONTAINER_ID", id);
    std::env::set_var("CONTAINER_NAMESPACE", &setup.namespace);
    let c: Vec<CString> = args.iter().filter_map(|a| CString::new(a.as_bytes()).ok()).collect();
    nix::unistd::execv(&c[0], &c).map(|never| match never {}).context(|| format!("executing {}", args[0]))
}

/// A name and its first value each, which may be empty: containerd's own form.
fn arguments(query: &str) -> Vec<String> {
    let mut args: Vec<String> = Vec::new();
    for pair in query.split('&').filter(|p| !p.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (key, value) = (decode(key), decode(value));
        if !args.iter().step_by(2).any(|known| *known == key) {
            args.extend([key, value]);
        }
    }
    args
}

/// Percent-decoding, and `+` for a blank.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).and_then(|h| std::str::from_utf8(h).ok());
        match (bytes[at], hex.and_then(|h| u8::from_str_radix(h, 16).ok())) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
            }
            (b'+', _) => {
                out.push(b' ');
                at += 1;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    #[test]
    fn queries_are_decoded() {
        assert_eq!(super::decode("a%20b+c%zz"), "a b c%zz");
        assert_eq!(super::arguments("key=a%20b&flag&key=c"), ["key", "a b", "flag", ""]);
    }
}
