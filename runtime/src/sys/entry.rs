//! Where this program begins: before libc's own start, and before Rust's.
//!
//! A program that has to run from a sealed file (see `crate::seal`) is executed twice. The first time nothing of it is
//! used but the few system calls below, so it neither sets libc up (which reads the processor's features and caches,
//! some thirty `cpuid` that each leave a virtual machine) nor touches pages that the second run doesn't share. And
//! `main` comes straight from libc: Rust's own start would read `/proc/self/maps` to tell a stack overflow from other
//! faults.

use std::sync::atomic::{AtomicUsize, Ordering};

/// The verbs whose processes enter a container.
///
/// [`prelude`] looks for them among all arguments, so it sees one too many rather than one too few.
pub const SEALED_VERBS: [&str; 4] = ["create", "run", "exec", "restore"];

/// First byte of the arguments' area, and the one behind its last.
static ARGUMENTS: [AtomicUsize; 2] = [AtomicUsize::new(0), AtomicUsize::new(0)];

/// Replaces the command line that others see in `/proc/PID/cmdline`, in place; what doesn't fit is cut.
pub fn set_command_line(text: &str) {
    let [first, end] = ARGUMENTS.each_ref().map(|a| a.load(Ordering::Relaxed));
    if first == 0 || end <= first {
        return;
    }
    let length = end - first;
    let shown = &text.as_bytes()[..text.len().min(length - 1)];
    // SAFETY: the kernel put the arguments there, writable, at exec; std has handed out copies only, and this process
    // has one thread.
    unsafe {
        std::ptr::write_bytes(first as *mut u8, 0, length);
        std::ptr::copy_nonoverlapping(shown.as_ptr(), first as *mut u8, shown.len());
    }
}

/// What libc's start calls.
///
/// # Safety
/// `argv` holds `argc` terminated strings, as the C standard has it.
// A test has the harness's own main, a fuzz target libFuzzer's.
#[cfg_attr(not(any(test, fuzzing)), no_mangle)]
#[cfg_attr(any(test, fuzzing), allow(dead_code))]
unsafe extern "C" fn main(argc: libc::c_int, argv: *const *const libc::c_char) -> libc::c_int {
    open_standard_streams();
    // SAFETY: sets a disposition before there is another thread. A reader who went away is an error of write(2).
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    if argc > 0 {
        // SAFETY: by contract; the kernel lays the arguments out one after the other.
        let (first, last) = unsafe { (*argv, *argv.add(argc as usize - 1)) };
        // SAFETY: `last` is terminated.
        let end = unsafe { last.add(libc::strlen(last) + 1) };
        ARGUMENTS[0].store(first as usize, Ordering::Relaxed);
        ARGUMENTS[1].store(end as usize, Ordering::Relaxed);
    }
    // Not a return: this flushes standard output.
    std::process::exit(crate::commands::main(std::env::args_os()).into())
}

/// A file that is opened must not become a standard stream because the caller had that one closed.
fn open_standard_streams() {
    let mut fds = [0, 1, 2].map(|fd| libc::pollfd { fd, events: 0, revents: 0 });
    // SAFETY: three valid entries; only closed descriptors are reported, at once.
    let closed = unsafe { libc::poll(fds.as_mut_ptr(), 3, 0) } > 0;
    for fd in fds.iter().filter(|fd| closed && fd.revents & libc::POLLNVAL != 0) {
        // SAFETY: a terminated path. The lowest free number is the one that is looked at.
        if unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) } != fd.fd {
            // SAFETY: ends the process.
            unsafe { libc::abort() };
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod early {
    use std::arch::{asm, global_asm};

    // `build.rs` has the linker make this the program's first instruction. The kernel enters with the stack pointer on
    // argc, argv, 0, envp, 0 and, for a dynamic program, ld.so with a function in rdx; `_start` gets both as they were.
    global_asm!(
        ".globl hydra_entry",
        ".type hydra_entry, @function",
        "hydra_entry:",
        "mov rbx, rsp",
        "mov r12, rdx",
        "mov rdi, rsp",
        "and rsp, -16",
        "call {prelude}",
        "mov rsp, rbx",
        "mov rdx, r12",
        "jmp _start",
        ".size hydra_entry, . - hydra_entry",
        prelude = sym prelude,
    );

    const SELF: *const u8 = c"/proc/self/exe".as_ptr().cast();
    const EMPTY: *const u8 = c"".as_ptr().cast();

    /// Executes the program anew from a read-only copy of its mount if a verb asks for it. Whatever goes wrong is left
    /// to `seal::ensure`, which looks again, and can say so.
    ///
    /// Nothing of libc is usable yet, memcpy and memcmp included (they are chosen when libc starts): bytes are read one
    /// by one and volatile, so that the compiler doesn't make calls of the loops; a debug build, which makes calls of
    /// much else, doesn't come here.
    ///
    /// # Safety
    /// `stack` is what the kernel made at exec.
    unsafe extern "C" fn prelude(stack: *const usize) {
        if cfg!(debug_assertions) {
            return;
        }
        // SAFETY: see above for the layout; nothing else is read.
        unsafe {
            let argc = *stack;
            let argv = stack.add(1).cast::<*const u8>();
            let mut i = 1;
            while i < argc && !is_sealed_verb(*argv.add(i)) {
                i += 1;
            }
            if i >= argc || is_on_read_only_mount() {
                return;
            }
            let flags = 1 | libc::O_CLOEXEC as usize | libc::AT_NO_AUTOMOUNT as usize;
            let fd = call(libc::SYS_open_tree, [libc::AT_FDCWD as usize, SELF as usize, flags, 0, 0]);
            if fd < 0 {
                return;
            }
            let fd = fd as usize;
            let attr = [libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID, 0, 0, 0];
            let empty_path = libc::AT_EMPTY_PATH as usize;
            let size = size_of_val(&attr);
            let set = [fd, EMPTY as usize, empty_path, attr.as_ptr() as usize, size];
            if call(libc::SYS_mount_setattr, set) == 0 {
                let envp = argv.add(argc + 1) as usize;
                call(libc::SYS_execveat, [fd, EMPTY as usize, argv as usize, envp, empty_path]);
            }
            call(libc::SYS_close, [fd, 0, 0, 0, 0]);
        }
    }

    /// # Safety
    /// `word` is a terminated string.
    unsafe fn is_sealed_verb(word: *const u8) -> bool {
        let mut v = 0;
        while v < super::SEALED_VERBS.len() {
            let verb = super::SEALED_VERBS[v];
            let mut i = 0;
            // SAFETY: stops at the string's end, which differs from every byte of the verb.
            while i < verb.len() && unsafe { word.add(i).read_volatile() } == verb.as_bytes()[i] {
                i += 1;
            }
            // SAFETY: all before was equal, so the string goes on at least to its end here.
            if i == verb.len() && unsafe { word.add(i).read_volatile() } == 0 {
                return true;
            }
            v += 1;
        }
        false
    }

    /// # Safety
    /// None beyond `call`'s.
    unsafe fn is_on_read_only_mount() -> bool {
        // A struct statfs: fifteen words on this architecture, and the flags the eleventh.
        let mut stat = std::mem::MaybeUninit::<[u64; 15]>::uninit();
        // SAFETY: the kernel fills the buffer when it returns 0.
        unsafe {
            call(libc::SYS_statfs, [SELF as usize, stat.as_mut_ptr() as usize, 0, 0, 0]) == 0
                && *stat.as_ptr().cast::<u64>().add(10) & libc::ST_RDONLY != 0
        }
    }

    /// # Safety
    /// The arguments are what the system call wants.
    unsafe fn call(number: libc::c_long, args: [usize; 5]) -> isize {
        let result: isize;
        // SAFETY: by contract; the kernel changes rax, rcx and r11 alone.
        unsafe {
            asm!("syscall", inlateout("rax") number as isize => result, in("rdi") args[0], in("rsi") args[1],
                in("rdx") args[2], in("r10") args[3], in("r8") args[4], lateout("rcx") _, lateout("r11") _,
                options(nostack));
        }
        result
    }
}
