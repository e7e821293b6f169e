//! `exec`: one more process in a running container.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use cgroup::Cgroup;

use super::{start, Setting};
use crate::cli;
use crate::create::inherited_fds;
use crate::error::{Context, Error, Kind, Result};
use crate::foreground::{self, Foreground};
use crate::init::attrs;
use crate::init::{join, Init, Start};
use crate::link::Request;
use crate::plan::{self, Plan};
use crate::spawn::{self, Child};
use crate::spec::{Capabilities, ConsoleSize, Linux, Process, Spec};
use crate::state::{Container, ProcessId, Status};
use crate::sys::process;
use crate::{invalid, listener, seccomp, sockets, validate};

pub fn run(setting: &Setting, args: &cli::Exec) -> Result<u8> {
    let preserve_fds = inherited_fds(args.preserve_fds)?;
    let pidfd_socket =
        args.pidfd_socket.as_deref().map(|p| sockets::connect(p, "pidfd socket")).transpose()?;
    let pid_file = args.pid_file.as_deref().map(std::path::absolute).transpose()?;
    let container = setting.load(&args.id)?;
    let init = running(&container, args.ignore_paused)?;
    let spec = start::config(&container)?;
    let process = match &args.process {
        Some(file) => read_process(file, &spec)?,
        None => derive_process(args, &spec)?,
    };
    validate::validate_process(&process)?;
    check_terminal(&process, args.detach, args.console_socket.is_some())?;
    let console_socket =
        args.console_socket.as_deref().map(|p| sockets::connect(p, "console socket")).transpose()?;
    let plan = make_plan(&spec, &process, &container)?;
    let foreground = match args.detach {
        true => None,
        false => Some(Foreground::begin(!args.no_subreaper)?),
    };
    let mut console = None;
    let opened = Opened { console_socket, preserve_fds, cgroups: &args.cgroup };
    let mut child = make(&container, init, &spec, &plan, opened, &mut console)?;
    let ready = publish(&mut child, pidfd_socket, pid_file.as_deref())
        .and_then(|()| child.go())
        .and_then(|()| child.await_exec());
    if let Err(e) = ready {
        child.kill();
        return Err(e);
    }
    match foreground {
        None => Ok(0),
        Some(foreground) => foreground.stay(child.pid, console, None).map(foreground::exit_code),
    }
}

/// The container's first process, if another may be put beside it.
fn running(container: &Container, ignore_paused: bool) -> Result<ProcessId> {
    let text = match container.status() {
        Status::Stopped => "cannot exec in a stopped container",
        Status::Creating => "cannot exec in a container that is still being created",
        Status::Paused if !ignore_paused => {
            "cannot exec in a paused container (use --ignore-paused to override)"
        }
        _ => match container.state.init {
            Some(init) => return Ok(init),
            None => "cannot exec in a stopped container",
        },
    };
    Err(Error::new(Kind::State, text))
}

fn read_process(file: &Path, spec: &Spec) -> Result<Process> {
    let text = std::fs::read(file).with_context(|| format!("reading --process {}", file.display()))?;
    let mut process: Process = serde_json::from_slice(&text)
        .map_err(|e| Error::invalid(format!("parsing --process {}: {e}", file.display())))?;
    if let Some(own) = &spec.process {
        inherit(&mut process, own);
    }
    Ok(process)
}

/// What a process doesn't say about its confinement and resources is as the container's own has it, as with runc: who
/// leaves a profile out doesn't mean none. `noNewPrivileges` has no such absence.
fn inherit(process: &mut Process, own: &Process) {
    fn fill<T: Clone>(field: &mut Option<T>, own: &Option<T>) {
        if field.is_none() {
            field.clone_from(own);
        }
    }
    fill(&mut process.capabilities, &own.capabilities);
    for (field, own) in [
        (&mut process.apparmor_profile, &own.apparmor_profile),
        (&mut process.selinux_label, &own.selinux_label),
    ] {
        // Empty is absent, too.
        *field = field.take().filter(|text| !text.is_empty());
        fill(field, own);
    }
    fill(&mut process.oom_score_adj, &own.oom_score_adj);
    fill(&mut process.scheduler, &own.scheduler);
    fill(&mut process.io_priority, &own.io_priority);
    fill(&mut process.exec_cpu_affinity, &own.exec_cpu_affinity);
    fill(&mut process.user.umask, &own.user.umask);
    if process.rlimits.is_empty() {
        process.rlimits.clone_from(&own.rlimits);
    }
}

/// The container's own process, with what the flags change.
fn derive_process(args: &cli::Exec, spec: &Spec) -> Result<Process> {
    if args.args.is_empty() {
        invalid!("process args cannot be empty");
    }
    let mut process = spec.process.clone().unwrap_or_default();
    process.args = args.args.clone();
    process.terminal = args.tty;
    process.console_size = args.tty.then(own_terminal_size).flatten();
    process.env.extend(args.env.iter().cloned());
    if let Some(cwd) = &args.cwd {
        process.cwd = cwd.clone();
    }
    if let Some(label) = &args.process_label {
        process.selinux_label = Some(label.clone());
    }
    if let Some(profile) = &args.apparmor {
        process.apparmor_profile = Some(profile.clone());
    }
    if let Some(flag) = args.no_new_privs {
        process.no_new_privileges = flag;
    }
    if let Some((uid, gid)) = args.user {
        process.user.uid = uid;
        if let Some(gid) = gid {
            process.user.gid = gid;
        }
    }
    process.user.additional_gids.extend(&args.additional_gids);
    if !args.cap.is_empty() {
        let caps = process.capabilities.get_or_insert_with(Capabilities::default);
        for set in [&mut caps.bounding, &mut caps.effective, &mut caps.permitted] {
            set.extend(args.cap.iter().cloned());
        }
        // Ambient only where it can be: it must be inheritable too.
        let inheritable = &caps.inheritable;
        let ambient: Vec<String> = args.cap.iter().filter(|c| inheritable.contains(c)).cloned().collect();
        caps.ambient.extend(ambient);
    }
    Ok(process)
}

fn own_terminal_size() -> Option<ConsoleSize> {
    let (height, width) = crate::sys::tty::size(std::io::stdin().as_fd()).ok()?;
    Some(ConsoleSize { height, width })
}

fn check_terminal(process: &Process, detach: bool, socket: bool) -> Result<()> {
    match (process.terminal, detach, socket) {
        (true, true, false) => {
            invalid!("cannot allocate tty if runc will detach without setting console socket")
        }
        // CRI-O and buildkit give a socket to an exec that stays.
        (false, _, true) => invalid!("cannot use console socket if runc will not detach or allocate tty"),
        _ => Ok(()),
    }
}

fn make_plan(spec: &Spec, process: &Process, container: &Container) -> Result<Plan> {
    let linux = spec.linux.as_ref();
    Ok(Plan {
        keyring: container.state.has_keyring.then(|| format!("_ses.{}", container.state.id)),
        seccomp: linux.and_then(|l| l.seccomp.as_ref()).map(seccomp::compile).transpose()?,
        rdt: attrs::rdt::of(spec, &container.state.id)?,
        process: plan::Process::plan(process, linux, true)?,
        ..Plan::default()
    })
}

struct Opened<'a> {
    console_socket: Option<OwnedFd>,
    preserve_fds: u32,
    /// `--cgroup`.
    cgroups: &'a [(String, String)],
}

fn make(
    container: &Container,
    init_id: ProcessId,
    spec: &Spec,
    plan: &Plan,
    opened: Opened<'_>,
    console: &mut Option<OwnedFd>,
) -> Result<Child> {
    let cgroup = container
        .state
        .cgroup
        .as_ref()
        .map(Cgroup::open)
        .transpose()
        .context("opening the container's cgroup")?;
    let entry = match &cgroup {
        Some(cgroup) => {
            Some(entry_of(cgroup, init_id.pid, opened.cgroups).context("joining the container's cgroup")?)
        }
        None => None,
    };
    let (into, tasks) = entry.map_or((None, Vec::new()), |e| (e.into, e.tasks));
    let affinity = plan.process.attrs.affinity.before_cgroup()?;
    let init = Init {
        plan,
        root: None,
        procfs: attrs::procfs::host()?,
        join: namespaces_of(init_id, spec)?,
        cgroups: tasks,
        prepare: false,
        console_socket: opened.console_socket,
        start: Start::Now,
        preserve_fds: opened.preserve_fds,
    };
    let mut child = spawn::spawn(init, into.as_ref().map(AsFd::as_fd))?;
    affinity.restore();
    let settle = |pid| {
        if let (Some(rdt), Some(root)) = (&plan.rdt, attrs::rdt::root()) {
            rdt.join(&root, pid)?;
        }
        plan.process.oom_score_adj.map_or(Ok(()), |score| attrs::oom::apply(pid, score))
    };
    child.serve(settle, |pid, request| {
        match request {
            Request::Console(master) => *console = Some(master),
            Request::SeccompListener(fd) => {
                listener::send(plan, pid, container.oci_state(Status::Running, init_id.pid), fd)?
            }
            other => return Err(Error::new(Kind::System, format!("unexpected request {other:?}"))),
        }
        Ok(())
    })?;
    Ok(child)
}

/// Beside the container's first process; in its cgroup itself, or below, where the flags say so.
fn entry_of(cgroup: &Cgroup, init: i32, below: &[(String, String)]) -> cgroup::Result<cgroup::Entry> {
    if below.is_empty() {
        return cgroup.entry_beside(init);
    }
    let values: Vec<String> = below
        .iter()
        .map(|(controllers, path)| match controllers.is_empty() {
            true => path.clone(),
            false => format!("{controllers}:{path}"),
        })
        .collect();
    cgroup.entry_below(&cgroup::Sub::parse(&values)?)
}

/// The namespaces that the container has of its own, by its first process.
fn namespaces_of(init: ProcessId, spec: &Spec) -> Result<Vec<(i32, OwnedFd)>> {
    let empty = Linux::default();
    let listed = spec.linux.as_ref().unwrap_or(&empty).namespaces.iter();
    let flags = listed.filter_map(|n| validate::namespace_flag(&n.kind)).fold(0, |all, flag| all | flag);
    let gone = || Error::new(Kind::State, "container not running");
    match process::pidfd_open(init.pid) {
        Ok(pidfd) => {
            // The number was looked at before; now that it is held, once more.
            if !crate::state::is_alive(init) {
                return Err(gone());
            }
            Ok(vec![(flags, pidfd)])
        }
        // Before Linux 5.3.
        Err(nix::errno::Errno::ENOSYS) => crate::create::open_namespaces(&join::files(init.pid, flags)),
        Err(_) => Err(gone()),
    }
}

fn publish(child: &mut Child, pidfd_socket: Option<OwnedFd>, pid_file: Option<&Path>) -> Result<()> {
    if let (Some(socket), Some(pidfd)) = (&pidfd_socket, child.pidfd()) {
        sockets::send_fd(socket.as_fd(), pidfd, b"pidfd").context("sending the pidfd to --pidfd-socket")?;
    }
    match pid_file {
        Some(path) => child.tell(path),
        None => Ok(()),
    }
}
