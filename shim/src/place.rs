//! Where a monitor keeps its things.
//!
//! `/run/hydra-shim/NAMESPACE/ID/` (0700): `state` (the map), `ID.sock`, FIFOs, files of jobs, `exit.json`, `events`.
//! `/var/lib/hydra-shim/NAMESPACE/ID/`: rings and spools of output, on disk.
//! Without privileges over the host, as under Docker's rootless kit, both are among the user's own things.

use crate::error::{Context, Error, Kind, Result};
use crate::state::Setup;
use nix::errno::Errno;
use nix::unistd::{access, AccessFlags};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// containerd's own rule for identifiers: names of namespaces, monitors and processes become names of files here.
pub fn check_name(name: &str) -> Result<()> {
    let fine = |b: u8| b.is_ascii_alphanumeric() || b"_.-+".contains(&b);
    match name.as_bytes() {
        [first, ..] if name.len() <= 256 && first.is_ascii_alphanumeric() && name.bytes().all(fine) => Ok(()),
        _ => {
            let text = format!("identifier {name:?} is not valid: it has to be letters, digits and _ . - +, the first a letter or digit");
            Err(Error::new(Kind::Invalid, text))
        }
    }
}

pub fn run_dir(namespace: &str, id: &str) -> PathBuf {
    run().join(namespace).join(id)
}

pub fn disk_dir(namespace: &str, id: &str) -> PathBuf {
    disk().join(namespace).join(id)
}

/// The directory of all monitors. Root of a user namespace may not write where the host's root does (`runtime` goes by the same rule).
pub fn run() -> PathBuf {
    or_the_users("/run", || set("XDG_RUNTIME_DIR"))
}

fn disk() -> PathBuf {
    or_the_users("/var/lib", || set("XDG_DATA_HOME").or_else(|| Some(set("HOME")?.join(".local/share"))))
}

/// By the XDG Base Directory Specification paths that are not absolute are none.
fn set(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute())
}

fn or_the_users(hosts: &str, users: impl FnOnce() -> Option<PathBuf>) -> PathBuf {
    let denied = |path: &Path| access(path, AccessFlags::W_OK) == Err(Errno::EACCES);
    let [usual, above] = [Path::new(hosts).join("hydra-shim"), PathBuf::from(hosts)];
    match denied(&usual) || (!usual.exists() && denied(&above)) {
        true => users().map_or(usual, |own| own.join("hydra-shim")),
        false => usual,
    }
}

pub fn make(path: &Path) -> Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .context(|| format!("making {}", path.display()))
}

/// The monitor's own socket.
pub fn socket(setup: &Setup) -> PathBuf {
    socket_in(Path::new(&setup.directory), &setup.id)
}

/// `ID.sock`, where the path is not too long for a socket.
pub fn socket_in(directory: &Path, id: &str) -> PathBuf {
    short(directory.join(format!("{id}.sock")), "sock")
}

/// What the files of a process begin with. A monitor of several containers has names for each.
pub fn name(setup: &Setup, task: &str, exec: &str) -> String {
    let own = if task == setup.id { String::new() } else { format!("{task}.") };
    match exec {
        "" => format!("{own}init"),
        exec => format!("{own}exec-{exec}"),
    }
}

/// Path of the socket through which the runtime hands over a terminal.
pub fn console_socket(setup: &Setup, task: &str, exec: &str) -> PathBuf {
    short(Path::new(&setup.directory).join(format!("{}.tty", name(setup, task, exec))), "tty")
}

/// A path that is longer than a socket's name may be gets a short one in its place.
fn short(path: PathBuf, kind: &str) -> PathBuf {
    match path.as_os_str().len() < 100 {
        true => path,
        false => {
            let hash = crate::sha256::hex(path.as_os_str().as_encoded_bytes());
            run().join(format!("{}.{kind}", &hash[..40]))
        }
    }
}

/// Sockets with a short path lie beside the monitors' directories, and stay there when all of a monitor was killed: those that
/// nobody listens on go. One that was just made may be about to be listened on.
pub fn sweep() {
    for entry in std::fs::read_dir(run()).into_iter().flatten().flatten() {
        let old = |m: std::fs::Metadata| m.modified().ok()?.elapsed().ok();
        let refused = || std::os::unix::net::UnixStream::connect(entry.path()).map_err(|e| e.kind());
        if entry.file_type().is_ok_and(|t| std::os::unix::fs::FileTypeExt::is_socket(&t))
            && entry.metadata().ok().and_then(old).is_some_and(|age| age.as_secs() > 10)
            && matches!(refused(), Err(std::io::ErrorKind::ConnectionRefused))
        {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

pub fn state_file(directory: &Path) -> PathBuf {
    directory.join("state")
}

/// The container is deleted: its files go, the monitor's stay until it ends.
pub fn forget(setup: &Setup, task: &str) {
    let disk = Path::new(&setup.disk);
    for n in 1..3 {
        for kind in ["ring", "spool"] {
            let _ = std::fs::remove_file(disk.join(format!("{task}.{n}.{kind}")));
        }
    }
    let _ = std::fs::remove_file(Path::new(&setup.directory).join(format!("{task}.shared-pids")));
    // Where it never came to an end: what was reserved for its record.
    let _ = std::fs::remove_file(crate::record::path(setup, task, "").with_extension("tmp"));
}

fn remove_sockets(setup: &Setup) {
    if let Some(path) = setup.address.strip_prefix("unix://") {
        let _ = std::fs::remove_file(path);
    }
    let _ = std::fs::remove_file(socket(setup));
}

/// Removes the monitor's files, but for the records that are wanted. The directory goes with the last of them.
fn remove_files(setup: &Setup, wanted: impl Fn(&Path) -> bool) -> std::io::Result<()> {
    for entry in std::fs::read_dir(&setup.directory).into_iter().flatten().flatten() {
        let record = entry.file_name().to_string_lossy().ends_with("exit.json");
        if !(record && wanted(&entry.path())) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
    std::fs::remove_dir(&setup.directory)
}

/// Removes all that a monitor kept.
pub fn discard(setup: &Setup) {
    remove_sockets(setup);
    let _ = std::fs::remove_dir_all(&setup.directory);
    let _ = std::fs::remove_dir_all(&setup.disk);
}

/// Removes all that a dead monitor left, but for the records of what ended because it had.
pub fn discard_lost(setup: &Setup) {
    remove_sockets(setup);
    let _ =
        remove_files(setup, |path| crate::record::read(path).is_ok_and(|r| r.reason == crate::record::LOST));
    let _ = std::fs::remove_dir_all(&setup.disk);
}

/// The monitor ends. A standalone container's exit record and output stay for whoever asks later.
pub fn remove(setup: &Setup) {
    if !setup.standalone || setup.remove {
        return discard(setup);
    }
    remove_sockets(setup);
    // Without a record nothing ever ran.
    if remove_files(setup, |_| true).is_ok() {
        let _ = std::fs::remove_dir_all(&setup.disk);
    }
}
