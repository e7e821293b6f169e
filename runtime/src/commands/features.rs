//! `features`: what this build can do, as the runtime specification's features.md has it.

use serde_json::{json, Value};

use crate::cli;
use crate::init::attrs::scheduling;
use crate::seccomp;

/// What `create` does, in the order of the specification.
const HOOKS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// Words of `mounts[].options`; a test holds them against the parser of mounts.
pub const MOUNT_OPTIONS: &[&str] = &[
    "acl",
    "async",
    "atime",
    "bind",
    "defaults",
    "dev",
    "diratime",
    "dirsync",
    "exec",
    "idmap",
    "iversion",
    "lazytime",
    "loud",
    "mand",
    "noacl",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "noiversion",
    "nolazytime",
    "nomand",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "nosymfollow",
    "private",
    "ratime",
    "rbind",
    "rdev",
    "rdiratime",
    "relatime",
    "remount",
    "rexec",
    "ridmap",
    "rnoatime",
    "rnodev",
    "rnodiratime",
    "rnoexec",
    "rnorelatime",
    "rnostrictatime",
    "rnosuid",
    "rnosymfollow",
    "ro",
    "rprivate",
    "rrelatime",
    "rro",
    "rrw",
    "rshared",
    "rslave",
    "rstrictatime",
    "rsuid",
    "rsymfollow",
    "runbindable",
    "rw",
    "shared",
    "silent",
    "slave",
    "strictatime",
    "suid",
    "symfollow",
    "sync",
    "tmpcopyup",
    "unbindable",
];

const NAMESPACES: [&str; 8] = ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"];

pub fn text() -> String {
    let mut text = serde_json::to_string_pretty(&features()).unwrap_or_default();
    text.push('\n');
    text
}

fn features() -> Value {
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.3.0",
        "hooks": HOOKS,
        "mountOptions": MOUNT_OPTIONS,
        "linux": linux(),
        "annotations": {
            "org.opencontainers.runc.checkpoint.enabled": "true",
            // The runc whose command line this is.
            "org.opencontainers.runc.version": "1.5.0",
            "hydra.version": cli::VERSION,
        },
        // Those that change what a container may do on the host; a trailing full stop means the prefix.
        "potentiallyUnsafeConfigAnnotations": [
            "bundle",
            "hydra.",
            "org.criu.config",
            "org.systemd.property.",
        ],
    })
}

fn linux() -> Value {
    let enabled = json!({ "enabled": true });
    let mut capabilities: Vec<_> = caps::all().into_iter().collect();
    capabilities.sort_by_key(|c| c.index());
    let capabilities: Vec<_> = capabilities.iter().map(|c| c.to_string()).collect();
    json!({
        "namespaces": NAMESPACES,
        "capabilities": capabilities,
        "cgroup": { "v1": true, "v2": true, "systemd": true, "systemdUser": true, "rdma": true },
        "seccomp": seccomp_features(),
        "apparmor": enabled,
        "selinux": enabled,
        "intelRdt": { "enabled": true, "schemata": true, "monitoring": true },
        "memoryPolicy": {
            "modes": scheduling::memory_policy_modes(),
            "flags": scheduling::memory_policy_flags(),
        },
        "mountExtensions": { "idmap": enabled },
        "netDevices": enabled,
    })
}

fn seccomp_features() -> Value {
    json!({
        "enabled": true,
        "actions": seccomp::known_actions(),
        "operators": seccomp::known_operators(),
        "archs": seccomp::known_archs(),
        "knownFlags": seccomp::known_flags(),
        "supportedFlags": seccomp::supported_flags(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_callers_look_for() {
        let all: Value = serde_json::from_str(&text()).unwrap();
        // moby: recursive read-only mounts; containerd: idmapped mounts; CRI-O: both versions of the specification.
        assert!(all["mountOptions"].as_array().unwrap().contains(&json!("rro")));
        assert_eq!(all["linux"]["mountExtensions"]["idmap"]["enabled"], true);
        assert_eq!((&all["ociVersionMin"], &all["ociVersionMax"]), (&json!("1.0.0"), &json!("1.3.0")));
        assert!(all["linux"]["namespaces"].as_array().unwrap().contains(&json!("time")));
        assert_eq!(all["linux"]["capabilities"].as_array().unwrap().len(), 41);
        assert_eq!(all["linux"]["capabilities"][0], "CAP_CHOWN");
    }

    #[test]
    fn lists_are_sorted_as_callers_expect() {
        let sorted = |list: &[&str]| list.windows(2).all(|w| w[0] < w[1]);
        assert!(sorted(MOUNT_OPTIONS) && sorted(&NAMESPACES));
    }
}
