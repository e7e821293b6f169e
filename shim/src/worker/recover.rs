//! A new worker's first look: descriptors that nobody named, lanes in the middle of a step, jobs and records under way.

use super::Worker;
use crate::machine;
use crate::state::{Process, Root};
use crate::sys::{self, Fd};
use std::path::Path;
use std::sync::atomic::Ordering::SeqCst;

impl Process {
    /// Those that there are, plus one.
    pub(super) fn fds(&self) -> Vec<u32> {
        let mut all = vec![
            self.stdin_pipe,
            self.console,
            self.console_listener,
            self.pidfd,
            self.child_in,
            self.child_out,
            self.child_err,
        ];
        all.extend([&self.out, &self.err].into_iter().flatten().flat_map(|s| s.fds()));
        all.extend(self.inputs.iter().map(|i| i.source));
        all.extend(self.unread.iter().flat_map(|u| u.fds()));
        all.retain(|n| *n != 0);
        all
    }
}

impl Root {
    /// Every descriptor that the state names.
    pub fn fds(&self) -> Vec<i32> {
        let plus_one = |n: u32| n as i32 - 1;
        let mut all: Vec<i32> = self.listeners.iter().map(|l| *l as i32).collect();
        all.extend(self.conns.iter().chain(&self.publisher).map(|c| c.fd as i32));
        all.extend([self.events, self.log, self.exits].map(plus_one));
        for task in &self.state.tasks {
            all.push(plus_one(task.cgroup_watch));
            all.extend(task.processes().flat_map(Process::fds).map(plus_one));
        }
        all.retain(|n| *n >= 0);
        all
    }
}

impl Worker<'_> {
    pub(super) fn recover(&mut self) {
        if self.map.header().heads.load(SeqCst) == 1 {
            // The first head of all: there is nothing to recover.
            self.root.state.shim_pid = self.map.header().keeper.load(SeqCst) as u32;
            return self.commit();
        }
        for conn in self.root.conns.iter_mut().chain(self.root.publisher.as_mut()) {
            conn.recover(self.map);
        }
        self.sort_out_descriptors();
        self.listen_for_exits();
        // The last worker may have taken the news of an OOM with it.
        if !self.root.state.tasks.is_empty() {
            self.oom_until = sys::now_ns() + super::OOM_NS;
        }
        self.reopen_streams();
        self.restart_loggers();
        self.root.state.shim_pid = self.map.header().keeper.load(SeqCst) as u32;
        self.commit();
        self.flush();
        self.keepers_news();
        self.children();
        for action in machine::resume(&self.root.state) {
            self.perform(action);
        }
        // A stream that ended may have been written down, and nothing made of it yet.
        self.event(machine::Event::Tick);
        // An acknowledgement may have been received and not yet looked at; no other will come.
        self.hear_publisher();
        // A batch that the last worker had begun to hand out waits for no descriptor.
        self.pump_streams(|_| true);
        // Requests that were received whole and not yet looked at.
        let slots: Vec<(Fd, usize)> = self.root.conns.iter().enumerate().map(|(i, c)| (c.fd(), i)).collect();
        for (number, index) in slots {
            self.converse(number, index);
        }
    }

    /// A descriptor that was made and not yet written down when the last worker died: a connection is taken over, a
    /// terminal given to who waits for it, all else is closed and made again.
    pub(super) fn sort_out_descriptors(&mut self) {
        let header = self.map.header();
        // The pidfd of a job that ended is no longer named; what its slot still says may by now stand for something else.
        for (slot, number) in header.op_fds.iter().enumerate() {
            if !self.root.state.ops.iter().any(|o| o.slot as usize == slot) {
                number.store(0, SeqCst);
            }
        }
        let mut known = self.root.fds();
        known.extend([0, 1, 2, self.map.fd.0]);
        known.extend([&header.keeper_fd, &header.poke_fd, &header.child_fd].map(|f| f.load(SeqCst)));
        known.extend(self.root.state.ops.iter().map(|o| header.op_fds[o.slot as usize].load(SeqCst)));
        let open: Vec<i32> = match std::fs::read_dir("/proc/self/fd") {
            Ok(entries) => entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect(),
            // The want of descriptors that made an attempt fail: there is none for the listing either.
            Err(_) => (0..sys::most_descriptors()).filter(|n| sys::is_open(Fd(*n))).collect(),
        };
        for unknown in open.into_iter().filter(|n| !known.contains(n)).map(Fd) {
            // The listing's own descriptor is among them, closed by now.
            if sys::is_open(unknown) {
                self.stray_descriptor(unknown);
            }
        }
    }

    fn stray_descriptor(&mut self, stray: Fd) {
        let link = std::fs::read_link(format!("/proc/self/fd/{}", stray.0)).unwrap_or_default();
        let link = link.to_string_lossy();
        if let Some(own) = self.accepted_by_own(stray).filter(|_| link.starts_with("socket:")) {
            return self.adopt_conn(stray, own);
        }
        if link.ends_with("/ptmx") {
            let waiting = |p: &&Process| p.terminal && p.console == 0 && p.console_listener != 0;
            let found = self
                .root
                .state
                .tasks
                .iter()
                .find_map(|t| t.processes().find(waiting).map(|p| (t.id.clone(), p.id.clone())));
            if let Some((task, exec)) = found {
                return self.use_console(&task, &exec, stray);
            }
        }
        stray.close();
    }

    /// Was this accepted from one of the monitor's listeners, and from its own or from containerd's?
    fn accepted_by_own(&self, socket: Fd) -> Option<bool> {
        use nix::sys::socket::{getsockname, getsockopt, sockopt, UnixAddr};
        if getsockopt(&socket, sockopt::AcceptConn).unwrap_or(true) {
            return None;
        }
        let name = getsockname::<UnixAddr>(socket.0).ok()?;
        let is = |path: &str| !path.is_empty() && name.path() == Some(Path::new(path));
        let containerds = self.root.setup.address.strip_prefix("unix://").unwrap_or_default();
        is(&own_socket(&self.root)).then_some(true).or(is(containerds).then_some(false))
    }
}

/// Path of the monitor's own socket.
fn own_socket(root: &Root) -> String {
    crate::place::socket(&root.setup).to_string_lossy().into_owned()
}
