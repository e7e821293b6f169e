//! `checkpoint`: the container's processes into files, by criu.

use std::fs;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{fcntl, FcntlArg, OFlag};

use super::{start, Setting, LOCK_DEADLINE};
use crate::cli::Checkpoint;
use crate::criu::rpc::{self, Options, Switch, Text};
use crate::criu::{self, mounts, Criu};
use crate::error::{Context, Error, Kind, Result};
use crate::invalid;
use crate::spec::Spec;
use crate::state::{Container, Status};
use crate::sys::process;

/// Where restore learns what the standard streams were.
pub const DESCRIPTORS: &str = "descriptors.json";
const LOG: &str = "dump.log";

pub fn run(setting: &Setting, args: &Checkpoint) -> Result<u8> {
    let mut container = setting.load(&args.id)?;
    let lock = container.lock(LOCK_DEADLINE)?;
    let status = container.status();
    let pid = match (status, container.state.init) {
        (Status::Running | Status::Paused, Some(init)) => init.pid,
        // runc's text.
        _ => {
            return Err(Error::new(
                Kind::State,
                format!("Container cannot be checkpointed in {status} state"),
            ))
        }
    };
    let program = setting.global.criu.as_deref();
    let images = Images::open(&args.criu, args.parent_path.as_deref())?;
    let spec = start::config(&container)?;
    criu::require(program, args.pre_dump, args.criu.lazy_pages)?;
    let status_fd = status_fd(args)?;
    let mut options = options(args, &container, &spec, &images, pid)?;
    let kind = if args.pre_dump { rpc::Kind::PreDump } else { rpc::Kind::Dump };
    if !args.pre_dump {
        let info =
            fs::read_to_string(format!("/proc/{pid}/mountinfo")).context("reading the container's mounts")?;
        for (key, value) in mounts::external(&spec, &container.state.rootfs, &info) {
            options.external_mount(&key, &value);
        }
        save_descriptors(&images.path, pid)?;
    }
    let mut criu = Criu::start(program)?;
    let answer = criu.ask(&rpc::request(kind, Some(&options)), |notification| {
        // criu says that its page server listens.
        match (notification.script.as_str(), status_fd) {
            ("status-ready", Some(fd)) => {
                let fd = process::inherited(fd).context("--status-fd")?;
                nix::unistd::write(fd, b"\0").context("writing to --status-fd").map(drop)
            }
            _ => Ok(()),
        }
    });
    match answer {
        // After a pre-dump criu waits for the dump, which will be another criu's.
        Ok(_) if args.pre_dump => criu.abandon(),
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
    if !args.leave_running && !args.pre_dump {
        // criu has killed the processes.
        super::delete::destroy(&container)?;
    }
    drop(lock);
    Ok(0)
}

/// The directories of a checkpoint.
pub struct Images {
    pub path: PathBuf,
    dir: OwnedFd,
    parent: Option<PathBuf>,
    work: Option<(PathBuf, OwnedFd)>,
}

impl Images {
    pub fn open(args: &crate::cli::Criu, parent: Option<&Path>) -> Result<Images> {
        let cwd = std::env::current_dir().context("finding the current directory")?;
        let path = cwd.join(args.image_path.as_deref().unwrap_or(Path::new("checkpoint")));
        let dir = open_dir(&path)?;
        if let Some(parent) = parent {
            if parent.is_absolute() {
                invalid!("--parent-path must be relative");
            }
            let meta = fs::metadata(path.join(parent)).context("invalid --parent-path")?;
            if !meta.is_dir() {
                invalid!("invalid --parent-path: {}: not a directory", parent.display());
            }
        }
        let work = args.work_path.as_deref().map(|work| cwd.join(work));
        let work = work.map(|path| open_dir(&path).map(|dir| (path, dir))).transpose()?;
        Ok(Images { path, dir, parent: parent.map(Path::to_path_buf), work })
    }

    pub fn options(
        &self,
        args: &crate::cli::Criu,
        log: &str,
        root: &str,
        annotations: &Annotations,
    ) -> Options {
        let work = self.work.as_ref().map(|(_, dir)| dir.as_raw_fd());
        let mut options = Options::new(args, self.dir.as_raw_fd(), work, log, root);
        // criu's own configuration wins over what we say; the annotation chooses the file, an empty one none.
        match annotations.get("org.criu.config").map(String::as_str) {
            Some("") => &mut options,
            Some(file) => options.text(Text::ConfigFile, file),
            None => options.text(Text::ConfigFile, "/etc/criu/runc.conf"),
        };
        options
    }

    /// criu's answer says little; its log says why.
    pub fn failed(&self, e: Error, log: &str) -> Error {
        let dir = self.work.as_ref().map_or(&self.path, |(path, _)| path);
        match criu::quote_log(&dir.join(log)) {
            Some(quote) => Error::new(e.kind(), format!("{e}: {quote}")),
            None => e,
        }
    }
}

type Annotations = std::collections::BTreeMap<String, String>;

fn open_dir(path: &Path) -> Result<OwnedFd> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.and_then(|()| fs::File::open(path))
        .map(OwnedFd::from)
        .with_context(|| format!("open {}", path.display()))
}

fn options(
    args: &Checkpoint,
    container: &Container,
    spec: &Spec,
    images: &Images,
    pid: i32,
) -> Result<Options> {
    let state = &container.state;
    let mut options = images.options(&args.criu, LOG, &state.rootfs.to_string_lossy(), &state.annotations);
    options.pid(pid);
    options.switch(Switch::LeaveRunning, args.leave_running);
    options.switch(Switch::LinkRemap, args.link_remap);
    options.switch(Switch::TcpSkipInFlight, args.tcp_skip_in_flight);
    if let Some((address, port)) = &args.page_server {
        options.page_server(address, *port);
    }
    if let Some(parent) = &images.parent {
        options.text(Text::ParentImage, &parent.to_string_lossy()).switch(Switch::TrackMemory, true);
    } else if args.pre_dump {
        options.switch(Switch::TrackMemory, true);
    }
    if let Some(path) = state.cgroup.as_ref().and_then(|l| l.path("freezer").or(l.path(""))) {
        options.text(Text::FreezeCgroup, &path.to_string_lossy());
    }
    for (kind, name, key) in EXTERNAL_NAMESPACES {
        if let Some(path) = namespace_path(spec, kind) {
            let inode = fs::metadata(path).with_context(|| format!("stat {path}"))?.ino();
            options.text(Text::External, &format!("{name}[{inode}]:{key}"));
        }
    }
    Ok(options)
}

/// Namespaces that criu takes from outside: our name, criu's name, the key.
pub const EXTERNAL_NAMESPACES: [(&str, &str, &str); 2] =
    [("network", "net", "extRootNetNS"), ("pid", "pid", "extRootPidNS")];

pub fn namespace_path<'a>(spec: &'a Spec, kind: &str) -> Option<&'a str> {
    let namespaces = &spec.linux.as_ref()?.namespaces;
    namespaces.iter().find(|n| n.kind == kind)?.path.as_deref().filter(|p| !p.is_empty())
}

/// The descriptor of `--status-fd`, looked at before anything is done.
fn status_fd(args: &Checkpoint) -> Result<Option<i32>> {
    let Some(fd) = args.status_fd.filter(|_| args.criu.lazy_pages) else { return Ok(None) };
    let wrong = |why: &str| Error::invalid(format!("invalid --status-fd argument {fd}: {why}"));
    let borrowed = process::inherited(fd).map_err(|e| wrong(&crate::error::strerror(e as i32)))?;
    let flags = fcntl(borrowed, FcntlArg::F_GETFL).context("fcntl F_GETFL")?;
    match OFlag::from_bits_truncate(flags) & OFlag::O_ACCMODE {
        OFlag::O_WRONLY | OFlag::O_RDWR => Ok(Some(fd)),
        _ => Err(wrong("not writable")),
    }
}

/// What the container's standard streams are: pipes come back as those of the restoring process.
fn save_descriptors(images: &Path, pid: i32) -> Result<()> {
    let names: Vec<String> = (0..3)
        .map(|fd| match fs::read_link(format!("/proc/{pid}/fd/{fd}")) {
            Ok(target) => target.to_string_lossy().into_owned(),
            Err(_) => String::new(),
        })
        .collect();
    let text = serde_json::to_string(&names).map_err(|e| Error::new(Kind::System, e.to_string()))?;
    let path = images.join(DESCRIPTORS);
    fs::File::create(&path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("write {}", path.display()))
}
