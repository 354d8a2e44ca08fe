//! The CPU twin of the backward pass: plain loops over the formula.

use super::super::reference::{Call, Gathered, Label, Row, Rows};
use super::super::{MarginSoftmaxConfig, Reduction};
use crate::Result;
use crate::reference::{Real, SumOrder};

pub use super::HostInputs;

/// All gradients.
#[derive(Clone, Debug, PartialEq)]
pub struct HostOutputs<T> {
    /// `[rows, dim]`.
    pub dfeatures: Vec<T>,
    /// `[class_rows, dim]`.
    pub dweights: Vec<T>,
    /// `[classes]`; empty without a bias.
    pub dbias: Vec<T>,
}

/// The gradients in f64.
///
/// # Errors
/// As [`HostInputs::shapes`].
pub fn margin_softmax_backward(config: &MarginSoftmaxConfig, inputs: &HostInputs) -> Result<HostOutputs<f64>> {
    margin_softmax_backward_in(config, inputs, SumOrder::InOrder)
}

/// [`margin_softmax_backward`] in another arithmetic or order of summation.
///
/// # Errors
/// As [`margin_softmax_backward`].
pub fn margin_softmax_backward_in<T: Real>(
    config: &MarginSoftmaxConfig,
    inputs: &HostInputs,
    order: SumOrder,
) -> Result<HostOutputs<T>> {
    let shapes = inputs.shapes(config)?;
    let call = inputs.call();
    let listed = inputs.sampled.map(|sampled| Gathered::of(config, &call, sampled));
    let call = listed.as_ref().map_or(Ok(call), |listed| listed.call(&inputs.call()))?;
    let [features, weights] = [call.features, call.weights].map(|tensor| Call::rows_of::<T>(config, tensor, order));
    let (zero, scale) = (T::new(0.0), T::new(config.scale.into()));
    let count = shapes.rows as usize;
    let rows: Vec<Row<T>> = (0..count).map(|i| call.row(config, [&features, &weights], i, order)).collect();
    let order_of_rows = order.indices(count);
    let labelled = order_of_rows.iter().filter(|&&i| matches!(rows[i].label, Label::Class(_)));
    let divisor = match config.reduction {
        Reduction::Mean => labelled.fold(zero, |sum, &i| sum + rows[i].weight),
        _ => T::new(1.0),
    };

    // The gradients of the logits, and of the products of normalised rows: of each row, by class.
    let gradients: Vec<Option<Vec<T>>> =
        (0..count).map(|i| of_logits(config, inputs, &rows[i], (i, divisor), order)).collect();
    let of_cosines = |i: usize, j: usize| {
        let Some(dl) = &gradients[i] else { return zero };
        let (row, c) = (&rows[i], rows[i].cosines[j]);
        let [_, slope] = if row.label == Label::Class(j) { row.terms.target(c) } else { row.terms.other(c) };
        if dl[j] == zero { zero } else { scale * dl[j] * slope }
    };
    let classes = order.indices(weights.rows.len() / config.centres as usize);
    let mut out = HostOutputs { dfeatures: Vec::new(), dweights: Vec::new(), dbias: Vec::new() };
    for i in 0..count {
        let mut all = vec![zero; features.rows[i].len()];
        for &j in &classes {
            add(&mut all, of_cosines(i, j), &weights, rows[i].winners[j]);
        }
        through(config, &mut all, &features, i, order);
        let nothing = T::new(if gradients[i].is_none() { f64::NAN } else { 0.0 });
        out.dfeatures.extend(all.into_iter().map(|x| x + nothing));
    }
    for w in 0..weights.rows.len() {
        let mut all = vec![zero; weights.rows[w].len()];
        let j = w / config.centres as usize;
        for &i in order_of_rows.iter().filter(|&&i| rows[i].winners[j] == w) {
            add(&mut all, of_cosines(i, j), &features, i);
        }
        through(config, &mut all, &weights, w, order);
        out.dweights.extend(all);
    }
    if inputs.bias.is_some() {
        let whole = || order_of_rows.iter().filter_map(|&i| gradients[i].as_ref());
        out.dbias = (0..classes.len()).map(|j| whole().fold(zero, |sum, dl| sum + dl[j])).collect();
    }
    if let Some(listed) = listed {
        let count = (shapes.class_rows / config.centres) as usize;
        out.dweights = spread(&out.dweights, &listed.classes, count);
        out.dbias = spread(&out.dbias, &listed.classes, if inputs.bias.is_some() { count } else { 0 });
    }
    Ok(out)
}

/// What listed classes have, among all of so many classes: 0 in place of the others.
fn spread<T: Real>(own: &[T], listed: &[u32], classes: usize) -> Vec<T> {
    let each = own.len() / listed.len();
    let mut all = vec![T::new(0.0); classes * each];
    for (place, &class) in listed.iter().enumerate().filter(|(_, class)| (**class as usize) < classes) {
        all[class as usize * each..][..each].copy_from_slice(&own[place * each..][..each]);
    }
    all
}

/// The gradients of a row's logits; none where the row is broken and something comes in.
fn of_logits<T: Real>(
    config: &MarginSoftmaxConfig,
    inputs: &HostInputs,
    row: &Row<T>,
    (i, divisor): (usize, T),
    order: SumOrder,
) -> Option<Vec<T>> {
    let [zero, one] = [0.0, 1.0].map(T::new);
    let [smoothing, z_loss] = [config.label_smoothing, config.z_loss].map(|x| T::new(x.into()));
    let classes = row.logits.len();
    let [dlse, dentropy] = [inputs.dlse, inputs.dentropy].map(|given| given.map(|given| given.at([i])));
    let comes_in = row.label != Label::None || dlse.is_some() || dentropy.is_some();
    if !comes_in {
        return Some(vec![zero; classes]);
    }
    if row.broken {
        return None;
    }
    let columns = order.indices(classes);
    let sum = |term: &dyn Fn(usize) -> T| columns.iter().fold(zero, |sum, &j| sum + term(j));
    let top = row.logits.iter().copied().fold(row.logits[0], Real::max);
    let below = |j: usize| row.logits[j] - top;
    let total = sum(&|j| below(j).exp());
    let p = |j: usize| below(j).exp() / total;
    let log_p = |j: usize| below(j) - total.ln();
    let entropy = total.ln() - sum(&|j| p(j) * below(j));
    let [dlse, dentropy] = [dlse, dentropy].map(|given| T::new(given.unwrap_or(0.0).into()));
    let dloss = T::new(inputs.dloss.at([if config.reduction == Reduction::None { i } else { 0 }]).into());
    let g = match row.label {
        Label::Class(_) if divisor != zero => dloss * row.weight / divisor,
        _ => zero,
    };
    let of_class = |j: usize| {
        let target = row.label == Label::Class(j);
        // p - 1 of the target is less the sum of all others.
        let rest = || sum(&|other| if other == j { zero } else { p(other) });
        let probability = if target { smoothing - rest() } else { p(j) };
        let of_loss =
            probability - smoothing / T::new(classes as f64) + (one + one) * z_loss * (top + total.ln()) * p(j);
        let of_entropy = if dentropy == zero { zero } else { dentropy * p(j) * (log_p(j) + entropy) };
        g * of_loss + dlse * p(j) - of_entropy
    };
    Some((0..classes).map(of_class).collect())
}

/// Adds so many times a row, divided by its norm.
fn add<T: Real>(sum: &mut [T], factor: T, rows: &Rows<T>, at: usize) {
    // What adds nothing may be NaN.
    if factor == T::new(0.0) {
        return;
    }
    for (sum, x) in sum.iter_mut().zip(&rows.rows[at]) {
        *sum += factor * *x * rows.inverse[at];
    }
}

/// From the gradient of a normalised row to that of the row.
fn through<T: Real>(config: &MarginSoftmaxConfig, gradient: &mut [T], rows: &Rows<T>, at: usize, order: SumOrder) {
    let (row, inverse) = (&rows.rows[at], rows.inverse[at]);
    if inverse == T::new(0.0) {
        gradient.fill(inverse);
    }
    let nothing = gradient.iter().all(|x| *x == T::new(0.0));
    if !(config.normalize && config.through_norm) || nothing {
        return;
    }
    let dims = order.indices(row.len());
    let along = dims.into_iter().fold(T::new(0.0), |sum, c| sum + gradient[c] * row[c] * inverse);
    for (gradient, x) in gradient.iter_mut().zip(row) {
        *gradient = (*gradient - *x * inverse * along) * inverse;
    }
}

impl<'a> HostInputs<'a> {
    fn call(&self) -> Call<'a> {
        let Self { features, weights, labels, bias, class_weights, class_margins, row_margins, .. } = *self;
        Call { features, weights, labels, bias, class_weights, class_margins, row_margins }
    }
}

/// All outputs, by name.
pub(super) fn by_name<T: Real>(
    config: &MarginSoftmaxConfig,
    inputs: &HostInputs,
    order: SumOrder,
) -> Result<Vec<(&'static str, Vec<T>)>> {
    let HostOutputs { dfeatures, dweights, dbias } = margin_softmax_backward_in(config, inputs, order)?;
    let dbias = inputs.bias.is_some().then_some(("dbias", dbias));
    Ok([("dfeatures", dfeatures), ("dweights", dweights)].into_iter().chain(dbias).collect())
}
