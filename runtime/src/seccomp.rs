//! `linux.seccomp`: from the profile to a BPF program, and its loading.
//!
//! Verdicts are libseccomp's, with runc's rules on top of it; the program is our own. Per architecture it is a binary
//! search over intervals of system call numbers with the same verdict, which takes few instructions to compile, to
//! check and to run (docs/decisions/020-seccomp-compiler.md).

mod arch;
mod emit;
mod rules;
mod table;
#[cfg(test)]
mod tests;

use std::os::fd::OwnedFd;

use arch::{Arch, X32_BIT};
use emit::{Dest, Program};
use rules::{Names, Rules};

use crate::error::{Context, Error, Kind, Result};
use crate::invalid;
use crate::spec;
use crate::sys::bpf::{self, Insn};

/// A profile, ready to be loaded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// At most 4096 instructions, the kernel's limit. None at all: there is nothing to load.
    pub program: Vec<Insn>,
    /// SECCOMP_FILTER_FLAG_*.
    pub flags: u32,
    /// Those of `flags` that the profile didn't ask for, and that an old kernel may do without.
    pub optional_flags: u32,
    /// Where to send the listener, if any rule notifies.
    pub notify: Option<Notify>,
}

/// The seccomp agent's socket, and the text that it gets as `metadata`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notify {
    pub listener_path: String,
    pub listener_metadata: String,
}

const RET_KILL_THREAD: u32 = 0;
const RET_KILL_PROCESS: u32 = 0x8000_0000;
const RET_TRAP: u32 = 0x0003_0000;
const RET_ERRNO: u32 = 0x0005_0000;
const RET_USER_NOTIF: u32 = 0x7fc0_0000;
const RET_TRACE: u32 = 0x7ff0_0000;
const RET_LOG: u32 = 0x7ffc_0000;
const RET_ALLOW: u32 = 0x7fff_0000;
const RET_ENOSYS: u32 = RET_ERRNO | libc::ENOSYS as u32;

const FLAG_LOG: u32 = 1 << 1;
const FLAG_SPEC_ALLOW: u32 = 1 << 2;
const FLAG_WAIT_KILLABLE_RECV: u32 = 1 << 5;

const MAX_INSNS: usize = 4096;

/// The actions of a profile, and whether errnoRet can go with them.
const ACTIONS: [(&str, u32, bool); 9] = [
    ("SCMP_ACT_ALLOW", RET_ALLOW, false),
    ("SCMP_ACT_ERRNO", RET_ERRNO, true),
    ("SCMP_ACT_KILL", RET_KILL_THREAD, false),
    ("SCMP_ACT_KILL_PROCESS", RET_KILL_PROCESS, false),
    ("SCMP_ACT_KILL_THREAD", RET_KILL_THREAD, false),
    ("SCMP_ACT_LOG", RET_LOG, false),
    ("SCMP_ACT_NOTIFY", RET_USER_NOTIF, false),
    ("SCMP_ACT_TRACE", RET_TRACE, true),
    ("SCMP_ACT_TRAP", RET_TRAP, false),
];

/// The flags of a profile. The child has one thread, so TSYNC, which runc takes without the specification knowing it,
/// asks for nothing.
const FLAGS: [(&str, u32); 4] = [
    ("SECCOMP_FILTER_FLAG_TSYNC", 0),
    ("SECCOMP_FILTER_FLAG_SPEC_ALLOW", FLAG_SPEC_ALLOW),
    ("SECCOMP_FILTER_FLAG_LOG", FLAG_LOG),
    ("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", FLAG_WAIT_KILLABLE_RECV),
];

/// Names for `features`, sorted.
pub fn known_actions() -> Vec<&'static str> {
    ACTIONS.iter().map(|(name, ..)| *name).collect()
}

/// Names for `features`, sorted.
pub fn known_operators() -> Vec<&'static str> {
    rules::OPERATORS.iter().map(|(name, _)| *name).collect()
}

/// Names for `features`, sorted.
pub fn known_archs() -> Vec<&'static str> {
    let mut names: Vec<_> = arch::ALL.iter().map(|arch| arch.name).collect();
    names.sort_unstable();
    names
}

/// Names for `features`.
pub fn known_flags() -> Vec<&'static str> {
    FLAGS.iter().map(|(name, _)| *name).collect()
}

/// Those of `known_flags` that the running kernel takes.
pub fn supported_flags() -> Vec<&'static str> {
    let supported = |flag: u32| match flag {
        0 => true,
        // The kernel takes it only together with a listener.
        FLAG_WAIT_KILLABLE_RECV => bpf::flag_supported(flag | bpf::NEW_LISTENER),
        flag => bpf::flag_supported(flag),
    };
    FLAGS.iter().filter(|(_, flag)| supported(*flag)).map(|(name, _)| *name).collect()
}

/// Compiles a profile. Unknown actions, operators, architectures and flags are refused by name; unknown system calls
/// are left out, since a profile names calls of kernels yet to come.
pub fn compile(profile: &spec::Seccomp) -> Result<Filter> {
    compile_for(Arch::native(), profile)
}

fn compile_for(native: &'static Arch, profile: &spec::Seccomp) -> Result<Filter> {
    // Nothing said at all: runc takes seccomp for switched off.
    if profile.default_action.is_empty() && profile.syscalls.is_empty() {
        return Ok(Filter::default());
    }
    let (flags, optional_flags) = parse_flags(profile)?;
    let default = parse_action(&profile.default_action, profile.default_errno_ret)?;
    if default == RET_USER_NOTIF {
        invalid!("SCMP_ACT_NOTIFY cannot be used as default action");
    }
    let archs = parse_archs(native, profile)?;
    let mut rules: Vec<Rules> = archs.iter().map(|_| Rules::default()).collect();
    let (mut names, mut notifies) = (Names::default(), false);
    for entry in &profile.syscalls {
        let action = parse_action(&entry.action, entry.errno_ret)?;
        notifies |= action == RET_USER_NOTIF;
        let alternatives = rules::alternatives(&entry.args)?;
        for name in &entry.names {
            // The listener reaches the agent only if the process can still write of it.
            if action == RET_USER_NOTIF && name == "write" {
                invalid!("SCMP_ACT_NOTIFY cannot be used for the write syscall");
            }
            let Some(name) = names.find(name)? else { continue };
            for (arch, rules) in archs.iter().zip(&mut rules) {
                rules.know(arch, &name);
                // What is the default anyway needs no rule, and contradicts none.
                if action != default {
                    alternatives.iter().for_each(|conds| rules.add(arch, &name, conds, action));
                }
            }
        }
    }
    let program = assemble(&archs, rules, default)?;
    let notify = parse_notify(profile, notifies, flags)?;
    let listener = if notifies { bpf::NEW_LISTENER } else { 0 };
    Ok(Filter { program, flags: flags | listener, optional_flags, notify })
}

fn parse_flags(profile: &spec::Seccomp) -> Result<(u32, u32)> {
    // Absent is not the same as empty: runc then lets speculation be (Linux 4.17), as before the flag existed.
    let Some(names) = &profile.flags else { return Ok((FLAG_SPEC_ALLOW, FLAG_SPEC_ALLOW)) };
    let mut flags = 0;
    for name in names {
        match FLAGS.iter().find(|(known, _)| known == name) {
            Some((_, flag)) => flags |= flag,
            None => invalid!("seccomp flag {name} is not known to this runtime"),
        }
    }
    Ok((flags, 0))
}

fn parse_action(name: &str, errno: Option<u32>) -> Result<u32> {
    let Some((_, action, takes_errno)) = ACTIONS.iter().find(|(known, ..)| *known == name) else {
        invalid!("string {name} is not a valid action for seccomp");
    };
    match errno {
        None if *takes_errno => Ok(action | libc::EPERM as u32),
        None => Ok(*action),
        // config-linux.md: "the runtime MUST print an error and fail".
        Some(_) if !takes_errno => invalid!("seccomp action {name} does not take an errnoRet"),
        Some(errno) if errno > 0xffff => invalid!("seccomp errnoRet {errno} is above 65535"),
        Some(errno) => Ok(action | errno),
    }
}

/// The native one, whether named or not, and the others in their order.
fn parse_archs(native: &'static Arch, profile: &spec::Seccomp) -> Result<Vec<&'static Arch>> {
    let mut archs = vec![native];
    for name in &profile.architectures {
        let Some(arch) = Arch::find(name) else {
            invalid!("string {name} is not a valid arch for seccomp");
        };
        if arch.big_endian != native.big_endian {
            invalid!("seccomp architecture {name} has another byte order than {}", native.name);
        }
        if !archs.contains(&arch) {
            archs.push(arch);
        }
    }
    Ok(archs)
}

fn parse_notify(profile: &spec::Seccomp, notifies: bool, flags: u32) -> Result<Option<Notify>> {
    if !notifies {
        if flags & FLAG_WAIT_KILLABLE_RECV != 0 {
            invalid!("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV needs a rule with SCMP_ACT_NOTIFY");
        }
        return Ok(None);
    }
    if profile.listener_path.is_empty() {
        invalid!("SCMP_ACT_NOTIFY needs linux.seccomp.listenerPath");
    }
    Ok(Some(Notify {
        listener_path: profile.listener_path.clone(),
        listener_metadata: profile.listener_metadata.clone(),
    }))
}

/// Numbers that no kernel knew when the profile was written get ENOSYS, so that a program falls back to an older call;
/// but where the default lets calls through, the kernel says so itself (runc's patchbpf).
fn wants_enosys(default: u32) -> bool {
    !matches!(default & 0xffff_0000, RET_ALLOW | RET_LOG | RET_TRACE)
}

fn assemble(archs: &[&'static Arch], rules: Vec<Rules>, default: u32) -> Result<Vec<Insn>> {
    let mut program = Program::default();
    let knows_any = rules.first().is_some_and(|native| native.last != 0);
    let mut intervals: Vec<(&Arch, Intervals)> = Vec::new();
    for (arch, rules) in archs.iter().zip(rules) {
        let own = Intervals::of(&mut program, arch, rules, default)?;
        intervals.push((arch, own));
    }
    // x32 goes by the audit number of x86_64, and follows it in the order of numbers.
    let x32 = intervals.iter().position(|(arch, _)| arch.is_x32()).map(|at| intervals.remove(at).1);
    let mut x32 = x32.or_else(|| Some(Intervals::no_x32(default, knows_any)));
    let mut sections = Vec::new();
    for (arch, mut own) in intervals.into_iter().rev() {
        if arch.name == "SCMP_ARCH_X86_64" {
            own.append(x32.take());
        }
        sections.insert(0, (arch.audit, program.by_number(&own.0)));
    }
    program.by_arch(&sections, Dest::Ret(RET_KILL_THREAD));
    let program = program.finish();
    if program.len() > MAX_INSNS {
        let len = program.len();
        invalid!("seccomp profile takes {len} instructions, and the kernel loads no more than {MAX_INSNS}");
    }
    Ok(program)
}

/// What to do from each number on; neighbours differ.
struct Intervals(Vec<(u32, Dest)>);

impl Intervals {
    fn of(program: &mut Program, arch: &Arch, rules: Rules, default: u32) -> Result<Intervals> {
        let base = if arch.is_x32() { X32_BIT } else { 0 };
        let last = rules.last;
        let mut list = Intervals(Vec::with_capacity(128));
        list.push(base, Dest::Ret(default));
        let rules::Settled { always, first } = rules.settle(arch)?;
        let mut first = first.into_iter().peekable();
        let mut one = |number: u32, dest: Dest| {
            list.push(number, dest);
            list.push(number + 1, Dest::Ret(default));
        };
        for (number, action) in always {
            while let Some((number, rules)) = first.next_if(|(other, _)| *other < number) {
                one(number, program.rules(arch, &rules, default));
            }
            one(number, Dest::Ret(action));
        }
        first.for_each(|(number, rules)| one(number, program.rules(arch, &rules, default)));
        if wants_enosys(default) && last != 0 {
            list.cut(last + 1, Dest::Ret(RET_ENOSYS));
            if arch.zero_means_unknown() {
                let after = list.at(1);
                list.0.retain(|(number, _)| *number > 1);
                list.0.splice(0..0, [(0, Dest::Ret(RET_ENOSYS)), (1, after)]);
            }
        }
        Ok(list)
    }

    /// The numbers of x32 where the profile doesn't name it. -1 is not one of them: a tracer sets it to skip a call.
    fn no_x32(default: u32, knows_any: bool) -> Intervals {
        let mut list = Intervals(vec![(X32_BIT, Dest::Ret(RET_KILL_THREAD))]);
        if wants_enosys(default) && knows_any {
            // runc's test for newer numbers goes by the bit, and comes first.
            list.push(2 * X32_BIT, Dest::Ret(RET_ENOSYS));
            list.push(3 * X32_BIT, Dest::Ret(RET_KILL_THREAD));
        }
        list.push(u32::MAX, Dest::Ret(default));
        list
    }

    fn at(&self, number: u32) -> Dest {
        let after = self.0.partition_point(|(from, _)| *from <= number);
        self.0[after - 1].1
    }

    fn push(&mut self, from: u32, dest: Dest) {
        if self.0.last().is_some_and(|(last, _)| *last == from) {
            self.0.pop();
        }
        if self.0.last().is_none_or(|(_, before)| *before != dest) {
            self.0.push((from, dest));
        }
    }

    /// From `from` on there is nothing but `dest`.
    fn cut(&mut self, from: u32, dest: Dest) {
        self.0.retain(|(number, _)| *number < from);
        self.push(from, dest);
    }

    fn append(&mut self, more: Option<Intervals>) {
        let Some(more) = more else { return };
        self.0.retain(|(number, _)| *number < X32_BIT);
        more.0.into_iter().for_each(|(from, dest)| self.push(from, dest));
    }
}

/// Loads the filter into the calling, single-threaded process. It takes no_new_privs or CAP_SYS_ADMIN. The listener is
/// there where a rule notifies.
pub fn install(filter: &Filter) -> Result<Option<OwnedFd>> {
    if filter.program.is_empty() {
        return Ok(None);
    }
    let loaded = match bpf::set_filter(&filter.program, filter.flags) {
        Err(nix::errno::Errno::EINVAL) if filter.optional_flags != 0 => {
            bpf::set_filter(&filter.program, filter.flags & !filter.optional_flags)
        }
        loaded => loaded,
    };
    loaded
        .map_err(|errno| match errno {
            nix::errno::Errno::ENOSYS => {
                Error::new(Kind::Unsupported, "this kernel has no seccomp filters (CONFIG_SECCOMP_FILTER)")
            }
            errno => Error::from(errno),
        })
        .context("error loading seccomp filter")
}
