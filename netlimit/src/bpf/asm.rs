//! An assembler for eBPF: just the instructions the programs use.
//! Encoding: Documentation/bpf/standardization/instruction-set.rst.

/// A register. R0 returns, R1-R5 are lost in calls, R6-R9 survive them, FP is the end of the 512 bytes of stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Reg {
    R0,
    R1,
    R2,
    R3,
    R4,
    R5,
    R6,
    R7,
    R8,
    R9,
    Fp,
}

/// Width of a load or store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Width {
    W = 0x00,
    H = 0x08,
    B = 0x10,
    Dw = 0x18,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Alu {
    Add = 0x00,
    Mul = 0x20,
    Div = 0x30,
    Or = 0x40,
    And = 0x50,
    Lsh = 0x60,
    Rsh = 0x70,
    Neg = 0x80,
    Xor = 0xa0,
    Mov = 0xb0,
    Sub = 0x10,
}

/// Conditions, unsigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum If {
    Eq = 0x10,
    Gt = 0x20,
    Ge = 0x30,
    Set = 0x40,
    Ne = 0x50,
    Le = 0xb0,
}

/// Place to jump to; forward jumps only are made, as every verifier likes.
#[derive(Debug, Clone, Copy)]
pub struct Label(usize);

#[derive(Debug, Default)]
pub struct Asm {
    insns: Vec<u64>,
    labels: Vec<Option<usize>>,
    jumps: Vec<(usize, Label)>,
}

const JMP: u8 = 0x05;
const ALU64: u8 = 0x07;
const SRC_REG: u8 = 0x08;
const ATOMIC_DW: u8 = 0xdb;
const FETCH: i32 = 0x01;
const CMPXCHG: i32 = 0xf1;
const PSEUDO_MAP_VALUE: u8 = 2;

impl Asm {
    fn raw(&mut self, code: u8, dst: Reg, src: u8, off: i16, imm: i32) {
        let insn = u64::from(code)
            | u64::from(dst as u8) << 8
            | u64::from(src) << 12
            | u64::from(off as u16) << 16
            | u64::from(imm as u32) << 32;
        self.insns.push(insn);
    }

    pub fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    pub fn bind(&mut self, label: Label) {
        self.labels[label.0] = Some(self.insns.len());
    }

    pub fn alu(&mut self, op: Alu, dst: Reg, src: Reg) {
        self.raw(ALU64 | SRC_REG | op as u8, dst, src as u8, 0, 0);
    }

    pub fn alu_imm(&mut self, op: Alu, dst: Reg, imm: i32) {
        self.raw(ALU64 | op as u8, dst, 0, 0, imm);
    }

    pub fn mov(&mut self, dst: Reg, src: Reg) {
        self.alu(Alu::Mov, dst, src);
    }

    pub fn mov_imm(&mut self, dst: Reg, imm: i32) {
        self.alu_imm(Alu::Mov, dst, imm);
    }

    /// `dst = imm`, 64 bits.
    pub fn load_imm64(&mut self, dst: Reg, imm: u64) {
        self.wide(dst, 0, imm as u32, (imm >> 32) as u32);
    }

    /// `dst` = address of the first value of the array map behind `map_fd`.
    pub fn load_map_value(&mut self, dst: Reg, map_fd: i32) {
        self.wide(dst, PSEUDO_MAP_VALUE, map_fd as u32, 0);
    }

    fn wide(&mut self, dst: Reg, src: u8, low: u32, high: u32) {
        self.raw(0x18, dst, src, 0, low as i32);
        self.insns.push(u64::from(high) << 32);
    }

    /// `dst = *(src + off)`
    pub fn load(&mut self, width: Width, dst: Reg, src: Reg, off: i16) {
        self.raw(0x61 | width as u8, dst, src as u8, off, 0);
    }

    /// `*(dst + off) = src`
    pub fn store(&mut self, width: Width, dst: Reg, off: i16, src: Reg) {
        self.raw(0x63 | width as u8, dst, src as u8, off, 0);
    }

    /// `*(dst + off) += src`, atomically.
    pub fn atomic_add(&mut self, dst: Reg, off: i16, src: Reg) {
        self.raw(ATOMIC_DW, dst, src as u8, off, 0);
    }

    /// The same, and `src` = the value before.
    pub fn fetch_add(&mut self, dst: Reg, off: i16, src: Reg) {
        self.raw(ATOMIC_DW, dst, src as u8, off, FETCH);
    }

    /// If `*(dst + off) == R0` then `*(dst + off) = src`; R0 = the value before.
    pub fn cmpxchg(&mut self, dst: Reg, off: i16, src: Reg) {
        self.raw(ATOMIC_DW, dst, src as u8, off, CMPXCHG);
    }

    pub fn jump(&mut self, to: Label) {
        self.jumps.push((self.insns.len(), to));
        self.raw(JMP, Reg::R0, 0, 0, 0);
    }

    pub fn jump_if(&mut self, cond: If, a: Reg, b: Reg, to: Label) {
        self.jumps.push((self.insns.len(), to));
        self.raw(JMP | SRC_REG | cond as u8, a, b as u8, 0, 0);
    }

    pub fn jump_if_imm(&mut self, cond: If, a: Reg, imm: i32, to: Label) {
        self.jumps.push((self.insns.len(), to));
        self.raw(JMP | cond as u8, a, 0, 0, imm);
    }

    pub fn call(&mut self, helper: i32) {
        self.raw(0x85, Reg::R0, 0, 0, helper);
    }

    /// Returns `value`.
    pub fn exit(&mut self, value: i32) {
        self.mov_imm(Reg::R0, value);
        self.raw(0x95, Reg::R0, 0, 0, 0);
    }

    /// The instructions, with every jump's distance filled in.
    ///
    /// # Panics
    /// If a label was used and never bound: a mistake in this crate, which any test finds.
    pub fn finish(mut self) -> Vec<u64> {
        for (at, label) in &self.jumps {
            let target = self.labels[label.0].expect("every label is bound");
            let off = (target as i64 - *at as i64 - 1) as i16;
            self.insns[*at] |= u64::from(off as u16) << 16;
        }
        self.insns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodes_as_the_instruction_set_says() {
        let mut a = Asm::default();
        let end = a.label();
        a.load(Width::W, Reg::R1, Reg::R6, 40);
        a.jump_if_imm(If::Eq, Reg::R1, 1, end);
        a.cmpxchg(Reg::R7, 24, Reg::R5);
        a.bind(end);
        a.exit(2);
        let bytes: Vec<[u8; 8]> = a.finish().iter().map(|i| i.to_le_bytes()).collect();
        assert_eq!(bytes[0], [0x61, 0x61, 40, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[1], [0x15, 0x01, 1, 0, 1, 0, 0, 0]);
        assert_eq!(bytes[2], [0xdb, 0x57, 24, 0, 0xf1, 0, 0, 0]);
        assert_eq!(bytes[3], [0xb7, 0, 0, 0, 2, 0, 0, 0]);
        assert_eq!(bytes[4], [0x95, 0, 0, 0, 0, 0, 0, 0]);
    }
}
