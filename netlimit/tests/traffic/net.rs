//! Namespaces, veths, cgroups; all of them go when the case ends.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use netlimit::{Limits, Network, Record, Target};

/// Runs a command and wants it to succeed.
pub fn run(line: &str) -> String {
    let mut words = line.split_whitespace();
    let out = Command::new(words.next().expect("a command")).args(words).output();
    let out = out.unwrap_or_else(|e| panic!("{line}: {e}"));
    assert!(out.status.success(), "{line}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

pub fn has(tool: &str) -> bool {
    Command::new(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

fn cgroup2() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    mounts.lines().find_map(|l| {
        let mut f = l.split(' ').skip(1);
        let (dir, kind) = (f.next()?, f.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(dir))
    })
}

/// The host's namespace: what has to be there.
pub fn prepare_host() -> Result<(), String> {
    if !has("ip") || !has("nsenter") {
        return Err("ip or nsenter isn't installed".into());
    }
    if cgroup2().is_none() {
        return Err("no cgroup2 hierarchy is mounted".into());
    }
    let probe = Container::new(Network::Private);
    let limits = Limits { count_loopback: Some(false), ..Limits::default() };
    match netlimit::attach(&limits, &probe.target()) {
        Ok(record) => netlimit::detach(&record).map_err(|e| e.to_string()),
        Err(e) => Err(e.to_string()),
    }
}

static NEXT: AtomicU32 = AtomicU32::new(1);

/// A network namespace behind a veth `h<N>`/`eth0` with 10.77.N.1 (host) and 10.77.N.2, fd77:N::1 and ::2, and a
/// cgroup. Nothing runs in the cgroup but what [`Container::command`] starts.
pub struct Container {
    pub n: u32,
    holder: Child,
    pub cgroup: PathBuf,
    pub network: Network,
}

impl Container {
    pub fn new(network: Network) -> Container {
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let cgroup = cgroup2().expect("checked").join(format!("netlimit-test-{}-{n}", std::process::id()));
        fs::create_dir(&cgroup).expect("a cgroup");
        let holder = Command::new("unshare").args(["-n", "sleep", "1000"]).spawn().expect("unshare");
        let own = fs::read_link("/proc/self/ns/net").expect("own namespace");
        while fs::read_link(format!("/proc/{}/ns/net", holder.id())).is_ok_and(|l| l == own) {
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        Container { n, holder, cgroup, network }
    }

    /// With the veth up.
    pub fn wired(network: Network) -> Container {
        let c = Container::new(network);
        let (n, pid) = (c.n, c.holder.id());
        run("ip link set lo up");
        run(&format!("ip link add h{n} type veth peer name eth0 netns {pid}"));
        run(&format!("ip addr add 10.77.{n}.1/24 dev h{n}"));
        run(&format!("ip -6 addr add fd77:{n}::1/64 dev h{n} nodad"));
        run(&format!("ip link set h{n} up"));
        c.inside("ip link set lo up");
        c.inside(&format!("ip addr add 10.77.{n}.2/24 dev eth0"));
        c.inside(&format!("ip -6 addr add fd77:{n}::2/64 dev eth0 nodad"));
        c.inside("ip link set eth0 up");
        c
    }

    pub fn host_address(&self) -> String {
        format!("10.77.{}.1", self.n)
    }

    pub fn address(&self) -> String {
        format!("10.77.{}.2", self.n)
    }

    pub fn netns(&self) -> File {
        File::open(format!("/proc/{}/ns/net", self.holder.id())).expect("the namespace")
    }

    pub fn pid(&self) -> u32 {
        self.holder.id()
    }

    pub fn target(&self) -> Target<'_> {
        Target { cgroup2: Some(&self.cgroup), net_cls: None, net_prio: None, network: self.network }
    }

    /// Both the cgroup's and the host's side.
    pub fn limit(&self, limits: &Limits) -> Record {
        let mut record = netlimit::attach(limits, &self.target()).expect("attaches");
        netlimit::attach_links(&mut record, self.netns().as_fd()).expect("attaches to the links");
        record
    }

    /// A command in the namespace and the cgroup.
    pub fn command(&self, program: &str) -> Command {
        self.command_in(self, program)
    }

    /// A command in this cgroup and in another one's namespace.
    fn command_in(&self, other: &Container, program: &str) -> Command {
        let mut c = Command::new("sh");
        let enter = r#"echo $$ > "$1/cgroup.procs" && n=$2 && shift 2 && exec nsenter -t "$n" -n -- "$@""#;
        c.args(["-c", enter, "sh"]).arg(&self.cgroup).arg(other.holder.id().to_string()).arg(program);
        c
    }

    /// A command in the namespace, but not in the cgroup.
    pub fn inside(&self, line: &str) -> String {
        run(&format!("nsenter -t {} -n -- {line}", self.holder.id()))
    }

    /// One of our senders, in the container.
    pub fn sender(&self, args: &[&str]) -> Background {
        self.sender_in(self, args)
    }

    /// In the namespace, but not in the cgroup.
    pub fn stranger(&self, args: &[&str]) -> Background {
        let me = std::env::current_exe().expect("own path");
        let mut c = Command::new("nsenter");
        c.args(["-t", &self.holder.id().to_string(), "-n", "--"]).arg(me).arg("send").args(args);
        Background(c.stdout(Stdio::piped()).spawn().expect("starts"))
    }

    /// In this cgroup, but in another one's namespace.
    pub fn sender_in(&self, other: &Container, args: &[&str]) -> Background {
        let me = std::env::current_exe().expect("own path");
        let mut c = self.command_in(other, me.to_str().expect("a path of text"));
        Background(c.arg("send").args(args).stdout(Stdio::piped()).spawn().expect("starts"))
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
        let _ =
            Command::new("ip").args(["link", "del", &format!("h{}", self.n)]).stderr(Stdio::null()).status();
        for _ in 0..200 {
            match fs::remove_dir(&self.cgroup) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    std::thread::sleep(std::time::Duration::from_millis(10));
                }
                _ => break,
            }
        }
    }
}

/// One of our senders, on the host.
pub fn host_sender(args: &[&str]) -> Background {
    let me = std::env::current_exe().expect("own path");
    Background(Command::new(me).arg("send").args(args).stdout(Stdio::piped()).spawn().expect("starts"))
}

/// A process that ends with the case.
pub struct Background(pub Child);

impl Background {
    pub fn output(mut self) -> String {
        use std::io::Read;
        let mut text = String::new();
        if let Some(mut out) = self.0.stdout.take() {
            let _ = out.read_to_string(&mut text);
        }
        let _ = self.0.wait();
        text
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
