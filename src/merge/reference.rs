//! The CPU twin of the merge: plain loops over the formula.

use super::plan::{PART_AXES, ROW_AXES};
use super::{MergeConfig, MergeShapes, TensorShapes};
use crate::host::HostView;
use crate::reference::{Real, SumOrder};
use crate::{Error, Result};

/// The inputs of a merge in host memory; see [`MergeInputs`](crate::MergeInputs) for shapes.
#[derive(Clone, Copy, Debug)]
pub struct HostInputs<'a> {
    /// Partial outputs.
    pub o_parts: HostView<'a, f32, 5>,
    /// Their log-sum-exp.
    pub lse_parts: HostView<'a, f32, 4>,
    /// Their entropy.
    pub entropy_parts: Option<HostView<'a, f32, 4>>,
    /// What the outputs hold, where the config says to accumulate.
    pub held: Option<Held<'a>>,
}

/// What the outputs hold before an accumulating merge.
#[derive(Clone, Copy, Debug)]
pub struct Held<'a> {
    /// `[batch, heads, len, v_dim]`.
    pub o: HostView<'a, f32, 4>,
    /// `[batch, heads, len]`.
    pub lse: HostView<'a, f32, 3>,
    /// `[batch, heads, len]`, if the parts have an entropy.
    pub entropy: Option<HostView<'a, f32, 3>>,
}

impl<'a> HostInputs<'a> {
    /// Partial outputs and their log-sum-exp, and nothing optional.
    #[must_use]
    pub fn new(o_parts: HostView<'a, f32, 5>, lse_parts: HostView<'a, f32, 4>) -> Self {
        Self { o_parts, lse_parts, entropy_parts: None, held: None }
    }

    /// The problem's sizes.
    ///
    /// # Errors
    /// As [`Merge::prepare`](crate::Merge::prepare), for what concerns shapes.
    pub fn shapes(&self, config: &MergeConfig) -> Result<MergeShapes> {
        let o_parts = self.o_parts.shape_u32("o_parts", &PART_AXES)?;
        let [_, batch, heads, len, _] = o_parts;
        let entropy_parts = self.entropy_parts.map(|view| view.shape_u32("entropy_parts", &PART_AXES)).transpose()?;
        if config.accumulate != self.held.is_some() {
            let problem = if config.accumulate { "is missing, but accumulate is on" } else { "is given, but not used" };
            return Err(Error::Operand { tensor: "held", problem: problem.into() });
        }
        TensorShapes {
            o_parts,
            lse_parts: self.lse_parts.shape_u32("lse_parts", &PART_AXES)?,
            entropy_parts,
            o: self.held.map(|held| held.o.shape_u32("o", &ROW_AXES)).transpose()?,
            lse: Some(match self.held {
                Some(held) => held.lse.shape_u32("lse", &ROW_AXES)?,
                None => [batch, heads, len],
            }),
            entropy: match self.held {
                Some(held) => held.entropy.map(|view| view.shape_u32("entropy", &ROW_AXES)).transpose()?,
                None => entropy_parts.map(|_| [batch, heads, len]),
            },
        }
        .check(config)
    }
}

/// The whole result, rows in the order of `[batch, heads, len]`.
#[derive(Clone, Debug, PartialEq)]
pub struct HostOutputs<T> {
    /// `[batch, heads, len, v_dim]`.
    pub o: Vec<T>,
    /// `[batch, heads, len]`.
    pub lse: Vec<T>,
    /// `[batch, heads, len]`; empty if the parts have none.
    pub entropy: Vec<T>,
}

/// The merge in f64.
///
/// # Errors
/// As [`HostInputs::shapes`].
pub fn merge(config: &MergeConfig, inputs: &HostInputs) -> Result<HostOutputs<f64>> {
    merge_in(config, inputs, SumOrder::InOrder)
}

/// [`merge`] in another arithmetic or order of summation.
///
/// # Errors
/// As [`merge`].
pub fn merge_in<T: Real>(config: &MergeConfig, inputs: &HostInputs, order: SumOrder) -> Result<HostOutputs<T>> {
    let shapes = inputs.shapes(config)?;
    let real = |value: f32| T::new(value.into());
    let [parts, v_dim] = [shapes.parts, shapes.v_dim].map(|extent| extent as usize);
    let mut out = HostOutputs { o: Vec::new(), lse: Vec::new(), entropy: Vec::new() };
    for b in 0..shapes.batch as usize {
        for h in 0..shapes.heads as usize {
            for i in 0..shapes.len as usize {
                // Part `parts` is what the outputs hold.
                let lse = |p: usize| match inputs.held {
                    Some(held) if p == parts => held.lse.at([b, h, i]),
                    _ => inputs.lse_parts.at([p, b, h, i]),
                };
                let o = |p: usize, c: usize| match inputs.held {
                    Some(held) if p == parts => held.o.at([b, h, i, c]),
                    _ => inputs.o_parts.at([p, b, h, i, c]),
                };
                let entropy = |p: usize| match inputs.held {
                    Some(held) if p == parts => held.entropy.map_or(0.0, |view| view.at([b, h, i])),
                    _ => inputs.entropy_parts.map_or(0.0, |view| view.at([p, b, h, i])),
                };
                let all = parts + usize::from(inputs.held.is_some());
                let mut seen = order.indices(all);
                seen.retain(|&p| lse(p) != f32::NEG_INFINITY);

                let largest = seen.iter().map(|&p| real(lse(p))).reduce(Real::max);
                let largest = largest.unwrap_or(T::new(f64::NEG_INFINITY));
                let (mut sum, mut mixed, mut row) = (T::new(0.0), T::new(0.0), vec![T::new(0.0); v_dim]);
                for &p in &seen {
                    let step_down = real(lse(p)) - largest;
                    let weight = step_down.exp();
                    sum += weight;
                    mixed += weight * (real(entropy(p)) - step_down);
                    for (c, x) in row.iter_mut().enumerate() {
                        *x += weight * real(o(p, c));
                    }
                }
                let empty = seen.is_empty();
                out.o.extend(row.into_iter().map(|x| if empty { x } else { x / sum }));
                out.lse.push(if empty { largest } else { largest + sum.ln() });
                if shapes.entropy {
                    out.entropy.push(if empty { mixed } else { mixed / sum + sum.ln() });
                }
            }
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_parts_by_hand() {
        // Three equal keys of score 0 and one of ln 3: weights 1/2 and 1/2.
        let (o, lse, entropy) = ([1.0, 4.0, 3.0, 8.0], [3.0_f32.ln(), 3.0_f32.ln()], [3.0_f32.ln(), 0.0]);
        let mut inputs = HostInputs::new(
            HostView::new(&o, [2, 1, 1, 1, 2]).expect("two parts"),
            HostView::new(&lse, [2, 1, 1, 1]).expect("two parts"),
        );
        inputs.entropy_parts = Some(HostView::new(&entropy, [2, 1, 1, 1]).expect("two parts"));
        let out = merge(&MergeConfig::new(), &inputs).expect("a merge");
        assert_eq!(out.o, [2.0, 6.0]);
        assert!((out.lse[0] - 6.0_f64.ln()).abs() < 1e-6);
        // Three weights of 1/6 and one of 1/2.
        assert!((out.entropy[0] - (0.5 * 6.0_f64.ln() + 0.5 * 2.0_f64.ln())).abs() < 1e-6);
    }

    #[test]
    fn what_sees_nothing_contributes_nothing() {
        let (o, lse) = ([f32::NAN, 5.0, 7.0], [f32::NEG_INFINITY, 2.0]);
        let parts = HostView::new(&o[..2], [2, 1, 1, 1, 1]).expect("two parts");
        let inputs = HostInputs::new(parts, HostView::new(&lse, [2, 1, 1, 1]).expect("two parts"));
        let out = merge(&MergeConfig::new(), &inputs).expect("a merge");
        assert_eq!((out.o, out.lse), (vec![5.0], vec![2.0]));
        let nothing = [f32::NEG_INFINITY];
        let part = HostView::new(&o[..1], [1, 1, 1, 1, 1]).expect("a part");
        let mut inputs = HostInputs::new(part, HostView::new(&nothing, [1, 1, 1, 1]).expect("a part"));
        let out = merge(&MergeConfig::new(), &inputs).expect("a merge");
        assert_eq!((out.o, out.lse), (vec![0.0], vec![f64::NEG_INFINITY]));
        let held_lse = [1.5];
        inputs.held = Some(Held {
            o: HostView::new(&o[2..], [1, 1, 1, 1]).expect("a row"),
            lse: HostView::new(&held_lse, [1, 1, 1]).expect("a row"),
            entropy: None,
        });
        let out = merge(&MergeConfig::new().accumulate(true), &inputs).expect("a merge");
        assert_eq!((out.o, out.lse), (vec![7.0], vec![1.5]));
    }
}
