//! What a monitor knows, all of it: committed to the map after every step, so that either head can go on from it.

use crate::api::{Mount, Pair, RuncOptions};
use crate::pb::message;

macro_rules! wire_enum {
    ($($(#[$meta:meta])* enum $name:ident { $($variant:ident = $n:literal),* $(,)? })*) => { $(
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($variant = $n),* }
        impl Default for $name {
            fn default() -> Self {
                [$($name::$variant),*][0]
            }
        }
        impl $crate::pb::Field for $name {
            fn put(&self, tag: u32, out: &mut Vec<u8>) {
                $crate::pb::Field::put(&(*self as u32), tag, out);
            }
            fn take(&mut self, value: $crate::pb::Value<'_>) -> $crate::error::Result<()> {
                let mut n = 0u32;
                $crate::pb::Field::take(&mut n, value)?;
                *self = match n {
                    $($n => $name::$variant,)*
                    n => return Err($crate::error::Error::new($crate::error::Kind::Unsupported, format!(concat!("unknown ", stringify!($name), " {}"), n))),
                };
                Ok(())
            }
        }
    )* };
}

wire_enum! {
    enum Phase { Added = 0, Created = 1, Running = 2, Stopped = 3 }
    /// A job done by a process of its own, at most once whatever dies meanwhile.
    enum Job {
        None = 0, Create = 1, Start = 2, Exec = 3, Kill = 4, KillAll = 5, Pause = 6, Resume = 7, Update = 8,
        Checkpoint = 9, Delete = 10, Ps = 11, Signal = 12, Prepare = 13, Restore = 14, Logger = 15, Notify = 16, Cleanup = 17,
    }
}

message! {
    /// Who asked: a connection's slot plus one (0 is nobody) and the request's number on it.
    struct Asker { 1 conn: u32, 2 stream: u32 }

    /// Numbers in the heads' descriptor table, plus one: 0 is none.
    struct Stream {
        /// Pipe or terminal that the container writes to.
        1 source: u32,
        /// The client's FIFO or file.
        2 sink: u32,
        /// Between them, where there is more than one listener.
        3 stage_in: u32, 4 stage_out: u32,
        5 ring: u32, 6 ring_in: u32, 7 ring_out: u32,
        8 spool: u32,
        /// Index into the map's marks, plus one.
        9 mark: u32,
        10 taps: Vec<Tap>,
        11 eof: bool,
        /// Sink that can't be spliced into at a place of its own: a logger's pipe is a pipe, a file is not.
        12 file: bool,
        /// Path of the ring and spool files.
        13 path: String,
        /// When the sink was first seen full, ns.
        14 blocked: u64,
        /// So many bytes of the ring are kept; 0 is the default.
        15 ring_keep: u64,
        /// After the loss of every head: what to open again.
        16 reopen: String, 17 address: String,
        /// The other end of a sink that is a logging binary's, until that has it.
        18 logger: u32,
        /// It has been told that there is no place to keep what its client does not take.
        19 homeless: bool,
    }
    /// What a client's FIFO held when its stream ended: who keeps it, who lets the client in, and since when, ns.
    struct Unread { 1 reader: u32, 2 writer: u32, 3 since: u64 }
    /// One attached client's copy of a stream.
    struct Tap { 1 sink: u32, 2 stage_in: u32, 3 stage_out: u32, 4 blocked: u64, 5 gone: bool }
    /// Client's FIFO to the container's stdin.
    struct Input { 1 source: u32, 2 closing: bool, 3 stalled: bool, 4 client: bool }

    struct Process {
        1 id: String, 2 pid: u32, 3 phase: Phase,
        4 exit_status: u32, 5 exited_at: u64, 6 core: bool, 7 unknown: bool,
        8 stdin: String, 9 stdout: String, 10 stderr: String, 11 terminal: bool,
        12 started_at: u64,
        /// Start time of the process in clock ticks, which tells it from a later one of the same number.
        13 ticks: u64,
        /// The exit is on disk, and was told.
        14 recorded: bool,
        /// All output was handed over.
        15 drained: bool,
        /// The exit is being written to disk.
        16 recording: bool,
        20 out: Option<Stream>, 21 err: Option<Stream>, 22 inputs: Vec<Input>,
        /// Write end of the container's stdin, or the terminal's master.
        23 stdin_pipe: u32,
        24 console: u32, 25 console_listener: u32,
        26 pidfd: u32,
        /// The container's ends of the pipes, closed once it has them.
        27 child_in: u32, 28 child_out: u32, 29 child_err: u32,
        30 oom: bool,
        31 size: u32,
        /// OCI process of an exec, until it was started.
        32 spec: Vec<u8>,
        /// Bytes of its output that a client never got, by the policy; and that the ring lacks, its disk being full.
        33 dropped: u64, 34 unlogged: u64,
        /// How it ended, if the process connector has said so: exit code plus one, and whether there was a core.
        35 heard: u32, 36 heard_core: bool,
        /// A signal ended it: its code says which. And what the process connector has said of that.
        37 killed: bool, 38 heard_killed: bool,
        39 unread: Vec<Unread>,
        /// The inode of the pipe that its stdin is, as long as that has not come to its end.
        40 stdin_inode: u64,
    }

    struct Task {
        1 id: String, 2 bundle: String, 3 init: Process, 4 execs: Vec<Process>,
        5 paused: bool, 6 rootfs: Vec<Mount>, 7 options: RuncOptions, 8 checkpoint: String,
        9 shared_pids: bool, 10 oom_kills: u64,
        /// Tells of changes in the cgroup's memory.
        11 cgroup_watch: u32, 16 cgroup: String,
        /// Ends with the container instead of waiting for a Delete.
        12 standalone: bool,
        13 runtime: String, 14 runtime_root: String,
        15 deleting: bool,
        /// The caller gave no options at all: what they might have said, the configuration has to tell.
        17 bare: bool,
        /// What its own annotations ask of the monitor, where that was started for another container of its pod.
        18 own: Option<Setup>,
        /// When the count of kills for want of memory was last seen to have grown, ns.
        19 oom_at: u64,
    }

    struct Op {
        1 id: u64, 2 job: Job, 3 task: String, 4 exec: String, 5 asker: Asker,
        /// Index of the pid in the map.
        6 slot: u32,
        7 args: Vec<String>, 8 input: Vec<u8>, 9 number: u32,
    }

    struct Waiter { 1 task: String, 2 exec: String, 3 asker: Asker }
    /// A request that has to wait until another job on the same container is done.
    struct Queued { 1 asker: Asker, 2 method: String, 3 payload: Vec<u8>, 4 task: String }
    /// A child that ended before anybody knew what it was.
    struct Stray { 1 pid: u32, 2 code: u32, 3 core: bool, 4 at: u64, 5 killed: bool }
    /// A Delete whose runtime part is done, waiting for the exit and the rest of the output.
    struct Closing { 1 task: String, 2 exec: String, 3 asker: Asker, 4 until: u64 }

    struct State {
        1 tasks: Vec<Task>, 2 ops: Vec<Op>, 3 waiters: Vec<Waiter>, 4 queue: Vec<Queued>, 5 strays: Vec<Stray>,
        6 closing: Vec<Closing>, 7 next_op: u64, 8 ending: bool, 9 shim_pid: u32, 10 lost: bool,
    }

    struct Conn {
        1 slot: u32, 2 fd: u32, 3 head: u64, 4 tail: u64, 5 closing: bool,
        /// So many bytes yet to come belong to a frame that was too long.
        6 skip: u64,
        /// It came by the monitor's own socket, not by containerd's.
        7 own: bool,
    }

    struct Setup {
        1 namespace: String, 2 id: String, 3 bundle: String, 4 ttrpc_address: String, 5 address: String,
        6 directory: String, 7 debug: bool, 8 disk: String, 9 standalone: bool,
        10 exit_command: Vec<String>, 11 notify_pidfile: String, 12 notify_signal: u32, 13 env: Vec<Pair>,
        14 spool_limit: u64, 15 spool_policy: String, 16 spool_deadline: u64, 17 on_loss: String, 18 exe: String,
        19 remove: bool, 20 ring_limit: u64, 21 runtime_root: String,
    }

    /// Everything that is committed.
    struct Root {
        1 setup: Setup, 2 state: State, 3 conns: Vec<Conn>,
        /// containerd's socket and our own.
        4 listeners: Vec<u64>,
        /// The event queue's file: what lies between is not yet acknowledged.
        7 events: u32, 8 events_head: u64, 9 events_tail: u64,
        /// The connection to containerd's event service; its lane is slot 0.
        10 publisher: Option<Conn>, 11 publisher_stream: u32, 13 publisher_busy: bool,
        12 log: u32,
        /// Who waits until the installed program has taken over.
        14 upgrade: Option<Asker>,
        /// Who connected last to containerd's socket, and since when that process is there, in clock ticks.
        15 daemon: u32, 16 daemon_ticks: u64,
        /// All heads were lost before: what runs has another parent, and its end is heard of by other ways.
        17 adopted: bool,
        /// One of them: the process connector.
        18 exits: u32,
    }
}

impl Process {
    /// Nothing of its output is left to pass on.
    pub fn handed_over(&self) -> bool {
        self.drained || (self.out.is_none() && self.err.is_none())
    }

    pub fn exited(&self) -> bool {
        self.exited_at != 0
    }

    /// It runs, and there was no descriptor that tells of its end: none left, or it had ended already.
    pub fn unwatched(&self) -> bool {
        self.pid != 0 && self.pidfd == 0 && !self.exited()
    }
}

impl State {
    /// Is there a container, or one being made, whose end is yet to be recorded?
    pub fn unwatched(&self) -> bool {
        let made =
            |t: &Task| self.ops.iter().any(|o| o.task == t.id && matches!(o.job, Job::Create | Job::Restore));
        self.tasks.iter().any(|t| !t.init.recorded && (t.init.pid != 0 || made(t)))
    }

    /// Nobody asks for any of its containers any more.
    pub fn abandoned(&self) -> bool {
        !self.tasks.is_empty() && self.tasks.iter().all(Task::abandoned)
    }

    pub fn task(&self, id: &str) -> Option<&Task> {
        self.tasks.iter().find(|t| t.id == id)
    }

    pub fn process(&self, id: &str, exec: &str) -> Option<&Process> {
        self.task(id)?.process(exec)
    }

    pub fn process_mut(&mut self, id: &str, exec: &str) -> Option<&mut Process> {
        self.tasks.iter_mut().find(|t| t.id == id)?.process_mut(exec)
    }
}

impl Task {
    /// The setup whose limits hold for this container's output.
    pub fn limits<'a>(&'a self, setup: &'a Setup) -> &'a Setup {
        self.own.as_ref().unwrap_or(setup)
    }

    /// Its daemon has removed the bundle, which it does last of all: nobody asks for the container any more.
    pub fn abandoned(&self) -> bool {
        !self.bundle.is_empty() && !std::path::Path::new(&self.bundle).exists()
    }

    pub fn process(&self, exec: &str) -> Option<&Process> {
        match exec {
            "" => Some(&self.init),
            exec => self.execs.iter().find(|p| p.id == exec),
        }
    }

    pub fn process_mut(&mut self, exec: &str) -> Option<&mut Process> {
        match exec {
            "" => Some(&mut self.init),
            exec => self.execs.iter_mut().find(|p| p.id == exec),
        }
    }

    pub fn processes_mut(&mut self) -> impl Iterator<Item = &mut Process> {
        std::iter::once(&mut self.init).chain(&mut self.execs)
    }

    pub fn processes(&self) -> impl Iterator<Item = &Process> {
        std::iter::once(&self.init).chain(&self.execs)
    }
}

crate::pb::always!(Asker, Process, RuncOptions, Setup, State);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::Message;

    /// What the first program with this layout wrote for a container that runs, kept as it was: no later one may read less in it.
    #[test]
    fn an_old_state_is_read_by_new_code() {
        let kept = include_bytes!("fixtures/state-2");
        let root = Root::decode(kept).unwrap();
        let setup = &root.setup;
        assert_eq!(
            (setup.namespace.as_str(), setup.id.as_str(), setup.standalone),
            ("skew", "old-one", true)
        );
        assert_eq!(
            (setup.directory.as_str(), setup.exe.as_str()),
            ("/run/hydra-shim/skew/old-one", "/srv/monitor/shim")
        );
        assert_eq!(
            (setup.spool_limit, setup.spool_policy.as_str(), setup.ring_limit),
            (16 << 20, "block", 64 << 10)
        );
        let task = root.state.task("old-one").unwrap();
        assert_eq!((task.bundle.as_str(), task.standalone), ("/srv/monitor/b", true));
        let init = &task.init;
        assert_eq!((init.pid, init.phase, init.ticks), (22559, Phase::Running, 1_511_588));
        assert!(init.started_at > 0 && !init.exited() && init.pidfd != 0);
        let (out, err) = (init.out.as_ref().unwrap(), init.err.as_ref().unwrap());
        assert_eq!((out.source, out.mark, err.source, err.mark), (11, 1, 16, 2));
        assert!(task.cgroup.ends_with("0::/old-one\n") && task.cgroup_watch != 0);
        assert_eq!((root.listeners.as_slice(), root.events), (&[4][..], 7));
        // What it knew nothing of.
        assert_eq!((task.bare, init.heard, root.adopted, root.exits), (false, 0, false, 0));
        assert_eq!((&task.own, init.killed, task.oom_at), (&None, false, 0));
    }

    /// Fields of a later program are skipped; a word that stands for something unknown is refused by name.
    #[test]
    fn a_newer_state_is_read_or_refused_by_name() {
        let kept = include_bytes!("fixtures/state-2");
        let mut newer = kept.to_vec();
        // Field 900, text.
        newer.extend([0xa2, 0x38, 2, b'h', b'i']);
        assert_eq!(Root::decode(&newer).unwrap(), Root::decode(kept).unwrap());
        // A process in a phase 9.
        let refused = Process::decode(&[3 << 3, 9]).unwrap_err();
        assert!(refused.text().contains("unknown Phase 9"), "{refused}");
    }
}
