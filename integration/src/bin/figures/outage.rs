//! HYDRA's figure 4c: what a client notices, who asks a server every 5 ms, of a crash of the daemons and of an upgrade of
//! daemons and monitors.

use crate::rows::Sheet;
use crate::server::{server, Client, SERVERS};
use crate::stack::Daemons;
use crate::Plan;
use std::time::{Duration, Instant};

pub fn measure(plan: &Plan, daemons: &mut Daemons, stack: &str, pass: u32) -> Vec<Sheet> {
    let mut sheet = Sheet::new("outage.csv", "pass,stack,server,event,ms");
    let all: Vec<&str> = SERVERS.iter().map(|s| s.name).collect();
    for name in plan.pick(&all, &["redis"]) {
        let server = server(name);
        let address = daemons.run("outage", name);
        if server.first_answer(&address, Instant::now()).is_none() {
            println!("  {name} never answered");
            continue;
        }
        for event in ["crash", "upgrade"] {
            let client = Client::start(server, address.clone());
            std::thread::sleep(Duration::from_millis(300));
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
            server.first_answer(&address, Instant::now());
            std::thread::sleep(Duration::from_millis(1000));
            match client.outage() {
                Some(ms) => sheet.add(&[&pass, &stack, name, &event, &ms]),
                None => println!("  {name} did not come back after the {event}"),
            }
        }
        daemons.sweep();
    }
    vec![sheet]
}
