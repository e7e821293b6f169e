//! A connection to a message bus, as far as asking systemd needs one.

use std::env;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::value::{pad, Reader, Value};
use crate::error::{Context, Error, Kind, Result};

const CALL: u8 = 1;
const REPLY: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;
/// The specification's limit is 128 MiB; nothing that systemd says to us comes near this.
const LARGEST: usize = 16 << 20;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// An open connection.
#[derive(Debug)]
pub struct Bus {
    stream: UnixStream,
    serial: u32,
    /// Signals that came while an answer was awaited.
    signals: Vec<Message>,
    /// A connection to systemd itself instead of a bus: no names, no match rules.
    pub direct: bool,
}

/// What came in.
#[derive(Debug)]
pub struct Message {
    kind: u8,
    reply_to: u32,
    pub member: String,
    error: String,
    pub body: Vec<Value>,
}

impl Bus {
    /// The system bus, or the bus of the user's session. Where there is no bus, systemd's own socket.
    pub fn open(user: bool) -> Result<Bus> {
        let (bus, own) = addresses(user);
        let mut last = None;
        for (path, direct) in bus.into_iter().map(|p| (p, false)).chain(own.map(|p| (p, true))) {
            match UnixStream::connect(&path) {
                Ok(stream) => return Bus::greet(stream, direct),
                Err(e) => last = Some(Err(e).with_context(|| format!("connecting to {}", path.display()))),
            }
        }
        let none = Error::new(
            Kind::Systemd,
            "no message bus: XDG_RUNTIME_DIR and DBUS_SESSION_BUS_ADDRESS are not set",
        );
        last.unwrap_or(Err(none)).map_err(|e: Error| e.with_kind(Kind::Systemd))
    }

    fn greet(stream: UnixStream, direct: bool) -> Result<Bus> {
        let mut bus = Bus { stream, serial: 0, signals: Vec::new(), direct };
        bus.stream.set_write_timeout(Some(PATIENCE)).context("talking to the message bus")?;
        bus.stream.set_read_timeout(Some(PATIENCE)).context("talking to the message bus")?;
        // The peer takes our uid from the socket: right in user namespaces too.
        bus.stream
            .write_all(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")
            .context("talking to the message bus")?;
        for want in ["DATA", "OK "] {
            let line = bus.line()?;
            if !line.starts_with(want) {
                return Err(Error::new(Kind::Systemd, format!("the message bus refuses us: {line}")));
            }
        }
        if !direct {
            let (name, path) = ("org.freedesktop.DBus", "/org/freedesktop/DBus");
            bus.call(name, path, "org.freedesktop.DBus", "Hello", vec![])?;
        }
        Ok(bus)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = Vec::new();
        let mut byte = [0];
        while !line.ends_with(b"\r\n") {
            self.stream.read_exact(&mut byte).context("reading from the message bus")?;
            line.push(byte[0]);
            if line.len() > 4096 {
                return Err(Error::new(Kind::Systemd, "the message bus does not speak D-Bus"));
            }
        }
        Ok(String::from_utf8_lossy(&line).trim_end().to_string())
    }

    /// Calls a method and waits for its answer. An error of the other side has its D-Bus name in the text.
    pub fn call(
        &mut self,
        to: &str,
        path: &str,
        interface: &str,
        member: &str,
        body: Vec<Value>,
    ) -> Result<Vec<Value>> {
        let what = || format!("calling {member} of {to}");
        self.serial += 1;
        let serial = self.serial;
        let to = if self.direct { None } else { Some(to) };
        let message = encode(serial, to, path, interface, member, &body);
        self.stream.write_all(&message).with_context(what)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let message = self.receive(deadline).with_context(what)?;
            match message.kind {
                REPLY if message.reply_to == serial => return Ok(message.body),
                ERROR if message.reply_to == serial => {
                    let text =
                        message.body.first().and_then(Value::as_str).unwrap_or("no reason given").to_string();
                    return Err(Error::new(Kind::Systemd, text).context(message.error));
                }
                SIGNAL => self.signals.push(message),
                _ => {}
            }
        }
    }

    /// Waits for a signal that `wanted` takes.
    pub fn signal<T>(&mut self, mut wanted: impl FnMut(&Message) -> Option<T>) -> Result<T> {
        let deadline = Instant::now() + PATIENCE;
        for message in std::mem::take(&mut self.signals) {
            if let Some(found) = wanted(&message) {
                return Ok(found);
            }
        }
        loop {
            let message = self.receive(deadline)?;
            if message.kind == SIGNAL {
                if let Some(found) = wanted(&message) {
                    return Ok(found);
                }
            }
        }
    }

    fn receive(&mut self, deadline: Instant) -> Result<Message> {
        let mut bytes = vec![0; 16];
        self.fill(&mut bytes, deadline)?;
        let word =
            |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]) as usize;
        let (body, fields) = (word(4), word(12));
        let total =
            16usize.checked_add(fields).map(|n| n.next_multiple_of(8)).and_then(|n| n.checked_add(body));
        match total {
            Some(total) if bytes[0] == b'l' && total <= LARGEST => bytes.resize(total, 0),
            _ => return Err(Error::new(Kind::Systemd, "the message bus sent a malformed message")),
        }
        self.fill(&mut bytes[16..], deadline)?;
        decode(&bytes, bytes.len() - body)
    }

    fn fill(&mut self, mut bytes: &mut [u8], deadline: Instant) -> Result<()> {
        while !bytes.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::new(Kind::Timeout, "no answer within 30 s"));
            }
            self.stream.set_read_timeout(Some(left))?;
            match self.stream.read(bytes) {
                Ok(0) => return Err(Error::new(Kind::Systemd, "the message bus hung up")),
                Ok(n) => bytes = &mut bytes[n..],
                Err(e)
                    if matches!(
                        e.kind(),
                        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted
                    ) => {}
                Err(e) => return Err(e).context("reading from the message bus"),
            }
        }
        Ok(())
    }
}

/// Sockets of the buses, and systemd's own.
fn addresses(user: bool) -> (Vec<PathBuf>, Option<PathBuf>) {
    let from = |variable: &str| {
        let text = env::var(variable).ok()?;
        let first = text.split(';').find_map(|a| a.strip_prefix("unix:path="))?.split(',').next()?;
        Some(PathBuf::from(first))
    };
    if user {
        let run = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        let named = from("DBUS_SESSION_BUS_ADDRESS");
        let bus = named.or_else(|| run.as_ref().map(|r| r.join("bus")));
        return (bus.into_iter().collect(), run.map(|r| r.join("systemd/private")));
    }
    let bus = from("DBUS_SYSTEM_BUS_ADDRESS").unwrap_or_else(|| "/run/dbus/system_bus_socket".into());
    (vec![bus], Some("/run/systemd/private".into()))
}

fn encode(
    serial: u32,
    to: Option<&str>,
    path: &str,
    interface: &str,
    member: &str,
    body: &[Value],
) -> Vec<u8> {
    let field =
        |code: u8, value: Value| Value::Struct(vec![Value::Byte(code), Value::Variant(Box::new(value))]);
    let mut fields = vec![
        field(1, Value::Path(path.to_string())),
        field(2, Value::str(interface)),
        field(3, Value::str(member)),
    ];
    fields.extend(to.map(|to| field(6, Value::str(to))));
    let mut bytes = Vec::new();
    body.iter().for_each(|v| v.encode(&mut bytes));
    if !body.is_empty() {
        fields.push(field(8, Value::Signature(body.iter().map(Value::signature).collect())));
    }
    let mut out = vec![b'l', CALL, 0, 1];
    out.extend((bytes.len() as u32).to_le_bytes());
    out.extend(serial.to_le_bytes());
    Value::Array("(yv)".to_string(), fields).encode(&mut out);
    pad(&mut out, 8);
    out.extend(bytes);
    out
}

fn decode(bytes: &[u8], body: usize) -> Result<Message> {
    // The fixed part is read as values too, so that alignment counts from the start.
    let header = Reader::new(bytes).all("yyyyuua(yv)")?;
    let mut message =
        Message { kind: bytes[1], reply_to: 0, member: String::new(), error: String::new(), body: vec![] };
    let mut signature = String::new();
    if let Some(Value::Array(_, fields)) = header.into_iter().nth(6) {
        for field in fields {
            let Value::Struct(pair) = field else { continue };
            if let [Value::Byte(code), Value::Variant(value)] = &pair[..] {
                let text = || value.as_str().unwrap_or_default().to_string();
                match (code, &**value) {
                    (3, _) => message.member = text(),
                    (4, _) => message.error = text(),
                    (5, Value::U32(n)) => message.reply_to = *n,
                    (8, _) => signature = text(),
                    _ => {}
                }
            }
        }
    }
    message.body = Reader::new(&bytes[body..]).all(&signature)?;
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_survives_the_wire() {
        let body = vec![Value::str("x"), Value::Bool(true), Value::Array("(sv)".into(), vec![])];
        let bytes = encode(7, Some("a.b"), "/p", "i.f", "Do", &body);
        assert_eq!(&bytes[..4], [b'l', 1, 0, 1]);
        assert_eq!(bytes[8], 7);
        let length = u32::from_le_bytes(bytes[4..8].try_into().unwrap()) as usize;
        let message = decode(&bytes, bytes.len() - length).unwrap();
        assert_eq!((message.member.as_str(), message.body), ("Do", body));
    }
}
