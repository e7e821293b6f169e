//! The parent's side: makes the process that becomes the container's, and serves its requests until it is ready.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::sys::wait::{waitid, waitpid, Id, WaitPidFlag, WaitStatus};
use nix::unistd::Pid;

use crate::create::{open_namespaces, write_pid_file};
use crate::error::{Context, Error, Kind, Result};
use crate::init::attrs::rlimits::{self, Rlimits};
use crate::init::{self, Init};
use crate::link::{self, Request, ToChild};
use crate::plan::{IdMaps, Namespaces};
use crate::spec::IdMapping;
use crate::sys::bpf;
use crate::sys::process::{self, Clone};
use crate::validate::CLONE_NEWTIME;

/// Namespaces that init makes itself: the cgroup one only after it is in its cgroup, or it would show the wrong
/// root; the time one is made by the parent, because its offsets must be set before a process is in it.
const NOT_BY_CLONE: i32 = libc::CLONE_NEWCGROUP | CLONE_NEWTIME;

/// The process that was made.
pub struct Child {
    pub pid: i32,
    /// Absent before Linux 5.3.
    pub pidfd: Option<OwnedFd>,
    link: ToChild,
    /// Ends when the child of its own has taken over; see `init::run`.
    go_between: Option<i32>,
    ids: Option<IdMaps>,
    /// Limits that the child may not be able to set itself.
    rlimits: Option<Rlimits>,
    /// Tells of it, until it is killed.
    pid_file: Option<PathBuf>,
}

/// Makes the child; it starts to work on `init` at once. `cgroup` is a cgroup v2 directory to be born in.
pub fn spawn(mut init: Init<'_>, cgroup: Option<BorrowedFd<'_>>) -> Result<Child> {
    let (to_child, to_parent) = link::pair()?;
    let namespaces = &init.plan.namespaces;
    let mut home = Home::of(&init)?;
    make_time_namespace(namespaces)?;
    let mut flags = namespaces.new & !NOT_BY_CLONE;
    if init.needs_go_between() {
        flags = 0;
    } else {
        join_for_children(&init)?;
    }
    let ids = init.plan.ids.clone();
    let go_between = init.needs_go_between();
    let rlimits = init.loses_privileges().then(|| init.plan.process.rlimits.clone());
    let cloned = match process::clone(flags as u64, cgroup) {
        // Before Linux 5.7 nobody is born in a cgroup (E2BIG: those that know clone3 want zeros there): the child joins it
        // as it joins those of v1.
        Err(Errno::ENOSYS | Errno::EINVAL | Errno::E2BIG) if cgroup.is_some() => {
            init.cgroups.extend(cgroup.map(open_procs).transpose()?);
            process::clone(flags as u64, None)
        }
        other => other,
    };
    match cloned.map_err(explain)? {
        Clone::Child => {
            home.forget();
            drop(to_child);
            init::run(init, to_parent)
        }
        Clone::Parent { pid, pidfd } => {
            let go_between = go_between.then_some(pid);
            let mut child = Child { pid, pidfd, link: to_child, go_between, ids, rlimits, pid_file: None };
            let back = home.enter();
            if back.is_err() {
                child.kill();
            }
            back.map(|()| child)
        }
    }
}

fn open_procs(cgroup: BorrowedFd<'_>) -> Result<OwnedFd> {
    let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    nix::fcntl::openat(cgroup, "cgroup.procs", flags, Mode::empty())
        .context("opening the container's cgroup.procs")
}

fn explain(e: Errno) -> Error {
    let hint = match e {
        Errno::EINVAL => ": does this kernel have all the namespaces that config.json asks for?",
        Errno::ENOSPC => ": a limit in /proc/sys/user/max_*_namespaces is reached",
        Errno::EPERM => ": making namespaces is not allowed here",
        _ => "",
    };
    Error::from(e).context(format!("making the container's process{hint}"))
}

fn make_time_namespace(namespaces: &Namespaces) -> Result<()> {
    if !namespaces.makes(CLONE_NEWTIME) {
        return Ok(());
    }
    process::unshare(CLONE_NEWTIME).context("making a time namespace (Linux 5.6)")?;
    match &namespaces.time_offsets {
        Some(lines) if !lines.is_empty() => {
            fs::write("/proc/self/timens_offsets", lines).context("setting linux.timeOffsets")
        }
        _ => Ok(()),
    }
}

/// The namespaces of this process into which its children are to be born again, once the container's process is. A hook,
/// or whatever else is started later, would be at the container's mercy otherwise, and see its clocks.
struct Home(Vec<(i32, OwnedFd)>);

impl Home {
    fn of(init: &Init<'_>) -> Result<Home> {
        let mut paths = Vec::new();
        // `exec` has no hooks, and ends with its child.
        let starts_more = init.root.is_some() && !init.needs_go_between();
        if starts_more && init.joins().any(|(flag, _)| flag & libc::CLONE_NEWPID != 0) {
            paths.push((libc::CLONE_NEWPID, "/proc/self/ns/pid".into()));
        }
        if init.plan.namespaces.makes(CLONE_NEWTIME) {
            paths.push((CLONE_NEWTIME, "/proc/self/ns/time".into()));
        }
        Ok(Home(open_namespaces(&paths)?))
    }

    fn enter(&mut self) -> Result<()> {
        self.0.drain(..).try_for_each(|(flag, own)| match init::join::enter(own.as_fd(), flag) {
            // Root of a user namespace has no right to the host's, nor have its hooks over the host.
            Err(e) if e.errno() == Some(libc::EPERM) => Ok(()),
            other => other,
        })
    }

    /// For the child, which stays.
    fn forget(&mut self) {
        self.0.clear();
    }
}

/// After a failure: there are `poststop` hooks still.
impl Drop for Home {
    fn drop(&mut self) {
        let _ = self.enter();
    }
}

/// A pid or time namespace takes effect for children only, so it is the parent that joins it.
fn join_for_children(init: &Init<'_>) -> Result<()> {
    for (flag, fd) in init.joins() {
        if flag & libc::CLONE_NEWPID != 0 {
            init::join::enter(fd, libc::CLONE_NEWPID)?;
        }
    }
    Ok(())
}

impl Child {
    pub fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.pidfd.as_ref().map(AsFd::as_fd)
    }

    /// Serves the child until it is ready. What concerns only processes is done here; `on` does the rest. `settle` is told
    /// the process that stays, before that goes on: what is set of a go-between may come after the fork.
    ///
    /// # Errors
    /// The child's own failure, or `on`'s. The child is dead and reaped then.
    pub fn serve(
        &mut self,
        settle: impl Fn(i32) -> Result<()>,
        mut on: impl FnMut(i32, Request) -> Result<()>,
    ) -> Result<()> {
        let result = match self.go_between {
            Some(_) => Ok(()),
            None => settle(self.pid),
        };
        let result = result.and_then(|()| self.serve_requests(&settle, &mut on));
        if result.is_err() {
            self.kill();
        }
        result
    }

    fn serve_requests(
        &mut self,
        settle: &impl Fn(i32) -> Result<()>,
        on: &mut impl FnMut(i32, Request) -> Result<()>,
    ) -> Result<()> {
        loop {
            match self.link.next()? {
                Some(Request::Ready) => {
                    return self.rlimits.as_ref().map_or(Ok(()), |limits| rlimits::apply(limits, self.pid))
                }
                Some(Request::Failed(e)) => return Err(e),
                Some(Request::MapIds) => {
                    let ids = self.ids.clone().unwrap_or_default();
                    write_id_maps(self.pid, &ids)?;
                    self.link.go()?;
                }
                Some(Request::Forked(pid)) => {
                    if let Some(between) = self.go_between.take() {
                        reap(between);
                    }
                    self.pid = pid;
                    self.pidfd = process::pidfd_open(pid).ok();
                    settle(pid)?;
                    self.link.go()?;
                }
                Some(Request::ListenerNumber(number)) => {
                    let listener =
                        self.descriptor(number).context("taking the seccomp listener (Linux 5.6)")?;
                    // Before the agent hears of it: the child's own reading may have to wait for the agent.
                    self.link.go()?;
                    on(self.pid, Request::SeccompListener(listener))?;
                }
                Some(Request::Warning(text)) => log::warn!("{text}"),
                Some(request) => {
                    on(self.pid, request)?;
                    self.link.go()?;
                }
                None => return Err(self.early_end()),
            }
        }
    }

    fn descriptor(&self, number: i32) -> Result<OwnedFd, Errno> {
        match &self.pidfd {
            Some(pidfd) => bpf::fd_of(pidfd.as_fd(), number),
            None => bpf::fd_of(process::pidfd_open(self.pid)?.as_fd(), number),
        }
    }

    /// Lets a ready child go on. It execs (the result is `Ok`), waits for `start`, or fails.
    pub fn go(&self) -> Result<()> {
        match self.link.go() {
            Err(e) if e.errno() == Some(libc::EPIPE) => Err(self.early_end()),
            other => other,
        }
    }

    /// After `go`, for a child that does not wait for `start`: returns when it has exec'd.
    pub fn await_exec(&self) -> Result<()> {
        match self.link.next()? {
            None => Ok(()),
            Some(Request::Failed(e)) => Err(e),
            Some(_) => Err(Error::new(Kind::System, "an unexpected message from the container's process")),
        }
    }

    /// Writes the pid for `--pid-file`.
    pub fn tell(&mut self, pid_file: &Path) -> Result<()> {
        write_pid_file(pid_file, self.pid)?;
        self.pid_file = Some(pid_file.to_path_buf());
        Ok(())
    }

    /// Kills and reaps the child: its pid is nobody's then.
    pub fn kill(&mut self) {
        if let Some(pid_file) = self.pid_file.take() {
            let _ = fs::remove_file(pid_file);
        }
        for pid in [Some(self.pid), self.go_between.take()].into_iter().flatten() {
            let _ = process::kill(pid, libc::SIGKILL);
            reap(pid);
        }
    }

    /// Looks without reaping: until `kill` has reaped it, the number is nobody else's.
    fn early_end(&self) -> Error {
        let how = match waitid(Id::Pid(Pid::from_raw(self.pid)), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)
        {
            Ok(WaitStatus::Exited(_, code)) => format!("with status {code}"),
            Ok(WaitStatus::Signaled(_, signal, _)) => {
                format!("by {signal} (was it killed for lack of memory? see memory.limit)")
            }
            _ => "for an unknown reason".to_string(),
        };
        Error::new(Kind::System, format!("the container's process ended {how} before it was ready"))
    }
}

pub fn reap(pid: i32) {
    while let Err(Errno::EINTR) = waitpid(Pid::from_raw(pid), None) {}
}

/// Writes the id maps of a new user namespace; without the privilege, through the set-uid helpers.
pub fn write_id_maps(pid: i32, ids: &IdMaps) -> Result<()> {
    if let Err(e) = fs::write(format!("/proc/{pid}/uid_map"), lines(&ids.uids)) {
        if e.raw_os_error() != Some(libc::EPERM) {
            return Err(Error::from(e).context("writing the user namespace's uid_map"));
        }
        return write_id_maps_unprivileged(pid, ids);
    }
    match fs::write(format!("/proc/{pid}/gid_map"), lines(&ids.gids)) {
        Err(e) if e.raw_os_error() == Some(libc::EPERM) => map_gids_unprivileged(pid, ids),
        other => other.context("writing the user namespace's gid_map"),
    }
}

/// The mappings of a user namespace that is there: the kernel shows them by way of a process in it.
pub fn id_maps_of(namespace: BorrowedFd<'_>) -> Result<IdMaps> {
    use std::io::{Read, Write};
    let (mut ours, mut theirs) = std::os::unix::net::UnixStream::pair()?;
    match process::clone(0, None)? {
        Clone::Child => {
            drop(ours);
            if init::join::enter(namespace, libc::CLONE_NEWUSER).is_ok() {
                let _ = theirs.write_all(b"1");
            }
            // Until the other side is done, or dead.
            let _ = theirs.read(&mut [0]);
            process::exit_now(0)
        }
        Clone::Parent { pid, .. } => {
            drop(theirs);
            let read = |name: &str| {
                let path = format!("/proc/{pid}/{name}");
                fs::read_to_string(&path)
                    .map(|text| parse_id_map(&text))
                    .with_context(|| format!("reading {path}"))
            };
            let maps = match ours.read(&mut [0]) {
                Ok(1) => read("uid_map").and_then(|uids| Ok(IdMaps { uids, gids: read("gid_map")? })),
                _ => Err(Error::new(Kind::System, "joining the user namespace, to see its mappings, failed")),
            };
            let _ = process::kill(pid, libc::SIGKILL);
            reap(pid);
            maps
        }
    }
}

fn parse_id_map(text: &str) -> Vec<IdMapping> {
    let line = |line: &str| {
        let mut numbers = line.split_whitespace().map(|n| n.parse::<u32>().ok());
        let mut next = || numbers.next().flatten();
        Some(IdMapping { container_id: next()?, host_id: next()?, size: next()? })
    };
    text.lines().filter_map(line).collect()
}

fn write_id_maps_unprivileged(pid: i32, ids: &IdMaps) -> Result<()> {
    run_mapper("newuidmap", pid, &ids.uids)?;
    map_gids_unprivileged(pid, ids)
}

/// Without privileges one's own gid may be mapped only once setgroups is denied (user_namespaces(7)).
fn map_gids_unprivileged(pid: i32, ids: &IdMaps) -> Result<()> {
    let own = nix::unistd::getegid().as_raw();
    if ids.gids.len() == 1 && ids.gids[0].size == 1 && ids.gids[0].host_id == own {
        fs::write(format!("/proc/{pid}/setgroups"), "deny")
            .context("denying setgroups in the user namespace")?;
        return fs::write(format!("/proc/{pid}/gid_map"), lines(&ids.gids))
            .context("writing the user namespace's gid_map");
    }
    run_mapper("newgidmap", pid, &ids.gids)
}

fn lines(mappings: &[IdMapping]) -> String {
    mappings.iter().map(|m| format!("{} {} {}\n", m.container_id, m.host_id, m.size)).collect()
}

fn run_mapper(program: &str, pid: i32, mappings: &[IdMapping]) -> Result<()> {
    let numbers = mappings.iter().flat_map(|m| [m.container_id, m.host_id, m.size]).map(|n| n.to_string());
    let output = Command::new(program).arg(pid.to_string()).args(numbers).output().with_context(|| {
        format!("running {program}, which maps ids for users without privileges (Debian's package uidmap)")
    })?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(Error::new(
        Kind::System,
        format!("{program} failed ({}): {}; see /etc/subuid and /etc/subgid", output.status, text.trim()),
    ))
}
