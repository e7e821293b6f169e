//! From attaching to detaching: changes, failures, what is refused.

use super::*;

pub fn attach_read_back_detach() -> Outcome {
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

pub fn live_change_and_undo() -> Outcome {
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

/// Removing the cgroup and the namespace is enough; and a crash before the links were recorded is cleaned up.
pub fn leaves_nothing() -> Outcome {
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
pub fn wait_until_gone(map_id: u32) {
    for _ in 0..500 {
        if !crate::sys::map_exists(map_id) {
            return;
        }
        sleep(Duration::from_millis(20));
    }
    panic!("the map {map_id} is still there");
}

pub fn refusals() -> Outcome {
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
    // A name is refused that says nothing to a container which runs, unless an older change said it.
    let c = Container::wired(Network::Private);
    let known = Limits { priority: Some([("eth0".to_string(), 1)].into()), ..Limits::default() };
    let record = c.limit(&known);
    netlimit::check_live(&known, &record, Some(c.netns().as_fd())).expect("eth0 is there");
    let e = netlimit::check_live(&prio, &record, Some(c.netns().as_fd())).expect_err("no such interface");
    assert_eq!(e.to_string(), "net.priority: the container has no interface nosuch0");
    netlimit::detach(&record).expect("detaches");
    let record = c.limit(&prio);
    netlimit::check_live(&prio, &record, Some(c.netns().as_fd())).expect("was said before");
    netlimit::detach(&record).expect("detaches");
    // Nothing asked for costs nothing.
    let record = netlimit::attach(&Limits::default(), &c.target()).expect("nothing to do");
    assert_eq!((record.map_id, netlimit::counters(&record).expect("reads")), (None, None));
    Outcome::Passed
}

/// Programs are replaced by more able ones under traffic, and the rate holds all the while.
pub fn features_come_live() -> Outcome {
    let c = Container::wired(Network::Private);
    let mut record = c.limit(&Limits { egress_rate: Some(mbit(10)), ..Limits::default() });
    let _sender = c.sender(&["udp", &format!("{}:9", c.host_address()), "1400", "2000", "30"]);
    sleep(Duration::from_secs(1));
    let (before, begun) = (counters(&record), Instant::now());
    let netns = c.netns();
    for change in [
        Limits { new_conns: Some(Cap::At(50)), ..Limits::default() },
        Limits { classid: Some(0x1_0010), ..Limits::default() },
        Limits { ingress_pps: Some(Cap::At(100_000)), ..Limits::default() },
    ] {
        netlimit::update(&mut record, &change, Some(netns.as_fd())).expect("updates");
        sleep(Duration::from_millis(300));
    }
    let passed = counters(&record).egress.bytes - before.egress.bytes;
    let bound = begun.elapsed().as_millis() as u64 * 1_250 + 1_250 * DEFAULT_BURST_MS + SLACK;
    assert!(passed <= bound, "{passed} of {bound}");
    let flows = c.sender(&["flows", &c.host_address(), "500", "30"]);
    sleep(Duration::from_secs(1));
    measured("new flows", &record, 50.0, 3.0, |c| c.new_conns);
    drop(flows);
    // Back to where it was in one step, as a transaction would take it.
    netlimit::detach(&record).expect("detaches");
    assert_eq!(netlimit::counters(&record).expect("reads"), None);
    Outcome::Passed
}

/// Eight changes of a limit that isn't reached cost no packet.
pub fn updates_lose_no_packet() -> Outcome {
    let c = Container::wired(Network::Private);
    let limits = Limits { egress_rate: Some(mbit(100)), ingress_rate: Some(mbit(100)), ..Limits::default() };
    let mut record = c.limit(&limits);
    let _echo = host_sender(&["echo", &format!("{}:7", c.host_address())]);
    sleep(Duration::from_secs(1));
    let probe = c.sender(&["probe", &format!("{}:7", c.host_address()), "400"]);
    for i in 0..8 {
        sleep(Duration::from_millis(200));
        let rate = Some(mbit(100 + i * 50));
        let change = Limits { egress_rate: rate, ingress_rate: rate, ..Limits::default() };
        netlimit::update(&mut record, &change, Some(c.netns().as_fd())).expect("updates");
    }
    let out = probe.output();
    assert!(out.starts_with("400 "), "answered, p50, p99: {out}");
    let n = counters(&record);
    assert_eq!((n.egress.dropped_packets, n.ingress.dropped_packets), (0, 0));
    netlimit::detach(&record).expect("detaches");
    Outcome::Passed
}
