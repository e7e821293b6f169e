//! Keeps the runtime's own binary out of a container's reach (CVE-2019-5736).
//!
//! A process of ours inside a container can be found there as `/proc/PID/exe`, and that link opens the very file,
//! whatever the mount namespace. So before anything else we execute ourselves anew from a copy of the mount that is
//! read-only and attached nowhere (two system calls and an exec): opened through `/proc/PID/exe`, it answers EROFS
//! to a writer. Where that is not allowed (rootless, Linux before 5.12) it is a sealed copy in memory.

use std::ffi::{CString, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SealFlag};
use nix::sys::memfd::MFdFlags;

use crate::error::{Context, Error, Kind, Result};
use crate::sys::mount::{mount_setattr, open_tree};
use crate::sys::process::{fexecve, StringArray};

const SELF: &str = "/proc/self/exe";

/// Returns once this process runs from a file that nobody can change through it; the first call executes the
/// program anew, with the same arguments and environment.
pub fn ensure() -> Result<()> {
    if is_sealed()? {
        return Ok(());
    }
    let file = match read_only_mount() {
        Ok(fd) => fd,
        Err(_) => sealed_copy().context("copying the runtime's own binary into memory")?,
    };
    let args = std::env::args_os().map(into_c_string).collect::<Result<Vec<_>>>()?;
    let env = std::env::vars_os()
        .map(|(mut name, value)| {
            name.push("=");
            name.push(value);
            into_c_string(name)
        })
        .collect::<Result<Vec<_>>>()?;
    let errno = fexecve(file.as_fd(), &StringArray::new(args), &StringArray::new(env));
    Err(Error::from(errno).context("executing a protected copy of the runtime's own binary"))
}

/// Linux 5.12, and CAP_SYS_ADMIN over the mount namespace.
fn read_only_mount() -> Result<OwnedFd, Errno> {
    let exe = CString::new(SELF).map_err(|_| Errno::EINVAL)?;
    let mount = open_tree(nix::fcntl::AT_FDCWD, &exe, false)?;
    let attributes = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID;
    mount_setattr(mount.as_fd(), false, attributes, 0, None)?;
    Ok(mount)
}

/// Facts, not a flag that a caller could fake: the mount is read-only, or the file is sealed against writing.
fn is_sealed() -> Result<bool> {
    if on_read_only_mount()? {
        return Ok(true);
    }
    let exe = nix::fcntl::open(SELF, OFlag::O_RDONLY | OFlag::O_CLOEXEC, nix::sys::stat::Mode::empty())
        .context("opening /proc/self/exe")?;
    let seals = nix::fcntl::fcntl(&exe, FcntlArg::F_GET_SEALS).unwrap_or(0);
    Ok(SealFlag::from_bits_truncate(seals).contains(SealFlag::F_SEAL_WRITE))
}

fn on_read_only_mount() -> Result<bool> {
    let stat = nix::sys::statvfs::statvfs(SELF).context("looking at /proc/self/exe: is /proc mounted?")?;
    Ok(stat.flags().contains(nix::sys::statvfs::FsFlags::ST_RDONLY))
}

fn sealed_copy() -> Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    // vm.memfd_noexec may demand that the intent is said; kernels before 6.3 don't know the flag.
    let memory = nix::sys::memfd::memfd_create("runtime", flags | MFdFlags::from_bits_retain(libc::MFD_EXEC))
        .or_else(|_| nix::sys::memfd::memfd_create("runtime", flags))?;
    let exe = std::fs::File::open(SELF)?;
    let mut left = exe.metadata()?.len() as usize;
    while left > 0 {
        match nix::sys::sendfile::sendfile(&memory, &exe, None, left) {
            Ok(0) => return Err(Error::new(Kind::System, "the binary became shorter while it was read")),
            Ok(n) => left -= n,
            Err(Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    let seals =
        SealFlag::F_SEAL_SEAL | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE;
    // Busy while the kernel still has a page in its hands (mm/memfd.c waits 150 ms for that), on a host with much to do.
    let mut tries = 0;
    while let Err(e) = nix::fcntl::fcntl(&memory, FcntlArg::F_ADD_SEALS(seals)) {
        tries += 1;
        if e != Errno::EBUSY || tries == 20 {
            return Err(e).context("sealing the copy");
        }
    }
    Ok(memory)
}

fn into_c_string(text: OsString) -> Result<CString> {
    CString::new(text.into_vec()).map_err(|_| Error::invalid("an argument holds a NUL byte"))
}
