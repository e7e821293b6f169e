//! The kernel's list of BPF maps.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

const MAP_LOOKUP_ELEM: libc::c_int = 1;
const MAP_GET_NEXT_ID: libc::c_int = 12;
const MAP_GET_FD_BY_ID: libc::c_int = 14;
const OBJ_GET_INFO_BY_FD: libc::c_int = 15;

fn bpf(command: libc::c_int, attr: &mut [u64; 16]) -> Option<i32> {
    // SAFETY: `attr` is live, of the size given and at least as large as what these commands read and write; the
    // addresses in it are those of the callers' live buffers.
    let r = unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_mut_ptr(), size_of_val(attr)) };
    (r >= 0).then_some(r as i32)
}

/// The ids of cgroups that have a state map of network limits, by what the maps say.
pub fn limited_cgroups() -> Vec<u64> {
    let (mut id, mut found) = (0u32, Vec::new());
    loop {
        let mut attr = [0u64; 16];
        attr[0] = u64::from(id);
        if bpf(MAP_GET_NEXT_ID, &mut attr).is_none() {
            return found;
        }
        id = (attr[0] >> 32) as u32;
        found.extend(cgroup_of(id));
    }
}

/// The word at which a state map keeps its cgroup's id; `None` for others' maps.
fn cgroup_of(map: u32) -> Option<u64> {
    let mut attr = [0u64; 16];
    attr[0] = u64::from(map);
    let fd = bpf(MAP_GET_FD_BY_ID, &mut attr)?;
    // SAFETY: new and nobody else's.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // struct bpf_map_info: type, id, key_size, value_size, max_entries, map_flags, name[16], ...
    let mut info = [0u8; 88];
    let mut attr = [0u64; 16];
    attr[0] = fd.as_raw_fd() as u64 | (info.len() as u64) << 32;
    attr[1] = info.as_mut_ptr() as u64;
    bpf(OBJ_GET_INFO_BY_FD, &mut attr)?;
    if !info[24..40].starts_with(b"hydra_net\0") {
        return None;
    }
    let size = u32::from_ne_bytes(info[12..16].try_into().ok()?) as usize;
    let (key, mut value) = (0u32, vec![0u8; size.next_multiple_of(8)]);
    let mut attr = [0u64; 16];
    attr[0] = fd.as_raw_fd() as u64;
    attr[1] = std::ptr::from_ref(&key) as u64;
    attr[2] = value.as_mut_ptr() as u64;
    bpf(MAP_LOOKUP_ELEM, &mut attr)?;
    Some(u64::from_ne_bytes(value.get(32..40)?.try_into().ok()?))
}
