//! Profiles of container engines that the machine has. They are in the engines' own format, which the engine turns into
//! that of config.json; `HYDRA_SECCOMP_PROFILES` may name more files, colon-separated, in either format or config.json.

use serde_json::Value;

use crate::spec;

const INSTALLED: [&str; 2] = ["/usr/share/containers/seccomp.json", "/etc/containers/seccomp.json"];

/// What each file becomes, for an engine that grants no capability and for one that grants all.
pub fn installed() -> Vec<(String, spec::Seccomp)> {
    let more = std::env::var("HYDRA_SECCOMP_PROFILES").unwrap_or_default();
    let files = INSTALLED.into_iter().chain(more.split(':').filter(|path| !path.is_empty()));
    let mut profiles = Vec::new();
    for path in files {
        let Ok(text) = std::fs::read(path) else {
            println!("SKIP: no profile {path}");
            continue;
        };
        let mut json: Value = serde_json::from_slice(&text).unwrap();
        if let Some(inner) = json.pointer_mut("/linux/seccomp") {
            json = inner.take();
        }
        for granted in [false, true] {
            let converted = serde_json::from_value(convert(json.clone(), granted)).unwrap();
            profiles.push((format!("{path} (capabilities: {granted})"), converted));
        }
    }
    profiles
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
