//! One variant on one set of tensors: the call, and what the twin says of parts of its output.

mod attention;
pub mod gated;
pub mod linear;
mod three_dispatches;

use wgpu_attention::reference::SumOrder;
use wgpu_attention::{Causal, Context, GauMode, GauWeights, Prepared, Result, TuningCase};

use attention::SoftmaxCase;
use gated::GatedCase;
use linear::LinearCase;
use three_dispatches::ThreeDispatches;

use super::call::Call;
use super::tensors::{Shape, Tensors, elements};
use super::variants::{Kind, Variant};

/// A variant with what it needs to run.
pub trait Case: Sync {
    /// The call that is timed.
    fn prepare(&self) -> Result<Call<'_>>;

    /// The same call with the entropy of each row as a second output, where the op has that.
    fn prepare_with_entropy(&self) -> Option<Result<Prepared<'_>>> {
        None
    }

    /// Whether its products are those of cooperative matrices.
    fn by_matrices(&self) -> bool {
        false
    }

    /// The call as autotune takes it, where it is one op's.
    fn tuning_case(&self) -> Option<TuningCase> {
        None
    }

    /// Bytes of what a query in decoding knows of the keys before it: k and v.
    fn cache_bytes(&self, shape: &Shape) -> u64 {
        2 * elements(shape.kv()) as u64 * shape.dtype.size()
    }

    /// Parts of the output that the twin computes within about `work` multiply-adds: everything, or a sample.
    fn parts(&self, work: u64) -> Vec<Part>;

    /// What the twin says of a part.
    fn twin(&self, part: &Part, arithmetic: Arithmetic) -> Result<Twin>;

    /// What a row's weights may be off by, in ULP, for which naive f32 does not stand: WGSL's exp, which grows worse with
    /// its argument, and signed sums in another order.
    fn weight_ulps(&self, truth: &Twin) -> f64;
}

/// Positions in one `[batch, q_head]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    pub head: [usize; 2],
    pub rows: Vec<usize>,
    /// Multiply-adds that the twin spends on it.
    pub work: u64,
    /// Bytes that the twin holds meanwhile.
    pub memory: u64,
}

/// How the twin computes.
#[derive(Clone, Copy, Debug)]
pub enum Arithmetic {
    /// f64, in order.
    Truth,
    /// f32, sums shuffled by a seed.
    Naive(u64),
}

/// The twin's numbers.
#[derive(Clone, Debug, Default)]
pub struct Twin {
    /// Row by row.
    pub o: Vec<f64>,
    /// One for each row, where the op has that.
    pub entropy: Vec<f64>,
}

/// Sets a variant up on tensors.
pub fn case<'t>(context: &Context, variant: &Variant, tensors: &'t Tensors) -> Result<Box<dyn Case + 't>> {
    let causal = if tensors.shape.causal { Causal::BottomRight } else { Causal::None };
    let gau = |weights, mode| GatedCase::gau(context, causal, weights, mode, tensors);
    Ok(match variant.kind {
        Kind::Softmax(scale) => Box::new(SoftmaxCase::new(context, causal, scale, tensors)?),
        Kind::ThreeDispatches => Box::new(ThreeDispatches::new(context, tensors)?),
        Kind::SquaredRelu(divisor) => {
            Box::new(GatedCase::plain(context, causal, GauWeights::SquaredRelu(divisor), tensors)?)
        }
        Kind::Gau(weights) => Box::new(gau(weights, GauMode::Full)?),
        Kind::Linear(feature_map) => Box::new(LinearCase::new(context, feature_map, tensors)?),
        Kind::MixedChunk => Box::new(gau(GauWeights::default(), GauMode::MIXED_CHUNK)?),
    })
}

/// Rows that are compared when not all are: fewer where one is very dear.
const SAMPLED_ROWS: [u64; 2] = [4, 32];

/// All rows, one a part, if that is within `work` at `row_work` each; else some, spread over batch, heads and positions.
pub fn row_parts(tensors: &Tensors, row_work: u64, work: u64) -> Vec<Part> {
    let [batch, heads, len] = tensors.shape.rows().map(u64::from);
    let rows = batch * heads * len;
    let [fewest, most] = SAMPLED_ROWS;
    let count =
        if rows.saturating_mul(row_work) <= work { rows } else { (4 * work / row_work).clamp(fewest, most).min(rows) };
    let part = |index: u64| {
        let row = index * (rows - 1) / (count - 1).max(1);
        let [b, h, i] = [row / len / heads, row / len % heads, row % len].map(|index| index as usize);
        Part { head: [b, h], rows: vec![i], work: row_work, memory: 16 * u64::from(tensors.shape.len) }
    };
    (0..count).map(part).collect()
}

/// The arithmetic as a twin takes it: whether in f64, and the order of sums.
pub fn order(arithmetic: Arithmetic) -> (bool, SumOrder) {
    match arithmetic {
        Arithmetic::Truth => (true, SumOrder::InOrder),
        Arithmetic::Naive(seed) => (false, SumOrder::Shuffled(seed)),
    }
}
