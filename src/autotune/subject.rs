//! A call that is measured: its operands, filled at random, and the check of a candidate's result against the default's.

use crate::context::Context;
use crate::dispatch::{Plan, Prepared};
use crate::dtype::Storage;
use crate::op::{self, Access, Kernels, Kind, Operand};
use crate::operand::Fill;
use crate::reference::split_mix;
use crate::tensor::{Bound, Layout, product};
use crate::{DType, Error, Result};
use std::sync::Arc;

/// A call of contiguous tensors.
pub(super) struct Subject {
    /// The class of calls that it stands for.
    pub class: String,
    /// What a tuning may take for it, by name, kernel by kernel: no two the same, and none the default.
    pub offers: Vec<Vec<String>>,
    /// The operands that are given, none where there is nothing to compute.
    pub operands: Vec<Tensor>,
    /// Whether its products are of f16, rounded in another order by each kernel.
    pub in_f16: bool,
    pub plan: PlanIn,
}

/// Plans the call by a context's tuning.
type PlanIn = Box<dyn Fn(&Context) -> Result<Plan>>;

impl Subject {
    /// The call of an op. A state that goes in and out lies in two places, so that a call can be repeated.
    pub fn of<O: Kernels>(context: &Context, config: O::Config, shapes: O::Shapes, dtype: DType) -> Result<Self> {
        O::check_config(&config)?;
        let mut problem = op::problem::<O>(context, &config, &shapes, dtype)?;
        problem.in_place = false;
        op::plan::<O>(context, &config, &problem)?;
        let length = op::Shapes::axis(&shapes, "kv_len").unwrap_or(0);
        let computes = problem.given().all(|(.., layout)| product(layout.shape().iter().copied()) > 0);
        let given = problem.given().filter(|_| computes);
        let operands = given.map(|(_, row, layout)| Tensor::new(row, layout, length)).collect();
        Ok(Self {
            class: O::class(&config, &problem),
            offers: O::candidates(&config, &problem, context.capabilities())?,
            operands,
            in_f16: O::in_f16(&config),
            plan: Box::new(move |context| op::plan::<O>(context, &config, &problem)),
        })
    }
}

/// An operand.
pub(super) struct Tensor {
    elements: u64,
    /// Of numbers; lengths and masks have types of their own.
    dtype: DType,
    content: Content,
}

/// What an operand holds.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Content {
    Numbers(Fill),
    /// The same u32 everywhere.
    Length(u32),
    /// Bytes of which one in eight is 0.
    Mask,
    /// Compared.
    Output,
}

impl Tensor {
    fn new(row: &Operand, layout: &Layout, length: u32) -> Self {
        let dtype = match layout.storage {
            Storage::Plain(dtype) => dtype,
            Storage::Shared => DType::F32,
            Storage::NativeF16 | Storage::PackedF16 => DType::F16,
            Storage::PackedBF16 => DType::BF16,
        };
        let content = match (row.access, row.kind) {
            (Access::Write, _) => Content::Output,
            (Access::Read, Kind::Lengths) => Content::Length(length),
            (Access::Read, Kind::Index | Kind::Bits) => Content::Length(0),
            (Access::Read, Kind::Mask) => Content::Mask,
            (Access::Read, _) => Content::Numbers(row.fill),
        };
        Self { elements: product(layout.shape().iter().copied()), dtype, content }
    }
}

/// Operands on the device.
pub(super) struct Tensors {
    /// In the order in which the problem has them.
    buffers: Vec<wgpu::Buffer>,
    outputs: Vec<(usize, DType)>,
}

impl Tensors {
    pub fn new(context: &Context, operands: &[Tensor]) -> Result<Self> {
        let mut tensors = Self { buffers: Vec::new(), outputs: Vec::new() };
        for (slot, Tensor { elements, dtype, content }) in operands.iter().enumerate() {
            let elements = usize::try_from(*elements).unwrap_or(usize::MAX);
            let buffer = match content {
                Content::Length(length) => context.upload(&vec![*length; elements]),
                Content::Mask => context.upload(&content.numbers(elements, 1).map(|x| x as u8).collect::<Vec<_>>()),
                Content::Output if *dtype == DType::U32 => context.allocate(elements),
                Content::Output => context.upload_as(&vec![0.0; elements], *dtype)?,
                _ => context.upload_as(&content.numbers(elements, slot as u64).collect::<Vec<_>>(), *dtype)?,
            };
            if buffer.size() == 0 {
                let size = (elements as u64).saturating_mul(dtype.size());
                let message = "the device has no room".into();
                return Err(Error::Buffer { what: "tensor to measure with".into(), size, message });
            }
            tensors.buffers.push(buffer);
            tensors.outputs.extend((*content == Content::Output).then_some((slot, *dtype)));
        }
        Ok(tensors)
    }

    pub fn prepare(&self, context: &Context, plan: Plan) -> Prepared<'_> {
        let operands = self.buffers.iter().map(|buffer| Bound { buffer, offset: 0, size: buffer.size() });
        Prepared::new(context, Arc::new(plan), operands.collect())
    }

    /// Runs a call on cleared outputs and reads them.
    pub fn results(&self, context: &Context, prepared: &Prepared<'_>) -> Result<Vec<Output>> {
        let outputs = || self.outputs.iter().map(|&(slot, dtype)| (&self.buffers[slot], dtype));
        let clear = || {
            let mut encoder = context.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            outputs().for_each(|(buffer, _)| encoder.clear_buffer(buffer, 0, None));
            context.queue().submit([encoder.finish()]);
        };
        context.scoped(clear, Error::Readback)?;
        context.run(prepared)?;
        let read = |(buffer, dtype)| match dtype {
            DType::U32 => Ok((dtype, context.download_u32(buffer)?.into_iter().map(|number| number as f32).collect())),
            _ => Ok((dtype, context.download_as(buffer, dtype)?)),
        };
        outputs().map(read).collect()
    }
}

/// How an output is stored, and its numbers.
pub(super) type Output = (DType, Vec<f32>);

impl Content {
    /// So many numbers of it.
    fn numbers(self, count: usize, seed: u64) -> impl Iterator<Item = f32> {
        let mut state = seed;
        let mut normal = move || {
            // The sum of four even distributions.
            let bits = split_mix(&mut state);
            let sum: u64 = (0..4).map(|part| bits >> (16 * part) & 0xffff).sum();
            ((sum as f64 / 65_536.0 - 2.0) * 3f64.sqrt()) as f32
        };
        (0..count).map(move |_| match self {
            Self::Numbers(Fill::Usual) => normal(),
            Self::Numbers(Fill::Positive) => normal().abs(),
            Self::Numbers(Fill::Constant(value)) => value,
            Self::Mask => f32::from(u8::from(normal() > -1.15)),
            Self::Length(_) | Self::Output => 0.0,
        })
    }
}

/// The root mean square of what two kernels that are both right may differ by, relative to that of their results: each may be
/// off by 1e-5 of the truth, and by what WGSL grants its exp and division; by 2e-3 with products of f16; and by the rounding of
/// what is stored. For logarithms near 0, in nats.
fn granted(in_f16: bool, dtype: DType) -> f64 {
    let products = if in_f16 { 4e-3 } else { 4e-5 };
    match dtype {
        DType::F16 => products + 1e-3,
        DType::BF16 => products + 8e-3,
        DType::F32 | DType::U32 | DType::Bool => products,
    }
}
const ABSOLUTE: f64 = 4e-6;
/// A single number may be off by more.
const WORST: f64 = 16.0;

/// Whether a kernel has refused its subgroups: nothing that goes in is NaN.
pub(super) fn has_nan(results: &[Output]) -> bool {
    results.iter().any(|(_, numbers)| numbers.iter().any(|number| number.is_nan()))
}

/// Whether a candidate's results are the default's, up to rounding.
pub(super) fn agree(in_f16: bool, default: &[Output], candidate: &[Output]) -> bool {
    let same = |((dtype, want), (_, got)): (&Output, &Output)| tensor_agrees(granted(in_f16, *dtype), want, got);
    default.len() == candidate.len() && default.iter().zip(candidate).all(same)
}

fn tensor_agrees(part: f64, want: &[f32], got: &[f32]) -> bool {
    let pairs = || want.iter().zip(got);
    // Empty rows have a log-sum-exp of minus infinity.
    let both_finite = |(want, got): (&f32, &f32)| want.is_finite() && got.is_finite();
    if want.len() != got.len() || !pairs().all(|pair| both_finite(pair) || pair.0.to_bits() == pair.1.to_bits()) {
        return false;
    }
    let (mut squares, mut differences, mut largest, mut worst) = (0.0, 0.0, 0f64, 0f64);
    for (&want, &got) in pairs().filter(|&pair| both_finite(pair)) {
        let (want, difference) = (f64::from(want), f64::from(got) - f64::from(want));
        squares += want * want;
        differences += difference * difference;
        largest = largest.max(want.abs());
        worst = worst.max(difference.abs());
    }
    let count = want.len().max(1) as f64;
    let rms = |squares: f64| (squares / count).sqrt();
    rms(differences) <= part * rms(squares) + ABSOLUTE && worst <= WORST * (part * largest + ABSOLUTE)
}

/// What is missing to a device that has lost its way.
pub(super) fn is_fatal(error: &Error) -> bool {
    matches!(error, Error::DeviceLost | Error::Readback(_) | Error::NoDevice(_))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_agrees_and_a_wrong_number_does_not() {
        let numbers: Vec<f32> = Content::Numbers(Fill::Usual).numbers(1000, 1).collect();
        let mean = numbers.iter().sum::<f32>() / 1000.0;
        let variance = numbers.iter().map(|x| x * x).sum::<f32>() / 1000.0;
        assert!(mean.abs() < 0.1 && (variance - 1.0).abs() < 0.1, "{mean} {variance}");
        let with = |change: &dyn Fn(usize, f32) -> f32| -> Vec<f32> {
            numbers.iter().enumerate().map(|(index, &x)| change(index, x)).collect()
        };
        let output = |numbers: Vec<f32>| [(DType::F32, numbers)];
        let same = |other| agree(false, &output(numbers.clone()), &output(other));
        assert!(same(with(&|_, x| x * (1.0 + 1e-6))));
        assert!(!same(with(&|_, x| x * 1.001)));
        assert!(!same(with(&|index, x| if index == 500 { 0.0 } else { x })));
        assert!(!same(with(&|index, x| if index == 500 { f32::NAN } else { x })));
        assert!(!same(numbers[1..].to_vec()));
        let stored = |dtype| agree(false, &[(dtype, numbers.clone())], &[(dtype, with(&|_, x| x * 1.0005))]);
        assert!(stored(DType::F16) && stored(DType::BF16) && !stored(DType::F32));
        let empty = output(vec![f32::NEG_INFINITY, 1.0]);
        assert!(agree(false, &empty, &empty) && !agree(false, &empty, &output(vec![0.0, 1.0])));
        let visible = Content::Mask.numbers(4000, 2).filter(|&byte| byte == 1.0).count();
        assert!((3200..3800).contains(&visible), "{visible} of 4000");
    }
}
