//! Knobs: limits said by annotation, class, flag or JSON in one vocabulary, and the layers they come in.

pub mod class;
pub mod layers;
pub mod table;
pub mod value;

pub use layers::{at_create, Effective, Layers, Source};

/// A flag of `create`, `run` and `update`.
#[derive(Debug)]
pub struct Flag {
    /// Without the dashes: `blkio-write-bps`.
    pub name: String,
    /// The knob it sets.
    pub knob: &'static str,
    /// How its value is written.
    pub value: String,
    pub help: &'static str,
    /// runc's `update` has a flag of this name, with runc's meaning and grammar.
    pub runc: bool,
}

/// The flags of all knobs. `--class NAME` and `--cgroup-file FILE=VALUE` (knob `cgroup.FILE`) come on top.
pub fn flags() -> impl Iterator<Item = Flag> {
    table::KNOBS.iter().map(|k| Flag {
        name: k.flag(),
        knob: k.name,
        value: k.value_text(),
        help: k.about,
        runc: k.runc_flag,
    })
}
