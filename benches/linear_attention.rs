//! Linear attention with every feature map: `cargo bench --bench linear_attention`.

mod common;

fn main() {
    let mut bench = common::Bench::new();
    bench.family(common::Family::Linear);
    bench.finish();
}
