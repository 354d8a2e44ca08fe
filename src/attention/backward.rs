//! The gradients of softmax attention.

mod kernels;
mod plan;
pub mod reference;
mod shapes;
mod tiles;

#[doc(hidden)]
pub use kernels::specializations;
pub use shapes::AttentionBackwardShapes;

use super::AttentionConfig;
use crate::TensorView;
use crate::op::op;
use crate::operand::{Fill, operands};

operands! {
    /// The tensors that the backward pass of softmax attention reads: those of [`AttentionInputs`](crate::AttentionInputs), what
    /// [`Attention`](crate::Attention) made of them, and the gradients of that.
    ///
    /// | field | shape | dtype | |
    /// |---|---|---|---|
    /// | `q`, `k`, `v`, `kv_lens`, `mask` | | | as forward |
    /// | `bias` | `[batch or 1, q_heads or 1, q_len or 1, kv_len]` | float | as forward; an axis of 1 is repeated, and `dbias` summed over it |
    /// | `row_scale` | `[batch or 1, q_heads or 1, q_len or 1]` | float | likewise, and `drow_scale` |
    /// | `o`, `lse` | | | as forward wrote them |
    /// | `entropy` | `[batch, q_heads, q_len]` | f32 | the same; required by `dentropy`, else not read |
    /// | `dout` | `[batch, q_heads, q_len, v_dim]` | float | the gradient of o |
    /// | `dlse`, `dentropy` | `[batch, q_heads, q_len]` | f32 | those of lse and of the entropy |
    ///
    /// At least one gradient comes in. What a call of forward with views that repeat an axis (stride 0) took, this one takes too: a
    /// bias or scale of its full shape, whatever its strides, has a gradient of that shape.
    ///
    /// Keys and values that no row sees, and memory between rows, may hold anything, NaN included. NaN in a row that sees keys makes
    /// its own dq NaN or infinite, and the dk and dv of those keys; NaN in a key does so to the rows that see it; but for factors on
    /// matrices, of which NaN may count as any number. Other rows and keys do not notice. Rows are at most as many as find room in one
    /// binding with 16 bytes each: 2²³ on a default device.
    AttentionBackwardInputs {
        /// What every call has; a gradient is to be added.
        pub fn of(q: 4, k: 4, v: 4, o: 4, lse: 3);
        /// Queries.
        q: required float ["batch", "q_heads", "q_len", "head_dim"];
        /// Keys.
        k: required float ["batch", "kv_heads", "kv_len", "head_dim"];
        /// Values.
        v: required float ["batch", "kv_heads", "kv_len", "v_dim"];
        /// Visible keys per batch, in tokens.
        kv_lens: optional lengths ["batch"];
        /// Additive bias.
        bias: optional float ["batch:bias_batches", "q_heads:bias_heads", "q_len:bias_rows", "kv_len"];
        /// Boolean mask, true where a key may be seen.
        mask: optional mask ["batch", "q_heads", "q_len", "kv_len"].broadcast();
        /// One scale per row.
        row_scale: optional float ["batch:scale_batches", "q_heads:scale_heads", "q_len:scale_rows"].planned_as_f32().filled(Fill::Constant(0.125));
        /// The output.
        o: required float ["batch", "q_heads", "q_len", "v_dim"];
        /// Log-sum-exp of each row's scores.
        lse: required statistic ["batch", "q_heads", "q_len"].filled(Fill::Constant(8.0));
        /// Entropy of each row's weights.
        entropy: optional statistic ["batch", "q_heads", "q_len"].filled(Fill::Constant(8.0));
        /// The gradient of the output.
        dout: optional float ["batch", "q_heads", "q_len", "v_dim"];
        /// The gradient of lse.
        dlse: optional statistic ["batch", "q_heads", "q_len"];
        /// The gradient of the entropy.
        dentropy: optional statistic ["batch", "q_heads", "q_len"];
    }
    /// The gradients that the backward pass writes, of which at least one is asked for.
    ///
    /// | field | shape | dtype | |
    /// |---|---|---|---|
    /// | `dq` | `[batch, q_heads, q_len, head_dim]` | float | 0 in a row that sees no key |
    /// | `dk` | `[batch, kv_heads, kv_len, head_dim]` | float | summed over the query heads that share the kv head; 0 where no row sees the key |
    /// | `dv` | `[batch, kv_heads, kv_len, v_dim]` | float | likewise |
    /// | `dbias` | as `bias` | float | summed over the axes that are 1 there |
    /// | `drow_scale` | as `row_scale` | f32 | likewise |
    /// | `dscale` | `[q_heads]` | f32 | summed over batch and rows, of the number in [`Scale`](crate::Scale): `Fixed`'s own, κ, or s; of a scale without a number, of a factor before it, which is 1. Not of `PerRow` |
    ///
    /// A float is f32, f16 or bf16: rounded to nearest even, once, from f32. Sums are in an order that never changes: the same call
    /// gives the same bits. A gradient that is not asked for costs nothing. No output may lie in a buffer of an input, even beside it.
    AttentionGradients {
        /// No gradient yet.
        pub fn none();
        /// Of the queries.
        dq: optional float ["batch", "q_heads", "q_len", "head_dim"];
        /// Of the keys.
        dk: optional float ["batch", "kv_heads", "kv_len", "head_dim"];
        /// Of the values.
        dv: optional float ["batch", "kv_heads", "kv_len", "v_dim"];
        /// Of the bias.
        dbias: optional float ["batch:bias_batches", "q_heads:bias_heads", "q_len:bias_rows", "kv_len"];
        /// Of the scale of each row.
        drow_scale: optional statistic ["batch:scale_batches", "q_heads:scale_heads", "q_len:scale_rows"];
        /// Of the scale's number, for each head.
        dscale: optional statistic ["q_heads"];
    }
    /// The inputs in host memory; see [`AttentionBackwardInputs`] for shapes. What forward wrote is computed again.
    HostInputs {}
}

impl<'a> AttentionBackwardInputs<'a> {
    /// From the gradient of o.
    #[must_use]
    pub fn new(
        q: TensorView<'a, 4>,
        k: TensorView<'a, 4>,
        v: TensorView<'a, 4>,
        o: TensorView<'a, 4>,
        lse: TensorView<'a, 3>,
        dout: TensorView<'a, 4>,
    ) -> Self {
        Self { dout: Some(dout), ..Self::of(q, k, v, o, lse) }
    }
}

impl<'a> AttentionGradients<'a> {
    /// Those of q, k and v.
    #[must_use]
    pub fn new(dq: TensorView<'a, 4>, dk: TensorView<'a, 4>, dv: TensorView<'a, 4>) -> Self {
        Self { dq: Some(dq), dk: Some(dk), dv: Some(dv), ..Self::none() }
    }
}

op! {
    /// The backward pass of an [`Attention`](crate::Attention) of the same config.
    ///
    /// ```text
    /// p = exp(s − lse);   dp = dout vᵀ;   δ = rowsum(dout ∘ o) − dlse
    /// ds = p (dp − δ) − dentropy p (log p + entropy);   dbias = ds;   dv = pᵀ dout
    /// dx = ds (1 − (s' / cap)²), s' behind the softcap;   dq = scale dx k;   dk = (scale dx)ᵀ q
    /// drow_scale_i = Σ_j dx_ij q_i·k_j;   dscale = Σ_i drow_scale_i ∂scale_i/∂number
    /// ```
    ///
    /// A score that a bias takes below −1e38 counts as that, and moves neither by the bias nor by q and k. The weights p are made again
    /// in tiles from q, k and lse, and no buffer of length × length is made but a `dbias` as large as the bias: what is asked for of
    /// dq and the scales takes one kernel over tiles of rows, dk and dv together one over tiles of keys, or of wide heads by matrices one
    /// each, dbias one over tiles of both. The workspace holds four numbers a row; partial sums where few tiles would leave a GPU idle; and, where gradients of scales are
    /// asked for or nine buffers would be bound, sums of the size of the gradients.
    ///
    /// The weights are made again from an lse of f32, whose rounding, up to |lse| 2⁻²⁴, is a relative error of every weight of the row,
    /// beside that of the scores, which forward has too. At an lse of 10⁴ that is less than a thousandth; under a bias of −10⁹ for a whole
    /// row, lse and scores are multiples of 64, and weights are off by factors of up to e³². A row whose every visible score counts as
    /// −10³⁸ has weights of 1 each in place of 1/n. Hide the keys of such rows by the mask, or let no gradient come in for them.
    ///
    /// With [`Matrices::F16`](crate::Matrices) the products of dq, dk and dv are by cooperative matrices, where forward's are, and else are
    /// refused likewise. Their factors are rounded to f16 in units that are powers of two: each row of `dout` has one, each row of p and ds, so
    /// that gradients may be of any size, as loss functions make them; q, k and v count as in forward. A dp − δ that cancels is off by what
    /// dp is. Where a device grants too little workgroup memory (256 dims take 37 KiB), those of q or of k and v are f32, and the plan says
    /// so. `dbias` is f32: its kernel writes a number for every pair, and waits for memory. An lse of forward by matrices is the one that
    /// belongs to weights by matrices; those of a gradient in f32 are off by what the f16 of q and k moves their scores by, and count a
    /// `dentropy` with 16 bits.
    ///
    /// ```no_run
    /// use wgpu_attention::{AttentionBackward, AttentionBackwardInputs, AttentionConfig, AttentionGradients, Causal, Context, TensorView};
    /// # fn record(context: &Context, encoder: &mut wgpu::CommandEncoder, lse: &wgpu::Buffer,
    /// #     [q, k, v, o, dout, dq, dk, dv]: [&wgpu::Buffer; 8]) -> wgpu_attention::Result<()> {
    /// let backward = AttentionBackward::new(context, AttentionConfig::new().causal(Causal::BottomRight))?;
    /// let [q, k, v, o, dout, dq, dk, dv] =
    ///     [q, k, v, o, dout, dq, dk, dv].map(|buffer| TensorView::f32(buffer, [1, 8, 2048, 64]));
    /// let lse = TensorView::f32(lse, [1, 8, 2048]); // as the forward call wrote it
    /// backward.record(encoder, AttentionBackwardInputs::new(q, k, v, o, lse, dout), AttentionGradients::new(dq, dk, dv))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Of [`prepare`](Self::prepare): no gradient that comes in, or none asked for; a `dentropy` without `entropy`; a `dbias` or
    /// `drow_scale` of what is not given; a `dscale` where rows have their own.
    ///
    /// # Source
    /// Dao, "FlashAttention-2", 2023, algorithm 2.
    pub struct AttentionBackward: AttentionConfig, AttentionBackwardShapes, AttentionBackwardInputs => AttentionGradients;
    /// Picks the kernels for contiguous tensors of these shapes, floats stored as `dtype`, and compiles them.
    plan;
}
