//! Sockets that std has no words for.

use std::ffi::CString;
use std::io;
use std::net::{SocketAddrV6, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

pub struct PacketSocket(OwnedFd);

impl PacketSocket {
    /// Bound to a device; `bypass` sets PACKET_QDISC_BYPASS.
    pub fn open(device: &str, bypass: bool) -> io::Result<PacketSocket> {
        // SAFETY: no pointers.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: new and nobody else's.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let name = CString::new(device)?;
        // SAFETY: an all-zero sockaddr_ll is a valid value of that plain C type.
        let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        to.sll_family = libc::AF_PACKET as u16;
        // SAFETY: the name ends with a NUL.
        to.sll_ifindex = unsafe { libc::if_nametoindex(name.as_ptr()) } as i32;
        let on = i32::from(bypass);
        // SAFETY: both arguments are live and of the sizes given.
        let r = unsafe {
            libc::setsockopt(
                fd.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_QDISC_BYPASS,
                std::ptr::from_ref(&on).cast(),
                size_of::<i32>() as u32,
            ) | libc::bind(
                fd.as_raw_fd(),
                std::ptr::from_ref(&to).cast(),
                size_of::<libc::sockaddr_ll>() as u32,
            )
        };
        if r < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(PacketSocket(fd))
    }

    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        // SAFETY: the buffer is live and of the length given.
        let n = unsafe { libc::send(self.0.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        if n < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

/// Whether the kernel still has a BPF map of this id.
pub fn map_exists(id: u32) -> bool {
    const MAP_GET_FD_BY_ID: i32 = 14;
    let attr = [id, 0, 0];
    // SAFETY: `attr` is live and of the size given.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, MAP_GET_FD_BY_ID, attr.as_ptr(), size_of_val(&attr)) };
    if fd < 0 {
        return false;
    }
    // SAFETY: a new descriptor, nobody else's; it is closed at once.
    drop(unsafe { OwnedFd::from_raw_fd(fd as i32) });
    true
}

/// For whole ICMP messages; the port of an address is without meaning.
pub fn icmp() -> io::Result<UdpSocket> {
    socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP).map(UdpSocket::from)
}

fn socket(domain: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    let fd = unsafe { libc::socket(domain, kind | libc::SOCK_CLOEXEC, protocol) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub fn mark(socket: &UdpSocket) -> io::Result<u32> {
    let (mut mark, mut size) = (0u32, size_of::<u32>() as libc::socklen_t);
    let value = std::ptr::from_mut(&mut mark).cast();
    // SAFETY: the value is live, writable and of the size given.
    let r =
        unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_MARK, value, &mut size) };
    if r < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(mark)
}

/// Connects with `options` bytes (a multiple of 8, up to 256) of destination options between the headers of IPv6 and TCP.
/// Waits for 20 ms.
pub fn connect_behind_options(to: &SocketAddrV6, options: usize) -> io::Result<TcpStream> {
    const SKIPPED_IF_UNKNOWN: u8 = 0x1e;
    let fd = socket(libc::AF_INET6, libc::SOCK_STREAM, 0)?;
    let mut header = vec![0u8; options];
    header[1..4].copy_from_slice(&[(options / 8 - 1) as u8, SKIPPED_IF_UNKNOWN, (options - 4) as u8]);
    let wait = libc::timeval { tv_sec: 0, tv_usec: 20_000 };
    // SAFETY: an all-zero sockaddr_in6 is a valid value of that plain C type.
    let mut address: libc::sockaddr_in6 = unsafe { std::mem::zeroed() };
    address.sin6_family = libc::AF_INET6 as u16;
    address.sin6_port = to.port().to_be();
    address.sin6_addr.s6_addr = to.ip().octets();
    // SAFETY: all arguments are live and of the sizes given.
    let r = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::IPPROTO_IPV6,
            libc::IPV6_DSTOPTS,
            header.as_ptr().cast(),
            options as u32,
        ) | libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_SNDTIMEO,
            std::ptr::from_ref(&wait).cast(),
            size_of_val(&wait) as u32,
        ) | libc::connect(fd.as_raw_fd(), std::ptr::from_ref(&address).cast(), size_of_val(&address) as u32)
    };
    if r < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(TcpStream::from(fd))
}

/// Needs CAP_NET_ADMIN where another one is the default.
pub fn choose_cubic(stream: &TcpStream) -> io::Result<()> {
    const NAME: &[u8] = b"cubic";
    let (name, size) = (NAME.as_ptr().cast(), NAME.len() as libc::socklen_t);
    // SAFETY: the name is live and of the size given.
    match unsafe { libc::setsockopt(stream.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_CONGESTION, name, size) }
    {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
