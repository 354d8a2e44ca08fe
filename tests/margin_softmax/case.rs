//! Random features and class weights.

use crate::common::{NAIVE_RUNS, Tensor};
use wgpu_attention::margin_softmax::reference::HostInputs;
use wgpu_attention::margin_softmax::{Arc, Margin};
use wgpu_attention::{DType, HostView, MarginSoftmaxConfig};

pub const NONE: u32 = u32::MAX;

pub const ARC: Margin = Margin::Angular { m: 0.5, beyond: Arc::Monotone };
pub const COSINE: Margin = Margin::Cosine { m: 0.35 };

/// Rows, classes and dims around every tile.
pub const SIZES: [[usize; 3]; 13] = [
    [1, 1, 1],
    [2, 2, 3],
    [3, 255, 4],
    [4, 256, 5],
    [5, 257, 8],
    [15, 1000, 9],
    [16, 63, 7],
    [17, 64, 31],
    [63, 65, 32],
    [64, 127, 33],
    [65, 129, 64],
    [127, 4, 16],
    [129, 300, 6],
];

/// A case of every margin, with features of every angle to the target.
pub fn every_margin() -> impl Iterator<Item = Case> {
    let angular = [Arc::Plain, Arc::Monotone, Arc::Easy].map(|beyond| Margin::Angular { m: 0.5, beyond });
    let powers = (1..=4)
        .flat_map(|m| [Margin::Sphere { m }, Margin::SphereMin { m }, Margin::Combined { m1: m, m2: 0.3, m3: 0.2 }]);
    let all = angular.into_iter().chain(powers).chain([Margin::None, Margin::Metric { m: 0.3 }]);
    all.map(|margin| {
        let mut case = Case::new([40, 30, 10], MarginSoftmaxConfig::new().margin(margin).scale(16.0));
        for i in 0..40 {
            let (t, target) = (i as f32 / 39.0 * 1.9 - 0.95, (7 * i % 30) * 10);
            for c in 0..10 {
                let own = case.features.data[10 * i + c];
                case.features.data[10 * i + c] = t * case.weights.data[target + c] + (1.0 - t.abs()) * own;
            }
        }
        case
    })
}

#[derive(Clone)]
pub struct Case {
    pub config: MarginSoftmaxConfig,
    pub features: Tensor<2>,
    pub weights: Tensor<2>,
    pub labels: Vec<u32>,
    pub bias: Option<Tensor<1>>,
    pub class_weights: Option<Tensor<1>>,
    pub class_margins: Option<Tensor<1>>,
    pub row_margins: Option<Tensor<1>>,
    pub sampled: Option<Vec<u32>>,
    /// The classes of each tensor of the class weights.
    pub shards: Vec<usize>,
    /// The types of features and logits, and of class weights and all that classes have.
    pub stored: [DType; 2],
    pub naive_runs: u64,
}

impl Case {
    /// So many rows, classes and dims.
    pub fn new([rows, classes, dim]: [usize; 3], config: MarginSoftmaxConfig) -> Self {
        let labels = (0..rows).map(|i| if i % 5 == 3 { NONE } else { (7 * i % classes) as u32 }).collect();
        let class_rows = classes * config.centres as usize;
        let [features, weights] = [(1, rows), (2, class_rows)].map(|(seed, rows)| Tensor::normal(seed, [rows, dim]));
        Self {
            config,
            features,
            weights,
            labels,
            bias: None,
            class_weights: None,
            class_margins: None,
            row_margins: None,
            sampled: None,
            shards: vec![classes],
            stored: [DType::F32; 2],
            naive_runs: NAIVE_RUNS,
        }
    }

    pub fn classes(&self) -> usize {
        self.weights.shape[0] / self.config.centres as usize
    }

    /// In so many tensors, as even as whole classes are.
    pub fn shards(self, count: usize) -> Self {
        let (classes, each) = (self.classes(), self.classes().div_ceil(count));
        Self { shards: (0..classes).step_by(each).map(|first| each.min(classes - first)).collect(), ..self }
    }

    pub fn stored(self, stored: [DType; 2]) -> Self {
        let of_class = |tensor: Option<Tensor<1>>| tensor.map(|tensor| tensor.rounded(stored[1]));
        Self {
            features: self.features.rounded(stored[0]),
            weights: self.weights.rounded(stored[1]),
            bias: of_class(self.bias),
            class_weights: of_class(self.class_weights),
            class_margins: of_class(self.class_margins),
            row_margins: of_class(self.row_margins),
            stored,
            ..self
        }
    }

    pub fn bias(mut self) -> Self {
        self.bias = Some(Tensor::normal(3, [self.classes()]));
        self
    }

    /// Classes that count between 0 and 3 or so.
    pub fn class_weights(mut self) -> Self {
        let mut weights = Tensor::normal(4, [self.classes()]);
        weights.data.iter_mut().for_each(|x| *x = x.abs());
        self.class_weights = Some(weights);
        self
    }

    fn margins(seed: u64, count: usize) -> Option<Tensor<1>> {
        let mut margins = Tensor::normal(seed, [count]);
        margins.data.iter_mut().for_each(|x| *x = x.abs().min(3.0));
        Some(margins)
    }

    pub fn class_margins(mut self) -> Self {
        self.class_margins = Self::margins(5, self.classes());
        self
    }

    pub fn row_margins(mut self) -> Self {
        self.row_margins = Self::margins(6, self.labels.len());
        self
    }

    /// Lists the classes of the labels, and of the others every so many.
    pub fn sampled(mut self, every: usize) -> Self {
        let listed = (0..self.classes() as u32).filter(|j| j % every as u32 == 1 || self.labels.contains(j));
        self.sampled = Some(listed.collect());
        self
    }

    /// The call of the listed classes alone.
    pub fn gathered(&self) -> Self {
        let mut case = self.clone();
        let listed = case.sampled.take().expect("a list");
        let pick = |data: &[f32], each: usize| -> Vec<f32> {
            listed.iter().flat_map(|&j| data[j as usize * each..][..each].to_vec()).collect()
        };
        let (dim, centres) = (self.weights.shape[1], self.config.centres as usize);
        let data = pick(&self.weights.data, centres * dim);
        case.weights = Tensor { data, shape: [listed.len() * centres, dim] };
        for tensor in [&mut case.bias, &mut case.class_weights, &mut case.class_margins].into_iter().flatten() {
            *tensor = Tensor { data: pick(&tensor.data, 1), shape: [listed.len()] };
        }
        for label in case.labels.iter_mut().filter(|label| **label != NONE) {
            *label = listed.iter().position(|j| j == label).map_or(NONE - 1, |place| place as u32);
        }
        case.shards = vec![listed.len()];
        case
    }

    pub fn host(&self) -> HostInputs<'_> {
        let labels = HostView::new(&self.labels, [self.labels.len()]).expect("labels");
        let mut inputs = HostInputs::new(self.features.view(), self.weights.view(), labels);
        inputs.bias = self.bias.as_ref().map(Tensor::view);
        inputs.class_weights = self.class_weights.as_ref().map(Tensor::view);
        inputs.class_margins = self.class_margins.as_ref().map(Tensor::view);
        inputs.row_margins = self.row_margins.as_ref().map(Tensor::view);
        inputs.sampled = self.sampled.as_ref().map(|listed| HostView::new(listed, [listed.len()]).expect("a list"));
        inputs
    }
}
