//! Hierarchies that the host hasn't mounted and the configuration asks for: net_cls and net_prio of v1, and a cgroup2 for
//! the network limits of a v1 host. Nothing is mounted that the configuration doesn't name.

use std::fs;
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{mount, MsFlags};

use super::class;
use crate::error::{Context, Error, Result};

/// What `mount-hierarchies` may name.
pub const KNOWN: [&str; 3] = ["net_cls", "net_prio", "cgroup2"];
const ROOT: &str = "/sys/fs/cgroup";

/// Mounts what `mount-hierarchies` of the configuration names and nobody has mounted. It stays mounted: it is the
/// host's from then on. Costs one attempt to open the file where there is none.
pub fn mount_asked(config: Option<&Path>) -> Result<()> {
    let wanted = class::read_main(config.unwrap_or(Path::new(class::CONFIG)))?.mount;
    if wanted.is_empty() {
        return Ok(());
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("reading /proc/self/mountinfo")?;
    for name in wanted.iter().filter(|name| !is_mounted(&mounts, name)) {
        if root_is_cgroup2(&mounts) {
            return Err(Error::unsupported(format!(
                "mount-hierarchies: {name}: this host's cgroups are v2, where net.classid and net.priority work without it; \
                 take it out"
            )));
        }
        mount_one(name).with_context(|| format!("mount-hierarchies: {name}"))?;
    }
    Ok(())
}

fn mount_one(name: &str) -> Result<()> {
    let (kind, point) = if name == "cgroup2" { ("cgroup2", "unified") } else { ("cgroup", name) };
    let point = Path::new(ROOT).join(point);
    match fs::create_dir(&point) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(e).with_context(|| format!("making {}", point.display()))
        }
        _ => {}
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_RELATIME;
    let data = (kind == "cgroup").then_some(name);
    match mount(Some(kind), &point, Some(kind), flags, data) {
        // Another create was quicker.
        Ok(()) | Err(Errno::EBUSY) => {}
        Err(Errno::EINVAL | Errno::ENODEV | Errno::ENOENT) => {
            return Err(Error::unsupported("this kernel has no such hierarchy; take it out"))
        }
        Err(e) => return Err(e).with_context(|| format!("mounting {}", point.display())),
    }
    log::info!("mounted {name} at {}, as mount-hierarchies asks", point.display());
    Ok(())
}

/// Of a line of mountinfo: mount point, type, super options.
fn fields(line: &str) -> Option<(&str, &str, &str)> {
    let (left, right) = line.split_once(" - ")?;
    let mut right = right.split(' ');
    Some((left.split(' ').nth(4)?, right.next()?, right.nth(1)?))
}

fn is_mounted(mounts: &str, name: &str) -> bool {
    mounts.lines().filter_map(fields).any(|(_, kind, options)| match name {
        "cgroup2" => kind == "cgroup2",
        _ => kind == "cgroup" && options.split(',').any(|o| o == name),
    })
}

fn root_is_cgroup2(mounts: &str) -> bool {
    mounts.lines().filter_map(fields).any(|(point, kind, _)| point == ROOT && kind == "cgroup2")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_recognised() {
        let text = "30 24 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                    33 30 0:29 / /sys/fs/cgroup/net_cls,net_prio rw,nosuid - cgroup cgroup rw,net_cls,net_prio\n";
        assert!(is_mounted(text, "net_cls") && is_mounted(text, "net_prio") && !is_mounted(text, "cgroup2"));
        assert!(
            !root_is_cgroup2(text) && root_is_cgroup2("30 24 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw")
        );
    }
}
