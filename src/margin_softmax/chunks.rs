//! In what pieces rows and classes are multiplied, forward and backward, and the norms of either.

use super::MarginSoftmaxConfig;
use super::kernels::{self, ROWS};
use crate::Result;
use crate::dispatch::{PlanBuilder, Value, View};
use crate::dtype::Storage;
use crate::matmul::Matrix;
use crate::op::{Problem, Shapes};
use crate::tensor::{Layout, evenly, product};

/// Products that are in the workspace at a time: 16 MiB, which a GPU's cache may hold from the kernel that makes them to the one
/// that reads them.
const PRODUCTS: u32 = 1 << 22;
/// The side of a chunk of many rows and many classes.
const SIDE: u32 = 1 << 11;
/// Rows of a chunk whose gradients of the bias, of 16 rows each, one invocation adds up for four classes: far from where some driver ends
/// its loops.
const MOST_SUMMED: u32 = 1 << 14;

/// The size of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunks {
    pub rows: u32,
    /// Rows of the class weights: whole classes, and in fours.
    pub class_rows: u32,
    unit: u32,
}

/// A piece of the class weights.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClassChunk {
    /// The tensor, and its place in the list; of listed classes, where they are gathered.
    pub layout: Layout,
    pub view: View,
    pub tensor: usize,
    /// Its first row in the tensor, and among all that take part; how many there are.
    pub first: u32,
    pub first_of_all: u32,
    pub count: u32,
}

impl ClassChunk {
    pub fn matrix(&self) -> Matrix {
        Matrix::operand((&self.layout, self.view)).rows_from(self.first)
    }

    /// The list of classes from its first on, if there is one.
    pub fn listed<S: Shapes>(&self, problem: &Problem<S>, centres: u32) -> Option<(&'static str, View)> {
        Some(("sampled", problem.view("sampled")?.rows_from(self.first_of_all / centres)))
    }
}

impl Chunks {
    /// As the products of so many rows and class rows fit into the workspace: square, or all of the shorter side.
    pub fn new(config: &MarginSoftmaxConfig, rows: u32, class_rows: u32) -> Self {
        let unit = 4 * config.centres;
        let rows = rows.clamp(1, (PRODUCTS / class_rows.max(1)).max(SIDE));
        let most = (PRODUCTS / rows).max(SIDE) / unit * unit;
        Self { rows, class_rows: class_rows.min(most), unit }
    }

    /// The same where sums of rows of so many numbers, of rows and of class rows, are in the workspace beside them.
    pub fn with_width(self, width: u32) -> Self {
        let most = (PRODUCTS / width).clamp(1, MOST_SUMMED);
        let class_rows = (PRODUCTS / width / self.unit).max(1) * self.unit;
        Self { rows: self.rows.min(most), class_rows: self.class_rows.min(class_rows), ..self }
    }

    /// From one row of products to the next: in fours, with room for what lies before the first.
    pub fn stride(&self) -> u32 {
        self.class_rows.next_multiple_of(4) + 4
    }

    pub fn of_rows(&self, rows: u32) -> impl Iterator<Item = (u32, u32)> + Clone {
        evenly(rows, self.rows, 1)
    }

    /// The chunks of all class weights in order, or of the listed ones, each of which is gathered in its turn.
    pub fn of_classes<S: Shapes>(&self, problem: &Problem<S>, gathered: View) -> Vec<ClassChunk> {
        if let Some((listed, dim)) = problem.shapes.axis("sampled").zip(problem.shapes.axis("dim")) {
            let (width, mut view) = (dim.next_multiple_of(4), gathered);
            view.strides[0] = width;
            let chunk = |(first_of_all, count)| {
                let mut layout = Layout::contiguous(&[count, dim], Storage::Shared);
                layout.strides[0] = width;
                ClassChunk { layout, view, tensor: 0, first: 0, first_of_all, count }
            };
            return evenly(listed * (self.unit / 4), self.class_rows, self.unit).map(chunk).collect();
        }
        let mut before = 0;
        let mut chunks = Vec::new();
        for (tensor, (layout, view)) in problem.list("weights").enumerate() {
            let (layout, rows) = (*layout, layout.shape[0]);
            let of = |(first, count)| ClassChunk { layout, view, tensor, first, first_of_all: before + first, count };
            chunks.extend(evenly(rows, self.class_rows, self.unit).map(of));
            before += rows;
        }
        chunks
    }
}

/// 1 over the norms of rows of a matrix, from its row `first` on: into `norms`, from its start on.
pub(super) fn norms(
    plan: &mut PlanBuilder<'_>,
    (layout, view): (&Layout, View),
    (first, count): (u32, u32),
    norms: View,
) -> Result<()> {
    let dim = layout.shape[1];
    let kernel = kernels::norms(layout);
    let rows = kernels::norm_rows(dim);
    let values = [
        ("count", count.into()),
        ("dim", dim.into()),
        ("x_start", (layout.start + first * layout.strides[0]).into()),
        ("x_row", layout.strides[0].into()),
        ("norms_start", norms.start.into()),
    ];
    let views = [("x", view), ("norms", norms)];
    plan.dispatch(&kernel, count.div_ceil(rows).into(), product([2, rows, dim]), &values, &views)
}

/// Rows of the class weights that take part: all, or those of listed classes.
pub(super) fn class_rows<S: Shapes>(config: &MarginSoftmaxConfig, problem: &Problem<S>) -> u32 {
    let all = problem.shapes.axis("class_rows").unwrap_or(0);
    problem.shapes.axis("sampled").map_or(all, |listed| listed * config.centres)
}

/// The classes that take part, and those in all.
pub(super) fn classes<S: Shapes>(config: &MarginSoftmaxConfig, problem: &Problem<S>) -> [(&'static str, Value); 2] {
    let all = problem.shapes.axis("class_rows").unwrap_or(0);
    [("classes", class_rows(config, problem)), ("all_classes", all)]
        .map(|(name, rows)| (name, (rows / config.centres).into()))
}

/// The tensors of a list, and which classes each holds.
pub(super) fn tensors<'a, S: Shapes>(
    config: &MarginSoftmaxConfig,
    problem: &'a Problem<S>,
    name: &'a str,
) -> impl Iterator<Item = ((&'a Layout, View), [(&'static str, Value); 3])> {
    let (centres, mut first) = (config.centres, 0);
    problem.list(name).map(move |(layout, view)| {
        let classes = layout.shape[0] / centres;
        let values = [("centres", centres), ("tensor_first", first), ("tensor_classes", classes)];
        first += classes;
        ((layout, view), values.map(|(name, value)| (name, value.into())))
    })
}

/// Brings a chunk of listed classes together, from the tensors in which they lie; where none are listed, nothing.
pub(super) fn gather<S: Shapes>(
    plan: &mut PlanBuilder<'_>,
    config: &MarginSoftmaxConfig,
    problem: &Problem<S>,
    chunk: &ClassChunk,
) -> Result<()> {
    let Some(listed) = chunk.listed(problem, config.centres) else { return Ok(()) };
    for ((layout, x), values) in tensors(config, problem, "weights") {
        let fours = layout.shape[1].div_ceil(4);
        let own = [("count", chunk.count), ("chunks", fours), ("x_start", layout.start), ("x_row", layout.strides[0])];
        let own = own.map(|(name, value)| (name, value.into()));
        let values = [&own[..], &values, &classes(config, problem)].concat();
        let views = [("x", x), ("gathered", chunk.view), listed];
        let workgroups = product([chunk.count, fours]).div_ceil(ROWS.into());
        plan.dispatch(&kernels::gather(layout), workgroups, product([8, ROWS]), &values, &views)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_bounded() {
        for rows in [1, 8, 255, 2048, 5000, 1 << 20] {
            for class_rows in [1, 10, 1000, 30_000, 1_000_000, 1 << 30] {
                for centres in [1, 3, 16] {
                    let chunks = Chunks::new(&MarginSoftmaxConfig::new().centres(centres), rows, class_rows);
                    assert!(product([chunks.rows, chunks.class_rows]) <= PRODUCTS.into(), "{rows} {class_rows}");
                    let some = product([chunks.rows, chunks.class_rows]) > u64::from(PRODUCTS / 2);
                    assert!(some || chunks.rows == rows || chunks.class_rows == class_rows, "{chunks:?}");
                }
            }
        }
        let chunks = |rows, class_rows| Chunks::new(&MarginSoftmaxConfig::new(), rows, class_rows);
        assert_eq!(chunks(64, 1_000_000).class_rows, 65_536);
        assert_eq!(chunks(1 << 20, 1000).rows, 4194);
    }
}
