//! Writes through a descriptor of the host's procfs, which is never the container's own (CVE-2025-52881).

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};

use crate::error::{Context, Error, Kind, Result};
use crate::sys::attrs as sys;

/// Opens `path`, relative to the root of a procfs, for writing. What was opened must be on a procfs too
/// (CVE-2019-16884).
pub fn open(procfs: BorrowedFd<'_>, path: &str) -> Result<File> {
    let fd = sys::open_proc(procfs, path, libc::O_WRONLY).with_context(|| format!("open /proc/{path}"))?;
    if !sys::is_procfs(fd.as_fd()).with_context(|| format!("statfs /proc/{path}"))? {
        return Err(Error::new(Kind::System, format!("/proc/{path} is not on a procfs")));
    }
    Ok(File::from(fd))
}

/// Writes `value` to `path`.
pub fn write(procfs: BorrowedFd<'_>, path: &str, value: &[u8]) -> Result<()> {
    open(procfs, path)?.write_all(value).with_context(|| format!("write /proc/{path}"))
}
