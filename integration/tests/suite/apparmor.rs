//! Profiles of AppArmor, where the kernel confines by it.

use integration::{differs, host, janitor, skip, Container, Run};
use std::fs;
use std::path::Path;
use std::sync::OnceLock;

const CURRENT: &str = "cat /proc/self/attr/apparmor/current 2>/dev/null || cat /proc/self/attr/current";

/// A profile of the tests' own, loaded once: all is allowed but what is done to /etc/secret. Or why there is none.
fn profile() -> Result<&'static str, &'static str> {
    static PROFILE: OnceLock<Result<String, String>> = OnceLock::new();
    PROFILE.get_or_init(load).as_ref().map(String::as_str).map_err(String::as_str)
}

fn enabled() -> bool {
    fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|t| t.trim() == "Y")
}

fn load() -> Result<String, String> {
    if !enabled() {
        return Err("this kernel has no AppArmor".into());
    }
    if !Path::new("/sys/kernel/security/apparmor").exists() {
        return Err("securityfs is not mounted".into());
    }
    let name = janitor::name();
    let rules = "network, capability, file, mount, umount, pivot_root, unix, ptrace, signal, dbus,";
    let text = format!(
        "profile {name} flags=(attach_disconnected,mediate_deleted) {{ {rules} deny /etc/secret rwl, }}\n"
    );
    let file = janitor::scratch().join("profile");
    fs::write(&file, text).map_err(|e| e.to_string())?;
    let load = Run::new("apparmor_parser").args(["--replace", "--skip-cache"]).args([&file]).patient(2).out();
    if load.code != 0 {
        return Err(format!("apparmor_parser: {}", load.stderr.trim()));
    }
    janitor::at_end(&format!("echo -n {name} >/sys/kernel/security/apparmor/.remove"));
    Ok(name)
}

fn confined(name: &str, profile: &str, script: &str) -> Container {
    let c =
        Container::sh(name, script).prepare(|root| fs::write(root.join("etc/secret"), "secret\n").unwrap());
    c.with(|c| c["process"]["apparmorProfile"] = profile.into())
}

/// As Podman starts a container with mapped users: in a mount namespace without securityfs.
#[test]
fn a_profile_confines_without_securityfs() {
    let profile = match profile() {
        Ok(profile) => profile,
        Err(reason) => skip!("{reason}"),
    };
    let c = confined("unsecured", profile, CURRENT);
    c.bundle.write();
    let [runtime, root, bundle] = [&host::runtime(), &c.root, &c.bundle.dir].map(|p| p.display().to_string());
    let line =
        format!("umount -l /sys/kernel/security && {runtime} --root {root} run --bundle {bundle} {}", c.id);
    let out = Run::new("unshare").args(["-m", "sh", "-c", &line]).out();
    assert_eq!(out.stdout.trim(), format!("{profile} (enforce)"), "{out}");
}

#[test]
fn a_profile_confines_the_container() {
    let profile = match profile() {
        Ok(profile) => profile,
        Err(reason) => skip!("{reason}"),
    };
    let c =
        confined("apparmor", profile, &format!("{CURRENT}; cat /etc/passwd >/dev/null && cat /etc/secret"));
    let out = c.run();
    assert_eq!(out.stdout.trim(), format!("{profile} (enforce)"), "{out}");
    assert!(out.code != 0 && out.stderr.contains("Permission denied"), "{out}");
}

#[test]
fn no_profile_is_unconfined() {
    if let Err(reason) = profile() {
        skip!("{reason}");
    }
    for none in [None, Some("unconfined"), Some("")] {
        let c = Container::sh("unconfined", CURRENT);
        let c = match none {
            Some(name) => c.with(|c| c["process"]["apparmorProfile"] = name.into()),
            None => c,
        };
        c.run().ok().says("unconfined");
    }
}

#[test]
fn exec_is_confined_as_the_container_or_as_told() {
    let profile = match profile() {
        Ok(profile) => profile,
        Err(reason) => skip!("{reason}"),
    };
    let enforced = format!("{profile} (enforce)");
    let c = confined("apparmorexec", profile, "sleep 1000000").up();
    c.exec(&["sh", "-c", CURRENT]).ok().says(&enforced);
    c.exec(&["cat", "/etc/secret"]).fails_with("Permission denied");
    let unnamed = c.exec_process(&[], |p| {
        drop(p.as_object_mut().unwrap().remove("apparmorProfile"));
        p["args"] = serde_json::json!(["sh", "-c", CURRENT]);
    });
    unnamed.ok().says(&enforced);
    let c = Container::sleeping("apparmorexec").up();
    c.exec(&["sh", "-c", CURRENT]).ok().says("unconfined");
    c.exec_with(&["--apparmor", profile], &["sh", "-c", CURRENT]).ok().says(&enforced);
}

#[test]
fn a_profile_stays_with_no_new_privileges_and_other_users() {
    let profile = match profile() {
        Ok(profile) => profile,
        Err(reason) => skip!("{reason}"),
    };
    let enforced = format!("{profile} (enforce)");
    for (no_new_privileges, uid) in [(true, 0), (false, 0), (true, 1000), (false, 1000)] {
        let c = confined("apparmornnp", profile, CURRENT).with(|c| {
            c["process"]["noNewPrivileges"] = no_new_privileges.into();
            c["process"]["user"] = serde_json::json!({ "uid": uid, "gid": uid });
        });
        c.run().ok().says(&enforced);
    }
    let c = confined("apparmoruser", profile, CURRENT).user_namespace();
    c.run().ok().says(&enforced);
}

#[test]
fn a_profile_that_is_not_loaded_is_an_error() {
    if let Err(reason) = profile() {
        skip!("{reason}");
    }
    let c = confined("noprofile", "no-such-profile", "true");
    c.run().fails_with("apparmor");
    assert_eq!(c.leftovers(), Vec::<String>::new());
}

#[test]
fn a_profile_without_apparmor_is_an_error() {
    if enabled() {
        skip!("this kernel has AppArmor");
    }
    differs!(Crun, "says it otherwise");
    let c = confined("noapparmor", "docker-default", "true");
    c.create().fails_with("apparmor");
    assert_eq!(c.leftovers(), Vec::<String>::new());
}
