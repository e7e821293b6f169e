//! `make figures`: the papers' figures, measured again with today's programs. docs/figures/README.md says what each shows.
//!
//! A block is one figure with one stack in one pass. The blocks run in random order, twice; each is kept when it is done,
//! so that a run that was cut short goes on where it was.

mod api;
mod budget;
mod draw;
mod launch;
mod limits;
mod load;
mod outage;
mod report;
mod restore;
mod rows;
mod scale;
mod server;
mod stack;

use integration::{host, janitor, Run};
use rows::{Rows, Sheet};
use stack::{Daemons, Monitor, Stack};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// How much is measured.
pub struct Plan {
    quick: bool,
    /// The part of the whole run's repetitions that `BUDGET` allows: 1 without it.
    share: f64,
}

impl Plan {
    /// What is wanted of a whole run, or of a quick one.
    pub fn pick<'a, T>(&self, whole: &'a [T], quick: &'a [T]) -> &'a [T] {
        match self.quick {
            true => quick,
            false => whole,
        }
    }

    /// How often something is repeated: as often as in a whole run, or less by the budget, but not below `least`.
    pub fn rounds(&self, whole: u32, least: u32) -> u32 {
        match self.quick {
            true => 1,
            false => ((f64::from(whole) * self.share).round() as u32).max(least),
        }
    }

    /// Whether a budget leaves things out, and not only repetitions.
    pub fn reduced(&self) -> bool {
        self.share < 1.0
    }
}

/// A figure that is measured stack by stack.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Figure {
    Restore,
    Outage,
    Launch,
    ScaleRedis,
    ScaleTomcat,
    Limits,
    Micro,
}

struct Block {
    figure: Figure,
    /// Absent: no daemons are needed, and the name says what it is.
    stack: Option<Stack>,
    name: String,
    pass: u32,
}

impl Block {
    fn key(&self) -> String {
        format!("{:?} / {} / {}", self.figure, self.name, self.pass)
    }
}

fn main() {
    assert!(nix::unistd::geteuid().is_root(), "the measurements need root");
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("workspace").to_path_buf();
    let budget =
        std::env::var("BUDGET").ok().and_then(|b| b.parse::<f64>().ok()).map(|minutes| minutes * 60.0);
    let plan = budget::plan(host::quick(), budget);
    let work = top.join("target/figures").join(if plan.quick { "quick" } else { "whole" });
    let mine = std::env::var(ONE).ok();
    if plan.quick && mine.is_none() {
        let _ = std::fs::remove_dir_all(&work);
    }
    let mut rows = Rows::open(&work);
    let blocks: Vec<Block> = blocks(&plan).into_iter().filter(wanted).collect();
    if let Some(key) = mine {
        let block = blocks.iter().find(|b| b.key() == key).expect("a block of that name");
        return rows.save(&key, measure(&plan, block, &cache().join("servers.tar")));
    }
    let failed = measure_all(&plan, &blocks, &mut rows, budget);
    let out = if plan.quick { work.join("out") } else { top.join("docs/figures") };
    report::write(&rows.dir, &out, &about(&plan, budget, &blocks, &rows));
    if !plan.quick {
        keep_data(&rows.dir, &out.join("data"));
    }
    println!("the figures are in {}", out.display());
    // What a test runner's log is looked through for.
    let passed = blocks.iter().filter(|b| rows.is_done(&b.key())).count();
    println!("test result: {}. {passed} passed; {failed} failed", if failed == 0 { "ok" } else { "FAILED" });
    std::process::exit(i32::from(failed > 0));
}

/// Names the one block that a process of ours is to measure.
const ONE: &str = "FIGURES_BLOCK";

/// Every block that isn't done yet, each in a process of its own, so that one that fails costs no other. How many failed.
fn measure_all(plan: &Plan, blocks: &[Block], rows: &mut Rows, budget: Option<f64>) -> usize {
    let open = |rows: &Rows| blocks.iter().filter(|b| !rows.is_done(&b.key())).count();
    let expected: f64 =
        blocks.iter().filter(|b| !rows.is_done(&b.key())).map(|b| budget::cost(plan, b)).sum();
    println!("{} blocks to measure, about {:.0} minutes", open(rows), (expected / 60.0).ceil());
    let (began, mut failed) = (Instant::now(), 0);
    for (n, block) in blocks.iter().enumerate() {
        let key = block.key();
        if rows.is_done(&key) {
            continue;
        }
        let cost = budget::cost(plan, block);
        // What the estimates were short of may fall on the second pass, which repeats the first.
        if block.pass > 1 && budget.is_some_and(|b| began.elapsed().as_secs_f64() + cost > b) {
            println!(
                "[{:4.0} s] {}/{} {key}: no time left",
                began.elapsed().as_secs_f64(),
                n + 1,
                blocks.len()
            );
            continue;
        }
        let start = Instant::now();
        print!("[{:4.0} s] {}/{} {key}", began.elapsed().as_secs_f64(), n + 1, blocks.len());
        println!(", about {cost:.0} s");
        let mut child = Command::new(std::env::current_exe().expect("own path"))
            .env(ONE, &key)
            .spawn()
            .expect("a process for the block");
        let status = child.wait().expect("wait");
        janitor::until_swept(child.id());
        println!("  took {:.0} s", start.elapsed().as_secs_f64());
        if status.success() {
            rows.mark(&key);
        } else {
            println!("  failed: {status}; left out");
            failed += 1;
        }
    }
    failed
}

/// `FIGURES="Restore Launch"` measures those alone.
fn wanted(block: &Block) -> bool {
    let wanted = std::env::var("FIGURES").unwrap_or_default();
    wanted.is_empty() || wanted.split_whitespace().any(|w| format!("{:?}", block.figure) == w)
}

fn cache() -> PathBuf {
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).unwrap_or_else(|| {
        PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".cache")
    });
    base.join("hydra-figures")
}

/// All blocks, in an order that the same seed repeats (`SEED`).
fn blocks(plan: &Plan) -> Vec<Block> {
    let stacks = stack::all();
    let mut all = Vec::new();
    for pass in 1..=plan.pick(&[2], &[1])[0] {
        let first = all.len();
        for figure in
            [Figure::Restore, Figure::Outage, Figure::Launch, Figure::ScaleRedis, Figure::ScaleTomcat]
        {
            for stack in stacks.iter().filter(|s| takes_part(plan, figure, s)) {
                all.push(Block { figure, name: stack.name.into(), stack: Some(stack.clone()), pass });
            }
        }
        let hydra = stacks.iter().find(|s| s.monitor == Monitor::Hydra).cloned();
        all.push(Block { figure: Figure::Limits, name: "Hydra".into(), stack: hydra, pass });
        for name in ["no container", "Hydra standalone"] {
            all.push(Block { figure: Figure::Launch, name: name.into(), stack: None, pass });
        }
        all.push(Block { figure: Figure::Micro, name: "all runtimes".into(), stack: None, pass });
        shuffle(&mut all[first..], pass);
    }
    all
}

fn takes_part(plan: &Plan, figure: Figure, stack: &Stack) -> bool {
    let monitors = stack.monitor == Monitor::Hydra || stack.name.starts_with("runc");
    match figure {
        // The runtime has no part in these.
        Figure::Restore | Figure::Outage => monitors,
        Figure::ScaleTomcat => stack.live_restore && monitors && !plan.quick,
        // Quick: enough to see that all the wires are connected.
        _ => stack.live_restore && (!plan.quick || monitors),
    }
}

fn shuffle(blocks: &mut [Block], pass: u32) {
    let seed = std::env::var("SEED").ok().and_then(|s| s.parse::<u64>().ok()).unwrap_or(1);
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(pass);
    for i in (1..blocks.len()).rev() {
        // xorshift64*
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        blocks.swap(i, (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % (i + 1));
    }
}

fn measure(plan: &Plan, block: &Block, image: &Path) -> Vec<Sheet> {
    let (name, pass) = (block.name.as_str(), block.pass);
    let Some(stack) = &block.stack else {
        return match block.figure {
            Figure::Micro => micro(plan, pass),
            _ => launch::alone(plan, &unpacked(image), name, pass),
        };
    };
    let mut daemons = Daemons::start(stack, &cache().join("docker"), image);
    match block.figure {
        Figure::Restore => restore::measure(plan, &mut daemons, name, pass),
        Figure::Outage => outage::measure(plan, &mut daemons, &unpacked(image), name, pass),
        Figure::Launch => launch::docker(plan, &daemons, name, pass),
        Figure::ScaleRedis => scale::measure(plan, &daemons, name, "redis", pass),
        Figure::ScaleTomcat => scale::measure(plan, &daemons, name, "tomcat", pass),
        Figure::Limits => limits::measure(plan, &daemons, pass),
        Figure::Micro => Vec::new(),
    }
}

/// `make bench`'s measurement of the runtimes alone, with its raw numbers.
fn micro(plan: &Plan, pass: u32) -> Vec<Sheet> {
    let mut sheet = Sheet::new("micro.csv", "pass,program,what,ms");
    let csv = janitor::scratch().join("bench.csv");
    let program = std::env::current_exe().expect("own path").with_file_name("bench");
    let mut bench = Run::new(program).env("BENCH_CSV", &csv).patient(20);
    if let Some(youki) = stack::youki() {
        bench = bench.env("BENCH_ALSO", youki);
    }
    if plan.quick || plan.reduced() {
        bench = bench.env("QUICK", "1");
    }
    bench.ok();
    let text = std::fs::read_to_string(&csv).unwrap_or_default();
    sheet.lines = text.lines().skip(1).map(|l| format!("{pass},{l}")).collect();
    vec![sheet]
}

/// The image as a folder.
fn unpacked(image: &Path) -> PathBuf {
    let dir = image.with_extension("rootfs");
    let key = std::fs::read(image.with_extension("tar.key")).unwrap_or_default();
    let mark = image.with_extension("rootfs.key");
    if std::fs::read(&mark).is_ok_and(|m| m == key) {
        return dir;
    }
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).expect("cache");
    Run::new("tar").args(["-C"]).args([&dir]).args(["-xf"]).args([image]).patient(5).ok();
    std::fs::write(mark, key).expect("cache");
    dir
}

fn keep_data(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("folder for the data");
    for entry in std::fs::read_dir(from).into_iter().flatten().flatten() {
        if entry.path().extension().is_some_and(|e| e == "csv") {
            std::fs::copy(entry.path(), to.join(entry.file_name())).expect("data");
        }
    }
}

/// Machine, kernel and versions.
fn about(plan: &Plan, budget: Option<f64>, blocks: &[Block], rows: &Rows) -> String {
    let first = |program: &str, args: &[&str]| {
        let out = Command::new(program).args(args).output();
        let text = out.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
        text.lines().next().unwrap_or("not installed").to_string()
    };
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|l| l.strip_prefix("model name\t: "))
        .unwrap_or("an unknown processor")
        .to_string();
    let cores = cpu.lines().filter(|l| l.starts_with("processor")).count();
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = memory.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    let mut passes = Vec::new();
    for pass in 1..=blocks.iter().map(|b| b.pass).max().unwrap_or(0) {
        let of_pass = || blocks.iter().filter(|b| b.pass == pass);
        let done = of_pass().filter(|b| rows.is_done(&b.key())).count();
        passes.push(format!("{done} of {} blocks in pass {pass}", of_pass().count()));
    }
    [
        format!("{} Measured: {}.", budget::words(plan, budget), passes.join(", ")),
        format!(
            "Machine: {cores} x {model}, {} GiB; Linux {}; cgroups {:?}.",
            kib >> 20,
            first("uname", &["-r"]),
            host::cgroups()
        ),
        format!(
            "Programs: {}; {}; {}; {}; {}; {}.",
            first("dockerd", &["--version"]),
            first("containerd", &["--version"]),
            first("runc", &["--version"]),
            first("crun", &["--version"]),
            stack::youki().map_or("youki: not there".into(), |y| first(&y.to_string_lossy(), &["--version"])),
            first(&host::runtime().to_string_lossy(), &["--version"]),
        ),
    ]
    .join("\n")
}
