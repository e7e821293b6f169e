//! `process.capabilities`. The crate `caps` gives names and numbers; the sets are written with one capset(2).

use std::str::FromStr;

use caps::Capability;
use nix::errno::Errno;

use crate::error::{Context, Result};
use crate::spec;
use crate::sys::attrs::{self as sys, CapSets};

/// Five sets, one bit per capability.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Caps {
    pub bounding: u64,
    pub effective: u64,
    pub inheritable: u64,
    pub permitted: u64,
    pub ambient: u64,
}

/// The highest capability that this kernel knows (40 from Linux 5.9).
pub fn last_cap() -> u8 {
    const NEWEST: u64 = 40;
    let known = |cap: u64| sys::prctl(libc::PR_CAPBSET_READ, cap, 0).is_ok();
    let last = match known(NEWEST) {
        true => (NEWEST..64).take_while(|&cap| known(cap)).last(),
        false => (0..NEWEST).rev().find(|&cap| known(cap)),
    };
    last.unwrap_or(0) as u8
}

/// The sets by name, and warnings. A name that is unknown, or too new for a kernel whose last capability is `last`, is
/// warned of and left out, as config.md demands; so is an ambient capability that isn't both permitted and
/// inheritable, which the kernel would refuse.
pub fn parse(given: &spec::Capabilities, last: u8) -> (Caps, Vec<String>) {
    let mut unknown = Vec::new();
    let mut caps = Caps {
        bounding: set(&given.bounding, last, &mut unknown),
        effective: set(&given.effective, last, &mut unknown),
        inheritable: set(&given.inheritable, last, &mut unknown),
        permitted: set(&given.permitted, last, &mut unknown),
        ambient: set(&given.ambient, last, &mut unknown),
    };
    let mut warnings = Vec::new();
    if !unknown.is_empty() {
        unknown.sort_unstable();
        unknown.dedup();
        warnings.push(format!("ignoring unknown or unavailable capabilities: [{}]", unknown.join(" ")));
    }
    let raisable = caps.permitted & caps.inheritable;
    for name in names(caps.ambient & !raisable) {
        warnings
            .push(format!("can't raise ambient capability {name}: it is not both permitted and inheritable"));
    }
    caps.ambient &= raisable;
    (caps, warnings)
}

fn set<'a>(names: &'a [String], last: u8, unknown: &mut Vec<&'a str>) -> u64 {
    let mut bits = 0;
    for name in names {
        match Capability::from_str(name) {
            Ok(cap) if cap.index() <= last => bits |= cap.bitmask(),
            _ => unknown.push(name),
        }
    }
    bits
}

/// The names in a set, lowest first.
pub fn names(set: u64) -> Vec<String> {
    let mut known: Vec<Capability> = caps::all().into_iter().filter(|cap| set & cap.bitmask() != 0).collect();
    known.sort_by_key(Capability::index);
    known.iter().map(Capability::to_string).collect()
}

/// First step, while still root: empties the bounding set but for what was asked, and keeps the permitted set over the
/// coming setuid(2).
pub fn bound(caps: &Caps) -> Result<()> {
    for cap in (0..64).filter(|cap| caps.bounding & (1 << cap) == 0) {
        let dropped = sys::prctl(libc::PR_CAPBSET_DROP, cap, 0);
        // Who may not drop any needn't where it isn't there.
        match dropped
            .or_else(|e| if sys::prctl(libc::PR_CAPBSET_READ, cap, 0)? == 0 { Ok(0) } else { Err(e) })
        {
            Ok(_) => {}
            // Above the last capability that the kernel knows.
            Err(Errno::EINVAL) => break,
            Err(e) => return Err(e).context("unable to apply bounding set"),
        }
    }
    sys::prctl(libc::PR_SET_KEEPCAPS, 1, 0).context("unable to set keep caps").map(drop)
}

/// Second step, after setuid(2) and setgroups(2). Returns what was asked for but is not the caller's to give: the
/// specification wants a warning of it, not an error.
pub fn apply(caps: &Caps) -> Result<u64> {
    sys::prctl(libc::PR_SET_KEEPCAPS, 0, 0).context("unable to clear keep caps")?;
    let held = sys::capget().context("unable to read capabilities")?;
    let permitted = caps.permitted & held.permitted;
    let effective = caps.effective & permitted;
    // capabilities(7): what enters the inheritable set must be permitted (without CAP_SETPCAP) and bounding.
    let inheritable = caps.inheritable & (held.inheritable | (held.permitted & caps.bounding));
    sys::capset(&CapSets { effective, permitted, inheritable })
        .context("unable to apply caps: can't apply capabilities")?;
    // EINVAL: a kernel before 4.3 has no ambient set, so there is none to clear.
    let _ = sys::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as u64, 0);
    let mut ambient = 0;
    for cap in (0..64).filter(|cap| caps.ambient & (1 << cap) != 0) {
        let raised = sys::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as u64, cap).is_ok();
        ambient |= u64::from(raised) << cap;
    }
    Ok((caps.permitted & !permitted)
        | (caps.effective & !effective)
        | (caps.inheritable & !inheritable)
        | (caps.ambient & !ambient))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| name.to_string()).collect()
    }

    #[test]
    fn unknown_and_too_new_names_are_warned_of() {
        let given = spec::Capabilities {
            bounding: list(&["CAP_CHOWN", "CAP_BPF", "CAP_NONSENSE", "chown", "CAP_NONSENSE"]),
            ..Default::default()
        };
        let (caps, warnings) = parse(&given, 37);
        assert_eq!(caps.bounding, 1);
        assert_eq!(warnings, ["ignoring unknown or unavailable capabilities: [CAP_BPF CAP_NONSENSE chown]"]);
    }

    #[test]
    fn ambient_needs_permitted_and_inheritable() {
        let given = spec::Capabilities {
            permitted: list(&["CAP_CHOWN", "CAP_KILL"]),
            inheritable: list(&["CAP_KILL", "CAP_SYS_ADMIN"]),
            ambient: list(&["CAP_CHOWN", "CAP_KILL", "CAP_SYS_ADMIN"]),
            ..Default::default()
        };
        let (caps, warnings) = parse(&given, 40);
        assert_eq!(names(caps.ambient), ["CAP_KILL"]);
        assert_eq!(warnings.len(), 2);
        assert!(warnings[0].contains("CAP_CHOWN"));
    }

    #[test]
    fn names_round_trip() {
        let all = names(u64::MAX);
        assert_eq!(all.len(), 41);
        let given = spec::Capabilities { effective: all, ..Default::default() };
        assert_eq!(parse(&given, 63).0.effective, (1 << 41) - 1);
    }

    /// On a thread, which ends with what it has.
    #[test]
    fn applied_to_the_kernel() {
        if !nix::unistd::geteuid().is_root() {
            println!("SKIP needs root");
            return;
        }
        let given = |permitted: &[&str]| spec::Capabilities {
            bounding: list(&["CAP_CHOWN", "CAP_KILL", "CAP_NET_BIND_SERVICE"]),
            permitted: list(permitted),
            effective: list(permitted),
            inheritable: list(&["CAP_KILL"]),
            ambient: list(&["CAP_KILL"]),
        };
        let (first, _) = parse(&given(&["CAP_CHOWN", "CAP_KILL"]), last_cap());
        let (second, _) = parse(&given(&["CAP_CHOWN", "CAP_KILL", "CAP_SYS_ADMIN"]), last_cap());
        let thread = std::thread::spawn(move || {
            bound(&first).unwrap();
            assert_eq!(apply(&first).unwrap(), 0);
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            let set = |name: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
                names(u64::from_str_radix(line.trim(), 16).unwrap())
            };
            assert_eq!(set("CapBnd:"), ["CAP_CHOWN", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
            assert_eq!(set("CapPrm:"), ["CAP_CHOWN", "CAP_KILL"]);
            assert_eq!(set("CapEff:"), ["CAP_CHOWN", "CAP_KILL"]);
            assert_eq!(set("CapInh:"), ["CAP_KILL"]);
            assert_eq!(set("CapAmb:"), ["CAP_KILL"]);
            assert_eq!(names(apply(&second).unwrap()), ["CAP_SYS_ADMIN"], "not its own to give");
        });
        thread.join().unwrap();
    }
}
