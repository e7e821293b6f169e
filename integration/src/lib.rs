//! What the tests stand on: bundles, containers, engines, and a look at what they leave behind.
//!
//! Only programs are run, never code of ours, so that the same tests can be put to runc and crun: the environment
//! variable `RUNTIME` says which program is under test.

pub mod bundle;
pub mod command;
pub mod console;
pub mod container;
pub mod disk;
pub mod engine;
pub mod grpc;
pub mod host;
pub mod janitor;
pub mod monitor;
pub mod stepper;
pub mod trace;
pub mod ttrpc;
pub mod wire;

pub use bundle::Bundle;
pub use command::{Out, Run};
pub use container::Container;
pub use host::{peer, Peer};

use std::time::{Duration, Instant};

/// Says on a line of its own why a test can't be run here, and ends it. Counted as skipped, not as passed.
#[macro_export]
macro_rules! skip {
    ($($reason:tt)*) => {{
        println!("SKIP {}", format_args!($($reason)*));
        return;
    }};
}

/// Skips the test when the program under test is `$peer`, which does something else for the reason given.
#[macro_export]
macro_rules! differs {
    ($peer:ident, $($reason:tt)*) => {
        if $crate::peer() == $crate::Peer::$peer {
            $crate::skip!("{:?}: {}", $crate::Peer::$peer, format_args!($($reason)*));
        }
    };
}

/// Polls until `condition` holds. How long that may take is no part of any test: the limit only ends what hangs.
#[track_caller]
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < host::patience(), "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
