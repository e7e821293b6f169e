//! Random faults for a set time, and a ledger of what every container wrote and how each ended.
//!
//! `TIME` seconds (10), `SEED` (1). The same seed makes the same faults, in the same order, at the same distances.

use crate::{missing, with_ledger};
use integration::monitor::{fifo, signal, target, whole, Monitor, Reader, Task};
use integration::wire::{Client, Fields};
use integration::{host, skip};
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// xorshift: the same seed makes the same storm.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// A container that writes so many lines and then ends with a status that is known beforehand.
struct Entry {
    monitor: Monitor,
    /// The daemon's connection; None while the daemon is away.
    client: Option<Client>,
    waiting: u32,
    output: Reader,
    task: Task,
    lines: u64,
    code: u64,
    /// It is killed instead, and its lines are what they are.
    killed: bool,
    born: Instant,
}

#[derive(Debug, Default)]
struct Verdict {
    containers: u64,
    lines: u64,
    execs: u64,
    lost: Vec<String>,
    bytes: Vec<String>,
    statuses: Vec<String>,
    events: Vec<String>,
}

struct Storm {
    dice: Dice,
    entries: Vec<Entry>,
    verdict: Verdict,
    faults: BTreeMap<&'static str, u64>,
    number: u64,
}

const AT_ONCE: usize = 6;

impl Storm {
    fn start_one(&mut self) {
        self.number += 1;
        let monitor = Monitor::start(&format!("storm{}", self.number));
        let (lines, rate) = (1000 + self.dice.roll(60_000), 50_000 + self.dice.roll(450_000));
        let code = self.dice.roll(120);
        let killed = self.dice.roll(5) == 0;
        let wanted = if killed { 0 } else { lines };
        let args = ["ledger", &wanted.to_string(), &rate.to_string(), &code.to_string()];
        let mut task = monitor.task(&monitor.id, &args);
        with_ledger(&task.bundle.rootfs());
        task.stdout = Some(fifo("storm"));
        let output = Reader::new(task.stdout.as_ref().expect("fifo"));
        let client = monitor.client();
        client.ok("Create", task.create());
        client.ok("Start", target(&task.id, ""));
        let waiting = client.begin("Wait", target(&task.id, ""));
        let born = Instant::now();
        let entry = Entry { monitor, client: Some(client), waiting, output, task, lines, code, killed, born };
        self.entries.push(entry);
        self.verdict.containers += 1;
    }

    /// One fault, to one monitor.
    fn fault(&mut self) {
        let at = self.dice.roll(self.entries.len() as u64) as usize;
        let kind = self.dice.roll(10);
        let pause = self.dice.roll(20);
        let entry = &mut self.entries[at];
        let dir = entry.monitor.dir.clone();
        let start = Instant::now();
        while !whole(&dir) && start.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let [keeper, worker] = entry.monitor.heads();
        let send = |pid: i32, signal: Signal| {
            let _ = kill(Pid::from_raw(pid), signal);
        };
        let name = match kind {
            0..=2 => {
                send(worker, Signal::SIGKILL);
                gone(worker);
                "worker killed"
            }
            3 | 4 => {
                send(keeper, Signal::SIGKILL);
                gone(keeper);
                "keeper killed"
            }
            5 => {
                send(worker, Signal::SIGSTOP);
                "worker stopped"
            }
            6 => {
                send(keeper, Signal::SIGSTOP);
                std::thread::sleep(Duration::from_millis(pause));
                send(keeper, Signal::SIGCONT);
                "keeper stopped for a while"
            }
            7 => {
                // No descriptor may be opened for a while.
                let few = limit_files(worker, 3);
                std::thread::sleep(Duration::from_millis(pause));
                limit_files(worker, few);
                "no descriptors for a while"
            }
            8 => {
                // The daemon goes, and comes back later: see `daemons_return`.
                entry.client = None;
                "daemon gone"
            }
            _ => {
                self.exec(at);
                return;
            }
        };
        *self.faults.entry(name).or_default() += 1;
    }

    /// Not a fault, but what happens at the same time: an exec whose output and status are known.
    fn exec(&mut self, at: usize) {
        let entry = &self.entries[at];
        let Some(client) = &entry.client else { return };
        self.number += 1;
        let (name, code) = (format!("x{}", self.number), self.number % 100);
        let request = entry.task.exec(&name, &["sh", "-c", &format!("exit {code}")], None);
        let started =
            client.call("Exec", request).and_then(|_| client.call("Start", target(&entry.task.id, &name)));
        match started {
            // The container may have ended by itself.
            Err((9, _) | (5, _)) => {}
            Err(_) if entry.killed || ended(client, &entry.task.id) => {}
            Err(e) => self.verdict.statuses.push(format!("exec {name} of {}: {e:?}", entry.task.id)),
            Ok(_) => {
                self.verdict.execs += 1;
                let answer = client.call("Wait", target(&entry.task.id, &name)).map(|a| a.int(1));
                // A container that ends takes its execs with it.
                if answer != Ok(code) && answer != Ok(137) {
                    self.verdict
                        .statuses
                        .push(format!("exec {name} of {}: {answer:?}, not {code}", entry.task.id));
                }
                let _ = client.call("Delete", target(&entry.task.id, &name));
            }
        }
    }

    fn daemons_return(&mut self) {
        for entry in self.entries.iter_mut().filter(|e| e.client.is_none()) {
            match Client::connect(&entry.monitor.address) {
                Ok(client) => {
                    entry.waiting = client.begin("Wait", target(&entry.task.id, ""));
                    entry.client = Some(client);
                }
                Err(e) => self.verdict.lost.push(format!("{}: {e}", entry.task.id)),
            }
        }
    }

    /// Containers that ended are asked for their status, and their ledgers closed.
    fn close(&mut self, all: bool) {
        self.daemons_return();
        let mut open = Vec::new();
        for entry in std::mem::take(&mut self.entries) {
            let client = entry.client.as_ref().expect("a daemon");
            let old = entry.born.elapsed() > Duration::from_secs(3);
            if entry.killed && (old || all) {
                let _ = client.call("Kill", signal(&entry.task.id, 9));
            }
            if !client.connected() {
                self.verdict.lost.push(format!("{}: the monitor hung up", entry.task.id));
            } else if all || client.answered(entry.waiting) {
                self.finish(entry);
            } else {
                open.push(entry);
            }
        }
        self.entries = open;
    }

    fn finish(&mut self, entry: Entry) {
        let client = entry.client.as_ref().expect("a daemon");
        let id = &entry.task.id;
        let wanted = if entry.killed { 137 } else { entry.code };
        let status = client.answer(entry.waiting).map(|a: Fields| a.int(1));
        if status != Ok(wanted) {
            self.verdict.statuses.push(format!("{id}: {status:?}, not {wanted}"));
        }
        let deleted = client.call("Delete", target(id, "")).map(|a| a.int(2));
        if deleted != Ok(wanted) {
            self.verdict.statuses.push(format!("{id}: deleted with {deleted:?}, not {wanted}"));
        }
        let seen = entry.output.whole();
        self.verdict.lines += seen.lines;
        if seen.wrong.is_some() || (!entry.killed && seen.lines != entry.lines) {
            self.verdict
                .bytes
                .push(format!("{id}: {} lines of {}, {:?}", seen.lines, entry.lines, seen.wrong));
        }
        let start = Instant::now();
        let topics = ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"];
        let events = &entry.monitor.events;
        while events.topics(id, "").len() < topics.len() && start.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let told = events.topics(id, "");
        if told != topics {
            self.verdict.events.push(format!("{id}: {told:?}"));
        }
        let _ = client.call("Shutdown", target(id, ""));
        let _ = std::fs::remove_file(entry.task.stdout.as_ref().expect("fifo"));
        let _ = std::fs::remove_dir_all(&entry.monitor.bundle.dir);
    }
}

/// Has the container ended by itself? The runtime may see that, and refuse an exec, before the monitor has said so.
fn ended(client: &Client, id: &str) -> bool {
    const STOPPED: u64 = 3;
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(2) {
        match client.call("State", target(id, "")) {
            Ok(state) if state.int(4) != STOPPED => std::thread::sleep(Duration::from_millis(5)),
            Ok(_) => return true,
            Err(_) => return false,
        }
    }
    false
}

/// Waits for the end of what was killed: until then it looks like a head that is there, and the next fault would take the
/// other one, the last.
fn gone(pid: i32) {
    while host::alive(pid) {
        std::thread::sleep(Duration::from_micros(100));
    }
}

/// Sets the number of descriptors that a process may have. Returns what it was.
pub fn limit_files(pid: i32, most: u64) -> u64 {
    let mut old = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    sys::prlimit(pid, None, &mut old);
    let was = old.rlim_cur;
    sys::prlimit(pid, Some(libc::rlimit { rlim_cur: most, rlim_max: old.rlim_max }), &mut old);
    was
}

#[allow(unsafe_code)]
mod sys {
    pub fn prlimit(pid: i32, new: Option<libc::rlimit>, old: &mut libc::rlimit) {
        let new = new.as_ref().map_or(std::ptr::null(), |n| n as *const libc::rlimit);
        // SAFETY: both pointers are null or point to an rlimit that outlives the call.
        unsafe { libc::prlimit(pid, libc::RLIMIT_NOFILE, new, old) };
    }
}

pub fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

#[test]
fn storm() {
    if let Some(reason) = missing() {
        skip!("{reason}");
    }
    let (time, seed) = (setting("TIME", 10), setting("SEED", 1));
    let mut storm = Storm {
        dice: Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
        entries: Vec::new(),
        verdict: Verdict::default(),
        faults: BTreeMap::new(),
        number: 0,
    };
    let start = Instant::now();
    let mut said = Instant::now();
    while start.elapsed() < Duration::from_secs(time) {
        while storm.entries.len() < AT_ONCE {
            storm.start_one();
        }
        storm.fault();
        let pause = storm.dice.roll(30);
        std::thread::sleep(Duration::from_millis(pause));
        if storm.dice.roll(6) == 0 {
            storm.close(false);
        }
        if said.elapsed() > Duration::from_secs(60) {
            said = Instant::now();
            let v = &storm.verdict;
            println!("{} s: {} containers, {:?}", start.elapsed().as_secs(), v.containers, storm.faults);
            println!(
                "   lost {:?} bytes {:?} statuses {:?} events {:?}",
                v.lost, v.bytes, v.statuses, v.events
            );
        }
    }
    storm.close(true);
    let v = storm.verdict;
    println!(
        "storm of {time} s, seed {seed}: {} containers, {} execs, {:.1} MB of output",
        v.containers,
        v.execs,
        v.lines as f64 * 16e-6
    );
    storm.faults.iter().for_each(|(name, n)| println!("   {n:>6} {name}"));
    println!(
        "verdict: containers lost {}, bytes lost or doubled in {}, wrong or missing exit statuses {}, wrong events {}",
        v.lost.len(), v.bytes.len(), v.statuses.len(), v.events.len()
    );
    for (what, list) in
        [("lost", &v.lost), ("bytes", &v.bytes), ("status", &v.statuses), ("events", &v.events)]
    {
        assert!(list.is_empty(), "{what}: {list:#?}");
    }
}
