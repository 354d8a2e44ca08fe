//! The cases of `examples/compare` under criterion: verified first, then timed on the GPU.

#[path = "../../examples/compare/harness/mod.rs"]
mod harness;

use std::cell::OnceCell;
use std::io::Write;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use wgpu_attention::{Context, wgpu};

use harness::case::{Case, case};
use harness::tensors::{HostTensors, Shape, Tensors};
use harness::timer::{Timed, Timer};
pub use harness::variants::Family;
use harness::variants::{VARIANTS, Variant};
use harness::verify::verify;

/// Lengths on a CPU adapter and on a GPU.
const ON_CPU: &[u32] = &[256, 1024];
const ON_GPU: &[u32] = &[1024, 4096, 16384];

/// Every variant of a family. `cargo bench -- NAME` picks some of them.
pub fn bench(family: Family) {
    let context = Context::headless().expect("the benches need an adapter; the README says how to get a software one");
    let info = context.device().adapter_info();
    let lengths = if info.device_type == wgpu::DeviceType::Cpu { ON_CPU } else { ON_GPU };
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    for variant in VARIANTS.iter().filter(|variant| variant.family() == family) {
        for &len in lengths {
            bench_case(&mut criterion, &context, variant, len);
        }
    }
    criterion.final_summary();
}

/// One case. Nothing of it is made before criterion asks for it, which it does not if a filter leaves it out.
fn bench_case(criterion: &mut Criterion, context: &Context, variant: &Variant, len: u32) {
    let shape = Shape { batch: 1, heads: 8, kv_heads: 8, len, head_dim: 64, causal: false };
    let timer = Timer::new(context);
    let tensors: OnceCell<Tensors> = OnceCell::new();
    let prepared: OnceCell<Box<dyn Case + '_>> = OnceCell::new();
    let timed: OnceCell<Timed<'_, '_>> = OnceCell::new();
    let set_up = || {
        let tensors = tensors.get_or_init(|| {
            Tensors::check(context, &shape)
                .and_then(|()| Tensors::upload(context, shape, HostTensors::random(&shape)))
                .unwrap_or_else(|failure| panic!("{} at n = {len}: {failure}", variant.name))
        });
        let case = prepared.get_or_init(|| {
            case(context, variant, tensors).unwrap_or_else(|error| panic!("{} at n = {len}: {error}", variant.name))
        });
        let checked = verify(context, &**case, tensors);
        let ready = checked.and_then(|checked| Ok((checked, timer.warm_up(case.prepare()?)?)));
        let (checked, timed) = ready.unwrap_or_else(|failure| panic!("{} at n = {len}: {failure}", variant.name));
        // With standard error closed there is nobody to tell.
        let _ = writeln!(std::io::stderr(), "{}\n{}: {checked}", variant.formula, timer.name());
        timed
    };
    let mut group = criterion.benchmark_group(variant.name);
    group.throughput(Throughput::Elements(len.into()));
    group.bench_function(BenchmarkId::from_parameter(len), |bencher| {
        let timed = timed.get_or_init(set_up);
        bencher.iter_custom(|calls| {
            (0..calls).map(|_| timed.sample().unwrap_or_else(|failure| panic!("{}: {failure}", variant.name))).sum()
        });
    });
    group.finish();
}
