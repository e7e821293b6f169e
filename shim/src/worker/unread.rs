//! What a client's FIFO holds at the end of a stream. A FIFO forgets it with its last descriptor, and the client may be away just
//! then: a daemon that is started again finds the output of what ended meanwhile.

use super::stdio::{open, target, Target};
use super::Worker;
use crate::state::{Stream, Unread};
use crate::stream::{close, fd, number};
use crate::sys::{self, Fd};
use nix::fcntl::OFlag;
use std::path::PathBuf;

/// A client that is there has read it by then, ns.
const AWAY_NS: u64 = 100_000_000;

impl Unread {
    pub fn fds(&self) -> [u32; 2] {
        [self.reader, self.writer]
    }

    /// None if the client has it all. It is a reader that keeps the bytes: without a writer a client that is there comes to the end at
    /// once.
    pub(super) fn of(stream: &Stream, address: &str) -> Option<Unread> {
        let sink = fd(stream.sink).filter(|sink| sys::queued(*sink) > 0)?;
        let Target::Fifo(_) = target(address) else { return None };
        Some(Unread { reader: again(sink, OFlag::O_RDONLY)?, writer: 0, since: sys::now_ns() })
    }

    /// False once it was read.
    fn wait(&mut self, now: u64) -> bool {
        let Some(reader) = fd(self.reader).filter(|reader| sys::queued(*reader) > 0) else { return false };
        if self.writer == 0 && now.saturating_sub(self.since) >= AWAY_NS {
            // Who opens a FIFO to read waits for a writer.
            self.writer = again(reader, OFlag::O_WRONLY).unwrap_or(0);
        }
        true
    }
}

/// The file of a descriptor, opened once more.
fn again(from: Fd, way: OFlag) -> Option<u32> {
    let path = PathBuf::from(format!("/proc/self/fd/{}", from.0));
    open(&path, way | OFlag::O_NONBLOCK).ok().map(number)
}

impl Worker<'_> {
    pub(super) fn look_for_unread(&mut self) {
        let now = sys::now_ns();
        let (mut changed, mut read) = (false, Vec::new());
        for process in self.root.state.tasks.iter_mut().flat_map(|t| t.processes_mut()) {
            process.unread.retain_mut(|unread| {
                let before = unread.fds();
                let kept = unread.wait(now);
                changed |= !kept || before != unread.fds();
                if !kept {
                    read.extend(before);
                }
                kept
            });
        }
        if changed {
            self.commit();
        }
        read.iter_mut().for_each(close);
    }
}
