//! The backstop: programs on the host's side of a network namespace.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use crate::attach::load;
use crate::bpf::program::{Features, Owner, Program};
use crate::error::{Context, Result};
use crate::limits::{Cap, IngressMode, Limits};
use crate::netlink::{self, Interface, Netlink};
use crate::record::{Link, LinkKind, Network, Record};
use crate::state::State;
use crate::sys::bpf::ProgType;
use crate::sys::net;
use crate::tc::{self, Queue, Way};

/// A network namespace seen from the host.
pub struct Namespace {
    interfaces: Vec<Interface>,
    /// What the namespace calls the host's.
    host: Option<u32>,
}

impl Namespace {
    /// `None` if it is the host's own.
    pub fn look(netns: BorrowedFd<'_>) -> Result<Option<Namespace>> {
        use std::os::unix::fs::MetadataExt;
        let what = || "looking at the network namespace";
        let own = net::own_netns().with_context(what)?;
        let id = |fd: BorrowedFd<'_>| {
            let m = std::fs::File::from(fd.try_clone_to_owned()?).metadata()?;
            std::io::Result::Ok((m.dev(), m.ino()))
        };
        if id(netns).with_context(what)? == id(own.as_fd()).with_context(what)? {
            return Ok(None);
        }
        let socket = Netlink::inside(netns).with_context(what)?;
        let interfaces = netlink::interfaces(&socket).with_context(what)?;
        let host = netlink::nsid(&socket, own.as_fd()).with_context(what)?;
        Ok(Some(Namespace { interfaces, host }))
    }

    pub fn indexes(&self) -> BTreeMap<String, u32> {
        self.interfaces.iter().map(|i| (i.name.clone(), i.index)).collect()
    }

    /// Whether one of the interfaces has its other end on the host.
    pub fn has_veth(&self) -> bool {
        self.links().iter().any(|l| l.kind == LinkKind::Veth)
    }

    /// The host's devices behind the interfaces.
    fn links(&self) -> Vec<Link> {
        let link = |i: &Interface| {
            let kind = match i.kind.as_str() {
                "veth" => LinkKind::Veth,
                "macvlan" | "macvtap" | "ipvlan" | "ipvtap" => LinkKind::Lower,
                _ => return None,
            };
            // Another namespace's device can't be reached from here: what is behind it isn't the host's network.
            if self.host.is_none() || i.link_nsid != self.host {
                return None;
            }
            Some(Link {
                ifindex: i.link?,
                kind,
                inner_ifindex: i.index,
                clsact: false,
                clsact_made: false,
                queue: false,
            })
        };
        self.interfaces.iter().filter_map(link).collect()
    }
}

/// Why there can be no queue.
pub fn no_veth() -> crate::Error {
    crate::Error::unsupported(
        "net.ingress-mode=queue: the container has no veth to the host's network; use `police`",
    )
}

/// The indexes of the host's own interfaces, for those of the names that exist.
pub fn host_indexes(names: &BTreeMap<String, u32>) -> BTreeMap<String, u32> {
    names.keys().filter_map(|n| Some((n.clone(), net::ifindex(n)?))).collect()
}

/// Puts the backstop on every link that lacks it and the queue where it is asked for, and takes them off the devices that the
/// container has nothing to do with any more: the one below a macvlan outlives it, and so does a veth that was moved.
pub fn apply(record: &mut Record, state: &State, namespace: &Namespace) -> Result<()> {
    let host = Netlink::here().with_context(|| "opening a netlink socket")?;
    let limits = state.limits();
    let known = record.links.clone().unwrap_or_default();
    let (mut links, mut done) = (Vec::new(), Ok(()));
    for mut link in namespace.links() {
        if let Some(old) = known.iter().find(|k| same(k, &link)) {
            link = Link { inner_ifindex: link.inner_ifindex, ..old.clone() };
        }
        done = put(&host, record, state, &mut link).and_then(|()| queue(&host, &mut link, &limits)).map_err(
            |e| e.context(format!("the host's device {} of the container", net::ifname(link.ifindex))),
        );
        links.push(link);
        if done.is_err() {
            break;
        }
    }
    if done.is_ok() && limits.ingress_mode == Some(IngressMode::Queue) {
        let veth = links.iter().any(|l| l.kind == LinkKind::Veth);
        done = if veth { Ok(()) } else { Err(no_veth()) };
    }
    let (mut left, _): (Vec<_>, Vec<_>) = known.into_iter().partition(|k| !links.iter().any(|l| same(k, l)));
    if done.is_ok() {
        // What can't be removed now stays known, and is tried again.
        left.retain(|link| remove(link, state.id()).is_err());
    }
    // What was put on must be known even if the rest fails, unless `detach` is to look at every device anyhow.
    if done.is_ok() || record.links.is_some() {
        links.extend(left);
        record.links = Some(links);
    }
    done
}

fn same(a: &Link, b: &Link) -> bool {
    a.ifindex == b.ifindex && a.kind == b.kind
}

/// Takes off what wasn't known before: whoever saved `before` won't save what came since.
pub fn forget(record: &mut Record, before: Option<&[Link]>, map_id: u32) -> Result<()> {
    let (Some(before), Some(now)) = (before, &record.links) else { return Ok(()) };
    for link in now.iter().filter(|l| !before.iter().any(|b| same(b, l))) {
        remove(link, map_id)?;
    }
    record.links = Some(before.to_vec());
    Ok(())
}

fn put(host: &Netlink, record: &Record, state: &State, link: &mut Link) -> Result<()> {
    let cgroup = record.cgroup2.as_deref().unwrap_or(Path::new("/"));
    let owner = Owner {
        cgroup_id: net::cgroup_id(cgroup)
            .with_context(|| format!("asking for the id of {}", cgroup.display()))?,
        levels: depth(cgroup),
        orphans: link.kind == LinkKind::Veth,
        // Those are in the root cgroup, where another runtime's container may be too if the namespace is shared.
        kernels: link.kind == LinkKind::Veth && record.network == Network::Private,
    };
    let all = state.features();
    // Below a macvlan the packets' tags are still there.
    let features = Features { tags: all.tags && link.kind == LinkKind::Veth, ..all };
    let limited = state.limited();
    // Attaching costs a grace period of the kernel each: only where there is something to hold.
    if limited.0 || features.tags {
        let out = Program::LinkEgress { owner, inner_ifindex: link.inner_ifindex, features };
        // Out of the container is into the host at a veth, but out of the device below a macvlan.
        put_one(host, state, link, if link.kind == LinkKind::Veth { Way::In } else { Way::Out }, out)?;
    }
    // Towards the container nothing tells whose a packet is, so only where the namespace is nobody else's.
    if limited.1 && link.kind == LinkKind::Veth && record.network == Network::Private {
        put_one(host, state, link, Way::Out, Program::LinkIngress)?;
        state.link_comes_first();
    }
    Ok(())
}

fn put_one(host: &Netlink, state: &State, link: &mut Link, way: Way, program: Program) -> Result<()> {
    let what = || format!("attaching {}", program.name());
    if !link.clsact {
        match tc::tcx_ours(link.ifindex, way, state.id()) {
            Ok(ours) if ours.iter().any(|o| program.is_served_by(&o.name)) => return Ok(()),
            Ok(ours) => {
                let prog = load(program, ProgType::SchedCls, None, state)?;
                return tc::tcx_attach(link.ifindex, way, prog.as_fd(), ours.first()).with_context(what);
            }
            Err(e) if tc::lacks_tcx(&e) => link.clsact = true,
            Err(e) => return Err(e).with_context(what),
        }
    }
    link.clsact_made |= tc::clsact_make(host, link.ifindex).with_context(what)?;
    let ours = tc::clsact_ours(host, link.ifindex, way, state.id()).with_context(what)?;
    if ours.iter().any(|o| program.is_served_by(&o.name)) {
        return Ok(());
    }
    let prog = load(program, ProgType::SchedCls, None, state)?;
    tc::clsact_attach(host, link.ifindex, way, prog.as_fd(), ours.first()).with_context(what)
}

fn queue(host: &Netlink, link: &mut Link, limits: &Limits) -> Result<()> {
    let rate = match (limits.ingress_mode, limits.ingress_rate) {
        (Some(IngressMode::Queue), Some(Cap::At(rate))) if link.kind == LinkKind::Veth => rate,
        _ if link.queue => {
            tc::queue_remove(host, link.ifindex)?;
            link.queue = false;
            return Ok(());
        }
        _ => return Ok(()),
    };
    let burst = match limits.ingress_burst {
        Some(Cap::At(n)) => Some(n),
        _ => None,
    };
    tc::queue_set(host, link.ifindex, Queue::new(rate, burst))?;
    link.queue = true;
    Ok(())
}

/// At which depth of the hierarchy a cgroup may be. From inside a cgroup namespace the true root isn't to be seen, so
/// several depths are possible; the id decides.
fn depth(cgroup: &Path) -> (u32, u32) {
    use std::os::unix::fs::MetadataExt;
    const INITIAL_CGROUP_NS: u64 = 0xefff_fffb;
    let is_cgroup2 =
        |p: &Path| std::fs::File::open(p).and_then(|f| net::is_cgroup2(f.as_fd())).unwrap_or(false);
    // The hierarchy's root is the last directory upwards that belongs to it.
    let path = std::fs::canonicalize(cgroup).unwrap_or_else(|_| cgroup.to_path_buf());
    let device = std::fs::metadata(&path).map(|m| m.dev()).unwrap_or(0);
    let same = |p: &&Path| is_cgroup2(p) && std::fs::metadata(p).map(|m| m.dev()).unwrap_or(1) == device;
    let levels = path.ancestors().take_while(same).count().saturating_sub(1) as u32;
    let initial =
        std::fs::metadata("/proc/self/ns/cgroup").map(|m| m.ino() == INITIAL_CGROUP_NS).unwrap_or(true);
    (levels, if initial { levels } else { levels + 8 })
}

/// Removes programs and queue of one link. A device that is gone is no error.
pub fn remove(link: &Link, map_id: u32) -> Result<()> {
    let host = Netlink::here().with_context(|| "opening a netlink socket")?;
    let gone =
        |e: &std::io::Error| matches!(e.raw_os_error(), Some(libc::ENODEV | libc::EINVAL | libc::ENOENT));
    let what = || format!("removing the backstop of the host's device {}", net::ifname(link.ifindex));
    for way in tc::WAYS {
        match tc::tcx_detach(link.ifindex, way, map_id) {
            Err(e) if !gone(&e) && !tc::lacks_tcx(&e) => return Err(e).with_context(what),
            _ => {}
        }
    }
    if link.clsact {
        match tc::clsact_detach(&host, link.ifindex, map_id, link.clsact_made) {
            Err(e) if !gone(&e) => return Err(e).with_context(what),
            _ => {}
        }
    }
    if link.queue {
        tc::queue_remove(&host, link.ifindex)?;
    }
    Ok(())
}

/// Removes ours from every device of the host: after a crash nobody knows where they were put.
pub fn sweep(map_id: u32) -> Result<()> {
    let host = Netlink::here().with_context(|| "opening a netlink socket")?;
    for i in netlink::interfaces(&host).with_context(|| "listing the host's devices")? {
        let clsact = matches!(tc::tcx_ours(i.index, Way::In, map_id), Err(e) if tc::lacks_tcx(&e));
        let kind = LinkKind::Veth;
        // A queue stays only on a veth, and goes with it.
        let link =
            Link { ifindex: i.index, kind, inner_ifindex: 0, clsact, clsact_made: false, queue: false };
        remove(&link, map_id)?;
    }
    Ok(())
}
