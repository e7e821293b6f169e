//! The system calls, and the only unsafe code of this crate.

pub mod bpf;
pub mod net;
