//! What happens to a packet.
//!
//! Every program is the same recipe with other parameters: write the tags, leave out what isn't ours, measure the
//! packet as it goes on the wire, charge up to three buckets, count. Either all buckets are charged or none.

use super::asm::{Alu, Asm, If, Label, Reg, Width};
use super::flow;
use super::layout::{self as at, bucket, counters, Side, What};
use super::socket;
use crate::gcra;

use Reg::{Fp, R0, R1, R2, R3, R4, R5, R6, R7, R8, R9};

/// `struct __sk_buff` of include/uapi/linux/bpf.h.
mod skb {
    pub const LEN: i16 = 0;
    pub const MARK: i16 = 8;
    pub const PROTOCOL: i16 = 16;
    pub const PRIORITY: i16 = 32;
    pub const IFINDEX: i16 = 40;
    pub const GSO_SEGS: i16 = 164;
    pub const SK: i16 = 168;
    pub const GSO_SIZE: i16 = 176;
}

/// Helper numbers of the same header.
pub(super) const KTIME_GET_NS: i32 = 5;
const SKB_LOAD_BYTES: i32 = 26;
const SKB_ANCESTOR_CGROUP_ID: i32 = 83;

/// The stack. R6 is the context, R7 the state, R8 the bytes on the wire and R9 the packets.
pub(super) mod stack {
    pub const NOW: i16 = -8;
    /// What each bucket was charged, by `What`.
    pub const COST: [i16; 3] = [-16, -24, -32];
    pub const SMALL: i16 = -40;
    /// Whether the packet begins a connection: `flow::{OLD, TCP, OTHER}`.
    pub const CONN: i16 = -48;
    /// Scratch of `flow`, afterwards where the tag goes.
    pub const SLOT: i16 = -56;
    /// Protocol, afterwards the flow's tag.
    pub const TAG: i16 = -64;
    /// The network header, 40 bytes.
    pub const HEADER: i16 = -104;
    /// The start of the transport header, 16 bytes.
    pub const TRANSPORT: i16 = -120;
}

pub(super) const ETHERNET: i32 = 14;
/// ETH_P_IP and ETH_P_IPV6 as they lie in memory.
const IPV4: i32 = 0x0008;
const IPV6: i32 = 0xdd86;
const LOOPBACK_IFINDEX: i32 = 1;

/// By which people (and we) know the programs in `bpftool cgroup show`.
pub const NAME_PREFIX: &str = "hydra_net_";

/// The cgroup whose sockets' traffic is ours, for programs that see others' too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    pub cgroup_id: u64,
    /// Depth below the root of the hierarchy at which the id is found, first and last possible.
    pub levels: (u32, u32),
    /// Packets without a socket (forwarded ones) are ours too.
    pub orphans: bool,
    /// Packets of the kernel's own sockets are ours too.
    pub kernels: bool,
}

/// What a program can do beside bytes and packets. The verifier takes a microsecond for an instruction, so that a
/// container pays for what it asks for: a program is replaced by one that can more when that is first needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Features {
    pub conns: bool,
    pub tags: bool,
}

/// Which program to build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    CgroupEgress(Features),
    CgroupIngress(Features),
    /// Gives every new socket its mark and priority.
    SocketTags,
    /// Has TCP spread over time what it sends.
    Pace,
    /// Has [`Program::Pace`] called for a connection that is older than it, when asked by a setsockopt().
    Adopt,
    /// At the host's device, packets that leave the container through its interface `inner_ifindex`.
    LinkEgress {
        owner: Owner,
        inner_ifindex: u32,
        features: Features,
    },
    /// At the host's device, packets towards the container.
    LinkIngress,
}

impl Program {
    /// The instructions, for a state map open as `map_fd`.
    pub fn assemble(self, map_fd: i32) -> Vec<u64> {
        let mut a = Asm::default();
        a.mov(R6, R1);
        a.load_map_value(R7, map_fd);
        match self {
            Program::SocketTags => socket::socket_tags(&mut a),
            Program::Pace => socket::pace(&mut a),
            Program::Adopt => socket::adopt(&mut a),
            _ => packet(&mut a, self),
        }
        a.finish()
    }

    /// The name in the kernel: our prefix, the place, and a digit for the features. At most 15 characters.
    pub fn name(self) -> String {
        let digit = u8::from(self.features().conns) + 2 * u8::from(self.features().tags);
        let stem = match self {
            Program::CgroupEgress(_) => "out",
            Program::CgroupIngress(_) => "in",
            Program::SocketTags => "sock",
            Program::Pace => "pace",
            Program::Adopt => "late",
            Program::LinkEgress { .. } => "lout",
            Program::LinkIngress => "lin",
        };
        format!("{NAME_PREFIX}{stem}{digit}")
    }

    /// Whether a program of the name given does all that this one does.
    pub fn is_served_by(self, name: &str) -> bool {
        let split = |name: &str| {
            Some((name.get(..name.len().checked_sub(1)?)?.to_string(), name.bytes().last()? & 3))
        };
        match (split(&self.name()), split(name)) {
            (Some((stem, need)), Some((have_stem, have))) => stem == have_stem && need & !have == 0,
            _ => false,
        }
    }

    pub(super) fn features(self) -> Features {
        match self {
            Program::CgroupEgress(f) | Program::LinkEgress { features: f, .. } => f,
            // Nothing that comes in is tagged.
            Program::CgroupIngress(f) => Features { tags: false, ..f },
            Program::SocketTags | Program::Pace | Program::Adopt | Program::LinkIngress => {
                Features::default()
            }
        }
    }

    pub(super) fn side(self) -> Side {
        match self {
            Program::CgroupEgress(_) | Program::SocketTags | Program::Pace | Program::Adopt => Side::Egress,
            Program::CgroupIngress(_) => Side::Ingress,
            Program::LinkEgress { .. } => Side::LinkEgress,
            Program::LinkIngress => Side::LinkIngress,
        }
    }

    /// Whether packets begin with their Ethernet header here.
    pub(super) fn sees_ethernet(self) -> bool {
        matches!(self, Program::LinkEgress { .. } | Program::LinkIngress)
    }

    /// Whether TCP is warned by it. Out of the container it needs no warning, see [`pace`].
    fn warns(self) -> bool {
        matches!(self.side(), Side::Ingress | Side::LinkIngress)
    }

    /// What to return for a packet that passes and one that doesn't.
    fn verdicts(self) -> (i32, i32) {
        match self {
            // 2 is "dropped, congestion": TCP learns of it at once and applications get no error; 0 would be EPERM.
            Program::CgroupEgress(_) => (1, 2),
            Program::CgroupIngress(_) | Program::SocketTags | Program::Pace | Program::Adopt => (1, 0),
            // -1 lets the next program or filter decide; 2 is TC_ACT_SHOT and TCX_DROP.
            Program::LinkEgress { .. } | Program::LinkIngress => (-1, 2),
        }
    }
}

fn packet(a: &mut Asm, program: Program) {
    let (pass, count) = (a.label(), a.label());
    match program {
        Program::CgroupEgress(Features { tags: true, .. }) => write_tags(a, None),
        Program::LinkEgress { owner, inner_ifindex, features } => {
            only_owned(a, owner, pass);
            if features.tags {
                write_tags(a, Some(inner_ifindex));
            }
        }
        _ => {}
    }
    if !program.sees_ethernet() {
        skip_loopback(a, pass);
    }
    measure(a, program);
    a.call(KTIME_GET_NS);
    a.alu_imm(Alu::Lsh, R0, gcra::UNITS_PER_NS.trailing_zeros() as i32);
    a.store(Width::Dw, Fp, stack::NOW, R0);
    note_smallness(a);
    flow::classify(a, program);
    charge_all(a, program, count);
    a.bind(count);
    count_passed(a, program);
    a.bind(pass);
    a.exit(program.verdicts().0);
}

/// Traffic over `lo` counts only if asked.
fn skip_loopback(a: &mut Asm, pass: Label) {
    let counts = a.label();
    a.load(Width::W, R1, R6, skb::IFINDEX);
    a.jump_if_imm(If::Ne, R1, LOOPBACK_IFINDEX, counts);
    a.load(Width::Dw, R1, R7, at::OFF_FLAGS);
    a.alu_imm(Alu::And, R1, at::FLAG_LOOPBACK as i32);
    a.jump_if_imm(If::Eq, R1, 0, pass);
    a.bind(counts);
}

/// Lets pass, uncounted, what belongs to another cgroup.
fn only_owned(a: &mut Asm, owner: Owner, pass: Label) {
    let ours = a.label();
    a.load(Width::Dw, R1, R6, skb::SK);
    a.jump_if_imm(If::Eq, R1, 0, if owner.orphans { ours } else { pass });
    if owner.kernels {
        // What the kernel sends by itself, answers to pings and RSTs, comes from sockets of its own in the root cgroup, which
        // has nothing at the first level. Whoever sends many pings decides how much that is.
        a.mov(R1, R6);
        a.mov_imm(R2, 1);
        a.call(SKB_ANCESTOR_CGROUP_ID);
        a.jump_if_imm(If::Eq, R0, 0, ours);
    }
    a.load_imm64(R8, owner.cgroup_id);
    for level in owner.levels.0..=owner.levels.1 {
        a.mov(R1, R6);
        a.mov_imm(R2, level as i32);
        a.call(SKB_ANCESTOR_CGROUP_ID);
        a.jump_if(If::Eq, R0, R8, ours);
    }
    a.jump(pass);
    a.bind(ours);
}

/// mark and priority. `inner_ifindex` is the interface to look up; `None`: the packet's own.
fn write_tags(a: &mut Asm, inner_ifindex: Option<u32>) {
    let (no_tags, no_mark, set, done) = (a.label(), a.label(), a.label(), a.label());
    a.load(Width::Dw, R2, R7, at::OFF_FLAGS);
    a.mov(R1, R2);
    a.alu_imm(Alu::And, R1, at::FLAG_TAGS as i32);
    a.jump_if_imm(If::Eq, R1, 0, no_tags);
    a.load(Width::Dw, R1, R7, at::OFF_MARK);
    a.jump_if_imm(If::Eq, R1, 0, no_mark);
    a.store(Width::W, R6, skb::MARK, R1);
    a.bind(no_mark);
    a.alu_imm(Alu::And, R2, at::FLAG_TABLE as i32);
    a.load(Width::Dw, R1, R7, at::OFF_PRIORITY);
    a.jump_if_imm(If::Eq, R2, 0, set);
    match inner_ifindex {
        Some(n) => a.mov_imm(R2, n as i32),
        None => a.load(Width::W, R2, R6, skb::IFINDEX),
    }
    for i in 0..at::TABLE_LEN as i16 {
        let next = a.label();
        let entry = at::OFF_TABLE + i * at::TABLE_ENTRY;
        a.load(Width::W, R3, R7, entry + at::TABLE_IFINDEX);
        a.jump_if(If::Ne, R3, R2, next);
        a.load(Width::W, R1, R7, entry + at::TABLE_PRIORITY);
        a.jump(set);
        a.bind(next);
    }
    a.bind(set);
    a.jump_if_imm(If::Eq, R1, 0, done);
    a.store(Width::W, R6, skb::PRIORITY, R1);
    a.bind(done);
    a.bind(no_tags);
}

/// R9 = packets on the wire, R8 = bytes on the wire.
fn measure(a: &mut Asm, program: Program) {
    let l2 = if program.sees_ethernet() { ETHERNET } else { 0 };
    let (several, one, done) = (a.label(), a.label(), a.label());
    a.load(Width::W, R8, R6, skb::LEN);
    if l2 == 0 {
        a.alu_imm(Alu::Add, R8, ETHERNET);
    }
    a.load(Width::W, R9, R6, skb::GSO_SEGS);
    a.jump_if_imm(If::Gt, R9, 1, several);
    a.jump_if_imm(If::Eq, R9, 1, one);
    // A GSO packet from outside or from PACKET_VNET_HDR needn't say how many segments it is.
    a.load(Width::W, R1, R6, skb::GSO_SIZE);
    a.jump_if_imm(If::Eq, R1, 0, one);
    a.mov(R9, R8);
    a.alu(Alu::Div, R9, R1);
    a.alu_imm(Alu::Add, R9, 1);
    a.bind(several);
    // Every further segment repeats the headers.
    header_length(a, l2, done);
    a.alu_imm(Alu::Add, R1, ETHERNET);
    a.mov(R2, R9);
    a.alu_imm(Alu::Sub, R2, 1);
    a.alu(Alu::Mul, R1, R2);
    a.alu(Alu::Add, R8, R1);
    a.jump(done);
    a.bind(one);
    a.mov_imm(R9, 1);
    a.bind(done);
}

/// R1 = length of the network and transport headers; jumps to `unknown` if it is no IP packet.
fn header_length(a: &mut Asm, l2: i32, unknown: Label) {
    let (v6, udp, transport, sum) = (a.label(), a.label(), a.label(), a.label());
    let extended = a.label();
    a.load(Width::W, R1, R6, skb::PROTOCOL);
    a.jump_if_imm(If::Eq, R1, IPV6, v6);
    a.jump_if_imm(If::Ne, R1, IPV4, unknown);
    load_bytes(a, Offset::Fixed(l2), stack::HEADER, 20, unknown);
    a.load(Width::B, R1, Fp, stack::HEADER);
    a.alu_imm(Alu::And, R1, 15);
    a.alu_imm(Alu::Lsh, R1, 2);
    a.load(Width::B, R2, Fp, stack::HEADER + 9);
    a.jump(transport);
    a.bind(v6);
    load_bytes(a, Offset::Fixed(l2), stack::HEADER, 40, unknown);
    a.mov_imm(R1, 40);
    a.load(Width::B, R2, Fp, stack::HEADER + 6);
    for extension in flow::EXTENSIONS {
        a.jump_if_imm(If::Eq, R2, extension, extended);
    }
    a.jump(transport);
    a.bind(extended);
    load_bytes(a, Offset::Fixed(l2 + 40), stack::HEADER, 8, unknown);
    a.load(Width::B, R1, Fp, stack::HEADER + 1);
    a.alu_imm(Alu::Add, R1, 1);
    a.alu_imm(Alu::Lsh, R1, 3);
    a.alu_imm(Alu::Add, R1, 40);
    a.load(Width::B, R2, Fp, stack::HEADER);
    for known in [flow::TCP, flow::UDP] {
        a.jump_if_imm(If::Eq, R2, known, transport);
    }
    // Several extensions: taken to be as long as they can be, what the last segment at least leaves over.
    a.load(Width::W, R1, R6, skb::LEN);
    if l2 != 0 {
        a.alu_imm(Alu::Sub, R1, l2);
    }
    a.load(Width::W, R2, R6, skb::GSO_SIZE);
    a.mov(R3, R9);
    a.alu_imm(Alu::Sub, R3, 1);
    a.alu(Alu::Mul, R2, R3);
    a.jump_if(If::Gt, R2, R1, unknown);
    a.alu(Alu::Sub, R1, R2);
    a.jump(sum);
    a.bind(transport);
    a.jump_if_imm(If::Ne, R2, flow::TCP, udp);
    a.store(Width::Dw, Fp, stack::SLOT, R1);
    a.mov(R2, R1);
    a.alu_imm(Alu::Add, R2, l2);
    load_bytes(a, Offset::InR2, stack::TRANSPORT, 14, unknown);
    a.load(Width::B, R2, Fp, stack::TRANSPORT + 12);
    a.alu_imm(Alu::Rsh, R2, 4);
    a.alu_imm(Alu::Lsh, R2, 2);
    a.load(Width::Dw, R1, Fp, stack::SLOT);
    a.alu(Alu::Add, R1, R2);
    a.jump(sum);
    a.bind(udp);
    a.alu_imm(Alu::Add, R1, 8);
    a.bind(sum);
}

pub(super) enum Offset {
    Fixed(i32),
    /// R2 holds it.
    InR2,
}

/// Copies packet bytes to the stack; jumps to `short` if there aren't so many.
pub(super) fn load_bytes(a: &mut Asm, from: Offset, to: i16, len: i32, short: Label) {
    if let Offset::Fixed(n) = from {
        a.mov_imm(R2, n);
    }
    a.mov(R1, R6);
    a.mov(R3, Fp);
    a.alu_imm(Alu::Add, R3, i32::from(to));
    a.mov_imm(R4, len);
    a.call(SKB_LOAD_BYTES);
    a.jump_if_imm(If::Ne, R0, 0, short);
}

/// R1 = `__sk_buff.protocol`; jumps apart for the two versions of IP, else to `other`.
pub(super) fn switch_protocol(a: &mut Asm, v4: Label, v6: Label, other: Label) {
    a.load(Width::W, R1, R6, skb::PROTOCOL);
    a.jump_if_imm(If::Eq, R1, IPV4, v4);
    a.jump_if_imm(If::Eq, R1, IPV6, v6);
    a.jump(other);
}

fn note_smallness(a: &mut Asm) {
    let done = a.label();
    a.mov_imm(R1, 1);
    a.jump_if_imm(If::Le, R8, gcra::SMALL as i32, done);
    a.mov_imm(R1, 0);
    a.bind(done);
    a.store(Width::Dw, Fp, stack::SMALL, R1);
}

fn charge_all(a: &mut Asm, program: Program, count: Label) {
    let side = program.side();
    let over: [Label; 3] = std::array::from_fn(|_| a.label());
    let drop = a.label();
    if program.warns() {
        warn(a, program, drop);
    }
    charge(a, bucket(side, What::Bytes), Amount::InReg(R8), stack::COST[0], over[0]);
    charge(a, bucket(side, What::Packets), Amount::InReg(R9), stack::COST[1], over[1]);
    if flow::charges(program) {
        a.load(Width::Dw, R1, Fp, stack::CONN);
        a.jump_if_imm(If::Eq, R1, flow::OLD, count);
        charge(a, bucket(side, What::Conns), Amount::One, stack::COST[2], over[2]);
    }
    a.jump(count);
    // Whoever was over gives back what the buckets before it were charged.
    if flow::charges(program) {
        a.bind(over[2]);
        a.mov_imm(R1, 1);
        a.atomic_add(R7, counters(side) + at::COUNT_REFUSED_CONNS, R1);
        refund(a, bucket(side, What::Packets), stack::COST[1]);
    }
    refund_entry(a, &over, side);
    a.jump(drop);
    a.bind(drop);
    a.atomic_add(R7, counters(side) + at::COUNT_DROPPED_BYTES, R8);
    a.atomic_add(R7, counters(side) + at::COUNT_DROPPED_PACKETS, R9);
    a.exit(program.verdicts().1);
}

/// Drops a packet of TCP's once in a while when the bucket is nearly empty. Without it a sender over a long path learns of
/// the limit only when nothing passes any more, sends too much for a round trip more, and cuts its window two or three times
/// for it, which it takes many seconds to get back. One warning a second: it hears of it, and what is in the bucket bridges
/// the time until less arrives. Other senders, and small packets, may use the burst to its end.
fn warn(a: &mut Asm, program: Program, drop: Label) {
    const EACH: u64 = 1_000_000_000 * gcra::UNITS_PER_NS;
    let (v4, v6, protocol, done) = (a.label(), a.label(), a.label(), a.label());
    let bytes = bucket(program.side(), What::Bytes);
    a.load(Width::Dw, R1, R7, bytes + at::BUCKET_EARLY);
    a.jump_if_imm(If::Eq, R1, 0, done);
    a.load(Width::Dw, R2, Fp, stack::SMALL);
    a.jump_if_imm(If::Ne, R2, 0, done);
    a.load(Width::Dw, R3, Fp, stack::NOW);
    a.load(Width::Dw, R2, R7, bytes + at::BUCKET_TAT);
    a.alu(Alu::Add, R1, R3);
    a.jump_if(If::Le, R2, R1, done);
    a.load(Width::Dw, R2, R7, bytes + at::BUCKET_QUIET);
    a.jump_if(If::Gt, R2, R3, done);
    let l2 = if program.sees_ethernet() { ETHERNET } else { 0 };
    switch_protocol(a, v4, v6, done);
    a.bind(v4);
    a.mov_imm(R2, l2 + 9);
    a.jump(protocol);
    a.bind(v6);
    a.mov_imm(R2, l2 + 6);
    a.bind(protocol);
    load_bytes(a, Offset::InR2, stack::TRANSPORT, 1, done);
    a.load(Width::B, R1, Fp, stack::TRANSPORT);
    a.jump_if_imm(If::Ne, R1, flow::TCP, done);
    a.load(Width::Dw, R3, Fp, stack::NOW);
    a.load_imm64(R1, EACH);
    a.alu(Alu::Add, R1, R3);
    a.store(Width::Dw, R7, bytes + at::BUCKET_QUIET, R1);
    a.jump(drop);
    a.bind(done);
}

fn refund_entry(a: &mut Asm, over: &[Label; 3], side: Side) {
    a.bind(over[1]);
    refund(a, bucket(side, What::Bytes), stack::COST[0]);
    a.bind(over[0]);
}

fn refund(a: &mut Asm, bucket: i16, cost: i16) {
    a.load(Width::Dw, R1, Fp, cost);
    a.alu_imm(Alu::Neg, R1, 0);
    a.atomic_add(R7, bucket + at::BUCKET_TAT, R1);
}

enum Amount {
    InReg(Reg),
    One,
}

/// Charges a bucket, or jumps to `over` with nothing charged. The cost is left on the stack.
///
/// Without a lock: two attempts to exchange `tat`, then an addition that is taken back if it was too much. So the
/// bound holds on any number of processors, and nobody waits.
fn charge(a: &mut Asm, bucket: i16, amount: Amount, cost: i16, over: Label) {
    let (free, charged, full, have_limit) = (a.label(), a.label(), a.label(), a.label());
    a.load(Width::Dw, R1, R7, bucket + at::BUCKET_COST);
    a.store(Width::Dw, Fp, cost, R1);
    a.jump_if_imm(If::Eq, R1, 0, free);
    a.mov(R2, R1);
    a.alu_imm(Alu::And, R2, 63);
    a.alu_imm(Alu::Rsh, R1, 6);
    if let Amount::InReg(r) = amount {
        a.alu(Alu::Mul, R1, r);
    }
    a.alu(Alu::Rsh, R1, R2);
    a.store(Width::Dw, Fp, cost, R1);
    a.load(Width::Dw, R3, Fp, stack::NOW);
    a.load(Width::Dw, R2, Fp, stack::SMALL);
    a.load(Width::Dw, R4, R7, bucket + at::BUCKET_BURST);
    a.jump_if_imm(If::Ne, R2, 0, have_limit);
    a.load(Width::Dw, R4, R7, bucket + at::BUCKET_BULK);
    a.bind(have_limit);
    a.alu(Alu::Add, R4, R3);
    for _ in 0..2 {
        let ahead = a.label();
        a.load(Width::Dw, R0, R7, bucket + at::BUCKET_TAT);
        a.jump_if(If::Gt, R0, R4, full);
        a.mov(R2, R0);
        a.mov(R5, R0);
        a.jump_if(If::Ge, R5, R3, ahead);
        a.mov(R5, R3);
        a.bind(ahead);
        a.alu(Alu::Add, R5, R1);
        a.cmpxchg(R7, bucket + at::BUCKET_TAT, R5);
        a.jump_if(If::Eq, R0, R2, charged);
    }
    a.mov(R5, R1);
    a.fetch_add(R7, bucket + at::BUCKET_TAT, R5);
    a.jump_if(If::Le, R5, R4, charged);
    a.alu_imm(Alu::Neg, R1, 0);
    a.atomic_add(R7, bucket + at::BUCKET_TAT, R1);
    a.mov(R0, R5);
    a.bind(full);
    note_blocked(a, bucket);
    a.jump(over);
    a.bind(charged);
    a.bind(free);
}

/// The bucket (its `tat` in R0, the limit in R4, now in R3) is closed until `tat - limit + now`: adds to the
/// throttled time what isn't in it yet.
fn note_blocked(a: &mut Asm, bucket: i16) {
    let (later, known) = (a.label(), a.label());
    a.alu(Alu::Sub, R0, R4);
    a.alu(Alu::Add, R0, R3);
    a.load(Width::Dw, R1, R7, bucket + at::BUCKET_BLOCKED);
    a.jump_if(If::Ge, R1, R3, later);
    a.mov(R1, R3);
    a.bind(later);
    a.jump_if(If::Le, R0, R1, known);
    a.store(Width::Dw, R7, bucket + at::BUCKET_BLOCKED, R0);
    a.alu(Alu::Sub, R0, R1);
    a.atomic_add(R7, bucket + at::BUCKET_THROTTLED, R0);
    a.bind(known);
}

fn count_passed(a: &mut Asm, program: Program) {
    let base = counters(program.side());
    a.atomic_add(R7, base + at::COUNT_BYTES, R8);
    a.atomic_add(R7, base + at::COUNT_PACKETS, R9);
    flow::remember(a, program, base);
}
