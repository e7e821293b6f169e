//! The only place with `unsafe`: system calls that `nix` lacks, each behind a safe function.
#![allow(unsafe_code)]

pub mod attrs;
pub mod bpf;
pub mod entry;
pub mod memory;
pub mod mount;
pub mod process;
pub mod tty;
