//! Seccomp filters as the kernel has them: what a container's system calls come back with.

use crate::ctr;
use integration::engine::engine;
use integration::{differs, skip, Container, Run};
use serde_json::{json, Value};
use std::path::Path;

fn filtered(name: &str, script: &str, rules: Value) -> Container {
    Container::sh(name, script).with(|c| {
        c["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
            "syscalls": rules
        });
    })
}

#[test]
fn an_errno_is_what_the_caller_gets() {
    let rule = json!([{ "names": ["mkdir", "mkdirat", "not_a_syscall"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28 }]);
    let out = filtered("errno", "mkdir /tmp/x", rule).run().fails();
    assert!(out.stderr.contains("No space left"), "{out}");
    let rule = json!([{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO" }]);
    let out = filtered("eperm", "mkdir /tmp/x", rule).run().fails();
    assert!(out.stderr.contains("not permitted"), "{out}");
}

#[test]
fn killing_actions_kill() {
    for action in ["SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD"] {
        let rule = json!([{ "names": ["mkdir", "mkdirat"], "action": action }]);
        filtered("kill", "sh -c 'mkdir /tmp/x; true'; mkdir /tmp/x; echo $?", rule).run().ok().says("159");
    }
}

#[test]
fn arguments_are_compared() {
    let rule = json!([{
        "names": ["kill"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95,
        "args": [{ "index": 1, "value": 10, "op": "SCMP_CMP_EQ" }]
    }]);
    let out = filtered("args", "trap '' USR1 USR2; kill -USR2 $$ && echo allowed; kill -USR1 $$", rule).run();
    assert!(out.stdout.contains("allowed") && out.stderr.contains("not supported"), "{out}");
}

#[test]
fn a_filter_is_in_force_and_reported() {
    let c = filtered(
        "mode",
        "grep Seccomp: /proc/self/status",
        json!([{ "names": ["acct"], "action": "SCMP_ACT_ERRNO" }]),
    );
    c.run().ok().says("Seccomp:\t2");
}

#[test]
fn an_unknown_action_or_architecture_is_refused() {
    let c = filtered("badaction", "true", json!([{ "names": ["acct"], "action": "SCMP_ACT_NOSUCH" }]));
    c.run().fails();
    let c = Container::new("badarch").with(|c| {
        c["linux"]["seccomp"] =
            json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_NOSUCH"] });
    });
    c.run().fails();
}

#[test]
fn calls_newer_than_the_profile_do_not_exist() {
    differs!(Crun, "answers with the default action");
    // An allow-list that ends with openat2 (437): newer calls must say ENOSYS so that libc falls back.
    let names: Vec<&str> = include_str!("allowed-syscalls.txt").split_whitespace().collect();
    let c = Container::sh("enosys", "echo works").with(|c| {
        c["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64"],
            "syscalls": [{ "names": names, "action": "SCMP_ACT_ALLOW" }]
        });
    });
    c.run().ok().says("works");
}

#[test]
fn the_other_actions() {
    for (action, said) in [("SCMP_ACT_TRAP", "159"), ("SCMP_ACT_LOG", "0"), ("SCMP_ACT_TRACE", "1")] {
        let rule = json!([{ "names": ["mkdir", "mkdirat"], "action": action }]);
        // Without a tracer TRACE answers ENOSYS.
        filtered("action", "mkdir /tmp/x 2>/dev/null; echo $?; rm -rf /tmp/x", rule).run().ok().says(said);
    }
}

#[test]
fn flags_are_known() {
    differs!(Runc, "1.1.5 knows fewer");
    differs!(Crun, "1.8.1 has other defaults");
    for flag in ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC"] {
        let c = filtered("flag", "echo ran", json!([{ "names": ["acct"], "action": "SCMP_ACT_ERRNO" }]))
            .with(|c| c["linux"]["seccomp"]["flags"] = json!([flag]));
        c.run().ok().says("ran");
    }
}

/// The profiles that Docker and containerd put into config.json, for a container with the usual capabilities and for one
/// with more. The folder SECCOMP_PROFILES keeps them for the crate `runtime`, where our filters of them are compared with
/// libseccomp's (`seccomp::tests::differential`).
#[test]
fn the_engines_own_profiles_are_in_force() {
    differs!(Runc, "the profile is the engine's");
    differs!(Crun, "the profile is the engine's");
    let engine = match engine() {
        Ok(engine) => engine,
        Err(reason) => skip!("{reason}"),
    };
    let keep = |what: &str, bundle: &Path, pid: &str| {
        let file = bundle.join("config.json");
        let text =
            std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{what}: {}: {e}", file.display()));
        let config: Value = serde_json::from_str(&text).unwrap();
        let rules = config["linux"]["seccomp"]["syscalls"].as_array().map_or(0, Vec::len);
        assert!(rules > 2, "{what}: no profile of an engine's: {text}");
        Run::new("grep").args(["Seccomp:", &format!("/proc/{}/status", pid.trim())]).ok().says("Seccomp:\t2");
        if let Some(folder) = std::env::var_os("SECCOMP_PROFILES") {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(Path::new(&folder).join(format!("{what}.json")), &text).unwrap();
        }
    };
    for (what, flags) in [("docker", ""), ("docker-all", "--cap-add ALL"), ("docker-none", "--cap-drop ALL")]
    {
        let run = format!("$D run -d --name $N --runtime $R {flags} $I sleep 1000");
        let id = engine.script(&run, "tested", &format!("profile-{what}")).ok().stdout;
        let pid = engine.docker(&["inspect", "-f", "{{.State.Pid}}", id.trim()]).ok().stdout;
        keep(what, &engine.bundle("moby", id.trim()), &pid);
        engine.docker(&["rm", "-f", id.trim()]).ok();
    }
    if let Err(reason) = ctr::imported(engine) {
        skip!("{reason}");
    }
    let program = std::fs::canonicalize(integration::host::runtime()).unwrap();
    let more = "--cap-add CAP_SYS_ADMIN --cap-add CAP_BPF --cap-add CAP_SYS_PTRACE --cap-add CAP_SYS_MODULE";
    for (what, flags) in [("containerd", ""), ("containerd-more", more)] {
        let flags = format!("{} --seccomp {flags}", ctr::behind_runcs(program.to_str().unwrap()));
        let name = format!("profile-{what}");
        let pid = "$RUN -d $I $N sleep 1000; $C task ls | awk -v n=$N '$1 == n { print $2 }'";
        let pid = ctr::script(engine, pid, &flags, &name).ok().stdout;
        keep(what, &engine.bundle("default", &name), &pid);
        let end = "$C task kill -s KILL $N; sleep 1; $C task rm $N; $C container rm $N";
        ctr::script(engine, end, "", &name).ok();
    }
}
