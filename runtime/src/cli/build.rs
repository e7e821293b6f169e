//! From what was given to the structs.

use super::grammar::{self, boolean, duration, number, Arity, Given, Scope, Verb};
use super::*;
use std::ffi::OsString;

/// What is wrong with the value of a flag: runc's texts.
type Result<T> = std::result::Result<T, String>;

pub fn parse(mut args: impl Iterator<Item = OsString>) -> (Global, std::result::Result<Command, Misuse>) {
    let program = args.next().and_then(|a| a.into_string().ok()).unwrap_or_else(|| "runtime".into());
    let args = match args.map(OsString::into_string).collect::<std::result::Result<Vec<_>, _>>() {
        Ok(args) => args,
        Err(arg) => return (Global::default(), Err(plain(format!("argument {arg:?} is not UTF-8")))),
    };
    let scope = Scope { groups: &[], fallback: table::GLOBAL, knob: |_| false, stops: true };
    let mut before = match grammar::read(&mut args.into_iter(), &scope) {
        Ok(given) => given,
        Err(text) => return (Global::default(), Err(misuse(text, None))),
    };
    let early = global(&|name| before.get(name));
    if before.on("version") || before.on("V") {
        return (early.unwrap_or_default(), Ok(Command::Version));
    }
    let mut rest = std::mem::take(&mut before.positionals).into_iter();
    let Some(name) = rest.next().filter(|_| !before.help) else {
        return (early.unwrap_or_default(), Ok(Command::Help(None)));
    };
    match table::find(&name) {
        Some(verb) => with_verb(&program, verb, &before, &mut rest),
        None => (early.unwrap_or_default(), other(&name, rest.next())),
    }
}

/// The rest of the line, once the verb is known.
fn with_verb(
    program: &str,
    verb: &'static Verb,
    before: &Given,
    rest: &mut dyn Iterator<Item = String>,
) -> (Global, std::result::Result<Command, Misuse>) {
    let knob = if verb.knobs { crate::knobs::is_flag } else { |_: &str| false };
    let scope = Scope { groups: verb.flags, fallback: table::INHERITED, knob, stops: verb.stops };
    let read = grammar::read(rest, &scope);
    let behind = |name: &str| match &read {
        Ok(given) if !verb.flags().any(|f| f.long == name) => given.get(name),
        _ => None,
    };
    let global = match global(&|name| behind(name).or(before.get(name))) {
        Ok(global) => global,
        Err(text) => return (Global::default(), Err(plain(text))),
    };
    let command = read.map_err(|text| misuse(text, Some(verb))).and_then(|given| {
        if given.help {
            return Ok(Command::Help(Some(verb.name)));
        }
        count(verb, given.positionals.len()).map_err(|text| wrong_count(program, verb, text))?;
        command(verb, given).map_err(|text| match text.starts_with("invalid value") {
            true => misuse(text, Some(verb)),
            false => {
                let (prefix, exit_code) = failing(verb.name);
                Misuse { text: format!("{prefix}{text}"), stdout: String::new(), exit_code }
            }
        })
    });
    (global, command)
}

/// What is not a verb of the table.
fn other(name: &str, on: Option<String>) -> std::result::Result<Command, Misuse> {
    let no_topic = |name: &str| Misuse {
        text: format!("No help topic for '{name}'"),
        stdout: String::new(),
        exit_code: 3,
    };
    match (name, on) {
        ("help" | "h", None) => Ok(Command::Help(None)),
        ("help" | "h", Some(on)) => match table::find(&on) {
            Some(verb) => Ok(Command::Help(Some(verb.name))),
            None => Err(no_topic(&on)),
        },
        ("version", None) => Ok(Command::Version),
        _ => Err(no_topic(name)),
    }
}

fn plain(text: String) -> Misuse {
    Misuse { text, stdout: String::new(), exit_code: 1 }
}

fn misuse(text: String, verb: Option<&'static Verb>) -> Misuse {
    let stdout = format!("Incorrect Usage: {text}\n\n{}", help(verb.map(|v| v.name)));
    Misuse { text, stdout, exit_code: 1 }
}

fn wrong_count(program: &str, verb: &'static Verb, text: String) -> Misuse {
    let stdout = format!("Incorrect Usage.\n\n{}", help(Some(verb.name)));
    Misuse { text: format!("{program}: \"{}\" requires {text} argument(s)", verb.name), stdout, exit_code: 1 }
}

fn count(verb: &Verb, n: usize) -> Result<()> {
    match verb.arity {
        Arity::Exactly(want) if n != want => Err(format!("exactly {want}")),
        Arity::AtLeast(want) | Arity::Between(want, _) if n < want => Err(format!("a minimum of {want}")),
        Arity::Between(_, want) if n > want => Err(format!("a maximum of {want}")),
        _ => Ok(()),
    }
}

fn global<'a>(get: &dyn Fn(&str) -> Option<&'a str>) -> Result<Global> {
    let on = |name: &str| get(name) == Some("true");
    let path = |name: &str| get(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    Ok(Global {
        // An empty --root is "/" after cleaning, in runc, and refused as that.
        root: get("root").map(PathBuf::from),
        log: path("log"),
        log_format: match get("log-format") {
            None | Some("" | "text") => LogFormat::Text,
            Some("json") => LogFormat::Json,
            Some(other) => return Err(format!("invalid log-format: {other}")),
        },
        debug: on("debug"),
        log_level: match get("log-level") {
            None | Some("") => None,
            Some("error") => Some(::log::LevelFilter::Error),
            Some("warn" | "warning") => Some(::log::LevelFilter::Warn),
            Some("info") => Some(::log::LevelFilter::Info),
            Some("debug") => Some(::log::LevelFilter::Debug),
            Some(other) => return Err(format!("invalid log-level: {other} (error, warning, info, debug)")),
        },
        cgroup_manager: match get("cgroup-manager") {
            _ if on("systemd-cgroup") => CgroupManager::Systemd,
            None | Some("" | "cgroupfs") => CgroupManager::Cgroupfs,
            Some("systemd") => CgroupManager::Systemd,
            Some("disabled") => CgroupManager::Disabled,
            Some(other) => {
                return Err(format!("invalid cgroup-manager: {other} (cgroupfs, systemd, disabled)"))
            }
        },
        rootless: match get("rootless") {
            None | Some("") => None,
            Some(text) if text.eq_ignore_ascii_case("auto") => None,
            Some(text) => {
                Some(boolean(text).ok_or_else(|| format!("invalid rootless: {text} (true, false, auto)"))?)
            }
        },
        default_class: get("default-class").filter(|v| !v.is_empty()).map(str::to_string),
        config: path("config"),
        criu: path("criu"),
    })
}

fn command(verb: &'static Verb, mut given: Given) -> Result<Command> {
    let positionals = std::mem::take(&mut given.positionals);
    let id = positionals.first().cloned().unwrap_or_default();
    Ok(match verb.name {
        "checkpoint" => Command::Checkpoint(checkpoint(id, &given)?),
        "create" => Command::Create(create(id, given)?),
        "delete" => Command::Delete { id, force: given.on("force") },
        "events" => {
            let interval = interval(&given)?.unwrap_or(Duration::from_secs(5));
            Command::Events { id, stats: given.on("stats"), interval }
        }
        "exec" => Command::Exec(exec(positionals, &given)?),
        "features" => Command::Features,
        "inspect" => Command::Inspect { ids: positionals, json: given.on("json") },
        "kill" => {
            let signal = positionals.into_iter().nth(1).filter(|s| !s.is_empty());
            Command::Kill { id, signal: signal.unwrap_or_else(|| "SIGTERM".into()), all: given.on("all") }
        }
        "list" => {
            let quiet = given.on("quiet");
            // As with runc, which doesn't look at what it has no use for.
            let format = if quiet { Format::Table } else { format(&given, false)? };
            Command::List(List { format, quiet, long: given.on("long") })
        }
        "attach" | "logs" | "wait" => Command::Monitor(monitor(verb, id, &given)),
        "pause" => Command::Pause { id },
        "ps" => {
            let args = positionals.into_iter().skip(1).collect();
            Command::Ps { id, format: format(&given, false)?, args }
        }
        "restore" => Command::Restore(restore(id, &given)?),
        "resume" => Command::Resume { id },
        "run" => {
            let (detach, keep, no_subreaper) =
                (given.on("detach"), given.on("keep"), given.on("no-subreaper"));
            Command::Run(Run { create: create(id, given)?, detach, keep, no_subreaper })
        }
        "spec" => Command::Spec {
            bundle: given.path("bundle"),
            file: given.path("file"),
            rootless: given.on("rootless"),
        },
        "start" => Command::Start { id },
        "state" => Command::State { id },
        "stats" => {
            let format = if given.on("json") { Format::Json } else { format(&given, true)? };
            Command::Stats(Stats {
                ids: positionals,
                once: given.on("once"),
                format,
                interval: interval(&given)?,
            })
        }
        "update" => Command::Update(update(positionals, given)?),
        // A row of the table without an arm here: a test goes through all rows.
        other => return Err(format!("the verb {other} has no command")),
    })
}

/// The flags of these verbs are handed on as they are.
fn monitor(verb: &'static Verb, id: String, given: &Given) -> Monitor {
    let given = verb.flags().filter_map(|f| Some((f, given.get(f.long)?)));
    let option = |(flag, value): (&grammar::Flag, &str)| match flag.takes {
        grammar::Takes::Nothing => (value == "true").then(|| format!("--{}", flag.long)),
        _ => Some(format!("--{}={value}", flag.long)),
    };
    Monitor { verb: verb.name, id, options: given.filter_map(option).collect() }
}

fn interval(given: &Given) -> Result<Option<Duration>> {
    let Some(text) = given.get("interval") else { return Ok(None) };
    if text.starts_with('-') || duration(text) == Some(Duration::ZERO) {
        return Err("duration interval must be greater than 0".into());
    }
    match duration(text) {
        Some(d) => Ok(Some(d)),
        None => Err(format!("invalid value {text:?} for flag -interval: parse error")),
    }
}

fn format(given: &Given, prometheus: bool) -> Result<Format> {
    match given.get("format") {
        None | Some("table") => Ok(Format::Table),
        Some("json") => Ok(Format::Json),
        Some("prometheus") if prometheus => Ok(Format::Prometheus),
        // runc's text.
        Some(_) => Err("invalid format option".into()),
    }
}

fn create(id: String, given: Given) -> Result<Create> {
    Ok(Create {
        id,
        bundle: given.path("bundle"),
        config: given.path("config"),
        console_socket: given.path("console-socket"),
        pidfd_socket: given.path("pidfd-socket"),
        pid_file: given.path("pid-file"),
        no_pivot: given.on("no-pivot"),
        no_new_keyring: given.on("no-new-keyring"),
        preserve_fds: preserved(&given)?,
        class: given.text("class"),
        knobs: given.knobs,
    })
}

fn exec(mut positionals: Vec<String>, given: &Given) -> Result<Exec> {
    let id = positionals.remove(0);
    let user = match given.text("user") {
        None => None,
        Some(text) => Some(match text.split_once(':') {
            Some((uid, gid)) => (user_id("uid", uid)?, Some(user_id("gid", gid)?)),
            None => (user_id("uid", &text)?, None),
        }),
    };
    let gid = |text: &String| {
        let gid: i64 = number("additional-gids", text)?;
        u32::try_from(gid).map_err(|_| format!("additional-gids must be a positive number {gid}"))
    };
    Ok(Exec {
        id,
        args: positionals,
        process: given.path("process"),
        console_socket: given.path("console-socket"),
        pidfd_socket: given.path("pidfd-socket"),
        cwd: given.text("cwd"),
        env: given.all("env"),
        tty: given.on("tty"),
        user,
        additional_gids: given.all("additional-gids").iter().map(gid).collect::<Result<_>>()?,
        detach: given.on("detach"),
        pid_file: given.path("pid-file"),
        process_label: given.text("process-label"),
        apparmor: given.text("apparmor"),
        no_new_privs: given.get("no-new-privs").map(|v| v == "true"),
        cap: given.all("cap"),
        preserve_fds: preserved(given)?,
        cgroup: sub_cgroups(&given.all("cgroup"))?,
        ignore_paused: given.on("ignore-paused"),
        no_subreaper: given.on("no-subreaper"),
    })
}

/// Fewer than none are none, as with runc.
fn preserved(given: &Given) -> Result<u32> {
    let n: Option<i32> = given.number("preserve-fds")?;
    Ok(n.map_or(0, |n| n.max(0) as u32))
}

fn user_id(what: &str, text: &str) -> Result<u32> {
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("parsing {text:?} as {what} for user failed: invalid syntax"));
    }
    text.parse().map_err(|_| format!("parsing {text:?} as {what} for user failed: invalid syntax"))
}

/// `PATH` on cgroup v2, `CONTROLLER[,CONTROLLER…]:PATH` any number of times on v1.
fn sub_cgroups(args: &[String]) -> Result<Vec<(String, String)>> {
    let mut paths: Vec<(String, String)> = Vec::new();
    for arg in args {
        let Some((controllers, path)) = arg.split_once(':') else {
            if args.len() != 1 {
                return Err(format!("invalid --cgroup argument: {arg} (missing <controller>: prefix)"));
            }
            return Ok(vec![(String::new(), arg.clone())]);
        };
        for controller in controllers.split(',') {
            if controller.is_empty() {
                return Err(format!("invalid --cgroup argument: {arg} (empty <controller> prefix)"));
            }
            if paths.iter().any(|(c, _)| c == controller) {
                return Err(format!(
                    "invalid --cgroup argument(s): controller {controller} specified multiple times"
                ));
            }
            paths.push((controller.to_string(), path.to_string()));
        }
    }
    Ok(paths)
}

fn update(ids: Vec<String>, given: Given) -> Result<Update> {
    let pairs = given.all("annotation").into_iter().map(|a| match a.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_string(), value.to_string())),
        _ => Err(format!("invalid value {a:?} for flag -annotation: NAME=VALUE is wanted")),
    });
    let select = given.all("select").into_iter().map(|s| match s.split_once('=') {
        Some(("class", name)) if !name.is_empty() => Ok(name.to_string()),
        _ => Err(format!("invalid value {s:?} for flag -select: class=NAME is wanted")),
    });
    // runc's flags that are no numbers to its parser may be empty, and are then as if they weren't there.
    for flag in ["pids-limit", "blkio-weight"] {
        given.number::<i64>(flag)?;
    }
    let mut flags = given.among(table::RESOURCE);
    flags.retain(|(flag, value)| !value.is_empty() && given.get(flag) != Some(""));
    let update = Update {
        annotations: pairs.collect::<Result<_>>()?,
        select: select.collect::<Result<_>>()?,
        resources: given.text("resources"),
        flags,
        class: given.get("class").map(str::to_string),
        unset: given.all("unset"),
        dry_run: given.on("dry-run"),
        json: given.on("json"),
        reload: given.on("reload"),
        knobs: given.knobs,
        ids,
    };
    match update.ids.is_empty() && update.select.is_empty() && !update.reload {
        true => Err("update: no container is named: give an ID, --select class=NAME or --reload".into()),
        false => Ok(update),
    }
}

fn criu(given: &Given) -> Result<Criu> {
    let mut empty_network = false;
    for namespace in given.all("empty-ns") {
        match namespace.as_str() {
            "network" => empty_network = true,
            _ => return Err(format!("namespace {namespace:?} is not supported")),
        }
    }
    Ok(Criu {
        image_path: given.path("image-path"),
        work_path: given.path("work-path"),
        tcp_established: given.on("tcp-established"),
        ext_unix_sk: given.on("ext-unix-sk"),
        shell_job: given.on("shell-job"),
        lazy_pages: given.on("lazy-pages"),
        file_locks: given.on("file-locks"),
        cgroups_mode: match given.get("manage-cgroups-mode") {
            None | Some("") => None,
            Some("soft") => Some(CgroupsMode::Soft),
            Some("full") => Some(CgroupsMode::Full),
            Some("strict") => Some(CgroupsMode::Strict),
            Some("ignore") => Some(CgroupsMode::Ignore),
            Some(_) => return Err("invalid manage-cgroups-mode value".into()),
        },
        empty_network,
        auto_dedup: given.on("auto-dedup"),
    })
}

fn checkpoint(id: String, given: &Given) -> Result<Checkpoint> {
    let page_server = given.text("page-server").map(|text| {
        let (address, port) = text.rsplit_once(':').unwrap_or((&text, ""));
        let address = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
        if address.is_empty() || port.is_empty() {
            return Err("Use --page-server ADDRESS:PORT to specify page server".to_string());
        }
        Ok((address.to_string(), port.parse().map_err(|_| "Invalid port number".to_string())?))
    });
    Ok(Checkpoint {
        id,
        criu: criu(given)?,
        parent_path: given.path("parent-path"),
        leave_running: given.on("leave-running"),
        tcp_skip_in_flight: given.on("tcp-skip-in-flight"),
        link_remap: given.on("link-remap"),
        // -1 is runc's default and means none.
        status_fd: given.number("status-fd")?.filter(|fd: &i32| *fd >= 0),
        page_server: page_server.transpose()?,
        pre_dump: given.on("pre-dump"),
    })
}

fn restore(id: String, given: &Given) -> Result<Restore> {
    Ok(Restore {
        id,
        criu: criu(given)?,
        bundle: given.path("bundle"),
        console_socket: given.path("console-socket"),
        pid_file: given.path("pid-file"),
        detach: given.on("detach"),
        no_subreaper: given.on("no-subreaper"),
        no_pivot: given.on("no-pivot"),
        tcp_close: given.on("tcp-close"),
        lsm_profile: given.text("lsm-profile"),
        lsm_mount_context: given.text("lsm-mount-context"),
    })
}
