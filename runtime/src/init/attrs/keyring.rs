//! A session keyring of the container's own, so that it does not see that of the runtime's caller.

use crate::error::{Context, Error, Kind, Result};
use crate::sys::attrs as sys;

/// Others may search: what a process with a user namespace is to the keyring.
const OTHER_SEARCH: u32 = 0x0000_0008;
/// The owner may search.
const USER_SEARCH: u32 = 0x0008_0000;

/// Joins the keyring `_ses.ID`, making it if need be. A container's first process (`create`) also lets the processes
/// that `exec` adds find it; `user_namespace` says as whom they come. False: the kernel has no keyrings, which is for the
/// log, since they protect little that other credentials don't.
pub fn join(id: &str, create: bool, user_namespace: bool) -> Result<bool> {
    let keyring = match sys::join_session_keyring(&format!("_ses.{id}")) {
        Err(nix::errno::Errno::ENOSYS) => return Ok(false),
        joined => joined.context("unable to join session keyring: unable to create session key")?,
    };
    if create {
        let described = sys::describe_key(keyring).context("unable to mod keyring permissions")?;
        let permissions = permissions(&described)?;
        let added = if user_namespace { OTHER_SEARCH } else { USER_SEARCH };
        sys::set_key_permissions(keyring, permissions | added)
            .context("unable to mod keyring permissions")?;
    }
    Ok(true)
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

    #[test]
    fn reads_permissions() {
        assert_eq!(permissions("keyring;0;0;3f130000;_ses.x").unwrap(), 0x3f13_0000);
        assert!(permissions("keyring;0;0").is_err());
        assert!(permissions("a;b;c;zz;d").is_err());
    }

    /// A thread's session keyring is its own, and ends with it.
    #[test]
    fn joins_and_opens_it() {
        std::thread::spawn(|| match join("hydra-unit-test", true, false) {
            Ok(true) => {
                let keys = std::fs::read_to_string("/proc/keys").unwrap_or_default();
                if let Some(line) = keys.lines().find(|line| line.contains("_ses.hydra-unit-test")) {
                    assert_eq!(
                        u32::from_str_radix(line.split_whitespace().nth(4).unwrap(), 16).unwrap()
                            & USER_SEARCH,
                        USER_SEARCH
                    );
                }
            }
            Ok(false) => println!("SKIP: this kernel has no keyrings"),
            Err(e) if e.errno() == Some(libc::EPERM) => println!("SKIP: keyrings are forbidden here"),
            Err(e) => panic!("{e}"),
        })
        .join()
        .unwrap();
    }
}
