//! The messages of containerd's task service (v2 and v3 are the same on the wire), its events, runc's options, and ours.

use crate::pb::{message, Message};

pub const TASK_V2: &str = "containerd.task.v2.Task";
pub const TASK_V3: &str = "containerd.task.v3.Task";
/// Our own service, on the same sockets.
pub const MONITOR: &str = "hydra.shim.v1.Monitor";

message! {
    struct Any { 1 type_url: String, 2 value: Vec<u8> }
    struct Timestamp { 1 seconds: i64, 2 nanos: i32 }
    struct Pair { 1 key: String, 2 value: String }
    struct Mount { 1 kind: String, 2 source: String, 3 target: String, 4 options: Vec<String> }

    struct CreateRequest {
        1 id: String, 2 bundle: String, 3 rootfs: Vec<Mount>, 4 terminal: bool, 5 stdin: String, 6 stdout: String,
        7 stderr: String, 8 checkpoint: String, 9 parent_checkpoint: String, 10 options: Option<Any>,
    }
    /// The answer of Create and of Start.
    struct PidResponse { 1 pid: u32 }
    /// Most requests name a container and maybe an exec, and nothing else.
    struct Target { 1 id: String, 2 exec_id: String }
    struct DeleteResponse { 1 pid: u32, 2 exit_status: u32, 3 exited_at: Option<Timestamp> }
    struct ExecRequest {
        1 id: String, 2 exec_id: String, 3 terminal: bool, 4 stdin: String, 5 stdout: String, 6 stderr: String,
        7 spec: Option<Any>,
    }
    struct ResizeRequest { 1 id: String, 2 exec_id: String, 3 width: u32, 4 height: u32 }
    struct StateResponse {
        1 id: String, 2 bundle: String, 3 pid: u32, 4 status: u32, 5 stdin: String, 6 stdout: String, 7 stderr: String,
        8 terminal: bool, 9 exit_status: u32, 10 exited_at: Option<Timestamp>, 11 exec_id: String,
    }
    struct KillRequest { 1 id: String, 2 exec_id: String, 3 signal: u32, 4 all: bool }
    struct CloseIoRequest { 1 id: String, 2 exec_id: String, 3 stdin: bool }
    struct ProcessInfo { 1 pid: u32, 2 info: Option<Any> }
    struct ProcessDetails { 1 exec_id: String }
    struct PidsResponse { 1 processes: Vec<ProcessInfo> }
    struct CheckpointRequest { 1 id: String, 2 path: String, 3 options: Option<Any> }
    struct CheckpointOptions {
        1 exit: bool, 2 open_tcp: bool, 3 external_unix_sockets: bool, 4 terminal: bool, 5 file_locks: bool,
        6 empty_namespaces: Vec<String>, 7 cgroups_mode: String, 8 image_path: String, 9 work_path: String,
    }
    struct UpdateRequest { 1 id: String, 2 resources: Option<Any>, 3 annotations: Vec<Pair> }
    struct WaitResponse { 1 exit_status: u32, 2 exited_at: Option<Timestamp> }
    struct StatsResponse { 1 stats: Option<Any> }
    struct ConnectResponse { 1 shim_pid: u32, 2 task_pid: u32, 3 version: String }

    /// A listener to a running container: FIFOs that the client made in the monitor's directory.
    struct AttachRequest { 1 id: String, 2 exec_id: String, 3 stdin: String, 4 stdout: String, 5 stderr: String }
    struct AttachResponse { 1 terminal: bool }

    /// containerd.runc.v1.Options
    struct RuncOptions {
        1 no_pivot_root: bool, 2 no_new_keyring: bool, 3 shim_cgroup: String, 4 io_uid: u32, 5 io_gid: u32,
        6 binary_name: String, 7 root: String, 9 systemd_cgroup: bool, 10 criu_image_path: String,
        11 criu_work_path: String, 12 task_api_address: String, 13 task_api_version: u32,
    }
    /// runtimeoptions.v1.Options
    struct RuntimeOptions { 1 type_url: String, 2 config_path: String, 3 config_body: Vec<u8> }
    struct Extension { 1 value: Option<Any> }
    struct BootstrapParams {
        1 instance_id: String, 2 namespace: String, 3 log_level: i32, 4 containerd_version: String,
        5 containerd_ttrpc_address: String, 6 containerd_grpc_address: String, 7 containerd_binary: String,
        8 extensions: Vec<Extension>, 9 socket_dir: String,
    }
    struct RuntimeVersion { 1 version: String, 2 revision: String }
    struct RuntimeInfo {
        1 name: String, 2 version: Option<RuntimeVersion>, 3 options: Option<Any>, 4 features: Option<Any>,
        5 annotations: Vec<Pair>,
    }

    struct Envelope { 1 timestamp: Option<Timestamp>, 2 namespace: String, 3 topic: String, 4 event: Option<Any> }
    struct ForwardRequest { 1 envelope: Option<Envelope> }
    struct TaskIo { 1 stdin: String, 2 stdout: String, 3 stderr: String, 4 terminal: bool }
    struct TaskCreate {
        1 container_id: String, 2 bundle: String, 3 rootfs: Vec<Mount>, 4 io: Option<TaskIo>, 5 checkpoint: String, 6 pid: u32,
    }
    struct TaskStart { 1 container_id: String, 2 pid: u32 }
    struct TaskDelete {
        1 container_id: String, 2 pid: u32, 3 exit_status: u32, 4 exited_at: Option<Timestamp>, 5 id: String,
    }
    struct TaskExit {
        1 container_id: String, 2 id: String, 3 pid: u32, 4 exit_status: u32, 5 exited_at: Option<Timestamp>,
    }
    /// TaskOOM, TaskPaused and TaskResumed.
    struct TaskNamed { 1 container_id: String }
    struct TaskExecAdded { 1 container_id: String, 2 exec_id: String }
    struct TaskExecStarted { 1 container_id: String, 2 exec_id: String, 3 pid: u32 }
}

impl Timestamp {
    pub fn from_ns(ns: u64) -> Option<Timestamp> {
        (ns != 0)
            .then_some(Timestamp { seconds: (ns / 1_000_000_000) as i64, nanos: (ns % 1_000_000_000) as i32 })
    }
}

impl Any {
    pub fn of(type_url: &str, message: &impl Message) -> Option<Any> {
        Some(Any { type_url: type_url.into(), value: message.bytes() })
    }
}

/// The options that reach a shim, in whichever of three wrappings the caller used.
pub fn runc_options(any: Option<&Any>) -> crate::error::Result<RuncOptions> {
    let Some(any) = any else { return Ok(RuncOptions::default()) };
    let name = any.type_url.rsplit('/').next().unwrap_or_default();
    match name {
        "" => Ok(RuncOptions::default()),
        "containerd.runc.v1.Options" => RuncOptions::decode(&any.value),
        // Options of a runtimeType that containerd has no type for: a TOML body, which is empty unless somebody wrote one.
        "runtimeoptions.v1.Options" => from_toml(&RuntimeOptions::decode(&any.value)?),
        other => Err(crate::error::Error::new(
            crate::error::Kind::Unsupported,
            format!("unknown runtime options {other}: containerd.runc.v1.Options and runtimeoptions.v1.Options are read"),
        )),
    }
}

/// Did the caller say nothing by its options? For a runtime of another name than its own containerd's CRI service sends an empty
/// message whatever its configuration has (up to 1.7).
pub fn says_nothing(any: Option<&Any>) -> bool {
    let Some(any) = any.filter(|a| !a.type_url.is_empty()) else { return true };
    let options = RuntimeOptions::decode(&any.value).unwrap_or_default();
    any.type_url.ends_with("runtimeoptions.v1.Options")
        && options.config_body.is_empty()
        && options.config_path.is_empty()
}

/// `Key = value` lines, the names of runc's options; anything else is refused by name.
fn from_toml(options: &RuntimeOptions) -> crate::error::Result<RuncOptions> {
    let invalid = |what: String| crate::error::Error::new(crate::error::Kind::Invalid, what);
    let text = if options.config_body.is_empty() && !options.config_path.is_empty() {
        std::fs::read_to_string(&options.config_path)?
    } else {
        String::from_utf8(options.config_body.clone())
            .map_err(|_| invalid("runtime options are not UTF-8".into()))?
    };
    let mut out = RuncOptions::default();
    for line in text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with(['#', '['])) {
        let (key, value) =
            line.split_once('=').ok_or_else(|| invalid(format!("runtime option {line:?} has no value")))?;
        let value = value.trim().trim_matches(['"', '\'']);
        let number =
            || value.parse::<u32>().map_err(|_| invalid(format!("runtime option {line:?}: not a number")));
        match key.trim().trim_matches('"') {
            "BinaryName" => out.binary_name = value.into(),
            "Root" => out.root = value.into(),
            "ShimCgroup" => out.shim_cgroup = value.into(),
            "SystemdCgroup" => out.systemd_cgroup = value == "true",
            "NoPivotRoot" => out.no_pivot_root = value == "true",
            "NoNewKeyring" => out.no_new_keyring = value == "true",
            "IoUid" => out.io_uid = number()?,
            "IoGid" => out.io_gid = number()?,
            "CriuImagePath" => out.criu_image_path = value.into(),
            "CriuWorkPath" => out.criu_work_path = value.into(),
            // Written by containerd's own defaults, and without a meaning for a shim.
            "TypeUrl" | "ConfigPath" | "ConfigBody" | "CriuPath" => {}
            other => return Err(invalid(format!("unknown runtime option {other}"))),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_in_each_wrapping() {
        let wanted =
            RuncOptions { binary_name: "crun".into(), systemd_cgroup: true, ..RuncOptions::default() };
        assert_eq!(runc_options(Any::of("containerd.runc.v1.Options", &wanted).as_ref()).unwrap(), wanted);
        let toml = RuntimeOptions {
            config_body: b"BinaryName = \"crun\"\nSystemdCgroup = true\n".to_vec(),
            ..Default::default()
        };
        assert_eq!(runc_options(Any::of("runtimeoptions.v1.Options", &toml).as_ref()).unwrap(), wanted);
        assert_eq!(runc_options(None).unwrap(), RuncOptions::default());
        let (runc, empty) = (
            Any::of("containerd.runc.v1.Options", &wanted),
            Any::of("runtimeoptions.v1.Options", &RuntimeOptions::default()),
        );
        let toml_any = Any::of("runtimeoptions.v1.Options", &toml);
        let nothing =
            [None, empty.as_ref(), Some(&Any::default()), runc.as_ref(), toml_any.as_ref()].map(says_nothing);
        assert_eq!(nothing, [true, true, true, false, false]);
        let odd = RuntimeOptions { config_body: b"Colour = \"red\"".to_vec(), ..Default::default() };
        assert!(runc_options(Any::of("runtimeoptions.v1.Options", &odd).as_ref())
            .unwrap_err()
            .text()
            .contains("Colour"));
    }
}
