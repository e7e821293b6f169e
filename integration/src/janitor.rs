//! Cleans up behind a test program, however that ends: a shell that waits for the end of a pipe which only the test
//! program holds open, and then removes all that carries the test program's name.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock};

struct Janitor {
    scratch: PathBuf,
    _shell: Child,
    /// Lines of shell sent here are run at the end, last first.
    wishes: Mutex<ChildStdin>,
}

const SWEEP: &str = r#"
trap '' INT TERM HUP
wishes=()
while IFS= read -r line; do wishes=("$line" "${wishes[@]}"); done
for wish in "${wishes[@]}"; do eval "$wish"; done
for dir in "$SCRATCH"/roots/*/*/; do
  [ -d "$dir" ] && timeout 30 "$RUNTIME" --root "$(dirname "$dir")" delete --force "$(basename "$dir")"
done
# Anywhere: a container without an absolute path gets its cgroup below that of the test program itself.
find /sys/fs/cgroup -type d -name "$NAME" -prune | while IFS= read -r dir; do
  for round in 1 2 3 4 5; do
    find "$dir" -name cgroup.procs -exec cat {} + | xargs -r kill -KILL
    find "$dir" -depth -type d -exec rmdir {} +
    [ -d "$dir" ] || break
    sleep 0.2
  done
done
awk -v d="$SCRATCH/" 'index($5, d) == 1 { print $5 }' /proc/self/mountinfo | tac | while read -r m; do umount -l "$m"; done
rm -rf --one-file-system "$SCRATCH"
"#;

fn janitor() -> &'static Janitor {
    static JANITOR: OnceLock<Janitor> = OnceLock::new();
    JANITOR.get_or_init(|| {
        assert!(nix::unistd::geteuid().is_root(), "these tests need root");
        let base = std::env::var("TMPDIR").unwrap_or_else(|_| "/tmp".into());
        let scratch = Path::new(&base).join(name());
        std::fs::create_dir_all(scratch.join("roots")).expect("scratch folder");
        let mut shell = Command::new("setsid")
            .args(["bash", "-c", SWEEP])
            .env("SCRATCH", &scratch)
            .env("NAME", name())
            .env("RUNTIME", crate::host::runtime())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the janitor's shell");
        let wishes = Mutex::new(shell.stdin.take().expect("stdin"));
        Janitor { scratch, _shell: shell, wishes }
    })
}

/// The name that everything this test program makes carries.
pub fn name() -> String {
    name_of(std::process::id())
}

fn name_of(pid: u32) -> String {
    format!("hydra-test-{pid}")
}

/// Waits until the janitor of another test program, which has ended, has done its work.
pub fn until_swept(pid: u32) {
    let theirs = scratch().with_file_name(name_of(pid));
    for _ in 0..3000 {
        if !theirs.exists() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

/// A folder for everything, gone at the end.
pub fn scratch() -> &'static Path {
    &janitor().scratch
}

/// Has a line of shell run at the end.
pub fn at_end(line: &str) {
    let mut pipe = janitor().wishes.lock().expect("janitor");
    writeln!(pipe, "{}", line.replace('\n', " ; ")).expect("janitor");
}
