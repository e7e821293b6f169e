//! CSV in, medians and Markdown out.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// A result file: rows as maps from column to text.
pub struct Csv(Vec<BTreeMap<String, String>>);

/// A measured number and the rows it is from.
pub type Cells = BTreeMap<(String, String), f64>;

impl Csv {
    /// Empty if there is no such file.
    pub fn read(path: &Path) -> Csv {
        let text = fs::read_to_string(path).unwrap_or_default();
        let mut lines = text.lines();
        let head: Vec<&str> = lines.next().unwrap_or_default().split(',').collect();
        let row = |line: &str| {
            head.iter().zip(line.split(',')).map(|(h, v)| (h.to_string(), v.to_string())).collect()
        };
        Csv(lines.map(row).collect())
    }

    /// The medians of a column by method and by another column, of the rows with these values.
    pub fn cells(&self, filter: &[(&str, &str)], by: &str, column: &str) -> Cells {
        let mut found: BTreeMap<(String, String), Vec<f64>> = BTreeMap::new();
        for row in &self.0 {
            let fits = filter.iter().all(|(name, value)| row.get(*name).is_some_and(|v| v == value));
            let number = row.get(column).and_then(|v| v.parse::<f64>().ok()).filter(|n| !n.is_nan());
            if let (true, Some(n), Some(method), Some(key)) = (fits, number, row.get("method"), row.get(by)) {
                // What the machine does differs from round to round.
                let key = if key.starts_with("max") { "max" } else { key };
                found.entry((method.clone(), key.to_string())).or_default().push(n);
            }
        }
        found.into_iter().map(|(key, mut all)| (key, median(&mut all))).collect()
    }

    /// The medians of a column by one other.
    pub fn medians(&self, by: &str, column: &str) -> BTreeMap<String, f64> {
        let mut found: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for row in &self.0 {
            if let (Some(key), Some(Ok(n))) = (row.get(by), row.get(column).map(|v| v.parse())) {
                found.entry(key.clone()).or_default().push(n);
            }
        }
        found.into_iter().map(|(key, mut all)| (key, median(&mut all))).collect()
    }
}

fn median(all: &mut [f64]) -> f64 {
    all.sort_by(f64::total_cmp);
    let middle = all.len() / 2;
    match all.len() % 2 {
        0 => (all[middle - 1] + all[middle]) / 2.0,
        _ => all[middle],
    }
}

/// A table: methods down, keys across. Nothing is printed where nothing was measured.
pub fn markdown(title: &str, cells: &Cells, methods: &[&str], keys: &[&str], show: impl Fn(f64) -> String) {
    let keys: Vec<&&str> = keys.iter().filter(|k| cells.keys().any(|(_, have)| have == **k)).collect();
    if keys.is_empty() {
        return;
    }
    println!("| {title} | {} |", keys.iter().map(|k| **k).collect::<Vec<_>>().join(" | "));
    println!("|---|{}", "---|".repeat(keys.len()));
    for method in methods {
        let cell = |key: &&&str| {
            cells.get(&(method.to_string(), (**key).to_string())).map_or("-".into(), |n| show(*n))
        };
        let row: Vec<String> = keys.iter().map(cell).collect();
        if row.iter().any(|c| c != "-") {
            let name = if method.starts_with("hydra") { format!("**{method}**") } else { method.to_string() };
            println!("| {name} | {} |", row.join(" | "));
        }
    }
    println!();
}
