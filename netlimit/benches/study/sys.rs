//! System calls that std has no words for.

use std::ffi::c_int;

use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, FromRawFd};

/// A socket for echo requests: the kernel fills in identifier and checksum.
pub fn ping_socket(v6: bool) -> io::Result<UdpSocket> {
    let (family, protocol) =
        if v6 { (libc::AF_INET6, libc::IPPROTO_ICMPV6) } else { (libc::AF_INET, libc::IPPROTO_ICMP) };
    // SAFETY: no pointers.
    let fd = unsafe { libc::socket(family, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, protocol) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else owns; datagrams are sent and received as with UDP.
    Ok(unsafe { UdpSocket::from_raw_fd(fd) })
}

/// A receive buffer beyond the system's limit.
pub fn receive_buffer(socket: &UdpSocket, bytes: c_int) -> io::Result<()> {
    // SAFETY: the value is live and of the size given.
    let r = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVBUFFORCE,
            std::ptr::from_ref(&bytes).cast(),
            size_of::<c_int>() as u32,
        )
    };
    if r < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Has the kernel cut what is sent into datagrams of this size, as late as it can (UDP_SEGMENT).
pub fn segments(socket: &UdpSocket, bytes: c_int) -> io::Result<()> {
    const UDP_SEGMENT: c_int = 103;
    // SAFETY: the value is live and of the size given.
    let r = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_UDP,
            UDP_SEGMENT,
            std::ptr::from_ref(&bytes).cast(),
            size_of::<c_int>() as u32,
        )
    };
    if r < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Nanoseconds of processor time that this thread has had.
pub fn thread_time() -> u64 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `t` is live; the clock exists on every kernel.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut t) };
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

/// Keeps this thread on one processor.
pub fn pin(processor: usize) -> io::Result<()> {
    // SAFETY: an all-zero cpu_set_t is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is live; numbers beyond its end are ignored.
    unsafe { libc::CPU_SET(processor, &mut set) };
    // SAFETY: `set` is live and of the size given.
    match unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
