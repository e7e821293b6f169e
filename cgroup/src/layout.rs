//! Where the host has its cgroup hierarchies.

use std::cell::OnceCell;
use std::fs;
use std::path::{Component, Path, PathBuf};

use nix::sys::statfs::{statfs, CGROUP2_SUPER_MAGIC, CGROUP_SUPER_MAGIC};
use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Kind, Result};

const ROOT: &str = "/sys/fs/cgroup";

/// Which generation of cgroups the host runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Version 1 alone.
    V1,
    /// Version 1, with a version 2 hierarchy at `/sys/fs/cgroup/unified`.
    Hybrid,
    /// Version 2 alone.
    V2,
}

/// The vocabulary of files a controller has in its hierarchy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Version {
    V1,
    V2,
}

/// One mounted hierarchy.
#[derive(Debug, Clone)]
pub struct Hierarchy {
    pub version: Version,
    /// Controllers of a v1 hierarchy, several when mounted together (`cpu`, `cpuacct`), `name=…` when named.
    /// Empty for v2.
    pub controllers: Vec<String>,
    pub mount: PathBuf,
    own: OnceCell<PathBuf>,
    available: OnceCell<Vec<String>>,
}

impl Hierarchy {
    pub fn v1(controllers: &[&str], mount: impl Into<PathBuf>) -> Hierarchy {
        let controllers = controllers.iter().map(|c| c.to_string()).collect();
        Hierarchy { version: Version::V1, controllers, ..Hierarchy::v2(mount) }
    }

    pub fn v2(mount: impl Into<PathBuf>) -> Hierarchy {
        let (own, available) = (OnceCell::new(), OnceCell::new());
        Hierarchy { version: Version::V2, controllers: Vec::new(), mount: mount.into(), own, available }
    }

    /// With this process's own cgroup given, as `/proc/self/cgroup` has it.
    #[must_use]
    pub fn with_own(self, own: impl Into<PathBuf>) -> Hierarchy {
        Hierarchy { own: OnceCell::from(own.into()), ..self }
    }

    /// This process's own cgroup as an absolute path under the mount point.
    pub fn own(&self) -> Result<PathBuf> {
        let own = match self.own.get() {
            Some(own) => own.clone(),
            None => {
                let text = fs::read_to_string("/proc/self/cgroup").context("reading /proc/self/cgroup")?;
                let found = parse_proc_cgroup(&text).into_iter().find(|m| m.controllers == self.controllers);
                let own = found
                    .ok_or_else(|| Error::new(Kind::NotFound, "this process is in no cgroup of version 2"))?;
                self.own.get_or_init(|| own.path).clone()
            }
        };
        let full = join(&self.mount, &own);
        if full.is_dir() {
            return Ok(full);
        }
        // A container whose mount shows a part of the hierarchy only (no cgroup namespace): the mount's
        // root is what has to be taken off.
        let root = mount_root(&self.mount).unwrap_or_else(|| PathBuf::from("/"));
        let inner = own.strip_prefix(&root).map_err(|_| {
            let text =
                format!("own cgroup {} is outside of what {} shows", own.display(), self.mount.display());
            Error::new(Kind::NotFound, text)
        })?;
        Ok(self.mount.join(inner))
    }

    /// Controllers that a v2 hierarchy offers at its root; a v1 hierarchy's own.
    pub fn available(&self) -> &[String] {
        if self.version == Version::V1 {
            return &self.controllers;
        }
        self.available.get_or_init(|| {
            let text = fs::read_to_string(self.mount.join("cgroup.controllers")).unwrap_or_default();
            text.split_whitespace().map(str::to_string).collect()
        })
    }
}

/// All hierarchies that can be reached.
#[derive(Debug, Clone)]
pub struct Layout {
    pub mode: Mode,
    /// v1 hierarchies first; a v2 hierarchy is the last.
    pub hierarchies: Vec<Hierarchy>,
    /// Whether systemd is the init of this host.
    pub systemd: bool,
}

impl Layout {
    /// Looks at the running host. Costs one statfs on a v2 host; on others a read of `/proc/self/cgroup` and one
    /// statfs for each hierarchy, and mountinfo is only parsed when one of them is mounted in an odd place.
    pub fn detect() -> Result<Layout> {
        let systemd = Path::new("/run/systemd/system").is_dir();
        if is(Path::new(ROOT), CGROUP2_SUPER_MAGIC) {
            return Ok(Layout { mode: Mode::V2, hierarchies: vec![Hierarchy::v2(ROOT)], systemd });
        }
        let text = fs::read_to_string("/proc/self/cgroup").context("reading /proc/self/cgroup")?;
        let mut mounts = None;
        let (mut v1, mut v2) = (Vec::new(), None);
        for member in parse_proc_cgroup(&text) {
            let mount = match conventional(&member.controllers) {
                Some(mount) => mount,
                None if member.controllers.is_empty() => continue,
                None => match elsewhere(mounts.get_or_insert_with(read_mounts), &member.controllers) {
                    Some(mount) => mount,
                    None => continue,
                },
            };
            let (own, available) = (OnceCell::from(member.path), OnceCell::new());
            if member.controllers.is_empty() {
                v2 = Some(Hierarchy { own, ..Hierarchy::v2(mount) });
            } else {
                let controllers = member.controllers;
                v1.push(Hierarchy { version: Version::V1, controllers, mount, own, available });
            }
        }
        let mode = if v2.is_some() { Mode::Hybrid } else { Mode::V1 };
        v1.extend(v2);
        if v1.is_empty() {
            return Err(Error::unsupported("no cgroup hierarchy is mounted under /sys/fs/cgroup"));
        }
        Ok(Layout { mode, hierarchies: v1, systemd })
    }

    /// A layout made by hand, for tests on a tree of ordinary files.
    pub fn new(mode: Mode, hierarchies: Vec<Hierarchy>) -> Layout {
        Layout { mode, hierarchies, systemd: false }
    }

    /// The hierarchy of version 2, if there is one.
    pub fn unified(&self) -> Option<&Hierarchy> {
        self.hierarchies.iter().find(|h| h.version == Version::V2)
    }

    /// Which vocabulary a controller speaks here, `None` if the host does not have it.
    pub fn version_of(&self, controller: &str) -> Option<Version> {
        let v1 = |h: &&Hierarchy| h.controllers.iter().any(|c| c == controller);
        if self.hierarchies.iter().any(|h| v1(&h)) {
            return Some(Version::V1);
        }
        let unified = self.unified()?;
        unified.available().iter().any(|c| c == controller).then_some(Version::V2)
    }
}

/// A line of `/proc/PID/cgroup`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// Empty for version 2.
    pub controllers: Vec<String>,
    pub path: PathBuf,
}

/// The lines of `/proc/PID/cgroup`.
pub fn parse_proc_cgroup(text: &str) -> Vec<Membership> {
    let line = |line: &str| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        let controllers = controllers.split(',').filter(|c| !c.is_empty()).map(str::to_string).collect();
        Some(Membership { controllers, path: PathBuf::from(path) })
    };
    text.lines().filter_map(line).collect()
}

/// `path` under `base`, with `..` and `.` resolved by text so that it can't climb out.
pub(crate) fn join(base: &Path, path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => drop(out.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    base.join(out)
}

fn is(path: &Path, magic: nix::sys::statfs::FsType) -> bool {
    statfs(path).is_ok_and(|s| s.filesystem_type() == magic)
}

/// The place under /sys/fs/cgroup where distributions mount a hierarchy.
fn conventional(controllers: &[String]) -> Option<PathBuf> {
    if controllers.is_empty() {
        let unified = Path::new(ROOT).join("unified");
        return is(&unified, CGROUP2_SUPER_MAGIC).then_some(unified);
    }
    let names = controllers.iter().map(|c| c.strip_prefix("name=").unwrap_or(c));
    let joined = names.clone().collect::<Vec<_>>().join(",");
    // "cpu" may be a link to "cpu,cpuacct" or to "cpuacct,cpu".
    let mut candidates = std::iter::once(joined.as_str()).chain(names).map(|n| Path::new(ROOT).join(n));
    candidates.find(|c| is(c, CGROUP_SUPER_MAGIC))
}

/// A cgroup line of mountinfo: mount point, root, super options.
struct Mount {
    point: PathBuf,
    root: PathBuf,
    options: String,
}

fn read_mounts() -> Vec<Mount> {
    parse_mounts(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default())
}

fn parse_mounts(text: &str) -> Vec<Mount> {
    let line = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        let right = right.strip_prefix("cgroup ").or_else(|| right.strip_prefix("cgroup2 "))?;
        let mut fields = left.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        let options = right.split(' ').nth(1)?.to_string();
        Some(Mount { point: point.into(), root: root.into(), options })
    };
    text.lines().filter_map(line).collect()
}

fn elsewhere(mounts: &[Mount], controllers: &[String]) -> Option<PathBuf> {
    let all = |m: &&Mount| controllers.iter().all(|c| m.options.split(',').any(|o| o == c));
    mounts.iter().find(all).map(|m| m.point.clone())
}

fn mount_root(point: &Path) -> Option<PathBuf> {
    read_mounts().into_iter().rev().find(|m| m.point == point).map(|m| m.root)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_cgroup_is_read() {
        let text = "12:cpu,cpuacct:/a/b\n1:name=systemd:/user.slice:x\n0::/user.slice\n";
        let got = parse_proc_cgroup(text);
        assert_eq!(got[0].controllers, ["cpu", "cpuacct"]);
        assert_eq!(got[1].path, Path::new("/user.slice:x"));
        assert_eq!(got[2], Membership { controllers: vec![], path: "/user.slice".into() });
    }

    #[test]
    fn joining_cannot_climb_out() {
        assert_eq!(join(Path::new("/m"), Path::new("/../../etc/./x/..")), Path::new("/m/etc"));
    }

    #[test]
    fn hierarchies_in_odd_places_are_found_in_mountinfo() {
        let text = "30 20 0:5 / /sys rw - sysfs sysfs rw\n\
                    31 30 0:6 /docker/x /mnt/cg rw,nosuid shared:4 - cgroup cgroup rw,net_prio,net_cls\n";
        let mounts = parse_mounts(text);
        let want = ["net_cls".to_string(), "net_prio".to_string()];
        assert_eq!(elsewhere(&mounts, &want), Some(PathBuf::from("/mnt/cg")));
        assert_eq!(mounts[0].root, Path::new("/docker/x"));
        assert_eq!(elsewhere(&mounts, &["cpu".to_string()]), None);
    }

    #[test]
    fn this_host_has_a_layout() {
        let layout = Layout::detect().expect("a Linux host with cgroups");
        for h in &layout.hierarchies {
            assert!(h.own().expect("own cgroup").is_dir());
        }
    }
}
