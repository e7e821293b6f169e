//! `update`: changes the limits of containers, each of them whole or not at all.

use super::{find, start, Setting, LOCK_DEADLINE};
use crate::cli;
use crate::error::{Context, Error, Kind, Result};
use crate::init::attrs::rdt;
use crate::knobs::update::{self, Report, Request, Subject};
use crate::knobs::{applied, helper, Saved};
use crate::state::{Container, Status};

pub fn run(setting: &Setting, args: &cli::Update) -> Result<u8> {
    let mut request = Request::parse(args)?;
    request.config = setting.global.config.clone();
    let mut containers = find::several(setting, &args.ids, &args.select)?;
    if args.reload && args.ids.is_empty() && args.select.is_empty() {
        containers = find::all(setting)?;
        containers.retain(|c| c.state.knobs.layers.class_name().is_some() && is_live(c.status()));
    }
    let named = args.ids.len() == 1 && args.select.is_empty();
    let mut failed = Vec::new();
    let mut reports = Vec::new();
    for container in &mut containers {
        match one(container, &request, args.dry_run) {
            Ok(report) => reports.push((container.state.id.clone(), report)),
            // The one container that was named: runc's texts, as they are.
            Err(e) if named => return Err(e),
            Err(e) => failed.push(format!("{}: {e}", container.state.id)),
        }
    }
    let quiet = !args.dry_run && !args.json && !args.reload && request.is_runcs();
    // An operator's runc flag that a stronger layer outvotes would seem to do nothing.
    let quiet = quiet
        && (args.flags.is_empty()
            || reports.iter().all(|(_, r)| !r.notes.iter().any(|n| n.ends_with("precedence"))));
    let text = match args.json {
        true => json(&reports)?,
        false if quiet => String::new(),
        false => reports.iter().map(|(id, report)| people(id, report, args.dry_run)).collect(),
    };
    super::print(&text)?;
    match failed.is_empty() {
        true => Ok(0),
        false => Err(Error::new(Kind::System, failed.join("; "))),
    }
}

fn is_live(status: Status) -> bool {
    matches!(status, Status::Created | Status::Running | Status::Paused)
}

fn one(container: &mut Container, request: &Request, dry_run: bool) -> Result<Report> {
    let _lock = container.lock(LOCK_DEADLINE)?;
    update::recover(container.path(), &container.state.knobs)?;
    if !is_live(container.status()) {
        return Err(Error::new(Kind::State, "container not running"));
    }
    let spec = start::config(container)?;
    let own = applied::base(&spec);
    let saved = container.state.knobs.clone();
    let (Some(location), Some(init)) = (container.state.cgroup.clone(), container.state.init) else {
        return Err(Error::new(Kind::State, "the container has no cgroup whose limits could be changed"));
    };
    let path = container.path().to_path_buf();
    let class = rdt::of(&spec, &container.state.id)?;
    let resctrl = request.names_schemata().then(rdt::root).flatten();
    let subject = Subject {
        dir: &path,
        location: &location,
        pid: init.pid,
        own: &own,
        resctrl: resctrl.as_deref(),
        class: class.as_ref(),
        network: applied::network(&spec),
        saved: &saved,
    };
    let mut report = update::update(request, &subject, dry_run, &mut |saved: &Saved| {
        container.state.knobs = saved.clone();
        container.save()
    })?;
    if !dry_run {
        // The limits are in force, and stay as they are split now.
        if let Err(e) = helper::ensure(&path, &container.state.knobs) {
            report.notes.push(format!("{e}: the next `update` or `inspect` tries again"));
        }
    }
    Ok(report)
}

fn people(id: &str, report: &Report, dry_run: bool) -> String {
    let mut text = String::new();
    for change in &report.changes {
        let now = match (&change.effective, dry_run) {
            (Some(effective), false) => effective,
            _ => &change.asked,
        };
        text += &format!("{id}: {}: {} -> {now}\n", change.target, change.old);
    }
    if report.changes.is_empty() {
        text += &format!("{id}: nothing to change\n");
    }
    report.notes.iter().for_each(|note| text += &format!("{id}: {note}\n"));
    text
}

fn json(reports: &[(String, Report)]) -> Result<String> {
    let all: Vec<_> = reports
        .iter()
        .map(|(id, report)| serde_json::json!({ "id": id, "changes": report.changes, "notes": report.notes }))
        .collect();
    let text = serde_json::to_string(&all).map_err(|e| Error::new(Kind::System, e.to_string()));
    text.map(|t| t + "\n").context("writing JSON")
}
