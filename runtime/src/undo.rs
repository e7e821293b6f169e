//! What has to be taken back: one list that a failed `create` and `delete` both walk backwards.

use serde::{Deserialize, Serialize};

use crate::error::{Context, Result};
use crate::state::Container;

/// One thing that was made outside the state directory.
///
/// It is put on the list, and the list saved, *before* the thing is made. Taking back what was never made is no
/// error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Undo {
    /// The container's cgroup, with all processes in it.
    Cgroup(cgroup::Location),
    /// A mount on the host.
    Mount(std::path::PathBuf),
    /// A group of resctrl.
    Resctrl(std::path::PathBuf),
}

impl Undo {
    /// Takes this one thing back; what is gone already is no error.
    pub fn take_back(&self) -> Result<()> {
        match self {
            Undo::Cgroup(location) => remove_cgroup(location),
            Undo::Resctrl(dir) => crate::init::attrs::rdt::remove(dir),
            Undo::Mount(path) => match nix::mount::umount2(path, nix::mount::MntFlags::MNT_DETACH) {
                Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => Ok(()),
                other => other.with_context(|| format!("unmounting {}", path.display())),
            },
        }
    }
}

/// With whatever still runs in it: without a pid namespace of its own, a container's processes outlive its first one.
fn remove_cgroup(location: &cgroup::Location) -> Result<()> {
    if location.destroy_empty() {
        return Ok(());
    }
    match cgroup::Cgroup::open(location) {
        Ok(cgroup) => cgroup.kill_all().context("killing what is left in the cgroup")?,
        Err(e) if e.kind() == cgroup::Kind::NotFound => {}
        Err(e) => return Err(e).context("opening the cgroup"),
    }
    location.destroy().context("removing the cgroup")
}

/// Takes back everything on the container's list, last first, then removes its directory. Goes on past
/// failures; the first is returned, and the directory stays so that another `delete` can try again.
pub fn take_back(container: &Container) -> Result<()> {
    let mut first = Ok(());
    // What lies on the host's side of the container's interfaces isn't on the list: `update` may have put it there, and
    // where is written in the record of the limits. While the cgroup exists it tells what the record may not know yet.
    let net = container
        .state
        .knobs
        .net
        .iter()
        .map(|record| netlimit::detach(record).context("removing the network limits"));
    for done in net.chain(container.state.undo.iter().rev().map(Undo::take_back)) {
        if let Err(e) = done {
            log::warn!("{e}");
            first = first.and(Err(e));
        }
    }
    first.and_then(|()| container.remove())
}
