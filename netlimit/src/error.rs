//! One error type: a kind for branching, and a chain of context for people.

use std::fmt;

/// What callers may branch on. Everything else is text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A value is out of range or contradicts another; nothing was touched.
    Invalid,
    /// This kernel or host can't do it; the text names the knob and what to do instead.
    Unsupported,
    /// Somebody else's qdisc or program is in the way; it was left alone.
    Busy,
    /// A change failed, and so did putting back what it had done by then.
    Half,
    /// Anything else: a system call failed.
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

    pub(crate) fn unsupported(text: impl Into<String>) -> Error {
        Error::new(Kind::Unsupported, text)
    }

    pub(crate) fn invalid(text: impl Into<String>) -> Error {
        Error::new(Kind::Invalid, text)
    }

    pub(crate) fn os(errno: i32) -> Error {
        std::io::Error::from_raw_os_error(errno).into()
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The errno of the system call at the bottom, if there is one.
    pub fn errno(&self) -> Option<i32> {
        self.errno
    }

    /// The same error with another kind.
    pub(crate) fn with_kind(mut self, kind: Kind) -> Error {
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

impl From<std::io::Error> for Error {
    fn from(e: std::io::Error) -> Error {
        let errno = e.raw_os_error();
        let text = e.to_string();
        // "No such file or directory (os error 2)": libc's words, first letter small, no number.
        let text = text.split(" (os error").next().unwrap_or(&text);
        let mut chars = text.chars();
        let text = match (chars.next(), chars.clone().next()) {
            (Some(a), Some(b)) if b.is_lowercase() => a.to_lowercase().chain(chars).collect(),
            _ => text.to_string(),
        };
        Error { kind: Kind::System, errno, chain: vec![text] }
    }
}

/// Adds what was being done to an error on its way up.
pub(crate) trait Context<T> {
    fn with_context<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T>;
}

impl<T, E: Into<Error>> Context<T> for std::result::Result<T, E> {
    fn with_context<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|e| e.into().context(what()))
    }
}
