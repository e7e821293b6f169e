//! Changes that happen whole or not at all.
//!
//! ```text
//! let mut all = Transaction::new();
//! all.writes(&cgroup, &plan.writes)?;     // files of the cgroup
//! all.step(net_limits);                   // anything else that can be undone
//! let prepared = all.prepare()?;          // looked at everything, changed nothing: for --dry-run and the journal
//! save(prepared.journal())?;              // what `recover` needs should we be killed half way
//! let report = prepared.commit()?;        // written and read back; on failure all is as it was
//! ```

mod shape;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
pub use shape::{line_key, unset_line};

use crate::cgroup::Cgroup;
use crate::create::explain;
use crate::dir::Dir;
use crate::error::{Context, Error, Kind, Result};
use crate::location::Unit;
use crate::systemd::{Manager, Property};
use crate::write::Write;

/// One change of several.
pub trait Step {
    /// What is changed, for messages: a path, a unit, a device.
    fn name(&self) -> String;

    /// Looks at what is in force and keeps what `undo` needs. Changes nothing. Returns what will change, for people.
    fn snapshot(&mut self) -> Result<Vec<Change>>;

    fn apply(&mut self) -> Result<()>;

    /// Fills in what the kernel made of it.
    fn read_back(&mut self, _changes: &mut [Change]) -> Result<()> {
        Ok(())
    }

    /// Puts back what the snapshot saw. Called for every step that was applied, the last first, and also for the one
    /// that failed.
    fn undo(&mut self) -> Result<()>;

    /// Undoing it writes files of other steps, which are put back after it.
    fn stirs(&self) -> bool {
        false
    }

    /// The same for a later process.
    fn journal(&self) -> Vec<Undo> {
        Vec::new()
    }
}

/// A setting before and after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The setting it comes from: `memory.limit`.
    pub field: String,
    /// The file, or what else holds the setting.
    pub target: String,
    pub old: String,
    pub asked: String,
    /// What was read back. `None` before the change, or where nothing can be read.
    pub effective: Option<String>,
}

impl Change {
    /// Whether the kernel holds another number than was asked for (pages, ticks). Lifting a limit is no rounding.
    pub fn rounded(&self) -> bool {
        let number = |t: &str| t.parse::<u64>().ok();
        match (number(&self.asked), self.effective.as_deref().and_then(number)) {
            (Some(asked), Some(effective)) => asked != effective,
            _ => false,
        }
    }
}

/// What puts a setting back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Undo {
    /// A line for a file.
    File { dir: PathBuf, file: String, line: String },
    /// Properties of a systemd unit.
    Unit { unit: Unit, properties: Vec<Property> },
}

impl Undo {
    fn run(&self) -> Result<()> {
        match self {
            Undo::File { dir, file, line } => {
                let dir = Dir::open(dir)?;
                dir.overwrite(file, line).or_else(|refused| {
                    // What the kernel doesn't take, as the lines of a scheduler that isn't there, it didn't take before
                    // either: then the old value is still in force.
                    let text = dir.peek(file).unwrap_or_default();
                    if shape::present(file, &text, line).split_whitespace().eq(line.split_whitespace()) {
                        return Ok(());
                    }
                    Err(refused)
                })
            }
            Undo::Unit { unit, properties } => Manager::connect(unit.user)?.set(&unit.name, properties),
        }
    }
}

/// Undoes what a killed process may have left half done. What is gone meanwhile needs no undoing.
pub fn recover(journal: &[Undo]) -> Result<()> {
    let mut result = Ok(());
    // systemd writes the files of a unit whose properties change, rounded its own way: the files come after it.
    let (units, files): (Vec<&Undo>, Vec<&Undo>) =
        journal.iter().rev().partition(|undo| matches!(undo, Undo::Unit { .. }));
    for undo in units.into_iter().chain(files) {
        match undo.run() {
            Err(e) if e.kind() == Kind::NotFound => {}
            other => result = result.and(other),
        }
    }
    result
}

/// Makes the write with this number and name fail; for tests.
pub type Fault<'a> = &'a mut dyn FnMut(usize, &str) -> Result<()>;

/// Steps still to be looked at.
#[derive(Default)]
pub struct Transaction<'a> {
    steps: Vec<Box<dyn Step + 'a>>,
    /// A step before these writes may write the same files, so that what they hold now is no reason to pass one over.
    stirred: bool,
    /// The lines of files that are written: what one holds now is no reason to pass a second write over.
    lines: Vec<(PathBuf, String)>,
}

/// Steps of which everything is known and nothing done.
pub struct Prepared<'a> {
    steps: Vec<(Box<dyn Step + 'a>, Vec<Change>)>,
}

impl<'a> Transaction<'a> {
    pub fn new() -> Transaction<'a> {
        Transaction::default()
    }

    /// Adds a step, done after those that are there.
    pub fn step(&mut self, step: impl Step + 'a) -> &mut Self {
        self.stirred |= step.stirs();
        self.steps.push(Box::new(step));
        self
    }

    /// Adds a change as two closures, for what can't be shown as old and new.
    pub fn pair(
        &mut self,
        name: impl Into<String>,
        apply: impl FnMut() -> Result<()> + 'a,
        undo: impl FnMut() -> Result<()> + 'a,
    ) -> &mut Self {
        self.step(Pair { name: name.into(), apply, undo })
    }

    /// Adds writes to a cgroup's files.
    pub fn writes(&mut self, cgroup: &'a Cgroup, writes: &[Write]) -> Result<&mut Self> {
        for write in writes {
            let dir = cgroup.dir(&write.controller).ok_or_else(|| {
                let text = format!("{}: the container has no {} cgroup", write.field, write.controller);
                Error::unsupported(text)
            })?;
            let key = line_key(&write.file, &write.value).unwrap_or_default();
            let line = (dir.path().join(write.file.as_ref()), key.to_string());
            let always = self.stirred || self.lines.contains(&line);
            self.lines.push(line);
            self.step(FileStep { dir, write: write.clone(), undo: Vec::new(), skip: false, always });
        }
        Ok(self)
    }

    /// Looks at everything that is going to change.
    pub fn prepare(self) -> Result<Prepared<'a>> {
        let look = |mut step: Box<dyn Step + 'a>| {
            let changes = step.snapshot()?;
            Ok((step, changes))
        };
        Ok(Prepared { steps: self.steps.into_iter().map(look).collect::<Result<_>>()? })
    }

    /// `prepare` and `commit` in one.
    pub fn run(self) -> Result<Vec<Change>> {
        self.prepare()?.commit()
    }
}

impl Prepared<'_> {
    /// What is going to change.
    pub fn changes(&self) -> impl Iterator<Item = &Change> {
        self.steps.iter().flat_map(|(_, changes)| changes)
    }

    /// What `recover` needs, in the order of the steps.
    pub fn journal(&self) -> Vec<Undo> {
        self.steps.iter().flat_map(|(step, _)| step.journal()).collect()
    }

    /// Does it all. On an error everything is as it was; on one of the kind `Half` it isn't, and what could not be put back
    /// is named.
    pub fn commit(self) -> Result<Vec<Change>> {
        self.commit_with(&mut |_, _| Ok(()))
    }

    /// As `commit`, with a fault before a step of choice.
    pub fn commit_with(mut self, fault: Fault<'_>) -> Result<Vec<Change>> {
        for i in 0..self.steps.len() {
            let (step, _) = &mut self.steps[i];
            let done = fault(i, &step.name()).and_then(|()| step.apply());
            if let Err(e) = done {
                return Err(self.undo(i, e));
            }
        }
        for i in 0..self.steps.len() {
            let (step, changes) = &mut self.steps[i];
            if let Err(e) = step.read_back(changes) {
                let last = self.steps.len() - 1;
                return Err(self.undo(last, e.context("reading back")));
            }
        }
        Ok(self.steps.into_iter().flat_map(|(_, changes)| changes).collect())
    }

    fn undo(&mut self, failed: usize, error: Error) -> Error {
        let mut left = Vec::new();
        let mut order: Vec<usize> = (0..=failed).rev().collect();
        order.sort_by_key(|i| !self.steps[*i].0.stirs());
        for i in order {
            match self.steps[i].0.undo() {
                Ok(()) => {}
                // Most often it fails for the same reason, having changed nothing.
                Err(_) if i == failed => {}
                Err(e) => left.push(e.to_string()),
            }
        }
        if left.is_empty() && error.kind() == Kind::Half {
            // The step that failed says of itself what it left.
            error
        } else if left.is_empty() {
            error.context("nothing was changed")
        } else {
            let text = format!("not everything could be put back ({})", left.join("; "));
            error.with_kind(Kind::Half).context(text)
        }
    }
}

struct Pair<A, U> {
    name: String,
    apply: A,
    undo: U,
}

impl<A: FnMut() -> Result<()>, U: FnMut() -> Result<()>> Step for Pair<A, U> {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn snapshot(&mut self) -> Result<Vec<Change>> {
        Ok(Vec::new())
    }

    fn apply(&mut self) -> Result<()> {
        (self.apply)()
    }

    fn undo(&mut self) -> Result<()> {
        (self.undo)()
    }
}

/// A write to a cgroup's file.
struct FileStep<'a> {
    dir: &'a Dir,
    write: Write,
    undo: Vec<Undo>,
    /// There is no such file and none is needed, or the value is there already.
    skip: bool,
    /// Written even if the value is there.
    always: bool,
}

impl FileStep<'_> {
    fn path(&self) -> String {
        self.dir.path().join(self.write.file.as_ref()).display().to_string()
    }
}

impl Step for FileStep<'_> {
    fn name(&self) -> String {
        self.path()
    }

    fn snapshot(&mut self) -> Result<Vec<Change>> {
        let (file, value) = (self.write.file.as_ref(), self.write.value.as_str());
        let text = match self.dir.read(file) {
            Ok(text) => text,
            Err(e) if self.write.optional && e.is(libc::ENOENT) => {
                self.skip = true;
                return Ok(Vec::new());
            }
            Err(e) => return Err(explain(e, self.dir, &self.write)),
        };
        let undo = |file: &str, line| Undo::File { dir: self.dir.path().into(), file: file.into(), line };
        let old = shape::present(file, &text, value);
        self.undo = vec![undo(file, old.clone())];
        // What the kernel sets aside while idle.
        if let ("cpu.idle", "0") = (file, text.trim()) {
            let weight = if self.dir.has("cpu.weight") { "cpu.weight" } else { "cpu.shares" };
            let held = self.dir.read(weight).with_context(|| format!("setting {}", self.write.field))?;
            self.undo.push(undo(weight, held.trim().to_string()));
        }
        let asked = shape::asked(file, value);
        self.skip = old == asked && !self.always;
        let (field, target) = (self.write.field.to_string(), self.path());
        Ok(vec![Change { field, target, old, asked, effective: None }])
    }

    fn apply(&mut self) -> Result<()> {
        if self.skip {
            return Ok(());
        }
        let done = self.dir.overwrite(&self.write.file, &self.write.value);
        done.map_err(|e| explain(e, self.dir, &self.write))
    }

    fn read_back(&mut self, changes: &mut [Change]) -> Result<()> {
        for change in changes {
            let text = self.dir.read(&self.write.file)?;
            change.effective = Some(shape::present(&self.write.file, &text, &self.write.value));
        }
        Ok(())
    }

    fn undo(&mut self) -> Result<()> {
        if self.skip {
            return Ok(());
        }
        self.undo.iter().try_for_each(Undo::run)
    }

    fn journal(&self) -> Vec<Undo> {
        if self.skip {
            Vec::new()
        } else {
            // `recover` goes backwards.
            self.undo.iter().rev().cloned().collect()
        }
    }
}

#[cfg(test)]
mod tests;
