//! `linux.sysctl`: which keys a container may have, and the writing of them.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;

use super::procfs;
use crate::error::{Context, Result};
use crate::invalid;

/// The namespaces that are the container's own: without them a key would change the host.
#[derive(Debug, Clone, Copy, Default)]
pub struct Private {
    pub ipc: bool,
    /// New, or joined and not the caller's.
    pub net: bool,
    pub uts: bool,
    pub user: bool,
}

/// What to write, by path beneath `/proc`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sysctls(Vec<Sysctl>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Sysctl {
    key: String,
    path: String,
    value: String,
}

const IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// Refuses every key that isn't in a namespace of the container's own, and every key that is not a plain path.
pub fn parse(sysctls: &BTreeMap<String, String>, private: Private) -> Result<Sysctls> {
    let mut parsed = Vec::with_capacity(sysctls.len());
    for (given, value) in sysctls {
        let key = dotted(given);
        allowed(&key, private)?;
        // In dotted form a '/' stands for a dot inside a name, such as that of a VLAN interface: sysctl(8).
        let path = key
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                c => c,
            })
            .collect::<String>();
        let odd = |part: &str| part.is_empty() || part == "." || part == ".." || part.contains('\0');
        if path.split('/').any(odd) {
            invalid!("sysctl {given:?} is not a valid key");
        }
        parsed.push(Sysctl { key, path: format!("sys/{path}"), value: value.clone() });
    }
    Ok(Sysctls(parsed))
}

/// Whichever of '.' and '/' comes first is the separator: sysctl.d(5).
fn dotted(key: &str) -> String {
    match key.find(['.', '/']) {
        Some(at) if key.as_bytes()[at] == b'/' => key
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                c => c,
            })
            .collect(),
        _ => key.to_string(),
    }
}

fn allowed(key: &str, private: Private) -> Result<()> {
    if IPC.contains(&key) || key.starts_with("fs.mqueue.") {
        if !private.ipc {
            invalid!("sysctl {key:?} is not allowed in the hosts ipc namespace");
        }
    } else if key.starts_with("net.") {
        if !private.net {
            invalid!("sysctl {key:?} not allowed in host network namespace");
        }
    } else if key == "kernel.hostname" && private.uts {
        invalid!("sysctl {key:?} is not allowed as it conflicts with the OCI \"hostname\" field");
    } else if key.starts_with("user.") {
        if !private.user {
            invalid!("setting ucounts without a user namespace not allowed: {key}");
        }
    } else if key != "kernel.domainname" || !private.uts {
        invalid!("sysctl {key:?} is not in a separate kernel namespace");
    }
    Ok(())
}

/// Writes them, in the caller's namespaces, through the host's procfs.
pub fn apply(sysctls: &Sysctls, procfs: BorrowedFd<'_>) -> Result<()> {
    for sysctl in &sysctls.0 {
        procfs::write(procfs, &sysctl.path, sysctl.value.as_bytes())
            .with_context(|| format!("failed to write sysctl {} = {:?}", sysctl.key, sysctl.value))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Private = Private { ipc: true, net: true, uts: true, user: true };

    fn one(key: &str, private: Private) -> Result<String> {
        let map = BTreeMap::from([(key.to_string(), "1".to_string())]);
        parse(&map, private).map(|parsed| parsed.0[0].path.clone())
    }

    #[test]
    fn both_separators() {
        assert_eq!(one("net.ipv4.ip_forward", ALL).unwrap(), "sys/net/ipv4/ip_forward");
        assert_eq!(one("net/ipv4/ip_forward", ALL).unwrap(), "sys/net/ipv4/ip_forward");
        let vlan = "sys/net/ipv4/conf/eno2.100/rp_filter";
        assert_eq!(one("net/ipv4/conf/eno2.100/rp_filter", ALL).unwrap(), vlan);
        assert_eq!(one("net.ipv4.conf.eno2/100.rp_filter", ALL).unwrap(), vlan);
    }

    #[test]
    fn no_way_out_of_proc_sys() {
        for key in [
            "net.//.//.//.kernel.panic",
            "net/../kernel/panic",
            "net/./x",
            "net..x",
            "net.",
            "net.x\0",
            "fs.mqueue.//.x",
        ] {
            assert!(one(key, ALL).is_err(), "{key}");
        }
    }

    #[test]
    fn a_key_needs_its_namespace() {
        for (key, private) in [
            ("kernel.shmmax", Private { ipc: true, ..Private::default() }),
            ("fs.mqueue.msg_max", Private { ipc: true, ..Private::default() }),
            ("net.core.somaxconn", Private { net: true, ..Private::default() }),
            ("kernel.domainname", Private { uts: true, ..Private::default() }),
            ("user.max_user_namespaces", Private { user: true, ..Private::default() }),
        ] {
            one(key, private).unwrap();
            assert!(one(key, Private::default()).is_err(), "{key}");
        }
        assert!(one("kernel.panic", ALL).is_err());
        assert!(one("vm.swappiness", ALL).is_err());
        assert!(one("", ALL).is_err());
        assert!(one("kernel.hostname", ALL).unwrap_err().to_string().contains("conflicts"));
    }

    /// In namespaces of a thread's own; the host's values stay.
    #[test]
    fn written_where_the_caller_is() {
        use nix::sched::CloneFlags;
        use std::os::fd::AsFd;
        if !nix::unistd::geteuid().is_root() {
            println!("SKIP needs root");
            return;
        }
        let host = procfs::host().unwrap();
        let keys = ["net.core.somaxconn", "kernel.domainname", "kernel.msgmax", "net.ipv4.conf.lo.rp_filter"];
        let values = ["777", "example.org", "4711", "2"];
        let given =
            keys.iter().zip(values).map(|(key, value)| (key.to_string(), value.to_string())).collect();
        let sysctls = parse(&given, ALL).unwrap();
        let read = |key: &str| {
            let path = format!("sys/{}", key.replace('.', "/"));
            procfs::read(host.as_fd(), &path).unwrap().trim().to_string()
        };
        let before = keys.map(&read);
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                let own = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC;
                nix::sched::unshare(own).unwrap();
                apply(&sysctls, host.as_fd()).unwrap();
                keys.map(&read)
            });
            assert_eq!(inside.join().unwrap(), values);
        });
        assert_eq!(keys.map(&read), before);
        let absent = BTreeMap::from([("net.no.such_key".to_string(), "1".to_string())]);
        let text = apply(&parse(&absent, ALL).unwrap(), host.as_fd()).unwrap_err().to_string();
        assert!(text.contains("net.no.such_key") && text.ends_with("no such file or directory"), "{text}");
    }
}
