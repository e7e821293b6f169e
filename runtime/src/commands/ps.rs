//! `ps`: the container's processes, by their pids on the host.

use std::process::{Command, Stdio};

use cgroup::Cgroup;

use super::{print, Setting};
use crate::cli::Format;
use crate::error::{Context, Error, Kind, Result};
use crate::state::Container;

pub fn run(setting: &Setting, id: &str, format: Format, args: &[String]) -> Result<u8> {
    let container = setting.load(id)?;
    let pids = match &container.state.cgroup {
        Some(location) => Cgroup::open(location).and_then(|c| c.procs()).context("ps")?,
        None => without_cgroup(&container),
    };
    if format == Format::Json {
        return print(&json(&pids)).map(|()| 0);
    }
    let args = if args.is_empty() { vec!["-ef".to_string()] } else { args.to_vec() };
    let output = Command::new("ps").args(&args).stdin(Stdio::null()).output().context("running ps(1)")?;
    if !output.status.success() {
        let text = [output.stdout, output.stderr].concat();
        return Err(Error::new(
            Kind::System,
            format!("{}: {}", output.status, String::from_utf8_lossy(&text)),
        ));
    }
    print(&select(&String::from_utf8_lossy(&output.stdout), &pids)?)?;
    Ok(0)
}

/// The container's processes where no cgroup holds them: all of its pid namespace; if that is somebody else's, its first process and
/// what descends from it.
pub fn without_cgroup(container: &Container) -> Vec<i32> {
    let Some(init) = container.state.init.filter(|init| crate::state::is_alive(*init)) else {
        return Vec::new();
    };
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids: Vec<i32> = entries.filter_map(|e| e.file_name().to_str()?.parse().ok()).collect();
    let namespace = |pid: i32| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let mut found = vec![init.pid];
    match namespace(init.pid).filter(|_| !container.state.shares_pid_namespace) {
        Some(own) => {
            found.extend(pids.into_iter().filter(|p| *p != init.pid && namespace(*p).as_ref() == Some(&own)))
        }
        None => {
            let parents: Vec<(i32, i32)> =
                pids.into_iter().filter_map(|p| Some((p, crate::state::parent(p)?))).collect();
            let mut next = 0;
            while next < found.len() {
                found.extend(
                    parents
                        .iter()
                        .filter(|(_, parent)| *parent == found[next])
                        .map(|(p, _)| *p)
                        .collect::<Vec<_>>(),
                );
                next += 1;
            }
        }
    }
    found
}

/// An array of numbers and nothing else; Go's `null` for none.
fn json(pids: &[i32]) -> String {
    match pids {
        [] => "null\n".into(),
        _ => format!("{pids:?}\n").replace(' ', ""),
    }
}

/// The heading and the lines whose PID column has one of `pids`.
fn select(output: &str, pids: &[i32]) -> Result<String> {
    let mut lines = output.lines();
    let head = lines.next().unwrap_or_default();
    let column = head
        .split_whitespace()
        .position(|title| title == "PID")
        .ok_or_else(|| Error::invalid("couldn't find PID field in ps output"))?;
    let mut text = format!("{head}\n");
    for line in lines.filter(|l| !l.trim().is_empty()) {
        let field = line.split_whitespace().nth(column).unwrap_or_default();
        let pid: i32 =
            field.parse().map_err(|_| Error::invalid(format!("unable to parse pid: {field:?}")))?;
        if pids.contains(&pid) {
            text.push_str(line);
            text.push('\n');
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_containers_processes() {
        let output = "UID        PID  PPID CMD\nroot         1     0 init\nroot        42     1 sh 7\n\n";
        assert_eq!(
            select(output, &[42, 7]).unwrap(),
            "UID        PID  PPID CMD\nroot        42     1 sh 7\n"
        );
        assert!(select("UID CMD\n", &[1]).is_err());
        assert_eq!(json(&[1, 22]), "[1,22]\n");
        assert_eq!(json(&[]), "null\n");
    }
}
