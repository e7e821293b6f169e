//! One file for each verb.

mod features;
mod spec;

use std::io::Write;

use crate::cli::{self, Command, Global};
use crate::error::{Context, Error, Result};
use crate::log;

/// Does what the command line says; the result is the exit code.
pub fn main(args: impl IntoIterator<Item = std::ffi::OsString>) -> u8 {
    let (global, command) = cli::parse(args);
    if let Err(e) = log::open(&global) {
        log::fail(&global, &e.to_string());
        return 1;
    }
    let command = match command {
        Ok(command) => command,
        Err(misuse) => {
            let _ = print(&misuse.stdout);
            log::fail(&global, &misuse.text);
            return misuse.exit_code;
        }
    };
    // runc's: the process to execute has exit codes of its own, 255 says that it wasn't started.
    let (prefix, code) = match command {
        Command::Exec(_) => ("exec failed: ", 255),
        _ => ("", 1),
    };
    run(&global, command).unwrap_or_else(|e| {
        log::fail(&global, &format!("{prefix}{e}"));
        code
    })
}

fn run(_global: &Global, command: Command) -> Result<u8> {
    match command {
        Command::Features => print(&features::text()),
        Command::Help(verb) => print(&cli::help(verb)),
        Command::Spec { bundle, file, rootless } => spec::run(bundle.as_deref(), file.as_deref(), rootless),
        Command::Version => print(&cli::version()),
        other => Err(Error::unsupported(format!("{other:?}"))),
    }?;
    Ok(0)
}

/// Standard output, and not `print!`: that panics when nobody reads it any more.
fn print(text: &str) -> Result<()> {
    std::io::stdout().write_all(text.as_bytes()).context("writing to standard output")
}
