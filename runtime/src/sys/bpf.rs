//! seccomp(2).

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

/// One instruction of classic BPF, as the kernel reads it.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Insn {
    pub code: u16,
    pub jt: u8,
    pub jf: u8,
    pub k: u32,
}

#[repr(C)]
struct Program {
    len: u16,
    insns: *const Insn,
}

const SET_MODE_FILTER: u32 = 1;
/// Makes a descriptor that receives the notifications (Linux 5.0).
pub const NEW_LISTENER: u32 = 1 << 3;

/// Loads `program` into the calling thread, and returns the listener where NEW_LISTENER is among `flags`.
pub fn set_filter(program: &[Insn], flags: u32) -> Result<Option<OwnedFd>, Errno> {
    let len = u16::try_from(program.len()).map_err(|_| Errno::EINVAL)?;
    let program = Program { len, insns: program.as_ptr() };
    // SAFETY: `Program` has the layout of sock_fprog; its pointer and length are those of one live slice of `Insn`,
    // which has the layout of sock_filter.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, flags, &program) })?;
    if flags & NEW_LISTENER == 0 {
        return Ok(None);
    }
    // SAFETY: with NEW_LISTENER the kernel returns a new descriptor, which nothing else owns.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(fd as i32) }))
}

/// Whether the kernel knows a flag: it looks at the flags before it follows the null pointer.
pub fn flag_supported(flag: u32) -> bool {
    let none = std::ptr::null::<Program>();
    // SAFETY: a null program makes the kernel fail with EFAULT, or EINVAL for a flag that it does not know.
    unsafe {
        libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, flag, none) == -1 && Errno::last() == Errno::EFAULT
    }
}

/// A copy of descriptor `fd` of another process (Linux 5.6). The child that loaded a filter can tell no more than a
/// number: write(2) is the one call that a profile can't send to the agent.
pub fn fd_of(pidfd: BorrowedFd<'_>, fd: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: pidfd_getfd takes integers alone.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), fd, 0) })?;
    // SAFETY: the kernel just returned this new descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}
