//! The one value of the state map, by byte offset. Written by us through the mapping and by the programs.
//! Readers of another version see another [`MAGIC`] and refuse.

/// First word: "hydranl" and the version of this layout.
pub const MAGIC: u64 = 0x6879_6472_616e_6c02;
pub const OFF_MAGIC: i16 = 0;
/// Bits `FLAG_*`.
pub const OFF_FLAGS: i16 = 8;
/// What egress packets get as `skb->mark`; 0: untouched.
pub const OFF_MARK: i16 = 16;
/// What egress packets get as `skb->priority` on interfaces that aren't in the table; 0: untouched.
pub const OFF_PRIORITY: i16 = 24;
/// The cgroup's id, for people who look at the map.
pub const OFF_CGROUP: i16 = 32;

/// Traffic over `lo` counts.
pub const FLAG_LOOPBACK: u64 = 1;
/// Mark, priority or table are set.
pub const FLAG_TAGS: u64 = 2;
/// The table isn't empty.
pub const FLAG_TABLE: u64 = 4;
/// Not read by a program: ingress bytes are held by a queue on the veth.
pub const FLAG_QUEUE: u64 = 8;
/// Not read by a program: `count_loopback` was asked for, not defaulted.
pub const FLAG_LOOPBACK_ASKED: u64 = 16;
/// Not read by a program: packets towards the container pass the host's device before the cgroup.
pub const FLAG_LINK_FIRST: u64 = 32;
/// Not read by a program: some connections have a fixed pace, and have to be told of every change.
pub const FLAG_FIXED_PACES: u64 = 64;

/// A bucket: cache lines of its own, since every packet writes its `TAT`.
pub const BUCKET_COST: i16 = 0;
pub const BUCKET_BURST: i16 = 8;
pub const BUCKET_BULK: i16 = 16;
pub const BUCKET_TAT: i16 = 24;
/// Until when the bucket is known to be empty; for the throttled time.
pub const BUCKET_BLOCKED: i16 = 32;
pub const BUCKET_THROTTLED: i16 = 40;
/// As asked for: rate per second, 0 for none; burst in amounts, `u64::MAX` for the default.
pub const BUCKET_ASKED_RATE: i16 = 48;
pub const BUCKET_ASKED_BURST: i16 = 56;
/// How far `TAT` may be ahead of now before TCP is warned; 0: never.
pub const BUCKET_EARLY: i16 = 64;
/// No warning before then.
pub const BUCKET_QUIET: i16 = 72;
pub const BUCKET_SIZE: i16 = 128;

const OFF_BUCKETS: i16 = 64;

/// Where a bucket lies.
pub const fn bucket(side: Side, what: What) -> i16 {
    OFF_BUCKETS + (side as i16 * 3 + what as i16) * BUCKET_SIZE
}

/// Counters of a side: `COUNT_*`, each a word.
pub const fn counters(side: Side) -> i16 {
    OFF_BUCKETS + 12 * BUCKET_SIZE + side as i16 * 64
}
pub const COUNT_BYTES: i16 = 0;
pub const COUNT_PACKETS: i16 = 8;
pub const COUNT_DROPPED_BYTES: i16 = 16;
pub const COUNT_DROPPED_PACKETS: i16 = 24;
pub const COUNT_CONNS: i16 = 32;
pub const COUNT_REFUSED_CONNS: i16 = 40;

/// Where a packet is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Leaving the container, at the cgroup.
    Egress = 0,
    /// Reaching a socket of the container, at the cgroup.
    Ingress = 1,
    /// Leaving the container, at the host's device.
    LinkEgress = 2,
    /// Towards the container, at the host's device.
    LinkIngress = 3,
}

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Bytes = 0,
    Packets = 1,
    Conns = 2,
}

/// The table of priorities: entries of { name[16], ifindex u32, priority u32 }.
pub const OFF_TABLE: i16 = counters(Side::LinkIngress) + 64;
pub const TABLE_ENTRY: i16 = 24;
pub const TABLE_IFINDEX: i16 = 16;
pub const TABLE_PRIORITY: i16 = 20;
pub const TABLE_LEN: usize = crate::limits::MAX_PRIORITIES;

/// The flows the container has begun or been sent, as 32-bit tags, two places for each.
pub const OFF_FLOWS: i16 = OFF_TABLE + TABLE_ENTRY * TABLE_LEN as i16;
pub const FLOWS: usize = 2048;

pub const SIZE: usize = OFF_FLOWS as usize + FLOWS * 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_overlaps_and_words_are_aligned() {
        assert_eq!(bucket(Side::Egress, What::Bytes), 64);
        assert_eq!(bucket(Side::LinkIngress, What::Conns) + BUCKET_SIZE, counters(Side::Egress));
        assert_eq!(OFF_TABLE, 64 + 12 * 128 + 4 * 64);
        assert_eq!((OFF_FLOWS % 8, SIZE % 8), (0, 0));
    }
}
