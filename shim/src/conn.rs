//! Connections of ttrpc, as seen by a process that may die at any instant.
//!
//! Bytes are received straight into the map by a call that also writes down how many there were; a request is taken off in the
//! same commit that records what it led to; answers are put behind the committed end and become real with the commit. So a
//! request is carried out once, and answered once, whoever is alive at the time.

use crate::state::Conn;
use crate::sys::map::{Map, Way, LANE};
use crate::sys::Fd;
use crate::ttrpc::{Header, HEADER};

/// Requests are left in the socket while so much of the answers is unread.
const BACKLOG: u64 = 1 << 20;
/// Beyond this a lane starts over at its first page, to stay small.
const PAGE: u64 = 8 << 10;

impl Conn {
    pub fn fd(&self) -> Fd {
        Fd(self.fd as i32)
    }

    fn slot(&self) -> usize {
        self.slot as usize
    }

    pub fn fresh(map: &Map, slot: usize, fd: Fd) -> Conn {
        map.rebase(slot, Way::In, 0);
        map.rebase(slot, Way::Out, 0);
        Conn { slot: slot as u32, fd: fd.0 as u32, ..Conn::default() }
    }

    /// Makes the lanes and the committed offsets agree after a death in the middle of starting over.
    pub fn recover(&mut self, map: &Map) {
        if self.head > map.reached(self.slot(), Way::In) {
            map.rebase(self.slot(), Way::In, self.head);
        }
        self.tail = self.tail.max(map.reached(self.slot(), Way::Out));
    }

    pub fn wants_input(&self, map: &Map) -> bool {
        !self.closing && self.tail - map.reached(self.slot(), Way::Out) < BACKLOG
    }

    pub fn wants_output(&self, map: &Map) -> bool {
        self.tail > map.reached(self.slot(), Way::Out)
    }

    /// Receives what is there. False if the other side is gone.
    pub fn receive(&self, map: &Map) -> bool {
        match map.transfer(self.slot(), Way::In, self.fd(), self.head + LANE as u64) {
            Ok(n) => n > 0,
            Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => true,
            // No page for a large message: the file system is full. It waits in the socket.
            Err(nix::errno::Errno::EFAULT) => {
                std::thread::sleep(std::time::Duration::from_millis(20));
                true
            }
            Err(_) => false,
        }
    }

    /// Sends what is committed. False if the other side is gone.
    pub fn send(&self, map: &Map) -> bool {
        while self.wants_output(map) {
            match map.transfer(self.slot(), Way::Out, self.fd(), self.tail) {
                Ok(_) => {}
                Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => return true,
                Err(_) => return false,
            }
        }
        true
    }

    /// The next whole frame, if there is one. `head` moves behind it; the caller commits that with the frame's consequences. Of
    /// one that is too long there is only the header: its bytes are dropped as they come.
    pub fn frame(&mut self, map: &Map) -> Option<(Header, Vec<u8>)> {
        let reached = map.reached(self.slot(), Way::In);
        let unwanted = self.skip.min(reached.saturating_sub(self.head));
        self.skip -= unwanted;
        self.head += unwanted;
        let there = reached.saturating_sub(self.head);
        let mut raw = [0; HEADER];
        if there < HEADER as u64 {
            return None;
        }
        map.lane_read(self.slot(), Way::In, self.head, &mut raw);
        let header = Header::parse(&raw);
        if header.too_long().is_some() {
            self.head += HEADER as u64;
            self.skip = header.length as u64;
            return Some((header, Vec::new()));
        }
        if there < (HEADER + header.length) as u64 {
            return None;
        }
        let mut payload = vec![0; header.length];
        map.lane_read(self.slot(), Way::In, self.head + HEADER as u64, &mut payload);
        self.head += (HEADER + header.length) as u64;
        Some((header, payload))
    }

    /// Puts a frame behind the end. False if the client reads so slowly that there is no room.
    pub fn put(&mut self, map: &Map, frame: &[u8]) -> bool {
        let used = self.tail - map.reached(self.slot(), Way::Out);
        if used + frame.len() as u64 > LANE as u64 {
            return false;
        }
        map.lane_write(self.slot(), Way::Out, self.tail, frame);
        self.tail += frame.len() as u64;
        true
    }

    /// Lets lanes that are empty start over. True if the state has to be committed, and `rewound` called after that.
    pub fn rewind(&mut self, map: &Map) -> bool {
        let next = |at: u64| at.next_multiple_of(LANE as u64);
        let mut changed = false;
        if self.head == map.reached(self.slot(), Way::In) && self.head % LANE as u64 > PAGE {
            if self.head % LANE as u64 > 16 * PAGE {
                map.lane_forget(self.slot(), Way::In);
            }
            self.head = next(self.head);
            changed = true;
        }
        let sent = map.reached(self.slot(), Way::Out);
        if self.tail == sent && sent % LANE as u64 > PAGE {
            if sent % LANE as u64 > 16 * PAGE {
                map.lane_forget(self.slot(), Way::Out);
            }
            map.rebase(self.slot(), Way::Out, next(sent));
            self.tail = next(sent);
            changed = true;
        }
        changed
    }

    pub fn rewound(&self, map: &Map) {
        if self.head > map.reached(self.slot(), Way::In) {
            map.rebase(self.slot(), Way::In, self.head);
        }
    }
}
