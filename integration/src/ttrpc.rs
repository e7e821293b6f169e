//! A client of shims, containerd's and ours alike: it starts one the way containerd does, speaks ttrpc with it, and takes
//! its events in containerd's stead. Messages are lists of numbered fields, as they lie on the wire.

use crate::bundle::Bundle;
use crate::command::Run;
use crate::{eventually, host, janitor};
use nix::fcntl::{fcntl, FcntlArg, OFlag};
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// A protobuf message without its schema.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Message(Vec<(u32, Value)>);

#[derive(Debug, Clone, PartialEq)]
enum Value {
    Number(u64),
    Bytes(Vec<u8>),
}

fn put_varint(mut n: u64, out: &mut Vec<u8>) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn take_varint(bytes: &mut &[u8]) -> u64 {
    let (mut n, mut shift) = (0, 0);
    loop {
        let (byte, rest) = bytes.split_first().expect("a whole varint");
        *bytes = rest;
        n |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            return n;
        }
    }
}

impl Message {
    pub fn new() -> Message {
        Message::default()
    }

    pub fn number(mut self, tag: u32, n: u64) -> Message {
        self.0.push((tag, Value::Number(n)));
        self
    }

    pub fn bytes(mut self, tag: u32, bytes: impl Into<Vec<u8>>) -> Message {
        self.0.push((tag, Value::Bytes(bytes.into())));
        self
    }

    pub fn text(self, tag: u32, text: &str) -> Message {
        self.bytes(tag, text)
    }

    pub fn message(self, tag: u32, message: &Message) -> Message {
        self.bytes(tag, message.encode())
    }

    /// A google.protobuf.Any.
    pub fn any(self, tag: u32, type_url: &str, value: impl Into<Vec<u8>>) -> Message {
        self.message(tag, &Message::new().text(1, type_url).bytes(2, value))
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (tag, value) in &self.0 {
            match value {
                Value::Number(n) => {
                    put_varint(u64::from(*tag) << 3, &mut out);
                    put_varint(*n, &mut out);
                }
                Value::Bytes(b) => {
                    put_varint(u64::from(*tag) << 3 | 2, &mut out);
                    put_varint(b.len() as u64, &mut out);
                    out.extend_from_slice(b);
                }
            }
        }
        out
    }

    pub fn decode(mut bytes: &[u8]) -> Message {
        let mut message = Message::new();
        while !bytes.is_empty() {
            let key = take_varint(&mut bytes);
            let value = match key & 7 {
                0 => Value::Number(take_varint(&mut bytes)),
                1 => {
                    let (head, rest) = bytes.split_at(8);
                    bytes = rest;
                    Value::Number(u64::from_le_bytes(head.try_into().expect("8 bytes")))
                }
                2 => {
                    let length = take_varint(&mut bytes) as usize;
                    let (head, rest) = bytes.split_at(length);
                    bytes = rest;
                    Value::Bytes(head.to_vec())
                }
                other => panic!("wire type {other}"),
            };
            message.0.push(((key >> 3) as u32, value));
        }
        message
    }

    pub fn get(&self, tag: u32) -> u64 {
        let found = self.0.iter().find_map(|(t, v)| match v {
            Value::Number(n) if *t == tag => Some(*n),
            _ => None,
        });
        found.unwrap_or(0)
    }

    /// Every value of a repeated field.
    pub fn all(&self, tag: u32) -> Vec<Vec<u8>> {
        let of = |(t, v): &(u32, Value)| match v {
            Value::Bytes(b) if *t == tag => Some(b.clone()),
            _ => None,
        };
        self.0.iter().filter_map(of).collect()
    }

    pub fn get_bytes(&self, tag: u32) -> Vec<u8> {
        self.all(tag).into_iter().next().unwrap_or_default()
    }

    pub fn get_text(&self, tag: u32) -> String {
        String::from_utf8_lossy(&self.get_bytes(tag)).into_owned()
    }

    pub fn get_message(&self, tag: u32) -> Message {
        Message::decode(&self.get_bytes(tag))
    }
}

/// A gRPC status that is not OK.
#[derive(Debug, Clone, PartialEq)]
pub struct Refused {
    pub code: u64,
    pub text: String,
}

pub type Answer = Result<Message, Refused>;

fn send(socket: &mut UnixStream, stream: u32, kind: u8, payload: &[u8]) {
    let mut frame = (payload.len() as u32).to_be_bytes().to_vec();
    frame.extend(stream.to_be_bytes());
    frame.extend([kind, 0]);
    frame.extend(payload);
    socket.write_all(&frame).expect("a frame sent");
}

fn receive(socket: &mut UnixStream) -> std::io::Result<(u32, Vec<u8>)> {
    let mut header = [0; 10];
    socket.read_exact(&mut header)?;
    let word = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().expect("4 bytes"));
    let mut payload = vec![0; word(0) as usize];
    socket.read_exact(&mut payload)?;
    Ok((word(4), payload))
}

/// A connection to a shim.
pub struct Client {
    socket: UnixStream,
    stream: u32,
    service: String,
}

impl Client {
    pub fn connect(path: &Path, service: &str) -> Client {
        let socket = UnixStream::connect(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        socket.set_read_timeout(Some(host::patience())).expect("a timeout");
        Client { socket, stream: 1, service: service.into() }
    }

    pub fn call(&mut self, method: &str, request: &Message) -> Answer {
        let stream = self.ask(method, request);
        self.answer(stream)
    }

    /// Asks and does not wait.
    pub fn ask(&mut self, method: &str, request: &Message) -> u32 {
        let stream = self.stream;
        self.stream += 2;
        let request =
            Message::new().text(1, &self.service).text(2, method).bytes(3, request.encode()).encode();
        send(&mut self.socket, stream, 1, &request);
        stream
    }

    pub fn answer(&mut self, stream: u32) -> Answer {
        loop {
            let (of, payload) = receive(&mut self.socket).expect("an answer of the shim");
            if of != stream {
                continue;
            }
            let response = Message::decode(&payload);
            let status = response.get_message(1);
            return match status.get(1) {
                0 => Ok(response.get_message(2)),
                code => Err(Refused { code, text: status.get_text(2) }),
            };
        }
    }
}

/// An event: its topic, and the message without the type.
pub type Event = (String, Message);

/// The socket and the task service that a shim's answer to `start` tells of: an address alone, or the JSON of containerd 2's shim.
fn reached_by(said: &str) -> (PathBuf, &'static str) {
    let json: serde_json::Value = serde_json::from_str(said).unwrap_or_default();
    let address = json["address"].as_str().unwrap_or(said);
    let service = if json["version"].as_u64().is_some_and(|v| v >= 3) { TASK_V3 } else { TASK };
    (PathBuf::from(address.trim_start_matches("unix://")), service)
}

/// Takes events in containerd's stead, but for those that it is to refuse: with these statuses, one after the other.
fn take_events(listener: UnixListener, events: Arc<Mutex<Vec<Event>>>, refusals: Arc<Mutex<Vec<u64>>>) {
    for socket in listener.incoming().flatten() {
        let (mut socket, events, refusals) = (socket, events.clone(), refusals.clone());
        std::thread::spawn(move || {
            while let Ok((stream, payload)) = receive(&mut socket) {
                let refused = refusals.lock().expect("refusals").pop();
                if let Some(code) = refused {
                    let status = Message::new().number(1, code).text(2, "not now");
                    send(&mut socket, stream, 2, &Message::new().message(1, &status).encode());
                    continue;
                }
                let envelope = Message::decode(&payload).get_message(3).get_message(1);
                let event = Message::decode(&envelope.get_message(4).get_bytes(2));
                events.lock().expect("events").push((envelope.get_text(3), event));
                send(&mut socket, stream, 2, &[]);
            }
        });
    }
}

/// A shim that was started for a bundle, in a folder laid out as containerd does it.
pub struct Shim {
    pub id: String,
    pub bundle: Bundle,
    pub socket: PathBuf,
    pub client: Client,
    pub events: Arc<Mutex<Vec<Event>>>,
    /// Statuses with which the next events are refused, the last one first.
    pub refusals: Arc<Mutex<Vec<u64>>>,
    /// The task service that it speaks.
    service: &'static str,
    binary: PathBuf,
    /// containerd's, if there were one.
    address: PathBuf,
}

/// The task service of shims up to containerd 1.7, and ours.
pub const TASK: &str = "containerd.task.v2.Task";
/// That of shims from containerd 2 on, and ours too. The messages are the same.
pub const TASK_V3: &str = "containerd.task.v3.Task";
/// The containerd namespace of these tests.
pub const NAMESPACE: &str = "hydra-test";

impl Shim {
    /// Starts `binary` for a bundle whose config.json `change` may alter. `stdin` is what `start` reads.
    pub fn start(binary: &Path, id: &str, stdin: &[u8], change: impl FnOnce(&mut serde_json::Value)) -> Shim {
        Shim::timed(binary, id, stdin, change).0
    }

    /// The same, and the instant at which the shim's program was called.
    pub fn timed(
        binary: &Path,
        id: &str,
        stdin: &[u8],
        change: impl FnOnce(&mut serde_json::Value),
    ) -> (Shim, Instant) {
        let events = Arc::new(Mutex::new(Vec::new()));
        let address = janitor::scratch().join("events").join(id);
        std::fs::create_dir_all(&address).expect("a folder");
        let listener = UnixListener::bind(address.join("c.sock.ttrpc")).expect("the events' socket");
        let refusals = Arc::new(Mutex::new(Vec::new()));
        let (taken, refused) = (events.clone(), refusals.clone());
        std::thread::spawn(move || take_events(listener, taken, refused));
        let (shim, begun) = Shim::launch(binary, id, stdin, &address.join("c.sock"), events, change);
        (Shim { refusals, ..shim }, begun)
    }

    /// Another container that the shim of `first` is to serve too.
    pub fn join(first: &Shim, id: &str, change: impl FnOnce(&mut serde_json::Value)) -> Shim {
        Shim::launch(&first.binary, id, &[], &first.address, first.events.clone(), change).0
    }

    fn launch(
        binary: &Path,
        id: &str,
        stdin: &[u8],
        address: &Path,
        events: Arc<Mutex<Vec<Event>>>,
        change: impl FnOnce(&mut serde_json::Value),
    ) -> (Shim, Instant) {
        let mut bundle = Bundle::new(id);
        change(&mut bundle.config);
        bundle.write();
        let dir = bundle.dir.display();
        janitor::at_end(&format!(
            "cd {dir}; {} -namespace {NAMESPACE} -id {id} -address {} -bundle {dir} delete; cd /",
            binary.display(),
            address.display(),
        ));
        janitor::at_end(&format!(
            "kill $(cat {dir}/shim.pid); pkill -KILL -f -- '-namespace {NAMESPACE} -id {id} '; for i in $(seq 50); do pkill -KILL -f -- 'monitor {NAMESPACE}/{id}$' || break; done"
        ));
        let log = bundle.dir.join("log");
        nix::unistd::mkfifo(&log, nix::sys::stat::Mode::from_bits_truncate(0o600)).expect("a FIFO");
        let mut log = File::options().read(true).write(true).open(log).expect("the log");
        // As containerd does: a shim whose log is full stands still.
        std::thread::spawn(move || while log.read(&mut [0; 4096]).is_ok_and(|n| n > 0) {});
        let mut start = Shim::command(binary, id, address, &bundle.dir, "start").command();
        start.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let begun = Instant::now();
        // As containerd does: by pipes, which the monitor must not keep.
        let mut child = start.spawn().expect("a shim");
        child.stdin.take().expect("a pipe").write_all(stdin).expect("options");
        let out = child.wait_with_output().expect("its end");
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        let error = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{} start: {}: {said}{error}", binary.display(), out.status);
        let (socket, service) = reached_by(said.trim());
        let client = Client::connect(&socket, service);
        let (id, binary, address, refusals) = (id.into(), binary.into(), address.into(), Arc::default());
        (Shim { id, bundle, socket, client, events, refusals, service, binary, address }, begun)
    }

    /// A command line as containerd writes it.
    pub fn command(binary: &Path, id: &str, address: &Path, dir: &Path, action: &str) -> Run {
        let address = address.to_str().expect("a path");
        Run::new(binary)
            .args(["-namespace", NAMESPACE, "-address", address, "-publish-binary", "/usr/bin/containerd"])
            .args(["-id", id, action])
            .env("TTRPC_ADDRESS", format!("{address}.ttrpc"))
            .env("GRPC_ADDRESS", address)
            .dir(dir)
    }

    /// `delete`, as containerd calls it when it lost the shim.
    pub fn delete(&self) -> Message {
        let answer = self.bundle.dir.join("deleted");
        Shim::command(&self.binary, &self.id, &self.address, &self.bundle.dir, "delete")
            .stdout_to(&answer)
            .out()
            .ok();
        Message::decode(&std::fs::read(answer).expect("an answer"))
    }

    /// The address of the daemon that it was started for.
    pub fn daemon(&self) -> &str {
        self.address.to_str().expect("a path")
    }

    /// A second connection.
    pub fn another(&self) -> Client {
        Client::connect(&self.socket, self.service)
    }

    /// A request that names the container alone.
    pub fn target(&self) -> Message {
        Message::new().text(1, &self.id)
    }

    pub fn exec_target(&self, exec: &str) -> Message {
        self.target().text(2, exec)
    }

    /// Create, with the runtime named and FIFOs (or what else the addresses say) for the streams.
    pub fn create(&mut self, terminal: bool, streams: [&str; 3], options: Message) -> Answer {
        let request = self
            .target()
            .text(2, self.bundle.dir.to_str().expect("a path"))
            .number(4, u64::from(terminal))
            .text(5, streams[0])
            .text(6, streams[1])
            .text(7, streams[2])
            .any(10, "containerd.runc.v1.Options", options.encode());
        self.client.call("Create", &request)
    }

    /// Options that name the runtime and a root of its own.
    pub fn options(&self, runtime: &Path) -> Message {
        let root = janitor::scratch().join("roots");
        Message::new()
            .text(6, runtime.to_str().expect("a path"))
            .text(7, root.join("shim").to_str().expect("a path"))
    }

    pub fn call(&mut self, method: &str) -> Answer {
        let target = self.target();
        self.client.call(method, &target)
    }

    /// Exec: only registers.
    pub fn exec(&mut self, exec: &str, terminal: bool, streams: [&str; 3], args: &[&str]) -> Answer {
        let mut process = self.bundle.config["process"].clone();
        process["args"] = serde_json::json!(args);
        process["terminal"] = terminal.into();
        let request = self
            .exec_target(exec)
            .number(3, u64::from(terminal))
            .text(4, streams[0])
            .text(5, streams[1])
            .text(6, streams[2])
            .any(7, "types.containerd.io/opencontainers/runtime-spec/1/Process", process.to_string());
        self.client.call("Exec", &request)
    }

    pub fn start_exec(&mut self, exec: &str) -> Answer {
        let target = self.exec_target(exec);
        self.client.call("Start", &target)
    }

    /// How a process (init: the empty name) ended.
    pub fn wait(&mut self, exec: &str) -> Answer {
        let target = self.exec_target(exec);
        self.client.call("Wait", &target)
    }

    pub fn kill(&mut self, exec: &str, signal: u64, all: bool) -> Answer {
        let request = self.exec_target(exec).number(3, signal).number(4, u64::from(all));
        self.client.call("Kill", &request)
    }

    pub fn delete_exec(&mut self, exec: &str) -> Answer {
        let target = self.exec_target(exec);
        self.client.call("Delete", &target)
    }

    /// Topics of the events until now, with the exec that they concern.
    pub fn topics(&self) -> Vec<String> {
        let events = self.events.lock().expect("events");
        let name = |(topic, event): &Event| match topic.as_str() {
            "/tasks/exec-added" | "/tasks/exec-started" => format!("{topic} {}", event.get_text(2)),
            "/tasks/exit" if event.get_text(2) != self.id => {
                format!("{topic} {} {}", event.get_text(2), event.get(4))
            }
            "/tasks/exit" => format!("{topic} init {}", event.get(4)),
            _ => topic.clone(),
        };
        events.iter().map(name).collect()
    }

    /// Whether it is not containerd's own.
    pub fn is_ours(&self) -> bool {
        self.binary == host::shim()
    }

    fn told(&self, topic: &str) -> bool {
        self.events.lock().expect("events").iter().any(|e| e.0 == topic)
    }

    /// Ends what is left, and the shim with it.
    pub fn end(mut self) -> Vec<String> {
        let _ = self.kill("", 9, true);
        let _ = self.wait("");
        let deleted = self.call("Delete").is_ok();
        // The shim of containerd 2 may end with its last event untold. Ours may not.
        if !self.is_ours() && (deleted || self.told("/tasks/create")) {
            eventually("the deletion is told", || self.told("/tasks/delete"));
        }
        let stream = self.client.ask("Shutdown", &self.target());
        // A shim may go without a last word.
        let mut rest = Vec::new();
        let _ = (stream, self.client.socket.read_to_end(&mut rest));
        self.topics()
    }
}

/// FIFOs for one process, kept open for reading and writing; what came out of each is read by a thread.
pub struct Fifos {
    dir: PathBuf,
    output: Arc<Mutex<BTreeMap<&'static str, Vec<u8>>>>,
    stdin: Option<File>,
}

impl Fifos {
    pub fn new(name: &str, stdin: bool) -> Fifos {
        let dir = janitor::scratch().join("fifos").join(name);
        std::fs::create_dir_all(&dir).expect("a folder");
        let output = Arc::new(Mutex::new(BTreeMap::new()));
        for stream in ["stdin", "stdout", "stderr"] {
            let mode = nix::sys::stat::Mode::from_bits_truncate(0o600);
            nix::unistd::mkfifo(&dir.join(stream), mode).expect("a FIFO");
        }
        for stream in ["stdout", "stderr"] {
            // Opened before anybody is asked to write, as containerd does: what is written and closed with no reader there is lost.
            let mut open = File::options();
            open.read(true).custom_flags(libc::O_NONBLOCK);
            let (mut file, output) = (open.open(dir.join(stream)).expect("a FIFO opened"), output.clone());
            std::thread::spawn(move || {
                // Until a writer is there, a read would find the end.
                let mut first = [PollFd::new(file.as_fd(), PollFlags::POLLIN)];
                while poll(&mut first, PollTimeout::NONE).is_err() {}
                fcntl(&file, FcntlArg::F_SETFL(OFlag::empty())).expect("a FIFO that blocks");
                let mut chunk = [0; 65536];
                while let Ok(n @ 1..) = file.read(&mut chunk) {
                    let mut output = output.lock().expect("output");
                    output.entry(stream).or_insert_with(Vec::new).extend_from_slice(&chunk[..n]);
                }
                output.lock().expect("output").entry("ended").or_insert_with(Vec::new).push(b'.');
            });
        }
        let open = || File::options().read(true).write(true).open(dir.join("stdin"));
        let stdin = stdin.then(|| open().expect("stdin"));
        Fifos { dir, output, stdin }
    }

    pub fn paths(&self) -> [String; 3] {
        ["stdin", "stdout", "stderr"].map(|s| match (s, &self.stdin) {
            ("stdin", None) => String::new(),
            _ => self.dir.join(s).to_str().expect("a path").to_string(),
        })
    }

    pub fn write(&mut self, text: &str) {
        self.stdin.as_mut().expect("stdin").write_all(text.as_bytes()).expect("written");
    }

    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    pub fn read(&self, stream: &str) -> String {
        let output = self.output.lock().expect("output");
        String::from_utf8_lossy(output.get(stream).map_or(&[][..], |v| v)).into_owned()
    }

    /// How many of the streams have come to their end.
    pub fn ended(&self) -> usize {
        self.read("ended").len()
    }
}
