//! What a configuration must satisfy before anything is touched. Mounts, seccomp, capabilities and the like are
//! checked where they are planned; here is what concerns the whole.

use std::collections::HashSet;

use crate::error::Result;
use crate::spec::{IdMapping, Linux, Process, Spec};
use crate::{hooks, invalid};

/// Namespace types by name, as `CLONE_NEW*`.
pub fn namespace_flag(kind: &str) -> Option<i32> {
    Some(match kind {
        "pid" => libc::CLONE_NEWPID,
        "network" => libc::CLONE_NEWNET,
        "mount" => libc::CLONE_NEWNS,
        "ipc" => libc::CLONE_NEWIPC,
        "uts" => libc::CLONE_NEWUTS,
        "user" => libc::CLONE_NEWUSER,
        "cgroup" => libc::CLONE_NEWCGROUP,
        "time" => CLONE_NEWTIME,
        _ => return None,
    })
}

/// Linux 5.6; `libc` has it as another type.
pub const CLONE_NEWTIME: i32 = 0x80;

/// The kernel takes at most this many lines in a uid_map (user_namespaces(7)).
const MAX_ID_MAPPINGS: usize = 340;

/// Bytes of a hostname or domainname (uts_namespaces(7): `__NEW_UTS_LEN`).
const MAX_UTS_NAME: usize = 64;

pub fn validate(spec: &Spec) -> Result<()> {
    check_version(&spec.oci_version)?;
    if spec.root.as_ref().is_none_or(|r| r.path.is_empty()) {
        invalid!("root.path must be set: it names the container's root file system");
    }
    let Some(process) = &spec.process else { invalid!("process property must not be empty") };
    validate_process(process)?;
    let default = Linux::default();
    let linux = spec.linux.as_ref().unwrap_or(&default);
    validate_namespaces(spec, linux)?;
    check_paths(spec, linux)?;
    if let Some(hooks) = &spec.hooks {
        hooks::validate(hooks)?;
    }
    Ok(())
}

/// No call takes a path with a NUL byte, and the first that is given one comes late.
fn check_paths(spec: &Spec, linux: &Linux) -> Result<()> {
    let whole = |text: &str, field: &str| match text.contains('\0') {
        true => invalid!("{field}: {text:?} holds a NUL byte"),
        false => Ok(()),
    };
    spec.root.iter().try_for_each(|root| whole(&root.path, "root.path"))?;
    linux
        .namespaces
        .iter()
        .filter_map(|n| n.path.as_deref())
        .try_for_each(|p| whole(p, "linux.namespaces"))?;
    linux.masked_paths.iter().try_for_each(|p| whole(p, "linux.maskedPaths"))?;
    linux.readonly_paths.iter().try_for_each(|p| whole(p, "linux.readonlyPaths"))?;
    for mount in &spec.mounts {
        whole(&mount.destination, "mounts: destination")?;
        mount.source.iter().try_for_each(|source| whole(source, "mounts: source"))?;
    }
    Ok(())
}

fn check_version(version: &str) -> Result<()> {
    let mut parts = version.split(['.', '-', '+']);
    let number = |p: Option<&str>| p.and_then(|p| p.parse::<u32>().ok());
    match (number(parts.next()), number(parts.next()), number(parts.next())) {
        (Some(1), Some(_), Some(_)) => Ok(()),
        _ => invalid!("ociVersion {version:?} is not supported: this runtime implements 1.0.0 to 1.3.0"),
    }
}

/// A process object, of `config.json` or of `exec --process`.
pub fn validate_process(process: &Process) -> Result<()> {
    if process.cwd.is_empty() {
        invalid!("Cwd property must not be empty: process.cwd names the working directory");
    }
    if !process.cwd.starts_with('/') {
        invalid!("Cwd must be an absolute path: process.cwd is {:?}", process.cwd);
    }
    if process.args.is_empty() {
        invalid!("args must not be empty");
    }
    if process.args.iter().chain(&process.env).chain([&process.cwd]).any(|s| s.contains('\0')) {
        invalid!("process: an argument, an environment variable or cwd holds a NUL byte");
    }
    // The specification's environment is that of POSIX, and runc's words.
    for entry in &process.env {
        match entry.find('=') {
            None => invalid!("invalid environment variable: missing '=': {entry:?}"),
            Some(0) => invalid!("invalid environment variable: name cannot be empty: {entry:?}"),
            Some(_) => {}
        }
    }
    // setresuid(2) takes it for "as it is", and that is root.
    let user = &process.user;
    if user.additional_gids.iter().chain([&user.uid, &user.gid]).any(|id| *id == u32::MAX) {
        invalid!("process.user: {} is no uid or gid", u32::MAX);
    }
    if process.user.umask.is_some_and(|u| u > 0o777) {
        invalid!("process.user.umask: {:o} is more than 777", process.user.umask.unwrap_or(0));
    }
    if process.oom_score_adj.is_some_and(|n| !(-1000..=1000).contains(&n)) {
        invalid!("process.oomScoreAdj: {} is not from -1000 to 1000", process.oom_score_adj.unwrap_or(0));
    }
    Ok(())
}

fn validate_namespaces(spec: &Spec, linux: &Linux) -> Result<()> {
    let mut seen = HashSet::new();
    for namespace in &linux.namespaces {
        let kind = namespace.kind.as_str();
        if namespace_flag(kind).is_none() {
            invalid!("linux.namespaces: {kind:?} is not a namespace type: use pid, network, mount, ipc, uts, user, cgroup or time");
        }
        if !seen.insert(kind) {
            invalid!("malformed spec file: duplicated ns {kind:?}");
        }
        if namespace.path.as_ref().is_some_and(|p| !p.is_empty() && !p.starts_with('/')) {
            invalid!("linux.namespaces: the path of {kind:?} is not absolute");
        }
    }
    let has = |kind: &str| seen.contains(kind);
    let is_new = |kind: &str| {
        linux.namespaces.iter().any(|n| n.kind == kind && n.path.as_ref().is_none_or(String::is_empty))
    };
    if !spec.hostname.is_empty() && !has("uts") {
        invalid!("unable to set hostname without a private UTS namespace");
    }
    if !spec.domainname.is_empty() && !has("uts") {
        invalid!("unable to set domainname without a private UTS namespace");
    }
    for (name, text) in [("hostname", &spec.hostname), ("domainname", &spec.domainname)] {
        if text.len() > MAX_UTS_NAME {
            invalid!("{name}: {text:?} is longer than the kernel's {MAX_UTS_NAME} bytes");
        }
    }
    if !has("mount") {
        invalid!("linux.namespaces: a mount namespace is needed: the container's root can't be changed without one");
    }
    let mapped = !linux.uid_mappings.is_empty() || !linux.gid_mappings.is_empty();
    if is_new("user") && (linux.uid_mappings.is_empty() || linux.gid_mappings.is_empty()) {
        invalid!("User namespaces enabled, but no uid and gid mappings found: set linux.uidMappings and linux.gidMappings");
    }
    if mapped && !has("user") {
        invalid!("user namespace mappings specified, but user namespace isn't enabled in the config");
    }
    check_mappings("uidMappings", &linux.uid_mappings)?;
    check_mappings("gidMappings", &linux.gid_mappings)?;
    if !linux.time_offsets.is_empty() && !is_new("time") {
        invalid!("time namespace offsets specified, but time namespace isn't enabled in the config");
    }
    if !linux.net_devices.is_empty() && !has("network") {
        invalid!("unable to move network devices without a private network namespace");
    }
    if linux.masked_paths.iter().chain(&linux.readonly_paths).any(|p| !p.starts_with('/')) {
        invalid!("linux.maskedPaths and linux.readonlyPaths must be absolute paths");
    }
    Ok(())
}

fn check_mappings(name: &str, mappings: &[IdMapping]) -> Result<()> {
    if mappings.len() > MAX_ID_MAPPINGS {
        invalid!("linux.{name}: {} entries, the kernel takes at most {MAX_ID_MAPPINGS}", mappings.len());
    }
    for mapping in mappings {
        if mapping.size == 0 {
            invalid!("linux.{name}: an entry has size 0");
        }
        let fits = |first: u32| first.checked_add(mapping.size - 1).is_some_and(|last| last != u32::MAX);
        if !fits(mapping.container_id) || !fits(mapping.host_id) {
            invalid!("linux.{name}: an entry of size {} goes past the last id", mapping.size);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(change: impl FnOnce(&mut serde_json::Value)) -> Spec {
        let mut json = serde_json::json!({
            "ociVersion": "1.2.0",
            "root": {"path": "rootfs"},
            "process": {"cwd": "/", "args": ["true"]},
            "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}]}
        });
        change(&mut json);
        serde_json::from_value(json).unwrap()
    }

    fn refusal(change: impl FnOnce(&mut serde_json::Value)) -> String {
        validate(&spec(change)).unwrap_err().to_string()
    }

    #[test]
    fn what_the_kernel_could_not_take_is_refused() {
        let with_uts = |j: &mut serde_json::Value| {
            j["linux"]["namespaces"].as_array_mut().unwrap().push(serde_json::json!({ "type": "uts" }));
        };
        let text = refusal(|j| {
            with_uts(j);
            j["hostname"] = "h".repeat(65).into();
        });
        assert!(text.starts_with("hostname: ") && text.contains("64 bytes"), "{text}");
        validate(&spec(|j| {
            with_uts(j);
            j["domainname"] = "d".repeat(64).into();
        }))
        .unwrap();
        assert!(refusal(|j| j["root"]["path"] = "a\0b".into()).contains("root.path"));
        assert!(refusal(|j| j["linux"]["maskedPaths"] = serde_json::json!(["/a\0b"])).contains("maskedPaths"));
        let mount = serde_json::json!([{ "destination": "/a", "source": "/s\0", "options": ["bind"] }]);
        assert!(refusal(|j| j["mounts"] = mount).contains("mounts: source"));
    }

    #[test]
    fn accepts_the_minimum() {
        validate(&spec(|_| {})).unwrap();
        validate(&spec(|j| j["ociVersion"] = "1.0.2-dev".into())).unwrap();
    }

    #[test]
    fn names_what_it_refuses() {
        assert!(refusal(|j| j["ociVersion"] = "2.0.0".into()).contains("2.0.0"));
        assert!(refusal(|j| j["process"]["cwd"] = "x".into()).contains("Cwd must be an absolute path"));
        assert!(refusal(|j| j["process"]["args"] = serde_json::json!([])).contains("args must not be empty"));
        assert!(refusal(|j| j["hostname"] = "h".into()).contains("UTS"));
        assert!(refusal(|j| j["linux"]["namespaces"][1]["type"] = "mount".into()).contains("duplicated ns"));
        assert!(refusal(|j| j["linux"]["namespaces"][1]["type"] = "pids".into()).contains("\"pids\""));
        assert!(refusal(|j| j["linux"]["namespaces"][1]["type"] = "user".into()).contains("mappings"));
        assert!(refusal(|j| j["process"]["oomScoreAdj"] = 1001.into()).contains("1001"));
        assert!(refusal(|j| j["hooks"] = serde_json::json!({"prestart": [{"path": "x"}]}))
            .contains("prestart[0]"));
    }
}
