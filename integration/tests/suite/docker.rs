//! Docker with the program under test as its runtime: every case is run with it and with runc, by the same daemon, and
//! what a user sees must be the same.

mod build;
mod variants;
mod whole;

use integration::engine::{engine, Engine};
use integration::Out;

/// Whether root has every capability here: without one of them runc refuses --privileged, and we give what there is.
fn full_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let bounding = status.lines().find_map(|l| l.strip_prefix("CapBnd:")).unwrap().trim();
    let last: u32 = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap").unwrap().trim().parse().unwrap();
    u64::from_str_radix(bounding, 16).unwrap() == (1 << (last + 1)) - 1
}

/// Runs a script twice, with `$R` the program under test and with `$R` runc, and compares outputs and statuses.
#[track_caller]
fn like_runc(name: &str, script: &str) {
    match engine() {
        Ok(engine) => compare(name, script, (engine, "tested"), engine),
        Err(reason) => integration::skip!("{reason}"),
    }
}

/// Runs a script in the first engine with the runtime of that name, and in the second with runc.
#[track_caller]
pub fn compare(name: &str, script: &str, (engine, runtime): (&Engine, &str), peer: &Engine) {
    if (script.contains("--privileged") || script.contains("--cap-add ALL")) && !full_root() {
        integration::skip!("root lacks a capability here, and runc refuses all of them then");
    }
    let ours = engine.script(script, runtime, &format!("{name}-tested"));
    // Names and ids differ by nature.
    let plain = |out: &Out, who: &str| out.stdout.replace(&format!("{name}-{who}"), "NAME");
    let ask_runc = |who: &str| peer.script(script, "runc", &format!("{name}-{who}"));
    let like_ours =
        |theirs: &Out, who: &str| (plain(&ours, "tested"), ours.code) == (plain(theirs, who), theirs.code);
    let mut theirs = ask_runc("runc");
    let mut alike = like_ours(&theirs, "runc");
    // Docker's own races (the output of a container that ends at once) may hit the peer: it may try again, and says so. We
    // may not: what the peer gives twice alike is what we had to give.
    for who in ["runc-again", "runc-anew"] {
        if !alike {
            println!("RETRY {name}: with {script}\n  ours: {ours}\n  runc: {theirs}");
            let before =
                (plain(&theirs, if who == "runc-again" { "runc" } else { "runc-again" }), theirs.code);
            theirs = ask_runc(who);
            assert_ne!(
                (plain(&theirs, who), theirs.code),
                before,
                "with {script}\n  ours: {ours}\n  runc, twice: {theirs}"
            );
            alike = like_ours(&theirs, who);
        }
    }
    assert!(alike, "with {script}\n  ours: {ours}\n  runc: {theirs}");
    assert!(!ours.stdout.is_empty(), "the case shows nothing: {script}: {ours}");
}

macro_rules! cases {
    ($($name:ident: $script:expr;)*) => { $(#[test] fn $name() { like_runc(stringify!($name), $script); })* };
}

/// Hands the cases to a macro that makes tests of them.
macro_rules! with_cases { ($define:ident) => { $define! {
    run: "$D run --rm --runtime $R $I echo hello; echo $?";
    run_status: "for s in 0 1 7 125 126 127 255; do $D run --rm --runtime $R $I sh -c \"exit $s\"; echo $?; done";
    run_signal: "$D run --rm --runtime $R --pid host $I sh -c 'kill -TERM $$'; echo $?";
    run_unknown_program: "$D run --rm --runtime $R $I no-such-program 2>&1 | sed 's/.*exec: /exec: /'; echo ${PIPESTATUS[0]}";
    run_unexecutable: "$D run --rm --runtime $R $I /etc/passwd >/dev/null 2>&1; echo $?";
    run_folder: "$D run --rm --runtime $R $I /etc >/dev/null 2>&1; echo $?";
    run_stdin: "echo word | $D run --rm -i --runtime $R $I cat";
    run_stdin_reopened: "echo word | $D run --rm -i --runtime $R $I sh -c 'sleep 1; cat /dev/stdin; cat /dev/stdin; exit 3'; echo $?";
    run_streams: "$D run --rm --runtime $R $I sh -c 'echo out; echo err >&2' 2>/dev/null";
    run_tty: "script -qec \"$D run --rm -it --runtime $R $I sh -c 'tty; stty size | wc -w; echo done'\" /dev/null </dev/null | clean";
    run_detached_and_logs: "$D run -d --name $N --runtime $R $I sh -c 'echo one; echo two >&2' >/dev/null; $D wait $N; $D logs $N 2>&1 | sort; $D rm $N";
    exec: "$D run -d --name $N --runtime $R $I sleep 1000 >/dev/null; $D exec $N echo hi; $D exec $N sh -c 'exit 9'; echo $?; $D exec -u 1000 -w /tmp -e A=b $N sh -c 'id -u; pwd; echo $A'; $D rm -f $N";
    exec_unknown_program: "$D run -d --name $N --runtime $R $I sleep 1000 >/dev/null; $D exec $N nothing >/dev/null 2>&1; echo $?; $D rm -f $N";
    exec_tty: "$D run -d --name $N --runtime $R $I sleep 1000 >/dev/null; script -qec \"$D exec -it $N sh -c 'tty; echo done'\" /dev/null </dev/null | clean; $D rm -f $N";
    exec_privileged: "$D run -d --name $N --runtime $R $I sleep 1000 >/dev/null; $D exec --privileged $N grep CapEff /proc/self/status; $D rm -f $N";
    exec_detached: "$D run -d --name $N --runtime $R $I sleep 1000 >/dev/null; $D exec -d $N sh -c 'echo x >/tmp/x'; for i in $(seq 50); do $D exec $N test -e /tmp/x && break; sleep 0.1; done; $D exec $N cat /tmp/x; $D rm -f $N";
    // dockerd closes the outputs of an attach as soon as its input ends: it stays open until the container has ended.
    attach: "$D run -di --name $N --runtime $R $I sh -c 'read w; echo got $w; sleep 1' >/dev/null; (echo word; $D wait $N >/dev/null) | $D attach $N; $D wait $N; $D rm $N";
    stop: "$D run -d --name $N --runtime $R $I sh -c 'trap \"exit 3\" TERM; while :; do sleep 0.1; done' >/dev/null; sleep 1; $D stop $N; $D inspect -f '{{.State.ExitCode}} {{.State.Status}}' $N; $D rm $N";
    stop_by_force: "$D run -d --name $N --runtime $R $I sleep 1000 >/dev/null; $D stop -t 1 $N; $D inspect -f '{{.State.ExitCode}}' $N; $D rm $N";
    kill: "$D run -d --name $N --runtime $R $I sleep 1000 >/dev/null; $D kill $N; $D wait $N; $D inspect -f '{{.State.ExitCode}} {{.State.OOMKilled}}' $N; $D rm $N";
    kill_signal: "$D run -d --name $N --runtime $R $I sh -c 'trap \"exit 4\" USR1; while :; do sleep 0.1; done' >/dev/null; sleep 1; $D kill -s USR1 $N; $D wait $N; $D rm $N";
    pause: "$D run -d --name $N --runtime $R $I sleep 1000 >/dev/null; $D pause $N; $D inspect -f '{{.State.Status}}' $N; $D exec $N true 2>/dev/null; echo $?; $D unpause $N; $D exec $N echo back; $D rm -f $N";
    restart: "$D run -d --name $N --runtime $R $I sleep 1000 >/dev/null; $D restart -t 0 $N; $D inspect -f '{{.State.Status}}' $N; $D rm -f $N";
    start_again: "$D run --name $N --runtime $R $I echo once; $D start -a $N; $D rm $N";
    restart_policy: "$D run -d --name $N --runtime $R --restart on-failure:2 $I sh -c 'echo try; exit 1' >/dev/null; for i in $(seq 100); do [ $($D inspect -f '{{.RestartCount}}{{.State.Status}}' $N) = 2exited ] && break; sleep 0.2; done; $D logs $N; $D inspect -f '{{.RestartCount}}' $N; $D rm $N";
    update: "$D run -d --name $N --runtime $R --memory 64m --pids-limit 50 $I sleep 1000 >/dev/null; $D update --memory 128m --memory-swap 256m --cpus 0.5 --pids-limit 70 $N; p=$($D inspect -f '{{.State.Pid}}' $N); for c in memory/memory.limit_in_bytes pids/pids.max cpu/cpu.cfs_quota_us; do g=$(grep -E \":(${c%%/*}|):\" /proc/$p/cgroup | head -1 | cut -d: -f3); cat /sys/fs/cgroup/${c%%/*}$g/${c#*/} 2>/dev/null; done; $D rm -f $N";
    top: "$D run -d --name $N --runtime $R $I sleep 1000 >/dev/null; $D top $N -eo comm; $D rm -f $N";
    stats: "$D run -d --name $N --runtime $R --memory 64m $I sleep 1000 >/dev/null; $D stats --no-stream --format '{{.Name}} {{.PIDs}} {{.MemUsage}}' $N | sed 's/[0-9.]*[KM]*i*B \\///'; $D rm -f $N";
    cp: "$D run -d --name $N --runtime $R $I sleep 1000 >/dev/null; echo text >$N.txt; $D cp $N.txt $N:/tmp/file; $D exec $N cat /tmp/file; $D cp $N:/tmp/file - | tar -xO; $D rm -f $N";
    diff_and_commit: "$D run --name $N --runtime $R $I touch /new; $D diff $N; $D commit $N $(echo $N | tr A-Z a-z) >/dev/null; $D run --rm --runtime $R $(echo $N | tr A-Z a-z) ls /new; $D rm $N >/dev/null";
    init: "$D run --rm --runtime $R --init $I cat /proc/1/comm";
    user: "$D run --rm --runtime $R --user 1000:2000 $I id; $D run --rm --runtime $R --user user $I id; $D run --rm --runtime $R --user 1000 --group-add 7 $I id -G";
    read_only: "$D run --rm --runtime $R --read-only --tmpfs /tmp $I sh -c 'exec 2>&1; touch /x; touch /tmp/x && echo tmp'";
    capabilities: "for f in '' '--cap-add SYS_TIME' '--cap-drop ALL' '--cap-drop ALL --cap-add CHOWN'; do $D run --rm --runtime $R $f $I grep Cap /proc/self/status; done";
    user_capabilities: "$D run --rm --runtime $R --user 1000 --cap-add NET_ADMIN $I grep Cap /proc/self/status";
    no_new_privileges: "$D run --rm --runtime $R --security-opt no-new-privileges $I grep NoNewPrivs /proc/self/status";
    seccomp: "$D run --rm --runtime $R $I sh -c 'exec 2>&1; grep Seccomp: /proc/self/status; unshare -m true; echo $?'; $D run --rm --runtime $R --security-opt seccomp=unconfined $I grep Seccomp: /proc/self/status";
    devices: "$D run --rm --runtime $R --device /dev/null:/dev/mine:rw $I stat -c '%t:%T %a' /dev/mine; $D run --rm --runtime $R $I ls /dev | sort";
    device_denied: "$D run --rm --runtime $R --cap-add MKNOD $I sh -c 'exec 2>&1; mknod /tmp/m c 1 1; head -c 1 /tmp/m'";
    tmpfs: "$D run --rm --runtime $R --tmpfs /mnt:size=1m,mode=700,uid=5 $I sh -c 'stat -c \"%a %u\" /mnt; df -k /mnt | tail -1 | tr -s \" \" | cut -d\" \" -f2'";
    volumes: "$D run --rm --runtime $R -v $N:/data $I sh -c 'echo kept >/data/f'; $D run --rm --runtime $R -v $N:/data:ro $I sh -c 'exec 2>&1; cat /data/f; touch /data/g'; $D volume rm $N";
    bind_mounts: "mkdir -p $N.d; echo x >$N.d/f; $D run --rm --runtime $R --mount type=bind,src=$PWD/$N.d,dst=/mnt,readonly $I sh -c 'exec 2>&1; cat /mnt/f; touch /mnt/g'";
    // Masked files have the flags of the /dev/null that is bound on them: the container's with newer runcs, the host's with us.
    mount_table: "$D run --rm --runtime $R $I sh -c 'cut -d\" \" -f5,6 /proc/self/mountinfo | grep -v -e /proc/kcore -e /proc/keys -e /proc/timer_list -e /proc/interrupts -e \"cgroup r[ow]\" | sort'";
    environment: "$D run --rm --runtime $R -e A=1 -e B --hostname h $I env | sort; $D run --rm --runtime $R --hostname h --domainname d.org $I hostname";
    workdir: "$D run --rm --runtime $R -w /new/folder $I pwd";
    entrypoint: "$D run --rm --runtime $R --entrypoint echo $I word";
    ulimits: "$D run --rm --runtime $R --ulimit nofile=123:456 --ulimit core=0 $I sh -c 'ulimit -Sn; ulimit -Hn; ulimit -c'";
    sysctls: "$D run --rm --runtime $R --sysctl net.ipv4.ip_forward=0 --sysctl kernel.msgmax=9999 $I cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax";
    limits: "$D run --rm --runtime $R --memory 64m --cpus 0.5 --cpu-shares 512 --cpuset-cpus 0 --pids-limit 50 $I sh -c 'grep Cpus_allowed_list /proc/self/status; cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu/cpu.shares /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.max /sys/fs/cgroup/pids.max 2>/dev/null'";
    blkio: "$D run --rm --runtime $R --device-read-bps /dev/vda:1mb --device-write-iops /dev/vda:100 $I sh -c 'cat /sys/fs/cgroup/blkio/blkio.throttle.read_bps_device /sys/fs/cgroup/blkio/blkio.throttle.write_iops_device /sys/fs/cgroup/io.max 2>/dev/null'; echo $?";
    // containerd's shim may tell of the want of memory after the exit.
    oom: "$D run --name $N --runtime $R --memory 16m --memory-swap 16m $I tail /dev/zero; echo $?; for i in $(seq 20); do $D inspect -f '{{.State.OOMKilled}}' $N | grep -q true && break; sleep 0.1; done; $D inspect -f '{{.State.OOMKilled}} {{.State.ExitCode}}' $N; $D rm $N";
    oom_score: "$D run --rm --runtime $R --oom-score-adj 500 $I cat /proc/self/oom_score_adj";
    share_pid: "$D run -d --name $N --runtime $R $I sleep 1234 >/dev/null; $D run --rm --runtime $R --pid container:$N $I sh -c 'cat /proc/1/cmdline | tr \"\\0\" \" \"'; $D rm -f $N";
    share_net_and_ipc: "$D run -d --name $N --runtime $R --ipc shareable $I sleep 1234 >/dev/null; s='readlink /proc/self/ns/net; readlink /proc/self/ns/ipc'; a=$($D exec $N sh -c \"$s\"); b=$($D run --rm --runtime $R --net container:$N --ipc container:$N $I sh -c \"$s\"); [ \"$a\" ] && [ \"$a\" = \"$b\" ] && echo shared; $D rm -f $N";
    host_namespaces: "$D run --rm --runtime $R --net host --pid host --ipc host --uts host $I sh -c 'for n in net pid ipc uts; do readlink /proc/self/ns/$n; done'";
    no_network: "$D run --rm --runtime $R --net none $I ip -o link | wc -l";
    network: "$D run -d --name $N --runtime $R $I sh -c 'mkdir /w; echo page >/w/index.html; httpd -f -h /w -p 80' >/dev/null; ip=$($D inspect -f '{{.NetworkSettings.IPAddress}}' $N); for i in $(seq 30); do $D run --rm --runtime $R $I wget -qO- -T 2 http://$ip/ && break; done; $D rm -f $N";
    healthcheck: "$D run -d --name $N --runtime $R --health-cmd 'test -e /tmp/ok' --health-interval 1s $I sh -c 'touch /tmp/ok; sleep 1000' >/dev/null; for i in $(seq 100); do [ $($D inspect -f '{{.State.Health.Status}}' $N) = healthy ] && break; sleep 0.2; done; $D inspect -f '{{.State.Health.Status}}' $N; $D rm -f $N";
    privileged: "$D run --rm --runtime $R --privileged $I sh -c 'mkdir -p /mnt; mount -t tmpfs t /mnt && echo mounted; grep Seccomp: /proc/self/status'; echo $?";
    cgroup_namespace: "$D run --rm --runtime $R --cgroupns private $I cat /proc/self/cgroup | sort -t: -k2";
    cgroup_parent: "if [ -d /run/systemd/system ]; then p=hydraparent.slice; else p=/$(basename $(dirname $PWD))/parent; fi; $D run -d --name $N --cgroup-parent $p --runtime $R $I sleep 1000 >/dev/null; i=$($D inspect -f '{{.State.Pid}}' $N); cut -d: -f3 /proc/$i/cgroup | grep -o '[^/]*parent[^/]*/[^/]*' | sed 's/[0-9a-f]\\{64\\}/ID/' | sort -u; $D rm -f $N";
    shm_size: "$D run --rm --runtime $R --shm-size 8m $I sh -c 'df -k /dev/shm | tail -1 | tr -s \" \" | cut -d\" \" -f2'";
    signals_to_foreground: "$D run --name $N --runtime $R $I sh -c 'trap \"echo got; exit 6\" TERM; echo up; while :; do sleep 0.1; done' & p=$!; for i in $(seq 100); do $D logs $N 2>/dev/null | grep -q up && break; sleep 0.1; done; kill -TERM $p; wait $p; echo $?; $D rm $N";
    masked_paths: "$D run --rm --runtime $R $I sh -c 'exec 2>&1; cat /proc/kcore | wc -c; ls /proc/acpi /sys/firmware 2>/dev/null | wc -l; echo x >/proc/sysrq-trigger'";
    many_at_once: "for i in 1 2 3 4 5 6; do $D run --rm --runtime $R $I echo $i & done | sort; wait";
    create_start_rm: "$D create --name $N --runtime $R $I echo made >/dev/null; $D start -a $N; $D rm $N; $D create --name $N --runtime $R $I true >/dev/null; $D rm $N";
    rename_and_inspect: "$D run -d --name $N --runtime $R $I sleep 1000 >/dev/null; $D rename $N $N-b; $D inspect -f '{{.State.Running}}' $N-b; $D rm -f $N-b";
} } }
pub(crate) use with_cases;

with_cases!(cases);
