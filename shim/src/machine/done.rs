//! Jobs that ended: what their success or failure means.

use super::*;

impl Step {
    pub(super) fn done(&mut self, id: u64, result: Result<Output>) {
        let Some(at) = self.state.ops.iter().position(|o| o.id == id) else { return };
        let op = self.state.ops.remove(at);
        match (op.job, result) {
            (Job::Create, result) => self.created(op, result),
            (Job::Prepare, Ok(_)) => {
                self.set_phase(&op, Phase::Created);
                // As containerd's shim has it: without a process yet.
                self.tell_created(&op.task, 0);
                self.reply(op.asker, Ok(PidResponse { pid: 0 }.bytes()));
            }
            (Job::Prepare, Err(e)) => self.never_was(op, e),
            (Job::Start | Job::Restore, result) => self.started(op, result),
            (Job::Exec, result) => self.exec_started(op, result),
            (Job::Pause | Job::Resume, Ok(_)) => self.paused(op),
            (Job::Ps, result) => {
                let answer = self.pids(&op.task, result);
                self.reply(op.asker, answer);
            }
            (Job::Delete, result) => self.gone(op, result),
            (Job::Kill | Job::KillAll | Job::Signal, Err(e)) => self.reply(op.asker, Err(not_finished(e))),
            (_, Ok(_)) => self.reply(op.asker, Ok(Vec::new())),
            (_, Err(e)) => self.reply(op.asker, Err(e)),
        }
        self.close();
    }

    fn set_phase(&mut self, op: &Op, phase: Phase) {
        if let Some(p) = self.state.process_mut(&op.task, &op.exec) {
            if !p.exited() {
                p.phase = phase;
            }
        }
    }

    /// The pid is known: the exit may already be, too.
    fn born(&mut self, op: &Op, output: &Output, phase: Phase) -> u32 {
        let now = self.now;
        let Some(p) = self.state.process_mut(&op.task, &op.exec) else { return 0 };
        if p.pid == 0 {
            p.pid = output.pid;
            p.ticks = output.ticks;
        }
        if phase == Phase::Running {
            p.started_at = now;
        }
        p.spec.clear();
        let pid = p.pid;
        self.set_phase(op, phase);
        self.actions.push(Action::Watch { task: op.task.clone(), exec: op.exec.clone() });
        if let Some(at) = self.state.strays.iter().position(|s| s.pid == pid) {
            let stray = self.state.strays.remove(at);
            self.exit(stray, false);
        }
        pid
    }

    fn created(&mut self, op: Op, result: Result<Output>) {
        let output = match result {
            Ok(output) => output,
            Err(e) => return self.never_was(op, e),
        };
        let pid = self.born(&op, &output, Phase::Created);
        self.tell_created(&op.task, pid);
        self.reply(op.asker, Ok(PidResponse { pid }.bytes()));
    }

    fn tell_created(&mut self, task: &str, pid: u32) {
        let Some(task) = self.state.task(task).cloned() else { return };
        let event = TaskCreate {
            container_id: task.id,
            bundle: task.bundle,
            rootfs: task.rootfs,
            io: Some(TaskIo {
                stdin: task.init.stdin,
                stdout: task.init.stdout,
                stderr: task.init.stderr,
                terminal: task.init.terminal,
            }),
            checkpoint: task.checkpoint,
            pid,
        };
        self.publish("/tasks/create", "containerd.events.TaskCreate", &event);
    }

    /// A container that could not be made leaves nothing.
    fn never_was(&mut self, op: Op, e: Error) {
        self.actions.push(Action::CloseStdio { task: op.task.clone(), exec: String::new() });
        self.actions.push(Action::Forget { task: op.task.clone() });
        self.state.tasks.retain(|t| t.id != op.task);
        self.forget_waiters(&op.task, "");
        self.reply(op.asker, Err(e));
    }

    fn started(&mut self, op: Op, result: Result<Output>) {
        match result {
            Ok(output) => {
                let pid = self.born(&op, &output, Phase::Running);
                let event = TaskStart { container_id: op.task.clone(), pid };
                self.publish("/tasks/start", "containerd.events.TaskStart", &event);
                self.reply(op.asker, Ok(PidResponse { pid }.bytes()));
            }
            Err(e) => self.reply(op.asker, Err(e)),
        }
    }

    fn exec_started(&mut self, op: Op, result: Result<Output>) {
        match result {
            Ok(output) => {
                let pid = self.born(&op, &output, Phase::Running);
                let event = TaskExecStarted { container_id: op.task.clone(), exec_id: op.exec.clone(), pid };
                self.publish("/tasks/exec-started", "containerd.events.TaskExecStarted", &event);
                self.reply(op.asker, Ok(PidResponse { pid }.bytes()));
            }
            Err(e) => {
                self.actions.push(Action::CloseStdio { task: op.task.clone(), exec: op.exec.clone() });
                self.reply(op.asker, Err(e));
            }
        }
    }

    fn paused(&mut self, op: Op) {
        let pause = op.job == Job::Pause;
        if let Some(t) = self.state.tasks.iter_mut().find(|t| t.id == op.task) {
            t.paused = pause;
        }
        let event = TaskNamed { container_id: op.task };
        match pause {
            true => self.publish("/tasks/paused", "containerd.events.TaskPaused", &event),
            false => self.publish("/tasks/resumed", "containerd.events.TaskResumed", &event),
        }
        self.reply(op.asker, Ok(Vec::new()));
    }

    fn pids(&self, task: &str, listed: Result<Output>) -> Result<Vec<u8>> {
        let read = |output: Output| {
            let pids = serde_json::from_slice::<Option<Vec<u32>>>(&output.stdout).map_err(|e| {
                Error::new(Kind::Runtime, format!("the runtime's list of processes is not JSON: {e}"))
            })?;
            Ok(pids.unwrap_or_default())
        };
        // A container that has ended and is not deleted has its init, as a zombie is listed too: from 1.7 on a containerd that starts
        // takes one without processes for one that was never made, and deletes it before anybody could ask how it ended.
        let ended = self.state.task(task).map(|t| &t.init).filter(|p| p.exited());
        let pids = match (listed.and_then(read), ended) {
            (Ok(pids), None) => pids,
            (Ok(pids), Some(_)) if !pids.is_empty() => pids,
            (_, Some(init)) => vec![init.pid],
            (Err(e), None) => return Err(e),
        };
        let exec = |pid: u32| self.state.task(task)?.execs.iter().find(|p| p.pid == pid);
        let processes = pids
            .into_iter()
            .map(|pid| {
                let details = exec(pid).map(|p| ProcessDetails { exec_id: p.id.clone() });
                ProcessInfo {
                    pid,
                    info: details.and_then(|d| Any::of("containerd.runc.v1.ProcessDetails", &d)),
                }
            })
            .collect();
        Ok(PidsResponse { processes }.bytes())
    }

    fn gone(&mut self, op: Op, result: Result<Output>) {
        match result {
            Err(e) if !e.text().contains("does not exist") => {
                if let Some(t) = self.state.tasks.iter_mut().find(|t| t.id == op.task) {
                    t.deleting = false;
                }
                self.reply(op.asker, Err(e));
            }
            // A container that somebody else deleted is deleted.
            _ => {
                let until = self.now + DRAIN_NS;
                self.state.closing.push(Closing {
                    task: op.task,
                    exec: String::new(),
                    asker: op.asker,
                    until,
                });
            }
        }
    }
}

/// What the runtime says of a process that is no more, in the caller's words.
fn not_finished(e: Error) -> Error {
    let text = e.text().to_lowercase();
    let over = ["process already finished", "container not running", "no such process", "does not exist"];
    match over.iter().any(|o| text.contains(o)) {
        true => Error::new(Kind::NotFound, "process already finished"),
        false => e,
    }
}
