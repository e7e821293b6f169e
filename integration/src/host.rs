//! What this machine is: its cgroups, its patience, the program under test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// Whose program is under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    Hydra,
    Runc,
    Crun,
}

/// Whose program is under test, from the first word of its `--version`.
pub fn peer() -> Peer {
    static PEER: OnceLock<Peer> = OnceLock::new();
    *PEER.get_or_init(|| {
        let out =
            Command::new(runtime()).arg("--version").output().expect("the program under test can't be run");
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        match text.split_whitespace().next() {
            Some("runc") => Peer::Runc,
            Some("crun") => Peer::Crun,
            _ => Peer::Hydra,
        }
    })
}

/// The program under test: `$RUNTIME`, else this workspace's release build.
pub fn runtime() -> PathBuf {
    match std::env::var_os("RUNTIME") {
        Some(path) => path.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/runtime"),
    }
}

/// The monitor beside it.
pub fn shim() -> PathBuf {
    let runtime = fs::canonicalize(runtime()).unwrap_or_else(|_| runtime());
    runtime.with_file_name("shim")
}

/// Where programs are looked for: the tests' own `$PATH`, whose first folders may hold other engines than the system's, and
/// the system's folders.
pub fn path() -> String {
    format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", std::env::var("PATH").unwrap_or_default())
}

/// The first program of this name there.
pub fn program(name: &str) -> Option<PathBuf> {
    path().split(':').filter(|d| !d.is_empty()).map(|d| Path::new(d).join(name)).find(|p| p.exists())
}

/// The major version of the containerd that is found there, 0 if there is none.
pub fn containerd() -> u32 {
    let text =
        program("containerd").map(|p| Command::new(p).arg("--version").output().expect("containerd").stdout);
    let text = String::from_utf8_lossy(&text.unwrap_or_default()).into_owned();
    let version =
        text.split_whitespace().find_map(|w| w.trim_start_matches('v').split('.').next()?.parse().ok());
    version.unwrap_or(0)
}

/// After how long something that was to happen is taken to hang. Emulated machines set `PATIENCE` higher.
pub fn patience() -> Duration {
    let seconds = std::env::var("PATIENCE").ok().and_then(|s| s.parse().ok()).unwrap_or(60);
    Duration::from_secs(seconds)
}

/// Whether only a part of long loops is wanted (`QUICK=1`).
pub fn quick() -> bool {
    std::env::var_os("QUICK").is_some_and(|v| v != "0" && !v.is_empty())
}

/// Whether one of these groups was taken from the kernel by the program `without`.
pub fn lacks(groups: &[&str]) -> bool {
    let taken = std::env::var("WITHOUT").unwrap_or_default();
    taken.split(',').any(|group| groups.contains(&group))
}

/// Whether containers go to systemd's care (`CGROUP_DRIVER=systemd`).
pub fn systemd_driver() -> bool {
    std::env::var("CGROUP_DRIVER").is_ok_and(|d| d == "systemd")
}

/// Has systemd read its units again. On v1 it makes every container's list of devices anew then: for a moment all of them are denied
/// /dev/null, whoever runs them.
pub fn daemon_reload() {
    let _turn = without_reloads();
    crate::Run::new("systemctl").args(["daemon-reload"]).ok();
}

/// As long as this is kept, no other test has systemd do that.
pub fn without_reloads() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether the kernel is older than this version.
pub fn kernel_before(major: u32, minor: u32) -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map_while(|n| n.trim().parse::<u32>().ok());
    (numbers.next().unwrap_or(u32::MAX), numbers.next().unwrap_or(0)) < (major, minor)
}

/// How the host's cgroups are mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cgroups {
    V1,
    Hybrid,
    V2,
}

pub fn cgroups() -> Cgroups {
    if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        Cgroups::V2
    } else if Path::new("/sys/fs/cgroup/unified/cgroup.procs").exists() {
        Cgroups::Hybrid
    } else {
        Cgroups::V1
    }
}

/// A process in a mount namespace without the v2 part of a hybrid host, which crun refuses; what is written there lands in a
/// tmpfs. Whoever wants it longer than the process opens its namespace.
pub fn without_unified() -> Child {
    let script = "umount /sys/fs/cgroup/unified && mount -t tmpfs none /sys/fs/cgroup/unified; echo; exec sleep 1000000";
    let mut holder = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", script])
        .stdout(Stdio::piped())
        .spawn()
        .expect("unshare");
    // The line says that the mounts are done.
    let _ = std::io::Read::read(holder.stdout.as_mut().expect("stdout"), &mut [0]);
    holder
}

/// Whether every v1 hierarchy that is in use is mounted where it belongs. containerd's shim neither hears of OOM nor has
/// figures while somebody has, say, net_cls mounted elsewhere.
pub fn every_hierarchy_is_mounted() -> bool {
    let text = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let names = text.lines().filter_map(|l| l.split(':').nth(1)).filter(|n| !n.is_empty());
    let mut names = names.map(|n| n.trim_start_matches("name="));
    names.all(|n| Path::new("/sys/fs/cgroup").join(n).join("cgroup.procs").exists())
}

/// The folders in which a cgroup of the given path below the root may exist: one for v2, one a hierarchy for v1.
pub fn cgroup_dirs(path: &str) -> Vec<PathBuf> {
    let base = Path::new("/sys/fs/cgroup");
    let path = path.trim_start_matches('/');
    if cgroups() == Cgroups::V2 {
        return vec![base.join(path)];
    }
    let mut dirs: Vec<_> = fs::read_dir(base)
        .into_iter()
        .flatten()
        .flatten()
        // A folder without this file is no hierarchy but an empty mount point.
        .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()) && e.path().join("cgroup.procs").exists())
        .map(|e| e.path().join(path))
        .collect();
    dirs.sort();
    dirs
}

/// The folder of one v1 controller, or the one of v2, for a cgroup's path below the root.
pub fn cgroup_dir(controller: &str, path: &str) -> PathBuf {
    let path = path.trim_start_matches('/');
    match cgroups() {
        Cgroups::V2 => Path::new("/sys/fs/cgroup").join(path),
        _ => Path::new("/sys/fs/cgroup").join(controller).join(path),
    }
}

/// The host's mounts whose mount point lies below `dir`, innermost first.
pub fn mounts_below(dir: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut found: Vec<PathBuf> = text
        .lines()
        .filter_map(|l| l.split(' ').nth(4))
        .map(PathBuf::from)
        .filter(|p| p.starts_with(dir))
        .collect();
    found.reverse();
    found
}

/// How many mounts this process sees.
pub fn mount_count() -> usize {
    fs::read_to_string("/proc/self/mountinfo").map_or(0, |t| t.lines().count())
}

/// How many folders there are below the test's part of every cgroup hierarchy.
pub fn cgroup_count() -> usize {
    fn below(dir: &Path) -> usize {
        let dirs = fs::read_dir(dir).into_iter().flatten().flatten().filter(|e| e.path().is_dir());
        dirs.map(|e| 1 + below(&e.path())).sum()
    }
    cgroup_dirs("").iter().map(|d| below(d)).sum()
}

/// The processes that have `needle` in their command line or environment, but for systemd's agent, which the kernel itself starts
/// with the path of a v1 cgroup that has become empty.
pub fn processes_with(needle: &str) -> Vec<i32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else { continue };
        let holds = |file: &str| {
            let bytes = fs::read(entry.path().join(file)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).contains(needle)
        };
        let agent =
            || fs::read(entry.path().join("comm")).is_ok_and(|name| name.starts_with(b"systemd-cgroups"));
        if pid != std::process::id() as i32 && (holds("cmdline") || holds("environ")) && !agent() {
            found.push(pid);
        }
    }
    found
}

/// Whether a process is there and no zombie.
pub fn alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(')').next().and_then(|rest| rest.trim().chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}
