//! Numbers in the types that tensors are stored as.

use wgpu_attention::half::{bf16, f16};
use wgpu_attention::{Context, DType, wgpu};

pub use super::dtype::{Stored, name};

/// What is left of numbers that are stored as `dtype`.
pub fn round(numbers: &mut [f32], dtype: DType) {
    let stored = |x: f32| match dtype {
        DType::F16 => f16::from_f32(x).to_f32(),
        DType::BF16 => bf16::from_f32(x).to_f32(),
        _ => x,
    };
    numbers.iter_mut().for_each(|x| *x = stored(*x));
}

/// What that adds to the error of a number: relative to it, and in absolute terms.
pub fn rounding(dtype: DType) -> [f64; 2] {
    match dtype {
        DType::F16 => [1.0 / f64::from(1 << 11), 1.0 / f64::from(1 << 25)],
        DType::BF16 => [1.0 / f64::from(1 << 8), 0.0],
        _ => [0.0; 2],
    }
}

/// A buffer for so many numbers of this type.
pub fn allocate(context: &Context, elements: usize, dtype: DType) -> wgpu::Buffer {
    context.allocate((elements as u64 * dtype.size()).div_ceil(4) as usize)
}
