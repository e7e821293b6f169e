//! `shim run`: a container with a monitor and no daemon at all.

use super::{link::Link, Options, Place};
use crate::api::*;
use crate::error::{Context, Error, Kind, Result};
use crate::pb::Message;
use crate::{place, start};
use std::path::Path;

#[derive(serde::Deserialize)]
struct Config {
    process: Option<Process>,
}
#[derive(serde::Deserialize)]
struct Process {
    #[serde(default)]
    terminal: bool,
}

pub fn run(options: &Options) -> Result<i32> {
    let id = options.id()?.to_string();
    let namespace = options.namespace.clone().unwrap_or_else(|| "standalone".into());
    place::check_name(&namespace).context(|| "--namespace")?;
    place::check_name(&id)?;
    let bundle = Path::new(options.value("--bundle").unwrap_or("."));
    let bundle = bundle.canonicalize().context(|| format!("bundle {}", bundle.display()))?;
    let mut setup = start::setup(&start::config(&bundle))?;
    setup.namespace = namespace.clone();
    setup.id = id.clone();
    setup.bundle = bundle.to_string_lossy().into_owned();
    setup.standalone = true;
    setup.remove = options.is("--rm");
    setup.directory = place::run_dir(&namespace, &id).to_string_lossy().into_owned();
    setup.disk = place::disk_dir(&namespace, &id).to_string_lossy().into_owned();
    setup.runtime_root = options.value("--root").unwrap_or("/run/hydra").into();
    setup.notify_pidfile = options.value("--notify-pid-file").unwrap_or_default().into();
    if let Some(number) = options.value("--notify-signal") {
        setup.notify_signal =
            number.parse().map_err(|_| Error::new(Kind::Invalid, "--notify-signal is not a number"))?;
    }
    let commands = options.values.iter().filter(|(n, _)| n == "--exit-command");
    setup.exit_command = commands.flat_map(|(_, v)| v.split_ascii_whitespace().map(String::from)).collect();
    let place = Place::new(&namespace, &id);
    // An old record must not be taken for this run's.
    let _ = std::fs::remove_file(place.record(""));
    start::launch(start::begin(!options.is("--lazy"))?, setup, None, None)?;
    create_and_start(&place, &bundle, options)
}

fn create_and_start(place: &Place, bundle: &Path, options: &Options) -> Result<i32> {
    let text = std::fs::read(bundle.join("config.json")).context(|| "reading config.json")?;
    let config: Config =
        serde_json::from_slice(&text).map_err(|e| Error::new(Kind::Invalid, format!("config.json: {e}")))?;
    let terminal = config.process.is_some_and(|p| p.terminal);
    let mut link = connect(place)?;
    let mut request = CreateRequest {
        id: place.id.clone(),
        bundle: bundle.to_string_lossy().into_owned(),
        terminal,
        options: Any::of("containerd.runc.v1.Options", &runc(options)),
        ..CreateRequest::default()
    };
    if options.is("--interactive") {
        let path = place.directory.join("stdin");
        let _ = nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o600));
        request.stdin = path.to_string_lossy().into_owned();
    }
    let made = link.call(TASK_V3, "Create", &request.bytes());
    let target = Target { id: place.id.clone(), exec_id: String::new() };
    let started = made.and_then(|_| link.call(TASK_V3, "Start", &target.bytes()));
    match started {
        Ok(answer) => {
            let pid = PidResponse::decode(&answer)?.pid;
            if let Some(path) = options.value("--pid-file") {
                std::fs::write(path, pid.to_string()).context(|| format!("writing {path}"))?;
            }
            println!("{pid}");
            Ok(0)
        }
        Err(e) => {
            // A container that could not be started leaves neither itself nor a monitor.
            let _ = link.call(TASK_V3, "Delete", &target.bytes());
            let _ = link.call(TASK_V3, "Shutdown", &target.bytes());
            Err(e)
        }
    }
}

/// The monitor listens before it runs: the first try succeeds unless the machine is very busy.
fn connect(place: &Place) -> Result<Link> {
    for _ in 0..100 {
        if let Ok(link) = Link::open(place) {
            return Ok(link);
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    Link::open(place)
}

fn runc(options: &Options) -> RuncOptions {
    RuncOptions {
        binary_name: options.value("--runtime").unwrap_or_default().into(),
        systemd_cgroup: options.is("--systemd-cgroup"),
        ..RuncOptions::default()
    }
}
