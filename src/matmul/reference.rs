//! The CPU twin of the matrix product: plain loops over the formula.

use super::{Activation, MatMulConfig};
use crate::Result;
use crate::reference::{Real, SumOrder, check_row};

pub use super::HostInputs;

/// The whole result.
#[derive(Clone, Debug, PartialEq)]
pub struct HostOutputs<T> {
    /// `[batch, heads, m, n]`.
    pub c: Vec<T>,
}

/// The matrix product in f64.
///
/// # Errors
/// As [`HostInputs::shapes`].
pub fn matmul(config: &MatMulConfig, inputs: &HostInputs) -> Result<HostOutputs<f64>> {
    matmul_in(config, inputs, SumOrder::InOrder)
}

/// [`matmul`] in another arithmetic or order of summation.
///
/// # Errors
/// As [`matmul`].
pub fn matmul_in<T: Real>(config: &MatMulConfig, inputs: &HostInputs, order: SumOrder) -> Result<HostOutputs<T>> {
    let shapes = inputs.shapes(config)?;
    let mut c = Vec::new();
    for batch in 0..shapes.batch as usize {
        for head in 0..shapes.heads as usize {
            for row in 0..shapes.m as usize {
                c.extend(matmul_row::<T>(config, inputs, [batch, head, row], order)?);
            }
        }
    }
    Ok(HostOutputs { c })
}

/// The output, by name.
pub(super) fn by_name<T: Real>(
    config: &MatMulConfig,
    inputs: &HostInputs,
    order: SumOrder,
) -> Result<Vec<(&'static str, Vec<T>)>> {
    Ok(vec![("c", matmul_in(config, inputs, order)?.c)])
}

/// The row `[batch, head, row]` of the product.
///
/// # Errors
/// As [`matmul`], and where the row is outside the shapes.
pub fn matmul_row<T: Real>(
    config: &MatMulConfig,
    inputs: &HostInputs,
    [batch, head, row]: [usize; 3],
    order: SumOrder,
) -> Result<Vec<T>> {
    let shapes = inputs.shapes(config)?;
    check_row([batch, head, row], ["batch", "heads", "m"], [shapes.batch, shapes.heads, shapes.m])?;
    let real = |value: f32| T::new(value.into());
    let mut sums = vec![T::new(0.0); shapes.n as usize];
    for k in order.indices(shapes.k as usize) {
        let a = real(inputs.a.at([batch, head, row, k]));
        for (column, sum) in sums.iter_mut().enumerate() {
            *sum += a * real(inputs.b.at([batch, head, k, column]));
        }
    }
    for (column, sum) in sums.iter_mut().enumerate() {
        if let Some(bias) = inputs.bias {
            *sum += real(bias.at([batch, head, row, column]));
        }
        *sum = match inputs.dc {
            Some(dc) => real(dc.at([batch, head, row, column])) * slope(config.activation, *sum),
            None => activate(config.activation, *sum),
        };
    }
    Ok(sums)
}

fn activate<T: Real>(activation: Activation, x: T) -> T {
    let number = T::new;
    match activation {
        Activation::None => x,
        Activation::Relu => x.max(number(0.0)),
        Activation::Silu => x / (number(1.0) + (-x).exp()),
        Activation::GeluTanh => {
            let u = number((2.0 / std::f64::consts::PI).sqrt()) * (x + number(0.044_715) * x * x * x);
            x / (number(1.0) + (-(u + u)).exp())
        }
    }
}

/// The derivative of [`activate`].
fn slope<T: Real>(activation: Activation, x: T) -> T {
    let number = T::new;
    let gate = |x: T| number(1.0) / (number(1.0) + (-x).exp());
    match activation {
        Activation::None => number(1.0),
        Activation::Relu if x > number(0.0) => number(1.0),
        Activation::Relu => x.max(number(0.0)),
        Activation::Silu => gate(x) + x * gate(x) * gate(-x),
        Activation::GeluTanh => {
            let root = number((2.0 / std::f64::consts::PI).sqrt());
            let u = root * (x + number(0.044_715) * x * x * x);
            let twice_du = root * (number(2.0) + number(6.0 * 0.044_715) * x * x);
            gate(u + u) + x * twice_du * gate(u + u) * gate(-(u + u))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HostView;

    fn activated(activation: Activation, x: f32) -> f64 {
        let (x, one) = ([x], [1.0]);
        let view = |data| HostView::new(data, [1, 1, 1, 1]).expect("one element");
        let inputs = HostInputs::new(view(&x), view(&one));
        matmul(&MatMulConfig::new().activation(activation), &inputs).expect("a product").c[0]
    }

    #[test]
    fn a_product_by_hand() {
        let a = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let b = [1.0, 0.0, -1.0, 2.0, 0.5, 3.0];
        let bias = [10.0, 20.0];
        let mut inputs = HostInputs::new(
            HostView::new(&a, [1, 1, 2, 3]).expect("2 x 3"),
            HostView::new(&b, [1, 1, 3, 2]).expect("3 x 2"),
        );
        inputs.bias = Some(HostView::new(&bias, [1, 1, 1, 2]).expect("a row").broadcast_to([1, 1, 2, 2]));
        let c = matmul(&MatMulConfig::new(), &inputs).expect("a product").c;
        assert_eq!(c, [1.0 - 2.0 + 1.5 + 10.0, 4.0 + 9.0 + 20.0, 4.0 - 5.0 + 3.0 + 10.0, 10.0 + 18.0 + 20.0]);
        // (a b)T = bT aT.
        let transposed = HostInputs::new(inputs.b.swap_axes(2, 3), inputs.a.swap_axes(2, 3));
        let c = matmul(&MatMulConfig::new(), &transposed).expect("a product").c;
        assert_eq!(c, [0.5, 2.0, 13.0, 28.0]);
    }

    #[test]
    fn activations_have_their_known_values() {
        let near = |activation, x, want: f64| {
            let got = activated(activation, x);
            assert!((got - want).abs() < 1e-7, "{activation:?}({x}): got {got}, want {want}");
        };
        near(Activation::Relu, -2.0, 0.0);
        near(Activation::Relu, 2.0, 2.0);
        near(Activation::Silu, 1.0, 0.731_058_578_6);
        near(Activation::Silu, -1000.0, 0.0);
        // 0.5 x (1 + tanh(...)), by hand.
        near(Activation::GeluTanh, 1.0, 0.841_191_990_6);
        near(Activation::GeluTanh, -1.0, -0.158_808_009_4);
        near(Activation::GeluTanh, 1000.0, 1000.0);
    }
}
