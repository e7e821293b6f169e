//! Where a cgroup lies in every hierarchy: decided once, kept in the state file.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{invalid, Error, Kind, Result};
use crate::layout::{join, Hierarchy, Layout, Mode, Version};

/// Who makes cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Manager {
    /// The runtime itself, by mkdir.
    Cgroupfs,
    /// systemd, asked over D-Bus; `user` for the instance of the calling user.
    Systemd { user: bool },
    /// Nobody: processes stay in the cgroup of the caller, no limit can be set.
    Disabled,
}

/// A systemd unit that owns a cgroup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// `prefix-name.scope`, or a name ending in `.slice`.
    pub name: String,
    pub slice: String,
    /// Owned by the user's instance of systemd.
    pub user: bool,
}

/// The directory of a cgroup in one hierarchy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Branch {
    pub version: Version,
    /// Empty for version 2.
    pub controllers: Vec<String>,
    pub path: PathBuf,
    /// The mount point of the hierarchy.
    pub mount: PathBuf,
}

/// Everything that is needed to find a cgroup again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Location {
    pub mode: Mode,
    pub branches: Vec<Branch>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<Unit>,
    /// The caller named the path: it must be made, also by an unprivileged runtime.
    #[serde(default)]
    pub explicit: bool,
}

/// What decides a location.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    pub manager: Manager,
    /// `linux.cgroupsPath`.
    pub cgroups_path: Option<&'a str>,
    pub id: &'a str,
    /// Without privileges over cgroups: the default slice is `user.slice`.
    pub rootless: bool,
    /// For `Systemd { user: true }`: the cgroup of the user's instance, such as
    /// `/user.slice/user-1000.slice/user@1000.service` (`systemd::user_cgroup` asks for it).
    pub user_root: Option<&'a Path>,
}

/// The middle part of the unit's name when `cgroupsPath` names none.
const PREFIX: &str = "hydra";

impl Location {
    /// Decides where the cgroup lies. `slice:prefix:name` means a systemd unit where systemd runs, whatever the
    /// manager, since engines that register a runtime by type can't pass `--systemd-cgroup`; where it doesn't run,
    /// the same directories are made by hand.
    pub fn resolve(layout: &Layout, request: &Request<'_>) -> Result<Location> {
        let text = request.cgroups_path.unwrap_or("");
        if text.contains('\0') {
            invalid!("linux.cgroupsPath contains a NUL byte");
        }
        let triple = triple(text);
        match (request.manager, triple) {
            (Manager::Disabled, _) => {
                Ok(Location { mode: layout.mode, branches: vec![], unit: None, explicit: false })
            }
            (Manager::Systemd { user }, triple) => {
                if !layout.systemd {
                    let text = "systemd not running on this host, cannot use systemd cgroups manager";
                    return Err(Error::new(Kind::Systemd, text));
                }
                let triple = match triple {
                    Some(triple) => triple,
                    None if text.is_empty() => ["", PREFIX, request.id],
                    None => invalid!(
                        "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got \"{text}\" instead"
                    ),
                };
                in_unit(layout, request, triple, user)
            }
            (Manager::Cgroupfs, Some(triple)) if names_unit(triple) => {
                let found = in_unit(layout, request, triple, false)?;
                Ok(Location { unit: found.unit.filter(|_| layout.systemd), ..found })
            }
            (Manager::Cgroupfs, _) if text.is_empty() => by_path(layout, Path::new(request.id), false),
            (Manager::Cgroupfs, _) => by_path(layout, Path::new(text), true),
        }
    }

    /// The absolute directory that limits for a controller go to. `""` names version 2.
    pub fn path(&self, controller: &str) -> Option<&Path> {
        self.branch(controller).map(|b| b.path.as_path())
    }

    /// The branch of a controller. A controller that no v1 hierarchy has is looked for in version 2.
    pub fn branch(&self, controller: &str) -> Option<&Branch> {
        let v1 = self.branches.iter().find(|b| b.controllers.iter().any(|c| c == controller));
        v1.or_else(|| self.unified())
    }

    /// Where the caller itself is.
    ///
    /// # Errors
    /// If `/proc/self/cgroup` can't be read.
    pub fn of_caller(layout: &Layout) -> Result<Location> {
        let branch = |h: &Hierarchy| {
            let (version, controllers, mount) = (h.version, h.controllers.clone(), h.mount.clone());
            Ok(Branch { version, controllers, path: h.own()?, mount })
        };
        let branches = layout.hierarchies.iter().map(branch).collect::<Result<_>>()?;
        Ok(Location { mode: layout.mode, branches, unit: None, explicit: false })
    }

    /// As a caller without privileges will have it: where it can't make a directory, it stays in its own.
    pub fn without_privileges(mut self, layout: &Layout) -> Result<Location> {
        let own = Location::of_caller(layout)?;
        for branch in &mut self.branches {
            let there = branch.path.ancestors().find(|p| p.exists()).unwrap_or(&branch.mount);
            let possible =
                there == branch.path || nix::unistd::access(there, nix::unistd::AccessFlags::W_OK).is_ok();
            if let (false, Some(own)) = (possible, own.branches.iter().find(|b| b.mount == branch.mount)) {
                branch.path.clone_from(&own.path);
            }
        }
        Ok(self)
    }

    /// The directory in the version 2 hierarchy.
    pub fn unified(&self) -> Option<&Branch> {
        self.branches.iter().find(|b| b.version == Version::V2)
    }
}

/// The three parts of `slice:prefix:name`.
fn triple(text: &str) -> Option<[&str; 3]> {
    let mut parts = text.split(':');
    let found = [parts.next()?, parts.next()?, parts.next()?];
    let plain = !found.iter().any(|p| p.contains('/')) && !found[2].is_empty();
    (parts.next().is_none() && plain).then_some(found)
}

/// Whether three parts can't be a file name with colons in it.
fn names_unit([slice, ..]: [&str; 3]) -> bool {
    slice.is_empty() || slice.ends_with(".slice")
}

fn by_path(layout: &Layout, inner: &Path, explicit: bool) -> Result<Location> {
    let mut branches = Vec::with_capacity(layout.hierarchies.len());
    for h in &layout.hierarchies {
        let base = if inner.is_absolute() {
            h.mount.clone()
        } else {
            let own = h.own()?;
            // On version 2 a cgroup with processes can't pass controllers to children: go beside it.
            match (layout.mode, own == h.mount) {
                (Mode::V2, false) => own.parent().map_or(own.clone(), Path::to_path_buf),
                _ => own,
            }
        };
        let path = join(&base, inner);
        if path == base {
            invalid!("linux.cgroupsPath \"{}\" is the root of the hierarchy", inner.display());
        }
        let (version, controllers, mount) = (h.version, h.controllers.clone(), h.mount.clone());
        branches.push(Branch { version, controllers, path, mount });
    }
    Ok(Location { mode: layout.mode, branches, unit: None, explicit })
}

fn in_unit(layout: &Layout, request: &Request<'_>, parts: [&str; 3], user: bool) -> Result<Location> {
    let [slice, prefix, name] = parts;
    let default = if request.rootless || user { "user.slice" } else { "system.slice" };
    let slice = if slice.is_empty() { default } else { slice };
    let unit = unit_name(prefix, name);
    if unit.is_empty() || unit.contains('/') || unit.len() > 255 {
        invalid!("\"{unit}\" is not a name for a systemd unit");
    }
    let mut inner = PathBuf::from("/");
    if let (true, Some(root)) = (user, request.user_root) {
        inner = join(&inner, root);
    }
    let inner = inner.join(expand_slice(slice)?.trim_start_matches('/')).join(&unit);
    let found = by_path(layout, &inner, true)?;
    Ok(Location { unit: Some(Unit { name: unit, slice: slice.to_string(), user }), ..found })
}

fn unit_name(prefix: &str, name: &str) -> String {
    if name.ends_with(".slice") {
        name.to_string()
    } else {
        format!("{prefix}-{name}.scope")
    }
}

/// The directory of a slice: `a-b.slice` lies in `/a.slice/a-b.slice`, `-.slice` is the root.
fn expand_slice(slice: &str) -> Result<String> {
    let bad = || Error::invalid(format!("invalid slice name: {slice}"));
    let name = slice.strip_suffix(".slice").filter(|n| !n.is_empty() && !n.contains('/')).ok_or_else(bad)?;
    if name == "-" {
        return Ok("/".to_string());
    }
    let (mut path, mut prefix) = (String::new(), String::new());
    for part in name.split('-') {
        if part.is_empty() {
            return Err(bad());
        }
        path.push_str(&format!("/{prefix}{part}.slice"));
        prefix.push_str(&format!("{part}-"));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Hierarchy;

    fn v1() -> Layout {
        let h = vec![
            Hierarchy::v1(&["cpu", "cpuacct"], "/cg/cpu,cpuacct").with_own("/"),
            Hierarchy::v1(&["name=systemd"], "/cg/systemd").with_own("/"),
            Hierarchy::v2("/cg/unified").with_own("/"),
        ];
        Layout::new(Mode::Hybrid, h)
    }

    fn v2(systemd: bool) -> Layout {
        Layout { systemd, ..Layout::new(Mode::V2, vec![Hierarchy::v2("/").with_own("/proc/self")]) }
    }

    fn ask<'a>(manager: Manager, path: &'a str) -> Request<'a> {
        let cgroups_path = Some(path).filter(|p| !p.is_empty());
        Request { manager, cgroups_path, id: "c1", rootless: false, user_root: None }
    }

    fn unified(layout: &Layout, request: &Request<'_>) -> String {
        let found = Location::resolve(layout, request).unwrap();
        found.unified().unwrap().path.display().to_string()
    }

    #[test]
    fn absolute_paths_start_at_the_mount() {
        let found = Location::resolve(&v1(), &ask(Manager::Cgroupfs, "/a/../../b/c")).unwrap();
        assert_eq!(found.path("cpuacct").unwrap(), Path::new("/cg/cpu,cpuacct/b/c"));
        assert_eq!(found.path("cpu").unwrap(), Path::new("/cg/cpu,cpuacct/b/c"));
        assert_eq!(found.path("hugetlb").unwrap(), Path::new("/cg/unified/b/c"));
        assert!(found.explicit);
    }

    #[test]
    fn relative_paths_go_beside_the_own_cgroup_on_v2() {
        assert_eq!(unified(&v2(false), &ask(Manager::Cgroupfs, "x")), "/proc/x");
        assert_eq!(unified(&v2(false), &ask(Manager::Cgroupfs, "")), "/proc/c1");
    }

    #[test]
    fn systemd_units() {
        let sd = Manager::Systemd { user: false };
        assert_eq!(unified(&v2(true), &ask(sd, "")), "/system.slice/hydra-c1.scope");
        assert_eq!(unified(&v2(true), &ask(sd, "a-b.slice:p:n")), "/a.slice/a-b.slice/p-n.scope");
        assert_eq!(unified(&v2(true), &ask(sd, "-.slice:p:n")), "/p-n.scope");
        assert_eq!(unified(&v2(true), &ask(sd, ":p:n.slice")), "/system.slice/n.slice");
        let user = Request { user_root: Some(Path::new("/u/user@1.service")), ..ask(sd, ":p:n") };
        let user = Request { manager: Manager::Systemd { user: true }, rootless: true, ..user };
        assert_eq!(unified(&v2(true), &user), "/u/user@1.service/user.slice/p-n.scope");
        let e = Location::resolve(&v2(true), &ask(sd, "/docker/x")).unwrap_err();
        assert!(e.to_string().contains("slice:prefix:name"), "{e}");
        assert!(Location::resolve(&v2(false), &ask(sd, "")).is_err());
        assert!(Location::resolve(&v2(true), &ask(sd, "a--b.slice:p:n")).is_err());
    }

    #[test]
    fn a_triple_is_recognised_without_the_flag() {
        let request = ask(Manager::Cgroupfs, "system.slice:docker:abc");
        let with = Location::resolve(&v2(true), &request).unwrap();
        assert_eq!(with.unit.unwrap().name, "docker-abc.scope");
        let without = Location::resolve(&v2(false), &request).unwrap();
        assert_eq!(without.unit, None);
        assert_eq!(without.path("").unwrap(), Path::new("/system.slice/docker-abc.scope"));
    }

    #[test]
    fn the_root_is_refused_and_a_location_survives_json() {
        assert!(Location::resolve(&v1(), &ask(Manager::Cgroupfs, "/")).is_err());
        assert!(Location::resolve(&v1(), &ask(Manager::Cgroupfs, "/..")).is_err());
        let found = Location::resolve(&v1(), &ask(Manager::Cgroupfs, "/a")).unwrap();
        let text = serde_json::to_string(&found).unwrap();
        assert_eq!(serde_json::from_str::<Location>(&text).unwrap(), found);
    }
}
