//! `make bench`, the monitors: what ours costs in memory, in time and for each byte, beside containerd's own shim and conmon.
//!
//! All take turns with the same runtime and the same bundle. Medians are printed; nothing is judged.

use integration::ttrpc::Shim;
use integration::{host, janitor, Bundle};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What all monitor processes of one container have together.
#[derive(Clone, Copy, Default)]
struct Memory {
    processes: usize,
    rss_kib: u64,
    private_dirty_kib: u64,
}

impl std::fmt::Display for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = format!("{} / {} ({})", self.rss_kib, self.private_dirty_kib, self.processes);
        f.pad(&text)
    }
}

/// A monitor program. Ours is the first.
#[derive(Clone)]
struct Monitor {
    name: &'static str,
    program: PathBuf,
}

fn monitors() -> Vec<Monitor> {
    let all = [
        ("shim", host::shim()),
        ("containerd-shim-runc-v2", "/usr/bin/containerd-shim-runc-v2".into()),
        ("conmon", "/usr/bin/conmon".into()),
    ];
    let known = |(name, program): (&'static str, PathBuf)| match program.exists() {
        true => Some(Monitor { name, program: fs::canonicalize(program).expect("a path") }),
        false => {
            println!("{name} is not installed and left out");
            None
        }
    };
    all.into_iter().filter_map(known).collect()
}

/// A mount namespace of our own, in which the states of monitors and runtimes are on a tmpfs, as /run is on a usual host. It is
/// not everywhere, and a state mapped from a disk's file system costs milliseconds.
fn states_in_memory() -> nix::Result<()> {
    use nix::mount::{mount, MsFlags};
    let none: Option<&str> = None;
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)?;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)?;
    let roots = janitor::scratch().join("roots");
    for path in [Path::new("/run/hydra-shim"), &roots] {
        fs::create_dir_all(path).expect("a folder");
        mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), none)?;
    }
    Ok(())
}

fn main() {
    states_in_memory().expect("a tmpfs for the states");
    let monitors = monitors();
    let (rounds, execs, bytes) = if host::quick() { (5, 50, 128 << 20) } else { (30, 1000, 1 << 30) };
    println!("\nmonitors, all with the same runtime; medians of {rounds} rounds, ms");
    starts(&monitors, rounds);
    println!("\nall monitor processes of one container: RSS / private dirty in KiB (processes)");
    println!(
        "{:<26} {:>20} {:>20} {:>20} {:>24}",
        "", "created", "after execs", "after output", "most while at work"
    );
    for monitor in monitors.iter().filter(|m| m.name != "conmon") {
        memory(monitor, execs, bytes);
    }
    if let Some(conmon) = monitors.iter().find(|m| m.name == "conmon") {
        memory_of_conmon(conmon, bytes);
    }
    println!("({execs} execs, {} MiB of output)", bytes >> 20);
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn sleeping(config: &mut serde_json::Value) {
    config["process"]["args"] = serde_json::json!(["sleep", "1000000"]);
}

fn runtime() -> PathBuf {
    fs::canonicalize(host::runtime()).expect("the runtime")
}

/// From nothing to a running container: the runtime alone, and behind each monitor.
fn starts(monitors: &[Monitor], rounds: usize) {
    let mut alone = Vec::new();
    let mut took: Vec<[Vec<f64>; 4]> = monitors.iter().map(|_| Default::default()).collect();
    for round in 0..rounds {
        alone.push(start_alone(round));
        for (monitor, took) in monitors.iter().zip(&mut took) {
            let times = match monitor.name {
                "conmon" => start_conmon(monitor, round),
                _ => start_shim(monitor, round),
            };
            times.into_iter().zip(took).for_each(|(t, all)| all.push(t));
        }
    }
    let alone = median(alone);
    println!("{:<26} {:>10} {:>10} {:>10} {:>10} {:>10}", "", "running", "added", "exec", "end", "delete");
    println!("{:<26} {alone:>10.2}", "the runtime alone");
    for (monitor, [start, exec, end, delete]) in monitors.iter().zip(took) {
        let [start, exec, end, delete] = [start, exec, end, delete].map(median);
        let added = start - alone;
        println!("{:<26} {start:>10.2} {added:>10.2} {exec:>10.2} {end:>10.2} {delete:>10.2}", monitor.name);
    }
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

fn run(program: &Path, args: &[&str]) {
    let status = Command::new(program).args(args).stdin(Stdio::null()).stdout(Stdio::null()).status();
    assert!(status.expect("a program").success(), "{} {args:?}", program.display());
}

fn start_alone(round: usize) -> f64 {
    let id = format!("alone-{round}");
    let mut bundle = Bundle::new(&id);
    sleeping(&mut bundle.config);
    bundle.write();
    let root = janitor::scratch().join("roots/alone");
    let root = root.to_str().expect("a path");
    let runtime = runtime();
    let begun = Instant::now();
    run(&runtime, &["--root", root, "create", "--bundle", bundle.dir.to_str().expect("a path"), &id]);
    run(&runtime, &["--root", root, "start", &id]);
    let took = ms(begun);
    run(&runtime, &["--root", root, "delete", "--force", &id]);
    took
}

fn create(shim: &mut Shim, streams: [&str; 3]) {
    let options = shim.options(&runtime());
    shim.create(false, streams, options).expect("Create");
}

/// Start until it runs, one exec from its beginning to its known end, the end of init, the removal.
fn start_shim(monitor: &Monitor, round: usize) -> [f64; 4] {
    let id = format!("bench-{}-{round}", monitor.name);
    let (mut shim, begun) = Shim::timed(&monitor.program, &id, &[], sleeping);
    create(&mut shim, ["", "", ""]);
    shim.call("Start").expect("Start");
    let running = ms(begun);
    let begun = Instant::now();
    exec(&mut shim, "one");
    let exec = ms(begun);
    let begun = Instant::now();
    shim.kill("", 9, false).expect("Kill");
    shim.wait("").expect("Wait");
    let end = ms(begun);
    let begun = Instant::now();
    shim.call("Delete").expect("Delete");
    let delete = ms(begun);
    shim.end();
    [running, exec, end, delete]
}

fn exec(shim: &mut Shim, name: &str) {
    shim.exec(name, false, ["", "", ""], &["true"]).expect("Exec");
    shim.start_exec(name).expect("Start");
    shim.wait(name).expect("Wait");
    shim.delete_exec(name).expect("Delete");
}

/// conmon does less: it has no requests, and an exec has a conmon of its own.
fn conmon(monitor: &Monitor, id: &str, bundle: &Bundle, root: &str, log: &str) {
    let dir = bundle.dir.to_str().expect("a path");
    let (runtime, pid_file) = (runtime(), bundle.dir.join("pid"));
    let runtime = runtime.to_str().expect("a path");
    let args =
        ["-c", id, "-u", id, "-n", id, "-r", runtime, "-b", dir, "-p", pid_file.to_str().expect("a path")];
    let own = [
        "-l",
        log,
        "--runtime-arg",
        "--root",
        "--runtime-arg",
        root,
        "--socket-dir-path",
        dir,
        "--exit-dir",
        dir,
    ];
    run(&monitor.program, &[&args[..], &own[..]].concat());
    // It returns before its runtime has created the container.
    while fs::read_to_string(&pid_file).unwrap_or_default().is_empty() {
        std::thread::sleep(Duration::from_micros(200));
    }
}

fn start_conmon(monitor: &Monitor, round: usize) -> [f64; 4] {
    let id = format!("bench-conmon-{round}");
    let mut bundle = Bundle::new(&id);
    sleeping(&mut bundle.config);
    bundle.write();
    let root = janitor::scratch().join("roots/conmon");
    let root = root.to_str().expect("a path");
    let runtime = runtime();
    let begun = Instant::now();
    conmon(monitor, &id, &bundle, root, "none");
    started(&runtime, root, &id);
    let running = ms(begun);
    let begun = Instant::now();
    run(&runtime, &["--root", root, "kill", &id, "KILL"]);
    let exit = bundle.dir.join(&id);
    while !exit.exists() {
        std::thread::sleep(Duration::from_micros(200));
    }
    let end = ms(begun);
    let begun = Instant::now();
    run(&runtime, &["--root", root, "delete", "--force", &id]);
    [running, f64::NAN, end, ms(begun)]
}

/// The pid file may be there an instant before the state is.
fn started(runtime: &Path, root: &str, id: &str) {
    loop {
        let mut start = Command::new(runtime);
        start.args(["--root", root, "start", id]).stderr(Stdio::null());
        if start.status().expect("start").success() {
            return;
        }
    }
}

/// The processes that execute a program for a container.
fn processes(monitor: &Monitor, id: &str) -> Vec<i32> {
    let mut pids = host::processes_with(id);
    pids.retain(|pid| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == monitor.program));
    pids
}

fn measure(pids: &[i32]) -> Memory {
    let mut all = Memory { processes: pids.len(), ..Memory::default() };
    for pid in pids {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let of = |name: &str| {
            let line = text.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_default();
            line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0)
        };
        all.rss_kib += of("Rss:");
        all.private_dirty_kib += of("Private_Dirty:");
    }
    all
}

/// Processor time of processes with all their threads, in ms.
fn cpu_ms(pids: &[i32]) -> f64 {
    let of = |pid: &i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        // Fields 14 and 15, of which the third is the first here; the kernel tells 1/100 s.
        let ticks = |n: usize| fields.get(n - 3).and_then(|t| t.parse::<f64>().ok()).unwrap_or(0.0);
        (ticks(14) + ticks(15)) * 10.0
    };
    pids.iter().map(of).sum()
}

/// The most that was seen while something else went on.
struct Watch {
    stop: std::sync::mpsc::Sender<()>,
    thread: std::thread::JoinHandle<Memory>,
}

impl Watch {
    fn begin(pids: Vec<i32>) -> Watch {
        let (stop, stopped) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut most = Memory::default();
            while stopped.recv_timeout(Duration::from_millis(5)).is_err() {
                let now = measure(&pids);
                most.rss_kib = most.rss_kib.max(now.rss_kib);
                most.private_dirty_kib = most.private_dirty_kib.max(now.private_dirty_kib);
                most.processes = now.processes;
            }
            most
        });
        Watch { stop, thread }
    }

    fn end(self) -> Memory {
        let _ = self.stop.send(());
        self.thread.join().expect("a watch")
    }
}

fn settle() {
    std::thread::sleep(Duration::from_secs(2));
}

fn writing(bytes: u64) -> impl Fn(&mut serde_json::Value) {
    let script = format!("read w; head -c {bytes} /dev/zero; read w");
    move |config| config["process"]["args"] = serde_json::json!(["sh", "-c", script])
}

/// Takes all that comes, and says how much of it there was and when a wanted number of bytes was reached.
fn reader(path: &Path, wanted: u64) -> std::thread::JoinHandle<Instant> {
    let path = path.to_path_buf();
    std::thread::spawn(move || {
        let mut file = File::options().read(true).write(true).open(path).expect("a FIFO");
        let (mut chunk, mut seen) = (vec![0; 1 << 16], 0);
        while seen < wanted {
            seen += file.read(&mut chunk).expect("output") as u64;
        }
        Instant::now()
    })
}

fn memory(monitor: &Monitor, execs: usize, bytes: u64) {
    let id = format!("mem-{}-{}", monitor.name, std::process::id());
    let mut shim = Shim::start(&monitor.program, &id, &[], writing(bytes));
    let dir = shim.bundle.dir.clone();
    let mode = nix::sys::stat::Mode::from_bits_truncate(0o600);
    for name in ["in", "out", "err"] {
        nix::unistd::mkfifo(&dir.join(name), mode).expect("a FIFO");
    }
    let path = |name: &str| dir.join(name).to_str().expect("a path").to_string();
    let mut stdin = File::options().read(true).write(true).open(path("in")).expect("stdin");
    let read = reader(&dir.join("out"), bytes);
    let _err = File::options().read(true).write(true).open(path("err")).expect("stderr");
    create(&mut shim, [&path("in"), &path("out"), &path("err")]);
    shim.call("Start").expect("Start");
    let pids = processes(monitor, &id);
    settle();
    let created = measure(&pids);
    let watch = Watch::begin(pids.clone());
    for n in 0..execs {
        exec(&mut shim, &format!("e{n}"));
    }
    settle();
    let after_execs = measure(&pids);
    let before = cpu_ms(&pids);
    let begun = Instant::now();
    std::io::Write::write_all(&mut stdin, b"go\n").expect("stdin");
    let took = (read.join().expect("a reader") - begun).as_secs_f64();
    let cpu = cpu_ms(&pids) - before;
    settle();
    let after_output = measure(&pids);
    let most = watch.end();
    println!("{:<26} {created:>20} {after_execs:>20} {after_output:>20} {most:>24}", monitor.name);
    println!("{:<26} {:>20.0} MB/s of output, {cpu:.0} ms of processor time", "", bytes as f64 / 1e6 / took);
    shim.end();
}

fn memory_of_conmon(monitor: &Monitor, bytes: u64) {
    let id = &*format!("mem-conmon-{}", std::process::id());
    let mut bundle = Bundle::new(id);
    let script = format!(
        "while [ ! -e /go ]; do sleep 0.01; done; head -c {bytes} /dev/zero; touch /done; sleep 100000"
    );
    bundle.config["process"]["args"] = serde_json::json!(["sh", "-c", script]);
    bundle.write();
    let root = janitor::scratch().join("roots/conmon");
    let root = root.to_str().expect("a path");
    conmon(monitor, id, &bundle, root, "k8s-file:/dev/null");
    started(&runtime(), root, id);
    let pids = processes(monitor, id);
    settle();
    let created = measure(&pids);
    let watch = Watch::begin(pids.clone());
    let before = cpu_ms(&pids);
    let begun = Instant::now();
    fs::write(bundle.rootfs().join("go"), "").expect("a file");
    while !bundle.rootfs().join("done").exists() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let (took, cpu) = (begun.elapsed().as_secs_f64(), cpu_ms(&pids) - before);
    settle();
    let (after, most) = (measure(&pids), watch.end());
    println!("{:<26} {created:>20} {:>20} {after:>20} {most:>24}", monitor.name, "one each");
    println!("{:<26} {:>20.0} MB/s of output, {cpu:.0} ms of processor time", "", bytes as f64 / 1e6 / took);
    run(&runtime(), &["--root", root, "delete", "--force", id]);
}
