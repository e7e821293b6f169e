//! `process.rlimits`.

use std::io;

use crate::error::{Context, Result};
use crate::invalid;
use crate::spec;
use crate::sys::attrs as sys;

/// Limits whose names are known, each named once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rlimits(Vec<Limit>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Limit {
    name: &'static str,
    resource: u32,
    soft: u64,
    hard: u64,
}

const NAMES: [(&str, u32); 16] = [
    ("RLIMIT_AS", libc::RLIMIT_AS),
    ("RLIMIT_CORE", libc::RLIMIT_CORE),
    ("RLIMIT_CPU", libc::RLIMIT_CPU),
    ("RLIMIT_DATA", libc::RLIMIT_DATA),
    ("RLIMIT_FSIZE", libc::RLIMIT_FSIZE),
    ("RLIMIT_LOCKS", libc::RLIMIT_LOCKS),
    ("RLIMIT_MEMLOCK", libc::RLIMIT_MEMLOCK),
    ("RLIMIT_MSGQUEUE", libc::RLIMIT_MSGQUEUE),
    ("RLIMIT_NICE", libc::RLIMIT_NICE),
    ("RLIMIT_NOFILE", libc::RLIMIT_NOFILE),
    ("RLIMIT_NPROC", libc::RLIMIT_NPROC),
    ("RLIMIT_RSS", libc::RLIMIT_RSS),
    ("RLIMIT_RTPRIO", libc::RLIMIT_RTPRIO),
    ("RLIMIT_RTTIME", libc::RLIMIT_RTTIME),
    ("RLIMIT_SIGPENDING", libc::RLIMIT_SIGPENDING),
    ("RLIMIT_STACK", libc::RLIMIT_STACK),
];

/// Refuses unknown names, names given twice (config.md: "the runtime MUST generate an error") and a soft limit above
/// the hard one, for which the kernel would say no more than EINVAL.
pub fn parse(limits: &[spec::Rlimit]) -> Result<Rlimits> {
    let mut parsed: Vec<Limit> = Vec::with_capacity(limits.len());
    for limit in limits {
        let Some(&(name, resource)) = NAMES.iter().find(|(name, _)| *name == limit.kind) else {
            invalid!("wrong rlimit value: {}", limit.kind);
        };
        if parsed.iter().any(|other| other.resource == resource) {
            invalid!("rlimit {name} is given twice in process.rlimits");
        }
        if limit.soft > limit.hard {
            invalid!("rlimit {name}: soft limit {} is above the hard limit {}", limit.soft, limit.hard);
        }
        parsed.push(Limit { name, resource, soft: limit.soft, hard: limit.hard });
    }
    Ok(Rlimits(parsed))
}

/// Sets the limits of `pid`, 0 being the caller. To raise a hard limit takes CAP_SYS_RESOURCE in the *initial* user
/// namespace, so the parent must call this for a child that is in another.
pub fn apply(limits: &Rlimits, pid: i32) -> Result<()> {
    for limit in &limits.0 {
        sys::set_rlimit(pid, limit.resource, limit.soft, limit.hard).map_err(io::Error::from).with_context(
            || format!("error setting rlimit {} to {}:{}", limit.name, limit.soft, limit.hard),
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(kind: &str, soft: u64, hard: u64) -> spec::Rlimit {
        spec::Rlimit { kind: kind.into(), soft, hard }
    }

    #[test]
    fn refuses_by_name() {
        let text = |l: &[spec::Rlimit]| parse(l).unwrap_err().to_string();
        assert_eq!(text(&[limit("RLIMIT_TYPO", 1, 1)]), "wrong rlimit value: RLIMIT_TYPO");
        assert!(text(&[limit("RLIMIT_CPU", 1, 1), limit("RLIMIT_CPU", 1, 1)])
            .contains("RLIMIT_CPU is given twice"));
        assert!(text(&[limit("RLIMIT_CPU", 2, 1)]).contains("soft limit 2 is above"));
    }

    #[test]
    fn all_sixteen_are_known_and_distinct() {
        let all: Vec<_> = NAMES.iter().map(|(name, _)| limit(name, 1, u64::MAX)).collect();
        assert_eq!(parse(&all).unwrap().0.len(), 16);
    }

    #[test]
    fn lowers_the_callers_own_limit() {
        apply(&parse(&[limit("RLIMIT_MSGQUEUE", 4096, 8192)]).unwrap(), 0).unwrap();
        let now = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_MSGQUEUE).unwrap();
        assert_eq!(now, (4096, 8192));
    }
}
