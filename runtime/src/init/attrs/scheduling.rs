//! How the process is scheduled and where its memory comes from: `process.scheduler`, `process.ioPriority`,
//! `linux.personality`, `linux.memoryPolicy`.

use super::cpulist::{self, Mask};
use crate::error::{Context, Error, Kind, Result};
use crate::invalid;
use crate::spec;
use crate::sys::attrs::{self as sys, SchedAttr};

/// What to set on the process that is to become the container's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scheduling {
    scheduler: Option<SchedAttr>,
    io_priority: Option<i32>,
    personality: Option<u64>,
    memory_policy: Option<MemoryPolicy>,
    /// The container's cgroup has a cpuset.
    cpuset: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct MemoryPolicy {
    mode: i32,
    nodes: Mask,
}

const POLICIES: [(&str, u32); 7] = [
    ("SCHED_OTHER", 0),
    ("SCHED_FIFO", 1),
    ("SCHED_RR", 2),
    ("SCHED_BATCH", 3),
    ("SCHED_ISO", 4),
    ("SCHED_IDLE", 5),
    ("SCHED_DEADLINE", 6),
];

const SCHED_FLAGS: [(&str, u64); 7] = [
    ("SCHED_FLAG_RESET_ON_FORK", 0x01),
    ("SCHED_FLAG_RECLAIM", 0x02),
    ("SCHED_FLAG_DL_OVERRUN", 0x04),
    ("SCHED_FLAG_KEEP_POLICY", 0x08),
    ("SCHED_FLAG_KEEP_PARAMS", 0x10),
    ("SCHED_FLAG_UTIL_CLAMP_MIN", 0x20),
    ("SCHED_FLAG_UTIL_CLAMP_MAX", 0x40),
];

const IO_CLASSES: [(&str, i32); 3] =
    [("IOPRIO_CLASS_RT", 1), ("IOPRIO_CLASS_BE", 2), ("IOPRIO_CLASS_IDLE", 3)];

/// The modes of set_mempolicy(2), and what each says of nodes. Sorted, for `features`.
const MODES: [(&str, i32, Nodes); 7] = [
    ("MPOL_BIND", 2, Nodes::Some),
    ("MPOL_DEFAULT", 0, Nodes::None),
    ("MPOL_INTERLEAVE", 3, Nodes::Some),
    ("MPOL_LOCAL", 4, Nodes::None),
    ("MPOL_PREFERRED", 1, Nodes::Any),
    ("MPOL_PREFERRED_MANY", 5, Nodes::Some),
    ("MPOL_WEIGHTED_INTERLEAVE", 6, Nodes::Some),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Nodes {
    None,
    Some,
    Any,
}

const STATIC_NODES: i32 = 1 << 15;
const RELATIVE_NODES: i32 = 1 << 14;

const MODE_FLAGS: [(&str, i32); 3] = [
    ("MPOL_F_NUMA_BALANCING", 1 << 13),
    ("MPOL_F_RELATIVE_NODES", RELATIVE_NODES),
    ("MPOL_F_STATIC_NODES", STATIC_NODES),
];

/// Names for `features`.
pub fn memory_policy_modes() -> Vec<&'static str> {
    MODES.iter().map(|(name, ..)| *name).collect()
}

/// Names for `features`.
pub fn memory_policy_flags() -> Vec<&'static str> {
    MODE_FLAGS.iter().map(|(name, _)| *name).collect()
}

fn named<T: Copy>(table: &[(&str, T)], name: &str) -> Option<T> {
    table.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
}

impl Scheduling {
    pub fn parse(process: &spec::Process, linux: Option<&spec::Linux>) -> Result<Scheduling> {
        Ok(Scheduling {
            scheduler: process.scheduler.as_ref().map(scheduler).transpose()?,
            io_priority: process.io_priority.as_ref().map(io_priority).transpose()?,
            personality: linux.and_then(|l| l.personality.as_ref()).map(personality).transpose()?,
            memory_policy: linux.and_then(|l| l.memory_policy.as_ref()).map(memory_policy).transpose()?,
            cpuset: linux
                .and_then(|l| l.resources.as_ref()?.cpu.as_ref()?.cpus.as_ref())
                .is_some_and(|cpus| !cpus.is_empty()),
        })
    }

    /// Sets them on the caller, in its cgroups.
    pub fn apply(&self) -> Result<()> {
        if let Some(attr) = &self.scheduler {
            match sys::sched_setattr(0, attr) {
                // Of SCHED_DEADLINE: a process with a cpuset may not run on all CPUs of its root domain.
                Err(nix::errno::Errno::EPERM) if self.cpuset => {
                    let text = "process scheduler can't be used together with AllowedCPUs";
                    return Err(Error::new(Kind::System, text));
                }
                result => result.context("error setting scheduler")?,
            }
        }
        if let Some(priority) = self.io_priority {
            sys::ioprio_set(priority).context("failed to set io priority")?;
        }
        if let Some(domain) = self.personality {
            sys::personality(domain).context("failed to set the personality")?;
        }
        if let Some(policy) = &self.memory_policy {
            sys::set_mempolicy(policy.mode, policy.nodes.words())
                .context("failed to set the memory policy")?;
        }
        Ok(())
    }
}

fn scheduler(given: &spec::Scheduler) -> Result<SchedAttr> {
    let name = given.policy.as_str();
    if name.is_empty() {
        invalid!("scheduler policy is required");
    }
    let Some(policy) = named(&POLICIES, name) else { invalid!("invalid scheduler policy: {name}") };
    if matches!(name, "SCHED_OTHER" | "SCHED_BATCH") && !(-20..=19).contains(&given.nice) {
        invalid!("invalid scheduler.nice: {} when scheduler.policy is {name}", given.nice);
    }
    if given.priority != 0 && !matches!(name, "SCHED_FIFO" | "SCHED_RR") {
        invalid!("scheduler.priority can only be specified for SchedFIFO or SchedRR policy");
    }
    let Ok(priority) = u32::try_from(given.priority) else {
        invalid!("invalid scheduler.priority: {}", given.priority);
    };
    let times = [given.runtime, given.deadline, given.period];
    if name != "SCHED_DEADLINE" && times != [0; 3] {
        invalid!("scheduler runtime/deadline/period can only be specified for SchedDeadline policy");
    }
    // sched_get_priority_min(2) and _max.
    if matches!(name, "SCHED_FIFO" | "SCHED_RR") && !(1..=99).contains(&priority) {
        invalid!(
            "invalid scheduler.priority: {priority} when scheduler.policy is {name}: it is from 1 to 99"
        );
    }
    let mut flags = 0;
    for flag in &given.flags {
        match named(&SCHED_FLAGS, flag) {
            Some(bit) => flags |= bit,
            None => invalid!("invalid scheduler flag: {flag}"),
        }
    }
    let [runtime, deadline, period] = times;
    Ok(SchedAttr { policy, flags, nice: given.nice, priority, runtime, deadline, period })
}

/// `uapi/linux/ioprio.h`: the class stands above bit 13.
fn io_priority(given: &spec::IoPriority) -> Result<i32> {
    if !(0..8).contains(&given.priority) {
        invalid!("invalid ioPriority.Priority: {}", given.priority);
    }
    match named(&IO_CLASSES, &given.class) {
        Some(class) => Ok(class << 13 | given.priority),
        None => invalid!("invalid ioPriority.Class: {:?}", given.class),
    }
}

fn personality(given: &spec::Personality) -> Result<u64> {
    if !given.flags.is_empty() {
        invalid!("personality flags are not supported: {}", given.flags.join(" "));
    }
    match given.domain.as_str() {
        "LINUX" => Ok(0),
        "LINUX32" => Ok(8),
        other => invalid!("invalid personality domain {other}"),
    }
}

fn memory_policy(given: &spec::MemoryPolicy) -> Result<MemoryPolicy> {
    let Some((_, mode, wants)) = MODES.iter().find(|(name, ..)| *name == given.mode) else {
        invalid!("invalid memory policy mode {:?}", given.mode);
    };
    let nodes = cpulist::parse(&given.nodes)
        .with_context(|| format!("invalid memory policy nodes {:?}", given.nodes))?;
    match wants {
        Nodes::None if !nodes.is_empty() => {
            invalid!("memory policy mode requires 0 nodes but got {}", nodes.count());
        }
        Nodes::Some if nodes.is_empty() => {
            invalid!("memory policy mode requires at least one node but got 0");
        }
        _ => {}
    }
    let mut flags = 0;
    for flag in &given.flags {
        match named(&MODE_FLAGS, flag) {
            Some(bit) => flags |= bit,
            None => invalid!("invalid memory policy flag {flag:?}"),
        }
    }
    if flags & STATIC_NODES != 0 && flags & RELATIVE_NODES != 0 {
        invalid!("memory policy flags MPOL_F_STATIC_NODES and MPOL_F_RELATIVE_NODES exclude each other");
    }
    Ok(MemoryPolicy { mode: mode | flags, nodes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(process: serde_json::Value, linux: serde_json::Value) -> Result<Scheduling> {
        let process: spec::Process = serde_json::from_value(process).unwrap();
        let linux: spec::Linux = serde_json::from_value(linux).unwrap();
        Scheduling::parse(&process, Some(&linux))
    }

    fn refusal(process: serde_json::Value, linux: serde_json::Value) -> String {
        parse(process, linux).unwrap_err().to_string()
    }

    #[test]
    fn all_of_it() {
        let got = parse(
            json!({
                "scheduler": { "policy": "SCHED_BATCH", "nice": -5, "flags": ["SCHED_FLAG_RESET_ON_FORK"] },
                "ioPriority": { "class": "IOPRIO_CLASS_BE", "priority": 4 },
            }),
            json!({
                "personality": { "domain": "LINUX32" },
                "memoryPolicy": { "mode": "MPOL_INTERLEAVE", "nodes": "0,2", "flags": ["MPOL_F_STATIC_NODES"] },
            }),
        )
        .unwrap();
        let attr = got.scheduler.unwrap();
        assert_eq!((attr.policy, attr.nice, attr.flags), (3, -5, 1));
        assert_eq!(got.io_priority, Some(2 << 13 | 4));
        assert_eq!(got.personality, Some(8));
        let policy = got.memory_policy.unwrap();
        assert_eq!((policy.mode, policy.nodes.words()), (3 | 1 << 15, &[5][..]));
        assert_eq!(parse(json!({}), json!({})).unwrap(), Scheduling::default());
    }

    #[test]
    fn schedulers_are_refused_in_runcs_words() {
        let text = |scheduler| refusal(json!({ "scheduler": scheduler }), json!({}));
        assert_eq!(text(json!({})), "scheduler policy is required");
        assert_eq!(text(json!({ "policy": "SCHED_X" })), "invalid scheduler policy: SCHED_X");
        assert!(
            text(json!({ "policy": "SCHED_OTHER", "nice": 20 })).starts_with("invalid scheduler.nice: 20")
        );
        assert!(text(json!({ "policy": "SCHED_OTHER", "priority": 1 })).contains("SchedFIFO or SchedRR"));
        assert!(text(json!({ "policy": "SCHED_FIFO", "runtime": 1 })).contains("SchedDeadline"));
        assert!(text(json!({ "policy": "SCHED_RR", "priority": 100 })).contains("from 1 to 99"));
        assert_eq!(
            text(json!({ "policy": "SCHED_FIFO", "priority": 1, "flags": ["F"] })),
            "invalid scheduler flag: F"
        );
    }

    #[test]
    fn the_others_are_refused_by_name() {
        let io = |io| refusal(json!({ "ioPriority": io }), json!({}));
        assert_eq!(
            io(json!({ "class": "IOPRIO_CLASS_RT", "priority": 8 })),
            "invalid ioPriority.Priority: 8"
        );
        assert_eq!(io(json!({ "class": "IDLE" })), "invalid ioPriority.Class: \"IDLE\"");
        let linux = |linux| refusal(json!({}), linux);
        assert_eq!(linux(json!({ "personality": { "domain": "BSD" } })), "invalid personality domain BSD");
        let flags = json!({ "personality": { "domain": "LINUX", "flags": ["ADDR_NO_RANDOMIZE"] } });
        assert!(linux(flags).contains("ADDR_NO_RANDOMIZE"));
        let memory = |policy| linux(json!({ "memoryPolicy": policy }));
        assert_eq!(memory(json!({ "mode": "MPOL_X" })), "invalid memory policy mode \"MPOL_X\"");
        assert!(memory(json!({ "mode": "MPOL_LOCAL", "nodes": "0" })).contains("requires 0 nodes but got 1"));
        assert!(memory(json!({ "mode": "MPOL_BIND" })).contains("at least one node"));
        assert!(memory(json!({ "mode": "MPOL_BIND", "nodes": "z" }))
            .contains("invalid memory policy nodes \"z\""));
        let both = json!({ "mode": "MPOL_BIND", "nodes": "0",
            "flags": ["MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"] });
        assert!(memory(both).contains("exclude each other"));
    }

    /// In threads of their own, which end with what was set on them.
    #[test]
    fn applied_to_the_kernel() {
        let batch = parse(json!({ "scheduler": { "policy": "SCHED_BATCH", "nice": 3 } }), json!({})).unwrap();
        let idle = parse(json!({ "ioPriority": { "class": "IOPRIO_CLASS_IDLE", "priority": 0 } }), json!({}))
            .unwrap();
        let linux32 = parse(json!({}), json!({ "personality": { "domain": "LINUX32" } })).unwrap();
        std::thread::spawn(move || {
            batch.apply().unwrap();
            let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
            let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
            assert_eq!((fields[16], fields[38]), ("3", "3"), "nice and policy");
            idle.apply().unwrap();
            linux32.apply().unwrap();
            assert_eq!(std::fs::read_to_string("/proc/thread-self/personality").unwrap().trim(), "00000008");
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_memory_policy_applied_to_the_kernel() {
        let bind =
            parse(json!({}), json!({ "memoryPolicy": { "mode": "MPOL_BIND", "nodes": "0" } })).unwrap();
        let applied = std::thread::spawn(move || bind.apply()).join().unwrap();
        match applied {
            Err(e) if e.errno() == Some(libc::ENOSYS) => println!("SKIP this kernel has no CONFIG_NUMA"),
            applied => applied.unwrap(),
        }
    }
}
