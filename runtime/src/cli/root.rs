//! Where the containers' state is kept.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use crate::error::{Context, Error, Result};

pub fn state_root(given: Option<&Path>) -> Result<PathBuf> {
    if let Some(given) = given {
        let root = absolute(&std::env::current_dir().context("finding the current directory")?, given);
        if root == Path::new("/") {
            // runc's text.
            return Err(Error::invalid("Option --root argument should not be set to /"));
        }
        return Ok(root);
    }
    let xdg = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty());
    match xdg.filter(|_| honours_xdg()) {
        Some(dir) => in_xdg(&Path::new(&dir).join("hydra")),
        None => Ok(PathBuf::from("/run/hydra")),
    }
}

/// An absolute path without `.`, `..` and empty parts, as Go's filepath.Abs makes it: by the text alone.
fn absolute(cwd: &Path, path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for part in cwd.join(path).components() {
        match part {
            Component::ParentDir => {
                clean.pop();
            }
            Component::Normal(name) => clean.push(name),
            _ => {}
        }
    }
    clean
}

fn honours_xdg() -> bool {
    if !nix::unistd::geteuid().is_root() {
        return true;
    }
    // Root of a user namespace: dockerd's rootless kit leaves $USER as it was outside, Podman's conmon has none.
    in_user_namespace() && std::env::var_os("USER").is_none_or(|user| user != "root")
}

/// Whether not all ids are mapped onto themselves.
fn in_user_namespace() -> bool {
    match fs::read_to_string("/proc/self/uid_map") {
        Ok(map) => map.split_whitespace().collect::<Vec<_>>() != ["0", "0", "4294967295"],
        Err(_) => false,
    }
}

/// The sticky bit keeps systemd-tmpfiles from cleaning the directory up (XDG Base Directory Specification).
fn in_xdg(root: &Path) -> Result<PathBuf> {
    let wrong = || format!("{}: the path in $XDG_RUNTIME_DIR must be writable by the user", root.display());
    fs::DirBuilder::new().recursive(true).mode(0o700).create(root).with_context(wrong)?;
    fs::set_permissions(root, fs::Permissions::from_mode(0o1700)).with_context(wrong)?;
    Ok(root.to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_as_go_does() {
        for (path, want) in
            [("a", "/c/a"), ("/a//b/./../d/", "/a/d"), ("../../..", "/"), (".", "/c"), ("", "/c"), ("/", "/")]
        {
            assert_eq!(absolute(Path::new("/c"), Path::new(path)), Path::new(want), "{path}");
        }
    }

    #[test]
    fn the_root_directory_is_refused() {
        assert!(state_root(Some(Path::new("/x/..")))
            .unwrap_err()
            .to_string()
            .contains("should not be set to /"));
        assert_eq!(state_root(Some(Path::new("/x/../y"))).unwrap(), Path::new("/y"));
    }
}
