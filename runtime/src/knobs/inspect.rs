//! What was asked of a container, by whom, and what the kernel says of it.

use cgroup::block::Device;
use cgroup::{Cgroup, Location};
use serde::Serialize;

use super::applied::Saved;
use super::devices::Resolver;
use super::layers::Asked;
use super::limits::{NOT_BUFFERED, NO_DEVICE};
use super::table::{Value, RAW};
use crate::error::Result;

/// One knob of a container, on one device where it is for devices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    pub knob: String,
    /// As it was written.
    pub asked: String,
    /// The layer that won.
    pub from: String,
    /// What the kernel says; absent where it can't be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effective: Option<String>,
    /// `8:0 sda`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// What it holds less than it seems to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Every knob that holds, in the order of their names.
pub fn rows(saved: &Saved, location: &Location, pid: i32) -> Result<Vec<Row>> {
    let cgroup = Cgroup::open(location).ok();
    let resolver = Resolver::running(pid);
    let net = saved.net.as_ref().and_then(|record| netlimit::current(record).ok());
    let net = net.and_then(|limits| serde_json::to_value(limits).ok()).unwrap_or_default();
    let mut rows = Vec::new();
    for (name, asked) in saved.layers.effective()?.0 {
        let total = name.strip_prefix("blkio.total-").map(|kind| format!("blkio.{kind}"));
        let row = |effective, device: Option<Device>| Row {
            knob: name.clone(),
            asked: asked.text.clone(),
            from: asked.from.to_string(),
            effective,
            device: device
                .map(|d| format!("{d} {}", resolver.name(d).unwrap_or_default()).trim_end().to_string()),
            note: match device {
                None if total.is_some() || matches!(asked.value, Value::Devices(_)) => Some(NO_DEVICE.into()),
                _ => note(&name, location),
            },
        };
        let devices: Vec<Device> = match &total {
            Some(_) => saved.shared(),
            None => saved.placed.iter().filter(|p| p.knob == name).map(|p| p.device).collect(),
        };
        if let Some(key) = name.strip_prefix("net.") {
            let value = net.get(key).map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_string));
            rows.push(row(value, None));
            continue;
        }
        let read = |device| {
            cgroup.as_ref().and_then(|c| effective(c, total.as_deref().unwrap_or(&name), &asked, device))
        };
        if devices.is_empty() {
            rows.push(row(read(None), None));
        }
        rows.extend(devices.iter().map(|device| row(read(Some(*device)), Some(*device))));
    }
    Ok(rows)
}

fn note(name: &str, location: &Location) -> Option<String> {
    let v1 = location.branches.iter().any(|b| b.controllers.iter().any(|c| c == "blkio"));
    let writes = name.starts_with("blkio.") && name.contains("write-");
    (v1 && writes).then(|| NOT_BUFFERED.into())
}

/// What the kernel's files say.
fn effective(cgroup: &Cgroup, name: &str, asked: &Asked, device: Option<Device>) -> Option<String> {
    let files = match name.strip_prefix(RAW) {
        Some(file) => vec![file.to_string()],
        None => {
            let knob = super::table::find(name).unwrap_or(asked.knob);
            let both = format!("{} {}", knob.v1, knob.v2);
            both.split([' ', ',']).filter(|f| f.contains('.')).map(str::to_string).collect()
        }
    };
    let text = files.iter().find_map(|file| {
        let controller = file.split('.').next().unwrap_or_default();
        cgroup.dir(controller)?.peek(file)
    })?;
    match device {
        None => Some(text.trim().replace('\n', "; ")),
        Some(device) => {
            let wanted = device.to_string();
            let line = text.lines().find_map(|l| l.strip_prefix(&wanted)?.strip_prefix(' '));
            Some(throttle(name, line).unwrap_or_else(|| line.unwrap_or("none").trim().to_string()))
        }
    }
}

/// One key of a line of io.max.
fn throttle(name: &str, line: Option<&str>) -> Option<String> {
    let key = match name {
        "blkio.read-bps" => "rbps=",
        "blkio.write-bps" => "wbps=",
        "blkio.read-iops" => "riops=",
        "blkio.write-iops" => "wiops=",
        _ => return None,
    };
    line?.split(' ').find_map(|word| word.strip_prefix(key)).map(str::to_string)
}

/// A table for people.
pub fn table(rows: &[Row]) -> String {
    let head = ["KNOB", "ASKED", "FROM", "EFFECTIVE", "DEVICE"].map(str::to_string);
    let cells = rows.iter().map(|r| {
        let or = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
        [r.knob.clone(), r.asked.clone(), r.from.clone(), or(&r.effective), or(&r.device)]
    });
    let all: Vec<[String; 5]> = std::iter::once(head).chain(cells).collect();
    let width = |column: usize| all.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths = [0, 1, 2, 3, 4].map(width);
    let line = |row: &[String; 5]| {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        cells.join("  ").trim_end().to_string() + "\n"
    };
    let mut text: String = all.iter().map(line).collect();
    let mut notes: Vec<String> =
        rows.iter().filter_map(|r| Some(format!("{}: {}\n", r.knob, r.note.as_ref()?))).collect();
    notes.dedup();
    text.extend(notes);
    text
}
