//! Changing the limits of a container that exists: whole, or not at all.
//!
//! The order is: journal (`update.json`), kernel, state, journal away. A journal that is found belongs to an update
//! that was killed: if the state hasn't reached its generation, what the kernel was told is taken back.

use std::cell::RefCell;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use cgroup::{Cgroup, Change, Layout, Location, Resources, Transaction, Undo};
use netlimit::Record;
use serde::{Deserialize, Serialize};

use super::applied::{self, Saved};
use super::base;
use super::devices::Resolver;
use super::limits::{self, throttles, upsert, Limits, World};
use crate::cli;
use crate::error::{Context, Error, Result};

const JOURNAL: &str = "update.json";

/// What was asked of `update`, read and checked.
#[derive(Debug, Default)]
pub struct Request {
    change: Resources,
    set: Vec<(String, String)>,
    unset: Vec<String>,
    /// `Some(None)` takes the class away.
    class: Option<Option<String>>,
    annotations: Vec<(String, String)>,
    reload: bool,
    /// The class file, where it isn't the one that the container was made with.
    pub config: Option<PathBuf>,
}

impl Request {
    /// Reads the command line and the JSON, if there is one. As with runc, flags of runc's don't count beside JSON.
    pub fn parse(args: &cli::Update) -> Result<Request> {
        let mut request = Request {
            class: args.class.as_ref().map(|name| Some(name.clone()).filter(|n| !n.is_empty())),
            annotations: args.annotations.clone(),
            unset: args.unset.clone(),
            reload: args.reload,
            ..Request::default()
        };
        for (flag, value) in &args.knobs {
            request.set.push(super::from_flag(flag, value)?);
        }
        match args.resources.as_deref() {
            None => request.change = base::from_flags(&args.flags)?,
            Some(path) => {
                let given = base::from_json(&read(path)?)?;
                request.change = given.resources;
                for (knob, value) in given.knobs {
                    match (knob.as_str(), value) {
                        ("class", name) => request.class = Some(name),
                        (_, Some(value)) => request.set.push((knob, value)),
                        (_, None) => request.unset.push(knob),
                    }
                }
            }
        }
        for (knob, value) in &request.set {
            super::table::find(knob)?.parse(knob, value)?;
        }
        Ok(request)
    }

    /// Changes what the state says.
    fn change(&self, saved: &mut Saved, own: &Resources) -> Result<()> {
        let layers = &mut saved.layers;
        if self.config.is_some() {
            layers.config = self.config.clone();
        }
        if self.reload {
            layers.reload()?;
        }
        if let Some(class) = &self.class {
            layers.set_class(class.as_deref())?;
        }
        for (key, value) in &self.annotations {
            layers.annotate(key, value)?;
        }
        for knob in &self.unset {
            layers.unset(knob)?;
        }
        // The later word of the same operator counts.
        base::said(&self.change).for_each(|knob| drop(layers.operator.remove(knob)));
        for (knob, value) in &self.set {
            layers.set(knob, value)?;
        }
        if self.change != Resources::default() {
            let mut change = self.change.clone();
            // Device rules are never updated: runc doesn't, and callers send stale ones.
            change.devices.clear();
            base::merge(saved.base.get_or_insert_with(|| own.clone()), change);
        }
        Ok(())
    }
}

fn read(path: &str) -> Result<String> {
    match path {
        "-" => std::io::read_to_string(std::io::stdin()).context("--resources: reading standard input"),
        path => fs::read_to_string(path).with_context(|| format!("--resources: reading {path}")),
    }
}

/// A container as `update` sees it.
pub struct Subject<'a> {
    /// Its state directory.
    pub dir: &'a Path,
    pub location: &'a Location,
    /// The first process.
    pub pid: i32,
    /// What config.json asks for.
    pub own: &'a Resources,
    pub saved: &'a Saved,
}

/// What was done, or with `--dry-run` would be.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub changes: Vec<Change>,
    /// What holds less than it seems to, and what the kernel made of values, as sentences.
    pub notes: Vec<String>,
}

/// The journal of an update under way.
#[derive(Debug, Serialize, Deserialize)]
struct Journal {
    /// The state's generation once the update is complete.
    generation: u64,
    undo: Vec<Undo>,
    /// The network limits before.
    #[serde(skip_serializing_if = "Option::is_none")]
    net: Option<(Record, netlimit::Limits)>,
}

/// A state and what it comes to here.
fn limits_of(subject: &Subject<'_>, saved: &Saved, layout: &Layout, resolver: &Resolver) -> Result<Limits> {
    let world = World { version: &|c| layout.version_of(c), devices: &|s| resolver.devices(s) };
    let own = saved.base.as_ref().unwrap_or(subject.own);
    let mut limits = limits::limits(own, &saved.layers.effective()?, &world)?;
    limits.resources.devices.clear();
    Ok(limits)
}

/// The limits in force. Devices that are no longer behind any mount are limited still: they are known from the state.
fn limits_before(subject: &Subject<'_>, layout: &Layout, resolver: &Resolver) -> Result<Limits> {
    let saved = subject.saved;
    let world = World {
        version: &|c| layout.version_of(c),
        devices: &|s| Ok(resolver.devices(s).unwrap_or_default()),
    };
    let own = saved.base.as_ref().unwrap_or(subject.own);
    let mut old = limits::limits(own, &saved.layers.effective()?, &world)?;
    let io = old.resources.block_io.get_or_insert_default();
    for placed in &saved.placed {
        if let Some(index) = limits::throttle_index(&placed.knob) {
            upsert(throttles(io, index), placed.device, placed.amount.unwrap_or(0));
        }
    }
    for (index, total) in saved.totals.all().into_iter().enumerate() {
        for device in saved.shared().iter().filter(|_| total.is_some()) {
            upsert(throttles(io, index), *device, 1);
        }
    }
    Ok(old)
}

/// A cpuset that nobody limits any more has all that its parent has; v1 doesn't take an empty list.
fn fill_cpusets(cgroup: &Cgroup, limits: &mut Limits) {
    let Some(cpu) = &mut limits.resources.cpu else { return };
    let Some(parent) = cgroup.dir("cpuset").and_then(|dir| dir.path().parent().map(PathBuf::from)) else {
        return;
    };
    for (list, file) in [(&mut cpu.cpus, "cpuset.cpus"), (&mut cpu.mems, "cpuset.mems")] {
        if list.as_deref() == Some("") {
            *list = fs::read_to_string(parent.join(file)).ok().map(|t| t.trim().to_string());
        }
    }
}

/// Network limits as one step of the whole.
struct Net<'a> {
    record: &'a RefCell<Option<Record>>,
    change: netlimit::Limits,
    netns: Option<File>,
    undo: Option<netlimit::Undo>,
}

impl cgroup::Step for Net<'_> {
    fn name(&self) -> String {
        "network limits".into()
    }

    fn snapshot(&mut self) -> cgroup::Result<Vec<Change>> {
        let old = self.record.borrow().as_ref().and_then(|r| netlimit::current(r).ok()).unwrap_or_default();
        Ok(changes(&old, &self.change))
    }

    fn apply(&mut self) -> cgroup::Result<()> {
        let mut record = self.record.borrow_mut();
        let Some(record) = record.as_mut() else { return Ok(()) };
        let undo = netlimit::update(record, &self.change, self.netns.as_ref().map(AsFd::as_fd));
        self.undo = Some(undo.map_err(foreign)?);
        Ok(())
    }

    fn undo(&mut self) -> cgroup::Result<()> {
        match (self.undo.take(), self.record.borrow_mut().as_mut()) {
            (Some(undo), Some(record)) => {
                undo.restore(record, self.netns.as_ref().map(AsFd::as_fd)).map_err(foreign)
            }
            _ => Ok(()),
        }
    }
}

fn foreign(e: netlimit::Error) -> cgroup::Error {
    cgroup::Error::new(cgroup::Kind::System, e.to_string())
}

/// Network limits side by side, those that differ.
fn changes(old: &netlimit::Limits, new: &netlimit::Limits) -> Vec<Change> {
    let json = |limits: &netlimit::Limits| serde_json::to_value(limits).unwrap_or_default();
    let (old, new) = (json(old), json(new));
    let text = |v: &serde_json::Value| v.as_str().map_or_else(|| v.to_string(), str::to_string);
    let each = new.as_object().into_iter().flatten().filter_map(|(name, asked)| {
        let known = old.get(name).map_or_else(|| "max".into(), text);
        let field = format!("net.{name}");
        let change = Change { target: field.clone(), field, old: known, asked: text(asked), effective: None };
        (change.old != change.asked).then_some(change)
    });
    each.collect()
}

/// Does what was asked, or with `dry_run` says what that would be. `save` writes the new state; it is called after
/// the kernel took everything, and when it fails all is taken back.
pub fn update(
    request: &Request,
    subject: &Subject<'_>,
    dry_run: bool,
    save: &mut dyn FnMut(&Saved) -> Result<()>,
) -> Result<Report> {
    let mut saved = subject.saved.clone();
    request.change(&mut saved, subject.own)?;
    let layout = Layout::detect()?;
    let cgroup = Cgroup::open(subject.location).context("opening the container's cgroup")?;
    let resolver = Resolver::running(subject.pid);
    let mut new = limits_of(subject, &saved, &layout, &resolver)?;
    saved.note(&new);
    let old = limits_before(subject, &layout, &resolver)?;
    limits::lift(&old, &mut new, &saved.originals);
    fill_cpusets(&cgroup, &mut new);
    let plan = cgroup.plan(&layout, &new.resources)?;
    let raw = new.raw_writes()?;
    for write in &raw {
        let known = saved.originals.contains_key(write.file.as_ref());
        if let Some(text) = cgroup.dir(&write.controller).and_then(|d| d.peek(&write.file)).filter(|_| !known)
        {
            saved.originals.insert(write.file.to_string(), text.trim().into());
        }
    }

    let record = RefCell::new(saved.net.clone());
    let mut all = Transaction::new();
    all.writes(&cgroup, &plan.writes)?.writes(&cgroup, &raw)?;
    let net = net_step(subject, &new, &old, &record)?;
    let has_net = net.is_some();
    if let Some(net) = net {
        all.step(net);
    }
    let prepared = all.prepare()?;
    let mut report = Report { notes: [plan.warnings, new.notes.clone()].concat(), ..Report::default() };
    let effective = saved.layers.effective()?.0;
    let outvoted = base::said(&request.change).filter_map(|knob| effective.get(knob));
    report.notes.extend(outvoted.map(|asked| {
        format!("{}: the {} says {} and has precedence", asked.knob.name, asked.from, asked.text)
    }));
    if dry_run {
        report.changes = prepared.changes().filter(|c| c.old != c.asked).cloned().collect();
        return Ok(report);
    }
    saved.generation += 1;
    let before = saved.net.clone().filter(|_| has_net).map(|r| (r, lifted(&old.net, &new.net)));
    let journal = Journal { generation: saved.generation, undo: prepared.journal(), net: before };
    let path = subject.dir.join(JOURNAL);
    write_journal(&path, &journal)?;
    let done = prepared.commit().map_err(Error::from).and_then(|changes| {
        saved.net = record.borrow().clone();
        save(&saved).inspect_err(|_| {
            // The state on disk is the old one: so must be the kernel.
            if let Err(e) = journal.take_back() {
                log::error!("taking back: {e}");
            }
        })?;
        Ok(changes)
    });
    let _ = fs::remove_file(&path);
    report.changes = done?.into_iter().filter(|c| c.old != c.asked || c.rounded()).collect();
    let rounded = report.changes.iter().filter(|c| c.rounded()).map(|c| {
        format!(
            "{}: asked {}, the kernel made it {}",
            c.field,
            c.asked,
            c.effective.as_deref().unwrap_or_default()
        )
    });
    report.notes.extend(rounded);
    Ok(report)
}

/// The network's step, where there is something to change.
fn net_step<'a>(
    subject: &Subject<'_>,
    new: &Limits,
    old: &Limits,
    record: &'a RefCell<Option<Record>>,
) -> Result<Option<Net<'a>>> {
    if new.net.is_empty() || new.net == old.net {
        return Ok(None);
    }
    let own = namespace(subject.pid)?;
    if record.borrow().is_none() {
        let network = if own.is_some() { netlimit::Network::Private } else { netlimit::Network::Host };
        let target = applied::target(subject.location, network);
        netlimit::check(&new.net, &target)?;
        *record.borrow_mut() = Some(Record::planned(&target));
    }
    Ok(Some(Net { record, change: new.net.clone(), netns: own, undo: None }))
}

/// The container's network namespace, unless it is the host's.
fn namespace(pid: i32) -> Result<Option<File>> {
    let path = format!("/proc/{pid}/ns/net");
    let same = fs::read_link(&path).with_context(|| format!("reading {path}"))?
        == fs::read_link("/proc/self/ns/net")?;
    match same {
        true => Ok(None),
        false => File::open(&path).map(Some).with_context(|| format!("opening {path}")),
    }
}

/// What sets `new` back to `old`: what only `new` names is lifted.
fn lifted(old: &netlimit::Limits, new: &netlimit::Limits) -> netlimit::Limits {
    let mut back = Limits { net: old.clone(), ..Limits::default() };
    limits::lift(&Limits { net: new.clone(), ..Limits::default() }, &mut back, &Default::default());
    back.net
}

fn write_journal(path: &Path, journal: &Journal) -> Result<()> {
    let text =
        serde_json::to_vec(journal).map_err(|e| Error::new(crate::error::Kind::System, e.to_string()))?;
    let temporary = path.with_extension("tmp");
    fs::write(&temporary, text)
        .and_then(|()| fs::rename(&temporary, path))
        .with_context(|| format!("writing {}", path.display()))
}

impl Journal {
    fn take_back(&self) -> Result<()> {
        let files = cgroup::apply::recover(&self.undo);
        if let Some((record, limits)) = &self.net {
            netlimit::update(&mut record.clone(), limits, None)?;
        }
        Ok(files?)
    }
}

/// Finishes what a killed `update` left, either way. To be called with the container locked; costs one failing
/// `open` when there is nothing.
pub fn recover(dir: &Path, saved: &Saved) -> Result<()> {
    let path = dir.join(JOURNAL);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e).with_context(|| format!("reading {}", path.display())),
    };
    let journal: Journal = serde_json::from_slice(&text)
        .map_err(|e| Error::new(crate::error::Kind::System, format!("{}: {e}", path.display())))?;
    if journal.generation > saved.generation {
        journal.take_back().context("taking back an update that was killed")?;
    }
    fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))
}

#[cfg(test)]
mod tests;
