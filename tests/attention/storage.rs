//! Attention on operands that are stored in 16 bits.

use wgpu_attention::{AttentionConfig, Causal, Context, ContextOptions, DType, Error, Scale, wgpu};

use super::common::{
    Placed, Placement, Tensor, assert_same_bits, context, contexts, device_with, matrices, own_and_any_gpu,
};
use super::{Attention, AttentionInputs, AttentionOutputs, Case};
use DType::{BF16, F16, F32};

/// The types of the operands that may have another than f32.
#[derive(Clone, Copy, Debug)]
pub struct Stored {
    pub q: DType,
    pub k: DType,
    pub v: DType,
    pub bias: DType,
    pub row_scale: DType,
    pub o: DType,
}

impl Stored {
    pub const F32: Self = Self { q: F32, k: F32, v: F32, bias: F32, row_scale: F32, o: F32 };
    pub const BF16: Self = Self { q: BF16, k: BF16, v: BF16, bias: BF16, row_scale: BF16, o: F32 };
}

impl Case {
    /// The same with operands stored in these types, and with the numbers that they hold then.
    pub fn stored(self, stored: Stored) -> Self {
        Self {
            q: self.q.rounded(stored.q),
            k: self.k.rounded(stored.k),
            v: self.v.rounded(stored.v),
            bias: self.bias.map(|bias| bias.rounded(stored.bias)),
            row_scale: self.row_scale.map(|scale| scale.rounded(stored.row_scale)),
            stored,
            ..self
        }
    }
}

/// All of them, and each with others.
const STORED: [Stored; 5] = [
    Stored { q: F16, k: F16, v: F16, bias: F16, row_scale: F16, o: F16 },
    Stored { q: BF16, k: BF16, v: BF16, bias: BF16, row_scale: BF16, o: BF16 },
    Stored { q: F32, k: F16, v: F16, bias: F32, row_scale: F32, o: F32 },
    Stored { q: F16, k: BF16, v: F32, bias: BF16, row_scale: F32, o: F16 },
    Stored { q: BF16, k: F32, v: F16, bias: F16, row_scale: BF16, o: BF16 },
];

#[test]
fn every_type_and_placement() {
    let causal = AttentionConfig::new().causal(Causal::BottomRight);
    let all = causal.window(Some(20), Some(3)).scale(Scale::PerRow).softcap(4.0);
    for (turn, stored) in STORED.into_iter().enumerate() {
        let sizes = [
            ([2, 2, 1, 9, 21, 64, 64], Placement::Aligned),
            ([1, 2, 2, 70, 70, 64, 32], Placement::Aligned),
            ([1, 2, 1, 9, 21, 10, 12], Placement::Interleaved { gap: 2 }),
            // Rows of an odd number of elements: the last half of a word is nobody's.
            ([1, 2, 2, 5, 9, 7, 5], Placement::Interleaved { gap: 1 }),
        ];
        // With and without all options in turn: each kernel takes a software driver a second to compile.
        for (at, (sizes, placement)) in sizes.into_iter().enumerate() {
            let plain = Case::new(causal, sizes);
            let [.., q_len, kv_len] = plain.scores_shape();
            let full = Case::new(all, sizes).with_mask(plain.scores_shape()).with_bias([1, 1, q_len, kv_len]);
            let case = if (turn + at).is_multiple_of(2) { plain } else { full }.stored(stored);
            for (kernels, context) in own_and_any_gpu() {
                case.assert(&format!("{stored:?}, {placement:?}{kernels}"), &case.run(context, placement));
            }
        }
    }
}

#[test]
fn on_cooperative_matrices() {
    let Some(context) = matrices() else { return };
    let config = AttentionConfig::new().causal(Causal::BottomRight).scale(Scale::PerRow).softcap(4.0);
    // One kernel: it takes a software driver long to compile.
    let (stored, placement) = (STORED[3], Placement::Interleaved { gap: 2 });
    let case = Case::new(config, [1, 2, 1, 9, 21, 12, 20]).with_bias([1, 1, 9, 21]).stored(stored).on_matrices();
    case.assert(&format!("{stored:?}, {placement:?}, by matrices"), &case.run(context, placement));
}

#[test]
fn keys_in_ranges() {
    for stored in &STORED[..2] {
        let case = Case::new(AttentionConfig::new(), [1, 4, 1, 1, 700, 64, 64]).stored(*stored);
        for (kernels, context) in contexts() {
            let options = ContextOptions { max_keys_per_split: Some(128), ..context.capabilities().options };
            let split = Context::with_options(context.device().clone(), context.queue().clone(), options);
            case.assert(&format!("{stored:?}{kernels}"), &case.run(&split, Placement::Aligned));
        }
    }
}

/// An infinity in the bias hides its key in every type; so does it in the twin.
#[test]
fn a_bias_of_minus_infinity() {
    for stored in &STORED[..2] {
        let mut case = Case::new(AttentionConfig::new(), [1, 1, 1, 6, 9, 8, 8]).with_bias([1, 1, 6, 9]);
        let bias = case.bias.as_mut().expect("a bias");
        (0..9).for_each(|j| *bias.at_mut([0, 0, 0, j]) = f32::NEG_INFINITY);
        (3..9).for_each(|j| *bias.at_mut([0, 0, 2, j]) = f32::NEG_INFINITY);
        let case = case.stored(*stored);
        for (kernels, context) in own_and_any_gpu() {
            case.assert(&format!("{stored:?}{kernels}"), &case.run(context, Placement::Aligned));
        }
    }
}

/// With one key o is v, so that every number of a type can be followed through: in as stored, out rounded as the CPU rounds.
#[test]
fn numbers_go_through_as_the_cpu_rounds_them() {
    let mut numbers: Vec<f32> = vec![
        0.0,
        1.0,
        65504.0,
        65519.0,
        65520.0,
        70000.0,
        1e30,
        3.3e38,
        6.1035156e-5,
        6.097_555e-5,
        5.9604645e-8,
        2.9802322e-8,
        2.9802326e-8,
        8.940697e-8,
        1.0009766,
        1.0004883,
        1.0014648,
        1.003_906_3,
        1.0117188,
        0.1,
        f32::MIN_POSITIVE,
        2047.5,
        2049.0,
        2051.0,
        33.3,
        1e-3,
        7.7e-6,
        1e-30,
    ];
    numbers.extend(numbers.clone().iter().map(|x| -x));
    let len = numbers.len();
    let v = Tensor { data: numbers, shape: [1, 1, 1, len] };
    let one = Tensor::filled(1.0, [1, 1, 1, 4]);
    for (kernels, context) in own_and_any_gpu() {
        for (read, write) in [(F32, F16), (F32, BF16), (F16, F32), (BF16, F32), (F16, F16), (BF16, BF16), (BF16, F16)] {
            let [q, k] = [&one, &one].map(|tensor| Placed::input(context, tensor, Placement::Aligned));
            let stored = Placed::input_as(context, &v, Placement::Aligned, read);
            let o = Placed::output_as(context, v.shape, Placement::Aligned, write);
            let attention = Attention::new(context, AttentionConfig::new()).unwrap();
            let inputs = AttentionInputs::new(q.view(), k.view(), stored.view());
            let prepared = attention.prepare(inputs, AttentionOutputs::new(o.view())).unwrap();
            context.run(&prepared).unwrap();
            let got = o.read(context, "o");
            let held = v.clone().rounded(read);
            let want = held.clone().rounded(write);
            for ((got, want), held) in got.iter().zip(&want.data).zip(&held.data) {
                // WGSL lets a device take an infinity for any number.
                let same = got.to_bits() == want.to_bits() || (got == want && *got == 0.0) || held.is_infinite();
                assert!(same, "{read:?} to {write:?}{kernels}: {held:e} became {got:e}, not {want:e}");
            }
        }
    }
}

#[test]
fn the_same_call_gives_the_same_bits() {
    let case = Case::new(AttentionConfig::new(), [1, 2, 1, 9, 21, 16, 16]).stored(STORED[0]);
    let [first, second] = [0; 2].map(|_| case.run(context(), Placement::Aligned));
    first.iter().zip(&second).for_each(|(a, b)| assert_same_bits("again", a, b));
}

/// Rows that begin in the middle of a word can be read, and written only where the device has a type of 16 bits.
#[test]
fn rows_of_an_odd_stride() {
    let stored = Stored { o: F32, ..STORED[0] };
    let case = Case::new(AttentionConfig::new(), [1, 2, 1, 3, 7, 5, 5]).stored(stored);
    for (kernels, context) in own_and_any_gpu() {
        case.assert(&format!("read{kernels}"), &case.run(context, Placement::Odd));
        for dtype in [F16, BF16] {
            let native = context.capabilities().features.contains(wgpu::Features::SHADER_F16);
            let case = case.clone().stored(Stored { o: dtype, ..stored });
            if dtype == F16 && native {
                case.assert(&format!("written{kernels}"), &case.run(context, Placement::Odd));
                continue;
            }
            let attention = Attention::new(context, case.config).unwrap();
            let [q, k, v] = [&case.q, &case.k, &case.v].map(|x| Placed::input(context, x, Placement::Aligned));
            let o = Placed::output_as(context, [1, 2, 3, 5], Placement::Odd, dtype);
            let inputs = AttentionInputs::new(q.view(), k.view(), v.view());
            let error = attention.prepare(inputs, AttentionOutputs::new(o.view())).unwrap_err();
            assert!(matches!(error, Error::Stride { tensor: "o", .. }), "{error}");
            assert!(error.to_string().contains("no two rows"), "{error}");
        }
    }
}

/// The default device has no f16: words are taken apart.
#[test]
fn a_default_device_packs() {
    let Some(context) = device_with(wgpu::Limits::default()) else { panic!("a default device") };
    let plan = Attention::new(&context, AttentionConfig::new()).unwrap();
    let shapes = super::AttentionShapes::new(1, 1, 8, 64);
    for (dtype, storage) in [(F16, "q:PackedF16"), (BF16, "q:PackedBF16")] {
        let kernel = plan.plan(&shapes, dtype).unwrap().kernel().to_owned();
        assert!(kernel.contains(storage), "{kernel}");
    }
    assert!(matches!(plan.plan(&shapes, DType::U32), Err(Error::DType { tensor: "q", .. })));
}

#[test]
fn every_operand_at_once_fits_eight_storage_buffers() {
    let config = AttentionConfig::new().scale(Scale::PerRow).causal(Causal::TopLeft).softcap(4.0);
    let case = Case::new(config, [2, 2, 2, 9, 21, 8, 8]);
    let case = case.with_lens(&[21, 9]).with_bias([2, 2, 9, 21]).with_mask([1, 1, 9, 21]);
    let context = device_with(wgpu::Limits::default()).expect("a device with default limits");
    case.assert("ten tensors", &case.run(&context, Placement::Aligned));
    let shapes = super::AttentionShapes { lse: true, entropy: true, ..case.host().shapes(&config).unwrap() };
    let plan = Attention::new(&context, config).unwrap().plan(&shapes, F32).unwrap();
    assert!(plan.reason().contains("under the device's 8 storage buffers"), "{}", plan.reason());
    assert_eq!(plan.dispatches(), 2);
}
