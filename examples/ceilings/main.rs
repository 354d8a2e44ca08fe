//! What this machine's adapter can do at most: `cargo run --release --example ceilings`.
//!
//! A copy for memory traffic, independent multiply-adds for arithmetic, and the crate's own matrix product, of f32, of f16 and
//! of bf16, without and (where the device has them) with cooperative matrices; each is verified before it is timed.
//! Everything else this crate measures is to be read against these.

#[allow(unused, reason = "`compare` and the benches use the rest")]
mod harness;
#[allow(unused, reason = "`compare` and the benches use the rest")]
mod measure;
#[path = "../compare/tier.rs"]
mod tier;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use serde_json::{Value, json};
use wgpu_attention::{Context, DType, Matrices, wgpu};

use harness::Failure;
use harness::stored::Stored;
use harness::timer::Timer;
use measure::Ceilings;
use tier::Tier;

/// Measures the copy bandwidth, the rate of f32 multiply-adds and the crate's own matrix product in every type and tier.
#[derive(Parser)]
#[command(name = "ceilings")]
struct Options {
    /// Take the adapter whose name contains this
    #[arg(long, value_name = "SUBSTRING", default_value = "", hide_default_value = true)]
    adapter: String,
    /// Timed samples of each ceiling. Default: a quarter of a second's worth, 3 to 100
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    samples: Option<u32>,
    /// Of matrix products beside the ceiling's own, only those stored as this
    #[arg(long)]
    dtype: Option<Stored>,
    /// What kernels may use. Default: what the device has, and products both without and with matrices
    #[arg(long)]
    tier: Option<Tier>,
    /// Only say which adapter it is and what it grants
    #[arg(long, conflicts_with_all = ["samples", "dtype", "tier", "json"])]
    adapter_only: bool,
    /// Write the figures there
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    match ceilings(&Options::parse(), &mut std::io::stdout()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // With standard error closed there is nobody to tell.
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn ceilings(options: &Options, out: &mut dyn Write) -> Result<()> {
    let (context, tier) = tier::open(&options.adapter, options.tier)?;
    let timer = Timer::new(&context);
    let info = context.device().adapter_info();
    let driver = format!("{} {}", info.driver, info.driver_info).trim().to_owned();
    writeln!(out, "adapter  {} ({}; {driver})", info.name, info.backend)?;
    writeln!(out, "timer    {}", timer.name())?;
    if options.adapter_only {
        return Ok(writeln!(out, "grants   {}", granted(&context, &options.adapter))?);
    }
    let found = Ceilings::measure(&context, &timer, options.samples);
    let found = found.map_err(|failure: Failure| anyhow::anyhow!("{failure}"))?;

    let [m, n, k] = found.matmul_size;
    let percent = 100.0 * found.matmul_tflops / found.fma_tflops;
    writeln!(out, "copy     {:9.1} GB/s     read and written, {} MiB", found.copy_gbps, found.copy_bytes >> 20)?;
    writeln!(out, "fma      {:9.3} TFLOP/s  f32, two a multiply-add", found.fma_tflops)?;
    writeln!(
        out,
        "matmul   {:9.3} TFLOP/s  f32, {m} x {n} x {k}, {percent:.0} % of fma; {}",
        found.matmul_tflops, found.matmul_kernel
    )?;
    let mut all = Vec::new();
    if tier.matrices() == Matrices::None {
        all.extend(products(&context, Matrices::None, options, &found, out)?);
    }
    match options.tier {
        None => match tier::open(&options.adapter, Some(Tier::Cooperative)) {
            Ok((with_matrices, _)) => all.extend(products(&with_matrices, Matrices::F16, options, &found, out)?),
            Err(reason) => writeln!(out, "matrices not here: {reason:#}")?,
        },
        Some(Tier::Cooperative) => all.extend(products(&context, Matrices::F16, options, &found, out)?),
        Some(_) => {}
    }
    if let Some(path) = &options.json {
        let figures = json!({
            "adapter": info.name,
            "driver": driver,
            "backend": info.backend.to_string(),
            "timer": timer.name(),
            "copy_gbps": found.copy_gbps,
            "copy_bytes": found.copy_bytes,
            "fma_tflops": found.fma_tflops,
            "matmul_tflops": found.matmul_tflops,
            "matmul_size": found.matmul_size,
            "matmul_kernel": found.matmul_kernel,
            "tier": tier.name(),
            "products": all,
        });
        std::fs::write(path, format!("{figures:#}\n")).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// What of the adapter's gifts kernels go by.
fn granted(context: &Context, adapter: &str) -> String {
    let (device, info) = (context.device(), context.device().adapter_info());
    let (limits, features) = (device.limits(), device.features());
    let subgroups = match [info.subgroup_min_size, info.subgroup_max_size] {
        _ if !features.contains(wgpu::Features::SUBGROUP) => "no subgroups".into(),
        [min, max] if min == max => format!("subgroups of {min}"),
        [min, max] => format!("subgroups of {min} to {max}"),
    };
    let matrices = if tier::open(adapter, Some(Tier::Cooperative)).is_ok() {
        "cooperative matrices"
    } else {
        "no cooperative matrices"
    };
    let kind = info.device_type;
    let f16 = if features.contains(wgpu::Features::SHADER_F16) { "f16" } else { "no f16" };
    let kib = limits.max_compute_workgroup_storage_size >> 10;
    let mib = limits.max_storage_buffer_binding_size >> 20;
    format!("{kind:?}, {subgroups}, {f16}, {kib} KiB of workgroup memory, bindings of {mib} MiB, {matrices}")
}

/// The product of the other types, or of all with matrices: a line each, and the figures of those that ran.
fn products(
    context: &Context,
    matrices: Matrices,
    options: &Options,
    found: &Ceilings,
    out: &mut dyn Write,
) -> Result<Vec<Value>> {
    let timer = Timer::new(context);
    let [m, n, k] = found.matmul_size;
    let what = if matrices == Matrices::None { "matmul" } else { "matrices" };
    let mut figures = Vec::new();
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        let asked = options.dtype.is_none_or(|only| DType::from(only) == dtype);
        if !asked || (dtype, matrices) == (DType::F32, Matrices::None) {
            continue;
        }
        let stored = harness::stored::name(dtype);
        match measure::matmul(context, &timer, options.samples, found.matmul_size, dtype, matrices) {
            Ok((tflops, kernel)) => {
                let percent = 100.0 * tflops / found.fma_tflops;
                writeln!(
                    out,
                    "{what:8} {tflops:9.3} TFLOP/s  {stored}, {m} x {n} x {k}, {percent:.0} % of fma; {kernel}"
                )?;
                figures.push(json!({ "dtype": stored, "matrices": matrices, "tflops": tflops, "kernel": kernel }));
            }
            Err(failure) => bail!("{what} of {stored}: {failure}"),
        }
    }
    Ok(figures)
}
