//! Datagrams, raw frames, connections: what the network tests let run inside containers. The senders are those of
//! netlimit's own tests.

#[path = "../../../netlimit/tests/traffic/line/mod.rs"]
mod line;
#[path = "../../../netlimit/tests/traffic/senders.rs"]
mod senders;
#[allow(unsafe_code, dead_code)]
#[path = "../../../netlimit/tests/traffic/sys.rs"]
mod sys;

fn main() {
    senders::main(&std::env::args().skip(1).collect::<Vec<_>>());
}
