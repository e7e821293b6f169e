//! Jobs: what a forked child does before it becomes the runtime (or instead of it), and what its end says.
//!
//! All that needs memory (mount options, config.json, argument lists) happens in the child, so the monitor stays small.

use crate::api::RuncOptions;
use crate::error::{Context, Error, Kind, Result};
use crate::machine::Output;
use crate::place;
use crate::state::{Job, Op, Process, Setup, Task};
use crate::stream::fd;
use crate::sys::{self, Change, Fd};
use std::ffi::CString;
use std::path::{Path, PathBuf};

/// Our own runtime asks a container's monitor before it changes that; with this in its environment it was asked by one.
pub const ASKED: &str = "HYDRA_SHIM";
/// In the bundle: the container's first process, ...
const INIT_PID: &str = "init.pid";
/// ... and the options that say whose container it is, under the name and in the form that containerd's own shim gives them.
const OPTIONS: &str = "options.json";
/// Of a runtime's log or output so much is read.
const LIMIT: usize = 4 << 20;

fn file(setup: &Setup, op: &Op, kind: &str) -> PathBuf {
    Path::new(&setup.directory).join(format!("job-{}.{kind}", op.id))
}

pub fn pid_file(setup: &Setup, task: &Task, op: &Op) -> PathBuf {
    match op.job {
        Job::Exec => file(setup, op, "pid"),
        _ => Path::new(&task.bundle).join(INIT_PID),
    }
}

/// Runs in the child. Returns the exit code where there is nothing to exec.
pub fn child(setup: &Setup, task: &Task, op: &Op) -> i32 {
    sys::unblock_signals();
    let result = act(setup, task, op);
    match result {
        Ok(()) => 0,
        Err(e) => {
            let _ = std::fs::write(file(setup, op, "err"), e.text());
            1
        }
    }
}

fn act(setup: &Setup, task: &Task, op: &Op) -> Result<()> {
    let none = Process::default();
    let process = task.process(&op.exec).unwrap_or(&none);
    match op.job {
        Job::Signal => return signal(process, op.number),
        Job::Notify => return notify(setup, task),
        Job::Create | Job::Prepare => {
            crate::record::reserve(setup, &task.id)?;
            mount_rootfs(task)?;
            look_at_config(setup, task)?;
            keep_options(setup, task)?;
            if op.job == Job::Prepare {
                return Ok(());
            }
        }
        Job::Exec => {
            std::fs::write(file(setup, op, "json"), spec(process)).context(|| "writing the exec's process")?
        }
        _ => {}
    }
    start_logger(setup, task, process)?;
    stdio(setup, process, op)?;
    let makes = matches!(op.job, Job::Create | Job::Restore);
    match std::env::set_current_dir(&task.bundle) {
        // A daemon that lost sight of the container removed it. Only what makes a container reads there.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && !makes => std::env::set_current_dir("/"),
        other => other,
    }
    .context(|| format!("entering the bundle {}", task.bundle))?;
    let systemd = task.options.systemd_cgroup || (makes && task.bare && config(task)?.names_a_scope());
    let args = arguments(setup, task, process, op, systemd);
    exec(&args)
}

/// Who takes the output of the process that is about to be made is there, and ready, before it is.
pub fn start_logger(setup: &Setup, task: &Task, process: &Process) -> Result<()> {
    let end = |s: &Option<crate::state::Stream>| s.as_ref().and_then(|s| fd(s.logger));
    match end(&process.out) {
        Some(out) => crate::logger::start(setup, &task.id, &process.stdout, out, end(&process.err)),
        None => Ok(()),
    }
}

/// The exec's process as the runtime is to have it: whether it gets a terminal the request says, and not its specification.
fn spec(process: &Process) -> Vec<u8> {
    match serde_json::from_slice(&process.spec) {
        Ok(serde_json::Value::Object(mut spec)) => {
            spec.insert("terminal".into(), process.terminal.into());
            serde_json::to_vec(&spec).unwrap_or_else(|_| process.spec.clone())
        }
        // The runtime says what is wrong with it.
        _ => process.spec.clone(),
    }
}

/// Replaces this process by a program; `NOTIFY_SOCKET` is the daemon's, not the container's.
fn exec(args: &[String]) -> Result<()> {
    std::env::remove_var("NOTIFY_SOCKET");
    std::env::set_var(ASKED, "1");
    let c: Vec<CString> = args.iter().filter_map(|a| CString::new(a.as_bytes()).ok()).collect();
    let program = c.first().ok_or_else(|| Error::system("an empty command"))?;
    match nix::unistd::execvp(program, &c) {
        Ok(never) => match never {},
        Err(e) => Err(e).context(|| format!("executing {}", args[0])),
    }
}

/// `runtime` beside this program, or found in `$PATH`; or the one that the options name.
pub fn binary(setup: &Setup, task: &Task) -> String {
    if !task.options.binary_name.is_empty() {
        return task.options.binary_name.clone();
    }
    let beside = Path::new(&setup.exe).with_file_name("runtime");
    match beside.is_file() {
        true => beside.to_string_lossy().into_owned(),
        false => "runtime".into(),
    }
}

/// Is it our own runtime that the options name, or name none?
pub fn ours(binary_name: &str) -> bool {
    binary_name.is_empty() || Path::new(binary_name).file_name().is_some_and(|n| n == "runtime")
}

pub fn root(setup: &Setup, task: &Task) -> String {
    if !setup.runtime_root.is_empty() {
        return setup.runtime_root.clone();
    }
    let root = if task.options.root.is_empty() { "/run/containerd/hydra" } else { &task.options.root };
    format!("{root}/{}", setup.namespace)
}

/// `systemd`: the container's cgroup is systemd's to make.
pub fn arguments(setup: &Setup, task: &Task, process: &Process, op: &Op, systemd: bool) -> Vec<String> {
    let path = |p: PathBuf| p.to_string_lossy().into_owned();
    let mut args = vec![binary(setup, task), "--root".into(), root(setup, task), "--log".into()];
    args.extend([path(file(setup, op, "log")), "--log-format".into(), "json".into()]);
    if systemd {
        args.push("--systemd-cgroup".into());
    }
    let mut add = |more: &[&str]| args.extend(more.iter().map(|s| (*s).to_string()));
    let pid = path(pid_file(setup, task, op));
    let id = task.id.as_str();
    let console = path(place::console_socket(setup, &task.id, &process.id));
    let create = |add: &mut dyn FnMut(&[&str])| {
        if process.terminal {
            add(&["--console-socket", &console]);
        }
        if task.options.no_pivot_root {
            add(&["--no-pivot"]);
        }
    };
    match op.job {
        Job::Create => {
            add(&["create", "--bundle", &task.bundle, "--pid-file", &pid]);
            create(&mut add);
            if task.options.no_new_keyring {
                add(&["--no-new-keyring"]);
            }
            add(&[id]);
        }
        Job::Restore => {
            add(&[
                "restore",
                "--detach",
                "--no-subreaper",
                "--image-path",
                &task.checkpoint,
                "--pid-file",
                &pid,
            ]);
            add(&["--bundle", &task.bundle]);
            if !task.options.criu_work_path.is_empty() {
                add(&["--work-path", &task.options.criu_work_path]);
            }
            create(&mut add);
            add(&[id]);
        }
        Job::Exec => {
            add(&["exec", "--detach", "--process", &path(file(setup, op, "json")), "--pid-file", &pid]);
            if process.terminal {
                add(&["--console-socket", &console]);
            }
            add(&[id]);
        }
        Job::Start => add(&["start", id]),
        Job::Pause => add(&["pause", id]),
        Job::Resume => add(&["resume", id]),
        Job::Kill => add(&["kill", id, &op.number.to_string()]),
        Job::KillAll => add(&["kill", "--all", id, &op.number.to_string()]),
        Job::Ps => add(&["ps", "--format", "json", id]),
        Job::Delete if process.exited() => add(&["delete", id]),
        Job::Delete | Job::Cleanup => add(&["delete", "--force", id]),
        Job::Checkpoint => {
            add(&["checkpoint"]);
            op.args.iter().for_each(|a| add(&[a]));
            add(&[id]);
        }
        Job::Update => {
            add(&["update", "--resources=-"]);
            // Knobs live: annotations are known to our own runtime alone.
            if ours(&task.options.binary_name) {
                op.args.iter().for_each(|a| add(&["--annotation", a]));
            }
            add(&[id]);
        }
        Job::None | Job::Signal | Job::Prepare | Job::Logger | Job::Notify => {}
    }
    args
}

/// The runtime's stdio: the container's own where it makes a process, files of the job otherwise.
fn stdio(setup: &Setup, process: &Process, op: &Op) -> Result<()> {
    let open = |kind: &str| -> Result<Fd> {
        let path = file(setup, op, kind);
        let f = std::fs::File::create(&path).context(|| format!("making {}", path.display()))?;
        Ok(Fd::keep(f.into()))
    };
    let null = || -> Result<Fd> {
        let f = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/null")
            .context(|| "opening /dev/null")?;
        Ok(Fd::keep(f.into()))
    };
    let makes = matches!(op.job, Job::Create | Job::Exec | Job::Restore);
    let input = if op.input.is_empty() { null()? } else { memory(&op.input)? };
    let (stdin, stdout, stderr) = if makes && !process.terminal {
        let pick = |n: u32| fd(n).map_or_else(null, Ok);
        (pick(process.child_in)?, pick(process.child_out)?, pick(process.child_err)?)
    } else {
        (input, open("out")?, open("err")?)
    };
    sys::set_stdio(stdin, stdout, stderr).context(|| "setting the runtime's stdio")
}

/// A file in memory that holds `bytes`, at its start.
fn memory(bytes: &[u8]) -> Result<Fd> {
    use std::io::{Seek, Write};
    let fd = nix::sys::memfd::memfd_create(c"input", nix::sys::memfd::MFdFlags::MFD_CLOEXEC)
        .context(|| "making a memfd")?;
    let mut f = std::fs::File::from(fd);
    f.write_all(bytes)?;
    f.rewind()?;
    Ok(Fd::keep(f.into()))
}

fn signal(process: &Process, number: u32) -> Result<()> {
    let pidfd = fd(process.pidfd).ok_or_else(|| Error::new(Kind::NotFound, "process already finished"))?;
    sys::pidfd_signal(pidfd, number as i32).map_err(|e| match e {
        nix::errno::Errno::ESRCH => Error::new(Kind::NotFound, "process already finished"),
        e => e.into(),
    })
}

/// The paper's out-of-band word to the daemon: a signal to the process that a file names, and a command.
fn notify(setup: &Setup, task: &Task) -> Result<()> {
    if !setup.notify_pidfile.is_empty() {
        let pid =
            std::fs::read_to_string(&setup.notify_pidfile).ok().and_then(|t| t.trim().parse::<i32>().ok());
        if let Some(pidfd) = pid.filter(|p| *p > 1).and_then(|p| sys::pidfd_open(p).ok()) {
            let _ = sys::pidfd_signal(pidfd, setup.notify_signal as i32);
        }
    }
    if setup.exit_command.is_empty() {
        return Ok(());
    }
    std::env::set_var("CONTAINER_ID", &task.id);
    std::env::set_var("CONTAINER_EXIT_STATUS", task.init.exit_status.to_string());
    std::env::set_var("CONTAINER_EXIT_RECORD", Path::new(&setup.directory).join("exit.json"));
    exec(&setup.exit_command)
}

#[derive(serde::Deserialize)]
struct Config {
    linux: Option<Linux>,
}
#[derive(serde::Deserialize)]
struct Linux {
    #[serde(default)]
    namespaces: Vec<Namespace>,
    #[serde(default, rename = "cgroupsPath")]
    cgroups_path: String,
}
#[derive(serde::Deserialize)]
struct Namespace {
    #[serde(rename = "type")]
    kind: String,
    path: Option<String>,
}

impl Config {
    /// Does the cgroup's path have the form that is meant for systemd, SLICE:PREFIX:NAME? Docker and containerd's CRI write it, and tell
    /// a shim of another name than their own nothing else.
    fn names_a_scope(&self) -> bool {
        let path = self.linux.as_ref().map_or("", |l| &l.cgroups_path);
        matches!(path.split(':').collect::<Vec<_>>()[..], [slice, _, name] if slice.ends_with(".slice") && !name.is_empty())
    }
}

fn config(task: &Task) -> Result<Config> {
    let path = Path::new(&task.bundle).join("config.json");
    let text = std::fs::read(&path).context(|| format!("reading {}", path.display()))?;
    serde_json::from_slice(&text)
        .map_err(|e| Error::new(Kind::Invalid, format!("parsing {}: {e}", path.display())))
}

/// Leaves a file behind where the container has no pid namespace of its own: its processes then outlive init.
fn look_at_config(setup: &Setup, task: &Task) -> Result<()> {
    let own = |n: &Namespace| n.kind == "pid" && n.path.as_deref().unwrap_or_default().is_empty();
    if !config(task)?.linux.is_some_and(|l| l.namespaces.iter().any(own)) {
        std::fs::write(shared_pids(setup, task), "")?;
    }
    Ok(())
}

#[derive(serde::Serialize, serde::Deserialize, Default)]
#[serde(default)]
struct Options {
    binary_name: String,
    root: String,
}

/// Leaves in the bundle what `shim delete` has to know should the monitor's state be lost, too. A standalone monitor's bundle is its user's.
fn keep_options(setup: &Setup, task: &Task) -> Result<()> {
    if setup.standalone {
        return Ok(());
    }
    let path = Path::new(&task.bundle).join(OPTIONS);
    let kept = Options { binary_name: task.options.binary_name.clone(), root: task.options.root.clone() };
    let text = serde_json::to_vec(&kept).unwrap_or_default();
    std::fs::write(&path, text).context(|| format!("writing {}", path.display()))
}

/// What a bundle tells of its container's options.
pub fn kept_options(bundle: &Path) -> RuncOptions {
    let text = std::fs::read(bundle.join(OPTIONS)).unwrap_or_default();
    let kept: Options = serde_json::from_slice(&text).unwrap_or_default();
    RuncOptions { binary_name: kept.binary_name, root: kept.root, ..RuncOptions::default() }
}

/// And of its first process.
pub fn kept_pid(bundle: &Path) -> Option<u32> {
    std::fs::read_to_string(bundle.join(INIT_PID)).ok()?.trim().parse().ok()
}

pub fn shared_pids(setup: &Setup, task: &Task) -> PathBuf {
    Path::new(&setup.directory).join(format!("{}.shared-pids", task.id))
}

fn mount_rootfs(task: &Task) -> Result<()> {
    if task.rootfs.is_empty() {
        return Ok(());
    }
    let rootfs = Path::new(&task.bundle).join("rootfs");
    std::fs::create_dir_all(&rootfs).context(|| "making the rootfs directory")?;
    for mount in &task.rootfs {
        let target = mount_point(&rootfs, &mount.target)?;
        crate::rootfs::mount(mount, &target, Path::new(&task.bundle))
            .context(|| format!("mounting {} at {}", mount.source, target.display()))?;
    }
    Ok(())
}

/// A place within the rootfs. What lies there already is the image's: a link in it could lead to the host's own places.
fn mount_point(rootfs: &Path, target: &str) -> Result<PathBuf> {
    use std::path::Component;
    let mut path = rootfs.to_path_buf();
    for part in Path::new(target).components() {
        match part {
            Component::Normal(name) => path.push(name),
            Component::RootDir | Component::CurDir => continue,
            _ => {
                return Err(Error::new(
                    Kind::Invalid,
                    format!("the mount target {target} leads out of the rootfs"),
                ))
            }
        }
        if path.is_symlink() {
            let text = format!(
                "the mount target {target} leads through the symbolic link {}: it has to be a directory",
                path.display()
            );
            return Err(Error::new(Kind::Invalid, text));
        }
    }
    Ok(path)
}

pub fn unmount_rootfs(task: &Task) {
    let rootfs = Path::new(&task.bundle).join("rootfs");
    for mount in task.rootfs.iter().rev() {
        if let Ok(target) = mount_point(&rootfs, &mount.target) {
            let flags = nix::mount::MntFlags::MNT_DETACH | nix::mount::MntFlags::UMOUNT_NOFOLLOW;
            let _ = nix::mount::umount2(&target, flags);
        }
    }
}

/// Is this a job's process, which its arguments say also when all heads are dead?
pub fn is_at_work(setup: &Setup, op: &Op, pid: i32) -> bool {
    let log = file(setup, op, "log");
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    pid > 0 && line.split(|b| *b == 0).any(|word| word == log.as_os_str().as_encoded_bytes())
}

/// Is a container's first process there, and not another one of the same number?
pub fn runs(task: &Task) -> bool {
    let init = &task.init;
    let same = |t: u64| t == init.ticks || init.ticks == 0;
    init.pid != 0 && !init.exited() && start_ticks(init.pid).is_some_and(same)
}

/// The pid that the runtime wrote for a job.
pub fn pid_written(setup: &Setup, task: &Task, op: &Op) -> Option<u32> {
    std::fs::read_to_string(pid_file(setup, task, op)).ok()?.trim().parse().ok()
}

/// What the runtime says of a container. None: it knows none.
pub fn status(setup: &Setup, task: &Task) -> Result<Option<String>> {
    #[derive(serde::Deserialize)]
    struct State {
        status: String,
    }
    let program = binary(setup, task);
    let said = std::process::Command::new(&program)
        .args(["--root", &root(setup, task), "state", &task.id])
        .env(ASKED, "1")
        .stdin(std::process::Stdio::null())
        .output()
        .context(|| format!("asking {program} for the state of {}", task.id))?;
    if !said.status.success() {
        return Ok(None);
    }
    let state: State = serde_json::from_slice(&said.stdout).map_err(|e| {
        Error::new(Kind::Runtime, format!("what {program} says of {} is no state: {e}", task.id))
    })?;
    Ok(Some(state.status))
}

/// What a job that ended has to say. Its files are removed by `clear`, once the outcome is committed.
pub fn outcome(setup: &Setup, task: Option<&Task>, op: &Op, change: &Change) -> Result<Output> {
    if change.code != 0 {
        return Err(failure(setup, op, change));
    }
    let mut output = Output::default();
    match (op.job, task) {
        (Job::Create | Job::Exec | Job::Restore, Some(task)) => {
            let path = pid_file(setup, task, op);
            let text = read(&path);
            output.pid = std::str::from_utf8(&text).unwrap_or_default().trim().parse().map_err(|_| {
                Error::new(Kind::Runtime, format!("the runtime wrote no pid into {}", path.display()))
            })?;
            output.ticks = start_ticks(output.pid).unwrap_or(0);
        }
        (Job::Ps, _) => output.stdout = read(&file(setup, op, "out")),
        _ => {}
    }
    Ok(output)
}

pub fn clear(setup: &Setup, op: &Op) {
    for kind in ["log", "out", "err", "json", "pid"] {
        let _ = std::fs::remove_file(file(setup, op, kind));
    }
}

fn read(path: &Path) -> Vec<u8> {
    let mut text = Vec::new();
    if let Ok(f) = sys::insist(|| std::fs::File::open(path)) {
        use std::io::Read;
        let _ = f.take(LIMIT as u64).read_to_end(&mut text);
    }
    text
}

#[derive(serde::Deserialize)]
struct LogLine {
    #[serde(default)]
    level: String,
    #[serde(default)]
    msg: String,
}

/// The runtime's own words: the last error in its log, else what it printed, in the form that callers know.
fn failure(setup: &Setup, op: &Op, change: &Change) -> Error {
    let what = match op.job {
        Job::Create => "OCI runtime create failed",
        Job::Start => "OCI runtime start failed",
        Job::Exec => "OCI runtime exec failed",
        Job::Kill | Job::KillAll => "OCI runtime kill failed",
        Job::Pause => "OCI runtime pause failed",
        Job::Resume => "OCI runtime resume failed",
        Job::Update => "OCI runtime update failed",
        Job::Checkpoint => "OCI runtime checkpoint failed",
        Job::Restore => "OCI runtime restore failed",
        Job::Ps => "OCI runtime ps failed",
        Job::Delete => "failed to delete task",
        _ => "",
    };
    let log = read(&file(setup, op, "log"));
    let last = serde_json::Deserializer::from_slice(&log)
        .into_iter::<LogLine>()
        .map_while(std::result::Result::ok)
        .filter(|l| l.level == "error")
        .last();
    let said = match last {
        Some(line) => line.msg,
        None => String::from_utf8_lossy(&read(&file(setup, op, "err"))).trim().to_string(),
    };
    let said = if said.is_empty() { format!("exit status {}", change.code) } else { said };
    match what {
        "" => Error::new(Kind::Runtime, said),
        what => Error::new(Kind::Runtime, format!("{what}: {said}")),
    }
}

/// Field 22 of /proc/PID/stat: tells a process from a later one with its number.
pub fn start_ticks(pid: u32) -> Option<u64> {
    stat_field(pid, 22)
}

pub fn stat_field(pid: u32, n: usize) -> Option<u64> {
    stat(pid)?.get(n - 3)?.parse().ok()
}

/// The fields of /proc/PID/stat from the third on.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name may hold anything; the last parenthesis ends it, and is field 2.
    Some(text[text.rfind(')')? + 1..].split_ascii_whitespace().map(String::from).collect())
}

/// How a zombie ended, which anybody with the right to trace it may read (field 52).
pub fn zombie_exit(pid: u32) -> Option<Change> {
    let fields = stat(pid)?;
    if fields.first()? != "Z" {
        return None;
    }
    Some(sys::ended(pid as i32, fields.get(49)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_is_meant_for_systemd() {
        let of = |linux: &str| {
            let config: Config = serde_json::from_str(&format!("{{\"linux\":{linux}}}")).unwrap();
            config.names_a_scope()
        };
        assert!(of(r#"{"cgroupsPath":"system.slice:docker:0123"}"#));
        assert!(of(r#"{"cgroupsPath":"kubepods-pod1.slice:cri-containerd:0123"}"#));
        for other in [
            "/docker/0123",
            "a:b:c",
            "system.slice",
            "system.slice:docker",
            "a.slice:b:c:d",
            "a.slice:b:",
            "",
        ] {
            assert!(!of(&format!("{{\"cgroupsPath\":\"{other}\"}}")), "{other}");
        }
        assert!(!of("{}") && !serde_json::from_str::<Config>("{}").unwrap().names_a_scope());
        let (setup, op) = (Setup::default(), Op { job: Job::Create, ..Op::default() });
        let task = Task { id: "c".into(), ..Task::default() };
        let with = |systemd| arguments(&setup, &task, &Process::default(), &op, systemd);
        assert!(with(true).contains(&"--systemd-cgroup".into()));
        assert!(!with(false).contains(&"--systemd-cgroup".into()));
    }
}
