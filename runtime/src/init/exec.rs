//! Finding and becoming the program.

use std::ffi::{CString, OsStr};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag};
use nix::sys::stat::Mode;

use super::start_error;
use crate::error::{strerror, Error, Result};
use crate::plan::Process;
use crate::sys::process::{execve, StringArray};

/// What `execve` will be given.
pub struct Program<'a> {
    process: &'a Process,
    path: CString,
    args: StringArray,
    env: StringArray,
}

/// How much of /etc/passwd is looked at; the file is the image's.
const PASSWD_LIMIT: u64 = 1 << 20;

/// The process's, with the home of its user. Asked for in the container's root.
pub fn environment(process: &Process) -> Vec<CString> {
    let mut env = process.env.clone();
    if process.variable("HOME").is_none_or(<[u8]>::is_empty) {
        env.retain(|e| !e.to_bytes().starts_with(b"HOME="));
        env.push(home(process.uid));
    }
    env
}

impl<'a> Program<'a> {
    pub fn new(process: &'a Process, env: Vec<CString>) -> Program<'a> {
        let args = StringArray::new(process.args.clone());
        Program { process, path: CString::default(), args, env: StringArray::new(env) }
    }

    /// Looks the program up now, as the container's user: `create` must fail when there is none.
    pub fn find(&mut self) -> Result<()> {
        let name = self.process.args[0].to_bytes();
        let shown = String::from_utf8_lossy(name).into_owned();
        if name.contains(&b'/') {
            return match executable(name) {
                Ok(()) => {
                    self.path = CString::new(name).unwrap_or_default();
                    Ok(())
                }
                // Docker's command before 23 looks for the second, as runc before 1.2 has it, to end with 126.
                Err(Errno::EISDIR) => {
                    Err(start_error(format!("exec: {shown:?}: is a directory: permission denied")))
                }
                Err(Errno::EACCES) => Err(start_error(format!("exec: {shown:?}: permission denied"))),
                Err(e) => Err(start_error(format!("exec: {shown:?}: stat {shown}: {}", strerror(e as i32)))),
            };
        }
        // As Go's LookPath, whose words callers look for: no PATH has no elements, what can't be executed is passed over,
        // and what a relative element leads to is nobody's wish: whoever may write there would choose the program.
        let path = self.process.variable("PATH").filter(|path| !path.is_empty());
        for dir in path.into_iter().flat_map(|path| path.split(|&b| b == b':')) {
            let dir = if dir.is_empty() { b"." } else { dir };
            let path = [dir, b"/", name].concat();
            if executable(&path).is_err() {
                continue;
            }
            if !dir.starts_with(b"/") {
                return Err(start_error(format!(
                    "exec: {shown:?}: cannot run executable found relative to current directory"
                )));
            }
            self.path = CString::new(path).unwrap_or_default();
            return Ok(());
        }
        Err(start_error(format!("exec: {shown:?}: executable file not found in $PATH")))
    }

    /// Returns only with the reason why it could not.
    pub fn exec(&self) -> Error {
        let errno = execve(&self.path, &self.args, &self.env);
        start_error(format!("exec {}: {}", self.path.to_string_lossy(), strerror(errno as i32)))
            .with_errno(errno as i32)
    }
}

fn executable(path: &[u8]) -> Result<(), Errno> {
    let path = OsStr::from_bytes(path);
    let stat = nix::sys::stat::stat(path)?;
    if stat.st_mode & libc::S_IFMT == libc::S_IFDIR {
        return Err(Errno::EISDIR);
    }
    // The real ids are the effective ones by now.
    nix::unistd::access(path, nix::unistd::AccessFlags::X_OK)
}

/// `HOME=` as the image's /etc/passwd has it, else `/`.
fn home(uid: u32) -> CString {
    let found = passwd_home(uid).unwrap_or_else(|| b"/".to_vec());
    CString::new([b"HOME=", &found[..]].concat()).unwrap_or_else(|_| c"HOME=/".to_owned())
}

fn passwd_home(uid: u32) -> Option<Vec<u8>> {
    // O_NONBLOCK: it may be a fifo nobody writes into.
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    // The image may have made it a link, but not one through /proc into what only this process can reach.
    let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let opened = match nix::fcntl::openat2(nix::fcntl::AT_FDCWD, "/etc/passwd", how) {
        Err(Errno::ENOSYS) => nix::fcntl::open("/etc/passwd", flags | OFlag::O_NOFOLLOW, Mode::empty()),
        other => other,
    };
    let fd = opened.ok()?;
    let stat = nix::sys::stat::fstat(&fd).ok()?;
    if stat.st_mode & libc::S_IFMT != libc::S_IFREG {
        return None;
    }
    let reader = BufReader::new(std::fs::File::from(fd).take(PASSWD_LIMIT));
    find_home(reader, uid)
}

fn find_home(reader: impl BufRead, uid: u32) -> Option<Vec<u8>> {
    let uid = uid.to_string();
    reader.split(b'\n').map_while(Result::ok).find_map(|line| {
        let mut fields = line.split(|&b| b == b':');
        let of_user = fields.nth(2)? == uid.as_bytes();
        let home = fields.nth(2)?;
        (of_user && !home.is_empty()).then(|| home.to_vec())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn home_from_passwd() {
        let passwd: &[u8] = b"root:x:0:0:root:/root:/bin/sh\nbad line\nu:x:1000:1000::/home/u:/bin/sh\n";
        assert_eq!(find_home(passwd, 1000), Some(b"/home/u".to_vec()));
        assert_eq!(find_home(passwd, 0), Some(b"/root".to_vec()));
        assert_eq!(find_home(passwd, 7), None);
    }

    #[test]
    fn executables() {
        assert_eq!(executable(b"/bin/sh"), Ok(()));
        assert_eq!(executable(b"/"), Err(Errno::EISDIR));
        assert_eq!(executable(b"/nonexistent"), Err(Errno::ENOENT));
    }
}
