//! The twin of the backward pass: by hand, and against differences of the forward twin.

use super::*;

/// A step that f32 adds exactly; differences of two such leave an error of its fourth power.
const STEP: f32 = 1.0 / 65_536.0;

/// Asserts every gradient to be the difference of Σ dout · o.
fn check(mut case: Case) {
    // Numbers that leave room for the step below them.
    for tensor in case.tensors.values_mut() {
        tensor.data.iter_mut().for_each(|x| *x = (*x * 256.0).round() / 256.0);
    }
    let loss = |case: &Case| -> f64 {
        case.forward().iter().zip(&case.tensors["dout"].data).map(|(o, dout)| o * f64::from(*dout)).sum()
    };
    for (name, gradient) in case.twin::<f64>(SumOrder::InOrder) {
        let own = &name[1..];
        assert_eq!(gradient.len(), case.tensors[own].data.len(), "{name}");
        for (at, &got) in gradient.iter().enumerate() {
            let moved = |by: f32| {
                let mut case = case.clone();
                case.get_mut(own).data[at] += by;
                loss(&case)
            };
            let slope = |step: f32| (moved(step) - moved(-step)) / f64::from(2.0 * step);
            let want = (4.0 * slope(STEP / 2.0) - slope(STEP)) / 3.0;
            // The second derivative of relu² jumps, by what a step over it moves the slope.
            assert!((got - want).abs() <= 1e-7 * (1.0 + want.abs()), "{}: {name}[{at}]: {got}, {want}", case.name());
        }
    }
}

#[test]
fn gradients_are_the_differences_of_the_loss() {
    for weights in WEIGHTS {
        for (source, causal) in
            [(Source::Given, Causal::None), (Source::Shared, Causal::BottomRight), (Source::GammaOnly, Causal::TopLeft)]
        {
            let config = GatedAttentionConfig::new().weights(weights).causal(causal);
            let kv_heads = if source == Source::Given { 1 } else { 2 };
            let case = Case::new(config, source, [2, 2, kv_heads, 4, 4, 2, 3]).gated();
            check(case.clone());
            check(case.with_lens(&[4, 2]));
        }
    }
}

#[test]
fn gradients_of_mixed_chunks_are_the_differences_of_the_loss() {
    for causal in [Causal::None, Causal::TopLeft] {
        for (quadratic, linear) in [
            (QuadraticDivisor::ChunkDim, LinearDivisor::Tokens),
            (QuadraticDivisor::Fixed(7.0), LinearDivisor::Chunk),
            (QuadraticDivisor::ChunkDim, LinearDivisor::Fixed(0.5)),
        ] {
            let config = GatedAttentionConfig::new().causal(causal);
            let config = config.mode(GauMode::MixedChunk { chunk: 2, quadratic, linear });
            check(Case::new(config, Source::Given, [2, 2, 1, 5, 5, 2, 2]).gated().with_lens(&[5, 3]));
            check(Case::new(config, Source::Shared, [1, 2, 2, 5, 5, 2, 2]));
        }
    }
}

/// q = (1, 2), k = (3, 1), (-4, 1), (0, 2): q·k = 5, -2, 4; v = 1, 100, 2; n·s = 6.
#[test]
fn a_case_by_hand() {
    let mut case = Case::new(GatedAttentionConfig::new(), Source::Given, [1, 1, 1, 1, 3, 2, 1]).gated();
    for (name, data) in [
        ("q", vec![1.0, 2.0]),
        ("k", vec![3.0, 1.0, -4.0, 1.0, 0.0, 2.0]),
        ("v", vec![1.0, 100.0, 2.0]),
        ("u", vec![0.0]),
        ("dout", vec![3.0]),
    ] {
        case.get_mut(name).data = data;
    }
    let all = |case: &Case| case.twin::<f64>(SumOrder::InOrder).into_iter().collect::<BTreeMap<_, _>>();
    let close = |got: &[f64], want: &[f64]| {
        assert!(got.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-12), "{got:?}, {want:?}");
    };
    // A gate that is shut: only it moves.
    let shut = all(&case);
    close(&shut["du"], &[3.0 * (25.0 + 32.0) / 6.0]);
    assert!(["dq", "dk", "dv"].iter().all(|name| shut[name].iter().all(|x| *x == 0.0)));
    case.get_mut("u").data[0] = 2.0;
    let open = all(&case);
    close(&open["dv"], &[6.0 * 25.0 / 6.0, 0.0, 6.0 * 16.0 / 6.0]);
    // 2 · 5 · 6 · 1 / 6 = 10, 0, 2 · 4 · 6 · 2 / 6 = 16.
    close(&open["dq"], &[30.0, 10.0 + 32.0]);
    close(&open["dk"], &[10.0, 20.0, 0.0, 0.0, 16.0, 32.0]);
}

#[test]
fn weights_that_add_up_to_one_do_not_move_by_what_all_scores_have_in_common() {
    for weights in [GauWeights::Softmax, GauWeights::SquaredRelu(Divisor::RowSum { eps: 1e-30 })] {
        let mut case = Case::new(GatedAttentionConfig::new().weights(weights), Source::Given, square(6, 4, 3));
        // All values are one: o is one whatever the scores.
        case.get_mut("v").data.fill(1.0);
        let all = case.twin::<f64>(SumOrder::InOrder);
        let of_scores = all.iter().filter(|(name, _)| *name != "dv");
        assert!(of_scores.flat_map(|(_, gradient)| gradient).all(|x| x.abs() < 1e-14), "{all:?}");
    }
}
