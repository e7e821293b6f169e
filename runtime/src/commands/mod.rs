//! The verbs, a file each: read the state, check that it allows the verb, call what does it.

mod checkpoint;
mod create;
pub mod delete;
mod events;
mod exec;
mod features;
mod find;
mod inspect;
mod kill;
mod list;
pub mod monitor;
mod pause;
mod ps;
mod restore;
mod spec;
mod start;
mod state;
mod stats;
mod update;

use std::io::Write;
use std::time::Duration;

use cgroup::{Layout, Location, Manager};

use crate::cli::{self, CgroupManager, Command, Global};
use crate::error::{Context, Error, Result};
use crate::state::{Container, Store};
use crate::{log, seal};

/// Does what the command line says; the result is the exit code.
pub fn main(args: impl IntoIterator<Item = std::ffi::OsString>) -> u8 {
    let args: Vec<_> = args.into_iter().collect();
    if let Some(code) = crate::knobs::helper::main(args.iter().cloned()) {
        return code;
    }
    let (global, command) = cli::parse(args);
    if command.as_ref().is_ok_and(enters_container) {
        if let Err(e) = seal::ensure() {
            log::fail(&global, &e.to_string());
            return 1;
        }
    }
    if let Err(e) = log::open(&global) {
        log::fail(&global, &e.to_string());
        return 1;
    }
    let command = match command {
        Ok(command) => command,
        Err(misuse) => {
            let _ = print(&misuse.stdout);
            log::fail(&global, &misuse.text);
            return misuse.exit_code;
        }
    };
    let (prefix, code) = cli::failing(if matches!(command, Command::Exec(_)) { "exec" } else { "" });
    run(&global, command).unwrap_or_else(|e| {
        log::fail(&global, &format!("{prefix}{e}"));
        code
    })
}

/// Whether the verb makes a process that enters a container, and so must run from a sealed binary. Usually
/// `sys::entry` has seen to it, by the words of `SEALED_VERBS`.
fn enters_container(command: &Command) -> bool {
    matches!(command, Command::Create(_) | Command::Run(_) | Command::Exec(_) | Command::Restore(_))
}

fn run(global: &Global, command: Command) -> Result<u8> {
    let text = match command {
        Command::Features => features::text(),
        Command::Help(verb) => cli::help(verb),
        Command::Version => cli::version(),
        Command::Spec { bundle, file, rootless } => {
            spec::run(bundle.as_deref(), file.as_deref(), rootless)?;
            return Ok(0);
        }
        other => return with_setting(global, other),
    };
    print(&text)?;
    Ok(0)
}

/// The verbs that concern containers.
fn with_setting(global: &Global, command: Command) -> Result<u8> {
    let setting = Setting::new(global.clone())?;
    // The monitor takes this process's place, with all that was meant for it.
    if !matches!(command, Command::Monitor(_)) {
        crate::sockets::hide_inherited()?;
    }
    match command {
        Command::Create(args) => create::create(&setting, &args),
        Command::Run(args) => create::run(&setting, &args),
        Command::Start { id } => start::run(&setting, &id),
        Command::Exec(args) => exec::run(&setting, &args),
        Command::Kill { id, signal, all } => kill::run(&setting, &id, &signal, all),
        Command::Delete { id, force } => delete::run(&setting, &id, force),
        Command::State { id } => state::run(&setting, &id),
        Command::Monitor(args) => monitor::run(&setting, &args),
        Command::Pause { id } => pause::pause(&setting, &id),
        Command::Resume { id } => pause::resume(&setting, &id),
        Command::List(args) => list::run(&setting, &args),
        Command::Ps { id, format, args } => ps::run(&setting, &id, format, &args),
        Command::Events { id, stats, interval } => events::run(&setting, &id, stats, interval),
        Command::Checkpoint(args) => checkpoint::run(&setting, &args),
        Command::Restore(args) => restore::run(&setting, &args),
        Command::Update(args) => update::run(&setting, &args),
        Command::Inspect { ids, json } => inspect::run(&setting, &ids, json),
        Command::Stats(args) => stats::run(&setting, &args),
        other => Err(Error::unsupported(format!("{other:?}"))),
    }
}

/// How long a verb waits for another one that is changing the same container.
pub const LOCK_DEADLINE: Duration = Duration::from_secs(10);

/// What every verb needs to know of its surroundings.
pub struct Setting {
    pub global: Global,
    pub store: Store,
    /// Without privileges over the host: not root, or root of a user namespace.
    pub rootless: bool,
}

impl Setting {
    pub fn new(mut global: Global) -> Result<Setting> {
        if let Some(config) = &mut global.config {
            // `create` goes into the bundle before it reads the classes.
            *config = std::path::absolute(&config).context("--config")?;
        }
        let store = Store::new(global.state_root()?);
        let rootless = global.rootless.unwrap_or_else(lacks_privileges);
        Ok(Setting { global, store, rootless })
    }

    pub fn manager(&self) -> Manager {
        match self.global.cgroup_manager {
            CgroupManager::Cgroupfs => Manager::Cgroupfs,
            CgroupManager::Systemd => Manager::Systemd { user: self.rootless },
            CgroupManager::Disabled => Manager::Disabled,
        }
    }

    /// Where the container's cgroup is to be; nowhere with the `disabled` manager.
    pub fn locate(&self, layout: &Layout, id: &str, path: Option<&str>) -> Result<Option<Location>> {
        let manager = self.manager();
        if manager == Manager::Disabled {
            return Ok(None);
        }
        let user_root = match manager {
            Manager::Systemd { user: true } => {
                Some(cgroup::systemd::user_cgroup().context("asking the user's systemd for its cgroup")?)
            }
            _ => None,
        };
        let request = cgroup::Request {
            manager,
            cgroups_path: path,
            id,
            rootless: self.rootless,
            user_root: user_root.as_deref(),
        };
        Location::resolve(layout, &request).context("linux.cgroupsPath").map(Some)
    }

    /// The name of the calling user, for `list`.
    pub fn owner(&self) -> String {
        let uid = nix::unistd::getuid().as_raw();
        if uid == 0 {
            return "root".into();
        }
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let name = passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)? == uid.to_string()).then(|| name.to_string())
        });
        name.unwrap_or_else(|| format!("#{uid}"))
    }

    /// Reads a container's state; what a killed `update` left of it is finished first.
    pub fn load(&self, id: &str) -> Result<Container> {
        let mut container = self.store.load(id)?;
        crate::knobs::update::finish(&mut container);
        Ok(container)
    }
}

/// Not root, or root only in a user namespace that doesn't map every id.
fn lacks_privileges() -> bool {
    if !nix::unistd::geteuid().is_root() {
        return true;
    }
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let mut fields = map.split_whitespace();
    !matches!(
        (fields.next(), fields.next(), fields.next()),
        (Some("0"), Some("0"), Some("4294967295")) | (None, ..)
    )
}

/// Standard output, and not `print!`: that panics when nobody reads it any more.
fn print(text: &str) -> Result<()> {
    std::io::stdout().write_all(text.as_bytes()).context("writing to standard output")
}
