//! On the running kernel: a cgroup of the test's own with a sleeping process in it.

use std::fs::File;
use std::process::{Child, Command};

use cgroup::{Manager, Options};

use super::journal::NAME as JOURNAL;
use super::*;
use crate::error::Error;
use crate::init::attrs::rdt::tests::Fake;

struct Guinea {
    dir: PathBuf,
    location: Location,
    child: Child,
    own: Resources,
    /// What looks like resctrl, and the class there.
    resctrl: Option<Fake>,
    class: Option<Rdt>,
    saved: Saved,
}

impl Guinea {
    /// `None`, said on standard error, where cgroups can't be made.
    fn new(name: &str) -> Option<Guinea> {
        let skip = |why: String| {
            println!("SKIP+ {name}: {why}");
            None
        };
        if !nix::unistd::geteuid().is_root() {
            return skip("needs root".into());
        }
        let layout = Layout::detect().ok()?;
        let id = format!("hydra-test-knobs-{name}-{}", std::process::id());
        let path = format!("/{id}");
        let request = cgroup::Request {
            manager: Manager::Cgroupfs,
            cgroups_path: Some(&path),
            id: &id,
            rootless: false,
            user_root: None,
        };
        let location = Location::resolve(&layout, &request).ok()?;
        let own: Resources = serde_json::from_str(r#"{"pids":{"limit":100}}"#).unwrap();
        let mut cgroup = match Cgroup::create(&layout, location, &own, Options::default()) {
            Ok(cgroup) => cgroup,
            Err(e) => return skip(e.to_string()),
        };
        let child = Command::new("sleep").arg("300").spawn().unwrap();
        cgroup.attach(child.id() as i32).unwrap();
        let dir = std::env::temp_dir().join(&id);
        fs::create_dir_all(&dir).unwrap();
        let location = cgroup.location().clone();
        Some(Guinea { dir, location, child, own, resctrl: None, class: None, saved: Saved::default() })
    }

    fn read(&self, file: &str) -> String {
        let controller = file.split('.').next().unwrap();
        let dir = self.location.path(controller).unwrap();
        fs::read_to_string(dir.join(file)).unwrap().trim().to_string()
    }

    fn update(&mut self, request: &Request, fail: bool) -> Result<Report> {
        let (saved, mut new) = (self.saved.clone(), None);
        let subject = Subject {
            dir: &self.dir,
            location: &self.location,
            pid: self.child.id() as i32,
            own: &self.own,
            resctrl: self.resctrl.as_ref().map(|fake| fake.0.as_path()),
            class: self.class.as_ref(),
            network: netlimit::Network::Host,
            saved: &saved,
        };
        let report = update(request, &subject, false, &mut |saved| match fail {
            true => Err(Error::invalid("the disk is full")),
            false => {
                // What a SIGKILL from here on would leave.
                fs::copy(self.dir.join(JOURNAL), self.dir.join("kept.json"))?;
                new = Some(saved.clone());
                Ok(())
            }
        })?;
        assert!(!self.dir.join(JOURNAL).exists());
        self.saved = new.unwrap();
        Ok(report)
    }
}

impl Drop for Guinea {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        for branch in &self.location.branches {
            let _ = fs::remove_dir(&branch.path);
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn set(knobs: &[(&str, &str)]) -> Request {
    Request { set: knobs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(), ..Request::default() }
}

fn memory_file(guinea: &Guinea) -> &'static str {
    let v1 = guinea.location.branches.iter().any(|b| b.controllers.iter().any(|c| c == "memory"));
    if v1 {
        "memory.limit_in_bytes"
    } else {
        "memory.max"
    }
}

#[test]
fn knobs_are_set_kept_and_lifted() {
    let Some(mut guinea) = Guinea::new("set") else { return };
    let unlimited = guinea.read(memory_file(&guinea));
    guinea.update(&set(&[("pids.limit", "50"), ("memory.limit", "64MiB")]), false).unwrap();
    assert_eq!(
        (guinea.read("pids.max"), guinea.read(memory_file(&guinea))),
        ("50".into(), (64 << 20).to_string())
    );
    // What `docker update` sends knows nothing of knobs.
    let docker =
        Request { change: serde_json::from_str(r#"{"cpu":{"shares":512}}"#).unwrap(), ..Request::default() };
    guinea.update(&docker, false).unwrap();
    assert_eq!(
        (guinea.read("pids.max"), guinea.read(memory_file(&guinea))),
        ("50".into(), (64 << 20).to_string())
    );
    let unset = Request { unset: vec!["pids.limit".into(), "memory.limit".into()], ..Request::default() };
    guinea.update(&unset, false).unwrap();
    assert_eq!((guinea.read("pids.max"), guinea.read(memory_file(&guinea))), ("100".into(), unlimited));
}

/// Engines send whole resources, of which most were not changed by anybody.
#[test]
fn an_engines_update_leaves_the_operators_knobs() {
    let Some(mut guinea) = Guinea::new("engine") else { return };
    guinea.update(&set(&[("pids.limit", "50"), ("cgroup.cpu.shares", "300")]), false).unwrap();
    let json = r#"{"cpu":{"shares":512},"pids":{"limit":70}}"#;
    let engine = Request { change: serde_json::from_str(json).unwrap(), ..Request::default() };
    let report = guinea.update(&engine, false).unwrap();
    assert_eq!(guinea.read("pids.max"), "50");
    assert!(
        report.notes.contains(&"pids.limit: the operator says 50 and has precedence".into()),
        "{:?}",
        report.notes
    );
    // runc's flag of the same spelling is the operator's later word.
    let flag = Request { respelled: vec!["pids.limit"], ..engine };
    guinea.update(&flag, false).unwrap();
    assert_eq!(guinea.read("pids.max"), "70");
}

/// A raw file comes in place of what the configuration says, and when it goes that holds again.
#[test]
fn a_raw_file_over_the_configuration() {
    let Some(mut guinea) = Guinea::new("raw") else { return };
    guinea.update(&set(&[("cgroup.pids.max", "50")]), false).unwrap();
    assert_eq!(guinea.read("pids.max"), "50");
    // What is in force already is not passed over.
    let report = guinea.update(&set(&[("memory.limit", "64MiB")]), false).unwrap();
    assert_eq!(guinea.read("pids.max"), "50");
    let fields: Vec<_> = report.changes.iter().map(|c| c.field.as_str()).collect();
    assert_eq!(fields, ["memory.limit"]);
    let unset = Request { unset: vec!["cgroup.pids.max".into()], ..Request::default() };
    guinea.update(&unset, false).unwrap();
    assert_eq!(guinea.read("pids.max"), "100");
}

#[test]
fn a_raw_line_for_a_device_goes_again() {
    let Some(mut guinea) = Guinea::new("line") else { return };
    let Some(device) = Loop::new(&guinea, "loop") else { return };
    let number = {
        use std::os::unix::fs::MetadataExt;
        let rdev = fs::metadata(&device.node).unwrap().rdev();
        format!("{}:{}", nix::sys::stat::major(rdev), nix::sys::stat::minor(rdev))
    };
    let v1 = guinea.location.branches.iter().any(|b| b.controllers.iter().any(|c| c == "blkio"));
    let (file, text) = match v1 {
        true => ("blkio.throttle.write_bps_device", format!("{number} 4000000")),
        false => ("io.max", format!("{number} wbps=4000000")),
    };
    let knob = format!("cgroup.{file}");
    let report = guinea.update(&set(&[(&knob, &text)]), false).unwrap();
    assert!(guinea.read(file).contains("4000000"));
    assert_eq!(report.changes[0].field, knob);
    guinea.update(&Request { unset: vec![knob], ..Request::default() }, false).unwrap();
    assert_eq!(guinea.read(file), "");
}

/// What is said of a change names the knob.
#[test]
fn changes_name_knobs() {
    let Some(mut guinea) = Guinea::new("names") else { return };
    let report = guinea.update(&set(&[("cpu.share", "512"), ("cpuset.cpus", "0")]), false).unwrap();
    let fields: Vec<_> = report.changes.iter().map(|c| c.field.as_str()).collect();
    assert_eq!(fields, ["cpu.share", "cpuset.cpus"]);
    let unset = Request { unset: vec!["cpu.share".into(), "cpuset.cpus".into()], ..Request::default() };
    let report = guinea.update(&unset, false).unwrap();
    let fields: Vec<_> = report.changes.iter().map(|c| c.field.as_str()).collect();
    assert_eq!(fields, ["cpu.share", "cpuset.cpus"]);
}

#[test]
fn a_state_that_cannot_be_saved_leaves_the_kernel_as_it_was() {
    let Some(mut guinea) = Guinea::new("fail") else { return };
    let before = (guinea.read("pids.max"), guinea.read(memory_file(&guinea)));
    let e = guinea.update(&set(&[("pids.limit", "50"), ("memory.limit", "64MiB")]), true).unwrap_err();
    assert!(e.to_string().contains("the disk is full"), "{e}");
    assert_eq!((guinea.read("pids.max"), guinea.read(memory_file(&guinea))), before);
    // A refused value is refused before anything is written.
    assert!(guinea.update(&set(&[("pids.limit", "50"), ("blkio.write-bps", "/proc=1MB")]), false).is_err());
    assert_eq!((guinea.read("pids.max"), guinea.read(memory_file(&guinea))), before);
}

#[test]
fn a_killed_update_is_taken_back_or_kept() {
    let Some(mut guinea) = Guinea::new("kill") else { return };
    let old = guinea.saved.clone();
    guinea.update(&set(&[("pids.limit", "50")]), false).unwrap();
    let kept = guinea.dir.join("kept.json");
    // Killed after the state was written: complete.
    fs::copy(&kept, guinea.dir.join(JOURNAL)).unwrap();
    recover(&guinea.dir, &guinea.saved).unwrap();
    assert_eq!(guinea.read("pids.max"), "50");
    // Killed before: the old state counts.
    fs::copy(&kept, guinea.dir.join(JOURNAL)).unwrap();
    recover(&guinea.dir, &old).unwrap();
    assert_eq!(guinea.read("pids.max"), "100");
    assert!(!guinea.dir.join(JOURNAL).exists());
    recover(&guinea.dir, &old).unwrap();
}

/// The schemata of a class are changed with the rest, or not at all. The directory only looks like resctrl.
#[test]
fn another_schema_is_part_of_the_whole() {
    let Some(mut guinea) = Guinea::new("rdt") else { return };
    let fake = Fake::new("update");
    const OLD: &str = "    MB:0= 30;1=100\n    L3:0=7ff;1=7ff\n";
    fake.write("c1/schemata", OLD);
    guinea.class = Some(rdt::parse(&Default::default(), "c1").unwrap());
    let schemata = fake.0.join("c1/schemata");
    let root = fake.0.clone();
    guinea.resctrl = Some(fake);
    let held = |guinea: &Guinea| (guinea.read("pids.max"), fs::read_to_string(&schemata).unwrap());
    let request = |flags: &[(&'static str, &str)]| Request {
        schemata: rdt::change::asked(&flags.iter().map(|(f, t)| (*f, t.to_string())).collect::<Vec<_>>()),
        ..set(&[("pids.limit", "50")])
    };
    let l3 = request(&[("l3-cache-schema", "L3:0=f;1=7f0")]);

    // Refused before anything is written.
    let mb = request(&[("mem-bw-schema", "MB:0=20")]);
    let text = guinea.update(&mb, false).unwrap_err().to_string();
    assert!(text.contains("memory bandwidth schema is not enabled"), "{text}");
    assert_eq!(held(&guinea), ("100".into(), OLD.into()));

    // The state can't be saved: the line that was changed is as it was.
    guinea.update(&l3, true).unwrap_err();
    let (pids, text) = held(&guinea);
    assert_eq!((pids.as_str(), text.as_str()), ("100", "L3:0=7ff;1=7ff\n"));

    // Killed before the state was saved.
    let old = guinea.saved.clone();
    let report = guinea.update(&l3, false).unwrap();
    assert_eq!(held(&guinea), ("50".into(), "L3:0=f;1=7f0\n".into()));
    let change = report.changes.iter().find(|c| c.field == "l3-cache-schema").unwrap();
    assert_eq!((change.old.as_str(), change.effective.as_deref()), ("L3:0=7ff;1=7ff", Some("L3:0=f;1=7f0")));
    fs::copy(guinea.dir.join("kept.json"), guinea.dir.join(JOURNAL)).unwrap();
    recover(&guinea.dir, &old).unwrap();
    assert_eq!(held(&guinea), ("100".into(), "L3:0=7ff;1=7ff\n".into()));
    guinea.saved = old;

    // What the kernel refuses is told in its own words, and nothing else is changed: this file takes no write.
    fs::create_dir_all(root.join("info/MB")).unwrap();
    fs::write(root.join("info/last_cmd_status"), "MB value 5 out of range [10,100]\n").unwrap();
    fs::remove_file(&schemata).unwrap();
    std::os::unix::fs::symlink("/proc/version", &schemata).unwrap();
    let text = guinea.update(&request(&[("mem-bw-schema", "MB:0=5")]), false).unwrap_err().to_string();
    assert!(text.contains("out of range") && text.contains("nothing was changed"), "{text}");
    assert_eq!(guinea.read("pids.max"), "100");
}

/// A loop device of the test's own over a sparse file.
struct Loop {
    node: String,
    file: PathBuf,
}

impl Loop {
    fn new(guinea: &Guinea, name: &str) -> Option<Loop> {
        let file = guinea.dir.join(name);
        File::create(&file).unwrap().set_len(256 << 20).unwrap();
        let made = Command::new("losetup").args(["-f", "--show"]).arg(&file).output();
        match made {
            Ok(out) if out.status.success() => {
                Some(Loop { node: String::from_utf8_lossy(&out.stdout).trim().into(), file })
            }
            other => {
                println!("SKIP+ {name}: no loop device: {other:?}");
                None
            }
        }
    }

    /// Bytes per second of direct writes from inside the cgroup, over `bytes` in pieces of 64 KiB.
    fn write(&self, guinea: &Guinea, bytes: u64) -> f64 {
        let joins =
            guinea.location.branches.iter().map(|b| format!("echo 0 > {}/cgroup.procs; ", b.path.display()));
        let script: String = joins.collect::<String>()
            + &format!("exec dd if=/dev/zero of={} bs=64k count={} oflag=direct", self.node, bytes >> 16);
        let begun = std::time::Instant::now();
        let done = Command::new("sh").arg("-c").arg(script).output().unwrap();
        assert!(done.status.success(), "{done:?}");
        bytes as f64 / begun.elapsed().as_secs_f64()
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["-d", &self.node]).status();
        let _ = fs::remove_file(&self.file);
    }
}

#[test]
fn a_device_is_held_to_its_rate_and_let_go() {
    let Some(mut guinea) = Guinea::new("rate") else { return };
    let Some(device) = Loop::new(&guinea, "loop") else { return };
    for rate in [4_000_000u64, 16_000_000] {
        let knob = format!("{}={rate}", device.node);
        guinea.update(&set(&[("blkio.write-bps", &knob)]), false).unwrap();
        assert_eq!(guinea.saved.placed[0].amount, Some(rate));
        let got = device.write(&guinea, 3 * rate);
        eprintln!("asked {rate}, got {got:.0} bytes per second");
        // The kernel's throttle begins with a tenth of a second's worth. Above is the limit's fault; far below may
        // be the machine's.
        let seconds = 3.0 * rate as f64 / got;
        let steady = (3.0 - 0.1) * rate as f64 / seconds;
        assert!(steady < 1.02 * rate as f64 && steady > 0.8 * rate as f64, "asked {rate}, got {steady}");
    }
    let unset = Request { unset: vec!["blkio.write-bps".into()], ..Request::default() };
    guinea.update(&unset, false).unwrap();
    let got = device.write(&guinea, 64 << 20);
    assert!(got > 2.0 * 16_000_000.0, "lifted, got {got}");
}

#[test]
fn a_total_goes_to_the_device_that_wants_it() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let Some(mut guinea) = Guinea::new("total") else { return };
    let Some(a) = Loop::new(&guinea, "a") else { return };
    let Some(b) = Loop::new(&guinea, "b") else { return };
    const TOTAL: u64 = 8_000_000;
    let both = format!("{}={TOTAL},{}={TOTAL}", a.node, b.node);
    let rows = guinea.update(&set(&[("blkio.write-bps", &both)]), false).unwrap();
    assert_eq!(rows.changes.len(), 2);
    guinea.saved.totals.write_bps = Some(TOTAL);
    guinea.saved.shared = guinea.saved.placed.iter().map(|p| p.device.to_string()).collect();
    let stop = AtomicBool::new(false);
    let (location, saved) = (guinea.location.clone(), guinea.saved.clone());
    let (first, second) = std::thread::scope(|scope| {
        let budget = scope.spawn(|| crate::knobs::helper::share_until(&location, &saved, &stop));
        let first = a.write(&guinea, 4 * TOTAL);
        let second = b.write(&guinea, 4 * TOTAL);
        stop.store(true, Ordering::Relaxed);
        budget.join().unwrap();
        (first, second)
    });
    eprintln!("total {TOTAL}: first device {first:.0}, then the other {second:.0} bytes per second");
    for got in [first, second] {
        assert!(got < 1.1 * TOTAL as f64 && got > 0.75 * TOTAL as f64, "{first} {second}");
    }
}
