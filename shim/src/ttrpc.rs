//! ttrpc: a ten-byte header, then a protobuf Request or Response. Bounded: a frame larger than the protocol allows is refused, and
//! its bytes go unread.

use crate::error::{Error, Kind, Result};
use crate::pb::{message, Message};

pub const HEADER: usize = 10;
/// The protocol's own limit on a frame's payload.
pub const MAX_PAYLOAD: usize = 4 << 20;
pub const REQUEST: u8 = 1;
pub const RESPONSE: u8 = 2;

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Header {
    pub length: usize,
    pub stream: u32,
    pub kind: u8,
}

impl Header {
    pub fn parse(bytes: &[u8; HEADER]) -> Header {
        let word = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        Header { length: word(0) as usize, stream: word(4), kind: bytes[8] }
    }

    /// What is said of a frame that is too long, in the words of containerd's own server.
    pub fn too_long(&self) -> Option<Error> {
        let text = format!("message length {} exceed maximum message size of {MAX_PAYLOAD}", self.length);
        (self.length > MAX_PAYLOAD).then(|| Error::new(Kind::TooLarge, text))
    }
}

message! {
    struct KeyValue { 1 key: String, 2 value: String }
    struct Request { 1 service: String, 2 method: String, 3 payload: Vec<u8>, 4 timeout_nano: i64, 5 metadata: Vec<KeyValue> }
    struct Status { 1 code: i32, 2 message: String }
    struct Response { 1 status: Option<Status>, 2 payload: Vec<u8> }
}

fn frame(stream: u32, kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER + payload.len());
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(&[kind, 0]);
    out.extend_from_slice(payload);
    out
}

pub fn request(stream: u32, service: &str, method: &str, payload: Vec<u8>, timeout_nano: i64) -> Vec<u8> {
    let request = Request {
        service: service.into(),
        method: method.into(),
        payload,
        timeout_nano,
        metadata: Vec::new(),
    };
    frame(stream, REQUEST, &request.bytes())
}

pub fn response(stream: u32, result: &Result<Vec<u8>>) -> Vec<u8> {
    let response = match result {
        Ok(payload) => Response { status: None, payload: payload.clone() },
        Err(e) => Response {
            status: Some(Status { code: e.kind().code(), message: e.text().into() }),
            payload: Vec::new(),
        },
    };
    frame(stream, RESPONSE, &response.bytes())
}

/// The client's side: what the server answered.
pub fn answer(payload: &[u8]) -> Result<Vec<u8>> {
    let response = Response::decode(payload)?;
    match response.status {
        None => Ok(response.payload),
        Some(s) if s.code == 0 => Ok(response.payload),
        Some(s) => {
            let kind = match s.code {
                3 => Kind::Invalid,
                5 => Kind::NotFound,
                6 => Kind::Exists,
                8 => Kind::TooLarge,
                9 => Kind::State,
                12 => Kind::Unsupported,
                13 => Kind::System,
                _ => Kind::Runtime,
            };
            Err(Error::new(kind, s.message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_round_trip_and_limit() {
        let bytes = request(3, "s", "m", b"p".to_vec(), 0);
        let header = Header::parse(bytes[..HEADER].try_into().unwrap());
        assert_eq!(header, Header { length: bytes.len() - HEADER, stream: 3, kind: REQUEST });
        assert_eq!(header.too_long(), None);
        let refused = Header::parse(&[1, 0, 0, 0, 0, 0, 0, 1, 1, 0]).too_long().expect("16 MiB frame");
        assert_eq!(refused.kind().code(), 8);
    }

    #[test]
    fn errors_cross_the_wire() {
        let frame = response(1, &Err(Error::new(Kind::NotFound, "process already finished")));
        let error = answer(&frame[HEADER..]).unwrap_err();
        assert_eq!((error.kind(), error.text()), (Kind::NotFound, "process already finished"));
    }
}
