//! Two kinds of plots, as SVG: bars in groups, and lines over a number; both with their spread.

use plotters::coord::ranged1d::ValueFormatter;
use plotters::coord::types::RangedCoordf64;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::path::Path;

type Failure = Box<dyn std::error::Error>;

/// A value with its quartiles, and of how many it is.
#[derive(Debug, Clone, Copy)]
pub struct Spread {
    pub low: f64,
    pub middle: f64,
    pub high: f64,
    pub count: usize,
}

impl Spread {
    /// The median and the quartiles of what was measured.
    pub fn of(numbers: &[f64]) -> Option<Spread> {
        let at = |part| crate::rows::quantile(numbers, part);
        let count = numbers.len();
        (count > 0).then(|| Spread { low: at(0.25), middle: at(0.5), high: at(0.75), count })
    }

    /// In another unit, or from another zero.
    pub fn map(self, f: impl Fn(f64) -> f64) -> Spread {
        Spread { low: f(self.low), middle: f(self.middle), high: f(self.high), count: self.count }
    }
}

/// Who takes part, in the order of the legends, each with its colour in every plot. Told apart by people who see few
/// colours, too (Okabe and Ito's palette).
const WHO: [(&str, RGBColor); 11] = [
    ("runc without live-restore", RGBColor(213, 94, 0)),
    ("runc", RGBColor(230, 159, 0)),
    ("crun", RGBColor(204, 121, 167)),
    ("youki", RGBColor(240, 228, 66)),
    ("Hydra runtime + Go shim", RGBColor(86, 180, 233)),
    ("Hydra", RGBColor(0, 114, 178)),
    ("runtime", RGBColor(0, 114, 178)),
    ("Hydra standalone", RGBColor(0, 158, 115)),
    ("no container", RGBColor(150, 150, 150)),
    ("floor", RGBColor(150, 150, 150)),
    ("achieved", RGBColor(0, 114, 178)),
];

/// The place in the order, for sorting.
pub fn rank(name: &str) -> usize {
    WHO.iter().position(|w| w.0 == name).unwrap_or(WHO.len())
}

fn colour(name: &str) -> RGBColor {
    WHO.get(rank(name)).map_or(BLACK, |w| w.1)
}

/// Plot and, to the right of it, the legend.
const SIZE: (u32, u32) = (1200, 500);
const LEGEND: u32 = 200;
const FONT: &str = "sans-serif";

/// Bars: for each group one bar a series. A missing value leaves its place empty.
pub struct Bars<'a> {
    pub title: &'a str,
    pub unit: &'a str,
    pub groups: Vec<String>,
    pub series: Vec<(String, Vec<Option<Spread>>)>,
    pub logarithmic: bool,
}

impl Bars<'_> {
    pub fn draw(&self, path: &Path) -> Result<(), Failure> {
        let root = SVGBackend::new(path, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let ends = self.series.iter().flat_map(|s| s.1.iter().flatten().flat_map(|v| [v.low, v.high]));
        let (least, most) = ends.fold((f64::INFINITY, 0.0), |(l, m), v| (v.min(l), v.max(m)));
        let across = -0.5..self.groups.len() as f64 - 0.5;
        let mut builder = ChartBuilder::on(&root);
        builder.caption(self.title, (FONT, 20)).margin(12).margin_right(LEGEND);
        builder.x_label_area_size(36).y_label_area_size(76);
        if self.logarithmic {
            // From a whole power of ten, so that the bars' lengths can be compared.
            let floor = 10f64.powf(least.max(0.01).log10().floor());
            let mut chart = builder.build_cartesian_2d(across, (floor..most * 1.5).log_scale())?;
            self.mesh(&mut chart)?;
            self.fill(&mut chart, floor)
        } else {
            let range = least.min(0.0) * 1.1..most * 1.1;
            let mut chart = builder.build_cartesian_2d(across, range)?;
            self.mesh(&mut chart)?;
            self.fill(&mut chart, 0.0)
        }?;
        legend(&root, self.series.iter().map(|s| (s.0.as_str(), colour(&s.0).filled())))?;
        root.present().map_err(Failure::from)
    }

    fn mesh<Y: Ranged<ValueType = f64> + ValueFormatter<f64>>(
        &self,
        chart: &mut Chart<'_, '_, Y>,
    ) -> Result<(), Failure> {
        let name = |x: &f64| match (x - x.round()).abs() < 0.01 {
            true => self.groups.get(x.round() as usize).cloned().unwrap_or_default(),
            false => String::new(),
        };
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(self.groups.len() * 2 + 1)
            .x_label_formatter(&name)
            .y_desc(self.unit)
            .y_label_formatter(&|y| match self.logarithmic && !round(*y) {
                true => String::new(),
                false => short(*y),
            })
            .label_style((FONT, 14))
            .axis_desc_style((FONT, 14))
            .light_line_style(WHITE)
            .draw()?;
        Ok(())
    }

    fn fill<'a, Y: Ranged<ValueType = f64>>(
        &self,
        chart: &mut Chart<'a, 'a, Y>,
        floor: f64,
    ) -> Result<(), Failure> {
        let width = 0.84 / self.series.len().max(1) as f64;
        // A number on each bar, where there is room for it.
        let numbers = self.groups.len() * self.series.len() <= 32;
        for (n, (name, values)) in self.series.iter().enumerate() {
            let colour = colour(name);
            let left = |group: usize| group as f64 - 0.42 + width * n as f64;
            let there = || values.iter().enumerate().filter_map(|(g, v)| v.map(|v| (g, v)));
            chart.draw_series(there().map(|(g, v)| {
                Rectangle::new([(left(g), floor), (left(g) + width * 0.92, v.middle)], colour.filled())
            }))?;
            chart.draw_series(there().map(|(g, v)| {
                let x = left(g) + width * 0.46;
                PathElement::new(vec![(x, v.low), (x, v.high)], BLACK.stroke_width(1))
            }))?;
            chart.draw_series(there().filter(|_| numbers).map(|(g, v)| {
                // Beyond the spread, on the side to which the bar points.
                let (end, edge, off) = match v.middle < 0.0 {
                    true => (v.low, VPos::Top, 3),
                    false => (v.high.max(floor), VPos::Bottom, -3),
                };
                let style = TextStyle::from((FONT, 12).into_font()).pos(centred(edge));
                EmptyElement::at((left(g) + width * 0.46, end)) + Text::new(label(v.middle), (0, off), style)
            }))?;
        }
        Ok(())
    }
}

type Chart<'a, 'b, Y> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, Y>>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Middle of the text's lower or upper edge.
fn centred(v_pos: VPos) -> Pos {
    Pos { h_pos: HPos::Center, v_pos }
}

/// To the right of the plot, where nothing can be hidden by it.
fn legend<'a>(root: &Area<'_>, entries: impl Iterator<Item = (&'a str, ShapeStyle)>) -> Result<(), Failure> {
    let (x, mut y) = ((SIZE.0 - LEGEND) as i32 + 8, 56);
    for (name, style) in entries {
        root.draw(&Rectangle::new([(x, y - 6), (x + 14, y + 6)], style))?;
        root.draw(&Text::new(name.to_string(), (x + 20, y - 7), (FONT, 14).into_font()))?;
        y += 22;
    }
    Ok(())
}

/// Lines: each series is a list of places and values.
pub struct Lines<'a> {
    pub title: &'a str,
    pub across: &'a str,
    pub unit: &'a str,
    pub series: Vec<(String, Vec<(f64, Spread)>)>,
}

impl Lines<'_> {
    pub fn draw(&self, path: &Path) -> Result<(), Failure> {
        let points = || self.series.iter().flat_map(|s| s.1.iter());
        let end = points().map(|p| p.0).fold(1.0, f64::max);
        let top = points().map(|p| p.1.high).fold(0.0, f64::max) * 1.1;
        let root = SVGBackend::new(path, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let mut chart = axes(&root, self.title, self.across, self.unit, -0.01 * end..end * 1.03, top)?;
        for (n, (name, points)) in self.series.iter().enumerate() {
            let style = colour(name).stroke_width(2);
            // A little apart, so that one spread doesn't hide another.
            let shift = (n as f64 - self.series.len() as f64 / 2.0) * end * 0.003;
            chart.draw_series(LineSeries::new(points.iter().map(|p| (p.0 + shift, p.1.middle)), style))?;
            chart.draw_series(points.iter().map(|p| {
                PathElement::new(
                    vec![(p.0 + shift, p.1.low), (p.0 + shift, p.1.high)],
                    style.color.stroke_width(1),
                )
            }))?;
            chart.draw_series(
                points.iter().map(|p| Circle::new((p.0 + shift, p.1.middle), 3, style.color.filled())),
            )?;
        }
        legend(&root, self.series.iter().map(|s| (s.0.as_str(), colour(&s.0).filled())))?;
        root.present().map_err(Failure::from)
    }
}

/// What was asked for, a thick line with its number, over what was achieved, a column for each look.
pub struct Course<'a> {
    pub title: &'a str,
    pub unit: &'a str,
    /// From, until, value.
    pub asked: Vec<(f64, f64, f64)>,
    pub achieved: Vec<(f64, f64, f64)>,
}

impl Course<'_> {
    pub fn draw(&self, path: &Path) -> Result<(), Failure> {
        let all = || self.asked.iter().chain(&self.achieved);
        let end = all().map(|p| p.1).fold(1.0, f64::max);
        let top = all().map(|p| p.2).fold(0.0, f64::max) * 1.15;
        let root = SVGBackend::new(path, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let mut chart = axes(&root, self.title, "seconds", self.unit, 0.0..end, top)?;
        let blue = colour("achieved").mix(0.55);
        let gap = 0.04;
        chart.draw_series(self.achieved.iter().map(|(from, to, value)| {
            Rectangle::new([(*from, 0.0), (to - (to - from) * gap, *value)], blue.filled())
        }))?;
        let line = RGBColor(213, 94, 0).stroke_width(4);
        let corners = self.asked.iter().flat_map(|(from, to, value)| [(*from, *value), (*to, *value)]);
        chart.draw_series(LineSeries::new(corners, line))?;
        let style = TextStyle::from((FONT, 16).into_font()).color(&line.color).pos(centred(VPos::Bottom));
        chart.draw_series(self.asked.iter().map(|(from, to, value)| {
            let text = format!("{} {}", short(*value), self.unit);
            EmptyElement::at(((from + to) / 2.0, *value)) + Text::new(text, (0, -6), style.clone())
        }))?;
        let entries = [("asked for", line.filled()), ("achieved", blue.filled())];
        legend(&root, entries.into_iter())?;
        root.present().map_err(Failure::from)
    }
}

fn axes<'a, 'b>(
    root: &'a Area<'b>,
    title: &str,
    across: &str,
    unit: &str,
    range: std::ops::Range<f64>,
    top: f64,
) -> Result<Chart<'a, 'b, RangedCoordf64>, Failure> {
    let mut chart = ChartBuilder::on(root)
        .caption(title, (FONT, 20))
        .margin(12)
        .margin_right(LEGEND)
        .x_label_area_size(44)
        .y_label_area_size(76)
        .build_cartesian_2d(range, 0.0..top)?;
    chart
        .configure_mesh()
        .x_desc(across)
        .y_desc(unit)
        .x_label_formatter(&|x| short(*x))
        .y_label_formatter(&|y| short(*y))
        .label_style((FONT, 14))
        .axis_desc_style((FONT, 14))
        .light_line_style(WHITE)
        .draw()?;
    Ok(chart)
}

/// 1, 2 or 5 times a power of ten: the places of a logarithmic axis that are named.
fn round(number: f64) -> bool {
    let first = number / 10f64.powf(number.log10().floor() + 1e-9);
    [1.0, 2.0, 5.0].iter().any(|n| (first / n - 1.0).abs() < 1e-6)
}

/// A number on a bar: three digits are enough.
fn label(number: f64) -> String {
    match number.abs() {
        n if n >= 100.0 => short(number.round()),
        n if n >= 10.0 => format!("{number:.0}"),
        _ => format!("{number:.1}"),
    }
}

/// 1500 as 1,500; 0.25 as 0.25; 20.0 as 20.
fn short(number: f64) -> String {
    if number.abs() >= 1000.0 {
        let whole = number.round() as i64;
        return format!("{},{:03}", whole / 1000, whole.abs() % 1000);
    }
    let text = format!("{number:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}
