//! What single rules become, and what is refused.

use serde_json::{json, Value};

use super::*;

const EPERM: u32 = RET_ERRNO | libc::EPERM as u32;

/// The verdict of a profile on x86_64 with x86.
fn verdict(json: &Value, on: &str, nr: u32, args: [u64; 6]) -> u32 {
    let filter = compile_for(arch("X86_64"), &profile(json.clone())).unwrap();
    run(&filter.program, &Data { nr, arch: arch(on).audit, args, big_endian: false }).0
}

fn allow(names: &[&str]) -> Value {
    json!({ "defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
        "syscalls": [{ "names": names, "action": "SCMP_ACT_ALLOW" }] })
}

fn refusal(json: Value) -> String {
    compile(&profile(json)).unwrap_err().to_string()
}

#[test]
fn an_empty_profile_loads_nothing() {
    let filter = compile(&profile(json!({}))).unwrap();
    assert_eq!(filter, Filter::default());
    assert!(install(&filter).unwrap().is_none());
}

#[test]
fn every_action() {
    let expected = [
        ("ALLOW", RET_ALLOW),
        ("ERRNO", EPERM),
        ("KILL", RET_KILL_THREAD),
        ("KILL_PROCESS", RET_KILL_PROCESS),
        ("KILL_THREAD", RET_KILL_THREAD),
        ("LOG", RET_LOG),
        ("NOTIFY", RET_USER_NOTIF),
        ("TRACE", RET_TRACE | 1),
        ("TRAP", RET_TRAP),
    ];
    for (action, value) in expected {
        let json = json!({ "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/agent",
            "syscalls": [{ "names": ["uname"], "action": format!("SCMP_ACT_{action}") }] });
        assert_eq!(verdict(&json, "X86_64", 63, [0; 6]), value, "{action}");
        assert_eq!(verdict(&json, "X86_64", 64, [0; 6]), RET_ALLOW);
    }
    for (action, code) in [("ERRNO", RET_ERRNO), ("TRACE", RET_TRACE)] {
        let json = json!({ "defaultAction": format!("SCMP_ACT_{action}"), "defaultErrnoRet": 38,
            "syscalls": [{ "names": ["uname"], "action": format!("SCMP_ACT_{action}"), "errnoRet": 9 }] });
        assert_eq!(verdict(&json, "X86_64", 63, [0; 6]), code | 9);
        assert_eq!(verdict(&json, "X86_64", 62, [0; 6]), code | 38);
    }
}

#[test]
fn refusals_by_name() {
    let with = |entry: Value| json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [entry] });
    assert_eq!(
        refusal(json!({ "defaultAction": "SCMP_ACT_X" })),
        "string SCMP_ACT_X is not a valid action for seccomp"
    );
    let text = refusal(with(json!({ "names": ["a"], "action": "KILL" })));
    assert_eq!(text, "string KILL is not a valid action for seccomp");
    let arg = |index: u32, op: &str| {
        with(
            json!({ "names": ["uname"], "action": "SCMP_ACT_LOG", "args": [{ "index": index, "value": 0, "op": op }] }),
        )
    };
    assert_eq!(refusal(arg(0, "EQ")), "string EQ is not a valid operator for seccomp");
    assert!(refusal(arg(6, "SCMP_CMP_EQ")).contains("index 6 is out of range"));
    let archs = |name: &str| json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": [name] });
    assert_eq!(refusal(archs("SCMP_ARCH_VAX")), "string SCMP_ARCH_VAX is not a valid arch for seccomp");
    assert!(refusal(archs("SCMP_ARCH_S390X")).contains("another byte order"));
    let flags = json!({ "defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_X"] });
    assert!(refusal(flags).starts_with("seccomp flag SECCOMP_FILTER_FLAG_X is not known"));
    assert!(refusal(with(json!({ "names": [""], "action": "SCMP_ACT_LOG" }))).contains("empty string"));
    let errno = json!({ "names": ["uname"], "action": "SCMP_ACT_LOG", "errnoRet": 1 });
    assert_eq!(refusal(with(errno)), "seccomp action SCMP_ACT_LOG does not take an errnoRet");
    let errno = json!({ "names": ["uname"], "action": "SCMP_ACT_ERRNO", "errnoRet": 65536 });
    assert!(refusal(with(errno)).contains("65536"));
}

#[test]
fn contradictions_are_refused() {
    let entry = |action: &str, value: u64| {
        json!({ "names": ["personality"], "action": action,
            "args": [{ "index": 0, "value": value, "op": "SCMP_CMP_EQ" }] })
    };
    let both = json!({ "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [entry("SCMP_ACT_ALLOW", 8), entry("SCMP_ACT_LOG", 8)] });
    let text = refusal(both);
    assert_eq!(
        text,
        "error adding seccomp rule for syscall personality: another action is already given for the same arguments"
    );
    // An unconditional rule stands, wherever it is.
    for order in [[0, 1], [1, 0]] {
        let rules =
            [entry("SCMP_ACT_LOG", 8), json!({ "names": ["personality"], "action": "SCMP_ACT_ALLOW" })];
        let json =
            json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": order.map(|at| rules[at].clone()) });
        assert_eq!(verdict(&json, "X86_64", 135, [8, 0, 0, 0, 0, 0]), RET_ALLOW);
    }
}

#[test]
fn notify_needs_somebody_to_notify() {
    let notify = |name: &str, path: &str| {
        json!({ "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path, "listenerMetadata": "m",
            "syscalls": [{ "names": [name], "action": "SCMP_ACT_NOTIFY" }] })
    };
    let filter = compile(&profile(notify("mkdir", "/run/agent"))).unwrap();
    assert_eq!(filter.flags, bpf::NEW_LISTENER | FLAG_SPEC_ALLOW);
    let expected = Notify { listener_path: "/run/agent".into(), listener_metadata: "m".into() };
    assert_eq!(filter.notify, Some(expected));
    assert_eq!(refusal(notify("mkdir", "")), "SCMP_ACT_NOTIFY needs linux.seccomp.listenerPath");
    assert_eq!(refusal(notify("write", "/a")), "SCMP_ACT_NOTIFY cannot be used for the write syscall");
    let default = json!({ "defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": "/a" });
    assert_eq!(refusal(default), "SCMP_ACT_NOTIFY cannot be used as default action");
    let flags =
        json!({ "defaultAction": "SCMP_ACT_LOG", "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"] });
    assert!(refusal(flags).contains("needs a rule with SCMP_ACT_NOTIFY"));
}

#[test]
fn flags_absent_are_not_flags_empty() {
    let flags = |json: Value| compile(&profile(json)).unwrap();
    let absent = flags(json!({ "defaultAction": "SCMP_ACT_ALLOW" }));
    assert_eq!((absent.flags, absent.optional_flags), (FLAG_SPEC_ALLOW, FLAG_SPEC_ALLOW));
    let empty = flags(json!({ "defaultAction": "SCMP_ACT_ALLOW", "flags": [] }));
    assert_eq!((empty.flags, empty.optional_flags), (0, 0));
    let named = ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"];
    let named = flags(json!({ "defaultAction": "SCMP_ACT_ALLOW", "flags": named }));
    assert_eq!((named.flags, named.optional_flags), (FLAG_LOG | FLAG_SPEC_ALLOW, 0));
}

#[test]
fn newer_calls_get_enosys() {
    let json = allow(&["read", "openat2", "no_such_call_yet"]);
    assert_eq!(verdict(&json, "X86_64", 437, [0; 6]), RET_ALLOW);
    assert_eq!(verdict(&json, "X86_64", 1, [0; 6]), EPERM);
    assert_eq!(verdict(&json, "X86_64", 438, [0; 6]), RET_ENOSYS);
    assert_eq!(verdict(&json, "X86", 3, [0; 6]), RET_ALLOW);
    assert_eq!(verdict(&json, "X86", 438, [0; 6]), RET_ENOSYS);
    // Other architectures, and x32 unless it is named, may do nothing.
    assert_eq!(verdict(&json, "AARCH64", 63, [0; 6]), RET_KILL_THREAD);
    assert_eq!(verdict(&json, "X86_64", X32_BIT, [0; 6]), RET_KILL_THREAD);
    assert_eq!(verdict(&json, "X86_64", u32::MAX, [0; 6]), EPERM);
    // A permissive default leaves new calls to the kernel.
    let deny = json!({ "defaultAction": "SCMP_ACT_LOG",
        "syscalls": [{ "names": ["read"], "action": "SCMP_ACT_ERRNO" }] });
    assert_eq!(verdict(&deny, "X86_64", 9999, [0; 6]), RET_LOG);
}

#[test]
fn sixty_four_bits_are_compared() {
    let with = |op: &str, value: u64, two: u64, given: u64, on: &str| {
        let mut json = allow(&["uname"]);
        json["syscalls"][0]["names"] = json!(["personality"]);
        json["syscalls"][0]["args"] =
            json!([{ "index": 5, "value": value, "valueTwo": two, "op": format!("SCMP_CMP_{op}") }]);
        let nr = if on == "X86" { 136 } else { 135 };
        verdict(&json, on, nr, [0, 0, 0, 0, 0, given]) == RET_ALLOW
    };
    const BIG: u64 = 0x1_0000_0005;
    for (op, below, at, above) in [
        ("NE", true, false, true),
        ("LT", true, false, false),
        ("LE", true, true, false),
        ("EQ", false, true, false),
        ("GE", false, true, true),
        ("GT", false, false, true),
    ] {
        let got = [BIG - 1, BIG, BIG + 1].map(|given| with(op, BIG, 0, given, "X86_64"));
        assert_eq!(got, [below, at, above], "{op}");
        let upper = [5, BIG, BIG + (1 << 32)].map(|given| with(op, BIG, 0, given, "X86_64"));
        assert_eq!(upper, [below, at, above], "{op} in the upper half");
        let narrow = [4, 5, 6].map(|given| with(op, BIG, 0, given | 7 << 32, "X86"));
        assert_eq!(narrow, [below, at, above], "{op} of 32 bits");
    }
    assert!(with("MASKED_EQ", 0xf0_0000_000f, 0x10_0000_0005, 0x0f1f_ffff_fff5, "X86_64"));
    assert!(!with("MASKED_EQ", 0xf0_0000_000f, 0x10_0000_0005, 0x20_0000_0005, "X86_64"));
    assert!(with("MASKED_EQ", 0, 1, 77, "X86_64"), "what is masked by 0 is 0");
}

#[test]
fn all_of_one_rule_or_any_of_several() {
    let arg = |index: u32, value: u64| json!({ "index": index, "value": value, "op": "SCMP_CMP_EQ" });
    let json = |rules: Vec<Value>| {
        let entry = |args| json!({ "names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": args });
        let entries: Vec<_> = rules.into_iter().map(entry).collect();
        json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": entries })
    };
    let allowed =
        |json: &Value, a: u64, b: u64| verdict(json, "X86_64", 135, [a, b, 0, 0, 0, 0]) == RET_ALLOW;
    let and = json(vec![json!([arg(1, 2), arg(0, 1)])]);
    assert_eq!([allowed(&and, 1, 2), allowed(&and, 1, 0), allowed(&and, 0, 2)], [true, false, false]);
    let or = json((1..=9).map(|value| json!([arg(0, value)])).collect());
    assert_eq!([allowed(&or, 9, 0), allowed(&or, 1, 0), allowed(&or, 10, 0)], [true, true, false]);
    let same_argument_twice = json(vec![json!([arg(0, 1), arg(0, 2)])]);
    assert_eq!([1, 2, 3].map(|a| allowed(&same_argument_twice, a, 0)), [true, true, false]);
}

#[test]
fn socketcall_follows_socket() {
    let json = allow(&["socket", "shmget"]);
    assert_eq!(verdict(&json, "X86", 359, [0; 6]), RET_ALLOW);
    assert_eq!(verdict(&json, "X86", 102, [1, 0, 0, 0, 0, 0]), RET_ALLOW);
    assert_eq!(verdict(&json, "X86", 102, [2, 0, 0, 0, 0, 0]), EPERM);
    assert_eq!(verdict(&json, "X86", 117, [23, 0, 0, 0, 0, 0]), RET_ALLOW);
    assert_eq!(verdict(&json, "X86", 117, [24, 0, 0, 0, 0, 0]), EPERM);
}

/// Hundreds of rules of their own each make jumps longer than the 255 instructions that a conditional one reaches.
#[test]
fn long_programs() {
    let many = |count: usize| {
        let entries: Vec<_> = table::ROWS
            .iter()
            .filter(|(_, row)| arch("X86_64").number(row).is_some())
            .take(count)
            .enumerate()
            .map(|(at, (name, _))| {
                json!({ "names": [name], "action": "SCMP_ACT_ALLOW", "args": [
                    { "index": 0, "value": at, "op": "SCMP_CMP_EQ" },
                    { "index": 3, "value": 7, "op": "SCMP_CMP_GT" }] })
            })
            .collect();
        json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": entries })
    };
    let json = many(330);
    let filter = compile_for(arch("X86_64"), &profile(json.clone())).unwrap();
    assert!(filter.program.len() > 2500 && filter.program.len() <= MAX_INSNS, "{}", filter.program.len());
    for (at, entry) in json["syscalls"].as_array().unwrap().iter().enumerate() {
        let nr = arch("X86_64").number(row(entry["names"][0].as_str().unwrap())).unwrap();
        let at = at as u64;
        for (args, expected) in
            [([at, 8], RET_ALLOW), ([at, 7], EPERM), ([at + 1, 8], EPERM), ([at | 1 << 32, 8], EPERM)]
        {
            let args = [args[0], 0, 0, args[1], 0, 0];
            let data = Data { nr, arch: arch("X86_64").audit, args, big_endian: false };
            let (verdict, steps) = run(&filter.program, &data);
            assert_eq!(verdict, expected, "{entry} {args:?}");
            assert!(steps < 40, "{steps} instructions for one call");
        }
    }
    let text = refusal({
        let mut json = many(330);
        json["architectures"] = json!(["SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_AARCH64"]);
        json
    });
    assert!(text.contains("the kernel loads no more than 4096"), "{text}");
}

/// Whatever is in a profile, it is refused or it is a program that the kernel would take: every jump lands within it, and
/// no way leads past its end.
#[test]
fn anything_goes_in_and_only_programs_come_out() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut below = move |n: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % n
    };
    let names = ["read", "socket", "ipc", "\u{0}", "no_such_call", "openat2", "breakpoint", "x", "semop"];
    let ops = ["SCMP_CMP_EQ", "SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_GE", "SCMP_CMP_MASKED_EQ"];
    let (mut refused, mut compiled) = (0, 0);
    for _ in 0..2000 {
        let mut word = |words: &[&str]| words[below(words.len() as u64) as usize].to_string();
        let action = word(&["SCMP_ACT_ERRNO", "SCMP_ACT_ALLOW", "SCMP_ACT_KILL", "SCMP_ACT_LOG"]);
        let other = word(&["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_NOTIFY", "SCMP_ACT_TRACE"]);
        let archs = [word(&["SCMP_ARCH_X86", "SCMP_ARCH_ARM"]), word(&["SCMP_ARCH_X32", "SCMP_ARCH_X86_64"])];
        // Something wrong now and then, so that most profiles are refused for one reason or none.
        let entries: Vec<_> = (0..below(20))
            .map(|_| {
                let args: Vec<_> = (0..below(4))
                    .map(|_| {
                        let (value, two) = (below(3) << below(63), below(u64::MAX >> 31));
                        let op = if below(90) == 0 { "EQ" } else { ops[below(5) as usize] };
                        let index = if below(90) == 0 { 6 } else { below(6) };
                        json!({ "index": index, "value": value, "valueTwo": two, "op": op })
                    })
                    .collect();
                let name = if below(90) == 0 { "" } else { names[below(9) as usize] };
                json!({ "names": [name], "action": other, "args": args })
            })
            .collect();
        let json = json!({ "defaultAction": action, "architectures": archs, "syscalls": entries, "listenerPath": "/a" });
        let Ok(filter) = compile_for(arch("X86_64"), &profile(json)) else {
            refused += 1;
            continue;
        };
        compiled += 1;
        let end = filter.program.len();
        for (at, insn) in filter.program.iter().enumerate() {
            let next = match insn.code {
                0x06 => continue,
                0x05 => vec![at + 1 + insn.k as usize],
                0x20 | 0x54 => vec![at + 1],
                _ => vec![at + 1 + usize::from(insn.jt), at + 1 + usize::from(insn.jf)],
            };
            assert!(next.iter().all(|&to| to < end), "{insn:?} at {at} of {end}");
        }
    }
    assert!(refused > 100 && compiled > 100, "{refused} refused, {compiled} compiled");
}
