//! Walking down from a cgroup. A container that may make cgroups decides how deep they lie and what they are called: deeper than
//! a path can say, and than a stack or a table of descriptors has room for.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{openat, AtFlags, OFlag, AT_FDCWD};
use nix::sys::stat::{fstatat, Mode};

const DIRECTORY: OFlag = OFlag::O_DIRECTORY.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// A place in a tree: a cgroup, by its name in an open directory. One descriptor is held, whatever the depth: cgroups don't
/// move, so that `..` is where the walk came from.
pub(crate) struct Walk {
    /// Absent at the top, whose name is a path.
    dir: Option<OwnedFd>,
    /// What is still to be passed, for each level from the top; the last of a level is next.
    levels: Vec<Vec<CString>>,
}

/// What lies below a cgroup.
pub(crate) struct Below {
    dir: OwnedFd,
    names: Vec<CString>,
}

impl Walk {
    /// A walk that begins, and in the end arrives, at the cgroup with this path.
    pub fn new(path: &Path) -> Result<Walk, Errno> {
        let top = CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
        Ok(Walk { dir: None, levels: vec![vec![top]] })
    }

    /// The cgroup that is next: the same again until it is passed, or what is below it entered. `None`: all are passed.
    pub fn here(&mut self) -> Result<Option<(BorrowedFd<'_>, CString)>, Errno> {
        while self.levels.last().is_some_and(Vec::is_empty) {
            self.levels.pop();
            self.dir = match &self.dir {
                Some(dir) if self.levels.len() > 1 => {
                    Some(openat(dir, "..", DIRECTORY | OFlag::O_PATH, Mode::empty())?)
                }
                _ => None,
            };
        }
        Ok(self.levels.last().and_then(|level| level.last()).map(|name| (self.at(), name.clone())))
    }

    fn at(&self) -> BorrowedFd<'_> {
        self.dir.as_ref().map_or(AT_FDCWD, AsFd::as_fd)
    }

    /// Done with the one that is next.
    pub fn pass(&mut self) {
        self.levels.last_mut().map(Vec::pop);
    }

    /// What is below the one that is next. `None` if nothing is: its link count says so, at the price of one system call.
    pub fn below(&mut self) -> Result<Option<Below>, Errno> {
        let Some((at, name)) = self.here()? else { return Ok(None) };
        let opened = match fstatat(at, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) if stat.st_nlink == 2 => return Ok(None),
            Ok(_) => openat(at, name.as_c_str(), DIRECTORY, Mode::empty()),
            Err(e) => Err(e),
        };
        match opened.and_then(Below::list) {
            Ok(below) => Ok((!below.names.is_empty()).then_some(below)),
            // It went meanwhile.
            Err(Errno::ENOENT) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Goes down: these are next, then what was next before.
    pub fn enter(&mut self, below: Below) {
        self.dir = Some(below.dir);
        self.levels.push(below.names);
    }
}

impl Below {
    fn list(dir: OwnedFd) -> Result<Below, Errno> {
        let mut names = Vec::new();
        let mut listing = Dir::from_fd(dir.try_clone().map_err(|_| Errno::EMFILE)?)?;
        for entry in listing.iter() {
            let entry = entry?;
            let name = entry.file_name();
            if entry.file_type() == Some(Type::Directory) && name != c"." && name != c".." {
                names.push(name.to_owned());
            }
        }
        Ok(Below { dir, names })
    }
}
