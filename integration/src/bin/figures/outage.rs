//! HYDRA's figure 4c: what a client notices, who asks a server every 5 ms while that server is under load, of a crash of
//! the daemons and of an upgrade of daemons and monitors. And how fast the server is when nothing happens.

use crate::load::{self, Load};
use crate::rows::Sheet;
use crate::server::{server, Client, SERVERS};
use crate::stack::Daemons;
use crate::Plan;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a server may stay away before it counts as gone.
pub const PATIENCE: Duration = Duration::from_secs(90);

pub fn measure(plan: &Plan, daemons: &mut Daemons, rootfs: &Path, stack: &str, pass: u32) -> Vec<Sheet> {
    let mut outages = Sheet::new("outage.csv", "pass,stack,server,event,ms,back");
    let mut rates = Sheet::new("throughput.csv", "pass,stack,server,round,per_second");
    let all: Vec<&str> = SERVERS.iter().map(|s| s.name).collect();
    for name in plan.pick(&all, &["redis"]) {
        let server = server(name);
        let address = daemons.run("outage", name);
        if server.first_answer(&address, Instant::now(), PATIENCE).is_none() {
            println!("  {name} never answered");
            daemons.sweep();
            continue;
        }
        for round in 0..plan.rounds(3, 1) {
            if let Some(rate) = load::rate(rootfs, name, &address, 2) {
                rates.add(&[&pass, &stack, name, &round, &rate]);
            }
        }
        for event in ["crash", "upgrade"] {
            for _ in 0..plan.rounds(3, 1) {
                let load = Load::start(rootfs, name, &address);
                std::thread::sleep(Duration::from_millis(300));
                let client = Client::start(server, address.clone());
                std::thread::sleep(Duration::from_millis(300));
                let start = Instant::now();
                match event {
                    "crash" => daemons.crash(),
                    _ => {
                        daemons.stop();
                        daemons.upgrade_monitors();
                    }
                }
                daemons.spawn();
                daemons.until_ready();
                // Without live-restore the server starts anew: wait for it, and a little longer for what comes late.
                server.first_answer(&address, start, PATIENCE);
                std::thread::sleep(Duration::from_millis(1000));
                let outage = client.outage();
                drop(load);
                outages.add(&[&pass, &stack, name, &event, &outage.ms, &u8::from(outage.over)]);
                if !outage.over {
                    println!("  {name} did not come back after the {event}");
                    break;
                }
            }
        }
        daemons.sweep();
    }
    vec![outages, rates]
}
