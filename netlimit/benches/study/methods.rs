//! The ways to limit a container that are compared, each set up as its users do.

use std::io::Write;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use netlimit::{Cap, IngressMode, Limits, Link, LinkKind, Network, Record, Target};

use crate::bed::{attempt, Bed, Place};

/// Seen from the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Out,
    In,
}

impl Way {
    pub fn name(self) -> &'static str {
        match self {
            Way::Out => "out",
            Way::In => "in",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Megabits per second.
    Mbit(u64),
    /// Packets per second.
    Packets(u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// No limit at all.
    Free,
    /// TBF with 10 ms of burst and 25 ms of queue; on the container's device, and on the host's veth inwards.
    Tbf,
    /// TBF as the CNI plugin sets it when no burst is said (2^31 bits); IFB outwards.
    Cni,
    /// HTB, one class; on an IFB outwards.
    Htb,
    /// nftables' `limit rate over ... drop` in netdev hooks of the host's veth, with our burst.
    Nft,
    /// Our bucket as a clsact filter on the host's veth alone.
    Clsact,
    /// `net.ingress-mode=police`, the default.
    Ours,
    /// `net.ingress-mode=queue`.
    Queue,
}

pub const ALL: [Method; 8] = [
    Method::Free,
    Method::Tbf,
    Method::Cni,
    Method::Htb,
    Method::Nft,
    Method::Clsact,
    Method::Ours,
    Method::Queue,
];

impl Method {
    pub fn name(self) -> &'static str {
        match self {
            Method::Free => "none",
            Method::Tbf => "tbf",
            Method::Cni => "tbf-cni",
            Method::Htb => "htb+ifb",
            Method::Nft => "nft",
            Method::Clsact => "clsact-bpf",
            Method::Ours => "hydra",
            Method::Queue => "hydra-queue",
        }
    }

    /// Whether there is such a thing.
    pub fn can(self, way: Way, limit: Limit) -> bool {
        match self {
            Method::Tbf | Method::Cni | Method::Htb => matches!(limit, Limit::Mbit(_)),
            Method::Queue => way == Way::In && matches!(limit, Limit::Mbit(_)),
            Method::Free | Method::Nft | Method::Clsact | Method::Ours => true,
        }
    }

    pub fn apply(self, bed: &Bed, way: Way, limit: Limit) -> Result<Applied<'_>, String> {
        let mut applied = Applied { bed, record: None };
        match (self, limit) {
            (Method::Free, _) => {}
            (Method::Nft, _) => nft(way, limit)?,
            (Method::Clsact | Method::Ours | Method::Queue, _) => {
                applied.record = Some(self.bpf(bed, way, limit)?)
            }
            (_, Limit::Mbit(mbit)) => self.qdisc(bed, way, mbit)?,
            (_, Limit::Packets(_)) => return Err(format!("{} can't count packets", self.name())),
        }
        Ok(applied)
    }

    fn qdisc(self, bed: &Bed, way: Way, mbit: u64) -> Result<(), String> {
        let device = match (self, way) {
            (Method::Tbf, Way::Out) => {
                bed.inside(Place::Container, &format!("tc qdisc add dev eth0 root {}", tbf(mbit)));
                return Ok(());
            }
            (_, Way::Out) => {
                for line in [
                    "ip link add ifb0 type ifb",
                    "ip link set ifb0 up txqueuelen 1000",
                    "tc qdisc add dev h0 ingress",
                    "tc filter add dev h0 parent ffff: protocol all u32 match u32 0 0 action mirred egress redirect dev ifb0",
                ] {
                    attempt(line)?;
                }
                "ifb0"
            }
            (_, Way::In) => "h0",
        };
        match self {
            Method::Htb => {
                attempt(&format!("tc qdisc add dev {device} root handle 1: htb default 1"))?;
                let class = "classid 1:1 htb rate";
                attempt(&format!("tc class add dev {device} parent 1: {class} {mbit}mbit ceil {mbit}mbit"))?;
            }
            Method::Cni => {
                let burst = (1u64 << 31) / 8 - 1;
                let limit = burst + mbit * 125_000 / 40;
                let line =
                    format!("tc qdisc add dev {device} root tbf rate {mbit}mbit burst {burst} limit {limit}");
                attempt(&line)?;
            }
            _ => drop(attempt(&format!("tc qdisc add dev {device} root {}", tbf(mbit)))?),
        }
        Ok(())
    }

    fn bpf(self, bed: &Bed, way: Way, limit: Limit) -> Result<Record, String> {
        let mut limits = Limits::default();
        match (way, limit) {
            (Way::Out, Limit::Mbit(n)) => limits.egress_rate = Some(Cap::At(n * 125_000)),
            (Way::Out, Limit::Packets(n)) => limits.egress_pps = Some(Cap::At(n)),
            (Way::In, Limit::Mbit(n)) => limits.ingress_rate = Some(Cap::At(n * 125_000)),
            (Way::In, Limit::Packets(n)) => limits.ingress_pps = Some(Cap::At(n)),
        }
        if self == Method::Queue {
            limits.ingress_mode = Some(IngressMode::Queue);
        }
        let target =
            Target { cgroup2: Some(&bed.cgroup), net_cls: None, net_prio: None, network: Network::Private };
        let words = |e: netlimit::Error| e.to_string();
        let mut record = netlimit::attach(&limits, &target).map_err(words)?;
        if self == Method::Clsact {
            // A link that is known to lack tcx gets clsact.
            let index = attempt("cat /sys/class/net/h0/ifindex").ok();
            let index =
                index.or_else(|| attempt("ip -o link show h0").ok()?.split(':').next().map(str::to_string));
            let ifindex = index.and_then(|i| i.trim().parse().ok()).ok_or("h0 has no index")?;
            record.links = Some(vec![Link {
                ifindex,
                kind: LinkKind::Veth,
                inner_ifindex: 0,
                clsact: true,
                clsact_made: false,
                queue: false,
            }]);
        }
        netlimit::attach_links(&mut record, bed.netns().as_fd()).map_err(words)?;
        if self == Method::Clsact {
            let cgroup_only = Record { links: Some(Vec::new()), ..record.clone() };
            netlimit::detach(&cgroup_only).map_err(words)?;
        }
        Ok(record)
    }
}

fn tbf(mbit: u64) -> String {
    let burst = (mbit * 1250).max(3028);
    format!("tbf rate {mbit}mbit burst {burst} latency 25ms")
}

fn nft(way: Way, limit: Limit) -> Result<(), String> {
    let over = match limit {
        Limit::Mbit(n) => format!("{} bytes/second burst {} bytes", n * 125_000, n * 37_500),
        Limit::Packets(n) => format!("{n}/second burst {} packets", n * 3 / 10),
    };
    let hook = match way {
        Way::Out => "ingress",
        Way::In => "egress",
    };
    let rules = format!(
        "table netdev study {{ chain c {{ type filter hook {hook} device h0 priority 0; limit rate over {over} drop\n}}\n}}\n"
    );
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| format!("nft: {e}"))?;
    child.stdin.take().ok_or("nft: no input")?.write_all(rules.as_bytes()).map_err(|e| e.to_string())?;
    let out = child.wait_with_output().map_err(|e| e.to_string())?;
    match out.status.success() {
        true => Ok(()),
        false => Err(format!("nft: {}", String::from_utf8_lossy(&out.stderr).trim())),
    }
}

/// A limit in force; it is taken away when this goes.
pub struct Applied<'a> {
    bed: &'a Bed,
    record: Option<Record>,
}

impl Drop for Applied<'_> {
    fn drop(&mut self) {
        if let Some(record) = &self.record {
            if let Err(e) = netlimit::detach(record) {
                println!("detaching: {e}");
            }
            // After the cgroup's programs went on their own the record's map is known by the links alone.
            let _ = attempt("tc qdisc del dev h0 clsact");
            return;
        }
        for line in [
            "tc qdisc del dev h0 root",
            "tc qdisc del dev h0 ingress",
            "ip link del ifb0",
            "nft delete table netdev study",
        ] {
            let _ = attempt(line);
        }
        let pid = self.bed.pid(Place::Container);
        let _ = attempt(&format!("nsenter -t {pid} -n tc qdisc del dev eth0 root"));
    }
}
