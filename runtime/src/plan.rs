//! What a container's process needs, decided from the configuration alone: owned data, no descriptors, no root.
//! `spawn` and `init` carry it out.

pub mod process;
pub mod rootfs;

use std::ffi::CString;
use std::path::PathBuf;

use crate::error::Result;
use crate::init::attrs::netdev::{self, NetDevices};
use crate::init::attrs::rdt::{self, Rdt};
use crate::init::attrs::sysctl::{self, Sysctls};
use crate::init::attrs::timens;
use crate::seccomp::{self, Filter};
use crate::spec::{IdMapping, Linux, Spec};
use crate::validate::{namespace_flag, CLONE_NEWTIME};

pub use process::Process;

/// Everything `init` does, for the first process of a container or for one more (`exec`).
#[derive(Debug, Default)]
pub struct Plan {
    pub namespaces: Namespaces,
    /// For a new user namespace.
    pub ids: Option<IdMaps>,
    pub hostname: Option<String>,
    pub domainname: Option<String>,
    pub sysctls: Sysctls,
    /// The name of a session keyring to make.
    pub keyring: Option<String>,
    pub seccomp: Option<Filter>,
    pub net_devices: NetDevices,
    pub rdt: Option<Rdt>,
    pub process: Process,
}

/// Which namespaces are made and which are joined.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Namespaces {
    /// `CLONE_NEW*` bits.
    pub new: i32,
    pub join: Vec<(i32, PathBuf)>,
    /// Lines for `timens_offsets`.
    pub time_offsets: Option<String>,
}

impl Namespaces {
    fn plan(linux: &Linux) -> Result<Namespaces> {
        let mut namespaces = Namespaces::default();
        for namespace in &linux.namespaces {
            let Some(flag) = namespace_flag(&namespace.kind) else { continue };
            match namespace.path.as_deref() {
                None | Some("") => namespaces.new |= flag,
                Some(path) => namespaces.join.push((flag, PathBuf::from(path))),
            }
        }
        // The user namespace first: it may give the rights to join the others.
        namespaces.join.sort_by_key(|&(flag, _)| flag != libc::CLONE_NEWUSER);
        if namespaces.makes(CLONE_NEWTIME) {
            namespaces.time_offsets = timens::parse(&linux.time_offsets)?;
        }
        Ok(namespaces)
    }

    /// Whether a new one of that kind is made.
    pub fn makes(&self, flag: i32) -> bool {
        self.new & flag != 0
    }

    pub fn joins(&self, flag: i32) -> bool {
        self.join.iter().any(|&(f, _)| f == flag)
    }

    /// Whether one is joined that is not the caller's own under another name.
    fn joins_another(&self, name: &str, flag: i32) -> bool {
        let identity = |path: &std::path::Path| nix::sys::stat::stat(path).ok().map(|s| (s.st_dev, s.st_ino));
        let own = identity(&std::path::Path::new("/proc/self/ns").join(name));
        self.join.iter().any(|(joined, path)| *joined == flag && identity(path) != own)
    }

    /// Whether the container has one of that kind that is not the runtime's.
    pub fn has(&self, flag: i32) -> bool {
        self.makes(flag) || self.joins(flag)
    }
}

/// What `uid_map` and `gid_map` of a new user namespace get.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdMaps {
    pub uids: Vec<IdMapping>,
    pub gids: Vec<IdMapping>,
}

impl Plan {
    /// A new container. `spec` has been validated.
    pub fn create(spec: &Spec, id: &str, no_new_keyring: bool, rootless: bool) -> Result<Plan> {
        let default = Linux::default();
        let linux = spec.linux.as_ref().unwrap_or(&default);
        let namespaces = Namespaces::plan(linux)?;
        let private = sysctl::Private {
            ipc: namespaces.has(libc::CLONE_NEWIPC),
            net: namespaces.makes(libc::CLONE_NEWNET) || namespaces.joins_another("net", libc::CLONE_NEWNET),
            uts: namespaces.has(libc::CLONE_NEWUTS),
            user: namespaces.has(libc::CLONE_NEWUSER),
        };
        let process = spec.process.clone().unwrap_or_default();
        Ok(Plan {
            sysctls: sysctl::parse(&linux.sysctl, private)?,
            ids: namespaces
                .makes(libc::CLONE_NEWUSER)
                .then(|| IdMaps { uids: linux.uid_mappings.clone(), gids: linux.gid_mappings.clone() }),
            hostname: (!spec.hostname.is_empty()).then(|| spec.hostname.clone()),
            domainname: (!spec.domainname.is_empty()).then(|| spec.domainname.clone()),
            keyring: (!no_new_keyring).then(|| format!("_ses.{id}")),
            seccomp: linux.seccomp.as_ref().map(seccomp::compile).transpose()?,
            net_devices: netdev::parse(&linux.net_devices, namespaces.has(libc::CLONE_NEWNET), rootless)?,
            rdt: linux.intel_rdt.as_ref().map(|given| rdt::parse(given, id)).transpose()?,
            process: Process::plan(&process, Some(linux), false)?,
            namespaces,
        })
    }

    /// Whether the parent has something to do once the child is in its namespaces.
    pub fn needs_preparation(&self) -> bool {
        !self.net_devices.is_empty() || self.rdt.is_some()
    }
}

/// The host's uid that a v2 cgroup is given to: the container's own user, if it sees the cgroup as a root of its own and may
/// write there (config-linux.md, "Cgroup ownership").
pub fn cgroup_owner(spec: &Spec) -> Option<u32> {
    let linux = spec.linux.as_ref()?;
    let namespaces = Namespaces::plan(linux).ok()?;
    let is_cgroup = |kind: &str| kind == "cgroup" || kind == "cgroup2";
    let mount = spec.mounts.iter().find(|m| m.kind.as_deref().is_some_and(is_cgroup))?;
    let mode = mount.options.iter().rev().find(|o| *o == "ro" || *o == "rw");
    if !namespaces.makes(libc::CLONE_NEWCGROUP) || mode.is_some_and(|o| o == "ro") {
        return None;
    }
    let user = spec.process.as_ref().map_or(0, |p| p.user.uid);
    if !namespaces.has(libc::CLONE_NEWUSER) {
        return Some(user);
    }
    let mapped = linux
        .uid_mappings
        .iter()
        .find(|m| (m.container_id..m.container_id.saturating_add(m.size)).contains(&user));
    mapped.map(|m| m.host_id + (user - m.container_id))
}

/// A string for the kernel; `what` names it in the error.
pub fn c_string(text: &str, what: &str) -> Result<CString> {
    CString::new(text).map_err(|_| crate::error::Error::invalid(format!("{what} holds a NUL byte: {text:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Namespace;

    fn namespaces(list: &[(&str, Option<&str>)]) -> Linux {
        let namespaces = list
            .iter()
            .map(|(k, p)| Namespace { kind: k.to_string(), path: p.map(str::to_string) })
            .collect();
        Linux { namespaces, ..Linux::default() }
    }

    #[test]
    fn a_cgroup_goes_to_who_can_use_it() {
        let owner = |namespaces: &str, options: &str, uid: u32| {
            let spec = format!(
                r#"{{ "ociVersion": "1.2.0", "process": {{ "user": {{ "uid": {uid}, "gid": 0 }}, "cwd": "/" }},
                "mounts": [{{ "destination": "/sys/fs/cgroup", "type": "cgroup", "options": [{options}] }}],
                "linux": {{ "uidMappings": [{{ "containerID": 0, "hostID": 100000, "size": 10 }}],
                "namespaces": [{namespaces}] }} }}"#
            );
            cgroup_owner(&serde_json::from_str(&spec).unwrap())
        };
        let (cgroup, both) = (r#"{ "type": "cgroup" }"#, r#"{ "type": "cgroup" }, { "type": "user" }"#);
        assert_eq!(owner(both, "", 0), Some(100_000));
        assert_eq!(owner(both, r#""ro", "rw""#, 7), Some(100_007));
        assert_eq!(owner(both, r#""ro""#, 0), None);
        assert_eq!(owner(both, "", 10), None, "has no number on the host");
        assert_eq!(owner(cgroup, "", 7), Some(7));
        assert_eq!(owner("", "", 0), None);
    }

    #[test]
    fn new_and_joined_with_user_first() {
        let linux =
            namespaces(&[("pid", None), ("network", Some("/n")), ("user", Some("/u")), ("mount", Some(""))]);
        let plan = Namespaces::plan(&linux).unwrap();
        assert_eq!(plan.new, libc::CLONE_NEWPID | libc::CLONE_NEWNS);
        assert_eq!(plan.join, [(libc::CLONE_NEWUSER, "/u".into()), (libc::CLONE_NEWNET, "/n".into())]);
    }
}
