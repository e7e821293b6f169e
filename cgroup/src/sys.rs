//! The only unsafe code: system calls that `nix` does not wrap.
#![allow(unsafe_code)]

pub mod bpf;
pub mod stat;

use nix::errno::Errno;

/// kill(2) with any signal number, real-time ones too.
pub fn signal(pid: i32, signal: i32) -> Result<(), Errno> {
    // SAFETY: takes numbers only.
    Errno::result(unsafe { libc::kill(pid, signal) }).map(drop)
}
