//! In what dispatches gradients flow back.

use super::super::chunks::{self, Chunks, ClassChunk};
use super::super::kernels::margin_values;
use super::super::plan::{features, from_row};
use super::super::{GradientForm, MarginSoftmaxConfig, Reduction, shapes};
use super::kernels::{self, ROWS, WALKED};
use super::{MarginSoftmaxBackward, MarginSoftmaxBackwardShapes, OPERANDS};
use crate::context::Capabilities;
use crate::dispatch::{Plan, PlanBuilder, Value, View};
use crate::matmul::{Matrix, Product};
use crate::op::{self, GivenNames, Kernels, Operand, Shapes, SizeOf};
use crate::tensor::{Layout, product};
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
        shapes::check(config, [own.rows, own.class_rows, own.dim])
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
    let MarginSoftmaxBackwardShapes { rows, class_rows, dim, .. } = problem.shapes;
    let width = dim.next_multiple_of(4);
    let chunks = Chunks::new(config, rows, class_rows).with_width(width);
    // One chunk has all of few rows, by either form.
    let holds_all =
        rows <= chunks.rows || config.form == GradientForm::Workspace && holds_all(rows, width, plan.device());
    let wanted = Wanted::of(problem);
    let sweep = Sweep::new(&mut plan, config, problem, chunks, (holds_all, wanted))?;
    if config.reduction == Reduction::Mean {
        for (first, count) in sweep.pieces() {
            sweep.start(&mut plan, first, count)?;
            sweep.weigh(&mut plan, count, first == 0)?;
        }
    }
    if holds_all && rows > 0 {
        sweep.enter(&mut plan, 0, rows)?;
    }
    let joint = holds_all && wanted.of_classes();
    if wanted.of_classes() {
        sweep.by_class(&mut plan, Wanted { features: wanted.features && joint, ..wanted })?;
    }
    if wanted.features && !joint && rows > 0 {
        sweep.by_row(&mut plan)?;
    }
    let sweeps = if joint { 1 } else { u64::from(wanted.features) + u64::from(wanted.of_classes()) };
    let products = sweeps + u64::from(wanted.features) + u64::from(wanted.weights);
    let reason = format!(
        "{products} products, in chunks of {} rows by {} class rows{}",
        chunks.rows,
        chunks.class_rows,
        if holds_all { ", beside all features" } else { "" }
    );
    plan.finish(product([2, rows, class_rows, dim]).saturating_mul(products), problem.bytes(), reason)
}

/// The gradients that a call has.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    features: bool,
    weights: bool,
    bias: bool,
}

impl Wanted {
    fn of(problem: &Problem) -> Self {
        let [features, weights, bias] = ["dfeatures", "dweights", "dbias"].map(|name| problem.has(name));
        Self { features, weights, bias }
    }

    /// Whether some are sums over all rows.
    fn of_classes(self) -> bool {
        self.weights || self.bias
    }
}

/// What every step of the pass knows: the call, and what is in the workspace.
struct Sweep<'p> {
    config: &'p MarginSoftmaxConfig,
    problem: &'p Problem,
    chunks: Chunks,
    features: (&'p Layout, View),
    classes: Vec<ClassChunk<'p>>,
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
    fn new(
        plan: &mut PlanBuilder<'_>,
        config: &'p MarginSoftmaxConfig,
        problem: &'p Problem,
        chunks: Chunks,
        (holds_all, wanted): (bool, Wanted),
    ) -> Result<Self> {
        let rows = problem.shapes.rows;
        let width = problem.shapes.dim.next_multiple_of(4);
        let held = if holds_all { rows } else { chunks.rows.min(rows) };
        let sums_of = if holds_all && wanted.of_classes() { rows } else { chunks.rows.min(rows) };
        let mut space = |what, wanted, extents: [u32; 2]| {
            // What is not wanted is nowhere, and what has no rows is somewhere.
            if wanted { plan.workspace(what, product(extents).max(4) * 4) } else { Ok(View::NOWHERE) }
        };
        let stride = chunks.stride();
        Ok(Self {
            config,
            problem,
            chunks,
            features: features(problem)?,
            classes: chunks.of_classes(problem),
            width,
            held,
            holds_all,
            targets: space("targets of rows", true, [6, held + 1])?,
            row_gradients: space("gradients of rows", true, [8, held])?,
            row_norms: space("norms of rows", true, [1, if config.normalize { held } else { 4 }])?,
            units: space("normalised features", true, [held, width])?,
            feature_sums: space("sums of gradients of features", wanted.features, [sums_of, width])?,
            class_norms: space("norms of classes", true, [1, stride])?,
            products: space("products of a chunk", true, [chunks.rows, stride])?,
            class_sums: space("sums of gradients of class weights", wanted.weights, [chunks.class_rows, width])?,
            bias_sums: space("sums of gradients of the bias", wanted.bias, [chunks.rows.div_ceil(WALKED), stride])?,
            bias_totals: space("gradients of the bias", wanted.bias, [1, stride])?,
        })
    }

    /// The rows that are in the workspace at a time.
    fn pieces(&self) -> Vec<(u32, u32)> {
        let rows = self.problem.shapes.rows;
        if self.holds_all && rows > 0 { vec![(0, rows)] } else { self.chunks.of_rows(rows).collect() }
    }

    fn operands_from(&self, first: u32, names: &[&'static str]) -> Vec<(&'static str, View)> {
        names.iter().filter_map(|name| Some(from_row(name, self.problem.view(name)?, first))).collect()
    }

    /// What the labels of some rows say.
    fn start(&self, plan: &mut PlanBuilder<'_>, first: u32, count: u32) -> Result<()> {
        let mut views = self.operands_from(first, &["labels", "row_margins"]);
        views.extend([("targets", self.targets), ("states", plan.scratch("no states", 32)?)]);
        let classes = self.problem.shapes.class_rows / self.config.centres;
        let values = [("rows", count), ("classes", classes), ("splits", 0)].map(|(name, value)| (name, value.into()));
        let kernel = super::super::kernels::start(self.config, self.problem);
        plan.dispatch(&kernel, count.div_ceil(ROWS).into(), ROWS.into(), &values, &views)
    }

    /// Adds up their weights.
    fn weigh(&self, plan: &mut PlanBuilder<'_>, count: u32, first: bool) -> Result<()> {
        if let Some(cap) = plan.device().loop_cap.filter(|&cap| count / 256 + 16 > cap) {
            let reason = format!("{count} rows: more loop iterations to add them up than this driver's cap of {cap}");
            return Err(Error::Unsupported { reasons: vec![reason] });
        }
        let values = [("rows", count.into()), ("held", self.held.into()), ("first", Value::from(first))];
        plan.dispatch(&kernels::weights(), 1, product([2, count]), &values, &[("targets", self.targets)])
    }

    /// Brings rows into the workspace: what their gradients have in common, and their features normalised.
    fn enter(&self, plan: &mut PlanBuilder<'_>, first: u32, count: u32) -> Result<()> {
        self.start(plan, first, count)?;
        let names = ["lse", "others", "dlse", "entropy", "dentropy"];
        let mut views = self.operands_from(first, &names);
        if self.config.reduction == Reduction::None {
            views.extend(self.operands_from(first, &["dloss"]));
        }
        views.extend([("targets", self.targets), ("row_gradients", self.row_gradients)]);
        let classes = self.problem.shapes.class_rows / self.config.centres;
        let values = [
            ("rows", count.into()),
            ("classes", classes.into()),
            ("held", self.held.into()),
            ("mean", Value::from(self.config.reduction == Reduction::Mean)),
            ("label_smoothing", self.config.label_smoothing.into()),
            ("z_loss", self.config.z_loss.into()),
        ];
        plan.dispatch(&kernels::rows(self.problem), count.div_ceil(ROWS).into(), product([32, ROWS]), &values, &views)?;
        if self.config.normalize {
            chunks::norms(plan, self.features, (first, count), self.row_norms)?;
        }
        let (layout, view) = self.features;
        let values = [
            ("count", count),
            ("dim", layout.shape[1]),
            ("chunks", self.width / 4),
            ("x_start", layout.start + first * layout.strides[0]),
            ("x_row", layout.strides[0]),
        ]
        .map(|(name, value)| (name, value.into()));
        let views =
            [("x", view), ("row_gradients", self.row_gradients), ("row_norms", self.row_norms), ("units", self.units)];
        let workgroups = product([count, self.width / 4]).div_ceil(ROWS.into());
        plan.dispatch(&kernels::units(self.config, layout), workgroups, product([8, ROWS]), &values, &views)
    }

    fn enter_classes(&self, plan: &mut PlanBuilder<'_>, chunk: &ClassChunk<'_>) -> Result<()> {
        if !self.config.normalize {
            return Ok(());
        }
        chunks::norms(plan, (chunk.layout, chunk.view), (chunk.first, chunk.count), self.class_norms)
    }

    /// The features of a chunk of rows, of which the first is this one among those held.
    fn unit(&self, first: u32) -> Matrix {
        Matrix::workspace(self.units, self.width).rows_from(first)
    }

    fn chunk_products(&self) -> Matrix {
        Matrix::workspace(self.products, self.chunks.stride())
    }

    /// A chunk's products, and the gradients of these in their place.
    fn chunk(
        &self,
        plan: &mut PlanBuilder<'_>,
        chunk: &ClassChunk<'_>,
        (first, count): (u32, u32),
        bias: bool,
    ) -> Result<()> {
        Product {
            sizes: [count, chunk.count, self.problem.shapes.dim],
            a: self.unit(first),
            b: chunk.matrix().transpose(),
            c: self.chunk_products(),
            adds: false,
        }
        .dispatch(plan)?;
        let centres = self.config.centres;
        let classes = chunk.count / centres;
        let groups = classes.div_ceil(ROWS);
        let mut values = margin_values(self.config);
        let own = [
            ("first_row", first),
            ("chunk_rows", count),
            ("first_class", chunk.first_of_all / centres),
            ("chunk_classes", classes),
            ("class_groups", groups),
            ("row_products", self.chunks.stride()),
        ];
        values.extend(own.map(|(name, value)| (name, value.into())));
        let views = [
            ("row_gradients", self.row_gradients),
            ("products", self.products),
            ("class_norms", self.class_norms),
            ("bias_sums", self.bias_sums),
        ];
        let kernel = kernels::coefficients(self.config, self.problem, bias);
        let workgroups = product([groups, count.div_ceil(WALKED)]);
        plan.dispatch(&kernel, workgroups, product([32, ROWS, WALKED, centres]), &values, &views)
    }

    /// Chunks of classes, over all rows each.
    fn by_class(&self, plan: &mut PlanBuilder<'_>, wanted: Wanted) -> Result<()> {
        let (rows, dim) = (self.problem.shapes.rows, self.problem.shapes.dim);
        // No rows are a sum of nothing.
        let pieces: Vec<_> = if rows == 0 { vec![(0, 0)] } else { self.chunks.of_rows(rows).collect() };
        for (index, chunk) in self.classes.iter().enumerate() {
            self.enter_classes(plan, chunk)?;
            for &(first, count) in &pieces {
                let (is_first, is_last) = (first == 0, first + count == rows);
                if !self.holds_all && count > 0 {
                    self.enter(plan, first, count)?;
                }
                let held = if self.holds_all { first } else { 0 };
                if count > 0 {
                    self.chunk(plan, chunk, (held, count), wanted.bias)?;
                }
                if wanted.bias {
                    self.add_bias(plan, chunk, count.div_ceil(WALKED), [is_first, is_last])?;
                }
                if wanted.weights {
                    Product {
                        sizes: [chunk.count, dim, count],
                        a: self.chunk_products().transpose(),
                        b: self.unit(held),
                        c: Matrix::workspace(self.class_sums, self.width),
                        adds: !is_first,
                    }
                    .dispatch(plan)?;
                }
                if wanted.features && count > 0 {
                    self.add_features(plan, chunk, (first, count), index > 0)?;
                }
            }
            if wanted.weights {
                let list: Vec<_> = self.problem.list("dweights").collect();
                let gradient = (list[chunk.tensor], chunk.first);
                let x = ((chunk.layout, chunk.view), chunk.first);
                self.finish(plan, x, gradient, (self.class_sums, chunk.count), false)?;
            }
        }
        if wanted.features { self.finish_features(plan, 0, rows) } else { Ok(()) }
    }

    /// Chunks of rows, over all classes each.
    fn by_row(&self, plan: &mut PlanBuilder<'_>) -> Result<()> {
        for (first, count) in self.chunks.of_rows(self.problem.shapes.rows) {
            if !self.holds_all {
                self.enter(plan, first, count)?;
            }
            let held = if self.holds_all { first } else { 0 };
            for (index, chunk) in self.classes.iter().enumerate() {
                self.enter_classes(plan, chunk)?;
                self.chunk(plan, chunk, (held, count), false)?;
                self.add_features(plan, chunk, (0, count), index > 0)?;
            }
            self.finish_features(plan, first, count)?;
        }
        Ok(())
    }

    /// Adds a chunk's part to the gradients of rows, which are the sums from `first` on.
    fn add_features(
        &self,
        plan: &mut PlanBuilder<'_>,
        chunk: &ClassChunk<'_>,
        (first, count): (u32, u32),
        adds: bool,
    ) -> Result<()> {
        Product {
            sizes: [count, self.problem.shapes.dim, chunk.count],
            a: self.chunk_products(),
            b: chunk.matrix(),
            c: Matrix::workspace(self.feature_sums, self.width).rows_from(first),
            adds,
        }
        .dispatch(plan)
    }

    fn add_bias(
        &self,
        plan: &mut PlanBuilder<'_>,
        chunk: &ClassChunk<'_>,
        groups: u32,
        [first, last]: [bool; 2],
    ) -> Result<()> {
        let centres = self.config.centres;
        let [first_class, classes] = [chunk.first_of_all, chunk.count].map(|rows| rows / centres);
        let values = [
            ("first_class", first_class.into()),
            ("chunk_classes", classes.into()),
            ("groups", groups.into()),
            ("row_products", self.chunks.stride().into()),
            ("first", Value::from(first)),
            ("last", last.into()),
        ];
        let views = [("bias_sums", self.bias_sums), ("bias_totals", self.bias_totals)];
        let fours = (first_class % 4 + classes).div_ceil(4);
        let kernel = kernels::bias(self.problem);
        plan.dispatch(&kernel, fours.div_ceil(ROWS).into(), product([4, ROWS, groups.max(1)]), &values, &views)
    }

    /// The gradients of rows from their sums.
    fn finish_features(&self, plan: &mut PlanBuilder<'_>, first: u32, count: u32) -> Result<()> {
        let Some(gradient) = self.problem.output("dfeatures").zip(self.problem.output_view("dfeatures")) else {
            return Ok(());
        };
        if count == 0 {
            return Ok(());
        }
        self.finish(plan, (self.features, first), (gradient, first), (self.feature_sums, count), true)
    }

    /// Gradients of rows of a matrix, from one on, from sums, from their first on.
    fn finish(
        &self,
        plan: &mut PlanBuilder<'_>,
        ((x, x_view), x_first): ((&Layout, View), u32),
        ((gradient, gradient_view), gradient_first): ((&Layout, View), u32),
        (sums, count): (View, u32),
        of_features: bool,
    ) -> Result<()> {
        let fours = self.width / 4;
        let values = [
            ("count", count),
            ("dim", x.shape[1]),
            ("chunks", fours),
            ("x_start", x.start + x_first * x.strides[0]),
            ("x_row", x.strides[0]),
            ("gradient_start", gradient.start + gradient_first * gradient.strides[0]),
            ("gradient_row", gradient.strides[0]),
        ]
        .map(|(name, value)| (name, value.into()));
        let views = [("x", x_view), ("sums", sums), ("gradient", gradient_view), ("row_gradients", self.row_gradients)];
        let kernel = kernels::finish(self.config, x, gradient, of_features);
        let height = kernels::finish_rows(fours);
        plan.dispatch(&kernel, count.div_ceil(height).into(), product([16, height, fours]), &values, &views)
    }
}
