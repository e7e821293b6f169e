//! Files of the host's procfs, by a descriptor of it: never those of the container's own, which may be made to lead
//! elsewhere (CVE-2025-52881).

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use crate::error::{Context, Error, Kind, Result};
use crate::sys::attrs as sys;

/// The host's procfs, to be opened before anything of the container's is entered. It must be the root of a procfs:
/// something mounted over /proc is not.
pub fn host() -> Result<OwnedFd> {
    const ROOT_INODE: u64 = 1;
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let fd = nix::fcntl::open("/proc", flags, Mode::empty()).context("open /proc")?;
    let is_root = nix::sys::stat::fstat(&fd).context("stat /proc")?.st_ino == ROOT_INODE;
    if !is_root || !sys::is_procfs(fd.as_fd()).context("statfs /proc")? {
        return Err(Error::new(Kind::System, "/proc is not a procfs: mount one there"));
    }
    Ok(fd)
}

fn open_as(procfs: BorrowedFd<'_>, path: &str, flags: i32) -> Result<File> {
    let fd = sys::open_proc(procfs, path, flags).with_context(|| format!("open /proc/{path}"))?;
    if !sys::is_procfs(fd.as_fd()).with_context(|| format!("statfs /proc/{path}"))? {
        return Err(Error::new(Kind::System, format!("/proc/{path} is not on a procfs")));
    }
    Ok(File::from(fd))
}

/// Opens `path`, relative to the root of a procfs, for writing. What was opened must be on a procfs too
/// (CVE-2019-16884).
pub fn open(procfs: BorrowedFd<'_>, path: &str) -> Result<File> {
    open_as(procfs, path, libc::O_WRONLY)
}

/// Writes `value` to `path`.
pub fn write(procfs: BorrowedFd<'_>, path: &str, value: &[u8]) -> Result<()> {
    open(procfs, path)?.write_all(value).with_context(|| format!("write /proc/{path}"))
}

/// What `path` says.
pub fn read(procfs: BorrowedFd<'_>, path: &str) -> Result<String> {
    let mut text = String::new();
    let mut file = open_as(procfs, path, libc::O_RDONLY)?;
    file.read_to_string(&mut text).with_context(|| format!("read /proc/{path}"))?;
    Ok(text)
}

/// The names in the directory `path`, but for `.` and `..`.
pub fn list(procfs: BorrowedFd<'_>, path: &str) -> Result<Vec<String>> {
    let file = open_as(procfs, path, libc::O_RDONLY | libc::O_DIRECTORY)?;
    let mut dir = nix::dir::Dir::from_fd(file.into()).with_context(|| format!("list /proc/{path}"))?;
    let entries = dir.iter().collect::<Result<Vec<_>, _>>().with_context(|| format!("list /proc/{path}"))?;
    let names = entries.iter().map(|entry| entry.file_name().to_string_lossy().into_owned());
    Ok(names.filter(|name| name != "." && name != "..").collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_lists_and_writes() {
        let host = host().unwrap();
        assert!(read(host.as_fd(), "self/status").unwrap().contains("Pid:"));
        assert!(list(host.as_fd(), "thread-self/fd").unwrap().contains(&"0".to_string()));
        write(host.as_fd(), "thread-self/comm", b"renamed").unwrap();
        assert_eq!(read(host.as_fd(), "thread-self/comm").unwrap().trim(), "renamed");
    }

    #[test]
    fn nothing_leads_out() {
        let host = host().unwrap();
        for path in ["../etc/passwd", "/etc/passwd", "self/root/etc/passwd", "self/cwd/Cargo.toml"] {
            assert!(read(host.as_fd(), path).is_err(), "{path}");
        }
    }

    /// A directory that only looks like a procfs (CVE-2019-16884: a volume over /proc).
    #[test]
    fn no_other_file_system_will_do() {
        let dir = std::env::temp_dir().join(format!("hydra-fake-proc-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("self")).unwrap();
        std::fs::write(dir.join("self/oom_score_adj"), "").unwrap();
        let fake = OwnedFd::from(File::open(&dir).unwrap());
        let text = write(fake.as_fd(), "self/oom_score_adj", b"1").unwrap_err().to_string();
        assert_eq!(
            std::fs::read_to_string(dir.join("self/oom_score_adj")).unwrap(),
            "",
            "nothing was written"
        );
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!(text, "/proc/self/oom_score_adj is not on a procfs");
    }
}
