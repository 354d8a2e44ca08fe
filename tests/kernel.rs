//! The example `kernel`, in this process: the plans and sources of every op, what each option changes, and what is refused.

#[path = "../examples/kernel/cli.rs"]
mod cli;

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use naga::valid::{Capabilities, ValidationFlags, Validator};
use wgpu_attention::Context;

const FILE: &str = "// ==== ";

fn shaders() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders")
}

/// Every op there is, by its folder of kernels, and every backward pass.
fn ops() -> Vec<&'static str> {
    let folders = std::fs::read_dir(shaders()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut ops: Vec<_> = folders.filter(|name| name != "shared").collect();
    ops.sort();
    let forward = cli::ops::NAMES.iter().filter(|name| !name.ends_with("_backward"));
    assert_eq!(ops, forward.copied().collect::<Vec<_>>());
    cli::ops::NAMES.to_vec()
}

/// Exit code, standard output, standard error.
fn call_on(terminal: bool, args: &[&str]) -> (ExitCode, Vec<u8>, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = cli::main_with(["kernel"].iter().chain(args), &mut out, terminal, &mut err);
    (code, out, String::from_utf8(err).unwrap())
}

/// What a call that must succeed writes.
fn bytes(args: &[&str]) -> Vec<u8> {
    let (code, out, err) = call_on(false, args);
    assert_eq!((code, err.as_str()), (ExitCode::SUCCESS, ""), "{args:?}");
    out
}

fn run(args: &[&str]) -> String {
    String::from_utf8(bytes(args)).unwrap()
}

/// A call on a device that is a GPU and has nothing optional.
fn on_gpu(args: &[&str]) -> String {
    run(&[args, &["--assume", "gpu"]].concat())
}

/// The text behind a heading of a summary.
fn field<'a>(summary: &'a str, heading: &str) -> &'a str {
    let line = summary.lines().find_map(|line| line.strip_prefix(heading));
    line.unwrap_or_else(|| panic!("no {heading}: {summary}")).trim()
}

fn kernels(summary: &str) -> usize {
    summary.lines().filter(|line| line.starts_with("kernel ")).count()
}

fn validate(text: &str) {
    let module = naga::front::wgsl::parse_str(text).unwrap_or_else(|error| panic!("{}", error.emit_to_string(text)));
    let granted = Capabilities::SUBGROUP | Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    let valid = Validator::new(ValidationFlags::all(), granted).validate(&module);
    valid.unwrap_or_else(|error| panic!("{}", error.emit_to_string(text)));
}

/// The pieces of one kernel's WGSL are files of the repository, line by line but for constants and unrolled loops. Below them stands
/// what one of Rust writes.
fn expect_files(text: &str) {
    let mut pieces = text.split(FILE).skip(1).peekable();
    assert!(pieces.peek().is_some(), "{text}");
    while let Some(piece) = pieces.next() {
        let (path, got) = piece.split_once('\n').unwrap();
        let file = std::fs::read_to_string(shaders().parent().unwrap().join(path));
        let want = file.unwrap_or_else(|error| panic!("{path}: {error}"));
        if path == "src/storage.rs" {
            assert!(got.starts_with("fn ") && pieces.peek().is_none(), "{got}");
            continue;
        }
        assert_eq!(got.lines().count(), want.lines().count(), "{path}");
        let header = want.lines().next().unwrap();
        assert!(got.lines().next().unwrap().ends_with(header), "{path}: {header}");
    }
}

#[test]
fn every_op_shows_its_plan_and_the_wgsl_of_each_kernel() {
    for op in ops() {
        for options in [vec![], vec!["--subgroup", "32"], vec!["--dtype", "f16", "--workgroup-kib", "32"]] {
            let call = |more: &[&str]| on_gpu(&[&[op], options.as_slice(), more].concat());
            let summary = call(&[]);
            assert!(summary.starts_with(&format!("{op} on an assumed GPU: ")), "{summary}");
            for heading in ["config", "shapes"] {
                let json = field(&summary, heading);
                serde_json::from_str::<serde_json::Value>(json).unwrap_or_else(|error| panic!("{json}: {error}"));
            }
            for heading in ["dtype", "reason"] {
                assert!(!field(&summary, heading).is_empty(), "{summary}");
            }
            let number = |heading| {
                let text = field(&summary, heading).split(' ').next().unwrap();
                text.parse::<u64>().unwrap_or_else(|_| panic!("{heading}: {text}"))
            };
            let count = kernels(&summary);
            assert!(count > 0 && number("dispatches") >= count as u64, "{summary}");
            assert!(number("flops") > 0 && number("bytes") > 0, "{summary}");
            number("workspace");

            let all = call(&["--wgsl"]);
            let plan: String = summary.lines().map(|line| format!("// {line}\n")).collect();
            let mut rest = all.strip_prefix(&plan).expect("the plan, as a comment");
            for kernel in 1..=count {
                let one = call(&["--wgsl", "--kernel", &kernel.to_string()]);
                validate(&one);
                expect_files(&one);
                let source = one.strip_prefix(&plan).unwrap();
                let label = source.trim_start().strip_prefix("// ").unwrap().lines().next().unwrap();
                assert_eq!(field(&summary, &format!("kernel {kernel} ")), label);
                rest = rest.strip_prefix(source).expect("one kernel after the other");
            }
            assert_eq!(rest, "", "{op}");
        }
    }
}

#[test]
fn every_op_is_translated() {
    for op in ops() {
        for kernel in 1..=kernels(&on_gpu(&[op])) {
            let kernel = kernel.to_string();
            let args = |language| [op, "--kernel", &kernel, language];
            let (msl, hlsl) = (on_gpu(&args("--msl")), on_gpu(&args("--hlsl")));
            assert!(msl.contains("kernel void main_("), "{msl}");
            assert!(hlsl.contains("[numthreads("), "{hlsl}");
            let spirv = bytes(&[args("--spirv").as_slice(), &["--assume", "gpu"]].concat());
            assert_eq!(spirv[..8], [0x03, 0x02, 0x23, 0x07, 0x00, 0x06, 0x01, 0x00], "magic number and version 1.6");
            assert!(spirv.len().is_multiple_of(4));
        }
    }
}

#[test]
fn matrices_are_assumed() {
    let call = |more: &[&str]| on_gpu(&[&["attention", r#"{"matrices": "f16"}"#, "{}"], more].concat());
    let summary = call(&["--subgroup", "64", "--workgroup-kib", "64", "--matrices"]);
    assert!(
        summary.starts_with("attention on an assumed GPU: 64 KiB of workgroup memory, subgroups of 64, matrices\n")
    );
    assert!(field(&summary, "kernel 1 ").starts_with("attention/cooperative "), "{summary}");
}

#[test]
fn config_and_shapes_are_what_is_planned() {
    let usual = on_gpu(&["attention"]);
    assert!(field(&usual, "shapes").starts_with(
        r#"{"batch":1,"q_heads":8,"kv_heads":8,"q_len":4096,"kv_len":4096,"head_dim":64,"v_dim":64,"kv_lens":false"#
    ));
    let causal = on_gpu(&["attention", r#"{"causal":"bottom_right"}"#]);
    assert!(field(&causal, "config").starts_with(r#"{"causal":"bottom_right","window":{"left":null,"#), "{causal}");
    let [all, half] = [&usual, &causal].map(|summary| field(summary, "flops").parse::<f64>().unwrap());
    assert!((all / half - 2.0).abs() < 1e-3, "{half} of {all}");
    let decoding = on_gpu(&["attention", "{}", r#"{"q_len":1,"lse":true}"#]);
    assert!(field(&decoding, "shapes").contains(r#""q_len":1,"kv_len":4096"#), "{decoding}");
    assert!(field(&decoding, "reason").contains("then combined"), "{decoding}");
    let source = on_gpu(&["attention", "{}", r#"{"q_len":1,"lse":true}"#, "--wgsl"]);
    assert!(source.contains("==== shaders/attention/lse.wgsl"), "{decoding}");
    let projected = r#"{"projection_rows":128}"#;
    on_gpu(&["linear_attention", r#"{"feature_map":{"favor":{}}}"#, projected]);
    let nothing = on_gpu(&["attention", "{}", r#"{"batch":0}"#]);
    assert_eq!((kernels(&nothing), field(&nothing, "reason")), (0, "nothing to do"));
    // A long cache, which a device of WebGPU's limits has no buffer for.
    on_gpu(&["attention", "{}", r#"{"q_len":1,"kv_len":1000000,"kv_heads":1,"q_heads":8}"#]);
}

#[test]
fn every_option_changes_the_plan() {
    let kernel = |summary: &str| field(summary, "kernel 1 ").to_owned();
    let made_of = |summary: &str| field(summary, "            made of").to_owned();
    let plain = on_gpu(&["attention"]);
    assert!(kernel(&plain).starts_with("attention/tiled ") && field(&plain, "reason").contains("a GPU"), "{plain}");
    assert!(plain.contains("16 KiB of workgroup memory, no subgroups"), "{plain}");

    let cpu = run(&["attention", "--assume", "cpu"]);
    assert!(kernel(&cpu).starts_with("attention/rows ") && cpu.starts_with("attention on an assumed CPU: "), "{cpu}");

    for (dtype, storage) in [("f16", "q:PackedF16"), ("bf16", "q:PackedBF16")] {
        let stored = on_gpu(&["attention", "--dtype", dtype]);
        assert_eq!(field(&stored, "dtype"), dtype);
        assert!(kernel(&stored).contains(storage), "{stored}");
        let [full, half] = [&plain, &stored].map(|summary| field(summary, "bytes").trim_end_matches(" at least"));
        assert_eq!(full.parse::<u64>().unwrap(), 2 * half.parse::<u64>().unwrap());
    }

    assert!(!made_of(&plain).contains("_subgroup"), "{plain}");
    for (sizes, told) in [("32", "subgroups of 32"), ("32..32", "subgroups of 32"), ("16..64", "subgroups of 16 to 64")]
    {
        let subgroups = on_gpu(&["attention", "--subgroup", sizes]);
        assert!(subgroups.lines().next().unwrap().ends_with(told), "{subgroups}");
        assert!(made_of(&subgroups).contains("shared/along_width_subgroup"), "{subgroups}");
    }
    // Eight invocations share a row: of four they are no part.
    let small = on_gpu(&["attention", "--subgroup", "4..64"]);
    assert_eq!((kernel(&small), made_of(&small)), (kernel(&plain), made_of(&plain)));

    let wide = |kib| on_gpu(&["attention", "{}", r#"{"v_dim": 256}"#, "--workgroup-kib", kib]);
    let large = wide("32");
    assert!(large.contains("32 KiB of workgroup memory, no subgroups"), "{large}");
    assert_ne!(kernel(&large), kernel(&wide("16")));
    assert_eq!(kernel(&on_gpu(&["attention", "--workgroup-kib", "16"])), kernel(&plain));
}

#[test]
fn without_assumptions_it_is_the_machines_own() {
    let Ok(context) = Context::headless() else { return };
    let info = context.device().adapter_info();
    let named = format!("attention on {} ({:?}): ", info.name, info.backend);
    for args in [["attention"].as_slice(), &["attention", "--adapter", &info.name]] {
        let summary = run(args);
        assert!(summary.starts_with(&named), "{summary}");
    }
}

/// Where the adapter has them.
#[test]
fn cooperative_matrices_are_none_of_hlsl() {
    let args = ["attention", r#"{"matrices":"f16"}"#];
    let (code, out, _) = call_on(false, &args);
    if code == ExitCode::SUCCESS {
        let summary = String::from_utf8(out).unwrap();
        assert!(field(&summary, "kernel 1 ").starts_with("attention/cooperative "), "{summary}");
        let (code, _, err) = call_on(false, &[args.as_slice(), &["--hlsl"]].concat());
        assert_eq!((code, err.as_str()), (ExitCode::from(2), "HLSL: naga has no cooperative matrices for it\n"));
    }
}

/// Once more with an environment in which wgpu finds none.
#[test]
fn without_an_adapter_a_gpu_is_assumed() {
    if std::env::var("WGPU_BACKEND").is_ok_and(|backend| backend == "noop") {
        let summary = run(&["attention"]);
        let (first, plan) = summary.split_once('\n').unwrap();
        assert!(first.starts_with("attention on an assumed GPU, as there is no adapter: "), "{first}");
        assert!(on_gpu(&["attention"]).ends_with(plan), "{plan}");
        let (code, _, err) = call_on(false, &["attention", "--adapter", "llvmpipe"]);
        assert_eq!(code, ExitCode::from(2), "{err}");
        return;
    }
    // Not `current_exe`, which is the loader where scripts/on-driver has started the program with another C library.
    let mut again = Command::new(std::env::args_os().next().unwrap());
    again.args(["--exact", "without_an_adapter_a_gpu_is_assumed"]);
    let output = again.env("WGPU_BACKEND", "noop").env_remove("WGPU_ADAPTER_NAME").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
fn a_file_takes_the_source() {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kernel-source");
    let file = path.to_str().unwrap();
    let summary = on_gpu(&["attention"]);
    for language in ["--wgsl", "--msl", "--hlsl"] {
        assert_eq!(on_gpu(&["attention", language, "--output", file]), summary);
        let (shown, written) = (on_gpu(&["attention", language]), std::fs::read_to_string(&path).unwrap());
        assert!(shown.ends_with(&written) && written.starts_with("\n// attention/tiled "), "{written}");
    }
    // What the plan picks is text, on a terminal too.
    let (code, out, err) = call_on(true, &["attention", "--assume", "gpu", "--spirv", "--output", file]);
    assert_eq!((code, out, err.as_str()), (ExitCode::SUCCESS, summary.into_bytes(), ""));
    assert_eq!(std::fs::read(&path).unwrap(), bytes(&["attention", "--assume", "gpu", "--spirv"]));
}

#[test]
fn every_refusal_has_its_message() {
    let three = "there are 3 kernels: --kernel N takes one of them";
    let nowhere = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kernel-nowhere").join("file");
    let table: [(&[&str], &str); 38] = [
        (&[], "required"),
        (&["convolution"], "op: expected one of attention, "),
        (&["attention", "{"], "config: EOF while parsing"),
        (&["attention", r#"{"casual":"none"}"#], "config: unknown field `casual`"),
        (&["attention", r#"{"softcap":-1}"#], "option softcap: expected "),
        (&["attention", r#"{"matrices":"f16"}"#], "matrices: f16 needs features that the device was created without"),
        (&["attention", "{}", "{"], "shapes: EOF while parsing"),
        (&["attention", "{}", "[1, 8]"], "shapes: invalid type: sequence, expected a map"),
        (&["attention", "{}", "1"], "shapes: invalid type: integer `1`, expected a map"),
        (&["attention", "{}", r#"{"heads":8}"#], "shapes: unknown field `heads`"),
        (&["attention", "{}", r#"{"q_len":-1}"#], "shapes: invalid value: integer `-1`, expected u32"),
        (&["attention", "{}", r#"{"q_len":null}"#], "shapes: invalid type: null, expected u32"),
        (&["attention", "{}", r#"{"head_dim":257}"#], "q: axis head_dim: expected 1 to 256, got 257"),
        (&["attention", "{}", r#"{"kv_heads":3}"#], "q: axis q_heads: expected a multiple of the 3 kv_heads, got 8"),
        (&["attention", "{}", r#"{"q_len":2000000000}"#], "q: rows: needs 16000000000, the limit is 4294967295"),
        (&["attention", r#"{"scale":"per_row"}"#], "row_scale: the per_row scale needs it"),
        (&["linear_attention", r#"{"feature_map":{"favor":{}}}"#], "projection: the favor map needs it"),
        (&["attention", "{}", "{}", "{}"], "unexpected argument '{}'"),
        (&["attention", "--fast"], "--fast"),
        (&["attention", "--dtype", "f64"], "[possible values: f32, f16, bf16]"),
        (&["attention", "--assume", "tpu"], "[possible values: gpu, cpu]"),
        (&["attention", "--adapter", "llvmpipe"], "cannot be used with"),
        (&["attention", "--subgroup", "3"], "expected powers of two from 4 to 128"),
        (&["attention", "--subgroup", "2..32"], "expected powers of two from 4 to 128"),
        (&["attention", "--subgroup", "32..256"], "expected powers of two from 4 to 128"),
        (&["attention", "--subgroup", "64..32"], "expected the fewest first"),
        (&["attention", "--subgroup", "32.."], "--subgroup <MIN..MAX>"),
        (&["attention", "--workgroup-kib", "8"], "8 is not in 16..=1024"),
        (&["attention", "--workgroup-kib", "much"], "--workgroup-kib <KIB>"),
        (&["attention", "--wgsl", "--msl"], "cannot be used with"),
        (&["attention", "--kernel", "1"], "required"),
        (&["attention", "--output", "file"], "required"),
        (&["attention", "--wgsl", "--kernel", "0"], "--kernel: expected one of 1, got 0"),
        (&["attention", "--wgsl", "--kernel", "2"], "--kernel: expected one of 1, got 2"),
        (&["attention", "--wgsl", "--output", nowhere.to_str().unwrap()], "kernel-nowhere"),
        (&["attention", "{}", r#"{"batch":0}"#, "--spirv"], "there are 0 kernels"),
        (&["linear_attention", "--spirv"], three),
        (&["linear_attention", "--spirv", "--output", nowhere.to_str().unwrap()], three),
    ];
    for (args, message) in table {
        let assumed = if args.contains(&"--assume") { [].as_slice() } else { &["--assume", "gpu"] };
        let (code, out, err) = call_on(false, &[args, assumed].concat());
        assert_eq!((code, out.len()), (ExitCode::from(2), 0), "{args:?}: {err}");
        assert!(err.contains(message), "{args:?}: got {err}, want {message}");
    }
    for args in [["attention", "--subgroup", "32"], ["attention", "--workgroup-kib", "32"]] {
        let (code, _, err) = call_on(false, &args);
        assert_eq!(code, ExitCode::from(2), "{args:?}");
        assert!(err.contains("required") && err.contains("--assume <ASSUME>"), "{args:?}: {err}");
    }
    let (code, _, err) = call_on(false, &["attention", "--adapter", "no such adapter"]);
    assert_eq!(code, ExitCode::from(2));
    assert!(err.contains("no adapter is called `no such adapter`; there are ["), "{err}");
    let (code, out, err) = call_on(true, &["attention", "--assume", "gpu", "--spirv"]);
    assert_eq!((code, out.len()), (ExitCode::from(2), 0));
    assert!(err.contains("--spirv: is binary, which a terminal does not show"), "{err}");
}

#[test]
fn help_is_no_failure() {
    let help = run(&["--help"]);
    for option in ["--dtype", "--assume", "--subgroup", "--workgroup-kib", "--wgsl", "--spirv", "--output"] {
        assert!(help.contains(option), "{help}");
    }
}

/// Fails as a pipe does whose reader is gone, or as a disk that is full.
struct Closed(ErrorKind);

impl Write for Closed {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        Err(self.0.into())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_reader_may_stop_early() {
    for (kind, want) in [(ErrorKind::BrokenPipe, ExitCode::SUCCESS), (ErrorKind::StorageFull, ExitCode::from(2))] {
        let mut err = Vec::new();
        let args = ["kernel", "merge", "--assume", "gpu", "--wgsl"];
        assert_eq!(cli::main_with(args, &mut Closed(kind), false, &mut err), want);
        assert_eq!(err.is_empty(), want == ExitCode::SUCCESS);
    }
}
