//! Handing the listener to the seccomp agent.

use std::io::IoSlice;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use nix::sys::socket::{sendmsg, ControlMessage, MsgFlags};
use serde::Serialize;

use super::Notify;
use crate::error::{Context, Error, Kind, Result};

/// runtime.md, "The Container Process State": what the agent gets besides the descriptor.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerProcessState<'a, S: Serialize> {
    oci_version: &'a str,
    fds: [&'a str; 1],
    pid: i32,
    #[serde(skip_serializing_if = "str::is_empty")]
    metadata: &'a str,
    state: S,
}

impl<'a, S: Serialize> ContainerProcessState<'a, S> {
    /// `pid` is the process that loaded the filter, as the runtime sees it; `state` is the container's, with the status
    /// `creating` during create and `running` during exec.
    pub fn new(oci_version: &'a str, notify: &'a Notify, pid: i32, state: S) -> Self {
        let metadata = &notify.listener_metadata;
        ContainerProcessState { oci_version, fds: ["seccompFd"], pid, metadata, state }
    }
}

/// Sends `state` with the listener to the agent: one message, the descriptor attached.
pub fn notify<S: Serialize>(
    notify: &Notify,
    state: &ContainerProcessState<'_, S>,
    listener: BorrowedFd<'_>,
) -> Result<()> {
    let path = &notify.listener_path;
    let agent = UnixStream::connect(path).with_context(|| {
        format!("failed to connect with seccomp agent specified in the seccomp profile ({path})")
    })?;
    let json = serde_json::to_vec(state).map_err(|e| Error::new(Kind::System, e.to_string()))?;
    let fds = [listener.as_raw_fd()];
    let sent = sendmsg::<()>(
        agent.as_raw_fd(),
        &[IoSlice::new(&json)],
        &[ControlMessage::ScmRights(&fds)],
        MsgFlags::MSG_NOSIGNAL,
        None,
    )
    .with_context(|| format!("cannot send seccomp fd to {path}"))?;
    // A blocking stream takes less than the whole only when it is interrupted.
    std::io::Write::write_all(&mut &agent, &json[sent..])
        .with_context(|| format!("cannot send seccomp state to {path}"))
}
