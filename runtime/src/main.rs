//! `runtime`: an OCI runtime with runc's command line.
mod error;
mod spec;

fn main() {}
