//! Figures as SVG: curves over a length on a logarithmic axis, each labelled at its end.

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::element::DashedPathElement;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Pixels at twice the size that the page shows: the backend rounds to whole ones.
const WIDTH: i32 = 1600;
const HEIGHT: i32 = 920;
const LEFT: i32 = 140;
const RIGHT: i32 = 1220;
const TOP: i32 = 80;
const BOTTOM: i32 = 810;
const LABEL_X: i32 = RIGHT + 60;
const LINE_HEIGHT: i32 = 38;
const NOTES_GAP: i32 = 24;
/// The backend divides font sizes by 1.24.
const TEXT: f64 = 28.0 * 1.24;

const INK: RGBColor = RGBColor(34, 34, 34);
const GRAY: RGBColor = RGBColor(120, 120, 120);
const GRID: RGBColor = RGBColor(228, 228, 228);

/// Okabe and Ito's palette, told apart by all common kinds of colour vision; its yellow is too pale for lines.
const PALETTE: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(0, 0, 0),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];

/// One curve.
#[derive(Clone, Debug)]
pub struct Curve {
    /// Names of the variants that it stands for.
    pub names: Vec<String>,
    /// Number of its colour and marker.
    pub look: usize,
    pub points: Vec<(f64, f64)>,
}

/// A dashed line for reference, not measured.
#[derive(Clone, Debug)]
pub struct Guide {
    pub label: String,
    pub points: Vec<(f64, f64)>,
}

/// What the horizontal axis shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Across {
    /// In powers of two.
    SequenceLength,
    /// Likewise.
    Keys,
    /// In powers of ten.
    RowLength,
}

/// A figure, all in the units of its title.
#[derive(Clone, Debug)]
pub struct Figure {
    /// What the vertical axis shows, with its unit.
    pub title: String,
    pub across: Across,
    pub logarithmic: bool,
    /// How a tick of the vertical axis is written.
    pub tick: fn(f64) -> String,
    pub curves: Vec<Curve>,
    pub guides: Vec<Guide>,
    /// Lines below it, of a figure that stands by itself.
    pub notes: Vec<String>,
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

impl Figure {
    /// The SVG element.
    pub fn svg(&self) -> Result<String> {
        let mut svg = String::new();
        {
            let area = SVGBackend::with_string(&mut svg, (WIDTH as u32, self.height() as u32)).into_drawing_area();
            self.draw(&area).map_err(|error| anyhow!("{error}"))?;
            area.present().map_err(|error| anyhow!("{error}"))?;
        }
        Ok(svg)
    }

    /// An SVG file, at the size that it is meant to be seen in.
    pub fn file(&self) -> Result<String> {
        let [full, half] = [1, 2].map(|part| format!("width=\"{}\" height=\"{}\"", WIDTH / part, self.height() / part));
        Ok(self.svg()?.replacen(&full, &half, 1))
    }

    fn height(&self) -> i32 {
        let notes = self.notes.len() as i32;
        HEIGHT + if notes > 0 { NOTES_GAP + notes * LINE_HEIGHT } else { 0 }
    }

    fn draw(&self, area: &Area) -> Result<(), DrawingAreaErrorKind<std::io::Error>> {
        let points = || self.curves.iter().flat_map(|curve| curve.points.iter().copied());
        let lengths = points().map(|(x, _)| x);
        let (x, x_title) = match self.across {
            Across::SequenceLength => (Axis::lengths(lengths), "sequence length n"),
            Across::Keys => (Axis::lengths(lengths), "keys"),
            Across::RowLength => (Axis::decades(lengths), "row length"),
        };
        let y = if self.logarithmic {
            Axis::decades(points().map(|(_, y)| y))
        } else {
            // Guides are shown whole, for they bound what is measured.
            let guides = self.guides.iter().flat_map(|guide| guide.points.iter());
            let beside = guides.filter(|(guide_x, _)| (x.low..=x.high).contains(guide_x));
            Axis::linear(points().chain(beside.copied()).map(|(_, y)| y))
        };
        let place = |(px, py): (f64, f64)| (x.place(px, LEFT, RIGHT), y.place(py, BOTTOM, TOP));

        if !self.notes.is_empty() {
            area.fill(&WHITE)?;
        }
        for (line, note) in self.notes.iter().enumerate() {
            let row = HEIGHT + NOTES_GAP / 2 + line as i32 * LINE_HEIGHT;
            self.text(area, (LEFT - 110, row), HPos::Left, VPos::Top, GRAY, note)?;
        }
        for &tick in &y.ticks {
            let (_, row) = place((x.low, tick));
            area.draw(&PathElement::new([(LEFT, row), (RIGHT, row)], GRID.stroke_width(2)))?;
            self.text(area, (LEFT - 16, row), HPos::Right, VPos::Center, INK, &(self.tick)(tick))?;
        }
        for &tick in &x.ticks {
            let (column, _) = place((tick, y.low));
            area.draw(&PathElement::new([(column, BOTTOM), (column, BOTTOM + 10)], INK.stroke_width(2)))?;
            self.text(area, (column, BOTTOM + 18), HPos::Center, VPos::Top, INK, &tick.to_string())?;
        }
        area.draw(&PathElement::new([(LEFT, BOTTOM), (RIGHT, BOTTOM)], INK.stroke_width(2)))?;
        self.text(area, ((LEFT + RIGHT) / 2, HEIGHT - 44), HPos::Center, VPos::Top, INK, x_title)?;
        self.text(area, (LEFT - 110, 16), HPos::Left, VPos::Top, INK, &self.title)?;

        for guide in &self.guides {
            let inside = clip(&guide.points, &x, &y);
            let pixels: Vec<(i32, i32)> = inside.iter().map(|&point| place(point)).collect();
            let (Some(&first), Some(&(end_x, end_y))) = (pixels.first(), pixels.last()) else { continue };
            area.draw(&DashedPathElement::new(vec![first, (end_x, end_y)], 12, 10, GRAY.stroke_width(2)))?;
            // Above its upper end: a rising line lies below all of the label.
            self.text(area, (end_x, end_y - 10), HPos::Right, VPos::Bottom, GRAY, &guide.label)?;
        }
        for curve in &self.curves {
            let pixels: Vec<(i32, i32)> = curve.points.iter().map(|&point| place(point)).collect();
            let look = Look::number(curve.look);
            if look.dashed {
                area.draw(&DashedPathElement::new(pixels.clone(), 16, 8, look.color.stroke_width(4)))?;
            } else {
                area.draw(&PathElement::new(pixels.clone(), look.color.stroke_width(4)))?;
            }
            for pixel in pixels {
                look.marker(area, pixel)?;
            }
        }
        self.labels(area, place)
    }

    /// A label for each curve right of the plot, at the height of its last point if there is room, else near it.
    fn labels(
        &self,
        area: &Area,
        place: impl Fn((f64, f64)) -> (i32, i32),
    ) -> Result<(), DrawingAreaErrorKind<std::io::Error>> {
        let mut ends: Vec<(&Curve, (i32, i32))> = Vec::new();
        for curve in &self.curves {
            ends.extend(curve.points.last().map(|&last| (curve, place(last))));
        }
        ends.sort_by_key(|&(_, (_, row))| row);
        let sizes: Vec<i32> = ends.iter().map(|(curve, _)| LINE_HEIGHT * curve.names.len() as i32).collect();
        let wanted: Vec<i32> = ends.iter().map(|&(_, (_, row))| row).collect();
        for (((curve, end), row), size) in ends.iter().zip(spread(&wanted, &sizes, TOP, BOTTOM)).zip(&sizes) {
            let look = Look::number(curve.look);
            let first = row - (size - LINE_HEIGHT) / 2;
            // To a curve that ends early, colour and marker must do: a line would cross the others.
            if end.0 > RIGHT - 80 {
                let leader = [(end.0 + 14, end.1), (RIGHT + 14, end.1), (LABEL_X - 18, first)];
                area.draw(&PathElement::new(leader, look.color.mix(0.45).stroke_width(2)))?;
            }
            look.marker(area, (LABEL_X, first))?;
            for (line, name) in curve.names.iter().enumerate() {
                let at = (LABEL_X + 22, first + LINE_HEIGHT * line as i32);
                self.text(area, at, HPos::Left, VPos::Center, INK, name)?;
            }
        }
        Ok(())
    }

    fn text(
        &self,
        area: &Area,
        at: (i32, i32),
        horizontal: HPos,
        vertical: VPos,
        color: RGBColor,
        text: &str,
    ) -> Result<(), DrawingAreaErrorKind<std::io::Error>> {
        let style = ("sans-serif", TEXT).into_text_style(area).color(&color).pos(Pos::new(horizontal, vertical));
        area.draw(&Text::new(text.to_string(), at, style))
    }
}

/// Moves labels of these sizes apart, keeping their order, within `low..high`.
fn spread(wanted: &[i32], sizes: &[i32], low: i32, high: i32) -> Vec<i32> {
    let mut rows = wanted.to_vec();
    // Down from the top, then back up from the bottom if the last has left the plot.
    let mut free = low;
    for (row, size) in rows.iter_mut().zip(sizes) {
        *row = (*row).max(free + size / 2);
        free = *row + size / 2;
    }
    let mut free = high.max(low + sizes.iter().sum::<i32>());
    for (row, size) in rows.iter_mut().zip(sizes).rev() {
        *row = (*row).min(free - size / 2);
        free = *row - size / 2;
    }
    rows
}

/// Colour, line and marker of a curve.
struct Look {
    color: RGBColor,
    marker: usize,
    dashed: bool,
}

impl Look {
    fn number(number: usize) -> Self {
        Self { color: PALETTE[number % PALETTE.len()], marker: number % 4, dashed: number >= PALETTE.len() }
    }

    /// A filled circle, square, triangle or diamond; hollow on a dashed curve.
    fn marker(&self, area: &Area, (x, y): (i32, i32)) -> Result<(), DrawingAreaErrorKind<std::io::Error>> {
        const R: i32 = 9;
        let corners: Vec<(i32, i32)> = match self.marker {
            0 => {
                let fill = if self.dashed { WHITE } else { self.color };
                area.draw(&Circle::new((x, y), R, fill.filled()))?;
                return area.draw(&Circle::new((x, y), R, self.color.stroke_width(3)));
            }
            1 => vec![(-R, -R), (R, -R), (R, R), (-R, R)],
            2 => vec![(0, -R - 3), (R + 2, R - 1), (-R - 2, R - 1)],
            _ => vec![(0, -R - 3), (R + 3, 0), (0, R + 3), (-R - 3, 0)],
        };
        let mut corners: Vec<(i32, i32)> = corners.into_iter().map(|(dx, dy)| (x + dx, y + dy)).collect();
        area.draw(&Polygon::new(corners.clone(), if self.dashed { WHITE } else { self.color }))?;
        corners.push(corners[0]);
        area.draw(&PathElement::new(corners, self.color.stroke_width(3)))
    }
}

/// One axis: its ends, its ticks and how values lie on it.
struct Axis {
    low: f64,
    high: f64,
    ticks: Vec<f64>,
    logarithmic: bool,
}

impl Axis {
    /// Powers of two, half a step of room at either end.
    fn lengths(values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = range(values);
        let room = 2f64.powf(0.25);
        let (low, high) = (low / room, high * room);
        let every = ((high / low).log2() / 10.0).ceil().max(1.0) as usize;
        let ticks = (0..32).map(|power| 2f64.powi(power)).filter(|tick| (low..=high).contains(tick));
        Self { low, high, ticks: ticks.step_by(every).collect(), logarithmic: true }
    }

    /// Powers of ten; where these are few, multiples of them too.
    fn decades(values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = range(values);
        let room = 1.1 * (high / low).powf(0.06);
        let (low, high) = (low / room, high * room);
        let multiples: &[f64] = match (high / low).log10() {
            ..0.6 => &[1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0],
            ..1.0 => &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0],
            ..3.0 => &[1.0, 2.0, 5.0],
            _ => &[1.0],
        };
        let ticks = (-15..20).flat_map(|power| multiples.iter().map(move |multiple| multiple * 10f64.powi(power)));
        Self { low, high, ticks: ticks.filter(|tick| (low..=high).contains(tick)).collect(), logarithmic: true }
    }

    /// From zero or a round number below, to a round one above.
    fn linear(values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = range(values);
        let step = [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0].into_iter().find(|step| (high - low) / step <= 7.0);
        let step = step.unwrap_or(50.0);
        let (low, high) = ((low / step).floor() * step, ((high / step).floor() + 1.0) * step);
        let count = ((high - low) / step).round() as usize;
        let ticks = (0..=count).map(|index| low + step * index as f64).collect();
        Self { low, high, ticks, logarithmic: false }
    }

    /// Where a value lies between two pixels.
    fn place(&self, value: f64, low: i32, high: i32) -> i32 {
        let share = if self.logarithmic {
            (value / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        low + (share * f64::from(high - low)).round() as i32
    }
}

fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, 0.0), |(low, high), value| (low.min(value), high.max(value)))
}

/// The points of a guide that lie inside the plot.
fn clip(points: &[(f64, f64)], x: &Axis, y: &Axis) -> Vec<(f64, f64)> {
    let inside = |&&(px, py): &&(f64, f64)| (x.low..=x.high).contains(&px) && (y.low..=y.high).contains(&py);
    points.iter().filter(inside).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_keep_order_and_distance() {
        assert_eq!(spread(&[100, 300], &[40, 40], 0, 400), [100, 300]);
        let rows = spread(&[390, 391, 395], &[40, 40, 40], 0, 400);
        assert_eq!(rows, [300, 340, 380]);
    }

    #[test]
    fn ticks_lie_inside() {
        let axis = Axis::decades([0.5, 800.0].into_iter());
        assert_eq!(axis.ticks, [1.0, 10.0, 100.0, 1000.0]);
        let axis = Axis::lengths([256.0, 1024.0].into_iter());
        assert_eq!(axis.ticks, [256.0, 512.0, 1024.0]);
    }
}
