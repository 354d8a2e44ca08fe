//! What only the tiles of a GPU's kernels have: edges of blocks and slabs, heads that share a tile, chunks shorter than one.
//! Software drivers run those kernels too, llvmpipe twice: with what any device grants, and with what this one does.

use super::*;

fn check_on_gpus(case: &Case, what: &str) {
    let all = contexts();
    for (kernels, context) in &all[all.len().min(2) - 1..] {
        case.assert(&format!("{what}{kernels}"), &case.run(context, Placement::Aligned));
    }
}

#[test]
fn widths_around_slabs_and_blocks() {
    let [squared_relu, row_sum, softmax, mixed] = each_kernel();
    for (config, len, sizes) in [
        (squared_relu, 70, [(1, 1), (5, 66), (20, 130), (130, 260)].as_slice()),
        (row_sum, 20, &[(3, 70)]),
        (softmax, 70, &[(33, 128), (8, 257)]),
        (softmax, 5, &[(256, 300)]),
        (mixed, 40, &[(5, 1), (65, 70), (8, 300), (130, 520)]),
    ] {
        for &(key_dim, v_dim) in sizes {
            check_on_gpus(&Case::new(config, Source::Shared, square(len, key_dim, v_dim)).gated(), "widths");
        }
    }
}

#[test]
fn rows_around_every_tile() {
    let [squared_relu, _, softmax, _] = each_kernel();
    for (config, v_dims) in [(squared_relu, [8, 132]), (softmax, [8, 132])] {
        for (v_dim, lens) in v_dims.into_iter().zip([[15, 17, 63, 65, 129, 131], [16, 18, 64, 66, 128, 130]]) {
            for len in lens {
                let config = config.causal(Causal::TopLeft).window(Some(len as u32 / 2 + 9), None);
                check_on_gpus(&Case::new(config, Source::Given, [1, 2, 2, len, len, 8, v_dim]), "rows");
            }
        }
    }
}

#[test]
fn chunks_around_every_tile() {
    let [.., mixed] = each_kernel();
    let GauMode::MixedChunk { quadratic, linear, .. } = mixed.mode else { panic!("the last has chunks") };
    for (v_dim, chunks) in [(8, [1, 15, 17, 64, 65, 130]), (132, [3, 16, 20, 65, 100, 128])] {
        for chunk in chunks {
            for causal in [Causal::None, Causal::TopLeft] {
                let config = mixed.mode(GauMode::MixedChunk { chunk, quadratic, linear }).causal(causal);
                let case = Case::new(config, Source::Given, [2, 2, 1, 140, 140, 8, v_dim]).gated();
                check_on_gpus(&case.with_lens(&[140, 66]), "chunks");
            }
        }
    }
}

#[test]
fn heads_that_share_a_tile_get_the_bits_of_repeated_ones() {
    let [squared_relu, _, softmax, _] = each_kernel();
    for config in [squared_relu, softmax] {
        let config = config.causal(Causal::TopLeft).window(Some(13), None);
        for (kv_heads, len, v_dim) in [(1, 3, 8), (2, 19, 8), (1, 40, 132)] {
            let grouped = Case::new(config, Source::Given, [2, 4, kv_heads, len, len, 8, v_dim]);
            let mut repeated = grouped.clone();
            repeated.keys[1] = grouped.keys[1].repeat_heads(4 / kv_heads);
            repeated.v = grouped.v.repeat_heads(4 / kv_heads);
            check_on_gpus(&grouped, "grouped");
            assert_same_by_every_kernel("grouped heads", [&grouped, &repeated]);
        }
    }
}

#[test]
fn ranges_of_keys_that_occupy_a_gpu_are_combined() {
    let [squared_relu, row_sum, softmax, _] = each_kernel();
    for (config, sizes) in [
        (squared_relu, [1, 1, 1, 20, 700, 8, 300]),
        (row_sum, [1, 2, 1, 3, 520, 8, 5]),
        (softmax, [2, 1, 1, 40, 600, 8, 20]),
    ] {
        let case = Case::new(config.causal(Causal::BottomRight), Source::Given, sizes).gated();
        check_on_gpus(&case, "ranges");
    }
}
