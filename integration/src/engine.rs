//! A Docker of the tests' own: dockerd and its containerd with their own root, state, socket and bridge. The system's
//! Docker, its firewall rules and its cgroups are left alone.

use crate::command::{Out, Run};
use crate::{bundle, host, janitor};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

pub struct Engine {
    dir: PathBuf,
    kind: Kind,
    bridge: String,
}

/// A word for scripts: takes out what terminals and `script` add on their own account.
const CLEAN: &str = r#"clean() { tr -d '\r\0\4\10' | sed 's/\^[@D]//g'; }"#;

/// The image that is there from the start.
pub const IMAGE: &str = "box";

/// The classes of the runtime `classed`, whose default is `gold`.
const CLASSES: &str = "[class.gold.pids]\nlimit = 45\n[class.gold.blkio]\nwrite-bps = \"5MB\"\n\
                       [class.gold.net]\negress-rate = \"8mbit\"\n\
                       [class.limited.net]\negress-rate = \"40mbit\"\ningress-rate = \"40mbit\"\n[class.silver.pids]\nlimit = 35\n";

/// The one engine of this test program, or why there is none.
pub fn engine() -> Result<&'static Engine, &'static str> {
    static ENGINE: OnceLock<Result<Engine, String>> = OnceLock::new();
    ENGINE.get_or_init(|| Engine::start("engine", Kind::Plain)).as_ref().map_err(String::as_str)
}

/// What is special about an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    /// containerd finds our shim under the name of its own.
    OwnShim,
    /// `dockerd -D`, which has every shim and runtime say more.
    Debug,
    /// Ended and started again by a test.
    Restarted,
    /// Killed, with its containerd, and started again by a test: one with our shim under the name of containerd's, one without.
    Killed,
    KilledPeer,
    /// As `Killed`, for another test.
    Away,
    /// Its default runtime is runc.
    Runc,
}

/// An engine for what asks for no runtime by name, as the steps of `docker build`: the first one's peer, with runc as its default.
pub fn by_default_runc() -> Result<&'static Engine, &'static str> {
    static ENGINE: OnceLock<Result<Engine, String>> = OnceLock::new();
    ENGINE.get_or_init(|| Engine::start("runc", Kind::Runc)).as_ref().map_err(String::as_str)
}

/// An engine for the one test that ends and starts its daemon.
pub fn restarted() -> Result<Engine, String> {
    Engine::start("restarted", Kind::Restarted)
}

/// Two engines for the one test that kills their daemons: in the first the runtime `shimmed` is behind our shim, in the second
/// `runc` behind containerd's.
pub fn killed() -> Result<(Engine, Engine), String> {
    Ok((Engine::start("killed", Kind::Killed)?, Engine::start("killed-peer", Kind::KilledPeer)?))
}

/// One engine for a test that kills its daemons: the runtime `shimmed` is behind our shim.
pub fn away() -> Result<Engine, String> {
    Engine::start("away", Kind::Away)
}

/// An engine started with `-D`.
pub fn debugging() -> Result<&'static Engine, &'static str> {
    static ENGINE: OnceLock<Result<Engine, String>> = OnceLock::new();
    ENGINE.get_or_init(|| Engine::start("debugging", Kind::Debug)).as_ref().map_err(String::as_str)
}

/// An engine whose runtime `shimmed` is the program under test behind our shim: the same one where Docker knows a
/// runtime's `runtimeType` (from 24 on), else one that finds our shim under the name of containerd's.
pub fn shimmed() -> Result<&'static Engine, &'static str> {
    static ENGINE: OnceLock<Result<Engine, String>> = OnceLock::new();
    match knows_runtime_types() {
        true => engine(),
        false => {
            ENGINE.get_or_init(|| Engine::start("shimmed", Kind::OwnShim)).as_ref().map_err(String::as_str)
        }
    }
}

fn knows_runtime_types() -> bool {
    let out = Run::new("dockerd").args(["--version"]).out();
    let version = out.stdout.split_whitespace().nth(2).unwrap_or_default();
    version.split('.').next().and_then(|n| n.parse::<u32>().ok()).is_some_and(|n| n >= 24)
}

impl Kind {
    fn bridge(self) -> String {
        let letter = match self {
            Kind::Plain => 'd',
            Kind::OwnShim => 's',
            Kind::Debug => 'D',
            Kind::Restarted => 'r',
            Kind::Killed => 'k',
            Kind::KilledPeer => 'K',
            Kind::Away => 'a',
            Kind::Runc => 'R',
        };
        format!("hy{letter}{}", std::process::id())
    }
}

/// How the line ends that `Engine::kill` leaves in the log.
pub const KILLED: &str = "daemons killed";

impl Engine {
    fn start(name: &str, kind: Kind) -> Result<Engine, String> {
        let engine = Engine { dir: janitor::scratch().join(name), kind, bridge: kind.bridge() };
        let bin = engine.dir.join("bin");
        fs::create_dir_all(&bin).map_err(|e| e.to_string())?;
        let own_shim =
            kind == Kind::OwnShim || (matches!(kind, Kind::Killed | Kind::Away) && !knows_runtime_types());
        engine.register(&bin, own_shim)?;
        engine.make_bridge()?;
        janitor::at_end(&format!("ip link del {}", engine.bridge));
        janitor::at_end(&engine.end());
        engine.launch()?;
        engine.import(IMAGE)?;
        Ok(engine)
    }

    /// Starts the daemon, and waits until it answers.
    pub fn launch(&self) -> Result<(), String> {
        let (dir, bridge) = (self.dir.display(), &self.bridge);
        let log = self.dir.join("log");
        let daemon = format!(
            "PATH={dir}/bin:{} setsid dockerd --config-file {dir}/daemon.json \
             --data-root {dir}/data --exec-root {dir}/exec --pidfile {dir}/pid --host unix://{dir}/docker.sock \
             --bridge {bridge} --iptables=false --ip6tables=false --ip-masq=false --ip-forward=false {} {} \
             >>{} 2>&1 </dev/null &",
            host::path(),
            self.parent(),
            if self.kind == Kind::Debug { "-D" } else { "" },
            log.display()
        );
        Run::sh(&daemon).ok();
        let start = Instant::now();
        while self.docker(&["version"]).code != 0 {
            let text = fs::read_to_string(&log).unwrap_or_default();
            let ended = !self.dir.join("pid").exists() && start.elapsed() > host::patience() / 6;
            if ended || start.elapsed() > host::patience() * 2 {
                let last = text.lines().rev().take(3).collect::<Vec<_>>().join(" / ");
                return Err(format!("dockerd does not start here: {last}"));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// What the daemons have said of a container since the first start, and the lines of `kill`.
    pub fn said_of(&self, id: &str) -> String {
        let log = fs::read(self.dir.join("log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        log.lines().filter(|l| l.contains(id) || l.ends_with(KILLED)).map(|l| format!("{l}\n")).collect()
    }

    /// Ends the daemon and waits for that; its containers are left alone (live restore).
    pub fn halt(&self) {
        let pid = fs::read_to_string(self.dir.join("pid")).expect("the daemon's pid");
        let wait = format!(
            "kill {0}; while [ -d /proc/{0} ] && ! grep -q 'State:.*Z' /proc/{0}/status; do sleep 0.1; done",
            pid.trim()
        );
        Run::sh(&wait).patient(2).ok();
    }

    /// Kills the daemon and its containerd, both at once, and waits for their end. Their pid files go too: a zombie that nobody
    /// has buried yet would count as a daemon that runs.
    pub fn kill(&self) {
        let dir = self.dir.display();
        let kill = format!(
            "echo \"time=$(date -u +%FT%T.%N)Z {KILLED}\" >>{dir}/log; p=\"$(cat {dir}/pid) $(cat {dir}/exec/containerd/containerd.pid)\"; kill -KILL $p; for p in $p; do \
             while [ -d /proc/$p ] && ! grep -q 'State:.*Z' /proc/$p/status; do sleep 0.1; done; done; \
             rm -f {dir}/pid {dir}/exec/containerd/containerd.pid"
        );
        Run::sh(&kill).patient(2).ok();
    }

    /// The runtimes that containers may ask for by name.
    fn register(&self, bin: &Path, own_shim: bool) -> Result<(), String> {
        let runtime =
            fs::canonicalize(host::runtime()).map_err(|e| format!("{}: {e}", host::runtime().display()))?;
        let shim = host::shim();
        if shim.exists() {
            let _ = symlink(&shim, bin.join("containerd-shim-hydra-v2"));
        }
        if own_shim {
            symlink(&shim, bin.join("containerd-shim-runc-v2")).map_err(|e| e.to_string())?;
        }
        let _ = symlink(&runtime, bin.join("runtime"));
        // "hydra" is the name README tells people to use.
        let own = serde_json::json!({ "path": runtime });
        let mut runtimes = serde_json::json!({ "tested": own, "hydra": own });
        // One runtime for a class, as a Docker without annotations wants it.
        let classes = self.dir.join("hydra.toml");
        fs::write(&classes, CLASSES).map_err(|e| e.to_string())?;
        for (name, class) in [("classed", "gold"), ("limited", "limited")] {
            runtimes[name] = serde_json::json!({
                "path": runtime, "runtimeArgs": ["--config", classes, "--default-class", class]
            });
        }
        if own_shim {
            runtimes["shimmed"] = own;
        } else if knows_runtime_types() {
            runtimes["shimmed"] = serde_json::json!({ "runtimeType": "io.containerd.hydra.v2" });
        }
        if Path::new("/usr/bin/crun").exists() && host::cgroups() != host::Cgroups::Hybrid {
            runtimes["crun"] = serde_json::json!({ "path": "/usr/bin/crun" });
        }
        // Experimental: `docker checkpoint`.
        let default = if self.kind == Kind::Runc { "runc" } else { "tested" };
        let config = serde_json::json!({
            "runtimes": runtimes, "default-runtime": default, "live-restore": true, "experimental": true
        });
        fs::write(self.dir.join("daemon.json"), config.to_string()).map_err(|e| e.to_string())
    }

    /// Its address is said: else it is that of one of its members and changes with them, and connections to it stall.
    fn make_bridge(&self) -> Result<(), String> {
        let name = &self.bridge;
        // A subnet that no other test program uses at the same time.
        let (second, third) = (213 + self.kind as u32, std::process::id() % 250);
        let script = format!(
            "ip link add {name} address 02:42:0a:{second:02x}:{third:02x}:01 type bridge && \
             ip addr add 10.{second}.{third}.1/24 dev {name} && ip link set {name} up"
        );
        match Run::sh(&script).out() {
            out if out.code == 0 => Ok(()),
            out => Err(format!("no bridge can be made: {}", out.stderr.trim())),
        }
    }

    fn parent(&self) -> String {
        let systemd = Path::new("/run/systemd/system").exists();
        match systemd {
            true => "--exec-opt native.cgroupdriver=systemd".to_string(),
            false => format!("--cgroup-parent /{}/engine", janitor::name()),
        }
    }

    /// The shell line that ends the daemons and all their containers: by way of dockerd where that lives, and then what is left
    /// of them, whose monitors and runtimes know them by the same names.
    fn end(&self) -> String {
        let dir = self.dir.display();
        let (runtime, shim) = (host::runtime().display().to_string(), host::shim().display().to_string());
        let docker = format!("timeout 60 docker -H unix://{dir}/docker.sock");
        format!(
            "{docker} ps -aq | xargs -r {docker} rm -f; {docker} network prune -f; p=$(cat {dir}/pid); kill $p; \
             for i in $(seq 300); do [ -n \"$p\" -a -d /proc/$p ] || break; sleep 0.1; done; \
             c=$(cat {dir}/exec/containerd/containerd.pid); kill $p $c; sleep 0.5; kill -KILL $p $c; \
             pkill -KILL -f -- '-address {dir}/exec/containerd/containerd.sock'; \
             for c in {dir}/data/containers/*; do [ -d $c ] || continue; c=${{c##*/}}; \
             for i in $(seq 50); do pkill -KILL -f -- \"^shim monitor moby/$c$\" || break; done; \
             for r in {dir}/exec/runtime-*/moby /run/containerd/hydra/moby; do [ -d $r/$c ] && {runtime} --root $r delete --force $c; done; \
             {shim} forget --namespace moby $c; done"
        )
    }

    /// `docker` with its arguments.
    #[track_caller]
    pub fn docker(&self, args: &[&str]) -> Out {
        self.cli().args(args).out()
    }

    pub fn cli(&self) -> Run {
        Run::new("docker").args(["-H", &self.socket()]).patient(2)
    }

    pub fn socket(&self) -> String {
        format!("unix://{}/docker.sock", self.dir.display())
    }

    /// containerd's socket, for `ctr`. Where a containerd of the system's runs, dockerd uses it and starts none of its own.
    pub fn containerd(&self) -> PathBuf {
        let own = self.dir.join("exec/containerd/containerd.sock");
        match own.exists() {
            true => own,
            false => "/run/containerd/containerd.sock".into(),
        }
    }

    /// What containerd runs a container from, in a namespace of its: Docker's is `moby`, that of `ctr` is `default`.
    pub fn bundle(&self, namespace: &str, id: &str) -> PathBuf {
        let own = self.dir.join("exec/containerd/daemon");
        let state = if own.exists() { own } else { "/run/containerd".into() };
        state.join("io.containerd.runtime.v2.task").join(namespace).join(id)
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A line of shell in which `$D` is docker, `$R` the runtime's name, `$N` a name for containers, `clean`
    /// a filter for what comes from terminals.
    #[track_caller]
    pub fn script(&self, script: &str, runtime: &str, name: &str) -> Out {
        Run::new("bash")
            .args(["-c", &format!("{CLEAN}; {script}")])
            .env("D", format!("docker -H {}", self.socket()))
            .env("DOCKER_HOST", self.socket())
            .env("DOCKER_BUILDKIT", "0")
            .env("R", runtime)
            .env("N", name)
            .env("I", IMAGE)
            .dir(&self.dir)
            .patient(3)
            .out()
    }

    /// Makes an image out of busybox.
    fn import(&self, name: &str) -> Result<(), String> {
        let line = format!(
            "tar -C {} -c . | docker -H {} import - {name}",
            bundle::template().display(),
            self.socket()
        );
        match Run::sh(&line).patient(3).out() {
            out if out.code == 0 => Ok(()),
            out => Err(format!("no image can be imported: {}", out.stderr.trim())),
        }
    }
}
