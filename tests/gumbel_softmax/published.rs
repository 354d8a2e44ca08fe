//! What torch 2.15.0 computes from the crate's noise, by `tests/golden/published_softmax.py`: both kinds, and their gradient.

use super::{Case, GumbelKind, SumOrder, key};

/// Multiples of 1/32, which are f32.
fn numbers(seed: usize) -> Vec<f32> {
    let of = |i: usize, c: usize| ((37 * i + 61 * c + 17 * i * c + seed) % 101) as f32 - 50.0;
    (0..2).flat_map(|i| (0..6).map(move |c| of(i, c) / 32.0)).collect()
}

#[rustfmt::skip]
const Y: [f64; 12] = [
    0.000062848504, 0.821251057106, 0.010069284306, 0.083063626090, 0.037326100698, 0.048227083296,
    0.138376636721, 0.001636898417, 0.100969837836, 0.314904657509, 0.430985435763, 0.013126533754,
];
#[rustfmt::skip]
const DLOGITS: [f64; 12] = [
    -0.000230902014, 0.113787557928, -0.023778071895, 0.120529800718, -0.039153066797, -0.171155317940,
    -0.166810777493, -0.004326295806, 0.225366325706, 0.250196889104, -0.277116602240, -0.027309539273,
];
const HARD: [usize; 2] = [1, 10];

/// The twin is held to the package, and the GPU to the twin.
#[test]
fn draws_are_those_of_a_published_package() {
    for kind in [GumbelKind::Soft, GumbelKind::Hard] {
        let mut case = Case::new(2, 6);
        case.config = case.config.kind(kind).tau(0.5);
        (case.logits, case.dy, case.key) = (numbers(1), numbers(2), key(1 << 32 | 42, 2, 3, 4));
        let y = match kind {
            GumbelKind::Soft => Y,
            _ => std::array::from_fn(|at| f64::from(u8::from(HARD.contains(&at)))),
        };
        let near = |what: &str, got: &[f64], want: [f64; 12]| {
            let is_near = got.iter().zip(want).all(|(got, want)| (got - want).abs() < 1e-11);
            assert!(is_near && got.len() == 12, "{kind:?}, {what}: the twin has {got:?}, the package {want:?}");
        };
        near("y", &case.twin(SumOrder::InOrder).y, y);
        near("dlogits", &case.twin_backward(SumOrder::InOrder).dlogits, DLOGITS);
        case.check("published");
    }
}
