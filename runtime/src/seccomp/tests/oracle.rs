//! The installed libseccomp, asked through Python's ctypes: a static test binary can't load it itself.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{json, Value};

use crate::seccomp::arch::Arch;
use crate::seccomp::rules::Op;
use crate::seccomp::{parse_action, rules};
use crate::spec;
use crate::sys::bpf::Insn;

pub struct Oracle {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

/// What libseccomp makes of a profile.
pub struct Answer {
    pub program: Vec<Insn>,
    /// The highest number that the profile names, for each architecture.
    pub last: Vec<u32>,
}

impl Oracle {
    /// None, and a counted SKIP, where there is no Python or no libseccomp.
    pub fn start() -> Option<Oracle> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/src/seccomp/tests/libseccomp.py");
        let child = Command::new("python3").arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let Ok(mut child) = child else {
            println!("SKIP no python3 to ask libseccomp with");
            return None;
        };
        let (to, from) = (child.stdin.take()?, BufReader::new(child.stdout.take()?));
        let mut oracle = Oracle { child, to, from };
        if oracle.ask(&json!({ "table": 0, "first": 0, "count": 0 })).is_none() {
            println!("SKIP no libseccomp.so.2 to compare with");
            return None;
        }
        Some(oracle)
    }

    fn ask(&mut self, request: &Value) -> Option<Value> {
        writeln!(self.to, "{request}").ok()?;
        let mut line = String::new();
        self.from.read_line(&mut line).ok()?;
        serde_json::from_str(&line).ok()
    }

    /// The profile without the calls that are newer than the installed libseccomp.
    pub fn known(&mut self, mut profile: spec::Seccomp) -> spec::Seccomp {
        for entry in &mut profile.syscalls {
            let known = self.ask(&json!({ "names": entry.names })).expect("libseccomp.py ended");
            entry.names = serde_json::from_value(known).unwrap();
        }
        profile
    }

    /// All calls that libseccomp knows of an architecture, by name.
    pub fn table(&mut self, arch: &Arch, first: u32) -> serde_json::Map<String, Value> {
        match self.ask(&json!({ "table": token(arch), "first": first, "count": 1200 })) {
            Some(Value::Object(table)) => table,
            other => panic!("libseccomp answered {other:?}"),
        }
    }

    /// Err: libseccomp refuses the profile.
    pub fn build(&mut self, archs: &[&Arch], profile: &spec::Seccomp) -> Result<Answer, String> {
        let default = parse_action(&profile.default_action, profile.default_errno_ret).unwrap();
        let mut calls = Vec::new();
        for entry in &profile.syscalls {
            let action = parse_action(&entry.action, entry.errno_ret).unwrap();
            for conds in rules::alternatives(&entry.args).unwrap() {
                let conds: Vec<_> = conds
                    .iter()
                    .map(|cond| match cond.op {
                        Op::MaskedEq => json!([cond.arg, 7, cond.mask, cond.value]),
                        op => json!([cond.arg, op as u32 + 1, cond.value, 0]),
                    })
                    .collect();
                calls.push(json!({ "names": entry.names, "action": action, "conds": conds }));
            }
        }
        let archs: Vec<_> = archs.iter().map(|arch| (token(arch), arch.big_endian)).collect();
        let request = json!({
            "archs": archs.iter().map(|(token, _)| json!({ "token": token })).collect::<Vec<_>>(),
            "big_endian": archs[0].1,
            "default": default,
            "syscalls": calls,
        });
        let answer = self.ask(&request).expect("libseccomp.py ended");
        let Some(program) = answer["bpf"].as_array() else { return Err(answer.to_string()) };
        let field = |insn: &Value, at: usize| insn[at].as_u64().unwrap();
        let program = program.iter().map(|insn| Insn {
            code: field(insn, 0) as u16,
            jt: field(insn, 1) as u8,
            jf: field(insn, 2) as u8,
            k: field(insn, 3) as u32,
        });
        let last = answer["last"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as u32);
        Ok(Answer { program: program.collect(), last: last.collect() })
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// libseccomp's name for it: the audit number, but for x32, which has one of its own.
fn token(arch: &Arch) -> u32 {
    if arch.is_x32() {
        arch.audit & 0x7fff_ffff
    } else {
        arch.audit
    }
}
