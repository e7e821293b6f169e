//! One flow in bins of 100 ms: how much arrives from the start on and once it has settled, and how evenly.

use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

use serde_json::Value;

use crate::bed::{Bed, Job, Place};
use crate::load::Flow;
use crate::methods::Way;

#[derive(Debug, Clone, Copy)]
pub struct Even {
    /// Payload that arrived from the first packet on, in megabits per second.
    pub all_mbit: f64,
    /// The same from second 5 on.
    pub later_mbit: f64,
    /// Of the bins from second 5 on: the standard deviation by the mean.
    pub unevenness_percent: f64,
    pub retransmit_percent: f64,
}

pub fn even(bed: &Bed, flow: Flow) -> Result<Even, String> {
    let (from, to) = match flow.way {
        Way::Out => (Place::Container, Place::Peer),
        Way::In => (Place::Peer, Place::Container),
    };
    let piped = |c: &mut std::process::Command| {
        c.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().map(Job).map_err(|e| e.to_string())
    };
    let server = piped(bed.command(to, "iperf3").args(["-s", "-1", "-J", "-i", "0.1"]))?;
    sleep(Duration::from_millis(200));
    let _ss = std::env::var_os("TRACE").map(|file| {
        let line = r#"while :; do cat /proc/uptime; ss -tinm state established "( dport = :5201 )"; sleep .1; done >"$1""#;
        Job(bed.command(from, "sh").args(["-c", line, "sh"]).arg(file).spawn().expect("starts"))
    });
    let client = piped(
        bed.command(from, "iperf3").args(["-c", Bed::address(to, flow.v6), "-C", "cubic", "-J"]).args([
            "-t",
            &flow.seconds.to_string(),
            "-P",
            &flow.flows.to_string(),
        ]),
    )?;
    let (sent, received) = (client.output(), server.output());
    let parse = |text: &str| serde_json::from_str::<Value>(text).map_err(|e| format!("iperf3: {e}"));
    let (sent, received) = (parse(&sent)?, parse(&received)?);
    if let Some(error) = sent["error"].as_str() {
        return Err(format!("iperf3: {error}"));
    }
    let number = |v: &Value| v.as_f64().unwrap_or(f64::NAN);
    let bins: Vec<(f64, f64, f64)> = received["intervals"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|i| {
            (number(&i["sum"]["start"]), number(&i["sum"]["seconds"]), number(&i["sum"]["bytes"]) * 8.0 / 1e6)
        })
        .filter(|b| b.0 + b.1 <= flow.seconds as f64)
        .collect();
    let mean = |since: f64| {
        let late: Vec<_> = bins.iter().filter(|b| b.0 >= since).collect();
        late.iter().map(|b| b.2).sum::<f64>() / late.iter().map(|b| b.1).sum::<f64>()
    };
    if let Some(file) = std::env::var_os("BINS") {
        let text: String = bins.iter().map(|b| format!("{:.2} {:.1}\n", b.0, b.2 / b.1)).collect();
        std::fs::write(file, text).map_err(|e| e.to_string())?;
    }
    let late: Vec<f64> = bins.iter().filter(|b| b.0 >= 5.0).map(|b| b.2 / b.1).collect();
    let square = late.iter().map(|b| (b - mean(5.0)).powi(2)).sum::<f64>() / late.len() as f64;
    let end = &sent["end"]["sum_sent"];
    let segment = if flow.v6 { 1428.0 } else { 1448.0 };
    Ok(Even {
        all_mbit: mean(0.0),
        later_mbit: mean(5.0),
        unevenness_percent: square.sqrt() / mean(5.0) * 100.0,
        retransmit_percent: number(&end["retransmits"]) / (number(&end["bytes"]) / segment).max(1.0) * 100.0,
    })
}
