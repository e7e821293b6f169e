//! `without GROUP[,GROUP]... PROGRAM ARGS...`: runs a program, and all that it starts, as if the kernel did not have what
//! a group names: its system calls come back with ENOSYS, or with what older kernels say to that use of them. `all` stands
//! for every group, `without groups` lists them. It shows what becomes of a program on older kernels; `docs/kernel-features.md` says what should.

use nix::errno::Errno;
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::{Command, ExitCode};
use std::sync::mpsc;

/// Groups of system calls that came together, with their numbers on x86-64 (from 424 on they are the same everywhere).
const CALLS: &[(&str, &[u32])] = &[
    ("pidfd", &[424, 434, 438]), // pidfd_send_signal 5.1, pidfd_open 5.3, pidfd_getfd 5.6
    ("open_tree", &[428, 467]),  // open_tree 5.2, open_tree_attr 6.15
    ("move_mount", &[429]),      // 5.2
    ("fsopen", &[430, 431, 432, 433]), // fsopen, fsconfig, fsmount, fspick 5.2
    ("clone3", &[435]),          // 5.3
    ("close_range", &[436]),     // 5.9
    ("openat2", &[437]),         // 5.6
    ("faccessat2", &[439]),      // 5.8
    ("mount_setattr", &[442, 467]), // mount_setattr 5.12, open_tree_attr 6.15
];

/// Requests of ioctl, by their numbers: no file knows them.
const REQUESTS: &[(&str, u32)] = &[("pidfd_info", libc::PIDFD_GET_INFO as u32)]; // 6.13, with the exit status 6.15

/// Groups that are no call of their own but a use of one. Who makes such a call waits until it has been looked at.
const USES: &[Use] = &[
    Use { group: "cgroup.kill", calls: &[libc::SYS_openat, libc::SYS_openat2], refuse: opens_cgroup_kill }, // 5.14
    Use { group: "clone_into_cgroup", calls: &[libc::SYS_clone3], refuse: clones_into_cgroup }, // 5.7
    Use { group: "setns_pidfd", calls: &[libc::SYS_setns], refuse: enters_by_pidfd },           // 5.8
];

struct Use {
    group: &'static str,
    calls: &'static [libc::c_long],
    /// The error that an older kernel would give.
    refuse: fn(&Call) -> Option<Errno>,
}

/// A system call that somebody is about to make.
struct Call {
    pid: u32,
    number: libc::c_long,
    args: [u64; 6],
}

impl Call {
    /// What lies at an address of the caller's memory; less than asked for where that ends.
    fn memory(&self, address: u64, size: usize) -> Vec<u8> {
        let mut bytes = vec![0; size];
        let memory = File::open(format!("/proc/{}/mem", self.pid));
        let read = memory.and_then(|m| m.read_at(&mut bytes, address)).unwrap_or(0);
        bytes.truncate(read);
        bytes
    }
}

fn opens_cgroup_kill(call: &Call) -> Option<Errno> {
    let path = call.memory(call.args[1], 512);
    let path = path.split(|byte| *byte == 0).next()?;
    (path.rsplit(|byte| *byte == b'/').next()? == b"cgroup.kill").then_some(Errno::ENOENT)
}

fn clones_into_cgroup(call: &Call) -> Option<Errno> {
    let flags = u64::from_ne_bytes(call.memory(call.args[0], 8).try_into().ok()?);
    // The descriptor lies where those kernels expect zeros.
    (flags & 0x2_0000_0000 != 0).then_some(Errno::E2BIG)
}

fn enters_by_pidfd(call: &Call) -> Option<Errno> {
    let link = std::fs::read_link(format!("/proc/{}/fd/{}", call.pid, call.args[0])).ok()?;
    link.to_string_lossy().contains("pidfd").then_some(Errno::EINVAL)
}

const USAGE: &str = "without GROUP[,GROUP]... PROGRAM ARGS..., or: without groups";

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let named = args.next().and_then(|n| n.into_string().ok()).expect(USAGE);
    let all =
        || CALLS.iter().map(|c| c.0).chain(REQUESTS.iter().map(|r| r.0)).chain(USES.iter().map(|u| u.group));
    if named == "groups" {
        all().for_each(|group| println!("{group}"));
        return ExitCode::SUCCESS;
    }
    let program: OsString = args.next().expect(USAGE);
    let groups: Vec<&str> = if named == "all" { all().collect() } else { named.split(',').collect() };
    if let Some(unknown) = groups.iter().find(|g| !all().any(|known| known == **g)) {
        panic!("no group named {unknown:?}; there are: {}", all().collect::<Vec<_>>().join(" "));
    }
    let calls = CALLS.iter().filter(|c| groups.contains(&c.0)).flat_map(|c| c.1).copied().collect::<Vec<_>>();
    let requests = REQUESTS.iter().filter(|r| groups.contains(&r.0)).map(|r| r.1).collect::<Vec<_>>();
    let uses = USES.iter().filter(|u| groups.contains(&u.group)).collect::<Vec<_>>();
    let mut command = Command::new(&program);
    // So that a test knows what can't be had, and asks how that is said.
    command.args(args).env("WITHOUT", groups.join(","));
    let asked: Vec<u32> = uses.iter().flat_map(|u| u.calls).map(|number| *number as u32).collect();
    let (send, receive) = mpsc::channel();
    // Filters hold for a thread and what it starts. This one goes on without, to answer.
    let run = std::thread::spawn(move || {
        let installed =
            sys::forbid(&calls).and_then(|()| sys::forbid_requests(&requests)).and_then(|()| sys::ask(asked));
        send.send(installed.unwrap_or_else(|e| panic!("the filter can't be installed: {e}")))
            .expect("the other thread");
        command.status().unwrap_or_else(|e| panic!("{program:?}: {e}"))
    });
    if let Ok(Some(listener)) = receive.recv() {
        sys::answer(listener, &uses);
    }
    let status = run.join().expect("the program was started");
    status.code().map_or(ExitCode::FAILURE, |code| ExitCode::from(code as u8))
}

#[allow(unsafe_code)]
mod sys {
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
}
