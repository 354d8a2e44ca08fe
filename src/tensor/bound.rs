//! The checks that every operand goes through: against the device, and against each other.

use super::{AnyView, Layout};
use crate::context::Capabilities;
use crate::dtype::{DType, Storage};
use crate::operand::{Access, Operand};

use crate::{Error, Result};

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
    row: &'static Operand,
    view: AnyView<'a>,
    bytes: std::ops::Range<u64>,
    bound: Bound<'a>,
}

/// An op's operands, by the rows of its table: each is checked against the device and, at the end, against each other.
pub(crate) struct Operands<'d, 'a> {
    device: &'d Capabilities,
    given: Vec<Checked<'a>>,
}

impl<'d, 'a> Operands<'d, 'a> {
    pub fn new(device: &'d Capabilities) -> Self {
        Self { device, given: Vec::new() }
    }

    /// A view of a row: element type, strides, bounds, usage, limits.
    pub fn add(&mut self, row: &'static Operand, view: AnyView<'a>) -> Result<Layout> {
        let transposed = row.either_order && view.is_transposed();
        let view = if transposed { swapped(view) } else { view };
        let last = view.rank - 1;
        let axis = |axis: usize| row.axis(if transposed && axis + 1 >= last { 2 * last - 1 - axis } else { axis });
        if let Some(dtype) = row.dtype().filter(|&dtype| dtype != view.dtype) {
            return Err(Error::DType { tensor: row.name, expected: dtype.name(), got: view.dtype });
        }
        let inner = view.rank - 1;
        if view.strides[inner] != 1 && view.shape[inner] > 1 {
            let got = view.strides[inner];
            return Err(Error::Stride { tensor: row.name, axis: axis(inner), expected: "1".into(), got });
        }
        if row.access == Access::Write {
            check_no_self_overlap(row.name, axis, &view)?;
        }
        let missing = wgpu::BufferUsages::STORAGE - view.buffer.usage();
        if !missing.is_empty() {
            return Err(Error::Usage { tensor: row.name, missing });
        }

        let elements = span(view.shape(), view.strides());
        let Place { bytes, offset, size, start } =
            self.place(row.name, view.dtype, view.offset, elements, view.buffer.size())?;
        let bound = Bound { buffer: view.buffer, offset, size };
        let layout = Layout::new(start, view.rank, view.shape, view.strides, Storage::Plain(view.dtype));
        let layout = Layout { transposed, ..layout };
        let layout = if row.dtype().is_none() { layout.stored(row, view.dtype, self.device)? } else { layout };
        self.given.push(Checked { row, view, bytes, bound });
        Ok(layout)
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
        // Last, as no buffer is large enough for what no binding holds.
        if needed > buffer {
            return Err(Error::BufferTooSmall { tensor: name, needed, got: buffer });
        }
        // Two halves of a word are one place: an output is written by words.
        Ok(Place { bytes: begin - begin % 4..needed, offset, size, start: start as u32 })
    }

    /// Whether every tensor of a state goes out as the view as which it came in.
    pub fn in_place(&self) -> bool {
        let states = || self.given.iter().filter(|checked| checked.row.state);
        let mut inputs = states().filter(|checked| checked.row.access == Access::Read).peekable();
        inputs.peek().is_some() && inputs.all(|input| states().any(|other| is_in_place(input, other)))
    }

    /// Checks the operands against each other and hands them out in order.
    pub fn finish(self) -> Result<Vec<Bound<'a>>> {
        for (i, a) in self.given.iter().enumerate() {
            for b in &self.given[i + 1..] {
                if let Some((output, reason, other)) = conflict(a, b) {
                    return Err(Error::Aliased { output: output.row.name, reason, other: other.row.name });
                }
            }
        }
        Ok(self.given.into_iter().map(|checked| checked.bound).collect())
    }
}

/// How two operands are in each other's way, if they are: the output, and what it meets.
fn conflict<'c, 'a>(
    a: &'c Checked<'a>,
    b: &'c Checked<'a>,
) -> Option<(&'c Checked<'a>, &'static str, &'c Checked<'a>)> {
    let reads = |checked: &Checked| checked.row.access == Access::Read;
    if a.bound.buffer != b.bound.buffer || (reads(a) && reads(b)) {
        return None;
    }
    let (output, other) = if reads(a) { (b, a) } else { (a, b) };
    let overlap = a.bytes.start < b.bytes.end && b.bytes.start < a.bytes.end;
    // No one dispatch binds a state that comes in and one that goes out.
    let reason = if reads(other) && output.row.state && other.row.state {
        (overlap && !is_in_place(other, output)).then_some("overlaps, and is not the same view as, the input")
    } else if reads(other) {
        Some("lies in the buffer of the input")
    } else {
        overlap.then_some("overlaps the output")
    };
    reason.map(|reason| (output, reason, other))
}

fn is_in_place(input: &Checked<'_>, output: &Checked<'_>) -> bool {
    let written = output.row.access == Access::Write;
    written && input.row.name == output.row.name && input.view.is_same_as(&output.view)
}

/// The view with its last two axes swapped.
fn swapped(mut view: AnyView<'_>) -> AnyView<'_> {
    view.shape.swap(view.rank - 2, view.rank - 1);
    view.strides.swap(view.rank - 2, view.rank - 1);
    view
}

fn index_limit(name: &str, needed: u64) -> Error {
    Error::LimitExceeded {
        what: format!("{name}: elements addressed by a 32-bit index"),
        needed,
        limit: u32::MAX.into(),
    }
}

/// One past the largest element index relative to the view's offset; 0 for an empty view, `None` on overflow.
fn span(shape: &[u32], strides: &[u64]) -> Option<u64> {
    if shape.contains(&0) {
        return Some(0);
    }
    let mut axes = shape.iter().zip(strides);
    axes.try_fold(1u64, |sum, (&extent, stride)| sum.checked_add(u64::from(extent - 1).checked_mul(*stride)?))
}

/// Refuses strides by which two indices could reach one element.
fn check_no_self_overlap(tensor: &'static str, axis: impl Fn(usize) -> &'static str, view: &AnyView<'_>) -> Result<()> {
    if view.shape.contains(&0) {
        return Ok(());
    }
    let mut order: Vec<usize> = (0..view.rank).filter(|&axis| view.shape[axis] > 1).collect();
    order.sort_by_key(|&axis| view.strides[axis]);
    let mut extent = 1u64;
    for at in order {
        if view.strides[at] < extent {
            let expected = format!("at least {extent}, so that the output does not overlap itself");
            return Err(Error::Stride { tensor, axis: axis(at), expected, got: view.strides[at] });
        }
        extent = extent.saturating_add(u64::from(view.shape[at] - 1).saturating_mul(view.strides[at]));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{DType, Layout, Operand, Operands, Place, Storage, span};
    use crate::context::Capabilities;
    use crate::tensor::contiguous_strides;

    const F32: Storage = Storage::Plain(DType::F32);

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
        Operands::new(&device).place("k", dtype, first, Some(elements), u64::MAX).map_err(|error| error.to_string())
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
        let short = Operands::new(&device).place("k", DType::F32, 2, Some(3), 19);
        assert!(short.unwrap_err().to_string().contains("20"), "its buffer ends before it");
        let empty = Operands::new(&device).place("k", DType::F32, 0, Some(1 << 30), 0);
        let refused = empty.unwrap_err().to_string();
        assert_eq!(refused, "k: bytes in one binding: needs 4294967296, the limit is 2147483647", "and not its buffer");
    }

    #[test]
    fn spans_do_not_wrap() {
        let shape = [1 << 8, 1 << 8, 1 << 8, 1 << 8];
        assert_eq!(span(&shape, &contiguous_strides(shape)), Some(1 << 32));
        assert_eq!(span(&[2, 1, 2, 4], &[1 << 40, 0, 7, 1]), Some((1 << 40) + 7 + 4));
        assert_eq!(span(&[3, 2, 1, 1], &[u64::MAX / 2, 2, 0, 1]), None);
        assert_eq!(span(&[u32::MAX, 2, 1, 1], &[u64::MAX / 2, 1, 1, 1]), None);
        assert_eq!(span(&[0, u32::MAX, u32::MAX, 1], &[u64::MAX; 4]), Some(0), "an empty view");
    }

    #[test]
    fn plans_without_tensors_meet_the_same_edge() {
        let check = |shape: [u32; 4]| Layout::contiguous(&shape, F32).check("k", &limits(GRANTED));
        assert!(check([1, 1, (1 << 23) - 1, 64]).is_ok());
        assert!(check([1, 1, 1 << 23, 64]).is_err());
        assert!(check([u32::MAX; 4]).is_err(), "the product does not wrap");
    }

    #[test]
    fn lists_are_cut_where_a_binding_ends() {
        let cut = |shape: [u32; 2], limit| -> Vec<u32> {
            let parts = Layout::contiguous(&shape, F32).bindable_parts(1, &limits(limit));
            assert!(parts.iter().all(|part| part.shape[1] == shape[1] && part.check("w", &limits(limit)).is_ok()));
            parts.iter().map(|part| part.shape[0]).collect()
        };
        assert_eq!(cut([10, 4], 160), [10]);
        assert_eq!(cut([10, 4], 159), [9, 1]);
        assert_eq!(cut([10, 4], 48), [3, 3, 3, 1]);
        assert_eq!(cut([0, 4], 48), [0], "an empty one is there");
        assert_eq!(cut([u32::MAX, 0], 48), [u32::MAX]);
        let parts = Layout::contiguous(&[10, 4], F32).bindable_parts(4, &limits(100));
        assert_eq!(parts.iter().map(|part| part.shape[0]).collect::<Vec<_>>(), [4, 4, 2], "fours stay together");
        let classes = cut([1_000_000, 512], 128 << 20);
        assert_eq!((classes.len(), classes.iter().sum()), (16, 1_000_000));
    }

    #[test]
    fn an_output_of_halves_shares_no_word_between_rows() {
        const INPUT: Operand = Operand::float("o", &["len", "dim"]);
        const OUTPUT: Operand = INPUT.written();
        let (none, f16) = (wgpu::Features::empty(), wgpu::Features::SHADER_F16);
        let stored = |shape: [u32; 2], start, row: &Operand, dtype, features| {
            let layout = Layout { start, ..Layout::contiguous(&shape, F32) };
            let stored = layout.stored(row, dtype, &device(GRANTED, features));
            stored.map(|layout| layout.storage).map_err(|error| error.to_string())
        };
        use DType::{BF16, F16, U32};
        assert_eq!(stored([4, 6], 2, &OUTPUT, F16, none), Ok(Storage::PackedF16));
        assert_eq!(stored([4, 6], 2, &OUTPUT, F16, f16), Ok(Storage::PackedF16), "words, whatever the device has");
        assert_eq!(stored([4, 7], 3, &OUTPUT, F16, f16), Ok(Storage::NativeF16));
        assert_eq!(stored([4, 7], 3, &INPUT, F16, f16), Ok(Storage::NativeF16));
        assert_eq!(stored([4, 7], 3, &INPUT, F16, none), Ok(Storage::PackedF16), "reading shares nothing");
        assert_eq!(stored([4, 7], 3, &INPUT, BF16, f16), Ok(Storage::PackedBF16));
        assert_eq!(stored([1, 7], 2, &OUTPUT, BF16, f16), Ok(Storage::PackedBF16), "one row");
        for (dtype, features) in [(F16, none), (BF16, f16)] {
            let refused = stored([4, 7], 2, &OUTPUT, dtype, features).unwrap_err();
            assert!(refused.contains("o: stride of axis len") && refused.contains("got 7"), "{refused}");
            let refused = stored([4, 6], 3, &OUTPUT, dtype, features).unwrap_err();
            assert!(refused.contains("in the middle of a 32-bit word"), "{refused}");
        }
        assert!(stored([4, 6], 2, &INPUT, U32, f16).unwrap_err().contains("F32, F16 or BF16"));
    }
}
