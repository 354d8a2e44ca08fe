//! Every golden vector (`tests/golden`: inputs, and results by JAX in f64) against the CPU twin and against the GPU.

#[path = "../examples/op/check.rs"]
mod check;
mod common;
#[path = "../examples/op/run.rs"]
mod run;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use common::{Expected, NAIVE_RUNS, ULP, compiles_slowly, context};
use run::{Output, Request};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;
use wgpu_attention::DType;
use wgpu_attention::half::{bf16, f16};
use wgpu_attention::reference::SumOrder;

/// One file.
struct Case {
    name: String,
    request: Request,
    want: BTreeMap<String, Vec<f64>>,
    /// What the GPU's exp, log and division may add to an f32 result: relative to the largest value, and absolute.
    floors: [f64; 2],
}

const WANT: &str = "want.";

fn load(op: &str, path: &Path) -> Case {
    let name = format!("{op}/{}", path.file_stem().unwrap().to_string_lossy());
    let file = fs::read(path).unwrap();
    let (header_len, header) = SafeTensors::read_metadata(&file).unwrap();
    run::json::check_header(&file[8..8 + header_len]).unwrap();
    let (want, inputs): (Vec<_>, Vec<_>) =
        SafeTensors::deserialize(&file).unwrap().tensors().into_iter().partition(|(name, _)| name.starts_with(WANT));
    let mut metadata = header.metadata().clone().unwrap();
    metadata.remove("made_with");
    let stem = metadata["op"].clone() + if metadata.contains_key("pass") { "_backward" } else { "" };
    assert_eq!(stem, op, "{name}");
    let floors =
        floors(op, &json(&metadata["config"]), &inputs.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect());
    let request = Request::new(&metadata, inputs).unwrap_or_else(|error| panic!("{name}: {error:#}"));
    assert_eq!(request.op.stem(), op, "{name}");
    assert!(request.op.rounded().is_empty() && request.layout.is_none(), "{name}: neither F64 nor another layout");
    let (given, echoed) = (json(&metadata["config"]), json(&request.op.config().unwrap()));
    assert!(is_part_of(&given, &echoed), "{name}: config: {given} became {echoed}");
    let want = want.iter().map(|(name, tensor)| (name[WANT.len()..].to_owned(), numbers(tensor))).collect();
    Case { name, request, want, floors }
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// Whether every field given is found unchanged.
fn is_part_of(given: &Value, whole: &Value) -> bool {
    match (given, whole) {
        (Value::Object(given), Value::Object(whole)) => {
            given.iter().all(|(key, value)| whole.get(key).is_some_and(|found| is_part_of(value, found)))
        }
        _ => given == whole,
    }
}

fn numbers(tensor: &TensorView) -> Vec<f64> {
    tensor.data().chunks_exact(8).map(|word| f64::from_le_bytes(word.try_into().unwrap())).collect()
}

/// What a GPU's own exp, log and division may add, relative to the largest value, and in absolute terms where an output
/// other than o is a logarithm. The same as in the ops' own tests, in bounds that hold for all of an op's configs:
/// a weight exp(x) is off by (3 + 2|x|) ulp, the mean of |x| under the weights is at most the log of their number, a
/// division adds 2 ulp, and a scale or softcap computed on the GPU moves a score by 6 ulp of itself.
fn floors(op: &str, config: &Value, inputs: &BTreeMap<&str, &TensorView>) -> [f64; 2] {
    let widest = |name: &str| {
        let Some(tensor) = inputs.get(name) else { return 0.0 };
        let rows = floats(tensor);
        let width = tensor.shape().last().copied().unwrap_or(1);
        rows.chunks(width).map(|row| row.iter().map(|x| x * x).sum::<f64>().sqrt()).fold(0.0, f64::max)
    };
    let largest =
        |name: &str| inputs.get(name).map_or(0.0, |t| floats(t).into_iter().fold(0.0, |m: f64, x| m.max(x.abs())));
    if op == "matmul" {
        // As in tests/matmul.rs: a gate's exponential and division, its slope's, and a product rounded elsewhere.
        let [gate, slope] = if inputs.contains_key("dc") { [16.0, largest("dc").max(1.0)] } else { [10.0, 1.0] };
        return [gate * ULP, 2.0 * ULP * largest("a") * largest("b") * slope];
    }
    if op == "merge" {
        // As in tests/merge.rs, for a spread of lse of at most 16.
        return [ULP * (8.0 + 4.0 * 16.0), 33.0 / f64::from(1 << 20)];
    }
    if op.starts_with("multilabel_softmax") {
        // As in tests/multilabel_softmax.rs; sums over rows count for all, and so does the largest exponent.
        let (rows, classes) = (inputs["scores"].shape()[0] as f64, inputs["scores"].shape()[1] as f64);
        let lse = ULP * (8.0 + 2.0 * (classes + 1.0).ln()) + 1.0 / f64::from(1 << 21);
        let weight = lse + 2.0 * ULP * (largest("scores") + largest("threshold") + 84.0);
        return match inputs.contains_key("dloss") {
            true => [weight, 2.0 * weight * largest("dloss") * rows],
            false => [16.0 * ULP, 2.0 * lse * rows],
        };
    }
    if let (true, Some(logits)) = (op.starts_with("gumbel_softmax"), inputs.get("logits")) {
        // As in tests/gumbel_softmax.rs: two logarithms, and an exponential of scores over the temperature.
        let number = |name: &str| config[name].as_f64().unwrap_or(1.0);
        let taus = inputs.get("tau").map_or_else(|| vec![number("tau")], |tau| floats(tau));
        let least = taus.into_iter().fold(f64::INFINITY, f64::min);
        let most = floats(logits).into_iter().filter(|x| x.is_finite()).fold(0.0, |most: f64, x| most.max(x.abs()));
        let off = (3.0 * 23.0 + 2.0 * (most + 23.0)) * ULP / 2.0 + 1.0 / f64::from(1 << 20);
        let floor = 2.0 * off / least + 16.0 * ULP;
        let dy = inputs.get("dy").map_or(0.0, |dy| floats(dy).into_iter().fold(0.0, |most: f64, x| most.max(x.abs())));
        let [rows, columns] = [logits.shape()[0] as f64, logits.shape()[1] as f64];
        let gradient = 2.0 * floor * dy / least * rows * (1.0 + columns.ln());
        return [floor, gradient.max(1.0 / f64::from(1 << 20))];
    }
    if op.starts_with("softmax") {
        // As in tests/softmax.rs, with all of a row's scores as large as the largest, and what comes in as large as its own.
        let finite = |name: &str| {
            let numbers = inputs.get(name).map(|tensor| floats(tensor)).unwrap_or_default();
            numbers.into_iter().filter(|x| x.is_finite()).map(f64::abs).fold(0.0, f64::max)
        };
        let logs = (inputs["x"].shape()[1] as f64).ln();
        let of_row = if inputs.contains_key("row_scale") { finite("row_scale") } else { 1.0 };
        let scale = &config["scale"];
        let term =
            match (scale["temperature"].as_f64(), scale["fixed"].as_f64(), scale["kappa_log_n"]["kappa"].as_f64()) {
                (Some(tau), ..) => 1.0 / tau,
                (_, Some(fixed), _) => fixed.abs(),
                (_, _, Some(kappa)) => kappa * logs,
                _ => 1.0_f64.max(logs / 64.0_f64.ln()),
            };
        let score = term * of_row * finite("x");
        let off = ULP * (10.0 + 2.0 * logs + 6.0 * score);
        if op == "softmax" {
            return [off, (off + 1.0 / f64::from(1 << 20)) * (1.0 + logs)];
        }
        let comes_in =
            2.0 * finite("dp") + finite("dlse") + finite("dloss") + finite("dentropy") * (logs + 2.0 * score);
        let widest = (term * of_row).max(term * finite("x"));
        // Of alpha, sums of squares of logarithms.
        let widest = if inputs.contains_key("alpha") { widest.max((2.0 + logs).powi(2)) } else { widest };
        return [off, off * widest * comes_in];
    }
    if op == "margin_softmax" {
        // As in tests/margin_softmax.rs.
        let number = |name: &str, default| config[name].as_f64().unwrap_or(default);
        let normalized = config["normalize"].as_bool().unwrap_or(true);
        let size = if normalized { 32.0 } else { widest("features") * widest("weights") };
        let classes = inputs["weights"].shape()[0] as f64;
        let rows = if config["reduction"] == "sum" { inputs["labels"].shape()[0] as f64 } else { 1.0 };
        let logits = 2.0 * size * ULP * number("scale", 64.0) * (1.0 + classes.ln());
        return [8.0 * ULP, rows * (1.0 / f64::from(1 << 19) + logits)];
    }
    if op == "margin_softmax_backward" {
        // As in tests/margin_softmax_backward.rs; sums over rows of what takes from each other count for all.
        let scale = config["scale"].as_f64().unwrap_or(64.0);
        let normalized = config["normalize"].as_bool().unwrap_or(true);
        let size = if normalized { 8.0 } else { 2.0 * widest("features") * widest("weights") };
        let floor = (16.0 + size * scale + largest("lse")) * ULP;
        let rows = inputs["labels"].shape()[0] as f64;
        let coming = largest("dloss") * largest("class_weights").max(1.0) + largest("dlse") + largest("dentropy");
        return [floor, ULP * (2.0 + scale / 2.0) * coming * rows.sqrt()];
    }
    let (keys, width) =
        (inputs["v"].shape()[2] as f64, inputs.get("q").or(inputs.get("z")).map_or(1, |t| t.shape()[3]));
    let mapped = |side: &str| match inputs.contains_key("z") {
        true => widest("z") * largest(&format!("gamma_{side}")) + widest(&format!("beta_{side}")),
        false => widest(side),
    };
    let score = mapped("q") * mapped("k") / (width as f64).sqrt();
    match op {
        // As in tests/attention_backward.rs.
        "attention_backward" => {
            let logs = keys.ln().max(1.0);
            let comes_in = widest("dout") * widest("v") + largest("dlse") + largest("dentropy") * (logs + score);
            let rows = inputs["lse"].shape().iter().product::<usize>() as f64;
            let factor = (largest("q").max(largest("k")) * logs / (width as f64).sqrt()).max(1.0);
            [ULP * (5.0 + 2.0 * keys.ln() + 6.0 * score), ULP * comes_in * factor * rows.sqrt()]
        }
        "attention" => {
            let absolute = (1.0 / f64::from(1 << 20) + 6.0 * ULP * score) * (1.0 + keys.ln());
            [ULP * (5.0 + 2.0 * keys.ln() + 6.0 * score), absolute]
        }
        // As in tests/gated_attention_backward.rs.
        "gated_attention_backward" if config["weights"].get("softmax_log_n").is_some() => {
            [ULP * (8.0 + 2.0 * keys.ln() + 6.0 * score), 0.0]
        }
        "gated_attention_backward" => [ULP * (8.0 + 2.0 * keys.ln()), 0.0],
        "gated_attention" if config["weights"].get("softmax_log_n").is_some() => {
            [ULP * (5.0 + 2.0 * keys.ln() + 6.0 * score), 0.0]
        }
        "gated_attention" => [ULP * (6.0 + 2.0 * keys.ln()), 0.0],
        // Maps that are exponentials weigh features of keys; elu + 1 takes one exponential of each of q and k. FAVOR+
        // computes its exponents w.x - |x|^2 / 2, and an ulp of an exponent moves the weight by as much.
        _ => {
            let features = inputs.get("projection").map_or(width, |rows| rows.shape()[0]) as f64;
            let scale = &config["feature_map"]["favor"]["scale"];
            let scale = scale.as_f64().unwrap_or((width as f64).powf(-0.25));
            let exponent = |x: f64| widest("projection") * scale * x + (scale * x).powi(2) / 2.0;
            let favor =
                if inputs.contains_key("projection") { exponent(widest("q")) + exponent(widest("k")) } else { 0.0 };
            [ULP * (24.0 + 6.0 * (keys * features).ln() + favor), 0.0]
        }
    }
}

fn floats(tensor: &TensorView) -> Vec<f64> {
    match tensor.dtype() {
        Dtype::F32 => tensor.data().chunks_exact(4).map(|w| f32::from_le_bytes(w.try_into().unwrap()).into()).collect(),
        Dtype::F16 => tensor.data().chunks_exact(2).map(|w| f16::from_le_bytes(w.try_into().unwrap()).into()).collect(),
        Dtype::BF16 => {
            tensor.data().chunks_exact(2).map(|w| bf16::from_le_bytes(w.try_into().unwrap()).into()).collect()
        }
        other => panic!("no floats: {other:?}"),
    }
}

/// Every file of an op; no op is without.
fn cases(op: &str) -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(op);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "safetensors"));
    paths.sort();
    assert!(!paths.is_empty(), "{} holds no golden vectors", folder.display());
    paths.iter().map(|path| load(op, path)).collect()
}

/// Checks on a few threads, with a device each, and collects what fails, so that one run shows it all.
fn each(cases: impl Iterator<Item = Case>, check: fn(&Case)) {
    const THREADS: usize = 3;
    let cases: Vec<Case> = cases.collect();
    let failed = |case: &Case| std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(case))).is_err();
    let failures: Vec<&str> = std::thread::scope(|scope| {
        // Neighbours by name share kernels.
        let parts = cases.chunks(cases.len().div_ceil(THREADS));
        let run = |part: &[Case]| part.iter().map(failed).collect::<Vec<bool>>();
        let threads: Vec<_> = parts.map(|part| scope.spawn(move || run(part))).collect();
        let failed = threads.into_iter().flat_map(|thread| thread.join().unwrap());
        cases.iter().zip(failed).filter(|(_, failed)| *failed).map(|(case, _)| case.name.as_str()).collect()
    });
    assert!(failures.is_empty(), "{} of {} cases fail: {failures:?}", failures.len(), cases.len());
}

fn twin_is_right(case: &Case) {
    let twin = case.request.op.twin::<f64>(SumOrder::InOrder).unwrap();
    let mut names: Vec<&str> = twin.iter().map(|output| output.name).collect();
    names.sort_unstable();
    assert_eq!(names, case.want.keys().collect::<Vec<_>>(), "{}: outputs", case.name);
    for Output { name, shape, data, .. } in &twin {
        let want = &case.want[*name];
        assert_eq!(data.len(), want.len(), "{}: {name}: element count, shape {shape:?}", case.name);
        let largest = want.iter().filter(|w| w.is_finite()).fold(0.0, |most: f64, w| most.max(w.abs()));
        // Gradients may cancel to the last: a softmax's of what all keys of a row have in common.
        let largest = if case.request.op.stem() == "gated_attention_backward" { largest.max(1e-3) } else { largest };
        for (index, (&got, &want)) in data.iter().zip(want).enumerate() {
            let same = if want.is_finite() { (got - want).abs() <= 1e-10 * largest } else { got == want };
            assert!(same, "{}: {name} {shape:?} element {index}: got {got:e}, want {want:e}", case.name);
        }
    }
}

/// Every how many of an op's files the GPU is asked for: as the environment has it, which `scripts/measure` sets; else a driver
/// that compiles slowly takes one of three, and the other tests' cases against the twin, which takes all.
fn gpu_step() -> usize {
    let step = std::env::var("GOLDEN_STEP").map(|step| step.parse().expect("GOLDEN_STEP: a number"));
    step.unwrap_or(if compiles_slowly() { 3 } else { 1 })
}

fn kernel_is_right(case: &Case) {
    let op = &case.request.op;
    let run = case.request.run(context()).unwrap_or_else(|error| panic!("{}: {error:#}", case.name));
    let naive: Vec<_> = (0..NAIVE_RUNS).map(|seed| op.twin::<f32>(SumOrder::Shuffled(seed)).unwrap()).collect();
    let label = format!("{} ({})", case.name, run.kernel);
    assert_eq!(run.outputs.len(), case.want.len(), "{label}: outputs");
    // `op --check` derives its bounds from arithmetic alone, whatever the op: they hold as well, and mostly are the narrower ones.
    let verdicts = check::check(op, &run, None).unwrap();
    for (output, verdict) in run.outputs.iter().zip(verdicts) {
        assert!(verdict.holds(), "{label}: {}: {verdict}", output.name);
    }
    for Output { name, shape, data, dtype } in &run.outputs {
        if *dtype == DType::U32 {
            assert_eq!(*data, case.want[*name], "{label}: {name} {shape:?}");
            continue;
        }
        assert_eq!(*dtype, DType::F32, "{label}: {name}");
        let of_this =
            |outputs: &Vec<Output<f32>>| outputs.iter().find(|output| output.name == *name).unwrap().data.clone();
        let naive: Vec<_> = naive.iter().map(of_this).collect();
        let [floor, absolute_floor] = case.floors;
        let want = &case.want[*name];
        let got: Vec<f32> = data.iter().map(|&x| x as f32).collect();
        // No logarithm is above 0 where p is one.
        let is_sum = *name == "o" || *name == "p" && want.iter().any(|&p| p > 0.0);
        let absolute_floor = if is_sum { 0.0 } else { absolute_floor };
        let expected = Expected { case: &label, name, shape, want, naive: &naive, floor, absolute_floor };
        if op.stem().ends_with("attention_backward") { expected.assert_gradient(&got) } else { expected.assert(&got) }
    }
}

macro_rules! golden {
    ($($op:ident: $_Op:ident($_Config:ident, $_Shapes:ident),)*) => {
        $(mod $op {
            #[test]
            fn twin() {
                super::each(super::cases(stringify!($op)).into_iter(), super::twin_is_right);
            }

            #[test]
            fn gpu() {
                super::each(super::cases(stringify!($op)).into_iter().step_by(super::gpu_step()), super::kernel_is_right);
            }
        })*

        #[test]
        fn every_folder_is_tested() {
            let entries = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")).unwrap();
            let folders = entries.map(|entry| entry.unwrap()).filter(|entry| entry.file_type().unwrap().is_dir());
            let mut names: Vec<_> = folders.map(|folder| folder.file_name().into_string().unwrap()).collect();
            names.retain(|name| name != "__pycache__");
            names.sort();
            assert_eq!(names, [$(stringify!($op)),*]);
        }
    };
}
wgpu_attention::for_all_ops!(golden);
