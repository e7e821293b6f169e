//! File systems of the tests' own, each on a loop device over a sparse file, and fio to load them.

use crate::{janitor, Container, Run};
use serde_json::{json, Value};
use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

/// A mounted file system on a block device of its own.
pub struct Disk {
    /// `7:3`, as the kernel's files name it.
    pub device: String,
    /// `/dev/loop3`
    pub node: String,
    /// Where it is mounted on the host.
    pub dir: PathBuf,
    image: PathBuf,
}

impl Disk {
    /// A file system of the kind that `mkfs.KIND` makes, or why there can be none here.
    pub fn new(kind: &str, megabytes: u64) -> Result<Disk, String> {
        let (image, node) = image(megabytes)?;
        let quiet = match kind {
            "ext4" => "-qF -E lazy_itable_init=0,lazy_journal_init=0",
            "xfs" => "-qf",
            _ => "-f",
        };
        let made = sh(&format!("mkfs.{kind} {quiet} {node} >/dev/null"));
        let disk = made.and_then(|_| Disk::mount(kind, &node, image.clone()));
        // The device goes with its last user: from here on, the mount.
        let _ = sh(&format!("losetup -d {node}"));
        disk.inspect_err(|_| drop(fs::remove_file(&image)))
    }

    /// A file system of a usual kind.
    pub fn any(megabytes: u64) -> Result<Disk, String> {
        match sh("command -v mkfs.ext4") {
            Ok(_) => Disk::new("ext4", megabytes),
            // The smallest that mkfs.xfs makes.
            Err(_) => Disk::new("xfs", megabytes.max(320)),
        }
    }

    fn mount(kind: &str, node: &str, image: PathBuf) -> Result<Disk, String> {
        let dir = image.with_extension("dir");
        fs::create_dir_all(&dir).map_err(|e| e.to_string())?;
        sh(&format!("mount -t {kind} {node} {}", dir.display()))?;
        Ok(Disk { device: number(node)?, node: node.into(), dir, image })
    }

    /// Puts a file of real bytes on it: reads of what was never written reach no device.
    pub fn fill(&self, name: &str, megabytes: u64) {
        let path = self.dir.join(name);
        let line = format!("dd if=/dev/zero of={} bs=1M count={megabytes} conv=fsync 2>&1", path.display());
        sh(&line).expect("filling a file system");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = sh(&format!("umount -l {}", self.dir.display()));
        let _ = fs::remove_file(&self.image);
        let _ = fs::remove_dir(&self.dir);
    }
}

/// A sparse file and the loop device over it, which somebody has to detach.
pub fn image(megabytes: u64) -> Result<(PathBuf, String), String> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let dir = janitor::scratch().join("disks");
    fs::create_dir_all(&dir).map_err(|e| e.to_string())?;
    let path = dir.join(NEXT.fetch_add(1, Ordering::Relaxed).to_string());
    File::create(&path).and_then(|f| f.set_len(megabytes << 20)).map_err(|e| e.to_string())?;
    let node = sh(&format!("losetup -f --show {}", path.display()))?;
    Ok((path, node))
}

/// `MAJOR:MINOR` of a device node.
pub fn number(node: &str) -> Result<String, String> {
    sh(&format!("printf '%d:%d' $(stat -L -c '0x%t 0x%T' {node})"))
}

/// A line of shell: what it says, or what went wrong.
pub fn sh(line: &str) -> Result<String, String> {
    match Run::sh(line).out() {
        out if out.code == 0 => Ok(out.stdout.trim().to_string()),
        out => Err(format!("{line}: {}", out.stderr.trim())),
    }
}

/// A container that has the host's programs, fio among them, and these directories at `/data0` and on.
pub fn with_disks(c: Container, disks: &[&Disk]) -> Container {
    let usr = json!({ "destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind", "ro"] });
    let c = c.mount(usr).prepare(|rootfs| {
        for lib in ["lib", "lib64"] {
            let _ = std::os::unix::fs::symlink(format!("usr/{lib}"), rootfs.join(lib));
        }
    });
    disks.iter().enumerate().fold(c, |c, (i, disk)| {
        c.mount(json!({ "destination": format!("/data{i}"), "type": "bind", "source": disk.dir, "options": ["rbind", "rw"] }))
    })
}

/// One job of fio: direct IO.
#[derive(Debug, Clone, Copy)]
pub struct Load<'a> {
    /// `read` or `write`, in the words of fio's `rw`.
    pub rw: &'a str,
    /// The file, as the container sees it.
    pub file: &'a str,
    pub block: u64,
    /// Requests in flight at once. What is in flight at first counts as a surplus, and a queue that runs empty while the
    /// machine is busy elsewhere as a lack: a sixtieth of what passes in a second is enough for both.
    pub depth: u32,
}

/// What a job got.
#[derive(Debug, Clone, Copy)]
pub struct Got {
    pub bytes_per_second: f64,
    pub per_second: f64,
}

/// Runs jobs of fio side by side inside a container for some seconds, the first of which doesn't count.
#[track_caller]
pub fn fio(c: &Container, loads: &[Load], seconds: u64) -> Vec<Got> {
    let mut args: Vec<String> =
        ["fio", "--output-format=json", "--thread", "--time_based"].map(String::from).to_vec();
    args.extend([format!("--runtime={seconds}"), "--ramp_time=1".into(), "--size=32m".into()]);
    for (i, load) in loads.iter().enumerate() {
        args.extend([
            format!("--name=j{i}"),
            format!("--filename={}", load.file),
            format!("--rw={}", load.rw),
            format!("--bs={}", load.block),
            "--direct=1".into(),
            "--ioengine=libaio".into(),
            format!("--iodepth={}", load.depth),
        ]);
    }
    let out = c.runtime().args(["exec", &c.id]).args(&args).patient(3).out().ok();
    // fio speaks of its troubles before it gets to the JSON.
    let start = out.stdout.find('{').unwrap_or_else(|| panic!("no JSON: {out}"));
    let json: Value = serde_json::from_str(&out.stdout[start..]).unwrap_or_else(|e| panic!("{e}: {out}"));
    let jobs = json["jobs"].as_array().expect("jobs");
    let got = |(job, load): (&Value, &Load)| {
        let side = &job[if load.rw.ends_with("read") { "read" } else { "write" }];
        Got {
            bytes_per_second: side["bw_bytes"].as_f64().expect("bw_bytes"),
            per_second: side["iops"].as_f64().expect("iops"),
        }
    };
    jobs.iter().zip(loads).map(got).collect()
}

/// By how many percent `got` is off.
pub fn error(asked: f64, got: f64) -> f64 {
    100.0 * (got - asked) / asked
}
