//! A monitor as containerd starts one, with the tests in containerd's place: they take its events and speak to it.

use crate::wire::{read_frame, write_frame, Client, Fields, Msg};
use crate::{eventually, host, janitor, Bundle, Run};
use serde_json::json;
use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

/// One event as the monitor published it.
#[derive(Debug, Clone)]
pub struct News {
    pub topic: String,
    pub fields: Fields,
}

impl News {
    /// `/tasks/exit` has the exec's name in field 2, other exec events too; the container's name is field 1 everywhere.
    pub fn about(&self, container: &str, exec: &str) -> bool {
        let second = match self.topic.as_str() {
            "/tasks/exit" => self.fields.text(2),
            t if t.starts_with("/tasks/exec") => self.fields.text(2),
            _ => container.to_string(),
        };
        self.fields.text(1) == container && second == if exec.is_empty() { container } else { exec }
    }
}

/// containerd's event service.
pub struct Events {
    pub path: PathBuf,
    all: Arc<Mutex<Vec<News>>>,
}

impl Events {
    pub fn listen(path: PathBuf) -> Events {
        let _ = fs::remove_file(&path);
        let listener = UnixListener::bind(&path).expect("event socket");
        let all = Arc::new(Mutex::new(Vec::new()));
        let shared = all.clone();
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let all = shared.clone();
                std::thread::spawn(move || {
                    let mut socket = socket;
                    while let Some((stream, _, payload)) = read_frame(&mut socket) {
                        let envelope = Fields::read(&payload).message(3).message(1);
                        let fields = envelope.message(4).message(2);
                        all.lock().expect("events").push(News { topic: envelope.text(3), fields });
                        if write_frame(&mut socket, stream, 2, &[]).is_err() {
                            break;
                        }
                    }
                });
            }
        });
        Events { path, all }
    }

    pub fn all(&self) -> Vec<News> {
        self.all.lock().expect("events").clone()
    }

    /// The topics, in order, that concern a container or one of its execs.
    pub fn topics(&self, container: &str, exec: &str) -> Vec<String> {
        self.all().iter().filter(|n| n.about(container, exec)).map(|n| n.topic.clone()).collect()
    }
}

/// The shim under test.
pub fn shim() -> PathBuf {
    fs::canonicalize(host::runtime()).expect("the runtime under test").with_file_name("shim")
}

/// The namespace of this test program's monitors; at its end they are ended, and what they kept is removed.
pub fn namespace() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| {
        let name = janitor::name();
        let each = "for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline 2>/dev/null";
        janitor::at_end(&format!(
            "for round in 1 2 3; do {each} | grep -q 'shim monitor {name}/' && kill -KILL ${{p#/proc/}}; done; done; \
             rm -rf /run/hydra-shim/{name} /var/lib/hydra-shim/{name}"
        ));
        name
    })
}

/// A runtime that writes down each of its invocations, so that one made twice is seen.
fn counted() -> &'static (PathBuf, PathBuf) {
    static PROGRAM: OnceLock<(PathBuf, PathBuf)> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let (program, log) = (janitor::scratch().join("counted"), janitor::scratch().join("invocations"));
        let runtime = fs::canonicalize(host::runtime()).expect("runtime");
        let script =
            format!("#!/bin/sh\necho \"$*\" >>{}\nexec {} \"$@\"\n", log.display(), runtime.display());
        fs::write(&program, script).expect("wrapper");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("mode");
        (program, log)
    })
}

/// How often the runtime was run with this verb for this container.
pub fn invocations(verb: &str, container: &str) -> usize {
    let text = fs::read_to_string(&counted().1).unwrap_or_default();
    let of = |l: &&str| l.split(' ').any(|w| w == verb) && l.split(' ').any(|w| w == container);
    text.lines().filter(of).count()
}

/// Keeper and worker, as the state file of a monitor names them.
pub fn heads(dir: &Path) -> [i32; 2] {
    let mut raw = [0; 8];
    let read = File::open(dir.join("state")).and_then(|f| f.read_exact_at(&mut raw, 24));
    read.map_or([0, 0], |()| [0, 4].map(|at| i32::from_le_bytes(raw[at..at + 4].try_into().expect("four"))))
}

/// Whether both are there.
pub fn whole(dir: &Path) -> bool {
    let [keeper, worker] = heads(dir);
    keeper != worker && host::alive(keeper) && host::alive(worker)
}

pub struct Monitor {
    pub id: String,
    pub address: PathBuf,
    pub dir: PathBuf,
    pub events: Events,
    pub bundle: Bundle,
}

impl Monitor {
    #[track_caller]
    pub fn start(name: &str) -> Monitor {
        Monitor::with(name, &[])
    }

    /// A monitor whose first container's configuration has these annotations.
    #[track_caller]
    pub fn with(name: &str, annotations: &[(&str, &str)]) -> Monitor {
        Monitor::by(name, &shim(), annotations)
    }

    /// A monitor made by this program.
    #[track_caller]
    pub fn by(name: &str, program: &Path, annotations: &[(&str, &str)]) -> Monitor {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Monitor::named(&format!("{name}-{}", NEXT.fetch_add(1, SeqCst)), program, annotations)
    }

    /// A monitor whose name is known beforehand.
    #[track_caller]
    pub fn named(id: &str, program: &Path, annotations: &[(&str, &str)]) -> Monitor {
        let id = id.to_string();
        let mut bundle = Bundle::new(&id);
        for (key, value) in annotations {
            bundle.config["annotations"][*key] = json!(value);
        }
        bundle.write();
        // A socket's path is short, a name may be long.
        let name = &id[..id.len().min(40)];
        let events = Events::listen(janitor::scratch().join(format!("{name}.events")));
        let out = Run::new(program)
            .args(["-namespace", namespace(), "-address", "/nowhere", "-id", &id, "start"])
            .env("TTRPC_ADDRESS", &events.path)
            .dir(&bundle.dir)
            .ok();
        let address = PathBuf::from(out.stdout.trim().strip_prefix("unix://").expect("an address"));
        let dir = Path::new("/run/hydra-shim").join(namespace()).join(&id);
        Monitor { id, address, dir, events, bundle }
    }

    #[track_caller]
    pub fn client(&self) -> Client {
        Client::connect(&self.address).expect("the monitor listens")
    }

    /// Keeper and worker.
    pub fn heads(&self) -> [i32; 2] {
        heads(&self.dir)
    }

    /// The heads that live, by the state: a look through all processes may miss one that is just born.
    pub fn living(&self) -> Vec<i32> {
        let name = format!("{}/{}", namespace(), self.id);
        let named = |pid: &i32| {
            fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains(&name))
        };
        self.heads().into_iter().filter(|p| *p > 0 && named(p) && host::alive(*p)).collect()
    }

    /// Ends every head, and what the runtime is at for it.
    pub fn kill_all(&self) {
        let start = std::time::Instant::now();
        // On a busy machine a process takes its time to die.
        while start.elapsed() < host::patience() {
            let name = format!("{}/{}", namespace(), self.id);
            let mut heads: Vec<i32> =
                host::processes_with(&name).into_iter().filter(|p| host::alive(*p)).collect();
            heads.extend(self.living());
            if heads.is_empty() {
                return;
            }
            for pid in heads {
                let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// A container of this monitor.
    pub fn task(&self, id: &str, args: &[&str]) -> Task {
        let mut bundle = if id == self.id {
            Bundle { dir: self.bundle.dir.clone(), config: self.bundle.config.clone() }
        } else {
            Bundle::new(id)
        };
        bundle.config["process"]["args"] = json!(args);
        Task { id: id.into(), bundle, stdin: None, stdout: None, stderr: None, terminal: false }
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.kill_all();
        let root = format!("/run/containerd/hydra/{}", namespace());
        for entry in fs::read_dir(&root).into_iter().flatten().flatten() {
            let id = entry.file_name().to_string_lossy().into_owned();
            if fs::read_to_string(entry.path().join("state.json")).is_ok_and(|t| t.contains(&self.id))
                || id.starts_with(&self.id)
            {
                let delete = Run::new(host::runtime()).args(["--root", &root, "delete", "--force", &id]);
                let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| delete.out()));
            }
        }
        let _ = fs::remove_dir_all(&self.dir);
        let _ = fs::remove_file(&self.address);
    }
}

/// A container to be made through a monitor.
pub struct Task {
    pub id: String,
    pub bundle: Bundle,
    pub stdin: Option<PathBuf>,
    pub stdout: Option<PathBuf>,
    pub stderr: Option<PathBuf>,
    pub terminal: bool,
}

impl Task {
    pub fn create(&self) -> Msg {
        self.create_by(&counted().0)
    }

    /// The same by this runtime.
    pub fn create_by(&self, program: &Path) -> Msg {
        self.bundle.write();
        let path = |p: &Option<PathBuf>| p.as_ref().map_or(String::new(), |p| p.display().to_string());
        let options = Msg::new().text(6, &program.display().to_string());
        Msg::new()
            .text(1, &self.id)
            .text(2, &self.bundle.dir.display().to_string())
            .int(4, u64::from(self.terminal))
            .text(5, &path(&self.stdin))
            .text(6, &path(&self.stdout))
            .text(7, &path(&self.stderr))
            .any(10, "containerd.runc.v1.Options", &options.0)
    }

    /// The request of an exec of `args`.
    pub fn exec(&self, exec: &str, args: &[&str], stdout: Option<&Path>) -> Msg {
        let mut process = self.bundle.config["process"].clone();
        process["args"] = json!(args);
        process["terminal"] = json!(false);
        let spec = process.to_string();
        Msg::new()
            .text(1, &self.id)
            .text(2, exec)
            .text(5, &stdout.map_or(String::new(), |p| p.display().to_string()))
            .any(7, "types.containerd.io/opencontainers/runtime-spec/1/Process", spec.as_bytes())
    }
}

/// Names a container, or an exec of it.
pub fn target(id: &str, exec: &str) -> Msg {
    Msg::new().text(1, id).text(2, exec)
}

/// `signal` for a container's init.
pub fn signal(id: &str, number: u64) -> Msg {
    Msg::new().text(1, id).int(3, number)
}

/// Kills a container and takes it away.
#[track_caller]
pub fn end(client: &Client, id: &str) {
    client.ok("Kill", signal(id, 9));
    client.ok("Wait", target(id, ""));
    client.ok("Delete", target(id, ""));
}

/// A FIFO of the tests' own.
pub fn fifo(name: &str) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let path = janitor::scratch().join(format!("{name}.{}.fifo", NEXT.fetch_add(1, SeqCst)));
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o600)).expect("fifo");
    path
}

/// Opens a FIFO for reading, without a wait for writers.
pub fn open_fifo(path: &Path) -> File {
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).expect("fifo")
}

/// What came out of a FIFO.
#[derive(Debug, Default, Clone)]
pub struct Read16 {
    /// Whole lines of `ledger`, in order.
    pub lines: u64,
    /// The first thing that was not the next line.
    pub wrong: Option<String>,
    /// No writer is left.
    pub ended: bool,
}

/// Reads what `ledger` writes, for as long as it lives, and checks that each line follows the one before.
pub struct Reader {
    seen: Arc<Mutex<Read16>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Reader {
    pub fn new(path: &Path) -> Reader {
        Reader::of(open_fifo(path))
    }

    /// One for which the loss of all writers is no end.
    pub fn lasting(path: &Path) -> Reader {
        let both = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(path);
        Reader::of(both.expect("fifo"))
    }

    fn of(mut file: File) -> Reader {
        let seen = Arc::new(Mutex::new(Read16::default()));
        let over = Arc::new(AtomicBool::new(false));
        let (shared, stop) = (seen.clone(), over.clone());
        let thread = std::thread::spawn(move || {
            let (mut buffer, mut rest, mut any) = (vec![0; 1 << 16], Vec::new(), false);
            while !stop.load(SeqCst) {
                match file.read(&mut buffer) {
                    // Before the monitor opened it, there is no writer either.
                    Ok(0) if !any => std::thread::sleep(Duration::from_millis(1)),
                    Ok(0) => {
                        shared.lock().expect("reader").ended = true;
                        return;
                    }
                    Ok(n) => {
                        any = true;
                        rest.extend_from_slice(&buffer[..n]);
                        let whole = rest.len() - rest.len() % 16;
                        check(&rest[..whole], &mut shared.lock().expect("reader"));
                        rest.drain(..whole);
                    }
                    Err(_) => {
                        any = true;
                        std::thread::sleep(Duration::from_millis(1));
                    }
                }
            }
        });
        Reader { seen, over, thread: Some(thread) }
    }

    pub fn seen(&self) -> Read16 {
        self.seen.lock().expect("reader").clone()
    }

    /// All of it, once the last writer is gone.
    #[track_caller]
    pub fn whole(&self) -> Read16 {
        eventually("the end of the output", || self.seen().ended);
        self.seen()
    }
}

/// Checks lines of `ledger`.
pub fn check(bytes: &[u8], seen: &mut Read16) {
    for line in bytes.chunks_exact(16) {
        if seen.wrong.is_none() && line != format!("{:015}\n", seen.lines).as_bytes() {
            seen.wrong = Some(format!("after {} lines: {:?}", seen.lines, String::from_utf8_lossy(line)));
        }
        seen.lines += 1;
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.over.store(true, SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
