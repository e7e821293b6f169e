//! The face that containerd knows: `start`, `delete`, `-info`, `-v`.

use crate::api::*;
use crate::error::{Context, Error, Kind, Result};
use crate::flags::Flags;
use crate::pb::Message;
use crate::state::{Process, Root, Setup, Task};
use crate::sys::map::Map;
use crate::{heads, job, place, record, sha256, start, sys};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

const SOCKETS: &str = "/run/containerd/s";

pub fn run(flags: &Flags) -> Result<()> {
    if flags.version {
        println!("containerd-shim-hydra-v2:\n  Version:  {}", env!("CARGO_PKG_VERSION"));
        return Ok(());
    }
    if flags.info {
        return info();
    }
    if matches!(flags.action.as_str(), "start" | "delete") {
        place::check_name(&flags.namespace).context(|| "-namespace")?;
        place::check_name(&flags.id).context(|| "-id")?;
    }
    match flags.action.as_str() {
        "start" => {
            if let Some(address) = start_monitor(flags)? {
                print!("{address}");
                std::io::stdout().flush()?;
            }
            Ok(())
        }
        "delete" => delete(flags),
        "" => Err(Error::new(Kind::Invalid, "a shim is started by containerd, or with `shim run`")),
        other => Err(Error::new(Kind::Invalid, format!("unknown action {other}"))),
    }
}

fn stdin() -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::io::stdin().take(4 << 20).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Options on stdin: a bare Any up to containerd 2.2, one among the extensions of BootstrapParams since 2.3.
pub(crate) fn bootstrap(flags: &Flags, bytes: &[u8]) -> Result<(RuncOptions, BootstrapParams)> {
    if let Ok(params) = BootstrapParams::decode(bytes) {
        if params.instance_id == flags.id && params.namespace == flags.namespace && !flags.id.is_empty() {
            let any = params
                .extensions
                .iter()
                .filter_map(|e| e.value.as_ref())
                .find(|a| a.type_url.contains("Options"));
            return Ok((runc_options(any)?, params));
        }
    }
    let any = Any::decode(bytes).unwrap_or_default();
    Ok((runc_options(Some(&any))?, BootstrapParams::default()))
}

/// Starts the monitor, which answers, or finds the one that there is: its address.
fn start_monitor(flags: &Flags) -> Result<Option<String>> {
    // What the head is to inherit comes before it.
    adjust_oom_score();
    if std::env::var_os("SCHED_CORE").is_some_and(|v| !v.is_empty()) {
        sys::schedule_cores_alone().context(|| {
            "core scheduling for the monitor, which SCHED_CORE in the environment asks for (a kernel with CONFIG_SCHED_CORE has it, on \
             processors with more than one thread a core)"
        })?;
    }
    let head = start::begin(true)?;
    let (options, params) = bootstrap(flags, &stdin()?)?;
    let bundle = std::env::current_dir()?;
    let config = start::config(&bundle);
    // Also where the pod's monitor is there already: what it can't serve is refused before it is asked to.
    let mut setup = start::setup(&config)?;
    let group = start::group(&config, &flags.id)?;
    let grpc = if flags.address.is_empty() {
        std::env::var("GRPC_ADDRESS").unwrap_or_default()
    } else {
        flags.address.clone()
    };
    let sockets = if params.socket_dir.is_empty() { SOCKETS } else { &params.socket_dir };
    place::make(Path::new(sockets))?;
    if !options.shim_cgroup.is_empty() {
        join_cgroup(&options.shim_cgroup, head.pid)?;
    }
    let path = PathBuf::from(&grpc).join(&flags.namespace).join(&group);
    let socket = Path::new(sockets).join(sha256::hex(path.as_os_str().as_encoded_bytes()));
    let address = format!("unix://{}", socket.display());
    // containerd before 1.7 finds the shim again by this file, which it leaves to the shim to write.
    let temporary = bundle.join(".address");
    std::fs::write(&temporary, &address)
        .and_then(|()| std::fs::rename(&temporary, bundle.join("address")))
        .context(|| "writing the address")?;
    let Some(listener) = start::listen(&socket)? else { return Ok(Some(address)) };
    setup.namespace = flags.namespace.clone();
    setup.id = group.clone();
    setup.bundle = bundle.to_string_lossy().into_owned();
    setup.ttrpc_address = match params.containerd_ttrpc_address.is_empty() {
        true => std::env::var("TTRPC_ADDRESS").unwrap_or_else(|_| format!("{grpc}.ttrpc")),
        false => params.containerd_ttrpc_address,
    };
    setup.address = address.clone();
    setup.debug = flags.debug;
    setup.directory = place::run_dir(&flags.namespace, &group).to_string_lossy().into_owned();
    setup.disk = place::disk_dir(&flags.namespace, &group).to_string_lossy().into_owned();
    start::launch(head, setup, Some(listener), None)?;
    Ok(None)
}

/// A little more likely to be killed than containerd itself, as the Go shim does it. The monitor inherits it.
fn adjust_oom_score() {
    let parent = nix::unistd::getppid();
    let score = std::fs::read_to_string(format!("/proc/{parent}/oom_score_adj")).unwrap_or_default();
    if let Ok(score) = score.trim().parse::<i32>() {
        let _ = std::fs::write("/proc/self/oom_score_adj", (score + 1).min(1000).to_string());
    }
}

/// Moves the head into a cgroup, which is made where it is missing.
fn join_cgroup(path: &str, pid: i32) -> Result<()> {
    let base = Path::new("/sys/fs/cgroup");
    let path = path.trim_start_matches('/');
    let roots: Vec<PathBuf> = match base.join("cgroup.controllers").exists() {
        true => vec![base.to_path_buf()],
        false => std::fs::read_dir(base)?
            .flatten()
            .map(|e| e.path())
            .filter(|p| p.join("cgroup.procs").exists())
            .collect(),
    };
    for root in roots {
        let mut directory = root;
        for part in Path::new(path) {
            let parent = directory.clone();
            directory.push(part);
            match std::fs::create_dir(&directory) {
                Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
                    return Err(e).context(|| format!("making {}", directory.display()))
                }
                _ => fill_cpuset(&parent, &directory),
            }
        }
        let file = directory.join("cgroup.procs");
        std::fs::write(&file, pid.to_string()).context(|| format!("writing {}", file.display()))?;
    }
    Ok(())
}

/// A fresh cpuset of v1 is empty, and takes no process before it has processors and memory.
fn fill_cpuset(parent: &Path, directory: &Path) {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let has = |d: &Path| std::fs::read_to_string(d.join(file)).unwrap_or_default();
        if has(directory).trim().is_empty() {
            let _ = std::fs::write(directory.join(file), has(parent).trim());
        }
    }
}

/// A task as the monitor's last state has it, or as the bundle lets one guess.
struct Last {
    root: Root,
    task: Task,
    /// There is no state that this program can read.
    unread: bool,
}

fn last_state(flags: &Flags, bundle: &Path) -> Result<Last> {
    let config = start::config(bundle);
    let group = start::group(&config, &flags.id)?;
    let directory = place::run_dir(&flags.namespace, &group);
    let map = Map::look(&place::state_file(&directory)).ok();
    let mut root = map.and_then(|m| Root::decode(&m.committed()).ok()).unwrap_or_default();
    let unread = root.setup.directory.is_empty();
    if unread {
        root.setup = start::setup(&config).unwrap_or_default();
        root.setup.namespace = flags.namespace.clone();
        root.setup.id = group;
        root.setup.directory = directory.to_string_lossy().into_owned();
        root.setup.disk = place::disk_dir(&flags.namespace, &root.setup.id).to_string_lossy().into_owned();
    }
    let known = root.state.task(&flags.id).cloned();
    let mut task = known.clone().unwrap_or_else(|| Task {
        id: flags.id.clone(),
        bundle: bundle.to_string_lossy().into_owned(),
        options: job::kept_options(bundle),
        ..Task::default()
    });
    // It was being made, or all memory of it is lost. One that a state does not know was deleted.
    if task.init.pid == 0 && (unread || known.is_some()) {
        task.init.pid = job::kept_pid(bundle).filter(|pid| job::zombie_exit(*pid).is_none()).unwrap_or(0);
    }
    Ok(Last { root, task, unread })
}

/// So often the lock is tried that heads which were killed this moment may still hold, ...
const TRIES: u32 = 50;
/// ... and so long is waited in between.
const BETWEEN: std::time::Duration = std::time::Duration::from_millis(20);

/// The lock of a dead monitor's state: as long as this process has it, nobody gives the containers another monitor. None where no
/// state is left. `Exists`: the monitor lives; should it have been stopped, it goes on.
fn claim(setup: &Setup) -> Result<Option<OwnedFd>> {
    let directory = Path::new(&setup.directory);
    for _ in 0..TRIES {
        if !place::state_file(directory).exists() {
            return Ok(None);
        }
        match start::lock_state(directory, false) {
            Ok(Some(lock)) => return Ok(Some(lock)),
            Ok(None) => {}
            // It went just now: the monitor ended as usual.
            Err(_) if !place::state_file(directory).exists() => return Ok(None),
            Err(e) => return Err(e),
        }
        let map = Map::look(&place::state_file(directory));
        let heads = map.map_or(Vec::new(), |m| heads::living(&m, &setup.namespace, &setup.id));
        heads.iter().for_each(|pid| sys::continue_process(*pid));
        if !heads.is_empty() {
            break;
        }
        std::thread::sleep(BETWEEN);
    }
    Err(Error::new(Kind::Exists, format!("a monitor of {} is running", setup.id)))
}

/// containerd has no connection to the monitor. If that lives, the container runs on. If it died while containerd was away, the
/// container gets a new one and runs on; if it died under containerd's eyes, the container goes, unless it was asked to be kept.
/// It is also called when all is over, with nothing left to do; and then the monitor of a pod may live on with other containers.
fn delete(flags: &Flags) -> Result<()> {
    let bundle =
        if flags.bundle.is_empty() { std::env::current_dir()? } else { PathBuf::from(&flags.bundle) };
    place::sweep();
    let claimed = claim(&last_state(flags, &bundle)?.root.setup);
    // From here on it does not change, unless a monitor lives.
    let last = last_state(flags, &bundle)?;
    let (setup, task) = (&last.root.setup, &last.task);
    let (id, runs) = (&task.id, job::runs(task));
    let lock = match claimed {
        Ok(lock) => lock,
        Err(e) if e.kind() == Kind::Exists && (runs || last.unread) => return Err(watched(id)),
        Err(e) if e.kind() == Kind::Exists => None,
        Err(e) => return Err(e),
    };
    let mut answer =
        DeleteResponse { pid: task.init.pid, exit_status: 137, exited_at: Timestamp::from_ns(sys::now_ns()) };
    if task.init.exited() {
        answer.exit_status = task.init.exit_status;
        answer.exited_at = Timestamp::from_ns(task.init.exited_at);
    }
    if runs {
        if another_daemon(&last.root) {
            drop(lock);
            return Err(match crate::adopt::adopt(&setup.namespace, &setup.id) {
                Ok(_) => Error::new(Kind::State, format!("container {id} runs on, with a new monitor: the last one ended while containerd was away; the next start of containerd finds it")),
                Err(e) if e.kind() == Kind::Exists => watched(id),
                Err(e) => Error::new(e.kind(), format!("container {id} runs on without a monitor, `shim adopt {id}` tries again to give it one: {e}")),
            });
        }
        if task.limits(setup).on_loss == "keep" {
            std::io::stdout().write_all(&answer.bytes())?;
            return Ok(());
        }
        answer.exit_status = end_lost(&last, lock.as_ref());
    } else {
        delete_by_runtime(&last, lock.as_ref());
    }
    job::unmount_rootfs(task);
    let _ = nix::mount::umount2(&bundle.join("rootfs"), nix::mount::MntFlags::MNT_DETACH);
    std::io::stdout().write_all(&answer.bytes())?;
    Ok(())
}

fn watched(id: &str) -> Error {
    let text = format!("container {id} runs on: a monitor is there; the next start of containerd finds it");
    Error::new(Kind::State, text)
}

/// Did the containerd that asks start after the one that the monitor was connected to last?
fn another_daemon(root: &Root) -> bool {
    let caller = nix::unistd::getppid().as_raw() as u32;
    let since = job::start_ticks(caller).unwrap_or(0);
    root.daemon != 0 && (root.daemon, root.daemon_ticks) != (caller, since)
}

/// The container goes, and what a dead monitor, whose lock this is, left for it.
fn delete_by_runtime(last: &Last, lock: Option<&OwnedFd>) {
    let Last { root, task, unread } = last;
    let setup = &root.setup;
    let _ = std::process::Command::new(job::binary(setup, task))
        .args(["--root", &job::root(setup, task), "delete", "--force", &task.id])
        .env(job::ASKED, "1")
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status();
    let Some(lock) = lock else { return };
    let mut rest = root.clone();
    rest.state.tasks.retain(|t| t.id != task.id);
    rest.state.ops.retain(|o| o.task != task.id);
    let tasks = !rest.state.tasks.is_empty();
    // Another layout may hide others of a pod.
    if !(tasks || *unread && task.id != setup.id) {
        return place::discard_lost(setup);
    }
    place::forget(setup, &task.id);
    if tasks {
        let _ = Map::open(sys::number(lock), false).and_then(|map| map.commit(&rest.bytes()));
    }
}

/// Ends a container whose monitor was lost. The record that stays says so, with how the process really ended, where the kernel
/// can tell that.
fn end_lost(last: &Last, lock: Option<&OwnedFd>) -> u32 {
    let Last { root, task, .. } = last;
    let pidfd = sys::pidfd_open(task.init.pid as i32);
    let connector = sys::exits::listen(&[task.init.pid]);
    delete_by_runtime(last, lock);
    let seen = pidfd.ok().and_then(|fd| {
        let mut fds = [libc::pollfd { fd: fd.0, events: libc::POLLHUP, revents: 0 }];
        let _ = sys::poll(&mut fds, 1000);
        // Its parent is the host's first process, which may take its time to bury it.
        let heard = || connector.ok().and_then(|c| sys::exits::heard(c).pop());
        job::zombie_exit(task.init.pid).or_else(|| sys::pidfd_exit(fd)).or_else(heard)
    });
    let (exit_status, killed, unknown) = seen.map_or((137, true, true), |c| (c.code, c.killed, false));
    let lost = Process { exit_status, killed, unknown, exited_at: sys::now_ns(), ..task.init.clone() };
    let _ = place::make(Path::new(&root.setup.directory))
        .and_then(|()| record::write_lost(&root.setup, task, &lost));
    exit_status
}

fn info() -> Result<()> {
    let options = Any::decode(&stdin()?).ok().filter(|a| !a.type_url.is_empty());
    let task = Task { options: runc_options(options.as_ref()).unwrap_or_default(), ..Task::default() };
    let setup = start::setup(&start::Config::default())?;
    let features = std::process::Command::new(job::binary(&setup, &task)).arg("features").output().ok();
    let features = features.filter(|o| o.status.success()).map(|o| Any {
        type_url: "types.containerd.io/opencontainers/runtime-spec/1/features/Features".into(),
        value: o.stdout,
    });
    let info = RuntimeInfo {
        name: "io.containerd.hydra.v2".into(),
        version: Some(RuntimeVersion { version: env!("CARGO_PKG_VERSION").into(), revision: String::new() }),
        options,
        features,
        annotations: Vec::new(),
    };
    std::io::stdout().write_all(&info.bytes())?;
    Ok(())
}
