//! The servers that run in the containers, and the shortest request that each of them answers.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub struct Server {
    pub name: &'static str,
    pub port: u16,
    /// What is sent; some greet without being asked.
    ask: &'static [u8],
    /// How an answer begins.
    answer: &'static [u8],
}

pub const SERVERS: [Server; 8] = [
    Server { name: "redis", port: 6379, ask: b"PING\r\n", answer: b"+PONG" },
    Server { name: "memcached", port: 11211, ask: b"version\r\n", answer: b"VERSION" },
    Server { name: "nginx", port: 80, ask: b"GET / HTTP/1.0\r\n\r\n", answer: b"HTTP/1.1 200" },
    // A start-up message of protocol 3.0 for user and database `postgres`; `R` begins the server's consent.
    Server {
        name: "postgresql",
        port: 5432,
        ask: b"\0\0\0\x29\0\x03\0\0user\0postgres\0database\0postgres\0\0",
        answer: b"R",
    },
    // Greets with protocol 10 behind a header of four bytes, whose first is the length.
    Server { name: "mariadb", port: 3306, ask: b"", answer: b"" },
    Server { name: "rabbitmq", port: 5672, ask: b"AMQP\0\0\x09\x01", answer: b"\x01" },
    Server { name: "tomcat", port: 8080, ask: b"GET / HTTP/1.0\r\n\r\n", answer: b"HTTP/1.1 200" },
    Server { name: "zookeeper", port: 2181, ask: b"ruok", answer: b"imok" },
];

pub fn server(name: &str) -> &'static Server {
    SERVERS.iter().find(|s| s.name == name).expect("a known server")
}

impl Server {
    /// One request on a connection of its own.
    pub fn answers(&self, address: &str, patience: Duration) -> bool {
        self.request(address, patience).unwrap_or(false)
    }

    fn request(&self, address: &str, patience: Duration) -> std::io::Result<bool> {
        let address: SocketAddr =
            format!("{address}:{}", self.port).parse().map_err(std::io::Error::other)?;
        let mut stream = TcpStream::connect_timeout(&address, patience)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_nodelay(true)?;
        stream.write_all(self.ask)?;
        let mut got = [0; 64];
        let mut n = 0;
        let wanted = self.answer.len().max(5);
        while n < wanted.min(got.len()) {
            match stream.read(&mut got[n..])? {
                0 => break,
                more => n += more,
            }
            if n >= self.answer.len() && !self.answer.is_empty() {
                break;
            }
        }
        // MariaDB refuses with an error packet (0xff) while it starts.
        Ok(match self.answer {
            b"" => n >= 5 && got[4] == 10,
            answer => got[..n].starts_with(answer),
        })
    }

    /// The time from `start` to the first answer, if one comes in time.
    pub fn first_answer(&self, address: &str, start: Instant, patience: Duration) -> Option<f64> {
        while start.elapsed() < patience {
            if self.answers(address, Duration::from_millis(500)) {
                return Some(start.elapsed().as_secs_f64() * 1e3);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        None
    }
}

/// The longest time without an answer.
pub struct Outage {
    pub ms: f64,
    /// Whether answers came again after it. If not, it lasted longer than was watched.
    pub over: bool,
}

/// A client that asks every 5 ms and remembers when it was answered.
pub struct Client {
    stop: Arc<AtomicBool>,
    start: Instant,
    thread: JoinHandle<Vec<Instant>>,
}

impl Client {
    pub fn start(server: &'static Server, address: String) -> Client {
        let stop = Arc::new(AtomicBool::new(false));
        let flag = stop.clone();
        let start = Instant::now();
        let thread = std::thread::spawn(move || {
            let mut answered = vec![start];
            let mut next = Instant::now();
            while !flag.load(Ordering::Relaxed) {
                if server.answers(&address, Duration::from_secs(1)) {
                    answered.push(Instant::now());
                }
                next = (next + Duration::from_millis(5)).max(Instant::now());
                std::thread::sleep(next - Instant::now());
            }
            answered
        });
        Client { stop, start, thread }
    }

    /// Ends it.
    pub fn outage(self) -> Outage {
        let end = Instant::now();
        self.stop.store(true, Ordering::Relaxed);
        let mut times = self.thread.join().unwrap_or_else(|_| vec![self.start]);
        let over =
            times.last().is_some_and(|t| end.saturating_duration_since(*t) < Duration::from_millis(900));
        times.push(end.max(times[times.len() - 1]));
        let longest = times.windows(2).map(|w| w[1] - w[0]).max().unwrap_or_default();
        Outage { ms: longest.as_secs_f64() * 1e3, over }
    }
}
