//! The process connector: how processes end that are nobody's children here, for kernels whose pidfds don't tell (before
//! Linux 6.15). It speaks to root in the host's own pid, user and network namespaces alone.

use super::{ended, Change, Fd};
use nix::errno::Errno;
use nix::Result;

/// linux/connector.h and linux/cn_proc.h, which libc lacks: the connector's index and value for news of processes, the word that
/// asks for them, and the kind of news that an end is.
const CN_IDX_PROC: u32 = 1;
const CN_VAL_PROC: u32 = 1;
const PROC_CN_MCAST_LISTEN: u32 = 1;
const PROC_EVENT_EXIT: u32 = 0x8000_0000;
/// Where in a message things are: after nlmsghdr (16) and cn_msg (20) comes struct proc_event.
const WHAT: usize = 36;
const TGID: usize = 56;
const CODE: usize = 60;
/// No more processes than a filter's jumps reach over.
const MOST: usize = 200;

/// Listens for the ends of these processes alone: a filter in the kernel drops all other news, so nobody is woken for them.
pub fn listen(pids: &[u32]) -> Result<Fd> {
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: plain numbers.
    let fd = Fd(Errno::result(unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_CONNECTOR) })?);
    let asked = filter(fd, &pids[..pids.len().min(MOST)]).and_then(|()| join(fd)).and_then(|()| ask(fd));
    asked.map(|()| fd).inspect_err(|_| fd.close())
}

fn filter(fd: Fd, pids: &[u32]) -> Result<()> {
    let op = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
    let load = |at: usize| op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, at as u32);
    // Filters read as the network writes, the kernel wrote as this machine does.
    let same =
        |value: u32, jt: u8, jf: u8| op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, jt, jf, value.to_be());
    let answer = |k: u32| op(libc::BPF_RET | libc::BPF_K, 0, 0, k);
    let n = pids.len();
    let mut program = vec![load(WHAT), same(PROC_EVENT_EXIT, 0, n as u8 + 1), load(TGID)];
    program.extend(pids.iter().enumerate().map(|(i, pid)| same(*pid, (n - i) as u8, 0)));
    program.extend([answer(0), answer(u32::MAX)]);
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    let (size, filter) = (size_of_val(&filter) as u32, std::ptr::from_ref(&filter));
    // SAFETY: `filter` points to `program`, and both live until the call is over; the kernel copies them.
    Errno::result(unsafe {
        libc::setsockopt(fd.0, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, filter.cast(), size)
    })
    .map(drop)
}

fn join(fd: Fd) -> Result<()> {
    // SAFETY: sockaddr_nl is plain data for which zero is a valid value.
    let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
    address.nl_family = libc::AF_NETLINK as u16;
    address.nl_groups = CN_IDX_PROC;
    let size = size_of_val(&address) as u32;
    // SAFETY: the address lives for the call and has this size.
    Errno::result(unsafe { libc::bind(fd.0, std::ptr::from_ref(&address).cast(), size) }).map(drop)
}

fn ask(fd: Fd) -> Result<()> {
    // struct nlmsghdr, struct cn_msg, and the one word.
    let length = 40u32;
    let kind = libc::NLMSG_DONE as u32;
    let words = [length, kind, 0, 0, CN_IDX_PROC, CN_VAL_PROC, 0, 0, 4, PROC_CN_MCAST_LISTEN];
    let message: Vec<u8> = words.iter().flat_map(|w| w.to_ne_bytes()).collect();
    super::write(fd, &message).map(drop)
}

/// What was told since the last time. Each thread of a process has an end, with the process's status if that ended as a whole:
/// the last one counts.
pub fn heard(fd: Fd) -> Vec<Change> {
    let mut all = Vec::new();
    let mut message = [0; 256];
    loop {
        match super::read(fd, &mut message) {
            Ok(n) if n >= CODE + 4 => {
                let word = |at: usize| i32::from_ne_bytes(std::array::from_fn(|i| message[at + i]));
                all.push(ended(word(TGID), word(CODE)));
            }
            // News were dropped for want of room: what is there still counts.
            Ok(_) | Err(Errno::ENOBUFS | Errno::EINTR) => {}
            Err(_) => return all,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn the_ends_of_these_processes_and_no_others() {
        let sleep = |code: i32| {
            Command::new("sh")
                .args(["-c", &format!("read x; exit {code}")])
                .stdin(std::process::Stdio::piped())
                .spawn()
                .unwrap()
        };
        let (mut one, mut two, mut other) = (sleep(3), sleep(4), sleep(5));
        let Ok(fd) = listen(&[one.id(), two.id()]) else {
            return println!("SKIP the process connector is not to be had here");
        };
        for child in [&mut other, &mut two, &mut one] {
            drop(child.stdin.take());
            child.wait().unwrap();
        }
        let mut seen: Vec<(u32, u32)> = heard(fd).iter().map(|c| (c.pid as u32, c.code)).collect();
        seen.sort_by_key(|s| s.1);
        assert_eq!(seen, [(one.id(), 3), (two.id(), 4)]);
        fd.close();
    }
}
