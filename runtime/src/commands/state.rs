//! `state`: what the OCI specification says of a container, and runc's fields beyond it.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use super::Setting;
use crate::error::{Error, Kind, Result};
use crate::knobs::limits::Placed;
use crate::state::Container;

/// Field names and order are runc's; `list -f json` prints the same.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct View<'a> {
    oci_version: &'a str,
    pub id: &'a str,
    pub pid: i32,
    pub status: &'static str,
    pub bundle: &'a Path,
    rootfs: &'a Path,
    pub created: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
    pub owner: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    hydra: Option<Hydra<'a>>,
}

/// What runc doesn't know: the class, and the devices that carry limits.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Hydra<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<&'a str>,
    devices: &'a [Placed],
    /// The devices that share the totals.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    shared: &'a [String],
}

impl<'a> View<'a> {
    pub fn of(container: &'a Container) -> View<'a> {
        let state = &container.state;
        let knobs = &state.knobs;
        let status = container.status();
        View {
            oci_version: &state.oci_version,
            id: &state.id,
            pid: container.visible_pid(status),
            status: status.as_str(),
            bundle: &state.bundle,
            rootfs: &state.rootfs,
            created: &state.created,
            annotations: &state.annotations,
            owner: &state.owner,
            hydra: (!knobs.layers.is_empty()).then(|| Hydra {
                class: knobs.layers.class_name(),
                devices: &knobs.placed,
                shared: &knobs.shared,
            }),
        }
    }
}

pub fn run(setting: &Setting, id: &str) -> Result<u8> {
    let container = setting.load(id)?;
    let text = serde_json::to_string_pretty(&View::of(&container))
        .map_err(|e| Error::new(Kind::System, e.to_string()))?;
    println!("{text}");
    Ok(0)
}
