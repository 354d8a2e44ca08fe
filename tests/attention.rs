//! Softmax attention on the GPU against its f64 twin.

#[path = "attention/any.rs"]
mod any;
mod common;
#[path = "attention/extremes.rs"]
mod extremes;
#[path = "attention/few.rs"]
mod few;
#[path = "attention/matrices.rs"]
mod on_matrices;
#[path = "attention/storage.rs"]
mod storage;
#[path = "attention/tiles.rs"]
mod tiles;

use common::{
    Expected, NAIVE_RUNS, Placed, Placement, Tensor, ULP, assert_same_bits, compiles_slowly, context, contexts,
    rounding, stored_view,
};
use storage::Stored;
use wgpu_attention::attention::reference::{self, HostInputs};
use wgpu_attention::reference::SumOrder;
use wgpu_attention::{
    Attention, AttentionConfig, AttentionInputs, AttentionOutputs, AttentionShapes, Causal, Context, ContextOptions,
    DType, HostView, Matrices, Scale, TensorView,
};

/// A problem with all its tensors in host memory.
#[derive(Clone, Debug)]
struct Case {
    config: AttentionConfig,
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    kv_lens: Option<Vec<u32>>,
    /// Extents `[batch or 1, heads or 1, q_len or 1, kv_len]`.
    bias: Option<Tensor<4>>,
    mask: Option<(Vec<u8>, [usize; 4])>,
    row_scale: Option<Tensor<3>>,
    stored: Stored,
}

/// `[batch, q_heads, kv_heads, q_len, kv_len, head_dim, v_dim]`.
type Sizes = [usize; 7];

impl Case {
    fn new(config: AttentionConfig, [batch, q_heads, kv_heads, q_len, kv_len, head_dim, v_dim]: Sizes) -> Self {
        let seed = (q_len * 31 + kv_len * 17 + head_dim * 7 + v_dim) as u64;
        let row_scale = (config.scale == Scale::PerRow).then(|| {
            let mut scales = Tensor::normal(seed + 3, [batch, q_heads, q_len]);
            scales.data.iter_mut().for_each(|x| *x *= 0.2);
            scales
        });
        Self {
            config,
            q: Tensor::normal(seed, [batch, q_heads, q_len, head_dim]),
            k: Tensor::normal(seed + 1, [batch, kv_heads, kv_len, head_dim]),
            v: Tensor::normal(seed + 2, [batch, kv_heads, kv_len, v_dim]),
            kv_lens: None,
            bias: None,
            mask: None,
            row_scale,
            stored: Stored::F32,
        }
    }

    fn scores_shape(&self) -> [usize; 4] {
        [self.q.shape[0], self.q.shape[1], self.q.shape[2], self.k.shape[2]]
    }

    fn with_lens(mut self, lens: &[u32]) -> Self {
        self.kv_lens = Some(lens.to_vec());
        self
    }

    fn with_bias(mut self, shape: [usize; 4]) -> Self {
        self.bias = Some(Tensor::normal(5, shape));
        self
    }

    /// A mask that hides about a third of the pairs, and the first row of each head altogether.
    fn with_mask(mut self, shape: [usize; 4]) -> Self {
        let row = shape[3];
        let noise = Tensor::normal(6, shape);
        let first_row = |index: usize| shape[2] > 1 && (index / row).is_multiple_of(shape[2]);
        let keep = |(index, x): (usize, &f32)| u8::from(*x > -0.4 && !first_row(index)) * 255;
        self.mask = Some((noise.data.iter().enumerate().map(keep).collect(), shape));
        self
    }

    fn host(&self) -> HostInputs<'_> {
        let scores = self.scores_shape();
        let mut inputs = HostInputs::new(self.q.view(), self.k.view(), self.v.view());
        inputs.kv_lens = self.kv_lens.as_ref().map(|lens| HostView::new(lens, [lens.len()]).unwrap());
        inputs.bias = self.bias.as_ref().map(|bias| bias.view().broadcast_to(scores));
        inputs.mask = self.mask.as_ref().map(|(mask, shape)| HostView::new(mask, *shape).unwrap().broadcast_to(scores));
        inputs.row_scale = self.row_scale.as_ref().map(Tensor::view);
        inputs
    }

    /// o, lse and entropy from the GPU.
    fn run(&self, context: &Context, placement: Placement) -> [Vec<f32>; 3] {
        let inputs = self.host();
        let [batch, heads, q_len, _] = self.q.shape;
        let Stored { q, k, v, .. } = self.stored;
        let [q, k, v] = [(&self.q, q), (&self.k, k), (&self.v, v)]
            .map(|(tensor, dtype)| Placed::input_as(context, tensor, placement, dtype));
        let o = Placed::output_as(context, [batch, heads, q_len, self.v.shape[3]], placement, self.stored.o);
        let [lse, entropy] = [0; 2].map(|_| Placed::output(context, [batch, heads, q_len, 1], Placement::Odd));
        let kv_lens = inputs.kv_lens.map(|view| context.upload_view(&view).expect("short axes"));
        let bias = inputs.bias.map(|view| stored_view(context, &view, self.stored.bias));
        let mask = inputs.mask.map(|view| context.upload_view(&view).expect("short axes"));
        let row_scale = inputs.row_scale.map(|view| stored_view(context, &view, self.stored.row_scale));

        let attention = Attention::new(context, self.config).unwrap();
        let prepared = attention
            .prepare(
                AttentionInputs {
                    q: q.view(),
                    k: k.view(),
                    v: v.view(),
                    kv_lens: kv_lens.as_ref().map(|tensor| tensor.view()),
                    bias: bias.as_ref().map(|tensor| tensor.view()),
                    mask: mask.as_ref().map(|tensor| tensor.view()),
                    row_scale: row_scale.as_ref().map(|tensor| tensor.view()),
                },
                AttentionOutputs { o: o.view(), lse: Some(lse.rows_view()), entropy: Some(entropy.rows_view()) },
            )
            .unwrap();
        context.run(&prepared).unwrap();
        [o.read(context, "o"), lse.read(context, "lse"), entropy.read(context, "entropy")]
    }

    /// Compares a result with the twin.
    pub fn assert(&self, what: &str, [o, lse, entropy]: &[Vec<f32>; 3]) {
        let inputs = self.host();
        let want = reference::attention(&self.config, &inputs).unwrap();
        if self.config.matrices == Matrices::F16 {
            return self.assert_f16(what, [o, lse, entropy], &want);
        }
        let naive: Vec<_> = (0..NAIVE_RUNS)
            .map(|seed| reference::attention_in::<f32>(&self.config, &inputs, SumOrder::Shuffled(seed)).unwrap())
            .collect();
        let case = format!(
            "{what}: {:?}, q {:?}, k {:?}, v {:?}{}{}{}",
            self.config,
            self.q.shape,
            self.k.shape,
            self.v.shape,
            if self.bias.is_some() { ", bias" } else { "" },
            if self.mask.is_some() { ", mask" } else { "" },
            self.kv_lens.as_ref().map_or(String::new(), |lens| format!(", kv_lens {lens:?}")),
        );
        // A weight exp(x) is off by (3 + 2|x|) ulp, and the mean of |x| under the weights is at most log n; one
        // division adds 2 ulp. A softcap computes exp of a score and divides, a log n scale takes a logarithm: 6 ulp
        // of the score each, which moves the exponent by as much. A kernel whose maximum lags behind gets no more.
        let n = self.k.shape[2].max(1) as f64;
        let largest = |tensor: &Tensor<4>| {
            let rows = tensor.data.chunks(tensor.shape[3]);
            rows.map(|row| row.iter().map(|x| f64::from(x * x)).sum::<f64>().sqrt()).fold(0.0, f64::max)
        };
        let score = largest(&self.q) * largest(&self.k) / (self.q.shape[3] as f64).sqrt();
        let score = self.config.softcap.map_or(score, |cap| score.max(f64::from(cap)));
        let indirect =
            self.config.softcap.is_some() || !matches!(self.config.scale, Scale::InvSqrtDim | Scale::Fixed(_));
        let floor = ULP * (5.0 + 2.0 * n.ln() + if indirect { 6.0 * score } else { 0.0 });
        let [batch, heads, q_len, _] = self.q.shape;
        let rows = [batch, heads, q_len];
        let check = |name,
                     shape: &[usize],
                     got: &[f32],
                     want: &[f64],
                     naive: Vec<Vec<f32>>,
                     [relative, absolute_floor]: [f64; 2]| {
            Expected { case: &case, name, shape, want, naive: &naive, floor: floor + relative, absolute_floor }
                .assert(got);
        };
        let o_shape = [batch, heads, q_len, self.v.shape[3]];
        let runs = naive.iter().map(|run| run.o.clone()).collect();
        let (stored, least) = rounding(self.stored.o);
        check("o", &o_shape, o, &want.o, runs, [stored, least]);
        // log is only good to 2^-20 near 1; lse and entropy also carry the score's own error.
        let absolute = 1.0 / f64::from(1 << 20) + if indirect { 6.0 * ULP * score } else { 0.0 };
        check("lse", &rows, lse, &want.lse, naive.iter().map(|run| run.lse.clone()).collect(), [0.0, absolute]);
        let runs = naive.iter().map(|run| run.entropy.clone()).collect();
        check("entropy", &rows, entropy, &want.entropy, runs, [0.0, absolute * (1.0 + n.ln())]);
    }

    /// By the adapter's own kernels.
    fn check_own(&self, what: &str) {
        self.assert(what, &self.run(context(), Placement::Aligned));
    }

    fn check(&self, what: &str) {
        self.check_portable(what);
        self.check_on_matrices(what);
    }
}

const CAUSALS: [Causal; 6] = [
    Causal::None,
    Causal::TopLeft,
    Causal::BottomRight,
    Causal::Offset(3),
    Causal::Offset(-5),
    Causal::Offset(1 << 30),
];

const SCALES: [Scale; 12] = [
    Scale::InvSqrtDim,
    Scale::Fixed(0.3),
    Scale::Fixed(-0.5),
    Scale::Fixed(2.5),
    Scale::LOG_N,
    Scale::LogN { base: 64.0, floor: 16 },
    Scale::KappaLogN { kappa: 4.0 },
    Scale::KappaLogN { kappa: -1.5 },
    Scale::LogNInference { train_len: 20 },
    Scale::LogNSqrtDim,
    Scale::ScalableSoftmax { s: 0.43, inv_sqrt_dim: false },
    Scale::PerRow,
];

#[test]
fn lengths_around_every_tile() {
    for len in [1, 2, 3, 4, 5, 7, 8, 9, 31, 32, 33, 63, 65, 129] {
        for causal in [Causal::None, Causal::BottomRight] {
            Case::new(AttentionConfig::new().causal(causal), [1, 2, 2, len, len, 64, 64]).check("self");
        }
        Case::new(AttentionConfig::new().causal(Causal::BottomRight), [1, 1, 1, 3, len, 64, 64])
            .check_portable("cross");
        Case::new(AttentionConfig::new().causal(Causal::TopLeft), [1, 1, 1, len, 6, 64, 64]).check_portable("cross");
    }
}

#[test]
fn every_scale_and_causal_mask() {
    for scale in SCALES {
        for causal in CAUSALS {
            let config = AttentionConfig::new().scale(scale).causal(causal);
            Case::new(config, [2, 2, 1, 13, 21, 8, 8]).check("more keys");
            Case::new(config, [1, 2, 2, 21, 13, 8, 8]).with_lens(&[7]).check_portable("fewer keys");
        }
    }
}

#[test]
fn windows_softcap_bias_and_mask_together() {
    let ends = [None, Some(0), Some(4), Some(1 << 30)];
    for left in ends {
        for right in ends {
            for causal in [Causal::None, Causal::BottomRight, Causal::Offset(2)] {
                let config = AttentionConfig::new().causal(causal).window(left, right).scale(Scale::LOG_N);
                let sizes = [2, 2, 1, 10, 19, 8, 8];
                Case::new(config, sizes).with_lens(&[19, 5]).check("window");
                Case::new(config.softcap(1.5), sizes).with_mask([1, 2, 10, 19]).with_bias([2, 1, 1, 19]).check("all");
            }
        }
    }
}

#[test]
fn bias_and_mask_broadcast_over_any_outer_axis() {
    let sizes = [2, 2, 2, 9, 21, 8, 8];
    for shape in [[1, 1, 1, 21], [2, 1, 1, 21], [1, 2, 1, 21], [1, 1, 9, 21], [2, 2, 9, 21]] {
        for scale in [Scale::InvSqrtDim, Scale::LOG_N] {
            let case = Case::new(AttentionConfig::new().scale(scale), sizes);
            case.clone().with_bias(shape).check("bias");
            case.clone().with_mask(shape).check("mask");
            case.with_bias(shape).with_mask([1, 1, 9, 21]).check("both");
        }
    }
}

#[test]
fn a_bias_of_minus_infinity_hides_its_key_but_counts_it() {
    let mut case =
        Case::new(AttentionConfig::new().scale(Scale::LOG_N), [1, 1, 1, 6, 20, 8, 8]).with_bias([1, 1, 6, 20]);
    let bias = case.bias.as_mut().unwrap();
    for j in 0..20 {
        *bias.at_mut([0, 0, 0, j]) = f32::NEG_INFINITY;
        *bias.at_mut([0, 0, 3, j]) = if j % 3 == 0 { f32::NEG_INFINITY } else { 0.5 };
    }
    for j in (0..20).step_by(3) {
        case.v.at_mut([0, 0, j, 1]).clone_from(&2.0);
    }
    case.check("-inf");
    let [o, lse, entropy] = case.run(context(), Placement::Aligned);
    assert!(o[..8].iter().all(|&x| x == 0.0), "a row without a visible key is 0");
    assert_eq!((lse[0], entropy[0]), (f32::NEG_INFINITY, 0.0));
}

#[test]
fn rows_that_see_no_key_are_zero() {
    let hidden = AttentionConfig::new().causal(Causal::Offset(-4));
    let case = Case::new(hidden, [2, 1, 1, 9, 9, 8, 4]).with_lens(&[9, 0]);
    let [o, lse, entropy] = case.run(context(), Placement::Aligned);
    case.assert("empty rows", &[o.clone(), lse.clone(), entropy.clone()]);
    for row in (0..4).chain(9..18) {
        assert!(o[row * 4..row * 4 + 4].iter().all(|x| x.to_bits() == 0), "row {row}: {:?}", &o[row * 4..row * 4 + 4]);
        assert_eq!(lse[row].to_bits(), f32::NEG_INFINITY.to_bits());
        assert_eq!(entropy[row].to_bits(), 0);
    }
}

#[test]
fn key_lengths_beyond_the_keys_are_clamped() {
    let case = Case::new(AttentionConfig::new().causal(Causal::BottomRight), [2, 1, 1, 3, 12, 8, 8]);
    let full = case.run(context(), Placement::Aligned);
    let clamped = case.with_lens(&[u32::MAX, 13]).run(context(), Placement::Aligned);
    for (a, b) in full.iter().zip(&clamped) {
        assert_same_bits("clamped", a, b);
    }
}

#[test]
fn scores_of_ten_thousand_stay_finite() {
    for factor in [1e2, 1e4] {
        let mut case = Case::new(AttentionConfig::new().scale(Scale::Fixed(1.0)), [1, 1, 1, 17, 40, 1, 8]);
        case.q = Tensor::filled(1.0, [1, 1, 17, 1]);
        case.k = Tensor::normal(9, [1, 1, 40, 1]);
        case.k.data.iter_mut().for_each(|x| *x = factor * x.signum());
        case.check_portable("one-dimensional");
        let mut case = Case::new(AttentionConfig::new().causal(Causal::TopLeft), [1, 1, 1, 40, 40, 8, 8]);
        case.q = case.q.scaled(factor.sqrt());
        case.k = case.k.scaled(factor.sqrt());
        case.check_portable("random");
    }
}

#[test]
fn values_of_one_give_one() {
    let mut case = Case::new(AttentionConfig::new().causal(Causal::TopLeft), [1, 2, 1, 70, 70, 64, 64]);
    case.v = Tensor::filled(1.0, case.v.shape);
    let [o, ..] = case.run(context(), Placement::Aligned);
    assert!(o.iter().all(|x| (x - 1.0).abs() <= 4.0 * f32::EPSILON), "weights sum to one");
}

#[test]
fn grouped_heads_equal_repeated_heads_bit_for_bit() {
    let config = AttentionConfig::new().causal(Causal::TopLeft).window(Some(13), None);
    for (kv_heads, len) in [(1, 19), (2, 19), (2, 70)] {
        let grouped = Case::new(config, [2, 4, kv_heads, len, len, 64, 64]);
        let mut repeated = grouped.clone();
        repeated.k = grouped.k.repeat_heads(4 / kv_heads);
        repeated.v = grouped.v.repeat_heads(4 / kv_heads);
        for (_, context) in contexts() {
            let [a, b] = [&grouped, &repeated].map(|case| case.run(context, Placement::Aligned));
            for (a, b) in a.iter().zip(&b) {
                assert_same_bits("grouped heads", a, b);
            }
        }
    }
}

#[test]
fn a_rerun_gives_the_same_bits() {
    let case = Case::new(AttentionConfig::new().causal(Causal::TopLeft), [1, 2, 2, 113, 203, 64, 64]);
    let first = case.run(context(), Placement::Aligned);
    for _ in 0..5 {
        for (a, b) in first.iter().zip(&case.run(context(), Placement::Aligned)) {
            assert_same_bits("rerun", a, b);
        }
    }
}

#[test]
fn placement_changes_no_bit_but_the_order_of_vec4_sums() {
    for dim in [16, 6] {
        let case = Case::new(AttentionConfig::new().causal(Causal::BottomRight), [2, 2, 1, 11, 14, dim, dim]);
        for placement in [Placement::Odd, Placement::Interleaved { gap: 4 }, Placement::Interleaved { gap: 3 }] {
            case.assert(&format!("{placement:?}"), &case.run(context(), placement));
        }
        let [a, b] = [Placement::Odd, Placement::Interleaved { gap: 3 }].map(|p| case.run(context(), p));
        assert_same_bits("scalar loads", &a[0], &b[0]);
    }
}

#[test]
fn nan_in_hidden_keys_changes_no_bit() {
    let config = AttentionConfig::new().causal(Causal::TopLeft).window(Some(6), None);
    let clean = Case::new(config, [2, 1, 1, 30, 40, 12, 12]).with_lens(&[23, 30]).with_mask([1, 1, 1, 40]);
    let mut poisoned = clean.clone();
    let mask = clean.mask.as_ref().unwrap().0.clone();
    for b in 0..2 {
        for (j, &keep) in mask.iter().enumerate() {
            // Hidden from every row: past the length, or by the mask.
            if j >= clean.kv_lens.as_ref().unwrap()[b] as usize || keep == 0 {
                for c in 0..12 {
                    *poisoned.k.at_mut([b, 0, j, c]) = f32::NAN;
                    *poisoned.v.at_mut([b, 0, j, c]) = f32::NAN;
                }
            }
        }
    }
    let [a, b] = [&clean, &poisoned].map(|case| case.run(context(), Placement::Aligned));
    for (a, b) in a.iter().zip(&b) {
        assert_same_bits("poisoned", a, b);
    }

    // A key that only some rows of a tile see: the others must not notice that its value is NaN.
    for len in [12, 70] {
        let clean = Case::new(AttentionConfig::new().causal(Causal::TopLeft), [1, 1, 1, len, len, 4, 4]);
        let mut poisoned = clean.clone();
        *poisoned.v.at_mut([0, 0, 6, 2]) = f32::NAN;
        *poisoned.k.at_mut([0, 0, 7, 0]) = f32::INFINITY;
        let [[a, ..], [b, ..]] = [&clean, &poisoned].map(|case| case.run(context(), Placement::Aligned));
        assert_same_bits("rows before the poisoned key", &a[..6 * 4], &b[..6 * 4]);
    }
}

/// A context of its own on the shared device, with other bounds.
fn context_with(options: ContextOptions) -> Context {
    Context::with_options(context().device().clone(), context().queue().clone(), options)
}

#[test]
fn any_split_of_keys_and_work_agrees_with_the_twin() {
    let config = AttentionConfig::new().causal(Causal::BottomRight).scale(Scale::LOG_N);
    let long = Case::new(config, [1, 1, 1, 65, 77, 8, 8]).with_lens(&[75]);
    let case = Case::new(config, [2, 2, 1, 33, 77, 8, 8]).with_lens(&[77, 31]);
    for keys in [1, 8, 24, 76, 1000] {
        let context = context_with(ContextOptions { max_keys_per_split: Some(keys), ..Default::default() });
        for case in [&case, &long] {
            case.assert(&format!("splits of {keys}"), &case.run(&context, Placement::Aligned));
        }
    }
    let whole = case.run(context(), Placement::Aligned);
    for flops in [1, 100_000, 1_000_000] {
        let options = ContextOptions { max_flops_per_dispatch: flops, ..Default::default() };
        let split = case.run(&context_with(options), Placement::Aligned);
        case.assert(&format!("{flops} flops a dispatch"), &split);
        if flops == 1_000_000 {
            assert_same_bits("dispatches without a split of keys", &whole[0], &split[0]);
        }
    }
}

#[test]
fn one_query_over_many_ranges_of_keys() {
    // Rows of 24 and of 5 chunks, more and fewer than the combine kernel's workgroup owns; most ranges of a batch are empty.
    for [v_dim, heads] in [[96, 1], [20, 4]] {
        Case::new(AttentionConfig::new(), [2, heads, 1, 1, 2500, 24, v_dim])
            .with_lens(&[2500, 130])
            .check_portable("one query");
    }
}

#[test]
fn a_plan_made_ahead_is_the_one_that_runs() {
    for batch in [1, 2] {
        let case = Case::new(AttentionConfig::new(), [batch, 1, 1, 5, 6, 8, 8]);
        let attention = Attention::new(context(), case.config).unwrap();
        let ahead = attention.plan(&case.host().shapes(&case.config).unwrap(), DType::F32).unwrap();
        let [q, k, v] = [&case.q, &case.k, &case.v].map(|tensor| context().upload_view(&tensor.view()).unwrap());
        let o = context().allocate(batch * 5 * 8);
        let o = TensorView::f32(&o, [batch as u32, 1, 5, 8]);
        let inputs = AttentionInputs::new(q.view(), k.view(), v.view());
        let prepared = attention.prepare(inputs, AttentionOutputs::new(o)).unwrap();
        assert!(std::ptr::eq(prepared.plan(), &*ahead), "batch {batch}");
    }
}

#[test]
fn an_offset_past_every_key_hides_none() {
    let run = |causal| {
        let case = Case::new(AttentionConfig::new().causal(causal), [1, 1, 1, 12, 16, 8, 8]);
        let host = reference::attention(&case.config, &case.host()).unwrap();
        (case.run(context(), Placement::Aligned), host)
    };
    let (device, host) = run(Causal::None);
    for offset in [16, 100, (1 << 30) - 5, 1 << 30] {
        let (own_device, own_host) = run(Causal::Offset(offset));
        assert_same_bits("offset", &device[0], &own_device[0]);
        assert_eq!(host, own_host, "the twin, offset {offset}");
    }
}

#[test]
fn a_row_masked_by_the_lowest_float_is_an_average() {
    let mut case = Case::new(AttentionConfig::new(), [1, 1, 1, 6, 20, 8, 8]).with_bias([1, 1, 6, 20]);
    for j in 0..20 {
        *case.bias.as_mut().unwrap().at_mut([0, 0, 1, j]) = f32::MIN;
        *case.bias.as_mut().unwrap().at_mut([0, 0, 4, j]) = if j < 11 { f32::MIN } else { -3.0 };
    }
    case.check("f32::MIN");
}

#[test]
fn a_long_sequence_is_right_on_every_driver() {
    // Past 65 535 loop iterations per invocation if it were not split: see src/quirks.rs.
    let len = 16384;
    let sizes = [1, 1, 1, len, len, 64, 64];
    let mut case = Case::new(AttentionConfig::new(), sizes);
    case.q.shape[2] = 40;
    case.q.data.truncate(40 * 64);
    case.check_portable("16384 keys");
    // Counting what a mask leaves is a loop of its own.
    let mut counted = Case::new(AttentionConfig::new().scale(Scale::LOG_N), [1, 1, 1, 5, len, 8, 8]);
    counted = counted.with_mask([1, 1, 1, len]);
    counted.check_portable("16384 keys, counted");
}

#[test]
fn zero_batches_and_queries_are_nothing_to_do() {
    for sizes in [[0, 2, 1, 3, 4, 8, 8], [1, 2, 1, 0, 4, 8, 8]] {
        let [o, lse, entropy] = Case::new(AttentionConfig::new(), sizes).run(context(), Placement::Aligned);
        assert!(o.is_empty() && lse.is_empty() && entropy.is_empty());
    }
}

#[test]
fn record_allocates_nothing_once_shapes_repeat() {
    // On a device of its own: other tests create buffers on theirs.
    let context = Context::headless().unwrap();
    let options = ContextOptions { max_keys_per_split: Some(16), ..Default::default() };
    let context = Context::with_options(context.device().clone(), context.queue().clone(), options);
    let case = Case::new(AttentionConfig::new(), [1, 1, 1, 20, 40, 8, 8]);
    let attention = Attention::new(&context, case.config).unwrap();
    let [q, k, v] = [&case.q, &case.k, &case.v].map(|tensor| Placed::input(&context, tensor, Placement::Aligned));
    let o = Placed::output(&context, [1, 1, 20, 8], Placement::Aligned);
    let record = || {
        let mut encoder = context.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let inputs = AttentionInputs::new(q.view(), k.view(), v.view());
        attention.record(&mut encoder, inputs, AttentionOutputs::new(o.view())).unwrap();
        context.queue().submit([encoder.finish()]);
    };
    record();
    // What uploads have staged is freed once the queue is idle.
    let buffers = || {
        context.device().poll(wgpu::PollType::wait_indefinitely()).unwrap();
        context.device().get_internal_counters().hal.buffers.read()
    };
    let before = (buffers(), context.pipeline_count());
    assert!(before.0 > 0, "wgpu counts its buffers (its feature `counters`)");
    for _ in 0..10 {
        record();
    }
    assert_eq!((buffers(), context.pipeline_count()), before, "buffers and pipelines");
}
