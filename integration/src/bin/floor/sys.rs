//! System calls that no crate has a safe word for.

use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::unistd::Pid;

/// fork into new namespaces; `None` in the child.
pub fn clone(flags: CloneFlags) -> nix::Result<Option<Pid>> {
    let bits = flags.bits() | libc::SIGCHLD;
    // SAFETY: without CLONE_VM the child has a copy of all memory, this process has one thread, and a null stack
    // means that the child goes on with the copy of the caller's.
    let result = unsafe { libc::syscall(libc::SYS_clone, bits as libc::c_ulong, 0, 0, 0, 0) };
    match Errno::result(result)? {
        0 => Ok(None),
        pid => Ok(Some(Pid::from_raw(pid as i32))),
    }
}

pub fn sethostname(name: &str) -> nix::Result<()> {
    // SAFETY: the kernel reads `name.len()` bytes, which are there.
    Errno::result(unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) }).map(drop)
}
