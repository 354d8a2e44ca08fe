//! In what dispatches the multi-label loss runs.

use super::kernels::{self, Forms, WORKGROUP};
use super::shapes::check;
use super::{Labels, MultilabelSoftmax, MultilabelSoftmaxConfig, MultilabelSoftmaxShapes, OPERANDS, Reduction};
use crate::context::Capabilities;
use crate::dispatch::{Plan, PlanBuilder, View};
use crate::op::{self, GivenNames, Kernels, Operand, Shapes, SizeOf};
use crate::tensor::product;
use crate::tuning::NoOffer;
use crate::{Result, sums};

pub(super) type Problem = op::Problem<MultilabelSoftmaxShapes>;

/// Workgroups that keep any adapter busy.
pub(super) const BUSY: u32 = 512;
/// Rows that are worked on at a time.
const MOST_ROWS: u32 = 1 << 20;

impl Kernels for MultilabelSoftmax {
    const NAME: &'static str = "multilabel_softmax";
    const OPERANDS: &'static [Operand] = OPERANDS;
    type Config = MultilabelSoftmaxConfig;
    type Shapes = MultilabelSoftmaxShapes;
    type Offer = NoOffer;

    fn check_config(config: &MultilabelSoftmaxConfig) -> Result<()> {
        config.check()
    }

    fn check(config: &MultilabelSoftmaxConfig, shapes: &MultilabelSoftmaxShapes) -> Result<()> {
        check(config, shapes.rows, shapes.classes, shapes.thresholds)
    }

    fn refuses(config: &MultilabelSoftmaxConfig, given: &GivenNames, row: &Operand) -> Option<&'static str> {
        let labels = config.labels != Labels::None;
        let output = |name: &str| given.output(name);
        match row.name {
            "loss" | "lse_neg" | "lse_pos" if given.has(row) && !labels => Some("is given, but there are no labels"),
            "loss" if labels && !given.on_host && !given.has(row) => Some("is missing, but there are labels"),
            "lse_neg" if !output("lse_neg") && output("lse_pos") => Some("is missing, but lse_pos is given"),
            "lse_pos" if !output("lse_pos") && output("lse_neg") => Some("is missing, but lse_neg is given"),
            "predictions" if !labels && !given.on_host && !output("predictions") && !output("probabilities") => {
                Some("is missing, and so is every other output")
            }
            _ => config.refuses(given, row),
        }
    }

    fn derived(config: &MultilabelSoftmaxConfig, size: &SizeOf<'_>, axis: &str) -> Option<(u32, &'static str)> {
        config.derived(size("rows"), axis)
    }

    fn has(config: &MultilabelSoftmaxConfig, shapes: &MultilabelSoftmaxShapes, row: &Operand) -> bool {
        match row.name {
            "loss" => config.labels != Labels::None,
            "lse_neg" | "lse_pos" => shapes.lse && config.labels != Labels::None,
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

/// Who owns what of `[rows, classes]`: each invocation four classes at a time, `lanes` of them a part of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Split {
    pub lanes: u32,
    pub parts: u32,
    /// Fours of classes in a part.
    pub part_chunks: u32,
}

impl Split {
    /// Parts of so many fours that `rows` keep the adapter busy, each invocation of a long row with four fours at least.
    pub fn of_sums(rows: u32, classes: u32) -> Self {
        let chunks = classes.div_ceil(4);
        let most = chunks.div_ceil(4 * WORKGROUP);
        let parts = if most > 1 { BUSY.div_ceil(rows.max(1)).min(most) } else { 1 };
        let part_chunks = chunks.div_ceil(parts).next_multiple_of(if parts > 1 { WORKGROUP } else { 1 });
        Self { lanes: lanes(classes), parts: chunks.div_ceil(part_chunks), part_chunks }
    }

    /// One four for each invocation.
    pub fn of_elements(classes: u32) -> Self {
        let lanes = lanes(classes);
        Self { lanes, parts: classes.div_ceil(4).div_ceil(lanes), part_chunks: lanes }
    }

    /// Rows that a workgroup works on at a time.
    pub fn height(self) -> u32 {
        WORKGROUP / self.lanes
    }
}

/// Invocations that share a row: one for each four classes, as far as a workgroup has them.
fn lanes(classes: u32) -> u32 {
    classes.div_ceil(4).next_power_of_two().min(WORKGROUP)
}

/// Rows that are worked on at a time: all, unless the bits of their labels ask for too much of the workspace.
pub(super) struct RowBlocks {
    rows: u32,
    pub most: u32,
    /// Words of a row's bits; the last says whether an index was no class.
    pub words: u32,
    pub bits: Option<View>,
}

impl RowBlocks {
    pub fn new(plan: &mut PlanBuilder<'_>, labels: Labels, rows: u32, classes: u32) -> Result<Self> {
        let words = classes.div_ceil(32) + 1;
        if !matches!(labels, Labels::Indices | Labels::Offsets) {
            return Ok(Self { rows, most: rows.min(MOST_ROWS), words, bits: None });
        }
        let most = rows_at_a_time(plan.device(), rows, words);
        let bits = plan.workspace("label bits", 4 * product([most, words]))?;
        Ok(Self { rows, most, words, bits: Some(bits) })
    }

    /// The first row of each, and the row after its last.
    pub fn ranges(&self) -> impl Iterator<Item = (u32, u32)> + use<> {
        let (rows, most) = (self.rows, self.most);
        (0..rows.div_ceil(most)).map(move |block| (block * most, rows.min((block + 1).saturating_mul(most))))
    }

    /// Sets the bits of these rows' labels.
    pub fn set_bits<S: Shapes>(
        &self,
        plan: &mut PlanBuilder<'_>,
        problem: &op::Problem<S>,
        (first, end): (u32, u32),
    ) -> Result<()> {
        let Some(bits) = self.bits else { return Ok(()) };
        let kernel = kernels::set_bits(problem);
        // An invocation clears words and walks a list; of a padded one it knows the length.
        let longest = ["width", "listed"].map(|axis| problem.shapes.axis(axis).unwrap_or(0).div_ceil(WORKGROUP));
        let loops = self.words.div_ceil(WORKGROUP).saturating_add(longest[0].max(longest[1]));
        plan.expect_loops("the labels of a row", u64::from(loops) + 2)?;
        // Of no list nothing is read, but no binding may be empty.
        let is_empty = |name: &&str| problem.get(name).is_some_and(|layout| layout.shape[..layout.rank].contains(&0));
        let empty = ["label_indices", "label_list"].into_iter().filter(is_empty);
        let mut views = vec![("label_bits", bits)];
        views.extend(empty.filter_map(|name| Some((name, problem.view("scores")?))));
        let values = [("first_row", first.into()), ("bit_words", self.words.into())];
        plan.dispatch(&kernel, (end - first).into(), self.words.into(), &values, &views)
    }
}

/// Of the workspace, a sixteenth is for the bits of labels: more are for sums.
fn rows_at_a_time(device: &Capabilities, rows: u32, words: u32) -> u32 {
    let most = device.workspace_room() / 16 / (4 * u64::from(words));
    u64::from(rows.min(MOST_ROWS)).min(most.max(1)) as u32
}

/// Adds up so many f32 in the workspace into one number of `name`.
pub(super) fn add_up<S: Shapes>(
    plan: &mut PlanBuilder<'_>,
    problem: &op::Problem<S>,
    (terms, count): (View, u32),
    name: &'static str,
    factor: f64,
) -> Result<()> {
    let sum = (problem.output_view(name).unwrap_or(View::NOWHERE), problem.storage(name));
    sums::dispatch(plan, terms, sum, [count; 2], factor as f32)
}

/// Compiles the kernels and lays out their dispatches.
fn build(mut plan: PlanBuilder<'_>, config: &MultilabelSoftmaxConfig, problem: &Problem) -> Result<Plan> {
    let MultilabelSoftmaxShapes { rows, classes, .. } = problem.shapes;
    let forms = Forms::new(config, problem);
    let blocks = RowBlocks::new(&mut plan, config.labels, rows, classes)?;
    let sums = Split::of_sums(blocks.most, classes);
    let values = |split: Split, (first, end): (u32, u32)| {
        [
            ("first_row", first.into()),
            ("end_row", end.into()),
            ("parts", split.parts.into()),
            ("part_chunks", split.part_chunks.into()),
            ("bit_words", blocks.words.into()),
            ("fixed_threshold", config.fixed_threshold().into()),
        ]
    };
    let workgroups = |split: Split, rows: u32| u64::from(rows.div_ceil(split.height())) * u64::from(split.parts);
    if config.labels != Labels::None {
        let mut views: Vec<_> = blocks.bits.map(|view| ("label_bits", view)).into_iter().collect();
        // Losses that are to be added up wait in the workspace.
        let losses = match config.reduction {
            Reduction::None => None,
            _ => Some(plan.workspace("losses", 4 * u64::from(rows))?),
        };
        views.extend(losses.map(|view| ("loss", view)));
        let stride = losses.map(|_| ("loss_stride", 1_u32.into()));
        let values = |range| values(sums, range).into_iter().chain(stride).collect::<Vec<_>>();
        if sums.parts > 1 {
            views.push(("partials", plan.workspace("sums of parts", 16 * product([rows, sums.parts]))?));
        }
        for (first, end) in blocks.ranges() {
            blocks.set_bits(&mut plan, problem, (first, end))?;
            let flops = product([8 * 4, sums.part_chunks, sums.height()]);
            let kernel = kernels::rows(&forms, problem, sums);
            plan.dispatch(&kernel, workgroups(sums, end - first), flops, &values((first, end)), &views)?;
        }
        if sums.parts > 1 {
            let flops = product([8, sums.parts]);
            plan.dispatch(&kernels::combine(problem), rows.into(), flops, &values((0, rows)), &views)?;
        }
        if let Some(losses) = losses {
            add_up(&mut plan, problem, (losses, rows), "loss", config.factor(rows))?;
        }
    }
    if problem.shapes.predictions || problem.shapes.probabilities {
        let split = Split::of_elements(classes);
        let kernel = kernels::predict(&forms, problem, split);
        let flops = product([4 * 4, WORKGROUP]);
        plan.dispatch(&kernel, workgroups(split, rows), flops, &values(split, (0, rows)), &[])?;
    }
    let reason = match sums.parts {
        1 => format!("{} invocations share a row", sums.lanes),
        parts => format!("{parts} workgroups share a row, whose sums are then combined"),
    };
    plan.finish(product([8, rows, classes]), problem.bytes(), reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_a_row_and_keep_the_adapter_busy() {
        for classes in [1, 3, 4, 5, 1000, 1024, 1025, 4097, 50_257, 1_000_000, 1 << 30] {
            for rows in [1, 2, 31, 512, 100_000] {
                let Split { lanes, parts, part_chunks } = Split::of_sums(rows, classes);
                let chunks = classes.div_ceil(4);
                assert!(part_chunks * parts >= chunks && part_chunks * (parts - 1) < chunks, "{rows} x {classes}");
                assert!(WORKGROUP.is_multiple_of(lanes) && lanes >= chunks.min(WORKGROUP), "{rows} x {classes}");
                assert!(parts == 1 || (lanes == WORKGROUP && rows < BUSY), "{rows} x {classes}");
                assert!(parts == 1 || part_chunks >= 4 * WORKGROUP || parts * rows < 2 * BUSY, "{rows} x {classes}");
                let elements = Split::of_elements(classes);
                assert!(elements.parts * elements.lanes >= chunks && (elements.parts - 1) * elements.lanes < chunks);
            }
        }
        assert_eq!(Split::of_sums(1, 1_000_000).parts, 245);
        assert_eq!(Split::of_sums(BUSY, 1_000_000).parts, 1);
    }

    #[test]
    fn label_bits_fit_the_workspace() {
        let device = Capabilities::plain();
        assert_eq!(rows_at_a_time(&device, 1000, 33), 1000);
        assert_eq!(rows_at_a_time(&device, u32::MAX, 2), MOST_ROWS);
        // 125 KB a row, in a sixteenth of the 128 MiB that a default device binds.
        assert_eq!(rows_at_a_time(&device, 1_000_000, 31_251), 67);
        assert_eq!(rows_at_a_time(&device, 5, u32::MAX), 1, "as few as there are");
    }
}
