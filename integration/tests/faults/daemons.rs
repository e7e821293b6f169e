//! dockerd and containerd killed, again and again, under containers that write and end all the while.

use crate::{full, missing};
use integration::engine::{killed, Engine, IMAGE};
use integration::{host, skip, Run};

const KILLS: u64 = 3;

/// Lines that the container writes before it ends, one in some 50 ms. Those with a high number are started first and write the
/// most; they end around and between the kills, some while the daemons are away.
fn lines(n: usize) -> usize {
    60 + n * 20 + n * 37 % 150
}

fn code(n: usize) -> usize {
    1 + n % 100
}

fn name(n: usize) -> String {
    format!("writer{n}")
}

fn start(engine: &Engine, runtime: &str, containers: usize) {
    for n in (0..containers).rev() {
        let script = format!(
            "i=0; while [ $i -lt {} ]; do i=$((i+1)); echo line $i; sleep 0.05; done; exit {}",
            lines(n),
            code(n)
        );
        let args =
            ["run", "-d", "--network", "none", "--runtime", runtime, "--name", &name(n), IMAGE, "sh", "-c"];
        engine.cli().args(args).args([&script]).ok();
    }
}

/// Every exit status has to be right. Returns how many lines the daemon's logs lack; none may be doubled or out of order.
fn ledger(engine: &Engine, containers: usize) -> usize {
    let mut lost = 0;
    for n in 0..containers {
        let ended = engine.cli().args(["wait", &name(n)]).patient(4).ok().stdout;
        assert_eq!(ended.trim(), code(n).to_string(), "the status of {}", name(n));
        let text = engine.docker(&["logs", &name(n)]).ok().stdout;
        let number = |l: &str| l.strip_prefix("line ").and_then(|n| n.parse::<usize>().ok());
        let seen: Vec<usize> = text.lines().filter_map(number).collect();
        assert!(seen.windows(2).all(|w| w[0] < w[1]), "the log of {}: {text}", name(n));
        lost += lines(n) - seen.len();
        engine.docker(&["rm", &name(n)]).ok();
    }
    lost
}

/// While the daemons are away, the monitor tells what they would.
fn ask_the_monitor(id: &str) {
    let runtime = |verb: &str| Run::new(host::runtime()).args([verb, id]);
    assert!(runtime("logs").ok().stdout.starts_with("line 1\n"), "logs without a daemon");
    runtime("wait").patient(4).out().exits(code(0) as i32);
}

#[test]
fn both_daemons_killed_under_writing_containers() {
    if let Some(reason) = missing() {
        skip!("{reason}");
    }
    let (ours, theirs) = match killed() {
        Ok(both) => both,
        Err(reason) => skip!("{reason}"),
    };
    let containers = if full() { 100 } else { 20 };
    start(&theirs, "runc", containers);
    start(&ours, "shimmed", containers);
    let id = ours.docker(&["inspect", "-f", "{{.Id}}", &name(0)]).ok().stdout.trim().to_string();
    for round in 0..KILLS {
        for engine in [&ours, &theirs] {
            engine.kill();
        }
        if round == 0 {
            ask_the_monitor(&id);
        }
        std::thread::sleep(std::time::Duration::from_millis(300 * round));
        for engine in [&ours, &theirs] {
            engine.launch().expect("the daemons come back");
        }
        let fresh = ["run", "--rm", "--network", "none", "--runtime", "shimmed", IMAGE, "sh", "-c", "exit 9"];
        ours.cli().args(fresh).out().exits(9);
    }
    let lost = [ledger(&ours, containers), ledger(&theirs, containers)];
    println!("{containers} containers, {KILLS} kills of both daemons: log lines lost {} with our monitor, {} with containerd's", lost[0], lost[1]);
    assert!(lost[0] <= lost[1], "{lost:?} lines lost");
}
