//! Help texts, drawn by clap from the tables. This is off the path of every other command.

use super::grammar::{Arity, Flag, Takes, Verb};
use super::table;
use crate::knobs;
use clap::{Arg, ArgAction, Command};

/// The version of this program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A raw file of the container's cgroup, as a knob; it has no row in the table of knobs.
pub const CGROUP_FILE: &str = "cgroup-file";

/// The help of one verb, or of the program.
pub fn help(verb: Option<&str>) -> String {
    let mut command = match verb.and_then(table::find) {
        Some(verb) => subcommand(verb).bin_name(format!("runtime {}", verb.name)),
        None => command(),
    };
    command.render_help().to_string()
}

/// The whole tree, for the help, the man pages and the completions.
pub fn command() -> Command {
    Command::new("runtime")
        .about(table::ABOUT)
        .version(VERSION)
        .disable_version_flag(true)
        .disable_help_subcommand(true)
        .subcommand_required(true)
        .args(table::GLOBAL.iter().map(arg))
        .subcommands(table::VERBS.iter().map(subcommand))
}

pub fn subcommand(verb: &'static Verb) -> Command {
    let knobs = knob_args(verb);
    let mut command = Command::new(verb.name)
        .about(verb.about)
        .after_help(verb.long)
        .override_usage(format!("runtime {} [options] {}", verb.name, verb.args).trim_end().to_string())
        .args(verb.flags().map(arg))
        .args(knobs);
    if !verb.args.is_empty() {
        let many = !matches!(verb.arity, Arity::Exactly(1));
        command = command.arg(
            Arg::new("ARGS").value_name("container-id").num_args(1..=if many { 9 } else { 1 }).hide(true),
        );
    }
    command
}

/// The knob flags, those left out that the verb has as its own.
fn knob_args(verb: &'static Verb) -> Vec<Arg> {
    if !verb.knobs {
        return Vec::new();
    }
    let arg = |name: String, value: String, help: &'static str| {
        Arg::new(name.clone()).long(name).value_name(value).help(help).help_heading("Knobs")
    };
    let file = arg(CGROUP_FILE.into(), "FILE=VALUE".into(), "write VALUE to FILE of the container's cgroup");
    knobs::flags()
        .filter(|knob| !verb.flags().any(|own| own.long == knob.name))
        .map(|knob| arg(knob.name, knob.value, knob.help))
        .chain([file])
        .collect()
}

fn arg(flag: &'static Flag) -> Arg {
    let arg = Arg::new(flag.long).help(flag.help).hide(flag.hidden);
    let arg = match flag.long.len() {
        1 => arg.short(flag.long.chars().next()),
        _ => arg.long(flag.long),
    };
    let arg = match flag.short {
        Some(short) => arg.short(short),
        None => arg,
    };
    match flag.takes {
        Takes::Nothing => arg.action(ArgAction::SetTrue),
        Takes::Value(name) => arg.value_name(name).action(ArgAction::Set),
        Takes::Values(name) => arg.value_name(name).action(ArgAction::Append),
    }
}

/// What `--version` prints. Callers read it line by line: just one line may have the word "version".
pub fn version() -> String {
    // dockerd shows it; set by the build.
    let commit = option_env!("HYDRA_COMMIT").unwrap_or("unknown");
    format!("runtime version {VERSION}\ncommit: {commit}\nspec: 1.3.0\n")
}
