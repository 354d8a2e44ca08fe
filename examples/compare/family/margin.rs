//! Margin softmax of cosines, whose rows make a logit a class.

use wgpu_attention::margin_softmax::backward::reference::{HostInputs as HostBackward, margin_softmax_backward_in};
use wgpu_attention::margin_softmax::reference::{HostInputs, margin_softmax_in};
use wgpu_attention::{
    Context, DType, HostView, MarginSoftmax, MarginSoftmaxBackward, MarginSoftmaxBackwardInputs, MarginSoftmaxConfig,
    MarginSoftmaxGradients, MarginSoftmaxInputs, MarginSoftmaxOutputs, Prepared, Result, TensorView, wgpu,
};

use super::cells::{Cell, Numbers, spread, twin};
use super::variants::{MARGIN_DIM, MARGIN_ROWS, margin};
use crate::harness::Failure;
use crate::harness::case::Arithmetic;
use crate::harness::stored::{allocate, round};
use crate::harness::tensors::{clear, normal, within_memory};

const ROWS: usize = MARGIN_ROWS as usize;
const DIM: usize = MARGIN_DIM as usize;
/// Multiply-adds of the twin, which is asked about two rows at least, and class weights whose gradients are compared.
const SHOWN_WORK: usize = 1 << 26;
const SHOWN_CLASSES: usize = 4096;

/// Features, and class weights in as many tensors as bindings hold.
pub struct MarginTensors {
    classes: usize,
    dtype: DType,
    shown: Vec<usize>,
    shown_classes: Vec<usize>,
    host_features: Vec<f32>,
    host_weights: Vec<f32>,
    host_labels: Vec<u32>,
    host_dloss: Vec<f32>,
    features: wgpu::Buffer,
    dfeatures: wgpu::Buffer,
    labels: wgpu::Buffer,
    /// Classes, weights and their gradients.
    shards: Vec<(u32, [wgpu::Buffer; 2])>,
    /// Of each row: loss, lse and others.
    of_rows: [wgpu::Buffer; 3],
    /// The gradient of each loss, and the same but 0 in rows that are not compared.
    dloss: [wgpu::Buffer; 2],
}

impl MarginTensors {
    pub fn new(context: &Context, classes: u32, dtype: DType) -> Result<Self, Failure> {
        let limits = context.device().limits();
        let bytes = limits.max_buffer_size.min(limits.max_storage_buffer_binding_size);
        let classes = classes as usize;
        // Whole vectors of four in each, whatever the limit is.
        let of_shard = ((bytes / (DIM as u64 * dtype.size())) as usize / 4 * 4).max(4);
        let (mut host_features, mut host_weights) = (normal(4, ROWS * DIM), normal(5, classes * DIM));
        round(&mut host_features, dtype);
        round(&mut host_weights, dtype);
        let host_labels: Vec<u32> = (0..ROWS).map(|row| (row * 7919 % classes) as u32).collect();
        let host_dloss = normal(6, ROWS);
        let shown = spread(ROWS, (SHOWN_WORK / (classes * DIM)).max(2));
        let mut shown_classes = spread(classes, SHOWN_CLASSES);
        shown_classes.extend(shown.iter().map(|&row| host_labels[row] as usize));
        let mut of_shown = vec![0.0; ROWS];
        shown.iter().for_each(|&row| of_shown[row] = host_dloss[row]);
        within_memory(context, || {
            let shard = |weights: &[f32]| {
                let both = [context.upload_as(weights, dtype)?, allocate(context, weights.len(), dtype)];
                Ok(((weights.len() / DIM) as u32, both))
            };
            Ok(Self {
                classes,
                dtype,
                shown_classes,
                features: context.upload_as(&host_features, dtype)?,
                dfeatures: allocate(context, ROWS * DIM, dtype),
                labels: context.upload(&host_labels),
                shards: host_weights.chunks(of_shard * DIM).map(shard).collect::<Result<_>>()?,
                of_rows: [0; 3].map(|_| context.allocate(ROWS)),
                dloss: [&host_dloss, &of_shown].map(|data| context.upload(data)),
                shown,
                host_features,
                host_weights,
                host_labels,
                host_dloss,
            })
        })
    }

    pub fn clear_outputs(&self, context: &Context) {
        let gradients = self.shards.iter().map(|(_, [_, gradients])| gradients);
        clear(context, gradients.chain([&self.dfeatures]).chain(&self.of_rows));
    }

    /// The weights of all classes, or their gradients.
    fn views<'a>(&'a self, which: usize) -> Vec<TensorView<'a, 2>> {
        let view = |(classes, both): &'a (u32, [wgpu::Buffer; 2])| {
            TensorView::new(&both[which], self.dtype, [*classes, MARGIN_DIM])
        };
        self.shards.iter().map(view).collect()
    }

    fn of_features<'a>(&self, buffer: &'a wgpu::Buffer) -> TensorView<'a, 2> {
        TensorView::new(buffer, self.dtype, [MARGIN_ROWS, MARGIN_DIM])
    }

    fn labels(&self) -> TensorView<'_, 1> {
        TensorView::new(&self.labels, DType::U32, [MARGIN_ROWS])
    }

    /// Features and labels of these rows.
    fn rows(&self, rows: &[usize]) -> (Vec<f32>, Vec<u32>) {
        let features = rows.iter().flat_map(|row| &self.host_features[row * DIM..][..DIM]).copied().collect();
        (features, rows.iter().map(|&row| self.host_labels[row]).collect())
    }
}

/// A number a row, of 64 rows.
fn row(buffer: &wgpu::Buffer) -> TensorView<'_, 1> {
    TensorView::f32(buffer, [MARGIN_ROWS])
}

fn host<const RANK: usize, T: Copy>(data: &[T], shape: [usize; RANK]) -> HostView<'_, T, RANK> {
    HostView::new(data, shape).expect("the data was made for this shape")
}

/// The loss of each row, with what its backward pass reads.
pub struct MarginForward<'t> {
    tensors: &'t MarginTensors,
    weights: Vec<TensorView<'t, 2>>,
    config: MarginSoftmaxConfig,
    op: MarginSoftmax,
}

impl<'t> MarginForward<'t> {
    pub fn new(context: &Context, tensors: &'t MarginTensors) -> Result<Self> {
        let config = margin();
        Ok(Self { tensors, weights: tensors.views(0), config, op: MarginSoftmax::new(context, config)? })
    }
}

impl Cell for MarginForward<'_> {
    fn prepare(&self) -> Result<Prepared<'_>> {
        let MarginTensors { features, of_rows: [loss, lse, others], .. } = self.tensors;
        let mut outputs = MarginSoftmaxOutputs::new(row(loss));
        (outputs.lse, outputs.others) = (Some(row(lse)), Some(row(others)));
        let features = self.tensors.of_features(features);
        self.op.prepare(MarginSoftmaxInputs::new(features, &self.weights, self.tensors.labels()), outputs)
    }

    fn shown(&self) -> &[usize] {
        &self.tensors.shown
    }

    fn got(&self, context: &Context) -> Result<Vec<Numbers>> {
        let of_shown = |buffer| {
            let all = context.download(buffer)?;
            let of = self.tensors.shown.iter().map(|&row| f64::from(all[row])).collect();
            Ok(Numbers { stored: DType::F32, of })
        };
        self.tensors.of_rows.iter().map(of_shown).collect()
    }

    fn twin(&self, rows: &[usize], arithmetic: Arithmetic) -> Result<Vec<Numbers>> {
        let (features, labels) = self.tensors.rows(rows);
        let weights = host(&self.tensors.host_weights, [self.tensors.classes, DIM]);
        let inputs = HostInputs::new(host(&features, [rows.len(), DIM]), weights, host(&labels, [rows.len()]));
        let f32 = DType::F32;
        Ok(twin!(arithmetic, margin_softmax_in(&self.config, &inputs) => [loss: f32, lse: f32, others: f32]))
    }

    fn row_work(&self) -> u64 {
        (self.tensors.classes * DIM) as u64
    }

    fn ulps(&self) -> f64 {
        // Logits are within ±s, and so is the distance of two.
        3.0 + 4.0 * f64::from(self.config.scale)
    }
}

pub struct MarginBackward<'t> {
    forward: MarginForward<'t>,
    gradients: Vec<TensorView<'t, 2>>,
    op: MarginSoftmaxBackward,
}

impl<'t> MarginBackward<'t> {
    pub fn new(context: &Context, forward: MarginForward<'t>) -> Result<Self> {
        let op = MarginSoftmaxBackward::new(context, forward.config)?;
        Ok(Self { gradients: forward.tensors.views(1), forward, op })
    }

    fn of(&self, dloss: usize) -> Result<Prepared<'_>> {
        let tensors = self.forward.tensors;
        let MarginTensors { features, dfeatures, of_rows: [_, lse, others], .. } = tensors;
        let inputs = MarginSoftmaxBackwardInputs::new(
            tensors.of_features(features),
            &self.forward.weights,
            tensors.labels(),
            row(lse),
            row(others),
            row(&tensors.dloss[dloss]),
        );
        let mut gradients = MarginSoftmaxGradients::none();
        (gradients.dfeatures, gradients.dweights) = (Some(tensors.of_features(dfeatures)), &self.gradients);
        self.op.prepare(inputs, gradients)
    }

    fn of_classes<T: Copy + Into<f64>>(&self, dweights: &[T]) -> Numbers {
        let shown = &self.forward.tensors.shown_classes;
        let of = shown.iter().flat_map(|class| &dweights[class * DIM..][..DIM]).map(|&x| x.into()).collect();
        Numbers { stored: self.forward.tensors.dtype, of }
    }
}

impl Cell for MarginBackward<'_> {
    fn prepare(&self) -> Result<Prepared<'_>> {
        self.of(0)
    }

    /// The loss, of which lse and others are read.
    fn run_before(&self, context: &Context) -> Result<()> {
        context.run(&self.forward.prepare()?)
    }

    /// Rows that are not compared add nothing to the gradients of class weights.
    fn prepare_checked(&self) -> Result<Prepared<'_>> {
        self.of(1)
    }

    fn shown(&self) -> &[usize] {
        self.forward.shown()
    }

    fn got(&self, context: &Context) -> Result<Vec<Numbers>> {
        let MarginTensors { dtype, shown, dfeatures, shards, .. } = self.forward.tensors;
        let all = context.download_as(dfeatures, *dtype)?;
        let of = shown.iter().flat_map(|row| &all[row * DIM..][..DIM]).map(|&x| f64::from(x)).collect();
        let mut dweights = Vec::new();
        for (_, [_, gradients]) in shards {
            dweights.extend(context.download_as(gradients, *dtype)?);
        }
        Ok(vec![Numbers { stored: *dtype, of }, self.of_classes(&dweights)])
    }

    fn twin(&self, rows: &[usize], arithmetic: Arithmetic) -> Result<Vec<Numbers>> {
        let tensors = self.forward.tensors;
        let (features, labels) = tensors.rows(rows);
        let dloss: Vec<f32> = rows.iter().map(|&row| tensors.host_dloss[row]).collect();
        let dloss = host(&dloss, [rows.len()]);
        let weights = host(&tensors.host_weights, [tensors.classes, DIM]);
        // The twin computes itself what the loss has saved.
        let inputs = HostBackward::new(
            host(&features, [rows.len(), DIM]),
            weights,
            host(&labels, [rows.len()]),
            dloss,
            dloss,
            dloss,
        );
        let (config, stored) = (self.forward.config, tensors.dtype);
        let mut all =
            twin!(arithmetic, margin_softmax_backward_in(&config, &inputs) => [dfeatures: stored, dweights: stored]);
        all[1] = self.of_classes(&all[1].of);
        Ok(all)
    }

    fn row_work(&self) -> u64 {
        4 * self.forward.row_work()
    }

    fn ulps(&self) -> f64 {
        2.0 * self.forward.ulps()
    }
}
