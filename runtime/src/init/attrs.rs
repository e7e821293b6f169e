//! The attributes of a container's process. For each there is a pure `parse`, which refuses what the kernel would
//! refuse before anything is touched, and an `apply`, which a single-threaded child calls on itself.

pub mod caps;
pub mod labels;
pub mod procfs;
pub mod rlimits;
pub mod sysctl;
