//! Where limits go, and where they were put.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Whose network the processes use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// The host's.
    Host,
    /// A namespace made for these processes alone.
    Private,
    /// A namespace that others use or may use too (joined by path).
    Shared,
}

/// Where the limits shall go. The directories are the cgroup's own, and need to exist only from [`crate::attach`] on.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// In a cgroup2 hierarchy (on a hybrid host under `unified`). `None`: this host has none.
    pub cgroup2: Option<&'a Path>,
    /// In the v1 net_cls hierarchy, if it is mounted.
    pub net_cls: Option<&'a Path>,
    /// In the v1 net_prio hierarchy, if it is mounted.
    pub net_prio: Option<&'a Path>,
    pub network: Network,
}

/// What carries the backstop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkKind {
    /// The host's end of a veth pair.
    Veth,
    /// The device below a macvlan or ipvlan, which others use too.
    Lower,
}

/// A device of the host's on which something was put.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Link {
    pub ifindex: u32,
    pub kind: LinkKind,
    /// The interface's index inside the network namespace.
    pub inner_ifindex: u32,
    /// Attached by a clsact qdisc and filters, on kernels before 6.6, and not by tcx.
    #[serde(default)]
    pub clsact: bool,
    /// The clsact qdisc is ours and goes with the last filter.
    #[serde(default)]
    pub clsact_made: bool,
    /// The queue of `ingress-mode=queue` is ours.
    #[serde(default)]
    pub queue: bool,
}

/// What was put where. Serialisable, so that a later process, or one after a crash, can change and remove it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    pub network: Network,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup2: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub net_cls: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub net_prio: Option<PathBuf>,
    /// The kernel's id of the state map; ids aren't reused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub map_id: Option<u32>,
    /// `None` until [`crate::attach_links`] has been recorded: then `detach` looks at every device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub links: Option<Vec<Link>>,
}

impl Record {
    /// The record to save before the first side effect: enough for [`crate::detach`] to clean up after a crash.
    pub fn planned(target: &Target) -> Record {
        Record {
            network: target.network,
            cgroup2: target.cgroup2.map(Path::to_path_buf),
            net_cls: target.net_cls.map(Path::to_path_buf),
            net_prio: target.net_prio.map(Path::to_path_buf),
            map_id: None,
            links: None,
        }
    }
}
