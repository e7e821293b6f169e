//! Knobs of a container that is being made: from what was said to limits in force, and what the state keeps.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::path::Path;

use cgroup::block::Device;
use cgroup::{Cgroup, Layout, Location, Resources, Transaction};
use netlimit::{Network, Record, Target};
use serde::{Deserialize, Serialize};

use super::devices::Resolver;
use super::layers::{self, Effective, Layers};
use super::limits::{self, Ceiling, Limits, Placed, Totals, World};
use crate::error::{Context, Result};
use crate::spec::Spec;

/// What the state keeps of knobs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Saved {
    pub layers: Layers,
    /// The container's own resources, once `update` changed them; before that, config.json's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<Resources>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub net: Option<Record>,
    /// Where limits for devices went.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub placed: Vec<Placed>,
    #[serde(skip_serializing_if = "Totals::is_empty")]
    pub totals: Totals,
    /// The devices that share the totals, as `MAJOR:MINOR`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub shared: Vec<String>,
    /// What of those devices have limits of their own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub caps: Vec<Ceiling>,
    pub follow_mounts: bool,
    /// What raw files said before a knob first set them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub originals: BTreeMap<String, String>,
    /// Counts updates: a journal of this generation or before belongs to a finished one.
    pub generation: u64,
}

impl Saved {
    /// A helper process has to watch over the container.
    pub fn needs_helper(&self) -> bool {
        !self.totals.is_empty() || self.follow_mounts
    }

    /// The devices that share the totals.
    pub fn shared(&self) -> Vec<Device> {
        self.shared.iter().filter_map(|d| d.parse().ok()).collect()
    }

    /// Takes over what limits came to.
    pub fn note(&mut self, limits: &Limits) {
        self.placed = limits.placed.clone();
        self.caps = limits.caps.clone();
        self.totals = limits.totals;
        self.shared = limits.shared.iter().map(Device::to_string).collect();
        self.follow_mounts = limits.follow_mounts;
    }
}

/// The knobs of a container that is being made.
pub struct Applied {
    pub saved: Saved,
    /// `None`: nothing was said, and nothing more is done than config.json asks for.
    limits: Option<Limits>,
    network: Network,
}

/// What was said about a container that is to be made, read and checked.
pub struct Said {
    layers: Layers,
    effective: Effective,
}

/// Reads what was said, and refuses what can't be understood. Of the host only the class file is looked at.
pub fn said(
    spec: &Spec,
    default_class: Option<&str>,
    flags: &[(String, String)],
    config: Option<&Path>,
) -> Result<Said> {
    let flags =
        flags.iter().map(|(flag, value)| super::from_flag(flag, value)).collect::<Result<Vec<_>>>()?;
    let layers = layers::at_create(&spec.annotations, default_class, &flags, config)?;
    let effective = layers.effective()?;
    Ok(Said { layers, effective })
}

impl Said {
    /// Decides what it comes to in a cgroup that is to be made at `location`, and refuses what this host can't hold.
    /// No side effect.
    pub fn decide(
        self,
        spec: &Spec,
        rootfs: &Path,
        layout: &Layout,
        location: Option<&Location>,
    ) -> Result<Applied> {
        let network = network(spec);
        if self.layers.is_empty() {
            return Ok(Applied { saved: Saved::default(), limits: None, network });
        }
        if let (None, Some(knob)) = (location, self.effective.0.keys().next()) {
            crate::invalid!(
                "{knob}: the container is to have no cgroup (--cgroup-manager disabled), and without one nothing can be \
                 limited: take the knob out, or choose another manager"
            );
        }
        let resolver = Resolver::planned(spec, rootfs);
        let world = World { version: &|c| layout.version_of(c), devices: &|s| resolver.devices(s) };
        let limits = limits::limits(&base(spec), &self.effective, &world)?;
        let mut saved = Saved { layers: self.layers, ..Saved::default() };
        saved.note(&limits);
        if let Some(location) = location {
            cgroup::foresee(layout, location, &limits.resources, &limits.raw_writes()?)?;
            if !limits.net.is_empty() {
                let target = target(location, network);
                netlimit::check(&limits.net, &target)?;
                // From it whatever `apply` does can be taken back.
                saved.net = Some(Record::planned(&target));
            }
        }
        for note in &limits.notes {
            log::warn!("{note}");
        }
        Ok(Applied { saved, limits: Some(limits), network })
    }
}

/// config.json's own resources.
pub fn base(spec: &Spec) -> Cow<'_, Resources> {
    match spec.linux.as_ref().and_then(|l| l.resources.as_ref()) {
        Some(resources) => Cow::Borrowed(resources),
        None => Cow::Owned(Resources::default()),
    }
}

/// Whose network a container made from `spec` uses.
pub fn network(spec: &Spec) -> Network {
    use std::os::unix::fs::MetadataExt;
    let namespaces = spec.linux.as_ref().map_or(&[][..], |l| &l.namespaces);
    let id = |path: &Path| std::fs::metadata(path).map(|m| (m.dev(), m.ino())).ok();
    match namespaces.iter().find(|n| n.kind == "network") {
        None => Network::Host,
        Some(n) => match n.path.as_deref().filter(|p| !p.is_empty()) {
            None => Network::Private,
            // Docker names the host's own namespace by a path.
            Some(path)
                if id(Path::new(path)).is_some_and(|ns| Some(ns) == id(Path::new("/proc/self/ns/net"))) =>
            {
                Network::Host
            }
            Some(_) => Network::Shared,
        },
    }
}

/// Where netlimit works for a container.
pub fn target(location: &Location, network: Network) -> Target<'_> {
    let v1 = |controller: &str| {
        let has = |b: &&cgroup::location::Branch| b.controllers.iter().any(|c| c == controller);
        location.branches.iter().find(has).map(|b| b.path.as_path())
    };
    Target {
        cgroup2: location.unified().map(|b| b.path.as_path()),
        net_cls: v1("net_cls"),
        net_prio: v1("net_prio"),
        network,
    }
}

impl Applied {
    /// What the cgroup is to be made with.
    pub fn resources<'a>(&'a self, spec: &'a Spec, location: &Location) -> Cow<'a, Resources> {
        match &self.limits {
            // A unit has to know of them, or the next daemon-reload takes them away.
            Some(limits) if location.unit.is_some() => Cow::Owned(limits.of_unit(location.mode)),
            Some(limits) => Cow::Borrowed(&limits.resources),
            None => base(spec),
        }
    }

    /// What was being done when the cgroup could not be made. The cgroup's own errors name the members of `linux.resources`,
    /// which people who set knobs never wrote: so these say what the knobs asked for.
    pub fn making(&self, doing: &str) -> String {
        let effective = self.saved.layers.effective().unwrap_or_default();
        let asked = effective.0.iter().filter(|(name, _)| !name.starts_with("net."));
        let asked: Vec<String> =
            asked.map(|(name, asked)| format!("{name}: '{}' ({})", asked.text, asked.from)).collect();
        match asked.is_empty() {
            true => doing.into(),
            false => format!("{doing} with the knobs {}", asked.join(", ")),
        }
    }

    /// Sets what the making of the cgroup doesn't: raw files and network limits. To be called once the cgroup exists
    /// (systemd makes it around a process that is there) and before the container's program runs.
    pub fn apply(&mut self, cgroup: &Cgroup) -> Result<()> {
        let Some(limits) = &self.limits else { return Ok(()) };
        if !limits.raw.is_empty() {
            for (file, _) in limits.raw.keys() {
                let controller = file.split('.').next().unwrap_or_default();
                if let Some(text) = cgroup.dir(controller).and_then(|dir| dir.peek(file)) {
                    self.saved.originals.insert(file.clone(), text.trim().into());
                }
            }
            let mut all = Transaction::new();
            all.writes(cgroup, &limits.raw_writes()?)?;
            all.run().context("setting the knobs")?;
        }
        if !limits.net.is_empty() {
            let target = target(cgroup.location(), self.network);
            self.saved.net = Some(netlimit::attach(&limits.net, &target).context("limiting the network")?);
        }
        Ok(())
    }
}

/// Puts the host's side of network limits in place, once the container's interfaces are there. Says whether the
/// record changed and has to be saved.
pub fn attach_links(saved: &mut Saved, pid: i32) -> Result<bool> {
    let Some(record) = saved.net.as_mut().filter(|r| r.network != Network::Host) else { return Ok(false) };
    let path = format!("/proc/{pid}/ns/net");
    let netns = std::fs::File::open(&path).with_context(|| format!("opening {path}"))?;
    use std::os::fd::AsFd;
    let netns: BorrowedFd<'_> = netns.as_fd();
    netlimit::attach_links(record, netns).context("limiting the network")?;
    Ok(true)
}
