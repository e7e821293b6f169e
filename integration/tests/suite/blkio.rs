//! Block IO: limits count when IO was measured against them. fio runs inside containers, on file systems of the
//! tests' own. `FULL=1` measures every rate; by default a few.

use integration::disk::{self, fio, with_disks, Disk, Load};
use integration::host::{self, Cgroups};
use integration::{differs, eventually, skip, Container};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

const MB: f64 = 1e6;

fn full() -> bool {
    std::env::var_os("FULL").is_some_and(|v| !v.is_empty() && v != "0")
}

/// By how many percent a rate may be off: emulated machines are less even.
fn tolerance() -> f64 {
    if host::cgroups() == Cgroups::V2 {
        5.0
    } else {
        2.0
    }
}

/// Disks, or why there are none.
fn disks(count: usize, megabytes: u64) -> Result<Vec<Disk>, String> {
    if !Path::new("/usr/bin/fio").exists() {
        return Err("needs fio".into());
    }
    let disks = (0..count).map(|_| Disk::any(megabytes)).collect::<Result<Vec<_>, _>>()?;
    disks.iter().for_each(|d| d.fill("file", 32));
    Ok(disks)
}

fn annotated(c: Container, annotations: &[(&str, &str)]) -> Container {
    c.with(|config| {
        for (key, value) in annotations {
            config["annotations"][*key] = Value::from(*value);
        }
    })
}

#[track_caller]
fn update(c: &Container, args: &[&str]) {
    let mut all = vec!["update"];
    all.extend(args);
    all.push(&c.id);
    c.verb(&all).ok();
}

/// What is limited, in fio's and in the knobs' words.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    ReadBps,
    WriteBps,
    ReadIops,
    WriteIops,
}

impl Kind {
    fn knob(self) -> &'static str {
        ["read-bps", "write-bps", "read-iops", "write-iops"][self as usize]
    }

    fn bytes(self) -> bool {
        matches!(self, Kind::ReadBps | Kind::WriteBps)
    }

    fn load(self, file: &str, rate: f64) -> Load<'_> {
        let rw = if matches!(self, Kind::ReadBps | Kind::ReadIops) { "read" } else { "write" };
        // Small enough that the pieces don't show, large enough that the machine isn't the limit.
        let block = match (self.bytes(), rate) {
            (false, _) => 4096,
            (_, r) if r <= MB => 8192,
            (_, r) if r <= 10.0 * MB => 65536,
            _ => 262_144,
        };
        let per_second = if self.bytes() { rate / block as f64 } else { rate };
        Load { rw, file, block, depth: (per_second / 60.0).clamp(4.0, 16.0) as u32 }
    }

    /// What both disks do at once, in bytes or operations per second.
    fn measure(self, c: &Container, rates: [f64; 2], seconds: u64) -> [f64; 2] {
        let loads = [self.load("/data0/file", rates[0]), self.load("/data1/file", rates[1])];
        let got = fio(c, &loads, seconds);
        let one = |i: usize| if self.bytes() { got[i].bytes_per_second } else { got[i].per_second };
        [one(0), one(1)]
    }
}

/// Measures until both disks run at the rates asked for, three times at most: a process that a neighbour kept from
/// running catches up on a tenth of a second, or gets too little.
#[track_caller]
fn holds(c: &Container, kind: Kind, rates: [f64; 2], when: &str) {
    let seconds = if full() { 8 } else { 4 };
    for attempt in 1.. {
        let got = kind.measure(c, rates, seconds);
        let errors = [disk::error(rates[0], got[0]), disk::error(rates[1], got[1])];
        for i in 0..2 {
            let name = kind.knob();
            println!(
                "FIGURE blkio.{name} {when}: asked {:.0}, got {:.0} ({:+.2} %)",
                rates[i], got[i], errors[i]
            );
        }
        if errors.iter().all(|e| e.abs() < tolerance()) {
            return;
        }
        assert!(attempt < 3, "{} {rates:?}: {errors:?} % off", kind.knob());
    }
}

/// Both disks run faster than they were allowed to. How much faster is the machine's business.
#[track_caller]
fn lifted(c: &Container, kind: Kind, rates: [f64; 2]) {
    let mut best = [0f64; 2];
    for _ in 0..5 {
        let got = kind.measure(c, rates, 2);
        best = [best[0].max(got[0]), best[1].max(got[1])];
        if best[0] > 1.1 * rates[0] && best[1] > 1.1 * rates[1] {
            return;
        }
    }
    panic!("lifted, {} is {best:?}, and was allowed to be {rates:?}", kind.knob());
}

/// Direct reads and writes at every rate: as created, changed while running, and lifted.
#[test]
fn direct_io_is_held_to_its_rate() {
    differs!(Runc, "knobs are ours");
    differs!(Crun, "knobs are ours");
    let disks = match disks(2, 128) {
        Ok(disks) => disks,
        Err(why) => skip!("{why}"),
    };
    let both = |kind: Kind, rates: [f64; 2]| {
        let unit = if kind.bytes() { "B" } else { "" };
        format!("container:/data0={}{unit},container:/data1={}{unit}", rates[0], rates[1])
    };
    // Half of what the machine does is the most that can be asked of it.
    let free = with_disks(Container::sleeping("free"), &[&disks[0], &disks[1]]).up();
    let most = Kind::WriteBps.measure(&free, [1e8, 1e8], 2).map(|got| (got / 2.0).floor());
    drop(free);
    let first = [MB.min(most[0]), (10.0 * MB).min(most[1])];
    let c = with_disks(Container::sleeping("rates"), &[&disks[0], &disks[1]]);
    let c = annotated(c, &[("hydra.blkio.write-bps", &both(Kind::WriteBps, first))]).up();
    holds(&c, Kind::WriteBps, first, "at create");
    update(&c, &["--blkio-write-bps", "max"]);
    let pairs: Vec<(Kind, [f64; 2])> = match full() {
        false => vec![(Kind::WriteBps, [10.0 * MB, MB]), (Kind::ReadIops, [100.0, 1000.0])],
        true => [Kind::ReadBps, Kind::WriteBps, Kind::ReadIops, Kind::WriteIops]
            .into_iter()
            .flat_map(|kind| {
                let steps: &[f64] = if kind.bytes() { &[1e6, 1e7, 1e8] } else { &[100.0, 1000.0] };
                (0..steps.len()).map(move |i| (kind, [steps[i], steps[(i + 1) % steps.len()]]))
            })
            .collect(),
    };
    for (kind, rates) in pairs {
        let free = kind.measure(&c, [1e8, 1e8], 2);
        let slowest = free[0].min(free[1]);
        println!("FIGURE blkio.{} not limited: {slowest:.0}", kind.knob());
        if rates[0].max(rates[1]) > slowest / 2.0 {
            println!("SKIP+ {rates:?} is more than half of what this machine does ({slowest:.0})");
            continue;
        }
        let flag = format!("--blkio-{}", kind.knob());
        update(&c, &[&flag, &both(kind, rates)]);
        holds(&c, kind, rates, "after update");
        update(&c, &[&flag, "max"]);
        lifted(&c, kind, rates);
    }
}

/// v2 limits writeback with the memory controller; v1 can't, and says so.
#[test]
fn buffered_writes() {
    differs!(Runc, "knobs are ours");
    differs!(Crun, "knobs are ours");
    let disks = match disks(1, 256) {
        Ok(disks) => disks,
        Err(why) => skip!("{why}"),
    };
    let rate = 5e6;
    let c = with_disks(Container::sleeping("buffered"), &[&disks[0]]);
    let c =
        annotated(c, &[("hydra.blkio.write-bps", "container:/data0=5MB"), ("hydra.memory.limit", "256MiB")]);
    c.bundle.write();
    let log = c.bundle.dir.join("log");
    let verb = c.runtime().args(["--log"]).args([&log]).args(["create", "--bundle"]).args([&c.bundle.dir]);
    verb.args([&c.id]).stdout_to(c.bundle.dir.join("out")).ok();
    c.start().ok();
    let said = "cgroup v1 holds direct and synchronous writes, not buffered ones";
    let inspected = c.verb(&["inspect", &c.id]).ok().stdout;
    if host::cgroups() != Cgroups::V2 {
        let log = fs::read_to_string(&log).unwrap();
        assert!(log.contains(said), "create says nothing: {log}");
        assert!(inspected.contains(said), "inspect says nothing: {inspected}");
        return;
    }
    assert!(!inspected.contains(said), "{inspected}");
    let written = || {
        let text = c.cgroup_file("io", "io.stat").unwrap_or_default();
        let line = text.lines().find(|l| l.starts_with(&disks[0].device)).unwrap_or_default();
        let word = line.split(' ').find_map(|w| w.strip_prefix("wbytes="));
        word.and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0)
    };
    let background = std::thread::scope(|scope| {
        // Limited memory, so that not all is written at once; what the loop device writes to a tmpfs counts as the container's.
        scope.spawn(|| {
            let dd = "timeout 60 dd if=/dev/zero of=/data0/x bs=64k count=3000";
            c.exec(&["/usr/bin/sh", "-c", dd])
        });
        eventually("something is written", || written() > rate);
        let (begun, before) = (Instant::now(), written());
        std::thread::sleep(Duration::from_secs(10));
        let got = (written() - before) / begun.elapsed().as_secs_f64();
        c.delete_force().ok();
        got
    });
    println!(
        "FIGURE buffered writes: asked {rate:.0}, got {background:.0} ({:+.1} %)",
        disk::error(rate, background)
    );
    assert!(background <= 1.05 * rate, "buffered writes: {background:.0} bytes per second");
    assert!(background > 0.0, "nothing was written");
}

/// Bytes written to two devices over time.
struct Watch {
    samples: Vec<(f64, [f64; 2])>,
}

impl Watch {
    fn counters(c: &Container, disks: &[Disk]) -> [f64; 2] {
        let one = |disk: &Disk| {
            let (file, key) = match host::cgroups() {
                Cgroups::V2 => (c.cgroup_file("io", "io.stat"), "wbytes="),
                _ => (c.cgroup_file("blkio", "blkio.throttle.io_service_bytes"), "Write "),
            };
            let text = file.unwrap_or_default();
            let lines = text.lines().filter_map(|l| l.strip_prefix(&disk.device)?.strip_prefix(' '));
            let mut found =
                lines.flat_map(|l| l.split_once(key)).map(|(_, n)| n.split(' ').next().unwrap_or(n));
            found.next().and_then(|n| n.trim().parse().ok()).unwrap_or(0.0)
        };
        [one(&disks[0]), one(&disks[1])]
    }

    /// Bytes per second of one device between two moments.
    fn rate(&self, device: usize, from: f64, to: f64) -> f64 {
        let inside: Vec<_> = self.samples.iter().filter(|(t, _)| *t >= from && *t <= to).collect();
        let (first, last) = (inside.first().expect("samples"), inside.last().expect("samples"));
        (last.1[device] - first.1[device]) / (last.0 - first.0)
    }

    /// The most that both got together in any `seconds`, in bytes per second.
    fn most(&self, seconds: f64) -> f64 {
        let sum = |s: &(f64, [f64; 2])| s.1[0] + s.1[1];
        let mut most: f64 = 0.0;
        for (i, first) in self.samples.iter().enumerate() {
            if let Some(last) = self.samples[i..].iter().find(|s| s.0 - first.0 >= seconds) {
                most = most.max((sum(last) - sum(first)) / (last.0 - first.0));
            }
        }
        most
    }
}

/// One budget over two devices goes to where the demand is.
#[test]
fn a_total_follows_demand() {
    differs!(Runc, "knobs are ours");
    differs!(Crun, "knobs are ours");
    let disks = match disks(2, 128) {
        Ok(disks) => disks,
        Err(why) => skip!("{why}"),
    };
    let total = if host::cgroups() == Cgroups::V2 { 2e6 } else { 8e6 };
    let text = format!("{total}B");
    let c = with_disks(Container::sleeping("total"), &[&disks[0], &disks[1]]);
    let c = annotated(c, &[("hydra.blkio.total-write-bps", &text)]).up();
    let helper = || host::processes_with(c.root.join(&c.id).to_str().expect("path"));
    eventually("a helper", || !helper().is_empty());
    let turns = if full() { 6 } else { 3 };
    let turn = 5.0;
    let begun = Instant::now();
    let mut watch = Watch { samples: Vec::new() };
    std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            // dd in the container, one device after the other: a demand that swaps.
            let one = |i: usize| {
                format!("timeout {turn} dd if=/dev/zero of=/data{}/x bs=32k count=100000 oflag=direct conv=notrunc 2>/dev/null", i % 2)
            };
            let script = (0..turns).map(one).collect::<Vec<_>>().join("; ") + "; true";
            c.exec(&["/usr/bin/sh", "-c", &script]).ok();
        });
        while !load.is_finished() {
            watch.samples.push((begun.elapsed().as_secs_f64(), Watch::counters(&c, &disks)));
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    // The load begins a little after the clock.
    let moved = |s: &&(f64, [f64; 2])| s.1[0] > watch.samples[0].1[0];
    let start = watch.samples.iter().find(moved).expect("nothing was written").0;
    for i in 0..turns {
        let from = start + turn * i as f64;
        let got = watch.rate(i % 2, from + 2.0, from + turn - 0.2);
        println!(
            "FIGURE total of {total:.0}: turn {i}, device {}, 2 s after the swap: {got:.0} ({:.1} %)",
            i % 2,
            100.0 * got / total
        );
        assert!(got >= 0.9 * total, "turn {i}: {got:.0} of {total}");
    }
    let most = watch.most(10.0);
    println!("FIGURE total of {total:.0}: at most {most:.0} over 10 s ({:.1} %)", 100.0 * most / total);
    assert!(most > 0.0 && most <= 1.1 * total, "over 10 s: {most:.0} of {total}");
    let pid = helper()[0];
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    println!("FIGURE helper: {}", status.lines().find(|l| l.starts_with("VmRSS")).unwrap_or_default());

    // Killed, it leaves a split in force; the next command starts another.
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    eventually("its end", || helper().is_empty());
    assert_eq!(limits_in_force(&c, &disks), 2, "the split is in force");
    c.verb(&["inspect", &c.id]).ok();
    eventually("another helper", || helper().len() == 1);
    c.delete_force().ok();
    eventually("no helper without a container", || helper().is_empty());
}

/// On how many of these devices writes are limited.
fn limits_in_force(c: &Container, disks: &[Disk]) -> usize {
    let text = match host::cgroups() {
        Cgroups::V2 => c.cgroup_file("io", "io.max"),
        _ => c.cgroup_file("blkio", "blkio.throttle.write_bps_device"),
    };
    let text = text.unwrap_or_default();
    disks.iter().filter(|d| text.lines().any(|l| l.starts_with(&format!("{} ", d.device)))).count()
}

/// A volume that comes later, on a device of its own, gets the limit that all devices have.
#[test]
fn a_volume_added_later_is_limited() {
    differs!(Runc, "knobs are ours");
    differs!(Crun, "knobs are ours");
    let disks = match disks(2, 128) {
        Ok(disks) => disks,
        Err(why) => skip!("{why}"),
    };
    // The way in for mounts of the host: a shared directory.
    let shared = integration::janitor::scratch().join(format!("shared{}", disks[0].device.replace(':', "-")));
    fs::create_dir_all(shared.join("late")).unwrap();
    disk::sh(&format!("mount --bind {0} {0} && mount --make-shared {0}", shared.display())).unwrap();
    for follow in [false, true] {
        let c = with_disks(Container::sleeping("late"), &[&disks[0]]);
        let c = c.mount(serde_json::json!({
            "destination": "/shared", "type": "bind", "source": shared, "options": ["rbind", "rslave", "rw"]
        }));
        let switch = if follow { "on" } else { "off" };
        let c = annotated(c, &[("hydra.blkio.write-bps", "3MB"), ("hydra.blkio.follow-mounts", switch)]).up();
        assert_eq!(limits_in_force(&c, &disks), 1);
        disk::sh(&format!("mount --bind {} {}", disks[1].dir.display(), shared.join("late").display()))
            .unwrap();
        match follow {
            false => update(&c, &[]),
            true => eventually("the limit follows the mount", || limits_in_force(&c, &disks) == 2),
        }
        assert_eq!(limits_in_force(&c, &disks), 2, "follow-mounts {switch}");
        let load = Load { rw: "write", file: "/shared/late/file", block: 32768, depth: 4 };
        let got = fio(&c, &[load], 2)[0].bytes_per_second;
        assert!(got < 1.1 * 3e6, "the late volume is written at {got:.0}");
        disk::sh(&format!("umount {}", shared.join("late").display())).unwrap();
    }
    let _ = disk::sh(&format!("umount -l {}", shared.display()));
}

/// What a limit for `container:/data0` leads to, device by device.
#[track_caller]
fn leads_to(disk_dir: &Path, devices: &[String]) {
    let mount = serde_json::json!({
        "destination": "/data", "type": "bind", "source": disk_dir, "options": ["rbind", "rw"]
    });
    let c = annotated(
        Container::sleeping("path").mount(mount),
        &[("hydra.blkio.read-bps", "container:/data=7MB")],
    )
    .up();
    let rows = c.verb(&["inspect", "--json", &c.id]).ok().json();
    let mut found: Vec<String> = rows[0]["knobs"]
        .as_array()
        .expect("knobs")
        .iter()
        .map(|row| {
            assert_eq!(row["effective"], "7000000", "{row}");
            row["device"].as_str().expect("device").split(' ').next().expect("number").to_string()
        })
        .collect();
    found.sort();
    let mut wanted = devices.to_vec();
    wanted.sort();
    assert_eq!(found, wanted);
}

/// A limit for all devices has found, when `create` is through, those below a bind mount's source, under an overlay, of a
/// mount from a device node.
#[test]
fn create_misses_no_device() {
    differs!(Runc, "knobs are ours");
    differs!(Crun, "knobs are ours");
    let made: Result<Vec<Disk>, String> = (0..2).map(|_| Disk::any(64)).collect();
    let (disks, (image, node)) = match made.and_then(|disks| Ok((disks, disk::image(384)?))) {
        Ok(made) => made,
        Err(why) => skip!("{why}"),
    };
    disk::sh(&format!("{MKFS} $MKFS {node}")).unwrap();
    let kind = disk::sh(&format!("blkid -o value -s TYPE {node}")).unwrap();
    let number = disk::number(&node).unwrap();
    let source = integration::janitor::scratch().join(format!("rbind{}", disks[0].device.replace(':', "-")));
    let layers = disks[1].dir.display();
    disk::sh(&format!(
        "mkdir -p {0}/sub {layers}/l {layers}/u {layers}/w && mount --bind {1} {0}/sub",
        source.display(),
        disks[0].dir.display()
    ))
    .unwrap();
    let c = Container::sleeping("misses")
        // Who mounts a device is in the cgroup by then.
        .with(|config| config["linux"]["resources"]["devices"] = serde_json::json!([{ "allow": true, "access": "rwm" }]))
        .mount(serde_json::json!({ "destination": "/data", "type": "bind", "source": source, "options": ["rbind"] }))
        .mount(serde_json::json!({ "destination": "/over", "type": "overlay", "source": "overlay", "options": [
            format!("lowerdir={layers}/l"), format!("upperdir={layers}/u"), format!("workdir={layers}/w")
        ] }))
        .mount(serde_json::json!({ "destination": "/disk", "type": kind, "source": node, "options": ["rw"] }));
    let knobs = [
        ("hydra.blkio.write-bps", "3MB"),
        ("hydra.blkio.read-bps", "container:/data/sub/x=4MB,container:/over=5MB,container:/disk=6MB"),
    ];
    let c = annotated(c, &knobs).up();
    let placed = |knob: &str| -> Vec<(String, u64)> {
        let state = c.state();
        let all = state["hydra"]["devices"].as_array().expect("devices").iter().filter(|p| p["knob"] == knob);
        all.map(|p| (p["device"].as_str().unwrap().to_string(), p["amount"].as_u64().unwrap())).collect()
    };
    for device in [&disks[0].device, &disks[1].device, &number] {
        let found = placed("blkio.write-bps");
        assert!(found.contains(&(device.clone(), 3_000_000)), "{device} of {found:?}");
    }
    let mut named = placed("blkio.read-bps");
    named.sort_by_key(|(_, amount)| *amount);
    let wanted = [(&disks[0].device, 4_000_000), (&disks[1].device, 5_000_000), (&number, 6_000_000)]
        .map(|(d, n)| (d.clone(), n));
    assert_eq!(named, wanted);
    c.delete_force().ok();
    assert_eq!(c.leftovers(), Vec::<String>::new());
    let end = format!("umount -l {0}/sub; losetup -d {node}; rm -f {1}", source.display(), image.display());
    disk::sh(&end).unwrap();
}

/// From a path to what can be throttled.
#[test]
fn paths_lead_to_devices() {
    differs!(Runc, "knobs are ours");
    differs!(Crun, "knobs are ours");
    let plain = match Disk::any(64) {
        Ok(disk) => disk,
        Err(why) => skip!("{why}"),
    };
    leads_to(&plain.dir, std::slice::from_ref(&plain.device));
    match Disk::new("btrfs", 256) {
        Ok(disk) => leads_to(&disk.dir, std::slice::from_ref(&disk.device)),
        Err(why) => println!("SKIP+ btrfs: {why}"),
    }
    match Disk::new("xfs", 384) {
        Ok(disk) => leads_to(&disk.dir, std::slice::from_ref(&disk.device)),
        Err(why) => println!("SKIP+ xfs: {why}"),
    }
    overlay(&plain);
    partition();
    raid();
    mapped();
    // tmpfs has no device: an error when it is named.
    let c = annotated(Container::sleeping("tmpfs"), &[("hydra.blkio.read-bps", "container:/dev/shm=7MB")]);
    c.create().fails_with("/dev/shm is no bind mount and has no block device");
    assert_eq!(c.leftovers(), Vec::<String>::new());
}

fn overlay(upper: &Disk) {
    let (lower, dir) = (upper.dir.join("lower"), upper.dir.join("merged"));
    let line = format!(
        "mkdir -p {0}/lower {0}/upper {0}/work {0}/merged && mount -t overlay overlay -o lowerdir={1},upperdir={0}/upper,workdir={0}/work {2}",
        upper.dir.display(), lower.display(), dir.display()
    );
    match disk::sh(&line) {
        Ok(_) => leads_to(&dir, std::slice::from_ref(&upper.device)),
        Err(why) => println!("SKIP+ overlay: {why}"),
    }
    let _ = disk::sh(&format!("umount -l {}", dir.display()));
}

/// What makes a file system on the next word.
const MKFS: &str =
    "if command -v mkfs.ext4 >/dev/null; then MKFS='mkfs.ext4 -qF'; else MKFS='mkfs.btrfs -qf'; fi; ";

/// A partition stands for its disk: the kernel limits whole disks. Made by the ioctl where the tool for it is there,
/// else by the kernel's own reading of a table.
fn partition() {
    let made = disk::image(160).and_then(|(image, node)| {
        let line = format!(
            "set -e; {MKFS} n={node}; p={node}p1
            if command -v addpart >/dev/null; then addpart $n 1 2048 300000; else
              printf '\\000\\000\\000\\000\\203\\000\\000\\000\\000\\010\\000\\000\\340\\223\\004\\000' | dd of=$n bs=1 seek=446 2>/dev/null
              printf '\\125\\252' | dd of=$n bs=1 seek=510 conv=fsync 2>/dev/null
              losetup -d $n; losetup -P $n {}
            fi
            for i in 1 2 3 4 5; do [ -e /sys/block/${{n##*/}}/${{p##*/}}/dev ] && break; sleep 1; done
            [ -b $p ] || mknod $p b $(tr : ' ' </sys/block/${{n##*/}}/${{p##*/}}/dev); $MKFS $p",
            image.display()
        );
        disk::sh(&line).map(|_| (image, node))
    });
    let (image, node) = match made {
        Ok(made) => made,
        Err(why) => return println!("SKIP+ partition: {}", why.lines().last().unwrap_or_default()),
    };
    let dir = image.with_extension("part");
    fs::create_dir_all(&dir).unwrap();
    disk::sh(&format!("mount {node}p1 {}", dir.display())).unwrap();
    leads_to(&dir, &[disk::number(&node).unwrap()]);
    let end = format!(
        "umount {}; delpart {node} 1; losetup -d {node}; rm -f {node}p1 {}",
        dir.display(),
        image.display()
    );
    disk::sh(&end).unwrap();
}

/// md is limited itself. Made by hand: mdadm does no more for an array without a superblock.
fn raid() {
    let made = disk::image(128).and_then(|a| disk::image(128).map(|b| (a, b)));
    let (a, b) = made.expect("loop devices");
    let array = format!("md_hydra{}", std::process::id());
    let name = format!("/dev/{array}");
    let line = format!(
        "set -e; {MKFS} modprobe -q raid0; echo {array} >/sys/module/md_mod/parameters/new_array; cd /sys/block/{array}/md
        echo none >metadata_version; echo raid0 >level; echo 2 >raid_disks; echo 65536 >chunk_size
        slot=0; for n in {} {}; do
          cat /sys/block/${{n##*/}}/dev >new_dev; echo 131072 >dev-${{n##*/}}/size; echo $slot >dev-${{n##*/}}/slot; slot=1
        done
        echo active >array_state; [ -b {name} ] || mknod {name} b $(tr : ' ' <../dev); $MKFS {name}",
        a.1, b.1
    );
    match disk::sh(&line) {
        Ok(_) => {
            let dir = a.0.with_extension("md");
            fs::create_dir_all(&dir).unwrap();
            disk::sh(&format!("mount {name} {}", dir.display())).unwrap();
            leads_to(&dir, &[disk::number(&name).unwrap()]);
            disk::sh(&format!("umount {}; echo clear >/sys/block/{array}/md/array_state", dir.display()))
                .unwrap();
        }
        Err(why) => println!("SKIP+ md: {}", why.lines().last().unwrap_or_default()),
    }
    let _ =
        disk::sh(&format!("losetup -d {} {}; rm -f {} {} {name}", a.1, b.1, a.0.display(), b.0.display()));
}

/// So is device-mapper, whatever lies below it.
fn mapped() {
    let (image, node) = disk::image(128).expect("a loop device");
    let name = format!("hydra{}", std::process::id());
    let line = format!("{MKFS} modprobe -q dm-mod; dmsetup create {name} --table '0 262144 linear {node} 0' && $MKFS /dev/mapper/{name}");
    match disk::sh(&line) {
        Ok(_) => {
            let dir = image.with_extension("dm");
            fs::create_dir_all(&dir).unwrap();
            disk::sh(&format!("mount /dev/mapper/{name} {}", dir.display())).unwrap();
            leads_to(&dir, &[disk::number(&format!("/dev/mapper/{name}")).unwrap()]);
            disk::sh(&format!("umount {}; dmsetup remove {name}", dir.display())).unwrap();
        }
        Err(why) => println!("SKIP+ dm: {}", why.lines().last().unwrap_or_default()),
    }
    let _ = disk::sh(&format!("losetup -d {node}; rm -f {}", image.display()));
}
