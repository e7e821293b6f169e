//! The cases. Rates are taken from the counters over the time that really passed, so a slow machine is no error.

use std::os::fd::AsFd;
use std::thread::sleep;
use std::time::{Duration, Instant};

use netlimit::{Cap, Counters, IngressMode, Kind, Limits, Network, Record, DEFAULT_BURST_MS};

use crate::net::{self, host_sender, run, Container};
use crate::{Case, Outcome};

pub const ALL: &[Case] = &[
    ("attach_read_back_detach", attach_read_back_detach),
    ("udp_bytes", udp_bytes),
    ("udp_ingress_v6", udp_ingress_v6),
    ("packets_per_second", packets_per_second),
    ("tcp_cubic_both_ways", tcp_cubic_both_ways),
    ("queue_mode", queue_mode),
    ("small_packets_get_through", small_packets_get_through),
    ("af_packet_is_held", af_packet_is_held),
    ("live_change_and_undo", live_change_and_undo),
    ("new_connections", new_connections),
    ("tags", tags),
    ("beside_others", beside_others),
    ("leaves_nothing", leaves_nothing),
    ("refusals", refusals),
    ("shared_namespace", shared_namespace),
    ("macvlan", macvlan),
    ("v1_tags", v1_tags),
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

/// The rate of `count` over a window of two seconds; the nearest of up to four windows, since a sender that the machine
/// stops for a while leaves a part of the rate unused and then uses up the burst.
fn measured(what: &str, record: &Record, wanted: f64, percent: f64, count: impl Fn(&Counters) -> u64) {
    let mut best = f64::INFINITY;
    for _ in 0..4 {
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

fn mbit(n: u64) -> Cap {
    Cap::At(n * 125_000)
}

/// With `lo` counted or not nothing else differs, so this is "some limit, but none that bites".
fn only_counting() -> Limits {
    Limits { egress_rate: Some(Cap::At(1_000_000_000_000)), ..Limits::default() }
}

fn attach_read_back_detach() -> Outcome {
    let c = Container::wired(Network::Private);
    let limits = Limits {
        egress_rate: Some(Cap::At(1_250_000)),
        egress_burst: Some(Cap::At(50_000)),
        ingress_pps: Some(Cap::At(1000)),
        new_conns: Some(Cap::At(10)),
        classid: Some(0x10010),
        priority: Some([("eth0".to_string(), 5)].into()),
        count_loopback: Some(true),
        ..Limits::default()
    };
    let record = c.limit(&limits);
    assert_eq!(netlimit::current(&record).expect("reads"), limits);
    assert_eq!(record.links.as_ref().map(Vec::len), Some(1));
    // A later process has nothing but the record.
    let text = serde_json::to_string(&record).expect("serialises");
    let again: Record = serde_json::from_str(&text).expect("parses");
    assert_eq!(netlimit::current(&again).expect("reads"), limits);
    netlimit::detach(&again).expect("detaches");
    netlimit::detach(&again).expect("detaches again");
    assert_eq!(netlimit::counters(&record).expect("reads"), None);
    Outcome::Passed
}

/// Twice the rate is sent; the rate passes.
fn udp_bytes() -> Outcome {
    let c = Container::wired(Network::Private);
    for rate in [1, 10, 100] {
        let record = c.limit(&Limits { egress_rate: Some(mbit(rate)), ..Limits::default() });
        let begun = Instant::now();
        let pps = (rate * 125_000 * 2 / 1442).to_string();
        let _sender = c.sender(&["udp", &format!("{}:9", c.host_address()), "1400", &pps, "30"]);
        sleep(Duration::from_secs(1));
        let wanted = (rate * 125_000) as f64;
        measured(&format!("UDP out, {rate} Mbit/s"), &record, wanted, 1.0, |c| c.egress.bytes);
        let b = counters(&record);
        let bound = begun.elapsed().as_millis() as u64 + DEFAULT_BURST_MS;
        assert!(b.egress.bytes <= rate * 125 * bound + SLACK, "the hard bound");
        assert!(b.egress.dropped_packets > 0 && b.egress.throttled_ns > 0);
        netlimit::detach(&record).expect("detaches");
    }
    Outcome::Passed
}

fn udp_ingress_v6() -> Outcome {
    let c = Container::wired(Network::Private);
    let record = c.limit(&Limits { ingress_rate: Some(mbit(20)), ..Limits::default() });
    // Somebody has to listen: the cgroup sees what reaches a socket.
    let _echo = c.sender(&["echo", "[::]:9"]);
    sleep(Duration::from_millis(200));
    let _sender = host_sender(&["udp", &format!("[fd77:{}::2]:9", c.n), "1400", "4000", "30"]);
    sleep(Duration::from_secs(1));
    measured("UDP in over IPv6, 20 Mbit/s", &record, 2_500_000.0, 1.0, |c| c.ingress.bytes);
    netlimit::detach(&record).expect("detaches");
    Outcome::Passed
}

fn packets_per_second() -> Outcome {
    let c = Container::wired(Network::Private);
    for rate in [1000u64, 10_000] {
        let record = c.limit(&Limits { egress_pps: Some(Cap::At(rate)), ..Limits::default() });
        let to = format!("{}:9", c.host_address());
        let _sender = c.sender(&["udp", &to, "100", &(rate * 2).to_string(), "30"]);
        sleep(Duration::from_secs(1));
        measured(&format!("{rate} packets/s"), &record, rate as f64, 0.5, |c| c.egress.packets);
        netlimit::detach(&record).expect("detaches");
    }
    Outcome::Passed
}

/// Megabits per second that iperf3's receiver got, second 2 on.
fn iperf(c: &Container, into: bool, seconds: u32) -> Option<f64> {
    let host = c.host_address();
    let server = std::process::Command::new("iperf3")
        .args(["-s", "-1", "-p", "5301", "-B", &host])
        .stdout(std::process::Stdio::null())
        .spawn()
        .ok()?;
    let _server = net::Background(server);
    sleep(Duration::from_millis(300));
    let mut client = c.command("iperf3");
    client.args(["-c", &host, "-p", "5301", "-C", "cubic", "-J", "-O", "1", "-t", &seconds.to_string()]);
    if into {
        client.arg("-R");
    }
    let out = client.output().ok()?;
    let json: serde_json::Value = serde_json::from_slice(&out.stdout).ok()?;
    json["end"]["sum_received"]["bits_per_second"].as_f64().map(|b| b / 1e6)
}

/// Of 1514 bytes on the wire 1448 are TCP's payload.
const GOODPUT: f64 = 1448.0 / 1514.0;

fn tcp_cubic_both_ways() -> Outcome {
    if !net::has("iperf3") {
        return Outcome::Skipped("iperf3 isn't installed".into());
    }
    let c = Container::wired(Network::Private);
    let begun = Instant::now();
    let record =
        c.limit(&Limits { egress_rate: Some(mbit(100)), ingress_rate: Some(mbit(50)), ..Limits::default() });
    for (into, rate, percent) in [(false, 100.0, 5.0), (true, 50.0, 5.0)] {
        let Some(got) = iperf(&c, into, 4) else { return Outcome::Skipped("iperf3 gave no result".into()) };
        assert_near(if into { "TCP in" } else { "TCP out" }, got, rate * GOODPUT, percent);
    }
    let n = counters(&record);
    let ms = begun.elapsed().as_millis() as u64 + DEFAULT_BURST_MS;
    assert!(n.egress.bytes <= 12_500 * ms + SLACK && n.ingress.bytes <= 6_250 * ms + SLACK, "the hard bound");
    assert_eq!(n.bypass_egress.dropped_packets, 0, "the backstop drops nothing that the cgroup let pass");
    netlimit::detach(&record).expect("detaches");
    Outcome::Passed
}

fn queue_mode() -> Outcome {
    if !net::has("iperf3") {
        return Outcome::Skipped("iperf3 isn't installed".into());
    }
    let c = Container::wired(Network::Private);
    let limits =
        Limits { ingress_rate: Some(mbit(50)), ingress_mode: Some(IngressMode::Queue), ..Limits::default() };
    let mut record = match netlimit::attach(&limits, &c.target()) {
        Ok(record) => record,
        Err(e) => panic!("{e}"),
    };
    match netlimit::attach_links(&mut record, c.netns().as_fd()) {
        Err(e) if e.kind() == Kind::Unsupported => return Outcome::Skipped(e.to_string()),
        r => r.expect("attaches the queue"),
    }
    let Some(got) = iperf(&c, true, 4) else { return Outcome::Skipped("iperf3 gave no result".into()) };
    assert_near("TCP in through the queue", got, 50.0 * GOODPUT, 5.0);
    // Live: the queue is changed, not replaced.
    let change = Limits { ingress_rate: Some(mbit(20)), ..Limits::default() };
    netlimit::update(&mut record, &change, Some(c.netns().as_fd())).expect("updates");
    assert!(run(&format!("tc qdisc show dev h{}", c.n)).contains("rate 20Mbit"));
    netlimit::detach(&record).expect("detaches");
    assert!(!run(&format!("tc qdisc show dev h{}", c.n)).contains("tbf"));
    Outcome::Passed
}

/// A bulk flow at its limit doesn't cost pings and requests.
fn small_packets_get_through() -> Outcome {
    let c = Container::wired(Network::Private);
    let limits = Limits { egress_rate: Some(mbit(20)), ingress_rate: Some(mbit(20)), ..Limits::default() };
    let record = c.limit(&limits);
    let to = format!("{}:9", c.host_address());
    let _sender = c.sender(&["udp", &to, "1400", "4000", "30"]);
    let _echo = host_sender(&["echo", &format!("{}:7", c.host_address())]);
    sleep(Duration::from_secs(1));
    let out = c.sender(&["probe", &format!("{}:7", c.host_address()), "300"]).output();
    let received: u32 = out.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0);
    println!("     under a flood of twice the rate: {} of 300 answered, p50, p99 in us", out.trim());
    assert!(received >= 297);
    netlimit::detach(&record).expect("detaches");
    Outcome::Passed
}

fn af_packet_is_held() -> Outcome {
    let c = Container::wired(Network::Private);
    for mode in ["queued", "bypass"] {
        let begun = Instant::now();
        let record = c.limit(&Limits { egress_rate: Some(mbit(10)), ..Limits::default() });
        let _sender = c.sender(&["packet", "eth0", "1400", "30", mode]);
        sleep(Duration::from_secs(1));
        let what = format!("AF_PACKET, {mode}, 10 Mbit/s");
        measured(&what, &record, 1_250_000.0, 1.0, |c| c.bypass_egress.bytes);
        let b = counters(&record);
        assert!(b.bypass_egress.dropped_packets > 0, "it was a flood");
        // The backstop's bucket is a tenth and one packet deeper.
        let ms = begun.elapsed().as_millis() as u64 + DEFAULT_BURST_MS * 11 / 10;
        assert!(b.bypass_egress.bytes <= 1_250 * ms + 2 * SLACK, "the hard bound");
        netlimit::detach(&record).expect("detaches");
    }
    Outcome::Passed
}

fn live_change_and_undo() -> Outcome {
    let c = Container::wired(Network::Private);
    let mut record = c.limit(&Limits { egress_rate: Some(mbit(10)), ..Limits::default() });
    let to = format!("{}:9", c.host_address());
    let _sender = c.sender(&["udp", &to, "1400", "8000", "60"]);
    sleep(Duration::from_secs(1));
    let change = |cap| Limits { egress_rate: Some(cap), ..Limits::default() };
    let netns = c.netns();
    let undo = netlimit::update(&mut record, &change(mbit(40)), Some(netns.as_fd())).expect("updates");
    measured("40 Mbit/s after 10", &record, 5_000_000.0, 1.0, |c| c.egress.bytes);
    let from = Instant::now();
    let before = counters(&record);
    undo.restore(&mut record, Some(netns.as_fd())).expect("restores");
    measured("back at 10 Mbit/s", &record, 1_250_000.0, 1.0, |c| c.egress.bytes);
    let b = counters(&record);
    let limit = 1_250 * from.elapsed().as_millis() as u64 + 1_250 * DEFAULT_BURST_MS + SLACK;
    assert!(b.egress.bytes - before.egress.bytes <= limit, "the hard bound from the change on");
    assert_eq!(netlimit::current(&record).expect("reads").egress_rate, Some(mbit(10)));
    netlimit::update(&mut record, &change(Cap::Max), Some(netns.as_fd())).expect("lifts");
    let (a, b, _) = over(&record, Duration::from_secs(1));
    assert_eq!(a.egress.dropped_packets, b.egress.dropped_packets, "nothing is dropped without a limit");
    netlimit::detach(&record).expect("detaches");
    Outcome::Passed
}

fn new_connections() -> Outcome {
    let c = Container::wired(Network::Private);
    let limits =
        Limits { new_conns: Some(Cap::At(50)), new_conns_burst: Some(Cap::At(10)), ..Limits::default() };
    let record = c.limit(&limits);
    // Flows of UDP: two datagrams each.
    let sender = c.sender(&["flows", &c.host_address(), "500", "30"]);
    sleep(Duration::from_secs(1));
    measured("new UDP flows per second", &record, 50.0, 3.0, |c| c.new_conns);
    assert!(counters(&record).refused_conns > 0);
    drop(sender);
    // TCP: what the server accepted.
    let _sink = host_sender(&["sink", &format!("{}:5400", c.host_address())]);
    sleep(Duration::from_millis(300));
    let begun = Instant::now();
    let made = c.sender(&["connects", &format!("{}:5400", c.host_address()), "3"]).output();
    let bound = begun.elapsed().as_secs_f64() * 50.0 + 11.0;
    println!("     {} TCP connections in 3 s", made.trim());
    let made: f64 = made.trim().parse().expect("a number");
    assert!(made <= bound && made > 20.0);
    // A server that answers strangers opens no connections.
    let before = counters(&record);
    let _echo = c.sender(&["echo", "0.0.0.0:9"]);
    sleep(Duration::from_millis(300));
    for _ in 0..200 {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").expect("binds");
        socket.set_read_timeout(Some(Duration::from_secs(2))).expect("sets");
        socket.send_to(b"hello", (c.address(), 9)).expect("sends");
        socket.recv(&mut [0; 8]).expect("an answer");
    }
    let after = counters(&record);
    assert!(after.new_conns - before.new_conns < 10, "{before:?} {after:?}");
    netlimit::detach(&record).expect("detaches");
    Outcome::Passed
}

/// The classid shows as priority in the container (HTB picks its class) and as mark on the host.
fn tags() -> Outcome {
    let c = Container::wired(Network::Private);
    let limits = Limits { classid: Some(0x1_0010), ..Limits::default() };
    let record = c.limit(&limits);
    let htb = std::panic::catch_unwind(|| {
        c.inside("tc qdisc add dev eth0 root handle 1: htb default 1");
        c.inside("tc class add dev eth0 parent 1: classid 1:1 htb rate 1gbit");
        c.inside("tc class add dev eth0 parent 1: classid 1:10 htb rate 1gbit");
    });
    if htb.is_err() {
        return Outcome::Skipped("this kernel has no sch_htb".into());
    }
    let n = c.n;
    let seen = std::panic::catch_unwind(|| {
        run(&format!("ip link add i{n} type ifb"));
        run(&format!("ip link set i{n} up"));
        run(&format!("tc qdisc add dev h{n} clsact"));
        let on = format!("tc filter add dev h{n} ingress protocol ip u32 match mark 0x10010 0xffffffff");
        run(&format!("{on} action mirred egress redirect dev i{n}"));
    });
    let to = format!("{}:9", c.host_address());
    c.sender(&["udp", &to, "500", "200", "1"]).output();
    let classes = c.inside("tc -s class show dev eth0");
    let sent = classes.split("class htb 1:10 ").nth(1).and_then(|t| t.split("Sent ").nth(1)).unwrap_or("0 ");
    let sent: u64 = sent.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0);
    assert!(sent > 30_000, "{classes}");
    println!("     {sent} bytes in the container's class 1:10");
    if seen.is_err() {
        return Outcome::Skipped("the kernel has no ifb, u32 or mirred to see the mark with".into());
    }
    let marked = run(&format!("ip -s link show i{n}"));
    let bytes: Vec<u64> = marked.split_whitespace().filter_map(|w| w.parse().ok()).collect();
    assert!(bytes.iter().any(|b| *b >= sent / 2), "the host's filter sees the mark: {marked}");
    netlimit::detach(&record).expect("detaches");
    Outcome::Passed
}

/// A clsact filter, a root qdisc and a program that others put there stay as they are.
fn beside_others() -> Outcome {
    let c = Container::wired(Network::Private);
    let n = c.n;
    run(&format!("tc qdisc add dev h{n} clsact"));
    run(&format!("tc filter add dev h{n} ingress protocol ip pref 7 u32 match u32 0 0 flowid 1:1"));
    run(&format!("tc qdisc add dev h{n} root handle 5: tbf rate 1gbit burst 1mb latency 50ms"));
    let before = (run(&format!("tc qdisc show dev h{n}")), run(&format!("tc filter show dev h{n} ingress")));
    // Somebody else's programs on the same cgroup and device: another set of ours will do.
    let foreign = c.limit(&only_counting());
    let second = Container::new(Network::Private);
    let queue =
        Limits { ingress_rate: Some(mbit(10)), ingress_mode: Some(IngressMode::Queue), ..Limits::default() };
    let mut record = netlimit::attach(&queue, &second.target()).expect("attaches");
    let e = netlimit::attach_links(&mut record, c.netns().as_fd()).expect_err("the root qdisc is taken");
    assert_eq!(e.kind(), Kind::Busy, "{e}");
    println!("     {e}");
    netlimit::detach(&record).expect("detaches");
    assert!(netlimit::counters(&foreign).expect("reads").is_some(), "the other's are still there");
    c.sender(&["udp", &format!("{}:9", c.host_address()), "100", "50", "1"]).output();
    assert!(counters(&foreign).bypass_egress.packets >= 3, "and see packets");
    netlimit::detach(&foreign).expect("detaches");
    let after = (run(&format!("tc qdisc show dev h{n}")), run(&format!("tc filter show dev h{n} ingress")));
    assert_eq!(before, after);
    Outcome::Passed
}

/// Removing the cgroup and the namespace is enough; and a crash before the links were recorded is cleaned up.
fn leaves_nothing() -> Outcome {
    let c = Container::wired(Network::Private);
    let limits = Limits { egress_rate: Some(mbit(10)), ..Limits::default() };
    let planned = Record::planned(&c.target());
    let complete = c.limit(&limits);
    let map = complete.map_id.expect("attached");
    // The process died before it could save what `attach` returned.
    netlimit::detach(&planned).expect("detaches");
    assert_eq!(netlimit::counters(&complete).expect("reads"), None);
    wait_until_gone(map);
    let complete = c.limit(&limits);
    let map = complete.map_id.expect("attached");
    drop(c);
    wait_until_gone(map);
    netlimit::detach(&complete).expect("nothing left to detach");
    Outcome::Passed
}

/// The kernel frees programs and maps after a grace period.
fn wait_until_gone(map_id: u32) {
    for _ in 0..500 {
        if !crate::sys::map_exists(map_id) {
            return;
        }
        sleep(Duration::from_millis(20));
    }
    panic!("the map {map_id} is still there");
}

fn refusals() -> Outcome {
    let c = Container::new(Network::Host);
    let queue = Limits { ingress_mode: Some(IngressMode::Queue), ..Limits::default() };
    let e = netlimit::attach(&queue, &c.target()).expect_err("no queue on the host's network");
    assert_eq!(e.kind(), Kind::Unsupported);
    let prio = Limits { priority: Some([("nosuch0".to_string(), 1)].into()), ..Limits::default() };
    let e = netlimit::attach(&prio, &c.target()).expect_err("no such interface");
    assert_eq!(e.to_string(), "net.priority: the host has no interface nosuch0");
    let rate = Limits { egress_rate: Some(mbit(1)), ..Limits::default() };
    let nowhere = netlimit::Target { cgroup2: None, ..c.target() };
    let e = netlimit::attach(&rate, &nowhere).expect_err("no cgroup2");
    assert!(e.to_string().starts_with("net.egress-rate: no cgroup2 hierarchy"), "{e}");
    // Nothing asked for costs nothing.
    let record = netlimit::attach(&Limits::default(), &c.target()).expect("nothing to do");
    assert_eq!((record.map_id, netlimit::counters(&record).expect("reads")), (None, None));
    Outcome::Passed
}

/// Two containers in one namespace: only the traffic of the limited one is held, on the host's side too.
fn shared_namespace() -> Outcome {
    let pod = Container::wired(Network::Shared);
    let other = Container::new(Network::Shared);
    let record = pod.limit(&Limits { egress_rate: Some(mbit(10)), ..Limits::default() });
    let to = format!("{}:9", pod.host_address());
    let flow = ["udp", &to, "1400", "4000", "30"];
    let (_a, _b) = (pod.sender(&flow), other.sender_in(&pod, &flow));
    let _c = other.sender_in(&pod, &["packet", "eth0", "500", "30", "bypass"]);
    sleep(Duration::from_secs(1));
    // /sys shows the devices of the namespace it was mounted in; /proc/self those of ours.
    let received = || {
        let devices = std::fs::read_to_string("/proc/self/net/dev").expect("reads");
        let name = format!("h{}:", pod.n);
        let words = devices.lines().find_map(|l| l.trim().strip_prefix(&name)).expect("the device");
        words.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).expect("a number")
    };
    let (begun, before) = (Instant::now(), received());
    measured("the limited one", &record, 1_250_000.0, 1.0, |c| c.egress.bytes);
    let both = (received() - before) as f64 / begun.elapsed().as_secs_f64();
    println!("     both together: {both:.0}");
    assert!(both > 4_000_000.0, "the other one isn't held");
    assert_eq!(counters(&record).bypass_egress.dropped_packets, 0);
    netlimit::detach(&record).expect("detaches");
    Outcome::Passed
}

/// A macvlan's AF_PACKET traffic is held at the device below it, and other traffic of that device isn't.
fn macvlan() -> Outcome {
    let c = Container::new(Network::Private);
    let n = c.n;
    run(&format!("ip link add h{n} type veth peer name p{n}"));
    run(&format!("ip link set h{n} up"));
    run(&format!("ip link set p{n} up"));
    if std::panic::catch_unwind(|| run(&format!("ip link add m{n} link p{n} type macvlan mode bridge")))
        .is_err()
    {
        return Outcome::Skipped("the kernel has no macvlan".into());
    }
    run(&format!("ip link set m{n} netns {}", c.pid()));
    c.inside(&format!("ip link set m{n} up"));
    let record = c.limit(&Limits { egress_rate: Some(mbit(10)), ..Limits::default() });
    let links = record.links.clone().expect("looked");
    assert_eq!(links.len(), 1, "{links:?}");
    let _sender = c.sender(&["packet", &format!("m{n}"), "1400", "30", "bypass"]);
    sleep(Duration::from_secs(1));
    measured("AF_PACKET over macvlan", &record, 1_250_000.0, 1.0, |c| c.bypass_egress.bytes);
    assert!(counters(&record).bypass_egress.dropped_packets > 0);
    let before = counters(&record).bypass_egress;
    host_sender(&["packet", &format!("p{n}"), "1400", "1", "queued"]).output();
    let after = counters(&record).bypass_egress;
    let elapsed_bytes = after.bytes - before.bytes;
    assert!(elapsed_bytes < 4 * 1_250_000, "the host's own traffic isn't counted: {elapsed_bytes}");
    netlimit::detach(&record).expect("detaches");
    netlimit::detach(&Record { links: None, ..record }).expect("finds nothing more");
    Outcome::Passed
}

/// net_cls and net_prio, where the kernel still has them.
fn v1_tags() -> Outcome {
    let root = std::env::temp_dir().join(format!("netlimit-v1-{}", std::process::id()));
    std::fs::create_dir_all(&root).expect("a directory");
    let mount = format!("mount -t cgroup -o net_cls,net_prio none {}", root.display());
    // This is a mount namespace of our own.
    if std::panic::catch_unwind(|| run(&mount)).is_err() {
        let _ = std::fs::remove_dir(&root);
        return Outcome::Skipped("net_cls and net_prio can't be mounted".into());
    }
    let dir = root.join(format!("netlimit-test-{}", std::process::id()));
    std::fs::create_dir(&dir).expect("a cgroup");
    let target =
        netlimit::Target { cgroup2: None, net_cls: Some(&dir), net_prio: Some(&dir), network: Network::Host };
    let tags = |classid, lo| Limits {
        classid: Some(classid),
        priority: Some([("lo".to_string(), lo)].into()),
        ..Limits::default()
    };
    let read = |file: &str| std::fs::read_to_string(dir.join(file)).expect("reads");
    let mut record = netlimit::attach(&tags(0x10010, 5), &target).expect("writes");
    assert_eq!(
        (read("net_cls.classid").trim(), read("net_prio.ifpriomap").contains("lo 5")),
        ("65552", true)
    );
    let undo = netlimit::update(&mut record, &tags(0x10020, 6), None).expect("writes");
    assert_eq!(
        (read("net_cls.classid").trim(), read("net_prio.ifpriomap").contains("lo 6")),
        ("65568", true)
    );
    undo.restore(&mut record, None).expect("restores");
    assert_eq!(
        (read("net_cls.classid").trim(), read("net_prio.ifpriomap").contains("lo 5")),
        ("65552", true)
    );
    netlimit::detach(&record).expect("nothing to do");
    std::fs::remove_dir(&dir).expect("empty");
    run(&format!("umount {}", root.display()));
    std::fs::remove_dir(&root).expect("empty");
    Outcome::Passed
}
