//! What bert4torch 0.6.2 computes, by `tests/golden/published_softmax.py`: the loss of its authors' article as others have it.

use wgpu_attention::multilabel_softmax::backward::reference::{self as backward, multilabel_softmax_backward};
use wgpu_attention::multilabel_softmax::reference::{HostInputs, multilabel_softmax};
use wgpu_attention::{HostView, MultilabelSoftmaxConfig, Reduction};

use crate::case::Case;

/// Multiples of 1/32, which are f32.
fn numbers(seed: usize) -> Vec<f32> {
    let of = |i: usize, c: usize| ((37 * i + 61 * c + 17 * i * c + seed) % 101) as f32 - 50.0;
    (0..2).flat_map(|i| (0..6).map(move |c| of(i, c) / 32.0)).collect()
}

const LOSS: f64 = 1.761864882772;
#[rustfmt::skip]
const DSCORES: [f64; 12] = [
    0.026233965819, 0.176497193688, 0.050567292624, -0.131420918686, 0.097471007661, 0.027925911250,
    0.101775249878, 0.049601295363, -0.072618913918, -0.149004336596, 0.134830299854, 0.065711040111,
];

/// The twin is held to the package, and the GPU to the twin.
#[test]
fn the_loss_is_that_of_a_published_package() {
    let config = MultilabelSoftmaxConfig::new().reduction(Reduction::Mean);
    let mut case = Case::new(config, 2, 6);
    let positive = numbers(2);
    case.positive(|row, class| positive[6 * row + class] > 0.5);
    (case.scores, case.dloss) = (numbers(1), vec![1.0]);

    let rows = HostView::new(&case.scores, [2, 6]).expect("rows");
    let labels = Some(HostView::new(&case.labels, [2, 6]).expect("labels"));
    let one = HostView::new(&case.dloss, [1]).expect("a number");
    let loss = multilabel_softmax(&config, &HostInputs { labels, ..HostInputs::new(rows) }).expect("the twin").loss[0];
    assert!((loss - LOSS).abs() < 1e-11, "the twin has {loss}, the package {LOSS}");
    // The twin computes itself what the loss has saved: two numbers a row.
    let saved = HostView::new(&case.scores[..2], [2]).expect("rows");
    let inputs = backward::HostInputs { labels, ..backward::HostInputs::new(rows, saved, saved, one) };
    let dscores = multilabel_softmax_backward(&config, &inputs).expect("the twin").dscores;
    for (got, want) in dscores.iter().zip(DSCORES) {
        assert!((got - want).abs() < 1e-11, "the twin has {got}, the package {want}");
    }
    case.check("published");
}
