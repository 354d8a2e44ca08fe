//! Lines over a common axis, as SVG.

use anyhow::{Result, anyhow};
use plotters::prelude::*;

/// Of Okabe and Ito, but for the last two.
const COLORS: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(120, 120, 120),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
    RGBColor(140, 80, 20),
];
const SIZE: (u32, u32) = (1200, 720);
const TEXT: i32 = 26;

/// A line and its name.
pub struct Line {
    pub name: String,
    pub points: Vec<(f64, f64)>,
    /// The same under other conditions, dashed; or none.
    pub dashed: Vec<(f64, f64)>,
}

impl Line {
    pub fn new(name: impl Into<String>, points: impl IntoIterator<Item = (f64, f64)>) -> Self {
        Self { name: name.into(), points: points.into_iter().collect(), dashed: Vec::new() }
    }
}

/// A chart with what its axes are called.
pub struct Chart<'a> {
    pub title: &'a str,
    pub x: &'a str,
    pub y: &'a str,
    /// What stands beside a mark of the first axis.
    pub mark: fn(&f64) -> String,
    pub lines: &'a [Line],
    /// Where the lines leave room for their names.
    pub names: SeriesLabelPosition,
}

impl Chart<'_> {
    pub fn svg(&self) -> Result<String> {
        let mut svg = String::new();
        self.draw(&mut svg).map_err(|error| anyhow!("{error}"))?;
        Ok(svg)
    }

    fn draw(&self, svg: &mut String) -> Result<(), DrawingAreaErrorKind<std::io::Error>> {
        let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let points = || self.lines.iter().flat_map(|line| line.points.iter().chain(&line.dashed));
        let ends = |of: fn(&(f64, f64)) -> f64| {
            let (low, high) =
                points().map(of).fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)));
            let room = 0.04 * (high - low).max(1e-9);
            low - room..high + room
        };
        let mut chart = ChartBuilder::on(&area)
            .caption(self.title, ("sans-serif", TEXT + 4))
            .margin(16)
            .x_label_area_size(64)
            .y_label_area_size(96)
            .build_cartesian_2d(ends(|point| point.0), ends(|point| point.1))?;
        chart
            .configure_mesh()
            .label_style(("sans-serif", TEXT - 4))
            .axis_desc_style(("sans-serif", TEXT))
            .x_label_formatter(&self.mark)
            .x_desc(self.x)
            .y_desc(self.y)
            .light_line_style(TRANSPARENT)
            .draw()?;
        for (line, color) in self.lines.iter().zip(COLORS.iter().cycle()) {
            let style = color.stroke_width(3);
            chart
                .draw_series(LineSeries::new(line.points.iter().copied(), style))?
                .label(line.name.as_str())
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 30, y)], style));
            chart.draw_series(DashedLineSeries::new(line.dashed.iter().copied(), 9, 6, style))?;
        }
        chart
            .configure_series_labels()
            .position(self.names.clone())
            .background_style(WHITE.mix(0.85))
            .label_font(("sans-serif", TEXT - 2))
            .legend_area_size(40)
            .draw()?;
        area.present()
    }
}
