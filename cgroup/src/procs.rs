//! The processes of a cgroup: listing, freezing, killing.

use std::collections::BTreeSet;
use std::ffi::CStr;
use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::fcntl::{openat, OFlag};
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::signal::Signal;

use crate::cgroup::Cgroup;
use crate::dir::Dir;
use crate::error::{Context, Error, Kind, Result};
use crate::layout::{Mode, Version};
use crate::location::Location;
use crate::tree::Walk;

/// How long freezing may take: a process in an uninterruptible wait (a dead NFS server) delays it.
const FREEZE: Duration = Duration::from_secs(10);

impl Cgroup {
    /// Ids, as this process sees them, of all processes in the cgroup and the cgroups below it.
    pub fn procs(&self) -> Result<Vec<i32>> {
        let mut found = BTreeSet::new();
        if let Some((_, dir)) = self.principal() {
            collect(dir.path(), &mut found)?;
        }
        Ok(found.into_iter().collect())
    }

    /// Whether all processes are stopped by the freezer.
    pub fn is_frozen(&self) -> Result<bool> {
        match self.freezer() {
            Some((Version::V1, dir)) => {
                // FREEZING is a state of "almost", which a paused container may fall back to for a moment.
                let state = or_gone(dir.read("freezer.state"))?;
                let own = || or_gone(dir.read("freezer.self_freezing"));
                Ok(state.trim() == "FROZEN" || (state.trim() == "FREEZING" && own()?.trim() == "1"))
            }
            Some((Version::V2, dir)) => Ok(is_set(&or_gone(dir.read("cgroup.events"))?, "frozen")),
            None => Ok(false),
        }
    }

    /// Stops all processes. On failure they run on.
    pub fn freeze(&self) -> Result<()> {
        let result = match self.freezer() {
            Some((Version::V1, dir)) => freeze_v1(dir),
            Some((Version::V2, dir)) => freeze_v2(dir, true),
            None => Err(Error::unsupported("this host has no freezer cgroup")),
        };
        if result.is_err() {
            let _ = self.thaw();
        }
        result.with_context(|| format!("freezing {}", self.name()))
    }

    /// Lets them run on.
    pub fn thaw(&self) -> Result<()> {
        let result = match self.freezer() {
            Some((Version::V1, dir)) => dir.write("freezer.state", "THAWED"),
            Some((Version::V2, dir)) => freeze_v2(dir, false),
            None => Ok(()),
        };
        result.with_context(|| format!("thawing {}", self.name()))
    }

    fn freezer(&self) -> Option<(Version, &Dir)> {
        let v1 = self.branches().find(|(b, _)| b.controllers.iter().any(|c| c == "freezer"));
        match v1 {
            Some((_, dir)) => Some((Version::V1, dir)),
            None if self.location.mode == Mode::V1 => None,
            None => self.unified().map(|dir| (Version::V2, dir)),
        }
    }

    fn name(&self) -> String {
        self.principal().map_or("no cgroup".to_string(), |(_, dir)| dir.path().display().to_string())
    }

    /// Kills every process in the cgroup and below, however fast they fork and whether frozen or not. Returns before
    /// they have been reaped.
    pub fn kill_all(&self) -> Result<()> {
        // Also on a hybrid host, whose processes are all in the second hierarchy too.
        let swept = self.unified().is_some_and(|dir| dir.write("cgroup.kill", "1").is_ok());
        if !swept || self.location.mode != Mode::V2 {
            self.signal_each(libc::SIGKILL)?;
        }
        Ok(())
    }

    /// Sends a signal to every process in the cgroup and below.
    pub fn signal_all(&self, signal: i32) -> Result<()> {
        if signal == libc::SIGKILL {
            return self.kill_all();
        }
        self.signal_each(signal)
    }

    fn signal_each(&self, signal: i32) -> Result<()> {
        let signal = Signal::try_from(signal)
            .map(|s| s as i32)
            .or(if (32..=64).contains(&signal) { Ok(signal) } else { Err(nix::Error::EINVAL) })
            .context("sending a signal")?;
        let was_frozen = self.is_frozen()?;
        let procs = self.procs()?;
        if procs.is_empty() {
            return if was_frozen && signal == libc::SIGKILL { self.thaw() } else { Ok(()) };
        }
        // Frozen, so that none can fork out of the list. A cgroup that can't be frozen gets several rounds instead.
        let frozen = was_frozen || self.freeze().is_ok();
        let mut failed = Ok(());
        for _ in 0..if frozen { 1 } else { 10 } {
            for pid in self.procs()? {
                match crate::sys::signal(pid, signal) {
                    Err(nix::Error::ESRCH) | Ok(()) => {}
                    Err(e) => {
                        failed = Err(e).with_context(|| format!("sending signal {signal} to process {pid}"))
                    }
                }
            }
            if signal != libc::SIGKILL {
                break;
            }
        }
        // On v1 the killed die only once thawed.
        if frozen && (!was_frozen || signal == libc::SIGKILL) {
            self.thaw()?;
        }
        failed
    }
}

impl Location {
    /// Refuses a cgroup that is in use already, in any hierarchy, itself or one below it: two containers would be mixed, and the end
    /// of one would be the other's. A frozen one would stop a new container for ever.
    ///
    /// # Errors
    /// `Busy`.
    pub fn refuse_used(&self) -> Result<()> {
        let mut found = BTreeSet::new();
        for branch in self.branches.iter().filter(|branch| branch.path.exists()) {
            collect(&branch.path, &mut found)?;
        }
        if !found.is_empty() {
            let text = format!("container's cgroup is not empty: {} process(es) found", found.len());
            return Err(Error::new(Kind::Busy, text));
        }
        match Cgroup::open_only(self, "freezer") {
            Ok(cgroup) if cgroup.is_frozen()? => {
                Err(Error::new(Kind::Busy, "container's cgroup unexpectedly frozen"))
            }
            Err(e) if e.kind() != Kind::NotFound => Err(e),
            _ => Ok(()),
        }
    }
}

fn or_gone(text: Result<String>) -> Result<String> {
    match text {
        Err(e) if e.kind() == Kind::NotFound => Ok(String::new()),
        other => other,
    }
}

/// Whether a file of `key value` lines has 1 for a key.
pub(crate) fn is_set(text: &str, key: &str) -> bool {
    text.lines().any(|l| l.strip_prefix(key).is_some_and(|v| v.trim() == "1"))
}

fn collect(top: &Path, found: &mut BTreeSet<i32>) -> Result<()> {
    collect_below(top, found).with_context(|| format!("reading cgroup.procs of {} and below", top.display()))
}

fn collect_below(top: &Path, found: &mut BTreeSet<i32>) -> Result<(), std::io::Error> {
    let mut walk = Walk::new(top)?;
    while let Some((dir, name)) = walk.here()? {
        let text = match read_procs(dir, &name) {
            // Removed under our eyes; or a threaded cgroup, whose processes its domain lists.
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENODEV | libc::EOPNOTSUPP)) => {
                String::new()
            }
            other => other?,
        };
        found.extend(text.lines().filter_map(|l| l.parse::<i32>().ok()));
        let below = walk.below()?;
        walk.pass();
        if let Some(below) = below {
            walk.enter(below);
        }
    }
    Ok(())
}

fn read_procs(dir: BorrowedFd<'_>, name: &CStr) -> Result<String, std::io::Error> {
    let file = [name.to_bytes(), b"/cgroup.procs"].concat();
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let mut text = String::new();
    fs::File::from(openat(dir, file.as_slice(), flags, nix::sys::stat::Mode::empty())?)
        .read_to_string(&mut text)?;
    Ok(text)
}

/// The v1 freezer may hang in FREEZING while processes fork or wait: then it has to be thawed for a moment and asked
/// again.
fn freeze_v1(dir: &Dir) -> Result<()> {
    let start = Instant::now();
    let mut round = 0u32;
    loop {
        // Writing also makes the kernel look again at those that escaped.
        dir.write("freezer.state", "FROZEN")?;
        match dir.read("freezer.state")?.trim() {
            "FROZEN" => return Ok(()),
            "FREEZING" | "THAWED" => {}
            other => return Err(Error::new(Kind::System, format!("unexpected freezer state \"{other}\""))),
        }
        if start.elapsed() > FREEZE {
            return Err(Error::new(Kind::Timeout, "unable to freeze within 10 s"));
        }
        round += 1;
        if round % 50 == 0 {
            dir.write("freezer.state", "THAWED")?;
            std::thread::sleep(Duration::from_millis(10));
        } else if round > 5 {
            std::thread::sleep(Duration::from_micros(u64::from(round.min(50)) * 20));
        }
    }
}

/// Asks, and waits for the kernel to say in cgroup.events that it is done.
fn freeze_v2(dir: &Dir, frozen: bool) -> Result<()> {
    let events = dir.open_file("cgroup.events", OFlag::O_RDONLY).context("opening cgroup.events")?;
    dir.write("cgroup.freeze", if frozen { "1" } else { "0" })?;
    let start = Instant::now();
    loop {
        let text = dir.read("cgroup.events")?;
        if is_set(&text, "frozen") == frozen {
            return Ok(());
        }
        if start.elapsed() > FREEZE {
            return Err(Error::new(Kind::Timeout, "the kernel did not finish within 10 s"));
        }
        // A look every 100 ms besides: a change between the read and the poll is not told again.
        let mut fds = [PollFd::new(events.as_fd(), PollFlags::POLLPRI)];
        let _ = poll(&mut fds, PollTimeout::from(100u8));
    }
}
