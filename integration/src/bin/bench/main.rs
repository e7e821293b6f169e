//! `make bench`: what a container costs with `runtime`, with runc, with crun, and with the bare system calls.
//!
//! All programs take turns, in an order that changes every round, on the same bundles: a plain one, and the one that
//! dockerd really writes, with its seccomp profile. Nothing is judged; docs/performance.md says how to read it.

#[allow(unsafe_code)]
mod sys;

use integration::engine::{engine, Engine};
use integration::{bundle, host, janitor, Bundle};
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use serde_json::{json, Value};
use std::fs::{self, File};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicI32, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// A runtime that takes part.
struct Rider {
    name: &'static str,
    program: PathBuf,
    /// The mount namespace it has to be run in: crun refuses hosts whose v2 hierarchy is mounted too.
    namespace: Option<File>,
}

/// What a turn took, in milliseconds.
#[derive(Clone, Copy, Default)]
struct Cost {
    wall: f64,
    /// Of all processes that ended in the turn, user's and kernel's time.
    cpu: f64,
}

impl std::ops::Add for Cost {
    type Output = Cost;

    fn add(self, other: Cost) -> Cost {
        Cost { wall: self.wall + other.wall, cpu: self.cpu + other.cpu }
    }
}

/// Runs a command, which has to succeed.
fn cost(command: &mut Command) -> Cost {
    let before = sys::children_cpu();
    let start = Instant::now();
    let mut child = command.spawn().expect("spawn");
    WAITED_FOR.store(child.id() as i32, Relaxed);
    let status = child.wait().expect("status");
    WAITED_FOR.store(0, Relaxed);
    let wall = start.elapsed().as_secs_f64() * 1e3;
    // One that hung was ended after as long as it says in `wall`; a median can bear that.
    let hung = status.signal() == Some(libc::SIGKILL) && wall >= PATIENCE_MS;
    assert!(status.success() || hung, "{command:?} failed: {}", complaint(command));
    if hung {
        println!("{command:?} hung and was killed; it counts as {wall:.0} ms");
    }
    Cost { wall, cpu: sys::children_cpu() - before }
}

/// The program that is waited for, or 0.
static WAITED_FOR: AtomicI32 = AtomicI32::new(0);
/// What takes longer hangs.
const PATIENCE_MS: f64 = 30e3;

/// Ends what hangs, so that one program of all costs the others nothing. It looks every few seconds: a clock for each program
/// would be part of the time that is measured.
fn end_what_hangs() {
    let mut since = (0, Instant::now());
    loop {
        std::thread::sleep(Duration::from_secs(5));
        let pid = WAITED_FOR.load(Relaxed);
        if pid != since.0 {
            since = (pid, Instant::now());
        } else if pid > 0 && since.1.elapsed().as_secs_f64() * 1e3 >= PATIENCE_MS {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

fn complaint(command: &mut Command) -> String {
    let out = command.stderr(Stdio::piped()).output().expect("output");
    String::from_utf8_lossy(&out.stderr).into_owned()
}

impl Rider {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(roots().join(self.name));
        command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if let Some(namespace) = &self.namespace {
            sys::enter(&mut command, namespace.try_clone().expect("descriptor"));
        }
        command
    }

    fn time(&self, args: &[&str]) -> Cost {
        cost(&mut self.command(args))
    }

    fn cycle(&self, dir: &str, id: &str) -> Cost {
        let begun = self.time(&["create", "--bundle", dir, id]) + self.time(&["start", id]);
        // Off the clock, until the container's process has ended.
        let stopped = || {
            let out = self.command(&["state", id]).stdout(Stdio::piped()).output().expect("state");
            String::from_utf8_lossy(&out.stdout).contains("stopped")
        };
        integration::eventually("the container has ended", stopped);
        begun + self.time(&["delete", "--force", id])
    }
}

/// Where the runtimes keep their states: a tmpfs, as /run is.
fn roots() -> PathBuf {
    janitor::scratch().join("roots")
}

fn main() {
    std::thread::spawn(end_what_hangs);
    let rounds = if host::quick() { 15 } else { 60 };
    let riders = riders();
    let mut bundles = vec![("plain", plain())];
    match engine().and_then(|e| dockers(e).ok_or("no config.json of dockerd's was found")) {
        Ok(bundle) => bundles.push(("docker's", bundle)),
        Err(reason) => println!("dockerd's config.json is left out: {reason}"),
    }
    println!("{}, {} processors, {rounds} rounds; milliseconds\n", kernel(), processors());
    for (name, bundle) in &bundles {
        let dir = path(&bundle.dir);
        measure(&format!("run true, {name} config"), rounds, &riders, Some(bundle), |rider, id| {
            rider.time(&["run", "--bundle", dir, id])
        });
        measure(&format!("create + start + delete, {name} config"), rounds, &riders, None, |rider, id| {
            rider.cycle(dir, id)
        });
    }
    execs(rounds, &riders);
    if let Some((_, bundle)) = bundles.get(1) {
        seccomp(rounds, &riders, bundle);
    }
    memory(&riders, &bundles);
    flatness(rounds, &riders, &bundles[0].1);
}

/// The programs that are there. Ours is the first.
fn riders() -> Vec<Rider> {
    fs::create_dir_all(roots()).expect("state folder");
    // Before other mount namespaces are made of ours. The janitor unmounts it.
    nix::mount::mount(Some("tmpfs"), &roots(), Some("tmpfs"), nix::mount::MsFlags::empty(), None::<&str>)
        .expect("a tmpfs for the states");
    let ours = Rider { name: "runtime", program: host::runtime(), namespace: None };
    let mut riders = vec![ours];
    let hybrid = host::cgroups() == host::Cgroups::Hybrid;
    for (name, program) in [("runc", "/usr/sbin/runc"), ("crun", "/usr/bin/crun")] {
        if Path::new(program).exists() {
            let namespace = (name == "crun" && hybrid).then(without_unified);
            riders.push(Rider { name, program: program.into(), namespace });
        } else {
            println!("{name} is not installed and left out");
        }
    }
    for extra in std::env::var("BENCH_ALSO").iter().flat_map(|v| v.split(':')) {
        let name = extra.rsplit('/').next().unwrap_or(extra).to_string();
        let namespace = hybrid.then(without_unified);
        riders.push(Rider { name: name.leak(), program: extra.into(), namespace });
    }
    for rider in &riders {
        fs::create_dir_all(roots().join(rider.name)).expect("state folder");
    }
    riders
}

/// A mount namespace without the v2 part of the hierarchy.
fn without_unified() -> File {
    let mut holder = host::without_unified();
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
    let tasks = engine.bundle("moby", &id);
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

fn path(dir: &Path) -> &str {
    dir.to_str().expect("path")
}

/// Everybody takes a turn a round, and the table is printed.
fn measure(
    title: &str,
    rounds: usize,
    riders: &[Rider],
    floor: Option<&Bundle>,
    turn: impl Fn(&Rider, &str) -> Cost,
) -> Vec<(&'static str, Vec<Cost>)> {
    let mut costs: Vec<(&'static str, Vec<Cost>)> = Vec::new();
    if floor.is_some() {
        costs.push(("floor", Vec::new()));
    }
    costs.extend(riders.iter().map(|r| (r.name, Vec::new())));
    let skip = costs.len() - riders.len();
    for round in 0..=rounds {
        for step in 0..costs.len() {
            let place = (step + round) % costs.len();
            let took = match (place.checked_sub(skip), floor) {
                (Some(rider), _) => turn(&riders[rider], &format!("b{round}-{}", riders[rider].name)),
                (None, Some(bundle)) => floor_once(bundle),
                (None, None) => unreachable!("the floor has no place without a bundle"),
            };
            // The first round fills caches.
            if round > 0 {
                costs[place].1.push(took);
            }
        }
    }
    print(title, &costs);
    costs
}

fn floor_once(bundle: &Bundle) -> Cost {
    let program = std::env::current_exe().expect("this program").with_file_name("floor");
    let group = format!("/{}/floor", janitor::name());
    cost(Command::new(program).arg(bundle.rootfs()).arg(group).arg("/bin/true"))
}

/// Least, quartiles and median of a list of times.
struct Spread {
    least: f64,
    low: f64,
    middle: f64,
    high: f64,
}

fn spread(costs: &[Cost], of: impl Fn(&Cost) -> f64) -> Spread {
    let mut times: Vec<f64> = costs.iter().map(of).collect();
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize];
    Spread { least: times[0], low: at(0.25), middle: at(0.5), high: at(0.75) }
}

fn print(title: &str, costs: &[(&str, Vec<Cost>)]) {
    let wall: Vec<_> = costs.iter().map(|(name, c)| (*name, spread(c, |c| c.wall))).collect();
    let of = |name: &str| wall.iter().find(|(n, _)| *n == name).map(|(_, s)| s.middle);
    println!("| {title} | median | least | quartiles | / floor | / crun | / runc | processor |");
    println!("|---|---|---|---|---|---|---|---|");
    for ((name, s), (_, all)) in wall.iter().zip(costs) {
        let ratio = |to| of(to).map_or("-".to_string(), |base| format!("{:.2}", s.middle / base));
        println!(
            "| {name} | {:.2} | {:.2} | {:.2} .. {:.2} | {} | {} | {} | {:.2} |",
            s.middle,
            s.least,
            s.low,
            s.high,
            ratio("floor"),
            ratio("crun"),
            ratio("runc"),
            spread(all, |c| c.cpu).middle,
        );
    }
    println!();
    if let Some(path) = std::env::var_os("BENCH_CSV") {
        keep(Path::new(&path), title, costs).expect("BENCH_CSV");
    }
}

/// Every single time, for `make figures`: `program,what,ms`, with no comma in the fields.
fn keep(path: &Path, title: &str, costs: &[(&str, Vec<Cost>)]) -> std::io::Result<()> {
    let mut text = if path.exists() { String::new() } else { "program,what,ms\n".to_string() };
    let title = title.replace(',', "");
    for (name, all) in costs {
        all.iter().for_each(|c| text += &format!("{name},{title},{:.4}\n", c.wall));
    }
    std::io::Write::write_all(&mut File::options().append(true).create(true).open(path)?, text.as_bytes())
}

/// A second process in a container that sleeps.
fn execs(rounds: usize, riders: &[Rider]) {
    let id = |rider: &Rider| format!("exec-{}", rider.name);
    for rider in riders {
        let bundle = sleeper(&id(rider));
        rider.time(&["run", "--detach", "--bundle", path(&bundle.dir), &id(rider)]);
    }
    measure("exec true", rounds, riders, None, |rider, _| rider.time(&["exec", &id(rider), "true"]));
    for rider in riders {
        rider.time(&["delete", "--force", &id(rider)]);
    }
}

fn sleeper(name: &str) -> Bundle {
    let mut bundle = Bundle::new(name);
    bundle.config["process"]["args"] = json!(["sleep", "1000000"]);
    bundle.write();
    bundle
}

/// What a seccomp profile adds, from its text to a filter in force: the same bundle without it takes turns with it.
fn seccomp(rounds: usize, riders: &[Rider], bundle: &Bundle) {
    let mut bare =
        Bundle { dir: janitor::scratch().join("bundles/bench-bare"), config: bundle.config.clone() };
    fs::create_dir_all(&bare.dir).expect("bundle");
    bare.config["root"]["path"] = path(&bundle.rootfs()).into();
    if let Some(linux) = bare.config["linux"].as_object_mut() {
        linux.remove("seccomp");
    }
    bare.write();
    println!("| seccomp profile of docker's config, added to run true | median | processor |\n|---|---|---|");
    for rider in riders {
        let both: Vec<[Cost; 2]> = (0..rounds)
            .map(|i| {
                [bundle, &bare]
                    .map(|b| rider.time(&["run", "--bundle", path(&b.dir), &format!("seccomp-{i}")]))
            })
            .collect();
        let side = |n: usize, of: fn(&Cost) -> f64| {
            spread(&both.iter().map(|pair| pair[n]).collect::<Vec<_>>(), of).middle
        };
        let added = |of: fn(&Cost) -> f64| side(0, of) - side(1, of);
        println!("| {} | {:.2} | {:.2} |", rider.name, added(|c| c.wall), added(|c| c.cpu));
    }
    println!();
}

/// The largest resident set of `create`.
fn memory(riders: &[Rider], bundles: &[(&str, Bundle)]) {
    let names: Vec<_> = riders.iter().map(|r| r.name).collect();
    println!("| peak memory of create, KiB | {} |\n|---|{}", names.join(" | "), "---|".repeat(riders.len()));
    for (name, bundle) in bundles {
        let peaks = riders.iter().map(|rider| {
            let command = &mut rider.command(&["create", "--bundle", path(&bundle.dir), "rss"]);
            let peak = sys::peak_memory(command.spawn().expect("spawn"));
            rider.time(&["delete", "--force", "rss"]);
            peak.to_string()
        });
        println!("| {name} config | {} |", peaks.collect::<Vec<_>>().join(" | "));
    }
    println!();
}

/// Whether a container costs more where there are many.
fn flatness(rounds: usize, riders: &[Rider], bundle: &Bundle) {
    let most = if host::quick() { 100 } else { 500 };
    let ours = &riders[0];
    let sleeper = sleeper("crowd");
    let mut config = sleeper.config.clone();
    let mut there = 0;
    for many in [0, most] {
        while there < many {
            config["linux"]["cgroupsPath"] = bundle::cgroups_path(&format!("crowd-{there}")).into();
            fs::write(sleeper.dir.join("config.json"), config.to_string()).expect("config.json");
            ours.time(&["run", "--detach", "--bundle", path(&sleeper.dir), &format!("crowd-{there}")]);
            there += 1;
        }
        let title = format!("run true, plain config, {many} containers of ours on the host");
        measure(&title, rounds, riders, Some(bundle), |rider, id| {
            rider.time(&["run", "--bundle", path(&bundle.dir), &format!("{id}-{many}")])
        });
    }
    for i in 0..there {
        ours.time(&["delete", "--force", &format!("crowd-{i}")]);
    }
}

fn kernel() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("Linux {}", release.trim())
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
