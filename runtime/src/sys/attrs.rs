//! The system calls behind process attributes that neither `nix` nor `caps` wraps.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

/// The three sets of capset(2), one bit per capability.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CapSets {
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
}

const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Default, Clone, Copy)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// The calling thread's sets.
pub fn capget() -> Result<CapSets, Errno> {
    let mut header = CapHeader { version: CAPABILITY_VERSION_3, pid: 0 };
    let mut data = [CapData::default(); 2];
    // SAFETY: version 3 means that the kernel writes exactly two CapData, which `data` holds; both outlive the call.
    Errno::result(unsafe { libc::syscall(libc::SYS_capget, &mut header, data.as_mut_ptr()) })?;
    let join = |f: fn(&CapData) -> u32| u64::from(f(&data[0])) | u64::from(f(&data[1])) << 32;
    Ok(CapSets {
        effective: join(|d| d.effective),
        permitted: join(|d| d.permitted),
        inheritable: join(|d| d.inheritable),
    })
}

/// Replaces the calling thread's three sets at once.
pub fn capset(sets: &CapSets) -> Result<(), Errno> {
    let mut header = CapHeader { version: CAPABILITY_VERSION_3, pid: 0 };
    let half = |shift: u32| CapData {
        effective: (sets.effective >> shift) as u32,
        permitted: (sets.permitted >> shift) as u32,
        inheritable: (sets.inheritable >> shift) as u32,
    };
    let data = [half(0), half(32)];
    // SAFETY: version 3 means that the kernel reads exactly two CapData, which `data` holds; both outlive the call.
    Errno::result(unsafe { libc::syscall(libc::SYS_capset, &mut header, data.as_ptr()) }).map(drop)
}

/// prctl(2) with integer arguments alone; returns its value.
pub fn prctl(option: i32, arg2: u64, arg3: u64) -> Result<i32, Errno> {
    // SAFETY: the callers pass options whose arguments are integers; the kernel reads no memory for them.
    Errno::result(unsafe { libc::prctl(option, arg2, arg3, 0u64, 0u64) })
}

/// prlimit(2): sets both limits of `pid`, 0 being the caller.
pub fn set_rlimit(pid: i32, resource: u32, soft: u64, hard: u64) -> Result<(), Errno> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: `limit` outlives the call, and a null old limit asks for nothing to be written back.
    Errno::result(unsafe { libc::prlimit64(pid, resource, &limit, std::ptr::null_mut()) }).map(drop)
}

#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

/// Opens `path` beneath a procfs root; no magic link, mount or `..` may lead out of it. Kernels before 5.6 have no
/// openat2(2): there the path is opened as it is, and the caller's check of the file system's type must do.
pub fn open_proc(procfs: BorrowedFd<'_>, path: &str, flags: i32) -> io::Result<OwnedFd> {
    const RESOLVE_NO_XDEV: u64 = 0x01;
    const RESOLVE_NO_MAGICLINKS: u64 = 0x02;
    const RESOLVE_BENEATH: u64 = 0x08;
    let path = std::ffi::CString::new(path)?;
    let flags = flags | libc::O_CLOEXEC | libc::O_NOCTTY;
    let how = OpenHow {
        flags: flags as u64,
        mode: 0,
        resolve: RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS | RESOLVE_BENEATH,
    };
    // SAFETY: `path` is NUL-terminated and `how` has the size that is passed with it; both outlive the call.
    let mut fd = unsafe {
        libc::syscall(
            libc::SYS_openat2,
            procfs.as_raw_fd(),
            path.as_ptr(),
            &how,
            std::mem::size_of::<OpenHow>(),
        )
    };
    if fd < 0 && matches!(Errno::last(), Errno::ENOSYS | Errno::EPERM) {
        // SAFETY: `path` is NUL-terminated and outlives the call; no O_CREAT, so no mode is read.
        fd = unsafe { libc::openat(procfs.as_raw_fd(), path.as_ptr(), flags) }.into();
    }
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just returned this descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Whether `fd` lies on a procfs.
pub fn is_procfs(fd: BorrowedFd<'_>) -> Result<bool, Errno> {
    Ok(nix::sys::statfs::fstatfs(fd)?.filesystem_type() == nix::sys::statfs::PROC_SUPER_MAGIC)
}
