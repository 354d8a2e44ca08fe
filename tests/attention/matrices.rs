//! Attention on cooperative matrices, where the driver has them; `tests/cooperative.rs` tells what happens where it has none.

use wgpu_attention::attention::reference::HostOutputs;
use wgpu_attention::{AttentionConfig, Causal, Context, ContextOptions, Matrices, Scale};

use super::common::{Expected, Placement, Tensor, assert_same_bits, contexts, matrices};
use super::{Attention, AttentionShapes, Case};

impl Case {
    pub fn on_matrices(&self) -> Self {
        Self { config: self.config.matrices(Matrices::F16), ..self.clone() }
    }

    /// By every kernel that gives f32.
    pub fn check_portable(&self, what: &str) {
        for (kernels, context) in contexts() {
            self.assert(&format!("{what}{kernels}"), &self.run(context, Placement::Aligned));
        }
    }

    /// Against the twin, if there are matrices.
    pub fn check_on_matrices(&self, what: &str) {
        let Some(context) = matrices() else { return };
        let case = self.on_matrices();
        case.assert(&format!("{what}, by matrices"), &case.run(context, Placement::Aligned));
    }

    pub fn assert_f16(&self, what: &str, got: [&[f32]; 3], want: &HostOutputs<f64>) {
        let shapes = [self.q.shape, self.k.shape, self.v.shape];
        let case = format!("{what}: {:?}, q, k, v {shapes:?}", self.config);
        let [batch, heads, q_len, _] = self.q.shape;
        let v_dim = self.v.shape[3];
        let rows = [batch, heads, q_len, v_dim];
        let check = |name, shape: &[usize], got: &[f32], want: &[f64], absolute_floor| {
            Expected { case: &case, name, shape, want, naive: &[], floor: 0.0, absolute_floor }.assert_f16(got);
        };
        // A score of normal numbers is off by 3e-4 of itself; the logarithm of a sum is so in absolute terms.
        check("o", &rows, got[0], &want.o, 0.0);
        check("lse", &rows[..3], got[1], &want.lse, 2e-3);
        check("entropy", &rows[..3], got[2], &want.entropy, 4e-3);
        for (row, lse) in want.lse.iter().enumerate().filter(|(_, lse)| **lse == f64::NEG_INFINITY) {
            let zero = got[0][row * v_dim..][..v_dim].iter().all(|x| x.to_bits() == 0) && got[2][row].to_bits() == 0;
            assert!(zero, "{case}: row {row} sees no key (lse {lse})");
        }
    }
}

#[test]
fn a_plan_names_matrices() {
    let Some(context) = matrices() else { return };
    let attention = Attention::new(context, AttentionConfig::new().matrices(Matrices::F16)).unwrap();
    let plan = attention.plan(&AttentionShapes::new(1, 64, 4096, 64), wgpu_attention::DType::F32).unwrap();
    assert!(plan.kernel().starts_with("attention/cooperative "), "{}", plan.kernel());
    assert!(plan.reason().contains("in f16, as asked, and subgroups of"), "{}", plan.reason());
}

#[test]
fn head_dims_and_placements() {
    let Some(context) = matrices() else { return };
    for (head_dim, v_dim) in [(33, 20), (130, 7), (256, 40)] {
        let case = Case::new(AttentionConfig::new(), [1, 2, 1, 5, 40, head_dim, v_dim]).on_matrices();
        for placement in [Placement::Odd, Placement::Interleaved { gap: 4 }] {
            case.assert(&format!("{placement:?}"), &case.run(context, placement));
        }
    }
}

#[test]
fn splits_agree_with_the_twin_and_reruns_bit_for_bit() {
    let Some(context) = matrices() else { return };
    let config = AttentionConfig::new().causal(Causal::BottomRight).scale(Scale::LOG_N);
    let case = Case::new(config, [2, 2, 1, 33, 77, 20, 12]).with_lens(&[77, 31]).on_matrices();
    for keys in [1, 40, 1000] {
        let options = ContextOptions { max_keys_per_split: Some(keys), ..context.capabilities().options };
        let split = Context::with_options(context.device().clone(), context.queue().clone(), options);
        let first = case.run(&split, Placement::Aligned);
        case.assert(&format!("splits of {keys}"), &first);
        for (a, b) in first.iter().zip(&case.run(&split, Placement::Aligned)) {
            assert_same_bits("rerun", a, b);
        }
    }
}

#[test]
fn nan_in_hidden_keys_changes_no_bit() {
    let Some(context) = matrices() else { return };
    for len in [12, 70] {
        let config = AttentionConfig::new().causal(Causal::TopLeft);
        let clean = Case::new(config, [1, 1, 1, len, len + 9, 4, 4]).with_lens(&[len as u32 + 2]).on_matrices();
        let mut poisoned = clean.clone();
        // Some rows see these, and no row the last.
        *poisoned.v.at_mut([0, 0, 6, 2]) = f32::NAN;
        *poisoned.v.at_mut([0, 0, 8, 1]) = f32::INFINITY;
        *poisoned.k.at_mut([0, 0, 7, 0]) = f32::NAN;
        for j in len..len + 9 {
            poisoned.k.at_mut([0, 0, j, 1]).clone_from(&f32::NAN);
            poisoned.v.at_mut([0, 0, j, 3]).clone_from(&f32::NAN);
        }
        let [[a, ..], [b, ..]] = [&clean, &poisoned].map(|case| case.run(context, Placement::Aligned));
        assert_same_bits("rows before the poisoned keys", &a[..6 * 4], &b[..6 * 4]);
    }
}

#[test]
fn grouped_heads_equal_repeated_heads() {
    let Some(context) = matrices() else { return };
    let config = AttentionConfig::new().causal(Causal::TopLeft).window(Some(13), None);
    let grouped = Case::new(config, [2, 4, 2, 35, 35, 20, 12]).on_matrices();
    let mut repeated = grouped.clone();
    repeated.k = grouped.k.repeat_heads(2);
    repeated.v = grouped.v.repeat_heads(2);
    let [a, b] = [&grouped, &repeated].map(|case| case.run(context, Placement::Aligned));
    for (a, b) in a.iter().zip(&b) {
        assert_same_bits("grouped heads", a, b);
    }
}

#[test]
fn large_numbers_stay_finite() {
    let Some(context) = matrices() else { return };
    for factor in [1e2, 1e4, 1e9] {
        let mut case =
            Case::new(AttentionConfig::new().causal(Causal::TopLeft), [1, 1, 1, 40, 90, 16, 8]).on_matrices();
        // A weight of 1 is exact, and sums of rounded weights are not: what is averaged is near 1.
        case.v = Tensor::filled(1.0, case.v.shape);
        case.q = case.q.scaled(factor);
        case.k = case.k.scaled(factor);
        let [o, lse, entropy] = case.run(context, Placement::Aligned);
        assert!(o.iter().all(|x| (x - 1.0).abs() < 1.0 / 1024.0), "{factor}: an average of ones: {o:?}");
        assert!(lse.iter().chain(&entropy).all(|x| x.is_finite()), "{factor}");
    }
}

#[test]
fn maxima_that_grow_late_rescale_what_was_summed() {
    // Scores of one row grow by 3, of the next by 30 each step of keys; of the others they fall.
    let mut case = Case::new(AttentionConfig::new().scale(Scale::Fixed(1.0)), [1, 1, 1, 20, 200, 4, 36]);
    case.q = case.q.scaled(0.125);
    for row in 0..20 {
        *case.q.at_mut([0, 0, row, 0]) = [3.0 / 32.0, 30.0 / 32.0, -0.5][row.min(2)];
    }
    for key in 0..200 {
        *case.k.at_mut([0, 0, key, 0]) = key as f32;
    }
    case.check_on_matrices("growing");
}
