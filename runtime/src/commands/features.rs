//! `features`: what this build can do, as the runtime specification's features.md has it.

use serde_json::{json, Value};

use crate::cli;

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
        "seccomp": seccomp(),
        "apparmor": enabled,
        "selinux": enabled,
        "intelRdt": { "enabled": true, "schemata": true, "monitoring": true },
        "memoryPolicy": {
            "modes": [
                "MPOL_BIND", "MPOL_DEFAULT", "MPOL_INTERLEAVE", "MPOL_LOCAL", "MPOL_PREFERRED",
                "MPOL_PREFERRED_MANY", "MPOL_WEIGHTED_INTERLEAVE",
            ],
            "flags": ["MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES"],
        },
        "mountExtensions": { "idmap": enabled },
        "netDevices": enabled,
    })
}

fn seccomp() -> Value {
    let flags = [
        "SECCOMP_FILTER_FLAG_LOG",
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
        "SECCOMP_FILTER_FLAG_TSYNC",
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
    ];
    json!({
        "enabled": true,
        "actions": [
            "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD",
            "SCMP_ACT_LOG", "SCMP_ACT_NOTIFY", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP",
        ],
        "operators": [
            "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT", "SCMP_CMP_MASKED_EQ",
            "SCMP_CMP_NE",
        ],
        "archs": [
            "SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM", "SCMP_ARCH_LOONGARCH64", "SCMP_ARCH_MIPS", "SCMP_ARCH_MIPS64",
            "SCMP_ARCH_MIPS64N32", "SCMP_ARCH_MIPSEL", "SCMP_ARCH_MIPSEL64", "SCMP_ARCH_MIPSEL64N32",
            "SCMP_ARCH_PPC", "SCMP_ARCH_PPC64", "SCMP_ARCH_PPC64LE", "SCMP_ARCH_RISCV64", "SCMP_ARCH_S390",
            "SCMP_ARCH_S390X", "SCMP_ARCH_X32", "SCMP_ARCH_X86", "SCMP_ARCH_X86_64",
        ],
        "knownFlags": flags,
        "supportedFlags": flags,
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
