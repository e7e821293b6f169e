//! Requests: what each method does at once, and which job it starts.

use super::*;

type Answer = Result<Option<Vec<u8>>>;

/// What waits while another job changes the same container. State, Wait, Kill and the like never do.
const EXCLUSIVE: [&str; 7] = ["Start", "Delete", "Pause", "Resume", "Checkpoint", "Update", "Exec"];

impl Step {
    pub(super) fn request(&mut self, asker: Asker, method: &str, payload: Vec<u8>) {
        let target = Target::decode(&payload).unwrap_or_default();
        if EXCLUSIVE.contains(&method) && self.busy(&target.id, None) {
            self.state.queue.push(Queued { asker, method: method.into(), payload, task: target.id });
            return;
        }
        // Deleted but for the rest of its output: nothing begins any more.
        let going = self.state.closing.iter().any(|c| c.task == target.id && c.exec.is_empty());
        if EXCLUSIVE.contains(&method) && method != "Delete" && going {
            return self.reply(asker, Err(not_found(&target.id, "")));
        }
        match self.method(&asker, method, &payload, target) {
            Ok(Some(answer)) => self.reply(asker, Ok(answer)),
            // The answer comes later.
            Ok(None) => {}
            Err(e) => self.reply(asker, Err(e)),
        }
    }

    fn method(&mut self, asker: &Asker, method: &str, payload: &[u8], target: Target) -> Answer {
        match method {
            "Create" => self.create(asker, CreateRequest::decode(payload)?),
            "Start" => self.start(asker, target),
            "Exec" => self.exec(ExecRequest::decode(payload)?),
            "Delete" => self.delete(asker, target),
            "State" => self.describe(&target),
            "Wait" => self.wait(asker, target),
            "Kill" => self.kill(asker, KillRequest::decode(payload)?),
            "Pause" | "Resume" => self.pause(asker, &target, method == "Pause"),
            "Pids" => self.job(asker, &target.id, Op { job: Job::Ps, ..Op::default() }),
            "Update" => self.update(asker, UpdateRequest::decode(payload)?),
            "Checkpoint" => self.checkpoint(asker, CheckpointRequest::decode(payload)?),
            "Connect" => self.connect(&target),
            "Stats" => {
                self.task(&target.id)?;
                self.actions.push(Action::Stats { asker: asker.clone(), task: target.id });
                Ok(None)
            }
            "ResizePty" => {
                let r = ResizeRequest::decode(payload)?;
                self.process(&r.id, &r.exec_id)?;
                self.actions.push(Action::Resize {
                    task: r.id,
                    exec: r.exec_id,
                    width: r.width,
                    height: r.height,
                });
                Ok(Some(Vec::new()))
            }
            "CloseIO" => {
                let r = CloseIoRequest::decode(payload)?;
                self.process(&r.id, &r.exec_id)?;
                if r.stdin {
                    self.actions.push(Action::CloseStdin { task: r.id, exec: r.exec_id });
                }
                Ok(Some(Vec::new()))
            }
            "Shutdown" => {
                if self.state.tasks.is_empty() && !self.state.ending {
                    self.state.ending = true;
                    self.actions.push(Action::End);
                }
                Ok(Some(Vec::new()))
            }
            "Attach" => {
                let request = AttachRequest::decode(payload)?;
                self.process(&request.id, &request.exec_id)?;
                self.actions.push(Action::Attach { asker: asker.clone(), request });
                Ok(None)
            }
            "Upgrade" => {
                self.actions.push(Action::Upgrade { asker: asker.clone() });
                Ok(None)
            }
            other => {
                Err(Error::new(Kind::Unsupported, format!("method {other} is not part of this service")))
            }
        }
    }

    fn task(&mut self, id: &str) -> Result<&mut Task> {
        self.state.tasks.iter_mut().find(|t| t.id == id).ok_or_else(|| not_found(id, ""))
    }

    fn process(&mut self, id: &str, exec: &str) -> Result<&mut Process> {
        self.task(id)?.process_mut(exec).ok_or_else(|| not_found(id, exec))
    }

    /// May another job begin? Asked before anything is changed for its sake.
    fn has_place(&self) -> Result<()> {
        match self.state.ops.len() + OWN_OPS < OPS as usize {
            true => Ok(()),
            false => Err(Error::system(
                "too many requests are under way on this monitor: ask again when some are answered",
            )),
        }
    }

    /// Starts a job on an existing container, whose end answers the request.
    fn job(&mut self, asker: &Asker, task: &str, op: Op) -> Answer {
        self.task(task)?;
        self.has_place()?;
        self.spawn(Op { task: task.into(), asker: asker.clone(), ..op });
        Ok(None)
    }

    fn create(&mut self, asker: &Asker, r: CreateRequest) -> Answer {
        if self.state.task(&r.id).is_some() {
            return Err(Error::new(Kind::Exists, format!("container {} already exists", r.id)));
        }
        if self.state.ending {
            return Err(Error::new(Kind::State, "this monitor is shutting down"));
        }
        crate::place::check_name(&r.id)?;
        if !r.parent_checkpoint.is_empty() {
            let text =
                "a checkpoint names its parent itself (by the link `parent` in it): no other can be given";
            return Err(Error::new(Kind::Unsupported, text));
        }
        let options = runc_options(r.options.as_ref())?;
        self.has_place()?;
        let init = Process {
            stdin: r.stdin,
            stdout: r.stdout,
            stderr: r.stderr,
            terminal: r.terminal,
            ..Process::default()
        };
        let restore = !r.checkpoint.is_empty();
        let standalone = self.state.lost;
        self.state.tasks.push(Task {
            id: r.id.clone(),
            bundle: r.bundle,
            init,
            rootfs: r.rootfs,
            options,
            bare: says_nothing(r.options.as_ref()),
            checkpoint: r.checkpoint,
            standalone,
            ..Task::default()
        });
        // A restored container comes to life in Start: Create only lays out its rootfs.
        let job = if restore { Job::Prepare } else { Job::Create };
        if !restore {
            self.actions.push(Action::OpenStdio { task: r.id.clone(), exec: String::new() });
        }
        self.job(asker, &r.id, Op { job, ..Op::default() })
    }

    fn start(&mut self, asker: &Asker, t: Target) -> Answer {
        let task = self.task(&t.id)?;
        let (ended, paused, restore) = (task.init.exited(), task.paused, !task.checkpoint.is_empty());
        let init = task.init.phase;
        let process = task.process_mut(&t.exec_id).ok_or_else(|| not_found(&t.id, &t.exec_id))?;
        let state = |text: String| Err(Error::new(Kind::State, text));
        if t.exec_id.is_empty() {
            if process.phase != Phase::Created && !(process.exited() && process.started_at == 0) {
                return state(format!("container {} was already started", t.id));
            }
            let job = if restore { Job::Restore } else { Job::Start };
            if restore {
                self.actions.push(Action::OpenStdio { task: t.id.clone(), exec: String::new() });
            }
            return self.job(asker, &t.id, Op { job, ..Op::default() });
        }
        // As runc has it: also before init was started.
        if ended || !matches!(init, Phase::Created | Phase::Running) {
            return state(format!("container {} init process is not running", t.id));
        }
        if paused {
            return state(format!("container {} is paused", t.id));
        }
        if process.phase != Phase::Added
            || self.state.ops.iter().any(|o| o.task == t.id && o.exec == t.exec_id)
        {
            return state(format!("process {} was already started", t.exec_id));
        }
        self.actions.push(Action::OpenStdio { task: t.id.clone(), exec: t.exec_id.clone() });
        self.job(asker, &t.id, Op { job: Job::Exec, exec: t.exec_id, ..Op::default() })
    }

    fn exec(&mut self, r: ExecRequest) -> Answer {
        crate::place::check_name(&r.exec_id)?;
        let task = self.task(&r.id)?;
        if task.execs.iter().any(|p| p.id == r.exec_id) {
            return Err(Error::new(Kind::Exists, format!("id {} already exists", r.exec_id)));
        }
        if task.paused {
            return Err(Error::new(Kind::State, format!("container {} is paused", r.id)));
        }
        if task.init.phase == Phase::Stopped {
            return Err(Error::new(Kind::State, format!("container {} init process is not running", r.id)));
        }
        task.execs.push(Process {
            id: r.exec_id.clone(),
            stdin: r.stdin,
            stdout: r.stdout,
            stderr: r.stderr,
            terminal: r.terminal,
            spec: r.spec.unwrap_or_default().value,
            ..Process::default()
        });
        let event = TaskExecAdded { container_id: r.id, exec_id: r.exec_id };
        self.publish("/tasks/exec-added", "containerd.events.TaskExecAdded", &event);
        Ok(Some(Vec::new()))
    }

    fn delete(&mut self, asker: &Asker, t: Target) -> Answer {
        let now = self.now;
        let process = self.process(&t.id, &t.exec_id)?;
        if process.phase == Phase::Running {
            let what = if t.exec_id.is_empty() { &t.id } else { &t.exec_id };
            return Err(Error::new(Kind::State, format!("cannot delete a running process: {what}")));
        }
        if self.state.closing.iter().any(|c| c.task == t.id && c.exec == t.exec_id) {
            return Err(not_found(&t.id, &t.exec_id));
        }
        if t.exec_id.is_empty() {
            self.has_place()?;
            self.task(&t.id)?.deleting = true;
            return self.job(asker, &t.id, Op { job: Job::Delete, ..Op::default() });
        }
        if self.state.ops.iter().any(|o| o.task == t.id && o.exec == t.exec_id && o.job == Job::Exec) {
            return Err(Error::new(Kind::State, format!("process {} is being started", t.exec_id)));
        }
        self.state.closing.push(Closing {
            task: t.id,
            exec: t.exec_id,
            asker: asker.clone(),
            until: now + DRAIN_NS,
        });
        self.close();
        Ok(None)
    }

    fn describe(&mut self, t: &Target) -> Answer {
        let task = self.task(&t.id)?;
        let (bundle, paused) = (task.bundle.clone(), task.paused);
        let p = self.process(&t.id, &t.exec_id)?;
        let status = match p.phase {
            Phase::Added | Phase::Created => 1,
            // An exec is frozen with its container.
            Phase::Running if paused => 4,
            Phase::Running => 2,
            Phase::Stopped => 3,
        };
        let answer = StateResponse {
            id: t.id.clone(),
            bundle,
            pid: p.pid,
            status,
            stdin: p.stdin.clone(),
            stdout: p.stdout.clone(),
            stderr: p.stderr.clone(),
            terminal: p.terminal,
            exit_status: p.exit_status,
            exited_at: Timestamp::from_ns(p.exited_at),
            exec_id: t.exec_id.clone(),
        };
        Ok(Some(answer.bytes()))
    }

    fn wait(&mut self, asker: &Asker, t: Target) -> Answer {
        let p = self.process(&t.id, &t.exec_id)?;
        if p.recorded {
            let answer =
                WaitResponse { exit_status: p.exit_status, exited_at: Timestamp::from_ns(p.exited_at) };
            return Ok(Some(answer.bytes()));
        }
        self.state.waiters.push(Waiter { task: t.id, exec: t.exec_id, asker: asker.clone() });
        Ok(None)
    }

    fn kill(&mut self, asker: &Asker, r: KillRequest) -> Answer {
        let p = self.process(&r.id, &r.exec_id)?;
        let (pid, ended, phase) = (p.pid, p.exited(), p.phase);
        if ended && !r.all {
            return Err(Error::new(Kind::NotFound, "process already finished"));
        }
        if pid == 0 || phase == Phase::Added {
            return Err(Error::new(Kind::State, "process not created"));
        }
        let (exec, number) = (r.exec_id, r.signal);
        let job = match (exec.is_empty(), r.all) {
            (false, _) => Job::Signal,
            (true, false) => Job::Kill,
            (true, true) => Job::KillAll,
        };
        self.job(asker, &r.id, Op { job, exec, number, ..Op::default() })
    }

    fn pause(&mut self, asker: &Asker, t: &Target, pause: bool) -> Answer {
        let task = self.task(&t.id)?;
        if task.init.phase != Phase::Running || task.paused == pause {
            let text = format!("cannot {} container {}", if pause { "pause" } else { "resume" }, t.id);
            return Err(Error::new(Kind::State, text));
        }
        self.job(asker, &t.id, Op { job: if pause { Job::Pause } else { Job::Resume }, ..Op::default() })
    }

    fn update(&mut self, asker: &Asker, r: UpdateRequest) -> Answer {
        let mut input = r.resources.unwrap_or_default().value;
        if input.is_empty() {
            input = b"{}".to_vec();
        }
        let binary = self.task(&r.id)?.options.binary_name.clone();
        if let Some(knob) = r.annotations.iter().find(|p| p.key.starts_with("hydra.")) {
            if !crate::job::ours(&binary) {
                let text = format!(
                    "annotation {} can't be set on container {}: its runtime {binary} knows no knobs",
                    knob.key, r.id
                );
                return Err(Error::new(Kind::Unsupported, text));
            }
        }
        let args = r.annotations.iter().map(|p| format!("{}={}", p.key, p.value)).collect();
        self.job(asker, &r.id, Op { job: Job::Update, input, args, ..Op::default() })
    }

    fn checkpoint(&mut self, asker: &Asker, r: CheckpointRequest) -> Answer {
        let o = match r.options {
            Some(any) => CheckpointOptions::decode(&any.value)?,
            None => CheckpointOptions::default(),
        };
        let image = if o.image_path.is_empty() { r.path } else { o.image_path };
        let mut args = vec![format!("--image-path={image}")];
        if !o.work_path.is_empty() {
            args.push(format!("--work-path={}", o.work_path));
        }
        let switches = [
            (o.open_tcp, "--tcp-established"),
            (o.external_unix_sockets, "--ext-unix-sk"),
            (o.terminal, "--shell-job"),
            (o.file_locks, "--file-locks"),
            (!o.exit, "--leave-running"),
        ];
        args.extend(switches.iter().filter(|(on, _)| *on).map(|(_, s)| (*s).to_string()));
        args.extend(o.empty_namespaces.iter().map(|n| format!("--empty-ns={n}")));
        if !o.cgroups_mode.is_empty() {
            args.push(format!("--manage-cgroups-mode={}", o.cgroups_mode));
        }
        self.job(asker, &r.id, Op { job: Job::Checkpoint, args, ..Op::default() })
    }

    fn connect(&mut self, t: &Target) -> Answer {
        let shim_pid = self.state.shim_pid;
        // Also without a container: a containerd that was killed before it could ask for one finds the monitor by this, and ends it.
        let task_pid = self.state.task(&t.id).map_or(0, |t| t.init.pid);
        Ok(Some(ConnectResponse { shim_pid, task_pid, version: String::new() }.bytes()))
    }
}
