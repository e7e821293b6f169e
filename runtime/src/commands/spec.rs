//! `spec`: a config.json to start from.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::error::{Context, Error, Result};

const TEMPLATE: &str = include_str!("spec.json");

/// Writes the file; one that is there already is never overwritten.
pub fn run(bundle: Option<&Path>, file: Option<&Path>, rootless: bool) -> Result<()> {
    let name = file.unwrap_or(Path::new("config.json"));
    // A file name behind -f is the caller's, one that is made up belongs into the bundle.
    let path = match (bundle, file) {
        (Some(bundle), None) => bundle.join(name),
        _ => PathBuf::from(name),
    };
    let mut file = match OpenOptions::new().write(true).create_new(true).open(&path) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {
            return Err(Error::invalid(format!("File {} exists. Remove it first", path.display())))
        }
        other => other.with_context(|| format!("open {}", path.display()))?,
    };
    let ids = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    // On v1 a cgroup namespace hides nothing that /sys/fs/cgroup doesn't hide already, and costs time: as runc.
    let unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    file.write_all(text(rootless, unified, ids).as_bytes())
        .with_context(|| format!("write {}", path.display()))
}

/// The configuration; `ids` are those that a rootless container's root becomes.
fn text(rootless: bool, unified: bool, ids: (u32, u32)) -> String {
    let list =
        |words: &[&str]| words.iter().map(|w| format!("\"{w}\"")).collect::<Vec<_>>().join(",\n\t\t\t\t");
    let mount = |kind: &str, source: &str, options: &[&str]| {
        format!(
            "{{\n\t\t\t\"destination\": \"/sys\",\n\t\t\t\"type\": \"{kind}\",\n\t\t\t\"source\": \"{source}\",\n\
             \t\t\t\"options\": [\n\t\t\t\t{}\n\t\t\t]\n\t\t}}",
            list(options)
        )
    };
    let mapping = |what: &str, id: u32| {
        format!(
            "\"{what}\": [\n\t\t\t{{\n\t\t\t\t\"containerID\": 0,\n\t\t\t\t\"hostID\": {id},\n\
             \t\t\t\t\"size\": 1\n\t\t\t}}\n\t\t]"
        )
    };
    // Without privileges there is no group tty to give a terminal to, no sysfs without a network namespace of its
    // own, and no device rule that could be set.
    let (pts, sys, extra, namespace) = match rootless {
        false => (
            list(&["mode=0620", "gid=5"]),
            mount("sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            "\"resources\": {\n\t\t\t\"devices\": [\n\t\t\t\t{\n\t\t\t\t\t\"allow\": false,\n\
             \t\t\t\t\t\"access\": \"rwm\"\n\t\t\t\t}\n\t\t\t]\n\t\t}"
                .to_string(),
            "network",
        ),
        true => (
            list(&["mode=0620"]),
            mount("none", "/sys", &["rbind", "nosuid", "noexec", "nodev", "ro"]),
            format!("{},\n\t\t{}", mapping("uidMappings", ids.0), mapping("gidMappings", ids.1)),
            "user",
        ),
    };
    let cgroup = if unified { "\n\t\t\t{\n\t\t\t\t\"type\": \"cgroup\"\n\t\t\t}," } else { "" };
    let text = TEMPLATE.replace("@CGROUP@", cgroup);
    text.replace("@PTS@", &pts).replace("@SYS@", &sys).replace("@IDS@", &extra).replace("@NET@", namespace)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Spec;

    #[test]
    fn both_kinds_are_configurations() {
        for (rootless, unified) in [(false, false), (false, true), (true, false), (true, true)] {
            let text = text(rootless, unified, (1000, 1001));
            assert!(!text.contains('@'), "{text}");
            let spec: Spec = serde_json::from_str(&text).unwrap();
            let linux = spec.linux.unwrap();
            let kinds: Vec<_> = linux.namespaces.iter().map(|n| n.kind.as_str()).collect();
            assert_eq!(kinds.contains(&"user"), rootless);
            assert_eq!(kinds.contains(&"network"), !rootless);
            assert_eq!(kinds.contains(&"cgroup"), unified);
            assert_eq!(linux.resources.is_some(), !rootless);
            assert_eq!(linux.gid_mappings.first().map(|m| m.host_id), rootless.then_some(1001));
            let sys = spec.mounts.iter().find(|m| m.destination == "/sys").unwrap();
            assert_eq!(sys.kind.as_deref(), Some(if rootless { "none" } else { "sysfs" }));
        }
    }

    #[test]
    fn a_file_is_not_overwritten() {
        let dir = std::env::temp_dir().join(format!("hydra-spec-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        run(Some(&dir), None, false).unwrap();
        let again = run(Some(&dir), None, false).unwrap_err().to_string();
        assert!(again.ends_with("config.json exists. Remove it first"), "{again}");
        run(None, Some(&dir.join("other.json")), true).unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
