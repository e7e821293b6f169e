//! Attributes that are one write or one call: `process.oomScoreAdj`, `linux.timeOffsets`, `process.noNewPrivileges`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::os::fd::BorrowedFd;

use super::procfs;
use crate::error::{Context, Result};
use crate::invalid;
use crate::spec;
use crate::sys::attrs as sys;

/// Refuses what the kernel would. Without privilege a process can't go below the value it was given, so a rootless
/// runtime passes its own `current` one, and gets that where the wish is lower.
pub fn oom_score_adj(wish: Option<i32>, current: Option<i32>) -> Result<Option<i32>> {
    match wish {
        Some(wish) if !(-1000..=1000).contains(&wish) => {
            invalid!("invalid oomScoreAdj: {wish} is not between -1000 and 1000")
        }
        Some(wish) => Ok(Some(wish.max(current.unwrap_or(wish)))),
        None => Ok(None),
    }
}

/// Sets the caller's.
pub fn set_oom_score_adj(procfs: BorrowedFd<'_>, value: i32) -> Result<()> {
    procfs::write(procfs, "self/oom_score_adj", value.to_string().as_bytes())
        .context("can't set oom_score_adj")
}

/// What is to be written, once, to `/proc/self/timens_offsets` after unshare(CLONE_NEWTIME) and before any process is in
/// the namespace. None: there is nothing to write.
pub fn time_offsets(offsets: &BTreeMap<String, spec::TimeOffset>) -> Result<Option<String>> {
    let mut text = String::new();
    for (clock, offset) in offsets {
        if clock != "monotonic" && clock != "boottime" {
            invalid!("invalid clock {clock:?} in linux.timeOffsets: neither monotonic nor boottime");
        }
        if offset.nanosecs >= 1_000_000_000 {
            invalid!(
                "invalid nanosecs {} of {clock} in linux.timeOffsets: a second or more",
                offset.nanosecs
            );
        }
        let _ = writeln!(text, "{clock} {} {}", offset.secs, offset.nanosecs);
    }
    Ok((!text.is_empty()).then_some(text))
}

/// From now on execve(2) gives no privileges; nothing undoes it.
pub fn set_no_new_privs() -> Result<()> {
    sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0).context("prctl(SET_NO_NEW_PRIVS)").map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oom_scores() {
        assert_eq!(oom_score_adj(Some(-1000), None).unwrap(), Some(-1000));
        assert_eq!(oom_score_adj(Some(-1000), Some(100)).unwrap(), Some(100));
        assert_eq!(oom_score_adj(Some(500), Some(100)).unwrap(), Some(500));
        assert_eq!(oom_score_adj(None, Some(100)).unwrap(), None);
        assert!(oom_score_adj(Some(1001), None).is_err());
    }

    #[test]
    fn offsets() {
        let offset = |secs, nanosecs| spec::TimeOffset { secs, nanosecs };
        let both = BTreeMap::from([
            ("monotonic".to_string(), offset(-172_800, 5)),
            ("boottime".to_string(), offset(604_800, 0)),
        ]);
        assert_eq!(time_offsets(&both).unwrap().unwrap(), "boottime 604800 0\nmonotonic -172800 5\n");
        assert_eq!(time_offsets(&BTreeMap::new()).unwrap(), None);
        for (clock, nanosecs) in [("realtime", 0), ("boottime", 1_000_000_000)] {
            assert!(time_offsets(&BTreeMap::from([(clock.to_string(), offset(1, nanosecs))])).is_err());
        }
    }
}
