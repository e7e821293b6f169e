//! ttrpc and protocol buffers as a client of the task service needs them, written apart from the program under test.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// A message being written: fields by number.
#[derive(Default, Clone)]
pub struct Msg(pub Vec<u8>);

impl Msg {
    pub fn new() -> Msg {
        Msg::default()
    }

    pub fn int(mut self, field: u32, value: u64) -> Msg {
        varint(u64::from(field) << 3, &mut self.0);
        varint(value, &mut self.0);
        self
    }

    pub fn bytes(mut self, field: u32, value: &[u8]) -> Msg {
        varint(u64::from(field) << 3 | 2, &mut self.0);
        varint(value.len() as u64, &mut self.0);
        self.0.extend_from_slice(value);
        self
    }

    pub fn text(self, field: u32, value: &str) -> Msg {
        self.bytes(field, value.as_bytes())
    }

    /// google.protobuf.Any
    pub fn any(self, field: u32, kind: &str, value: &[u8]) -> Msg {
        self.bytes(field, &Msg::new().text(1, kind).bytes(2, value).0)
    }
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A message that was read: its fields, numbers or bytes.
#[derive(Debug, Default, Clone)]
pub struct Fields {
    numbers: HashMap<u32, u64>,
    texts: HashMap<u32, Vec<u8>>,
}

impl Fields {
    pub fn read(mut bytes: &[u8]) -> Fields {
        let mut fields = Fields::default();
        while !bytes.is_empty() {
            let key = take_varint(&mut bytes);
            match key & 7 {
                0 => drop(fields.numbers.insert((key >> 3) as u32, take_varint(&mut bytes))),
                2 => {
                    let length = take_varint(&mut bytes) as usize;
                    let (head, rest) = bytes.split_at(length);
                    fields.texts.insert((key >> 3) as u32, head.to_vec());
                    bytes = rest;
                }
                1 => bytes = &bytes[8..],
                5 => bytes = &bytes[4..],
                other => panic!("wire type {other}"),
            }
        }
        fields
    }

    pub fn int(&self, field: u32) -> u64 {
        self.numbers.get(&field).copied().unwrap_or(0)
    }

    pub fn bytes(&self, field: u32) -> &[u8] {
        self.texts.get(&field).map_or(&[], Vec::as_slice)
    }

    pub fn text(&self, field: u32) -> String {
        String::from_utf8_lossy(self.bytes(field)).into_owned()
    }

    pub fn message(&self, field: u32) -> Fields {
        Fields::read(self.bytes(field))
    }
}

fn take_varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().expect("varint");
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    value
}

/// One frame: stream, type, payload. None at the end of the connection.
pub fn read_frame(from: &mut impl Read) -> Option<(u32, u8, Vec<u8>)> {
    let mut header = [0; 10];
    from.read_exact(&mut header).ok()?;
    let word = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().expect("four"));
    let mut payload = vec![0; word(0) as usize];
    from.read_exact(&mut payload).ok()?;
    Some((word(4), header[8], payload))
}

pub fn write_frame(to: &mut impl Write, stream: u32, kind: u8, payload: &[u8]) -> std::io::Result<()> {
    let mut frame = (payload.len() as u32).to_be_bytes().to_vec();
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(&[kind, 0]);
    frame.extend_from_slice(payload);
    to.write_all(&frame)
}

/// What a call came back with: the answer's fields, or a status.
pub type Answer = Result<Fields, (u64, String)>;

#[derive(Default)]
struct Inbox {
    answers: HashMap<u32, Vec<Answer>>,
    /// When the other side hung up.
    gone: Option<Instant>,
}

/// A connection to a monitor, on which any number of calls may be under way.
pub struct Client {
    socket: Mutex<(UnixStream, u32)>,
    inbox: Arc<(Mutex<Inbox>, Condvar)>,
}

impl Client {
    pub fn connect(path: &Path) -> std::io::Result<Client> {
        let socket = UnixStream::connect(path)?;
        let mut reading = socket.try_clone()?;
        let inbox = Arc::new((Mutex::new(Inbox::default()), Condvar::new()));
        let shared = inbox.clone();
        std::thread::spawn(move || {
            while let Some((stream, _, payload)) = read_frame(&mut reading) {
                let response = Fields::read(&payload);
                let status = response.message(1);
                let answer = match status.int(1) {
                    0 => Ok(response.message(2)),
                    code => Err((code, status.text(2))),
                };
                shared.0.lock().expect("inbox").answers.entry(stream).or_default().push(answer);
                shared.1.notify_all();
            }
            shared.0.lock().expect("inbox").gone = Some(Instant::now());
            shared.1.notify_all();
        });
        Ok(Client { socket: Mutex::new((socket, 1)), inbox })
    }

    /// Sends a call to the task service; its answer is asked for by the number returned.
    pub fn begin(&self, method: &str, request: Msg) -> u32 {
        self.begin_at("containerd.task.v2.Task", method, request)
    }

    pub fn begin_at(&self, service: &str, method: &str, request: Msg) -> u32 {
        let payload = Msg::new().text(1, service).text(2, method).bytes(3, &request.0).0;
        let mut socket = self.socket.lock().expect("socket");
        let stream = socket.1;
        socket.1 += 2;
        // A hang-up shows in the inbox.
        let _ = write_frame(&mut socket.0, stream, 1, &payload);
        stream
    }

    /// The answer of a call, for which at most the host's patience is waited.
    #[track_caller]
    pub fn answer(&self, stream: u32) -> Answer {
        let start = Instant::now();
        let mut inbox = self.inbox.0.lock().expect("inbox");
        loop {
            if let Some(answer) = inbox.answers.get(&stream) {
                return answer[0].clone();
            }
            assert!(inbox.gone.is_none(), "the monitor hung up before it answered call {stream}");
            let left = crate::host::patience().checked_sub(start.elapsed());
            let left = left.unwrap_or_else(|| panic!("no answer to call {stream}"));
            inbox = self.inbox.1.wait_timeout(inbox, left.min(Duration::from_secs(1))).expect("inbox").0;
        }
    }

    /// Whether the answer is there.
    pub fn answered(&self, stream: u32) -> bool {
        self.inbox.0.lock().expect("inbox").answers.contains_key(&stream)
    }

    #[track_caller]
    pub fn call(&self, method: &str, request: Msg) -> Answer {
        self.answer(self.begin(method, request))
    }

    /// A call that has to succeed.
    #[track_caller]
    pub fn ok(&self, method: &str, request: Msg) -> Fields {
        self.call(method, request).unwrap_or_else(|(code, text)| panic!("{method}: status {code}: {text}"))
    }

    pub fn connected(&self) -> bool {
        self.inbox.0.lock().expect("inbox").gone.is_none()
    }

    /// Calls that were answered more than once.
    pub fn answered_twice(&self) -> Vec<u32> {
        let inbox = self.inbox.0.lock().expect("inbox");
        inbox.answers.iter().filter(|(_, a)| a.len() > 1).map(|(s, _)| *s).collect()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.socket.lock().map(|s| s.0.shutdown(std::net::Shutdown::Both));
    }
}
