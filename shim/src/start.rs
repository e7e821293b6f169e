//! Starting a monitor: its socket, its directory, its first state, and the process that becomes its first head.

use crate::error::{Context, Error, Kind, Result};
use crate::pb::Message;
use crate::place;
use crate::state::{Root, Setup};
use crate::sys::map::{Map, UPGRADED, UPGRADE_WANTED};
use crate::sys::{self, Fd, Side};
use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::sys::socket::{
    self, AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr,
};
use nix::sys::stat::Mode;
use std::ffi::CString;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicI32, Ordering::SeqCst};

/// Numbers of the descriptors that a new monitor process finds open.
const LISTENER: i32 = 3;
const OWN: i32 = 4;
const STATE: i32 = 5;
const EVENTS: i32 = 6;
/// So much of the event queue has its place from the start.
pub const QUEUE: i64 = 64 << 10;

/// What a configuration may ask of a monitor, as annotations of the container.
#[derive(serde::Deserialize, Default)]
pub struct Config {
    #[serde(default)]
    pub annotations: std::collections::BTreeMap<String, String>,
}

pub fn config(bundle: &Path) -> Config {
    let text = std::fs::read(bundle.join("config.json")).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

/// The setup that annotations ask for; unknown ones of ours are refused by name.
pub fn setup(config: &Config) -> Result<Setup> {
    let mut setup = Setup {
        spool_limit: 16 << 20,
        spool_policy: "block".into(),
        spool_deadline: 30_000_000_000,
        on_loss: "kill".into(),
        ring_limit: 64 << 10,
        notify_signal: 44,
        ..Setup::default()
    };
    for (name, value) in &config.annotations {
        let Some(name) = name.strip_prefix("hydra-shim.") else { continue };
        let invalid = |wanted: &str| {
            Error::new(Kind::Invalid, format!("annotation hydra-shim.{name}: {value:?} is not {wanted}"))
        };
        let number = || value.parse::<u64>().map_err(|_| invalid("a number"));
        let one_of = |allowed: &[&str]| match allowed.contains(&value.as_str()) {
            true => Ok(value.clone()),
            false => Err(invalid(&format!("one of {}", allowed.join(", ")))),
        };
        match name {
            "spool-bytes" => setup.spool_limit = number()?,
            "spool-policy" => setup.spool_policy = one_of(&["block", "drop-oldest", "drop-newest"])?,
            "spool-deadline-ms" => setup.spool_deadline = number()?.saturating_mul(1_000_000),
            "ring-bytes" => setup.ring_limit = number()?.max(4096),
            "on-monitor-loss" => setup.on_loss = one_of(&["kill", "keep"])?,
            "group" => {
                one_of(&["pod", "container"])?;
            }
            other => return Err(Error::new(Kind::Invalid, format!("unknown annotation hydra-shim.{other}"))),
        }
    }
    setup.exe =
        std::fs::read_link("/proc/self/exe").map(|p| p.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(setup)
}

/// Which container's monitor serves this one: its own, unless a group was asked for. Whoever describes a container names the group:
/// never a place outside of the monitors' own.
pub fn group(config: &Config, id: &str) -> Result<String> {
    let get = |name: &str| config.annotations.get(name).filter(|v| !v.is_empty());
    let pod =
        get("io.kubernetes.cri.sandbox-id").filter(|_| get("hydra-shim.group").is_some_and(|g| g == "pod"));
    match get("io.containerd.runc.v2.group").or(pod) {
        Some(group) => place::check_name(group)
            .context(|| "the group that an annotation asks for")
            .map(|()| group.clone()),
        None => Ok(id.to_string()),
    }
}

/// Listens on `path`. None: somebody answers there already.
pub fn listen(path: &Path) -> Result<Option<OwnedFd>> {
    let address = UnixAddr::new(path).context(|| format!("socket {}", path.display()))?;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket::socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    let number = sys::number(&socket).0;
    // The socket must never be open to others, not even for an instant.
    let mask = nix::sys::stat::umask(Mode::from_bits_truncate(0o177));
    let mut bound = socket::bind(number, &address);
    if bound == Err(nix::errno::Errno::EADDRINUSE) {
        let probe = socket::socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        if socket::connect(sys::number(&probe).0, &address).is_ok() {
            nix::sys::stat::umask(mask);
            return Ok(None);
        }
        let _ = std::fs::remove_file(path);
        bound = socket::bind(number, &address);
    }
    nix::sys::stat::umask(mask);
    bound.context(|| format!("binding {}", path.display()))?;
    socket::listen(&socket, socket::Backlog::new(128)?)
        .context(|| format!("listening on {}", path.display()))?;
    Ok(Some(socket))
}

/// The state file of a monitor, locked as long as a head lives. None: one does.
pub fn lock_state(directory: &Path, fresh: bool) -> Result<Option<OwnedFd>> {
    let path = place::state_file(directory);
    let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC | if fresh { OFlag::O_CREAT } else { OFlag::empty() };
    let file = nix::fcntl::open(&path, flags, Mode::from_bits_truncate(0o600))
        .context(|| format!("opening {}", path.display()))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(locked) => {
            // The lock belongs to the open file, which the monitor inherits: it is never unlocked by hand.
            let number = sys::number(&*locked);
            let copy = nix::fcntl::fcntl(number, nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(10)).map(Fd)?;
            std::mem::forget(locked);
            number.close();
            Ok(Some(copy.into_owned()))
        }
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, e)) => Err(e).context(|| format!("locking {}", path.display())),
    }
}

/// What a dead monitor of this name left is the only way to what runs on without it.
fn refuse_orphans(state: &OwnedFd, setup: &Setup) -> Result<()> {
    let map = Map::open(sys::number(state), false).ok();
    let root = map.and_then(|m| Root::decode(&m.committed()).ok()).unwrap_or_default();
    match root.state.tasks.iter().find(|t| crate::job::runs(t)) {
        Some(t) => {
            let text = format!(
                "container {} runs on without its monitor: `shim adopt --namespace {} {}` gives it one",
                t.id, setup.namespace, t.id
            );
            Err(Error::new(Kind::Exists, text))
        }
        None => Ok(()),
    }
}

/// Gives a head that was begun all it needs. `listener` is containerd's socket, where there is one.
pub fn launch(
    head: Head,
    setup: Setup,
    listener: Option<OwnedFd>,
    adopted: Option<(OwnedFd, Root)>,
) -> Result<()> {
    let directory = Path::new(&setup.directory).to_path_buf();
    place::make(&directory)?;
    place::make(Path::new(&setup.disk))?;
    let taken = || Error::new(Kind::Exists, format!("a monitor of {} is running", setup.id));
    let fresh = adopted.is_none();
    let (state, mut root) = match adopted {
        Some((state, root)) => (state, root),
        None => {
            let state = lock_state(&directory, true)?.ok_or_else(taken)?;
            refuse_orphans(&state, &setup)?;
            nix::unistd::ftruncate(&state, 0)?;
            (state, Root::default())
        }
    };
    let own = listen(&place::socket(&setup))?.ok_or_else(taken)?;
    let flags = OFlag::O_RDWR
        | OFlag::O_CREAT
        | OFlag::O_CLOEXEC
        | if fresh { OFlag::O_TRUNC } else { OFlag::empty() };
    let events = nix::fcntl::open(&directory.join("events"), flags, Mode::from_bits_truncate(0o600))
        .context(|| "the event queue")?;
    // Some hundred events have their place also when the file system is full later.
    nix::fcntl::fallocate(&events, nix::fcntl::FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, QUEUE)
        .context(|| "making room for the event queue")?;
    let map = Map::open(sys::number(&state), fresh)?;
    root.listeners = if listener.is_some() { vec![LISTENER as u64, OWN as u64] } else { vec![OWN as u64] };
    root.events = EVENTS as u32 + 1;
    root.setup = setup;
    root.state.lost = root.setup.standalone;
    map.commit(&root.bytes())?;
    hand_over(&head, [listener.as_ref().unwrap_or(&own), &own, &state, &events])?;
    match listener.is_some() && fresh {
        true => answer(&root.setup.address),
        false => Ok(()),
    }
}

/// What containerd waits for, in the one form that every version from 1.4 on understands. It waits too until nobody has its pipe any
/// more: the head has let go of it.
fn answer(address: &str) -> Result<()> {
    use std::io::Write;
    print!("{address}");
    std::io::stdout().flush()?;
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    let null = sys::number(&null);
    Ok(sys::set_stdio(null, null, null)?)
}

/// The process that becomes the first head, seen from the one that prepares what it needs. Dropped without it, the head ends.
pub struct Head {
    pub pid: i32,
    link: OwnedFd,
}

/// Begins the first head, which waits. To be called early: the memory that this process has by then is what the head keeps of it, and
/// a second processor does the head's part meanwhile.
///
/// # Errors
/// Where there are no pidfds (Linux before 5.3): by them the heads see each other's end.
pub fn begin(daemon: bool) -> Result<Head> {
    sys::pidfd_open(std::process::id() as i32)
        .map(Fd::close)
        .context(|| "the monitor needs pidfds (Linux 5.3)")?;
    let (kind, flags) = (SockType::SeqPacket, SockFlag::SOCK_CLOEXEC);
    let (ours, its) = socket::socketpair(AddressFamily::Unix, kind, None, flags)?;
    let (pid, pidfd) = (AtomicI32::new(0), AtomicI32::new(-1));
    let side = sys::fork_child(&pid, &pidfd).context(|| "starting the monitor")?;
    match (side, daemon) {
        (Side::Parent, true) => {
            Fd(pidfd.into_inner()).close();
            Ok(Head { pid: pid.into_inner(), link: ours })
        }
        // Lazy: this process becomes the monitor and stays the starter's child; the other one asks it to run the container.
        (Side::Child, false) => Ok(Head { pid: nix::unistd::getppid().as_raw(), link: ours }),
        (Side::Child, true) | (Side::Parent, false) => {
            let _ = become_head(&its, daemon);
            sys::exit_now(1)
        }
    }
}

/// Waits for what a head needs, and is one.
fn become_head(link: &OwnedFd, daemon: bool) -> Result<()> {
    if daemon {
        let _ = nix::unistd::setsid();
    }
    let null = nix::fcntl::open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())?;
    sys::set_stdio(sys::number(link), sys::number(&null), sys::number(&null))?;
    // Also what whoever started this left open.
    descriptors().into_iter().for_each(Fd::close);
    let _ = std::env::set_current_dir("/");
    take_over(Fd(0))?;
    let map = Map::open(Fd(STATE), false)?;
    let setup = Root::decode(&map.committed())?.setup;
    let id = format!("{}/{}", setup.namespace, setup.id);
    if sys::set_arguments(&["shim", "monitor", &id]) {
        first_head(&map);
    }
    descriptors().into_iter().for_each(|fd| sys::keep_on_exec(fd, true));
    let args = ["shim", "monitor", &id].map(|a| CString::new(a).unwrap_or_default());
    nix::unistd::execv(c"/proc/self/exe", &args)
        .map(|never| match never {})
        .context(|| "executing the monitor")
}

/// What this process has open beyond its standard streams.
fn descriptors() -> Vec<Fd> {
    let listing = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let numbers = listing.filter_map(|e| e.file_name().to_str()?.parse().ok());
    numbers.filter(|n| *n > 2).map(Fd).collect()
}

/// Gives the head all it needs, at once: from now on there is a monitor, whatever becomes of this process.
fn hand_over(head: &Head, held: [&OwnedFd; 4]) -> Result<()> {
    let numbers = held.map(|fd| sys::number(fd).0);
    let control = [ControlMessage::ScmRights(&numbers)];
    let (link, text) = (sys::number(&head.link).0, [IoSlice::new(b"!")]);
    socket::sendmsg::<()>(link, &text, &control, MsgFlags::MSG_NOSIGNAL, None)
        .map(drop)
        .context(|| "handing over to the monitor, whose process has ended")
}

/// Takes what `hand_over` gives, at the numbers that a monitor's descriptors have: nothing else is open.
fn take_over(link: Fd) -> nix::Result<()> {
    let mut space = nix::cmsg_space!([i32; 4]);
    let mut text = [0];
    let mut text = [IoSliceMut::new(&mut text)];
    let message = socket::recvmsg::<()>(link.0, &mut text, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let rights = |control| match control {
        ControlMessageOwned::ScmRights(fds) => Some(fds),
        _ => None,
    };
    match message.cmsgs()?.find_map(rights) {
        Some(fds) if fds == [LISTENER, OWN, STATE, EVENTS] => {}
        _ => return Err(nix::errno::Errno::EPROTO),
    }
    let null = nix::fcntl::open("/dev/null", OFlag::O_RDWR, Mode::empty())?;
    sys::place(sys::number(&null), link.0)
}

/// A program that was executed by a head: every descriptor came along.
pub fn monitor() -> ! {
    descriptors().into_iter().for_each(|fd| sys::keep_on_exec(fd, false));
    match Map::open(Fd(STATE), false) {
        Ok(map) => first_head(&map),
        Err(_) => sys::exit_now(1),
    }
}

/// The keeper, to begin with.
fn first_head(map: &Map) -> ! {
    // It may have been executed through /proc/self/exe, and would be called `exe` in lists of processes.
    let _ = nix::sys::prctl::set_name(c"shim");
    // Huge pages would make a small program large.
    sys::prctl(libc::PR_SET_THP_DISABLE, 1);
    sys::block_signals();
    prepare(map);
    let header = map.header();
    if header.upgrade.load(SeqCst) == UPGRADE_WANTED {
        // The worker of the old program has waited, stopped, with descriptors of its own since the exec.
        sys::end_child(header.worker.load(SeqCst));
        header.upgrade.store(UPGRADED, SeqCst);
    }
    crate::heads::run(map)
}

/// Descriptors that every head uses, whatever it is at the time.
fn prepare(map: &Map) {
    use nix::sys::eventfd::{EfdFlags, EventFd};
    let header = map.header();
    if let Ok(poke) = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK) {
        header.poke_fd.store(Fd::keep(poke.into()).0, SeqCst);
    }
    if let Ok(children) = sys::child_signals() {
        header.child_fd.store(children.0, SeqCst);
    }
    header.keeper_fd.store(0, SeqCst);
}

/// Replaces this process, the keeper, by the installed program: pid, children and descriptors stay. Returns why it didn't.
pub fn exec_again(map: &Map) -> i32 {
    let Ok(root) = Root::decode(&map.committed()) else { return libc::EPROTO };
    let open = descriptors();
    open.iter().for_each(|fd| sys::keep_on_exec(*fd, true));
    let id = format!("{}/{}", root.setup.namespace, root.setup.id);
    let args = ["shim", "monitor", &id].map(|a| CString::new(a).unwrap_or_default());
    let exe = CString::new(root.setup.exe.as_bytes()).unwrap_or_default();
    let failed = nix::unistd::execv(&exe, &args).map_or_else(|e| e as i32, |never| match never {});
    open.iter().for_each(|fd| sys::keep_on_exec(*fd, false));
    failed
}
