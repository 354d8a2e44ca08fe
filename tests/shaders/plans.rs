//! What plans pick for problems of many sizes, layouts and options, on a device of wgpu's that computes nothing.

use std::collections::{BTreeMap, BTreeSet};

use rand::{Rng, SeedableRng, rngs::StdRng};
use wgpu_attention::introspect::{Constant, Specialization};
use wgpu_attention::{
    Activation, Attention, AttentionBackward, AttentionBackwardInputs, AttentionConfig, AttentionGradients,
    AttentionInputs, AttentionOutputs, Causal, Context, ContextOptions, DType, Divisor, FeatureMap, GatedAttention,
    GatedAttentionConfig, GatedAttentionInputs, GatedAttentionOutputs, GauWeights, LinearAttention,
    LinearAttentionConfig, LinearAttentionInputs, LinearAttentionOutputs, LinearMode, MatMul, MatMulConfig,
    MatMulInputs, MatMulOutputs, Normalization, Scale, TensorView,
};

const DIMS: [u32; 11] = [1, 3, 8, 20, 32, 64, 80, 100, 128, 160, 252];
/// `[queries, keys, query heads, kv heads]`.
const LENGTHS: [[u32; 4]; 6] =
    [[1, 40, 2, 1], [1, 3000, 1, 1], [5, 9, 8, 1], [17, 70, 1, 1], [70, 70, 1, 1], [200, 200, 2, 2]];
/// Elements of the buffer that all inputs lie in.
const ELEMENTS: u64 = 1 << 20;

/// Specializations that plans pick, and that combine two parts (fragments, flags, tile sizes) which none of `listed` does.
pub fn beyond(listed: &[Specialization]) -> Vec<Specialization> {
    let mut pairs: BTreeMap<&str, BTreeSet<[String; 2]>> = BTreeMap::new();
    for specialization in listed {
        pairs.entry(specialization.kernel.path).or_default().extend(pairs_of(specialization));
    }
    let devices = [(false, None), (true, None), (true, Some(8)), (true, Some(32))];
    let mut picked: Vec<_> = std::thread::scope(|scope| {
        let threads = devices.map(|(gpu, subgroup)| scope.spawn(move || picked_on(&device(gpu, subgroup))));
        threads.into_iter().flat_map(|thread| thread.join().expect("no plan panics")).collect()
    });
    picked.sort_by_cached_key(|specialization| format!("{specialization}{:?}", fragments(specialization)));
    picked.retain(|specialization| {
        let known = pairs.entry(specialization.kernel.path).or_default();
        let before = known.len();
        known.extend(pairs_of(specialization));
        known.len() > before
    });
    picked
}

fn fragments(specialization: &Specialization) -> Vec<&'static str> {
    specialization.fragments.iter().map(|source| source.path).collect()
}

/// Every two parts of a specialization; what only says how large a tensor is counts for none.
fn pairs_of(specialization: &Specialization) -> Vec<[String; 2]> {
    const SIZES: [&str; 6] = ["HEAD_DIM", "V_DIM", "KEY_DIM", "FEATURES", "HEADERS", "V_BLOCK"];
    let constants = specialization.constants.iter().filter(|(name, _)| !SIZES.contains(name));
    let own = |&(name, value): &(&str, Constant)| format!("{name} {value}");
    let parts: Vec<String> =
        constants.map(own).chain(fragments(specialization).into_iter().map(str::to_owned)).collect();
    let with = |(i, a): (usize, &String)| parts[i..].iter().map(|b| [a.clone(), b.clone()]).collect::<Vec<_>>();
    parts.iter().enumerate().flat_map(with).collect()
}

/// A device that runs nothing; it reports itself as a software driver.
pub fn device(assume_gpu: bool, subgroup: Option<u32>) -> Context {
    let features = if subgroup.is_some() { wgpu::Features::SUBGROUP } else { wgpu::Features::empty() };
    let noop = wgpu::NoopBackendOptions {
        features: Some(features),
        subgroup_min_size: subgroup,
        subgroup_max_size: subgroup,
        ..wgpu::NoopBackendOptions::enabled()
    };
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends: wgpu::Backends::NOOP,
        backend_options: wgpu::BackendOptions { noop, ..Default::default() },
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    let (device, queue) = pollster::block_on(async {
        let adapter = instance.request_adapter(&Default::default()).await.expect("an adapter that does nothing");
        let descriptor = wgpu::DeviceDescriptor { required_features: features, ..Default::default() };
        adapter.request_device(&descriptor).await.expect("a device that does nothing")
    });
    let options = ContextOptions { assume_gpu, max_pipelines: usize::MAX, ..Default::default() };
    Context::with_options(device, queue, options)
}

pub fn picked_on(context: &Context) -> Vec<Specialization> {
    let mut rng = StdRng::seed_from_u64(1);
    for dim in DIMS {
        for lengths in LENGTHS {
            for offset in [0, 1] {
                plan_all(context, dim, lengths, offset, &mut rng);
            }
        }
    }
    context.compiled()
}

/// A plan of each op, with options by chance.
fn plan_all(context: &Context, dim: u32, [q_len, kv_len, heads, kv_heads]: [u32; 4], offset: u64, rng: &mut StdRng) {
    let mut coin = || rng.random_bool(0.5);
    let input = context.allocate(ELEMENTS as usize);
    let outputs = [0; 3].map(|_| context.allocate(ELEMENTS as usize));
    let v_dim = dim + u32::from(coin());
    let tensor = |shape: [u32; 4]| TensorView::f32(&input, shape).with_offset(offset);
    let [q, k, v] =
        [[heads, q_len, dim], [kv_heads, kv_len, dim], [kv_heads, kv_len, v_dim]].map(|[h, l, d]| tensor([1, h, l, d]));
    let o = TensorView::f32(&outputs[0], [1, heads, q_len, v_dim]).with_offset(offset);
    let rows = |buffer| TensorView::f32(buffer, [1, heads, q_len]);
    let scores = [1, heads, q_len, kv_len];
    let kv_lens = coin().then(|| TensorView::new(&input, DType::U32, [1]));
    let causal = if coin() { Causal::BottomRight } else { Causal::None };
    let what = format!("head_dim {dim}, {q_len} of {heads} and {kv_len} of {kv_heads}, from {offset}");

    let scale = [Scale::InvSqrtDim, Scale::LOG_N, Scale::PerRow][usize::from(coin()) + usize::from(coin())];
    let mut config = AttentionConfig::new().scale(scale).causal(causal);
    if coin() {
        config = config.softcap(30.0);
    }
    let inputs = AttentionInputs {
        kv_lens,
        bias: coin().then(|| tensor(scores)),
        mask: coin().then(|| TensorView::new(&input, DType::Bool, scores)),
        row_scale: (scale == Scale::PerRow).then(|| rows(&input)),
        ..AttentionInputs::new(q, k, v)
    };
    let [lse, entropy] = [1, 2].map(|index| coin().then(|| rows(&outputs[index])));
    let op = Attention::new(context, config).expect(&what);
    op.prepare(inputs, AttentionOutputs { o, lse, entropy }).expect(&what);

    // Its gradients, as many as there may be; behind the longest there is room for more.
    let beyond = offset + ELEMENTS / 8 * 7;
    let bias = inputs.bias.map(|bias| if coin() { bias } else { TensorView::f32(&input, [1, 1, 1, kv_len]) });
    let dout = coin().then(|| tensor([1, heads, q_len, v_dim]));
    let more = dout.is_none() || coin();
    let given = AttentionBackwardInputs {
        kv_lens,
        bias,
        mask: inputs.mask,
        row_scale: inputs.row_scale,
        entropy: more.then(|| rows(&input)),
        dout,
        dlse: (more && coin()).then(|| rows(&input)),
        dentropy: more.then(|| rows(&input)),
        ..AttentionBackwardInputs::of(q, k, v, tensor([1, heads, q_len, v_dim]), rows(&input))
    };
    let own =
        |index: usize, view: TensorView<'_, 4>| TensorView::f32(&outputs[index], view.shape()).with_offset(offset);
    let [with_dk, with_scales] = [coin(), coin()];
    let gradients = AttentionGradients {
        dq: coin().then(|| own(0, q)),
        dk: with_dk.then(|| own(1, k)),
        dv: (!with_dk || coin()).then(|| own(2, v)),
        dbias: bias.filter(|_| coin()).map(|bias| own(0, bias).with_offset(beyond)),
        drow_scale: given.row_scale.filter(|_| with_scales).map(|_| rows(&outputs[1]).with_offset(beyond)),
        dscale: (with_scales && scale != Scale::PerRow)
            .then(|| TensorView::f32(&outputs[1], [heads]).with_offset(beyond)),
    };
    let op = AttentionBackward::new(context, config).expect(&what);
    op.prepare(given, gradients).expect(&what);

    use GauWeights::{Softmax, SoftmaxLogN, SquaredRelu};
    for weights in [
        Softmax,
        SoftmaxLogN { base: 512.0, floor: 1 },
        SquaredRelu(Divisor::LenDim),
        SquaredRelu(Divisor::RowSum { eps: 1e-6 }),
    ] {
        let u = coin().then(|| tensor([1, heads, q_len, v_dim]));
        let inputs = GatedAttentionInputs { kv_lens, u, ..GatedAttentionInputs::new(q, k, v) };
        let op =
            GatedAttention::new(context, GatedAttentionConfig::new().weights(weights).causal(causal)).expect(&what);
        op.prepare(inputs, GatedAttentionOutputs::new(o)).expect(&what);
    }

    for feature_map in
        [FeatureMap::EluPlusOne, FeatureMap::Exp, FeatureMap::Cosine, FeatureMap::Taylor2 { scale: None }]
    {
        // Features of the second degree are dim²/2.
        if dim > 64 {
            continue;
        }
        let (mode, kv_lens) = if q_len == kv_len { (LinearMode::Causal, None) } else { (LinearMode::Full, kv_lens) };
        let mut config = LinearAttentionConfig::new().feature_map(feature_map).mode(mode);
        if coin() {
            config = config.normalization(Normalization::None);
        }
        let inputs = LinearAttentionInputs { kv_lens, ..LinearAttentionInputs::new(q, k, v) };
        let op = LinearAttention::new(context, config).expect(&what);
        op.prepare(inputs, LinearAttentionOutputs::new(o)).expect(&what);
    }

    use Activation::{GeluTanh, None as Plain, Relu, Silu};
    let activation = [[Plain, Silu], [Relu, GeluTanh]][usize::from(coin())][usize::from(coin())];
    let scores = coin();
    let mut factor = |rows, columns| {
        if coin() { tensor([1, 1, columns, rows]).swap_axes(2, 3) } else { tensor([1, 1, rows, columns]) }
    };
    // Of scores or of weighted values: the longest are cut into ranges.
    let [inner, columns] = if scores { [dim, kv_len] } else { [kv_len, dim] };
    let (a, b) = (factor(q_len, inner), factor(inner, columns));
    let shape = [1, 1, q_len, columns];
    let inputs = MatMulInputs { a, b, bias: coin().then(|| tensor(shape)), dc: coin().then(|| tensor(shape)) };
    let op = MatMul::new(context, MatMulConfig::new().activation(activation)).expect(&what);
    op.prepare(inputs, MatMulOutputs { c: TensorView::f32(&outputs[0], shape).with_offset(offset) }).expect(&what);
}
