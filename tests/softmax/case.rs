//! Random rows, and both passes over them beside their twins.

use wgpu_attention::reference::SumOrder;
use wgpu_attention::softmax::backward::reference as backward_reference;
use wgpu_attention::softmax::reference::{HostInputs, softmax, softmax_in};
use wgpu_attention::{
    Context, DType, Error, HostView, Softmax, SoftmaxBackward, SoftmaxBackwardInputs, SoftmaxConfig, SoftmaxGradients,
    SoftmaxInputs, SoftmaxKind, SoftmaxOutputs, SoftmaxScale, TensorView,
};

use crate::common::{Expected, NAIVE_RUNS, Placed, Placement, Tensor, ULP, context, rounding};

pub const KAPPA: SoftmaxScale = SoftmaxScale::KappaLogN { kappa: 0.4 };

/// How many numbers row_scale has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scales {
    None,
    One,
    PerRow,
}

/// Random rows, and random gradients of what comes out.
#[derive(Clone, Debug)]
pub struct Case {
    pub rows: usize,
    pub columns: usize,
    pub config: SoftmaxConfig,
    pub scales: Scales,
    /// Whether there is a mask.
    pub masked: bool,
    pub lse: bool,
    pub entropy: bool,
    /// How many numbers alpha has, and which.
    pub alphas: Scales,
    pub alpha: Vec<f32>,
    /// Where there is a loss.
    pub labels: Option<Vec<u32>>,
    pub x: Vec<f32>,
    pub mask: Vec<u8>,
    pub row_scale: Vec<f32>,
    pub dp: Vec<f32>,
    pub dlse: Vec<f32>,
    pub dentropy: Vec<f32>,
    pub dloss: Vec<f32>,
    pub stored: DType,
    pub naive_runs: u64,
}

/// What comes out: p, lse and entropy, or dx and drow_scale.
pub type Named = Vec<(&'static str, Vec<usize>, Vec<f32>)>;

impl Case {
    pub fn new(rows: usize, columns: usize) -> Self {
        let normal = |seed, count| Tensor::normal(seed, [count]).data;
        let mask: Vec<u8> = normal(2, rows * columns).iter().map(|x| u8::from(*x < 0.8) * 255).collect();
        Self {
            rows,
            columns,
            config: SoftmaxConfig::new(),
            scales: Scales::None,
            masked: false,
            lse: true,
            entropy: true,
            alphas: Scales::None,
            alpha: normal(8, rows).iter().map(|x| 1.0 + 0.5 / (1.0 + x * x)).collect(),
            labels: None,
            x: normal(1, rows * columns).iter().map(|x| 2.0 * x).collect(),
            mask,
            row_scale: normal(3, rows).iter().map(|x| 0.7 * x).collect(),
            dp: normal(4, rows * columns),
            dlse: normal(5, rows),
            dentropy: normal(6, rows),
            dloss: normal(7, rows),
            stored: DType::F32,
            naive_runs: NAIVE_RUNS,
        }
    }

    /// With options by the bits of a number.
    pub fn options(self, flags: usize) -> Self {
        let on = |bit: usize| flags >> bit & 1 == 1;
        let scale = if on(0) { KAPPA } else { SoftmaxScale::Temperature(0.8) };
        let scales = [Scales::None, Scales::PerRow, Scales::None, Scales::One][flags >> 4 & 3];
        let kind = if on(6) { SoftmaxKind::Taylor } else { SoftmaxKind::Softmax };
        let config = self.config.kind(kind).scale(scale).log(on(1));
        Self { config, masked: on(2), scales, lse: on(3), entropy: !on(3) || on(4), ..self }.hide_junk()
    }

    /// Of another kind, of which log p may have no gradient.
    pub fn of(mut self, kind: SoftmaxKind) -> Self {
        self.config = self.config.kind(kind);
        self.config.log &= !self.is_sparse();
        self
    }

    /// With an alpha of its own for each row, or one for all.
    pub fn alphas(self, alphas: Scales) -> Self {
        Self { alphas, ..self }
    }

    /// With labels, of which one is ignored.
    pub fn labelled(self) -> Self {
        let mut labels: Vec<u32> = (0..self.rows).map(|i| (i * 7 % self.columns) as u32).collect();
        for (i, label) in labels.iter_mut().enumerate() {
            // One that takes part, if any does.
            let seen = |j: &usize| {
                let at = i * self.columns + j;
                (!self.masked || self.mask[at] != 0) && self.x[at] != f32::NEG_INFINITY
            };
            let next = (*label as usize..self.columns).chain(0..self.columns).find(seen);
            *label = next.map_or(u32::MAX, |j| j as u32);
        }
        if self.rows > 3 {
            labels[3] = u32::MAX;
        }
        Self { labels: Some(labels), ..self }
    }

    pub fn is_sparse(&self) -> bool {
        matches!(self.config.kind, SoftmaxKind::Sparsemax | SoftmaxKind::Entmax { .. })
    }

    fn alpha_numbers(&self) -> &[f32] {
        match self.alphas {
            Scales::None => &[],
            Scales::One => &self.alpha[..1],
            Scales::PerRow => &self.alpha,
        }
    }

    /// NaN wherever the mask hides it; one row sees nothing, one has −∞ among its scores.
    fn hide_junk(mut self) -> Self {
        if self.rows > 2 {
            self.x[self.columns + self.columns / 2] = f32::NEG_INFINITY;
            if self.masked {
                self.mask[2 * self.columns..3 * self.columns].fill(0);
            }
        }
        if self.masked {
            for at in (0..self.mask.len()).filter(|&at| self.mask[at] == 0) {
                (self.x[at], self.dp[at]) = (f32::NAN, f32::NAN);
            }
        }
        self
    }

    pub fn stored(mut self, dtype: DType) -> Self {
        for data in [&mut self.x, &mut self.dp] {
            *data = Tensor { shape: [data.len()], data: data.clone() }.rounded(dtype).data;
        }
        Self { stored: dtype, ..self }
    }

    fn scales(&self) -> &[f32] {
        match self.scales {
            Scales::None => &[],
            Scales::One => &self.row_scale[..1],
            Scales::PerRow => &self.row_scale,
        }
    }

    pub fn host(&self) -> HostInputs<'_> {
        let shape = [self.rows, self.columns];
        let mut inputs = HostInputs::new(HostView::new(&self.x, shape).expect("rows"));
        inputs.mask = self.masked.then(|| HostView::new(&self.mask, shape).expect("a mask"));
        let scales = self.scales();
        inputs.row_scale = (!scales.is_empty()).then(|| HostView::new(scales, [scales.len()]).expect("scales"));
        let alphas = self.alpha_numbers();
        inputs.alpha = (!alphas.is_empty()).then(|| HostView::new(alphas, [alphas.len()]).expect("alphas"));
        inputs.labels = self.labels.as_ref().map(|labels| HostView::new(labels, [self.rows]).expect("labels"));
        inputs
    }

    pub fn host_backward(&self) -> backward_reference::HostInputs<'_> {
        let HostInputs { x, mask, row_scale, alpha, labels } = self.host();
        let per_row = |data| HostView::new(data, [self.rows]).expect("rows");
        let mut inputs = backward_reference::HostInputs::of(x);
        (inputs.mask, inputs.row_scale, inputs.alpha, inputs.labels) = (mask, row_scale, alpha, labels);
        inputs.dloss = self.labels.as_ref().map(|_| per_row(&self.dloss));
        inputs.dp = Some(HostView::new(&self.dp, [self.rows, self.columns]).expect("rows"));
        inputs.dlse = (self.lse && !self.is_sparse()).then(|| per_row(&self.dlse));
        inputs.dentropy = self.entropy.then(|| per_row(&self.dentropy));
        inputs
    }

    fn placement(&self, odd: bool) -> Placement {
        match odd {
            // Rows of 16 bits start at even elements.
            true if self.stored == DType::F32 => Placement::Odd,
            true => Placement::Interleaved { gap: 2 + self.columns % 2 },
            false => Placement::Interleaved { gap: self.columns.next_multiple_of(4) - self.columns },
        }
    }

    /// x, mask and row_scale on the device; every tensor off a multiple of four if `odd`.
    fn upload(&self, context: &Context, odd: bool) -> (Placed, wgpu::Buffer, wgpu::Buffer) {
        let gap = self.columns.next_multiple_of(4) - self.columns;
        let mask: Vec<u8> = match odd {
            true => [&[7], &self.mask[..]].concat(),
            false => self.mask.chunks(self.columns).flat_map(|row| [row, &vec![7; gap]].concat()).collect(),
        };
        let mask = [&mask[..], &[0; 4]].concat();
        let mask = context.upload(&mask[..mask.len() / 4 * 4]);
        let scales = context.upload(&[&[f32::NAN], self.scales()].concat());
        (self.place(context, &self.x, odd), mask, scales)
    }

    fn place(&self, context: &Context, data: &[f32], odd: bool) -> Placed {
        let tensor = Tensor { data: data.to_vec(), shape: [1, 1, self.rows, self.columns] };
        Placed::input_as(context, &tensor, self.placement(odd), self.stored)
    }

    fn mask_view<'a>(&self, mask: &'a wgpu::Buffer, odd: bool) -> Option<TensorView<'a, 2>> {
        let view = TensorView::new(mask, DType::Bool, [self.rows, self.columns].map(|extent| extent as u32));
        let view = match odd {
            true => view.with_offset(1),
            false => view.with_strides([self.columns.next_multiple_of(4) as u64, 1]),
        };
        self.masked.then_some(view)
    }

    fn scale_view<'a>(&self, scales: &'a wgpu::Buffer) -> Option<TensorView<'a, 1>> {
        let count = self.scales().len() as u32;
        (count > 0).then(|| TensorView::f32(scales, [count]).with_offset(1))
    }

    pub fn run(&self, odd: bool) -> Named {
        self.run_on(context(), odd).expect("a softmax")
    }

    pub fn run_on(&self, context: &Context, odd: bool) -> Result<Named, Error> {
        let (x, mask, scales) = self.upload(context, odd);
        let p = Placed::output_as(context, [1, 1, self.rows, self.columns], self.placement(odd), self.stored);
        let [lse, entropy, loss] = [0; 3].map(|_| Placed::output(context, [1, 1, 1, self.rows], Placement::Odd));
        let support = context.upload(&vec![u32::MAX; self.rows]);
        let (labels, alphas) = self.upload_own(context);
        let lse_is_asked = self.lse && !self.is_sparse();
        let support_is_asked = self.entropy && self.is_sparse();
        let mut inputs = SoftmaxInputs::new(x.matrix_view());
        inputs.mask = self.mask_view(&mask, odd);
        inputs.row_scale = self.scale_view(&scales);
        let mut outputs = SoftmaxOutputs::new(p.matrix_view());
        (inputs.alpha, inputs.labels) = (self.alpha_view(&alphas), self.label_view(&labels));
        outputs.lse = lse_is_asked.then(|| lse.numbers_view());
        outputs.entropy = self.entropy.then(|| entropy.numbers_view());
        outputs.loss = self.labels.as_ref().map(|_| loss.numbers_view());
        outputs.support = support_is_asked.then(|| TensorView::new(&support, DType::U32, [self.rows as u32]));
        context.run(&Softmax::new(context, self.config)?.prepare(inputs, outputs)?)?;
        let mut out = vec![("p", vec![self.rows, self.columns], p.read(context, "p"))];
        if lse_is_asked {
            out.push(("lse", vec![self.rows], lse.read(context, "lse")));
        }
        if self.entropy {
            out.push(("entropy", vec![self.rows], entropy.read(context, "entropy")));
        }
        if self.labels.is_some() {
            out.push(("loss", vec![self.rows], loss.read(context, "loss")));
        }
        if support_is_asked {
            // Words of any numbers come back as floats.
            let words = context.download(&support)?.into_iter().map(|word| word.to_bits() as f32).collect();
            out.push(("support", vec![self.rows], words));
        }
        Ok(out)
    }

    /// labels and alpha on the device.
    fn upload_own(&self, context: &Context) -> (wgpu::Buffer, wgpu::Buffer) {
        let labels = context.upload(self.labels.as_deref().unwrap_or(&[0]));
        (labels, context.upload(&[&[f32::NAN], self.alpha_numbers()].concat()))
    }

    fn label_view<'a>(&self, labels: &'a wgpu::Buffer) -> Option<TensorView<'a, 1>> {
        self.labels.as_ref().map(|_| TensorView::new(labels, DType::U32, [self.rows as u32]))
    }

    fn alpha_view<'a>(&self, alphas: &'a wgpu::Buffer) -> Option<TensorView<'a, 1>> {
        let count = self.alpha_numbers().len() as u32;
        (count > 0).then(|| TensorView::f32(alphas, [count]).with_offset(1))
    }

    pub fn run_backward(&self, odd: bool) -> Named {
        self.run_backward_on(context(), odd).expect("a backward pass")
    }

    pub fn run_backward_on(&self, context: &Context, odd: bool) -> Result<Named, Error> {
        let (x, mask, scales) = self.upload(context, odd);
        let dp = self.place(context, &self.dp, odd);
        let [dlse, dentropy, dloss] = [&self.dlse, &self.dentropy, &self.dloss].map(|data| context.upload(data));
        let (labels, alphas) = self.upload_own(context);
        let alpha_count = self.alpha_numbers().len();
        let alpha_slopes = Placed::output(context, [1, 1, 1, alpha_count], Placement::Odd);
        let dx = Placed::output_as(context, [1, 1, self.rows, self.columns], self.placement(odd), self.stored);
        let count = self.scales().len();
        let slopes = Placed::output(context, [1, 1, 1, count], Placement::Odd);
        let per_row = |buffer| TensorView::f32(buffer, [self.rows as u32]);
        let mut inputs = SoftmaxBackwardInputs::new(x.matrix_view(), dp.matrix_view());
        inputs.mask = self.mask_view(&mask, odd);
        inputs.row_scale = self.scale_view(&scales);
        (inputs.alpha, inputs.labels) = (self.alpha_view(&alphas), self.label_view(&labels));
        inputs.dlse = (self.lse && !self.is_sparse()).then(|| per_row(&dlse));
        inputs.dentropy = self.entropy.then(|| per_row(&dentropy));
        inputs.dloss = self.labels.as_ref().map(|_| per_row(&dloss));
        let mut gradients = SoftmaxGradients::new(dx.matrix_view());
        gradients.drow_scale = (count > 0).then(|| slopes.numbers_view());
        gradients.dalpha = (alpha_count > 0).then(|| alpha_slopes.numbers_view());
        context.run(&SoftmaxBackward::new(context, self.config)?.prepare(inputs, gradients)?)?;
        let mut out = vec![("dx", vec![self.rows, self.columns], dx.read(context, "dx"))];
        if count > 0 {
            out.push(("drow_scale", vec![count], slopes.read(context, "drow_scale")));
        }
        if alpha_count > 0 {
            out.push(("dalpha", vec![alpha_count], alpha_slopes.read(context, "dalpha")));
        }
        Ok(out)
    }

    /// Both passes against their twins.
    pub fn check(&self, what: &str) {
        self.check_on(context(), what, &[false, true]);
    }

    pub fn check_on(&self, context: &Context, what: &str, placements: &[bool]) {
        let case = format!(
            "{what}: {} x {} {:?}, {:?}, alpha {:?}",
            self.rows, self.columns, self.config, self.scales, self.alphas
        );
        let orders = || (0..self.naive_runs).map(SumOrder::Shuffled);
        let want = softmax(&self.config, &self.host()).expect("the twin");
        let naive: Vec<_> =
            orders().map(|order| softmax_in::<f32>(&self.config, &self.host(), order).expect("the twin")).collect();
        let inputs = self.host_backward();
        let back = backward_reference::softmax_backward(&self.config, &inputs).expect("the twin");
        let naive_back: Vec<_> = orders()
            .map(|order| {
                backward_reference::softmax_backward_in::<f32>(&self.config, &inputs, order).expect("the twin")
            })
            .collect();

        // A weight exp(x) is off by (3 + 2|x|) ulp, the mean of |x| under the weights is at most the log of their number, a division adds
        // 2 ulp and a product one; a log n moves a score by 6 ulp of itself, a rounding by one.
        let bounds = if self.is_sparse() { self.sparse_bounds() } else { self.bounds() };
        let logs = (self.columns as f64).ln();
        let off = ULP * (10.0 + 2.0 * logs + 6.0 * bounds.score);
        let (relative, least) = rounding(self.stored);
        // An ulp of exp is one of what comes in: no gradient is more exact than what it is the difference of.
        let expected = |name: &str| -> (&Vec<f64>, Vec<Vec<f32>>, f64, f64) {
            let of = |pick: fn(&wgpu_attention::softmax::reference::HostOutputs<f32>) -> &Vec<f32>| {
                naive.iter().map(|out| pick(out).clone()).collect::<Vec<_>>()
            };
            let of_back = |pick: fn(&backward_reference::HostOutputs<f32>) -> &Vec<f32>| {
                naive_back.iter().map(|out| pick(out).clone()).collect::<Vec<_>>()
            };
            let absolute = off + 1.0 / f64::from(1 << 20);
            match name {
                "p" if self.is_sparse() => (&want.p, of(|out| &out.p), off + relative, off * bounds.steepness + least),
                "entropy" if self.is_sparse() => {
                    (&want.entropy, of(|out| &out.entropy), off, absolute + off * bounds.entropy)
                }
                "loss" => (&want.loss, of(|out| &out.loss), off, absolute * (1.0 + bounds.score)),
                "dalpha" => (&back.dalpha, of_back(|out| &out.dalpha), off, off * bounds.alpha),
                "p" if self.config.log => (&want.p, of(|out| &out.p), off + relative, absolute + least),
                "p" => (&want.p, of(|out| &out.p), off + relative, least),
                "lse" => (&want.lse, of(|out| &out.lse), off, absolute),
                "entropy" => (&want.entropy, of(|out| &out.entropy), off, absolute * (1.0 + logs)),
                "dx" => (&back.dx, of_back(|out| &out.dx), off + relative, off * bounds.gradient + least),
                _ => (&back.drow_scale, of_back(|out| &out.drow_scale), off, off * bounds.slope),
            }
        };
        for &odd in placements {
            let out = self.run_on(context, odd).expect("a softmax");
            let gradients = self.run_backward_on(context, odd).expect("a backward pass");
            for (name, shape, got) in out.iter().chain(&gradients) {
                if *name == "support" {
                    self.check_support(&out[0].2, &want.p, got, &case);
                    continue;
                }
                let (want, naive, floor, absolute_floor) = expected(name);
                let case = format!("{case}{}", if odd { ", odd" } else { "" });
                Expected { case: &case, name, shape, want, naive: &naive, floor, absolute_floor }.assert(got);
            }
        }
    }

    /// The support is how many p are above 0; p that are nearly 0 may be in or out.
    fn check_support(&self, p: &[f32], want: &[f64], got: &[f32], case: &str) {
        for (i, &got) in got.iter().enumerate() {
            let of_row = i * self.columns..(i + 1) * self.columns;
            let above = |least: f64| want[of_row.clone()].iter().filter(|p| **p > least).count() as f32;
            assert!(above(1e-5) <= got && got <= above(0.0) + above(-1.0) * 1e-6 + 1.0, "{case}: {got} of row {i}");
            if self.stored == DType::F32 {
                assert_eq!(p[of_row.clone()].iter().filter(|p| **p > 0.0).count() as f32, got, "{case}: row {i}");
                let sum: f64 = p[of_row].iter().map(|&p| f64::from(p)).sum();
                assert!(got == 0.0 || (sum - 1.0).abs() < 2e-6, "{case}: row {i} adds up to {sum}");
            }
        }
    }

    /// The same of sparsemax and entmax, whose p is [T + (α − 1) d]₊^(1/(α−1)): where that number moves, p does so by p^(2−α)/(α−1) as
    /// much. A score in the support is at most 1/(α−1) below the largest.
    fn sparse_bounds(&self) -> Bounds {
        let Bounds { score, .. } = self.bounds();
        let mut bounds = Bounds { score: 0.0, ..Bounds::default() };
        let out = softmax(&self.config, &self.host()).expect("the twin");
        for i in 0..self.rows {
            let alpha = match (self.config.kind, self.alphas) {
                (_, Scales::One) => self.alpha[0],
                (_, Scales::PerRow) => self.alpha[i],
                (SoftmaxKind::Entmax { alpha }, _) => alpha,
                _ => 2.0,
            };
            let e = f64::from(alpha) - 1.0;
            let depth = score.min(1.0 / e);
            bounds.score = bounds.score.max(depth);
            let d = |on: bool, data: &[f32]| if on { f64::from(data[i]).abs() } else { 0.0 };
            let (mut steep, mut all, mut logs, mut g) = (0.0_f64, 0.0, 0.0, 0.0_f64);
            for at in (i * self.columns..(i + 1) * self.columns).filter(|&at| out.p[at] > 0.0) {
                let (s, log) = (out.p[at].powf(1.0 - e), -out.p[at].ln());
                steep = steep.max(s);
                all += s;
                logs += s * (1.0 + log);
                g = g.max(f64::from(self.dp[at]).abs() + d(self.entropy, &self.dentropy) * log);
            }
            let g = 2.0 * g + d(self.labels.is_some(), &self.dloss);
            bounds.steepness = bounds.steepness.max(steep * (1.0 + e * depth));
            bounds.entropy = bounds.entropy.max(logs);
            let scale = score / f64::from(self.x.iter().filter(|x| x.is_finite()).fold(0.0_f32, |a, x| a.max(x.abs())));
            bounds.gradient = bounds.gradient.max(8.0 * scale.max(1e-3) * g * steep);
            bounds.slope += 8.0 * g * (1.0 + all) * (1.0 + score);
            bounds.alpha += 8.0 * g * (2.0 + (self.columns as f64).ln()).powi(2);
        }
        bounds
    }

    /// How large scores are, what a gradient of x is the sum of, and what one of row_scale.
    fn bounds(&self) -> Bounds {
        let mut bounds = Bounds::default();
        let logits = softmax(&SoftmaxConfig { log: false, ..self.config }, &self.host()).expect("the twin");
        for i in 0..self.rows {
            let of_row = i * self.columns..(i + 1) * self.columns;
            let seen = |at: &usize| (!self.masked || self.mask[*at] != 0) && self.x[*at] != f32::NEG_INFINITY;
            let counted = of_row.clone().filter(|&at| !self.masked || self.mask[at] != 0).count();
            let term = match self.config.scale {
                SoftmaxScale::KappaLogN { kappa } => f64::from(kappa) * (counted.max(1) as f64).ln(),
                SoftmaxScale::Temperature(tau) => 1.0 / f64::from(tau),
                _ => 1.0,
            };
            let factor = match self.scales {
                Scales::None => 1.0,
                Scales::One => self.row_scale[0].into(),
                Scales::PerRow => self.row_scale[i].into(),
            };
            let scale: f64 = (term * factor).abs();
            let (mut largest_x, mut sum, mut largest_dp, mut of_slope) = (0.0_f64, 0.0_f64, 0.0_f64, 0.0_f64);
            let d = |on: bool, data: &[f32]| if on { f64::from(data[i]).abs() } else { 0.0 };
            let logs = (self.columns as f64).ln();
            for at in of_row.clone().filter(seen) {
                largest_x = largest_x.max(f64::from(self.x[at]).abs());
                largest_dp = largest_dp.max(f64::from(self.dp[at]).abs());
                sum += f64::from(self.dp[at]).abs();
            }
            let along_p = if self.config.log { sum } else { 2.0 * largest_dp };
            let along_p =
                along_p + d(self.lse, &self.dlse) + d(self.entropy, &self.dentropy) * (logs + 2.0 * scale * largest_x);
            for at in of_row.filter(seen) {
                let own = logits.p[at] * along_p + if self.config.log { f64::from(self.dp[at]).abs() } else { 0.0 };
                bounds.gradient = bounds.gradient.max(scale * own);
                of_slope += own * largest_x;
            }
            bounds.score = bounds.score.max(scale * largest_x);
            let slope = term.abs() * of_slope;
            bounds.slope = if self.scales == Scales::One { bounds.slope + slope } else { bounds.slope.max(slope) };
        }
        bounds
    }
}

#[derive(Default)]
struct Bounds {
    /// What p moves by, what the entropy does, and what flows into alpha, where a threshold moves by 1.
    steepness: f64,
    entropy: f64,
    alpha: f64,
    score: f64,
    gradient: f64,
    slope: f64,
}
