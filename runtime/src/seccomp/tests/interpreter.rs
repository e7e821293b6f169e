//! Classic BPF as seccomp runs it: load a word of seccomp_data, mask it, jump forward, return.

use crate::sys::bpf::Insn;

#[derive(Debug, Clone, Copy, Default)]
pub struct Data {
    pub nr: u32,
    pub arch: u32,
    pub args: [u64; 6],
    pub big_endian: bool,
}

impl Data {
    fn word(&self, offset: u32) -> u32 {
        let offset = offset as usize;
        assert!(offset % 4 == 0 && offset < 64, "the kernel refuses a load from {offset}");
        match offset {
            0 => self.nr,
            4 => self.arch,
            8 | 12 => 0,
            _ => {
                let arg = self.args[(offset - 16) / 8];
                let high = (offset % 8 != 0) != self.big_endian;
                (if high { arg >> 32 } else { arg }) as u32
            }
        }
    }
}

/// The verdict, and how many instructions it took.
pub fn run(program: &[Insn], data: &Data) -> (u32, usize) {
    let (mut pc, mut accumulator, mut steps) = (0, 0u32, 0);
    loop {
        let Insn { code, jt, jf, k } = program[pc];
        pc += 1;
        steps += 1;
        let jump = |taken: bool| usize::from(if taken { jt } else { jf });
        match code {
            0x20 => accumulator = data.word(k),
            0x54 => accumulator &= k,
            0x05 => pc += k as usize,
            0x15 => pc += jump(accumulator == k),
            0x25 => pc += jump(accumulator > k),
            0x35 => pc += jump(accumulator >= k),
            0x45 => pc += jump(accumulator & k != 0),
            0x06 => return (k, steps),
            other => panic!("no such instruction: {other:#x}"),
        }
    }
}
