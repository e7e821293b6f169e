//! `shim`: a container's monitor that can't be killed off. See docs/monitor.md.

mod adopt;
mod api;
mod client;
mod conn;
mod containerd;
mod error;
mod flags;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod heads;
mod job;
mod logger;
mod machine;
mod memory;
mod pb;
mod place;
mod record;
mod rootfs;
mod sha256;
mod start;
mod state;
mod stream;
#[allow(unsafe_code)]
mod sys;
mod ttrpc;
mod worker;

/// Exit code where nobody knows what was asked for; `runtime` tells it from a failure.
const NOT_FOUND: i32 = 4;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let result = match args.first().map(String::as_str) {
        Some("monitor") => start::monitor(),
        Some("layout") => {
            println!("{}", sys::map::VERSION);
            Ok(0)
        }
        Some(
            "run" | "attach" | "logs" | "wait" | "pause" | "resume" | "forget" | "adopt" | "watch"
            | "upgrade" | "list",
        ) => client::run(&args),
        _ => flags::parse(&args).and_then(|flags| containerd::run(&flags)).map(|()| 0),
    };
    match result {
        Ok(code) => std::process::exit(code),
        Err(e) => {
            eprintln!("shim: {e}");
            std::process::exit(if e.kind() == error::Kind::NotFound { NOT_FOUND } else { 1 });
        }
    }
}
