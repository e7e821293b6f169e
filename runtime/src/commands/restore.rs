//! `restore`: a container from what `checkpoint` saved.

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use cgroup::Cgroup;
use nix::mount::{mount, MsFlags};

use super::checkpoint::{namespace_path, Images, DESCRIPTORS, EXTERNAL_NAMESPACES};
use super::{start, Setting};
use crate::cli::Restore;
use crate::create::{self, Bundle, Limited, Mode};
use crate::criu::rpc::{self, Options, Switch, Text};
use crate::criu::{mounts, points, Criu, Notification};
use crate::error::{Context, Error, Kind, Result};
use crate::foreground::{self, Foreground};
use crate::init::attrs::rdt;
use crate::spec::Spec;
use crate::state::{self, Container, Status};
use crate::sys::process;
use crate::undo::Undo;
use crate::{hooks, invalid, sockets, spawn};

const LOG: &str = "restore.log";

pub fn run(setting: &Setting, args: &Restore) -> Result<u8> {
    let images = Images::open(&args.criu, None)?;
    let console =
        args.console_socket.as_deref().map(|p| sockets::connect(p, "console socket")).transpose()?;
    let pid_file = args.pid_file.as_deref().map(std::path::absolute).transpose()?;
    let bundle = Bundle::open(args.bundle.as_deref(), None)?;
    create::check_terminal(&bundle.spec, Mode::Run { detach: args.detach }, console.is_some())?;
    let rdt = rdt::of(&bundle.spec, &args.id)?;
    if let Some(rdt) = &rdt {
        rdt.check(rdt::root().as_deref())?;
    }
    let foreground = match args.detach {
        true => None,
        false => Some(Foreground::begin(!args.no_subreaper)?),
    };
    // As for a new container: what `update` changed before the checkpoint went with the state of the old one.
    let mut limited = create::limited(setting, &args.id, &bundle.spec, &bundle.rootfs()?, &[])?;
    let mut container = setting.store.create(&args.id)?;
    let mut restored = Restored { pid: 0, master: None, console };
    let Limited { location, knobs, .. } = &limited;
    let made = create::begin(setting, &mut container, &bundle, location.as_ref(), knobs, rdt.as_ref())
        .and_then(|()| {
            make(setting, args, &mut container, &bundle.spec, &images, &mut limited, &mut restored)
        })
        .and_then(|()| match &pid_file {
            Some(path) => create::write_pid_file(path, restored.pid),
            None => Ok(()),
        });
    if let Err(e) = made {
        if restored.pid != 0 {
            let _ = process::kill(restored.pid, libc::SIGKILL);
            spawn::reap(restored.pid);
        }
        create::give_up(&container, "restore");
        return Err(e);
    }
    let Some(foreground) = foreground else { return Ok(0) };
    let code = foreground.stay(restored.pid, restored.master, None);
    super::delete::destroy(&container)?;
    code.map(foreground::exit_code)
}

/// What criu tells about the restored container.
struct Restored {
    pid: i32,
    /// The master of its terminal, if it wasn't sent to the console socket.
    master: Option<OwnedFd>,
    console: Option<OwnedFd>,
}

fn make(
    setting: &Setting,
    args: &Restore,
    container: &mut Container,
    spec: &Spec,
    images: &Images,
    limited: &mut Limited,
    restored: &mut Restored,
) -> Result<()> {
    let root = Root::bind(container)?;
    let mut options = options(args, container, spec, images, &root.path)?;
    points::make(&container.state.rootfs, &container.state.bundle, &spec.mounts)?;
    for (key, source) in mounts::sources(
        spec,
        &container.state.bundle,
        &container.state.rootfs,
        container.state.cgroup.as_ref(),
    ) {
        options.external_mount(&key, &source);
    }
    let namespaces = inherit(&mut options, spec, &images.path)?;
    let borrowed: Vec<BorrowedFd<'_>> = namespaces.iter().map(AsFd::as_fd).collect();
    let mut criu = Criu::start_with(setting.global.criu.as_deref(), &borrowed)?;
    let entered = enter_cgroup(container, spec, limited, criu.pid(), &mut options);
    let classed = entered.and_then(|()| match (rdt::of(spec, &args.id)?, rdt::root()) {
        // What it restores is in its group, too.
        (Some(rdt), Some(root)) => rdt.apply(&root, criu.pid()),
        _ => Ok(()),
    });
    let answer = classed.and_then(|()| {
        criu.ask(&rpc::request(rpc::Kind::Restore, Some(&options)), |n| {
            notified(n, container, spec, restored)
        })
    });
    match answer {
        Ok(_) => {
            if !criu.finish()? {
                return Err(images.failed(Error::new(Kind::System, "criu failed"), LOG));
            }
        }
        Err(e) => {
            criu.abandon();
            return Err(images.failed(e, LOG));
        }
    }
    root.release(container)?;
    start::network(container, restored.pid)?;
    crate::knobs::helper::ensure(container.path(), &container.state.knobs)
}

fn options(
    args: &Restore,
    container: &Container,
    spec: &Spec,
    images: &Images,
    root: &Path,
) -> Result<Options> {
    let mut options = images.options(&args.criu, LOG, &root.to_string_lossy(), &container.state.annotations);
    options.switch(Switch::EvasiveDevices, true).switch(Switch::RestoreAsSibling, true);
    if args.tcp_close {
        options.switch(Switch::TcpClose, true);
    }
    for (field, value) in
        [(Text::LsmProfile, &args.lsm_profile), (Text::LsmMountContext, &args.lsm_mount_context)]
    {
        if let Some(value) = value {
            options.text(field, value);
        }
    }
    let Some(linux) = &spec.linux else { return Ok(options) };
    for namespace in &linux.namespaces {
        let Some(path) = namespace.path.as_deref().filter(|p| !p.is_empty()) else { continue };
        // criu's names; network and pid namespaces are handed over as descriptors.
        let name = match namespace.kind.as_str() {
            "network" | "pid" => continue,
            "mount" => "mnt",
            "ipc" | "uts" | "user" => &namespace.kind,
            kind => invalid!("linux.namespaces: criu can't put a container into the {kind} namespace {path}"),
        };
        options.join_namespace(name, path);
    }
    Ok(options)
}

/// Descriptors for criu: namespaces that exist, and for pipes that were standard streams ours of the same number.
fn inherit(options: &mut Options, spec: &Spec, images: &Path) -> Result<Vec<OwnedFd>> {
    let mut namespaces = Vec::new();
    for (kind, _, key) in EXTERNAL_NAMESPACES {
        if let Some(path) = namespace_path(spec, kind) {
            let file = File::open(path)
                .with_context(|| format!("Requested {kind} namespace {path} does not exist"))?;
            options.inherit_fd(key, file.as_raw_fd());
            namespaces.push(OwnedFd::from(file));
        }
    }
    let path = images.join(DESCRIPTORS);
    let text = fs::read(&path).with_context(|| format!("open {}", path.display()))?;
    let names: Vec<String> = serde_json::from_slice(&text)
        .map_err(|e| Error::invalid(format!("reading {}: {e}", path.display())))?;
    for (fd, name) in names.iter().enumerate().take(3) {
        if name.contains("pipe:") {
            options.inherit_fd(name, fd as i32);
        }
    }
    Ok(namespaces)
}

/// criu itself goes into the container's cgroup, so all that it makes is there from the beginning.
fn enter_cgroup(
    container: &mut Container,
    spec: &Spec,
    limited: &mut Limited,
    criu: i32,
    options: &mut Options,
) -> Result<()> {
    let Some(location) = container.state.cgroup.clone() else { return Ok(()) };
    let mut resources = limited.knobs.resources(spec, &location).into_owned();
    resources.devices.extend(cgroup::devices::default_rules());
    let owner = crate::plan::cgroup_owner(spec);
    let more = cgroup::Options { rootless: container.state.rootless, owner, ..Default::default() };
    // systemd makes a unit only with a process: until then there is nothing of ours.
    let unit = location.unit.is_some();
    let made = Cgroup::create(&limited.layout, location, &resources, more)
        .with_context(|| limited.knobs.making("creating the container's cgroup"));
    let ours = made.is_ok() && !unit;
    let made = made.and_then(|mut cgroup| {
        cgroup.attach(criu).context("putting criu into the container's cgroup")?;
        Ok(cgroup)
    });
    if made.is_err() && !ours {
        create::disown_cgroup(container);
    }
    let cgroup = made?;
    create::limit(container, &mut limited.knobs, &cgroup)?;
    let file = format!("/proc/{criu}/cgroup");
    let text = fs::read_to_string(&file).with_context(|| format!("reading {file}"))?;
    for member in cgroup::layout::parse_proc_cgroup(&text) {
        let path = member.path.to_string_lossy();
        if member.controllers.is_empty() {
            options.cgroup_root("", &path);
        }
        for controller in &member.controllers {
            options.cgroup_root(controller, &path);
        }
    }
    Ok(())
}

fn notified(n: Notification, container: &mut Container, spec: &Spec, restored: &mut Restored) -> Result<()> {
    match (n.script.as_str(), n.fd) {
        ("setup-namespaces", _) => {
            let Some(hooks) = &spec.hooks else { return Ok(()) };
            let state = container.oci_state(Status::Creating, n.pid);
            hooks::run("prestart", &hooks.prestart, &state, None)?;
            hooks::run("createRuntime", &hooks.create_runtime, &state, None)
        }
        ("post-restore", _) => {
            restored.pid = n.pid;
            container.state.init = Some(state::identify(n.pid)?);
            remember_time_namespace(container, n.pid)?;
            container.save()
        }
        ("orphan-pts-master", Some(master)) => match &restored.console {
            Some(socket) => sockets::send_fd(socket.as_fd(), master.as_fd(), b"/dev/ptmx")
                .context("sending the terminal's master to --console-socket"),
            None => {
                restored.master = Some(master);
                Ok(())
            }
        },
        _ => Ok(()),
    }
}

/// criu restores into a time namespace, so that the clocks go on; `exec` has to join it.
fn remember_time_namespace(container: &Container, pid: i32) -> Result<()> {
    let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/time")).ok();
    if of("self") == of(&pid.to_string()) {
        return Ok(());
    }
    let wrong = |e: serde_json::Error| Error::new(Kind::System, format!("the saved config.json: {e}"));
    let mut config: serde_json::Value = serde_json::from_slice(&container.config()?).map_err(wrong)?;
    if let Some(list) = config.pointer_mut("/linux/namespaces").and_then(|n| n.as_array_mut()) {
        if !list.iter().any(|n| n["type"] == "time") {
            list.push(serde_json::json!({ "type": "time" }));
        }
    }
    container.save_config(&serde_json::to_vec(&config).map_err(wrong)?)
}

/// criu wants a root that is a mount point and not hidden under another mount: the rootfs, bound to a directory of
/// ours while it works.
struct Root {
    path: PathBuf,
}

impl Root {
    fn bind(container: &mut Container) -> Result<Root> {
        let path = container.path().join("criu-root");
        fs::create_dir(&path).with_context(|| format!("creating {}", path.display()))?;
        container.state.undo.push(Undo::Mount(path.clone()));
        container.save()?;
        let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
        mount(Some(&container.state.rootfs), &path, None::<&str>, flags, None::<&str>)
            .with_context(|| format!("binding the rootfs to {}", path.display()))?;
        Ok(Root { path })
    }

    fn release(self, container: &mut Container) -> Result<()> {
        let step = Undo::Mount(self.path);
        step.take_back()?;
        container.state.undo.retain(|other| *other != step);
        container.save()
    }
}
