//! From the raw rows to plots and one page of tables.

use crate::draw::{rank, Bars, Course, Lines, Spread};
use crate::rows::{median, quantile, Table};
use std::fmt::Write;
use std::fs;
use std::path::Path;

pub fn write(data: &Path, out: &Path, about: &str) {
    fs::create_dir_all(out).expect("folder for the figures");
    let mut page = format!("# Tables\n\n{about}\n");
    restore(data, out, &mut page);
    outage(data, out, &mut page);
    throughput(data, out, &mut page);
    launch(data, out, &mut page);
    scale(data, out, &mut page);
    limits(data, out, &mut page);
    micro(data, out, &mut page);
    repeated(data, &mut page);
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
    let counts = || series.iter().flat_map(|s| s.1.iter().flatten().map(|v| v.count));
    let (fewest, most) = (counts().min().unwrap_or(0), counts().max().unwrap_or(0));
    let many = if fewest == most { format!("{most}") } else { format!("{fewest} to {most}") };
    let _ = write!(page, "\n## {title}\n\nMedian (quartiles) of {many} values.\n\n| {corner} |");
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
    names.sort_by_key(|n| rank(n));
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
        let labels: Vec<String> =
            groups.iter().map(|g| format!("{g} container{}", if g == "1" { "" } else { "s" })).collect();
        let series = series(&rows, "stack", "containers", &groups, &[], "ms");
        table(page, &format!("{title}, ms"), "stack", &labels, &series);
        finish(
            Bars { title, unit: &format!("{unit} (logarithmic)"), groups: labels, series, logarithmic: true }
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
        for stack in rows.values("stack") {
            for server in &groups {
                let wanted = [("stack", stack.as_str()), ("server", server), ("event", event), ("back", "0")];
                let lost = rows.numbers("ms", &wanted);
                if !lost.is_empty() {
                    let watched = lost.iter().copied().fold(f64::INFINITY, f64::min);
                    let _ = writeln!(
                        page,
                        "\n{stack}, {server}: {} time(s) not back within the {} s that were watched; counted as that long.",
                        lost.len(),
                        round(watched / 1e3)
                    );
                }
            }
        }
        let bars =
            Bars { title, unit: "ms (logarithmic)", groups: groups.clone(), series, logarithmic: true };
        finish(bars.draw(&out.join(format!("outage-{event}.svg"))));
    }
}

fn throughput(data: &Path, out: &Path, page: &mut String) {
    let Some(rows) = Table::read(&data.join("throughput.csv")) else { return };
    let groups = rows.values("server");
    let mut series = series(&rows, "stack", "server", &groups, &[], "per_second");
    let title = "Throughput of the servers' own clients";
    table(page, &format!("{title}, requests/s"), "stack", &groups, &series);
    for (n, group) in groups.iter().enumerate() {
        let base = median(&rows.numbers("per_second", &[("stack", "runc"), ("server", group)]));
        for value in series.iter_mut().filter_map(|s| s.1[n].as_mut()) {
            *value = value.map(|v| v / base * 100.0);
        }
    }
    let title = format!("{title}, as part of runc's");
    let bars = Bars { title: &title, unit: "%", groups, series, logarithmic: false };
    finish(bars.draw(&out.join("throughput.svg")));
}

fn launch(data: &Path, out: &Path, page: &mut String) {
    let Some(rows) = Table::read(&data.join("launch.csv")) else { return };
    let groups = rows.values("server");
    let mut series = series(&rows, "stack", "server", &groups, &[], "ms");
    let title = "Table 1: from docker run to the first answered request";
    table(page, &format!("{title}, ms"), "stack", &groups, &series);
    let bars = Bars {
        title,
        unit: "ms (logarithmic)",
        groups: groups.clone(),
        series: series.clone(),
        logarithmic: true,
    };
    finish(bars.draw(&out.join("launch.svg")));
    overheads(page, &groups, &mut series);
    series.retain(|(stack, _)| !["no container", "Hydra standalone", "runc"].contains(&stack.as_str()));
    let title = "Table 1: from docker run to the first answer, more (+) or less (-) than with runc";
    let bars = Bars { title, unit: "ms", groups, series, logarithmic: false };
    finish(bars.draw(&out.join("launch-overhead.svg")));
}

/// What each stack takes more or less than Docker with containerd's shim and runc: written, and left in `series`.
fn overheads(page: &mut String, groups: &[String], series: &mut [(String, Vec<Option<Spread>>)]) {
    let Some(base) = series.iter().find(|s| s.0 == "runc").map(|s| s.1.clone()) else { return };
    let _ = writeln!(page, "\nMedians against runc with containerd's shim (negative is faster):\n");
    let _ = writeln!(page, "| stack | {} |\n|{}", groups.join(" | "), "---|".repeat(groups.len() + 1));
    for (stack, values) in series {
        let _ = write!(page, "| {stack} |");
        for (value, base) in values.iter_mut().zip(&base) {
            if let (Some(v), Some(base)) = (value.as_mut(), base) {
                let base = base.middle;
                *v = v.map(|ms| ms - base);
                let _ = write!(page, " {:+.0} ms ({:+.1} %) |", v.middle, v.middle / base * 100.0);
            } else {
                page.push_str(" |");
            }
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
            let plot = Lines { title: &title, across: "containers running", unit: "ms", series: lines };
            finish(plot.draw(&out.join(format!("scale-{server}.svg"))));
        }
    }
    if let Some(rows) = Table::read(&data.join("scale-parts.csv")) {
        for server in rows.values("server") {
            for part in rows.values("part") {
                let groups = rows.values("containers");
                let wanted = [("server", server.as_str()), ("part", part.as_str())];
                let series = series(&rows, "stack", "containers", &groups, &wanted, "ms");
                let title = format!("docker {part} with n {server} containers running, ms");
                table(page, &title, "stack", &groups, &series);
            }
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
            *v = v.map(|bytes| bytes / 1e6);
        });
        table(page, &format!("{title}, MB"), "stack", &groups, &all);
        let lines = as_lines(&groups, &all);
        let plot = Lines { title, across: "redis containers running", unit: "MB", series: lines };
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
        let [from, to, asked, achieved] =
            ["from", "until", "asked", "achieved"].map(|column| rows.numbers(column, &wanted));
        let columns = |values: &[f64]| -> Vec<(f64, f64, f64)> {
            from.iter().zip(&to).zip(values).map(|((f, t), v)| (*f, *t, *v)).collect()
        };
        let (what, unit) = kind.split_once(' ').unwrap_or((&kind, ""));
        let title = format!(
            "{what}: the limit of a running container is changed live; what it achieves each half second"
        );
        let plot =
            Course { title: &title, unit, asked: joined(&columns(&asked)), achieved: columns(&achieved) };
        finish(plot.draw(&out.join(format!("limits-{what}.svg"))));
    }
}

/// Neighbours with the same value as one.
fn joined(columns: &[(f64, f64, f64)]) -> Vec<(f64, f64, f64)> {
    let mut joined: Vec<(f64, f64, f64)> = Vec::new();
    for column in columns {
        match joined.last_mut() {
            Some(last) if last.2 == column.2 => last.1 = column.1,
            Some(last) => {
                let from = last.1;
                joined.push((from, column.1, column.2));
            }
            None => joined.push(*column),
        }
    }
    joined
}

fn micro(data: &Path, out: &Path, page: &mut String) {
    let Some(rows) = Table::read(&data.join("micro.csv")) else { return };
    let groups = rows.values("what");
    let series = series(&rows, "program", "what", &groups, &[], "ms");
    let title = "The runtimes alone";
    table(page, &format!("{title}, ms"), "program", &groups, &series);
    let groups = groups.iter().map(|g| brief(g)).collect();
    finish(Bars { title, unit: "ms", groups, series, logarithmic: false }.draw(&out.join("micro.svg")));
}

/// How far the second pass is from the first: what of a difference between two stacks may be chance.
fn repeated(data: &Path, page: &mut String) {
    let _ = writeln!(
        page,
        "\n## The second pass against the first\n\nFor each median of the tables above that both passes have: how far the second is from the first.\n\n\
         | what | medians | half of them within | nine of ten within | farther than 25 % |\n|---|---|---|---|---|"
    );
    let figures: [(&str, &[&str], &str); 8] = [
        ("restore-daemon", &["stack", "containers"], "ms"),
        ("restore-container", &["stack", "containers"], "ms"),
        ("outage", &["stack", "server", "event"], "ms"),
        ("throughput", &["stack", "server"], "per_second"),
        ("launch", &["stack", "server"], "ms"),
        ("scale-launch", &["stack", "server", "containers"], "ms"),
        ("scale-memory", &["stack", "server", "containers"], "monitor_rss"),
        ("micro", &["program", "what"], "ms"),
    ];
    for (file, by, number) in figures {
        let Some(rows) = Table::read(&data.join(format!("{file}.csv"))) else { continue };
        let mut apart: Vec<(f64, String)> = Vec::new();
        for cell in rows.combinations(by) {
            let of = |pass: &'static str| {
                let mut wanted: Vec<(&str, &str)> =
                    by.iter().copied().zip(cell.iter().map(String::as_str)).collect();
                wanted.push(("pass", pass));
                median(&rows.numbers(number, &wanted))
            };
            let (first, second) = (of("1"), of("2"));
            if first > 0.0 && second > 0.0 {
                let change = (second / first - 1.0) * 100.0;
                apart.push((change.abs(), format!("{} ({change:+.0} %)", cell.join(", "))));
            }
        }
        if apart.is_empty() {
            continue;
        }
        let sizes: Vec<f64> = apart.iter().map(|a| a.0).collect();
        apart.retain(|a| a.0 > 25.0);
        let far: Vec<String> = apart.into_iter().map(|a| a.1).collect();
        let _ = writeln!(
            page,
            "| {file} | {} | {:.1} % | {:.1} % | {} |",
            sizes.len(),
            median(&sizes),
            quantile(&sizes, 0.9),
            far.join("; ")
        );
    }
}

/// The bench's titles, as short as a plot's axis needs them.
fn brief(title: &str) -> String {
    let title = title.replace("create + start + delete", "lifecycle").replace(" true", "");
    match title.split_once(" config ") {
        Some((_, beside)) => format!("run, beside {}", beside.split(' ').next().unwrap_or_default()),
        None => title.replace(" plain config", "").replace(" config", ""),
    }
}
