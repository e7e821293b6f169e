//! Taking a cgroup away.

use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::unistd::{unlinkat, UnlinkatFlags};

use crate::cgroup::Cgroup;
use crate::error::{Context, Result};
use crate::location::Location;
use crate::systemd;
use crate::tree::Walk;

/// How long the kernel may say EBUSY after the last process has been killed.
const PATIENCE: Duration = Duration::from_secs(5);

impl Location {
    /// Removes a cgroup with neither processes nor cgroups in it, as most are in the end; nothing has to be opened for
    /// that. `false`: it is not so, or it is systemd's; what has not been removed is as it was.
    pub fn destroy_empty(&self) -> bool {
        let gone = |path: &Path| match std::fs::remove_dir(path) {
            Err(e) => e.kind() == ErrorKind::NotFound,
            Ok(()) => true,
        };
        // The second version's first: where that has processes no other is touched, and it kills best.
        self.unit.is_none() && self.branches.iter().rev().all(|branch| gone(&branch.path))
    }

    /// Removes the cgroup with everything below it from every hierarchy; what is gone already is no error. Its
    /// processes must have been killed before.
    pub fn destroy(&self) -> Result<()> {
        let stopped = match &self.unit {
            Some(unit) => systemd::Manager::connect(unit.user).and_then(|mut m| m.stop(&unit.name)),
            None => Ok(()),
        };
        let mut failed = Ok(());
        for branch in &self.branches {
            let removed = remove(&branch.path, Instant::now() + PATIENCE);
            failed =
                failed.and(removed.with_context(|| format!("removing cgroup {}", branch.path.display())));
        }
        failed.and(stopped)
    }
}

impl Cgroup {
    /// As `Location::destroy`.
    pub fn destroy(self) -> Result<()> {
        self.location.destroy()
    }
}

fn remove(path: &Path, deadline: Instant) -> Result<(), Errno> {
    let mut wait = Duration::from_micros(100);
    let mut walk = Walk::new(path)?;
    while let Some((dir, name)) = walk.here()? {
        match unlinkat(dir, name.as_c_str(), UnlinkatFlags::RemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => walk.pass(),
            // It stands for children as well as for processes that are still on their way out.
            Err(Errno::EBUSY) if Instant::now() < deadline => match walk.below()? {
                Some(below) => walk.enter(below),
                None => {
                    std::thread::sleep(wait);
                    wait = (wait * 2).min(Duration::from_millis(20));
                }
            },
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
