//! Just enough of gRPC for one unary call over a unix socket: HTTP/2 frames, headers that are written out, no header read.

use crate::ttrpc::Message;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload);
    out
}

/// A header as a literal that no table learns, with a short name and value.
fn header(name: &str, value: &str) -> Vec<u8> {
    let mut out = vec![0];
    for text in [name, value] {
        assert!(text.len() < 127, "a long header");
        out.push(text.len() as u8);
        out.extend(text.as_bytes());
    }
    out
}

/// Calls a method, `service/Method`. The error is what the server said, unread: it may be compressed.
pub fn call(socket: &Path, method: &str, request: &Message) -> Result<Message, String> {
    let mut stream = UnixStream::connect(socket).map_err(|e| format!("{}: {e}", socket.display()))?;
    stream.set_read_timeout(Some(crate::host::patience() * 2)).map_err(|e| e.to_string())?;
    let headers = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", &format!("/{method}")),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    let headers: Vec<u8> = headers.iter().flat_map(|(n, v)| header(n, v)).collect();
    let body = request.encode();
    let mut data = vec![0];
    data.extend((body.len() as u32).to_be_bytes());
    data.extend(body);
    let mut out = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    out.extend(frame(SETTINGS, 0, 0, &[]));
    out.extend(frame(HEADERS, END_HEADERS, 1, &headers));
    out.extend(frame(DATA, END_STREAM, 1, &data));
    stream.write_all(&out).map_err(|e| e.to_string())?;
    answer(&mut stream).map_err(|e| format!("{method}: {e}"))
}

fn answer(stream: &mut UnixStream) -> Result<Message, String> {
    let mut body = Vec::new();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).map_err(|e| e.to_string())?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).map_err(|e| e.to_string())?;
        let (kind, flags) = (head[3], head[4]);
        match kind {
            SETTINGS if flags & ACK == 0 => {
                stream.write_all(&frame(SETTINGS, ACK, 0, &[])).map_err(|e| e.to_string())?;
            }
            PING if flags & ACK == 0 => {
                stream.write_all(&frame(PING, ACK, 0, &payload)).map_err(|e| e.to_string())?;
            }
            DATA => body.extend_from_slice(&payload),
            GOAWAY => return Err(String::from_utf8_lossy(&payload).into_owned()),
            _ => {}
        }
        if matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
            return match body.len() {
                // A refusal has trailers alone.
                0 => Err(format!("refused: {}", String::from_utf8_lossy(&payload))),
                _ => Ok(Message::decode(&body[5..])),
            };
        }
    }
}
