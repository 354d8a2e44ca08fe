//! The command line of `kernel`.

#[path = "device.rs"]
mod device;
#[path = "../compare/harness/dtype.rs"]
mod dtype;
#[path = "found.rs"]
mod found;
#[path = "languages.rs"]
mod languages;
#[path = "ops.rs"]
pub mod ops;
#[path = "source.rs"]
mod source;
#[path = "translate.rs"]
mod translate;

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use device::{Assume, Device, Granted};
use dtype::Stored;
use ops::Call;
use source::{Kernel, Language};
use wgpu_attention::DType;

/// Shows what the plan of a call picks and, if asked, the source of its kernels as it is compiled.
#[derive(Parser)]
#[command(name = "kernel")]
struct Args {
    #[arg(help = format!("One of {}", ops::NAMES.join(", ")))]
    op: String,
    /// The op's config as JSON, with its default for every field left out (docs/OP.md)
    #[arg(default_value = "{}")]
    config: String,
    /// Fields of the op's shapes as JSON. One left out is that of a usual call: batch 1, 8 heads, 4096 long, 64 wide, nothing optional
    #[arg(default_value = "{}")]
    shapes: String,
    /// What floats are stored as
    #[arg(long, value_enum, default_value_t = Stored::F32)]
    dtype: Stored,
    /// Plan on the adapter whose name contains this. Default: the first that fits or, where there is none, as with --assume gpu
    #[arg(long, value_name = "SUBSTRING")]
    adapter: Option<String>,
    /// Plan for a device that is not there: with WebGPU's default limits but for the size of buffers, and nothing optional but
    /// what is said below
    #[arg(long, value_enum, conflicts_with = "adapter")]
    assume: Option<Assume>,
    #[command(flatten)]
    granted: Granted,
    #[command(flatten)]
    language: Flags,
    /// Of several kernels, only the one of this number
    #[arg(long, value_name = "N", requires = "Flags")]
    kernel: Option<usize>,
    /// Write the source there, and what the plan picks to standard output
    #[arg(long, value_name = "FILE", requires = "Flags")]
    output: Option<PathBuf>,
}

#[derive(clap::Args)]
#[group(multiple = false)]
struct Flags {
    /// Show the WGSL, with a comment where each file begins
    #[arg(long)]
    wgsl: bool,
    /// Show what naga writes for Vulkan 1.3, as binary: for a pipe, or --output
    #[arg(long)]
    spirv: bool,
    /// Show what naga writes for Metal
    #[arg(long)]
    msl: bool,
    /// Show what naga writes for DX12
    #[arg(long)]
    hlsl: bool,
}

impl Flags {
    fn language(&self) -> Option<Language> {
        let flags = [
            (self.wgsl, Language::Wgsl),
            (self.spirv, Language::SpirV),
            (self.msl, Language::Msl),
            (self.hlsl, Language::Hlsl),
        ];
        flags.into_iter().find_map(|(set, language)| set.then_some(language))
    }
}

/// Does what `args` (program name first) ask for; exit code 2 and a message on `err` if that fails. `terminal`: whether `out` is one.
pub fn main_with(
    args: impl IntoIterator<Item = impl Into<OsString> + Clone>,
    out: &mut dyn Write,
    terminal: bool,
    err: &mut dyn Write,
) -> ExitCode {
    let done = match Args::try_parse_from(args) {
        Ok(args) => execute(&args, out, terminal),
        Err(error) if error.use_stderr() => Err(error.into()),
        Err(help) => write!(out, "{help}").map_err(Into::into),
    };
    let Err(error) = done else { return ExitCode::SUCCESS };
    // Whoever stops reading, as `head` does, has what they wanted.
    if error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe) {
        return ExitCode::SUCCESS;
    }
    // Nothing is left to be done if standard error is closed too.
    let _ = writeln!(err, "{}", format!("{error:#}").trim_end());
    ExitCode::from(2)
}

fn execute(args: &Args, out: &mut dyn Write, terminal: bool) -> Result<()> {
    let language = args.language.language();
    let binary = language == Some(Language::SpirV);
    if binary && terminal && args.output.is_none() {
        bail!("--spirv: is binary, which a terminal does not show: --output FILE, or | spirv-dis");
    }
    let call = Call::new(&args.op, &args.config, &args.shapes)?;
    let device = match args.assume {
        Some(assume) => Device::assumed(assume, &args.granted)?,
        None => Device::found(args.adapter.as_deref())?,
    };
    let dtype = DType::from(args.dtype);
    let plan = call.plan(&device.context, dtype)?;
    let kernels = Kernel::of(&plan)?;

    let mut summary = String::new();
    writeln!(summary, "{} on {device}", args.op)?;
    writeln!(summary, "config      {}", call.config)?;
    writeln!(summary, "shapes      {}", call.shapes)?;
    writeln!(summary, "dtype       {}", dtype::name(dtype))?;
    for (number, kernel) in (1..).zip(&kernels) {
        writeln!(summary, "kernel {number}    {kernel}")?;
    }
    writeln!(summary, "reason      {}", plan.reason())?;
    writeln!(summary, "dispatches  {}", plan.dispatches())?;
    writeln!(summary, "workspace   {} bytes", plan.workspace_bytes())?;
    writeln!(summary, "flops       {}", plan.flops())?;
    writeln!(summary, "bytes       {} at least", plan.bytes())?;

    let Some(language) = language else { return Ok(out.write_all(summary.as_bytes())?) };
    let source = chosen(&kernels, args.kernel, binary)?.iter().map(|kernel| kernel.source(language));
    let source = source.collect::<Result<Vec<_>>>()?.concat();
    match &args.output {
        Some(path) => {
            std::fs::write(path, source).with_context(|| path.display().to_string())?;
            out.write_all(summary.as_bytes())?;
        }
        None if binary => out.write_all(&source)?,
        // As comments, so that what comes out is source as a whole.
        None => {
            summary.lines().try_for_each(|line| writeln!(out, "// {line}"))?;
            out.write_all(&source)?;
        }
    }
    Ok(())
}

/// All kernels, or that of a number; of binary modules, which do not stand one behind the other, there has to be one.
fn chosen(kernels: &[Kernel], number: Option<usize>, binary: bool) -> Result<&[Kernel]> {
    let count = kernels.len();
    if let Some(number) = number {
        ensure!((1..=count).contains(&number), "--kernel: expected one of {count}, got {number}");
        return Ok(&kernels[number - 1..number]);
    }
    ensure!(!binary || count == 1, "--spirv: there are {count} kernels: --kernel N takes one of them");
    Ok(kernels)
}
