//! The root file system, from `root`, `mounts`, `linux.devices` and their kin. Plain data; `init::rootfs` makes it real.

pub mod options;

use std::path::{Path, PathBuf};

use cgroup::{Location, Version};

use crate::error::Result;
use crate::invalid;
use crate::spec::{Device, IdMapping, Linux, Mount, Spec};

pub use options::{Idmap, Options};

/// What the plan depends on besides the configuration.
pub struct Context<'a> {
    pub location: Option<&'a Location>,
    pub rootless: bool,
    pub no_pivot: bool,
}

/// Everything between a fresh mount namespace and the container's root.
#[derive(Debug, Default)]
pub struct RootfsPlan {
    pub path: PathBuf,
    pub readonly: bool,
    pub no_pivot: bool,
    /// `MS_*` for `/` of the new namespace.
    pub host_propagation: u64,
    /// `MS_*` for the container's `/` once it is the root.
    pub propagation: Option<u64>,
    pub mounts: Vec<MountPlan>,
    /// Absent where `/dev` is a bind of the host's.
    pub devices: Option<Vec<Node>>,
    /// Device nodes are bound from the host: a user namespace can't make any.
    pub bind_devices: bool,
    pub console: bool,
    pub masked: Vec<String>,
    /// SELinux's label of what is mounted over masked directories.
    pub mount_label: Option<String>,
    pub readonly_paths: Vec<String>,
    /// The container's working directory, made if it is missing.
    pub cwd: String,
    pub user_namespace: bool,
}

#[derive(Debug)]
pub struct MountPlan {
    /// Inside the root, as given.
    pub destination: String,
    pub kind: Kind,
    /// What mount tables show as the source of a new file system.
    pub source: String,
    pub options: Options,
    /// SELinux's label of the mounted directory, where the file system doesn't take it as an option.
    pub label: Option<String>,
    /// For id-mapped mounts.
    pub uids: Vec<IdMapping>,
    pub gids: Vec<IdMapping>,
    /// The user namespace whose mappings it takes instead: one that is joined.
    pub ids_of: Option<PathBuf>,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Kind {
    Bind {
        source: PathBuf,
        recursive: bool,
    },
    Proc,
    Sysfs,
    Tmpfs,
    /// The hierarchies of cgroup v1, each in a directory of its own.
    CgroupV1 {
        namespaced: bool,
        hierarchies: Vec<Hierarchy>,
    },
    CgroupV2 {
        fallback: PathBuf,
    },
    /// Any other file system.
    Other {
        fstype: String,
    },
    /// Change the flags of what is mounted there.
    Remount,
}

/// One v1 hierarchy.
#[derive(Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// The directory, such as `cpu,cpuacct`.
    pub name: String,
    /// Mount data, such as `cpu,cpuacct` or `none,name=systemd`.
    pub data: String,
    /// Where the container's cgroup lies on the host.
    pub path: PathBuf,
    /// Single names that lead to `name`.
    pub links: Vec<String>,
}

/// A device node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub path: String,
    /// `S_IFCHR`, `S_IFBLK` or `S_IFIFO`.
    pub kind: u32,
    pub major: u64,
    pub minor: u64,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

/// Those that every container has (config-linux.md, "Default Devices").
const DEFAULT_DEVICES: [(&str, u64, u64); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

pub fn plan(spec: &Spec, path: &Path, context: &Context<'_>) -> Result<RootfsPlan> {
    let default = Linux::default();
    let linux = spec.linux.as_ref().unwrap_or(&default);
    let has = |kind: &str| linux.namespaces.iter().any(|n| n.kind == kind);
    let user_namespace = has("user");
    if linux.mount_label.as_ref().is_some_and(|l| !l.is_empty())
        && !crate::init::attrs::labels::selinux_enabled()
    {
        return Err(crate::error::Error::unsupported(
            "linux.mountLabel is specified in config, but selinux is disabled or not supported",
        ));
    }
    let mounts: Vec<MountPlan> =
        spec.mounts.iter().map(|m| plan_mount(m, linux, context, has("cgroup"))).collect::<Result<_>>()?;
    let dev_is_bound = mounts.iter().any(|m| {
        matches!(m.kind, Kind::Bind { .. })
            && Path::new(&m.destination).components().eq(Path::new("/dev").components())
    });
    let propagation = propagation(linux.rootfs_propagation.as_deref())?;
    if context.no_pivot && propagation.is_some_and(|p| p & libc::MS_PRIVATE != 0) {
        invalid!("rootfsPropagation of [r]private is not safe without pivot_root");
    }
    let process = spec.process.as_ref();
    Ok(RootfsPlan {
        path: path.to_path_buf(),
        readonly: spec.root.as_ref().is_some_and(|r| r.readonly),
        no_pivot: context.no_pivot,
        host_propagation: match propagation {
            // The rootfs is bound onto itself first, which what is unbindable refuses.
            Some(p) if p & libc::MS_UNBINDABLE != 0 => libc::MS_PRIVATE | libc::MS_REC,
            other => other.unwrap_or(libc::MS_SLAVE | libc::MS_REC),
        },
        propagation,
        mounts,
        devices: if dev_is_bound { None } else { Some(devices(&linux.devices)?) },
        bind_devices: user_namespace || context.rootless,
        console: process.is_some_and(|p| p.terminal),
        masked: linux.masked_paths.clone(),
        mount_label: linux.mount_label.clone().filter(|label| !label.is_empty()),
        readonly_paths: linux.readonly_paths.clone(),
        cwd: process.map(|p| p.cwd.clone()).unwrap_or_default(),
        user_namespace,
    })
}

fn propagation(given: Option<&str>) -> Result<Option<u64>> {
    let Some(name) = given.filter(|n| !n.is_empty()) else { return Ok(None) };
    let parsed = options::parse(&[name.to_string()])?;
    match parsed.propagation.as_slice() {
        [flag] => Ok(Some(*flag)),
        _ => invalid!("linux.rootfsPropagation {name:?}: use private, shared, slave or unbindable, or with an r in front"),
    }
}

fn plan_mount(
    mount: &Mount,
    linux: &Linux,
    context: &Context<'_>,
    cgroup_namespace: bool,
) -> Result<MountPlan> {
    let destination = mount.destination.as_str();
    if destination.is_empty() || destination.contains('\0') {
        invalid!("mounts: destination {destination:?} is not a path");
    }
    let mut options = options::parse(&mount.options)?;
    let kind = kind(mount, &mut options, context, cgroup_namespace)?;
    if matches!(kind, Kind::Bind { .. }) && !options.data.is_empty() {
        invalid!(
            "mounts: {destination}: bind mounts cannot have any filesystem-specific options applied: {:?}",
            options.data
        );
    }
    if options.tmpcopyup && kind != Kind::Tmpfs {
        invalid!("mounts: {destination}: tmpcopyup is for tmpfs only");
    }
    let mut mappings = (mount.uid_mappings.clone(), mount.gid_mappings.clone());
    if mappings.0.is_empty() != mappings.1.is_empty() {
        invalid!("mounts: {destination}: both uidMappings and gidMappings must be specified for mounts");
    }
    if options.idmap.is_none() && !mappings.0.is_empty() {
        options.idmap = Some(Idmap::One);
    }
    let mut ids_of = None;
    if options.idmap.is_some() {
        if !matches!(kind, Kind::Bind { .. }) {
            invalid!("mounts: {destination}: id-mapped mounts are for bind mounts only");
        }
        if context.rootless {
            invalid!("mounts: {destination}: id-mapped mounts need privileges over the host's file systems");
        }
        if mappings.0.is_empty() {
            mappings = (linux.uid_mappings.clone(), linux.gid_mappings.clone());
        }
        ids_of = linux.namespaces.iter().find(|n| n.kind == "user").and_then(|n| n.path.as_ref());
        ids_of = ids_of.filter(|path| mount.uid_mappings.is_empty() && !path.is_empty());
        if mappings.0.is_empty() && ids_of.is_none() {
            invalid!("mounts: {destination}: an id-mapped mount without uidMappings needs a user namespace whose mappings it takes");
        }
    }
    let mut label = linux.mount_label.as_deref().filter(|label| !label.is_empty());
    match &kind {
        // Made with its ipc namespace, and not by this mount: the kernel refuses it a context.
        Kind::Other { fstype } if fstype == "mqueue" => {}
        Kind::Tmpfs | Kind::Other { .. } => add_label(&mut options.data, label.take()),
        _ => label = None,
    }
    let source = [&mount.source, &mount.kind].into_iter().flatten().find(|s| !s.is_empty());
    Ok(MountPlan {
        destination: destination.into(),
        kind,
        source: source.cloned().unwrap_or_default(),
        options,
        label: label.map(Into::into),
        uids: mappings.0,
        gids: mappings.1,
        ids_of: ids_of.map(PathBuf::from),
    })
}

fn kind(mount: &Mount, options: &mut Options, context: &Context<'_>, cgroup_namespace: bool) -> Result<Kind> {
    let source = mount.source.clone().unwrap_or_default();
    if options.is_bind() || mount.kind.as_deref() == Some("bind") {
        if source.is_empty() || source.contains('\0') {
            invalid!("mounts: {}: a bind mount needs a source", mount.destination);
        }
        // "bind" as a type alone means a single mount, as in mount(8).
        let recursive = options.set & libc::MS_REC != 0;
        options.set &= !(libc::MS_BIND | libc::MS_REC);
        options.set |= libc::MS_BIND;
        if options.set & libc::MS_REMOUNT != 0 {
            return Ok(Kind::Remount);
        }
        return Ok(Kind::Bind { source: PathBuf::from(source), recursive });
    }
    if options.set & libc::MS_REMOUNT != 0 {
        return Ok(Kind::Remount);
    }
    Ok(match mount.kind.as_deref().unwrap_or_default() {
        "" => invalid!("mounts: {}: neither a type nor the option bind is given", mount.destination),
        "proc" => Kind::Proc,
        "sysfs" => Kind::Sysfs,
        "tmpfs" => Kind::Tmpfs,
        "cgroup" => cgroup_kind(context, cgroup_namespace),
        "cgroup2" => cgroup_v2(context, cgroup_namespace),
        fstype => Kind::Other { fstype: fstype.into() },
    })
}

fn cgroup_kind(context: &Context<'_>, namespaced: bool) -> Kind {
    let branches = context.location.map_or(&[][..], |l| &l.branches);
    let v1: Vec<Hierarchy> =
        branches.iter().filter(|b| b.version == Version::V1).filter_map(hierarchy).collect();
    match v1.is_empty() {
        true => cgroup_v2(context, namespaced),
        false => Kind::CgroupV1 { namespaced, hierarchies: v1 },
    }
}

/// Version 2 where it is asked for by name or is all there is.
fn cgroup_v2(context: &Context<'_>, namespaced: bool) -> Kind {
    let fallback = match context.location.and_then(Location::unified) {
        Some(branch) if namespaced => branch.path.clone(),
        Some(branch) => branch.mount.clone(),
        None => PathBuf::from("/sys/fs/cgroup"),
    };
    Kind::CgroupV2 { fallback }
}

fn hierarchy(branch: &cgroup::location::Branch) -> Option<Hierarchy> {
    let name = branch.mount.file_name()?.to_str()?.to_string();
    let data = match branch.controllers.as_slice() {
        [one] if one.starts_with("name=") => format!("none,{one}"),
        several => several.join(","),
    };
    let links = branch.controllers.iter().filter(|c| **c != name && !c.contains('=')).cloned().collect();
    Some(Hierarchy { name, data, path: branch.path.clone(), links })
}

/// Adds SELinux's label to the options of a file system.
pub fn add_label(options: &mut String, label: Option<&str>) {
    let Some(label) = label else { return };
    if !options.is_empty() {
        options.push(',');
    }
    options.push_str(&format!("context=\"{label}\""));
}

fn devices(given: &[Device]) -> Result<Vec<Node>> {
    let mut nodes: Vec<Node> = DEFAULT_DEVICES
        .iter()
        .map(|&(path, major, minor)| Node {
            path: path.into(),
            kind: libc::S_IFCHR,
            major,
            minor,
            mode: 0o666,
            uid: 0,
            gid: 0,
        })
        .collect();
    for device in given {
        let kind = match device.kind.as_str() {
            "c" | "u" => libc::S_IFCHR,
            "b" => libc::S_IFBLK,
            "p" => libc::S_IFIFO,
            other => {
                invalid!("linux.devices: {}: {other:?} is not a device type: use c, b, u or p", device.path)
            }
        };
        if !device.path.starts_with('/') || device.path.contains('\0') {
            invalid!("linux.devices: {:?} is not an absolute path", device.path);
        }
        if Path::new(&device.path).file_name().is_none() {
            invalid!("linux.devices: {:?} names no file", device.path);
        }
        let number = |n: i64, what: &str| match u64::try_from(n) {
            Ok(n) if kind == libc::S_IFIFO || n <= 0xfff_ffff => Ok(n),
            _ => invalid!("linux.devices: {}: {what} number {n} is out of range", device.path),
        };
        let node = Node {
            path: device.path.clone(),
            kind,
            major: number(device.major, "major")?,
            minor: number(device.minor, "minor")?,
            mode: device.file_mode.unwrap_or(0o666) & 0o7777,
            uid: device.uid.unwrap_or(0),
            gid: device.gid.unwrap_or(0),
        };
        nodes.retain(|n| n.path != node.path);
        nodes.push(node);
    }
    Ok(nodes)
}

impl RootfsPlan {
    /// Whether the parent must open bind sources: in a user namespace the child may not reach them.
    pub fn needs_sources(&self) -> bool {
        self.user_namespace || self.mounts.iter().any(|m| m.options.idmap.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan_of(json: serde_json::Value) -> Result<RootfsPlan> {
        let spec: Spec = serde_json::from_value(json).unwrap();
        let context = Context { location: None, rootless: false, no_pivot: false };
        plan(&spec, Path::new("/r"), &context)
    }

    #[test]
    fn binds_and_others() {
        let plan = plan_of(serde_json::json!({"mounts": [
            {"destination": "/a", "type": "none", "source": "/s", "options": ["rbind", "ro"]},
            {"destination": "/t", "type": "tmpfs", "source": "tmpfs", "options": ["mode=700"]},
            {"destination": "/proc", "type": "proc"}
        ]}))
        .unwrap();
        assert_eq!(plan.mounts[0].kind, Kind::Bind { source: "/s".into(), recursive: true });
        assert_eq!(plan.mounts[1].kind, Kind::Tmpfs);
        assert_eq!(plan.mounts[2].kind, Kind::Proc);
        assert_eq!(plan.devices.unwrap().len(), 6);
        assert_eq!(plan.host_propagation, libc::MS_SLAVE | libc::MS_REC);
    }

    #[test]
    fn a_bound_dev_gets_no_devices() {
        let mount = serde_json::json!({"destination": "/dev/", "source": "/dev", "options": ["bind"]});
        assert!(plan_of(serde_json::json!({"mounts": [mount]})).unwrap().devices.is_none());
    }

    /// No machine of ours has SELinux: what the kernel is to be told.
    #[test]
    fn labels_are_options_or_set_afterwards() {
        let linux = Linux { mount_label: Some("a:b:c:s0".into()), ..Linux::default() };
        let context = Context { location: None, rootless: false, no_pivot: false };
        let planned = |kind: &str, options: &[&str]| {
            let mount = Mount {
                destination: "/x".into(),
                source: Some("/s".into()),
                kind: Some(kind.into()),
                options: options.iter().map(|o| o.to_string()).collect(),
                ..Mount::default()
            };
            let one = plan_mount(&mount, &linux, &context, false).unwrap();
            (one.options.data, one.label)
        };
        let context = "context=\"a:b:c:s0\"";
        assert_eq!(planned("tmpfs", &["size=1k"]), (format!("size=1k,{context}"), None));
        assert_eq!(planned("devpts", &[]), (context.into(), None));
        assert_eq!(planned("mqueue", &[]), (String::new(), Some("a:b:c:s0".into())));
        for kind in ["proc", "sysfs", "bind"] {
            assert_eq!(planned(kind, &[]), (String::new(), None), "{kind}");
        }
    }

    #[test]
    fn an_idmapped_mount_takes_the_mappings_of_a_joined_namespace() {
        let plan = |user: serde_json::Value| {
            let mount =
                serde_json::json!({"destination": "/a", "source": "/s", "options": ["bind", "idmap"]});
            plan_of(serde_json::json!({"mounts": [mount], "linux": {"namespaces": [user]}}))
        };
        let joined = plan(serde_json::json!({"type": "user", "path": "/proc/7/ns/user"})).unwrap();
        assert_eq!(joined.mounts[0].ids_of.as_deref(), Some(Path::new("/proc/7/ns/user")));
        assert!(plan(serde_json::json!({"type": "user"})).is_err());
    }

    #[test]
    fn names_what_it_refuses() {
        let refusal = |json| plan_of(json).unwrap_err().to_string();
        let bind = serde_json::json!({"destination": "/a", "source": "/s", "options": ["bind", "size=1"]});
        assert!(refusal(serde_json::json!({"mounts": [bind]})).contains("size=1"));
        let copy = serde_json::json!({"destination": "/a", "type": "proc", "options": ["tmpcopyup"]});
        assert!(refusal(serde_json::json!({"mounts": [copy]})).contains("tmpcopyup"));
        let device = serde_json::json!({"path": "/dev/x", "type": "z"});
        assert!(refusal(serde_json::json!({"linux": {"devices": [device]}})).contains("\"z\""));
        assert!(refusal(serde_json::json!({"linux": {"rootfsPropagation": "x"}})).contains("\"x\""));
    }
}
