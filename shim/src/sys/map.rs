//! The map: a file on tmpfs that both heads have mapped. What is written here outlives either head, and both of them.
//!
//! Everything in the header is an atomic, or is written by the kernel within a system call (lengths of messages, numbers of
//! children, offsets in files): a head may die between any two instructions and the other one still reads the truth.

use super::Fd;
use crate::error::{Context, Error, Kind, Result};
use nix::errno::Errno;
use std::cell::Cell;
use std::sync::atomic::{AtomicI32, AtomicI64, AtomicU32, AtomicU64, Ordering::SeqCst};

/// "HYDRAMAP"; the number after it changes whenever the layout does.
const MAGIC: u64 = 0x5041_4d41_5244_5948;
pub const VERSION: u32 = 2;

/// Values of `Header::upgrade`: the worker asks its keeper, the new program has started; or an errno above `UPGRADE_FAILED`.
pub const UPGRADE_WANTED: u32 = 1;
pub const UPGRADED: u32 = 2;
pub const UPGRADE_FAILED: u32 = 1000;

pub const CONNS: usize = 24;
pub const OPS: usize = 64;
pub const STREAMS: usize = 64;
pub const EXITS: usize = 512;
/// One direction of one connection: a whole frame of the largest allowed size fits.
pub const LANE: usize = (4 << 20) + (64 << 10);
/// So large a state may grow.
pub const STATE: usize = 4 << 20;
/// Of a state's place so much has its pages from the start; and of a lane, from when it has a connection.
const RESERVE: usize = 16 << 10;

const HEADER: usize = 64 << 10;
const LANES: usize = HEADER + 2 * STATE;
const SIZE: usize = LANES + CONNS * 2 * LANE;

/// One attempt to receive or send: where it begins and, written by the kernel, how far it came.
#[repr(C)]
struct Half {
    base: AtomicU64,
    iov: [AtomicU64; 2],
    /// struct mmsghdr: 56 bytes of msghdr, then msg_len.
    msg: [AtomicU64; 7],
    done: AtomicU32,
    pad: u32,
}

/// How far one direction of a connection got. Offsets are absolute and never go back; `offset % LANE` is the place.
#[repr(C)]
pub struct Lane {
    halves: [Half; 2],
    current: AtomicU32,
    pad: u32,
}

#[repr(C)]
struct Exit {
    pid: AtomicI32,
    code: AtomicU32,
    core: AtomicU32,
    /// Unused, and 0, before there was a word for it.
    killed: AtomicU32,
    at: AtomicU64,
}

/// What a stream of a container's output must remember beyond its pipes.
#[repr(C)]
pub struct StreamMark {
    /// The batch in the stage was shown to every listener, and is being drained.
    pub draining: AtomicU32,
    pad: u32,
    /// End of the ring file, ever growing.
    pub ring: AtomicI64,
    /// The spool file holds what lies between.
    pub spool_read: AtomicI64,
    pub spool_write: AtomicI64,
    /// Bytes that a client never gets, by the policy.
    pub dropped: AtomicU64,
    /// Bytes that the ring lacks: its disk was full.
    pub unlogged: AtomicU64,
}

#[repr(C)]
pub struct Header {
    magic: AtomicU64,
    version: AtomicU32,
    current: AtomicU32,
    lengths: [AtomicU32; 2],
    pub keeper: AtomicI32,
    pub worker: AtomicI32,
    /// How many heads have grown.
    pub heads: AtomicU32,
    /// How often the request in `working` was begun.
    pub attempts: AtomicU32,
    /// 0, or how far the execution of the installed program got (`UPGRADE_*`).
    pub upgrade: AtomicU32,
    exits_tail: AtomicU32,
    pub exits_head: AtomicU32,
    pad: u32,
    /// The request that was begun last: its offset in its lane, and the lane.
    pub working: AtomicU64,
    /// Pids of the runtime's processes and other jobs, written by the kernel as it makes them.
    pub ops: [AtomicI32; OPS],
    /// And their pidfds.
    pub op_fds: [AtomicI32; OPS],
    /// The keeper's pidfd, an eventfd that wakes the worker, and the worker's SIGCHLD descriptor.
    pub keeper_fd: AtomicI32,
    pub poke_fd: AtomicI32,
    pub child_fd: AtomicI32,
    pad2: u32,
    exits: [Exit; EXITS],
    pub streams: [StreamMark; STREAMS],
    rx: [Lane; CONNS],
    tx: [Lane; CONNS],
}

const _: () = assert!(size_of::<Header>() <= HEADER);

/// Receiving or sending.
#[derive(Clone, Copy, PartialEq)]
pub enum Way {
    In,
    Out,
}

/// The mapped file. Lives as long as the process.
pub struct Map {
    base: *mut u8,
    pub fd: Fd,
    /// So much of both states' places has its pages.
    room: Cell<usize>,
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: the mapping was made in `open` with this size; the header's borrow ends with self.
        unsafe { libc::munmap(self.base.cast(), SIZE) };
    }
}

/// Gives a part of the file its pages: one that can't be had ends whoever writes there.
fn reserve(fd: Fd, at: usize, length: usize) -> nix::Result<()> {
    nix::fcntl::fallocate(fd, nix::fcntl::FallocateFlags::empty(), at as i64, length as i64)
}

impl Map {
    /// Maps `fd`; a fresh file is laid out, an existing one must have this layout.
    pub fn open(fd: Fd, fresh: bool) -> Result<Map> {
        if fresh {
            nix::unistd::ftruncate(fd, SIZE as i64).context(|| "sizing the monitor's state file")?;
            // What every head writes must have its pages: a full file system would end both of them at once.
            // The last two are the lanes to containerd's event service, whose connection may come when it is full.
            for at in [0, HEADER, HEADER + STATE, LANES, LANES + LANE] {
                let length = if at == 0 { HEADER } else { RESERVE };
                reserve(fd, at, length).context(|| "making room for the monitor's state")?;
            }
        } else if nix::sys::stat::fstat(fd).context(|| "looking at the monitor's state file")?.st_size
            != SIZE as i64
        {
            return Err(Error::new(Kind::Unsupported, "the monitor's state file has another version's size"));
        }
        // SAFETY: a new shared mapping of SIZE bytes of the file, which has that size and is never made smaller.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                SIZE,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                fd.0,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(Errno::last()).context(|| "mapping the monitor's state file");
        }
        let map = Map { base: base.cast(), fd, room: Cell::new(RESERVE) };
        let header = map.header();
        if fresh {
            header.magic.store(MAGIC, SeqCst);
            header.version.store(VERSION, SeqCst);
        }
        let (magic, version) = (header.magic.load(SeqCst), header.version.load(SeqCst));
        if magic != MAGIC || version != VERSION {
            return Err(Error::new(
                Kind::Unsupported,
                format!("the monitor's state has layout {version}, this program reads {VERSION}"),
            ));
        }
        Ok(map)
    }

    /// Maps the state of a monitor to look at it: nothing may be committed there.
    pub fn look(path: &std::path::Path) -> Result<Map> {
        let file = std::fs::OpenOptions::new().read(true).write(true).open(path);
        let file = file.context(|| format!("opening {}", path.display()))?;
        let mut map = Map::open(super::number(&file), false)?;
        // The mapping outlives the descriptor.
        map.fd = Fd(-1);
        Ok(map)
    }

    pub fn header(&self) -> &Header {
        // SAFETY: the mapping is page-aligned, at least HEADER bytes and lives as long as self; all fields that the other
        // process writes are atomics.
        unsafe { &*self.base.cast::<Header>() }
    }

    /// Takes the map's pages out of this process; they stay in the file.
    pub fn drop_pages(&self) {
        // SAFETY: the mapping is of SIZE bytes, shared and file-backed: its content does not change by this.
        unsafe { libc::madvise(self.base.cast(), SIZE, libc::MADV_DONTNEED) };
    }

    fn copy_out(&self, at: usize, buf: &mut [u8]) {
        assert!(at + buf.len() <= SIZE);
        // SAFETY: in bounds (asserted); only one process works on the regions at a time.
        unsafe { std::ptr::copy_nonoverlapping(self.base.add(at), buf.as_mut_ptr(), buf.len()) };
    }

    fn copy_in(&self, at: usize, buf: &[u8]) {
        assert!(at + buf.len() <= SIZE);
        // SAFETY: in bounds (asserted); only one process works on the regions at a time.
        unsafe { std::ptr::copy_nonoverlapping(buf.as_ptr(), self.base.add(at), buf.len()) };
    }

    /// Makes `state` the truth, in one store.
    pub fn commit(&self, state: &[u8]) -> Result<()> {
        if state.len() > STATE {
            return Err(Error::system(format!("the monitor's state of {} bytes does not fit", state.len())));
        }
        if state.len() > self.room.get() {
            let room = state.len().next_multiple_of(RESERVE).min(STATE);
            for at in [HEADER, HEADER + STATE] {
                reserve(self.fd, at, room).context(|| "making room for the monitor's state")?;
            }
            self.room.set(room);
        }
        let header = self.header();
        let next = 1 - (header.current.load(SeqCst) & 1);
        self.copy_in(HEADER + next as usize * STATE, state);
        header.lengths[next as usize].store(state.len() as u32, SeqCst);
        header.current.store(next, SeqCst);
        Ok(())
    }

    pub fn committed_length(&self) -> usize {
        let header = self.header();
        header.lengths[(header.current.load(SeqCst) & 1) as usize].load(SeqCst) as usize
    }

    pub fn committed(&self) -> Vec<u8> {
        let header = self.header();
        let current = (header.current.load(SeqCst) & 1) as usize;
        let mut state = vec![0; (header.lengths[current].load(SeqCst) as usize).min(STATE)];
        self.copy_out(HEADER + current * STATE, &mut state);
        state
    }

    fn lane(&self, slot: usize, way: Way) -> (&Lane, usize) {
        let header = self.header();
        match way {
            Way::In => (&header.rx[slot], LANES + slot * 2 * LANE),
            Way::Out => (&header.tx[slot], LANES + slot * 2 * LANE + LANE),
        }
    }

    /// The absolute offset up to which the kernel got: received, or sent.
    pub fn reached(&self, slot: usize, way: Way) -> u64 {
        let half = &self.lane(slot, way).0.halves;
        let half = &half[(self.lane(slot, way).0.current.load(SeqCst) & 1) as usize];
        half.base.load(SeqCst) + u64::from(half.done.load(SeqCst))
    }

    /// Begins anew at `offset`.
    pub fn rebase(&self, slot: usize, way: Way, offset: u64) {
        let lane = self.lane(slot, way).0;
        let next = 1 - (lane.current.load(SeqCst) & 1);
        let half = &lane.halves[next as usize];
        half.base.store(offset, SeqCst);
        half.done.store(0, SeqCst);
        lane.current.store(next, SeqCst);
    }

    /// Receives into, or sends from, the lane: at most up to `end`. What the kernel did is in `reached`.
    pub fn transfer(&self, slot: usize, way: Way, fd: Fd, end: u64) -> nix::Result<usize> {
        let from = self.reached(slot, way);
        self.rebase(slot, way, from);
        let (lane, region) = self.lane(slot, way);
        let half = &lane.halves[(lane.current.load(SeqCst) & 1) as usize];
        let place = (from % LANE as u64) as usize;
        let length = (end.saturating_sub(from) as usize).min(LANE - place);
        // SAFETY: in bounds: place < LANE, and the region of this lane lies inside the mapping.
        half.iov[0].store(unsafe { self.base.add(region + place) } as u64, SeqCst);
        half.iov[1].store(length as u64, SeqCst);
        for (word, value) in half.msg.iter().zip([0, 0, half.iov[0].as_ptr() as u64, 1, 0, 0, 0]) {
            word.store(value, SeqCst);
        }
        let msg = half.msg[0].as_ptr().cast::<libc::mmsghdr>();
        // SAFETY: `msg` and `done` together have the layout of struct mmsghdr (64 bytes, msg_len at 56) and are atomics; the
        // iovec names bytes of this lane alone.
        let n = unsafe {
            match way {
                Way::In => libc::recvmmsg(fd.0, msg, 1, libc::MSG_DONTWAIT as _, std::ptr::null_mut()),
                Way::Out => libc::sendmmsg(fd.0, msg, 1, (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as _),
            }
        };
        Errno::result(n)?;
        Ok((self.reached(slot, way) - from) as usize)
    }

    /// Copies bytes of a lane, from the absolute `offset` on.
    pub fn lane_read(&self, slot: usize, way: Way, offset: u64, buf: &mut [u8]) {
        let region = self.lane(slot, way).1;
        let place = (offset % LANE as u64) as usize;
        let first = buf.len().min(LANE - place);
        let (head, tail) = buf.split_at_mut(first);
        self.copy_out(region + place, head);
        self.copy_out(region, tail);
    }

    pub fn lane_write(&self, slot: usize, way: Way, offset: u64, buf: &[u8]) {
        let region = self.lane(slot, way).1;
        let place = (offset % LANE as u64) as usize;
        let (head, tail) = buf.split_at(buf.len().min(LANE - place));
        self.copy_in(region + place, head);
        self.copy_in(region, tail);
    }

    /// Gives a lane's memory back, but for what is reserved.
    pub fn lane_forget(&self, slot: usize, way: Way) {
        let region = (self.lane(slot, way).1 + RESERVE) as i64;
        // SAFETY: plain numbers; the hole reads as zero afterwards.
        unsafe {
            let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
            libc::fallocate(self.fd.0, mode, region, (LANE - RESERVE) as i64);
        }
    }

    /// A new connection has room for messages of the usual size, also when the file system is full later.
    pub fn lane_reserve(&self, slot: usize) -> nix::Result<()> {
        [Way::In, Way::Out].into_iter().try_for_each(|way| reserve(self.fd, self.lane(slot, way).1, RESERVE))
    }

    /// Writes down that a child ended. False if there is no room: it must stay a zombie until there is.
    pub fn record_exit(&self, change: super::Change, at: u64) -> bool {
        let header = self.header();
        let tail = header.exits_tail.load(SeqCst);
        if tail.wrapping_sub(header.exits_head.load(SeqCst)) as usize >= EXITS {
            return false;
        }
        let exit = &header.exits[tail as usize % EXITS];
        exit.pid.store(change.pid, SeqCst);
        exit.code.store(change.code, SeqCst);
        exit.core.store(u32::from(change.core), SeqCst);
        exit.killed.store(u32::from(change.killed), SeqCst);
        exit.at.store(at, SeqCst);
        header.exits_tail.store(tail.wrapping_add(1), SeqCst);
        true
    }

    /// The oldest exit that the keeper wrote down and the worker has not yet taken over.
    pub fn next_exit(&self) -> Option<(super::Change, u64)> {
        let header = self.header();
        let head = header.exits_head.load(SeqCst);
        if head == header.exits_tail.load(SeqCst) {
            return None;
        }
        let exit = &header.exits[head as usize % EXITS];
        let change = super::Change {
            pid: exit.pid.load(SeqCst),
            stopped: false,
            code: exit.code.load(SeqCst),
            killed: exit.killed.load(SeqCst) != 0,
            core: exit.core.load(SeqCst) != 0,
        };
        Some((change, exit.at.load(SeqCst)))
    }

    pub fn exit_taken(&self) {
        self.header().exits_head.fetch_add(1, SeqCst);
    }
}
