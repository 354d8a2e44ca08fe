//! The tensors of a safetensors file, each taken once by name, rank and element type, so that none is ignored.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use safetensors::tensor::{Dtype, TensorView};
use wgpu_attention::half::{bf16, f16};
use wgpu_attention::{DType, Error, HostView};

/// Tensors by name, until an op takes them.
pub struct Tensors<'a> {
    left: BTreeMap<String, TensorView<'a>>,
    taken: Vec<&'static str>,
}

/// A tensor of known rank and element type.
pub struct Tensor<T, const RANK: usize> {
    data: Vec<T>,
    shape: [usize; RANK],
    dtype: DType,
}

impl<T: Copy, const RANK: usize> Tensor<T, RANK> {
    /// Its elements in row-major order.
    pub fn data(&self) -> &[T] {
        &self.data
    }

    /// What the file stores it as; of lengths and masks, what the library does.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    pub fn view(&self) -> Result<HostView<'_, T, RANK>> {
        Ok(HostView::new(&self.data, self.shape)?)
    }
}

impl<'a> Tensors<'a> {
    pub fn new(named: impl IntoIterator<Item = (String, TensorView<'a>)>) -> Self {
        Self { left: named.into_iter().collect(), taken: Vec::new() }
    }

    /// A tensor the op cannot do without.
    pub fn required<T: Load, const RANK: usize>(&mut self, name: &'static str) -> Result<Tensor<T, RANK>> {
        let missing = || Error::Operand { tensor: name, problem: "is missing".into() };
        Ok(self.optional(name)?.ok_or_else(missing)?)
    }

    /// A tensor the op can do without.
    pub fn optional<T: Load, const RANK: usize>(&mut self, name: &'static str) -> Result<Option<Tensor<T, RANK>>> {
        let Some(tensor) = self.take(name)? else { return Ok(None) };
        if tensor.shape().len() != RANK {
            bail!("{name}: expected {RANK} axes, got shape {:?}", tensor.shape());
        }
        load(name, &tensor).map(Some)
    }

    /// As [`optional`](Self::optional), and outer axes may be absent or of extent 1.
    pub fn broadcast<T: Load, const RANK: usize>(&mut self, name: &'static str) -> Result<Option<Tensor<T, RANK>>> {
        let Some(tensor) = self.take(name)? else { return Ok(None) };
        if tensor.shape().len() > RANK {
            bail!("{name}: expected at most {RANK} axes, got shape {:?}", tensor.shape());
        }
        load(name, &tensor).map(Some)
    }

    /// Refuses what no one took.
    pub fn finish(self, op: &str) -> Result<()> {
        let names: Vec<String> = self.left.into_keys().collect();
        if names.is_empty() {
            return Ok(());
        }
        bail!("{op} with this config takes no tensor {}; it takes {}", names.join(", "), self.taken.join(", "))
    }

    fn take(&mut self, name: &'static str) -> Result<Option<TensorView<'a>>> {
        self.taken.push(name);
        Ok(self.left.remove(name))
    }
}

/// Right-aligns the shape and converts the elements.
fn load<T: Load, const RANK: usize>(name: &str, tensor: &TensorView) -> Result<Tensor<T, RANK>> {
    let mut shape = [1; RANK];
    shape[RANK - tensor.shape().len()..].copy_from_slice(tensor.shape());
    let Some(data) = T::load(tensor.dtype(), tensor.data()) else {
        bail!("{name}: element type: expected {}, got {:?}", T::ACCEPTED, tensor.dtype());
    };
    Ok(Tensor { data: data.with_context(|| name.to_owned())?, shape, dtype: T::stored(tensor.dtype()) })
}

/// An element type of the library, and what a file may hold for it.
pub trait Load: Copy {
    /// The file's element types that can be converted.
    const ACCEPTED: &str;
    /// Converts, or says that the type is not accepted, or that a value does not fit.
    fn load(dtype: Dtype, bytes: &[u8]) -> Option<Result<Vec<Self>>>;
    /// What the GPU gets.
    fn stored(dtype: Dtype) -> DType;
}

impl Load for f32 {
    const ACCEPTED: &str = "F32, F16 or BF16";

    fn load(dtype: Dtype, bytes: &[u8]) -> Option<Result<Vec<Self>>> {
        Some(Ok(match dtype {
            Dtype::F32 => words(bytes).map(Self::from_le_bytes).collect(),
            Dtype::F16 => words(bytes).map(|word| f16::from_le_bytes(word).to_f32()).collect(),
            Dtype::BF16 => words(bytes).map(|word| bf16::from_le_bytes(word).to_f32()).collect(),
            _ => return None,
        }))
    }

    fn stored(dtype: Dtype) -> DType {
        match dtype {
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            _ => DType::F32,
        }
    }
}

impl Load for u32 {
    const ACCEPTED: &str = "U32, I32 or I64";

    fn load(dtype: Dtype, bytes: &[u8]) -> Option<Result<Vec<Self>>> {
        let checked = |value: i64| Self::try_from(value).with_context(|| format!("{value} does not fit u32"));
        Some(match dtype {
            Dtype::U32 => Ok(words(bytes).map(Self::from_le_bytes).collect()),
            Dtype::I32 => words(bytes).map(|word| checked(i32::from_le_bytes(word).into())).collect(),
            Dtype::I64 => words(bytes).map(|word| checked(i64::from_le_bytes(word))).collect(),
            _ => return None,
        })
    }

    fn stored(_: Dtype) -> DType {
        DType::U32
    }
}

impl Load for u8 {
    const ACCEPTED: &str = "BOOL or U8";

    fn load(dtype: Dtype, bytes: &[u8]) -> Option<Result<Vec<Self>>> {
        matches!(dtype, Dtype::BOOL | Dtype::U8).then(|| Ok(bytes.to_vec()))
    }

    fn stored(_: Dtype) -> DType {
        DType::Bool
    }
}

fn words<const SIZE: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; SIZE]> {
    bytes.chunks_exact(SIZE).map(|chunk| {
        let mut word = [0; SIZE];
        word.copy_from_slice(chunk);
        word
    })
}
