//! All processes of a monitor at once; and a program replaced under running containers.

use crate::{missing, with_ledger};
use integration::monitor::{end, fifo, namespace, shim, signal, target, Monitor, Reader, Task};
use integration::wire::{Client, Fields};
use integration::{eventually, host, skip, Run};
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{kill, Signal};
use nix::sys::wait::{waitpid, WaitPidFlag};
use nix::unistd::Pid;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::sync::{Mutex, MutexGuard, PoisonError};

mod replaced;

/// One at a time: `watch` adopts whatever it finds in the namespace.
static ALONE: Mutex<()> = Mutex::new(());

struct Running {
    monitor: Monitor,
    client: Client,
    task: Task,
    output: Reader,
    pid: i32,
    _alone: MutexGuard<'static, ()>,
}

fn running(name: &str, annotations: &[(&str, &str)]) -> Running {
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let monitor = Monitor::with(name, annotations);
    let mut task = monitor.task(&monitor.id, &["ledger", "0", "200000", "0"]);
    with_ledger(&task.bundle.rootfs());
    task.stdout = Some(fifo(name));
    let output = Reader::lasting(task.stdout.as_ref().expect("fifo"));
    let client = monitor.client();
    let pid = client.ok("Create", task.create()).int(1) as i32;
    client.ok("Start", target(&task.id, ""));
    eventually("output", || output.seen().lines > 0);
    Running { monitor, client, task, output, pid, _alone: alone }
}

fn status(id: &str) -> String {
    let list = Run::new(shim()).args(["list"]).ok().stdout;
    let of = |l: &str| {
        let words: Vec<&str> = l.split('\t').collect();
        (words[0] == namespace() && words[1] == id).then(|| words[3].to_string())
    };
    list.lines().find_map(of).unwrap_or_default()
}

/// What the runtime's own list says of the container's monitor.
fn is_orphaned(id: &str) -> bool {
    let root = format!("/run/containerd/hydra/{}", namespace());
    let list = Run::new(host::runtime()).args(["--root", &root, "list", "--long", "--format", "json"]).ok();
    let list: serde_json::Value = serde_json::from_str(&list.stdout).expect("JSON");
    let entry = list.as_array().and_then(|l| l.iter().find(|c| c["id"] == id)).expect("it is listed");
    let orphaned = entry["orphaned"] == true;
    assert_eq!(entry["monitor"].is_null(), orphaned, "{entry}");
    orphaned
}

fn record(monitor: &Monitor) -> serde_json::Value {
    let mut text = Vec::new();
    eventually("the exit record", || {
        text = fs::read(monitor.dir.join("exit.json")).unwrap_or_default();
        !text.is_empty()
    });
    serde_json::from_slice(&text).expect("JSON")
}

/// The monitor is started anew by hand: the container has run on, its output goes on where the pipes have kept it, and its
/// end is known although nobody of the monitor is its parent.
#[test]
fn a_container_that_lost_its_monitor_is_adopted() {
    if let Some(reason) = missing() {
        skip!("{reason}");
    }
    let r = running("adopt", &[]);
    assert!(!is_orphaned(&r.task.id));
    r.monitor.kill_all();
    assert!(host::alive(r.pid), "the container lives on");
    assert_eq!(status(&r.task.id), "orphaned");
    assert!(is_orphaned(&r.task.id));
    Run::new(shim()).args(["adopt", "--namespace", namespace(), &r.task.id]).ok();
    eventually("the new monitor", || status(&r.task.id) == "running");
    assert!(!is_orphaned(&r.task.id));
    Run::new(shim()).args(["adopt", "--namespace", namespace(), &r.task.id]).out().fails_with("is running");
    let before = r.output.seen().lines;
    eventually("output goes on", || r.output.seen().lines > before + 1000);
    let client = r.monitor.client();
    let waiting = client.begin("Wait", target(&r.task.id, ""));
    client.ok("Kill", signal(&r.task.id, 9));
    let seen = client.answer(waiting).expect("Wait").int(1);
    let record = record(&r.monitor);
    // By the pidfd, or before Linux 6.15 by the process connector.
    assert_eq!((&record["status"], seen), (&"exact".into(), 137), "{record}");
    client.ok("Delete", target(&r.task.id, ""));
}

/// A container that does not read just then has its input again, and its end.
#[test]
fn what_was_adopted_reads_on() {
    if let Some(reason) = missing() {
        skip!("{reason}");
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let monitor = Monitor::start("reads");
    let script = "until [ -e /go ]; do sleep 0.05; done; cat; exit 5";
    let mut task = monitor.task(&monitor.id, &["sh", "-c", script]);
    (task.stdin, task.stdout) = (Some(fifo("keys")), Some(fifo("read")));
    let both = |path| fs::File::options().read(true).write(true).open(path).expect("fifo");
    let mut keys = both(task.stdin.as_ref().expect("fifo"));
    let mut output = both(task.stdout.as_ref().expect("fifo"));
    let client = monitor.client();
    client.ok("Create", task.create());
    client.ok("Start", target(&task.id, ""));
    std::io::Write::write_all(&mut keys, b"before\n").expect("keys");
    // The monitor has passed it on once nothing is left to read here.
    let seen = keys.try_clone().expect("fifo");
    let mut left = [PollFd::new(seen.as_fd(), PollFlags::POLLIN)];
    eventually("the monitor has it", || poll(&mut left, PollTimeout::ZERO) == Ok(0));
    monitor.kill_all();
    Run::new(shim()).args(["adopt", "--namespace", namespace(), &task.id]).ok();
    eventually("the new monitor", || status(&task.id) == "running");
    std::io::Write::write_all(&mut keys, b"after\n").expect("keys");
    let client = monitor.client();
    let waiting = client.begin("Wait", target(&task.id, ""));
    fs::write(task.bundle.rootfs().join("go"), "").expect("go");
    client.ok("CloseIO", integration::wire::Msg::new().text(1, &task.id).int(3, 1));
    assert_eq!(client.answer(waiting).expect("Wait").int(1), 5);
    let mut said = [0; 13];
    std::io::Read::read_exact(&mut output, &mut said).expect("output");
    assert_eq!(std::str::from_utf8(&said), Ok("before\nafter\n"));
    client.ok("Delete", target(&task.id, ""));
}

/// The logging binary came to the end of its input with the monitor: the new one starts another.
#[test]
fn what_was_adopted_has_a_logger_again() {
    if let Some(reason) = missing() {
        skip!("{reason}");
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let monitor = Monitor::start("relogged");
    let script = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done";
    let mut task = monitor.task(&monitor.id, &["sh", "-c", script]);
    let (logger, out) = (task.bundle.dir.join("logger"), task.bundle.dir.join("out"));
    fs::write(&logger, format!("#!/bin/sh\nexec 5>&-\necho begun >>{0}\ncat <&3 >>{0}\n", out.display()))
        .expect("a logger");
    fs::set_permissions(&logger, fs::Permissions::from_mode(0o755)).expect("its mode");
    task.stdout = Some(format!("binary://{}", logger.display()).into());
    let client = monitor.client();
    client.ok("Create", task.create());
    client.ok("Start", target(&task.id, ""));
    let lines =
        || fs::read_to_string(&out).map_or(Vec::new(), |t| t.lines().map(String::from).collect::<Vec<_>>());
    eventually("it is logged", || lines().len() > 2);
    monitor.kill_all();
    Run::new(shim()).args(["adopt", "--namespace", namespace(), &task.id]).ok();
    eventually("another logger", || lines().iter().filter(|l| *l == "begun").count() == 2);
    let before = lines().len();
    eventually("it is logged on", || lines().len() > before + 2);
    end(&monitor.client(), &task.id);
}

/// A status of the container's own, and that of an exec that lived on too; the new monitor's heads are killed in between.
#[test]
fn what_was_adopted_ends_with_its_own_status() {
    if let Some(reason) = missing() {
        skip!("{reason}");
    }
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let monitor = Monitor::start("statuses");
    let script = |code: u8| format!("until [ -e /go{code} ]; do sleep 0.05; done; exit {code}");
    let task = monitor.task(&monitor.id, &["sh", "-c", &script(5)]);
    let client = monitor.client();
    client.ok("Create", task.create());
    client.ok("Start", target(&task.id, ""));
    client.ok("Exec", task.exec("one", &["sh", "-c", &script(6)], None));
    client.ok("Start", target(&task.id, "one"));
    monitor.kill_all();
    Run::new(shim()).args(["adopt", "--namespace", namespace(), &task.id]).ok();
    let client = monitor.client();
    for (exec, code) in [("one", 6), ("", 5)] {
        let waiting = client.begin("Wait", target(&task.id, exec));
        let worker = monitor.heads()[1];
        let _ = kill(Pid::from_raw(worker), Signal::SIGKILL);
        eventually("the next worker", || {
            monitor.heads()[1] != worker && integration::monitor::whole(&monitor.dir)
        });
        fs::write(task.bundle.rootfs().join(format!("go{code}")), "").expect("gate");
        assert_eq!(client.answer(waiting).expect("Wait").int(1), code, "{exec}");
        assert_eq!(client.ok("Delete", target(&task.id, exec)).int(2), code);
    }
    drop(alone);
}

/// What ended while nobody watched is said to be unknown, not made up.
#[test]
fn an_end_that_nobody_saw_is_unknown() {
    if let Some(reason) = missing() {
        skip!("{reason}");
    }
    let r = running("unseen", &[]);
    r.monitor.kill_all();
    kill(Pid::from_raw(r.pid), Signal::SIGKILL).expect("kill");
    eventually("its end", || !host::alive(r.pid));
    Run::new(shim()).args(["adopt", "--namespace", namespace(), &r.task.id]).ok();
    let client = r.monitor.client();
    let seen = client.ok("Wait", target(&r.task.id, "")).int(1);
    // Where the host's first process has not yet buried it, its status can still be read.
    let record = record(&r.monitor);
    let known =
        (record["status"] == "exact" && seen == 137) || (record["status"] == "unknown" && seen == 255);
    assert!(known, "{seen}: {record}");
    client.ok("Delete", target(&r.task.id, ""));
}

#[test]
fn watch_adopts_by_itself() {
    if let Some(reason) = missing() {
        skip!("{reason}");
    }
    let r = running("watch", &[]);
    let watch = Run::new(shim()).args(["watch", "--namespace", namespace()]).patient(10).start();
    r.monitor.kill_all();
    let start = std::time::Instant::now();
    eventually("a new monitor", || integration::monitor::whole(&r.monitor.dir));
    println!("watch: a new monitor after {} ms", start.elapsed().as_millis());
    eventually("it says so", || watch.stdout().contains(&r.task.id));
    let client = r.monitor.client();
    end(&client, &r.task.id);
}

/// To the service manager, which has it start before containerd, `watch` is ready when what it found has a monitor.
#[test]
fn watch_is_ready_once_it_has_looked() {
    if let Some(reason) = missing() {
        skip!("{reason}");
    }
    let r = running("ready", &[]);
    r.monitor.kill_all();
    let path = integration::janitor::scratch().join("notify");
    let manager = std::os::unix::net::UnixDatagram::bind(&path).expect("the manager's socket");
    manager.set_read_timeout(Some(host::patience())).expect("a limit");
    let watch = Run::new(shim()).args(["watch", "--namespace", namespace()]);
    let watch = watch.env("NOTIFY_SOCKET", &path).patient(10).start();
    let mut said = [0; 100];
    let length = manager.recv(&mut said).expect("it says that it is ready");
    assert_eq!(&said[..length], b"READY=1");
    let client = r.monitor.client();
    assert_eq!(client.ok("State", target(&r.task.id, "")).int(4), 2);
    drop(watch);
    end(&client, &r.task.id);
}

/// `shim delete`, as containerd runs it.
fn delete(task: &Task) -> (integration::Out, Fields) {
    let args = ["-namespace", namespace(), "-address", "/nowhere", "-id", &task.id, "-bundle"];
    let answer = task.bundle.dir.join("answer");
    let out = Run::new(shim()).args(args).args([&task.bundle.dir]).args(["delete"]).stdout_to(&answer).out();
    (out, Fields::read(&fs::read(answer).unwrap_or_default()))
}

/// Under containerd's eyes: it was this very process that was connected.
#[test]
fn a_loss_that_the_daemon_saw_ends_the_container() {
    if let Some(reason) = missing() {
        skip!("{reason}");
    }
    let r = running("seen", &[]);
    r.monitor.kill_all();
    let (out, answer) = delete(&r.task);
    out.ok();
    assert_eq!(answer.int(2), 137);
    eventually("its end", || !host::alive(r.pid));
    let record = record(&r.monitor);
    assert_eq!((&record["reason"], &record["exitCode"]), (&"monitor-lost".into(), &137.into()));
}

#[test]
fn a_container_may_ask_to_be_kept() {
    if let Some(reason) = missing() {
        skip!("{reason}");
    }
    let r = running("keep", &[("hydra-shim.on-monitor-loss", "keep")]);
    r.monitor.kill_all();
    delete(&r.task).0.ok();
    assert!(host::alive(r.pid), "it lives on");
    assert_eq!(status(&r.task.id), "orphaned");
    let root = format!("/run/containerd/hydra/{}", namespace());
    let again =
        Run::new(host::runtime()).args(["--root", &root, "create", "--bundle"]).args([&r.monitor.bundle.dir]);
    again.args([&r.task.id]).out().fails();
    Run::new(shim()).args(["adopt", "--namespace", namespace(), &r.task.id]).ok();
    let client = r.monitor.client();
    end(&client, &r.task.id);
}

/// containerd takes the bundle away once `shim delete` has succeeded, and asks for a kept container never again: it is gone on with
/// all the same, and its new monitor ends with it and leaves the record.
#[test]
fn a_kept_container_needs_no_bundle() {
    if let Some(reason) = missing() {
        skip!("{reason}");
    }
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let monitor = Monitor::with("bundleless", &[("hydra-shim.on-monitor-loss", "keep")]);
    // Its processes outlive init, and have to be killed by a job.
    let mut task = monitor.task(&monitor.id, &["sh", "-c", "sleep 77777 & exec sleep 100000"]);
    let namespaces = task.bundle.config["linux"]["namespaces"].as_array_mut().expect("namespaces");
    namespaces.retain(|n| n["type"] != "pid");
    let client = monitor.client();
    let init = client.ok("Create", task.create()).int(1) as i32;
    client.ok("Start", target(&task.id, ""));
    let children = || fs::read_to_string(format!("/proc/{init}/task/{init}/children")).unwrap_or_default();
    eventually("its second process", || !children().is_empty());
    let second: i32 = children().trim().parse().expect("a pid");
    monitor.kill_all();
    delete(&task).0.ok();
    fs::remove_dir_all(&task.bundle.dir).expect("the bundle goes");
    Run::new(shim()).args(["adopt", "--namespace", namespace(), &task.id]).ok();
    let client = monitor.client();
    for (method, state) in [("Pause", 4), ("Resume", 2)] {
        client.ok(method, target(&task.id, ""));
        assert_eq!(client.ok("State", target(&task.id, "")).int(4), state, "{method}");
    }
    let waiting = client.begin("Wait", target(&task.id, ""));
    client.ok("Kill", signal(&task.id, 9));
    assert_eq!(client.answer(waiting).expect("Wait").int(1), 137);
    eventually("the second process's end", || !host::alive(second));
    let heads = || host::processes_with(&format!("{}/{}", namespace(), task.id)).len();
    eventually("the monitor goes", || heads() == 0);
    assert_eq!(record(&monitor)["exitCode"], 137);
    assert!(!monitor.address.exists() && !monitor.dir.join("state").exists());
    let root = format!("/run/containerd/hydra/{}", namespace());
    Run::new(host::runtime()).args(["--root", &root, "delete", &task.id]).ok();
    assert!(!monitor.dir.exists(), "the record goes with the container");
    drop(alone);
}

/// It ended, containerd could not ask its monitor and ran `shim delete`: nobody sends Delete or Shutdown any more.
#[test]
fn a_monitor_whose_bundle_is_gone_ends() {
    if let Some(reason) = missing() {
        skip!("{reason}");
    }
    let r = running("unasked", &[]);
    r.client.ok("Kill", signal(&r.task.id, 9));
    r.client.ok("Wait", target(&r.task.id, ""));
    let (out, answer) = delete(&r.task);
    out.ok();
    assert_eq!(answer.int(2), 137);
    fs::remove_dir_all(&r.task.bundle.dir).expect("the bundle goes");
    let heads = || host::processes_with(&format!("{}/{}", namespace(), r.task.id)).len();
    eventually("the monitor goes", || heads() == 0);
    assert_eq!(record(&r.monitor)["exitCode"], 137);
}

/// containerd was away when the monitor died: whoever asks for the delete is not whoever was connected.
#[test]
fn a_loss_while_the_daemon_was_away_ends_in_adoption() {
    if let Some(reason) = missing() {
        skip!("{reason}");
    }
    let r = running("away", &[]);
    drop(r.client);
    r.monitor.kill_all();
    delete_by_another(&r.task).fails_with("runs on");
    assert!(host::alive(r.pid), "it lives on");
    let client = r.monitor.client();
    assert_eq!(client.ok("State", target(&r.task.id, "")).int(4), 2);
    end(&client, &r.task.id);
}

/// The same, by a process that was not connected to the monitor: another one in between is another parent.
fn delete_by_another(task: &Task) -> integration::Out {
    let line = format!(
        "{} -namespace {} -address /nowhere -id {} -bundle {} delete; exit $?",
        shim().display(),
        namespace(),
        task.id,
        task.bundle.dir.display()
    );
    Run::sh(&line).out()
}

/// The keeper is stopped and the worker dead: nobody answers, and containerd takes the monitor for lost. It lives, so its container
/// is left alone, whoever asks; and it goes on.
#[test]
fn a_monitor_that_does_not_answer_is_not_lost() {
    if let Some(reason) = missing() {
        skip!("{reason}");
    }
    let r = running("silent", &[]);
    for another in [true, false] {
        let [keeper, worker] = r.monitor.heads().map(Pid::from_raw);
        kill(keeper, Signal::SIGSTOP).expect("stop");
        kill(worker, Signal::SIGKILL).expect("kill");
        let out = if another { delete_by_another(&r.task) } else { delete(&r.task).0 };
        out.fails_with("a monitor is there");
        assert!(host::alive(r.pid), "it lives on");
        eventually("both heads", || integration::monitor::whole(&r.monitor.dir));
        assert_eq!(r.client.ok("State", target(&r.task.id, "")).int(4), 2);
    }
    end(&r.client, &r.task.id);
    delete(&r.task).0.ok();
}

/// Ends both heads, and nothing else that knows the monitor's name: the runtime goes on with what it is at.
fn kill_heads(monitor: &Monitor) {
    eventually("the heads' end", || {
        let living = monitor.living();
        for pid in &living {
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        living.is_empty()
    });
}

/// The heads are lost while the runtime is at work: what that comes to is what the new monitor knows.
#[test]
fn what_a_job_did_meanwhile_is_known() {
    if let Some(reason) = missing() {
        skip!("{reason}");
    }
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = integration::janitor::scratch().join("held");
    fs::create_dir_all(&dir).expect("a directory");
    // A runtime that does what it is told, and ends when it is let go; or does nothing before.
    let program = dir.join("runtime");
    let script = format!(
        "#!/bin/sh\nfor verb; do case $verb in create|start|pause|resume|exec) break;; esac; done\n\
         hold() {{ [ -e {0}/$1-$verb ] || return; touch {0}/held; while [ -e {0}/$1-$verb ]; do sleep 0.05; done; }}\n\
         hold before\n{1} \"$@\"\ncode=$?\nhold after\nexit $code\n",
        dir.display(),
        fs::canonicalize(host::runtime()).expect("runtime").display(),
    );
    fs::write(&program, script).expect("script");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("mode");
    let monitor = Monitor::start("held");
    let task = monitor.task(&monitor.id, &["sleep", "100000"]);
    let create = || task.create_by(&program);
    let hold = |when: &str, method: &str, request: integration::wire::Msg, verb: &str| {
        let (gate, held) = (dir.join(format!("{when}-{verb}")), dir.join("held"));
        fs::write(&gate, "").expect("gate");
        let client = monitor.client();
        client.begin(method, request);
        eventually("the runtime is at work", || held.exists());
        kill_heads(&monitor);
        fs::remove_file(held).expect("held");
        gate
    };
    let adopt = || Run::new(shim()).args(["adopt", "--namespace", namespace(), &task.id]).out();
    let state = |exec: &str| {
        let state = monitor.client().ok("State", target(&task.id, exec));
        (state.int(4), state.int(3) as i32)
    };

    let gate = hold("after", "Create", create(), "create");
    adopt().fails_with("still at work");
    fs::remove_file(gate).expect("gate");
    adopt().ok();
    let (status, init) = state("");
    assert!(status == 1 && host::alive(init), "created: {status}, process {init}");

    let rounds = [("Start", "start", 2), ("Pause", "pause", 4), ("Resume", "resume", 2)];
    for (method, verb, after) in rounds {
        let gate = hold("after", method, target(&task.id, ""), verb);
        fs::remove_file(gate).expect("gate");
        adopt().ok();
        assert_eq!(state(""), (after, init), "{method}");
    }
    let refused = |method: &str| monitor.client().call(method, target(&task.id, "")).expect_err(method).0;
    assert_eq!(["Start", "Delete", "Resume"].map(refused), [9; 3]);

    let client = monitor.client();
    client.ok("Exec", task.exec("one", &["sleep", "100000"], None));
    let gate = hold("after", "Start", target(&task.id, "one"), "exec");
    fs::remove_file(gate).expect("gate");
    adopt().ok();
    let (status, pid) = state("one");
    assert!(status == 2 && host::alive(pid), "the exec runs: {status}, process {pid}");
    let client = monitor.client();
    client.ok("Kill", signal(&task.id, 9).text(2, "one"));
    assert_eq!(client.ok("Wait", target(&task.id, "one")).int(1), 137);
    client.ok("Delete", target(&task.id, "one"));
    end(&client, &task.id);

    // Nothing had been made, and nothing will be.
    hold("before", "Create", create(), "create");
    monitor.kill_all();
    adopt().fails_with("before it had a container");
    assert!(!monitor.dir.exists() && !monitor.address.exists(), "nothing of it stays");
    drop(alone);
}

/// Two containers under one monitor.
struct Pod {
    monitor: Monitor,
    tasks: [Task; 2],
    pids: [i32; 2],
    client: Client,
    _alone: MutexGuard<'static, ()>,
}

fn pod(name: &str, scripts: [&str; 2]) -> Pod {
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let group = [("io.kubernetes.cri.sandbox-id", name), ("hydra-shim.group", "pod")];
    let monitor = Monitor::named(name, &shim(), &group);
    let other = format!("{name}-b");
    let mut tasks = [name, &other].map(|id| monitor.task(id, &[]));
    let client = monitor.client();
    let mut pids = [0; 2];
    for ((task, script), pid) in tasks.iter_mut().zip(scripts).zip(&mut pids) {
        task.bundle.config["annotations"] = monitor.bundle.config["annotations"].clone();
        task.bundle.config["process"]["args"] = serde_json::json!(["sh", "-c", script]);
        *pid = client.ok("Create", task.create()).int(1) as i32;
        client.ok("Start", target(&task.id, ""));
    }
    Pod { monitor, tasks, pids, client, _alone: alone }
}

/// containerd was away: the first of a pod that it asks about brings the monitor back, for all of them.
#[test]
fn a_pod_is_adopted_with_the_first_of_it() {
    if let Some(reason) = missing() {
        skip!("{reason}");
    }
    let p = pod("lost-pod", ["sleep 100000"; 2]);
    drop(p.client);
    p.monitor.kill_all();
    delete_by_another(&p.tasks[0]).fails_with("with a new monitor");
    delete_by_another(&p.tasks[1]).fails_with("a monitor is there");
    let client = p.monitor.client();
    for (task, pid) in p.tasks.iter().zip(p.pids) {
        assert!(host::alive(pid), "{} lives on", task.id);
        assert_eq!(client.ok("State", target(&task.id, "")).int(4), 2);
        end(&client, &task.id);
    }
}

/// Under containerd's eyes: each of the pod is told of with its own status, whichever is asked about first.
#[test]
fn a_lost_pod_is_ended_one_by_one() {
    if let Some(reason) = missing() {
        skip!("{reason}");
    }
    let p = pod("seen-pod", ["sleep 100000", "exit 8"]);
    let mut third = p.monitor.task("seen-pod-c", &["sleep", "100000"]);
    third.bundle.config["annotations"] = p.monitor.bundle.config["annotations"].clone();
    let third_pid = p.client.ok("Create", third.create()).int(1) as i32;
    p.client.ok("Start", target(&third.id, ""));
    assert_eq!(p.client.ok("Wait", target(&p.tasks[1].id, "")).int(1), 8);
    p.monitor.kill_all();
    let files = || {
        let mut all: Vec<String> = fs::read_dir(&p.monitor.dir)
            .expect("the monitor's directory")
            .flatten()
            .map(|e| e.file_name().to_string_lossy().into_owned())
            .collect();
        all.sort();
        all
    };
    let ended = |task: &Task| {
        let (out, answer) = delete(task);
        out.ok();
        answer.int(2)
    };
    assert_eq!(ended(&p.tasks[0]), 137);
    eventually("its end", || !host::alive(p.pids[0]));
    assert!(host::alive(third_pid), "nobody has asked for that one");
    assert_eq!(ended(&p.tasks[1]), 8);
    assert_eq!(ended(&third), 137);
    eventually("its end", || !host::alive(third_pid));
    assert_eq!(files(), ["exit.json", "seen-pod-c.exit.json"]);
    for record in files() {
        let text = fs::read_to_string(p.monitor.dir.join(record)).expect("a record");
        assert!(text.contains("\"reason\":\"monitor-lost\""), "{text}");
    }
}

/// With the monitor's state gone too, the bundle says which runtime made the container, and which process that is.
#[test]
fn a_bundle_tells_what_a_lost_state_does_not() {
    if let Some(reason) = missing() {
        skip!("{reason}");
    }
    let r = running("wiped", &[]);
    r.monitor.kill_all();
    fs::remove_dir_all(&r.monitor.dir).expect("the state goes");
    let deletes = integration::monitor::invocations("delete", &r.task.id);
    let (out, answer) = delete(&r.task);
    out.ok();
    assert_eq!((answer.int(1) as i32, answer.int(2)), (r.pid, 137));
    eventually("its end", || !host::alive(r.pid));
    assert_eq!(record(&r.monitor)["reason"], "monitor-lost");
    let by_its_runtime = integration::monitor::invocations("delete", &r.task.id) - deletes;
    assert_eq!(by_its_runtime, 1, "the runtime that BinaryName named");
}

/// The socket of a monitor with a long name lies beside the directories; when all of that monitor was killed it goes with the next
/// look at the list, and that of one that lives stays.
#[test]
fn the_short_socket_of_a_dead_monitor_goes() {
    if let Some(reason) = missing() {
        skip!("{reason}");
    }
    let monitors = ["dead", "living"].map(|name| {
        let id = format!("{name}-{}", "x".repeat(90));
        let monitor = Monitor::named(&id, &shim(), &[]);
        let long = format!("{}/{id}.sock", monitor.dir.display());
        let hash = Run::sh(&format!("printf %s {long} | sha256sum | head -c 40")).ok().stdout;
        let socket = std::path::Path::new("/run/hydra-shim").join(format!("{hash}.sock"));
        assert!(socket.exists(), "{}", socket.display());
        Run::new("touch").args(["-d", "1 hour ago"]).args([&socket]).ok();
        (monitor, socket)
    });
    monitors[0].0.kill_all();
    Run::new(shim()).args(["list"]).ok();
    assert_eq!(monitors.each_ref().map(|(_, socket)| socket.exists()), [false, true]);
    let client = monitors[1].0.client();
    client.ok("Shutdown", target(&monitors[1].0.id, ""));
}

/// A worker that is stopped with its first instruction still to come has not asked for a signal at its keeper's death, and the
/// keeper is killed: nobody of the monitor can continue it. Whoever looks next does.
#[test]
fn a_newborn_worker_that_is_stopped_and_alone_is_continued() {
    if let Some(reason) = missing() {
        skip!("{reason}");
    }
    let r = running("newborn", &[]);
    let [keeper, worker] = r.monitor.heads().map(Pid::from_raw);
    ptrace::seize(keeper, Options::PTRACE_O_TRACEFORK | Options::PTRACE_O_TRACECLONE)
        .expect("the keeper traced");
    kill(worker, Signal::SIGKILL).expect("kill");
    // Births are told of the parent first.
    let all = Some(WaitPidFlag::__WALL);
    let newborn = loop {
        waitpid(keeper, all).expect("the keeper stops");
        if let Some(pid) = ptrace::getevent(keeper).ok().filter(|pid| *pid > 1) {
            break Pid::from_raw(pid as i32);
        }
        let _ = ptrace::cont(keeper, None);
    };
    waitpid(newborn, all).expect("the new worker stops");
    kill(newborn, Signal::SIGSTOP).expect("stop");
    kill(keeper, Signal::SIGKILL).expect("kill");
    let _ = waitpid(keeper, all);
    ptrace::detach(newborn, None).expect("let go");
    let stopped = || fs::read_to_string(format!("/proc/{newborn}/stat")).is_ok_and(|s| s.contains(") T "));
    // Whoever looks at this host's monitors mends it: other tests do.
    eventually("it is stopped", || stopped() || integration::monitor::whole(&r.monitor.dir));
    assert!(host::alive(r.pid), "the container lives");
    Run::new(shim()).args(["list"]).ok();
    eventually("both heads", || integration::monitor::whole(&r.monitor.dir));
    assert_eq!(r.monitor.heads()[0], newborn.as_raw(), "it is the keeper now");
    let before = r.output.seen().lines;
    eventually("output goes on", || r.output.seen().lines > before + 1000);
    assert_eq!(r.output.seen().wrong, None);
    assert!(r.client.connected());
    end(&r.client, &r.task.id);
}
