//! Two kinds of plots, as SVG: bars in groups, and lines over a number; both with their spread.

use plotters::coord::ranged1d::ValueFormatter;
use plotters::coord::Shift;
use plotters::prelude::*;
use std::path::Path;

type Failure = Box<dyn std::error::Error>;

/// A value with its quartiles.
#[derive(Debug, Clone, Copy)]
pub struct Spread {
    pub low: f64,
    pub middle: f64,
    pub high: f64,
}

impl Spread {
    /// The median and the quartiles of what was measured.
    pub fn of(numbers: &[f64]) -> Option<Spread> {
        let at = |part| crate::rows::quantile(numbers, part);
        (!numbers.is_empty()).then(|| Spread { low: at(0.25), middle: at(0.5), high: at(0.75) })
    }
}

/// Told apart by people who see few colours, too (Okabe and Ito's palette).
const COLOURS: [RGBColor; 8] = [
    RGBColor(213, 94, 0),
    RGBColor(230, 159, 0),
    RGBColor(0, 114, 178),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(120, 120, 120),
    RGBColor(90, 60, 20),
];
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
        let root = SVGBackend::new(path, (1100, 520)).into_drawing_area();
        root.fill(&WHITE)?;
        let all: Vec<f64> = self.series.iter().flat_map(|s| s.1.iter().flatten().map(|v| v.high)).collect();
        // Room for the legend.
        let top = all.iter().copied().fold(0.0, f64::max) * if self.logarithmic { 12.0 } else { 1.6 };
        let lows = self.series.iter().flat_map(|s| s.1.iter().flatten().map(|v| v.low));
        let bottom = lows.filter(|v| *v > 0.0).fold(f64::INFINITY, f64::min) / 1.5;
        let across = -0.5..self.groups.len() as f64 - 0.5;
        let mut builder = ChartBuilder::on(&root);
        builder.caption(self.title, (FONT, 20)).margin(12).x_label_area_size(36).y_label_area_size(70);
        if self.logarithmic {
            let mut chart = builder.build_cartesian_2d(across, (bottom..top).log_scale())?;
            self.mesh(&mut chart)?;
            self.fill(&mut chart, bottom)
        } else {
            let mut chart = builder.build_cartesian_2d(across, 0.0..top)?;
            self.mesh(&mut chart)?;
            self.fill(&mut chart, 0.0)
        }?;
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
            .y_label_formatter(&|y| short(*y))
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
        let width = 0.8 / self.series.len().max(1) as f64;
        for (n, (name, values)) in self.series.iter().enumerate() {
            let colour = COLOURS[n % COLOURS.len()];
            let left = |group: usize| group as f64 - 0.4 + width * n as f64;
            let there = || values.iter().enumerate().filter_map(|(g, v)| v.map(|v| (g, v)));
            chart
                .draw_series(there().map(|(g, v)| {
                    Rectangle::new([(left(g), floor), (left(g) + width * 0.92, v.middle)], colour.filled())
                }))?
                .label(name.as_str())
                .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 14, y + 5)], colour.filled()));
            chart.draw_series(there().map(|(g, v)| {
                let x = left(g) + width * 0.46;
                PathElement::new(vec![(x, v.low.max(floor)), (x, v.high)], BLACK.stroke_width(1))
            }))?;
        }
        legend(chart)
    }
}

type Chart<'a, 'b, Y> =
    ChartContext<'a, SVGBackend<'b>, Cartesian2d<plotters::coord::types::RangedCoordf64, Y>>;

fn legend<'a, Y: Ranged<ValueType = f64>>(chart: &mut Chart<'a, 'a, Y>) -> Result<(), Failure> {
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.3))
        .label_font((FONT, 14))
        .draw()?;
    Ok(())
}

/// Lines: each series is a list of places and values.
pub struct Lines<'a> {
    pub title: &'a str,
    pub across: &'a str,
    pub unit: &'a str,
    pub series: Vec<(String, Vec<(f64, Spread)>)>,
    /// The first series is what was asked for: thick, in grey.
    pub first_is_asked: bool,
}

impl Lines<'_> {
    pub fn draw(&self, path: &Path) -> Result<(), Failure> {
        let root = SVGBackend::new(path, (1100, 520)).into_drawing_area();
        root.fill(&WHITE)?;
        self.draw_on(&root)?;
        root.present().map_err(Failure::from)
    }

    fn draw_on(&self, root: &DrawingArea<SVGBackend<'_>, Shift>) -> Result<(), Failure> {
        let points = || self.series.iter().flat_map(|s| s.1.iter());
        let end = points().map(|p| p.0).fold(1.0, f64::max);
        let top = points().map(|p| p.1.high).fold(0.0, f64::max) * 1.4;
        let mut chart = ChartBuilder::on(root)
            .caption(self.title, (FONT, 20))
            .margin(12)
            .x_label_area_size(44)
            .y_label_area_size(70)
            .build_cartesian_2d(0.0..end * 1.02, 0.0..top)?;
        chart
            .configure_mesh()
            .x_desc(self.across)
            .y_desc(self.unit)
            .x_label_formatter(&|x| short(*x))
            .y_label_formatter(&|y| short(*y))
            .label_style((FONT, 14))
            .axis_desc_style((FONT, 14))
            .light_line_style(WHITE)
            .draw()?;
        for (n, (name, points)) in self.series.iter().enumerate() {
            let asked = n == 0 && self.first_is_asked;
            let style = match asked {
                true => RGBColor(170, 170, 170).stroke_width(5),
                false => COLOURS[(n + usize::from(!self.first_is_asked) + 1) % COLOURS.len()].stroke_width(2),
            };
            chart
                .draw_series(LineSeries::new(points.iter().map(|p| (p.0, p.1.middle)), style))?
                .label(name.as_str())
                .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 14, y)], style));
            if !asked && !self.first_is_asked {
                chart.draw_series(points.iter().map(|p| {
                    PathElement::new(vec![(p.0, p.1.low), (p.0, p.1.high)], style.color.stroke_width(1))
                }))?;
                chart.draw_series(
                    points.iter().map(|p| Circle::new((p.0, p.1.middle), 3, style.color.filled())),
                )?;
            }
        }
        legend(&mut chart)
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
