//! A million classes of 512 dims, by what 16 tensors that are alike have in common; only where tests are to be thorough.

use crate::common::{Tensor, context};
use wgpu_attention::{
    DType, MarginSoftmax, MarginSoftmaxBackward, MarginSoftmaxBackwardInputs, MarginSoftmaxConfig,
    MarginSoftmaxGradients, MarginSoftmaxInputs, MarginSoftmaxOutputs, TensorView,
};

const ROWS: usize = 8;
const DIM: usize = 512;
/// Classes of a tensor: 128 MiB.
const EACH: usize = 65_536;
const CLASSES: usize = 1_000_000;

fn unit(row: &[f32]) -> Vec<f64> {
    let norm = row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    row.iter().map(|&x| f64::from(x) / norm).collect()
}

#[test]
fn a_million_wide_classes() {
    if std::env::var_os("THOROUGH").is_none() {
        return;
    }
    let context = context();
    let numbers = Tensor::normal(1, [EACH, DIM]).data;
    let shards: Vec<usize> = (0..16).map(|shard| EACH.min(CLASSES - shard * EACH)).collect();
    let matrix = |buffer, rows: usize| TensorView::f32(buffer, [rows as u32, DIM as u32]);
    let buffers: Vec<_> = shards.iter().map(|&rows| context.upload(&numbers[..rows * DIM])).collect();
    let weights: Vec<_> = shards.iter().zip(&buffers).map(|(&rows, buffer)| matrix(buffer, rows)).collect();
    // The features are near the class weights of which the second tensor's are their classes.
    let noise = Tensor::normal(2, [ROWS, DIM]).data;
    let rows: Vec<f32> = numbers.iter().zip(&noise).map(|(x, noise)| x + 2.0 * noise).collect();
    let features = context.upload(&rows);
    let labels = context.upload(&(0..ROWS).map(|i| (i + EACH) as u32).collect::<Vec<u32>>());
    let labels = TensorView::new(&labels, DType::U32, [ROWS as u32]);
    let config = MarginSoftmaxConfig::new().scale(30.0);
    let [loss, lse, others] = [0; 3].map(|_| context.allocate(ROWS));
    let of_rows = |buffer| TensorView::f32(buffer, [ROWS as u32]);
    let mut outputs = MarginSoftmaxOutputs::new(of_rows(&loss));
    (outputs.lse, outputs.others) = (Some(of_rows(&lse)), Some(of_rows(&others)));
    let inputs = MarginSoftmaxInputs::new(matrix(&features, ROWS), &weights, labels);
    let op = MarginSoftmax::new(context, config).expect("a config");
    context.run(&op.prepare(inputs, outputs).expect("a loss")).expect("it runs");

    let dloss = context.upload(&[1.0_f32; ROWS]);
    let dfeatures = context.allocate(ROWS * DIM);
    let gradients: Vec<_> = shards.iter().map(|&rows| context.allocate(rows * DIM)).collect();
    let dweights: Vec<_> = shards.iter().zip(&gradients).map(|(&rows, buffer)| matrix(buffer, rows)).collect();
    let inputs = MarginSoftmaxBackwardInputs::new(
        matrix(&features, ROWS),
        &weights,
        labels,
        of_rows(&lse),
        of_rows(&others),
        of_rows(&dloss),
    );
    let mut out = MarginSoftmaxGradients::none();
    (out.dfeatures, out.dweights) = (Some(matrix(&dfeatures, ROWS)), &dweights);
    let op = MarginSoftmaxBackward::new(context, config).expect("a config");
    context.run(&op.prepare(inputs, out).expect("gradients")).expect("it runs");

    let features: Vec<_> = rows.chunks(DIM).take(ROWS).map(unit).collect();
    let units: Vec<_> = numbers.chunks(DIM).map(unit).collect();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let cosines: Vec<Vec<f64>> = features.iter().map(|f| units.iter().map(|w| 30.0 * dot(f, w)).collect()).collect();
    // Each class stands in 16 tensors, or 15.
    let copies = |j: usize| if j < CLASSES - 15 * EACH { 16.0 } else { 15.0 };
    let lse = cosines.iter().map(|row| row.iter().enumerate().map(|(j, l)| copies(j) * l.exp()).sum::<f64>().ln());
    let lse: Vec<f64> = lse.collect();
    let through = |a: &[f64], x: &[f64], row: &[f32], at: usize| {
        (a[at] - x[at] * dot(a, x)) / row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt()
    };
    // A logit is off by up to 16 ulp of the scale, 6e-5, and a gradient by as much of what its terms are before they meet.
    let close = |what: &str, got: &[f32], want: &[f64], row: &[f32]| {
        let norm = row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        let allowed = 6e-5 * 30.0 / norm / (DIM as f64).sqrt();
        for (got, want) in got.iter().zip(want) {
            assert!((f64::from(*got) - want).abs() <= allowed, "{what}: got {got}, want {want}, off by {allowed}");
        }
        let largest = want.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
        assert!(what != "dfeatures" || largest > 100.0 * allowed, "{what}: {largest} is beside {allowed}");
    };
    let got = context.download(&dfeatures).expect("gradients");
    for i in 0..ROWS {
        let mut a = vec![0.0; DIM];
        for (j, unit) in units.iter().enumerate() {
            let own = copies(j) * (cosines[i][j] - lse[i]).exp() - if j == i { 1.0 } else { 0.0 };
            a.iter_mut().zip(unit).for_each(|(a, w)| *a += 30.0 * own * w);
        }
        let row = &rows[i * DIM..][..DIM];
        let want: Vec<f64> = (0..DIM).map(|at| through(&a, &features[i], row, at)).collect();
        close("dfeatures", &got[i * DIM..][..DIM], &want, row);
    }
    for (shard, buffer) in gradients.iter().enumerate() {
        let got = context.download(buffer).expect("gradients");
        for j in (0..20).chain([shards[shard] - 1]) {
            let mut a = vec![0.0; DIM];
            for (i, unit) in features.iter().enumerate() {
                let own = (cosines[i][j] - lse[i]).exp() - if shard == 1 && j == i { 1.0 } else { 0.0 };
                a.iter_mut().zip(unit).for_each(|(a, f)| *a += 30.0 * own * f);
            }
            let row = &numbers[j * DIM..][..DIM];
            let want: Vec<f64> = (0..DIM).map(|at| through(&a, &units[j], row, at)).collect();
            close("dweights", &got[j * DIM..][..DIM], &want, row);
        }
    }
}
