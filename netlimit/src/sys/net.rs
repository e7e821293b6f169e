//! Network namespaces, netlink sockets, cgroup ids, options of other processes' sockets.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A routing netlink socket of this thread's network namespace.
pub fn netlink() -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    let fd =
        unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_ROUTE) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub fn send(socket: BorrowedFd<'_>, message: &[u8]) -> io::Result<()> {
    // SAFETY: the buffer is live and of the length given; without an address netlink sends to the kernel.
    let n = unsafe { libc::send(socket.as_raw_fd(), message.as_ptr().cast(), message.len(), 0) };
    if n < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the buffer is live, writable and of the length given.
    let n =
        unsafe { libc::recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_TRUNC) };
    match usize::try_from(n) {
        Ok(n) if n > buffer.len() => Err(io::Error::from_raw_os_error(libc::EMSGSIZE)),
        Ok(n) => Ok(n),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

fn enter(netns: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no pointers; changes the network namespace of this thread alone.
    if unsafe { libc::setns(netns.as_raw_fd(), libc::CLONE_NEWNET) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Runs `f` with this thread in another network namespace.
pub fn inside<T>(netns: BorrowedFd<'_>, f: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let own = own_netns()?;
    enter(netns)?;
    let result = f();
    if let Err(e) = enter(std::os::fd::AsFd::as_fd(&own)) {
        // Going on in a foreign namespace would put limits on strangers' devices.
        panic!("can't return to our own network namespace: {e}");
    }
    result
}

/// The network namespace of this thread.
pub fn own_netns() -> io::Result<OwnedFd> {
    Ok(std::fs::File::open("/proc/thread-self/ns/net")?.into())
}

/// The cgroup's id as BPF helpers return it: the inode's 64 bits, by its file handle (5.5 or later).
pub fn cgroup_id(directory: &Path) -> io::Result<u64> {
    #[repr(C)]
    struct Handle {
        bytes: u32,
        kind: i32,
        id: [u8; 8],
    }
    let path = CString::new(directory.as_os_str().as_bytes())?;
    let (mut handle, mut mount) = (Handle { bytes: 8, kind: 0, id: [0; 8] }, 0i32);
    // SAFETY: the path ends with a NUL; `handle` is a file_handle with room for the 8 bytes it announces.
    let r = unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            libc::AT_FDCWD,
            path.as_ptr(),
            std::ptr::from_mut(&mut handle),
            std::ptr::from_mut(&mut mount),
            0,
        )
    };
    if r < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(u64::from_ne_bytes(handle.id))
}

/// Whether the directory lies in a cgroup2 hierarchy.
pub fn is_cgroup2(directory: BorrowedFd<'_>) -> io::Result<bool> {
    const CGROUP2_SUPER_MAGIC: i64 = 0x6367_7270;
    // SAFETY: an all-zero statfs is a valid value of that plain C type.
    let mut s: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: `s` is live and of the right type.
    if unsafe { libc::fstatfs(directory.as_raw_fd(), &mut s) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(s.f_type == CGROUP2_SUPER_MAGIC)
}

/// The index of a network device of this thread's namespace; `None` if there is none of that name.
pub fn ifindex(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    // SAFETY: the name ends with a NUL.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => None,
        n => Some(n),
    }
}

/// What people call a network device of this thread's namespace; its number if it is gone.
pub fn ifname(index: u32) -> String {
    let mut name = [0u8; libc::IF_NAMESIZE];
    // SAFETY: the buffer is live, writable and of the size that the function asks for.
    let found = unsafe { libc::if_indextoname(index, name.as_mut_ptr().cast()) };
    let end = name.iter().position(|b| *b == 0).unwrap_or(0);
    match found.is_null() {
        true => index.to_string(),
        false => String::from_utf8_lossy(&name[..end]).into_owned(),
    }
}

/// CLOCK_MONOTONIC, which bpf_ktime_get_ns() reads.
pub fn monotonic_ns() -> u64 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `t` is live; the clock exists on every kernel, so the call can't fail.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut t) };
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

/// An option of a socket whose value is one word.
#[derive(Debug, Clone, Copy)]
pub struct Sockopt {
    pub level: i32,
    pub name: i32,
}

impl Sockopt {
    pub const DOMAIN: Sockopt = Sockopt { level: libc::SOL_SOCKET, name: libc::SO_DOMAIN };
    pub const PROTOCOL: Sockopt = Sockopt { level: libc::SOL_SOCKET, name: libc::SO_PROTOCOL };
    pub const MARK: Sockopt = Sockopt { level: libc::SOL_SOCKET, name: libc::SO_MARK };
    pub const PRIORITY: Sockopt = Sockopt { level: libc::SOL_SOCKET, name: libc::SO_PRIORITY };
    pub const MAX_PACING_RATE: Sockopt = Sockopt { level: libc::SOL_SOCKET, name: libc::SO_MAX_PACING_RATE };
}

pub fn get(socket: BorrowedFd<'_>, option: Sockopt) -> io::Result<u32> {
    let (mut value, mut size) = (0u32, size_of::<u32>() as libc::socklen_t);
    // SAFETY: the value is live, writable and of the size given.
    let r = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            option.level,
            option.name,
            std::ptr::from_mut(&mut value).cast(),
            &mut size,
        )
    };
    if r < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(value)
}

pub fn set(socket: BorrowedFd<'_>, option: Sockopt, value: u32) -> io::Result<()> {
    // SAFETY: the value is live and of the size given.
    let r = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            option.level,
            option.name,
            std::ptr::from_ref(&value).cast(),
            size_of::<u32>() as libc::socklen_t,
        )
    };
    if r < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

pub fn pidfd(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    new_fd(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })
}

/// Another process's descriptor as one of ours (5.6 or later).
pub fn pidfd_getfd(process: BorrowedFd<'_>, number: i32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    new_fd(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0) })
}

/// What a system call returned that makes a descriptor.
fn new_fd(result: libc::c_long) -> io::Result<OwnedFd> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(result as i32) })
}
