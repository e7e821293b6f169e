//! Rates and tags for the traffic of the processes in one cgroup. Knows nothing of containers.
//!
//! The limits are kept by BPF programs on the cgroup (`cgroup_skb`), which need no process of ours: they outlive
//! whoever attached them and vanish with the cgroup. What slips past a cgroup (AF_PACKET sockets) is held by a second
//! program on the host's end of the veth. All state is one memory-mapped map, found again from the cgroup.
//!
//! The order of calls: [`check`] (no side effect), [`Record::planned`] into the caller's own state file, [`attach`]
//! before the first process runs, [`attach_links`] once the network namespace has its interfaces, [`update`],
//! [`counters`], and [`detach`], which may be called at any time and again.

mod error;
mod limits;
mod record;

pub use error::{Error, Kind, Result};
pub use limits::{Cap, IngressMode, Limits, DEFAULT_BURST_MS, MAX_PRIORITIES, MAX_RATE};
pub use record::{Link, LinkKind, Network, Record, Target};

use std::os::fd::BorrowedFd;

/// Refuses, by the knob's name and before any side effect, what this host can't do for this target.
pub fn check(limits: &Limits, target: &Target) -> Result<()> {
    let _ = target;
    limits.validate()
}

/// Puts the limits on the cgroup. To be called after the cgroup exists and before the first process runs in it.
/// On an error nothing stays behind. The record must be saved; it is what all other functions work from.
pub fn attach(limits: &Limits, target: &Target) -> Result<Record> {
    check(limits, target)?;
    Ok(Record::planned(target))
}

/// Puts the backstop on the host's end of every veth and macvlan of a network namespace, and the queue of
/// `ingress-mode=queue`. Idempotent: to be called whenever interfaces may have appeared (start, update).
/// Does nothing for the host's own network. `record` then names the links and should be saved again.
pub fn attach_links(record: &mut Record, netns: BorrowedFd<'_>) -> Result<()> {
    let _ = (record, netns);
    Ok(())
}

/// What [`update`] did, so that a bigger transaction can take it back.
pub struct Undo {}

impl Undo {
    /// Puts everything back as it was before the update.
    pub fn restore(self, record: &mut Record) -> Result<()> {
        let _ = record;
        Ok(())
    }
}

/// Changes the limits of a live target; what `change` doesn't name stays. Attaches what isn't there yet.
/// `netns` is the target's network namespace if it has one of its own. The new values are read back.
pub fn update(record: &mut Record, change: &Limits, netns: Option<BorrowedFd<'_>>) -> Result<Undo> {
    let _ = (record, change, netns);
    Ok(Undo {})
}

/// The limits in force, read from the kernel.
pub fn current(record: &Record) -> Result<Limits> {
    let _ = record;
    Ok(Limits::default())
}

/// What passed and what didn't, one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DirectionCounters {
    /// Bytes and packets that passed, as on the wire.
    pub bytes: u64,
    pub packets: u64,
    pub dropped_bytes: u64,
    pub dropped_packets: u64,
    /// Nanoseconds during which the limit was reached and something was turned away.
    pub throttled_ns: u64,
}

/// Counters since the limits were attached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counters {
    pub egress: DirectionCounters,
    pub ingress: DirectionCounters,
    /// What the backstop on the host's side turned away (it slipped past the cgroup).
    pub bypass_egress: DirectionCounters,
    pub bypass_ingress: DirectionCounters,
    pub new_conns: u64,
    pub refused_conns: u64,
}

/// Reads the counters; `None` if no limits are attached.
pub fn counters(record: &Record) -> Result<Option<Counters>> {
    let _ = record;
    Ok(None)
}

/// Removes everything [`attach`], [`attach_links`] and [`update`] put anywhere. Idempotent; what is already gone
/// (a removed cgroup, a vanished veth) is no error.
pub fn detach(record: &Record) -> Result<()> {
    let _ = record;
    Ok(())
}
