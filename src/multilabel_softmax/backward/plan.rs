//! In what dispatches the backward pass runs, and its kernels.

use super::super::kernels::{Forms, WORKGROUP, every_form, pick, sum};
use super::super::plan::{BUSY, RowBlocks, Split, add_up};
use super::super::shapes::check;
use super::super::{Labels, MultilabelSoftmaxConfig, Threshold};
use super::{MultilabelSoftmaxBackward, MultilabelSoftmaxBackwardShapes, OPERANDS};
use crate::dispatch::{Plan, PlanBuilder};
use crate::op::{self, GivenNames, Kernels, Operand, Shapes, SizeOf};
use crate::tensor::product;
use crate::tuning::NoOffer;
use crate::wgsl::{self, Constant, Specialization, source};
use crate::{Error, Result};

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
        let gradients = ["dscores", "dsoft_labels", "dthreshold"];
        match row.name {
            "dscores" if !given.on_host && !gradients.iter().any(|name| given.output(name)) => {
                Some("is missing, and so is every other gradient")
            }
            "dsoft_labels" if given.has(row) && config.has("soft_labels") == Some(false) => {
                Some("is given, but the config's labels are not soft")
            }
            "dthreshold" if given.has(row) && config.has("threshold") == Some(false) => {
                Some("is given, but the config's threshold is a fixed number")
            }
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

/// Which gradients there are, and how they come about.
#[derive(Clone, Copy)]
struct Wanted {
    /// Those of classes, one by one.
    elements: bool,
    /// One threshold's, from rows alone.
    one: bool,
    /// One a class.
    each: bool,
}

impl Wanted {
    fn of(problem: &Problem) -> Self {
        let [threshold, one] = [problem.has("dthreshold"), problem.shapes.thresholds == 1];
        Self {
            elements: problem.has("dscores") || problem.has("dsoft_labels"),
            one: threshold && one,
            each: threshold && !one,
        }
    }
}

/// What rows need: both logarithms, and the gradient that comes in.
fn row_states(problem: &Problem, wanted: Wanted) -> Specialization {
    Specialization {
        kernel: source!("multilabel_softmax/backward_rows"),
        constants: vec![("WORKGROUP", Constant::U32(WORKGROUP))],
        fragments: vec![
            pick(
                wanted.one,
                source!("multilabel_softmax/backward_row_sums"),
                source!("multilabel_softmax/no_backward_row_sums"),
            ),
            source!("shared/workgroup_index"),
        ],
        storage: Vec::new(),
    }
    .of(problem, &[])
}

/// The gradients of classes.
fn elements(forms: &Forms, problem: &Problem, wanted: Wanted, split: Split) -> Specialization {
    let dscores = match (problem.has("dscores"), forms.vec4) {
        (false, _) => source!("multilabel_softmax/no_dscores"),
        (true, false) => source!("multilabel_softmax/dscores_scalar"),
        (true, true) => source!("multilabel_softmax/dscores_vec4"),
    };
    let dsoft_labels = match (problem.has("dsoft_labels"), forms.vec4) {
        (false, _) => source!("multilabel_softmax/no_dsoft_labels"),
        (true, false) => source!("multilabel_softmax/dsoft_labels_scalar"),
        (true, true) => source!("multilabel_softmax/dsoft_labels_vec4"),
    };
    let sums = pick(
        wanted.each,
        source!("multilabel_softmax/backward_class_sums"),
        source!("multilabel_softmax/no_backward_class_sums"),
    );
    let more = [source!("multilabel_softmax/backward_params"), dscores, dsoft_labels, sums];
    forms.kernel(source!("multilabel_softmax/backward"), split.lanes, &more).of(problem, &[])
}

/// The gradient of a class's threshold from its sums over some rows each.
fn thresholds(problem: &Problem) -> Specialization {
    Specialization {
        kernel: source!("multilabel_softmax/backward_thresholds"),
        constants: vec![("WORKGROUP", Constant::U32(WORKGROUP))],
        fragments: vec![source!("shared/workgroup_index")],
        storage: Vec::new(),
    }
    .of(problem, &[])
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
    let wanted = Wanted::of(problem);
    let forms = Forms::new(config, problem);
    let split = Split::of_elements(classes);
    let by_class = wanted.elements || wanted.each;
    let labels = if by_class { config.labels } else { Labels::None };
    let blocks = RowBlocks::new(&mut plan, labels, rows, classes)?;
    let walked = rows_of_a_workgroup(blocks.most, split, wanted.each);
    // Each range of rows adds its own to the sums over all.
    let count = |per: u32| blocks.ranges().map(|(first, end)| (end - first).div_ceil(per)).sum::<u32>();
    let (row_sums, class_sums) = (count(WORKGROUP), count(walked));
    let mut views = vec![("row_states", plan.workspace("row states", 16 * u64::from(blocks.most))?)];
    views.extend(blocks.bits.map(|view| ("label_bits", view)));
    if wanted.one {
        views.push(("row_sums", plan.workspace("sums of rows", 4 * u64::from(row_sums))?));
    }
    if wanted.each {
        let bytes = 16 * product([class_sums, classes.div_ceil(4)]);
        views.push(("class_sums", plan.workspace("sums of classes", bytes)?));
    }
    let (mut first_row_sum, mut first_class_sum) = (0_u32, 0_u32);
    for (first, end) in blocks.ranges() {
        let values = [
            ("first_row", first.into()),
            ("end_row", end.into()),
            ("first_sum", first_row_sum.into()),
            ("factor", (config.factor(rows) as f32).into()),
        ];
        let workgroups = (end - first).div_ceil(WORKGROUP);
        plan.dispatch(&row_states(problem, wanted), workgroups.into(), 8 * u64::from(WORKGROUP), &values, &views)?;
        first_row_sum += workgroups;
        if by_class {
            blocks.set_bits(&mut plan, problem, (first, end))?;
            let values = [
                ("fixed_threshold", config.fixed_threshold().into()),
                ("first_row", first.into()),
                ("end_row", end.into()),
                ("bit_words", blocks.words.into()),
                ("parts", split.parts.into()),
                ("rows_of_a_workgroup", walked.into()),
                ("first_sum", first_class_sum.into()),
            ];
            let groups = (end - first).div_ceil(walked);
            let flops = product([16, 4 * split.lanes, walked]);
            let kernel = elements(&forms, problem, wanted, split);
            plan.dispatch(&kernel, u64::from(groups) * u64::from(split.parts), flops, &values, &views)?;
            first_class_sum += groups;
        }
    }
    if let (true, Some((_, sums))) = (wanted.one, views.iter().find(|(name, _)| *name == "row_sums")) {
        add_up(&mut plan, problem, (*sums, row_sums), "dthreshold", 1.0)?;
    }
    if wanted.each {
        let values = [("sums", class_sums.into())];
        let workgroups = classes.div_ceil(4).div_ceil(WORKGROUP);
        let flops = product([4 * WORKGROUP, class_sums]);
        plan.dispatch(&thresholds(problem), workgroups.into(), flops, &values, &views)?;
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
            let on = |bit: u32| flags >> bit & 1 == 1;
            let shapes = MultilabelSoftmaxBackwardShapes {
                thresholds: pick(classes > 1, classes, 1),
                mask: on(0),
                dscores: on(1),
                dsoft_labels: on(2) && config.labels == Labels::Soft,
                dthreshold: on(3) && config.threshold == Threshold::Tensor,
                ..MultilabelSoftmaxBackwardShapes::new(2, classes)
            };
            let split = Split::of_elements(classes);
            let mut problem = Problem::contiguous::<MultilabelSoftmaxBackward>(&config, shapes);
            for start in [0, 1] {
                problem.change("scores", |layout| layout.start = start);
                let (forms, wanted) = (Forms::new(&config, &problem), Wanted::of(&problem));
                found.extend([row_states(&problem, wanted), elements(&forms, &problem, wanted, split)]);
                found.extend(wanted.each.then(|| thresholds(&problem)));
                found.extend(wanted.one.then(|| sum(&problem, Some("dthreshold"))));
            }
        }
    }
    wgsl::distinct(found)
}
