//! Device nodes and the links of /dev.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{openat, AtFlags, OFlag, AT_FDCWD};
use nix::mount::{mount, MsFlags};
use nix::sys::stat::{fchmodat, fstat, makedev, mknodat, FchmodatFlags, FileStat, Mode, SFlag};

use super::path::{resolve_or_make, Make};
use super::{via, NONE};
use crate::error::{Context, Result};
use crate::invalid;
use crate::plan::rootfs::Node;

const LINKS: [(&str, &str); 4] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// Makes the nodes and links. `/dev` is resolved once, inside the root (CVE-2026-41579).
pub fn make(root: BorrowedFd<'_>, nodes: &[Node], bind: bool) -> Result<()> {
    let dev = resolve_or_make(root, Path::new("/dev"), Make::Directory).context("making /dev")?;
    for node in nodes {
        make_node(root, dev.as_fd(), node, bind)
            .with_context(|| format!("error creating device node {:?}", node.path))?;
    }
    for (name, target) in LINKS {
        link(dev.as_fd(), name, target)?;
    }
    if Path::new("/proc/kcore").exists() {
        link(dev.as_fd(), "core", "/proc/kcore")?;
    }
    link_ptmx(dev.as_fd())
}

fn link(dev: BorrowedFd<'_>, name: &str, target: &str) -> Result<()> {
    match nix::unistd::symlinkat(target, dev, name) {
        Err(Errno::EEXIST) => Ok(()),
        other => other.with_context(|| format!("making the link /dev/{name}")),
    }
}

/// The container's own devpts, whatever the image has there.
fn link_ptmx(dev: BorrowedFd<'_>) -> Result<()> {
    match nix::unistd::unlinkat(dev, "ptmx", nix::unistd::UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => {}
        // Bound from the host or a directory: it stays.
        Err(Errno::EBUSY | Errno::EISDIR) => return Ok(()),
        Err(e) => return Err(e).context("replacing /dev/ptmx"),
    }
    link(dev, "ptmx", "pts/ptmx")
}

fn make_node(root: BorrowedFd<'_>, dev: BorrowedFd<'_>, node: &Node, bind: bool) -> Result<()> {
    let path = Path::new(&node.path);
    let (Some(name), Some(parent)) = (path.file_name(), path.parent()) else {
        invalid!("it is not a path");
    };
    let other;
    let parent = if parent == Path::new("/dev") {
        dev
    } else {
        other = resolve_or_make(root, parent, Make::Directory)?;
        other.as_fd()
    };
    if bind {
        return bind_node(root, path);
    }
    let kind = SFlag::from_bits_truncate(node.kind);
    let device = if node.kind == libc::S_IFIFO { 0 } else { makedev(node.major, node.minor) };
    let existed = match mknodat(parent, name, kind, Mode::from_bits_truncate(node.mode), device) {
        Ok(()) => false,
        Err(Errno::EPERM) => return bind_node(root, path),
        Err(Errno::EEXIST) => true,
        Err(e) => return Err(e.into()),
    };
    // By descriptor from here on: somebody who shares the folder may put another file in the name's place.
    let made = openat(parent, name, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?;
    let found = fstat(&made)?;
    if found.st_mode & libc::S_IFMT != node.kind || (device != 0 && found.st_rdev != device) {
        invalid!("the root file system has another file there");
    }
    match own(&made, &found, node) {
        // A read-only image's own node.
        Err(Errno::EROFS) if existed => Ok(()),
        other => Ok(other?),
    }
}

fn own(made: &OwnedFd, found: &FileStat, node: &Node) -> Result<(), Errno> {
    if (node.uid, node.gid) != (0, 0) {
        let owner = (Some(node.uid.into()), Some(node.gid.into()));
        nix::unistd::fchownat(made, "", owner.0, owner.1, AtFlags::AT_EMPTY_PATH)?;
    }
    if found.st_mode & 0o7777 != node.mode {
        let mode = Mode::from_bits_truncate(node.mode);
        fchmodat(AT_FDCWD, &via(made.as_fd()), mode, FchmodatFlags::FollowSymlink)?;
    }
    Ok(())
}

/// Where nodes can't be made, the host's of the same path.
fn bind_node(root: BorrowedFd<'_>, path: &Path) -> Result<()> {
    let target = resolve_or_make(root, path, Make::File)?;
    mount(Some(path), &via(target.as_fd()), NONE, MsFlags::MS_BIND, NONE)
        .with_context(|| format!("binding the host's {}", path.display()))
}

/// A place to bind the console on.
pub fn make_console(root: BorrowedFd<'_>) -> Result<()> {
    resolve_or_make(root, Path::new("/dev/console"), Make::File)?;
    Ok(())
}

/// The host's /dev/null, verified: the container's own could be anything (CVE-2025-31133).
pub fn host_null() -> Result<OwnedFd> {
    let fd =
        nix::fcntl::open("/dev/null", OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())
            .context("opening the host's /dev/null")?;
    let stat = fstat(&fd).context("looking at the host's /dev/null")?;
    if stat.st_mode & libc::S_IFMT != libc::S_IFCHR || stat.st_rdev != makedev(1, 3) {
        invalid!("the host's /dev/null is not the null device");
    }
    Ok(fd)
}
