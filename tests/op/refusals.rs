//! What `op` refuses, each with a message.

use std::path::Path;
use std::process::ExitCode;

use safetensors::tensor::Dtype;

use super::{File, call, path, refuse, run};

#[test]
fn every_failure_has_its_message() {
    let attention = File::attention;
    let linear = |config| attention().metadata("op", "linear_attention").metadata("config", config);
    let gated = || attention().metadata("op", "gated_attention");
    let parts = |config| File::new("merge", config).f32("o_parts", &[2, 1, 2, 3, 4]).f32("lse_parts", &[2, 1, 2, 3]);
    let matrices = || File::new("matmul", "{}").f32("a", &[1, 2, 5, 4]).f32("b", &[1, 1, 4, 3]);
    let table = [
        ("no-op", attention().without("op"), "metadata: op is missing"),
        ("no-projection", linear(r#"{"feature_map":{"favor":{}}}"#), "projection: the favor map needs it"),
        (
            "half-a-state",
            linear("{}").f32("state_z", &[1, 2, 4]),
            "state_s: is missing: a state's tensors are given together",
        ),
        (
            "state-not-asked-for",
            linear("{}").metadata("outputs", "o,state_s"),
            "state_z: the output is missing: a state's tensors are given together",
        ),
        (
            "maxima-not-asked-for",
            linear(r#"{"feature_map":"exp"}"#).metadata("outputs", "state_s,state_z"),
            "state_max: the output is missing: this feature map is unbounded",
        ),
        ("nothing-held", parts(r#"{"accumulate":true}"#), "o: is missing, but accumulate goes on from it"),
        (
            "lse-not-asked-for",
            parts(r#"{"accumulate":true}"#).f32("o", &[1, 2, 3, 4]).f32("lse", &[1, 2, 3]).metadata("outputs", "o"),
            "lse: the output is missing, but accumulate weighs what o holds by it",
        ),
        (
            "entropy-not-asked-for",
            parts("{}").f32("entropy_parts", &[2, 1, 2, 3]).metadata("outputs", "lse"),
            "entropy_parts: is given, but the output entropy is not",
        ),
        ("no-z", gated().without("q"), "q: k is given without it"),
        ("lone-gamma", gated().f32("gamma_q", &[4]), "gamma_q: is given, but z, which it maps, is not"),
        (
            "unknown-op",
            attention().metadata("op", "convolution"),
            "metadata: op: expected one of attention, gated_attention, gumbel_softmax, linear_attention, margin_softmax, matmul, merge, multilabel_softmax, softmax; got convolution",
        ),
        ("bad-json", attention().metadata("config", "{"), "metadata: config: EOF while parsing"),
        ("unknown-option", attention().metadata("config", r#"{"casual":"none"}"#), "unknown field `casual`"),
        (
            "unknown-option-of-a-scale",
            attention().metadata("config", r#"{"scale":{"log_n":{"base":512,"floor":1,"flor":16}}}"#),
            "unknown field `flor`",
        ),
        (
            "unknown-option-of-a-window",
            attention().metadata("config", r#"{"window":{"left":1,"rihgt":2}}"#),
            "unknown field `rihgt`",
        ),
        (
            "unknown-option-of-weights",
            gated().metadata("config", r#"{"weights":{"softmax_log_n":{"base":512,"flor":1}}}"#),
            "unknown field `flor`",
        ),
        ("unknown-option-of-a-map", linear(r#"{"feature_map":{"taylor2":{"scael":1}}}"#), "unknown field `scael`"),
        ("unknown-option-of-a-sum", linear(r#"{"normalization":{"sum":{"epz":1}}}"#), "unknown field `epz`"),
        ("list", attention().metadata("config", "[]"), "metadata: config: a list, where options are given by name"),
        ("list-of-options", attention().metadata("config", r#"["top_left"]"#), "metadata: config: a list"),
        ("list-for-a-window", attention().metadata("config", r#"{"window":[1,2]}"#), "metadata: config: a list"),
        (
            "list-for-a-scale",
            attention().metadata("config", r#"{"scale":{"log_n":[512,1]}}"#),
            "metadata: config: a list",
        ),
        ("list-for-a-map", linear(r#"{"feature_map":{"taylor2":[1]}}"#), "metadata: config: a list"),
        ("list-for-a-sum", linear(r#"{"normalization":{"sum":[1e-6]}}"#), "metadata: config: a list"),
        (
            "list-for-weights",
            gated().metadata("config", r#"{"weights":{"squared_relu":{"row_sum":[1e-6]}}}"#),
            "metadata: config: a list",
        ),
        (
            "list-for-chunks",
            gated().metadata("config", r#"{"mode":{"mixed_chunk":[256,"chunk_dim","tokens"]}}"#),
            "metadata: config: a list",
        ),
        ("list-for-merge", File::new("merge", "[true]"), "metadata: config: a list"),
        ("list-for-matmul", File::new("matmul", r#"["silu"]"#), "metadata: config: a list"),
        (
            "option-twice",
            attention().metadata("config", r#"{"window":{"left":1,"left":2}}"#),
            "metadata: config: `left` is given twice",
        ),
        (
            "unknown-metadata",
            attention().metadata("confg", "{}"),
            "metadata: unknown key confg; there are op, pass, config, outputs, output_dtype, layout, transpose",
        ),
        ("unknown-output-list", attention().metadata("output", "o"), "metadata: unknown key output;"),
        (
            "no-pass",
            attention().metadata("pass", "sideways"),
            "metadata: pass: expected forward or backward; got sideways",
        ),
        ("no-backward-pass", parts("{}").metadata("pass", "backward"), "metadata: pass: merge has no backward pass"),
        ("unknown-value", attention().metadata("config", r#"{"causal":true}"#), "metadata: config: "),
        ("bad-option", attention().metadata("config", r#"{"softcap":-1}"#), "option softcap: expected "),
        (
            "output-dtype",
            attention().metadata("output_dtype", "F64"),
            "metadata: output_dtype: expected F32, F16 or BF16; got F64",
        ),
        ("no-q", attention().without("q"), "q: is missing"),
        ("unknown-tensor", attention().f32("queries", &[1]), "takes no tensor queries; it takes q, k, v, "),
        ("unknown-output", attention().metadata("outputs", "lse,state"), "attention has no output state"),
        (
            "i32",
            attention().with("q", Dtype::I32, &[1, 2, 3, 4], vec![0; 4 * 24]),
            "q: element type: expected F32, F16, BF16 or F64, got I32",
        ),
        (
            "too-large-for-f32",
            attention().with("q", Dtype::F64, &[1, 2, 3, 4], 1e300f64.to_le_bytes().repeat(24)),
            "q: 1e300 does not fit f32",
        ),
        ("layout", attention().metadata("layout", "bsdh"), "metadata: layout: expected bhsd or bshd; got bsdh"),
        (
            "layout-of-matrices",
            matrices().metadata("layout", "bshd"),
            "metadata: layout: matmul has no tensor [batch, heads, len, dim]",
        ),
        (
            "transposed-bias",
            matrices().metadata("transpose", "b,bias"),
            "metadata: transpose: expected some of a, b; got bias",
        ),
        ("transposed-v", attention().metadata("transpose", "v"), "metadata: transpose: attention has no matrices"),
        ("transposed-twice", matrices().metadata("transpose", "b"), "b: axis k: expected 4 (the k of a), got 3"),
        ("one-factor-for-four", matrices().f32("b", &[1, 1, 1, 3]), "b: axis k: expected 4 (the k of a), got 1"),
        ("rows-of-a-bias", matrices().f32("a", &[1, 2, 1, 4]).f32("bias", &[5, 3]), "bias: axis m: expected 1"),
        ("f32-mask", attention().f32("mask", &[5]), "mask: element type: expected BOOL or U8, got F32"),
        ("f32-lens", attention().f32("kv_lens", &[1]), "kv_lens: element type: expected U32, I32 or I64, got F32"),
        ("negative", attention().with("kv_lens", Dtype::I32, &[1], vec![255; 4]), "kv_lens: -1 does not fit u32"),
        ("rank", attention().f32("q", &[2, 3, 4]), "q: expected 4 axes, got shape [2, 3, 4]"),
        (
            "rank-of-bias",
            attention().f32("bias", &[1, 1, 1, 3, 5]),
            "bias: expected at most 4 axes, got shape [1, 1, 1, 3, 5]",
        ),
        ("head-dim", attention().f32("k", &[1, 2, 5, 3]), "k: axis head_dim: expected 4 (the head_dim of q), got 3"),
        ("heads", attention().f32("q", &[1, 3, 3, 4]), "q: axis q_heads: expected a multiple of the 2 kv_heads, got 3"),
        ("bias-shape", attention().f32("bias", &[3, 4]), "bias: axis kv_len: expected 5"),
        ("row-scale", attention().f32("row_scale", &[3]), "row_scale: is given, but the scale is not per_row"),
        (
            "no-row-scale",
            attention().metadata("config", r#"{"scale":"per_row"}"#),
            "row_scale: the per_row scale needs it",
        ),
    ];
    for (name, file, message) in table {
        let err = refuse(name, &file);
        assert!(err.contains(message), "{name}: got {err}, want {message}");
    }
}

#[test]
fn what_is_wrong_with_files_and_arguments() {
    let (input, output) = (path("arguments"), path("arguments-out"));
    File::attention().write(&input);
    let garbage = path("garbage");
    std::fs::write(&garbage, b"not safetensors").unwrap();
    let nowhere = path("nowhere").join("out.safetensors");
    let table: [(&[&Path], &str); 6] = [
        (&[], "required"),
        (&[&input], "required"),
        (&[&input, &output, Path::new("--fast")], "--fast"),
        (&[&path("absent"), &output], "op-absent.safetensors"),
        (&[&garbage, &output], "op-garbage.safetensors"),
        (&[&input, &nowhere], "op-nowhere"),
    ];
    for (args, message) in table {
        let (code, _, err) = call(args);
        assert_eq!(code, ExitCode::from(2), "{args:?}");
        assert!(err.contains(message), "{args:?}: got {err}");
    }
    let (code, _, err) = call(&[&input, &output, Path::new("--adapter"), Path::new("no such adapter")]);
    assert_eq!(code, ExitCode::from(2));
    assert!(err.contains("no adapter is called `no such adapter`; there are ["), "{err}");
    let (code, out, _) = call(&[Path::new("--help")]);
    assert_eq!(code, ExitCode::SUCCESS);
    assert!(out.contains("--adapter"), "{out}");
}

#[test]
fn a_result_that_is_too_large_is_said_to_be() {
    // 40 GB, more than any adapter binds: of k = 1, so that the file is small.
    let file = File::new("matmul", "{}").f32("a", &[1, 1, 100_000, 1]).f32("b", &[1, 1, 1, 100_000]);
    let err = refuse("large", &file);
    assert!(err.starts_with("c: bytes in one binding: needs 40000000000, the limit is "), "{err}");
    // Halves, of which rows are whole words.
    let file = file.metadata("output_dtype", "F16");
    let err = refuse("large-f16", &file);
    assert!(err.starts_with("c: bytes in one binding: needs 20000000000, the limit is "), "{err}");
}

/// A header that only a text can be, and data of 16 bytes.
fn refuse_header(name: &str, header: &str) -> String {
    let (input, output) = (path(name), path(&format!("{name}-out")));
    let bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &[0; 16]].concat();
    std::fs::write(&input, bytes).unwrap();
    let (code, _, err) = call(&[&input, &output]);
    assert_eq!(code, ExitCode::from(2), "{name}: {err}");
    assert!(!output.exists(), "{name}: an output was written");
    err
}

#[test]
fn a_name_stands_once_in_a_header() {
    let tensor =
        |begin: usize| format!(r#"{{"dtype":"F32","shape":[1,1,1,4],"data_offsets":[{begin},{}]}}"#, begin + 16);
    let header = |rest: &str| format!(r#"{{"__metadata__":{{"op":"attention"}},"k":{},{rest}}}"#, tensor(0));
    // Whole but for v: what follows is refused for what it says.
    assert!(refuse_header("once", &header(r#""q":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}"#)).contains("q: "));
    let twice = refuse_header("tensor-twice", &header(&format!(r#""k":{}"#, tensor(0))));
    assert!(twice.contains("op-tensor-twice.safetensors: `k` is given twice"), "{twice}");
    let twice = refuse_header("escaped-twice", &header(&format!(r#""\u006b":{}"#, tensor(0))));
    assert!(twice.contains("`k` is given twice"), "{twice}");
    let twice =
        refuse_header("metadata-twice", &header("").replace(r#""op":"#, r#""op":"merge","op":"#).replace(",}", "}"));
    assert!(twice.contains("`op` is given twice"), "{twice}");
    let listed = refuse_header("tensor-as-a-list", &header(r#""q":["F32",[0],[0,0]]"#));
    assert!(listed.contains("op-tensor-as-a-list.safetensors: invalid type: string \"F32\""), "{listed}");
}

#[test]
fn the_input_is_not_written_over() {
    let input = path("own");
    File::attention().write(&input);
    let before = std::fs::read(&input).unwrap();
    let folder = input.parent().unwrap();
    let mut spellings =
        vec![input.clone(), folder.join(".").join("..").join(folder.file_name().unwrap()).join("op-own.safetensors")];
    #[cfg(unix)]
    {
        let [symbolic, hard] = ["symbolic", "hard"].map(|name| path(&format!("own-{name}")));
        [&symbolic, &hard].map(std::fs::remove_file).into_iter().for_each(drop);
        std::os::unix::fs::symlink(&input, &symbolic).unwrap();
        std::fs::hard_link(&input, &hard).unwrap();
        spellings.extend([symbolic, hard]);
    }
    for output in spellings {
        let (code, _, err) = call(&[&input, &output]);
        assert_eq!(code, ExitCode::from(2), "{output:?}");
        assert!(err.contains("the output would take the place of the input"), "{output:?}: {err}");
        assert!(std::fs::read(&input).unwrap() == before, "{output:?}: the input was written over");
    }
    // An earlier output may be.
    run("again", &File::attention());
    run("again", &File::attention());
}
