//! The types that tensors are made of, and how kernels find them in memory.

/// The type of a tensor's elements in GPU memory.
///
/// An output in 16 bits is rounded to nearest even, and no two of its rows may share a 32-bit word: it starts at an even element,
/// with even strides. [`F16`](Self::F16) on a device with [`SHADER_F16`](wgpu::Features::SHADER_F16) may lie anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DType {
    /// 32-bit float.
    F32,
    /// 16-bit float: 5 bits of exponent, 10 of fraction. Nothing above 65504.
    F16,
    /// The upper half of an f32: its range, 7 bits of fraction.
    BF16,
    /// 32-bit unsigned integer: lengths, numbers of classes.
    U32,
    /// One byte; zero is false, anything else true: masks.
    Bool,
}

impl DType {
    /// The types that any float operand may be stored in.
    pub(crate) const FLOATS: &'static str = "F32, F16 or BF16";

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::U32 => "U32",
            Self::Bool => "Bool",
        }
    }

    /// Bytes per element.
    #[must_use]
    pub const fn size(self) -> u64 {
        match self {
            Self::F32 | Self::U32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::Bool => 1,
        }
    }
}

/// How a kernel finds a tensor's elements in its buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Storage {
    /// A WGSL type of their own: f32, u32, or bytes that the kernel takes apart itself.
    Plain(DType),
    /// The same for f32 in a buffer that the kernel also writes: wgpu binds that to be written wherever it stands.
    Shared,
    /// The WGSL type f16, which a device may have.
    NativeF16,
    /// Two f16 to a word.
    PackedF16,
    /// Two bf16 to a word.
    PackedBF16,
}

impl Storage {
    /// Bytes per element.
    #[must_use]
    pub const fn size(self) -> u64 {
        match self {
            Self::Plain(dtype) => dtype.size(),
            Self::Shared => DType::F32.size(),
            Self::NativeF16 | Self::PackedF16 | Self::PackedBF16 => 2,
        }
    }
}

/// A Rust type that tensors are made of.
pub trait Element: bytemuck::NoUninit {
    /// How it lies in GPU memory.
    const DTYPE: DType;
}

impl Element for f32 {
    const DTYPE: DType = DType::F32;
}

impl Element for u32 {
    const DTYPE: DType = DType::U32;
}

impl Element for u8 {
    const DTYPE: DType = DType::Bool;
}

impl Element for half::f16 {
    const DTYPE: DType = DType::F16;
}

impl Element for half::bf16 {
    const DTYPE: DType = DType::BF16;
}
