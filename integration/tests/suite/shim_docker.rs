//! Docker's cases again, with our monitor between the daemon and the program under test, compared with runc behind
//! containerd's own shim.
//!
//! Docker from 24 on takes the shim by `runtimeType`; older ones know none but `containerd-shim-runc-v2`, so there an engine
//! of its own finds our shim under that name.

use crate::docker::{compare, with_cases};
use integration::engine::{engine, shimmed};
use integration::host;

#[track_caller]
fn like_runc(name: &str, script: &str) {
    integration::differs!(Runc, "the shim is ours");
    integration::differs!(Crun, "the shim is ours");
    if ["oom", "stats"].contains(&name) && !host::every_hierarchy_is_mounted() {
        integration::skip!(
            "containerd's shim, compared with, can't cope with a hierarchy that is mounted elsewhere"
        );
    }
    match (shimmed(), engine()) {
        (Ok(ours), Ok(theirs)) => compare(&format!("shim-{name}"), script, (ours, "shimmed"), theirs),
        (Err(reason), _) | (_, Err(reason)) => integration::skip!("{reason}"),
    }
}

macro_rules! cases {
    ($($name:ident: $script:expr;)*) => { $(#[test] fn $name() { like_runc(stringify!($name), $script); })* };
}

with_cases!(cases);
