//! What is kept of a container on disk, and its status, which is derived from facts.
//!
//! A container is a directory `ROOT/ID` (mode 0711) that holds
//! - `state.json`: written before the first side effect and replaced whole (temporary file, rename), so that a
//!   process killed at any instruction leaves something that `delete --force` can clean;
//! - `config.json`: the configuration as `create` read it (the specification forbids later changes to count);
//! - `exec.fifo`: its only reader is the waiting init, so `created` ends with the very `execve` of `start`;
//! - `start.err`: what went wrong in init after `start` let it go, if anything did.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::sys::stat::Mode;
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::error::{Context, Error, Kind, Result};
use crate::undo::Undo;

const STATE_FILE: &str = "state.json";
const CONFIG_FILE: &str = "config.json";
/// Read by the waiting init; see the module's text.
pub const EXEC_FIFO: &str = "exec.fifo";
pub const START_ERROR: &str = "start.err";
/// The layout of `state.json`; a higher one was written by a newer program and is refused. Without one it is the
/// `state.json` of another runtime: runc's has that name too, and may lie under the same root.
const VERSION: u32 = 1;
/// What may be in a container's directory while `state.json` isn't there yet, or no more: what is written before it,
/// and what `remove` takes away after it.
const WITHOUT_STATE: [&str; 7] =
    [CONFIG_FILE, ".state.json", "helper.lock", "update.json", "update.tmp", "criu-root", "notify"];

/// Where in its life a container is. Never stored: see [`Container::status`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        }
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// A process by what stays true when its number is used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    pub pid: i32,
    /// Field 22 of `/proc/PID/stat`: clock ticks after boot.
    pub start_time: u64,
}

/// The content of `state.json`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct State {
    pub version: u32,
    pub id: String,
    pub oci_version: String,
    pub bundle: PathBuf,
    pub rootfs: PathBuf,
    /// RFC 3339 with nanoseconds, UTC.
    pub created: String,
    /// The name of the user who ran `create`.
    pub owner: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Absent while the container is being created.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<ProcessId>,
    /// Where the container's processes are accounted; absent with the `disabled` manager.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<cgroup::Location>,
    /// Made without privileges over the host.
    pub rootless: bool,
    /// Its processes don't die with its first one: they are in somebody else's pid namespace.
    pub shares_pid_namespace: bool,
    /// Its session keyring is its own.
    pub has_keyring: bool,
    /// A monitor had it made.
    pub monitored: bool,
    /// Its configuration has hooks for after the start or the end.
    pub has_later_hooks: bool,
    /// What `delete` has to take back, in the order in which it was made.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub undo: Vec<Undo>,
    /// The layers of knobs and what they came to.
    #[serde(skip_serializing_if = "is_default")]
    pub knobs: crate::knobs::Saved,
}

impl State {
    /// A state as it is before anything was done.
    pub fn new(id: &str) -> State {
        State {
            version: VERSION,
            id: id.to_string(),
            created: clock::nanoseconds(SystemTime::now()),
            ..State::default()
        }
    }
}

/// `state` as the OCI specification defines it, for hooks and the seccomp listener.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OciState<'a> {
    pub oci_version: &'a str,
    pub id: &'a str,
    pub status: &'static str,
    #[serde(skip_serializing_if = "is_zero")]
    pub pid: i32,
    pub bundle: &'a Path,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: &'a BTreeMap<String, String>,
}

fn is_default(knobs: &crate::knobs::Saved) -> bool {
    *knobs == crate::knobs::Saved::default()
}

fn is_zero(n: &i32) -> bool {
    *n == 0
}

/// The directory that holds all containers of one `--root`.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    pub fn new(root: impl Into<PathBuf>) -> Store {
        Store { root: root.into() }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn dir(&self, id: &str) -> PathBuf {
        self.root.join(id)
    }

    /// Makes the directory of a new container. It is not locked: one whose `create` hangs, say in a hook, can be deleted
    /// with force. That `create` then fails, at the latest where it saves its state.
    ///
    /// # Errors
    /// `Kind::Exists` if the ID is taken.
    pub fn create(&self, id: &str) -> Result<Container> {
        check_id(id)?;
        let path = self.dir(id);
        let mut made = mkdir(&path, 0o711);
        if matches!(&made, Err(e) if e.kind() == std::io::ErrorKind::NotFound) {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&self.root)
                .with_context(|| format!("creating the state directory {}", self.root.display()))?;
            made = mkdir(&path, 0o711);
        }
        made.map_err(|e| match e.kind() {
            std::io::ErrorKind::AlreadyExists => {
                Error::new(Kind::Exists, "container with given ID already exists")
            }
            _ => Error::from(e).context(format!("creating the state directory {}", path.display())),
        })?;
        match open_dir(&path) {
            Ok(dir) => Ok(Container { path, dir, state: State::new(id) }),
            Err(e) => {
                // Else the name would be taken for ever by what nobody made.
                let _ = fs::remove_dir(&path);
                Err(Error::from(e).context(format!("opening {}", path.display())))
            }
        }
    }

    /// Reads a container's state.
    ///
    /// # Errors
    /// `Kind::NotFound` if there is no such container, or it is another runtime's.
    pub fn load(&self, id: &str) -> Result<Container> {
        check_id(id)?;
        let path = self.dir(id);
        let missing = || Error::new(Kind::NotFound, "container does not exist");
        let dir = match open_dir(&path) {
            Ok(dir) => dir,
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Err(missing()),
            Err(e) => return Err(Error::from(e).context(format!("opening {}", path.display()))),
        };
        match read_at(&dir, STATE_FILE) {
            Ok(text) => Ok(Container { state: parse(&path, &text)?, path, dir }),
            Err(Errno::ENOENT) => Err(missing()),
            Err(e) => Err(Error::from(e).context(format!("reading {}/{STATE_FILE}", path.display()))),
        }
    }

    /// Removes a directory whose state file was never written, or is removed already, by a command that was killed.
    ///
    /// # Errors
    /// When anything in it isn't ours: another runtime's container may be running.
    pub fn remove_without_state(&self, id: &str) -> Result<()> {
        check_id(id)?;
        let path = self.dir(id);
        let entries = match fs::read_dir(&path) {
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => return Ok(()),
            other => other.with_context(|| format!("reading {}", path.display()))?,
        };
        for entry in entries {
            let name = entry.with_context(|| format!("reading {}", path.display()))?.file_name();
            if !WITHOUT_STATE.iter().any(|ours| name == *ours) {
                return Err(Error::new(
                    Kind::State,
                    format!(
                        "{} is another runtime's container ({} in it isn't ours): delete it with that runtime",
                        path.display(),
                        name.to_string_lossy()
                    ),
                ));
            }
        }
        remove_dir(&path)
    }

    /// Every container under this root, by ID. Directories of other runtimes are passed over.
    pub fn list(&self) -> Result<Vec<Container>> {
        let entries = match fs::read_dir(&self.root) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.with_context(|| format!("reading {}", self.root.display()))?,
        };
        let mut ids: Vec<String> = entries
            .filter_map(|e| e.ok()?.file_name().into_string().ok())
            .filter(|n| check_id(n).is_ok())
            .collect();
        ids.sort();
        Ok(ids.iter().filter_map(|id| self.load(id).ok()).collect())
    }
}

/// One container: its directory and what `state.json` said.
#[derive(Debug)]
pub struct Container {
    path: PathBuf,
    dir: OwnedFd,
    pub state: State,
}

/// Held while a container is changed; given back when dropped or when its holder dies.
pub type Lock = Flock<OwnedFd>;

impl Container {
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether its directory has a file of that name.
    pub fn has(&self, name: &str) -> bool {
        let flags = nix::fcntl::AtFlags::empty();
        nix::unistd::faccessat(&self.dir, name, nix::unistd::AccessFlags::F_OK, flags).is_ok()
    }

    /// Waits until nobody else changes this container, and reads its state anew.
    ///
    /// # Errors
    /// When somebody else held the lock for all of `deadline`.
    pub fn lock(&mut self, deadline: Duration) -> Result<Lock> {
        let end = Instant::now() + deadline;
        let mut fd = open_dir(&self.path).with_context(|| format!("opening {}", self.path.display()))?;
        loop {
            match Flock::lock(fd, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => {
                    self.reload()?;
                    return Ok(lock);
                }
                Err((back, Errno::EWOULDBLOCK)) if Instant::now() < end => {
                    fd = back;
                    std::thread::sleep(Duration::from_millis(2));
                }
                Err((_, Errno::EWOULDBLOCK)) => {
                    return Err(Error::new(
                        Kind::State,
                        format!(
                            "another command has been changing container {} for {} s: wait for it or end it",
                            self.state.id,
                            deadline.as_secs()
                        ),
                    ))
                }
                Err((_, e)) => return Err(Error::from(e).context(format!("locking {}", self.path.display()))),
            }
        }
    }

    /// Whether another container has the name by now: this one was deleted while somebody worked on it.
    pub fn is_replaced(&self) -> bool {
        let own = nix::sys::stat::fstat(&self.dir).map(|s| (s.st_dev, s.st_ino));
        let found = nix::sys::stat::stat(&self.path).map(|s| (s.st_dev, s.st_ino));
        found.is_ok() && found != own
    }

    fn reload(&mut self) -> Result<()> {
        match read_at(&self.dir, STATE_FILE) {
            Ok(text) => self.state = parse(&self.path, &text)?,
            // A new container has no file yet; a deleted one is gone together with its directory.
            Err(Errno::ENOENT) if self.path.exists() => {}
            Err(Errno::ENOENT) => return Err(Error::new(Kind::NotFound, "container does not exist")),
            Err(e) => {
                return Err(Error::from(e).context(format!("reading {}/{STATE_FILE}", self.path.display())))
            }
        }
        Ok(())
    }

    /// Replaces `state.json` whole.
    pub fn save(&self) -> Result<()> {
        let text = serde_json::to_vec(&self.state).map_err(|e| Error::new(Kind::System, e.to_string()))?;
        self.write_file(STATE_FILE, &text)
    }

    /// Keeps the configuration as `create` saw it. Before the first `save`, as a container without a state is none.
    pub fn save_config(&self, text: &[u8]) -> Result<()> {
        self.create_file(CONFIG_FILE, text)
            .with_context(|| format!("writing {}/{CONFIG_FILE}", self.path.display()))
    }

    /// The configuration as `create` saw it.
    pub fn config(&self) -> Result<Vec<u8>> {
        read_at(&self.dir, CONFIG_FILE)
            .with_context(|| format!("reading {}", self.path.join(CONFIG_FILE).display()))
    }

    fn write_file(&self, name: &str, text: &[u8]) -> Result<()> {
        let temporary = format!(".{name}");
        let write = || -> Result<()> {
            self.create_file(&temporary, text)?;
            nix::fcntl::renameat(&self.dir, temporary.as_str(), &self.dir, name)?;
            Ok(())
        };
        write().with_context(|| format!("writing {}/{name}", self.path.display()))
    }

    fn create_file(&self, name: &str, text: &[u8]) -> Result<()> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC | OFlag::O_CLOEXEC;
        let fd = nix::fcntl::openat(&self.dir, name, flags, Mode::from_bits_truncate(0o600))?;
        Ok(File::from(fd).write_all(text)?)
    }

    /// Where the container is in its life, from the kernel's facts.
    pub fn status(&self) -> Status {
        let Some(init) = self.state.init else { return Status::Creating };
        if !is_alive(init) {
            return Status::Stopped;
        }
        if self.is_frozen() {
            return Status::Paused;
        }
        match open_fifo_writer(&self.dir) {
            Ok(_) => Status::Created,
            Err(_) => Status::Running,
        }
    }

    fn is_frozen(&self) -> bool {
        let Some(location) = &self.state.cgroup else { return false };
        cgroup::Cgroup::open_only(location, "freezer").and_then(|c| c.is_frozen()).unwrap_or(false)
    }

    /// The pid as `state` shows it: 0 once the container has stopped.
    pub fn visible_pid(&self, status: Status) -> i32 {
        match (status, self.state.init) {
            (Status::Stopped | Status::Creating, _) | (_, None) => 0,
            (_, Some(init)) => init.pid,
        }
    }

    /// What hooks and listeners are told about the container.
    pub fn oci_state(&self, status: Status, pid: i32) -> OciState<'_> {
        OciState {
            oci_version: &self.state.oci_version,
            id: &self.state.id,
            status: status.as_str(),
            pid,
            bundle: &self.state.bundle,
            annotations: &self.state.annotations,
        }
    }

    /// Opens the writing end of the fifo on which a created init waits. `ENXIO`: nobody waits (any more).
    pub fn open_exec_fifo(&self) -> Result<OwnedFd, Errno> {
        open_fifo_writer(&self.dir)
    }

    /// Removes the directory and all in it, the state last.
    pub fn remove(&self) -> Result<()> {
        use nix::unistd::{unlinkat, UnlinkatFlags::NoRemoveDir};
        for name in [CONFIG_FILE, EXEC_FIFO, START_ERROR, STATE_FILE] {
            // What can't be removed keeps the directory from being removed, which tells why.
            let _ = unlinkat(&self.dir, name, NoRemoveDir);
        }
        remove_dir(&self.path)
    }
}

fn remove_dir(path: &Path) -> Result<()> {
    match fs::remove_dir(path).or_else(|_| fs::remove_dir_all(path)) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::from(e).context(format!("removing {}", path.display())))
        }
        _ => Ok(()),
    }
}

fn open_fifo_writer(dir: impl AsFd) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_WRONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    nix::fcntl::openat(dir, EXEC_FIFO, flags, Mode::empty())
}

fn mkdir(path: &Path, mode: u32) -> std::io::Result<()> {
    fs::DirBuilder::new().mode(mode).create(path)
}

fn open_dir(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    nix::fcntl::open(path, flags, Mode::empty())
}

fn read_at(dir: impl AsFd, name: &str) -> Result<Vec<u8>, Errno> {
    use std::io::Read;
    let fd = nix::fcntl::openat(dir, name, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    let mut text = Vec::with_capacity(4096);
    File::from(fd)
        .read_to_end(&mut text)
        .map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO)))?;
    Ok(text)
}

fn parse(path: &Path, text: &[u8]) -> Result<State> {
    let state: State = serde_json::from_slice(text)
        .map_err(|e| Error::new(Kind::System, format!("reading {}/{STATE_FILE}: {e}", path.display())))?;
    if state.version == 0 {
        return Err(Error::new(
            Kind::NotFound,
            format!("container does not exist: {} is another runtime's", path.display()),
        ));
    }
    if state.version > VERSION {
        return Err(Error::unsupported(format!(
            "{}/{STATE_FILE} has version {}, written by a newer runtime; this one knows up to {VERSION}",
            path.display(),
            state.version
        )));
    }
    Ok(state)
}

/// Refuses an ID that runc would refuse.
pub fn check_id(id: &str) -> Result<()> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'+' | b'-' | b'.');
    if id.is_empty() || id == "." || id == ".." || id.len() > 1024 || !id.bytes().all(allowed) {
        return Err(Error::new(
            Kind::Invalid,
            format!("invalid container ID format: {id:?}: use letters, digits, '_', '+', '-' and '.'"),
        ));
    }
    Ok(())
}

/// Whether that very process still runs. A zombie doesn't.
pub fn is_alive(process: ProcessId) -> bool {
    match stat(process.pid) {
        Some((state, _, start_time)) => {
            start_time == process.start_time && !matches!(state, b'Z' | b'X' | b'x')
        }
        None => false,
    }
}

/// Names a running process for `state.json`.
pub fn identify(pid: i32) -> Result<ProcessId> {
    let (_, _, start_time) = stat(pid)
        .ok_or_else(|| Error::new(Kind::State, format!("process {pid} ended before it was ready")))?;
    Ok(ProcessId { pid, start_time })
}

/// The parent of a process.
pub fn parent(pid: i32) -> Option<i32> {
    stat(pid).map(|(_, parent, _)| parent)
}

fn stat(pid: i32) -> Option<(u8, i32, u64)> {
    use std::io::Read;
    // It comes with one read: some fifty numbers of at most twenty digits, and a short name.
    let mut text = [0u8; 1536];
    let length = File::open(format!("/proc/{pid}/stat")).ok()?.read(&mut text).ok()?;
    parse_stat(&text[..length])
}

/// State, parent and start time from `/proc/PID/stat`; the name in parentheses may hold anything.
fn parse_stat(text: &[u8]) -> Option<(u8, i32, u64)> {
    let end = text.iter().rposition(|&b| b == b')')?;
    let rest = std::str::from_utf8(text.get(end + 2..)?).ok()?;
    let mut fields = rest.split(' ');
    let state = *fields.next()?.as_bytes().first()?;
    Some((state, fields.next()?.parse().ok()?, fields.nth(17)?.parse().ok()?))
}

/// Makes the fifo on which init waits, and opens it so that the open end is its only reader.
pub fn make_exec_fifo(container: &Container) -> Result<OwnedFd> {
    nix::unistd::mkfifoat(&container.dir, EXEC_FIFO, Mode::from_bits_truncate(0o600))
        .with_context(|| format!("creating {}/{EXEC_FIFO}", container.path.display()))?;
    // Read-write: opening doesn't wait for the other side, and there is no end of file when a prober closes.
    let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC;
    nix::fcntl::openat(&container.dir, EXEC_FIFO, flags, Mode::empty())
        .with_context(|| format!("opening {}/{EXEC_FIFO}", container.path.display()))
}

/// Makes the file in which init leaves what went wrong after `start` let it go.
pub fn make_start_error(container: &Container) -> Result<OwnedFd> {
    let path = container.path.join(START_ERROR);
    let file = File::options()
        .append(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("creating {}", path.display()))?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_survives_a_hostile_name() {
        let text = b"42 (a) Z 1 (b) S 1 42 42 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 987654 1 2 3";
        assert_eq!(parse_stat(text), Some((b'S', 1, 987_654)));
        assert_eq!(parse_stat(b"42 (x"), None);
    }

    #[test]
    fn ids() {
        for good in ["a", "a.b", "_x", "web-1+2", "..."] {
            assert!(check_id(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a b", "ü", "a\n"] {
            assert!(check_id(bad).is_err(), "{bad}");
        }
    }
}
