//! Where a tensor lies, and how it is stored.

use super::{MAX_RANK, contiguous_strides, product};
use crate::context::Capabilities;
use crate::dtype::{DType, Storage};
use crate::operand::{Access, Operand};
use crate::{Error, Result};

/// Where a checked tensor lies, as a kernel's `Params` hold it: all in elements, relative to the binding. Of a transposed matrix,
/// axes are in the order of its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Layout {
    pub start: u32,
    pub rank: usize,
    pub shape: [u32; MAX_RANK],
    pub strides: [u32; MAX_RANK],
    pub storage: Storage,
    /// Whether the last two axes stand in memory in the other order.
    pub transposed: bool,
}

impl Layout {
    /// A contiguous tensor at the start of its buffer, as [`Operands::add`] would lay it out.
    pub fn contiguous(shape: &[u32], storage: Storage) -> Self {
        let mut padded = [1; MAX_RANK];
        padded[MAX_RANK - shape.len()..].copy_from_slice(shape);
        let mut strides = contiguous_strides(padded);
        padded.rotate_left(MAX_RANK - shape.len());
        strides.rotate_left(MAX_RANK - shape.len());
        Self::new(0, shape.len(), padded, strides, storage)
    }

    pub(super) fn new(
        start: u32,
        rank: usize,
        shape: [u32; MAX_RANK],
        strides: [u64; MAX_RANK],
        storage: Storage,
    ) -> Self {
        // The span fits 32 bits, so does every stride that is used; an axis of extent 1 never uses its own.
        let used = |axis: usize| {
            if axis < rank && shape[axis] > 1 { strides[axis].min(u32::MAX.into()) as u32 } else { 0 }
        };
        Self { start, rank, shape, strides: std::array::from_fn(used), storage, transposed: false }
    }

    /// Extents, outermost first.
    #[cfg(feature = "blocking")]
    pub fn shape(&self) -> &[u32] {
        &self.shape[..self.rank]
    }

    /// Strides but the innermost.
    fn outer(&self) -> &[u32] {
        &self.strides[..self.rank - 1]
    }

    /// The same tensor in the type in which a caller stores it.
    pub fn stored(self, row: &Operand, dtype: DType, device: &Capabilities) -> Result<Self> {
        let native = device.features.contains(wgpu::Features::SHADER_F16);
        let read = row.access == Access::Read;
        let storage = match dtype {
            DType::F32 => Storage::Plain(dtype),
            // A native element is written alone, whatever the driver's rounding; packed ones are written as they are read.
            // Software drivers convert two halves of a word faster than native ones.
            DType::F16 if native && (!self.starts_words() || (read && !device.is_cpu)) => Storage::NativeF16,
            DType::F16 => Storage::PackedF16,
            DType::BF16 => Storage::PackedBF16,
            DType::U32 | DType::Bool => {
                return Err(Error::DType { tensor: row.name, expected: DType::FLOATS, got: dtype });
            }
        };
        if matches!(storage, Storage::PackedF16 | Storage::PackedBF16) && !read {
            self.expect_whole_words(row, dtype)?;
        }
        Ok(Self { storage, ..self })
    }

    /// Whether every row starts at a multiple of two elements.
    fn starts_words(&self) -> bool {
        self.start.is_multiple_of(2) && self.outer().iter().all(|stride| stride.is_multiple_of(2))
    }

    /// Refuses rows that share a word with others: whoever wrote one would write over the other.
    fn expect_whole_words(&self, row: &Operand, dtype: DType) -> Result<()> {
        if let Some(axis) = self.outer().iter().position(|stride| !stride.is_multiple_of(2)) {
            let expected = format!("a multiple of 2, as no two rows of {dtype:?} may share a 32-bit word");
            let got = self.strides[axis].into();
            return Err(Error::Stride { tensor: row.name, axis: row.axis(axis), expected, got });
        }
        if !self.start.is_multiple_of(2) {
            let problem =
                format!("its {dtype:?} start in the middle of a 32-bit word, which could not be written whole");
            return Err(Error::Operand { tensor: row.name, problem });
        }
        Ok(())
    }

    /// Refuses what no device could bind, for plans that are made without tensors.
    pub fn check(&self, name: &str, limits: &wgpu::Limits) -> Result<()> {
        let needed = product(self.shape).saturating_mul(self.storage.size());
        let limit = limits.max_storage_buffer_binding_size;
        if needed > limit {
            return Err(Error::LimitExceeded { what: format!("{name}: bytes in one binding"), needed, limit });
        }
        Ok(())
    }

    /// A list of tensors that together are this one, cut along the first axis where one binding does not hold it, but not within rows
    /// that belong together.
    pub fn bindable_parts(self, together: u32, limits: &wgpu::Limits) -> Vec<Self> {
        let most = limits.max_storage_buffer_binding_size / 4 * 4 / self.storage.size();
        let row = product(self.shape[1..self.rank].iter().copied());
        let rows = most.checked_div(row).unwrap_or(u64::MAX).min(u32::MAX.into()) as u32;
        let rows = (rows / together * together).max(together);
        let whole = self.shape[0];
        let first = (0..whole.max(1)).step_by(rows as usize);
        let part = |first: u32| {
            let mut part = self;
            part.shape[0] = rows.min(whole - first);
            part.strides[0] = if part.shape[0] > 1 { self.strides[0] } else { 0 };
            part
        };
        first.map(part).collect()
    }

    /// Bytes of its elements; a repeated axis counts once.
    pub fn bytes(&self) -> u64 {
        let own = (0..self.rank).filter(|&axis| self.strides[axis] > 0).map(|axis| self.shape[axis]);
        product(own).saturating_mul(self.storage.size())
    }

    /// Whether every row starts at a multiple of four elements and has a multiple of four of them.
    pub fn is_vec4(&self) -> bool {
        let fours = |count: &u32| count.is_multiple_of(4);
        fours(&self.start) && fours(&self.shape[self.rank - 1]) && self.outer().iter().all(fours)
    }
}
