//! The faces that people use: thin clients of a monitor's own socket, and what needs no monitor at all.

mod attach;
mod link;
mod logs;
mod run;

use crate::api::*;
use crate::error::{Error, Kind, Result};
use crate::pb::Message;
use crate::state::{Root, Setup};
use crate::sys;
use crate::sys::map::Map;
use crate::{adopt, heads, job, place, record};
use link::Link;
use std::path::{Path, PathBuf};

/// Options in front of the container's name.
#[derive(Default)]
struct Options {
    namespace: Option<String>,
    values: Vec<(String, String)>,
    switches: Vec<String>,
    rest: Vec<String>,
}

const WITH_VALUE: [&str; 13] = [
    "--namespace",
    "--id",
    "--exec",
    "--bundle",
    "--root",
    "--runtime",
    "--pid-file",
    "--exit-command",
    "--notify-pid-file",
    "--notify-signal",
    "--detach-keys",
    "--interval-ms",
    "--state",
];
const SWITCHES: [&str; 7] =
    ["--all", "--lazy", "--rm", "--interactive", "--no-stdin", "--follow", "--systemd-cgroup"];

fn parse(args: &[String]) -> Result<Options> {
    let mut options = Options::default();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let (name, given) = match arg.split_once('=') {
            Some((n, v)) if n.starts_with("--") => (n, Some(v.to_string())),
            _ => (arg.as_str(), None),
        };
        let name = match name {
            "-b" => "--bundle",
            "-f" => "--follow",
            "-i" => "--interactive",
            name => name,
        };
        if WITH_VALUE.contains(&name) {
            let missing = || Error::new(Kind::Invalid, format!("{name} needs a value"));
            let value = given.or_else(|| args.next().cloned()).ok_or_else(missing)?;
            match name {
                "--namespace" => options.namespace = Some(value),
                "--id" => options.rest.push(value),
                name => options.values.push((name.into(), value)),
            }
        } else if SWITCHES.contains(&name) && given.is_none() {
            options.switches.push(name.into());
        } else if name.starts_with('-') && options.rest.is_empty() {
            return Err(Error::new(Kind::Invalid, format!("unknown option {name}")));
        } else {
            options.rest.push(arg.clone());
        }
    }
    Ok(options)
}

impl Options {
    fn value(&self, name: &str) -> Option<&str> {
        self.values.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    fn is(&self, name: &str) -> bool {
        self.switches.iter().any(|s| s == name)
    }

    fn id(&self) -> Result<&str> {
        match &self.rest[..] {
            [id] => Ok(id),
            [] => Err(Error::new(Kind::Invalid, "a container's name is needed")),
            _ => Err(Error::new(Kind::Invalid, "one container's name is taken, no more")),
        }
    }
}

pub fn run(args: &[String]) -> Result<i32> {
    let options = parse(&args[1..])?;
    match args[0].as_str() {
        "run" => run::run(&options),
        "attach" => attach::attach(&find(&options)?, &options),
        "wait" => wait(&find(&options)?, &options),
        "logs" => logs::logs(&find(&options)?, &options),
        "pause" => freeze(&find(&options)?, "Pause"),
        "resume" => freeze(&find(&options)?, "Resume"),
        "forget" => forget(&find(&options)?),
        "list" => list(),
        "adopt" => {
            let place = find(&options)?;
            adopt::adopt(&place.namespace, &place.id).map(|_| 0)
        }
        "watch" => watch(&options),
        "upgrade" => upgrade(&options),
        other => Err(Error::new(Kind::Invalid, format!("unknown command {other}"))),
    }
}

/// One monitor's place, and one container in it.
struct Place {
    namespace: String,
    id: String,
    /// The container: it has the monitor's own name, unless several share a monitor.
    task: String,
    directory: PathBuf,
}

impl Place {
    fn new(namespace: &str, id: &str) -> Place {
        let directory = place::run_dir(namespace, id);
        Place { namespace: namespace.into(), id: id.into(), task: id.into(), directory }
    }

    /// What names of files depend on.
    fn setup(&self) -> Setup {
        Setup {
            namespace: self.namespace.clone(),
            id: self.id.clone(),
            directory: self.directory.to_string_lossy().into_owned(),
            disk: place::disk_dir(&self.namespace, &self.id).to_string_lossy().into_owned(),
            ..Setup::default()
        }
    }

    fn target(&self, options: &Options) -> Target {
        let exec = options.value("--exec").unwrap_or_default();
        Target { id: self.task.clone(), exec_id: exec.into() }
    }

    fn record(&self, exec: &str) -> PathBuf {
        record::path(&self.setup(), &self.task, exec)
    }

    /// The containers of this monitor with the `--root` of their runtime: from its state, or from the record that it left.
    fn tasks(&self) -> Vec<(String, String)> {
        match look(self) {
            Ok((root, _)) if !root.state.tasks.is_empty() => {
                let tasks = root.state.tasks.iter();
                tasks.map(|t| (t.id.clone(), job::root(&root.setup, t))).collect()
            }
            _ => {
                let root = record::read(&self.record("")).map(|r| r.root).unwrap_or_default();
                vec![(self.id.clone(), root)]
            }
        }
    }
}

fn places() -> Vec<Place> {
    let entries = |path: &Path| -> Vec<String> {
        let read = std::fs::read_dir(path).into_iter().flatten().flatten();
        read.filter_map(|e| e.file_name().into_string().ok()).collect()
    };
    let mut all = Vec::new();
    for namespace in entries(&place::run()) {
        for id in entries(&place::run().join(&namespace)) {
            all.push(Place::new(&namespace, &id));
        }
    }
    all
}

/// The monitor of a container, by the container's name or the unique beginning of one.
fn find(options: &Options) -> Result<Place> {
    let id = options.id()?;
    let root = options.value("--root").map(|r| Path::new(r).canonicalize().unwrap_or_else(|_| r.into()));
    let mut found = Vec::new();
    for place in places() {
        if options.namespace.as_ref().is_some_and(|n| *n != place.namespace) {
            continue;
        }
        for (task, of) in place.tasks() {
            let here = root.as_ref().is_none_or(|r| Path::new(&of).canonicalize().is_ok_and(|o| o == *r));
            if here && task.starts_with(id) {
                found.push(Place { task, ..Place::new(&place.namespace, &place.id) });
            }
        }
    }
    if found.iter().any(|p| p.task == id) {
        found.retain(|p| p.task == id);
    }
    match found.len() {
        1 => Ok(found.remove(0)),
        0 => Err(Error::new(Kind::NotFound, format!("no monitor knows a container {id}"))),
        n => {
            let names: Vec<_> = found.iter().map(|p| format!("{}/{}", p.namespace, p.task)).collect();
            let names = names.join(", ");
            Err(Error::new(Kind::Invalid, format!("{n} containers are called {id}: {names}")))
        }
    }
}

/// What the monitor wrote down last, whether it lives or not; and which heads live.
fn look(place: &Place) -> Result<(Root, Vec<i32>)> {
    let map = Map::look(&place::state_file(&place.directory))?;
    let root = Root::decode(&map.committed())?;
    let heads = heads::living(&map, &place.namespace, &place.id);
    if let [last] = heads[..] {
        // Should it be a worker that was stopped before it had asked for a signal at its keeper's death: nobody else is left to
        // continue it.
        sys::continue_process(last);
    }
    Ok((root, heads))
}

fn wait(place: &Place, options: &Options) -> Result<i32> {
    let target = place.target(options);
    if let Ok(mut link) = Link::open(place) {
        match link.call(TASK_V3, "Wait", &target.bytes()) {
            Ok(answer) => return Ok(WaitResponse::decode(&answer)?.exit_status as i32),
            // The monitor may have ended just now: then the record says it.
            Err(e) if e.kind() != Kind::System => return Err(e),
            Err(_) => {}
        }
    }
    record::read(&place.record(&target.exec_id)).map(|record| record.exit_code)
}

/// By way of the monitor, which then knows, and tells its daemon.
fn freeze(place: &Place, method: &str) -> Result<i32> {
    let no_monitor = |_| Error::new(Kind::NotFound, format!("the monitor of {} is not there", place.task));
    let mut link = Link::open(place).map_err(no_monitor)?;
    let target = Target { id: place.task.clone(), exec_id: String::new() };
    link.call(TASK_V3, method, &target.bytes()).map(|_| 0)
}

/// Removes what the monitor of a container left that nobody else will delete, once that is over: record and output.
fn forget(place: &Place) -> Result<i32> {
    for _ in 0..500 {
        match look(place) {
            Ok((root, heads)) if !heads.is_empty() && (root.setup.standalone || root.state.abandoned()) => {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            Ok((_, heads)) if !heads.is_empty() => return Ok(0),
            _ => {
                place::discard(&place.setup());
                return Ok(0);
            }
        }
    }
    Err(Error::new(Kind::State, format!("the monitor of {} is still there", place.task)))
}

fn list() -> Result<i32> {
    place::sweep();
    println!("NAMESPACE\tID\tPID\tSTATUS\tHEADS");
    for place in places() {
        let Ok((root, heads)) = look(&place) else { continue };
        for task in &root.state.tasks {
            let living = job::start_ticks(task.init.pid).is_some_and(|t| t == task.init.ticks);
            let status = match (heads.is_empty(), living, task.init.exited()) {
                (true, true, false) => "orphaned",
                (true, false, false) => "lost",
                (_, _, true) => "stopped",
                _ if task.paused => "paused",
                _ => "running",
            };
            let heads: Vec<String> = heads.iter().map(i32::to_string).collect();
            println!("{}\t{}\t{}\t{status}\t{}", place.namespace, task.id, task.init.pid, heads.join(","));
        }
    }
    Ok(0)
}

/// To the service manager, which starts containerd only then: whatever had no monitor was given one.
fn tell_ready(socket: &std::ffi::OsStr) {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};
    let address = match socket.as_encoded_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(socket),
    };
    let sent = address.and_then(|a| UnixDatagram::unbound()?.send_to_addr(b"READY=1", &a));
    if let Err(e) = sent {
        eprintln!("shim: telling {} that the first look is over: {e}", socket.to_string_lossy());
    }
}

/// Gives every container that lost its monitor a new one, for ever.
fn watch(options: &Options) -> Result<i32> {
    let invalid = |_| Error::new(Kind::Invalid, "--interval-ms is not a number");
    let interval: u64 = options.value("--interval-ms").unwrap_or("500").parse().map_err(invalid)?;
    place::sweep();
    let mut manager = std::env::var_os("NOTIFY_SOCKET");
    // It is this process's, and not that of the monitors which it makes.
    std::env::remove_var("NOTIFY_SOCKET");
    loop {
        for place in places() {
            if options.namespace.as_ref().is_some_and(|n| *n != place.namespace) {
                continue;
            }
            let Ok((root, heads)) = look(&place) else { continue };
            if heads.is_empty() && root.state.unwatched() {
                match adopt::adopt(&place.namespace, &place.id) {
                    Ok(_) => println!("adopted {}/{}", place.namespace, place.id),
                    Err(e) => eprintln!("shim: {}/{}: {e}", place.namespace, place.id),
                }
            }
        }
        if let Some(socket) = manager.take() {
            tell_ready(&socket);
        }
        // Monitors made here are daemons of their own; what is left of their births goes.
        while let Ok(Some(change)) = sys::peek_child(false) {
            sys::reap(change);
        }
        std::thread::sleep(std::time::Duration::from_millis(interval.max(10)));
    }
}

fn upgrade(options: &Options) -> Result<i32> {
    let chosen = if options.is("--all") { places() } else { vec![find(options)?] };
    let mut failed = 0;
    for place in chosen {
        let Ok((_, heads)) = look(&place) else { continue };
        if heads.is_empty() {
            continue;
        }
        match Link::open(&place).and_then(|mut l| l.call(MONITOR, "Upgrade", &[])) {
            Ok(_) => println!("{}/{} upgraded", place.namespace, place.id),
            Err(e) => {
                eprintln!("shim: {}/{}: {e}", place.namespace, place.id);
                failed = 1;
            }
        }
    }
    Ok(failed)
}
