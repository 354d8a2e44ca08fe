//! Linear attention on operands that are stored in 16 bits.

use wgpu_attention::linear_attention::reference;
use wgpu_attention::reference::SumOrder;
use wgpu_attention::{
    Context, DType, Error, FeatureMap, LinearAttention, LinearAttentionInputs, LinearAttentionOutputs,
    LinearAttentionShapes, LinearMode, TensorView, wgpu,
};

use super::case::{Case, FAVOR, MAPS, Outcome, State, Stored, TAYLOR2, config};
use super::common::{Placed, Placement, by_a_gpus_kernels, context, device_with, own_and_any_gpu};
use DType::{BF16, F16, F32};

/// All of them, and each with others.
const STORED: [Stored; 4] = [
    Stored::all(F16),
    Stored::all(BF16),
    Stored { q: F16, k: BF16, v: F32, projection: F16, o: BF16, state_in: [F32, F16], state_out: [F16, BF16] },
    Stored { q: BF16, k: F32, v: F16, projection: BF16, o: F16, state_in: [BF16, F32], state_out: [BF16, F32] },
];

impl Case {
    /// The same with a state of earlier tokens, and operands stored in these types, with the numbers that they hold then.
    fn stored(mut self, stored: Stored) -> Self {
        let before = reference::linear_attention_in::<f32>(&self.config, &self.host(), SumOrder::InOrder).unwrap();
        let state =
            self.state_of(&Outcome { o: before.o, s: before.state_s, z: before.state_z, max: before.state_max });
        let [s, z] = stored.state_in;
        self.state = Some(State { s: state.s.rounded(s), z: state.z.rounded(z), max: state.max });
        self.q = self.q.rounded(stored.q);
        self.k = self.k.rounded(stored.k);
        self.v = self.v.rounded(stored.v);
        self.projection = self.projection.map(|projection| projection.rounded(stored.projection));
        Self { stored, ..self }
    }

    /// The same with a state that goes out as it came in.
    fn of_one_state(self) -> Self {
        let stored = Stored { state_out: self.stored.state_in, ..self.stored };
        Self { stored, ..self }
    }
}

/// The second of them gets a GPU's kernels, which pack. Those of a device with f16 run in the other test binary.
fn everywhere() -> Vec<(&'static str, &'static Context)> {
    let contexts = own_and_any_gpu();
    let native = context().capabilities().features.contains(wgpu::Features::SHADER_F16);
    if by_a_gpus_kernels() { contexts[..usize::from(native)].to_vec() } else { contexts }
}

const ALIGNED: Placement = Placement::Aligned;
/// Rows of an odd number of elements: the last half of a word is nobody's.
const ODD_ROWS: Placement = Placement::Interleaved { gap: 1 };

#[test]
fn every_type_and_map() {
    let causal = |map| config(map, LinearMode::Causal);
    let full = |map| config(map, LinearMode::Full);
    // One type each: each kernel takes a software driver a second to compile.
    let cases = [
        (causal(FeatureMap::EluPlusOne), [1, 2, 1, 70, 70, 8, 12], ALIGNED),
        (full(FeatureMap::Exp), [2, 2, 2, 9, 21, 8, 12], ALIGNED),
        (causal(TAYLOR2), [1, 1, 1, 20, 20, 7, 5], ODD_ROWS),
        (full(FAVOR), [1, 2, 1, 9, 21, 7, 5], ODD_ROWS),
        (causal(FeatureMap::Exp), [1, 1, 1, 70, 70, 8, 12], ALIGNED),
        (causal(FeatureMap::Cosine), [1, 2, 1, 20, 20, 8, 12], Placement::Interleaved { gap: 2 }),
        (full(FeatureMap::Softmax), [1, 2, 2, 9, 21, 8, 12], ALIGNED),
        (causal(FeatureMap::EluPlusOne), [1, 2, 1, 70, 70, 7, 5], ODD_ROWS),
    ];
    for (turn, (config, sizes, placement)) in cases.into_iter().enumerate() {
        let case = Case::new(config, sizes).stored(STORED[turn % 4]);
        for (kernels, context) in everywhere() {
            case.assert(&format!("{:?}, {placement:?}{kernels}", case.stored), &case.run_on(context, placement));
        }
    }
}

/// What neighbouring invocations write must not share a word, and the query must see the state before it is rounded.
#[test]
fn one_token_in_place() {
    for (turn, map) in MAPS.into_iter().enumerate() {
        let (dims, placement) = if turn % 2 == 0 { ([8, 12], ALIGNED) } else { ([7, 5], ODD_ROWS) };
        let config = config(map, LinearMode::Causal);
        let case = Case::new(config, [2, 4, 2, 1, 1, dims[0], dims[1]]).stored(STORED[turn % 4]).of_one_state();
        for (kernels, context) in everywhere() {
            case.assert(&format!("{:?}{kernels}", case.stored), &case.run_at(context, placement, true));
        }
    }
    // More value dims and features than a workgroup has invocations.
    let wide = Case::new(config(FeatureMap::EluPlusOne, LinearMode::Causal), [1, 2, 1, 1, 1, 66, 135]);
    for stored in [STORED[1], Stored { o: F16, ..Stored::all(F32) }] {
        let case = wide.clone().stored(stored).of_one_state();
        case.assert("wide", &case.run_at(context(), ODD_ROWS, true));
    }
}

#[test]
fn tokens_in_place_in_several_chunks() {
    for (map, stored) in [(FeatureMap::EluPlusOne, STORED[0]), (FeatureMap::Exp, STORED[1])] {
        let case = Case::causal(map, 150, 8, 12).stored(stored).of_one_state();
        for (kernels, context) in everywhere() {
            let first = case.run_at(context, ALIGNED, true);
            case.assert(&format!("{stored:?}{kernels}"), &first);
            first.assert_same_bits("again", &case.run_at(context, ALIGNED, true));
            first.assert_same_bits("elsewhere", &case.run_on(context, ALIGNED));
        }
    }
}

#[test]
fn heads_that_fill_a_device() {
    let case = Case::new(config(FeatureMap::EluPlusOne, LinearMode::Causal), [4, 64, 32, 70, 70, 8, 12]);
    let case = case.stored(STORED[1]);
    for (kernels, context) in everywhere().into_iter().rev().take(1) {
        case.assert(kernels, &case.run_on(context, ALIGNED));
    }
}

/// Rows that begin in the middle of a word can be read, and written only where the device has a type of 16 bits.
#[test]
fn rows_of_an_odd_stride() {
    let elu = config(FeatureMap::EluPlusOne, LinearMode::Causal);
    let reads = Stored { o: F32, state_out: [F32; 2], ..STORED[0] };
    let case = Case::new(elu, [1, 2, 2, 9, 9, 5, 5]).stored(reads);
    for (kernels, context) in everywhere() {
        case.assert(&format!("read{kernels}"), &case.run_on(context, Placement::Odd));
        for dtype in [F16, BF16] {
            let native = context.capabilities().features.contains(wgpu::Features::SHADER_F16);
            let writes = Stored { o: dtype, state_out: [dtype, F32], ..reads };
            if dtype == F16 && native {
                let case = Case { stored: writes, ..case.clone() };
                case.assert(&format!("written{kernels}"), &case.run_on(context, Placement::Odd));
                continue;
            }
            let [q, k, v] = [&case.q, &case.k, &case.v].map(|x| Placed::input(context, x, ALIGNED));
            let buffers: Vec<_> = (0..3).map(|_| context.allocate(4096)).collect();
            let attention = LinearAttention::new(context, elu).unwrap();
            // Rows of 5, or of a head's 5.
            let refused = |tensor, [o, s, z]: [DType; 3]| {
                let outputs = LinearAttentionOutputs {
                    o: TensorView::new(&buffers[0], o, [1, 2, 9, 5]),
                    state_s: Some(TensorView::new(&buffers[1], s, [1, 2, 5, 5])),
                    state_z: Some(TensorView::new(&buffers[2], z, [1, 2, 5])),
                    state_max: None,
                };
                let inputs = LinearAttentionInputs::new(q.view(), k.view(), v.view());
                let error = attention.prepare(inputs, outputs).unwrap_err();
                assert!(matches!(error, Error::Stride { tensor: named, .. } if named == tensor), "{error}");
                assert!(error.to_string().contains("no two rows"), "{error}");
            };
            refused("o", [dtype, F32, F32]);
            refused("state_s", [F32, dtype, F32]);
            refused("state_z", [F32, F32, dtype]);
        }
    }
}

#[test]
fn a_default_device_packs() {
    let Some(context) = device_with(wgpu::Limits::default()) else { panic!("a default device") };
    let attention = LinearAttention::new(&context, config(FeatureMap::EluPlusOne, LinearMode::Causal)).unwrap();
    let shapes = LinearAttentionShapes::new(1, 2, 80, 64);
    let [f32, f16, bf16] = [F32, F16, BF16].map(|dtype| attention.plan(&shapes, dtype).unwrap());
    assert!(f16.kernel().contains("q:PackedF16") && bf16.kernel().contains("v:PackedBF16"), "{}", bf16.kernel());
    assert_eq!(f32.bytes(), 2 * f16.bytes());
    assert!(matches!(attention.plan(&shapes, DType::U32), Err(Error::DType { tensor: "q", .. })));
}
