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
        libc::syscall(libc::SYS_openat2, procfs.as_raw_fd(), path.as_ptr(), &how, size_of::<OpenHow>())
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

/// sched_setaffinity(2) of `pid`, 0 being the caller. The kernel ignores bits beyond its CPUs.
pub fn set_affinity(pid: i32, mask: &[u64]) -> Result<(), Errno> {
    let size = size_of_val(mask);
    // SAFETY: the kernel reads at most `size` bytes, which are the slice's own.
    Errno::result(unsafe { libc::syscall(libc::SYS_sched_setaffinity, pid, size, mask.as_ptr()) }).map(drop)
}

/// The caller's CPU affinity.
pub fn affinity() -> Result<Vec<u64>, Errno> {
    // More CPUs than any kernel is built for: the call fails where its own mask is longer.
    let mut mask = vec![0u64; 1024];
    // SAFETY: the kernel writes at most the size that it is given, which is the buffer's own.
    let length =
        unsafe { libc::syscall(libc::SYS_sched_getaffinity, 0, size_of_val(&mask[..]), mask.as_mut_ptr()) };
    mask.truncate(Errno::result(length)? as usize / 8);
    Ok(mask)
}

/// What sched_setattr(2) takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SchedAttr {
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    /// The three times of SCHED_DEADLINE, in nanoseconds.
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
}

#[repr(C)]
struct KernelSchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// sched_setattr(2) of `pid`, 0 being the caller.
pub fn sched_setattr(pid: i32, attr: &SchedAttr) -> Result<(), Errno> {
    let SchedAttr { policy, flags, nice, priority, runtime, deadline, period } = *attr;
    let size = size_of::<KernelSchedAttr>() as u32;
    let attr = KernelSchedAttr { size, policy, flags, nice, priority, runtime, deadline, period };
    // SAFETY: the first field says how many bytes there are to read, and they outlive the call.
    Errno::result(unsafe { libc::syscall(libc::SYS_sched_setattr, pid, &attr, 0) }).map(drop)
}

/// ioprio_set(2) of the caller.
pub fn ioprio_set(priority: i32) -> Result<(), Errno> {
    const WHO_PROCESS: i32 = 1;
    // SAFETY: the call takes integers alone.
    Errno::result(unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, priority) }).map(drop)
}

pub fn personality(domain: u64) -> Result<(), Errno> {
    // SAFETY: the call takes an integer alone.
    Errno::result(unsafe { libc::syscall(libc::SYS_personality, domain) }).map(drop)
}

/// set_mempolicy(2) of the caller.
pub fn set_mempolicy(mode: i32, nodes: &[u64]) -> Result<(), Errno> {
    // The kernel takes one bit less than it is told of.
    let bits = if nodes.is_empty() { 0 } else { nodes.len() * 64 + 1 };
    // Of no bits at all it still reads the mask, unless that is null.
    let mask = if nodes.is_empty() { std::ptr::null() } else { nodes.as_ptr() };
    // SAFETY: the kernel reads `bits` - 1 bits, which are the slice's own; nothing through a null pointer.
    Errno::result(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, bits) }).map(drop)
}

/// Joins the session keyring `name`, making it if need be; returns its serial number.
pub fn join_session_keyring(name: &str) -> Result<i32, Errno> {
    const JOIN_SESSION_KEYRING: i32 = 1;
    let name = std::ffi::CString::new(name).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the name is NUL-terminated and outlives the call.
    let serial = unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, name.as_ptr()) };
    Errno::result(serial).map(|serial| serial as i32)
}

/// `type;uid;gid;perm;description`.
pub fn describe_key(serial: i32) -> Result<String, Errno> {
    const DESCRIBE: i32 = 6;
    let mut text = vec![0u8; 4096];
    // SAFETY: the kernel writes at most the length that it is given, which is the buffer's own.
    let length = unsafe { libc::syscall(libc::SYS_keyctl, DESCRIBE, serial, text.as_mut_ptr(), text.len()) };
    text.truncate(Errno::result(length)? as usize);
    Ok(String::from_utf8_lossy(&text).trim_end_matches('\0').to_string())
}

pub fn set_key_permissions(serial: i32, permissions: u32) -> Result<(), Errno> {
    const SETPERM: i32 = 5;
    // SAFETY: the call takes integers alone.
    Errno::result(unsafe { libc::syscall(libc::SYS_keyctl, SETPERM, serial, permissions) }).map(drop)
}

/// The NIS domain name of the caller's UTS namespace.
pub fn set_domainname(name: &str) -> Result<(), Errno> {
    // SAFETY: the kernel reads the given number of bytes, which are the string's own.
    Errno::result(unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) }).map(drop)
}
