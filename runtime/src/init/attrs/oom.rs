//! `process.oomScoreAdj`.

use std::os::fd::AsFd;

use super::procfs;
use crate::error::{Context, Result};

/// Sets that of `pid`, from the host's side. To go below what the process was started with takes CAP_SYS_RESOURCE; who
/// hasn't it, such as a rootless runtime, keeps the value there is, with a warning.
pub fn apply(pid: i32, score: i32) -> Result<()> {
    let host = procfs::host()?;
    let path = format!("{pid}/oom_score_adj");
    match procfs::write(host.as_fd(), &path, score.to_string().as_bytes()) {
        Err(e) if e.errno() == Some(libc::EACCES) => {
            let present = procfs::read(host.as_fd(), &path)?;
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
