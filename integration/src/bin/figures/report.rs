//! From the raw rows to plots and one page of tables.

use crate::draw::{Bars, Lines, Spread};
use crate::rows::{median, quantile, Table};
use std::fmt::Write;
use std::fs;
use std::path::Path;

pub fn write(data: &Path, out: &Path, about: &str) {
    fs::create_dir_all(out).expect("folder for the figures");
    let mut page = format!("# Tables\n\n{about}\n");
    restore(data, out, &mut page);
    outage(data, out, &mut page);
    launch(data, out, &mut page);
    scale(data, out, &mut page);
    limits(data, out, &mut page);
    micro(data, out, &mut page);
    fs::write(out.join("tables.md"), page).expect("tables.md");
}

fn finish(drawn: Result<(), Box<dyn std::error::Error>>) {
    if let Err(e) = drawn {
        println!("a plot could not be drawn: {e}");
    }
}

/// One row a stack, one column a group: the median, with the quartiles in brackets.
fn table(
    page: &mut String,
    title: &str,
    corner: &str,
    groups: &[String],
    series: &[(String, Vec<Option<Spread>>)],
) {
    let _ = write!(page, "\n## {title}\n\n| {corner} |");
    groups.iter().for_each(|g| _ = write!(page, " {g} |"));
    let _ = writeln!(page, "\n|{}", "---|".repeat(groups.len() + 1));
    for (name, values) in series {
        let _ = write!(page, "| {name} |");
        for value in values {
            let _ = match value {
                Some(v) => write!(page, " {} ({} to {}) |", round(v.middle), round(v.low), round(v.high)),
                None => write!(page, " |"),
            };
        }
        page.push('\n');
    }
}

/// Three significant digits.
fn round(number: f64) -> String {
    match number.abs() {
        n if n >= 100.0 => format!("{number:.0}"),
        n if n >= 10.0 => format!("{number:.1}"),
        _ => format!("{number:.2}"),
    }
}

/// The series of a table: for each value of `by`, the spread in each group.
fn series(
    table: &Table,
    by: &str,
    group: &str,
    groups: &[String],
    also: &[(&str, &str)],
    number: &str,
) -> Vec<(String, Vec<Option<Spread>>)> {
    let one = |name: &String| {
        let spread = |g: &String| {
            let mut wanted = vec![(by, name.as_str()), (group, g.as_str())];
            wanted.extend_from_slice(also);
            Spread::of(&table.numbers(number, &wanted))
        };
        (name.clone(), groups.iter().map(spread).collect())
    };
    let mut names = table.values(by);
    names.sort();
    names.iter().map(one).collect()
}

fn restore(data: &Path, out: &Path, page: &mut String) {
    let whats = [
        ("restore-daemon", "4a: from the restart after kill -9 to a daemon that answers", "ms"),
        ("restore-container", "4b: from the restart to each container in the daemon's hands again", "ms"),
    ];
    for (name, title, unit) in whats {
        let Some(rows) = Table::read(&data.join(format!("{name}.csv"))) else { continue };
        let groups = rows.values("containers");
        let labels: Vec<String> = groups.iter().map(|g| format!("{g} containers")).collect();
        let series = series(&rows, "stack", "containers", &groups, &[], "ms");
        table(page, &format!("{title}, ms"), "stack", &labels, &series);
        finish(
            Bars { title, unit, groups: labels, series, logarithmic: false }
                .draw(&out.join(format!("{name}.svg"))),
        );
    }
}

fn outage(data: &Path, out: &Path, page: &mut String) {
    let Some(rows) = Table::read(&data.join("outage.csv")) else { return };
    let groups = rows.values("server");
    for (event, title) in [
        ("crash", "4c: longest time without an answer when both daemons are killed and restarted"),
        ("upgrade", "4c: longest time without an answer during an upgrade of daemons and monitors"),
    ] {
        let series = series(&rows, "stack", "server", &groups, &[("event", event)], "ms");
        table(page, &format!("{title}, ms"), "stack", &groups, &series);
        let bars =
            Bars { title, unit: "ms (logarithmic)", groups: groups.clone(), series, logarithmic: true };
        finish(bars.draw(&out.join(format!("outage-{event}.svg"))));
    }
}

fn launch(data: &Path, out: &Path, page: &mut String) {
    let Some(rows) = Table::read(&data.join("launch.csv")) else { return };
    let groups = rows.values("server");
    let series = series(&rows, "stack", "server", &groups, &[], "ms");
    let title = "Table 1: from docker run to the first answered request";
    table(page, &format!("{title}, ms"), "stack", &groups, &series);
    overheads(page, &rows, &groups);
    let bars = Bars { title, unit: "ms (logarithmic)", groups, series, logarithmic: true };
    finish(bars.draw(&out.join("launch.svg")));
}

/// What each stack takes more or less than Docker with containerd's shim and runc.
fn overheads(page: &mut String, rows: &Table, groups: &[String]) {
    let _ = writeln!(page, "\nMedians against runc with containerd's shim (negative is faster):\n");
    let _ = writeln!(page, "| stack | {} |\n|{}", groups.join(" | "), "---|".repeat(groups.len() + 1));
    for stack in rows.values("stack") {
        let _ = write!(page, "| {stack} |");
        for group in groups {
            let of = |s: &str| median(&rows.numbers("ms", &[("stack", s), ("server", group)]));
            let (own, base) = (of(&stack), of("runc"));
            let _ = write!(page, " {:+.0} ms ({:+.1} %) |", own - base, (own - base) / base * 100.0);
        }
        page.push('\n');
    }
}

fn scale(data: &Path, out: &Path, page: &mut String) {
    if let Some(rows) = Table::read(&data.join("scale-launch.csv")) {
        for server in rows.values("server") {
            let name = if server == "redis" { "5a" } else { "5b" };
            let title = format!("{name}: docker run with n {server} containers running");
            let groups = rows.values("containers");
            let series = series(&rows, "stack", "containers", &groups, &[("server", &server)], "ms");
            table(page, &format!("{title}, ms"), "stack", &groups, &series);
            let lines = as_lines(&groups, &series);
            let plot = Lines {
                title: &title,
                across: "containers running",
                unit: "ms",
                series: lines,
                first_is_asked: false,
            };
            finish(plot.draw(&out.join(format!("scale-{server}.svg"))));
        }
    }
    let Some(rows) = Table::read(&data.join("scale-memory.csv")) else { return };
    let groups = rows.values("containers");
    for (column, file, title) in [
        ("monitor_rss", "memory-monitors-rss", "5c: resident memory of all monitors"),
        ("monitor_private", "memory-monitors-private", "5c: private dirty memory of all monitors"),
        ("daemon_rss", "memory-daemons-rss", "5c: resident memory of dockerd and containerd"),
    ] {
        let mut all = series(&rows, "stack", "containers", &groups, &[("server", "redis")], column);
        all.iter_mut().flat_map(|s| s.1.iter_mut().flatten()).for_each(|v| {
            *v = Spread { low: v.low / 1e6, middle: v.middle / 1e6, high: v.high / 1e6 };
        });
        table(page, &format!("{title}, MB"), "stack", &groups, &all);
        let lines = as_lines(&groups, &all);
        let plot = Lines {
            title,
            across: "redis containers running",
            unit: "MB",
            series: lines,
            first_is_asked: false,
        };
        finish(plot.draw(&out.join(format!("{file}.svg"))));
    }
}

type Points = Vec<(f64, Spread)>;

fn as_lines(groups: &[String], series: &[(String, Vec<Option<Spread>>)]) -> Vec<(String, Points)> {
    let line = |(name, values): &(String, Vec<Option<Spread>>)| {
        let points = groups.iter().zip(values).filter_map(|(g, v)| Some((g.parse().ok()?, (*v)?)));
        (name.clone(), points.collect())
    };
    series.iter().map(line).collect()
}

fn limits(data: &Path, out: &Path, page: &mut String) {
    let Some(rows) = Table::read(&data.join("limits.csv")) else { return };
    let _ = writeln!(page, "\n## Limits changed while a container runs\n\n| limit | asked | achieved, median (5 % to 95 %) |\n|---|---|---|");
    for kind in rows.values("kind") {
        for asked in rows.values("asked") {
            let got = rows.numbers("achieved", &[("kind", &kind), ("asked", &asked)]);
            if !got.is_empty() {
                let (low, high) = (quantile(&got, 0.05), quantile(&got, 0.95));
                let _ = writeln!(
                    page,
                    "| {kind} | {asked} | {} ({} to {}) |",
                    round(median(&got)),
                    round(low),
                    round(high)
                );
            }
        }
        let first = rows.values("pass").first().cloned().unwrap_or_default();
        let wanted = [("kind", kind.as_str()), ("pass", first.as_str())];
        let times = rows.numbers("second", &wanted);
        let line = |column: &str| -> Points {
            let values = rows.numbers(column, &wanted);
            let point = |(t, v): (&f64, f64)| (*t, Spread { low: v, middle: v, high: v });
            times.iter().zip(values).map(point).collect()
        };
        let asked = steps(&line("asked"));
        let series = vec![("asked".to_string(), asked), ("achieved".to_string(), line("achieved"))];
        let title = format!("A running container's {kind}: asked for by runtime update, and achieved");
        let plot = Lines { title: &title, across: "seconds", unit: &kind, series, first_is_asked: true };
        let file = kind.split(' ').next().unwrap_or_default();
        finish(plot.draw(&out.join(format!("limits-{file}.svg"))));
    }
}

/// A change lies at one moment, not between two looks.
fn steps(points: &[(f64, Spread)]) -> Points {
    let mut steps: Points = points.first().map(|p| (0.0, p.1)).into_iter().collect();
    for pair in points.windows(2) {
        steps.extend([(pair[0].0, pair[0].1), (pair[0].0, pair[1].1)]);
    }
    steps.extend(points.last());
    steps
}

fn micro(data: &Path, out: &Path, page: &mut String) {
    let Some(rows) = Table::read(&data.join("micro.csv")) else { return };
    let groups = rows.values("what");
    let series = series(&rows, "program", "what", &groups, &[], "ms");
    let title = "The runtimes alone";
    table(page, &format!("{title}, ms"), "program", &groups, &series);
    finish(Bars { title, unit: "ms", groups, series, logarithmic: false }.draw(&out.join("micro.svg")));
}
