//! Each process of a monitor is killed at every system call it makes, in turn, with calls under way, output passing and a
//! terminal open. Nobody may notice.

use crate::{full, missing, with_ledger};
use integration::monitor::{fifo, invocations, open_fifo, signal, target, Monitor, Reader, Task};
use integration::trace::hunt;
use integration::wire::{Client, Msg};
use integration::{eventually, skip, Run};
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::PathBuf;

/// A monitor with a container that writes a megabyte a second and one on a terminal, for as long as the test takes.
struct Bench {
    monitor: Monitor,
    client: Client,
    writer: Task,
    output: Reader,
    waiting: u32,
    keys: File,
    screen: File,
    /// What the terminal has shown and nobody has looked at.
    shown: String,
}

impl Bench {
    fn new(name: &str) -> Bench {
        let monitor = Monitor::start(name);
        let client = monitor.client();
        let mut writer = monitor.task(&monitor.id, &["ledger", "0", "1000000", "0"]);
        with_ledger(&writer.bundle.rootfs());
        writer.stdout = Some(fifo("writer"));
        let output = Reader::new(writer.stdout.as_ref().expect("fifo"));
        client.ok("Create", writer.create());
        client.ok("Start", target(&writer.id, ""));
        let waiting = client.begin("Wait", target(&writer.id, ""));

        let mut shell = monitor.task(&format!("{}-tty", monitor.id), &["sh", "-c", "stty -echo; cat"]);
        shell.bundle.config["process"]["terminal"] = true.into();
        shell.terminal = true;
        (shell.stdin, shell.stdout) = (Some(fifo("keys")), Some(fifo("screen")));
        let screen = open_fifo(shell.stdout.as_ref().expect("fifo"));
        client.ok("Create", shell.create());
        client.ok("Start", target(&shell.id, ""));
        let keys = OpenOptions::new().write(true).open(shell.stdin.as_ref().expect("fifo")).expect("keys");
        let mut bench =
            Bench { monitor, client, writer, output, waiting, keys, screen, shown: String::new() };
        bench.converse("first");
        bench
    }

    /// Types a line and waits for it to come back, once.
    fn converse(&mut self, line: &str) {
        writeln!(self.keys, "{line}").expect("typing");
        let screen = &mut self.screen;
        let shown = &mut self.shown;
        eventually(&format!("the terminal shows {line}"), || {
            let mut buffer = [0; 4096];
            if let Ok(n) = screen.read(&mut buffer) {
                shown.push_str(&String::from_utf8_lossy(&buffer[..n]));
            }
            shown.contains(&format!("{line}\r\n"))
        });
        // Before its echo was off, the first line may have been shown twice.
        let times = shown.matches(&format!("{line}\r\n")).count();
        assert!(times == 1 || line == "first", "the terminal shows {line} {times} times: {shown:?}");
        shown.clear();
    }

    /// One round of calls, all of which the monitor has to answer as if nothing happened. `between` happens while an exec and
    /// a container run that end soon after.
    fn round(&mut self, n: usize, between: impl FnOnce(&Monitor)) {
        let exec = format!("e{n}");
        let spoken: PathBuf = fifo("exec");
        let mut heard = open_fifo(&spoken);
        let gate = self.writer.bundle.rootfs().join(format!("go{n}"));
        let command = format!(
            "echo {n} >>/executed; while ! [ -e /go{n} ]; do sleep 0.01; done; echo spoken {n}; exit 7"
        );
        let request = self.writer.exec(&exec, &["sh", "-c", &command], Some(&spoken));
        let other = self.monitor.task(&format!("{}-c{n}", self.monitor.id), &["sh", "-c", "read x; exit 5"]);
        let other = Task { stdin: Some(fifo("stdin")), ..other };
        let c = &self.client;

        let added = c.begin("Exec", request);
        let created = c.begin("Create", other.create());
        let state = c.begin("State", target(&self.writer.id, ""));
        c.answer(added).expect("Exec");
        let started = c.begin("Start", target(&self.writer.id, &exec));
        let ended = c.begin("Wait", target(&self.writer.id, &exec));
        let stats = c.begin("Stats", target(&self.writer.id, ""));
        let size = Msg::new().text(1, &format!("{}-tty", self.monitor.id)).int(3, 80).int(4, 25);
        let resized = c.begin("ResizePty", size);
        assert_eq!(c.answer(state).expect("State").int(4), 2, "the writer runs");
        assert!(c.answer(started).expect("Start of the exec").int(1) > 0);
        assert!(c.answer(created).expect("Create").int(1) > 0);
        let gone = c.begin("Wait", target(&other.id, ""));
        c.ok("Start", target(&other.id, ""));
        between(&self.monitor);
        std::fs::write(&gate, "").expect("gate");
        c.ok("CloseIO", Msg::new().text(1, &other.id).int(3, 1));
        assert_eq!(c.answer(ended).expect("Wait for the exec").int(1), 7);
        assert_eq!(c.answer(gone).expect("Wait").int(1), 5);
        c.answer(stats).expect("Stats");
        c.answer(resized).expect("ResizePty");
        assert_eq!(c.ok("Delete", target(&self.writer.id, &exec)).int(2), 7);
        assert_eq!(c.ok("Delete", target(&other.id, "")).int(2), 5);
        self.converse(&format!("line {n}"));
        let said = hear(&mut heard);
        assert_eq!(said, format!("spoken {n}\n"));
        self.check_events(&exec, &other.id);
        for verb in ["create", "start", "delete"] {
            assert_eq!(invocations(verb, &other.id), 1, "{verb} of {}", other.id);
        }
        let executed = std::fs::read_to_string(self.writer.bundle.rootfs().join("executed")).unwrap();
        assert_eq!(executed.lines().filter(|l| *l == n.to_string()).count(), 1, "the exec ran once");
        for path in [&spoken, &gate, other.stdin.as_ref().expect("fifo")] {
            let _ = std::fs::remove_file(path);
        }
    }

    fn check_events(&self, exec: &str, other: &str) {
        let wanted = ["/tasks/exec-added", "/tasks/exec-started", "/tasks/exit"];
        self.told(&self.writer.id, exec, &wanted);
        let wanted = ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"];
        self.told(other, "", &wanted);
    }

    #[track_caller]
    fn told(&self, container: &str, exec: &str, wanted: &[&str]) {
        let start = std::time::Instant::now();
        let mut found = self.monitor.events.topics(container, exec);
        while found.len() < wanted.len() && start.elapsed() < integration::host::patience() {
            std::thread::sleep(std::time::Duration::from_millis(5));
            found = self.monitor.events.topics(container, exec);
        }
        assert_eq!(found, wanted, "events of {container} {exec}");
    }

    fn check(&self) {
        assert!(self.client.connected(), "the connection broke");
        assert_eq!(self.client.answered_twice(), Vec::<u32>::new());
        assert!(!self.client.answered(self.waiting), "the writer's end was told");
        let seen = self.output.seen();
        assert_eq!(seen.wrong, None);
    }

    /// The writer's end is exact, too.
    fn end(self) {
        self.check();
        let before = self.output.seen().lines;
        eventually("output goes on", || self.output.seen().lines > before);
        self.client.ok("Kill", signal(&self.writer.id, 9));
        assert_eq!(self.client.answer(self.waiting).expect("Wait").int(1), 137);
        self.client.ok("Delete", target(&self.writer.id, ""));
        let seen = self.output.whole();
        assert_eq!(seen.wrong, None);
    }
}

/// What there is to see of a monitor that somebody noticed.
impl Drop for Bench {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let [keeper, worker] = self.monitor.heads();
            let script = format!(
                "ls -l /proc/{keeper}/fd; head -3 /proc/{worker}/status; ps -eo pid,ppid,stat,wchan:20,args | grep -e {id} -e '^ *{keeper} ' -e ' {keeper} ' -e ' {worker} '; \
                 for p in $(pgrep -f {id}); do echo $p $(readlink /proc/$p/fd/0); done",
                id = self.monitor.id
            );
            println!("heads {keeper} {worker}: {}", Run::sh(&script).out());
        }
    }
}

/// The first line that a process puts out, which may come in pieces.
fn hear(from: &mut File) -> String {
    let mut said = String::new();
    eventually("output", || {
        let mut buffer = [0; 256];
        if let Ok(n) = from.read(&mut buffer) {
            said.push_str(&String::from_utf8_lossy(&buffer[..n]));
        }
        said.ends_with('\n')
    });
    said
}

/// Kills one head (0 keeper, 1 worker) at each stop of a round, or at every so many. The keeper has something to do only for
/// processes that lost the worker that made them: it gets some first.
fn killed_at_every_call(name: &str, head: usize) {
    if let Some(reason) = missing() {
        skip!("{reason}");
    }
    let mut bench = Bench::new(name);
    let dir = bench.monitor.dir.clone();
    let mut number = 0;
    let mut hunted = |bench: &mut Bench, at: usize| {
        number += 1;
        let mut chase = (head == 1).then(|| hunt(&dir, head, at));
        bench.round(number, |monitor| {
            if head == 0 {
                let worker = monitor.heads()[1];
                let _ = kill(Pid::from_raw(worker), Signal::SIGKILL);
                let fresh = || monitor.heads()[1] != worker && integration::monitor::whole(&monitor.dir);
                eventually("a new worker", fresh);
                chase = Some(hunt(&dir, head, at));
            }
        });
        bench.check();
        chase.map_or((0, None), |c| c.end())
    };
    // How many stops a round has differs with the output that passes meanwhile.
    let seen: Vec<usize> = (0..3).map(|_| hunted(&mut bench, usize::MAX).0).collect();
    let stops = if full() { seen.iter().max() } else { seen.iter().min() }.copied().unwrap_or(0);
    let rounds = if full() { stops } else { stops.min(40) };
    let mut heals = Vec::new();
    for i in 0..rounds {
        println!("stop {} of {stops}", i * stops / rounds);
        let death = hunted(&mut bench, i * stops / rounds).1;
        if let Some(death) = death {
            heals.push(death.healed);
        }
    }
    heals.sort_by(f64::total_cmp);
    let at = |part: f64| heals.get(((heals.len() as f64 - 1.0) * part) as usize).copied().unwrap_or_default();
    println!(
        "{name}: {stops} stops a round, killed at {} of them; both heads there again after {:.1} ms (median), {:.1} ms (99 of 100), {:.1} ms (longest)",
        heals.len(), at(0.5), at(0.99), at(1.0)
    );
    assert!(!heals.is_empty(), "nothing was killed");
    bench.end();
}

#[test]
fn the_worker_killed_at_every_call() {
    killed_at_every_call("worker", 1);
}

#[test]
fn the_keeper_killed_at_every_call() {
    killed_at_every_call("keeper", 0);
}

/// The requests of a container's life, each with what it brings about.
const REQUESTS: [&str; 8] =
    ["Create", "Start", "Exec", "Start of the exec", "CloseIO", "Delete of the exec", "Kill", "Delete"];

/// A container with an exec from Create to Delete, with those of its streams that are wanted (0, 1, 2). The worker is killed at the
/// stop `at` of one request. Returns how many stops that had, and whether it came to that.
fn life(monitor: &Monitor, client: &Client, streams: [bool; 3], request: &str, at: usize) -> (usize, bool) {
    let paths = ["in", "out", "err"].map(fifo);
    let given = |n: usize| streams[n].then(|| paths[n].clone());
    let number = paths[0].file_name().expect("name").to_string_lossy().replace('.', "-");
    let mut task = monitor.task(&format!("{}-{number}", monitor.id), &["sh", "-c", "cat; sleep 1000"]);
    (task.stdin, task.stdout, task.stderr) = (given(0), given(1), given(2));
    let (exec_in, exec_out) = (fifo("exec-in"), fifo("exec-out"));
    let [mut out, _err, mut said] = [&paths[1], &paths[2], &exec_out].map(|path| open_fifo(path));
    let exec =
        task.exec("e", &["sh", "-c", "cat; exit 7"], Some(&exec_out)).text(4, &exec_in.display().to_string());
    let mut seen = (0, false);
    let mut hunted = |name: &str, work: &mut dyn FnMut()| {
        let chase = (name == request).then(|| hunt(&monitor.dir, 1, at));
        work();
        if let Some((stops, death)) = chase.map(|c| c.end()) {
            seen = (stops, death.is_some());
        }
    };
    let type_into = |path: &PathBuf, line: &str| {
        let mut keys = OpenOptions::new().write(true).open(path).expect("keys");
        writeln!(keys, "{line}").expect("typing");
        keys
    };

    hunted("Create", &mut || assert!(client.ok("Create", task.create()).int(1) > 0));
    let gone = client.begin("Wait", target(&task.id, ""));
    let _keys = streams[0].then(|| type_into(&paths[0], "to the container"));
    hunted("Start", &mut || assert!(client.ok("Start", target(&task.id, "")).int(1) > 0));
    if streams[0] && streams[1] {
        assert_eq!(hear(&mut out), "to the container\n");
    }
    hunted("Exec", &mut || drop(client.ok("Exec", exec.clone())));
    let ended = client.begin("Wait", target(&task.id, "e"));
    hunted("Start of the exec", &mut || assert!(client.ok("Start", target(&task.id, "e")).int(1) > 0));
    let _exec_keys = type_into(&exec_in, "to the exec");
    hunted("CloseIO", &mut || {
        client.ok("CloseIO", target(&task.id, "e").int(3, 1));
        assert_eq!(client.answer(ended).expect("Wait for the exec").int(1), 7);
    });
    assert_eq!(hear(&mut said), "to the exec\n");
    hunted("Delete of the exec", &mut || assert_eq!(client.ok("Delete", target(&task.id, "e")).int(2), 7));
    hunted("Kill", &mut || {
        client.ok("Kill", signal(&task.id, 9));
        assert_eq!(client.answer(gone).expect("Wait").int(1), 137);
    });
    hunted("Delete", &mut || assert_eq!(client.ok("Delete", target(&task.id, "")).int(2), 137));

    let events = |exec: &str| monitor.events.topics(&task.id, exec);
    eventually("the container's events", || events("").len() >= 4 && events("e").len() >= 3);
    assert_eq!(events(""), ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"]);
    assert_eq!(events("e"), ["/tasks/exec-added", "/tasks/exec-started", "/tasks/exit"]);
    for verb in ["create", "start", "delete"] {
        assert_eq!(invocations(verb, &task.id), 1, "{verb} of {}", task.id);
    }
    paths.iter().chain([&exec_in, &exec_out]).for_each(|path| drop(std::fs::remove_file(path)));
    seen
}

/// Each request of a container's life, with the worker killed at every system call that it makes for it; whichever streams the
/// container has. What a worker opened before it died is not opened again by the next one: of a pipe opened twice nobody would know one
/// end, and the container's input never end.
#[test]
fn the_worker_killed_at_every_call_of_each_request() {
    if let Some(reason) = missing() {
        skip!("{reason}");
    }
    let monitor = Monitor::start("requests");
    let client = monitor.client();
    // The first one makes the connection for the events.
    life(&monitor, &client, [true; 3], "", 0);
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", monitor.heads()[0])).expect("fds").count();
    let before = descriptors();
    let creates = [[true, false, false], [false, false, true]].map(|streams| (streams, "Create"));
    let mut all = 0;
    for (streams, request) in creates.into_iter().chain(REQUESTS.map(|r| ([true; 3], r))) {
        let stops = life(&monitor, &client, streams, request, usize::MAX).0;
        let mut killed = 0;
        for at in 0..stops {
            println!("{request}, {streams:?}, stop {at}");
            killed += usize::from(life(&monitor, &client, streams, request, at).1);
            eventually(&format!("{before} descriptors"), || {
                integration::monitor::whole(&monitor.dir) && descriptors() == before
            });
        }
        println!("{request}, {streams:?}: {stops} stops, killed at {killed} of them");
        assert!(killed > 0, "nothing was killed");
        all += killed;
    }
    assert!(client.connected(), "the connection broke");
    assert_eq!(client.answered_twice(), Vec::<u32>::new());
    println!("killed {all} times");
}

/// The program replaced, again and again, while calls, a megabyte a second and a terminal are under way: as with a death, nobody
/// may notice.
#[test]
fn the_program_replaced_under_a_terminal_and_a_writer() {
    if let Some(reason) = missing() {
        skip!("{reason}");
    }
    let mut bench = Bench::new("replaced");
    for n in 0..10 {
        bench.round(n, |monitor| {
            let [keeper, worker] = monitor.heads();
            let args = ["upgrade", "--namespace", integration::monitor::namespace(), &monitor.id];
            Run::new(integration::monitor::shim()).args(args).ok();
            eventually("both heads", || integration::monitor::whole(&monitor.dir));
            assert_eq!(monitor.heads()[0], keeper, "the same process");
            assert_ne!(monitor.heads()[1], worker, "a new one");
        });
        bench.check();
    }
    let lines = bench.output.seen().lines;
    println!(
        "10 upgrades: {:.1} MB of output and {} lines on the terminal, none lost or doubled",
        lines as f64 * 16e-6,
        11
    );
    bench.end();
}
