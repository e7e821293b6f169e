//! The worker: one thread, one poll loop. Turns descriptors into events, and carries out what `machine::step` decides.

mod effects;
mod recover;
mod stdio;
mod tell;
mod unread;

use crate::api::{MONITOR, TASK_V2, TASK_V3};
use crate::error::{Error, Kind};
use crate::machine::{self, Action, Event};
use crate::pb::Message;
use crate::state::{Asker, Conn, Root, Stream, Tap, Task};
use crate::stream::{fd, Flow};
use crate::sys::map::{Map, CONNS, STATE};
use crate::sys::{self, Fd};
use crate::ttrpc::{self, REQUEST};
use nix::errno::Errno;
use std::sync::atomic::Ordering::SeqCst;

/// After so many deaths on one and the same request it is refused instead of tried again.
const ATTEMPTS: u32 = 5;
/// A request that is no larger than this has its place in the state also when large ones have none any more. But not those that are
/// kept until who knows when.
const SMALL: usize = 4 << 10;
/// So much of the state's room is kept for small requests, and a quarter of it for what happens unasked.
const SPARE: usize = 1 << 20;
/// So long after the last work a worker makes itself small, ms.
const IDLE_MS: i32 = 50;
/// poll's word for no end.
const FOREVER: i32 = -1;
/// How often a container that ended, or a monitor without any, is looked at, whether anybody still wants it, ms.
const WANTED_MS: i32 = 5000;
/// How often what waits for time alone is looked at, ms.
const TICK_MS: i32 = 200;
/// Output that comes so soon after the last is one flow, ...
const FLOWING_NS: u64 = 1_000_000;
/// ... and may gather for so long: a few large batches cost a fraction of many small ones. The pipe has room for it.
const GATHER: std::time::Duration = std::time::Duration::from_micros(300);
/// The kernel of cgroup v1 tells of an OOM before it kills: so long the count of kills is looked at for what is to come.
const OOM_NS: u64 = 1_000_000_000;
/// So long nothing is accepted when a connection could not be.
const DEAF_NS: u64 = 100_000_000;

pub struct Worker<'a> {
    map: &'a Map,
    root: Root,
    /// Kept between commits, to not allocate each time.
    buffer: Vec<u8>,
    fds: Vec<libc::pollfd>,
    what: Vec<Source>,
    /// When the publisher may try to connect again, ns.
    retry: u64,
    /// Why containerd did not take the last event: said once.
    refused: Option<Error>,
    over: bool,
    /// The last turn had nothing to do.
    idle: bool,
    /// The mark given out last: it may not be in the state yet.
    last_mark: u32,
    /// No connection is accepted before, ns: there were no descriptors left.
    deaf_until: u64,
    next_tick: u64,
    /// There was news of an OOM: until then, ns, the count of kills is looked at again.
    oom_until: u64,
    /// When output was moved last, ns.
    pumped: u64,
}

/// What a descriptor in the poll set stands for.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Source {
    Keeper,
    Child,
    Poke,
    Listener(usize),
    Conn(usize),
    Publisher,
    /// Index of a task and of a process in it (0 is init).
    Out(usize, usize),
    Err(usize, usize),
    In(usize, usize),
    Console(usize, usize),
    Pid(usize, usize),
    Job(usize),
    Memory(usize),
    /// The process connector.
    Exits,
}

/// Works until the keeper dies; then the caller is the keeper. Ends the process when the monitor's work is over.
pub fn run(map: &Map) {
    sys::prctl(libc::PR_SET_CHILD_SUBREAPER, 1);
    // A worker that is stopped while its keeper dies has nobody else to continue it.
    sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGCONT as u64);
    let root = match Root::decode(&map.committed()) {
        Ok(root) => root,
        // Nothing can be done with a state that can't be read; the program that wrote it is not this one.
        Err(_) => sys::exit_now(crate::heads::DONE),
    };
    let mut worker = Worker {
        map,
        root,
        buffer: Vec::new(),
        fds: Vec::new(),
        what: Vec::new(),
        retry: 0,
        refused: None,
        over: false,
        idle: false,
        last_mark: 0,
        deaf_until: 0,
        next_tick: 0,
        oom_until: 0,
        pumped: 0,
    };
    worker.recover();
    while !worker.over {
        if worker.turn() {
            return;
        }
    }
    worker.finish();
}

impl Worker<'_> {
    /// One turn of the loop. True if the keeper is dead.
    fn turn(&mut self) -> bool {
        let timeout = self.watch();
        let mut fds = std::mem::take(&mut self.fds);
        let what = std::mem::take(&mut self.what);
        let ready = match timeout {
            FOREVER | WANTED_MS => sys::poll_lean(&mut fds, self.map, timeout).unwrap_or(0),
            timeout => sys::poll(&mut fds, timeout).unwrap_or(0),
        };
        let mut orphaned = false;
        let mut left = ready;
        for (poll, source) in fds.iter().zip(&what).filter(|(p, _)| p.revents != 0) {
            left -= 1;
            orphaned |= self.ready(*source, Fd(poll.fd), poll.revents);
            if left == 0 || orphaned || self.over {
                break;
            }
        }
        (self.fds, self.what) = (fds, what);
        // Time passes also while there is always something else to do.
        let now = sys::now_ns();
        if ready == 0 || (timeout >= 0 && now >= self.next_tick) {
            self.next_tick = now + TICK_MS as u64 * 1_000_000;
            self.tick();
        }
        // After ticks too there is such a turn, before the wait without an end.
        self.idle = ready == 0 && timeout == IDLE_MS;
        if self.idle {
            // Nothing is to do for now: the memory of the last work goes back.
            self.buffer = Vec::new();
            sys::trim_heap();
        }
        self.publish_next();
        orphaned
    }

    fn add(&mut self, number: i32, events: i16, source: Source) {
        if number >= 0 {
            self.fds.push(libc::pollfd { fd: number, events, revents: 0 });
            self.what.push(source);
        }
    }

    /// Fills the poll set from the state. Returns the timeout.
    fn watch(&mut self) -> i32 {
        self.fds.clear();
        self.what.clear();
        let header = self.map.header();
        self.add(header.keeper_fd.load(SeqCst), libc::POLLIN, Source::Keeper);
        self.add(header.child_fd.load(SeqCst), libc::POLLIN, Source::Child);
        self.add(header.poke_fd.load(SeqCst), libc::POLLIN, Source::Poke);
        self.add(self.root.exits as i32 - 1, libc::POLLIN, Source::Exits);
        let deaf = self.deaf_until > sys::now_ns();
        if self.root.conns.len() < CONNS - 1 && !deaf {
            let own_too = self.has_place_for_own();
            for (i, number) in self.root.listeners.clone().into_iter().enumerate() {
                if i == 0 || own_too {
                    self.add(number as i32, libc::POLLIN, Source::Listener(i));
                }
            }
        }
        for i in 0..self.root.conns.len() {
            let conn = &self.root.conns[i];
            let (events, number) = (conn_events(conn, self.map), conn.fd as i32);
            self.add(number, events, Source::Conn(i));
        }
        if let Some(conn) = &self.root.publisher {
            let (events, number) = (conn_events(conn, self.map), conn.fd as i32);
            self.add(number, events, Source::Publisher);
        }
        for i in 0..self.root.state.ops.len() {
            let op = &self.root.state.ops[i];
            let number = header.op_fds[op.slot as usize].load(SeqCst);
            self.add(if number > 0 { number } else { -1 }, libc::POLLIN, Source::Job(i));
        }
        let mut soon = self.watch_processes();
        soon |= deaf || !self.root.state.closing.is_empty() || self.oom_until > sys::now_ns();
        match (soon, self.events_wait()) {
            (_, true) => 100,
            (true, false) => TICK_MS,
            _ if self.idle && (self.ended_undeleted() || self.is_unused()) => WANTED_MS,
            _ if self.idle => FOREVER,
            _ => IDLE_MS,
        }
    }

    /// Clients of the monitor's own socket never take the places that a containerd which comes back needs: one for each container.
    fn has_place_for_own(&self) -> bool {
        let kept = (self.root.state.tasks.len() + 1).max(2);
        self.root.conns.iter().filter(|c| c.own).count() + kept < CONNS - 1
    }

    fn watch_processes(&mut self) -> bool {
        let mut soon = false;
        for t in 0..self.root.state.tasks.len() {
            let memory = self.root.state.tasks[t].cgroup_watch;
            self.add(memory as i32 - 1, libc::POLLIN | libc::POLLPRI, Source::Memory(t));
            for p in 0..=self.root.state.tasks[t].execs.len() {
                let Some(process) = self.root.state.tasks[t].processes().nth(p) else { continue };
                let mut wanted: Vec<(u32, i16, Source)> = Vec::new();
                if !process.exited() {
                    wanted.push((process.pidfd, libc::POLLIN, Source::Pid(t, p)));
                    soon |= process.unwatched();
                }
                soon |= !process.unread.is_empty();
                wanted.push((process.console_listener, libc::POLLIN, Source::Console(t, p)));
                // Until there is a process, what the pipes hold are the words of a runtime that may yet fail: they are
                // part of its error, and not the container's output.
                let streams = if process.pid == 0 {
                    [None, None]
                } else {
                    [process.out.as_ref(), process.err.as_ref()]
                };
                for (stream, source) in streams.into_iter().zip([Source::Out(t, p), Source::Err(t, p)]) {
                    let Some(stream) = stream else { continue };
                    let held = fd(stream.stage_in).is_some_and(|f| sys::queued(f) > 0);
                    let stuck = stream.blocked != 0;
                    soon |= stuck || stream.taps.iter().any(|t| t.blocked != 0);
                    if !(held || stream.eof || (stuck && stream.stage_in == 0)) {
                        wanted.push((stream.source, libc::POLLIN, source));
                    }
                    if stuck {
                        wanted.push((stream.sink, libc::POLLOUT, source));
                    }
                }
                // A terminal that has not come yet takes nothing.
                for input in process.inputs.iter().filter(|_| process.stdin_pipe != 0) {
                    match input.stalled {
                        true => wanted.push((process.stdin_pipe, libc::POLLOUT, Source::In(t, p))),
                        false => wanted.push((input.source, libc::POLLIN, Source::In(t, p))),
                    }
                }
                for (number, events, source) in wanted {
                    self.add(number as i32 - 1, events, source);
                }
            }
        }
        soon
    }

    fn ready(&mut self, source: Source, number: Fd, revents: i16) -> bool {
        match source {
            Source::Keeper => return true,
            Source::Child => self.children(),
            Source::Poke => {
                let _ = sys::read(number, &mut [0; 8]);
                self.keepers_news();
            }
            Source::Listener(i) => self.accept(i),
            Source::Conn(i) => self.converse(number, i),
            Source::Publisher => self.hear_publisher(),
            Source::Out(t, p) | Source::Err(t, p) => self.pump(t, p, source, number),
            Source::In(t, p) => self.pump_input(t, p, Some(number)),
            Source::Console(t, p) => self.take_console(t, p, number),
            Source::Pid(t, p) => self.reaped_elsewhere(t, p, number, revents),
            Source::Job(i) => self.job_reaped_elsewhere(i, number, revents),
            Source::Memory(t) => self.memory_event(t),
            Source::Exits => self.hear_exits(),
        }
        false
    }

    /// Makes the present state the truth.
    fn commit(&mut self) {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        self.root.encode(&mut buffer);
        if let Err(e) = self.map.commit(&buffer) {
            self.log(e.text());
        }
        self.buffer = buffer;
    }

    /// One event to its end: step, answers and news, commit, then everything that touches the world.
    fn event(&mut self, event: Event) {
        let named = self.root.fds();
        let state = std::mem::take(&mut self.root.state);
        let (state, actions) = machine::step(state, event, sys::now_ns());
        self.root.state = state;
        let (mut effects, mut stale) = (Vec::new(), Vec::new());
        for action in actions {
            match action {
                Action::Reply { asker, result } => self.answer(&asker, &result),
                Action::Publish { topic, name, event } => self.enqueue(topic, name, event),
                Action::Spawn { op } => {
                    if let Some(op) = self.root.state.ops.iter().find(|o| o.id == op) {
                        let header = self.map.header();
                        header.ops[op.slot as usize].store(0, SeqCst);
                        stale.push(header.op_fds[op.slot as usize].swap(0, SeqCst));
                    }
                    effects.push(action);
                }
                // What only reads, or may well be done twice, comes before the commit that makes its answer true: if this head
                // dies in between, the request is still there.
                Action::Stats { asker, task } => {
                    let answer = self.stats(&task);
                    self.answer(&asker, &answer);
                }
                Action::Attach { asker, request } => {
                    let answer = self.attach(&request);
                    self.answer(&asker, &answer);
                }
                Action::Resize { task, exec, width, height } => self.resize(&task, &exec, width, height),
                Action::CloseStdin { ref task, ref exec } => {
                    self.mark_stdin_closing(task, exec);
                    effects.push(action);
                }
                Action::Upgrade { asker } => self.root.upgrade = Some(asker),
                other => effects.push(other),
            }
        }
        self.commit();
        // What a process that is no more had open, no state names any longer.
        let kept = self.root.fds();
        named.into_iter().filter(|n| !kept.contains(n)).for_each(|n| Fd(n).close());
        stale.into_iter().filter(|n| *n > 0).for_each(|n| Fd(n).close());
        self.flush();
        for effect in effects {
            self.perform(effect);
        }
        self.upgrade();
    }

    fn answer(&mut self, asker: &Asker, result: &crate::error::Result<Vec<u8>>) {
        let Some(conn) = self.root.conns.iter_mut().find(|c| c.slot == asker.conn) else { return };
        if !conn.put(self.map, &ttrpc::response(asker.stream, result)) {
            conn.closing = true;
        }
    }

    fn flush(&mut self) {
        for conn in &mut self.root.conns {
            if !conn.closing && !conn.send(self.map) {
                conn.closing = true;
            }
        }
    }

    fn accept(&mut self, listener: usize) {
        let Some(number) = self.root.listeners.get(listener).copied() else { return };
        let flags = nix::sys::socket::SockFlag::SOCK_CLOEXEC | nix::sys::socket::SockFlag::SOCK_NONBLOCK;
        match nix::sys::socket::accept4(number as i32, flags) {
            Ok(raw) => {
                if listener == 0 && self.root.listeners.len() > 1 {
                    self.root.daemon = peer(Fd(raw)).unwrap_or(0);
                    self.root.daemon_ticks = crate::job::start_ticks(self.root.daemon).unwrap_or(0);
                }
                self.adopt_conn(Fd(raw), listener > 0);
            }
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNABORTED) => {}
            // No descriptors or memory just now: the caller waits in the socket's queue, and nothing spins meanwhile.
            Err(_) => self.deaf_until = sys::now_ns() + DEAF_NS,
        }
    }

    /// Only root's own (the daemon's user) may speak to a monitor.
    fn adopt_conn(&mut self, conn: Fd, own: bool) {
        let cred = nix::sys::socket::getsockopt(&conn, nix::sys::socket::sockopt::PeerCredentials);
        let slot = (1..CONNS).find(|s| !self.root.conns.iter().any(|c| c.slot as usize == *s));
        match (cred, slot) {
            (Ok(cred), Some(slot))
                if cred.uid() == nix::unistd::geteuid().as_raw() && self.map.lane_reserve(slot).is_ok() =>
            {
                self.root.conns.push(Conn { own, ..Conn::fresh(self.map, slot, conn) });
                self.commit();
            }
            _ => conn.close(),
        }
    }

    /// A connection is readable or writable.
    fn converse(&mut self, number: Fd, index: usize) {
        let Some(conn) = self.root.conns.get(index).filter(|c| c.fd() == number) else { return };
        let slot = conn.slot;
        let mut alive = conn.send(self.map);
        if alive && conn.wants_input(self.map) {
            alive = conn.receive(self.map);
        }
        self.requests(slot);
        let Some(at) = self.root.conns.iter().position(|c| c.slot == slot) else { return };
        if !alive || self.root.conns[at].closing {
            let conn = self.root.conns.remove(at);
            self.event(Event::Hangup { conn: slot });
            conn.fd().close();
            self.map.lane_forget(slot as usize, sys::map::Way::In);
            return;
        }
        if self.root.conns[at].rewind(self.map) {
            self.commit();
            self.root.conns[at].rewound(self.map);
        }
    }

    /// Carries out every whole request that a connection has brought.
    fn requests(&mut self, slot: u32) {
        loop {
            let Some(conn) = self.root.conns.iter_mut().find(|c| c.slot == slot) else { return };
            let this = conn.head << 8 | u64::from(slot);
            let Some((header, payload)) = conn.frame(self.map) else { return };
            if header.kind != REQUEST {
                self.commit();
                continue;
            }
            let asker = Asker { conn: slot, stream: header.stream };
            let request = match header.too_long() {
                Some(refused) => Err(refused),
                None => self.understand(&payload, this),
            };
            match request {
                Ok((method, payload)) => self.event(Event::Request { asker, method, payload }),
                Err(e) => {
                    self.answer(&asker, &Err(e));
                    self.commit();
                    self.flush();
                }
            }
            // Survived. The next one may begin at the same place: the first on each new connection does.
            self.map.header().attempts.store(0, SeqCst);
        }
    }

    /// `this` tells the request from all others: one that workers die on, again and again, is refused.
    fn understand(&self, payload: &[u8], this: u64) -> crate::error::Result<(String, Vec<u8>)> {
        let header = self.map.header();
        if header.working.swap(this, SeqCst) != this {
            header.attempts.store(0, SeqCst);
        }
        if header.attempts.fetch_add(1, SeqCst) >= ATTEMPTS {
            return Err(Error::system("the monitor crashed on this request"));
        }
        let request = ttrpc::Request::decode(payload)?;
        let ours = matches!(request.method.as_str(), "Attach" | "Upgrade");
        match request.service.as_str() {
            TASK_V2 | TASK_V3 if !ours => {
                self.find_room(&request)?;
                Ok((request.method, request.payload))
            }
            MONITOR if ours => Ok((request.method, request.payload)),
            _ => Err(Error::new(
                Kind::Unsupported,
                format!("service {} method {}", request.service, request.method),
            )),
        }
    }

    /// A state that can't be committed is one that the next head doesn't know: what would not fit is not begun.
    fn find_room(&self, request: &ttrpc::Request) -> crate::error::Result<()> {
        let (size, used) = (request.payload.len(), self.map.committed_length());
        let spare = if size > SMALL || request.method == "Wait" { SPARE } else { SPARE / 4 };
        match used + size + spare <= STATE {
            true => Ok(()),
            false => Err(Error::new(
                Kind::TooLarge,
                format!(
                    "{} of {size} bytes: the monitor keeps {used} bytes already for execs that were not started, requests under way and \
                     the like, and has no room for it: start or delete them first",
                    request.method
                ),
            )),
        }
    }

    fn pump(&mut self, t: usize, p: usize, source: Source, number: Fd) {
        self.make_spool(t, p, source);
        let Root { state, setup, .. } = &mut self.root;
        let Some(task) = state.tasks.get_mut(t) else { return };
        let Task { own, init, execs, .. } = task;
        let limits = own.as_ref().unwrap_or(setup);
        let Some(process) = std::iter::once(init).chain(execs).nth(p) else { return };
        let slot = if matches!(source, Source::Out(..)) { &mut process.out } else { &mut process.err };
        let Some(stream) = slot else { return };
        if fd(stream.source) != Some(number) && fd(stream.sink) != Some(number) {
            return;
        }
        let marks = &self.map.header().streams;
        let mark = &marks[(stream.mark as usize).saturating_sub(1) % marks.len()];
        let lost = || [mark.dropped.load(SeqCst), mark.unlogged.load(SeqCst)].map(|n| n > 0);
        let before = lost();
        if sys::now_ns().saturating_sub(self.pumped) < FLOWING_NS && Stream::is_thin(number) {
            std::thread::sleep(GATHER);
        }
        let flow = stream.pump(mark, limits, sys::now_ns());
        self.pumped = sys::now_ns();
        let fresh = stream.mark != 0 && lost() != before;
        let (gone, kept) = std::mem::take(&mut stream.taps).into_iter().partition(|t: &Tap| t.gone);
        stream.taps = kept;
        let gone: Vec<Tap> = gone;
        if !gone.is_empty() {
            // Not named any more, then closed: a number must never stand for two things.
            self.commit();
            gone.into_iter().for_each(Tap::close);
        }
        if fresh {
            let task = &self.root.state.tasks[t];
            let name = task.processes().nth(p).map_or("", |p| &p.id);
            let text = format!(
                "{} {name}: output is being dropped: its reader is gone or too slow, or the log's disk is full",
                task.id
            );
            self.log(&text);
        }
        if flow == Flow::Ended {
            self.stream_ended(t, p, source);
        } else if flow == Flow::Blocked {
            self.stuck(t, p, source);
        }
    }

    /// Moves what there is in the streams that are wanted.
    fn pump_streams(&mut self, wanted: impl Fn(&Stream) -> bool) {
        let tasks = self.root.state.tasks.iter().enumerate();
        let all: Vec<(usize, usize)> =
            tasks.flat_map(|(t, task)| (0..=task.execs.len()).map(move |p| (t, p))).collect();
        for (t, p) in all {
            for source in [Source::Out(t, p), Source::Err(t, p)] {
                let Some(process) = self.root.state.tasks.get(t).and_then(|t| t.processes().nth(p)) else {
                    continue;
                };
                let stream = if matches!(source, Source::Out(..)) { &process.out } else { &process.err };
                if let Some(number) = stream.as_ref().filter(|s| wanted(s)).and_then(|s| fd(s.source)) {
                    self.pump(t, p, source, number);
                }
            }
        }
    }

    /// The time for things that wait for nothing but time.
    fn tick(&mut self) {
        self.pump_streams(|s| s.blocked != 0 || s.taps.iter().any(|t| t.blocked != 0));
        if !self.root.state.closing.is_empty() {
            self.event(Event::Tick);
        }
        if self.oom_until != 0 {
            let ids: Vec<String> = self.root.state.tasks.iter().map(|t| t.id.clone()).collect();
            ids.iter().for_each(|id| self.look_for_oom(id));
            if self.oom_until <= sys::now_ns() || ids.is_empty() {
                self.oom_until = 0;
            }
        }
        self.look_for_unread();
        self.watch_again();
        self.look_for_bundles();
    }

    /// Is there a container that ended and waits for a Delete?
    fn ended_undeleted(&self) -> bool {
        self.root.state.tasks.iter().any(|t| t.init.recorded && !t.standalone)
    }

    /// Nobody has asked for a container, or has one yet to ask for, and nobody is there.
    fn is_unused(&self) -> bool {
        let Root { state, conns, setup, .. } = &self.root;
        state.tasks.is_empty() && state.ops.is_empty() && conns.is_empty() && !setup.standalone
    }

    /// A container that ended and that nobody will delete, its daemon having lost sight of it, ends as a standalone one does: its record
    /// and output stay.
    fn look_for_bundles(&mut self) {
        let tasks = self.root.state.tasks.iter_mut();
        let unwanted = |t: &&mut Task| t.init.recorded && !t.standalone && !t.deleting && t.abandoned();
        let count = tasks.filter(unwanted).map(|t| t.standalone = true).count();
        if count > 0 {
            self.root.setup.standalone = true;
            self.event(Event::Tick);
        }
        // A daemon that was killed after `start` removes the bundle of what it never made.
        if self.is_unused() && !std::path::Path::new(&self.root.setup.bundle).exists() {
            self.event(Event::Request {
                asker: Asker::default(),
                method: "Shutdown".into(),
                payload: Vec::new(),
            });
        }
    }
}

/// The process at the other end.
fn peer(conn: Fd) -> Option<u32> {
    let cred = nix::sys::socket::getsockopt(&conn, nix::sys::socket::sockopt::PeerCredentials).ok()?;
    Some(cred.pid() as u32)
}

fn conn_events(conn: &Conn, map: &Map) -> i16 {
    let input = if conn.wants_input(map) { libc::POLLIN } else { 0 };
    let output = if conn.wants_output(map) { libc::POLLOUT } else { 0 };
    input | output
}
