//! Bad input is an error that names the tensor, the axis, what was expected and what came, and nothing is recorded.

mod common;

use common::{context, device_with};
use proptest::prelude::*;
use wgpu::BufferUsages;
use wgpu_attention::attention::reference;
use wgpu_attention::reference::SumOrder;
use wgpu_attention::{
    Attention, AttentionConfig, AttentionInputs, AttentionOutputs, AttentionShapes, Causal, Context, ContextOptions,
    DType, FeatureMap, GatedAttention, GatedAttentionConfig, GatedAttentionInputs, GatedAttentionOutputs,
    GatedAttentionShapes, GauWeights, HostView, LinearAttention, LinearAttentionConfig, LinearAttentionInputs,
    LinearAttentionOutputs, LinearAttentionShapes, MatMul, MatMulConfig, MatMulInputs, MatMulOutputs, MatMulShapes,
    Merge, MergeConfig, MergeInputs, MergeOutputs, MergeShapes, Result, Scale, TensorView, gated_attention,
    linear_attention, matmul, merge,
};

/// Buffers big enough for every valid call here, and the views that a case spoils.
struct Tensors {
    inputs: [wgpu::Buffer; 4],
    output: wgpu::Buffer,
    rows: [wgpu::Buffer; 2],
}

const SHAPE: [u32; 4] = [2, 4, 6, 8];
const ROWS: [u32; 3] = [2, 4, 6];
const ELEMENTS: usize = 2 * 4 * 6 * 8;

impl Tensors {
    fn new(context: &Context) -> Self {
        let filled = |elements: usize| context.upload(&vec![f32::NAN; elements]);
        Self {
            inputs: std::array::from_fn(|_| context.upload(&vec![0.5_f32; ELEMENTS])),
            output: filled(ELEMENTS),
            rows: std::array::from_fn(|_| filled(48)),
        }
    }

    fn inputs(&self) -> AttentionInputs<'_> {
        let [q, k, v, _] = &self.inputs;
        AttentionInputs::new(TensorView::f32(q, SHAPE), TensorView::f32(k, SHAPE), TensorView::f32(v, SHAPE))
    }

    fn outputs(&self) -> AttentionOutputs<'_> {
        AttentionOutputs::new(TensorView::f32(&self.output, SHAPE))
    }

    /// Nothing reached the output.
    fn assert_untouched(&self, context: &Context, case: &str) {
        for buffer in [&self.output, &self.rows[0], &self.rows[1]] {
            assert!(context.download(buffer).unwrap().iter().all(|x| x.is_nan()), "{case}: something was recorded");
        }
    }
}

/// Records a call, submits whatever was recorded, and returns the error's text.
fn refused(context: &Context, case: &str, record: impl FnOnce(&mut wgpu::CommandEncoder) -> Result<()>) -> String {
    let mut encoder = context.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    let result = record(&mut encoder);
    context.queue().submit([encoder.finish()]);
    result.expect_err(case).to_string()
}

type Spoil = for<'a> fn(&'a Tensors, &mut AttentionInputs<'a>, &mut AttentionOutputs<'a>);

/// `(case, what the message must say, how to spoil a valid call)`.
const TENSOR_CASES: &[(&str, &[&str], Spoil)] = &[
    ("batch of k", &["k", "batch", "expected 2", "got 1"], |_, i, _| i.k = with_axis(i.k, 0, 1)),
    ("batch of v", &["v", "batch", "expected 2", "got 1"], |_, i, _| i.v = with_axis(i.v, 0, 1)),
    ("heads of v", &["v", "kv_heads", "expected 4", "got 2"], |_, i, _| i.v = with_axis(i.v, 1, 2)),
    ("length of v", &["v", "kv_len", "expected 6", "got 5"], |_, i, _| i.v = with_axis(i.v, 2, 5)),
    ("dim of k", &["k", "head_dim", "expected 8", "got 7"], |_, i, _| i.k = with_axis(i.k, 3, 7)),
    ("batch of o", &["o", "batch", "expected 2", "got 1"], |_, _, o| o.o = with_axis(o.o, 0, 1)),
    ("heads of o", &["o", "q_heads", "expected 4", "got 3"], |_, _, o| o.o = with_axis(o.o, 1, 3)),
    ("length of o", &["o", "q_len", "expected 6", "got 4"], |_, _, o| o.o = with_axis(o.o, 2, 4)),
    ("dim of o", &["o", "v_dim", "expected 8", "got 4"], |_, _, o| o.o = with_axis(o.o, 3, 4)),
    ("heads that do not divide", &["q", "q_heads", "multiple of the 3", "got 4"], |_, i, _| {
        (i.k, i.v) = (with_axis(i.k, 1, 3), with_axis(i.v, 1, 3));
    }),
    ("no kv heads", &["k", "kv_heads", "at least 1", "got 0"], |_, i, _| {
        (i.k, i.v) = (with_axis(i.k, 1, 0), with_axis(i.v, 1, 0));
    }),
    ("no dims", &["q", "head_dim", "1 to 256", "got 0"], |_, i, _| {
        (i.q, i.k) = (with_axis(i.q, 3, 0), with_axis(i.k, 3, 0));
    }),
    ("too many dims", &["q", "head_dim", "1 to 256", "got 257"], |_, i, _| {
        (i.q, i.k) = (with_axis(i.q, 3, 257), with_axis(i.k, 3, 257));
    }),
    ("innermost stride", &["q", "stride", "head_dim", "expected 1", "got 2"], |_, i, _| {
        i.q = i.q.with_strides([192, 48, 8, 2]);
    }),
    ("stride past the end", &["k", "ends at byte", "the buffer at byte 1536"], |_, i, _| {
        i.k = i.k.with_strides([192, 48, 9, 1]);
    }),
    ("offset past the end", &["v", "ends at byte 1540", "the buffer at byte 1536"], |_, i, _| i.v = i.v.with_offset(1)),
    ("stride past 64 bits", &["q", "32-bit index"], |_, i, _| i.q = i.q.with_strides([u64::MAX, 48, 8, 1])),
    ("offset past 64 bits", &["q", "32-bit index"], |_, i, _| i.q = i.q.with_offset(u64::MAX)),
    ("output that overlaps itself", &["o", "stride", "batch", "does not overlap itself", "got 0"], |_, _, o| {
        o.o = o.o.with_strides([0, 48, 8, 1]);
    }),
    ("output rows that overlap", &["o", "stride", "q_len", "at least 8", "got 7"], |_, _, o| {
        o.o = o.o.with_strides([192, 48, 7, 1]);
    }),
    ("element type", &["q", "F32", "U32"], |t, i, _| i.q = TensorView::new(&t.inputs[0], DType::U32, SHAPE)),
    ("type of a mask", &["mask", "Bool", "F32"], |t, i, _| {
        i.mask = Some(TensorView::f32(&t.inputs[3], [1, 1, 1, 6]).broadcast_to([2, 4, 6, 6]));
    }),
    ("o in the buffer of q", &["o", "lies in the buffer of the input", "q"], |t, _, o| {
        o.o = TensorView::f32(&t.inputs[0], SHAPE);
    }),
    ("lse over o", &["o", "overlaps the output", "lse"], |t, _, o| o.lse = Some(TensorView::f32(&t.output, ROWS))),
    ("lse over entropy", &["lse", "overlaps the output", "entropy"], |t, _, o| {
        (o.lse, o.entropy) = (Some(TensorView::f32(&t.rows[0], ROWS)), Some(TensorView::f32(&t.rows[0], ROWS)));
    }),
    ("shape of lse", &["lse", "q_len", "expected 6", "got 5"], |t, _, o| {
        o.lse = Some(TensorView::f32(&t.rows[0], [2, 4, 5]));
    }),
    ("shape of entropy", &["entropy", "q_heads", "expected 4", "got 2"], |t, _, o| {
        o.entropy = Some(TensorView::f32(&t.rows[0], [2, 2, 6]));
    }),
    ("shape of a bias", &["bias", "kv_len", "expected 6", "got 5"], |t, i, _| {
        i.bias = Some(TensorView::f32(&t.inputs[3], [2, 4, 6, 5]));
    }),
    ("shape of a mask", &["mask", "q_len", "expected 6", "got 1"], |t, i, _| {
        i.mask = Some(TensorView::new(&t.inputs[3], DType::Bool, [2, 4, 1, 6]));
    }),
    ("shape of the key lengths", &["kv_lens", "batch", "expected 2", "got 3"], |t, i, _| {
        i.kv_lens = Some(TensorView::new(&t.inputs[3], DType::U32, [3]));
    }),
    ("row scales without the per_row scale", &["row_scale", "not per_row"], |t, i, _| {
        i.row_scale = Some(TensorView::f32(&t.inputs[3], ROWS));
    }),
];

fn with_axis<const RANK: usize>(view: TensorView<'_, RANK>, axis: usize, extent: u32) -> TensorView<'_, RANK> {
    view.with_extent(axis, extent)
}

#[test]
fn every_spoiled_tensor_is_named() {
    let context = context();
    let attention = Attention::new(context, AttentionConfig::new()).unwrap();
    let tensors = Tensors::new(context);
    for (case, says, spoil) in TENSOR_CASES {
        let (mut inputs, mut outputs) = (tensors.inputs(), tensors.outputs());
        spoil(&tensors, &mut inputs, &mut outputs);
        let message = refused(context, case, |encoder| attention.record(encoder, inputs, outputs));
        for part in *says {
            assert!(message.contains(part), "{case}: `{message}` does not say `{part}`");
        }
    }
    tensors.assert_untouched(context, "every case");
}

#[test]
fn gated_and_linear_attention_check_the_same() {
    let context = context();
    let tensors = Tensors::new(context);
    let gated = GatedAttention::new(context, GatedAttentionConfig::default()).unwrap();
    let linear = LinearAttention::new(context, LinearAttentionConfig::default()).unwrap();
    let mut checked = 0;
    for (case, says, spoil) in TENSOR_CASES {
        let (mut inputs, mut outputs) = (tensors.inputs(), tensors.outputs());
        spoil(&tensors, &mut inputs, &mut outputs);
        let (valid, no_outputs) = (tensors.inputs(), outputs.lse.is_none() && outputs.entropy.is_none());
        let optional = inputs.bias.is_some() || inputs.mask.is_some() || inputs.row_scale.is_some() || !no_outputs;
        // Key widths are the one thing the two take more freely: gated attention has values of any width.
        if optional || valid.kv_lens.is_some() {
            continue;
        }
        checked += 1;
        let [a, b] = [
            refused(context, case, |encoder| {
                let mut own = GatedAttentionInputs::new(inputs.q, inputs.k, inputs.v);
                own.kv_lens = inputs.kv_lens;
                gated.record(encoder, own, GatedAttentionOutputs::new(outputs.o))
            }),
            refused(context, case, |encoder| {
                let mut own = LinearAttentionInputs::new(inputs.q, inputs.k, inputs.v);
                own.kv_lens = inputs.kv_lens;
                linear.record(encoder, own, LinearAttentionOutputs::new(outputs.o))
            }),
        ];
        let name = says[0];
        assert!(a.contains(name) && b.contains(name), "{case}: {a}; {b}");
    }
    assert!(checked >= 20, "{checked} cases apply to every op");
    tensors.assert_untouched(context, "every case");
}

type SpoilProduct = for<'a> fn(&'a Tensors, &mut MatMulInputs<'a>, &mut MatMulOutputs<'a>);

/// Of a product of two square matrices per head; as [`TENSOR_CASES`].
const PRODUCT_CASES: &[(&str, &[&str], SpoilProduct)] = &[
    ("batch of b", &["b", "batch", "expected 2", "got 1"], |_, i, _| i.b = with_axis(i.b, 0, 1)),
    ("heads of b", &["b", "heads", "expected 4", "got 3"], |_, i, _| i.b = with_axis(i.b, 1, 3)),
    ("k of b", &["b", "k", "expected 6", "got 5"], |_, i, _| i.b = with_axis(i.b, 2, 5)),
    ("m of c", &["c", "m", "expected 6", "got 4"], |_, _, o| o.c = with_axis(o.c, 2, 4)),
    ("n of c", &["c", "n", "expected 6", "got 5"], |_, _, o| o.c = with_axis(o.c, 3, 5)),
    ("shape of the bias", &["bias", "m", "expected 6", "got 1"], |t, i, _| {
        i.bias = Some(TensorView::f32(&t.inputs[2], [2, 4, 1, 6]));
    }),
    ("no innermost axis", &["a", "stride", "k", "expected 1", "got 2"], |_, i, _| {
        i.a = i.a.with_strides([96, 24, 12, 2]);
    }),
    ("a transposed view past the end", &["b", "ends at byte", "the buffer"], |_, i, _| {
        i.b = i.b.with_strides([144, 36, 1, 600]);
    }),
    ("a transposed output", &["c", "stride", "n", "expected 1", "got 6"], |_, _, o| o.c = o.c.swap_axes(2, 3)),
    ("an output that overlaps itself", &["c", "heads", "does not overlap itself"], |_, _, o| {
        o.c = o.c.with_strides([144, 0, 6, 1]);
    }),
    ("c in the buffer of b", &["c", "lies in the buffer of the input", "b"], |t, _, o| {
        o.c = TensorView::f32(&t.inputs[1], SQUARE);
    }),
    ("element type", &["a", "F32", "U32"], |t, i, _| i.a = TensorView::new(&t.inputs[0], DType::U32, SQUARE)),
];

const SQUARE: [u32; 4] = [2, 4, 6, 6];

#[test]
fn matmul_names_every_spoiled_tensor() {
    let context = context();
    let product = MatMul::new(context, MatMulConfig::new()).unwrap();
    let tensors = Tensors::new(context);
    for (case, says, spoil) in PRODUCT_CASES {
        let [a, b, ..] = &tensors.inputs;
        let mut inputs = MatMulInputs::new(TensorView::f32(a, SQUARE), TensorView::f32(b, SQUARE));
        let mut outputs = MatMulOutputs { c: TensorView::f32(&tensors.output, SQUARE) };
        spoil(&tensors, &mut inputs, &mut outputs);
        let message = refused(context, case, |encoder| product.record(encoder, inputs, outputs));
        for part in *says {
            assert!(message.contains(part), "{case}: `{message}` does not say `{part}`");
        }
    }
    tensors.assert_untouched(context, "every case");
    let cases = [
        ("a: rows", MatMulShapes { batch: 1 << 16, heads: 1 << 16, ..MatMulShapes::new(8, 8, 8) }),
        ("b: rows", MatMulShapes { batch: 1 << 16, heads: 1 << 15, ..MatMulShapes::new(1, 8, 8) }),
        ("a: m", MatMulShapes::new(u32::MAX, 8, 8)),
        ("b: n", MatMulShapes::new(8, (1 << 30) + 1, 8)),
        ("a: k", MatMulShapes::new(8, 8, u32::MAX)),
        ("c: bytes", MatMulShapes::new(1 << 20, 1 << 20, 1)),
        ("a: bytes", MatMulShapes::new(1 << 20, 8, 1 << 20)),
        ("b: bytes", MatMulShapes::new(8, 1 << 20, 1 << 20)),
    ];
    for (what, shapes) in cases {
        let message = product.plan(&shapes, DType::F32).expect_err(what).to_string();
        assert!(message.contains(what) && message.contains("the limit is"), "{message}");
    }
}

type SpoilMerge = for<'a> fn(&'a Tensors, &mut MergeInputs<'a>, &mut MergeOutputs<'a>);

/// The same for merges.
const MERGE_CASES: &[(&str, &[&str], SpoilMerge)] = &[
    ("parts of lse", &["lse_parts", "parts", "expected 2", "got 3"], |_, i, _| {
        i.lse_parts = with_axis(i.lse_parts, 0, 3);
    }),
    ("heads of lse", &["lse_parts", "heads", "expected 4", "got 2"], |_, i, _| {
        i.lse_parts = with_axis(i.lse_parts, 2, 2);
    }),
    ("no dims", &["o_parts", "v_dim", "1 to 65536", "got 0"], |_, i, _| i.o_parts = with_axis(i.o_parts, 4, 0)),
    ("dim of o", &["o", "v_dim", "expected 8", "got 4"], |_, _, o| o.o = with_axis(o.o, 3, 4)),
    ("length of lse", &["lse", "len", "expected 6", "got 5"], |_, _, o| o.lse = o.lse.map(|lse| with_axis(lse, 2, 5))),
    ("an entropy of nothing", &["entropy_parts", "is missing"], |t, _, o| {
        o.entropy = Some(TensorView::f32(&t.rows[1], [1, 4, 6]));
    }),
    ("an entropy for nothing", &["entropy_parts", "is given"], |t, i, _| {
        i.entropy_parts = Some(TensorView::f32(&t.inputs[2], [2, 1, 4, 6]));
    }),
    ("o in the buffer of its parts", &["o", "lies in the buffer of the input", "o_parts"], |t, _, o| {
        o.o = TensorView::f32(&t.inputs[0], [1, 4, 6, 8]);
    }),
    ("lse in the buffer of its parts", &["lse", "lies in the buffer of the input", "lse_parts"], |t, _, o| {
        o.lse = Some(TensorView::f32(&t.inputs[1], [1, 4, 6]));
    }),
    ("parts past the end", &["o_parts", "ends at byte", "the buffer"], |_, i, _| i.o_parts = i.o_parts.with_offset(1)),
    ("element type", &["lse_parts", "F32", "U32"], |t, i, _| {
        i.lse_parts = TensorView::new(&t.inputs[1], DType::U32, [2, 1, 4, 6]);
    }),
];

#[test]
fn merge_names_every_spoiled_tensor() {
    let context = context();
    let merge = Merge::new(context, MergeConfig::new()).unwrap();
    let tensors = Tensors::new(context);
    let valid = || {
        let [o_parts, lse_parts, ..] = &tensors.inputs;
        let o_parts = TensorView::f32(o_parts, [2, 1, 4, 6, 8]);
        let inputs = MergeInputs::new(o_parts, TensorView::f32(lse_parts, [2, 1, 4, 6]));
        let o = TensorView::f32(&tensors.output, [1, 4, 6, 8]);
        (inputs, MergeOutputs::new(o, TensorView::f32(&tensors.rows[0], [1, 4, 6])))
    };
    for (case, says, spoil) in MERGE_CASES {
        let (mut inputs, mut outputs) = valid();
        spoil(&tensors, &mut inputs, &mut outputs);
        let message = refused(context, case, |encoder| merge.record(encoder, inputs, outputs));
        for part in *says {
            assert!(message.contains(part), "{case}: `{message}` does not say `{part}`");
        }
    }
    let step = Merge::new(context, MergeConfig::new().accumulate(true)).unwrap();
    let (inputs, mut outputs) = valid();
    outputs.lse = None;
    let message = refused(context, "no lse", |encoder| step.record(encoder, inputs, outputs));
    assert!(message.contains("lse: the output is missing") && message.contains("accumulate"), "{message}");
    tensors.assert_untouched(context, "every case");
    let cases = [
        ("o: rows", MergeShapes::new(2, 1 << 16, 1 << 15, 1, 1)),
        ("o_parts: parts", MergeShapes::new(u32::MAX, 1, 1, 1, 1)),
        ("o_parts: bytes", MergeShapes::new(1 << 10, 1, 1, 1 << 20, 64)),
    ];
    for (what, shapes) in cases {
        let message = merge.plan(&shapes, DType::F32).expect_err(what).to_string();
        assert!(message.contains(what) && message.contains("the limit is"), "{message}");
    }
}

#[test]
fn a_missing_usage_is_named() {
    let context = context();
    let tensors = Tensors::new(context);
    let attention = Attention::new(context, AttentionConfig::new()).unwrap();
    let uniform = context.device().create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: 4 * ELEMENTS as u64,
        usage: BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    let mut inputs = tensors.inputs();
    inputs.v = TensorView::f32(&uniform, SHAPE);
    let message = refused(context, "usage", |encoder| attention.record(encoder, inputs, tensors.outputs()));
    assert!(message.contains("v: ") && message.contains("STORAGE"), "{message}");
    assert!(context.download(&uniform).unwrap_err().to_string().contains("COPY_SRC"));
}

#[test]
fn options_that_mean_nothing_are_named() {
    let context = context();
    let config = AttentionConfig::new;
    let cases = [
        ("softcap", config().softcap(0.0)),
        ("softcap", config().softcap(f32::NAN)),
        ("softcap", config().softcap(f32::INFINITY)),
        ("scale.fixed", config().scale(Scale::Fixed(f32::NAN))),
        ("scale.log_n.base", config().scale(Scale::LogN { base: 1.0, floor: 1 })),
        ("scale.log_n.base", config().scale(Scale::LogN { base: f32::INFINITY, floor: 1 })),
        ("scale.log_n.floor", config().scale(Scale::LogN { base: 512.0, floor: 0 })),
        ("scale.kappa_log_n.kappa", config().scale(Scale::KappaLogN { kappa: f32::NEG_INFINITY })),
        ("scale.log_n_inference.train_len", config().scale(Scale::LogNInference { train_len: 1 })),
        ("scale.scalable_softmax.s", config().scale(Scale::ScalableSoftmax { s: f32::NAN, inv_sqrt_dim: true })),
        ("window.left", config().window(Some(u32::MAX), None)),
        ("window.right", config().window(None, Some((1 << 30) + 1))),
        ("causal.offset", config().causal(Causal::Offset(i32::MIN))),
    ];
    for (option, config) in cases {
        let message = Attention::new(context, config).expect_err(option).to_string();
        assert!(message.contains(&format!("option {option}: expected")), "{message}");
        assert!(message.contains("got"), "{message}");
        assert!(reference::attention(&config, &host()).is_err(), "{option}: the twin agrees");
    }
    let per_row = Attention::new(context, config().scale(Scale::PerRow)).unwrap();
    let message =
        per_row.plan(&AttentionShapes::new(1, 1, 4, 4), DType::F32).expect_err("row_scale is missing").to_string();
    assert!(message.contains("row_scale"), "{message}");
    let weights = GauWeights::SoftmaxLogN { base: 0.5, floor: 1 };
    let gated = GatedAttentionConfig { weights, ..Default::default() };
    assert!(GatedAttention::new(context, gated).expect_err("base").to_string().contains("base"));
    let linear = LinearAttentionConfig { feature_map: FeatureMap::Identity, ..Default::default() };
    let message = LinearAttention::new(context, linear).expect_err("a normalised identity map").to_string();
    assert!(message.contains("identity"), "{message}");
}

fn host() -> reference::HostInputs<'static> {
    let one = HostView::new(&[1.0], [1, 1, 1, 1]).unwrap();
    reference::HostInputs::new(one, one, one)
}

#[test]
fn sizes_beyond_32_bits_are_refused_by_the_plan() {
    let context = context();
    let attention = Attention::new(context, AttentionConfig::new()).unwrap();
    let cases = [
        ("q: rows", AttentionShapes::new(1 << 16, 1 << 16, 16, 64)),
        ("q: rows", AttentionShapes::new(1 << 31, 1 << 31, 4, 64)),
        ("q: bytes", AttentionShapes::new(1 << 10, 1 << 10, 16, 64)),
        ("k: bytes", AttentionShapes { q_len: 1, ..AttentionShapes::new(1, 1, 1 << 28, 64) }),
        ("q_len", AttentionShapes::new(1, 1, u32::MAX, 64)),
        ("kv_len", AttentionShapes { q_len: 1, ..AttentionShapes::new(1, 1, (1 << 30) + 1, 64) }),
    ];
    for (what, shapes) in cases {
        let message = attention.plan(&shapes, DType::F32).expect_err(what).to_string();
        assert!(message.contains(what) && message.contains("the limit is"), "{message}");
    }
    let linear = LinearAttention::new(context, LinearAttentionConfig::new()).unwrap();
    let wide = LinearAttentionShapes::new(1, 1, 8, 64);
    let cases = [
        ("q: bytes", LinearAttentionShapes::new(1 << 10, 1 << 10, 16, 64)),
        ("k: bytes", LinearAttentionShapes { kv_len: 1 << 28, ..wide }),
        ("v: bytes", LinearAttentionShapes { kv_len: 1 << 25, head_dim: 1, ..wide }),
        ("o: bytes", LinearAttentionShapes { q_len: 1 << 25, head_dim: 1, v_dim: 127, ..wide }),
        ("state_s: bytes", LinearAttentionShapes { batch: 1 << 18, kv_len: 1, q_len: 1, state_out: true, ..wide }),
    ];
    for (what, shapes) in cases {
        let message = linear.plan(&shapes, DType::F32).expect_err(what).to_string();
        assert!(message.contains(what) && message.contains("the limit is"), "{message}");
    }
    let gated = GatedAttention::new(context, GatedAttentionConfig::new()).unwrap();
    let wide = GatedAttentionShapes::new(1, 1, 8, 64, 64);
    let cases = [
        ("q: bytes", GatedAttentionShapes { q_len: 1 << 28, ..wide }),
        ("k: bytes", GatedAttentionShapes { kv_len: 1 << 28, ..wide }),
        ("v: bytes", GatedAttentionShapes { kv_len: 1 << 25, key_dim: 1, ..wide }),
        ("o: bytes", GatedAttentionShapes { q_len: 1 << 25, key_dim: 1, ..wide }),
        ("z: bytes", GatedAttentionShapes::gau(1, 1, 1 << 28, 64, 1)),
    ];
    for (what, shapes) in cases {
        let message = gated.plan(&shapes, DType::F32).expect_err(what).to_string();
        assert!(message.contains(what) && message.contains("the limit is"), "{message}");
    }
    let small = ContextOptions { max_workspace_bytes: 1 << 10, max_keys_per_split: Some(8), ..Default::default() };
    let small = Context::with_options(context.device().clone(), context.queue().clone(), small);
    let attention = Attention::new(&small, AttentionConfig::new()).unwrap();
    let message = attention.plan(&AttentionShapes::new(1, 1, 256, 64), DType::F32).expect_err("workspace").to_string();
    assert!(message.contains("partial results") && message.contains("the limit is 1024"), "{message}");
}

#[test]
fn a_binding_over_the_devices_limit_is_refused() {
    let limits = wgpu::Limits { max_storage_buffer_binding_size: 1024, ..wgpu::Limits::default() };
    let context = device_with(limits).expect("a device with default limits, but for small bindings");
    let tensors = Tensors::new(&context);
    let attention = Attention::new(&context, AttentionConfig::new()).unwrap();
    let message =
        refused(&context, "binding", |encoder| attention.record(encoder, tensors.inputs(), tensors.outputs()));
    assert!(message.contains("q: bytes in one binding: needs 1536, the limit is 1024"), "{message}");
}

#[test]
fn no_op_needs_more_than_a_default_device() {
    let context = device_with(wgpu::Limits::default()).expect("a device with default limits and no features");
    assert!(context.device().features().is_empty(), "nothing optional was asked for");
    let tensors = Tensors::new(&context);
    let (inputs, outputs) = (tensors.inputs(), tensors.outputs());
    let mut encoder = context.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    let attention = Attention::new(&context, AttentionConfig::new()).unwrap();
    attention.record(&mut encoder, inputs, outputs).unwrap();
    let gated = GatedAttention::new(&context, GatedAttentionConfig::default()).unwrap();
    let own = GatedAttentionInputs::new(inputs.q, inputs.k, inputs.v);
    gated.record(&mut encoder, own, GatedAttentionOutputs::new(outputs.o)).unwrap();
    let linear = LinearAttention::new(&context, LinearAttentionConfig::default()).unwrap();
    let own = LinearAttentionInputs::new(inputs.q, inputs.k, inputs.v);
    linear.record(&mut encoder, own, LinearAttentionOutputs::new(outputs.o)).unwrap();
    let product = MatMul::new(&context, MatMulConfig::new()).unwrap();
    let c = context.allocate(ELEMENTS);
    let factors = MatMulInputs::new(inputs.q, inputs.k.swap_axes(2, 3));
    product.record(&mut encoder, factors, MatMulOutputs { c: TensorView::f32(&c, SQUARE) }).unwrap();
    context.queue().submit([encoder.finish()]);
    let c = context.download(&c).unwrap();
    assert!(c[..2 * 4 * 36].iter().all(|x| (x - 2.0).abs() < 1e-5), "eight quarters");
    let o = context.download(&tensors.output).unwrap();
    assert!(o.iter().all(|x| (x - 0.5).abs() < 1e-5), "values of one half average to one half");
}

#[test]
fn a_piece_that_there_is_not_is_refused() {
    let context = context();
    let op = Attention::new(context, AttentionConfig::new()).unwrap();
    let tensors = Tensors::new(context);
    let prepared = op.prepare(tensors.inputs(), tensors.outputs()).unwrap();
    let workspace = prepared.workspace().unwrap();
    let mut encoder = context.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
    let pieces = prepared.plan().dispatches();
    assert!(prepared.record_piece(&mut pass, pieces - 1, &workspace).is_ok());
    let message = prepared.record_piece(&mut pass, pieces, &workspace).expect_err("past the last").to_string();
    assert_eq!(message, format!("piece: needs {}, the limit is {pieces}", pieces + 1));

    // Whose states lie in a workspace, where the other call had none.
    let op = LinearAttention::new(context, LinearAttentionConfig::default()).unwrap();
    let own = tensors.inputs();
    let own = LinearAttentionInputs::new(own.q, own.k, own.v);
    let prepared = op.prepare(own, LinearAttentionOutputs::new(tensors.outputs().o)).unwrap();
    let message = prepared.record_piece(&mut pass, 0, &workspace).expect_err("no workspace").to_string();
    assert!(message.starts_with("workspace: needs "), "{message}");
}

#[test]
fn a_row_outside_the_shapes_is_refused() {
    let numbers = [0.0; 6];
    let view = HostView::new(&numbers, [1, 1, 3, 2]).unwrap();
    assert_eq!((view.get([0, 0, 2, 1]), view.get([0, 0, 3, 0]), view.get([0, 0, 0, 2])), (Some(0.0), None, None));
    let inputs = reference::HostInputs::new(view, view, view);
    let row = |at| reference::attention_row::<f64>(&AttentionConfig::new(), &inputs, at, SumOrder::InOrder);
    assert!(row([0, 0, 2]).is_ok());
    for (at, message) in [
        ([1, 0, 0], "row: axis batch: expected below 1, got 1"),
        ([0, 1, 0], "row: axis q_heads: expected below 1, got 1"),
        ([0, 0, 3], "row: axis q_len: expected below 3, got 3"),
    ] {
        assert_eq!(row(at).expect_err("outside").to_string(), message);
    }
}

#[test]
fn host_data_of_another_length_is_refused() {
    let message = HostView::new(&[0.0; 7], [2, 4]).expect_err("seven for eight").to_string();
    assert!(message.contains("got 7"), "{message}");
    assert!(HostView::new(&[0.0; 1], [usize::MAX, 2]).is_err(), "a product over 64 bits");
    assert!(HostView::<f32, 3>::new(&[], [0, usize::MAX, usize::MAX]).is_ok(), "strides over 64 bits, of no element");
}

proptest! {
    #![proptest_config(common::any(300))]
    /// Whatever the views, a call is refused or runs without a word from the device (whose default is to panic).
    #[test]
fn any_view_is_refused_or_runs(
        shape in prop::array::uniform4(0..5u32),
        spoiled in prop::option::of((0..4usize, 0..4usize, 0..5u32)),
        offsets in prop::array::uniform4(0..70u64),
        strides in prop::option::of(prop::array::uniform4(prop::array::uniform3(0..32u64))),
        same in any::<[bool; 2]>(),
    ) {
        let context = context();
        let tensors = Tensors::new(context);
        let view = |index: usize, buffer| {
            let mut view = TensorView::f32(buffer, shape).with_offset(offsets[index]);
            if let Some((_, axis, extent)) = spoiled.filter(|&(tensor, ..)| tensor == index) {
                view = view.with_extent(axis, extent);
            }
            strides.map_or(view, |s| view.with_strides([s[index][0], s[index][1], s[index][2], 1]))
        };
        let [q, k, v, _] = &tensors.inputs;
        let o = if same[0] { k } else { &tensors.output };
        let inputs = AttentionInputs::new(view(0, q), view(1, k), view(2, if same[1] { k } else { v }));
        let attention = Attention::new(context, AttentionConfig::new()).unwrap();
        if let Ok(prepared) = attention.prepare(inputs, AttentionOutputs::new(view(3, o))) {
            context.run(&prepared).unwrap();
        }
    }
}

/// Twins and uploads count in `usize`, kernels in 32 bits.
#[test]
fn extents_past_32_bits_are_errors() {
    let Ok(many) = usize::try_from((1u64 << 32) + 1) else { return };
    let empty = |shape: [usize; 4]| HostView::new(&[] as &[f32], shape).expect("no elements");
    let one = [0.5];
    let small = HostView::new(&one, [1; 4]).expect("one element");
    let wide = small.broadcast_to([1, many, 1, 1]);
    let parts = HostView::new(&[] as &[f32], [1, many, 0, 3, 4]).expect("no elements");
    let (a, b) = (empty([many, 1, 0, 3]), empty([many, 1, 3, 0]));
    let q = empty([many, 1, 0, 8]);
    let gated = gated_attention::reference::HostInputs::new(small, small, wide);
    let linear = linear_attention::reference::HostInputs::new(small, wide, small);
    let cases = [
        ("a: axis batch", matmul::reference::HostInputs::new(a, b).shapes(&MatMulConfig::new()).map(drop)),
        ("b: axis heads", matmul::reference::HostInputs::new(small, wide).shapes(&MatMulConfig::new()).map(drop)),
        (
            "o_parts: axis batch",
            merge::reference::HostInputs::new(parts, empty([1, many, 0, 3])).shapes(&MergeConfig::new()).map(drop),
        ),
        ("q: axis batch", reference::HostInputs::new(q, q, q).shapes(&AttentionConfig::new()).map(drop)),
        ("v: axis kv_heads", gated.shapes(&GatedAttentionConfig::new()).map(drop)),
        ("k: axis kv_heads", linear.shapes(&LinearAttentionConfig::new()).map(drop)),
        ("upload: axis 0", context().upload_view(&a).map(drop)),
        ("upload: axis 1", context().upload_view_as(&wide, DType::F16).map(drop)),
    ];
    for (what, result) in cases {
        let message = result.expect_err(what).to_string();
        assert!(message.contains(what) && message.contains("got 4294967297"), "{what}: {message}");
    }
}
