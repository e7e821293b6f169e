//! A session keyring of the container's own, so that it does not see that of the runtime's caller.

use std::os::fd::BorrowedFd;

use super::labels;
use crate::error::{Context, Error, Kind, Result};
use crate::sys::attrs as sys;

/// Others may search: what a process with a user namespace is to the keyring.
const OTHER_SEARCH: u32 = 0x0000_0008;
/// The owner may search.
const USER_SEARCH: u32 = 0x0008_0000;

/// Makes the keyring `name` that of the caller's session, for the first process of a container, and lets the processes
/// that `exec` adds find it; `user_namespace` says as whom they come. Keys made meanwhile get the SELinux label.
pub fn make(name: &str, label: Option<&str>, user_namespace: bool, procfs: BorrowedFd<'_>) -> Result<()> {
    let Some(keyring) = join_labelled(name, label, procfs)? else { return Ok(()) };
    let described = sys::describe_key(keyring).context("unable to mod keyring permissions")?;
    let added = if user_namespace { OTHER_SEARCH } else { USER_SEARCH };
    let permissions = permissions(&described)? | added;
    sys::set_key_permissions(keyring, permissions).context("unable to mod keyring permissions")
}

/// Makes the container's keyring that of the caller's session, for a process that `exec` adds.
pub fn join(name: &str, label: Option<&str>, procfs: BorrowedFd<'_>) -> Result<()> {
    join_labelled(name, label, procfs).map(drop)
}

/// None where the kernel has no keyrings: they protect little that other credentials don't, so that is for the log.
fn join_labelled(name: &str, label: Option<&str>, procfs: BorrowedFd<'_>) -> Result<Option<i32>> {
    if let Some(label) = label {
        labels::selinux_keycreate(procfs, label)?;
    }
    let joined = sys::join_session_keyring(name);
    if label.is_some() {
        labels::selinux_keycreate(procfs, "")?;
    }
    match joined {
        Err(nix::errno::Errno::ENOSYS) => {
            log::warn!("no session keyring: this kernel has no CONFIG_KEYS");
            Ok(None)
        }
        joined => joined.map(Some).context("unable to join session keyring: unable to create session key"),
    }
}

/// KEYCTL_DESCRIBE gives `type;uid;gid;perm;description`, the permissions in hexadecimal.
fn permissions(described: &str) -> Result<u32> {
    let field = described.split(';').nth(3);
    field.and_then(|hex| u32::from_str_radix(hex, 16).ok()).ok_or_else(|| {
        Error::new(
            Kind::System,
            format!("unable to mod keyring permissions: {described:?} is no description of a key"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn reads_permissions() {
        assert_eq!(permissions("keyring;0;0;3f130000;_ses.x").unwrap(), 0x3f13_0000);
        assert!(permissions("keyring;0;0").is_err());
        assert!(permissions("a;b;c;zz;d").is_err());
    }

    /// A thread's session keyring is its own, and ends with it.
    #[test]
    fn makes_and_joins_it() {
        let body = || {
            let procfs = crate::init::attrs::procfs::host()?;
            make("_ses.hydra-unit-test", None, false, procfs.as_fd())?;
            join("_ses.hydra-unit-test", None, procfs.as_fd())?;
            Ok(std::fs::read_to_string("/proc/keys").unwrap_or_default())
        };
        match std::thread::spawn(body).join().unwrap() {
            Ok(keys) => {
                for line in keys.lines().filter(|line| line.contains("_ses.hydra-unit-test")) {
                    let permissions =
                        u32::from_str_radix(line.split_whitespace().nth(4).unwrap(), 16).unwrap();
                    assert_eq!(permissions & USER_SEARCH, USER_SEARCH, "{line}");
                }
            }
            Err(e) if e.errno() == Some(libc::EPERM) => println!("SKIP keyrings are forbidden here"),
            Err::<_, Error>(e) => panic!("{e}"),
        }
    }
}
