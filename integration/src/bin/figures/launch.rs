//! HYDRA's table 1: from `docker run` to the first answered request.

use crate::outage::PATIENCE;
use crate::rows::Sheet;
use crate::server::{server, SERVERS};
use crate::stack::Daemons;
use crate::Plan;
use integration::{host, janitor, Run};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

const HEADER: &str = "pass,stack,server,round,ms";

fn servers<'a>(plan: &Plan, all: &'a [&'a str]) -> &'a [&'a str] {
    plan.pick(all, &["redis"])
}

pub fn docker(plan: &Plan, daemons: &Daemons, stack: &str, pass: u32) -> Vec<Sheet> {
    daemons.warm();
    let mut sheet = Sheet::new("launch.csv", HEADER);
    let all: Vec<&str> = SERVERS.iter().map(|s| s.name).collect();
    for name in servers(plan, &all) {
        for round in 0..plan.rounds(8, 2) {
            let start = Instant::now();
            let address = daemons.run("launch", name);
            if let Some(ms) = server(name).first_answer(&address, start, PATIENCE) {
                sheet.add(&[&pass, &stack, name, &round, &ms]);
            }
            daemons.sweep();
        }
    }
    vec![sheet]
}

/// The same without an engine: the server in a bare `chroot`, and in a container of `shim run`. Both use the host's
/// network, so they have no interface to wait for.
pub fn alone(plan: &Plan, rootfs: &Path, stack: &str, pass: u32) -> Vec<Sheet> {
    warm(rootfs);
    let mut sheet = Sheet::new("launch.csv", HEADER);
    let all: Vec<&str> = SERVERS.iter().map(|s| s.name).collect();
    for name in servers(plan, &all) {
        for round in 0..plan.rounds(8, 2) {
            let fresh = Fresh::new(rootfs);
            let start = Instant::now();
            let end = match stack {
                "no container" => chroot(&fresh.merged, name),
                _ => standalone(&fresh.dir, name),
            };
            let took = server(name).first_answer("127.0.0.1", start, PATIENCE);
            end();
            if let Some(ms) = took {
                sheet.add(&[&pass, &stack, name, &round, &ms]);
            }
        }
    }
    vec![sheet]
}

/// Reads all files once: the first block would be the only one that waits for the disk.
pub fn warm(folder: &Path) {
    let line = format!("find {} -xdev -type f -exec cat {{}} + 2>/dev/null >/dev/null", folder.display());
    Run::sh(&line).patient(4).out();
}

/// Starts the server in a process group of its own, in a pid namespace so that all of it can be ended.
fn chroot(root: &Path, name: &str) -> Box<dyn FnOnce()> {
    let mut child = Command::new("unshare")
        .args(["--pid", "--fork", "--kill-child", "--mount-proc"])
        .arg(format!("--root={}", root.display()))
        .args(["server", name])
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("unshare");
    Box::new(move || {
        // A server that becomes another user forgets whose death was to be its own: the namespace's first process is ended by number.
        let id = child.id();
        let first = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        for pid in first.split_whitespace().filter_map(|p| p.parse().ok()) {
            let _ =
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
        let _ = child.kill();
        let _ = child.wait();
    })
}

fn standalone(bundle: &Path, name: &str) -> Box<dyn FnOnce()> {
    let id = format!("figures-{}", std::process::id());
    let runtime = fs::canonicalize(host::runtime()).expect("the runtime under test");
    let shim = runtime.with_file_name("shim");
    let root = janitor::scratch().join("roots").join("figures");
    fs::create_dir_all(&root).expect("state folder");
    let spec = Run::new(&runtime).args(["spec"]).dir(bundle).out();
    assert_eq!(spec.code, 0, "{spec}");
    let file = bundle.join("config.json");
    let mut config: serde_json::Value =
        serde_json::from_slice(&fs::read(&file).expect("config.json")).expect("config.json");
    config["process"]["args"] = json!(["server", name]);
    config["process"]["terminal"] = json!(false);
    config["process"]["env"] = json!(["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]);
    let caps = json!([
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_FOWNER",
        "CAP_SETUID",
        "CAP_SETGID",
        "CAP_NET_BIND_SERVICE",
        "CAP_KILL"
    ]);
    for set in ["bounding", "effective", "permitted"] {
        config["process"]["capabilities"][set] = caps.clone();
    }
    config["process"]["rlimits"] = json!([]);
    config["root"] = json!({ "path": "merged", "readonly": false });
    config["linux"]["cgroupsPath"] = json!(format!("/{}/figures", janitor::name()));
    if let Some(list) = config["linux"]["namespaces"].as_array_mut() {
        list.retain(|n| n["type"] != "network");
    }
    fs::write(&file, config.to_string()).expect("config.json");
    let run = Run::new(&shim).args(["run", "--bundle"]).args([bundle]).args(["--root"]).args([&root]);
    run.args([&id]).ok();
    Box::new(move || {
        Run::new(&runtime).args(["--root"]).args([&root]).args(["delete", "--force", &id]).out();
    })
}

/// A writable view of the image, thrown away afterwards.
struct Fresh {
    dir: PathBuf,
    merged: PathBuf,
}

impl Fresh {
    fn new(rootfs: &Path) -> Fresh {
        let dir = janitor::scratch().join("fresh");
        let merged = dir.join("merged");
        for sub in ["upper", "work", "merged"] {
            fs::create_dir_all(dir.join(sub)).expect("scratch folder");
        }
        let line = format!(
            "mount -t overlay overlay -o lowerdir={},upperdir={d}/upper,workdir={d}/work {d}/merged",
            rootfs.display(),
            d = dir.display()
        );
        Run::sh(&line).ok();
        Fresh { dir, merged }
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        for _ in 0..100 {
            if Run::new("umount").args([&self.merged]).out().code == 0 {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}
