//! The kernels of the softmax and of its backward pass: the source of each specialization.

use super::backward::{self, SoftmaxBackward};
use super::{Softmax, SoftmaxBackwardShapes, SoftmaxConfig, SoftmaxKind, SoftmaxScale, SoftmaxShapes};
use crate::op::{Problem, Shapes};
use crate::wgsl::{self, Constant, Source, Specialization, source};

pub(super) const WORKGROUP: u32 = 256;

/// Invocations that share a row, and fours of columns that each takes at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tile {
    pub lanes: u32,
    quads: u32,
    /// Whether they are the whole row, and stay in registers.
    pub kept: bool,
}

impl Tile {
    /// Of rows that are kept, the narrowest first: neighbours read fours side by side, then each takes several.
    const KEPT: [[u32; 2]; 6] = [[1, 1], [4, 1], [16, 1], [16, 4], [64, 4], [256, 4]];
    const LONG: Self = Self { lanes: WORKGROUP, quads: 4, kept: false };

    pub fn of(columns: u32) -> Self {
        let mut kept = Self::KEPT.iter().map(|&[lanes, quads]| Self { lanes, quads, kept: true });
        kept.find(|tile| tile.columns() >= columns).unwrap_or(Self::LONG)
    }

    /// Columns that a row's invocations take at a time.
    pub fn columns(self) -> u32 {
        4 * self.lanes * self.quads
    }
}

/// What a dispatch does of a walk over rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// All of it.
    Whole,
    /// The statistics of splits of rows.
    Reduce,
    /// What follows from them.
    Apply,
}

/// What a forward and a backward walk over rows differ in, and what operands do to both.
pub(super) struct Walk {
    pub vec4: bool,
    pub mask: bool,
    pub row_scale: bool,
    pub taylor: bool,
    pub log: bool,
    /// Whether the number of columns that the mask leaves is counted.
    pub count: bool,
    pub entropy: bool,
    /// How the gradient of p is read.
    dp: &'static Source,
    /// What follows from the statistics.
    result: Vec<&'static Source>,
}

fn pick(on: bool, yes: &'static Source, no: &'static Source) -> &'static Source {
    if on { yes } else { no }
}

impl Walk {
    pub fn forward(config: &SoftmaxConfig, problem: &Problem<SoftmaxShapes>) -> Self {
        let shapes = &problem.shapes;
        let vec4 = problem.is_vec4(&["x", "mask", "p"]);
        Self {
            vec4,
            mask: shapes.mask,
            row_scale: shapes.row_scale.is_some(),
            taylor: config.kind == SoftmaxKind::Taylor,
            log: config.log,
            count: shapes.mask && config.scale.terms().log_n,
            entropy: shapes.entropy,
            dp: source!("softmax/no_dp"),
            result: vec![
                source!("softmax/forward"),
                source!("softmax/row"),
                pick(vec4, source!("softmax/p_vec4"), source!("softmax/p_scalar")),
                pick(shapes.lse, source!("softmax/lse"), source!("softmax/no_lse")),
                pick(shapes.entropy, source!("softmax/entropy"), source!("softmax/no_entropy")),
            ],
        }
    }

    pub fn backward(config: &SoftmaxConfig, problem: &Problem<SoftmaxBackwardShapes>) -> Self {
        let shapes = &problem.shapes;
        let vec4 = problem.is_vec4(&["x", "mask", "dp", "dx"]);
        let of_dp = pick(vec4, source!("softmax/dp_vec4"), source!("softmax/dp_scalar"));
        let of_dx = pick(vec4, source!("softmax/dx_vec4"), source!("softmax/dx_scalar"));
        Self {
            vec4,
            mask: shapes.mask,
            row_scale: shapes.row_scale.is_some(),
            taylor: config.kind == SoftmaxKind::Taylor,
            log: config.log,
            count: shapes.mask && config.scale.terms().log_n,
            entropy: shapes.dentropy,
            dp: pick(shapes.dp, of_dp, source!("softmax/no_dp")),
            result: vec![
                source!("softmax/backward"),
                source!("softmax/row"),
                pick(shapes.dx, of_dx, source!("softmax/no_dx")),
                pick(shapes.dlse, source!("softmax/dlse"), source!("softmax/no_dlse")),
                pick(shapes.dentropy, source!("softmax/dentropy"), source!("softmax/no_dentropy")),
                pick(shapes.drow_scale, source!("softmax/slopes"), source!("softmax/no_slopes")),
            ],
        }
    }

    pub fn kernel<S: Shapes>(&self, problem: &Problem<S>, tile: Tile, stage: Stage) -> Specialization {
        let (reduce, apply) = (stage != Stage::Apply, stage != Stage::Reduce);
        let masks = pick(self.vec4, source!("softmax/mask_vec4"), source!("softmax/mask_scalar"));
        let counted = self.count && stage == Stage::Reduce;
        let mut fragments = vec![
            pick(self.vec4, source!("softmax/quads_vec4"), source!("softmax/quads_scalar")),
            pick(self.mask, masks, source!("softmax/no_mask")),
            pick(self.row_scale && reduce, source!("softmax/row_scale"), source!("softmax/no_row_scale")),
            pick(counted, source!("softmax/counts"), source!("softmax/no_counts")),
            match stage {
                Stage::Whole => source!("softmax/no_partials"),
                Stage::Reduce => source!("softmax/partials_write"),
                Stage::Apply => source!("softmax/partials_read"),
            },
            self.dp,
            source!("shared/workgroup_index"),
        ];
        if apply {
            fragments.extend(&self.result);
        } else {
            fragments.push(source!("softmax/no_result"));
        }
        Specialization {
            kernel: source!("softmax/rows"),
            constants: vec![
                ("WORKGROUP", Constant::U32(WORKGROUP)),
                ("LANES", Constant::U32(tile.lanes)),
                ("QUADS", Constant::U32(tile.quads)),
                ("KEPT", Constant::Bool(tile.kept)),
                ("REDUCE", Constant::Bool(reduce)),
                ("APPLY", Constant::Bool(apply)),
                ("COUNT", Constant::Bool(self.count && reduce)),
                ("TAYLOR", Constant::Bool(self.taylor)),
                ("LOG", Constant::Bool(self.log)),
                ("ENTROPY", Constant::Bool(self.entropy)),
                ("Elem", Constant::Type(if self.vec4 { "vec4<f32>" } else { "f32" })),
            ],
            fragments,
            storage: Vec::new(),
        }
        .of(problem, &[])
    }
}

/// The kernel that counts what the mask leaves of rows that are split.
pub(super) fn count() -> Specialization {
    let constants = vec![("WORKGROUP", Constant::U32(WORKGROUP))];
    let fragments = vec![source!("shared/workgroup_index")];
    Specialization { kernel: source!("softmax/count"), constants, fragments, storage: Vec::new() }
}

/// The kernel that sums the gradients of one number.
pub(super) fn sum() -> Specialization {
    Specialization { kernel: source!("softmax/sum"), ..count() }
}

/// The kernels of a walk that a plan can pick: where `few` options are on or off, those of every tile and stage, for vec4s and not.
fn kernels<S: Shapes>(
    found: &mut Vec<Specialization>,
    problem: &mut Problem<S>,
    few: bool,
    walk: impl Fn(&Problem<S>) -> Walk,
) {
    found.push(walk(problem).kernel(problem, Tile::LONG, Stage::Whole));
    for start in (0..2).filter(|_| few) {
        problem.change("x", |layout| layout.start = start);
        let walk = walk(problem);
        for columns in [4, 16, 64, 256, 1024, 4096] {
            found.push(walk.kernel(problem, Tile::of(columns), Stage::Whole));
        }
        for stage in [Stage::Whole, Stage::Reduce, Stage::Apply] {
            found.push(walk.kernel(problem, Tile::LONG, stage));
        }
    }
}

/// Every specialization of the forward pass that a plan can pick, options in pairs.
#[doc(hidden)]
#[must_use]
pub fn specializations() -> Vec<Specialization> {
    let mut found = vec![count()];
    for flags in 0..1u32 << 7 {
        let on = |bit: u32| flags >> bit & 1 == 1;
        let (lse, entropy) = (on(0), on(1));
        let row_scale = on(3).then_some(1);
        let shapes = SoftmaxShapes { mask: on(2), row_scale, lse, entropy, ..SoftmaxShapes::new(2, 64) };
        let scale = if on(4) { SoftmaxScale::KappaLogN { kappa: 1.0 } } else { SoftmaxScale::default() };
        let kind = if on(6) { SoftmaxKind::Taylor } else { SoftmaxKind::Softmax };
        let config = SoftmaxConfig::new().kind(kind).scale(scale).log(on(5));
        let mut problem = Problem::contiguous::<Softmax>(&config, shapes);
        let few = [0, 0b100, 0b11_0111, 0b11_1111, 0b111_1111].contains(&flags);
        kernels(&mut found, &mut problem, few, |problem| Walk::forward(&config, problem));
    }
    wgsl::distinct(found)
}

/// Every specialization of the backward pass that a plan can pick, options in pairs.
#[doc(hidden)]
#[must_use]
pub fn backward_specializations() -> Vec<Specialization> {
    let mut found = vec![count(), sum()];
    for flags in 0..1u32 << 10 {
        let on = |bit: u32| flags >> bit & 1 == 1;
        let shapes = SoftmaxBackwardShapes {
            mask: on(0),
            row_scale: on(1).then_some(1),
            dp: on(2),
            dlse: on(3),
            dentropy: on(4),
            dx: on(5),
            drow_scale: on(6),
            ..SoftmaxBackwardShapes::new(2, 64)
        };
        let scale = if on(7) { SoftmaxScale::KappaLogN { kappa: 1.0 } } else { SoftmaxScale::default() };
        let kind = if on(9) { SoftmaxKind::Taylor } else { SoftmaxKind::Softmax };
        let config = SoftmaxConfig::new().kind(kind).scale(scale).log(on(8));
        // What most ask for; and beside it and all there is, each option and each pair.
        let plain = 0b0010_0100;
        let few = [plain, plain | 1, 0b1_1111_1111, 0b11_1111_1111].contains(&flags);
        let apart = (flags ^ plain).count_ones().min(10 - flags.count_ones());
        if apart <= 2 && backward::plan::makes_sense(&shapes) {
            let mut problem = Problem::contiguous::<SoftmaxBackward>(&config, shapes);
            kernels(&mut found, &mut problem, few, |problem| Walk::backward(&config, problem));
        }
    }
    wgsl::distinct(found)
}
