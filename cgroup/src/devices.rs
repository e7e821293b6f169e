//! Device rules: lists of cgroup v1, BPF programs of cgroup v2.

use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::AsFd;

use crate::error::{invalid, Context, Error, Result};
use crate::resources::DeviceRule;
use crate::sys::bpf;

const MKNOD: u8 = 1;
const READ: u8 = 2;
const WRITE: u8 = 4;
const ALL: u8 = MKNOD | READ | WRITE;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Node {
    Block = 1,
    Char = 2,
}

/// What a rule is about. `None` is any number.
type Key = (Node, Option<u32>, Option<u32>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rule {
    allow: bool,
    /// `None` for every device.
    key: Option<Key>,
    access: u8,
}

/// What runc allows in every container on top of the specification's list: making any node, and the use of
/// null, zero, full, random, urandom, tty, ptmx, pts and net/tun.
pub fn default_rules() -> Vec<DeviceRule> {
    let rule = |kind: &str, major: Option<i64>, minor: Option<i64>, access: &str| DeviceRule {
        allow: true,
        kind: Some(kind.to_string()),
        major,
        minor,
        access: Some(access.to_string()),
    };
    let mut rules = vec![rule("c", None, None, "m"), rule("b", None, None, "m")];
    let known = [(1, 3), (1, 8), (1, 7), (5, 0), (1, 5), (1, 9), (5, 2), (10, 200)];
    rules.extend(known.map(|(major, minor)| rule("c", Some(major), Some(minor), "rwm")));
    rules.push(rule("c", Some(136), None, "rwm"));
    rules
}

/// Refuses rules that make no sense.
pub fn check(rules: &[DeviceRule]) -> Result<()> {
    rules.iter().try_for_each(|r| parse(r).map(drop))
}

fn parse(rule: &DeviceRule) -> Result<Rule> {
    let node = match rule.kind.as_deref() {
        None | Some("" | "a") => None,
        Some("b") => Some(Node::Block),
        // `u` (unbuffered) is a character device to the kernel.
        Some("c" | "u") => Some(Node::Char),
        Some(other) => invalid!("devices: type \"{other}\" is none of a, b, c, u"),
    };
    let mut access = 0;
    for c in rule.access.as_deref().filter(|a| !a.is_empty()).unwrap_or("rwm").chars() {
        access |= match c {
            'm' => MKNOD,
            'r' => READ,
            'w' => WRITE,
            other => invalid!("devices: access \"{other}\" is none of r, w, m"),
        };
    }
    let number = |n: Option<i64>, what: &str| match n {
        None | Some(-1) => Ok(None),
        Some(n) if (0..=i64::from(i32::MAX)).contains(&n) => Ok(Some(n as u32)),
        Some(n) => Err(Error::invalid(format!("devices: {what} {n} is no device number"))),
    };
    let (major, minor) = (number(rule.major, "major")?, number(rule.minor, "minor")?);
    Ok(Rule { allow: rule.allow, key: node.map(|n| (n, major, minor)), access })
}

/// A v1 device list: what holds by default, and where the opposite holds.
#[derive(Debug, Clone, PartialEq, Eq)]
struct List {
    allow: bool,
    exceptions: BTreeMap<Key, u8>,
}

/// A line for `devices.allow` or `devices.deny`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub allow: bool,
    pub text: String,
}

impl Line {
    pub fn file(&self) -> &'static str {
        if self.allow {
            "devices.allow"
        } else {
            "devices.deny"
        }
    }
}

/// What to write so that a v1 list becomes what `rules` say. `present` gives the text of `devices.list`, and is only
/// asked when it matters. Access that both the old and the new list grant is never interrupted: what is
/// granted anew is written first, what is taken last. Only where the default itself turns (a list that has not been
/// set yet) or the cgroup is `fresh` everything is written, the default first.
pub fn transition(
    rules: &[DeviceRule],
    fresh: bool,
    present: impl FnOnce() -> Result<String>,
) -> Result<Vec<Line>> {
    let rules = rules.iter().map(parse).collect::<Result<Vec<_>>>()?;
    let start = rules.iter().rposition(|r| r.key.is_none());
    let mut now = match start {
        // As if all were the other way round.
        Some(i) if fresh => List { allow: !rules[i].allow, exceptions: BTreeMap::new() },
        _ => List::read(&present()?)?,
    };
    let mut target = now.clone();
    for rule in &rules[start.unwrap_or(0)..] {
        target.apply(rule)?;
    }
    let mut lines = Vec::new();
    if now.allow != target.allow {
        lines.push(Line { allow: target.allow, text: "a".to_string() });
        now = List { allow: target.allow, exceptions: BTreeMap::new() };
    }
    let (added, removed) = (target.minus(&now), now.minus(&target));
    // The exceptions of a list that denies are grants.
    let (grants, losses) = if target.allow { (removed, added) } else { (added, removed) };
    let line = |allow| move |(key, access): (Key, u8)| Line { allow, text: Entry(key, access).to_string() };
    lines.extend(grants.into_iter().map(line(true)));
    lines.extend(losses.into_iter().map(line(false)));
    Ok(lines)
}

/// `c 1:3 rwm`
struct Entry(Key, u8);

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Entry((node, major, minor), access) = self;
        let number = |n: &Option<u32>| n.map_or("*".to_string(), |n| n.to_string());
        let node = if *node == Node::Block { 'b' } else { 'c' };
        write!(f, "{node} {}:{} ", number(major), number(minor))?;
        for (bit, letter) in [(READ, "r"), (WRITE, "w"), (MKNOD, "m")] {
            if access & bit != 0 {
                f.write_str(letter)?;
            }
        }
        Ok(())
    }
}

impl List {
    /// From the text of `devices.list`. A list that allows by default shows no exceptions.
    fn read(text: &str) -> Result<List> {
        let mut list = List { allow: false, exceptions: BTreeMap::new() };
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let (Some(kind), Some(numbers), Some(access)) = (words.next(), words.next(), words.next()) else {
                invalid!("devices.list has a line \"{line}\"");
            };
            let (major, minor) = numbers.split_once(':').unwrap_or((numbers, "*"));
            let number = |n: &str| if n == "*" { None } else { n.parse().ok() };
            let rule = DeviceRule {
                allow: true,
                kind: Some(kind.to_string()),
                major: number(major),
                minor: number(minor),
                access: Some(access.to_string()),
            };
            list.apply(&parse(&rule)?)?;
        }
        Ok(list)
    }

    fn apply(&mut self, rule: &Rule) -> Result<()> {
        let Some(key) = rule.key else {
            *self = List { allow: rule.allow, exceptions: BTreeMap::new() };
            return Ok(());
        };
        if rule.allow != self.allow {
            *self.exceptions.entry(key).or_default() |= rule.access;
            return Ok(());
        }
        // An exception wider than the rule can't have a hole, and the kernel would ignore the attempt in silence.
        let wider =
            self.exceptions.iter().find(|(k, a)| **k != key && covers(k, &key) && **a & rule.access != 0);
        if let Some((k, access)) = wider {
            invalid!(
                "devices: rule \"{}\" is not possible on cgroup v1: it would punch a hole in \"{}\"",
                Entry(key, rule.access),
                Entry(*k, *access)
            );
        }
        for (k, access) in self.exceptions.iter_mut() {
            if covers(&key, k) {
                *access &= !rule.access;
            }
        }
        self.exceptions.retain(|_, access| *access != 0);
        Ok(())
    }

    /// Exceptions that `other` lacks.
    fn minus(&self, other: &List) -> Vec<(Key, u8)> {
        let left = |(key, access): (&Key, &u8)| {
            let rest = access & !other.exceptions.get(key).unwrap_or(&0);
            (rest != 0).then_some((*key, rest))
        };
        self.exceptions.iter().filter_map(left).collect()
    }
}

fn covers(wide: &Key, narrow: &Key) -> bool {
    let any = |w: Option<u32>, n: Option<u32>| w.is_none() || w == n;
    wide.0 == narrow.0 && any(wide.1, narrow.1) && any(wide.2, narrow.2)
}

/// What a list of grants starting from none comes to. `None` if the rules end in a list of refusals.
pub(crate) fn grants(rules: &[DeviceRule]) -> Result<Option<Vec<Grant>>> {
    let mut list = List { allow: false, exceptions: BTreeMap::new() };
    for rule in rules {
        list.apply(&parse(rule)?)?;
    }
    let grant = |(key, access): (Key, u8)| {
        let text = Entry(key, access).to_string();
        let access = text.rsplit(' ').next().unwrap_or_default().to_string();
        Grant { block: key.0 == Node::Block, major: key.1, minor: key.2, access }
    };
    Ok((!list.allow).then(|| list.exceptions.into_iter().map(grant).collect()))
}

/// One grant of a device list.
pub(crate) struct Grant {
    pub block: bool,
    pub major: Option<u32>,
    pub minor: Option<u32>,
    pub access: String,
}

/// The rules as a BPF program: the last rule that speaks about an access decides it; what no rule speaks
/// about is denied.
pub fn program(rules: &[DeviceRule]) -> Result<Vec<bpf::Insn>> {
    use bpf::{exit, jump, mov, Insn, Test};
    // r2 type, r3 access still to be decided, r4 major, r5 minor
    let mut code = vec![
        Insn::load32(2, 1, 0),
        mov::reg(3, 2),
        Insn::and(2, 0xffff),
        Insn::shift_right(3, 16),
        Insn::load32(4, 1, 4),
        Insn::load32(5, 1, 8),
    ];
    for rule in rules.iter().rev() {
        let rule = parse(rule)?;
        let body = if rule.allow {
            let mut body = vec![Insn::and(3, !i32::from(rule.access))];
            body.push(jump(Test::NotEqual, 3, 0, 2));
            body.extend([mov::imm(0, 1), exit()]);
            body
        } else {
            vec![
                mov::reg(6, 3),
                Insn::and(6, i32::from(rule.access)),
                jump(Test::Equal, 6, 0, 2),
                mov::imm(0, 0),
                exit(),
            ]
        };
        if rule.key.is_none() && rule.access == ALL {
            // Nothing gets past this rule, and the verifier refuses code that can't be reached.
            code.extend([mov::imm(0, i32::from(rule.allow)), exit()]);
            return Ok(code);
        }
        let mut tests = Vec::new();
        if let Some((node, major, minor)) = rule.key {
            tests.push((2, node as i32));
            tests.extend(major.map(|n| (4, n as i32)));
            tests.extend(minor.map(|n| (5, n as i32)));
        }
        let count = tests.len();
        for (i, (register, value)) in tests.into_iter().enumerate() {
            let skip = (count - i - 1 + body.len()) as i16;
            code.push(jump(Test::NotEqual, register, value, skip));
        }
        code.extend(body);
    }
    code.extend([mov::imm(0, 0), exit()]);
    Ok(code)
}

/// Puts the rules in force on a v2 cgroup. Where a program is there already it is replaced in one step, so that at
/// no moment access is denied, nor all of it allowed. `fresh` says that none can be there.
pub fn attach(cgroup: impl AsFd, rules: &[DeviceRule], fresh: bool) -> Result<()> {
    let cgroup = cgroup.as_fd();
    let program = bpf::load_device_program(&program(rules)?).context("loading the device filter")?;
    let old = if fresh {
        Vec::new()
    } else {
        bpf::attached_device_programs(cgroup).context("finding the device filter")?
    };
    // Replacing one program is atomic since Linux 5.6. With several, the new one goes in before the old ones leave.
    if let [one] = old.as_slice() {
        if let Ok(()) = bpf::attach_device_program(cgroup, &program, Some(one)) {
            return Ok(());
        }
    }
    bpf::attach_device_program(cgroup, &program, None).context("attaching the device filter")?;
    for program in &old {
        bpf::detach_device_program(cgroup, program).context("detaching the former device filter")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(allow: bool, kind: &str, major: i64, minor: i64, access: &str) -> DeviceRule {
        let number = |n: i64| (n >= 0).then_some(n);
        let (kind, access) = (Some(kind.to_string()), Some(access.to_string()));
        DeviceRule { allow, kind, major: number(major), minor: number(minor), access }
    }

    fn lines(rules: &[DeviceRule], present: Option<&str>) -> Vec<String> {
        let lines =
            transition(rules, present.is_none(), || Ok(present.expect("not asked").to_string())).unwrap();
        lines.into_iter().map(|l| format!("{} {}", &l.file()[8..], l.text)).collect()
    }

    #[test]
    fn a_fresh_list_starts_with_its_default() {
        let rules =
            [rule(false, "a", -1, -1, "rwm"), rule(true, "c", 1, 3, "rw"), rule(true, "b", 8, -1, "r")];
        assert_eq!(lines(&rules, None), ["deny a", "allow b 8:* r", "allow c 1:3 rw"]);
    }

    #[test]
    fn what_is_granted_comes_before_what_is_taken() {
        let rules =
            [rule(false, "a", -1, -1, "rwm"), rule(true, "c", 1, 3, "rw"), rule(true, "c", 1, 5, "r")];
        let present = "c 1:3 rwm\nc 1:7 r\n";
        assert_eq!(lines(&rules, Some(present)), ["allow c 1:5 r", "deny c 1:3 m", "deny c 1:7 r"]);
        assert_eq!(lines(&rules, Some("c 1:3 rw\nc 1:5 r\n")), Vec::<String>::new());
    }

    #[test]
    fn rules_without_a_default_add_to_the_list() {
        assert_eq!(lines(&[rule(true, "c", 1, 3, "r")], Some("a *:* rwm\n")), Vec::<String>::new());
        assert_eq!(lines(&[rule(false, "c", 1, 3, "r")], Some("a *:* rwm\n")), ["deny c 1:3 r"]);
    }

    #[test]
    fn a_hole_in_a_wildcard_is_refused_on_v1() {
        let rules = [rule(false, "a", -1, -1, ""), rule(true, "c", -1, -1, "m"), rule(false, "c", 1, 3, "m")];
        let e = transition(&rules, true, || unreachable!()).unwrap_err();
        assert!(e.to_string().contains("c *:* m"), "{e}");
        let wide = [rule(false, "a", -1, -1, ""), rule(true, "c", 1, 3, "rm"), rule(false, "c", -1, -1, "m")];
        assert_eq!(lines(&wide, None), ["deny a", "allow c 1:3 r"]);
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        for bad in [rule(true, "x", 1, 1, "r"), rule(true, "c", 1, 1, "q"), rule(true, "c", 1 << 40, 1, "r")]
        {
            assert!(check(&[bad]).unwrap_err().to_string().starts_with("devices: "));
        }
    }

    #[test]
    fn a_program_ends_where_a_rule_decides_all() {
        let all = program(&[rule(true, "c", 1, 3, "r"), rule(false, "a", -1, -1, "rwm")]).unwrap();
        assert_eq!(all.len(), 6 + 2);
        let one = program(&[rule(true, "c", 1, 3, "r")]).unwrap();
        assert_eq!(one.len(), 6 + 3 + 4 + 2);
    }
}
