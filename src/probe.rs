//! Which size the subgroups of kernels with matrices have, on devices that have several: asked of the kernels (feature `blocking`).

use crate::matrices::MatrixSubgroups;
use crate::{
    Attention, AttentionBackward, AttentionBackwardInputs, AttentionConfig, AttentionGradients, AttentionInputs,
    AttentionOutputs, Context, ContextOptions, Error, GatedAttention, GatedAttentionConfig, GatedAttentionInputs,
    GatedAttentionOutputs, MatMul, MatMulConfig, MatMulInputs, MatMulOutputs, Matrices, Result, TensorView,
};

/// Rows and dims of the tensors that the kernels run on.
const ROWS: u32 = 256;
const DIMS: [u32; 2] = [64, 128];

/// An op on a tensor of [1, 1, ROWS, dim] in and another out.
type Call = fn(&Context, TensorView<'_, 4>, TensorView<'_, 4>) -> Result<()>;

impl Context {
    /// The size of the subgroups that each op's kernels with [`Matrices::F16`] get on this device, for
    /// [`ContextOptions::matrix_subgroups`] of this driver; none where the device has no matrices, or no size was held.
    ///
    /// It runs each kernel once for every size that the device has, and waits for it. [`headless_with_matrices`] calls it where
    /// subgroups are of several sizes.
    ///
    /// [`headless_with_matrices`]: Self::headless_with_matrices
    ///
    /// # Errors
    /// [`Error::DeviceLost`]; [`Error::Readback`]; [`Error::Pipeline`] for a kernel that the driver does not compile.
    pub fn matrix_subgroups(&self) -> Result<MatrixSubgroups> {
        let info = self.device().adapter_info();
        let mut sizes = vec![8, 16, 32, 64, 128];
        sizes.retain(|size| (info.subgroup_min_size..=info.subgroup_max_size).contains(size));
        self.subgroups_held(&sizes)
    }

    /// The first of some sizes with which each op's kernels run.
    fn subgroups_held(&self, sizes: &[u32]) -> Result<MatrixSubgroups> {
        let first = |call| {
            for &size in sizes {
                if self.holds(size, call)? {
                    return Ok(Some(size));
                }
            }
            Ok(None)
        };
        Ok(MatrixSubgroups {
            attention: first(attention)?,
            attention_backward: first(attention_backward)?,
            gated_attention: first(gated_attention)?,
            matmul: first(matmul)?,
        })
    }

    /// Whether a call has no NaN among its results: a kernel fills them with it where its subgroups are of another size.
    fn holds(&self, size: u32, call: Call) -> Result<bool> {
        let options = ContextOptions { matrix_subgroups: MatrixSubgroups::all(size), ..self.capabilities().options };
        let context = Self::with_options(self.device().clone(), self.queue().clone(), options);
        for dim in DIMS {
            let shape = [1, 1, ROWS, dim];
            let [input, output] = [(); 2].map(|()| self.allocate((ROWS * dim) as usize));
            match call(&context, TensorView::f32(&input, shape), TensorView::f32(&output, shape)) {
                Err(Error::Unsupported { .. }) => return Ok(false),
                done => done?,
            }
            if self.download(&output)?.into_iter().any(f32::is_nan) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn attention(context: &Context, x: TensorView<'_, 4>, o: TensorView<'_, 4>) -> Result<()> {
    let op = Attention::new(context, AttentionConfig::new().matrices(Matrices::F16))?;
    context.run(&op.prepare(AttentionInputs::new(x, x, x), AttentionOutputs::new(o))?)
}

/// The gradients of half as many rows: of queries to the first rows of o, of keys to the others.
fn attention_backward(context: &Context, x: TensorView<'_, 4>, o: TensorView<'_, 4>) -> Result<()> {
    let op = AttentionBackward::new(context, AttentionConfig::new().matrices(Matrices::F16))?;
    let [.., rows, dim] = x.shape();
    let [x, dq] = [x, o].map(|view| view.with_extent(2, rows / 2));
    let [lse, dv] = [rows / 2, rows / 2 * dim].map(|count| context.allocate(count as usize));
    let gradients = AttentionGradients::new(
        dq,
        dq.with_offset(dq.offset + u64::from(rows / 2 * dim)),
        TensorView::f32(&dv, x.shape()),
    );
    let lse = TensorView::f32(&lse, [1, 1, rows / 2]);
    context.run(&op.prepare(AttentionBackwardInputs::new(x, x, x, x, lse, x), gradients)?)
}

fn gated_attention(context: &Context, x: TensorView<'_, 4>, o: TensorView<'_, 4>) -> Result<()> {
    let op = GatedAttention::new(context, GatedAttentionConfig::new().matrices(Matrices::F16))?;
    context.run(&op.prepare(GatedAttentionInputs::new(x, x, x), GatedAttentionOutputs::new(o))?)
}

/// xᵀ x, to the first rows of o.
fn matmul(context: &Context, x: TensorView<'_, 4>, o: TensorView<'_, 4>) -> Result<()> {
    let op = MatMul::new(context, MatMulConfig::new().matrices(Matrices::F16))?;
    let [.., dim] = x.shape();
    context.run(&op.prepare(MatMulInputs::new(x.swap_axes(2, 3), x), MatMulOutputs { c: o.with_extent(2, dim) })?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On a driver with matrices the size that it reports is found among others, by the results alone.
    #[test]
    fn kernels_tell_which_size_they_get() {
        let context = Context::headless_with_matrices("", ContextOptions::default()).unwrap();
        let found = context.subgroups_held(&[16, 8]).unwrap();
        let reported = context.capabilities().subgroup_size;
        let has_matrices = !context.capabilities().options.matrix_sizes.is_empty();
        assert_eq!(
            found,
            if has_matrices { MatrixSubgroups::all(reported.unwrap()) } else { MatrixSubgroups::default() }
        );
    }
}
