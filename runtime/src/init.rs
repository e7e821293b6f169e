//! The child's side: from a fresh process to the container's own.

pub mod attrs;
