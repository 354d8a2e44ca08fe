//! Matrix products, of a GAU's projections and square: `cargo bench --bench matmul`.

mod common;

use std::cell::OnceCell;

use common::ceilings::product::Product;
use common::harness::timer::Timer;
use criterion::Throughput;

/// `[m, n, k]` on a CPU adapter and on a GPU.
const ON_CPU: &[[u32; 3]] = &[[1, 768, 768], [16, 64, 16384], [512, 512, 512], [512, 1536, 768]];
const ON_GPU: &[[u32; 3]] = &[[1, 4096, 4096], [512, 1536, 768], [2048, 2048, 64], [4096, 4096, 4096]];

fn main() {
    let mut bench = common::Bench::new();
    for &size in if bench.on_cpu() { ON_CPU } else { ON_GPU } {
        let context = bench.context.clone();
        let timer = Timer::new(&context);
        let product: OnceCell<Product> = OnceCell::new();
        let set_up = || {
            let product = product.get_or_init(|| Product::new(&context, size));
            let prepared = product.prepare()?;
            product.verify(&prepared)?;
            timer.warm_up(prepared)
        };
        let [m, n, k] = size;
        let flops = 2 * u64::from(m) * u64::from(n) * u64::from(k);
        bench.time("matmul", &format!("{m}x{n}x{k}"), Throughput::Elements(flops), set_up);
    }
    bench.finish();
}
