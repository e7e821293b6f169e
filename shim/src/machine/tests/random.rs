//! Random interleavings: clients that ask anything at any time and hang up, jobs that end in any order and fail, processes
//! that end before they are known, heads that die between any two steps.

use super::table::sound;
use super::*;
use std::collections::{BTreeMap, BTreeSet};

/// xorshift: the same seed makes the same run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % sides as u64) as usize
    }
}

/// The world around a state machine.
struct World {
    dice: Dice,
    state: State,
    now: u64,
    /// What the worker was told to do and has not done.
    records: Vec<(String, String)>,
    /// Pids of processes that run, and where they belong.
    living: BTreeMap<u32, (String, String)>,
    /// Those that a job has made and not yet told.
    unborn: BTreeMap<u64, u32>,
    /// Starts of what had ended before.
    doomed: BTreeSet<u64>,
    next_pid: u32,
    next_stream: u32,
    asked: BTreeSet<(u32, u32)>,
    answered: BTreeSet<(u32, u32)>,
    told: Vec<(String, String)>,
}

const TASKS: [&str; 2] = ["a", "b"];
const EXECS: [&str; 3] = ["", "x", "y"];

impl World {
    fn new(seed: u64) -> World {
        World {
            dice: Dice(seed * 2 + 1),
            state: State::default(),
            now: 1,
            records: Vec::new(),
            living: BTreeMap::new(),
            unborn: BTreeMap::new(),
            doomed: BTreeSet::new(),
            next_pid: 100,
            next_stream: 1,
            asked: BTreeSet::new(),
            answered: BTreeSet::new(),
            told: Vec::new(),
        }
    }

    fn event(&mut self, event: Event) {
        self.now += 1;
        let (state, actions) = step(std::mem::take(&mut self.state), event, self.now);
        sound(&state);
        self.state = state;
        for action in actions {
            match action {
                Action::Reply { asker, .. } => self.reply(&asker),
                Action::Stats { asker, .. } | Action::Attach { asker, .. } | Action::Upgrade { asker } => {
                    self.reply(&asker)
                }
                Action::Publish { topic, event, .. } => self.publish(topic, &event),
                Action::Record { task, exec } => self.records.push((task, exec)),
                Action::Spawn { op } => self.spawned(op),
                _ => {}
            }
        }
    }

    fn reply(&mut self, asker: &Asker) {
        let key = (asker.conn, asker.stream);
        assert!(self.asked.contains(&key), "nobody asked {key:?}");
        assert!(self.answered.insert(key), "{key:?} is answered twice");
    }

    /// A job that makes a process makes it at once; the process may be gone before the job is.
    fn spawned(&mut self, id: u64) {
        let Some(op) = self.state.ops.iter().find(|o| o.id == id) else { return };
        let pid = self.state.process(&op.task, "").map_or(0, |p| p.pid);
        if matches!(op.job, Job::Start | Job::Exec) && !self.living.contains_key(&pid) {
            self.doomed.insert(id);
        } else if matches!(op.job, Job::Create | Job::Exec) {
            self.next_pid += 1;
            self.living.insert(self.next_pid, (op.task.clone(), op.exec.clone()));
            self.unborn.insert(id, self.next_pid);
        }
    }

    fn publish(&mut self, topic: &str, event: &[u8]) {
        let has_exec = topic.starts_with("/tasks/exec") || topic == "/tasks/exit";
        let named = match has_exec {
            true => Target::decode(event).unwrap(),
            false => Target { id: TaskNamed::decode(event).unwrap().container_id, exec_id: String::new() },
        };
        let who = if named.exec_id != named.id { named.exec_id } else { String::new() };
        let key = format!("{} {who}", named.id);
        let before: Vec<&str> =
            self.told.iter().filter(|(k, _)| *k == key).map(|(_, t)| t.as_str()).collect();
        let last = before.last().copied().unwrap_or("nothing");
        let fits = match topic {
            "/tasks/create" => matches!(last, "nothing" | "/tasks/delete"),
            "/tasks/start" => last == "/tasks/create",
            "/tasks/exec-added" => !who.is_empty(),
            "/tasks/exec-started" => last == "/tasks/exec-added",
            "/tasks/exit" => matches!(last, "/tasks/create" | "/tasks/start" | "/tasks/exec-started"),
            "/tasks/delete" => matches!(last, "/tasks/exit" | "/tasks/create"),
            _ => return,
        };
        assert!(fits, "{topic} of {key} after {last}");
        if topic == "/tasks/exit" && who.is_empty() {
            let open = |p: &Process| p.pid != 0 && !p.recorded;
            // None: a Delete that waited for this was answered in the same step.
            let task = self.state.task(&named.id);
            assert!(!task.is_some_and(|t| t.execs.iter().any(open)), "init's exit is told before an exec's");
        }
        self.told.push((key, topic.to_string()));
    }

    fn ask(&mut self, method: &str, payload: Vec<u8>) {
        let asker = Asker { conn: 1 + self.dice.roll(2) as u32, stream: self.next_stream };
        self.next_stream += 2;
        self.asked.insert((asker.conn, asker.stream));
        self.event(Event::Request { asker, method: method.into(), payload });
    }

    fn ask_anything(&mut self) {
        let id: String = TASKS[self.dice.roll(2)].into();
        let exec_id: String = EXECS[self.dice.roll(3)].into();
        let target = Target { id: id.clone(), exec_id: exec_id.clone() };
        match self.dice.roll(13) {
            0 | 1 => self.ask("Create", CreateRequest { id, ..Default::default() }.bytes()),
            2..=4 => self.ask("Start", target.bytes()),
            5 if exec_id.is_empty() => self.ask("Pause", target.bytes()),
            5 | 6 => self.ask("Exec", ExecRequest { id, exec_id: "x".into(), ..Default::default() }.bytes()),
            7 => self.ask("Wait", target.bytes()),
            8 => self.ask("Kill", KillRequest { id, exec_id, signal: 9, all: self.now % 3 == 0 }.bytes()),
            9 | 10 => self.ask("Delete", target.bytes()),
            11 => self.ask("Resume", target.bytes()),
            _ => self.ask("State", target.bytes()),
        }
    }

    /// One job ends, well or badly.
    fn end_a_job(&mut self, well: bool) {
        if self.state.ops.is_empty() {
            return;
        }
        let at = self.dice.roll(self.state.ops.len());
        let op = self.state.ops[at].clone();
        let pid = self.unborn.remove(&op.id);
        if !well || self.doomed.remove(&op.id) {
            // A job that fails takes with it what it made.
            pid.map(|p| self.living.remove(&p));
            let error = Error::new(Kind::Runtime, "container does not run");
            return self.event(Event::Done { op: op.id, result: Err(error) });
        }
        let stdout = if op.job == Job::Ps { b"[1]".to_vec() } else { Vec::new() };
        self.event(Event::Done { op: op.id, result: Ok(Output { pid: pid.unwrap_or(0), ticks: 1, stdout }) });
    }

    fn end_a_process(&mut self) {
        if self.living.is_empty() {
            return;
        }
        let at = self.dice.roll(self.living.len());
        let pid = *self.living.keys().nth(at).unwrap();
        self.living.remove(&pid);
        self.event(Event::Exit { pid, code: 3, killed: false, core: false, unknown: false });
    }

    fn record_one(&mut self) {
        if !self.records.is_empty() {
            let at = self.dice.roll(self.records.len());
            let (task, exec) = self.records.remove(at);
            self.event(Event::Recorded { task, exec });
        }
    }

    /// A daemon restarts: all that it had asked is void, and never answered afterwards.
    fn hang_up(&mut self) {
        let conn = 1 + self.dice.roll(2) as u32;
        self.event(Event::Hangup { conn });
        let gone: Vec<(u32, u32)> = self.asked.iter().filter(|a| a.0 == conn).copied().collect();
        self.answered.extend(gone);
    }

    /// A head dies: its successor knows what was committed, and is told again what to do.
    fn die(&mut self) {
        self.state = State::decode(&self.state.bytes()).unwrap();
        for action in resume(&self.state) {
            if let Action::Record { task, exec } = action {
                if !self.records.contains(&(task.clone(), exec.clone())) {
                    self.records.push((task, exec));
                }
            }
        }
    }

    fn anything(&mut self) {
        match self.dice.roll(20) {
            0..=7 => self.ask_anything(),
            8..=12 => {
                let well = self.dice.roll(6) != 0;
                self.end_a_job(well)
            }
            13 | 14 => self.end_a_process(),
            15 | 16 => self.record_one(),
            17 => self.die(),
            18 => self.hang_up(),
            _ => self.event(Event::Tick),
        }
    }

    /// Everything comes to its end: then nobody is left without an answer, and nothing without an end.
    fn finish(&mut self) {
        for _ in 0..40 {
            self.end_a_job(true);
            self.end_a_process();
            self.record_one();
            for (task, exec) in TASKS.iter().flat_map(|t| EXECS.map(|e| (*t, e))) {
                self.event(Event::Drained { task: task.into(), exec: exec.into() });
            }
            self.now += DRAIN_NS;
            self.event(Event::Tick);
        }
        assert!(self.state.ops.is_empty() && self.state.queue.is_empty() && self.state.closing.is_empty());
        let waiting: Vec<(u32, u32)> =
            self.state.waiters.iter().map(|w| (w.asker.conn, w.asker.stream)).collect();
        let open: Vec<_> = self.asked.difference(&self.answered).filter(|a| !waiting.contains(a)).collect();
        assert!(open.is_empty(), "never answered: {open:?}");
        for waiter in &self.state.waiters {
            let p = self.state.process(&waiter.task, &waiter.exec).expect("waits for what there is");
            assert!(p.pid == 0, "{waiter:?} waits for what has ended: {p:?}");
        }
        for process in self.state.tasks.iter().flat_map(Task::processes).filter(|p| p.pid != 0) {
            assert!(process.recorded, "its end was never told: {process:?}");
        }
    }
}

#[test]
fn random_interleavings() {
    for seed in 0..400 {
        let caught = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            for _ in 0..120 {
                world.anything();
            }
            world.finish();
        });
        assert!(caught.is_ok(), "seed {seed}");
    }
}
