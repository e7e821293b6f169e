//! The programs that are compared: a containerd and a dockerd of the measurement's own, with one runtime and one monitor.

use crate::api::Api;
use integration::{host, janitor, Run};
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use serde_json::json;
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Monitor {
    /// containerd's own, in Go.
    Go,
    Hydra,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Stack {
    pub name: &'static str,
    pub runtime: PathBuf,
    pub monitor: Monitor,
    pub live_restore: bool,
    /// Debian's crun refuses hosts on which the v2 hierarchy is mounted beside v1.
    without_unified: bool,
}

/// Every stack that can be had here.
pub fn all() -> Vec<Stack> {
    let stack = |name, runtime: &Path, monitor, live_restore| Stack {
        name,
        runtime: runtime.to_path_buf(),
        monitor,
        live_restore,
        without_unified: false,
    };
    let ours = fs::canonicalize(host::runtime()).expect("the runtime under test");
    let mut stacks = vec![
        stack("runc without live-restore", Path::new("/usr/sbin/runc"), Monitor::Go, false),
        stack("runc", Path::new("/usr/sbin/runc"), Monitor::Go, true),
        stack("Hydra runtime + Go shim", &ours, Monitor::Go, true),
        stack("Hydra", &ours, Monitor::Hydra, true),
    ];
    if let Some(crun) = found("crun") {
        let without_unified = host::cgroups() == host::Cgroups::Hybrid;
        stacks.push(Stack { without_unified, ..stack("crun", &crun, Monitor::Go, true) });
    }
    if let Some(youki) = youki() {
        stacks.push(stack("youki", &youki, Monitor::Go, true));
    }
    stacks.retain(|s| s.runtime.exists());
    stacks
}

/// `YOUKI`, which integration/scripts/figures sets where it could be built.
pub fn youki() -> Option<PathBuf> {
    std::env::var_os("YOUKI").map(PathBuf::from).filter(|p| p.exists()).or_else(|| found("youki"))
}

fn found(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|d| d.join(program)).find(|p| p.exists())
}

/// The daemons of a stack, running.
pub struct Daemons {
    stack: Stack,
    dir: PathBuf,
    bridge: String,
    data: PathBuf,
    /// Keeps a mount namespace for the stack, where it needs one.
    holder: Option<Child>,
    containerd: Option<Child>,
    dockerd: Option<Child>,
    pub api: Api,
}

pub const IMAGE: &str = "servers";

impl Daemons {
    /// Starts both. `data` holds the images of all stacks, which run one after the other.
    pub fn start(stack: &Stack, data: &Path, image: &Path) -> Daemons {
        let dir = janitor::scratch().join("stack");
        let _ = fs::remove_dir_all(&dir);
        let bin = dir.join("bin");
        fs::create_dir_all(&bin).expect("scratch folder");
        if stack.monitor == Monitor::Hydra {
            let shim = stack.runtime.with_file_name("shim");
            symlink(shim, bin.join("containerd-shim-runc-v2")).expect("link to the shim");
        }
        let mut daemons = Daemons {
            stack: stack.clone(),
            api: Api(dir.join("docker.sock")),
            bridge: bridge(),
            data: data.to_path_buf(),
            holder: stack.without_unified.then(host::without_unified),
            containerd: None,
            dockerd: None,
            dir,
        };
        daemons.configure();
        janitor::at_end(&daemons.end());
        daemons.spawn();
        daemons.until_ready();
        daemons.sweep();
        daemons.import(image);
        daemons
    }

    /// The shell line that ends the daemons and their containers if this program could not.
    fn end(&self) -> String {
        let dir = self.dir.display();
        format!(
            "d='docker -H unix://{dir}/docker.sock'; timeout 5 $d ps -aq | xargs -r timeout 100 $d rm -f; \
             kill $(pgrep -f -- '^dockerd .*{dir}/docker.sock|^containerd .*{dir}/containerd.toml'); sleep 2; \
             awk -v d='{}/' 'index($5, d) == 1 {{ print $5 }}' /proc/self/mountinfo | tac | xargs -r umount -l",
            self.data.display()
        )
    }

    fn configure(&self) {
        let dir = self.dir.display();
        let toml = format!(
            "version = 2\nroot = \"{dir}/root\"\nstate = \"{dir}/state\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = \"{dir}/containerd.sock\"\n"
        );
        fs::write(self.dir.join("containerd.toml"), toml).expect("configuration");
        let config = json!({
            "runtimes": { "it": { "path": self.stack.runtime } },
            "default-runtime": "it",
            "live-restore": self.stack.live_restore,
        });
        fs::write(self.dir.join("daemon.json"), config.to_string()).expect("configuration");
    }

    /// Starts the daemons, as an init system would after a crash: dockerd once containerd answers (Debian's units order them so).
    /// Started at once it may find nobody yet, and its client tries again after a whole second. Returns the moment.
    pub fn spawn(&mut self) -> Instant {
        let start = Instant::now();
        let dir = self.dir.display().to_string();
        let containerd = self.command("containerd", &["--config", &format!("{dir}/containerd.toml")]);
        self.containerd = Some(containerd);
        let socket = self.dir.join("containerd.sock");
        while UnixStream::connect(&socket).is_err() && start.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_micros(500));
        }
        let dockerd = self.command(
            "dockerd",
            &[
                "--config-file",
                &format!("{dir}/daemon.json"),
                "--containerd",
                &format!("{dir}/containerd.sock"),
                "--data-root",
                &self.data.display().to_string(),
                "--exec-root",
                &format!("{dir}/exec"),
                "--pidfile",
                &format!("{dir}/pid"),
                "--host",
                &format!("unix://{dir}/docker.sock"),
                "--bridge",
                &self.bridge,
                "--cgroup-parent",
                &format!("/{}/figures", janitor::name()),
                "--iptables=false",
                "--ip6tables=false",
                "--ip-masq=false",
                "--ip-forward=false",
            ],
        );
        self.dockerd = Some(dockerd);
        start
    }

    fn command(&self, program: &str, args: &[&str]) -> Child {
        let log = fs::File::options()
            .append(true)
            .create(true)
            .open(self.dir.join(format!("{program}.log")))
            .expect("log");
        let mut command = match &self.holder {
            Some(holder) => {
                let mut c = Command::new("nsenter");
                c.arg(format!("--mount=/proc/{}/ns/mnt", holder.id())).arg(program);
                c
            }
            None => Command::new(program),
        };
        let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", self.dir.join("bin").display());
        command.args(args).env("PATH", path).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("log")).stderr(log).process_group(0);
        command.spawn().unwrap_or_else(|e| panic!("{program}: {e}"))
    }

    /// Waits until the daemon answers from its restored state.
    pub fn until_ready(&mut self) {
        let start = Instant::now();
        while self.api.get("/containers/json?all=1").is_none() {
            if start.elapsed() > Duration::from_secs(120) {
                let log = fs::read_to_string(self.dir.join("dockerd.log")).unwrap_or_default();
                panic!("{}: dockerd does not answer: {}", self.stack.name, tail(&log));
            }
            std::thread::sleep(Duration::from_micros(500));
        }
    }

    /// SIGKILL for both daemons at once. Their pid files stay behind, as after any crash.
    pub fn crash(&mut self) {
        for child in [&mut self.dockerd, &mut self.containerd].into_iter().flatten() {
            let _ = child.kill();
        }
        for mut child in [self.dockerd.take(), self.containerd.take()].into_iter().flatten() {
            let _ = child.wait();
        }
    }

    /// An orderly end, as a package's upgrade asks for.
    pub fn stop(&mut self) {
        for child in [&mut self.dockerd, &mut self.containerd].into_iter().flatten() {
            let _ = kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM);
            let _ = child.wait();
        }
        (self.dockerd, self.containerd) = (None, None);
    }

    /// Replaces the monitors' programs under the running containers, where that can be done.
    pub fn upgrade_monitors(&self) {
        if self.stack.monitor == Monitor::Hydra {
            Run::new(self.stack.runtime.with_file_name("shim")).args(["upgrade", "--all"]).out();
        }
    }

    /// `docker` with its arguments.
    pub fn docker(&self, args: &[&str]) -> Run {
        let socket = format!("unix://{}", self.api.0.display());
        Run::new("docker").args(["-H", &socket]).args(args).patient(3)
    }

    /// Starts a server in a container; its address.
    pub fn run(&self, name: &str, server: &str) -> String {
        self.docker(&["run", "-d", "--restart", "always", "--name", name, IMAGE, "server", server]).ok();
        self.api.address(name).unwrap_or_else(|| panic!("{name} has no address"))
    }

    /// Removes every container.
    pub fn sweep(&self) {
        let list = self.api.get("/containers/json?all=1").unwrap_or_default();
        let ids: Vec<_> = list.as_array().into_iter().flatten().filter_map(|c| c["Id"].as_str()).collect();
        // Some at a time: there may be hundreds.
        std::thread::scope(|scope| {
            for part in ids.chunks(ids.len().div_ceil(4).max(1)) {
                scope.spawn(move || {
                    for id in part {
                        self.api.delete(&format!("/containers/{id}?force=1&v=1"));
                    }
                });
            }
        });
    }

    fn import(&self, image: &Path) {
        let have = self.api.get(&format!("/images/{IMAGE}:latest/json"));
        let label = fs::read_to_string(image.with_extension("tar.key")).unwrap_or_default();
        let mark = self.data.join("servers.key");
        if have.is_some() && fs::read_to_string(&mark).is_ok_and(|m| m == label) {
            return;
        }
        println!("  importing the image of servers");
        self.docker(&["import", &image.display().to_string(), IMAGE]).patient(4).ok();
        fs::write(mark, label).expect("mark");
    }

    /// Has the image's files in the page cache.
    pub fn warm(&self) {
        crate::launch::warm(&self.data.join("overlay2"));
    }

    /// Memory of the daemons and of all monitors: resident and private-dirty bytes.
    pub fn memory(&self) -> Memory {
        let daemons = [&self.dockerd, &self.containerd].into_iter().flatten().map(|c| c.id() as i32);
        let marker = self.dir.join("containerd.sock").display().to_string();
        let daemons: Vec<i32> = daemons.collect();
        let mut monitors = host::processes_with(&marker);
        monitors.extend(hydra_monitors(&self.dir));
        monitors.sort_unstable();
        monitors.dedup();
        monitors.retain(|p| is_monitor(*p));
        Memory { daemons: sum(&daemons), monitors: sum(&monitors) }
    }

    pub fn exec_root(&self) -> PathBuf {
        self.dir.join("exec")
    }

    pub fn gateway(&self) -> String {
        address_of_bridge()
    }

    pub fn bridge(&self) -> &str {
        &self.bridge
    }
}

impl Drop for Daemons {
    fn drop(&mut self) {
        if self.dockerd.is_none() {
            self.spawn();
            self.until_ready();
        }
        self.sweep();
        self.stop();
        if let Some(mut holder) = self.holder.take() {
            let _ = holder.kill();
            let _ = holder.wait();
        }
        Run::new("ip").args(["link", "del", &self.bridge]).out();
        // dockerd mounts its folder on itself, and leaves that behind once it has been killed.
        Run::new("umount").args(["-l"]).args([&self.data]).out();
    }
}

#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    pub resident: u64,
    pub private: u64,
}

#[derive(Debug, Clone, Copy, Default)]
pub struct Memory {
    pub daemons: Usage,
    pub monitors: Usage,
}

fn sum(pids: &[i32]) -> Usage {
    let mut total = Usage::default();
    for pid in pids {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let value = |name: &str| {
            let line = text.lines().find(|l| l.starts_with(name));
            line.and_then(|l| l.split_whitespace().nth(1)?.parse::<u64>().ok()).unwrap_or(0) * 1024
        };
        total.resident += value("Rss:");
        total.private += value("Private_Dirty:");
    }
    total
}

fn is_monitor(pid: i32) -> bool {
    let exe = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    let name = exe.file_name().unwrap_or_default().to_string_lossy().into_owned();
    name.starts_with("containerd-shim") || name == "shim"
}

/// Monitors of ours are told apart by the containerd whose socket they name.
fn hydra_monitors(dir: &Path) -> Vec<i32> {
    let wanted = dir.display().to_string();
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = all.filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|p| is_monitor(*p))
        .filter(|p| fs::read_link(format!("/proc/{p}/cwd")).is_ok_and(|c| c.starts_with(&wanted)))
        .collect()
}

fn tail(text: &str) -> String {
    text.lines().rev().take(3).collect::<Vec<_>>().join(" / ")
}

fn address_of_bridge() -> String {
    // One of 14 networks of 4,094 addresses each, so that two runs at once seldom meet.
    format!("10.214.{}.1", (std::process::id() % 14 + 1) * 16)
}

fn bridge() -> String {
    let name = format!("hyf{}", std::process::id());
    let address = address_of_bridge();
    let line = format!(
        "ip link del {name} 2>/dev/null; ip link add {name} type bridge && ip addr add {address}/20 dev {name} && ip link set {name} up"
    );
    Run::sh(&line).ok();
    janitor::at_end(&format!("ip link del {name} 2>/dev/null"));
    name
}
