//! A case of linear attention: its tensors, its calls on the GPU, and what they are held against.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::common::{
    Expected, NAIVE_RUNS, Placed, Placement, Tensor, ULP, assert_same_bits, context, rounding, stored_view,
};
use wgpu_attention::linear_attention::reference::{self, HostInputs, HostOutputs};
use wgpu_attention::reference::SumOrder;
use wgpu_attention::{
    Context, DType, FeatureMap, HostView, LinearAttention, LinearAttentionConfig, LinearAttentionInputs,
    LinearAttentionOutputs, LinearMode, Normalization,
};

pub const TAYLOR2: FeatureMap = FeatureMap::Taylor2 { scale: None };
pub const FAVOR: FeatureMap = FeatureMap::Favor { scale: None };
pub const MAPS: [FeatureMap; 9] = [
    FeatureMap::EluPlusOne,
    FeatureMap::Exp,
    FeatureMap::Relu,
    FeatureMap::OnePlusRelu,
    FeatureMap::Identity,
    FeatureMap::Softmax,
    FeatureMap::Cosine,
    TAYLOR2,
    FAVOR,
];
pub const MODES: [LinearMode; 2] = [LinearMode::Full, LinearMode::Causal];

/// One GPU call at a time: OpenGL gives up on a lock that another thread holds while its driver compiles.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A map's config, normalised where that makes sense.
pub fn config(map: FeatureMap, mode: LinearMode) -> LinearAttentionConfig {
    let normalised = LinearAttentionConfig::new().feature_map(map).mode(mode);
    if normalised.check().is_ok() { normalised } else { normalised.normalization(Normalization::None) }
}

/// S, z and, for an unbounded map, the maximum.
#[derive(Clone, Debug)]
pub struct State {
    pub s: Tensor<4>,
    pub z: Tensor<3>,
    pub max: Option<Tensor<3>>,
}

/// A problem with all its tensors in host memory.
#[derive(Clone, Debug)]
pub struct Case {
    pub config: LinearAttentionConfig,
    pub q: Tensor<4>,
    pub k: Tensor<4>,
    pub v: Tensor<4>,
    pub projection: Option<Tensor<2>>,
    pub kv_lens: Option<Vec<u32>>,
    pub state: Option<State>,
    pub stored: Stored,
}

/// The types of the operands that may have another than f32; of a state, those of S and z.
#[derive(Clone, Copy, Debug)]
pub struct Stored {
    pub q: DType,
    pub k: DType,
    pub v: DType,
    pub projection: DType,
    pub o: DType,
    pub state_in: [DType; 2],
    pub state_out: [DType; 2],
}

impl Stored {
    /// All of one type.
    pub const fn all(dtype: DType) -> Self {
        let state = [dtype; 2];
        Self { q: dtype, k: dtype, v: dtype, projection: dtype, o: dtype, state_in: state, state_out: state }
    }
}

/// What the GPU wrote.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub o: Vec<f32>,
    pub s: Vec<f32>,
    pub z: Vec<f32>,
    pub max: Vec<f32>,
}

impl Outcome {
    pub fn assert_same_bits(&self, what: &str, other: &Self) {
        assert_same_bits(&format!("{what}: o"), &self.o, &other.o);
        assert_same_bits(&format!("{what}: state_s"), &self.s, &other.s);
        assert_same_bits(&format!("{what}: state_z"), &self.z, &other.z);
        assert_same_bits(&format!("{what}: state_max"), &self.max, &other.max);
    }
}

/// `[batch, q_heads, kv_heads, q_len, kv_len, head_dim, v_dim]`.
pub type Sizes = [usize; 7];

impl Case {
    pub fn new(
        config: LinearAttentionConfig,
        [batch, q_heads, kv_heads, q_len, kv_len, head_dim, v_dim]: Sizes,
    ) -> Self {
        let seed = (q_len * 31 + kv_len * 17 + head_dim * 7 + v_dim) as u64;
        let favor = matches!(config.feature_map, FeatureMap::Favor { .. });
        Self {
            config,
            q: Tensor::normal(seed, [batch, q_heads, q_len, head_dim]),
            k: Tensor::normal(seed + 1, [batch, kv_heads, kv_len, head_dim]),
            v: Tensor::normal(seed + 2, [batch, kv_heads, kv_len, v_dim]),
            projection: favor.then(|| Tensor::normal(seed + 3, [2 * head_dim + 1, head_dim])),
            kv_lens: None,
            state: None,
            stored: Stored::all(DType::F32),
        }
    }

    /// Causal self-attention of two heads.
    pub fn causal(map: FeatureMap, len: usize, head_dim: usize, v_dim: usize) -> Self {
        Self::new(config(map, LinearMode::Causal), [1, 2, 2, len, len, head_dim, v_dim])
    }

    pub fn with_lens(mut self, lens: &[u32]) -> Self {
        self.kv_lens = Some(lens.to_vec());
        self
    }

    /// Tokens `range` of a causal problem, with the state that came before them.
    pub fn tokens(&self, range: std::ops::Range<usize>, state: Option<State>) -> Self {
        let part = |tensor: &Tensor<4>| {
            let [batch, heads, len, dim] = tensor.shape;
            let rows = tensor.data.chunks(len * dim).flat_map(|head| &head[range.start * dim..range.end * dim]);
            Tensor { data: rows.copied().collect(), shape: [batch, heads, range.len(), dim] }
        };
        Self { q: part(&self.q), k: part(&self.k), v: part(&self.v), state, ..self.clone() }
    }

    /// The state that an outcome left.
    pub fn state_of(&self, outcome: &Outcome) -> State {
        let (shape, maxima) = self.state_shape();
        let [batch, heads, features, _] = shape;
        State {
            s: Tensor { data: outcome.s.clone(), shape },
            z: Tensor { data: outcome.z.clone(), shape: [batch, heads, features] },
            max: (maxima > 0).then(|| Tensor { data: outcome.max.clone(), shape: [batch, heads, maxima] }),
        }
    }

    /// The state before any key.
    pub fn empty_state(&self) -> State {
        let (shape, maxima) = self.state_shape();
        let [batch, heads, features, _] = shape;
        State {
            s: Tensor::filled(0.0, shape),
            z: Tensor::filled(0.0, [batch, heads, features]),
            max: (maxima > 0).then(|| Tensor::filled(f32::NEG_INFINITY, [batch, heads, maxima])),
        }
    }

    /// The causal problem in several calls, cut after these tokens, each passing its state on.
    pub fn run_in_parts(&self, cuts: &[usize]) -> Outcome {
        let len = self.q.shape[2];
        let ends = cuts.iter().copied().chain([len]);
        let mut o = Tensor::filled(f32::NAN, [self.q.shape[0], self.q.shape[1], len, self.v.shape[3]]);
        let (mut begin, mut state, mut last) = (0, self.state.clone(), None);
        for end in ends {
            let part = self.tokens(begin..end, state.take());
            let outcome = part.run();
            scatter(&mut o, begin..end, &outcome.o);
            state = Some(self.state_of(&outcome));
            begin = end;
            last = Some(outcome);
        }
        Outcome { o: o.data, ..last.unwrap() }
    }

    /// The causal problem token by token, its state updated in place.
    pub fn run_in_steps(&self) -> Outcome {
        let _alone = alone();
        let context = context();
        let [batch, q_heads, len, _] = self.q.shape;
        let v_dim = self.v.shape[3];
        let state = self.state.clone().unwrap_or_else(|| self.empty_state());
        let per_feature = |tensor: &Tensor<3>| {
            let [b, h, f] = tensor.shape;
            Placed::input(context, &Tensor { data: tensor.data.clone(), shape: [b, h, f, 1] }, Placement::Odd)
        };
        let s = Placed::input(context, &state.s, Placement::Interleaved { gap: 3 });
        let (z, max) = (per_feature(&state.z), state.max.as_ref().map(per_feature));
        let projection = self.host().projection.map(|view| context.upload_view(&view).expect("short axes"));
        let attention = LinearAttention::new(context, self.config).unwrap();
        let mut all = Tensor::filled(f32::NAN, [batch, q_heads, len, v_dim]);
        for i in 0..len {
            let token = self.tokens(i..i + 1, None);
            let [q, k, v] = [&token.q, &token.k, &token.v].map(|x| Placed::input(context, x, Placement::Odd));
            let o = Placed::output(context, [batch, q_heads, 1, v_dim], Placement::Odd);
            let inputs = LinearAttentionInputs {
                projection: projection.as_ref().map(|tensor| tensor.view()),
                state_s: Some(s.view()),
                state_z: Some(z.rows_view()),
                state_max: max.as_ref().map(Placed::rows_view),
                ..LinearAttentionInputs::new(q.view(), k.view(), v.view())
            };
            let outputs = LinearAttentionOutputs {
                o: o.view(),
                state_s: inputs.state_s,
                state_z: inputs.state_z,
                state_max: inputs.state_max,
            };
            let prepared = attention.prepare(inputs, outputs).unwrap();
            assert!(prepared.plan().kernel().contains("linear_attention/step"), "{}", prepared.plan().kernel());
            context.run(&prepared).unwrap();
            scatter(&mut all, i..i + 1, &o.read(context, "o"));
        }
        Outcome {
            o: all.data,
            s: s.read(context, "state_s"),
            z: z.read(context, "state_z"),
            max: max.map_or(Vec::new(), |max| max.read(context, "state_max")),
        }
    }

    pub fn assert_steps(&self) {
        self.assert("steps", &self.run_in_steps());
    }

    /// The same with the other normalisation, if there is another.
    pub fn normalised_otherwise(&self) -> Self {
        let config = self.config.normalization(match self.config.normalization {
            Normalization::Sum { .. } => Normalization::None,
            Normalization::None => Normalization::default(),
        });
        Self { config: if config.check().is_ok() { config } else { self.config }, ..self.clone() }
    }

    pub fn features(&self) -> usize {
        self.host().shapes(&self.config).unwrap().features(self.config.feature_map) as usize
    }

    /// `[batch, kv_heads, features, v_dim]`, and how many maxima a head has.
    pub fn state_shape(&self) -> ([usize; 4], usize) {
        let features = self.features();
        let maxima = match self.config.feature_map {
            FeatureMap::Exp | FeatureMap::Softmax => features,
            FeatureMap::Favor { .. } => 1,
            _ => 0,
        };
        ([self.k.shape[0], self.k.shape[1], features, self.v.shape[3]], maxima)
    }

    pub fn host(&self) -> HostInputs<'_> {
        let mut inputs = HostInputs::new(self.q.view(), self.k.view(), self.v.view());
        inputs.projection = self.projection.as_ref().map(Tensor::view);
        inputs.kv_lens = self.kv_lens.as_ref().map(|lens| HostView::new(lens, [lens.len()]).unwrap());
        if let Some(state) = &self.state {
            inputs.state_s = Some(state.s.view());
            inputs.state_z = Some(state.z.view());
            inputs.state_max = state.max.as_ref().map(Tensor::view);
        }
        inputs
    }

    pub fn run_on(&self, context: &Context, placement: Placement) -> Outcome {
        self.run_at(context, placement, false)
    }

    /// On a context, with the state written where it was read or elsewhere.
    pub fn run_at(&self, context: &Context, placement: Placement, in_place: bool) -> Outcome {
        let _alone = alone();
        let Self { stored, .. } = self;
        let [batch, q_heads, q_len, _] = self.q.shape;
        let (s_shape, maxima) = self.state_shape();
        let [_, kv_heads, features, v_dim] = s_shape;
        let [q, k, v] = [(&self.q, stored.q), (&self.k, stored.k), (&self.v, stored.v)]
            .map(|(tensor, dtype)| Placed::input_as(context, tensor, placement, dtype));
        let o = Placed::output_as(context, [batch, q_heads, q_len, v_dim], placement, stored.o);
        let host = self.host();
        let projection = host.projection.map(|view| stored_view(context, &view, stored.projection));
        let kv_lens = host.kv_lens.map(|view| context.upload_view(&view).expect("short axes"));

        // Sums of features as rows of heads; in 16 bits each starts a word.
        let place_z = |dtype| match dtype {
            DType::F32 => Placement::Odd,
            _ => Placement::Interleaved { gap: features % 2 },
        };
        let [s_in, z_in] = stored.state_in;
        let state_s = self.state.as_ref().map(|state| Placed::input_as(context, &state.s, placement, s_in));
        let state_z = self.state.as_ref().map(|state| {
            let z = Tensor { data: state.z.data.clone(), shape: [batch, 1, kv_heads, features] };
            Placed::input_as(context, &z, place_z(z_in), z_in)
        });
        let state_max = self.state.as_ref().and_then(|state| state.max.as_ref()).map(|max| {
            let max = Tensor { data: max.data.clone(), shape: [batch, kv_heads, maxima, 1] };
            Placed::input(context, &max, Placement::Odd)
        });
        let [s_out, z_out] = stored.state_out;
        let s = Placed::output_as(context, s_shape, placement, s_out);
        let z = Placed::output_as(context, [batch, 1, kv_heads, features], place_z(z_out), z_out);
        let max = Placed::output(context, [batch, kv_heads, maxima.max(1), 1], Placement::Odd);
        let s = if in_place { state_s.as_ref().expect("a state") } else { &s };
        let z = if in_place { state_z.as_ref().expect("a state") } else { &z };
        let max = state_max.as_ref().filter(|_| in_place).unwrap_or(&max);

        let inputs = LinearAttentionInputs {
            q: q.view(),
            k: k.view(),
            v: v.view(),
            projection: projection.as_ref().map(|tensor| tensor.view()),
            kv_lens: kv_lens.as_ref().map(|tensor| tensor.view()),
            state_s: state_s.as_ref().map(|tensor| tensor.view()),
            state_z: state_z.as_ref().map(|tensor| tensor.wide_rows_view()),
            state_max: state_max.as_ref().map(|tensor| tensor.rows_view()),
        };
        let outputs = LinearAttentionOutputs {
            o: o.view(),
            state_s: Some(s.view()),
            state_z: Some(z.wide_rows_view()),
            state_max: (maxima > 0).then(|| max.rows_view()),
        };
        let attention = LinearAttention::new(context, self.config).unwrap();
        let prepared = attention.prepare(inputs, outputs).unwrap();
        let steps = prepared.plan().kernel().contains("linear_attention/step");
        assert_eq!(steps, in_place && q_len == 1, "{}", prepared.plan().kernel());
        context.run(&prepared).unwrap();
        let max = if maxima > 0 { max.read(context, "state_max") } else { Vec::new() };
        Outcome { o: o.read(context, "o"), s: s.read(context, "state_s"), z: z.read(context, "state_z"), max }
    }

    pub fn run(&self) -> Outcome {
        self.run_on(context(), Placement::Aligned)
    }

    /// Compares a result with the twin.
    pub fn assert(&self, what: &str, got: &Outcome) {
        let inputs = self.host();
        let want = reference::linear_attention(&self.config, &inputs).unwrap();
        let naive: Vec<HostOutputs<f32>> = (0..NAIVE_RUNS)
            .map(|seed| reference::linear_attention_in(&self.config, &inputs, SumOrder::Shuffled(seed)).unwrap())
            .collect();
        let case = format!(
            "{what}: {:?}, q {:?}, k {:?}, v {:?}{}{}",
            self.config,
            self.q.shape,
            self.k.shape,
            self.v.shape,
            self.kv_lens.as_ref().map_or(String::new(), |lens| format!(", kv_lens {lens:?}")),
            if self.state.is_some() { ", state" } else { "" },
        );
        // elu + 1 takes one exp of each side, of (3 + 2|x|) ulp; an exponential term up to three, whose arguments under
        // the weights average at most the log of the number of terms; one division adds 2 ulp. A state sums numerator
        // and divisor over the features apart, where the roundings of a naive quotient of one weight cancel: those of F
        // terms grow like their square root.
        let terms = (self.k.shape[2].max(1) * self.features()) as f64;
        let largest = self.q.data.iter().chain(&self.k.data).fold(0.0f64, |max, x| max.max(f64::from(x.abs())));
        let floor =
            ULP * match self.config.feature_map {
                FeatureMap::EluPlusOne => 2.0 * (3.0 + 2.0 * largest.min(4.0)) + 2.0,
                FeatureMap::Exp | FeatureMap::Softmax | FeatureMap::Favor { .. } => 11.0 + 6.0 * terms.ln(),
                _ => 4.0,
            } + ULP * (self.features() as f64).sqrt();
        let ([batch, kv_heads, features, v_dim], maxima) = self.state_shape();
        let check = |name, shape: &[usize], got: &[f32], want: &[f64], naive: Vec<Vec<f32>>| {
            let dtype = match name {
                "o" => self.stored.o,
                "state_s" => self.stored.state_out[0],
                "state_z" => self.stored.state_out[1],
                _ => DType::F32,
            };
            let (rounding, absolute_floor) = rounding(dtype);
            let floor = floor + rounding;
            Expected { case: &case, name, shape, want, naive: &naive, floor, absolute_floor }.assert(got);
        };
        let [_, q_heads, q_len, _] = self.q.shape;
        let runs = |field: fn(&HostOutputs<f32>) -> &Vec<f32>| naive.iter().map(|run| field(run).clone()).collect();
        check("o", &[batch, q_heads, q_len, v_dim], &got.o, &want.o, runs(|run| &run.o));
        check("state_s", &[batch, kv_heads, features, v_dim], &got.s, &want.state_s, runs(|run| &run.state_s));
        check("state_z", &[batch, kv_heads, features], &got.z, &want.state_z, runs(|run| &run.state_z));
        if maxima > 0 {
            check("state_max", &[batch, kv_heads, maxima], &got.max, &want.state_max, runs(|run| &run.state_max));
        }
    }

    pub fn check(&self, what: &str) {
        self.assert(what, &self.run());
    }
}

/// Writes the rows of some tokens.
pub fn scatter(all: &mut Tensor<4>, range: std::ops::Range<usize>, part: &[f32]) {
    let [_, _, len, dim] = all.shape;
    let heads = all.data.chunks_mut(len * dim).zip(part.chunks((range.len() * dim).max(1)));
    heads.for_each(|(head, rows)| head[range.start * dim..range.end * dim].copy_from_slice(rows));
}
