//! Views of tensors in the caller's buffers, and the checks that every operand goes through.

mod bound;
mod layout;

pub(crate) use bound::{Bound, Operands};
pub(crate) use layout::Layout;

use crate::dtype::DType;
use crate::{Error, Result};

/// A tensor in a buffer of the caller's: offset, shape and strides, all in elements.
///
/// Building a view never fails; the op that is given it checks it and names it in its errors. The
/// same type serves inputs and outputs: a [`wgpu::Buffer`] is a shared handle, so which tensors are
/// written is said by the outputs struct of each op.
///
/// ```
/// # fn views(buffer: &wgpu_attention::wgpu::Buffer) {
/// use wgpu_attention::TensorView;
/// // Queries inside a packed [batch, len, 3, heads, head_dim] projection, seen as [batch, heads, len, head_dim].
/// let (batch, heads, len, dim) = (2, 12, 512, 32);
/// let row = 3 * u64::from(heads * dim);
/// let q = TensorView::f32(buffer, [batch, heads, len, dim])
///     .with_strides([u64::from(len) * row, u64::from(dim), row, 1]);
/// let k = q.with_offset(u64::from(heads * dim));
/// # let _ = k;
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct TensorView<'a, const RANK: usize> {
    pub(crate) buffer: &'a wgpu::Buffer,
    pub(crate) dtype: DType,
    pub(crate) offset: u64,
    pub(crate) shape: [u32; RANK],
    pub(crate) strides: [u64; RANK],
}

impl<'a, const RANK: usize> TensorView<'a, RANK> {
    /// A contiguous row-major view from the start of `buffer`.
    #[must_use]
    pub fn new(buffer: &'a wgpu::Buffer, dtype: DType, shape: [u32; RANK]) -> Self {
        Self { buffer, dtype, offset: 0, shape, strides: contiguous_strides(shape) }
    }

    /// [`TensorView::new`] for f32 elements.
    #[must_use]
    pub fn f32(buffer: &'a wgpu::Buffer, shape: [u32; RANK]) -> Self {
        Self::new(buffer, DType::F32, shape)
    }

    /// The same view, starting at element `offset` of the buffer.
    #[must_use]
    pub fn with_offset(self, offset: u64) -> Self {
        Self { offset, ..self }
    }

    /// The same view with these strides; 0 repeats an axis, the innermost must be 1.
    #[must_use]
    pub fn with_strides(self, strides: [u64; RANK]) -> Self {
        Self { strides, ..self }
    }

    /// The first `extent` indices of an axis, with the same strides; more than there are reach past the view, which the
    /// op's check finds if it leaves the buffer. An axis out of range leaves the view as it is.
    #[must_use]
    pub fn with_extent(mut self, axis: usize, extent: u32) -> Self {
        if let Some(own) = self.shape.get_mut(axis) {
            *own = extent;
        }
        self
    }

    /// The view with axes `a` and `b` swapped: `[batch, len, heads, dim]` to `[batch, heads, len, dim]` by `swap_axes(1, 2)`.
    ///
    /// An axis out of range leaves the view as it is.
    #[must_use]
    pub fn swap_axes(mut self, a: usize, b: usize) -> Self {
        if a < RANK && b < RANK {
            self.shape.swap(a, b);
            self.strides.swap(a, b);
        }
        self
    }

    /// Repeats every axis of extent 1 to the extent in `shape` by a stride of 0.
    #[must_use]
    pub fn broadcast_to(mut self, shape: [u32; RANK]) -> Self {
        for ((own, stride), extent) in self.shape.iter_mut().zip(&mut self.strides).zip(shape) {
            if *own == 1 && extent != 1 {
                (*own, *stride) = (extent, 0);
            }
        }
        self
    }

    /// Extents, outermost first.
    #[must_use]
    pub fn shape(&self) -> [u32; RANK] {
        self.shape
    }
}

/// The most axes of a tensor.
pub(crate) const MAX_RANK: usize = 5;

/// A [`TensorView`] whose number of axes is known at run time, 1 to 5: what [`op::Op`](crate::op::Op) takes by name.
#[derive(Clone, Copy, Debug)]
pub struct AnyView<'a> {
    buffer: &'a wgpu::Buffer,
    dtype: DType,
    offset: u64,
    rank: usize,
    shape: [u32; MAX_RANK],
    strides: [u64; MAX_RANK],
}

impl<'a, const RANK: usize> From<TensorView<'a, RANK>> for AnyView<'a> {
    fn from(view: TensorView<'a, RANK>) -> Self {
        const { assert!(1 <= RANK && RANK <= MAX_RANK) };
        let TensorView { buffer, dtype, offset, .. } = view;
        let mut erased = Self { buffer, dtype, offset, rank: RANK, shape: [1; MAX_RANK], strides: [0; MAX_RANK] };
        erased.shape[..RANK].copy_from_slice(&view.shape);
        erased.strides[..RANK].copy_from_slice(&view.strides);
        erased
    }
}

impl<'a> AnyView<'a> {
    /// A view from the start of `buffer`; 1 to 5 axes, of which each has a stride.
    ///
    /// # Errors
    /// [`Error::Shape`] for another number of axes, or of strides.
    pub fn new(buffer: &'a wgpu::Buffer, dtype: DType, shape: &[u32], strides: &[u64]) -> Result<Self> {
        let rank = shape.len();
        let refused = |expected, got| Error::Shape { tensor: "view", axis: "all", expected, got: got as u64 };
        if !(1..=MAX_RANK).contains(&rank) {
            return Err(refused(format!("1 to {MAX_RANK} axes"), rank));
        }
        if strides.len() != rank {
            return Err(refused(format!("a stride for each of {rank} axes"), strides.len()));
        }
        let mut view = Self { buffer, dtype, offset: 0, rank, shape: [1; MAX_RANK], strides: [0; MAX_RANK] };
        view.shape[..rank].copy_from_slice(shape);
        view.strides[..rank].copy_from_slice(strides);
        Ok(view)
    }

    /// The same view, starting at element `offset` of the buffer.
    #[must_use]
    pub fn with_offset(self, offset: u64) -> Self {
        Self { offset, ..self }
    }

    /// What its elements are stored as.
    #[must_use]
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Extents, outermost first.
    #[must_use]
    pub fn shape(&self) -> &[u32] {
        &self.shape[..self.rank]
    }

    /// Strides in elements, outermost first.
    #[must_use]
    pub fn strides(&self) -> &[u64] {
        &self.strides[..self.rank]
    }

    /// Whether a matrix must be read as the transpose of what lies in memory.
    fn is_transposed(&self) -> bool {
        let (outer, inner) = (self.rank - 2, self.rank - 1);
        let [outer_stride, inner_stride] = [self.strides[outer], self.strides[inner]];
        self.shape[inner] > 1 && inner_stride != 1 && (self.shape[outer] <= 1 || outer_stride == 1)
    }

    fn is_same_as(&self, other: &Self) -> bool {
        let place = |view: &Self| (view.dtype, view.offset, view.shape, view.strides);
        self.buffer == other.buffer && place(self) == place(other)
    }
}

pub(crate) fn contiguous_strides<const RANK: usize>(shape: [u32; RANK]) -> [u64; RANK] {
    let mut strides = [1; RANK];
    for axis in (1..RANK).rev() {
        strides[axis - 1] = u64::saturating_mul(strides[axis], u64::from(shape[axis]));
    }
    strides
}

/// `total` in pieces of at most `most`, as even as a multiple of `unit` allows: the first of each, and how many.
pub(crate) fn evenly(total: u32, most: u32, unit: u32) -> impl Iterator<Item = (u32, u32)> + Clone {
    let pieces = total.div_ceil(most.max(1)).max(1);
    let each = total.div_ceil(pieces).div_ceil(unit).max(1).saturating_mul(unit);
    (0..total.div_ceil(each)).map(move |piece| (piece * each, each.min(total - piece * each)))
}

/// A product of 32-bit sizes; saturates.
pub(crate) fn product(sizes: impl IntoIterator<Item = u32>) -> u64 {
    sizes.into_iter().fold(1, |product, size| u64::saturating_mul(product, size.into()))
}

/// Refuses more rows than a 32-bit index counts, repeated ones included, so that no later product passes 64 bits.
pub(crate) fn expect_rows(tensor: &str, rows: [u32; 3]) -> Result<()> {
    let needed = product(rows);
    if needed <= u32::MAX.into() {
        return Ok(());
    }
    Err(Error::LimitExceeded { what: format!("{tensor}: rows"), needed, limit: u32::MAX.into() })
}

/// Compares one axis with what it must be.
pub(crate) fn expect(
    tensor: &'static str,
    axis: &'static str,
    got: u32,
    expected: u32,
    why: impl std::fmt::Display,
) -> Result<()> {
    if got == expected {
        return Ok(());
    }
    Err(Error::Shape { tensor, axis, expected: format!("{expected} ({why})"), got: got.into() })
}

/// Refuses an extent outside a range.
pub(crate) fn expect_within(
    tensor: &'static str,
    axis: &'static str,
    got: u32,
    range: std::ops::RangeInclusive<u32>,
) -> Result<()> {
    if range.contains(&got) {
        return Ok(());
    }
    let (least, most) = range.into_inner();
    let expected = if most == u32::MAX { format!("at least {least}") } else { format!("{least} to {most}") };
    Err(Error::Shape { tensor, axis, expected, got: got.into() })
}

/// Refuses query heads that do not share key heads evenly.
pub(crate) fn expect_groups(q_heads: u32, kv_heads: u32) -> Result<()> {
    if q_heads.is_multiple_of(kv_heads) {
        return Ok(());
    }
    let expected = format!("a multiple of the {kv_heads} kv_heads");
    Err(Error::Shape { tensor: "q", axis: "q_heads", expected, got: q_heads.into() })
}

#[cfg(test)]
mod tests {
    use super::evenly;

    #[test]
    fn pieces_are_even_and_cover_all() {
        for total in [0, 1, 3, 4, 1000, 1001, 131_073, 1_000_000] {
            for (most, unit) in [(1, 1), (64, 4), (96, 12), (131_072, 4)] {
                let mut next = 0;
                for (first, count) in evenly(total, most, unit) {
                    assert!(first == next && (1..=most).contains(&count), "{total} in {most}");
                    assert!(first.is_multiple_of(unit), "{total} in {most}");
                    next += count;
                }
                assert_eq!(next, total);
            }
        }
        assert_eq!(evenly(131_073, 131_072, 4).collect::<Vec<_>>(), [(0, 65_540), (65_540, 65_533)]);
    }
}
