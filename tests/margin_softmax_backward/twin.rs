//! The twin's gradients against differences of the loss, and by hand.

use crate::case::Case;
use crate::common::Tensor;
use crate::gradients::Gradients;
use wgpu_attention::margin_softmax::reference::margin_softmax;
use wgpu_attention::margin_softmax::{Arc, Margin};
use wgpu_attention::{MarginSoftmaxConfig, Reduction};

/// Half of a difference's step: numbers are multiples of it, so that they are moved exactly.
const STEP: f32 = 1.0 / 4096.0;

/// Numbers between -2 and 2 in whole steps.
fn in_steps<const RANK: usize>(tensor: &mut Tensor<RANK>) {
    tensor.data.iter_mut().for_each(|x| *x = (x.clamp(-2.0, 2.0) / STEP).round() * STEP);
}

/// What all that flows back is the gradient of.
fn total(of: &Gradients) -> f64 {
    let out = margin_softmax(&of.case.config, &of.case.host()).expect("a loss");
    let sum = |coming: &[f32], of: &[f64]| coming.iter().zip(of).map(|(&d, x)| f64::from(d) * x).sum::<f64>();
    let [dlse, dentropy] = [&of.dlse, &of.dentropy].map(|given| given.as_ref().map(|tensor| tensor.data.clone()));
    sum(&of.dloss.data, &out.loss)
        + dlse.map_or(0.0, |coming| sum(&coming, &out.lse))
        + dentropy.map_or(0.0, |coming| sum(&coming, &out.entropy))
}

fn check(what: &str, mut of: Gradients) {
    in_steps(&mut of.case.features);
    in_steps(&mut of.case.weights);
    of.case.bias.iter_mut().for_each(in_steps);
    let got = of.twin();
    let moved = |pick: &dyn Fn(&mut Gradients) -> &mut f32| {
        let at = |by: f32| {
            let mut of = of.clone();
            *pick(&mut of) += by;
            total(&of)
        };
        // By two steps as well: what goes with their cube goes.
        let [one, two] = [1.0, 2.0].map(|steps| (at(steps * STEP) - at(-steps * STEP)) / f64::from(2.0 * steps * STEP));
        (4.0 * one - two) / 3.0
    };
    let close = |name: &str, index: usize, got: f64, want: f64| {
        assert!((got - want).abs() <= 1e-6 * (1.0 + want.abs()), "{what}: {name} {index}: got {got}, want {want}");
    };
    for (index, &got) in got.dfeatures.iter().enumerate() {
        close("dfeatures", index, got, moved(&move |of| &mut of.case.features.data[index]));
    }
    for (index, &got) in got.dweights.iter().enumerate() {
        close("dweights", index, got, moved(&move |of| &mut of.case.weights.data[index]));
    }
    for (index, &got) in got.dbias.iter().enumerate() {
        close("dbias", index, got, moved(&move |of| &mut of.case.bias.as_mut().expect("a bias").data[index]));
    }
}

fn config() -> MarginSoftmaxConfig {
    MarginSoftmaxConfig::new().scale(3.0)
}

#[test]
fn differences_by_margin() {
    let angular = [Arc::Plain, Arc::Monotone, Arc::Easy].map(|beyond| Margin::Angular { m: 0.5, beyond });
    let powers = (1..=4)
        .flat_map(|m| [Margin::Sphere { m }, Margin::SphereMin { m }, Margin::Combined { m1: m, m2: 0.3, m3: 0.2 }]);
    for margin in angular.into_iter().chain(powers).chain([Margin::None, Margin::Metric { m: 0.3 }]) {
        check("margin", Gradients::new(Case::new([6, 4, 3], config().margin(margin))));
    }
}

#[test]
fn differences_by_option() {
    let smoothed = config().margin(Margin::Cosine { m: 0.2 }).label_smoothing(0.2).z_loss(0.05);
    let arc = config().margin(Margin::Angular { m: 0.5, beyond: Arc::Monotone });
    let case = |config| Case::new([6, 4, 3], config);
    for reduction in [Reduction::None, Reduction::Mean, Reduction::Sum] {
        let all = case(smoothed.reduction(reduction)).bias().class_weights();
        check("all", Gradients::new(all.clone()));
        check("all that comes in", Gradients::new(all).dlse().dentropy());
    }
    for config in [arc, smoothed, config().margin(Margin::Metric { m: 0.1 })] {
        check("margins of classes", Gradients::new(case(config).class_margins()));
        check("margins of rows", Gradients::new(case(config).row_margins()));
        check("centres", Gradients::new(case(config.centres(3)).bias()).dlse());
    }
    check("listed classes", Gradients::new(case(smoothed).bias().class_weights().sampled(3)).dlse());
    check("listed centres", Gradients::new(Case::new([3, 7, 3], arc.centres(2)).bias().sampled(3)).dentropy());
    check("no norms", Gradients::new(case(smoothed.normalize(false)).bias()).dentropy());
    check("one class", Gradients::new(Case::new([3, 1, 2], smoothed).bias()).dlse());
}

#[test]
fn a_gradient_that_stops_at_the_norm_is_the_other_before_it() {
    let case = Case::new([5, 4, 3], config().margin(Margin::Cosine { m: 0.2 }));
    let through = Gradients::new(case.clone()).twin();
    let stopped = Gradients::new(Case { config: case.config.through_norm(false), ..case.clone() }).twin();
    for (rows, [through, stopped]) in [
        (&case.features, [&through.dfeatures, &stopped.dfeatures]),
        (&case.weights, [&through.dweights, &stopped.dweights]),
    ] {
        for (at, row) in rows.data.chunks(3).enumerate() {
            let x = row.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
            let norm = x.iter().map(|x| x * x).sum::<f64>().sqrt();
            let a = &stopped[3 * at..][..3];
            let along: f64 = x.iter().zip(a).map(|(x, a)| x * a).sum::<f64>() / norm;
            for c in 0..3 {
                let want = (a[c] - x[c] / norm * along) / norm;
                assert!((through[3 * at + c] - want).abs() < 1e-12, "{at} {c}");
            }
        }
    }
}
