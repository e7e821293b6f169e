//! statx(2): what a path is, and on which mount it lies.

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

/// What a file is and on which mount it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// As in the first column of mountinfo.
    pub mount: u64,
    pub mode: u32,
    /// (major, minor) of the node itself, for device nodes.
    pub node: (u32, u32),
}

/// Identifies an open file.
pub fn identify(fd: BorrowedFd<'_>) -> Result<Identity, Errno> {
    let mask = libc::STATX_BASIC_STATS | libc::STATX_MNT_ID;
    let mut out = MaybeUninit::<libc::statx>::zeroed();
    let path = c"".as_ptr();
    // SAFETY: `path` is NUL terminated and static, `out` has room for one statx.
    let result = unsafe { libc::statx(fd.as_raw_fd(), path, libc::AT_EMPTY_PATH, mask, out.as_mut_ptr()) };
    Errno::result(result)?;
    // SAFETY: all-zero bytes are a valid statx, and the kernel filled it.
    let s = unsafe { out.assume_init() };
    let mount = match s.stx_mask & libc::STATX_MNT_ID {
        // Linux before 5.8
        0 => from_fdinfo(fd).ok_or(Errno::ENOSYS)?,
        _ => s.stx_mnt_id,
    };
    Ok(Identity { mount, mode: u32::from(s.stx_mode), node: (s.stx_rdev_major, s.stx_rdev_minor) })
}

fn from_fdinfo(fd: BorrowedFd<'_>) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).ok()?;
    text.lines().find_map(|l| l.strip_prefix("mnt_id:"))?.trim().parse().ok()
}
