//! As much of Docker's API as the measurements need: HTTP/1.0 over its socket, so that no client program's own start-up
//! is part of a figure.

use serde_json::Value;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Clone)]
pub struct Api(pub PathBuf);

impl Api {
    /// The body of an answer with a 2xx status.
    pub fn get(&self, path: &str) -> Option<Value> {
        let (status, body) = self.ask("GET", path)?;
        (200..300).contains(&status).then(|| serde_json::from_str(&body).unwrap_or(Value::Null))
    }

    pub fn delete(&self, path: &str) -> Option<u16> {
        self.ask("DELETE", path).map(|a| a.0)
    }

    fn ask(&self, method: &str, path: &str) -> Option<(u16, String)> {
        let mut stream = UnixStream::connect(&self.0).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(60))).ok()?;
        write!(stream, "{method} {path} HTTP/1.0\r\nHost: docker\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_string()))
    }

    /// The address of a container on the daemon's bridge.
    pub fn address(&self, name: &str) -> Option<String> {
        let info = self.get(&format!("/containers/{name}/json"))?;
        info["NetworkSettings"]["IPAddress"].as_str().filter(|a| !a.is_empty()).map(str::to_string)
    }
}
