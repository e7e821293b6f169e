//! Runs a program system call by system call, and kills it, or a process it makes, at the one asked for.

use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{kill, Signal};
use nix::sys::wait::{waitpid, WaitPidFlag, WaitStatus};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::process::Command;
use std::sync::mpsc::{self, RecvTimeoutError};

/// Whose system calls are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// The program's own, its later self after an execve included.
    Program,
    /// Those of the processes it makes, until they execute something else.
    Children,
}

/// How many system calls were begun.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Calls {
    pub program: usize,
    pub children: usize,
    /// Whether the program ended by itself, with a status that isn't 0.
    pub failed: bool,
}

impl Calls {
    pub fn of(self, whose: Whose) -> usize {
        match whose {
            Whose::Program => self.program,
            Whose::Children => self.children,
        }
    }
}

/// Runs `command` to its end; with `victim`, the process that begins that call (from 1 on) dies before it is made.
///
/// A tracer is a thread, and the kernel lets go of all that a thread traces when the thread ends: so each run has a
/// thread of its own, and what the program leaves behind lives on undisturbed.
///
/// # Panics
/// If the program can't be started or traced, or hangs.
pub fn run(mut command: Command, victim: Option<(Whose, usize)>) -> Calls {
    let (tell, hear) = mpsc::channel();
    let tracer = std::thread::spawn(move || {
        sys::trace_me(&mut command);
        let mut child = command.spawn().expect("a program to trace");
        let program = Pid::from_raw(child.id() as i32);
        tell.send(program).expect("a listener");
        let run = Run {
            program,
            victim,
            calls: Calls::default(),
            known: BTreeSet::new(),
            inside: BTreeSet::new(),
            _alive: tell,
        };
        let calls = run.finish();
        // It is reaped already.
        let _ = child.wait();
        calls
    });
    let program = hear.recv();
    if let (Ok(program), Err(RecvTimeoutError::Timeout)) =
        (program, hear.recv_timeout(crate::host::patience()))
    {
        let _ = kill(program, Signal::SIGKILL);
        panic!("hangs, with {victim:?} to be killed");
    }
    match tracer.join() {
        Ok(calls) => calls,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

struct Run {
    program: Pid,
    victim: Option<(Whose, usize)>,
    calls: Calls,
    known: BTreeSet<Pid>,
    /// Between the begin and the end of a call.
    inside: BTreeSet<Pid>,
    /// Hung up at the end.
    _alive: mpsc::Sender<Pid>,
}

impl Run {
    fn finish(mut self) -> Calls {
        // Other threads of the test program have children of their own.
        let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
        loop {
            match waitpid(None, Some(flags)).expect("waiting for what is traced") {
                WaitStatus::Exited(pid, code) if pid == self.program => {
                    return Calls { failed: code != 0, ..self.calls }
                }
                WaitStatus::Signaled(pid, ..) if pid == self.program => return self.calls,
                WaitStatus::Exited(..) | WaitStatus::Signaled(..) => {}
                other => self.stopped(other),
            }
        }
    }

    /// ESRCH everywhere: it was killed while it was stopped.
    fn stopped(&mut self, status: WaitStatus) {
        let Some(pid) = status.pid() else { return };
        let first = self.known.insert(pid);
        match status {
            WaitStatus::PtraceSyscall(_) => {
                if self.inside.remove(&pid) || !self.begins(pid) {
                    let _ = ptrace::syscall(pid, None);
                }
            }
            WaitStatus::PtraceEvent(_, _, event)
                if event == libc::PTRACE_EVENT_EXEC && pid != self.program =>
            {
                let _ = ptrace::detach(pid, None);
            }
            WaitStatus::Stopped(_, signal) if first => {
                if pid == self.program {
                    let children = Options::PTRACE_O_TRACEFORK
                        | Options::PTRACE_O_TRACEVFORK
                        | Options::PTRACE_O_TRACECLONE;
                    let all = children | Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACEEXEC;
                    ptrace::setoptions(pid, all).expect("options of ptrace");
                }
                debug_assert!(matches!(signal, Signal::SIGSTOP | Signal::SIGTRAP));
                let _ = ptrace::syscall(pid, None);
            }
            WaitStatus::Stopped(_, signal) => drop(ptrace::syscall(pid, signal)),
            _ => drop(ptrace::syscall(pid, None)),
        }
    }

    /// Counts; whether the process was killed for it.
    fn begins(&mut self, pid: Pid) -> bool {
        self.inside.insert(pid);
        let (whose, count) = match pid == self.program {
            true => (Whose::Program, &mut self.calls.program),
            false => (Whose::Children, &mut self.calls.children),
        };
        *count += 1;
        let hit = self.victim == Some((whose, *count));
        if hit {
            let _ = kill(pid, Signal::SIGKILL);
        }
        hit
    }
}

#[allow(unsafe_code)]
mod sys {
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    pub fn trace_me(command: &mut Command) {
        // SAFETY: runs between fork and exec; ptrace is a bare system call and touches no memory of ours.
        unsafe { command.pre_exec(|| nix::sys::ptrace::traceme().map_err(Into::into)) };
    }
}
