//! HYDRA's figures 4a and 4b: kill -9 of dockerd and containerd; the time until the daemon answers from its restored
//! state, and until each container is in its hands again.

use crate::rows::Sheet;
use crate::stack::Daemons;
use crate::Plan;
use std::time::{Duration, Instant};

pub fn measure(plan: &Plan, daemons: &mut Daemons, stack: &str, pass: u32) -> Vec<Sheet> {
    let mut daemon = Sheet::new("restore-daemon.csv", "pass,stack,containers,round,ms");
    let mut container = Sheet::new("restore-container.csv", "pass,stack,containers,round,ms");
    let mut names: Vec<String> = Vec::new();
    for &count in plan.pick(&[1, 10, 100], &[1, 5]) {
        while names.len() < count {
            let name = format!("r{}", names.len());
            daemons
                .docker(&["run", "-d", "--restart", "always", "--name", &name, "servers", "server", "redis"])
                .ok();
            names.push(name);
        }
        for round in 0..plan.rounds(5, 1) {
            daemons.crash();
            let start = daemons.spawn();
            daemons.until_ready();
            daemon.add(&[&pass, &stack, &count, &round, &ms(start)]);
            for at in regained(daemons, &names, start) {
                container.add(&[&pass, &stack, &count, &round, &at]);
            }
        }
    }
    daemons.sweep();
    vec![daemon, container]
}

/// The times at which each container's processes could first be asked for: daemon, containerd, monitor and runtime
/// all have to know it for that.
fn regained(daemons: &Daemons, names: &[String], start: Instant) -> Vec<f64> {
    let mut missing: Vec<&String> = names.iter().collect();
    let mut times = Vec::new();
    while !missing.is_empty() && start.elapsed() < Duration::from_secs(120) {
        missing.retain(|name| match daemons.api.get(&format!("/containers/{name}/top")) {
            Some(_) => {
                times.push(ms(start));
                false
            }
            None => true,
        });
        std::thread::sleep(Duration::from_micros(500));
    }
    times
}

fn ms(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}
