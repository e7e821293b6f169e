//! `list`: with `--root` runc's list of that root; without it the containers of every engine, for people.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Serialize;

use super::state::View;
use super::{find, monitor, print, Setting};
use crate::cli::{Format, List};
use crate::error::{Context, Error, Kind, Result};
use crate::state::{Container, Store};
use crate::{clock, roots};

/// runc's object, and what is ours.
#[derive(Serialize)]
struct Entry<'a> {
    #[serde(flatten)]
    view: View<'a>,
    #[serde(flatten)]
    more: Option<More>,
}

#[derive(Serialize)]
struct More {
    name: Option<String>,
    class: Option<String>,
    monitor: Option<Monitor>,
    /// It runs, and the monitor that had it made is gone: `shim adopt ID` gives it another.
    orphaned: bool,
    /// As `created`, under the name that the table gives it.
    since: String,
    root: PathBuf,
}

/// Who waits for the container's first process to end.
#[derive(Serialize)]
struct Monitor {
    name: String,
    /// Its parent. Absent where that process was adopted by the host's first one, and its monitor lives.
    pid: Option<i32>,
}

pub fn run(setting: &Setting, args: &List) -> Result<u8> {
    let given = setting.global.root.is_some();
    if given {
        // runc's: a root of one's own choice has to be there, the default one comes with the first container.
        std::fs::read_dir(setting.store.root())
            .with_context(|| format!("open {}", setting.store.root().display()))?;
    }
    let mut containers = Vec::new();
    for root in find::roots(setting) {
        containers.extend(Store::new(&root).list()?.into_iter().map(|c| (root.clone(), c)));
    }
    if args.quiet {
        let ids: String = containers.iter().map(|(_, c)| format!("{}\n", c.state.id)).collect();
        return print(&ids).map(|()| 0);
    }
    let ours = args.long || !given;
    let entries: Vec<_> = containers
        .iter()
        .map(|(root, c)| {
            let view = View::of(c);
            let more = ours.then(|| more(root, c, view.pid));
            Entry { view, more }
        })
        .collect();
    match args.format {
        Format::Json if entries.is_empty() => print("null\n"),
        Format::Json => {
            let text =
                serde_json::to_string(&entries).map_err(|e| Error::new(Kind::System, e.to_string()))?;
            print(&format!("{text}\n"))
        }
        _ => print(&table(&rows(&entries, given, args.long))),
    }?;
    Ok(0)
}

fn more(root: &Path, container: &Container, pid: i32) -> More {
    let state = &container.state;
    let present = state.monitored.then(|| monitor::is_present(&state.id)).flatten();
    let orphaned = pid != 0 && present == Some(false);
    let by_lock = || present?.then(|| Monitor { name: "shim".into(), pid: None });
    let monitor = if orphaned { None } else { parent(pid).or_else(by_lock) };
    More {
        name: roots::name(state),
        class: state.knobs.layers.class_name().map(str::to_string),
        orphaned,
        monitor,
        since: state.created.clone(),
        root: root.to_path_buf(),
    }
}

/// The parent of a process, unless that is the host's first one.
fn parent(pid: i32) -> Option<Monitor> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok().filter(|_| pid != 0)?;
    let parent = status.lines().find_map(|l| l.strip_prefix("PPid:")?.trim().parse::<i32>().ok())?;
    if parent <= 1 {
        return None;
    }
    let exe = std::fs::read_link(format!("/proc/{parent}/exe")).ok();
    let exe = exe.as_deref().and_then(Path::file_name).map(|n| n.to_string_lossy().into_owned());
    let comm = || std::fs::read_to_string(format!("/proc/{parent}/comm")).ok().map(|c| c.trim().to_string());
    // A sealed or replaced program's link says more than its name.
    let name = exe.filter(|n| !n.contains([' ', ':'])).or_else(comm)?;
    Some(Monitor { name, pid: Some(parent) })
}

fn rows(entries: &[Entry<'_>], given: bool, long: bool) -> Vec<Vec<String>> {
    let head: &[&str] = match (given, long) {
        (true, false) => &["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"],
        (true, true) => &["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER", "CLASS", "MONITOR", "ROOT"],
        (false, false) => &["ID", "NAME", "CLASS", "STATUS", "PID", "MONITOR", "SINCE"],
        (false, true) => {
            &["ID", "NAME", "CLASS", "STATUS", "PID", "MONITOR", "SINCE", "OWNER", "ROOT", "BUNDLE"]
        }
    };
    let cell = |entry: &Entry<'_>, column: &str| {
        let view = &entry.view;
        let more = entry.more.as_ref();
        let or = |text: Option<&String>| text.cloned().unwrap_or_else(|| "-".into());
        match column {
            "ID" if !given && !long => short(view.id),
            "ID" => view.id.to_string(),
            "PID" => view.pid.to_string(),
            "STATUS" => view.status.to_string(),
            "BUNDLE" => view.bundle.display().to_string(),
            "CREATED" => view.created.to_string(),
            "OWNER" => view.owner.to_string(),
            "NAME" => or(more.and_then(|m| m.name.as_ref())),
            "CLASS" => or(more.and_then(|m| m.class.as_ref())),
            "MONITOR" if more.is_some_and(|m| m.orphaned) => "orphaned".to_string(),
            "MONITOR" => or(more.and_then(|m| m.monitor.as_ref()).map(|m| &m.name)),
            "SINCE" => ago(view.created),
            _ => more.map(|m| m.root.display().to_string()).unwrap_or_default(),
        }
    };
    let mut rows = vec![head.iter().map(|h| h.to_string()).collect::<Vec<_>>()];
    rows.extend(entries.iter().map(|entry| head.iter().map(|column| cell(entry, column)).collect()));
    rows
}

/// Engines' IDs are 64 hexadecimal digits; the first ones do, as Docker shows them.
fn short(id: &str) -> String {
    match id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit()) {
        true => id[..12].to_string(),
        false => id.to_string(),
    }
}

/// How long a time stamp is past, in the largest unit that shows it.
fn ago(created: &str) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let Some(then) = clock::parse(created) else { return created.to_string() };
    let seconds = now.saturating_sub(then);
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// Columns as Go's tabwriter makes them in runc: at least 12 wide, three spaces between, none behind the last.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| {
        let longest = rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        (longest + 3).max(12)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            match column + 1 == columns {
                true => text.push_str(cell),
                false => text.push_str(&format!("{cell:<0$}", widths[column])),
            }
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_runcs() {
        let rows = vec![
            vec!["ID".to_string(), "PID".into(), "OWNER".into()],
            vec!["a-name-of-13c".into(), "1".into(), "root".into()],
        ];
        assert_eq!(table(&rows), "ID              PID         OWNER\na-name-of-13c   1           root\n");
    }

    #[test]
    fn ids_and_times_for_people() {
        assert_eq!(short(&"ab".repeat(32)), "abababababab");
        assert_eq!(short("web-1"), "web-1");
        assert_eq!(ago(&clock::seconds(SystemTime::now())), "0 s");
        assert!(ago("2020-01-01T00:00:00.5Z").ends_with(" days"));
        assert_eq!(ago("yesterday"), "yesterday");
    }

    #[test]
    fn who_waits_for_a_process() {
        let own = parent(std::process::id() as i32);
        assert!(own.is_none_or(|m| m.pid > Some(1) && !m.name.is_empty()));
        assert!(parent(0).is_none() && parent(1).is_none());
    }
}
