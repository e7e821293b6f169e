//! A profile of our own, and those of container engines that the machine has. These are in the engines' own format, which the engine turns into
//! that of config.json; `HYDRA_SECCOMP_PROFILES` names more files, colon-separated, in either format or config.json.

use serde_json::{json, Value};

use crate::seccomp::table::ROWS;
use crate::spec;

const INSTALLED: [&str; 2] = ["/usr/share/containers/seccomp.json", "/etc/containers/seccomp.json"];

/// Our own, and what each file becomes for an engine that grants no capability and for one that grants all.
pub fn all() -> Vec<(String, spec::Seccomp)> {
    let more = std::env::var("HYDRA_SECCOMP_PROFILES").unwrap_or_default();
    let named = more.split(':').filter(|path| !path.is_empty());
    let mut profiles = vec![("one like an engine's".to_string(), like_an_engines())];
    for path in INSTALLED.into_iter().chain(named) {
        let text = match std::fs::read(path) {
            Ok(text) => text,
            Err(_) if INSTALLED.contains(&path) => {
                println!("SKIP+ no profile {path}");
                continue;
            }
            Err(e) => panic!("the profile {path}: {e}"),
        };
        let mut json: Value = serde_json::from_slice(&text).unwrap();
        if let Some(inner) = json.pointer_mut("/linux/seccomp") {
            // An engine has made its choice already.
            profiles.push((path.to_string(), serde_json::from_value(inner.take()).unwrap()));
            continue;
        }
        for granted in [false, true] {
            let converted = serde_json::from_value(convert(json.clone(), granted)).unwrap();
            profiles.push((format!("{path} (capabilities: {granted})"), converted));
        }
    }
    profiles
}

/// A profile in the manner of the engines' own: what most programs need is allowed, some of it by its arguments.
fn like_an_engines() -> spec::Seccomp {
    let privileged = [
        "mount",
        "umount2",
        "reboot",
        "swapon",
        "swapoff",
        "bpf",
        "perf_event_open",
        "init_module",
        "delete_module",
        "kexec_load",
        "setns",
        "unshare",
        "ptrace",
        "keyctl",
        "add_key",
        "request_key",
        "sethostname",
        "clone",
        "clone3",
        "personality",
        "socket",
        "quotactl",
        "acct",
        "settimeofday",
        "stime",
        "userfaultfd",
    ];
    let names: Vec<_> =
        ROWS.iter().map(|(name, _)| *name).filter(|name| !privileged.contains(name)).collect();
    let by_argument = |name: &str, op: &str, value: u64, two: u64| {
        json!({ "names": [name], "action": "SCMP_ACT_ALLOW",
            "args": [{ "index": 0, "value": value, "valueTwo": two, "op": op }] })
    };
    let mut entries = vec![
        json!({ "names": names, "action": "SCMP_ACT_ALLOW" }),
        by_argument("clone", "SCMP_CMP_MASKED_EQ", 0x7e02_0000, 0),
        by_argument("socket", "SCMP_CMP_LT", 38, 0),
        by_argument("socket", "SCMP_CMP_EQ", 39, 0),
        by_argument("socket", "SCMP_CMP_GT", 40, 0),
        json!({ "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38 }),
        json!({ "names": ["bpf", "perf_event_open"], "action": "SCMP_ACT_LOG" }),
        json!({ "names": ["reboot"], "action": "SCMP_ACT_KILL_PROCESS" }),
    ];
    for domain in [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff] {
        entries.push(by_argument("personality", "SCMP_CMP_EQ", domain, 0));
    }
    let json = json!({ "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "syscalls": entries });
    serde_json::from_value(json).unwrap()
}

fn convert(mut json: Value, granted: bool) -> Value {
    let Some(calls) = json["syscalls"].as_array_mut() else { return json };
    let caps = |entry: &Value, key: &str| entry[key]["caps"].as_array().is_some_and(|caps| !caps.is_empty());
    calls.retain(|entry| {
        let (needs, needs_not) = (caps(entry, "includes"), caps(entry, "excludes"));
        (granted || !needs) && (!granted || !needs_not)
    });
    json
}
