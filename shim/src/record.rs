//! The exit record: one file a process, written whole and synced before anybody is told.

use crate::error::{Context, Error, Result};
use crate::state::{Process, Setup, Task};
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

/// Temporary file, fsync, rename, fsync of the directory: a reader finds all of it or nothing.
pub fn write(setup: &Setup, task: &Task, process: &Process) -> Result<()> {
    write_text(setup, task, process, &text(setup, task, process, ""))
}

/// The record of a container that ended because its monitor had.
pub fn write_lost(setup: &Setup, task: &Task, process: &Process) -> Result<()> {
    write_text(setup, task, process, &text(setup, task, process, ",\"reason\":\"monitor-lost\""))
}

fn write_text(setup: &Setup, task: &Task, process: &Process, text: &str) -> Result<()> {
    let directory = Path::new(&setup.directory);
    let path = path(setup, &task.id, &process.id);
    let temporary = path.with_extension("tmp");
    let mut file = File::create(&temporary).context(|| format!("making {}", temporary.display()))?;
    file.write_all(text.as_bytes()).context(|| format!("writing {}", temporary.display()))?;
    file.sync_all().context(|| format!("syncing {}", temporary.display()))?;
    std::fs::rename(&temporary, &path).context(|| format!("renaming to {}", path.display()))?;
    File::open(directory).and_then(|d| d.sync_all()).context(|| format!("syncing {}", directory.display()))
}

/// What a reader of a record needs.
#[derive(serde::Deserialize)]
pub struct Record {
    #[serde(rename = "exitCode")]
    pub exit_code: i32,
    /// The runtime's `--root`.
    #[serde(default)]
    pub root: String,
}

pub fn read(path: &Path) -> Result<Record> {
    let text = std::fs::read(path).context(|| format!("reading {}", path.display()))?;
    serde_json::from_slice(&text).map_err(|e| Error::system(format!("parsing {}: {e}", path.display())))
}

fn text(setup: &Setup, task: &Task, p: &Process, more: &str) -> String {
    let signal = if p.exit_status > 128 && p.exit_status < 193 { p.exit_status - 128 } else { 0 };
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
    text += more;
    text += &format!(
        ",\"createdOrStartedAtNs\":{},\"exitedAtNs\":{},\"status\":{}}}\n",
        p.started_at,
        p.exited_at,
        quote(if p.unknown { "unknown" } else { "exact" }),
    );
    text
}
