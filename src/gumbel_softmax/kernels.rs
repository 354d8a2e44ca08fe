//! The kernels of Gumbel-softmax, forward and backward: the source of each specialization.

use super::{GumbelKind, GumbelSoftmax, GumbelSoftmaxConfig, GumbelSoftmaxShapes};
use crate::op::{Problem, Shapes};
use crate::top_k::Share;
use crate::wgsl::{self, Constant, Source, Specialization, fours, optional, pick, source};

pub(super) const WORKGROUP: u32 = 256;
pub(super) const PREPARE_WORKGROUP: u32 = 64;

/// The kernels that walk columns, and what a pass does there.
#[derive(Clone, Debug)]
pub(super) struct Walk {
    /// Invocations that share a row, where a workgroup has several.
    pub lanes: u32,
    /// Whether rows have a state of their own, which [`prepare`] left.
    pub prepared: bool,
    /// What is summed over a row.
    pub sums: &'static Source,
    /// What a column adds to it.
    pub terms: Vec<&'static Source>,
    /// Whether what is written of a column depends on its score.
    pub rescored: bool,
    /// What is written.
    pub write: Vec<&'static Source>,
}

impl Walk {
    fn kernel<S: Shapes>(
        &self,
        problem: &Problem<S>,
        kernel: &'static Source,
        own: &[&'static Source],
    ) -> Specialization {
        let mut fragments = vec![
            source!("gumbel_softmax/params"),
            source!("gumbel_softmax/state"),
            source!("gumbel_softmax/gumbel"),
            source!("gumbel_softmax/philox"),
            source!("gumbel_softmax/row"),
            self.sums,
            pick(self.prepared, source!("gumbel_softmax/row_state"), source!("gumbel_softmax/row_key")),
        ];
        fragments.extend(self.prepared.then_some(source!("shared/order")));
        fragments.extend(own);
        fragments.push(source!("shared/workgroup_index"));
        let lanes = if kernel.path == "gumbel_softmax/rows" { self.lanes } else { WORKGROUP };
        let constants =
            vec![("WORKGROUP", Constant::U32(WORKGROUP)), ("LANES", Constant::U32(lanes)), ("Elem", elem(problem))];
        Specialization { kernel, constants, fragments, storage: Vec::new() }.of(problem, &[])
    }

    /// What finds scores, and what they add.
    fn scores<S: Shapes>(&self, problem: &Problem<S>) -> Vec<&'static Source> {
        let mut fragments = vec![source!("gumbel_softmax/scores")];
        fragments.extend(logits(problem));
        fragments.extend(&self.terms);
        fragments
    }

    /// Whole rows.
    pub fn rows<S: Shapes>(&self, problem: &Problem<S>) -> Specialization {
        let own = [&self.scores(problem)[..], &[source!("gumbel_softmax/search")], &self.write].concat();
        self.kernel(problem, source!("gumbel_softmax/rows"), &own)
    }

    /// The state of each slice of a row.
    pub fn slices<S: Shapes>(&self, problem: &Problem<S>) -> Specialization {
        let own = [source!("gumbel_softmax/search"), source!("gumbel_softmax/store_partial")];
        self.kernel(problem, source!("gumbel_softmax/slices"), &[&self.scores(problem)[..], &own].concat())
    }

    /// What is written, by the states of all slices. What is not read there has no binding.
    pub fn combine<S: Shapes>(&self, problem: &Problem<S>) -> Specialization {
        let scores = if self.rescored { self.scores(problem) } else { Vec::new() };
        let own = [&scores[..], &self.write, &[source!("gumbel_softmax/load_partial")]].concat();
        self.kernel(problem, source!("gumbel_softmax/combine"), &own)
    }
}

fn elem<S: Shapes>(problem: &Problem<S>) -> Constant {
    Constant::Type(if problem.is_vec4(&["logits"]) { "vec4<f32>" } else { "f32" })
}

fn logits<S: Shapes>(problem: &Problem<S>) -> [&'static Source; 3] {
    [
        source!("gumbel_softmax/logits"),
        fours!(problem.is_vec4(&["logits"]), "gumbel_softmax/", "logits"),
        optional!(problem.has("mask"), "gumbel_softmax/", "mask"),
    ]
}

/// What rows have of their own, in one buffer.
pub(super) fn prepare<S: Shapes>(problem: &Problem<S>) -> Specialization {
    let id = pick(problem.has("seeds"), source!("gumbel_softmax/seed_is_id"), source!("gumbel_softmax/no_row_ids"));
    Specialization {
        kernel: source!("gumbel_softmax/prepare"),
        constants: vec![("WORKGROUP", Constant::U32(PREPARE_WORKGROUP))],
        fragments: vec![
            optional!(problem.has("tau"), "gumbel_softmax/", "tau"),
            optional!(problem.has("seeds"), "gumbel_softmax/", "seeds"),
            pick(problem.has("row_ids"), source!("gumbel_softmax/row_ids"), id),
            source!("shared/workgroup_index"),
        ],
        storage: Vec::new(),
    }
}

/// Which logits are the k largest.
pub(super) fn top_k<S: Shapes>(problem: &Problem<S>, share: Share) -> Specialization {
    let mut fragments = vec![source!("gumbel_softmax/ranks")];
    fragments.extend(logits(problem));
    crate::top_k::kernel(share, elem(problem), fragments).of(problem, &[])
}

/// Invocations that share a row of so many columns: one for each four, as far as a workgroup has them.
pub(super) fn lanes(columns: u32) -> u32 {
    columns.div_ceil(4).next_power_of_two().min(WORKGROUP)
}

/// Whether rows have anything of their own.
pub(super) fn is_prepared<S: Shapes>(config: &GumbelSoftmaxConfig, problem: &Problem<S>) -> bool {
    config.top_k.is_some() || ["tau", "seeds", "row_ids"].iter().any(|name| problem.has(name))
}

/// What forward does where it walks columns.
pub(super) fn forward(config: &GumbelSoftmaxConfig, problem: &Problem<GumbelSoftmaxShapes>) -> Walk {
    let shapes = &problem.shapes;
    let mut write = vec![optional!(problem.has("index"), "gumbel_softmax/", "index")];
    if problem.has("y") || shapes.noise {
        let fours = fours!(problem.is_vec4(&["y"]), "gumbel_softmax/", "store_y");
        let y = match config.kind {
            GumbelKind::Soft => source!("gumbel_softmax/y_soft"),
            GumbelKind::Hard => source!("gumbel_softmax/y_hard"),
            GumbelKind::Sample => source!("gumbel_softmax/no_y"),
        };
        write.push(y);
        write.extend(problem.has("y").then_some(fours));
        write.push(optional!(shapes.noise, "gumbel_softmax/", "noise"));
        write.push(source!("gumbel_softmax/write"));
    } else {
        write.push(source!("gumbel_softmax/write_nothing"));
    }
    Walk {
        lanes: lanes(shapes.columns),
        prepared: is_prepared(config, problem),
        sums: source!("gumbel_softmax/sums"),
        terms: vec![source!("gumbel_softmax/terms")],
        rescored: config.kind == GumbelKind::Soft,
        write,
    }
}

/// Every specialization that a plan of forward can pick.
#[doc(hidden)]
#[must_use]
pub fn specializations() -> Vec<Specialization> {
    let mut found = Vec::new();
    let kinds = [GumbelKind::Soft, GumbelKind::Hard, GumbelKind::Sample];
    for (columns, kind) in [1, 8, 60, 130, 4096].into_iter().flat_map(|c| kinds.map(|k| (c, k))) {
        // Of one width every combination, of the others, which differ in LANES alone, some.
        for flags in (0..64_u32).step_by(if columns == 60 { 1 } else { 9 }) {
            let on = |bit: u32| flags >> bit & 1 == 1;
            let config = GumbelSoftmaxConfig::new().kind(kind).top_k(on(3).then_some(1));
            let sample = kind == GumbelKind::Sample;
            let shapes = GumbelSoftmaxShapes {
                index: on(0),
                noise: on(1),
                mask: on(2),
                taus: (on(4) && !sample).then_some(2),
                seeds: on(4),
                row_ids: on(5),
                ..GumbelSoftmaxShapes::new(2, columns)
            };
            let mut problem = Problem::contiguous::<GumbelSoftmax>(&config, shapes);
            for start in if flags % 3 == 0 { 0..2 } else { 0..1 } {
                ["logits", "y"].iter().for_each(|name| problem.change(name, |layout| layout.start = start));
                let walk = forward(&config, &problem);
                found.extend([walk.rows(&problem), walk.slices(&problem), walk.combine(&problem)]);
                found.push(prepare(&problem));
                found.extend(Share::ALL.map(|share| top_k(&problem, share)));
            }
        }
    }
    wgsl::distinct(found)
}
