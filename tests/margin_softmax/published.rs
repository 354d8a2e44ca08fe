//! What pytorch-metric-learning 2.9.0 computes, by `tests/golden/published_margin_softmax.py`: the losses of the papers as others have them.

use crate::case::Case;
use crate::common::Tensor;
use wgpu_attention::margin_softmax::reference::margin_softmax;
use wgpu_attention::margin_softmax::{Arc, Margin};
use wgpu_attention::{MarginSoftmaxConfig, Reduction};

/// Its number for a config.
struct Published {
    name: &'static str,
    config: MarginSoftmaxConfig,
    loss: f64,
}

impl Published {
    fn all() -> [Self; 4] {
        let config = |margin, scale| MarginSoftmaxConfig::new().margin(margin).scale(scale).reduction(Reduction::Mean);
        let arc = Margin::Angular { m: std::f32::consts::FRAC_PI_6, beyond: Arc::Monotone };
        let of = |name, config, loss| Self { name, config, loss };
        [
            of("CosFaceLoss", config(Margin::Cosine { m: 0.375 }, 8.0), 10.055781179329),
            of("ArcFaceLoss", config(arc, 8.0), 10.440994970484),
            of("SphereFaceLoss", config(Margin::Sphere { m: 4 }, 4.0), 16.113231821438),
            of("SubCenterArcFaceLoss", config(arc, 8.0).centres(3), 7.643535596814),
        ]
    }

    /// Ten rows of seven classes with six dims: multiples of 1/32, which are f32.
    fn case(&self) -> Case {
        let numbers = |rows: usize, seed| {
            let of = |i, c| ((37 * i + 61 * c + 17 * i * c + seed) % 101) as f32 - 50.0;
            let data = (0..rows).flat_map(|i| (0..6).map(move |c| of(i, c) / 32.0)).collect();
            Tensor { data, shape: [rows, 6] }
        };
        let mut case = Case::new([10, 7, 6], self.config);
        (case.features, case.weights) = (numbers(10, 1), numbers(case.weights.shape[0], 2));
        case.labels = (0..10).map(|i| 3 * i % 7).collect();
        case
    }
}

#[test]
fn losses_are_those_of_a_published_package() {
    for published in Published::all() {
        let case = published.case();
        let twin = margin_softmax(&case.config, &case.host()).expect("the twin").loss[0];
        let got = f64::from(case.run(false).0[0][0]);
        let Published { name, loss, .. } = published;
        // The angle of 30 degrees is an f32 here.
        assert!((twin - loss).abs() < 1e-6, "{name}: the twin has {twin}, the package {loss}");
        assert!((got - loss).abs() < 1e-4, "{name}: got {got}, the package has {loss}");
    }
}
