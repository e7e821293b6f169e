//! What was measured: one CSV a figure, raw, and a list of the blocks that are done, so that a run can be taken up again.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

pub struct Rows {
    pub dir: PathBuf,
    done: BTreeSet<String>,
}

/// Rows of one block, written when the block is done.
pub struct Sheet {
    pub file: &'static str,
    pub header: &'static str,
    pub lines: Vec<String>,
}

impl Sheet {
    pub fn new(file: &'static str, header: &'static str) -> Sheet {
        Sheet { file, header, lines: Vec::new() }
    }

    pub fn add(&mut self, fields: &[&dyn std::fmt::Display]) {
        self.lines.push(fields.iter().map(|f| f.to_string()).collect::<Vec<_>>().join(","));
    }
}

impl Rows {
    pub fn open(dir: &Path) -> Rows {
        fs::create_dir_all(dir).expect("folder for the data");
        let done = fs::read_to_string(dir.join("blocks.done")).unwrap_or_default();
        Rows { dir: dir.to_path_buf(), done: done.lines().map(str::to_string).collect() }
    }

    pub fn is_done(&self, block: &str) -> bool {
        self.done.contains(block)
    }

    /// Rows first, then the mark: a block cut short is measured again as a whole.
    pub fn save(&mut self, block: &str, sheets: Vec<Sheet>) {
        for sheet in sheets {
            let path = self.dir.join(sheet.file);
            let new = !path.exists();
            let mut file = fs::File::options().append(true).create(true).open(&path).expect("data file");
            let mut text = if new { format!("{}\n", sheet.header) } else { String::new() };
            sheet.lines.iter().for_each(|l| text.extend([l.as_str(), "\n"]));
            file.write_all(text.as_bytes()).expect("data file");
        }
        let mut file =
            fs::File::options().append(true).create(true).open(self.dir.join("blocks.done")).expect("marks");
        writeln!(file, "{block}").expect("marks");
        self.mark(block);
    }

    /// Another process of ours has saved it.
    pub fn mark(&mut self, block: &str) {
        self.done.insert(block.to_string());
    }
}

/// A CSV file read back: rows of fields by column name.
pub struct Table {
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn read(path: &Path) -> Option<Table> {
        let text = fs::read_to_string(path).ok()?;
        let mut lines = text.lines();
        let split = |l: &str| l.split(',').map(str::to_string).collect::<Vec<_>>();
        let columns = split(lines.next()?);
        Some(Table { rows: lines.map(split).collect(), columns })
    }

    fn column(&self, name: &str) -> usize {
        self.columns.iter().position(|c| c == name).unwrap_or_else(|| panic!("no column {name}"))
    }

    /// The different values of a column, in the order of their first appearance.
    pub fn values(&self, column: &str) -> Vec<String> {
        let at = self.column(column);
        let mut seen = Vec::new();
        for row in &self.rows {
            if !seen.contains(&row[at]) {
                seen.push(row[at].clone());
            }
        }
        seen
    }

    /// The different combinations of values of some columns, in the order of their first appearance.
    pub fn combinations(&self, columns: &[&str]) -> Vec<Vec<String>> {
        let at: Vec<usize> = columns.iter().map(|c| self.column(c)).collect();
        let mut seen = Vec::new();
        for row in &self.rows {
            let one: Vec<String> = at.iter().map(|c| row[*c].clone()).collect();
            if !seen.contains(&one) {
                seen.push(one);
            }
        }
        seen
    }

    /// The numbers in `column` of the rows in which each named column has the given value.
    pub fn numbers(&self, column: &str, wanted: &[(&str, &str)]) -> Vec<f64> {
        let at = self.column(column);
        let wanted: Vec<_> = wanted.iter().map(|(c, v)| (self.column(c), *v)).collect();
        let fits = |row: &&Vec<String>| wanted.iter().all(|(c, v)| row[*c] == *v);
        self.rows.iter().filter(fits).filter_map(|row| row[at].parse().ok()).collect()
    }
}

/// The value below which the given part (0 to 1) of the numbers lies; between two of them if need be.
pub fn quantile(numbers: &[f64], part: f64) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let place = last as f64 * part;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    below + (above - below) * place.fract()
}

pub fn median(numbers: &[f64]) -> f64 {
    quantile(numbers, 0.5)
}
