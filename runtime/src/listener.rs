//! Hands the seccomp listener to the agent that config.json names (config-linux.md, "The Container Process State").

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use serde::Serialize;

use crate::error::{Context, Error, Kind, Result};
use crate::plan::Plan;
use crate::sockets;
use crate::state::OciState;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ContainerProcessState<'a> {
    oci_version: &'static str,
    fds: [&'static str; 1],
    pid: i32,
    #[serde(skip_serializing_if = "str::is_empty")]
    metadata: &'a str,
    state: OciState<'a>,
}

/// `state.pid` is the process that the filter is on; `init` the container's first, if that is another.
pub fn send(plan: &Plan, pid: i32, state: OciState<'_>, fd: OwnedFd) -> Result<()> {
    let notify = plan.seccomp.as_ref().and_then(|f| f.notify.as_ref());
    let Some(notify) = notify else {
        return Err(Error::new(Kind::System, "a seccomp listener without linux.seccomp.listenerPath"));
    };
    let message = ContainerProcessState {
        oci_version: crate::spec::VERSION,
        fds: ["seccompFd"],
        pid,
        metadata: &notify.listener_metadata,
        state,
    };
    let text = serde_json::to_vec(&message).map_err(|e| Error::new(Kind::System, e.to_string()))?;
    let socket = sockets::connect(Path::new(&notify.listener_path), "seccomp agent's socket")
        .context("linux.seccomp.listenerPath")?;
    sockets::send_fd(socket.as_fd(), fd.as_fd(), &text).context("sending the seccomp listener")
}
