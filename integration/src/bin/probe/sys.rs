//! System calls that no crate has a safe word for.

use libc::{c_char, c_int, c_long};

/// Without Rust's own start, which ignores SIGPIPE and handles SIGSEGV before it calls `main`.
// SAFETY: the only `main` of this program.
#[unsafe(no_mangle)]
extern "C" fn main(_: c_int, _: *const *const c_char) -> c_int {
    super::probe();
    0
}

pub fn is_a_tty(fd: c_int) -> bool {
    // SAFETY: takes a number, and says no for what is not open.
    unsafe { libc::isatty(fd) == 1 }
}

/// Rows and columns of standard output's terminal.
pub fn window() -> String {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: `size` is what TIOCGWINSZ writes to.
    match unsafe { libc::ioctl(1, libc::TIOCGWINSZ, &mut size) } {
        0 => format!("{}x{}", size.ws_row, size.ws_col),
        _ => "none".into(),
    }
}

pub fn priorities(show: impl Fn(&str, String)) {
    // SAFETY: these calls take and return numbers; the null pointers are allowed where they stand.
    unsafe {
        show("nice", libc::getpriority(libc::PRIO_PROCESS, 0).to_string());
        show("scheduler", libc::sched_getscheduler(0).to_string());
        show("io priority", libc::syscall(libc::SYS_ioprio_get, 1, 0).to_string());
        show("securebits", libc::prctl(libc::PR_GET_SECUREBITS, 0, 0, 0, 0).to_string());
        show("dumpable", libc::prctl(libc::PR_GET_DUMPABLE, 0, 0, 0, 0).to_string());
        show("keep capabilities", libc::prctl(libc::PR_GET_KEEPCAPS, 0, 0, 0, 0).to_string());
        show("subreaper", {
            let mut is: c_int = 0;
            libc::prctl(libc::PR_GET_CHILD_SUBREAPER, &mut is as *mut c_int);
            is.to_string()
        });
        show("death signal", {
            let mut signal: c_int = 0;
            libc::prctl(libc::PR_GET_PDEATHSIG, &mut signal as *mut c_int);
            signal.to_string()
        });
        show("session leader", (libc::getsid(0) == libc::getpid()).to_string());
        show("group leader", (libc::getpgid(0) == libc::getpid()).to_string());
        let mut mode: c_int = -1;
        let result = libc::syscall(libc::SYS_get_mempolicy, &mut mode as *mut c_int, 0, 0, 0, 0);
        show("memory policy", format!("{result} {mode}"));
    }
}

/// The name and rights of the session keyring, as `type;uid;gid;rights;name`.
pub fn session_keyring() -> String {
    const KEYCTL_DESCRIBE: c_int = 6;
    const SESSION: c_int = -3;
    let mut text = [0u8; 256];
    // SAFETY: the kernel writes at most so many bytes as `text` has.
    let n =
        unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_DESCRIBE, SESSION, text.as_mut_ptr(), text.len()) };
    match usize::try_from(n) {
        Ok(n) => String::from_utf8_lossy(&text[..n.clamp(1, text.len()) - 1]).into_owned(),
        Err(_) => super::errno(&std::io::Error::last_os_error()),
    }
}

/// What a system call comes back with: `ok`, `errno N`, or the signal that ended the caller.
pub fn verdict(number: c_long, a: &[c_long; 4]) -> String {
    // SAFETY: the child, of a process with one thread, makes one call and ends; the arguments are such that no call
    // writes to memory or changes anything outside of the child.
    unsafe {
        let child = libc::fork();
        if child == 0 {
            libc::alarm(5);
            let result = libc::syscall(number, a[0], a[1], a[2], a[3], 0, 0);
            libc::_exit(if result == -1 { *libc::__errno_location() } else { 0 });
        }
        let mut status = 0;
        if child < 0 || libc::waitpid(child, &mut status, 0) != child {
            return "no child".into();
        }
        match (libc::WIFSIGNALED(status), libc::WEXITSTATUS(status)) {
            (true, _) => format!("signal {}", libc::WTERMSIG(status)),
            (_, 0) => "ok".into(),
            (_, n) => format!("errno {n}"),
        }
    }
}
