//! Linear attention on the GPU against its f64 twin.

mod common;

use std::sync::{Mutex, MutexGuard, PoisonError};

use common::{Expected, NAIVE_RUNS, Placed, Placement, Tensor, ULP, assert_same_bits, context};
use wgpu_attention::linear_attention::reference::{self, HostInputs, HostOutputs};
use wgpu_attention::reference::SumOrder;
use wgpu_attention::{
    Context, ContextOptions, Error, FeatureMap, HostView, LinearAttention, LinearAttentionConfig,
    LinearAttentionInputs, LinearAttentionOutputs, LinearAttentionShapes, LinearMode, Normalization, TensorView,
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

/// One GPU call at a time: OpenGL gives up on a lock that another thread holds while its driver compiles.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

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

    /// Tokens `range` of a causal problem, with the state that came before them.
    fn tokens(&self, range: std::ops::Range<usize>, state: Option<State>) -> Self {
        let part = |tensor: &Tensor<4>| {
            let [batch, heads, len, dim] = tensor.shape;
            let rows = tensor.data.chunks(len * dim).flat_map(|head| &head[range.start * dim..range.end * dim]);
            Tensor { data: rows.copied().collect(), shape: [batch, heads, range.len(), dim] }
        };
        Self { q: part(&self.q), k: part(&self.k), v: part(&self.v), state, ..self.clone() }
    }

    /// The state that an outcome left.
    fn state_of(&self, outcome: &Outcome) -> State {
        let (shape, maxima) = self.state_shape();
        let [batch, heads, features, _] = shape;
        State {
            s: Tensor { data: outcome.s.clone(), shape },
            z: Tensor { data: outcome.z.clone(), shape: [batch, heads, features] },
            max: (maxima > 0).then(|| Tensor { data: outcome.max.clone(), shape: [batch, heads, maxima] }),
        }
    }

    /// The state before any key.
    fn empty_state(&self) -> State {
        let (shape, maxima) = self.state_shape();
        let [batch, heads, features, _] = shape;
        State {
            s: Tensor::filled(0.0, shape),
            z: Tensor::filled(0.0, [batch, heads, features]),
            max: (maxima > 0).then(|| Tensor::filled(f32::NEG_INFINITY, [batch, heads, maxima])),
        }
    }

    /// The causal problem in several calls, cut after these tokens, each passing its state on.
    fn run_in_parts(&self, cuts: &[usize]) -> Outcome {
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
    fn run_in_steps(&self) -> Outcome {
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
        let projection = self.host().projection.map(|view| context.upload_view(&view));
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

    fn assert_steps(&self) {
        self.assert("steps", &self.run_in_steps());
    }

    /// The same with the other normalisation, if there is another.
    fn normalised_otherwise(&self) -> Self {
        let config = self.config.normalization(match self.config.normalization {
            Normalization::Sum { .. } => Normalization::None,
            Normalization::None => Normalization::default(),
        });
        Self { config: if config.check().is_ok() { config } else { self.config }, ..self.clone() }
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
        let _alone = alone();
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

/// Writes the rows of some tokens.
fn scatter(all: &mut Tensor<4>, range: std::ops::Range<usize>, part: &[f32]) {
    let [_, _, len, dim] = all.shape;
    let heads = all.data.chunks_mut(len * dim).zip(part.chunks((range.len() * dim).max(1)));
    heads.for_each(|(head, rows)| head[range.start * dim..range.end * dim].copy_from_slice(rows));
}

#[test]
fn lengths_around_every_chunk() {
    for len in [1, 7, 8, 9, 31, 32, 33, 63, 64, 65, 127, 128, 129, 200] {
        Case::causal(FeatureMap::EluPlusOne, len, 8, 12).check("self");
        Case::new(config(FeatureMap::EluPlusOne, LinearMode::Full), [1, 1, 1, 9, len, 8, 12]).check("keys");
        Case::new(config(FeatureMap::EluPlusOne, LinearMode::Full), [1, 1, 1, len, 9, 8, 12]).check("queries");
    }
}

#[test]
#[expect(clippy::print_stderr, reason = "what is skipped is said")]
fn every_head_dim() {
    let slow_compiler = context().capabilities().slow_arrays;
    if slow_compiler {
        eprintln!("skipped: head dims above 65, on a driver that compiles them for minutes");
    }
    let dims = |all: &[usize]| all.iter().copied().filter(|&dim| dim <= 65 || !slow_compiler).collect::<Vec<_>>();
    for dim in dims(&[1, 2, 3, 5, 63, 65, 130, 256]) {
        Case::causal(FeatureMap::EluPlusOne, 20, dim, 4).check("causal");
    }
    for dim in dims(&[64, 192]) {
        Case::causal(FeatureMap::EluPlusOne, 70, dim, dim).check("equal");
    }
    for dim in dims(&[1, 5, 31, 130, 256]) {
        Case::causal(FeatureMap::EluPlusOne, 20, 4, dim).check("values");
        Case::new(config(FeatureMap::EluPlusOne, LinearMode::Full), [1, 1, 1, 5, 20, dim, 5]).check("full");
    }
    for dim in dims(&[3, 66, 128]) {
        Case::causal(FeatureMap::Exp, 20, dim, 5).check("unbounded");
        Case::causal(FAVOR, 20, dim, 5).check("whole rows");
        Case::causal(FeatureMap::Cosine, 20, dim, 5).check("whole rows");
    }
    for dim in dims(&[1, 24, 65]) {
        Case::causal(TAYLOR2, 20, dim, 5).check("wide");
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
                }
            }
            Case::new(config(map, mode), [1, 1, 1, 130, 130, 8, 12]).check("several chunks");
        }
    }
}

#[test]
fn scales_of_the_maps_that_have_one() {
    for map in [FeatureMap::Taylor2 { scale: Some(0.7) }, FeatureMap::Favor { scale: Some(0.3) }] {
        Case::causal(map, 20, 8, 12).check("scale");
    }
}

#[test]
fn any_split_of_a_causal_sequence_gives_the_one_shot_result() {
    for map in MAPS {
        let case = Case::causal(map, 150, 8, 12);
        let cuts: [&[usize]; 3] = [&[64], &[1, 2, 65, 149], &[0, 70, 70]];
        for cuts in cuts {
            case.assert(&format!("cut after {cuts:?}"), &case.run_in_parts(cuts));
        }
    }
}

#[test]
fn one_token_steps_in_place_give_the_one_shot_result() {
    for map in MAPS {
        let case = Case::new(config(map, LinearMode::Causal), [2, 4, 2, 20, 20, 8, 12]);
        case.assert("steps", &case.run_in_steps());
        let after = case.tokens(0..20, Some(case.state_of(&case.run())));
        after.assert("steps after a sequence", &after.run_in_steps());
        let none = case.normalised_otherwise();
        none.assert("unnormalised steps", &none.run_in_steps());
    }
    Case::causal(FeatureMap::EluPlusOne, 3, 65, 130).assert_steps();
    Case::causal(TAYLOR2, 3, 64, 64).assert_steps();
}

#[test]
fn an_explicit_empty_state_changes_no_bit() {
    for map in [FeatureMap::EluPlusOne, FeatureMap::Exp, FAVOR] {
        for mode in MODES {
            let case = Case::new(config(map, mode), [1, 2, 1, 20, 20, 8, 12]);
            let with = Case { state: Some(case.empty_state()), ..case.clone() };
            case.run().assert_same_bits("empty state", &with.run());
        }
    }
}

#[test]
fn a_state_is_updated_in_place_by_sequences_too() {
    let context = context();
    for map in [FeatureMap::EluPlusOne, FeatureMap::Exp] {
        let mut case = Case::causal(map, 30, 8, 12);
        case.state = Some(case.state_of(&case.run()));
        let apart = case.run();
        let [q, k, v] = [&case.q, &case.k, &case.v].map(|x| Placed::input(context, x, Placement::Aligned));
        let o = Placed::output(context, [1, 2, 30, 12], Placement::Aligned);
        // All of the state in one buffer.
        let state = case.state.clone().unwrap();
        let max = state.max.map_or(Vec::new(), |max| max.data);
        let together = context.upload(&[&state.s.data[..], &state.z.data, &max].concat());
        let (s_len, z_len) = (state.s.data.len() as u64, state.z.data.len() as u64);
        let s = TensorView::f32(&together, [1, 2, 8, 12]);
        let z = TensorView::f32(&together, [1, 2, 8]).with_offset(s_len);
        let max = (!max.is_empty()).then(|| TensorView::f32(&together, [1, 2, 8]).with_offset(s_len + z_len));
        let inputs = LinearAttentionInputs {
            state_s: Some(s),
            state_z: Some(z),
            state_max: max,
            ..LinearAttentionInputs::new(q.view(), k.view(), v.view())
        };
        let outputs = LinearAttentionOutputs { o: o.view(), state_s: Some(s), state_z: Some(z), state_max: max };
        let attention = LinearAttention::new(context, case.config).unwrap();
        context.run(&attention.prepare(inputs, outputs).unwrap()).unwrap();
        assert_same_bits("o", &o.read(context, "o"), &apart.o);
        let all = context.download(&together).unwrap();
        assert_same_bits("state", &all, &[&apart.s[..], &apart.z, &apart.max].concat());
    }
}

#[test]
fn full_mode_adds_the_keys_of_several_calls() {
    for map in MAPS {
        let whole = Case::new(config(map, LinearMode::Full), [2, 2, 1, 6, 90, 8, 12]);
        // The range of the keys alone; all queries.
        let keys = Case { q: Tensor::filled(0.0, [2, 2, 90, 8]), ..whole.clone() };
        let half = |range| Case { q: whole.q.clone(), ..keys.tokens(range, None) };
        let first = half(0..37);
        let second = Case { state: Some(first.state_of(&first.run())), ..half(37..90) };
        whole.assert("two calls", &second.run());
    }
}

#[test]
fn key_lengths() {
    for map in [FeatureMap::EluPlusOne, FeatureMap::Softmax, FeatureMap::Exp, FAVOR, TAYLOR2] {
        let case = Case::new(config(map, LinearMode::Full), [4, 2, 1, 5, 70, 8, 12]);
        let short = case.clone().with_lens(&[70, 3, 0, 64]);
        let outcome = short.run();
        short.assert("lens", &outcome);
        assert!(outcome.o[2 * 2 * 5 * 12..3 * 2 * 5 * 12].iter().all(|x| x.to_bits() == 0), "empty rows are 0");
        let clamped = case.clone().with_lens(&[70, 71, u32::MAX, 70]);
        case.run().assert_same_bits("clamped", &clamped.run());

        // What no row sees may be NaN.
        let mut poisoned = short.clone();
        for (b, len) in [(1, 3), (2, 0), (3, 64)] {
            for j in len..70 {
                (0..8).for_each(|c| *poisoned.k.at_mut([b, 0, j, c]) = f32::NAN);
                (0..12).for_each(|c| *poisoned.v.at_mut([b, 0, j, c]) = f32::NAN);
            }
        }
        outcome.assert_same_bits("NaN past the lengths", &poisoned.run());
    }
}

#[test]
fn causally_hidden_nan_changes_no_earlier_row() {
    for map in MAPS {
        let case = Case::causal(map, 100, 8, 12);
        let clean = case.run();
        for poison in [69, 3] {
            let mut poisoned = case.clone();
            for j in poison..100 {
                (0..2).for_each(|h| (0..8).for_each(|c| *poisoned.k.at_mut([0, h, j, c]) = f32::NAN));
                (0..2).for_each(|h| (0..12).for_each(|c| *poisoned.v.at_mut([0, h, j, c]) = f32::NAN));
            }
            let got = poisoned.run();
            for head in 0..2 {
                let rows = head * 100 * 12..(head * 100 + poison) * 12;
                assert_same_bits(&format!("{map:?}, NaN from {poison} on"), &clean.o[rows.clone()], &got.o[rows]);
            }
        }
    }
}

#[test]
fn ten_thousand_stays_finite_and_right() {
    for (map, factor) in [(FeatureMap::Exp, 1e4), (FeatureMap::Softmax, 1e4), (FAVOR, 1e4), (FAVOR, 30.0)] {
        for mode in MODES {
            let mut case = Case::new(config(map, mode), [1, 1, 1, 40, 40, 8, 12]);
            for tensor in [&mut case.q, &mut case.k] {
                tensor.data.iter_mut().for_each(|x| *x = factor * x.clamp(-1.0, 1.0));
            }
            let outcome = case.run();
            assert!(outcome.o.iter().chain(&outcome.s).all(|x| x.is_finite()), "{map:?}");
            case.assert("ten thousand", &outcome);
            if mode == LinearMode::Causal {
                case.assert("ten thousand, in parts", &case.run_in_parts(&[7, 30]));
                case.assert("ten thousand, in steps", &case.run_in_steps());
            }
        }
    }
}

#[test]
fn a_growing_maximum_does_not_drown_earlier_rows() {
    // Keys that rise by 100 a token: a chunk's own maximum would leave nothing of its first keys.
    for map in [FeatureMap::Exp, FeatureMap::Softmax] {
        let mut case = Case::causal(map, 100, 8, 12);
        for (index, x) in case.k.data.iter_mut().enumerate() {
            *x += 100.0 * ((index / 8) % 100) as f32;
        }
        case.check("rising keys");
        case.k.data.iter_mut().for_each(|x| *x = -*x);
        case.config.normalization = Normalization::Sum { eps: f32::MIN_POSITIVE };
        case.check("falling keys");
    }
}

#[test]
fn values_of_one_give_one() {
    for map in MAPS {
        for mode in MODES {
            let mut case = Case::new(config(map, mode), [1, 2, 1, 70, 70, 8, 12]);
            let efficient = map == FeatureMap::Softmax && mode == LinearMode::Full;
            match &mut case.config.normalization {
                Normalization::Sum { eps } => *eps = f32::MIN_POSITIVE,
                Normalization::None if efficient => {}
                Normalization::None => continue,
            }
            case.v = Tensor::filled(1.0, case.v.shape);
            let outcome = case.run();
            for (i, x) in outcome.o.iter().enumerate() {
                // Of relu, a row may be all zero.
                let zero = map == FeatureMap::Relu && *x == 0.0;
                assert!(zero || (x - 1.0).abs() <= 16.0 * f32::EPSILON, "{map:?} {mode:?}: element {i}: {x}");
            }
        }
    }
}

#[test]
fn grouped_heads_equal_repeated_heads_bit_for_bit() {
    for map in MAPS {
        for mode in MODES {
            let grouped = Case::new(config(map, mode), [2, 4, 2, 70, 70, 8, 12]);
            let mut repeated = grouped.clone();
            repeated.k = grouped.k.repeat_heads(2);
            repeated.v = grouped.v.repeat_heads(2);
            assert_same_bits(&format!("{map:?} {mode:?}"), &grouped.run().o, &repeated.run().o);
        }
    }
}

#[test]
fn placement_and_reruns_change_no_bit() {
    for map in [FeatureMap::EluPlusOne, FeatureMap::Exp, FeatureMap::Softmax, TAYLOR2, FAVOR] {
        for mode in MODES {
            let case = Case::new(config(map, mode), [2, 2, 1, 70, 70, 8, 12]);
            let first = case.run();
            first.assert_same_bits("rerun", &case.run());
            for placement in [Placement::Interleaved { gap: 4 }, Placement::Odd] {
                first.assert_same_bits(&format!("{map:?} {mode:?} {placement:?}"), &case.run_on(context(), placement));
            }
        }
    }
}

#[test]
fn groups_of_chunks_and_heads_under_a_small_workspace() {
    let name = std::env::var("WGPU_ADAPTER_NAME").unwrap_or_default();
    for (map, bytes) in [(FeatureMap::Exp, 8_000), (TAYLOR2, 40_000), (FAVOR, 40_000)] {
        let options = ContextOptions { max_workspace_bytes: bytes, ..ContextOptions::default() };
        let small = {
            let _alone = alone();
            Context::headless_with(&name, options).unwrap()
        };
        for mode in MODES {
            let case = Case::new(config(map, mode), [2, 2, 2, 400, 400, 8, 12]);
            let shapes = case.host().shapes(&case.config).unwrap();
            let plan = LinearAttention::new(&small, case.config).unwrap().plan(&shapes).unwrap();
            assert!(plan.workspace_bytes() <= bytes, "{map:?}: {}", plan.reason());
            assert!(plan.dispatches() > 4, "{map:?}: {}", plan.reason());
            case.run().assert_same_bits(&format!("{map:?} {mode:?}"), &case.run_on(&small, Placement::Aligned));
        }
    }
    let options = ContextOptions { max_workspace_bytes: 1000, ..ContextOptions::default() };
    let tiny = Context::headless_with(&name, options).unwrap();
    let case = Case::causal(FeatureMap::EluPlusOne, 10, 8, 12);
    let shapes = case.host().shapes(&case.config).unwrap();
    let error = LinearAttention::new(&tiny, case.config).unwrap().plan(&shapes).unwrap_err();
    assert!(matches!(&error, Error::LimitExceeded { limit: 1000, .. }), "{error}");
}

#[test]
fn nothing_to_do() {
    let case = Case::new(config(FeatureMap::EluPlusOne, LinearMode::Causal), [0, 2, 1, 5, 5, 8, 12]);
    assert!(case.run().o.is_empty());
    // No tokens: the state goes through.
    let before = Case::causal(FeatureMap::Exp, 5, 8, 12);
    let state = before.state_of(&before.run());
    let outcome = before.tokens(0..0, Some(state.clone())).run();
    assert_same_bits("state_s", &outcome.s, &state.s.data);
    let outcome = before.tokens(0..0, None).run();
    assert!(outcome.max.iter().all(|x| *x == f32::NEG_INFINITY) && outcome.z.iter().all(|x| *x == 0.0));
    // No queries: the state of the keys.
    let keys = Case::new(config(FeatureMap::EluPlusOne, LinearMode::Full), [1, 1, 1, 0, 20, 8, 12]);
    keys.check("no queries");
}

/// What a plan of these shapes is refused with.
fn refusal(config: LinearAttentionConfig, change: impl Fn(&mut LinearAttentionShapes)) -> String {
    let mut shapes = LinearAttentionShapes::new(1, 4, 20, 8);
    change(&mut shapes);
    let refused = LinearAttention::new(context(), config).and_then(|attention| attention.plan(&shapes));
    refused.map(|plan| plan.kernel()).expect_err("the problem is refused").to_string()
}

#[test]
fn configs_and_shapes_that_make_no_sense_are_refused() {
    let of = |map| LinearAttentionConfig::new().feature_map(map);
    let eps = |eps| LinearAttentionConfig::new().normalization(Normalization::Sum { eps });
    let causal = LinearAttentionConfig::new().mode(LinearMode::Causal);
    let plain = LinearAttentionConfig::new();
    type Change = fn(&mut LinearAttentionShapes);
    let nothing: Change = |_| {};
    let cases: [(LinearAttentionConfig, Change, &str); 22] = [
        (of(FeatureMap::Identity), nothing, "normalization: expected none with the identity map"),
        (of(FeatureMap::Softmax), nothing, "normalization: expected none with the softmax map in full mode"),
        (eps(0.0), nothing, "normalization.sum.eps"),
        (eps(-1.0), nothing, "normalization.sum.eps"),
        (eps(f32::NAN), nothing, "normalization.sum.eps"),
        (eps(f32::INFINITY), nothing, "normalization.sum.eps"),
        (eps(1e-40), nothing, "subnormal"),
        (of(FeatureMap::Taylor2 { scale: Some(0.0) }), nothing, "feature_map.taylor2.scale"),
        (of(FeatureMap::Favor { scale: Some(f32::NAN) }), nothing, "feature_map.favor.scale"),
        (of(FAVOR), nothing, "projection: the favor map needs it"),
        (plain, |s| s.projection_rows = Some(4), "projection: is given, but the map is not favor"),
        (of(FAVOR), |s| s.projection_rows = Some(0), "projection: axis features: expected 1 to 1024, got 0"),
        (of(FAVOR), |s| s.projection_rows = Some(1025), "expected 1 to 1024, got 1025"),
        (causal, |s| s.kv_len = 21, "k: axis kv_len: expected 20"),
        (causal, |s| s.kv_lens = true, "kv_lens: is given, but the mode is causal"),
        (plain, |s| s.kv_len = 0, "k: axis kv_len: expected at least 1"),
        (plain, |s| s.q_heads = 0, "q: axis q_heads: expected at least 1"),
        (plain, |s| s.kv_heads = 0, "k: axis kv_heads: expected at least 1"),
        (plain, |s| s.kv_heads = 3, "a multiple of the 3 kv_heads, got 4"),
        (plain, |s| s.head_dim = 257, "q: axis head_dim: expected 1 to 256, got 257"),
        (plain, |s| s.v_dim = 0, "v: axis v_dim: expected 1 to 256, got 0"),
        (plain, |s| (s.batch, s.q_len) = (1 << 9, 1 << 20), "o: elements addressed by a 32-bit index"),
    ];
    for (config, change, expected) in cases {
        let message = refusal(config, change);
        assert!(message.contains(expected), "{message:?} should contain {expected:?}");
    }
}

#[test]
fn states_that_do_not_fit_are_refused() {
    let context = context();
    let buffer = context.allocate(4096);
    let others: Vec<_> = (0..4).map(|_| context.allocate(4096)).collect();
    let rank4 = |shape| TensorView::f32(&buffer, shape);
    let rank3 = |shape| TensorView::f32(&buffer, shape);
    let rows = [1, 2, 5, 8];
    let inputs = LinearAttentionInputs::new(rank4(rows), rank4(rows), rank4(rows));
    let with = |s, z, max| LinearAttentionInputs { state_s: s, state_z: z, state_max: max, ..inputs };
    let s = Some(rank4([1, 2, 8, 8]));
    let z = Some(rank3([1, 2, 8]));
    let elu = config(FeatureMap::EluPlusOne, LinearMode::Causal);
    let exp = config(FeatureMap::Exp, LinearMode::Causal);
    let refused = |config, inputs| {
        let o = LinearAttentionOutputs::new(TensorView::f32(&others[0], rows));
        LinearAttention::new(context, config).unwrap().prepare(inputs, o).unwrap_err().to_string()
    };
    let cases = [
        (elu, with(s, None, None), "state_z: is missing"),
        (elu, with(None, z, None), "state_s: is missing"),
        (elu, with(s, z, z), "state_max: is given, but this feature map is bounded"),
        (exp, with(s, z, None), "state_max: is missing"),
        (exp, with(s, z, Some(rank3([1, 2, 1]))), "state_max: axis features: expected 8"),
        (elu, with(Some(rank4([1, 2, 9, 8])), z, None), "state_s: axis features: expected 8"),
        (elu, with(Some(rank4([1, 2, 8, 7])), z, None), "state_s: axis v_dim: expected 8"),
        (elu, with(s, Some(rank3([1, 1, 8])), None), "state_z: axis kv_heads: expected 2"),
        (elu, with(s, Some(rank3([2, 2, 8])), None), "state_z: axis batch: expected 1"),
    ];
    for (config, inputs, expected) in cases {
        let message = refused(config, inputs);
        assert!(message.contains(expected), "{message:?} should contain {expected:?}");
    }

    // A state goes out where it came in, or beside it, and nowhere between.
    let [o, state] = [&others[0], &others[1]].map(|buffer| TensorView::f32(buffer, [1, 2, 8, 8]));
    let outcome = |s_out: TensorView<'_, 4>, z_out: TensorView<'_, 3>| {
        let z_in = TensorView::f32(&others[2], [1, 2, 8]);
        let inputs = LinearAttentionInputs { state_s: Some(state), state_z: Some(z_in), ..inputs };
        let o = TensorView::f32(&others[0], rows);
        let outputs = LinearAttentionOutputs { o, state_s: Some(s_out), state_z: Some(z_out), state_max: None };
        LinearAttention::new(context, elu).unwrap().prepare(inputs, outputs).map(|_| ()).map_err(|e| e.to_string())
    };
    let z_out = TensorView::f32(&others[3], [1, 2, 8]);
    assert_eq!(outcome(state, z_out), Ok(()));
    assert_eq!(outcome(state.with_offset(128), z_out), Ok(()));
    let shifted = outcome(state.with_offset(8), z_out).unwrap_err();
    assert!(shifted.contains("is not the same view as, the input state_s"), "{shifted}");
    let strided = outcome(state.with_strides([128, 8, 16, 1]), z_out).unwrap_err();
    assert!(strided.contains("is not the same view as, the input state_s"), "{strided}");
    let on_q = outcome(rank4([1, 2, 8, 8]), z_out).unwrap_err();
    assert!(on_q.contains("lies in the buffer of the input q"), "{on_q}");
    let on_o = outcome(o, z_out).unwrap_err();
    assert!(on_o.contains("overlaps the output"), "{on_o}");
}
