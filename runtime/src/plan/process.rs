//! The attributes of a process, from a `process` object.

use std::ffi::CString;

use crate::error::Result;
use crate::init::attrs::caps::{self, Caps};
use crate::init::attrs::labels;
use crate::init::attrs::rlimits::{self, Rlimits};
use crate::init::attrs::Attrs;
use crate::plan::c_string;
use crate::spec;

/// One process, ready to be made.
#[derive(Debug, Default)]
pub struct Process {
    pub args: Vec<CString>,
    /// Without duplicates: of several the last counts, as in a shell.
    pub env: Vec<CString>,
    pub cwd: CString,
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub umask: Option<u32>,
    pub caps: Caps,
    pub rlimits: Rlimits,
    pub no_new_privileges: bool,
    pub apparmor_profile: Option<String>,
    pub selinux_label: Option<String>,
    pub oom_score_adj: Option<i32>,
    pub attrs: Attrs,
    pub terminal: bool,
    /// Rows and columns.
    pub console_size: Option<(u16, u16)>,
}

impl Process {
    /// `process` has been validated; `exec` says that it joins a container that runs. Unknown capability names are warned of, as the specification demands.
    pub fn plan(process: &spec::Process, linux: Option<&spec::Linux>, exec: bool) -> Result<Process> {
        labels::check(process.apparmor_profile.as_deref(), process.selinux_label.as_deref())?;
        // Absent, as with runc: none at all.
        let given = process.capabilities.clone().unwrap_or_default();
        let (caps, warnings) = caps::parse(&given, caps::last_cap());
        for warning in warnings {
            log::warn!("{warning}");
        }
        Ok(Process {
            args: process.args.iter().map(|a| c_string(a, "process.args")).collect::<Result<_>>()?,
            env: deduplicate(&process.env)
                .into_iter()
                .map(|e| c_string(e, "process.env"))
                .collect::<Result<_>>()?,
            cwd: c_string(&process.cwd, "process.cwd")?,
            uid: process.user.uid,
            gid: process.user.gid,
            groups: process.user.additional_gids.clone(),
            umask: process.user.umask,
            caps,
            rlimits: rlimits::parse(&process.rlimits)?,
            no_new_privileges: process.no_new_privileges,
            apparmor_profile: process.apparmor_profile.clone().filter(|p| !p.is_empty()),
            selinux_label: process.selinux_label.clone().filter(|l| !l.is_empty()),
            oom_score_adj: process.oom_score_adj,
            attrs: Attrs::parse(process, linux, exec)?,
            terminal: process.terminal,
            console_size: process.console_size.as_ref().map(|s| (s.height, s.width)),
        })
    }

    /// The value of a variable.
    pub fn variable(&self, name: &str) -> Option<&[u8]> {
        self.env.iter().find_map(|e| e.to_bytes().strip_prefix(name.as_bytes())?.strip_prefix(b"="))
    }
}

/// Keeps the last of each name, in the order in which they came.
fn deduplicate(env: &[String]) -> Vec<&str> {
    let name = |e: &'_ str| e.split('=').next().unwrap_or_default().to_string();
    let mut seen = std::collections::HashSet::with_capacity(env.len());
    let mut kept: Vec<&str> = env.iter().rev().filter(|e| seen.insert(name(e))).map(String::as_str).collect();
    kept.reverse();
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_a_name_counts() {
        let env: Vec<String> = ["A=1", "B=2", "A=3", "AB=4"].map(String::from).to_vec();
        assert_eq!(deduplicate(&env), ["B=2", "A=3", "AB=4"]);
        let process =
            Process { env: env.iter().map(|e| c_string(e, "").unwrap()).collect(), ..Process::default() };
        assert_eq!(process.variable("AB"), Some(&b"4"[..]));
        assert_eq!(process.variable("C"), None);
    }
}
