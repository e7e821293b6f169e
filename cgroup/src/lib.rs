//! Control groups: v1, hybrid and v2, through the file system or systemd. Knows nothing of containers.

pub mod resources;

pub use resources::Resources;
