//! Scores far from 0.

use wgpu_attention::half::bf16;

use super::common::{contexts, matrices};
use super::*;

/// A whole row of a mask's -65504, as one in f16 has it, rounds scores to multiples of 1/256. No more than that may be lost.
#[test]
fn a_bias_over_a_whole_row_loses_what_it_loses_in_plain_f32() {
    let mut case = Case::new(AttentionConfig::new(), [1, 2, 2, 70, 90, 32, 16]).with_bias([1, 1, 70, 90]);
    case.bias = Some(Tensor::filled(-65504.0, [1, 1, 70, 90]));
    let inputs = case.host();
    let want = reference::attention(&case.config, &inputs).unwrap();
    let largest = |o: &[f32]| o.iter().zip(&want.o).map(|(&x, w)| (f64::from(x) - w).abs()).fold(0.0, f64::max);
    let plain = (0..NAIVE_RUNS).map(|seed| {
        let order = SumOrder::Shuffled(seed);
        largest(&reference::attention_in::<f32>(&case.config, &inputs, order).unwrap().o)
    });
    let plain = plain.fold(0.0, f64::max);
    for (kernels, context) in contexts() {
        let lost = largest(&case.run(context, Placement::Aligned)[0]);
        assert!(lost <= 1.01 * plain, "{lost:.3e} is lost{kernels}, {plain:.3e} in plain f32");
    }
}

/// One query or `rows` of them, keys along one dim, and values of their own.
fn keys_and_values(config: AttentionConfig, rows: usize, q: f32, k: &[f32], v: &[f32]) -> Case {
    let mut case = Case::new(config, [1, 1, 1, rows, k.len(), 1, 1]);
    case.q.data.fill(q);
    case.k.data.copy_from_slice(k);
    case.v.data.copy_from_slice(v);
    case
}

impl Case {
    /// By every kernel of the config, and by the twin; each row the same.
    fn check_rows(&self, what: &str, want: [f64; 3]) {
        for (kernels, context) in self.contexts() {
            let got = self.run(context, Placement::Aligned);
            assert_rows(&format!("{what}{kernels}"), &got.map(|got| got.into_iter().map(f64::from).collect()), want);
        }
        let twin = reference::attention(&self.config, &self.host()).unwrap();
        assert_rows(&format!("{what}, the twin"), &[twin.o, twin.lse, twin.entropy], want);
    }

    /// The same, and with every key alone in its range.
    fn check_ranges(&self, what: &str, want: [f64; 3]) {
        self.check_rows(what, want);
        for (kernels, context) in self.contexts() {
            let options = ContextOptions { max_keys_per_split: Some(1), ..context.capabilities().options };
            let ranges = Context::with_options(context.device().clone(), context.queue().clone(), options);
            let got = self.run(&ranges, Placement::Aligned);
            assert_rows(
                &format!("{what}, in ranges{kernels}"),
                &got.map(|got| got.into_iter().map(f64::from).collect()),
                want,
            );
        }
    }

    fn contexts(&self) -> Vec<(&'static str, &'static Context)> {
        match self.config.matrices {
            Matrices::F16 => matrices().map(|context| (", by matrices", context)).into_iter().collect(),
            _ => contexts(),
        }
    }
}

fn assert_rows(what: &str, got: &[Vec<f64>; 3], want: [f64; 3]) {
    for (name, (got, want)) in ["o", "lse", "entropy"].into_iter().zip(got.iter().zip(want)) {
        let close = |x: &f64| (x - want).abs() <= 1e-6 + 1e-5 * want.abs();
        assert!(got.iter().all(close), "{what}: {name} is {got:?}, should be {want}");
    }
}

#[test]
fn scores_of_any_size_are_seen() {
    let plain = AttentionConfig::new();
    let (k, v) = ([1e14, 2e14], [1.0, 2.0]);
    let want = [1.0, -1e28, 0.0];
    let case = |config| keys_and_values(config, 3, -1e14, &k, &v);
    case(plain).check_ranges("plain", want);
    let mut masked = case(plain);
    masked.mask = Some((vec![1; 6], [1, 1, 3, 2]));
    masked.check_rows("all-true mask", want);
    let mut biased = case(plain);
    biased.bias = Some(Tensor::filled(0.0, [1, 1, 3, 2]));
    biased.check_rows("bias of 0", want);
    // cap tanh(s / cap), of a hundredth.
    case(plain.softcap(1e30)).check_rows("softcap", [1.0, -1e30 * 0.01_f64.tanh(), 0.0]);
    let stored = f64::from(bf16::from_f32(1e14));
    case(plain).stored(Stored::BF16).check_rows("bf16", [1.0, -stored * stored, 0.0]);
    // The ends of the range: whatever a row sees is above what it does not.
    for end in [-1e38, 1e38] {
        let case = keys_and_values(plain, 3, 1.0, &[end, end, end, end], &[1.0, 2.0, 3.0, 6.0]);
        case.clone().with_lens(&[3]).check_ranges("an end of the range", [2.0, end.into(), 3.0_f64.ln()]);
        let mut biased = case.with_lens(&[3]);
        biased.bias = Some(Tensor::filled(0.0, [1, 1, 3, 4]));
        biased.check_ranges("an end of the range, with bias", [2.0, end.into(), 3.0_f64.ln()]);
    }
    let both = keys_and_values(plain, 3, 1.0, &[-1e38, 1e38, 1e38, -1e38], &[9.0, 1.0, 3.0, 9.0]);
    both.check_ranges("both ends", [2.0, 1e38, 2.0_f64.ln()]);
}

/// From 64 queries and 2048 keys on, llvmpipe has a kernel of its own.
#[test]
fn thousands_of_low_scores_are_seen() {
    let v: Vec<f32> = (0..4000).map(|j| (j % 2) as f32).collect();
    let case = keys_and_values(AttentionConfig::new(), 70, -1e14, &[1e14; 4000], &v);
    for (kernels, context) in contexts() {
        let [o, lse, entropy] = case.run(context, Placement::Aligned);
        for row in 0..70 {
            assert!((o[row] - 0.5).abs() < 1e-5, "o{kernels}: {}", o[row]);
            assert!((lse[row] + 1e28).abs() < 1e22, "lse{kernels}: {}", lse[row]);
            assert!((entropy[row] - 4000_f32.ln()).abs() < 1e-4, "entropy{kernels}: {}", entropy[row]);
        }
    }
}

#[test]
fn low_scores_are_seen_on_matrices() {
    let config = AttentionConfig::new().scale(Scale::Fixed(1e28)).matrices(Matrices::F16);
    let case = keys_and_values(config, 3, -1.0, &[1.0, 2.0], &[1.0, 2.0]);
    case.check_ranges("low", [1.0, -1e28, 0.0]);
    case.with_lens(&[1]).check_ranges("low, one key", [1.0, -1e28, 0.0]);
}

/// As the first token meets an empty cache.
#[test]
fn rows_of_no_keys_are_written() {
    let sizes = [2, 2, 1, 3, 0, 8, 6];
    let plain = Case::new(AttentionConfig::new(), sizes);
    let scaled = Case::new(AttentionConfig::new().scale(Scale::LOG_N).causal(Causal::BottomRight), sizes);
    // More operands than a default device has bindings.
    let per_row = AttentionConfig::new().scale(Scale::PerRow).softcap(2.0);
    let all = Case::new(per_row, sizes).with_lens(&[0, 3]).with_bias([2, 2, 3, 0]).with_mask([2, 2, 3, 0]);
    let stored = plain.clone().stored(Stored { o: DType::F16, ..Stored::BF16 });
    for (what, case) in [("plain", plain), ("scaled", scaled), ("all", all), ("stored", stored)] {
        for (kernels, context) in contexts() {
            for placement in [Placement::Aligned, Placement::Interleaved { gap: 2 }] {
                let [o, lse, entropy] = case.run(context, placement);
                let what = format!("{what}{kernels}, {placement:?}");
                case.assert(&what, &[o.clone(), lse, entropy.clone()]);
                assert!(o.iter().chain(&entropy).all(|x| x.to_bits() == 0), "{what}: {o:?}, {entropy:?}");
            }
        }
        let twin = reference::attention(&case.config, &case.host()).unwrap();
        assert_eq!((twin.o, twin.lse), (vec![0.0; 72], vec![f64::NEG_INFINITY; 12]), "{what}: the twin");
    }
    if let Some(context) = matrices() {
        let case = Case::new(AttentionConfig::new(), sizes).on_matrices();
        case.assert("by matrices", &case.run(context, Placement::Aligned));
    }
}

/// One number of a query, a key, a bias, a scale, or a value that rows see.
#[test]
fn nan_comes_out() {
    let causal = AttentionConfig::new().causal(Causal::TopLeft);
    for (config, biased) in [(causal, false), (causal.softcap(3.0), false), (causal.scale(Scale::PerRow), true)] {
        for nan in [f32::NAN, -f32::NAN] {
            let mut clean = Case::new(config, [1, 1, 1, 9, 9, 8, 8]);
            if biased {
                clean = clean.with_bias([1, 1, 9, 9]);
            }
            let [mut query, mut key, mut bias, mut scale, mut value] = [0; 5].map(|_| clean.clone());
            *query.q.at_mut([0, 0, 4, 5]) = nan;
            *key.k.at_mut([0, 0, 4, 5]) = nan;
            *value.v.at_mut([0, 0, 4, 5]) = nan;
            let mut cases = vec![("q", query, 4..5), ("k", key, 4..9)];
            if biased {
                *bias.bias.as_mut().unwrap().at_mut([0, 0, 4, 3]) = nan;
                *scale.row_scale.as_mut().unwrap().at_mut([0, 0, 4]) = nan;
                cases.extend([("bias", bias, 4..5), ("scale", scale, 4..5)]);
            }
            for (kernels, context) in contexts() {
                for (what, case, rows) in &cases {
                    let got = case.run(context, Placement::Aligned);
                    for (name, got) in ["o", "lse", "entropy"].into_iter().zip(&got) {
                        let right = |(at, x): (usize, &f32)| x.is_nan() == rows.contains(&(at * 9 / got.len()));
                        assert!(got.iter().enumerate().all(right), "{config:?}, {what}{kernels}: {name} is {got:?}");
                    }
                }
                let [o, lse, entropy] = value.run(context, Placement::Aligned);
                assert!(o.iter().enumerate().all(|(at, x)| x.is_nan() == (at / 8 >= 4 && at % 8 == 5)), "v: {o:?}");
                assert!(lse.iter().chain(&entropy).all(|x| x.is_finite()), "v: {lse:?}, {entropy:?}");
            }
        }
    }
}

/// Of a score that f32 does not hold there is no right softmax; its row has it to itself.
#[test]
fn scores_that_overflow_keep_to_their_row() {
    let config = AttentionConfig::new().scale(Scale::PerRow);
    let mut plain = Case::new(config, [1, 1, 1, 9, 20, 8, 8]);
    let mut overflown = plain.clone();
    plain.row_scale.as_mut().unwrap().data.fill(0.5);
    overflown.row_scale.as_mut().unwrap().data.fill(0.5);
    *overflown.row_scale.as_mut().unwrap().at_mut([0, 0, 4]) = 3e38;
    for (kernels, context) in contexts() {
        let [one, other] = [&plain, &overflown].map(|case| case.run(context, Placement::Aligned));
        for (name, (one, other)) in ["o", "lse", "entropy"].into_iter().zip(one.iter().zip(&other)) {
            let row = one.len() / 9;
            assert_same_bits(&format!("{name}{kernels}, before"), &one[..4 * row], &other[..4 * row]);
            assert_same_bits(&format!("{name}{kernels}, after"), &one[5 * row..], &other[5 * row..]);
        }
    }
}
