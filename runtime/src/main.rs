//! `runtime`: an OCI runtime with runc's command line. It begins in `sys::entry`.
#![cfg_attr(not(test), no_main)]

mod cli;
mod clock;
mod commands;
mod create;
mod criu;
mod error;
mod foreground;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod hooks;
mod init;
mod knobs;
mod link;
mod listener;
mod log;
mod notify;
mod plan;
mod roots;
mod seal;
mod seccomp;
mod sockets;
mod spawn;
mod spec;
mod state;
mod sys;
mod undo;
mod validate;
