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

pub fn parse(given: Option<&spec::ExecCpuAffinity>) -> Result<Affinity> {
    let Some(given) = given else { return Ok(Affinity::default()) };
    let one = |text: &Option<String>, name: &str| -> Result<Option<Mask>> {
        let text = text.as_deref().unwrap_or_default();
        let mask = cpulist::parse(text).with_context(|| format!("bad CPUAffinity.{name}"))?;
        Ok((!mask.is_empty()).then_some(mask))
    };
    Ok(Affinity { initial: one(&given.initial, "Initial")?, last: one(&given.final_, "Final")? })
}

/// The affinity that the caller had.
#[must_use]
pub struct Previous(Option<Mask>);

impl Previous {
    pub fn restore(self) {
        if let Some(mask) = self.0 {
            // It was in force a moment ago.
            let _ = sys::set_affinity(0, mask.words());
        }
    }
}

impl Affinity {
    /// Sets the caller's to the initial one, for a child that is about to be made and inherits it.
    pub fn before_cgroup(&self) -> Result<Previous> {
        let Some(initial) = &self.initial else { return Ok(Previous(None)) };
        let previous = sys::affinity().context("reading the CPU affinity")?;
        sys::set_affinity(0, initial.words()).context("error setting initial CPU affinity")?;
        Ok(Previous(Some(Mask::of(previous))))
    }

    /// Sets the caller's, in its cgroups, to the final one. Where none was asked for, the caller may run on all CPUs, also
    /// on those that its cpuset gets only later: a daemon's own affinity is no wish for its containers.
    pub fn in_cgroup(&self) -> Result<()> {
        match (&self.initial, &self.last) {
            (_, Some(last)) => sys::set_affinity(0, last.words()).context("error setting final CPU affinity"),
            (Some(_), None) => Ok(()),
            (None, None) => {
                if let Err(errno) = sys::set_affinity(0, Mask::full().words()) {
                    log::warn!("resetting the CPU affinity failed, the runtime's may be inherited: {errno}");
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(initial: Option<&str>, last: Option<&str>) -> spec::ExecCpuAffinity {
        spec::ExecCpuAffinity { initial: initial.map(str::to_string), final_: last.map(str::to_string) }
    }

    #[test]
    fn parses_both() {
        let affinity = parse(Some(&given(Some("0-1"), Some("")))).unwrap();
        assert_eq!(affinity.initial.unwrap().words(), [3]);
        assert!(affinity.last.is_none());
        assert_eq!(parse(None).unwrap(), Affinity::default());
        let text = parse(Some(&given(None, Some("x")))).unwrap_err().to_string();
        assert!(text.starts_with("bad CPUAffinity.Final: "), "{text}");
    }

    fn allowed() -> String {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:\t").map(str::to_string)).unwrap()
    }

    #[test]
    fn initial_then_final_then_back() {
        let all = allowed();
        let initial = parse(Some(&given(Some("0"), None))).unwrap();
        let previous = initial.before_cgroup().unwrap();
        assert_eq!(allowed(), "0");
        initial.in_cgroup().unwrap();
        assert_eq!(allowed(), "0", "no final one: the initial one stays");
        previous.restore();
        assert_eq!(allowed(), all);
        parse(Some(&given(None, Some("0")))).unwrap().in_cgroup().unwrap();
        assert_eq!(allowed(), "0");
        Affinity::default().in_cgroup().unwrap();
        assert_eq!(allowed(), all, "what was narrow is wide again");
    }
}
