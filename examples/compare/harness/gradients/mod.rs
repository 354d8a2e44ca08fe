//! Backward passes: the calls, and the check of every gradient against the twin.
//!
//! The loss that is checked is of some rows alone, or of all where the twin is cheap: the gradient of o is 0 in the others. What the twin
//! says of these rows is then all there is, and every number of every gradient is compared. Timed is the loss of all rows.

mod gated;
mod linear;
mod softmax;

use std::ops::Range;
use std::time::Instant;

use wgpu_attention::reference::{Real, SumOrder};
use wgpu_attention::{Context, DType, HostView, Prepared, Result, TensorView, wgpu};

use gated::GatedPass;
use linear::LinearPass;
use softmax::SoftmaxPass;

use super::case::{Arithmetic, order, row_parts};
use super::stored::{allocate, rounding};
use super::tensors::{HostTensors, Shape, Tensors, clear, elements, normal, view};
use super::variants::{Kind, Variant};
use super::verify::{Allowance, Checked, Errors, F16_GRADIENTS, TWIN_MEMORY, differences, largest};
use super::{Failure, parallel};

/// Multiply-adds of the twin within which every row is compared.
const WORK_FOR_ALL: u64 = 1 << 26;
const NAIVE_RUNS: u64 = 4;
/// Rows that the twin computes at once, at most.
const ROWS_AT_ONCE: u64 = 64;
/// By how much sums over a head may differ that are equal but for rounding, relative to the sum of their terms without signs.
const SUMS: f64 = 1e-5;
/// The same of two products whose factors are rounded to f16.
const F16_SUMS: f64 = 1.0 / (1 << 10) as f64;

/// A variant's backward pass on tensors.
pub struct Gradients<'t> {
    tensors: &'t Tensors,
    pass: Box<dyn Pass + 't>,
    /// The gradient of o.
    dout: (Vec<f32>, wgpu::Buffer),
    /// The same, but 0 in all rows except these.
    of_some: wgpu::Buffer,
    rows: Vec<[usize; 3]>,
}

/// A backward pass, and the forward pass whose results it reads.
trait Pass: Sync {
    fn forward(&self) -> Result<Prepared<'_>>;

    fn backward<'a>(&'a self, dout: TensorView<'a, 4>) -> Result<Prepared<'a>>;

    /// What it writes.
    fn gradients(&self) -> &[Gradient];

    /// Whether its products are those of cooperative matrices.
    fn by_matrices(&self) -> bool {
        false
    }

    /// Multiply-adds that the twin spends on a row, and bytes that it holds meanwhile.
    fn row_cost(&self) -> [u64; 2];

    /// What the loss of one row adds to each gradient.
    fn row(&self, row: &Row, arithmetic: Arithmetic) -> Result<Vec<Addend>>;
}

struct Gradient {
    name: &'static str,
    elements: usize,
    buffer: wgpu::Buffer,
}

impl Gradient {
    fn new<const RANK: usize>(context: &Context, name: &'static str, shape: &Shape, extents: [u32; RANK]) -> Self {
        let elements = elements(extents);
        Self { name, elements, buffer: allocate(context, elements, shape.dtype) }
    }

    /// What it is compared with as one. Those of maps are: keys that are all shifted alike change no softmax, so that dbeta_k is there a
    /// sum that cancels, of which nothing is left but rounding.
    fn compared_as(&self) -> &'static str {
        if self.name.starts_with("dgamma") || self.name.starts_with("dbeta") { "maps" } else { self.name }
    }

    fn view<const RANK: usize>(&self, shape: &Shape, extents: [u32; RANK]) -> TensorView<'_, RANK> {
        TensorView::new(&self.buffer, shape.dtype, extents)
    }
}

/// Numbers that are added to a gradient from one of its elements on.
struct Addend {
    gradient: usize,
    first: usize,
    numbers: Vec<f64>,
}

impl Addend {
    fn new<T: Real>(gradient: usize, first: usize, numbers: &[T]) -> Self {
        Self { gradient, first, numbers: numbers.iter().map(|x| x.to_f64()).collect() }
    }
}

/// A row of the output: what the twin sees of a call that has it alone, over the keys that it sees.
struct Row<'t> {
    shape: &'t Shape,
    /// Batch, head and position.
    at: [usize; 3],
    dout: &'t [f32],
    /// As forward has stored it, where that is in 16 bits: what backward is given is not what the twin makes.
    o: Option<&'t [f32]>,
}

impl<'t> Row<'t> {
    fn len(&self) -> usize {
        self.shape.len as usize
    }

    fn dim(&self) -> usize {
        self.shape.head_dim as usize
    }

    /// Its place among all rows.
    fn index(&self) -> usize {
        let [b, h, i] = self.at;
        (b * self.shape.heads as usize + h) * self.len() + i
    }

    fn keys(&self) -> Range<usize> {
        0..if self.shape.causal { self.at[2] + 1 } else { self.len() }
    }

    /// The place of its first key among all keys.
    fn first_key(&self) -> usize {
        let [b, h, _] = self.at;
        let group = (self.shape.heads / self.shape.kv_heads) as usize;
        (b * self.shape.kv_heads as usize + h / group) * self.len()
    }

    /// Its part of a tensor like q.
    fn of_row(&self, data: &'t [f32]) -> HostView<'t, f32, 4> {
        view(&data[self.index() * self.dim()..][..self.dim()], [1, 1, 1, self.shape.head_dim])
    }

    /// The part of a tensor like k that some of its keys have.
    fn of_keys(&self, data: &'t [f32], keys: Range<usize>) -> HostView<'t, f32, 4> {
        let (first, count) = (self.first_key() + keys.start, keys.len());
        view(&data[first * self.dim()..][..count * self.dim()], [1, 1, count as u32, self.shape.head_dim])
    }

    fn dout(&self) -> HostView<'t, f32, 4> {
        self.of_row(self.dout)
    }

    /// By how much dout·o is off as o is stored, of which a closure tells what it is.
    fn off_by(&self, exact: impl FnOnce() -> Result<Vec<f64>>) -> Result<Option<f32>> {
        let Some(stored) = self.o else { return Ok(None) };
        let [stored, dout] = [stored, self.dout].map(|data| &data[self.index() * self.dim()..][..self.dim()]);
        let off = |((&stored, &dout), o)| f64::from(dout) * (f64::from(stored) - o);
        Ok(Some(stored.iter().zip(dout).zip(exact()?).map(off).sum::<f64>() as f32))
    }
}

impl<'t> Gradients<'t> {
    /// Random tensors in multiples of 2⁻⁸: what a gated attention unit's maps, in those of 2⁻⁶, make of them is exact in f32, so that the
    /// twin may be given their results.
    pub fn tensors(context: &Context, shape: Shape) -> Result<Tensors, Failure> {
        Tensors::check(context, &shape)?;
        let mut host = HostTensors::random(&shape);
        for data in [&mut host.q, &mut host.k, &mut host.v] {
            data.iter_mut().for_each(|x| *x = (*x * 256.0).round() / 256.0);
        }
        Tensors::upload(context, shape, host)
    }

    /// On [`tensors`](Self::tensors).
    pub fn new(context: &Context, variant: &Variant, tensors: &'t Tensors) -> Result<Self, Failure> {
        if let Some(reason) = variant.without_gradients() {
            return Err(Failure::Refused(reason.into()));
        }
        let pass: Box<dyn Pass + 't> = match variant.kind {
            Kind::Linear(feature_map) => Box::new(LinearPass::new(context, feature_map, tensors)?),
            Kind::Softmax(scale) => Box::new(SoftmaxPass::new(context, scale, tensors)?),
            _ => Box::new(GatedPass::new(context, variant, tensors)?),
        };
        let (shape, dim) = (&tensors.shape, tensors.shape.head_dim as usize);
        let parts = row_parts(tensors, pass.row_cost()[0], WORK_FOR_ALL);
        let rows: Vec<[usize; 3]> = parts.iter().map(|part| [part.head[0], part.head[1], part.rows[0]]).collect();
        let dout = tensors.own(context, normal(4, elements(shape.q())))?;
        let mut of_some = vec![0.0; dout.0.len()];
        for &at in &rows {
            let first = Row { shape, at, dout: &dout.0, o: None }.index() * dim;
            of_some[first..first + dim].copy_from_slice(&dout.0[first..first + dim]);
        }
        let of_some = context.upload_as(&of_some, shape.dtype)?;
        Ok(Self { tensors, pass, dout, of_some, rows })
    }

    /// The call that leaves what backward reads.
    pub fn forward(&self) -> Result<Prepared<'_>> {
        self.pass.forward()
    }

    /// The gradients of a loss of all rows.
    pub fn backward(&self) -> Result<Prepared<'_>> {
        self.pass.backward(self.like_o(&self.dout.1))
    }

    fn like_o<'a>(&self, buffer: &'a wgpu::Buffer) -> TensorView<'a, 4> {
        TensorView::new(buffer, self.tensors.shape.dtype, self.tensors.shape.q())
    }

    /// Runs both passes and compares each gradient with the twin: the largest error may be three times that of naive f32 runs.
    pub fn verify(&self, context: &Context) -> Result<Checked, Failure> {
        let start = Instant::now();
        let [backward, of_all] = [self.pass.backward(self.like_o(&self.of_some))?, self.backward()?];
        self.tensors.clear_outputs(context);
        clear(context, self.pass.gradients().iter().map(|gradient| &gradient.buffer));
        context.run(&self.forward()?)?;
        context.run(&backward)?;
        let first_calls = start.elapsed();
        let got = self.pass.gradients().iter().map(|gradient| self.download(context, &gradient.buffer));
        let got: Vec<Vec<f64>> = got.collect::<Result<_>>()?;

        let start = Instant::now();
        let o = context.download_as(&self.tensors.o, self.tensors.shape.dtype)?;
        let o = (self.tensors.shape.dtype != DType::F32).then_some(&*o);
        let want = self.twin(Arithmetic::Truth, o)?;
        let mut naive = vec![0.0f64; want.len()];
        for seed in 0..NAIVE_RUNS {
            for (most, (run, want)) in naive.iter_mut().zip(self.twin(Arithmetic::Naive(seed), o)?.iter().zip(&want)) {
                *most = most.max(largest(differences(run, want)));
            }
        }
        let twin_time = start.elapsed();

        let Shape { len, head_dim, dtype, .. } = self.tensors.shape;
        // Of weights, as for the forward pass, and of dot products, which differences are taken of.
        let ulps = 5.0 + 2.0 * f64::from(len).ln() + 6.0 * f64::from(head_dim).sqrt();
        let products = if self.pass.by_matrices() { F16_GRADIENTS } else { [0.0; 2] };
        let mut worst: Option<[Errors; 2]> = None;
        let mut first = 0;
        for of in self.pass.gradients().chunk_by(|a, b| a.compared_as() == b.compared_as()) {
            let range = first..first + of.len();
            first = range.end;
            let (got, want) = (got[range.clone()].concat(), want[range.clone()].concat());
            let naive = largest(naive[range].iter().copied());
            let allowance = Allowance { naive: 1.5 * naive, ulps, products, dtype };
            let absolute = allowance.judge(&got, &want).map_err(|failure| failure.of(of[0].name))?;
            let relative = absolute.relative_to(largest(want));
            if worst.is_none_or(|[_, worst]| relative.max > worst.max) {
                worst = Some([absolute, relative]);
            }
        }
        let [absolute, relative] = worst.ok_or_else(|| Failure::Failed("nothing was compared".into()))?;
        context.run(&of_all)?;
        self.compare_sums(context)?;
        Ok(Checked {
            rows: self.rows.len(),
            all_rows: self.rows.len() == elements(self.tensors.shape.rows()),
            absolute,
            relative,
            mean_entropy: None,
            twin_time,
            twin_work: self.pass.row_cost()[0] * self.rows.len() as u64,
            by_matrices: self.pass.by_matrices(),
            first_calls,
        })
    }

    fn download(&self, context: &Context, buffer: &wgpu::Buffer) -> Result<Vec<f64>> {
        Ok(context.download_as(buffer, self.tensors.shape.dtype)?.into_iter().map(f64::from).collect())
    }

    /// The gradients of the loss of some rows, summed as the arithmetic has it.
    fn twin(&self, arithmetic: Arithmetic, o: Option<&[f32]>) -> Result<Vec<Vec<f64>>> {
        let (in_f64, order) = order(arithmetic);
        let mut sums: Vec<Vec<f64>> =
            self.pass.gradients().iter().map(|gradient| vec![0.0; gradient.elements]).collect();
        let at_once = (TWIN_MEMORY / self.pass.row_cost()[1].max(1)).clamp(1, ROWS_AT_ONCE) as usize;
        for some in order.indices(self.rows.len()).chunks(at_once) {
            let row = |at| Row { shape: &self.tensors.shape, at, dout: &self.dout.0, o };
            let rows = parallel::map(some, at_once, |&at| self.pass.row(&row(self.rows[at]), arithmetic));
            for Addend { gradient, first, numbers } in
                rows.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten()
            {
                for (sum, number) in sums[gradient][first..].iter_mut().zip(numbers) {
                    *sum = if in_f64 { *sum + number } else { f64::from((*sum + number) as f32) };
                }
            }
        }
        Ok(sums)
    }

    /// Of the loss of all rows: o is linear in v, so that Σ v·dv over the keys of a head is Σ o·dout over its rows.
    fn compare_sums(&self, context: &Context) -> Result<(), Failure> {
        let Shape { heads, kv_heads, dtype, .. } = self.tensors.shape;
        let of_sums = if self.pass.by_matrices() { F16_SUMS } else { SUMS };
        let dv = self.pass.gradients().iter().find(|gradient| gradient.name == "dv");
        let dv = dv.ok_or_else(|| Failure::Failed("no dv".into()))?;
        let [o, dv] = [self.download(context, &self.tensors.o)?, self.download(context, &dv.buffer)?];
        let of_head = elements(self.tensors.shape.kv()) / (self.tensors.shape.batch * kv_heads) as usize;
        let group = (heads / kv_heads) as usize;
        let of_keys = self.tensors.host.v.chunks(of_head).zip(dv.chunks(of_head));
        let of_rows = self.dout.0.chunks(group * of_head).zip(o.chunks(group * of_head));
        let sums = |(given, made): (&[f32], &[f64])| {
            given.iter().zip(made).fold([0.0; 2], |[sum, terms], (&x, y)| {
                let term = f64::from(x) * y;
                [sum + term, terms + term.abs()]
            })
        };
        for (head, (of_keys, of_rows)) in of_keys.zip(of_rows).enumerate() {
            let ([a, a_terms], [b, b_terms]) = (sums(of_keys), sums(of_rows));
            let allowed = (of_sums + rounding(dtype)[0]) * (a_terms + b_terms);
            let off = (a - b).abs();
            if off > allowed || off.is_nan() {
                return Err(Failure::Failed(format!(
                    "in head {head} Σ v·dv is {a:.6e} and Σ o·dout {b:.6e}, which differ by more than {allowed:.1e}"
                )));
            }
        }
        Ok(())
    }
}

/// What a closure makes of the arithmetic.
fn in_arithmetic<R>(arithmetic: Arithmetic, exact: impl FnOnce(SumOrder) -> R, naive: impl FnOnce(SumOrder) -> R) -> R {
    match order(arithmetic) {
        (true, order) => exact(order),
        (false, order) => naive(order),
    }
}
