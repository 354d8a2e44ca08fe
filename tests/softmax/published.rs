//! What entmax 1.3 computes, by `tests/golden/published_softmax.py`: sparse kinds and their losses as others have them.

use wgpu_attention::SoftmaxKind;
use wgpu_attention::softmax::backward::reference::softmax_backward;
use wgpu_attention::softmax::reference::softmax;

use crate::case::{Case, Scales};

/// Its numbers for a kind: two rows of six.
struct Published {
    name: &'static str,
    kind: SoftmaxKind,
    p: [f64; 12],
    dx: [f64; 12],
    /// Of α, a row; of a kind that has none, nothing.
    dalpha: &'static [f64],
    loss: [f64; 2],
}

#[rustfmt::skip]
const PUBLISHED: [Published; 3] = [
    Published {
        name: "sparsemax",
        kind: SoftmaxKind::Sparsemax,
        p: [0.0, 0.171875, 0.0, 0.828125, 0.0, 0.0, 0.0, 0.0, 0.859375, 0.140625, 0.0, 0.0],
        dx: [0.0, -0.328125, 0.0, 0.328125, 0.0, 0.0, 0.0, 0.0, 0.359375, -0.359375, 0.0, 0.0],
        dalpha: &[],
        loss: [1.935791015625, 1.457275390625],
    },
    Published {
        name: "entmax15",
        kind: SoftmaxKind::Entmax { alpha: 1.5 },
        p: [
            0.0, 0.257494751934, 0.0, 0.698167878505, 0.044337369561, 0.0,
            0.0, 0.0, 0.733764201370, 0.247233072917, 0.019002725714, 0.0,
        ],
        dx: [
            0.0, -0.138267173429, 0.0, 0.320664414600, -0.182397241170, 0.0,
            0.0, 0.0, 0.319021215288, -0.172200520833, -0.146820694455, 0.0,
        ],
        dalpha: &[],
        loss: [2.050696576157, 1.560361104384],
    },
    Published {
        name: "entmax_bisect",
        kind: SoftmaxKind::Entmax { alpha: 1.25 },
        p: [
            0.003281856989, 0.262684880009, 0.026484333802, 0.599621929921, 0.103700535132, 0.004226464147,
            0.042955115426, 0.005766407974, 0.613279079942, 0.247389981930, 0.076297539959, 0.014311874769,
        ],
        dx: [
            -0.028203433002, -0.055275487101, -0.091953874210, 0.344523641759, -0.136031506938, -0.033059340508,
            -0.108655798860, -0.039137745378, 0.393062562001, -0.053169241065, -0.126346645632, -0.065753131065,
        ],
        dalpha: &[0.977409559660, 1.130858926652],
        loss: [2.216041345359, 1.724440566661],
    },
];

const LABELS: [u32; 2] = [2, 4];

/// Multiples of 1/32, which are f32.
fn numbers(seed: usize) -> Vec<f32> {
    let of = |i: usize, c: usize| ((37 * i + 61 * c + 17 * i * c + seed) % 101) as f32 - 50.0;
    (0..2).flat_map(|i| (0..6).map(move |c| of(i, c) / 32.0)).collect()
}

fn expect_near(what: &str, got: &[f64], want: &[f64]) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (got, want) in got.iter().zip(want) {
        assert!((got - want).abs() < 1e-11, "{what}: the twin has {got}, the package {want}");
    }
}

/// The twin is held to the package, and the GPU to the twin.
#[test]
fn sparse_kinds_are_those_of_a_published_package() {
    for Published { name, kind, p, dx, dalpha, loss } in PUBLISHED {
        let mut case = Case::new(2, 6).of(kind);
        (case.lse, case.entropy) = (false, false);
        (case.x, case.dp) = (numbers(1), numbers(2));
        if let (SoftmaxKind::Entmax { alpha }, false) = (kind, dalpha.is_empty()) {
            case = case.alphas(Scales::PerRow);
            case.alpha = vec![alpha; 2];
        }
        expect_near(name, &softmax(&case.config, &case.host()).expect("the twin").p, &p);
        let back = softmax_backward(&case.config, &case.host_backward()).expect("the twin");
        expect_near(name, &back.dx, &dx);
        expect_near(name, &back.dalpha, dalpha);
        case.check(name);

        // The package's gradient of a loss is p but for 1 less at the label.
        (case.labels, case.dloss, case.dp) = (Some(LABELS.into()), vec![1.0; 2], vec![0.0; 12]);
        expect_near(name, &softmax(&case.config, &case.host()).expect("the twin").loss, &loss);
        let mut want = p;
        (0..2).for_each(|row| want[6 * row + LABELS[row] as usize] -= 1.0);
        expect_near(name, &softmax_backward(&case.config, &case.host_backward()).expect("the twin").dx, &want);
        case.check(name);
    }
}
