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
    pub x: Vec<f32>,
    pub mask: Vec<u8>,
    pub row_scale: Vec<f32>,
    pub dp: Vec<f32>,
    pub dlse: Vec<f32>,
    pub dentropy: Vec<f32>,
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
            x: normal(1, rows * columns).iter().map(|x| 2.0 * x).collect(),
            mask,
            row_scale: normal(3, rows).iter().map(|x| 0.7 * x).collect(),
            dp: normal(4, rows * columns),
            dlse: normal(5, rows),
            dentropy: normal(6, rows),
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
        inputs
    }

    fn host_backward(&self) -> backward_reference::HostInputs<'_> {
        let HostInputs { x, mask, row_scale, .. } = self.host();
        let per_row = |data| HostView::new(data, [self.rows]).expect("rows");
        let mut inputs = backward_reference::HostInputs::of(x);
        (inputs.mask, inputs.row_scale) = (mask, row_scale);
        inputs.dp = Some(HostView::new(&self.dp, [self.rows, self.columns]).expect("rows"));
        inputs.dlse = self.lse.then(|| per_row(&self.dlse));
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
        let [lse, entropy] = [0; 2].map(|_| Placed::output(context, [1, 1, 1, self.rows], Placement::Odd));
        let mut inputs = SoftmaxInputs::new(x.matrix_view());
        inputs.mask = self.mask_view(&mask, odd);
        inputs.row_scale = self.scale_view(&scales);
        let mut outputs = SoftmaxOutputs::new(p.matrix_view());
        outputs.lse = self.lse.then(|| lse.numbers_view());
        outputs.entropy = self.entropy.then(|| entropy.numbers_view());
        context.run(&Softmax::new(context, self.config)?.prepare(inputs, outputs)?)?;
        let mut out = vec![("p", vec![self.rows, self.columns], p.read(context, "p"))];
        if self.lse {
            out.push(("lse", vec![self.rows], lse.read(context, "lse")));
        }
        if self.entropy {
            out.push(("entropy", vec![self.rows], entropy.read(context, "entropy")));
        }
        Ok(out)
    }

    pub fn run_backward(&self, odd: bool) -> Named {
        self.run_backward_on(context(), odd).expect("a backward pass")
    }

    pub fn run_backward_on(&self, context: &Context, odd: bool) -> Result<Named, Error> {
        let (x, mask, scales) = self.upload(context, odd);
        let dp = self.place(context, &self.dp, odd);
        let [dlse, dentropy] = [&self.dlse, &self.dentropy].map(|data| context.upload(data));
        let dx = Placed::output_as(context, [1, 1, self.rows, self.columns], self.placement(odd), self.stored);
        let count = self.scales().len();
        let slopes = Placed::output(context, [1, 1, 1, count], Placement::Odd);
        let per_row = |buffer| TensorView::f32(buffer, [self.rows as u32]);
        let mut inputs = SoftmaxBackwardInputs::new(x.matrix_view(), dp.matrix_view());
        inputs.mask = self.mask_view(&mask, odd);
        inputs.row_scale = self.scale_view(&scales);
        inputs.dlse = self.lse.then(|| per_row(&dlse));
        inputs.dentropy = self.entropy.then(|| per_row(&dentropy));
        let mut gradients = SoftmaxGradients::new(dx.matrix_view());
        gradients.drow_scale = (count > 0).then(|| slopes.numbers_view());
        context.run(&SoftmaxBackward::new(context, self.config)?.prepare(inputs, gradients)?)?;
        let mut out = vec![("dx", vec![self.rows, self.columns], dx.read(context, "dx"))];
        if count > 0 {
            out.push(("drow_scale", vec![count], slopes.read(context, "drow_scale")));
        }
        Ok(out)
    }

    /// Both passes against their twins.
    pub fn check(&self, what: &str) {
        self.check_on(context(), what, &[false, true]);
    }

    pub fn check_on(&self, context: &Context, what: &str, placements: &[bool]) {
        let case = format!("{what}: {} x {} {:?}, {:?}", self.rows, self.columns, self.config, self.scales);
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
        let bounds = self.bounds();
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
                let (want, naive, floor, absolute_floor) = expected(name);
                let case = format!("{case}{}", if odd { ", odd" } else { "" });
                Expected { case: &case, name, shape, want, naive: &naive, floor, absolute_floor }.assert(got);
            }
        }
    }

    /// How large scores are, what a gradient of x is the sum of, and what one of row_scale.
    fn bounds(&self) -> Bounds {
        let mut bounds = Bounds { score: 0.0, gradient: 0.0, slope: 0.0 };
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

struct Bounds {
    score: f64,
    gradient: f64,
    slope: f64,
}
