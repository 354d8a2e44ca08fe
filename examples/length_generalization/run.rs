//! Training, its checkpoints, and what a trained model is worth at other lengths.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use indicatif::ProgressBar;
use rand::SeedableRng;
use rand::rngs::StdRng;
use safetensors::tensor::TensorView as Stored;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};
use wgpu_attention::Context;

use crate::adam::{Parameter, falling};
use crate::kinds::{Kind, Mixer};
use crate::model::Model;
use crate::preset::{LENGTHS, Run};
use crate::tasks::{Judged, NONE, Positions, Task, turns};

/// At one length: means over the targets, and over layers and heads.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq)]
pub struct Worth {
    pub len: u32,
    /// In nats a token.
    pub loss: f64,
    pub accuracy: f64,
    /// In nats, of the last row.
    pub entropy: f64,
}

/// Between two checkpoints.
const STEPS_KEPT: u32 = 100;

/// A model on its way.
pub struct Training<'a> {
    pub model: Model,
    run: Run,
    task: &'a dyn Task,
    seed: u64,
    step: u32,
}

impl<'a> Training<'a> {
    /// From the start.
    pub fn new(context: &Context, kind: Kind, run: Run, task: &'a dyn Task, seed: u64) -> Result<Self> {
        let mut run = run;
        run.size.vocabulary = task.vocabulary();
        let model = Model::new(context, run.size, kind, &mut StdRng::seed_from_u64(seed))?;
        Ok(Self { model, run, task, seed, step: 0 })
    }

    /// Up to step `until`, or the end; every so often what is learned goes to `checkpoint`, from which it also comes where there is one.
    pub fn train(
        &mut self,
        positions: Positions,
        until: u32,
        checkpoint: Option<&Path>,
        bar: &ProgressBar,
    ) -> Result<f32> {
        let Run { len, batch, steps, rate, .. } = self.run;
        if let Some(path) = checkpoint.filter(|path| path.exists()) {
            self.load(path).with_context(|| path.display().to_string())?;
        }
        bar.set_position(self.step.into());
        self.turn(positions, len);
        let tape = self.model.tape(batch, len, true);
        let mut loss = f32::NAN;
        while self.step < until.min(steps) {
            // Of the step alone, so that a run that goes on sees what one that never stopped does.
            let mut rng = StdRng::seed_from_u64(self.seed << 32 | u64::from(self.step));
            let sequences = self.task.batch(batch, len, &mut rng);
            let rate = rate * (f64::from(self.step + 1) / 20.0).min(1.0) as f32;
            self.model.learn(&tape, &sequences.tokens, &sequences.labels, falling(rate, self.step, steps))?;
            self.step += 1;
            bar.inc(1);
            if self.step.is_multiple_of(10) || self.step == until.min(steps) {
                loss = self.model.mean_loss(&tape)?;
                bar.set_message(format!("loss {loss:.3}"));
                ensure!(loss.is_finite(), "the loss is {loss} after {} steps", self.step);
            }
            if let Some(path) = checkpoint.filter(|_| self.step.is_multiple_of(STEPS_KEPT) || self.step == steps) {
                self.save(path)?;
            }
        }
        Ok(loss)
    }

    fn turn(&mut self, positions: Positions, len: u32) {
        let dim = match self.model.kind.mixer {
            Mixer::Unit(_) => self.run.size.key_dim,
            _ => self.run.size.dim / self.run.size.heads,
        };
        self.model.turn(&turns(positions, len, self.run.len, dim));
    }

    /// The mean loss, accuracy and entropy at each length of [`LENGTHS`].
    pub fn judge(&mut self, positions: Positions) -> Result<Vec<Worth>> {
        let lengths = LENGTHS.map(|(times, of)| self.run.len * times / of);
        let longest = lengths.into_iter().max().unwrap_or(0);
        // As many targets as the shortest has.
        let judged = |len| Judged { windows: self.run.windows, targets: self.run.len / 4, len, longest };
        lengths.map(judged).iter().map(|judged| self.judge_at(positions, judged)).collect()
    }

    fn judge_at(&mut self, positions: Positions, judged: &Judged) -> Result<Worth> {
        let &Judged { windows, len, .. } = judged;
        self.turn(positions, len);
        // Not more tokens at a time than in training, but a sequence.
        let count = (self.run.batch * self.run.len / len).clamp(1, windows);
        let tape = self.model.tape(count, len, false);
        let (mut loss, mut hits, mut entropy, mut asked) = (0.0, 0, 0.0, 0);
        let calls = windows / count;
        for call in 0..calls {
            let sequences = self.task.held_out(call * count..(call + 1) * count, judged);
            let [losses, scores] = self.model.judge(&tape, &sequences.tokens, &sequences.labels)?;
            let rows = losses.iter().zip(scores.chunks_exact(self.run.size.vocabulary as usize));
            for ((own, scores), &label) in rows.zip(&sequences.labels).filter(|(_, label)| **label != NONE) {
                loss += f64::from(*own);
                let best = (0..scores.len()).max_by(|&a, &b| scores[a].total_cmp(&scores[b]));
                hits += usize::from(best == Some(label as usize));
                asked += 1;
            }
            let layers = self.model.entropies(&tape)?;
            entropy += layers.iter().sum::<f64>() / layers.len() as f64;
        }
        let asked = f64::from(asked);
        Ok(Worth { len, loss: loss / asked, accuracy: hits as f64 / asked, entropy: entropy / f64::from(calls) })
    }

    /// Numbers, moments and the step, as one file.
    pub fn save(&self, path: &Path) -> Result<()> {
        let context = &self.model.context;
        let tensors = self.model.weights.all().into_iter().flat_map(|(name, parameter)| {
            let Parameter { value, moments, .. } = parameter;
            [(name.clone(), value), (format!("{name}.moments"), moments)]
        });
        let tensors =
            tensors.map(|(name, buffer)| Ok((name, context.download(buffer)?))).collect::<Result<Vec<_>>>()?;
        let views = tensors.iter().map(|(name, numbers)| {
            Ok((name.as_str(), Stored::new(Dtype::F32, vec![numbers.len()], bytemuck::cast_slice(numbers))?))
        });
        let head = [("step".to_owned(), self.step.to_string()), ("training".to_owned(), self.told())].into();
        let file = safetensors::serialize(views.collect::<Result<Vec<_>>>()?, Some(head))?;
        let unfinished = path.with_extension("new");
        std::fs::write(&unfinished, file)?;
        Ok(std::fs::rename(unfinished, path)?)
    }

    /// All on which it depends what is learned.
    fn told(&self) -> String {
        // How it is judged does not count.
        let run = Run { windows: 0, ..self.run };
        format!("{:?}, {run:?}, seed {}", self.model.kind, self.seed)
    }

    fn load(&mut self, path: &Path) -> Result<()> {
        let file = std::fs::read(path)?;
        let (_, head) = SafeTensors::read_metadata(&file)?;
        let entry = |key| head.metadata().as_ref().and_then(|data| data.get(key)).with_context(|| format!("no {key}"));
        let (step, training) = (entry("step")?, entry("training")?);
        let own = self.told();
        ensure!(*training == own, "is of another training, {training}, not of {own}; take another --out, or remove it");
        self.step = step.parse().context("step")?;
        self.model.adam.taken = i32::try_from(self.step)?;
        let tensors = SafeTensors::deserialize(&file)?;
        for (name, Parameter { value, moments, count, .. }) in self.model.weights.all() {
            for (name, buffer, count) in
                [(name.clone(), value, *count), (format!("{name}.moments"), moments, 2 * count)]
            {
                let tensor = tensors.tensor(&name).with_context(|| name.clone())?;
                ensure!(tensor.shape() == [count], "{name}: expected {count} numbers, got {:?}", tensor.shape());
                self.model.context.queue().write_buffer(buffer, 0, tensor.data());
            }
        }
        Ok(())
    }
}
