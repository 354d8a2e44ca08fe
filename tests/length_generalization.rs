//! The example `length_generalization`: its gradients against a copy of the model in JAX, and whether it learns, and goes on where it stopped.

mod common;

#[path = "../examples/train/adam.rs"]
mod adam;
#[path = "../examples/train/kernel.rs"]
mod kernel;
#[path = "../examples/length_generalization/kinds.rs"]
mod kinds;
#[path = "../examples/train/matrix.rs"]
mod matrix;
#[path = "../examples/length_generalization/mixers.rs"]
mod mixers;
#[path = "../examples/length_generalization/model.rs"]
mod model;
#[path = "../examples/length_generalization/preset.rs"]
mod preset;
#[path = "../examples/length_generalization/run.rs"]
mod run;
#[path = "../examples/length_generalization/tasks.rs"]
mod tasks;

use std::path::Path;

use clap::ValueEnum;
use common::context;
use indicatif::ProgressBar;
use model::{Model, Size};
use preset::{Preset, Run};
use rand::SeedableRng;
use rand::rngs::StdRng;
use run::Training;
use safetensors::SafeTensors;
use tasks::{Judged, NONE, Positions, Retrieval, Task, Text, turns};

/// As tests/length_generalization/model.py has them.
const SIZE: Size = Size { vocabulary: 11, dim: 16, units: 2, key_dim: 8, heads: 2 };
const BATCH: u32 = 2;
const LEN: u32 = 19;
const TRAINED: u32 = 16;

fn numbers<T: bytemuck::Pod>(tensors: &SafeTensors<'_>, name: &str) -> Vec<T> {
    let tensor = tensors.tensor(name).unwrap_or_else(|error| panic!("{name}: {error}"));
    bytemuck::pod_collect_to_vec(tensor.data())
}

/// Root mean square of a difference.
fn distance(want: &[f64], got: &[f32]) -> f64 {
    assert_eq!(want.len(), got.len());
    let squares: f64 = want.iter().zip(got).map(|(want, &got)| (want - f64::from(got)).powi(2)).sum();
    (squares / want.len() as f64).sqrt()
}

#[test]
fn every_gradient_of_the_model_is_that_of_its_copy() {
    for kind in kinds::all(TRAINED) {
        let path = format!("{}/tests/length_generalization/{}.safetensors", env!("CARGO_MANIFEST_DIR"), kind.key);
        let file = std::fs::read(&path).unwrap();
        let tensors = SafeTensors::deserialize(&file).unwrap();
        let mut model = Model::new(context(), SIZE, kind, &mut StdRng::seed_from_u64(0)).unwrap();
        for (name, parameter) in model.weights.all() {
            let values: Vec<f32> = numbers(&tensors, &name);
            assert_eq!(values.len(), parameter.count, "{name}");
            context().queue().write_buffer(&parameter.value, 0, bytemuck::cast_slice(&values));
        }
        model.turn(&turns(Positions::Plain, LEN, LEN, 8));
        let tape = model.tape(BATCH, LEN, true);
        let [tokens, labels] = ["tokens", "labels"].map(|name| numbers::<u32>(&tensors, name));
        model.gradients(&tape, &tokens, &labels).unwrap();
        let want = numbers::<f64>(&tensors, "want.loss")[0];
        let loss = f64::from(model.mean_loss(&tape).unwrap());
        assert!((loss - want).abs() < 1e-5, "{}: a loss of {loss}, not {want}", kind.name);
        for (name, parameter) in model.weights.all() {
            let want: Vec<f64> = numbers(&tensors, &format!("want.{name}"));
            let naive = distance(&want, &numbers::<f32>(&tensors, &format!("f32.{name}")));
            let own = distance(&want, &context().download(&parameter.gradient).unwrap());
            let size = distance(&want, &vec![0.0; want.len()]);
            // Three times as far from the truth as naive f32, and what WGSL grants its exponentials and divisions.
            assert!(own <= 3.0 * naive + 1e-6 * size, "{}, {name}: {own:e} of {size:e}, naive {naive:e}", kind.name);
        }
    }
}

fn smoke() -> Run {
    Preset::Smoke.plan().text
}

#[test]
fn a_model_of_each_kind_learns() {
    let text = Text::load().unwrap();
    for kind in kinds::all(smoke().len) {
        let mut training = Training::new(context(), kind, smoke(), &text, 0).unwrap();
        let bar = ProgressBar::hidden();
        let first = training.train(Positions::Plain, 1, None, &bar).unwrap();
        let last = training.train(Positions::Plain, u32::MAX, None, &bar).unwrap();
        assert!(last < first - 0.4, "{}: from {first} to {last}", kind.name);
        // Of a unit, and of each kind of heads.
        if ["relu2-fixed", "softmax-log-n", "linear"].contains(&kind.key) {
            let worth = training.judge(Positions::NtkMixed).unwrap();
            let sound = |worth: &run::Worth| worth.loss > 0.0 && worth.accuracy < 1.0 && worth.entropy.is_finite();
            assert!(worth.iter().all(sound), "{}: {worth:?}", kind.name);
        }
    }
}

/// By a model that is not told where tokens stand.
#[test]
fn the_control_is_learned() {
    let run = Preset::Smoke.plan().control;
    let mut training = Training::new(context(), kinds::all(run.len)[4], run, &Retrieval, 0).unwrap();
    let bar = ProgressBar::hidden();
    let first = training.train(Positions::None, 1, None, &bar).unwrap();
    let last = training.train(Positions::None, u32::MAX, None, &bar).unwrap();
    assert!(last < first - 0.4, "from {first} to {last}");
}

#[test]
fn the_control_asks_for_the_highest_rank_so_far() {
    let (len, targets) = (40, 10);
    let batch = Retrieval.held_out(10..15, &Judged { windows: 15, targets, len, longest: len });
    for (tokens, labels) in batch.tokens.chunks(len as usize).zip(batch.labels.chunks(len as usize)) {
        for (i, &label) in labels.iter().enumerate() {
            let highest = tokens[..=i].iter().max_by_key(|&&token| token / 4).unwrap();
            let asked = i as u32 >= len - targets;
            assert_eq!(label, if asked { highest % 4 } else { NONE }, "behind token {i}");
        }
    }
}

#[test]
fn presets_name_models_that_there_are() {
    let known = kinds::all(1).map(|kind| kind.key);
    for preset in Preset::value_variants() {
        let plan = preset.plan();
        assert!(plan.kinds.iter().all(|kind| known.contains(kind)), "{preset:?}");
        assert!(plan.seeds > 0 && plan.positions.contains(&Positions::Plain), "{preset:?}");
    }
}

#[test]
fn a_run_that_stopped_goes_on_to_the_same_bits() {
    let text = Text::load().unwrap();
    let kind = kinds::all(smoke().len)[1];
    let start = || Training::new(context(), kind, smoke(), &text, 3).unwrap();
    let bar = ProgressBar::hidden();
    let mut whole = start();
    whole.train(Positions::Plain, 6, None, &bar).unwrap();
    let mut half = start();
    half.train(Positions::Plain, 3, None, &bar).unwrap();
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("half-way.safetensors");
    half.save(&path).unwrap();
    let mut rest = start();
    rest.train(Positions::Plain, 6, Some(&path), &bar).unwrap();
    for ((name, one), (_, other)) in whole.model.weights.all().into_iter().zip(rest.model.weights.all()) {
        let [one, other] = [one, other].map(|parameter| context().download(&parameter.value).unwrap());
        common::assert_same_bits(&name, &one, &other);
    }
}

#[test]
fn a_checkpoint_of_another_training_is_refused() {
    let text = Text::load().unwrap();
    let [kind, other] = [kinds::all(smoke().len)[1], kinds::all(smoke().len)[2]];
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("another.safetensors");
    Training::new(context(), kind, smoke(), &text, 3).unwrap().save(&path).unwrap();
    let goes_on = |kind, run, seed| {
        let mut training = Training::new(context(), kind, run, &text, seed).unwrap();
        training.train(Positions::Plain, 0, Some(&path), &ProgressBar::hidden()).map_err(|error| format!("{error:#}"))
    };
    // How it is judged does not count.
    goes_on(kind, Run { windows: 1, ..smoke() }, 3).unwrap();
    for (kind, run, seed) in [(other, smoke(), 3), (kind, Run { steps: 31, ..smoke() }, 3), (kind, smoke(), 4)] {
        let error = goes_on(kind, run, seed).unwrap_err();
        assert!(error.contains("is of another training"), "{error}");
    }
}

/// But for the maps of units, to a hundredth.
#[test]
fn models_of_a_run_learn_as_many_numbers() {
    for run in Preset::value_variants().iter().flat_map(|preset| [preset.plan().text, preset.plan().control]) {
        let counts = kinds::all(run.len).map(|kind| {
            let size = Size { vocabulary: 1, ..run.size };
            let model = Model::new(context(), size, kind, &mut StdRng::seed_from_u64(0)).unwrap();
            model.weights.all().iter().map(|(_, parameter)| parameter.count).sum::<usize>()
        });
        assert!(counts.iter().all(|count| count.abs_diff(counts[0]) * 100 <= counts[0]), "{run:?}: {counts:?}");
    }
}

/// At every length the targets are the same; only what comes before them differs.
#[test]
fn held_out_targets_do_not_depend_on_the_length() {
    let text = Text::load().unwrap();
    let targets = |len: u32| {
        let batch = text.held_out(3..6, &Judged { windows: 6, targets: 8, len, longest: 64 });
        let asked = batch.labels.iter().zip(&batch.tokens).filter(|(label, _)| **label != NONE);
        asked.map(|(label, token)| (*label, *token)).collect::<Vec<_>>()
    };
    assert_eq!(targets(8), targets(64));
    assert_eq!(targets(8).len(), 24);
}
