//! `compare --backward`: the gradients of each variant, beside its forward pass.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::Result;
use wgpu_attention::{Context, wgpu};

use crate::ceilings::Ceilings;
use crate::harness::Failure;
use crate::harness::gradients::{Compared, Gradients};
use crate::harness::stored;
use crate::harness::tensors::{HostTensors, Shape, Tensors};
use crate::harness::timer::{Timer, median};
use crate::harness::variants::Variant;
use crate::options::Options;
use crate::record::Setting;
use crate::schedule;
use crate::table::{self, bytes, milliseconds, percent, significant};
use crate::tier::Tier;

/// What runs if nothing is asked for.
pub const DEFAULT: &[&str] = &["softmax", "log_n"];
/// First and last default length, and seconds for all.
const ON_CPU: [u32; 2] = [64, 4096];
const ON_GPU: [u32; 2] = [128, 32_768];
const BUDGET: f64 = 120.0;

/// Heading and width of each column.
const COLUMNS: [(&str, usize); 11] = [
    ("n", 6),
    ("forward", 9),
    ("backward", 9),
    ("x forward", 9),
    ("TFLOP/s", 8),
    ("% fma", 6),
    ("workspace", 10),
    ("rows", 6),
    ("max err", 8),
    ("rms err", 8),
    ("samples", 7),
];

/// Measures everything, printing as it goes. Whether all went well: something was measured and nothing was wrong.
pub fn compare(context: &Context, tier: Tier, options: &Options) -> Result<bool> {
    let (variants, sizes) = (options.chosen()?, options.layouts()?[0]);
    let info = context.device().adapter_info();
    let on_cpu = info.device_type == wgpu::DeviceType::Cpu;
    let mut lengths = options.seq_lens.clone();
    lengths.sort_unstable();
    lengths.dedup();
    let budget = options.budget.or(lengths.is_empty().then_some(BUDGET)).map(Duration::from_secs_f64);
    if lengths.is_empty() {
        lengths = schedule::doubling(if on_cpu { ON_CPU } else { ON_GPU });
    }
    let timer = Timer::new(context);
    let mut setting = Setting::new(&info, timer.name(), options.data.name(), tier);
    setting.ceilings = Ceilings::measure(context, &timer, None).ok();
    let width = variants.iter().map(|variant| variant.name.len()).max().unwrap_or(0);
    let mask = if options.causal { "causal" } else { "every key visible" };
    let dtype = options.dtype.into();
    let tensors = format!(
        "tensors  {} x {} heads x n x {}, {}, {} key and value heads, {mask}, {}",
        sizes.batch,
        sizes.heads,
        sizes.head_dim,
        stored::name(dtype),
        sizes.kv_heads,
        setting.data_in_words()
    );
    let columns = "columns  forward (o and lse), backward (dq, dk and dv): median, ms; TFLOP/s, % fma, workspace: of backward; rows: of dq \
                   compared with f64, and as many keys of dk and dv; err: relative to the largest number of these";
    let head = [tensors, columns.into(), String::new(), table::header(&COLUMNS, width)];
    for line in setting.head().into_iter().chain(head) {
        print(&line)?;
    }

    let (start, mut went_well, mut measured) = (Instant::now(), true, false);
    for &len in &lengths {
        if budget.is_some_and(|budget| start.elapsed() > budget) {
            print(&format!("From n = {len} on, nothing was run, for the sake of the budget."))?;
            break;
        }
        let shape = Shape {
            batch: sizes.batch,
            heads: sizes.heads,
            kv_heads: sizes.kv_heads,
            causal: options.causal,
            dtype,
            ..Shape::new(len, sizes.head_dim)
        };
        for variant in &variants {
            match measure(context, &timer, variant, shape, options.samples, &setting) {
                Ok(cells) => {
                    measured = true;
                    print(&table::line(&COLUMNS, variant.name, width, &cells))?;
                }
                Err(failure) => {
                    went_well &= matches!(failure, Failure::Refused(_));
                    print(&table::failure(variant.name, len, &failure, width))?;
                }
            }
        }
        print("")?;
    }
    Ok(went_well && measured)
}

fn print(line: &str) -> Result<()> {
    Ok(writeln!(std::io::stdout(), "{line}")?)
}

/// Verifies both passes of a variant at one length, and times them in turns.
fn measure(
    context: &Context,
    timer: &Timer,
    variant: &Variant,
    shape: Shape,
    asked: Option<u32>,
    setting: &Setting,
) -> Result<[String; COLUMNS.len()], Failure> {
    Tensors::check(context, &shape)?;
    let tensors = Tensors::upload(context, shape, HostTensors::random(&shape))?;
    let gradients = Gradients::new(context, variant, &tensors)?;
    let Compared { rows, errors } = gradients.verify(context)?;
    let passes = [timer.warm_up(gradients.forward()?)?, timer.warm_up(gradients.backward()?)?];
    let wanted = schedule::samples(passes[1].took, asked);
    let mut samples = [Vec::new(), Vec::new()];
    for _ in 0..wanted {
        for (pass, samples) in passes.iter().zip(&mut samples) {
            samples.push(pass.sample()?);
        }
    }
    let [forward, backward] = samples.each_mut().map(|samples| median(samples).as_secs_f64());
    let call = &passes[1].call;
    let took = Duration::from_secs_f64(backward);
    let of_fma = setting.ceilings.as_ref().map(|ceilings| ceilings.percent(call.flops(), call.bytes, took)[0]);
    Ok([
        shape.len.to_string(),
        milliseconds(1e3 * forward),
        milliseconds(1e3 * backward),
        format!("{:.2}", backward / forward),
        significant(call.flops() as f64 / backward * 1e-12),
        percent(of_fma),
        bytes(call.workspace_bytes()),
        rows.to_string(),
        format!("{:.1e}", errors.max),
        format!("{:.1e}", errors.rms),
        wanted.to_string(),
    ])
}
