//! One suite, whatever the program under test and whatever the machine: `RUNTIME=/usr/sbin/runc` puts the same
//! questions to runc.
//!
//! `differs!(Runc, "…")` marks what a peer is known to do otherwise, with the reason.

mod apparmor;
mod attributes;
mod blkio;
mod callers;
mod cgroups;
mod checkpoint;
mod cli;
mod conformance;
mod cri;
mod ctr;
mod differential;
mod docker;
mod exec;
mod hooks;
mod killed;
mod knobs;
mod knobs_engines;
mod lifecycle;
mod namespaces;
mod net;
mod podman;
mod process;
mod readme;
mod restarts;
mod rootfs;
mod rootless;
mod seccomp;
mod security;
mod shim;
mod shim_alone;
mod shim_docker;
mod shim_limits;
mod shim_options;
mod shim_security;
mod systemd;
