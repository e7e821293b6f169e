//! `linux.intelRdt`: a class of service (cache and memory bandwidth) and a monitoring group in the resctrl file system.
//! The parent does this, for a child that has not begun to run.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use crate::error::{Context, Error, Kind, Result};
use crate::invalid;
use crate::spec::{self, Spec};

pub mod change;
pub mod stats;

/// What to make in resctrl.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rdt {
    /// The class of service's directory below the root; empty for the root itself.
    clos: String,
    /// The class was named by the profile: others may use it, and it stays.
    shared: bool,
    schemata: String,
    /// The monitoring group below the class.
    monitor: Option<String>,
    needs_l3: bool,
    needs_mb: bool,
}

/// `id` names what is the container's own.
pub fn parse(given: &spec::IntelRdt, id: &str) -> Result<Rdt> {
    let clos = given.clos_id.as_str();
    if clos == "." || clos == ".." || (clos.len() > 1 && clos.contains('/')) || clos.contains('\0') {
        invalid!("invalid intelRdt.ClosID {clos:?}");
    }
    let lines = [&given.l3_cache_schema, &given.mem_bw_schema].into_iter().chain(&given.schemata);
    let schemata: String = lines.filter(|line| !line.is_empty()).map(|line| format!("{line}\n")).collect();
    Ok(Rdt {
        clos: if clos.is_empty() { id } else { clos.trim_start_matches('/') }.to_string(),
        shared: !clos.is_empty(),
        schemata,
        monitor: given.enable_monitoring.then(|| id.to_string()),
        needs_l3: !given.l3_cache_schema.is_empty(),
        needs_mb: !given.mem_bw_schema.is_empty(),
    })
}

/// What config.json asks for, if it does.
pub fn of(spec: &Spec, id: &str) -> Result<Option<Rdt>> {
    let given = spec.linux.as_ref().and_then(|linux| linux.intel_rdt.as_ref());
    given.map(|given| parse(given, id)).transpose()
}

/// Where resctrl is mounted: at its usual place, or anywhere. None: the machine has no RDT, or nobody mounted it.
pub fn root() -> Option<PathBuf> {
    const USUAL: &str = "/sys/fs/resctrl";
    const RDTGROUP_SUPER_MAGIC: i64 = 0x0765_5821;
    // The kernel makes the empty directory where the processor has RDT.
    let there = nix::sys::statfs::statfs(USUAL).ok()?;
    if there.filesystem_type().0 as i64 == RDTGROUP_SUPER_MAGIC {
        return Some(USUAL.into());
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    mounts.lines().find_map(|line| {
        let (fields, source) = line.split_once(" - ")?;
        let path = fields.split(' ').nth(4)?;
        source.starts_with("resctrl ").then(|| path.replace("\\040", " ").into())
    })
}

impl Rdt {
    /// Refuses what the machine can't give, before anything is touched.
    pub fn check(&self, root: Option<&Path>) -> Result<()> {
        let Some(root) = root else {
            return Err(Error::unsupported("intelRdt is specified in config, but Intel RDT is not enabled"));
        };
        if self.needs_l3 && !root.join("info/L3").exists() {
            let text = "intelRdt.l3CacheSchema is specified in config, but Intel RDT/CAT is not enabled";
            return Err(Error::unsupported(text));
        }
        if self.needs_mb && !root.join("info/MB").exists() {
            let text = "intelRdt.memBwSchema is specified in config, but Intel RDT/MBA is not enabled";
            return Err(Error::unsupported(text));
        }
        if self.shared && self.schemata.is_empty() && !self.clos_dir(root).is_dir() {
            invalid!(
                "clos dir {} not accessible (must be pre-created when schemata, l3CacheSchema and memBwSchema are empty)",
                self.clos_dir(root).display()
            );
        }
        Ok(())
    }

    fn clos_dir(&self, root: &Path) -> PathBuf {
        // Joining "" would add a slash at the end.
        if self.clos.is_empty() {
            root.to_path_buf()
        } else {
            root.join(&self.clos)
        }
    }

    fn monitor_dir(&self, root: &Path) -> Option<PathBuf> {
        self.monitor.as_ref().map(|id| self.clos_dir(root).join("mon_groups").join(id))
    }

    /// The directories that `apply` would make, and that deletion has to remove, in that order. One that is there already
    /// is somebody else's. To be asked, and recorded, before `apply`.
    pub fn to_undo(&self, root: &Path) -> Vec<PathBuf> {
        let clos = self.clos_dir(root);
        let monitor = self.monitor_dir(root);
        let own_clos = (!self.shared).then_some(clos);
        monitor.into_iter().chain(own_clos).filter(|dir| !dir.exists()).collect()
    }

    /// Puts `pid` into its groups, making them if need be. A class that was named and is there already has to have the
    /// schemata that are asked for, and keeps them (config-linux.md, Intel RDT).
    pub fn apply(&self, root: &Path, pid: i32) -> Result<()> {
        let clos = self.clos_dir(root);
        // resctrl's own convention (Documentation/filesystems/resctrl.rst): who makes groups locks the root. Nobody sees a class
        // that has not got its schemata yet.
        let _lock = lock(root)?;
        let there = self.shared && clos.is_dir();
        make(root, &clos)?;
        let schemata = clos.join("schemata");
        if there {
            self.compare(root, &schemata)?;
        } else if !self.schemata.is_empty() {
            write(root, &schemata, &self.schemata)?;
        }
        write(root, &clos.join("tasks"), &pid.to_string())?;
        if let Some(monitor) = self.monitor_dir(root) {
            make(root, &monitor)?;
            write(root, &monitor.join("tasks"), &pid.to_string())?;
        }
        Ok(())
    }

    fn compare(&self, root: &Path, file: &Path) -> Result<()> {
        if self.schemata.is_empty() {
            return Ok(());
        }
        let found = fs::read_to_string(file).with_context(|| format!("intelrdt: read {}", file.display()))?;
        let step = fs::read_to_string(root.join("info/MB/bandwidth_gran")).unwrap_or_default();
        match different(&self.schemata, &found, step.trim().parse().unwrap_or(1)) {
            None => Ok(()),
            Some(line) => invalid!(
                "intelRdt: the class {} is there and does not have {line:?}; its schemata are {:?}: ask for those, or name \
                 another closID",
                file.parent().unwrap_or(file).display(),
                found.split_whitespace().collect::<Vec<_>>().join(" ")
            ),
        }
    }

    /// Puts one more process, that `exec` adds, where the first one is.
    pub fn join(&self, root: &Path, pid: i32) -> Result<()> {
        let clos = self.clos_dir(root);
        write(root, &clos.join("tasks"), &pid.to_string())?;
        match self.monitor_dir(root) {
            Some(monitor) => write(root, &monitor.join("tasks"), &pid.to_string()),
            None => Ok(()),
        }
    }
}

/// Removes one of the directories that `to_undo` named. The kernel moves what is left in it to the group above.
pub fn remove(dir: &Path) -> Result<()> {
    match fs::remove_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.with_context(|| format!("remove resctrl group {}", dir.display())),
    }
}

fn lock(root: &Path) -> Result<Flock<File>> {
    let open = File::open(root).with_context(|| format!("open {}", root.display()))?;
    Flock::lock(open, FlockArg::LockExclusive)
        .map_err(|(_, e)| io::Error::from(e))
        .with_context(|| format!("lock {}", root.display()))
}

/// The first line of `asked` that a class with the schemata `found` doesn't fulfil. The kernel pads and orders lines, names every
/// domain, and rounds bandwidths up to multiples of `step` percent.
fn different<'a>(asked: &'a str, found: &str, step: u64) -> Option<&'a str> {
    let domains = |line: &str| -> Vec<(String, u64)> {
        let (kind, list) = line.split_once(':').unwrap_or((line, ""));
        let radix = if kind.trim_start().starts_with('L') { 16 } else { 10 };
        let number = |text: &str| u64::from_str_radix(text.trim(), radix).unwrap_or(u64::MAX);
        let pairs = list.split(';').filter_map(|domain| domain.split_once('='));
        pairs.map(|(id, value)| (format!("{}:{}", kind.trim(), id.trim()), number(value))).collect()
    };
    let has: Vec<(String, u64)> = found.lines().flat_map(domains).collect();
    let fulfilled = |(domain, value): &(String, u64)| {
        let rounded = if domain.starts_with("MB:") { value.div_ceil(step) * step } else { *value };
        has.iter().any(|(name, is)| name == domain && (is == value || *is == rounded))
    };
    asked.lines().find(|line| {
        let wanted = domains(line);
        wanted.is_empty() || !wanted.iter().all(fulfilled)
    })
}

fn make(root: &Path, dir: &Path) -> Result<()> {
    match fs::create_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result
            .map_err(|e| explain(root, e))
            .with_context(|| format!("make resctrl group {}", dir.display())),
    }
}

fn write(root: &Path, file: &Path, text: &str) -> Result<()> {
    fs::write(file, text)
        .map_err(|e| explain(root, e))
        .with_context(|| format!("intelrdt: unable to write {text:?} to {}", file.display()))
}

/// resctrl's errno says little; a file says more.
fn explain(root: &Path, error: io::Error) -> Error {
    let said = fs::read_to_string(root.join("info/last_cmd_status")).unwrap_or_default();
    match said.trim() {
        "" | "ok" => Error::from(error),
        said => Error::new(Kind::System, format!("{}, last_cmd_status: {said}", Error::from(error))),
    }
}

#[cfg(test)]
pub mod tests;
