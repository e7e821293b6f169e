//! Logging binaries: `binary://` and `binary-v2://`.

use super::*;

/// `binary-v2://`, which containerd has from 2.2 on: a byte says that the logger is ready, its end alone does not.
#[test]
fn a_logging_binary_of_the_second_kind_says_that_it_is_ready() {
    ours!();
    let dir = janitor::scratch().join("loggers");
    fs::create_dir_all(&dir).unwrap();
    let out = dir.join("out");
    let script = format!("printf x >&5; exec 5>&-; cat <&3 >{}; :", out.display());
    let good = wrapped("loggers/good", &script, Path::new(""));
    let mute = wrapped("loggers/mute", "exec 5>&-; exit 0;", Path::new(""));
    for (n, (scheme, program, refused)) in [
        ("binary-v2", good, None),
        ("binary-v2", mute.clone(), Some("did not get ready")),
        ("binary-v2", dir.join("none"), Some("no such file")),
        ("binary", dir.join("none"), Some("no such file")),
        ("binary", mute, None),
    ]
    .into_iter()
    .enumerate()
    {
        let mut shim = start(&format!("logger{n}"), &[], sh("echo said"));
        let address = format!("{scheme}://{}", program.display());
        let options = shim.options(&runtime());
        let answer = shim.create(false, ["", &address, &address], options);
        match refused {
            None => {
                answer.unwrap_or_else(|e| panic!("{address}: {e:?}"));
                shim.call("Start").unwrap();
                shim.wait("").unwrap();
            }
            Some(text) => {
                let refused = answer.expect_err(&address);
                assert!(refused.text.contains(text), "{address}: {refused:?}");
            }
        }
        shim.end();
    }
    eventually("the logger has read all", || fs::read_to_string(&out).is_ok_and(|t| t == "said\n"));
}

/// A container outlives its logger, by whose end it gets no signal; what it writes then is counted and kept for `logs`.
#[test]
fn a_loggers_death_is_not_the_containers() {
    ours!();
    let script = "read w; i=0; while [ $i -lt 30000 ]; do echo line $i; i=$((i+1)); done; exit 6";
    let mut shim = start("logger-dies", &[], sh(script));
    let fifos = Fifos::new(&shim.id, true);
    let program = wrapped("logger-dies", "exec 5>&-; exit 0;", Path::new(""));
    let address = format!("binary://{}", program.display());
    let options = shim.options(&runtime());
    shim.create(false, [&fifos.paths()[0], &address, &address], options).unwrap();
    shim.call("Start").unwrap();
    let mut fifos = fifos;
    fifos.write("go\n");
    assert_eq!(shim.wait("").unwrap().get(1), 6);
    let root = janitor::scratch().join("roots/shim").join(NAMESPACE);
    let logs = || Run::new(host::runtime()).args(["--root", root.to_str().unwrap(), "logs", &shim.id]).ok();
    eventually("the last of it", || logs().stdout.ends_with("line 29999\n"));
    let folder = Path::new("/run/hydra-shim").join(NAMESPACE).join(&shim.id);
    eventually("what it lost is counted", || {
        let record: serde_json::Value = serde_json::from_slice(&written(&folder.join("exit.json"))).unwrap();
        record["droppedBytes"].as_u64().is_some_and(|n| n > 100_000)
    });
    shim.end();
}

/// A logger that takes its time holds up nobody but the container that it is for.
#[test]
fn nobody_else_waits_for_a_logger() {
    ours!();
    let [begun, go, out] =
        ["begun", "go", "out"].map(|n| janitor::scratch().join(format!("logger-late.{n}")));
    let waits = format!(
        "touch {0}; until test -e {1} || ! test -e {0}; do sleep 0.02; done; exec 5>&-; cat <&3 >{2}; :",
        begun.display(),
        go.display(),
        out.display()
    );
    let program = wrapped("logger-late", &waits, Path::new(""));
    let mut shim = start("logger-late", &[], sh("echo said"));
    let address = format!("binary://{}", program.display());
    let request = shim
        .target()
        .text(2, shim.bundle.dir.to_str().unwrap())
        .text(6, &address)
        .text(7, &address)
        .any(10, "containerd.runc.v1.Options", shim.options(&runtime()).encode());
    let mut second = shim.another();
    let asked = second.ask("Create", &request);
    eventually("the logger is started", || begun.exists());
    assert_eq!(shim.call("State").unwrap().get(4), 1);
    assert_eq!(shim.client.call("Pause", &Message::new().text(1, "nobody")).unwrap_err().code, 5);
    fs::write(&go, "").unwrap();
    second.answer(asked).unwrap();
    shim.call("Start").unwrap();
    shim.wait("").unwrap();
    eventually("the logger has read all", || fs::read_to_string(&out).is_ok_and(|t| t == "said\n"));
    shim.end();
}
