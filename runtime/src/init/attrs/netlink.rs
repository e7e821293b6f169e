//! As much rtnetlink as it takes to move a device: links and addresses.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{recv, send, socket, AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;

const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_CREATE_EXCL: u16 = 0x600;

const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_FD: u16 = 28;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;

const IFF_UP: u32 = 1;
const IFA_F_PERMANENT: u32 = 0x80;
const RT_SCOPE_UNIVERSE: u8 = 0;

const HEADER: usize = 16;

/// A socket in the network namespace in which it was opened.
pub struct Netlink(OwnedFd);

/// A network device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub up: bool,
}

/// An address of a device, to be given to it again elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    family: u8,
    prefix: u8,
    flags: u32,
    scope: u8,
    index: u32,
    /// IFA_LOCAL, IFA_ADDRESS and IFA_BROADCAST, as far as it has them.
    parts: Vec<(u16, Vec<u8>)>,
}

impl Address {
    /// Set by somebody, and meant for the world: the others belong to the network or the moment.
    pub fn is_permanent_and_global(&self) -> bool {
        self.flags & IFA_F_PERMANENT != 0 && self.scope == RT_SCOPE_UNIVERSE
    }
}

impl Netlink {
    pub fn open() -> Result<Netlink, Errno> {
        let kind = SockType::Raw;
        socket(AddressFamily::Netlink, kind, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute).map(Netlink)
    }

    /// The device of that name; ENODEV if there is none.
    pub fn link(&self, name: &str) -> Result<Link, Errno> {
        let mut request = Request::new(RTM_GETLINK, 0, &ifinfo(0, 0, 0));
        request.attribute(IFLA_IFNAME, &zero_terminated(name));
        let mut found = None;
        self.exchange(request, |kind, body| {
            if kind == RTM_NEWLINK {
                found = u32_at(body, 4).zip(u32_at(body, 8));
            }
        })?;
        let (index, flags) = found.ok_or(Errno::ENODEV)?;
        Ok(Link { index, up: flags & IFF_UP != 0 })
    }

    pub fn set_up(&self, index: u32, up: bool) -> Result<(), Errno> {
        let flags = if up { IFF_UP } else { 0 };
        self.exchange(Request::new(RTM_NEWLINK, NLM_F_ACK, &ifinfo(index, flags, IFF_UP)), |_, _| {})
    }

    /// Moves a device and names it in one step, so that no other name is seen there.
    pub fn move_to(&self, index: u32, namespace: &impl AsRawFd, name: &str) -> Result<(), Errno> {
        let mut request = Request::new(RTM_NEWLINK, NLM_F_ACK, &ifinfo(index, 0, 0));
        request.attribute(IFLA_IFNAME, &zero_terminated(name));
        request.attribute(IFLA_NET_NS_FD, &namespace.as_raw_fd().to_ne_bytes());
        self.exchange(request, |_, _| {})
    }

    /// All addresses of a device.
    pub fn addresses(&self, index: u32) -> Result<Vec<Address>, Errno> {
        let mut found = Vec::new();
        self.exchange(Request::new(RTM_GETADDR, NLM_F_DUMP, &[0; 8]), |kind, body| {
            if kind == RTM_NEWADDR {
                found.extend(address(body).filter(|address| address.index == index));
            }
        })?;
        Ok(found)
    }

    pub fn add_address(&self, index: u32, address: &Address) -> Result<(), Errno> {
        let mut head = vec![address.family, address.prefix, 0, address.scope];
        head.extend_from_slice(&index.to_ne_bytes());
        let mut request = Request::new(RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE_EXCL, &head);
        for (kind, value) in &address.parts {
            request.attribute(*kind, value);
        }
        self.exchange(request, |_, _| {})
    }

    /// Sends a request and hands on the messages of its answer.
    fn exchange(&self, request: Request, mut message: impl FnMut(u16, &[u8])) -> Result<(), Errno> {
        let expects_ack = request.flags & (NLM_F_ACK | NLM_F_DUMP) != 0;
        send(self.0.as_raw_fd(), &request.finish()?, MsgFlags::empty())?;
        // The kernel fits the parts of a dump to the reader's buffer, up to this size.
        let mut buffer = vec![0; 32 * 1024];
        loop {
            let length = match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Err(Errno::EINTR) => continue,
                length => length?,
            };
            let mut rest = &buffer[..length];
            while let Some((kind, body, next)) = split(rest) {
                match kind {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => {
                        return match u32_at(body, 0).map_or(-libc::EBADMSG, |e| e as i32) {
                            0 => Ok(()),
                            error => Err(Errno::from_raw(-error)),
                        }
                    }
                    kind => message(kind, body),
                }
                rest = next;
            }
            if !expects_ack {
                return Ok(());
            }
        }
    }
}

/// A message under construction.
struct Request {
    bytes: Vec<u8>,
    flags: u16,
    /// An attribute was longer than its 16-bit length can say (CVE-2021-43784).
    overflow: bool,
}

impl Request {
    fn new(kind: u16, flags: u16, body: &[u8]) -> Request {
        let flags = flags | NLM_F_REQUEST;
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(body);
        Request { bytes, flags, overflow: false }
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        let Ok(length) = u16::try_from(value.len() + 4) else {
            self.overflow = true;
            return;
        };
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Result<Vec<u8>, Errno> {
        if self.overflow {
            return Err(Errno::EMSGSIZE);
        }
        let length = u32::try_from(self.bytes.len()).map_err(|_| Errno::EMSGSIZE)?;
        self.bytes[..4].copy_from_slice(&length.to_ne_bytes());
        Ok(self.bytes)
    }
}

/// struct ifinfomsg.
fn ifinfo(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut body = [0; 16];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    body[8..12].copy_from_slice(&flags.to_ne_bytes());
    body[12..16].copy_from_slice(&change.to_ne_bytes());
    body
}

fn zero_terminated(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

/// The first message: its type, its body, and what follows.
fn split(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = u32_at(bytes, 0)? as usize;
    let body = bytes.get(HEADER..length)?;
    Some((u16_at(bytes, 4)?, body, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// struct ifaddrmsg and its attributes.
fn address(body: &[u8]) -> Option<Address> {
    let &[family, prefix, flags, scope, ..] = body else { return None };
    let index = u32_at(body, 4)?;
    let mut address = Address { family, prefix, flags: flags.into(), scope, index, parts: Vec::new() };
    let mut rest = body.get(8..)?;
    while let Some(length) = u16_at(rest, 0).map(usize::from) {
        let Some(value) = rest.get(4..length) else { break };
        match u16_at(rest, 2)? {
            IFA_FLAGS => address.flags = u32_at(value, 0)?,
            kind @ (IFA_LOCAL | IFA_ADDRESS | IFA_BROADCAST) => address.parts.push((kind, value.to_vec())),
            _ => {}
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attribute_too_long_is_no_message() {
        let mut request = Request::new(RTM_NEWLINK, 0, &ifinfo(1, 0, 0));
        request.attribute(IFLA_IFNAME, &[0; 65533]);
        assert_eq!(request.finish(), Err(Errno::EMSGSIZE));
    }

    #[test]
    fn cut_off_messages_are_none() {
        assert!(split(&[]).is_none());
        assert!(split(&[40, 0, 0, 0, 1, 0, 0, 0]).is_none());
        assert!(address(&[2, 24, 0x80]).is_none());
        let mut body = vec![2, 24, 0x80, 0, 7, 0, 0, 0];
        body.extend_from_slice(&[200, 0, 2, 0, 1]);
        let cut = address(&body).unwrap();
        assert_eq!((cut.index, cut.parts.len()), (7, 0));
        assert!(cut.is_permanent_and_global());
    }

    #[test]
    fn the_loopback_device() {
        let netlink = Netlink::open().unwrap();
        assert_eq!(netlink.link("lo").unwrap().index, 1);
        assert_eq!(netlink.link("nosuchdev0"), Err(Errno::ENODEV));
        netlink.addresses(1).unwrap();
    }
}
