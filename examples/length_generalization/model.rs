//! A causal language model whose layers are gated attention units, or attention and a gated linear unit: its step, forward and back, on the
//! GPU. Matrix products, attention and loss are the crate's, and so are their gradients; what is left is plain WGSL beside this file.

use anyhow::Result;
use rand::rngs::StdRng;
use rand_distr::{Distribution, StandardNormal};
use wgpu_attention::{
    Context, DType, MarginSoftmax, MarginSoftmaxBackward, MarginSoftmaxBackwardInputs, MarginSoftmaxConfig,
    MarginSoftmaxGradients, MarginSoftmaxInputs, MarginSoftmaxOutputs, MatMul, MatMulConfig, MatMulInputs,
    MatMulOutputs, Reduction, TensorView, wgpu,
};

use crate::adam::{Adam, Parameter};
use crate::kernel::Kernel;
use crate::kinds::{Kind, Mixer};
use crate::matrix::matrix;
use crate::mixers::{Mix, Mixers};

/// What a model is made of.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Different tokens.
    pub vocabulary: u32,
    /// Numbers of a token between layers.
    pub dim: u32,
    /// Gated attention units; of attention with a gated linear unit, half as many, which learn as much by [`Size::glu_dim`].
    pub units: u32,
    /// Of a unit's z, q and k.
    pub key_dim: u32,
    /// Of attention's heads.
    pub heads: u32,
}

impl Size {
    /// Of a unit's u and v.
    pub fn value_dim(&self) -> u32 {
        2 * self.dim
    }

    /// Of a gated linear unit: with it, attention learns as many numbers as two units, 2 (6 d² + s d) beside their maps.
    pub fn glu_dim(&self) -> u32 {
        (8 * self.dim + 2 * self.key_dim) / 3
    }
}

/// What a layer learns, in the order of its file.
pub struct Layer {
    /// To u, v and z, or to q, k and v.
    pub input: Parameter,
    /// Factors and terms of q and of k, of a unit; else none.
    pub maps: Option<Parameter>,
    pub output: Parameter,
    /// In and out of the gated linear unit, where there is attention before it.
    pub feed_forward: Option<[Parameter; 2]>,
}

/// All that is learned.
pub struct Weights {
    embedding: Parameter,
    layers: Vec<Layer>,
    head: Parameter,
}

pub struct Model {
    pub context: Context,
    pub size: Size,
    pub kind: Kind,
    pub weights: Weights,
    pub adam: Adam,
    ops: Ops,
    mixers: Mixers,
}

/// The ops that all layers share.
pub struct Ops {
    matmul: MatMul,
    loss: MarginSoftmax,
    mean_loss: MarginSoftmax,
    mean_loss_backward: MarginSoftmaxBackward,
    norm: Kernel,
    norm_backward: Kernel,
    glu: Kernel,
    glu_backward: Kernel,
    one: wgpu::Buffer,
    glu_sizes: wgpu::Buffer,
}

impl Ops {
    fn new(context: &Context, size: &Size) -> Result<Self> {
        let kernel = |shader| Kernel::new(context, shader);
        // Plain products in place of cosines: the usual cross-entropy.
        let loss = MarginSoftmaxConfig::new().normalize(false).scale(1.0);
        let mean = loss.reduction(Reduction::Mean);
        Ok(Self {
            matmul: MatMul::new(context, MatMulConfig::new())?,
            loss: MarginSoftmax::new(context, loss)?,
            mean_loss: MarginSoftmax::new(context, mean)?,
            mean_loss_backward: MarginSoftmaxBackward::new(context, mean)?,
            norm: kernel(wgpu::include_wgsl!("norm.wgsl")),
            norm_backward: kernel(wgpu::include_wgsl!("norm_backward.wgsl")),
            glu: kernel(wgpu::include_wgsl!("glu.wgsl")),
            glu_backward: kernel(wgpu::include_wgsl!("glu_backward.wgsl")),
            one: context.upload(&[1.0_f32]),
            glu_sizes: context.upload(&[size.glu_dim()]),
        })
    }

    /// c = a b, or a b + c' where `bias` is c'.
    pub fn product(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        [a, b, c]: [TensorView<'_, 4>; 3],
        bias: Option<TensorView<'_, 4>>,
    ) -> Result<()> {
        let inputs = MatMulInputs { bias, ..MatMulInputs::new(a, b) };
        Ok(self.matmul.record(encoder, inputs, MatMulOutputs::new(c))?)
    }
}

/// A linear layer without a bias: y = x W.
#[derive(Clone, Copy)]
pub struct Linear<'a> {
    pub weights: &'a Parameter,
    pub shape: [u32; 2],
}

impl Linear<'_> {
    fn view<'a>(&self, buffer: &'a wgpu::Buffer) -> TensorView<'a, 4> {
        matrix(buffer, self.shape[0], self.shape[1])
    }

    /// y = x W, or x W + bias.
    pub fn forward(
        &self,
        ops: &Ops,
        encoder: &mut wgpu::CommandEncoder,
        [x, y]: [&wgpu::Buffer; 2],
        rows: u32,
        bias: Option<&wgpu::Buffer>,
    ) -> Result<()> {
        let [from, to] = self.shape;
        let bias = bias.map(|bias| matrix(bias, rows, to));
        ops.product(encoder, [matrix(x, rows, from), self.view(&self.weights.value), matrix(y, rows, to)], bias)
    }

    /// dW = xᵀ dy and dx = dy Wᵀ.
    pub fn backward(
        &self,
        ops: &Ops,
        encoder: &mut wgpu::CommandEncoder,
        [x, dy, dx]: [&wgpu::Buffer; 3],
        rows: u32,
    ) -> Result<()> {
        let [from, to] = self.shape;
        self.learn(ops, encoder, [x, dy], rows)?;
        let inputs = MatMulInputs::new(matrix(x, rows, from), self.view(&self.weights.value));
        let dx = MatMulOutputs::new(matrix(dx, rows, from));
        Ok(ops.matmul.record(encoder, inputs.gradient_of_a(matrix(dy, rows, to))?, dx)?)
    }

    /// dW alone.
    fn learn(
        &self,
        ops: &Ops,
        encoder: &mut wgpu::CommandEncoder,
        [x, dy]: [&wgpu::Buffer; 2],
        rows: u32,
    ) -> Result<()> {
        let [from, to] = self.shape;
        let inputs = MatMulInputs::new(matrix(x, rows, from), self.view(&self.weights.value));
        let dw = MatMulOutputs::new(self.view(&self.weights.gradient));
        Ok(ops.matmul.record(encoder, inputs.gradient_of_b(matrix(dy, rows, to))?, dw)?)
    }
}

/// Where the sequences of a call are, and everything that the layers leave for the way back.
pub struct Tape {
    batch: u32,
    len: u32,
    one_hot: wgpu::Buffer,
    labels: wgpu::Buffer,
    /// What goes into each layer, and comes out of the last.
    x: Vec<wgpu::Buffer>,
    layers: Vec<LayerTape>,
    last: Norm,
    loss: wgpu::Buffer,
    lse: wgpu::Buffer,
    others: wgpu::Buffer,
    logits: wgpu::Buffer,
    back: Option<Back>,
}

struct LayerTape {
    norm: Norm,
    mix: Mix,
    feed_forward: Option<FeedForward>,
}

struct Norm {
    y: wgpu::Buffer,
    factors: wgpu::Buffer,
}

struct FeedForward {
    /// Between attention and the gated linear unit.
    x: wgpu::Buffer,
    norm: Norm,
    h: wgpu::Buffer,
    g: wgpu::Buffer,
}

/// Gradients on their way, which all layers share.
struct Back {
    dx: wgpu::Buffer,
    dy: wgpu::Buffer,
    dg: wgpu::Buffer,
    dh: wgpu::Buffer,
}

impl Tape {
    fn rows(&self) -> u32 {
        self.batch * self.len
    }
}

impl Weights {
    /// Each with its name in a checkpoint.
    pub fn all(&self) -> Vec<(String, &Parameter)> {
        let mut all = vec![("embedding".into(), &self.embedding), ("head".into(), &self.head)];
        for (i, layer) in self.layers.iter().enumerate() {
            all.push((format!("layer{i}.input"), &layer.input));
            all.extend(layer.maps.as_ref().map(|maps| (format!("layer{i}.maps"), maps)));
            all.push((format!("layer{i}.output"), &layer.output));
            for (name, parameter) in ["up", "down"].into_iter().zip(layer.feed_forward.iter().flatten()) {
                all.push((format!("layer{i}.{name}"), parameter));
            }
        }
        all
    }
}

impl Model {
    pub fn new(context: &Context, size: Size, kind: Kind, rng: &mut StdRng) -> Result<Self> {
        let mut normal = |from: u32, to: u32, scale: f32| {
            let deviation = scale / (from as f32).sqrt();
            let numbers = (0..from * to).map(|_| {
                let number: f32 = StandardNormal.sample(rng);
                deviation * number
            });
            Parameter::new(context, &numbers.collect::<Vec<_>>())
        };
        let (dim, wide, glu, key) = (size.dim, size.value_dim(), size.glu_dim(), size.key_dim);
        let embedding = normal(1, size.vocabulary * dim, 1.0);
        // What comes out of a layer is small at first, the smaller the more layers add up.
        let out = 1.0 / (size.units as f32).sqrt();
        let layers = match kind.mixer {
            Mixer::Unit(_) => (0..size.units)
                .map(|_| {
                    let maps = [1.0, 0.0, 1.0, 0.0].into_iter().flat_map(|value| vec![value; key as usize]);
                    Layer {
                        input: normal(dim, 2 * wide + key, 1.0),
                        maps: Some(Parameter::new(context, &maps.collect::<Vec<f32>>())),
                        output: normal(wide, dim, out),
                        feed_forward: None,
                    }
                })
                .collect(),
            Mixer::Softmax(_) | Mixer::Linear => (0..size.units / 2)
                .map(|_| Layer {
                    input: normal(dim, 3 * dim, 1.0),
                    maps: None,
                    output: normal(dim, dim, out),
                    feed_forward: Some([normal(dim, 2 * glu, 1.0), normal(glu, dim, out)]),
                })
                .collect(),
        };
        Ok(Self {
            context: context.clone(),
            size,
            kind,
            weights: Weights { embedding, layers, head: normal(dim, size.vocabulary, 0.5) },
            adam: Adam::new(context),
            ops: Ops::new(context, &size)?,
            mixers: Mixers::new(context, size, kind)?,
        })
    }

    /// Room for a call of so many sequences; `backward`: for one that learns.
    pub fn tape(&self, batch: u32, len: u32, backward: bool) -> Tape {
        let room = |columns: u32| self.context.allocate((batch * len * columns) as usize);
        let norm = || Norm { y: room(self.size.dim), factors: room(1) };
        let wide = self.size.glu_dim();
        let layer = |layer: &Layer| LayerTape {
            norm: norm(),
            mix: self.mixers.room(batch, len, backward),
            feed_forward: layer.feed_forward.as_ref().map(|_| FeedForward {
                x: room(self.size.dim),
                norm: norm(),
                h: room(2 * wide),
                g: room(wide),
            }),
        };
        Tape {
            batch,
            len,
            one_hot: room(self.size.vocabulary),
            labels: room(1),
            x: (0..=self.weights.layers.len()).map(|_| room(self.size.dim)).collect(),
            layers: self.weights.layers.iter().map(layer).collect(),
            last: norm(),
            loss: room(1),
            lse: room(1),
            others: room(1),
            logits: room(self.size.vocabulary),
            back: backward.then(|| Back {
                dx: room(self.size.dim),
                dy: room(self.size.dim),
                dg: room(wide),
                dh: room(2 * wide),
            }),
        }
    }

    /// The tokens of all sequences, and what is to follow each; `u32::MAX` where that is not asked.
    fn put(&self, tape: &Tape, tokens: &[u32], labels: &[u32]) {
        let width = self.size.vocabulary as usize;
        let mut one_hot = vec![0.0_f32; tokens.len() * width];
        for (row, &token) in tokens.iter().enumerate() {
            one_hot[row * width + token as usize] = 1.0;
        }
        self.context.queue().write_buffer(&tape.one_hot, 0, bytemuck::cast_slice(&one_hot));
        self.context.queue().write_buffer(&tape.labels, 0, bytemuck::cast_slice(labels));
    }

    fn embedded(&self) -> Linear<'_> {
        Linear { weights: &self.weights.embedding, shape: [self.size.vocabulary, self.size.dim] }
    }

    fn forward(&self, encoder: &mut wgpu::CommandEncoder, tape: &Tape) -> Result<()> {
        let (rows, dim, wide) = (tape.rows(), self.size.dim, self.size.glu_dim());
        let norm = |encoder: &mut wgpu::CommandEncoder, x: &wgpu::Buffer, to: &Norm| {
            self.ops.norm.record(encoder, &[x, &to.y, &to.factors], rows as usize);
        };
        self.embedded().forward(&self.ops, encoder, [&tape.one_hot, &tape.x[0]], rows, None)?;
        for ((layer, own), x) in self.weights.layers.iter().zip(&tape.layers).zip(tape.x.windows(2)) {
            let [x, next] = x else { unreachable!() };
            norm(encoder, x, &own.norm);
            let mixed = own.feed_forward.as_ref().map_or(next, |after| &after.x);
            self.mixers.forward(&self.ops, encoder, layer, &own.mix, [&own.norm.y, x, mixed])?;
            if let (Some([up, down]), Some(after)) = (&layer.feed_forward, &own.feed_forward) {
                norm(encoder, &after.x, &after.norm);
                let up = Linear { weights: up, shape: [dim, 2 * wide] };
                up.forward(&self.ops, encoder, [&after.norm.y, &after.h], rows, None)?;
                self.ops.glu.record(encoder, &[&self.ops.glu_sizes, &after.h, &after.g], (rows * wide) as usize);
                let down = Linear { weights: down, shape: [wide, dim] };
                down.forward(&self.ops, encoder, [&after.g, next], rows, Some(&after.x))?;
            }
        }
        norm(encoder, &tape.x[self.weights.layers.len()], &tape.last);
        Ok(())
    }

    /// Learns from some sequences; the loss stays on the GPU.
    pub fn learn(&mut self, tape: &Tape, tokens: &[u32], labels: &[u32], rate: f32) -> Result<()> {
        self.gradients(tape, tokens, labels)?;
        let mut encoder = self.context.device().create_command_encoder(&Default::default());
        let parameters: Vec<_> = self.weights.all().into_iter().map(|(_, parameter)| parameter).collect();
        self.adam.step(&mut encoder, rate, &parameters);
        self.context.queue().submit([encoder.finish()]);
        Ok(())
    }

    /// The gradients of the mean loss, in all parameters.
    pub fn gradients(&self, tape: &Tape, tokens: &[u32], labels: &[u32]) -> Result<()> {
        let mut encoder = self.context.device().create_command_encoder(&Default::default());
        self.put(tape, tokens, labels);
        self.forward(&mut encoder, tape)?;
        self.backward(&mut encoder, tape)?;
        self.context.queue().submit([encoder.finish()]);
        Ok(())
    }

    /// The mean loss of the last call that learned.
    pub fn mean_loss(&self, tape: &Tape) -> Result<f32> {
        Ok(self.context.download(&tape.loss)?[0])
    }

    fn backward(&self, encoder: &mut wgpu::CommandEncoder, tape: &Tape) -> Result<()> {
        let (rows, dim, wide) = (tape.rows(), self.size.dim, self.size.glu_dim());
        let Some(back) = &tape.back else { anyhow::bail!("the tape has no room for gradients") };
        let ops = &self.ops;
        let norm = |encoder: &mut wgpu::CommandEncoder, norm: &Norm| {
            ops.norm_backward.record(encoder, &[&norm.y, &norm.factors, &back.dy, &back.dx], rows as usize);
        };

        // The loss, and its gradients of what comes out of the last norm and of the head.
        let (features, labels) = self.scored(tape);
        let weights = [TensorView::f32(&self.weights.head.value, [self.size.vocabulary, dim])];
        let loss = TensorView::f32(&tape.loss, [1]);
        let [lse, others] = [&tape.lse, &tape.others].map(|buffer| TensorView::f32(buffer, [rows]));
        let outputs = MarginSoftmaxOutputs { lse: Some(lse), others: Some(others), ..MarginSoftmaxOutputs::new(loss) };
        ops.mean_loss.record(encoder, MarginSoftmaxInputs::new(features, &weights, labels), outputs)?;
        let dloss = TensorView::f32(&ops.one, [1]);
        let inputs = MarginSoftmaxBackwardInputs::new(features, &weights, labels, lse, others, dloss);
        let dweights = [TensorView::f32(&self.weights.head.gradient, [self.size.vocabulary, dim])];
        let mut gradients = MarginSoftmaxGradients::none();
        gradients.dfeatures = Some(TensorView::f32(&back.dy, [rows, dim]));
        gradients.dweights = &dweights;
        ops.mean_loss_backward.record(encoder, inputs, gradients)?;
        encoder.clear_buffer(&back.dx, 0, None);
        norm(encoder, &tape.last);

        // dx is the gradient of what comes out of a layer, and becomes that of what goes in.
        for (layer, own) in self.weights.layers.iter().zip(&tape.layers).rev() {
            if let (Some([up, down]), Some(after)) = (&layer.feed_forward, &own.feed_forward) {
                let down = Linear { weights: down, shape: [wide, dim] };
                down.backward(ops, encoder, [&after.g, &back.dx, &back.dg], rows)?;
                let buffers = [&ops.glu_sizes, &after.h, &back.dg, &back.dh];
                ops.glu_backward.record(encoder, &buffers, (rows * wide) as usize);
                let up = Linear { weights: up, shape: [dim, 2 * wide] };
                up.backward(ops, encoder, [&after.norm.y, &back.dh, &back.dy], rows)?;
                norm(encoder, &after.norm);
            }
            self.mixers.backward(ops, encoder, layer, &own.mix, [&own.norm.y, &back.dx, &back.dy])?;
            norm(encoder, &own.norm);
        }
        self.embedded().learn(ops, encoder, [&tape.one_hot, &back.dx], rows)
    }

    fn scored<'a>(&self, tape: &'a Tape) -> (TensorView<'a, 2>, TensorView<'a, 1>) {
        let rows = tape.rows();
        let labels = TensorView::new(&tape.labels, DType::U32, [rows]);
        (TensorView::f32(&tape.last.y, [rows, self.size.dim]), labels)
    }

    /// Of each row its loss, and the scores of all tokens.
    pub fn judge(&self, tape: &Tape, tokens: &[u32], labels: &[u32]) -> Result<[Vec<f32>; 2]> {
        let mut encoder = self.context.device().create_command_encoder(&Default::default());
        self.put(tape, tokens, labels);
        self.forward(&mut encoder, tape)?;
        let (rows, dim, vocabulary) = (tape.rows(), self.size.dim, self.size.vocabulary);
        let (features, labels) = self.scored(tape);
        let weights = [TensorView::f32(&self.weights.head.value, [vocabulary, dim])];
        let outputs = MarginSoftmaxOutputs::new(TensorView::f32(&tape.loss, [rows]));
        self.ops.loss.record(&mut encoder, MarginSoftmaxInputs::new(features, &weights, labels), outputs)?;
        let (y, head) =
            (matrix(&tape.last.y, rows, dim), matrix(&self.weights.head.value, vocabulary, dim).swap_axes(2, 3));
        self.ops.product(&mut encoder, [y, head, matrix(&tape.logits, rows, vocabulary)], None)?;
        self.context.queue().submit([encoder.finish()]);
        Ok([self.context.download(&tape.loss)?, self.context.download(&tape.logits)?])
    }

    /// The mean entropy, in nats, of the attention of each layer's last row of every sequence, as the last call left it.
    pub fn entropies(&self, tape: &Tape) -> Result<Vec<f64>> {
        tape.layers.iter().map(|layer| self.mixers.entropy(&layer.mix)).collect()
    }

    /// By which angles q and k are turned from now on.
    pub fn turn(&mut self, turns: &[[f32; 2]]) {
        self.mixers.turn(turns);
    }
}
