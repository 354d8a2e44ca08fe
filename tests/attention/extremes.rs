//! Scores far from 0.

use super::common::contexts;
use super::*;

/// A whole row of a mask's -65504, as one in f16 has it, rounds scores to multiples of 1/256. No more than that may be lost.
#[test]
fn a_bias_over_a_whole_row_loses_what_it_loses_in_plain_f32() {
    let mut case = Case::new(AttentionConfig::new(), [1, 2, 2, 70, 90, 32, 16]).with_bias([1, 1, 70, 90]);
    case.bias = Some(Tensor::filled(-65504.0, [1, 1, 70, 90]));
    let inputs = case.host();
    let want = reference::attention(&case.config, &inputs).unwrap();
    let largest = |o: &[f32]| o.iter().zip(&want.o).map(|(&x, w)| (f64::from(x) - w).abs()).fold(0.0, f64::max);
    let plain = (0..NAIVE_RUNS).map(|seed| {
        let order = SumOrder::Shuffled(seed);
        largest(&reference::attention_in::<f32>(&case.config, &inputs, order).unwrap().o)
    });
    let plain = plain.fold(0.0, f64::max);
    for (kernels, context) in contexts() {
        let lost = largest(&case.run(context, Placement::Aligned)[0]);
        assert!(lost <= 1.01 * plain, "{lost:.3e} is lost{kernels}, {plain:.3e} in plain f32");
    }
}
