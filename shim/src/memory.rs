//! A container's cgroup, as the monitor needs it: was something killed for want of memory, and the figures for `stats`.

mod v1;
mod v2;

use crate::api::{Any, StatsResponse};
use crate::error::Result;
use crate::pb::{message, Message};
use crate::state::Task;
use crate::sys::Fd;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use std::path::{Path, PathBuf};

const MOUNT: &str = "/sys/fs/cgroup";

message! {
    struct NetworkStat {
        1 name: String, 2 rx_bytes: u64, 3 rx_packets: u64, 4 rx_errors: u64, 5 rx_dropped: u64, 6 tx_bytes: u64,
        7 tx_packets: u64, 8 tx_errors: u64, 9 tx_dropped: u64,
    }
    struct RdmaEntry { 1 device: String, 2 hca_handles: u64, 3 hca_objects: u64 }
    struct RdmaStat { 1 current: Vec<RdmaEntry>, 2 limit: Vec<RdmaEntry> }
}

/// The lines of /proc/PID/cgroup, kept as text: they say all there is to know about where a process is.
pub fn cgroup_of(pid: u32) -> Option<String> {
    std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()
}

/// The container's directory in one v1 hierarchy.
fn v1_dir(cgroup: &str, controller: &str) -> Option<PathBuf> {
    cgroup.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (names, path) = (parts.next()?, parts.next()?);
        names.split(',').any(|n| n == controller).then(|| {
            let one = Path::new(MOUNT).join(controller);
            let mount = if one.exists() { one } else { Path::new(MOUNT).join(names) };
            mount.join(path.trim_start_matches('/'))
        })
    })
}

/// The container's directory where there is one hierarchy alone.
fn v2_dir(cgroup: &str) -> Option<PathBuf> {
    let path = cgroup.lines().find_map(|l| l.strip_prefix("0::"))?;
    let directory = Path::new(MOUNT).join(path.trim_start_matches('/'));
    Path::new(MOUNT).join("cgroup.controllers").exists().then_some(directory)
}

fn text(directory: &Path, file: &str) -> String {
    std::fs::read_to_string(directory.join(file)).unwrap_or_default()
}

/// A file that holds one number, or "max".
fn value(directory: &Path, file: &str) -> u64 {
    match text(directory, file).trim() {
        "max" => u64::MAX,
        number => number.parse().unwrap_or(0),
    }
}

/// `name value` lines.
fn pairs(text: &str) -> impl Iterator<Item = (&str, u64)> {
    text.lines().filter_map(|l| {
        let (name, value) = l.split_once(' ')?;
        Some((name, value.trim().parse().ok()?))
    })
}

/// How many processes were killed because of this container's memory limit.
pub fn oom_kills(cgroup: &str) -> Option<u64> {
    let (directory, file) = match v2_dir(cgroup) {
        Some(d) => (d, "memory.events"),
        None => (v1_dir(cgroup, "memory")?, "memory.oom_control"),
    };
    let text = std::fs::read_to_string(directory.join(file)).ok()?;
    let kills = pairs(&text).find(|(name, _)| *name == "oom_kill").map(|(_, n)| n);
    kills
}

/// A descriptor that becomes readable when there may have been an OOM: inotify on v2, an eventfd on v1.
pub fn watch(cgroup: &str) -> Option<Fd> {
    use nix::sys::{eventfd, inotify};
    if let Some(directory) = v2_dir(cgroup) {
        let flags = inotify::InitFlags::IN_CLOEXEC | inotify::InitFlags::IN_NONBLOCK;
        let watch = inotify::Inotify::init(flags).ok()?;
        watch.add_watch(&directory.join("memory.events"), inotify::AddWatchFlags::IN_MODIFY).ok()?;
        return Some(Fd::keep(watch.into()));
    }
    let directory = v1_dir(cgroup, "memory")?;
    let flags = eventfd::EfdFlags::EFD_CLOEXEC | eventfd::EfdFlags::EFD_NONBLOCK;
    let event = eventfd::EventFd::from_value_and_flags(0, flags).ok()?;
    let control = nix::fcntl::open(
        &directory.join("memory.oom_control"),
        OFlag::O_RDONLY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
    .ok()?;
    let line = format!("{} {}", crate::sys::number(&event).0, crate::sys::number(&control).0);
    std::fs::write(directory.join("cgroup.event_control"), line).ok()?;
    Some(Fd::keep(event.into()))
}

pub fn stats(task: &Task) -> Result<Vec<u8>> {
    let network = network(task.init.pid);
    let any = match v2_dir(&task.cgroup) {
        Some(directory) => Any::of("io.containerd.cgroups.v2.Metrics", &v2::metrics(&directory, network)),
        None => Any::of("io.containerd.cgroups.v1.Metrics", &v1::metrics(&task.cgroup, network)),
    };
    Ok(StatsResponse { stats: any }.bytes())
}

/// The interfaces of the container's network namespace, loopback left out.
fn network(pid: u32) -> Vec<NetworkStat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default();
    text.lines()
        .filter_map(|line| {
            let (name, rest) = line.split_once(':')?;
            let n: Vec<u64> = rest.split_ascii_whitespace().filter_map(|n| n.parse().ok()).collect();
            let name = name.trim();
            (name != "lo" && n.len() >= 12).then(|| NetworkStat {
                name: name.into(),
                rx_bytes: n[0],
                rx_packets: n[1],
                rx_errors: n[2],
                rx_dropped: n[3],
                tx_bytes: n[8],
                tx_packets: n[9],
                tx_errors: n[10],
                tx_dropped: n[11],
            })
        })
        .collect()
}

/// `DEVICE hca_handle=N hca_object=N` lines.
fn rdma(directory: &Path) -> Option<RdmaStat> {
    let entries = |file: &str| -> Vec<RdmaEntry> {
        let number = |text: &str, key: &str| {
            let value = text.split_ascii_whitespace().find_map(|w| w.strip_prefix(key)).unwrap_or("0");
            value.parse().unwrap_or(u64::from(u32::MAX))
        };
        let line = |l: &str| {
            let (device, rest) = l.split_once(' ')?;
            Some(RdmaEntry {
                device: device.into(),
                hca_handles: number(rest, "hca_handle="),
                hca_objects: number(rest, "hca_object="),
            })
        };
        text(directory, file).lines().filter_map(line).collect()
    };
    directory
        .join("rdma.current")
        .exists()
        .then(|| RdmaStat { current: entries("rdma.current"), limit: entries("rdma.max") })
}

/// Page sizes that the kernel has, as the names of the files have them ("2MB").
fn huge_pages(directory: &Path) -> Vec<String> {
    let names = std::fs::read_dir(directory).into_iter().flatten().flatten();
    names
        .filter_map(|e| {
            let name = e.file_name().into_string().ok()?;
            let size = name.strip_prefix("hugetlb.")?.split('.').next()?.to_string();
            (name.ends_with(".max") || name.ends_with(".limit_in_bytes"))
                .then_some(size)
                .filter(|_| !name.contains("rsvd"))
        })
        .collect()
}
