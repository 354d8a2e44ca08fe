//! Queries and keys, random or of a real model, and the row entropies that the kernel finds for them.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand_distr::{Distribution, StandardNormal};
use safetensors::SafeTensors;
use wgpu_attention::attention::reference::{HostInputs, attention_row};
use wgpu_attention::half::f16;
use wgpu_attention::reference::SumOrder;
use wgpu_attention::{
    Attention, AttentionConfig, AttentionInputs, AttentionOutputs, Context, HostView, Scale, TensorView, wgpu,
};

use crate::Point;

/// Largest difference to the twin, in nats: a tenth of the last digit that the tables show.
const ALLOWED: f64 = 1e-4;

pub const RANDOM_DIM: u32 = 64;
const DRAWS: u32 = 16;
const QUERIES: u32 = 128;

const LAYERS: u32 = 6;
const HEADS: u32 = 12;
const TOKENS: u32 = 512;
const HEAD_DIM: u32 = 32;

/// Queries `[batch, heads, rows, head_dim]` and keys `[batch, heads, keys, head_dim]`.
pub struct Scores {
    /// In words.
    pub what: String,
    /// Draws of random keys, or layers.
    pub batch: u32,
    heads: u32,
    pub rows: u32,
    keys: u32,
    head_dim: u32,
    /// Whether n keys are taken with n queries, or with all.
    square: bool,
    q: Vec<f32>,
    k: Vec<f32>,
}

impl Scores {
    /// Independent numbers from N(0, 1), the same on every run.
    pub fn random(keys: u32) -> Self {
        let normal = |seed, rows| {
            let rng = StdRng::seed_from_u64(seed);
            StandardNormal.sample_iter(rng).take((DRAWS * rows * RANDOM_DIM) as usize).collect()
        };
        Self {
            what: format!("q, k ~ N(0, I), d = {RANDOM_DIM}, {DRAWS} draws of the keys, {QUERIES} queries each"),
            batch: DRAWS,
            heads: 1,
            rows: QUERIES,
            keys,
            head_dim: RANDOM_DIM,
            square: false,
            q: normal(1, QUERIES),
            k: normal(2, keys),
        }
    }

    /// All layers and heads of the model; see data/README.md.
    pub fn minilm() -> Result<Self> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/minilm_qkv.safetensors");
        let path_name = || path.display().to_string();
        let bytes = std::fs::read(&path).with_context(path_name)?;
        let file = SafeTensors::deserialize(&bytes).with_context(path_name)?;
        let stack = |name: &str| -> Result<Vec<f32>> {
            let mut stacked = Vec::new();
            for layer in 0..LAYERS {
                let tensor = file.tensor(&format!("layer{layer}.{name}")).with_context(path_name)?;
                let shape = [1, HEADS, TOKENS, HEAD_DIM].map(|extent| extent as usize);
                ensure!(tensor.shape() == shape, "{}: layer{layer}.{name} is not {shape:?}", path_name());
                let halves = tensor.data().chunks_exact(2);
                stacked.extend(halves.map(|bytes| f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()));
            }
            Ok(stacked)
        };
        Ok(Self {
            what: format!("all-MiniLM-L6-v2 on {TOKENS} tokens, d = {HEAD_DIM}, mean of {HEADS} heads and n rows"),
            batch: LAYERS,
            heads: HEADS,
            rows: TOKENS,
            keys: TOKENS,
            head_dim: HEAD_DIM,
            square: true,
            q: stack("q")?,
            k: stack("k")?,
        })
    }

    /// Both tensors on the device.
    pub fn upload(&self, context: &Context) -> [wgpu::Buffer; 2] {
        [&self.q, &self.k].map(|data| context.upload(data))
    }

    /// Mean entropy of the rows over the first `len` keys, for each entry of the batch.
    pub fn entropies(&self, context: &Context, [q, k]: &[wgpu::Buffer; 2], scale: Scale, len: u32) -> Result<Point> {
        let rows = if self.square { len } else { self.rows };
        let config = AttentionConfig::new().scale(scale);
        let attention = Attention::new(context, config)?;
        let first = |buffer, tokens, of, dim| {
            let head = u64::from(of) * u64::from(self.head_dim);
            TensorView::f32(buffer, [self.batch, self.heads, tokens, dim]).with_strides([
                u64::from(self.heads) * head,
                head,
                self.head_dim.into(),
                1,
            ])
        };
        // Entropies need no values: four columns of the keys stand in for them.
        let inputs = AttentionInputs::new(
            first(q, rows, self.rows, self.head_dim),
            first(k, len, self.keys, self.head_dim),
            first(k, len, self.keys, 4),
        );
        let shape = [self.batch, self.heads, rows];
        let count = shape.iter().product::<u32>() as usize;
        let [o, entropy] = [4, 1].map(|width| context.allocate(width * count));
        let outputs = AttentionOutputs {
            entropy: Some(TensorView::f32(&entropy, shape)),
            ..AttentionOutputs::new(TensorView::f32(&o, [self.batch, self.heads, rows, 4]))
        };
        context.run(&attention.prepare(inputs, outputs)?)?;
        let got = context.download(&entropy)?;

        for (numerator, denominator) in [(0, 1), (1, 3), (1, 2), (1, 1)] {
            let index = (count - 1) * numerator / denominator;
            let want = self.twin(&config, index, rows, len)?;
            let off = (f64::from(got[index]) - want).abs();
            ensure!(off <= ALLOWED, "{scale:?}, n = {len}, row {index}: got {}, the twin has {want}", got[index]);
        }
        let entry = count / self.batch as usize;
        let mean = |rows: &[f32]| rows.iter().map(|&entropy| f64::from(entropy)).sum::<f64>() / entry as f64;
        Ok(Point { len, means: got.chunks(entry).map(mean).collect() })
    }

    /// Entropy of one row of `[batch, heads, rows]`, in f64 on the CPU.
    fn twin(&self, config: &AttentionConfig, index: usize, rows: u32, len: u32) -> Result<f64> {
        let [rows, len, dim] = [rows, len, self.head_dim].map(|extent| extent as usize);
        let (head, row) = (index / rows, index % rows);
        let (q, k) = (&self.q[head * self.rows as usize * dim..], &self.k[head * self.keys as usize * dim..]);
        let inputs = HostInputs::new(
            HostView::new(&q[..rows * dim], [1, 1, rows, dim])?,
            HostView::new(&k[..len * dim], [1, 1, len, dim])?,
            HostView::new(&[1.0], [1; 4])?.broadcast_to([1, 1, len, 1]),
        );
        Ok(attention_row::<f64>(config, &inputs, [0, 0, row], SumOrder::InOrder)?.entropy)
    }
}
