//! `without GROUP[,GROUP]... PROGRAM ARGS...`: runs a program, and all that it starts, as if the kernel did not have what
//! a group names: its system calls come back with ENOSYS, or with what older kernels say to that use of them. `all` stands
//! for every group, `without groups` lists them. It shows what becomes of a program on older kernels; `docs/kernel-features.md` says what should.

#[allow(unsafe_code)]
mod sys;

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
