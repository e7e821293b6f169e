//! Mounts by descriptor.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use nix::errno::Errno;
use nix::NixPath;

/// A copy of the mount (with `recursive`: of the tree) at `path`, attached nowhere. An empty path means `dir` itself.
/// Linux 5.2.
pub fn open_tree(dir: BorrowedFd<'_>, path: &CStr, recursive: bool) -> Result<OwnedFd, Errno> {
    const OPEN_TREE_CLONE: i32 = 1;
    let mut flags = OPEN_TREE_CLONE | libc::O_CLOEXEC | libc::AT_NO_AUTOMOUNT;
    if recursive {
        flags |= libc::AT_RECURSIVE;
    }
    if path.is_empty() {
        flags |= libc::AT_EMPTY_PATH;
    }
    // SAFETY: the path is terminated; a descriptor that comes back is new and ours.
    let fd =
        Errno::result(unsafe { libc::syscall(libc::SYS_open_tree, dir.as_raw_fd(), path.as_ptr(), flags) })?;
    // SAFETY: see above.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Attaches a detached mount on what `target` names. Linux 5.2.
pub fn move_mount(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<(), Errno> {
    const F_EMPTY_PATH: libc::c_uint = 0x4;
    const T_EMPTY_PATH: libc::c_uint = 0x40;
    // SAFETY: both paths are terminated (and empty).
    let r = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_raw_fd(),
            c"".as_ptr(),
            target.as_raw_fd(),
            c"".as_ptr(),
            F_EMPTY_PATH | T_EMPTY_PATH,
        )
    };
    Errno::result(r).map(drop)
}

/// Sets and clears `MOUNT_ATTR_*`, and maps ids by a user namespace if one is given. Linux 5.12.
pub fn mount_setattr(
    mount: BorrowedFd<'_>,
    recursive: bool,
    set: u64,
    clear: u64,
    user_namespace: Option<BorrowedFd<'_>>,
) -> Result<(), Errno> {
    let mut attr = libc::mount_attr { attr_set: set, attr_clr: clear, propagation: 0, userns_fd: 0 };
    if let Some(fd) = user_namespace {
        attr.attr_set |= libc::MOUNT_ATTR_IDMAP;
        attr.userns_fd = fd.as_raw_fd() as u64;
    }
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is terminated, `attr` is a valid mount_attr of the size that is given.
    let r = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &attr,
            size_of_val(&attr),
        )
    };
    Errno::result(r).map(drop)
}

/// Gives a file SELinux's label.
pub fn set_selinux_label(path: &Path, label: &str) -> Result<(), Errno> {
    let label = CString::new(label).map_err(|_| Errno::EINVAL)?;
    let value = label.as_bytes_with_nul();
    path.with_nix_path(|path| {
        // SAFETY: both strings are terminated, the value's length is that of its bytes.
        let r = unsafe {
            libc::setxattr(path.as_ptr(), c"security.selinux".as_ptr(), value.as_ptr().cast(), value.len(), 0)
        };
        Errno::result(r).map(drop)
    })?
}

/// A mount of a new file system whose options don't fit mount(2)'s one page. Linux 5.2.
pub fn new_mount(
    fstype: &CStr,
    source: &CStr,
    options: &[(&CStr, Option<&CStr>)],
    attr: u64,
) -> Result<OwnedFd, Errno> {
    const SET_FLAG: libc::c_uint = 0;
    const SET_STRING: libc::c_uint = 1;
    const CMD_CREATE: libc::c_uint = 6;
    // SAFETY: the name is terminated; a descriptor that comes back is new and ours.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_fsopen, fstype.as_ptr(), 1) })?;
    // SAFETY: see above.
    let context = unsafe { OwnedFd::from_raw_fd(fd as RawFd) };
    let config = |command: libc::c_uint, key: *const libc::c_char, value: *const libc::c_char| {
        // SAFETY: key and value are null or terminated strings that live for the call.
        let r = unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), command, key, value, 0) };
        Errno::result(r).map(drop)
    };
    config(SET_STRING, c"source".as_ptr(), source.as_ptr())?;
    for (key, value) in options {
        match value {
            Some(value) => config(SET_STRING, key.as_ptr(), value.as_ptr())?,
            None => config(SET_FLAG, key.as_ptr(), std::ptr::null())?,
        }
    }
    config(CMD_CREATE, std::ptr::null(), std::ptr::null())?;
    // SAFETY: takes three integers; a descriptor that comes back is new and ours.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), 1, attr) })?;
    // SAFETY: see above.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Whether a bind or a remount must keep these `MS_*` flags: those the file's mount has now.
pub fn present_flags(fd: BorrowedFd<'_>) -> Result<u64, Errno> {
    // SAFETY: a statfs of zeros is valid, and the kernel fills it.
    let mut stat: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open, `stat` lives for the call.
    Errno::result(unsafe { libc::fstatvfs(fd.as_raw_fd(), &mut stat) })?;
    const PAIRS: [(u64, u64); 7] = [
        (libc::ST_RDONLY, libc::MS_RDONLY),
        (libc::ST_NOSUID, libc::MS_NOSUID),
        (libc::ST_NODEV, libc::MS_NODEV),
        (libc::ST_NOEXEC, libc::MS_NOEXEC),
        (libc::ST_NOATIME, libc::MS_NOATIME),
        (libc::ST_NODIRATIME, libc::MS_NODIRATIME),
        (libc::ST_RELATIME, libc::MS_RELATIME),
    ];
    Ok(PAIRS.iter().filter(|(st, _)| stat.f_flag & st != 0).map(|(_, ms)| ms).sum())
}

/// `pivot_root(".", ".")`: the old root ends up on top of the new one, at the same place.
pub fn pivot_root_here() -> Result<(), Errno> {
    // SAFETY: both paths are terminated.
    Errno::result(unsafe { libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) }).map(drop)
}
