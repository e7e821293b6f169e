//! Properties of a unit as a step of a transaction.

use super::{properties, Manager, Property, Value};
use crate::apply::{Change, Step, Undo};
use crate::cgroup::Cgroup;
use crate::error::{Kind, Result};
use crate::layout::Mode;
use crate::location::Unit;
use crate::resources::Resources;

/// Comes before the writes to the unit's files: systemd writes them too, in its own rounding.
///
/// On v1 it also makes the list of devices anew with every change: for a moment none is allowed. The processes are frozen meanwhile, or
/// they would be denied /dev/null.
pub struct PropertyStep<'a> {
    manager: Manager,
    cgroup: &'a Cgroup,
    /// The processes are frozen, by this step.
    held: bool,
    unit: Unit,
    wanted: Vec<Property>,
    before: Vec<Property>,
}

impl<'a> PropertyStep<'a> {
    /// For the unit of a container's cgroup, to hold those of `resources` that systemd knows. `None` if it knows none of them, or
    /// there is no unit. Device rules are not changed.
    pub fn new(cgroup: &'a Cgroup, resources: &Resources) -> Result<Option<PropertyStep<'a>>> {
        let Some(unit) = &cgroup.location().unit else { return Ok(None) };
        let mode = cgroup.location().mode;
        let resources = Resources { devices: Vec::new(), ..resources.clone() };
        if properties(mode, &resources, None)?.is_empty() {
            return Ok(None);
        }
        let manager = Manager::connect(unit.user)?;
        let wanted = properties(mode, &resources, manager.version())?;
        Ok(Some(PropertyStep {
            manager,
            cgroup,
            held: false,
            unit: unit.clone(),
            wanted,
            before: Vec::new(),
        }))
    }

    fn set(&mut self, properties: &[Property]) -> Result<()> {
        if properties.is_empty() {
            return Ok(());
        }
        if self.cgroup.location().mode != Mode::V2 && !self.held && !self.cgroup.is_frozen()? {
            self.cgroup.freeze()?;
            self.held = true;
        }
        let done = self.manager.set(&self.unit.name, properties);
        if self.held {
            // Its processes stand still until this is done by `undo` or `recover`.
            self.cgroup.thaw().map_err(|e| e.with_kind(Kind::Half))?;
            self.held = false;
        }
        done
    }

    /// What lets the processes run on if this one dies while they are frozen.
    fn thawing(&self) -> Option<Undo> {
        let dir = self.cgroup.dir("freezer").filter(|_| self.cgroup.location().mode != Mode::V2)?;
        let frozen = self.cgroup.is_frozen().unwrap_or(false);
        let undo = Undo::File { dir: dir.path().into(), file: "freezer.state".into(), line: "THAWED".into() };
        (!frozen).then_some(undo)
    }

    fn present(&self, name: &str) -> Option<&Value> {
        self.before.iter().find(|p| p.name == name).map(|p| &p.value)
    }

    /// What sets the properties back.
    fn back(&self) -> Vec<Property> {
        let mut all = Vec::new();
        let named = |p: &&Property| self.wanted.iter().any(|w| w.name == p.name);
        for old in self.before.iter().filter(named) {
            // Lists for devices add to what is there: emptied first.
            if let Value::Array(element, _) = &old.value {
                if element.starts_with('(') {
                    all.push(Property::new(old.name.as_str(), Value::Array(element.clone(), vec![])));
                }
            }
            all.push(old.clone());
        }
        all
    }
}

fn names(all: &[Property]) -> Vec<&str> {
    let mut names: Vec<&str> = all.iter().map(|p| p.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// A list for devices changes those that it names; "infinity" is what holds for those that aren't listed.
fn holds(present: &Value, wanted: &Value) -> bool {
    let lifted = |pair: &Value| matches!(pair, Value::Struct(f) if f.get(1) == Some(&Value::U64(u64::MAX)));
    let device = |pair: &Value| match pair {
        Value::Struct(fields) => fields.first().cloned(),
        _ => None,
    };
    match (present, wanted) {
        (Value::Array(_, has), Value::Array(_, wants)) if wants.is_empty() => has.is_empty(),
        (Value::Array(a, has), Value::Array(b, wants)) if a == b && a.starts_with('(') => wants
            .iter()
            .all(|pair| has.contains(pair) || lifted(pair) && !has.iter().any(|h| device(h) == device(pair))),
        _ => present == wanted,
    }
}

fn show(value: &Value) -> String {
    match value {
        Value::U64(u64::MAX) => "infinity".into(),
        Value::U64(n) => n.to_string(),
        Value::Byte(n) => n.to_string(),
        Value::Str(text) => text.clone(),
        Value::Array(_, all) => all.iter().map(show).collect::<Vec<_>>().join(","),
        Value::Struct(all) => all.iter().map(show).collect::<Vec<_>>().join("="),
        other => format!("{other:?}"),
    }
}

impl Step for PropertyStep<'_> {
    fn name(&self) -> String {
        format!("systemd unit {}", self.unit.name)
    }

    fn snapshot(&mut self) -> Result<Vec<Change>> {
        let names = names(&self.wanted);
        self.before = self.manager.get(&self.unit.name, &names)?;
        let wanted = std::mem::take(&mut self.wanted);
        let holds = |w: &Property| self.present(&w.name).is_some_and(|p| holds(p, &w.value));
        // What is in a list that is emptied first has to be said again.
        let emptied = |w: &Property| matches!(&w.value, Value::Array(_, all) if all.is_empty()) && !holds(w);
        let emptied: Vec<String> = wanted.iter().filter(|w| emptied(w)).map(|w| w.name.clone()).collect();
        self.wanted = wanted.into_iter().filter(|w| !holds(w) || emptied.contains(&w.name)).collect();
        let change = |p: &Property| {
            let old = self.present(&p.name).map(show).unwrap_or_default();
            let (field, target) = (p.name.clone(), self.name());
            Change { field, target, old, asked: show(&p.value), effective: None }
        };
        Ok(self.wanted.iter().map(change).collect())
    }

    fn apply(&mut self) -> Result<()> {
        let wanted = std::mem::take(&mut self.wanted);
        let done = self.set(&wanted);
        self.wanted = wanted;
        done
    }

    fn undo(&mut self) -> Result<()> {
        let back = self.back();
        self.set(&back)
    }

    fn stirs(&self) -> bool {
        true
    }

    fn journal(&self) -> Vec<Undo> {
        if self.wanted.is_empty() {
            return Vec::new();
        }
        let unit = Undo::Unit { unit: self.unit.clone(), properties: self.back() };
        [self.thawing(), Some(unit)].into_iter().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_for_devices_hold_what_they_name() {
        let list = |pairs: &[(&str, u64)]| {
            let pair = |(d, n): &(&str, u64)| Value::Struct(vec![Value::str(*d), Value::U64(*n)]);
            Value::Array("(st)".into(), pairs.iter().map(pair).collect())
        };
        let present = list(&[("/dev/block/8:0", 5), ("/dev/block/8:16", 6)]);
        assert!(holds(&present, &list(&[("/dev/block/8:0", 5)])));
        assert!(!holds(&present, &list(&[("/dev/block/8:0", 7)])));
        assert!(!holds(&present, &list(&[("/dev/block/8:0", u64::MAX)])));
        assert!(holds(&present, &list(&[("/dev/block/7:0", u64::MAX)])));
        assert!(holds(&list(&[]), &list(&[])) && !holds(&present, &list(&[])));
        assert!(holds(&Value::U64(1), &Value::U64(1)) && !holds(&Value::U64(1), &Value::U64(2)));
    }

    #[test]
    fn what_sets_back_survives_the_journal() {
        let undo = Undo::Unit {
            unit: Unit { name: "a.scope".into(), slice: "b.slice".into(), user: false },
            properties: vec![Property::new("IOReadBandwidthMax", Value::Array("(st)".into(), vec![]))],
        };
        let text = serde_json::to_string(&undo).unwrap();
        assert_eq!(serde_json::from_str::<Undo>(&text).unwrap(), undo);
    }
}
