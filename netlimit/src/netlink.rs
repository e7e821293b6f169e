//! Routing netlink, built by hand: links, namespace ids, TBF, clsact and its filters. rtnetlink's crates have no
//! messages for these qdiscs and bring an async runtime along.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use crate::sys::net;

pub const RTM_GETLINK: u16 = 18;
pub const RTM_NEWQDISC: u16 = 36;
pub const RTM_DELQDISC: u16 = 37;
pub const RTM_GETQDISC: u16 = 38;
pub const RTM_NEWTFILTER: u16 = 44;
pub const RTM_DELTFILTER: u16 = 45;
pub const RTM_GETTFILTER: u16 = 46;
pub const RTM_GETNSID: u16 = 90;

pub const ACK: u16 = 0x04;
pub const DUMP: u16 = 0x300;
pub const REPLACE: u16 = 0x100;
pub const EXCL: u16 = 0x200;
pub const CREATE: u16 = 0x400;

const REQUEST: u16 = 0x01;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const HEADER: usize = 16;
const NESTED: u16 = 0x8000;

/// A request under construction.
pub struct Message(Vec<u8>);

impl Message {
    /// `fixed` is the family's own header.
    pub fn new(kind: u16, flags: u16, fixed: &[u8]) -> Message {
        let mut m = vec![0; HEADER];
        m[4..6].copy_from_slice(&kind.to_ne_bytes());
        m[6..8].copy_from_slice(&(flags | REQUEST).to_ne_bytes());
        m[8..12].copy_from_slice(&1u32.to_ne_bytes());
        m.extend_from_slice(fixed);
        Message(m)
    }

    /// A message about a qdisc or filter: `struct tcmsg`.
    pub fn tc(kind: u16, flags: u16, ifindex: u32, handle: u32, parent: u32, info: u32) -> Message {
        let mut fixed = [0u8; 20];
        for (i, word) in [ifindex, handle, parent, info].into_iter().enumerate() {
            fixed[4 + i * 4..8 + i * 4].copy_from_slice(&word.to_ne_bytes());
        }
        Message::new(kind, flags, &fixed)
    }

    #[must_use]
    pub fn attr(mut self, kind: u16, payload: &[u8]) -> Message {
        self.0.extend_from_slice(&((payload.len() + 4) as u16).to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(payload);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    #[must_use]
    pub fn string(self, kind: u16, text: &str) -> Message {
        self.attr(kind, &[text.as_bytes(), b"\0"].concat())
    }

    #[must_use]
    pub fn nest(mut self, kind: u16, inner: impl FnOnce(Message) -> Message) -> Message {
        let start = self.0.len();
        self.0.extend_from_slice(&[0; 4]);
        let mut m = inner(self);
        let len = (m.0.len() - start) as u16;
        m.0[start..start + 2].copy_from_slice(&len.to_ne_bytes());
        m.0[start + 2..start + 4].copy_from_slice(&(kind | NESTED).to_ne_bytes());
        m
    }
}

/// A socket in the namespace in which it was made.
pub struct Netlink(OwnedFd);

impl Netlink {
    pub fn here() -> io::Result<Netlink> {
        net::netlink().map(Netlink)
    }

    pub fn inside(netns: BorrowedFd<'_>) -> io::Result<Netlink> {
        net::inside(netns, net::netlink).map(Netlink)
    }

    /// Sends a request and returns the payloads of the answers (behind the netlink header).
    pub fn ask(&self, message: Message) -> io::Result<Vec<Vec<u8>>> {
        let mut bytes = message.0;
        let dump = u16::from_ne_bytes([bytes[6], bytes[7]]) & DUMP == DUMP;
        let acked = u16::from_ne_bytes([bytes[6], bytes[7]]) & ACK != 0;
        let len = bytes.len() as u32;
        bytes[0..4].copy_from_slice(&len.to_ne_bytes());
        net::send(self.0.as_fd(), &bytes)?;
        let mut answers = Vec::new();
        let mut buffer = vec![0u8; 32 * 1024];
        loop {
            let n = net::receive(self.0.as_fd(), &mut buffer)?;
            let mut rest = &buffer[..n];
            while rest.len() >= HEADER {
                let len = u32_at(rest, 0) as usize;
                let kind = u16::from_ne_bytes([rest[4], rest[5]]);
                let end = len.clamp(HEADER, rest.len());
                let payload = &rest[HEADER..end];
                match kind {
                    NLMSG_DONE => return Ok(answers),
                    NLMSG_ERROR => {
                        return match u32_at(payload, 0) as i32 {
                            0 => Ok(answers),
                            e => Err(io::Error::from_raw_os_error(-e)),
                        }
                    }
                    _ => answers.push(payload.to_vec()),
                }
                rest = &rest[end.next_multiple_of(4).min(rest.len())..];
            }
            if !dump && !acked && !answers.is_empty() {
                return Ok(answers);
            }
        }
    }
}

pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_ne_bytes)
}

/// The payload of an attribute.
pub fn find(attrs: &[u8], wanted: u16) -> Option<&[u8]> {
    let mut rest = attrs;
    while rest.len() >= 4 {
        let len = (u16::from_ne_bytes([rest[0], rest[1]]) as usize).clamp(4, rest.len());
        if u16::from_ne_bytes([rest[2], rest[3]]) & !NESTED == wanted {
            return Some(&rest[4..len]);
        }
        rest = &rest[len.next_multiple_of(4).min(rest.len())..];
    }
    None
}

/// A zero-terminated attribute.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\0').to_string()
}

/// An interface as its own namespace sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    pub index: u32,
    pub name: String,
    /// `veth`, `macvlan`, ...; empty for hardware.
    pub kind: String,
    /// The other end or the device below, and the id of the namespace it is in if that is another one.
    pub link: Option<u32>,
    pub link_nsid: Option<u32>,
}

pub fn interfaces(socket: &Netlink) -> io::Result<Vec<Interface>> {
    const IFLA_IFNAME: u16 = 3;
    const IFLA_LINK: u16 = 5;
    const IFLA_LINKINFO: u16 = 18;
    const IFLA_LINK_NETNSID: u16 = 37;
    const IFLA_INFO_KIND: u16 = 1;
    const IFLA_EXT_MASK: u16 = 29;
    const SKIP_STATS: u32 = 1 << 3;
    const IFINFOMSG: usize = 16;
    let request =
        Message::new(RTM_GETLINK, DUMP, &[0; IFINFOMSG]).attr(IFLA_EXT_MASK, &SKIP_STATS.to_ne_bytes());
    let answers = socket.ask(request)?;
    let interface = |a: &Vec<u8>| {
        let attrs = a.get(IFINFOMSG..)?;
        let kind = find(attrs, IFLA_LINKINFO).and_then(|i| find(i, IFLA_INFO_KIND));
        Some(Interface {
            index: u32_at(a, 4),
            name: find(attrs, IFLA_IFNAME).map(text).unwrap_or_default(),
            kind: kind.map(text).unwrap_or_default(),
            link: find(attrs, IFLA_LINK).map(|b| u32_at(b, 0)),
            link_nsid: find(attrs, IFLA_LINK_NETNSID).map(|b| u32_at(b, 0)),
        })
    };
    Ok(answers.iter().filter_map(interface).collect())
}

/// The id that the socket's namespace has for another one, if it has any.
pub fn nsid(socket: &Netlink, other: BorrowedFd<'_>) -> io::Result<Option<u32>> {
    const NETNSA_NSID: u16 = 1;
    const NETNSA_FD: u16 = 3;
    let request =
        Message::new(RTM_GETNSID, 0, &[0; 4]).attr(NETNSA_FD, &(other.as_raw_fd() as u32).to_ne_bytes());
    let answers = socket.ask(request)?;
    let id = answers.first().and_then(|a| find(a.get(4..)?, NETNSA_NSID)).map(|b| u32_at(b, 0));
    Ok(id.filter(|id| *id != u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_nested_and_found_again() {
        let m = Message::tc(RTM_NEWQDISC, CREATE, 7, 0, 1, 0)
            .string(1, "tbf")
            .nest(2, |m| m.attr(5, &[9]).attr(6, &8u32.to_ne_bytes()));
        let attrs = &m.0[HEADER + 20..];
        assert_eq!(text(find(attrs, 1).unwrap()), "tbf");
        let nested = find(attrs, 2).unwrap();
        assert_eq!(find(nested, 5).unwrap(), [9]);
        assert_eq!(u32_at(find(nested, 6).unwrap(), 0), 8);
        assert_eq!(find(attrs, 9), None);
        assert_eq!(m.0.len() % 4, 0);
    }
}
