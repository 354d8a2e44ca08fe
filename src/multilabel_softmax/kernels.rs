//! The kernels of the multi-label loss: the source of each specialization.

use super::plan::{Problem, Split};
use super::{Labels, MultilabelSoftmax, MultilabelSoftmaxConfig, MultilabelSoftmaxShapes, Threshold};
use crate::op::{self, Shapes};
use crate::sums;
use crate::wgsl::{self, Constant, Source, Specialization, fours, optional, source};

pub(super) const WORKGROUP: u32 = 256;
/// Invocations that put a row's partial sums together.
const COMBINE: u32 = 64;

/// A file of this op, by the pieces of its name.
macro_rules! own {
    ($($name:literal),*) => { $crate::wgsl::source!("multilabel_softmax/", $($name),*) };
}
pub(super) use own;

/// How the kernels of either pass find scores, labels, mask and threshold, and whether four classes of a row at once.
pub(super) struct Forms {
    pub vec4: bool,
    pub labels: &'static Source,
    fragments: Vec<&'static Source>,
}

impl Forms {
    pub fn new<S: Shapes>(config: &MultilabelSoftmaxConfig, problem: &op::Problem<S>) -> Self {
        let each = config.threshold == Threshold::Tensor && problem.shapes.axis("thresholds") != Some(1);
        let by_class =
            ["scores", "labels", "soft_labels", "mask", "predictions", "probabilities", "dscores", "dsoft_labels"];
        let vec4 = problem.is_vec4(&by_class) && (!each || problem.is_vec4(&["threshold"]));
        let labels = match config.labels {
            Labels::Bitmap => own!("labels"),
            Labels::Indices | Labels::Offsets => own!("label_bits"),
            Labels::Soft => fours!(vec4, "multilabel_softmax/", "soft_labels"),
            Labels::None => own!("no_labels"),
        };
        let threshold = match config.threshold {
            Threshold::Fixed(_) => own!("no_threshold"),
            Threshold::Tensor => fours!(vec4 && each, "multilabel_softmax/", "threshold"),
        };
        let mask = optional!(problem.has("mask"), "multilabel_softmax/", "mask");
        Self {
            vec4,
            labels,
            fragments: vec![own!("classes"), fours!(vec4, "multilabel_softmax/", "scores"), mask, threshold],
        }
    }

    /// A kernel over `[rows, classes]`, with these fragments more.
    pub fn kernel(&self, kernel: &'static Source, lanes: u32, more: &[&'static Source]) -> Specialization {
        let mut own = plain(kernel, WORKGROUP, &[&self.fragments[..], more].concat());
        own.constants.extend([
            ("LANES", Constant::U32(lanes)),
            ("VEC4", Constant::Bool(self.vec4)),
            ("Elem", Constant::Type(if self.vec4 { "vec4<f32>" } else { "f32" })),
        ]);
        own
    }
}

/// A kernel of so many invocations.
pub(super) fn plain(kernel: &'static Source, workgroup: u32, fragments: &[&'static Source]) -> Specialization {
    Specialization {
        kernel,
        constants: vec![("WORKGROUP", Constant::U32(workgroup))],
        fragments: [fragments, &[source!("shared/workgroup_index")]].concat(),
        storage: Vec::new(),
    }
}

/// The sums of rows, or of their parts.
pub(super) fn rows(forms: &Forms, problem: &Problem, split: Split) -> Specialization {
    let mut more = vec![own!("params"), own!("sums"), forms.labels];
    match split.parts {
        1 => more.extend([own!("write_loss"), optional!(problem.has("lse_neg"), "multilabel_softmax/", "lse")]),
        _ => more.push(own!("write_partial")),
    }
    forms.kernel(own!("rows"), split.lanes, &more).of(problem, &[])
}

/// The sums of rows from those of their parts.
pub(super) fn combine(problem: &Problem) -> Specialization {
    let lse = optional!(problem.has("lse_neg"), "multilabel_softmax/", "lse");
    plain(own!("combine"), COMBINE, &[own!("params"), own!("sums"), own!("write_loss"), lse])
}

/// Predictions and probabilities.
pub(super) fn predict(forms: &Forms, problem: &Problem, split: Split) -> Specialization {
    let [of_classes, likely] = ["predictions", "probabilities"].map(|name| problem.has(name));
    let predictions =
        if of_classes { fours!(forms.vec4, "multilabel_softmax/", "predictions") } else { own!("no_predictions") };
    let probabilities =
        if likely { fours!(forms.vec4, "multilabel_softmax/", "probabilities") } else { own!("no_probabilities") };
    let more = [own!("params"), own!("no_labels"), predictions, probabilities];
    forms.kernel(own!("predict"), split.lanes, &more).of(problem, &[])
}

/// The bits of the labels that are listed.
pub(super) fn set_bits<S: Shapes>(problem: &op::Problem<S>) -> Specialization {
    let lists = if problem.has("label_offsets") { own!("offsets") } else { own!("indices") };
    plain(own!("set_bits"), WORKGROUP, &[lists])
}

/// Every form of labels and threshold, with classes of some invocations and of more than a workgroup, one form with one class too.
pub(super) fn every_form() -> impl Iterator<Item = (MultilabelSoftmaxConfig, u32)> {
    let labels = [Labels::Bitmap, Labels::Indices, Labels::Offsets, Labels::Soft];
    let configs = labels.map(|labels| MultilabelSoftmaxConfig::new().labels(labels));
    let configs = configs.into_iter().flat_map(|config| [config, config.threshold(Threshold::Tensor)]);
    let one = std::iter::once((MultilabelSoftmaxConfig::new(), 1));
    one.chain(configs.flat_map(|config| [24, 1 << 14].map(|classes| (config, classes))))
}

/// Every specialization that a plan can pick; of the classes that share a row, some.
#[doc(hidden)]
#[must_use]
pub fn specializations() -> Vec<Specialization> {
    let mut found = Vec::new();
    for (config, classes) in every_form() {
        for flags in 0..16_u32 {
            let [mask, lse, predictions, probabilities] = [0, 1, 2, 3].map(|bit| flags >> bit & 1 == 1);
            let thresholds = if classes == 24 { 1 } else { classes };
            let shapes = MultilabelSoftmaxShapes::new(2, classes);
            let shapes = MultilabelSoftmaxShapes { thresholds, mask, lse, predictions, probabilities, ..shapes };
            let mut problem = Problem::contiguous::<MultilabelSoftmax>(&config, shapes);
            for start in [0, 1] {
                problem.change("scores", |layout| layout.start = start);
                let (forms, split) = (Forms::new(&config, &problem), Split::of_sums(2, classes));
                found.extend([rows(&forms, &problem, split), combine(&problem), sums::kernel(problem.storage("loss"))]);
                found.extend([set_bits(&problem), predict(&forms, &problem, Split::of_elements(classes))]);
            }
        }
    }
    wgsl::distinct(found)
}
