//! One container of the program under test, from its bundle to its removal.

use crate::bundle::{cgroups_path, Bundle};
use crate::command::{Out, Run, Started};
use crate::{eventually, host, janitor};
use serde_json::{json, Value};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A container, or the idea of one. Dropped, it leaves nothing behind.
pub struct Container {
    pub id: String,
    pub bundle: Bundle,
    /// The program's `--root`, of this container alone.
    pub root: PathBuf,
    /// Standard output of the container's first process goes here when it was started detached.
    output: PathBuf,
}

impl Container {
    /// A container that runs `true`.
    pub fn new(name: &str) -> Container {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let id = format!("{name}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let root = janitor::scratch().join("roots").join(&id);
        fs::create_dir_all(&root).expect("state folder");
        let bundle = Bundle::new(&id);
        let output = bundle.dir.join("output");
        Container { id, bundle, root, output }
    }

    /// A container that runs a line of shell.
    pub fn sh(name: &str, script: &str) -> Container {
        Container::new(name).args(&["sh", "-c", script])
    }

    /// A container that sleeps until it is killed.
    pub fn sleeping(name: &str) -> Container {
        Container::new(name).args(&["sleep", "1000000"])
    }

    pub fn args(mut self, args: &[&str]) -> Container {
        self.bundle.config["process"]["args"] = json!(args);
        self
    }

    /// Changes config.json.
    pub fn with(mut self, change: impl FnOnce(&mut Value)) -> Container {
        change(&mut self.bundle.config);
        self
    }

    /// Changes the root file system.
    pub fn prepare(self, change: impl FnOnce(&Path)) -> Container {
        change(&self.bundle.rootfs());
        self
    }

    pub fn mount(self, mount: Value) -> Container {
        self.with(|c| c["mounts"].as_array_mut().expect("mounts").push(mount))
    }

    pub fn namespace(self, kind: &str, path: Option<&str>) -> Container {
        self.without_namespace(kind).with(|c| {
            let entry = path.map_or(json!({ "type": kind }), |p| json!({ "type": kind, "path": p }));
            c["linux"]["namespaces"].as_array_mut().expect("namespaces").push(entry);
        })
    }

    pub fn without_namespace(self, kind: &str) -> Container {
        self.with(|c| {
            c["linux"]["namespaces"].as_array_mut().expect("namespaces").retain(|n| n["type"] != kind)
        })
    }

    /// A user namespace in which root is the host's user 100000.
    pub fn user_namespace(self) -> Container {
        let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
        let rootfs = self.bundle.rootfs();
        // Hard links to shared files would be changed for all: copy, then hand over.
        let copied =
            Run::sh("cp -a rootfs own && rm -rf rootfs && mv own rootfs && chown -R 100000:100000 rootfs");
        copied.dir(rootfs.parent().expect("bundle")).ok();
        let mut dir = Some(rootfs.as_path());
        while let Some(d) = dir.filter(|d| d.starts_with(janitor::scratch())) {
            Run::new("chmod").args(["a+rx".as_ref(), d.as_os_str()]).ok();
            dir = d.parent();
        }
        self.namespace("user", None).with(|c| {
            c["linux"]["uidMappings"] = map.clone();
            c["linux"]["gidMappings"] = map;
        })
    }

    /// The path of its cgroup below the root of a hierarchy.
    pub fn cgroup(&self) -> String {
        match host::systemd_driver() {
            true => format!("/system.slice/hydratest-{}.scope", self.id),
            false => cgroups_path(&self.id),
        }
    }

    /// The program under test with its global options; the verb comes next.
    pub fn runtime(&self) -> Run {
        let run = Run::new(host::runtime()).args(["--root".as_ref(), self.root.as_os_str()]);
        if host::systemd_driver() {
            run.args(["--systemd-cgroup"])
        } else {
            run
        }
    }

    /// The program under test with a verb and its arguments.
    pub fn verb(&self, args: &[&str]) -> Out {
        self.runtime().args(args).out()
    }

    /// `run` in the foreground.
    #[track_caller]
    pub fn run(&self) -> Out {
        self.run_with(&[])
    }

    #[track_caller]
    pub fn run_with(&self, flags: &[&str]) -> Out {
        self.running(flags).out()
    }

    /// `run` in the foreground, not waited for.
    #[track_caller]
    pub fn running(&self, flags: &[&str]) -> Started {
        self.bundle.write();
        self.runtime()
            .args(["run"])
            .args(flags)
            .args(["--bundle".as_ref(), self.bundle.dir.as_os_str()])
            .args([&self.id])
            .start()
    }

    /// `create`; the container's output goes to a file that [`Container::output`] reads.
    pub fn create_with(&self, flags: &[&str]) -> Out {
        self.bundle.write();
        let verb = self.runtime().args(["create"]).args(flags);
        verb.args(["--bundle".as_ref(), self.bundle.dir.as_os_str()])
            .args([&self.id])
            .stdout_to(&self.output)
            .out()
    }

    /// `run --detach`; its output goes where that of `create` goes.
    pub fn run_detached(&self) -> Out {
        self.bundle.write();
        let verb = self.runtime().args(["run", "--detach", "--bundle"]).args([&self.bundle.dir]);
        verb.args([&self.id]).stdout_to(&self.output).out()
    }

    pub fn create(&self) -> Out {
        self.create_with(&[])
    }

    /// What the container's first process has written to its standard output since `create` or `run --detach`.
    pub fn output(&self) -> String {
        fs::read_to_string(&self.output).unwrap_or_default()
    }

    pub fn start(&self) -> Out {
        self.verb(&["start", &self.id])
    }

    /// Created and started, or the test fails.
    #[track_caller]
    pub fn up(self) -> Container {
        self.create().ok();
        self.start().ok();
        self
    }

    pub fn delete(&self) -> Out {
        self.verb(&["delete", &self.id])
    }

    pub fn delete_force(&self) -> Out {
        self.verb(&["delete", "--force", &self.id])
    }

    pub fn kill(&self, signal: &str) -> Out {
        self.verb(&["kill", &self.id, signal])
    }

    pub fn exec(&self, command: &[&str]) -> Out {
        self.exec_with(&[], command)
    }

    pub fn exec_with(&self, flags: &[&str], command: &[&str]) -> Out {
        self.runtime().args(["exec"]).args(flags).args([self.id.as_str()]).args(command).out()
    }

    /// `exec` of a `process` object.
    pub fn exec_process(&self, flags: &[&str], change: impl FnOnce(&mut Value)) -> Out {
        let mut process = self.bundle.config["process"].clone();
        change(&mut process);
        let file = self.bundle.dir.join("process.json");
        fs::write(&file, process.to_string()).expect("process.json");
        self.runtime().args(["exec", "--process"]).args([&file]).args(flags).args([&self.id]).out()
    }

    #[track_caller]
    pub fn state(&self) -> Value {
        self.verb(&["state", &self.id]).ok().json()
    }

    #[track_caller]
    pub fn status(&self) -> String {
        self.state()["status"].as_str().expect("status").to_string()
    }

    #[track_caller]
    pub fn pid(&self) -> i32 {
        self.state()["pid"].as_i64().expect("pid") as i32
    }

    #[track_caller]
    pub fn wait_for(&self, status: &str) {
        eventually(&format!("{} is {status}", self.id), || self.status() == status);
    }

    /// A file's content in one of the container's cgroups, trimmed.
    pub fn cgroup_file(&self, controller: &str, file: &str) -> Option<String> {
        let path = host::cgroup_dir(controller, &self.cgroup()).join(file);
        fs::read_to_string(path).ok().map(|s| s.trim().to_string())
    }

    /// What a delete should have taken away and didn't.
    pub fn leftovers(&self) -> Vec<String> {
        let mut left = Vec::new();
        let dirs = host::cgroup_dirs(&self.cgroup());
        left.extend(
            dirs.iter()
                .filter(|d| d.join("cgroup.procs").exists())
                .map(|d| format!("cgroup {}", d.display())),
        );
        left.extend(host::mounts_below(&self.bundle.dir).iter().map(|m| format!("mount {}", m.display())));
        left.extend(host::mounts_below(&self.root).iter().map(|m| format!("mount {}", m.display())));
        for entry in fs::read_dir(&self.root).into_iter().flatten().flatten() {
            left.push(format!("state {}", entry.path().display()));
        }
        left
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let run = self.runtime().args(["delete", "--force", &self.id]);
        // A second panic would end the whole test program.
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run.out()));
        for mount in host::mounts_below(&self.bundle.dir) {
            let _ = nix::mount::umount2(&mount, nix::mount::MntFlags::MNT_DETACH);
        }
        let _ = fs::remove_dir_all(&self.bundle.dir);
        let _ = fs::remove_dir_all(&self.root);
    }
}
