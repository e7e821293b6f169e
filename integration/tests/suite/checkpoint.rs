//! `checkpoint` and `restore` without an engine, where there is a criu that fits the kernel.

use integration::{differs, eventually, host, janitor, skip, Container, Out, Run};
use std::fs;
use std::path::{Path, PathBuf};

/// Why nothing can be shown here.
pub fn no_criu() -> Option<String> {
    if std::env::var_os("WITHOUT").is_some() {
        return Some("criu suspends its victims' filters, which nobody may who is under one".into());
    }
    let out = Run::sh("criu check 2>&1").out();
    (out.code != 0).then(|| format!("criu check: {}", out.stdout.lines().last().unwrap_or_default()))
}

macro_rules! criu {
    () => {
        if let Some(reason) = no_criu() {
            skip!("{reason}");
        }
        differs!(Crun, "Debian's is built without criu");
    };
}

/// A container that counts, in a file of its root file system. It holds no file of the host's open, which criu could not find
/// again.
fn counting(name: &str) -> Container {
    let script =
        "exec </dev/null >/dev/null 2>&1; i=0; while :; do i=$((i+1)); echo $i >/tmp/n; sleep 0.1; done";
    let c = Container::sh(name, script).up();
    goes_on(&c, 2);
    c
}

fn count(c: &Container) -> u32 {
    let text = fs::read_to_string(c.bundle.rootfs().join("tmp/n")).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

/// It counts on from there: one that began anew would come to less for a while.
#[track_caller]
fn goes_on(c: &Container, from: u32) {
    eventually("it counts", || count(c) > from);
}

pub fn images(c: &Container) -> PathBuf {
    let dir = janitor::scratch().join("images").join(&c.id);
    fs::create_dir_all(&dir).unwrap();
    dir
}

#[track_caller]
fn checkpoint(c: &Container, images: &Path, flags: &[&str]) -> Out {
    let verb = c.runtime().args(["checkpoint", "--image-path"]).args([images]).args(flags);
    verb.args([&c.id]).patient(3).out().ok()
}

#[track_caller]
fn restore(c: &Container, images: &Path) {
    let verb = c.runtime().args(["restore", "--detach", "--image-path"]).args([images]).args(["--bundle"]);
    // Its pipes would be waited for: they are the container's then.
    verb.args([&c.bundle.dir]).args([&c.id]).stdout_to(c.bundle.dir.join("restored")).patient(3).out().ok();
}

/// It is gone, with its cgroup and its place in the state directory, until its images are asked for.
#[test]
fn a_container_comes_back_from_its_images() {
    criu!();
    let c = counting("checkpoint");
    let images = images(&c);
    checkpoint(&c, &images, &[]);
    let before = count(&c);
    c.verb(&["state", &c.id]).fails_with("does not exist");
    assert_eq!(c.leftovers(), Vec::<String>::new());
    assert!(images.join("inventory.img").exists());
    restore(&c, &images);
    assert_eq!(c.status(), "running");
    assert!(count(&c) >= before, "it began anew");
    goes_on(&c, before);
    c.exec(&["sh", "-c", "grep -q sleep /proc/[0-9]*/cmdline && echo inside"]).ok().says("inside");
    c.kill("KILL").ok();
    c.wait_for("stopped");
    c.delete().ok();
    assert_eq!(c.leftovers(), Vec::<String>::new());
}

/// What was said about it holds again: an annotation, a class, a file that has no knob.
#[test]
fn its_knobs_come_back_with_it() {
    criu!();
    if integration::peer() != integration::Peer::Hydra {
        skip!("knobs are ours");
    }
    // Network limits want a cgroup2 hierarchy.
    let network = host::cgroups() != host::Cgroups::V1;
    let script =
        "exec </dev/null >/dev/null 2>&1; i=0; while :; do i=$((i+1)); echo $i >/tmp/n; sleep 0.1; done";
    let c = Container::sh("knobbed", script).with(|config| {
        config["annotations"]["hydra.pids.limit"] = "55".into();
        if network {
            config["annotations"]["hydra.net.egress-rate"] = "8mbit".into();
        }
    });
    let c = c.up();
    goes_on(&c, 2);
    let images = images(&c);
    checkpoint(&c, &images, &[]);
    restore(&c, &images);
    assert_eq!(c.cgroup_file("pids", "pids.max").as_deref(), Some("55"));
    let rows = c.verb(&["inspect", "--json", &c.id]).ok().json()[0]["knobs"].clone();
    let row = |knob: &str| rows.as_array().unwrap().iter().find(|r| r["knob"] == knob).cloned();
    if network {
        assert_eq!(row("net.egress-rate").unwrap()["effective"], "1000000", "{rows}");
    }
    assert_eq!(row("pids.limit").unwrap()["from"], "annotation", "{rows}");
    c.delete_force().ok();
    assert_eq!(c.leftovers(), Vec::<String>::new());
}

/// Knobs are decided as for a new container, before criu is asked.
#[test]
fn a_restore_refuses_what_create_would() {
    if integration::peer() != integration::Peer::Hydra {
        skip!("knobs are ours");
    }
    let c = Container::sleeping("badback").with(|config| {
        config["annotations"]["hydra.pids.limt"] = "55".into();
    });
    c.bundle.write();
    let verb =
        c.runtime().args(["restore", "--detach", "--image-path"]).args([images(&c)]).args(["--bundle"]);
    verb.args([&c.bundle.dir]).args([&c.id]).out().fails_with("annotation: unknown knob pids.limt");
    assert_eq!(c.leftovers(), Vec::<String>::new());
}

#[test]
fn a_container_may_run_on_after_its_checkpoint() {
    criu!();
    let c = counting("leave");
    let images = images(&c);
    checkpoint(&c, &images, &["--leave-running"]);
    assert_eq!(c.status(), "running");
    goes_on(&c, count(&c));
    assert!(images.join("inventory.img").exists());
}

/// Most of the memory is written while the container runs, and the checkpoint only what changed since.
#[test]
fn memory_can_be_written_beforehand() {
    criu!();
    if Run::sh("criu check --feature mem_dirty_track").out().code != 0 {
        skip!("the kernel does not tell what memory changed");
    }
    let c = counting("before");
    let images = images(&c);
    checkpoint(&c, &images.join("first"), &["--pre-dump"]);
    assert_eq!(c.status(), "running");
    checkpoint(&c, &images.join("second"), &["--parent-path", "../first"]);
    let before = count(&c);
    assert!(images.join("second/parent").exists(), "it does not build on the first");
    restore(&c, &images.join("second"));
    goes_on(&c, before);
}

/// It ends as one that was created would: with its hooks.
#[test]
fn a_restored_container_has_its_poststop_hooks() {
    criu!();
    // A sleep alone may end with its restore, which interrupts it.
    let c = Container::sh("restorehook", "exec </dev/null >/dev/null 2>&1; while :; do sleep 1; done");
    let log = c.bundle.dir.join("poststop");
    let script = format!("echo ran >>{}", log.display());
    let hook = serde_json::json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }]);
    let c = c.with(|config| config["hooks"]["poststop"] = hook).up();
    let images = images(&c);
    checkpoint(&c, &images, &[]);
    let _ = fs::remove_file(&log);
    restore(&c, &images);
    c.kill("KILL").ok();
    c.wait_for("stopped");
    c.delete().ok();
    assert_eq!(fs::read_to_string(&log).unwrap_or_default(), "ran\n");
}

#[test]
fn a_terminal_needs_a_socket_after_a_restore_too() {
    differs!(Crun, "Debian's is built without criu");
    let c = Container::sleeping("restoretty").with(|c| c["process"]["terminal"] = true.into());
    c.bundle.write();
    let verb =
        c.runtime().args(["restore", "--detach", "--image-path"]).args([images(&c)]).args(["--bundle"]);
    verb.args([&c.bundle.dir]).args([&c.id]).out().fails_with("cannot allocate tty");
    assert_eq!(c.leftovers(), Vec::<String>::new());
}
