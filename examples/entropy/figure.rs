//! The figure: mean row entropy against n, on random scores and on real ones.

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::element::DashedPathElement;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::scores::RANDOM_DIM;
use crate::table::closed_form;
use crate::{Curve, Point};

/// Pixels at twice the size of the figure: the backend rounds to whole ones.
const WIDTH: i32 = 2200;
const HEIGHT: i32 = 1140;
const HEAD: i32 = 240;
/// Room for labels to the right of a panel.
const LABELS: i32 = 250;
const LINE: i32 = 40;
/// The backend divides font sizes by 1.24.
const TEXT: f64 = 30.0 * 1.24;

const INK: RGBColor = RGBColor(34, 34, 34);
const GRAY: RGBColor = RGBColor(120, 120, 120);
const GRID: RGBColor = RGBColor(228, 228, 228);
/// Of Okabe and Ito, in the order of the scales.
const COLORS: [RGBColor; 4] =
    [RGBColor(0, 114, 178), RGBColor(213, 94, 0), RGBColor(0, 158, 115), RGBColor(204, 121, 167)];

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn<T> = Result<T, DrawingAreaErrorKind<std::io::Error>>;

/// One panel; lines and points have log₂ n for their first coordinate.
struct Panel {
    title: String,
    /// Whether single layers are drawn, and labelled, beside their mean.
    layers: bool,
    /// Ends of the vertical axis, in nats.
    nats: [f64; 2],
}

/// The whole figure as SVG.
pub fn svg(random: &[Curve], real: &[Curve]) -> Result<String> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH as u32, HEIGHT as u32)).into_drawing_area();
        draw(&area, random, real).and_then(|()| area.present()).map_err(|error| anyhow!("{error}"))?;
    }
    let [full, half] = [1, 2].map(|part| format!("width=\"{}\" height=\"{}\"", WIDTH / part, HEIGHT / part));
    Ok(svg.replacen(&full, &half, 1))
}

fn draw(area: &Area, random: &[Curve], real: &[Curve]) -> Drawn<()> {
    area.fill(&WHITE)?;
    legend(area, random)?;
    let (left, right) = area.split_horizontally(WIDTH / 2);
    let title = format!("(a) Random scores: q, k ~ N(0, I), d = {RANDOM_DIM}");
    Panel { title, layers: false, nats: [0.0, ceiling(random)] }.draw(area, &left, random)?;
    let title = "(b) Real scores: all-MiniLM-L6-v2, each layer (thin) and their mean".to_string();
    Panel { title, layers: true, nats: [1.0, ceiling(real)] }.draw(area, &right, real)
}

/// A little above log n of the longest rows.
fn ceiling(curves: &[Curve]) -> f64 {
    let lens = curves.iter().flat_map(|curve| &curve.points).map(|point| f64::from(point.len));
    lens.fold(1.0, f64::max).ln() + 0.3
}

impl Panel {
    fn draw(&self, root: &Area, area: &Area, curves: &[Curve]) -> Drawn<()> {
        let lens: Vec<f64> = curves[0].points.iter().map(|point| f64::from(point.len)).collect();
        let [first, last] = [lens[0].log2(), lens[lens.len() - 1].log2()];
        let mut chart = ChartBuilder::on(area)
            .margin_top(HEAD)
            .margin_right(LABELS)
            .margin_left(20)
            .margin_bottom(20)
            .x_label_area_size(100)
            .y_label_area_size(110)
            .build_cartesian_2d(first - 0.3..last + 0.3, self.nats[0]..self.nats[1])?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .bold_line_style(GRID.stroke_width(2))
            .light_line_style(TRANSPARENT)
            .axis_style(INK.stroke_width(2))
            .label_style(("sans-serif", TEXT).into_font().color(&INK))
            // Of many lengths every second.
            .x_labels(if lens.len() > 6 { lens.len() / 2 } else { lens.len() })
            .x_label_formatter(&|power| format!("{}", power.exp2().round()))
            .x_desc("keys that a row sees, n")
            .y_label_formatter(&|nats| format!("{nats:.0}"))
            .y_desc("mean row entropy (nats)")
            .draw()?;
        let place = |(power, nats)| chart.backend_coord(&(power, nats));
        text(root, (area.get_pixel_range().0.start + 30, HEAD - 56), &self.title)?;

        let fine: Vec<f64> = (0..=200).map(|step| first + (last - first) * f64::from(step) / 200.0).collect();
        let dashed = |points: Vec<(f64, f64)>, color: RGBColor| {
            let pixels: Vec<(i32, i32)> = points.into_iter().map(place).collect();
            root.draw(&DashedPathElement::new(pixels, 14, 10, color.stroke_width(3)))
        };
        dashed([first, last].map(|power| (power, power.exp2().ln())).to_vec(), GRAY)?;
        let mut labels = vec![(place((last, last.exp2().ln())), "log n".to_string())];

        for (curve, color) in curves.iter().zip(COLORS) {
            let line = |value: &dyn Fn(&Point) -> f64| -> Vec<(i32, i32)> {
                curve.points.iter().map(|point| place((f64::from(point.len).log2(), value(point)))).collect()
            };
            let mean = line(&Point::mean);
            if self.layers {
                for layer in 0..curve.points[0].means.len() {
                    let thin = line(&|point| point.means[layer]);
                    root.draw(&PathElement::new(thin, color.mix(0.6).stroke_width(3)))?;
                }
            } else {
                let closed = fine.iter().map_while(|&power| Some((power, closed_form(&curve.scale, power.exp2())?)));
                dashed(closed.collect(), color)?;
                labels.extend(mean.last().map(|&end| (end, curve.scale.name.to_string())));
            }
            root.draw(&PathElement::new(mean.clone(), color.stroke_width(if self.layers { 7 } else { 4 })))?;
            for pixel in mean {
                root.draw(&Circle::new(pixel, 9, color.filled()))?;
            }
        }
        if self.layers {
            // All scales end at about the same point; the last curve's ends are the labels'.
            let ends = curves.last().and_then(|curve| curve.points.last()).map_or(&[][..], |point| &point.means);
            labels
                .extend(ends.iter().enumerate().map(|(layer, &nats)| (place((last, nats)), format!("layer {layer}"))));
        }
        let edge = place((last + 0.3, 0.0)).0;
        end_labels(root, edge, labels)
    }
}

/// Texts to the right of a panel at the heights of what they name, moved apart where these are close.
fn end_labels(root: &Area, edge: i32, mut labels: Vec<((i32, i32), String)>) -> Drawn<()> {
    labels.sort_by_key(|&((_, row), _)| row);
    let mut free = i32::MIN;
    for ((column, row), label) in labels {
        let at = row.max(free);
        free = at + LINE;
        root.draw(&PathElement::new(
            [(column + 12, row), (edge + 6, row), (edge + 30, at)],
            GRAY.mix(0.6).stroke_width(2),
        ))?;
        text(root, (edge + 38, at), &label)?;
    }
    Ok(())
}

/// Colours of the scales, and below them what is dashed, above both panels.
fn legend(root: &Area, curves: &[Curve]) -> Drawn<()> {
    let (mut x, y) = (50, 50);
    for (curve, color) in curves.iter().zip(COLORS) {
        root.draw(&PathElement::new([(x, y), (x + 70, y)], color.stroke_width(5)))?;
        root.draw(&Circle::new((x + 35, y), 9, color.filled()))?;
        text(root, (x + 88, y), curve.scale.name)?;
        x += 390;
    }
    let (mut x, y) = (50, y + 56);
    for (color, what) in [(GRAY, "log n: equal weights"), (INK, "in colour: log n − s²/2")] {
        root.draw(&DashedPathElement::new([(x, y), (x + 70, y)], 14, 10, color.stroke_width(3)))?;
        text(root, (x + 88, y), what)?;
        x += 460;
    }
    Ok(())
}

/// Text that starts at `at`.
fn text(root: &Area, at: (i32, i32), text: &str) -> Drawn<()> {
    let style = ("sans-serif", TEXT).into_text_style(root).color(&INK).pos(Pos::new(HPos::Left, VPos::Center));
    root.draw(&Text::new(text.to_string(), at, style))
}
