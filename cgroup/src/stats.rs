//! What a cgroup has used. A file that the kernel lacks reads as zero.

pub mod v1;
pub mod v2;

use std::collections::BTreeMap;
use std::str::SplitWhitespace;

use serde::Serialize;

use crate::cgroup::Cgroup;
use crate::dir::Dir;
use crate::layout::Mode;

/// Statistics in the terms of the host's version of cgroups.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "version", rename_all = "lowercase")]
pub enum Stats {
    V1(Box<v1::Stats>),
    V2(Box<v2::Stats>),
}

/// A limit that was not set.
pub const UNLIMITED: u64 = u64::MAX;

/// Tasks: present and allowed (`UNLIMITED` if not limited).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Pids {
    pub current: u64,
    pub limit: u64,
}

/// Huge pages of one size, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct HugePages {
    pub usage: u64,
    /// v1: the highest usage there was; v2: the limit.
    pub max: u64,
    /// How often the limit was hit.
    pub failcnt: u64,
}

/// RDMA objects of one device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Rdma {
    pub device: String,
    pub handles: u64,
    pub objects: u64,
}

/// The share of time in which some or all tasks waited for a resource.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Pressure {
    pub some: PressureLine,
    pub full: PressureLine,
}

/// Averages in per cent over so many seconds, total in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct PressureLine {
    pub avg10: f64,
    pub avg60: f64,
    pub avg300: f64,
    pub total: u64,
}

/// Pressure by resource. Also there on hybrid hosts, from the second hierarchy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Pressures {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Pressure>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Pressure>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub io: Option<Pressure>,
}

impl Cgroup {
    /// Everything the kernel counts for this cgroup.
    pub fn stats(&self) -> Stats {
        match self.location.mode {
            Mode::V2 => Stats::V2(Box::new(v2::read(self))),
            Mode::V1 | Mode::Hybrid => Stats::V1(Box::new(v1::read(self))),
        }
    }

    pub fn pressure(&self) -> Pressures {
        let read =
            |file| self.unified().and_then(|dir| dir.peek(file)).and_then(|text| parse_pressure(&text));
        Pressures { cpu: read("cpu.pressure"), memory: read("memory.pressure"), io: read("io.pressure") }
    }
}

pub(crate) fn parse_pressure(text: &str) -> Option<Pressure> {
    let mut found = Pressure::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let target = match words.next()? {
            "some" => &mut found.some,
            "full" => &mut found.full,
            _ => continue,
        };
        for (key, value) in words.filter_map(|w| w.split_once('=')) {
            match key {
                "avg10" => target.avg10 = value.parse().ok()?,
                "avg60" => target.avg60 = value.parse().ok()?,
                "avg300" => target.avg300 = value.parse().ok()?,
                "total" => target.total = value.parse().ok()?,
                _ => {}
            }
        }
    }
    (!text.is_empty()).then_some(found)
}

/// One number; `max` and v1's rounded infinity are `UNLIMITED`.
fn number(dir: Option<&Dir>, file: &str) -> u64 {
    let text = dir.and_then(|d| d.peek(file)).unwrap_or_default();
    let text = text.trim();
    match text {
        "max" | "-1" => UNLIMITED,
        _ => text.parse().unwrap_or(0),
    }
}

fn signed(dir: Option<&Dir>, file: &str) -> Option<i64> {
    dir?.peek(file)?.trim().parse().ok()
}

/// A file of `key value` lines.
fn table(dir: Option<&Dir>, file: &str) -> BTreeMap<String, u64> {
    parse_table(&dir.and_then(|d| d.peek(file)).unwrap_or_default())
}

fn parse_table(text: &str) -> BTreeMap<String, u64> {
    let pair = |line: &str| {
        let (key, value) = line.split_once(char::is_whitespace)?;
        Some((key.to_string(), value.trim().parse().ok()?))
    };
    text.lines().filter_map(pair).collect()
}

/// `8:0` as numbers.
fn device(words: &mut SplitWhitespace<'_>) -> Option<(u64, u64)> {
    let (major, minor) = words.next()?.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// `mlx4_0 hca_handle=2 hca_object=max`
fn rdma(dir: Option<&Dir>, file: &str) -> Vec<Rdma> {
    let text = dir.and_then(|d| d.peek(file)).unwrap_or_default();
    let line = |line: &str| {
        let (device, rest) = line.split_once(' ')?;
        let value = |key: &str| {
            let found = rest.split_whitespace().find_map(|w| w.strip_prefix(key)?.strip_prefix('='))?;
            Some(if found == "max" { UNLIMITED } else { found.parse().ok()? })
        };
        let (handles, objects) = (value("hca_handle")?, value("hca_object")?);
        Some(Rdma { device: device.to_string(), handles, objects })
    };
    text.lines().filter_map(line).collect()
}

/// Page sizes that the kernel has a hugetlb file for: `2MB`.
fn page_sizes(dir: &Dir, suffix: &str) -> Vec<String> {
    let entries = std::fs::read_dir(dir.path()).into_iter().flatten().flatten();
    let size = |name: &str| {
        let middle = name.strip_prefix("hugetlb.")?.strip_suffix(suffix)?;
        (!middle.contains('.')).then(|| middle.to_string())
    };
    entries.filter_map(|e| size(e.file_name().to_str()?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_is_read() {
        let text = "some avg10=1.50 avg60=0.25 avg300=0.00 total=123\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
        let p = parse_pressure(text).unwrap();
        assert_eq!((p.some.avg10, p.some.avg60, p.some.total, p.full.total), (1.5, 0.25, 123, 7));
        assert_eq!(parse_pressure(""), None);
    }

    #[test]
    fn tables_are_read() {
        let t = parse_table("anon 4096\nbad\nfile 1\n");
        assert_eq!((t["anon"], t["file"], t.len()), (4096, 1, 2));
    }
}
