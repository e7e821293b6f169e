//! The command line: from strings to plain structs. No logic, and nothing is touched but the clock of the parser.
//!
//! clap draws the help, the man pages and the completions from the tables in `cli/table.rs`; the parsing itself is
//! `cli/grammar.rs`, because Go's grammar, which runc's callers write, is not clap's (docs/decisions/010-clap.md).

mod build;
#[cfg(test)]
mod docs;
mod grammar;
mod help;
mod root;
mod table;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Duration;

/// Options in front of the verb.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Global {
    /// `--root`, as given. `None`: the default, see [`Global::state_root`].
    pub root: Option<PathBuf>,
    /// `--log`; `None` is standard error.
    pub log: Option<PathBuf>,
    pub log_format: LogFormat,
    pub debug: bool,
    pub log_level: Option<::log::LevelFilter>,
    pub cgroup_manager: CgroupManager,
    /// `--rootless`; `None` is auto.
    pub rootless: Option<bool>,
    pub default_class: Option<String>,
    /// The file of classes and defaults; `None` is /etc/hydra/hydra.toml.
    pub config: Option<PathBuf>,
    /// `--criu`, of older callers; `None` is found in `$PATH`.
    pub criu: Option<PathBuf>,
}

impl Global {
    /// The directory of the containers' state, absolute. runc's rules: real root has one of its own and does not look
    /// at `$XDG_RUNTIME_DIR`; anybody else, and root of a user namespace that was made by somebody else (`$USER` is
    /// not root, or not set), uses `$XDG_RUNTIME_DIR`.
    pub fn state_root(&self) -> crate::error::Result<PathBuf> {
        root::state_root(self.root.as_deref())
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// Who makes cgroups.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CgroupManager {
    #[default]
    Cgroupfs,
    Systemd,
    Disabled,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Checkpoint(Checkpoint),
    Create(Create),
    Delete {
        id: String,
        force: bool,
    },
    Events {
        id: String,
        stats: bool,
        interval: Duration,
    },
    Exec(Exec),
    Features,
    Inspect {
        ids: Vec<String>,
        json: bool,
    },
    Kill {
        id: String,
        signal: String,
        all: bool,
    },
    List(List),
    Monitor(Monitor),
    Pause {
        id: String,
    },
    Ps {
        id: String,
        format: Format,
        args: Vec<String>,
    },
    Restore(Restore),
    Resume {
        id: String,
    },
    Run(Run),
    Spec {
        bundle: Option<PathBuf>,
        file: Option<PathBuf>,
        rootless: bool,
    },
    Start {
        id: String,
    },
    State {
        id: String,
    },
    Stats(Stats),
    Update(Update),
    Version,
    /// The help of one verb, or of all.
    Help(Option<&'static str>),
}

/// Paths are as given; relative ones are meant from the directory the caller was in, not from the bundle.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Create {
    pub id: String,
    pub bundle: Option<PathBuf>,
    /// config.json under another name (crun's `--config`), relative to the bundle.
    pub config: Option<PathBuf>,
    pub console_socket: Option<PathBuf>,
    pub pidfd_socket: Option<PathBuf>,
    pub pid_file: Option<PathBuf>,
    pub no_pivot: bool,
    pub no_new_keyring: bool,
    pub preserve_fds: u32,
    /// `--class`, in the place of the annotation `hydra.class`.
    pub class: Option<String>,
    /// Knob flags (name without the dashes, value), in the order given.
    pub knobs: Vec<(String, String)>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Run {
    pub create: Create,
    pub detach: bool,
    pub keep: bool,
    pub no_subreaper: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exec {
    pub id: String,
    pub args: Vec<String>,
    pub process: Option<PathBuf>,
    pub console_socket: Option<PathBuf>,
    pub pidfd_socket: Option<PathBuf>,
    pub cwd: Option<String>,
    pub env: Vec<String>,
    pub tty: bool,
    /// (uid, gid); a uid alone leaves the gid at the container's.
    pub user: Option<(u32, Option<u32>)>,
    pub additional_gids: Vec<u32>,
    pub detach: bool,
    pub pid_file: Option<PathBuf>,
    pub process_label: Option<String>,
    pub apparmor: Option<String>,
    /// `None`: as the container's process has it.
    pub no_new_privs: Option<bool>,
    pub cap: Vec<String>,
    pub preserve_fds: u32,
    /// Sub-cgroups, as (controller, path); the controller is empty for cgroup v2.
    pub cgroup: Vec<(String, String)>,
    pub ignore_paused: bool,
    pub no_subreaper: bool,
}

/// A verb that the container's monitor answers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Monitor {
    /// `attach`, `logs` or `wait`.
    pub verb: &'static str,
    pub id: String,
    /// Options of the verb, as the monitor's own program takes them.
    pub options: Vec<String>,
}

/// `table` or `json`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    #[default]
    Table,
    Json,
    Prometheus,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct List {
    pub format: Format,
    pub quiet: bool,
    pub long: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    pub ids: Vec<String>,
    pub once: bool,
    pub format: Format,
    /// `None`: the command's default.
    pub interval: Option<Duration>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Update {
    pub ids: Vec<String>,
    /// A file, or `-` for standard input.
    pub resources: Option<String>,
    /// runc's resource flags (name without the dashes, value), in the order given.
    pub flags: Vec<(&'static str, String)>,
    /// Knob flags (name without the dashes, value), in the order given.
    pub knobs: Vec<(String, String)>,
    /// `Some("")` takes the class away.
    pub class: Option<String>,
    /// `NAME=VALUE`, split.
    pub annotations: Vec<(String, String)>,
    pub unset: Vec<String>,
    pub dry_run: bool,
    pub json: bool,
    pub reload: bool,
    /// Names of classes (`--select class=NAME`).
    pub select: Vec<String>,
}

/// Options that checkpoint and restore share.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Criu {
    pub image_path: Option<PathBuf>,
    pub work_path: Option<PathBuf>,
    pub tcp_established: bool,
    pub ext_unix_sk: bool,
    pub shell_job: bool,
    pub lazy_pages: bool,
    pub file_locks: bool,
    /// `None`: soft.
    pub cgroups_mode: Option<CgroupsMode>,
    /// `--empty-ns network`.
    pub empty_network: bool,
    pub auto_dedup: bool,
}

/// criu's `--manage-cgroups`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupsMode {
    Soft,
    Full,
    Strict,
    Ignore,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checkpoint {
    pub id: String,
    pub criu: Criu,
    pub parent_path: Option<PathBuf>,
    pub leave_running: bool,
    pub tcp_skip_in_flight: bool,
    pub link_remap: bool,
    pub status_fd: Option<i32>,
    /// (address, port).
    pub page_server: Option<(String, u16)>,
    pub pre_dump: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Restore {
    pub id: String,
    pub criu: Criu,
    pub bundle: Option<PathBuf>,
    pub console_socket: Option<PathBuf>,
    pub pid_file: Option<PathBuf>,
    pub detach: bool,
    pub no_subreaper: bool,
    pub no_pivot: bool,
    pub tcp_close: bool,
    pub lsm_profile: Option<String>,
    pub lsm_mount_context: Option<String>,
}

/// What is put before the error of a verb, and its exit code. That of `exec` is runc's: the process to execute has exit codes of
/// its own, 255 says that it wasn't started.
pub fn failing(verb: &str) -> (&'static str, u8) {
    match verb {
        "exec" => ("exec failed: ", 255),
        _ => ("", 1),
    }
}

/// A command line that can't be followed: what to print where.
#[derive(Debug, PartialEq, Eq)]
pub struct Misuse {
    /// The error, for the log and standard error.
    pub text: String,
    /// Standard output: runc prints the help there.
    pub stdout: String,
    pub exit_code: u8,
}

/// Reads the arguments, the program's name first. The global options come back also where the verb's are wrong,
/// because the error belongs into their log.
pub fn parse(args: impl IntoIterator<Item = std::ffi::OsString>) -> (Global, Result<Command, Misuse>) {
    build::parse(args.into_iter())
}

pub use help::{help, version, VERSION};
