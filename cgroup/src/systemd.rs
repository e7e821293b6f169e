//! systemd as the manager of cgroups, asked over D-Bus.

mod bus;
mod properties;
mod step;
mod text;
mod value;

use std::path::PathBuf;

use crate::create::Options;
use crate::error::{Context, Error, Kind, Result};
use crate::layout::Mode;
use crate::location::Unit;
use crate::resources::Resources;
use bus::Bus;
pub use properties::{properties, Property};
pub use step::PropertyStep;
pub use text::annotations;
pub use value::Value;

const NAME: &str = "org.freedesktop.systemd1";
const PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// A connection to the system's or the user's instance of systemd.
#[derive(Debug)]
pub struct Manager {
    bus: Bus,
    version: Option<u32>,
    listening: bool,
}

/// What a new unit is made from.
pub(crate) struct Start<'a> {
    pub unit: &'a Unit,
    pub pid: i32,
    pub mode: Mode,
    pub options: &'a Options,
    pub resources: &'a Resources,
}

/// The cgroup of the user's instance, below which its units lie: `/user.slice/user-1000.slice/user@1000.service`.
pub fn user_cgroup() -> Result<PathBuf> {
    let mut manager = Manager::connect(true)?;
    let value = manager.manager_property("ControlGroup")?;
    let path = value.as_str().filter(|p| p.starts_with('/'));
    path.map(PathBuf::from)
        .ok_or_else(|| Error::new(Kind::Systemd, "the user's systemd does not name its cgroup"))
}

impl Manager {
    pub fn connect(user: bool) -> Result<Manager> {
        let bus = Bus::open(user).context("connecting to systemd")?;
        let mut manager = Manager { bus, version: None, listening: false };
        let version = manager.manager_property("Version")?;
        let digits = |v: &str| {
            let v = v.trim_start_matches('v');
            v.split(|c: char| !c.is_ascii_digit()).next().and_then(|n| n.parse().ok())
        };
        manager.version = version.as_str().and_then(digits);
        Ok(manager)
    }

    /// Its version: 252.
    pub fn version(&self) -> Option<u32> {
        self.version
    }

    fn call(&mut self, member: &str, body: Vec<Value>) -> Result<Vec<Value>> {
        self.bus.call(NAME, PATH, MANAGER, member, body)
    }

    fn manager_property(&mut self, name: &str) -> Result<Value> {
        let body = vec![Value::str(MANAGER), Value::str(name)];
        let reply = self.bus.call(NAME, PATH, PROPERTIES, "Get", body)?;
        reply.into_iter().next().ok_or_else(|| Error::new(Kind::Systemd, format!("no property {name}")))
    }

    /// Starts a transient unit with a process in it and waits until that is done.
    pub(crate) fn start(&mut self, start: &Start<'_>, limits: Vec<Property>) -> Result<()> {
        let unit = &start.unit.name;
        let mut all = basics(start, self.version);
        all.extend(limits);
        all.extend(start.options.properties.iter().cloned());
        let body = || {
            vec![
                Value::str(unit.as_str()),
                Value::str("replace"),
                assignments(&all),
                Value::Array("(sa(sv))".to_string(), vec![]),
            ]
        };
        self.listen()?;
        let mut reply = self.call("StartTransientUnit", body());
        if reply.as_ref().is_err_and(|e| e.to_string().contains("UnitExists")) {
            // A failed unit of that name may linger. Forget it and try once more.
            self.reset(unit);
            reply = self.call("StartTransientUnit", body());
        }
        let reply = reply.with_context(|| format!("starting systemd unit {unit}"))?;
        let result = self.finished(&reply).with_context(|| format!("starting systemd unit {unit}"))?;
        if result != "done" {
            self.reset(unit);
            let text = format!("error creating systemd unit `{unit}`: got `{result}`");
            return Err(Error::new(Kind::Systemd, text));
        }
        Ok(())
    }

    /// Stops a unit, waits for that, and has it forgotten. A unit that is not there is no error.
    pub fn stop(&mut self, unit: &str) -> Result<()> {
        self.listen()?;
        match self.call("StopUnit", vec![Value::str(unit), Value::str("replace")]) {
            Ok(reply) => {
                self.finished(&reply).with_context(|| format!("stopping systemd unit {unit}"))?;
            }
            Err(e) if e.to_string().contains("NoSuchUnit") => {}
            Err(e) => return Err(e.context(format!("stopping systemd unit {unit}"))),
        }
        self.reset(unit);
        Ok(())
    }

    fn reset(&mut self, unit: &str) {
        // Fails where there is nothing to forget.
        let _ = self.call("ResetFailedUnit", vec![Value::str(unit)]);
    }

    /// Changes properties of a running unit, until it ends.
    pub fn set(&mut self, unit: &str, all: &[Property]) -> Result<()> {
        let body = vec![Value::str(unit), Value::Bool(true), assignments(all)];
        let done = self.call("SetUnitProperties", body);
        done.map(drop).with_context(|| format!("setting properties of systemd unit {unit}"))
    }

    /// The present values of properties.
    pub fn get(&mut self, unit: &str, names: &[&str]) -> Result<Vec<Property>> {
        let what = || format!("reading properties of systemd unit {unit}");
        let reply = self.call("GetUnit", vec![Value::str(unit)]).with_context(what)?;
        let path = reply.first().and_then(Value::as_str).unwrap_or_default().to_string();
        let kind = if unit.ends_with(".slice") { "Slice" } else { "Scope" };
        let mut found = Vec::new();
        for name in names {
            let body = vec![Value::Str(format!("{NAME}.{kind}")), Value::str(*name)];
            let reply = self.bus.call(NAME, &path, PROPERTIES, "Get", body).with_context(what)?;
            if let Some(Value::Variant(value)) = reply.into_iter().next() {
                found.push(Property::new(*name, *value));
            }
        }
        Ok(found)
    }

    /// Asks the bus for the signals that tell of finished jobs.
    fn listen(&mut self) -> Result<()> {
        if !self.listening && !self.bus.direct {
            let rule = format!("type='signal',sender='{NAME}',interface='{MANAGER}',member='JobRemoved'");
            let (name, path) = ("org.freedesktop.DBus", "/org/freedesktop/DBus");
            self.bus.call(name, path, name, "AddMatch", vec![Value::Str(rule)])?;
        }
        self.listening = true;
        Ok(())
    }

    /// Waits for the job that a reply names, and says how it ended.
    fn finished(&mut self, reply: &[Value]) -> Result<String> {
        let job = reply.first().and_then(Value::as_str).unwrap_or_default().to_string();
        self.bus.signal(|message| {
            let ours = message.member == "JobRemoved" && message.body.get(1)?.as_str()? == job;
            ours.then(|| message.body.get(3).and_then(Value::as_str).unwrap_or_default().to_string())
        })
    }
}

fn assignments(all: &[Property]) -> Value {
    let one = |p: &Property| {
        let value = Value::Variant(Box::new(p.value.clone()));
        Value::Struct(vec![Value::str(p.name.as_str()), value])
    };
    Value::Array("(sv)".to_string(), all.iter().map(one).collect())
}

/// What every unit of a container is, whatever its limits.
fn basics(start: &Start<'_>, version: Option<u32>) -> Vec<Property> {
    let yes = |name: &str| Property::new(name, Value::Bool(true));
    let slice = start.unit.slice.as_str();
    let description = match start.options.description.as_str() {
        "" => start.unit.name.as_str(),
        text => text,
    };
    let mut all = vec![Property::new("Description", Value::str(description))];
    if start.unit.name.ends_with(".slice") {
        all.push(Property::new("Wants", Value::Array("s".to_string(), vec![Value::str(slice)])));
    } else {
        all.push(Property::new("Slice", Value::str(slice)));
        all.push(yes("Delegate"));
    }
    all.push(Property::new("PIDs", Value::Array("u".to_string(), vec![Value::U32(start.pid as u32)])));
    let io = if start.mode == Mode::V2 { "IOAccounting" } else { "BlockIOAccounting" };
    all.extend(["MemoryAccounting", "CPUAccounting", io, "TasksAccounting"].map(yes));
    all.push(Property::new("DefaultDependencies", Value::Bool(false)));
    // Can only be said at the start of a scope.
    let group = start.resources.unified.get("memory.oom.group").map(|v| v.trim());
    let policy = match group {
        Some("0") => Some("continue"),
        Some("1") => Some("kill"),
        _ => None,
    };
    if let Some(policy) = policy.filter(|_| version.is_some_and(|v| v >= 253)) {
        all.push(Property::new("OOMPolicy", Value::str(policy)));
    }
    all
}
