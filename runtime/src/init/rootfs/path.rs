//! Paths inside a root that somebody hostile may have filled: resolved to descriptors, never above the root, never
//! through a magic link (CVE-2021-30465, CVE-2024-45310).

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{openat, openat2, OFlag, OpenHow, ResolveFlag};
use nix::sys::stat::Mode;

/// As many as the kernel follows.
const MAX_LINKS: u32 = 40;

const PATH: OFlag = OFlag::O_PATH.union(OFlag::O_CLOEXEC);

/// What a missing last component is made as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Make {
    Directory,
    File,
}

/// The file at `path` in `root`, as O_PATH.
pub fn resolve(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, Errno> {
    open_in(root, path, PATH, ResolveFlag::empty())
}

/// The same, and no symbolic link on the way: for /proc and /sys (CVE-2019-19921).
pub fn resolve_plain(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, Errno> {
    open_in(root, path, PATH, ResolveFlag::RESOLVE_NO_SYMLINKS)
}

fn open_in(root: BorrowedFd<'_>, path: &Path, flags: OFlag, more: ResolveFlag) -> Result<OwnedFd, Errno> {
    let relative = relative(path);
    let how = OpenHow::new()
        .flags(flags)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS | more);
    loop {
        match openat2(root, &relative, how) {
            // A rename raced with `..`: the kernel asks to be called again.
            Err(Errno::EAGAIN) => {}
            Err(Errno::ENOSYS) => {
                return walk(root, &relative, more.contains(ResolveFlag::RESOLVE_NO_SYMLINKS))
            }
            other => return other,
        }
    }
}

fn relative(path: &Path) -> PathBuf {
    let relative: PathBuf = path.components().filter(|c| !matches!(c, Component::RootDir)).collect();
    if relative.as_os_str().is_empty() {
        return PathBuf::from(".");
    }
    relative
}

/// Before Linux 5.6: component by component, links by hand. A stack of open directories makes `..` safe: it goes to
/// where we came from, wherever the directory may have been moved meanwhile.
fn walk(root: BorrowedFd<'_>, path: &Path, no_links: bool) -> Result<OwnedFd, Errno> {
    let mut stack = vec![root.try_clone_to_owned().map_err(|_| Errno::EMFILE)?];
    let mut todo: Vec<OsString> = parts(path);
    let mut links = 0;
    while let Some(part) = todo.pop() {
        if part == ".." {
            if stack.len() > 1 {
                stack.pop();
            }
            continue;
        }
        let here = stack.last().ok_or(Errno::EINVAL)?;
        let next = openat(here, part.as_os_str(), PATH | OFlag::O_NOFOLLOW, Mode::empty())?;
        let stat = nix::sys::stat::fstat(&next)?;
        if stat.st_mode & libc::S_IFMT != libc::S_IFLNK {
            stack.push(next);
            continue;
        }
        links += 1;
        if links > MAX_LINKS || no_links || is_on_procfs(next.as_fd()) {
            return Err(Errno::ELOOP);
        }
        let target = nix::fcntl::readlinkat(&next, "")?;
        if target.as_bytes().starts_with(b"/") {
            stack.truncate(1);
        }
        todo.extend(parts(Path::new(&target)));
    }
    stack.pop().ok_or(Errno::EINVAL)
}

/// The components, last first.
fn parts(path: &Path) -> Vec<OsString> {
    path.components()
        .rev()
        .filter(|c| matches!(c, Component::Normal(_) | Component::ParentDir))
        .map(|c| c.as_os_str().to_os_string())
        .collect()
}

pub fn is_on_procfs(fd: BorrowedFd<'_>) -> bool {
    nix::sys::statfs::fstatfs(fd).is_ok_and(|s| s.filesystem_type() == nix::sys::statfs::PROC_SUPER_MAGIC)
}

/// The file at `path`, made with its directories (0755) if it isn't there.
pub fn resolve_or_make(root: BorrowedFd<'_>, path: &Path, make: Make) -> Result<OwnedFd, Errno> {
    match resolve(root, path) {
        Err(Errno::ENOENT) => {}
        other => return other,
    }
    let clean = relative(path);
    let (Some(name), parent) = (clean.file_name(), clean.parent().unwrap_or(Path::new("."))) else {
        return Err(Errno::ENOENT);
    };
    let parent = resolve_or_make(root, parent, Make::Directory)?;
    make_at(parent.as_fd(), name, make)?;
    match openat(&parent, name, PATH | OFlag::O_NOFOLLOW, Mode::empty()) {
        Ok(fd) if nix::sys::stat::fstat(&fd)?.st_mode & libc::S_IFMT == libc::S_IFLNK => Err(Errno::ELOOP),
        other => other,
    }
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
        // Somebody else was faster, or it is a link that leads nowhere; opening it tells.
        Err(Errno::EEXIST) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

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

    fn inode(fd: &OwnedFd) -> u64 {
        nix::sys::stat::fstat(fd).unwrap().st_ino
    }

    #[test]
    fn never_leaves_the_root() {
        let tree = Tree::new("leave");
        let root = tree.root();
        symlink("../../outside", tree.0.join("root/up")).unwrap();
        symlink("/dir", tree.0.join("root/abs")).unwrap();
        for find in [resolve, |r: BorrowedFd<'_>, p: &Path| walk(r, &relative(p), false)] {
            assert_eq!(find(root.as_fd(), Path::new("/up")).unwrap_err(), Errno::ENOENT);
            assert_eq!(find(root.as_fd(), Path::new("../outside")).unwrap_err(), Errno::ENOENT);
            let dir = find(root.as_fd(), Path::new("/dir")).unwrap();
            assert_eq!(inode(&find(root.as_fd(), Path::new("abs")).unwrap()), inode(&dir));
            assert_eq!(inode(&find(root.as_fd(), Path::new("dir/../../..")).unwrap()), inode(&root));
        }
    }

    #[test]
    fn plain_refuses_links() {
        let tree = Tree::new("plain");
        symlink("dir", tree.0.join("root/proc")).unwrap();
        let root = tree.root();
        assert_eq!(resolve_plain(root.as_fd(), Path::new("/proc")).unwrap_err(), Errno::ELOOP);
        assert_eq!(walk(root.as_fd(), Path::new("proc"), true).unwrap_err(), Errno::ELOOP);
    }

    #[test]
    fn makes_inside_only() {
        let tree = Tree::new("make");
        symlink("../../made", tree.0.join("root/up")).unwrap();
        let root = tree.root();
        resolve_or_make(root.as_fd(), Path::new("/a/b/file"), Make::File).unwrap();
        assert!(tree.0.join("root/a/b/file").is_file());
        assert!(resolve_or_make(root.as_fd(), Path::new("/up/x"), Make::Directory).is_err());
        assert!(!tree.0.join("made").exists() && !tree.0.parent().unwrap().join("made").exists());
    }
}
