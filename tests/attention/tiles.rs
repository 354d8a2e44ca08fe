//! Head dims and numbers of queries around every tile.

use std::ops::RangeInclusive;

use super::*;

#[test]
fn every_head_dim_to_64() {
    check_head_dims(1..=64);
}

#[test]
fn every_head_dim_above_64() {
    check_head_dims(65..=256);
}

fn check_head_dims(range: RangeInclusive<usize>) {
    let all = (1..=20).chain([31, 32, 33, 63, 64, 65, 72, 80, 96, 111, 127, 128, 129, 130, 160, 192, 255, 256]);
    let all = all.filter(|dim| range.contains(dim));
    for dim in all.step_by(if compiles_slowly() { 3 } else { 1 }) {
        for v_dim in [dim, 257 - dim] {
            let case = Case::new(AttentionConfig::new(), [1, 1, 1, 5, 11, dim, v_dim]);
            // Software drivers take a second to compile each of a GPU's kernels: some dims of every number of columns.
            if [1, 3, 33, 64, 130, 256].contains(&dim) {
                case.check_portable("both");
            } else {
                case.check_own("this adapter");
            }
        }
    }
}

/// From 64 queries on, llvmpipe has kernels of its own.
#[test]
fn more_queries_at_head_dims_around_every_tile() {
    let all = [(1, 3), (20, 32), (64, 64), (63, 66), (96, 80), (97, 97), (128, 128), (64, 160), (161, 8)];
    for (head_dim, v_dim) in all.into_iter().step_by(if compiles_slowly() { 2 } else { 1 }) {
        let config = AttentionConfig::new().causal(Causal::BottomRight);
        let sizes = [1, 2, 1, 70, 90, head_dim, v_dim];
        Case::new(config, sizes).check_portable("causal");
        let config = config.window(Some(40), Some(3)).scale(Scale::LOG_N).softcap(4.0);
        let all = Case::new(config, sizes).with_lens(&[83]).with_mask([1, 2, 70, 90]).with_bias([1, 1, 70, 90]);
        all.check_portable("all");
        if [3, 66].contains(&v_dim) {
            all.check_on_matrices("all");
        }
    }
}

/// From 256 queries on, llvmpipe that compiles arrays slowly has a kernel of its own.
#[test]
fn hundreds_of_queries_with_every_option() {
    for (head_dim, v_dim) in [(20, 32), (13, 7)] {
        let config = AttentionConfig::new().causal(Causal::BottomRight);
        let sizes = [1, 2, 1, 261, 70, head_dim, v_dim];
        Case::new(config, sizes).check_own("causal");
        let config = config.window(Some(40), Some(3)).scale(Scale::LOG_N).softcap(4.0);
        let all = Case::new(config, sizes).with_lens(&[63]).with_mask([1, 2, 261, 70]).with_bias([1, 1, 261, 70]);
        all.check_own("all");
    }
}

/// Scores that rise or fall along the keys, with a slope for each of four neighbouring rows. A kernel may leave what it has summed relative to an
/// older maximum while the scores rise by little; whether it does is a row's own matter, whatever its neighbours are.
#[test]
fn rows_whose_scores_rise() {
    let rising = |slopes: [f32; 4]| {
        let mut case = Case::new(AttentionConfig::new().scale(Scale::Fixed(1.0)), [1, 1, 1, 264, 120, 20, 32]);
        case.q.data.iter_mut().for_each(|x| *x *= 0.3);
        for (i, row) in case.q.data.chunks_mut(20).enumerate() {
            row[0] = slopes[i % 4];
        }
        for (j, row) in case.k.data.chunks_mut(20).enumerate() {
            row[0] = j as f32 + if j >= 50 { 10.0 } else { 0.0 };
        }
        case
    };
    let steep = rising([-0.5, 0.02, 0.1, 0.9]);
    steep.check_portable("rising");
    steep.assert("scalar loads", &steep.run(context(), Placement::Odd));
    let in_ranges = context_with(ContextOptions { max_keys_per_split: Some(24), ..ContextOptions::default() });
    steep.assert("in ranges", &steep.run(&in_ranges, Placement::Aligned));
    let rows = steep.run(context(), Placement::Aligned);
    let alone = rising([0.0, 0.02, 0.0, 0.0]).run(context(), Placement::Aligned);
    for (what, [rows, alone]) in ["o", "lse", "entropy"].into_iter().zip([0, 1, 2].map(|i| [&rows[i], &alone[i]])) {
        let width = rows.len() / 264;
        let seconds = |data: &[f32]| data.chunks(width).skip(1).step_by(4).flatten().copied().collect::<Vec<_>>();
        assert_same_bits(what, &seconds(rows), &seconds(alone));
    }
}

#[test]
fn every_size_and_sign_of_scale_over_ranges_that_hold_no_key() {
    let scaled = Scale::ScalableSoftmax { s: 0.43, inv_sqrt_dim: false };
    for scale in [Scale::InvSqrtDim, Scale::Fixed(0.0), Scale::Fixed(2.5), Scale::Fixed(-0.5), scaled, Scale::PerRow] {
        let case = Case::new(AttentionConfig::new().scale(scale), [3, 2, 1, 20, 400, 8, 8]).with_lens(&[30, 0, 200]);
        for (by, context) in contexts() {
            let options = ContextOptions { max_keys_per_split: Some(64), ..context.capabilities().options };
            let ranges = Context::with_options(context.device().clone(), context.queue().clone(), options);
            for (how, context) in [("", context), (", in ranges", &ranges)] {
                case.assert(&format!("{scale:?}{by}{how}"), &case.run(context, Placement::Aligned));
            }
        }
    }
}
