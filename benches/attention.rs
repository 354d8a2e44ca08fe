//! Softmax attention with every scale, and beside a version in three dispatches: `cargo bench --bench attention`.

mod common;

use common::harness::tensors::Shape;

fn main() {
    let mut bench = common::Bench::new();
    bench.family(common::Family::Softmax);
    for head_dim in [64, 128] {
        let shape = Shape::new(2048, head_dim);
        for variant in ["softmax", "three_dispatches"] {
            bench.variant("prefill", &format!("2048x{head_dim}/{variant}"), variant, shape);
        }
    }
    bench.finish();
}
