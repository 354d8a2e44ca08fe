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
