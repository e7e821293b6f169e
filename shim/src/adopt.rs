//! Taking over what lost every monitor process: the state file tells what there was, the FIFOs still hold the output.

use crate::error::{Error, Kind, Result};
use crate::pb::Message;
use crate::state::{Job, Op, Phase, Process, Root, Setup, Stream, Task};
use crate::stream::number;
use crate::sys::map::Map;
use crate::sys::{self, Fd};
use crate::{job, place, start};
use nix::fcntl::OFlag;
use std::path::Path;
use std::sync::atomic::Ordering::SeqCst;

/// So long is waited for jobs that were under way: containerd gives `shim delete` five seconds.
const JOBS: std::time::Duration = std::time::Duration::from_secs(3);

/// Starts a monitor for a container that has none. `Exists` if it has one.
pub fn adopt(namespace: &str, id: &str) -> Result<i32> {
    let directory = place::run_dir(namespace, id);
    let Some(state) = start::lock_state(&directory, false)? else {
        return Err(Error::new(Kind::Exists, format!("a monitor of {id} is running")));
    };
    let map = Map::open(sys::number(&state), false)?;
    let mut root = Root::decode(&map.committed())?;
    if root.state.tasks.is_empty() {
        return Err(Error::new(Kind::NotFound, format!("the last monitor of {id} had no container")));
    }
    settle_jobs(&mut root, &map)?;
    forget_processes(&mut root);
    if root.state.tasks.is_empty() {
        place::remove(&root.setup);
        let text = format!("the last monitor of {id} died before it had a container: what the runtime may have left of one goes with its `delete --force`");
        return Err(Error::new(Kind::NotFound, text));
    }
    let listener = match root.setup.address.strip_prefix("unix://") {
        Some(path) => start::listen(Path::new(path))?,
        None => None,
    };
    let setup = root.setup.clone();
    // Not before it is sure that there is something to take over: nothing here waits for it.
    let head = start::begin(true)?;
    let pid = head.pid;
    start::launch(head, setup, listener, Some((state, root)))?;
    Ok(pid)
}

/// What the jobs came to that were under way: their processes outlive the heads, and what they did only the runtime can tell. Their
/// callers are gone.
fn settle_jobs(root: &mut Root, map: &Map) -> Result<()> {
    let Root { setup, state, .. } = root;
    let end = std::time::Instant::now() + JOBS;
    for op in &state.ops {
        let pid = map.header().ops[op.slot as usize].load(SeqCst);
        while job::is_at_work(setup, op, pid) {
            if std::time::Instant::now() > end {
                let text = format!("the runtime is still at work on container {}, process {pid}: a new monitor can be had when it has ended", op.task);
                return Err(Error::new(Kind::State, text));
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
    for op in std::mem::take(&mut state.ops) {
        if let Some(task) = state.tasks.iter_mut().find(|t| t.id == op.task) {
            settle(setup, task, &op)?;
        }
        job::clear(setup, &op);
    }
    // One that was deleted in the runtime's eyes is so at the next Delete too.
    state.tasks.iter_mut().for_each(|t| t.deleting = false);
    Ok(())
}

fn settle(setup: &Setup, task: &mut Task, op: &Op) -> Result<()> {
    let now = sys::now_ns();
    let born = |p: &mut Process, pid: u32, phase: Phase| {
        (p.pid, p.ticks, p.phase) = (pid, job::start_ticks(pid).unwrap_or(0), phase);
        p.spec.clear();
        if phase == Phase::Running {
            p.started_at = now;
        }
    };
    if op.job == Job::Exec {
        if let (Some(pid), Some(p)) = (job::pid_written(setup, task, op), task.process_mut(&op.exec)) {
            born(p, pid, Phase::Running);
        }
        return Ok(());
    }
    if !matches!(op.job, Job::Create | Job::Restore | Job::Start | Job::Pause | Job::Resume) {
        return Ok(());
    }
    let Some(status) = job::status(setup, task)? else { return Ok(()) };
    match op.job {
        // Half of one is none: the runtime's process died over it.
        Job::Create | Job::Restore if status != "creating" => {
            let phase = if op.job == Job::Create { Phase::Created } else { Phase::Running };
            if let Some(pid) = job::pid_written(setup, task, op) {
                born(&mut task.init, pid, phase);
            }
            task.shared_pids = job::shared_pids(setup, task).exists();
        }
        Job::Start if status != "created" => {
            (task.init.phase, task.init.started_at) = (Phase::Running, now);
        }
        Job::Pause | Job::Resume => task.paused = status == "paused",
        _ => {}
    }
    Ok(())
}

/// Everything that lived in the dead heads: connections, jobs under way, descriptors.
fn forget_processes(root: &mut Root) {
    root.conns.clear();
    root.publisher = None;
    root.publisher_busy = false;
    root.log = 0;
    root.exits = 0;
    root.adopted = true;
    root.state.waiters.clear();
    root.state.queue.clear();
    root.state.closing.clear();
    root.state.strays.clear();
    let setup = root.setup.clone();
    for task in &mut root.state.tasks {
        task.cgroup_watch = 0;
        let id = task.id.clone();
        for process in task.processes_mut() {
            reopen(&id, process, &setup);
        }
    }
    root.state.tasks.retain(|t| t.init.pid != 0);
    for task in &mut root.state.tasks {
        task.execs.retain(|p| p.pid != 0);
    }
}

fn reopen(task: &str, p: &mut Process, setup: &Setup) {
    let same = job::start_ticks(p.pid).is_some_and(|t| t == p.ticks || p.ticks == 0);
    if p.pid != 0 && !p.exited() && !same {
        // It ended unseen: that is what the record says.
        p.exit_status = 255;
        p.unknown = true;
        p.exited_at = sys::now_ns();
        p.phase = Phase::Stopped;
    }
    (p.console, p.console_listener, p.pidfd) = (0, 0, 0);
    (p.child_in, p.child_out, p.child_err, p.stdin_pipe) = (0, 0, 0, 0);
    p.inputs.clear();
    p.unread.clear();
    p.heard = 0;
    p.recording = p.recorded;
    let name = place::name(setup, task, &p.id);
    for (n, slot) in [(1, &mut p.out), (2, &mut p.err)] {
        if let Some(stream) = slot.as_mut() {
            *stream = Stream {
                ring_keep: stream.ring_keep,
                path: stream.path.clone(),
                mark: stream.mark,
                ..Stream::default()
            };
            let fifo = Path::new(&setup.directory).join(format!("{name}.{n}"));
            stream.reopen = fifo.to_string_lossy().into_owned();
            let address = if n == 1 { &p.stdout } else { &p.stderr };
            stream.address = address.strip_prefix("fifo://").unwrap_or(address).to_string();
        }
    }
}

/// In the new monitor: opens again what was named.
pub fn open_again(stream: &mut Stream) {
    let open = |path: &str, flags: OFlag| -> u32 {
        let flags = flags | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
        nix::fcntl::open(path, flags, nix::sys::stat::Mode::empty()).map_or(0, |f| number(Fd::keep(f)))
    };
    if stream.reopen.is_empty() {
        return;
    }
    stream.source = open(&stream.reopen, OFlag::O_RDONLY | OFlag::O_NONBLOCK);
    if !stream.address.is_empty() {
        stream.sink = open(&stream.address, OFlag::O_RDWR | OFlag::O_NONBLOCK);
    }
    if !stream.path.is_empty() {
        stream.ring = open(&format!("{}.ring", stream.path), OFlag::O_RDWR);
        stream.spool =
            if stream.sink != 0 { open(&format!("{}.spool", stream.path), OFlag::O_RDWR) } else { 0 };
    }
    stream.reopen.clear();
}
