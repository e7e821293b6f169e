//! BPF from the end to the start: jumps only go forward, so every target is known before the jump to it is emitted.

use super::arch::Arch;
use super::rules::{Cond, Op, Rule};
use crate::sys::bpf::Insn;

const LD_ABS: u16 = 0x20;
const AND: u16 = 0x54;
const JA: u16 = 0x05;
const JEQ: u16 = 0x15;
const JGT: u16 = 0x25;
const JGE: u16 = 0x35;
const RET: u16 = 0x06;

/// Offsets into struct seccomp_data.
const NR: u32 = 0;
const ARCH: u32 = 4;
const ARGS: u32 = 16;

/// Where to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dest {
    /// Return this SECCOMP_RET_* value.
    Ret(u32),
    /// The instruction that is so many from the end of the program, counting itself.
    At(usize),
}

/// A program, last instruction first.
#[derive(Default)]
pub struct Program {
    reversed: Vec<Insn>,
    /// The last way that was emitted to each destination: a return, or a jump to a place that conditional jumps, which
    /// reach 255 instructions, no longer reach.
    ways: Vec<(Dest, usize)>,
}

impl Program {
    pub fn finish(mut self) -> Vec<Insn> {
        self.reversed.reverse();
        self.reversed
    }

    fn push(&mut self, code: u16, jt: usize, jf: usize, k: u32) -> Dest {
        self.reversed.push(Insn { code, jt: jt as u8, jf: jf as u8, k });
        Dest::At(self.reversed.len())
    }

    /// A label for `dest` that the next instruction but `slack` can reach.
    fn near(&mut self, dest: Dest, slack: usize) -> usize {
        let reach = (self.reversed.len() + slack).saturating_sub(255);
        if let Dest::At(label) = dest {
            if label >= reach {
                return label;
            }
        }
        let way = self.ways.iter().position(|(known, _)| *known == dest);
        if let Some(at) = way.filter(|&at| self.ways[at].1 >= reach) {
            return self.ways[at].1;
        }
        match dest {
            Dest::Ret(value) => self.push(RET, 0, 0, value),
            Dest::At(label) => self.push(JA, 0, 0, (self.reversed.len() - label) as u32),
        };
        let label = self.reversed.len();
        match way {
            Some(at) => self.ways[at].1 = label,
            None => self.ways.push((dest, label)),
        }
        label
    }

    /// A conditional jump. What it compares must be loaded by the instruction emitted next.
    fn jump(&mut self, code: u16, k: u32, yes: Dest, no: Dest) -> Dest {
        if yes == no {
            return yes;
        }
        let yes = self.near(yes, 1);
        let no = self.near(no, 0);
        let here = self.reversed.len();
        self.push(code, here - yes, here - no, k)
    }

    /// Loads the word at `offset` for the jump `dest`. A destination that is no new jump needs no load.
    fn load(&mut self, offset: u32, jump: Dest) -> Dest {
        if jump != Dest::At(self.reversed.len()) {
            return jump;
        }
        self.push(LD_ABS, 0, 0, offset)
    }

    /// Finds the architecture; `bad` is for all others.
    pub fn by_arch(&mut self, sections: &[(u32, Dest)], bad: Dest) {
        let mut dest = bad;
        for (audit, section) in sections.iter().rev() {
            dest = self.jump(JEQ, *audit, *section, dest);
        }
        // Where all architectures end alike there is no jump to fall into.
        let label = self.near(dest, 0);
        if label != self.reversed.len() {
            self.push(JA, 0, 0, (self.reversed.len() - label) as u32);
        }
        self.push(LD_ABS, 0, 0, ARCH);
    }

    /// Finds the interval that the number of the system call lies in. The first begins at 0, each ends where the next
    /// begins, and neighbours differ.
    pub fn by_number(&mut self, intervals: &[(u32, Dest)]) -> Dest {
        let dest = self.search(intervals);
        if intervals.len() == 1 {
            return dest;
        }
        self.push(LD_ABS, 0, 0, NR)
    }

    fn search(&mut self, intervals: &[(u32, Dest)]) -> Dest {
        match intervals {
            [(_, dest)] => *dest,
            [(_, before), (number, dest), (after, same)] if before == same && number + 1 == *after => {
                self.jump(JEQ, *number, *dest, *before)
            }
            _ => {
                let (low, high) = intervals.split_at(intervals.len() / 2);
                let above = self.search(high);
                let below = self.search(low);
                self.jump(JGE, high[0].0, above, below)
            }
        }
    }

    /// The first rule that matches decides; if none does, `otherwise`.
    pub fn rules(&mut self, arch: &Arch, rules: &[Rule], otherwise: u32) -> Dest {
        let mut next = Dest::Ret(otherwise);
        for rule in rules.iter().rev() {
            let mut matched = Dest::Ret(rule.action);
            for cond in rule.conds.iter().rev() {
                matched = self.cond(arch, cond, matched, next);
            }
            next = matched;
        }
        next
    }

    fn cond(&mut self, arch: &Arch, cond: &Cond, yes: Dest, no: Dest) -> Dest {
        let offset = ARGS + 8 * u32::from(cond.arg);
        let (low, high) = if arch.big_endian { (offset + 4, offset) } else { (offset, offset + 4) };
        let half = |word: u64| (word as u32, (word >> 32) as u32);
        let ((value_low, value_high), (mask_low, mask_high)) = (half(cond.value), half(cond.mask));
        let (code, yes, no) = match cond.op {
            Op::Eq | Op::MaskedEq => (JEQ, yes, no),
            Op::Ne => (JEQ, no, yes),
            Op::Gt => (JGT, yes, no),
            Op::Ge => (JGE, yes, no),
            Op::Le => (JGT, no, yes),
            Op::Lt => (JGE, no, yes),
        };
        let dest = self.word(code, low, mask_low, value_low, yes, no);
        if !arch.wide {
            return dest;
        }
        if code == JEQ {
            return self.word(JEQ, high, mask_high, value_high, dest, no);
        }
        let equal = self.jump(JEQ, value_high, dest, no);
        let greater = self.jump(JGT, value_high, yes, equal);
        self.load(high, greater)
    }

    fn word(&mut self, code: u16, offset: u32, mask: u32, value: u32, yes: Dest, no: Dest) -> Dest {
        if mask == 0 {
            return yes;
        }
        let mut dest = self.jump(code, value, yes, no);
        if mask != u32::MAX && yes != no {
            dest = self.push(AND, 0, 0, mask);
        }
        self.load(offset, dest)
    }
}
