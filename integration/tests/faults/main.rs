//! Faults put to the monitor, one test or many: what must not break, does not.

mod daemons;
mod disks;
mod kill;
mod lost;
mod reader;
mod storm;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::OnceLock;

/// The program that writes numbered lines, inside a container's root file system.
fn with_ledger(rootfs: &Path) {
    static PROGRAM: OnceLock<Vec<u8>> = OnceLock::new();
    let program = PROGRAM.get_or_init(|| std::fs::read(env!("CARGO_BIN_EXE_ledger")).expect("ledger"));
    let to = rootfs.join("bin/ledger");
    std::fs::write(&to, program).expect("ledger");
    std::fs::set_permissions(&to, std::fs::Permissions::from_mode(0o755)).expect("mode");
}

/// Whether everything is wanted, however long it takes (`FULL=1`).
fn full() -> bool {
    std::env::var_os("FULL").is_some_and(|v| v != "0" && !v.is_empty())
}

/// Why the monitor can't be tested here.
fn missing() -> Option<&'static str> {
    match integration::monitor::shim().exists() {
        _ if integration::peer() != integration::Peer::Hydra => Some("a promise that only our monitor makes"),
        true => None,
        false => Some("there is no shim beside the runtime under test"),
    }
}
