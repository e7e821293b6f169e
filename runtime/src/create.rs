//! From a bundle to a process that is ready to run: what `create`, `run` and `restore` share.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use cgroup::{Cgroup, Layout, Location};

use crate::commands::{delete, Setting};
use crate::error::{Context, Error, Kind, Result};
use crate::init::attrs::netdev;
use crate::init::attrs::rdt::{self, Rdt};
use crate::init::{rootfs, Init, Root, Start};
use crate::link::Request;
use crate::plan::rootfs::RootfsPlan;
use crate::plan::Plan;
use crate::spawn::{self, Child};
use crate::spec::{Hooks, Spec};
use crate::state::{self, Container, Status};
use crate::sys::{memory, process};
use crate::undo::Undo;
use crate::{cli, invalid, listener, notify, sockets, validate};

/// Who lets the container's process go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// `start`, later.
    Create,
    /// This process, at once. With `detach` it does not stay.
    Run { detach: bool },
}

/// A container whose process is ready and waits for `go`.
pub struct Created {
    pub container: Container,
    pub child: Child,
    pub spec: Spec,
    /// The console's master, for a parent in the foreground.
    pub console: Option<OwnedFd>,
}

/// A bundle, read and checked.
pub struct Bundle {
    pub path: PathBuf,
    pub config: Vec<u8>,
    pub spec: Spec,
}

impl Bundle {
    /// Reads and validates `config.json`, and makes the bundle the working directory, as runc does.
    pub fn open(path: Option<&Path>, config: Option<&Path>) -> Result<Bundle> {
        let given = path.unwrap_or(Path::new("."));
        let path = fs::canonicalize(given).with_context(|| format!("opening bundle {}", given.display()))?;
        std::env::set_current_dir(&path).with_context(|| format!("entering bundle {}", path.display()))?;
        let file = config.unwrap_or(Path::new("config.json"));
        let config = match read_config(file) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                invalid!("JSON specification file {} not found in bundle {}", file.display(), path.display())
            }
            other => other.with_context(|| format!("reading {}", path.join(file).display()))?,
        };
        let spec: Spec = serde_json::from_slice(&config)
            .map_err(|e| Error::invalid(format!("parsing {}: {e}", path.join(file).display())))?;
        validate::validate(&spec)?;
        Ok(Bundle { path, config, spec })
    }

    /// The absolute path of the root file system, which exists.
    pub fn rootfs(&self) -> Result<PathBuf> {
        let root = self.spec.root.as_ref().map(|r| r.path.as_str()).unwrap_or_default();
        let path = self.path.join(root);
        match fs::metadata(&path) {
            Ok(meta) if meta.is_dir() => Ok(path),
            Ok(_) => invalid!("root.path: rootfs ({}) is not a directory", path.display()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                invalid!("root.path: rootfs ({}) does not exist: no such file or directory", path.display())
            }
            Err(e) => Err(Error::from(e).context(format!("root.path: {}", path.display()))),
        }
    }
}

/// Everything that is decided before the first side effect.
struct Decided {
    plan: Plan,
    root_plan: RootfsPlan,
    layout: Layout,
    location: Option<Location>,
    knobs: crate::knobs::Applied,
}

/// Makes the container up to the point where only `go` is missing. On an error nothing is left.
pub fn create(setting: &Setting, args: &cli::Create, mode: Mode) -> Result<Created> {
    let preserve_fds = inherited_fds(args.preserve_fds)?;
    // From here, as the bundle becomes the working directory; what comes of it matters only where it may be used.
    let console_socket = args.console_socket.as_deref().map(|p| sockets::connect(p, "console socket"));
    let pidfd_socket =
        args.pidfd_socket.as_deref().map(|p| sockets::connect(p, "pidfd socket")).transpose()?;
    let pid_file = args.pid_file.as_deref().map(std::path::absolute).transpose()?;
    let mut bundle = Bundle::open(args.bundle.as_deref(), args.config.as_deref())?;
    sockets::pass_on(&mut bundle.spec);
    notify::pass_on(&mut bundle.spec, &setting.store.dir(&args.id))?;
    check_terminal(&bundle.spec, mode, args.console_socket.is_some())?;
    let console_socket = console_socket.transpose()?;
    state::check_id(&args.id)?;
    let mut decided = decide(setting, args, &bundle)?;

    // All that read and decided is behind us; so the largest part of the program isn't resident at once.
    memory::leave_text();
    let mut container = setting.store.create(&args.id)?;
    container.state.has_keyring = decided.plan.keyring.is_some();
    let Decided { plan, location, knobs, .. } = &decided;
    let begun = begin(setting, &mut container, &bundle, location.as_ref(), knobs, plan.rdt.as_ref());
    let made = begun.and_then(|()| {
        let opened = Opened { console_socket, pidfd_socket, pid_file, preserve_fds };
        make(setting, &mut container, &bundle.spec, &mut decided, opened, mode)
    });
    match made {
        Ok((child, console)) => Ok(Created { container, child, spec: bundle.spec, console }),
        Err(e) => {
            give_up(&container, "create");
            Err(e)
        }
    }
}

/// After a failure, with its process dead: the end that a container has in any case, with its poststop hooks
/// (runtime-spec, lifecycle 3 to 5: continue at 12). What createRuntime hooks made is theirs to take away.
pub fn give_up(container: &Container, verb: &str) {
    if container.is_replaced() {
        // It was deleted meanwhile, with all that was made, and its name is another's now.
        return;
    }
    if let Err(left) = delete::destroy(container) {
        log::error!("after a failed {verb}: {left}; `delete --force {}` tries again", container.state.id);
    }
}

/// What was opened while the caller's view of the host was still ours.
struct Opened {
    console_socket: Option<OwnedFd>,
    pidfd_socket: Option<OwnedFd>,
    pid_file: Option<PathBuf>,
    preserve_fds: u32,
}

fn decide(setting: &Setting, args: &cli::Create, bundle: &Bundle) -> Result<Decided> {
    let spec = &bundle.spec;
    let plan = Plan::create(spec, &args.id, args.no_new_keyring, setting.rootless)?;
    if let Some(rdt) = &plan.rdt {
        rdt.check(rdt::root().as_deref())?;
    }
    let class = args.class.iter().map(|name| ("class".to_string(), name.clone()));
    let flags: Vec<_> = args.knobs.iter().cloned().chain(class).collect();
    let rootfs = bundle.rootfs()?;
    let Limited { layout, location, knobs } = limited(setting, &args.id, spec, &rootfs, &flags)?;
    // Without a cgroup of its own, the container is in ours.
    let shown = match &location {
        Some(location) if setting.rootless && location.unit.is_none() => {
            Some(location.clone().without_privileges(&layout)?)
        }
        Some(location) => Some(location.clone()),
        None => Location::of_caller(&layout).ok(),
    };
    let context = crate::plan::rootfs::Context {
        location: shown.as_ref(),
        rootless: setting.rootless,
        no_pivot: args.no_pivot,
    };
    let root_plan = crate::plan::rootfs::plan(spec, &rootfs, &context)?;
    Ok(Decided { plan, root_plan, layout, location, knobs })
}

/// A configuration is a regular file, and no larger than anybody's: what never ends is not read.
fn read_config(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read;
    use std::os::unix::fs::OpenOptionsExt;
    const LIMIT: u64 = 64 << 20;
    let file = fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let wrong = |text: &str| Err(std::io::Error::other(text));
    match file.metadata()? {
        meta if !meta.is_file() => return wrong("not a regular file"),
        meta if meta.len() > LIMIT => return wrong("larger than 64 MiB"),
        _ => {}
    }
    let mut config = Vec::new();
    file.take(LIMIT).read_to_end(&mut config)?;
    Ok(config)
}

/// Where a container's cgroup is to be, and what limits it.
pub struct Limited {
    pub layout: Layout,
    pub location: Option<Location>,
    pub knobs: crate::knobs::Applied,
}

/// Decides alike for a new container and for one that comes back from a checkpoint. All that was said is understood
/// before a hierarchy is mounted for it.
pub fn limited(
    setting: &Setting,
    id: &str,
    spec: &Spec,
    rootfs: &Path,
    flags: &[(String, String)],
) -> Result<Limited> {
    let config = setting.global.config.as_deref();
    let said = crate::knobs::said(spec, setting.global.default_class.as_deref(), flags, config)?;
    if !setting.rootless {
        crate::knobs::hierarchies::mount_asked(config)?;
    }
    let layout = Layout::detect().context("looking for the cgroup hierarchies")?;
    let path = spec.linux.as_ref().and_then(|l| l.cgroups_path.as_deref());
    let location = setting.locate(&layout, id, path)?;
    let knobs = said.decide(spec, rootfs, &layout, location.as_ref())?;
    Ok(Limited { layout, location, knobs })
}

/// Writes down what is going to be done, before any of it is: alike for a new container and for one that comes back.
pub fn begin(
    setting: &Setting,
    container: &mut Container,
    bundle: &Bundle,
    location: Option<&Location>,
    knobs: &crate::knobs::Applied,
    rdt: Option<&Rdt>,
) -> Result<()> {
    if let Some(location) = location {
        // Before it is on the list: what is on it is taken back with all processes.
        location.refuse_used().with_context(|| knobs.making("creating the container's cgroup"))?;
    }
    let state = &mut container.state;
    state.oci_version = bundle.spec.oci_version.clone();
    state.bundle = bundle.path.clone();
    state.rootfs = bundle.rootfs()?;
    state.owner = setting.owner();
    state.annotations = bundle.spec.annotations.clone();
    state.rootless = setting.rootless;
    state.shares_pid_namespace = !bundle.spec.makes_namespace("pid");
    state.cgroup = location.cloned();
    state.undo.extend(location.cloned().map(Undo::Cgroup));
    state.knobs = knobs.saved.clone();
    state.monitored = crate::commands::monitor::asks();
    state.has_later_hooks = bundle.spec.hooks.as_ref().is_some_and(Hooks::has_later);
    if let (Some(rdt), Some(root)) = (rdt, rdt::root()) {
        // The monitoring group lies in the class, and goes first: the list is walked backwards.
        state.undo.extend(rdt.to_undo(&root).into_iter().rev().map(Undo::Resctrl));
    }
    container.save_config(&bundle.config)?;
    container.save()?;
    notify::make_folder(container.path())
}

fn make(
    setting: &Setting,
    container: &mut Container,
    spec: &Spec,
    decided: &mut Decided,
    opened: Opened,
    mode: Mode,
) -> Result<(Child, Option<OwnedFd>)> {
    let no_hooks = Hooks::default();
    let hooks = spec.hooks.as_ref().unwrap_or(&no_hooks);
    let mut cgroup = make_cgroup(setting, container, spec, decided)?;
    let entry = cgroup.as_ref().map(Cgroup::entry).transpose().context("opening the container's cgroup")?;
    let (into, tasks, deferred) = entry.map_or((None, Vec::new(), false), |e| (e.into, e.tasks, e.by_pid));
    let join = open_namespaces(&decided.plan.namespaces.join)?;
    check_id_maps(spec, &join)?;
    let init = Init {
        plan: &decided.plan,
        root: Some(Root {
            plan: &decided.root_plan,
            sources: rootfs::open_sources(&decided.root_plan)?,
            parent_hooks: !hooks.prestart.is_empty() || !hooks.create_runtime.is_empty(),
            create_container: &hooks.create_container,
            start_container: &hooks.start_container,
            state: container.oci_state(Status::Creating, 0),
        }),
        procfs: crate::init::attrs::procfs::host()?,
        join,
        cgroups: tasks,
        prepare: deferred || decided.plan.needs_preparation(),
        console_socket: opened.console_socket,
        start: match mode {
            Mode::Run { .. } => Start::Now,
            Mode::Create => Start::Fifo {
                fifo: state::make_exec_fifo(container)?,
                errors: state::make_start_error(container)?,
            },
        },
        preserve_fds: opened.preserve_fds,
    };
    let mut child = spawn::spawn(init, into.as_ref().map(AsFd::as_fd))?;
    let (mut console, mut devices) = (None, None);
    let finished = child.serve(
        |pid| set_from_outside(&decided.plan, pid),
        |pid, request| {
            match request {
                Request::Prepare => {
                    if let Some(cgroup) = cgroup.as_mut().filter(|_| deferred) {
                        // systemd makes a scope only around a process that exists.
                        let knobs = &decided.knobs;
                        let doing = "putting the container's process into its cgroup";
                        let attached = cgroup.attach(pid);
                        if attached.is_err() {
                            disown_cgroup(container);
                        }
                        attached.with_context(|| knobs.making(doing))?;
                        limit(container, &mut decided.knobs, cgroup)?;
                    }
                    prepare(&decided.plan, pid, &mut devices)?;
                }
                Request::RunHooks => run_parent_hooks(hooks, container, pid)?,
                Request::Console(master) => console = Some(master),
                Request::SeccompListener(fd) => {
                    listener::send(&decided.plan, pid, container.oci_state(Status::Creating, pid), fd)?
                }
                other => return Err(Error::new(Kind::System, format!("unexpected request {other:?}"))),
            }
            Ok(())
        },
    );
    let finished =
        finished.and_then(|()| publish(container, &mut child, &opened.pidfd_socket, &opened.pid_file));
    match finished {
        Ok(()) => Ok((child, console)),
        Err(e) => {
            child.kill();
            devices.iter().for_each(netdev::Given::put_back);
            Err(e)
        }
    }
}

fn make_cgroup(
    setting: &Setting,
    container: &mut Container,
    spec: &Spec,
    decided: &mut Decided,
) -> Result<Option<Cgroup>> {
    let Some(location) = container.state.cgroup.clone() else { return Ok(None) };
    let options = cgroup::Options {
        rootless: setting.rootless,
        description: format!("container {}", container.state.id),
        properties: cgroup::systemd::annotations(
            spec.annotations.iter().map(|(key, value)| (key.as_str(), value.as_str())),
        )?,
        owner: crate::plan::cgroup_owner(spec),
    };
    let mut resources = decided.knobs.resources(spec, &location).into_owned();
    // After the configuration's own: what every container may use (config-linux.md, "Default Devices").
    resources.devices.extend(cgroup::devices::default_rules());
    let deferred = location.unit.is_some();
    let made = Cgroup::create(&decided.layout, location, &resources, options);
    if made.is_err() {
        disown_cgroup(container);
    }
    let cgroup = made.with_context(|| decided.knobs.making("creating the container's cgroup"))?;
    for warning in cgroup.warnings() {
        log::warn!("{warning}");
    }
    if !deferred {
        limit(container, &mut decided.knobs, &cgroup)?;
    }
    Ok(Some(cgroup))
}

/// After a cgroup could not be made: what was made is taken back; what is left, somebody else's since a moment ago, isn't ours to
/// kill.
pub fn disown_cgroup(container: &mut Container) {
    container.state.undo.retain(|undo| !matches!(undo, Undo::Cgroup(_)));
}

/// Sets the knobs that a cgroup isn't made with, once it is there.
pub fn limit(container: &mut Container, knobs: &mut crate::knobs::Applied, cgroup: &Cgroup) -> Result<()> {
    let done = knobs.apply(cgroup);
    // A rootless caller may have been allowed to make none: then there is none that holds the processes.
    container.state.cgroup = Some(cgroup.location().clone()).filter(|l| !l.branches.is_empty());
    container.state.knobs = knobs.saved.clone();
    done
}

/// What the parent does to a child that is in its namespaces.
fn prepare(plan: &Plan, pid: i32, devices: &mut Option<netdev::Given>) -> Result<()> {
    if !plan.net_devices.is_empty() {
        let path = format!("/proc/{pid}/ns/net");
        let namespace = fs::File::open(&path).with_context(|| format!("opening {path}"))?;
        *devices = Some(plan.net_devices.apply(namespace.as_fd())?);
    }
    match (&plan.rdt, rdt::root()) {
        (Some(rdt), Some(root)) => rdt.apply(&root, pid),
        _ => Ok(()),
    }
}

/// What needs the privileges of the host, over a child that may be in a user namespace.
fn set_from_outside(plan: &Plan, pid: i32) -> Result<()> {
    if let Some(score) = plan.process.oom_score_adj {
        crate::init::attrs::oom::apply(pid, score)?;
    }
    Ok(())
}

fn run_parent_hooks(hooks: &Hooks, container: &Container, pid: i32) -> Result<()> {
    let state = container.oci_state(Status::Creating, pid);
    crate::hooks::run("prestart", &hooks.prestart, &state, None)?;
    crate::hooks::run("createRuntime", &hooks.create_runtime, &state, None)
}

/// Tells the world of the ready process: the state file, the pid file.
fn publish(
    container: &mut Container,
    child: &mut Child,
    pidfd_socket: &Option<OwnedFd>,
    pid_file: &Option<PathBuf>,
) -> Result<()> {
    if let (Some(socket), Some(pidfd)) = (pidfd_socket, child.pidfd()) {
        sockets::send_fd(socket.as_fd(), pidfd, b"pidfd").context("sending the pidfd to --pidfd-socket")?;
    }
    container.state.init = Some(state::identify(child.pid)?);
    container.save()?;
    match pid_file {
        Some(path) => child.tell(path),
        None => Ok(()),
    }
}

/// Decimal, no newline (callers parse all of it), whole or not at all.
pub fn write_pid_file(path: &Path, pid: i32) -> Result<()> {
    let name = path
        .file_name()
        .ok_or_else(|| Error::invalid(format!("--pid-file {}: not a file name", path.display())))?;
    let temporary = path.with_file_name(format!(".{}", name.to_string_lossy()));
    fs::write(&temporary, pid.to_string())
        .and_then(|()| fs::rename(&temporary, path))
        .with_context(|| format!("writing --pid-file {}", path.display()))
}

/// Opens the namespaces that config.json names, and makes sure that they are what it says.
pub fn open_namespaces(paths: &[(i32, PathBuf)]) -> Result<Vec<(i32, OwnedFd)>> {
    let open = |(flag, path): &(i32, PathBuf)| {
        let file =
            fs::File::open(path).with_context(|| format!("opening the namespace {}", path.display()))?;
        let fd = OwnedFd::from(file);
        match process::namespace_type(fd.as_fd()) {
            Ok(found) if found == *flag => Ok((*flag, fd)),
            Ok(_) => invalid!("linux.namespaces: {} is a namespace of another type", path.display()),
            Err(_) => invalid!("linux.namespaces: {} is not a namespace", path.display()),
        }
    };
    paths.iter().map(open).collect()
}

/// containerd and CRI-O give both a user namespace and its mappings; others than its own would be misapplied.
fn check_id_maps(spec: &Spec, join: &[(i32, OwnedFd)]) -> Result<()> {
    let Some(linux) = &spec.linux else { return Ok(()) };
    let Some((_, namespace)) = join.iter().find(|(flag, _)| *flag == libc::CLONE_NEWUSER) else {
        return Ok(());
    };
    if linux.uid_mappings.is_empty() && linux.gid_mappings.is_empty() {
        return Ok(());
    }
    let found = spawn::id_maps_of(namespace.as_fd())?;
    let sorted = |maps: &[crate::spec::IdMapping]| {
        let mut maps = maps.to_vec();
        maps.sort_by_key(|m| m.container_id);
        maps
    };
    let same = |given, found| sorted(given) == sorted(found);
    if !same(&linux.uid_mappings, &found.uids) || !same(&linux.gid_mappings, &found.gids) {
        invalid!("user namespaces enabled, but both namespace path and non-matching mapping specified -- you may only provide one");
    }
    Ok(())
}

/// How many descriptors from 3 on the container gets: those asked for, after those of socket activation.
pub fn inherited_fds(preserve: u32) -> Result<u32> {
    let end = preserve.checked_add(sockets::activated()).and_then(|n| i32::try_from(n).ok()?.checked_add(3));
    let Some(end) = end else {
        invalid!("--preserve-fds {preserve}: there can't be so many file descriptors")
    };
    for fd in 3..end {
        process::inherited(fd).map_err(|_| {
            Error::invalid(format!("--preserve-fds or LISTEN_FDS: file descriptor {fd} is not open"))
        })?;
    }
    Ok((end - 3).unsigned_abs())
}

/// Refuses a terminal that nobody would have, and a socket for none.
pub fn check_terminal(spec: &Spec, mode: Mode, socket: bool) -> Result<()> {
    let terminal = spec.process.as_ref().is_some_and(|p| p.terminal);
    let detached = mode != Mode::Run { detach: false };
    match (terminal, detached, socket) {
        (true, true, false) => {
            invalid!("cannot allocate tty if runc will detach without setting console socket")
        }
        (false, _, true) | (true, false, true) => {
            invalid!("cannot use console socket if runc will not detach or allocate tty")
        }
        _ => Ok(()),
    }
}
