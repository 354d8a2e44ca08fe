//! The example `op` end to end, in this process: files in, files out, and an exit code with a message for all that fails.

#[path = "op/check.rs"]
mod check;
#[path = "../examples/op/cli.rs"]
mod cli;
#[path = "op/family.rs"]
mod family;
#[path = "op/layouts.rs"]
mod layouts;
#[path = "op/refusals.rs"]
mod refusals;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use wgpu_attention::half::{bf16, f16};

/// A file to be.
#[derive(Clone)]
struct File {
    metadata: HashMap<String, String>,
    tensors: BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>,
}

impl File {
    fn new(op: &str, config: &str) -> Self {
        let metadata = [("op", op), ("config", config)].map(|(key, value)| (key.into(), value.into())).into();
        Self { metadata, tensors: BTreeMap::new() }
    }

    fn attention() -> Self {
        Self::new("attention", "{}").f32("q", &[1, 2, 3, 4]).f32("k", &[1, 2, 5, 4]).f32("v", &[1, 2, 5, 6])
    }

    fn with(mut self, name: &str, dtype: Dtype, shape: &[usize], bytes: Vec<u8>) -> Self {
        self.tensors.insert(name.into(), (dtype, shape.to_vec(), bytes));
        self
    }

    /// Numbers between -1 and 1.
    fn f32(self, name: &str, shape: &[usize]) -> Self {
        let count: usize = shape.iter().product();
        let bytes = (0..count).flat_map(|i| (1.7 * i as f32 + name.len() as f32).sin().to_le_bytes()).collect();
        self.with(name, Dtype::F32, shape, bytes)
    }

    /// The same numbers as far as 16 bits hold them, but for those that are f32 in any case.
    fn halved(mut self, to: Dtype) -> Self {
        for (name, (dtype, _, bytes)) in &mut self.tensors {
            if name.starts_with("lse") {
                continue;
            }
            let numbers = bytes.chunks_exact(4).map(|word| f32::from_le_bytes(word.try_into().unwrap()));
            let halves = numbers.flat_map(|x| match to {
                Dtype::F16 => f16::from_f32(x).to_le_bytes(),
                _ => bf16::from_f32(x).to_le_bytes(),
            });
            (*dtype, *bytes) = (to, halves.collect());
        }
        self
    }

    fn metadata(mut self, key: &str, value: &str) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.tensors.remove(name);
        self.metadata.remove(name);
        self
    }

    fn write(&self, path: &Path) {
        let views = self.tensors.iter();
        let views =
            views.map(|(name, (dtype, shape, bytes))| (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
        std::fs::write(path, safetensors::serialize(views, Some(self.metadata.clone())).unwrap()).unwrap();
    }

    fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap();
        let metadata = SafeTensors::read_metadata(&bytes).unwrap().1.metadata().clone().unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap().tensors().into_iter();
        let tensors = tensors.map(|(name, t)| (name, (t.dtype(), t.shape().to_vec(), t.data().to_vec()))).collect();
        Self { metadata, tensors }
    }

    fn numbers(&self, name: &str) -> Vec<f32> {
        self.tensors[name].2.chunks_exact(4).map(|word| f32::from_le_bytes(word.try_into().unwrap())).collect()
    }
}

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("op-{name}.safetensors"))
}

/// Exit code, standard output, standard error.
fn call(args: &[&Path]) -> (ExitCode, String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = cli::main_with([Path::new("op")].iter().chain(args).map(|arg| arg.as_os_str()), &mut out, &mut err);
    (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

/// The output of a call that must succeed, and be right.
fn run(name: &str, file: &File) -> File {
    let (input, output) = (path(name), path(&format!("{name}-out")));
    file.write(&input);
    let (code, _, err) = call(&[&input, &output, Path::new("--check")]);
    assert_eq!((code, err.as_str()), (ExitCode::SUCCESS, ""), "{name}");
    File::read(&output)
}

/// Standard error of a call that must fail.
fn refuse(name: &str, file: &File) -> String {
    let (input, output) = (path(name), path(&format!("{name}-out")));
    file.write(&input);
    let (code, out, err) = call(&[&input, &output]);
    assert_eq!((code, out.as_str()), (ExitCode::from(2), ""), "{name}: {err}");
    assert!(!output.exists(), "{name}: an output was written");
    err
}

/// The number behind some words of a line.
fn number_after(line: &str, words: &str) -> f64 {
    let (_, rest) = line.split_once(words).unwrap_or_else(|| panic!("no `{words}` in {line}"));
    rest.split([' ', ',', ')']).next().unwrap().parse().unwrap()
}

#[test]
fn outputs_and_metadata() {
    let file = File::attention().metadata("config", r#"{"causal":"bottom_right"}"#);
    let out = run("attention", &file);
    let shapes: Vec<_> = out.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.0, tensor.1.clone())).collect();
    let rows = vec![1, 2, 3];
    let want = [("entropy", Dtype::F32, rows.clone()), ("lse", Dtype::F32, rows), ("o", Dtype::F32, vec![1, 2, 3, 6])];
    assert_eq!(shapes, want);
    for key in ["kernel", "adapter", "driver"] {
        assert!(!out.metadata[key].is_empty(), "{key}");
    }
    assert_eq!(out.metadata["op"], "attention");
    let echo = r#"{"causal":"bottom_right","window":{"left":null,"right":null},"scale":"inv_sqrt_dim","softcap":null,"matrices":"none"}"#;
    assert_eq!(out.metadata["config"], echo);
}

#[test]
fn one_number_stands_for_every_key() {
    let plain = run("bias-none", &File::attention());
    let file = File::attention().f32("bias", &[3, 1]).with("mask", Dtype::BOOL, &[3, 1], vec![1, 1, 0]);
    let out = run("bias-inner", &file);
    let bias: Vec<f32> = (0..3).map(|i| (1.7 * i as f32 + 4.0).sin()).collect();
    for (row, (got, without)) in out.numbers("lse").into_iter().zip(plain.numbers("lse")).enumerate() {
        let (query, hidden) = (row % 3, row % 3 == 2);
        let want = if hidden { f32::NEG_INFINITY } else { without + bias[query] };
        assert!(got == want || (got - want).abs() < 1e-5, "row {row}: got {got}, want {want}");
        // The same number added to every score moves no weight.
        let [got, without] = [&out, &plain].map(|file| file.numbers("o")[6 * row..6 * row + 6].to_vec());
        let same = |(got, without): (f32, f32)| if hidden { got == 0.0 } else { (got - without).abs() < 1e-5 };
        assert!(got.into_iter().zip(without).all(same), "row {row}");
    }
}

#[test]
fn the_other_ops() {
    let qkv =
        |op, config| File::new(op, config).f32("q", &[1, 2, 5, 4]).f32("k", &[1, 1, 5, 4]).f32("v", &[1, 1, 5, 3]);
    let shapes =
        |out: &File| out.tensors.iter().map(|(name, tensor)| (name.clone(), tensor.1.clone())).collect::<Vec<_>>();
    let o = ("o".to_owned(), vec![1, 2, 5, 3]);
    let state = |name: &str, shape: &[usize]| (format!("state_{name}"), shape.to_vec());

    let product = File::new("matmul", r#"{"activation":"silu"}"#);
    let product = product.f32("a", &[1, 2, 5, 4]).f32("b", &[3, 1, 4, 6]).f32("bias", &[6]);
    assert_eq!(shapes(&run("matmul", &product)), [("c".to_owned(), vec![3, 2, 5, 6])]);

    let rows = vec![1, 2, 5];
    let parts = |config| {
        let file = File::new("merge", config).f32("o_parts", &[3, 1, 2, 5, 4]).f32("lse_parts", &[3, 1, 2, 5]);
        file.f32("entropy_parts", &[3, 1, 2, 5])
    };
    let merged = [("entropy", rows.clone()), ("lse", rows.clone()), ("o", vec![1, 2, 5, 4])];
    let merged = merged.map(|(name, shape)| (name.to_owned(), shape));
    assert_eq!(shapes(&run("merge", &parts("{}"))), merged);
    let held = parts(r#"{"accumulate":true}"#).f32("o", &[1, 2, 5, 4]).f32("lse", &rows).f32("entropy", &rows);
    assert_eq!(shapes(&run("merge-held", &held)), merged);

    let linear = r#"{"mode":"causal","feature_map":"exp"}"#;
    let first = run("linear", &qkv("linear_attention", linear));
    let states = [state("max", &[1, 1, 4]), state("s", &[1, 1, 4, 3]), state("z", &[1, 1, 4])];
    assert_eq!(shapes(&first), [vec![o.clone()], states.to_vec()].concat());
    // A state goes in as it came out.
    let mut next = qkv("linear_attention", linear);
    next.tensors.extend(first.tensors.into_iter().filter(|(name, _)| name.starts_with("state_")));
    let (before, after) = (next.numbers("state_z"), run("linear-next", &next).numbers("state_z"));
    // The same keys once more: the maxima stay, the sums double.
    assert!(before.iter().zip(&after).all(|(before, after)| (2.0 * before - after).abs() < 1e-5));
    let bounded = run("linear-bounded", &qkv("linear_attention", "{}"));
    assert_eq!(shapes(&bounded), [vec![o.clone()], states[1..].to_vec()].concat());

    assert_eq!(shapes(&run("gated", &qkv("gated_attention", "{}"))), [o]);
    let shared = File::new("gated_attention", r#"{"weights":"softmax"}"#)
        .f32("z", &[1, 2, 5, 4])
        .f32("gamma_q", &[2, 4])
        .f32("gamma_k", &[4])
        .f32("beta_k", &[1, 4])
        .f32("v", &[1, 2, 5, 3])
        .f32("u", &[1, 2, 5, 3]);
    assert_eq!(run("gau", &shared).numbers("o").len(), 30);
}

#[test]
fn only_the_outputs_asked_for() {
    let all = run("all-outputs", &File::attention());
    for (list, names) in
        [("", vec!["o"]), ("o", vec!["o"]), ("lse", vec!["lse", "o"]), ("entropy, lse", vec!["entropy", "lse", "o"])]
    {
        let out = run("some-outputs", &File::attention().metadata("outputs", list));
        assert_eq!(out.tensors.keys().collect::<Vec<_>>(), names, "{list}");
        for name in names {
            assert_eq!(out.numbers(name), all.numbers(name), "{list}: {name}");
        }
    }
}

#[test]
fn masks_and_lengths_take_any_of_their_types() {
    let three: [(&str, Dtype, Vec<usize>, Vec<u8>); 5] = [
        ("kv_lens", Dtype::U32, vec![1], 3u32.to_le_bytes().into()),
        ("kv_lens", Dtype::I32, vec![1], 3i32.to_le_bytes().into()),
        ("kv_lens", Dtype::I64, vec![1], 3i64.to_le_bytes().into()),
        ("mask", Dtype::BOOL, vec![5], vec![1, 1, 1, 0, 0]),
        ("mask", Dtype::U8, vec![1, 1, 5], vec![9, 1, 255, 0, 0]),
    ];
    let [first, rest @ ..] = three.map(|(name, dtype, shape, bytes)| {
        let out = run(&format!("{name}-{dtype:?}"), &File::attention().with(name, dtype, &shape, bytes));
        (out.numbers("o"), out.numbers("lse"))
    });
    for other in rest {
        for (a, b) in first.0.iter().chain(&first.1).zip(other.0.iter().chain(&other.1)) {
            assert!((a - b).abs() < 1e-6, "{a} and {b}");
        }
    }
}

/// In as the file holds them, out as it asks, with nothing but the output's rounding between the twin's result and ours.
#[test]
fn halves_stay_halves() {
    let qkv =
        |op, config| File::new(op, config).f32("q", &[1, 2, 5, 4]).f32("k", &[1, 1, 5, 4]).f32("v", &[1, 1, 5, 3]);
    // Rows of three halves: each starts at a word on the GPU, and none is left out of the file.
    let attention = || qkv("attention", "{}").f32("bias", &[5]);
    let product = File::new("matmul", "{}").f32("a", &[1, 2, 5, 4]).f32("b", &[1, 1, 4, 7]).f32("bias", &[7]);
    let gau = File::new("gated_attention", "{}").f32("z", &[1, 2, 5, 4]).f32("gamma_q", &[2, 4]).f32("gamma_k", &[4]);
    let gau = gau.f32("v", &[1, 2, 5, 3]).f32("u", &[1, 2, 5, 3]);
    let parts = |config| File::new("merge", config).f32("o_parts", &[2, 1, 2, 5, 3]).f32("lse_parts", &[2, 1, 2, 5]);
    let held = parts(r#"{"accumulate":true}"#).f32("o", &[1, 2, 5, 3]).f32("lse", &[1, 2, 5]);
    let table = [
        ("attention", attention(), "o", Dtype::F16, Some("F16")),
        ("attention-bf16", attention(), "o", Dtype::BF16, Some("BF16")),
        ("matmul", product, "c", Dtype::BF16, Some("F16")),
        ("linear", qkv("linear_attention", "{}"), "o", Dtype::F16, Some("BF16")),
        ("gau", gau, "o", Dtype::BF16, Some("BF16")),
        ("merge", parts("{}"), "o", Dtype::F16, Some("BF16")),
        ("accumulated", held, "o", Dtype::BF16, None),
    ];
    for (name, file, output, input_dtype, output_dtype) in table {
        let mut file = file.halved(input_dtype);
        if let Some(dtype) = output_dtype {
            file = file.metadata("output_dtype", dtype);
        }
        let (input, written) = (path(&format!("halves-{name}")), path(&format!("halves-{name}-out")));
        file.write(&input);
        let (code, out, err) = call(&[&input, &written, Path::new("--check")]);
        assert_eq!((code, err.as_str()), (ExitCode::SUCCESS, ""), "{name}");
        let result = File::read(&written);
        let want = match output_dtype {
            Some("F16") => Dtype::F16,
            Some(_) => Dtype::BF16,
            None => Dtype::F32,
        };
        assert_eq!(result.tensors[output].0, want, "{name}");
        let kernel = &result.metadata["kernel"];
        let storage = if input_dtype == Dtype::F16 { "F16" } else { "BF16" };
        assert!(kernel.contains(storage), "{name}: {kernel}");
        let line = out.lines().find(|line| line.starts_with(&format!("{output} "))).unwrap();
        let [error, allowed, largest] =
            ["at most ", "(allowed ", "largest value "].map(|before| number_after(line, before));
        let rounding = match want {
            Dtype::F16 => 1.0 / f64::from(1 << 11),
            Dtype::BF16 => 1.0 / f64::from(1 << 8),
            _ => 0.0,
        };
        assert!(error <= allowed && allowed <= (rounding + 1e-5) * largest, "{name}: {line}");
    }
}

#[test]
fn empty_tensors_are_nothing_to_do() {
    let file = File::new("attention", "{}").f32("q", &[1, 1, 0, 4]).f32("k", &[1, 1, 2, 4]).f32("v", &[1, 1, 2, 4]);
    assert!(run("empty", &file).numbers("o").is_empty());
}
