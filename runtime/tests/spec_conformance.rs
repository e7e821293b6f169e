//! docs/spec-conformance.md names tests that are there.

use std::fs;
use std::path::{Path, PathBuf};

fn sources(dir: &Path, all: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(dir).expect("folder").flatten() {
        let path = entry.path();
        if path.is_dir() && !path.ends_with("target") {
            sources(&path, all);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = fs::read_to_string(&path).expect("source");
            all.push((path, text));
        }
    }
}

/// Whether `name` is the end of a test's name: the function, and before it modules, which are folders and files.
fn is_a_test(name: &str, sources: &[(PathBuf, String)]) -> bool {
    let named: Vec<&str> = name.split("::").filter(|part| *part != "tests").collect();
    let Some((function, modules)) = named.split_last() else { return false };
    let lies_there = |path: &Path| {
        let path = path.with_extension("");
        let parts =
            path.iter().filter_map(|part| part.to_str()).filter(|part| !matches!(*part, "tests" | "mod"));
        parts.collect::<Vec<_>>().ends_with(modules)
    };
    sources.iter().filter(|(path, _)| lies_there(path)).any(|(_, text)| {
        let before = text.split(&format!("fn {function}(")).next().filter(|before| before.len() < text.len());
        before.is_some_and(|before| before.trim_end().ends_with("#[test]"))
    })
}

#[test]
fn every_test_named_in_the_conformance_table_exists() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let table = fs::read_to_string(top.join("docs/spec-conformance.md")).expect("docs/spec-conformance.md");
    let mut all = Vec::new();
    for part in ["runtime", "cgroup", "shim", "integration"] {
        sources(&top.join(part), &mut all);
    }
    let mut wrong = Vec::new();
    let mut count = 0;
    for row in table.lines().filter(|l| l.starts_with("| ") && !l.ends_with("| shown by |")) {
        let cell = row.trim_end_matches([' ', '|']).rsplit(" | ").next().unwrap_or_default();
        let names: Vec<&str> = cell
            .split('`')
            .skip(1)
            .step_by(2)
            .filter(|n| n.contains(['_', ':']) || is_a_test(n, &all))
            .collect();
        if names.is_empty() && !cell.starts_with("n/a: ") {
            wrong.push(format!("no test and no reason: {row}"));
        }
        wrong.extend(names.iter().filter(|n| !is_a_test(n, &all)).map(|n| format!("no such test: {n}")));
        count += names.len();
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 100, "only {count} tests are named");
}
