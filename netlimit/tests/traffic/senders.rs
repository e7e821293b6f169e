//! What sends and answers, run as processes of their own: `traffic send KIND ARGS...`.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

pub fn main(args: &[String]) {
    let arg = |i: usize| args.get(i).map_or("", String::as_str);
    let number = |i: usize| arg(i).parse::<u64>().unwrap_or(0);
    match arg(0) {
        "udp" => udp(arg(1), number(2) as usize, number(3), number(4)),
        "flows" => flows(arg(1), number(2), number(3)),
        "packet" => packet(arg(1), number(2) as usize, number(3), arg(4) == "bypass"),
        "connects" => connects(arg(1), number(2), number(3) as usize),
        "behind-options" => behind_options(arg(1), number(2) as usize, number(3) as usize),
        "marks" => marks(number(1)),
        "pings" => pings(arg(1), number(2) as usize, number(3), number(4)),
        "echo" => echo(arg(1)),
        "probe" => probe(arg(1), number(2)),
        "sink" => sink(arg(1)),
        "tcp" => tcp(arg(1), number(2)),
        "receive" => receive(arg(1)),
        "line" => crate::line::main(arg(1), number(2) as u32, number(3)),
        other => panic!("no sender {other:?}"),
    }
}

/// Datagrams of `size` bytes at `per_second` for `seconds`.
fn udp(to: &str, size: usize, per_second: u64, seconds: u64) {
    let socket = UdpSocket::bind(if to.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" }).expect("binds");
    socket.connect(to).expect("connects");
    let buffer = vec![0u8; size];
    paced(per_second, seconds, || {
        let _ = socket.send(&buffer);
    });
}

/// Calls `f` so often, in little bursts, whatever the scheduler does.
fn paced(per_second: u64, seconds: u64, mut f: impl FnMut()) {
    let (begun, mut sent) = (Instant::now(), 0u64);
    while begun.elapsed() < Duration::from_secs(seconds) {
        let due = (begun.elapsed().as_secs_f64() * per_second as f64) as u64;
        // After a long pause (a busy machine) don't send all that was missed at once.
        sent = sent.max(due.saturating_sub(per_second / 5 + 1));
        while sent < due {
            f();
            sent += 1;
        }
        std::thread::sleep(Duration::from_micros(500));
    }
}

/// One datagram each to a new port, `per_second`; each flow sends twice.
fn flows(to: &str, per_second: u64, seconds: u64) {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("binds");
    let mut port = 1024u16;
    paced(per_second, seconds, || {
        port = port.checked_add(1).unwrap_or(1024);
        let _ = socket.send_to(b"x", (to, port));
        let _ = socket.send_to(b"x", (to, port));
    });
}

/// Frames through AF_PACKET as fast as they go.
fn packet(device: &str, size: usize, seconds: u64, bypass: bool) {
    let socket = crate::sys::PacketSocket::open(device, bypass).expect("AF_PACKET");
    let mut frame = vec![0u8; size];
    frame[..6].fill(0xff);
    frame[12..14].copy_from_slice(&[0x88, 0xb5]);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(seconds) {
        if socket.send(&frame).is_err() {
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}

/// Connects again and again; prints how often it worked. `options`: over IPv6, with so many bytes before TCP's header.
fn connects(to: &str, seconds: u64, options: usize) {
    let (begun, mut made) = (Instant::now(), 0);
    let address = to.parse().expect("an address");
    while begun.elapsed() < Duration::from_secs(seconds) {
        let made_one = match address {
            SocketAddr::V6(to) if options > 0 => crate::sys::connect_behind_options(&to, options).is_ok(),
            _ => TcpStream::connect_timeout(&address, Duration::from_millis(20)).is_ok(),
        };
        made += u32::from(made_one);
    }
    println!("{made}");
}

/// One connection over IPv6 with so many bytes before TCP's header, and `bytes` over it.
fn behind_options(to: &str, options: usize, bytes: usize) {
    let to = to.parse().expect("an address of IPv6");
    let mut stream = crate::sys::connect_behind_options(&to, options).expect("connects");
    stream.write_all(&vec![0; bytes]).expect("sends");
    stream.shutdown(std::net::Shutdown::Write).expect("ends");
    // Until the other side has read all of it.
    let _ = std::io::copy(&mut stream, &mut std::io::sink());
}

/// Prints the mark of a socket, and again whenever it has changed, until there is none any more.
fn marks(seconds: u64) {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("binds");
    let (begun, mut last) = (Instant::now(), u32::MAX);
    while last != 0 && begun.elapsed() < Duration::from_secs(seconds) {
        let mark = crate::sys::mark(&socket).expect("a mark");
        if mark != last {
            println!("{mark:x}");
        }
        last = mark;
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Asks for an echo of `size` bytes, `per_second`.
fn pings(to: &str, size: usize, per_second: u64, seconds: u64) {
    let socket = crate::sys::icmp().expect("a raw socket");
    let mut message = vec![0u8; size];
    message[0] = 8;
    // The checksum: nothing but the type differs from 0.
    message[2] = !8;
    message[3] = 0xff;
    paced(per_second, seconds, || {
        let _ = socket.send_to(&message, (to, 0));
    });
}

/// Small requests to an echo, one after another; prints how many were answered, and the median and the 99th
/// percentile of the round trip in microseconds.
fn probe(to: &str, requests: u64) {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("binds");
    socket.connect(to).expect("connects");
    socket.set_read_timeout(Some(Duration::from_millis(500))).expect("sets");
    let mut times = Vec::new();
    for i in 0..requests {
        let begun = Instant::now();
        let mut buffer = [0u8; 8];
        let _ = socket.send(&i.to_ne_bytes());
        while socket.recv(&mut buffer).is_ok() {
            if u64::from_ne_bytes(buffer) == i {
                times.push(begun.elapsed().as_micros());
                break;
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    times.sort_unstable();
    let at = |percent: usize| times.get(times.len() * percent / 100).copied().unwrap_or(0);
    println!("{} {} {}", times.len(), at(50), at(99));
}

/// One connection of cubic, as fast as it takes the bytes.
fn tcp(to: &str, seconds: u64) {
    let mut stream = TcpStream::connect(to).expect("connects");
    crate::sys::choose_cubic(&stream).expect("chooses cubic");
    let (begun, buffer) = (Instant::now(), vec![0u8; 65_536]);
    while begun.elapsed() < Duration::from_secs(seconds) && stream.write_all(&buffer).is_ok() {}
}

/// Accepts, and reads what comes.
fn receive(at: &str) {
    let listener = TcpListener::bind(at).expect("binds");
    for mut stream in listener.incoming().flatten() {
        std::thread::spawn(move || std::io::copy(&mut stream, &mut std::io::sink()));
    }
}

/// Accepts and closes.
fn sink(at: &str) {
    let listener = TcpListener::bind(at).expect("binds");
    for _ in listener.incoming() {}
}

/// Sends every datagram back.
fn echo(at: &str) {
    let socket = UdpSocket::bind(at).expect("binds");
    let mut buffer = [0u8; 2048];
    while let Ok((n, from)) = socket.recv_from(&mut buffer) {
        let _ = socket.send_to(&buffer[..n], from);
    }
}
