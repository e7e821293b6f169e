//! The host's devices: tcx where the kernel has it (6.6), clsact before, and the queue.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use crate::error::{Context, Error, Kind, Result};
use crate::netlink::{self as nl, find, text, u32_at, Message, Netlink};
use crate::sys::bpf::{self, At, AttachType};
use crate::sys::net;

/// Which way packets go, seen from the host's device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Into the host: out of the container, for a veth.
    In,
    Out,
}

impl Way {
    fn tcx(self) -> AttachType {
        match self {
            Way::In => AttachType::TcxIngress,
            Way::Out => AttachType::TcxEgress,
        }
    }

    /// clsact's two places for filters.
    fn parent(self) -> u32 {
        match self {
            Way::In => 0xffff_fff2,
            Way::Out => 0xffff_fff3,
        }
    }
}

pub const WAYS: [Way; 2] = [Way::In, Way::Out];

const CLSACT_HANDLE: u32 = 0xffff_0000;
const CLSACT_PARENT: u32 = 0xffff_fff1;
const TC_ROOT: u32 = 0xffff_ffff;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
/// Our TBF, "HY": nobody hands out this major by default.
const QUEUE_HANDLE: u32 = 0x4859_0000;
/// ETH_P_ALL in network order.
const ALL_PROTOCOLS: u32 = 0x0300;

/// A program of ours on a device.
pub struct Attached {
    pub prog: OwnedFd,
    pub name: String,
    /// Of a clsact filter: its handle, and its priority and protocol.
    filter: (u32, u32),
}

/// The programs that use this map and are attached by tcx.
pub fn tcx_ours(ifindex: u32, way: Way, map_id: u32) -> io::Result<Vec<Attached>> {
    let ids = bpf::query(At::Device(ifindex), way.tcx())?;
    Ok(ids.into_iter().filter_map(|id| of_map(id, map_id, (0, 0))).collect())
}

fn of_map(id: u32, map_id: u32, filter: (u32, u32)) -> Option<Attached> {
    // It may be gone in between.
    let prog = bpf::prog_by_id(id).ok()?;
    let (name, map) = bpf::prog_info(prog.as_fd()).ok()?;
    (map == Some(map_id)).then_some(Attached { prog, name, filter })
}

/// In front of all others, or in the place of `old`.
pub fn tcx_attach(ifindex: u32, way: Way, prog: BorrowedFd<'_>, old: Option<&Attached>) -> io::Result<()> {
    bpf::attach(At::Device(ifindex), prog, way.tcx(), bpf::BEFORE, old.map(|o| o.prog.as_fd()))
}

pub fn tcx_detach(ifindex: u32, way: Way, map_id: u32) -> io::Result<()> {
    for ours in tcx_ours(ifindex, way, map_id)? {
        bpf::detach(At::Device(ifindex), ours.prog.as_fd(), way.tcx())?;
    }
    Ok(())
}

/// Whether this errno says that there is no tcx in this kernel.
pub fn lacks_tcx(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP))
}

/// Makes a clsact qdisc; false if there was one.
pub fn clsact_make(socket: &Netlink, ifindex: u32) -> io::Result<bool> {
    let flags = nl::CREATE | nl::EXCL | nl::ACK;
    let m = Message::tc(nl::RTM_NEWQDISC, flags, ifindex, CLSACT_HANDLE, CLSACT_PARENT, 0);
    match socket.ask(m.string(TCA_KIND, "clsact")) {
        Ok(_) => Ok(true),
        Err(e) if e.raw_os_error() == Some(libc::EEXIST) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Before all other filters, or in the place of `old`.
pub fn clsact_attach(
    socket: &Netlink,
    ifindex: u32,
    way: Way,
    prog: BorrowedFd<'_>,
    old: Option<&Attached>,
) -> io::Result<()> {
    const TCA_BPF_FD: u16 = 6;
    const TCA_BPF_NAME: u16 = 7;
    const TCA_BPF_FLAGS: u16 = 8;
    const DIRECT_ACTION: u32 = 1;
    let filter = |flags: u16, handle: u32, info: u32| {
        Message::tc(nl::RTM_NEWTFILTER, flags | nl::ACK, ifindex, handle, way.parent(), info)
            .string(TCA_KIND, "bpf")
            .nest(TCA_OPTIONS, |m| {
                m.attr(TCA_BPF_FD, &(prog.as_raw_fd() as u32).to_ne_bytes())
                    .string(TCA_BPF_NAME, "hydra_net")
                    .attr(TCA_BPF_FLAGS, &DIRECT_ACTION.to_ne_bytes())
            })
    };
    if let Some(Attached { filter: (handle, info), .. }) = old {
        return socket.ask(filter(nl::REPLACE, *handle, *info)).map(drop);
    }
    let new = |priority: u32| filter(nl::CREATE | nl::EXCL, 0, priority << 16 | ALL_PROTOCOLS);
    // The first priority, unless somebody has a classifier of another kind there.
    socket.ask(new(1)).or_else(|_| socket.ask(new(0))).map(drop)
}

/// All BPF filters, as handle, priority and protocol, and program.
fn filters(socket: &Netlink, ifindex: u32, way: Way) -> io::Result<Vec<(u32, u32, Option<u32>)>> {
    const TCA_BPF_ID: u16 = 11;
    const TCMSG: usize = 20;
    let dump = Message::tc(nl::RTM_GETTFILTER, nl::DUMP, ifindex, 0, way.parent(), 0);
    let answers = socket.ask(dump)?;
    let filter = |a: &Vec<u8>| {
        let options = find(a.get(TCMSG..).unwrap_or_default(), TCA_OPTIONS);
        let id = options.and_then(|o| find(o, TCA_BPF_ID)).map(|b| u32_at(b, 0));
        (u32_at(a, 8), u32_at(a, 16), id)
    };
    Ok(answers.iter().map(filter).filter(|(handle, ..)| *handle != 0).collect())
}

pub fn clsact_ours(socket: &Netlink, ifindex: u32, way: Way, map_id: u32) -> io::Result<Vec<Attached>> {
    let all = filters(socket, ifindex, way)?.into_iter();
    Ok(all.filter_map(|(handle, info, id)| of_map(id?, map_id, (handle, info))).collect())
}

/// Removes our filters, and the qdisc too if it is ours and nobody else uses it.
pub fn clsact_detach(socket: &Netlink, ifindex: u32, map_id: u32, made: bool) -> io::Result<()> {
    let mut left = 0;
    for way in WAYS {
        let ours = clsact_ours(socket, ifindex, way, map_id)?;
        left += filters(socket, ifindex, way)?.len() - ours.len();
        for Attached { filter: (handle, info), .. } in ours {
            let m = Message::tc(nl::RTM_DELTFILTER, nl::ACK, ifindex, handle, way.parent(), info);
            socket.ask(m.string(TCA_KIND, "bpf"))?;
        }
    }
    if made && left == 0 {
        let m = Message::tc(nl::RTM_DELQDISC, nl::ACK, ifindex, CLSACT_HANDLE, CLSACT_PARENT, 0);
        socket.ask(m)?;
    }
    Ok(())
}

/// The numbers of a TBF that delays at most 62.5 ms, or 32 packets where those take longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queue {
    /// Bytes per second.
    pub rate: u64,
    pub burst: u64,
    /// What may wait.
    pub wait: u64,
}

impl Queue {
    const PACKET: u64 = 1514;
    /// Beyond what the program before the queue lets through: it turns away what the queue has no room for, so that
    /// it isn't the queue that chooses, by chance.
    const SPARE: u64 = 2 * 65536;

    /// `burst` in bytes, if one is asked for; else 10 ms, so that a timer tick is bridged.
    pub fn new(rate: u64, burst: Option<u64>) -> Queue {
        // Two packets, so that it works at all.
        let burst = burst.unwrap_or(rate / 100).clamp(2 * Queue::PACKET, 1 << 28);
        Queue { rate, burst, wait: (rate / 16).clamp(32 * Queue::PACKET, 1 << 28) }
    }
}

/// Sets our queue on a device, or changes it without losing what waits in it.
pub fn queue_set(socket: &Netlink, ifindex: u32, q: Queue) -> Result<()> {
    const TCA_TBF_PARMS: u16 = 1;
    const TCA_TBF_RATE64: u16 = 4;
    const TCA_TBF_BURST: u16 = 6;
    const ETHERNET: u8 = 1;
    let flags = match root_qdisc(socket, ifindex)? {
        Some((_, QUEUE_HANDLE)) => nl::REPLACE | nl::ACK,
        Some((kind, handle)) if handle != 0 => {
            let text = format!(
                "net.ingress-mode=queue: it has a qdisc {kind} already; use `police`, or remove that (tc qdisc show dev {})",
                net::ifname(ifindex)
            );
            return Err(Error::new(Kind::Busy, text));
        }
        _ => nl::CREATE | nl::EXCL | nl::ACK,
    };
    // struct tc_tbf_qopt: rate, peakrate (struct tc_ratespec each), limit, buffer, mtu.
    let mut parms = [0u8; 36];
    parms[1] = ETHERNET;
    parms[8..12].copy_from_slice(&u32::try_from(q.rate).unwrap_or(u32::MAX).to_ne_bytes());
    parms[24..28].copy_from_slice(&((q.burst + q.wait + Queue::SPARE) as u32).to_ne_bytes());
    let m = Message::tc(nl::RTM_NEWQDISC, flags, ifindex, QUEUE_HANDLE, TC_ROOT, 0)
        .string(TCA_KIND, "tbf")
        .nest(TCA_OPTIONS, |m| {
            let m = m.attr(TCA_TBF_PARMS, &parms).attr(TCA_TBF_BURST, &(q.burst as u32).to_ne_bytes());
            if q.rate > u64::from(u32::MAX) {
                m.attr(TCA_TBF_RATE64, &q.rate.to_ne_bytes())
            } else {
                m
            }
        });
    socket.ask(m).map(drop).map_err(|e| match e.raw_os_error() {
        Some(libc::ENOENT | libc::EOPNOTSUPP) => {
            Error::unsupported("net.ingress-mode=queue: this kernel has no sch_tbf; use `police`")
        }
        _ => Error::from(e).context("setting the queue"),
    })
}

/// Removes the queue if it is ours.
pub fn queue_remove(socket: &Netlink, ifindex: u32) -> Result<()> {
    if !matches!(root_qdisc(socket, ifindex), Ok(Some((_, QUEUE_HANDLE)))) {
        return Ok(());
    }
    let m = Message::tc(nl::RTM_DELQDISC, nl::ACK, ifindex, QUEUE_HANDLE, TC_ROOT, 0);
    socket.ask(m).map(drop).with_context(|| format!("removing the queue of device {}", net::ifname(ifindex)))
}

fn root_qdisc(socket: &Netlink, ifindex: u32) -> Result<Option<(String, u32)>> {
    let dump = Message::tc(nl::RTM_GETQDISC, nl::DUMP, ifindex, 0, 0, 0);
    let answers = socket
        .ask(dump)
        .with_context(|| format!("asking for the qdiscs of device {}", net::ifname(ifindex)))?;
    // The dump is of all devices.
    let root = answers.iter().find(|a| u32_at(a, 4) == ifindex && u32_at(a, 12) == TC_ROOT);
    Ok(root.map(|a| {
        let kind = a.get(20..).and_then(|attrs| find(attrs, TCA_KIND)).map(text).unwrap_or_default();
        (kind, u32_at(a, 8))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queue_waits_a_sixteenth_of_a_second_or_32_packets() {
        let q = Queue::new(125_000_000, None);
        assert_eq!((q.burst, q.wait), (1_250_000, 7_812_500));
        let slow = Queue::new(10_000, None);
        assert_eq!((slow.burst, slow.wait), (3028, 32 * 1514));
        assert_eq!(Queue::new(125_000_000, Some(9000)).burst, 9000);
    }
}
