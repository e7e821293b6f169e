//! `runtime`: an OCI runtime with runc's command line.

mod cli;
mod error;
mod init;
mod knobs;
mod link;
mod seal;
mod seccomp;
mod spec;
mod sys;

fn main() {}
