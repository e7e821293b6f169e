//! The cases. Rates are taken from the counters over the time that really passed, so a slow machine is no error.

mod life;
mod places;
mod rates;

use std::os::fd::AsFd;
use std::thread::sleep;
use std::time::{Duration, Instant};

use netlimit::{Cap, Counters, IngressMode, Kind, Limits, Link, LinkKind, Network, Record, DEFAULT_BURST_MS};

use crate::net::{self, host_sender, run, Container};
use crate::{Case, Outcome};

pub const ALL: &[Case] = &[
    ("attach_read_back_detach", life::attach_read_back_detach),
    ("udp_bytes", rates::udp_bytes),
    ("udp_ingress_v6", rates::udp_ingress_v6),
    ("packets_per_second", rates::packets_per_second),
    ("tcp_cubic_both_ways", rates::tcp_cubic_both_ways),
    ("tcp_is_spread", rates::tcp_is_spread),
    ("older_connections_are_spread", rates::older_connections_are_spread),
    ("queue_mode", rates::queue_mode),
    ("small_packets_get_through", rates::small_packets_get_through),
    ("af_packet_is_held", places::af_packet_is_held),
    ("live_change_and_undo", life::live_change_and_undo),
    ("new_connections", rates::new_connections),
    ("tags", places::tags),
    ("tags_of_older_sockets", places::tags_of_older_sockets),
    ("beside_others", places::beside_others),
    ("leaves_nothing", life::leaves_nothing),
    ("refusals", life::refusals),
    ("shared_namespace", places::shared_namespace),
    ("macvlan", places::macvlan),
    ("devices_that_were_left", places::devices_that_were_left),
    ("answers_of_the_kernel", places::answers_of_the_kernel),
    ("extension_headers", rates::extension_headers),
    ("v1_tags", places::v1_tags),
    ("clsact", places::clsact),
    ("features_come_live", life::features_come_live),
    ("nft_sees_the_mark", places::nft_sees_the_mark),
    ("updates_lose_no_packet", life::updates_lose_no_packet),
];

const SLACK: u64 = 65_536;

fn counters(record: &Record) -> Counters {
    netlimit::counters(record).expect("reads").expect("is attached")
}

/// Two readings, so far apart.
fn over(record: &Record, time: Duration) -> (Counters, Counters, f64) {
    let (a, begun) = (counters(record), Instant::now());
    sleep(time);
    let elapsed = begun.elapsed();
    (a, counters(record), elapsed.as_secs_f64())
}

/// The rate of `count` over a window of two seconds; the nearest of up to twelve windows, since a sender that the machine
/// stops for a while leaves a part of the rate unused and then uses up the burst.
fn measured(what: &str, record: &Record, wanted: f64, percent: f64, count: impl Fn(&Counters) -> u64) {
    let mut best = f64::INFINITY;
    for _ in 0..12 {
        let (a, b, t) = over(record, Duration::from_secs(2));
        let got = (count(&b) - count(&a)) as f64 / t;
        if (got - wanted).abs() < (best - wanted).abs() {
            best = got;
        }
        if (best / wanted - 1.0).abs() * 100.0 <= percent {
            break;
        }
    }
    assert_near(what, best, wanted, percent);
}

fn assert_near(what: &str, got: f64, wanted: f64, percent: f64) {
    let error = (got / wanted - 1.0) * 100.0;
    println!("     {what}: {got:.0} of {wanted:.0} ({error:+.2} %)");
    assert!(error.abs() <= percent, "{what}: off by more than {percent} %");
}

/// What a device of the host's has received. /sys shows the devices of the namespace it was mounted in; /proc/self those of
/// ours.
fn device_bytes(device: &str) -> u64 {
    let devices = std::fs::read_to_string("/proc/self/net/dev").expect("reads");
    let line =
        devices.lines().find_map(|l| l.trim().strip_prefix(&format!("{device}:"))).expect("the device");
    line.split_whitespace().next().and_then(|n| n.parse().ok()).expect("a number")
}

fn mbit(n: u64) -> Cap {
    Cap::At(n * 125_000)
}

/// With `lo` counted or not nothing else differs, so this is "some limit, but none that bites".
fn only_counting() -> Limits {
    Limits { egress_rate: Some(Cap::At(1_000_000_000_000)), ..Limits::default() }
}
