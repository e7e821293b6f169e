//! Docker as a whole: the daemon restarted, checkpoints, compose.

use super::like_runc;
use integration::engine::restarted;
use integration::Run;

/// Containers live on while the daemon is away, and are found again, also those that end meanwhile.
#[test]
fn a_restart_of_the_daemon_keeps_containers() {
    let engine = match restarted() {
        Ok(engine) => engine,
        Err(reason) => integration::skip!("{reason}"),
    };
    let pid = "$D inspect -f '{{.State.Pid}}' $N";
    let mut seen = Vec::new();
    for runtime in ["tested", "runc"] {
        let up = "$D run -d --name $N --runtime $R $I sh -c 'while :; do date >/tick; sleep 0.1; done' >/dev/null
            $D run -d --name $N-ends --runtime $R $I sh -c 'while [ ! -e /end ]; do sleep 0.1; done; echo last; exit 7' >/dev/null
            $D inspect -f '{{.State.Pid}}' $N-ends";
        let ends = engine.script(up, runtime, runtime).ok().stdout;
        let before = engine.script(pid, runtime, runtime).ok().stdout;
        engine.halt();
        assert!(
            integration::host::alive(before.trim().parse().unwrap()),
            "{runtime}: it died with the daemon"
        );
        std::fs::write(format!("/proc/{}/root/end", ends.trim()), "").unwrap();
        integration::eventually("its end", || !integration::host::alive(ends.trim().parse().unwrap()));
        engine.launch().unwrap();
        assert_eq!(engine.script(pid, runtime, runtime).ok().stdout, before, "{runtime}");
        let script = "$D exec $N echo in; a=$($D exec $N cat /tick); sleep 1.2; [ \"$a\" != \"$($D exec $N cat /tick)\" ] && echo ticks
            $D wait $N-ends; $D logs $N-ends; $D kill $N >/dev/null; $D wait $N; $D rm $N $N-ends >/dev/null";
        seen.push(engine.script(script, runtime, runtime).ok().stdout);
    }
    assert!(seen[0].starts_with("in\nticks\n7\n") && seen[0].ends_with("137\n"), "{seen:?}");
    assert_eq!(seen[0], seen[1]);
}

/// `docker checkpoint`, where there is a criu that fits the kernel.
#[test]
fn checkpoint_and_restore() {
    let check = Run::sh("criu check 2>&1 | tail -1").out();
    if !check.stdout.contains("Looks good") {
        integration::skip!("criu check: {}", check.stdout.trim());
    }
    like_runc(
        "checkpoint",
        "$D run -d --name $N --runtime $R --security-opt seccomp=unconfined $I sh -c 'i=0; while :; do i=$((i+1)); echo $i >/n; sleep 0.1; done' >/dev/null
        sleep 2; $D checkpoint create $N one && $D checkpoint ls $N | tail -1; $D inspect -f '{{.State.Status}}' $N
        $D start --checkpoint one $N; sleep 1; $D inspect -f '{{.State.Status}}' $N; [ $($D exec $N cat /n) -gt 20 ] && echo went on
        $D checkpoint create --leave-running $N two; $D inspect -f '{{.State.Status}}' $N; $D rm -f $N",
    );
}

const COMPOSE: &str = r#"mkdir -p $N && cd $N && cat >docker-compose.yml <<END
version: "2.4"
services:
  web:
    image: $I
    runtime: $R
    init: true
    mem_limit: 64m
    read_only: true
    tmpfs: [/tmp]
    cap_drop: [ALL]
    user: "1000"
    environment: {WORD: hello}
    command: sh -c "echo up; exec sleep 1000"
    healthcheck: {test: ["CMD", "true"], interval: 1s}
  side:
    image: $I
    runtime: $R
    network_mode: "service:web"
    depends_on: {web: {condition: service_healthy}}
    command: sh -c "echo side; exec sleep 1000"
END
$COMPOSE up -d 2>/dev/null; echo $?; $D ps -q --filter name=$N | wc -l
$COMPOSE exec -T web sh -c 'echo $WORD; id -u; touch /x 2>&1; grep CapEff /proc/self/status; cat /proc/1/comm'
ns() { readlink /proc/$($D inspect -f '{{.State.Pid}}' ${N}_$1_1)/ns/net; }; [ $(ns web) = $(ns side) ] && echo shared
$COMPOSE logs --no-color 2>/dev/null | sed 's/.*| //' | grep -E '^(up|side)' | sort
$COMPOSE restart -t 0 web 2>/dev/null; echo $?; $COMPOSE run --rm --no-deps -T web echo once 2>/dev/null; echo $?
$COMPOSE down -t 0 2>/dev/null; echo $?; $D ps -aq --filter name=$N | wc -l"#;

#[test]
fn compose_1() {
    if Run::sh("docker-compose version").out().code != 0 {
        integration::skip!("docker-compose is not installed, or does not run");
    }
    like_runc("compose", &format!("COMPOSE=docker-compose; {COMPOSE}"));
}

#[test]
fn compose_2() {
    if Run::sh("docker compose version").out().code != 0 {
        integration::skip!("there is no `docker compose`");
    }
    like_runc("composed", &format!("COMPOSE='docker compose'; {COMPOSE}"));
}
