//! Control groups: v1, hybrid and v2, through the file system or systemd. Knows nothing of containers.
//!
//! ```text
//! Layout::detect() -> Location::resolve() -> Cgroup::create() -> entry() | attach() -> ... -> destroy()
//! ```
//!
//! A `Location` is all that has to be kept (it serialises) to `Cgroup::open` it again.

pub mod apply;
pub mod block;
mod cgroup;
mod create;
mod destroy;
pub mod devices;
mod dir;
mod error;
pub mod events;
pub mod inside;
pub mod layout;
pub mod location;
mod procs;
pub mod resources;
pub mod stats;
mod sys;
pub mod systemd;
mod tree;
pub mod v1;
pub mod v2;
pub mod write;

pub use apply::{Change, Step, Transaction, Undo};
pub use cgroup::{Cgroup, Entry, Sub};
pub use create::{foresee, Options};
pub use dir::Dir;
pub use error::{strerror, Context, Error, Kind, Result};
pub use events::{OomNews, OomWatch};
pub use layout::{Layout, Mode, Version};
pub use location::{Location, Manager, Request};
pub use resources::Resources;
pub use stats::Stats;
pub use write::{Plan, Write};
