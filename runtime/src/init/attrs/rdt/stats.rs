//! What `events` tells of a class, in runc's names (types/events.go).

use std::fs;
use std::path::Path;

use serde::Serialize;

use super::Rdt;
use crate::error::{Context, Error, Kind, Result};

/// What the machine has, what the class may use of it, and what was counted. Parts that the machine lacks are absent.
#[derive(Debug, Default, Serialize)]
pub struct Stats {
    #[serde(skip_serializing_if = "Option::is_none")]
    l3_cache_info: Option<L3CacheInfo>,
    #[serde(skip_serializing_if = "String::is_empty")]
    l3_cache_schema_root: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    l3_cache_schema: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    mem_bw_info: Option<MemBwInfo>,
    #[serde(skip_serializing_if = "String::is_empty")]
    mem_bw_schema_root: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    mem_bw_schema: String,
    /// All lines of the class.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    schemata: Vec<String>,
    /// One for each domain of the third level's cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    mbm_stats: Option<Vec<Bandwidth>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cmt_stats: Option<Vec<Occupancy>>,
}

#[derive(Debug, Serialize)]
struct L3CacheInfo {
    #[serde(skip_serializing_if = "String::is_empty")]
    cbm_mask: String,
    #[serde(skip_serializing_if = "is_zero")]
    min_cbm_bits: u64,
    #[serde(skip_serializing_if = "is_zero")]
    num_closids: u64,
}

#[derive(Debug, Serialize)]
struct MemBwInfo {
    #[serde(skip_serializing_if = "is_zero")]
    bandwidth_gran: u64,
    #[serde(skip_serializing_if = "is_zero")]
    delay_linear: u64,
    #[serde(skip_serializing_if = "is_zero")]
    min_bandwidth: u64,
    #[serde(skip_serializing_if = "is_zero")]
    num_closids: u64,
}

#[derive(Debug, Serialize)]
struct Bandwidth {
    mbm_total_bytes: u64,
    mbm_local_bytes: u64,
}

#[derive(Debug, Serialize)]
struct Occupancy {
    llc_occupancy: u64,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// Reads it all. Without a monitoring group of its own the container has the counters of its class.
pub fn read(root: &Path, class: &Rdt) -> Result<Stats> {
    let dir = class.clos_dir(root);
    let of_root = text(&root.join("schemata"))?;
    let own = text(&dir.join("schemata"))?;
    let mut stats = Stats { schemata: own.lines().map(str::to_string).collect(), ..Stats::default() };
    let info = root.join("info/L3");
    if info.exists() {
        stats.l3_cache_info = Some(L3CacheInfo {
            cbm_mask: text(&info.join("cbm_mask"))?,
            min_cbm_bits: number(&info.join("min_cbm_bits"))?,
            num_closids: number(&info.join("num_closids"))?,
        });
        (stats.l3_cache_schema_root, stats.l3_cache_schema) = (line(&of_root, "L3"), line(&own, "L3"));
    }
    let info = root.join("info/MB");
    if info.exists() {
        stats.mem_bw_info = Some(MemBwInfo {
            bandwidth_gran: number(&info.join("bandwidth_gran"))?,
            delay_linear: number(&info.join("delay_linear"))?,
            min_bandwidth: number(&info.join("min_bandwidth"))?,
            num_closids: number(&info.join("num_closids"))?,
        });
        (stats.mem_bw_schema_root, stats.mem_bw_schema) = (line(&of_root, "MB"), line(&own, "MB"));
    }
    counters(root, &class.monitor_dir(root).unwrap_or(dir).join("mon_data"), &mut stats)?;
    Ok(stats)
}

fn counters(root: &Path, data: &Path, stats: &mut Stats) -> Result<()> {
    let features = fs::read_to_string(root.join("info/L3_MON/mon_features")).unwrap_or_default();
    let has = |feature: &str| features.lines().any(|line| line == feature);
    let count = |dir: &Path, feature: &str| if has(feature) { number(&dir.join(feature)) } else { Ok(0) };
    let bandwidth = has("mbm_total_bytes") || has("mbm_local_bytes");
    let occupancy = has("llc_occupancy");
    if !bandwidth && !occupancy {
        return Ok(());
    }
    let entries = fs::read_dir(data).with_context(|| format!("intelrdt: read {}", data.display()))?;
    let mut domains: Vec<_> = entries.flatten().map(|e| e.path()).filter(|path| path.is_dir()).collect();
    domains.sort();
    if bandwidth {
        let of = |dir: &std::path::PathBuf| {
            Ok(Bandwidth {
                mbm_total_bytes: count(dir, "mbm_total_bytes")?,
                mbm_local_bytes: count(dir, "mbm_local_bytes")?,
            })
        };
        stats.mbm_stats = Some(domains.iter().map(of).collect::<Result<_>>()?);
    }
    if occupancy {
        let of = |dir: &std::path::PathBuf| Ok(Occupancy { llc_occupancy: count(dir, "llc_occupancy")? });
        stats.cmt_stats = Some(domains.iter().map(of).collect::<Result<_>>()?);
    }
    Ok(())
}

fn text(file: &Path) -> Result<String> {
    let text = fs::read_to_string(file).with_context(|| format!("intelrdt: read {}", file.display()))?;
    Ok(text.trim().into())
}

fn number(file: &Path) -> Result<u64> {
    let text = text(file)?;
    // A counter that there is none of at the moment says `Unavailable` or `Error`.
    let wrong =
        |_| Error::new(Kind::System, format!("intelrdt: {} says {text:?}, no number", file.display()));
    text.parse().map_err(wrong)
}

/// The last line about a resource; with separate caches for code and data there are two.
fn line(schemata: &str, resource: &str) -> String {
    schemata.lines().rfind(|line| line.contains(resource)).unwrap_or_default().trim().into()
}
