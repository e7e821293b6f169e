//! The container's root file system, made from its plan in a fresh mount namespace.
//!
//! Up to `pivot` the host's file system is still there, so `/proc/self/fd/N` below is the host's procfs; afterwards no
//! path under the container's /proc is used. Every destination is resolved to a descriptor first, and mounted on that.

mod devices;
mod idmap;
mod mounts;
pub mod path;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{mount, umount2, MntFlags, MsFlags};
use nix::sys::stat::Mode;

use crate::error::{Context, Error, Result};
use crate::plan::rootfs::{add_label, RootfsPlan};
use crate::sys::mount as sys;
use path::{resolve, Make};

pub use idmap::{open_sources, Sources};

/// A root with everything mounted, not yet entered.
pub struct Prepared {
    root: OwnedFd,
    /// Where the root is, as the kernel says it of the descriptor.
    place: PathBuf,
    /// Mounts that turn read-only once everything in them is made.
    readonly_later: Vec<OwnedFd>,
}

const NONE: Option<&Path> = None;

/// Where mount(2) finds an open file, whatever happens to its path. The host's procfs; see the module's text.
fn via(fd: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

fn flags(bits: u64) -> MsFlags {
    MsFlags::from_bits_retain(bits)
}

/// Mounts everything under the root's path.
pub fn prepare(plan: &RootfsPlan, sources: &Sources) -> Result<Prepared> {
    // What the container mounts must not show up on the host.
    mount(NONE, "/", NONE, flags(plan.host_propagation), NONE).context("setting the propagation of /")?;
    if shares_with_host(plan) {
        make_parent_private(&plan.path)?;
    }
    let shown = plan.path.display();
    mount(Some(&plan.path), &plan.path, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)
        .with_context(|| format!("binding rootfs {shown}"))?;
    let directory = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let root = nix::fcntl::open(&plan.path, directory, Mode::empty())
        .with_context(|| format!("opening rootfs {shown}"))?;
    let umask = nix::sys::stat::umask(Mode::empty());
    let place =
        std::fs::read_link(via(root.as_fd())).with_context(|| format!("looking for rootfs {shown}"))?;
    let mut prepared = Prepared { root, place, readonly_later: Vec::new() };
    for (i, one) in plan.mounts.iter().enumerate() {
        prepared.mount(one, sources.of(i)).with_context(|| {
            format!("error mounting {} to rootfs at {:?}", one.describe(), one.destination)
        })?;
    }
    if let Some(nodes) = &plan.devices {
        devices::make(prepared.root.as_fd(), nodes, plan.bind_devices)?;
    }
    if plan.console {
        devices::make_console(prepared.root.as_fd()).context("making /dev/console")?;
    }
    make_cwd(prepared.root.as_fd(), &plan.cwd)?;
    // For the hooks.
    nix::sys::stat::umask(umask);
    Ok(prepared)
}

/// Whether mounts of ours may be peers of the host's: only a recursive change of `/` reaches those below it.
fn shares_with_host(plan: &RootfsPlan) -> bool {
    plan.host_propagation & libc::MS_SHARED != 0 || plan.host_propagation & libc::MS_REC == 0
}

/// pivot_root wants a private parent; with a shared host only that one mount changes.
fn make_parent_private(rootfs: &Path) -> Result<()> {
    for dir in rootfs.ancestors() {
        match mount(NONE, dir, NONE, MsFlags::MS_PRIVATE, NONE) {
            // Not a mount point.
            Err(Errno::EINVAL) => {}
            other => return other.with_context(|| format!("making {} private", dir.display())),
        }
    }
    Ok(())
}

/// A working directory that is missing is made, as runc and Docker's users expect.
fn make_cwd(root: BorrowedFd<'_>, cwd: &str) -> Result<()> {
    match path::resolve_or_make(root, Path::new(cwd), Make::Directory) {
        Ok(_) | Err(Errno::EROFS | Errno::EACCES | Errno::ENOTDIR | Errno::ELOOP | Errno::EPERM) => Ok(()),
        Err(e) => Err(Error::from(e).context(format!("making the working directory {cwd:?}"))),
    }
}

impl Prepared {
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Binds a terminal on /dev/console.
    pub fn bind_console(&self, slave: BorrowedFd<'_>) -> Result<()> {
        let target = resolve(self.root(), Path::new("/dev/console")).context("opening /dev/console")?;
        mount(Some(&via(slave)), &via(target.as_fd()), NONE, MsFlags::MS_BIND, NONE)
            .context("binding the console on /dev/console")
    }

    /// Closes what the container must not change, then makes this the root. The host is out of reach afterwards.
    pub fn pivot(self, plan: &RootfsPlan) -> Result<()> {
        for fd in &self.readonly_later {
            remount_readonly(fd.as_fd()).context("making a mount read-only")?;
        }
        for path in &plan.readonly_paths {
            self.protect(path).with_context(|| format!("can't make {path:?} read-only"))?;
        }
        self.mask(&plan.masked, plan.mount_label.as_deref())?;
        if plan.readonly {
            remount_readonly(self.root()).context("can't set rootfs as read-only")?;
        }
        nix::unistd::fchdir(&self.root).context("entering rootfs")?;
        if plan.no_pivot {
            return self.move_root();
        }
        if !shares_with_host(plan) {
            sys::pivot_root_here().context("pivot_root")?;
        } else {
            let directory = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            let old = nix::fcntl::open("/", directory, Mode::empty()).context("opening the old root")?;
            sys::pivot_root_here().context("pivot_root")?;
            // What is unmounted now must stay mounted on the host. From the old root, not from the new one below it,
            // whose mounts keep the propagation that they were given.
            nix::unistd::fchdir(&old).context("entering the old root")?;
            mount(NONE, ".", NONE, flags(libc::MS_SLAVE | libc::MS_REC), NONE)
                .context("separating the old root")?;
        }
        // The old root lies over the new one, at the place where we are.
        umount2(".", MntFlags::MNT_DETACH).context("unmounting the old root")?;
        nix::unistd::chdir("/").context("entering the new root")
    }

    /// `--no-pivot`, for a root on a ramfs: weaker, since the old root stays mounted below. The kernel lets a user namespace
    /// mount a new procfs or sysfs where one is to be had that nothing covers, and would take the host's for it.
    fn move_root(&self) -> Result<()> {
        let own = std::fs::read_link(via(self.root())).context("looking where rootfs is")?;
        let table =
            std::fs::read_to_string("/proc/self/mountinfo").context("reading /proc/self/mountinfo")?;
        for place in whole_pseudo_mounts(&table).filter(|place| !place.starts_with(&own)) {
            hide(&place).with_context(|| format!("hiding the host's {}", place.display()))?;
        }
        mount(Some("."), "/", NONE, MsFlags::MS_MOVE, NONE).context("moving rootfs to /")?;
        nix::unistd::chroot(".").context("chroot")?;
        nix::unistd::chdir("/").context("entering the new root")
    }

    /// A bind of the path on itself, read-only with all below it.
    fn protect(&self, path: &str) -> Result<()> {
        let target = match resolve(self.root(), Path::new(path)) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
            other => other?,
        };
        let sealed = sys::open_tree(target.as_fd(), c"", true).and_then(|tree| {
            sys::mount_setattr(tree.as_fd(), false, libc::MOUNT_ATTR_RDONLY, 0, None)?;
            sys::move_mount(tree.as_fd(), target.as_fd())
        });
        match sealed {
            // Linux before 5.12.
            Err(Errno::ENOSYS) => {}
            other => return Ok(other?),
        }
        let place = via(target.as_fd());
        mount(Some(&place), &place, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)?;
        remount_readonly(resolve(self.root(), Path::new(path))?.as_fd())
    }

    /// Files become /dev/null, directories an empty read-only tmpfs that all of them share.
    fn mask(&self, paths: &[String], label: Option<&str>) -> Result<()> {
        let mut null = None;
        let mut empty: Option<OwnedFd> = None;
        for path in paths {
            let what = || format!("can't mask path {path:?}");
            let target = match resolve(self.root(), Path::new(path)) {
                Err(Errno::ENOENT | Errno::ENOTDIR) => continue,
                other => other.with_context(what)?,
            };
            let stat = nix::sys::stat::fstat(&target).with_context(what)?;
            let place = via(target.as_fd());
            if stat.st_mode & libc::S_IFMT != libc::S_IFDIR {
                let null = match &null {
                    Some(fd) => fd,
                    None => null.insert(devices::host_null()?),
                };
                mount(Some(&via(null.as_fd())), &place, NONE, MsFlags::MS_BIND, NONE).with_context(what)?;
            } else if let Some(empty) = &empty {
                mount(Some(&via(empty.as_fd())), &place, NONE, MsFlags::MS_BIND, NONE).with_context(what)?;
            } else {
                let mut options = "nr_blocks=1,nr_inodes=1".to_string();
                add_label(&mut options, label);
                mount(Some("tmpfs"), &place, Some("tmpfs"), MsFlags::MS_RDONLY, Some(options.as_str()))
                    .with_context(what)?;
                empty = Some(resolve(self.root(), Path::new(path)).with_context(what)?);
            }
        }
        Ok(())
    }
}

/// Where a procfs or sysfs is mounted from its root on, by a mount table.
fn whole_pseudo_mounts(table: &str) -> impl Iterator<Item = PathBuf> + '_ {
    table.lines().filter_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, place) = (fields.next()?, fields.next()?);
        let pseudo = matches!(file_system.split(' ').next(), Some("proc" | "sysfs"));
        (pseudo && root == "/").then(|| unescaped(place))
    })
}

/// A path as seq_path(3) of the kernel writes it.
fn unescaped(place: &str) -> PathBuf {
    PathBuf::from(
        place.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\"),
    )
}

/// Unmounts, for this mount namespace alone; what may not be unmounted is covered.
fn hide(place: &Path) -> Result<()> {
    match mount(NONE, place, NONE, flags(libc::MS_SLAVE | libc::MS_REC), NONE) {
        // It went with one above it.
        Err(Errno::ENOENT | Errno::EINVAL) => return Ok(()),
        other => other?,
    }
    match umount2(place, MntFlags::MNT_DETACH) {
        Err(Errno::EINVAL | Errno::EPERM) => {
            Ok(mount(Some("tmpfs"), place, Some("tmpfs"), MsFlags::empty(), NONE)?)
        }
        other => Ok(other?),
    }
}

/// Keeps the mount's other flags: in a user namespace they may be locked.
fn remount_readonly(fd: BorrowedFd<'_>) -> Result<()> {
    match sys::mount_setattr(fd, false, libc::MOUNT_ATTR_RDONLY, 0, None) {
        Err(Errno::ENOSYS) => {}
        other => return Ok(other?),
    }
    let present = sys::present_flags(fd)?;
    let all = flags(present | libc::MS_RDONLY | libc::MS_REMOUNT | libc::MS_BIND);
    Ok(mount(NONE, &via(fd), NONE, all, NONE)?)
}

/// What is left to do in the new root.
pub fn finish(plan: &RootfsPlan) -> Result<()> {
    if let Some(propagation) = plan.propagation {
        mount(NONE, "/", NONE, flags(propagation), NONE).context("setting linux.rootfsPropagation")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_that_show_all_of_procfs_and_sysfs() {
        let table = "22 28 0:21 / /proc rw,nosuid shared:12 - proc proc rw\n\
                     23 28 0:22 / /a\\040b/sys rw - sysfs sysfs rw\n\
                     24 22 0:21 /sys /x/proc/sys ro - proc proc rw\n\
                     25 28 8:1 / / rw - ext4 /dev/sda rw\n";
        let found: Vec<_> = whole_pseudo_mounts(table).collect();
        assert_eq!(found, [Path::new("/proc"), Path::new("/a b/sys")]);
    }
}
