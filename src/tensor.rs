//! Views of tensors in the caller's buffers, and the checks that every operand goes through.

use crate::context::Capabilities;
pub use crate::dtype::{DType, Element, Storage};
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

pub(crate) fn contiguous_strides<const RANK: usize>(shape: [u32; RANK]) -> [u64; RANK] {
    let mut strides = [1; RANK];
    for axis in (1..RANK).rev() {
        strides[axis - 1] = u64::saturating_mul(strides[axis], u64::from(shape[axis]));
    }
    strides
}

/// Where a checked tensor lies, as a kernel's `Params` hold it: all in elements, relative to the binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Layout<const RANK: usize> {
    pub start: u32,
    pub shape: [u32; RANK],
    pub strides: [u32; RANK],
    pub storage: Storage,
}

/// A product of 32-bit sizes; saturates.
pub(crate) fn product(sizes: impl IntoIterator<Item = u32>) -> u64 {
    sizes.into_iter().fold(1, |product, size| u64::saturating_mul(product, size.into()))
}

impl<const RANK: usize> Layout<RANK> {
    /// A contiguous tensor of f32 at the start of its buffer, as [`Operands::add`] would lay it out.
    pub fn contiguous(shape: [u32; RANK]) -> Self {
        let strides = contiguous_strides(shape);
        let used = |axis: usize| if shape[axis] > 1 { strides[axis].min(u32::MAX.into()) as u32 } else { 0 };
        Self { start: 0, shape, strides: std::array::from_fn(used), storage: Storage::Plain(DType::F32) }
    }

    /// The same tensor in the type in which a caller stores it.
    pub fn stored(
        self,
        name: &'static str,
        axes: [&'static str; RANK],
        access: Access,
        dtype: DType,
        device: &Capabilities,
    ) -> Result<Self> {
        let native = device.features.contains(wgpu::Features::SHADER_F16);
        let storage = match dtype {
            DType::F32 => Storage::Plain(dtype),
            // A native element is written alone, whatever the driver's rounding; packed ones are written as they are read.
            // Software drivers convert two halves of a word faster than native ones.
            DType::F16 if native && (!self.starts_words() || (access == Access::Read && !device.is_cpu)) => {
                Storage::NativeF16
            }
            DType::F16 => Storage::PackedF16,
            DType::BF16 => Storage::PackedBF16,
            DType::U32 | DType::Bool => return Err(Error::DType { tensor: name, expected: DType::FLOATS, got: dtype }),
        };
        if matches!(storage, Storage::PackedF16 | Storage::PackedBF16) && access == Access::Write {
            self.expect_whole_words(name, axes, dtype)?;
        }
        Ok(Self { storage, ..self })
    }

    /// Whether every row starts at a multiple of two elements.
    fn starts_words(&self) -> bool {
        self.start.is_multiple_of(2) && self.strides[..RANK - 1].iter().all(|stride| stride.is_multiple_of(2))
    }

    /// Refuses rows that share a word with others: whoever wrote one would write over the other.
    fn expect_whole_words(&self, tensor: &'static str, axes: [&'static str; RANK], dtype: DType) -> Result<()> {
        if let Some(axis) = (0..RANK - 1).find(|&axis| !self.strides[axis].is_multiple_of(2)) {
            let expected = format!("a multiple of 2, as no two rows of {dtype:?} may share a 32-bit word");
            return Err(Error::Stride { tensor, axis: axes[axis], expected, got: self.strides[axis].into() });
        }
        if !self.start.is_multiple_of(2) {
            let problem =
                format!("its {dtype:?} start in the middle of a 32-bit word, which could not be written whole");
            return Err(Error::Operand { tensor, problem });
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

    /// Bytes of its elements; a repeated axis counts once.
    pub fn bytes(&self) -> u64 {
        let own = (0..RANK).filter(|&axis| self.strides[axis] > 0).map(|axis| self.shape[axis]);
        product(own).saturating_mul(self.storage.size())
    }

    /// Whether every row starts at a multiple of four elements and has a multiple of four of them.
    pub fn is_vec4(&self) -> bool {
        let (inner, outer) = (RANK - 1, &self.strides[..RANK - 1]);
        self.start.is_multiple_of(4) && self.shape[inner].is_multiple_of(4) && outer.iter().all(|s| s.is_multiple_of(4))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

/// A checked tensor as a bind group takes it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bound<'a> {
    pub buffer: &'a wgpu::Buffer,
    pub offset: u64,
    pub size: u64,
}

/// A view's own bytes in its buffer, and the binding around them: its offset and size, and the element that is first.
#[derive(Debug, PartialEq)]
struct Place {
    bytes: std::ops::Range<u64>,
    offset: u64,
    size: u64,
    start: u32,
}

struct Checked<'a> {
    name: &'static str,
    access: Access,
    bytes: std::ops::Range<u64>,
    bound: Bound<'a>,
}

/// Collects an op's operands, checking each against the device and, at the end, against each other.
///
/// `SLOTS` is the op's count of possible operands; a slot is an index that the op's steps refer to.
pub(crate) struct Operands<'d, 'a, const SLOTS: usize> {
    device: &'d Capabilities,
    slots: [Option<Checked<'a>>; SLOTS],
    /// Pairs of an input and an output that no one dispatch binds, and whether the two are the same view.
    apart: Vec<(usize, usize, bool)>,
}

impl<'d, 'a, const SLOTS: usize> Operands<'d, 'a, SLOTS> {
    pub fn new(device: &'d Capabilities) -> Self {
        Self { device, slots: std::array::from_fn(|_| None), apart: Vec::new() }
    }

    /// Checks one view of floats that the caller stores as f32, f16 or bf16.
    pub fn add_stored<const RANK: usize>(
        &mut self,
        slot: usize,
        name: &'static str,
        axes: [&'static str; RANK],
        access: Access,
        view: &TensorView<'a, RANK>,
    ) -> Result<Layout<RANK>> {
        let layout = self.add(slot, name, axes, access, view.dtype, view)?;
        layout.stored(name, axes, access, view.dtype, self.device)
    }

    /// Checks one view: element type, extents, strides, bounds, usage, limits.
    pub fn add<const RANK: usize>(
        &mut self,
        slot: usize,
        name: &'static str,
        axes: [&'static str; RANK],
        access: Access,
        dtype: DType,
        view: &TensorView<'a, RANK>,
    ) -> Result<Layout<RANK>> {
        if view.dtype != dtype {
            return Err(Error::DType { tensor: name, expected: dtype.name(), got: view.dtype });
        }
        let inner = RANK - 1;
        if view.strides[inner] != 1 && view.shape[inner] > 1 {
            return Err(Error::Stride {
                tensor: name,
                axis: axes[inner],
                expected: "1".into(),
                got: view.strides[inner],
            });
        }
        if access != Access::Read {
            check_no_self_overlap(name, axes, view)?;
        }
        let missing = wgpu::BufferUsages::STORAGE - view.buffer.usage();
        if !missing.is_empty() {
            return Err(Error::Usage { tensor: name, missing });
        }

        let Place { bytes, offset, size, start } =
            self.place(name, dtype, view.offset, span(view.shape, view.strides), view.buffer.size())?;
        self.slots[slot] = Some(Checked { name, access, bytes, bound: Bound { buffer: view.buffer, offset, size } });
        // The span fits 32 bits, so does every stride that is used; an axis of extent 1 never uses its own.
        let used = |axis: usize| if view.shape[axis] > 1 { view.strides[axis] as u32 } else { 0 };
        Ok(Layout { start, shape: view.shape, strides: std::array::from_fn(used), storage: Storage::Plain(dtype) })
    }

    /// Where a view's elements lie, from element `first` of a buffer of `buffer` bytes on.
    fn place(&self, name: &'static str, dtype: DType, first: u64, elements: Option<u64>, buffer: u64) -> Result<Place> {
        let beyond = || index_limit(name, u64::MAX);
        let elements = elements.ok_or_else(beyond)?;
        let begin = first.checked_mul(dtype.size()).ok_or_else(beyond)?;
        let length = elements.checked_mul(dtype.size()).ok_or_else(beyond)?;
        let end = begin.checked_add(length).ok_or_else(beyond)?;
        // Kernels read whole words, so the last one must exist.
        let needed = end.checked_next_multiple_of(4).ok_or_else(beyond)?;
        if needed > buffer {
            return Err(Error::BufferTooSmall { tensor: name, needed, got: buffer });
        }
        let limits = &self.device.limits;
        let offset = begin - begin % u64::from(limits.min_storage_buffer_offset_alignment);
        let start = (begin - offset) / dtype.size();
        let last = start + elements;
        if last > u64::from(u32::MAX) {
            return Err(index_limit(name, last));
        }
        let size = needed - offset;
        let limit = limits.max_storage_buffer_binding_size;
        if size > limit {
            return Err(Error::LimitExceeded { what: format!("{name}: bytes in one binding"), needed: size, limit });
        }
        // Two halves of a word are one place: an output is written by words.
        Ok(Place { bytes: begin - begin % 4..needed, offset, size, start: start as u32 })
    }

    /// Lets an output lie in the buffer of an input, since no one dispatch binds both: beside it, or as the same view.
    pub fn keep_apart(&mut self, input: usize, output: usize, same_view: bool) {
        self.apart.push((input, output, same_view));
    }

    /// Checks the operands against each other and hands them out by slot.
    pub fn finish(self) -> Result<[Option<Bound<'a>>; SLOTS]> {
        let given: Vec<(usize, &Checked)> =
            self.slots.iter().enumerate().filter_map(|(slot, checked)| Some((slot, checked.as_ref()?))).collect();
        for (i, &(a_slot, a)) in given.iter().enumerate() {
            for &(b_slot, b) in &given[i + 1..] {
                if a.bound.buffer != b.bound.buffer || (a.access == Access::Read && b.access == Access::Read) {
                    continue;
                }
                let (output, other) = if a.access == Access::Read { (b, a) } else { (a, b) };
                let overlap = a.bytes.start < b.bytes.end && b.bytes.start < a.bytes.end;
                let pair = |&&(input, output, _): &&(usize, usize, bool)| {
                    (input, output) == (a_slot, b_slot) || (input, output) == (b_slot, a_slot)
                };
                let reason = if let Some(&(_, _, same_view)) = self.apart.iter().find(pair) {
                    if same_view || !overlap {
                        continue;
                    }
                    "overlaps, and is not the same view as, the input"
                } else if other.access == Access::Read {
                    "lies in the buffer of the input"
                } else if overlap {
                    "overlaps the output"
                } else {
                    continue;
                };
                return Err(Error::Aliased { output: output.name, reason, other: other.name });
            }
        }
        Ok(self.slots.map(|slot| slot.map(|checked| checked.bound)))
    }
}

fn index_limit(name: &str, needed: u64) -> Error {
    Error::LimitExceeded {
        what: format!("{name}: elements addressed by a 32-bit index"),
        needed,
        limit: u32::MAX.into(),
    }
}

/// One past the largest element index relative to the view's offset; 0 for an empty view, `None` on overflow.
fn span<const RANK: usize>(shape: [u32; RANK], strides: [u64; RANK]) -> Option<u64> {
    if shape.contains(&0) {
        return Some(0);
    }
    (0..RANK).try_fold(1u64, |sum, axis| sum.checked_add(u64::from(shape[axis] - 1).checked_mul(strides[axis])?))
}

/// Refuses strides by which two indices could reach one element.
fn check_no_self_overlap<const RANK: usize>(
    name: &'static str,
    axes: [&'static str; RANK],
    view: &TensorView<RANK>,
) -> Result<()> {
    if view.shape.contains(&0) {
        return Ok(());
    }
    let mut order: Vec<usize> = (0..RANK).filter(|&axis| view.shape[axis] > 1).collect();
    order.sort_by_key(|&axis| view.strides[axis]);
    let mut extent = 1u64;
    for axis in order {
        if view.strides[axis] < extent {
            return Err(Error::Stride {
                tensor: name,
                axis: axes[axis],
                expected: format!("at least {extent}, so that the output does not overlap itself"),
                got: view.strides[axis],
            });
        }
        extent = extent.saturating_add(u64::from(view.shape[axis] - 1).saturating_mul(view.strides[axis]));
    }
    Ok(())
}

/// Compares one axis with what it must be.
pub(crate) fn expect(tensor: &'static str, axis: &'static str, got: u32, expected: u32, why: &str) -> Result<()> {
    if got == expected {
        return Ok(());
    }
    Err(Error::Shape { tensor, axis, expected: format!("{expected} ({why})"), got: got.into() })
}

/// Refuses more rows than a 32-bit index counts, repeated ones included, so that no later product passes 64 bits.
pub(crate) fn expect_rows(tensor: &str, rows: [u32; 3]) -> Result<()> {
    let needed = product(rows);
    if needed <= u32::MAX.into() {
        return Ok(());
    }
    Err(Error::LimitExceeded { what: format!("{tensor}: rows"), needed, limit: u32::MAX.into() })
}

/// Refuses an extent of zero along an axis where it has no meaning.
pub(crate) fn expect_nonzero(tensor: &'static str, axis: &'static str, got: u32) -> Result<()> {
    if got > 0 {
        return Ok(());
    }
    Err(Error::Shape { tensor, axis, expected: "at least 1".into(), got: 0 })
}

#[cfg(test)]
mod tests {
    use super::{Access, DType, Layout, Operands, Place, Storage, contiguous_strides, span};
    use crate::context::Capabilities;

    /// What most adapters grant: one byte less than 2³¹ in a binding.
    const GRANTED: u64 = (1 << 31) - 1;

    fn limits(max_storage_buffer_binding_size: u64) -> wgpu::Limits {
        wgpu::Limits { max_storage_buffer_binding_size, ..wgpu::Limits::default() }
    }

    fn device(limit: u64, features: wgpu::Features) -> Capabilities {
        Capabilities { limits: limits(limit), features, ..Capabilities::plain() }
    }

    fn place(limit: u64, dtype: DType, first: u64, elements: u64) -> Result<Place, String> {
        let device = device(limit, wgpu::Features::empty());
        Operands::<1>::new(&device)
            .place("k", dtype, first, Some(elements), u64::MAX)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn bindings_end_below_two_gibibytes() {
        let words = (1 << 29) - 1;
        let whole = Place { bytes: 0..4 * words, offset: 0, size: 4 * words, start: 0 };
        assert_eq!(place(GRANTED, DType::F32, 0, words), Ok(whole));
        let refused = place(GRANTED, DType::F32, 0, words + 1).unwrap_err();
        assert!(refused.contains("k: bytes in one binding") && refused.contains("2147483648"), "{refused}");
        // A mask's last word counts whole.
        assert_eq!(place(GRANTED, DType::Bool, 0, GRANTED - 3).unwrap().size, GRANTED - 3);
        assert!(place(GRANTED, DType::Bool, 0, GRANTED).is_err());
        // What stands before the view counts, down to the device's alignment of 256 bytes.
        assert!(place(GRANTED, DType::F32, 63, words - 63).is_ok());
        assert!(place(GRANTED, DType::F32, 63, words - 62).is_err());
        assert!(place(GRANTED, DType::F32, 64, words).is_ok());
    }

    #[test]
    fn views_may_start_past_two_and_four_gibibytes() {
        for first in [1 << 29, 1 << 30, 1 << 40] {
            let found = place(GRANTED, DType::F32, first + 3, 5).unwrap();
            let begin = 4 * first + 12;
            assert_eq!(found, Place { bytes: begin..begin + 20, offset: 4 * first, size: 32, start: 3 });
        }
    }

    #[test]
    fn halves_take_whole_words() {
        let found = place(GRANTED, DType::F16, 3, 4).unwrap();
        assert_eq!(
            (found.bytes, found.start),
            (4..16, 3),
            "elements 2 to 7, of which the first and the last are others'"
        );
    }

    #[test]
    fn elements_are_counted_in_32_bits() {
        let most = u64::from(u32::MAX);
        assert_eq!(place(u64::MAX, DType::F32, 0, most).unwrap().size, 4 * most);
        for (first, elements) in [(0, most + 1), (1, most), (63, most - 62), (u64::MAX / 2, 1), (0, u64::MAX)] {
            let refused = place(u64::MAX, DType::F32, first, elements).unwrap_err();
            assert!(refused.contains("k: elements addressed by a 32-bit index"), "{refused}");
        }
        let device = device(GRANTED, wgpu::Features::empty());
        let short = Operands::<1>::new(&device).place("k", DType::F32, 2, Some(3), 19);
        assert!(short.unwrap_err().to_string().contains("20"), "its buffer ends before it");
    }

    #[test]
    fn spans_do_not_wrap() {
        let shape = [1 << 8, 1 << 8, 1 << 8, 1 << 8];
        assert_eq!(span(shape, contiguous_strides(shape)), Some(1 << 32));
        assert_eq!(span([2, 1, 2, 4], [1 << 40, 0, 7, 1]), Some((1 << 40) + 7 + 4));
        assert_eq!(span([3, 2, 1, 1], [u64::MAX / 2, 2, 0, 1]), None);
        assert_eq!(span([u32::MAX, 2, 1, 1], [u64::MAX / 2, 1, 1, 1]), None);
        assert_eq!(span([0, u32::MAX, u32::MAX, 1], [u64::MAX; 4]), Some(0), "an empty view");
    }

    #[test]
    fn plans_without_tensors_meet_the_same_edge() {
        let check = |shape| Layout::<4>::contiguous(shape).check("k", &limits(GRANTED));
        assert!(check([1, 1, (1 << 23) - 1, 64]).is_ok());
        assert!(check([1, 1, 1 << 23, 64]).is_err());
        assert!(check([u32::MAX; 4]).is_err(), "the product does not wrap");
    }

    #[test]
    fn an_output_of_halves_shares_no_word_between_rows() {
        const AXES: [&str; 2] = ["len", "dim"];
        let (none, f16) = (wgpu::Features::empty(), wgpu::Features::SHADER_F16);
        let stored = |shape, start, access, dtype, features| {
            let layout = Layout { start, ..Layout::<2>::contiguous(shape) };
            let stored = layout.stored("o", AXES, access, dtype, &device(GRANTED, features));
            stored.map(|layout| layout.storage).map_err(|error| error.to_string())
        };
        use Access::{Read, Write};
        use DType::{BF16, F16, U32};
        assert_eq!(stored([4, 6], 2, Write, F16, none), Ok(Storage::PackedF16));
        assert_eq!(stored([4, 6], 2, Write, F16, f16), Ok(Storage::PackedF16), "words, whatever the device has");
        assert_eq!(stored([4, 7], 3, Write, F16, f16), Ok(Storage::NativeF16));
        assert_eq!(stored([4, 7], 3, Read, F16, f16), Ok(Storage::NativeF16));
        assert_eq!(stored([4, 7], 3, Read, F16, none), Ok(Storage::PackedF16), "reading shares nothing");
        assert_eq!(stored([4, 7], 3, Read, BF16, f16), Ok(Storage::PackedBF16));
        assert_eq!(stored([1, 7], 2, Write, BF16, f16), Ok(Storage::PackedBF16), "one row");
        for (dtype, features) in [(F16, none), (BF16, f16)] {
            let refused = stored([4, 7], 2, Write, dtype, features).unwrap_err();
            assert!(refused.contains("o: stride of axis len") && refused.contains("got 7"), "{refused}");
            let refused = stored([4, 6], 3, Write, dtype, features).unwrap_err();
            assert!(refused.contains("in the middle of a 32-bit word"), "{refused}");
        }
        assert!(stored([4, 6], 2, Read, U32, f16).unwrap_err().contains("F32, F16 or BF16"));
    }
}
