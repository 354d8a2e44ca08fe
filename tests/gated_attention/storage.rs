//! Gated attention on operands that are stored in 16 bits.

use wgpu_attention::{
    Causal, Context, ContextOptions, DType, Divisor, Error, GatedAttention, GatedAttentionConfig, GatedAttentionShapes,
    GauMode, GauWeights, LinearDivisor, QuadraticDivisor, wgpu,
};

use crate::common::{Placement, assert_same_bits, device_with, matrices, own_and_any_gpu};
use crate::{Case, Source, V1};
use DType::{BF16, F16, F32};

/// The types of the operands that may have another than f32.
#[derive(Clone, Copy, Debug)]
pub struct Stored {
    /// q or z, k, q_lin and k_lin.
    pub keys: [DType; 4],
    /// Of the maps to those four.
    pub gammas: [DType; 4],
    pub betas: [DType; 4],
    pub v: DType,
    pub u: DType,
    pub o: DType,
}

impl Stored {
    pub const F32: Self = Self::all(F32);
    const MIXED: Self = Self {
        keys: [F16, BF16, F32, F16],
        gammas: [F32, F16, BF16, F16],
        betas: [BF16, F32, F16, BF16],
        v: BF16,
        u: F32,
        o: F16,
    };
    const MIXED_OTHERWISE: Self = Self {
        keys: [BF16, F32, F16, BF16],
        gammas: [F16, BF16, F32, F32],
        betas: [F32, F16, BF16, F16],
        v: F16,
        u: BF16,
        o: BF16,
    };

    const fn all(dtype: DType) -> Self {
        Self { keys: [dtype; 4], gammas: [dtype; 4], betas: [dtype; 4], v: dtype, u: dtype, o: dtype }
    }
}

impl Case {
    /// The same with operands stored in these types, and with the numbers that they hold then.
    fn stored(self, stored: Stored) -> Self {
        let maps = stored.gammas.into_iter().chain(stored.betas);
        Self {
            keys: self.keys.into_iter().zip(stored.keys).map(|(tensor, dtype)| tensor.rounded(dtype)).collect(),
            maps: self.maps.into_iter().zip(maps).map(|(tensor, dtype)| tensor.rounded(dtype)).collect(),
            v: self.v.rounded(stored.v),
            u: self.u.map(|u| u.rounded(stored.u)),
            stored,
            ..self
        }
    }
}

const ROW_SUM: GatedAttentionConfig =
    GatedAttentionConfig { weights: GauWeights::SquaredRelu(Divisor::RowSum { eps: 1e-6 }), ..V1 };

const CHUNKS: GatedAttentionConfig = GatedAttentionConfig {
    mode: GauMode::MixedChunk { chunk: 8, quadratic: QuadraticDivisor::ChunkDim, linear: LinearDivisor::Tokens },
    ..V1
};

/// Each way to weigh, each source, whole vectors and rows of an odd number of elements, of which the last half of a word is
/// nobody's. Each is a kernel to compile, so the contexts take turns.
fn check_all(turn: usize, stored: Stored) {
    let [even, odd] = [2, 1].map(|gap| Placement::Interleaved { gap });
    let whole = Placement::Aligned;
    let softmax = V1.weights(GauWeights::SOFTMAX_LOG_N);
    let cases = [
        (Case::new(V1, Source::Shared, [2, 2, 2, 9, 9, 8, 8]).gated(), whole),
        (Case::new(ROW_SUM.causal(Causal::BottomRight), Source::Given, [1, 2, 1, 9, 21, 10, 12]), even),
        (Case::new(softmax, Source::GammaOnly, [2, 2, 2, 9, 9, 7, 5]).gated().with_lens(&[9, 4]), odd),
        (Case::new(CHUNKS.causal(Causal::TopLeft), Source::Shared, [1, 2, 2, 20, 20, 8, 8]).gated(), whole),
        (Case::new(CHUNKS, Source::Given, [1, 2, 2, 20, 20, 5, 7]).gated(), odd),
    ];
    let contexts = own_and_any_gpu();
    for (at, (case, placement)) in cases.into_iter().enumerate() {
        let (kernels, context) = contexts[(turn + at) % contexts.len()];
        let case = case.stored(stored);
        case.assert(&format!("{stored:?}, {placement:?}{kernels}"), &case.run(context, placement));
    }
}

#[test]
fn f16() {
    check_all(0, Stored::all(F16));
    check_all(1, Stored::MIXED);
}

#[test]
fn bf16() {
    check_all(1, Stored::all(BF16));
    check_all(0, Stored::MIXED_OTHERWISE);
}

#[test]
fn on_cooperative_matrices() {
    let Some(context) = matrices() else { return };
    // One kernel: it takes a software driver long to compile.
    let config = V1.weights(GauWeights::Softmax).causal(Causal::BottomRight);
    let case = Case::new(config, Source::Shared, [1, 1, 1, 21, 21, 12, 20]).gated().stored(Stored::MIXED).on_matrices();
    case.assert("by matrices", &case.run(context, Placement::Interleaved { gap: 2 }));
}

/// The results of several ranges, combined.
#[test]
fn keys_in_ranges() {
    let stored = [(F16, V1.weights(GauWeights::Softmax), 70), (BF16, ROW_SUM, 5)];
    for ((dtype, config, len), (kernels, context)) in stored.into_iter().zip(own_and_any_gpu().into_iter().cycle()) {
        let case = Case::new(config, Source::Given, [1, 1, 1, len, 150, 8, 12]).gated().stored(Stored::all(dtype));
        let options = ContextOptions { max_keys_per_split: Some(64), ..context.capabilities().options };
        let split = Context::with_options(context.device().clone(), context.queue().clone(), options);
        let [first, again] = [0; 2].map(|_| case.run(&split, Placement::Aligned));
        case.assert(&format!("{dtype:?}{kernels}"), &first);
        assert_same_bits("again", &first, &again);
    }
}

/// Rows that begin in the middle of a word can be read, and written only where the device has a type of 16 bits.
#[test]
fn rows_of_an_odd_stride() {
    let stored = Stored { o: F32, ..Stored::all(F16) };
    let case = Case::new(V1, Source::Given, [1, 2, 2, 3, 7, 5, 5]).gated().stored(stored);
    for (kernels, context) in own_and_any_gpu() {
        case.assert(&format!("read{kernels}"), &case.run(context, Placement::Odd));
        for dtype in [F16, BF16] {
            let native = context.capabilities().features.contains(wgpu::Features::SHADER_F16);
            let case = case.clone().stored(Stored { o: dtype, ..stored });
            match case.try_run(context, Placement::Odd) {
                Ok(o) => {
                    assert!(dtype == F16 && native, "{dtype:?} rows share words{kernels}");
                    case.assert(&format!("written{kernels}"), &o);
                }
                Err(error) => {
                    assert!(dtype == BF16 || !native, "{error}{kernels}");
                    assert!(matches!(error, Error::Stride { tensor: "o", .. }), "{error}");
                }
            }
        }
    }
}

#[test]
fn a_plan_is_made_for_a_type() {
    let device = device_with(wgpu::Limits::default()).expect("a default device");
    for (shapes, first) in
        [(GatedAttentionShapes::new(1, 1, 8, 16, 8), "q"), (GatedAttentionShapes::gau(1, 1, 8, 16, 8), "z")]
    {
        let op = GatedAttention::new(&device, V1).unwrap();
        let whole = op.plan(&shapes, F32).unwrap();
        for (dtype, storage) in [(F16, "v:PackedF16"), (BF16, "v:PackedBF16")] {
            let plan = op.plan(&shapes, dtype).unwrap();
            assert!(plan.kernel().contains(storage), "{}", plan.kernel());
            assert_eq!(2 * plan.bytes(), whole.bytes());
        }
        let error = op.plan(&shapes, DType::Bool).unwrap_err();
        assert!(matches!(error, Error::DType { tensor, .. } if tensor == first), "{error}");
    }
}
