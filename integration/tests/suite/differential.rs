//! Configurations out of a generator, each run by `runtime`, by runc and by crun: what `probe` finds around it inside,
//! and what the container's cgroups say, must be the same, or be listed in [`KNOWN`] with the reason.
//!
//! `COUNT=500 SEED=1` says how many and which; a difference is told with the seed that shows it again.

mod config;
mod known;

use config::Random;
use integration::bundle::copy_program;
use integration::bundle::template;
use integration::console::ConsoleSocket;
use integration::{eventually, host, janitor, peer, Peer, Run};
use known::{reason, KNOWN};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Mutex;

/// What was found, by name.
type Findings = BTreeMap<String, String>;

const ACCEPTED: &str = "accepted";

fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

fn probe() -> PathBuf {
    host::runtime().canonicalize().expect("runtime").with_file_name("probe")
}

#[test]
fn what_is_found_inside_is_what_others_give() {
    if peer() != Peer::Hydra {
        integration::skip!("the peers are compared with ours, not with themselves");
    }
    if std::env::var_os("WITHOUT").is_some() {
        integration::skip!("what a runtime does without newer calls is its own affair");
    }
    if host::systemd_driver() {
        integration::skip!("the cgroups' paths are those of files");
    }
    if !probe().exists() {
        integration::skip!("{} is not built", probe().display());
    }
    let peers: Vec<(Peer, PathBuf)> = [(Peer::Runc, "runc"), (Peer::Crun, "crun")]
        .into_iter()
        .filter_map(|(peer, name)| {
            let found =
                ["/usr/sbin", "/usr/bin"].iter().map(|d| Path::new(d).join(name)).find(|p| p.exists());
            Some((peer, found?))
        })
        .collect();
    if peers.is_empty() {
        integration::skip!("neither runc nor crun is installed");
    }
    let count = number("COUNT", if host::quick() { 6 } else { 60 });
    let first = number("SEED", 1);
    let next = AtomicUsize::new(first);
    let told = Mutex::new((BTreeMap::<String, String>::new(), BTreeSet::new()));
    let holder = Run::new("unshare").args(["--net", "--ipc", "--uts", "sleep", "1000000"]).start();
    eventually("the namespaces to join are there", || {
        let link = |of: &str| fs::read_link(format!("/proc/{of}/ns/uts")).ok();
        link("self") != link(&holder.pid().to_string())
    });
    let work = || loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= first + count {
            return;
        }
        for (name, text) in compare(seed, &peers, holder.pid()) {
            let mut told = told.lock().unwrap();
            match name {
                Ok(name) => drop(told.0.entry(name).or_insert(text)),
                Err(known) => drop(told.1.insert(known)),
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        scope.spawn(work);
    });
    let (differences, used) = told.into_inner().unwrap();
    println!(
        "{count} configurations from seed {first}, {} of {} known differences seen",
        used.len(),
        KNOWN.len()
    );
    if count >= 500 {
        for (i, known) in KNOWN.iter().enumerate().filter(|(i, _)| !used.contains(i)) {
            println!("not seen: {i} {:?} {:?} {:?}", known.peer, known.what, known.reason);
        }
    }
    let all: Vec<String> = differences.values().cloned().collect();
    assert!(all.is_empty(), "{} differences:\n{}", all.len(), all.join("\n"));
}

/// The differences of one configuration: unknown ones with what to tell, known ones with their place in the list.
fn compare(seed: usize, peers: &[(Peer, PathBuf)], holder: i32) -> Vec<(Result<String, usize>, String)> {
    let id = format!("diff-{}-{seed}", std::process::id());
    let case = config::generate(&mut Random::new(seed as u64), &id, holder);
    let ours = run(Peer::Hydra, &host::runtime(), &id, &case);
    let mut all = Vec::new();
    for (peer, program) in peers {
        let theirs = run(*peer, program, &id, &case);
        let names: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
        for name in names {
            let (a, b) = (ours.get(name).map_or("-", |v| v), theirs.get(name).map_or("-", |v| v));
            if a == b || name == "message" {
                continue;
            }
            // Beside a container that wasn't made there is nothing to compare.
            if name != ACCEPTED && ours[ACCEPTED] != theirs[ACCEPTED] {
                continue;
            }
            match reason(*peer, name, a, b) {
                Some(known) => all.push((Err(known), String::new())),
                None => {
                    let said = |f: &Findings| f.get("message").cloned().unwrap_or_default();
                    let text = format!(
                        "  SEED={seed} {name}\n    ours:   {a} {}\n    {peer:?}: {b} {}",
                        said(&ours),
                        said(&theirs)
                    );
                    all.push((Ok(format!("{peer:?} {name}")), text));
                }
            }
        }
    }
    all
}

/// One life of the configuration under one runtime.
fn run(peer: Peer, program: &Path, id: &str, case: &config::Case) -> Findings {
    let bundle = janitor::scratch().join("bundles").join(id);
    let root = janitor::scratch().join("roots").join(id);
    let _ = fs::remove_dir_all(&bundle);
    fs::create_dir_all(&root).expect("state folder");
    make_bundle(&bundle, case);
    let verb = |name: &str| command(peer, program).args(["--root".as_ref(), root.as_os_str()]).args([name]);
    let output = bundle.join("output");
    let pid_file = bundle.join("pid");
    let mut create = verb("create").args(["--bundle".as_ref(), bundle.as_os_str()]);
    create = create.args(["--pid-file".as_ref(), pid_file.as_os_str()]);
    let socket = case.terminal().then(|| ConsoleSocket::new(id));
    if let Some(socket) = &socket {
        create = create.args(["--console-socket".as_ref(), socket.path.as_os_str()]);
    }
    // crun gives its standard input to the container's user, be it the host's /dev/null.
    let created = create.args([id]).stdin("input").stdout_to(&output).out();
    let mut found = Findings::new();
    found.insert(ACCEPTED.into(), if created.code == 0 { "yes".into() } else { "no".into() });
    if created.code == 0 {
        let pid: i32 = fs::read_to_string(&pid_file).expect("pid file").trim().parse().expect("a pid");
        cgroup_files(id, case, &mut found);
        let terminal = socket.map(|s| s.receive().0);
        let started = verb("start").args([id]).out();
        found.insert("started".into(), started.code.to_string());
        let text = match terminal {
            Some(mut terminal) => terminal.read_to_end(),
            None => {
                eventually("the probe ends", || !host::alive(pid));
                fs::read_to_string(&output).unwrap_or_default()
            }
        };
        read(&text, &mut found);
    } else {
        found.insert("message".into(), created.stderr.trim().to_string());
    }
    let deleted = verb("delete").args(["--force", id]).out();
    found.insert("deleted".into(), deleted.code.to_string());
    for mount in host::mounts_below(&bundle) {
        let _ = nix::mount::umount2(&mount, nix::mount::MntFlags::MNT_DETACH);
    }
    let _ = fs::remove_dir_all(&bundle);
    let _ = fs::remove_dir_all(&root);
    found
}

/// Debian's crun refuses hybrid hosts: it runs where the v2 part of the hierarchy isn't mounted.
fn command(peer: Peer, program: &Path) -> Run {
    if peer != Peer::Crun || host::cgroups() != host::Cgroups::Hybrid {
        return Run::new(program);
    }
    let script = "umount /sys/fs/cgroup/unified && mount -t tmpfs none /sys/fs/cgroup/unified; exec \"$@\"";
    Run::new("unshare").args(["--mount", "--propagation", "slave", "sh", "-c", script, "-"]).args([program])
}

fn make_bundle(bundle: &Path, case: &config::Case) {
    let rootfs = bundle.join("rootfs");
    for dir in ["proc", "sys", "dev", "tmp", "etc", "data-of-the-image"] {
        fs::create_dir_all(rootfs.join(dir)).expect("root file system");
    }
    fs::create_dir_all(bundle.join("data/below")).expect("data");
    fs::write(bundle.join("data/file"), "text").expect("data");
    fs::copy(template().join("etc/passwd"), rootfs.join("etc/passwd")).expect("passwd");
    fs::set_permissions(rootfs.join("tmp"), fs::Permissions::from_mode(0o1777)).expect("mode");
    // Not a link: the copy is handed to the container's users.
    copy_program(&probe(), &rootfs.join("probe"));
    if let Some(owner) = case.owner() {
        Run::new("chown").args(["-R".as_ref(), owner.as_ref(), rootfs.as_os_str()]).ok();
        Run::new("chmod").args(["a+rx".as_ref(), janitor::scratch().as_os_str()]).ok();
        Run::new("chmod").args(["a+rx".as_ref(), bundle.parent().expect("bundles").as_os_str()]).ok();
    }
    if std::env::var_os("SHOW").is_some() {
        println!("{}", case.config);
    }
    let text = case.config.to_string().replace("BUNDLE", bundle.to_str().expect("a path of text"));
    fs::write(bundle.join("config.json"), text).expect("config.json");
}

fn read(text: &str, found: &mut Findings) {
    for line in text.lines() {
        if let Some((name, value)) = line.split_once(": ") {
            found.insert(name.into(), value.trim().into());
        }
    }
}

/// The limits in the container's cgroups: all files but those that count.
fn cgroup_files(id: &str, case: &config::Case, found: &mut Findings) {
    const COUNTERS: &[&str] = &[
        "stat",
        "usage",
        "procs",
        "tasks",
        "failcnt",
        "event",
        "pressure",
        "peak",
        "current",
        "serviced",
        "service_",
        "merged",
        "queued",
        "wait_time",
        "io_time",
        "sectors",
        "numa",
        "slabinfo",
        "release_agent",
        "freezer.state",
        "cgroup.threads",
        "memory_migrate_",
        "clone_children",
    ];
    let path = case.config["linux"]["cgroupsPath"].as_str().unwrap_or(id);
    for dir in host::cgroup_dirs(path) {
        let hierarchy =
            dir.strip_prefix("/sys/fs/cgroup").ok().and_then(|p| p.iter().next()).unwrap_or_default();
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if COUNTERS.iter().any(|c| name.contains(c)) || !entry.path().is_file() {
                continue;
            }
            let Ok(text) = fs::read_to_string(entry.path()) else { continue };
            let mut lines: Vec<&str> = text.trim().lines().collect();
            lines.sort();
            found.insert(format!("cgroup {}/{name}", hierarchy.to_string_lossy()), lines.join(" | "));
        }
    }
}

impl config::Case {
    fn terminal(&self) -> bool {
        self.config["process"]["terminal"] == true
    }

    /// Who owns the root file system where users are mapped.
    fn owner(&self) -> Option<String> {
        let map: &Value = &self.config["linux"]["uidMappings"][0]["hostID"];
        map.as_u64().map(|id| format!("{id}:{id}"))
    }
}
