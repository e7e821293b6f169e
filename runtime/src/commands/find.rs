//! Containers by what people call them: over the roots of all engines, by prefix or Docker name.

use std::fs;
use std::path::PathBuf;

use super::Setting;
use crate::error::{Error, Kind, Result};
use crate::roots;
use crate::state::{check_id, Container, Store};

/// The roots that hold containers of this runtime: with `--root` that one alone.
pub fn roots(setting: &Setting) -> Vec<PathBuf> {
    match setting.global.root {
        Some(_) => vec![setting.store.root().to_path_buf()],
        None => roots::known(setting.store.root()),
    }
}

/// Every container of these roots.
pub fn all(setting: &Setting) -> Result<Vec<Container>> {
    let mut containers = Vec::new();
    for root in roots(setting) {
        containers.extend(Store::new(root).list()?);
    }
    Ok(containers)
}

/// The container of that ID. Without `--root` an ID may also be a unique prefix or a name that Docker gave.
pub fn one(setting: &Setting, id: &str) -> Result<Container> {
    let exact = setting.store.load(id);
    match &exact {
        Err(e) if e.kind() == Kind::NotFound && setting.global.root.is_none() => {}
        _ => return exact,
    }
    let roots = roots(setting);
    let mut found = matching(&roots, |name| name == id);
    if found.is_empty() {
        if let Some(full) = roots::docker_id(id) {
            found = matching(&roots, |name| name == full);
        }
    }
    if found.is_empty() && id.len() >= 2 {
        found = matching(&roots, |name| name.starts_with(id));
    }
    match &found[..] {
        [] => exact,
        [(root, name)] => Store::new(root).load(name),
        many => {
            let names = many.iter().map(|(root, name)| root.join(name).display().to_string());
            let names: Vec<_> = names.collect();
            Err(Error::invalid(format!("{id} is ambiguous: {}", names.join(", "))))
        }
    }
}

fn matching(roots: &[PathBuf], wanted: impl Fn(&str) -> bool) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for root in roots {
        for entry in fs::read_dir(root).into_iter().flatten().flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            // Directories of other runtimes have a state.json too, but not one of ours.
            if wanted(&name) && check_id(&name).is_ok() && Store::new(root).load(&name).is_ok() {
                found.push((root.clone(), name));
            }
        }
    }
    found
}

/// The containers that IDs name, or those of classes.
pub fn several(setting: &Setting, ids: &[String], classes: &[String]) -> Result<Vec<Container>> {
    let mut found = ids.iter().map(|id| one(setting, id)).collect::<Result<Vec<_>>>()?;
    if !classes.is_empty() {
        for container in all(setting)? {
            let class = container.state.knobs.layers.class_name();
            let known = found.iter().any(|c| c.path() == container.path());
            if !known && class.is_some_and(|class| classes.iter().any(|c| c == class)) {
                found.push(container);
            }
        }
    }
    Ok(found)
}
