//! The log and the one place where an error is printed.
//!
//! containerd reads the file of `--log` as a stream of JSON objects and takes the last error of it; podman reads it
//! as one single object. So nothing but errors goes there, unless the operator asks for more. What is no error never
//! goes to standard error either: callers take it for a part of the answer.

use std::fs::{File, OpenOptions};
use std::io::{IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::OnceLock;
use std::time::SystemTime;

use env_logger::{Builder, Target};
use log::{Level, LevelFilter};

use crate::cli::{Global, LogFormat};
use crate::clock;
use crate::error::{Context, Error, Result};
use crate::link::ToParent;

/// Opens the log. Before that, [`fail`] prints on standard error alone.
pub fn open(global: &Global) -> Result<()> {
    let level = level(global);
    let style = match (global.log_format, &global.log) {
        (LogFormat::Json, _) => Style::Json,
        (LogFormat::Text, None) if std::io::stderr().is_terminal() => Style::Terminal,
        (LogFormat::Text, _) => Style::Text,
    };
    let target = match &global.log {
        // env_logger writes a line with one write(2), so lines of runtimes that share the file don't mix.
        Some(path) => Target::Pipe(Box::new(file(path)?)),
        None => Target::Stderr,
    };
    // Not from the environment: $RUST_LOG must not add lines to a file that podman reads as one object.
    let logger = Builder::new()
        .filter_level(level)
        .format(move |out, record| {
            let now = SystemTime::now();
            writeln!(out, "{}", line(style, record.level(), &record.args().to_string(), now))
        })
        .target(target)
        .build();
    log::set_max_level(level);
    log::set_boxed_logger(Box::new(Logger(logger))).map_err(|e| Error::invalid(e.to_string()))
}

/// The log of this process, or, in a child that becomes a container's process, the way to it.
struct Logger(env_logger::Logger);

static RELAY: OnceLock<&'static ToParent> = OnceLock::new();

/// From now on the parent is asked to log, as this process is about to close the log.
pub fn relay(link: &'static ToParent) {
    let _ = RELAY.set(link);
}

impl log::Log for Logger {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        self.0.enabled(metadata)
    }

    fn log(&self, record: &log::Record<'_>) {
        match RELAY.get() {
            None => self.0.log(record),
            // A parent that has gone ends this process anyway.
            Some(link) if record.level() <= Level::Warn => drop(link.warn(&record.args().to_string())),
            Some(_) => {}
        }
    }

    fn flush(&self) {
        self.0.flush();
    }
}

/// Errors alone by default; warnings too where a person reads the file, or sits before the terminal.
fn level(global: &Global) -> LevelFilter {
    match (global.debug, global.log_level, global.log_format, &global.log) {
        (true, ..) => LevelFilter::Debug,
        (false, Some(level), ..) => level,
        (false, None, LogFormat::Text, Some(_)) => LevelFilter::Warn,
        (false, None, LogFormat::Text, None) if std::io::stderr().is_terminal() => LevelFilter::Warn,
        (false, None, ..) => LevelFilter::Error,
    }
}

fn file(path: &Path) -> Result<File> {
    let text = path.to_string_lossy();
    for kind in ["journald", "syslog"] {
        if text.strip_prefix(kind).is_some_and(|rest| rest.is_empty() || rest.starts_with(':')) {
            return Err(Error::unsupported(format!("--log {text}: {kind} can't be written to, give a file")));
        }
    }
    let path = Path::new(text.strip_prefix("file:").unwrap_or(&text));
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o644)
        .custom_flags(libc::O_CLOEXEC | libc::O_NOCTTY)
        .open(path)
        .with_context(|| format!("open {}", path.display()))
}

#[derive(Debug, Clone, Copy)]
enum Style {
    Json,
    Text,
    Terminal,
}

fn line(style: Style, level: Level, text: &str, now: SystemTime) -> String {
    let name = match level {
        Level::Error => "error",
        Level::Warn => "warning",
        Level::Info => "info",
        Level::Debug | Level::Trace => "debug",
    };
    match style {
        Style::Json => {
            let text = serde_json::Value::from(text);
            format!(r#"{{"level":"{name}","msg":{text},"time":"{}"}}"#, clock::seconds(now))
        }
        Style::Text => format!("time=\"{}\" level={name} msg={text:?}", clock::seconds(now)),
        Style::Terminal => format!("{name}: {text}"),
    }
}

/// Prints an error: to the log, and in plain words to standard error where the log is a file.
pub fn fail(global: &Global, text: &str) {
    log::error!("{text}");
    // A log that couldn't be opened takes nothing.
    if global.log.is_some() || !log::log_enabled!(Level::Error) {
        // Nobody is left to be told that standard error is closed.
        let _ = writeln!(std::io::stderr(), "{text}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    #[test]
    fn lines_of_runc() {
        let text = "can't stat \"/a\"\n";
        let json = line(Style::Json, Level::Error, text, UNIX_EPOCH);
        assert_eq!(json, r#"{"level":"error","msg":"can't stat \"/a\"\n","time":"1970-01-01T00:00:00Z"}"#);
        let plain = line(Style::Text, Level::Warn, text, UNIX_EPOCH);
        assert_eq!(plain, r#"time="1970-01-01T00:00:00Z" level=warning msg="can't stat \"/a\"\n""#);
    }

    #[test]
    fn levels() {
        let of = |f: &dyn Fn(&mut Global)| {
            let mut global = Global::default();
            f(&mut global);
            level(&global)
        };
        if !std::io::stderr().is_terminal() {
            assert_eq!(of(&|_| {}), LevelFilter::Error);
        }
        assert_eq!(of(&|g| g.log = Some("/x".into())), LevelFilter::Warn);
        let json = |g: &mut Global| (g.log, g.log_format) = (Some("/x".into()), LogFormat::Json);
        assert_eq!(of(&json), LevelFilter::Error);
        assert_eq!(of(&|g| g.debug = true), LevelFilter::Debug);
    }

    #[test]
    fn targets_that_are_no_files() {
        for name in ["journald:x", "syslog:", "syslog"] {
            assert!(file(Path::new(name)).unwrap_err().to_string().contains("give a file"));
        }
    }
}
