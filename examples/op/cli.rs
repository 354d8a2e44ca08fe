//! The command line of `op`.

#[path = "check.rs"]
mod check;
#[path = "run.rs"]
pub mod run;

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Parser;
use run::{Request, json};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use wgpu_attention::half::{bf16, f16};
use wgpu_attention::{Context, DType};

/// Runs an op on the tensors of a safetensors file.
#[derive(Parser)]
#[command(name = "op")]
struct Args {
    /// Tensors named as the op's inputs; metadata `op`, `config` and what `docs/OP.md` has besides.
    input: PathBuf,
    /// Where the outputs go.
    output: PathBuf,
    /// Run on the adapter whose name contains this.
    #[arg(long, value_name = "SUBSTRING")]
    adapter: Option<String>,
    /// Compute the f64 reference too (slow: plain loops), print how far off each output is, and end with exit code 1 if that is more
    /// than twice the error of naive f32, at the accuracy that WGSL asks for
    #[arg(long)]
    check: bool,
    /// Let outputs be off by so much of their largest number instead
    #[arg(long, value_name = "RATIO", value_parser = ratio, requires = "check")]
    tolerance: Option<f64>,
}

fn ratio(text: &str) -> Result<f64, String> {
    let ratio = text.parse().map_err(|_| "not a number".to_owned())?;
    if f64::is_finite(ratio) && ratio >= 0.0 { Ok(ratio) } else { Err("must be 0 or more".into()) }
}

/// Does what `args` (program name first) ask for; exit code 2 and a message on `err` if that fails, 1 if a result is not what it should
/// be.
pub fn main_with(
    args: impl IntoIterator<Item = impl Into<OsString> + Clone>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> ExitCode {
    let done = match Args::try_parse_from(args) {
        Ok(args) => execute(&args, out, err),
        Err(error) if error.use_stderr() => Err(error.into()),
        Err(help) => write!(out, "{help}").map(|()| Vec::new()).map_err(Into::into),
    };
    let (code, message) = match done {
        Ok(wrong) if wrong.is_empty() => return ExitCode::SUCCESS,
        Ok(wrong) => (1, format!("further off than allowed: {}", wrong.join(", "))),
        Err(error) => (2, format!("{error:#}")),
    };
    // Nothing is left to be done if standard error is closed too.
    let _ = writeln!(err, "{}", message.trim_end());
    ExitCode::from(code)
}

/// The outputs that did not pass the check.
fn execute(args: &Args, out: &mut dyn Write, err: &mut dyn Write) -> anyhow::Result<Vec<&'static str>> {
    let input = || args.input.display().to_string();
    let file = std::fs::read(&args.input).with_context(input)?;
    if is_same_file(&args.input, &args.output) {
        bail!("{}: the output would take the place of the input", args.output.display());
    }
    let (header_len, header) = SafeTensors::read_metadata(&file).with_context(input)?;
    // After eight bytes that hold its length.
    json::check_header(&file[8..8 + header_len]).with_context(input)?;
    let tensors = SafeTensors::deserialize(&file).with_context(input)?.tensors();
    let request = Request::new(&header.metadata().clone().unwrap_or_default(), tensors)?;
    let rounded = request.op.rounded();
    if !rounded.is_empty() {
        writeln!(err, "note: F64 is rounded to f32: {}", rounded.join(", "))?;
    }
    let name = args.adapter.clone().or_else(|| std::env::var("WGPU_ADAPTER_NAME").ok()).unwrap_or_default();
    // With matrices where the adapter has them: the config may ask for them.
    let context = Context::headless_with_matrices(&name, Default::default())?;
    let result = request.run(&context)?;

    let stem = request.op.stem();
    let (op, pass) = stem.strip_suffix("_backward").map_or((stem, "forward"), |op| (op, "backward"));
    let adapter = context.device().adapter_info();
    let mut metadata: HashMap<String, String> = [
        ("op", op.to_owned()),
        ("pass", pass.to_owned()),
        ("config", request.op.config()?),
        ("kernel", result.kernel.clone()),
        ("adapter", adapter.name.clone()),
        ("driver", format!("{} {}", adapter.driver, adapter.driver_info).trim().to_owned()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into();
    metadata.extend(request.layout.iter().map(|layout| ("layout".to_owned(), layout.clone())));
    let stored: Vec<_> = result.outputs.iter().map(|output| stored(&output.data, output.dtype)).collect();
    let mut views = Vec::new();
    for (output, (dtype, bytes)) in result.outputs.iter().zip(&stored) {
        views.push((output.name, TensorView::new(*dtype, output.shape.clone(), bytes)?));
    }
    let bytes = safetensors::serialize(views, Some(metadata))?;
    std::fs::write(&args.output, bytes).with_context(|| args.output.display().to_string())?;

    writeln!(out, "{} on {} ({:?})", result.kernel, adapter.name, adapter.backend)?;
    let mut verdicts = match args.check {
        true => check::check(&request.op, &result, args.tolerance)?.into_iter(),
        false => Vec::new().into_iter(),
    };
    let mut wrong = Vec::new();
    for output in &result.outputs {
        write!(out, "{} {:?}", output.name, output.shape)?;
        if output.dtype != DType::F32 {
            write!(out, " {:?}", output.dtype)?;
        }
        if let Some(verdict) = verdicts.next() {
            write!(out, ": {verdict}")?;
            wrong.extend((!verdict.holds()).then_some(output.name));
        }
        writeln!(out)?;
    }
    Ok(wrong)
}

/// Whether two paths lead to one file, by whatever links.
fn is_same_file(a: &Path, b: &Path) -> bool {
    #[cfg(unix)]
    let place = |path: &Path| {
        use std::os::unix::fs::MetadataExt;
        path.metadata().map(|file| (file.dev(), file.ino()))
    };
    #[cfg(not(unix))]
    let place = Path::canonicalize;
    // What is not there yet is no file at all.
    matches!((place(a), place(b)), (Ok(a), Ok(b)) if a == b)
}

/// Numbers as a file holds them; those of 16 bits were written as such by the GPU.
fn stored(data: &[f64], dtype: DType) -> (Dtype, Vec<u8>) {
    match dtype {
        DType::F16 => (Dtype::F16, data.iter().flat_map(|&x| f16::from_f64(x).to_le_bytes()).collect()),
        DType::BF16 => (Dtype::BF16, data.iter().flat_map(|&x| bf16::from_f64(x).to_le_bytes()).collect()),
        DType::U32 => (Dtype::U32, data.iter().flat_map(|&x| (x as u32).to_le_bytes()).collect()),
        _ => (Dtype::F32, data.iter().flat_map(|&x| (x as f32).to_le_bytes()).collect()),
    }
}
