//! Programs loaded into the running kernel, each into a thread of its own that ends with it.

use std::io::{Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;

use serde_json::json;

use super::*;

/// Loads a profile into a new thread, and runs `then` in it with the listener.
fn loaded<T: Send + 'static>(
    json: serde_json::Value,
    then: impl FnOnce(Option<OwnedFd>) -> T + Send + 'static,
) -> T {
    let filter = compile(&profile(json)).unwrap();
    std::thread::spawn(move || {
        crate::init::attrs::misc::set_no_new_privs().unwrap();
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
        println!("SKIP: the profile is one for x86_64");
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
fn all_default_profiles_load() {
    for (what, mut profile) in profiles::installed() {
        profile.architectures =
            vec!["SCMP_ARCH_X86_64".into(), "SCMP_ARCH_X86".into(), "SCMP_ARCH_X32".into()];
        let filter = compile_for(arch("X86_64"), &profile).unwrap();
        println!("{what}: {} instructions", filter.program.len());
        let alive = std::thread::spawn(move || {
            crate::init::attrs::misc::set_no_new_privs().unwrap();
            install(&filter).unwrap();
            std::fs::read_to_string("/proc/thread-self/status").unwrap()
        });
        assert!(alive.join().unwrap().contains("Seccomp:\t2"), "{what}");
    }
}

#[test]
fn the_listener_reaches_the_agent() {
    let path = std::env::temp_dir().join(format!("hydra-seccomp-agent-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let agent = UnixListener::bind(&path).unwrap();
    let json = json!({ "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path, "listenerMetadata": "who",
        "syscalls": [{ "names": ["swapoff"], "action": "SCMP_ACT_NOTIFY" }] });
    let told = compile(&profile(json.clone())).unwrap().notify.unwrap();
    let listener = loaded(json, |listener| listener.unwrap());
    let state = ContainerProcessState::new("1.3.0", &told, 42, json!({ "id": "c1", "status": "creating" }));
    notify(&told, &state, listener.as_fd()).unwrap();
    let (mut received, mut space) = ([0; 4096], nix::cmsg_space!([i32; 1]));
    let (connection, _) = agent.accept().unwrap();
    let mut parts = [std::io::IoSliceMut::new(&mut received)];
    let flags = nix::sys::socket::MsgFlags::empty();
    let message = nix::sys::socket::recvmsg::<()>(
        std::os::fd::AsRawFd::as_raw_fd(&connection),
        &mut parts,
        Some(&mut space),
        flags,
    )
    .unwrap();
    let Some(nix::sys::socket::ControlMessageOwned::ScmRights(fds)) = message.cmsgs().unwrap().next() else {
        panic!("no descriptor came with the message");
    };
    let link = std::fs::read_link(format!("/proc/self/fd/{}", fds[0])).unwrap();
    assert_eq!(link.to_str(), Some("anon_inode:seccomp notify"));
    nix::unistd::close(fds[0]).unwrap();
    let length = message.bytes;
    let got: serde_json::Value = serde_json::from_slice(&received[..length]).unwrap();
    let expected = json!({ "ociVersion": "1.3.0", "fds": ["seccompFd"], "pid": 42, "metadata": "who",
        "state": { "id": "c1", "status": "creating" } });
    assert_eq!(got, expected);
    std::fs::remove_file(&path).unwrap();
    let text = notify(&told, &state, listener.as_fd()).unwrap_err().to_string();
    assert!(
        text.starts_with("failed to connect with seccomp agent specified in the seccomp profile"),
        "{text}"
    );
}

#[test]
fn names_for_features() {
    assert!(known_actions().is_sorted() && known_operators().is_sorted() && known_archs().is_sorted());
    assert_eq!(known_archs().len(), 18);
    assert!(supported_flags().iter().all(|flag| known_flags().contains(flag)));
    assert!(supported_flags().contains(&"SECCOMP_FILTER_FLAG_LOG"), "Linux 4.14");
}
