//! From a path to the block devices whose rates can be limited.
//!
//! Limits hold for whole disks, and for the devices that stand for themselves: device-mapper, md, loop. A partition
//! stands for its disk.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use crate::error::{invalid, Context, Error, Kind, Result};
use crate::inside::{self, Links};
use crate::sys::stat::identify;

/// A block device by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Device {
    pub major: u32,
    pub minor: u32,
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// `MAJ:MIN`
impl FromStr for Device {
    type Err = Error;

    fn from_str(text: &str) -> Result<Device> {
        let numbers = text.split_once(':').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
        match numbers {
            Some((major, minor)) => Ok(Device { major, minor }),
            None => invalid!("\"{text}\" is no device number such as 8:0"),
        }
    }
}

/// One line of mountinfo.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mount {
    id: u64,
    device: Device,
    point: PathBuf,
    kind: String,
    source: String,
    options: String,
}

/// The host's devices and the mounts of one mount namespace.
#[derive(Debug)]
pub struct Host {
    sys: PathBuf,
    mounts: Vec<Mount>,
}

/// How deep an overlay may lie on another.
const DEPTH: u32 = 8;

impl Host {
    /// With the mounts that this process sees.
    pub fn new() -> Result<Host> {
        let path = "/proc/self/mountinfo";
        let text = fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
        Ok(Host::with("/sys", &text))
    }

    /// With a tree like /sys and the text of a mountinfo file.
    pub fn with(sys: impl Into<PathBuf>, mountinfo: &str) -> Host {
        Host { sys: sys.into(), mounts: mountinfo.lines().filter_map(parse).collect() }
    }

    /// The devices behind a path of this process's mount namespace: one for most file systems, several for btrfs and
    /// for an overlay whose layers lie on different disks. An error says why there is none.
    pub fn devices(&self, path: &Path) -> Result<Vec<Device>> {
        let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
        let fd = nix::fcntl::open(path, flags, Mode::empty());
        let fd = fd.with_context(|| format!("opening {}", path.display()))?;
        self.behind(&fd, self, path, 0).map(|found| found.into_iter().collect())
    }

    /// The devices behind a path as the process `pid` sees it, links followed inside its root.
    pub fn devices_in(&self, pid: i32, path: &Path) -> Result<Vec<Device>> {
        let file = format!("/proc/{pid}/mountinfo");
        let text = fs::read_to_string(&file).with_context(|| format!("reading {file}"))?;
        let inner = Host::with(&self.sys, &text);
        let flags = OFlag::O_PATH | OFlag::O_CLOEXEC | OFlag::O_DIRECTORY;
        let root = nix::fcntl::open(format!("/proc/{pid}/root").as_str(), flags, Mode::empty());
        let fd = root.and_then(|root| inside::resolve(root.as_fd(), path, Links::Inside));
        let fd = fd.with_context(|| format!("opening {} in the container", path.display()))?;
        self.behind(&fd, &inner, path, 0).map(|found| found.into_iter().collect())
    }

    /// The devices behind the mounts in the text of a mountinfo file: each file system once, whatever lies over it. An error
    /// says of one why there is none; file systems without devices are passed over.
    pub fn behind_mounts(&self, mountinfo: &str) -> Vec<Result<Vec<Device>>> {
        let mut seen = BTreeSet::new();
        let stacked = |m: &Mount| matches!(m.kind.as_str(), "overlay" | "btrfs");
        let mounts = mountinfo.lines().filter_map(parse);
        let mounts = mounts.filter(|m| (m.device.major != 0 || stacked(m)) && seen.insert(m.device));
        mounts.map(|m| self.under(&m, &m.point, 0).map(|set| set.into_iter().collect())).collect()
    }

    /// The same for what is mounted below a directory, with the mount points.
    pub fn below(&self, dir: &Path) -> Vec<(PathBuf, Result<Vec<Device>>)> {
        let below = self.mounts.iter().filter(|m| m.point != dir && m.point.starts_with(dir));
        let found = |m: &Mount| self.under(m, &m.point, 0).map(|set| set.into_iter().collect());
        below.map(|m| (m.point.clone(), found(m))).collect()
    }

    /// The device that limits apply to for a device number or node: the disk of a partition.
    pub fn limitable(&self, device: Device) -> Result<Device> {
        let entry = self.sys.join(format!("dev/block/{device}"));
        if !entry.exists() {
            return Err(Error::new(Kind::NotFound, format!("there is no block device {device}")));
        }
        if !entry.join("partition").exists() {
            return Ok(device);
        }
        // The kernel's directory of a partition lies in that of its disk.
        let parent = entry.join("../dev");
        let text = fs::read_to_string(&parent).with_context(|| format!("reading {}", parent.display()))?;
        text.trim().parse()
    }

    /// All disks that hardware (or a hypervisor) stands behind: no loop, RAM, device-mapper or md devices, no empty or
    /// optical drives.
    pub fn disks(&self) -> Vec<Device> {
        let entries = fs::read_dir(self.sys.join("block")).into_iter().flatten().flatten();
        let mut found: Vec<Device> = entries.filter_map(|e| real_disk(&e.path())).collect();
        found.sort();
        found
    }

    /// The name under /dev.
    pub fn name(&self, device: Device) -> Option<String> {
        let text = fs::read_to_string(self.sys.join(format!("dev/block/{device}/uevent"))).ok()?;
        text.lines().find_map(|l| l.strip_prefix("DEVNAME=")).map(str::to_string)
    }

    fn behind(&self, fd: &OwnedFd, seen: &Host, path: &Path, depth: u32) -> Result<BTreeSet<Device>> {
        let identity = identify(fd.as_fd()).with_context(|| format!("looking at {}", path.display()))?;
        if identity.mode & libc::S_IFMT == libc::S_IFBLK {
            let (major, minor) = identity.node;
            return Ok(BTreeSet::from([self.limitable(Device { major, minor })?]));
        }
        // By the id of the mount: st_dev of btrfs and overlay is an anonymous number that mountinfo does not show.
        let mount = seen.mounts.iter().find(|m| m.id == identity.mount).ok_or_else(|| {
            Error::new(Kind::NotFound, format!("{}: its mount is not in mountinfo", path.display()))
        })?;
        self.under(mount, path, depth)
    }

    fn under(&self, mount: &Mount, path: &Path, depth: u32) -> Result<BTreeSet<Device>> {
        let none = |why: &str| Err(Error::unsupported(format!("{}: {why}", path.display())));
        match mount.kind.as_str() {
            "overlay" if depth < DEPTH => self.layers(mount, path, depth),
            "btrfs" => self.btrfs(mount, path),
            kind if mount.device.major == 0 => {
                none(&format!("{kind} has no block device that could be limited"))
            }
            _ => Ok(BTreeSet::from([self.limitable(mount.device)?])),
        }
    }

    /// Writes go to the upper layer; reads also to the lower ones, as far as their paths can be found.
    fn layers(&self, mount: &Mount, path: &Path, depth: u32) -> Result<BTreeSet<Device>> {
        let upper = option(&mount.options, "upperdir");
        let lower = option(&mount.options, "lowerdir").unwrap_or_default();
        let mut found = BTreeSet::new();
        // Docker gives lower layers relative to the directory above those of its layers.
        let base =
            upper.as_deref().map(Path::new).and_then(|u| u.parent()?.parent()).unwrap_or(Path::new("/"));
        let layer = |dir: &Path| {
            let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
            let fd = nix::fcntl::open(dir, flags, Mode::empty());
            let fd =
                fd.with_context(|| format!("opening {}, a layer of {}", dir.display(), path.display()))?;
            self.behind(&fd, self, dir, depth + 1)
        };
        if let Some(upper) = &upper {
            found.extend(layer(Path::new(upper))?);
        }
        for dir in lower.split(':').filter(|d| !d.is_empty()) {
            found.extend(layer(&base.join(dir)).unwrap_or_default());
        }
        match found.is_empty() {
            true => {
                Err(Error::unsupported(format!("{}: no layer of the overlay can be found", path.display())))
            }
            false => Ok(found),
        }
    }

    /// All devices of the btrfs file system that the mount's source belongs to.
    fn btrfs(&self, mount: &Mount, path: &Path) -> Result<BTreeSet<Device>> {
        let systems = fs::read_dir(self.sys.join("fs/btrfs")).into_iter().flatten().flatten();
        let devices = |dir: PathBuf| -> BTreeSet<Device> {
            let entries = fs::read_dir(dir).into_iter().flatten().flatten();
            entries
                .filter_map(|e| fs::read_to_string(e.path().join("dev")).ok()?.trim().parse().ok())
                .collect()
        };
        let mut systems: Vec<_> = systems.map(|e| devices(e.path().join("devices"))).collect();
        systems.retain(|s| !s.is_empty());
        let source = node(Path::new(&mount.source));
        let found = match (&source, systems.as_slice()) {
            (Some(source), _) => systems.iter().find(|s| s.contains(source)),
            // A source such as /dev/root.
            (None, [only]) => Some(only),
            (None, _) => None,
        };
        let found = found.ok_or_else(|| {
            let text = format!("{}: the devices of btrfs on {} can't be found", path.display(), mount.source);
            Error::unsupported(text)
        })?;
        found.iter().map(|d| self.limitable(*d)).collect()
    }
}

/// The number of a block device node.
fn node(path: &Path) -> Option<Device> {
    let fd = nix::fcntl::open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).ok()?;
    let identity = identify(fd.as_fd()).ok()?;
    let (major, minor) = identity.node;
    (identity.mode & libc::S_IFMT == libc::S_IFBLK).then_some(Device { major, minor })
}

fn real_disk(dir: &Path) -> Option<Device> {
    let read = |file: &str| fs::read_to_string(dir.join(file)).ok().map(|t| t.trim().to_string());
    // virtio, SCSI, NVMe and the like have a parent device.
    let physical = dir.join("device").exists() && read("hidden").as_deref() != Some("1");
    let name = dir.file_name()?.to_str()?;
    let optical = name.starts_with("sr") || name.starts_with("fd");
    let empty = read("size").as_deref() == Some("0");
    if physical && !optical && !empty {
        read("dev")?.parse().ok()
    } else {
        None
    }
}

/// The value of an option in a comma list, its octal escapes undone.
fn option(options: &str, key: &str) -> Option<String> {
    let found = options.split(',').find_map(|o| o.strip_prefix(key)?.strip_prefix('='))?;
    Some(unescape(found))
}

/// `\040` and the like.
fn unescape(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let code =
            bytes.get(i + 1..i + 4).and_then(|d| u8::from_str_radix(std::str::from_utf8(d).ok()?, 8).ok());
        match code {
            Some(code) if bytes[i] == b'\\' => {
                out.push(code);
                i += 4;
            }
            _ => {
                out.push(bytes[i]);
                i += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn parse(line: &str) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ');
    let id = left.next()?.parse().ok()?;
    let device = left.nth(1)?.parse().ok()?;
    let point = PathBuf::from(unescape(left.nth(1)?));
    let mut right = right.splitn(3, ' ');
    let (kind, source, options) = (right.next()?, right.next()?, right.next().unwrap_or(""));
    Some(Mount { id, device, point, kind: kind.into(), source: unescape(source), options: options.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree like /sys: vda with a partition, a loop device, an optical drive, a dm device.
    fn sys() -> PathBuf {
        use std::os::unix::fs::symlink;
        let root = std::env::temp_dir().join(format!("cgroup-block-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        let disk = |name: &str, dev: &str, size: &str, real: bool| {
            let dir = root.join("block").join(name);
            fs::create_dir_all(&dir).unwrap();
            fs::create_dir_all(root.join("dev/block")).unwrap();
            fs::write(dir.join("dev"), dev).unwrap();
            fs::write(dir.join("size"), size).unwrap();
            fs::write(dir.join("uevent"), format!("MAJOR=1\nDEVNAME={name}\n")).unwrap();
            if real {
                fs::create_dir_all(dir.join("device")).unwrap();
            }
            symlink(&dir, root.join("dev/block").join(dev)).unwrap();
        };
        disk("vda", "254:0", "100", true);
        disk("loop0", "7:0", "100", false);
        disk("sr0", "11:0", "100", true);
        disk("dm-0", "253:0", "100", false);
        disk("sdx", "8:0", "0", true);
        disk("vda/vda1", "254:1", "50", false);
        fs::write(root.join("block/vda/vda1/partition"), "1").unwrap();
        root
    }

    #[test]
    fn disks_and_partitions() {
        let root = sys();
        let host = Host::with(&root, "");
        assert_eq!(host.disks(), [Device { major: 254, minor: 0 }]);
        let limitable = |d: &str| host.limitable(d.parse().unwrap()).map(|d| d.to_string());
        assert_eq!(limitable("254:1").unwrap(), "254:0");
        assert_eq!(limitable("253:0").unwrap(), "253:0");
        assert_eq!(limitable("9:9").unwrap_err().kind(), Kind::NotFound);
        assert_eq!(host.name("7:0".parse().unwrap()).unwrap(), "loop0");
        let mount = |text: &str| host.under(&parse(text).unwrap(), Path::new("/x"), 0);
        let one = mount("30 1 254:1 / / rw shared:1 - ext4 /dev/vda1 rw").unwrap();
        assert_eq!(one.first().unwrap().to_string(), "254:0");
        let e = mount("31 1 0:40 / /t rw - tmpfs none rw").unwrap_err();
        assert_eq!(e.to_string(), "/x: tmpfs has no block device that could be limited");
        // The loop device is covered, and the disk is there twice.
        let text = "1 0 254:1 / / rw - ext4 /dev/vda1 rw\n2 1 7:0 / /data rw - ext4 /dev/loop0 rw\n\
                    3 1 0:30 / /data rw - tmpfs tmpfs rw\n4 1 254:1 /x /y rw - ext4 /dev/vda1 rw\n";
        let found: Vec<String> =
            host.behind_mounts(text).into_iter().map(|found| found.unwrap()[0].to_string()).collect();
        assert_eq!(found, ["254:0", "7:0"]);
        let host = Host::with(
            &root,
            "1 0 254:1 / / rw - ext4 /dev/vda1 rw\n2 1 7:0 / /a/b rw - ext4 /dev/loop0 rw\n",
        );
        let below =
            |dir: &str| host.below(Path::new(dir)).into_iter().map(|(point, _)| point).collect::<Vec<_>>();
        assert_eq!(below("/a"), [PathBuf::from("/a/b")]);
        assert!(below("/a/b").is_empty());
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn mountinfo_is_read() {
        let line = "36 35 0:52 / /a\\040b rw,relatime shared:1 master:2 - overlay overlay \
                    rw,lowerdir=l/A:l/B,upperdir=/v/x\\054y/diff,workdir=/v/x/work";
        let mount = parse(line).unwrap();
        assert_eq!((mount.id, mount.device.minor), (36, 52));
        assert_eq!(mount.point, Path::new("/a b"));
        assert_eq!(option(&mount.options, "upperdir").unwrap(), "/v/x,y/diff");
        assert_eq!(option(&mount.options, "lowerdir").unwrap(), "l/A:l/B");
        assert_eq!(option(&mount.options, "upper"), None);
    }

    #[test]
    fn this_host() {
        let host = Host::new().unwrap();
        let e = host.devices(Path::new("/proc/self")).unwrap_err();
        assert_eq!(e.kind(), Kind::Unsupported);
        assert!(e.to_string().contains("proc has no block device"), "{e}");
        let inside = host.devices_in(std::process::id() as i32, Path::new("/../proc/self/status"));
        assert!(inside.is_err());
        match host.devices(Path::new("/")) {
            Ok(found) => assert!(found.iter().all(|d| host.limitable(*d).unwrap() == *d)),
            Err(e) => println!("SKIP the root file system has no block device ({e})"),
        }
    }

    #[test]
    fn bad_numbers_are_refused() {
        for bad in ["8", "8:x", ":", "8:0:1", "-1:0"] {
            assert!(bad.parse::<Device>().is_err(), "{bad}");
        }
    }
}
