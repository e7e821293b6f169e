//! A container's output and input on their way. Bytes move from pipe to pipe inside the kernel (`splice`, `tee`), so none is ever
//! in the memory of a process that may die, and what was moved can always be told from what the pipes hold.
//!
//! With one listener bytes go from the source to the sink directly. With more (the ring behind `logs`, attached clients) a batch
//! is first moved into a stage, shown to each listener's own pipe, and then drained from all of them:
//!
//! ```text
//! container -> source -> stage -> sink (the client's FIFO, a logger's pipe), or the spool while that is full
//!                          |(tee)-> ring_in -> ring file
//!                          |(tee)-> tap -> attached client
//! ```

use crate::state::{Input, Setup, Stream, Tap};
use crate::sys::map::StreamMark;
use crate::sys::{self, Fd};
use nix::errno::Errno;
use std::sync::atomic::Ordering::SeqCst;

/// So much is moved at once, and so much a pipe of ours holds.
pub const BATCH: usize = 256 << 10;
/// So much is worth a turn of its own, while a container writes without a pause.
const GATHERED: usize = BATCH / 2;
/// So long may the sink be full before output goes to the spool instead.
const PATIENCE_NS: u64 = 1_000_000_000;

/// What the caller should wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// More bytes from the container.
    Idle,
    /// There may be more at once.
    More,
    /// Room in the sink, or a deadline.
    Blocked,
    /// All was handed over and nobody writes any more.
    Ended,
}

pub fn fd(number: u32) -> Option<Fd> {
    (number != 0).then(|| Fd(number as i32 - 1))
}

pub fn number(fd: Fd) -> u32 {
    fd.0 as u32 + 1
}

pub fn close(number: &mut u32) {
    if let Some(fd) = fd(std::mem::take(number)) {
        fd.close();
    }
}

impl Stream {
    pub fn fds(&self) -> Vec<u32> {
        let mut all = vec![
            self.source,
            self.sink,
            self.stage_in,
            self.stage_out,
            self.ring,
            self.ring_in,
            self.ring_out,
            self.spool,
            self.logger,
        ];
        all.extend(self.taps.iter().flat_map(|t| [t.sink, t.stage_in, t.stage_out]));
        all
    }

    pub fn close(&mut self) {
        for number in [
            &mut self.source,
            &mut self.sink,
            &mut self.stage_in,
            &mut self.stage_out,
            &mut self.ring,
            &mut self.ring_in,
            &mut self.ring_out,
            &mut self.spool,
            &mut self.logger,
        ] {
            close(number);
        }
        self.taps.drain(..).for_each(Tap::close);
    }

    /// Has the client taken nothing for so long that its output goes elsewhere?
    pub fn late(&self, now: u64) -> bool {
        self.blocked != 0 && now.saturating_sub(self.blocked) >= PATIENCE_NS
    }

    fn spooled(&self, mark: &StreamMark) -> i64 {
        sys::load(&mark.spool_write) - sys::load(&mark.spool_read)
    }

    /// Moves what can be moved.
    pub fn pump(&mut self, mark: &StreamMark, setup: &Setup, now: u64) -> Flow {
        let Some(source) = fd(self.source) else { return Flow::Idle };
        for _ in 0..8 {
            if let Some(flow) = self.round(source, mark, setup, now) {
                return flow;
            }
            if sys::queued(source) < GATHERED {
                break;
            }
        }
        Flow::More
    }

    /// Is there so little to move that it pays to let more come?
    pub fn is_thin(source: Fd) -> bool {
        (1..GATHERED).contains(&sys::queued(source))
    }

    /// One batch; None if the next one may follow.
    fn round(&mut self, source: Fd, mark: &StreamMark, setup: &Setup, now: u64) -> Option<Flow> {
        let Some((stage_in, stage_out)) = fd(self.stage_in).zip(fd(self.stage_out)) else {
            return self.direct(source, now);
        };
        if mark.draining.load(SeqCst) == 0 {
            if !self.eof && sys::queued(stage_in) == 0 {
                match sys::splice(source, stage_out, BATCH) {
                    Ok(0) | Err(Errno::EIO) => self.eof = true,
                    Ok(_) | Err(Errno::EINTR) => {}
                    Err(Errno::EAGAIN) if self.spooled(mark) == 0 => return Some(Flow::Idle),
                    Err(Errno::EAGAIN) => {}
                    Err(_) => self.eof = true,
                }
            }
            self.show(stage_in);
            mark.draining.store(1, SeqCst);
        }
        let ring = self.drain_ring(stage_in, mark);
        self.drain_taps(now);
        let sink = self.drain_sink(stage_in, mark, setup, now);
        let tapped = self.taps.iter().any(|t| !t.gone && t.pending());
        if ring && sink && !tapped {
            mark.draining.store(0, SeqCst);
            if self.spooled(mark) > 0 {
                return Some(Flow::Blocked);
            }
            return self.eof.then_some(Flow::Ended);
        }
        Some(Flow::Blocked)
    }

    fn direct(&mut self, source: Fd, now: u64) -> Option<Flow> {
        let sink = fd(self.sink)?;
        match sys::splice(source, sink, BATCH) {
            Ok(0) | Err(Errno::EIO) => Some(Flow::Ended),
            Ok(_) => {
                self.blocked = 0;
                None
            }
            Err(Errno::EINTR) => None,
            Err(Errno::EAGAIN) if sys::queued(source) > 0 => {
                if self.blocked == 0 {
                    self.blocked = now;
                }
                Some(Flow::Blocked)
            }
            // A terminal doesn't tell what it holds: the sink's room decides.
            Err(Errno::EAGAIN) if writable(sink) => Some(Flow::Idle),
            Err(Errno::EAGAIN) => {
                if self.blocked == 0 {
                    self.blocked = now;
                }
                Some(Flow::Blocked)
            }
            Err(_) => Some(Flow::Ended),
        }
    }

    /// Shows a fresh batch to everybody who has not seen it.
    fn show(&mut self, stage_in: Fd) {
        if sys::queued(stage_in) == 0 {
            return;
        }
        let rings = [(self.ring_in, self.ring_out)];
        let taps = self.taps.iter().filter(|t| !t.gone).map(|t| (t.stage_in, t.stage_out));
        for (to_read, to_write) in rings.into_iter().chain(taps) {
            if let Some((to_read, to_write)) = fd(to_read).zip(fd(to_write)) {
                if sys::queued(to_read) == 0 {
                    let _ = sys::tee(stage_in, to_write, BATCH);
                }
            }
        }
    }

    /// True when the ring has all of the batch. Without a sink the ring takes the stage's bytes themselves.
    fn drain_ring(&mut self, stage_in: Fd, mark: &StreamMark) -> bool {
        let Some(ring) = fd(self.ring) else { return true };
        let from = if self.sink == 0 { stage_in } else { fd(self.ring_in).unwrap_or(stage_in) };
        let before = sys::load(&mark.ring);
        // Of a large batch the file gets no more than it is to keep. The rest goes where the monitor's own output goes, /dev/null,
        // and is not copied; in the file its place is a hole, so that the last of the file is the last of the output. Should this
        // head die in between, the next one makes the hole larger than it need be.
        let mut surplus = sys::queued(from).saturating_sub(self.ring_limit() as usize);
        mark.ring.fetch_add(surplus as i64, SeqCst);
        while surplus > 0 {
            match sys::splice(from, Fd(1), surplus) {
                Ok(n) if n > 0 => surplus -= n.min(surplus),
                _ => break,
            }
        }
        while sys::queued(from) > 0 {
            if !sys::splice_to_file(from, ring, &mark.ring, BATCH).is_ok_and(|n| n > 0) {
                // A full or broken disk must not hold the container up.
                mark.unlogged.fetch_add(discard(from) as u64, SeqCst);
            }
        }
        let after = sys::load(&mark.ring);
        let keep = self.ring_limit() as i64;
        if after / keep != before / keep && after > keep {
            sys::forget_before(ring, after - keep);
        }
        true
    }

    fn ring_limit(&self) -> u64 {
        if self.ring_keep == 0 {
            64 << 10
        } else {
            self.ring_keep
        }
    }

    fn drain_taps(&mut self, now: u64) {
        for tap in self.taps.iter_mut().filter(|t| !t.gone) {
            let Some((from, to)) = fd(tap.stage_in).zip(fd(tap.sink)) else { continue };
            while sys::queued(from) > 0 {
                match sys::splice(from, to, BATCH) {
                    Ok(n) if n > 0 => tap.blocked = 0,
                    Err(Errno::EAGAIN) if tap.blocked == 0 => {
                        tap.blocked = now;
                        break;
                    }
                    // A client that reads nothing for so long is let go.
                    Err(Errno::EAGAIN) if now.saturating_sub(tap.blocked) < PATIENCE_NS => break,
                    _ => {
                        tap.gone = true;
                        break;
                    }
                }
            }
        }
    }

    /// True when the stage is empty.
    fn drain_sink(&mut self, stage_in: Fd, mark: &StreamMark, setup: &Setup, now: u64) -> bool {
        let Some(sink) = fd(self.sink) else { return true };
        self.unspool(sink, mark, now);
        while self.spooled(mark) == 0 && sys::queued(stage_in) > 0 {
            match sys::splice(stage_in, sink, BATCH) {
                Ok(n) if n > 0 => self.blocked = 0,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => {
                    if self.blocked == 0 {
                        self.blocked = now;
                    }
                    break;
                }
                // A logger that is gone: the container runs on.
                _ => {
                    self.blocked = 0;
                    mark.dropped.fetch_add(discard(stage_in) as u64, SeqCst);
                }
            }
        }
        if sys::queued(stage_in) > 0 && (self.late(now) || self.spooled(mark) > 0) {
            self.spill(stage_in, mark, setup, now);
        }
        sys::queued(stage_in) == 0
    }

    /// The sink is full: the batch goes to disk, as far as the limit, the disk and the policy let it.
    fn spill(&mut self, stage_in: Fd, mark: &StreamMark, setup: &Setup, now: u64) {
        let limit = if self.spool == 0 { 0 } else { setup.spool_limit as i64 };
        while sys::queued(stage_in) > 0 {
            let spool = fd(self.spool).filter(|_| self.spooled(mark) < limit);
            if spool.is_some_and(|s| {
                sys::splice_to_file(stage_in, s, &mark.spool_write, BATCH).is_ok_and(|n| n > 0)
            }) {
                continue;
            }
            let in_time = now.saturating_sub(self.blocked) < setup.spool_deadline;
            match setup.spool_policy.as_str() {
                "block" if setup.spool_deadline == 0 || in_time => return,
                "drop-newest" => drop_newest(stage_in, mark),
                // "drop-oldest", and "block" whose deadline is over.
                _ => self.drop_oldest(stage_in, mark),
            }
        }
    }

    /// Makes room for the batch, or gives it up where nothing older is kept.
    fn drop_oldest(&self, stage_in: Fd, mark: &StreamMark) {
        let room = self.spooled(mark).min(sys::queued(stage_in) as i64);
        let Some(spool) = fd(self.spool).filter(|_| room > 0) else { return drop_newest(stage_in, mark) };
        mark.dropped.fetch_add(room as u64, SeqCst);
        mark.spool_read.fetch_add(room, SeqCst);
        sys::forget_before(spool, sys::load(&mark.spool_read));
    }

    /// Gives what was spooled to a sink that has room again. A client that reads on, however slowly, loses nothing: the time
    /// counts from its last byte.
    fn unspool(&mut self, sink: Fd, mark: &StreamMark, now: u64) {
        let Some(spool) = fd(self.spool) else { return };
        while self.spooled(mark) > 0 {
            let len = (self.spooled(mark) as usize).min(BATCH);
            match sys::splice_from_file(spool, &mark.spool_read, sink, len) {
                Ok(n) if n > 0 => self.blocked = now,
                Err(Errno::EINTR) => {}
                // Nobody will ever take it.
                Err(Errno::EPIPE) => {
                    let rest = self.spooled(mark);
                    mark.dropped.fetch_add(rest as u64, SeqCst);
                    mark.spool_read.fetch_add(rest, SeqCst);
                }
                _ => return,
            }
            if self.spooled(mark) == 0 {
                self.blocked = 0;
                sys::forget_before(spool, sys::load(&mark.spool_read));
            }
        }
    }
}

/// Is there room?
fn writable(fd: Fd) -> bool {
    let mut fds = [libc::pollfd { fd: fd.0, events: libc::POLLOUT, revents: 0 }];
    sys::poll(&mut fds, 0).is_ok_and(|n| n > 0 && fds[0].revents & libc::POLLOUT != 0)
}

fn drop_newest(stage_in: Fd, mark: &StreamMark) {
    mark.dropped.fetch_add(discard(stage_in) as u64, SeqCst);
}

fn discard(from: Fd) -> usize {
    let mut scratch = [0; 4096];
    let mut total = 0;
    while sys::queued(from) > 0 {
        match sys::read(from, &mut scratch) {
            Ok(n) if n > 0 => total += n,
            _ => break,
        }
    }
    total
}

impl Tap {
    pub fn pending(&self) -> bool {
        fd(self.stage_in).is_some_and(|f| sys::queued(f) > 0)
    }

    pub fn close(mut self) {
        [&mut self.sink, &mut self.stage_in, &mut self.stage_out].into_iter().for_each(close);
    }
}

impl Input {
    /// Moves what a client typed to the container. `Ended` when this client is gone or said that there is no more.
    pub fn pump(&mut self, to: Fd) -> Flow {
        let Some(source) = fd(self.source) else { return Flow::Ended };
        self.stalled = false;
        loop {
            match sys::splice(source, to, BATCH) {
                Ok(0) => return Flow::Ended,
                Ok(_) | Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) if sys::queued(source) > 0 => {
                    self.stalled = true;
                    return Flow::Blocked;
                }
                Err(Errno::EAGAIN) => return if self.closing { Flow::Ended } else { Flow::Idle },
                Err(_) => return Flow::Ended,
            }
        }
    }
}
