//! What reads input of others, each as a function of bytes that panics where something is wrong: for the fuzz targets,
//! and for the tests that replay what those have found.

use std::collections::BTreeMap;
use std::path::Path;

use cgroup::layout::Version;

use crate::error::Error;
use crate::knobs::layers::{from_annotations, Layers};
use crate::knobs::table::KNOBS;
use crate::knobs::value::{self, Amount, Unit};
use crate::knobs::{base, class};
use crate::plan::rootfs::{self, Context};
use crate::plan::{self, Plan};
use crate::{criu, link, spec, state, validate};

type Target = fn(&[u8]);

/// Every target by name.
pub const TARGETS: &[(&str, Target)] = &[
    ("config", config),
    ("state", container_state),
    ("process", process),
    ("resources", resources),
    ("annotations", annotations),
    ("classes", classes),
    ("devices", devices),
    ("values", values),
    ("mountinfo", mountinfo),
    ("link", link_protocol),
];

/// What every refusal has to be: one line that isn't endless.
fn check_refusal(error: &Error, given: usize) {
    let text = error.to_string();
    assert!(!text.is_empty() && text.len() < 16_384 + 8 * given, "{text:?}");
    assert!(!text.contains('\n'), "{text:?}");
}

fn text(data: &[u8]) -> Option<&str> {
    std::str::from_utf8(data).ok()
}

/// config.json, up to all that is decided before anything is touched.
pub fn config(data: &[u8]) {
    let Ok(spec) = serde_json::from_slice::<spec::Spec>(data) else { return };
    let planned = validate::validate(&spec)
        .and_then(|()| Plan::create(&spec, "id", false, false).map(drop))
        .and_then(|()| {
            let context = Context { location: None, rootless: false, no_pivot: false };
            rootfs::plan(&spec, Path::new("/rootfs"), &context).map(drop)
        });
    if let Err(e) = planned {
        check_refusal(&e, data.len());
    }
    // What is saved for later verbs reads the same.
    let saved = serde_json::to_vec(&spec).expect("is written");
    let again: spec::Spec = serde_json::from_slice(&saved).expect("reads back");
    assert_eq!(serde_json::to_vec(&again).expect("is written"), saved);
}

/// state.json: what is read is written as it was.
pub fn container_state(data: &[u8]) {
    let Ok(state) = serde_json::from_slice::<state::State>(data) else { return };
    let saved = serde_json::to_vec(&state).expect("is written");
    let again: state::State = serde_json::from_slice(&saved).expect("reads back");
    assert_eq!(serde_json::to_vec(&again).expect("is written"), saved);
    if let Err(e) = state::check_id(&state.id) {
        check_refusal(&e, data.len());
    }
}

/// process.json of `exec --process`.
pub fn process(data: &[u8]) {
    let Ok(process) = serde_json::from_slice::<spec::Process>(data) else { return };
    let planned =
        validate::validate_process(&process).and_then(|()| plan::Process::plan(&process, None, true));
    if let Err(e) = planned {
        check_refusal(&e, data.len());
    }
}

/// The JSON of `update --resources`: the same change again changes nothing.
pub fn resources(data: &[u8]) {
    let Some(text) = text(data) else { return };
    match base::from_json(text) {
        Err(e) => check_refusal(&e, data.len()),
        Ok(given) => {
            let mut resources = cgroup::Resources::default();
            base::merge(&mut resources, given.resources.clone(), Some(Version::V2));
            let once = resources.clone();
            base::merge(&mut resources, given.resources, Some(Version::V2));
            assert_eq!(resources, once);
        }
    }
}

/// Annotations, a line each: what is taken has an effect that can be told.
pub fn annotations(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let all: BTreeMap<String, String> =
        text.lines().filter_map(|l| l.split_once('=')).map(|(k, v)| (k.to_string(), v.to_string())).collect();
    match from_annotations(&all) {
        Err(e) => check_refusal(&e, data.len()),
        Ok((annotations, _)) => {
            let layers = Layers { annotations, ..Layers::default() };
            let count = layers.annotations.len();
            assert_eq!(layers.effective().expect("was checked").0.len(), count);
        }
    }
}

/// The main file and class files.
pub fn classes(data: &[u8]) {
    let Some(text) = text(data) else { return };
    match class::parse_main(text) {
        Err(e) => check_refusal(&e, data.len()),
        Ok(all) => {
            for name in all.classes.keys() {
                if let Err(e) = all.get(name) {
                    check_refusal(&e, data.len());
                }
            }
        }
    }
    if let Err(e) = class::parse_class(text) {
        check_refusal(&e, data.len());
    }
}

/// Lists of devices with rates: what is read and written again reads the same.
pub fn devices(data: &[u8]) {
    let Some(Ok(list)) = text(data).map(|text| value::devices(text, Unit::Rate)) else { return };
    let show = |amount: &Amount| amount.number().map_or("max".to_string(), |n| Unit::Rate.show(n));
    let again: Vec<String> =
        list.iter().map(|(selector, amount)| format!("{selector}={}", show(amount))).collect();
    assert_eq!(value::devices(&again.join(","), Unit::Rate), Ok(list));
}

/// A value for the knob that the first byte chooses: refusals name it, numbers read back.
pub fn values(data: &[u8]) {
    let Some((which, rest)) = data.split_first() else { return };
    let Some(text) = text(rest) else { return };
    let knob = &KNOBS[usize::from(*which) % KNOBS.len()];
    if let Err(e) = knob.parse(knob.name, text) {
        check_refusal(&e, data.len());
        assert!(e.to_string().starts_with(knob.name));
    }
    for unit in [Unit::Rate, Unit::PerSecond, Unit::Bytes, Unit::Micros, Unit::Count, Unit::Plain] {
        if let Ok(n) = value::number(text, unit) {
            assert_eq!(value::number(&unit.show(n), unit), Ok(n));
        }
    }
    let _ = value::runc_size(text);
}

/// /proc/self/mountinfo and /proc/self/cgroup.
pub fn mountinfo(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let _ = cgroup::layout::parse_proc_cgroup(text);
    let _ = cgroup::block::Host::with("/none", text);
    let _ = criu::mounts::external(&spec::Spec::default(), Path::new("/rootfs"), text);
}

/// Records of the child's, the first byte of each its length.
pub fn link_protocol(data: &[u8]) {
    let Ok((parent, child)) = link::pair() else { return };
    let mut rest = data;
    while let Some((&length, after)) = rest.split_first() {
        let (record, after) = after.split_at(usize::from(length).min(after.len()));
        rest = after;
        if child.send(record, None).is_err() {
            return;
        }
        match parent.next() {
            Ok(Some(link::Request::Failed(e))) => drop(e.to_string()),
            Ok(Some(_)) => {}
            Ok(None) => assert!(record.is_empty(), "only an empty record ends it"),
            Err(e) => check_refusal(&e, data.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seeds, and what the targets have once failed on.
    #[test]
    fn seeds_and_regressions() {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds");
        for (name, target) in TARGETS {
            let mut count = 0;
            for entry in std::fs::read_dir(seeds.join(name)).unwrap_or_else(|e| panic!("{name}: {e}")) {
                target(&std::fs::read(entry.unwrap().path()).unwrap());
                count += 1;
            }
            assert!(count > 0, "{name} has no seeds");
        }
    }
}
