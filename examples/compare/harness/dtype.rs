//! The types that tensors are stored as, as the command line and tables name them.

use clap::ValueEnum;
use wgpu_attention::DType;

/// What tensors are stored as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Stored {
    F32,
    F16,
    Bf16,
}

impl From<Stored> for DType {
    fn from(stored: Stored) -> Self {
        match stored {
            Stored::F32 => Self::F32,
            Stored::F16 => Self::F16,
            Stored::Bf16 => Self::BF16,
        }
    }
}

/// As tables and files name a type.
pub fn name(dtype: DType) -> &'static str {
    match dtype {
        DType::F16 => "f16",
        DType::BF16 => "bf16",
        _ => "f32",
    }
}
