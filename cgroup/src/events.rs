//! Being told that the kernel killed for want of memory.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::fcntl::OFlag;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use crate::cgroup::Cgroup;
use crate::dir::Dir;
use crate::error::{Context, Error, Result};
use crate::layout::{Mode, Version};
use crate::procs::is_set;

/// A descriptor to poll, readable when there may be news.
#[derive(Debug)]
pub struct OomWatch {
    source: Source,
    kills: u64,
}

#[derive(Debug)]
enum Source {
    /// The control file has to stay open as long as the notification is wanted.
    V1 {
        event: EventFd,
        dir: Dir,
        _control: OwnedFd,
    },
    V2 {
        inotify: Inotify,
        dir: Dir,
    },
}

/// What has happened since the last look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OomNews {
    /// Processes killed by the kernel for the cgroup's limit.
    pub kills: u64,
    /// The cgroup has run out of memory. On v1 this comes without a kill too, when the killer is disabled.
    pub oom: bool,
    /// There is no process left in the cgroup, or it is gone: nothing more is to come.
    pub empty: bool,
}

impl Cgroup {
    /// Watches for out-of-memory events from now on.
    pub fn watch_oom(&self) -> Result<OomWatch> {
        let dir = self.dir("memory").filter(|_| self.location.branch("memory").is_some());
        let dir = dir.ok_or_else(|| Error::unsupported("the container has no memory cgroup"))?;
        let dir = Dir::open(dir.path())?;
        let v2 = self.location.branch("memory").is_some_and(|b| b.version == Version::V2);
        let source = match (v2, self.location.mode) {
            (true, Mode::V2) => watch_v2(dir)?,
            (true, _) => return Err(Error::unsupported("this host has no memory controller")),
            (false, _) => watch_v1(dir)?,
        };
        let mut watch = OomWatch { source, kills: 0 };
        watch.kills = watch.count();
        Ok(watch)
    }
}

fn watch_v1(dir: Dir) -> Result<Source> {
    let event =
        EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).context("making an eventfd")?;
    let control =
        dir.open_file("memory.oom_control", OFlag::O_RDONLY).context("opening memory.oom_control")?;
    let line = format!("{} {}", event.as_fd().as_raw_fd(), control.as_raw_fd());
    dir.write("cgroup.event_control", &line)?;
    Ok(Source::V1 { event, dir, _control: control })
}

fn watch_v2(dir: Dir) -> Result<Source> {
    let inotify =
        Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).context("making an inotify")?;
    for file in ["memory.events", "cgroup.events"] {
        let path = dir.path().join(file);
        inotify
            .add_watch(&path, AddWatchFlags::IN_MODIFY)
            .with_context(|| format!("watching {}", path.display()))?;
    }
    Ok(Source::V2 { inotify, dir })
}

impl OomWatch {
    /// Takes note of what has happened, without waiting. May also be asked when the descriptor was not readable: after
    /// the exit of the first process, so that a kill is not told too late.
    pub fn read(&mut self) -> OomNews {
        let mut news = OomNews::default();
        match &self.source {
            Source::V1 { event, dir, .. } => {
                let fired = event.read().is_ok();
                // Removing the cgroup fires the event as well.
                let gone = !dir.has("memory.oom_control");
                news.oom = fired && !gone;
                let procs = dir.read("cgroup.procs");
                news.empty = gone || procs.is_ok_and(|t| t.is_empty());
            }
            Source::V2 { inotify, dir } => {
                while inotify.read_events().is_ok_and(|events| !events.is_empty()) {}
                let events = dir.peek("cgroup.events");
                news.empty = events.is_none_or(|text| !is_set(&text, "populated"));
            }
        }
        let now = self.count();
        news.kills = now.saturating_sub(self.kills);
        news.oom |= news.kills > 0;
        self.kills = now.max(self.kills);
        news
    }

    /// Kills counted by the kernel since the cgroup was made.
    fn count(&self) -> u64 {
        let text = match &self.source {
            Source::V1 { dir, .. } => dir.peek("memory.oom_control"),
            Source::V2 { dir, .. } => dir.peek("memory.events"),
        };
        // Gone: what was counted last holds.
        let text = text.unwrap_or_default();
        let found = text.lines().find_map(|l| l.strip_prefix("oom_kill ")?.trim().parse().ok());
        found.unwrap_or(self.kills)
    }
}

impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.source {
            Source::V1 { event, .. } => event.as_fd(),
            Source::V2 { inotify, .. } => inotify.as_fd(),
        }
    }
}
