//! The v1 hierarchies net_cls and net_prio.

use std::path::Path;

use crate::error::{Context, Error, Kind, Result};
use crate::limits::Limits;
use crate::record::{Network, Record};

/// What stood in the files, to be put back.
#[derive(Default)]
pub struct Before(Vec<(std::path::PathBuf, String)>);

/// Writes what `change` names, where there is such a hierarchy; the rest is the programs' work.
pub fn write(record: &Record, change: &Limits) -> Result<Before> {
    let mut before = Before::default();
    if let (Some(dir), Some(classid)) = (&record.net_cls, change.classid) {
        put(&mut before, &dir.join("net_cls.classid"), &classid.to_string())?;
    }
    // The kernel's map lists the devices of the initial network namespace only.
    if let (Some(dir), Some(priority), Network::Host) = (&record.net_prio, &change.priority, record.network) {
        let file = dir.join("net_prio.ifpriomap");
        for (name, _) in current_map(&file)?.iter().filter(|(n, p)| *p != 0 && !priority.contains_key(n)) {
            put_entry(&mut before, &file, &format!("{name} 0"))?;
        }
        for (name, value) in priority {
            put_entry(&mut before, &file, &format!("{name} {value}"))?;
        }
    }
    Ok(before)
}

/// The class id that net_cls holds.
pub fn classid(record: &Record) -> Option<u32> {
    let text = std::fs::read_to_string(record.net_cls.as_ref()?.join("net_cls.classid")).ok()?;
    text.trim().parse().ok().filter(|id| *id != 0)
}

fn current_map(file: &Path) -> Result<Vec<(String, u32)>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    let entry = |line: &str| {
        let (name, value) = line.rsplit_once(' ')?;
        Some((name.to_string(), value.parse().ok()?))
    };
    Ok(text.lines().filter_map(entry).collect())
}

fn put(before: &mut Before, file: &Path, value: &str) -> Result<()> {
    let old = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    before.0.push((file.to_path_buf(), old.trim().to_string()));
    let write = std::fs::write(file, value).with_context(|| format!("writing {value} to {}", file.display()));
    write.or_else(|e| std::mem::take(before).restore().and(Err(e)))
}

fn put_entry(before: &mut Before, file: &Path, entry: &str) -> Result<()> {
    let name = entry.split(' ').next().unwrap_or_default();
    let Some((_, old)) = current_map(file)?.into_iter().find(|(n, _)| n == name) else {
        std::mem::take(before).restore()?;
        return Err(Error::new(Kind::Invalid, format!("net.priority: the host has no interface {name}")));
    };
    before.0.push((file.to_path_buf(), format!("{name} {old}")));
    let write = std::fs::write(file, entry).with_context(|| format!("writing {entry} to {}", file.display()));
    write.or_else(|e| std::mem::take(before).restore().and(Err(e)))
}

impl Before {
    pub fn restore(self) -> Result<()> {
        for (file, value) in self.0.into_iter().rev() {
            std::fs::write(&file, &value)
                .with_context(|| format!("writing {value} to {}", file.display()))?;
        }
        Ok(())
    }
}
