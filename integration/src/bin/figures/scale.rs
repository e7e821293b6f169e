//! HYDRA's figures 5a to 5c: how long the (n + 1)th container takes to launch, and what memory the daemons and monitors
//! need, with n containers running.

use crate::rows::Sheet;
use crate::stack::Daemons;
use crate::Plan;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

pub fn measure(plan: &Plan, daemons: &Daemons, stack: &str, server: &str, pass: u32) -> Vec<Sheet> {
    let mut launch = Sheet::new("scale-launch.csv", "pass,stack,server,containers,round,ms");
    let mut memory = Sheet::new(
        "scale-memory.csv",
        "pass,stack,server,containers,daemon_rss,daemon_private,monitor_rss,monitor_private",
    );
    let mut parts = Sheet::new("scale-parts.csv", "pass,stack,server,containers,part,round,ms");
    let steps: &[usize] = match server {
        // A JVM each: as far as the memory goes.
        "tomcat" => plan.pick(&[0, 10, 20, 40], &[0]),
        _ => plan.pick(&[0, 50, 100, 200, 350, 500], &[0, 3]),
    };
    let most = most(plan, stack, server);
    let mut running = 0;
    for &step in steps.iter().filter(|s| **s <= most) {
        let start = Instant::now();
        fill(daemons, server, running, step);
        println!("  {} more {server}: {:.0} s", step - running, start.elapsed().as_secs_f64());
        running = step;
        std::thread::sleep(std::time::Duration::from_secs(plan.pick(&[5], &[1])[0]));
        let m = daemons.memory();
        let sizes = [m.daemons.resident, m.daemons.private, m.monitors.resident, m.monitors.private];
        memory.add(&[&pass, &stack, &server, &step, &sizes[0], &sizes[1], &sizes[2], &sizes[3]]);
        for round in 0..plan.rounds(15, 5) {
            let start = Instant::now();
            daemons.docker(&["run", "-d", "--name", "timed", "servers", "server", server]).ok();
            let took = start.elapsed().as_secs_f64() * 1e3;
            launch.add(&[&pass, &stack, &server, &step, &round, &took]);
            daemons.api.delete("/containers/timed?force=1");
            for (part, ms) in taken_apart(daemons, server) {
                parts.add(&[&pass, &stack, &server, &step, &part, &round, &ms]);
            }
        }
    }
    daemons.sweep();
    vec![launch, memory, parts]
}

/// Where a launch's time goes: the engine's record and layer of the container (`create`), what starts it (`start`, in which
/// runtime and monitor have their part), and a start that needs no place on the bridge.
fn taken_apart(daemons: &Daemons, server: &str) -> [(&'static str, f64); 3] {
    let timed = |args: &[&str]| {
        let start = Instant::now();
        daemons.docker(args).ok();
        start.elapsed().as_secs_f64() * 1e3
    };
    let create = timed(&["create", "--name", "timed", "servers", "server", server]);
    let start = timed(&["start", "timed"]);
    daemons.api.delete("/containers/timed?force=1");
    daemons.docker(&["create", "--network", "none", "--name", "timed", "servers", "server", server]).ok();
    let alone = timed(&["start", "timed"]);
    daemons.api.delete("/containers/timed?force=1");
    [("create", create), ("start", start), ("start without network", alone)]
}

/// How many containers a stack is measured with. A budget is best spent on those that differ in both runtime and monitor.
pub fn most(plan: &Plan, stack: &str, server: &str) -> usize {
    match (plan.reduced(), server) {
        (true, "tomcat") => 20,
        (true, _) if !["runc", "Hydra"].contains(&stack) => 100,
        _ => usize::MAX,
    }
}

/// Starts containers `from` to `to`, two at a time.
fn fill(daemons: &Daemons, server: &str, from: usize, to: usize) {
    let next = AtomicUsize::new(from);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= to {
                    break;
                }
                let name = format!("s{n}");
                daemons.docker(&["run", "-d", "--name", &name, "servers", "server", server]).ok();
            });
        }
    });
}
