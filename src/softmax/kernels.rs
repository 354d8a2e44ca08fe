//! The kernels of the softmax and of its backward pass: the source of each specialization.

use super::backward::{self, SoftmaxBackward};
use super::sparse::{self, gather, own_of_rows};
use super::{Softmax, SoftmaxBackwardShapes, SoftmaxConfig, SoftmaxKind, SoftmaxScale, SoftmaxShapes};
use crate::dtype::{DType, Storage};
use crate::op::{Problem, Shapes};
use crate::sums;
use crate::top_k::Share;
use crate::wgsl::{self, Constant, Source, Specialization, fours, optional, pick, source};

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
    /// What rows have of their own, each where it is, if it is not gathered.
    own_of_rows: Option<[&'static Source; 6]>,
    pub taylor: bool,
    pub log: bool,
    /// Whether it is a backward pass through log p.
    even: bool,
    /// Of sparsemax and entmax, what its kernels know of α.
    pub power: Option<u32>,
    pub dalpha: bool,
    pub top_k: Option<u32>,
    /// Whether the number of columns that the mask leaves is counted.
    pub count: bool,
    pub entropy: bool,
    /// How the gradient of p is read.
    pub dp: &'static Source,
    /// What follows from the statistics.
    pub result: Vec<&'static Source>,
}

impl Walk {
    pub fn forward(config: &SoftmaxConfig, problem: &Problem<SoftmaxShapes>) -> Self {
        let (vec4, is_sparse) = (problem.is_vec4(&["x", "mask", "p"]), config.kind.alpha().is_some());
        let result = [
            fours!(vec4, "softmax/", "p"),
            optional!(problem.has("entropy"), "softmax/", "entropy"),
            optional!(problem.has("loss"), "softmax/", "loss"),
            match is_sparse {
                true => optional!(problem.has("support"), "softmax/", "support"),
                false => optional!(problem.has("lse"), "softmax/", "lse"),
            },
        ];
        let first = pick(is_sparse, source!("softmax/sparse_forward"), source!("softmax/forward"));
        let others = problem.has("loss") && !is_sparse;
        let dp = pick(others, source!("softmax/other_labels"), source!("softmax/no_dp"));
        Self::new(config, problem, vec4, dp, &[&[first], &result[..]].concat())
    }

    pub fn backward(config: &SoftmaxConfig, problem: &Problem<SoftmaxBackwardShapes>) -> Self {
        let vec4 = problem.is_vec4(&["x", "mask", "dp", "dx"]);
        let dp = pick(problem.has("dp"), fours!(vec4, "softmax/", "dp"), source!("softmax/no_dp"));
        let dx = fours!(vec4, "softmax/", "dx");
        let is_sparse = config.kind.alpha().is_some();
        let result = [
            pick(is_sparse, source!("softmax/sparse_backward"), source!("softmax/backward")),
            pick(problem.has("dx"), dx, source!("softmax/no_dx")),
            optional!(problem.has("drow_scale"), "softmax/", "slopes"),
            optional!(problem.has("dalpha"), "softmax/", "alpha_slopes"),
        ];
        Self::new(config, problem, vec4, dp, &result)
    }

    fn new<S: Shapes>(
        config: &SoftmaxConfig,
        problem: &Problem<S>,
        vec4: bool,
        dp: &'static Source,
        result: &[&'static Source],
    ) -> Self {
        let has = |name| problem.has(name);
        let (kind, top_k) = (config.kind, config.kind.top_k());
        let power = kind.alpha().map(|alpha| sparse::power(alpha, has("alpha")));
        // Of a kernel with many tensors, one for all that rows have of their own.
        let any = ["row_scale", "alpha", "labels", "dentropy"].iter().any(|&name| has(name));
        let gathered = top_k.is_some() || has("dloss") || power.is_some() && any;
        let row = power.is_none().then_some(source!("softmax/row"));
        Self {
            vec4,
            mask: has("mask"),
            own_of_rows: (!gathered).then(|| own_of_rows(problem)),
            taylor: kind == SoftmaxKind::Taylor,
            log: config.log,
            even: config.log && has("dp"),
            power,
            dalpha: has("dalpha"),
            top_k,
            count: has("mask") && config.scale.terms().log_n,
            entropy: has("entropy") || has("dentropy"),
            dp,
            result: result.iter().copied().chain(row).collect(),
        }
    }

    fn elem(&self) -> Constant {
        Constant::Type(if self.vec4 { "vec4<f32>" } else { "f32" })
    }

    /// Whether what rows have of their own is gathered before.
    pub fn is_gathered(&self) -> bool {
        self.own_of_rows.is_none()
    }

    /// How columns are read. Where a row is split, its scale is found `first`, and known later, and all else is taken `last`.
    pub fn columns(&self, is_counted: bool, first: bool, last: bool) -> Vec<&'static Source> {
        let masks = fours!(self.vec4, "softmax/", "mask");
        let counted = self.count && is_counted;
        let mut fragments = vec![
            source!("softmax/walk"),
            fours!(self.vec4, "softmax/", "quads"),
            pick(self.mask, masks, source!("softmax/no_mask")),
            optional!(counted, "softmax/", "counts"),
            pick(self.top_k.is_some(), source!("softmax/kept"), source!("softmax/all_kept")),
            source!("shared/workgroup_index"),
        ];
        if self.top_k.is_some() {
            fragments.extend([source!("softmax/scored_order"), source!("shared/order")]);
        }
        let Some([row_scale, _, labels, dloss, dlse, dentropy]) = self.own_of_rows else {
            fragments.push(source!("softmax/numbers"));
            return fragments;
        };
        let of_every_column = self.dp == source!("softmax/other_labels");
        fragments.extend([
            pick(first, row_scale, source!("softmax/no_row_scale")),
            source!("softmax/no_alpha"),
            pick(last || of_every_column, labels, source!("softmax/no_labels")),
            pick(last, dloss, source!("softmax/no_dloss")),
            pick(last, dlse, source!("softmax/no_dlse")),
            pick(last, dentropy, source!("softmax/no_dentropy")),
        ]);
        fragments
    }

    pub fn kernel<S: Shapes>(&self, problem: &Problem<S>, tile: Tile, stage: Stage) -> Specialization {
        let (reduce, apply) = (stage != Stage::Apply, stage != Stage::Reduce);
        let mut fragments = self.columns(stage == Stage::Reduce, reduce, apply);
        fragments.extend([
            match stage {
                Stage::Whole => source!("softmax/no_partials"),
                Stage::Reduce => source!("softmax/partials_write"),
                Stage::Apply => source!("softmax/partials_read"),
            },
            self.dp,
        ]);
        if apply {
            fragments.extend(&self.result);
        } else {
            fragments.push(source!("softmax/no_result"));
        }
        let mut constants = tile_constants(self, tile, reduce);
        constants.extend([
            ("REDUCE", Constant::Bool(reduce)),
            ("APPLY", Constant::Bool(apply)),
            ("TAYLOR", Constant::Bool(self.taylor)),
            ("LOG", Constant::Bool(self.log)),
            ("EVEN", Constant::Bool(self.even)),
        ]);
        Specialization { kernel: source!("softmax/rows"), constants, fragments, storage: Vec::new() }.of(problem, &[])
    }
}

/// Which scores are the k largest.
pub(super) fn top_k<S: Shapes>(walk: &Walk, problem: &Problem<S>, share: Share) -> Specialization {
    let masks = fours!(walk.vec4, "softmax/", "mask");
    let fragments = vec![
        source!("softmax/ranks"),
        source!("softmax/scored_order"),
        source!("softmax/numbers"),
        fours!(walk.vec4, "softmax/", "quads"),
        pick(walk.mask, masks, source!("softmax/no_mask")),
    ];
    crate::top_k::kernel(share, walk.elem(), fragments).of(problem, &[])
}

/// What both kernels that walk rows are made for.
pub(super) fn tile_constants(walk: &Walk, tile: Tile, scales: bool) -> Vec<(&'static str, Constant)> {
    vec![
        ("WORKGROUP", Constant::U32(WORKGROUP)),
        ("LANES", Constant::U32(tile.lanes)),
        ("QUADS", Constant::U32(tile.quads)),
        ("KEPT", Constant::Bool(tile.kept)),
        ("COUNT", Constant::Bool(walk.count && scales)),
        ("ENTROPY", Constant::Bool(walk.entropy)),
        ("Elem", walk.elem()),
    ]
}

/// The kernel that counts what the mask leaves of rows that are split.
pub(super) fn count() -> Specialization {
    let constants = vec![("WORKGROUP", Constant::U32(WORKGROUP))];
    let fragments = vec![source!("shared/workgroup_index")];
    Specialization { kernel: source!("softmax/count"), constants, fragments, storage: Vec::new() }
}

/// The kernels of a walk that a plan can pick: where `few` options are on or off, those of every tile and stage, for vec4s and not.
fn kernels<S: Shapes>(
    found: &mut Vec<Specialization>,
    problem: &mut Problem<S>,
    few: bool,
    walk: impl Fn(&Problem<S>) -> Walk,
) {
    for start in 0..if few { 2 } else { 1 } {
        problem.change("x", |layout| layout.start = start);
        let walk = walk(problem);
        found.extend(walk.is_gathered().then(|| gather(problem)));
        let shares = Share::ALL.into_iter().filter(|_| walk.top_k.is_some());
        found.extend(shares.map(|share| top_k(&walk, problem, share)));
        let columns = [4, 16, 64, 256, 1024, 4096].into_iter().filter(|_| few);
        let tiles = columns.map(Tile::of).chain([Tile::LONG]);
        if walk.power.is_some() {
            use sparse::Stage::{Largest, Round, Sums, Whole, Write};
            found.extend(tiles.map(|tile| walk.sparse_kernel(problem, tile, Whole)));
            let stages = [Largest, Round, Sums, Write].into_iter().filter(|_| few);
            found.extend(stages.map(|stage| walk.sparse_kernel(problem, Tile::LONG, stage)));
        } else {
            found.extend(tiles.map(|tile| walk.kernel(problem, tile, Stage::Whole)));
            let stages = [Stage::Reduce, Stage::Apply].into_iter().filter(|_| few);
            found.extend(stages.map(|stage| walk.kernel(problem, Tile::LONG, stage)));
        }
    }
}

/// Of kinds and flags, a plain one, all, and each option beside both, of some kinds each pair; and whether it is one of few.
fn choices(bits: u32, plain: u32) -> impl Iterator<Item = (SoftmaxKind, u32, bool)> {
    const KINDS: [SoftmaxKind; 6] = [
        SoftmaxKind::Softmax,
        SoftmaxKind::Taylor,
        SoftmaxKind::TopK { k: 2 },
        SoftmaxKind::Sparsemax,
        SoftmaxKind::Entmax { alpha: 1.5 },
        SoftmaxKind::Entmax { alpha: 1.2 },
    ];
    let all = move |kind| (0..1 << bits).map(move |flags: u32| (kind, flags));
    KINDS.into_iter().flat_map(all).filter_map(move |(kind, flags)| {
        let apart = (flags ^ plain).count_ones().min(bits - flags.count_ones());
        let most = if [KINDS[0], KINDS[5]].contains(&kind) { 2 } else { 1 };
        let few = if most == 2 { apart == 0 || flags == plain | 1 } else { flags.count_ones() == bits };
        (apart <= most).then_some((kind, flags, few))
    })
}

/// Every specialization of the forward pass that a plan can pick, options in pairs.
#[doc(hidden)]
#[must_use]
pub fn specializations() -> Vec<Specialization> {
    let mut found = vec![count()];
    for (kind, flags, few) in choices(9, 0) {
        let on = |bit: u32| flags >> bit & 1 == 1;
        let is_sparse = kind.alpha().is_some();
        let labels = on(6) && kind.has_loss();
        let shapes = SoftmaxShapes {
            mask: on(0),
            row_scale: on(3).then_some(1),
            alpha: (on(7) && matches!(kind, SoftmaxKind::Entmax { .. })).then_some(1),
            labels,
            lse: on(1) && !is_sparse,
            entropy: on(2),
            loss: labels,
            support: on(8) && is_sparse,
            ..SoftmaxShapes::new(2, 64)
        };
        let scale = if on(4) { SoftmaxScale::KappaLogN { kappa: 1.0 } } else { SoftmaxScale::default() };
        let config = SoftmaxConfig::new().kind(kind).scale(scale).log(on(5) && !is_sparse);
        let mut problem = Problem::contiguous::<Softmax>(&config, shapes);
        kernels(&mut found, &mut problem, few, |problem| Walk::forward(&config, problem));
    }
    wgsl::distinct(found)
}

/// Every specialization of the backward pass that a plan can pick, options in pairs.
#[doc(hidden)]
#[must_use]
pub fn backward_specializations() -> Vec<Specialization> {
    let mut found = vec![count(), sums::kernel(Storage::Plain(DType::F32))];
    for (kind, flags, few) in choices(11, 0b100_0100) {
        let on = |bit: u32| flags >> bit & 1 == 1;
        let is_sparse = kind.alpha().is_some();
        let alpha = (on(10) && matches!(kind, SoftmaxKind::Entmax { .. })).then_some(1);
        let labels = on(9) && kind.has_loss();
        let shapes = SoftmaxBackwardShapes {
            mask: on(0),
            row_scale: on(1).then_some(1),
            alpha,
            labels,
            dp: on(2),
            dlse: on(3) && !is_sparse,
            dentropy: on(4),
            dloss: labels,
            drow_scale: on(5),
            dx: on(6),
            dalpha: alpha.is_some(),
            ..SoftmaxBackwardShapes::new(2, 64)
        };
        let scale = if on(7) { SoftmaxScale::KappaLogN { kappa: 1.0 } } else { SoftmaxScale::default() };
        let config = SoftmaxConfig::new().kind(kind).scale(scale).log(on(8) && !is_sparse);
        if backward::plan::makes_sense(&shapes) {
            let mut problem = Problem::contiguous::<SoftmaxBackward>(&config, shapes);
            kernels(&mut found, &mut problem, few, |problem| Walk::backward(&config, problem));
        }
    }
    wgsl::distinct(found)
}
