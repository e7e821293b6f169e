//! The shim, asked as containerd asks it: containerd's own shim gets the same requests, and must be seen to do the same.

use integration::ttrpc::{Answer, Fifos, Message, Shim};
use integration::{eventually, host, janitor, Peer, Run};
use std::fs;
use std::path::{Path, PathBuf};

/// containerd's own shim, where it is installed.
fn theirs() -> Option<PathBuf> {
    host::program("containerd-shim-runc-v2")
}

/// What a test saw, line by line.
#[derive(Default, PartialEq)]
struct Seen(Vec<String>);

impl Seen {
    fn note(&mut self, what: impl std::fmt::Display) {
        self.0.push(what.to_string());
    }

    /// Whether a request was granted, and if not with which status.
    fn answer(&mut self, what: &str, answer: &Answer) {
        self.0.push(match answer {
            Ok(_) => format!("{what}: ok"),
            // Older versions of containerd's shim call a wrong state an unknown error (2), newer ones a failed precondition (9).
            Err(refused) => {
                format!("{what}: refused with {}", if refused.code == 2 { 9 } else { refused.code })
            }
        });
    }

    /// A State: status, exit status, whether there is a pid and a time.
    fn state(&mut self, what: &str, answer: &Answer) {
        match answer {
            Ok(s) => self.0.push(format!(
                "{what}: status {} exit {} pid {} exited {} terminal {}",
                s.get(4),
                s.get(9),
                s.get(3) != 0,
                // Go's zero time is a negative number of seconds.
                s.get_message(10).get(1) as i64 > 0,
                s.get(8)
            )),
            refused => self.answer(what, refused),
        }
    }

    /// A file's lines, in the order of the alphabet: two streams have no order.
    fn lines(&mut self, text: &str) {
        let mut lines: Vec<_> = text.lines().collect();
        lines.sort_unstable();
        self.note(lines.join(" "));
    }
}

/// Puts a scenario to containerd's shim and to ours: what they let be seen must be the same. Runtimes are not compared here, so
/// both drive the one under test.
#[track_caller]
fn like_containerds(
    name: &str,
    change: impl Fn(&mut serde_json::Value),
    scenario: impl Fn(&mut Shim, &mut Seen),
) {
    let own = host::shim();
    if integration::peer() != Peer::Hydra {
        integration::skip!("the shim is ours");
    }
    let mut seen = Vec::new();
    for (which, binary) in [("ours", Some(own)), ("theirs", theirs())] {
        let Some(binary) = binary else {
            println!("SKIP containerd-shim-runc-v2 is not installed");
            continue;
        };
        if which == "theirs"
            && ["oom", "oom-child", "stats", "update"].contains(&name)
            && !host::every_hierarchy_is_mounted()
        {
            println!("not compared: containerd's shim can't cope with a hierarchy that is mounted elsewhere");
            continue;
        }
        let mut shim = Shim::start(&binary, &format!("{name}-{}-{which}", std::process::id()), &[], &change);
        let mut notes = Seen::default();
        scenario(&mut shim, &mut notes);
        notes.note("end");
        notes.0.extend(shim.end());
        println!("{which}:\n  {}", notes.0.join("\n  "));
        seen.push(notes);
    }
    if let [ours, theirs] = &seen[..] {
        assert!(ours == theirs, "ours:\n  {}\ntheirs:\n  {}", ours.0.join("\n  "), theirs.0.join("\n  "));
    }
}

/// A script in place of `true`.
fn sh(script: &str) -> impl Fn(&mut serde_json::Value) + '_ {
    move |config| config["process"]["args"] = serde_json::json!(["sh", "-c", script])
}

const NONE: [&str; 3] = ["", "", ""];

fn create(shim: &mut Shim, streams: [&str; 3]) -> Answer {
    let options = shim.options(&runtime());
    shim.create(false, streams, options)
}

fn runtime() -> PathBuf {
    fs::canonicalize(host::runtime()).expect("the runtime")
}

#[test]
fn a_life_from_create_to_delete() {
    like_containerds("life", sh("sleep 1000"), |shim, seen| {
        seen.answer("create", &create(shim, NONE));
        seen.state("created", &shim.call("State"));
        let pids = shim.call("Pids").unwrap();
        seen.note(format!("{} process", pids.all(1).len()));
        seen.answer("start", &shim.call("Start"));
        seen.state("running", &shim.call("State"));
        let connect = shim.call("Connect").unwrap();
        seen.note(format!("shim {} task {}", connect.get(1) != 0, connect.get(2) != 0));
        seen.answer("delete", &shim.call("Delete"));
        seen.answer("pause", &shim.call("Pause"));
        seen.state("paused", &shim.call("State"));
        seen.answer("resume", &shim.call("Resume"));
        seen.answer("start again", &shim.call("Start"));
        seen.answer("shutdown", &shim.call("Shutdown"));
        seen.answer("kill", &shim.kill("", 15, false));
        seen.answer("kill", &shim.kill("", 9, false));
        let end = shim.wait("").unwrap();
        seen.note(format!("ended with {} at {}", end.get(1), end.get_message(2).get(1) != 0));
        seen.state("stopped", &shim.call("State"));
        seen.answer("kill", &shim.kill("", 9, false));
        seen.answer("pause", &shim.call("Pause"));
        let deleted = shim.call("Delete").unwrap();
        seen.note(format!("deleted: {} {}", deleted.get(1) != 0, deleted.get(2)));
        seen.state("gone", &shim.call("State"));
        seen.answer("delete", &shim.call("Delete"));
        seen.answer("wait", &shim.wait(""));
        seen.answer("kill", &shim.kill("", 9, false));
    });
}

#[test]
fn a_status_is_the_programs_own() {
    like_containerds("status", sh("exit 7"), |shim, seen| {
        seen.answer("create", &create(shim, NONE));
        let mut second = shim.another();
        let waiting = second.ask("Wait", &shim.target());
        seen.answer("start", &shim.call("Start"));
        seen.note(second.answer(waiting).unwrap().get(1));
        seen.note(shim.wait("").unwrap().get(1));
        seen.state("stopped", &shim.call("State"));
    });
}

#[test]
fn execs_are_added_started_and_deleted() {
    like_containerds("execs", sh("sleep 1000"), |shim, seen| {
        seen.answer("create", &create(shim, NONE));
        seen.answer("exec before start", &shim.exec("early", false, NONE, &["true"]));
        seen.answer("start early", &shim.start_exec("early"));
        seen.note(shim.wait("early").unwrap().get(1));
        seen.answer("start", &shim.call("Start"));
        seen.answer("exec", &shim.exec("one", false, NONE, &["sh", "-c", "exit 5"]));
        seen.answer("same name", &shim.exec("one", false, NONE, &["true"]));
        let target = shim.exec_target("one");
        seen.state("added", &shim.client.call("State", &target));
        seen.answer("start", &shim.start_exec("one"));
        seen.note(shim.wait("one").unwrap().get(1));
        seen.state("ended", &shim.client.call("State", &target));
        seen.answer("start again", &shim.start_exec("one"));
        seen.answer("kill", &shim.kill("one", 9, false));
        seen.note(shim.delete_exec("one").unwrap().get(2));
        seen.answer("delete again", &shim.delete_exec("one"));
        seen.answer("exec", &shim.exec("two", false, NONE, &["sleep", "1000"]));
        seen.answer("start", &shim.start_exec("two"));
        seen.answer("delete", &shim.delete_exec("two"));
        let pids = shim.call("Pids").unwrap().all(1);
        let names = pids.iter().map(|p| Message::decode(p).get_message(2).get_message(2).get_text(1));
        let mut names: Vec<_> = names.collect();
        names.sort();
        seen.note(format!("processes {names:?}"));
        seen.answer("kill", &shim.kill("two", 15, false));
        seen.note(shim.wait("two").unwrap().get(1));
        seen.answer("exec", &shim.exec("none", false, NONE, &["no-such-program"]));
        seen.answer("start", &shim.start_exec("none"));
        seen.answer("delete", &shim.delete_exec("none"));
    });
}

/// Init's exit is told after those of its execs, whichever came first.
#[test]
fn inits_exit_is_the_last() {
    like_containerds("last", sh("sleep 1000"), |shim, seen| {
        create(shim, NONE).unwrap();
        shim.call("Start").unwrap();
        for name in ["one", "two", "three"] {
            shim.exec(name, false, NONE, &["sleep", "1000"]).unwrap();
            shim.start_exec(name).unwrap();
        }
        shim.kill("", 9, false).unwrap();
        seen.note(shim.wait("").unwrap().get(1));
        let told = |shim: &Shim| shim.topics().iter().filter(|t| t.starts_with("/tasks/exit")).count();
        for _ in 0..500 {
            if told(shim) == 4 {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert_eq!(told(shim), 4, "{:?}", shim.topics());
        let last = shim.topics().into_iter().rfind(|t| t.starts_with("/tasks/exit"));
        seen.note(format!("{last:?}"));
        // In which order three processes die together is nobody's promise.
        let mut events = shim.events.lock().unwrap();
        let exits: Vec<_> = events.iter().enumerate().filter(|(_, e)| e.0 == "/tasks/exit").collect();
        let (first, mut sorted) = (exits[0].0, exits[..3].iter().map(|e| e.1.clone()).collect::<Vec<_>>());
        sorted.sort_by_key(|e| e.1.get_text(2));
        for (n, event) in sorted.into_iter().enumerate() {
            events[first + n] = event;
        }
    });
}

#[test]
fn streams_are_fifos() {
    like_containerds(
        "fifos",
        sh("echo out; echo err >&2; read w; echo got $w; read w || echo end"),
        |shim, seen| {
            let mut fifos = Fifos::new(&shim.id, true);
            let paths = fifos.paths();
            create(shim, [&paths[0], &paths[1], &paths[2]]).unwrap();
            seen.answer("start", &shim.call("Start"));
            fifos.write("word\n");
            eventually("the word is answered", || fifos.read("stdout").contains("got word"));
            fifos.close_stdin();
            let request = shim.target().number(3, 1);
            seen.answer("close", &shim.client.call("CloseIO", &request));
            seen.note(shim.wait("").unwrap().get(1));
            seen.answer("delete", &shim.call("Delete"));
            eventually("both streams end", || fifos.ended() == 2);
            seen.note(format!("{:?} {:?}", fifos.read("stdout"), fifos.read("stderr")));
        },
    );
}

/// `... | docker run -i IMAGE sh -c 'tool /dev/stdin'`: opened anew once all is written, and once more when all is read.
#[test]
fn a_stdin_at_its_end_can_be_opened_again() {
    like_containerds(
        "reopened",
        sh("until [ -e /go ]; do sleep 0.01; done; cat /dev/stdin; cat /dev/stdin; exit 3"),
        |shim, seen| {
            let mut fifos = Fifos::new(&shim.id, true);
            let paths = fifos.paths();
            create(shim, [&paths[0], &paths[1], &paths[2]]).unwrap();
            seen.answer("start", &shim.call("Start"));
            fifos.write("word\n");
            fifos.close_stdin();
            let request = shim.target().number(3, 1);
            seen.answer("close", &shim.client.call("CloseIO", &request));
            fs::write(shim.bundle.rootfs().join("go"), "").unwrap();
            seen.note(shim.wait("").unwrap().get(1));
            seen.answer("delete", &shim.call("Delete"));
            eventually("both streams end", || fifos.ended() == 2);
            seen.note(format!("{:?} {:?}", fifos.read("stdout"), fifos.read("stderr")));
        },
    );
}

#[test]
fn an_execs_streams_are_its_own() {
    like_containerds("exec-fifos", sh("sleep 1000"), |shim, seen| {
        create(shim, NONE).unwrap();
        shim.call("Start").unwrap();
        let mut fifos = Fifos::new(&shim.id, true);
        let paths = fifos.paths();
        let script = "echo out; echo err >&2; cat; exit 3";
        shim.exec("one", false, [&paths[0], &paths[1], &paths[2]], &["sh", "-c", script]).unwrap();
        shim.start_exec("one").unwrap();
        fifos.write("word\n");
        eventually("the word is answered", || fifos.read("stdout").contains("word"));
        fifos.close_stdin();
        let request = shim.exec_target("one").number(3, 1);
        shim.client.call("CloseIO", &request).unwrap();
        seen.note(shim.wait("one").unwrap().get(1));
        seen.answer("delete", &shim.delete_exec("one"));
        eventually("both streams end", || fifos.ended() == 2);
        seen.note(format!("{:?} {:?}", fifos.read("stdout"), fifos.read("stderr")));
    });
}

/// Writes to both streams and ends when it may.
const SAYS: &str = "echo out; echo err >&2; while [ ! -e /end ]; do sleep 0.01; done; cat /proc/self/fd/0";

/// Starts what `SAYS`, whose streams are one file. Ours ends at once. The shim of containerd 2 closes the file for both streams when the
/// first ends: there it ends when all is written.
fn start_and_read(shim: &mut Shim, file: &Path) {
    let end = shim.bundle.rootfs().join("end");
    let written = || fs::read_to_string(file).is_ok_and(|t| t.lines().count() == 2);
    if shim.is_ours() {
        fs::write(&end, "").unwrap();
    }
    shim.call("Start").unwrap();
    eventually("all is written", written);
    fs::write(&end, "").unwrap();
}

#[test]
fn streams_are_a_file() {
    like_containerds("file", sh(SAYS), |shim, seen| {
        let file = janitor::scratch().join("files").join(&shim.id).join("deep/log");
        let address = format!("file://{}", file.display());
        create(shim, ["", &address, &address]).unwrap();
        start_and_read(shim, &file);
        seen.note(shim.wait("").unwrap().get(1));
        seen.answer("delete", &shim.call("Delete"));
        seen.lines(&fs::read_to_string(&file).unwrap());
    });
}

/// One file takes both streams, by a name as addresses write it, and who ships logs may read it.
#[test]
fn a_files_name_is_decoded_and_takes_both_streams() {
    like_containerds("file-name", sh(SAYS), |shim, seen| {
        let dir = janitor::scratch().join("files").join(&shim.id);
        let (out, err) =
            (format!("file://{}/a%20l+g", dir.display()), format!("file://{}/other", dir.display()));
        let file = dir.join("a l+g");
        create(shim, ["", &out, &err]).unwrap();
        start_and_read(shim, &file);
        seen.note(shim.wait("").unwrap().get(1));
        seen.lines(&fs::read_to_string(&file).unwrap());
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&file).unwrap().permissions());
        seen.note(format!("{mode:o} {}", dir.join("other").exists()));
    });
}

/// As `nerdctl run -dt` has it.
#[test]
fn a_terminals_output_goes_to_a_logging_binary() {
    let tty = |config: &mut serde_json::Value| {
        config["process"]["terminal"] = true.into();
        config["process"]["args"] = serde_json::json!(["sh", "-c", "tty; echo said; exit 6"]);
    };
    like_containerds("binary-tty", tty, |shim, seen| {
        let dir = janitor::scratch().join("files").join(&shim.id);
        fs::create_dir_all(&dir).unwrap();
        let program = dir.join("logger");
        let script =
            format!("#!/bin/sh\nexec 5>&-\ncat <&3 >{0}/out &\ncat <&4 >{0}/err &\nwait\n", dir.display());
        fs::write(&program, script).unwrap();
        Run::new("chmod").args(["755", program.to_str().unwrap()]).ok();
        let address = format!("binary://{}", program.display());
        let options = shim.options(&runtime());
        seen.answer("create", &shim.create(true, ["", &address, ""], options));
        seen.answer("start", &shim.call("Start"));
        seen.note(shim.wait("").unwrap().get(1));
        let read = |file: &str| fs::read_to_string(dir.join(file)).unwrap_or_default();
        eventually("the logger has read all", || read("out").contains("said"));
        seen.note(read("out").replace('\r', ""));
        seen.note(read("err"));
    });
}

#[test]
fn streams_are_a_logging_binary() {
    like_containerds("binary", sh("echo out; echo err >&2"), |shim, seen| {
        let dir = janitor::scratch().join("files").join(&shim.id);
        fs::create_dir_all(&dir).unwrap();
        let program = dir.join("logger");
        let script = format!(
            "#!/bin/sh\necho $CONTAINER_NAMESPACE \"$@\" >{0}/args\necho $CONTAINER_ID >{0}/id\nexec 5>&-\ncat <&3 >{0}/out &\ncat <&4 >{0}/err &\nwait\n",
            dir.display()
        );
        fs::write(&program, script).unwrap();
        Run::new("chmod").args(["755", program.to_str().unwrap()]).ok();
        let address = format!("binary://{}?key=a%20value", program.display());
        seen.answer("create", &create(shim, ["", &address, &address]));
        seen.answer("start", &shim.call("Start"));
        seen.note(shim.wait("").unwrap().get(1));
        seen.answer("delete", &shim.call("Delete"));
        let read = |file: &str| fs::read_to_string(dir.join(file)).unwrap_or_default();
        eventually("the logger has read all", || read("out") == "out\n" && read("err") == "err\n");
        for file in ["args", "out", "err"] {
            seen.note(read(file));
        }
        assert_eq!(fs::read_to_string(dir.join("id")).unwrap().trim(), shim.id);
    });
}

#[test]
fn a_terminal_and_its_size() {
    let tty = |config: &mut serde_json::Value| {
        config["process"]["terminal"] = true.into();
        config["process"]["args"] = serde_json::json!(["sh", "-c", "read w; stty size; tty; echo got $w"]);
    };
    like_containerds("tty", tty, |shim, seen| {
        let mut fifos = Fifos::new(&shim.id, true);
        let paths = fifos.paths();
        let options = shim.options(&runtime());
        seen.answer("create", &shim.create(true, [&paths[0], &paths[1], ""], options));
        let size = shim.target().number(3, 91).number(4, 37);
        seen.answer("start", &shim.call("Start"));
        seen.answer("resize", &shim.client.call("ResizePty", &size));
        fifos.write("word\n");
        seen.note(shim.wait("").unwrap().get(1));
        seen.answer("delete", &shim.call("Delete"));
        eventually("all is said", || fifos.read("stdout").contains("got word"));
        seen.note(fifos.read("stdout").replace('\r', ""));
    });
}

#[test]
fn an_execs_terminal() {
    like_containerds("exec-tty", sh("sleep 1000"), |shim, seen| {
        create(shim, NONE).unwrap();
        shim.call("Start").unwrap();
        let mut fifos = Fifos::new(&shim.id, true);
        let paths = fifos.paths();
        let script = "read w; stty size; tty; echo got $w";
        shim.exec("one", true, [&paths[0], &paths[1], ""], &["sh", "-c", script]).unwrap();
        seen.answer("start", &shim.start_exec("one"));
        let size = shim.exec_target("one").number(3, 91).number(4, 37);
        seen.answer("resize", &shim.client.call("ResizePty", &size));
        fifos.write("word\n");
        seen.note(shim.wait("one").unwrap().get(1));
        seen.answer("delete", &shim.delete_exec("one"));
        eventually("all is said", || fifos.read("stdout").contains("got word"));
        seen.note(fifos.read("stdout").replace('\r', ""));
    });
}

/// Whatever the process's own specification has.
#[test]
fn whether_an_exec_has_a_terminal_the_request_says() {
    like_containerds("exec-says", sh("sleep 1000"), |shim, seen| {
        create(shim, NONE).unwrap();
        shim.call("Start").unwrap();
        for terminal in [true, false] {
            let name = format!("says-{terminal}");
            let mut fifos = Fifos::new(&format!("{}-{name}", shim.id), true);
            let paths = fifos.paths();
            let mut process = shim.bundle.config["process"].clone();
            process["args"] =
                serde_json::json!(["sh", "-c", "read w; test -t 1 && echo a terminal || echo none"]);
            process["terminal"] = (!terminal).into();
            let request = shim
                .exec_target(&name)
                .number(3, u64::from(terminal))
                .text(4, &paths[0])
                .text(5, &paths[1])
                // containerd's shim wants both streams, or a terminal.
                .text(6, if terminal { "" } else { &paths[2] })
                .any(7, "types.containerd.io/opencontainers/runtime-spec/1/Process", process.to_string());
            seen.answer("exec", &shim.client.call("Exec", &request));
            seen.answer("start", &shim.start_exec(&name));
            fifos.write("word\n");
            seen.note(shim.wait(&name).unwrap().get(1));
            let said = || ["a terminal", "none"].into_iter().find(|s| fifos.read("stdout").contains(s));
            eventually("it is said", || said().is_some());
            seen.note(said().unwrap_or_default());
            seen.answer("delete", &shim.delete_exec(&name));
        }
    });
}

#[test]
fn an_exec_is_paused_with_its_container() {
    like_containerds("exec-paused", sh("sleep 1000"), |shim, seen| {
        create(shim, NONE).unwrap();
        shim.call("Start").unwrap();
        shim.exec("one", false, NONE, &["sleep", "1000"]).unwrap();
        shim.start_exec("one").unwrap();
        let target = shim.exec_target("one");
        for change in ["Pause", "Resume"] {
            seen.answer(change, &shim.call(change));
            seen.state(change, &shim.client.call("State", &target));
        }
        shim.kill("one", 9, false).unwrap();
        seen.note(shim.wait("one").unwrap().get(1));
    });
}

#[test]
fn want_of_memory_is_told_before_the_exit() {
    let small = |config: &mut serde_json::Value| {
        sh("tail /dev/zero")(config);
        config["linux"]["resources"]["memory"] = serde_json::json!({ "limit": 16 << 20, "swap": 16 << 20 });
    };
    like_containerds("oom", small, |shim, seen| {
        create(shim, NONE).unwrap();
        shim.call("Start").unwrap();
        seen.note(shim.wait("").unwrap().get(1));
        eventually("the exit is told", || shim.topics().iter().any(|t| t.starts_with("/tasks/exit")));
        // However many there were: one at least, and all before the exit. containerd's shim tells of want and of exits by ways
        // that don't wait for each other, and may tell the exit first.
        let mut events = shim.events.lock().unwrap();
        let at = events.iter().position(|e| e.0 == "/tasks/exit").unwrap();
        let first = events.iter().position(|e| e.0 == "/tasks/oom");
        let theirs = shim.id.ends_with("-theirs");
        assert!(
            theirs || first.is_some_and(|f| f < at),
            "the want of memory was not told before the exit: {events:?}"
        );
        events.retain(|e| e.0 != "/tasks/oom");
    });
}

/// Init lives on, so nothing but the news itself makes anybody look.
#[test]
fn want_of_memory_of_another_process_is_told_while_init_runs() {
    let small = |config: &mut serde_json::Value| {
        sh("tail /dev/zero; sleep 1000")(config);
        config["linux"]["resources"]["memory"] = serde_json::json!({ "limit": 16 << 20, "swap": 16 << 20 });
    };
    like_containerds("oom-child", small, |shim, seen| {
        create(shim, NONE).unwrap();
        shim.call("Start").unwrap();
        eventually("it is told", || shim.topics().iter().any(|t| t == "/tasks/oom"));
        seen.state("after it", &shim.call("State"));
        shim.kill("", 9, false).unwrap();
        seen.note(shim.wait("").unwrap().get(1));
        // However many there were.
        shim.events.lock().unwrap().retain(|e| e.0 != "/tasks/oom");
    });
}

#[test]
fn figures_are_of_the_type_that_containerd_reads() {
    let limited = |config: &mut serde_json::Value| {
        sh("sleep 1000")(config);
        config["linux"]["resources"]["memory"] = serde_json::json!({ "limit": 64 << 20 });
        config["linux"]["resources"]["pids"] = serde_json::json!({ "limit": 50 });
    };
    like_containerds("stats", limited, |shim, seen| {
        create(shim, NONE).unwrap();
        shim.call("Start").unwrap();
        let any = shim.call("Stats").unwrap().get_message(1);
        let name = any.get_text(1);
        let metrics = any.get_message(2);
        seen.note(name.rsplit('/').next().unwrap());
        let (pids, memory) = (if name.contains("v2") { 1 } else { 2 }, 4);
        seen.note(format!("pids {} {}", metrics.get_message(pids).get(1), metrics.get_message(pids).get(2)));
        let limit = match name.contains("v2") {
            true => metrics.get_message(memory).get(33),
            false => metrics.get_message(memory).get_message(33).get(1),
        };
        seen.note(format!("limit {limit}"));
        shim.kill("", 9, false).unwrap();
        shim.wait("").unwrap();
        shim.call("Delete").unwrap();
        seen.answer("stats", &shim.call("Stats"));
    });
}

#[test]
fn limits_change_and_annotations_reach_the_runtime() {
    like_containerds("update", sh("sleep 1000"), |shim, seen| {
        create(shim, NONE).unwrap();
        shim.call("Start").unwrap();
        let resources = |json: &str| shim_request(shim, json);
        let fine = resources(r#"{"pids":{"limit":77}}"#);
        let bad = resources(r#"{"pids":"many"}"#);
        seen.answer("update", &shim.client.call("Update", &fine));
        seen.answer("nonsense", &shim.client.call("Update", &bad));
        let any = shim.call("Stats").unwrap().get_message(1);
        let tag = if any.get_text(1).contains("v2") { 1 } else { 2 };
        seen.note(any.get_message(2).get_message(tag).get(2));
    });
}

/// A name becomes part of paths: containerd's own rule for identifiers holds.
#[test]
fn odd_names_are_refused() {
    if integration::peer() != Peer::Hydra {
        integration::skip!("the shim is ours");
    }
    let mut shim = Shim::start(&host::shim(), &format!("odd-{}", std::process::id()), &[], sh("sleep 1000"));
    create(&mut shim, NONE).unwrap();
    for name in ["../one", "", "a/b", ".hidden", "a b"] {
        assert_eq!(shim.exec(name, false, NONE, &["true"]).unwrap_err().code, 3, "{name:?}");
    }
    shim.end();
}

fn shim_request(shim: &Shim, resources: &str) -> Message {
    shim.target().any(2, "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources", resources)
}

/// Our own: knobs change with Update, where the runtime is ours.
#[test]
fn an_updates_annotations_are_knobs() {
    if integration::peer() != Peer::Hydra {
        integration::skip!("the shim is ours");
    }
    let id = format!("knobs-{}", std::process::id());
    let mut shim = Shim::start(&host::shim(), &id, &[], sh("sleep 1000"));
    create(&mut shim, NONE).unwrap();
    shim.call("Start").unwrap();
    let pair = Message::new().text(1, "hydra.pids.limit").text(2, "33");
    let request = shim_request(&shim, "{}").message(3, &pair);
    shim.client.call("Update", &request).unwrap();
    let any = shim.call("Stats").unwrap().get_message(1);
    let tag = if any.get_text(1).contains("v2") { 1 } else { 2 };
    assert_eq!(any.get_message(2).get_message(tag).get(2), 33);
    let pair = Message::new().text(1, "hydra.no-such-knob").text(2, "1");
    let refused = shim.client.call("Update", &shim_request(&shim, "{}").message(3, &pair)).unwrap_err();
    assert!(refused.text.contains("no-such-knob"), "{refused:?}");
    // Without any resources beside it.
    let pair = Message::new().text(1, "hydra.pids.limit").text(2, "34");
    let request = shim.target().message(3, &pair);
    shim.client.call("Update", &request).unwrap();
    let any = shim.call("Stats").unwrap().get_message(1);
    assert_eq!(any.get_message(2).get_message(tag).get(2), 34);
    shim.end();
}

#[test]
fn a_container_that_cant_be_made_leaves_nothing() {
    let broken = |config: &mut serde_json::Value| config["process"]["args"] = serde_json::json!(["nothing"]);
    like_containerds("broken", broken, |shim, seen| {
        // Some runtimes find out when they create, others when they start.
        let made = create(shim, NONE);
        let started = made.and_then(|_| shim.call("Start"));
        seen.answer("made and started", &started);
        let text = started.unwrap_err().text;
        seen.note(text.contains("OCI runtime") && text.contains("nothing"));
        shim.events.lock().unwrap().clear();
        let _ = shim.call("Delete");
        shim.events.lock().unwrap().clear();
        seen.state("state", &shim.call("State"));
    });
}
