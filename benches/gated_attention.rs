//! Gated attention: relu² attention, the GAU and mixed chunks: `cargo bench --bench gated_attention`.

mod common;

fn main() {
    common::bench(common::Family::Gated);
}
