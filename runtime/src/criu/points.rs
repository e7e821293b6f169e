//! Mount points for a restore: criu wants them to be there.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::mounts::is_bind;
use crate::error::{Context, Result};
use crate::init::rootfs::path::{resolve_or_make, Make};
use crate::spec::Mount;

/// Makes the missing ones, in the rootfs or in the source of the bind mount that they lie on. Those on a tmpfs come
/// back with its content, those of cgroups with their parent.
pub fn make(rootfs: &Path, bundle: &Path, mounts: &[Mount]) -> Result<()> {
    for (i, mount) in mounts.iter().enumerate() {
        let kind = mount.kind.as_deref().unwrap_or_default();
        if matches!(kind, "cgroup" | "cgroup2") {
            continue;
        }
        let below = |m: &&Mount| {
            let path = Path::new(&mount.destination);
            path != Path::new(&m.destination) && path.starts_with(&m.destination)
        };
        let parent = mounts[..i].iter().rev().find(below);
        let (base, path) = match parent {
            Some(m) if is_bind(m) => {
                let rest =
                    Path::new(&mount.destination).strip_prefix(&m.destination).unwrap_or(Path::new(""));
                (bundle.join(m.source.as_deref().unwrap_or_default()), rest.to_path_buf())
            }
            // A file system of its own: empty but for what criu puts there.
            Some(_) => continue,
            None => (rootfs.to_path_buf(), PathBuf::from(&mount.destination)),
        };
        let source = bundle.join(mount.source.as_deref().unwrap_or_default());
        let make = if !is_bind(mount) || source.is_dir() { Make::Directory } else { Make::File };
        point(&base, &path, make)
            .with_context(|| format!("creating the mount point of {}", mount.destination))?;
    }
    Ok(())
}

/// Looked up inside `base`: no link leads out of it.
fn point(base: &Path, path: &Path, make: Make) -> Result<()> {
    let root = File::open(base).with_context(|| format!("open {}", base.display()))?;
    resolve_or_make(root.as_fd(), path, make)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn points_stay_inside() {
        let base = std::env::temp_dir().join(format!("hydra-points-{}", std::process::id()));
        let (rootfs, source) = (base.join("rootfs"), base.join("source"));
        fs::create_dir_all(rootfs.join("var")).unwrap();
        fs::create_dir_all(&source).unwrap();
        fs::write(base.join("file"), "").unwrap();
        std::os::unix::fs::symlink("../../../run", rootfs.join("var/run")).unwrap();
        fs::create_dir(rootfs.join("run")).unwrap();
        let mount = |destination: &str, kind: &str, source: &Path| Mount {
            destination: destination.into(),
            kind: Some(kind.into()),
            source: Some(source.display().to_string()),
            ..Default::default()
        };
        let mounts = [
            mount("/proc", "proc", Path::new("proc")),
            mount("/var/run/x/y", "bind", &base.join("file")),
            mount("/data", "bind", &source),
            mount("/data/sub/deep", "bind", &source),
            mount("/proc/nothing", "tmpfs", Path::new("t")),
        ];
        make(&rootfs, &base, &mounts).unwrap();
        assert!(
            rootfs.join("proc").is_dir() && rootfs.join("run/x/y").is_file() && rootfs.join("data").is_dir()
        );
        assert!(source.join("sub/deep").is_dir() && !rootfs.join("data/sub").exists());
        assert!(!rootfs.join("proc/nothing").exists() && !base.join("run").exists());
        make(&rootfs, &base, &mounts).unwrap();
        fs::remove_dir_all(&base).unwrap();
    }
}
