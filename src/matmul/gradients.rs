//! The gradients of a matrix product: products themselves, of views.

use super::MatMulInputs;
use crate::{Error, Result, TensorView};

/// What the axes of each tensor are called.
const AXES: [[&str; 4]; 3] = [["batch", "heads", "m", "k"], ["batch", "heads", "k", "n"], ["batch", "heads", "m", "n"]];

/// The gradients of c = activation(s), s = a b + bias, each a product of its own. What these return are the inputs of a
/// [`MatMul`](crate::MatMul) that writes it: first ds, by the config of forward, where that has an activation; then da, db and dbias
/// from ds, by a config without one. Without an activation, ds is dc. Of a layer, a is what went in, and da what flows back.
///
/// | gradient | inputs | config |
/// |---|---|---|
/// | ds | `inputs.gradient_of_sum(dc)` | that of forward |
/// | da, db, dbias | `inputs.gradient_of_a(ds)?`, `inputs.gradient_of_b(ds)?`, `inputs.gradient_of_bias(ds, ones)?` | no activation |
///
/// An axis that a or b repeats (stride 0) is summed over: it and the axis that the product sums over are taken for one, so that its
/// extent in the gradient is 1, where `ds` and the other factor lie so, as whole rows do. Sums are in an order that never changes.
impl<'a> MatMulInputs<'a> {
    /// ds = dc · activation′(a b + bias), `[batch, heads, m, n]`, element by element. The product is made again.
    #[must_use]
    pub fn gradient_of_sum(&self, dc: TensorView<'a, 4>) -> Self {
        Self { dc: Some(dc), ..*self }
    }

    /// da = ds bᵀ, `[batch, heads, m, k]`.
    ///
    /// # Errors
    /// [`Error::Stride`] where a repeats an axis over which no product of these views sums.
    pub fn gradient_of_a(&self, ds: TensorView<'a, 4>) -> Result<Self> {
        let repeats = repeated("a", &self.a, &AXES[0])?;
        let [ds, b] = folded("a", repeats, [ds, self.b], [3, 3])?;
        Ok(Self::new(ds, b.swap_axes(2, 3)))
    }

    /// db = aᵀ ds, `[batch, heads, k, n]`: of a weight that all batches share, `[1, 1, k, n]`.
    ///
    /// ```
    /// # #[cfg(feature = "blocking")]
    /// # fn main() -> wgpu_attention::Result<()> {
    /// use wgpu_attention::{Context, MatMul, MatMulConfig, MatMulInputs, MatMulOutputs, TensorView};
    /// let context = Context::headless()?;
    /// let (batch, tokens, width, out) = (2, 3, 4, 5);
    /// let [input, weight, ds] = [2 * 3 * 4, 4 * 5, 2 * 3 * 5].map(|count| context.upload(&vec![1.0_f32; count]));
    /// let inputs = MatMulInputs::new(
    ///     TensorView::f32(&input, [batch, 1, tokens, width]),
    ///     TensorView::f32(&weight, [1, 1, width, out]).broadcast_to([batch, 1, width, out]),
    /// );
    /// let dweight = context.allocate(4 * 5);
    /// let outputs = MatMulOutputs::new(TensorView::f32(&dweight, [1, 1, width, out]));
    /// let product = MatMul::new(&context, MatMulConfig::new())?;
    /// let ds = TensorView::f32(&ds, [batch, 1, tokens, out]);
    /// context.run(&product.prepare(inputs.gradient_of_b(ds)?, outputs)?)?;
    /// assert_eq!(context.download(&dweight)?, [6.0; 4 * 5]);
    /// # Ok(())
    /// # }
    /// # #[cfg(not(feature = "blocking"))]
    /// # fn main() {}
    /// ```
    ///
    /// # Errors
    /// As [`gradient_of_a`](Self::gradient_of_a), of b.
    pub fn gradient_of_b(&self, ds: TensorView<'a, 4>) -> Result<Self> {
        let repeats = repeated("b", &self.b, &AXES[1])?;
        let [a, ds] = folded("b", repeats, [self.a, ds], [2, 2])?;
        Ok(Self::new(a.swap_axes(2, 3), ds))
    }

    /// dbias of a bias per column, which all rows of the axes that it repeats share: the sums of columns of ds, a product with a row of
    /// ones, `[batch, heads, 1, n]`. `ones` are as many as rows are added up, or more. Of a bias that repeats nothing, ds is the
    /// gradient.
    ///
    /// # Errors
    /// [`Error::Operand`] without a bias; [`Error::Stride`] where it does not repeat m, or an axis over which no product sums, and of
    /// `ones` other than 1; [`Error::Shape`] of fewer of them.
    pub fn gradient_of_bias(&self, ds: TensorView<'a, 4>, ones: TensorView<'a, 1>) -> Result<Self> {
        let missing = Error::Operand { tensor: "bias", problem: "is missing, and so is its gradient".into() };
        let bias = self.bias.ok_or(missing)?;
        if bias.shape[2] > 1 && bias.strides[2] != 0 {
            let expected =
                "0, a bias per column: of another, the gradient is ds, or sums of it over what is no row".into();
            return Err(Error::Stride { tensor: "bias", axis: "m", expected, got: bias.strides[2] });
        }
        let [heads, batch] = [1, 0].map(|axis| bias.shape[axis] > 1 && bias.strides[axis] == 0);
        let [ds, _] = folded("bias", [batch, heads], [ds, ds], [2, 2])?;
        let [batch, heads, rows, _] = ds.shape;
        if ones.shape[0] < rows {
            let expected = format!("at least {rows}, as many as rows are added up");
            return Err(Error::Shape { tensor: "ones", axis: "rows", expected, got: ones.shape[0].into() });
        }
        if ones.strides[0] != 1 && rows > 1 {
            return Err(Error::Stride { tensor: "ones", axis: "rows", expected: "1".into(), got: ones.strides[0] });
        }
        let row = TensorView {
            buffer: ones.buffer,
            dtype: ones.dtype,
            offset: ones.offset,
            shape: [batch, heads, 1, rows],
            strides: [0, 0, 0, 1],
        };
        Ok(Self::new(row, ds))
    }
}

/// Whether a factor repeats its batch and its heads; it may repeat no other axis.
fn repeated(tensor: &'static str, view: &TensorView<'_, 4>, axes: &[&'static str; 4]) -> Result<[bool; 2]> {
    let repeats = |axis: usize| view.shape[axis] > 1 && view.strides[axis] == 0;
    if let Some(axis) = [2, 3].into_iter().find(|&axis| repeats(axis)) {
        let expected = "above 0, for its gradient: a sum over rows or columns of one matrix is another product".into();
        return Err(Error::Stride { tensor, axis: axes[axis], expected, got: 0 });
    }
    Ok([repeats(0), repeats(1)])
}

/// Two views whose axes that are summed over have become one with an inner axis of each, from the inner one out.
fn folded<'a>(
    tensor: &'static str,
    repeats: [bool; 2],
    mut views: [TensorView<'a, 4>; 2],
    inner: [usize; 2],
) -> Result<[TensorView<'a, 4>; 2]> {
    for axis in [1, 0].into_iter().filter(|&axis| repeats[axis]) {
        for (view, inner) in views.iter_mut().zip(inner) {
            let step = u64::from(view.shape[inner]).saturating_mul(view.strides[inner]);
            let rows = view.shape[axis].checked_mul(view.shape[inner]);
            let (Some(rows), true) = (rows, view.shape[axis] <= 1 || view.strides[axis] == step) else {
                let what = format!(
                    "above 0, or {step} in the gradient of c and the other factor, along which the sum goes on"
                );
                return Err(Error::Stride { tensor, axis: AXES[0][axis], expected: what, got: view.strides[axis] });
            };
            (view.shape[inner], view.shape[axis], view.strides[axis]) = (rows, 1, 0);
        }
    }
    Ok(views)
}
