//! What sends, answers and delays, as processes of their own: `study agent KIND ARGS...`.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use crate::{line, sys};

pub fn main(args: &[String]) {
    let arg = |i: usize| args.get(i).map_or("", String::as_str);
    let number = |i: usize| arg(i).parse::<u64>().unwrap_or(0);
    match arg(0) {
        "udp" => udp(arg(1), number(2) as usize, number(3), number(4), number(5)),
        "sink" => sink(arg(1)),
        "deaf" => deaf(arg(1)),
        "cpu" => cpu(arg(1), number(2) as usize, number(3)),
        "ping" => ping(arg(1), number(2), number(3)),
        "ask" => ask(arg(1), number(2), number(3)),
        "answer" => answer(arg(1)),
        "line" => line::main(arg(1), number(2) as u32, number(3)),
        other => panic!("no agent {other:?}"),
    }
}

fn any(to: SocketAddr) -> UdpSocket {
    UdpSocket::bind(if to.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" }).expect("binds")
}

fn connected(to: &str) -> UdpSocket {
    let to: SocketAddr = to.parse().expect("an address");
    let socket = any(to);
    socket.connect(to).expect("connects");
    socket
}

/// Datagrams of `size` bytes at `per_second` for `seconds`, in little bursts; `together` with one call, if it is more
/// than one.
fn udp(to: &str, size: usize, per_second: u64, seconds: u64, together: u64) {
    let (socket, buffer) = (connected(to), vec![0u8; size * together as usize]);
    if together > 1 {
        sys::segments(&socket, size as i32).expect("UDP_SEGMENT");
    }
    let (begun, mut sent) = (Instant::now(), 0u64);
    while begun.elapsed() < Duration::from_secs(seconds) {
        let due = (begun.elapsed().as_secs_f64() * per_second as f64) as u64;
        // After a long pause (a busy machine) don't send all that was missed at once.
        sent = sent.max(due.saturating_sub(per_second / 5 + 1));
        while sent < due {
            let _ = socket.send(&buffer);
            sent += together;
        }
        sleep(Duration::from_micros(300));
    }
}

/// Takes datagrams as they come.
fn sink(at: &str) {
    let socket = UdpSocket::bind(at).expect("binds");
    sys::receive_buffer(&socket, 16 << 20).expect("a large buffer");
    let mut buffer = [0u8; 2048];
    while socket.recv(&mut buffer).is_ok() {}
}

/// Has a socket and never reads from it.
fn deaf(at: &str) {
    let _socket = UdpSocket::bind(at).expect("binds");
    sleep(Duration::from_secs(1000));
}

/// Nanoseconds of processor time for a datagram: this thread's, which carries its packets all the way to the receiver's
/// socket, and ksoftirqd's where that takes over. Whatever else runs on the processor isn't in it.
fn cpu(to: &str, size: usize, count: u64) {
    let processor = if sys::pin(1).is_ok() { 1 } else { 0 };
    sys::pin(processor).expect("pins");
    let helper = ksoftirqd(processor);
    let spent = || sys::thread_time() + helper.as_deref().map_or(0, run_time);
    let (socket, buffer) = (connected(to), vec![0u8; size]);
    for _ in 0..count / 10 {
        let _ = socket.send(&buffer);
    }
    let before = spent();
    for _ in 0..count {
        let _ = socket.send(&buffer);
    }
    println!("{}", (spent() - before) / count);
}

/// The schedstat file of a processor's ksoftirqd.
fn ksoftirqd(processor: usize) -> Option<std::path::PathBuf> {
    let name = format!("ksoftirqd/{processor}");
    let processes = std::fs::read_dir("/proc").ok()?.flatten().map(|e| e.path());
    let found =
        |p: &std::path::PathBuf| std::fs::read_to_string(p.join("comm")).is_ok_and(|c| c.trim() == name);
    processes.into_iter().find(found).map(|p| p.join("schedstat"))
}

/// Nanoseconds that a process has run.
fn run_time(schedstat: &std::path::Path) -> u64 {
    let text = std::fs::read_to_string(schedstat).unwrap_or_default();
    text.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// What probes print: sent, lost, and the round trips' median and 99th percentile in microseconds.
fn tell(sent: u64, mut times: Vec<u64>) {
    times.sort_unstable();
    let at = |percent: usize| {
        times.get((times.len() * percent).div_ceil(100).saturating_sub(1)).copied().unwrap_or(0)
    };
    println!("{sent} {} {} {}", sent - times.len() as u64, at(50), at(99));
}

/// Echo requests with 56 bytes, `per_second` of them; an answer that takes longer than three seconds is lost.
fn ping(to: &str, per_second: u64, seconds: u64) {
    let to: IpAddr = to.parse().expect("an address");
    let socket = sys::ping_socket(to.is_ipv6()).expect("a ping socket");
    socket.connect(SocketAddr::new(to, 0)).expect("connects");
    socket.set_read_timeout(Some(Duration::from_millis(3000))).expect("sets");
    let receiver = socket.try_clone().expect("clones");
    let count = per_second * seconds;
    let begun = Instant::now();
    let times = spawn(move || {
        let (mut buffer, mut times) = ([0u8; 128], Vec::new());
        while times.len() < count as usize {
            let Ok(n) = receiver.recv(&mut buffer) else { break };
            if let (true, Some(stamp)) = (n >= 16, buffer.get(8..16)) {
                let sent = u64::from_ne_bytes(stamp.try_into().expect("eight bytes"));
                times.push(begun.elapsed().as_micros() as u64 - sent);
            }
        }
        times
    });
    for i in 0..count {
        let due = Duration::from_secs_f64(i as f64 / per_second as f64);
        sleep(due.saturating_sub(begun.elapsed()));
        let mut packet = [0u8; 64];
        packet[0] = if to.is_ipv6() { 128 } else { 8 };
        packet[6..8].copy_from_slice(&(i as u16).to_be_bytes());
        packet[8..16].copy_from_slice(&(begun.elapsed().as_micros() as u64).to_ne_bytes());
        let _ = socket.send(&packet);
    }
    let times = times.join().expect("the receiver");
    tell(count, times.into_iter().filter(|t| *t < 3_000_000).collect());
}

/// Requests of 64 bytes over one TCP connection and answers of 64, at most `per_second`. What takes longer than three
/// seconds is lost, and a new connection is made.
fn ask(to: &str, per_second: u64, seconds: u64) {
    let to: SocketAddr = to.parse().expect("an address");
    let dial = || {
        let stream = TcpStream::connect_timeout(&to, Duration::from_secs(3)).ok()?;
        stream.set_nodelay(true).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(3))).ok()?;
        Some(stream)
    };
    let (mut stream, mut times, mut asked) = (dial(), Vec::new(), 0);
    let begun = Instant::now();
    let mut due = Duration::ZERO;
    while begun.elapsed() < Duration::from_secs(seconds) {
        let sent = Instant::now();
        asked += 1;
        let mut buffer = [0u8; 64];
        let done = stream
            .as_mut()
            .is_some_and(|s| s.write_all(&buffer).and_then(|()| s.read_exact(&mut buffer)).is_ok());
        if done {
            times.push(sent.elapsed().as_micros() as u64);
        } else {
            stream = dial();
        }
        due += Duration::from_secs_f64(1.0 / per_second as f64);
        sleep(due.saturating_sub(begun.elapsed()));
        due = due.max(begun.elapsed().saturating_sub(Duration::from_millis(50)));
    }
    tell(asked, times);
}

/// The other side of `ask`.
fn answer(at: &str) {
    let listener = TcpListener::bind(at).expect("binds");
    for stream in listener.incoming().flatten() {
        spawn(move || {
            let mut stream = stream;
            let _ = stream.set_nodelay(true);
            let mut buffer = [0u8; 64];
            while stream.read_exact(&mut buffer).is_ok() && stream.write_all(&buffer).is_ok() {}
        });
    }
}
