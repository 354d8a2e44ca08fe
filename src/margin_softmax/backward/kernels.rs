//! The kernels of the backward pass: the source of each specialization.

use super::super::kernels::{self, every_margin, given_margins, own, specialization, start};
use super::super::{Margin, MarginSoftmaxConfig};
use super::plan::Problem;
use super::{MarginSoftmaxBackward, MarginSoftmaxBackwardShapes};
use crate::DType;
use crate::dispatch::Value;
use crate::dtype::Storage;
use crate::tensor::Layout;
use crate::wgsl::{self, Constant, Specialization, fours, optional};

/// Invocations of a workgroup.
pub(super) const ROWS: u32 = 64;
/// Rows in which an invocation of [`coefficients`] owns a class.
pub(super) const WALKED: u32 = 16;
const WEIGHTS_WORKGROUP: u32 = 256;

/// Whole numbers of a kernel.
pub(super) fn numbers<const COUNT: usize>(all: [(&'static str, u32); COUNT]) -> Vec<(&'static str, Value)> {
    all.map(|(name, number)| (name, number.into())).into()
}

/// The kernel of the sum of all weights.
pub(super) fn weights() -> Specialization {
    specialization(own!("backward_weights"), &[("WORKGROUP", Constant::U32(WEIGHTS_WORKGROUP))], &[own!("target")])
}

/// The kernel of what a row's gradients have in common.
pub(super) fn rows(problem: &Problem) -> Specialization {
    let MarginSoftmaxBackwardShapes { dlse, dentropy, .. } = problem.shapes;
    let constants = [("WORKGROUP", Constant::U32(ROWS)), ("COMES_IN", Constant::Bool(dlse || dentropy))];
    let fragments = [
        own!("target"),
        own!("row_gradient"),
        optional!(dlse, "margin_softmax/", "dlse"),
        optional!(dentropy, "margin_softmax/", "dentropy"),
    ];
    specialization(own!("backward_rows"), &constants, &fragments)
}

fn elem(layout: &Layout) -> Constant {
    Constant::Type(if layout.is_vec4() { "vec4<f32>" } else { "f32" })
}

/// The kernel that normalises features.
pub(super) fn units(config: &MarginSoftmaxConfig, layout: &Layout) -> Specialization {
    let constants =
        [("WORKGROUP", Constant::U32(ROWS)), ("NORMALIZE", Constant::Bool(config.normalize)), ("Elem", elem(layout))];
    let load = fours!(layout.is_vec4(), "margin_softmax/", "x");
    specialization(own!("unit_rows"), &constants, &[own!("row_gradient"), load]).stored([("x", layout.storage)])
}

/// The kernel that makes gradients of products.
pub(super) fn coefficients(config: &MarginSoftmaxConfig, problem: &Problem, bias_sums: bool) -> Specialization {
    let terms = config.margin.terms();
    let [given, angle] = given_margins(&terms, problem);
    let constants = [
        ("WORKGROUP", Constant::U32(ROWS)),
        ("WALKED", Constant::U32(WALKED)),
        ("CENTRES", Constant::U32(config.centres)),
        ("NORMALIZE", Constant::Bool(config.normalize)),
        ("FORM", Constant::U32(terms.form as u32)),
        ("TIMES", Constant::U32(terms.times)),
        given,
        angle,
    ];
    let mut fragments = kernels::bias(problem);
    fragments.extend([own!("row_gradient"), own!("margin"), optional!(bias_sums, "margin_softmax/", "bias_sums")]);
    specialization(own!("coefficients"), &constants, &fragments).of(problem, &[])
}

/// The kernel that sums the gradient of the bias.
pub(super) fn bias(problem: &Problem) -> Specialization {
    let constants = [("WORKGROUP", Constant::U32(ROWS)), ("SAMPLED", Constant::Bool(problem.shapes.sampled.is_some()))];
    specialization(own!("backward_bias"), &constants, &[kernels::numbers(problem)]).of(problem, &[])
}

/// Groups of rows whose sums one invocation of [`bias_parts`] makes one.
pub(super) const PART: u32 = 32;

/// The kernel that adds up parts of the sums over rows, where those are many.
pub(super) fn bias_parts() -> Specialization {
    let constants = [("WORKGROUP", Constant::U32(ROWS)), ("PART", Constant::U32(PART))];
    specialization(own!("backward_bias_parts"), &constants, &[])
}

/// Invocations that share a row of so many fours.
fn lanes(fours: u32) -> u32 {
    if fours <= 16 { 4 } else { ROWS }
}

/// Rows of a workgroup of [`finish`].
pub(super) fn finish_rows(fours: u32) -> u32 {
    ROWS / lanes(fours)
}

/// The kernel that takes sums through the norms of rows.
pub(super) fn finish(
    config: &MarginSoftmaxConfig,
    [x, gradient]: [&Layout; 2],
    of_features: bool,
    listed: bool,
) -> Specialization {
    let constants = [
        ("WORKGROUP", Constant::U32(ROWS)),
        ("LANES", Constant::U32(lanes(x.shape[1].div_ceil(4)))),
        ("NORMALIZE", Constant::Bool(config.normalize)),
        ("THROUGH", Constant::Bool(config.through_norm)),
        ("DIVIDED", Constant::Bool(!of_features)),
        ("Elem", elem(x)),
    ];
    let mut fragments = vec![
        fours!(x.is_vec4(), "margin_softmax/", "x"),
        fours!(gradient.is_vec4(), "margin_softmax/", "gradient"),
        optional!(of_features, "margin_softmax/", "broken_rows"),
        if listed { own!("listed_rows") } else { own!("all_rows") },
    ];
    fragments.extend(listed.then_some(own!("sampled")));
    fragments.extend(of_features.then_some(own!("row_gradient")));
    let stored = [("x", x.storage), ("gradient", gradient.storage)];
    specialization(own!("finish_gradient"), &constants, &fragments).stored(stored)
}

fn store(gradient: &Layout) -> &'static wgsl::Source {
    if gradient.is_vec4() { own!("gradient_vec4") } else { own!("gradient_scalar") }
}

/// The kernel that makes a gradient 0.
pub(super) fn zero(gradient: &Layout) -> Specialization {
    let kernel = specialization(own!("backward_zero"), &[("WORKGROUP", Constant::U32(ROWS))], &[store(gradient)]);
    kernel.stored([("gradient", gradient.storage)])
}

/// Every specialization that a plan can pick; of options some together.
#[must_use]
pub fn specializations() -> Vec<Specialization> {
    let mut found = vec![weights(), bias_parts()];
    for flags in 0..1u32 << 7 {
        let on = |bit: u32| flags >> bit & 1 == 1;
        // A list of classes with each other option, and with all.
        if on(6) && (3..7).contains(&flags.count_ones()) {
            continue;
        }
        let shapes = MarginSoftmaxBackwardShapes {
            bias: on(0),
            class_weights: on(1),
            dlse: on(2),
            dentropy: on(3),
            sampled: on(6).then_some(4),
            ..MarginSoftmaxBackwardShapes::new(8, 8, 8)
        };
        // Every margin with what most ask for, and with all there is.
        let margins = every_margin().filter(|margin| *margin == Margin::None || [0, (1 << 7) - 1].contains(&flags));
        for margin in margins {
            for [class_margins, row_margins] in [[false, false], [true, false], [false, true]] {
                if (class_margins || row_margins) && margin.with(0.5).is_none() {
                    continue;
                }
                let config = MarginSoftmaxConfig::new().margin(margin).normalize(!on(4));
                let config = config.centres(if on(5) { 2 } else { 1 });
                let shapes = MarginSoftmaxBackwardShapes { class_margins, row_margins, ..shapes };
                let problem = Problem::contiguous::<MarginSoftmaxBackward>(&config, shapes);
                found.extend([start(&config, &problem), rows(&problem), bias(&problem)]);
                found.extend([false, true].map(|sums| coefficients(&config, &problem, sums && shapes.bias)));
            }
        }
    }
    for flags in 0..1u32 << 4 {
        let on = |bit: u32| flags >> bit & 1 == 1;
        let config = MarginSoftmaxConfig::new().normalize(on(0)).through_norm(on(1));
        for dim in [4, 5, 100, 101] {
            let x = Layout::contiguous(&[8, dim], Storage::Plain(DType::F32));
            let gradient = Layout { start: u32::from(on(2)), ..x };
            found.extend([units(&config, &x), finish(&config, [&x, &gradient], on(3), false)]);
            found.extend([zero(&gradient), finish(&config, [&x, &gradient], false, true)]);
        }
    }
    wgsl::distinct(found)
}
