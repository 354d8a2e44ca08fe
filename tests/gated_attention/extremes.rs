//! Scores far from 0.

use super::*;

#[test]
fn low_scores_of_a_softmax_are_seen() {
    for (causal, want) in [(Causal::None, [2.0, 2.0, 2.0]), (Causal::TopLeft, [1.0, 1.5, 2.0])] {
        let mut case = Case::new(V1.weights(GauWeights::Softmax).causal(causal), Source::Given, square(3, 1, 1));
        case.keys[0].data.fill(-1e15);
        case.keys[1].data.fill(1e14);
        case.v.data.copy_from_slice(&[1.0, 2.0, 3.0]);
        assert_eq!(reference::gated_attention(&case.config, &case.host()).unwrap().o, want, "the twin");
        for (kernels, context) in contexts() {
            for max_keys_per_split in [None, Some(1)] {
                let options = ContextOptions { max_keys_per_split, ..context.capabilities().options };
                let ranges = Context::with_options(context.device().clone(), context.queue().clone(), options);
                let o = case.run(&ranges, Placement::Aligned);
                let close = o.iter().zip(want).all(|(&x, want)| (f64::from(x) - want).abs() < 1e-6);
                assert!(close, "{causal:?}, ranges of {max_keys_per_split:?}{kernels}: {o:?}");
            }
        }
    }
}

#[test]
fn rows_of_no_keys_are_written() {
    for weights in WEIGHTS {
        for case in [false, true].map(|gate| {
            let case = Case::new(V1.weights(weights), Source::Given, [2, 2, 1, 3, 0, 8, 6]);
            if gate { case.gated().with_lens(&[0, 3]) } else { case }
        }) {
            for (kernels, context) in own_and_any_gpu() {
                let o = case.run(context, Placement::Aligned);
                case.assert(kernels, &o);
                assert!(o.iter().all(|x| x.to_bits() == 0), "{weights:?}{kernels}: {o:?}");
            }
        }
    }
}

/// One number of a query, of a key or of a value that rows see.
#[test]
fn nan_comes_out_of_every_weight() {
    for weights in WEIGHTS {
        for nan in [f32::NAN, -f32::NAN] {
            let clean = Case::new(V1.weights(weights).causal(Causal::TopLeft), Source::Given, square(9, 8, 8));
            let [mut query, mut key, mut value] = [0; 3].map(|_| clean.clone());
            *query.keys[0].at_mut([0, 0, 4, 5]) = nan;
            *key.keys[1].at_mut([0, 0, 4, 5]) = nan;
            *value.v.at_mut([0, 0, 4, 5]) = nan;
            for (kernels, context) in own_and_any_gpu() {
                let run = |case: &Case| case.run(context, Placement::Aligned);
                for (i, row) in run(&query).chunks(8).enumerate() {
                    assert!(row.iter().all(|x| x.is_nan() == (i == 4)), "q, {weights:?}{kernels}, row {i}: {row:?}");
                }
                for (i, row) in run(&key).chunks(8).enumerate() {
                    assert!(row.iter().all(|x| x.is_nan() == (i >= 4)), "k, {weights:?}{kernels}, row {i}: {row:?}");
                }
                // A weight of 0 may leave it out.
                for (at, x) in run(&value).iter().enumerate() {
                    let sees = at / 8 >= 4 && at % 8 == 5;
                    assert!(sees || !x.is_nan(), "v, {weights:?}{kernels}, element {at}");
                    assert!(
                        !sees || weights != GauWeights::Softmax || x.is_nan(),
                        "v, {weights:?}{kernels}, {at}: {x}"
                    );
                }
            }
        }
    }
}
