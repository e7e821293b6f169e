//! `without CALL[,CALL]... PROGRAM ARGS...`: runs a program, and all that it starts, as if the kernel did not have these
//! system calls: each comes back with ENOSYS. It shows what becomes of a program on older kernels.

use std::ffi::CString;
use std::os::unix::ffi::OsStringExt;

/// The calls that can be named, with their numbers on x86-64 (from 424 on they are the same on every architecture).
const CALLS: &[(&str, u32)] = &[
    ("pidfd_send_signal", 424),
    ("open_tree", 428),
    ("move_mount", 429),
    ("fsopen", 430),
    ("fsconfig", 431),
    ("fsmount", 432),
    ("fspick", 433),
    ("pidfd_open", 434),
    ("clone3", 435),
    ("close_range", 436),
    ("openat2", 437),
    ("pidfd_getfd", 438),
    ("faccessat2", 439),
    ("mount_setattr", 442),
    ("open_tree_attr", 467),
];

fn main() {
    let mut args = std::env::args_os().skip(1);
    let names = args.next().and_then(|n| n.into_string().ok()).unwrap_or_default();
    let numbers: Vec<u32> = match names.as_str() {
        "new" => CALLS.iter().map(|c| c.1).collect(),
        names => names.split(',').map(number).collect(),
    };
    let argv: Vec<CString> =
        args.map(|a| CString::new(a.into_vec()).expect("no NUL in an argument")).collect();
    assert!(!argv.is_empty(), "without CALL[,CALL]... PROGRAM ARGS...");
    sys::forbid(&numbers).unwrap_or_else(|e| panic!("the filter can't be installed: {e}"));
    let error = nix::unistd::execvp(&argv[0], &argv).unwrap_err();
    panic!("{:?}: {error}", argv[0]);
}

fn number(name: &str) -> u32 {
    CALLS.iter().find(|c| c.0 == name).unwrap_or_else(|| panic!("no call named {name:?} is known here")).1
}

#[allow(unsafe_code)]
mod sys {
    use libc::{sock_filter, sock_fprog, BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W};

    /// Installs a filter that answers these calls with ENOSYS, for this process and its offspring.
    pub fn forbid(numbers: &[u32]) -> nix::Result<()> {
        let op = |code: u32, jt: u8, k: u32| sock_filter { code: code as u16, jt, jf: 0, k };
        // The number of the call is the first word of what the filter sees.
        let mut program = vec![op(BPF_LD | BPF_W | BPF_ABS, 0, 0)];
        for (i, number) in numbers.iter().enumerate() {
            program.push(op(BPF_JMP | BPF_JEQ | BPF_K, (numbers.len() - i) as u8, *number));
        }
        program.push(op(BPF_RET | BPF_K, 0, libc::SECCOMP_RET_ALLOW));
        program.push(op(BPF_RET | BPF_K, 0, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32));
        let filter = sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
        // SAFETY: `filter` points to `program`, which lives until the call is over; the kernel copies it. Root needs no
        // no-new-privileges for this, which would change what the program under test may do.
        let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &filter) };
        nix::errno::Errno::result(result).map(drop)
    }
}
