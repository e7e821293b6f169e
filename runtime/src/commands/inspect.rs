//! `inspect`: each knob, what was asked, by whom, and what the kernel says.

use super::{find, Setting};
use crate::error::{Error, Kind, Result};
use crate::knobs::{helper, inspect, update};

pub fn run(setting: &Setting, ids: &[String], json: bool) -> Result<u8> {
    let mut all = Vec::new();
    let mut text = String::new();
    for id in ids {
        let mut container = find::one(setting, id)?;
        let lock = container.lock(super::LOCK_DEADLINE)?;
        update::recover(container.path(), &container.state.knobs)?;
        let status = container.status();
        let pid = container.visible_pid(status);
        if pid != 0 {
            // What holds is to be seen all the same.
            if let Err(e) = helper::ensure(container.path(), &container.state.knobs) {
                log::warn!("container {}: {e}", container.state.id);
            }
        }
        drop(lock);
        let state = &container.state;
        let rows = match &state.cgroup {
            Some(location) => inspect::rows(&state.knobs, location, pid)?,
            None => Vec::new(),
        };
        let class = state.knobs.layers.class_name();
        if json {
            all.push(serde_json::json!({
                "id": state.id, "class": class, "status": status.as_str(), "pid": pid, "knobs": rows,
                "root": container.path().parent(),
            }));
        } else {
            let class = class.map_or(String::new(), |name| format!(", class {name}"));
            text += &format!("{} ({status}{class})\n{}", state.id, inspect::table(&rows));
        }
    }
    if json {
        text = serde_json::to_string(&all).map_err(|e| Error::new(Kind::System, e.to_string()))? + "\n";
    }
    super::print(&text)?;
    Ok(0)
}
