//! System calls that no crate has a safe word for.

use super::CommandExt;
use std::fs::File;
use std::process::{Child, Command};

/// Has a program run in another mount namespace.
pub fn enter(command: &mut Command, namespace: File) {
    // SAFETY: setns is a bare system call, which may be made between fork and exec.
    unsafe {
        command.pre_exec(move || Ok(nix::sched::setns(&namespace, nix::sched::CloneFlags::CLONE_NEWNS)?))
    };
}

/// Waits for a program; its peak resident set in KiB.
pub fn peak_memory(child: Child) -> i64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    let mut status = 0;
    // SAFETY: both pointers are to values of the types that the call fills in, and all zeroes is a valid rusage.
    unsafe {
        libc::wait4(child.id() as i32, &mut status, 0, usage.as_mut_ptr());
        usage.assume_init().ru_maxrss
    }
}

/// Milliseconds of processor time of all children that have been waited for, and of theirs.
pub fn children_cpu() -> f64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: as above.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr());
        usage.assume_init()
    };
    let ms = |t: libc::timeval| t.tv_sec as f64 * 1e3 + t.tv_usec as f64 / 1e3;
    ms(usage.ru_utime) + ms(usage.ru_stime)
}
