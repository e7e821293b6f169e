//! `linux.timeOffsets`.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::error::Result;
use crate::invalid;
use crate::spec;

/// What is to be written, once, to `/proc/self/timens_offsets` after unshare(CLONE_NEWTIME) and before any process is in
/// the namespace. None: there is nothing to write.
pub fn parse(offsets: &BTreeMap<String, spec::TimeOffset>) -> Result<Option<String>> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets() {
        let offset = |secs, nanosecs| spec::TimeOffset { secs, nanosecs };
        let both = BTreeMap::from([
            ("monotonic".to_string(), offset(-172_800, 5)),
            ("boottime".to_string(), offset(604_800, 0)),
        ]);
        assert_eq!(parse(&both).unwrap().unwrap(), "boottime 604800 0\nmonotonic -172800 5\n");
        assert_eq!(parse(&BTreeMap::new()).unwrap(), None);
        for (clock, nanosecs) in [("realtime", 0), ("boottime", 1_000_000_000)] {
            assert!(parse(&BTreeMap::from([(clock.to_string(), offset(1, nanosecs))])).is_err());
        }
    }
}
