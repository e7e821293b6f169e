use super::*;

fn line(text: &str) -> (Global, Result<Command, Misuse>) {
    parse(std::iter::once("runtime").chain(text.split_whitespace()).map(Into::into))
}

fn ok(text: &str) -> Command {
    line(text).1.unwrap_or_else(|e| panic!("{text}: {}", e.text))
}

fn err(text: &str) -> Misuse {
    line(text).1.err().unwrap_or_else(|| panic!("{text} is accepted"))
}

#[test]
fn every_spelling_of_a_value() {
    let want = Command::Create(Create { id: "c".into(), bundle: Some("/b".into()), ..Default::default() });
    for spelling in ["--bundle /b", "--bundle=/b", "-bundle /b", "-bundle=/b", "-b /b", "-b=/b", "--b /b"] {
        assert_eq!(ok(&format!("create {spelling} c")), want, "{spelling}");
        assert_eq!(ok(&format!("create c {spelling}")), want, "{spelling} behind the ID");
    }
    assert_eq!(ok("create -b /a -b /b c"), want, "the last one holds");
    assert_eq!(ok("create -b /b -- c"), want);
}

#[test]
fn every_spelling_of_every_flag() {
    for verb in table::VERBS {
        for flag in verb.flags() {
            let value = match flag.long {
                "preserve-fds" | "pids-limit" | "blkio-weight" | "status-fd" | "additional-gids" => "7",
                "format" => "json",
                "interval" => "7s",
                "user" => "7:8",
                "manage-cgroups-mode" => "full",
                "empty-ns" => "network",
                "page-server" => "[::1]:80",
                "select" => "class=x",
                "annotation" => "a=b",
                _ => "x",
            };
            let positionals = match verb.arity {
                grammar::Arity::Exactly(0) => "",
                _ => "c",
            };
            let mut names = vec![flag.long.to_string()];
            names.extend(flag.short.map(String::from));
            let mut seen = Vec::new();
            for name in names {
                for dash in ["-", "--"] {
                    let spellings = match flag.takes {
                        grammar::Takes::Nothing => {
                            vec![format!("{dash}{name}"), format!("{dash}{name}=true")]
                        }
                        _ => vec![format!("{dash}{name} {value}"), format!("{dash}{name}={value}")],
                    };
                    seen.extend(
                        spellings.into_iter().map(|s| ok(&format!("{} {s} {positionals}", verb.name))),
                    );
                }
            }
            assert!(seen.windows(2).all(|pair| pair[0] == pair[1]), "{} --{}", verb.name, flag.long);
            let without = line(&format!("{} {positionals}", verb.name)).1;
            // These have no effect of their own.
            let vacuous = matches!((verb.name, flag.long), ("create", "no-subreaper"));
            assert!(vacuous || without.as_ref() != Ok(&seen[0]), "{} --{} is lost", verb.name, flag.long);
        }
    }
}

#[test]
fn switches() {
    assert_eq!(ok("delete -f c"), Command::Delete { id: "c".into(), force: true });
    assert_eq!(ok("delete --force=false c"), Command::Delete { id: "c".into(), force: false });
    assert_eq!(ok("delete c -force=1"), Command::Delete { id: "c".into(), force: true });
    assert_eq!(err("delete --force=maybe c").text, "invalid boolean value \"maybe\" for -force: parse error");
}

#[test]
fn the_command_lines_of_callers() {
    let (global, command) = line(
        "--root /run/docker/runtime-runc/moby --log /b/log.json --log-format json --systemd-cgroup create \
         --bundle /b --pid-file /b/init.pid --console-socket /tmp/s c",
    );
    assert_eq!(global.root, Some("/run/docker/runtime-runc/moby".into()));
    assert_eq!((global.log_format, global.cgroup_manager), (LogFormat::Json, CgroupManager::Systemd));
    let Ok(Command::Create(create)) = command else { panic!("{command:?}") };
    assert_eq!(create.pid_file, Some("/b/init.pid".into()));
    let Command::Restore(restore) = ok("restore --image-path /i --detach -no-subreaper --pid-file /p c")
    else {
        panic!()
    };
    assert!(restore.no_subreaper && restore.detach);
    assert_eq!(ok("kill --all c 9"), Command::Kill { id: "c".into(), signal: "9".into(), all: true });
    assert_eq!(ok("kill -a c KILL"), Command::Kill { id: "c".into(), signal: "KILL".into(), all: true });
    assert_eq!(ok("kill c"), Command::Kill { id: "c".into(), signal: "SIGTERM".into(), all: false });
    assert_eq!(ok("ps --format json c"), Command::Ps { id: "c".into(), format: Format::Json, args: vec![] });
    assert_eq!(
        ok("ps c -aux --x"),
        Command::Ps { id: "c".into(), format: Format::Table, args: vec!["-aux".into(), "--x".into()] }
    );
    let Command::Update(update) = ok("update --resources=- c") else { panic!() };
    assert_eq!(update.resources.as_deref(), Some("-"));
    let (global, _) = line("--cgroup-manager disabled --log-format=json --log=/l state c");
    assert_eq!(global.cgroup_manager, CgroupManager::Disabled);
}

#[test]
fn exec_stops_at_the_id() {
    let Command::Exec(exec) = ok("exec -t -u 1:2 -e A=1 --env=B=2 -cap CAP_X c ls -t --user x") else {
        panic!()
    };
    assert_eq!(exec.args, ["ls", "-t", "--user", "x"]);
    assert_eq!((exec.tty, exec.user), (true, Some((1, Some(2)))));
    assert_eq!((exec.env.len(), exec.cap.len()), (2, 1));
    let Command::Exec(exec) = ok("exec c -- ls") else { panic!() };
    assert_eq!(exec.args, ["--", "ls"], "what follows the ID is the command's");
    let Command::Exec(exec) = ok("exec --cgroup cpu,cpuacct:/a --cgroup memory:/b c x") else { panic!() };
    assert_eq!(exec.cgroup.len(), 3);
    assert!(err("exec --cgroup cpu:/a --cgroup cpu:/b c x").text.contains("multiple times"));
}

#[test]
fn values_that_begin_with_a_dash() {
    let Command::Update(update) = ok("update --cpu-quota -1 --memory-swap=-1 --memory 2G c") else {
        panic!()
    };
    let want = [("cpu-quota", "-1"), ("memory-swap", "-1"), ("memory", "2G")];
    assert_eq!(update.flags, want.map(|(k, v)| (k, v.to_string())));
}

#[test]
fn knobs_are_collected_in_order() {
    let Command::Run(run) = ok("run -d --blkio-write-bps 40MB -blkio-read-bps=max c") else { panic!() };
    assert_eq!(run.create.knobs[0], ("blkio-write-bps".into(), "40MB".into()));
    assert_eq!(run.create.knobs[1], ("blkio-read-bps".into(), "max".into()));
    assert_eq!(err("exec --blkio-write-bps 1 c ls").text, "flag provided but not defined: -blkio-write-bps");
}

#[test]
fn global_flags_behind_the_verb() {
    assert_eq!(line("state --root /x c").0.root, Some("/x".into()));
    // These verbs have a flag of that name themselves.
    let (global, command) = line("spec --rootless");
    assert_eq!(global.rootless, None);
    assert_eq!(command, Ok(Command::Spec { bundle: None, file: None, rootless: true }));
    let (global, _) = line("--config /h create --config c.json c");
    assert_eq!(global.config, Some("/h".into()));
}

#[test]
fn texts_that_callers_match_on() {
    let e = err("restore --lsm-mount-context");
    assert_eq!((e.text.as_str(), e.exit_code), ("flag needs an argument: -lsm-mount-context", 1));
    assert!(e.stdout.starts_with("Incorrect Usage: flag needs an argument: -lsm-mount-context\n\n"));
    let e = err("create");
    assert_eq!(e.text, "runtime: \"create\" requires exactly 1 argument(s)");
    assert!(e.stdout.starts_with("Incorrect Usage.\n\n"));
    assert_eq!(err("kill").text, "runtime: \"kill\" requires a minimum of 1 argument(s)");
    assert_eq!(err("kill a 9 b").text, "runtime: \"kill\" requires a maximum of 2 argument(s)");
    assert_eq!(err("list x").text, "runtime: \"list\" requires exactly 0 argument(s)");
    assert_eq!(err("create --bogus c").text, "flag provided but not defined: -bogus");
    assert_eq!(
        err("create --preserve-fds q c").text,
        "invalid value \"q\" for flag -preserve-fds: parse error"
    );
    assert_eq!(err("--log-format xml state c").text, "invalid log-format: xml");
    assert_eq!(err("events --interval 0 c").text, "duration interval must be greater than 0");
    let e = err("nonsense");
    assert_eq!((e.text.as_str(), e.exit_code), ("No help topic for 'nonsense'", 3));
    // The error of a verb goes to the log of the globals.
    assert_eq!(line("--log /l create --bogus").0.log, Some("/l".into()));
}

#[test]
fn help_and_version() {
    for text in ["", "-h", "--help", "-?", "help", "h"] {
        assert_eq!(ok(text), Command::Help(None), "{text}");
    }
    for text in ["checkpoint --help", "checkpoint -h", "checkpoint c -help", "help checkpoint"] {
        assert_eq!(ok(text), Command::Help(Some("checkpoint")), "{text}");
    }
    for text in ["--version", "-v", "-version", "-V", "version"] {
        assert_eq!(ok(text), Command::Version, "{text}");
    }
    assert_eq!(version().lines().filter(|l| l.contains("version")).count(), 1);
    for verb in table::VERBS {
        assert!(help(Some(verb.name)).contains(verb.about), "{}", verb.name);
    }
    assert!(help(None).contains("checkpoint a running container"));
    help::command().debug_assert();
}

#[test]
fn numbers_and_durations() {
    assert_eq!(grammar::number::<u32>("x", "0x10"), Ok(16));
    assert_eq!(grammar::number::<i32>("x", "-1"), Ok(-1));
    assert!(grammar::number::<u32>("x", "-1").is_err());
    assert!(grammar::number::<u32>("x", "--1").is_err());
    assert!(grammar::number::<u32>("x", "").is_err());
    for (text, ms) in [("5s", 5000), ("1m30s", 90_000), ("1.5s", 1500), ("250ms", 250), ("1h", 3_600_000)] {
        assert_eq!(grammar::duration(text), Some(Duration::from_millis(ms)), "{text}");
    }
    for text in ["", "5", "s", "5x", "-1s", "1e3s"] {
        assert_eq!(grammar::duration(text), None, "{text:?}");
    }
}
