//! Traffic, and what came of it.

use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::bed::{Bed, Job, Place};
use crate::methods::Way;

/// What one probe saw.
#[derive(Debug, Clone, Copy, Default)]
pub struct Probe {
    pub p50: f64,
    pub p99: f64,
    pub lost_percent: f64,
}

impl Probe {
    fn parse(text: &str) -> Option<Probe> {
        let mut n = text.split_whitespace().map(|w| w.parse::<f64>());
        let (sent, lost, p50, p99) = (n.next()?.ok()?, n.next()?.ok()?, n.next()?.ok()?, n.next()?.ok()?);
        Some(Probe { p50, p99, lost_percent: lost / sent.max(1.0) * 100.0 })
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Tcp {
    pub goodput_mbit: f64,
    pub retransmit_percent: f64,
    /// Payload that arrived in the very first second, in megabits.
    pub first_second_mbit: f64,
    /// Of iperf3's two processes.
    pub cpu_ns_per_packet: f64,
    pub ping: Probe,
    pub ask: Probe,
}

/// How TCP is asked to run.
#[derive(Debug, Clone, Copy)]
pub struct Flow {
    pub way: Way,
    pub v6: bool,
    pub flows: u32,
    /// Left out at the beginning, and measured then.
    pub omit: u64,
    pub seconds: u64,
    /// Of each kind, a second.
    pub probes: u64,
}

impl Flow {
    /// Of the bytes of a full packet on the wire those that are payload.
    pub fn share(&self) -> f64 {
        if self.v6 {
            1428.0 / 1514.0
        } else {
            1448.0 / 1514.0
        }
    }

    /// Bits per second that the probes take in each direction, at most.
    pub fn probe_bits(&self) -> f64 {
        let headers = if self.v6 { 20.0 } else { 0.0 };
        self.probes as f64 * 8.0 * ((98.0 + headers) + (130.0 + headers))
    }
}

/// iperf3 with cubic, and probes at the same time.
pub fn tcp(bed: &Bed, flow: Flow) -> Result<Tcp, String> {
    let (from, to) = match flow.way {
        Way::Out => (Place::Container, Place::Peer),
        Way::In => (Place::Peer, Place::Container),
    };
    let mut server = bed.command(to, "iperf3");
    let server = Job(server
        .args(["-s", "-1", "-J"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| e.to_string())?);
    let peer = Bed::address(Place::Peer, flow.v6);
    let at = if flow.v6 { format!("[{peer}]:7") } else { format!("{peer}:7") };
    let _answer = bed.agent(Place::Peer, &["answer", &at]);
    sleep(Duration::from_millis(200));
    let mut client = bed.command(from, "iperf3");
    client.args(["-c", Bed::address(to, flow.v6), "-C", "cubic", "-J", "--get-server-output"]);
    client.args([
        "-O",
        &flow.omit.to_string(),
        "-t",
        &flow.seconds.to_string(),
        "-P",
        &flow.flows.to_string(),
    ]);
    let client =
        Job(client.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(|e| e.to_string())?);
    sleep(Duration::from_millis(flow.omit * 1000));
    let (probes, seconds) = (flow.probes.to_string(), flow.seconds.to_string());
    let ping = bed.agent(Place::Container, &["ping", peer, &probes, &seconds]);
    let ask = bed.agent(Place::Container, &["ask", &at, &probes, &seconds]);
    let (ping, ask) = (ping.output(), ask.output());
    let text = client.output();
    drop(server);
    let json: Value = serde_json::from_str(&text).map_err(|e| format!("iperf3: {e}"))?;
    if let Some(error) = json["error"].as_str() {
        return Err(format!("iperf3: {error}"));
    }
    let number = |v: &Value| v.as_f64().unwrap_or(f64::NAN);
    let end = &json["end"];
    let bits = number(&end["sum_received"]["bits_per_second"]);
    let segment = if flow.v6 { 1428.0 } else { 1448.0 };
    let packets = number(&end["sum_sent"]["bytes"]) / segment;
    let cpu = &end["cpu_utilization_percent"];
    let percent = number(&cpu["host_total"]) + number(&cpu["remote_total"]);
    let all = (flow.omit + flow.seconds) as f64;
    let every = json["intervals"].as_array().cloned().unwrap_or_default();
    let total: f64 = every.iter().map(|i| number(&i["sum"]["bytes"])).sum();
    Ok(Tcp {
        goodput_mbit: bits / 1e6,
        retransmit_percent: number(&end["sum_sent"]["retransmits"]) / packets.max(1.0) * 100.0,
        first_second_mbit: number(&json["server_output_json"]["intervals"][0]["sum"]["bytes"]) * 8.0 / 1e6,
        cpu_ns_per_packet: percent / 100.0 * all * 1e9 / (total / segment).max(1.0),
        ping: Probe::parse(&ping).ok_or("ping said nothing")?,
        ask: Probe::parse(&ask).ok_or("ask said nothing")?,
    })
}

/// Datagrams that reached the receiver's socket so far, whether it was quick enough to read them or not.
fn delivered(bed: &Bed, place: Place, v6: bool) -> u64 {
    let pid = bed.pid(place);
    if v6 {
        let text = std::fs::read_to_string(format!("/proc/{pid}/net/snmp6")).unwrap_or_default();
        let of = |name: &str| {
            let line = text.lines().find(|l| l.split_whitespace().next() == Some(name));
            line.and_then(|l| l.split_whitespace().nth(1)?.parse::<u64>().ok()).unwrap_or(0)
        };
        return of("Udp6InDatagrams") + of("Udp6RcvbufErrors");
    }
    let text = std::fs::read_to_string(format!("/proc/{pid}/net/snmp")).unwrap_or_default();
    let mut lines = text.lines().filter(|l| l.starts_with("Udp:"));
    let (names, values) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let all: Vec<(&str, u64)> =
        names.split_whitespace().zip(values.split_whitespace().map(|v| v.parse().unwrap_or(0))).collect();
    let of = |name: &str| all.iter().find(|(n, _)| *n == name).map_or(0, |(_, v)| *v);
    of("InDatagrams") + of("RcvbufErrors")
}

/// Datagrams per second that arrive when `per_second` of `size` bytes are sent. Many are sent in bunches: one by one they
/// would overflow the kernel's queue between two devices (netdev_max_backlog) long before a limit of this size bites.
pub fn udp(bed: &Bed, way: Way, v6: bool, size: usize, per_second: u64, window: Duration) -> f64 {
    let (from, to) = match way {
        Way::Out => (Place::Container, Place::Peer),
        Way::In => (Place::Peer, Place::Container),
    };
    let address = Bed::address(to, v6);
    let at = if v6 { format!("[{address}]:9") } else { format!("{address}:9") };
    let _sink = bed.agent(to, &["sink", &at]);
    sleep(Duration::from_millis(200));
    let together = if per_second > 50_000 { "40" } else { "1" };
    let _sender = bed.agent(from, &["udp", &at, &size.to_string(), &per_second.to_string(), "60", together]);
    sleep(Duration::from_millis(1200));
    let (before, begun) = (delivered(bed, to, v6), Instant::now());
    sleep(window);
    let elapsed = begun.elapsed().as_secs_f64();
    (delivered(bed, to, v6) - before) as f64 / elapsed
}

/// Nanoseconds of one processor for a datagram from container to peer or back, all of the way.
pub fn cpu(bed: &Bed, way: Way, size: usize, count: u64) -> Result<f64, String> {
    let (from, to) = match way {
        Way::Out => (Place::Container, Place::Peer),
        Way::In => (Place::Peer, Place::Container),
    };
    let at = format!("{}:9", Bed::address(to, false));
    let _deaf = bed.agent(to, &["deaf", &at]);
    sleep(Duration::from_millis(100));
    let out = bed.agent(from, &["cpu", &at, &size.to_string(), &count.to_string()]).output();
    out.trim().parse().map_err(|_| format!("cpu said {out:?}"))
}
