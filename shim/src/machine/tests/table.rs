//! Every state that a container can be in, and what each request is answered there.

use super::*;

/// The states, each reached by the events that lead there in real life.
fn states() -> Vec<(&'static str, State)> {
    let create = CreateRequest { id: "c".into(), ..Default::default() };
    let exec = ExecRequest { id: "c".into(), exec_id: "e".into(), ..Default::default() };
    let of_exec = Target { id: "c".into(), exec_id: "e".into() };
    let (creating, _) = request(State::default(), "Create", &create);
    let created = done(creating.clone(), 7).0;
    let (starting, _) = request(created.clone(), "Start", &target());
    let running = done(starting.clone(), 7).0;
    let (pausing, _) = request(running.clone(), "Pause", &target());
    let paused = done(pausing.clone(), 0).0;
    let (added, _) = request(running.clone(), "Exec", &exec);
    let (exec_starting, _) = request(added.clone(), "Start", &of_exec);
    let exec_running = done(exec_starting.clone(), 8).0;
    let exec_ended = exit(exec_running.clone(), 8).0;
    let ended = exit(running.clone(), 7).0;
    let recorded = step(ended.clone(), Event::Recorded { task: "c".into(), exec: String::new() }, 4).0;
    let (deleting, _) = request(recorded.clone(), "Delete", &target());
    let mut full = recorded.clone();
    full.tasks[0].init.out = Some(Stream::default());
    let draining = done(request(full, "Delete", &target()).0, 0).0;
    let (ending, _) = request(State::default(), "Shutdown", &target());
    vec![
        ("none", State::default()),
        ("creating", creating),
        ("created", created),
        ("starting", starting),
        ("running", running),
        ("pausing", pausing),
        ("paused", paused),
        ("exec added", added),
        ("exec starting", exec_starting),
        ("exec running", exec_running),
        ("exec ended", exec_ended),
        ("ended", ended),
        ("recorded", recorded),
        ("deleting", deleting),
        ("draining", draining),
        ("ending", ending),
    ]
}

/// Every request, with a payload that names the container (and `e`, where there is "exec").
fn requests() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let of = |exec: &str| Target { id: "c".into(), exec_id: exec.into() }.bytes();
    let kill =
        |exec: &str| KillRequest { id: "c".into(), exec_id: exec.into(), signal: 9, all: false }.bytes();
    let exec = ExecRequest { id: "c".into(), exec_id: "e".into(), ..Default::default() }.bytes();
    let stdin = CloseIoRequest { id: "c".into(), stdin: true, ..Default::default() }.bytes();
    vec![
        ("create", "Create", CreateRequest { id: "c".into(), ..Default::default() }.bytes()),
        ("start", "Start", of("")),
        ("exec", "Exec", exec),
        ("start exec", "Start", of("e")),
        ("state", "State", of("")),
        ("wait", "Wait", of("")),
        ("wait exec", "Wait", of("e")),
        ("kill", "Kill", kill("")),
        ("kill exec", "Kill", kill("e")),
        ("pause", "Pause", of("")),
        ("resume", "Resume", of("")),
        ("pids", "Pids", of("")),
        ("update", "Update", UpdateRequest { id: "c".into(), ..Default::default() }.bytes()),
        ("checkpoint", "Checkpoint", CheckpointRequest { id: "c".into(), ..Default::default() }.bytes()),
        ("connect", "Connect", of("")),
        ("stats", "Stats", of("")),
        ("resize", "ResizePty", ResizeRequest { id: "c".into(), ..Default::default() }.bytes()),
        ("closeio", "CloseIO", stdin),
        ("attach", "Attach", AttachRequest { id: "c".into(), ..Default::default() }.bytes()),
        ("delete exec", "Delete", of("e")),
        ("delete", "Delete", of("")),
        ("shutdown", "Shutdown", of("")),
        ("nonsense", "Nonsense", of("")),
    ]
}

const ME: Asker = Asker { conn: 3, stream: 99 };

/// How a request is answered: + at once, ~ later, by the worker or a job's end; else the first letter of the error's kind.
fn verdict(state: &State, actions: &[Action]) -> char {
    let answers: Vec<&Result<Vec<u8>>> = actions
        .iter()
        .filter_map(|a| match a {
            Action::Reply { asker, result } if *asker == ME => Some(result),
            _ => None,
        })
        .collect();
    let by_worker = actions.iter().any(|a| match a {
        Action::Stats { asker, .. } | Action::Attach { asker, .. } | Action::Upgrade { asker } => {
            *asker == ME
        }
        _ => false,
    });
    let waits = state.ops.iter().map(|o| &o.asker);
    let waits =
        waits.chain(state.waiters.iter().map(|w| &w.asker)).chain(state.queue.iter().map(|q| &q.asker));
    let waits = waits.chain(state.closing.iter().map(|c| &c.asker)).filter(|a| **a == ME).count();
    assert_eq!(
        answers.len() + waits + usize::from(by_worker),
        1,
        "answered once or waited for once: {actions:?}"
    );
    match answers.first() {
        None => '~',
        Some(Ok(_)) => '+',
        Some(Err(e)) => match e.kind() {
            Kind::NotFound => 'N',
            Kind::Exists => 'E',
            Kind::State => 'S',
            Kind::Unsupported => 'U',
            other => panic!("{other:?}: {e}"),
        },
    }
}

/// One line a state; the columns are `requests()` in their order.
const TABLE: &str = "
none          ~NNNNNNNNNNNNN+NNNNNN+U
creating      E~~~+~NSN~~~~~+~++~~~+U
created       E~+N+~N~NSS~~~+~++~N~+U
starting      E~~~+~N~N~~~~~+~++~~~+U
running       ES+N+~N~N~S~~~+~++~NS+U
pausing       E~~~+~N~N~~~~~+~++~~~+U
paused        ESSN+~N~NS~~~~+~++~NS+U
exec added    ESE~+~~~S~S~~~+~++~+S+U
exec starting ESES+~~~S~S~~~+~++~SS+U
exec running  ESES+~~~~~S~~~+~++~SS+U
exec ended    ESES+~~~N~S~~~+~++~~S+U
ended         ESSN+~NNNSS~~~+~++~N~+U
recorded      ESSN++NNNSS~~~+~++~N~+U
deleting      E~~~++NNN~~~~~+~++~~~+U
draining      ENNN++NNNNN~NN+~++~NN+U
ending        SNNNNNNNNNNNNN+NNNNNN+U
";

#[test]
fn every_request_in_every_state() {
    let mut found = String::from("\n");
    for (name, state) in states() {
        let row: String = requests()
            .into_iter()
            .map(|(_, method, payload)| {
                let event = Event::Request { asker: ME, method: method.into(), payload };
                let (after, actions) = step(state.clone(), event, 5);
                sound(&after);
                verdict(&after, &actions)
            })
            .collect();
        found += &format!("{name:<14}{row}\n");
    }
    assert_eq!(found, TABLE, "{found}");
}

/// What holds in every state, whatever happened.
pub fn sound(state: &State) {
    let mut slots: Vec<u32> = state.ops.iter().map(|o| o.slot).collect();
    slots.sort_unstable();
    slots.dedup();
    assert_eq!(slots.len(), state.ops.len(), "two jobs in one place: {state:?}");
    // A signal may be on its way to a container that is being deleted; all else works on what there is.
    let idle = |o: &&Op| !matches!(o.job, Job::Kill | Job::KillAll | Job::Signal | Job::Ps | Job::Notify);
    for op in state.ops.iter().filter(idle) {
        assert!(state.task(&op.task).is_some(), "a job for nothing: {op:?}");
    }
    for process in state.tasks.iter().flat_map(Task::processes) {
        assert!(!process.recording || process.exited(), "recorded before its end: {process:?}");
        assert!(!process.recorded || process.recording, "told before it was recorded: {process:?}");
        assert_eq!(process.exited(), process.phase == Phase::Stopped, "{process:?}");
    }
    assert_eq!(&State::decode(&state.bytes()).unwrap(), state, "lost on the way through the map");
    let again = resume(state);
    for op in &state.ops {
        assert!(again.contains(&Action::Spawn { op: op.id }), "a successor forgets {op:?}");
    }
}

/// Everything that happens by itself, in every state: twice, too, for a successor may see it again.
#[test]
fn every_event_in_every_state_may_come_twice() {
    let named = |exec: &str| (String::from("c"), String::from(exec));
    for (name, state) in states() {
        let mut events =
            vec![Event::Tick, Event::Hangup { conn: 1 }, Event::Oom { task: "c".into(), kills: 1 }];
        for exec in ["", "e", "nobody"] {
            let (task, exec) = named(exec);
            events.push(Event::Drained { task: task.clone(), exec: exec.clone() });
            if state.process(&task, &exec).is_some_and(|p| p.recording) {
                events.push(Event::Recorded { task, exec });
            }
        }
        for pid in [7, 8, 1000] {
            events.push(Event::Exit { pid, code: 3, killed: false, core: false, unknown: false });
        }
        for op in state.ops.iter().map(|o| o.id).chain([1000]) {
            events.push(Event::Done { op, result: Ok(Output { pid: 7, ..Output::default() }) });
            events.push(Event::Done { op, result: Err(Error::new(Kind::Runtime, "no")) });
        }
        for event in events {
            let (once, _) = step(state.clone(), event.clone(), 6);
            sound(&once);
            let (mut twice, actions) = step(once.clone(), event.clone(), 6);
            sound(&twice);
            // An exit that is not known yet may be kept until it is.
            twice.strays = once.strays.clone();
            assert_eq!(twice, once, "{name}: {event:?} again");
            assert!(topics(&actions).is_empty(), "{name}: {event:?} is told twice: {actions:?}");
        }
    }
}
