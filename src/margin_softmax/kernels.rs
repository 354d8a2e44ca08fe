//! The kernels of margin softmax: the source of each specialization, and the numbers they are given.

use super::config::Form;
use super::plan::{Problem, TILES, Tile};
use super::{Arc, Margin, MarginSoftmax, MarginSoftmaxConfig, MarginSoftmaxShapes, Reduction};
use crate::dispatch::Value;
use crate::wgsl::{self, Constant, Specialization, source};

pub(super) const COMBINE_WORKGROUP: u32 = 64;
pub(super) const REDUCE_WORKGROUP: u32 = 256;

/// The kernel that walks the classes.
pub(super) fn forward(config: &MarginSoftmaxConfig, problem: &Problem, tile: &Tile) -> Specialization {
    let [a, b] = ["features", "weights"].map(|name| (problem.is_vec4(&[name]), problem.storage(name)));
    let shapes = &problem.shapes;
    Specialization {
        kernel: source!("margin_softmax/forward"),
        constants: vec![
            ("ROW_GROUPS", Constant::U32(tile.groups[0])),
            ("COLUMN_GROUPS", Constant::U32(tile.groups[1])),
            ("ROW_BLOCKS", Constant::U32(tile.blocks[0])),
            ("COLUMN_BLOCKS", Constant::U32(tile.blocks[1])),
            ("DEPTH", Constant::U32(tile.depth)),
            ("NORMALIZE", Constant::Bool(config.normalize)),
            ("METRIC", Constant::Bool(config.margin.terms().form == Form::Metric)),
            ("ENTROPY", Constant::Bool(shapes.entropy)),
        ],
        fragments: vec![
            if a.0 { source!("matmul/a_vec4") } else { source!("matmul/a_scalar") },
            if b.0 { source!("matmul/b_transposed_vec4") } else { source!("matmul/b_scalar") },
            if shapes.predicted { source!("margin_softmax/best") } else { source!("margin_softmax/no_best") },
            source!("shared/workgroup_index"),
        ],
        storage: Vec::new(),
    }
    .of(problem, &[("a", a.1), ("b", b.1)])
}

/// The kernel that ends each row.
pub(super) fn combine(config: &MarginSoftmaxConfig, problem: &Problem) -> Specialization {
    let shapes = &problem.shapes;
    let terms = config.margin.terms();
    let pick = |on: bool, yes, no| if on { yes } else { no };
    Specialization {
        kernel: source!("margin_softmax/combine"),
        constants: vec![
            ("WORKGROUP", Constant::U32(COMBINE_WORKGROUP)),
            ("FORM", Constant::U32(terms.form as u32)),
            ("TIMES", Constant::U32(terms.times)),
        ],
        fragments: vec![
            source!("margin_softmax/margin"),
            pick(shapes.lse, source!("margin_softmax/lse"), source!("margin_softmax/no_lse")),
            pick(shapes.entropy, source!("margin_softmax/entropy"), source!("margin_softmax/no_entropy")),
            pick(shapes.predicted, source!("margin_softmax/predicted"), source!("margin_softmax/no_predicted")),
            source!("shared/workgroup_index"),
        ],
        storage: Vec::new(),
    }
}

/// The kernel that makes one loss of all.
pub(super) fn reduce(config: &MarginSoftmaxConfig) -> Specialization {
    let mean = config.reduction == Reduction::Mean;
    Specialization {
        kernel: source!("margin_softmax/reduce"),
        constants: vec![("WORKGROUP", Constant::U32(REDUCE_WORKGROUP)), ("MEAN", Constant::Bool(mean))],
        fragments: vec![source!("shared/workgroup_index")],
        storage: Vec::new(),
    }
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

/// Every specialization that a plan can pick; all margins with every output and with none.
#[doc(hidden)]
#[must_use]
pub fn specializations() -> Vec<Specialization> {
    let margins = [
        Margin::None,
        Margin::Angular { m: 0.5, beyond: Arc::Monotone },
        Margin::Angular { m: 0.5, beyond: Arc::Easy },
        Margin::Metric { m: 0.1 },
    ];
    let times = (1..=4)
        .flat_map(|m| [Margin::Sphere { m }, Margin::SphereMin { m }, Margin::Combined { m1: m, m2: 0.5, m3: 0.1 }]);
    let mut found = Vec::new();
    for flags in 0..8u32 {
        let on = |bit: u32| flags >> bit & 1 == 1;
        let shapes =
            MarginSoftmaxShapes { lse: on(0), entropy: on(1), predicted: on(2), ..MarginSoftmaxShapes::new(8, 8, 8) };
        let others = margins.into_iter().skip(1).chain(times.clone()).filter(|_| [0, 7].contains(&flags));
        for margin in std::iter::once(Margin::None).chain(others) {
            for reduction in [Reduction::Mean, Reduction::Sum] {
                let config = MarginSoftmaxConfig::new().margin(margin).reduction(reduction).normalize(!on(0));
                let mut problem = Problem::contiguous::<MarginSoftmax>(&config, shapes);
                found.extend([combine(&config, &problem), reduce(&config)]);
                for (index, tile) in TILES.iter().enumerate() {
                    // Ways to lie: all of the first tile, and of the others fours or not.
                    for lies in if index == 0 { vec![0, 1, 2, 3] } else { vec![0, 3] } {
                        for (bit, name) in ["features", "weights"].into_iter().enumerate() {
                            problem.change(name, |layout| layout.shape[1] = if lies >> bit & 1 == 1 { 7 } else { 8 });
                        }
                        found.push(forward(&config, &problem, tile));
                    }
                }
            }
        }
    }
    wgsl::distinct(found)
}
