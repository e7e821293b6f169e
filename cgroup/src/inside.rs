//! Paths inside a root that somebody hostile may have filled: resolved to a descriptor, never above the root, never
//! through a magic link (CVE-2021-30465).

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{openat, openat2, OFlag, OpenHow, ResolveFlag};
use nix::sys::stat::Mode;

/// As many as the kernel follows.
const MAX_LINKS: u32 = 40;

const PATH: OFlag = OFlag::O_PATH.union(OFlag::O_CLOEXEC);

/// What becomes of symbolic links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// They are followed as if the root were the root directory.
    Inside,
    /// None may be on the way.
    Refused,
}

/// The file at `path` in `root`, as O_PATH.
pub fn resolve(root: BorrowedFd<'_>, path: &Path, links: Links) -> Result<OwnedFd, Errno> {
    let relative = relative(path);
    let refused = match links {
        Links::Inside => ResolveFlag::empty(),
        Links::Refused => ResolveFlag::RESOLVE_NO_SYMLINKS,
    };
    let how = OpenHow::new()
        .flags(PATH)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS | refused);
    loop {
        match openat2(root, &relative, how) {
            // A rename raced with `..`: the kernel asks to be called again.
            Err(Errno::EAGAIN) => {}
            Err(Errno::ENOSYS) => return walk(root, &relative, links, None),
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

/// As far as `path` leads: the last directory that is there, as O_PATH, and the names that are missing below it, first to
/// last and none of them `..`. Links are followed as [`Links::Inside`] says, those that lead nowhere too: what they name is
/// what is missing.
///
/// # Errors
/// As those of [`resolve`], but for ENOENT.
pub fn resolve_present(root: BorrowedFd<'_>, path: &Path) -> Result<(OwnedFd, Vec<OsString>), Errno> {
    let mut missing = Vec::new();
    let fd = walk(root, &relative(path), Links::Inside, Some(&mut missing))?;
    Ok((fd, missing))
}

/// Component by component, links by hand: before Linux 5.6, and for a path that is to be made. A stack of open
/// directories makes `..` safe: it goes to where we came from, wherever the directory may have been moved meanwhile.
/// Names that are `missing` are collected, if that is wanted.
fn walk(
    root: BorrowedFd<'_>,
    path: &Path,
    links: Links,
    mut missing: Option<&mut Vec<OsString>>,
) -> Result<OwnedFd, Errno> {
    let mut stack = vec![root.try_clone_to_owned().map_err(|_| Errno::EMFILE)?];
    let mut todo: Vec<OsString> = parts(path);
    let mut followed = 0;
    while let Some(part) = todo.pop() {
        let below_missing = missing.as_mut().filter(|m| !m.is_empty());
        if part == ".." {
            match below_missing {
                Some(missing) => drop(missing.pop()),
                None if stack.len() > 1 => drop(stack.pop()),
                None => {}
            }
            continue;
        }
        if let Some(missing) = below_missing {
            missing.push(part);
            continue;
        }
        let here = stack.last().ok_or(Errno::EINVAL)?;
        let next = match openat(here, part.as_os_str(), PATH | OFlag::O_NOFOLLOW, Mode::empty()) {
            Err(Errno::ENOENT) => {
                missing.as_mut().ok_or(Errno::ENOENT)?.push(part);
                continue;
            }
            other => other?,
        };
        let stat = nix::sys::stat::fstat(&next)?;
        if stat.st_mode & libc::S_IFMT != libc::S_IFLNK {
            stack.push(next);
            continue;
        }
        followed += 1;
        if followed > MAX_LINKS || links == Links::Refused || is_on_procfs(next.as_fd()) {
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

/// Whether an open file lies on a procfs.
pub fn is_on_procfs(fd: BorrowedFd<'_>) -> bool {
    nix::sys::statfs::fstatfs(fd).is_ok_and(|s| s.filesystem_type() == nix::sys::statfs::PROC_SUPER_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str) -> Tree {
            let path = std::env::temp_dir().join(format!("cgroup-inside-{name}-{}", std::process::id()));
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
        for find in [resolve, |r: BorrowedFd<'_>, p: &Path, l| walk(r, &relative(p), l, None)] {
            let find = |path: &str| find(root.as_fd(), Path::new(path), Links::Inside);
            assert_eq!(find("/up").unwrap_err(), Errno::ENOENT);
            assert_eq!(find("../outside").unwrap_err(), Errno::ENOENT);
            let dir = find("/dir").unwrap();
            assert_eq!(inode(&find("abs").unwrap()), inode(&dir));
            assert_eq!(inode(&find("dir/../../..").unwrap()), inode(&root));
        }
    }

    #[test]
    fn tells_what_is_missing() {
        let tree = Tree::new("missing");
        let root = tree.root();
        for (link, target) in [
            ("run", "/var/run"),
            ("rel", "dir/new"),
            ("up", "../../../x/../y"),
            ("dir/back", "../rel/z"),
            ("loop", "loop"),
            ("a", "b"),
            ("b", "/a"),
        ] {
            symlink(target, tree.0.join("root").join(link)).unwrap();
        }
        let top = inode(&root);
        let dir = inode(&resolve(root.as_fd(), Path::new("dir"), Links::Inside).unwrap());
        let find = |path: &str| {
            let (fd, missing) = resolve_present(root.as_fd(), Path::new(path))?;
            let names: Vec<_> = missing.iter().map(|m| m.to_str().unwrap()).collect();
            Ok((inode(&fd), names.join("/")))
        };
        assert_eq!(find("/dir"), Ok((dir, "".into())));
        assert_eq!(find("/dir/a/b"), Ok((dir, "a/b".into())));
        assert_eq!(find("/run/x"), Ok((top, "var/run/x".into())));
        assert_eq!(find("/rel"), Ok((dir, "new".into())));
        assert_eq!(find("/rel/../../dir/k"), Ok((dir, "k".into())), "as if it were there");
        assert_eq!(find("/up"), Ok((top, "y".into())), "never above the root");
        assert_eq!(find("/dir/back"), Ok((dir, "new/z".into())));
        assert_eq!(find("/loop/x"), Err(Errno::ELOOP));
        assert_eq!(find("/a"), Err(Errno::ELOOP));
    }

    #[test]
    fn links_can_be_refused() {
        let tree = Tree::new("plain");
        symlink("dir", tree.0.join("root/proc")).unwrap();
        let root = tree.root();
        assert_eq!(resolve(root.as_fd(), Path::new("/proc"), Links::Refused).unwrap_err(), Errno::ELOOP);
        assert_eq!(walk(root.as_fd(), Path::new("proc"), Links::Refused, None).unwrap_err(), Errno::ELOOP);
    }
}
