//! Rates, measured: bytes, packets, connections, TCP.

use super::*;

/// Twice the rate is sent; the rate passes.
pub fn udp_bytes() -> Outcome {
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

pub fn udp_ingress_v6() -> Outcome {
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

pub fn packets_per_second() -> Outcome {
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

pub fn tcp_cubic_both_ways() -> Outcome {
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

/// One flow out of the container goes out evenly: it isn't 200 ms of silence between bursts.
pub fn tcp_is_spread() -> Outcome {
    let c = Container::wired(Network::Private);
    let record = c.limit(&Limits { egress_rate: Some(mbit(40)), ..Limits::default() });
    let to = format!("{}:5302", c.host_address());
    let _receiver = host_sender(&["receive", &to]);
    sleep(Duration::from_millis(300));
    let _sender = c.sender(&["tcp", &to, "300"]);
    sleep(Duration::from_secs(1));
    spread(&record, "a connection");
    netlimit::detach(&record).expect("detaches");
    Outcome::Passed
}

/// What comes out at 40 Mbit/s is spread. Without pacing nearly half of the looks saw nothing. A machine that stops for a while
/// can silence some: the best of some rounds counts.
fn spread(record: &Record, what: &str) {
    let mut least = 100;
    for _ in 0..10 {
        let mut silent = 0;
        for _ in 0..40 {
            let before = counters(record).egress.bytes;
            sleep(Duration::from_millis(50));
            silent += u32::from(counters(record).egress.bytes - before < 5_000_000 / 20 / 20);
        }
        least = least.min(silent);
        if least <= 8 {
            break;
        }
    }
    println!("     {what}: {least} of 40 looks of 50 ms saw nothing");
    assert!(least <= 8, "{what}: {least} of 40 looks of 50 ms saw nothing");
}

/// Connections that were there before the first limit are paced like those made later, and follow every change.
pub fn older_connections_are_spread() -> Outcome {
    let c = Container::wired(Network::Private);
    let netns = c.netns();
    let to = format!("{}:5303", c.host_address());
    let _receiver = host_sender(&["receive", &to]);
    sleep(Duration::from_millis(300));
    let older = c.sender(&["tcp", &to, "300"]);
    sleep(Duration::from_secs(1));
    let mut record = netlimit::attach(&Limits::default(), &c.target()).expect("nothing to do");
    let change = |cap| Limits { egress_rate: Some(cap), ..Limits::default() };
    let mut update =
        |cap| netlimit::update(&mut record, &change(cap), Some(netns.as_fd())).map(|_| record.clone());
    let limited = update(mbit(40)).expect("updates");
    sleep(Duration::from_secs(1));
    let before = segments(&c);
    spread(&limited, "an older connection");
    let after = segments(&c);
    let (sent, again) = (after.0 - before.0, after.1 - before.1);
    println!("     {again} of {sent} segments sent again");
    // The pace of the limit doesn't stay without it.
    update(Cap::Max).expect("lifts");
    let mut best = 0.0f64;
    for _ in 0..20 {
        let (a, b, t) = over(&limited, Duration::from_millis(500));
        best = best.max((b.egress.bytes - a.egress.bytes) as f64 / t);
        if best > 20_000_000.0 {
            break;
        }
    }
    println!("     {:.0} Mbit/s without a limit", best / 125_000.0);
    assert!(best > 20_000_000.0, "the older connection keeps its pace: {best}");
    update(mbit(40)).expect("updates");
    sleep(Duration::from_secs(1));
    spread(&limited, "the same, limited again");
    drop(older);
    let before = segments(&c);
    let _later = c.sender(&["tcp", &to, "300"]);
    sleep(Duration::from_secs(1));
    spread(&limited, "a connection made later");
    let after = segments(&c);
    println!("     {} of {} segments sent again", after.1 - before.1, after.0 - before.0);
    // An update that is taken back leaves no pace either: here it ends with the programs.
    netlimit::detach(&limited).expect("detaches");
    let received = || device_bytes(&format!("h{}", c.n));
    let mut best = 0.0f64;
    for _ in 0..20 {
        let (before, begun) = (received(), Instant::now());
        sleep(Duration::from_millis(500));
        best = best.max((received() - before) as f64 / begun.elapsed().as_secs_f64());
        if best > 20_000_000.0 {
            break;
        }
    }
    println!("     {:.0} Mbit/s without programs", best / 125_000.0);
    assert!(best > 20_000_000.0, "the connection keeps the pace of programs that are gone: {best}");
    Outcome::Passed
}

/// Segments of TCP's that a container has sent, and how many of them again.
fn segments(c: &Container) -> (u64, u64) {
    let text = c.inside("cat /proc/self/net/snmp");
    let tcp: Vec<Vec<&str>> =
        text.lines().filter(|l| l.starts_with("Tcp:")).map(|l| l.split(' ').collect()).collect();
    let value = |name| {
        let at = tcp[0].iter().position(|n| *n == name).expect("a known name");
        tcp[1][at].parse().expect("a number")
    };
    (value("OutSegs"), value("RetransSegs"))
}

pub fn queue_mode() -> Outcome {
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
pub fn small_packets_get_through() -> Outcome {
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

pub fn new_connections() -> Outcome {
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

/// What lies between the headers of IPv6 and of TCP hides no connection, and counts with every segment.
pub fn extension_headers() -> Outcome {
    let c = Container::wired(Network::Private);
    let to = format!("[fd77:{}::1]:5401", c.n);
    let sink = host_sender(&["sink", &to]);
    sleep(Duration::from_millis(300));
    let limits =
        Limits { new_conns: Some(Cap::At(50)), new_conns_burst: Some(Cap::At(10)), ..Limits::default() };
    let record = c.limit(&limits);
    let begun = Instant::now();
    let made = c.sender(&["connects", &to, "3", "8"]).output();
    let bound = begun.elapsed().as_secs_f64() * 50.0 + 11.0;
    println!("     {} TCP connections behind destination options in 3 s", made.trim());
    let made: f64 = made.trim().parse().expect("a number");
    assert!(made <= bound && made > 20.0, "{made} of {bound}");
    netlimit::detach(&record).expect("detaches");
    drop(sink);
    let record = c.limit(&only_counting());
    let _receiver = host_sender(&["receive", &to]);
    sleep(Duration::from_millis(300));
    const PAYLOAD: u64 = 20_000_000;
    for options in [8, 256] {
        let before = counters(&record).egress;
        c.sender(&["behind-options", &to, &options.to_string(), &PAYLOAD.to_string()]).output();
        let after = counters(&record).egress;
        let (bytes, packets) = (after.bytes - before.bytes, after.packets - before.packets);
        let headers = (bytes - PAYLOAD) as f64 / packets as f64;
        println!("     {headers:.1} bytes of headers a packet, with {options} of options");
        // Ethernet, IPv6, the options, TCP with its time stamps. A packet may be sent again, with its payload.
        let wanted = 14.0 + 40.0 + options as f64 + 32.0;
        assert!(headers >= wanted - 1.0 && headers < wanted * 1.1, "{headers} of {wanted}");
    }
    netlimit::detach(&record).expect("detaches");
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
