//! A cgroup that exists: getting processes into it.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::OFlag;

use crate::create::{self, Options, Pending};
use crate::dir::Dir;
use crate::error::{invalid, Context, Error, Kind, Result};
use crate::layout::{join, parse_proc_cgroup, Layout, Version};
use crate::location::{Branch, Location};
use crate::resources::Resources;
use crate::write::{Facts, Plan};

/// A cgroup with its directory open in every hierarchy.
#[derive(Debug)]
pub struct Cgroup {
    pub(crate) location: Location,
    /// One for each branch of the location.
    pub(crate) dirs: Vec<Dir>,
    pub(crate) pending: Option<Pending>,
    pub(crate) warnings: Vec<String>,
}

/// How a process that is about to be cloned gets in.
#[derive(Debug, Default)]
pub struct Entry {
    /// For `clone3(CLONE_INTO_CGROUP)`.
    pub into: Option<OwnedFd>,
    /// `tasks` files of v1. The new process writes "0" into each: for the writer itself the kernel takes no lock on
    /// the thread group, and so waits for no grace period.
    pub tasks: Vec<OwnedFd>,
    /// The process has to be attached by its id once it exists (systemd makes the cgroup then).
    pub by_pid: bool,
}

/// A cgroup below the container's, as `exec --cgroup` names it: a path for all hierarchies or for some controllers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sub {
    all: Option<PathBuf>,
    some: Vec<(String, PathBuf)>,
}

impl Sub {
    /// From the values of the flag, each `PATH` or `CONTROLLER[,CONTROLLER]:PATH`.
    pub fn parse<S: AsRef<str>>(values: &[S]) -> Result<Sub> {
        let mut sub = Sub::default();
        for value in values.iter().map(AsRef::as_ref) {
            let (controllers, path) = value.split_once(':').map_or((None, value), |(c, p)| (Some(c), p));
            let plain = |p: &Path| p.components().all(|c| !matches!(c, std::path::Component::ParentDir));
            if !plain(Path::new(path)) {
                invalid!("--cgroup {value}: \"{path}\" is not a sub cgroup path");
            }
            match controllers {
                None if sub.all.is_some() => {
                    invalid!("--cgroup {value}: a path for all controllers is given twice")
                }
                None => sub.all = Some(path.into()),
                Some("") => invalid!("--cgroup {value}: no controller before the colon"),
                Some(list) => sub.some.extend(list.split(',').map(|c| (c.to_string(), path.into()))),
            }
        }
        Ok(sub)
    }

    fn of(&self, branch: &Branch) -> Option<&Path> {
        let named = self.some.iter().find(|(c, _)| branch.controllers.contains(c));
        named.map(|(_, p)| p).or(self.all.as_ref()).map(PathBuf::as_path)
    }
}

impl Cgroup {
    /// Makes the cgroup with its limits set before any process is in it. Everything made is taken away again on
    /// failure. For a systemd unit only the decisions are made: the unit comes to be in `attach`.
    pub fn create(
        layout: &Layout,
        location: Location,
        resources: &Resources,
        options: Options,
    ) -> Result<Cgroup> {
        create::create(layout, location, resources, options)
    }

    /// Opens an existing cgroup. Hierarchies in which it is gone are left out, unless it is gone from all.
    pub fn open(location: &Location) -> Result<Cgroup> {
        let mut found = Location { branches: Vec::new(), ..location.clone() };
        let mut dirs = Vec::with_capacity(location.branches.len());
        let mut last = None;
        for branch in &location.branches {
            match Dir::open(&branch.path) {
                Ok(dir) => {
                    dirs.push(dir);
                    found.branches.push(branch.clone());
                }
                Err(e) if e.kind() == Kind::NotFound => last = Some(e),
                Err(e) => return Err(e),
            }
        }
        match last {
            Some(e) if dirs.is_empty() => Err(e),
            _ => Ok(Cgroup { location: found, dirs, pending: None, warnings: Vec::new() }),
        }
    }

    /// Opens of an existing cgroup no more than the directory that has a controller's files. One file's worth of work where a
    /// question concerns one file.
    pub fn open_only(location: &Location, controller: &str) -> Result<Cgroup> {
        let branches = location.branch(controller).cloned().into_iter().collect();
        let Location { mode, unit, explicit, .. } = location;
        Cgroup::open(&Location { branches, mode: *mode, unit: unit.clone(), explicit: *explicit })
    }

    /// Where it lies. Without the branches that a rootless caller could not make.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// What was asked for at creation and has no meaning here.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The directory that has a controller's files. `""` names version 2.
    pub fn dir(&self, controller: &str) -> Option<&Dir> {
        let branch = self.location.branch(controller)?;
        self.branches().find(|(b, _)| std::ptr::eq(*b, branch)).map(|(_, d)| d)
    }

    pub(crate) fn branches(&self) -> impl Iterator<Item = (&Branch, &Dir)> {
        self.location.branches.iter().zip(&self.dirs)
    }

    /// The directory of version 2, on v2 and hybrid hosts.
    pub fn unified(&self) -> Option<&Dir> {
        self.branches().find(|(b, _)| b.version == Version::V2).map(|(_, d)| d)
    }

    /// The directory whose list of processes stands for all hierarchies.
    pub(crate) fn principal(&self) -> Option<(&Branch, &Dir)> {
        let devices = |(b, _): &(&Branch, &Dir)| b.controllers.iter().any(|c| c == "devices");
        self.branches().find(devices).or_else(|| self.branches().next())
    }

    /// What `resources` come to in this cgroup, decided by what is in force now.
    pub fn plan(&self, layout: &Layout, resources: &Resources) -> Result<Plan> {
        let version = |controller: &str| layout.version_of(controller);
        let read = |controller: &str, file: &str| self.dir(controller)?.peek(file);
        crate::write::plan(resources, &Facts { version: &version, read: &read, fresh: false })
    }

    /// How a new process gets in.
    pub fn entry(&self) -> Result<Entry> {
        self.entry_below(&Sub::default())
    }

    /// How a new process gets into a cgroup below this one, which must exist.
    pub fn entry_below(&self, sub: &Sub) -> Result<Entry> {
        let known = |c: &String| self.location.branches.iter().any(|b| b.controllers.contains(c));
        if let Some((controller, _)) = sub.some.iter().find(|(c, _)| !known(c)) {
            return Err(Error::new(
                Kind::Invalid,
                format!("unknown controller {controller} in --cgroup value"),
            ));
        }
        let mut entry = Entry { by_pid: self.pending.is_some(), ..Entry::default() };
        for (branch, dir) in self.branches() {
            match sub.of(branch) {
                Some(path) => entry.add(branch, &Dir::open(join(&branch.path, path))?)?,
                None => entry.add(branch, dir)?,
            }
        }
        Ok(entry)
    }

    /// How a new process gets to where `pid` is now, in the branch of version 2: after the container gave controllers
    /// to children of its cgroup (as systemd in it does), the cgroup itself takes no processes and clone says EBUSY.
    pub fn entry_beside(&self, pid: i32) -> Result<Entry> {
        let path = format!("/proc/{pid}/cgroup");
        // One that lies deeper than a path can say is told by no kernel: some refuse, some cut.
        let text = match std::fs::read_to_string(&path) {
            Err(e) if e.raw_os_error() == Some(libc::ENAMETOOLONG) => String::new(),
            other => other.with_context(|| format!("reading {path}"))?,
        };
        let members = parse_proc_cgroup(&text);
        let mut entry = Entry::default();
        for (branch, dir) in self.branches() {
            let found = members.iter().find(|m| m.controllers == branch.controllers);
            match found.map(|m| join(&branch.mount, &m.path)) {
                // Elsewhere would mean that somebody else's limits apply.
                Some(present) if branch.version == Version::V2 && present.starts_with(&branch.path) => {
                    match Dir::open(present) {
                        Err(e) if e.is(libc::ENAMETOOLONG) || e.is(libc::ENOENT) => entry.add(branch, dir)?,
                        present => entry.add(branch, &present?)?,
                    }
                }
                _ => entry.add(branch, dir)?,
            }
        }
        Ok(entry)
    }

    /// Moves a process in, the slow way. For a systemd unit this is when the unit is made: a refusal
    /// leaves nothing behind.
    pub fn attach(&mut self, pid: i32) -> Result<()> {
        if self.pending.is_some() {
            return create::start_unit(self, pid);
        }
        self.branches().try_for_each(|(_, dir)| move_in(dir, pid))
    }
}

/// Writes a process id, again after EINVAL: the kernel says so while another thread of the process is being moved or
/// the process is between real-time classes.
pub(crate) fn move_in(dir: &Dir, pid: i32) -> Result<()> {
    const TRIES: u32 = 5;
    let mut tries = 1;
    loop {
        match dir.write("cgroup.procs", &pid.to_string()) {
            Err(e) if e.is(libc::EINVAL) && tries < TRIES => {
                tries += 1;
                std::thread::sleep(Duration::from_millis(30));
            }
            other => return other.context("moving a process into its cgroup"),
        }
    }
}

impl Entry {
    fn add(&mut self, branch: &Branch, dir: &Dir) -> Result<()> {
        match branch.version {
            Version::V2 => self.into = Some(dir.as_fd().try_clone_to_owned()?),
            Version::V1 => {
                let tasks = dir.open_file("tasks", OFlag::O_WRONLY);
                self.tasks.push(tasks.with_context(|| format!("opening {}/tasks", dir.path().display()))?);
            }
        }
        Ok(())
    }
}
