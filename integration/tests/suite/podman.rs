//! Podman with the program under test as its runtime, compared with runc: what a user sees must be the same.

use integration::{bundle, host, janitor, Out, Run};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// A store of the tests' own with the image `box` in it, or why there is none.
fn store() -> Result<&'static Path, &'static str> {
    static STORE: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    STORE.get_or_init(make_store).as_ref().map(PathBuf::as_path).map_err(String::as_str)
}

fn make_store() -> Result<PathBuf, String> {
    if Run::sh("command -v podman runc").out().code != 0 {
        return Err("podman is not installed".into());
    }
    let dir = janitor::scratch().join("podman");
    std::fs::create_dir_all(&dir).map_err(|e| e.to_string())?;
    configure(&dir).map_err(|e| e.to_string())?;
    janitor::at_end(&format!("{} rm --all --force --time 0", podman(&dir, "runc")));
    let image =
        format!("tar -C {} -c . | {} import - box", bundle::template().display(), podman(&dir, "runc"));
    match Run::sh(&image).patient(3).out() {
        out if out.code == 0 => Ok(dir),
        out => Err(format!("podman can't import an image here: {}", out.stderr.trim())),
    }
}

/// Podman's own default raises limits, which root may not everywhere.
pub fn configure(dir: &Path) -> std::io::Result<()> {
    let limits = "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=4096:4096\"]\n";
    std::fs::write(dir.join("containers.conf"), limits)
}

/// The start of every command line.
fn podman(dir: &Path, runtime: &str) -> String {
    let manager = if host::systemd_driver() { "systemd" } else { "cgroupfs" };
    let d = dir.display();
    format!(
        "env CONTAINERS_CONF={d}/containers.conf podman --root {d}/root --runroot {d}/run --tmpdir {d}/tmp --cgroup-manager {manager} --events-backend file \
         --runtime {runtime}"
    )
}

/// A script in which `$P` is podman with the runtime chosen, `$N` a name for containers.
#[track_caller]
fn script(dir: &Path, script: &str, runtime: &str, name: &str) -> Out {
    Run::new("bash")
        .args(["-c", &format!("P='{}'; N={name}; {script}", podman(dir, runtime))])
        .dir(dir)
        .patient(3)
        .out()
}

#[track_caller]
fn like_runc(name: &str, text: &str) {
    let dir = match store() {
        Ok(dir) => dir,
        Err(reason) => integration::skip!("{reason}"),
    };
    let program = std::fs::canonicalize(host::runtime()).unwrap();
    let ours = script(dir, text, program.to_str().unwrap(), &format!("{name}-tested"));
    let theirs = script(dir, text, "runc", &format!("{name}-runc"));
    let plain =
        |s: &str| s.replace(&format!("{name}-tested"), "NAME").replace(&format!("{name}-runc"), "NAME");
    assert_eq!(plain(&ours.stdout), plain(&theirs.stdout), "with {text}\n  ours: {ours}\n  runc: {theirs}");
    assert_eq!(ours.code, theirs.code, "with {text}\n  ours: {ours}\n  runc: {theirs}");
    assert!(!ours.stdout.is_empty(), "the case shows nothing: {text}: {ours}");
}

macro_rules! cases {
    ($($name:ident: $script:expr;)*) => { $(#[test] fn $name() { like_runc(concat!("pod-", stringify!($name)), $script); })* };
}

// Of 512 shares runc made a weight of 20 before its version 1.4, and of 59 since, as crun and we do.
cases! {
    run: "$P run --rm --network none box echo hello; echo $?; $P run --rm --network none box sh -c 'exit 7'; echo $?";
    unknown_program: "$P run --rm --network none box nothing >/dev/null 2>&1; echo $?; $P run --rm --network none box /etc/passwd >/dev/null 2>&1; echo $?";
    exec: "$P run -d --name $N --network none box sleep 1000 >/dev/null; $P exec $N echo in; $P exec -u 1000 -w /tmp -e A=b $N sh -c 'id -u; pwd; echo $A; exit 5'; echo $?; $P rm -f -t 0 $N";
    stop: "$P run -d --name $N --network none box sh -c 'trap \"exit 3\" TERM; while :; do sleep 0.1; done' >/dev/null; sleep 1; $P stop $N; $P inspect -f '{{.State.ExitCode}} {{.State.Status}}' $N; $P rm $N";
    pause: "$P run -d --name $N --network none box sleep 1000 >/dev/null; $P pause $N >/dev/null; $P inspect -f '{{.State.Status}}' $N; $P unpause $N >/dev/null; $P exec $N echo back; $P rm -f -t 0 $N";
    limits: "$P run --rm --network none --memory 64m --cpus 0.5 --cpu-shares 512 --cpuset-cpus 0 --pids-limit 50 box sh -c 'grep Cpus_allowed_list /proc/self/status; cd /sys/fs/cgroup; cat memory.max cpu.max pids.max 2>/dev/null; case $(cat cpu.weight 2>/dev/null) in 20|59) echo weight;; esac; cat memory/memory.limit_in_bytes pids/pids.max 2>/dev/null; true'";
    update: "$P run -d --name $N --network none --memory 64m box sleep 1000 >/dev/null; $P update --memory 128m --cpus 0.5 $N >/dev/null; echo $?; $P exec $N sh -c 'cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.max'; $P rm -f -t 0 $N";
    user: "$P run --rm --network none --user 1000:2000 box id; $P run --rm --network none --user user --group-add 7 box id";
    userns: "$P run --rm --network none --uidmap 0:100000:65536 --gidmap 0:100000:65536 box sh -c 'id -u; cat /proc/self/uid_map | tr -s \" \"; touch /made && stat -c %u /made'";
    capabilities: "for f in '' '--cap-add SYS_TIME' '--cap-drop ALL' '--privileged'; do $P run --rm --network none $f box grep Cap /proc/self/status; done";
    read_only: "$P run --rm --network none --read-only box sh -c 'exec 2>&1; touch /x; touch /tmp/x && echo tmp'";
    volumes: "mkdir -p $N.d; echo x >$N.d/f; $P run --rm --network none -v $PWD/$N.d:/mnt:ro box sh -c 'exec 2>&1; cat /mnt/f; touch /mnt/g'; $P run --rm --network none -v $N:/data box sh -c 'echo kept >/data/f; cat /data/f'; $P volume rm $N";
    devices: "$P run --rm --network none --device /dev/null:/dev/mine:rw box stat -c '%t:%T %a' /dev/mine; $P run --rm --network none box ls /dev | sort";
    ulimits_and_sysctls: "$P run --rm --network none --ulimit nofile=123:456 --ulimit nproc=789:1000 --sysctl kernel.msgmax=9999 box sh -c 'ulimit -Sn; ulimit -Hn; ulimit -Su; cat /proc/sys/kernel/msgmax'";
    seccomp: "$P run --rm --network none box sh -c 'exec 2>&1; grep Seccomp: /proc/self/status; unshare -m true; echo $?'";
    mount_table: "$P run --rm --network none box sh -c 'cut -d\" \" -f5,6 /proc/self/mountinfo | grep -v -e \"cgroup r[ow]\" -e /etc/ -e /run/.containerenv -e /proc/kcore -e /proc/keys -e /proc/timer_list | sort'";
    top: "$P run -d --name $N --network none box sleep 1000 >/dev/null; $P top $N comm; $P rm -f -t 0 $N";
    stats: "$P run -d --name $N --network none --memory 64m box sleep 1000 >/dev/null; $P stats --no-stream --format '{{.PIDs}}' $N; $P rm -f -t 0 $N";
    pod: "$P pod create --name $N-pod --network none --infra=false >/dev/null; $P run --rm --pod $N-pod box echo member; echo $?; $P pod rm -f -t 0 $N-pod >/dev/null; echo $?";
    create_start_wait: "$P create --name $N --network none box sh -c 'echo made; exit 4' >/dev/null; $P start -a $N; echo $?; $P wait $N; $P rm $N";
    restart: "$P run -d --name $N --network none box sleep 1000 >/dev/null; $P restart -t 0 $N; $P inspect -f '{{.State.Status}}' $N; $P rm -f -t 0 $N";
    kill: "$P run -d --name $N --network none box sleep 1000 >/dev/null; $P kill $N >/dev/null; $P wait $N; $P rm $N";
    cgroup_parent: "case $P in *cgroupfs*) p=/$(basename $(dirname $PWD))/parent;; *) p=hydraparent.slice;; esac; $P run -d --name $N --network none --cgroup-parent $p box sleep 1000 >/dev/null; i=$($P inspect -f '{{.State.Pid}}' $N); cut -d: -f3 /proc/$i/cgroup | grep -o '[^/]*parent[^/]*/[^/]*' | sed 's/[0-9a-f]\\{64\\}/ID/' | sort -u; $P rm -f -t 0 $N";
    init: "$P run --rm --network none --init box cat /proc/1/comm 2>&1 | head -1";
}

/// A user who may use 65,536 ids besides his own, as useradd makes him, with a home of his own and the image in his store; or why there is none.
fn plain_user() -> Result<&'static (String, PathBuf), &'static str> {
    static USER: OnceLock<Result<(String, PathBuf), String>> = OnceLock::new();
    USER.get_or_init(make_user).as_ref().map_err(String::as_str)
}

fn make_user() -> Result<(String, PathBuf), String> {
    if Run::sh("command -v podman runc newuidmap useradd").out().code != 0 {
        return Err("podman or uidmap is not installed".into());
    }
    let name = format!("hydra{}", std::process::id());
    let home = PathBuf::from("/var/tmp").join(&name);
    configure(janitor::scratch()).map_err(|e| e.to_string())?;
    janitor::at_end(&format!(
        "pkill -KILL -u {name}; for i in $(seq 50); do userdel -r {name} 2>/dev/null && break; sleep 0.1; done; rm -rf {}",
        home.display()
    ));
    let d = home.display();
    let made = Run::sh(&format!(
        "useradd --create-home --home-dir {d} {name} && grep -q ^{name}: /etc/subuid && mkdir -m 700 {d}/run && cp {} {d}/ && tar -C {} -cf {d}/box.tar . && chown -R {name}: {d}",
        janitor::scratch().join("containers.conf").display(),
        bundle::template().display()
    ));
    match made.out() {
        out if out.code == 0 => {}
        out => return Err(format!("a user with subordinate ids can't be made here: {}", out.stderr.trim())),
    }
    let import = as_user(
        &name,
        &home,
        "runc",
        "",
        "$P import box.tar box >/dev/null && $P run --rm --network none box true",
    );
    match import.code {
        0 => Ok((name, home)),
        _ => Err(format!("podman runs nothing for a plain user here: {}", import.stderr.trim())),
    }
}

/// A script of that user, in which `$P` is podman with the runtime chosen, `$N` a name for containers.
#[track_caller]
fn as_user(user: &str, home: &Path, runtime: &str, name: &str, script: &str) -> Out {
    let d = home.display();
    let start = format!(
        "cd; export XDG_RUNTIME_DIR={d}/run CONTAINERS_CONF={d}/containers.conf; N={name}; \
         P='podman --root {d}/root --runroot {d}/run/store --storage-driver vfs --cgroup-manager cgroupfs --events-backend file --runtime {runtime}'; {script}"
    );
    Run::new("su").args(["-", user, "-c", &start]).patient(3).out()
}

/// Podman without privileges: root of a user namespace that Podman made, whose state is where the user may write.
#[test]
fn a_plain_user_sees_what_he_sees_with_runc() {
    let (user, home) = match plain_user() {
        Ok(user) => user,
        Err(reason) => integration::skip!("{reason}"),
    };
    // The user can't reach where the tests' programs are built.
    let program = home.join("runtime");
    std::fs::copy(std::fs::canonicalize(host::runtime()).unwrap(), &program).unwrap();
    let script = "$P run --rm --network none box sh -c 'id -u; tr -s \" \" </proc/self/uid_map; exit 7'; echo $?; \
         $P run -d --name $N --network none box sleep 1000 >/dev/null; $P exec $N echo in; $P exec -u 1000 $N id -u; $P top $N comm; $P kill $N; $P wait $N; $P rm $N; \
         $P run --rm --network none --user 1000:1000 box id; $P run --rm --network none --userns keep-id box id -u; \
         $P run --rm --network none --read-only --tmpfs /x box sh -c 'touch /y 2>/dev/null; touch /x/y && echo x'; \
         $P run --rm --network host box grep -c lo: /proc/net/dev; $P run --rm --network none --privileged box grep Cap /proc/self/status; \
         mkdir -p $N.d; $P run --rm --network none -v ./$N.d:/d box sh -c 'echo kept >/d/f'; cat $N.d/f; stat -c %U $N.d/f; \
         $P run --rm --network none --device /dev/null:/dev/mine box ls -l /dev/mine | cut -c1-10";
    let [ours, theirs] = [(program.to_str().unwrap(), "tested"), ("runc", "theirs")]
        .map(|(runtime, name)| as_user(user, home, runtime, name, script));
    assert_eq!(ours.stdout.replace("tested", "theirs"), theirs.stdout, "  ours: {ours}\n  runc: {theirs}");
    assert!(theirs.stdout.contains("kept"), "{theirs}");
}
