//! What a committed decision does to the world, and what the world says back: jobs, exits, records, terminals.

use super::Worker;
use crate::error::{Error, Kind};
use crate::machine::{Action, Event};
use crate::state::{Asker, Job, Op, Process};
use crate::stream::{close, fd, number};
use crate::sys::map::{UPGRADED, UPGRADE_FAILED, UPGRADE_WANTED};
use crate::sys::{self, Change, Fd, Side};
use crate::{job, memory, record};
use nix::errno::Errno;
use std::sync::atomic::Ordering::SeqCst;

impl Worker<'_> {
    pub(super) fn perform(&mut self, action: Action) {
        match action {
            // Part of the job that needs it, and of that job's failure.
            Action::OpenStdio { .. } => {}
            Action::CloseStdio { task, exec } => self.close_stdio(&task, &exec),
            Action::Spawn { op } => self.spawn(op),
            Action::Record { task, exec } => self.record(&task, &exec),
            Action::CloseStdin { task, exec } => self.close_stdin(&task, &exec),
            Action::Watch { task, exec } => self.watch_process(&task, &exec),
            Action::Forget { task } => self.forget(&task),
            Action::End => self.over = true,
            // Done within the commit.
            Action::Reply { .. }
            | Action::Publish { .. }
            | Action::Stats { .. }
            | Action::Resize { .. }
            | Action::Attach { .. }
            | Action::Upgrade { .. } => {}
        }
    }

    pub(super) fn resize(&mut self, task: &str, exec: &str, width: u32, height: u32) {
        let Some(p) = self.root.state.process_mut(task, exec) else { return };
        match fd(p.console) {
            Some(console) => drop(sys::set_window(console, width as u16, height as u16)),
            // The terminal comes later and gets its size then.
            None => p.size = width << 16 | (height & 0xffff),
        }
    }

    pub(super) fn reply(&mut self, asker: &Asker, result: &crate::error::Result<Vec<u8>>) {
        self.answer(asker, result);
        self.commit();
        self.flush();
    }

    /// Starts a job's process, unless a head that died meanwhile already did.
    fn spawn(&mut self, id: u64) {
        let Some(op) = self.root.state.ops.iter().find(|o| o.id == id).cloned() else { return };
        let header = self.map.header();
        let (pid, pidfd) = (&header.ops[op.slot as usize], &header.op_fds[op.slot as usize]);
        if pid.load(SeqCst) != 0 {
            return;
        }
        if matches!(op.job, Job::Create | Job::Exec | Job::Restore) {
            if let Err(e) = self.open_stdio(&op.task, &op.exec) {
                // Better none than one whose output goes nowhere.
                return self.event(Event::Done { op: id, result: Err(e) });
            }
        }
        match sys::fork_child(pid, pidfd) {
            Ok(Side::Child) => {
                let code = match self.root.state.task(&op.task) {
                    Some(task) => job::child(&self.root.setup, task, &op),
                    None => 1,
                };
                sys::exit_now(code)
            }
            Ok(Side::Parent) => {}
            Err(e) => {
                let error = Error::system(format!("starting a process for the runtime: {e}"));
                self.event(Event::Done { op: id, result: Err(error) });
            }
        }
    }

    /// Children changed: each end is carried through before the zombie goes.
    pub(super) fn children(&mut self) {
        let signals = Fd(self.map.header().child_fd.load(SeqCst));
        let mut scratch = [0; 128 * 8];
        while sys::read(signals, &mut scratch).is_ok_and(|n| n > 0) {}
        while let Ok(Some(change)) = sys::peek_child(false) {
            if !change.stopped {
                self.ended(change);
            }
            sys::reap(change);
        }
    }

    /// Exits that the keeper saw.
    pub(super) fn keepers_news(&mut self) {
        while let Some((change, _)) = self.map.next_exit() {
            self.ended(change);
            self.map.exit_taken();
        }
    }

    fn ended(&mut self, change: Change) {
        let header = self.map.header();
        let slot = |o: &&Op| header.ops[o.slot as usize].load(SeqCst) == change.pid;
        match self.root.state.ops.iter().find(slot).cloned() {
            Some(op) => self.job_ended(&op, change),
            None => {
                let exit = Event::Exit {
                    pid: change.pid as u32,
                    code: change.code,
                    killed: change.killed,
                    core: change.core,
                    unknown: false,
                };
                self.event(exit);
            }
        }
    }

    fn job_ended(&mut self, op: &Op, change: Change) {
        let task = self.root.state.task(&op.task).cloned();
        let result = job::outcome(&self.root.setup, task.as_ref(), op, &change);
        if let (Job::Create | Job::Restore, Some(task)) = (op.job, &task) {
            let shared = job::shared_pids(&self.root.setup, task).exists();
            if let Some(t) = self.root.state.tasks.iter_mut().find(|t| t.id == op.task) {
                t.shared_pids = shared;
            }
        }
        if let (Job::Create | Job::Prepare, Some(task), Err(_)) = (op.job, &task, &result) {
            job::unmount_rootfs(task);
        }
        if let (Job::Delete, Some(task), Ok(_)) = (op.job, &task, &result) {
            job::unmount_rootfs(task);
        }
        let slot = op.slot as usize;
        if matches!(op.job, Job::Create | Job::Exec | Job::Restore) {
            self.take_consoles(&op.task, &op.exec);
            self.close_child_ends(&op.task, &op.exec);
        }
        self.event(Event::Done { op: op.id, result });
        let pidfd = self.map.header().op_fds[slot].load(SeqCst);
        if pidfd > 0 && !self.root.state.ops.iter().any(|o| o.slot as usize == slot) {
            self.map.header().op_fds[slot].store(0, SeqCst);
            Fd(pidfd).close();
        }
        job::clear(&self.root.setup, op);
    }

    /// Somebody who is not a head was the parent, and reaped it: the pidfd still knows how it ended, on Linux 6.15 and later.
    pub(super) fn job_reaped_elsewhere(&mut self, index: usize, pidfd: Fd, revents: i16) {
        self.children();
        self.keepers_news();
        let header = self.map.header();
        let Some(op) = self.root.state.ops.get(index).cloned() else { return };
        if header.op_fds[op.slot as usize].load(SeqCst) != pidfd.0 {
            return;
        }
        let pid = header.ops[op.slot as usize].load(SeqCst);
        let Some(change) = self.seen_from_outside(pid, pidfd, revents) else { return };
        if self.root.state.ops.iter().any(|o| o.id == op.id) {
            self.job_ended(&op, change);
        }
    }

    /// What an adopted container runs is nobody's child here. Where pidfds don't tell how such a process ended, the process
    /// connector does; it has to be asked while that still runs.
    pub(super) fn listen_for_exits(&mut self) {
        if !self.root.adopted || self.root.exits != 0 || sys::pidfds_tell() {
            return;
        }
        let all = self.root.state.tasks.iter().flat_map(|t| t.processes());
        let pids: Vec<u32> = all.filter(|p| p.pid != 0 && !p.exited()).map(|p| p.pid).collect();
        match sys::exits::listen(&pids) {
            Ok(fd) => self.root.exits = number(fd),
            Err(e) => self.log(&format!("the ends of adopted processes will be unknown: before Linux 6.15 the process connector tells them, and it can't be had: {e}")),
        }
        self.commit();
    }

    pub(super) fn hear_exits(&mut self) {
        let news = fd(self.root.exits).map_or(Vec::new(), sys::exits::heard);
        for change in &news {
            let all = self.root.state.tasks.iter_mut().flat_map(|t| t.processes_mut());
            for p in all.filter(|p| p.pid == change.pid as u32 && !p.exited()) {
                (p.heard, p.heard_killed, p.heard_core) = (change.code + 1, change.killed, change.core);
            }
        }
        if !news.is_empty() {
            self.commit();
        }
    }

    /// How an adopted process ended, by the process connector.
    fn heard(&mut self, pid: u32) -> Option<Change> {
        self.hear_exits();
        let mut all = self.root.state.tasks.iter().flat_map(|t| t.processes());
        let p = all.find(|p| p.pid == pid && p.heard != 0)?;
        let (code, killed, core) = (p.heard - 1, p.heard_killed, p.heard_core);
        Some(Change { pid: pid as i32, stopped: false, code, killed, core })
    }

    /// How a process ended whose parent is no head. Before it is reaped /proc tells, afterwards the pidfd does, on Linux 6.15
    /// and later, or the process connector; else it is unknown (pid 0). None: a head is its parent and will hear of it.
    fn seen_from_outside(&mut self, pid: i32, pidfd: Fd, revents: i16) -> Option<Change> {
        // Before Linux 6.9 a pidfd does not tell by a hang-up that its process was reaped.
        let reaped = revents & libc::POLLHUP != 0 || sys::pidfd_signal(pidfd, 0) == Err(Errno::ESRCH);
        if !reaped {
            let parent = job::stat_field(pid as u32, 4)? as i32;
            let heads = [std::process::id() as i32, self.map.header().keeper.load(SeqCst)];
            if heads.contains(&parent) {
                // Should somebody have stopped the keeper: it has work to do.
                sys::continue_process(heads[1]);
                return None;
            }
            return job::zombie_exit(pid as u32);
        }
        // By the keeper, a moment ago? Then it was written down.
        self.keepers_news();
        let unknown = Change { pid: 0, stopped: false, code: 255, killed: false, core: false };
        Some(sys::pidfd_exit(pidfd).or_else(|| self.heard(pid as u32)).unwrap_or(unknown))
    }

    pub(super) fn reaped_elsewhere(&mut self, t: usize, p: usize, pidfd: Fd, revents: i16) {
        self.children();
        self.keepers_news();
        let Some(process) = self.root.state.tasks.get(t).and_then(|t| t.processes().nth(p)) else { return };
        if process.exited() || fd(process.pidfd) != Some(pidfd) {
            return;
        }
        let pid = process.pid;
        let Some(change) = self.seen_from_outside(pid as i32, pidfd, revents) else { return };
        let unknown = change.pid == 0;
        let Change { code, killed, core, .. } = change;
        self.event(Event::Exit { pid, code, killed, core, unknown });
    }

    /// A pidfd for the process, and an eye on the memory of its container.
    fn watch_process(&mut self, task: &str, exec: &str) {
        let Some(process) = self.root.state.process_mut(task, exec) else { return };
        if process.unwatched() {
            if let Ok(pidfd) = sys::pidfd_open(process.pid as i32) {
                process.pidfd = number(pidfd);
            }
        }
        let pid = process.pid;
        if let Some(t) = self.root.state.tasks.iter_mut().find(|t| t.id == task && exec.is_empty()) {
            if t.cgroup.is_empty() {
                t.cgroup = memory::cgroup_of(pid).unwrap_or_default();
            }
            if t.cgroup_watch == 0 {
                t.cgroup_watch = memory::watch(&t.cgroup).map_or(0, number);
            }
        }
        self.commit();
    }

    /// Processes without a pidfd are tried again. One that is gone, and whose end no head has heard of, was buried by somebody
    /// else: both heads died while it was being made.
    pub(super) fn watch_again(&mut self) {
        let all = self.root.state.tasks.iter().flat_map(|t| t.processes().map(|p| (t.id.clone(), p)));
        let unwatched: Vec<(String, String, u32, bool)> = all
            .filter(|(_, p)| p.unwatched())
            .map(|(task, p)| {
                let gone = sys::pidfd_open(p.pid as i32).map(Fd::close) == Err(Errno::ESRCH);
                let other = p.ticks != 0 && job::start_ticks(p.pid).is_some_and(|t| t != p.ticks);
                (task, p.id.clone(), p.pid, gone || other)
            })
            .collect();
        if unwatched.is_empty() {
            return;
        }
        // What was reaped by a head before that is in its news by now.
        self.children();
        self.keepers_news();
        for (task, exec, pid, gone) in unwatched {
            if !gone {
                self.watch_process(&task, &exec);
            } else if self.root.state.process(&task, &exec).is_some_and(Process::unwatched) {
                let heard = self.heard(pid);
                let (code, killed, core) = heard.map_or((255, false, false), |c| (c.code, c.killed, c.core));
                self.event(Event::Exit { pid, code, killed, core, unknown: heard.is_none() });
            }
        }
    }

    pub(super) fn memory_event(&mut self, t: usize) {
        let Some(task) = self.root.state.tasks.get(t) else { return };
        if let Some(watch) = fd(task.cgroup_watch) {
            let _ = sys::read(watch, &mut [0; 512]);
        }
        let id = task.id.clone();
        // On v1 the kill is still to come, and nothing tells of it. A cgroup that goes is news, too.
        if memory::oom_kills(&task.cgroup).is_some() {
            self.oom_until = sys::now_ns() + super::OOM_NS;
        }
        self.look_for_oom(&id);
    }

    pub(super) fn look_for_oom(&mut self, id: &str) {
        let Some(task) = self.root.state.task(id) else { return };
        match memory::oom_kills(&task.cgroup) {
            Some(kills) if kills > task.oom_kills => self.event(Event::Oom { task: id.into(), kills }),
            _ => {}
        }
    }

    /// The record is whole on disk before anybody hears of the exit.
    fn record(&mut self, task: &str, exec: &str) {
        if exec.is_empty() || self.killed_for_good(task, exec) {
            self.look_for_oom(task);
        }
        self.blame_memory(task, exec);
        self.write_record(task, exec);
        self.event(Event::Recorded { task: task.into(), exec: exec.into() });
        self.look_for_bundles();
    }

    fn killed_for_good(&self, task: &str, exec: &str) -> bool {
        let p = self.root.state.process(task, exec);
        p.is_some_and(|p| p.killed && p.exit_status == 128 + libc::SIGKILL as u32)
    }

    /// The kernel counts whom it kills for want of memory and doesn't name them: an exec that SIGKILL ended just when the count
    /// grew was one of them.
    fn blame_memory(&mut self, task: &str, exec: &str) {
        let at = self.root.state.task(task).map_or(0, |t| t.oom_at);
        if exec.is_empty() || at == 0 || !self.killed_for_good(task, exec) {
            return;
        }
        if let Some(p) = self.root.state.process_mut(task, exec) {
            p.oom = at.abs_diff(p.exited_at) < 1_000_000_000;
        }
    }

    pub(super) fn write_record(&mut self, task: &str, exec: &str) {
        let Some(t) = self.root.state.task(task) else { return };
        let Some(p) = t.process(exec) else { return };
        if let Err(e) = record::write(&self.root.setup, t, p) {
            self.log(&format!("the exit record of {task} {exec} could not be written: {e}"));
        }
    }

    pub(super) fn stats(&self, task: &str) -> crate::error::Result<Vec<u8>> {
        match self.root.state.task(task) {
            Some(t) if !t.cgroup.is_empty() && !t.init.exited() => memory::stats(t),
            _ => Err(Error::new(Kind::NotFound, format!("cgroup of container {task} does not exist"))),
        }
    }

    fn forget(&mut self, task: &str) {
        crate::place::forget(&self.root.setup, task);
        self.commit();
    }

    pub(super) fn close_child_ends(&mut self, task: &str, exec: &str) {
        let Some(p) = self.root.state.process_mut(task, exec) else { return };
        let mut ends = vec![p.child_in, p.child_out, p.child_err];
        (p.child_in, p.child_out, p.child_err) = (0, 0, 0);
        ends.extend([&mut p.out, &mut p.err].into_iter().flatten().map(|s| std::mem::take(&mut s.logger)));
        self.commit();
        ends.iter_mut().for_each(close);
    }

    /// Has the keeper execute the installed program, if that can read this monitor's state. This head lies still meanwhile:
    /// the new keeper ends it, or, should the program not come to life, its keeper's death or failure wakes it.
    pub(super) fn upgrade(&mut self) {
        let Some(asker) = self.root.upgrade.clone() else { return };
        let wanted = &self.map.header().upgrade;
        let exe = self.root.setup.exe.clone();
        let mut said = Ok(Vec::new());
        if wanted.load(SeqCst) != UPGRADED {
            said = readable(&exe).map(|()| Vec::new());
            wanted.store(u32::from(said.is_ok()), SeqCst);
            while wanted.load(SeqCst) == UPGRADE_WANTED {
                if self.keeper_is_dead() {
                    wanted.store(UPGRADE_FAILED + libc::ECHILD as u32, SeqCst);
                } else {
                    sys::stop_self();
                }
            }
            if let errno @ UPGRADE_FAILED.. = wanted.load(SeqCst) {
                let text = Errno::from_raw((errno - UPGRADE_FAILED) as i32).desc();
                said = Err(Error::system(format!("executing {exe}: {text}: the monitor stays as it is")));
            }
        }
        self.root.upgrade = None;
        self.reply(&asker, &said);
        self.map.header().upgrade.store(0, SeqCst);
    }

    fn keeper_is_dead(&self) -> bool {
        let keeper = self.map.header().keeper_fd.load(SeqCst);
        let mut fds = [libc::pollfd { fd: keeper, events: libc::POLLIN, revents: 0 }];
        sys::poll(&mut fds, 0).is_ok_and(|n| n > 0)
    }
}

/// Does the program read the state that this one writes?
fn readable(exe: &str) -> crate::error::Result<()> {
    let said = std::process::Command::new(exe).arg("layout").output();
    let layout = said.ok().and_then(|o| String::from_utf8(o.stdout).ok()?.trim().parse::<u32>().ok());
    if layout == Some(sys::map::VERSION) {
        return Ok(());
    }
    let has = layout.map_or("none that it tells".into(), |n| n.to_string());
    let ours = sys::map::VERSION;
    let text = format!("{exe} has state layout {has}, this monitor {ours}: it stays as it is");
    Err(Error::new(Kind::Unsupported, text))
}
