//! New connections: what begins one, and which flows are known already.
//!
//! TCP begins with a SYN. Other protocols have no beginning on the wire, so flows are remembered as 32-bit tags in a
//! table with two places for each. A flow that others began is remembered when their packet comes in, so that a
//! server's answers aren't taken for connections it opens. A table that overflows forgets flows at random, and counts
//! them once more: too strict rather than too lax.

use super::asm::{Alu, Asm, If, Label, Reg, Width};
use super::layout::{self as at, bucket, Side, What};
use super::program::{load_bytes, stack, switch_protocol, Offset, Program, ETHERNET};

use Reg::{Fp, R1, R2, R3, R4, R5, R7};

/// Values of `stack::CONN`.
pub(super) const OLD: i32 = 0;
const NEW_TCP: i32 = 1;
const NEW_FLOW: i32 = 2;

/// IPPROTO_TCP.
pub(super) const TCP: i32 = 6;
/// IPPROTO_UDP.
pub(super) const UDP: i32 = 17;
const UDPLITE: i32 = 136;
const SCTP: i32 = 132;
/// Headers of IPv6 between its own and the transport's that say their length alike: hop-by-hop, routing, destination options.
pub(super) const EXTENSIONS: [i32; 3] = [0, 43, 60];
const AUTHENTICATION: i32 = 51;
const V6_FRAGMENT: i32 = 44;
/// The fragment offset of an IPv6 fragment header, as it lies in memory.
const V6_FRAGMENT_OFFSET: i32 = 0xf8ff;
/// A socket's options make three, and the kernel's own cutting a fourth.
const MOST_EXTENSIONS: usize = 4;
const SYN_ACK: i32 = 0x12;
const SYN: i32 = 0x02;
/// The fragment offset of an IPv4 header, as it lies in memory.
const FRAGMENT: i32 = 0xff1f;

const MIX: u64 = 0x9e37_79b9_7f4a_7c15;
/// A tag's byte offset within the table.
const MASK: i32 = (at::FLOWS as i32 - 1) << 2;

/// Whether connections are charged at this place: where packets leave, and if they are limited at all.
pub(super) fn charges(program: Program) -> bool {
    program.features().conns && matches!(program.side(), Side::Egress | Side::LinkEgress)
}

/// Leaves `OLD` or what kind of new connection in `stack::CONN`. Coming in: remembers the flow.
pub(super) fn classify(a: &mut Asm, program: Program) {
    let outward = charges(program);
    if !program.features().conns || program.side() == Side::LinkIngress {
        return;
    }
    let (done, v4, v6, transport) = (a.label(), a.label(), a.label(), a.label());
    a.mov_imm(R1, OLD);
    a.store(Width::Dw, Fp, stack::CONN, R1);
    let switch = if outward { program.side() } else { Side::Egress };
    a.load(Width::Dw, R1, R7, bucket(switch, What::Conns) + at::BUCKET_COST);
    a.jump_if_imm(If::Eq, R1, 0, done);
    let l2 = if program.sees_ethernet() { ETHERNET } else { 0 };
    switch_protocol(a, v4, v6, done);
    a.bind(v4);
    network_v4(a, l2, outward, done);
    a.jump(transport);
    a.bind(v6);
    network_v6(a, l2, outward, done);
    a.bind(transport);
    ports(a, l2, outward, done);
    look_up(a, outward, done);
    a.bind(done);
}

/// R2 = offset of the transport header, `stack::SLOT` = hash of the remote address, `stack::TAG` = protocol.
fn network_v4(a: &mut Asm, l2: i32, outward: bool, other: Label) {
    load_bytes(a, Offset::Fixed(l2), stack::HEADER, 20, other);
    // Only the first fragment has ports; it was counted.
    a.load(Width::H, R1, Fp, stack::HEADER + 6);
    a.jump_if_imm(If::Set, R1, FRAGMENT, other);
    a.load(Width::W, R1, Fp, stack::HEADER + if outward { 16 } else { 12 });
    a.load_imm64(R2, MIX);
    a.alu(Alu::Mul, R1, R2);
    a.store(Width::Dw, Fp, stack::SLOT, R1);
    a.load(Width::B, R1, Fp, stack::HEADER + 9);
    a.store(Width::Dw, Fp, stack::TAG, R1);
    a.load(Width::B, R2, Fp, stack::HEADER);
    a.alu_imm(Alu::And, R2, 15);
    a.alu_imm(Alu::Lsh, R2, 2);
}

fn network_v6(a: &mut Asm, l2: i32, outward: bool, other: Label) {
    load_bytes(a, Offset::Fixed(l2), stack::HEADER, 40, other);
    let address = stack::HEADER + if outward { 24 } else { 8 };
    a.load_imm64(R2, MIX);
    a.load(Width::Dw, R1, Fp, address);
    a.alu(Alu::Mul, R1, R2);
    a.mov(R3, R1);
    a.alu_imm(Alu::Rsh, R3, 32);
    a.alu(Alu::Xor, R1, R3);
    a.load(Width::Dw, R3, Fp, address + 8);
    a.alu(Alu::Xor, R1, R3);
    a.alu(Alu::Mul, R1, R2);
    a.store(Width::Dw, Fp, stack::SLOT, R1);
    a.load(Width::B, R1, Fp, stack::HEADER + 6);
    a.mov_imm(R2, 40);
    extensions(a, l2, outward, other);
}

/// Goes on from the IPv6 header's end (R2), whose next header is R1, to the transport's. The network header on the stack has
/// been used by then, so that the offset is kept there.
fn extensions(a: &mut Asm, l2: i32, outward: bool, other: Label) {
    const OFFSET: i16 = stack::HEADER;
    let found = a.label();
    for left in (0..=MOST_EXTENSIONS).rev() {
        let (alike, fragment, length, next) = (a.label(), a.label(), a.label(), a.label());
        a.store(Width::Dw, Fp, stack::TAG, R1);
        let end = if left == 0 { next } else { alike };
        for extension in EXTENSIONS {
            a.jump_if_imm(If::Eq, R1, extension, end);
        }
        a.jump_if_imm(If::Eq, R1, V6_FRAGMENT, end);
        a.jump_if_imm(If::Ne, R1, AUTHENTICATION, found);
        if left == 0 {
            // Whoever needs so many hides something: each is one.
            a.bind(next);
            if outward {
                a.mov_imm(R1, NEW_TCP);
                a.store(Width::Dw, Fp, stack::CONN, R1);
            }
            a.jump(other);
            break;
        }
        a.bind(alike);
        a.store(Width::Dw, Fp, OFFSET, R2);
        if l2 != 0 {
            a.alu_imm(Alu::Add, R2, l2);
        }
        load_bytes(a, Offset::InR2, stack::TRANSPORT, 8, other);
        a.load(Width::Dw, R4, Fp, stack::TAG);
        a.load(Width::B, R1, Fp, stack::TRANSPORT);
        a.load(Width::B, R3, Fp, stack::TRANSPORT + 1);
        a.alu_imm(Alu::Add, R3, 1);
        a.alu_imm(Alu::Lsh, R3, 3);
        a.jump_if_imm(If::Eq, R4, V6_FRAGMENT, fragment);
        a.jump_if_imm(If::Ne, R4, AUTHENTICATION, length);
        // Its length is in other units: 4 (n + 2).
        a.alu_imm(Alu::Rsh, R3, 1);
        a.alu_imm(Alu::Add, R3, 4);
        a.jump(length);
        a.bind(fragment);
        // Only the first fragment has ports; it was counted.
        a.load(Width::H, R3, Fp, stack::TRANSPORT + 2);
        a.jump_if_imm(If::Set, R3, V6_FRAGMENT_OFFSET, other);
        a.mov_imm(R3, 8);
        a.bind(length);
        a.load(Width::Dw, R2, Fp, OFFSET);
        a.alu(Alu::Add, R2, R3);
        a.bind(next);
    }
    a.bind(found);
}

/// R1 = ports and protocol in one word. TCP ends here.
fn ports(a: &mut Asm, l2: i32, outward: bool, done: Label) {
    let (tcp, with_ports, without, have) = (a.label(), a.label(), a.label(), a.label());
    if l2 != 0 {
        a.alu_imm(Alu::Add, R2, l2);
    }
    a.load(Width::Dw, R1, Fp, stack::TAG);
    a.jump_if_imm(If::Eq, R1, TCP, tcp);
    for protocol in [UDP, UDPLITE, SCTP] {
        a.jump_if_imm(If::Eq, R1, protocol, with_ports);
    }
    a.jump(without);

    a.bind(tcp);
    if outward {
        let begins = a.label();
        // A fragment too short for the flags may hide a SYN.
        load_bytes(a, Offset::InR2, stack::TRANSPORT, 14, begins);
        a.load(Width::B, R1, Fp, stack::TRANSPORT + 13);
        a.alu_imm(Alu::And, R1, SYN_ACK);
        a.jump_if_imm(If::Ne, R1, SYN, done);
        a.bind(begins);
        a.mov_imm(R1, NEW_TCP);
        a.store(Width::Dw, Fp, stack::CONN, R1);
    }
    a.jump(done);

    a.bind(with_ports);
    load_bytes(a, Offset::InR2, stack::TRANSPORT, 4, done);
    let (local, remote) = if outward { (0, 2) } else { (2, 0) };
    a.load(Width::H, R2, Fp, stack::TRANSPORT + local);
    a.load(Width::H, R1, Fp, stack::TRANSPORT + remote);
    a.alu_imm(Alu::Lsh, R1, 16);
    a.alu(Alu::Or, R1, R2);
    a.jump(have);
    a.bind(without);
    a.mov_imm(R1, 0);
    a.bind(have);
    a.load(Width::Dw, R2, Fp, stack::TAG);
    a.alu_imm(Alu::Lsh, R2, 32);
    a.alu(Alu::Or, R1, R2);
}

/// Finds the flow or decides on a place for it. Coming in, takes the place at once.
fn look_up(a: &mut Asm, outward: bool, done: Label) {
    let second = a.label();
    a.load(Width::Dw, R2, Fp, stack::SLOT);
    a.alu(Alu::Xor, R1, R2);
    a.load_imm64(R2, MIX);
    for _ in 0..2 {
        a.alu(Alu::Mul, R1, R2);
        a.mov(R3, R1);
        a.alu_imm(Alu::Rsh, R3, 32);
        a.alu(Alu::Xor, R1, R3);
    }
    a.mov(R3, R1);
    a.alu_imm(Alu::Lsh, R3, 32);
    a.alu_imm(Alu::Rsh, R3, 32);
    a.alu_imm(Alu::Or, R3, 1);
    for (place, shift) in [(R4, 32), (R5, 44)] {
        a.mov(place, R1);
        a.alu_imm(Alu::Rsh, place, shift);
        a.alu_imm(Alu::And, place, MASK);
    }
    for place in [R4, R5] {
        a.mov(R2, R7);
        a.alu(Alu::Add, R2, place);
        a.load(Width::W, R2, R2, at::OFF_FLOWS);
        a.jump_if(If::Eq, R2, R3, done);
    }
    // Either place, by the clock.
    a.load(Width::Dw, R2, Fp, stack::NOW);
    a.jump_if_imm(If::Set, R2, 1 << 12, second);
    a.mov(R5, R4);
    a.bind(second);
    if outward {
        a.store(Width::Dw, Fp, stack::SLOT, R5);
        a.store(Width::Dw, Fp, stack::TAG, R3);
        a.mov_imm(R1, NEW_FLOW);
        a.store(Width::Dw, Fp, stack::CONN, R1);
    } else {
        a.alu(Alu::Add, R5, R7);
        a.store(Width::W, R5, at::OFF_FLOWS, R3);
    }
}

/// After a packet has passed: counts the connection, and knows the flow from now on.
pub(super) fn remember(a: &mut Asm, program: Program, counters: i16) {
    if !charges(program) {
        return;
    }
    let done = a.label();
    a.load(Width::Dw, R1, Fp, stack::CONN);
    a.jump_if_imm(If::Eq, R1, OLD, done);
    a.mov_imm(R2, 1);
    a.atomic_add(R7, counters + at::COUNT_CONNS, R2);
    a.jump_if_imm(If::Ne, R1, NEW_FLOW, done);
    a.load(Width::Dw, R1, Fp, stack::SLOT);
    a.alu_imm(Alu::And, R1, MASK);
    a.alu(Alu::Add, R1, R7);
    a.load(Width::Dw, R2, Fp, stack::TAG);
    a.store(Width::W, R1, at::OFF_FLOWS, R2);
    a.bind(done);
}
