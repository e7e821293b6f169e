//! The directories in which container engines keep the state of an OCI runtime, and the names that engines give.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::state::State;

/// Engines that have one root for each of their namespaces below this.
const NAMESPACED: [&str; 3] = [
    // dockerd, for runtimes given by path: go-runc's --root ROOT/NAMESPACE.
    "/run/docker/runtime-runc",
    // containerd's Go shim.
    "/run/containerd/runc",
    // Our shim, under containerd or under a runtimeType of Docker's.
    "/run/containerd/hydra",
];

/// Podman gives no root: it is our default one. CRI-O's is runc's unless its `runtime_root` says otherwise.
const FLAT: [&str; 2] = ["/run/hydra", "/run/runc"];

/// Where Docker keeps what it knows of containers.
const DOCKER: &str = "/var/lib/docker/containers";

/// All roots that may hold containers of ours and are there: the default one, then the engines', without those that are not for the
/// caller's eyes.
pub fn known(default: &Path) -> Vec<PathBuf> {
    let below = |dir: &str| {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        let mut found: Vec<PathBuf> = entries.map(|e| e.path()).collect();
        found.sort();
        found
    };
    let mut roots = vec![default.to_path_buf()];
    roots.extend(NAMESPACED.into_iter().flat_map(below));
    roots.extend(FLAT.map(PathBuf::from));
    let mut seen = BTreeSet::new();
    let readable = |root: &Path| root == default || fs::read_dir(root).is_ok();
    roots.retain(|root| {
        root.is_dir()
            && readable(root)
            && seen.insert(fs::canonicalize(root).unwrap_or_else(|_| root.clone()))
    });
    roots
}

/// The ID of the container to which Docker gave this name.
pub fn docker_id(name: &str) -> Option<String> {
    let name = name.trim_start_matches('/');
    let entries = fs::read_dir(DOCKER).ok()?.flatten();
    let ids = entries.filter_map(|e| e.file_name().into_string().ok());
    ids.into_iter().find(|id| docker_name(id).as_deref() == Some(name))
}

fn docker_name(id: &str) -> Option<String> {
    let text = fs::read(Path::new(DOCKER).join(id).join("config.v2.json")).ok()?;
    let json: Value = serde_json::from_slice(&text).ok()?;
    Some(json["Name"].as_str()?.trim_start_matches('/').to_string())
}

/// The name that people know a container by, where its engine told us or Docker's files do.
pub fn name(state: &State) -> Option<String> {
    // containerd's CRI plugin, nerdctl, CRI-O.
    const NAMES: [&str; 3] =
        ["io.kubernetes.cri.container-name", "nerdctl/name", "io.kubernetes.container.name"];
    let told = NAMES.iter().find_map(|key| state.annotations.get(*key).cloned());
    told.or_else(|| docker_name(&state.id))
}
