//! A connection to a monitor's own socket, from a client's side.

use super::Place;
use crate::error::{Context, Error, Result};
use crate::place;
use crate::ttrpc::{self, Header, HEADER};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

pub struct Link {
    pub socket: UnixStream,
    stream: u32,
}

impl Link {
    pub fn open(at: &Place) -> Result<Link> {
        let path = place::socket_in(&at.directory, &at.id);
        let socket = UnixStream::connect(&path).context(|| format!("connecting to {}", path.display()))?;
        Ok(Link { socket, stream: 1 })
    }

    pub fn call(&mut self, service: &str, method: &str, payload: &[u8]) -> Result<Vec<u8>> {
        let stream = self.send(service, method, payload)?;
        loop {
            let (header, payload) = self.receive()?;
            if header.stream == stream {
                return ttrpc::answer(&payload);
            }
        }
    }

    /// Asks without waiting for the answer, which bears the number returned.
    pub fn send(&mut self, service: &str, method: &str, payload: &[u8]) -> Result<u32> {
        let stream = self.stream;
        self.stream += 2;
        self.socket.write_all(&ttrpc::request(stream, service, method, payload.to_vec(), 0))?;
        Ok(stream)
    }

    pub fn receive(&mut self) -> Result<(Header, Vec<u8>)> {
        let mut raw = [0; HEADER];
        let gone = |e: std::io::Error| Error::system(format!("the monitor left: {e}"));
        self.socket.read_exact(&mut raw).map_err(gone)?;
        let header = Header::parse(&raw);
        if let Some(refused) = header.too_long() {
            return Err(refused);
        }
        let mut payload = vec![0; header.length];
        self.socket.read_exact(&mut payload).map_err(gone)?;
        Ok((header, payload))
    }
}
