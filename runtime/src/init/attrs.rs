//! The attributes of a container's process. For each there is a pure `parse`, which refuses what the kernel would
//! refuse before anything is touched, and an `apply`, which a single-threaded child calls on itself.

pub mod affinity;
pub mod caps;
mod cpulist;
pub mod keyring;
pub mod labels;
pub mod netdev;
mod netlink;
pub mod oom;
pub mod procfs;
pub mod rdt;
pub mod rlimits;
pub mod scheduling;
pub mod sysctl;
pub mod timens;

use affinity::Affinity;
use scheduling::Scheduling;

use crate::error::Result;
use crate::spec;

/// Where and how the process runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attrs {
    pub affinity: Affinity,
    pub scheduling: Scheduling,
}

impl Attrs {
    /// `exec` says that it is one more process of a container: `execCPUAffinity` is for these alone.
    pub fn parse(process: &spec::Process, linux: Option<&spec::Linux>, exec: bool) -> Result<Attrs> {
        let affinity = affinity::parse(process.exec_cpu_affinity.as_ref())?;
        Ok(Attrs {
            affinity: if exec { affinity } else { Affinity::default() },
            scheduling: Scheduling::parse(process, linux)?,
        })
    }
}

/// Sets them on the caller, which is in the container's cgroups and has its privileges still.
pub fn apply(attrs: &Attrs) -> Result<()> {
    attrs.affinity.in_cgroup()?;
    attrs.scheduling.apply()
}
