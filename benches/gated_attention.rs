//! Gated attention: relu² attention, the GAU and mixed chunks, and stored in each type: `cargo bench --bench gated_attention`.

mod common;

fn main() {
    let mut bench = common::Bench::new();
    bench.family(common::Family::Gated);
    bench.types("gau");
    bench.finish();
}
