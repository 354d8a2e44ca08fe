//! In what dispatches gradients flow back.

use super::super::chunks::{self, Chunks, ClassChunk, tensors};
use super::super::kernels::margin_values;
use super::super::plan::features;
use super::super::{GradientForm, MarginSoftmaxConfig, Reduction, shapes};
use super::kernels::{self, PART, ROWS, WALKED, numbers};
use super::{MarginSoftmaxBackward, MarginSoftmaxBackwardShapes, OPERANDS};
use crate::context::Capabilities;
use crate::dispatch::{Plan, PlanBuilder, Value, View};
use crate::matmul::{Matrix, Product};
use crate::op::{self, GivenNames, Kernels, Operand, Shapes, SizeOf};
use crate::tensor::{Layout, MAX_RANK, product};
use crate::tuning::NoOffer;
use crate::{Error, Result};

pub(super) type Problem = op::Problem<MarginSoftmaxBackwardShapes>;

impl Kernels for MarginSoftmaxBackward {
    const NAME: &'static str = "margin_softmax_backward";
    const OPERANDS: &'static [Operand] = OPERANDS;
    type Config = MarginSoftmaxConfig;
    type Shapes = MarginSoftmaxBackwardShapes;
    type Offer = NoOffer;

    fn check_config(config: &MarginSoftmaxConfig) -> Result<()> {
        config.check()
    }

    fn check(config: &MarginSoftmaxConfig, own: &MarginSoftmaxBackwardShapes) -> Result<()> {
        shapes::check(config, [own.rows, own.class_rows, own.dim], own.sampled)
    }

    fn refuses(config: &MarginSoftmaxConfig, given: &GivenNames, row: &Operand) -> Option<&'static str> {
        let none = || !["dfeatures", "dweights", "dbias"].iter().any(|name| given.output(name));
        match row.name {
            "dfeatures" if !given.on_host && none() => Some("is missing, and so is every other gradient"),
            "dbias" if given.has(row) && !given.input("bias") => Some("is given, but bias is not"),
            "dentropy" if given.has(row) && !given.input("entropy") => Some("is given, but entropy is not"),
            _ => shapes::refuses(config, given, row),
        }
    }

    fn derived(config: &MarginSoftmaxConfig, size: &SizeOf<'_>, axis: &str) -> Option<(u32, &'static str)> {
        shapes::derived(config, size, axis)
    }

    fn together(config: &MarginSoftmaxConfig) -> (u32, &'static str) {
        (config.centres, "whole classes")
    }

    fn has(_: &MarginSoftmaxConfig, shapes: &MarginSoftmaxBackwardShapes, row: &Operand) -> bool {
        match row.name {
            // A plan without tensors is one of something.
            "dfeatures" => shapes.dfeatures || !(shapes.dweights || shapes.dbias),
            name => shapes.has(name),
        }
    }

    fn build(
        plan: PlanBuilder<'_>,
        config: &MarginSoftmaxConfig,
        problem: &Problem,
        _: Option<&NoOffer>,
    ) -> Result<Plan> {
        build(plan, config, problem)
    }
}

/// Refuses gradients of class weights that are divided otherwise than these.
fn expect_same_division(problem: &Problem) -> Result<()> {
    let [given, own] = ["weights", "dweights"].map(|name| problem.list(name).map(|(layout, _)| layout.shape[0]));
    let (given, own): (Vec<_>, Vec<_>) = (given.collect(), own.collect());
    if own.is_empty() || given == own {
        return Ok(());
    }
    let problem = format!("has tensors of {own:?} class_rows, but those of weights have {given:?}");
    Err(Error::Operand { tensor: "dweights", problem })
}

/// Bytes of a workspace that are left to chunks beside what grows with the rows.
const BESIDE: u64 = 64 << 20;
/// Classes of which there are too few to add up what rows have left of each by one invocation.
const FEW_CLASSES: u32 = 1 << 14;

/// Whether all rows of features, normalised, and their gradients have room in the workspace.
fn holds_all(rows: u32, width: u32, device: &Capabilities) -> bool {
    let each = product([4, rows, width]);
    let states = product([64, rows]);
    let all = each.saturating_mul(2).saturating_add(states).saturating_add(BESIDE);
    each.max(states) <= device.workspace_room() && all <= device.options.max_workspace_bytes
}

/// Compiles the kernels and lays out their dispatches.
fn build(mut plan: PlanBuilder<'_>, config: &MarginSoftmaxConfig, problem: &Problem) -> Result<Plan> {
    expect_same_division(problem)?;
    let MarginSoftmaxBackwardShapes { rows, dim, .. } = problem.shapes;
    let class_rows = chunks::class_rows(config, problem);
    let sweep = Sweep::new(&mut plan, config, problem)?;
    if config.reduction == Reduction::Mean {
        for (first, count) in sweep.pieces() {
            sweep.start(&mut plan, first, count)?;
            sweep.weigh(&mut plan, count, first == 0)?;
        }
    }
    if sweep.holds_all && rows > 0 {
        sweep.enter(&mut plan, 0, rows)?;
    }
    let Wanted { features, weights, joint, .. } = sweep.wanted;
    if sweep.wanted.of_classes() {
        sweep.by_class(&mut plan)?;
    }
    if features && !joint && rows > 0 {
        sweep.by_row(&mut plan)?;
    }
    let sweeps = u64::from(features && !joint) + u64::from(sweep.wanted.of_classes());
    let products = sweeps + u64::from(features) + u64::from(weights);
    let Chunks { rows: most, class_rows: classes, .. } = sweep.chunks;
    let beside = if sweep.holds_all { ", beside all features" } else { "" };
    let reason = format!("{products} products, in chunks of {most} rows by {classes} class rows{beside}");
    plan.finish(product([2, rows, class_rows, dim]).saturating_mul(products), problem.bytes(), reason)
}

/// The gradients that a call has.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    features: bool,
    weights: bool,
    bias: bool,
    /// Whether those of features are made beside the others.
    joint: bool,
}

impl Wanted {
    /// Whether some are sums over all rows.
    fn of_classes(self) -> bool {
        self.weights || self.bias
    }
}

/// What every step of the pass knows: the call, and what is in the workspace.
struct Sweep<'p> {
    config: &'p MarginSoftmaxConfig,
    problem: &'p Problem,
    wanted: Wanted,
    chunks: Chunks,
    classes: Vec<ClassChunk>,
    features: (&'p Layout, View),
    /// Numbers of a row of features, in fours.
    width: u32,
    /// Rows that are in the workspace at a time, and whether they are all.
    held: u32,
    holds_all: bool,
    targets: View,
    row_gradients: View,
    row_norms: View,
    units: View,
    feature_sums: View,
    class_norms: View,
    products: View,
    class_sums: View,
    bias_sums: View,
    bias_totals: View,
}

impl<'p> Sweep<'p> {
    fn new(plan: &mut PlanBuilder<'_>, config: &'p MarginSoftmaxConfig, problem: &'p Problem) -> Result<Self> {
        let MarginSoftmaxBackwardShapes { rows, dim, sampled, .. } = problem.shapes;
        let width = dim.next_multiple_of(4);
        let chunks = Chunks::new(config, rows, chunks::class_rows(config, problem)).with_width(width);
        let (stride, in_workspace) = (chunks.stride(), config.form == GradientForm::Workspace);
        // One chunk has all of few rows, by either form.
        let holds_all = rows <= chunks.rows || in_workspace && holds_all(rows, width, plan.device());
        let [features, weights, bias] = ["dfeatures", "dweights", "dbias"].map(|name| problem.has(name));
        let wanted = Wanted { features, weights, bias, joint: features && holds_all && (weights || bias) };
        let held = if holds_all { rows } else { chunks.rows };
        let sums = if wanted.joint { rows } else { chunks.rows.min(rows) };
        // What is not wanted is nowhere, and what has no rows is somewhere.
        let mut space = |what, wanted, extents: [u32; 2]| match wanted {
            true => plan.workspace(what, 4 * product(extents).max(4)),
            false => Ok(View::NOWHERE),
        };
        let gathered = space("listed class weights", sampled.is_some(), [chunks.class_rows, width])?;
        Ok(Self {
            config,
            problem,
            wanted,
            chunks,
            classes: chunks.of_classes(problem, gathered),
            features: self::features(problem)?,
            width,
            held,
            holds_all,
            targets: space("targets of rows", true, [6, held + 1])?,
            row_gradients: space("gradients of rows", true, [8, held])?,
            row_norms: space("norms of rows", true, [1, if config.normalize { held } else { 4 }])?,
            units: space("normalised features", true, [held, width])?,
            feature_sums: space("sums of gradients of features", features, [sums, width])?,
            class_norms: space("norms of classes", true, [1, stride])?,
            products: space("products of a chunk", true, [chunks.rows, stride])?,
            class_sums: space("sums of gradients of class weights", weights, [chunks.class_rows, width])?,
            bias_sums: space("sums of gradients of the bias", bias, [chunks.rows.div_ceil(WALKED), stride])?,
            bias_totals: space("gradients of the bias", bias, [1, stride])?,
        })
    }

    /// The rows that are in the workspace at a time.
    fn pieces(&self) -> Vec<(u32, u32)> {
        let rows = self.problem.shapes.rows;
        if self.holds_all && rows > 0 { vec![(0, rows)] } else { self.chunks.of_rows(rows).collect() }
    }

    /// Where the first of some rows is among those held.
    fn place(&self, first: u32) -> u32 {
        if self.holds_all { first } else { 0 }
    }

    fn operands_from(&self, first: u32, names: &[&'static str]) -> Vec<(&'static str, View)> {
        names.iter().filter_map(|&name| Some((name, self.problem.view(name)?.rows_from(first)))).collect()
    }

    /// What the labels of some rows say.
    fn start(&self, plan: &mut PlanBuilder<'_>, first: u32, count: u32) -> Result<()> {
        let mut views = self.operands_from(first, &["labels", "row_margins"]);
        views.extend([("targets", self.targets), ("states", plan.scratch("no states", 32)?)]);
        let mut values = numbers([("rows", count), ("splits", 0)]);
        values.extend(chunks::classes(self.config, self.problem));
        let kernel = super::super::kernels::start(self.config, self.problem);
        plan.dispatch(&kernel, count.div_ceil(ROWS).into(), ROWS.into(), &values, &views)
    }

    /// Adds up their weights.
    fn weigh(&self, plan: &mut PlanBuilder<'_>, count: u32, first: bool) -> Result<()> {
        plan.expect_loops(format_args!("the weights of {count} rows"), u64::from(count / 256) + 16)?;
        let values = numbers([("rows", count), ("held", self.held), ("first", first.into())]);
        plan.dispatch(&kernels::weights(), 1, product([2, count]), &values, &[("targets", self.targets)])
    }

    /// Brings rows into the workspace: what their gradients have in common, and their features normalised.
    fn enter(&self, plan: &mut PlanBuilder<'_>, first: u32, count: u32) -> Result<()> {
        self.start(plan, first, count)?;
        let mut views = self.operands_from(first, &["lse", "others", "dlse", "entropy", "dentropy"]);
        if self.config.reduction == Reduction::None {
            views.extend(self.operands_from(first, &["dloss"]));
        }
        views.extend([("targets", self.targets), ("row_gradients", self.row_gradients)]);
        let mean = self.config.reduction == Reduction::Mean;
        let mut values = numbers([("rows", count), ("held", self.held), ("mean", mean.into())]);
        values.extend(chunks::classes(self.config, self.problem));
        let [smoothing, z_loss] = [self.config.label_smoothing, self.config.z_loss].map(Value::from);
        values.extend([("label_smoothing", smoothing), ("z_loss", z_loss)]);
        let workgroups = count.div_ceil(ROWS).into();
        plan.dispatch(&kernels::rows(self.problem), workgroups, product([32, ROWS]), &values, &views)?;
        if self.config.normalize {
            chunks::norms(plan, self.features, (first, count), self.row_norms)?;
        }
        let (layout, _) = self.features;
        let values = numbers([("count", count), ("dim", layout.shape[1]), ("chunks", self.width / 4)]);
        let [gradients, norms] = [("row_gradients", self.row_gradients), ("row_norms", self.row_norms)];
        let views = [("x", rows_from(self.features, first)), gradients, norms, ("units", self.units)];
        let workgroups = product([count, self.width / 4]).div_ceil(ROWS.into());
        plan.dispatch(&kernels::units(self.config, layout), workgroups, product([8, ROWS]), &values, &views)
    }

    fn enter_classes(&self, plan: &mut PlanBuilder<'_>, chunk: &ClassChunk) -> Result<()> {
        chunks::gather(plan, self.config, self.problem, chunk)?;
        if !self.config.normalize {
            return Ok(());
        }
        chunks::norms(plan, (&chunk.layout, chunk.view), (chunk.first, chunk.count), self.class_norms)
    }

    /// The normalised features, from a row of those held on.
    fn unit(&self, first: u32) -> Matrix {
        Matrix::workspace(self.units, self.width).rows_from(first)
    }

    fn products(&self) -> Matrix {
        Matrix::workspace(self.products, self.chunks.stride())
    }

    /// A chunk's products, and the gradients of these in their place.
    fn chunk(
        &self,
        plan: &mut PlanBuilder<'_>,
        chunk: &ClassChunk,
        (first, count): (u32, u32),
        bias: bool,
    ) -> Result<()> {
        let sizes = [count, chunk.count, self.problem.shapes.dim];
        Product::of(sizes, [self.unit(first), chunk.matrix().transpose(), self.products()], false).dispatch(plan)?;
        let [first_class, classes] = [chunk.first_of_all, chunk.count].map(|rows| rows / self.config.centres);
        let groups = classes.div_ceil(ROWS);
        let mut values = margin_values(self.config);
        values.extend(numbers([("first_row", first), ("chunk_rows", count), ("class_groups", groups)]));
        let stride = self.chunks.stride();
        values.extend(numbers([("first_class", first_class), ("chunk_classes", classes), ("row_products", stride)]));
        values.extend(chunks::classes(self.config, self.problem));
        let [gradients, products] = [("row_gradients", self.row_gradients), ("products", self.products)];
        let views = [gradients, products, ("class_norms", self.class_norms), ("bias_sums", self.bias_sums)];
        let kernel = kernels::coefficients(self.config, self.problem, bias);
        let workgroups = product([groups, count.div_ceil(WALKED)]);
        plan.dispatch(&kernel, workgroups, product([32, ROWS, WALKED, self.config.centres]), &values, &views)
    }

    /// Chunks of classes, over all rows each.
    fn by_class(&self, plan: &mut PlanBuilder<'_>) -> Result<()> {
        let (rows, dim) = (self.problem.shapes.rows, self.problem.shapes.dim);
        let class_sums = Matrix::workspace(self.class_sums, self.width);
        let gradients: Vec<_> = tensors(self.config, self.problem, "dweights").collect();
        let sampled = self.problem.shapes.sampled.is_some();
        if sampled {
            self.clear(plan)?;
        }
        // No rows are a sum of nothing.
        let pieces: Vec<_> = if rows == 0 { vec![(0, 0)] } else { self.chunks.of_rows(rows).collect() };
        for (index, chunk) in self.classes.iter().enumerate() {
            self.enter_classes(plan, chunk)?;
            for &(first, count) in &pieces {
                let held = self.place(first);
                if !self.holds_all && count > 0 {
                    self.enter(plan, first, count)?;
                }
                if count > 0 {
                    self.chunk(plan, chunk, (held, count), self.wanted.bias)?;
                }
                if self.wanted.bias {
                    self.add_bias(plan, chunk, count.div_ceil(WALKED), [first == 0, first + count == rows])?;
                }
                if self.wanted.weights {
                    let factors = [self.products().transpose(), self.unit(held), class_sums];
                    Product::of([chunk.count, dim, count], factors, first > 0).dispatch(plan)?;
                }
                if self.wanted.joint && count > 0 {
                    self.add_features(plan, chunk, (first, count), index > 0)?;
                }
            }
            if self.wanted.weights {
                let (x, sums) = ((&chunk.layout, chunk.view), (self.class_sums, chunk.count));
                // Any tensor may have some of those that are listed.
                let own = if sampled { &gradients[..] } else { &gradients[chunk.tensor..=chunk.tensor] };
                for (gradient, classes) in own {
                    self.finish(plan, [x, *gradient], chunk.first, sums, Some(chunk), classes)?;
                }
            }
        }
        if self.wanted.joint { self.finish_features(plan, 0, rows) } else { Ok(()) }
    }

    /// Chunks of rows, over all classes each.
    fn by_row(&self, plan: &mut PlanBuilder<'_>) -> Result<()> {
        for (first, count) in self.chunks.of_rows(self.problem.shapes.rows) {
            if !self.holds_all {
                self.enter(plan, first, count)?;
            }
            for (index, chunk) in self.classes.iter().enumerate() {
                self.enter_classes(plan, chunk)?;
                self.chunk(plan, chunk, (self.place(first), count), false)?;
                self.add_features(plan, chunk, (0, count), index > 0)?;
            }
            self.finish_features(plan, first, count)?;
        }
        Ok(())
    }

    /// Adds a chunk's part to the gradients of rows, whose sums stand from `first` on.
    fn add_features(
        &self,
        plan: &mut PlanBuilder<'_>,
        chunk: &ClassChunk,
        (first, count): (u32, u32),
        adds: bool,
    ) -> Result<()> {
        let sums = Matrix::workspace(self.feature_sums, self.width).rows_from(first);
        let sizes = [count, self.problem.shapes.dim, chunk.count];
        Product::of(sizes, [self.products(), chunk.matrix(), sums], adds).dispatch(plan)
    }

    fn add_bias(
        &self,
        plan: &mut PlanBuilder<'_>,
        chunk: &ClassChunk,
        mut groups: u32,
        [first, last]: [bool; 2],
    ) -> Result<()> {
        let [first_class, classes] = [chunk.first_of_all, chunk.count].map(|rows| rows / self.config.centres);
        let mut stride = self.chunks.stride();
        // Where classes alone do not occupy a GPU, parts of many rows do.
        if groups >= 2 * PART && classes <= FEW_CLASSES {
            let (parts, across) = (groups.div_ceil(PART), classes.div_ceil(ROWS));
            let own =
                [("chunk_classes", classes), ("groups", groups), ("row_products", stride), ("class_groups", across)];
            let (workgroups, flops) = (product([parts, across]), product([ROWS, PART]));
            let views = [("bias_sums", self.bias_sums)];
            plan.dispatch(&kernels::bias_parts(), workgroups, flops, &numbers(own), &views)?;
            (groups, stride) = (parts, stride * PART);
        }
        let mut values = numbers([("first_class", first_class), ("chunk_classes", classes), ("groups", groups)]);
        values.extend(numbers([("row_products", stride), ("first", first.into()), ("last", last.into())]));
        values.extend(chunks::classes(self.config, self.problem));
        let views = [("bias_sums", self.bias_sums), ("bias_totals", self.bias_totals)];
        let workgroups = (first_class % 4 + classes).div_ceil(4 * ROWS).into();
        plan.dispatch(&kernels::bias(self.problem), workgroups, product([4, ROWS, groups.max(1)]), &values, &views)
    }

    /// The gradients of rows of features from their sums.
    fn finish_features(&self, plan: &mut PlanBuilder<'_>, first: u32, count: u32) -> Result<()> {
        match self.problem.output("dfeatures").zip(self.problem.output_view("dfeatures")) {
            Some(gradient) if count > 0 => {
                self.finish(plan, [self.features, gradient], first, (self.feature_sums, count), None, &[])
            }
            _ => Ok(()),
        }
    }

    /// Makes the gradients of all classes 0.
    fn clear(&self, plan: &mut PlanBuilder<'_>) -> Result<()> {
        let bias = self.problem.output("dbias").zip(self.problem.output_view("dbias"));
        // The bias's is a row.
        let bias = bias.map(|matrix| (matrix, [1, matrix.0.shape[0]]));
        let weights = self.problem.list("dweights").map(|matrix| (matrix, [matrix.0.shape[0], matrix.0.shape[1]]));
        for (gradient, [count, dim]) in weights.chain(bias) {
            let values = numbers([("count", count), ("dim", dim), ("chunks", dim.div_ceil(4))]);
            let workgroups = product([count, dim.div_ceil(4)]).div_ceil(ROWS.into());
            let views = [("gradient", rows_from(gradient, 0))];
            plan.dispatch(&kernels::zero(gradient.0), workgroups, product([4, ROWS]), &values, &views)?;
        }
        Ok(())
    }

    /// Gradients of rows of a matrix, from one on, of sums; if not of features, of a chunk, in a tensor of these classes.
    fn finish(
        &self,
        plan: &mut PlanBuilder<'_>,
        [x, gradient]: [(&Layout, View); 2],
        first: u32,
        (sums, count): (View, u32),
        chunk: Option<&ClassChunk>,
        classes: &[(&'static str, Value)],
    ) -> Result<()> {
        let fours = self.width / 4;
        let listed = chunk.and_then(|chunk| chunk.listed(self.problem, self.config.centres));
        let mut values = numbers([("count", count), ("dim", x.0.shape[1]), ("chunks", fours)]);
        values.extend(numbers([("first_row", self.place(first))]));
        values.extend(classes);
        values.extend(numbers([("centres", 1), ("tensor_first", 0), ("tensor_classes", 0)]));
        let [rows, gradients] = [x, gradient].map(|matrix| rows_from(matrix, first));
        let mut views =
            vec![("x", rows), ("sums", sums), ("gradient", gradients), ("row_gradients", self.row_gradients)];
        views.extend(listed);
        let kernel = kernels::finish(self.config, [x.0, gradient.0], chunk.is_none(), listed.is_some());
        let height = kernels::finish_rows(fours);
        plan.dispatch(&kernel, count.div_ceil(height).into(), product([16, height, fours]), &values, &views)
    }
}

/// A matrix, from one of its rows on: what a kernel calls its `start` and `row`.
fn rows_from((layout, view): (&Layout, View), first: u32) -> View {
    let (mut names, start) = ([""; MAX_RANK], layout.start + first * layout.strides[0]);
    names[0] = "row";
    View { start, names, ..view }
}
