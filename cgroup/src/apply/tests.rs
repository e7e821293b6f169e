//! Transactions on a tree of ordinary files.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::*;
use crate::layout::{Mode, Version};
use crate::location::{Branch, Location};

struct Tree(PathBuf);

impl Tree {
    fn new(name: &str, files: &[(&str, &str)]) -> Tree {
        let path = std::env::temp_dir().join(format!("cgroup-apply-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        for (file, text) in files {
            fs::write(path.join(file), text).unwrap();
        }
        Tree(path)
    }

    fn cgroup(&self) -> Cgroup {
        let path = self.0.clone();
        let branch = Branch { version: Version::V2, controllers: vec![], path: path.clone(), mount: path };
        let location = Location { mode: Mode::V2, branches: vec![branch], unit: None, explicit: true };
        Cgroup::open(&location).unwrap()
    }

    fn texts(&self) -> BTreeMap<PathBuf, String> {
        let entries = fs::read_dir(&self.0).unwrap().map(|e| e.unwrap().path());
        entries.map(|p| (p.clone(), fs::read_to_string(p).unwrap().trim().to_string())).collect()
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn write(file: &'static str, value: &str) -> Write {
    Write::new("", file, value, file)
}

const FILES: [(&str, &str); 4] =
    [("memory.max", "max\n"), ("cpu.max", "max 100000\n"), ("cpu.idle", "0\n"), ("cpu.weight", "77\n")];

fn three() -> [Write; 3] {
    [write("memory.max", "4096"), write("cpu.max", "5000 10000"), write("cpu.idle", "1")]
}

#[test]
fn all_is_written_and_reported() {
    let tree = Tree::new("all", &FILES);
    let cgroup = tree.cgroup();
    let mut t = Transaction::new();
    t.writes(&cgroup, &three()).unwrap();
    let prepared = t.prepare().unwrap();
    assert_eq!(prepared.changes().next().unwrap().old, "max");
    assert_eq!(prepared.journal().len(), 4, "the weight is kept with idle");
    let report = prepared.commit().unwrap();
    assert_eq!(report[1].effective.as_deref(), Some("5000 10000"));
    assert!(report.iter().all(|c| !c.rounded()));
    assert_eq!(fs::read_to_string(tree.0.join("memory.max")).unwrap(), "4096");
}

#[test]
fn each_failing_write_leaves_all_as_it_was() {
    let tree = Tree::new("faults", &FILES);
    let cgroup = tree.cgroup();
    let before = tree.texts();
    let foreign = RefCell::new(0);
    for failing in 0..4 {
        let mut t = Transaction::new();
        t.writes(&cgroup, &three()).unwrap();
        t.pair(
            "foreign",
            || {
                *foreign.borrow_mut() += 1;
                Ok(())
            },
            || {
                *foreign.borrow_mut() = 0;
                Ok(())
            },
        );
        let mut fault = |i: usize, _: &str| match i == failing {
            true => Err(Error::new(Kind::System, "asked to fail")),
            false => Ok(()),
        };
        let e = t.prepare().unwrap().commit_with(&mut fault).unwrap_err();
        assert!(e.to_string().contains("nothing was changed"), "{e}");
        assert_eq!(tree.texts(), before, "write {failing} failed");
        assert_eq!(*foreign.borrow(), 0);
    }
}

#[test]
fn a_journal_puts_back_what_a_killed_process_left() {
    let tree = Tree::new("journal", &FILES);
    let cgroup = tree.cgroup();
    let before = tree.texts();
    let mut t = Transaction::new();
    t.writes(&cgroup, &three()).unwrap();
    let prepared = t.prepare().unwrap();
    let journal = serde_json::to_string(&prepared.journal()).unwrap();
    fs::write(tree.0.join("memory.max"), "4096").unwrap();
    fs::write(tree.0.join("cpu.weight"), "0").unwrap();
    recover(&serde_json::from_str::<Vec<Undo>>(&journal).unwrap()).unwrap();
    assert_eq!(tree.texts(), before);
}

#[test]
fn a_missing_file_is_named_before_anything_is_written() {
    let tree = Tree::new("missing", &FILES);
    let cgroup = tree.cgroup();
    let mut t = Transaction::new();
    t.writes(&cgroup, &[write("memory.max", "1"), write("memory.none", "1")]).unwrap();
    let e = t.run().unwrap_err();
    assert_eq!(e.kind(), Kind::Unsupported);
    assert!(e.to_string().contains("memory.none"), "{e}");
    assert_eq!(fs::read_to_string(Path::new(&tree.0).join("memory.max")).unwrap(), "max\n");
    let mut t = Transaction::new();
    t.writes(&cgroup, &[write("memory.swap.max", "0").optional(true)]).unwrap();
    assert_eq!(t.run().unwrap(), []);
}

/// What a file holds now is no reason to pass a write over that comes after another to the same file.
#[test]
fn the_later_of_two_writes_holds() {
    let tree = Tree::new("later", &FILES);
    let cgroup = tree.cgroup();
    let mut t = Transaction::new();
    t.writes(&cgroup, &[write("memory.max", "4096"), write("memory.max", "max")]).unwrap();
    t.run().unwrap();
    assert_eq!(fs::read_to_string(tree.0.join("memory.max")).unwrap().trim(), "max");
}

/// A journal may hold what the kernel doesn't take: undoing that which was never done is no failure.
#[test]
fn what_is_in_force_needs_no_undoing() {
    // Nobody can write to this file.
    let undo =
        |line: &str| Undo::File { dir: "/proc/self".into(), file: "personality".into(), line: line.into() };
    let present = fs::read_to_string("/proc/self/personality").unwrap();
    recover(&[undo(present.trim())]).unwrap();
    assert!(recover(&[undo("another")]).is_err());
}
