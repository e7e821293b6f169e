//! Which mounts of a container criu leaves to us: those that come from outside of it.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use cgroup::Location;

use crate::spec::{Mount, Spec};

/// A line of mountinfo.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    root: String,
    target: String,
    kind: String,
}

fn parse(line: &str) -> Option<Line> {
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ').skip(3);
    Some(Line {
        root: unescape(left.next()?),
        target: unescape(left.next()?),
        kind: right.split(' ').next()?.to_string(),
    })
}

/// The kernel writes a space as `\040`.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = tail.get(..3).and_then(|d| u8::from_str_radix(std::str::from_utf8(d).ok()?, 8).ok());
        match (byte, octal) {
            (b'\\', Some(decoded)) => {
                bytes.push(decoded);
                rest = &tail[3..];
            }
            _ => {
                bytes.push(byte);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// For a dump, (key, value): the mounts that config.json binds, cgroup v1 hierarchies, devices and masked files. The
/// value is the name under which restore finds them again.
pub fn external(spec: &Spec, rootfs: &Path, mountinfo: &str) -> Vec<(String, String)> {
    let binds: BTreeSet<String> =
        spec.mounts.iter().filter(|m| is_bind(m)).map(|m| resolve(rootfs, &m.destination)).collect();
    let linux = spec.linux.as_ref();
    let devices: BTreeSet<&str> =
        linux.map(|l| l.devices.iter().map(|d| d.path.as_str()).collect()).unwrap_or_default();
    let cgroup_namespace = has_namespace(spec, "cgroup");
    let mut found = Vec::new();
    for line in mountinfo.lines().filter_map(parse) {
        let target = line.target;
        let masked = line.root == "/null" && linux.is_some_and(|l| l.masked_paths.contains(&target));
        let device = devices.contains(target.as_str())
            || (target.starts_with("/dev/") && DEVICES.contains(&&target[5..]));
        let cgroup = matches!(line.kind.as_str(), "cgroup" | "cgroup2") && !cgroup_namespace;
        if masked {
            found.push((target, "/dev/null".to_string()));
        } else if binds.contains(&target) || device || cgroup {
            found.push((target.clone(), target));
        }
    }
    found.sort();
    found.dedup();
    found
}

/// For a restore, (key, source).
pub fn sources(
    spec: &Spec,
    bundle: &Path,
    rootfs: &Path,
    cgroup: Option<&Location>,
) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for mount in &spec.mounts {
        if is_bind(mount) {
            let source = bundle.join(mount.source.as_deref().unwrap_or_default());
            found.push((resolve(rootfs, &mount.destination), source.display().to_string()));
        } else if mount.kind.as_deref() == Some("cgroup") && !has_namespace(spec, "cgroup") {
            for branch in cgroup.iter().flat_map(|l| &l.branches) {
                let Some(name) = branch.mount.file_name() else { continue };
                let key = Path::new(&mount.destination).join(name);
                found.push((key.display().to_string(), branch.path.display().to_string()));
            }
        }
    }
    let linux = spec.linux.as_ref();
    if linux.is_some_and(|l| !l.masked_paths.is_empty()) {
        found.push(("/dev/null".into(), "/dev/null".into()));
    }
    let own = linux.into_iter().flat_map(|l| l.devices.iter().map(|d| d.path.clone()));
    found.extend(DEVICES.iter().map(|d| format!("/dev/{d}")).chain(own).map(|path| (path.clone(), path)));
    found
}

/// Devices that are bound, not made, in a user namespace.
const DEVICES: &[&str] = &["null", "zero", "full", "random", "urandom", "tty"];

pub fn has_namespace(spec: &Spec, kind: &str) -> bool {
    spec.linux.as_ref().is_some_and(|l| l.namespaces.iter().any(|n| n.kind == kind))
}

pub fn is_bind(mount: &Mount) -> bool {
    mount.kind.as_deref() == Some("bind") || mount.options.iter().any(|o| o == "bind" || o == "rbind")
}

/// The path under `rootfs` that a path inside leads to: symbolic links count as from inside. A key for criu, nothing
/// is opened by it.
pub fn resolve(rootfs: &Path, path: &str) -> String {
    let mut real = PathBuf::from("/");
    let mut todo: Vec<PathBuf> = parts(Path::new(path));
    let mut links = 0;
    while let Some(part) = todo.pop() {
        if part == Path::new("..") {
            real.pop();
            continue;
        }
        let next = real.join(&part);
        let inside = rootfs.join(next.strip_prefix("/").unwrap_or(&next));
        match std::fs::read_link(&inside) {
            Ok(target) if links < 40 => {
                links += 1;
                if target.is_absolute() {
                    real = PathBuf::from("/");
                }
                todo.extend(parts(&target));
            }
            _ => real = next,
        }
    }
    real.display().to_string()
}

/// The parts of a path, last first.
fn parts(path: &Path) -> Vec<PathBuf> {
    let keep = |c: Component<'_>| match c {
        Component::Normal(name) => Some(PathBuf::from(name)),
        Component::ParentDir => Some(PathBuf::from("..")),
        _ => None,
    };
    path.components().rev().filter_map(keep).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_mountinfo() {
        let line = "36 35 98:0 /mnt1 /a\\040b rw,noatime master:1 - ext3 /dev/root rw";
        let want = Line { root: "/mnt1".into(), target: "/a b".into(), kind: "ext3".into() };
        assert_eq!(parse(line), Some(want));
    }

    #[test]
    fn links_lead_nowhere_outside() {
        let root = std::env::temp_dir().join(format!("hydra-criu-{}", std::process::id()));
        std::fs::create_dir_all(root.join("run")).unwrap();
        std::fs::create_dir_all(root.join("var")).unwrap();
        std::os::unix::fs::symlink("/run", root.join("var/run")).unwrap();
        std::os::unix::fs::symlink("../../../../etc", root.join("run/out")).unwrap();
        assert_eq!(resolve(&root, "/var/run/docker.sock"), "/run/docker.sock");
        assert_eq!(resolve(&root, "/var/run/out/x"), "/etc/x");
        assert_eq!(resolve(&root, "/../.././a"), "/a");
        std::fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn what_a_dump_leaves_out() {
        let spec: Spec = serde_json::from_str(
            r#"{"ociVersion":"1.0.0","mounts":[{"destination":"/data","source":"/src","options":["rbind"]},
                {"destination":"/proc","type":"proc"}],
                "linux":{"maskedPaths":["/proc/kcore","/proc/acpi"],"namespaces":[]}}"#,
        )
        .unwrap();
        let info = "1 0 0:1 / / rw - overlay o rw\n2 1 0:2 / /proc rw - proc proc rw\n\
                    3 2 0:6 /null /proc/kcore rw - devtmpfs d rw\n4 2 0:9 / /proc/acpi ro - tmpfs t ro\n\
                    5 1 8:1 /x /data rw - ext4 /dev/sda rw\n6 1 0:3 /c /sys/fs/cgroup/cpu rw - cgroup cgroup rw\n";
        let found = external(&spec, Path::new("/nonexistent"), info);
        let want =
            [("/data", "/data"), ("/proc/kcore", "/dev/null"), ("/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu")];
        assert_eq!(found, want.map(|(a, b)| (a.to_string(), b.to_string())));
    }
}
