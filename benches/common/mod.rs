//! What the benches share: verified first, then timed on the device under criterion, then read against the ceilings.

#![allow(unused, reason = "no bench uses all of it; the examples use the rest")]

#[path = "../../examples/ceilings/measure/mod.rs"]
pub mod ceilings;
#[path = "../../examples/compare/harness/mod.rs"]
pub mod harness;

use std::cell::OnceCell;
use std::io::Write;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use wgpu_attention::{Context, ContextOptions, DType, Matrices, wgpu};

use ceilings::Ceilings;
use harness::Failure;
use harness::case::{Case, case};
use harness::gradients::Gradients;
use harness::tensors::{HostTensors, Shape, Tensors};
use harness::timer::{Timed, Timer, median};
pub use harness::variants::Family;
use harness::variants::{Kind, VARIANTS, Variant};
use harness::verify::verify;

/// What operands may be stored as.
pub const TYPES: [DType; 3] = [DType::F32, DType::F16, DType::BF16];
/// Lengths on a CPU adapter and on a GPU.
const ON_CPU: &[u32] = &[256, 1024];
const ON_GPU: &[u32] = &[1024, 4096, 16384];

/// Criterion, on the adapter that wgpu ranks first.
pub struct Bench {
    criterion: Criterion,
    pub context: Context,
    /// Measured when the first case needs them.
    ceilings: OnceCell<Ceilings>,
}

impl Bench {
    pub fn new() -> Self {
        let context = Context::headless_with_matrices("", ContextOptions::default());
        let context = context.expect("the benches need an adapter; the README says how to get a software one");
        let criterion = Criterion::default()
            .sample_size(10)
            .warm_up_time(Duration::from_millis(500))
            .measurement_time(Duration::from_secs(2))
            .configure_from_args();
        Self { criterion, context, ceilings: OnceCell::new() }
    }

    pub fn on_cpu(&self) -> bool {
        self.context.device().adapter_info().device_type == wgpu::DeviceType::Cpu
    }

    pub fn finish(mut self) {
        self.criterion.final_summary();
    }

    /// Every variant of a family that holds no scores in memory, at every length. `cargo bench -- NAME` picks some of them.
    pub fn family(&mut self, family: Family) {
        let lengths = if self.on_cpu() { ON_CPU } else { ON_GPU };
        let fits = |variant: &&Variant| variant.family() == family && !matches!(variant.kind, Kind::ThreeDispatches);
        for variant in VARIANTS.iter().filter(fits) {
            for &len in lengths {
                self.variant(variant.name, &len.to_string(), variant.name, Shape::new(len, 64));
            }
        }
    }

    /// A variant on 1024 tokens in every type, and once more by cooperative matrices where device and op have them.
    pub fn types(&mut self, name: &str) {
        let linear = VARIANTS.iter().any(|variant| variant.name == name && variant.family() == Family::Linear);
        for (matrices, by) in self.tiers().into_iter().filter(|(matrices, _)| *matrices == Matrices::None || !linear) {
            for dtype in TYPES {
                let id = format!("1024x64/{}{by}", harness::stored::name(dtype));
                let shape = Shape { dtype, matrices, ..Shape::new(1024, 64) };
                self.variant(&format!("{name} of a type"), &id, name, shape);
            }
        }
    }

    /// Without cooperative matrices, and with them where the device has some; and how a case's name ends.
    pub fn tiers(&self) -> Vec<(Matrices, &'static str)> {
        let offered = !self.context.capabilities().options.matrix_sizes.is_empty();
        let by_matrices = offered.then_some((Matrices::F16, ", by matrices"));
        [(Matrices::None, "")].into_iter().chain(by_matrices).collect()
    }

    /// A variant, by name, on random tensors of a shape.
    pub fn variant(&mut self, group: &str, id: &str, name: &str, shape: Shape) {
        let variant = VARIANTS.iter().find(|variant| variant.name == name).expect("a name from the table");
        let context = self.context.clone();
        let timer = Timer::new(&context);
        let tensors: OnceCell<Tensors> = OnceCell::new();
        let prepared: OnceCell<Box<dyn Case + '_>> = OnceCell::new();
        let set_up = || {
            Tensors::check(&context, &shape)?;
            let made = Tensors::upload(&context, shape, HostTensors::random(&shape))?;
            let tensors = tensors.get_or_init(|| made);
            let made = case(&context, variant, tensors)?;
            let case = prepared.get_or_init(|| made);
            let checked = verify(&context, &**case, tensors)?;
            say(&format!("{}\n{checked}", variant.formula));
            timer.warm_up(case.prepare()?)
        };
        self.time(group, id, Throughput::Elements(shape.len.into()), set_up);
    }

    /// The gradients of a variant, by name, on tensors stored so.
    pub fn gradients(&mut self, group: &str, name: &str, dtype: DType) {
        let variant = VARIANTS.iter().find(|variant| variant.name == name).expect("a name from the table");
        let context = self.context.clone();
        let timer = Timer::new(&context);
        let len = if self.on_cpu() { 256 } else { 1024 };
        let shape = Shape { dtype, ..Shape::new(len, 64) };
        let tensors: OnceCell<Tensors> = OnceCell::new();
        let prepared: OnceCell<Gradients<'_>> = OnceCell::new();
        let set_up = || {
            let made = Gradients::tensors(&context, shape)?;
            let tensors = tensors.get_or_init(|| made);
            let made = Gradients::new(&context, variant, tensors)?;
            let gradients = prepared.get_or_init(|| made);
            let checked = gradients.verify(&context)?;
            say(&format!("{}\n{checked}", variant.formula));
            timer.warm_up(gradients.backward()?)
        };
        let id = format!("{len}x64/{}", harness::stored::name(dtype));
        self.time(group, &id, Throughput::Elements(len.into()), set_up);
    }

    /// The gradients of every variant of a family in f32.
    pub fn gradients_of(&mut self, family: Family) {
        let has = |variant: &&Variant| variant.family() == family && variant.without_gradients().is_none();
        for variant in VARIANTS.iter().filter(has) {
            self.gradients(&format!("{} backward", variant.name), variant.name, DType::F32);
        }
    }

    /// One case. `set_up` verifies it and warms it up, once, when criterion asks for it, which it does not if a filter
    /// leaves it out.
    pub fn time<'t, 'a>(
        &mut self,
        group: &str,
        id: &str,
        throughput: Throughput,
        set_up: impl Fn() -> Result<Timed<'t, 'a>, Failure>,
    ) where
        'a: 't,
    {
        let fail = |failure| -> ! { panic!("{group}/{id}: {failure}") };
        let timed: OnceCell<Timed<'t, 'a>> = OnceCell::new();
        let mut samples = Vec::new();
        let mut criterion = self.criterion.benchmark_group(group);
        criterion.throughput(throughput);
        criterion.bench_function(BenchmarkId::from_parameter(id), |bencher| {
            let timed = timed.get_or_init(|| set_up().unwrap_or_else(|failure| fail(failure)));
            bencher.iter_custom(|calls| {
                let new = (0..calls).map(|_| timed.sample().unwrap_or_else(|failure| fail(failure)));
                let first = samples.len();
                samples.extend(new);
                samples[first..].iter().sum()
            });
        });
        criterion.finish();
        let Some(Timed { call, .. }) = timed.get() else { return };
        let ceilings = self.ceilings.get_or_init(|| {
            Ceilings::measure(&self.context, &Timer::new(&self.context), None).unwrap_or_else(|failure| fail(failure))
        });
        let took = median(&mut samples);
        let [of_fma, of_copy] = ceilings.percent(call.flops(), call.bytes, took);
        say(&format!(
            "{group}/{id}: median {took:.2?}, {of_fma:.1} % of the multiply-adds, {of_copy:.1} % of the copy; {}",
            call.kernel()
        ));
    }
}

/// To standard error; when that is closed there is nobody to tell.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
