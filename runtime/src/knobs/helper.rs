//! The helper: a small process for a container that asked for a total over its devices, or for limits that follow
//! its mounts. No other container has one.
//!
//! The kernel limits each device alone. The helper reads what each device does and moves the budget to where the
//! demand is; the shares always add up to the total, so when it dies the last split holds until the next command
//! for the container starts it again. It ends with the container.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cgroup::block::Device;
use cgroup::{Dir, Location};
use nix::fcntl::{Flock, FlockArg};
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};

use super::applied::Saved;
use super::stats;
use crate::error::{Context, Error, Kind, Result};
use crate::state::{is_alive, ProcessId};
use crate::sys::{memory, process};

/// The name under which this program is the helper.
const NAME: &str = "hydra-knobs";
/// Held by the helper; whoever can take it finds none.
const LOCK: &str = "helper.lock";
/// How often the budget is moved: a demand that swaps devices is followed within two of these.
const TICK: Duration = Duration::from_millis(400);

/// After which time it looks again for the mounts that it couldn't follow.
const AGAIN: Duration = Duration::from_secs(5);

/// What the helper takes from `state.json`; the rest of it is no business of this module's.
#[derive(serde::Deserialize)]
struct State {
    id: String,
    init: Option<ProcessId>,
    cgroup: Option<Location>,
    #[serde(default)]
    knobs: Saved,
}

/// Starts the helper of a container if it needs one and has none. `dir` is the container's state directory, and
/// `state.json` in it has to be complete.
pub fn ensure(dir: &Path, saved: &Saved) -> Result<()> {
    if !saved.needs_helper() {
        return Ok(());
    }
    let Some(lock) = lock(dir)? else { return Ok(()) };
    // The helper takes it anew; two that race for it are one too many, and that one leaves.
    drop(lock);
    let mut command = Command::new("/proc/self/exe");
    command.arg0(NAME).arg(dir).current_dir("/").env_clear();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().context("starting the helper that keeps blkio.total-* and follows mounts")?;
    Ok(())
}

fn lock(dir: &Path) -> Result<Option<Flock<File>>> {
    let path = dir.join(LOCK);
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.with_context(|| format!("opening {}", path.display()))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, e)) => Err(e).with_context(|| format!("locking {}", path.display())),
    }
}

/// The helper's exit code, if this program was started as one.
pub fn main(args: impl IntoIterator<Item = std::ffi::OsString>) -> Option<u8> {
    let mut args = args.into_iter();
    if args.next()? != NAME {
        return None;
    }
    let dir = PathBuf::from(args.next()?);
    // What the caller's caller forgot to close would stay open as long as the container lives.
    close_inherited();
    let _ = nix::unistd::setsid();
    Some(watch(&dir).map_or(1, |()| 0))
}

fn close_inherited() {
    let fds = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let fds: Vec<i32> =
        fds.filter_map(|e| e.file_name().to_str()?.parse().ok()).filter(|fd| *fd > 2).collect();
    fds.into_iter().filter(|fd| process::is_open(*fd)).for_each(|fd| drop(process::own(fd)));
}

fn watch(dir: &Path) -> Result<()> {
    let Some(_lock) = lock(dir)? else { return Ok(()) };
    let mut state = read(dir)?;
    let init = state.init.take().ok_or_else(|| Error::new(Kind::State, "no process to watch"))?;
    let Some(location) = state.cgroup.take() else { return Ok(()) };
    let mounts = File::open(format!("/proc/{}/mountinfo", init.pid))?;
    // Before Linux 5.3 its end is noticed at the next tick.
    let pidfd = process::pidfd_open(init.pid).ok();
    let mut modified = modified(dir);
    let mut budget = Budget::new(&location, &state.knobs)?;
    // What came before the file was opened is no news to whoever polls it.
    let mut stale = state.knobs.follow_mounts && !follow(dir, &state.id);
    let mut tried = Instant::now();
    while is_alive(init) && state.knobs.needs_helper() {
        let followed = state.knobs.follow_mounts.then(|| PollFd::new(mounts.as_fd(), PollFlags::POLLPRI));
        let end = pidfd.as_ref().map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN));
        let mut watched: Vec<_> = followed.into_iter().chain(end).collect();
        let timeout = PollTimeout::try_from(TICK).unwrap_or(PollTimeout::MAX);
        // Asleep, it needs none of the program in memory.
        memory::leave_text();
        let ready = poll(&mut watched, timeout).unwrap_or(0);
        let news = ready > 0 && state.knobs.follow_mounts && watched[0].any() == Some(true);
        if news || stale && tried.elapsed() > AGAIN {
            stale = !follow(dir, &state.id);
            tried = Instant::now();
        }
        // An `update` under way reads and writes the same limits.
        let Some(_lock) = quiet(dir)? else { continue };
        if self::modified(dir) != modified {
            modified = self::modified(dir);
            // Deleted: nothing to watch any more.
            let Ok(new) = read(dir) else { return Ok(()) };
            state = new;
            budget = Budget::new(&location, &state.knobs)?;
        }
        budget.tick();
    }
    Ok(())
}

/// The container's lock, if nobody changes it just now.
fn quiet(dir: &Path) -> Result<Option<Flock<File>>> {
    let file = File::open(dir).with_context(|| format!("opening {}", dir.display()))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, e)) => Err(e).with_context(|| format!("locking {}", dir.display())),
    }
}

fn read(dir: &Path) -> Result<State> {
    let path = dir.join("state.json");
    let text = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_slice(&text).map_err(|e| Error::new(Kind::System, format!("{}: {e}", path.display())))
}

fn modified(dir: &Path) -> Option<(u64, i64)> {
    use std::os::unix::fs::MetadataExt;
    // Replaced by a new file each time.
    fs::metadata(dir.join("state.json")).ok().map(|m| (m.ino(), m.ctime_nsec()))
}

/// Has the limits resolved again, as any `update` does, and says whether that went well. A mount that comes with a burst of
/// others costs one.
fn follow(dir: &Path, id: &str) -> bool {
    std::thread::sleep(Duration::from_millis(50));
    let Some(root) = dir.parent() else { return false };
    let mut command = Command::new("/proc/self/exe");
    command.arg0("runtime").arg("--root").arg(root).args(["update", id]);
    let done = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    done.is_ok_and(|status| status.success())
}

/// The totals of one container and how they are split now.
struct Budget {
    /// The io controller's directory; absent when there is nothing to share.
    dir: Option<Dir>,
    v1: bool,
    totals: [Option<u64>; 4],
    devices: Vec<Device>,
    /// Limits of single devices, which a share may not exceed.
    caps: BTreeMap<(usize, Device), u64>,
    counted: Option<(Instant, [Vec<u64>; 4])>,
}

impl Budget {
    fn new(location: &Location, saved: &Saved) -> Result<Budget> {
        let totals = saved.totals.all();
        let v1 = location.branches.iter().any(|b| b.controllers.iter().any(|c| c == "blkio"));
        let path = location.path(if v1 { "blkio" } else { "io" });
        let dir = match path.filter(|_| !saved.totals.is_empty()) {
            Some(path) => Some(Dir::open(path)?),
            None => None,
        };
        let devices = saved.shared();
        let caps = saved.caps.iter().map(|cap| ((cap.throttle, cap.device), cap.rate));
        Ok(Budget { dir, v1, totals, caps: caps.collect(), counted: None, devices })
    }

    /// Moves the budget once.
    fn tick(&mut self) {
        let Some(dir) = self.dir.as_ref().filter(|_| self.devices.len() > 1) else { return };
        let now = Instant::now();
        let counts = count(dir, self.v1, &self.devices);
        let Some((then, before)) = self.counted.replace((now, counts.clone())) else { return };
        let elapsed = now.duration_since(then).as_secs_f64().max(0.01);
        // What the kernel has, and not what was written last: systemd resets it with each daemon-reload.
        let present = stats::limits_in(dir);
        for (i, total) in self.totals.into_iter().enumerate() {
            let Some(total) = total else { continue };
            let rates = counts[i]
                .iter()
                .zip(&before[i])
                .map(|(new, old)| (new.saturating_sub(*old) as f64 / elapsed) as u64);
            let rates: Vec<u64> = rates.collect();
            let caps: Vec<u64> =
                self.devices.iter().map(|d| self.caps.get(&(i, *d)).copied().unwrap_or(u64::MAX)).collect();
            let held = |d: &Device| present.iter().find(|(p, _)| p == d).and_then(|(_, rates)| rates[i]);
            let held: Vec<u64> = self.devices.iter().map(|d| held(d).unwrap_or(u64::MAX)).collect();
            let shares = split(total, &held, &rates, &caps);
            // Less is written before more, so that the sum never exceeds the total.
            let mut order: Vec<usize> = (0..shares.len()).filter(|n| shares[*n] != held[*n]).collect();
            order.sort_by_key(|n| shares[*n] > held[*n]);
            for n in order {
                // A device that went away is no longer anybody's demand.
                let _ = write(dir, self.v1, i, self.devices[n], shares[n]);
            }
        }
    }
}

/// Splits a total by demand. `shares` are those in force, under which the devices ran at `rates`.
///
/// A device that uses most of its share wants more. Devices that don't keep what they use and a third on top, but
/// at least a sliver that shows when their demand begins. The rest goes to those that want, in equal parts.
fn split(total: u64, shares: &[u64], rates: &[u64], caps: &[u64]) -> Vec<u64> {
    let n = shares.len() as u64;
    let floor = (total / (40 * n.saturating_sub(1).max(1))).max(1);
    let wants: Vec<bool> =
        shares.iter().zip(rates).map(|(share, rate)| *rate as f64 >= 0.8 * *share as f64).collect();
    let fair = total / n.max(1);
    let nobody = !wants.contains(&true);
    let mut new: Vec<u64> = rates
        .iter()
        .zip(&wants)
        .map(|(rate, wants)| match wants {
            true => 0,
            false => (rate + rate / 3).clamp(floor, fair.max(floor)),
        })
        .collect();
    // What is left goes to those that want, else to those that do anything, else to all; again while caps leave
    // something over.
    let idle = rates.iter().all(|rate| *rate == 0);
    let mut open: Vec<usize> =
        (0..new.len()).filter(|i| wants[*i] || nobody && (idle || rates[*i] > 0)).collect();
    loop {
        let left = total.saturating_sub(new.iter().sum());
        let part = left / open.len().max(1) as u64;
        if part == 0 || open.is_empty() {
            break;
        }
        open.iter().for_each(|i| new[*i] = new[*i].saturating_add(part).min(caps[*i]));
        let count = open.len();
        open.retain(|i| new[*i] < caps[*i]);
        if open.len() == count {
            break;
        }
    }
    new.iter().zip(caps).map(|(share, cap)| (*share).min(*cap).max(1)).collect()
}

/// Bytes read, bytes written, reads, writes of each device so far.
fn count(dir: &Dir, v1: bool, devices: &[Device]) -> [Vec<u64>; 4] {
    let mut counts = [0; 4].map(|_: u64| vec![0; devices.len()]);
    let index = |name: &str| devices.iter().position(|d| d.to_string() == name);
    if !v1 {
        for line in dir.peek("io.stat").unwrap_or_default().lines() {
            let mut words = line.split(' ');
            let Some(device) = words.next().and_then(index) else { continue };
            for word in words {
                let Some((key, value)) = word.split_once('=') else { continue };
                if let Some(kind) = ["rbytes", "wbytes", "rios", "wios"].iter().position(|k| *k == key) {
                    counts[kind][device] = value.parse().unwrap_or(0);
                }
            }
        }
        return counts;
    }
    let files = ["blkio.throttle.io_service_bytes_recursive", "blkio.throttle.io_serviced_recursive"];
    for (file, kinds) in files.iter().zip([[0, 1], [2, 3]]) {
        for line in dir.peek(file).unwrap_or_default().lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let [device, operation, value] = words[..] else { continue };
            let kind = match operation {
                "Read" => kinds[0],
                "Write" => kinds[1],
                _ => continue,
            };
            if let Some(device) = index(device) {
                counts[kind][device] = value.parse().unwrap_or(0);
            }
        }
    }
    counts
}

fn write(dir: &Dir, v1: bool, kind: usize, device: Device, rate: u64) -> cgroup::Result<()> {
    match v1 {
        true => {
            let file = ["read_bps", "write_bps", "read_iops", "write_iops"][kind];
            dir.write(&format!("blkio.throttle.{file}_device"), &format!("{device} {rate}"))
        }
        false => {
            let key = ["rbps", "wbps", "riops", "wiops"][kind];
            dir.write("io.max", &format!("{device} {key}={rate}"))
        }
    }
}

/// Moves the budget until told to stop: the helper's work without the helper.
#[cfg(test)]
pub fn share_until(location: &Location, saved: &Saved, stop: &std::sync::atomic::AtomicBool) {
    let mut budget = Budget::new(location, saved).unwrap();
    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
        std::thread::sleep(TICK);
        budget.tick();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: [u64; 2] = [u64::MAX; 2];

    #[test]
    fn one_busy_device_gets_nearly_all() {
        let mut shares = vec![50_000, 50_000];
        for _ in 0..2 {
            let rates = [shares[0], 0];
            shares = split(100_000, &shares, &rates, &NONE);
        }
        assert!(shares[0] >= 90_000 && shares[1] > 0, "{shares:?}");
    }

    #[test]
    fn demand_that_moves_is_followed_in_two_ticks() {
        let mut shares = vec![95_000, 5_000];
        for _ in 0..2 {
            let rates = [0, shares[1]];
            shares = split(100_000, &shares, &rates, &NONE);
        }
        assert!(shares[1] >= 90_000, "{shares:?}");
    }

    #[test]
    fn a_pause_of_the_only_busy_device_costs_it_nothing() {
        let shares = split(100_000, &[97_000, 3_000], &[40_000, 0], &NONE);
        assert!(shares[0] >= 90_000, "{shares:?}");
        assert_eq!(split(100_000, &[97_000, 3_000], &[0, 0], &NONE), [50_000, 50_000]);
    }

    #[test]
    fn the_shares_never_exceed_the_total() {
        let mut seed = 1u64;
        let mut random = |below: u64| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 33) % below
        };
        for _ in 0..10_000 {
            let n = 2 + random(5) as usize;
            let total = 1000 + random(1 << 40);
            let shares: Vec<u64> = (0..n).map(|_| random(total)).collect();
            let rates: Vec<u64> = (0..n).map(|_| random(2 * total)).collect();
            let caps: Vec<u64> =
                (0..n).map(|_| if random(2) == 0 { u64::MAX } else { 1 + random(total) }).collect();
            let new = split(total, &shares, &rates, &caps);
            assert!(
                new.iter().sum::<u64>() <= total + n as u64,
                "{total} {shares:?} {rates:?} {caps:?} {new:?}"
            );
            assert!(new.iter().zip(&caps).all(|(share, cap)| share <= cap && *share > 0));
        }
    }

    #[test]
    fn a_capped_device_leaves_its_part_to_the_others() {
        assert_eq!(split(100, &[50, 50], &[50, 50], &[10, u64::MAX]), [10, 90]);
    }
}
