//! f32 at its worst: what WGSL lets a device do to a number.

use std::cell::Cell;
use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub};

use wgpu_attention::reference::Real;

/// One unit in the last place, relative.
const ULP: f64 = f32::EPSILON as f64;
const HALF_ULP: f64 = ULP / 2.0;
/// What WGSL grants (its section on accuracy), in units in the last place: a division, and a square root as the inverse of one.
const DIVISION: f64 = 2.5;
const SQUARE_ROOT: f64 = 4.5;
const LOGARITHM: f64 = 3.0;
/// Of a logarithm near 0, in absolute terms.
const LOGARITHM_NEAR_0: f64 = 1.0 / (1 << 21) as f64;
/// A tangent as kernels compute it, from an exponential; and a constant that f32 does not hold, such as the scale of log n.
const COMPUTED: f64 = 6.0;
/// A product of two factors that are rounded to f16.
const F16_PRODUCT: f64 = 1.0 / (1 << 10) as f64;

/// An f32 of which each operation is off: a sum or product by as much as another order or fusing may make it, at random; a function by
/// all that WGSL grants it, up or down. This is Monte Carlo arithmetic (Parker, 1997), with WGSL's bounds.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
pub struct Granted(f32);

thread_local! {
    /// Of Knuth's linear congruence, whose high bits are what counts.
    static STATE: Cell<u64> = const { Cell::new(0) };
    /// Which way functions are off; 0 if at random. Errors of one sign cancel where they are divided by each other, and others do not.
    static LEAN: Cell<f64> = const { Cell::new(0.0) };
    static PRODUCT: Cell<f64> = const { Cell::new(HALF_ULP) };
}

impl Granted {
    /// Starts a run in this thread: of eight, four are off at random, two up, two down.
    pub fn start(seed: u64, factors_in_f16: bool) {
        STATE.set(seed);
        LEAN.set([0.0, 1.0, 0.0, -1.0][seed as usize % 4]);
        PRODUCT.set(if factors_in_f16 { F16_PRODUCT } else { HALF_ULP });
    }

    /// Rounded to f32, off by up to `most` of itself at random.
    fn about(exact: f64, most: f64) -> Self {
        Self((exact * (1.0 + most * noise())) as f32)
    }

    /// Rounded to f32, off by `by`.
    fn off(exact: f64, by: f64) -> Self {
        let lean = LEAN.get();
        let sign = if lean == 0.0 { noise().signum() } else { lean };
        Self((if exact.is_finite() { exact + sign * by } else { exact }) as f32)
    }

    fn off_by_ulps(exact: f64, ulps: f64) -> Self {
        // 0 and what is not finite stay what they are, however many.
        Self::off(exact, if exact == 0.0 { 0.0 } else { ulps * ULP * exact.abs() })
    }
}

/// Between -1 and 1.
fn noise() -> f64 {
    let state = STATE.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    STATE.set(state);
    state as i64 as f64 / (1u64 << 63) as f64
}

macro_rules! rounded {
    ($($Op:ident::$op:ident: $most:expr;)*) => {$(
        impl $Op for Granted {
            type Output = Self;

            fn $op(self, other: Self) -> Self {
                Self::about(f64::from(self.0).$op(f64::from(other.0)), $most)
            }
        }
    )*};
}
rounded! {
    Add::add: HALF_ULP;
    Sub::sub: HALF_ULP;
    Mul::mul: PRODUCT.get();
}

impl Div for Granted {
    type Output = Self;

    fn div(self, other: Self) -> Self {
        Self::off_by_ulps(f64::from(self.0) / f64::from(other.0), DIVISION)
    }
}

impl Neg for Granted {
    type Output = Self;

    fn neg(self) -> Self {
        Self(-self.0)
    }
}

impl AddAssign for Granted {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Real for Granted {
    fn new(value: f64) -> Self {
        // Inputs are exact.
        if f64::from(value as f32) == value { Self(value as f32) } else { Self::off_by_ulps(value, COMPUTED) }
    }

    fn to_f64(self) -> f64 {
        self.0.into()
    }

    fn exp(self) -> Self {
        let x = f64::from(self.0);
        Self::off_by_ulps(x.exp(), 3.0 + 2.0 * x.abs())
    }

    fn ln(self) -> Self {
        let x = f64::from(self.0);
        if (0.5..=2.0).contains(&x) {
            Self::off(x.ln(), LOGARITHM_NEAR_0)
        } else {
            Self::off_by_ulps(x.ln(), LOGARITHM)
        }
    }

    /// By a series after a division, or by the logarithm away from 0.
    fn ln_1p(self) -> Self {
        Self::off_by_ulps(f64::from(self.0).ln_1p(), DIVISION + LOGARITHM)
    }

    fn tanh(self) -> Self {
        Self::off_by_ulps(f64::from(self.0).tanh(), COMPUTED)
    }

    fn sqrt(self) -> Self {
        Self::off_by_ulps(f64::from(self.0).sqrt(), SQUARE_ROOT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The largest and smallest error of eight runs, in units in the last place.
    fn errors(exact: f64, compute: impl Fn() -> Granted) -> [f64; 2] {
        let off = (0..8).map(|seed| {
            Granted::start(seed, false);
            (compute().to_f64() - exact) / (ULP * exact.abs())
        });
        off.fold([f64::MIN, f64::MAX], |[most, least], off| [most.max(off), least.min(off)])
    }

    #[test]
    fn functions_are_off_by_what_is_granted_both_ways() {
        let number = |x: f64| Granted(x as f32);
        // And by the rounding to f32.
        let near =
            |[most, least]: [f64; 2], granted: f64| (most - granted).abs() <= 0.51 && (least + granted).abs() <= 0.51;
        assert!(near(errors((-3.0f64).exp(), || number(-3.0).exp()), 9.0));
        assert!(near(errors(1.0, || number(0.0).exp()), 3.0));
        assert!(near(errors(2.0 / 7.0, || number(2.0) / number(7.0)), 2.5));
        assert!(near(errors(8f64.ln(), || number(8.0).ln()), 3.0));
        assert!(near(errors(1.5f64.ln(), || number(1.5).ln()), LOGARITHM_NEAR_0 / ULP / 1.5f64.ln()));
        assert!(near(errors(0.1, || Granted::new(0.1)), COMPUTED));
        assert_eq!(errors(0.125, || Granted::new(0.125)), [0.0; 2], "what f32 holds");
    }

    #[test]
    fn sums_and_products_are_off_by_rounding() {
        let [most, least] = errors(0.75, || Granted(0.5) + Granted(0.25));
        assert!((0.0..=1.0).contains(&most) && (-1.0..=0.0).contains(&least) && most > least, "{most}, {least}");
        Granted::start(0, true);
        let product = (Granted(3.0) * Granted(5.0)).to_f64();
        assert!(product != 15.0 && (product - 15.0).abs() <= 15.0 * F16_PRODUCT, "{product}");
    }

    #[test]
    fn nothing_and_the_infinite_stay() {
        for seed in 0..8 {
            Granted::start(seed, false);
            assert_eq!((Granted(f32::NEG_INFINITY).exp().0, (Granted(0.0) * Granted(2.0)).0), (0.0, 0.0));
            assert_eq!(
                (Granted::new(f64::NEG_INFINITY).0, Granted(0.0).ln().0),
                (f32::NEG_INFINITY, f32::NEG_INFINITY)
            );
        }
    }
}
