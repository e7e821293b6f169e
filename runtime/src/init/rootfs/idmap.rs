//! What the parent opens for the child: bind sources that a user namespace may not reach, and id-mapped mounts.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use crate::error::{Context, Result};
use crate::plan::rootfs::{Idmap, Kind, MountPlan, RootfsPlan};
use crate::plan::IdMaps;
use crate::sys::mount as sys;
use crate::sys::process::{self, Clone};

/// Detached mounts by the number of their mount in the plan; none where the child opens all itself.
#[derive(Default)]
pub struct Sources(Vec<Option<OwnedFd>>);

impl Sources {
    pub(super) fn of(&self, mount: usize) -> Option<BorrowedFd<'_>> {
        self.0.get(mount)?.as_ref().map(AsFd::as_fd)
    }
}

/// In the parent, with its privileges over the host.
pub fn open_sources(plan: &RootfsPlan) -> Result<Sources> {
    if !plan.needs_sources() {
        return Ok(Sources::default());
    }
    plan.mounts.iter().map(|m| open(m, plan.user_namespace)).collect::<Result<_>>().map(Sources)
}

fn open(mount: &MountPlan, user_namespace: bool) -> Result<Option<OwnedFd>> {
    let Kind::Bind { source, recursive } = &mount.kind else { return Ok(None) };
    if !user_namespace && mount.options.idmap.is_none() {
        return Ok(None);
    }
    let name = CString::new(source.as_os_str().as_bytes())
        .map_err(|_| crate::error::Error::invalid("a mount source holds a NUL byte"))?;
    let tree = match sys::open_tree(nix::fcntl::AT_FDCWD, &name, *recursive) {
        // Before Linux 5.2, and without privileges, the child tries by path.
        Err(nix::errno::Errno::ENOSYS | nix::errno::Errno::EPERM) if mount.options.idmap.is_none() => {
            return Ok(None)
        }
        Err(nix::errno::Errno::ENOSYS) => {
            let text = format!("mapping the ids of {} needs Linux 5.12", source.display());
            return Err(crate::error::Error::new(crate::error::Kind::Unsupported, text));
        }
        other => other
            .with_context(|| format!("error mounting {:?}: stat {}", mount.destination, source.display()))?,
    };
    if let Some(reach) = mount.options.idmap {
        let namespace = match &mount.ids_of {
            Some(path) => File::open(path)
                .with_context(|| format!("opening the user namespace {}", path.display()))?
                .into(),
            None => {
                let maps = IdMaps { uids: mount.uids.clone(), gids: mount.gids.clone() };
                user_namespace_with(&maps).context("making a user namespace for an id-mapped mount")?
            }
        };
        sys::mount_setattr(tree.as_fd(), reach == Idmap::Tree, 0, 0, Some(namespace.as_fd())).with_context(
            || format!("mapping the ids of {} (Linux 5.12, and a file system that can)", source.display()),
        )?;
    }
    Ok(Some(tree))
}

/// The kernel takes mappings from a user namespace only, so a process has to be in one for a moment.
fn user_namespace_with(maps: &IdMaps) -> Result<OwnedFd> {
    match process::clone(libc::CLONE_NEWUSER as u64, None)? {
        Clone::Child => loop {
            nix::unistd::pause();
        },
        Clone::Parent { pid, .. } => {
            let opened = crate::spawn::write_id_maps(pid, maps)
                .and_then(|()| Ok(OwnedFd::from(File::open(format!("/proc/{pid}/ns/user"))?)));
            let _ = process::kill(pid, libc::SIGKILL);
            crate::spawn::reap(pid);
            opened
        }
    }
}
