//! Lists of CPUs and of memory nodes, as in `0-3,5,7-9`.

use crate::error::Result;
use crate::invalid;

/// A set of CPUs or nodes, one bit each, in the words that the kernel takes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mask(Vec<u64>);

/// A sanity limit, well above CONFIG_NR_CPUS (8192) and MAX_NUMNODES (1024).
pub const MAX: u32 = 64 * 1024;

impl Mask {
    /// All CPUs that a kernel could know.
    pub fn full() -> Mask {
        Mask(vec![u64::MAX; MAX as usize / 64])
    }

    pub fn of(words: Vec<u64>) -> Mask {
        Mask(words)
    }

    pub fn words(&self) -> &[u64] {
        &self.0
    }

    pub fn count(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.count() == 0
    }

    fn set(&mut self, at: u32) {
        let word = at as usize / 64;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (at % 64);
    }
}

/// Spaces around a part, and parts with nothing in them, are let pass; the empty string is the empty set.
pub fn parse(text: &str) -> Result<Mask> {
    let mut mask = Mask::default();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            invalid!("invalid range: {part}");
        }
        (first..=last).for_each(|at| mask.set(at));
    }
    if mask.is_empty() && !text.is_empty() {
        invalid!("no members found in set {text:?}");
    }
    Ok(mask)
}

fn number(text: &str) -> Result<u32> {
    match text.parse::<u32>() {
        Ok(number) if number < MAX && text.bytes().all(|b| b.is_ascii_digit()) => Ok(number),
        Ok(number) if number >= MAX => invalid!("values larger than {} are not supported", MAX - 1),
        _ => invalid!("invalid number {text:?} in a list of cpus or nodes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        assert_eq!(parse("0-3,5,7-9").unwrap().words(), [0b11_1010_1111]);
        assert_eq!(parse(" 1 , ,2,").unwrap().words(), [0b110]);
        assert_eq!(parse("64").unwrap().words(), [0, 1]);
        assert!(parse("").unwrap().is_empty());
        assert_eq!(parse("65535").unwrap().count(), 1);
    }

    #[test]
    fn refusals() {
        for text in ["a", "1-", "-1", "3-1", "+1", "0-", "65536", "99999999999", ",", " ", "1-2-3", "0x1"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
