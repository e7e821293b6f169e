//! One error type: a kind for branching, and a chain of context for people.

use std::fmt;

/// What callers may branch on. Everything else is text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A value is wrong; nothing was touched.
    Invalid,
    /// The cgroup, file or device is not there.
    NotFound,
    /// The cgroup has processes in it, or is frozen, and must not.
    Busy,
    /// The kernel or host lacks what was asked for; the text names it.
    Unsupported,
    /// The kernel refused for want of privilege.
    Permission,
    /// systemd said no, or could not be asked.
    Systemd,
    /// Something did not happen within its time.
    Timeout,
    /// A change failed, and so did putting back what it had done by then.
    Half,
    /// Anything else: a system call or a file failed.
    System,
}

/// An error and what was being done, outermost first.
pub struct Error {
    kind: Kind,
    errno: Option<i32>,
    chain: Vec<String>,
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub fn new(kind: Kind, text: impl Into<String>) -> Error {
        Error { kind, errno: None, chain: vec![text.into()] }
    }

    pub fn invalid(text: impl Into<String>) -> Error {
        Error::new(Kind::Invalid, text)
    }

    pub fn unsupported(text: impl Into<String>) -> Error {
        Error::new(Kind::Unsupported, text)
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The errno of the system call at the bottom, if there is one.
    pub fn errno(&self) -> Option<i32> {
        self.errno
    }

    /// Whether the system call at the bottom failed with this errno.
    pub fn is(&self, errno: i32) -> bool {
        self.errno == Some(errno)
    }

    /// The same error with another kind.
    #[must_use]
    pub fn with_kind(mut self, kind: Kind) -> Error {
        self.kind = kind;
        self
    }

    /// The same error, said to have happened while doing `what`.
    #[must_use]
    pub fn context(mut self, what: impl Into<String>) -> Error {
        self.chain.push(what.into());
        self
    }

    fn from_errno(errno: i32) -> Error {
        let kind = match errno {
            libc::ENOENT | libc::ENODEV => Kind::NotFound,
            libc::EPERM | libc::EACCES | libc::EROFS => Kind::Permission,
            libc::EBUSY => Kind::Busy,
            libc::ETIMEDOUT => Kind::Timeout,
            _ => Kind::System,
        };
        Error { kind, errno: Some(errno), chain: vec![strerror(errno)] }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, part) in self.chain.iter().rev().enumerate() {
            if i > 0 {
                f.write_str(": ")?;
            }
            f.write_str(part)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.kind)
    }
}

impl std::error::Error for Error {}

/// The errno's text as libc has it, in lower case: callers of runtimes match on it.
pub fn strerror(errno: i32) -> String {
    let text = std::io::Error::from_raw_os_error(errno).to_string();
    let text = text.rsplit_once(" (os error").map_or(text.as_str(), |(text, _)| text);
    let mut chars = text.chars();
    match (chars.next(), chars.clone().next()) {
        // "No such file", but not "RFS specific error".
        (Some(first), Some(second)) if second.is_lowercase() => first.to_lowercase().chain(chars).collect(),
        _ => text.to_string(),
    }
}

impl From<nix::errno::Errno> for Error {
    fn from(e: nix::errno::Errno) -> Error {
        Error::from_errno(e as i32)
    }
}

impl From<std::io::Error> for Error {
    fn from(e: std::io::Error) -> Error {
        match e.raw_os_error() {
            Some(n) => Error::from_errno(n),
            None if e.kind() == std::io::ErrorKind::TimedOut => Error::new(Kind::Timeout, e.to_string()),
            None => Error::new(Kind::System, e.to_string()),
        }
    }
}

/// Adds what was being done to an error on its way up.
pub trait Context<T> {
    fn context(self, what: &str) -> Result<T>;
    fn with_context<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T>;
}

impl<T, E: Into<Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, what: &str) -> Result<T> {
        self.map_err(|e| e.into().context(what))
    }

    fn with_context<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|e| e.into().context(what()))
    }
}

/// Returns early with an error of kind `Invalid`.
macro_rules! invalid {
    ($($arg:tt)*) => { return Err($crate::error::Error::invalid(format!($($arg)*))) };
}
pub(crate) use invalid;

#[cfg(test)]
mod tests {
    #[test]
    fn errors_have_libcs_words() {
        assert_eq!(super::strerror(libc::ELOOP), "too many levels of symbolic links");
        assert_eq!(super::strerror(libc::ENOMEM), "cannot allocate memory");
        assert_eq!(super::strerror(libc::ENOTTY), "inappropriate ioctl for device");
        assert_eq!(super::strerror(libc::EREMCHG), "remote address changed");
    }
}
