//! Products inside another op's plan: the kernels of this one, on matrices of that one's workspace and operands.

use super::plan::{Problem, dispatch, select};
use super::{MatMul, MatMulConfig, MatMulShapes};
use crate::Result;
use crate::dispatch::{PlanBuilder, Slot, View};
use crate::dtype::{DType, Storage};
use crate::tensor::{Layout, MAX_RANK};
use crate::wgsl::{Specialization, source};

/// Where a matrix lies, or a batch of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Matrix {
    slot: Slot,
    start: u32,
    /// From one batch, head and row of its memory to the next, in elements.
    strides: [u32; 3],
    storage: Storage,
    transposed: bool,
}

impl Matrix {
    /// An operand of two axes: its rows lie as it has them.
    pub fn operand((layout, view): (&Layout, View)) -> Self {
        let strides = [0, 0, layout.strides[0]];
        Self { slot: view.slot, start: layout.start, strides, storage: layout.storage, transposed: false }
    }

    /// A region of the workspace in f32, its rows `stride` apart.
    pub fn workspace(view: View, stride: u32) -> Self {
        let (strides, storage) = ([0, 0, stride], Storage::Shared);
        Self { slot: view.slot, start: view.start, strides, storage, transposed: false }
    }

    /// The same from a row of its memory on.
    pub fn rows_from(self, row: u32) -> Self {
        Self { start: self.start + row * self.strides[2], ..self }
    }

    /// Its transpose, in the same memory.
    pub fn transpose(self) -> Self {
        Self { transposed: !self.transposed, ..self }
    }

    /// As the kernels' table has it: with so many rows and columns, in the order of its memory.
    fn layout(&self, [batch, heads, rows, columns]: [u32; 4]) -> Layout {
        let [rows, columns] = if self.transposed { [columns, rows] } else { [rows, columns] };
        let mut layout = Layout::contiguous(&[batch, heads, rows, columns], self.storage);
        layout.strides[..3].copy_from_slice(&self.strides);
        Layout { start: self.start, transposed: self.transposed, ..layout }
    }

    fn view(&self) -> View {
        let (mut strides, mut names) = ([0; MAX_RANK], [""; MAX_RANK]);
        strides[..3].copy_from_slice(&self.strides);
        names[..3].copy_from_slice(&["batch", "head", "m"]);
        View { slot: self.slot, start: self.start, strides, names }
    }
}

/// c = a b, or c += a b: a step of another op's plan.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Product {
    /// Rows of a, columns of b, and what the sum runs over.
    pub sizes: [u32; 3],
    pub a: Matrix,
    pub b: Matrix,
    /// Of a workspace whose rows are a multiple of four apart, numbers past the last column are written too, up to such a multiple.
    pub c: Matrix,
    /// Whether c is added to. It is f32 then, its rows begin at multiples of four and are as far apart.
    pub adds: bool,
}

impl Product {
    /// c = a b, or c += a b.
    pub fn of(sizes: [u32; 3], [a, b, c]: [Matrix; 3], adds: bool) -> Self {
        Self { sizes, a, b, c, adds }
    }

    /// Adds the dispatches, by the kernel that the op itself would pick.
    pub fn dispatch(&self, plan: &mut PlanBuilder<'_>) -> Result<()> {
        let (config, problem) = (MatMulConfig::new(), self.problem());
        let [m, n, k] = self.sizes;
        let choice = select(&config, &problem, plan.device(), None)?.adding(self.adds);
        let sizes = [("batch", 1), ("heads", 1), ("m", m), ("n", n), ("k", k)].map(|(name, size)| (name, size.into()));
        let [a, b, c] = [self.a, self.b, self.c].map(|matrix| matrix.view());
        let views = [("a", a), ("b", b), ("c", c), ("sum", c), ("bias", View::NOWHERE), ("dc", View::NOWHERE)];
        let choice = if self.in_workspace() { choice.shared() } else { choice };
        dispatch(plan, &problem, &choice, &sizes, &views)
    }

    /// Whether c lies beside the sums of ranges.
    fn in_workspace(&self) -> bool {
        matches!(self.c.slot, Slot::Workspace { .. })
    }

    fn problem(&self) -> Problem {
        let [m, n, k] = self.sizes;
        let [a_transposed, b_transposed] = [self.a.transposed, self.b.transposed];
        let shapes = MatMulShapes { a_transposed, b_transposed, ..MatMulShapes::new(m, n, k) };
        let mut problem = Problem::contiguous::<MatMul>(&MatMulConfig::new(), shapes);
        let whole = n.next_multiple_of(4);
        let padded = self.in_workspace() && whole <= self.c.strides[2];
        for (name, matrix, extents) in [
            ("a", self.a, [1, 1, m, k]),
            ("b", self.b, [1, 1, k, n]),
            ("c", self.c, [1, 1, m, if padded { whole } else { n }]),
        ] {
            problem.change(name, |layout| *layout = matrix.layout(extents));
        }
        // c is written anyway.
        problem.change("c", |layout| {
            if layout.storage == Storage::Shared {
                layout.storage = Storage::Plain(DType::F32);
            }
        });
        problem
    }
}

/// The kernel that adds to c, of one that writes it in fours.
pub(super) fn adding(mut specialization: Specialization) -> Specialization {
    for fragment in &mut specialization.fragments {
        if *fragment == source!("matmul/c_vec4") {
            *fragment = source!("matmul/c_sum_vec4");
        }
    }
    specialization
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::Capabilities;

    fn workspace(stride: u32) -> Matrix {
        Matrix::workspace(Slot::Workspace { offset: 0, size: 1 << 20 }.into(), stride)
    }

    #[test]
    fn what_lies_in_the_workspace_is_written_in_fours() {
        let of = |columns, stride, adds| {
            let product = Product {
                sizes: [8, columns, 8],
                a: workspace(8).transpose(),
                b: workspace(8),
                c: workspace(stride).rows_from(2),
                adds,
            };
            let choice =
                select(&MatMulConfig::new(), &product.problem(), &Capabilities::plain(), None).expect("a plan");
            choice.adding(adds).files()
        };
        let has = |files: Vec<&str>, name: &str| files.contains(&format!("matmul/{name}").as_str());
        assert!(has(of(6, 8, false), "c_vec4") && has(of(6, 6, false), "c_scalar"));
        assert!(has(of(6, 8, true), "c_sum_vec4") && has(of(6, 8, true), "a_transposed_vec4"));
    }
}
