//! News for containerd: a queue on disk, sent one by one, in order, until each was acknowledged. And the log.

use super::Worker;
use crate::api::{Any, Envelope, ForwardRequest, Timestamp};
use crate::error::Kind;
use crate::pb::Message;
use crate::start::QUEUE;
use crate::state::Conn;
use crate::stream::fd;
use crate::sys::{self, Fd};
use crate::ttrpc;
use nix::sys::socket::{connect, socket, AddressFamily, SockFlag, SockType, UnixAddr};
use std::sync::atomic::Ordering::SeqCst;

const SERVICE: &str = "containerd.services.events.ttrpc.v1.Events";
const RETRY_NS: u64 = 100_000_000;

impl Worker<'_> {
    /// Puts an event behind the committed end of the queue; it is part of it with the next commit.
    pub(super) fn enqueue(&mut self, topic: &str, name: &str, event: Vec<u8>) {
        let Some(queue) = fd(self.root.events) else { return };
        let envelope = Envelope {
            timestamp: Timestamp::from_ns(sys::now_ns()),
            namespace: self.root.setup.namespace.clone(),
            topic: topic.into(),
            event: Some(Any { type_url: name.into(), value: event }),
        };
        let bytes = ForwardRequest { envelope: Some(envelope) }.bytes();
        let mut record = (bytes.len() as u32).to_le_bytes().to_vec();
        record.extend(bytes);
        match write_at(queue, self.root.events_tail, &record) {
            Ok(()) => self.root.events_tail += record.len() as u64,
            Err(e) => self.log(&format!("an event ({topic}) could not be queued: {e}")),
        }
    }

    /// Are there events that wait for nothing but their turn?
    pub(super) fn events_wait(&self) -> bool {
        let unsent = self.root.events_head < self.root.events_tail && !self.root.publisher_busy;
        unsent && !self.root.setup.ttrpc_address.is_empty()
    }

    /// Sends the oldest event that is not acknowledged, unless one is on its way; and the next, if the answer comes at once.
    pub(super) fn publish_next(&mut self) {
        while self.events_wait() && sys::now_ns() >= self.retry {
            if self.root.publisher.is_none() && !self.connect_publisher() {
                return;
            }
            let Some(record) = self.oldest() else { return };
            self.root.publisher_stream += 2;
            let stream = self.root.publisher_stream | 1;
            let frame = ttrpc::request(stream, SERVICE, "Forward", record, 5_000_000_000);
            let Some(conn) = &mut self.root.publisher else { return };
            if !conn.put(self.map, &frame) {
                return;
            }
            self.root.publisher_busy = true;
            self.commit();
            self.hear_publisher();
        }
    }

    fn oldest(&self) -> Option<Vec<u8>> {
        let queue = fd(self.root.events)?;
        let mut length = [0; 4];
        read_at(queue, self.root.events_head, &mut length).ok()?;
        let mut record = vec![0; u32::from_le_bytes(length) as usize];
        read_at(queue, self.root.events_head + 4, &mut record).ok()?;
        Some(record)
    }

    fn connect_publisher(&mut self) -> bool {
        self.retry = sys::now_ns() + RETRY_NS;
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let address =
            self.root.setup.ttrpc_address.strip_prefix("unix://").unwrap_or(&self.root.setup.ttrpc_address);
        let Ok(address) = UnixAddr::new(address) else { return false };
        let Ok(socket) = socket(AddressFamily::Unix, SockType::Stream, flags, None) else { return false };
        if connect(sys::number(&socket).0, &address).is_err() {
            return false;
        }
        self.retry = 0;
        self.root.publisher = Some(Conn::fresh(self.map, 0, Fd::keep(socket)));
        self.root.publisher_busy = false;
        self.commit();
        true
    }

    pub(super) fn hear_publisher(&mut self) {
        let Some(conn) = &mut self.root.publisher else { return };
        let mut alive = conn.send(self.map) && conn.receive(self.map);
        loop {
            let Some(conn) = &mut self.root.publisher else { return };
            match conn.frame(self.map) {
                Some((header, _)) if header.too_long().is_some() => {
                    alive = false;
                    break;
                }
                Some((header, payload)) if header.stream == self.root.publisher_stream | 1 => {
                    self.acknowledged(&payload)
                }
                Some(_) => {}
                None => break,
            }
        }
        let Some(conn) = &mut self.root.publisher else { return };
        if !alive {
            let number = conn.fd();
            self.root.publisher = None;
            self.root.publisher_busy = false;
            self.commit();
            number.close();
        } else if conn.rewind(self.map) {
            self.commit();
            if let Some(conn) = &self.root.publisher {
                conn.rewound(self.map);
            }
        }
    }

    /// containerd has the event; or it will never take it, and the next ones must not wait for that. All other refusals pass: that it
    /// starts, ends or is overloaded.
    fn acknowledged(&mut self, payload: &[u8]) {
        self.root.publisher_busy = false;
        let refused = ttrpc::answer(payload).err();
        if refused != self.refused {
            refused.iter().for_each(|e| self.log(&format!("containerd did not take an event: {e}")));
            self.refused.clone_from(&refused);
        }
        if refused.is_some_and(|e| !matches!(e.kind(), Kind::Invalid | Kind::Unsupported | Kind::TooLarge)) {
            self.retry = sys::now_ns() + RETRY_NS;
            return self.commit();
        }
        let Some(queue) = fd(self.root.events) else { return };
        let mut length = [0; 4];
        if read_at(queue, self.root.events_head, &mut length).is_ok() {
            self.root.events_head += 4 + u64::from(u32::from_le_bytes(length));
        }
        let all = self.root.events_tail as i64;
        if self.root.events_head >= self.root.events_tail {
            (self.root.events_head, self.root.events_tail) = (0, 0);
        }
        self.commit();
        if self.root.events_tail == 0 && all > QUEUE {
            let _ = nix::unistd::ftruncate(queue, QUEUE);
        }
    }

    /// A line for containerd's log, through the FIFO in the bundle; nobody waits for it.
    pub(super) fn log(&mut self, text: &str) {
        if self.root.log == 0 {
            let path = std::path::Path::new(&self.root.setup.bundle).join("log");
            let flags =
                nix::fcntl::OFlag::O_WRONLY | nix::fcntl::OFlag::O_NONBLOCK | nix::fcntl::OFlag::O_CLOEXEC;
            let Ok(fifo) = nix::fcntl::open(&path, flags, nix::sys::stat::Mode::empty()) else { return };
            let fifo = Fd::keep(fifo);
            if !is_fifo(fifo) {
                // Its owner's file: a standalone container's bundle may well have one of that name.
                return fifo.close();
            }
            self.root.log = crate::stream::number(fifo);
            self.commit();
        }
        if let Some(log) = fd(self.root.log) {
            let _ = sys::write(log, format!("shim {}: {text}\n", self.root.setup.id).as_bytes());
        }
    }

    /// The last bytes that a connection is owed, then the end.
    pub(super) fn finish(&mut self) -> ! {
        for conn in &self.root.conns {
            for _ in 0..50 {
                if !conn.send(self.map) || !conn.wants_output(self.map) {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
        }
        let deadline = sys::now_ns() + 5_000_000_000;
        while self.root.events_head < self.root.events_tail && sys::now_ns() < deadline {
            self.publish_next();
            if let Some(conn) = &self.root.publisher {
                let mut fds = [libc::pollfd { fd: conn.fd().0, events: libc::POLLIN, revents: 0 }];
                let _ = sys::poll(&mut fds, 100);
                self.hear_publisher();
            } else if self.root.setup.ttrpc_address.is_empty() {
                break;
            } else {
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
        }
        // Who asks for what is no more (`Pids` of a deleted container): a job has files where all is removed now.
        for op in &self.root.state.ops {
            let pidfd = Fd(self.map.header().op_fds[op.slot as usize].load(SeqCst));
            if pidfd.0 > 0 && sys::pidfd_signal(pidfd, libc::SIGKILL).is_ok() {
                let mut fds = [libc::pollfd { fd: pidfd.0, events: libc::POLLIN, revents: 0 }];
                let _ = sys::poll(&mut fds, 1000);
            }
        }
        self.remove_containers();
        crate::place::remove(&self.root.setup);
        sys::exit_now(crate::heads::DONE)
    }
}

impl Worker<'_> {
    /// `--rm`: what ended is deleted by the runtime before the monitor goes.
    fn remove_containers(&self) {
        let setup = &self.root.setup;
        for task in self.root.state.tasks.iter().filter(|_| setup.remove) {
            let mut delete = std::process::Command::new(crate::job::binary(setup, task));
            delete.args(["--root", &crate::job::root(setup, task), "delete", "--force", &task.id]);
            let _ = delete.env(crate::job::ASKED, "1").stdin(std::process::Stdio::null()).status();
        }
    }
}

pub(super) fn is_fifo(file: Fd) -> bool {
    let mode = nix::sys::stat::fstat(file).map_or(0, |s| s.st_mode);
    mode & libc::S_IFMT == libc::S_IFIFO
}

fn write_at(fd: Fd, offset: u64, bytes: &[u8]) -> nix::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        done += nix::sys::uio::pwrite(fd, &bytes[done..], (offset + done as u64) as i64)?;
    }
    Ok(())
}

fn read_at(fd: Fd, offset: u64, bytes: &mut [u8]) -> nix::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        match nix::sys::uio::pread(fd, &mut bytes[done..], (offset + done as u64) as i64)? {
            0 => return Err(nix::errno::Errno::EIO),
            n => done += n,
        }
    }
    Ok(())
}
