//! `process.execCPUAffinity`, and the reset of an affinity that the runtime's caller left behind.

use super::cpulist::{self, Mask};
use crate::error::{Context, Result};
use crate::spec;
use crate::sys::attrs as sys;

/// For `exec` alone: the CPUs before and after the process enters the container's cgroup.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Affinity {
    pub initial: Option<Mask>,
    pub last: Option<Mask>,
}

impl Affinity {
    /// Whether nothing was asked for, so that the affinity is to be reset.
    pub fn is_unset(&self) -> bool {
        self.initial.is_none() && self.last.is_none()
    }
}

pub fn parse(given: Option<&spec::ExecCpuAffinity>) -> Result<Affinity> {
    let Some(given) = given else { return Ok(Affinity::default()) };
    let one = |text: &Option<String>, name: &str| -> Result<Option<Mask>> {
        let text = text.as_deref().unwrap_or_default();
        let mask = cpulist::parse(text).with_context(|| format!("bad CPUAffinity.{name}"))?;
        Ok((!mask.is_empty()).then_some(mask))
    };
    Ok(Affinity { initial: one(&given.initial, "Initial")?, last: one(&given.final_, "Final")? })
}

/// `pid` 0 is the caller. CPUs that the kernel doesn't have, or that the cpuset forbids, are left out by it.
pub fn apply(mask: &Mask, pid: i32) -> Result<()> {
    sys::set_affinity(pid, mask.words()).context("error setting CPU affinity")
}

/// Lets `pid` run on all CPUs, also on those that its cpuset gets only later: a daemon's own affinity is no wish for its
/// containers. Failure is for the log.
pub fn reset(pid: i32) -> Result<()> {
    let what =
        "resetting the CPU affinity failed -- the container process may inherit the runtime's CPU affinity";
    sys::set_affinity(pid, Mask::full().words()).context(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_both() {
        let given = spec::ExecCpuAffinity { initial: Some("0-1".into()), final_: None };
        let affinity = parse(Some(&given)).unwrap();
        assert_eq!(affinity.initial.unwrap().words(), [3]);
        assert!(affinity.last.is_none());
        assert!(parse(None).unwrap().is_unset());
        let bad = spec::ExecCpuAffinity { initial: None, final_: Some("x".into()) };
        assert!(parse(Some(&bad)).unwrap_err().to_string().starts_with("bad CPUAffinity.Final: "));
    }

    #[test]
    fn a_reset_widens_what_was_narrow() {
        apply(&cpulist::parse("0").unwrap(), 0).unwrap();
        let allowed = || {
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            status
                .lines()
                .find_map(|line| line.strip_prefix("Cpus_allowed_list:\t").map(str::to_string))
                .unwrap()
        };
        assert_eq!(allowed(), "0");
        reset(0).unwrap();
        assert!(allowed() != "0" || std::thread::available_parallelism().unwrap().get() == 1);
    }
}
