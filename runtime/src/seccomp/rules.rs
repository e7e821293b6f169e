//! From the profile to rules: per architecture and number, what to do in which order.

use std::cmp::Ordering;

use super::arch::Arch;
use super::table::{self, Row};
use crate::error::Result;
use crate::invalid;
use crate::spec;

/// How an argument is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    Ne,
    Lt,
    Le,
    Eq,
    Ge,
    Gt,
    MaskedEq,
}

/// One comparison: `arg & mask` against `value`. The mask is all ones but for MaskedEq.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cond {
    pub arg: u8,
    pub op: Op,
    pub mask: u64,
    pub value: u64,
}

/// All of `conds`, which stand in the order of their arguments, must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub conds: Vec<Cond>,
    /// SECCOMP_RET_*.
    pub action: u32,
}

/// By their names in a profile, sorted.
pub const OPERATORS: [(&str, Op); 7] = [
    ("SCMP_CMP_EQ", Op::Eq),
    ("SCMP_CMP_GE", Op::Ge),
    ("SCMP_CMP_GT", Op::Gt),
    ("SCMP_CMP_LE", Op::Le),
    ("SCMP_CMP_LT", Op::Lt),
    ("SCMP_CMP_MASKED_EQ", Op::MaskedEq),
    ("SCMP_CMP_NE", Op::Ne),
];

const ARGS: u32 = 6;

impl Cond {
    pub fn parse(arg: &spec::SyscallArg) -> Result<Cond> {
        let Some(&(_, op)) = OPERATORS.iter().find(|(name, _)| *name == arg.op) else {
            invalid!("string {} is not a valid operator for seccomp", arg.op);
        };
        if arg.index >= ARGS {
            invalid!(
                "syscalls only have up to {ARGS} arguments: seccomp argument index {} is out of range",
                arg.index
            );
        }
        let arg_index = arg.index as u8;
        Ok(match op {
            Op::MaskedEq => Cond { arg: arg_index, op, mask: arg.value, value: arg.value_two & arg.value },
            _ => Cond { arg: arg_index, op, mask: u64::MAX, value: arg.value },
        })
    }

    /// What a 32-bit architecture looks at: the lower half.
    fn narrow(mut self) -> Cond {
        self.mask &= u64::from(u32::MAX);
        self.value &= self.mask;
        self
    }

    /// libseccomp asks higher arguments first, equality before the orders, and the narrower interval before the wider.
    /// It matters where rules of different actions overlap.
    fn rank(&self, other: &Cond) -> Ordering {
        let class = |op: Op| match op {
            Op::Eq | Op::Ne | Op::MaskedEq => 3,
            Op::Le | Op::Lt => 2,
            Op::Ge | Op::Gt => 1,
        };
        let values = match self.op {
            Op::Le | Op::Lt => self.value.cmp(&other.value),
            _ => other.value.cmp(&self.value),
        };
        other.arg.cmp(&self.arg).then(class(other.op).cmp(&class(self.op))).then(values)
    }
}

/// Which rules an entry of the profile stands for: one that needs all of `args`, or, where it names an argument twice,
/// one for each of them: so runc reads it.
pub fn alternatives(args: &[spec::SyscallArg]) -> Result<Vec<Vec<Cond>>> {
    let mut conds = args.iter().map(Cond::parse).collect::<Result<Vec<_>>>()?;
    let twice = |(at, cond): (usize, &Cond)| conds[..at].iter().any(|other| other.arg == cond.arg);
    if conds.iter().enumerate().any(twice) {
        return Ok(conds.into_iter().map(|cond| vec![cond]).collect());
    }
    conds.sort_by_key(|cond| cond.arg);
    Ok(vec![conds])
}

/// A system call that some architecture has.
pub struct Name {
    row: &'static Row,
    carried: Option<Multiplexed>,
}

/// Looks up names one after another.
#[derive(Default)]
pub struct Names {
    next: usize,
}

impl Names {
    /// None: a name that no kernel has yet.
    pub fn find(&mut self, name: &str) -> Result<Option<Name>> {
        if name.is_empty() {
            invalid!("empty string is not a valid syscall");
        }
        let Some(at) = table::find(name, self.next) else { return Ok(None) };
        self.next = at + 1;
        Ok(Some(Name { row: &table::ROWS[at].1, carried: multiplexer(name) }))
    }
}

/// The rules of one architecture, by number.
#[derive(Debug, Default)]
pub struct Rules {
    always: Vec<(u32, u32)>,
    by_argument: Vec<(u32, Rule)>,
    /// The highest number that the profile names, 0 if there is none.
    pub last: u32,
}

/// What to do about each number, both lists ascending and no number in both.
pub struct Settled {
    /// This action, whatever the arguments.
    pub always: Vec<(u32, u32)>,
    /// The first rule that matches decides.
    pub first: Vec<(u32, Vec<Rule>)>,
}

impl Rules {
    /// Makes a name count as older than the profile.
    pub fn know(&mut self, arch: &Arch, name: &Name) {
        // libseccomp has no number for a call that may come in two ways.
        if arch.multiplexed.is_none() || name.carried.is_none() {
            self.last = self.last.max(arch.number(name.row).unwrap_or(0));
        }
    }

    pub fn add(&mut self, arch: &Arch, name: &Name, conds: &[Cond], action: u32) {
        if let (Some(numbers), Some(call)) = (arch.multiplexed, name.carried) {
            let (number, call) = match call {
                Multiplexed::Socket(call) => (numbers.0, call),
                Multiplexed::Ipc(call) => (numbers.1, call),
            };
            // The first argument says which call it is; libseccomp leaves the other conditions as they are, although
            // they then look at the pointer to the arguments.
            let first = Cond { arg: 0, op: Op::Eq, mask: u64::MAX, value: call.into() };
            let rest = conds.iter().copied().filter(|cond| cond.arg != 0);
            self.push(arch, number, std::iter::once(first).chain(rest), action);
        }
        if let Some(number) = arch.number(name.row) {
            self.push(arch, number, conds.iter().copied(), action);
        }
    }

    fn push(&mut self, arch: &Arch, number: u32, conds: impl Iterator<Item = Cond>, action: u32) {
        let conds: Vec<_> = conds
            .map(|cond| if arch.wide { cond } else { cond.narrow() })
            // Whatever is masked by 0 is equal to 0.
            .filter(|cond| cond.mask != 0)
            .collect();
        match conds.is_empty() {
            true => self.always.push((number, action)),
            false => self.by_argument.push((number, Rule { conds, action })),
        }
    }

    /// Settles what several rules say of one call, as libseccomp does: the first unconditional one stands whatever else is
    /// said; a narrower rule after a wider one is dropped; one that contradicts a narrower rule before it is an error.
    pub fn settle(mut self, arch: &Arch) -> Result<Settled> {
        self.always.sort_by_key(|(number, _)| *number);
        self.always.dedup_by_key(|(number, _)| *number);
        let always = self.always;
        let decided = |number: u32| always.binary_search_by_key(&number, |(known, _)| *known).is_ok();
        self.by_argument.retain(|(number, _)| !decided(*number));
        self.by_argument.sort_by_key(|(number, _)| *number);
        let mut first: Vec<(u32, Vec<Rule>)> = Vec::new();
        for (number, rule) in self.by_argument {
            match first.last_mut() {
                Some((known, rules)) if *known == number => {
                    if let Err(why) = join(rules, rule) {
                        invalid!("error adding seccomp rule for syscall {}: {why}", arch.call(number));
                    }
                }
                _ => first.push((number, vec![rule])),
            }
        }
        for (_, rules) in &mut first {
            rules.sort_by(|a, b| {
                let ranks = a.conds.iter().zip(&b.conds).map(|(a, b)| a.rank(b));
                ranks.fold(Ordering::Equal, Ordering::then)
            });
        }
        Ok(Settled { always, first })
    }
}

fn join(rules: &mut Vec<Rule>, rule: Rule) -> Result<(), &'static str> {
    for known in rules.iter() {
        if known.action != rule.action && known.conds.starts_with(&rule.conds) {
            return Err("another action is already given for the same arguments");
        }
        if rule.conds.starts_with(&known.conds) {
            return Ok(());
        }
    }
    rules.retain(|known| !known.conds.starts_with(&rule.conds));
    rules.push(rule);
    Ok(())
}

/// The number of a call at socketcall(2) or ipc(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Multiplexed {
    Socket(u8),
    Ipc(u8),
}

/// The calls that socketcall(2) and ipc(2) carry: `uapi/linux/net.h` and `uapi/linux/ipc.h`.
fn multiplexer(name: &str) -> Option<Multiplexed> {
    use Multiplexed::{Ipc, Socket};
    Some(match name {
        "socket" => Socket(1),
        "bind" => Socket(2),
        "connect" => Socket(3),
        "listen" => Socket(4),
        "accept" => Socket(5),
        "getsockname" => Socket(6),
        "getpeername" => Socket(7),
        "socketpair" => Socket(8),
        "send" => Socket(9),
        "recv" => Socket(10),
        "sendto" => Socket(11),
        "recvfrom" => Socket(12),
        "shutdown" => Socket(13),
        "setsockopt" => Socket(14),
        "getsockopt" => Socket(15),
        "sendmsg" => Socket(16),
        "recvmsg" => Socket(17),
        "accept4" => Socket(18),
        "recvmmsg" => Socket(19),
        "sendmmsg" => Socket(20),
        "semop" => Ipc(1),
        "semget" => Ipc(2),
        "semctl" => Ipc(3),
        "semtimedop" => Ipc(4),
        "msgsnd" => Ipc(11),
        "msgrcv" => Ipc(12),
        "msgget" => Ipc(13),
        "msgctl" => Ipc(14),
        "shmat" => Ipc(21),
        "shmdt" => Ipc(22),
        "shmget" => Ipc(23),
        "shmctl" => Ipc(24),
        _ => return None,
    })
}
