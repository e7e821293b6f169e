//! `process.oomScoreAdj`.

use std::os::fd::{AsFd, BorrowedFd};

use super::procfs;
use crate::error::{Context, Result};

/// Sets that of `pid`, from the host's side. To go below what the process was started with takes CAP_SYS_RESOURCE; who
/// hasn't it, such as a rootless runtime, keeps the value there is, with a warning.
pub fn apply(pid: i32, score: i32) -> Result<()> {
    let host = procfs::host()?;
    write(host.as_fd(), &format!("{pid}/oom_score_adj"), score)
}

/// The same of the caller.
pub fn apply_own(procfs: BorrowedFd<'_>, score: i32) -> Result<()> {
    write(procfs, "self/oom_score_adj", score)
}

fn write(host: BorrowedFd<'_>, path: &str, score: i32) -> Result<()> {
    match procfs::write(host, path, score.to_string().as_bytes()) {
        Err(e) if e.errno() == Some(libc::EACCES) => {
            let present = procfs::read(host, path)?;
            // Set by the process itself, before it hid.
            if present.trim() == score.to_string() {
                return Ok(());
            }
            if present.trim().parse::<i32>().is_ok_and(|present| present <= score) {
                return Err(e);
            }
            log::warn!("oomScoreAdj {score} takes CAP_SYS_RESOURCE: {} stays", present.trim());
            Ok(())
        }
        result => result,
    }
    .context("can't set oom_score_adj")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_another_process() {
        let mut child = std::process::Command::new("sleep").arg("10").spawn().unwrap();
        let pid = child.id() as i32;
        let score = || std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
        let raised = apply(pid, 777);
        let seen = score();
        // Back to 0 is always allowed; below it, only by privilege, and else left with a warning.
        let lowered = apply(pid, -5);
        let least = score();
        child.kill().unwrap();
        child.wait().unwrap();
        raised.unwrap();
        lowered.unwrap();
        assert_eq!(seen.trim(), "777");
        assert!(["-5", "777"].contains(&least.trim()), "{least}");
        assert!(apply(pid, 1).is_err(), "it is gone");
    }
}
