//! `make demo`: containers run by `runtime` under a Docker that is started for the purpose, explained in plain words.
//! Where no Docker can run, `runtime` alone runs a container from a bundle.

use integration::engine::{engine, Engine};
use integration::{host, Container};
use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("The demo starts containers, and needs root for it.");
        return ExitCode::FAILURE;
    }
    say("Hydra's demo. `runtime` is a program that turns a folder and a list of wishes into a running container.");
    say("Docker can use it in place of the one it comes with (runc). Nothing of yours is touched: a Docker of its own is");
    say("started here, with its own folder, socket and bridge, and taken away again at the end.");
    let version = integration::Run::new(host::runtime()).args(["--version"]).ok();
    show("runtime --version", &version.stdout);
    let shown = match engine() {
        Ok(engine) => with_docker(engine),
        Err(reason) => {
            say(&format!("Docker can't run on this machine ({reason}), so `runtime` is shown without it."));
            alone()
        }
    };
    match shown {
        Ok(()) => {
            say("That was it. All that was made is being removed now. `make test` shows the rest, `make bench` the speed.");
            ExitCode::SUCCESS
        }
        Err(what) => {
            eprintln!("The demo failed: {what}");
            ExitCode::FAILURE
        }
    }
}

fn say(text: &str) {
    println!("{text}");
}

fn show(command: &str, output: &str) {
    println!("\n    $ {command}");
    for line in output.trim_end().lines() {
        println!("    {line}");
    }
    println!();
}

/// Runs a docker command line, shows it, and fails unless its output holds `expected`.
fn docker(engine: &Engine, line: &str, expected: &str) -> Result<String, String> {
    let out = engine.script(&format!("docker {line}"), "tested", "demo");
    show(
        &format!("docker {line}"),
        &format!("{}{}", out.stdout, if out.code == 0 { "" } else { &out.stderr }),
    );
    if !out.stdout.contains(expected) {
        return Err(format!("docker {line}: expected {expected:?}, got {out}"));
    }
    Ok(out.stdout)
}

fn with_docker(engine: &Engine) -> Result<(), String> {
    say("A private Docker is up. It knows our program by the name \"tested\", and runc by its own; the image \"box\" was");
    say("made a second ago from Debian's busybox. A first container, asked what it sees of the world:");
    docker(
        engine,
        "run --rm --runtime tested --hostname box box sh -c 'echo I am $(hostname), process $$; ps'",
        "I am box, process 1",
    )?;
    say("Its first process is number 1 and sees no other process of this machine. Now one that stays, with limits:");
    docker(engine, "run --detach --name web --runtime tested --memory 64m --pids-limit 20 box sh -c 'trap \"echo bye; exit 3\" TERM; echo serving; while :; do sleep 0.1; done'", "")?;
    let state = "inspect --format 'runtime {{.HostConfig.Runtime}}, {{.State.Status}}, memory {{.HostConfig.Memory}}' web";
    docker(engine, state, "runtime tested, running")?;
    say("A second process enters it, with the same limits and the same view:");
    docker(engine, "exec web sh -c 'echo inside $(hostname | wc -c) letters deep; exit 0'", "inside")?;
    say("It can be frozen and thawed, its memory limit can be changed while it runs:");
    docker(engine, "pause web", "web")?;
    docker(engine, "unpause web", "web")?;
    docker(engine, "update --memory 96m --memory-swap 192m web", "web")?;
    say("Stopping sends SIGTERM, the container says good-bye, and its exit status comes back to Docker untouched:");
    docker(engine, "stop web", "web")?;
    docker(engine, "logs web", "bye")?;
    docker(engine, "inspect --format 'exit status {{.State.ExitCode}}' web", "exit status 3")?;
    docker(engine, "rm web", "web")?;
    say("How long `runtime` alone takes for a whole container, from nothing to gone:");
    alone()
}

/// Without an engine: a bundle, and `runtime run`.
fn alone() -> Result<(), String> {
    let c = Container::sh("demo", "echo hello from $(hostname)");
    let mut fastest = f64::MAX;
    let mut text = String::new();
    for _ in 0..10 {
        let start = Instant::now();
        let out = c.run();
        fastest = fastest.min(start.elapsed().as_secs_f64() * 1e3);
        if out.code != 0 {
            return Err(out.to_string());
        }
        text = out.stdout;
    }
    show("runtime run --bundle BUNDLE demo", &text);
    say(&format!("The fastest of ten took {fastest:.1} ms.\n"));
    Ok(())
}
