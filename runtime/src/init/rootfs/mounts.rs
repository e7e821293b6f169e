//! One mount after the other.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{mount, MsFlags};
use nix::sys::stat::Mode;

use super::path::{is_on_procfs, resolve, resolve_or_make, resolve_plain, Make};
use super::{flags, via, Prepared, NONE};
use crate::error::{Context, Error, Result};
use crate::invalid;
use crate::plan::rootfs::options::PER_MOUNT;
use crate::plan::rootfs::{Hierarchy, Kind, MountPlan, Options};
use crate::sys::mount as sys;

/// What mount(2) takes as data, less than a page.
const MAX_DATA: usize = 4095;

/// Below /proc only these may be mounted over (lxcfs and its like); all else could redirect what we or the container
/// later write into procfs.
const PROC_OVERMOUNTS: [&str; 9] = [
    "cpuinfo",
    "diskstats",
    "loadavg",
    "meminfo",
    "slabinfo",
    "stat",
    "swaps",
    "sys/kernel/ns_last_pid",
    "uptime",
];
const PROC_OVERMOUNT_FIPS: &str = "sys/crypto/fips_enabled";

impl MountPlan {
    /// What is mounted, for an error.
    pub(super) fn describe(&self) -> String {
        match &self.kind {
            Kind::Bind { source, .. } => format!("{:?}", source.display().to_string()),
            Kind::CgroupV1 { .. } | Kind::CgroupV2 { .. } => "\"cgroup\"".into(),
            Kind::Proc | Kind::Sysfs | Kind::Tmpfs | Kind::Other { .. } => format!("{:?}", self.source),
            Kind::Remount => "new flags".into(),
        }
    }
}

impl Prepared {
    /// `source` is there if the parent opened it. What is set on a mount after it is attached is set on a descriptor of
    /// it: who shares the directories above can swap what its path leads to.
    pub(super) fn mount(&mut self, one: &MountPlan, source: Option<BorrowedFd<'_>>) -> Result<()> {
        let path = PathBuf::from(&one.destination);
        let options = &one.options;
        match &one.kind {
            Kind::Bind { source: from, recursive } => self.bind(one, &path, from, *recursive, source),
            Kind::Proc => {
                let target = self.plain_directory(&path, true)?;
                self.mount_new(&target, "proc", &one.source, options)?;
                let mounted = resolve_plain(self.root(), &path)?;
                if !is_on_procfs(mounted.as_fd()) {
                    invalid!("it is not a procfs after mounting one");
                }
                self.finish_on(&target, &path, options)
            }
            Kind::Sysfs => {
                let target = self.plain_directory(&path, false)?;
                self.sysfs(&target, &one.source, options)?;
                self.finish_on(&target, &path, options)
            }
            Kind::Tmpfs => self.tmpfs(&path, &one.source, options),
            Kind::CgroupV1 { namespaced, hierarchies } => {
                let target = self.directory(&path)?;
                self.cgroup_v1(&target, &path, options, *namespaced, hierarchies)?;
                self.finish_on(&target, &path, options)
            }
            Kind::CgroupV2 { fallback } => {
                let target = self.plain_directory(&path, false)?;
                self.cgroup_v2(&target, &path, options, fallback)?;
                self.finish_on(&target, &path, options)
            }
            Kind::Other { fstype } => {
                let target = self.directory(&path)?;
                self.mount_new(&target, fstype, &one.source, options)?;
                if let Some(label) = &one.label {
                    let mounted = self.mounted_on(&target, &path)?;
                    sys::set_selinux_label(&via(mounted.as_fd()), label).context("labelling it")?;
                }
                self.finish_on(&target, &path, options)
            }
            Kind::Remount => {
                let target = resolve(self.root(), &path)?;
                let all = flags(options.set | libc::MS_REMOUNT);
                mount(NONE, &via(target.as_fd()), NONE, all, data(options).as_deref())?;
                finish(target.as_fd(), options)
            }
        }
    }

    /// What is asked for the mount that is on `target` now.
    fn finish_on(&self, target: &OwnedFd, path: &Path, options: &Options) -> Result<()> {
        match needs_finish(options) {
            true => finish(self.mounted_on(target, path)?.as_fd(), options),
            false => Ok(()),
        }
    }

    /// The mount that was put on `target`, which `path` led to.
    ///
    /// # Errors
    /// When what is at `path` now is another one.
    fn mounted_on(&self, target: &OwnedFd, path: &Path) -> Result<OwnedFd> {
        let mounted = resolve(self.root(), path)?;
        let (parent, number) = (mount_id(target.as_fd())?, mount_id(mounted.as_fd())?);
        let place = std::fs::read_link(via(target.as_fd()))?;
        let table =
            std::fs::read_to_string("/proc/self/mountinfo").context("reading /proc/self/mountinfo")?;
        if !is_mounted_on(&table, number, parent, &place) {
            invalid!(
                "{:?} is no longer what was mounted there: somebody moved it",
                path.display().to_string()
            );
        }
        Ok(mounted)
    }

    fn directory(&self, path: &Path) -> Result<OwnedFd> {
        self.guarded(resolve_or_make(self.root(), path, Make::Directory)?, false)
    }

    /// Where the target really is, below the root.
    ///
    /// # Errors
    /// When it is the root: what is mounted there would take its place, or nobody would see it.
    fn inside(&self, target: &OwnedFd) -> Result<PathBuf> {
        let real = std::fs::read_link(via(target.as_fd()))?;
        match real.strip_prefix(&self.place) {
            Ok(inside) if inside.as_os_str().is_empty() => {
                invalid!("mountpoint {real:?} is on the top of rootfs {:?}", self.place)
            }
            Ok(inside) => Ok(inside.to_path_buf()),
            Err(_) => {
                invalid!("mountpoint {real:?} is no longer below rootfs {:?}: somebody moved it", self.place)
            }
        }
    }

    /// /proc and /sys must be what they seem, or what is written there later goes elsewhere.
    fn plain_directory(&self, path: &Path, procfs: bool) -> Result<OwnedFd> {
        let target = match resolve_plain(self.root(), path) {
            Err(Errno::ENOENT) => resolve_or_make(self.root(), path, Make::Directory)?,
            Err(Errno::ELOOP) => invalid!("filesystem must be mounted on ordinary directory"),
            other => other?,
        };
        if nix::sys::stat::fstat(&target)?.st_mode & libc::S_IFMT != libc::S_IFDIR {
            invalid!("filesystem must be mounted on ordinary directory");
        }
        if self.inside(&target)? == Path::new("proc") && !procfs {
            invalid!("\"/proc\" cannot be mounted because it is not of type proc");
        }
        Ok(target)
    }

    /// Refuses a target on procfs that isn't on the list, and /proc for anything that isn't one. By where the target really
    /// is, not by its name.
    fn guarded(&self, target: OwnedFd, procfs: bool) -> Result<OwnedFd> {
        let inside = self.inside(&target)?;
        if inside == Path::new("proc") {
            return match procfs {
                true => Ok(target),
                false => invalid!("\"/proc\" cannot be mounted because it is not of type proc"),
            };
        }
        if !is_on_procfs(target.as_fd()) {
            return Ok(target);
        }
        let allowed = |below: &str| Path::new("proc").join(below) == inside;
        if PROC_OVERMOUNTS.iter().any(|p| allowed(p)) || allowed(PROC_OVERMOUNT_FIPS) {
            return Ok(target);
        }
        invalid!(
            "{:?} cannot be mounted because it is inside /proc",
            Path::new("/").join(&inside).display().to_string()
        )
    }

    /// A new file system.
    fn mount_new(&self, target: &OwnedFd, fstype: &str, source: &str, options: &Options) -> Result<()> {
        if options.data.len() > MAX_DATA {
            let mounted = new_mount(fstype, source, options)
                .context("mounting with options of more than a page (Linux 5.2)")?;
            return Ok(sys::move_mount(mounted.as_fd(), target.as_fd())?);
        }
        let place = via(target.as_fd());
        mount(Some(source), &place, Some(fstype), flags(options.set), data(options).as_deref())?;
        Ok(())
    }

    fn bind(
        &self,
        one: &MountPlan,
        path: &Path,
        from: &Path,
        recursive: bool,
        opened: Option<BorrowedFd<'_>>,
    ) -> Result<()> {
        let is_directory = match opened {
            Some(fd) => nix::sys::stat::fstat(fd)?.st_mode & libc::S_IFMT == libc::S_IFDIR,
            None => std::fs::metadata(from).with_context(|| format!("stat {}", from.display()))?.is_dir(),
        };
        let make = if is_directory { Make::Directory } else { Make::File };
        let procfs = match opened {
            Some(fd) => is_on_procfs(fd),
            None => is_procfs(from),
        };
        let target = self.guarded(resolve_or_make(self.root(), path, make)?, procfs)?;
        let on_directory = nix::sys::stat::fstat(&target)?.st_mode & libc::S_IFMT == libc::S_IFDIR;
        if on_directory != is_directory {
            // What mount(2) says, and Docker looks for; move_mount(2) has EINVAL.
            return Err(Errno::ENOTDIR.into());
        }
        let (set, clear) = one.options.attributes();
        let own;
        let tree = match opened {
            Some(tree) => Ok(tree),
            None => match open_tree(from, recursive) {
                Ok(tree) => {
                    own = tree;
                    Ok(own.as_fd())
                }
                Err(e) => Err(e),
            },
        };
        let options = &one.options;
        match tree.map(|tree| (tree, attach(tree, target.as_fd(), set, clear, options))) {
            // The descriptor of the detached tree is one of the mount that it has become.
            Ok((tree, Ok(Attached::WithAttributes))) => propagate(tree, options),
            Ok((tree, Ok(Attached::Bare))) => remount_bound(tree, set | clear, options),
            // Linux before 5.2. What has its ids mapped is nothing that could be bound by path.
            Err(Errno::ENOSYS) | Ok((_, Err(Errno::ENOSYS))) if options.idmap.is_none() => {
                let rec = if recursive { MsFlags::MS_REC } else { MsFlags::empty() };
                mount(Some(from), &via(target.as_fd()), NONE, MsFlags::MS_BIND | rec, NONE)?;
                match set | clear == 0 && !needs_finish(options) {
                    true => Ok(()),
                    false => remount_bound(self.mounted_on(&target, path)?.as_fd(), set | clear, options),
                }
            }
            Err(Errno::ENOSYS) | Ok((_, Err(Errno::ENOSYS))) => {
                Err(Errno::ENOSYS).context("moving an id-mapped mount (Linux 5.12)")
            }
            Err(e) | Ok((_, Err(e))) => Err(e.into()),
        }
    }

    fn sysfs(&self, target: &OwnedFd, source: &str, options: &Options) -> Result<()> {
        match self.mount_new(target, "sysfs", source, options) {
            // Somebody else's network namespace: only the host's sysfs can be shown.
            Err(e) if e.errno() == Some(libc::EPERM) => bind_hosts(Path::new("/sys"), target, options),
            other => other,
        }
    }

    fn tmpfs(&mut self, path: &Path, source: &str, options: &Options) -> Result<()> {
        let existing = resolve(self.root(), path);
        let exists = existing.is_ok();
        let target = match existing {
            Err(Errno::ENOENT) => self.directory(path)?,
            other => self.guarded(other?, false)?,
        };
        let mut options = options.clone();
        if exists && !options.data.split(',').any(|o| o.starts_with("mode=")) {
            // The directory's own mode shows through, as with runc.
            let mode = nix::sys::stat::fstat(&target)?.st_mode & 0o7777;
            let comma = if options.data.is_empty() { "" } else { "," };
            options.data = format!("{}{comma}mode={mode:o}", options.data);
        }
        let readonly = options.is_readonly();
        options.set &= !libc::MS_RDONLY;
        if !readonly && !options.tmpcopyup && !needs_finish(&options) {
            return self.mount_new(&target, "tmpfs", source, &options);
        }
        let attached = new_mount("tmpfs", source, &options).and_then(|mounted| {
            sys::move_mount(mounted.as_fd(), target.as_fd())?;
            Ok(mounted)
        });
        let mounted = match attached {
            Ok(mounted) => mounted,
            // Linux before 5.2.
            Err(e) if e.errno() == Some(libc::ENOSYS) => {
                self.mount_new(&target, "tmpfs", source, &options)?;
                self.mounted_on(&target, path)?
            }
            Err(e) => return Err(e),
        };
        if options.tmpcopyup {
            copy_up(&target, &mounted).context("tmpcopyup")?;
        }
        finish(mounted.as_fd(), &options)?;
        if readonly {
            self.readonly_later.push(mounted);
        }
        Ok(())
    }

    fn cgroup_v1(
        &mut self,
        target: &OwnedFd,
        path: &Path,
        options: &Options,
        namespaced: bool,
        hierarchies: &[Hierarchy],
    ) -> Result<()> {
        let readonly = options.is_readonly();
        let set = options.set & !(libc::MS_RDONLY | libc::MS_BIND);
        let top = Options { set, data: "mode=755".into(), ..Options::default() };
        self.mount_new(target, "tmpfs", "tmpfs", &top)?;
        let base = resolve(self.root(), path)?;
        for one in hierarchies {
            let name = Path::new(&one.name);
            let directory = resolve_or_make(base.as_fd(), name, Make::Directory)?;
            let place = via(directory.as_fd());
            let ro = if readonly { libc::MS_RDONLY } else { 0 };
            if namespaced {
                mount(Some("cgroup"), &place, Some("cgroup"), flags(set | ro), Some(one.data.as_str()))
                    .with_context(|| format!("cgroup hierarchy {}", one.name))?;
            } else {
                mount(Some(&one.path), &place, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)
                    .with_context(|| format!("cgroup hierarchy {}", one.name))?;
                let all = flags(set | ro | libc::MS_BIND | libc::MS_REMOUNT);
                let mounted = resolve(base.as_fd(), name)?;
                mount(NONE, &via(mounted.as_fd()), NONE, all, NONE)?;
            }
            for link in &one.links {
                match nix::unistd::symlinkat(one.name.as_str(), &base, link.as_str()) {
                    Err(Errno::EEXIST) => {}
                    other => other.with_context(|| format!("link {link}"))?,
                }
            }
        }
        if readonly {
            self.readonly_later.push(base);
        }
        Ok(())
    }

    fn cgroup_v2(&self, target: &OwnedFd, path: &Path, options: &Options, fallback: &Path) -> Result<()> {
        match self.mount_new(target, "cgroup2", "cgroup", options) {
            // In a user namespace without a cgroup namespace of its own.
            Err(e) if matches!(e.errno(), Some(libc::EPERM | libc::EBUSY)) => {}
            other => return other,
        }
        match bind_hosts(fallback, target, options) {
            // Linux before 5.12. A bind of one mount alone, which the kernel refuses where it would uncover something, needs no
            // flags below it.
            Err(e) if e.errno() == Some(libc::ENOSYS) => {
                mount(Some(fallback), &via(target.as_fd()), NONE, MsFlags::MS_BIND, NONE)?;
                set_flags(self.mounted_on(target, path)?.as_fd(), options)
            }
            other => other,
        }
    }
}

/// Shows the host's own where a new one can't be had. What lies below it, as the cgroup hierarchies below /sys, has the options asked
/// for as well (CVE-2023-25809).
fn bind_hosts(from: &Path, target: &OwnedFd, options: &Options) -> Result<()> {
    const HELD: u64 = libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    let set = crate::plan::rootfs::options::attribute_bits(options.set & HELD);
    let tree = open_tree(from, true)
        .with_context(|| format!("opening the host's {} (Linux 5.12)", from.display()))?;
    sys::mount_setattr(tree.as_fd(), true, set, 0, None)
        .with_context(|| format!("setting the options of the host's {} (Linux 5.12)", from.display()))?;
    sys::move_mount(tree.as_fd(), target.as_fd())
        .with_context(|| format!("attaching the host's {} (Linux 5.12)", from.display()))
}

fn is_procfs(path: &Path) -> bool {
    use nix::sys::statfs::{statfs, PROC_SUPER_MAGIC};
    statfs(path).is_ok_and(|s| s.filesystem_type() == PROC_SUPER_MAGIC)
}

fn open_tree(from: &Path, recursive: bool) -> Result<OwnedFd, Errno> {
    let name = CString::new(from.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    sys::open_tree(nix::fcntl::AT_FDCWD, &name, recursive)
}

enum Attached {
    WithAttributes,
    /// Linux before 5.12: they are to be set by a remount.
    Bare,
}

/// Attaches a detached tree, which has its attributes before anybody can reach it.
fn attach(
    tree: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    set: u64,
    clear: u64,
    options: &Options,
) -> Result<Attached, Errno> {
    let attributes = match set | clear {
        0 => Ok(()),
        _ => sys::mount_setattr(tree, false, set, clear, None),
    };
    let attached = match attributes.and_then(|()| set_recursive(tree, options)) {
        Err(Errno::ENOSYS) => Attached::Bare,
        other => other.map(|()| Attached::WithAttributes)?,
    };
    sys::move_mount(tree, target).map(|()| attached)
}

/// Gives a bound mount its flags where mount_setattr(2) is missing: any other bind has them before it is attached.
fn remount_bound(mounted: BorrowedFd<'_>, change: u64, options: &Options) -> Result<()> {
    if change != 0 {
        set_flags(mounted, options)?;
    }
    finish(mounted, options)
}

fn set_flags(mounted: BorrowedFd<'_>, options: &Options) -> Result<()> {
    let present = sys::present_flags(mounted)? & !options.clear;
    let all = flags((options.set & PER_MOUNT) | present | libc::MS_REMOUNT | libc::MS_BIND);
    Ok(mount(NONE, &via(mounted), NONE, all, NONE)?)
}

fn needs_finish(options: &Options) -> bool {
    options.recursive_set | options.recursive_clear != 0 || !options.propagation.is_empty()
}

/// What is asked for a mount besides its flags.
fn finish(mounted: BorrowedFd<'_>, options: &Options) -> Result<()> {
    set_recursive(mounted, options).context("setting recursive mount attributes (Linux 5.12)")?;
    propagate(mounted, options)
}

fn set_recursive(mounted: BorrowedFd<'_>, options: &Options) -> Result<(), Errno> {
    match options.recursive_set | options.recursive_clear {
        0 => Ok(()),
        _ => sys::mount_setattr(mounted, true, options.recursive_set, options.recursive_clear, None),
    }
}

/// Once it is attached: what is attached below a shared mount becomes shared.
fn propagate(mounted: BorrowedFd<'_>, options: &Options) -> Result<()> {
    for flag in &options.propagation {
        mount(NONE, &via(mounted), NONE, flags(*flag), NONE).context("setting propagation")?;
    }
    Ok(())
}

/// A new file system, attached nowhere.
fn new_mount(fstype: &str, source: &str, options: &Options) -> Result<OwnedFd> {
    let c = |text: &str| CString::new(text).map_err(|_| Error::invalid("a mount option holds a NUL byte"));
    let of_all = [
        ("sync", libc::MS_SYNCHRONOUS),
        ("dirsync", libc::MS_DIRSYNC),
        ("mand", libc::MS_MANDLOCK),
        ("lazytime", libc::MS_LAZYTIME),
    ];
    let of_all = of_all.iter().filter(|(_, flag)| options.set & flag != 0).map(|(name, _)| *name);
    let pairs: Vec<(CString, Option<CString>)> = split_data(&options.data)
        .chain(of_all)
        .map(|option| match option.split_once('=') {
            Some((key, value)) => Ok((c(key)?, Some(c(value.trim_matches('"'))?))),
            None => Ok((c(option)?, None)),
        })
        .collect::<Result<_>>()?;
    let borrowed: Vec<_> = pairs.iter().map(|(k, v)| (k.as_c_str(), v.as_deref())).collect();
    let attributes = crate::plan::rootfs::options::attribute_bits(options.set);
    Ok(sys::new_mount(&c(fstype)?, &c(source)?, &borrowed, attributes)?)
}

/// Options one by one; the commas of an SELinux label stand between quotes.
fn split_data(data: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    let separator = move |c: char| {
        quoted ^= c == '"';
        c == ',' && !quoted
    };
    data.split(separator).filter(|option| !option.is_empty())
}

/// The number by which mount tables know the mount that a file was opened on.
fn mount_id(fd: BorrowedFd<'_>) -> Result<u32> {
    let name = format!("/proc/self/fdinfo/{}", fd.as_raw_fd());
    let text = std::fs::read_to_string(&name).with_context(|| format!("reading {name}"))?;
    let number = text.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok());
    number.ok_or_else(|| Error::invalid(format!("{name} names no mount")))
}

/// Whether mount `number` lies at `place` of the mount `parent`, by a mount table.
fn is_mounted_on(table: &str, number: u32, parent: u32, place: &Path) -> bool {
    table.lines().any(|line| {
        let mut fields = line.split(' ');
        let mut next = || fields.next().and_then(|field| field.parse::<u32>().ok());
        next() == Some(number)
            && next() == Some(parent)
            && fields.nth(2).is_some_and(|point| super::unescaped(point) == place)
    })
}

fn data(options: &Options) -> Option<String> {
    (!options.data.is_empty()).then(|| options.data.clone())
}

/// Copies what the tmpfs hides into it.
fn copy_up(from: &OwnedFd, to: &OwnedFd) -> Result<()> {
    let directory = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let from = nix::fcntl::openat(from, ".", directory, Mode::empty())?;
    let to = nix::fcntl::openat(to, ".", directory, Mode::empty())?;
    copy_tree(from.as_fd(), to.as_fd())
}

fn copy_tree(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    let mut entries = nix::dir::Dir::openat(from, ".", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    for entry in entries.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        copy_entry(from, to, name).with_context(|| format!("copying {name:?}"))?;
    }
    Ok(())
}

fn copy_entry(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &std::ffi::CStr) -> Result<()> {
    use nix::fcntl::{openat, AtFlags};
    let stat = nix::sys::stat::fstatat(from, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    let mode = Mode::from_bits_truncate(stat.st_mode & 0o7777);
    let owner = (Some(stat.st_uid.into()), Some(stat.st_gid.into()));
    match stat.st_mode & libc::S_IFMT {
        libc::S_IFDIR => {
            nix::sys::stat::mkdirat(to, name, mode)?;
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let (source, made) =
                (openat(from, name, flags, Mode::empty())?, openat(to, name, flags, Mode::empty())?);
            copy_tree(source.as_fd(), made.as_fd())?;
            nix::unistd::fchown(&made, owner.0, owner.1)?;
            nix::sys::stat::fchmod(&made, mode)?;
        }
        libc::S_IFREG => {
            let read = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let write =
                OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let mut source = File::from(openat(from, name, read, Mode::empty())?);
            let mut made = File::from(openat(to, name, write, mode)?);
            std::io::copy(&mut source, &mut made)?;
            nix::unistd::fchown(&made, owner.0, owner.1)?;
            nix::sys::stat::fchmod(&made, mode)?;
        }
        libc::S_IFLNK => {
            let target = nix::fcntl::readlinkat(from, name)?;
            nix::unistd::symlinkat(target.as_os_str(), to, name)?;
            nix::unistd::fchownat(to, name, owner.0, owner.1, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        }
        _ => {
            nix::sys::stat::mknodat(
                to,
                name,
                nix::sys::stat::SFlag::from_bits_truncate(stat.st_mode & libc::S_IFMT),
                mode,
                stat.st_rdev,
            )?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_with_labels_are_split_between_them() {
        let data = "size=1m,,context=\"a:b:c:s0:c1,c2\",mode=755";
        let found: Vec<_> = split_data(data).collect();
        assert_eq!(found, ["size=1m", "context=\"a:b:c:s0:c1,c2\"", "mode=755"]);
        assert_eq!(split_data("").count(), 0);
    }

    #[test]
    fn a_mount_is_known_by_what_it_lies_on() {
        let table = "30 22 0:21 / /r/v\\040/a rw - tmpfs tmpfs rw\n31 22 0:21 / /r/b rw - tmpfs tmpfs rw\n";
        assert!(is_mounted_on(table, 30, 22, Path::new("/r/v /a")));
        assert!(!is_mounted_on(table, 31, 22, Path::new("/r/v /a")));
        assert!(!is_mounted_on(table, 30, 23, Path::new("/r/v /a")));
    }
}
