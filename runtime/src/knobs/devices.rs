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
    Planned { rootfs: PathBuf, mounts: Vec<(PathBuf, Option<PathBuf>)> },
    /// Running: what its first process sees.
    Running(i32),
}

/// Resolves selectors. Nothing of the host is looked at before the first one.
pub struct Resolver {
    view: View,
    host: OnceCell<Host>,
}

impl Resolver {
    /// For a container that is to be made from `spec`.
    pub fn planned(spec: &Spec, rootfs: &Path) -> Resolver {
        let is_bind = |m: &Mount| {
            m.kind.as_deref() == Some("bind")
                || m.options.iter().any(|o| matches!(o.as_str(), "bind" | "rbind"))
        };
        let source = |m: &Mount| m.source.as_ref().filter(|_| is_bind(m)).map(PathBuf::from);
        let mounts = spec.mounts.iter().map(|m| (Path::new("/").join(&m.destination), source(m))).collect();
        Resolver { view: View::Planned { rootfs: rootfs.into(), mounts }, host: OnceCell::new() }
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
            View::Planned { rootfs, mounts } => {
                let below = mounts.iter().filter(|(destination, _)| path.starts_with(destination));
                match below.max_by_key(|(destination, _)| destination.components().count()) {
                    Some((destination, None)) => Err(Error::unsupported(format!(
                        "container:{}: {} is no bind mount and has no block device",
                        path.display(),
                        destination.display()
                    ))),
                    Some((_, Some(source))) => Ok(host.devices(source)?),
                    None => Ok(host.devices(rootfs)?),
                }
            }
        }
    }

    fn all(&self, host: &Host) -> Result<Vec<Device>> {
        let mut found = BTreeSet::new();
        let mut add = |devices: cgroup::Result<Vec<Device>>| match devices {
            Ok(devices) => found.extend(devices),
            // tmpfs, proc, nfs and the like; and mounts that are covered or gone meanwhile.
            Err(e) if matches!(e.kind(), cgroup::Kind::Unsupported | cgroup::Kind::NotFound) => {
                log::debug!("no device: {e}");
            }
            Err(e) => log::warn!("no limit on the devices of a mount: {e}"),
        };
        match &self.view {
            View::Planned { rootfs, mounts } => {
                add(host.devices(rootfs));
                mounts
                    .iter()
                    .filter_map(|(_, source)| source.as_ref())
                    .for_each(|source| add(host.devices(source)));
            }
            View::Running(pid) => {
                let file = format!("/proc/{pid}/mountinfo");
                let text = std::fs::read_to_string(&file).with_context(|| format!("reading {file}"))?;
                points(&text).iter().for_each(|point| add(host.devices_in(*pid, point)));
            }
        }
        Ok(found.into_iter().collect())
    }
}

/// The mount points that may have a device behind them, one for each file system.
fn points(mountinfo: &str) -> Vec<PathBuf> {
    let mut seen = BTreeSet::new();
    let mut points = Vec::new();
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let mut fields = left.split(' ').skip(2);
        let (Some(device), Some(point)) = (fields.next(), fields.nth(1)) else { continue };
        let kind = right.split(' ').next().unwrap_or_default();
        let stacked = matches!(kind, "overlay" | "btrfs");
        if (stacked || !device.starts_with("0:")) && seen.insert(device) {
            points.push(PathBuf::from(unescape(point)));
        }
    }
    points
}

/// mountinfo writes blanks and backslashes as three octal digits.
fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut i = 0;
    while i < bytes.len() {
        let octal = bytes.get(i + 1..i + 4).and_then(|d| std::str::from_utf8(d).ok());
        match (bytes[i], octal.and_then(|d| u8::from_str_radix(d, 8).ok())) {
            (b'\\', Some(byte)) => {
                out.push(byte);
                i += 4;
            }
            (byte, _) => {
                out.push(byte);
                i += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_point_for_each_file_system() {
        let text = "1 0 0:30 / / rw - overlay overlay rw,upperdir=/u\n2 1 0:5 / /proc rw - proc proc rw\n\
                    3 1 8:1 /a /etc/a\\040b rw shared:1 - ext4 /dev/sda1 rw\n4 1 8:1 /b /b rw - ext4 /dev/sda1 rw\n";
        assert_eq!(points(text), [PathBuf::from("/"), PathBuf::from("/etc/a b")]);
    }

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
