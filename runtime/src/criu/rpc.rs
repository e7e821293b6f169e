//! criu's requests and responses; field numbers are those of its images/rpc.proto.

use super::proto::{fields, Message, Value};
use crate::cli::{CgroupsMode, Criu};

/// Kinds of requests and responses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i64)]
pub enum Kind {
    Dump = 1,
    Restore = 2,
    PreDump = 4,
    Notify = 6,
    FeatureCheck = 9,
}

/// `criu_opts`, those fields that we set.
#[derive(Debug, Default)]
pub struct Options(Message);

/// A number of a bit for `empty_ns`.
const NEW_NET: i64 = libc::CLONE_NEWNET as i64;

impl Options {
    /// What dump and restore share. The descriptors are this process's: criu opens them through /proc.
    pub fn new(args: &Criu, images: i32, work: Option<i32>, log: &str, root: &str) -> Options {
        let mode = match args.cgroups_mode {
            Some(CgroupsMode::Ignore) => 0,
            Some(CgroupsMode::Soft) => 3,
            Some(CgroupsMode::Full) => 4,
            Some(CgroupsMode::Strict) => 5,
            // criu's own default, which is soft.
            None => 6,
        };
        let mut m = Message::default();
        m.int(1, images.into()).int(9, 4).text(10, log).text(13, root);
        m.bool(4, args.ext_unix_sk)
            .bool(5, args.tcp_established)
            .bool(7, args.shell_job)
            .bool(8, args.file_locks);
        // Notifications; the obsolete switch for older ones, then the mode; masters of terminals come back by a message.
        m.bool(12, true).bool(24, true).int(34, mode).bool(50, true);
        m.bool(16, args.auto_dedup).bool(48, args.lazy_pages);
        // runc manages no network devices either: their configuration is the engine's.
        m.int(38, NEW_NET);
        if let Some(work) = work {
            m.int(17, work.into());
        }
        Options(m)
    }

    /// (field, on) for the switches of one side only.
    pub fn switch(&mut self, field: Switch, on: bool) -> &mut Options {
        self.0.bool(field as u32, on);
        self
    }

    pub fn text(&mut self, field: Text, text: &str) -> &mut Options {
        self.0.text(field as u32, text);
        self
    }

    pub fn pid(&mut self, pid: i32) -> &mut Options {
        self.0.int(2, pid.into());
        self
    }

    pub fn page_server(&mut self, address: &str, port: u16) -> &mut Options {
        self.0.message(11, Message::default().text(1, address).int(2, port.into()));
        self
    }

    /// A mount that criu doesn't save; on restore `value` is what is mounted there.
    pub fn external_mount(&mut self, key: &str, value: &str) -> &mut Options {
        self.0.message(23, Message::default().text(1, key).text(2, value));
        self
    }

    /// A descriptor of criu's own that takes the place of what was saved under `key`.
    pub fn inherit_fd(&mut self, key: &str, fd: i32) -> &mut Options {
        self.0.message(27, Message::default().text(1, key).int(2, fd.into()));
        self
    }

    pub fn join_namespace(&mut self, kind: &str, path: &str) -> &mut Options {
        self.0.message(39, Message::default().text(1, kind).text(2, path));
        self
    }

    /// The cgroup of a hierarchy that takes the place of the one that was saved.
    pub fn cgroup_root(&mut self, controllers: &str, path: &str) -> &mut Options {
        self.0.message(25, Message::default().text(1, controllers).text(2, path));
        self
    }
}

/// Fields that are on or off.
#[derive(Debug, Clone, Copy)]
#[repr(u32)]
pub enum Switch {
    LeaveRunning = 3,
    EvasiveDevices = 6,
    TrackMemory = 15,
    LinkRemap = 18,
    RestoreAsSibling = 26,
    TcpSkipInFlight = 46,
    TcpClose = 52,
}

/// Fields that are strings.
#[derive(Debug, Clone, Copy)]
#[repr(u32)]
pub enum Text {
    ParentImage = 14,
    External = 37,
    FreezeCgroup = 44,
    ConfigFile = 51,
    LsmProfile = 53,
    LsmMountContext = 63,
}

/// `criu_req`.
pub fn request(kind: Kind, options: Option<&Options>) -> Message {
    let mut m = Message::default();
    m.int(1, kind as i64);
    if let Some(options) = options {
        m.message(2, &options.0);
    }
    m
}

/// Asks whether memory can be tracked (pre-dump) and pages be loaded on demand.
pub fn feature_request(track_memory: bool, lazy_pages: bool) -> Message {
    let mut m = request(Kind::FeatureCheck, None);
    m.message(5, Message::default().bool(1, track_memory).bool(2, lazy_pages));
    m
}

/// The answer to a notification.
pub fn notified() -> Message {
    let mut m = request(Kind::Notify, None);
    m.bool(3, true);
    m
}

/// `criu_resp`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Response {
    pub kind: i64,
    pub success: bool,
    /// The notification's name and pid.
    pub script: Option<(String, i32)>,
    pub errno: i32,
    pub message: String,
    /// (memory can be tracked, pages can be loaded on demand).
    pub features: (bool, bool),
    /// 31701 is 3.17.1, as runc counts.
    pub version: i64,
}

impl Response {
    pub fn parse(bytes: &[u8]) -> Option<Response> {
        let mut response = Response::default();
        for (field, value) in fields(bytes)? {
            match (field, value) {
                (1, _) => response.kind = value.int(),
                (2, _) => response.success = value.int() != 0,
                (5, Value::Bytes(inner)) => {
                    let script = response.script.get_or_insert_default();
                    for (field, value) in fields(inner)? {
                        match field {
                            1 => script.0 = value.text(),
                            2 => script.1 = value.int() as i32,
                            _ => {}
                        }
                    }
                }
                (7, _) => response.errno = value.int() as i32,
                (8, Value::Bytes(inner)) => {
                    for (field, value) in fields(inner)? {
                        match field {
                            1 => response.features.0 = value.int() != 0,
                            2 => response.features.1 = value.int() != 0,
                            _ => {}
                        }
                    }
                }
                (9, _) => response.message = value.text(),
                (10, Value::Bytes(inner)) => {
                    for (field, value) in fields(inner)? {
                        response.version += match field {
                            1 => value.int() * 10_000,
                            2 => value.int() * 100,
                            4 => value.int(),
                            _ => 0,
                        };
                    }
                }
                _ => {}
            }
        }
        Some(response)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses() {
        let mut bytes = Message::default();
        bytes.int(1, 6).bool(2, true).message(5, Message::default().text(1, "post-restore").int(2, 42));
        let response = Response::parse(bytes.as_bytes()).unwrap();
        assert_eq!((response.kind, response.success), (Kind::Notify as i64, true));
        assert_eq!(response.script, Some(("post-restore".into(), 42)));
        let mut bytes = Message::default();
        bytes.int(1, 10).bool(2, true).message(10, Message::default().int(1, 3).int(2, 17).int(4, 1));
        assert_eq!(Response::parse(bytes.as_bytes()).unwrap().version, 31701);
        assert_eq!(Response::parse(b"\x08"), None);
    }

    #[test]
    fn a_request_says_what_was_asked() {
        let args =
            Criu { tcp_established: true, cgroups_mode: Some(CgroupsMode::Full), ..Default::default() };
        let mut options = Options::new(&args, 7, None, "dump.log", "/r");
        options.external_mount("/a", "/b").page_server("::1", 80).switch(Switch::LeaveRunning, true);
        let message = request(Kind::Dump, Some(&options));
        let all = fields(message.as_bytes()).unwrap();
        assert_eq!(all[0], (1, Value::Int(1)));
        let (2, Value::Bytes(inner)) = all[1] else { panic!() };
        let inner = fields(inner).unwrap();
        let of = |field| inner.iter().find(|(f, _)| *f == field).map(|(_, v)| *v);
        assert_eq!((of(1), of(5), of(34)), (Some(Value::Int(7)), Some(Value::Int(1)), Some(Value::Int(4))));
        assert_eq!((of(3), of(17)), (Some(Value::Int(1)), None));
        assert_eq!(of(23), Some(Value::Bytes(b"\n\x02/a\x12\x02/b")));
    }
}
