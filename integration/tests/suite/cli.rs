//! The command line: what go-runc, conmon, podman and CRI-O send, and what they look for in the answers.

use integration::{differs, host, Container, Run};
use serde_json::Value;
use std::fs;

fn program() -> Run {
    Run::new(host::runtime())
}

#[test]
fn version_has_the_word_in_one_line() {
    let out = program().args(["--version"]).ok();
    assert_eq!(out.stdout.lines().filter(|l| l.to_lowercase().contains("version")).count(), 1, "{out}");
    assert!(out.stdout.lines().any(|l| l.starts_with("commit:")), "{out}");
    assert!(out.stdout.lines().any(|l| l.starts_with("spec:")), "{out}");
    assert_eq!(out.stderr, "");
}

#[test]
fn help_is_no_error() {
    program().args(["--help"]).ok();
    program().args(["-h"]).ok();
    for verb in ["create", "run", "exec", "update", "checkpoint", "restore", "events"] {
        program().args([verb, "--help"]).ok();
    }
}

#[test]
fn what_is_unknown_is_refused() {
    let c = Container::new("unknown");
    c.verb(&["no-such-verb"]).fails();
    c.verb(&["create", "--no-such-flag", &c.id]).fails();
    c.verb(&["state"]).fails();
    c.verb(&["state", "one", "two"]).fails();
}

#[test]
fn flags_are_understood_in_every_spelling() {
    differs!(Crun, "takes no long option after a single dash");
    let c = Container::new("spelling");
    c.bundle.write();
    let dir = c.bundle.dir.to_str().unwrap();
    for bundle in [vec!["--bundle", dir], vec!["-bundle", dir], vec!["-b", dir]] {
        c.runtime().args(["run"]).args(bundle).args([&c.id]).ok();
    }
    for bundle in [format!("--bundle={dir}"), format!("-bundle={dir}"), format!("-b={dir}")] {
        c.runtime().args(["run", &bundle, &c.id]).ok();
    }
    let root = c.root.to_str().unwrap();
    for root in [vec!["-root", root], vec![&format!("--root={root}")], vec![&format!("-root={root}")]] {
        program().args(root).args(["list", "-format", "json"]).ok();
    }
}

#[test]
fn the_bundle_is_the_working_folder_unless_named() {
    let c = Container::sh("cwd", "echo here");
    c.bundle.write();
    c.runtime().args(["run", &c.id]).dir(&c.bundle.dir).ok().says("here");
}

#[test]
fn an_error_is_one_json_object_in_the_log_and_text_on_stderr() {
    let c = Container::new("log");
    let log = c.bundle.dir.join("log.json");
    let out = c
        .runtime()
        .args(["--log"])
        .args([&log])
        .args(["--log-format", "json", "state", "nobody"])
        .out()
        .exits(1);
    let text = fs::read_to_string(&log).unwrap();
    let entry: Value = serde_json::from_str(text.trim()).unwrap_or_else(|e| panic!("{e}: {text}"));
    assert_eq!(entry["level"], "error");
    let message = entry["msg"].as_str().unwrap();
    assert!(entry["time"].as_str().unwrap().contains('T'), "{text}");
    assert!(out.stderr.contains(message), "{message:?} is not in {out}");
    // The next error is added to it.
    c.runtime()
        .args([
            format!("--log={}", log.display()),
            "--log-format=json".into(),
            "state".into(),
            "nobody".into(),
        ])
        .out()
        .fails();
    assert_eq!(fs::read_to_string(&log).unwrap().lines().count(), 2);
}

#[test]
fn a_plain_log_holds_the_error_as_text() {
    let c = Container::new("textlog");
    let log = c.bundle.dir.join("log");
    c.runtime().args(["--log"]).args([&log]).args(["state", "nobody"]).out().fails();
    assert!(fs::read_to_string(&log).unwrap().contains("does not exist"));
}

#[test]
fn success_is_silent_on_stderr() {
    let c = Container::sleeping("silent").up();
    for verb in
        [vec!["state", &c.id], vec!["ps", "--format", "json", &c.id], vec!["list"], vec!["pause", &c.id]]
    {
        assert_eq!(c.verb(&verb).ok().stderr, "", "{verb:?}");
    }
    assert_eq!(c.verb(&["resume", &c.id]).ok().stderr, "");
    assert_eq!(c.kill("KILL").ok().stderr, "");
    c.wait_for("stopped");
    assert_eq!(c.delete().ok().stderr, "");
}

#[test]
fn what_does_not_exist_is_said_not_to_exist() {
    let c = Container::new("missing");
    for verb in [
        vec!["state"],
        vec!["start"],
        vec!["kill"],
        vec!["delete"],
        vec!["pause"],
        vec!["resume"],
        vec!["ps"],
    ] {
        c.runtime().args(verb).args(["nobody"]).out().fails_with("does not exist");
    }
    c.verb(&["exec", "nobody", "true"]).fails_with("does not exist");
    c.verb(&["update", "--pids-limit", "5", "nobody"]).fails_with("does not exist");
    // Engines force the removal of what may be gone already.
    c.verb(&["delete", "--force", "nobody"]).ok();
}

#[test]
fn an_id_is_checked() {
    differs!(Crun, "has no rule for names");
    let c = Container::new("id");
    c.bundle.write();
    for id in ["", ".", "..", "../up", "a/b", "a b", "ä", "a\nb"] {
        c.runtime().args(["create", id]).dir(&c.bundle.dir).out().fails();
    }
    assert_eq!(fs::read_dir(&c.root).unwrap().count(), 0, "something was made for a bad id");
    for id in ["a", "A_b-c.d+e", "0"] {
        c.runtime().args(["run", "--bundle"]).args([&c.bundle.dir]).args([id]).ok();
    }
}

#[test]
fn an_id_is_used_once() {
    let c = Container::sleeping("twice").up();
    let again = c.create().fails();
    let known = ["container with given ID already exists", "already exists"];
    assert!(known.iter().any(|k| again.stderr.contains(k)), "{again}");
    assert_eq!(c.status(), "running");
}

#[test]
fn list_is_null_when_there_is_nothing() {
    let c = Container::new("empty");
    let out = c.verb(&["list", "-f", "json"]).ok();
    assert!(["null", "[]"].contains(&out.stdout.trim()), "{out}");
    c.verb(&["list", "-q"]).ok().says("");
    assert!(
        c.verb(&["list"]).ok().stdout.starts_with("ID") || integration::peer() == integration::Peer::Crun
    );
}

#[test]
fn list_shows_containers_and_passes_by_what_is_none() {
    let c = Container::sleeping("list").up();
    fs::create_dir(c.root.join("foreign")).unwrap();
    fs::write(c.root.join("file"), "").unwrap();
    let out = c.verb(&["list", "--format", "json"]).ok();
    fs::remove_dir(c.root.join("foreign")).unwrap();
    fs::remove_file(c.root.join("file")).unwrap();
    let list = out.json();
    let list = list.as_array().expect("an array");
    let own = list.iter().find(|e| e["id"] == c.id.as_str()).expect("ours");
    assert_eq!(own["status"], "running");
    assert_eq!(own["pid"], c.pid());
    assert_eq!(own["bundle"], c.bundle.dir.to_str().unwrap());
    c.verb(&["list", "-q"]).ok().says(&c.id);
    let table = c.verb(&["list"]).ok().stdout;
    assert!(table.lines().any(|l| l.contains(&c.id) && l.contains("running")), "{table}");
}

#[test]
fn ps_knows_every_process_by_its_host_pid() {
    let c = Container::sh("ps", "sleep 1000000 & sleep 1000000 & wait").up();
    integration::eventually("three processes", || {
        c.verb(&["ps", "-f", "json", &c.id]).ok().json().as_array().is_some_and(|a| a.len() == 3)
    });
    let pids = c.verb(&["ps", "--format", "json", &c.id]).ok().json();
    assert!(pids.as_array().unwrap().iter().any(|p| *p == c.pid()), "{pids}");
    let table = c.verb(&["ps", &c.id]).ok().stdout;
    assert_eq!(table.lines().filter(|l| l.contains("sleep 1000000")).count(), 3, "{table}");
    assert!(table.lines().next().unwrap().contains("PID"), "{table}");
}

#[test]
fn ps_takes_options_for_ps() {
    differs!(Crun, "has no ps options");
    let c = Container::sleeping("psargs").up();
    let out = c.verb(&["ps", &c.id, "-o", "pid,comm"]).ok();
    assert!(out.stdout.contains("sleep") && out.stdout.contains("COMMAND"), "{out}");
}

#[test]
fn spec_writes_a_config_once() {
    let c = Container::new("spec");
    let dir = c.bundle.dir.join("fresh");
    fs::create_dir(&dir).unwrap();
    program().args(["spec"]).dir(&dir).ok();
    let config: Value = serde_json::from_slice(&fs::read(dir.join("config.json")).unwrap()).unwrap();
    assert_eq!(config["process"]["args"][0], "sh");
    assert_eq!(config["root"]["path"], "rootfs");
    program().args(["spec"]).dir(&dir).out().fails();
    fs::remove_file(dir.join("config.json")).unwrap();
    program().args(["spec", "--rootless", "--bundle"]).args([&dir]).ok();
    let config: Value = serde_json::from_slice(&fs::read(dir.join("config.json")).unwrap()).unwrap();
    let namespaces = config["linux"]["namespaces"].to_string();
    assert!(namespaces.contains("user") && config["linux"]["uidMappings"].is_array(), "{config}");
}

#[test]
fn what_spec_writes_can_be_run() {
    let c = Container::new("specrun");
    let file = c.bundle.dir.join("config.json");
    program().args(["spec", "-b"]).args([&c.bundle.dir]).ok();
    let mut config: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    config["process"]["terminal"] = false.into();
    config["process"]["args"] = serde_json::json!(["echo", "made by spec"]);
    fs::write(&file, config.to_string()).unwrap();
    c.runtime().args(["run", "--bundle"]).args([&c.bundle.dir]).args([&c.id]).ok().says("made by spec");
}

#[test]
fn features_tell_engines_what_they_look_for() {
    let out = program().args(["features"]).out();
    if out.code != 0 {
        differs!(Runc, "1.1.5 has no `features` that 1.3 readers know");
        differs!(Crun, "1.8 has no `features`");
    }
    differs!(Runc, "its 1.1 is older than the fields asked for");
    differs!(Crun, "its 1.8 is older than the fields asked for");
    let features = out.ok();
    assert_eq!(features.stderr, "");
    let features = features.json();
    for key in ["ociVersionMin", "ociVersionMax"] {
        assert!(features[key].as_str().is_some_and(|v| v.starts_with("1.")), "{key}: {features}");
    }
    let has = |list: &Value, item: &str| list.as_array().is_some_and(|a| a.iter().any(|x| x == item));
    assert!(has(&features["mountOptions"], "rro"), "docker asks for this");
    for hook in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"] {
        assert!(has(&features["hooks"], hook), "{hook}");
    }
    for ns in ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"] {
        assert!(has(&features["linux"]["namespaces"], ns), "{ns}");
    }
    assert_eq!(features["linux"]["mountExtensions"]["idmap"]["enabled"], true);
    assert_eq!(features["linux"]["seccomp"]["enabled"], true);
    assert!(has(&features["linux"]["seccomp"]["actions"], "SCMP_ACT_NOTIFY"));
    assert_eq!(features["linux"]["cgroup"]["v1"], true);
    assert_eq!(features["linux"]["cgroup"]["v2"], true);
}

#[test]
fn a_pid_file_is_a_bare_number() {
    let c = Container::sleeping("pidfile");
    let file = c.bundle.dir.join("pid");
    c.create_with(&["--pid-file", file.to_str().unwrap()]).ok();
    assert_eq!(fs::read_to_string(&file).unwrap(), c.pid().to_string());
    c.start().ok();
    let exec = c.bundle.dir.join("exec.pid");
    c.exec_with(&["-d", "--pid-file", exec.to_str().unwrap()], &["sleep", "1000000"]).ok();
    let pid: i32 = fs::read_to_string(&exec).unwrap().parse().expect("a bare number");
    assert!(host::alive(pid));
}

#[test]
fn state_has_what_the_specification_asks_for() {
    let c =
        Container::sleeping("state").with(|c| c["annotations"] = serde_json::json!({"org.example.a": "b"}));
    c.create().ok();
    let state = c.state();
    assert!(state["ociVersion"].is_string());
    assert_eq!(state["id"], c.id.as_str());
    assert_eq!(state["status"], "created");
    assert_eq!(state["bundle"], c.bundle.dir.to_str().unwrap());
    assert_eq!(state["annotations"]["org.example.a"], "b");
    assert!(host::alive(state["pid"].as_i64().unwrap() as i32));
    if integration::peer() != integration::Peer::Crun {
        assert_eq!(state["rootfs"], c.bundle.rootfs().to_str().unwrap());
        assert!(state["created"].as_str().unwrap().contains('T'));
    }
    c.start().ok();
    assert_eq!(c.status(), "running");
    c.kill("KILL").ok();
    c.wait_for("stopped");
    assert_eq!(c.pid(), 0);
}

#[test]
fn probes_for_checkpoint_and_restore_get_the_words_they_look_for() {
    let c = Container::new("probe");
    c.verb(&["checkpoint", "--help"]).ok();
    let out = c.verb(&["restore", "--lsm-mount-context"]).fails();
    let all = format!("{}{}", out.stdout, out.stderr);
    let known = ["flag needs an argument", "requires an argument"];
    if integration::peer() == integration::Peer::Runc && !known.iter().any(|k| all.contains(k)) {
        integration::skip!("Runc: this build of 1.1 lacks the flag");
    }
    assert!(known.iter().any(|k| all.contains(k)), "{out}");
}

#[test]
fn events_show_statistics_once_on_request() {
    differs!(Crun, "has no events");
    let c = Container::sleeping("events").up();
    let out = c.verb(&["events", "--stats", &c.id]).ok();
    let event = out.json();
    assert_eq!(event["type"], "stats");
    assert_eq!(event["id"], c.id.as_str());
    assert!(event["data"]["cpu"]["usage"]["total"].as_u64().unwrap() > 0, "{event}");
    assert_eq!(event["data"]["pids"]["current"], 1);
    assert!(event["data"]["memory"]["usage"]["usage"].as_u64().unwrap() > 0, "{event}");
}

#[test]
fn a_missing_bundle_or_config_is_named() {
    let c = Container::new("nobundle");
    c.verb(&["create", "--bundle", "/no/such/folder", &c.id]).fails_with("no such file or directory");
    let empty = c.bundle.dir.join("empty");
    fs::create_dir(&empty).unwrap();
    let out = c.runtime().args(["create", "--bundle"]).args([&empty]).args([&c.id]).out().fails();
    assert!(out.stderr.contains("config.json"), "{out}");
    fs::write(empty.join("config.json"), "{ no json").unwrap();
    c.runtime().args(["create", "--bundle"]).args([&empty]).args([&c.id]).out().fails();
    assert_eq!(c.leftovers(), Vec::<String>::new());
}

#[test]
fn the_root_of_the_host_is_no_state_folder() {
    differs!(Crun, "takes it");
    differs!(Runc, "1.1 takes it, later ones don't");
    program().args(["--root", "/", "list"]).out().fails();
}

/// What never ends isn't read.
#[test]
fn a_configuration_is_a_regular_file() {
    differs!(Runc, "stops at the first byte that isn't JSON");
    differs!(Crun, "reads on");
    let c = Container::new("endless");
    let config = c.bundle.dir.join("config.json");
    c.bundle.write();
    for what in ["/dev/zero", "/dev/tty", "fifo"] {
        fs::remove_file(&config).unwrap();
        match what {
            "fifo" => nix::unistd::mkfifo(&config, nix::sys::stat::Mode::S_IRWXU).unwrap(),
            device => std::os::unix::fs::symlink(device, &config).unwrap(),
        }
        let bundle = c.bundle.dir.to_str().unwrap();
        let out = Run::new(host::runtime())
            .args(["--root"])
            .args([&c.root])
            .args(["create", "--bundle", bundle, &c.id])
            .out();
        assert!(out.code != 0 && out.stderr.contains("config.json"), "{what}: {out}");
    }
}

/// What a script gives whose variable is empty.
#[test]
fn an_empty_value_is_as_if_it_were_not_given() {
    let c = Container::sleeping("emptyvalues").up();
    differs!(Crun, "takes an empty value for a number");
    let limit = |c: &Container| {
        let (controller, file) = match host::cgroups() {
            host::Cgroups::V2 => ("", "memory.max"),
            _ => ("memory", "memory.limit_in_bytes"),
        };
        c.cgroup_file(controller, file).unwrap()
    };
    c.verb(&["update", "--memory", "64M", "--memory-swap", "64M", &c.id]).ok();
    assert_eq!(limit(&c), "67108864");
    for flag in [
        "memory",
        "memory-swap",
        "memory-reservation",
        "kernel-memory",
        "kernel-memory-tcp",
        "cpu-share",
        "cpu-quota",
        "cpu-period",
        "cpu-rt-period",
        "cpu-rt-runtime",
        "cpuset-cpus",
        "cpuset-mems",
        "l3-cache-schema",
        "mem-bw-schema",
        "resources",
    ] {
        c.verb(&["update", &format!("--{flag}="), &c.id]).ok();
        c.verb(&["update", &format!("--{flag}"), "", &c.id]).ok();
    }
    c.verb(&["update", "--memory", "32M", "--memory=", &c.id]).ok();
    assert_eq!(limit(&c), "67108864");
    for flag in ["--pids-limit=", "--blkio-weight="] {
        c.verb(&["update", flag, &c.id]).fails_with("invalid value");
    }
    for flag in
        ["console-socket", "cwd", "user", "process", "pid-file", "apparmor", "process-label", "cgroup"]
    {
        c.exec_with(&[&format!("--{flag}=")], &["true"]).ok();
    }
    c.verb(&["kill", &c.id, ""]).ok();
    let c = Container::new("emptyvalues");
    for flag in ["bundle", "console-socket", "pid-file"] {
        c.bundle.write();
        c.runtime().args(["run", &format!("--{flag}="), &c.id]).dir(&c.bundle.dir).ok();
    }
}

#[test]
fn what_is_of_no_use_is_not_looked_at() {
    let c = Container::sleeping("nouse").up();
    differs!(Crun, "looks at the format, and at the number");
    c.verb(&["list", "-q", "-f", "xml"]).ok().says(&c.id);
    c.exec_with(&["--preserve-fds", "-1"], &["true"]).ok();
    // Nobody listens there.
    let socket = ["--console-socket", "/nonesuch"];
    c.exec_with(&socket, &["true"]).fails_with("cannot use console socket");
    let other = Container::new("nouse");
    other.create_with(&socket).fails_with("cannot use console socket");
    c.exec_process(&[], |p| p["cwd"] = "".into()).fails_with("Cwd property must not be empty");
}
