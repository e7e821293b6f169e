//! The host's devices: tcx where the kernel has it (6.6), clsact before, and the queue.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use crate::error::{Context, Error, Kind, Result};
use crate::netlink::{self as nl, find, text, u32_at, Message, Netlink};
use crate::sys::bpf::{self, At, AttachType};

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

/// Whether programs that use this map are attached by tcx.
pub fn tcx_has(ifindex: u32, way: Way, map_id: u32) -> io::Result<bool> {
    Ok(tcx_ours(ifindex, way, map_id)?.next().is_some())
}

fn tcx_ours(ifindex: u32, way: Way, map_id: u32) -> io::Result<impl Iterator<Item = std::os::fd::OwnedFd>> {
    let ids = bpf::query(At::Device(ifindex), way.tcx())?;
    Ok(ids.into_iter().filter_map(move |id| {
        let prog = bpf::prog_by_id(id).ok()?;
        let (_, map) = bpf::prog_info(prog.as_fd()).ok()?;
        (map == Some(map_id)).then_some(prog)
    }))
}

/// Attaches before everybody else: a program in front of ours that accepts a packet would end the chain.
pub fn tcx_attach(ifindex: u32, way: Way, prog: BorrowedFd<'_>) -> io::Result<()> {
    bpf::attach(At::Device(ifindex), prog, way.tcx(), bpf::BEFORE)
}

pub fn tcx_detach(ifindex: u32, way: Way, map_id: u32) -> io::Result<()> {
    for prog in tcx_ours(ifindex, way, map_id)? {
        bpf::detach(At::Device(ifindex), prog.as_fd(), way.tcx())?;
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

pub fn clsact_attach(socket: &Netlink, ifindex: u32, way: Way, prog: BorrowedFd<'_>) -> io::Result<()> {
    const TCA_BPF_FD: u16 = 6;
    const TCA_BPF_NAME: u16 = 7;
    const TCA_BPF_FLAGS: u16 = 8;
    const DIRECT_ACTION: u32 = 1;
    let filter = |priority: u32| {
        let flags = nl::CREATE | nl::EXCL | nl::ACK;
        Message::tc(nl::RTM_NEWTFILTER, flags, ifindex, 0, way.parent(), priority << 16 | ALL_PROTOCOLS)
            .string(TCA_KIND, "bpf")
            .nest(TCA_OPTIONS, |m| {
                m.attr(TCA_BPF_FD, &(prog.as_raw_fd() as u32).to_ne_bytes())
                    .string(TCA_BPF_NAME, "hydra_net")
                    .attr(TCA_BPF_FLAGS, &DIRECT_ACTION.to_ne_bytes())
            })
    };
    // The first priority, unless somebody has a classifier of another kind there.
    socket.ask(filter(1)).or_else(|_| socket.ask(filter(0))).map(drop)
}

struct Filter {
    handle: u32,
    info: u32,
    map_id: Option<u32>,
}

fn filters(socket: &Netlink, ifindex: u32, way: Way) -> io::Result<Vec<Filter>> {
    const TCA_BPF_ID: u16 = 11;
    const TCMSG: usize = 20;
    let dump = Message::tc(nl::RTM_GETTFILTER, nl::DUMP, ifindex, 0, way.parent(), 0);
    let mut found = Vec::new();
    for a in socket.ask(dump)? {
        let attrs = a.get(TCMSG..).unwrap_or_default();
        let handle = u32_at(&a, 8);
        let id = find(attrs, TCA_OPTIONS).and_then(|o| find(o, TCA_BPF_ID)).map(|b| u32_at(b, 0));
        let map_id = id
            .and_then(|id| bpf::prog_by_id(id).ok())
            .and_then(|prog| bpf::prog_info(prog.as_fd()).ok())
            .and_then(|(_, map)| map);
        if handle != 0 {
            found.push(Filter { handle, info: u32_at(&a, 16), map_id });
        }
    }
    Ok(found)
}

pub fn clsact_has(socket: &Netlink, ifindex: u32, way: Way, map_id: u32) -> io::Result<bool> {
    Ok(filters(socket, ifindex, way)?.iter().any(|f| f.map_id == Some(map_id)))
}

/// Removes our filters, and the qdisc too if it is ours and nobody else uses it.
pub fn clsact_detach(socket: &Netlink, ifindex: u32, map_id: u32, made: bool) -> io::Result<()> {
    let mut others = 0;
    for way in WAYS {
        for f in filters(socket, ifindex, way)? {
            if f.map_id != Some(map_id) {
                others += 1;
                continue;
            }
            let m = Message::tc(nl::RTM_DELTFILTER, nl::ACK, ifindex, f.handle, way.parent(), f.info);
            socket.ask(m.string(TCA_KIND, "bpf"))?;
        }
    }
    if made && others == 0 {
        let m = Message::tc(nl::RTM_DELQDISC, nl::ACK, ifindex, CLSACT_HANDLE, CLSACT_PARENT, 0);
        socket.ask(m)?;
    }
    Ok(())
}

/// The numbers of a TBF that delays at most 25 ms, or 32 packets where those take longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queue {
    /// Bytes per second.
    pub rate: u64,
    pub burst: u32,
    pub limit: u32,
}

impl Queue {
    const PACKET: u64 = 1514;

    pub fn for_rate(rate: u64) -> Queue {
        // 10 ms, so that a timer tick is bridged; 2 packets, so that it works at all.
        let burst = (rate / 100).clamp(2 * Queue::PACKET, 1 << 28);
        let wait = (rate / 40).clamp(32 * Queue::PACKET, 1 << 28);
        Queue { rate, burst: burst as u32, limit: (burst + wait) as u32 }
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
                "net.ingress-mode=queue: the device {ifindex} has a qdisc {kind} already; use `police`, or remove it"
            );
            return Err(Error::new(Kind::Busy, text));
        }
        _ => nl::CREATE | nl::EXCL | nl::ACK,
    };
    // struct tc_tbf_qopt: rate, peakrate (struct tc_ratespec each), limit, buffer, mtu.
    let mut parms = [0u8; 36];
    parms[1] = ETHERNET;
    parms[8..12].copy_from_slice(&u32::try_from(q.rate).unwrap_or(u32::MAX).to_ne_bytes());
    parms[24..28].copy_from_slice(&q.limit.to_ne_bytes());
    let m = Message::tc(nl::RTM_NEWQDISC, flags, ifindex, QUEUE_HANDLE, TC_ROOT, 0)
        .string(TCA_KIND, "tbf")
        .nest(TCA_OPTIONS, |m| {
            let m = m.attr(TCA_TBF_PARMS, &parms).attr(TCA_TBF_BURST, &q.burst.to_ne_bytes());
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
        _ => Error::from(e).context(format!("setting the queue of device {ifindex}")),
    })
}

/// Removes the queue if it is ours.
pub fn queue_remove(socket: &Netlink, ifindex: u32) -> Result<()> {
    if !matches!(root_qdisc(socket, ifindex), Ok(Some((_, QUEUE_HANDLE)))) {
        return Ok(());
    }
    let m = Message::tc(nl::RTM_DELQDISC, nl::ACK, ifindex, QUEUE_HANDLE, TC_ROOT, 0);
    socket.ask(m).map(drop).with_context(|| format!("removing the queue of device {ifindex}"))
}

fn root_qdisc(socket: &Netlink, ifindex: u32) -> Result<Option<(String, u32)>> {
    let dump = Message::tc(nl::RTM_GETQDISC, nl::DUMP, ifindex, 0, 0, 0);
    let answers = socket.ask(dump).with_context(|| format!("asking for the qdiscs of device {ifindex}"))?;
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
    fn the_queue_waits_25_ms_or_32_packets() {
        let q = Queue::for_rate(125_000_000);
        assert_eq!((q.burst, q.limit - q.burst), (1_250_000, 3_125_000));
        let slow = Queue::for_rate(10_000);
        assert_eq!((slow.burst, slow.limit - slow.burst), (3028, 32 * 1514));
    }
}
