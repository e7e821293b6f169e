//! The parsers of the runtime, taken by path: the runtime is a program and has no library.
#![allow(dead_code)]

#[path = "../../runtime/src/error.rs"]
pub mod error;

#[path = "../../runtime/src/knobs"]
pub mod knobs {
    #[path = "base.rs"]
    pub mod base;
    #[path = "class.rs"]
    pub mod class;
    #[path = "layers.rs"]
    pub mod layers;
    #[path = "limits.rs"]
    pub mod limits;
    #[path = "table.rs"]
    pub mod table;
    #[path = "value.rs"]
    pub mod value;
}

/// What every refusal has to be: one line that isn't endless.
pub fn check_refusal(error: &error::Error) {
    let text = error.to_string();
    assert!(!text.is_empty() && !text.contains('\n') && text.len() < 16_384, "{text:?}");
}
