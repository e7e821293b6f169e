//! What a killed update leaves to the next command.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cgroup::Undo;
use serde::{Deserialize, Serialize};

use super::net;
use crate::error::{Context, Error, Kind, Result};
use crate::knobs::Saved;
use crate::state::Container;

pub const NAME: &str = "update.json";

/// The journal of an update under way.
#[derive(Debug, Serialize, Deserialize)]
pub struct Journal {
    /// The state's generation once the update is complete.
    pub generation: u64,
    /// The container's first process.
    pub pid: i32,
    pub undo: Vec<Undo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub net: Option<net::Before>,
}

/// A journal on disk.
pub struct Written {
    path: PathBuf,
    journal: Journal,
}

impl Journal {
    /// Writes the journal, whole, before anything is changed.
    pub fn write(self, dir: &Path) -> Result<Written> {
        let path = dir.join(NAME);
        let text = serde_json::to_vec(&self).map_err(|e| Error::new(Kind::System, e.to_string()))?;
        let temporary = path.with_extension("tmp");
        fs::write(&temporary, text)
            .and_then(|()| fs::rename(&temporary, &path))
            .with_context(|| format!("writing {}", path.display()))?;
        Ok(Written { path, journal: self })
    }

    fn take_back(&self) -> Result<()> {
        let files = cgroup::apply::recover(&self.undo);
        let net = self.net.as_ref().map_or(Ok(()), |net| net.take_back(self.pid));
        files?;
        net
    }
}

impl Written {
    /// The update is complete, or was undone already.
    pub fn done(self) -> Result<()> {
        fs::remove_file(&self.path).with_context(|| format!("removing {}", self.path.display()))
    }

    /// Puts everything back. On an error the journal stays, and the next command tries again.
    pub fn take_back(self) -> Result<()> {
        self.journal.take_back()?;
        self.done()
    }
}

/// How long a command that changes nothing waits for one that does.
const MOMENT: Duration = Duration::from_millis(100);

/// As [`recover`], for every command that reads a container. Costs one system call when there is nothing to finish. It is
/// not in the way of the command: what can't be finished stays, with a warning, for the next one.
pub fn finish(container: &mut Container) {
    if !container.has(NAME) {
        return;
    }
    let done = match container.lock(MOMENT) {
        Ok(_lock) => recover(container.path(), &container.state.knobs),
        // Most likely an update that is under way.
        Err(_) => Ok(()),
    };
    if let Err(e) = done {
        log::warn!("container {}: {e}", container.state.id);
    }
}

/// Finishes what a killed `update` left, either way. To be called with the container locked; costs one failing
/// `open` when there is nothing.
pub fn recover(dir: &Path, saved: &Saved) -> Result<()> {
    let path = dir.join(NAME);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e).with_context(|| format!("reading {}", path.display())),
    };
    let journal: Journal = serde_json::from_slice(&text)
        .map_err(|e| Error::new(Kind::System, format!("{}: {e}", path.display())))?;
    let complete = journal.generation <= saved.generation;
    let written = Written { path, journal };
    match complete {
        true => written.done(),
        false => written.take_back().context("taking back an update that was killed"),
    }
}
