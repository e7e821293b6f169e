//! What happens to a socket: its tags when it is made, the pace of TCP's connections.

use super::asm::{Alu, Asm, If, Reg, Width};
use super::flow;
use super::layout::{self as at, bucket, Side, What};
use super::program::{stack, KTIME_GET_NS};
use crate::gcra;

use Reg::{Fp, R0, R1, R2, R3, R4, R5, R6, R7, R8, R9};

/// Helper numbers of include/uapi/linux/bpf.h.
const SETSOCKOPT: i32 = 49;
const GETSOCKOPT: i32 = 57;
const SOCK_OPS_CB_FLAGS_SET: i32 = 59;

/// `struct bpf_sock` as BPF_CGROUP_INET_SOCK_CREATE may write it.
pub(super) fn socket_tags(a: &mut Asm) {
    const MARK: i16 = 16;
    const PRIORITY: i16 = 20;
    for (word, field) in [(at::OFF_MARK, MARK), (at::OFF_PRIORITY, PRIORITY)] {
        let none = a.label();
        a.load(Width::Dw, R1, R7, word);
        a.jump_if_imm(If::Eq, R1, 0, none);
        a.store(Width::W, R6, field, R1);
        a.bind(none);
    }
    a.exit(1);
}

/// A packet of 64 KB a tenth of a second: TCP on a short path makes such packets whatever the rate, and waits after each
/// for as long as it takes at the rate of that moment.
pub(crate) const LEAST_PACE: i32 = 655_360;
/// BPF_SOCK_OPS_RTT_CB_FLAG.
const WANT_ROUND_TRIPS: i32 = 1 << 3;
/// TCP_BPF_SOCK_OPS_CB_FLAGS, an option of TCP's that the kernel has for programs alone, from Linux 6.12 on.
pub(crate) const CALLBACK_FLAGS: i32 = 1008;

/// At setsockopt(): whoever asks for that option gets [`pace`] called for his connection from now on. It is refused (EPERM)
/// where the kernel doesn't know how; of a socket that belongs to no cgroup of ours the kernel itself says ENOPROTOOPT.
pub(super) fn adopt(a: &mut Asm) {
    /// `struct bpf_sockopt`.
    const SK: i16 = 0;
    const LEVEL: i16 = 24;
    const OPTNAME: i16 = 28;
    const OPTLEN: i16 = 32;
    const PAGE: i32 = 4096;
    let (others, refused, end) = (a.label(), a.label(), a.label());
    a.load(Width::W, R1, R6, LEVEL);
    a.jump_if_imm(If::Ne, R1, flow::TCP, others);
    a.load(Width::W, R1, R6, OPTNAME);
    a.jump_if_imm(If::Ne, R1, CALLBACK_FLAGS, others);
    for helper in [GETSOCKOPT, SETSOCKOPT] {
        a.load(Width::Dw, R1, R6, SK);
        a.mov_imm(R2, flow::TCP);
        a.mov_imm(R3, CALLBACK_FLAGS);
        a.mov(R4, Fp);
        a.alu_imm(Alu::Add, R4, i32::from(stack::NOW));
        a.mov_imm(R5, 4);
        a.call(helper);
        a.jump_if_imm(If::Ne, R0, 0, refused);
        if helper == GETSOCKOPT {
            // Others may want callbacks of their own.
            a.load(Width::W, R1, Fp, stack::NOW);
            a.alu_imm(Alu::Or, R1, WANT_ROUND_TRIPS);
            a.store(Width::W, Fp, stack::NOW, R1);
        }
    }
    // Done: not to be passed on to the kernel.
    a.mov_imm(R1, -1);
    a.store(Width::W, R6, OPTLEN, R1);
    a.exit(1);
    a.bind(refused);
    a.exit(0);
    a.bind(others);
    // More than a page isn't shown to programs, and the kernel wants to hear that none was looked at.
    a.load(Width::W, R1, R6, OPTLEN);
    a.jump_if_imm(If::Le, R1, PAGE, end);
    a.mov_imm(R1, 0);
    a.store(Width::W, R6, OPTLEN, R1);
    a.bind(end);
    a.exit(1);
}

/// Asks TCP to send at a rate that follows how full the bucket is: the limit when it is half full, twice as much with every
/// sixteenth more and half as much with every sixteenth less. So one flow gets the limit, several share it, and the bucket
/// is hardly ever empty. An empty one costs dear: TCP that has nothing under way tries again after 200 ms, and so
/// sends in bursts.
///
/// Called when a connection is established, and from then on with every round trip that TCP measures.
pub(super) fn pace(a: &mut Asm) {
    /// `struct bpf_sock_ops`, its callbacks and their flag.
    const OP: i16 = 0;
    const FLAGS: i16 = 84;
    const ACTIVE_ESTABLISHED: i32 = 4;
    const PASSIVE_ESTABLISHED: i32 = 5;
    const ROUND_TRIP: i32 = 12;
    const SOL_SOCKET: i32 = 1;
    const SO_MAX_PACING_RATE: i32 = 47;
    let (begin, follow, ahead, some, enough, set, end) =
        (a.label(), a.label(), a.label(), a.label(), a.label(), a.label(), a.label());
    let bytes = bucket(Side::Egress, What::Bytes);
    a.load(Width::W, R1, R6, OP);
    a.jump_if_imm(If::Eq, R1, ROUND_TRIP, follow);
    a.jump_if_imm(If::Eq, R1, ACTIVE_ESTABLISHED, begin);
    a.jump_if_imm(If::Ne, R1, PASSIVE_ESTABLISHED, end);
    a.bind(begin);
    a.load(Width::W, R2, R6, FLAGS);
    a.alu_imm(Alu::Or, R2, WANT_ROUND_TRIPS);
    a.mov(R1, R6);
    a.call(SOCK_OPS_CB_FLAGS_SET);
    a.bind(follow);
    // No limit any more.
    a.load_imm64(R8, u64::from(u32::MAX));
    a.load(Width::Dw, R9, R7, bytes + at::BUCKET_ASKED_RATE);
    a.jump_if_imm(If::Eq, R9, 0, set);
    a.call(KTIME_GET_NS);
    a.alu_imm(Alu::Lsh, R0, gcra::UNITS_PER_NS.trailing_zeros() as i32);
    // R2 = what is left in the bucket, of R1.
    a.load(Width::Dw, R1, R7, bytes + at::BUCKET_BULK);
    a.load(Width::Dw, R3, R7, bytes + at::BUCKET_TAT);
    a.mov(R2, R1);
    a.jump_if(If::Le, R3, R0, some);
    a.alu(Alu::Sub, R3, R0);
    a.mov_imm(R2, 0);
    a.jump_if(If::Ge, R3, R1, some);
    a.mov(R2, R1);
    a.alu(Alu::Sub, R2, R3);
    a.bind(some);
    // R2 = the same in 4096ths.
    a.alu_imm(Alu::Rsh, R1, 12);
    a.jump_if_imm(If::Ne, R1, 0, ahead);
    a.mov_imm(R1, 1);
    a.bind(ahead);
    a.alu(Alu::Div, R2, R1);
    a.mov(R3, R2);
    a.alu_imm(Alu::And, R3, 255);
    a.alu_imm(Alu::Add, R3, 256);
    a.alu(Alu::Mul, R9, R3);
    a.alu_imm(Alu::Rsh, R9, 8);
    a.alu_imm(Alu::Rsh, R2, 8);
    a.alu_imm(Alu::And, R2, 31);
    a.alu(Alu::Lsh, R9, R2);
    a.alu_imm(Alu::Rsh, R9, 8);
    a.jump_if_imm(If::Ge, R9, LEAST_PACE, enough);
    a.mov_imm(R9, LEAST_PACE);
    a.bind(enough);
    a.jump_if(If::Ge, R9, R8, set);
    a.mov(R8, R9);
    a.bind(set);
    a.store(Width::W, Fp, stack::TRANSPORT, R8);
    a.mov(R1, R6);
    a.mov_imm(R2, SOL_SOCKET);
    a.mov_imm(R3, SO_MAX_PACING_RATE);
    a.mov(R4, Fp);
    a.alu_imm(Alu::Add, R4, i32::from(stack::TRANSPORT));
    a.mov_imm(R5, 4);
    a.call(SETSOCKOPT);
    a.bind(end);
    a.exit(1);
}
