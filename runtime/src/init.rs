//! The child's side: from a fresh process to the container's own, phase after phase.
//!
//! It is a copy of the runtime (no exec lies between), alone in its thread, and works on the plan in its own
//! memory. Whatever it needs of the host it was given as open descriptors; after the root has changed it trusts no path
//! under the container's /proc.

pub mod attrs;
mod console;
mod creds;
mod exec;
pub mod join;
pub mod rootfs;

use std::ffi::CString;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;

use crate::error::{Context, Error, Result};
use crate::hooks;
use crate::link::{Request, ToParent};
use crate::plan::Plan;
use crate::spec::Hook;
use crate::state::{OciState, Status};
use crate::sys::process::{self, Clone};
use crate::validate::CLONE_NEWTIME;

/// What the child works on: the plan, and what the parent opened for it.
pub struct Init<'a> {
    pub plan: &'a Plan,
    /// Absent for `exec`, which enters a root that is there.
    pub root: Option<Root<'a>>,
    /// The host's procfs.
    pub procfs: OwnedFd,
    /// Namespaces to join: `CLONE_NEW*` (several with a pidfd), in order.
    pub join: Vec<(i32, OwnedFd)>,
    /// Files in which a written `0` moves the writer into a cgroup.
    pub cgroups: Vec<OwnedFd>,
    /// Ask the parent to `Prepare` (systemd's cgroups, network devices) before going on.
    pub prepare: bool,
    /// Where the console's master goes; without it, to the parent.
    pub console_socket: Option<OwnedFd>,
    /// How the go-ahead comes after `Ready`.
    pub start: Start,
    /// Descriptors from 3 on that the container's program gets.
    pub preserve_fds: u32,
}

/// What a new container has beyond a process.
pub struct Root<'a> {
    pub plan: &'a crate::plan::rootfs::RootfsPlan,
    pub sources: rootfs::Sources,
    /// Whether the parent has hooks to run before the root changes.
    pub parent_hooks: bool,
    pub create_container: &'a [Hook],
    pub start_container: &'a [Hook],
    pub state: OciState<'a>,
}

/// How the go-ahead comes after `Ready`.
pub enum Start {
    /// With the parent's answer.
    Now,
    /// By a byte in the fifo, from `start`; what goes wrong then is left in `errors`.
    Fifo { fifo: OwnedFd, errors: OwnedFd },
}

impl Init<'_> {
    /// A joined user namespace may be what gives the right to join or make the others, so a process must be in it
    /// before the container's own is cloned.
    pub fn needs_go_between(&self) -> bool {
        self.join.iter().any(|&(flag, _)| flag & libc::CLONE_NEWUSER != 0)
    }

    pub fn joins(&self) -> impl Iterator<Item = (i32, BorrowedFd<'_>)> {
        self.join.iter().map(|(flag, fd)| (*flag, fd.as_fd()))
    }

    /// Whether the process is in a user namespace, a new or a joined one, in which privileges over the host don't count.
    pub fn loses_privileges(&self) -> bool {
        self.makes(libc::CLONE_NEWUSER) || self.needs_go_between()
    }

    fn makes(&self, flag: i32) -> bool {
        self.plan.namespaces.makes(flag)
    }
}

/// The whole life of the child; never returns.
pub fn run(init: Init<'_>, link: ToParent) -> ! {
    // Its descriptors are closed by number (`keep_only`), not by their owners: the log's too.
    let init = ManuallyDrop::new(init);
    let link: &'static ToParent = Box::leak(Box::new(link));
    crate::log::relay(link);
    let code = match become_container(&init, link) {
        Ok(never) => match never {},
        Err(e) => {
            link.fail(&e);
            1
        }
    };
    process::exit_now(code)
}

enum Never {}

fn become_container(init: &Init<'_>, link: &ToParent) -> Result<Never> {
    hide(init, link)?;
    if init.needs_go_between() {
        enter_and_fork(init, link)?;
    }
    process::reset_signals();
    // A process that waits as a copy of `create` must not look like a `create` that hangs.
    crate::sys::entry::set_command_line("runtime init");
    // EPERM: already a leader, in a new pid namespace.
    let _ = nix::unistd::setsid();
    join_cgroups(init)?;
    enter_namespaces(init, link)?;
    match &init.root {
        Some(root) => in_new_root(init, root, link)?,
        None => in_present_root(init, link)?,
    }
    creds::labels_and_attributes(init)?;
    // From here on paths of the image are followed. None may lead through a descriptor of the host: the kernel resolves the
    // program's path, or an interpreter's, before it closes what is close-on-exec (CVE-2019-5736, CVE-2024-21626).
    keep_only(init, link, &[])?;
    let env = exec::environment(&init.plan.process);
    let start_hooks = match &init.root {
        Some(root) => {
            let state = own_state(&root.state, Status::Created);
            Some(hooks::Ready::new("startContainer", root.start_container, &state, texts(&env))?)
        }
        None => None,
    };
    let mut program = exec::Program::new(&init.plan.process, env);
    creds::apply(init, link)?;
    program.find()?;
    creds::filter_last(init, link)?;
    link.ask(Request::Ready)?;
    // Nobody listens any more.
    log::set_max_level(log::LevelFilter::Off);
    run_program(init, program, start_hooks)
}

/// Before a process of the container's can see this one: it can't be traced (CVE-2016-9962), and for `exec`, into a pid namespace
/// where others wait, it holds no more descriptors than it needs. Tracing by CAP_SYS_PTRACE over the host can't be denied.
fn hide(init: &Init<'_>, link: &ToParent) -> Result<()> {
    if init.root.is_none() {
        let joined = init.join.iter().map(|(_, fd)| fd);
        let used: Vec<BorrowedFd<'_>> = joined
            .chain(&init.cgroups)
            .chain(&init.console_socket)
            .chain([&init.procfs])
            .map(AsFd::as_fd)
            .collect();
        keep_only(init, link, &used)?;
    }
    // An undumpable process's files in /proc belong to root. Who is not has to write the id maps of a new user namespace, which
    // nobody else is in, and can't set the score later.
    let root = nix::unistd::geteuid().is_root();
    if !root && init.needs_go_between() {
        if let Some(score) = init.plan.process.oom_score_adj {
            attrs::oom::apply_own(init.procfs.as_fd(), score)?;
        }
    }
    if root || init.needs_go_between() {
        undumpable()?;
    }
    Ok(())
}

fn undumpable() -> Result<()> {
    nix::sys::prctl::set_dumpable(false).context("hiding from the container's processes")
}

/// Closes all descriptors but the standard streams, those that the program gets, what `start` and the link need, and `more`.
fn keep_only(init: &Init<'_>, link: &ToParent, more: &[BorrowedFd<'_>]) -> Result<()> {
    let mut keep: Vec<BorrowedFd<'_>> = more.to_vec();
    keep.push(link.as_fd());
    if let Start::Fifo { fifo, errors } = &init.start {
        keep.extend([fifo.as_fd(), errors.as_fd()]);
    }
    process::close_from(3 + init.preserve_fds as i32, &keep, || {
        let names = attrs::procfs::list(init.procfs.as_fd(), "thread-self/fd")?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    })
    .map_err(|e: Error| e.context("closing descriptors of the host's"))
}

/// In the go-between: joins, then clones the container's process as a sibling and ends. Returns in the clone.
fn enter_and_fork(init: &Init<'_>, link: &ToParent) -> Result<()> {
    join_cgroups(init)?;
    for (flag, fd) in init.joins() {
        join::enter(fd, flag)?;
    }
    let flags = (init.plan.namespaces.new & !(libc::CLONE_NEWCGROUP | CLONE_NEWTIME)) | libc::CLONE_PARENT;
    match process::clone(flags as u64, None).context("making the container's process")? {
        // Nothing may be asked of the parent before it knows who asks.
        Clone::Child => link.await_announcement(),
        Clone::Parent { pid, .. } => {
            link.tell_forked(pid)?;
            process::exit_now(0)
        }
    }
}

fn join_cgroups(init: &Init<'_>) -> Result<()> {
    for file in &init.cgroups {
        nix::unistd::write(file, b"0").context("joining the container's cgroup")?;
    }
    Ok(())
}

fn enter_namespaces(init: &Init<'_>, link: &ToParent) -> Result<()> {
    if init.makes(libc::CLONE_NEWUSER) {
        link.ask(Request::MapIds)?;
    }
    if !init.needs_go_between() {
        for (flag, fd) in init.joins() {
            // The parent joined the pid namespace for us.
            let flag = flag & !libc::CLONE_NEWPID;
            if flag != 0 {
                join::enter(fd, flag)?;
            }
        }
    }
    if init.loses_privileges() {
        process::set_ids(Some(0), Some(0)).context("becoming root in the user namespace")?;
    }
    // Again: becoming root may have made it dumpable (fs.suid_dumpable).
    undumpable()?;
    if init.prepare {
        link.ask(Request::Prepare)?;
    }
    if init.makes(libc::CLONE_NEWCGROUP) {
        process::unshare(libc::CLONE_NEWCGROUP).context("making a cgroup namespace")?;
    }
    Ok(())
}

fn in_new_root(init: &Init<'_>, root: &Root<'_>, link: &ToParent) -> Result<()> {
    let plan = init.plan;
    if let Some(name) = &plan.keyring {
        let in_user_namespace = plan.namespaces.has(libc::CLONE_NEWUSER);
        attrs::keyring::make(
            name,
            plan.process.selinux_label.as_deref(),
            in_user_namespace,
            init.procfs.as_fd(),
        )?;
    }
    if init.makes(libc::CLONE_NEWNET) {
        process::loopback_up().context("bringing the loopback interface up")?;
    }
    if let Some(name) = &plan.hostname {
        nix::unistd::sethostname(name).with_context(|| format!("setting hostname {name:?}"))?;
    }
    if let Some(name) = &plan.domainname {
        crate::sys::attrs::set_domainname(name).with_context(|| format!("setting domainname {name:?}"))?;
    }
    let prepared = rootfs::prepare(root.plan, &root.sources)?;
    if plan.process.terminal {
        console::attach(init, link, Some(&prepared))?;
    }
    if root.parent_hooks {
        link.ask(Request::RunHooks)?;
    }
    let state = own_state(&root.state, Status::Creating);
    if !root.create_container.is_empty() {
        // As with runc, for the sake of hooks with relative paths.
        nix::unistd::fchdir(prepared.root()).context("entering the root file system")?;
    }
    // As with runc: of the container's environment, which is not made yet, the path.
    let path = plan.process.env.iter().filter(|e| e.to_bytes().starts_with(b"PATH="));
    hooks::run("createContainer", root.create_container, &state, Some(&texts(path)))?;
    prepared.pivot(root.plan)?;
    attrs::sysctl::apply(&plan.sysctls, init.procfs.as_fd())?;
    rootfs::finish(root.plan)
}

fn texts<'a>(env: impl IntoIterator<Item = &'a CString>) -> Vec<String> {
    env.into_iter().map(|e| e.to_string_lossy().into_owned()).collect()
}

/// The state as this process sees it: its own pid, in its own pid namespace.
fn own_state<'a>(state: &OciState<'a>, status: Status) -> OciState<'a> {
    OciState { status: status.as_str(), pid: nix::unistd::getpid().as_raw(), ..*state }
}

fn in_present_root(init: &Init<'_>, link: &ToParent) -> Result<()> {
    if let Some(name) = &init.plan.keyring {
        attrs::keyring::join(name, init.plan.process.selinux_label.as_deref(), init.procfs.as_fd())?;
    }
    if init.plan.process.terminal {
        console::attach(init, link, None)?;
    }
    Ok(())
}

/// Waits for the go-ahead, then becomes the program.
fn run_program(
    init: &Init<'_>,
    program: exec::Program<'_>,
    start_hooks: Option<hooks::Ready<'_>>,
) -> Result<Never> {
    let run_hooks = || start_hooks.map_or(Ok(()), hooks::Ready::run);
    let Start::Fifo { fifo, errors } = &init.start else {
        run_hooks()?;
        return Err(program.exec());
    };
    let mut byte = [0u8; 1];
    while let Err(Errno::EINTR) = nix::unistd::read(fifo, &mut byte) {}
    let failed = match run_hooks() {
        Ok(()) => program.exec(),
        Err(e) => {
            // `start` waits for the fifo's last reader to go, then looks here.
            let _ = nix::unistd::write(errors, e.to_string().as_bytes());
            process::exit_now(1)
        }
    };
    // As with runc, `start` has succeeded by now: the container's own standard error tells.
    eprintln!("{failed}");
    process::exit_now(255)
}

/// An error of the program's start, in the words that callers look for.
fn start_error(text: String) -> Error {
    Error::new(crate::error::Kind::Exec, text)
}
