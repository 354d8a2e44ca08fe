//! Matrix products, of a GAU's projections and square, in each type and tier: `cargo bench --bench matmul`.

mod common;

use std::cell::OnceCell;

use common::Bench;
use common::ceilings::product::Product;
use common::harness::stored;
use common::harness::timer::Timer;
use criterion::Throughput;
use wgpu_attention::{Context, ContextOptions, DType, Matrices};

/// `[m, n, k]` on a CPU adapter and on a GPU; of the first, tiles are so few that k is cut into ranges.
const ON_CPU: [[u32; 3]; 4] = [[16, 64, 16_384], [1, 768, 768], [512, 512, 512], [512, 1536, 768]];
const ON_GPU: [[u32; 3]; 4] = [[1, 4096, 4096], [512, 1536, 768], [2048, 2048, 64], [4096, 4096, 4096]];

fn main() {
    let mut bench = Bench::new();
    let context = bench.context.clone();
    let sizes = if bench.on_cpu() { ON_CPU } else { ON_GPU };
    for size in sizes {
        time(&mut bench, &context, size, (DType::F32, Matrices::None), "");
    }
    for (matrices, by) in bench.tiers() {
        for dtype in common::TYPES {
            let how = format!(", {}{by}", stored::name(dtype));
            time(&mut bench, &context, sizes[3], (dtype, matrices), &how);
        }
    }
    // Without a workspace there are no ranges.
    let options = ContextOptions { max_workspace_bytes: 0, ..context.capabilities().options };
    let whole = Context::with_options(context.device().clone(), context.queue().clone(), options);
    time(&mut bench, &whole, sizes[0], (DType::F32, Matrices::None), ", k whole");
    bench.finish();
}

/// One size, verified and then timed.
fn time(bench: &mut Bench, context: &Context, size: [u32; 3], (dtype, matrices): (DType, Matrices), how: &str) {
    let timer = Timer::new(context);
    let product: OnceCell<Product> = OnceCell::new();
    let set_up = || {
        let made = Product::new(context, size, dtype, matrices)?;
        let product = product.get_or_init(|| made);
        let prepared = product.prepare()?;
        product.verify(&prepared)?;
        timer.warm_up(prepared)
    };
    let [m, n, k] = size;
    let flops = 2 * u64::from(m) * u64::from(n) * u64::from(k);
    bench.time("matmul", &format!("{m}x{n}x{k}{how}"), Throughput::Elements(flops), set_up);
}
