//! The attributes of a container's process. For each there is a pure `parse`, which refuses what the kernel would
//! refuse before anything is touched, and an `apply`, which a single-threaded child calls on itself.

pub mod affinity;
pub mod caps;
pub mod cpulist;
pub mod keyring;
pub mod labels;
pub mod misc;
pub mod netdev;
mod netlink;
pub mod procfs;
pub mod rdt;
pub mod rlimits;
pub mod scheduling;
pub mod sysctl;
