//! Orders of events that callers rely on; every event in every state; and random interleavings of all of them.

mod random;
mod table;

use super::*;

fn request(state: State, method: &str, message: &impl Message) -> (State, Vec<Action>) {
    let asker = Asker { conn: 1, stream: 1 };
    step(state, Event::Request { asker, method: method.into(), payload: message.bytes() }, 1)
}

fn done(state: State, pid: u32) -> (State, Vec<Action>) {
    let op = state.ops[0].id;
    step(state, Event::Done { op, result: Ok(Output { pid, ..Output::default() }) }, 2)
}

fn topics(actions: &[Action]) -> Vec<&str> {
    let topic = |a: &Action| match a {
        Action::Publish { topic, .. } => Some(*topic),
        _ => None,
    };
    actions.iter().filter_map(topic).collect()
}

fn target() -> Target {
    Target { id: "c".into(), exec_id: String::new() }
}

fn created() -> State {
    let (state, _) =
        request(State::default(), "Create", &CreateRequest { id: "c".into(), ..Default::default() });
    done(state, 7).0
}

fn exit(state: State, pid: u32) -> (State, Vec<Action>) {
    step(state, Event::Exit { pid, code: 3, killed: false, core: false, unknown: false }, 3)
}

#[test]
fn an_exit_during_start_is_told_after_the_start() {
    let (state, _) = request(created(), "Start", &target());
    let (state, actions) = exit(state, 7);
    assert!(!actions.iter().any(|a| matches!(a, Action::Record { .. })));
    let (state, actions) = done(state, 7);
    assert_eq!(topics(&actions), ["/tasks/start"]);
    assert!(actions.iter().any(|a| matches!(a, Action::Record { .. })));
    let (_, actions) = step(state, Event::Recorded { task: "c".into(), exec: String::new() }, 4);
    assert_eq!(topics(&actions), ["/tasks/exit"]);
}

#[test]
fn an_exit_before_its_pid_is_known_is_kept() {
    let (state, _) =
        request(State::default(), "Create", &CreateRequest { id: "c".into(), ..Default::default() });
    let (state, _) = exit(state, 7);
    let (state, _) = done(state, 7);
    assert_eq!(state.tasks[0].init.exit_status, 3);
}

#[test]
fn a_second_create_and_a_delete_of_what_runs_are_refused() {
    let (state, actions) =
        request(created(), "Create", &CreateRequest { id: "c".into(), ..Default::default() });
    assert!(matches!(&actions[0], Action::Reply { result: Err(e), .. } if e.kind() == Kind::Exists));
    let (state, _) = request(state, "Start", &target());
    let (state, _) = done(state, 7);
    let (_, actions) = request(state, "Delete", &target());
    assert!(matches!(&actions[0], Action::Reply { result: Err(e), .. } if e.kind() == Kind::State));
}

/// Which comes to life in Start; containerd hears of it at once.
#[test]
fn a_restored_container_is_told_of_when_it_is_laid_out() {
    let of = |parent: &str| CreateRequest {
        id: "c".into(),
        checkpoint: "/image".into(),
        parent_checkpoint: parent.into(),
        ..Default::default()
    };
    let (state, _) = request(State::default(), "Create", &of(""));
    assert_eq!(state.ops[0].job, Job::Prepare);
    assert_eq!(topics(&done(state, 0).1), ["/tasks/create"]);
    let (_, actions) = request(State::default(), "Create", &of("/parent"));
    assert!(matches!(&actions[0], Action::Reply { result: Err(e), .. } if e.kind() == Kind::Unsupported));
}

#[test]
fn state_survives_its_wire_form() {
    let (state, _) = request(created(), "Start", &target());
    assert_eq!(State::decode(&state.bytes()).unwrap(), state);
    assert!(resume(&state).contains(&Action::Spawn { op: state.ops[0].id }));
}

/// Else containerd 2 deletes it at its start.
#[test]
fn a_container_that_has_ended_lists_its_init_until_it_is_deleted() {
    let lists = |state: State, result: Result<Output>| -> Result<Vec<u32>> {
        let (state, _) = request(state, "Pids", &target());
        let op = state.ops[0].id;
        let (_, actions) = step(state, Event::Done { op, result }, 5);
        let Action::Reply { result, .. } = &actions[0] else { panic!("{actions:?}") };
        let answer = PidsResponse::decode(&result.clone()?)?;
        Ok(answer.processes.iter().map(|p| p.pid).collect())
    };
    let says = |text: &str| Ok(Output { stdout: text.into(), ..Output::default() });
    let gone = || Err(Error::new(Kind::Runtime, "container c does not exist"));
    let running = done(request(created(), "Start", &target()).0, 7).0;
    assert_eq!(lists(running.clone(), says("[7,8]")).unwrap(), [7, 8]);
    assert!(lists(running.clone(), says("[]")).unwrap().is_empty());
    assert!(lists(running.clone(), gone()).is_err());
    let ended = exit(running, 7).0;
    assert_eq!(lists(ended.clone(), says("null")).unwrap(), [7]);
    assert_eq!(lists(ended.clone(), gone()).unwrap(), [7]);
    assert_eq!(lists(ended, says("[9]")).unwrap(), [9]);
}

/// The place of a job says, until the commit of its end, that it was done: no other job may take it within that step.
#[test]
fn a_job_that_begins_as_another_ends_has_a_place_of_its_own() {
    let (state, _) = request(created(), "Start", &target());
    let first = state.ops[0].slot;
    let (state, _) = request(state, "Pause", &target());
    let (state, actions) = done(state, 7);
    assert!(actions.contains(&Action::Spawn { op: state.ops[0].id }));
    assert_ne!(state.ops[0].slot, first);
}

/// One after the other: each within the one before it would need more stack with every one that waits.
#[test]
fn any_number_of_requests_waits_its_turn() {
    const COUNT: usize = 5000;
    let (mut state, _) =
        request(State::default(), "Create", &CreateRequest { id: "c".into(), ..Default::default() });
    let exec = Target { exec_id: "none".into(), ..target() };
    for _ in 0..COUNT {
        state = request(state, "Delete", &exec).0;
    }
    assert_eq!(state.queue.len(), COUNT);
    let (state, actions) = done(state, 7);
    assert!(state.queue.is_empty());
    let answered = actions.iter().filter(|a| matches!(a, Action::Reply { .. })).count();
    assert_eq!(answered, COUNT + 1);
}
