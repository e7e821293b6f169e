//! Memory of this process that it doesn't need just now.

use std::ffi::c_void;
use std::fs;

/// The program's own instructions and constants, mapped from its file.
pub struct Text(Option<(usize, usize)>);

impl Text {
    /// From the start of the program to the end of its instructions. What lies behind holds relocated data.
    pub fn find() -> Text {
        let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
        Text(range(&maps))
    }

    /// Gives the pages back to the page cache. The kernel maps 64 KiB and more around each page that is touched; a
    /// process that wakes now and then gets back what it uses, and counts for no more than that.
    pub fn leave(&self) {
        let Some((start, end)) = self.0 else { return };
        // SAFETY: the range was mapped privately and without the right to write by the program loader and stays
        // mapped as long as the process lives; nothing in it was ever changed, so what is dropped is read again from
        // the same file.
        let _ = unsafe { libc::madvise(start as *mut c_void, end - start, libc::MADV_DONTNEED) };
    }
}

/// The first mappings of a maps file, which follow one another, up to the executable one.
fn range(maps: &str) -> Option<(usize, usize)> {
    let mut from = None;
    let mut last = 0;
    for line in maps.lines() {
        let mut fields = line.split_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
        match fields.next()? {
            "r--p" if from.is_none() || start == last => drop(from.get_or_insert(start)),
            "r-xp" if from.is_none() || start == last => return Some((from.unwrap_or(start), end)),
            _ => return None,
        }
        last = end;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn up_to_the_instructions() {
        let maps = "00200000-002f8000 r--p 00000000 fe:00 1 /x\n002f8000-00657000 r-xp 000f7000 fe:00 1 /x\n\
                    00657000-0065f000 r--p 00455000 fe:00 1 /x\n";
        assert_eq!(range(maps), Some((0x20_0000, 0x65_7000)));
        assert_eq!(range("00200000-002f8000 rw-p 00000000 fe:00 1 /x\n"), None);
        assert_eq!(range(""), None);
        let text = Text::find();
        text.leave();
        assert!(text.0.is_some());
    }
}
