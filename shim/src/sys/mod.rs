//! The system calls that need `unsafe`: clones, waits, descriptors by number, calls that let the kernel write into the map.

pub mod exits;
pub mod map;

use nix::errno::Errno;
use nix::Result;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI32, AtomicI64, Ordering};

/// A number in the descriptor table that both heads share.
///
/// No single process owns such a descriptor: the state on which both heads agree names it, and it stays open when either head
/// dies. So it is a plain number that is closed explicitly, not an `OwnedFd`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fd(pub i32);

impl Fd {
    /// Hands a descriptor to the shared table.
    pub fn keep(fd: OwnedFd) -> Fd {
        Fd(fd.into_raw_fd())
    }

    /// Takes a descriptor out of the shared table's bookkeeping.
    pub fn into_owned(self) -> OwnedFd {
        // SAFETY: the caller made this descriptor and names it nowhere else.
        unsafe { std::os::fd::FromRawFd::from_raw_fd(self.0) }
    }

    pub fn close(self) {
        // SAFETY: close takes any number; the state names no descriptor twice, so nobody else's is closed.
        unsafe { libc::close(self.0) };
    }
}

impl AsFd for Fd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the numbers that the state holds are open until it drops them, and are never -1 when used (checked here).
        unsafe { BorrowedFd::borrow_raw(self.0.max(0)) }
    }
}

/// Which side of a fork this is.
pub enum Side {
    Child,
    Parent,
}

/// `clone3` as fork. `pid` receives the child's number, and `pidfd` a descriptor of it, *within the call*: a parent that is
/// killed right after it leaves a trace of the child. Where there is no clone3, `clone` does it.
fn fork(flags: i32, pid: &AtomicI32, pidfd: Option<&AtomicI32>) -> Result<Side> {
    let pidfd_flag = if pidfd.is_some() { libc::CLONE_PIDFD } else { 0 };
    let mut args = libc::clone_args {
        flags: (libc::CLONE_PARENT_SETTID | flags | pidfd_flag) as u64,
        pidfd: pidfd.map_or(0, |p| p.as_ptr() as u64),
        child_tid: 0,
        parent_tid: pid.as_ptr() as u64,
        exit_signal: libc::SIGCHLD as u64,
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: 0,
    };
    // SAFETY: without CLONE_VM this is a fork; the program has one thread, so the child may use everything it inherited.
    // parent_tid and pidfd point to i32s that outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_clone3, &mut args, size_of::<libc::clone_args>()) };
    match Errno::result(result) {
        Ok(0) => Ok(Side::Child),
        Ok(_) => Ok(Side::Parent),
        Err(Errno::ENOSYS) => fork_by_clone(flags, pid, pidfd),
        Err(e) => Err(e),
    }
}

/// The older call gives the number within the call too, but the descriptor only after it. A head that is killed in between is
/// still the parent, or the other head is: one of them hears of the child's end.
fn fork_by_clone(flags: i32, pid: &AtomicI32, pidfd: Option<&AtomicI32>) -> Result<Side> {
    let flags = libc::CLONE_PARENT_SETTID | flags | libc::SIGCHLD;
    // SAFETY: without CLONE_VM and with no stack named this is a fork; `pid` outlives the call.
    let child = unsafe { libc::syscall(libc::SYS_clone, flags as libc::c_ulong, 0, pid.as_ptr(), 0, 0) };
    if Errno::result(child)? == 0 {
        return Ok(Side::Child);
    }
    if let Some(Ok(fd)) = pidfd.map(|_| pidfd_open(child as i32)) {
        pidfd.inspect(|p| p.store(fd.0, Ordering::SeqCst));
    }
    Ok(Side::Parent)
}

/// A child with its own copy of the descriptor table: for programs and short jobs.
pub fn fork_child(pid: &AtomicI32, pidfd: &AtomicI32) -> Result<Side> {
    fork(0, pid, Some(pidfd))
}

/// A child that shares the descriptor table: the other head.
pub fn fork_head(pid: &AtomicI32) -> Result<Side> {
    fork(libc::CLONE_FILES, pid, None)
}

/// A child in a user namespace of its own.
pub fn fork_user(pid: &AtomicI32, pidfd: &AtomicI32) -> Result<Side> {
    fork(libc::CLONE_NEWUSER, pid, Some(pidfd))
}

/// A copy of the mount (or of the tree) at `path`, attached nowhere.
pub fn open_tree(path: &Path, recursive: bool) -> Result<OwnedFd> {
    const OPEN_TREE_CLONE: i32 = 1;
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC | if recursive { libc::AT_RECURSIVE } else { 0 };
    let path = CString::new(path.as_os_str().as_encoded_bytes()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the path is terminated.
    let fd = unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) };
    Errno::result(fd).map(|fd| Fd(fd as i32).into_owned())
}

/// Attaches such a copy.
pub fn move_mount(tree: &OwnedFd, target: &Path) -> Result<()> {
    const F_EMPTY_PATH: libc::c_uint = 4;
    let path = CString::new(target.as_os_str().as_encoded_bytes()).map_err(|_| Errno::EINVAL)?;
    let (from, to, empty) = (tree.as_raw_fd(), libc::AT_FDCWD, c"");
    // SAFETY: both paths are terminated.
    let moved =
        unsafe { libc::syscall(libc::SYS_move_mount, from, empty.as_ptr(), to, path.as_ptr(), F_EMPTY_PATH) };
    Errno::result(moved).map(drop)
}

/// Lets the ids of a mount that is attached nowhere be seen as a user namespace maps them.
pub fn map_ids(tree: &OwnedFd, users: &OwnedFd, recursive: bool, read_only: bool) -> Result<()> {
    const RDONLY: u64 = 1;
    let attr = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP | if read_only { RDONLY } else { 0 },
        attr_clr: 0,
        propagation: 0,
        userns_fd: users.as_raw_fd() as u64,
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    let (tree, empty, size) = (tree.as_raw_fd(), c"", size_of_val(&attr));
    // SAFETY: the path is terminated, and `attr` is a mount_attr of the size that is given.
    let set = unsafe { libc::syscall(libc::SYS_mount_setattr, tree, empty.as_ptr(), flags, &attr, size) };
    Errno::result(set).map(drop)
}

/// Makes a block device of a file, which goes by itself with its last user.
pub fn loop_device(file: &Path, read_only: bool) -> std::io::Result<(OwnedFd, PathBuf)> {
    // linux/loop.h; a struct loop_config has 304 bytes: the file's descriptor, and the flags in the second half of word 7.
    const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4c82;
    const LOOP_CONFIGURE: libc::Ioctl = 0x4c0a;
    const READ_ONLY: u64 = 1;
    const AUTOCLEAR: u64 = 4;
    let open = |path: &Path| std::fs::File::options().read(true).write(!read_only).open(path);
    let file = open(file)?;
    let control = std::fs::File::options().read(true).write(true).open("/dev/loop-control")?;
    let mut config = [0u64; 38];
    config[0] = file.as_raw_fd() as u64;
    config[7] = (AUTOCLEAR | if read_only { READ_ONLY } else { 0 }) << 32;
    loop {
        // SAFETY: no argument.
        let number = Errno::result(unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) })?;
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let device = open(&path)?;
        // SAFETY: the kernel reads one loop_config, which is all of `config`.
        match Errno::result(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &config) }) {
            Ok(_) => return Ok((device.into(), path)),
            // Somebody else was faster.
            Err(Errno::EBUSY) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// Leaves this process at once, running no destructor.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit has no precondition.
    unsafe { libc::_exit(code) }
}

/// What became of a child, as waitid tells.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Change {
    pub pid: i32,
    pub stopped: bool,
    /// 0-255, or 128 + signal.
    pub code: u32,
    /// By a signal: a program may end with such a code by itself.
    pub killed: bool,
    pub core: bool,
}

fn wait(which: libc::idtype_t, pid: u32, flags: i32) -> Result<Option<Change>> {
    // SAFETY: siginfo_t is plain data for which zero is a valid value.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: info is valid for writing.
    Errno::result(unsafe { libc::waitid(which, pid, &mut info, flags) })?;
    // SAFETY: waitid filled the SIGCHLD members, or left them zero.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    if pid == 0 {
        return Ok(None);
    }
    Ok(Some(match info.si_code {
        libc::CLD_EXITED => Change { pid, stopped: false, code: status as u32, killed: false, core: false },
        libc::CLD_KILLED | libc::CLD_DUMPED => Change {
            pid,
            stopped: false,
            code: 128 + status as u32,
            killed: true,
            core: info.si_code == libc::CLD_DUMPED,
        },
        _ => Change { pid, stopped: true, code: 0, killed: false, core: false },
    }))
}

/// The next child that ended or stopped; it stays a zombie until `reap`, so that what it left can be written down first.
pub fn peek_child(block: bool) -> Result<Option<Change>> {
    if block {
        drop_text();
    }
    let flags = libc::WEXITED | libc::WSTOPPED | libc::WNOWAIT | if block { 0 } else { libc::WNOHANG };
    wait(libc::P_ALL, 0, flags)
}

/// Takes away the news that was looked at, and no other: a child that stopped may have ended since, and that is still to be
/// written down.
pub fn reap(change: Change) {
    let kind = if change.stopped { libc::WSTOPPED } else { libc::WEXITED };
    let _ = wait(libc::P_PID, change.pid as u32, kind | libc::WNOHANG);
}

/// Has this child ended, and waits to be reaped?
pub fn zombie(pid: i32) -> Option<Change> {
    let flags = libc::WEXITED | libc::WNOWAIT | libc::WNOHANG;
    wait(libc::P_PID, pid as u32, flags).ok().flatten()
}

/// Ends a child and waits until it is gone.
pub fn end_child(pid: i32) {
    // SAFETY: plain numbers.
    unsafe { libc::kill(pid, libc::SIGKILL) };
    let _ = wait(libc::P_PID, pid as u32, libc::WEXITED);
}

/// Waits until a child has ended by itself.
pub fn wait_child(pid: i32) {
    while wait(libc::P_PID, pid as u32, libc::WEXITED) == Err(Errno::EINTR) {}
}

/// Stops this process until somebody continues it.
pub fn stop_self() {
    // SAFETY: plain numbers.
    unsafe { libc::raise(libc::SIGSTOP) };
}

pub fn pidfd_open(pid: i32) -> Result<Fd> {
    // SAFETY: no pointers; pidfds are close-on-exec by themselves.
    Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) }).map(|fd| Fd(fd as i32))
}

/// The exit status of a process that somebody else reaped (Linux 6.15). None where the kernel can't tell.
pub fn pidfd_exit(pidfd: Fd) -> Option<Change> {
    // SAFETY: pidfd_info is plain data for which zero is a valid value.
    let mut info: libc::pidfd_info = unsafe { std::mem::zeroed() };
    info.mask = u64::from(libc::PIDFD_INFO_EXIT);
    // SAFETY: the ioctl writes one pidfd_info, whose size is part of its number.
    Errno::result(unsafe { libc::ioctl(pidfd.0, libc::PIDFD_GET_INFO as _, &mut info) }).ok()?;
    if info.mask & u64::from(libc::PIDFD_INFO_EXIT) == 0 {
        return None;
    }
    Some(ended(info.pid as i32, info.exit_code))
}

/// The end of a process, from the status that the kernel keeps.
pub fn ended(pid: i32, status: i32) -> Change {
    let killed = libc::WIFSIGNALED(status);
    let code = if killed { 128 + libc::WTERMSIG(status) } else { libc::WEXITSTATUS(status) };
    Change { pid, stopped: false, code: code as u32, killed, core: libc::WCOREDUMP(status) }
}

/// Do pidfds tell how a process ended that somebody else reaped? Asked of a child that ends at once.
pub fn pidfds_tell() -> bool {
    let (pid, pidfd) = (AtomicI32::new(0), AtomicI32::new(-1));
    match fork_child(&pid, &pidfd) {
        Ok(Side::Child) => exit_now(0),
        Ok(Side::Parent) => {
            end_child(pid.load(Ordering::SeqCst));
            let pidfd = Fd(pidfd.load(Ordering::SeqCst));
            let told = pidfd_exit(pidfd).is_some();
            pidfd.close();
            told
        }
        Err(_) => false,
    }
}

pub fn prctl(option: i32, value: u64) {
    // SAFETY: the options used here (subreaper, name, THP) take plain numbers.
    unsafe { libc::prctl(option, value, 0, 0, 0) };
}

/// Writes other arguments over those that this process was started with, as lists of processes show them. False if they need more
/// room, or if nobody tells where they are. `std::env::args` must not be asked afterwards.
pub fn set_arguments(arguments: &[&str]) -> bool {
    // proc_pid_stat(5): arg_start and arg_end are fields 48 and 49, and the first behind the name's parenthesis is 3.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace();
    let places: Vec<usize> = fields.skip(48 - 3).take(2).filter_map(|f| f.parse().ok()).collect();
    let mut text: Vec<u8> = arguments.iter().flat_map(|a| a.bytes().chain([0])).collect();
    match places[..] {
        [start, end] if start > 0 && text.len() <= end.saturating_sub(start) => {
            text.resize(end - start, 0);
            // SAFETY: the kernel says that the arguments lie from `start` to `end`, on this process's own stack, which is writable and
            // above everything that is in use; strings there are read by nobody any more.
            unsafe { std::ptr::copy_nonoverlapping(text.as_ptr(), start as *mut u8, text.len()) };
            true
        }
        _ => false,
    }
}

/// Gives this process a core-scheduling cookie of its own, which its children inherit: none but they run beside them on one core.
pub fn schedule_cores_alone() -> Result<()> {
    /// linux/prctl.h, which libc lacks: the option, its command, and that it is for the whole process.
    const PR_SCHED_CORE: i32 = 62;
    const CREATE: libc::c_ulong = 1;
    const THREAD_GROUP: libc::c_ulong = 1;
    // SAFETY: plain numbers; pid 0 is this process.
    Errno::result(unsafe { libc::prctl(PR_SCHED_CORE, CREATE, 0, THREAD_GROUP, 0) }).map(drop)
}

/// Gives what is free on the heap back to the kernel.
pub fn trim_heap() {
    // SAFETY: malloc_trim has no precondition.
    unsafe { libc::malloc_trim(0) };
}

/// Resident program text and constants are of no use to a process that only waits: their pages are dropped and come back by
/// themselves, from the page cache, when they are needed. Always the last thing before the wait.
#[inline(always)]
fn drop_text() {
    // SAFETY: the kernel tells where this program's headers are and how many; they stay mapped. Dropping the clean, file-backed
    // pages of segments that can't be written changes no content.
    unsafe {
        let headers = libc::getauxval(libc::AT_PHDR) as *const libc::Elf64_Phdr;
        let count = libc::getauxval(libc::AT_PHNUM) as usize;
        if headers.is_null() {
            return;
        }
        // The headers are themselves in what is dropped: they are read first.
        let mut dropped = [(0, 0); 4];
        let read_only = |h: &&libc::Elf64_Phdr| h.p_type == libc::PT_LOAD && h.p_flags & libc::PF_W == 0;
        let segments = std::slice::from_raw_parts(headers, count);
        for (place, header) in dropped.iter_mut().zip(segments.iter().filter(read_only)) {
            *place = (header.p_vaddr as usize & !0xfff, header.p_memsz as usize & !0xfff);
        }
        for (start, length) in dropped {
            libc::madvise(start as *mut libc::c_void, length, libc::MADV_DONTNEED);
        }
    }
}

/// Waits with as little resident memory as possible.
#[inline(never)]
pub fn poll_lean(fds: &mut [libc::pollfd], map: &map::Map, timeout_ms: i32) -> Result<i32> {
    map.drop_pages();
    drop_text();
    poll(fds, timeout_ms)
}

pub fn poll(fds: &mut [libc::pollfd], timeout_ms: i32) -> Result<i32> {
    // SAFETY: fds is a valid slice of pollfd.
    Errno::result(unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, timeout_ms) })
}

/// Bytes waiting in a pipe.
pub fn queued(fd: Fd) -> usize {
    let mut n: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int.
    match unsafe { libc::ioctl(fd.0, libc::FIONREAD, &mut n) } {
        0 => n as usize,
        _ => 0,
    }
}

const SPLICE: libc::c_uint = libc::SPLICE_F_NONBLOCK | libc::SPLICE_F_MOVE;

/// Moves bytes from one pipe or terminal to another without passing through this process.
pub fn splice(from: Fd, to: Fd, len: usize) -> Result<usize> {
    // SAFETY: no offsets: null pointers are allowed.
    let n = unsafe { libc::splice(from.0, std::ptr::null_mut(), to.0, std::ptr::null_mut(), len, SPLICE) };
    Errno::result(n).map(|n| n as usize)
}

/// Moves bytes from a pipe into a file at `offset`, which the kernel advances within the call.
pub fn splice_to_file(from: Fd, to: Fd, offset: &AtomicI64, len: usize) -> Result<usize> {
    // SAFETY: offset points to an i64 that outlives the call.
    let n = unsafe { libc::splice(from.0, std::ptr::null_mut(), to.0, offset.as_ptr(), len, SPLICE) };
    Errno::result(n).map(|n| n as usize)
}

/// Moves bytes from a file at `offset`, which the kernel advances within the call, into a pipe.
pub fn splice_from_file(from: Fd, offset: &AtomicI64, to: Fd, len: usize) -> Result<usize> {
    // SAFETY: offset points to an i64 that outlives the call.
    let n = unsafe { libc::splice(from.0, offset.as_ptr(), to.0, std::ptr::null_mut(), len, SPLICE) };
    Errno::result(n).map(|n| n as usize)
}

/// Shows the bytes of one pipe to another as well, without taking them.
pub fn tee(from: Fd, to: Fd, len: usize) -> Result<usize> {
    // SAFETY: plain numbers.
    Errno::result(unsafe { libc::tee(from.0, to.0, len, libc::SPLICE_F_NONBLOCK) }).map(|n| n as usize)
}

pub fn set_window(fd: Fd, columns: u16, rows: u16) -> Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads one winsize.
    Errno::result(unsafe { libc::ioctl(fd.0, libc::TIOCSWINSZ, &size) }).map(drop)
}

pub fn window(fd: Fd) -> Option<(u16, u16)> {
    // SAFETY: winsize is plain data for which zero is a valid value.
    let mut size: libc::winsize = unsafe { std::mem::zeroed() };
    // SAFETY: TIOCGWINSZ writes one winsize.
    Errno::result(unsafe { libc::ioctl(fd.0, libc::TIOCGWINSZ, &mut size) }).ok()?;
    Some((size.ws_col, size.ws_row))
}

/// Blocks every signal, so that none ends a head: SIGKILL alone can, and the other head answers to that.
pub fn block_signals() {
    // SAFETY: sigset_t is initialised by sigfillset before its use.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut set);
        // A crash must end the process, not hang it.
        for signal in [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGABRT] {
            libc::sigdelset(&mut set, signal);
        }
        libc::sigprocmask(libc::SIG_SETMASK, &set, std::ptr::null_mut());
    }
}

pub fn unblock_signals() {
    // SAFETY: sigset_t is initialised by sigemptyset before its use; SIG_DFL is a valid handler.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &set, std::ptr::null_mut());
        // The Rust runtime ignores SIGPIPE; a program that is started expects the default.
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
    }
}

/// A descriptor that becomes readable when a child changes.
pub fn child_signals() -> Result<Fd> {
    // SAFETY: sigset_t is initialised by sigemptyset before its use.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGCHLD);
        Errno::result(libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)).map(Fd)
    }
}

pub fn read(fd: Fd, buf: &mut [u8]) -> Result<usize> {
    // SAFETY: buf is valid for writing its length.
    Errno::result(unsafe { libc::read(fd.0, buf.as_mut_ptr().cast(), buf.len()) }).map(|n| n as usize)
}

pub fn write(fd: Fd, buf: &[u8]) -> Result<usize> {
    // SAFETY: buf is valid for reading its length.
    Errno::result(unsafe { libc::write(fd.0, buf.as_ptr().cast(), buf.len()) }).map(|n| n as usize)
}

/// The child's stdio in a process about to exec: 0, 1, 2 become these. Never called in a head.
pub fn set_stdio(stdin: Fd, stdout: Fd, stderr: Fd) -> Result<()> {
    // The sources may themselves be 0-2: they are moved out of the way first.
    let mut moved = [0; 3];
    for (to, from) in moved.iter_mut().zip([stdin, stdout, stderr]) {
        // SAFETY: plain numbers.
        *to = Errno::result(unsafe { libc::fcntl(from.0, libc::F_DUPFD_CLOEXEC, 10) })?;
    }
    for (target, from) in moved.iter().enumerate() {
        // SAFETY: plain numbers; this process has its own table.
        Errno::result(unsafe { libc::dup2(*from, target as i32) })?;
    }
    Ok(())
}

/// Moves a descriptor to a fixed number in a process about to exec.
pub fn place(fd: Fd, number: i32) -> Result<()> {
    // SAFETY: plain numbers; this process has its own table.
    Errno::result(unsafe { libc::dup2(fd.0, number) }).map(drop)
}

pub fn keep_on_exec(fd: Fd, keep: bool) {
    // SAFETY: plain numbers.
    unsafe { libc::fcntl(fd.0, libc::F_SETFD, if keep { 0 } else { libc::FD_CLOEXEC }) };
}

/// Every new descriptor has a number below this.
pub fn most_descriptors() -> i32 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: limit is valid for writing.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) };
    limit.rlim_cur.min(1 << 20) as i32
}

pub fn is_open(fd: Fd) -> bool {
    // SAFETY: plain numbers.
    unsafe { libc::fcntl(fd.0, libc::F_GETFD) != -1 }
}

/// Tries for up to two seconds while there is no descriptor or memory to be had: for what must not get lost for that.
pub fn insist<T>(mut attempt: impl FnMut() -> std::io::Result<T>) -> std::io::Result<T> {
    for _ in 0..100 {
        match attempt() {
            Err(e) if [libc::EMFILE, libc::ENFILE, libc::ENOMEM].map(Some).contains(&e.raw_os_error()) => {}
            result => return result,
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    attempt()
}

pub fn now_ns() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64)
}

pub fn load(value: &AtomicI64) -> i64 {
    value.load(Ordering::SeqCst)
}

/// Punches a hole: gives the file's whole pages up to `end` back. The page that `end` lies in stays as it is: a pipe may hold it
/// (splice passes pages, not bytes), and part of a hole would be made by writing zeroes into it.
pub fn forget_before(fd: Fd, end: i64) {
    let end = end & !0xfff;
    if end > 0 {
        // SAFETY: plain numbers.
        unsafe { libc::fallocate(fd.0, libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE, 0, end) };
    }
}

/// Raw number of anything that lends its descriptor.
pub fn number(fd: &impl AsFd) -> Fd {
    Fd(fd.as_fd().as_raw_fd())
}

pub fn continue_process(pid: i32) {
    // SAFETY: plain numbers.
    unsafe { libc::kill(pid, libc::SIGCONT) };
}

pub fn pidfd_signal(pidfd: Fd, signal: i32) -> Result<()> {
    // SAFETY: no siginfo: a null pointer is allowed.
    Errno::result(unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.0, signal, std::ptr::null::<u8>(), 0)
    })
    .map(drop)
}
