//! The kernels of the multi-label loss: the source of each specialization.

use super::plan::{Problem, Split};
use super::{Labels, MultilabelSoftmax, MultilabelSoftmaxConfig, MultilabelSoftmaxShapes, Threshold};
use crate::op::{self, Shapes};
use crate::wgsl::{self, Constant, Source, Specialization, source};

pub(super) const WORKGROUP: u32 = 256;
/// Invocations that put a row's partial sums together.
const COMBINE: u32 = 64;

/// How a kernel of either pass finds labels, mask and threshold, and whether four classes of a row at once.
pub(super) struct Forms {
    pub vec4: bool,
    fragments: Vec<&'static Source>,
}

impl Forms {
    pub fn new<S: Shapes>(config: &MultilabelSoftmaxConfig, problem: &op::Problem<S>) -> Self {
        let each = problem.shapes.axis("thresholds") != Some(1);
        let by_class =
            ["scores", "labels", "soft_labels", "mask", "predictions", "probabilities", "dscores", "dsoft_labels"];
        let thresholds: &[&str] = if each { &["threshold"] } else { &[] };
        let vec4 = problem.is_vec4(&by_class) && problem.is_vec4(thresholds);
        let labels = match config.labels {
            Labels::Bitmap => source!("multilabel_softmax/labels"),
            Labels::Indices | Labels::Offsets => source!("multilabel_softmax/label_bits"),
            Labels::Soft => pick(
                vec4,
                source!("multilabel_softmax/soft_labels_vec4"),
                source!("multilabel_softmax/soft_labels_scalar"),
            ),
            Labels::None => source!("multilabel_softmax/no_labels"),
        };
        let threshold = match config.threshold {
            Threshold::Fixed(_) => source!("multilabel_softmax/no_threshold"),
            Threshold::Tensor if vec4 && each => source!("multilabel_softmax/threshold_vec4"),
            Threshold::Tensor => source!("multilabel_softmax/threshold_scalar"),
        };
        let fragments = vec![
            source!("multilabel_softmax/classes"),
            pick(vec4, source!("multilabel_softmax/scores_vec4"), source!("multilabel_softmax/scores_scalar")),
            labels,
            pick(problem.has("mask"), source!("multilabel_softmax/mask"), source!("multilabel_softmax/no_mask")),
            threshold,
        ];
        Self { vec4, fragments }
    }

    /// A kernel over `[rows, classes]`, with these fragments more.
    pub fn kernel(&self, kernel: &'static Source, lanes: u32, more: &[&'static Source]) -> Specialization {
        Specialization {
            kernel,
            constants: vec![
                ("WORKGROUP", Constant::U32(WORKGROUP)),
                ("LANES", Constant::U32(lanes)),
                ("VEC4", Constant::Bool(self.vec4)),
                ("Elem", Constant::Type(pick(self.vec4, "vec4<f32>", "f32"))),
            ],
            fragments: [&self.fragments[..], more, &[source!("shared/workgroup_index")]].concat(),
            storage: Vec::new(),
        }
    }
}

pub(super) fn pick<T>(on: bool, yes: T, no: T) -> T {
    if on { yes } else { no }
}

fn lse(problem: &Problem) -> &'static Source {
    pick(problem.has("lse_neg"), source!("multilabel_softmax/lse"), source!("multilabel_softmax/no_lse"))
}

/// The sums of rows, or of their parts.
pub(super) fn rows(forms: &Forms, problem: &Problem, split: Split) -> Specialization {
    let write = match split.parts {
        1 => &[source!("multilabel_softmax/write_loss"), lse(problem)][..],
        _ => &[source!("multilabel_softmax/write_partial")],
    };
    let more = [&[source!("multilabel_softmax/params"), source!("multilabel_softmax/sums")], write].concat();
    forms.kernel(source!("multilabel_softmax/rows"), split.lanes, &more).of(problem, &[])
}

/// The sums of rows from those of their parts.
pub(super) fn combine(problem: &Problem) -> Specialization {
    Specialization {
        kernel: source!("multilabel_softmax/combine"),
        constants: vec![("WORKGROUP", Constant::U32(COMBINE))],
        fragments: vec![
            source!("multilabel_softmax/params"),
            source!("multilabel_softmax/sums"),
            source!("multilabel_softmax/write_loss"),
            lse(problem),
            source!("shared/workgroup_index"),
        ],
        storage: Vec::new(),
    }
}

/// Predictions and probabilities.
pub(super) fn predict(forms: &Forms, problem: &Problem, split: Split) -> Specialization {
    let predictions = match (problem.has("predictions"), forms.vec4) {
        (false, _) => source!("multilabel_softmax/no_predictions"),
        (true, false) => source!("multilabel_softmax/predictions_scalar"),
        (true, true) => source!("multilabel_softmax/predictions_vec4"),
    };
    let probabilities = match (problem.has("probabilities"), forms.vec4) {
        (false, _) => source!("multilabel_softmax/no_probabilities"),
        (true, false) => source!("multilabel_softmax/probabilities_scalar"),
        (true, true) => source!("multilabel_softmax/probabilities_vec4"),
    };
    let own = Forms {
        fragments: forms
            .fragments
            .iter()
            .map(|&own| if forms.fragments[2] == own { source!("multilabel_softmax/no_labels") } else { own })
            .collect(),
        ..*forms
    };
    let more = [source!("multilabel_softmax/params"), predictions, probabilities];
    own.kernel(source!("multilabel_softmax/predict"), split.lanes, &more).of(problem, &[])
}

/// The bits of the labels that are listed.
pub(super) fn set_bits<S: Shapes>(problem: &op::Problem<S>) -> Specialization {
    let listed = problem.has("label_offsets");
    Specialization {
        kernel: source!("multilabel_softmax/set_bits"),
        constants: vec![("WORKGROUP", Constant::U32(WORKGROUP))],
        fragments: vec![
            pick(listed, source!("multilabel_softmax/offsets"), source!("multilabel_softmax/indices")),
            source!("shared/workgroup_index"),
        ],
        storage: Vec::new(),
    }
}

/// Sums of numbers in the workspace, the last of which is an operand.
pub(super) fn sum<S: Shapes>(problem: &op::Problem<S>, last: Option<&'static str>) -> Specialization {
    let sums = last.map(|name| ("sums", problem.storage(name)));
    Specialization {
        kernel: source!("multilabel_softmax/sum"),
        constants: vec![("WORKGROUP", Constant::U32(WORKGROUP))],
        fragments: vec![source!("shared/workgroup_index")],
        storage: Vec::new(),
    }
    .of(problem, sums.as_slice())
}

/// Every form of labels and threshold, with classes of one invocation, of some in fours and not, and of more than a workgroup.
pub(super) fn every_form() -> impl Iterator<Item = (MultilabelSoftmaxConfig, u32)> {
    let labels = [Labels::Bitmap, Labels::Indices, Labels::Offsets, Labels::Soft];
    let thresholds = [Threshold::Fixed(0.0), Threshold::Tensor];
    let forms = labels.into_iter().flat_map(move |labels| thresholds.map(|threshold| (labels, threshold)));
    forms.flat_map(|(labels, threshold)| {
        [1, 5, 24, 1 << 14].map(|classes| (MultilabelSoftmaxConfig::new().labels(labels).threshold(threshold), classes))
    })
}

/// Every specialization that a plan can pick; of the classes that share a row, some.
#[doc(hidden)]
#[must_use]
pub fn specializations() -> Vec<Specialization> {
    let mut found = Vec::new();
    for (config, classes) in every_form() {
        for flags in 0..16_u32 {
            let on = |bit: u32| flags >> bit & 1 == 1;
            let shapes = MultilabelSoftmaxShapes {
                thresholds: pick(classes == 24, 1, classes),
                mask: on(0),
                lse: on(1),
                predictions: on(2),
                probabilities: on(3),
                ..MultilabelSoftmaxShapes::new(2, classes)
            };
            let mut problem = Problem::contiguous::<MultilabelSoftmax>(&config, shapes);
            for start in [0, 1] {
                problem.change("scores", |layout| layout.start = start);
                let forms = Forms::new(&config, &problem);
                let split = Split::of_sums(2, classes);
                found.extend([rows(&forms, &problem, split), set_or_sum(&config, &problem)]);
                found.extend((split.parts > 1).then(|| combine(&problem)));
                found.extend((on(2) || on(3)).then(|| predict(&forms, &problem, Split::of_elements(classes))));
            }
        }
    }
    wgsl::distinct(found)
}

fn set_or_sum(config: &MultilabelSoftmaxConfig, problem: &Problem) -> Specialization {
    match config.labels {
        Labels::Indices | Labels::Offsets => set_bits(problem),
        _ => sum(problem, Some("loss")),
    }
}
