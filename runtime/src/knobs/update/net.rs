//! Network limits as one step of the whole.

use std::cell::RefCell;
use std::fs::{self, File};
use std::os::fd::AsFd;

use cgroup::Change;
use netlimit::Record;
use serde::{Deserialize, Serialize};

use super::Subject;
use crate::error::{Context, Result};
use crate::knobs::applied;
use crate::knobs::limits::{self, Limits};

/// A change of the network's limits.
pub struct Net<'a> {
    record: &'a RefCell<Option<Record>>,
    change: netlimit::Limits,
    netns: Option<File>,
    undo: Option<netlimit::Undo>,
}

/// The network limits before a change, for a later process.
#[derive(Debug, Serialize, Deserialize)]
pub struct Before {
    record: Record,
    limits: netlimit::Limits,
    /// There were none: what the change attached goes.
    fresh: bool,
}

/// The step, where there is something to change, and what takes it back.
pub fn step<'a>(
    subject: &Subject<'_>,
    new: &Limits,
    old: &Limits,
    record: &'a RefCell<Option<Record>>,
) -> Result<Option<(Net<'a>, Before)>> {
    if new.net.is_empty() || new.net == old.net {
        return Ok(None);
    }
    let netns = namespace(subject.pid)?;
    let fresh = record.borrow().is_none();
    if fresh {
        let target = applied::target(subject.location, subject.network);
        *record.borrow_mut() = Some(Record::planned(&target));
    }
    let Some(planned) = record.borrow().clone() else { return Ok(None) };
    netlimit::check_live(&new.net, &planned, netns.as_ref().map(AsFd::as_fd))?;
    let mut back = lifted(&old.net, &new.net);
    back.count_loopback = limits::loopback(new.net.count_loopback, back.count_loopback, planned.network);
    let before = Before { record: planned, limits: back, fresh };
    Ok(Some((Net { record, change: new.net.clone(), netns, undo: None }, before)))
}

impl Net<'_> {
    /// Asks the kernel whether it takes what `apply` would load. Leaves nothing.
    pub fn rehearse(&self) -> Result<()> {
        match self.record.borrow().as_ref() {
            Some(record) => netlimit::rehearse(&self.change, record).context("network limits"),
            None => Ok(()),
        }
    }
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

impl Before {
    /// Puts the network's limits back. `pid` is the container's first process.
    pub fn take_back(&self, pid: i32) -> Result<()> {
        if self.fresh {
            return netlimit::detach(&self.record).context("removing the network limits");
        }
        // With its cgroups all that could be put back is gone.
        let places = [&self.record.cgroup2, &self.record.net_cls];
        if places.into_iter().flatten().all(|dir| !dir.exists()) {
            return Ok(());
        }
        // Without its processes a container has no interfaces whose limits could be put back.
        let netns = namespace(pid).unwrap_or_default();
        let netns = netns.as_ref().map(AsFd::as_fd);
        netlimit::put_back(&self.record, &self.limits, netns).context("network limits")
    }
}

fn foreign(e: netlimit::Error) -> cgroup::Error {
    let kind = if e.kind() == netlimit::Kind::Half { cgroup::Kind::Half } else { cgroup::Kind::System };
    cgroup::Error::new(kind, e.to_string())
}

/// Network limits side by side, those that differ.
fn changes(old: &netlimit::Limits, new: &netlimit::Limits) -> Vec<Change> {
    let json = |limits: &netlimit::Limits| serde_json::to_value(limits).unwrap_or_default();
    let (old, new) = (json(old), json(new));
    let text = |v: &serde_json::Value| v.as_str().map_or_else(|| v.to_string(), str::to_string);
    let each = new.as_object().into_iter().flatten().filter_map(|(name, asked)| {
        let known = old.get(name).map_or_else(|| usual(name).into(), text);
        let field = format!("net.{name}");
        let change = Change { target: field.clone(), field, old: known, asked: text(asked), effective: None };
        (change.old != change.asked).then_some(change)
    });
    each.collect()
}

/// What holds where nothing was set, as it is written.
fn usual(name: &str) -> &'static str {
    match name {
        "classid" => "0",
        "priority" => "{}",
        "ingress-mode" => "police",
        "count-loopback" => "default",
        _ => "max",
    }
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
