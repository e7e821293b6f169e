//! What callers ask of the shim beyond the task service: options, the forms in which they come, groups, checkpoints.

use integration::stepper::{self, Whose};
use integration::ttrpc::{Client, Fifos, Message, Shim, NAMESPACE, TASK, TASK_V3};
use integration::{eventually, host, janitor, Bundle, Peer, Run};
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

const NONE: [&str; 3] = ["", "", ""];

macro_rules! ours {
    () => {
        if integration::peer() != Peer::Hydra {
            integration::skip!("the shim is ours");
        }
    };
}

mod loggers;

fn id(name: &str) -> String {
    format!("{name}-{}", std::process::id())
}

pub fn start(name: &str, stdin: &[u8], change: impl FnOnce(&mut serde_json::Value)) -> Shim {
    Shim::start(&host::shim(), &id(name), stdin, change)
}

pub fn sh(script: &str) -> impl FnOnce(&mut serde_json::Value) + '_ {
    move |config| config["process"]["args"] = json!(["sh", "-c", script])
}

pub fn runtime() -> PathBuf {
    fs::canonicalize(host::runtime()).expect("the runtime")
}

/// The monitor's processes.
pub fn heads(id: &str) -> Vec<i32> {
    let mut pids = host::processes_with(&format!("{NAMESPACE}/{id}"));
    pids.retain(|p| fs::read_link(format!("/proc/{p}/exe")).is_ok_and(|e| e.ends_with("shim")));
    pids
}

fn written(file: &Path) -> Vec<u8> {
    fs::read(file).expect("an answer")
}

#[test]
fn it_says_what_it_is() {
    ours!();
    let file = janitor::scratch().join("info");
    let any = Message::new()
        .text(1, "containerd.runc.v1.Options")
        .bytes(2, Message::new().text(6, runtime().to_str().unwrap()).encode());
    Run::new(host::shim()).args(["-info"]).stdin(any.encode()).stdout_to(&file).ok();
    let info = Message::decode(&written(&file));
    assert_eq!(info.get_text(1), "io.containerd.hydra.v2");
    assert!(!info.get_message(2).get_text(1).is_empty(), "a version");
    assert_eq!(info.get_message(3), any, "the options come back");
    let features: serde_json::Value = serde_json::from_slice(&info.get_message(4).get_bytes(2)).unwrap();
    assert!(features["ociVersionMax"].is_string(), "{features}");
    let nothing = janitor::scratch().join("info-2");
    Run::new(host::shim()).args(["-info"]).stdout_to(&nothing).ok();
    assert_eq!(Message::decode(&written(&nothing)).get_text(1), "io.containerd.hydra.v2");
    let version = Run::new(host::shim()).args(["-v"]).ok();
    assert!(version.stdout.contains("Version"), "{version}");
    Run::new(host::shim()).args(["-colour"]).out().fails_with("-colour");
}

/// containerd's drivers write the options as they like: by which name, none at all, or as TOML.
#[test]
fn options_come_in_every_wrapping() {
    ours!();
    let runtime = runtime();
    let root = janitor::scratch().join("roots/wrapped");
    let (binary, root) = (runtime.to_str().unwrap(), root.to_str().unwrap());
    let options = Message::new().text(6, binary).text(7, root);
    let toml = format!("BinaryName = \"{binary}\"\nRoot = \"{root}\"\n");
    let wrapped = Message::new().text(1, "x").bytes(3, toml);
    let all = [
        ("containerd.runc.v1.Options", options.encode()),
        ("type.googleapis.com/containerd.runc.v1.Options", options.encode()),
        ("runtimeoptions.v1.Options", wrapped.encode()),
    ];
    for (n, (url, value)) in all.into_iter().enumerate() {
        let mut shim = start(&format!("wrapped{n}"), &[], sh("exit 4"));
        let request = shim.target().text(2, shim.bundle.dir.to_str().unwrap()).any(10, url, value);
        shim.client.call("Create", &request).unwrap_or_else(|e| panic!("{url}: {e:?}"));
        assert!(Path::new(root).join(NAMESPACE).join(&shim.id).exists(), "{url}: its root");
        shim.call("Start").unwrap();
        assert_eq!(shim.wait("").unwrap().get(1), 4);
        shim.end();
    }
    let mut shim = start("odd-options", &[], sh("true"));
    let request = shim.target().any(10, "some.Options", Vec::new());
    let refused = shim.client.call("Create", &request).unwrap_err();
    assert!(refused.text.contains("some.Options"), "{refused:?}");
    shim.end();
}

/// Without any option: the runtime beside the shim, and a root of our own.
#[test]
fn without_options_the_runtime_is_the_one_beside() {
    ours!();
    let mut shim = start("plain", &[], sh("exit 4"));
    let request = shim.target().text(2, shim.bundle.dir.to_str().unwrap());
    shim.client.call("Create", &request).unwrap();
    assert!(Path::new("/run/containerd/hydra").join(NAMESPACE).join(&shim.id).exists());
    shim.call("Start").unwrap();
    assert_eq!(shim.wait("").unwrap().get(1), 4);
    shim.end();
}

/// containerd from 2.3 on wraps all it has to say into one message.
#[test]
fn a_start_by_bootstrap_params() {
    ours!();
    let id = id("bootstrap");
    let any = |options: &Message| {
        Message::new().text(1, "type.googleapis.com/containerd.runc.v1.Options").bytes(2, options.encode())
    };
    let sockets = janitor::scratch().join("s");
    let cgroup = format!("/{}/shims", janitor::name());
    let options = Message::new().text(3, &cgroup);
    let params = Message::new()
        .text(1, &id)
        .text(2, NAMESPACE)
        .text(4, "2.3.0")
        .message(8, &Message::new().message(1, &any(&options)))
        .text(9, sockets.to_str().unwrap());
    let shim = Shim::start(&host::shim(), &id, &params.encode(), sh("true"));
    assert!(shim.socket.starts_with(&sockets), "{}", shim.socket.display());
    for pid in heads(&id) {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        assert!(text.contains("/shims"), "its own cgroup: {text}");
    }
    shim.end();
}

#[test]
fn the_shim_goes_a_little_before_its_daemon() {
    ours!();
    let own = fs::read_to_string("/proc/self/oom_score_adj").unwrap().trim().parse::<i32>().unwrap();
    let shim = start("score", &[], sh("true"));
    for pid in heads(&shim.id) {
        let score = fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
        assert_eq!(score.trim().parse::<i32>().unwrap(), (own + 1).min(1000));
    }
    shim.end();
}

#[test]
fn streams_belong_to_whom_the_options_say() {
    ours!();
    for binary in host::program("containerd-shim-runc-v2").into_iter().chain([host::shim()]) {
        let name = id(&format!("io-{}", binary.file_name().unwrap().len()));
        // The runtime gives streams to the container's user, and leaves the group.
        let mut shim = Shim::start(&binary, &name, &[], sh("stat -Lc %g /proc/self/fd/1"));
        let fifos = Fifos::new(&name, false);
        let paths = fifos.paths();
        let options = shim.options(&runtime()).number(4, 1234).number(5, 2345);
        shim.create(false, ["", &paths[1], &paths[2]], options).unwrap();
        shim.call("Start").unwrap();
        shim.wait("").unwrap();
        eventually("it is said", || !fifos.read("stdout").is_empty());
        assert_eq!(fifos.read("stdout"), "2345\n", "{}", binary.display());
        shim.end();
    }
}

/// A script that is called as the program would be, after `first` was run.
pub fn wrapped(name: &str, first: &str, program: &Path) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = janitor::scratch().join(name);
    fs::write(&path, format!("#!/bin/sh\n{first} {} \"$@\"\n", program.display())).expect("a script");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its mode");
    path
}

/// Each alone, as the pipes are when the runtime gets them: it may give them to the container's user later.
#[test]
fn an_owner_or_a_group_of_the_streams_alone() {
    ours!();
    for (n, (uid, gid)) in [(1234, 0), (0, 2345)].into_iter().enumerate() {
        let name = id(&format!("io-alone-{n}"));
        let seen = janitor::scratch().join(format!("{name}.seen"));
        let look =
            format!("for f in 1 2; do (stat -Lc %u:%g /proc/$$/fd/$f >>{}); done; exec", seen.display());
        let program = wrapped(&format!("{name}.sh"), &look, &runtime());
        let mut shim = Shim::start(&host::shim(), &name, &[], sh("true"));
        let fifos = Fifos::new(&name, false);
        let paths = fifos.paths();
        let mut options = shim.options(&program);
        options = if uid != 0 { options.number(4, uid) } else { options.number(5, gid) };
        shim.create(false, ["", &paths[1], &paths[2]], options).unwrap();
        let text = fs::read_to_string(&seen).unwrap();
        let wanted = format!("{uid}:{gid}");
        assert_eq!(text.lines().take(2).collect::<Vec<_>>(), [&wanted; 2], "{text}");
        shim.call("Start").unwrap();
        assert_eq!(shim.wait("").unwrap().get(1), 0);
        shim.end();
    }
}

/// Alone: it reaches the runtime in create, and the container runs with it.
#[test]
fn no_pivot_root_alone() {
    ours!();
    for wanted in [false, true] {
        let name = id(&format!("nopivot-{wanted}"));
        let seen = janitor::scratch().join(format!("{name}.seen"));
        let program =
            wrapped(&format!("{name}.sh"), &format!("echo \"$@\" >>{}; exec", seen.display()), &runtime());
        let mut shim = Shim::start(&host::shim(), &name, &[], sh("ls /proc/self/root/bin/sh && exit 4"));
        let options = shim.options(&program).number(1, u64::from(wanted));
        shim.create(false, NONE, options).unwrap();
        shim.call("Start").unwrap();
        assert_eq!(shim.wait("").unwrap().get(1), 4);
        shim.end();
        let text = fs::read_to_string(&seen).unwrap();
        let create = text.lines().find(|l| l.contains(" create ")).expect("a create");
        assert_eq!(create.contains("--no-pivot"), wanted, "{create}");
    }
}

/// On stdin as containerd before 2.3 writes it. The monitor is in that cgroup, the container is not.
#[test]
fn the_shims_own_cgroup_is_its_alone() {
    ours!();
    let cgroup = format!("/{}/own", janitor::name());
    let options = Message::new().text(3, &cgroup);
    let any = Message::new().text(1, "containerd.runc.v1.Options").bytes(2, options.encode());
    let mut shim = start("incgroup", &any.encode(), sh("sleep 1000"));
    let options = shim.options(&runtime()).text(3, &cgroup);
    shim.create(false, NONE, options).unwrap();
    shim.call("Start").unwrap();
    let of = |pid: i32| fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let pids = heads(&shim.id);
    assert_eq!(pids.len(), 2);
    for pid in pids {
        let text = of(pid);
        // A hierarchy that is mounted elsewhere is left alone.
        assert!(text.lines().filter(|l| l.ends_with(&cgroup)).count() > 0, "{text}");
        assert!(text.lines().filter(|l| l.contains(":memory:")).all(|l| l.ends_with(&cgroup)), "{text}");
    }
    let pid = shim.call("State").unwrap().get(3) as i32;
    assert!(!of(pid).contains(&cgroup), "{}", of(pid));
    shim.end();
}

/// The exit record of a process of this container.
fn record(id: &str, process: &str) -> serde_json::Value {
    let name = if process.is_empty() { "exit.json".into() } else { format!("exec-{process}.exit.json") };
    let file = Path::new("/run/hydra-shim").join(NAMESPACE).join(id).join(name);
    serde_json::from_slice(&written(&file)).expect("a whole record")
}

/// Which of them a signal ended, and which want of memory: not told by the status alone.
#[test]
fn a_record_tells_signals_from_statuses_and_want_of_memory_from_both() {
    ours!();
    let mut shim = start("told", &[], |config| {
        sh("sleep 1000")(config);
        config["linux"]["resources"]["memory"] = json!({ "limit": 16 << 20, "swap": 16 << 20 });
    });
    let options = shim.options(&runtime());
    shim.create(false, NONE, options).unwrap();
    shim.call("Start").unwrap();
    for (name, script, signal, oom) in [
        ("status", "exit 137", 0, false),
        ("signal", "kill -KILL $$", 9, false),
        ("memory", "exec tail /dev/zero", 9, true),
    ] {
        shim.exec(name, false, NONE, &["sh", "-c", script]).unwrap();
        shim.start_exec(name).unwrap();
        assert_eq!(shim.wait(name).unwrap().get(1), 137, "{name}");
        let record = record(&shim.id, name);
        assert_eq!((&record["signal"], &record["oomKilled"]), (&json!(signal), &json!(oom)), "{record}");
        assert_eq!(record["oomCgroup"].is_string(), oom, "{record}");
    }
    shim.end();
}

/// An event is told again until it is taken, unless it never will be.
#[test]
fn events_that_are_refused_for_now_come_again() {
    ours!();
    let mut shim = start("refusals", &[], sh("exit 3"));
    // Unavailable, deadline exceeded, canceled, unknown, internal, and a failed precondition.
    shim.refusals.lock().unwrap().extend([14, 4, 1, 2, 13, 9]);
    let options = shim.options(&runtime());
    shim.create(false, NONE, options).unwrap();
    eventually("the first is taken at last", || shim.topics() == ["/tasks/create"]);
    shim.refusals.lock().unwrap().push(3);
    shim.call("Start").unwrap();
    shim.wait("").unwrap();
    eventually("what is invalid is given up", || shim.topics() == ["/tasks/create", "/tasks/exit init 3"]);
    shim.end();
}

/// `SCHED_CORE` in the environment: a kernel that can't do it is told of, and nothing is started without.
#[test]
fn core_scheduling_is_done_or_refused() {
    ours!();
    let id = id("core");
    let bundle = Bundle::new(&id);
    bundle.write();
    let call = |action: &str| {
        Run::new(host::shim())
            .args(["-namespace", NAMESPACE, "-address", "/nowhere", "-id", &id, action])
            .env("SCHED_CORE", "1")
            .dir(&bundle.dir)
            .out()
    };
    let started = call("start");
    match started.code {
        0 => assert_eq!(heads(&id).len(), 2),
        _ => drop(started.fails_with("SCHED_CORE")),
    }
    for pid in heads(&id) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    let _ = fs::remove_dir_all(Path::new("/run/hydra-shim").join(NAMESPACE).join(&id));
}

/// A Create with a rootfs of this one mount, over an empty directory.
fn create_on(
    shim: &mut Shim,
    stdout: &str,
    kind: &str,
    source: &Path,
    options: &[&str],
) -> integration::ttrpc::Answer {
    let rootfs = shim.bundle.rootfs();
    let _ = fs::remove_dir_all(&rootfs);
    fs::create_dir_all(&rootfs).unwrap();
    let mut mount = Message::new().text(1, kind).text(2, source.to_str().unwrap());
    for option in options {
        mount = mount.text(4, option);
    }
    let request = shim
        .target()
        .text(2, shim.bundle.dir.to_str().unwrap())
        .message(3, &mount)
        .text(6, stdout)
        .text(7, stdout)
        .any(10, "containerd.runc.v1.Options", shim.options(&runtime()).encode());
    shim.client.call("Create", &request)
}

/// What containerd asks for the rootfs of a pod with a user namespace: layers whose owners are mapped.
#[test]
fn a_rootfs_whose_ids_are_mapped() {
    ours!();
    let maps = ["uidmap=0:100000:65536", "gidmap=0:200000:65536"];
    for kind in ["overlay", "bind"] {
        let mut shim = start(&format!("idmap-{kind}"), &[], sh("stat -c %u:%g /bin/busybox; exit 5"));
        let dir = janitor::scratch().join(format!("idmap-{kind}"));
        for name in ["empty", "upper", "work"] {
            fs::create_dir_all(dir.join(name)).unwrap();
        }
        let (template, out) = (integration::bundle::template(), dir.join("out"));
        let layers = format!("lowerdir={}:{}", template.display(), dir.join("empty").display());
        let [upper, work] = ["upper", "work"].map(|n| format!("{n}dir={}", dir.join(n).display()));
        let options: Vec<&str> = match kind {
            "overlay" => vec![maps[0], maps[1], &work, &upper, &layers],
            _ => vec![maps[0], maps[1], "rbind", "ro"],
        };
        let made = create_on(&mut shim, &format!("file://{}", out.display()), kind, template, &options);
        if made.as_ref().is_err_and(|e| e.text.contains("mapping the ids")) {
            shim.end();
            integration::skip!("this kernel or file system maps no ids");
        }
        made.unwrap_or_else(|e| panic!("{kind}: {e:?}"));
        shim.call("Start").unwrap();
        assert_eq!(shim.wait("").unwrap().get(1), 5);
        assert_eq!(fs::read_to_string(&out).unwrap(), "100000:200000\n", "{kind}");
        shim.call("Delete").unwrap();
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        assert!(!mounts.contains(shim.bundle.dir.to_str().unwrap()), "nothing stays: {mounts}");
        let half = create_on(&mut shim, "", kind, template, &[maps[0]]).unwrap_err();
        assert!(half.text.contains("gidmap"), "{half:?}");
        let odd = create_on(&mut shim, "", "ext4", template, &maps).unwrap_err();
        assert!(odd.text.contains("not for ext4"), "{odd:?}");
        shim.end();
    }
}

/// A file for a device, as containerd's snapshotters of block devices have it.
#[test]
fn a_rootfs_in_a_file() {
    ours!();
    if !Path::new("/dev/loop-control").exists() || !Path::new("/usr/sbin/mkfs.ext4").exists() {
        integration::skip!("no loop devices, or no mkfs.ext4");
    }
    let mut shim = start("loop", &[], sh("grep ' / ' /proc/mounts | cut -d' ' -f3; exit 5"));
    let dir = janitor::scratch().join("loop");
    fs::create_dir_all(&dir).unwrap();
    let (image, out) = (dir.join("image"), dir.join("out"));
    Run::sh(&format!(
        "truncate -s 32M {0} && mkfs.ext4 -q -d {1} {0}",
        image.display(),
        integration::bundle::template().display()
    ))
    .ok();
    create_on(&mut shim, &format!("file://{}", out.display()), "ext4", &image, &["loop", "ro"]).unwrap();
    shim.call("Start").unwrap();
    assert_eq!(shim.wait("").unwrap().get(1), 5);
    assert_eq!(fs::read_to_string(&out).unwrap(), "ext4\n");
    shim.end();
    eventually("the device goes with it", || {
        let all = Run::new("losetup").args(["-a"]).out().stdout;
        !all.contains(image.to_str().unwrap())
    });
}

/// Any runtime with runc's command line can stand behind the shim.
#[test]
fn runc_and_crun_behind_the_shim() {
    ours!();
    for program in ["/usr/sbin/runc", "/usr/bin/crun"] {
        if !Path::new(program).exists() {
            println!("{program} is left out: it is not installed");
            continue;
        }
        // crun refuses hybrid hosts: it, and its monitor with it, gets a view of one without the v2 part.
        let hybrid = program.ends_with("crun") && host::cgroups() == host::Cgroups::Hybrid;
        let mut holder = hybrid.then(host::without_unified);
        let binary = match &holder {
            Some(holder) => wrapped(
                "shim-without-unified",
                &format!("exec nsenter --mount=/proc/{}/ns/mnt --wd=\"$PWD\"", holder.id()),
                &host::shim(),
            ),
            None => host::shim(),
        };
        let name = id(&format!("peer-{}", program.len()));
        let mut shim = Shim::start(&binary, &name, &[], sh("echo out; sleep 1000"));
        let fifos = Fifos::new(&name, false);
        let paths = fifos.paths();
        let options = shim.options(Path::new(program)).number(1, 1).number(2, 1);
        shim.create(false, ["", &paths[1], &paths[2]], options)
            .unwrap_or_else(|e| panic!("{program}: {e:?}"));
        shim.call("Start").unwrap();
        eventually("output", || fifos.read("stdout") == "out\n");
        shim.exec("one", false, NONE, &["sh", "-c", "exit 5"]).unwrap();
        shim.start_exec("one").unwrap();
        assert_eq!(shim.wait("one").unwrap().get(1), 5);
        shim.call("Pause").unwrap();
        shim.call("Resume").unwrap();
        let resources = r#"{"pids":{"limit":55}}"#;
        let annotated = |name: &str| {
            let annotation = Message::new().text(1, name).text(2, "5");
            shim.target().any(2, "LinuxResources", resources).message(3, &annotation)
        };
        // This runtime knows no knobs; other annotations say nothing to anybody.
        let (knob, other) = (annotated("hydra.pids.limit"), annotated("com.example.note"));
        let refused = shim.client.call("Update", &knob).unwrap_err();
        assert!(refused.text.contains("hydra.pids.limit") && refused.text.contains(program), "{refused:?}");
        shim.client.call("Update", &other).unwrap();
        assert!(!shim.call("Stats").unwrap().get_message(1).get_bytes(2).is_empty());
        assert!(!shim.call("Pids").unwrap().all(1).is_empty());
        shim.kill("", 9, false).unwrap();
        assert_eq!(shim.wait("").unwrap().get(1), 137);
        shim.end();
        if let Some(holder) = &mut holder {
            let _ = holder.kill();
            let _ = holder.wait();
        }
    }
}

/// The containers of one pod under one monitor: asked for by annotation.
#[test]
fn a_pod_shares_a_monitor() {
    ours!();
    let pod = id("pod");
    let in_pod = |script: &'static str, pod: String| {
        move |config: &mut serde_json::Value| {
            sh(script)(config);
            config["annotations"] = json!({ "io.kubernetes.cri.sandbox-id": pod, "hydra-shim.group": "pod" });
        }
    };
    let mut first = Shim::start(&host::shim(), &pod, &[], in_pod("echo first; sleep 1000", pod.clone()));
    let name = format!("{pod}-b");
    let mut second = Shim::join(&first, &name, in_pod("echo second; exit 8", pod.clone()));
    assert_eq!(first.socket, second.socket, "one monitor");
    assert_eq!(heads(&pod).len(), 2);
    let fifos = [Fifos::new(&pod, false), Fifos::new(&name, false)];
    for (shim, fifos) in [&mut first, &mut second].into_iter().zip(&fifos) {
        let paths = fifos.paths();
        let options = shim.options(&runtime());
        shim.create(false, ["", &paths[1], &paths[2]], options).unwrap();
        shim.call("Start").unwrap();
    }
    assert_eq!(second.wait("").unwrap().get(1), 8);
    eventually("each has its own streams", || {
        fifos[0].read("stdout") == "first\n" && fifos[1].read("stdout") == "second\n"
    });
    let root = janitor::scratch().join("roots/shim").join(NAMESPACE);
    let logs = Run::new(host::runtime()).args(["--root", root.to_str().unwrap(), "logs", &name]).ok();
    assert_eq!(logs.stdout, "second\n");
    second.call("Delete").unwrap();
    second.call("Shutdown").unwrap();
    // A member's own knobs: they hold for its output, and one that is mistyped is refused.
    let third = format!("{pod}-c");
    let of_pod = |key: &str, value: &str| json!({ "io.kubernetes.cri.sandbox-id": pod, "hydra-shim.group": "pod", key: value });
    let knob = of_pod("hydra-shim.ring-bytes", "4096");
    let mut small = Shim::join(&first, &third, |config| {
        sh("head -c 20000 /dev/zero | tr '\\0' x")(config);
        config["annotations"] = knob;
    });
    let fifos = Fifos::new(&third, false);
    let options = small.options(&runtime());
    small.create(false, ["", &fifos.paths()[1], &fifos.paths()[2]], options).unwrap();
    small.call("Start").unwrap();
    small.wait("").unwrap();
    eventually("all of it is read", || fifos.read("stdout").len() == 20000);
    let logs = Run::new(host::runtime()).args(["--root", root.to_str().unwrap(), "logs", &third]).ok();
    assert_eq!(logs.stdout.len(), 4096);
    small.call("Delete").unwrap();
    let mut fourth = Bundle::new(&format!("{pod}-d"));
    fourth.config["annotations"] = of_pod("hydra-shim.spool-bites", "1");
    fourth.write();
    Run::new(host::shim())
        .args(["-namespace", NAMESPACE, "-address", first.daemon(), "-id", &format!("{pod}-d"), "start"])
        .dir(&fourth.dir)
        .out()
        .fails_with("spool-bites");
    assert!(first.socket.exists(), "the pod's monitor stays");
    assert_eq!(first.call("State").unwrap().get(4), 2, "the other container runs on");
    first.end();
    eventually("the monitor goes with the last", || heads(&pod).is_empty());
}

/// What containerd calls when the shim is lost: it ends the container, and says how that ended.
#[test]
fn delete_ends_what_lost_its_shim() {
    ours!();
    let mut shim = start("lost", &[], sh("sleep 1000"));
    let options = shim.options(&runtime());
    shim.create(false, NONE, options).unwrap();
    shim.call("Start").unwrap();
    let pid = shim.call("State").unwrap().get(3) as i32;
    // Both at once, or one brings the other back.
    while !heads(&shim.id).is_empty() {
        Run::sh(&format!(
            "kill -KILL {}",
            heads(&shim.id).iter().map(i32::to_string).collect::<Vec<_>>().join(" ")
        ))
        .out();
    }
    assert!(host::alive(pid), "the container runs on");
    let answer = shim.delete();
    assert_eq!((answer.get(1) as i32, answer.get(2)), (pid, 137));
    eventually("it has ended", || !host::alive(pid));
    let folder = Path::new("/run/hydra-shim").join(NAMESPACE).join(&shim.id);
    let record = fs::read_to_string(folder.join("exit.json")).expect("the record");
    assert!(record.contains(r#""reason":"monitor-lost""#), "{record}");
    assert_eq!(shim.delete().get(2), 137, "again, with nothing left but the record");
    let _ = fs::remove_dir_all(folder);
}

#[test]
fn a_checkpoint_is_made_and_comes_back_to_life() {
    ours!();
    if Run::new("criu").args(["check"]).tune(|_| ()).out().code != 0 {
        integration::skip!("criu does not work on this kernel");
    }
    let script = "i=0; while :; do i=$((i+1)); echo $i >/tmp/n; sleep 0.1; done";
    let mut shim = start("checkpoint", &[], sh(script));
    let options = shim.options(&runtime());
    shim.create(false, NONE, options.clone()).unwrap();
    shim.call("Start").unwrap();
    let image = janitor::scratch().join("image");
    let how = Message::new().number(1, 1);
    let request = shim.target().text(2, image.to_str().unwrap()).any(3, "CheckpointOptions", how.encode());
    let made = shim.client.call("Checkpoint", &request);
    if let Err(refused) = made {
        panic!("{refused:?}");
    }
    shim.wait("").unwrap();
    shim.call("Delete").unwrap();
    let count = |shim: &Shim| fs::read_to_string(shim.bundle.rootfs().join("tmp/n")).unwrap_or_default();
    let before: u32 = count(&shim).trim().parse().unwrap();
    let request = shim
        .target()
        .text(2, shim.bundle.dir.to_str().unwrap())
        .text(8, image.to_str().unwrap())
        .any(10, "containerd.runc.v1.Options", options.encode());
    eventually("the end is told", || shim.topics().iter().any(|t| t == "/tasks/delete"));
    shim.events.lock().unwrap().clear();
    shim.client.call("Create", &request).unwrap();
    eventually("it is told", || shim.topics() == ["/tasks/create"]);
    shim.call("Start").unwrap();
    eventually("it counts on", || count(&shim).trim().parse::<u32>().is_ok_and(|n| n > before));
    assert_eq!(shim.call("State").unwrap().get(4), 2);
    shim.end();
}

/// `start` killed at every system call in turn: either there is a whole monitor, or no process of one. Another start does.
#[test]
fn a_start_that_is_killed_leaves_no_half_of_a_monitor() {
    ours!();
    let id = id("half");
    let bundle = Bundle::new(&id);
    bundle.write();
    let address = janitor::scratch().join("half.sock");
    let start = || {
        let mut start = Shim::command(&host::shim(), &id, &address, &bundle.dir, "start").command();
        start.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        start
    };
    let again = |what: &str| {
        // The head ends when it hears that nobody prepares anything for it. One that is so young that the tracer had not let it go yet
        // stays stopped when the tracer is gone.
        let all = || {
            let pids = host::processes_with(&id);
            for pid in &pids {
                let _ = kill(Pid::from_raw(*pid), Signal::SIGCONT);
            }
            pids
        };
        eventually(what, || all().is_empty() || (all() == heads(&id) && all().len() == 2));
        assert!(start().status().expect("a start").success(), "{what}");
        let socket = fs::read_to_string(bundle.dir.join("address")).expect(what);
        let mut client = Client::connect(Path::new(socket.trim_start_matches("unix://")), TASK);
        client.call("Shutdown", &Message::new().text(1, &id)).expect(what);
        eventually(what, || all().is_empty());
    };
    let calls = stepper::run(start(), None).program;
    again("undisturbed");
    let step = if host::quick() { 10 } else { 1 };
    for n in (1..=calls).step_by(step) {
        let _ = stepper::run(start(), Some((Whose::Program, n)));
        again(&format!("killed at call {n} of {calls}"));
    }
    println!("{calls} calls");
}

/// The older and the newer service are one and the same.
#[test]
fn both_versions_of_the_service_are_answered() {
    ours!();
    let shim = start("services", &[], sh("true"));
    for service in [TASK, TASK_V3] {
        let mut client = Client::connect(&shim.socket, service);
        assert_eq!(client.call("State", &shim.target()).unwrap_err().code, 5);
    }
    let mut client = Client::connect(&shim.socket, "containerd.task.v4.Task");
    assert_eq!(client.call("State", &shim.target()).unwrap_err().code, 12);
    assert!(!Bundle::new("unused").dir.join("log").exists());
    shim.end();
}
