//! Linear attention with every feature map: `cargo bench --bench linear_attention`.

mod common;

fn main() {
    common::bench(common::Family::Linear);
}
