//! The exit record: one file a process, written whole and synced before anybody is told.

use crate::error::{Context, Result};
use crate::state::{Process, Setup, Task};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

pub fn path(directory: &Path, exec: &str) -> PathBuf {
    match exec {
        "" => directory.join("exit.json"),
        exec => directory.join(format!("exec-{exec}.exit.json")),
    }
}

/// Temporary file, fsync, rename, fsync of the directory: a reader finds all of it or nothing.
pub fn write(setup: &Setup, task: &Task, process: &Process) -> Result<()> {
    let directory = Path::new(&setup.directory);
    let path = path(directory, &process.id);
    let temporary = path.with_extension("tmp");
    let mut file = File::create(&temporary).context(|| format!("making {}", temporary.display()))?;
    file.write_all(text(setup, task, process).as_bytes())
        .context(|| format!("writing {}", temporary.display()))?;
    file.sync_all().context(|| format!("syncing {}", temporary.display()))?;
    std::fs::rename(&temporary, &path).context(|| format!("renaming to {}", path.display()))?;
    File::open(directory).and_then(|d| d.sync_all()).context(|| format!("syncing {}", directory.display()))
}

fn text(setup: &Setup, task: &Task, p: &Process) -> String {
    let signal = if p.exit_status > 128 && p.exit_status < 193 { p.exit_status - 128 } else { 0 };
    let quote = |s: &str| serde_json::to_string(s).unwrap_or_default();
    let mut text = format!(
        "{{\"id\":{},\"namespace\":{},\"exec\":{},\"pid\":{},\"exitCode\":{},\"signal\":{signal},\"core\":{},\"oomKilled\":{}",
        quote(&task.id), quote(&setup.namespace), quote(&p.id), p.pid, p.exit_status, p.core, p.oom,
    );
    if p.oom {
        text += &format!(",\"oomCgroup\":{}", quote(&task.cgroup));
    }
    text += &format!(
        ",\"createdOrStartedAtNs\":{},\"exitedAtNs\":{},\"status\":{}}}\n",
        p.started_at,
        p.exited_at,
        quote(if p.unknown { "unknown" } else { "exact" }),
    );
    text
}
