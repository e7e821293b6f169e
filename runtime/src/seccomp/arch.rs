//! The architectures that a profile can name.

use super::table::{Column, Row, NONE, ROWS};

/// What the compiler has to know of an architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arch {
    /// The name in a profile.
    pub name: &'static str,
    /// AUDIT_ARCH_*, which the kernel puts into seccomp_data.arch.
    pub audit: u32,
    column: Column,
    /// What is added to the numbers of the table.
    base: u32,
    /// Arguments are 64 bits wide; else only their lower half is looked at.
    pub wide: bool,
    pub big_endian: bool,
    /// The numbers of socketcall(2) and ipc(2), where the calls that they multiplex are filtered both ways.
    pub multiplexed: Option<(u32, u32)>,
}

/// Set in the numbers of x32, which shares AUDIT_ARCH_X86_64.
pub const X32_BIT: u32 = 0x4000_0000;

const LITTLE: u32 = 0x4000_0000;
const BITS_64: u32 = 0x8000_0000;
const N32: u32 = 0x2000_0000;

const fn arch(name: &'static str, machine: u32, column: Column) -> Arch {
    Arch {
        name,
        audit: machine,
        column,
        base: 0,
        wide: machine & BITS_64 != 0 && machine & N32 == 0,
        big_endian: machine & LITTLE == 0,
        multiplexed: None,
    }
}

impl Arch {
    const fn base(mut self, base: u32) -> Arch {
        self.base = base;
        self
    }

    const fn multiplexed(mut self, socketcall: u32, ipc: u32) -> Arch {
        self.multiplexed = Some((socketcall, ipc));
        self
    }

    const fn narrow(mut self) -> Arch {
        self.wide = false;
        self
    }

    /// The number of a call here.
    pub fn number(&self, row: &Row) -> Option<u32> {
        match row[self.column as usize] {
            NONE => None,
            private @ 0xf000.. => Some(0xf_0000 + u32::from(private - 0xf000)),
            number => Some(self.base + u32::from(number)),
        }
    }

    /// The name of a call.
    pub fn call(&self, number: u32) -> &'static str {
        ROWS.iter().find(|(_, row)| self.number(row) == Some(number)).map_or("unknown", |(name, _)| name)
    }

    /// By its name in a profile.
    pub fn find(name: &str) -> Option<&'static Arch> {
        ALL.iter().find(|arch| arch.name == name)
    }

    /// The one that this binary runs on.
    pub fn native() -> &'static Arch {
        &ALL[NATIVE]
    }

    pub fn is_x32(&self) -> bool {
        matches!(self.column, Column::X32)
    }

    /// s390 passes numbers above 255 through call 0, setup(2), and leaves the 0 where the kernel doesn't know them.
    pub fn zero_means_unknown(&self) -> bool {
        matches!(self.column, Column::S390 | Column::S390x)
    }
}

/// `uapi/linux/audit.h` and `uapi/linux/elf-em.h`.
pub static ALL: [Arch; 18] = [
    arch("SCMP_ARCH_X86_64", 62 | LITTLE | BITS_64, Column::X86_64),
    arch("SCMP_ARCH_X86", 3 | LITTLE, Column::X86).multiplexed(102, 117),
    arch("SCMP_ARCH_X32", 62 | LITTLE | BITS_64, Column::X32).base(X32_BIT).narrow(),
    arch("SCMP_ARCH_AARCH64", 183 | LITTLE | BITS_64, Column::Aarch64),
    arch("SCMP_ARCH_ARM", 40 | LITTLE, Column::Arm),
    arch("SCMP_ARCH_LOONGARCH64", 258 | LITTLE | BITS_64, Column::Loongarch64),
    arch("SCMP_ARCH_MIPS", 8, Column::Mips).base(4000).multiplexed(4102, 4117),
    arch("SCMP_ARCH_MIPSEL", 8 | LITTLE, Column::Mips).base(4000).multiplexed(4102, 4117),
    arch("SCMP_ARCH_MIPS64", 8 | BITS_64, Column::Mips64).base(5000),
    arch("SCMP_ARCH_MIPSEL64", 8 | LITTLE | BITS_64, Column::Mips64).base(5000),
    arch("SCMP_ARCH_MIPS64N32", 8 | BITS_64 | N32, Column::Mips64N32).base(6000),
    arch("SCMP_ARCH_MIPSEL64N32", 8 | LITTLE | BITS_64 | N32, Column::Mips64N32).base(6000),
    arch("SCMP_ARCH_PPC", 20, Column::Ppc).multiplexed(102, 117),
    arch("SCMP_ARCH_PPC64", 21 | BITS_64, Column::Ppc64).multiplexed(102, 117),
    arch("SCMP_ARCH_PPC64LE", 21 | LITTLE | BITS_64, Column::Ppc64).multiplexed(102, 117),
    arch("SCMP_ARCH_RISCV64", 243 | LITTLE | BITS_64, Column::Riscv64),
    arch("SCMP_ARCH_S390", 22, Column::S390).multiplexed(102, 117),
    arch("SCMP_ARCH_S390X", 22 | BITS_64, Column::S390x).multiplexed(102, 117),
];

const NATIVE: usize = if cfg!(target_arch = "x86_64") {
    0
} else if cfg!(target_arch = "x86") {
    1
} else if cfg!(target_arch = "aarch64") {
    3
} else if cfg!(target_arch = "arm") {
    4
} else if cfg!(target_arch = "loongarch64") {
    5
} else if cfg!(all(target_arch = "powerpc64", target_endian = "little")) {
    14
} else if cfg!(target_arch = "riscv64") {
    15
} else if cfg!(target_arch = "s390x") {
    17
} else {
    panic!("no table of system calls for this architecture")
};
