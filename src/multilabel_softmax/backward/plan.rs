//! In what dispatches the backward pass runs, and its kernels.

use super::super::kernels::{Forms, WORKGROUP, every_form, own, plain};
use super::super::plan::{BUSY, RowBlocks, Split, add_up};
use super::super::shapes::check;
use super::super::{Labels, MultilabelSoftmaxConfig, Threshold};
use super::{MultilabelSoftmaxBackward, MultilabelSoftmaxBackwardShapes, OPERANDS};
use crate::dispatch::{Plan, PlanBuilder};
use crate::op::{self, GivenNames, Kernels, Operand, Shapes, SizeOf};
use crate::tensor::product;
use crate::tuning::NoOffer;
use crate::wgsl::{self, Specialization, fours, optional};
use crate::{Error, Result, sums};

type Problem = op::Problem<MultilabelSoftmaxBackwardShapes>;

impl Kernels for MultilabelSoftmaxBackward {
    const NAME: &'static str = "multilabel_softmax_backward";
    const OPERANDS: &'static [Operand] = OPERANDS;
    type Config = MultilabelSoftmaxConfig;
    type Shapes = MultilabelSoftmaxBackwardShapes;
    type Offer = NoOffer;

    fn check_config(config: &MultilabelSoftmaxConfig) -> Result<()> {
        if config.labels == Labels::None {
            let (option, expected) = ("labels", "those of a loss, which alone has gradients");
            return Err(Error::Config { option, expected, got: "none".into() });
        }
        config.check()
    }

    fn check(config: &MultilabelSoftmaxConfig, shapes: &MultilabelSoftmaxBackwardShapes) -> Result<()> {
        check(config, shapes.rows, shapes.classes, shapes.thresholds)
    }

    fn refuses(config: &MultilabelSoftmaxConfig, given: &GivenNames, row: &Operand) -> Option<&'static str> {
        let own = |name| given.has(row) && config.has(name) == Some(false);
        let none = || !["dscores", "dsoft_labels", "dthreshold"].iter().any(|name| given.output(name));
        match row.name {
            "dscores" if !given.on_host && none() => Some("is missing, and so is every other gradient"),
            "dsoft_labels" if own("soft_labels") => Some("is given, but the config's labels are not soft"),
            "dthreshold" if own("threshold") => Some("is given, but the config's threshold is a fixed number"),
            _ => config.refuses(given, row),
        }
    }

    fn derived(config: &MultilabelSoftmaxConfig, size: &SizeOf<'_>, axis: &str) -> Option<(u32, &'static str)> {
        config.derived(size("rows"), axis)
    }

    fn has(config: &MultilabelSoftmaxConfig, shapes: &MultilabelSoftmaxBackwardShapes, row: &Operand) -> bool {
        match row.name {
            // A plan without tensors is one of something.
            "dscores" => shapes.dscores || !(shapes.dsoft_labels || shapes.dthreshold),
            name => config.has(name).unwrap_or_else(|| shapes.has(name)),
        }
    }

    fn build(
        plan: PlanBuilder<'_>,
        config: &MultilabelSoftmaxConfig,
        problem: &Problem,
        _: Option<&NoOffer>,
    ) -> Result<Plan> {
        build(plan, config, problem)
    }
}

/// Whether the gradient of a threshold is wanted that is one number, which comes of rows alone, and of one a class.
fn thresholds(problem: &Problem) -> (bool, bool) {
    let [wanted, one] = [problem.has("dthreshold"), problem.shapes.thresholds == 1];
    (wanted && one, wanted && !one)
}

/// What rows need: both logarithms, and the gradient that comes in.
fn row_states(problem: &Problem) -> Specialization {
    let sums = optional!(thresholds(problem).0, "multilabel_softmax/", "backward_row_sums");
    plain(own!("backward_rows"), WORKGROUP, &[sums]).of(problem, &[])
}

/// The gradients of classes.
fn elements(forms: &Forms, problem: &Problem, split: Split) -> Specialization {
    let [scores, soft] = ["dscores", "dsoft_labels"].map(|name| problem.has(name));
    let dscores = if scores { fours!(forms.vec4, "multilabel_softmax/", "dscores") } else { own!("no_dscores") };
    let dsoft_labels =
        if soft { fours!(forms.vec4, "multilabel_softmax/", "dsoft_labels") } else { own!("no_dsoft_labels") };
    let sums = optional!(thresholds(problem).1, "multilabel_softmax/", "backward_class_sums");
    let more = [own!("backward_params"), forms.labels, dscores, dsoft_labels, sums];
    forms.kernel(own!("backward"), split.lanes, &more).of(problem, &[])
}

/// The gradient of a class's threshold from its sums over some rows each.
fn of_each(problem: &Problem) -> Specialization {
    plain(own!("backward_thresholds"), WORKGROUP, &[]).of(problem, &[])
}

/// Rows that a workgroup walks: four for each invocation, or with a sum over rows so many that the sums are few.
fn rows_of_a_workgroup(rows: u32, split: Split, each: bool) -> u32 {
    let height = split.height();
    let groups = rows.div_ceil(height);
    let walked = if each { groups.div_ceil((BUSY / split.parts).max(1)).max(4) } else { 4 };
    walked.min(groups.max(1)) * height
}

/// Compiles the kernels and lays out their dispatches.
fn build(mut plan: PlanBuilder<'_>, config: &MultilabelSoftmaxConfig, problem: &Problem) -> Result<Plan> {
    let MultilabelSoftmaxBackwardShapes { rows, classes, .. } = problem.shapes;
    let (one, each) = thresholds(problem);
    let by_class = each || problem.has("dscores") || problem.has("dsoft_labels");
    let (forms, split) = (Forms::new(config, problem), Split::of_elements(classes));
    let blocks = RowBlocks::new(&mut plan, if by_class { config.labels } else { Labels::None }, rows, classes)?;
    let walked = rows_of_a_workgroup(blocks.most, split, each);
    // Each range of rows adds its own to the sums over all.
    let count = |per: u32| blocks.ranges().map(|(first, end)| (end - first).div_ceil(per)).sum::<u32>();
    let (row_sums, class_sums) = (count(WORKGROUP), count(walked));
    let mut views = vec![("row_states", plan.workspace("row states", 16 * u64::from(blocks.most))?)];
    views.extend(blocks.bits.map(|view| ("label_bits", view)));
    let of_rows = if one { Some(plan.workspace("sums of rows", 4 * u64::from(row_sums))?) } else { None };
    views.extend(of_rows.map(|view| ("row_sums", view)));
    if each {
        let bytes = 16 * product([class_sums, classes.div_ceil(4)]);
        views.push(("class_sums", plan.workspace("sums of classes", bytes)?));
    }
    let (mut row_sum, mut class_sum) = (0_u32, 0_u32);
    for (first, end) in blocks.ranges() {
        let range = [("first_row", first.into()), ("end_row", end.into())];
        let own = [("first_sum", row_sum.into()), ("factor", (config.factor(rows) as f32).into())];
        let workgroups = (end - first).div_ceil(WORKGROUP);
        let flops = product([8, WORKGROUP]);
        plan.dispatch(&row_states(problem), workgroups.into(), flops, &[range, own].concat(), &views)?;
        row_sum += workgroups;
        if by_class {
            blocks.set_bits(&mut plan, problem, (first, end))?;
            let own = [
                ("fixed_threshold", config.fixed_threshold().into()),
                ("bit_words", blocks.words.into()),
                ("parts", split.parts.into()),
                ("rows_of_a_workgroup", walked.into()),
                ("first_sum", class_sum.into()),
            ];
            let groups = (end - first).div_ceil(walked);
            let (workgroups, flops) = (product([groups, split.parts]), product([16, 4 * split.lanes, walked]));
            let values = [&range[..], &own].concat();
            plan.dispatch(&elements(&forms, problem, split), workgroups, flops, &values, &views)?;
            class_sum += groups;
        }
    }
    if let Some(sums) = of_rows {
        add_up(&mut plan, problem, (sums, row_sums), "dthreshold", 1.0)?;
    }
    if each {
        plan.expect_loops("the sums of a class", u64::from(class_sums) + 1)?;
        let workgroups = classes.div_ceil(4 * WORKGROUP);
        let flops = product([4 * WORKGROUP, class_sums]);
        plan.dispatch(&of_each(problem), workgroups.into(), flops, &[("sums", class_sums.into())], &views)?;
    }
    let reason = format!("{} invocations share a row, and walk {walked} rows", split.lanes);
    plan.finish(product([12, rows, classes]), problem.bytes(), reason)
}

/// Every specialization that a plan can pick.
#[doc(hidden)]
#[must_use]
pub fn specializations() -> Vec<Specialization> {
    let mut found = Vec::new();
    for (config, classes) in every_form() {
        for flags in 0..16_u32 {
            let [mask, dscores, dsoft_labels, dthreshold] = [0, 1, 2, 3].map(|bit| flags >> bit & 1 == 1);
            let dsoft_labels = dsoft_labels && config.labels == Labels::Soft;
            let dthreshold = dthreshold && config.threshold == Threshold::Tensor;
            let shapes = MultilabelSoftmaxBackwardShapes::new(2, classes);
            let shapes = MultilabelSoftmaxBackwardShapes { mask, dscores, dsoft_labels, dthreshold, ..shapes };
            for (thresholds, start) in [(1, 0), (1, 1), (classes, 0), (classes, 1)] {
                let shapes = MultilabelSoftmaxBackwardShapes { thresholds, ..shapes };
                let mut problem = Problem::contiguous::<MultilabelSoftmaxBackward>(&config, shapes);
                problem.change("scores", |layout| layout.start = start);
                let forms = Forms::new(&config, &problem);
                found.extend([row_states(&problem), elements(&forms, &problem, Split::of_elements(classes))]);
                found.extend([of_each(&problem), sums::kernel(problem.storage("dthreshold"))]);
            }
        }
    }
    wgsl::distinct(found)
}
