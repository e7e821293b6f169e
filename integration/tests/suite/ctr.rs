//! containerd by `ctr`, with the program under test behind containerd's own shim, compared with runc.

use integration::engine::{engine, Engine, IMAGE};
use integration::{host, Out};
use std::sync::OnceLock;

/// Docker's image, in containerd's own store.
pub fn imported(engine: &Engine) -> Result<(), String> {
    static DONE: OnceLock<Result<(), String>> = OnceLock::new();
    let line =
        format!("$D save {IMAGE} | ctr -a {} images import - >/dev/null", engine.containerd().display());
    let import = || match engine.script(&line, "", "") {
        out if out.code == 0 => Ok(()),
        out => Err(format!("ctr can't import an image here: {}", out.stderr.trim())),
    };
    DONE.get_or_init(import).clone()
}

/// A script in which `$C` is ctr, `$RUN` its `run` with the runtime chosen by `flags`, `$I` the image, `$N` a name.
pub fn script(engine: &Engine, script: &str, flags: &str, name: &str) -> Out {
    let c = format!("ctr -a {}", engine.containerd().display());
    let run = format!("{c} run {flags}");
    let image = format!("I=docker.io/library/{IMAGE}:latest");
    engine.script(&format!("C='{c}'; RUN='{run}'; {image}; {script}"), "", name)
}

/// containerd's own shim with the program of that path.
pub fn behind_runcs(program: &str) -> String {
    format!("--runtime io.containerd.runc.v2 --runc-binary {program}")
}

#[track_caller]
fn like_runc(name: &str, text: &str) {
    let program = std::fs::canonicalize(host::runtime()).unwrap();
    compare(name, text, &behind_runcs(program.to_str().unwrap()));
}

/// The same with our monitor in place of containerd's shim.
#[track_caller]
fn shimmed_like_runc(name: &str, text: &str) {
    integration::differs!(Runc, "the shim is ours");
    integration::differs!(Crun, "the shim is ours");
    compare(name, text, "--runtime io.containerd.hydra.v2");
}

#[track_caller]
fn compare(name: &str, text: &str, flags: &str) {
    let engine = match engine() {
        Ok(engine) => engine,
        Err(reason) => integration::skip!("{reason}"),
    };
    if let Err(reason) = imported(engine) {
        integration::skip!("{reason}");
    }
    let mut ours = script(engine, text, flags, &format!("{name}-tested"));
    let plain = |out: &Out, who: &str| out.stdout.replace(&format!("{name}-{who}"), "NAME");
    let mut alike = false;
    let mut theirs = None;
    // The peer's shim loses its figures while a v1 hierarchy is mounted that it doesn't expect (net_cls, by another test): it may
    // try again. We may not.
    for who in ["runc", "runc-again", "runc-anew"] {
        if !alike {
            let out = script(engine, text, &behind_runcs("runc"), &format!("{name}-{who}"));
            alike = (plain(&ours, "tested"), ours.code) == (plain(&out, who), out.code);
            theirs = Some(out);
        }
    }
    let theirs = theirs.expect("an answer");
    // A FIFO that ctr has not opened before a container is over is empty then: on a busy host the end of the output was lost of 1 in 389
    // containers with runc and of 3 in 748 with ours, which are over sooner. What was cut short, and is else the same, is asked for once more.
    let cut = |ours: &Out| {
        plain(&theirs, "runc-anew").starts_with(&plain(ours, "tested")) && ours.code == theirs.code
    };
    if !alike && cut(&ours) {
        println!("RETRY {name}: cut short: {ours}");
        ours = script(engine, text, flags, &format!("{name}-tested"));
        alike = plain(&ours, "tested") == plain(&theirs, "runc-anew") && ours.code == theirs.code;
    }
    if !alike && name.ends_with("metrics") && !host::every_hierarchy_is_mounted() {
        integration::skip!("containerd's shim has no figures while there is a hierarchy that isn't mounted");
    }
    assert!(alike, "with {text}\n  ours: {ours}\n  runc: {theirs}");
    assert!(!ours.stdout.is_empty(), "the case shows nothing: {text}: {ours}");
}

/// Each case with containerd's shim, and again with ours.
macro_rules! cases {
    ($($name:ident: $script:expr;)*) => {
        $(#[test] fn $name() { like_runc(concat!("ctr-", stringify!($name)), $script); })*
        mod shimmed {
            $(#[test] fn $name() { super::shimmed_like_runc(concat!("ctr-shimmed-", stringify!($name)), $script); })*
        }
    };
}

cases! {
    run: "$RUN --rm $I $N echo hello; echo $?";
    run_status: "$RUN --rm $I $N sh -c 'exit 7'; echo $?";
    exec: "$RUN -d $I $N sleep 1000; $C task exec --exec-id a $N sh -c 'echo in; exit 5'; echo $?; $C task kill -s KILL $N; sleep 1; $C task rm $N; $C container rm $N; echo $?";
    pause: "$RUN -d $I $N sleep 1000; $C task pause $N; $C task ls | grep $N | awk '{print $3}'; $C task resume $N; $C task ls | grep $N | awk '{print $3}'; $C task kill -s KILL $N; sleep 1; $C task rm $N; $C container rm $N; echo $?";
    processes: "$RUN -d $I $N sleep 1000; $C task ps $N | wc -l; $C task kill -s KILL $N; sleep 1; $C task rm $N; $C container rm $N; echo $?";
    metrics: "$RUN -d $I $N sleep 1000; $C task metrics $N | grep -c pids.current; $C task kill -s KILL $N; sleep 1; $C task rm $N; $C container rm $N; echo $?";
    limits: "$RUN --rm --memory-limit 67108864 $I $N sh -c 'cat /sys/fs/cgroup/memory.max 2>/dev/null; echo done'";
    flags: "$RUN --rm --read-only --env A=b --cwd /tmp --privileged=false $I $N sh -c 'echo $A; pwd; touch /x 2>/dev/null || echo readonly'";
    unknown_program: "$RUN --rm $I $N nothing >/dev/null 2>&1; echo $?";
}
