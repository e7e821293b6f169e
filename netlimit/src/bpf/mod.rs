//! The programs: an assembler, the layout of the state they share, and what they do. Pure: bytes, no kernel.

pub mod asm;
mod flow;
pub mod layout;
pub mod program;
pub mod socket;
