//! Making a cgroup: directories, limits, device rules, ownership; or the systemd unit that owns them.

use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::cgroup::{move_in, Cgroup};
use crate::devices;
use crate::dir::Dir;
use crate::error::{Context, Error, Kind, Result};
use crate::layout::{Layout, Mode, Version};
use crate::location::{Branch, Location};
use crate::resources::{DeviceRule, Resources};
use crate::systemd;
use crate::write::{self, Facts, Plan, Write};

/// What creation depends on besides path and limits.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Without privileges: what is not allowed is left out, unless the path or a limit was asked for.
    pub rootless: bool,
    /// The host's uid that owns the cgroup from inside a private cgroup namespace (v2 only).
    pub owner: Option<u32>,
    /// Text of the unit's description.
    pub description: String,
    /// Extra properties of the systemd unit, as `systemd::annotations` reads them.
    pub properties: Vec<systemd::Property>,
}

/// A unit that waits for its first process.
#[derive(Debug)]
pub(crate) struct Pending {
    layout: Layout,
    resources: Resources,
    options: Options,
}

/// Directories made so far.
#[derive(Default)]
struct Made(Vec<PathBuf>);

impl Made {
    fn take_back(&self) {
        for path in self.0.iter().rev() {
            // What has got a child or a process of somebody else's meanwhile stays.
            let _ = fs::remove_dir(path);
        }
    }
}

pub(crate) fn create(
    layout: &Layout,
    location: Location,
    resources: &Resources,
    options: Options,
) -> Result<Cgroup> {
    let fresh = plan_fresh(layout, resources, &|_, _| None)?;
    devices::check(&resources.devices)?;
    if location.branches.is_empty() {
        return Ok(Cgroup { location, dirs: vec![], pending: None, warnings: fresh.warnings });
    }
    if location.unit.is_some() {
        // Refused now rather than with a process waiting.
        systemd::properties(layout.mode, resources, None)?;
        let pending = Pending { layout: layout.clone(), resources: resources.clone(), options };
        return Ok(Cgroup { location, dirs: vec![], pending: Some(pending), warnings: fresh.warnings });
    }
    let mut made = Made::default();
    let mut cgroup = Cgroup {
        location: Location { branches: Vec::new(), ..location.clone() },
        dirs: Vec::with_capacity(location.branches.len()),
        pending: None,
        warnings: fresh.warnings.clone(),
    };
    let done = fill(layout, &location, resources, &fresh, &options, &mut cgroup, &mut made);
    match done {
        Ok(()) => Ok(cgroup),
        Err(e) => {
            made.take_back();
            Err(e)
        }
    }
}

fn plan_fresh(
    layout: &Layout,
    resources: &Resources,
    read: &dyn Fn(&str, &str) -> Option<String>,
) -> Result<Plan> {
    let version = |controller: &str| layout.version_of(controller);
    write::plan(resources, &Facts { version: &version, read, fresh: true })
}

/// Refuses settings whose files a cgroup at `location` won't have, before it is made. A cgroup like it shows that: the
/// one above it, or one beside that. Where there is none, nothing is refused.
pub fn foresee(layout: &Layout, location: &Location, resources: &Resources, raw: &[Write]) -> Result<()> {
    let models: Vec<(&Branch, Dir)> =
        location.branches.iter().filter_map(|branch| Some((branch, model(branch)?))).collect();
    let like = |controller: &str| {
        let branch = location.branch(controller)?;
        let (_, dir) = models.iter().find(|(b, _)| *b == branch)?;
        let enabled = || dir.peek("cgroup.controllers").unwrap_or_default();
        let has = branch.version == Version::V1
            || controller.is_empty()
            || enabled().split_whitespace().any(|c| c == controller);
        has.then_some(dir)
    };
    let plan = plan_fresh(layout, resources, &|c, f| like(c)?.peek(f))?;
    for write in plan.writes.iter().chain(raw).filter(|write| !write.optional) {
        match like(&write.controller) {
            // A neighbour that has gone meanwhile has no file any more, and shows nothing.
            Some(dir) if !dir.has(&write.file) && dir.has("cgroup.procs") => {
                return Err(explain(Error::from(nix::Error::ENOENT), dir, write))
            }
            _ => {}
        }
    }
    Ok(())
}

/// A cgroup of the same hierarchy that isn't its root, which lacks most files.
fn model(branch: &Branch) -> Option<Dir> {
    let above =
        branch.path.ancestors().take_while(|path| *path != branch.mount && path.starts_with(&branch.mount));
    let above = above.skip(1).find_map(|path| Dir::open(path).ok());
    above.or_else(|| {
        let beside = fs::read_dir(&branch.mount).ok()?.flatten();
        let mut beside = beside.filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir()));
        beside.find_map(|entry| Dir::open(entry.path()).ok())
    })
}

fn fill(
    layout: &Layout,
    location: &Location,
    resources: &Resources,
    fresh: &Plan,
    options: &Options,
    cgroup: &mut Cgroup,
    made: &mut Made,
) -> Result<()> {
    let mut existing = false;
    for branch in &location.branches {
        match make_branch(branch, location.mode, fresh, made) {
            Ok((dir, was_there)) => {
                existing |= was_there;
                cgroup.dirs.push(dir);
                cgroup.location.branches.push(branch.clone());
            }
            Err(e) if options.rootless && !location.explicit && e.kind() == Kind::Permission => {}
            Err(e) => return Err(e),
        }
    }
    if existing {
        cgroup.location.refuse_used()?;
    }
    // The choice between two files (BFQ or not) needs the directory; everything else is settled.
    let weights = resources
        .block_io
        .as_ref()
        .is_some_and(|io| io.weight.is_some_and(|n| n != 0) || !io.weight_device.is_empty());
    let replanned = match (existing, weights) {
        (true, _) => Some(cgroup.plan(layout, resources)?),
        (false, true) => Some(plan_fresh(layout, resources, &|c, f| cgroup.dir(c)?.peek(f))?),
        (false, false) => None,
    };
    write_all(cgroup, &replanned.as_ref().unwrap_or(fresh).writes)?;
    set_devices(cgroup, &fresh.devices, !existing, options.rootless)?;
    if let (Some(uid), Mode::V2) = (options.owner, layout.mode) {
        cgroup.unified().map_or(Ok(()), |dir| give_to(dir, uid))?;
    }
    Ok(())
}

/// Opens the directory of one hierarchy, made if need be. Says whether it was there.
fn make_branch(branch: &Branch, mode: Mode, plan: &Plan, made: &mut Made) -> Result<(Dir, bool)> {
    let cpuset = branch.controllers.iter().any(|c| c == "cpuset");
    let existing = !make_dir(&branch.path, &branch.mount, cpuset, Some(plan), made)?;
    let dir = Dir::open(&branch.path)?;
    if branch.version == Version::V2 {
        // Of a hybrid host's second hierarchy only those controllers are used that limits need.
        let mut wanted: Vec<&str> = if mode == Mode::V2 { BASIC.to_vec() } else { vec![] };
        let needed = plan.writes.iter().map(|w| w.controller.as_ref());
        let needed = needed.filter(|c| !c.is_empty() && (mode == Mode::V2 || *c == "hugetlb"));
        wanted.extend(needed);
        if !wanted.is_empty() {
            enable(branch, &dir, &wanted)?;
        }
    }
    Ok((dir, existing))
}

/// Controllers that every container should have on v2, for its statistics.
const BASIC: [&str; 5] = ["cpuset", "cpu", "io", "memory", "pids"];

/// Makes a directory and those above it. A cpuset takes no process before it has CPUs and memory nodes, and a new one
/// has none: they come from the parent.
fn make_dir(path: &Path, mount: &Path, cpuset: bool, plan: Option<&Plan>, made: &mut Made) -> Result<bool> {
    let mut builder = DirBuilder::new();
    builder.mode(0o755);
    let mut result = builder.create(path);
    if let (Err(e), Some(parent)) = (&result, path.parent()) {
        if e.kind() == ErrorKind::NotFound && parent.starts_with(mount) && parent != mount {
            make_dir(parent, mount, cpuset, None, made)?;
            result = builder.create(path);
        }
    }
    let new = match result {
        Ok(()) => true,
        Err(e) if e.kind() == ErrorKind::AlreadyExists => false,
        Err(e) => return Err(e).with_context(|| format!("creating cgroup {}", path.display())),
    };
    if new {
        made.0.push(path.to_path_buf());
    }
    if cpuset {
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let given = plan.is_some_and(|p| p.writes.iter().any(|w| w.file == file));
            if !given {
                inherit(path, mount, file, new)?;
            }
        }
    }
    Ok(new)
}

/// Copies a list of the nearest cgroup above that has one into all below it. A new one has none.
fn inherit(path: &Path, mount: &Path, file: &str, new: bool) -> Result<String> {
    let full = path.join(file);
    let text = match new {
        true => String::new(),
        false => fs::read_to_string(&full).with_context(|| format!("reading {}", full.display()))?,
    };
    let own = text.trim();
    match path.parent() {
        Some(parent) if own.is_empty() && path != mount => {
            let list = inherit(parent, mount, file, false)?;
            fs::write(&full, &list).with_context(|| format!("writing \"{list}\" to {}", full.display()))?;
            Ok(list)
        }
        _ => Ok(own.to_string()),
    }
}

/// Makes controllers available in a v2 cgroup. Usually they are, and one read shows it.
///
/// systemd takes back what it doesn't use itself, at any time, unless a cgroup below the root has it enabled too: between the two
/// writes all may have to begin again.
fn enable(branch: &Branch, dir: &Dir, wanted: &[&str]) -> Result<()> {
    const TRIES: usize = 20;
    const FRUITLESS: usize = 3;
    let lacks = || {
        let present = dir.read("cgroup.controllers")?;
        let present: Vec<&str> = present.split_whitespace().collect();
        Ok::<_, Error>(wanted.iter().any(|w| !present.contains(w)))
    };
    if !lacks()? {
        return Ok(());
    }
    let Ok(below) = branch.path.strip_prefix(&branch.mount) else { return Ok(()) };
    let mut fruitless = 0;
    for _ in 0..TRIES {
        let wrote = enable_all(&branch.mount, below)?;
        // One look may find nothing to do because what was there above was just taken back. What several can't do
        // anything about isn't to be had.
        fruitless = if wrote { 0 } else { fruitless + 1 };
        if !lacks()? || fruitless == FRUITLESS {
            break;
        }
    }
    let kind = dir.read("cgroup.type").unwrap_or_default();
    match kind.trim() {
        "domain" | "" => Ok(()),
        kind if !wanted.iter().any(|w| ["memory", "io"].contains(w) && !BASIC.contains(w)) => {
            join_threaded(dir, kind)
        }
        kind => Err(unenterable(dir, kind)),
    }
}

/// Enables at each level from `mount` on what is to be had there. Whether anything wasn't enabled yet.
fn enable_all(mount: &Path, below: &Path) -> Result<bool> {
    let (mut level, mut wrote) = (mount.to_path_buf(), false);
    for part in below {
        let dir = Dir::open(&level)?;
        let offered = dir.read("cgroup.controllers")?;
        let enabled = dir.read("cgroup.subtree_control")?;
        let enabled: Vec<&str> = enabled.split_whitespace().collect();
        let missing = offered.split_whitespace().filter(|c| !enabled.contains(c));
        let missing: Vec<String> = missing.map(|c| format!("+{c}")).collect();
        wrote |= !missing.is_empty();
        if !missing.is_empty() && dir.write("cgroup.subtree_control", &missing.join(" ")).is_err() {
            // One that can't be had (another's processes, no privilege) must not cost the others. A limit that needs
            // it fails when it is written.
            for one in &missing {
                let _ = dir.write("cgroup.subtree_control", one);
            }
        }
        level.push(part);
    }
    Ok(wrote)
}

/// Below a threaded cgroup only threaded ones can have processes.
fn join_threaded(dir: &Dir, kind: &str) -> Result<()> {
    if kind == "domain invalid" {
        dir.write("cgroup.type", "threaded").map_err(|_| unenterable(dir, kind))?;
    }
    Ok(())
}

fn unenterable(dir: &Dir, kind: &str) -> Error {
    let path = dir.path().display();
    Error::unsupported(format!(
        "cannot enter cgroup {path} with domain controllers: it is in state \"{kind}\""
    ))
}

/// Writes limits, in order, stopping at the first that fails.
pub(crate) fn write_all(cgroup: &Cgroup, writes: &[Write]) -> Result<()> {
    for w in writes {
        let dir = cgroup.dir(&w.controller).ok_or_else(|| {
            let text = format!("cannot set {}: container could not join or create cgroup", w.field);
            Error::new(Kind::Permission, text)
        })?;
        match dir.write(&w.file, &w.value) {
            Err(e) if w.optional && e.is(libc::ENOENT) => {}
            Err(e) => return Err(explain(e, dir, w)),
            Ok(()) => {}
        }
    }
    Ok(())
}

/// Says of a failed write which setting it was and what the errno means there.
pub(crate) fn explain(e: Error, dir: &Dir, w: &Write) -> Error {
    let field = format!("setting {}", w.field);
    match e.errno() {
        Some(libc::ENOENT | libc::EACCES) if !dir.has(&w.file) => {
            let text = match dir.read("cgroup.controllers") {
                Ok(list)
                    if !w.controller.is_empty() && !list.split_whitespace().any(|c| c == w.controller) =>
                {
                    format!("the {} controller is not enabled in {}", w.controller, dir.path().display())
                }
                _ => "the kernel has no such setting".to_string(),
            };
            e.with_kind(Kind::Unsupported).context(text).context(field)
        }
        Some(libc::ENODEV) => {
            e.context("no such whole disk (a partition can't be limited, its disk can)").context(field)
        }
        Some(libc::EOPNOTSUPP) if w.file.contains("weight") => {
            e.context("the device's IO scheduler has no weights (BFQ has)").context(field)
        }
        Some(libc::EBUSY) if w.file.contains("limit_in_bytes") => {
            let number = |file| dir.peek(file).unwrap_or_default().trim().to_string();
            let (usage, peak) = (number("memory.usage_in_bytes"), number("memory.max_usage_in_bytes"));
            let text = format!("unable to set to {} (current usage: {usage}, peak usage: {peak})", w.value);
            e.context(text).context(field)
        }
        _ => e.context(field),
    }
}

/// Puts device rules in force. None at all leaves a v1 list as it is inherited.
pub(crate) fn set_devices(cgroup: &Cgroup, rules: &[DeviceRule], fresh: bool, rootless: bool) -> Result<()> {
    if rules.is_empty() {
        return Ok(());
    }
    let done = match cgroup.location.mode {
        Mode::V2 => cgroup.unified().map_or(Ok(()), |dir| devices::attach(dir, rules, fresh)),
        Mode::V1 | Mode::Hybrid => match cgroup.dir("devices") {
            Some(dir) => set_list(dir, rules, fresh),
            None => Ok(()),
        },
    };
    match done {
        // Neither lists nor programs are open to the unprivileged, who can't make nodes either.
        Err(e) if rootless && matches!(e.kind(), Kind::Permission | Kind::NotFound) => Ok(()),
        other => other,
    }
}

fn set_list(dir: &Dir, rules: &[DeviceRule], fresh: bool) -> Result<()> {
    use nix::fcntl::OFlag;
    let lines = devices::transition(rules, fresh, || dir.read("devices.list"))?;
    let mut open: Option<(&str, fs::File)> = None;
    for line in &lines {
        let file = match open.take() {
            Some((name, file)) if name == line.file() => file,
            _ => dir.open_file(line.file(), OFlag::O_WRONLY).context("opening the device list")?.into(),
        };
        // The kernel takes one rule a write.
        std::io::Write::write_all(&mut &file, line.text.as_bytes()).with_context(|| {
            format!("writing \"{}\" to {}/{}", line.text, dir.path().display(), line.file())
        })?;
        open = Some((line.file(), file));
    }
    Ok(())
}

/// Gives a v2 cgroup to the container's root: the directory and those files that the kernel lists as safe.
fn give_to(dir: &Dir, uid: u32) -> Result<()> {
    let list = fs::read_to_string("/sys/kernel/cgroup/delegate");
    let list = list.unwrap_or_else(|_| "cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n".to_string());
    let own = |path: &Path| std::os::unix::fs::chown(path, Some(uid), None);
    own(dir.path()).with_context(|| format!("giving {} to {uid}", dir.path().display()))?;
    for file in list.lines() {
        match own(&dir.path().join(file)) {
            Err(e) if e.kind() != ErrorKind::NotFound => {
                return Err(e).with_context(|| format!("giving {}/{file} to {uid}", dir.path().display()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Has systemd make the unit with `pid` in it, then makes what systemd leaves out and sets all limits.
pub(crate) fn start_unit(cgroup: &mut Cgroup, pid: i32) -> Result<()> {
    let (Some(pending), Some(unit)) = (cgroup.pending.take(), cgroup.location.unit.clone()) else {
        return Ok(());
    };
    let Pending { layout, resources, options } = pending;
    let mut manager = systemd::Manager::connect(unit.user)?;
    let limits = systemd::properties(layout.mode, &resources, manager.version())?;
    let start =
        systemd::Start { unit: &unit, pid, mode: layout.mode, options: &options, resources: &resources };
    manager.start(&start, limits)?;
    let wanted = cgroup.location.clone();
    let mut made = Made::default();
    let done = join_unit(cgroup, &layout, &wanted, &resources, &options, pid, &mut made);
    if done.is_err() {
        // The process goes with the unit; the caller has not released it yet.
        let _ = manager.stop(&unit.name);
        made.take_back();
    }
    done
}

fn join_unit(
    cgroup: &mut Cgroup,
    layout: &Layout,
    wanted: &Location,
    resources: &Resources,
    options: &Options,
    pid: i32,
    made: &mut Made,
) -> Result<()> {
    let fresh = plan_fresh(layout, resources, &|_, _| None)?;
    cgroup.location.branches.clear();
    for branch in &wanted.branches {
        let (dir, _) = make_branch(branch, wanted.mode, &fresh, made)?;
        cgroup.dirs.push(dir);
        cgroup.location.branches.push(branch.clone());
        let has = |controller: &str| branch.controllers.iter().any(|c| c == controller);
        if branch.version == Version::V1 && has("cpuset") {
            // It takes no process before it has its lists; those given are not inherited.
            let lists: Vec<Write> =
                fresh.writes.iter().filter(|w| w.controller == "cpuset").cloned().collect();
            write_all(cgroup, &lists)?;
        }
        let by_systemd = branch.version == Version::V2 || has("name=systemd");
        if !by_systemd || (wanted.mode == Mode::Hybrid && branch.version == Version::V2) {
            cgroup.dirs.last().map_or(Ok(()), |dir| move_in(dir, pid))?;
        }
    }
    let plan = cgroup.plan(layout, resources)?;
    write_all(cgroup, &plan.writes)?;
    set_devices(cgroup, &plan.devices, false, options.rootless)?;
    match (options.owner, cgroup.unified()) {
        (Some(uid), Some(dir)) if layout.mode == Mode::V2 => give_to(dir, uid),
        _ => Ok(()),
    }
}
