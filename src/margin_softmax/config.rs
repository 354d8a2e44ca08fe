//! What the caller asks of a margin softmax.

use std::fmt;

use crate::reference::Real;
use crate::{Error, Reduction, Result};

/// What ArcFace does where θ + m would pass π, and cos(θ + m) rise again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Arc {
    /// Nothing: ψ = cos(θ + m) everywhere.
    Plain,
    /// Beyond θ = π − m, ψ = cos θ − m sin m, which falls on; at π − m it jumps.
    #[default]
    Monotone,
    /// A margin only where cos θ > 0: ψ = cos θ elsewhere.
    Easy,
}

/// What becomes of the target's cosine c = cos θ: ψ, at most cos θ where the margin means something.
///
/// Margins that follow a feature's norm (AdaFace, MagFace) are a tensor, `row_margins`. CurricularFace changes the logits of other
/// classes too, and is not here.
///
/// ```
/// use wgpu_attention::margin_softmax::{Arc, Margin};
/// // What the ArcFace paper calls (m1, m2, m3).
/// let combined = Margin::Combined { m1: 1, m2: 0.3, m3: 0.2 };
/// assert_ne!(combined, Margin::Angular { m: 0.5, beyond: Arc::Monotone });
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Margin {
    /// ψ = cos θ: normalised softmax.
    #[default]
    None,
    /// ψ = cos θ − m: AM-Softmax and CosFace. Usual: m = 0.35.
    Cosine {
        /// Finite.
        m: f32,
    },
    /// ψ = cos(θ + m): ArcFace. Usual: m = 0.5.
    Angular {
        /// In radians; 0 to π.
        m: f32,
        /// What holds beyond θ = π − m.
        beyond: Arc,
    },
    /// ψ = (−1)ᵏ cos(mθ) − 2k for θ in [kπ/m, (k + 1)π/m]: SphereFace, A-Softmax. Usual: m = 4.
    Sphere {
        /// 1 to 4.
        m: u32,
    },
    /// ψ = min(cos mθ, cos θ): the simpler form of SphereFace of kexue.fm/archives/5743. Usual: m = 4.
    SphereMin {
        /// 1 to 4.
        m: u32,
    },
    /// ψ = cos(m₁θ + m₂) − m₃; ArcFace, equation 4.
    Combined {
        /// 1 to 4.
        m1: u32,
        /// In radians; −π to π.
        m2: f32,
        /// Finite.
        m3: f32,
    },
    /// Logits −s d_i for the others and −s (d_t + m) for the target, by the distances d = √(1 − cos θ): kexue.fm/archives/8656.
    Metric {
        /// Finite.
        m: f32,
    },
}

/// The shape of ψ; its number is the one that kernels know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Combined,
    Monotone,
    Easy,
    Piecewise,
    Least,
    Metric,
}

/// A margin in the numbers that kernels and twin compute with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Terms {
    pub form: Form,
    /// θ is multiplied by so much.
    pub times: u32,
    /// What is added to the angle.
    pub angle: f64,
    /// What is taken off the cosine.
    pub off: f64,
    /// Whether the m that a tensor may give is the angle.
    pub turns: bool,
}

impl Margin {
    pub(super) fn terms(self) -> Terms {
        let turns = matches!(self, Self::Angular { .. });
        let of = |form, times, angle: f32, off: f32| Terms { form, times, angle: angle.into(), off: off.into(), turns };
        match self {
            Self::None => of(Form::Combined, 1, 0.0, 0.0),
            Self::Cosine { m } => of(Form::Combined, 1, 0.0, m),
            Self::Angular { m, beyond: Arc::Plain } => of(Form::Combined, 1, m, 0.0),
            Self::Angular { m, beyond: Arc::Monotone } => of(Form::Monotone, 1, m, 0.0),
            Self::Angular { m, beyond: Arc::Easy } => of(Form::Easy, 1, m, 0.0),
            Self::Sphere { m } => of(Form::Piecewise, m, 0.0, 0.0),
            Self::SphereMin { m } => of(Form::Least, m, 0.0, 0.0),
            Self::Combined { m1, m2, m3 } => of(Form::Combined, m1, m2, m3),
            Self::Metric { m } => of(Form::Metric, 1, 0.0, m),
        }
    }

    /// The same with another m, of those margins that a tensor may give it to.
    pub(super) fn with(self, m: f32) -> Option<Self> {
        match self {
            Self::Cosine { .. } => Some(Self::Cosine { m }),
            Self::Angular { beyond, .. } => Some(Self::Angular { m, beyond }),
            Self::Metric { .. } => Some(Self::Metric { m }),
            _ => None,
        }
    }

    pub(super) fn check(self) -> Result<()> {
        let finite = |option, m: f32| expect(option, "a finite number", m.is_finite(), m);
        let times = |option, m: u32| expect(option, "1 to 4", (1..=4).contains(&m), m);
        let pi = std::f32::consts::PI;
        match self {
            Self::None => Ok(()),
            Self::Cosine { m } => finite("margin.cosine.m", m),
            Self::Angular { m, .. } => expect("margin.angular.m", "0 to π", (0.0..=pi).contains(&m), m),
            Self::Sphere { m } => times("margin.sphere.m", m),
            Self::SphereMin { m } => times("margin.sphere_min.m", m),
            Self::Combined { m1, m2, m3 } => {
                times("margin.combined.m1", m1)?;
                expect("margin.combined.m2", "−π to π", (-pi..=pi).contains(&m2), m2)?;
                finite("margin.combined.m3", m3)
            }
            Self::Metric { m } => finite("margin.metric.m", m),
        }
    }
}

/// What 1 − c² and 1 − c count as at least, where a derivative has no bound.
const EDGE: f64 = 1e-6;

impl Terms {
    /// The target's logit over the scale, and its derivative.
    pub fn target<T: Real>(&self, c: T) -> [T; 2] {
        let [zero, one, two, n, edge] = [0.0, 1.0, 2.0, self.times.into(), EDGE].map(T::new);
        // cos(nθ) and sin(nθ)/sin θ, by Chebyshev's recurrence.
        let [mut cosine, mut sines] = [c, one];
        let [mut cosine_before, mut sines_before] = [one, zero];
        for _ in 1..self.times {
            (cosine, cosine_before) = (two * c * cosine - cosine_before, cosine);
            (sines, sines_before) = (two * c * sines - sines_before, sines);
        }
        let square = (one - c) * (one + c);
        let [sine, root] = [square.max(zero).sqrt(), one / square.max(edge).sqrt()];
        let root = if square < -edge { zero } else { root };
        let [along, across] = [self.angle.cos(), self.angle.sin()].map(T::new);
        let turned =
            [cosine * along - sine * sines * across - T::new(self.off), n * (sines * along + cosine * root * across)];
        match self.form {
            Form::Monotone if c <= -along => [c - T::new(self.angle * self.angle.sin()), one],
            Form::Easy if c <= zero => [c, one],
            Form::Combined | Form::Monotone | Form::Easy => turned,
            Form::Piecewise => {
                let angle = |step: u32| f64::from(step) * std::f64::consts::PI / f64::from(self.times);
                let k = (1..self.times).filter(|&step| c < T::new(angle(step).cos())).count();
                let sign = T::new(if k % 2 == 0 { 1.0 } else { -1.0 });
                [sign * cosine - T::new(2.0 * k as f64), sign * n * sines]
            }
            Form::Least if cosine < c => [cosine, n * sines],
            Form::Least => [c, one],
            Form::Metric => {
                let [distance, slope] = self.other(c);
                [distance - T::new(self.off), slope]
            }
        }
    }

    /// Another class's.
    pub fn other<T: Real>(&self, c: T) -> [T; 2] {
        let [zero, one, half, edge] = [0.0, 1.0, 0.5, EDGE].map(T::new);
        let below = one - c;
        match self.form {
            Form::Metric if below < -edge => [zero, zero],
            Form::Metric => [-below.max(zero).sqrt(), half / below.max(edge).sqrt()],
            _ => [c, one],
        }
    }
}

/// In which products the backward pass makes its gradients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum GradientForm {
    /// The gradient of all features is summed in the workspace, beside that of the class weights: four products with those of the
    /// forward pass.
    #[default]
    Workspace,
    /// Rows that are more than one chunk has are in the workspace chunk by chunk, and each gradient has a sweep of its own: five
    /// products, and a workspace that does not grow with the rows either.
    Recompute,
}

/// The loss. Plain data; the kernels and the CPU twin read the same value.
///
/// ```
/// use wgpu_attention::margin_softmax::Margin;
/// use wgpu_attention::{MarginSoftmaxConfig, Reduction};
/// let config = MarginSoftmaxConfig::new().margin(Margin::Cosine { m: 0.4 }).reduction(Reduction::Mean);
/// assert_eq!(config.scale, 64.0);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case", deny_unknown_fields, default)
)]
pub struct MarginSoftmaxConfig {
    /// Default: none.
    pub margin: Margin,
    /// s, by which cosines become logits; finite and above 0. Default: 64.
    pub scale: f32,
    /// Whether features and class weights are divided by their norms. Off, they come so, or the loss is of plain products. Default:
    /// true.
    pub normalize: bool,
    /// How the losses of rows become one. Default: they do not. A mean divides by the sum of the weights of the rows that have a label
    /// (their number, without class weights), and is 0 where that is 0.
    pub reduction: Reduction,
    /// Centres that a class has, of which a row's nearest counts; 1 to 16. Default: 1.
    pub centres: u32,
    /// ε, the part of the target that all classes share alike; at least 0, below 1. Default: 0.
    pub label_smoothing: f32,
    /// ζ, by which lse² adds to a row's loss; finite, at least 0. Default: 0.
    pub z_loss: f32,
    /// Whether gradients are with respect to what comes in, or stop at the normalised rows: for whoever keeps those normalised.
    /// Default: true.
    pub through_norm: bool,
    /// In which products the backward pass makes its gradients. Default: with a workspace.
    pub form: GradientForm,
}

impl Default for MarginSoftmaxConfig {
    fn default() -> Self {
        Self {
            margin: Margin::None,
            scale: 64.0,
            normalize: true,
            reduction: Reduction::None,
            centres: 1,
            label_smoothing: 0.0,
            z_loss: 0.0,
            through_norm: true,
            form: GradientForm::Workspace,
        }
    }
}

impl MarginSoftmaxConfig {
    /// No margin, s = 64, normalised here, a loss a row.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the margin.
    #[must_use]
    pub fn margin(self, margin: Margin) -> Self {
        Self { margin, ..self }
    }

    /// Sets the scale.
    #[must_use]
    pub fn scale(self, scale: f32) -> Self {
        Self { scale, ..self }
    }

    /// Sets whether norms are divided out.
    #[must_use]
    pub fn normalize(self, normalize: bool) -> Self {
        Self { normalize, ..self }
    }

    /// Sets how the losses of rows become one.
    #[must_use]
    pub fn reduction(self, reduction: Reduction) -> Self {
        Self { reduction, ..self }
    }

    /// Sets how many centres a class has.
    #[must_use]
    pub fn centres(self, centres: u32) -> Self {
        Self { centres, ..self }
    }

    /// Sets ε of label smoothing.
    #[must_use]
    pub fn label_smoothing(self, label_smoothing: f32) -> Self {
        Self { label_smoothing, ..self }
    }

    /// Sets the factor of lse².
    #[must_use]
    pub fn z_loss(self, z_loss: f32) -> Self {
        Self { z_loss, ..self }
    }

    /// Sets whether gradients go through the norms.
    #[must_use]
    pub fn through_norm(self, through_norm: bool) -> Self {
        Self { through_norm, ..self }
    }

    /// Sets how the backward pass works.
    #[must_use]
    pub fn form(self, form: GradientForm) -> Self {
        Self { form, ..self }
    }

    /// Refuses values that mean nothing.
    ///
    /// # Errors
    /// [`Error::Config`] naming the option.
    pub fn check(&self) -> Result<()> {
        let Self { scale, centres, label_smoothing, z_loss, .. } = *self;
        expect("scale", "a finite number above 0", scale.is_finite() && scale > 0.0, scale)?;
        expect("centres", "1 to 16", (1..=16).contains(&centres), centres)?;
        let smoothing = (0.0..1.0).contains(&label_smoothing);
        expect("label_smoothing", "at least 0, below 1", smoothing, label_smoothing)?;
        expect("z_loss", "a finite number, at least 0", z_loss.is_finite() && z_loss >= 0.0, z_loss)?;
        self.margin.check()
    }
}

fn expect(option: &'static str, expected: &'static str, holds: bool, got: impl fmt::Display) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::Config { option, expected, got: got.to_string() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn margins_are_what_their_angles_say() {
        for step in 0..200 {
            let theta = (f64::from(step) + 0.5) * std::f64::consts::PI / 200.0;
            let c = theta.cos();
            let at = |margin: Margin| margin.terms().target(c)[0];
            let m = f64::from(0.5_f32);
            let close = |what: &str, got: f64, want: f64| assert!((got - want).abs() < 1e-12, "{what}: {got}, {want}");
            close("cosine", at(Margin::Cosine { m: 0.5 }), c - m);
            close("angular", at(Margin::Angular { m: 0.5, beyond: Arc::Plain }), (theta + m).cos());
            let easy = if c > 0.0 { (theta + m).cos() } else { c };
            close("easy", at(Margin::Angular { m: 0.5, beyond: Arc::Easy }), easy);
            let falls = if theta + m < std::f64::consts::PI { (theta + m).cos() } else { c - m * m.sin() };
            close("monotone", at(Margin::Angular { m: 0.5, beyond: Arc::Monotone }), falls);
            for times in 1..=4 {
                let n = f64::from(times);
                let k = (theta * n / std::f64::consts::PI).floor();
                let sign = if k % 2.0 == 0.0 { 1.0 } else { -1.0 };
                close("sphere", at(Margin::Sphere { m: times }), sign * (n * theta).cos() - 2.0 * k);
                close("least", at(Margin::SphereMin { m: times }), (n * theta).cos().min(c));
                let combined = Margin::Combined { m1: times, m2: 0.5, m3: 0.25 };
                close("combined", at(combined), (n * theta + m).cos() - 0.25);
            }
            close("metric", at(Margin::Metric { m: 0.5 }), -(1.0 - c).sqrt() - m);
        }
    }
}
