//! The system calls that no crate wraps. This is the only unsafe code of the runtime.
#![allow(unsafe_code)]

pub mod attrs;
pub mod bpf;
