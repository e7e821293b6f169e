//! `stats`: what containers use of their limits, again and again or once.

use std::time::{Duration, Instant};

use super::{find, Setting};
use crate::cli::{self, Format};
use crate::error::{Error, Kind, Result};
use crate::knobs::stats::{self, Sample};
use crate::knobs::update;

pub fn run(setting: &Setting, args: &cli::Stats) -> Result<u8> {
    let interval = args.interval.unwrap_or(Duration::from_secs(1));
    if matches!(args.format, Format::Prometheus) || (args.once && args.format == Format::Json) {
        let samples = samples(setting, &args.ids)?;
        super::print(&match args.format {
            Format::Prometheus => stats::prometheus(&samples),
            _ => json(&samples)?,
        })?;
        return Ok(0);
    }
    let mut before = samples(setting, &args.ids)?;
    let mut then = Instant::now();
    loop {
        std::thread::sleep(interval);
        let now = samples(setting, &args.ids)?;
        let seconds = then.elapsed().as_secs_f64().max(0.001);
        then = Instant::now();
        let text = match args.format {
            Format::Json => json(&now)?,
            _ => {
                let old = |id: &str| before.iter().find(|s| s.id == id).cloned();
                let pairs: Vec<_> = now.iter().map(|s| (old(&s.id), s.clone())).collect();
                // Home and clear, where somebody watches.
                let clear = if args.once { "" } else { "\x1b[H\x1b[J" };
                format!("{clear}{}", stats::table(&pairs, seconds))
            }
        };
        super::print(&text)?;
        if args.once {
            return Ok(0);
        }
        before = now;
    }
}

/// The containers that were named, or all that run.
fn samples(setting: &Setting, ids: &[String]) -> Result<Vec<Sample>> {
    let mut containers = match ids.is_empty() {
        true => find::all(setting)?,
        false => find::several(setting, ids, &[])?,
    };
    let mut samples = Vec::new();
    for container in &mut containers {
        update::finish(container);
        let pid = container.visible_pid(container.status());
        let state = &container.state;
        match &state.cgroup {
            Some(location) if pid != 0 => {
                samples.push(stats::sample(&state.id, &state.knobs, location, pid)?)
            }
            _ if ids.is_empty() => {}
            _ => return Err(Error::new(Kind::State, format!("container {} not running", state.id))),
        }
    }
    Ok(samples)
}

fn json(samples: &[Sample]) -> Result<String> {
    let text = serde_json::to_string(samples).map_err(|e| Error::new(Kind::System, e.to_string()))?;
    Ok(text + "\n")
}
