//! One error type: a kind that becomes a gRPC status code, and a text for people.

use std::fmt;

/// What callers may branch on. Each is one gRPC status code on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The request or the command line is wrong.
    Invalid,
    NotFound,
    Exists,
    /// More than the protocol allows.
    TooLarge,
    /// The container or process is in a state that does not allow it.
    State,
    Unsupported,
    /// The runtime said no; the text is its own.
    Runtime,
    /// A system call or a file failed.
    System,
}

impl Kind {
    /// The code of google.rpc.Status.
    pub fn code(self) -> i32 {
        match self {
            Kind::Runtime => 2,
            Kind::Invalid => 3,
            Kind::NotFound => 5,
            Kind::Exists => 6,
            Kind::TooLarge => 8,
            Kind::State => 9,
            Kind::Unsupported => 12,
            Kind::System => 13,
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Error {
    kind: Kind,
    text: String,
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub fn new(kind: Kind, text: impl Into<String>) -> Error {
        Error { kind, text: text.into() }
    }

    pub fn system(text: impl Into<String>) -> Error {
        Error::new(Kind::System, text)
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    pub fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Error {}

/// The errno's text as libc has it, in lower case: dockerd matches on such texts.
fn errno_text(e: nix::errno::Errno) -> String {
    let text = e.desc();
    let mut chars = text.chars();
    match (chars.next(), chars.clone().next()) {
        (Some(first), Some(second)) if second.is_lowercase() => first.to_lowercase().chain(chars).collect(),
        _ => text.to_string(),
    }
}

impl From<nix::errno::Errno> for Error {
    fn from(e: nix::errno::Errno) -> Error {
        Error::system(errno_text(e))
    }
}

impl From<std::io::Error> for Error {
    fn from(e: std::io::Error) -> Error {
        match e.raw_os_error() {
            Some(n) => Error::system(errno_text(nix::errno::Errno::from_raw(n))),
            None => Error::system(e.to_string()),
        }
    }
}

/// Adds what was being done to an error on its way up.
pub trait Context<T> {
    fn context<S: AsRef<str>>(self, what: impl FnOnce() -> S) -> Result<T>;
}

impl<T, E: Into<Error>> Context<T> for std::result::Result<T, E> {
    fn context<S: AsRef<str>>(self, what: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|e| {
            let e = e.into();
            Error::new(e.kind, format!("{}: {}", what().as_ref(), e.text))
        })
    }
}
