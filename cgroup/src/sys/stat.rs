//! statx(2), for the identity of a mount.

use std::ffi::CString;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;

use nix::errno::Errno;

/// What a path is and on which mount it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// As in the first column of mountinfo.
    pub mount: u64,
    pub mode: u32,
    /// (major, minor) of the node itself, for device nodes.
    pub node: (u32, u32),
    /// (major, minor) of the file system.
    pub device: (u32, u32),
}

/// Identifies a file, links followed. `dir` is where a relative path starts; `path` empty means `dir` itself.
pub fn identify(dir: Option<BorrowedFd<'_>>, path: &Path) -> Result<Identity, Errno> {
    let text = CString::new(path.as_os_str().as_encoded_bytes()).map_err(|_| Errno::EINVAL)?;
    let dir = dir.map_or(libc::AT_FDCWD, |fd| fd.as_raw_fd());
    let mask = libc::STATX_BASIC_STATS | libc::STATX_MNT_ID;
    let mut out = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: `text` is NUL terminated and lives through the call, `out` has room for one statx.
    let result = unsafe { libc::statx(dir, text.as_ptr(), libc::AT_EMPTY_PATH, mask, out.as_mut_ptr()) };
    Errno::result(result)?;
    // SAFETY: all-zero bytes are a valid statx, and the kernel filled it.
    let s = unsafe { out.assume_init() };
    if s.stx_mask & libc::STATX_MNT_ID == 0 {
        // Linux before 5.8
        return Err(Errno::ENOSYS);
    }
    Ok(Identity {
        mount: s.stx_mnt_id,
        mode: u32::from(s.stx_mode),
        node: (s.stx_rdev_major, s.stx_rdev_minor),
        device: (s.stx_dev_major, s.stx_dev_minor),
    })
}
