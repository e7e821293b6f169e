//! Other schemata for a class in use: a step of `update`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use cgroup::{Change, Undo};

use super::{lock, write, Rdt};
use crate::error::{Context, Error, Result};

/// runc's flags of `update`, what of the machine each needs, and runc's words where that is not there.
const FLAGS: [(&str, &str, &str); 2] = [
    ("l3-cache-schema", "info/L3", "Intel RDT/CAT: l3 cache schema is not enabled"),
    ("mem-bw-schema", "info/MB", "Intel RDT/MBA: memory bandwidth schema is not enabled"),
];

/// What was asked for, by flag.
pub type Asked = BTreeMap<&'static str, String>;

/// Takes from runc's flags those that are about a class. As with runc, an empty one asks for nothing.
pub fn asked(flags: &[(&'static str, String)]) -> Asked {
    let ours = flags.iter().filter(|(flag, text)| is_flag(flag) && !text.trim().is_empty());
    ours.cloned().collect()
}

pub fn is_flag(flag: &str) -> bool {
    FLAGS.iter().any(|(name, ..)| *name == flag)
}

/// A change that is decided: all that could be refused without asking the kernel has been.
#[derive(Debug)]
pub struct Schemata {
    root: PathBuf,
    class: PathBuf,
    asked: Asked,
    /// The lines that are going to change, as they are.
    old: String,
}

/// `class` is the container's. None: nothing was asked for.
pub fn decide(root: Option<&Path>, class: Option<&Rdt>, asked: &Asked) -> Result<Option<Schemata>> {
    if asked.is_empty() {
        return Ok(None);
    }
    for (flag, needs, refusal) in FLAGS {
        if asked.contains_key(flag) && !root.is_some_and(|root| root.join(needs).exists()) {
            return Err(Error::unsupported(refusal));
        }
    }
    match (root, class) {
        (Some(root), Some(class)) => Ok(Some(Schemata {
            root: root.to_path_buf(),
            class: class.clos_dir(root),
            asked: asked.clone(),
            old: String::new(),
        })),
        _ => Err(Error::unsupported(
            "updating a non-existent Intel RDT configuration is not supported: config.json has no linux.intelRdt",
        )),
    }
}

impl Schemata {
    fn file(&self) -> PathBuf {
        self.class.join("schemata")
    }

    fn read(&self) -> cgroup::Result<String> {
        let file = self.file();
        fs::read_to_string(&file)
            .map_err(Error::from)
            .with_context(|| format!("intelrdt: read {}", file.display()))
            .map_err(foreign)
    }
}

impl cgroup::Step for Schemata {
    fn name(&self) -> String {
        self.file().display().to_string()
    }

    fn snapshot(&mut self) -> cgroup::Result<Vec<Change>> {
        let found = self.read()?;
        let all: Vec<&str> = self.asked.values().map(String::as_str).collect();
        self.old = named(&found, &all.join("\n"));
        let change = |(flag, text): (&&str, &String)| Change {
            field: flag.to_string(),
            target: self.name(),
            old: named(&found, text),
            asked: text.trim().into(),
            effective: None,
        };
        Ok(self.asked.iter().map(change).collect())
    }

    fn apply(&mut self) -> cgroup::Result<()> {
        let lines = self.asked.values().flat_map(|text| text.lines()).map(str::trim);
        let text: String = lines.filter(|line| !line.is_empty()).map(|line| format!("{line}\n")).collect();
        let _lock = lock(&self.root).map_err(foreign)?;
        write(&self.root, &self.file(), &text).map_err(foreign)
    }

    fn read_back(&mut self, changes: &mut [Change]) -> cgroup::Result<()> {
        let found = self.read()?;
        changes.iter_mut().for_each(|change| change.effective = Some(named(&found, &change.asked)));
        Ok(())
    }

    fn undo(&mut self) -> cgroup::Result<()> {
        cgroup::apply::recover(&cgroup::Step::journal(self))
    }

    fn journal(&self) -> Vec<Undo> {
        // The kernel takes whole lines only.
        let line = format!("{}\n", self.old);
        vec![Undo::File { dir: self.class.clone(), file: "schemata".into(), line }]
    }
}

/// The lines of `found` about the resources (`L3`, `MB`) that `asked` has lines about.
fn named(found: &str, asked: &str) -> String {
    let name = |line: &str| line.split_once(':').map_or("", |(name, _)| name).trim().to_string();
    let wanted: Vec<String> = asked.lines().map(name).collect();
    let lines: Vec<&str> = found.lines().filter(|line| wanted.contains(&name(line))).map(str::trim).collect();
    lines.join("\n")
}

fn foreign(e: Error) -> cgroup::Error {
    cgroup::Error::new(cgroup::Kind::System, e.to_string())
}
