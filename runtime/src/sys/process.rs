//! Making processes: `clone3`, `execveat`, and what a child does before it execs.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;

/// Linux 5.7; in `libc` it overflows.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Which side of a clone one is on.
pub enum Clone {
    Parent { pid: i32, pidfd: Option<OwnedFd> },
    Child,
}

/// `clone3(2)` without a new stack: like `fork`, with namespaces, a pidfd, and the child born in a cgroup.
///
/// `flags` are `CLONE_*`; with `CLONE_PARENT` the child is a sibling. With a kernel before 5.3 (`ENOSYS`) it is
/// `clone(2)`; `into` then is refused with `ENOSYS`.
pub fn clone(flags: u64, into: Option<BorrowedFd<'_>>) -> Result<Clone, Errno> {
    let mut pidfd: libc::c_int = -1;
    let sibling = flags & libc::CLONE_PARENT as u64 != 0;
    let mut args = libc::clone_args {
        flags: flags | libc::CLONE_PIDFD as u64,
        pidfd: &mut pidfd as *mut _ as u64,
        child_tid: 0,
        parent_tid: 0,
        // With CLONE_PARENT the kernel takes our own exit signal and refuses another.
        exit_signal: if sibling { 0 } else { libc::SIGCHLD as u64 },
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: 0,
    };
    if let Some(cgroup) = into {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: `args` is a valid clone_args for the whole call. This process has one thread, so the child (a copy of
    // it, with its own memory as CLONE_VM is never given) finds no lock held by a thread that does not exist there.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &args, size_of_val(&args)) };
    match Errno::result(pid) {
        Ok(0) => Ok(Clone::Child),
        // SAFETY: the kernel put a new descriptor, which nobody else owns, into `pidfd`.
        Ok(pid) => Ok(Clone::Parent { pid: pid as i32, pidfd: Some(unsafe { OwnedFd::from_raw_fd(pidfd) }) }),
        Err(Errno::ENOSYS) if into.is_none() => clone_before_5_3(flags, sibling),
        Err(e) => Err(e),
    }
}

fn clone_before_5_3(flags: u64, sibling: bool) -> Result<Clone, Errno> {
    let flags = flags as libc::c_long | if sibling { 0 } else { libc::c_long::from(libc::SIGCHLD) };
    // SAFETY: a null stack means "go on with a copy of this one", as in fork; see `clone` for the rest.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    match Errno::result(pid)? {
        0 => Ok(Clone::Child),
        pid => Ok(Clone::Parent { pid: pid as i32, pidfd: pidfd_open(pid as i32).ok() }),
    }
}

/// `pidfd_open(2)`, Linux 5.3.
pub fn pidfd_open(pid: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: takes two integers; a descriptor that comes back is new and ours.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: see above.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// `pidfd_send_signal(2)`, Linux 5.1.
pub fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<(), Errno> {
    let null = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo is allowed and means "as kill(2) would fill it in".
    let r = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, null, 0) };
    Errno::result(r).map(drop)
}

/// `kill(2)` with any signal number, real-time ones included.
pub fn kill(pid: i32, signal: i32) -> Result<(), Errno> {
    // SAFETY: takes two integers.
    Errno::result(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// Strings for `execve`, terminated by a null pointer.
pub struct StringArray {
    pointers: Vec<*const libc::c_char>,
    _strings: Vec<CString>,
}

impl StringArray {
    pub fn new(strings: Vec<CString>) -> StringArray {
        let mut pointers: Vec<_> = strings.iter().map(|s| s.as_ptr()).collect();
        pointers.push(std::ptr::null());
        StringArray { pointers, _strings: strings }
    }
}

/// `execve(2)`; returns only when it failed.
pub fn execve(path: &CStr, args: &StringArray, env: &StringArray) -> Errno {
    // SAFETY: both arrays end in a null pointer, and the strings they point to live as long as the arrays.
    unsafe { libc::execve(path.as_ptr(), args.pointers.as_ptr(), env.pointers.as_ptr()) };
    Errno::last()
}

/// `execveat(fd, "", ..., AT_EMPTY_PATH)`; returns only when it failed.
pub fn fexecve(file: BorrowedFd<'_>, args: &StringArray, env: &StringArray) -> Errno {
    // SAFETY: as for `execve`.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            args.pointers.as_ptr(),
            env.pointers.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    Errno::last()
}

/// The end of a child that must not run the parent's exit handlers.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: ends the process; nothing is touched after it.
    unsafe { libc::_exit(code) }
}

/// Marks every descriptor from `first` on as close-on-exec (`close_range(2)`, Linux 5.11; before, by the numbers
/// that `fds` lists).
pub fn cloexec_from<E>(first: u32, fds: impl FnOnce() -> Result<Vec<RawFd>, E>) -> Result<(), E> {
    // SAFETY: only sets flags on descriptors.
    let r = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if r == 0 {
        return Ok(());
    }
    for fd in fds()? {
        if fd >= first as RawFd {
            // SAFETY: sets a flag on a descriptor of this process; a closed one gives EBADF, which is fine.
            unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
    Ok(())
}

/// Closes every descriptor from `first` on but those in `keep` (`close_range(2)`, Linux 5.9; before, by the numbers that `fds` lists).
/// Their owners must neither use nor drop them afterwards: only for the child, which keeps its plan undropped and ends in execve.
pub fn close_from<E>(
    first: RawFd,
    keep: &[BorrowedFd<'_>],
    fds: impl FnOnce() -> Result<Vec<RawFd>, E>,
) -> Result<(), E> {
    let mut kept: Vec<RawFd> = keep.iter().map(AsRawFd::as_raw_fd).collect();
    kept.sort_unstable();
    let mut from = first;
    let gaps: Vec<(RawFd, RawFd)> = (kept.iter().copied().chain([RawFd::MAX]))
        .filter_map(|fd| {
            let gap = (from, fd - 1);
            from = from.max(fd.saturating_add(1));
            (gap.0 <= gap.1).then_some(gap)
        })
        .collect();
    // SAFETY: nothing is done with these descriptors any more; see above.
    let close = |(a, b): &(RawFd, RawFd)| unsafe { libc::syscall(libc::SYS_close_range, *a, *b, 0) } == 0;
    if gaps.iter().all(close) {
        return Ok(());
    }
    for fd in fds()? {
        if gaps.iter().any(|(a, b)| (a..=b).contains(&&fd)) {
            // SAFETY: as above; one that is closed already gives EBADF, which is fine.
            unsafe { libc::close(fd) };
        }
    }
    Ok(())
}

/// Whether a descriptor of that number is open.
pub fn is_open(fd: RawFd) -> bool {
    // SAFETY: F_GETFD on any number is harmless.
    unsafe { libc::fcntl(fd, libc::F_GETFD) >= 0 }
}

/// Borrows a descriptor that this process inherited (0 to 2, or one named on the command line).
///
/// # Errors
/// `EBADF` if there is none of that number.
pub fn inherited(fd: RawFd) -> Result<BorrowedFd<'static>, Errno> {
    if fd < 0 || !is_open(fd) {
        return Err(Errno::EBADF);
    }
    // SAFETY: the descriptor is open and, as it came from our parent, no OwnedFd of ours closes it.
    Ok(unsafe { BorrowedFd::borrow_raw(fd) })
}

/// Takes over a descriptor that just came in a message.
pub fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: the only callers pass numbers that recvmsg(2) has just made for this process and named once.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Makes `fd` one of the standard streams.
pub fn dup_to_stdio(fd: impl AsFd, stream: RawFd) -> Result<(), Errno> {
    debug_assert!((0..3).contains(&stream));
    // SAFETY: replaces a standard stream, which no OwnedFd of ours owns.
    Errno::result(unsafe { libc::dup2(fd.as_fd().as_raw_fd(), stream) }).map(drop)
}

/// Resets every signal to its default and unblocks all: what a container may expect of its parent.
pub fn reset_signals() {
    // The kernel's sigaction, all zeros: SIG_DFL without flags. Not through libc, which keeps two signals for itself.
    let default = [0u64; 4];
    for signal in 1..=64 {
        // SAFETY: the kernel reads the four words of a sigaction and a mask's size; KILL and STOP are refused, harmlessly.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), 0usize, 8usize) };
    }
    let empty = nix::sys::signal::SigSet::empty();
    // Only fails for a bad `how`.
    let _ = nix::sys::signal::sigprocmask(nix::sys::signal::SigmaskHow::SIG_SETMASK, Some(&empty), None);
}

/// The type of a namespace file (`CLONE_NEW*`); `ENOTTY` if it isn't one.
pub fn namespace_type(fd: BorrowedFd<'_>) -> Result<i32, Errno> {
    const NS_GET_NSTYPE: libc::c_ulong = 0xb703;
    // SAFETY: this request takes no argument.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_NSTYPE as _) })
}

/// `setns(2)` by a namespace file or, from Linux 5.8, by a pidfd and several `CLONE_NEW*` at once.
pub fn setns(fd: BorrowedFd<'_>, flags: i32) -> Result<(), Errno> {
    // SAFETY: takes two integers; this process has one thread.
    Errno::result(unsafe { libc::setns(fd.as_raw_fd(), flags) }).map(drop)
}

/// `unshare(2)`.
pub fn unshare(flags: i32) -> Result<(), Errno> {
    // SAFETY: takes an integer; this process has one thread.
    Errno::result(unsafe { libc::unshare(flags) }).map(drop)
}

/// The kernel's view of the working directory. One outside the root starts with `(unreachable)`.
pub fn getcwd() -> Result<Vec<u8>, Errno> {
    let mut buffer = vec![0u8; libc::PATH_MAX as usize];
    // The system call, not libc's function, which would look for another way to name an unreachable directory.
    // SAFETY: the kernel writes at most `len` bytes into a buffer of that size.
    let n = Errno::result(unsafe { libc::syscall(libc::SYS_getcwd, buffer.as_mut_ptr(), buffer.len()) })?;
    buffer.truncate((n as usize).saturating_sub(1));
    Ok(buffer)
}

/// Brings the loopback interface of the present network namespace up.
pub fn loopback_up() -> Result<(), Errno> {
    use nix::sys::socket::{socket, AddressFamily, SockFlag, SockType};
    let socket = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: an ifreq of zeros is valid: an empty name and no flags.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[..2].copy_from_slice(&[b'l' as libc::c_char, b'o' as libc::c_char]);
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads one ifreq, which lives for the call.
    Errno::result(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &request) }).map(drop)
}

/// `setresgid`, then `setresuid`, as system calls: this process has one thread, so libc's signalling of all
/// threads is not wanted.
pub fn set_ids(uid: Option<u32>, gid: Option<u32>) -> Result<(), Errno> {
    if let Some(gid) = gid {
        // SAFETY: takes three integers.
        Errno::result(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) })?;
    }
    if let Some(uid) = uid {
        // SAFETY: takes three integers.
        Errno::result(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) })?;
    }
    Ok(())
}

/// `setgroups(2)`.
pub fn set_groups(groups: &[u32]) -> Result<(), Errno> {
    // SAFETY: the kernel reads `len` group ids from the slice.
    let r = unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) };
    Errno::result(r).map(drop)
}
