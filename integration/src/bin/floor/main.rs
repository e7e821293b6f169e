//! `floor ROOTFS CGROUP PROGRAM`: the bare system calls of a container and nothing else, as the measure of what a runtime
//! adds. It makes the namespaces, mounts, devices, masks and cgroups of the benches' plain bundle, changes the root,
//! executes PROGRAM, waits for it and removes the cgroups. It reads no configuration and checks nothing it needn't.

#[allow(unsafe_code)]
mod sys;

use integration::host::cgroup_dirs;
use nix::mount::{mount, umount2, MntFlags, MsFlags};
use nix::sched::CloneFlags;
use nix::sys::stat::{makedev, mknod, Mode, SFlag};
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [rootfs, cgroup, program] = args.as_slice() else {
        return Err("floor ROOTFS CGROUP PROGRAM".into());
    };
    let mut tasks = Vec::new();
    // The v2 part of a hybrid host has no controllers.
    let dirs: Vec<_> =
        cgroup_dirs(cgroup).into_iter().filter(|d| !d.starts_with("/sys/fs/cgroup/unified")).collect();
    for dir in &dirs {
        fs::create_dir_all(dir)?;
        prepare_cpuset(dir)?;
        let name = if dir.join("tasks").exists() { "tasks" } else { "cgroup.procs" };
        tasks.push(File::options().write(true).open(dir.join(name))?);
    }
    let flags = CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWNS;
    match sys::clone(flags)? {
        None => {
            for task in &mut tasks {
                task.write_all(b"0")?;
            }
            become_container(Path::new(rootfs), program)
        }
        Some(child) => {
            let end = nix::sys::wait::waitpid(child, None)?;
            if end != nix::sys::wait::WaitStatus::Exited(child, 0) {
                return Err(format!("the container ended otherwise: {end:?}").into());
            }
            for dir in &dirs {
                // The kernel may need a moment to see the last process gone.
                while fs::remove_dir(dir).is_err() {
                    std::thread::yield_now();
                }
            }
            Ok(())
        }
    }
}

/// A v1 cpuset takes no process before it has processors and memory.
fn prepare_cpuset(dir: &Path) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let own = dir.join(file);
        if own.exists() && dir.join("tasks").exists() {
            let parent = dir.parent().expect("a parent").join(file);
            if fs::read_to_string(&parent)?.trim().is_empty() {
                prepare_cpuset(dir.parent().expect("a parent"))?;
            }
            fs::write(own, fs::read_to_string(parent)?)?;
        }
    }
    Ok(())
}

fn become_container(rootfs: &Path, program: &str) -> Result<()> {
    let none: Option<&str> = None;
    let usual = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_NODEV;
    mount(none, "/", none, MsFlags::MS_SLAVE | MsFlags::MS_REC, none)?;
    mount(Some(rootfs), rootfs, none, MsFlags::MS_BIND | MsFlags::MS_REC, none)?;
    nix::unistd::chdir(rootfs)?;
    mount(Some("proc"), "proc", Some("proc"), MsFlags::empty(), none)?;
    mount(Some("tmpfs"), "dev", Some("tmpfs"), MsFlags::MS_NOSUID, Some("mode=755,size=65536k"))?;
    for dir in ["dev/pts", "dev/shm", "dev/mqueue"] {
        fs::create_dir(dir)?;
    }
    let pts = "newinstance,ptmxmode=0666,mode=0620,gid=5";
    mount(Some("devpts"), "dev/pts", Some("devpts"), MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC, Some(pts))?;
    mount(Some("shm"), "dev/shm", Some("tmpfs"), usual, Some("mode=1777,size=65536k"))?;
    mount(Some("mqueue"), "dev/mqueue", Some("mqueue"), usual, none)?;
    mount(Some("sysfs"), "sys", Some("sysfs"), usual | MsFlags::MS_RDONLY, none)?;
    for (name, major, minor) in
        [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)]
    {
        mknod(
            &Path::new("dev").join(name),
            SFlag::S_IFCHR,
            Mode::from_bits_truncate(0o666),
            makedev(major, minor),
        )?;
    }
    for (name, target) in [
        ("ptmx", "pts/ptmx"),
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        std::os::unix::fs::symlink(target, Path::new("dev").join(name))?;
    }
    nix::unistd::pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    nix::unistd::chdir("/")?;
    for path in ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"] {
        // Not every kernel has all of them.
        if mount(Some(path), path, none, MsFlags::MS_BIND | MsFlags::MS_REC, none).is_err() {
            continue;
        }
        mount(none, path, none, MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, none)?;
    }
    for path in ["/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list"] {
        let _ = mount(Some("/dev/null"), path, none, MsFlags::MS_BIND, none);
    }
    let _ = mount(Some("tmpfs"), "/sys/firmware", Some("tmpfs"), MsFlags::MS_RDONLY, none);
    sys::sethostname("box")?;
    let program = std::ffi::CString::new(program)?;
    nix::unistd::execve(&program, &[&program], &[c"PATH=/bin"])?;
    unreachable!("execve came back without an error")
}
