//! The exit record: one file a process, written whole and synced before anybody is told.

use crate::error::{Context, Error, Result};
use crate::state::{Process, Setup, Task};
use crate::sys::insist;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The record of a process: `exit.json` for the init of the container that the monitor is named after.
pub fn path(setup: &Setup, task: &str, exec: &str) -> PathBuf {
    let name = match (task == setup.id, exec) {
        (true, "") => "exit.json".to_string(),
        (false, "") => format!("{task}.exit.json"),
        _ => format!("{}.exit.json", crate::place::name(setup, task, exec)),
    };
    Path::new(&setup.directory).join(name)
}

/// The reason in the record of a container that ended because its monitor had.
pub const LOST: &str = "monitor-lost";

/// Temporary file, fsync, rename, fsync of the directory: a reader finds all of it or nothing.
pub fn write(setup: &Setup, task: &Task, process: &Process) -> Result<()> {
    write_text(setup, task, process, &text(setup, task, process, ""))
}

/// The record of a container that ended because its monitor had.
pub fn write_lost(setup: &Setup, task: &Task, process: &Process) -> Result<()> {
    write_text(setup, task, process, &text(setup, task, process, &format!(",\"reason\":\"{LOST}\"")))
}

/// The room for a record, so that it can be written when the file system is full.
pub fn reserve(setup: &Setup, task: &str) -> Result<()> {
    let temporary = path(setup, task, "").with_extension("tmp");
    let file = File::create(&temporary).context(|| format!("making {}", temporary.display()))?;
    nix::fcntl::fallocate(&file, nix::fcntl::FallocateFlags::empty(), 0, 4096)
        .context(|| format!("making room for {}", temporary.display()))
}

fn write_text(setup: &Setup, task: &Task, process: &Process, text: &str) -> Result<()> {
    let directory = Path::new(&setup.directory);
    let path = path(setup, &task.id, &process.id);
    let temporary = path.with_extension("tmp");
    // Not made empty before it is written: that would give up what was reserved.
    let open = || File::options().write(true).create(true).truncate(false).open(&temporary);
    let mut file = insist(open).context(|| format!("making {}", temporary.display()))?;
    file.write_all(text.as_bytes()).context(|| format!("writing {}", temporary.display()))?;
    file.set_len(text.len() as u64)?;
    file.sync_all().context(|| format!("syncing {}", temporary.display()))?;
    std::fs::rename(&temporary, &path).context(|| format!("renaming to {}", path.display()))?;
    insist(|| File::open(directory))
        .and_then(|d| d.sync_all())
        .context(|| format!("syncing {}", directory.display()))
}

/// What a reader of a record needs.
#[derive(serde::Deserialize)]
pub struct Record {
    #[serde(rename = "exitCode")]
    pub exit_code: i32,
    /// The runtime's `--root`.
    #[serde(default)]
    pub root: String,
    /// So many bytes of a ring are its content; 0 is the default.
    #[serde(default, rename = "ringBytes")]
    pub ring_bytes: u64,
    /// Why it ended, where that was not the container's own doing.
    #[serde(default)]
    pub reason: String,
}

pub fn read(path: &Path) -> Result<Record> {
    let text = std::fs::read(path).context(|| format!("reading {}", path.display()))?;
    serde_json::from_slice(&text).map_err(|e| Error::system(format!("parsing {}: {e}", path.display())))
}

fn text(setup: &Setup, task: &Task, p: &Process, more: &str) -> String {
    let signal = if p.killed { p.exit_status.saturating_sub(128) } else { 0 };
    let quote = |s: &str| serde_json::to_string(s).unwrap_or_default();
    let mut text = format!(
        "{{\"id\":{},\"namespace\":{},\"exec\":{},\"pid\":{},\"exitCode\":{},\"signal\":{signal},\"core\":{},\"oomKilled\":{}",
        quote(&task.id), quote(&setup.namespace), quote(&p.id), p.pid, p.exit_status, p.core, p.oom,
    );
    if p.oom {
        text += &format!(",\"oomCgroup\":{}", quote(&task.cgroup));
    }
    text +=
        &format!(",\"bundle\":{},\"root\":{}", quote(&task.bundle), quote(&crate::job::root(setup, task)));
    if p.dropped + p.unlogged > 0 {
        text += &format!(",\"droppedBytes\":{},\"unloggedBytes\":{}", p.dropped, p.unlogged);
    }
    if setup.standalone && p.id.is_empty() {
        text += &format!(",\"ringBytes\":{}", setup.ring_limit);
    }
    text += more;
    text += &format!(
        ",\"createdOrStartedAtNs\":{},\"exitedAtNs\":{},\"status\":{}}}\n",
        p.started_at,
        p.exited_at,
        quote(if p.unknown { "unknown" } else { "exact" }),
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first form of a record, kept as it was, and one with words of a later program: both are read.
    #[test]
    fn old_and_newer_records_are_read() {
        let old = r#"{"id":"c","namespace":"standalone","exec":"","pid":4711,"exitCode":137,"signal":9,"core":false,"oomKilled":true,"oomCgroup":"0::/c\n","createdOrStartedAtNs":1764300000000000000,"exitedAtNs":1764300001000000000,"status":"exact"}"#;
        let newer = old.replace(
            "\"pid\"",
            "\"colour\":{\"of\":[\"red\"]},\"root\":\"/run/hydra\",\"ringBytes\":4096,\"pid\"",
        );
        for (text, root, ring) in [(old.to_string(), "", 0), (newer, "/run/hydra", 4096)] {
            let path = std::env::temp_dir().join(format!("record-{}-{ring}", std::process::id()));
            std::fs::write(&path, text).unwrap();
            let record = read(&path).unwrap();
            std::fs::remove_file(path).unwrap();
            assert_eq!((record.exit_code, record.root.as_str(), record.ring_bytes), (137, root, ring));
        }
    }
}
