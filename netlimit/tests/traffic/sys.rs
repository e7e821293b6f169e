//! AF_PACKET sockets.

use std::ffi::CString;
use std::io;
use std::net::TcpStream;
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
