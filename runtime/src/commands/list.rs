//! `list`: the containers of one root, or with `--long` of all that are known.

use std::path::Path;

use serde::Serialize;

use super::state::View;
use super::{print, Setting};
use crate::cli::{Format, List};
use crate::error::{Context, Error, Kind, Result};
use crate::roots;
use crate::state::{Container, Store};

/// runc's object, and what `--long` adds to it.
#[derive(Serialize)]
struct Entry<'a> {
    #[serde(flatten)]
    view: View<'a>,
    #[serde(flatten)]
    more: Option<More>,
}

#[derive(Serialize)]
struct More {
    class: Option<String>,
    root: String,
}

pub fn run(setting: &Setting, args: &List) -> Result<u8> {
    let given = setting.global.root.is_some();
    if given {
        // runc's: a root of one's own choice has to be there, the default one comes with the first container.
        std::fs::read_dir(setting.store.root())
            .with_context(|| format!("open {}", setting.store.root().display()))?;
    }
    let stores: Vec<Store> = match args.long && !given {
        true => roots::known(setting.store.root()).into_iter().map(Store::new).collect(),
        false => vec![setting.store.clone()],
    };
    let mut containers = Vec::new();
    for store in &stores {
        containers.extend(store.list()?.into_iter().map(|c| (store.root().to_path_buf(), c)));
    }
    if args.quiet {
        let ids: String = containers.iter().map(|(_, c)| format!("{}\n", c.state.id)).collect();
        return print(&ids).map(|()| 0);
    }
    let entries: Vec<_> = containers.iter().map(|(root, c)| entry(root, c, args.long)).collect();
    match args.format {
        Format::Json if entries.is_empty() => print("null\n"),
        Format::Json => {
            let text =
                serde_json::to_string(&entries).map_err(|e| Error::new(Kind::System, e.to_string()))?;
            print(&format!("{text}\n"))
        }
        _ => print(&table(&rows(&entries, args.long))),
    }?;
    Ok(0)
}

fn entry<'a>(root: &Path, container: &'a Container, long: bool) -> Entry<'a> {
    let more = long.then(|| More { class: class(container), root: root.display().to_string() });
    Entry { view: View::of(container), more }
}

fn class(container: &Container) -> Option<String> {
    container.state.annotations.get("hydra.class").cloned()
}

fn rows(entries: &[Entry<'_>], long: bool) -> Vec<Vec<String>> {
    let mut head = vec!["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"];
    if long {
        head.extend(["CLASS", "ROOT"]);
    }
    let mut rows = vec![head.into_iter().map(str::to_string).collect::<Vec<_>>()];
    for Entry { view, more } in entries {
        let mut row = vec![
            view.id.to_string(),
            view.pid.to_string(),
            view.status.to_string(),
            view.bundle.display().to_string(),
            view.created.to_string(),
            view.owner.to_string(),
        ];
        if let Some(more) = more {
            row.extend([more.class.clone().unwrap_or_else(|| "-".into()), more.root.clone()]);
        }
        rows.push(row);
    }
    rows
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
}
