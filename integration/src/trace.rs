//! Kills a process at the n-th place where it enters or leaves the kernel, from now on.

use crate::monitor::{heads, whole};
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{kill, Signal};
use nix::sys::wait::{waitpid, WaitPidFlag, WaitStatus};
use nix::unistd::Pid;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Where and when a process was killed.
#[derive(Debug, Clone, Copy)]
pub struct Death {
    /// Number of the system call.
    pub call: u64,
    /// Whether it was carried out.
    pub done: bool,
    /// How long the monitor lacked a head then, ms.
    pub healed: f64,
}

/// A hunt under way, on a thread of its own: the kernel lets one thread trace.
pub struct Hunt {
    over: Arc<AtomicBool>,
    thread: JoinHandle<(usize, Option<Death>)>,
}

/// Follows one head (0 keeper, 1 worker) of the monitor in `dir` and kills it at its stop number `at` (from 0: entering,
/// leaving, entering ...).
pub fn hunt(dir: &Path, head: usize, at: usize) -> Hunt {
    let over = Arc::new(AtomicBool::new(false));
    let seen = over.clone();
    let dir = dir.to_path_buf();
    let (ready, attached) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || follow(&dir, head, at, &seen, &ready));
    let _ = attached.recv_timeout(Duration::from_secs(10));
    Hunt { over, thread }
}

fn follow(
    dir: &Path,
    head: usize,
    at: usize,
    over: &AtomicBool,
    ready: &std::sync::mpsc::Sender<()>,
) -> (usize, Option<Death>) {
    let pid = Pid::from_raw(heads(dir)[head]);
    if ptrace::seize(pid, Options::PTRACE_O_TRACESYSGOOD).is_err() || ptrace::interrupt(pid).is_err() {
        return (0, None);
    }
    let _ = waitpid(pid, Some(WaitPidFlag::__WALL));
    let _ = ptrace::syscall(pid, None);
    let _ = ready.send(());
    let mut stops = 0;
    loop {
        match waitpid(pid, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) if over.load(SeqCst) => {
                // It sleeps: it is stopped to be let go.
                let _ = ptrace::interrupt(pid);
                let _ = waitpid(pid, Some(WaitPidFlag::__WALL));
                let _ = ptrace::detach(pid, None);
                return (stops, None);
            }
            Ok(WaitStatus::StillAlive) => std::thread::sleep(Duration::from_micros(100)),
            Ok(WaitStatus::PtraceSyscall(_)) => {
                if over.load(SeqCst) {
                    let _ = ptrace::detach(pid, None);
                    return (stops, None);
                }
                if stops == at {
                    let call = ptrace::getregs(pid).map_or(0, |r| r.orig_rax);
                    let when = Instant::now();
                    let _ = kill(pid, Signal::SIGKILL);
                    let _ = waitpid(pid, Some(WaitPidFlag::__WALL));
                    while !whole(dir) && when.elapsed() < Duration::from_secs(30) {
                        std::thread::sleep(Duration::from_micros(200));
                    }
                    if std::env::var_os("SHOW").is_some() {
                        eprintln!("killed {pid} at stop {at}, call {call}");
                    }
                    let healed = when.elapsed().as_secs_f64() * 1000.0;
                    return (stops, Some(Death { call, done: at % 2 == 1, healed }));
                }
                stops += 1;
                let _ = ptrace::syscall(pid, None);
            }
            Ok(WaitStatus::Stopped(_, signal)) => drop(ptrace::syscall(pid, signal)),
            Ok(WaitStatus::PtraceEvent(..)) => drop(ptrace::syscall(pid, None)),
            // It ended by itself.
            _ => return (stops, None),
        }
    }
}

impl Hunt {
    /// Ends the hunt. Returns the number of stops seen, and the death, if it came to that.
    pub fn end(self) -> (usize, Option<Death>) {
        self.over.store(true, SeqCst);
        self.thread.join().expect("tracer")
    }
}
