//! Gated attention: relu² attention, the GAU and mixed chunks, and stored in each type; and their gradients:
//! `cargo bench --bench gated_attention`.

mod common;

fn main() {
    let mut bench = common::Bench::new();
    bench.family(common::Family::Gated);
    bench.types("gau");
    bench.gradients_of(common::Family::Gated);
    for dtype in common::TYPES {
        bench.gradients("backward of a type", "gau", dtype);
    }
    bench.finish();
}
