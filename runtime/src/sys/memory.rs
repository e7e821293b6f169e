//! Memory of this process that it doesn't need just now.

use std::ffi::{c_char, c_void};

extern "C" {
    /// Defined by the linker: where the program begins.
    static __executable_start: c_char;
    /// Where its instructions end. What lies behind holds relocated data.
    static etext: c_char;
}

/// Gives the pages of the program's own instructions and constants back to the page cache. The kernel maps 64 KiB and more
/// around each page that is touched; a process gets back what it goes on to use, and counts for no more than that.
pub fn leave_text() {
    let (start, end) = (&raw const __executable_start as usize, &raw const etext as usize);
    let page =
        nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten().unwrap_or(4096) as usize;
    let (start, end) = (start & !(page - 1), end & !(page - 1));
    if start < end {
        // SAFETY: the program loader mapped the range from the program's file, privately and without the right to write,
        // for as long as the process lives; nothing in it was ever changed, so what is dropped is read again from there.
        let _ = unsafe { libc::madvise(start as *mut c_void, end - start, libc::MADV_DONTNEED) };
    }
}

#[cfg(test)]
mod tests {
    /// The executable mapping of this very program, in KiB: what of it is in memory.
    fn resident() -> u64 {
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let here = super::leave_text as *const () as usize;
        let mut lines = maps.lines();
        let holds = |line: &str| {
            let range = line.split(' ').next().and_then(|r| r.split_once('-'));
            range.is_some_and(|(a, b)| {
                let (a, b) = (usize::from_str_radix(a, 16), usize::from_str_radix(b, 16));
                a.is_ok_and(|a| a <= here) && b.is_ok_and(|b| here < b)
            })
        };
        assert!(lines.any(holds));
        let rss = lines.find_map(|l| l.strip_prefix("Rss:")).unwrap();
        rss.trim().trim_end_matches(" kB").parse().unwrap()
    }

    #[test]
    fn the_program_runs_on() {
        let before = resident();
        super::leave_text();
        assert!(resident() <= before);
    }
}
