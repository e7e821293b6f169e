//! A pod by containerd's CRI service, as a kubelet asks for it: two containers under the runtime handler `hydra`.

use integration::engine::{engine, IMAGE};
use integration::grpc;
use integration::ttrpc::Message;
use integration::{command::Started, eventually, host, janitor, Peer, Run};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where Debian's package has the network plugins.
const PLUGINS: &str = "/usr/lib/cni";

/// A containerd of the test's own.
pub struct Containerd {
    dir: PathBuf,
}

/// The runtime `hydra` as this containerd's own form of configuration has it.
pub fn ours() -> String {
    let plugin =
        if host::containerd() < 2 { "io.containerd.grpc.v1.cri" } else { "io.containerd.cri.v1.runtime" };
    format!(
        r#"[plugins."{plugin}".containerd.runtimes.hydra]
runtime_type = "io.containerd.hydra.v2"
pod_annotations = ["hydra.*", "hydra-shim.*"]
container_annotations = ["hydra.*", "hydra-shim.*"]
"#
    )
}

impl Containerd {
    /// `runtimes` is the part of its configuration that tells of the runtime `hydra`, for containerd 1 or for containerd 2, which reads
    /// both forms; `letter` makes names its own.
    pub fn new(letter: char, runtimes: &str) -> Containerd {
        let dir = janitor::scratch().join(format!("cri{letter}"));
        let bin = dir.join("bin");
        fs::create_dir_all(&bin).unwrap();
        fs::create_dir_all(dir.join("net")).unwrap();
        std::os::unix::fs::symlink(host::shim(), bin.join("containerd-shim-hydra-v2")).unwrap();
        let d = dir.display();
        let cri = if runtimes.contains("io.containerd.grpc.v1.cri") {
            format!(
                r#"version = 2
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "docker.io/library/pause:latest"
restrict_oom_score_adj = true
disable_tcp_service = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{PLUGINS}"
conf_dir = "{d}/net"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "native"
default_runtime_name = "hydra"
"#
            )
        } else {
            format!(
                r#"version = 3
[plugins."io.containerd.cri.v1.images"]
snapshotter = "native"
pinned_images.sandbox = "docker.io/library/pause:latest"
[plugins."io.containerd.grpc.v1.cri"]
disable_tcp_service = true
[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = true
[plugins."io.containerd.cri.v1.runtime".cni]
bin_dir = "{PLUGINS}"
conf_dir = "{d}/net"
[plugins."io.containerd.cri.v1.runtime".containerd]
default_runtime_name = "hydra"
"#
            )
        };
        let (version, cri) = cri.split_once('\n').expect("lines");
        let config = format!(
            r#"{version}
root = "{d}/root"
state = "{d}/state"
[grpc]
address = "{d}/c.sock"
[plugins."io.containerd.internal.v1.opt"]
path = "{d}/opt"
[plugins."io.containerd.nri.v1.nri"]
disable = true
{cri}{runtimes}"#
        );
        fs::write(dir.join("config.toml"), config).unwrap();
        let (bridge, third) = (format!("hy{letter}{}", std::process::id()), std::process::id() % 250);
        let second = 100 + u32::from(letter) - u32::from('a');
        let net = format!(
            r#"{{"cniVersion":"0.4.0","name":"pods","plugins":[{{"type":"bridge","bridge":"{bridge}","isGateway":true,
            "ipam":{{"type":"host-local","dataDir":"{d}/ipam","ranges":[[{{"subnet":"10.{second}.{third}.0/24"}}]]}}}}]}}"#
        );
        fs::write(dir.join("net/10-pods.conflist"), net).unwrap();
        janitor::at_end(&format!("ip link del {bridge}"));
        janitor::at_end(&format!(
            "for i in 1 2 3; do pkill -KILL -f -- '{d}/config.toml'; pkill -KILL -f -- 'monitor k8s.io/pod-of-none'; done"
        ));
        let containerd = Containerd { dir };
        containerd.start();
        containerd
    }

    pub fn start(&self) {
        let d = self.dir.display();
        let line = format!(
            "PATH={d}/bin:{} setsid containerd --config {d}/config.toml >>{d}/log 2>&1 </dev/null & echo $! >{d}/pid",
            host::path()
        );
        Run::sh(&line).ok();
        let (start, version) = (Instant::now(), "runtime.v1.RuntimeService/Version");
        while let Err(e) = grpc::call(&self.socket(), version, &Message::new()) {
            assert!(start.elapsed() < host::patience(), "containerd's CRI service: {e}\n{}", self.errors());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// As a crash: nothing is told to anybody.
    pub fn kill(&self) {
        Run::sh(&format!("pkill -KILL -f -- '{}/config.toml'", self.dir.display())).out();
    }

    /// `ctr events` of a namespace, once it listens.
    pub fn events(&self, namespace: &str) -> Started {
        let events =
            Run::new("ctr").args(["-a"]).args([self.socket()]).args(["-n", namespace, "events"]).start();
        let label =
            format!("ctr -a {} -n {namespace} namespaces label {namespace} listens", self.socket().display());
        let mut n = 0;
        eventually("ctr hears of events", || {
            n += 1;
            Run::sh(&format!("{label}={n}")).ok();
            events.stdout().contains("/namespaces/update")
        });
        events
    }

    /// The images of pods: the tests' own, and one that only sleeps.
    pub fn import(&self) {
        let images = format!(
            "echo FROM {IMAGE} >pause; echo 'CMD [\"sleep\", \"1000000\"]' >>pause; $D build -q -t pause - <pause >/dev/null;
             $D save {IMAGE} pause | ctr -a {} -n k8s.io images import - >/dev/null",
            self.socket().display()
        );
        engine().expect("an engine").script(&images, "", "").ok();
    }

    /// A pod of one container under the handler of that name: the container's id, and how to take the pod away.
    /// `parent` is the pod's cgroup, in the words of the handler's driver.
    pub fn pod(&self, handler: &str, parent: &str, script: &str) -> (String, Message) {
        let logs = self.dir.join("logs");
        fs::create_dir_all(&logs).unwrap();
        let config = pod(&logs, "container", parent);
        let sandbox =
            self.call("RunPodSandbox", &Message::new().message(1, &config).text(2, handler)).get_text(1);
        let request = Message::new().text(1, &sandbox).message(2, &container("one", script, "container"));
        let id = self.call("CreateContainer", &request.message(3, &config)).get_text(1);
        self.call("StartContainer", &Message::new().text(1, &id));
        (id, Message::new().text(1, &sandbox))
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.join("c.sock")
    }

    #[track_caller]
    pub fn call(&self, method: &str, request: &Message) -> Message {
        match grpc::call(&self.socket(), &format!("runtime.v1.RuntimeService/{method}"), request) {
            Ok(answer) => answer,
            Err(e) => panic!("{e}\n{}", self.errors()),
        }
    }

    /// The last of its log.
    fn errors(&self) -> String {
        let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        let last = log.lines().rev().filter(|l| l.contains("level=error") || l.contains("level=fatal"));
        last.take(3).collect::<Vec<_>>().join("\n")
    }

    pub fn exec(&self, container: &str, command: &[&str]) -> (String, u64) {
        let request = command.iter().fold(Message::new().text(1, container), |m, word| m.text(2, word));
        let answer = self.call("ExecSync", &request.number(3, 30));
        (answer.get_text(1), answer.get(3))
    }

    /// Created 0, running 1, exited 2; and the exit code.
    fn status(&self, container: &str) -> (u64, u64) {
        let status = self.call("ContainerStatus", &Message::new().text(1, container)).get_message(1);
        (status.get(3), status.get(7))
    }
}

fn pair(key: &str, value: &str) -> Message {
    Message::new().text(1, key).text(2, value)
}

/// A cgroup for pods, where no systemd minds.
pub fn parent() -> String {
    format!("/{}/pods", janitor::name())
}

/// The configuration of the pod, with knobs as annotations.
fn pod(logs: &Path, group: &str, parent: &str) -> Message {
    let metadata =
        Message::new().text(1, "pod").text(2, &format!("uid-{group}")).text(3, "default").number(4, 0);
    Message::new()
        .message(1, &metadata)
        .text(2, "pod")
        .text(3, logs.to_str().unwrap())
        // A server of names: else containerd wants the host's list of them, which not every host has.
        .message(4, &Message::new().text(1, "127.0.0.1"))
        .message(7, &pair("hydra-shim.group", group))
        .message(7, &pair("hydra.pids.limit", "99"))
        .message(8, &Message::new().text(1, parent))
}

fn container(name: &str, script: &str, group: &str) -> Message {
    Message::new()
        .message(1, &Message::new().text(1, name))
        .message(2, &Message::new().text(1, &format!("docker.io/library/{IMAGE}:latest")))
        .text(3, "sh")
        .text(4, "-c")
        .text(4, script)
        .message(10, &pair("hydra.pids.limit", "88"))
        .message(10, &pair("hydra-shim.group", group))
        .text(11, &format!("{name}.log"))
        .message(15, &Message::new())
}

/// Processes of monitors that serve one of these containers.
fn monitors(ids: &[&String]) -> usize {
    let serves = |pid: &i32| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|e| e.ends_with("shim"));
    let mut pids: Vec<i32> =
        ids.iter().flat_map(|id| host::processes_with(&format!("k8s.io/{id}"))).filter(serves).collect();
    pids.sort_unstable();
    pids.dedup();
    pids.len()
}

fn a_pod_lives(containerd: &Containerd, group: &str) {
    let logs = containerd.dir.join(format!("logs-{group}"));
    fs::create_dir_all(&logs).unwrap();
    let config = pod(&logs, group, &parent());
    let request = Message::new().message(1, &config).text(2, "hydra");
    let sandbox = containerd.call("RunPodSandbox", &request).get_text(1);
    let mut ids = vec![sandbox.clone()];
    let server = "echo server is up; mkdir /w; echo page >/w/index.html; httpd -f -h /w -p 8080";
    let scripts = [
        ("server", server),
        ("worker", "trap 'echo told; exit 7' TERM; echo up; while :; do sleep 0.1; done"),
        ("ender", "while [ ! -e /end ]; do sleep 0.1; done; exit 9"),
    ];
    for (name, script) in scripts {
        let request =
            Message::new().text(1, &sandbox).message(2, &container(name, script, group)).message(3, &config);
        let id = containerd.call("CreateContainer", &request).get_text(1);
        containerd.call("StartContainer", &Message::new().text(1, &id));
        ids.push(id);
    }
    let (server, worker, ender) = (&ids[1], &ids[2], &ids[3]);
    // One network, one hostname.
    eventually("the containers share the pod's network", || {
        let (page, code) = containerd.exec(worker, &["wget", "-qO-", "http://127.0.0.1:8080/"]);
        (page.as_str(), code) == ("page\n", 0)
    });
    assert_eq!(containerd.exec(worker, &["sh", "-c", "hostname; exit 5"]), ("pod\n".into(), 5));
    // The knobs that were annotations hold, where no resource was asked for.
    let limit = "cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null | head -1";
    assert_eq!(containerd.exec(worker, &["sh", "-c", limit]).0, "88\n");
    assert_eq!(monitors(&ids.iter().collect::<Vec<_>>()), if group == "pod" { 2 } else { 8 });
    containerd.kill();
    assert_eq!(monitors(&ids.iter().collect::<Vec<_>>()), if group == "pod" { 2 } else { 8 });
    let rootfs = format!("state/io.containerd.runtime.v2.task/k8s.io/{ender}/rootfs");
    fs::write(containerd.dir.join(rootfs).join("end"), "").unwrap();
    Run::new(host::runtime()).args(["wait", ender]).out().exits(9);
    containerd.start();
    assert_eq!((containerd.status(server).0, containerd.status(worker).0), (1, 1), "running still");
    assert_eq!(containerd.status(ender), (2, 9), "how it ended while containerd was away");
    assert_eq!(containerd.exec(server, &["echo", "back"]), ("back\n".into(), 0));
    containerd.call("StopContainer", &Message::new().text(1, worker).number(2, 20));
    assert_eq!(containerd.status(worker), (2, 7), "its own exit code");
    let text = fs::read_to_string(logs.join("worker.log")).unwrap();
    assert!(text.contains("stdout F up") && text.contains("stdout F told"), "{text}");
    assert!(fs::read_to_string(logs.join("server.log")).unwrap().contains("stdout F server is up"));
    containerd.call("StopPodSandbox", &Message::new().text(1, &sandbox));
    assert_eq!(containerd.status(server), (2, 137));
    containerd.call("RemovePodSandbox", &Message::new().text(1, &sandbox));
    eventually("no monitor is left", || monitors(&ids.iter().collect::<Vec<_>>()) == 0);
    for id in &ids {
        assert!(!Path::new("/run/hydra-shim/k8s.io").join(id).exists(), "what the monitor of {id} kept");
    }
}

/// Whether pods can be had here, or why not.
pub fn ready() -> Result<(), &'static str> {
    if !Path::new(PLUGINS).join("bridge").exists() {
        return Err("the package containernetworking-plugins is not installed");
    }
    engine().map(drop)
}

#[test]
fn pods_live_through_a_restart_of_containerd() {
    if integration::peer() != Peer::Hydra {
        integration::skip!("the shim is ours");
    }
    if host::lacks(&["pidfd"]) {
        integration::skip!("the monitor needs pidfds");
    }
    if let Err(reason) = ready() {
        integration::skip!("{reason}");
    }
    let containerd = Containerd::new('p', &ours());
    containerd.import();
    for group in ["container", "pod"] {
        a_pod_lives(&containerd, group);
    }
    containerd.kill();
}
