//! Softmax attention with every scale: `cargo bench --bench attention`.

mod common;

fn main() {
    common::bench(common::Family::Softmax);
}
