//! The state map, seen from user space: settings in, counters out.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering::Relaxed;

use crate::bpf::layout::{self as at, bucket, counters, Side, What};
use crate::bpf::program::Features;
use crate::error::{Context, Error, Kind, Result};
use crate::gcra::{Setting, Unit, UNITS_PER_NS};
use crate::limits::{Cap, IngressMode, Limits, DEFAULT_BURST_MS};
use crate::sys::bpf::{self, Mapping};
use crate::tc::Queue;
use crate::{Counters, DirectionCounters};

/// A second's worth.
const CONNS_BURST_MS: u64 = 1000;

pub struct State {
    map: OwnedFd,
    id: u32,
    value: Mapping,
}

/// The words that settings live in, as they were.
pub struct Snapshot(Vec<(usize, u64)>);

impl State {
    pub fn create(cgroup_id: u64) -> Result<State> {
        let map = bpf::create_map("hydra_net", at::SIZE).map_err(explain)?;
        let state = State::open(map)?;
        state.set(at::OFF_MAGIC as usize, at::MAGIC);
        state.set(at::OFF_CGROUP as usize, cgroup_id);
        for side in [Side::Egress, Side::Ingress, Side::LinkEgress, Side::LinkIngress] {
            for what in [What::Bytes, What::Packets, What::Conns] {
                state.set((bucket(side, what) + at::BUCKET_ASKED_BURST) as usize, u64::MAX);
            }
        }
        Ok(state)
    }

    /// The state behind a map id, if that is a map of ours.
    pub fn by_id(id: u32) -> Result<Option<State>> {
        let map = match bpf::map_by_id(id) {
            Ok(map) => map,
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
            Err(e) => return Err(e).with_context(|| format!("opening the state map {id}")),
        };
        let (_, size) = bpf::map_info(map.as_fd()).with_context(|| "asking for a map's size")?;
        if size != at::SIZE {
            return Ok(None);
        }
        let state = State::open(map)?;
        Ok((state.get(at::OFF_MAGIC as usize) == at::MAGIC).then_some(state))
    }

    fn open(map: OwnedFd) -> Result<State> {
        let (id, _) = bpf::map_info(map.as_fd()).with_context(|| "asking for a map's id")?;
        let value = Mapping::new(map.as_fd(), at::SIZE).with_context(|| "mapping the state")?;
        Ok(State { map, id, value })
    }

    pub fn id(&self) -> u32 {
        self.id
    }

    pub fn map(&self) -> BorrowedFd<'_> {
        self.map.as_fd()
    }

    fn get(&self, offset: usize) -> u64 {
        self.value.word(offset).load(Relaxed)
    }

    fn set(&self, offset: usize, word: u64) {
        self.value.word(offset).store(word, Relaxed);
    }

    /// Writes what `change` names. `loopback` is whether `lo` counts when nobody said so.
    pub fn write(&self, change: &Limits, loopback: bool, interfaces: &BTreeMap<String, u32>) {
        let all = self.limits().merged(change);
        self.write_flags(&all, loopback);
        self.write_tags(&all, interfaces);
        let queued = all.ingress_mode == Some(IngressMode::Queue);
        for side in [Side::Egress, Side::Ingress] {
            for what in [What::Bytes, What::Packets, What::Conns] {
                let Some((rate, burst)) = asked(&all, side, what) else { continue };
                self.write_bucket(side, what, rate, burst, queued && side == Side::Ingress);
            }
        }
    }

    fn flag(&self, bit: u64) -> bool {
        self.get(at::OFF_FLAGS as usize) & bit != 0
    }

    /// Programs on the host's devices see from now on what comes in before the cgroup does.
    pub fn link_comes_first(&self) {
        if !self.flag(at::FLAG_LINK_FIRST) {
            self.set(at::OFF_FLAGS as usize, self.get(at::OFF_FLAGS as usize) | at::FLAG_LINK_FIRST);
            self.write(&Limits::default(), self.flag(at::FLAG_LOOPBACK), &BTreeMap::new());
        }
    }

    /// Whether connections have a pace that no program changes.
    pub fn fixed_paces(&self) -> bool {
        self.flag(at::FLAG_FIXED_PACES)
    }

    pub fn note_fixed_paces(&self) {
        self.set(at::OFF_FLAGS as usize, self.get(at::OFF_FLAGS as usize) | at::FLAG_FIXED_PACES);
    }

    /// What the programs have to be able to do.
    pub fn features(&self) -> Features {
        let conns = self.get((bucket(Side::Egress, What::Conns) + at::BUCKET_ASKED_RATE) as usize) != 0;
        Features { conns, tags: self.flag(at::FLAG_TAGS) }
    }

    /// Whether TCP is asked to keep to a rate by itself.
    pub fn paces(&self) -> bool {
        self.get((bucket(Side::Egress, What::Bytes) + at::BUCKET_ASKED_RATE) as usize) != 0
    }

    /// Whether anything that goes out, and that comes in, is limited.
    pub fn limited(&self) -> (bool, bool) {
        let any = |side| {
            let rate = |what| self.get((bucket(side, what) + at::BUCKET_ASKED_RATE) as usize);
            [What::Bytes, What::Packets, What::Conns].into_iter().any(|what| rate(what) != 0)
        };
        (any(Side::Egress), any(Side::Ingress))
    }

    fn write_bucket(&self, side: Side, what: What, rate: Cap, burst: Cap, queued: bool) {
        let (unit, burst_ms) = match what {
            What::Bytes => (Unit::Bytes, DEFAULT_BURST_MS),
            What::Packets => (Unit::Packets, DEFAULT_BURST_MS),
            What::Conns => (Unit::Connections, CONNS_BURST_MS),
        };
        let strict = Setting::new(rate, burst, unit, burst_ms);
        // Whoever sees the packets first holds the limit, and the second is there for what slips past the first.
        let link_first = side == Side::Ingress && self.flag(at::FLAG_LINK_FIRST);
        let (first, second) = match side {
            Side::Ingress => (Side::LinkIngress, Side::Ingress),
            _ => (Side::Egress, Side::LinkEgress),
        };
        let mut held = strict;
        if let (true, What::Bytes, Cap::At(rate)) = (queued, what, rate) {
            let asked = if let Cap::At(n) = burst { Some(n) } else { None };
            let q = Queue::new(rate, asked);
            held = Setting::queue(rate, q.burst, q.wait);
        }
        // Each starts with its additional depth full: it must not drop what the first lets pass in the beginning.
        self.set_bucket(bucket(first, what) as usize, held, held.bulk);
        let other = if side == Side::Ingress && !link_first { strict } else { strict.backstop() };
        self.set_bucket(bucket(second, what) as usize, other, strict.bulk);
        let base = bucket(side, what) as usize;
        self.set(base + at::BUCKET_ASKED_RATE as usize, number(rate, 0));
        self.set(base + at::BUCKET_ASKED_BURST as usize, number(burst, u64::MAX));
    }

    /// A bucket whose setting changes starts empty: it grants nothing beyond the new rate, and owes nothing
    /// either. `ahead` is how far `tat` is then ahead of now.
    fn set_bucket(&self, base: usize, s: Setting, ahead: u64) {
        let word = |o: i16| base + o as usize;
        let same = self.get(word(at::BUCKET_COST)) == s.cost.0
            && self.get(word(at::BUCKET_BURST)) == s.burst
            && self.get(word(at::BUCKET_BULK)) == s.bulk;
        if same {
            return;
        }
        // In this order a packet in between sees the old rate, or the new one with an empty bucket.
        self.set(word(at::BUCKET_TAT), now() + ahead);
        // A bucket that is empty because it is new warns nobody.
        self.set(word(at::BUCKET_QUIET), now() + ahead);
        self.set(word(at::BUCKET_EARLY), s.early);
        self.set(word(at::BUCKET_BURST), s.burst);
        self.set(word(at::BUCKET_BULK), s.bulk);
        self.set(word(at::BUCKET_COST), s.cost.0);
    }

    fn write_flags(&self, all: &Limits, loopback: bool) {
        let tags = all.classid.unwrap_or(0) != 0 || all.priority.as_ref().is_some_and(|p| !p.is_empty());
        let table = all.priority.as_ref().is_some_and(|p| !p.is_empty());
        let bits = [
            (all.count_loopback.unwrap_or(loopback), at::FLAG_LOOPBACK),
            (all.count_loopback.is_some(), at::FLAG_LOOPBACK_ASKED),
            (tags, at::FLAG_TAGS),
            (table, at::FLAG_TABLE),
            (all.ingress_mode == Some(IngressMode::Queue), at::FLAG_QUEUE),
            (self.flag(at::FLAG_LINK_FIRST), at::FLAG_LINK_FIRST),
            (self.flag(at::FLAG_FIXED_PACES), at::FLAG_FIXED_PACES),
        ];
        let flags = bits.iter().filter(|(on, _)| *on).map(|(_, bit)| bit).sum();
        self.set(at::OFF_FLAGS as usize, flags);
    }

    fn write_tags(&self, all: &Limits, interfaces: &BTreeMap<String, u32>) {
        let classid = u64::from(all.classid.unwrap_or(0));
        self.set(at::OFF_MARK as usize, classid);
        self.set(at::OFF_PRIORITY as usize, classid);
        let mut entries = all.priority.iter().flatten();
        for i in 0..at::TABLE_LEN {
            let base = at::OFF_TABLE as usize + i * at::TABLE_ENTRY as usize;
            let (mut name, mut tail) = ([0u8; 16], 0u64);
            if let Some((n, priority)) = entries.next() {
                name[..n.len()].copy_from_slice(n.as_bytes());
                let known = (self.get(base + 16) & 0xffff_ffff) as u32;
                let index =
                    interfaces.get(n).copied().unwrap_or(if self.table_name(i) == *n { known } else { 0 });
                tail = u64::from(index) | u64::from(*priority) << 32;
            }
            let (a, b) = name.split_at(8);
            self.set(base, u64::from_le_bytes(a.try_into().unwrap_or_default()));
            self.set(base + 8, u64::from_le_bytes(b.try_into().unwrap_or_default()));
            self.set(base + 16, tail);
        }
    }

    fn table_name(&self, i: usize) -> String {
        let base = at::OFF_TABLE as usize + i * at::TABLE_ENTRY as usize;
        let bytes = [self.get(base).to_le_bytes(), self.get(base + 8).to_le_bytes()].concat();
        let end = bytes.iter().position(|b| *b == 0).unwrap_or(16);
        String::from_utf8_lossy(&bytes[..end]).into_owned()
    }

    /// The limits as they were asked for.
    pub fn limits(&self) -> Limits {
        let flags = self.get(at::OFF_FLAGS as usize);
        let rate = |side, what| match self.get((bucket(side, what) + at::BUCKET_ASKED_RATE) as usize) {
            0 => None,
            n => Some(Cap::At(n)),
        };
        let burst = |side, what| match self.get((bucket(side, what) + at::BUCKET_ASKED_BURST) as usize) {
            u64::MAX => None,
            n => Some(Cap::At(n)),
        };
        let classid = self.get(at::OFF_MARK as usize) as u32;
        let priority: BTreeMap<_, _> = (0..at::TABLE_LEN)
            .map(|i| {
                let tail = self.get(at::OFF_TABLE as usize + i * at::TABLE_ENTRY as usize + 16);
                (self.table_name(i), (tail >> 32) as u32)
            })
            .filter(|(name, _)| !name.is_empty())
            .collect();
        Limits {
            egress_rate: rate(Side::Egress, What::Bytes),
            ingress_rate: rate(Side::Ingress, What::Bytes),
            egress_pps: rate(Side::Egress, What::Packets),
            ingress_pps: rate(Side::Ingress, What::Packets),
            egress_burst: burst(Side::Egress, What::Bytes),
            ingress_burst: burst(Side::Ingress, What::Bytes),
            egress_pps_burst: burst(Side::Egress, What::Packets),
            ingress_pps_burst: burst(Side::Ingress, What::Packets),
            new_conns: rate(Side::Egress, What::Conns),
            new_conns_burst: burst(Side::Egress, What::Conns),
            classid: (classid != 0).then_some(classid),
            priority: (!priority.is_empty()).then_some(priority),
            count_loopback: (flags & at::FLAG_LOOPBACK_ASKED != 0).then_some(flags & at::FLAG_LOOPBACK != 0),
            ingress_mode: (flags & at::FLAG_QUEUE != 0).then_some(IngressMode::Queue),
        }
    }

    /// All settings, word by word; what `write` may touch.
    pub fn snapshot(&self) -> Snapshot {
        let mut offsets: Vec<usize> =
            [at::OFF_FLAGS, at::OFF_MARK, at::OFF_PRIORITY].iter().map(|o| *o as usize).collect();
        offsets.extend((at::OFF_TABLE as usize..at::OFF_FLOWS as usize).step_by(8));
        for side in [Side::Egress, Side::Ingress, Side::LinkEgress, Side::LinkIngress] {
            for what in [What::Bytes, What::Packets, What::Conns] {
                for word in [
                    at::BUCKET_BURST,
                    at::BUCKET_BULK,
                    at::BUCKET_EARLY,
                    at::BUCKET_COST,
                    at::BUCKET_ASKED_RATE,
                    at::BUCKET_ASKED_BURST,
                ] {
                    offsets.push((bucket(side, what) + word) as usize);
                }
            }
        }
        Snapshot(offsets.into_iter().map(|o| (o, self.get(o))).collect())
    }

    /// Puts the settings back. Buckets that had changed start empty again, else a change and its undoing would
    /// grant a second burst.
    pub fn restore(&self, snapshot: &Snapshot) {
        const SIZE: usize = at::BUCKET_SIZE as usize;
        let (mut tats, prefix) = (Vec::new(), bucket(Side::Egress, What::Bytes) as usize);
        for (offset, word) in &snapshot.0 {
            let in_bucket = *offset >= prefix && *offset < counters(Side::Egress) as usize;
            if in_bucket && self.get(*offset) != *word {
                tats.push((*offset - prefix) / SIZE * SIZE + prefix);
            }
            self.set(*offset, *word);
        }
        tats.dedup();
        for base in tats {
            let full = now() + self.get(base + at::BUCKET_BULK as usize);
            self.set(base + at::BUCKET_TAT as usize, full);
            self.set(base + at::BUCKET_QUIET as usize, full);
        }
    }

    pub fn counters(&self) -> Counters {
        let side = |side| {
            let get = |o: i16| self.get((counters(side) + o) as usize);
            let throttled =
                |what| self.get((bucket(side, what) + at::BUCKET_THROTTLED) as usize) / UNITS_PER_NS;
            DirectionCounters {
                bytes: get(at::COUNT_BYTES),
                packets: get(at::COUNT_PACKETS),
                dropped_bytes: get(at::COUNT_DROPPED_BYTES),
                dropped_packets: get(at::COUNT_DROPPED_PACKETS),
                throttled_ns: throttled(What::Bytes).max(throttled(What::Packets)),
            }
        };
        let conns = |side, o: i16| self.get((counters(side) + o) as usize);
        let (at_cgroup, at_link) = (side(Side::Ingress), side(Side::LinkIngress));
        Counters {
            egress: side(Side::Egress),
            // What is turned away at the host's device never gets as far as the cgroup.
            ingress: DirectionCounters {
                dropped_bytes: at_cgroup.dropped_bytes + at_link.dropped_bytes,
                dropped_packets: at_cgroup.dropped_packets + at_link.dropped_packets,
                throttled_ns: at_cgroup.throttled_ns.max(at_link.throttled_ns),
                ..at_cgroup
            },
            bypass_egress: side(Side::LinkEgress),
            bypass_ingress: at_link,
            new_conns: conns(Side::Egress, at::COUNT_CONNS),
            refused_conns: conns(Side::Egress, at::COUNT_REFUSED_CONNS)
                + conns(Side::LinkEgress, at::COUNT_REFUSED_CONNS),
        }
    }
}

/// The rate and burst asked for, where there is such a limit.
fn asked(l: &Limits, side: Side, what: What) -> Option<(Cap, Cap)> {
    let (rate, burst) = match (side, what) {
        (Side::Egress, What::Bytes) => (l.egress_rate, l.egress_burst),
        (Side::Egress, What::Packets) => (l.egress_pps, l.egress_pps_burst),
        (Side::Egress, What::Conns) => (l.new_conns, l.new_conns_burst),
        (Side::Ingress, What::Bytes) => (l.ingress_rate, l.ingress_burst),
        (Side::Ingress, What::Packets) => (l.ingress_pps, l.ingress_pps_burst),
        _ => return None,
    };
    Some((rate.unwrap_or(Cap::Max), burst.unwrap_or(Cap::Max)))
}

fn number(cap: Cap, max: u64) -> u64 {
    match cap {
        Cap::Max => max,
        Cap::At(n) => n,
    }
}

/// The programs' clock.
fn now() -> u64 {
    crate::sys::net::monotonic_ns() * UNITS_PER_NS
}

/// bpf(2)'s errno in words people can act on.
pub fn explain(e: io::Error) -> Error {
    let text = match e.raw_os_error() {
        Some(libc::EPERM) => "network limits need CAP_BPF and CAP_NET_ADMIN in the initial user namespace",
        Some(libc::ENOSYS) => "network limits need a kernel with bpf(2)",
        Some(libc::EINVAL) => "network limits need Linux 5.12 or later with CONFIG_CGROUP_BPF",
        _ => return Error::from(e).context("loading the programs of the network limits"),
    };
    Error::new(Kind::Unsupported, text)
}
