//! The two heads.
//!
//! A keeper and a worker share one descriptor table (`CLONE_FILES`) and one mapped file. Whichever dies, every descriptor stays
//! open and every fact stays written; the survivor grows the other anew. The keeper does nothing but wait: it writes down exits
//! of orphans that the kernel gave to it, and forks workers. A worker whose keeper died takes its place and forks a new worker.

use crate::sys::map::{Map, UPGRADE_FAILED, UPGRADE_WANTED};
use crate::sys::{self, Side};
use crate::worker;
use std::sync::atomic::Ordering::SeqCst;

/// What a worker ends with when there is nothing left to do; anything else means it was killed.
pub const DONE: i32 = 0;

/// Never returns. Runs in both heads.
pub fn run(map: &Map) -> ! {
    let mut hasty = 0;
    loop {
        become_keeper(map);
        let born = sys::now_ns();
        match sys::fork_head(&map.header().worker) {
            Ok(Side::Child) => {
                // Returns only when the keeper is dead: then this is the keeper.
                worker::run(map);
                hasty = 0;
                continue;
            }
            Ok(Side::Parent) => keep(map),
            // No memory or no pid just now: there may be some soon.
            Err(_) => hasty = 20,
        }
        // A worker that dies at once, again and again, must not eat a processor.
        hasty = if sys::now_ns() - born < 20_000_000 { hasty + 1 } else { 0 };
        if hasty > 20 {
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }
}

/// Those of a monitor's heads that live, seen from outside.
pub fn living(map: &Map, namespace: &str, id: &str) -> Vec<i32> {
    let header = map.header();
    let name = format!("{namespace}/{id}");
    let alive = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        *pid > 0 && line.split(|b| *b == 0).any(|part| part == name.as_bytes())
    };
    [header.keeper.load(SeqCst), header.worker.load(SeqCst)].into_iter().filter(alive).collect()
}

fn become_keeper(map: &Map) {
    let header = map.header();
    sys::prctl(libc::PR_SET_CHILD_SUBREAPER, 1);
    let pid = std::process::id() as i32;
    // That of the keeper before is of no use any more, and its place may be the last. Without one of its own (-1 is never ready) this
    // one's end goes unseen; that of a dead one would have every worker take its place at once, heads without number.
    let old = header.keeper_fd.swap(-1, SeqCst);
    if old > 0 {
        sys::Fd(old).close();
    }
    if let Ok(fd) = sys::pidfd_open(pid) {
        header.keeper_fd.store(fd.0, SeqCst);
    }
    header.keeper.store(pid, SeqCst);
    header.heads.fetch_add(1, SeqCst);
    sys::trim_heap();
}

/// Returns when the worker died and a new one is needed.
fn keep(map: &Map) {
    let header = map.header();
    let worker = header.worker.load(SeqCst);
    loop {
        let change = match sys::peek_child(true) {
            Ok(Some(change)) => change,
            // No child at all: somebody else took the worker's end.
            Err(nix::errno::Errno::ECHILD) => return,
            _ => continue,
        };
        if change.pid == worker && change.stopped {
            // It asks for the installed program; or somebody stopped it, and the container's output would wait for ever.
            if header.upgrade.load(SeqCst) == UPGRADE_WANTED {
                let failed = crate::start::exec_again(map);
                header.upgrade.store(UPGRADE_FAILED + failed as u32, SeqCst);
            }
            // In this order: another stop that comes meanwhile is news again.
            sys::reap(change);
            sys::continue_process(worker);
        } else if change.pid == worker {
            if change.code == DONE as u32 {
                sys::exit_now(DONE);
            }
            sys::reap(change);
            return;
        } else if change.stopped || map.record_exit(change, sys::now_ns()) {
            sys::reap(change);
            poke(map);
        } else {
            // No room until the worker has read: the zombie keeps its status meanwhile, but must not hide the worker's death.
            if let Some(end) = sys::zombie(worker) {
                sys::reap(end);
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

fn poke(map: &Map) {
    let _ = sys::write(sys::Fd(map.header().poke_fd.load(SeqCst)), &1u64.to_ne_bytes());
}
