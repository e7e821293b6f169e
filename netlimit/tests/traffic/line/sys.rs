//! TAP devices, and other network namespaces.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;

/// A TAP device of this thread's network namespace; frames come and go with a `virtio_net_hdr` before them, so that
/// packets needn't be cut up.
pub fn tap(name: &str) -> io::Result<File> {
    const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
    const TUNSETOFFLOAD: libc::c_ulong = 0x4004_54d0;
    const IFF_TAP: i16 = 0x0002;
    const IFF_NO_PI: i16 = 0x1000;
    const IFF_VNET_HDR: i16 = 0x4000;
    /// Checksums, TSO for IPv4 and IPv6.
    const OFFLOADS: libc::c_ulong = 1 | 2 | 4;
    let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
    let mut request = [0u8; 40];
    request[..name.len()].copy_from_slice(name.as_bytes());
    request[16..18].copy_from_slice(&(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR).to_ne_bytes());
    // SAFETY: `request` is a struct ifreq, live and of its full size.
    if unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, request.as_mut_ptr()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: takes its argument by value.
    if unsafe { libc::ioctl(file.as_raw_fd(), TUNSETOFFLOAD, OFFLOADS) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(file)
}

/// Moves this thread into the network namespace of a process.
pub fn enter_netns(pid: u32) -> io::Result<()> {
    let file = File::open(format!("/proc/{pid}/ns/net"))?;
    // SAFETY: no pointers; this thread alone changes its namespace.
    match unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
