//! Few rows of a kv head, as in decoding, by a GPU's kernels.

use super::storage::Stored;
use super::*;

/// [`contexts`] but for a software driver's own kernels.
fn gpus() -> Vec<(&'static str, &'static Context)> {
    let own = usize::from(context().capabilities().is_cpu);
    contexts().into_iter().skip(own).collect()
}

/// A GPU's context with a bound on the keys of a range.
fn in_ranges(keys: u32) -> Context {
    context_with(ContextOptions { assume_gpu: true, max_keys_per_split: Some(keys), ..ContextOptions::default() })
}

impl Case {
    fn check_on_gpus(&self, what: &str, placement: Placement) {
        for (kernels, context) in gpus() {
            self.assert(&format!("{what}{kernels}, {placement:?}"), &self.run(context, placement));
        }
    }
}

/// One query of so many heads, and so many queries of one.
#[test]
fn every_number_of_rows() {
    let causal = AttentionConfig::new().causal(Causal::BottomRight);
    for rows in (1..=9).chain([15, 16, 17]) {
        for keys in [1, 2, 31, 32, 33, 63, 65, 130] {
            let heads = Case::new(AttentionConfig::new(), [2, 2 * rows, 2, 1, keys, 64, 64]);
            heads.check_on_gpus("heads", Placement::Aligned);
            Case::new(causal, [1, 1, 1, rows, keys, 64, 64]).check_on_gpus("queries", Placement::Aligned);
        }
    }
}

/// Of 1, 2 and 8 rows: each width, and each number of chunks that an invocation has.
#[test]
fn dims_around_every_chunk() {
    let dims = [[1, 256, 1], [3, 4, 8], [5, 31, 2], [33, 63, 1], [65, 32, 2], [80, 129, 8], [127, 96, 1], [256, 5, 2]];
    for [head_dim, v_dim, heads] in dims.into_iter().step_by(if compiles_slowly() { 3 } else { 1 }) {
        let case = Case::new(AttentionConfig::new(), [1, heads, 1, 1, 75, head_dim, v_dim]);
        case.check_on_gpus("one query", Placement::Aligned);
    }
}

#[test]
fn every_option_together() {
    for (rows, scale) in [(1, Scale::LOG_N), (2, Scale::PerRow), (4, Scale::PerRow), (7, Scale::LOG_N)] {
        let config = AttentionConfig::new().causal(Causal::BottomRight).window(Some(40), Some(2)).scale(scale);
        let sizes = [2, 2 * rows, 2, 1, 90, 20, 12];
        if rows < 4 {
            Case::new(config.softcap(3.0), sizes).with_lens(&[90, 51]).check_on_gpus("window", Placement::Odd);
        }
        let all = Case::new(config.softcap(3.0), sizes).with_lens(&[90, 51]);
        all.with_mask([1, 2 * rows, 1, 90]).with_bias([2, 1, 1, 90]).check_on_gpus("all", Placement::Aligned);
        // Several queries of several heads: each has its own diagonal, and the first row sees nothing.
        let heads = if rows == 7 { 1 } else { 2 };
        let queries = Case::new(config.softcap(3.0), [2, heads, 1, rows.div_ceil(heads), 90, 20, 12]);
        let queries = queries.with_lens(&[71, 3]).with_mask([1, heads, rows.div_ceil(heads), 90]);
        queries.with_bias([1, 1, 1, 90]).check_on_gpus("queries", Placement::Aligned);
    }
}

#[test]
fn every_causal_mask_and_scale() {
    for causal in CAUSALS {
        for scale in SCALES {
            let config = AttentionConfig::new().causal(causal).scale(scale);
            Case::new(config, [1, 2, 1, 3, 37, 8, 8]).check_on_gpus("more keys", Placement::Aligned);
            Case::new(config, [2, 2, 2, 7, 5, 8, 8]).with_lens(&[5, 0]).check_on_gpus("fewer keys", Placement::Aligned);
        }
    }
}

#[test]
fn ranges_of_thousands_of_keys() {
    for (heads, keys) in [(1, 5000), (8, 3001)] {
        let case = Case::new(AttentionConfig::new().scale(Scale::LOG_N), [2, heads, 1, 1, keys, 64, 64]);
        case.clone().with_lens(&[keys as u32, 130]).check_on_gpus("thousands", Placement::Aligned);
        for range in [1, 40, 1000] {
            case.assert("in ranges", &case.run(&in_ranges(range), Placement::Aligned));
        }
    }
}

#[test]
fn stored_in_16_bits() {
    use DType::{BF16, F16, F32};
    let halves = Stored { q: F16, k: F16, v: F16, bias: F16, row_scale: F16, o: F16 };
    let brains = Stored { q: BF16, k: BF16, v: BF16, bias: BF16, row_scale: BF16, o: BF16 };
    let all = [(1, halves), (8, brains), (1, Stored { o: F32, ..halves }), (2, Stored { v: F32, o: F32, ..brains })];
    for (rows, stored) in all {
        let placement = if stored.o == F32 { Placement::Odd } else { Placement::Aligned };
        let case = Case::new(AttentionConfig::new(), [2, 2 * rows, 2, 1, 133, 64, 64]).stored(stored);
        case.check_on_gpus("one query", placement);
    }
}

/// Scores that rise or fall along the keys, with a slope for each of neighbouring rows: a maximum that lags is the row's own matter.
#[test]
fn scores_that_rise() {
    let rising = |slopes: [f32; 8]| {
        let mut case = Case::new(AttentionConfig::new().scale(Scale::Fixed(1.0)), [1, 8, 1, 1, 400, 20, 32]);
        case.q.data.iter_mut().for_each(|x| *x *= 0.3);
        for (row, slope) in case.q.data.chunks_mut(20).zip(slopes) {
            row[0] = slope;
        }
        for (j, row) in case.k.data.chunks_mut(20).enumerate() {
            row[0] = 0.5 * j as f32 + if j >= 200 { 10.0 } else { 0.0 };
        }
        case
    };
    let steep = rising([-0.5, 0.02, 0.1, 0.9, 0.0, -0.1, 2.0, 0.3]);
    steep.check_on_gpus("rising", Placement::Aligned);
    steep.assert("in ranges", &steep.run(&in_ranges(50), Placement::Aligned));
    for (kernels, context) in gpus() {
        let [all, alone] = [steep.clone(), rising([0.0, 0.02, 0.0, 0.0, 0.0, 0.0, 0.0, 0.3])]
            .map(|case| case.run(context, Placement::Aligned));
        for (what, (all, alone)) in ["o", "lse", "entropy"].into_iter().zip(all.iter().zip(&alone)) {
            let width = all.len() / 8;
            for row in [1, 7] {
                let own = row * width..(row + 1) * width;
                assert_same_bits(&format!("{what}, row {row}{kernels}"), &all[own.clone()], &alone[own]);
            }
        }
    }
}

#[test]
fn a_rerun_gives_the_same_bits_in_any_dispatches() {
    let case = Case::new(AttentionConfig::new(), [2, 10, 2, 1, 700, 64, 64]);
    for (kernels, context) in gpus() {
        let first = case.run(context, Placement::Aligned);
        let options = ContextOptions { max_flops_per_dispatch: 2_000_000, ..context.capabilities().options };
        let little = Context::with_options(context.device().clone(), context.queue().clone(), options);
        for context in [context, context, &little] {
            for (a, b) in first.iter().zip(&case.run(context, Placement::Aligned)) {
                assert_same_bits(&format!("rerun{kernels}"), a, b);
            }
        }
    }
}

/// Keys and values that a row does not see: past the length or the diagonal, or by the mask.
#[test]
fn nan_in_what_is_hidden_changes_no_bit() {
    let config = AttentionConfig::new().causal(Causal::TopLeft).window(Some(50), None);
    let plain = Case::new(config, [2, 1, 1, 6, 90, 12, 12]).with_lens(&[23, 90]);
    let lone = Case::new(AttentionConfig::new(), [2, 1, 1, 1, 90, 12, 12]).with_lens(&[23, 61]);
    for clean in [plain.clone(), plain.with_mask([1, 1, 1, 90]), lone.clone(), lone.with_mask([1, 1, 1, 90])] {
        let (mut poisoned, rows) = (clean.clone(), clean.q.shape[2]);
        let causal = rows > 1;
        for b in 0..2 {
            for j in 0..90 {
                let masked = clean.mask.as_ref().is_some_and(|(mask, _)| mask[j] == 0);
                let hidden = j >= clean.kv_lens.as_ref().unwrap()[b] as usize || masked || (causal && j >= rows);
                for c in (0..12).filter(|_| hidden) {
                    *poisoned.k.at_mut([b, 0, j, c]) = if c % 2 == 0 { f32::NAN } else { f32::INFINITY };
                    *poisoned.v.at_mut([b, 0, j, c]) = if c % 2 == 0 { f32::INFINITY } else { f32::NAN };
                }
            }
        }
        // A key that only the last rows see.
        let seen = if causal && clean.mask.is_none() { 4 } else { rows };
        if seen < rows {
            *poisoned.v.at_mut([0, 0, 4, 2]) = f32::NAN;
            *poisoned.k.at_mut([1, 0, 4, 0]) = f32::NAN;
        }
        for (kernels, context) in gpus() {
            let [a, b] = [&clean, &poisoned].map(|case| case.run(context, Placement::Aligned));
            for (what, (a, b)) in ["o", "lse", "entropy"].into_iter().zip(a.iter().zip(&b)) {
                let width = a.len() / (2 * rows);
                for batch in 0..2 {
                    let own = batch * rows * width..(batch * rows + seen) * width;
                    assert_same_bits(&format!("{what}{kernels}"), &a[own.clone()], &b[own]);
                }
            }
            if seen < rows {
                assert!(b[0][4 * 12 + 2].is_nan() && b[1][6 + 4].is_nan(), "what a row sees comes out{kernels}");
                assert!(b[0][4 * 12 + 1].is_finite() && b[1][4].is_finite(), "and nothing else{kernels}");
            }
        }
    }
}

#[test]
fn ends_of_the_range_are_seen() {
    let config = AttentionConfig::new();
    for end in [-1e38, 1e38] {
        let mut case = Case::new(config, [1, 1, 1, 3, 40, 1, 1]).with_lens(&[39]);
        case.q = Tensor::filled(1.0, case.q.shape);
        case.k = Tensor::filled(end, case.k.shape);
        case.v = Tensor::filled(2.0, case.v.shape);
        let biased = Case { bias: Some(Tensor::filled(0.0, [1, 1, 3, 40])), ..case.clone() };
        for (kernels, context) in gpus() {
            for case in [&case, &biased] {
                let [o, lse, entropy] = case.run(context, Placement::Aligned);
                let close = |x: f32, want: f32| (x - want).abs() <= 1e-5 * want.abs();
                let right = |row| close(o[row], 2.0) && close(lse[row], end) && close(entropy[row], 39_f32.ln());
                assert!((0..3).all(right), "{end:e}{kernels}: {o:?}, {lse:?}, {entropy:?}");
            }
        }
    }
}
