//! Programs loaded into the running kernel, each into a thread of its own that ends with it.

use std::io::{Seek, SeekFrom};
use std::os::fd::AsRawFd;

use serde_json::json;

use super::*;

/// Loads a profile into a new thread, and runs `then` in it with the listener.
fn loaded<T: Send + 'static>(
    json: serde_json::Value,
    then: impl FnOnce(Option<OwnedFd>) -> T + Send + 'static,
) -> T {
    let filter = compile(&profile(json)).unwrap();
    std::thread::spawn(move || {
        nix::sys::prctl::set_no_new_privs().unwrap();
        then(install(&filter).unwrap())
    })
    .join()
    .unwrap()
}

#[test]
fn the_kernel_takes_it_and_decides_alike() {
    let json = json!({ "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "flags": ["SECCOMP_FILTER_FLAG_LOG"],
        "syscalls": [
            { "names": ["lseek"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77,
              "args": [{ "index": 1, "value": 0x1_0000_0000_u64, "op": "SCMP_CMP_GE" }] },
            { "names": ["sethostname"], "action": "SCMP_ACT_ERRNO", "errnoRet": 78 },
        ] });
    if cfg!(not(target_arch = "x86_64")) {
        println!("SKIP the profile is one for x86_64");
        return;
    }
    loaded(json, |listener| {
        assert!(listener.is_none());
        assert!(nix::unistd::sethostname("").is_err());
        assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(78));
        let mut file = std::fs::File::open("/dev/zero").unwrap();
        let mut seek = |to| file.seek(SeekFrom::Start(to)).map_err(|e| e.raw_os_error());
        assert!(seek(u32::MAX.into()).is_ok());
        assert_eq!(seek(1 << 32), Err(Some(77)));
    });
}

#[test]
fn all_profiles_load() {
    for (what, mut profile) in profiles::all() {
        profile.architectures =
            vec!["SCMP_ARCH_X86_64".into(), "SCMP_ARCH_X86".into(), "SCMP_ARCH_X32".into()];
        let filter = compile_for(arch("X86_64"), &profile).unwrap();
        println!("{what}: {} instructions", filter.program.len());
        let alive = std::thread::spawn(move || {
            nix::sys::prctl::set_no_new_privs().unwrap();
            install(&filter).unwrap();
            std::fs::read_to_string("/proc/thread-self/status").unwrap()
        });
        assert!(alive.join().unwrap().contains("Seccomp:\t2"), "{what}");
    }
}

#[test]
fn a_rule_that_notifies_makes_a_listener() {
    let json = json!({ "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/agent",
        "flags": ["SECCOMP_FILTER_FLAG_LOG"],
        "syscalls": [{ "names": ["swapoff"], "action": "SCMP_ACT_NOTIFY" }] });
    let listener = loaded(json, |listener| listener.unwrap());
    let link = std::fs::read_link(format!("/proc/self/fd/{}", listener.as_raw_fd())).unwrap();
    assert_eq!(link.to_str(), Some("anon_inode:seccomp notify"));
}

#[test]
fn names_for_features() {
    assert!(known_actions().is_sorted() && known_operators().is_sorted() && known_archs().is_sorted());
    assert_eq!(known_archs().len(), 18);
    assert!(supported_flags().iter().all(|flag| known_flags().contains(flag)));
    assert!(supported_flags().contains(&"SECCOMP_FILTER_FLAG_LOG"), "Linux 4.14");
}
