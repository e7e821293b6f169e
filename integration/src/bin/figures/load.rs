//! Real loads on the servers, from their own clients: redis-benchmark, memcslap, wrk, pgbench, mysqlslap. They run on the
//! host, in a chroot of the servers' image (its `client`), so that what a client costs is the same with every stack.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Servers for which Debian has a load generator.
pub const LOADED: [&str; 6] = ["redis", "memcached", "nginx", "postgresql", "mariadb", "tomcat"];

fn client(rootfs: &Path, server: &str, address: &str, seconds: u32, connections: u32) -> Command {
    let mut command = Command::new("chroot");
    command
        .arg(rootfs)
        .args(["client", server, address])
        .args([seconds.to_string(), connections.to_string()]);
    command.env("PATH", "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    command.stdin(Stdio::null()).stderr(Stdio::null());
    command
}

/// Requests per second over some seconds with 16 connections.
pub fn rate(rootfs: &Path, server: &str, address: &str, seconds: u32) -> Option<f64> {
    let out = client(rootfs, server, address, seconds, 16).output().ok()?;
    String::from_utf8_lossy(&out.stdout).trim().parse().ok()
}

/// A load of one connection after another, until it is dropped. Nice, since it shall not keep the daemons from the
/// processors.
pub struct Load(Child);

impl Load {
    pub fn start(rootfs: &Path, server: &str, address: &str) -> Option<Load> {
        if !LOADED.contains(&server) {
            return None;
        }
        let one = client(rootfs, server, address, 2, 1);
        let words: Vec<PathBuf> = one.get_args().map(PathBuf::from).collect();
        let mut shell = Command::new("nice");
        shell
            .args(["-n", "10", "sh", "-c", "while :; do chroot \"$@\" || sleep 0.1; done", "load"])
            .args(words);
        shell.env("PATH", "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        shell.spawn().ok().map(Load)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let group = nix::unistd::Pid::from_raw(self.0.id() as i32);
        let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
        let _ = self.0.wait();
    }
}
