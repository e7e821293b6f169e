//! What is counted.

use serde::{Deserialize, Serialize};

/// What passed and what didn't, one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counters {
    pub egress: DirectionCounters,
    pub ingress: DirectionCounters,
    /// What the backstop on the host's side saw: all of the container's traffic, and as drops what had slipped past
    /// the cgroup.
    pub bypass_egress: DirectionCounters,
    pub bypass_ingress: DirectionCounters,
    pub new_conns: u64,
    pub refused_conns: u64,
}
