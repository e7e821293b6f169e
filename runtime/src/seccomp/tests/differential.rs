//! The same verdicts as libseccomp's, with runc's ENOSYS rule on top, for every number and telling arguments.

use super::oracle::{Answer, Oracle};
use super::profiles;
use super::*;

const GROUPS: [&[&str]; 12] = [
    &["X86_64", "X86", "X32"],
    &["X86_64", "X86"],
    &["X86_64"],
    &["X86_64", "X32", "AARCH64", "ARM", "RISCV64", "PPC64LE", "MIPSEL", "MIPSEL64", "MIPSEL64N32"],
    &["AARCH64", "ARM"],
    &["ARM"],
    &["RISCV64"],
    &["PPC64LE"],
    &["S390X", "S390"],
    &["PPC64", "PPC"],
    &["MIPS64", "MIPS", "MIPS64N32"],
    &["MIPSEL64", "MIPSEL", "MIPSEL64N32"],
];

fn archs(group: &[&str]) -> Vec<&'static Arch> {
    group.iter().map(|name| arch(name)).collect()
}

/// libseccomp's verdict, after the stub that runc puts before it.
fn expected(answer: &Answer, archs: &[&'static Arch], default: u32, data: &Data) -> u32 {
    let same = |x32: bool| {
        archs
            .iter()
            .position(|arch| arch.audit == data.arch && arch.is_x32() == x32)
            .map(|at| answer.last[at])
    };
    let (native, x32) = (same(false), same(true));
    if wants_enosys(default) && (native.is_some() || x32.is_some()) {
        let is_x86_64 = data.arch == arch("X86_64").audit;
        let last = if is_x86_64 && data.nr & X32_BIT != 0 { x32 } else { native };
        let last = last.unwrap_or(0);
        let setup =
            archs.iter().any(|arch| arch.audit == data.arch && arch.zero_means_unknown()) && data.nr == 0;
        if last != 0 && (data.nr > last || setup) {
            return RET_ENOSYS;
        }
    }
    run(&answer.program, data).0
}

/// Values on and around every value that the profile compares with.
fn values(profile: &spec::Seccomp) -> Vec<u64> {
    let mut values = vec![0, 1, u64::MAX, 1 << 31, 1 << 32, u64::from(u32::MAX), 1 << 63];
    for arg in profile.syscalls.iter().flat_map(|entry| &entry.args) {
        for value in [arg.value, arg.value_two, arg.value | arg.value_two, !arg.value] {
            values.extend([value, value.wrapping_sub(1), value.wrapping_add(1)]);
            values.extend([value ^ (1 << 32), value ^ (1 << 63), value << 32]);
        }
    }
    values.sort_unstable();
    values.dedup();
    values
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % n
    }

    fn of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len() as u64) as usize]
    }
}

/// Calls that we know and the installed libseccomp is too old for, by audit number and number.
fn newer(oracle: &mut Oracle) -> Vec<(u32, u32)> {
    let mut newer = Vec::new();
    for arch in &arch::ALL {
        let base = arch.number(&[0; 14]).unwrap();
        let theirs = oracle.table(arch, base);
        let ours = table::ROWS.iter().filter(|(name, _)| !theirs.contains_key(*name));
        newer.extend(ours.filter_map(|(_, row)| Some((arch.audit, arch.number(row)?))));
    }
    newer
}

/// Compares all numbers of all the group's architectures; returns how many verdicts were compared.
fn compare(
    what: &str,
    group: &[&str],
    profile: &spec::Seccomp,
    answer: &Answer,
    newer: &[(u32, u32)],
) -> usize {
    let archs = archs(group);
    let mut profile = profile.clone();
    profile.architectures = archs.iter().map(|arch| arch.name.to_string()).collect();
    let filter = compile_for(archs[0], &profile).unwrap();
    let default = parse_action(&profile.default_action, profile.default_errno_ret).unwrap();
    let values = values(&profile);
    let mut random = Random(0x5eed);
    let mut compared = 0;
    let audits = archs.iter().map(|arch| arch.audit).chain([0, 0x4000_0003, 0xc000_003e]);
    for audit in audits {
        let numbers =
            (0..600).chain(4000..4600).chain(5000..5600).chain(6000..6600).chain(0xf_0000..0xf_0010);
        let edges = [X32_BIT - 1, 1 << 31, u32::MAX - 1, u32::MAX];
        for nr in numbers.chain(X32_BIT..X32_BIT + 600).chain(edges) {
            let conditional = profile.syscalls.iter().any(|entry| !entry.args.is_empty());
            if newer.contains(&(audit, nr)) {
                continue;
            }
            for _ in 0..if conditional { 8 } else { 1 } {
                let mut args = [0; 6];
                args.iter_mut().for_each(|arg| *arg = random.of(&values));
                let data = Data { nr, arch: audit, args, big_endian: archs[0].big_endian };
                let (theirs, (ours, _)) =
                    (expected(answer, &archs, default, &data), run(&filter.program, &data));
                assert_eq!(
                    ours, theirs,
                    "{what} {group:?} {data:x?}: ours {ours:#x}, libseccomp {theirs:#x}"
                );
                compared += 1;
            }
        }
    }
    compared
}

#[test]
fn profiles_of_container_engines() {
    let Some(mut oracle) = Oracle::start() else { return };
    let newer = newer(&mut oracle);
    let mut compared = 0;
    for (what, profile) in profiles::all() {
        let profile = oracle.known(profile);
        for group in GROUPS {
            let answer = oracle.build(&archs(group), &profile).unwrap();
            compared += compare(&what, group, &profile, &answer, &newer);
        }
    }
    println!("{compared} verdicts are libseccomp's");
}

/// A random profile, full of overlapping rules.
fn random_profile(random: &mut Random, actions: &[&str], ops: &[&str]) -> spec::Seccomp {
    let names =
        ["socket", "clone", "personality", "ipc", "shmget", "socketcall", "read", "openat2", "fcntl64"];
    let numbers = [0, 1, 2, 5, 0xff, 0x1_0000_0000, 0x1_0000_0005, u64::MAX, 0xffff_ffff];
    let mut entries = Vec::new();
    for _ in 0..random.below(12) {
        let args: Vec<_> = (0..random.below(4))
            .map(|_| {
                let op = format!("SCMP_CMP_{}", random.of(ops));
                let (value, two) = (random.of(&numbers), random.of(&numbers));
                serde_json::json!({ "index": random.below(3), "value": value, "valueTwo": two, "op": op })
            })
            .collect();
        let action = format!("SCMP_ACT_{}", random.of(actions));
        let list: Vec<_> = (0..=random.below(2)).map(|_| random.of(&names)).collect();
        entries.push(serde_json::json!({ "names": list, "action": action, "args": args }));
    }
    profile(serde_json::json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": entries }))
}

fn brief(profile: &spec::Seccomp) -> String {
    let entry = |entry: &spec::Syscall| {
        let args = entry
            .args
            .iter()
            .map(|arg| format!("{}{}{:x}/{:x} ", arg.index, &arg.op[8..], arg.value, arg.value_two));
        format!("{:?} {} {}\n", entry.names, entry.action, args.collect::<String>())
    };
    profile.syscalls.iter().map(entry).collect()
}

/// What the specification says of a profile whose rules have one action, over plain values: no tables of numbers, no
/// order of rules, no BPF.
fn by_definition(profile: &spec::Seccomp, arch: &Arch, name: &str, args: &[u64; 6]) -> bool {
    let holds = |arg: &spec::SyscallArg| {
        let width = if arch.wide { u64::MAX } else { u64::from(u32::MAX) };
        let (value, two) = (arg.value & width, arg.value_two & width);
        let given = args[arg.index as usize] & width;
        match arg.op.as_str() {
            "SCMP_CMP_NE" => given != value,
            "SCMP_CMP_LT" => given < value,
            "SCMP_CMP_LE" => given <= value,
            "SCMP_CMP_EQ" => given == value,
            "SCMP_CMP_GE" => given >= value,
            "SCMP_CMP_GT" => given > value,
            _ => given & value == two & value,
        }
    };
    profile.syscalls.iter().filter(|entry| entry.names.iter().any(|n| n == name)).any(|entry| {
        let mut indices: Vec<_> = entry.args.iter().map(|arg| arg.index).collect();
        indices.sort_unstable();
        if indices.windows(2).any(|pair| pair[0] == pair[1]) {
            entry.args.iter().any(holds)
        } else {
            entry.args.iter().all(holds)
        }
    })
}

#[test]
fn random_profiles_by_definition() {
    let mut random = Random(11);
    let ops = ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"];
    for _ in 0..300 {
        let profile = random_profile(&mut random, &["ALLOW"], &ops);
        let values = values(&profile);
        for native in ["X86_64", "ARM", "S390X", "MIPS64N32", "RISCV64"].map(arch) {
            let program = compile_for(native, &profile).unwrap().program;
            for name in ["clone", "personality", "read", "openat2", "uname"] {
                let nr = native.number(row(name)).unwrap();
                // libseccomp has no number for what a multiplexer carries, so it doesn't count.
                let carried = |n: &str| native.multiplexed.is_some() && (n == "socket" || n == "shmget");
                let newest = profile.syscalls.iter().flat_map(|entry| &entry.names).filter(|n| !carried(n));
                let newest = newest.filter_map(|n| native.number(row(n))).max().filter(|n| *n != 0);
                for _ in 0..50 {
                    let mut args = [0; 6];
                    args.iter_mut().for_each(|arg| *arg = random.of(&values));
                    let data = Data { nr, arch: native.audit, args, big_endian: native.big_endian };
                    let expected = match by_definition(&profile, native, name, &args) {
                        true => RET_ALLOW,
                        false if newest.is_some_and(|newest| nr > newest) => RET_ENOSYS,
                        false => RET_ERRNO | libc::EPERM as u32,
                    };
                    let what = || format!("{} {} {name} {data:x?}", brief(&profile), native.name);
                    assert_eq!(run(&program, &data).0, expected, "{}", what());
                }
            }
        }
    }
}

/// The orders are left out: with overlapping ones in several rules, libseccomp 2.5.4 itself strays from its definition.
#[test]
fn random_profiles_with_one_action() {
    let Some(mut oracle) = Oracle::start() else { return };
    let newer = newer(&mut oracle);
    let mut random = Random(7);
    for round in 0..30 {
        let profile = random_profile(&mut random, &["ALLOW"], &["NE", "EQ", "MASKED_EQ"]);
        let group = random.of(&GROUPS);
        let answer = oracle.build(&archs(group), &profile).unwrap();
        compare(&format!("round {round}: {}", brief(&profile)), group, &profile, &answer, &newer);
    }
}

/// The numbers are the kernel's: libseccomp, which has them from the kernel too, knows no other.
#[test]
fn tables_agree() {
    let Some(mut oracle) = Oracle::start() else { return };
    for arch in &arch::ALL {
        let base = arch.number(&[0; 14]).unwrap();
        for (name, number) in oracle.table(arch, base) {
            let row = row(&name);
            assert_eq!(arch.number(row), Some(number.as_u64().unwrap() as u32), "{name} on {}", arch.name);
        }
    }
}
