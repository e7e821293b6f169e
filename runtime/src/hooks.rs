//! Hooks: programs that run at fixed points of a container's life, with its state on standard input.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use nix::poll::{poll, PollFd, PollFlags, PollTimeout};

use crate::error::{Context, Error, Kind, Result};
use crate::invalid;
use crate::spec::{Hook, Hooks};
use crate::state::OciState;
use crate::sys::process::pidfd_open;

/// How much of a hook's output an error quotes.
const QUOTED_OUTPUT: usize = 8 * 1024;

/// Refuses what runc would refuse, before anything is done.
pub fn validate(hooks: &Hooks) -> Result<()> {
    let kinds = [
        ("prestart", &hooks.prestart),
        ("createRuntime", &hooks.create_runtime),
        ("createContainer", &hooks.create_container),
        ("startContainer", &hooks.start_container),
        ("poststart", &hooks.poststart),
        ("poststop", &hooks.poststop),
    ];
    for (kind, list) in kinds {
        for (i, hook) in list.iter().enumerate() {
            if !hook.path.starts_with('/') {
                invalid!("hooks.{kind}[{i}].path: {:?} is not an absolute path", hook.path);
            }
            if hook.args.iter().chain([&hook.path]).any(|text| text.contains('\0')) {
                invalid!("hooks.{kind}[{i}]: path or args hold a NUL byte");
            }
            if hook.timeout.is_some_and(|t| t <= 0) {
                invalid!("hooks.{kind}[{i}].timeout: {} is not above zero", hook.timeout.unwrap_or(0));
            }
        }
    }
    Ok(())
}

/// Runs `hooks` in order; the first that fails ends it. `env` is for those that name no environment: without it, they
/// have the runtime's own, as with runc.
pub fn run(kind: &str, hooks: &[Hook], state: &OciState<'_>, env: Option<&[String]>) -> Result<()> {
    each(kind, hooks, state, env, Err)
}

/// Runs `hooks` in order, all of them: one that fails is only warned of.
pub fn run_all(kind: &str, hooks: &[Hook], state: &OciState<'_>) -> Result<()> {
    each(kind, hooks, state, None, |e| {
        log::warn!("{e}");
        Ok(())
    })
}

fn each(
    kind: &str,
    hooks: &[Hook],
    state: &OciState<'_>,
    env: Option<&[String]>,
    failed: impl Fn(Error) -> Result<()>,
) -> Result<()> {
    if hooks.is_empty() {
        return Ok(());
    }
    let state = serialized(state)?;
    for (i, hook) in hooks.iter().enumerate() {
        let done = Streams::new(&state).and_then(|streams| run_one(hook, streams, env));
        done.with_context(|| naming(kind, i)).or_else(&failed)?;
    }
    Ok(())
}

fn serialized(state: &OciState<'_>) -> Result<Vec<u8>> {
    serde_json::to_vec(state).map_err(|e| Error::new(Kind::System, e.to_string()))
}

fn naming(kind: &str, i: usize) -> String {
    format!("error running {kind} hook #{i}")
}

/// Hooks that will run under the container's seccomp filter: what that may deny us is done beforehand.
pub struct Ready<'a> {
    kind: &'static str,
    hooks: Vec<(&'a Hook, Streams)>,
    env: Vec<String>,
}

impl<'a> Ready<'a> {
    pub fn new(
        kind: &'static str,
        hooks: &'a [Hook],
        state: &OciState<'_>,
        env: Vec<String>,
    ) -> Result<Ready<'a>> {
        let state = if hooks.is_empty() { Vec::new() } else { serialized(state)? };
        let ready = hooks.iter().map(|hook| Ok((hook, Streams::new(&state)?))).collect::<Result<_>>()?;
        Ok(Ready { kind, hooks: ready, env })
    }

    /// As `run`.
    pub fn run(self) -> Result<()> {
        for (i, (hook, streams)) in self.hooks.into_iter().enumerate() {
            run_one(hook, streams, Some(&self.env)).with_context(|| naming(self.kind, i))?;
        }
        Ok(())
    }
}

/// All three streams are files in memory: a hook that doesn't read, writes without end into a pipe nobody empties,
/// or leaves a daemon behind that holds them, can't block us. Of those written to, one is the hook's and one ours.
struct Streams {
    stdin: File,
    stdout: [File; 2],
    stderr: [File; 2],
}

impl Streams {
    fn new(state: &[u8]) -> Result<Streams> {
        let mut stdin = memory_file()?;
        stdin.write_all(state)?;
        stdin.seek(SeekFrom::Start(0))?;
        let written = || {
            let file = memory_file()?;
            Ok::<_, Error>([file.try_clone()?, file])
        };
        Ok(Streams { stdin, stdout: written()?, stderr: written()? })
    }
}

fn run_one(hook: &Hook, streams: Streams, env: Option<&[String]>) -> Result<()> {
    let Streams { stdin, stdout: [stdout, written], stderr: [stderr, complained] } = streams;
    let own = hook.env.as_deref().filter(|own| env.is_none() || !own.is_empty());
    let (first, rest) = match hook.args.split_first() {
        Some((first, rest)) => (first.as_str(), rest),
        None => (hook.path.as_str(), &[][..]),
    };
    let mut command = Command::new(&hook.path);
    if let Some(env) = own.or(env) {
        command.env_clear().envs(env.iter().filter_map(|e| e.split_once('=')));
    }
    let mut child = command
        .arg0(first)
        .args(rest)
        .stdin(stdin)
        .stdout(stdout)
        .stderr(stderr)
        .spawn()
        .with_context(|| format!("fork/exec {}", hook.path))?;
    let status = match hook.timeout {
        None => child.wait()?,
        Some(seconds) => match wait_until(&mut child, Duration::from_secs(seconds.max(0) as u64))? {
            Some(status) => status,
            None => {
                child.kill()?;
                child.wait()?;
                return Err(Error::new(
                    Kind::System,
                    format!("hook ran past specified timeout of {seconds}s"),
                ));
            }
        },
    };
    if status.success() {
        return Ok(());
    }
    let (out, err) = (beginning(&written)?, beginning(&complained)?);
    Err(Error::new(Kind::System, format!("{}, stdout: {out}, stderr: {err}", describe(status))))
}

/// The words Go has for a process's end, which callers know from runc.
fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, signal) => format!("signal: {}", signal.unwrap_or(0)),
    }
}

fn wait_until(child: &mut std::process::Child, limit: Duration) -> Result<Option<ExitStatus>> {
    // One beyond the clock's end is none.
    let end = Instant::now().checked_add(limit);
    let pidfd = pidfd_open(child.id() as i32);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        let left = end.map_or(Duration::MAX, |end| end.saturating_duration_since(Instant::now()));
        if left.is_zero() {
            return Ok(None);
        }
        match &pidfd {
            Ok(fd) => {
                let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
                let wait =
                    PollTimeout::try_from(left.min(Duration::from_secs(60))).unwrap_or(PollTimeout::MAX);
                // An interrupted poll only makes the loop turn.
                let _ = poll(&mut fds, wait);
            }
            // Before Linux 5.3.
            Err(_) => std::thread::sleep(left.min(Duration::from_millis(10))),
        }
    }
}

fn memory_file() -> Result<File> {
    let flags = nix::sys::memfd::MFdFlags::MFD_CLOEXEC;
    Ok(nix::sys::memfd::memfd_create("hook", flags).context("making a file for a hook's output")?.into())
}

fn beginning(file: &File) -> Result<String> {
    let mut text = vec![0; QUOTED_OUTPUT];
    let read = file.read_at(&mut text, 0)?;
    Ok(String::from_utf8_lossy(&text[..read]).trim_end().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::path::Path;

    fn shell(script: &str, timeout: Option<i64>) -> Hook {
        Hook {
            path: "/bin/sh".into(),
            args: vec!["sh".into(), "-c".into(), script.into()],
            env: Some(vec!["A=b".into()]),
            timeout,
        }
    }

    fn run_script(script: &str, timeout: Option<i64>) -> Result<()> {
        let none = BTreeMap::new();
        let state = OciState {
            oci_version: "1.3.0",
            id: "x",
            status: "creating",
            pid: 7,
            bundle: Path::new("/b"),
            annotations: &none,
        };
        run("prestart", &[shell(script, timeout)], &state, Some(&["C=d".into()]))
    }

    #[test]
    fn gets_the_state_and_only_its_own_environment() {
        run_script("grep -q '\"pid\":7' && test \"$A\" = b && test -z \"$C\" && test -z \"$HOME\"", None)
            .unwrap();
    }

    #[test]
    fn failure_quotes_the_output() {
        let e = run_script("echo out; echo err >&2; exit 3", None).unwrap_err();
        assert_eq!(e.to_string(), "error running prestart hook #0: exit status 3, stdout: out, stderr: err");
    }

    #[test]
    fn timeout_ends_it() {
        let e = run_script("exec sleep 60", Some(1)).unwrap_err();
        assert!(e.to_string().contains("timeout of 1s"), "{e}");
    }

    #[test]
    fn a_daemon_that_keeps_the_output_open_blocks_nobody() {
        run_script("sleep 5 & exit 0", None).unwrap();
    }
}
