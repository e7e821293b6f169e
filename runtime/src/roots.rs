//! The directories in which container engines keep the state of an OCI runtime.

use std::path::{Path, PathBuf};

/// Engines that have one root for each of their namespaces below this.
const NAMESPACED: &[&str] = &[
    // dockerd, for runtimes given by path: go-runc's --root ROOT/NAMESPACE.
    "/run/docker/runtime-runc",
    // containerd's Go shim.
    "/run/containerd/runc",
];

/// All roots that may hold containers of ours and are there: the default one, then the engines'.
pub fn known(default: &Path) -> Vec<PathBuf> {
    let mut roots = vec![default.to_path_buf()];
    for parent in NAMESPACED {
        let Ok(entries) = std::fs::read_dir(parent) else { continue };
        let mut found: Vec<_> = entries.flatten().map(|e| e.path()).filter(|p| p.is_dir()).collect();
        found.sort();
        roots.extend(found);
    }
    roots
}
