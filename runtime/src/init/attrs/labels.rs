//! AppArmor profile and SELinux label of the process to be executed.

use std::io::Write;
use std::os::fd::BorrowedFd;
use std::path::Path;

use super::procfs;
use crate::error::{Context, Error, Result};
use crate::invalid;

/// Whether the kernel confines by AppArmor. Its file in securityfs says so, or a process's own label does (Linux 5.8): Podman
/// starts a container with mapped users where securityfs is not mounted.
pub fn apparmor_enabled() -> bool {
    std::fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.first() == Some(&b'Y'))
        && (Path::new("/sys/kernel/security/apparmor").exists()
            || std::fs::read("/proc/thread-self/attr/apparmor/current").is_ok())
}

/// Whether the kernel has SELinux with a policy loaded.
pub fn selinux_enabled() -> bool {
    Path::new("/sys/fs/selinux/enforce").exists()
}

/// Refuses a profile or label that the kernel can't apply: a process that runs unconfined though it was to be confined
/// is worse than none. Empty strings ask for nothing, as Docker writes them.
pub fn check(apparmor: Option<&str>, selinux: Option<&str>) -> Result<()> {
    for text in [apparmor, selinux].into_iter().flatten() {
        if text.contains(['\0', '\n']) {
            invalid!("label {text:?} holds a character that no label has");
        }
    }
    if apparmor.is_some_and(|profile| !profile.is_empty()) && !apparmor_enabled() {
        return Err(Error::unsupported(
            "apparmor profile is specified in config, but apparmor is not enabled",
        ));
    }
    if selinux.is_some_and(|label| !label.is_empty()) && !selinux_enabled() {
        return Err(Error::unsupported(
            "selinux label is specified in config, but selinux is disabled or not supported",
        ));
    }
    Ok(())
}

/// The next execve(2) enters `profile`. Kernels before 5.8, or with only one security module, have the older path.
pub fn apparmor_exec(procfs: BorrowedFd<'_>, profile: &str) -> Result<()> {
    if profile.is_empty() {
        return Ok(());
    }
    let file = match procfs::open(procfs, "thread-self/attr/apparmor/exec") {
        Err(e) if e.errno() == Some(libc::ENOENT) => procfs::open(procfs, "thread-self/attr/exec"),
        other => other,
    };
    file.and_then(|mut file| Ok(file.write_all(format!("exec {profile}").as_bytes())?))
        .context("apparmor failed to apply profile")
}

/// The next execve(2) gets this label.
pub fn selinux_exec(procfs: BorrowedFd<'_>, label: &str) -> Result<()> {
    if label.is_empty() {
        return Ok(());
    }
    procfs::write(procfs, "thread-self/attr/exec", label.as_bytes()).context("can't set process label")
}

/// Keys made from now on get this label; the empty one is the policy's default again.
pub fn selinux_keycreate(procfs: BorrowedFd<'_>, label: &str) -> Result<()> {
    procfs::write(procfs, "thread-self/attr/keycreate", label.as_bytes()).context("can't set label of keys")
}
