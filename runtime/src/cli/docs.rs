//! The man pages and completions in the repository are those of the tables: a test holds them against each other.
//!
//! `UPDATE_DOCS=1 cargo test -p runtime cli::docs` writes them anew.

use std::fs;
use std::path::{Path, PathBuf};

use clap_complete::Shell;

use super::{help, table};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The file as it should be; writes it where that is asked for.
fn check(path: &str, text: &[u8]) {
    let file = repository().join(path);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, text).unwrap();
    }
    let found = fs::read(&file).unwrap_or_default();
    assert!(found == text, "{path} is not up to date: UPDATE_DOCS=1 cargo test -p runtime cli::docs");
}

fn page(command: clap::Command, name: &str) -> Vec<u8> {
    let man = clap_mangen::Man::new(command)
        .title(name.to_uppercase())
        .section("8")
        .date("-")
        .source(format!("hydra {}", help::VERSION))
        .manual("System Administration");
    let mut text = Vec::new();
    man.render(&mut text).unwrap();
    text
}

#[test]
fn man_pages() {
    check("docs/man/runtime.8", &page(help::command(), "runtime"));
    for verb in table::VERBS {
        let name = format!("runtime-{}", verb.name);
        let command =
            help::subcommand(verb).name(&*name.clone().leak()).bin_name(format!("runtime {}", verb.name));
        check(&format!("docs/man/{name}.8"), &page(command, &name));
    }
}

#[test]
fn completions() {
    for (shell, file) in
        [(Shell::Bash, "runtime.bash"), (Shell::Zsh, "_runtime"), (Shell::Fish, "runtime.fish")]
    {
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut help::command(), "runtime", &mut text);
        check(&format!("docs/completions/{file}"), &text);
    }
}
