//! Runs a program to its end, within the host's patience, and keeps what it said.

use crate::host;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Seek, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// What a program said and how it ended.
#[derive(Debug)]
pub struct Out {
    /// The exit status; 128 + n when a signal n ended it.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    line: String,
}

impl Out {
    /// Fails the test unless the program succeeded.
    #[track_caller]
    pub fn ok(self) -> Out {
        assert_eq!(self.code, 0, "{self}");
        self
    }

    /// Fails the test unless the program failed and said something with `text` in it.
    #[track_caller]
    pub fn fails_with(self, text: &str) -> Out {
        assert_ne!(self.code, 0, "should have failed with {text:?}: {self}");
        assert!(self.stderr.contains(text), "should have said {text:?}: {self}");
        self
    }

    /// Fails the test unless the program failed.
    #[track_caller]
    pub fn fails(self) -> Out {
        assert_ne!(self.code, 0, "should have failed: {self}");
        self
    }

    #[track_caller]
    pub fn exits(self, code: i32) -> Out {
        assert_eq!(self.code, code, "{self}");
        self
    }

    /// Fails the test unless its standard output, trimmed, is `text`.
    #[track_caller]
    pub fn says(self, text: &str) -> Out {
        assert_eq!(self.stdout.trim_end(), text, "{self}");
        self
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("no JSON: {e}: {self}"))
    }
}

impl std::fmt::Display for Out {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\n  ended with {}\n  out: {}\n  err: {}", self.line, self.code, self.stdout, self.stderr)
    }
}

/// A program about to be run.
pub struct Run {
    command: Command,
    stdin: Vec<u8>,
    stdout: Option<PathBuf>,
    limit: Duration,
}

impl Run {
    pub fn new(program: impl AsRef<OsStr>) -> Run {
        Run { command: Command::new(program), stdin: Vec::new(), stdout: None, limit: host::patience() }
    }

    /// A line of shell.
    pub fn sh(script: &str) -> Run {
        Run::new("sh").args(["-c", script])
    }

    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Run {
        self.command.args(args);
        self
    }

    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Run {
        self.command.env(name, value);
        self
    }

    pub fn without_env(mut self, name: &str) -> Run {
        self.command.env_remove(name);
        self
    }

    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Run {
        self.command.current_dir(dir.into());
        self
    }

    pub fn stdin(mut self, text: impl Into<Vec<u8>>) -> Run {
        self.stdin = text.into();
        self
    }

    /// Standard output goes to this file, which stays: a container left behind writes on to it.
    pub fn stdout_to(mut self, file: impl Into<PathBuf>) -> Run {
        self.stdout = Some(file.into());
        self
    }

    /// More patience than the host's, for what takes long by nature.
    pub fn patient(mut self, factor: u32) -> Run {
        self.limit *= factor;
        self
    }

    /// For what this builder has no word for.
    pub fn tune(mut self, f: impl FnOnce(&mut Command)) -> Run {
        f(&mut self.command);
        self
    }

    /// The bare command, for who takes care of its streams and of its end.
    pub fn command(self) -> Command {
        self.command
    }

    /// Runs it to its end. Output goes through files, not pipes: a container that lives on keeps its standard
    /// streams open, and that must not keep the caller waiting.
    #[track_caller]
    pub fn out(self) -> Out {
        let mut started = self.start();
        let code = started.wait();
        started.read(code)
    }

    #[track_caller]
    pub fn ok(self) -> Out {
        self.out().ok()
    }

    /// Starts it and returns; dropped, it is killed.
    #[track_caller]
    pub fn start(mut self) -> Started {
        let line = format!("{:?}", self.command);
        let (kept, stdout) = match self.stdout {
            Some(file) => (true, file),
            None => (false, scratch_file("out")),
        };
        let stderr = scratch_file("err");
        let mut stdin = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(scratch_file("in"))
            .unwrap();
        stdin.write_all(&self.stdin).unwrap();
        stdin.rewind().unwrap();
        // crun gives its standard input to the container's user, be it the host's /dev/null.
        let null = self.stdin.is_empty() && host::peer() != host::Peer::Crun;
        let stdin = if null { Stdio::null() } else { Stdio::from(stdin) };
        self.command
            .stdin(stdin)
            .stdout(File::options().append(true).create(true).open(&stdout).unwrap())
            .stderr(File::create(&stderr).unwrap());
        let child = self.command.spawn().unwrap_or_else(|e| panic!("{line}: {e}"));
        Started { child, line, stdout, stderr, kept, limit: self.limit }
    }
}

/// A program that is running.
pub struct Started {
    child: Child,
    line: String,
    stdout: PathBuf,
    stderr: PathBuf,
    kept: bool,
    limit: Duration,
}

impl Started {
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// What it has said until now.
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.stdout).unwrap_or_default()).into_owned()
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid()), signal).expect("signal");
    }

    /// Its end.
    #[track_caller]
    pub fn out(mut self) -> Out {
        let code = self.wait();
        self.read(code)
    }

    fn read(&self, code: i32) -> Out {
        let text = |p: &PathBuf| String::from_utf8_lossy(&fs::read(p).unwrap_or_default()).into_owned();
        Out { code, stdout: text(&self.stdout), stderr: text(&self.stderr), line: self.line.clone() }
    }

    #[track_caller]
    fn wait(&mut self) -> i32 {
        let start = Instant::now();
        let mut pause = Duration::from_micros(200);
        loop {
            if let Some(status) = self.child.try_wait().expect("wait") {
                return status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
            }
            if start.elapsed() > self.limit {
                let _ = self.child.kill();
                let _ = self.child.wait();
                panic!("hangs: {}", self.read(-1));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if !self.kept {
            let _ = fs::remove_file(&self.stdout);
        }
        let _ = fs::remove_file(&self.stderr);
    }
}

fn scratch_file(kind: &str) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let dir = crate::janitor::scratch().join("io");
    fs::create_dir_all(&dir).expect("scratch folder");
    dir.join(format!("{}.{kind}", NEXT.fetch_add(1, Ordering::Relaxed)))
}
