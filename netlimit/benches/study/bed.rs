//! The bed: container, host, peer. All of it goes when the bed is dropped.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// Runs a command and wants it to succeed.
pub fn run(line: &str) {
    if let Err(e) = attempt(line) {
        panic!("{e}");
    }
}

/// Runs a command; the error is what it said.
pub fn attempt(line: &str) -> Result<String, String> {
    let mut words = line.split_whitespace();
    let out = Command::new(words.next().unwrap_or_default()).args(words).output();
    let out = out.map_err(|e| format!("{line}: {e}"))?;
    match out.status.success() {
        true => Ok(String::from_utf8_lossy(&out.stdout).into_owned()),
        false => Err(format!("{line}: {}", String::from_utf8_lossy(&out.stderr).trim())),
    }
}

/// A process that ends when this goes.
pub struct Job(pub Child);

impl Drop for Job {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Job {
    /// Waits for its end and returns what it printed.
    pub fn output(mut self) -> String {
        let out = self.0.stdout.take().map(|mut o| {
            let mut text = String::new();
            let _ = std::io::Read::read_to_string(&mut o, &mut text);
            text
        });
        let _ = self.0.wait();
        out.unwrap_or_default()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Container,
    Peer,
}

pub struct Bed {
    container: Job,
    peer: Job,
    line: Option<Job>,
    pub cgroup: PathBuf,
}

/// A network namespace that lasts as long as its process.
fn namespace() -> Job {
    let holder = Job(Command::new("unshare").args(["-n", "sleep", "10000"]).spawn().expect("unshare(1)"));
    let own = fs::read_link("/proc/self/ns/net").expect("own namespace");
    while fs::read_link(format!("/proc/{}/ns/net", holder.0.id())).is_ok_and(|l| l == own) {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    holder
}

pub fn cgroup2() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    mounts.lines().find_map(|l| {
        let mut f = l.split(' ').skip(1);
        let (dir, kind) = (f.next()?, f.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(dir))
    })
}

impl Bed {
    /// `round_trip` in milliseconds; 0: a veth.
    pub fn new(round_trip: u64) -> Bed {
        let cgroup = cgroup2().expect("checked").join(format!("netlimit-study-{}", std::process::id()));
        fs::create_dir_all(&cgroup).expect("a cgroup");
        let mut bed = Bed { container: namespace(), peer: namespace(), line: None, cgroup };
        // Else IPv6 is quiet for two seconds, until it is sure that no other has its link-local addresses.
        let at_once = "sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0";
        run(at_once);
        bed.inside(Place::Container, at_once);
        bed.inside(Place::Peer, at_once);
        run("ip link set lo up");
        run(&format!("ip link add h0 type veth peer name eth0 netns {}", bed.pid(Place::Container)));
        match round_trip {
            0 => run(&format!("ip link add h1 type veth peer name eth0 netns {}", bed.pid(Place::Peer))),
            ms => bed.line = Some(bed.line(ms / 2)),
        }
        for (device, net, place) in [("h0", 7, Place::Container), ("h1", 8, Place::Peer)] {
            run(&format!("ip addr add 10.7{net}.0.1/24 dev {device}"));
            run(&format!("ip -6 addr add fd7{net}::1/64 dev {device} nodad"));
            run(&format!("ip link set {device} up"));
            bed.inside(place, "ip link set lo up");
            bed.inside(place, &format!("ip addr add 10.7{net}.0.2/24 dev eth0"));
            bed.inside(place, &format!("ip -6 addr add fd7{net}::2/64 dev eth0 nodad"));
            bed.inside(place, "ip link set eth0 up");
            bed.inside(place, &format!("ip route add default via 10.7{net}.0.1"));
            bed.inside(place, &format!("ip -6 route add default via fd7{net}::1"));
            // What one method's connection has learnt must not help the next one's.
            bed.inside(
                place,
                "sysctl -qw net.ipv4.tcp_no_metrics_save=1 net.ipv4.ping_group_range=0\t2147483647",
            );
        }
        run("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        bed
    }

    fn line(&self, delay: u64) -> Job {
        let me = std::env::current_exe().expect("own path");
        let mut line = Command::new(me)
            .args(["agent", "line", "h1", &self.pid(Place::Peer).to_string(), &delay.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let out = line.stdout.take().expect("piped");
        let mut ready = String::new();
        BufReader::new(out).read_line(&mut ready).expect("reads");
        assert_eq!(ready.trim(), "ready", "the line");
        Job(line)
    }

    pub fn pid(&self, place: Place) -> u32 {
        match place {
            Place::Container => self.container.0.id(),
            Place::Peer => self.peer.0.id(),
        }
    }

    pub fn netns(&self) -> File {
        File::open(format!("/proc/{}/ns/net", self.pid(Place::Container))).expect("the namespace")
    }

    pub fn address(place: Place, v6: bool) -> &'static str {
        match (place, v6) {
            (Place::Container, false) => "10.77.0.2",
            (Place::Container, true) => "fd77::2",
            (Place::Peer, false) => "10.78.0.2",
            (Place::Peer, true) => "fd78::2",
        }
    }

    /// Runs a command in a namespace and wants it to succeed.
    pub fn inside(&self, place: Place, line: &str) {
        let pid = self.pid(place).to_string();
        let out = Command::new("nsenter").args(["-t", &pid, "-n", "--"]).args(line.split(' ')).output();
        let out = out.expect("nsenter(1)");
        assert!(out.status.success(), "{line}: {}", String::from_utf8_lossy(&out.stderr));
    }

    /// A command in a namespace; the container's are in its cgroup too.
    pub fn command(&self, place: Place, program: &str) -> Command {
        let pid = self.pid(place).to_string();
        let mut c = Command::new("sh");
        match place {
            Place::Container => {
                let enter =
                    r#"echo $$ > "$1/cgroup.procs" && n=$2 && shift 2 && exec nsenter -t "$n" -n -- "$@""#;
                c.args(["-c", enter, "sh"]).arg(&self.cgroup).arg(pid);
            }
            Place::Peer => {
                c.args(["-c", r#"n=$1 && shift && exec nsenter -t "$n" -n -- "$@""#, "sh"]).arg(pid);
            }
        }
        c.arg(program).stdin(Stdio::null());
        c
    }

    pub fn agent(&self, place: Place, args: &[&str]) -> Job {
        let me = std::env::current_exe().expect("own path");
        let mut c = self.command(place, me.to_str().expect("a path of text"));
        Job(c.arg("agent").args(args).stdout(Stdio::piped()).spawn().expect("starts"))
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.line = None;
        for device in ["h0", "h1", "ifb0"] {
            let _ = attempt(&format!("ip link del {device}"));
        }
        for job in [&mut self.container, &mut self.peer] {
            let _ = job.0.kill();
            let _ = job.0.wait();
        }
        for _ in 0..200 {
            if fs::remove_dir(&self.cgroup).is_ok() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}
