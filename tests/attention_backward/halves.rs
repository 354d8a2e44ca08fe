//! Numbers whose products are those of cooperative matrices.

use std::cell::Cell;
use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub};

use wgpu_attention::reference::Real;

/// A number whose every product is of factors with the eleven bits that f16 has, whatever their size, and exact: what a sum by matrices is.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
pub struct OfHalves(pub f64);

thread_local!(static UNIT: Cell<f64> = const { Cell::new(1.0) });

/// Does work with numbers of f16 in other units, which round otherwise.
pub fn in_units_of<T>(unit: f64, work: impl FnOnce() -> T) -> T {
    let before = UNIT.replace(unit);
    let done = work();
    UNIT.set(before);
    done
}

fn half(x: f64) -> f64 {
    let unit = UNIT.get();
    let own = x / unit;
    if own == 0.0 || !own.is_finite() {
        return x;
    }
    let ulp = (own.abs().log2().floor() - 10.0).exp2();
    (own / ulp).round_ties_even() * ulp * unit
}

impl Add for OfHalves {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

impl AddAssign for OfHalves {
    fn add_assign(&mut self, other: Self) {
        self.0 += other.0;
    }
}

impl Sub for OfHalves {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0 - other.0)
    }
}

impl Mul for OfHalves {
    type Output = Self;
    fn mul(self, other: Self) -> Self {
        Self(half(self.0) * half(other.0))
    }
}

impl Div for OfHalves {
    type Output = Self;
    fn div(self, other: Self) -> Self {
        Self(self.0 / other.0)
    }
}

impl Neg for OfHalves {
    type Output = Self;
    fn neg(self) -> Self {
        Self(-self.0)
    }
}

impl Real for OfHalves {
    fn new(value: f64) -> Self {
        Self(value)
    }
    fn to_f64(self) -> f64 {
        self.0
    }
    fn exp(self) -> Self {
        Self(self.0.exp())
    }
    fn ln(self) -> Self {
        Self(self.0.ln())
    }
    fn ln_1p(self) -> Self {
        Self(self.0.ln_1p())
    }
    fn tanh(self) -> Self {
        Self(self.0.tanh())
    }
    fn sqrt(self) -> Self {
        Self(self.0.sqrt())
    }
}
