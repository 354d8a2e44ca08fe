//! Linear attention with every feature map, and stored in each type: `cargo bench --bench linear_attention`.

mod common;

fn main() {
    let mut bench = common::Bench::new();
    bench.family(common::Family::Linear);
    bench.types("linear_elu");
    bench.finish();
}
