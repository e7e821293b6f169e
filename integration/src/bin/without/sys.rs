//! System calls that no crate has a safe word for.

use super::{Call, Use};
use libc::{sock_filter, sock_fprog, BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W};
use nix::errno::Errno;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

/// Installs a filter that answers these calls with ENOSYS, for this process and its offspring.
pub fn forbid(numbers: &[u32]) -> nix::Result<()> {
    install(&matching(NUMBER, numbers, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32), 0).map(drop)
}

/// Installs a filter that answers these requests of ioctl with ENOTTY.
pub fn forbid_requests(requests: &[u32]) -> nix::Result<()> {
    let mut program = matching(REQUEST, requests, libc::SECCOMP_RET_ERRNO | libc::ENOTTY as u32);
    // Calls other than ioctl go past all of it, to the verdict that allows them, the last but one.
    let past = program.len() as u8 - 2;
    program.splice(0..0, [op(LOAD, 0, 0, NUMBER), op(SAME, 0, past, libc::SYS_ioctl as u32)]);
    install(&program, 0).map(drop)
}

/// Installs a filter that asks who holds the listener over these calls, for this thread and what it starts.
pub fn ask(mut numbers: Vec<u32>) -> nix::Result<Option<OwnedFd>> {
    if numbers.is_empty() {
        return Ok(None);
    }
    numbers.sort_unstable();
    numbers.dedup();
    let listener = install(
        &matching(NUMBER, &numbers, libc::SECCOMP_RET_USER_NOTIF),
        libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
    )?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(listener) }))
}

/// Where a filter sees the number of the call, and (its lower half) the second argument.
const NUMBER: u32 = 0;
const REQUEST: u32 = 24;
const LOAD: u32 = BPF_LD | BPF_W | BPF_ABS;
const SAME: u32 = BPF_JMP | BPF_JEQ | BPF_K;

fn op(code: u32, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt, jf, k }
}

/// Gives `verdict` where the word at `place` is one of `values`; all else is allowed.
fn matching(place: u32, values: &[u32], verdict: u32) -> Vec<sock_filter> {
    let mut program = vec![op(LOAD, 0, 0, place)];
    program.extend(values.iter().enumerate().map(|(i, v)| op(SAME, (values.len() - i) as u8, 0, *v)));
    program.push(op(BPF_RET | BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW));
    program.push(op(BPF_RET | BPF_K, 0, 0, verdict));
    program
}

fn install(program: &[sock_filter], flags: libc::c_ulong) -> nix::Result<RawFd> {
    let filter = sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
    // SAFETY: `filter` points to `program`, which lives until the call is over; the kernel copies it. Root needs no
    // no-new-privileges for this, which would change what the program under test may do.
    let r = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &filter) };
    Errno::result(r).map(|fd| fd as RawFd)
}

/// Lets every call go on that no use refuses, until nobody is left who could make one: who outlives the program
/// would get ENOSYS for each.
pub fn answer(listener: OwnedFd, uses: &[&Use]) {
    const RECEIVE: libc::c_ulong = 0xc050_2100; // SECCOMP_IOCTL_NOTIF_RECV
    const SEND: libc::c_ulong = 0xc018_2101; // SECCOMP_IOCTL_NOTIF_SEND
    loop {
        let mut ready = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        match poll(&mut ready, PollTimeout::NONE) {
            Ok(_) if ready[0].revents().is_some_and(|r| r.contains(PollFlags::POLLIN)) => {}
            Ok(_) => return,
            Err(_) => continue,
        }
        let listener = listener.as_raw_fd();
        // SAFETY: zeros are a valid seccomp_notif, and what the kernel demands to get.
        let mut asked: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: the request wants a seccomp_notif that lives for the call.
        if unsafe { libc::ioctl(listener, RECEIVE as _, &mut asked) } < 0 {
            match Errno::last() {
                Errno::ENOENT | Errno::EINTR => continue, // who asked was killed meanwhile
                _ => return,
            }
        }
        let call = Call { pid: asked.pid, number: asked.data.nr.into(), args: asked.data.args };
        let mut asks = uses.iter().filter(|u| u.calls.contains(&call.number));
        let refused = asks.find_map(|u| (u.refuse)(&call));
        let flags = if refused.is_some() { 0 } else { libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32 };
        let error = refused.map_or(0, |e| -(e as i32));
        let mut reply = libc::seccomp_notif_resp { id: asked.id, val: 0, error, flags };
        // SAFETY: the request wants a seccomp_notif_resp that lives for the call. Who asked may be gone.
        unsafe { libc::ioctl(listener, SEND as _, &mut reply) };
    }
}
