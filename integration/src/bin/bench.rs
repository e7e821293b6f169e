//! `make bench`: what a container costs with `runtime`, with runc, with crun, and with the bare system calls.
//!
//! All programs take turns, in an order that changes every round, on the same bundles: a plain one, and the one that
//! dockerd really writes, with its seccomp profile. Medians and quartiles are printed; nothing is judged.

use integration::engine::{engine, Engine};
use integration::{bundle, host, janitor, Bundle};
use serde_json::{json, Value};
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// A runtime that takes part.
struct Rider {
    name: &'static str,
    program: PathBuf,
    /// The mount namespace it has to be run in: Debian's crun refuses hosts whose v2 hierarchy is mounted too.
    namespace: Option<File>,
}

impl Rider {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(janitor::scratch().join("roots").join(self.name));
        command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if let Some(namespace) = &self.namespace {
            sys::enter(&mut command, namespace.try_clone().expect("descriptor"));
        }
        command
    }

    /// Milliseconds that a command takes.
    fn time(&self, args: &[&str]) -> f64 {
        let mut command = self.command(args);
        let start = Instant::now();
        let status = command.status().expect("status");
        let took = start.elapsed().as_secs_f64() * 1e3;
        assert!(status.success(), "{} {args:?} failed: {}", self.name, self.complaint(args));
        took
    }

    fn complaint(&self, args: &[&str]) -> String {
        let out = self.command(args).stderr(Stdio::piped()).output().expect("output");
        String::from_utf8_lossy(&out.stderr).into_owned()
    }
}

fn main() {
    let rounds = if host::quick() { 10 } else { 60 };
    let riders = riders();
    let mut bundles = vec![("plain", plain())];
    match engine().and_then(|e| dockers(e).ok_or("no config.json of dockerd's was found")) {
        Ok(bundle) => bundles.push(("docker's", bundle)),
        Err(reason) => println!("dockerd's config.json is left out: {reason}"),
    }
    println!(
        "{}, {} processors, {rounds} rounds; milliseconds: median (quartiles)\n",
        kernel(),
        processors()
    );
    for (name, bundle) in &bundles {
        let dir = bundle.dir.to_str().expect("path");
        measure(&format!("run true, {name} config"), rounds, &riders, Some(bundle), |rider, id| {
            rider.time(&["run", "--bundle", dir, id])
        });
        measure(&format!("create + start + delete, {name} config"), rounds, &riders, None, |rider, id| {
            rider.time(&["create", "--bundle", dir, id])
                + rider.time(&["start", id])
                + settled(rider, id, |r| r.time(&["delete", "--force", id]))
        });
    }
    execs(rounds, &riders);
    memory(&riders, &bundles);
    flatness(rounds, &riders[0], &bundles[0].1);
}

/// The programs that are there. Ours is the first.
fn riders() -> Vec<Rider> {
    let ours = Rider { name: "runtime", program: host::runtime(), namespace: None };
    let mut riders = vec![ours];
    for (name, program) in [("runc", "/usr/sbin/runc"), ("crun", "/usr/bin/crun")] {
        if Path::new(program).exists() {
            let hybrid = name == "crun" && host::cgroups() == host::Cgroups::Hybrid;
            riders.push(Rider { name, program: program.into(), namespace: hybrid.then(without_unified) });
        } else {
            println!("{name} is not installed and left out");
        }
    }
    for extra in std::env::var("BENCH_ALSO").iter().flat_map(|v| v.split(':')) {
        let name = extra.rsplit('/').next().unwrap_or(extra).to_string();
        riders.push(Rider { name: name.leak(), program: extra.into(), namespace: Some(without_unified()) });
    }
    for rider in &riders {
        fs::create_dir_all(janitor::scratch().join("roots").join(rider.name)).expect("state folder");
    }
    riders
}

/// A mount namespace without the v2 part of the hierarchy; what is written there lands in a tmpfs.
fn without_unified() -> File {
    let script = "umount /sys/fs/cgroup/unified && mount -t tmpfs none /sys/fs/cgroup/unified; echo; exec sleep 1000000";
    let mut holder = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", script])
        .stdout(Stdio::piped())
        .spawn()
        .expect("unshare");
    let _ = std::io::Read::read(holder.stdout.as_mut().expect("stdout"), &mut [0]);
    let file = File::open(format!("/proc/{}/ns/mnt", holder.id())).expect("namespace");
    let _ = holder.kill();
    let _ = holder.wait();
    file
}

/// The plain bundle, running `true`.
fn plain() -> Bundle {
    let bundle = Bundle::new("bench-plain");
    bundle.write();
    bundle
}

/// dockerd's own config.json for `docker run`, led to a bundle of ours: data, taken at the time.
fn dockers(engine: &Engine) -> Option<Bundle> {
    let id =
        engine.script("$D run -d --runtime runc $I sleep 1000", "runc", "bench").stdout.trim().to_string();
    let tasks = engine.dir().join("exec/containerd/daemon/io.containerd.runtime.v2.task/moby").join(id);
    let mut config: Value = serde_json::from_slice(&fs::read(tasks.join("config.json")).ok()?).ok()?;
    let mut bundle = Bundle::new("bench-docker");
    config["root"]["path"] = "rootfs".into();
    config["process"]["args"] = json!(["true"]);
    config["linux"]["cgroupsPath"] = bundle.config["linux"]["cgroupsPath"].clone();
    // The hook is dockerd's way to the network namespace; the namespace itself stays.
    config.as_object_mut()?.remove("hooks");
    for mount in config["mounts"].as_array_mut()? {
        let source = PathBuf::from(mount["source"].as_str().unwrap_or_default());
        if source.is_file() {
            let own = bundle.dir.join(source.file_name()?);
            fs::copy(&source, &own).ok()?;
            mount["source"] = own.to_str()?.into();
        }
    }
    bundle.config = config;
    bundle.write();
    engine.script("$D ps -aq | xargs $D rm -f", "runc", "bench");
    Some(bundle)
}

/// Waits, off the clock, until a container's first process has ended.
fn settled(rider: &Rider, id: &str, then: impl FnOnce(&Rider) -> f64) -> f64 {
    let state = || {
        let out = rider.command(&["state", id]).stdout(Stdio::piped()).output().expect("state");
        String::from_utf8_lossy(&out.stdout).contains("stopped")
    };
    integration::eventually("the container has ended", state);
    then(rider)
}

/// Everybody takes a turn a round, and the table is printed.
fn measure(
    title: &str,
    rounds: usize,
    riders: &[Rider],
    floor: Option<&Bundle>,
    turn: impl Fn(&Rider, &str) -> f64,
) {
    let mut times: Vec<(&str, Vec<f64>)> = Vec::new();
    if floor.is_some() {
        times.push(("floor", Vec::new()));
    }
    times.extend(riders.iter().map(|r| (r.name, Vec::new())));
    let skip = times.len() - riders.len();
    for round in 0..=rounds {
        for step in 0..times.len() {
            let place = (step + round) % times.len();
            let took = match (place.checked_sub(skip), floor) {
                (Some(rider), _) => turn(&riders[rider], &format!("b{round}-{}", riders[rider].name)),
                (None, Some(bundle)) => floor_once(bundle),
                (None, None) => unreachable!("the floor has no place without a bundle"),
            };
            // The first round fills caches.
            if round > 0 {
                times[place].1.push(took);
            }
        }
    }
    print(title, &mut times);
}

fn floor_once(bundle: &Bundle) -> f64 {
    let program = std::env::current_exe().expect("this program").with_file_name("floor");
    let mut command = Command::new(program);
    command.arg(bundle.rootfs()).arg(format!("/{}/floor", janitor::name())).arg("/bin/true");
    let start = Instant::now();
    assert!(command.status().expect("floor").success());
    start.elapsed().as_secs_f64() * 1e3
}

fn print(title: &str, times: &mut [(&str, Vec<f64>)]) {
    let stats: Vec<(&str, [f64; 3])> = times.iter_mut().map(|(name, t)| (*name, quartiles(t))).collect();
    let of = |name: &str| stats.iter().find(|(n, _)| *n == name).map(|(_, q)| q[1]);
    println!("| {title} | median | quartiles | / floor | / crun | / runc |\n|---|---|---|---|---|---|");
    for (name, [low, middle, high]) in &stats {
        let ratio = |to| of(to).map_or("-".to_string(), |base| format!("{:.2}", middle / base));
        println!(
            "| {name} | {middle:.2} | {low:.2} .. {high:.2} | {} | {} | {} |",
            ratio("floor"),
            ratio("crun"),
            ratio("runc")
        );
    }
    println!();
}

fn quartiles(times: &mut [f64]) -> [f64; 3] {
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize];
    [at(0.25), at(0.5), at(0.75)]
}

/// A second process in a container that sleeps.
fn execs(rounds: usize, riders: &[Rider]) {
    let bundles: Vec<Bundle> = riders.iter().map(|r| sleeper(&format!("exec-{}", r.name))).collect();
    for (rider, bundle) in riders.iter().zip(&bundles) {
        rider.time(&[
            "run",
            "--detach",
            "--bundle",
            bundle.dir.to_str().expect("path"),
            &format!("exec-{}", rider.name),
        ]);
    }
    measure("exec true", rounds, riders, None, |rider, _| {
        rider.time(&["exec", &format!("exec-{}", rider.name), "true"])
    });
    for rider in riders {
        rider.time(&["delete", "--force", &format!("exec-{}", rider.name)]);
    }
}

fn sleeper(name: &str) -> Bundle {
    let mut bundle = Bundle::new(name);
    bundle.config["process"]["args"] = json!(["sleep", "1000000"]);
    bundle.write();
    bundle
}

/// The largest resident set of `create`.
fn memory(riders: &[Rider], bundles: &[(&str, Bundle)]) {
    println!(
        "| peak memory of create, KiB | {} |",
        riders.iter().map(|r| r.name).collect::<Vec<_>>().join(" | ")
    );
    println!("|---|{}", "---|".repeat(riders.len()));
    for (name, bundle) in bundles {
        let dir = bundle.dir.to_str().expect("path");
        let peaks = riders.iter().map(|rider| {
            let child = rider.command(&["create", "--bundle", dir, "rss"]).spawn().expect("spawn");
            let peak = sys::peak_memory(child);
            rider.time(&["delete", "--force", "rss"]);
            peak.to_string()
        });
        println!("| {name} config | {} |", peaks.collect::<Vec<_>>().join(" | "));
    }
    println!();
}

/// Whether a container costs more where there are many.
fn flatness(rounds: usize, rider: &Rider, bundle: &Bundle) {
    let most = if host::quick() { 50 } else { 500 };
    let dir = bundle.dir.to_str().expect("path").to_string();
    let sleeper = sleeper("crowd");
    let crowd = sleeper.dir.to_str().expect("path").to_string();
    let mut config = sleeper.config.clone();
    println!("| {} run true, containers on the host | median | quartiles |\n|---|---|---|", rider.name);
    let mut there = 0;
    for many in [0, most / 5, most] {
        while there < many {
            config["linux"]["cgroupsPath"] = bundle::cgroups_path(&format!("crowd-{there}")).into();
            fs::write(sleeper.dir.join("config.json"), config.to_string()).expect("config.json");
            rider.time(&["run", "--detach", "--bundle", &crowd, &format!("crowd-{there}")]);
            there += 1;
        }
        let mut times: Vec<f64> = (0..rounds)
            .map(|i| rider.time(&["run", "--bundle", &dir, &format!("flat-{many}-{i}")]))
            .collect();
        let [low, middle, high] = quartiles(&mut times);
        println!("| {many} | {middle:.2} | {low:.2} .. {high:.2} |");
    }
    for i in 0..there {
        rider.time(&["delete", "--force", &format!("crowd-{i}")]);
    }
}

fn kernel() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("Linux {}", release.trim())
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[allow(unsafe_code)]
mod sys {
    use super::CommandExt;
    use std::fs::File;
    use std::process::{Child, Command};

    /// Has a program run in another mount namespace.
    pub fn enter(command: &mut Command, namespace: File) {
        // SAFETY: setns is a bare system call, which may be made between fork and exec.
        unsafe {
            command.pre_exec(move || Ok(nix::sched::setns(&namespace, nix::sched::CloneFlags::CLONE_NEWNS)?))
        };
    }

    /// Waits for a program; its peak resident set in KiB.
    pub fn peak_memory(child: Child) -> i64 {
        let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
        let mut status = 0;
        // SAFETY: both pointers are to values of the types that the call fills in, and all zeroes is a valid rusage.
        unsafe {
            libc::wait4(child.id() as i32, &mut status, 0, usage.as_mut_ptr());
            usage.assume_init().ru_maxrss
        }
    }
}
