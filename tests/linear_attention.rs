//! Linear attention on the GPU against its f64 twin.

mod common;

use common::{Expected, NAIVE_RUNS, Placed, Placement, Tensor, ULP, assert_same_bits, context};
use wgpu_attention::linear_attention::reference::{self, HostInputs, HostOutputs};
use wgpu_attention::reference::SumOrder;
use wgpu_attention::{
    Context, FeatureMap, HostView, LinearAttention, LinearAttentionConfig, LinearAttentionInputs,
    LinearAttentionOutputs, LinearMode, Normalization,
};

const TAYLOR2: FeatureMap = FeatureMap::Taylor2 { scale: None };
const FAVOR: FeatureMap = FeatureMap::Favor { scale: None };
const MAPS: [FeatureMap; 9] = [
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
const MODES: [LinearMode; 2] = [LinearMode::Full, LinearMode::Causal];

/// A map's config, normalised where that makes sense.
fn config(map: FeatureMap, mode: LinearMode) -> LinearAttentionConfig {
    let normalised = LinearAttentionConfig::new().feature_map(map).mode(mode);
    if normalised.check().is_ok() { normalised } else { normalised.normalization(Normalization::None) }
}

/// S, z and, for an unbounded map, the maximum.
#[derive(Clone, Debug)]
struct State {
    s: Tensor<4>,
    z: Tensor<3>,
    max: Option<Tensor<3>>,
}

/// A problem with all its tensors in host memory.
#[derive(Clone, Debug)]
struct Case {
    config: LinearAttentionConfig,
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    projection: Option<Tensor<2>>,
    kv_lens: Option<Vec<u32>>,
    state: Option<State>,
}

/// What the GPU wrote.
#[derive(Clone, Debug)]
struct Outcome {
    o: Vec<f32>,
    s: Vec<f32>,
    z: Vec<f32>,
    max: Vec<f32>,
}

impl Outcome {
    fn assert_same_bits(&self, what: &str, other: &Self) {
        assert_same_bits(&format!("{what}: o"), &self.o, &other.o);
        assert_same_bits(&format!("{what}: state_s"), &self.s, &other.s);
        assert_same_bits(&format!("{what}: state_z"), &self.z, &other.z);
        assert_same_bits(&format!("{what}: state_max"), &self.max, &other.max);
    }
}

/// `[batch, q_heads, kv_heads, q_len, kv_len, head_dim, v_dim]`.
type Sizes = [usize; 7];

impl Case {
    fn new(config: LinearAttentionConfig, [batch, q_heads, kv_heads, q_len, kv_len, head_dim, v_dim]: Sizes) -> Self {
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
        }
    }

    /// Causal self-attention of two heads.
    fn causal(map: FeatureMap, len: usize, head_dim: usize, v_dim: usize) -> Self {
        Self::new(config(map, LinearMode::Causal), [1, 2, 2, len, len, head_dim, v_dim])
    }

    fn with_lens(mut self, lens: &[u32]) -> Self {
        self.kv_lens = Some(lens.to_vec());
        self
    }

    fn features(&self) -> usize {
        self.host().shapes(&self.config).unwrap().features(self.config.feature_map) as usize
    }

    /// `[batch, kv_heads, features, v_dim]`, and how many maxima a head has.
    fn state_shape(&self) -> ([usize; 4], usize) {
        let features = self.features();
        let maxima = match self.config.feature_map {
            FeatureMap::Exp | FeatureMap::Softmax => features,
            FeatureMap::Favor { .. } => 1,
            _ => 0,
        };
        ([self.k.shape[0], self.k.shape[1], features, self.v.shape[3]], maxima)
    }

    fn host(&self) -> HostInputs<'_> {
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

    fn run_on(&self, context: &Context, placement: Placement) -> Outcome {
        let [batch, q_heads, q_len, _] = self.q.shape;
        let ([_, kv_heads, features, v_dim], maxima) = self.state_shape();
        let [q, k, v] = [&self.q, &self.k, &self.v].map(|tensor| Placed::input(context, tensor, placement));
        let o = Placed::output(context, [batch, q_heads, q_len, v_dim], placement);
        let s = Placed::output(context, [batch, kv_heads, features, v_dim], placement);
        let z = Placed::output(context, [batch, kv_heads, features, 1], Placement::Odd);
        let max = Placed::output(context, [batch, kv_heads, maxima.max(1), 1], Placement::Odd);
        let host = self.host();
        let projection = host.projection.map(|view| context.upload_view(&view));
        let kv_lens = host.kv_lens.map(|view| context.upload_view(&view));
        let state_s = self.state.as_ref().map(|state| Placed::input(context, &state.s, placement));
        let state_z = host.state_z.map(|view| context.upload_view(&view));
        let state_max = host.state_max.map(|view| context.upload_view(&view));

        let inputs = LinearAttentionInputs {
            q: q.view(),
            k: k.view(),
            v: v.view(),
            projection: projection.as_ref().map(|tensor| tensor.view()),
            kv_lens: kv_lens.as_ref().map(|tensor| tensor.view()),
            state_s: state_s.as_ref().map(|tensor| tensor.view()),
            state_z: state_z.as_ref().map(|tensor| tensor.view()),
            state_max: state_max.as_ref().map(|tensor| tensor.view()),
        };
        let outputs = LinearAttentionOutputs {
            o: o.view(),
            state_s: Some(s.view()),
            state_z: Some(z.rows_view()),
            state_max: (maxima > 0).then(|| max.rows_view()),
        };
        let attention = LinearAttention::new(context, self.config).unwrap();
        let prepared = attention.prepare(inputs, outputs).unwrap();
        context.run(&prepared).unwrap();
        let max = if maxima > 0 { max.read(context, "state_max") } else { Vec::new() };
        Outcome { o: o.read(context, "o"), s: s.read(context, "state_s"), z: z.read(context, "state_z"), max }
    }

    fn run(&self) -> Outcome {
        self.run_on(context(), Placement::Aligned)
    }

    /// Compares a result with the twin.
    fn assert(&self, what: &str, got: &Outcome) {
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
        // the weights average at most the log of the number of terms; one division adds 2 ulp.
        let terms = (self.k.shape[2].max(1) * self.features()) as f64;
        let largest = self.q.data.iter().chain(&self.k.data).fold(0.0f64, |max, x| max.max(f64::from(x.abs())));
        let floor = ULP
            * match self.config.feature_map {
                FeatureMap::EluPlusOne => 2.0 * (3.0 + 2.0 * largest.min(4.0)) + 2.0,
                FeatureMap::Exp | FeatureMap::Softmax | FeatureMap::Favor { .. } => 11.0 + 6.0 * terms.ln(),
                _ => 4.0,
            };
        let ([batch, kv_heads, features, v_dim], maxima) = self.state_shape();
        let check = |name, shape: &[usize], got: &[f32], want: &[f64], naive: Vec<Vec<f32>>| {
            Expected { case: &case, name, shape, want, naive: &naive, floor, absolute_floor: 0.0 }.assert(got);
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

    fn check(&self, what: &str) {
        self.assert(what, &self.run());
    }
}

#[test]
fn lengths_around_every_chunk() {
    for len in [1, 2, 7, 8, 9, 31, 32, 33, 63, 64, 65, 127, 128, 129, 200] {
        for mode in MODES {
            let config = config(FeatureMap::EluPlusOne, mode);
            Case::new(config, [1, 1, 1, len, len, 16, 16]).check("self");
        }
        Case::new(config(FeatureMap::EluPlusOne, LinearMode::Full), [1, 1, 1, 9, len, 8, 12]).check("cross");
        Case::new(config(FeatureMap::EluPlusOne, LinearMode::Full), [1, 1, 1, len, 9, 8, 12]).check("cross");
    }
}

#[test]
fn every_map_mode_and_normalization() {
    for map in MAPS {
        for mode in MODES {
            for normalization in [Normalization::Sum { eps: 1e-3 }, Normalization::None] {
                let config = LinearAttentionConfig::new().feature_map(map).mode(mode).normalization(normalization);
                if config.check().is_ok() {
                    Case::new(config, [2, 2, 1, 70, 70, 8, 12]).check("grouped");
                    Case::new(config, [1, 1, 1, 130, 130, 5, 3]).check("odd dims");
                }
            }
        }
    }
}
