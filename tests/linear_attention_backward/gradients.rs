//! A case of the backward pass: that of linear attention, what comes in, and what the gradients are held against.

use super::case::{Case, Sizes, alone};
use super::common::{
    Expected, NAIVE_RUNS, Placed, Placement, Tensor, ULP, assert_same_bits, context, rounding, stored_view,
};
use wgpu_attention::linear_attention::backward::reference::{
    HostInputs, HostOutputs, linear_attention_backward, linear_attention_backward_in,
};
use wgpu_attention::reference::SumOrder;
use wgpu_attention::{
    Context, DType, FeatureMap, LinearAttentionBackward, LinearAttentionBackwardInputs, LinearAttentionConfig,
    LinearAttentionGradients,
};

/// A problem with what comes in.
#[derive(Clone, Debug)]
pub struct Gradients {
    pub case: Case,
    pub dout: Tensor<4>,
    /// Of S and z.
    pub comes_in: Option<(Tensor<4>, Tensor<3>)>,
    /// Gradients, as everything but the case's own.
    pub dtype: DType,
}

/// What the GPU wrote.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub dq: Vec<f32>,
    pub dk: Vec<f32>,
    pub dv: Vec<f32>,
    /// Of a state that came in.
    pub ds: Vec<f32>,
    pub dz: Vec<f32>,
}

impl Outcome {
    pub fn assert_same_bits(&self, what: &str, other: &Self) {
        let fields = |own: &Self| [&own.dq, &own.dk, &own.dv, &own.ds, &own.dz].map(Clone::clone);
        let names = ["dq", "dk", "dv", "dstate_s", "dstate_z"];
        for ((name, own), other) in names.iter().zip(fields(self)).zip(fields(other)) {
            assert_same_bits(&format!("{what}: {name}"), &own, &other);
        }
    }
}

impl Gradients {
    pub fn of(case: Case) -> Self {
        let [batch, q_heads, q_len, _] = case.q.shape;
        let dout = Tensor::normal(91, [batch, q_heads, q_len, case.v.shape[3]]);
        Self { case, dout, comes_in: None, dtype: DType::F32 }
    }

    pub fn new(config: LinearAttentionConfig, sizes: Sizes) -> Self {
        Self::of(Case::new(config, sizes))
    }

    /// With a state that came in, and gradients of the one that goes out.
    pub fn with_state(mut self) -> Self {
        let ([batch, heads, features, v_dim], maxima) = self.case.state_shape();
        let mut z = Tensor::normal(93, [batch, heads, features]);
        z.data.iter_mut().for_each(|z| *z = z.abs() + 0.5);
        // Products with features that have a sign are not to cancel in the divisor: the first feature is 1.
        z.data.iter_mut().step_by(features).for_each(|z| *z += 4.0 * features as f32);
        self.case.state = Some(super::case::State {
            s: Tensor::normal(92, [batch, heads, features, v_dim]),
            z,
            max: (maxima > 0).then(|| Tensor::normal(94, [batch, heads, maxima])),
        });
        self.with_gradient_of_state()
    }

    pub fn with_gradient_of_state(mut self) -> Self {
        let (shape, _) = self.case.state_shape();
        let [batch, heads, features, _] = shape;
        self.comes_in = Some((Tensor::normal(95, shape), Tensor::normal(96, [batch, heads, features])));
        self
    }

    pub fn host(&self) -> HostInputs<'_> {
        let forward = self.case.host();
        HostInputs {
            projection: forward.projection,
            kv_lens: forward.kv_lens,
            state_s: forward.state_s,
            state_z: forward.state_z,
            state_max: forward.state_max,
            dstate_s: self.comes_in.as_ref().map(|(s, _)| s.view()),
            dstate_z: self.comes_in.as_ref().map(|(_, z)| z.view()),
            ..HostInputs::new(forward.q, forward.k, forward.v, self.dout.view())
        }
    }

    pub fn run(&self) -> Outcome {
        self.run_on(context(), Placement::Aligned)
    }

    pub fn run_on(&self, context: &Context, placement: Placement) -> Outcome {
        self.run_some(context, placement, [true; 4])
    }

    /// Those of queries, keys, values and state that are wanted; the others stay empty.
    pub fn run_some(&self, context: &Context, placement: Placement, [q, k, v, state]: [bool; 4]) -> Outcome {
        let _alone = alone();
        let Case { stored, .. } = &self.case;
        let state = state && self.case.state.is_some();
        let [batch, kv_heads, features, v_dim] = self.case.state_shape().0;
        let input = |tensor: &Tensor<4>, dtype| Placed::input_as(context, tensor, placement, dtype);
        let given =
            [(&self.case.q, stored.q), (&self.case.k, stored.k), (&self.case.v, stored.v), (&self.dout, stored.o)]
                .map(|(tensor, dtype)| input(tensor, dtype));
        let made = [&self.case.q, &self.case.k, &self.case.v]
            .map(|tensor| Placed::output_as(context, tensor.shape, placement, self.dtype));
        let host = self.host();
        let projection = host.projection.map(|view| stored_view(context, &view, stored.projection));
        let kv_lens = host.kv_lens.map(|view| context.upload_view(&view).expect("short axes"));
        // Sums of features as rows of heads; in 16 bits each starts a word.
        let place_z = |dtype| match dtype {
            DType::F32 => Placement::Odd,
            _ => Placement::Interleaved { gap: features % 2 },
        };
        let rows = |z: &Tensor<3>, dtype| {
            let z = Tensor { data: z.data.clone(), shape: [batch, 1, kv_heads, features] };
            Placed::input_as(context, &z, place_z(dtype), dtype)
        };
        let [s_in, z_in] = stored.state_in;
        let own = self.case.state.as_ref();
        let [state_s, dstate_s] = [own.map(|own| &own.s), self.comes_in.as_ref().map(|(s, _)| s)]
            .map(|tensor| tensor.map(|tensor| input(tensor, s_in)));
        let [state_z, dstate_z] = [own.map(|own| &own.z), self.comes_in.as_ref().map(|(_, z)| z)]
            .map(|tensor| tensor.map(|tensor| rows(tensor, z_in)));
        let state_max = own.and_then(|own| own.max.as_ref()).map(|max| {
            let [batch, heads, count] = max.shape;
            let max = Tensor { data: max.data.clone(), shape: [batch, heads, count, 1] };
            Placed::input(context, &max, Placement::Odd)
        });
        let [s_out, z_out] = stored.state_out;
        let ds = Placed::output_as(context, [batch, kv_heads, features, v_dim], placement, s_out);
        let dz = Placed::output_as(context, [batch, 1, kv_heads, features], place_z(z_out), z_out);
        let [dq, dk, dv] = &made;
        let inputs = LinearAttentionBackwardInputs {
            projection: projection.as_ref().map(|tensor| tensor.view()),
            kv_lens: kv_lens.as_ref().map(|tensor| tensor.view()),
            state_s: state_s.as_ref().map(Placed::view),
            state_z: state_z.as_ref().map(Placed::wide_rows_view),
            state_max: state_max.as_ref().map(Placed::rows_view),
            dstate_s: dstate_s.as_ref().map(Placed::view),
            dstate_z: dstate_z.as_ref().map(Placed::wide_rows_view),
            ..LinearAttentionBackwardInputs::new(given[0].view(), given[1].view(), given[2].view(), given[3].view())
        };
        let outputs = LinearAttentionGradients {
            dq: q.then(|| dq.view()),
            dk: k.then(|| dk.view()),
            dv: v.then(|| dv.view()),
            dstate_s: state.then(|| ds.view()),
            dstate_z: state.then(|| dz.wide_rows_view()),
        };
        let backward = LinearAttentionBackward::new(context, self.case.config).unwrap();
        let prepared = backward.prepare(inputs, outputs).unwrap();
        context.run(&prepared).unwrap();
        let read = |wanted: bool, placed: &Placed, name| if wanted { placed.read(context, name) } else { Vec::new() };
        Outcome {
            dq: read(q, dq, "dq"),
            dk: read(k, dk, "dk"),
            dv: read(v, dv, "dv"),
            ds: read(state, &ds, "dstate_s"),
            dz: read(state, &dz, "dstate_z"),
        }
    }

    pub fn check(&self, what: &str) -> Outcome {
        let got = self.run();
        self.assert(what, &got);
        got
    }

    /// Compares gradients with the twin's.
    pub fn assert(&self, what: &str, got: &Outcome) {
        self.assert_each([(what.to_string(), got.clone())]);
    }

    /// Gradients by what they are, beside those of one twin.
    pub fn assert_each(&self, all: impl IntoIterator<Item = (String, Outcome)>) {
        let (config, inputs) = (self.case.config, self.host());
        let want = linear_attention_backward(&config, &inputs).unwrap();
        let naive: Vec<HostOutputs<f32>> = (0..NAIVE_RUNS)
            .map(|seed| linear_attention_backward_in(&config, &inputs, SumOrder::Shuffled(seed)).unwrap())
            .collect();
        all.into_iter().for_each(|(what, got)| self.judge(&what, &got, &want, &naive));
    }

    fn judge(&self, what: &str, got: &Outcome, want: &HostOutputs<f64>, naive: &[HostOutputs<f32>]) {
        let config = self.case.config;
        let case = format!(
            "{what}: {config:?}, q {:?}, k {:?}, v {:?}{}{}{}",
            self.case.q.shape,
            self.case.k.shape,
            self.case.v.shape,
            self.case.kv_lens.as_ref().map_or(String::new(), |lens| format!(", kv_lens {lens:?}")),
            if self.case.state.is_some() { ", state" } else { "" },
            if self.comes_in.is_some() { ", its gradient" } else { "" },
        );
        let floor = self.floor();
        let runs = |field: fn(&HostOutputs<f32>) -> &Vec<f32>| naive.iter().map(|run| field(run).clone()).collect();
        let check = |name, shape: &[usize], dtype, got: &[f32], want: &[f64], naive: Vec<Vec<f32>>| {
            let (rounding, absolute_floor) = rounding(dtype);
            let floor = floor + rounding;
            if !got.is_empty() {
                Expected { case: &case, name, shape, want, naive: &naive, floor, absolute_floor }.assert_gradient(got);
            }
        };
        let [s_out, z_out] = self.case.stored.state_out;
        let shape = self.case.state_shape().0;
        check("dq", &self.case.q.shape, self.dtype, &got.dq, &want.dq, runs(|run| &run.dq));
        check("dk", &self.case.k.shape, self.dtype, &got.dk, &want.dk, runs(|run| &run.dk));
        check("dv", &self.case.v.shape, self.dtype, &got.dv, &want.dv, runs(|run| &run.dv));
        check("dstate_s", &shape, s_out, &got.ds, &want.dstate_s, runs(|run| &run.dstate_s));
        check("dstate_z", &shape[..3], z_out, &got.dz, &want.dstate_z, runs(|run| &run.dstate_z));
    }

    /// What a GPU's exponentials and divisions add, as in tests/common/linear_attention.rs: a gradient has a weight, which is divided,
    /// and do·o of the row, which is divided again.
    fn floor(&self) -> f64 {
        let terms = (self.case.k.shape[2].max(1) * self.case.features()) as f64;
        let largest =
            self.case.q.data.iter().chain(&self.case.k.data).fold(0.0f64, |max, x| max.max(f64::from(x.abs())));
        ULP * match self.case.config.feature_map {
            FeatureMap::EluPlusOne => 3.0 * (3.0 + 2.0 * largest.min(4.0)) + 4.0,
            FeatureMap::Exp | FeatureMap::Softmax | FeatureMap::Favor { .. } => 16.0 + 6.0 * terms.ln(),
            _ => 6.0,
        } + ULP * (self.case.features() as f64).sqrt()
    }
}
