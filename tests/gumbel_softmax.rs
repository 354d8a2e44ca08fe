//! Gumbel-softmax on the GPU, forward and backward, against its f64 twin; and the statistics of what it draws.

mod common;
#[path = "gumbel_softmax/draws.rs"]
mod draws;
#[path = "gumbel_softmax/published.rs"]
mod published;

use std::collections::BTreeSet;

use common::{Expected, NAIVE_RUNS, Tensor, ULP, any, assert_same_bits, context, rounding};
use proptest::prelude::*;
use wgpu_attention::gumbel_softmax::backward::reference as backward;
use wgpu_attention::gumbel_softmax::{key, reference};
use wgpu_attention::reference::SumOrder;
use wgpu_attention::{
    Context, ContextOptions, DType, Error, GumbelKind, GumbelSoftmax, GumbelSoftmaxBackward,
    GumbelSoftmaxBackwardInputs, GumbelSoftmaxConfig, GumbelSoftmaxGradients, GumbelSoftmaxInputs,
    GumbelSoftmaxOutputs, HostView, TensorView, wgpu,
};

/// A call, of random logits unless a test changes them.
#[derive(Clone)]
struct Case {
    rows: usize,
    columns: usize,
    config: GumbelSoftmaxConfig,
    logits: Vec<f32>,
    dy: Vec<f32>,
    key: [u32; 5],
    mask: Option<Vec<u8>>,
    tau: Option<Vec<f32>>,
    seeds: Option<Vec<u32>>,
    row_ids: Option<Vec<u32>>,
    /// Elements between rows.
    gap: usize,
    dtype: DType,
}

struct Outputs {
    y: Vec<f32>,
    index: Vec<u32>,
    noise: Vec<f32>,
    dlogits: Vec<f32>,
    dtau: Vec<f32>,
}

impl Case {
    fn new(rows: usize, columns: usize) -> Self {
        Self {
            rows,
            columns,
            config: GumbelSoftmaxConfig::new(),
            logits: Tensor::normal(1, [rows, columns]).scaled(2.0).data,
            dy: Tensor::normal(2, [rows, columns]).data,
            key: key(42, 3, 5, 7),
            mask: None,
            tau: None,
            seeds: None,
            row_ids: None,
            gap: 0,
            dtype: DType::F32,
        }
    }

    fn config(self, config: GumbelSoftmaxConfig) -> Self {
        Self { config, ..self }
    }

    /// Every class for which `hides(row, column)` is masked, and holds NaN.
    fn hide(mut self, hides: impl Fn(usize, usize) -> bool) -> Self {
        let hidden = (0..self.logits.len()).map(|at| hides(at / self.columns, at % self.columns));
        let hidden: Vec<bool> = hidden.collect();
        for (at, _) in hidden.iter().enumerate().filter(|(_, hidden)| **hidden) {
            (self.logits[at], self.dy[at]) = (f32::NAN, f32::NAN);
        }
        Self { mask: Some(hidden.into_iter().map(|hidden| u8::from(!hidden) * 3).collect()), ..self }
    }

    fn stored(mut self, dtype: DType) -> Self {
        let round = |data: Vec<f32>| Tensor { shape: [data.len()], data }.rounded(dtype).data;
        (self.logits, self.dy) = (round(self.logits), round(self.dy));
        Self { dtype, ..self }
    }

    fn twin<T: wgpu_attention::reference::Real>(&self, order: SumOrder) -> reference::HostOutputs<T> {
        let rows = |data| HostView::new(data, [self.rows, self.columns]).expect("rows");
        let key = HostView::new(&self.key, [5]).expect("a key");
        let inputs = reference::HostInputs {
            mask: self.mask.as_ref().map(|mask| HostView::new(mask, [self.rows, self.columns]).expect("rows")),
            tau: self.tau.as_ref().map(|tau| HostView::new(tau, [tau.len()]).expect("taus")),
            seeds: self.seeds.as_ref().map(|seeds| HostView::new(seeds, [seeds.len()]).expect("seeds")),
            row_ids: self.row_ids.as_ref().map(|ids| HostView::new(ids, [ids.len()]).expect("ids")),
            ..reference::HostInputs::new(rows(&self.logits), key)
        };
        reference::gumbel_softmax_in(&self.config, &inputs, order).expect("the twin")
    }

    fn twin_backward<T: wgpu_attention::reference::Real>(&self, order: SumOrder) -> backward::HostOutputs<T> {
        let rows = |data| HostView::new(data, [self.rows, self.columns]).expect("rows");
        let key = HostView::new(&self.key, [5]).expect("a key");
        let inputs = backward::HostInputs {
            mask: self.mask.as_ref().map(|mask| HostView::new(mask, [self.rows, self.columns]).expect("rows")),
            tau: self.tau.as_ref().map(|tau| HostView::new(tau, [tau.len()]).expect("taus")),
            seeds: self.seeds.as_ref().map(|seeds| HostView::new(seeds, [seeds.len()]).expect("seeds")),
            row_ids: self.row_ids.as_ref().map(|ids| HostView::new(ids, [ids.len()]).expect("ids")),
            ..backward::HostInputs::new(rows(&self.logits), key, rows(&self.dy))
        };
        backward::gumbel_softmax_backward_in(&self.config, &inputs, order).expect("the twin")
    }

    /// Elements before the first row, which in 16 bits starts with a word.
    fn start(&self) -> usize {
        if self.dtype == DType::F32 { self.gap } else { 2 * self.gap }
    }

    /// A tensor of rows with NaN around them, or what an output holds before.
    fn upload(&self, data: Option<&[f32]>, dtype: DType) -> wgpu::Buffer {
        let width = self.columns + self.gap;
        let mut all = vec![f32::NAN; (self.rows * width + self.start() + 64).next_multiple_of(2)];
        for (row, data) in data.into_iter().flat_map(|data| data.chunks(self.columns).enumerate()) {
            all[self.start() + row * width..][..self.columns].copy_from_slice(data);
        }
        context().upload_as(&all, dtype).expect("a float")
    }

    fn view<'a>(&self, buffer: &'a wgpu::Buffer, dtype: DType) -> TensorView<'a, 2> {
        let width = (self.columns + self.gap) as u64;
        TensorView::new(buffer, dtype, [self.rows as u32, self.columns as u32])
            .with_offset(self.start() as u64)
            .with_strides([width, 1])
    }

    /// The rows of an output; checks that nothing else was written.
    fn read(&self, buffer: &wgpu::Buffer, dtype: DType) -> Vec<f32> {
        let (all, width) = (context().download_as(buffer, dtype).expect("an output"), self.columns + self.gap);
        let own = |at: usize| {
            at >= self.start() && at < self.start() + self.rows * width && (at - self.start()) % width < self.columns
        };
        assert!(all.iter().enumerate().all(|(at, x)| own(at) || x.is_nan()), "written outside the view");
        (0..self.rows).flat_map(|row| all[self.start() + row * width..][..self.columns].to_vec()).collect()
    }

    /// Forward with all outputs and, unless it samples, backward with all gradients.
    fn run(&self) -> Outputs {
        self.run_as(true).expect("a call")
    }

    fn run_as(&self, noisy: bool) -> Result<Outputs, Error> {
        self.run_on(context(), noisy)
    }

    fn run_on(&self, context: &Context, noisy: bool) -> Result<Outputs, Error> {
        let sample = self.config.kind == GumbelKind::Sample;
        let logits = self.upload(Some(&self.logits), self.dtype);
        let dy = self.upload(Some(&self.dy), self.dtype);
        let key = context.upload(&self.key);
        // Bytes, each row of which starts anywhere.
        let width = self.columns + self.gap;
        let mut bytes = vec![9_u8; (self.rows * width + self.start() + 8).next_multiple_of(4)];
        for (row, mask) in self.mask.iter().flat_map(|mask| mask.chunks(self.columns).enumerate()) {
            bytes[self.start() + row * width..][..self.columns].copy_from_slice(mask);
        }
        let mask = context.upload(&bytes);
        let tau = context.upload(self.tau.as_deref().unwrap_or(&[1.0]));
        let seeds = context.upload(self.seeds.as_deref().unwrap_or(&[0]));
        let row_ids = context.upload(self.row_ids.as_deref().unwrap_or(&[0]));
        let rows = self.rows as u32;
        let inputs = GumbelSoftmaxInputs {
            mask: self.mask.as_ref().map(|_| self.view(&mask, DType::Bool)),
            tau: self.tau.as_ref().map(|taus| TensorView::f32(&tau, [taus.len() as u32])),
            seeds: self.seeds.as_ref().map(|_| TensorView::new(&seeds, DType::U32, [rows])),
            row_ids: self.row_ids.as_ref().map(|_| TensorView::new(&row_ids, DType::U32, [rows])),
            ..GumbelSoftmaxInputs::new(self.view(&logits, self.dtype), TensorView::new(&key, DType::U32, [5]))
        };
        let y = self.upload(None, self.dtype);
        let noise = self.upload(None, DType::F32);
        let index = context.upload(&vec![77_u32; self.rows.max(1)]);
        let outputs = GumbelSoftmaxOutputs {
            y: (!sample).then(|| self.view(&y, self.dtype)),
            index: Some(TensorView::new(&index, DType::U32, [rows])),
            noise: noisy.then(|| self.view(&noise, DType::F32)),
        };
        context.run(&GumbelSoftmax::new(context, self.config)?.prepare(inputs, outputs)?)?;
        let dlogits = self.upload(None, self.dtype);
        let taus = self.tau.as_ref().map_or(0, Vec::len);
        let dtau = context.upload(&vec![f32::NAN; taus.max(1)]);
        if !sample {
            let GumbelSoftmaxInputs { logits, key, mask, tau, seeds, row_ids } = inputs;
            let dy = self.view(&dy, self.dtype);
            let inputs = GumbelSoftmaxBackwardInputs { logits, key, dy, mask, tau, seeds, row_ids };
            let gradients = GumbelSoftmaxGradients {
                dlogits: Some(self.view(&dlogits, self.dtype)),
                dtau: self.tau.as_ref().map(|_| TensorView::f32(&dtau, [taus as u32])),
            };
            context.run(&GumbelSoftmaxBackward::new(context, self.config)?.prepare(inputs, gradients)?)?;
        }
        Ok(Outputs {
            y: if sample { Vec::new() } else { self.read(&y, self.dtype) },
            index: context.download_u32(&index)?[..self.rows].to_vec(),
            noise: if noisy { self.read(&noise, DType::F32) } else { Vec::new() },
            dlogits: if sample { Vec::new() } else { self.read(&dlogits, self.dtype) },
            dtau: context.download(&dtau)?[..taus].to_vec(),
        })
    }

    fn check(&self, what: &str) -> Outputs {
        let got = self.run();
        self.compare(&got, what);
        got
    }

    fn compare(&self, got: &Outputs, what: &str) {
        let case = format!("{what}: {} x {}, {:?}, {:?}", self.rows, self.columns, self.config, self.dtype);
        let want = self.twin::<f64>(SumOrder::InOrder);
        // A long row's sums hardly depend on their order, and take long.
        let runs = if self.columns > 10_000 { 1 } else { NAIVE_RUNS };
        let naive: Vec<_> = (0..runs).map(|seed| self.twin::<f32>(SumOrder::Shuffled(seed))).collect();
        let least = self.tau.iter().flatten().fold(self.config.tau, |least, tau| least.min(*tau));
        let largest = self.logits.iter().filter(|x| x.is_finite()).fold(0.0_f32, |most, x| most.max(x.abs()));
        let score = f64::from(largest) + 23.0;
        // Both logarithms of the noise are off by up to 2^-20 (3 ulp of -log E up to 23, and the relative error of E), the score by
        // half an ulp of itself, a difference of two by that again; the exponential takes them over tau.
        let off_score = (3.0 * 23.0 + 2.0 * score) * ULP / 2.0 + 1.0 / f64::from(1 << 20);
        let floor = 2.0 * off_score / f64::from(least) + 16.0 * ULP;
        let (relative, absolute) = rounding(self.dtype);
        let shape = [self.rows, self.columns];
        let assert = |name: &str, shape: &[usize], want: &[f64], naive: Vec<Vec<f32>>, floor, absolute, got: &[f32]| {
            Expected { case: &case, name, shape, want, naive: &naive, floor, absolute_floor: absolute }.assert(got);
        };
        let of_noise = naive.iter().map(|run| run.noise.clone()).collect();
        assert("noise", &shape, &want.noise, of_noise, 4.0 * ULP, 1.0 / f64::from(1 << 20), &got.noise);
        // Rows whose two best scores are close may be won by either.
        for row in 0..self.rows {
            let (got, want) = (got.index[row], want.index[row]);
            if got != want {
                let score = |column: u32| {
                    let at = row * self.columns + column as usize;
                    f64::from(self.logits[at]) + self.twin_noise(at)
                };
                let apart = (score(want) - score(got)).abs();
                assert!(apart < 1e-5_f64.max(2.0 * off_score), "{case}: row {row}: class {got}, want {want}: {apart}");
            }
        }
        if self.config.kind == GumbelKind::Sample {
            return;
        }
        if self.config.kind == GumbelKind::Hard {
            for (row, y) in got.y.chunks(self.columns).enumerate() {
                let drawn = got.index[row] as usize;
                assert!(y.iter().enumerate().all(|(i, y)| *y == f32::from(u8::from(i == drawn))), "{case}: row {row}");
            }
        } else {
            let of_y = naive.iter().map(|run| run.y.clone()).collect();
            assert("y", &shape, &want.y, of_y, floor + relative, absolute, &got.y);
        }
        let want = self.twin_backward::<f64>(SumOrder::InOrder);
        let naive: Vec<_> = (0..runs).map(|seed| self.twin_backward::<f32>(SumOrder::Shuffled(seed))).collect();
        let of = naive.iter().map(|run| run.dlogits.clone()).collect();
        // The factor dy - <y, dy> is off by floor of the largest dy, which gradients may be far below.
        let widest = self.dy.iter().filter(|x| x.is_finite()).fold(0.0_f64, |most, x| most.max(f64::from(x.abs())));
        let off = floor * widest / f64::from(least);
        assert("dlogits", &shape, &want.dlogits, of, floor + relative, absolute + off, &got.dlogits);
        let of = naive.iter().map(|run| run.dtau.clone()).collect();
        // Scores are tau log n under the largest in the mean, at most.
        let off =
            2.0 * off * (1.0 + (self.columns as f64).ln()) * if want.dtau.len() == 1 { self.rows as f64 } else { 1.0 };
        assert("dtau", &[want.dtau.len()], &want.dtau, of, floor, off, &got.dtau);
    }

    fn twin_noise(&self, at: usize) -> f64 {
        self.twin::<f64>(SumOrder::InOrder).noise[at]
    }
}

#[test]
fn rows_of_every_width() {
    for columns in [1, 2, 3, 4, 5, 63, 64, 65, 127, 128, 129, 255, 256, 257, 1000, 1023, 1025, 4100] {
        let rows = if columns < 300 { 11 } else { 3 };
        let kind = [GumbelKind::Soft, GumbelKind::Hard][columns % 2];
        let case = Case::new(rows, columns).config(GumbelSoftmaxConfig::new().kind(kind).tau(0.75));
        case.check("width");
    }
}

#[test]
fn every_option() {
    for (at, columns) in [7, 64, 130, 257].into_iter().enumerate() {
        let case = Case::new(9, columns);
        let kind = [GumbelKind::Soft, GumbelKind::Hard][at % 2];
        let config = GumbelSoftmaxConfig::new().kind(kind);
        let taus: Vec<f32> = (0..9).map(|row| 0.25 + row as f32 / 4.0).collect();
        let ids: Vec<u32> = (0..9).map(|row| u32::MAX - 3 * row).collect();
        let seeds: Vec<u32> = (0..9).map(|row| row * row).collect();
        case.clone().hide(|row, column| row == 4 || (row + column) % 3 == 0).config(config).check("mask");
        Case { tau: Some(vec![0.5]), ..case.clone() }.config(config).check("one tau");
        Case { tau: Some(taus.clone()), ..case.clone() }.config(config).check("tau per row");
        Case { seeds: Some(seeds.clone()), ..case.clone() }.config(config).check("seeds");
        let all = Case { tau: Some(taus), seeds: Some(seeds), row_ids: Some(ids), gap: 3, ..case.clone() };
        let all = all.hide(|row, column| row != 3 && column % 2 == 0);
        all.clone().config(config.top_k(Some(3))).check("all");
        all.config(config.top_k(Some(columns as u32))).check("all kept");
        Case { tau: Some(vec![1.5]), gap: 2 + columns % 2, ..case.clone() }
            .stored(DType::F16)
            .config(config)
            .check("f16");
        Case { gap: columns % 2, ..case.clone() }.stored(DType::BF16).config(config).check("bf16");
        let sample = config.kind(GumbelKind::Sample);
        case.clone().config(sample).check("sample");
        case.hide(|row, column| row == 2 || column % 3 != 0).config(sample.top_k(Some(2))).check("sample of two");
    }
}

#[test]
fn long_rows() {
    for columns in [8192, 20_001, 65_536] {
        let config = GumbelSoftmaxConfig::new().tau(0.5);
        let case = Case { tau: Some(vec![0.75]), ..Case::new(2, columns) };
        case.config(config).hide(|_, column| column % 5 == 1).check("long");
    }
    let sample = GumbelSoftmaxConfig::new().kind(GumbelKind::Sample);
    Case::new(2, 20_001).config(sample.top_k(Some(300))).check("sample of 300");
    let mut million = Case::new(1, 1_000_003);
    million.logits.iter_mut().for_each(|x| *x *= 2.0);
    million.check("a million");
    million.config(sample).check("sample of a million");
}

#[test]
fn equal_logits_are_kept_from_the_lowest_column() {
    let mut case = Case::new(3, 300).config(GumbelSoftmaxConfig::new().top_k(Some(7)));
    for (at, x) in case.logits.iter_mut().enumerate() {
        let column = at % 300;
        *x = if column % 10 == 9 {
            1.0
        } else if column % 2 == 0 {
            0.0
        } else {
            -0.0
        };
    }
    case.logits[..300].fill(-0.0);
    case.logits[5] = 0.0;
    case.logits[300..302].fill(2.0);
    let kept = |row: usize, y: &[f32]| -> Vec<usize> { (0..300).filter(|i| y[300 * row + i] > 0.0).collect() };
    let out = case.check("ties");
    assert_eq!(kept(0, &out.y), [0, 1, 2, 3, 4, 5, 6]);
    assert_eq!(kept(1, &out.y), [0, 1, 9, 19, 29, 39, 49]);
    assert_eq!(kept(2, &out.y), [9, 19, 29, 39, 49, 59, 69]);
}

#[test]
fn what_is_no_number_stays_in_its_row() {
    for top_k in [None, Some(4)] {
        let mut case = Case::new(8, 70).config(GumbelSoftmaxConfig::new().top_k(top_k));
        case.logits[70] = f32::NAN;
        case.logits[2 * 70 + 69] = f32::INFINITY;
        case.logits[3 * 70 + 1] = f32::NEG_INFINITY;
        case.logits[4 * 70..5 * 70].fill(f32::NEG_INFINITY);
        case.logits[7 * 70 + 3] = -f32::NAN;
        let mut taus = vec![1.0; 8];
        (taus[5], taus[6]) = (0.0, f32::NAN);
        case.tau = Some(taus);
        let out = case.run();
        for row in 0..8 {
            let bad = [1, 2, 5, 6, 7].contains(&row);
            let of = |data: &[f32]| data[70 * row..][..70].to_vec();
            let (y, d) = (of(&out.y), of(&out.dlogits));
            assert!(y.iter().chain(&d).all(|x| x.is_nan() == bad), "row {row}: {y:?} {d:?}");
            assert_eq!(out.dtau[row].is_nan(), bad, "row {row}");
            assert_eq!(out.index[row] == u32::MAX, bad || row == 4, "row {row}");
        }
        assert!(out.y[4 * 70..5 * 70].iter().chain(&out.dlogits[4 * 70..5 * 70]).all(|x| *x == 0.0));
        assert_eq!(out.y[3 * 70 + 1], 0.0);
        assert!(out.noise.iter().all(|g| g.is_finite()));
    }
}

#[test]
fn ten_thousand_stays_finite_and_right() {
    let mut case = Case::new(6, 100);
    for (at, x) in case.logits.iter_mut().enumerate() {
        *x += [1e4, -1e4, 0.0][at / 100 % 3];
        *x = if at % 7 == 0 { -1e4 } else { *x };
    }
    let out = case.check("1e4");
    assert!(out.y.iter().chain(&out.dlogits).all(|x| x.is_finite()));
    let out = Case { tau: Some(vec![1e-30, 1e-37, 1e37, f32::MAX, 1e-4, 100.0]), ..case }.run();
    assert!(out.y.iter().all(|x| (0.0..=1.0).contains(x)));
    for (row, y) in out.y.chunks(100).enumerate() {
        assert!((y.iter().sum::<f32>() - 1.0).abs() < 1e-5, "row {row}");
        assert!(row != 0 || y[out.index[row] as usize] == 1.0);
    }
}

#[test]
fn reruns_give_the_same_bits_and_noise_knows_no_place() {
    let case = Case { tau: Some(vec![0.5]), ..Case::new(33, 258) };
    let (a, b) = (case.run(), case.run());
    assert_same_bits("y", &a.y, &b.y);
    assert_same_bits("dlogits", &a.dlogits, &b.dlogits);
    assert_same_bits("dtau", &a.dtau, &b.dtau);
    // Rows 10 to 14 alone, by an offset and by their ids; one row of a row as long as two, and one that others hide.
    let part = Case { key: key(42, 3, 5, 17), ..Case::new(5, 258) };
    assert_same_bits("offset", &part.run().noise, &a.noise[10 * 258..15 * 258]);
    let ids = Some((10..15).rev().collect());
    let by_id = Case { row_ids: ids, ..Case::new(5, 258) }.run().noise;
    assert_same_bits("ids", &by_id[..258], &a.noise[14 * 258..15 * 258]);
    let longer = Case::new(2, 8200).run();
    assert_same_bits("wider", &longer.noise[..258], &a.noise[..258]);
    for (seed, stream, step) in [(43, 3, 5), (42 | 1 << 32, 3, 5), (42, 4, 5), (42, 3, 6)] {
        let other = Case { key: key(seed, stream, step, 7), ..Case::new(1, 258) }.run().noise;
        let same = other.iter().zip(&a.noise).filter(|(x, y)| x == y).count();
        assert!(same < 3, "{seed} {stream} {step}: {same} numbers are the same");
    }
}

#[test]
fn noise_has_gumbels_distribution() {
    let case = Case::new(4, 50_000);
    let mut noise: Vec<f64> = case.run().noise.into_iter().map(f64::from).collect();
    let count = noise.len() as f64;
    let mean = noise.iter().sum::<f64>() / count;
    let variance = noise.iter().map(|g| (g - mean).powi(2)).sum::<f64>() / count;
    assert!((mean - 0.577_216).abs() < 0.012 && (variance - 1.644_934).abs() < 0.03, "{mean} {variance}");
    noise.sort_by(f64::total_cmp);
    let off = |(at, g): (usize, &f64)| ((-(-g).exp()).exp() - (at as f64 + 0.5) / count).abs();
    let worst = noise.iter().enumerate().map(off).fold(0.0, f64::max);
    // Kolmogorov and Smirnov: larger in one of 10^3 cases.
    assert!(worst * count.sqrt() < 1.95, "{}", worst * count.sqrt());
}

#[test]
fn no_rows_are_nothing_to_do() {
    let out = Case { tau: Some(vec![]), ..Case::new(0, 5) }.run();
    assert!(out.y.is_empty() && out.index.is_empty());
}

#[test]
fn what_does_not_fit_is_refused() {
    let context = context();
    let config = GumbelSoftmaxConfig::new();
    for wrong in [config.tau(0.0), config.tau(-1.0), config.tau(f32::NAN), config.tau(f32::INFINITY), config.tau(1e-40)]
    {
        let error = GumbelSoftmax::new(context, wrong).expect_err("a temperature");
        assert!(matches!(error, Error::Config { option: "tau", .. }), "{error}");
    }
    let error = GumbelSoftmax::new(context, config.top_k(Some(0))).expect_err("no class");
    assert!(matches!(error, Error::Config { option: "top_k", .. }), "{error}");
    let error = GumbelSoftmaxBackward::new(context, config.kind(GumbelKind::Sample)).expect_err("no gradient");
    assert!(matches!(error, Error::Config { option: "kind", .. }), "{error}");
    let says = |case: Case, words: &[&str]| {
        let error = case.run_as(false).err().expect("refused").to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    };
    says(Case::new(2, 5).config(config.top_k(Some(6))), &["logits", "columns", "6", "got 5"]);
    says(Case { tau: Some(vec![1.0; 3]), ..Case::new(2, 5) }, &["tau", "taus", "1, or 2", "got 3"]);
    let sample = Case::new(2, 5).config(config.kind(GumbelKind::Sample));
    says(Case { tau: Some(vec![1.0]), ..sample }, &["tau", "does not depend"]);

    let buffer = context.allocate(64);
    let words = context.upload(&[0_u32; 64]);
    let view = |rows| TensorView::f32(&buffer, [rows, 4]);
    let word = |count| TensorView::new(&words, DType::U32, [count]);
    let y = context.allocate(64);
    let inputs = GumbelSoftmaxInputs::new(view(3), word(5));
    let forward = GumbelSoftmax::new(context, config).expect("a config");
    let outputs = GumbelSoftmaxOutputs::new(TensorView::f32(&y, [3, 4]));
    let refused = |inputs, outputs, words: &[&str]| {
        let error = forward.prepare(inputs, outputs).expect_err("refused").to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    };
    forward.prepare(inputs, outputs).expect("as it should be");
    refused(GumbelSoftmaxInputs { key: word(4), ..inputs }, outputs, &["key", "words", "5", "got 4"]);
    refused(GumbelSoftmaxInputs { seeds: Some(word(2)), ..inputs }, outputs, &["seeds", "rows", "3", "got 2"]);
    refused(GumbelSoftmaxInputs { row_ids: Some(word(4)), ..inputs }, outputs, &["row_ids", "rows", "3", "got 4"]);
    refused(GumbelSoftmaxInputs { mask: Some(view(3)), ..inputs }, outputs, &["mask", "Bool"]);
    refused(inputs, GumbelSoftmaxOutputs::none(), &["y", "missing"]);
    refused(inputs, GumbelSoftmaxOutputs::new(view(3)), &["y", "logits"]);
    refused(inputs, GumbelSoftmaxOutputs { index: Some(word(2)), ..outputs }, &["index", "rows", "got 2"]);
    let backward = GumbelSoftmaxBackward::new(context, config).expect("a config");
    let inputs = GumbelSoftmaxBackwardInputs::new(view(3), word(5), view(3));
    let nothing = backward.prepare(inputs, GumbelSoftmaxGradients::none()).expect_err("nothing").to_string();
    assert!(nothing.contains("dlogits") && nothing.contains("dtau"), "{nothing}");
    let dtau = GumbelSoftmaxGradients { dtau: Some(TensorView::f32(&y, [1])), ..GumbelSoftmaxGradients::none() };
    let error = backward.prepare(inputs, dtau).expect_err("no tau").to_string();
    assert!(error.contains("dtau") && error.contains("tau is not"), "{error}");
}

#[test]
fn a_step_of_training_plans_nothing() {
    let kernels: BTreeSet<String> = [1, 2]
        .into_iter()
        .map(|step| {
            let case = Case { key: key(1, 0, step, 0), ..Case::new(4, 8) };
            case.run();
            let forward = GumbelSoftmax::new(context(), case.config).expect("a config");
            let plan = forward.plan(&wgpu_attention::GumbelSoftmaxShapes::new(4, 8), DType::F32).expect("a plan");
            assert_eq!((plan.dispatches(), plan.workspace_bytes()), (1, 0));
            plan.kernel()
        })
        .collect();
    assert_eq!(kernels.len(), 1, "{kernels:?}");
}

#[test]
fn rows_are_drawn_in_blocks_where_the_workspace_is_small() {
    let whole = context();
    let options = ContextOptions { max_workspace_bytes: 4096, ..whole.capabilities().options };
    let small = Context::with_options(whole.device().clone(), whole.queue().clone(), options);
    for (tau, top_k) in [(None, Some(3)), (Some(1), None), (Some(300), Some(5))] {
        let mut case = Case::new(300, 13).config(GumbelSoftmaxConfig::new().top_k(top_k));
        case.tau = tau.map(|count| (0..count).map(|row| 0.5 + row as f32 / 200.0).collect());
        case.seeds = (tau == Some(300)).then(|| (0..300).collect());
        let got = case.run_on(&small, true).expect("blocks");
        case.compare(&got, "blocks");
        let want = case.run();
        assert_same_bits("noise", &got.noise, &want.noise);
        assert_same_bits("y", &got.y, &want.y);
        assert_eq!(got.index, want.index);
    }
}

proptest! {
    #![proptest_config(any(24))]
    #[test]
    fn any_rows(
        rows in 1_usize..20, columns in 1_usize..150, flags in 0_u32..32, tau in 0.2_f32..3.0, k in 1_u32..150, gap in 0_usize..5,
    ) {
        let on = |bit: u32| flags >> bit & 1 == 1;
        let kind = [GumbelKind::Soft, GumbelKind::Hard][usize::from(on(0))];
        let top_k = on(1).then_some(k.min(columns as u32));
        let config = GumbelSoftmaxConfig::new().kind(kind).tau(tau).top_k(top_k);
        let mut case = Case { gap, ..Case::new(rows, columns) }.config(config);
        if on(2) {
            case = case.hide(|row, column| (row * 7 + column * 3) % 4 == 0);
        }
        case.tau = on(3).then(|| vec![tau]);
        case.seeds = on(4).then(|| (0..rows as u32).collect());
        case.check("any");
    }
}
