//! The kernels of margin softmax: the source of each specialization, and the numbers they are given.

use super::config::{Form, Terms};
use super::plan::Problem;
use super::{Arc, Margin, MarginSoftmax, MarginSoftmaxConfig, MarginSoftmaxShapes, Reduction};
use crate::dispatch::Value;
use crate::op::{self, Shapes};
use crate::tensor::Layout;
use crate::wgsl::{self, Constant, Source, Specialization, fours, optional, source};

const WORKGROUP: u32 = 256;
/// Rows of a workgroup of those kernels where an invocation owns one.
pub(super) const ROWS: u32 = 64;

/// A file of this op, by the pieces of its name.
macro_rules! own {
    ($($name:literal),*) => { $crate::wgsl::source!("margin_softmax/", $($name),*) };
}

pub(super) use own;

pub(super) fn specialization(
    kernel: &'static Source,
    constants: &[(&'static str, Constant)],
    fragments: &[&'static Source],
) -> Specialization {
    let fragments = [fragments, &[source!("shared/workgroup_index")]].concat();
    Specialization { kernel, constants: constants.to_vec(), fragments, storage: Vec::new() }
}

/// Invocations that share a row of so many fours: few, so that each takes several of them before they wait for each other.
pub(super) fn lanes(fours: u32) -> u32 {
    match fours {
        0..=64 => 4,
        65..=256 => 16,
        257..=2048 => 64,
        _ => WORKGROUP,
    }
}

/// Rows of a workgroup.
pub(super) fn rows_of(fours: u32) -> u32 {
    WORKGROUP / lanes(fours)
}

/// Invocations that share a row of a matrix: few, so that each adds up several fours before they wait for each other.
fn norm_lanes(dim: u32) -> u32 {
    lanes(dim.div_ceil(4 * 8))
}

/// Rows of a workgroup of [`norms`].
pub(super) fn norm_rows(dim: u32) -> u32 {
    WORKGROUP / norm_lanes(dim)
}

/// The kernel of the norms of a matrix's rows.
pub(super) fn norms(layout: &Layout) -> Specialization {
    let vec4 = layout.is_vec4();
    let constants = [
        ("WORKGROUP", Constant::U32(WORKGROUP)),
        ("LANES", Constant::U32(norm_lanes(layout.shape[1]))),
        ("Elem", Constant::Type(if vec4 { "vec4<f32>" } else { "f32" })),
    ];
    let load = fours!(vec4, "margin_softmax/", "x");
    specialization(own!("norms"), &constants, &[load]).stored([("x", layout.storage)])
}

/// Where margins come from: a fragment's constants.
pub(super) fn given_margins<S: Shapes>(terms: &Terms, problem: &op::Problem<S>) -> [(&'static str, Constant); 2] {
    let given = problem.has("class_margins") || problem.has("row_margins");
    [("GIVEN", Constant::Bool(given)), ("ANGLE", Constant::Bool(given && terms.turns))]
}

/// The kernel that starts each row.
pub(super) fn start<S: Shapes>(config: &MarginSoftmaxConfig, problem: &op::Problem<S>) -> Specialization {
    let [_, angle] = given_margins(&config.margin.terms(), problem);
    let margins = match (problem.has("class_margins"), problem.has("row_margins")) {
        (true, _) => own!("class_margins"),
        (_, true) => own!("row_margins"),
        _ => own!("no_margins"),
    };
    let weights = optional!(problem.has("class_weights"), "margin_softmax/", "class_weights");
    let fragments = [own!("target"), own!("state"), weights, margins, numbers(problem)];
    let constants = [("WORKGROUP", Constant::U32(ROWS)), angle, ("SAMPLED", Constant::Bool(problem.has("sampled")))];
    specialization(own!("start"), &constants, &fragments).of(problem, &[])
}

/// The numbers of the classes that take part, by their places.
pub(super) fn numbers<S: Shapes>(problem: &op::Problem<S>) -> &'static Source {
    optional!(problem.has("sampled"), "margin_softmax/", "sampled")
}

/// The bias of the classes that take part.
pub(super) fn bias<S: Shapes>(problem: &op::Problem<S>) -> Vec<&'static Source> {
    if problem.has("bias") { vec![own!("bias"), numbers(problem)] } else { vec![own!("no_bias")] }
}

/// The kernel that brings the rows of listed classes together.
pub(super) fn gather(layout: &Layout) -> Specialization {
    let vec4 = layout.is_vec4();
    let constants =
        [("WORKGROUP", Constant::U32(ROWS)), ("Elem", Constant::Type(if vec4 { "vec4<f32>" } else { "f32" }))];
    let load = fours!(vec4, "margin_softmax/", "x");
    let fragments = [load, own!("sampled"), own!("listed_rows")];
    specialization(own!("gather"), &constants, &fragments).stored([("x", layout.storage)])
}

/// The kernel that walks a chunk, whose splits have so many fours; `vec4` is how it may write the logits.
pub(super) fn rows(config: &MarginSoftmaxConfig, problem: &Problem, fours: u32, vec4: bool) -> Specialization {
    let constants = [
        ("WORKGROUP", Constant::U32(WORKGROUP)),
        ("LANES", Constant::U32(lanes(fours))),
        ("CENTRES", Constant::U32(config.centres)),
        ("NORMALIZE", Constant::Bool(config.normalize)),
        ("DISTANCES", Constant::Bool(config.margin.terms().form == Form::Metric)),
        ("ENTROPY", Constant::Bool(problem.shapes.entropy)),
    ];
    let mut fragments = bias(problem);
    fragments.extend([
        own!("target"),
        own!("state"),
        if config.centres == 1 { own!("one_centre") } else { own!("centres") },
        match (problem.shapes.logits, vec4) {
            (true, true) => own!("logits_vec4"),
            (true, false) => own!("logits_scalar"),
            (false, _) => own!("no_logits"),
        },
    ]);
    specialization(own!("rows"), &constants, &fragments).of(problem, &[])
}

/// The kernel that ends each row.
pub(super) fn finish(config: &MarginSoftmaxConfig, problem: &Problem) -> Specialization {
    let (shapes, terms) = (&problem.shapes, config.margin.terms());
    let [given, angle] = given_margins(&terms, problem);
    let constants = [
        ("WORKGROUP", Constant::U32(ROWS)),
        ("FORM", Constant::U32(terms.form as u32)),
        ("TIMES", Constant::U32(terms.times)),
        given,
        angle,
    ];
    let mut fragments = vec![
        own!("target"),
        own!("state"),
        own!("margin"),
        if config.reduction == Reduction::None { own!("loss") } else { own!("losses") },
        optional!(shapes.lse, "margin_softmax/", "lse"),
        optional!(shapes.entropy, "margin_softmax/", "entropy"),
        optional!(shapes.predicted, "margin_softmax/", "predicted"),
        optional!(shapes.others, "margin_softmax/", "others"),
    ];
    fragments.extend(shapes.predicted.then(|| numbers(problem)));
    specialization(own!("finish"), &constants, &fragments)
}

/// The kernel that makes one loss of some, the `last` time of all.
pub(super) fn reduce(config: &MarginSoftmaxConfig, last: bool) -> Specialization {
    let mean = last && config.reduction == Reduction::Mean;
    let constants = [("LAST", Constant::Bool(last)), ("MEAN", Constant::Bool(mean))];
    specialization(own!("reduce"), &[&[("WORKGROUP", Constant::U32(WORKGROUP))][..], &constants].concat(), &[])
}

/// The numbers of the margin, and the scale.
pub(super) fn margin_values(config: &MarginSoftmaxConfig) -> Vec<(&'static str, Value)> {
    let terms = config.margin.terms();
    // The ends of the parts, of which the last is behind every cosine.
    let end = |part: u32| {
        let angle = f64::from(part) * std::f64::consts::PI / f64::from(terms.times);
        if part < terms.times { angle.cos() } else { f64::MIN }
    };
    let numbers = [
        ("scale", config.scale.into()),
        ("off", terms.off),
        ("cosine", terms.angle.cos()),
        ("sine", terms.angle.sin()),
        ("fall", terms.angle * terms.angle.sin()),
        ("end_1", end(1)),
        ("end_2", end(2)),
        ("end_3", end(3)),
    ];
    numbers.map(|(name, number): (_, f64)| (name, Value::from(number.max(f32::MIN.into()) as f32))).into()
}

/// A margin of every kind.
pub(super) fn every_margin() -> impl Iterator<Item = Margin> {
    let arcs = [Arc::Plain, Arc::Monotone, Arc::Easy].map(|beyond| Margin::Angular { m: 0.5, beyond });
    let of_times = |m| [Margin::Sphere { m }, Margin::SphereMin { m }, Margin::Combined { m1: m, m2: 0.5, m3: 0.1 }];
    let others = [Margin::None, Margin::Cosine { m: 0.5 }, Margin::Metric { m: 0.5 }];
    others.into_iter().chain(arcs).chain((1..=4).flat_map(of_times))
}

/// Every specialization that a plan can pick; of options some together.
#[doc(hidden)]
#[must_use]
pub fn specializations() -> Vec<Specialization> {
    let mut found = Vec::new();
    for flags in 0..1u32 << 10 {
        let on = |bit: u32| flags >> bit & 1 == 1;
        // What most ask for, and all there is; beside either, each option and each pair.
        if flags.count_ones().min(10 - flags.count_ones()) > 2 {
            continue;
        }
        let shapes = MarginSoftmaxShapes {
            bias: on(0),
            class_weights: on(1),
            lse: on(2),
            entropy: on(3),
            predicted: on(4),
            others: on(5),
            logits: on(6) && !on(9),
            sampled: on(9).then_some(4),
            ..MarginSoftmaxShapes::new(8, 8, 8)
        };
        let margins = every_margin().filter(|_| [0, (1 << 9) - 1, (1 << 10) - 1].contains(&flags));
        for margin in std::iter::once(Margin::None).chain(margins) {
            for [class_margins, row_margins] in [[false, false], [true, false], [false, true]] {
                if (class_margins || row_margins) && margin.with(0.5).is_none() {
                    continue;
                }
                let centres = if on(7) { 2 } else { 1 };
                let config = MarginSoftmaxConfig::new().margin(margin).normalize(!on(8)).centres(centres);
                let shapes = MarginSoftmaxShapes { class_margins, row_margins, ..shapes };
                let problem = Problem::contiguous::<MarginSoftmax>(&config, shapes);
                found.push(start(&config, &problem));
                for reduction in [Reduction::None, Reduction::Mean, Reduction::Sum] {
                    let config = config.reduction(reduction);
                    found.extend([finish(&config, &problem), reduce(&config, false), reduce(&config, true)]);
                }
                let sizes =
                    [1, 100, 1000, 10_000].into_iter().flat_map(|fours| [true, false].map(|vec4| (fours, vec4)));
                found.extend(sizes.map(|(fours, vec4)| rows(&config, &problem, fours, vec4)));
            }
        }
    }
    for dim in [1, 4, 4000, 4001, 40_000, 40_001] {
        let layout = Layout::contiguous(&[8, dim], crate::dtype::Storage::Plain(crate::DType::F32));
        found.extend([norms(&layout), gather(&layout)]);
    }
    wgsl::distinct(found)
}
