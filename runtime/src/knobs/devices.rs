//! The devices behind a selector.

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use cgroup::block::{Device, Host};

use super::value::Selector;
use crate::error::{Context, Error, Kind, Result};
use crate::spec::{Mount, Spec};

/// What a container sees of the host's file systems.
pub enum View {
    /// Not made yet: its root and its mounts are to be these.
    Planned(Vec<Planned>),
    /// Running: what its first process sees.
    Running(i32),
}

/// A mount that is to be made.
pub struct Planned {
    destination: PathBuf,
    origin: Origin,
}

/// Where on the host a mount leads.
enum Origin {
    /// To a path, and if `recursive` also to what is mounted below it.
    Bind {
        source: PathBuf,
        recursive: bool,
    },
    /// To the layers of an overlay.
    Overlay {
        upper: Option<PathBuf>,
        lower: Vec<PathBuf>,
    },
    /// To a device, if that is one.
    Source(PathBuf),
    Nowhere,
}

impl Origin {
    fn of(mount: &Mount) -> Origin {
        let has = |option: &str| mount.options.iter().any(|o| o == option);
        let value = |key: &str| mount.options.iter().find_map(|o| o.strip_prefix(key)?.strip_prefix('='));
        let kind = mount.kind.as_deref();
        match mount.source.as_ref().map(PathBuf::from) {
            Some(source) if kind == Some("bind") || has("bind") || has("rbind") => {
                Origin::Bind { source, recursive: has("rbind") }
            }
            _ if kind == Some("overlay") => Origin::Overlay {
                upper: value("upperdir").map(PathBuf::from),
                lower: value("lowerdir").into_iter().flat_map(|l| l.split(':')).map(PathBuf::from).collect(),
            },
            Some(source) if source.is_absolute() => Origin::Source(source),
            _ => Origin::Nowhere,
        }
    }

    /// All devices that it leads to.
    fn all(&self, host: &Host) -> Vec<cgroup::Result<Vec<Device>>> {
        match self {
            Origin::Bind { source, recursive } => {
                let below = recursive.then(|| std::fs::canonicalize(source).ok()).flatten();
                let below = below.map(|dir| host.below(&dir)).unwrap_or_default();
                let below = below.into_iter().map(|(_, found)| found);
                std::iter::once(host.devices(source)).chain(below).collect()
            }
            Origin::Overlay { upper, lower } => {
                upper.iter().chain(lower).map(|layer| host.devices(layer)).collect()
            }
            Origin::Source(source) if is_device(source) => vec![host.devices(source)],
            Origin::Source(_) | Origin::Nowhere => Vec::new(),
        }
    }

    /// The devices behind one path in it. Of an overlay's layers the lower ones need not be found.
    fn at(&self, host: &Host, path: &Path) -> Option<cgroup::Result<Vec<Device>>> {
        match self {
            Origin::Bind { source, recursive: true } => {
                let root = std::fs::canonicalize(source).unwrap_or_else(|_| source.clone());
                let place = root.join(path);
                let over = host.below(&root).into_iter().filter(|(point, _)| place.starts_with(point));
                let seen = over.max_by_key(|(point, _)| point.components().count());
                Some(seen.map_or_else(|| host.devices(source), |(_, found)| found))
            }
            Origin::Bind { source, .. } => Some(host.devices(source)),
            Origin::Overlay { upper, lower } => {
                let lower = lower.iter().filter_map(|layer| host.devices(layer).ok()).flatten();
                match upper.as_ref().map(|layer| host.devices(layer)).transpose() {
                    Ok(upper) => {
                        let all: BTreeSet<Device> = lower.chain(upper.into_iter().flatten()).collect();
                        (!all.is_empty()).then(|| Ok(all.into_iter().collect()))
                    }
                    Err(e) => Some(Err(e)),
                }
            }
            Origin::Source(source) => is_device(source).then(|| host.devices(source)),
            Origin::Nowhere => None,
        }
    }
}

fn is_device(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    std::fs::metadata(path).is_ok_and(|m| m.file_type().is_block_device())
}

/// Resolves selectors. Nothing of the host is looked at before the first one.
pub struct Resolver {
    view: View,
    host: OnceCell<Host>,
}

impl Resolver {
    /// For a container that is to be made from `spec`.
    pub fn planned(spec: &Spec, rootfs: &Path) -> Resolver {
        let mount =
            |m: &Mount| Planned { destination: Path::new("/").join(&m.destination), origin: Origin::of(m) };
        let root = Origin::Bind { source: rootfs.into(), recursive: true };
        let root = Planned { destination: "/".into(), origin: root };
        let all = std::iter::once(root).chain(spec.mounts.iter().map(mount));
        Resolver { view: View::Planned(all.collect()), host: OnceCell::new() }
    }

    /// For a container whose first process is `pid`.
    pub fn running(pid: i32) -> Resolver {
        Resolver { view: View::Running(pid), host: OnceCell::new() }
    }

    fn host(&self) -> Result<&Host> {
        if self.host.get().is_none() {
            let _ = self.host.set(Host::new()?);
        }
        self.host.get().ok_or_else(|| Error::new(Kind::System, "no devices"))
    }

    /// The name of a device under /dev.
    pub fn name(&self, device: Device) -> Option<String> {
        self.host().ok()?.name(device)
    }

    /// Whether the device is still there.
    pub fn exists(&self, device: Device) -> bool {
        self.host().is_ok_and(|host| host.limitable(device).is_ok())
    }

    /// The devices that a limit for `selector` goes to. `all` and `disks` may be none; anything named is an error
    /// when nothing of it can be limited.
    pub fn devices(&self, selector: &Selector) -> Result<Vec<Device>> {
        let host = self.host()?;
        match selector {
            Selector::Disks => Ok(host.disks()),
            Selector::Number(major, minor) => {
                Ok(vec![host.limitable(Device { major: *major, minor: *minor })?])
            }
            Selector::Host(path) => Ok(host.devices(Path::new(path))?),
            Selector::Container(path) => self.inside(host, Path::new(path)),
            Selector::All => self.all(host),
        }
    }

    fn inside(&self, host: &Host, path: &Path) -> Result<Vec<Device>> {
        match &self.view {
            View::Running(pid) => Ok(host.devices_in(*pid, path)?),
            View::Planned(mounts) => {
                // Of several at one place the last covers the others.
                let over = mounts.iter().filter(|m| path.starts_with(&m.destination));
                let Some(mount) = over.max_by_key(|m| m.destination.components().count()) else {
                    return Ok(Vec::new());
                };
                let rest = path.strip_prefix(&mount.destination).unwrap_or(path);
                match mount.origin.at(host, rest) {
                    Some(found) => Ok(found?),
                    None => Err(Error::unsupported(format!(
                        "container:{}: {} is no bind mount and has no block device",
                        path.display(),
                        mount.destination.display()
                    ))),
                }
            }
        }
    }

    fn all(&self, host: &Host) -> Result<Vec<Device>> {
        let mut found = BTreeSet::new();
        let add = |devices: cgroup::Result<Vec<Device>>| match devices {
            Ok(devices) => found.extend(devices),
            // tmpfs, proc, nfs and the like; and mounts that are covered or gone meanwhile.
            Err(e) if matches!(e.kind(), cgroup::Kind::Unsupported | cgroup::Kind::NotFound) => {
                log::debug!("no device: {e}");
            }
            Err(e) => log::warn!("no limit on the devices of a mount: {e}"),
        };
        match &self.view {
            View::Planned(mounts) => mounts.iter().flat_map(|m| m.origin.all(host)).for_each(add),
            View::Running(pid) => {
                let file = format!("/proc/{pid}/mountinfo");
                let text = std::fs::read_to_string(&file).with_context(|| format!("reading {file}"))?;
                // By the numbers that are in it: what another mount covers may be in use all the same.
                host.behind_mounts(&text).into_iter().for_each(add);
            }
        }
        Ok(found.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_plan_leads_to() {
        let spec: Spec = serde_json::from_str(
            r#"{"ociVersion":"1.0.0","mounts":[{"destination":"/tmp","type":"tmpfs","source":"tmpfs"}]}"#,
        )
        .unwrap();
        let resolver = Resolver::planned(&spec, Path::new("/proc"));
        assert_eq!(resolver.devices(&Selector::All).unwrap(), []);
        let e = resolver.devices(&Selector::Container("/tmp/x".into())).unwrap_err().to_string();
        assert_eq!(e, "container:/tmp/x: /tmp is no bind mount and has no block device");
        assert!(resolver.devices(&Selector::Host("/proc".into())).is_err());
    }
}
