//! The comparison as pictures (SVG) and tables.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use crate::methods::ALL;
use crate::table::{markdown, Cells, Csv};

const COLOURS: [&str; 8] =
    ["#888888", "#1f77b4", "#9ecae1", "#2ca02c", "#d62728", "#ff9f1c", "#5e2ca5", "#b39ddb"];
const MBITS: [&str; 5] = ["1", "10", "100", "1000", "max"];

/// How a picture's axis runs.
#[derive(Clone, Copy)]
enum Axis {
    /// From, to; what lies beyond stands at the edge.
    Linear(f64, f64),
    /// From 10^a to 10^b.
    Powers(i32, i32),
}

impl Axis {
    /// 0 at the bottom, 1 at the top.
    fn place(self, value: f64) -> f64 {
        let at = match self {
            Axis::Linear(from, to) => (value - from) / (to - from),
            Axis::Powers(from, to) => (value.max(1e-9).log10() - f64::from(from)) / f64::from(to - from),
        };
        at.clamp(0.0, 1.0)
    }

    fn marks(self) -> Vec<f64> {
        match self {
            Axis::Linear(from, to) => (0..=4).map(|i| from + (to - from) * f64::from(i) / 4.0).collect(),
            Axis::Powers(from, to) => (from..=to).map(|p| 10f64.powi(p)).collect(),
        }
    }
}

/// Two panels, out and in; a group of bars for each key, a bar for each method.
struct Picture<'a> {
    title: &'a str,
    unit: &'a str,
    axis: Axis,
    keys: &'a [&'a str],
    panels: [(&'a str, Cells); 2],
}

const PANEL: f64 = 460.0;
const HEIGHT: f64 = 220.0;

impl Picture<'_> {
    fn draw(&self) -> String {
        let mut s = String::new();
        let _ = write!(
            s,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 1060 330\" font-family=\"sans-serif\" font-size=\"12\">\
             <rect width=\"1060\" height=\"330\" fill=\"white\"/>\
             <text x=\"20\" y=\"22\" font-size=\"15\">{}</text>",
            self.title
        );
        for (i, (name, cells)) in self.panels.iter().enumerate() {
            self.panel(&mut s, 60.0 + i as f64 * (PANEL + 60.0), name, cells);
        }
        for (i, method) in ALL.iter().enumerate() {
            let x = 60.0 + i as f64 * 122.0;
            let _ = write!(
                s,
                "<rect x=\"{x}\" y=\"306\" width=\"12\" height=\"12\" fill=\"{}\"/><text x=\"{}\" y=\"317\">{}</text>",
                COLOURS[i],
                x + 17.0,
                method.name()
            );
        }
        s.push_str("</svg>\n");
        s
    }

    fn panel(&self, s: &mut String, left: f64, name: &str, cells: &Cells) {
        let y = |value: f64| 50.0 + HEIGHT * (1.0 - self.axis.place(value));
        let _ = write!(s, "<text x=\"{left}\" y=\"42\" fill=\"#444\">{name}, {}</text>", self.unit);
        for mark in self.axis.marks() {
            let at = y(mark);
            let _ = write!(
                s,
                "<line x1=\"{left}\" x2=\"{}\" y1=\"{at}\" y2=\"{at}\" stroke=\"#ddd\"/>\
                 <text x=\"{}\" y=\"{}\" text-anchor=\"end\" fill=\"#444\">{}</text>",
                left + PANEL,
                left - 6.0,
                at + 4.0,
                short(mark)
            );
        }
        let zero = match self.axis {
            Axis::Linear(..) => y(0.0),
            Axis::Powers(from, _) => y(10f64.powi(from)),
        };
        let group = PANEL / self.keys.len() as f64;
        let bar = group / (ALL.len() as f64 + 1.5);
        for (k, key) in self.keys.iter().enumerate() {
            let from = left + group * k as f64 + bar;
            for (m, method) in ALL.iter().enumerate() {
                let Some(value) = cells.get(&(method.name().to_string(), key.to_string())) else { continue };
                let (at, x) = (y(*value), from + bar * m as f64);
                let (top, height) = (at.min(zero), (at - zero).abs().max(1.5));
                let _ = write!(
                    s,
                    "<rect x=\"{x:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{height:.1}\" fill=\"{}\">\
                     <title>{} {key}: {value:.3}</title></rect>",
                    bar * 0.9,
                    COLOURS[m],
                    method.name()
                );
            }
            let _ = write!(
                s,
                "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{key}</text>",
                from + bar * ALL.len() as f64 / 2.0,
                50.0 + HEIGHT + 18.0
            );
        }
    }
}

fn short(value: f64) -> String {
    match value {
        v if v >= 1000.0 => format!("{}k", v / 1000.0),
        v if v.fract() == 0.0 => format!("{v}"),
        v => format!("{v:.3}").trim_end_matches('0').to_string(),
    }
}

pub fn main(folder: &Path) {
    let read = |name: &str| Csv::read(&folder.join(name));
    let (tcp, udp, cpu) = (read("tcp.csv"), read("udp.csv"), read("cpu.csv"));
    let save = |name: &str, picture: &Picture| {
        fs::write(folder.join(name), picture.draw()).expect("writes the picture");
    };
    let base = [("family", "ipv4"), ("flows", "1"), ("rtt_ms", "0")];
    let both = |csv: &Csv, filter: &[(&str, &str)], by: &str, column: &str| {
        [("out of the container", "out"), ("into the container", "in")].map(|(name, way)| {
            let filter: Vec<_> = filter.iter().copied().chain([("way", way)]).collect();
            (name, csv.cells(&filter, by, column))
        })
    };
    for (name, title, unit, axis, column) in [
        (
            "tcp-error.svg",
            "TCP goodput against what the rate allows",
            "% by Mbit/s",
            Axis::Linear(-8.0, 8.0),
            "error_percent",
        ),
        (
            "ping-p50.svg",
            "Ping under one saturating flow, median",
            "us by Mbit/s",
            Axis::Powers(1, 7),
            "ping_p50_us",
        ),
        (
            "ping-p99.svg",
            "Ping under one saturating flow, 99th percentile",
            "us by Mbit/s",
            Axis::Powers(1, 7),
            "ping_p99_us",
        ),
        (
            "ask-p99.svg",
            "TCP request and answer under one saturating flow, 99th percentile",
            "us by Mbit/s",
            Axis::Powers(1, 7),
            "ask_p99_us",
        ),
        (
            "retransmits.svg",
            "Retransmitted segments",
            "% by Mbit/s",
            Axis::Linear(0.0, 20.0),
            "retransmit_percent",
        ),
        (
            "first-second.svg",
            "What arrived in the first second, in seconds' worth",
            "by Mbit/s",
            Axis::Powers(-1, 4),
            "first_second",
        ),
    ] {
        save(name, &Picture { title, unit, axis, keys: &MBITS, panels: both(&tcp, &base, "mbit", column) });
    }
    let udp_panels = both(&udp, &[("unit", "bytes"), ("family", "ipv4")], "limit", "error_percent");
    let (limits, title) = (
        ["125000", "1250000", "12500000", "125000000"],
        "UDP at twice the rate: what passed, against the rate",
    );
    let axis = Axis::Linear(-4.0, 12.0);
    save("udp-error.svg", &Picture { title, unit: "% by bytes/s", axis, keys: &limits, panels: udp_panels });
    let packets = ["1000", "10000", "100000"];
    let panels = both(&udp, &[("unit", "packets")], "limit", "error_percent");
    let title = "Packets at twice the limit: what passed, against the limit";
    save(
        "pps-error.svg",
        &Picture { title, unit: "% by packets/s", axis: Axis::Linear(-4.0, 4.0), keys: &packets, panels },
    );
    let panels = both(&cpu, &[], "bytes", "ns_per_packet");
    let title = "One processor's time for a datagram, container to peer, under a limit that doesn't bite";
    save(
        "cpu.svg",
        &Picture { title, unit: "ns by bytes", axis: Axis::Linear(0.0, 8000.0), keys: &["1400"], panels },
    );
    tables(&tcp, &udp, &cpu);
    println!("| call | microseconds |\n|---|---|");
    for (what, time) in read("attach.csv").medians("what", "microseconds") {
        println!("| {what} | {time:.0} |");
    }
}

fn tables(tcp: &Csv, udp: &Csv, cpu: &Csv) {
    let methods: Vec<&str> = ALL.iter().map(|m| m.name()).collect();
    let percent = |n: f64| format!("{n:+.1}");
    let plain = |n: f64| format!("{n:.2}");
    let time = |n: f64| match n {
        0.0 => "no answer".into(),
        n if n >= 1000.0 => format!("{:.1} ms", n / 1000.0),
        n => format!("{n:.0} us"),
    };
    for (family, flows, rtt) in [
        ("ipv4", "1", "0"),
        ("ipv4", "16", "0"),
        ("ipv6", "1", "0"),
        ("ipv4", "1", "20"),
        ("ipv4", "1", "100"),
    ] {
        let whole = (family, flows, rtt) == ("ipv4", "1", "0");
        for way in ["out", "in"] {
            let filter = [("family", family), ("flows", flows), ("rtt_ms", rtt), ("way", way)];
            let keys = ["1", "10", "50", "100", "1000", "max"];
            let plural = if flows == "1" { "" } else { "s" };
            if tcp.cells(&filter, "mbit", "goodput_mbit").is_empty() {
                continue;
            }
            println!("### TCP {way}, {family}, {flows} flow{plural}, round trip {rtt} ms\n");
            let table = |title: &str, column: &str, show: &dyn Fn(f64) -> String| {
                markdown(title, &tcp.cells(&filter, "mbit", column), &methods, &keys, show);
            };
            table("goodput error, %", "error_percent", &percent);
            table("retransmits, %", "retransmit_percent", &plain);
            if whole {
                table("ping p50", "ping_p50_us", &time);
            }
            table("ping p99", "ping_p99_us", &time);
            table("request p99", "ask_p99_us", &time);
            if whole {
                table("ping lost, %", "ping_lost_percent", &plain);
                table("request lost, %", "ask_lost_percent", &plain);
                table("first second", "first_second", &plain);
                table("iperf3's CPU, ns/packet", "cpu_ns_per_packet", &|n| format!("{n:.0}"));
            }
        }
    }
    let limits = ["125000", "1250000", "12500000", "125000000", "1000", "10000", "100000"];
    for (unit, family) in [("bytes", "ipv4"), ("bytes", "ipv6"), ("packets", "ipv4")] {
        for way in ["out", "in"] {
            let cells =
                udp.cells(&[("unit", unit), ("family", family), ("way", way)], "limit", "error_percent");
            markdown(&format!("{unit}/s {way}, {family}, error %"), &cells, &methods, &limits, |n| {
                format!("{n:+.2}")
            });
        }
    }
    for way in ["out", "in"] {
        let cells = cpu.cells(&[("way", way)], "bytes", "ns_per_packet");
        markdown(&format!("ns per datagram {way}"), &cells, &methods, &["1400"], |n| format!("{n:.0}"));
    }
}
