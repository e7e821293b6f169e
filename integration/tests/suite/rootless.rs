//! Containers of a user without privileges: a user namespace that maps that user alone.

use integration::bundle::mount;
use integration::{skip, Container, Out, Run};
use serde_json::json;
use std::fs;

const USER: &str = "1000";

/// Does this machine let plain users make user namespaces?
fn allowed() -> bool {
    as_user(Run::new("setpriv"), &["unshare", "--user", "true"]).out().code == 0
}

fn as_user(run: Run, command: &[&str]) -> Run {
    run.args(["--reuid", USER, "--regid", USER, "--clear-groups", "--inh-caps=-all", "--"]).args(command)
}

/// A container that the plain user can run.
fn container(name: &str, script: &str) -> Container {
    let c = Container::sh(name, script).namespace("user", None).with(|c| {
        let map = json!([{ "containerID": 0, "hostID": 1000, "size": 1 }]);
        c["linux"]["uidMappings"] = map.clone();
        c["linux"]["gidMappings"] = map;
        c["linux"].as_object_mut().unwrap().remove("cgroupsPath");
        c["linux"].as_object_mut().unwrap().remove("resources");
        let pts = mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
        );
        for m in c["mounts"].as_array_mut().unwrap() {
            if m["destination"] == "/dev/pts" {
                *m = pts.clone();
            }
        }
    });
    c.bundle.write();
    Run::sh("cp -a rootfs own && rm -rf rootfs && mv own rootfs && chown -R 1000:1000 .")
        .dir(&c.bundle.dir)
        .ok();
    Run::new("chown").args([USER]).args([&c.root]).ok();
    c
}

fn runtime(c: &Container, args: &[&str]) -> Out {
    let program = integration::host::runtime();
    let root = c.root.to_str().unwrap();
    let mut command = vec![program.to_str().unwrap(), "--root", root];
    command.extend(args);
    as_user(Run::new("setpriv"), &command).without_env("XDG_RUNTIME_DIR").dir(&c.bundle.dir).out()
}

#[test]
fn a_plain_user_runs_a_container() {
    if !allowed() {
        skip!("plain users may not make user namespaces here");
    }
    let c = container(
        "rootless",
        "id -u; cat /proc/self/uid_map; echo x >/dev/null && touch /tmp/mine && hostname",
    );
    let out = runtime(&c, &["run", &c.id]).ok();
    assert_eq!(out.stdout.split_whitespace().collect::<Vec<_>>(), ["0", "0", "1000", "1", "box"], "{out}");
    let owner =
        std::os::unix::fs::MetadataExt::uid(&fs::metadata(c.bundle.rootfs().join("tmp/mine")).unwrap());
    assert_eq!(owner, 1000);
}

/// What `spec --rootless` writes can be run: the hierarchies in which the user may make nothing show the user's own cgroup.
#[test]
fn the_configuration_of_spec_runs() {
    if !allowed() {
        skip!("plain users may not make user namespaces here");
    }
    let c = container("rootlessspec", "true");
    fs::remove_file(c.bundle.dir.join("config.json")).unwrap();
    runtime(&c, &["spec", "--rootless"]).ok();
    let path = c.bundle.dir.join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config["process"]["terminal"] = false.into();
    config["process"]["args"] = json!(["sh", "-c", "ls /sys/fs/cgroup | head -1; echo ran"]);
    fs::write(&path, config.to_string()).unwrap();
    let out = runtime(&c, &["run", &c.id]).ok().stdout;
    assert!(out.ends_with("ran\n") && out.lines().count() == 2, "{out}");
}

/// Root of a user namespace may join a pid namespace of its own, and may not go back to the host's: nothing that it needs.
#[test]
fn a_pid_namespace_is_joined_in_a_user_namespace() {
    if !allowed() {
        skip!("plain users may not make user namespaces here");
    }
    if integration::peer() != integration::Peer::Hydra {
        skip!("others know no disabled cgroups");
    }
    let c = Container::sh("usernspid", "echo joined").with(|c| {
        c.as_object_mut().unwrap().remove("hostname");
        c["mounts"] = json!([]);
        c["linux"] =
            json!({ "namespaces": [{ "type": "mount" }, { "type": "pid", "path": "/proc/HOLDER/ns/pid_for_children" }] });
    });
    c.bundle.write();
    let script = "unshare --pid --fork --kill-child sleep 1000000 >/dev/null 2>&1 & holder=$!
        until [ -e /proc/$holder/ns/pid_for_children ] && pgrep -P $holder >/dev/null; do
            kill -0 $holder || exit 99; sleep 0.05
        done
        sed -i s/HOLDER/$holder/ config.json
        $RUN --root $ROOT --cgroup-manager disabled run $ID; code=$?
        kill -9 $holder; exit $code";
    let run = Run::new("unshare").args(["--user", "--map-root-user", "sh", "-c", script]);
    let run = run.env("RUN", integration::host::runtime()).env("ROOT", &c.root).env("ID", &c.id);
    let out = run.dir(&c.bundle.dir).out();
    if out.code == 99 {
        skip!("unshare(1) can't do without newer calls");
    }
    out.ok().says("joined");
}

#[test]
fn a_plain_users_container_lives_through_its_states() {
    if !allowed() {
        skip!("plain users may not make user namespaces here");
    }
    let c = container("rootlesslife", "sleep 1000000");
    runtime(&c, &["create", &c.id]).ok();
    runtime(&c, &["start", &c.id]).ok();
    runtime(&c, &["exec", &c.id, "hostname"]).ok().says("box");
    runtime(&c, &["exec", &c.id, "sh", "-c", "exit 6"]).exits(6);
    runtime(&c, &["kill", &c.id, "KILL"]).ok();
    integration::eventually("its end", || runtime(&c, &["state", &c.id]).ok().json()["status"] == "stopped");
    runtime(&c, &["delete", &c.id]).ok();
    assert_eq!(fs::read_dir(&c.root).unwrap().count(), 0);
}

#[test]
fn limits_that_cannot_be_set_are_an_error() {
    if !allowed() {
        skip!("plain users may not make user namespaces here");
    }
    let c = container("rootlesslimit", "true").with(|c| {
        c["linux"]["resources"] = json!({ "memory": { "limit": 67_108_864 } });
    });
    c.bundle.write();
    runtime(&c, &["run", &c.id]).fails();
}

/// Who may make no cgroup has his container's processes listed and killed all the same: those of its pid namespace, or what descends from
/// its first process where it has none of its own.
#[test]
fn without_a_cgroup_all_of_a_container_is_found() {
    if !allowed() {
        skip!("plain users may not make user namespaces here");
    }
    if integration::peer() != integration::Peer::Hydra {
        skip!("others know no disabled cgroups, and list none");
    }
    for (n, (flags, shared)) in [
        (&[][..], false),
        (&[], true),
        (&["--cgroup-manager", "disabled"], false),
        (&["--cgroup-manager", "disabled"], true),
    ]
    .into_iter()
    .enumerate()
    {
        let mut c = container(&format!("rootlessfound{n}"), "sleep 1000 & sleep 1000; :");
        if shared {
            c.bundle.config["linux"]["namespaces"].as_array_mut().unwrap().retain(|n| n["type"] != "pid");
            let proc = mount("/proc", "none", "/proc", &["rbind"]);
            for m in c.bundle.config["mounts"].as_array_mut().unwrap() {
                if m["destination"] == "/proc" {
                    *m = proc.clone();
                }
            }
            c.bundle.write();
        }
        let with = |args: &[&str]| runtime(&c, &[flags, args].concat());
        with(&["create", &c.id]).ok();
        with(&["start", &c.id]).ok();
        let listed = || {
            let out = with(&["ps", "--format", "json", &c.id]).ok();
            serde_json::from_str::<Option<Vec<i32>>>(&out.stdout).unwrap().unwrap_or_default()
        };
        integration::eventually("three processes", || listed().len() == 3);
        let all = listed();
        with(&["kill", &c.id, "KILL"]).ok();
        integration::eventually("the end of all", || all.iter().all(|p| !integration::host::alive(*p)));
        with(&["delete", &c.id]).ok();
    }
}

/// Root of a user namespace that somebody else made keeps its state with that user's things: by runc's rules, which go by `$USER`.
/// Podman's conmon has none.
#[test]
fn the_state_of_root_in_a_user_namespace_is_the_users() {
    if !allowed() {
        skip!("plain users may not make user namespaces here");
    }
    let name = match integration::peer() {
        integration::Peer::Hydra => "hydra",
        integration::Peer::Runc => "runc",
        integration::Peer::Crun => skip!("crun has rules of its own"),
    };
    let home = integration::janitor::scratch().join("xdg");
    fs::create_dir_all(&home).unwrap();
    Run::new("chown").args([USER]).args([&home]).ok();
    let program = integration::host::runtime();
    for (user, own) in [(None, true), (Some("somebody"), true), (Some("root"), false)] {
        let _ = fs::remove_dir_all(home.join(name));
        let list = ["unshare", "--user", "--map-root-user", program.to_str().unwrap(), "list"];
        let run = as_user(Run::new("setpriv"), &list).env("XDG_RUNTIME_DIR", &home);
        let run = match user {
            Some(user) => run.env("USER", user),
            None => run.without_env("USER"),
        };
        let out = run.out();
        assert_eq!(home.join(name).exists(), own, "$USER {user:?}: {out}");
    }
}

/// Root of a user namespace has monitors too, be it with a `/run` of its own or without; their logs are with the user's data.
#[test]
fn a_plain_user_has_a_monitor() {
    if !allowed() {
        skip!("plain users may not make user namespaces here");
    }
    if integration::peer() != integration::Peer::Hydra {
        skip!("the monitor is ours");
    }
    // A socket's path is short.
    let own = integration::janitor::scratch().join("own");
    fs::create_dir_all(&own).unwrap();
    Run::new("chown").args([USER]).args([&own]).ok();
    for (n, prepare) in ["mount -t tmpfs none /run", "true"].into_iter().enumerate() {
        let c = container(
            &format!("rootlessmonitor{n}"),
            "echo seen; until [ -e /go ]; do sleep 0.01; done; exit 3",
        )
        .with(|c| {
            c.as_object_mut().unwrap().remove("hostname");
            c["mounts"] = json!([]);
            c["linux"] = json!({ "namespaces": [{ "type": "mount" }, { "type": "pid" }] });
        });
        c.bundle.write();
        let script = format!(
            "{prepare} && $SHIM run --namespace n --bundle . --root $ROOT $ID || exit 99
            $RUN --root $ROOT list --long --format json | grep -o '\"monitor\":[0-9]*'
            touch rootfs/go; $RUN --root $ROOT wait $ID; echo $?; $RUN --root $ROOT logs $ID; ls $HOME/.local/share/hydra-shim/n/$ID
            $SHIM forget --namespace n $ID; $RUN --root $ROOT delete --force $ID; ls -A $HOME/.local/share/hydra-shim/n"
        );
        let run = as_user(
            Run::new("setpriv"),
            &["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", &script],
        );
        let run = run.env("RUN", integration::host::runtime()).env("SHIM", integration::host::shim());
        let run = run.env("HOME", &c.bundle.dir).env("XDG_RUNTIME_DIR", &own).without_env("XDG_DATA_HOME");
        let out = run.env("ROOT", &c.root).env("ID", &c.id).dir(&c.bundle.dir).out();
        if out.stderr.contains("the monitor needs pidfds") {
            skip!("there are no pidfds here");
        }
        let out = out.ok();
        let ring = format!("{}.1.ring", c.id);
        let lines: Vec<&str> = out.stdout.split_whitespace().collect();
        assert!(lines.contains(&"3") && lines.contains(&"seen") && lines.contains(&ring.as_str()), "{out}");
        assert!(out.stdout.contains("\"monitor\":"), "{out}");
        assert!(!out.stdout.trim_end().ends_with(&c.id), "nothing is left: {out}");
    }
}
