//! Matrix products, of a GAU's projections and square: `cargo bench --bench matmul`.

#[path = "../examples/ceilings/harness.rs"]
mod harness;
#[path = "../examples/ceilings/measure/product.rs"]
mod product;

use std::cell::OnceCell;
use std::io::Write;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use wgpu_attention::{Context, wgpu};

use harness::Failure;
use harness::timer::{Timed, Timer};
use product::Product;

/// `[m, n, k]` on a CPU adapter and on a GPU.
const ON_CPU: &[[u32; 3]] = &[[1, 768, 768], [512, 512, 512], [512, 1536, 768]];
const ON_GPU: &[[u32; 3]] = &[[1, 4096, 4096], [512, 1536, 768], [2048, 2048, 64], [4096, 4096, 4096]];

fn main() {
    let context = Context::headless().expect("the benches need an adapter; the README says how to get a software one");
    let is_cpu = context.device().adapter_info().device_type == wgpu::DeviceType::Cpu;
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    for &size in if is_cpu { ON_CPU } else { ON_GPU } {
        bench(&mut criterion, &context, size).unwrap_or_else(|failure| panic!("{size:?}: {failure}"));
    }
    criterion.final_summary();
}

/// One size. Nothing of it is made before criterion asks for it, which it does not if a filter leaves it out.
fn bench(criterion: &mut Criterion, context: &Context, size: [u32; 3]) -> Result<(), Failure> {
    let timer = Timer::new(context);
    let product: OnceCell<Product> = OnceCell::new();
    let timed: OnceCell<Timed<'_, '_>> = OnceCell::new();
    let set_up = || {
        let product = product.get_or_init(|| Product::new(context, size));
        let ready = product.prepare().and_then(|prepared| {
            product.verify(&prepared)?;
            timer.warm_up(prepared)
        });
        let timed = ready.unwrap_or_else(|failure| panic!("{size:?}: {failure}"));
        // With standard error closed there is nobody to tell.
        let _ = writeln!(std::io::stderr(), "{}: {:?} at best, warm", timer.name(), timed.took);
        timed
    };
    let [m, n, k] = size;
    let mut group = criterion.benchmark_group("matmul");
    group.throughput(Throughput::Elements(2 * u64::from(m) * u64::from(n) * u64::from(k)));
    group.bench_function(BenchmarkId::from_parameter(format!("{m}x{n}x{k}")), |bencher| {
        let timed = timed.get_or_init(set_up);
        bencher.iter_custom(|calls| {
            (0..calls).map(|_| timed.sample().unwrap_or_else(|failure| panic!("{size:?}: {failure}"))).sum()
        });
    });
    group.finish();
    Ok(())
}
