//! What the CPU twins share: arithmetic in f64 or f32, and the order in which sums are taken.
//!
//! A twin is generic over its arithmetic so that one text serves twice: in f64 and in order it is the truth; in f32 and
//! in shuffled order it is the naive f32 computation whose error the tests allow a kernel to reach (twice over).

use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub};

use crate::{Error, Result};

/// f32 or f64.
pub trait Real:
    Copy
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
{
    /// From an f64, rounding if need be.
    fn new(value: f64) -> Self;
    /// To an f64, exactly.
    fn to_f64(self) -> f64;
    /// eˣ.
    fn exp(self) -> Self;
    /// Natural logarithm.
    fn ln(self) -> Self;
    /// Natural logarithm of 1 + x.
    fn ln_1p(self) -> Self;
    /// Hyperbolic tangent.
    fn tanh(self) -> Self;
    /// Square root.
    fn sqrt(self) -> Self;
    /// The larger of two numbers.
    #[must_use]
    fn max(self, other: Self) -> Self {
        if other > self { other } else { self }
    }
}

macro_rules! real {
    ($($ty:ty),*) => {$(
        impl Real for $ty {
            fn new(value: f64) -> Self { value as $ty }
            fn to_f64(self) -> f64 { self.into() }
            fn exp(self) -> Self { self.exp() }
            fn ln(self) -> Self { self.ln() }
            fn ln_1p(self) -> Self { self.ln_1p() }
            fn tanh(self) -> Self { self.tanh() }
            fn sqrt(self) -> Self { self.sqrt() }
        }
    )*};
}
real!(f32, f64);

/// Refuses the row of a result that is outside its shape.
pub(crate) fn check_row(row: [usize; 3], axes: [&'static str; 3], extents: [u32; 3]) -> Result<()> {
    for ((index, axis), extent) in row.into_iter().zip(axes).zip(extents) {
        if index >= extent as usize {
            return Err(Error::Shape { tensor: "row", axis, expected: format!("below {extent}"), got: index as u64 });
        }
    }
    Ok(())
}

/// The order in which a twin adds up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SumOrder {
    /// First to last: the truth.
    InOrder,
    /// Shuffled by this seed.
    Shuffled(u64),
}

impl SumOrder {
    /// That of another computation, whose sums are rounded otherwise.
    pub(crate) fn of_another(self) -> Self {
        match self {
            Self::InOrder => self,
            Self::Shuffled(seed) => Self::Shuffled(!seed),
        }
    }

    /// The indices of a sum of `count` terms in this order.
    #[must_use]
    pub fn indices(self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        if let Self::Shuffled(seed) = self {
            let mut state = seed;
            for i in (1..count).rev() {
                order.swap(i, (split_mix(&mut state) % (i as u64 + 1)) as usize);
            }
        }
        order
    }
}

/// One step of SplitMix64 (Steele, Lea and Flood, 2014).
pub(crate) fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
