//! What an adapter can do at most: memory traffic of a copy, rate of f32 multiply-adds, and the crate's own f32 product.

pub mod product;

use std::time::{Duration, Instant};

use wgpu_attention::wgpu::{self, util::DeviceExt};
use wgpu_attention::{Context, DType, Matrices};

use super::harness::Failure;
use super::harness::call::Kernel;
use super::harness::timer::{self, Timer};
use product::Product;

/// The three ceilings, and what they were measured with.
#[derive(Clone, Debug)]
pub struct Ceilings {
    /// 10⁹ bytes read or written in a second by a copy.
    pub copy_gbps: f64,
    /// Bytes that the copy reads.
    pub copy_bytes: u64,
    /// 10¹² operations in a second, two a multiply-add.
    pub fma_tflops: f64,
    pub matmul_tflops: f64,
    /// `[m, n, k]`.
    pub matmul_size: [u32; 3],
    pub matmul_kernel: String,
}

/// Bytes of each buffer of the copy: well beyond any cache.
const COPY_BYTES_ON_CPU: u64 = 128 << 20;
const COPY_BYTES_ON_GPU: u64 = 256 << 20;
/// Invocations of the multiply-adds: every lane of the device several times.
const LANES_ON_CPU: u32 = 1 << 16;
const LANES_ON_GPU: u32 = 1 << 20;
/// Edge of the square product: enough tiles to fill the device.
const EDGE_ON_CPU: u32 = 768;
const EDGE_ON_INTEGRATED: u32 = 2048;
const EDGE_ON_GPU: u32 = 4096;

/// Of both kernels.
const WORKGROUP: u64 = 256;
/// Operations of an invocation of `fma.wgsl` in an iteration.
const FLOPS_PER_ITERATION: f64 = 16.0 * 12.0 * 2.0;
/// A call shorter than this is repeated within a sample, and the multiply-adds take more iterations.
const CALL: Duration = Duration::from_millis(2);
const MOST_CALLS: u32 = 32;
/// After this much, few samples are enough.
const SPENT: Duration = Duration::from_millis(250);
const FEWEST_SAMPLES: usize = 3;
const MOST_SAMPLES: u32 = 100;

impl Ceilings {
    /// Measures all three, in about a second; `samples` of each if given.
    pub fn measure(context: &Context, timer: &Timer, samples: Option<u32>) -> Result<Self, Failure> {
        let device_type = context.device().adapter_info().device_type;
        let on_cpu = device_type == wgpu::DeviceType::Cpu;
        let limits = context.device().limits();
        let lanes = if on_cpu { LANES_ON_CPU } else { LANES_ON_GPU };
        let copy_bytes = (if on_cpu { COPY_BYTES_ON_CPU } else { COPY_BYTES_ON_GPU })
            .min(limits.max_storage_buffer_binding_size)
            .min(limits.max_buffer_size);
        let copy_bytes = copy_bytes - copy_bytes % 256;
        let edge = match device_type {
            wgpu::DeviceType::Cpu => EDGE_ON_CPU,
            wgpu::DeviceType::IntegratedGpu => EDGE_ON_INTEGRATED,
            _ => EDGE_ON_GPU,
        };
        let copy = copy(context, timer, samples, copy_bytes)?;
        let fma_flops = multiply_adds(context, timer, samples, lanes)?;
        let (matmul_tflops, matmul_kernel) = matmul(context, timer, samples, [edge; 3], DType::F32, Matrices::None)?;
        Ok(Self {
            copy_gbps: 2.0 * copy_bytes as f64 / copy.as_secs_f64() * 1e-9,
            copy_bytes,
            fma_tflops: fma_flops * 1e-12,
            matmul_tflops,
            matmul_size: [edge; 3],
            matmul_kernel,
        })
    }

    /// What a call that took so long reached of the multiply-adds and of the copy, in percent.
    pub fn percent(&self, flops: u64, bytes: u64, took: Duration) -> [f64; 2] {
        let per_second = |count: u64| 100.0 * count as f64 / took.as_secs_f64();
        [per_second(flops) / (1e12 * self.fma_tflops), per_second(bytes) / (1e9 * self.copy_gbps)]
    }
}

/// 10¹² operations in a second of a product `[m, n, k]`, verified first, and its kernel.
pub fn matmul(
    context: &Context,
    timer: &Timer,
    samples: Option<u32>,
    size: [u32; 3],
    dtype: DType,
    matrices: Matrices,
) -> Result<(f64, String), Failure> {
    let product = Product::new(context, size, dtype, matrices)?;
    let prepared = product.prepare()?;
    product.verify(&prepared)?;
    let (flops, kernel) = (prepared.plan().flops(), prepared.plan().kernel());
    let timed = timer.warm_up(prepared)?;
    let took = median(samples, || timed.sample())?;
    Ok((flops as f64 / took.as_secs_f64() * 1e-12, kernel))
}

/// Time of a copy of so many bytes.
fn copy(context: &Context, timer: &Timer, samples: Option<u32>, bytes: u64) -> Result<Duration, Failure> {
    let numbers: Vec<f32> = (0..bytes / 4).map(|i| (i % 8191) as f32).collect();
    let (source, target) = (context.upload(&numbers), context.allocate(numbers.len()));
    has_room([&source, &target], bytes)?;
    let workgroups = (bytes / 16).div_ceil(WORKGROUP);
    let grid = [workgroups.min(1 << 15) as u32, workgroups.div_ceil(1 << 15) as u32];
    let kernel = Kernel::new(context.device(), "copy", include_str!("copy.wgsl"), &[]);
    let copy = kernel.dispatch(context.device(), [&source, &target], grid);
    let took = least_of_calls(samples, |calls| timer.pass(|pass| (0..calls).for_each(|_| copy.record_in(pass))))?;
    if context.download(&target)? != numbers {
        return Err(Failure::Failed("the copy differs from its source".into()));
    }
    Ok(took)
}

/// Operations a second of `lanes` invocations that only multiply and add.
fn multiply_adds(context: &Context, timer: &Timer, samples: Option<u32>, lanes: u32) -> Result<f64, Failure> {
    let device = context.device();
    let sums = context.allocate(lanes as usize);
    has_room([&sums], 4 * u64::from(lanes))?;
    let kernel = Kernel::new(device, "multiply-adds", include_str!("fma.wgsl"), &[]);
    let grid = [lanes / WORKGROUP as u32, 1];
    // Gives the time of calls that take so many iterations.
    let of = |iterations: u32| {
        let contents = [0.5_f32.to_bits(), 0.5_f32.to_bits(), iterations, 0];
        let params = device.create_buffer_init(&wgpu::util::BufferInitDescriptor {
            label: Some("multiply-adds"),
            contents: &contents.map(u32::to_le_bytes).concat(),
            usage: wgpu::BufferUsages::UNIFORM,
        });
        let call = kernel.dispatch(device, [&params, &sums], grid);
        move |calls| timer.pass(|pass| (0..calls).for_each(|_| call.record_in(pass)))
    };
    let mut iterations = 16;
    // The first call may compile.
    of(iterations)(1)?;
    while iterations < 1 << 14 && of(iterations)(1)? < CALL {
        iterations *= 2;
    }
    let took = least_of_calls(samples, of(iterations))?;
    // x = x / 2 + 1 / 2 ends at 1.
    if context.download(&sums)?.iter().any(|sum| (sum - 12.0).abs() > 1e-4) {
        return Err(Failure::Failed("the multiply-adds gave a wrong sum".into()));
    }
    Ok(FLOPS_PER_ITERATION * f64::from(lanes) * f64::from(iterations) / took.as_secs_f64())
}

/// A buffer that the device had no room for is smaller than asked.
fn has_room<const COUNT: usize>(buffers: [&wgpu::Buffer; COUNT], bytes: u64) -> Result<(), Failure> {
    if buffers.iter().all(|buffer| buffer.size() >= bytes) {
        return Ok(());
    }
    Err(Failure::Refused(format!("the device has no room for a buffer of {bytes} bytes")))
}

/// Least time of a call: what the device can do is what it did at its best. `time` takes that of several calls in one pass.
fn least_of_calls(samples: Option<u32>, time: impl Fn(u32) -> Result<Duration, Failure>) -> Result<Duration, Failure> {
    time(1)?;
    let calls = CALL.as_secs_f64() / time(1)?.as_secs_f64().max(1e-9);
    let calls = (calls.ceil() as u32).clamp(1, MOST_CALLS);
    let taken = several(samples, || Ok(time(calls)? / calls))?;
    Ok(taken.into_iter().min().unwrap_or_default())
}

fn median(samples: Option<u32>, sample: impl Fn() -> Result<Duration, Failure>) -> Result<Duration, Failure> {
    Ok(timer::median(&mut several(samples, sample)?))
}

fn several(samples: Option<u32>, sample: impl Fn() -> Result<Duration, Failure>) -> Result<Vec<Duration>, Failure> {
    let start = Instant::now();
    let mut taken = Vec::new();
    let most = samples.unwrap_or(MOST_SAMPLES) as usize;
    let enough = |count: usize| samples.is_none() && count >= FEWEST_SAMPLES && start.elapsed() > SPENT;
    while taken.len() < most && !enough(taken.len()) {
        taken.push(sample()?);
    }
    Ok(taken)
}
