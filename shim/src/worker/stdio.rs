//! Making and closing the ways of a process's input and output.
//!
//! The pipes of output are named FIFOs in the monitor's directory, and the container's side of them is opened for reading too: should
//! every monitor process die at once, the container's writes find neither an end of file nor a broken pipe, and a new monitor
//! opens the same FIFOs again. Stdin is a pipe without a name: who opens `/dev/stdin` anew after its end would wait for a writer of a FIFO
//! for ever. A new monitor finds it through the container's first process.

use super::{Source, Worker};
use crate::api::{AttachRequest, AttachResponse};
use crate::error::{Context, Error, Kind, Result};
use crate::machine::Event;
use crate::pb::Message;
use crate::place;
use crate::state::{Input, Process, Setup, Stream, Tap, Task, Unread};
use crate::stream::{close, fd, number, Flow};
use crate::sys::map::STREAMS;
use crate::sys::{self, Fd, Side};
use nix::fcntl::OFlag;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr};
use nix::sys::stat::Mode;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI32, Ordering::SeqCst};

pub(super) fn open(path: &Path, flags: OFlag) -> Result<Fd> {
    open_as(path, flags, 0o600)
}

fn open_as(path: &Path, flags: OFlag, mode: u32) -> Result<Fd> {
    let flags = flags | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
    let fd = nix::fcntl::open(path, flags, Mode::from_bits_truncate(mode))
        .context(|| format!("opening {}", path.display()))?;
    Ok(Fd::keep(fd))
}

/// A file for a container to write to. One that is a FIFO may have no reader yet: whoever waits for that holds up everybody else.
fn open_file(path: &Path) -> Result<Fd> {
    let flags = OFlag::O_CREAT | OFlag::O_APPEND | OFlag::O_NONBLOCK;
    // Who ships logs need not be root.
    let open = |way| open_as(path, flags | way, 0o644);
    let file = open(OFlag::O_WRONLY).or_else(|e| match std::fs::metadata(path) {
        Ok(m) if std::os::unix::fs::FileTypeExt::is_fifo(&m.file_type()) => open(OFlag::O_RDWR),
        _ => Err(e),
    })?;
    // The container's writes wait, as they are used to.
    nix::fcntl::fcntl(file, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_APPEND))
        .context(|| format!("setting {} to block", path.display()))?;
    Ok(file)
}

fn pipe() -> Result<(u32, u32)> {
    let (r, w) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).context(|| "making a pipe")?;
    widen(sys::number(&r))?;
    Ok((number(Fd::keep(r)), number(Fd::keep(w))))
}

/// A pipe whose reading end is for a logging binary, which knows nothing of calls that don't wait.
fn logger_pipe() -> Result<Stream> {
    let (logger, sink) = pipe()?;
    if let Some(end) = fd(logger) {
        nix::fcntl::fcntl(end, nix::fcntl::FcntlArg::F_SETFL(OFlag::empty()))
            .context(|| "setting a pipe to block")?;
    }
    Ok(Stream { sink, logger, ..Stream::default() })
}

/// The container's stdin: its end and ours.
fn stdin_pipe(options: &crate::api::RuncOptions) -> Result<(u32, u32)> {
    let (child, ours) =
        nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).context(|| "making a pipe")?;
    nix::fcntl::fcntl(&child, nix::fcntl::FcntlArg::F_SETFL(OFlag::empty()))
        .context(|| "setting a pipe to block")?;
    if options.io_uid != 0 || options.io_gid != 0 {
        std::os::unix::fs::fchown(&child, Some(options.io_uid), Some(options.io_gid))?;
    }
    Ok((number(Fd::keep(child)), number(Fd::keep(ours))))
}

fn inode(of: Fd) -> u64 {
    nix::sys::stat::fstat(of).map_or(0, |s| s.st_ino)
}

/// The pipe that is a process's stdin, if that is still the one that it was given.
fn stdin_of(pid: u32, wanted: u64) -> Result<u32> {
    // First without opening what it may be instead.
    let seen = open(Path::new(&format!("/proc/{pid}/fd/0")), OFlag::O_PATH)?;
    let same = inode(seen) == wanted && super::tell::is_fifo(seen);
    let path = PathBuf::from(format!("/proc/self/fd/{}", seen.0));
    let pipe = same.then(|| open(&path, OFlag::O_WRONLY | OFlag::O_NONBLOCK));
    seen.close();
    pipe.unwrap_or_else(|| Err(Error::new(Kind::NotFound, "its stdin is another file"))).map(number)
}

/// Lets a pipe hold a whole batch: all that batches pass through are of one size, or none of a batch may be lost in between.
fn widen(pipe: Fd) -> Result<()> {
    let size = nix::fcntl::FcntlArg::F_SETPIPE_SZ(crate::stream::BATCH as i32);
    nix::fcntl::fcntl(pipe, size).context(|| "making a pipe larger")?;
    Ok(())
}

/// The name of a FIFO of a process, of which stream 1 or 2.
pub(super) fn fifo(setup: &Setup, task: &str, exec: &str, stream: u8) -> PathBuf {
    Path::new(&setup.directory).join(format!("{}.{stream}", place::name(setup, task, exec)))
}

/// Where an exec's output waits for its client, without the file's kind.
fn spool(setup: &Setup, task: &str, exec: &str, stream: u8) -> String {
    format!("{}/{task}.{}.{stream}", setup.disk, place::name(setup, task, exec))
}

fn make_fifo(path: &Path, options: &crate::api::RuncOptions) -> Result<()> {
    match nix::unistd::mkfifo(path, Mode::from_bits_truncate(0o600)) {
        Ok(()) | Err(nix::errno::Errno::EEXIST) => {}
        Err(e) => return Err(e).context(|| format!("making {}", path.display())),
    }
    if options.io_uid != 0 || options.io_gid != 0 {
        std::os::unix::fs::chown(path, Some(options.io_uid), Some(options.io_gid))?;
    }
    Ok(())
}

/// Where output goes, by the scheme of its address.
pub(super) enum Target {
    Nowhere,
    Fifo(PathBuf),
    File(PathBuf),
    Binary,
}

pub(super) fn target(address: &str) -> Target {
    match address.split_once("://") {
        _ if address.is_empty() => Target::Nowhere,
        Some(("fifo", path)) => Target::Fifo(path.into()),
        Some(("file", path)) => Target::File(crate::logger::path(path).into()),
        Some(("binary" | "binary-v2", _)) => Target::Binary,
        _ => Target::Fifo(address.into()),
    }
}

impl Worker<'_> {
    /// Makes what is not yet there; safe to repeat.
    pub(super) fn open_stdio(&mut self, task: &str, exec: &str) -> Result<()> {
        if exec.is_empty() {
            self.own_limits(task)?;
        }
        let Some(t) = self.root.state.task(task).cloned() else { return Ok(()) };
        let Some(p) = t.process(exec).cloned() else { return Ok(()) };
        // Written down all at once: whichever there is, a head before this one has made them all.
        if !p.fds().is_empty() {
            return Ok(());
        }
        let mut fresh = p.clone();
        let result =
            if p.terminal { self.open_terminal(&t, &mut fresh) } else { self.open_pipes(&t, &mut fresh) };
        if result.is_ok() {
            if let Some(p) = self.root.state.process_mut(task, exec) {
                *p = fresh;
            }
        } else {
            // What was opened on the way, nobody knows.
            self.sort_out_descriptors();
        }
        self.commit();
        result
    }

    /// A container whose pod had a monitor before it came asks for limits of its own.
    fn own_limits(&mut self, task: &str) -> Result<()> {
        let id = &self.root.setup.id;
        let Some(t) =
            self.root.state.tasks.iter_mut().find(|t| t.id == task && t.id != *id && t.own.is_none())
        else {
            return Ok(());
        };
        let setup = crate::start::setup(&crate::start::config(Path::new(&t.bundle)))?;
        t.own = Some(Setup { exe: String::new(), notify_signal: 0, ..setup });
        Ok(())
    }

    fn open_pipes(&mut self, task: &Task, p: &mut Process) -> Result<()> {
        if !p.stdin.is_empty() {
            (p.child_in, p.stdin_pipe) = stdin_pipe(&task.options)?;
            p.stdin_inode = fd(p.stdin_pipe).map_or(0, inode);
            let source = p.stdin.strip_prefix("fifo://").unwrap_or(&p.stdin);
            // Not for writing: that the last writer left is how some clients say that there is no more.
            let source = number(open(Path::new(source), OFlag::O_RDONLY | OFlag::O_NONBLOCK)?);
            p.inputs.push(Input { source, ..Input::default() });
        }
        let (stdout, stderr) = (p.stdout.clone(), p.stderr.clone());
        // As containerd's shim has it: these take both streams, whatever is said of stderr.
        let stderr = match target(&stdout) {
            Target::File(_) if !stderr.is_empty() => stdout.clone(),
            Target::Binary => stdout.clone(),
            _ => stderr,
        };
        for (n, address) in [(1, stdout), (2, stderr)] {
            let (child, stream) = self.open_output(task, p, n, &address)?;
            match n {
                1 => (p.child_out, p.out) = (child, stream),
                _ => (p.child_err, p.err) = (child, stream),
            }
        }
        Ok(())
    }

    fn open_output(
        &mut self,
        task: &Task,
        p: &Process,
        n: u8,
        address: &str,
    ) -> Result<(u32, Option<Stream>)> {
        let standalone = self.root.setup.standalone;
        let mut stream = match target(address) {
            Target::Nowhere if !(standalone && p.id.is_empty()) => return Ok((0, None)),
            Target::Nowhere => Stream::default(),
            // The container writes into the file itself: nothing stands between.
            Target::File(path) => {
                if let Some(directory) = path.parent() {
                    std::fs::create_dir_all(directory)
                        .context(|| format!("making {}", directory.display()))?;
                }
                return Ok((number(open_file(&path)?), None));
            }
            Target::Binary if p.stdout != address => {
                return Err(Error::new(Kind::Invalid, "a logging binary takes both streams"))
            }
            Target::Binary => logger_pipe()?,
            Target::Fifo(path) => {
                let sink = open(&path, OFlag::O_RDWR | OFlag::O_NONBLOCK)?;
                // Room for a batch: each time that it is full costs a wait.
                let _ = widen(sink);
                Stream { sink: number(sink), ..Stream::default() }
            }
        };
        let path = fifo(&self.root.setup, &task.id, &p.id, n);
        make_fifo(&path, &task.options)?;
        let source = open(&path, OFlag::O_RDONLY | OFlag::O_NONBLOCK)?;
        // A writer may then run ahead of its reader by as much.
        let _ = widen(source);
        stream.source = number(source);
        let child = number(open(&path, OFlag::O_RDWR)?);
        self.equip(&mut stream, task, p, n)?;
        Ok((child, Some(stream)))
    }

    /// What stands between the container and who takes its output.
    fn equip(&mut self, stream: &mut Stream, task: &Task, p: &Process, n: u8) -> Result<()> {
        if p.id.is_empty() {
            return self.add_ring(stream, task, n);
        }
        // A logger may go, and its pipe breaks; all other clients' streams go straight to them.
        if stream.logger != 0 {
            stream.path = spool(&self.root.setup, &task.id, &p.id, n);
            self.stage(stream)?;
        }
        Ok(())
    }

    /// Gives a stream its ring, for `logs`.
    fn add_ring(&mut self, stream: &mut Stream, task: &Task, n: u8) -> Result<()> {
        let disk = Path::new(&self.root.setup.disk);
        stream.path = disk.join(format!("{}.{n}", task.id)).to_string_lossy().into_owned();
        stream.ring_keep = task.limits(&self.root.setup).ring_limit;
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_TRUNC;
        stream.ring = number(open(Path::new(&format!("{}.ring", stream.path)), flags)?);
        self.stage(stream)?;
        if stream.sink != 0 {
            (stream.ring_in, stream.ring_out) = pipe()?;
        }
        Ok(())
    }

    fn add_spool(&self, stream: &mut Stream, task: &Task) -> Result<()> {
        if task.limits(&self.root.setup).spool_limit > 0 {
            let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_TRUNC;
            stream.spool = number(open(Path::new(&format!("{}.spool", stream.path)), flags)?);
        }
        Ok(())
    }

    /// What a client is late to take has a place before any of it is moved on. Few clients ever are.
    pub(super) fn make_spool(&mut self, t: usize, p: usize, source: Source) {
        let Some(task) = self.root.state.tasks.get(t) else { return };
        let Some(process) = task.processes().nth(p) else { return };
        let slot = if matches!(source, Source::Out(..)) { &process.out } else { &process.err };
        let staged = |s: &&Stream| s.spool == 0 && s.stage_in != 0 && s.sink != 0;
        let late = slot.as_ref().filter(staged).is_some_and(|s| s.blocked != 0 && s.late(sys::now_ns()));
        if !late || task.limits(&self.root.setup).spool_limit == 0 {
            return;
        }
        let (task, id, slot) = (task.clone(), process.id.clone(), slot.clone());
        let Some(mut stream) = slot else { return };
        if let Err(e) = self.add_spool(&mut stream, &task) {
            if !std::mem::replace(&mut stream.homeless, true) {
                self.log(&format!("spool of {} {id}: {e}", task.id));
            }
        }
        if let Some(p) = self.root.state.tasks[t].processes_mut().nth(p) {
            let slot = if matches!(source, Source::Out(..)) { &mut p.out } else { &mut p.err };
            *slot = Some(stream);
        }
        self.commit();
    }

    /// Nobody takes what the stream has. One that goes straight to its client gets a stage and a spool, once that lasts.
    pub(super) fn stuck(&mut self, t: usize, p: usize, source: Source) {
        let Some(task) = self.root.state.tasks.get(t).cloned() else { return };
        let Some(process) = task.processes().nth(p) else { return };
        let slot = if matches!(source, Source::Out(..)) { &process.out } else { &process.err };
        let Some(mut stream) = slot.clone().filter(|s| s.stage_in == 0 && s.late(sys::now_ns())) else {
            return;
        };
        let n = if matches!(source, Source::Out(..)) { 1 } else { 2 };
        stream.path = spool(&self.root.setup, &task.id, &process.id, n);
        let made = self.stage(&mut stream).and_then(|()| self.add_spool(&mut stream, &task));
        if let Err(e) = made {
            // No place to keep it: what nobody takes before the deadline is dropped from the stage.
            self.log(&format!("spool of {} {}: {e}", task.id, process.id));
        }
        if let Some(p) = self.root.state.tasks[t].processes_mut().nth(p) {
            let slot = if n == 1 { &mut p.out } else { &mut p.err };
            *slot = Some(stream);
        }
        self.commit();
    }

    /// Lets a stream have more than one listener.
    fn stage(&mut self, stream: &mut Stream) -> Result<()> {
        if stream.stage_in != 0 {
            return Ok(());
        }
        let taken: Vec<u32> = self
            .root
            .state
            .tasks
            .iter()
            .flat_map(Task::processes)
            .flat_map(|p| [&p.out, &p.err])
            .filter_map(|s| s.as_ref().map(|s| s.mark))
            .collect();
        let mark = (1..=STREAMS as u32).find(|m| !taken.contains(m) && *m != self.last_mark);
        stream.mark = mark.ok_or_else(|| Error::system("too many streams in one monitor"))?;
        // The two streams of a process are made before either is in the state.
        self.last_mark = stream.mark;
        let mark = &self.map.header().streams[stream.mark as usize - 1];
        mark.draining.store(0, SeqCst);
        for offset in [&mark.ring, &mark.spool_read, &mark.spool_write] {
            offset.store(0, SeqCst);
        }
        mark.dropped.store(0, SeqCst);
        mark.unlogged.store(0, SeqCst);
        (stream.stage_in, stream.stage_out) = pipe()?;
        Ok(())
    }

    /// After every head was lost: opens again what was named, in the first worker of the adopting monitor.
    pub(super) fn reopen_streams(&mut self) {
        let mut changed = false;
        for process in self.root.state.tasks.iter_mut().flat_map(|t| t.processes_mut()) {
            let logged = matches!(target(&process.stdout), Target::Binary);
            for stream in [&mut process.out, &mut process.err].into_iter().flatten() {
                if stream.reopen.is_empty() {
                    continue;
                }
                changed = true;
                if let (true, Ok(fresh)) = (logged, logger_pipe()) {
                    (stream.sink, stream.logger) = (fresh.sink, fresh.logger);
                    stream.address.clear();
                }
                crate::adopt::open_again(stream);
                if let (true, Some(mark)) =
                    (stream.mark != 0, self.map.header().streams.get(stream.mark as usize - 1))
                {
                    mark.draining.store(0, SeqCst);
                    (stream.stage_in, stream.stage_out) = pipe().unwrap_or_default();
                    if stream.sink != 0 && stream.ring != 0 {
                        (stream.ring_in, stream.ring_out) = pipe().unwrap_or_default();
                    }
                }
            }
            if process.stdin_inode != 0 && process.stdin_pipe == 0 && process.pid != 0 && !process.exited() {
                changed = true;
                match stdin_of(process.pid, process.stdin_inode) {
                    Ok(pipe) => {
                        process.stdin_pipe = pipe;
                        let source = process.stdin.strip_prefix("fifo://").unwrap_or(&process.stdin);
                        let source = open(Path::new(source), OFlag::O_RDONLY | OFlag::O_NONBLOCK);
                        let input = |s| Input { source: number(s), ..Input::default() };
                        process.inputs.extend(source.ok().map(input));
                    }
                    // It has closed it, or taken another.
                    Err(_) => process.stdin_inode = 0,
                }
            }
            // A terminal died with its last holder: there is nothing to wait for.
            if process.terminal && process.console == 0 && process.pid != 0 && process.console_listener == 0 {
                process.out = None;
            }
        }
        if changed {
            self.commit();
        }
    }

    /// The loggers of what was adopted came to the end of their input when the last monitor was lost: others take their place.
    pub(super) fn restart_loggers(&mut self) {
        let all = self.root.state.tasks.iter().flat_map(|t| t.processes().map(move |p| (t, p)));
        let lost = all.filter(|(_, p)| p.pid != 0 && p.out.as_ref().is_some_and(|s| s.logger != 0));
        let lost: Vec<(String, String)> = lost.map(|(t, p)| (t.id.clone(), p.id.clone())).collect();
        for (task, exec) in lost {
            let (pid, pidfd) = (AtomicI32::new(0), AtomicI32::new(-1));
            match sys::fork_child(&pid, &pidfd) {
                Ok(Side::Child) => {
                    sys::unblock_signals();
                    let setup = &self.root.setup;
                    let found = self.root.state.task(&task).and_then(|t| Some((t, t.process(&exec)?)));
                    found.map(|(t, p)| crate::job::start_logger(setup, t, p));
                    sys::exit_now(0)
                }
                Ok(Side::Parent) => Fd(pidfd.into_inner()).close(),
                Err(e) => self.log(&format!("starting the logging binary of {task} {exec} again: {e}")),
            }
            self.close_child_ends(&task, &exec);
        }
    }

    fn open_terminal(&mut self, task: &Task, p: &mut Process) -> Result<()> {
        let path = place::console_socket(&self.root.setup, &task.id, &p.id);
        let _ = std::fs::remove_file(&path);
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let listener = socket::socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        let address = UnixAddr::new(&path).context(|| format!("the console socket {}", path.display()))?;
        socket::bind(sys::number(&listener).0, &address).context(|| format!("binding {}", path.display()))?;
        socket::listen(&listener, socket::Backlog::new(2)?)?;
        if task.options.io_uid != 0 {
            std::os::unix::fs::chown(&path, Some(task.options.io_uid), Some(task.options.io_gid))?;
        }
        p.console_listener = number(Fd::keep(listener));
        let mut stream = match target(&p.stdout) {
            Target::Nowhere => Stream::default(),
            Target::Binary => logger_pipe()?,
            Target::Fifo(path) => {
                let sink = open(&path, OFlag::O_RDWR | OFlag::O_NONBLOCK)?;
                // Room for a batch: each time that it is full costs a wait.
                let _ = widen(sink);
                Stream { sink: number(sink), ..Stream::default() }
            }
            Target::File(_) => {
                return Err(Error::new(
                    Kind::Unsupported,
                    format!("a terminal's output can't go to {}", p.stdout),
                ))
            }
        };
        self.equip(&mut stream, task, p, 1)?;
        p.out = Some(stream);
        if !p.stdin.is_empty() {
            let source = p.stdin.strip_prefix("fifo://").unwrap_or(&p.stdin);
            let source = number(open(Path::new(source), OFlag::O_RDWR | OFlag::O_NONBLOCK)?);
            p.inputs.push(Input { source, ..Input::default() });
        }
        Ok(())
    }

    pub(super) fn take_console(&mut self, t: usize, p: usize, listener: Fd) {
        let Some(process) = self.root.state.tasks.get(t).and_then(|t| t.processes().nth(p)) else { return };
        if fd(process.console_listener) != Some(listener) {
            return;
        }
        let (task, exec) = (self.root.state.tasks[t].id.clone(), process.id.clone());
        self.take_consoles(&task, &exec);
    }

    /// Takes the terminal that the runtime hands over, if it has come.
    pub(super) fn take_consoles(&mut self, task: &str, exec: &str) {
        let Some(listener) = self.root.state.process(task, exec).and_then(|p| fd(p.console_listener)) else {
            return;
        };
        let Ok(conn) = socket::accept4(listener.0, SockFlag::SOCK_CLOEXEC) else { return };
        let master = receive_fd(Fd(conn));
        Fd(conn).close();
        if let Some(master) = master {
            self.use_console(task, exec, master);
        }
    }

    pub(super) fn use_console(&mut self, task: &str, exec: &str, master: Fd) {
        let _ = nix::fcntl::fcntl(master, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK));
        let path = place::console_socket(&self.root.setup, task, exec);
        let Some(p) = self.root.state.process_mut(task, exec) else { return master.close() };
        p.console = number(master);
        p.stdin_pipe = number(master);
        if let Some(stream) = &mut p.out {
            stream.source = number(master);
        }
        if p.size != 0 {
            let _ = sys::set_window(master, (p.size >> 16) as u16, p.size as u16);
        }
        let mut listener = std::mem::take(&mut p.console_listener);
        self.commit();
        close(&mut listener);
        let _ = std::fs::remove_file(path);
    }

    /// Moves input from one client (`only`), or from all of them.
    pub(super) fn pump_input(&mut self, t: usize, p: usize, only: Option<Fd>) {
        let Some(process) = self.root.state.tasks.get_mut(t).and_then(|t| t.processes_mut().nth(p)) else {
            return;
        };
        let Some(to) = fd(process.stdin_pipe) else { return };
        let mut ended = Vec::new();
        let wanted = |i: &Input| only.is_none() || fd(i.source) == only || (i.stalled && only == Some(to));
        for (i, input) in process.inputs.iter_mut().enumerate() {
            if wanted(input) && input.pump(to) == Flow::Ended {
                ended.push(i);
            }
        }
        if ended.is_empty() {
            return;
        }
        let mut gone = Vec::new();
        let mut close_pipe = 0;
        for i in ended.into_iter().rev() {
            let input = process.inputs.remove(i);
            gone.push(input.source);
            // The last word of the client that owns stdin; one that is only attached just leaves.
            if !input.client && process.console == 0 {
                close_pipe = std::mem::take(&mut process.stdin_pipe);
                process.stdin_inode = 0;
            }
        }
        if close_pipe != 0 {
            // Who listens in has nobody left to type to.
            gone.extend(process.inputs.drain(..).map(|i| i.source));
        }
        self.commit();
        gone.iter_mut().for_each(close);
        close(&mut close_pipe);
    }

    pub(super) fn mark_stdin_closing(&mut self, task: &str, exec: &str) {
        if let Some(process) = self.root.state.process_mut(task, exec) {
            process.inputs.iter_mut().filter(|i| !i.client).for_each(|i| i.closing = true);
        }
    }

    /// Hands over what is left of the input of a stdin that is closing, then closes it.
    pub(super) fn close_stdin(&mut self, task: &str, exec: &str) {
        let Some(t) = self.root.state.tasks.iter().position(|t| t.id == task) else { return };
        let Some(p) = self.root.state.tasks[t].processes().position(|p| p.id == exec) else { return };
        let owner =
            self.root.state.tasks[t].processes().nth(p).and_then(|p| p.inputs.iter().find(|i| i.closing));
        if let Some(owner) = owner.and_then(|i| fd(i.source)) {
            self.pump_input(t, p, Some(owner));
        }
    }

    /// A stream is at its end: what it used is closed, which tells the client.
    pub(super) fn stream_ended(&mut self, t: usize, p: usize, source: Source) {
        let Some(task) = self.root.state.tasks.get_mut(t) else { return };
        let id = task.id.clone();
        let Some(process) = task.processes_mut().nth(p) else { return };
        let (slot, address) = match source {
            Source::Out(..) => (&mut process.out, &process.stdout),
            _ => (&mut process.err, &process.stderr),
        };
        let Some(mut stream) = slot.take() else { return };
        process.unread.extend(Unread::of(&stream, address));
        if let Some(mark) = self.map.header().streams.get((stream.mark as usize).wrapping_sub(1)) {
            process.dropped += mark.dropped.load(SeqCst);
            process.unlogged += mark.unlogged.load(SeqCst);
        }
        let told_late = process.recorded && process.dropped + process.unlogged > 0;
        if process.console != 0 {
            // The terminal's master is closed with the process, not with its stream.
            stream.source = 0;
        }
        let ended = process.out.is_none() && process.err.is_none();
        let exec = process.id.clone();
        self.commit();
        stream.close();
        if told_late {
            self.write_record(&id, &exec);
        }
        if ended {
            self.event(Event::Drained { task: id, exec });
        }
    }

    pub(super) fn close_stdio(&mut self, task: &str, exec: &str) {
        let Some(p) = self.root.state.process_mut(task, exec) else {
            return self.remove_files(task, exec);
        };
        let streams = [p.out.take(), p.err.take()];
        let mut numbers = vec![p.child_in, p.child_out, p.child_err, p.console_listener, p.pidfd];
        numbers.push(p.stdin_pipe);
        if p.console != p.stdin_pipe {
            numbers.push(p.console);
        }
        let console = p.console;
        numbers.extend(p.inputs.drain(..).map(|i| i.source));
        numbers.extend(p.unread.drain(..).flat_map(|u| u.fds()));
        (p.child_in, p.child_out, p.child_err, p.console_listener) = (0, 0, 0, 0);
        (p.stdin_pipe, p.stdin_inode, p.console, p.pidfd) = (0, 0, 0, 0);
        let names: Vec<PathBuf> = (1..3).map(|n| fifo(&self.root.setup, task, exec, n)).collect();
        self.commit();
        for mut stream in streams.into_iter().flatten() {
            if stream.source == console {
                stream.source = 0;
            }
            stream.close();
        }
        numbers.iter_mut().for_each(close);
        for name in names {
            let _ = std::fs::remove_file(name);
        }
    }

    /// What a deleted process had in the monitor's directory. Init's record stays as long as the monitor does.
    fn remove_files(&self, task: &str, exec: &str) {
        let setup = &self.root.setup;
        let mut names: Vec<PathBuf> = (1..3).map(|n| fifo(setup, task, exec, n)).collect();
        names.push(place::console_socket(setup, task, exec));
        if !exec.is_empty() {
            names.extend((1..3).map(|n| PathBuf::from(spool(setup, task, exec, n) + ".spool")));
            names.push(crate::record::path(setup, task, exec));
        }
        for name in names {
            let _ = std::fs::remove_file(name);
        }
    }

    /// A client listens in: FIFOs that it made, opened so that its end is noticed.
    pub(super) fn attach(&mut self, r: &AttachRequest) -> Result<Vec<u8>> {
        let result = self.listen_in(r);
        if result.is_err() {
            // What was opened on the way, nobody knows.
            self.sort_out_descriptors();
        }
        result
    }

    fn listen_in(&mut self, r: &AttachRequest) -> Result<Vec<u8>> {
        let Some(p) = self.root.state.process(&r.id, &r.exec_id).cloned() else {
            return Err(Error::new(Kind::NotFound, format!("container {} does not exist", r.id)));
        };
        let mut fresh = p.clone();
        for (address, slot) in [(&r.stdout, &mut fresh.out), (&r.stderr, &mut fresh.err)] {
            let Some(stream) = slot.as_mut().filter(|_| !address.is_empty()) else { continue };
            self.stage(stream)?;
            let sink = number(open(Path::new(address), OFlag::O_WRONLY | OFlag::O_NONBLOCK)?);
            let (stage_in, stage_out) = pipe()?;
            stream.taps.push(Tap { sink, stage_in, stage_out, ..Tap::default() });
        }
        if !r.stdin.is_empty() && fresh.stdin_pipe != 0 {
            let source = number(open(Path::new(&r.stdin), OFlag::O_RDONLY | OFlag::O_NONBLOCK)?);
            fresh.inputs.push(Input { source, client: true, ..Input::default() });
        }
        let terminal = fresh.terminal;
        if let Some(p) = self.root.state.process_mut(&r.id, &r.exec_id) {
            *p = fresh;
        }
        Ok(AttachResponse { terminal }.bytes())
    }
}

/// Receives one descriptor over a unix socket.
fn receive_fd(conn: Fd) -> Option<Fd> {
    let mut name = [0; 4096];
    let mut iov = [std::io::IoSliceMut::new(&mut name)];
    let mut space = nix::cmsg_space!([std::os::fd::RawFd; 2]);
    let flags = socket::MsgFlags::MSG_CMSG_CLOEXEC;
    let message = socket::recvmsg::<()>(conn.0, &mut iov, Some(&mut space), flags).ok()?;
    let mut found = None;
    for control in message.cmsgs().ok()? {
        if let socket::ControlMessageOwned::ScmRights(fds) = control {
            for raw in fds {
                match found {
                    None => found = Some(Fd(raw)),
                    Some(_) => Fd(raw).close(),
                }
            }
        }
    }
    found
}
