//! Gated attention on cooperative matrices, where the driver has them; `tests/cooperative.rs` tells what happens where it has none.

use wgpu_attention::{Causal, Context, ContextOptions, Divisor, GauMode, GauWeights, Matrices};

use super::common::{Expected, Placement, assert_same_bits, matrices};
use super::{Case, Source, V1, each_kernel, square};

impl Case {
    pub fn on_matrices(&self) -> Self {
        Self { config: self.config.matrices(Matrices::F16), ..self.clone() }
    }

    /// Against the twin, if there are matrices and no chunks.
    pub fn check_on_matrices(&self, what: &str) {
        let Some(context) = matrices() else { return };
        // Gates and maps meet nothing but o and the keys: half of their combinations.
        let half = self.u.is_some() == (self.source != Source::Given);
        // Divisors are the same behind every kernel.
        use GauWeights::{SoftmaxLogN, SquaredRelu};
        let kind =
            matches!(self.config.weights, SquaredRelu(Divisor::LenDim | Divisor::RowSum { .. }) | SoftmaxLogN { .. });
        if self.config.mode == GauMode::Full && half && kind {
            let case = self.on_matrices();
            case.assert(&format!("{what}, by matrices"), &case.run(context, Placement::Aligned));
        }
    }

    pub fn assert_f16(&self, what: &str, got: &[f32], want: &[f64]) {
        let (case, shape) = (self.name(what), self.o_shape());
        Expected { case: &case, name: "o", shape: &shape, want, naive: &[], floor: 0.0, absolute_floor: 0.0 }
            .assert_f16(got);
    }
}

#[test]
fn weights_past_the_largest_of_f16_keep_their_size() {
    let Some(context) = matrices() else { return };
    for config in each_kernel().into_iter().filter(|config| config.mode == GauMode::Full) {
        // Squares of scores of 10^-12 and of 10^9.
        for factor in [1e-3, 40.0] {
            let mut case = Case::new(config.causal(Causal::TopLeft), Source::Given, square(40, 16, 20)).on_matrices();
            let softmax = config.weights == GauWeights::Softmax;
            case.keys = case.keys.into_iter().map(|x| x.scaled(if softmax { 1.0 } else { factor })).collect();
            case.assert(&format!("keys of {factor}"), &case.run(context, Placement::Aligned));
        }
    }
}

#[test]
fn splits_agree_with_the_twin_and_reruns_bit_for_bit() {
    let Some(context) = matrices() else { return };
    for config in each_kernel().into_iter().filter(|config| config.mode == GauMode::Full) {
        let case = Case::new(config.causal(Causal::TopLeft), Source::Given, square(70, 20, 12)).on_matrices();
        let options = ContextOptions { max_keys_per_split: Some(40), ..context.capabilities().options };
        let split = Context::with_options(context.device().clone(), context.queue().clone(), options);
        let first = case.run(&split, Placement::Odd);
        case.assert("splits", &first);
        assert_same_bits("rerun", &first, &case.run(&split, Placement::Odd));
    }
}

#[test]
fn nan_in_hidden_keys_changes_no_bit() {
    let Some(context) = matrices() else { return };
    for config in [V1, each_kernel()[2]] {
        let clean = Case::new(config.causal(Causal::TopLeft), Source::Given, square(70, 4, 4)).on_matrices();
        let mut poisoned = clean.clone();
        *poisoned.v.at_mut([0, 0, 6, 2]) = f32::NAN;
        *poisoned.keys[1].at_mut([0, 0, 7, 0]) = f32::INFINITY;
        let [a, b] = [&clean, &poisoned].map(|case| case.run(context, Placement::Aligned));
        assert_same_bits("rows before the poisoned keys", &a[..6 * 4], &b[..6 * 4]);
    }
}
