//! Knobs through engines: what they say of classes and annotations holds, and what they update doesn't undo it.

use integration::disk::{self, Disk};
use integration::engine::{debugging, engine, Engine, IMAGE};
use integration::host::{self, Cgroups};
use integration::{janitor, skip, Out, Peer, Run};
use std::path::Path;

/// Shell: `limit PID FILE` prints a cgroup file of a process, `rate` reads dd's last words.
const WORDS: &str = r#"
limit() { g=$(grep -E ":(${2%%.*}|):" /proc/$1/cgroup | head -1 | cut -d: -f3); cat /sys/fs/cgroup/${2%%.*}$g/$2 2>/dev/null || cat /sys/fs/cgroup$g/$2; }
pid() { $D inspect -f '{{.State.Pid}}' $1; }
"#;

fn memory_file() -> &'static str {
    match host::cgroups() {
        Cgroups::V2 => "memory.max",
        _ => "memory.limit_in_bytes",
    }
}

#[track_caller]
fn script(engine: &Engine, text: &str, name: &str) -> Out {
    engine.script(&format!("{WORDS}\n{text}"), "tested", name).ok()
}

/// A class by `runtimeArgs`: limits are there, `docker update` changes what the class doesn't speak of, and IO is
/// measured.
#[track_caller]
fn a_class_for_each_runtime(engine: &Engine, name: &str) {
    if host::cgroups() == Cgroups::V1 {
        skip!("the class limits the network, which wants a cgroup2 mount");
    }
    let disk = Disk::any(128);
    let volume = disk.as_ref().map(|d| d.dir.display().to_string()).unwrap_or("/tmp".into());
    let text = format!(
        "$D run -d --name $N --runtime classed --pids-limit 99 -v {volume}:/data $I sleep 1000 >/dev/null; p=$(pid $N)
        limit $p pids.max
        $D update --pids-limit 70 --memory 96m --memory-swap 96m $N >/dev/null
        limit $p pids.max; limit $p {}
        $D exec $N sh -c 'read a _ </proc/uptime; dd if=/dev/zero of=/data/x bs=64k count=400 oflag=direct 2>/dev/null; read b _ </proc/uptime; echo $a $b'
        $D restart -t 0 $N >/dev/null; limit $(pid $N) pids.max
        $D rm -f $N >/dev/null",
        memory_file()
    );
    let out = script(engine, &text, name);
    let lines: Vec<_> = out.stdout.lines().collect();
    let [created, updated, memory, written, restarted] = lines[..] else { panic!("{out}") };
    assert_eq!([created, updated, restarted], ["45"; 3], "{out}");
    assert_eq!(memory, (96u64 << 20).to_string(), "{out}");
    if let Err(why) = disk {
        return println!("SKIP+ no disk to write to: {why}");
    }
    let times: Vec<f64> = written.split(' ').filter_map(|t| t.parse().ok()).collect();
    let [begun, ended] = times[..] else { panic!("no times in {written:?}") };
    let rate = (400.0 * 65536.0) / (ended - begun);
    println!("FIGURE {name}: asked 5000000, got {rate:.0} ({:+.1} %)", disk::error(5e6, rate));
    assert!(rate < 5e6 * 1.05, "{written}");
}

macro_rules! docker {
    ($engine:expr) => {{
        if integration::peer() != Peer::Hydra {
            skip!("knobs are ours");
        }
        match $engine {
            Ok(engine) => engine,
            Err(reason) => skip!("{reason}"),
        }
    }};
}

#[test]
fn docker_with_a_runtime_for_each_class() {
    a_class_for_each_runtime(docker!(engine()), "classed");
}

/// With `-D` the first paper's authors found no limit set at all.
#[test]
fn docker_in_debug_mode() {
    a_class_for_each_runtime(docker!(debugging()), "classeddebug");
}

/// A Docker that hands on annotations, from 24 on: they hold, `docker update` leaves them, and a wrong one is refused by name.
#[track_caller]
/// The version of a Docker that knows neither annotations nor shims by their names.
fn before_24(engine: &Engine) -> Option<String> {
    let version =
        engine.docker(&["version", "--format", "{{.Server.Version}}"]).ok().stdout.trim().to_string();
    let major = version.split('.').next().and_then(|n| n.parse().ok()).unwrap_or(0);
    (major < 24).then_some(version)
}

fn annotated(runtime: &str, name: &str) {
    let engine = docker!(engine());
    if let Some(version) = before_24(engine) {
        skip!("Docker {version} has no --annotation");
    }
    let text = format!(
        "$D run -d --name $N --runtime {runtime} --annotation hydra.pids.limit=44 --annotation hydra.net.egress-rate=8mbit $I sleep 1000 >/dev/null
        p=$(pid $N); limit $p pids.max; $D update --pids-limit 70 --memory 96m --memory-swap 96m $N >/dev/null; limit $p pids.max; limit $p {}
        $D run --rm --runtime {runtime} --annotation hydra.pids.limit=none $I true 2>&1 | grep -o \"pids.limit: 'none'\"
        $D rm -f $N >/dev/null",
        memory_file()
    );
    script(engine, &text, name).says(&format!("44\n44\n{}\npids.limit: 'none'", 96 << 20));
}

#[test]
fn docker_with_annotations() {
    annotated("tested", "annotated");
}

/// By `runtimeType` in daemon.json: our monitor stands between the two.
#[test]
fn docker_with_annotations_and_our_shim() {
    annotated("shimmed", "annotatedshim");
}

/// By the type's name alone, with nothing in daemon.json.
#[test]
fn docker_with_annotations_by_the_shims_name() {
    annotated("io.containerd.hydra.v2", "annotatedname");
}

/// containerd's annotations, and the update that only Docker's shim client sends.
#[test]
fn containerd_with_annotations() {
    let engine = docker!(engine());
    let program = std::fs::canonicalize(host::runtime()).unwrap();
    let text = format!(
        "export CONTAINERD_ADDRESS={}; $D save {IMAGE} | ctr images import - >/dev/null
        ctr run -d --runc-binary {} --annotation hydra.pids.limit=44 --annotation hydra.memory.limit=64MiB docker.io/library/{IMAGE}:latest $N sleep 1000
        p=$(ctr task ls | awk -v n=$N '$1 == n {{ print $2 }}'); limit $p pids.max; limit $p {}
        ctr task kill -s KILL $N; sleep 1; ctr task rm $N >/dev/null; ctr container rm $N",
        engine.containerd().display(),
        program.display(),
        memory_file(),
    );
    script(engine, &text, "ctrannotated").says(&format!("44\n{}", 64 << 20));
}

#[test]
fn podman_with_annotations() {
    if integration::peer() != Peer::Hydra {
        skip!("knobs are ours");
    }
    if Run::sh("command -v podman").out().code != 0 {
        skip!("podman is not installed");
    }
    let dir = janitor::scratch().join("podman-knobs").display().to_string();
    let podman = format!("podman --root {dir}/root --runroot {dir}/run");
    janitor::at_end(&format!("{podman} rm -fa"));
    let program = std::fs::canonicalize(host::runtime()).unwrap();
    let text = format!(
        "{WORDS}
        tar -C {} -c . | {podman} import - box >/dev/null 2>&1
        {podman} --runtime {} run -d --name n --network none --ulimit nofile=1024:1024 --ulimit nproc=1024:1024 --annotation hydra.pids.limit=44 box sleep 1000 >/dev/null || exit 9
        D='{podman}'; limit $(pid n) pids.max
        {podman} --runtime {1} rm -f -t 0 n >/dev/null",
        integration::bundle::template().display(),
        program.display(),
    );
    Run::sh(&text).patient(3).ok().says("44");
}

/// Where Docker leaves cgroups to systemd it tells a shim so by the path alone: the container's scope is there, and goes with it.
#[test]
fn docker_by_the_shims_name_has_a_scope() {
    let engine = docker!(engine());
    if !Path::new("/run/systemd/system").exists() {
        skip!("no systemd runs here");
    }
    if let Some(version) = before_24(engine) {
        skip!("Docker {version} takes no shim by its name");
    }
    for (runtime, name) in [("shimmed", "scopetype"), ("io.containerd.hydra.v2", "scopename")] {
        let text = format!(
            "s=docker-$($D run -d --name $N --runtime {runtime} --pids-limit 55 $I sleep 1000).scope || exit 9
            systemctl is-active $s; grep -c /$s$ /proc/$(pid $N)/cgroup; systemctl show -p TasksMax --value $s
            $D update --pids-limit 66 $N >/dev/null; systemctl show -p TasksMax --value $s
            $D pause $N >/dev/null; $D unpause $N >/dev/null; $D exec $N grep -c /$s$ /proc/self/cgroup
            $D rm -f $N >/dev/null; systemctl is-active $s"
        );
        let out = engine.script(&format!("{WORDS}\n{text}"), runtime, name);
        let lines: Vec<&str> = out.stdout.lines().collect();
        let [active, placed, created, updated, _, gone] = lines[..] else { panic!("{out}") };
        assert_eq!([active, created, updated, gone], ["active", "55", "66", "inactive"], "{out}");
        assert_ne!(placed, "0", "{out}");
    }
}
