//! A problem with all its tensors in host memory, and what the GPU makes of it.

use wgpu_attention::attention::backward::reference::{self, HostInputs, HostOutputs};
use wgpu_attention::attention::reference as forward;
use wgpu_attention::reference::{Real, SumOrder};
use wgpu_attention::{
    AttentionBackward, AttentionBackwardInputs, AttentionConfig, AttentionGradients, Context, DType, HostView,
    Matrices, Scale,
};

use super::common::{Expected, NAIVE_RUNS, Placed, Placement, Tensor, ULP, contexts, rounding, stored_view};
use super::halves::OfHalves;

/// `[batch, q_heads, kv_heads, q_len, kv_len, head_dim, v_dim]`.
pub type Sizes = [usize; 7];

/// Which gradients are asked for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    pub dq: bool,
    pub dk: bool,
    pub dv: bool,
    pub rest: bool,
}

#[derive(Clone, Debug)]
pub struct Case {
    pub config: AttentionConfig,
    pub q: Tensor<4>,
    pub k: Tensor<4>,
    pub v: Tensor<4>,
    pub kv_lens: Option<Vec<u32>>,
    /// Extents `[batch or 1, heads or 1, q_len or 1, kv_len]`.
    pub bias: Option<Tensor<4>>,
    pub mask: Option<(Vec<u8>, [usize; 4])>,
    pub row_scale: Option<Tensor<3>>,
    pub dout: Option<Tensor<4>>,
    pub dlse: Option<Tensor<3>>,
    pub dentropy: Option<Tensor<3>>,
    pub wanted: Wanted,
    /// Of q, k, v, o and what comes in for it, and of their gradients.
    pub stored: [DType; 2],
}

/// The names of gradients, and the numbers of each that was asked for.
pub type Gradients = Vec<(&'static str, Vec<f32>)>;

impl Case {
    pub fn new(config: AttentionConfig, [batch, q_heads, kv_heads, q_len, kv_len, head_dim, v_dim]: Sizes) -> Self {
        let seed = (q_len * 31 + kv_len * 17 + head_dim * 7 + v_dim) as u64;
        let rows = [batch, q_heads, q_len];
        Self {
            config,
            q: Tensor::normal(seed, [batch, q_heads, q_len, head_dim]),
            k: Tensor::normal(seed + 1, [batch, kv_heads, kv_len, head_dim]),
            v: Tensor::normal(seed + 2, [batch, kv_heads, kv_len, v_dim]),
            kv_lens: None,
            bias: None,
            mask: None,
            row_scale: (config.scale == Scale::PerRow).then(|| scales(seed + 3, rows)),
            dout: Some(Tensor::normal(seed + 4, [batch, q_heads, q_len, v_dim])),
            dlse: None,
            dentropy: None,
            wanted: Wanted { dq: true, dk: true, dv: true, rest: true },
            stored: [DType::F32; 2],
        }
    }

    pub fn rows(&self) -> [usize; 3] {
        [self.q.shape[0], self.q.shape[1], self.q.shape[2]]
    }

    fn scores(&self) -> [usize; 4] {
        let [batch, heads, q_len] = self.rows();
        [batch, heads, q_len, self.k.shape[2]]
    }

    pub fn with_lens(self, lens: &[u32]) -> Self {
        Self { kv_lens: Some(lens.to_vec()), ..self }
    }

    pub fn with_bias(self, shape: [usize; 4]) -> Self {
        Self { bias: Some(Tensor::normal(5, shape)), ..self }
    }

    /// One scale for all rows that these extents have as one.
    pub fn with_scales(self, shape: [usize; 3]) -> Self {
        Self { row_scale: Some(scales(8, shape)), ..self }
    }

    /// A mask that hides about a third of the pairs, and the first row of each head altogether.
    pub fn with_mask(self, shape: [usize; 4]) -> Self {
        let noise = Tensor::normal(6, shape);
        let first_row = |index: usize| shape[2] > 1 && (index / shape[3]).is_multiple_of(shape[2]);
        let keep = |(index, x): (usize, &f32)| u8::from(*x > -0.4 && !first_row(index)) * 255;
        Self { mask: Some((noise.data.iter().enumerate().map(keep).collect(), shape)), ..self }
    }

    /// Gradients of lse and of the entropy come in as well.
    pub fn with_statistics(self) -> Self {
        let rows = self.rows();
        Self { dlse: Some(Tensor::normal(11, rows)), dentropy: Some(Tensor::normal(12, rows)), ..self }
    }

    /// Stored in these types, with the numbers that they hold then.
    pub fn stored(self, stored: [DType; 2]) -> Self {
        let [own, _] = stored;
        Self {
            q: self.q.rounded(own),
            k: self.k.rounded(own),
            v: self.v.rounded(own),
            bias: self.bias.map(|bias| bias.rounded(own)),
            row_scale: self.row_scale.map(|scale| scale.rounded(own)),
            dout: self.dout.map(|dout| dout.rounded(own)),
            stored,
            ..self
        }
    }

    fn forward(&self) -> forward::HostInputs<'_> {
        let scores = self.scores();
        forward::HostInputs {
            kv_lens: self.kv_lens.as_ref().map(|lens| HostView::new(lens, [lens.len()]).unwrap()),
            bias: self.bias.as_ref().map(|bias| bias.view().broadcast_to(scores)),
            mask: self.mask.as_ref().map(|(mask, shape)| HostView::new(mask, *shape).unwrap().broadcast_to(scores)),
            row_scale: self.row_scale.as_ref().map(|scale| scale.view().broadcast_to(self.rows())),
            ..forward::HostInputs::new(self.q.view(), self.k.view(), self.v.view())
        }
    }

    /// o, lse and entropy as forward would have stored them.
    pub fn saved(&self) -> [Tensor<4>; 3] {
        match self.config.matrices {
            Matrices::F16 => self.saved_as::<OfHalves>(),
            Matrices::None => self.saved_as::<f64>(),
        }
    }

    fn saved_as<T: Real>(&self) -> [Tensor<4>; 3] {
        let out = forward::attention_in::<T>(&self.config, &self.forward(), SumOrder::InOrder).unwrap();
        let f32s = |numbers: &[T]| numbers.iter().map(|&x| x.to_f64() as f32).collect::<Vec<_>>();
        let [batch, heads, q_len] = self.rows();
        let o = Tensor { data: f32s(&out.o), shape: [batch, heads, q_len, self.v.shape[3]] }.rounded(self.stored[0]);
        let [lse, entropy] =
            [&out.lse, &out.entropy].map(|own| Tensor { data: f32s(own), shape: [batch, heads, q_len, 1] });
        [o, lse, entropy]
    }

    pub fn twin<T: Real>(&self, order: SumOrder) -> HostOutputs<T> {
        let forward::HostInputs { q, k, v, kv_lens, mask, .. } = self.forward();
        let [batch, heads, q_len] = self.rows();
        // What forward wrote is computed again.
        let o = Tensor::filled(f32::NAN, [batch, heads, q_len, self.v.shape[3]]);
        let lse = Tensor::filled(f32::NAN, self.rows());
        let inputs = HostInputs {
            kv_lens,
            mask,
            bias: self.bias.as_ref().map(Tensor::view),
            row_scale: self.row_scale.as_ref().map(Tensor::view),
            entropy: Some(lse.view()),
            dout: self.dout.as_ref().map(Tensor::view),
            dlse: self.dlse.as_ref().map(Tensor::view),
            dentropy: self.dentropy.as_ref().map(Tensor::view),
            ..HostInputs::of(q, k, v, o.view(), lse.view())
        };
        reference::attention_backward_in(&self.config, &inputs, order).unwrap()
    }

    /// The gradients from the GPU, of views that `change` may spoil.
    pub fn call<R>(
        &self,
        context: &Context,
        placement: Placement,
        saved: [Tensor<4>; 3],
        work: impl for<'a> FnOnce(&AttentionBackward, AttentionBackwardInputs<'a>, AttentionGradients<'a>) -> R,
    ) -> (R, Gradients) {
        let [own, of_gradients] = self.stored;
        let [o, lse, entropy] = saved;
        let [q, k, v, o] =
            [&self.q, &self.k, &self.v, &o].map(|tensor| Placed::input_as(context, tensor, placement, own));
        let dout = self.dout.as_ref().map(|tensor| Placed::input_as(context, tensor, placement, own));
        let [lse, entropy] = [lse, entropy].map(|tensor| Placed::input(context, &tensor, Placement::Odd));
        let rows = |tensor: &Option<Tensor<3>>| {
            tensor.as_ref().map(|tensor| context.upload_view(&tensor.view()).expect("short axes"))
        };
        let [dlse, dentropy] = [&self.dlse, &self.dentropy].map(rows);
        let host = self.forward();
        let kv_lens = host.kv_lens.map(|view| context.upload_view(&view).expect("short axes"));
        let mask = host.mask.map(|view| context.upload_view(&view).expect("short axes"));
        let bias = self.bias.as_ref().map(|bias| stored_view(context, &bias.view(), own));
        let row_scale = self.row_scale.as_ref().map(|scale| stored_view(context, &scale.view(), own));

        let output = |wanted: bool, shape| wanted.then(|| Placed::output_as(context, shape, placement, of_gradients));
        let (dq, dk, dv) = (
            output(self.wanted.dq, self.q.shape),
            output(self.wanted.dk, self.k.shape),
            output(self.wanted.dv, self.v.shape),
        );
        let dbias = self.bias.as_ref().and_then(|bias| output(self.wanted.rest, bias.shape));
        let numbers = |wanted: bool, [a, b, c]: [usize; 3]| {
            (wanted && self.wanted.rest).then(|| Placed::output(context, [a, b, c, 1], Placement::Odd))
        };
        let drow_scale = self.row_scale.as_ref().and_then(|scale| numbers(true, scale.shape));
        let dscale = (self.wanted.rest && self.row_scale.is_none())
            .then(|| Placed::output(context, [1, 1, 1, self.q.shape[1]], Placement::Odd));
        let op = AttentionBackward::new(context, self.config).unwrap();
        let inputs = AttentionBackwardInputs {
            kv_lens: kv_lens.as_ref().map(|tensor| tensor.view()),
            bias: bias.as_ref().map(|tensor| tensor.view()),
            mask: mask.as_ref().map(|tensor| tensor.view()),
            row_scale: row_scale.as_ref().map(|tensor| tensor.view()),
            entropy: self.dentropy.is_some().then(|| entropy.rows_view()),
            dout: dout.as_ref().map(|placed| placed.view()),
            dlse: dlse.as_ref().map(|tensor| tensor.view()),
            dentropy: dentropy.as_ref().map(|tensor| tensor.view()),
            ..AttentionBackwardInputs::of(q.view(), k.view(), v.view(), o.view(), lse.rows_view())
        };
        let outputs = AttentionGradients {
            dq: dq.as_ref().map(Placed::view),
            dk: dk.as_ref().map(Placed::view),
            dv: dv.as_ref().map(Placed::view),
            dbias: dbias.as_ref().map(Placed::view),
            drow_scale: drow_scale.as_ref().map(Placed::rows_view),
            dscale: dscale.as_ref().map(Placed::numbers_view),
        };
        let done = work(&op, inputs, outputs);
        let all = [
            ("dq", &dq),
            ("dk", &dk),
            ("dv", &dv),
            ("dbias", &dbias),
            ("drow_scale", &drow_scale),
            ("dscale", &dscale),
        ];
        let read = all.into_iter().filter_map(|(name, placed)| Some((name, placed.as_ref()?.read(context, name))));
        (done, read.collect())
    }

    pub fn run(&self, context: &Context, placement: Placement) -> Gradients {
        self.call(context, placement, self.saved(), once(context)).1
    }

    /// With what forward made of another case.
    pub fn run_with_saved_of(&self, other: &Self, context: &Context) -> Gradients {
        self.run_with_saved(other.saved(), context)
    }

    pub fn run_with_saved(&self, saved: [Tensor<4>; 3], context: &Context) -> Gradients {
        self.call(context, Placement::Aligned, saved, once(context)).1
    }

    /// The same call so many times.
    pub fn reruns(&self, context: &Context, times: usize) -> Vec<Gradients> {
        let saved = self.saved();
        let again = || self.call(context, Placement::Aligned, saved.clone(), once(context)).1;
        (0..times).map(|_| again()).collect()
    }

    /// Compares gradients with the twin's.
    pub fn assert(&self, what: &str, got: &Gradients) {
        let want: HostOutputs<f64> = self.twin(SumOrder::InOrder);
        if self.config.matrices == Matrices::F16 {
            return self.assert_f16(what, got, &want);
        }
        let naive: Vec<HostOutputs<f32>> = (0..NAIVE_RUNS).map(|seed| self.twin(SumOrder::Shuffled(seed))).collect();
        let case = format!(
            "{what}: {:?}, q {:?}, k {:?}, v {:?}{}{}{}{}",
            self.config,
            self.q.shape,
            self.k.shape,
            self.v.shape,
            self.bias.as_ref().map_or(String::new(), |bias| format!(", bias {:?}", bias.shape)),
            self.row_scale.as_ref().map_or(String::new(), |scale| format!(", row_scale {:?}", scale.shape)),
            if self.mask.is_some() { ", mask" } else { "" },
            self.kv_lens.as_ref().map_or(String::new(), |lens| format!(", kv_lens {lens:?}")),
        );
        for (name, got) in got {
            let want = by_name(&want, name);
            let naive: Vec<Vec<f32>> = naive.iter().map(|run| by_name(run, name).clone()).collect();
            let (floor, absolute_floor) = self.floors(name, ULP);
            let (stored, least) = if name.ends_with("scale") { (0.0, 0.0) } else { rounding(self.stored[1]) };
            let shape = [want.len()];
            let (floor, absolute_floor) = (floor + stored, absolute_floor + least);
            Expected { case: &case, name, shape: &shape, want, naive: &naive, floor, absolute_floor }
                .assert_gradient(got);
        }
    }

    /// What may be added to a gradient's error, relative to its largest number, and absolute.
    ///
    /// Weights as in tests/attention.rs. And where dp - delta cancels, as of one key it does wholly, each is off by an ulp of what its sum
    /// may be, which goes on through the other factor, of a sum over rows at random.
    pub fn floors(&self, name: &str, ulp: f64) -> (f64, f64) {
        let n = self.k.shape[2].max(1) as f64;
        let norm = |tensor: &Tensor<4>| {
            let rows = tensor.data.chunks(tensor.shape[3]);
            rows.map(|row| row.iter().map(|x| f64::from(x * x)).sum::<f64>().sqrt()).fold(0.0, f64::max)
        };
        let most = |numbers: &[f32]| numbers.iter().fold(0.0, |most: f64, x| most.max(f64::from(x.abs())));
        let statistic = |tensor: &Option<Tensor<3>>| tensor.as_ref().map_or(0.0, |tensor| most(&tensor.data));
        let dim = self.q.shape[3] as f64;
        let logs = n.ln().max(1.0);
        let (scale, slope) = match self.config.scale {
            Scale::Fixed(scale) => (f64::from(scale).abs(), 1.0),
            Scale::PerRow => (self.row_scale.as_ref().map_or(0.0, |scale| most(&scale.data)), 1.0),
            Scale::KappaLogN { kappa } => (f64::from(kappa).abs() * logs / dim, logs / dim),
            Scale::ScalableSoftmax { s, .. } => (f64::from(s).abs() * logs, logs),
            _ => (logs / dim.sqrt(), logs / dim.sqrt()),
        };
        let (q, k) = (norm(&self.q), norm(&self.k));
        let score = self.config.softcap.map_or(scale * q * k, |cap| (scale * q * k).min(f64::from(cap)));
        let indirect =
            self.config.softcap.is_some() || !matches!(self.config.scale, Scale::InvSqrtDim | Scale::Fixed(_));
        let floor = ulp * (5.0 + 2.0 * n.ln() + if indirect { 6.0 * score } else { 0.0 });

        let o_rounded = 1.0 + rounding(self.stored[0]).0 / ULP;
        let comes_in = self.dout.as_ref().map_or(0.0, |dout| o_rounded * norm(dout) * norm(&self.v))
            + statistic(&self.dlse)
            + statistic(&self.dentropy) * (n.ln() + score);
        let pair = ulp * comes_in;
        let rows = |summed: usize| (summed as f64).sqrt();
        let of_key = rows(self.q.shape[2] * self.q.shape[1] / self.k.shape[1]);
        let all: usize = self.rows().iter().product();
        let of = |shape: Option<usize>| rows(all / shape.unwrap_or(1).max(1));
        let absolute = match name {
            "dq" => pair * scale * most(&self.k.data),
            "dk" => pair * scale * most(&self.q.data) * of_key,
            "dv" => ulp * self.dout.as_ref().map_or(0.0, |dout| most(&dout.data)) * of_key,
            "dbias" => pair * of(self.bias.as_ref().map(|bias| bias.shape[..3].iter().product())),
            "drow_scale" => pair * q * k * of(self.row_scale.as_ref().map(|scale| scale.data.len())),
            _ => pair * slope * q * k * of(Some(self.q.shape[1])),
        };
        (floor, absolute)
    }

    /// By the kernels there are, on what devices there are.
    pub fn check(&self, what: &str) {
        for (kernels, context) in contexts().into_iter().take(1) {
            self.assert(&format!("{what}{kernels}"), &self.run(context, Placement::Aligned));
        }
    }
}

/// Runs a call.
fn once(
    context: &Context,
) -> impl for<'a> FnOnce(&AttentionBackward, AttentionBackwardInputs<'a>, AttentionGradients<'a>) {
    |op, inputs, outputs| {
        let prepared = op.prepare(inputs, outputs).unwrap_or_else(|error| panic!("{:?}: {error}", op.config()));
        context.run(&prepared).unwrap();
    }
}

fn scales(seed: u64, shape: [usize; 3]) -> Tensor<3> {
    Tensor::normal(seed, shape).scaled(0.2)
}

pub fn by_name<'a, T>(outputs: &'a HostOutputs<T>, name: &str) -> &'a Vec<T> {
    match name {
        "dq" => &outputs.dq,
        "dk" => &outputs.dk,
        "dv" => &outputs.dv,
        "dbias" => &outputs.dbias,
        "drow_scale" => &outputs.drow_scale,
        _ => &outputs.dscale,
    }
}
