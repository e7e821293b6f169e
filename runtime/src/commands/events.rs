//! `events`: statistics, once or at intervals, and out-of-memory events when they happen.

mod schema;

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use cgroup::Cgroup;
use nix::errno::Errno;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};

use super::{print, start, Setting};
use crate::error::{Context, Error, Kind, Result};
use crate::init::attrs::rdt;
use crate::state::Status;

pub fn run(setting: &Setting, id: &str, once: bool, interval: Duration) -> Result<u8> {
    let container = setting.load(id)?;
    if container.status() == Status::Stopped {
        return Err(Error::new(Kind::State, format!("container with id {id} is not running")));
    }
    let location = container.state.cgroup.as_ref().ok_or_else(|| {
        Error::unsupported(
            "events: the container has no cgroup (--cgroup-manager disabled, or no right to make one)",
        )
    })?;
    let cgroup = Cgroup::open(location).context("unable to get container cgroup stats")?;
    let network =
        || container.state.knobs.net.as_ref().and_then(|record| netlimit::counters(record).ok().flatten());
    let class = rdt::of(&start::config(&container)?, id)?;
    let resctrl = class.as_ref().and_then(|_| rdt::root());
    let stats = || {
        let rdt = match (&resctrl, &class) {
            (Some(root), Some(class)) => Some(rdt::stats::read(root, class)?),
            _ => None,
        };
        Ok::<_, Error>(schema::stats(id, &cgroup.stats(), rdt.as_ref(), network()))
    };
    if once {
        return print(&stats()?).map(|()| 0);
    }
    let mut watch = cgroup.watch_oom().context("watching for out-of-memory events")?;
    let mut next = Instant::now() + interval;
    loop {
        let left = next.saturating_duration_since(Instant::now());
        // Rounded up, not to wake just before the time.
        let timeout = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(watch.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Err(Errno::EINTR) => continue,
            other => other.context("waiting for events")?,
        };
        let news = watch.read();
        for _ in 0..news.kills.max(u64::from(news.oom)) {
            print(&schema::oom(id))?;
        }
        if news.empty {
            return Ok(0);
        }
        if Instant::now() >= next {
            // A counter that can't be read now may be there again the next time.
            match stats() {
                Ok(text) => print(&text)?,
                Err(e) => log::error!("{e}"),
            }
            next += interval;
        }
    }
}
