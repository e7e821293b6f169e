//! Mounts that containerd asks for: the snapshot that becomes the container's rootfs.

use crate::api::Mount;
use crate::error::{Context, Error, Kind, Result};
use nix::mount::{mount as sys_mount, MsFlags};
use std::path::Path;

/// One page is what the kernel takes as options.
const PAGE: usize = 4096;

/// Splits mount options into flags and the file system's own data.
fn options(options: &[String]) -> (MsFlags, String) {
    let mut flags = MsFlags::empty();
    let mut data: Vec<&str> = Vec::new();
    for option in options {
        match option.as_str() {
            "ro" => flags |= MsFlags::MS_RDONLY,
            "rw" => flags &= !MsFlags::MS_RDONLY,
            "bind" => flags |= MsFlags::MS_BIND,
            "rbind" => flags |= MsFlags::MS_BIND | MsFlags::MS_REC,
            "nosuid" => flags |= MsFlags::MS_NOSUID,
            "nodev" => flags |= MsFlags::MS_NODEV,
            "noexec" => flags |= MsFlags::MS_NOEXEC,
            "noatime" => flags |= MsFlags::MS_NOATIME,
            "nodiratime" => flags |= MsFlags::MS_NODIRATIME,
            "relatime" => flags |= MsFlags::MS_RELATIME,
            "strictatime" => flags |= MsFlags::MS_STRICTATIME,
            "sync" => flags |= MsFlags::MS_SYNCHRONOUS,
            "dirsync" => flags |= MsFlags::MS_DIRSYNC,
            "defaults" | "suid" | "dev" | "exec" | "atime" | "async" | "loop" => {}
            other => data.push(other),
        }
    }
    (flags, data.join(","))
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

pub fn mount(mount: &Mount, target: &Path) -> Result<()> {
    let (flags, mut data) = options(&mount.options);
    if mount.options.iter().any(|o| o == "loop") {
        return Err(Error::new(
            Kind::Unsupported,
            "loop mounts are made by containerd's mount manager, not by this shim",
        ));
    }
    if data.len() >= PAGE {
        if let Some((directory, short)) = shorten(&data) {
            std::env::set_current_dir(&directory).context(|| format!("entering {directory}"))?;
            data = short;
        }
    }
    let kind = if mount.kind == "bind" { None } else { Some(mount.kind.as_str()) };
    sys_mount(Some(mount.source.as_str()), target, kind, flags, (!data.is_empty()).then_some(data.as_str()))?;
    let read_only = MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    if flags.contains(read_only) {
        // A bind mount takes its flags in a second step.
        sys_mount(None::<&str>, target, None::<&str>, flags | MsFlags::MS_REMOUNT, None::<&str>)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_split() {
        let strings = |s: &[&str]| s.iter().map(|s| s.to_string()).collect::<Vec<_>>();
        let (flags, data) = options(&strings(&["rbind", "ro", "lowerdir=/a:/b", "index=off"]));
        assert_eq!(flags, MsFlags::MS_BIND | MsFlags::MS_REC | MsFlags::MS_RDONLY);
        assert_eq!(data, "lowerdir=/a:/b,index=off");
    }

    #[test]
    fn long_overlay_options_become_relative() {
        let (directory, short) = shorten("lowerdir=/s/12/fs:/s/1/fs,upperdir=/s/13/fs").unwrap();
        assert_eq!((directory.as_str(), short.as_str()), ("/s/", "lowerdir=12/fs:1/fs,upperdir=/s/13/fs"));
    }
}
