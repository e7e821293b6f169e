//! containerd by `ctr`, killed under containers of ours and started again: what goes on, what ended while it was away, and how.

use crate::cri::Containerd;
use integration::engine::{engine, IMAGE};
use integration::{eventually, host, janitor, monitor, Out, Run};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The state and the processes of each task that containerd knows.
type Tasks = BTreeMap<String, (i32, String)>;

const UNTIL_THE_END: &str = "while [ ! -e /end ]; do sleep 0.1; done; exit 7";

struct Ctr(Containerd);

impl Ctr {
    /// A containerd of the test's own with an image, or why there is none. All it has is in a namespace of the tests' own.
    fn new(letter: char) -> Result<Ctr, &'static str> {
        let ctr = Ctr(Containerd::new(letter, &crate::cri::ours()));
        janitor::at_end(&format!("rm -rf /run/containerd/hydra/{}", monitor::namespace()));
        let image = format!(
            "$D save {IMAGE} | ctr -a {} -n {} images import - >/dev/null",
            ctr.0.socket().display(),
            monitor::namespace()
        );
        engine()?.script(&image, "", "").ok();
        Ok(ctr)
    }

    /// Shell in which `$C` is ctr and `$RUN` its `run` with our monitor, `$I` the image.
    fn script(&self, text: &str) -> Out {
        let c = format!("ctr -a {} -n {}", self.0.socket().display(), monitor::namespace());
        let words = format!(
            "C='{c}'; RUN='{c} run --runtime io.containerd.hydra.v2'; I=docker.io/library/{IMAGE}:latest"
        );
        Run::new("bash").args(["-c", &format!("{words}; {text}")]).patient(2).out()
    }

    fn start(&self, name: &str, script: &str) {
        self.script(&format!("$RUN -d $I {name} sh -c '{script}'")).ok();
    }

    fn tasks(&self) -> Tasks {
        let text = self.script("$C task ls").ok().stdout;
        let rows = text.lines().skip(1).map(|l| l.split_whitespace().collect::<Vec<_>>());
        rows.map(|r| (r[0].to_string(), (r[1].parse().expect("a pid"), r[2].to_string()))).collect()
    }

    fn state(&self, name: &str) -> String {
        self.tasks().get(name).map_or("none".into(), |t| t.1.clone())
    }

    /// The exit status that containerd tells of a task that has ended, which then is deleted, and the container.
    fn ended(&self, name: &str) -> i32 {
        let out = self.script(&format!("$C task rm {name} && $C container rm {name}")).ok();
        // A warning, for every status but 0.
        let status = out.stderr.split("non-zero exit code ").nth(1).unwrap_or("0");
        status.chars().take_while(char::is_ascii_digit).collect::<String>().parse().expect("a status")
    }
}

fn end(pid: i32) {
    fs::write(format!("/proc/{pid}/root/end"), "").expect("the file for which it waits");
}

fn folder(name: &str) -> PathBuf {
    Path::new("/run/hydra-shim").join(monitor::namespace()).join(name)
}

fn kill(pids: &[i32]) {
    // 0, where there is no such process, would be this program's own group.
    for pid in pids.iter().filter(|p| **p > 1) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(*pid), nix::sys::signal::SIGKILL);
    }
}

/// Both heads, of which one brings back the other.
fn kill_heads(name: &str) {
    eventually("no head is left", || {
        let heads = monitor::heads(&folder(name));
        kill(&heads);
        heads.iter().all(|h| !host::alive(*h)) && heads == monitor::heads(&folder(name))
    });
}

fn runtime(args: &[&str]) -> Run {
    let root = format!("/run/containerd/hydra/{}", monitor::namespace());
    Run::new(host::runtime()).args(["--root", &root]).args(args)
}

macro_rules! ctr {
    ($letter:expr) => {{
        if integration::peer() != integration::Peer::Hydra {
            integration::skip!("the shim is ours");
        }
        match crate::cri::ready().and_then(|()| Ctr::new($letter)) {
            Ok(ctr) => ctr,
            Err(reason) => integration::skip!("{reason}"),
        }
    }};
}

#[test]
fn containers_outlive_containerd() {
    let ctr = ctr!('r');
    let names = ["runs", "ended", "killed", "paused", "worker", "keeper"];
    for name in names {
        ctr.start(name, UNTIL_THE_END);
    }
    let pids = ctr.tasks();
    ctr.0.kill();
    end(pids["ended"].0);
    kill(&[pids["killed"].0]);
    runtime(&["pause", "paused"]).ok();
    for (name, head) in [("keeper", 0), ("worker", 1)] {
        kill(&[monitor::heads(&folder(name))[head]]);
        eventually("the other head has made a new one", || monitor::whole(&folder(name)));
    }
    for (name, code) in [("ended", 7), ("killed", 137)] {
        runtime(&["wait", name]).out().exits(code);
    }

    ctr.0.start();
    let states = names.map(|n| ctr.state(n));
    assert_eq!(states, ["RUNNING", "STOPPED", "STOPPED", "PAUSED", "RUNNING", "RUNNING"]);
    let now = ctr.tasks();
    assert_eq!(names.map(|n| now[n].0), names.map(|n| pids[n].0), "their processes");
    assert_eq!([ctr.ended("ended"), ctr.ended("killed")], [7, 137]);
    ctr.script("$C task resume paused").ok();
    let events = ctr.0.events(monitor::namespace());
    for name in ["runs", "paused", "worker", "keeper"] {
        ctr.script(&format!("$C task exec --exec-id a {name} sh -c 'exit 5'")).exits(5);
        assert!(
            ctr.script(&format!("$C task metrics {name}")).ok().stdout.contains("pids.current"),
            "{name}"
        );
        end(pids[name].0);
        eventually("containerd knows that it has ended", || ctr.state(name) == "STOPPED");
        assert_eq!(ctr.ended(name), 7, "{name}");
        let told = |topic: &str| {
            events.stdout().lines().any(|l| l.contains(topic) && l.contains(&format!("\"{name}\"")))
        };
        eventually("containerd's clients hear of it", || told("/tasks/exit") && told("/tasks/delete"));
        eventually("the monitor ends", || !folder(name).exists());
    }
    ctr.script("$RUN --rm $I fresh sh -c 'exit 9'").exits(9);
    ctr.0.kill();
}

/// By every second's death of a worker neither the client nor its output is troubled.
#[test]
fn a_clients_container_goes_on_under_new_workers() {
    let ctr = ctr!('w');
    let out = std::thread::scope(|s| {
        let run = s.spawn(|| {
            ctr.script("$RUN --rm $I talks sh -c 'for i in $(seq 30); do echo $i; sleep 0.1; done; exit 6'")
        });
        eventually("it is there", || monitor::whole(&folder("talks")));
        for _ in 0..5 {
            kill(&[monitor::heads(&folder("talks"))[1]]);
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
        run.join().expect("the client's end")
    });
    let lines: Vec<String> = (1..=30).map(|n| n.to_string()).collect();
    assert_eq!(out.exits(6).stdout.lines().collect::<Vec<_>>(), lines);
    ctr.0.kill();
}

/// All heads lost: under containerd's eyes the container ends and that is told, without them it gets a new monitor.
#[test]
fn a_monitor_that_is_lost() {
    let ctr = ctr!('l');
    for name in ["seen", "adopted", "unseen"] {
        ctr.start(name, UNTIL_THE_END);
    }
    let pids = ctr.tasks();
    let events = ctr.0.events(monitor::namespace());
    kill_heads("seen");
    eventually("it is ended", || !host::alive(pids["seen"].0) && ctr.state("seen") == "none");
    let told = |l: &str| l.contains("/tasks/exit") && l.contains("\"seen\"") && l.contains("137");
    eventually("its end is told", || events.stdout().lines().any(told));
    drop(events);
    ctr.script("$C container rm seen").ok();

    ctr.0.kill();
    kill_heads("adopted");
    kill_heads("unseen");
    Run::new(host::shim()).args(["adopt", "--namespace", monitor::namespace(), "adopted"]).ok();
    ctr.0.start();
    assert_eq!(ctr.state("adopted"), "RUNNING");
    end(pids["adopted"].0);
    eventually("containerd knows that it has ended", || ctr.state("adopted") == "STOPPED");
    assert_eq!(ctr.ended("adopted"), 7);
    // The other has one too, since this start: containerd 2 took away the bundle and forgot it, one before finds it when it starts again.
    assert_eq!(ctr.state("unseen"), "none");
    eventually("it has a monitor", || monitor::whole(&folder("unseen")));
    assert!(host::alive(pids["unseen"].0), "it runs on");
    ctr.0.kill();
    ctr.0.start();
    assert_eq!(ctr.state("unseen"), if host::containerd() < 2 { "RUNNING" } else { "none" });
    runtime(&["exec", "unseen", "sh", "-c", "exit 5"]).out().exits(5);
    end(pids["unseen"].0);
    runtime(&["wait", "unseen"]).out().exits(7);
    if host::containerd() < 2 {
        eventually("containerd knows that it has ended", || ctr.state("unseen") == "STOPPED");
        assert_eq!(ctr.ended("unseen"), 7);
    } else {
        runtime(&["delete", "unseen"]).ok();
    }
    eventually("nothing of it is left", || !folder("unseen").exists());
    ctr.0.kill();
}
