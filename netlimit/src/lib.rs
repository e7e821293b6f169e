//! Rates and tags for the traffic of the processes in one cgroup. Knows nothing of containers.
//!
//! The limits are kept by BPF programs on the cgroup (`cgroup_skb`), which need no process of ours: they outlive
//! whoever attached them and vanish with the cgroup. What slips past a cgroup (AF_PACKET sockets) is held by a second
//! program on the host's end of the veth. All state is one memory-mapped map, found again from the cgroup.
//!
//! The order of calls: [`check`] (no side effect), [`Record::planned`] into the caller's own state file, [`attach`]
//! before the first process runs, [`attach_links`] once the network namespace has its interfaces, [`update`],
//! [`counters`], and [`detach`], which may be called at any time and again.

mod attach;
mod bpf;
mod counters;
mod error;
mod gcra;
mod limits;
mod links;
mod netlink;
mod record;
mod sockets;
mod state;
#[allow(unsafe_code)]
mod sys;
mod tags;
mod tc;

pub use counters::{Counters, DirectionCounters};
pub use error::{Error, Kind, Result};
pub use limits::{Cap, IngressMode, Limits, DEFAULT_BURST_MS, MAX_PRIORITIES, MAX_RATE};
pub use record::{Link, LinkKind, Network, Record, Target};

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;

use attach::Cgroup;
use error::Context;
use links::Namespace;
use state::{Snapshot, State};

/// Refuses, by the knob's name and before any side effect, what this host can't do for this target.
pub fn check(limits: &Limits, target: &Target) -> Result<()> {
    limits.validate()?;
    if limits.ingress_mode == Some(IngressMode::Queue) {
        let why = match target.network {
            Network::Host => "the host's network has no device that belongs to the container alone",
            Network::Shared => "others use the network namespace too",
            Network::Private => "",
        };
        if !why.is_empty() {
            return Err(Error::unsupported(format!("net.ingress-mode=queue: {why}; use `police`")));
        }
    }
    if target.cgroup2.is_some() {
        return Ok(());
    }
    match needs_cgroup2(limits, target) {
        None => Ok(()),
        Some(knob) => Err(Error::unsupported(format!(
            "{knob}: no cgroup2 hierarchy is mounted on this host; mount one, without controllers: \
             mkdir /sys/fs/cgroup/unified && mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified"
        ))),
    }
}

/// As [`check`], for a target that runs. `netns` is its network namespace if it has one of its own.
pub fn check_live(limits: &Limits, record: &Record, netns: Option<BorrowedFd<'_>>) -> Result<()> {
    check(limits, &target(record))?;
    let queue = limits.ingress_mode == Some(IngressMode::Queue);
    let named = limits.priority.iter().flatten().map(|(name, _)| name);
    if !queue && named.clone().next().is_none() {
        return Ok(());
    }
    let namespace = netns.map(Namespace::look).transpose()?.flatten();
    if let (Some(namespace), Some(_)) = (&namespace, named.clone().next()) {
        // A name that was there before is none of this change's business.
        let (there, before) = (namespace.indexes(), current(record)?.priority.unwrap_or_default());
        if let Some(name) = named.into_iter().find(|n| !there.contains_key(*n) && !before.contains_key(*n)) {
            return Err(Error::invalid(format!("net.priority: the container has no interface {name}")));
        }
    }
    match namespace {
        _ if !queue => Ok(()),
        Some(namespace) if namespace.has_veth() => Ok(()),
        _ => Err(links::no_veth()),
    }
}

/// Has the kernel verify the programs that [`update`] would attach to a target without any. Nothing is attached, and nothing
/// stays.
pub fn rehearse(change: &Limits, record: &Record) -> Result<()> {
    if record.cgroup2.is_none() || change.is_empty() || state(record)?.is_some() {
        return Ok(());
    }
    let state = State::create(0)?;
    state.write(change, counts_loopback(record), &known_interfaces(record, change)?);
    attach::rehearse(&state)
}

/// The first knob that can't do without programs on a cgroup2 directory.
fn needs_cgroup2(l: &Limits, target: &Target) -> Option<&'static str> {
    let limit = |cap: Option<Cap>| matches!(cap, Some(Cap::At(_)));
    let by_net_prio = target.net_prio.is_some() && target.network == Network::Host;
    let knobs = [
        ("net.egress-rate", limit(l.egress_rate)),
        ("net.ingress-rate", limit(l.ingress_rate)),
        ("net.egress-pps", limit(l.egress_pps)),
        ("net.ingress-pps", limit(l.ingress_pps)),
        ("net.new-conns", limit(l.new_conns)),
        ("net.classid", l.classid.unwrap_or(0) != 0 && target.net_cls.is_none()),
        ("net.priority", l.priority.as_ref().is_some_and(|p| !p.is_empty()) && !by_net_prio),
        ("net.ingress-mode", l.ingress_mode == Some(IngressMode::Queue)),
        ("net.count-loopback", l.count_loopback.is_some()),
    ];
    knobs.iter().find(|(_, wanted)| *wanted).map(|(name, _)| *name)
}

/// Puts the limits on the cgroup. To be called after the cgroup exists and before the first process runs in it.
/// On an error nothing stays behind. The record must be saved; it is what all other functions work from.
/// Empty limits cost nothing and leave nothing.
pub fn attach(limits: &Limits, target: &Target) -> Result<Record> {
    check(limits, target)?;
    let mut record = Record::planned(target);
    if !limits.is_empty() {
        begin(&mut record, limits).inspect_err(|_| {
            // The error that is returned says what went wrong; this can only fail for the same reason.
            let _ = detach(&record);
        })?;
    }
    Ok(record)
}

/// Attaches to a cgroup that has no programs of ours.
fn begin(record: &mut Record, limits: &Limits) -> Result<tags::Before> {
    if let Some(path) = record.cgroup2.clone() {
        let cgroup = cgroup(&path)?;
        let id =
            sys::net::cgroup_id(&path).with_context(|| format!("asking for the id of {}", path.display()))?;
        let state = State::create(id)?;
        record.map_id = Some(state.id());
        state.write(limits, counts_loopback(record), &known_interfaces(record, limits)?);
        cgroup.attach(&state)?;
    }
    tags::write(record, limits)
}

fn cgroup(path: &std::path::Path) -> Result<Cgroup> {
    Cgroup::open(path)?.ok_or_else(|| Error::os(libc::ENOENT).context(format!("opening {}", path.display())))
}

/// `lo` of the host or of a joined namespace connects the container with others.
fn counts_loopback(record: &Record) -> bool {
    record.network != Network::Private
}

/// The interfaces of `net.priority` on the host's network; others appear with [`attach_links`].
fn known_interfaces(record: &Record, limits: &Limits) -> Result<BTreeMap<String, u32>> {
    let (Network::Host, Some(names)) = (record.network, &limits.priority) else { return Ok(BTreeMap::new()) };
    let known = links::host_indexes(names);
    match names.keys().find(|n| !known.contains_key(*n)) {
        Some(n) => Err(Error::invalid(format!("net.priority: the host has no interface {n}"))),
        None => Ok(known),
    }
}

/// Our state, by the cgroup; `None` if nothing is attached or the cgroup is gone.
fn state(record: &Record) -> Result<Option<State>> {
    match &record.cgroup2 {
        Some(path) => match Cgroup::open(path)? {
            Some(cgroup) => cgroup.state(),
            None => Ok(None),
        },
        None => Ok(None),
    }
}

/// Puts the backstop on the host's end of every veth and macvlan of a network namespace, and the queue of
/// `ingress-mode=queue`. Idempotent: to be called whenever interfaces may have appeared (start, update).
/// Does nothing for the host's own network. `record` then names the links and should be saved again.
pub fn attach_links(record: &mut Record, netns: BorrowedFd<'_>) -> Result<()> {
    // Nothing was asked for: not even a look at the cgroup.
    if record.map_id.is_none() {
        return Ok(());
    }
    let Some(state) = state(record)? else { return Ok(()) };
    let Some(namespace) = Namespace::look(netns)? else { return Ok(()) };
    let limits = state.limits();
    state.write(&limits, counts_loopback(record), &namespace.indexes());
    links::apply(record, &state, &namespace)
}

/// What [`update`] did, so that a bigger transaction can take it back.
pub struct Undo {
    settings: Option<Snapshot>,
    /// The limits were attached by the update itself.
    fresh: bool,
    tags: tags::Before,
    links: Option<Vec<Link>>,
}

impl Undo {
    /// Puts everything back as it was before the update. `netns` as for the update.
    pub fn restore(self, record: &mut Record, netns: Option<BorrowedFd<'_>>) -> Result<()> {
        self.tags.restore()?;
        if self.fresh {
            detach(record)?;
            record.map_id = None;
            record.links = self.links;
            return Ok(());
        }
        let (Some(settings), Some(state)) = (self.settings, state(record)?) else { return Ok(()) };
        let (was, fixed) = (state.limits(), state.fixed_paces());
        state.restore(&settings);
        if fixed {
            state.note_fixed_paces();
        }
        follow(record, &state, &was, true);
        if let Some(netns) = netns {
            attach_links(record, netns)?;
        }
        links::forget(record, self.links.as_deref(), state.id())
    }
}

/// Sets the limits back to `limits` after an update that was killed. `record` is as it was saved before that update, and is
/// all that will be known of it.
pub fn put_back(record: &Record, limits: &Limits, netns: Option<BorrowedFd<'_>>) -> Result<()> {
    let mut now = record.clone();
    update(&mut now, limits, netns)?;
    match state(record)? {
        Some(state) => links::forget(&mut now, record.links.as_deref(), state.id()),
        None => Ok(()),
    }
}

/// Changes the limits of a live target; what `change` doesn't name stays. Attaches what isn't there yet.
/// `netns` is the target's network namespace if it has one of its own. The new values are read back.
/// On an error everything is as it was, unless it is of the kind `Half`.
pub fn update(record: &mut Record, change: &Limits, netns: Option<BorrowedFd<'_>>) -> Result<Undo> {
    let found = state(record)?;
    let mut undo = Undo {
        settings: found.as_ref().map(State::snapshot),
        fresh: found.is_none(),
        tags: tags::Before::default(),
        links: record.links.clone(),
    };
    if change.is_empty() {
        undo.fresh = false;
        return Ok(undo);
    }
    let wanted = found.as_ref().map(State::limits).unwrap_or_default().merged(change);
    check(&wanted, &target(record))?;
    match change_all(record, change, &wanted, found, netns) {
        Ok(tags) => {
            undo.tags = tags;
            Ok(undo)
        }
        Err(e) => match undo.restore(record, netns) {
            Ok(()) => Err(e),
            Err(undo) => {
                let text = format!("and putting the old limits back failed too ({undo})");
                Err(e.with_kind(Kind::Half).context(text))
            }
        },
    }
}

fn change_all(
    record: &mut Record,
    change: &Limits,
    wanted: &Limits,
    found: Option<State>,
    netns: Option<BorrowedFd<'_>>,
) -> Result<tags::Before> {
    let was = found.as_ref().map(State::limits).unwrap_or_default();
    let paced = match &record.cgroup2 {
        Some(path) if found.is_some() => cgroup(path)?.paces()?,
        _ => false,
    };
    let tags = match found {
        None => begin(record, change)?,
        Some(state) => {
            state.write(change, counts_loopback(record), &known_interfaces(record, wanted)?);
            if let Some(path) = &record.cgroup2 {
                cgroup(path)?.attach(&state)?;
            }
            tags::write(record, change)?
        }
    };
    let finish = |record: &mut Record| {
        if let Some(netns) = netns {
            attach_links(record, netns)?;
        }
        read_back(record, wanted)
    };
    match finish(record) {
        Ok(()) => {
            if let Some(state) = state(record)? {
                follow(record, &state, &was, paced);
            }
            Ok(tags)
        }
        Err(e) => tags.restore().and(Err(e)),
    }
}

/// Has the sockets follow that are older than a change. `paced`: TCP's connections are known to the program.
fn follow(record: &Record, state: &State, was: &Limits, paced: bool) {
    let (Some(path), now) = (&record.cgroup2, state.limits()) else { return };
    let fixed = state.fixed_paces() && was.egress_rate != now.egress_rate;
    if fixed || (!paced && now.egress_rate.is_some()) {
        sockets::pace(path, state);
    }
    sockets::retag(path, was.classid.unwrap_or(0), now.classid.unwrap_or(0));
}

fn read_back(record: &Record, wanted: &Limits) -> Result<()> {
    let Some(state) = state(record)? else {
        return match record.cgroup2 {
            None => Ok(()),
            Some(_) => Err(Error::new(Kind::System, "the limits were detached by somebody else meanwhile")),
        };
    };
    let got = state.limits();
    if got != wanted.lifted_left_out() {
        return Err(Error::new(Kind::System, format!("read back {got:?} instead of {wanted:?}")));
    }
    Ok(())
}

fn target(record: &Record) -> Target<'_> {
    Target {
        cgroup2: record.cgroup2.as_deref(),
        net_cls: record.net_cls.as_deref(),
        net_prio: record.net_prio.as_deref(),
        network: record.network,
    }
}

/// The limits in force, read from the kernel. What was lifted or never set is `None`.
pub fn current(record: &Record) -> Result<Limits> {
    let mut limits = state(record)?.map(|s| s.limits()).unwrap_or_default();
    if record.cgroup2.is_none() {
        limits.classid = tags::classid(record);
    }
    Ok(limits)
}

/// Reads the counters; `None` if no limits are attached.
pub fn counters(record: &Record) -> Result<Option<Counters>> {
    Ok(state(record)?.map(|s| s.counters()))
}

/// Removes everything [`attach`], [`attach_links`] and [`update`] put anywhere, from sockets too. Idempotent; what is already gone
/// (a removed cgroup, a vanished veth) is no error. The v1 tags go with their cgroups.
pub fn detach(record: &Record) -> Result<()> {
    let Some(path) = &record.cgroup2 else { return Ok(()) };
    let cgroup = Cgroup::open(path)?;
    // After a crash the record may not know the map yet; the cgroup does.
    let found = match &cgroup {
        Some(cgroup) if record.map_id.is_none() => cgroup.state()?.map(|s| s.id()),
        _ => None,
    };
    if let Some(map_id) = record.map_id.or(found) {
        match &record.links {
            Some(links) => links.iter().try_for_each(|link| links::remove(link, map_id))?,
            None if record.network != Network::Host => links::sweep(map_id)?,
            None => {}
        }
    }
    let Some(cgroup) = cgroup else { return Ok(()) };
    if let Some(state) = cgroup.state()? {
        sockets::let_go(path, &state);
    }
    cgroup.detach()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where net_cls is all there is, it tells what is in force.
    #[test]
    fn a_class_id_without_programs_is_seen() {
        let dir = std::env::temp_dir().join(format!("netlimit-classid-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let target = Target { cgroup2: None, net_cls: Some(&dir), net_prio: None, network: Network::Host };
        let record = Record::planned(&target);
        for (text, classid) in [("0\n", None), ("65552\n", Some(0x1_0010))] {
            std::fs::write(dir.join("net_cls.classid"), text).unwrap();
            assert_eq!(current(&record).unwrap().classid, classid);
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
