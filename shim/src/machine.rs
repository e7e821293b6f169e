//! The monitor's mind: `step(State, Event) -> (State, Vec<Action>)`. Pure: no descriptor, no clock, no file.
//!
//! An action that answers or tells (`Reply`, `Publish`) becomes true together with the state, in one commit. All others can be
//! told from the state alone (`resume`), so that a head that takes over does what its predecessor had decided and not done.

mod done;
mod request;
#[cfg(test)]
mod tests;

use crate::api::*;
use crate::error::{Error, Kind, Result};
use crate::pb::Message;
use crate::state::*;

/// How long a Delete waits for the rest of the output.
const DRAIN_NS: u64 = 10_000_000_000;
/// Exits of children nobody knows yet; more than that many at once can't be meant for us.
const STRAYS: usize = 4096;
/// Places for jobs; some are kept for those that nobody asks for (the end of a container, word to the daemon).
const OPS: u32 = crate::sys::map::OPS as u32;
const OWN_OPS: usize = 16;

#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    Request {
        asker: Asker,
        method: String,
        payload: Vec<u8>,
    },
    Hangup {
        conn: u32,
    },
    /// A job's process ended. `pid` is that of the container or exec, where the job made one.
    Done {
        op: u64,
        result: Result<Output>,
    },
    Exit {
        pid: u32,
        code: u32,
        killed: bool,
        core: bool,
        unknown: bool,
    },
    Oom {
        task: String,
        kills: u64,
    },
    /// The exit record of a process is on disk.
    Recorded {
        task: String,
        exec: String,
    },
    Drained {
        task: String,
        exec: String,
    },
    /// Time passed.
    Tick,
}

/// What a job brought back.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Output {
    pub pid: u32,
    pub ticks: u64,
    pub stdout: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    Reply {
        asker: Asker,
        result: Result<Vec<u8>>,
    },
    Publish {
        topic: &'static str,
        name: &'static str,
        event: Vec<u8>,
    },
    /// Make the pipes or terminal of a process.
    OpenStdio {
        task: String,
        exec: String,
    },
    CloseStdio {
        task: String,
        exec: String,
    },
    /// Start a job's process.
    Spawn {
        op: u64,
    },
    /// Look for a last OOM, write the exit record, and come back with `Recorded`.
    Record {
        task: String,
        exec: String,
    },
    Stats {
        asker: Asker,
        task: String,
    },
    Resize {
        task: String,
        exec: String,
        width: u32,
        height: u32,
    },
    CloseStdin {
        task: String,
        exec: String,
    },
    Attach {
        asker: Asker,
        request: AttachRequest,
    },
    /// The process's pid is known: watch it, and the container's memory.
    Watch {
        task: String,
        exec: String,
    },
    /// The task is gone: remove what the monitor kept for it.
    Forget {
        task: String,
    },
    Upgrade {
        asker: Asker,
    },
    End,
}

/// One step's work in progress.
pub(crate) struct Step {
    pub state: State,
    pub actions: Vec<Action>,
    pub now: u64,
}

/// Takes one event to the next state and to what has to be done. `now` is in ns since the epoch.
pub fn step(state: State, event: Event, now: u64) -> (State, Vec<Action>) {
    let mut step = Step { state, actions: Vec::new(), now };
    match event {
        Event::Request { asker, method, payload } => step.request(asker, &method, payload),
        Event::Hangup { conn } => step.hangup(conn),
        Event::Done { op, result } => step.done(op, result),
        Event::Exit { pid, code, killed, core, unknown } => {
            step.exit(Stray { pid, code, killed, core, at: now }, unknown)
        }
        Event::Oom { task, kills } => step.oom(&task, kills),
        Event::Recorded { task, exec } => step.recorded(&task, &exec),
        Event::Drained { task, exec } => {
            if let Some(p) = step.state.process_mut(&task, &exec) {
                p.drained = true;
            }
            step.close();
        }
        Event::Tick => step.close(),
    }
    step.settle();
    (step.state, step.actions)
}

/// What a head that takes over has to do: everything that was decided and may not have been done.
pub fn resume(state: &State) -> Vec<Action> {
    let mut actions: Vec<Action> = state.ops.iter().map(|op| Action::Spawn { op: op.id }).collect();
    for task in &state.tasks {
        for process in task.processes() {
            let (task, exec) = (task.id.clone(), process.id.clone());
            if process.recording && !process.recorded {
                actions.push(Action::Record { task: task.clone(), exec: exec.clone() });
            }
            if process.inputs.iter().any(|i| i.closing) {
                actions.push(Action::CloseStdin { task: task.clone(), exec: exec.clone() });
            }
            let job = |o: &Op| o.task == task && o.exec == exec;
            if process.pid == 0 && !state.ops.iter().any(job) && process.phase == Phase::Added {
                // An exec that failed, or was not started yet and has nothing to close.
                actions.push(Action::CloseStdio { task, exec });
            } else if process.pid != 0 && !process.exited() {
                actions.push(Action::Watch { task, exec });
            }
        }
    }
    if state.ending {
        actions.push(Action::End);
    }
    actions
}

impl Step {
    pub fn reply(&mut self, asker: Asker, result: Result<Vec<u8>>) {
        if asker.conn != 0 {
            self.actions.push(Action::Reply { asker, result });
        }
    }

    pub fn publish(&mut self, topic: &'static str, name: &'static str, event: &impl Message) {
        self.actions.push(Action::Publish { topic, name, event: event.bytes() });
    }

    pub fn spawn(&mut self, op: Op) {
        self.state.next_op += 1;
        // Not the slot of a job that this very step ends: until the commit a successor reads there that it was done.
        let taken: Vec<u32> = self.state.ops.iter().map(|o| o.slot).collect();
        let from = self.state.next_op as u32;
        let slot = (from..from + OPS).map(|n| n % OPS).find(|s| !taken.contains(s)).unwrap_or(0);
        let op = Op { id: self.state.next_op, slot, ..op };
        self.actions.push(Action::Spawn { op: op.id });
        self.state.ops.push(op);
    }

    fn hangup(&mut self, conn: u32) {
        self.state.waiters.retain(|w| w.asker.conn != conn);
        self.state.queue.retain(|q| q.asker.conn != conn);
        let askers = self
            .state
            .ops
            .iter_mut()
            .map(|o| &mut o.asker)
            .chain(self.state.closing.iter_mut().map(|c| &mut c.asker));
        for asker in askers.filter(|a| a.conn == conn) {
            // The job goes on; nobody waits for its answer.
            *asker = Asker::default();
        }
    }

    /// A child ended: the init or an exec of a container, or one that a job in flight is about to name.
    fn exit(&mut self, exit: Stray, unknown: bool) {
        let mut ended = None;
        for task in &mut self.state.tasks {
            let id = task.id.clone();
            let process = task.processes_mut().find(|p| p.pid == exit.pid && !p.exited());
            let Some(process) = process else { continue };
            process.exit_status = exit.code;
            process.killed = exit.killed;
            process.core = exit.core;
            process.unknown = unknown;
            process.exited_at = exit.at.max(1);
            process.phase = Phase::Stopped;
            ended = Some((id, process.id.is_empty()));
        }
        match ended {
            Some((task, true)) => return self.init_ended(&task),
            Some(_) => return,
            None => {}
        }
        let named_soon = |o: &Op| matches!(o.job, Job::Create | Job::Exec | Job::Restore);
        let known = self.state.strays.iter().any(|s| s.pid == exit.pid);
        if self.state.ops.iter().any(named_soon) && !unknown && !known && self.state.strays.len() < STRAYS {
            self.state.strays.push(exit);
        }
    }

    /// Processes that share a pid namespace outlive init and would hold its pipes: they are killed.
    fn init_ended(&mut self, task: &str) {
        if self.state.task(task).is_some_and(|t| t.shared_pids) {
            self.spawn(Op { job: Job::KillAll, task: task.into(), number: 9, ..Op::default() });
        }
    }

    fn oom(&mut self, task: &str, kills: u64) {
        let now = self.now;
        let Some(t) = self.state.tasks.iter_mut().find(|t| t.id == task) else { return };
        if kills > t.oom_kills {
            t.oom_kills = kills;
            t.oom_at = now;
            t.init.oom = true;
            self.publish("/tasks/oom", "containerd.events.TaskOOM", &TaskNamed { container_id: task.into() });
        }
    }

    /// After every event: exits that may now be told are sent to disk, waiting requests get their turn. One after the other: they may
    /// be many.
    fn settle(&mut self) {
        loop {
            self.tell_exits();
            let Some(at) = self.state.queue.iter().position(|q| !self.busy(&q.task, None)) else { return };
            let next = self.state.queue.remove(at);
            self.request(next.asker, &next.method, next.payload);
        }
    }

    fn tell_exits(&mut self) {
        let mut ready = Vec::new();
        for task in &self.state.tasks {
            let execs_out =
                task.execs.iter().any(|p| p.pid != 0 && !p.recorded) || self.busy(&task.id, Some(Job::Exec));
            for process in task.processes() {
                let starting = self.state.ops.iter().any(|o| {
                    o.task == task.id
                        && o.exec == process.id
                        && matches!(o.job, Job::Create | Job::Start | Job::Exec | Job::Restore)
                });
                // Callers rely on it: Start before Exit, and init's exit after those of its execs.
                let held = starting || (process.id.is_empty() && execs_out);
                if process.exited() && !process.recording && !held {
                    ready.push((task.id.clone(), process.id.clone()));
                }
            }
        }
        for (task, exec) in ready {
            if let Some(p) = self.state.process_mut(&task, &exec) {
                p.recording = true;
            }
            self.actions.push(Action::Record { task, exec });
        }
        if !self.state.ops.iter().any(|o| matches!(o.job, Job::Create | Job::Exec | Job::Restore)) {
            self.state.strays.clear();
        }
    }

    /// Is a job under way that keeps others off this container? `Some(job)` asks for that one alone.
    pub fn busy(&self, task: &str, job: Option<Job>) -> bool {
        self.state.ops.iter().any(|o| {
            o.task == task
                && match job {
                    Some(job) => o.job == job,
                    None => !matches!(
                        o.job,
                        Job::Exec
                            | Job::Kill
                            | Job::KillAll
                            | Job::Signal
                            | Job::Ps
                            | Job::Logger
                            | Job::Notify
                    ),
                }
        })
    }

    /// The exit is on disk: it is told, and those who wait are answered.
    fn recorded(&mut self, task: &str, exec: &str) {
        let Some(p) = self.state.process_mut(task, exec) else { return };
        if p.recorded {
            return;
        }
        p.recorded = true;
        let (pid, exit_status, at) = (p.pid, p.exit_status, p.exited_at);
        let id = if exec.is_empty() { task } else { exec };
        let event = TaskExit {
            container_id: task.into(),
            id: id.into(),
            pid,
            exit_status,
            exited_at: Timestamp::from_ns(at),
        };
        self.publish("/tasks/exit", "containerd.events.TaskExit", &event);
        let answer = WaitResponse { exit_status, exited_at: Timestamp::from_ns(at) }.bytes();
        let (mine, others): (Vec<Waiter>, Vec<Waiter>) = std::mem::take(&mut self.state.waiters)
            .into_iter()
            .partition(|w| w.task == task && w.exec == exec);
        self.state.waiters = others;
        for waiter in mine {
            self.reply(waiter.asker, Ok(answer.clone()));
        }
        if exec.is_empty() && self.state.task(task).is_some_and(|t| t.standalone) {
            self.spawn(Op { job: Job::Notify, task: task.into(), ..Op::default() });
        }
        self.close();
    }

    /// Finishes the Deletes that wait for nothing any more, and a standalone monitor's life.
    fn close(&mut self) {
        let now = self.now;
        let (ready, waiting): (Vec<Closing>, Vec<Closing>) =
            std::mem::take(&mut self.state.closing).into_iter().partition(|c| {
                let done = |p: &Process| p.pid == 0 || (p.recorded && p.handed_over());
                self.state.process(&c.task, &c.exec).is_none_or(done) || now >= c.until
            });
        self.state.closing = waiting;
        for closing in ready {
            self.deleted(closing);
        }
        let over = |t: &Task| t.standalone && t.init.recorded && t.init.handed_over() && !t.deleting;
        if self.state.tasks.iter().all(over)
            && !self.state.tasks.is_empty()
            && self.state.ops.is_empty()
            && !self.state.ending
        {
            self.state.ending = true;
            self.actions.push(Action::End);
        }
    }

    /// Whoever waits for the end of what is no more need not wait any longer.
    pub fn forget_waiters(&mut self, task: &str, exec: &str) {
        let (gone, others): (Vec<Waiter>, Vec<Waiter>) = std::mem::take(&mut self.state.waiters)
            .into_iter()
            .partition(|w| w.task == task && (exec.is_empty() || w.exec == exec));
        self.state.waiters = others;
        for waiter in gone {
            self.reply(waiter.asker, Err(not_found(&waiter.task, &waiter.exec)));
        }
    }

    fn deleted(&mut self, closing: Closing) {
        let Closing { task, exec, asker, .. } = closing;
        self.forget_waiters(&task, &exec);
        let Some(p) = self.state.process(&task, &exec).cloned() else {
            return self.reply(asker, Err(not_found(&task, &exec)));
        };
        self.actions.push(Action::CloseStdio { task: task.clone(), exec: exec.clone() });
        let exited_at = Timestamp::from_ns(p.exited_at);
        let answer = DeleteResponse { pid: p.pid, exit_status: p.exit_status, exited_at: exited_at.clone() };
        if exec.is_empty() {
            let event = TaskDelete {
                container_id: task.clone(),
                pid: p.pid,
                exit_status: p.exit_status,
                exited_at,
                id: String::new(),
            };
            self.publish("/tasks/delete", "containerd.events.TaskDelete", &event);
            // What nobody deleted goes with it.
            for left in self.state.task(&task).map_or(&[][..], |t| &t.execs) {
                self.actions.push(Action::CloseStdio { task: task.clone(), exec: left.id.clone() });
            }
            self.actions.push(Action::Forget { task: task.clone() });
            self.state.tasks.retain(|t| t.id != task);
        } else if let Some(t) = self.state.tasks.iter_mut().find(|t| t.id == task) {
            t.execs.retain(|p| p.id != exec);
        }
        self.reply(asker, Ok(answer.bytes()));
    }
}

pub(crate) fn not_found(task: &str, exec: &str) -> Error {
    match exec {
        "" => Error::new(Kind::NotFound, format!("container {task} does not exist")),
        exec => Error::new(Kind::NotFound, format!("process {exec} of container {task} does not exist")),
    }
}
