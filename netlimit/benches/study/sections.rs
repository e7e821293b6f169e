//! What is measured, in which order.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use netlimit::{Cap, Limits, Network, Target};

use crate::bed::{attempt, cgroup2, Bed};
use crate::even;
use crate::load::{self, Flow};
use crate::methods::{Limit, Method, Way, ALL};

pub fn folder() -> PathBuf {
    std::env::var_os("OUT").map_or_else(|| "docs/figures/net".into(), PathBuf::from)
}

fn quick() -> bool {
    std::env::var_os("QUICK").is_some_and(|v| v != "0" && !v.is_empty())
}

/// Why nothing can be measured here.
pub fn lacking() -> Option<String> {
    for tool in ["iperf3", "tc", "nft", "ip", "nsenter", "sysctl"] {
        if attempt(&format!("which {tool}")).is_err() {
            return Some(format!("{tool} isn't installed"));
        }
    }
    cgroup2().is_none().then(|| "no cgroup2 hierarchy is mounted".into())
}

/// Cells that are measured one after the other, one for every method, so that they share the machine's mood.
#[derive(Debug, Clone, Copy)]
enum Group {
    /// `mbit` 0: as much as the machine does. `round_trip` in milliseconds, 0: a veth.
    Tcp {
        round_trip: u64,
        way: Way,
        mbit: u64,
        v6: bool,
        flows: u32,
    },
    /// One flow for long, without probes.
    Even {
        round_trip: u64,
        way: Way,
        mbit: u64,
        flows: u32,
    },
    Udp {
        way: Way,
        v6: bool,
        limit: Limit,
    },
    Cpu {
        way: Way,
    },
    Attach,
}

impl Group {
    fn name(&self) -> String {
        let family = |v6: bool| if v6 { "ipv6" } else { "ipv4" };
        match self {
            Group::Tcp { round_trip, way, mbit, v6, flows } => {
                format!("tcp/{}/{mbit}Mbit/{}/{flows}flows/{round_trip}ms", way.name(), family(*v6))
            }
            Group::Even { round_trip, way, mbit, flows } => {
                format!("even/{}/{mbit}Mbit/{flows}flows/{round_trip}ms", way.name())
            }
            Group::Udp { way, v6, limit: Limit::Mbit(n) } => {
                format!("udp/{}/{n}Mbit/{}", way.name(), family(*v6))
            }
            Group::Udp { way, v6, limit: Limit::Packets(n) } => {
                format!("pps/{}/{n}/{}", way.name(), family(*v6))
            }
            Group::Cpu { way } => format!("cpu/{}", way.name()),
            Group::Attach => "attach".into(),
        }
    }

    fn file(&self) -> (&'static str, &'static str) {
        match self {
            Group::Tcp { .. } => (
                "tcp.csv",
                "round,method,way,mbit,family,flows,rtt_ms,goodput_mbit,error_percent,retransmit_percent,first_second,\
                 ping_p50_us,ping_p99_us,ping_lost_percent,ask_p50_us,ask_p99_us,ask_lost_percent,cpu_ns_per_packet",
            ),
            Group::Even { .. } => (
                "even.csv",
                "round,method,way,mbit,flows,rtt_ms,all_percent,later_percent,unevenness_percent,retransmit_percent",
            ),
            Group::Udp { .. } => ("udp.csv", "round,method,way,family,unit,limit,got,error_percent"),
            Group::Cpu { .. } => ("cpu.csv", "round,method,way,bytes,ns_per_packet"),
            Group::Attach => ("attach.csv", "round,what,microseconds"),
        }
    }
}

/// Round trip, megabits per second, flows.
const EVEN: &[(u64, u64, u32)] = &[
    (0, 100, 1),
    (100, 50, 1),
    (20, 50, 1),
    (20, 10, 1),
    (100, 10, 1),
    (0, 10, 1),
    (0, 100, 16),
    (0, 1000, 1),
];

fn groups() -> Vec<Group> {
    let (ways, full) = ([Way::Out, Way::In], !quick());
    let mut all = Vec::new();
    let mut tcp = |round_trip, mbits: &[u64], v6, flows| {
        for mbit in mbits {
            all.extend(ways.map(|way| Group::Tcp { round_trip, way, mbit: *mbit, v6, flows }));
        }
    };
    tcp(0, if full { &[1, 10, 100, 1000, 0] } else { &[10, 1000] }, false, 1);
    tcp(0, if full { &[10, 100, 1000] } else { &[100] }, false, 16);
    tcp(0, if full { &[10, 100, 1000] } else { &[100] }, true, 1);
    for round_trip in if full { &[20, 100][..] } else { &[20][..] } {
        tcp(*round_trip, if full { &[10, 50] } else { &[50] }, false, 1);
    }
    for (round_trip, mbit, flows) in if full { EVEN } else { &EVEN[..2] } {
        all.extend(ways.map(|way| Group::Even { round_trip: *round_trip, way, mbit: *mbit, flows: *flows }));
    }
    let mut udp = |limit, v6| all.extend(ways.map(|way| Group::Udp { way, v6, limit }));
    for mbit in if full { &[1, 10, 100, 1000][..] } else { &[100][..] } {
        udp(Limit::Mbit(*mbit), false);
    }
    udp(Limit::Mbit(100), true);
    for pps in if full { &[1000, 10_000, 100_000][..] } else { &[10_000][..] } {
        udp(Limit::Packets(*pps), false);
    }
    all.extend(ways.map(|way| Group::Cpu { way }));
    all.push(Group::Attach);
    all
}

/// Measures the groups whose names contain one of the words (all, if there are none), as often as ROUNDS says.
pub fn main(words: &[String]) {
    let rounds =
        std::env::var("ROUNDS").ok().and_then(|r| r.parse().ok()).unwrap_or(if quick() { 1 } else { 3 });
    let wanted: Vec<Group> = groups()
        .into_iter()
        .filter(|g| words.is_empty() || words.iter().any(|w| g.name().contains(w.as_str())))
        .collect();
    fs::create_dir_all(folder()).expect("a folder for the results");
    if std::env::var_os("APPEND").is_none() {
        wanted.iter().for_each(|g| drop(fs::remove_file(folder().join(g.file().0))));
    }
    let begun = Instant::now();
    for round in 0..rounds {
        for group in &wanted {
            println!("== {} (round {}, {:.0} s)", group.name(), round + 1, begun.elapsed().as_secs_f64());
            measure(group, round);
        }
    }
}

fn note(group: &Group, row: &str) {
    let (file, head) = group.file();
    let path = folder().join(file);
    let fresh = !path.exists();
    let mut file = OpenOptions::new().append(true).create(true).open(&path).expect("the result's file");
    let head = if fresh { format!("{head}\n") } else { String::new() };
    writeln!(file, "{head}{row}").expect("writes");
    println!("   {row}");
}

fn measure(group: &Group, round: usize) {
    // Each round begins with another method; `none` first, since it says how much the machine does.
    let mut methods = ALL[1..].to_vec();
    let len = methods.len();
    methods.rotate_left(round * 3 % len);
    methods.insert(0, Method::Free);
    if let Ok(only) = std::env::var("METHODS") {
        methods.retain(|m| only.split(',').any(|name| name == m.name()));
    }
    match *group {
        Group::Tcp { round_trip, way, mbit, v6, flows } => {
            let bed = Bed::new(round_trip);
            let cell = Cell { group, bed: &bed, round, flow: flow(round_trip, way, mbit, v6, flows) };
            cell.tcp(&methods, mbit);
        }
        Group::Even { round_trip, way, mbit, flows } => {
            let bed = Bed::new(round_trip);
            let seconds = std::env::var("SECONDS_EACH")
                .ok()
                .and_then(|s| s.parse().ok())
                .unwrap_or(if quick() { 10 } else { 25 });
            let flow = Flow { way, v6: false, flows, omit: 0, seconds, probes: 0 };
            let cell = Cell { group, bed: &bed, round, flow };
            cell.even(&methods, mbit);
        }
        Group::Udp { way, v6, limit } => udp(group, round, &methods, way, v6, limit),
        Group::Cpu { way } => cpu(group, round, &methods, way),
        Group::Attach => attach(group, round),
    }
}

fn flow(round_trip: u64, way: Way, mbit: u64, v6: bool, flows: u32) -> Flow {
    // Slow start takes its time where the path is long.
    let (omit, seconds) = match (round_trip, mbit) {
        (0, 1) => (2, 8),
        (0, _) => (2, if quick() { 2 } else { 6 }),
        _ => (4, if quick() { 4 } else { 8 }),
    };
    let probes = match mbit {
        1 => 10,
        2..=10 => 50,
        _ => 100,
    };
    Flow { way, v6, flows, omit, seconds, probes }
}

struct Cell<'a> {
    group: &'a Group,
    bed: &'a Bed,
    round: usize,
    flow: Flow,
}

impl Cell<'_> {
    fn even(&self, methods: &[Method], mbit: u64) {
        let Group::Even { round_trip, way, flows, .. } = *self.group else { return };
        for method in methods.iter().filter(|m| **m != Method::Free && m.can(way, Limit::Mbit(1))) {
            let got = method
                .apply(self.bed, way, Limit::Mbit(mbit))
                .and_then(|_limit| even::even(self.bed, self.flow));
            match got {
                Ok(e) => {
                    let percent = |got: f64| got / (mbit as f64 * self.flow.share()) * 100.0;
                    let row = format!(
                        "{},{},{},{mbit},{flows},{round_trip},{:.1},{:.1},{:.1},{:.3}",
                        self.round,
                        method.name(),
                        way.name(),
                        percent(e.all_mbit),
                        percent(e.later_mbit),
                        e.unevenness_percent,
                        e.retransmit_percent,
                    );
                    note(self.group, &row);
                }
                Err(e) => println!("   {}: {e}", method.name()),
            }
        }
    }

    fn tcp(&self, methods: &[Method], mbit: u64) {
        let mut rate = mbit;
        for method in methods.iter().filter(|m| m.can(self.flow.way, Limit::Mbit(1))) {
            let got = method
                .apply(self.bed, self.flow.way, Limit::Mbit(rate))
                .and_then(|_limit| load::tcp(self.bed, self.flow));
            match got {
                Ok(tcp) => {
                    if *method == Method::Free && rate == 0 {
                        // Half of what goes through, so that it is the limit which limits.
                        rate = (tcp.goodput_mbit * 0.5 / 100.0) as u64 * 100;
                    }
                    self.note(*method, mbit, rate, &tcp);
                }
                Err(e) => println!("   {}: {e}", method.name()),
            }
        }
    }

    fn note(&self, method: Method, asked: u64, rate: u64, t: &load::Tcp) {
        let Group::Tcp { round_trip, .. } = *self.group else { return };
        let f = &self.flow;
        let allowed = (rate as f64 - f.probe_bits() / 1e6) * f.share();
        let error = if method == Method::Free { f64::NAN } else { (t.goodput_mbit / allowed - 1.0) * 100.0 };
        let label = if asked == 0 { format!("max={rate}") } else { rate.to_string() };
        let row = format!(
            "{},{},{},{label},{},{},{round_trip},{:.3},{error:.2},{:.3},{:.2},{},{},{:.2},{},{},{:.2},{:.0}",
            self.round,
            method.name(),
            f.way.name(),
            if f.v6 { "ipv6" } else { "ipv4" },
            f.flows,
            t.goodput_mbit,
            t.retransmit_percent,
            t.first_second_mbit / (rate as f64 * f.share()),
            t.ping.p50,
            t.ping.p99,
            t.ping.lost_percent,
            t.ask.p50,
            t.ask.p99,
            t.ask.lost_percent,
            t.cpu_ns_per_packet,
        );
        note(self.group, &row);
    }
}

fn udp(group: &Group, round: usize, methods: &[Method], way: Way, v6: bool, limit: Limit) {
    let bed = Bed::new(0);
    let head = if v6 { 62 } else { 42 };
    let (unit, wanted, size) = match limit {
        Limit::Mbit(n) => ("bytes", (n * 125_000) as f64, 1400),
        Limit::Packets(n) => ("packets", n as f64, 100),
    };
    let each = if unit == "bytes" { (size + head) as f64 } else { 1.0 };
    let offered = (wanted / each * 2.0) as u64;
    for method in methods.iter().filter(|m| **m != Method::Free && m.can(way, limit)) {
        match method.apply(&bed, way, limit) {
            Ok(_limit) => {
                let window = Duration::from_secs(if quick() { 1 } else { 2 });
                let got = load::udp(&bed, way, v6, size, offered, window) * each;
                let error = (got / wanted - 1.0) * 100.0;
                let family = if v6 { "ipv6" } else { "ipv4" };
                let (name, way) = (method.name(), way.name());
                note(group, &format!("{round},{name},{way},{family},{unit},{wanted},{got:.0},{error:.3}"));
            }
            Err(e) => println!("   {}: {e}", method.name()),
        }
    }
}

/// A limit that never bites: what its presence costs.
fn cpu(group: &Group, round: usize, methods: &[Method], way: Way) {
    let bed = Bed::new(0);
    for turn in 0..if quick() { 1 } else { 3 } {
        for method in methods.iter().filter(|m| m.can(way, Limit::Mbit(1)) && **m != Method::Cni) {
            match method
                .apply(&bed, way, Limit::Mbit(20_000))
                .and_then(|_limit| load::cpu(&bed, way, 1400, 100_000))
            {
                Ok(ns) => {
                    note(
                        group,
                        &format!("{},{},{},1400,{ns:.0}", round * 3 + turn, method.name(), way.name()),
                    );
                }
                Err(e) => println!("   {}: {e}", method.name()),
            }
        }
    }
}

/// What the calls take that `create`, `start`, `update` and `delete` make.
fn attach(group: &Group, round: usize) {
    let bed = Bed::new(0);
    let limits = Limits {
        egress_rate: Some(Cap::At(1 << 30)),
        ingress_rate: Some(Cap::At(1 << 30)),
        ..Limits::default()
    };
    let target =
        Target { cgroup2: Some(&bed.cgroup), net_cls: None, net_prio: None, network: Network::Private };
    for _ in 0..if quick() { 3 } else { 10 } {
        let tell = |what: &str, begun: Instant| {
            note(group, &format!("{round},{what},{:.0}", begun.elapsed().as_secs_f64() * 1e6));
        };
        let begun = Instant::now();
        let mut record = netlimit::attach(&limits, &target).expect("attaches");
        tell("cgroup", begun);
        let netns = bed.netns();
        let begun = Instant::now();
        netlimit::attach_links(&mut record, netns.as_fd()).expect("attaches");
        tell("veth", begun);
        let begun = Instant::now();
        netlimit::attach_links(&mut record, netns.as_fd()).expect("attaches");
        tell("veth, again", begun);
        let begun = Instant::now();
        let change = Limits { egress_rate: Some(Cap::At(1 << 29)), ..Limits::default() };
        netlimit::update(&mut record, &change, Some(netns.as_fd())).expect("updates");
        tell("change", begun);
        let begun = Instant::now();
        netlimit::counters(&record).expect("reads");
        tell("counters", begun);
        let begun = Instant::now();
        netlimit::detach(&record).expect("detaches");
        tell("detach", begun);
    }
}
