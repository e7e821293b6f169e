//! Logging binaries: `binary://PATH?NAME=VALUE`, a program of the operator's that reads a container's output itself. With
//! `binary-v2://` (containerd 2.2) it says that it is ready by a byte, so that one that dies at once is not taken for ready.

use crate::error::{Context, Error, Kind, Result};
use crate::state::Setup;
use crate::sys::{self, Fd, Side};
use std::ffi::CString;
use std::sync::atomic::AtomicI32;

/// Starts the program with both streams at fds 3 and 4 and waits, for at most ten seconds, until it closes or writes to fd 5. For a
/// process that may wait so long: a job's, no head. The program becomes a child of the monitor. A terminal has no second stream.
pub fn start(setup: &Setup, id: &str, address: &str, out: Fd, err: Option<Fd>) -> Result<()> {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let query = rest.split('#').next().and_then(|r| r.split_once('?')).map_or("", |(_, query)| query);
    let path = path(rest);
    let path = path.as_str();
    let mut args = vec![path.to_string()];
    args.extend(arguments(query));
    nix::unistd::access(path, nix::unistd::AccessFlags::X_OK)
        .context(|| format!("the logging binary {path}"))?;
    let (ready, signal) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).context(|| "making a pipe")?;
    let err = match err {
        Some(err) => err,
        // One that is at its end.
        None => Fd::keep(nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).context(|| "making a pipe")?.0),
    };
    let (pid, pidfd) = (AtomicI32::new(0), AtomicI32::new(-1));
    let fork = || sys::fork_child(&pid, &pidfd).context(|| "starting the logging binary");
    if let Side::Child = fork()? {
        // Not this process's child: it is about to become the runtime.
        let failed = match fork() {
            Ok(Side::Child) => run(setup, id, &args, [out, err, sys::number(&signal)]).is_err(),
            forked => forked.is_err(),
        };
        sys::exit_now(i32::from(failed));
    }
    Fd(pidfd.into_inner()).close();
    sys::wait_child(pid.into_inner());
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

fn run(setup: &Setup, id: &str, args: &[String], given: [Fd; 3]) -> Result<()> {
    sys::unblock_signals();
    // Out of the way of the numbers that are about to be given.
    let up = |f: Fd| nix::fcntl::fcntl(f, nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(20)).map(Fd);
    let [out, err, signal] = given;
    for (from, to) in [(up(out)?, 3), (up(err)?, 4), (up(signal)?, 5)] {
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
        let (key, value) = (decode(&key.replace('+', " ")), decode(&value.replace('+', " ")));
        if !args.iter().step_by(2).any(|known| *known == key) {
            args.extend([key, value]);
        }
    }
    args
}

/// The path in an address, of which the scheme was taken off.
pub fn path(rest: &str) -> String {
    decode(rest.split(['?', '#']).next().unwrap_or(rest))
}

/// Percent-decoding.
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
        assert_eq!(super::decode("a%20b+c%zz"), "a b+c%zz");
        assert_eq!(super::arguments("key=a%20b+c&flag&key=c"), ["key", "a b c", "flag", ""]);
        assert_eq!(super::path("/a%20b+c/d%3f?key=value#end"), "/a b+c/d?");
    }
}
