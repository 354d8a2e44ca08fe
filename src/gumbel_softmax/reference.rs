//! The CPU twin of Gumbel-softmax: plain loops over the formula.

use super::{GumbelKind, GumbelSoftmaxConfig};
use crate::Result;
use crate::reference::{Real, SumOrder};

pub use super::HostInputs;

/// The whole result, row by row.
#[derive(Clone, Debug, PartialEq)]
pub struct HostOutputs<T> {
    /// `[rows, columns]`; empty for [`GumbelKind::Sample`].
    pub y: Vec<T>,
    /// `[rows]`; `u32::MAX` where no class is drawn.
    pub index: Vec<u32>,
    /// `[rows, columns]`.
    pub noise: Vec<T>,
}

/// Philox4x32-10: the four words of a counter's block.
#[must_use]
pub fn philox(counter: [u32; 4], seed: [u32; 2]) -> [u32; 4] {
    let product = |a: u32, b: u32| u64::from(a) * u64::from(b);
    let high = |x: u64| (x >> 32) as u32;
    let ([mut c0, mut c1, mut c2, mut c3], [mut k0, mut k1]) = (counter, seed);
    for _ in 0..10 {
        let (p0, p1) = (product(0xd251_1f53, c0), product(0xcd9e_8d57, c2));
        [c0, c1, c2, c3] = [high(p1) ^ c1 ^ k0, p1 as u32, high(p0) ^ c3 ^ k1, p0 as u32];
        (k0, k1) = (k0.wrapping_add(0x9e37_79b9), k1.wrapping_add(0xbb67_ae85));
    }
    [c0, c1, c2, c3]
}

/// The uniform number of a word, strictly between 0 and 1; all steps but the sum are exact in f32.
#[must_use]
pub fn uniform(word: u32) -> f32 {
    let (high, low) = ((word >> 16) as f32 / 65_536.0, ((word & 0xffff) as f32 + 0.5) / 4_294_967_296.0);
    (high + low).min(1.0 - f32::EPSILON / 2.0)
}

/// −log(−log(1 − v)), the inner logarithm by a series where 1 − v would lose what v holds.
pub(super) fn gumbel<T: Real>(v: f32) -> T {
    let (v, one) = (T::new(v.into()), T::new(1.0));
    let e = if v < T::new(0.5) {
        let y = v / (T::new(2.0) - v);
        let square = y * y;
        let series = (0..18).rev().fold(T::new(0.0), |sum, i| sum * square + one / T::new(f64::from(2 * i + 1)));
        T::new(2.0) * y * series
    } else {
        -(one - v).ln()
    };
    -e.ln()
}

/// A row of the problem.
pub(super) struct Row<T> {
    /// Noise of every class.
    pub noise: Vec<T>,
    /// Logit plus noise of the classes that take part, by column.
    pub scores: Vec<(usize, T)>,
    /// The temperature.
    pub tau: T,
    /// Whether the row is NaN.
    pub bad: bool,
}

impl<T: Real> Row<T> {
    pub fn new(config: &GumbelSoftmaxConfig, inputs: &HostInputs, row: usize) -> Self {
        let [_, columns] = inputs.logits.shape();
        let key: [u32; 5] = std::array::from_fn(|word| inputs.key.at([word]));
        let seed = inputs.seeds.map_or(key[0], |seeds| seeds.at([row]));
        let place = if inputs.seeds.is_some() { 0 } else { row as u32 };
        let id = inputs.row_ids.map_or(place, |ids| ids.at([row])).wrapping_add(key[4]);
        let noise = (0..columns).map(|column| {
            let block = philox([column as u32 / 4, id, key[2], key[3]], [seed, key[1]]);
            gumbel(uniform(block[column % 4]))
        });
        let noise: Vec<T> = noise.collect();

        let tau = inputs.tau.map_or(config.tau, |taus| taus.at([row.min(taus.shape()[0] - 1)]));
        let logit = |column: &usize| inputs.logits.at([row, *column]);
        let visible = |column: &usize| inputs.mask.is_none_or(|mask| mask.at([row, *column]) != 0);
        let mut classes: Vec<_> =
            (0..columns).filter(visible).filter(|column| logit(column) != f32::NEG_INFINITY).collect();
        let bad = !(tau.is_normal() && tau > 0.0) || classes.iter().any(|column| !logit(column).is_finite());
        if let (Some(k), false) = (config.top_k, bad) {
            // Adding 0 makes one number of both zeros, which the order of bits tells apart.
            classes.sort_by(|a, b| (logit(b) + 0.0).total_cmp(&(logit(a) + 0.0)).then(a.cmp(b)));
            classes.truncate(k as usize);
            classes.sort_unstable();
        }
        let score = |column: usize| (column, T::new(logit(&column).into()) + noise[column]);
        let scores = classes.into_iter().map(score).collect();
        Self { noise, scores, tau: T::new(tau.into()), bad }
    }

    /// The largest score, and the lowest column that has it.
    pub fn best(&self) -> Option<(usize, T)> {
        self.scores.iter().copied().reduce(|best, other| if other.1 > best.1 { other } else { best })
    }

    /// The softmax of the scores that take part, in their order.
    pub fn soft(&self, order: SumOrder) -> Vec<T> {
        let Some((_, largest)) = self.best() else { return Vec::new() };
        let weights: Vec<T> = self.scores.iter().map(|&(_, score)| ((score - largest) / self.tau).exp()).collect();
        let sum = sum(order, weights.len(), |i| weights[i]);
        weights.into_iter().map(|weight| weight / sum).collect()
    }
}

/// The sum of so many terms in an order.
pub(super) fn sum<T: Real>(order: SumOrder, count: usize, term: impl Fn(usize) -> T) -> T {
    order.indices(count).into_iter().fold(T::new(0.0), |sum, i| sum + term(i))
}

/// Gumbel-softmax in f64.
///
/// # Errors
/// As [`HostInputs::shapes`].
pub fn gumbel_softmax(config: &GumbelSoftmaxConfig, inputs: &HostInputs) -> Result<HostOutputs<f64>> {
    gumbel_softmax_in(config, inputs, SumOrder::InOrder)
}

/// [`gumbel_softmax`] in another arithmetic or order of summation.
///
/// # Errors
/// As [`gumbel_softmax`].
pub fn gumbel_softmax_in<T: Real>(
    config: &GumbelSoftmaxConfig,
    inputs: &HostInputs,
    order: SumOrder,
) -> Result<HostOutputs<T>> {
    let shapes = inputs.shapes(config)?;
    let mut out = HostOutputs { y: Vec::new(), index: Vec::new(), noise: Vec::new() };
    for i in 0..shapes.rows as usize {
        let row = Row::<T>::new(config, inputs, i);
        let best = row.best().map(|(column, _)| column).filter(|_| !row.bad);
        out.index.push(best.map_or(u32::MAX, |column| column as u32));
        let empty = T::new(if row.bad { f64::NAN } else { 0.0 });
        let mut y = vec![empty; shapes.columns as usize];
        match (config.kind, best) {
            (GumbelKind::Soft, Some(_)) => {
                row.scores.iter().zip(row.soft(order)).for_each(|((column, _), p)| y[*column] = p);
            }
            (_, Some(best)) => y[best] = T::new(1.0),
            (_, None) => {}
        }
        if config.kind != GumbelKind::Sample {
            out.y.extend(y);
        }
        out.noise.extend(row.noise);
    }
    Ok(out)
}

/// All outputs, by name.
pub(super) fn by_name<T: Real>(
    config: &GumbelSoftmaxConfig,
    inputs: &HostInputs,
    order: SumOrder,
) -> Result<Vec<(&'static str, Vec<T>)>> {
    let HostOutputs { y, index, noise } = gumbel_softmax_in(config, inputs, order)?;
    let y = (config.kind != GumbelKind::Sample).then_some(("y", y));
    let index = index.into_iter().map(|column| T::new(column.into())).collect();
    Ok(y.into_iter().chain([("index", index), ("noise", noise)]).collect())
}

#[cfg(test)]
mod tests {
    use super::super::key;
    use super::*;
    use crate::HostView;

    #[test]
    fn philox_gives_the_words_of_random123() {
        let known = [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([u32::MAX; 4], [u32::MAX; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ];
        for (counter, seed, want) in known {
            assert_eq!(philox(counter, seed), want);
        }
        // cuRAND's generator of this seed starts with the same words.
        assert_eq!(philox([0; 4], [42, 0]), [0x9cea_f053, 0x77f5_493b, 0x12bf_50ad, 0x5742_b3d7]);
    }

    #[test]
    fn uniforms_stay_inside_and_gumbels_finite() {
        assert_eq!(uniform(0), 0.5 / 4_294_967_296.0);
        assert!(uniform(u32::MAX) < 1.0);
        for word in [0, 1, 0x7fff_ffff, 0x8000_0000, 0xffff_ff00, u32::MAX] {
            let v = f64::from(uniform(word));
            let g: f64 = gumbel(uniform(word));
            assert!((g + (-(-v).ln_1p()).ln()).abs() < 1e-13, "{word:x}: {g}");
        }
    }

    fn row<'a>(logits: &'a [f32], key: &'a [u32; 5]) -> HostInputs<'a> {
        let logits = HostView::new(logits, [1, logits.len()]).expect("a row");
        HostInputs::new(logits, HostView::new(key, [5]).expect("a key"))
    }

    #[test]
    fn one_row_by_hand() {
        let (logits, key) = ([1.0, 2.0, 0.5, 3.0, 0.0], key(42, 0, 0, 0));
        let words = [0x9cea_f053_u32, 0x77f5_493b, 0x12bf_50ad, 0x5742_b3d7, 0xfcdb_2127];
        let words = [&words[..4], &[philox([1, 0, 0, 0], [42, 0])[0]]].concat();
        let v = words.iter().map(|&x| (f64::from(x) + 0.5) / 4_294_967_296.0);
        let scores: Vec<f64> = v.zip(logits).map(|(v, x)| f64::from(x) - (-(-v).ln_1p()).ln()).collect();
        let weights: Vec<f64> = scores.iter().map(|s| (s / 0.5).exp()).collect();
        let config = GumbelSoftmaxConfig::new().tau(0.5);
        let out = gumbel_softmax(&config, &row(&logits, &key)).expect("a row");
        for (y, w) in out.y.iter().zip(&weights) {
            assert!((y - w / weights.iter().sum::<f64>()).abs() < 1e-6, "{y}");
        }
        let best = out.index[0] as usize;
        assert!(scores.iter().all(|s| *s <= scores[best]));
        let hard = gumbel_softmax(&config.kind(GumbelKind::Hard), &row(&logits, &key)).expect("a row");
        assert!(hard.y.iter().enumerate().all(|(i, y)| *y == f64::from(u8::from(i == best))));
        let two = gumbel_softmax(&config.top_k(Some(2)), &row(&logits, &key)).expect("a row");
        assert!(two.y.iter().enumerate().all(|(i, y)| (*y > 0.0) == (i == 1 || i == 3)), "{:?}", two.y);
    }

    #[test]
    fn rows_are_known_by_their_ids() {
        let (logits, step) = ([0.0; 12], key(7, 1, 2, 0));
        let logits = HostView::new(&logits, [3, 4]).expect("rows");
        let key = HostView::new(&step, [5]).expect("a key");
        let all = HostInputs::new(logits, key);
        let config = GumbelSoftmaxConfig::new();
        let noise = |inputs: &HostInputs| gumbel_softmax(&config, inputs).expect("rows").noise;
        let ids = [2, 0, 1];
        let by_id = noise(&HostInputs { row_ids: Some(HostView::new(&ids, [3]).expect("ids")), ..all });
        let by_place = noise(&all);
        assert_eq!(by_id[..4], by_place[8..]);
        assert_eq!(by_id[4..], by_place[..8]);
        let seeds = [7, 9, 7];
        let by_seed = noise(&HostInputs { seeds: Some(HostView::new(&seeds, [3]).expect("seeds")), ..all });
        assert_eq!(by_seed[..4], by_seed[8..]);
        assert_eq!(by_seed[..4], by_place[..4]);
        assert_ne!(by_seed[..4], by_seed[4..8]);
    }
}
