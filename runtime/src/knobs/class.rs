//! Classes: named sets of knobs in TOML files.
//!
//! `hydra.toml` holds `default-class = "NAME"`, `mount-hierarchies` and tables `[class.NAME.GROUP]`; each `classes.d/NAME.toml`
//! next to it is one class, with tables `[GROUP]`.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use toml::{Table, Value};

use super::hierarchies;
use super::layers::Layer;
use super::table;
use crate::error::{Context, Error, Result};
use crate::invalid;

/// Where the classes are when no other path is given.
pub const CONFIG: &str = "/etc/hydra/hydra.toml";

/// What the files say. Knob values are checked when a class is used, so that a mistake in one class doesn't
/// stop containers of another.
#[derive(Debug, Default, PartialEq)]
pub struct Classes {
    /// The class of containers that name none.
    pub default: Option<String>,
    pub classes: BTreeMap<String, Layer>,
    /// Hierarchies to mount where the host hasn't.
    pub mount: Vec<String>,
}

impl Classes {
    /// The knobs of a class, each of them checked.
    pub fn get(&self, name: &str) -> Result<Layer> {
        let Some(knobs) = self.classes.get(name) else {
            let known: Vec<_> = self.classes.keys().map(String::as_str).collect();
            let known = if known.is_empty() { "no class is defined".into() } else { known.join(", ") };
            invalid!("class: '{name}' is not defined; allowed: {known}");
        };
        for (knob, value) in knobs {
            table::find(knob).and_then(|k| k.parse(knob, value)).with_context(|| format!("class {name}"))?;
        }
        Ok(knobs.clone())
    }
}

/// Reads `config` alone, which may be absent: enough to know the default class.
pub fn read_main(config: &Path) -> Result<Classes> {
    match std::fs::read_to_string(config) {
        Ok(text) => parse_main(&text).with_context(|| config.display().to_string()),
        // An absent /etc/hydra is as usual as an absent file in it.
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok(Classes::default())
        }
        Err(e) => Err(e).with_context(|| format!("reading {}", config.display())),
    }
}

/// Adds the classes of `classes.d` next to `config`.
pub fn read_dropins(classes: &mut Classes, config: &Path) -> Result<()> {
    let dir = config.with_file_name("classes.d");
    let entries = match std::fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e).with_context(|| format!("reading {}", dir.display())),
    };
    for entry in entries {
        let path = entry.with_context(|| format!("reading {}", dir.display()))?.path();
        if path.extension().is_none_or(|e| e != "toml") {
            continue;
        }
        let name = path.file_stem().and_then(|s| s.to_str()).unwrap_or_default().to_string();
        let said = || path.display().to_string();
        check_name(&name).with_context(said)?;
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let knobs = parse_class(&text).with_context(said)?;
        if classes.classes.insert(name.clone(), knobs).is_some() {
            invalid!("{}: class {name} is defined in {} too", path.display(), config.display());
        }
    }
    Ok(())
}

/// Reads all the files.
pub fn read(config: &Path) -> Result<Classes> {
    let mut classes = read_main(config)?;
    read_dropins(&mut classes, config)?;
    Ok(classes)
}

/// Reads the text of `hydra.toml`.
pub fn parse_main(text: &str) -> Result<Classes> {
    let mut all = Classes::default();
    for (key, value) in table_of(text)? {
        match (key.as_str(), value) {
            ("default-class", Value::String(name)) => {
                check_name(&name)?;
                all.default = Some(name);
            }
            ("mount-hierarchies", Value::Array(names)) => {
                for name in names {
                    match name.as_str() {
                        Some(name) if hierarchies::KNOWN.contains(&name) => all.mount.push(name.into()),
                        _ => invalid!("mount-hierarchies: {name:?}: allowed: {}", hierarchies::KNOWN.join(", ")),
                    }
                }
            }
            ("class", Value::Table(classes)) => {
                for (name, class) in classes {
                    check_name(&name)?;
                    let Value::Table(class) = class else { invalid!("class.{name}: a table is wanted") };
                    let knobs = flatten(class).with_context(|| format!("class {name}"))?;
                    all.classes.insert(name, knobs);
                }
            }
            (key, _) => invalid!("{key:?}: unknown or of the wrong type; allowed: default-class = \"NAME\", mount-hierarchies = [...] and tables [class.NAME.GROUP]"),
        }
    }
    Ok(all)
}

/// Reads the text of one file in `classes.d`.
pub fn parse_class(text: &str) -> Result<Layer> {
    flatten(table_of(text)?)
}

fn table_of(text: &str) -> Result<Table> {
    text.parse::<Table>().map_err(|e| {
        let line = e.span().map_or(0, |s| text[..s.start.min(text.len())].matches('\n').count() + 1);
        Error::invalid(format!("line {line}: {}", e.message().lines().next().unwrap_or_default()))
    })
}

/// Class names are also words of command lines and file names.
pub fn check_name(name: &str) -> Result<()> {
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    if !plain || name.is_empty() || name.starts_with(['.', '-']) || name.len() > 64 {
        let name: String = name.chars().filter(|c| !c.is_control()).take(80).collect();
        invalid!("class: '{name}' is not a class name; allowed: up to 64 of A-Z a-z 0-9 . _ -");
    }
    Ok(())
}

/// `[blkio] write-bps` and `[cgroup] "memory.high"` to knob names.
fn flatten(class: Table) -> Result<Layer> {
    let mut layer = Layer::new();
    for (group, knobs) in class {
        let Value::Table(knobs) = knobs else {
            invalid!("{group:?}: a table of knobs is wanted, such as [blkio]");
        };
        for (knob, value) in knobs {
            let name = format!("{group}.{knob}");
            table::find(&name)?;
            let text = match value {
                Value::String(text) => text,
                Value::Integer(n) => n.to_string(),
                Value::Boolean(b) => if b { "on" } else { "off" }.into(),
                other => invalid!(
                    "{name}: a {} is no value for a knob; allowed: a string or a whole number",
                    other.type_str()
                ),
            };
            layer.insert(name, text);
        }
    }
    Ok(layer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn main_file() {
        let all = parse_main(
            "default-class = \"bronze\"\n[class.gold.blkio]\nwrite-bps = \"40MB\"\nwrite-iops = 100\n\
             [class.gold.cgroup]\n\"memory.high\" = \"1G\"\n[class.bronze]\n",
        )
        .unwrap();
        assert_eq!(all.default.as_deref(), Some("bronze"));
        let gold = all.get("gold").unwrap();
        assert_eq!(gold["blkio.write-bps"], "40MB");
        assert_eq!(gold["blkio.write-iops"], "100");
        assert_eq!(gold["cgroup.memory.high"], "1G");
        assert_eq!(all.get("x").unwrap_err().to_string(), "class: 'x' is not defined; allowed: bronze, gold");
    }

    #[test]
    fn mistakes_are_named() {
        for (text, part) in [
            ("a = [", "line 1: "),
            ("default-class = 1", "default-class"),
            ("classes = 1", "allowed: default-class"),
            ("[class.\"a b\"]", "not a class name"),
            ("[class.a]\nblkio = 1", "a table of knobs"),
            ("[class.a.blkio]\nwrite-bp = 1", "unknown knob blkio.write-bp"),
            ("[class.a.blkio]\nwrite-bps = 1.5", "a float is no value"),
        ] {
            let e = parse_main(text).unwrap_err().to_string();
            assert!(e.contains(part) && !e.contains('\n'), "{text}: {e}");
        }
        let all = parse_main("[class.a.blkio]\nwrite-bps = \"1mbps\"\n[class.b]").unwrap();
        assert!(all
            .get("a")
            .unwrap_err()
            .to_string()
            .starts_with("class a: blkio.write-bps: '1mbps' is ambiguous"));
        assert!(all.get("b").is_ok());
    }
}
