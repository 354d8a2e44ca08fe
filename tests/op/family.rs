//! The softmax family through `op`: labels, lists of classes, numbers of rows; and how outputs that are indices are checked.

use std::process::ExitCode;

use safetensors::tensor::Dtype;

use super::{File, call, path, run};

fn words(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

fn indices(file: &File, name: &str) -> Vec<u32> {
    let (dtype, _, bytes) = &file.tensors[name];
    assert_eq!(*dtype, Dtype::U32, "{name}");
    bytes.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect()
}

fn names(file: &File) -> Vec<&str> {
    file.tensors.keys().map(String::as_str).collect()
}

/// Labels as PyTorch has them: I64, of which a negative one is none.
fn labels(file: File, labels: [i64; 3]) -> File {
    file.with("labels", Dtype::I64, &[3], labels.iter().flat_map(|label| label.to_le_bytes()).collect())
}

#[test]
fn margins() {
    let config = r#"{"margin":{"cosine":{"m":0.3}},"scale":8.0,"centres":2,"reduction":"mean"}"#;
    let file = File::new("margin_softmax", config).f32("features", &[3, 4]).f32("weights", &[10, 4]).f32("bias", &[5]);
    let file = labels(file, [4, -100, 0]).f32("class_margins", &[5]);
    let out = run("margin", &file);
    assert_eq!(names(&out), ["entropy", "logits", "loss", "lse", "others", "predicted"]);
    let logits = out.numbers("logits");
    for (row, predicted) in logits.chunks(5).zip(indices(&out, "predicted")) {
        assert!(row.iter().all(|&logit| logit <= row[predicted as usize]), "{row:?}: {predicted}");
    }
    let backward = ["lse", "others", "entropy"].into_iter().fold(file.metadata("pass", "backward"), |file, name| {
        let (dtype, shape, bytes) = &out.tensors[name];
        file.with(name, *dtype, shape, bytes.clone())
    });
    let gradients = run("margin-backward", &backward.f32("dloss", &[1]).f32("dlse", &[3]).f32("dentropy", &[3]));
    assert_eq!(names(&gradients), ["dbias", "dfeatures", "dweights"]);
    // A row that is NaN has no class.
    let broken = [f32::NAN, 0.0, 1.0, 2.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    let file = File::new("margin_softmax", "{}").with("features", Dtype::F32, &[1, 4], broken).f32("weights", &[5, 4]);
    let out = run("margin-nan", &file.with("labels", Dtype::U32, &[1], words(&[2])));
    assert_eq!(indices(&out, "predicted"), [u32::MAX]);
}

#[test]
fn sparse_softmaxes() {
    let alphas: Vec<u8> = [1.2_f32, 1.5, 2.0].iter().flat_map(|alpha| alpha.to_le_bytes()).collect();
    let file = |config| labels(File::new("softmax", config).f32("x", &[3, 9]), [8, -1, 3]);
    let entmax = file(r#"{"kind":{"entmax":{"alpha":1.5}}}"#).with("alpha", Dtype::F32, &[3], alphas);
    let out = run("entmax", &entmax);
    assert_eq!(names(&out), ["entropy", "loss", "p", "support"]);
    let counts =
        out.numbers("p").chunks(9).map(|row| row.iter().filter(|&&p| p > 0.0).count() as u32).collect::<Vec<_>>();
    assert_eq!(indices(&out, "support"), counts);
    let gradients = run("entmax-backward", &entmax.metadata("pass", "backward").f32("dp", &[3, 9]).f32("dloss", &[3]));
    assert_eq!(names(&gradients), ["dalpha", "dx"]);
    assert_eq!(names(&run("sparsemax", &file(r#"{"kind":"sparsemax"}"#))), ["entropy", "loss", "p", "support"]);
}

#[test]
fn samples() {
    let file = File::new("gumbel_softmax", r#"{"kind":"sample","top_k":3}"#).f32("logits", &[4, 9]);
    let file = file.with("key", Dtype::U32, &[5], words(&[1, 2, 3, 4, 5]));
    let out = run("sample", &file.with("mask", Dtype::BOOL, &[4, 9], [1, 1, 1, 1, 1, 1, 0, 0, 0].repeat(4)));
    assert!(indices(&out, "index").iter().all(|&index| index < 6));
}

#[test]
fn lists_of_labels() {
    let listed = File::new("multilabel_softmax", r#"{"labels":"indices"}"#).f32("scores", &[2, 6]);
    let listed = listed.with(
        "label_indices",
        Dtype::I64,
        &[2, 2],
        [5_i64, -1, 2, 0].iter().flat_map(|x| x.to_le_bytes()).collect(),
    );
    let offsets = File::new("multilabel_softmax", r#"{"labels":"offsets"}"#).f32("scores", &[2, 6]);
    let offsets = offsets.with("label_list", Dtype::U32, &[3], words(&[5, 0, 2]));
    let offsets = offsets.with("label_offsets", Dtype::U32, &[3], words(&[0, 1, 3]));
    let [listed, offsets] = [run("indices", &listed), run("offsets", &offsets)];
    assert_eq!(listed.numbers("loss"), offsets.numbers("loss"));
}

#[test]
fn indices_are_counted() {
    let (input, output) = (path("counted"), path("counted-out"));
    let file = File::new("margin_softmax", "{}").f32("features", &[3, 4]).f32("weights", &[5, 4]);
    let sparse = File::new("softmax", r#"{"kind":"sparsemax"}"#).f32("x", &[3, 9]);
    for (name, file) in [("predicted", labels(file, [4, -100, 0])), ("support", sparse)] {
        file.write(&input);
        let (code, out, _) = call(&[&input, &output, std::path::Path::new("--check")]);
        let line = out.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        assert!(code == ExitCode::SUCCESS && line.ends_with("[3] U32: 0 of 3 differ (allowed 0)"), "{line}");
    }
}
