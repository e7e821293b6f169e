//! The cases. Rates are taken from the counters over the time that really passed, so a slow machine is no error.

use std::thread::sleep;
use std::time::{Duration, Instant};

use netlimit::{Cap, Limits, Network};

use crate::net::{self, Container};
use crate::{Case, Outcome};

pub const ALL: &[Case] = &[("attach_read_back_detach", attach_read_back_detach)];

fn attach_read_back_detach() -> Outcome {
    let c = Container::wired(Network::Private);
    let limits = Limits {
        egress_rate: Some(Cap::At(1_250_000)),
        ingress_pps: Some(Cap::At(1000)),
        new_conns: Some(Cap::At(10)),
        classid: Some(0x10010),
        priority: Some([("eth0".to_string(), 5)].into()),
        ..Limits::default()
    };
    let begun = Instant::now();
    let record = netlimit::attach(&limits, &c.target()).expect("attaches");
    println!("     attach {:?}", begun.elapsed());
    let mut record = record;
    let begun = Instant::now();
    netlimit::attach_links(&mut record, std::os::fd::AsFd::as_fd(&c.netns())).expect("links");
    println!("     links {:?}", begun.elapsed());
    assert_eq!(netlimit::current(&record).expect("reads"), limits);
    assert_eq!(record.links.as_ref().map(Vec::len), Some(1));
    let begun = Instant::now();
    netlimit::detach(&record).expect("detaches");
    println!("     detach {:?}", begun.elapsed());
    netlimit::detach(&record).expect("detaches again");
    assert_eq!(netlimit::counters(&record).expect("reads"), None);
    let _ = (sleep as fn(Duration), net::has as fn(&str) -> bool);
    Outcome::Passed
}
