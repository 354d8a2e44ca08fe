//! Q, K and V of a real model over a real text; see data/README.md.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use safetensors::SafeTensors;
use wgpu_attention::half::f16;

use crate::harness::tensors::{HostTensors, Shape};
use crate::options::Sizes;

pub const LAYERS: u32 = 6;
pub const HEADS: u32 = 12;
pub const HEAD_DIM: u32 = 32;
pub const LEN: u32 = 512;
/// First and last default length.
pub const LENS: [u32; 2] = [32, LEN];

/// Refuses what the file does not hold.
pub fn check(sizes: Sizes, seq_lens: &[u32]) -> Result<()> {
    let fixed = [
        ("--heads", sizes.heads, HEADS),
        ("--kv-heads", sizes.kv_heads, HEADS),
        ("--head-dim", sizes.head_dim, HEAD_DIM),
    ];
    for (option, got, has) in fixed {
        if got != has {
            bail!("{option}: --data minilm has {has}, not {got}");
        }
    }
    if sizes.batch > LAYERS {
        bail!("--batch: --data minilm has {LAYERS} layers, one a batch entry, not {}", sizes.batch);
    }
    if let Some(len) = seq_lens.iter().find(|&&len| len > LEN) {
        bail!("--seq-lens: --data minilm has {LEN} tokens, not {len}");
    }
    Ok(())
}

/// The file's bytes.
pub struct MiniLm(Vec<u8>);

impl MiniLm {
    pub fn open() -> Result<Self> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/minilm_qkv.safetensors");
        let bytes = std::fs::read(&path).with_context(|| format!("--data minilm: {}", path.display()))?;
        Ok(Self(bytes))
    }

    /// The first tokens of the first layers.
    pub fn tensors(&self, shape: &Shape) -> Result<HostTensors> {
        let file = SafeTensors::deserialize(&self.0).context("data/minilm_qkv.safetensors")?;
        let stack = |name: &str| -> Result<Vec<f32>> {
            let mut stacked = Vec::new();
            for layer in 0..shape.batch {
                let tensor = file.tensor(&format!("layer{layer}.{name}"))?;
                let row = (HEAD_DIM * LEN) as usize;
                let numbers: Vec<f32> = tensor
                    .data()
                    .chunks_exact(2)
                    .map(|bytes| f16::from_le_bytes([bytes[0], bytes[1]]).to_f32())
                    .collect();
                for head in numbers.chunks_exact(row) {
                    stacked.extend_from_slice(&head[..(HEAD_DIM * shape.len) as usize]);
                }
            }
            Ok(stacked)
        };
        Ok(HostTensors { q: stack("q")?, k: stack("k")?, v: stack("v")? })
    }
}
