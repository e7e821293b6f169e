//! What reads input of others, each as a function of bytes that panics where something is wrong: for the fuzz targets,
//! and for the tests that replay what those have found.

use crate::machine::{step, Event};
use crate::pb::Message;
use crate::state::{Asker, State};
use crate::ttrpc::{Header, Request, HEADER, MAX_PAYLOAD, REQUEST};
use crate::{containerd, flags, ttrpc};

type Target = fn(&[u8]);

/// Every target by name.
pub const TARGETS: &[(&str, Target)] = &[("frames", frames), ("bootstrap", bootstrap), ("monitor", monitor)];

/// ttrpc frames one after the other, each request given to the monitor as its only caller would give it.
pub fn frames(data: &[u8]) {
    let mut state = State::default();
    let mut rest = data;
    let mut now = 0;
    while let Some((header, after)) = rest.split_first_chunk::<HEADER>() {
        let header = Header::parse(header);
        if let Some(refused) = header.too_long() {
            assert!(header.length > MAX_PAYLOAD && !refused.text().is_empty());
            rest = &after[header.length.min(after.len())..];
            continue;
        }
        let (payload, after) = after.split_at(header.length.min(after.len()));
        rest = after;
        let _ = ttrpc::answer(payload);
        let (REQUEST, Ok(request)) = (header.kind, Request::decode(payload)) else { continue };
        now += 1;
        let asker = Asker { conn: 1, stream: header.stream };
        state =
            step(state, Event::Request { asker, method: request.method, payload: request.payload }, now).0;
        // What a monitor that is started again reads.
        assert_eq!(State::decode(&state.bytes()).as_ref().ok(), Some(&state));
    }
}

/// What containerd gives to `start` on standard input.
pub fn bootstrap(data: &[u8]) {
    let given = ["-namespace", "n", "-id", "c", "start"].map(String::from);
    let flags = flags::parse(&given).expect("containerd's own flags");
    if let Err(e) = containerd::bootstrap(&flags, data) {
        assert!(!e.text().is_empty());
    }
    if let Ok(text) = std::str::from_utf8(data) {
        let words: Vec<String> = text.split('\0').map(String::from).collect();
        let _ = flags::parse(&words);
    }
}

/// The record from which a monitor goes on after its death.
pub fn monitor(data: &[u8]) {
    let Ok(state) = State::decode(data) else { return };
    assert_eq!(State::decode(&state.bytes()).as_ref().ok(), Some(&state));
    let _ = step(state, Event::Hangup { conn: 1 }, 1);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seeds, and what the targets have once failed on.
    #[test]
    fn seeds_and_regressions() {
        let seeds = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds");
        for (name, target) in TARGETS {
            let mut count = 0;
            for entry in std::fs::read_dir(seeds.join(name)).unwrap_or_else(|e| panic!("{name}: {e}")) {
                target(&std::fs::read(entry.unwrap().path()).unwrap());
                count += 1;
            }
            assert!(count > 0, "{name} has no seeds");
        }
    }
}
