//! Mounts that containerd asks for: the snapshot that becomes the container's rootfs.

use crate::api::Mount;
use crate::error::{Context, Error, Kind, Result};
use crate::sys::{self, Fd, Side};
use nix::mount::{mount as sys_mount, MsFlags};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicI32;

/// One page is what the kernel takes as options.
const PAGE: usize = 4096;

/// Mount options: what the kernel has flags for, what is the file system's own, and what is done here.
struct Options {
    flags: MsFlags,
    data: Vec<String>,
    /// Ids of the file system's owners are to be seen as others: `INSIDE:OUTSIDE:COUNT[,...]`.
    uids: String,
    gids: String,
    /// The source is a file that is to be a device.
    device: bool,
}

fn options(options: &[String]) -> Options {
    let (uids, gids) = (String::new(), String::new());
    let mut all = Options { flags: MsFlags::empty(), data: Vec::new(), uids, gids, device: false };
    for option in options {
        let flags = &mut all.flags;
        match option.as_str() {
            "ro" => *flags |= MsFlags::MS_RDONLY,
            "rw" => *flags &= !MsFlags::MS_RDONLY,
            "bind" => *flags |= MsFlags::MS_BIND,
            "rbind" => *flags |= MsFlags::MS_BIND | MsFlags::MS_REC,
            "nosuid" => *flags |= MsFlags::MS_NOSUID,
            "nodev" => *flags |= MsFlags::MS_NODEV,
            "noexec" => *flags |= MsFlags::MS_NOEXEC,
            "noatime" => *flags |= MsFlags::MS_NOATIME,
            "nodiratime" => *flags |= MsFlags::MS_NODIRATIME,
            "relatime" => *flags |= MsFlags::MS_RELATIME,
            "strictatime" => *flags |= MsFlags::MS_STRICTATIME,
            "sync" => *flags |= MsFlags::MS_SYNCHRONOUS,
            "dirsync" => *flags |= MsFlags::MS_DIRSYNC,
            "loop" => all.device = true,
            "defaults" | "suid" | "dev" | "exec" | "atime" | "async" => {}
            other => match other.split_once('=') {
                Some(("uidmap", map)) => all.uids = map.into(),
                Some(("gidmap", map)) => all.gids = map.into(),
                _ => all.data.push(other.into()),
            },
        }
    }
    all
}

/// Overlay options longer than a page are written relative to the directory that all lower layers share.
fn shorten(data: &str) -> Option<(String, String)> {
    let lower = data.split(',').find_map(|o| o.strip_prefix("lowerdir="))?;
    let first = lower.split(':').next()?;
    let mut common = &first[..first.rfind('/')? + 1];
    while !lower.split(':').all(|l| l.starts_with(common)) {
        common = &common[..common[..common.len() - 1].rfind('/')? + 1];
    }
    let short = lower.split(':').map(|l| &l[common.len()..]).collect::<Vec<_>>().join(":");
    Some((common.to_string(), data.replacen(lower, &short, 1)))
}

/// In a job's process. `own` is a directory that nothing of the mount lies in.
pub fn mount(mount: &Mount, target: &Path, own: &Path) -> Result<()> {
    if let Some((helper, kind)) = helper(&mount.kind) {
        return by_helper(helper, kind, mount, target);
    }
    let options = options(&mount.options);
    if options.uids.is_empty() != options.gids.is_empty() {
        return Err(Error::new(Kind::Invalid, "uidmap and gidmap come together or not at all"));
    }
    if !options.uids.is_empty() {
        return mapped(mount, target, own, options);
    }
    let flags = options.flags;
    let mut data = options.data.join(",");
    if data.len() >= PAGE {
        if let Some((directory, short)) = shorten(&data) {
            std::env::set_current_dir(&directory).context(|| format!("entering {directory}"))?;
            data = short;
        }
    }
    let mut source = PathBuf::from(&mount.source);
    // Held until the mount holds it.
    let mut _device = None;
    if options.device {
        let (device, path) = sys::loop_device(&source, flags.contains(MsFlags::MS_RDONLY))
            .context(|| format!("making a device of {}", source.display()))?;
        (_device, source) = (Some(device), path);
    }
    let kind = if mount.kind == "bind" { None } else { Some(mount.kind.as_str()) };
    sys_mount(Some(&source), target, kind, flags, (!data.is_empty()).then_some(data.as_str()))?;
    let read_only = MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    if flags.contains(read_only) {
        // A bind mount takes its flags in a second step.
        sys_mount(None::<&str>, target, None::<&str>, flags | MsFlags::MS_REMOUNT, None::<&str>)?;
    }
    Ok(())
}

/// The program that mounts file systems of this kind, and their name for it.
fn helper(kind: &str) -> Option<(&'static str, &str)> {
    let fuse = kind.strip_prefix("fuse.").map(|k| ("mount.fuse", k));
    fuse.or_else(|| kind.strip_prefix("fuse3.").map(|k| ("mount.fuse3", k)))
}

fn by_helper(helper: &str, kind: &str, mount: &Mount, target: &Path) -> Result<()> {
    let mut command = std::process::Command::new(helper);
    command.arg(&mount.source).arg(target);
    for option in &mount.options {
        command.args(["-o", option]);
    }
    let out = command.args(["-t", kind]).output().context(|| format!("executing {helper}"))?;
    match out.status.success() {
        true => Ok(()),
        false => {
            let said = String::from_utf8_lossy(&out.stderr).trim().to_string();
            Err(Error::system(format!("{helper}: {}: {said}", out.status)))
        }
    }
}

/// The owners of what a pod with a user namespace has are others than those of its image's layers: each layer is mounted with its
/// ids mapped, and overlay put on these. All but the last step is done in a mount namespace of this process alone, so that
/// nothing is left in the host's when it dies: a layer mounted in the bundle would be removed with that.
fn mapped(mount: &Mount, target: &Path, own: &Path, options: Options) -> Result<()> {
    let users = user_namespace(&options.uids, &options.gids)?;
    let read_only = options.flags.contains(MsFlags::MS_RDONLY);
    let tree = match mount.kind.as_str() {
        "overlay" => overlay(&users, own, options)?,
        _ if options.flags.contains(MsFlags::MS_BIND) => {
            let recursive = options.flags.contains(MsFlags::MS_REC);
            map(Path::new(&mount.source), &users, recursive, read_only)?
        }
        kind => {
            let text = format!("uidmap and gidmap are known for overlay and bind mounts, not for {kind}");
            return Err(Error::new(Kind::Unsupported, text));
        }
    };
    sys::move_mount(&tree, target).context(|| "moving the mount to its place")
}

fn map(path: &Path, users: &OwnedFd, recursive: bool, read_only: bool) -> Result<OwnedFd> {
    let tree = sys::open_tree(path, recursive).context(|| format!("opening {}", path.display()))?;
    sys::map_ids(&tree, users, recursive, read_only).context(|| {
        format!(
            "mapping the ids of {} (Linux 5.12, with overlay 5.19, and a file system that can)",
            path.display()
        )
    })?;
    Ok(tree)
}

/// An overlay with mapped layers, which is attached nowhere.
fn overlay(users: &OwnedFd, own: &Path, options: Options) -> Result<OwnedFd> {
    use nix::sched::{setns, unshare, CloneFlags};
    let (lower, mut data): (Vec<String>, Vec<String>) =
        options.data.into_iter().partition(|o| o.starts_with("lowerdir="));
    let lower = lower.first().and_then(|l| l.strip_prefix("lowerdir="));
    let lower = lower.ok_or_else(|| Error::new(Kind::Invalid, "an overlay without lowerdir"))?;
    let host = std::fs::File::open("/proc/self/ns/mnt")?;
    unshare(CloneFlags::CLONE_NEWNS).context(|| "making a mount namespace")?;
    let none = None::<&str>;
    sys_mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    sys_mount(Some("tmpfs"), own, Some("tmpfs"), MsFlags::empty(), none)
        .context(|| format!("mounting a tmpfs on {}", own.display()))?;
    std::env::set_current_dir(own).context(|| format!("entering {}", own.display()))?;
    let mut names = Vec::new();
    for (n, layer) in lower.split(':').enumerate() {
        let name = n.to_string();
        std::fs::create_dir(&name)?;
        sys::move_mount(&map(Path::new(layer), users, false, false)?, Path::new(&name))
            .context(|| format!("mounting the layer {layer}"))?;
        names.push(name);
    }
    data.push(format!("lowerdir={}", names.join(":")));
    std::fs::create_dir("merged")?;
    sys_mount(Some("overlay"), "merged", Some("overlay"), options.flags, Some(data.join(",").as_str()))
        .context(|| "mounting overlay on the mapped layers")?;
    let tree = sys::open_tree(Path::new("merged"), false)?;
    setns(&host, CloneFlags::CLONE_NEWNS).context(|| "returning to the host's mount namespace")?;
    Ok(tree)
}

/// The kernel takes mappings from a user namespace alone, in which a process has to be for a moment.
fn user_namespace(uids: &str, gids: &str) -> Result<OwnedFd> {
    let (pid, pidfd) = (AtomicI32::new(0), AtomicI32::new(-1));
    if let Side::Child = sys::fork_user(&pid, &pidfd).context(|| "making a user namespace")? {
        // Nothing ends it if its maker is killed first.
        sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as u64);
        loop {
            nix::unistd::pause();
        }
    }
    let (pid, _pidfd) = (pid.into_inner(), Fd(pidfd.into_inner()).into_owned());
    let write = |file: &str, map: &str| {
        let lines: Vec<String> = map.split(',').map(|m| m.replace(':', " ")).collect();
        std::fs::write(format!("/proc/{pid}/{file}"), lines.join("\n"))
            .context(|| format!("mapping ids by {map}"))
    };
    let made = write("uid_map", uids)
        .and_then(|()| write("gid_map", gids))
        .and_then(|()| Ok(std::fs::File::open(format!("/proc/{pid}/ns/user"))?.into()));
    sys::end_child(pid);
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_split() {
        let strings = |s: &[&str]| s.iter().map(|s| s.to_string()).collect::<Vec<_>>();
        let all = [
            "rbind",
            "ro",
            "lowerdir=/a:/b",
            "index=off",
            "uidmap=0:1000:10,10:1:1",
            "gidmap=0:2000:10",
            "loop",
        ];
        let all = options(&strings(&all));
        assert_eq!(all.flags, MsFlags::MS_BIND | MsFlags::MS_REC | MsFlags::MS_RDONLY);
        assert_eq!(all.data, ["lowerdir=/a:/b", "index=off"]);
        assert_eq!(
            (all.uids.as_str(), all.gids.as_str(), all.device),
            ("0:1000:10,10:1:1", "0:2000:10", true)
        );
    }

    #[test]
    fn file_systems_of_users_have_a_helper() {
        assert_eq!(helper("fuse.stargz"), Some(("mount.fuse", "stargz")));
        assert_eq!(helper("fuse3.fuse-overlayfs"), Some(("mount.fuse3", "fuse-overlayfs")));
        assert_eq!(helper("fuseblk"), None);
    }

    #[test]
    fn long_overlay_options_become_relative() {
        let (directory, short) = shorten("lowerdir=/s/12/fs:/s/1/fs,upperdir=/s/13/fs").unwrap();
        assert_eq!((directory.as_str(), short.as_str()), ("/s/", "lowerdir=12/fs:1/fs,upperdir=/s/13/fs"));
    }
}
