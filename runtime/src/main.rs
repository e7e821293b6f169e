//! `runtime`: an OCI runtime with runc's command line.

mod cli;
mod clock;
mod commands;
mod criu;
mod error;
mod init;
mod knobs;
mod link;
mod log;
mod seal;
mod seccomp;
mod spec;
mod sys;

fn main() -> std::process::ExitCode {
    commands::main(std::env::args_os()).into()
}
