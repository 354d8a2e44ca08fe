//! Tensors in host memory: what the CPU twins and the blocking calls take.

use crate::{Error, Result};

/// A tensor in host memory, row-major unless an axis was repeated or swapped. Every index its shape allows is valid.
///
/// ```
/// use wgpu_attention::HostView;
/// let bias = HostView::new(&[0.0, 1.0, 2.0], [1, 1, 1, 3])?.broadcast_to([2, 4, 5, 3]);
/// assert_eq!(bias.get([1, 3, 4, 2]), Some(2.0));
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct HostView<'a, T, const RANK: usize> {
    data: &'a [T],
    shape: [usize; RANK],
    strides: [usize; RANK],
}

impl<'a, T: Copy, const RANK: usize> HostView<'a, T, RANK> {
    /// A view of all of `data`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the extents do not multiply to the length of `data`.
    pub fn new(data: &'a [T], shape: [usize; RANK]) -> Result<Self> {
        let elements = shape.iter().try_fold(1usize, |product, &extent| product.checked_mul(extent));
        if elements != Some(data.len()) {
            return Err(Error::Shape {
                tensor: "host data",
                axis: "all",
                expected: format!("the product of {shape:?}"),
                got: data.len() as u64,
            });
        }
        let mut strides = [1; RANK];
        for axis in (1..RANK).rev() {
            strides[axis - 1] = usize::saturating_mul(strides[axis], shape[axis]);
        }
        Ok(Self { data, shape, strides })
    }

    /// Repeats every axis of extent 1 to the extent in `shape`.
    #[must_use]
    pub fn broadcast_to(mut self, shape: [usize; RANK]) -> Self {
        for ((own, stride), extent) in self.shape.iter_mut().zip(&mut self.strides).zip(shape) {
            if *own == 1 && extent != 1 {
                (*own, *stride) = (extent, 0);
            }
        }
        self
    }

    /// The view with axes `a` and `b` swapped; an axis out of range leaves it as it is.
    #[must_use]
    pub fn swap_axes(mut self, a: usize, b: usize) -> Self {
        if a < RANK && b < RANK {
            self.shape.swap(a, b);
            self.strides.swap(a, b);
        }
        self
    }

    /// Extents, outermost first.
    #[must_use]
    pub fn shape(&self) -> [usize; RANK] {
        self.shape
    }

    /// Extents as the GPU side has them, which counts in 32 bits; of a tensor whose axes have no names.
    #[cfg(feature = "blocking")]
    pub(crate) fn shape_u32(&self) -> Result<[u32; RANK]> {
        const AXES: [&str; 6] = ["0", "1", "2", "3", "4", "past 4"];
        let mut shape = [0; RANK];
        for (axis, (own, &extent)) in shape.iter_mut().zip(&self.shape).enumerate() {
            let (tensor, axis) = ("upload", AXES[axis.min(AXES.len() - 1)]);
            let (expected, got) = ("at most 2³² − 1".into(), extent as u64);
            *own = u32::try_from(extent).map_err(|_| Error::Shape { tensor, axis, expected, got })?;
        }
        Ok(shape)
    }

    /// The element at `index`, unless that is outside the shape.
    #[must_use]
    pub fn get(&self, index: [usize; RANK]) -> Option<T> {
        index.iter().zip(&self.shape).all(|(i, extent)| i < extent).then(|| self.at(index))
    }

    /// The element at `index`, which is inside the shape.
    pub(crate) fn at(&self, index: [usize; RANK]) -> T {
        let mut place = 0;
        for ((&i, &extent), &stride) in index.iter().zip(&self.shape).zip(&self.strides) {
            assert!(i < extent, "index {index:?} is outside {:?}", self.shape);
            place += i * stride;
        }
        self.data[place]
    }

    /// The elements in memory order, each once, and the strides (in elements) by which the shape reaches them.
    #[cfg(feature = "blocking")]
    pub(crate) fn parts(&self) -> (&'a [T], [u64; RANK]) {
        (self.data, self.strides.map(|stride| stride as u64))
    }
}
