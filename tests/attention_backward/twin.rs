//! The twin of the gradients: a case by hand, what must hold of any, and finite differences.

use wgpu_attention::attention::backward::reference::{self, HostInputs, HostOutputs};
use wgpu_attention::attention::reference as forward;
use wgpu_attention::{AttentionConfig, Causal, HostView, Scale};

use super::common::Tensor;

/// A call of two sequences, of two kv heads that four share; of its optional inputs, some.
#[derive(Clone)]
struct Case {
    config: AttentionConfig,
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    bias: Option<Tensor<4>>,
    row_scale: Option<Tensor<3>>,
    mask: Option<Vec<u8>>,
    kv_lens: Option<Vec<u32>>,
    dout: Tensor<4>,
    dlse: Tensor<3>,
    dentropy: Tensor<3>,
}

const ROWS: [usize; 3] = [2, 4, 3];
const SCORES: [usize; 4] = [2, 4, 3, 5];
/// Of a number of ordinary size f32 holds what is nearly this further.
const STEP: f32 = 1.0 / 256.0;

impl Case {
    fn new(config: AttentionConfig) -> Self {
        Self {
            config,
            q: Tensor::normal(1, [2, 4, 3, 3]),
            k: Tensor::normal(2, [2, 2, 5, 3]),
            v: Tensor::normal(3, [2, 2, 5, 2]),
            bias: None,
            row_scale: None,
            mask: None,
            kv_lens: None,
            dout: Tensor::normal(4, [2, 4, 3, 2]),
            dlse: Tensor::normal(5, ROWS),
            dentropy: Tensor::normal(6, ROWS),
        }
    }

    fn with_bias(self, shape: [usize; 4]) -> Self {
        Self { bias: Some(Tensor::normal(7, shape)), ..self }
    }

    /// Of which one row sees no key.
    fn with_mask(self) -> Self {
        let noise = Tensor::normal(8, SCORES);
        let seen = noise.data.iter().enumerate().map(|(at, x)| u8::from(*x > -0.5 && at / 5 != 4));
        Self { mask: Some(seen.collect()), ..self }
    }

    fn forward(&self) -> forward::HostInputs<'_> {
        forward::HostInputs {
            bias: self.bias.as_ref().map(|bias| bias.view().broadcast_to(SCORES)),
            row_scale: self.row_scale.as_ref().map(|scale| scale.view().broadcast_to(ROWS)),
            mask: self.mask.as_ref().map(|mask| HostView::new(mask, SCORES).unwrap()),
            kv_lens: self.kv_lens.as_ref().map(|lens| HostView::new(lens, [2]).unwrap()),
            ..forward::HostInputs::new(self.q.view(), self.k.view(), self.v.view())
        }
    }

    /// What the gradients are of.
    fn loss(&self) -> f64 {
        let out = forward::attention(&self.config, &self.forward()).unwrap();
        let along = |values: &[f64], by: &[f32]| -> f64 {
            let finite = values.iter().zip(by).filter(|(value, _)| value.is_finite());
            finite.map(|(value, by)| value * f64::from(*by)).sum()
        };
        along(&out.o, &self.dout.data) + along(&out.lse, &self.dlse.data) + along(&out.entropy, &self.dentropy.data)
    }

    fn gradients(&self) -> HostOutputs<f64> {
        let forward::HostInputs { q, k, v, kv_lens, mask, .. } = self.forward();
        // What forward wrote is computed again.
        let (o, lse) = (Tensor::filled(f32::NAN, self.dout.shape), Tensor::filled(f32::NAN, ROWS));
        let inputs = HostInputs {
            kv_lens,
            mask,
            bias: self.bias.as_ref().map(Tensor::view),
            row_scale: self.row_scale.as_ref().map(Tensor::view),
            entropy: Some(lse.view()),
            dout: Some(self.dout.view()),
            dlse: Some(self.dlse.view()),
            dentropy: Some(self.dentropy.view()),
            ..HostInputs::of(q, k, v, o.view(), lse.view())
        };
        reference::attention_backward(&self.config, &inputs).unwrap()
    }

    /// The slope of the loss along a number. Of two steps the errors of third order cancel.
    fn slope(&self, number: impl Fn(&mut Self) -> &mut f32) -> f64 {
        let at = |sign: f32| {
            let mut moved = self.clone();
            *number(&mut moved) += sign * STEP;
            (moved.loss(), f64::from(*number(&mut moved)))
        };
        let [far_up, up, down, far_down] = [2.0, 1.0, -1.0, -2.0].map(at);
        (4.0 * (up.0 - down.0) / (up.1 - down.1) - (far_up.0 - far_down.0) / (far_up.1 - far_down.1)) / 3.0
    }

    fn compare(&self, name: &str, got: &[f64], number: impl Fn(&mut Self, usize) -> &mut f32) {
        for (index, &got) in got.iter().enumerate() {
            let moved = |case: &mut Self| number(case, index).is_finite();
            if !moved(&mut self.clone()) {
                assert_eq!(got, 0.0, "{name} {index}");
                continue;
            }
            let want = self.slope(|case| number(case, index));
            let allowed = 1e-6 * (1.0 + want.abs());
            assert!((got - want).abs() <= allowed, "{:?}: {name} {index}: got {got}, want {want}", self.config);
        }
    }

    fn check(&self) {
        let got = self.gradients();
        self.compare("dq", &got.dq, |case, index| &mut case.q.data[index]);
        self.compare("dk", &got.dk, |case, index| &mut case.k.data[index]);
        self.compare("dv", &got.dv, |case, index| &mut case.v.data[index]);
        assert_eq!(got.dbias.len(), self.bias.as_ref().map_or(0, |bias| bias.data.len()));
        self.compare("dbias", &got.dbias, |case, index| &mut case.bias.as_mut().unwrap().data[index]);
        assert_eq!(got.drow_scale.len(), self.row_scale.as_ref().map_or(0, |scale| scale.data.len()));
        self.compare("drow_scale", &got.drow_scale, |case, index| &mut case.row_scale.as_mut().unwrap().data[index]);
        if has_number(self.config.scale) {
            self.compare("dscale", &[got.dscale.iter().sum()], |case, _| match &mut case.config.scale {
                Scale::Fixed(number)
                | Scale::KappaLogN { kappa: number }
                | Scale::ScalableSoftmax { s: number, .. } => number,
                other => unreachable!("{other:?}"),
            });
        }
    }
}

fn has_number(scale: Scale) -> bool {
    matches!(scale, Scale::Fixed(_) | Scale::KappaLogN { .. } | Scale::ScalableSoftmax { .. })
}

#[test]
fn finite_differences_along_every_number() {
    let causal = AttentionConfig::new().causal(Causal::BottomRight);
    Case::new(AttentionConfig::new()).check();
    Case::new(causal.softcap(1.5).scale(Scale::Fixed(0.8))).check();
    let windowed = causal.window(Some(1), None).scale(Scale::KappaLogN { kappa: 2.0 });
    Case { kv_lens: Some(vec![5, 2]), ..Case::new(windowed) }.check();
    Case::new(causal.scale(Scale::ScalableSoftmax { s: 0.4, inv_sqrt_dim: true })).with_mask().check();
    for shape in [[2, 4, 3, 5], [1, 4, 3, 5], [2, 1, 3, 5], [1, 1, 1, 5], [2, 4, 1, 5]] {
        Case::new(AttentionConfig::new().softcap(2.0)).with_bias(shape).check();
    }
    for shape in [[2, 4, 3], [1, 4, 1], [1, 1, 1]] {
        let mut case = Case::new(causal.scale(Scale::PerRow).softcap(1.0)).with_bias([1, 4, 3, 5]).with_mask();
        case.row_scale = Some(Tensor::normal(9, shape));
        case.bias.as_mut().unwrap().data[7] = f32::NEG_INFINITY;
        case.check();
    }
}

/// One row of two keys with one dim, and nothing else: p = (¾, ¼) for scores (ln 3, 0).
#[test]
fn a_case_by_hand() {
    let one = |x: f32| Tensor { data: vec![x], shape: [1, 1, 1, 1] };
    let two = |x: [f32; 2]| Tensor { data: x.to_vec(), shape: [1, 1, 2, 1] };
    let (q, k, v) = (one(2.0), two([0.5 * 3.0_f32.ln(), 0.0]), two([8.0, 4.0]));
    let (o, lse, dout) = (one(7.0), Tensor { data: vec![4.0_f32.ln()], shape: [1, 1, 1] }, one(1.0));
    let inputs =
        HostInputs { dout: Some(dout.view()), ..HostInputs::of(q.view(), k.view(), v.view(), o.view(), lse.view()) };
    let got = reference::attention_backward(&AttentionConfig::new(), &inputs).unwrap();
    // ds = p (v - 7) = (¾, -¾); dq = ds k; dk = ds q; and the scale's is dq q.
    let near = |got: &[f64], want: &[f64]| {
        assert!(got.iter().zip(want).all(|(got, want)| (got - want).abs() < 1e-6), "got {got:?}, want {want:?}");
    };
    near(&got.dv, &[0.75, 0.25]);
    near(&got.dq, &[0.375 * 3.0_f64.ln()]);
    near(&got.dk, &[1.5, -1.5]);
    near(&got.dscale, &[0.75 * 3.0_f64.ln()]);
}

#[test]
fn what_moves_all_scores_alike_changes_nothing_and_lse_by_as_much() {
    let case = Case::new(AttentionConfig::new()).with_bias([2, 4, 3, 5]);
    let got = case.gradients();
    for (row, dlse) in got.dbias.chunks(5).zip(&case.dlse.data) {
        assert!((row.iter().sum::<f64>() - f64::from(*dlse)).abs() < 1e-12, "the gradient of lse alone");
    }
}

/// A score that the bias takes below what counts moves by nothing.
#[test]
fn the_lowest_scores_do_not_move() {
    let mut case = Case::new(AttentionConfig::new()).with_bias([1, 1, 3, 5]);
    case.bias.as_mut().unwrap().data[..5].fill(f32::MIN);
    let got = case.gradients();
    let first_rows = got.dq.chunks(9).flat_map(|head| &head[..3]);
    assert!(first_rows.chain(&got.dbias[..5]).all(|x| *x == 0.0), "{got:?}");
    assert!(got.dv.iter().all(|x| *x != 0.0), "each key has its fifth of the weight");
}
