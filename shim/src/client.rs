//! The faces that people use: thin clients of a monitor's own socket, and what needs no monitor at all.

mod attach;
mod link;
mod run;

use crate::api::*;
use crate::error::{Context, Error, Kind, Result};
use crate::pb::Message;
use crate::state::Root;
use crate::sys::map::Map;
use crate::sys::{self, Fd};
use crate::{adopt, job, place, record};
use link::Link;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::SeqCst;

/// Options in front of the container's name.
#[derive(Default)]
struct Options {
    namespace: Option<String>,
    values: Vec<(String, String)>,
    switches: Vec<String>,
    rest: Vec<String>,
}

const WITH_VALUE: [&str; 11] = [
    "--namespace",
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
        "wait" => wait(&find(&options)?),
        "logs" => logs(&find(&options)?, &options),
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

/// One monitor's place.
struct Place {
    namespace: String,
    id: String,
    directory: PathBuf,
}

fn places() -> Vec<Place> {
    let entries = |path: &Path| -> Vec<String> {
        let read = std::fs::read_dir(path).into_iter().flatten().flatten();
        read.filter_map(|e| e.file_name().into_string().ok()).collect()
    };
    let mut all = Vec::new();
    for namespace in entries(Path::new(place::RUN)) {
        for id in entries(&Path::new(place::RUN).join(&namespace)) {
            let directory = place::run_dir(&namespace, &id);
            all.push(Place { namespace: namespace.clone(), id, directory });
        }
    }
    all
}

/// The monitor of a container, by its name or the unique beginning of one.
fn find(options: &Options) -> Result<Place> {
    let id = options.id()?;
    let mut found: Vec<Place> = places()
        .into_iter()
        .filter(|p| p.id.starts_with(id) && options.namespace.as_ref().is_none_or(|n| *n == p.namespace))
        .collect();
    if let Some(exact) = found.iter().position(|p| p.id == id) {
        return Ok(found.swap_remove(exact));
    }
    match found.len() {
        1 => Ok(found.remove(0)),
        0 => Err(Error::new(Kind::NotFound, format!("no monitor knows a container {id}"))),
        n => Err(Error::new(Kind::Invalid, format!("{n} containers begin with {id}"))),
    }
}

/// What the monitor wrote down last, whether it lives or not; and which heads live.
fn look(place: &Place) -> Result<(Root, Vec<i32>)> {
    let path = place::state_file(&place.directory);
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .context(|| format!("opening {}", path.display()))?;
    let map = Map::open(Fd::keep(file.into()), false)?;
    let root = Root::decode(&map.committed())?;
    let header = map.header();
    let heads = [header.keeper.load(SeqCst), header.worker.load(SeqCst)];
    let name = format!("{}/{}", place.namespace, place.id);
    let alive = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        *pid > 0 && line.split(|b| *b == 0).any(|part| part == name.as_bytes())
    };
    let heads = heads.into_iter().filter(alive).collect();
    map.fd.close();
    Ok((root, heads))
}

fn wait(place: &Place) -> Result<i32> {
    let target = Target { id: place.id.clone(), exec_id: String::new() };
    if let Ok(mut link) = Link::open(place) {
        match link.call(TASK_V3, "Wait", &target.bytes()) {
            Ok(answer) => return Ok(WaitResponse::decode(&answer)?.exit_status as i32),
            // The monitor may have ended just now: then the record says it.
            Err(e) if e.kind() != Kind::System => return Err(e),
            Err(_) => {}
        }
    }
    #[derive(serde::Deserialize)]
    struct Record {
        #[serde(rename = "exitCode")]
        exit_code: i32,
    }
    let path = record::path(&place.directory, "");
    let text = std::fs::read(&path).context(|| format!("reading {}", path.display()))?;
    let record: Record = serde_json::from_slice(&text)
        .map_err(|e| Error::system(format!("parsing {}: {e}", path.display())))?;
    Ok(record.exit_code)
}

/// Prints the rings: the last of what the container wrote, whoever started it and whether its daemon lives or not.
fn logs(place: &Place, options: &Options) -> Result<i32> {
    use std::io::Write;
    let limit = look(place).map_or(0, |(root, _)| root.setup.ring_limit).max(64 << 10);
    let disk = place::disk_dir(&place.namespace, &place.id);
    let path = |n: u8| disk.join(format!("{}.{n}.ring", place.id));
    let mut at = [0u64; 2];
    for (n, at) in (1..).zip(&mut at) {
        let size = std::fs::metadata(path(n)).map_or(0, |m| m.len());
        *at = size.saturating_sub(limit);
    }
    loop {
        let mut grown = false;
        for (n, at) in (1..).zip(&mut at) {
            let text = read_from(&path(n), *at);
            *at += text.len() as u64;
            grown |= !text.is_empty();
            match n {
                1 => std::io::stdout().write_all(&text)?,
                _ => std::io::stderr().write_all(&text)?,
            }
        }
        if !options.is("--follow") {
            return Ok(0);
        }
        std::io::stdout().flush()?;
        if !grown && look(place).map_or(true, |(root, heads)| heads.is_empty() || root.state.tasks.is_empty())
        {
            return Ok(0);
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

fn read_from(path: &Path, at: u64) -> Vec<u8> {
    use std::io::{Read, Seek, SeekFrom};
    let mut text = Vec::new();
    if let Ok(mut file) = std::fs::File::open(path) {
        if file.seek(SeekFrom::Start(at)).is_ok() {
            let _ = file.take(1 << 20).read_to_end(&mut text);
        }
    }
    text
}

fn list() -> Result<i32> {
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

/// Gives every container that lost its monitor a new one, for ever.
fn watch(options: &Options) -> Result<i32> {
    let invalid = |_| Error::new(Kind::Invalid, "--interval-ms is not a number");
    let interval: u64 = options.value("--interval-ms").unwrap_or("500").parse().map_err(invalid)?;
    loop {
        for place in places() {
            let Ok((root, heads)) = look(&place) else { continue };
            let orphan = root.state.tasks.iter().any(|t| t.init.pid != 0 && !t.init.recorded);
            if heads.is_empty() && orphan {
                match adopt::adopt(&place.namespace, &place.id) {
                    Ok(_) => println!("adopted {}/{}", place.namespace, place.id),
                    Err(e) => eprintln!("shim: {}/{}: {e}", place.namespace, place.id),
                }
            }
        }
        // Monitors made here are daemons of their own; what is left of their births goes.
        while let Ok(Some(change)) = sys::peek_child(false) {
            sys::reap(change.pid);
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
