//! The CPU twin of margin softmax: plain loops over the formula.

use super::config::Terms;
use super::{MarginSoftmaxConfig, Reduction};
use crate::reference::{Real, SumOrder};
use crate::{HostView, Result};

pub use super::HostInputs;

/// The whole result, rows in order.
#[derive(Clone, Debug, PartialEq)]
pub struct HostOutputs<T> {
    /// `[rows]`, or one number if reduced.
    pub loss: Vec<T>,
    /// `[rows]`.
    pub lse: Vec<T>,
    /// `[rows]`.
    pub entropy: Vec<T>,
    /// `[rows]`; `u32::MAX` where a logit is NaN.
    pub predicted: Vec<u32>,
    /// `[rows]`.
    pub others: Vec<T>,
    /// `[rows, classes]`; empty where classes are listed.
    pub logits: Vec<T>,
}

/// The inputs that forward and backward have in common.
pub(super) struct Call<'a> {
    pub features: HostView<'a, f32, 2>,
    pub weights: HostView<'a, f32, 2>,
    pub labels: HostView<'a, u32, 1>,
    pub bias: Option<HostView<'a, f32, 1>>,
    pub class_weights: Option<HostView<'a, f32, 1>>,
    pub class_margins: Option<HostView<'a, f32, 1>>,
    pub row_margins: Option<HostView<'a, f32, 1>>,
}

/// What the listed classes have, one after the other: the call as if there were no others.
pub(super) struct Gathered {
    pub classes: Vec<u32>,
    weights: Vec<f32>,
    labels: Vec<u32>,
    /// Bias, class weights and class margins.
    numbers: [Option<Vec<f32>>; 3],
}

impl Gathered {
    pub fn of(config: &MarginSoftmaxConfig, call: &Call<'_>, sampled: HostView<'_, u32, 1>) -> Self {
        let ([class_rows, dim], centres) = (call.weights.shape(), config.centres as usize);
        let classes: Vec<u32> = (0..sampled.shape()[0]).map(|place| sampled.at([place])).collect();
        // A number that is no class has rows of NaN.
        let is_class = |class: u32| (class as usize) < class_rows / centres;
        let rows = classes.iter().flat_map(|&class| (0..centres).map(move |centre| (class, centre)));
        let weight = |(class, centre): (u32, usize), c| match is_class(class) {
            true => call.weights.at([class as usize * centres + centre, c]),
            false => f32::NAN,
        };
        let numbers = |tensor: HostView<'_, f32, 1>| {
            classes.iter().map(|&class| if is_class(class) { tensor.at([class as usize]) } else { f32::NAN }).collect()
        };
        let place = |label: u32| match classes.binary_search(&label) {
            _ if label == u32::MAX => label,
            Ok(place) => place as u32,
            Err(_) => u32::MAX - 1,
        };
        Self {
            weights: rows.flat_map(|row| (0..dim).map(move |c| weight(row, c))).collect(),
            labels: (0..call.labels.shape()[0]).map(|i| place(call.labels.at([i]))).collect(),
            numbers: [call.bias, call.class_weights, call.class_margins].map(|given| given.map(numbers)),
            classes,
        }
    }

    pub fn call<'a>(&'a self, call: &Call<'a>) -> Result<Call<'a>> {
        let dim = call.weights.shape()[1];
        let [bias, class_weights, class_margins] = self
            .numbers
            .each_ref()
            .map(|given| given.as_ref().map(|data| HostView::new(data, [data.len()])).transpose());
        Ok(Call {
            weights: HostView::new(&self.weights, [self.weights.len() / dim, dim])?,
            labels: HostView::new(&self.labels, [self.labels.len()])?,
            bias: bias?,
            class_weights: class_weights?,
            class_margins: class_margins?,
            ..*call
        })
    }
}

/// Rows of numbers, and 1 over the norm of each: 0 for a norm of 0, 1 where norms are left alone.
pub(super) struct Rows<T> {
    pub rows: Vec<Vec<T>>,
    pub inverse: Vec<T>,
}

/// What a row's label is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Label {
    None,
    Class(usize),
    /// No class, or one whose weight or margin means nothing.
    Unknown,
}

/// A row of logits.
pub(super) struct Row<T> {
    pub label: Label,
    /// Whether all that the row makes is NaN.
    pub broken: bool,
    /// The weight of its class.
    pub weight: T,
    pub terms: Terms,
    pub cosines: Vec<T>,
    /// The row of the class weights that made each.
    pub winners: Vec<usize>,
    /// Logits without the margin, and with it.
    pub plain: Vec<T>,
    pub logits: Vec<T>,
}

impl Call<'_> {
    pub fn rows_of<T: Real>(config: &MarginSoftmaxConfig, tensor: HostView<'_, f32, 2>, order: SumOrder) -> Rows<T> {
        let [count, dim] = tensor.shape();
        let dims = order.indices(dim);
        let rows: Vec<Vec<T>> =
            (0..count).map(|i| (0..dim).map(|c| T::new(tensor.at([i, c]).into())).collect()).collect();
        let inverse = |row: &Vec<T>| {
            let square = dims.iter().fold(T::new(0.0), |sum, &c| sum + row[c] * row[c]);
            match square == T::new(0.0) {
                _ if !config.normalize => T::new(1.0),
                true => T::new(0.0),
                false => T::new(1.0) / square.sqrt(),
            }
        };
        let inverse = rows.iter().map(inverse).collect();
        Rows { rows, inverse }
    }

    /// What the label of row `i` says: itself, its weight, its margin.
    fn label(&self, config: &MarginSoftmaxConfig, i: usize, classes: usize) -> (Label, f32, Terms) {
        let label = self.labels.at([i]);
        let t = label as usize;
        let (margin, none) = (config.margin, (Label::None, 0.0, config.margin.terms()));
        if label == u32::MAX {
            return none;
        }
        if t >= classes {
            return (Label::Unknown, none.1, none.2);
        }
        let given =
            self.class_margins.map(|margins| margins.at([t])).or(self.row_margins.map(|margins| margins.at([i])));
        let margin = given.and_then(|m| margin.with(m)).unwrap_or(margin);
        let weight = self.class_weights.map_or(1.0, |weights| weights.at([t]));
        let label = if weight.is_finite() && margin.check().is_ok() { Label::Class(t) } else { Label::Unknown };
        (label, weight, margin.terms())
    }

    /// Row `i`.
    pub fn row<T: Real>(
        &self,
        config: &MarginSoftmaxConfig,
        [features, weights]: [&Rows<T>; 2],
        i: usize,
        order: SumOrder,
    ) -> Row<T> {
        let centres = config.centres as usize;
        let classes = weights.rows.len() / centres;
        let feature = &features.rows[i];
        let dims = order.indices(feature.len());
        let cosine = |w: usize| {
            let product = dims.iter().fold(T::new(0.0), |sum, &c| sum + feature[c] * weights.rows[w][c]);
            product * features.inverse[i] * weights.inverse[w]
        };
        let (label, weight, terms) = self.label(config, i, classes);
        let mut row = Row {
            label,
            broken: label == Label::Unknown,
            weight: T::new(weight.into()),
            terms,
            cosines: Vec::with_capacity(classes),
            winners: Vec::with_capacity(classes),
            plain: Vec::with_capacity(classes),
            logits: Vec::with_capacity(classes),
        };
        for j in 0..classes {
            let own: Vec<T> = (j * centres..(j + 1) * centres).map(cosine).collect();
            let best = (1..centres).fold(0, |best, k| if own[k] > own[best] { k } else { best });
            // What is NaN shows, wherever it is.
            let nan = own.iter().copied().find(|c| c.to_f64().is_nan());
            let c = nan.unwrap_or(own[best]);
            let logit = |x: T| {
                let product = T::new(config.scale.into()) * x;
                self.bias.map_or(product, |bias| product + T::new(bias.at([j]).into()))
            };
            row.cosines.push(c);
            row.winners.push(j * centres + best);
            row.plain.push(logit(terms.other(c)[0]));
            let is_target = label == Label::Class(j);
            row.logits.push(logit(if is_target { terms.target(c)[0] } else { terms.other(c)[0] }));
        }
        row.broken |= row.logits.iter().chain(&row.plain).any(|logit| !logit.to_f64().is_finite());
        row
    }
}

impl<'a> HostInputs<'a> {
    pub(super) fn call(&self) -> Call<'a> {
        let Self { features, weights, labels, bias, class_weights, class_margins, row_margins, .. } = *self;
        Call { features, weights, labels, bias, class_weights, class_margins, row_margins }
    }
}

/// The loss in f64.
///
/// # Errors
/// As [`HostInputs::shapes`].
pub fn margin_softmax(config: &MarginSoftmaxConfig, inputs: &HostInputs) -> Result<HostOutputs<f64>> {
    margin_softmax_in(config, inputs, SumOrder::InOrder)
}

/// [`margin_softmax`] in another arithmetic or order of summation.
///
/// # Errors
/// As [`margin_softmax`].
pub fn margin_softmax_in<T: Real>(
    config: &MarginSoftmaxConfig,
    inputs: &HostInputs,
    order: SumOrder,
) -> Result<HostOutputs<T>> {
    let rows = inputs.shapes(config)?.rows as usize;
    let call = inputs.call();
    let listed = inputs.sampled.map(|sampled| Gathered::of(config, &call, sampled));
    let call = listed.as_ref().map_or(Ok(call), |listed| listed.call(&inputs.call()))?;
    let [features, weights] = [call.features, call.weights].map(|tensor| Call::rows_of::<T>(config, tensor, order));
    let mut out = HostOutputs {
        loss: Vec::new(),
        lse: Vec::new(),
        entropy: Vec::new(),
        predicted: Vec::new(),
        others: Vec::new(),
        logits: Vec::new(),
    };
    let mut weighed = Vec::with_capacity(rows);
    for i in 0..rows {
        let row = call.row(config, [&features, &weights], i, order);
        let is_nan = row.plain.iter().any(|logit| !logit.to_f64().is_finite());
        let best = (1..row.plain.len()).fold(0, |best, j| if row.plain[j] > row.plain[best] { j } else { best });
        let best = listed.as_ref().map_or(best as u32, |listed| listed.classes[best]);
        out.predicted.push(if is_nan { u32::MAX } else { best });
        let result = Statistics::of(config, &row, order);
        out.loss.push(result.loss);
        out.lse.push(result.lse);
        out.entropy.push(result.entropy);
        out.others.push(result.others);
        weighed.push(if row.label == Label::None { T::new(0.0) } else { row.weight });
        if listed.is_none() {
            out.logits.extend(row.plain);
        }
    }
    let zero = T::new(0.0);
    let all = |of: &[T]| order.indices(rows).into_iter().fold(zero, |sum, i| sum + of[i]);
    out.loss = match (config.reduction, all(&weighed)) {
        (Reduction::None, _) => out.loss,
        (Reduction::Sum, _) => vec![all(&out.loss)],
        (Reduction::Mean, weights) => {
            let sum = all(&out.loss);
            vec![if weights == zero { T::new(0.0) * sum } else { sum / weights }]
        }
    };
    Ok(out)
}

/// The numbers of one row.
struct Statistics<T> {
    loss: T,
    lse: T,
    entropy: T,
    others: T,
}

impl<T: Real> Statistics<T> {
    fn of(config: &MarginSoftmaxConfig, row: &Row<T>, order: SumOrder) -> Self {
        let [zero, one, nan] = [0.0, 1.0, f64::NAN].map(T::new);
        let lowest = T::new(f64::NEG_INFINITY);
        let is_none = row.label == Label::None;
        if row.broken {
            return Self { loss: if is_none { zero } else { nan }, lse: nan, entropy: nan, others: nan };
        }
        let columns = order.indices(row.logits.len());
        let is_target = |j: usize| row.label == Label::Class(j);
        let sum = |terms: &mut dyn Iterator<Item = T>| terms.fold(zero, |sum, term| sum + term);
        let top = row.logits.iter().copied().fold(row.logits[0], Real::max);
        let below = |j: usize| row.logits[j] - top;
        let total = sum(&mut columns.iter().map(|&j| below(j).exp()));
        let mixed = sum(&mut columns.iter().map(|&j| below(j).exp() * below(j)));
        let lse = top + total.ln();
        let entropy = total.ln() - mixed / total;

        // The others relative to the largest of their own.
        let others = || columns.iter().copied().filter(|&j| !is_target(j));
        let largest = others().map(|j| row.logits[j]).reduce(Real::max);
        let (above, loss) = match (row.label, largest) {
            (Label::Class(t), Some(largest)) => {
                let rest = sum(&mut others().map(|j| (row.logits[j] - largest).exp()));
                let above = largest - row.logits[t] + rest.ln();
                (above, above.max(zero) + (one + (-above.max(-above)).exp()).ln())
            }
            _ => (lowest, zero),
        };
        if is_none {
            return Self { loss: zero, lse, entropy, others: lowest };
        }
        let distance = sum(&mut columns.iter().map(|&j| top - row.logits[j])) / T::new(columns.len() as f64);
        let [smoothing, z_loss] = [config.label_smoothing, config.z_loss].map(|x| T::new(x.into()));
        let mut whole = (one - smoothing) * loss;
        if config.label_smoothing > 0.0 {
            whole += smoothing * (total.ln() + distance);
        }
        if config.z_loss > 0.0 {
            whole += z_loss * lse * lse;
        }
        Self { loss: row.weight * whole, lse, entropy, others: above }
    }
}

/// All outputs, by name.
pub(super) fn by_name<T: Real>(
    config: &MarginSoftmaxConfig,
    inputs: &HostInputs,
    order: SumOrder,
) -> Result<Vec<(&'static str, Vec<T>)>> {
    let HostOutputs { loss, lse, entropy, predicted, others, logits } = margin_softmax_in(config, inputs, order)?;
    let predicted = predicted.into_iter().map(|class| T::new(class.into())).collect();
    let logits = inputs.sampled.is_none().then_some(("logits", logits));
    let rows = [("loss", loss), ("lse", lse), ("entropy", entropy), ("predicted", predicted), ("others", others)];
    Ok(rows.into_iter().chain(logits).collect())
}
