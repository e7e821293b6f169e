//! The program of a running monitor is replaced.

use super::*;
use integration::bundle::copy_program;

fn upgrade(r: &Running) -> integration::Out {
    Run::new(shim()).args(["upgrade", "--namespace", namespace(), &r.task.id]).out()
}

/// Ten times under a running writer: pid, connection, output and calls stay.
#[test]
fn the_program_is_replaced_under_a_running_container() {
    if let Some(reason) = missing() {
        skip!("{reason}");
    }
    let r = running("upgrade", &[]);
    let waiting = r.client.begin("Wait", target(&r.task.id, ""));
    for _ in 0..10 {
        let [keeper, worker] = r.monitor.heads();
        upgrade(&r).ok();
        eventually("both heads", || integration::monitor::whole(&r.monitor.dir));
        assert_eq!(r.monitor.heads()[0], keeper, "the same process");
        assert_ne!(r.monitor.heads()[1], worker, "a new one");
        assert_eq!(r.client.ok("State", target(&r.task.id, "")).int(4), 2);
    }
    let before = r.output.seen().lines;
    eventually("output goes on", || r.output.seen().lines > before + 1000);
    r.client.ok("Kill", signal(&r.task.id, 9));
    assert_eq!(r.client.answer(waiting).expect("Wait").int(1), 137);
    r.client.ok("Delete", target(&r.task.id, ""));
    assert_eq!(r.output.seen().wrong, None);
    let told = ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"];
    eventually("events", || r.monitor.events.topics(&r.task.id, "").len() == told.len());
    assert_eq!(r.monitor.events.topics(&r.task.id, ""), told);
}

/// A program that can't read the state, or is none, is not executed; one that dies at once costs nothing.
#[test]
fn a_program_that_does_not_fit_is_refused() {
    if let Some(reason) = missing() {
        skip!("{reason}");
    }
    let program = integration::janitor::scratch().join("replaced-shim");
    copy_program(&shim(), &program);
    // The monitor remembers the path that it was started from.
    let monitor = Monitor::by("refused", &program, &[]);
    let task = monitor.task(&monitor.id, &["sleep", "100000"]);
    let client = monitor.client();
    client.ok("Create", task.create());
    client.ok("Start", target(&task.id, ""));
    let layout = Run::new(shim()).args(["layout"]).ok().stdout.trim().to_string();
    let ask = || Run::new(shim()).args(["upgrade", "--namespace", namespace(), &task.id]).out();
    let install = |text: &str| {
        let fresh = program.with_extension("new");
        fs::write(&fresh, text).expect("script");
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755)).expect("mode");
        fs::rename(&fresh, &program).expect("install");
    };
    install("#!/bin/sh\necho 7\n");
    ask().fails_with("state layout 7");
    install("#!/bin/sh\nexit 1\n");
    ask().fails_with("state layout none");
    install(&format!("#!/bin/sh\n[ $1 = layout ] && echo {layout} && exit 0\nexit 1\n"));
    ask().fails_with("stays as it is");
    eventually("both heads", || integration::monitor::whole(&monitor.dir));
    assert!(client.connected());
    assert_eq!(client.ok("State", target(&task.id, "")).int(4), 2);
    end(&client, &task.id);
}

/// Where the state file says which layout it has.
const LAYOUT: u64 = 8;

/// The state that a newer program left is refused by the number of its layout, and untouched: the program that can read it takes
/// the container over.
#[test]
fn a_state_of_another_layout_is_refused_by_its_number() {
    if let Some(reason) = missing() {
        skip!("{reason}");
    }
    let r = running("layout", &[]);
    r.monitor.kill_all();
    let state =
        fs::File::options().read(true).write(true).open(r.monitor.dir.join("state")).expect("the state");
    let mut layout = [0; 4];
    state.read_exact_at(&mut layout, LAYOUT).expect("its layout");
    let ours = Run::new(shim()).args(["layout"]).ok().stdout;
    assert_eq!(u32::from_le_bytes(layout).to_string(), ours.trim());
    state.write_all_at(&900u32.to_le_bytes(), LAYOUT).expect("another layout");
    let adopt = || Run::new(shim()).args(["adopt", "--namespace", namespace(), &r.task.id]).out();
    adopt().fails_with("layout 900");
    assert_eq!(status(&r.task.id), "", "it is not listed");
    state.write_all_at(&layout, LAYOUT).expect("the layout");
    adopt().ok();
    let client = r.monitor.client();
    assert_eq!(client.ok("State", target(&r.task.id, "")).int(4), 2);
    end(&client, &r.task.id);
}
