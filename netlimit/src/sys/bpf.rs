//! bpf(2) over libc, as much as is needed, and the mapping of an array map. Kernel 5.12 or later.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

const MAP_CREATE: i32 = 0;
const PROG_LOAD: i32 = 5;
const PROG_ATTACH: i32 = 8;
const PROG_DETACH: i32 = 9;
const PROG_GET_FD_BY_ID: i32 = 13;
const MAP_GET_FD_BY_ID: i32 = 14;
const OBJ_GET_INFO_BY_FD: i32 = 15;
const PROG_QUERY: i32 = 16;

/// Flags of [`attach`].
pub const ALLOW_MULTI: u32 = 1 << 1;
pub const BEFORE: u32 = 1 << 3;
const REPLACE: u32 = 1 << 2;

/// `enum bpf_prog_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum ProgType {
    SchedCls = 3,
    CgroupSkb = 8,
    CgroupSock = 9,
    SockOps = 13,
    CgroupSockopt = 25,
}

/// `enum bpf_attach_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum AttachType {
    CgroupIngress = 0,
    CgroupEgress = 1,
    CgroupSockCreate = 2,
    CgroupSockOps = 3,
    CgroupSetsockopt = 22,
    TcxIngress = 46,
    TcxEgress = 47,
}

/// An argument block of bpf(2): plain words, all of them initialised.
///
/// # Safety
/// The type is `repr(C)`, has no padding, and every address in it is valid for what the command does with it.
unsafe trait Attr: Sized {}

#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
    numa_node: u32,
    name: [u8; 16],
}

#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    name: [u8; 16],
    ifindex: u32,
    expected_attach_type: u32,
}

#[repr(C)]
struct ProgAttach {
    target: u32,
    prog_fd: u32,
    attach_type: u32,
    flags: u32,
    replace_fd: u32,
}

/// Whole, up to `revision`: the kernel writes that one back without asking how much it was given (tcx from Linux 6.6,
/// cgroups from 6.17).
#[repr(C)]
#[derive(Default)]
struct ProgQuery {
    target: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    pad: u32,
    prog_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

#[repr(C)]
struct GetById {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

#[repr(C)]
struct GetInfo {
    fd: u32,
    info_len: u32,
    info: u64,
}

// SAFETY: repr(C), no padding; the addresses are filled in next to the call, from live slices.
unsafe impl Attr for MapCreate {}
// SAFETY: as above.
unsafe impl Attr for ProgLoad {}
// SAFETY: as above.
unsafe impl Attr for ProgAttach {}
// SAFETY: as above.
unsafe impl Attr for ProgQuery {}
// SAFETY: as above.
unsafe impl Attr for GetById {}
// SAFETY: as above.
unsafe impl Attr for GetInfo {}

fn bpf<A: Attr>(command: i32, attr: &mut A) -> io::Result<i32> {
    // SAFETY: `attr` is a live block of the size given; `Attr` vouches for the addresses in it.
    let r = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<A>() as u32) };
    if r < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(r as i32)
}

fn bpf_fd<A: Attr>(command: i32, attr: &mut A) -> io::Result<OwnedFd> {
    let fd = bpf(command, attr)?;
    // SAFETY: the command returned a new file descriptor (close-on-exec, as all of bpf(2)'s) that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn object_name(name: &str) -> [u8; 16] {
    let mut out = [0; 16];
    for (o, b) in out.iter_mut().zip(name.bytes().take(15)) {
        *o = b;
    }
    out
}

/// A new array map of one value that can be mapped into memory.
pub fn create_map(name: &str, value_size: usize) -> io::Result<OwnedFd> {
    const ARRAY: u32 = 2;
    const MMAPABLE: u32 = 1 << 10;
    bpf_fd(
        MAP_CREATE,
        &mut MapCreate {
            map_type: ARRAY,
            key_size: 4,
            value_size: value_size as u32,
            max_entries: 1,
            map_flags: MMAPABLE,
            inner_map_fd: 0,
            numa_node: 0,
            name: object_name(name),
        },
    )
}

/// Loads a program. `log`, if given, receives the verifier's words.
pub fn load(
    name: &str,
    kind: ProgType,
    attach_type: Option<AttachType>,
    insns: &[u64],
    log: Option<&mut [u8]>,
) -> io::Result<OwnedFd> {
    // No helper is used that only GPL programs may call.
    const LICENSE: &std::ffi::CStr = c"Apache-2.0";
    let (log_size, log_buf) = log.map_or((0, 0), |l| (l.len() as u32, l.as_mut_ptr() as u64));
    bpf_fd(
        PROG_LOAD,
        &mut ProgLoad {
            prog_type: kind as u32,
            insn_cnt: insns.len() as u32,
            insns: insns.as_ptr() as u64,
            license: LICENSE.as_ptr() as u64,
            log_level: u32::from(log_size > 0),
            log_size,
            log_buf,
            kern_version: 0,
            prog_flags: 0,
            name: object_name(name),
            ifindex: 0,
            expected_attach_type: attach_type.map_or(0, |t| t as u32),
        },
    )
}

/// What a program is attached to: a cgroup directory or a network device.
#[derive(Debug, Clone, Copy)]
pub enum At<'a> {
    Cgroup(BorrowedFd<'a>),
    Device(u32),
}

impl At<'_> {
    fn raw(self) -> u32 {
        match self {
            At::Cgroup(fd) => fd.as_raw_fd() as u32,
            At::Device(ifindex) => ifindex,
        }
    }
}

/// Attaches a program, in the place of `old` if that is given: then every packet sees the one or the other.
pub fn attach(
    at: At<'_>,
    prog: BorrowedFd<'_>,
    attach_type: AttachType,
    flags: u32,
    old: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let (target, prog_fd) = (at.raw(), prog.as_raw_fd() as u32);
    let (flags, replace_fd) = match (at, old) {
        (_, None) => (flags, 0),
        // tcx takes no word on the order together with a replacement.
        (At::Device(_), Some(old)) => (REPLACE, old.as_raw_fd() as u32),
        (At::Cgroup(_), Some(old)) => (flags | REPLACE, old.as_raw_fd() as u32),
    };
    let attach_type = attach_type as u32;
    bpf(PROG_ATTACH, &mut ProgAttach { target, prog_fd, attach_type, flags, replace_fd }).map(drop)
}

pub fn detach(at: At<'_>, prog: BorrowedFd<'_>, attach_type: AttachType) -> io::Result<()> {
    let (target, prog_fd) = (at.raw(), prog.as_raw_fd() as u32);
    bpf(
        PROG_DETACH,
        &mut ProgAttach { target, prog_fd, attach_type: attach_type as u32, flags: 0, replace_fd: 0 },
    )
    .map(drop)
}

/// The ids of the programs attached directly to a cgroup or device.
pub fn query(at: At<'_>, attach_type: AttachType) -> io::Result<Vec<u32>> {
    let mut ids = vec![0u32; 64];
    let mut attr = ProgQuery {
        target: at.raw(),
        attach_type: attach_type as u32,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: ids.len() as u32,
        ..ProgQuery::default()
    };
    bpf(PROG_QUERY, &mut attr)?;
    ids.truncate(attr.prog_cnt as usize);
    Ok(ids)
}

pub fn prog_by_id(id: u32) -> io::Result<OwnedFd> {
    bpf_fd(PROG_GET_FD_BY_ID, &mut GetById { id, next_id: 0, open_flags: 0 })
}

pub fn map_by_id(id: u32) -> io::Result<OwnedFd> {
    bpf_fd(MAP_GET_FD_BY_ID, &mut GetById { id, next_id: 0, open_flags: 0 })
}

/// The head of `struct bpf_prog_info`.
#[repr(C)]
#[derive(Default)]
struct ProgInfo {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    jited_len: u32,
    xlated_len: u32,
    jited: u64,
    xlated: u64,
    load_time: u64,
    uid: u32,
    nr_map_ids: u32,
    map_ids: u64,
    name: [u8; 16],
}

/// The head of `struct bpf_map_info`.
#[repr(C)]
#[derive(Default)]
struct MapInfo {
    kind: u32,
    id: u32,
    key_size: u32,
    value_size: u32,
}

fn info<T>(fd: BorrowedFd<'_>, info: &mut T) -> io::Result<()> {
    let addr = std::ptr::from_mut(info) as u64;
    let (fd, info_len) = (fd.as_raw_fd() as u32, size_of::<T>() as u32);
    bpf(OBJ_GET_INFO_BY_FD, &mut GetInfo { fd, info_len, info: addr }).map(drop)
}

/// A program's name and the only map it uses, if it uses one alone.
pub fn prog_info(prog: BorrowedFd<'_>) -> io::Result<(String, Option<u32>)> {
    let mut map_id = 0u32;
    let mut i =
        ProgInfo { nr_map_ids: 1, map_ids: std::ptr::from_mut(&mut map_id) as u64, ..ProgInfo::default() };
    info(prog, &mut i)?;
    let end = i.name.iter().position(|b| *b == 0).unwrap_or(16);
    let name = String::from_utf8_lossy(&i.name[..end]).into_owned();
    Ok((name, (i.nr_map_ids == 1).then_some(map_id)))
}

/// A map's id and value size.
pub fn map_info(map: BorrowedFd<'_>) -> io::Result<(u32, usize)> {
    let mut i = MapInfo::default();
    info(map, &mut i)?;
    Ok((i.id, i.value_size as usize))
}

/// An array map's value, in memory that the kernel's programs share.
pub struct Mapping {
    base: NonNull<u64>,
    len: usize,
}

impl Mapping {
    /// Maps the first `len` bytes of a mmapable array map. `len` must not exceed the value's size.
    pub fn new(map: BorrowedFd<'_>, len: usize) -> io::Result<Mapping> {
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new shared mapping at an address of the kernel's choice touches no memory of ours.
        let p = unsafe { libc::mmap(std::ptr::null_mut(), len, prot, libc::MAP_SHARED, map.as_raw_fd(), 0) };
        if p == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        NonNull::new(p.cast())
            .map(|base| Mapping { base, len })
            .ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    /// The word at a byte offset.
    ///
    /// # Panics
    /// If the offset isn't a multiple of 8 within the mapping: offsets come from `bpf::layout` alone.
    pub fn word(&self, offset: usize) -> &AtomicU64 {
        assert!(offset % 8 == 0 && offset + 8 <= self.len, "offset {offset} is outside of the state");
        // SAFETY: within the mapping, which lives as long as `self`; page-aligned base and a multiple of 8 keep the
        // word aligned; programs and other processes write it too, hence atomic.
        unsafe { AtomicU64::from_ptr(self.base.as_ptr().add(offset / 8)) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping made in `new`; references into it can't outlive `self`.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// Number to put into an instruction that names a map.
pub fn map_number(map: &impl AsFd) -> RawFd {
    map.as_fd().as_raw_fd()
}
