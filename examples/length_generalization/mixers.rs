//! What lets tokens see each other: a gated attention unit, or heads of softmax or linear attention; forward and back.

use anyhow::Result;
use wgpu_attention::{
    Attention, AttentionBackward, AttentionBackwardInputs, AttentionConfig, AttentionGradients, AttentionInputs,
    AttentionOutputs, Causal, Context, FeatureMap, GatedAttention, GatedAttentionBackward,
    GatedAttentionBackwardInputs, GatedAttentionConfig, GatedAttentionGradients, GatedAttentionInputs,
    GatedAttentionOutputs, LinearAttention, LinearAttentionBackward, LinearAttentionBackwardInputs,
    LinearAttentionConfig, LinearAttentionGradients, LinearAttentionInputs, LinearAttentionOutputs, LinearMode,
    TensorView, wgpu,
};

use crate::kernel::Kernel;
use crate::kinds::{Kind, Mixer};
use crate::matrix::matrix;
use crate::model::{Layer, Linear, Ops, Size};

pub struct Mixers {
    context: Context,
    size: Size,
    kind: Kind,
    op: Op,
    split: Kernel,
    split_backward: Vec<Kernel>,
    /// Cosines and sines of the angles of all positions.
    turns: wgpu::Buffer,
}

/// An op and its gradients.
enum Op {
    Unit(GatedAttention, GatedAttentionBackward),
    Softmax(Attention, AttentionBackward),
    Linear(LinearAttention, LinearAttentionBackward),
}

/// What a layer leaves for the way back.
pub struct Mix {
    batch: u32,
    len: u32,
    sizes: wgpu::Buffer,
    /// What x W is: u, v and z, or q, k and v.
    h: wgpu::Buffer,
    /// u and v of a unit, side by side.
    uv: wgpu::Buffer,
    /// q and k, side by side.
    qk: wgpu::Buffer,
    o: wgpu::Buffer,
    lse: wgpu::Buffer,
    back: Option<Back>,
}

struct Back {
    dout: wgpu::Buffer,
    /// Of u, v, q and k; of attention not of u.
    gradients: [wgpu::Buffer; 4],
    dh: wgpu::Buffer,
    dmaps: wgpu::Buffer,
    ones: wgpu::Buffer,
}

/// Columns from `first` on of rows that are `width` wide, as heads of `dim`.
#[derive(Clone, Copy)]
struct Columns {
    batch: u32,
    len: u32,
    heads: u32,
    dim: u32,
    width: u32,
    first: u32,
}

impl Columns {
    fn of(self, buffer: &wgpu::Buffer) -> TensorView<'_, 4> {
        let Self { batch, len, heads, dim, width, first } = self;
        let strides = [u64::from(len) * u64::from(width), u64::from(dim), u64::from(width), 1];
        TensorView::f32(buffer, [batch, heads, len, dim]).with_strides(strides).with_offset(first.into())
    }
}

impl Mixers {
    pub fn new(context: &Context, size: Size, kind: Kind) -> Result<Self> {
        let causal = Causal::BottomRight;
        let op = match kind.mixer {
            Mixer::Unit(weights) => {
                let config = GatedAttentionConfig::new().weights(weights).causal(causal);
                Op::Unit(GatedAttention::new(context, config)?, GatedAttentionBackward::new(context, config)?)
            }
            Mixer::Softmax(scale) => {
                let config = AttentionConfig::new().scale(scale).causal(causal);
                Op::Softmax(Attention::new(context, config)?, AttentionBackward::new(context, config)?)
            }
            Mixer::Linear => {
                let config = LinearAttentionConfig::new().mode(LinearMode::Causal).feature_map(FeatureMap::EluPlusOne);
                Op::Linear(LinearAttention::new(context, config)?, LinearAttentionBackward::new(context, config)?)
            }
        };
        let (split, backward) = match kind.mixer {
            Mixer::Unit(_) => (
                wgpu::include_wgsl!("gau.wgsl"),
                vec![wgpu::include_wgsl!("gau_values_backward.wgsl"), wgpu::include_wgsl!("gau_keys_backward.wgsl")],
            ),
            _ => (wgpu::include_wgsl!("heads.wgsl"), vec![wgpu::include_wgsl!("heads_backward.wgsl")]),
        };
        Ok(Self {
            context: context.clone(),
            size,
            kind,
            op,
            split: Kernel::new(context, split),
            split_backward: backward.into_iter().map(|shader| Kernel::new(context, shader)).collect(),
            turns: context.allocate(2),
        })
    }

    /// Angles for each position and pair, of which there are `turned` / 2.
    pub fn turn(&mut self, turns: &[[f32; 2]]) {
        self.turns = self.context.upload(turns);
    }

    fn is_unit(&self) -> bool {
        matches!(self.op, Op::Unit(..))
    }

    /// The widths of q and k, of v and o, and of x W; and the heads.
    fn widths(&self) -> ([u32; 3], u32) {
        let Size { dim, key_dim, heads, .. } = self.size;
        let wide = self.size.value_dim();
        if self.is_unit() { ([key_dim, wide, 2 * wide + key_dim], 1) } else { ([dim, dim, 3 * dim], heads) }
    }

    pub fn room(&self, batch: u32, len: u32, backward: bool) -> Mix {
        let rows = batch * len;
        let room = |columns: u32| self.context.allocate((rows * columns) as usize);
        let ([keys, values, all], heads) = self.widths();
        let sizes = if self.is_unit() { [len, values, keys] } else { [len, keys, keys / heads] };
        Mix {
            batch,
            len,
            sizes: self.context.upload(&sizes),
            h: room(all),
            uv: room(if self.is_unit() { 2 * values } else { 1 }),
            qk: room(2 * keys),
            o: room(values),
            lse: room(heads),
            back: backward.then(|| Back {
                dout: room(values),
                gradients: [values, values, keys, keys].map(room),
                dh: room(all),
                dmaps: room(4 * keys),
                ones: self.context.upload(&vec![1.0_f32; rows as usize]),
            }),
        }
    }

    fn linears<'a>(&self, layer: &'a Layer) -> [Linear<'a>; 2] {
        let ([_, values, all], _) = self.widths();
        let dim = self.size.dim;
        [Linear { weights: &layer.input, shape: [dim, all] }, Linear { weights: &layer.output, shape: [values, dim] }]
    }

    /// q, k, v and o; u of a unit.
    fn views<'a>(&self, mix: &'a Mix) -> ([TensorView<'a, 4>; 4], Option<TensorView<'a, 4>>) {
        let ([keys, values, all], heads) = self.widths();
        let columns =
            |width, of, first| Columns { batch: mix.batch, len: mix.len, heads, dim: of / heads, width, first };
        let [q, k] = [0, keys].map(|first| columns(2 * keys, keys, first).of(&mix.qk));
        let o = columns(values, values, 0).of(&mix.o);
        if self.is_unit() {
            let [u, v] = [0, values].map(|first| columns(2 * values, values, first).of(&mix.uv));
            return ([q, k, v, o], Some(u));
        }
        ([q, k, columns(all, values, 2 * keys).of(&mix.h), o], None)
    }

    /// `to` = `from` + what the tokens make of y, which is `from` behind a norm.
    pub fn forward(
        &self,
        ops: &Ops,
        encoder: &mut wgpu::CommandEncoder,
        layer: &Layer,
        mix: &Mix,
        [y, from, to]: [&wgpu::Buffer; 3],
    ) -> Result<()> {
        let rows = mix.batch * mix.len;
        let ([keys, _, all], heads) = self.widths();
        let [input, output] = self.linears(layer);
        input.forward(ops, encoder, [y, &mix.h], rows, None)?;
        if let Some(maps) = &layer.maps {
            let buffers = [&mix.sizes, &mix.h, &maps.value, &self.turns, &mix.uv, &mix.qk];
            self.split.record(encoder, &buffers, (rows * all) as usize);
        } else {
            self.split.record(encoder, &[&mix.sizes, &mix.h, &self.turns, &mix.qk], (rows * keys) as usize);
        }
        let ([q, k, v, o], u) = self.views(mix);
        match &self.op {
            Op::Unit(op, _) => {
                let inputs = GatedAttentionInputs { u, ..GatedAttentionInputs::new(q, k, v) };
                op.record(encoder, inputs, GatedAttentionOutputs::new(o))?;
            }
            Op::Softmax(op, _) => {
                let lse = Some(TensorView::f32(&mix.lse, [mix.batch, heads, mix.len]));
                let outputs = AttentionOutputs { lse, ..AttentionOutputs::new(o) };
                op.record(encoder, AttentionInputs::new(q, k, v), outputs)?;
            }
            Op::Linear(op, _) => {
                op.record(encoder, LinearAttentionInputs::new(q, k, v), LinearAttentionOutputs::new(o))?;
            }
        }
        output.forward(ops, encoder, [&mix.o, to], rows, Some(from))
    }

    /// From the gradient of what comes out, dx, that of y, and the parameters'.
    pub fn backward(
        &self,
        ops: &Ops,
        encoder: &mut wgpu::CommandEncoder,
        layer: &Layer,
        mix: &Mix,
        [y, dx, dy]: [&wgpu::Buffer; 3],
    ) -> Result<()> {
        let Some(back) = &mix.back else { anyhow::bail!("the tape has no room for gradients") };
        let rows = mix.batch * mix.len;
        let ([keys, values, _], heads) = self.widths();
        let [input, output] = self.linears(layer);
        output.backward(ops, encoder, [&mix.o, dx, &back.dout], rows)?;

        let ([q, k, v, o], u) = self.views(mix);
        let columns = |of: u32| Columns { batch: mix.batch, len: mix.len, heads, dim: of / heads, width: of, first: 0 };
        let dout = columns(values).of(&back.dout);
        let [du, dv, dq, dk] = &back.gradients;
        let [dv, dq, dk] = [columns(values).of(dv), columns(keys).of(dq), columns(keys).of(dk)];
        match &self.op {
            Op::Unit(_, op) => {
                let inputs =
                    GatedAttentionBackwardInputs { u, o: Some(o), ..GatedAttentionBackwardInputs::new(q, k, v, dout) };
                let du = Some(columns(values).of(du));
                let mut gradients = GatedAttentionGradients::none();
                (gradients.du, gradients.dv, gradients.dq, gradients.dk) = (du, Some(dv), Some(dq), Some(dk));
                op.record(encoder, inputs, gradients)?;
            }
            Op::Softmax(_, op) => {
                let lse = TensorView::f32(&mix.lse, [mix.batch, heads, mix.len]);
                let inputs = AttentionBackwardInputs::new(q, k, v, o, lse, dout);
                op.record(encoder, inputs, AttentionGradients::new(dq, dk, dv))?;
            }
            Op::Linear(_, op) => {
                let inputs = LinearAttentionBackwardInputs::new(q, k, v, dout);
                op.record(encoder, inputs, LinearAttentionGradients::new(dq, dk, dv))?;
            }
        }

        let [du, dv, dq, dk] = &back.gradients;
        if let Some(maps) = &layer.maps {
            let [of_values, of_keys] = &self.split_backward[..] else { unreachable!() };
            of_values.record(encoder, &[&mix.sizes, &mix.h, du, dv, &back.dh], (rows * values) as usize);
            let buffers = [&mix.sizes, &mix.h, &maps.value, &self.turns, dq, dk, &back.dh, &back.dmaps];
            of_keys.record(encoder, &buffers, (rows * keys / 2) as usize);
            let (ones, dmaps) = (matrix(&back.ones, 1, rows), matrix(&back.dmaps, rows, 4 * keys));
            ops.product(encoder, [ones, dmaps, matrix(&maps.gradient, 1, 4 * keys)], None)?;
        } else {
            let buffers = [&mix.sizes, &self.turns, dq, dk, dv, &back.dh];
            self.split_backward[0].record(encoder, &buffers, (rows * keys / 2) as usize);
        }
        input.backward(ops, encoder, [y, &back.dh, dy], rows)
    }

    /// The mean entropy, in nats, of the last row of every sequence and head, its weights made to add up to 1.
    pub fn entropy(&self, mix: &Mix) -> Result<f64> {
        let ([keys, _, _], heads) = self.widths();
        let dim = keys / heads;
        let qk = self.context.download(&mix.qk)?;
        let map = |x: f32| match self.kind.mixer {
            Mixer::Linear => f64::from(if x > 0.0 { x + 1.0 } else { x.exp() }),
            _ => f64::from(x),
        };
        let vector = |row: u32, first: u32| &qk[(row * 2 * keys + first) as usize..][..dim as usize];
        let mut sum = 0.0;
        for (sequence, head) in (0..mix.batch).flat_map(|sequence| (0..heads).map(move |head| (sequence, head))) {
            let q = vector((sequence + 1) * mix.len - 1, head * dim);
            let scores: Vec<f64> = (0..mix.len)
                .map(|j| vector(sequence * mix.len + j, keys + head * dim))
                .map(|k| q.iter().zip(k).map(|(&q, &k)| map(q) * map(k)).sum())
                .collect();
            sum += self.kind.mixer.entropy(&scores, dim);
        }
        Ok(sum / f64::from(mix.batch * heads))
    }
}
