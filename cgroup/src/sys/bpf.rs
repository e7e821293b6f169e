//! bpf(2), as far as device filters need it.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

const PROG_LOAD: i32 = 5;
const PROG_ATTACH: i32 = 8;
const PROG_DETACH: i32 = 9;
const PROG_GET_FD_BY_ID: i32 = 13;
const PROG_QUERY: i32 = 16;
const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
const F_ALLOW_MULTI: u32 = 2;
const F_REPLACE: u32 = 4;

/// One instruction, as the kernel has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Insn {
    code: u8,
    registers: u8,
    offset: i16,
    value: i32,
}

/// When a jump is taken.
#[derive(Debug, Clone, Copy)]
pub enum Test {
    Equal = 0x15,
    NotEqual = 0x55,
}

impl Insn {
    const fn new(code: u8, dst: u8, src: u8, offset: i16, value: i32) -> Insn {
        Insn { code, registers: dst | src << 4, offset, value }
    }

    /// `dst = *(u32 *)(src + offset)`
    pub const fn load32(dst: u8, src: u8, offset: i16) -> Insn {
        Insn::new(0x61, dst, src, offset, 0)
    }

    /// `dst &= value`, on 32 bits
    pub const fn and(dst: u8, value: i32) -> Insn {
        Insn::new(0x54, dst, 0, 0, value)
    }

    /// `dst >>= value`, on 32 bits
    pub const fn shift_right(dst: u8, value: i32) -> Insn {
        Insn::new(0x74, dst, 0, 0, value)
    }
}

pub mod mov {
    use super::Insn;

    /// `dst = value`
    pub const fn imm(dst: u8, value: i32) -> Insn {
        Insn::new(0xb7, dst, 0, 0, value)
    }

    /// `dst = src`
    pub const fn reg(dst: u8, src: u8) -> Insn {
        Insn::new(0xbf, dst, src, 0, 0)
    }
}

/// Skips `skip` instructions if the register passes the test against `value`.
pub const fn jump(test: Test, register: u8, value: i32, skip: i16) -> Insn {
    Insn::new(test as u8, register, 0, skip, value)
}

pub const fn exit() -> Insn {
    Insn::new(0x95, 0, 0, 0, 0)
}

/// The start of `union bpf_attr` for PROG_LOAD; what follows may be left out.
#[derive(Default)]
#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    code: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel: u32,
    flags: u32,
}

/// For PROG_ATTACH and PROG_DETACH.
#[derive(Default)]
#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
    replaced: u32,
}

/// For PROG_QUERY. Whole, up to `revision`: from Linux 6.17 the kernel writes that one back without asking how much it was
/// given.
#[derive(Default)]
#[repr(C)]
struct Query {
    target: u32,
    kind: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    pad: u32,
    attach_flags_of_each: u64,
    link_ids: u64,
    link_flags_of_each: u64,
    revision: u64,
}

/// For PROG_GET_FD_BY_ID.
#[derive(Default)]
#[repr(C)]
struct ById {
    id: u32,
    next: u32,
    flags: u32,
}

fn call<T>(command: i32, attr: &mut T) -> Result<i32, Errno> {
    // SAFETY: each T above is a plain C struct that is a prefix of `union bpf_attr`, and the kernel is told its size;
    // the pointers inside are to live slices of the caller.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    Errno::result(result).map(|n| n as i32)
}

fn owned(fd: i32) -> OwnedFd {
    // SAFETY: the kernel has just made this descriptor for us (it sets O_CLOEXEC on every BPF one).
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Loads a program of type CGROUP_DEVICE.
pub fn load_device_program(code: &[Insn]) -> Result<OwnedFd, Errno> {
    let license = c"Apache-2.0";
    let load = || Load {
        kind: TYPE_CGROUP_DEVICE,
        count: code.len() as u32,
        code: code.as_ptr() as u64,
        license: license.as_ptr() as u64,
        ..Load::default()
    };
    match call(PROG_LOAD, &mut load()) {
        // Before Linux 5.11 programs count against RLIMIT_MEMLOCK.
        Err(Errno::EPERM) => {
            let all = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
            // SAFETY: reads one live struct.
            unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &all) };
            call(PROG_LOAD, &mut load()).map(owned)
        }
        other => other.map(owned),
    }
}

/// Attaches beside other programs, or in the place of one of them.
pub fn attach_device_program(
    cgroup: BorrowedFd<'_>,
    program: &OwnedFd,
    replace: Option<&OwnedFd>,
) -> Result<(), Errno> {
    let mut attr = Attach {
        target: cgroup.as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        kind: ATTACH_CGROUP_DEVICE,
        flags: F_ALLOW_MULTI | if replace.is_some() { F_REPLACE } else { 0 },
        replaced: replace.map_or(0, |fd| fd.as_raw_fd() as u32),
    };
    call(PROG_ATTACH, &mut attr).map(drop)
}

pub fn detach_device_program(cgroup: BorrowedFd<'_>, program: &OwnedFd) -> Result<(), Errno> {
    let (target, program) = (cgroup.as_raw_fd() as u32, program.as_raw_fd() as u32);
    let mut attr = Attach { target, program, kind: ATTACH_CGROUP_DEVICE, ..Attach::default() };
    call(PROG_DETACH, &mut attr).map(drop)
}

/// The device programs attached to this very cgroup.
pub fn attached_device_programs(cgroup: BorrowedFd<'_>) -> Result<Vec<OwnedFd>, Errno> {
    let mut ids = [0u32; 64];
    let mut attr = Query {
        target: cgroup.as_raw_fd() as u32,
        kind: ATTACH_CGROUP_DEVICE,
        ids: ids.as_mut_ptr() as u64,
        count: ids.len() as u32,
        ..Query::default()
    };
    call(PROG_QUERY, &mut attr)?;
    let open = |id: &u32| call(PROG_GET_FD_BY_ID, &mut ById { id: *id, ..ById::default() }).map(owned);
    ids.iter().take(attr.count as usize).map(open).collect()
}
