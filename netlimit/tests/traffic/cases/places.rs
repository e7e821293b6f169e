//! The kinds of networks, and neighbours: what slips past a cgroup, other users of the devices, tags.

use super::*;

pub fn af_packet_is_held() -> Outcome {
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

/// The classid shows as priority in the container (HTB picks its class) and as mark on the host.
pub fn tags() -> Outcome {
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

/// Sockets made under one class go along to another one, back, and to none.
pub fn tags_of_older_sockets() -> Outcome {
    let c = Container::wired(Network::Private);
    let class = |id| Limits { classid: Some(id), ..Limits::default() };
    let mut record = c.limit(&class(0x1_0010));
    let sender = c.sender(&["marks", "60"]);
    sleep(Duration::from_millis(500));
    let mut update = |id| {
        let undo = netlimit::update(&mut record, &class(id), Some(c.netns().as_fd())).expect("updates");
        sleep(Duration::from_millis(200));
        (undo, record.clone())
    };
    update(0x1_0020);
    let (undo, mut changed) = update(0x1_0030);
    undo.restore(&mut changed, Some(c.netns().as_fd())).expect("restores");
    sleep(Duration::from_millis(200));
    update(0);
    assert_eq!(sender.output(), "10010\n10020\n10030\n10020\n0\n");
    netlimit::detach(&record).expect("detaches");
    Outcome::Passed
}

/// A clsact filter, a root qdisc and a program that others put there stay as they are.
pub fn beside_others() -> Outcome {
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
    assert!(e.to_string().contains(&format!("the host's device h{n} of the container")), "{e}");
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

/// Two containers in one namespace: only the traffic of the limited one is held, on the host's side too.
pub fn shared_namespace() -> Outcome {
    let pod = Container::wired(Network::Shared);
    let other = Container::new(Network::Shared);
    let record = pod.limit(&Limits { egress_rate: Some(mbit(10)), ..Limits::default() });
    let to = format!("{}:9", pod.host_address());
    let flow = ["udp", &to, "1400", "4000", "30"];
    let (_a, _b) = (pod.sender(&flow), other.sender_in(&pod, &flow));
    let _c = other.sender_in(&pod, &["packet", "eth0", "500", "30", "bypass"]);
    // Another runtime's container need not be in a cgroup of its own here: then it is in the root one.
    let _d = pod.stranger(&flow);
    sleep(Duration::from_secs(1));
    let received = || device_bytes(&format!("h{}", pod.n));
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
pub fn macvlan() -> Outcome {
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

/// A macvlan comes and goes while the container runs, in updates that end well and in others; on the device below it, which
/// is the host's, nothing stays.
pub fn devices_that_were_left() -> Outcome {
    let c = Container::new(Network::Private);
    let n = c.n;
    run(&format!("ip link add h{n} type veth peer name p{n}"));
    let macvlan = || run(&format!("ip link add m{n} link p{n} netns {} type macvlan mode bridge", c.pid()));
    if std::panic::catch_unwind(macvlan).is_err() {
        return Outcome::Skipped("the kernel has no macvlan".into());
    }
    let limits = |n| Limits { egress_rate: Some(mbit(n)), ..Limits::default() };
    let netns = c.netns();
    let mut record = c.limit(&limits(10));
    let kinds = |record: &Record| record.links.iter().flatten().map(|l| l.kind).collect::<Vec<_>>();
    assert_eq!(kinds(&record), [LinkKind::Lower]);
    // Gone before an update, which no longer sees it.
    c.inside(&format!("ip link del m{n}"));
    netlimit::update(&mut record, &limits(11), Some(netns.as_fd())).expect("updates");
    assert_eq!(kinds(&record), []);
    netlimit::detach(&record).expect("detaches");
    life::wait_until_gone(record.map_id.expect("attached"));
    // Come since, and the update is taken back; or is killed before it could save what it did.
    for killed in [false, true] {
        let mut record = c.limit(&limits(10));
        let saved = record.clone();
        macvlan();
        let undo = netlimit::update(&mut record, &limits(11), Some(netns.as_fd())).expect("updates");
        assert_eq!(kinds(&record), [LinkKind::Lower]);
        match killed {
            false => undo.restore(&mut record, Some(netns.as_fd())).expect("restores"),
            true => netlimit::put_back(&saved, &limits(10), Some(netns.as_fd())).expect("puts back"),
        }
        assert_eq!(netlimit::current(&saved).expect("reads"), limits(10));
        netlimit::detach(&saved).expect("detaches");
        life::wait_until_gone(saved.map_id.expect("attached"));
        c.inside(&format!("ip link del m{n}"));
    }
    Outcome::Passed
}

/// What the kernel sends by itself out of a namespace, answers to pings here, is held like the rest.
pub fn answers_of_the_kernel() -> Outcome {
    let c = Container::wired(Network::Private);
    let record = c.limit(&Limits { egress_rate: Some(mbit(10)), ..Limits::default() });
    let _pings = host_sender(&["pings", &c.address(), "1400", "4000", "60"]);
    sleep(Duration::from_secs(1));
    measured("answers to pings, 10 Mbit/s", &record, 1_250_000.0, 1.0, |c| c.bypass_egress.bytes);
    assert!(counters(&record).bypass_egress.dropped_packets > 0, "it was a flood");
    netlimit::detach(&record).expect("detaches");
    Outcome::Passed
}

/// net_cls and net_prio, where the kernel still has them.
pub fn v1_tags() -> Outcome {
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

/// The way of kernels before 6.6, taken here too for a link of which the record says that it lacks tcx.
pub fn clsact() -> Outcome {
    let c = Container::wired(Network::Private);
    let limits = Limits { egress_rate: Some(mbit(10)), ingress_rate: Some(mbit(10)), ..Limits::default() };
    let mut record = netlimit::attach(&limits, &c.target()).expect("attaches");
    let index = run(&format!("ip -o link show h{}", c.n));
    let ifindex = index.split(':').next().and_then(|n| n.trim().parse().ok()).expect("an index");
    let lacking = Link {
        ifindex,
        kind: LinkKind::Veth,
        inner_ifindex: 0,
        clsact: true,
        clsact_made: false,
        queue: false,
    };
    record.links = Some(vec![lacking]);
    netlimit::attach_links(&mut record, c.netns().as_fd()).expect("attaches");
    netlimit::attach_links(&mut record, c.netns().as_fd()).expect("attaches nothing more");
    let filters = |way: &str| run(&format!("tc filter show dev h{} {way}", c.n)).matches("hydra_net").count();
    assert!(record.links.as_ref().is_some_and(|l| l[0].clsact_made));
    assert!(filters("ingress") >= 1 && filters("egress") >= 1);
    let _sender = c.sender(&["packet", "eth0", "1400", "30", "bypass"]);
    let _echo = c.sender(&["echo", "0.0.0.0:9"]);
    let _in = host_sender(&["udp", &format!("{}:9", c.address()), "1400", "2000", "30"]);
    sleep(Duration::from_secs(1));
    measured("AF_PACKET against clsact", &record, 1_250_000.0, 1.0, |c| c.bypass_egress.bytes);
    measured("into the container, clsact", &record, 1_250_000.0, 1.0, |c| c.ingress.bytes);
    // A filter that can't count connections is replaced in its place.
    let before = filters("ingress");
    let change = Limits { new_conns: Some(Cap::At(1000)), ..Limits::default() };
    netlimit::update(&mut record, &change, Some(c.netns().as_fd())).expect("updates");
    assert_eq!(filters("ingress"), before);
    measured("AF_PACKET after that", &record, 1_250_000.0, 1.0, |c| c.bypass_egress.bytes);
    netlimit::detach(&record).expect("detaches");
    assert!(!run(&format!("tc qdisc show dev h{}", c.n)).contains("clsact"), "the qdisc was ours");
    Outcome::Passed
}

/// The documented example: nftables on the host counts what carries the class's mark.
pub fn nft_sees_the_mark() -> Outcome {
    if !net::has("nft") {
        return Outcome::Skipped("nft isn't installed".into());
    }
    let c = Container::wired(Network::Private);
    let n = c.n;
    let file = std::env::temp_dir().join(format!("netlimit-nft-{}", std::process::id()));
    let rules = format!(
        "table netdev t{n} {{\n chain c {{\n type filter hook ingress device h{n} priority 0;\n meta mark 0x10010 counter\n }}\n}}\n"
    );
    std::fs::write(&file, rules).expect("writes");
    let loaded = std::panic::catch_unwind(|| run(&format!("nft -f {}", file.display())));
    std::fs::remove_file(&file).expect("removes");
    if loaded.is_err() {
        return Outcome::Skipped("the kernel has no netdev hooks".into());
    }
    let record = c.limit(&Limits { classid: Some(0x1_0010), ..Limits::default() });
    c.sender(&["udp", &format!("{}:9", c.host_address()), "500", "100", "1"]).output();
    let rules = run(&format!("nft list table netdev t{n}"));
    let counted = rules.split("packets ").nth(1).and_then(|t| t.split(' ').next()?.parse::<u64>().ok());
    assert!(counted > Some(50), "{rules}");
    netlimit::detach(&record).expect("detaches");
    Outcome::Passed
}
