//! Paths inside a root that somebody hostile may have filled: resolved to descriptors, never above the root, never
//! through a magic link (CVE-2021-30465, CVE-2024-45310).

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use cgroup::inside::{self, Links};
use nix::errno::Errno;
use nix::fcntl::{openat, OFlag};
use nix::sys::stat::Mode;

pub use cgroup::inside::is_on_procfs;

const PATH: OFlag = OFlag::O_PATH.union(OFlag::O_CLOEXEC);

/// What a missing last component is made as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Make {
    Directory,
    File,
}

/// The file at `path` in `root`, as O_PATH.
pub fn resolve(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, Errno> {
    inside::resolve(root, path, Links::Inside)
}

/// The same, and no symbolic link on the way: for /proc and /sys (CVE-2019-19921).
pub fn resolve_plain(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, Errno> {
    inside::resolve(root, path, Links::Refused)
}

/// The file at `path`, made with its directories (0755) if it isn't there. A link of the image that leads nowhere, as
/// /etc/resolv.conf or /var/run often do, is followed: what it names is made, inside the root.
pub fn resolve_or_make(root: BorrowedFd<'_>, path: &Path, make: Make) -> Result<OwnedFd, Errno> {
    match resolve(root, path) {
        Err(Errno::ENOENT) => {}
        other => return other,
    }
    let (mut here, missing) = inside::resolve_present(root, path)?;
    for (i, name) in missing.iter().enumerate() {
        let make = if i + 1 == missing.len() { make } else { Make::Directory };
        make_at(here.as_fd(), name, make)?;
        here = openat(&here, name.as_os_str(), PATH | OFlag::O_NOFOLLOW, Mode::empty())?;
        // Nothing was there a moment ago: somebody races with us.
        if nix::sys::stat::fstat(&here)?.st_mode & libc::S_IFMT == libc::S_IFLNK {
            return Err(Errno::ELOOP);
        }
    }
    Ok(here)
}

fn make_at(parent: BorrowedFd<'_>, name: &OsStr, make: Make) -> Result<(), Errno> {
    let made = match make {
        Make::Directory => nix::sys::stat::mkdirat(parent, name, Mode::from_bits_truncate(0o755)),
        Make::File => {
            let flags =
                OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            openat(parent, name, flags, Mode::from_bits_truncate(0o644)).map(drop)
        }
    };
    match made {
        // Somebody else was faster; opening it tells what it is.
        Err(Errno::EEXIST) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str) -> Tree {
            let path = std::env::temp_dir().join(format!("hydra-path-{name}-{}", std::process::id()));
            std::fs::create_dir_all(path.join("root/dir")).unwrap();
            std::fs::write(path.join("outside"), "x").unwrap();
            Tree(path)
        }

        fn root(&self) -> OwnedFd {
            std::fs::File::open(self.0.join("root")).unwrap().into()
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn makes_inside_only() {
        let tree = Tree::new("make");
        symlink("../../made", tree.0.join("root/up")).unwrap();
        symlink(tree.0.join("made"), tree.0.join("root/host")).unwrap();
        symlink("loop", tree.0.join("root/loop")).unwrap();
        let root = tree.root();
        resolve_or_make(root.as_fd(), Path::new("/a/b/file"), Make::File).unwrap();
        assert!(tree.0.join("root/a/b/file").is_file());
        resolve_or_make(root.as_fd(), Path::new("/up/x"), Make::Directory).unwrap();
        assert!(tree.0.join("root/made/x").is_dir());
        resolve_or_make(root.as_fd(), Path::new("/host"), Make::File).unwrap();
        let inside = tree.0.join("made");
        assert!(tree.0.join("root").join(inside.strip_prefix("/").unwrap()).is_file());
        let looped = resolve_or_make(root.as_fd(), Path::new("/loop/x"), Make::Directory);
        assert_eq!(looped.unwrap_err(), Errno::ELOOP);
        assert!(!tree.0.join("made").exists() && !tree.0.parent().unwrap().join("made").exists());
    }
}
