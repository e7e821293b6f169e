//! The first paper's subject: limits on a running container, asked for and achieved, over time.

use crate::rows::Sheet;
use crate::stack::{Daemons, IMAGE};
use crate::Plan;
use integration::{host, janitor, Run};
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const HEADER: &str = "pass,kind,from,until,asked,achieved";

/// How long the counters run between two looks. A TCP sender that a policer stops comes in bursts some 200 ms apart, the
/// least time after which it sends lost data again: looked at more often, the picture is of TCP and not of the limit.
const LOOK: Duration = Duration::from_millis(500);

pub fn measure(plan: &Plan, daemons: &Daemons, pass: u32) -> Vec<Sheet> {
    let mut sheet = Sheet::new("limits.csv", HEADER);
    network(plan, daemons, pass, &mut sheet);
    block(plan, daemons, pass, &mut sheet);
    daemons.sweep();
    vec![sheet]
}

/// A limit that is changed every few seconds, and what is counted meanwhile.
struct Course<'a> {
    plan: &'a Plan,
    daemons: &'a Daemons,
    pass: u32,
    kind: &'a str,
    flag: &'a str,
    /// Bytes in one unit of the limit.
    scale: f64,
    count: &'a dyn Fn() -> f64,
}

impl Course<'_> {
    /// `asked`: the number, and how it is said to `update`.
    fn follow(&self, asked: &[(f64, &str)], sheet: &mut Sheet) {
        let step = Duration::from_secs_f64(self.plan.pick(&[8.0], &[1.5])[0]);
        // The first limit is there before the first look.
        update(self.daemons, &[self.flag, asked[0].1]);
        let start = Instant::now();
        let (mut last, mut at) = ((self.count)(), start);
        for (number, value) in asked {
            update(self.daemons, &[self.flag, value]);
            let begin = Instant::now();
            while begin.elapsed() < step {
                std::thread::sleep(LOOK);
                let (now, time) = ((self.count)(), Instant::now());
                let rate = (now - last) / (time - at).as_secs_f64() / self.scale;
                let [from, until] = [at, time].map(|t| format!("{:.3}", (t - start).as_secs_f64()));
                sheet.add(&[&self.pass, &self.kind, &from, &until, number, &format!("{rate:.3}")]);
                (last, at) = (now, time);
            }
        }
    }
}

fn update(daemons: &Daemons, flags: &[&str]) {
    let id = daemons.api.get("/containers/limited/json").unwrap_or_default()["Id"]
        .as_str()
        .unwrap_or_default()
        .to_string();
    let root = daemons.exec_root().join("runtime-runc/moby");
    Run::new(host::runtime()).args(["--root"]).args([root]).args(["update"]).args(flags).args([id]).ok();
}

fn network(plan: &Plan, daemons: &Daemons, pass: u32, sheet: &mut Sheet) {
    let gateway = daemons.gateway();
    let script = format!("until iperf3 -c {gateway} -t 1000 >/dev/null 2>&1; do sleep 0.2; done");
    // The one algorithm that every network namespace may choose; the default may pace by itself (bbr).
    let reno = "net.ipv4.tcp_congestion_control=reno";
    daemons.docker(&["run", "-d", "--name", "limited", "--sysctl", reno, IMAGE, "sh", "-c", &script]).ok();
    let counter = format!("/sys/class/net/{}/statistics/rx_bytes", daemons.bridge());
    let bytes = || fs::read_to_string(&counter).ok().and_then(|t| t.trim().parse().ok()).unwrap_or(0.0);
    let (kind, flag) = ("network Mbit/s", "--net-egress-rate");
    let asked = [(100.0, "100mbit"), (20.0, "20mbit"), (200.0, "200mbit"), (50.0, "50mbit")];
    // A connection that was there before the first limit isn't paced (docs/netlimit.md): the receiver comes after it.
    update(daemons, &[flag, asked[0].1]);
    let mut sink = Command::new("iperf3")
        .args(["-s", "-B", &gateway])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("iperf3");
    std::thread::sleep(Duration::from_secs(1));
    let course = Course { plan, daemons, pass, kind, flag, scale: 125_000.0, count: &bytes };
    course.follow(&asked, sheet);
    let _ = sink.kill();
    let _ = sink.wait();
    daemons.sweep();
}

fn block(plan: &Plan, daemons: &Daemons, pass: u32, sheet: &mut Sheet) {
    let disk = Disk::new();
    let mount = format!("{}:/data", disk.dir.display());
    let script =
        "exec fio --name=w --filename=/data/f --size=256m --rw=write --bs=128k --direct=1 --ioengine=psync \
                  --time_based --runtime=1000 >/dev/null 2>&1";
    daemons.docker(&["run", "-d", "--name", "limited", "-v", &mount, IMAGE, "sh", "-c", script]).ok();
    std::thread::sleep(Duration::from_secs(1));
    let stat = format!("/sys/block/{}/stat", disk.device.trim_start_matches("/dev/"));
    let bytes = || {
        let text = fs::read_to_string(&stat).unwrap_or_default();
        text.split_whitespace().nth(6).and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0) * 512.0
    };
    let (kind, flag) = ("block MB/s", "--blkio-write-bps");
    let course = Course { plan, daemons, pass, kind, flag, scale: 1e6, count: &bytes };
    course.follow(&[(20.0, "20MB"), (5.0, "5MB"), (40.0, "40MB"), (10.0, "10MB")], sheet);
    daemons.sweep();
}

/// A file system on a loop device.
struct Disk {
    dir: PathBuf,
    device: String,
}

impl Disk {
    fn new() -> Disk {
        let dir = janitor::scratch().join("disk");
        fs::create_dir_all(&dir).expect("scratch folder");
        let file = janitor::scratch().join("disk.img");
        let line = format!(
            "truncate -s 512M {f} && mkfs.ext4 -q {f} && d=$(losetup --show -f {f}) && mount $d {m} && echo $d",
            f = file.display(),
            m = dir.display()
        );
        let device = Run::sh(&line).ok().stdout.trim().to_string();
        janitor::at_end(&format!("umount {}; losetup -d {device}", dir.display()));
        Disk { dir, device }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        Run::sh(&format!("umount {}; losetup -d {}", self.dir.display(), self.device)).out();
    }
}
