//! What a monitor does at its limits, and with requests that nobody in his right mind sends.

use crate::shim_options::{heads, runtime, sh, start, wrapped};
use integration::ttrpc::{Client, Message, Shim, NAMESPACE};
use integration::{eventually, host, janitor, Bundle, Peer, Run};
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use serde_json::json;
use std::fs;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const NONE: [&str; 3] = ["", "", ""];
const NOT_FOUND: u64 = 5;
const EXHAUSTED: u64 = 8;

macro_rules! ours {
    () => {
        if integration::peer() != Peer::Hydra {
            integration::skip!("the shim is ours");
        }
    };
}

fn mkfifo(path: &Path) {
    nix::unistd::mkfifo(path, nix::sys::stat::Mode::from_bits_truncate(0o600)).expect("a FIFO");
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path")
}

/// A shim whose container runs.
fn running(name: &str, script: &str) -> Shim {
    let mut shim = start(name, &[], sh(script));
    let options = shim.options(&runtime());
    shim.create(false, NONE, options).expect("Create");
    shim.call("Start").expect("Start");
    shim
}

/// A monitor for a group of containers, of which the first runs, by `program`; its name; and what puts another container into the group.
fn group(name: &str, program: &Path) -> (String, Shim, impl Fn(&mut serde_json::Value)) {
    let id = format!("{name}-{}", std::process::id());
    let annotations = json!({ "io.containerd.runc.v2.group": id });
    let in_group = move |config: &mut serde_json::Value| {
        sh("sleep 1000")(config);
        config["annotations"] = annotations.clone();
    };
    let mut first = Shim::start(&host::shim(), &id, &[], &in_group);
    let options = first.options(program);
    first.create(false, NONE, options).expect("Create");
    first.call("Start").expect("Start");
    (id, first, in_group)
}

/// Where a monitor keeps its things.
fn kept(id: &str) -> PathBuf {
    Path::new("/run/hydra-shim").join(NAMESPACE).join(id)
}

/// Annotations come from whoever describes a container, and name directories that a monitor makes and removes.
#[test]
fn no_name_leads_out_of_the_monitors_directory() {
    ours!();
    let victim = janitor::scratch().join("victim");
    fs::create_dir_all(&victim).unwrap();
    fs::write(victim.join("kept"), "").unwrap();
    let up = format!("../../..{}", victim.display());
    for (n, (id, group)) in
        [("", ""), (up.as_str(), ""), ("fine", &up), ("fine", text(&victim)), ("fine", "..")]
            .into_iter()
            .enumerate()
    {
        let mut bundle = Bundle::new(&format!("odd-{n}-{}", std::process::id()));
        if !group.is_empty() {
            bundle.config["annotations"] = json!({ "io.containerd.runc.v2.group": group });
        }
        bundle.write();
        for action in ["start", "delete"] {
            let address = bundle.dir.join("c.sock");
            let out = Shim::command(&host::shim(), id, &address, &bundle.dir, action).out();
            out.fails_with("identifier");
        }
    }
    let bundle = Bundle::new(&format!("odd-{}", std::process::id()));
    bundle.write();
    for namespace in ["", "..", &up] {
        let out = Run::new(host::shim()).args([
            "-namespace",
            namespace,
            "-address",
            "/c.sock",
            "-id",
            "fine",
            "start",
        ]);
        out.dir(&bundle.dir).out().fails_with("identifier");
    }
    for (namespace, id) in [("fine", up.as_str()), (up.as_str(), "fine")] {
        let out =
            Run::new(host::shim()).args(["run", "--namespace", namespace, "--bundle", text(&bundle.dir), id]);
        out.out().fails_with("identifier");
    }
    assert_eq!(fs::read_dir(&victim).unwrap().count(), 1, "nothing was made there");
}

/// A daemon that is started again opens the FIFOs of what ended meanwhile, and waits for a writer and for the end.
#[test]
fn what_ended_while_its_reader_was_away_is_read_later() {
    ours!();
    let fifo = janitor::scratch().join(format!("away-{}", std::process::id()));
    mkfifo(&fifo);
    let mut early = fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&fifo).unwrap();
    let mut shim = start("away", &[], sh("echo first; until [ -e /gone ]; do sleep 0.05; done; echo last"));
    let options = shim.options(&runtime());
    shim.create(false, ["", text(&fifo), ""], options).expect("Create");
    shim.call("Start").expect("Start");
    let mut seen = String::new();
    eventually("the first line", || {
        let _ = early.read_to_string(&mut seen);
        seen == "first\n"
    });
    drop(early);
    fs::write(shim.bundle.rootfs().join("gone"), "").unwrap();
    shim.call("Wait").expect("Wait");
    for head in heads(&shim.id) {
        kill(Pid::from_raw(head), Signal::SIGKILL).unwrap();
        eventually("the other head", || heads(&shim.id).iter().filter(|h| **h != head).count() == 2);
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    let (told, read) = std::sync::mpsc::channel();
    let late = fifo.clone();
    std::thread::spawn(move || told.send(fs::read_to_string(late).expect("the FIFO")));
    assert_eq!(read.recv_timeout(host::patience()).expect("its end"), "last\n");
    shim.call("Delete").expect("Delete");
}

/// containerd was killed between `start` and `Create`: at its next start it asks for the shim by `Connect`, finds no task and
/// ends it. Or it removes the bundle and asks for nothing any more.
#[test]
fn a_monitor_that_never_had_a_container_is_found_and_goes() {
    ours!();
    let mut shim = start("empty", &[], sh("true"));
    let answer = shim.call("Connect").expect("Connect");
    let all = heads(&shim.id);
    assert!(all.contains(&(answer.get(1) as i32)), "one of {all:?}: {answer:?}");
    assert_eq!(answer.get(2), 0, "no task");
    assert_eq!(shim.call("Pids").unwrap_err().code, NOT_FOUND);
    shim.delete();
    fs::remove_dir_all(&shim.bundle.dir).unwrap();
    let id = shim.id.clone();
    drop(shim);
    eventually("the monitor goes", || heads(&id).is_empty());
    assert!(!kept(&id).exists());
}

/// Its reader may come later. Meanwhile everybody else is served.
#[test]
fn output_into_a_fifo_as_a_file_holds_up_nobody() {
    ours!();
    let mut shim = start("fifo-file", &[], sh("echo out; echo err >&2; sleep 1000"));
    let fifo = shim.bundle.dir.join("out");
    mkfifo(&fifo);
    let address = format!("file://{}", fifo.display());
    let options = shim.options(&runtime());
    shim.create(false, ["", &address, &address], options).expect("Create");
    shim.call("Start").expect("Start");
    assert_eq!(shim.call("State").unwrap().get(4), 2);
    let mut read = [0; 8];
    fs::File::open(&fifo).unwrap().read_exact(&mut read).unwrap();
    assert_eq!(&read, b"out\nerr\n");
    shim.end();
}

/// What there is no room for in the state that outlives the heads is refused, and not forgotten later.
#[test]
fn requests_beyond_what_a_monitor_can_keep_are_refused() {
    ours!();
    let mut shim = running("full", "sleep 1000");
    let exec = |shim: &Shim, name: &str, size: usize| {
        let mut process = shim.bundle.config["process"].clone();
        process["args"] = json!(["true"]);
        process["env"] = json!([format!("LARGE={}", "x".repeat(size))]);
        shim.exec_target(name).any(
            7,
            "types.containerd.io/opencontainers/runtime-spec/1/Process",
            process.to_string(),
        )
    };
    let mut added = Vec::new();
    let refused = loop {
        let name = format!("e{}", added.len());
        let request = exec(&shim, &name, 700 << 10);
        match shim.client.call("Exec", &request) {
            Ok(_) => added.push(name),
            Err(e) => break e,
        }
        assert!(added.len() < 20, "every one is taken");
    };
    assert_eq!(refused.code, EXHAUSTED, "{refused:?}");
    assert!(added.len() >= 2, "{added:?}");
    // All else goes on, and a head that takes over knows each of them.
    for pid in heads(&shim.id) {
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        eventually("two heads", || heads(&shim.id).len() == 2 && !heads(&shim.id).contains(&pid));
    }
    for name in &added {
        let target = shim.exec_target(name);
        assert_eq!(shim.client.call("State", &target).expect(name).get(4), 1);
        shim.delete_exec(name).expect(name);
    }
    let request = exec(&shim, "after", 700 << 10);
    shim.client.call("Exec", &request).expect("there is room again");
    shim.end();
}

/// In a pod another container's requests can take all places for jobs: a Create that is refused for that leaves nothing.
#[test]
fn what_is_refused_for_want_of_a_place_leaves_nothing() {
    ours!();
    let mark = janitor::scratch().join("crowd-held");
    fs::write(&mark, "").unwrap();
    let hold = format!(
        "case \" $* \" in *' ps '*) while [ -e {} ]; do sleep 0.05; done;; esac; exec",
        mark.display()
    );
    let slow = wrapped("crowd.sh", &hold, &runtime());
    let (id, mut first, in_group) = group("crowd", &slow);
    let target = first.target();
    for _ in 0..100 {
        first.client.ask("Pids", &target);
    }
    let mut second = Shim::join(&first, &format!("{id}-b"), &in_group);
    let options = second.options(&slow);
    let refused = second.create(false, NONE, options.clone()).expect_err("no place");
    assert!(refused.text.contains("too many"), "{refused:?}");
    assert_eq!(second.call("State").unwrap_err().code, NOT_FOUND);
    let mut third = first.another();
    third.call("Delete", &first.target()).expect_err("it runs");
    fs::remove_file(&mark).unwrap();
    eventually("there is a place again", || second.create(false, NONE, options.clone()).is_ok());
    second.kill("", 9, true).expect("Kill");
    second.wait("").expect("Wait");
    second.call("Delete").expect("Delete");
    let jobs = || {
        fs::read_dir(kept(&id))
            .unwrap()
            .flatten()
            .any(|e| e.file_name().to_str().unwrap().starts_with("job-"))
    };
    eventually("every job has ended", || !jobs());
    first.end();
}

/// An init that is deleted takes along what its execs had.
#[test]
fn execs_that_nobody_deleted_leave_nothing_in_a_pod() {
    ours!();
    let (id, first, in_group) = group("undeleted", &runtime());
    let names = || {
        let read = fs::read_dir(kept(&id)).unwrap().flatten();
        let mut names: Vec<String> = read.map(|e| e.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let before = names();
    let mut second = Shim::join(&first, &format!("{id}-b"), &in_group);
    let options = second.options(&runtime());
    second.create(false, NONE, options).expect("Create");
    second.call("Start").expect("Start");
    let fifo = second.bundle.dir.join("out");
    mkfifo(&fifo);
    second.exec("left", false, ["", text(&fifo), ""], &["true"]).expect("Exec");
    second.start_exec("left").expect("Start");
    second.wait("left").expect("Wait");
    second.kill("", 9, false).expect("Kill");
    second.wait("").expect("Wait");
    second.call("Delete").expect("Delete");
    let record = format!("{id}-b.exit.json");
    let left = || names().into_iter().filter(|n| !before.contains(n) && *n != record).collect::<Vec<_>>();
    eventually("nothing is left", || left().is_empty());
    first.end();
}

/// Failures cost nothing: neither those of execs nor those of containers.
#[test]
fn failures_leave_no_descriptor_open() {
    ours!();
    let (id, mut first, in_group) = group("failing", &runtime());
    let fifo = first.bundle.dir.join("out");
    mkfifo(&fifo);
    let mut second = Shim::join(&first, &format!("{id}-b"), |config| {
        in_group(config);
        config["process"]["args"] = json!(["nothing"]);
    });
    let count =
        |id: &str| heads(id).first().map_or(0, |p| fs::read_dir(format!("/proc/{p}/fd")).unwrap().count());
    let files = || fs::read_dir(kept(&id)).unwrap().count();
    let mut before = None;
    for _ in 0..if host::quick() { 3 } else { 12 } {
        for (terminal, program, out) in [
            (false, "nothing", text(&fifo)),
            (true, "nothing", text(&fifo)),
            (false, "true", "/nowhere/at/all"),
            (true, "true", "/nowhere/at/all"),
            (false, "true", "binary:///nowhere/at/all"),
            (true, "true", "file:///tmp/terminal"),
        ] {
            first.exec("e", terminal, ["", out, ""], &[program]).expect("Exec");
            first.start_exec("e").expect_err("no such thing");
            first.delete_exec("e").expect("Delete");
        }
        for out in [text(&fifo), "/nowhere/at/all", "binary:///nowhere/at/all"] {
            let options = second.options(&runtime());
            if second.create(false, ["", out, ""], options).is_ok() {
                second.call("Start").expect_err("no such program");
                second.call("Delete").expect("Delete");
            }
        }
        // What is needed once is there after the first round.
        before.get_or_insert_with(|| (count(&id), files()));
    }
    let before = before.expect("a round");
    eventually("no more than after the first round", || count(&id) <= before.0 && files() <= before.1);
    first.end();
}

/// `log` in a bundle is containerd's pipe. A file of that name, in a bundle that somebody made by hand, is its owner's.
#[test]
fn a_bundles_own_log_is_not_written_to() {
    ours!();
    let mut shim = start("own-log", &[], sh("head -c 300000 /dev/zero"));
    let log = shim.bundle.dir.join("log");
    fs::remove_file(&log).unwrap();
    fs::write(&log, "mine").unwrap();
    // It is ready, and ends: what it does not take is dropped, which the monitor has a word about.
    let address = format!("binary://{}", wrapped("gone.sh", "exit", Path::new("now")).display());
    let options = shim.options(&runtime());
    shim.create(false, ["", &address, &address], options).expect("Create");
    shim.call("Start").expect("Start");
    shim.wait("").expect("Wait");
    let record = || fs::read_to_string(kept(&shim.id).join("exit.json")).unwrap();
    eventually("bytes are dropped", || record().contains("droppedBytes"));
    assert_eq!(fs::read_to_string(&log).unwrap(), "mine");
    shim.end();
}

/// A container that lost its monitor, and was to be kept, is not given up for another one of its name.
#[test]
fn a_start_with_the_name_of_what_runs_on_is_refused() {
    ours!();
    let mut shim = start("twice", &[], |config| {
        sh("sleep 1000")(config);
        config["annotations"] = json!({ "hydra-shim.on-monitor-loss": "keep" });
    });
    let options = shim.options(&runtime());
    shim.create(false, NONE, options).expect("Create");
    let pid = shim.call("Start").expect("Start").get(1);
    eventually("every head is dead", || {
        let all = heads(&shim.id);
        for pid in &all {
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        all.is_empty()
    });
    shim.delete();
    let again = Bundle::new(&format!("{}-again", shim.id));
    again.write();
    let address = PathBuf::from(shim.daemon());
    let out = Shim::command(&host::shim(), &shim.id, &address, &again.dir, "start").out();
    out.fails_with("shim adopt");
    let run = Run::new(host::shim()).args([
        "run",
        "--namespace",
        NAMESPACE,
        "--bundle",
        text(&again.dir),
        &shim.id,
    ]);
    run.out().fails_with("shim adopt");
    Run::new(host::shim()).args(["adopt", "--namespace", NAMESPACE, &shim.id]).ok();
    let mut client: Client = shim.another();
    assert_eq!(client.call("State", &shim.target()).expect("State").get(3), pid);
    shim.client = client;
    shim.end();
}

/// A link in an image's layer is no way for a mount of the rootfs to the host's directories.
#[test]
fn no_mount_of_the_rootfs_leads_out_of_it() {
    ours!();
    let mut shim = start("mounts", &[], sh("true"));
    let victim = shim.bundle.dir.join("victim");
    let layer = shim.bundle.dir.join("layer");
    fs::create_dir(&victim).unwrap();
    fs::create_dir_all(layer.join("plain")).unwrap();
    std::os::unix::fs::symlink(&victim, layer.join("link")).unwrap();
    let bind = Message::new().text(1, "bind").text(2, text(&layer)).text(4, "bind");
    let up = "plain/../../victim";
    for target in ["link", "/link/", up] {
        let tmpfs = Message::new().text(1, "tmpfs").text(2, "tmpfs").text(3, target);
        let request = shim.target().text(2, text(&shim.bundle.dir)).message(3, &bind).message(3, &tmpfs).any(
            10,
            "containerd.runc.v1.Options",
            shim.options(&runtime()).encode(),
        );
        let refused = shim.client.call("Create", &request).unwrap_err();
        assert!(refused.text.contains("the mount target"), "{refused:?}");
        let mounts = host::mounts_below(&shim.bundle.dir);
        assert!(mounts.is_empty(), "{target}: {mounts:?}");
    }
    shim.end();
}

/// A job that outlives its container has files where the monitor's last work is to remove everything.
#[test]
fn a_monitor_ends_while_it_is_asked_and_leaves_nothing() {
    ours!();
    let slow = janitor::scratch().join("slow-ps");
    let script = format!(
        "#!/bin/sh\ncase \" $* \" in *\" ps \"*) sleep 2; echo '[]';; esac\nexec {} \"$@\"\n",
        text(&runtime())
    );
    fs::write(&slow, script).unwrap();
    fs::set_permissions(&slow, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut shim = start("asked", &[], sh("sleep 1000"));
    let options = shim.options(&slow);
    shim.create(false, NONE, options).expect("Create");
    shim.call("Start").expect("Start");
    let mut other = shim.another();
    other.ask("Pids", &shim.target());
    let directory = kept(&shim.id);
    let job = |name: &str| name.starts_with("job-");
    eventually("the job", || {
        fs::read_dir(&directory).unwrap().flatten().any(|e| job(&e.file_name().to_string_lossy()))
    });
    shim.kill("", 9, false).expect("Kill");
    shim.wait("").expect("Wait");
    shim.call("Delete").expect("Delete");
    shim.call("Shutdown").expect("Shutdown");
    eventually("the end", || heads(&shim.id).is_empty());
    assert!(!directory.exists(), "{:?}", fs::read_dir(&directory).map(|d| d.flatten().collect::<Vec<_>>()));
}
