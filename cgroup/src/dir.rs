//! A directory of a cgroup hierarchy: its files are read and written relative to one descriptor.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::{openat, OFlag};
use nix::sys::stat::Mode;

use crate::error::{Context, Result};

/// An open cgroup directory.
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
    path: PathBuf,
}

impl Dir {
    /// Opens an existing directory.
    pub fn open(path: impl Into<PathBuf>) -> Result<Dir> {
        let path = path.into();
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let fd = nix::fcntl::open(&path, flags, Mode::empty())
            .with_context(|| format!("opening cgroup {}", path.display()))?;
        Ok(Dir { fd, path })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens one of its files.
    pub fn open_file(&self, file: &str, flags: OFlag) -> Result<OwnedFd, nix::Error> {
        openat(&self.fd, file, flags | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW, Mode::empty())
    }

    /// The whole text of a file.
    pub fn read(&self, file: &str) -> Result<String> {
        let mut text = String::new();
        self.open_file(file, OFlag::O_RDONLY)
            .map_err(std::io::Error::from)
            .and_then(|fd| File::from(fd).read_to_string(&mut text))
            .with_context(|| format!("reading {}/{file}", self.path.display()))?;
        Ok(text)
    }

    /// The text of a file, `None` if there is none such or the kernel can't say.
    pub fn peek(&self, file: &str) -> Option<String> {
        self.read(file).ok()
    }

    pub fn has(&self, file: &str) -> bool {
        use nix::sys::stat::fstatat;
        fstatat(&self.fd, file, nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW).is_ok()
    }

    /// Writes a value in one system call. An empty value is written as a newline: a write of no bytes
    /// does not reach the kernel's handler.
    pub fn write(&self, file: &str, value: &str) -> Result<()> {
        self.write_with(file, value, OFlag::O_WRONLY)
    }

    /// As `write`, cutting what a file of an ordinary file system held before (the kernel's files ignore it).
    pub fn overwrite(&self, file: &str, value: &str) -> Result<()> {
        self.write_with(file, value, OFlag::O_WRONLY | OFlag::O_TRUNC)
    }

    fn write_with(&self, file: &str, value: &str, flags: OFlag) -> Result<()> {
        let bytes = if value.is_empty() { "\n" } else { value };
        self.open_file(file, flags)
            .map_err(std::io::Error::from)
            .and_then(|fd| File::from(fd).write_all(bytes.as_bytes()))
            .with_context(|| format!("writing \"{value}\" to {}/{file}", self.path.display()))
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
