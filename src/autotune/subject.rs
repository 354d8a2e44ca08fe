//! A call that is measured: its operands, filled at random, and the check of a candidate's result against the default's.

use crate::context::Context;
use crate::dispatch::{Plan, Prepared};
use crate::reference::split_mix;
use crate::tensor::{Bound, Layout, product};
use crate::{Error, Result};
use std::sync::Arc;

/// A call of contiguous tensors, made by its op.
pub(crate) struct Subject {
    /// The class of calls that it stands for.
    pub class: String,
    /// What a tuning may take for it, by name, kernel by kernel: no two the same, and none the default.
    pub offers: Vec<Vec<String>>,
    pub operands: Vec<Operand>,
    /// Whether its products are of f16, rounded in another order by each kernel.
    pub in_f16: bool,
    pub plan: PlanIn,
}

/// Plans the call by a context's tuning.
type PlanIn = Box<dyn Fn(&Context) -> Result<Plan>>;

/// An operand, by its slot.
pub(crate) struct Operand {
    slot: usize,
    elements: u64,
    content: Content,
}

/// What an operand holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Content {
    /// f32 near a standard normal distribution.
    Normal,
    /// The same without signs.
    Positive,
    /// The same f32 everywhere.
    Constant(f32),
    /// The same u32 everywhere.
    Length(u32),
    /// Bytes of which one in eight is 0.
    Mask,
    /// f32, compared.
    Output,
}

impl Operand {
    pub fn new<const RANK: usize>(slot: usize, layout: &Layout<RANK>, content: Content) -> Self {
        Self { slot, elements: product(layout.shape), content }
    }
}

/// Operands on the device.
pub(super) struct Tensors {
    /// By slot.
    buffers: Vec<Option<wgpu::Buffer>>,
    outputs: Vec<usize>,
}

impl Tensors {
    pub fn new(context: &Context, operands: &[Operand]) -> Result<Self> {
        let slots = operands.iter().map(|operand| operand.slot + 1).max().unwrap_or(0);
        let mut tensors = Self { buffers: vec![None; slots], outputs: Vec::new() };
        for Operand { slot, elements, content } in operands {
            let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
            let element = if *content == Content::Mask { 1 } else { 4 };
            let size = elements.saturating_mul(element).max(4).checked_next_multiple_of(4).unwrap_or(u64::MAX - 3);
            let bytes = match content {
                Content::Output => Vec::new(),
                _ => content.bytes(size as usize / 4, *slot as u64),
            };
            tensors.buffers[*slot] = Some(context.create_buffer("tensor to measure with", size, usage, &bytes)?);
            tensors.outputs.extend((*content == Content::Output).then_some(*slot));
        }
        Ok(tensors)
    }

    pub fn prepare(&self, context: &Context, plan: Plan) -> Prepared<'_> {
        let bound = |buffer: &'_ wgpu::Buffer| (buffer.size(), 0);
        let operands = self.buffers.iter().map(|buffer| {
            let buffer = buffer.as_ref()?;
            let (size, offset) = bound(buffer);
            Some(Bound { buffer, offset, size })
        });
        Prepared::new(context, Arc::new(plan), &operands.collect::<Vec<_>>())
    }

    /// Runs a call on cleared outputs and reads them.
    pub fn results(&self, context: &Context, prepared: &Prepared<'_>) -> Result<Vec<Vec<f32>>> {
        let mut encoder = context.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let outputs = || self.outputs.iter().filter_map(|&slot| self.buffers[slot].as_ref());
        outputs().for_each(|buffer| encoder.clear_buffer(buffer, 0, None));
        context.queue().submit([encoder.finish()]);
        context.run(prepared)?;
        outputs().map(|buffer| context.download(buffer)).collect()
    }
}

impl Content {
    /// Some words of it.
    fn bytes(self, words: usize, seed: u64) -> Vec<u8> {
        let mut state = seed;
        let mut normal = || {
            // The sum of four even distributions.
            let bits = split_mix(&mut state);
            let sum: u64 = (0..4).map(|part| bits >> (16 * part) & 0xffff).sum();
            ((sum as f64 / 65_536.0 - 2.0) * 3f64.sqrt()) as f32
        };
        let mut word = |_| match self {
            Self::Normal => normal().to_bits(),
            Self::Positive => normal().abs().to_bits(),
            Self::Constant(value) => value.to_bits(),
            Self::Length(length) => length,
            Self::Mask => {
                let bytes = [(); 4].map(|()| u8::from(normal() > -1.15));
                u32::from_le_bytes(bytes)
            }
            Self::Output => 0,
        };
        (0..words).flat_map(|index| word(index).to_le_bytes()).collect()
    }
}

/// The root mean square of what two kernels that are both right may differ by, relative to that of their results: each may be
/// off by 1e-5 of the truth, and by what WGSL grants its exp and division; by 2e-3 with products of f16. For logarithms near
/// 0, in nats.
const RMS: f64 = 4e-5;
const RMS_IN_F16: f64 = 4e-3;
const ABSOLUTE: f64 = 4e-6;
/// A single number may be off by more.
const WORST: f64 = 16.0;

/// Whether a candidate's results are the default's, up to rounding.
pub(super) fn agree(in_f16: bool, default: &[Vec<f32>], candidate: &[Vec<f32>]) -> bool {
    let part = if in_f16 { RMS_IN_F16 } else { RMS };
    default.len() == candidate.len() && default.iter().zip(candidate).all(|(want, got)| tensor_agrees(part, want, got))
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
    matches!(error, Error::Readback(_) | Error::NoDevice(_))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_agrees_and_a_wrong_number_does_not() {
        let bytes = Content::Normal.bytes(1000, 1);
        let numbers: Vec<f32> = bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        let mean = numbers.iter().sum::<f32>() / 1000.0;
        let variance = numbers.iter().map(|x| x * x).sum::<f32>() / 1000.0;
        assert!(mean.abs() < 0.1 && (variance - 1.0).abs() < 0.1, "{mean} {variance}");
        let with = |change: &dyn Fn(usize, f32) -> f32| -> Vec<f32> {
            numbers.iter().enumerate().map(|(index, &x)| change(index, x)).collect()
        };
        let same = |other: Vec<f32>| agree(false, std::slice::from_ref(&numbers), &[other]);
        assert!(same(with(&|_, x| x * (1.0 + 1e-6))));
        assert!(!same(with(&|_, x| x * 1.001)));
        assert!(!same(with(&|index, x| if index == 500 { 0.0 } else { x })));
        assert!(!same(with(&|index, x| if index == 500 { f32::NAN } else { x })));
        assert!(!same(numbers[1..].to_vec()));
        let empty = [vec![f32::NEG_INFINITY, 1.0]];
        assert!(agree(false, &empty, &empty) && !agree(false, &empty, &[vec![0.0, 1.0]]));
        let visible = Content::Mask.bytes(1000, 2).iter().filter(|&&byte| byte == 1).count();
        assert!((3200..3800).contains(&visible), "{visible} of 4000");
    }
}
