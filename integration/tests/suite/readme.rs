//! What README.md tells people to do is done, as it stands there, with the paths of the programs under test.

use integration::engine::{engine, IMAGE};
use integration::{host, janitor, peer, skip, Bundle, Peer, Run};
use std::fs;
use std::path::Path;

const README: &str = include_str!("../../../README.md");

/// The block after a `<!-- tested: NAME -->`, with the installed program's path replaced.
fn block(name: &str) -> String {
    let mark = format!("<!-- tested: {name} -->\n```");
    let (_, rest) = README.split_once(&mark).unwrap_or_else(|| panic!("no block {name} in README.md"));
    let (_, body) = rest.split_once('\n').expect("a block has lines");
    let (body, _) = body.split_once("```").expect("a block ends");
    let runtime = fs::canonicalize(host::runtime()).expect("the program under test");
    body.replace("/usr/local/bin/runtime", runtime.to_str().expect("path"))
}

#[test]
fn dockers_registration_is_what_the_tests_use() {
    // The private daemon of the tests has the very keys that README shows.
    let shown: serde_json::Value = serde_json::from_str(&block("daemon.json")).expect("JSON");
    let path = &shown["runtimes"]["hydra"]["path"];
    let engine = match engine() {
        Ok(engine) => engine,
        Err(reason) => skip!("{reason}"),
    };
    let used = fs::read(engine.dir().join("daemon.json")).unwrap();
    let used: serde_json::Value = serde_json::from_slice(&used).unwrap();
    assert_eq!(used["runtimes"]["hydra"]["path"], *path);
    engine.script(&block("docker"), "hydra", "readme").ok().says("hello");
}

/// The limits of a container that Docker runs. The engine of the tests lies elsewhere than people's.
#[test]
fn dockers_containers_are_limited_by_name() {
    if peer() != Peer::Hydra {
        skip!("knobs are ours");
    }
    if host::cgroups() == host::Cgroups::V1 {
        skip!("network limits want a cgroup2 mount");
    }
    let engine = match engine() {
        Ok(engine) => engine,
        Err(reason) => skip!("{reason}"),
    };
    let bin = janitor::scratch().join("readme-bin");
    fs::create_dir_all(&bin).unwrap();
    std::os::unix::fs::symlink(fs::canonicalize(host::runtime()).unwrap(), bin.join("runtime")).unwrap();
    let script = format!(
        "set -e; export PATH={bin}:$PATH; mkdir -p /run/docker /var/lib/docker
         mount --bind {dir}/exec /run/docker; mount --bind {dir}/data /var/lib/docker
         {{ {block} }} >said; cat said; runtime inspect --json web; docker rm -f web >/dev/null",
        bin = bin.display(),
        dir = engine.dir().display(),
        block = block("limits")
    );
    let script = format!("cat >limits.sh <<'END'\n{script}\nEND\nunshare -m bash limits.sh");
    let out = engine.script(&script, "hydra", "readme-limits").ok();
    let (said, left) = out.stdout.split_once("\n[").unwrap_or_else(|| panic!("no list at the end: {out}"));
    assert!(said.contains("net.egress-rate") && said.contains("10mbit"), "{out}");
    assert!(!left.contains("egress-rate") && left.contains("net.ingress-pps"), "{out}");
}

#[test]
fn ctr_runs_a_container() {
    let engine = match engine() {
        Ok(engine) => engine,
        Err(reason) => skip!("{reason}"),
    };
    let sock = engine.containerd();
    let line = format!(
        "export CONTAINERD_ADDRESS={}; $D save {IMAGE} | ctr images import - >/dev/null && {}",
        sock.display(),
        block("ctr")
    );
    let mut out = engine.script(&line, "hydra", "readme").ok();
    if out.stdout.is_empty() {
        // See `ctr.rs`: ctr loses now and then what a container says that ends at once.
        println!("RETRY: nothing was said: {out}");
        out = engine.script(&line, "hydra", "readme").ok();
    }
    out.says("hello");
}

#[test]
fn containerd_takes_the_configuration() {
    let file = janitor::scratch().join("config.toml");
    fs::write(&file, block("config.toml")).unwrap();
    let out = Run::new("containerd").args(["--config"]).args([&file]).args(["config", "dump"]).ok();
    assert!(out.stdout.contains("runtimes.hydra]"), "{out}");
}

/// The configuration of containerd and the RuntimeClass, put together as a kubelet does: the class's handler is the
/// name that the CRI service is asked for.
#[test]
fn a_runtime_class_runs_a_pod() {
    if peer() != Peer::Hydra {
        skip!("looks into the state as we keep it");
    }
    if let Err(reason) = crate::cri::ready() {
        skip!("{reason}");
    }
    let class = block("runtime-class");
    let handler = class.lines().find_map(|l| l.strip_prefix("handler: ")).expect("a handler");
    let shown = block("config.toml").replace("version = 2", "");
    let (section, parent) = match Path::new("/run/systemd/system").exists() {
        true => (shown, "/hydratest.slice".to_string()),
        false => (shown.replace("SystemdCgroup = true", "SystemdCgroup = false"), crate::cri::parent()),
    };
    let containerd = crate::cri::Containerd::new('k', &section);
    containerd.import();
    let (id, pod) = containerd.pod(handler, &parent, "echo up; sleep 1000000");
    assert_eq!(containerd.exec(&id, &["sh", "-c", "hostname; exit 3"]), ("pod\n".into(), 3));
    // Ours keeps the configuration beside the state.
    assert!(Path::new("/run/containerd/runc/k8s.io").join(&id).join("config.json").exists());
    containerd.call("StopPodSandbox", &pod);
    containerd.call("RemovePodSandbox", &pod);
    assert!(!Path::new("/run/containerd/runc/k8s.io").join(&id).exists());
    containerd.kill();
}

#[test]
fn podman_runs_a_container() {
    if Run::sh("command -v podman").out().code != 0 {
        skip!("podman is not installed");
    }
    let store = janitor::scratch().join("readme-podman");
    fs::create_dir_all(&store).unwrap();
    crate::podman::configure(&store).unwrap();
    janitor::at_end(&format!("podman --root {0}/root --runroot {0}/run rm -fa", store.display()));
    let podman = format!(
        "env CONTAINERS_CONF={0}/containers.conf podman --root {0}/root --runroot {0}/run",
        store.display()
    );
    let import = format!("tar -C {} -c . | {podman} import - box", integration::bundle::template().display());
    Run::sh(&import).patient(3).ok();
    let line = block("podman").replacen("podman", &podman, 1).replace("run --rm", "run --rm --network none");
    Run::sh(&line).patient(3).ok().says("hello");
}

#[test]
fn a_container_by_hand() {
    let bundle = Bundle::new("readme-hand/bundle");
    let bin = bundle.dir.join("bin");
    fs::create_dir(&bin).unwrap();
    std::os::unix::fs::symlink(fs::canonicalize(host::runtime()).unwrap(), bin.join("runtime")).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let out = Run::sh(&block("hand")).env("PATH", path).dir(bundle.dir.parent().unwrap()).ok();
    assert!(!out.stdout.trim().is_empty(), "{out}");
    assert!(Path::new(&bundle.dir.join("config.json")).exists());
}
