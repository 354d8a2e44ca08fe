//! Gated attention on the GPU against its f64 twin.

#[path = "gated_attention/chunks.rs"]
mod chunks;
mod common;
#[path = "gated_attention/extremes.rs"]
mod extremes;
#[path = "gated_attention/matrices.rs"]
mod on_matrices;
#[path = "gated_attention/refusals.rs"]
mod refusals;
#[path = "gated_attention/storage.rs"]
mod storage;
#[path = "gated_attention/tiles.rs"]
mod tiles;

use common::{
    Expected, NAIVE_RUNS, Placed, Placement, Tensor, ULP, assert_same_bits, compiles_slowly, context, contexts,
    own_and_any_gpu, rounding, stored_view,
};
use storage::Stored;
use wgpu_attention::gated_attention::reference::{self, HostInputs};
use wgpu_attention::reference::SumOrder;
use wgpu_attention::{
    Causal, Context, ContextOptions, DType, Divisor, Error, GatedAttention, GatedAttentionConfig, GatedAttentionInputs,
    GatedAttentionOutputs, GauMode, GauWeights, HostView, LinearDivisor, Matrices, QuadraticDivisor,
};

/// Where q and k come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// q and k.
    Given,
    /// z, with γ and β.
    Shared,
    /// z, with γ alone, one row of it for all heads.
    GammaOnly,
}

/// A problem with all its tensors in host memory.
#[derive(Clone, Debug)]
struct Case {
    config: GatedAttentionConfig,
    source: Source,
    /// q, k, q_lin and k_lin, or z and nothing.
    keys: Vec<Tensor<4>>,
    /// γ of those four, then β.
    maps: Vec<Tensor<2>>,
    v: Tensor<4>,
    u: Option<Tensor<4>>,
    kv_lens: Option<Vec<u32>>,
    stored: Stored,
}

/// `[batch, q_heads, kv_heads, q_len, kv_len, key_dim, v_dim]`.
type Sizes = [usize; 7];

/// One head and equally many queries and keys.
fn square(len: usize, key_dim: usize, v_dim: usize) -> Sizes {
    [1, 1, 1, len, len, key_dim, v_dim]
}

impl Case {
    /// Without a gate.
    fn new(config: GatedAttentionConfig, source: Source, sizes: Sizes) -> Self {
        let [batch, q_heads, kv_heads, q_len, kv_len, key_dim, v_dim] = sizes;
        let seed = (q_len * 31 + kv_len * 17 + key_dim * 7 + v_dim) as u64;
        let queries = [batch, q_heads, q_len, key_dim];
        let shapes = [queries, [batch, kv_heads, kv_len, key_dim], queries, [batch, kv_heads, kv_len, key_dim]];
        let tensors = shapes.iter().zip(seed..).map(|(&shape, seed)| Tensor::normal(seed, shape));
        let heads = if source == Source::GammaOnly { 1 } else { q_heads };
        let maps = (seed + 10..seed + 18).map(|seed| Tensor::normal(seed, [heads, key_dim]));
        Self {
            config,
            source,
            keys: tensors.take(if source == Source::Given { 4 } else { 1 }).collect(),
            maps: maps.take(if source == Source::Given { 0 } else { 8 }).collect(),
            v: Tensor::normal(seed + 20, [batch, kv_heads, kv_len, v_dim]),
            u: None,
            kv_lens: None,
            stored: Stored::F32,
        }
    }

    fn gated(mut self) -> Self {
        let [batch, q_heads, q_len, _] = self.keys[0].shape;
        self.u = Some(Tensor::normal(77, [batch, q_heads, q_len, self.v.shape[3]]));
        self
    }

    fn with_lens(mut self, lens: &[u32]) -> Self {
        self.kv_lens = Some(lens.to_vec());
        self
    }

    fn chunked(&self) -> bool {
        self.config.mode != GauMode::Full
    }

    fn o_shape(&self) -> [usize; 4] {
        let [batch, q_heads, q_len, _] = self.keys[0].shape;
        [batch, q_heads, q_len, self.v.shape[3]]
    }

    fn host(&self) -> HostInputs<'_> {
        let [_, heads, _, key_dim] = self.keys[0].shape;
        let map = |index: usize| self.maps[index].view().broadcast_to([heads, key_dim]);
        let key = |index: usize| self.keys[index].view();
        let mut inputs = if self.source == Source::Given {
            HostInputs::new(key(0), key(1), self.v.view())
        } else {
            HostInputs::shared(key(0), map(0), map(1), self.v.view())
        };
        let (given, beta) = (self.source == Source::Given, self.source == Source::Shared);
        inputs.beta_q = beta.then(|| map(4));
        inputs.beta_k = beta.then(|| map(5));
        if self.chunked() {
            inputs.q_lin = given.then(|| key(2));
            inputs.k_lin = given.then(|| key(3));
            inputs.gamma_q_lin = (!given).then(|| map(2));
            inputs.gamma_k_lin = (!given).then(|| map(3));
            inputs.beta_q_lin = beta.then(|| map(6));
            inputs.beta_k_lin = beta.then(|| map(7));
        }
        inputs.u = self.u.as_ref().map(Tensor::view);
        inputs.kv_lens = self.kv_lens.as_ref().map(|lens| HostView::new(lens, [lens.len()]).unwrap());
        inputs
    }

    fn run(&self, context: &Context, placement: Placement) -> Vec<f32> {
        self.try_run(context, placement).unwrap_or_else(|error| panic!("{}: {error}", self.name("run")))
    }

    fn try_run(&self, context: &Context, placement: Placement) -> Result<Vec<f32>, Error> {
        let host = self.host();
        let stored = self.stored;
        let keys = self.keys.iter().zip(stored.keys);
        let keys: Vec<_> = keys.map(|(tensor, dtype)| Placed::input_as(context, tensor, placement, dtype)).collect();
        let v = Placed::input_as(context, &self.v, placement, stored.v);
        let u = self.u.as_ref().map(|u| Placed::input_as(context, u, placement, stored.u));
        let o = Placed::output_as(context, self.o_shape(), placement, stored.o);
        let maps = |views: [Option<HostView<'_, f32, 2>>; 4], stored: [DType; 4]| {
            let view = |index: usize| views[index].map(|view| stored_view(context, &view, stored[index]));
            [view(0), view(1), view(2), view(3)]
        };
        let gammas = maps([host.gamma_q, host.gamma_k, host.gamma_q_lin, host.gamma_k_lin], stored.gammas);
        let betas = maps([host.beta_q, host.beta_k, host.beta_q_lin, host.beta_k_lin], stored.betas);
        let kv_lens = host.kv_lens.map(|view| context.upload_view(&view).expect("short axes"));
        let given = self.source == Source::Given;
        let key = |index: usize, on: bool| on.then(|| keys[index].view());
        let [gamma_q, gamma_k, gamma_q_lin, gamma_k_lin] = gammas.each_ref().map(|g| g.as_ref().map(|g| g.view()));
        let [beta_q, beta_k, beta_q_lin, beta_k_lin] = betas.each_ref().map(|b| b.as_ref().map(|b| b.view()));
        let inputs = GatedAttentionInputs {
            q: key(0, given),
            k: key(1, given),
            z: key(0, !given),
            gamma_q,
            beta_q,
            gamma_k,
            beta_k,
            v: v.view(),
            u: u.as_ref().map(Placed::view),
            kv_lens: kv_lens.as_ref().map(|lens| lens.view()),
            q_lin: key(2, given && self.chunked()),
            k_lin: key(3, given && self.chunked()),
            gamma_q_lin,
            beta_q_lin,
            gamma_k_lin,
            beta_k_lin,
        };
        let op = GatedAttention::new(context, self.config)?;
        let prepared = op.prepare(inputs, GatedAttentionOutputs::new(o.view()))?;
        context.run(&prepared)?;
        Ok(o.read(context, "o"))
    }

    fn name(&self, what: &str) -> String {
        format!(
            "{what}: {:?}, {:?}, keys {:?}, v {:?}{}{}",
            self.config,
            self.source,
            self.keys.iter().map(|tensor| tensor.shape).collect::<Vec<_>>(),
            self.v.shape,
            if self.u.is_some() { ", gate" } else { "" },
            self.kv_lens.as_ref().map_or(String::new(), |lens| format!(", kv_lens {lens:?}")),
        )
    }

    fn assert(&self, what: &str, o: &[f32]) {
        let inputs = self.host();
        let want = reference::gated_attention(&self.config, &inputs).unwrap().o;
        if self.config.matrices == Matrices::F16 {
            return self.assert_f16(what, o, &want);
        }
        let naive: Vec<_> = (0..NAIVE_RUNS)
            .map(|seed| {
                reference::gated_attention_in::<f32>(&self.config, &inputs, SumOrder::Shuffled(seed)).unwrap().o
            })
            .collect();
        // relu² divides once (2.5 ulp), or carries a host-rounded scale twice (2 ulp); in mixed chunks the linear part
        // multiplies by a quotient (3 ulp). A softmax's exp is off by (3 + 2|x|) ulp, the mean of |x| under the weights
        // being at most log n, after a scale, with log n good to 3 ulp, of the score.
        let floor = match self.config.weights {
            GauWeights::SquaredRelu(_) => 6.0,
            GauWeights::Softmax => 5.0 + 2.0 * (self.v.shape[2].max(1) as f64).ln(),
            GauWeights::SoftmaxLogN { .. } => {
                5.0 + 2.0 * (self.v.shape[2].max(1) as f64).ln() + 6.0 * self.largest_score()
            }
        };
        let case = self.name(what);
        let shape = self.o_shape();
        let name = "o";
        let (relative, absolute_floor) = rounding(self.stored.o);
        let floor = floor * ULP + relative;
        Expected { case: &case, name, shape: &shape, want: &want, naive: &naive, floor, absolute_floor }.assert(o);
    }

    /// A bound on |q·k| / √s.
    fn largest_score(&self) -> f64 {
        let inputs = self.host();
        let [batch, heads, len, key_dim] = self.keys[0].shape;
        let mut largest = 0.0f64;
        for b in 0..batch {
            for h in 0..heads {
                for i in 0..len {
                    for (gamma, beta) in [(inputs.gamma_q, inputs.beta_q), (inputs.gamma_k, inputs.beta_k)] {
                        let square = |c: usize| {
                            let z = f64::from(self.keys[0].view().get([b, h, i, c]).unwrap());
                            let z = gamma.map_or(z, |gamma| z * f64::from(gamma.get([h, c]).unwrap()));
                            beta.map_or(z, |beta| z + f64::from(beta.get([h, c]).unwrap())).powi(2)
                        };
                        largest = largest.max((0..key_dim).map(square).sum());
                    }
                }
            }
        }
        largest / (key_dim as f64).sqrt()
    }

    fn check_own(&self, what: &str) {
        self.assert(what, &self.run(context(), Placement::Aligned));
    }

    /// By the adapter's own kernels, and by those of any GPU.
    fn check(&self, what: &str) {
        for (kernels, context) in own_and_any_gpu() {
            self.assert(&format!("{what}{kernels}"), &self.run(context, Placement::Aligned));
        }
        self.check_on_matrices(what);
    }
}

const WEIGHTS: [GauWeights; 7] = [
    GauWeights::SquaredRelu(Divisor::LenDim),
    GauWeights::SquaredRelu(Divisor::FixedLenDim { len: 512 }),
    GauWeights::SquaredRelu(Divisor::LenSquared),
    GauWeights::SquaredRelu(Divisor::RowSum { eps: 1e-6 }),
    GauWeights::Softmax,
    GauWeights::SOFTMAX_LOG_N,
    GauWeights::SoftmaxLogN { base: 64.0, floor: 16 },
];

const SOURCES: [Source; 3] = [Source::Given, Source::Shared, Source::GammaOnly];

#[test]
fn every_weight_mask_source_and_gate() {
    for weights in WEIGHTS {
        for causal in [Causal::None, Causal::BottomRight] {
            for source in SOURCES {
                let config = GatedAttentionConfig::new().weights(weights).causal(causal);
                let case = Case::new(config, source, [2, 2, 2, 37, 37, 8, 8]);
                case.check("plain");
                case.gated().with_lens(&[37, 11]).check("gate and lengths");
            }
        }
    }
}

const V1: GatedAttentionConfig = GatedAttentionConfig {
    weights: GauWeights::SquaredRelu(Divisor::LenDim),
    causal: Causal::None,
    window: wgpu_attention::Window { left: None, right: None },
    mode: GauMode::Full,
    matrices: Matrices::None,
};

/// One configuration of each kernel: relu², relu² with a row sum, softmax, and mixed chunks of 16 tokens.
fn each_kernel() -> [GatedAttentionConfig; 4] {
    let mode = GauMode::MixedChunk { chunk: 16, quadratic: QuadraticDivisor::ChunkDim, linear: LinearDivisor::Tokens };
    [
        V1,
        V1.weights(GauWeights::SquaredRelu(Divisor::RowSum { eps: 1e-6 })),
        V1.weights(GauWeights::SOFTMAX_LOG_N),
        V1.mode(mode),
    ]
}

#[test]
fn lengths_around_every_tile() {
    for len in [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 65, 127, 128, 129] {
        for config in each_kernel() {
            Case::new(config, Source::Shared, square(len, 8, 8)).gated().check("full");
            Case::new(config.causal(Causal::TopLeft), Source::Given, square(len, 8, 8)).check_own("causal");
        }
        Case::new(V1.causal(Causal::BottomRight), Source::Given, [1, 1, 1, 3, len, 8, 8]).check_own("few queries");
        Case::new(V1.causal(Causal::TopLeft), Source::Given, [1, 1, 1, len, 6, 8, 8]).check_own("few keys");
    }
}

/// By the adapter's own kernels: what a GPU's have of their own at the edges of widths, tiles.rs tests.
#[test]
fn every_width() {
    let [squared_relu, row_sum, softmax, mixed] = each_kernel();
    for key_dim in [1, 3, 4, 5, 64, 65, 128, 130, 256] {
        Case::new(squared_relu, Source::Shared, square(18, key_dim, 5)).gated().check_own("key_dim");
    }
    for v_dim in [1, 64, 70, 257, 300, 1536, 1700] {
        Case::new(squared_relu, Source::Given, square(18, 5, v_dim)).check_own("v_dim");
    }
    // Few sizes each: compiling a kernel costs more than running it.
    for (config, sizes) in [
        (row_sum, [(3, 70)].as_slice()),
        (softmax, &[(65, 70), (8, 1700)]),
        (mixed, &[(1, 1), (65, 5), (130, 70), (8, 300), (5, 1700)]),
    ] {
        for &(key_dim, v_dim) in sizes {
            Case::new(config, Source::Shared, square(18, key_dim, v_dim)).gated().check_own("both");
        }
    }
}

/// From 256 queries on, llvmpipe that compiles arrays slowly has a kernel of its own.
#[test]
fn hundreds_of_queries() {
    for config in each_kernel() {
        let config = config.causal(Causal::TopLeft);
        for (source, key_dim, v_dim) in [(Source::Shared, 20, 24), (Source::Given, 13, 7)] {
            Case::new(config, source, square(261, key_dim, v_dim)).gated().with_lens(&[200]).check_own("hundreds");
        }
    }
}

#[test]
fn windows_and_diagonals() {
    for (left, right) in [(None, Some(0)), (Some(0), None), (Some(4), Some(3)), (Some(1 << 30), Some(1 << 30))] {
        for causal in [Causal::None, Causal::TopLeft, Causal::BottomRight, Causal::Offset(3), Causal::Offset(-5)] {
            let config = V1.causal(causal).window(left, right);
            Case::new(config, Source::Given, [2, 2, 1, 13, 21, 8, 8]).with_lens(&[21, 9]).check("more keys");
            let config = config.weights(GauWeights::Softmax);
            Case::new(config, Source::Given, [1, 2, 2, 21, 13, 8, 8]).gated().check("fewer keys");
        }
    }
}

#[test]
fn key_lengths() {
    let sources = [Source::Given, Source::Shared, Source::Given, Source::Shared];
    for (config, source) in each_kernel().into_iter().zip(sources) {
        for causal in [Causal::None, Causal::TopLeft] {
            let case = Case::new(config.causal(causal), source, [5, 1, 1, 37, 37, 8, 8]).gated();
            case.clone().with_lens(&[0, 1, 16, 23, 36]).check("lengths");
            let clamped = case.clone().with_lens(&[37, 38, u32::MAX, 37, 37]);
            assert_same_by_every_kernel("lengths beyond the keys are clamped", [&case, &clamped]);
        }
    }
}

#[test]
fn rows_that_see_no_key_are_zero_whatever_the_gate() {
    for config in each_kernel() {
        let mut case = Case::new(config, Source::Given, [2, 1, 1, 20, 20, 8, 8]).with_lens(&[20, 0]).gated();
        case.u.as_mut().unwrap().data[20 * 8..].fill(f32::NAN);
        for (kernels, context) in own_and_any_gpu() {
            let o = case.run(context, Placement::Aligned);
            assert!(o[..20 * 8].iter().all(|x| x.is_finite()));
            assert!(o[20 * 8..].iter().all(|x| x.to_bits() == 0), "{}{kernels}", case.name("empty rows"));
        }
    }
    let config = V1.causal(Causal::Offset(-4));
    for (kernels, context) in own_and_any_gpu() {
        let o = Case::new(config, Source::Shared, square(9, 8, 8)).run(context, Placement::Aligned);
        assert!(o[..4 * 8].iter().all(|x| x.to_bits() == 0), "rows before the diagonal{kernels}");
    }
}

#[test]
fn a_gate_of_one_and_maps_of_one_change_no_bit() {
    for config in each_kernel() {
        let mut plain = Case::new(config, Source::Shared, [1, 2, 2, 33, 33, 8, 8]);
        for (index, map) in plain.maps.iter_mut().enumerate() {
            *map = Tensor::filled(if index < 4 { 1.0 } else { 0.0 }, map.shape);
        }
        let mut given = Case { source: Source::Given, keys: vec![plain.keys[0].clone(); 4], ..plain.clone() };
        given.maps.clear();
        assert_same_by_every_kernel("maps of one", [&plain, &given]);
        given.u = Some(Tensor::filled(1.0, given.o_shape()));
        assert_same_by_every_kernel("a gate of one", [&plain, &given]);
    }
}

#[test]
fn values_of_one_give_one_where_weights_add_up_to_one() {
    for weights in [GauWeights::SquaredRelu(Divisor::RowSum { eps: 1e-20 }), GauWeights::Softmax] {
        let mut case = Case::new(V1.weights(weights), Source::Given, square(70, 8, 8));
        case.v = Tensor::filled(1.0, case.v.shape);
        for (kernels, context) in contexts() {
            let o = case.run(context, Placement::Aligned);
            assert!(o.iter().all(|x| (x - 1.0).abs() <= 4.0 * f32::EPSILON), "{}{kernels}", case.name("ones"));
        }
    }
}

#[test]
fn scores_of_ten_thousand_stay_finite() {
    for config in each_kernel() {
        let mut case = Case::new(config, Source::Given, square(40, 8, 8));
        for tensor in &mut case.keys {
            tensor
                .data
                .iter_mut()
                .enumerate()
                .for_each(|(i, x)| *x = if i % 8 == 0 { 100.0 * x.signum() } else { 0.0 });
        }
        case.check("one-dimensional");
        let mut case = Case::new(config.causal(Causal::TopLeft), Source::Given, square(40, 8, 8));
        case.keys = case.keys.into_iter().map(|tensor| tensor.scaled(50.0)).collect();
        case.check("random");
    }
}

#[test]
fn grouped_heads_equal_repeated_heads_bit_for_bit() {
    let [squared_relu, .., mixed] = each_kernel();
    for config in [squared_relu, mixed] {
        for kv_heads in [1, 2] {
            let grouped = Case::new(config, Source::Given, [2, 4, kv_heads, 19, 19, 8, 8]).gated();
            let mut repeated = grouped.clone();
            for index in [1, 3] {
                repeated.keys[index] = grouped.keys[index].repeat_heads(4 / kv_heads);
            }
            repeated.v = grouped.v.repeat_heads(4 / kv_heads);
            grouped.check("grouped");
            assert_same_by_every_kernel("grouped heads", [&grouped, &repeated]);
        }
    }
}

#[test]
fn a_rerun_gives_the_same_bits() {
    let [squared_relu, .., mixed] = each_kernel();
    for config in [squared_relu, mixed] {
        let case = Case::new(config.causal(Causal::TopLeft), Source::Shared, [1, 2, 2, 113, 113, 8, 8]).gated();
        for _ in 0..5 {
            assert_same_by_every_kernel("rerun", [&case, &case]);
        }
    }
}

#[test]
fn any_placement_agrees() {
    let [squared_relu, .., mixed] = each_kernel();
    for (config, source) in [(squared_relu, Source::Given), (squared_relu, Source::Shared), (mixed, Source::Given)] {
        for dims in [(8, 8), (6, 7)] {
            let case = Case::new(config, source, [2, 2, 2, 21, 21, dims.0, dims.1]).gated();
            for (kernels, context) in own_and_any_gpu() {
                let mut scalar = Vec::new();
                for placement in [Placement::Odd, Placement::Interleaved { gap: 4 }, Placement::Interleaved { gap: 3 }]
                {
                    let o = case.run(context, placement);
                    case.assert(&format!("{placement:?}{kernels}"), &o);
                    if placement != (Placement::Interleaved { gap: 4 }) {
                        scalar.push(o);
                    }
                }
                assert_same_bits("scalar loads", &scalar[0], &scalar[1]);
            }
        }
    }
}

#[test]
fn nan_in_hidden_keys_changes_no_bit() {
    for config in each_kernel() {
        let clean = Case::new(config, Source::Given, [2, 1, 1, 30, 30, 8, 8]).with_lens(&[23, 5]).gated();
        let mut poisoned = clean.clone();
        for (b, len) in [23, 5].into_iter().enumerate() {
            for j in len..30 {
                for c in 0..8 {
                    *poisoned.keys[1].at_mut([b, 0, j, c]) = f32::NAN;
                    *poisoned.keys[3].at_mut([b, 0, j, c]) = f32::NAN;
                    *poisoned.v.at_mut([b, 0, j, c]) = f32::NAN;
                }
            }
        }
        assert_same_by_every_kernel("poisoned keys", [&clean, &poisoned]);

        // A token that the rows before it do not see.
        let clean = Case::new(config.causal(Causal::TopLeft), Source::Shared, square(30, 8, 8));
        for hidden in [6, 20] {
            let mut poisoned = clean.clone();
            poisoned.keys[0].data[hidden * 8] = f32::INFINITY;
            poisoned.v.data[hidden * 8 + 2] = f32::NAN;
            for (_, context) in own_and_any_gpu() {
                let [a, b] = [&clean, &poisoned].map(|case| case.run(context, Placement::Aligned));
                assert_same_bits("rows before the poisoned token", &a[..hidden * 8], &b[..hidden * 8]);
            }
        }
    }
}

/// The same problem, or what stands for it, gives the same bits by the kernels of one adapter.
fn assert_same_by_every_kernel(what: &str, cases: [&Case; 2]) {
    for (kernels, context) in own_and_any_gpu() {
        let [a, b] = cases.map(|case| case.run(context, Placement::Aligned));
        assert_same_bits(&format!("{what}{kernels}"), &a, &b);
    }
}

/// A context of its own on the shared device, by the same kernels, with other bounds.
fn context_with(context: &Context, options: ContextOptions) -> Context {
    let assume_gpu = context.capabilities().options.assume_gpu;
    let options = ContextOptions { assume_gpu, ..options };
    Context::with_options(context.device().clone(), context.queue().clone(), options)
}

#[test]
fn any_split_of_keys_and_work_agrees_with_the_twin() {
    let [_, row_sum, softmax, mixed] = each_kernel();
    // Each of the contexts below compiles its own.
    let configs = if compiles_slowly() { vec![softmax, mixed] } else { vec![row_sum, softmax, mixed] };
    for config in configs {
        let case = Case::new(config.causal(Causal::TopLeft), Source::Shared, [2, 2, 2, 77, 77, 8, 8])
            .gated()
            .with_lens(&[77, 31]);
        for (kernels, context) in own_and_any_gpu() {
            let whole = case.run(context, Placement::Aligned);
            for keys in [1, 24, 1000] {
                let options = ContextOptions { max_keys_per_split: Some(keys), ..Default::default() };
                let split = case.run(&context_with(context, options), Placement::Aligned);
                case.assert(&format!("splits of {keys}{kernels}"), &split);
            }
            for flops in [1, 1_000_000] {
                let options = ContextOptions { max_flops_per_dispatch: flops, ..Default::default() };
                let split = case.run(&context_with(context, options), Placement::Aligned);
                case.assert(&format!("{flops} flops a dispatch{kernels}"), &split);
                if flops == 1_000_000 {
                    assert_same_bits("dispatches without a split of keys", &whole, &split);
                }
            }
        }
    }
}

/// Rows of a long sequence, checked one by one.
#[test]
fn sixteen_thousand_keys() {
    for config in each_kernel() {
        let case = Case::new(
            config,
            Source::Given,
            [1, 1, 1, if config.mode == GauMode::Full { 3 } else { 16384 }, 16384, 64, 64],
        );
        let o = case.run(context(), Placement::Aligned);
        let inputs = case.host();
        for i in [0, 1, case.o_shape()[2] - 1] {
            let want = reference::gated_attention_row::<f64>(&config, &inputs, [0, 0, i], SumOrder::InOrder).unwrap();
            let naive: Vec<_> = (0..NAIVE_RUNS)
                .map(|seed| {
                    let order = SumOrder::Shuffled(seed);
                    reference::gated_attention_row::<f32>(&config, &inputs, [0, 0, i], order).unwrap()
                })
                .collect();
            let (case, shape) = (case.name("long"), [1, 1, 1, 64]);
            let expected = Expected {
                case: &case,
                name: "o",
                shape: &shape,
                want: &want,
                naive: &naive,
                floor: 40.0 * ULP,
                absolute_floor: 0.0,
            };
            expected.assert(&o[i * 64..(i + 1) * 64]);
        }
    }
}
