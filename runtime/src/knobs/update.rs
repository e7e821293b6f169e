//! Changing the limits of a container that exists: whole, or not at all.
//!
//! The order is: journal (`update.json`), kernel, state, journal away. A journal that is found belongs to an update
//! that was killed: if the state hasn't reached its generation, what the kernel was told is taken back.

mod journal;
mod net;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use cgroup::apply::line_key;
use cgroup::block::Device;
use cgroup::layout::Version;
use cgroup::systemd::PropertyStep;
use cgroup::{Cgroup, Change, Layout, Location, Resources, Transaction, Write};
use serde::Serialize;

use super::applied::Saved;
use super::base;
use super::devices::Resolver;
use super::layers::{self, check, PREFIX};
use super::limits::{self, throttles, upsert, Limits, World};
use super::stats;
use super::value::Selector;
use crate::cli;
use crate::error::{Context, Error, Result};
use crate::init::attrs::rdt::{self, Rdt};

use journal::Journal;
pub use journal::{finish, recover};

/// What was asked of `update`, read and checked.
#[derive(Debug, Default)]
pub struct Request {
    change: Resources,
    /// Other schemata for the container's class of Intel RDT.
    schemata: rdt::change::Asked,
    /// Knobs whose flag is runc's and was given as such.
    respelled: Vec<&'static str>,
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
    /// Reads the command line and the JSON, if there is one. As with runc, flags of runc's don't count beside JSON,
    /// but for those of Intel RDT, of which there is no JSON.
    pub fn parse(args: &cli::Update) -> Result<Request> {
        let mut request = Request {
            class: args.class.as_ref().map(|name| Some(name.clone()).filter(|n| !n.is_empty())),
            annotations: args.annotations.clone(),
            unset: args.unset.clone(),
            reload: args.reload,
            schemata: rdt::change::asked(&args.flags),
            ..Request::default()
        };
        for (flag, value) in &args.knobs {
            request.set.push(super::from_flag(flag, value)?);
        }
        match args.resources.as_deref() {
            None => {
                request.change = base::from_flags(&args.flags)?;
                let knobs = args.flags.iter().filter_map(|(flag, _)| super::knob_of(flag));
                request.respelled = knobs.filter(|knob| knob.runc_flag).map(|knob| knob.name).collect();
            }
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
        check(&request.set.iter().cloned().collect())?;
        let annotations = request.annotations.iter();
        let annotations =
            annotations.filter_map(|(k, v)| Some((k.strip_prefix(PREFIX)?.to_string(), v.clone())));
        check(&annotations.filter(|(k, _)| k != "class").collect()).context("annotation")?;
        Ok(request)
    }

    /// Nothing in it is a word of ours: an engine, or somebody who knows runc, asks.
    pub fn is_runcs(&self) -> bool {
        self.set.is_empty() && self.unset.is_empty() && self.annotations.is_empty() && self.class.is_none()
    }

    /// Other schemata are asked for: it matters where resctrl is.
    pub fn names_schemata(&self) -> bool {
        !self.schemata.is_empty()
    }

    /// Whether it may name devices.
    fn says_devices(&self) -> bool {
        let set = self.set.iter().map(|(name, _)| name.as_str());
        let annotations = self.annotations.iter().filter_map(|(key, _)| key.strip_prefix(PREFIX));
        self.class.is_some() || self.reload || set.chain(annotations).any(|name| name.starts_with("blkio."))
    }

    /// Changes what the state says.
    fn change(&self, saved: &mut Saved, own: &Resources, layout: &Layout) -> Result<()> {
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
        // Knob and runc's flag are one spelling here: the later word of the same operator counts. Engines, which send
        // whole resources as JSON, take nothing back.
        self.respelled.iter().for_each(|knob| drop(layers.operator.remove(*knob)));
        for (knob, value) in &self.set {
            layers.set(knob, value)?;
        }
        if self.change != Resources::default() {
            let mut change = self.change.clone();
            // Device rules are never updated: runc doesn't, and callers send stale ones.
            change.devices.clear();
            let base = saved.base.get_or_insert_with(|| own.clone());
            base::merge(base, change, layout.version_of("memory"));
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
    /// Where resctrl is mounted, and the container's class there.
    pub resctrl: Option<&'a Path>,
    pub class: Option<&'a Rdt>,
    /// Whose network it uses.
    pub network: netlimit::Network,
    pub saved: &'a Saved,
}

/// What was done, or with `--dry-run` would be.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub changes: Vec<Change>,
    /// What holds less than it seems to, and what the kernel made of values, as sentences.
    pub notes: Vec<String>,
}

/// A state and what it comes to here. `kept` says that nobody named devices now: a path that was named before and is
/// gone meanwhile keeps its limit where it was, and is in nobody's way.
fn limits_of(
    subject: &Subject<'_>,
    saved: &Saved,
    layout: &Layout,
    resolver: &Resolver,
    kept: bool,
) -> Result<Limits> {
    let notes = RefCell::new(Vec::new());
    let devices = |selector: &Selector| match resolver.devices(selector) {
        Err(e) if kept => {
            let held = placed_for(subject.saved, selector, resolver).ok_or(e)?;
            let names: Vec<_> = held.iter().map(Device::to_string).collect();
            notes.borrow_mut().push(match held.is_empty() {
                true => format!("{selector} can't be found any more, nor can its device"),
                false => {
                    format!("{selector} can't be found any more: its limits stay with {}", names.join(", "))
                }
            });
            Ok(held)
        }
        other => other,
    };
    let world = World { version: &|c| layout.version_of(c), devices: &devices };
    let own = saved.base.as_ref().unwrap_or(subject.own);
    let mut limits = limits::limits(own, &saved.layers.effective()?, &world)?;
    limits.resources.devices.clear();
    limits.notes.extend(notes.take());
    limits.notes.dedup();
    Ok(limits)
}

/// The devices that carry limits for a selector, as far as they are still there; `None` if it never had any.
fn placed_for(saved: &Saved, selector: &Selector, resolver: &Resolver) -> Option<Vec<Device>> {
    let text = selector.to_string();
    let placed: BTreeSet<Device> =
        saved.placed.iter().filter(|p| p.selector == text).map(|p| p.device).collect();
    (!placed.is_empty()).then(|| placed.into_iter().filter(|d| resolver.exists(*d)).collect())
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
    // A device that was taken away took its limits along.
    for placed in saved.placed.iter().filter(|p| resolver.exists(p.device)) {
        if let Some(index) = limits::throttle_index(&placed.knob) {
            upsert(throttles(io, index), placed.device, placed.amount.unwrap_or(0));
        }
    }
    for placed in saved.placed.iter().filter(|p| p.knob == "blkio.latency" && resolver.exists(p.device)) {
        old.raw.insert(("io.latency".into(), placed.device.to_string()), String::new());
    }
    for (index, total) in saved.totals.all().into_iter().enumerate() {
        for device in saved.shared().iter().filter(|d| total.is_some() && resolver.exists(**d)) {
            upsert(throttles(io, index), *device, 1);
        }
    }
    Ok(old)
}

/// Until something about a total changes, its split is the helper's business.
fn keep_split(cgroup: &Cgroup, before: &Saved, new: &mut Limits) {
    if new.totals.is_empty() || before.totals != new.totals || before.shared() != new.shared {
        return;
    }
    let present = stats::limits(cgroup);
    let totals = new.totals.all().into_iter().enumerate().filter(|(_, total)| total.is_some());
    for (index, device) in totals.flat_map(|(index, _)| new.shared.iter().map(move |d| (index, *d))) {
        let held = present.iter().find(|(d, _)| *d == device).and_then(|(_, rates)| rates[index]);
        let own = new.caps.iter().find(|cap| cap.device == device && cap.throttle == index);
        if let Some(held) = held {
            let rate = own.map_or(held, |own| own.rate.min(held));
            upsert(throttles(new.resources.block_io.get_or_insert_default(), index), device, rate);
        }
    }
}

/// A cpuset that nobody limits any more has all that its parent has. The kernel takes no empty list while processes are in
/// the cgroup: on v1 the parent's list says it, on v2, where no list gives more than the parent has, all there can be.
fn fill_cpusets(cgroup: &Cgroup, layout: &Layout, limits: &mut Limits) {
    let Some(cpu) = &mut limits.resources.cpu else { return };
    let parent = cgroup.dir("cpuset").and_then(|dir| dir.path().parent().map(PathBuf::from));
    for (list, file, all) in [
        (&mut cpu.cpus, "cpuset.cpus", "/sys/devices/system/cpu/possible"),
        (&mut cpu.mems, "cpuset.mems", "/sys/devices/system/node/possible"),
    ] {
        if list.as_deref() != Some("") {
            continue;
        }
        let read = |path: &Path| fs::read_to_string(path).ok().map(|t| t.trim().to_string());
        *list = match layout.version_of("cpuset") {
            Some(Version::V2) => read(Path::new(all)),
            _ => parent.as_ref().and_then(|parent| read(&parent.join(file))),
        };
    }
}

/// Does what was asked, or with `dry_run` says what that would be. `save` writes the new state; it is called after
/// the kernel took everything, and when it fails all is taken back.
pub fn update(
    request: &Request,
    subject: &Subject<'_>,
    dry_run: bool,
    save: &mut dyn FnMut(&Saved) -> Result<()>,
) -> Result<Report> {
    let schemata = rdt::change::decide(subject.resctrl, subject.class, &request.schemata)?;
    let mut saved = subject.saved.clone();
    let layout = Layout::detect()?;
    request.change(&mut saved, subject.own, &layout)?;
    let cgroup = Cgroup::open(subject.location).context("opening the container's cgroup")?;
    let resolver = Resolver::running(subject.pid);
    let mut new = limits_of(subject, &saved, &layout, &resolver, !request.says_devices())?;
    keep_split(&cgroup, subject.saved, &mut new);
    saved.note(&new);
    let old = limits_before(subject, &layout, &resolver)?;
    limits::lift(&old, &mut new, &saved.originals);
    let has =
        |file: &str| cgroup.dir(file.split('.').next().unwrap_or_default()).is_some_and(|d| d.has(file));
    limits::lift_weights(&old, &mut new, &has);
    if let Some(record) = &saved.net {
        new.net.count_loopback =
            limits::loopback(old.net.count_loopback, new.net.count_loopback, record.network);
    }
    fill_cpusets(&cgroup, &layout, &mut new);
    let mut plan = cgroup.plan(&layout, &new.resources)?;
    let mut raw = new.raw_writes()?;
    // What a weaker layer says now comes in place of what was lifted, and what is said raw in place of the rest.
    new.lifted.retain(|(file, key), _| {
        let line = |w: &Write| w.file == *file && line_key(file, &w.value).unwrap_or_default() == key;
        !plan.writes.iter().any(line)
    });
    let mut lifted = new.lifting_writes()?;
    plan.writes.retain(|w| line_key(&w.file, &w.value).is_some() || raw.iter().all(|r| r.file != w.file));
    let said = [(&saved.layers.effective()?, &new), (&subject.saved.layers.effective()?, &old)];
    for writes in [&mut lifted, &mut plan.writes, &mut raw] {
        limits::name_writes(writes, &said);
    }
    for write in &raw {
        let known = saved.originals.contains_key(write.file.as_ref());
        if let Some(text) = cgroup.dir(&write.controller).and_then(|d| d.peek(&write.file)).filter(|_| !known)
        {
            saved.originals.insert(write.file.to_string(), text.trim().into());
        }
    }

    let record = RefCell::new(saved.net.clone());
    let mut all = Transaction::new();
    // What only the files know is lost at systemd's next daemon-reload.
    if let Some(step) = PropertyStep::new(&cgroup, &new.of_unit(subject.location.mode))? {
        all.step(step);
    }
    all.writes(&cgroup, &lifted)?.writes(&cgroup, &plan.writes)?.writes(&cgroup, &raw)?;
    if let Some(schemata) = schemata {
        all.step(schemata);
    }
    let (step, net) = net::step(subject, &new, &old, &record)?.unzip();
    if let Some(step) = step {
        if dry_run {
            step.rehearse()?;
        }
        all.step(step);
    }
    let prepared = all.prepare()?;
    let mut report = Report { notes: [plan.warnings, new.notes.clone()].concat(), ..Report::default() };
    report.notes.extend(outvoted(request, &saved)?);
    if dry_run {
        report.changes = prepared.changes().filter(|c| c.old != c.asked).cloned().collect();
        return Ok(report);
    }
    saved.generation += 1;
    let journal = Journal { generation: saved.generation, pid: subject.pid, undo: prepared.journal(), net };
    let journal = journal.write(subject.dir)?;
    let changes = match prepared.commit() {
        Ok(changes) => changes,
        // What is half done is tried once more now, and if that fails too, by the next command.
        Err(e) if e.kind() == cgroup::Kind::Half => {
            return Err(match journal.take_back() {
                Ok(()) => Error::from(e).context("at the second attempt all was put back"),
                Err(left) => Error::from(e).context(format!(
                    "the limits are half changed ({left}); `update` without flags tries to put the old ones back"
                )),
            });
        }
        Err(e) => {
            // Left behind it would do no harm: what it would put back is in force.
            if let Err(left) = journal.done() {
                log::warn!("{left}");
            }
            return Err(e.into());
        }
    };
    saved.net = record.borrow().clone();
    if let Err(e) = save(&saved) {
        // The state on disk is the old one: so must be the kernel.
        return Err(match journal.take_back() {
            Ok(()) => e.context("nothing was changed"),
            Err(left) => e.context(format!("not everything could be put back ({left})")),
        });
    }
    // The state says that it belongs to an update that is complete.
    if let Err(left) = journal.done() {
        log::warn!("{left}");
    }
    report.changes = changes.into_iter().filter(|c| c.old != c.asked || c.rounded()).collect();
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

/// What was asked for as the container's own and a stronger layer decides.
fn outvoted(request: &Request, saved: &Saved) -> Result<Vec<String>> {
    let said: Vec<_> = base::said(&request.change).collect();
    let effective = saved.layers.effective()?.0;
    let winners =
        effective.iter().filter(|(name, _)| said.iter().any(|s| s == name || layers::same(s, name)));
    let text = |(name, asked): (&String, &layers::Asked)| {
        format!("{name}: the {} says {} and has precedence", asked.from, asked.text)
    };
    Ok(winners.map(text).collect())
}

#[cfg(test)]
mod tests;
