//! One error type: a kind for branching, and a chain of context for people.

pub use cgroup::strerror;
use std::fmt;

/// What callers may branch on. Everything else is text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The command line, a file or a value is wrong; nothing was touched.
    Invalid,
    /// There is no container of that name.
    NotFound,
    /// The ID is taken.
    Exists,
    /// The container is in a state that does not allow it.
    State,
    /// The kernel or host lacks what was asked for; the text names it.
    Unsupported,
    /// The process to start could not be started.
    Exec,
    /// Anything else: a system call or a file failed.
    System,
}

impl Kind {
    const ALL: [Kind; 7] = [
        Kind::Invalid,
        Kind::NotFound,
        Kind::Exists,
        Kind::State,
        Kind::Unsupported,
        Kind::Exec,
        Kind::System,
    ];

    /// The kind that `kind as u8` was made of.
    pub fn from_u8(n: u8) -> Option<Kind> {
        Kind::ALL.get(usize::from(n)).copied()
    }
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

    /// Of input that can't be right. What it quotes can't break the line: control characters are shown as escapes.
    pub fn invalid(text: impl Into<String>) -> Error {
        Error::new(Kind::Invalid, one_line(text.into()))
    }

    /// Of input that can't be had here, in one line as above.
    pub fn unsupported(text: impl Into<String>) -> Error {
        Error::new(Kind::Unsupported, one_line(text.into()))
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The errno of the system call at the bottom, if there is one.
    pub fn errno(&self) -> Option<i32> {
        self.errno
    }

    /// The same error with that errno at the bottom; 0 is none.
    pub fn with_errno(mut self, errno: i32) -> Error {
        self.errno = (errno != 0).then_some(errno);
        self
    }

    /// The same error with another kind.
    pub fn with_kind(mut self, kind: Kind) -> Error {
        self.kind = kind;
        self
    }

    /// The same error, said to have happened while doing `what`.
    pub fn context(mut self, what: impl Into<String>) -> Error {
        self.chain.push(what.into());
        self
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

impl From<nix::errno::Errno> for Error {
    fn from(e: nix::errno::Errno) -> Error {
        Error { kind: Kind::System, errno: Some(e as i32), chain: vec![strerror(e as i32)] }
    }
}

impl From<std::io::Error> for Error {
    fn from(e: std::io::Error) -> Error {
        match e.raw_os_error() {
            Some(n) => Error { kind: Kind::System, errno: Some(n), chain: vec![strerror(n)] },
            None => Error::new(Kind::System, e.to_string()),
        }
    }
}

impl From<cgroup::Error> for Error {
    fn from(e: cgroup::Error) -> Error {
        let kind = match e.kind() {
            cgroup::Kind::Invalid => Kind::Invalid,
            cgroup::Kind::Unsupported => Kind::Unsupported,
            _ => Kind::System,
        };
        Error { kind, errno: e.errno(), chain: vec![e.to_string()] }
    }
}

impl From<netlimit::Error> for Error {
    fn from(e: netlimit::Error) -> Error {
        let kind = match e.kind() {
            netlimit::Kind::Invalid => Kind::Invalid,
            netlimit::Kind::Unsupported => Kind::Unsupported,
            _ => Kind::System,
        };
        Error { kind, errno: e.errno(), chain: vec![e.to_string()] }
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

fn one_line(text: String) -> String {
    if !text.contains(char::is_control) {
        return text;
    }
    let show = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(show).collect()
}

/// Returns early with an error of kind `Invalid`.
#[macro_export]
macro_rules! invalid {
    ($($arg:tt)*) => { return Err($crate::error::Error::invalid(format!($($arg)*))) };
}
