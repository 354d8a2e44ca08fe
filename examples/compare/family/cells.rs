//! The calls of one row length, the tensors that they share, and what the twins say of them.

use wgpu_attention::{Context, DType, HostView, Prepared, Result, TensorView, gumbel_softmax, wgpu};

use super::gumbel::{Draw, DrawBackward};
use super::margin::{MarginBackward, MarginForward, MarginTensors};
use super::multilabel::{Loss, LossBackward};
use super::softmax::{Backward, Forward};
use super::variants::{Op, Variant};
use crate::harness::Failure;
use crate::harness::case::Arithmetic;
use crate::harness::stored::{allocate, round};
use crate::harness::tensors::{clear, normal, within_memory};

/// Elements within which a twin is asked about every row.
const SHOWN: usize = 1 << 20;
/// One class in so many is positive.
const POSITIVE: usize = 50;

/// Numbers of one output, and what it is stored as.
#[derive(Clone, Debug)]
pub struct Numbers {
    pub stored: DType,
    pub of: Vec<f64>,
}

/// A variant on tensors.
pub trait Cell: Sync {
    /// The call that is timed.
    fn prepare(&self) -> Result<Prepared<'_>>;

    /// Runs what leaves something that the call reads.
    fn run_before(&self, _context: &Context) -> Result<()> {
        Ok(())
    }

    /// The call whose result is compared.
    fn prepare_checked(&self) -> Result<Prepared<'_>> {
        self.prepare()
    }

    /// The rows that are compared.
    fn shown(&self) -> &[usize];

    /// Of those the numbers that the last call has left.
    fn got(&self, context: &Context) -> Result<Vec<Numbers>>;

    /// What the twin has for these rows.
    fn twin(&self, rows: &[usize], arithmetic: Arithmetic) -> Result<Vec<Numbers>>;

    /// Multiply-adds or exponentials of the twin for a row, about.
    fn row_work(&self) -> u64;

    /// What numbers may be off by, in ULP, for which naive f32 does not stand: WGSL's exp and log.
    fn ulps(&self) -> f64;
}

/// Tensors of rows.
pub struct Tensors {
    pub shape: [u32; 2],
    pub dtype: DType,
    pub shown: Vec<usize>,
    pub largest: f64,
    pub host: Host,
    pub x: wgpu::Buffer,
    pub dy: wgpu::Buffer,
    pub labels: wgpu::Buffer,
    pub dloss: wgpu::Buffer,
    pub key: wgpu::Buffer,
    /// Outputs of a number an element, and of one a row.
    pub out: wgpu::Buffer,
    pub of_rows: [wgpu::Buffer; 3],
}

/// The same on the host, as it is stored.
pub struct Host {
    pub x: Vec<f32>,
    pub dy: Vec<f32>,
    pub labels: Vec<u8>,
    pub dloss: Vec<f32>,
    pub key: [u32; 5],
}

impl Tensors {
    pub fn new(context: &Context, [rows, len]: [u32; 2], dtype: DType) -> Result<Self, Failure> {
        let elements = rows as usize * len as usize;
        let (mut x, mut dy) = (normal(1, elements), normal(2, elements));
        round(&mut x, dtype);
        round(&mut dy, dtype);
        let labels =
            (0..elements).map(|at| u8::from((at * 7919 + at / len as usize).is_multiple_of(POSITIVE))).collect();
        let host = Host { x, dy, labels, dloss: normal(3, rows as usize), key: gumbel_softmax::key(42, 0, 7, 0) };
        let largest = f64::from(host.x.iter().fold(0.0_f32, |most, x| most.max(x.abs())));
        within_memory(context, || {
            Ok(Self {
                shape: [rows, len],
                dtype,
                shown: spread(rows as usize, SHOWN / len as usize),
                largest,
                x: context.upload_as(&host.x, dtype)?,
                dy: context.upload_as(&host.dy, dtype)?,
                labels: context.upload(&host.labels),
                dloss: context.upload(&host.dloss),
                key: context.upload(&host.key),
                out: allocate(context, elements, dtype),
                of_rows: [0; 3].map(|_| context.allocate(rows as usize)),
                host,
            })
        })
    }

    pub fn clear_outputs(&self, context: &Context) {
        clear(context, std::iter::once(&self.out).chain(&self.of_rows));
    }

    pub fn view<'a>(&self, buffer: &'a wgpu::Buffer) -> TensorView<'a, 2> {
        TensorView::new(buffer, self.dtype, self.shape)
    }

    pub fn row<'a>(&self, buffer: &'a wgpu::Buffer) -> TensorView<'a, 1> {
        TensorView::f32(buffer, [self.shape[0]])
    }

    /// These rows of what lies row by row.
    pub fn of<T: Copy>(&self, data: &[T], rows: &[usize]) -> Vec<T> {
        let len = self.shape[1] as usize;
        rows.iter().flat_map(|row| &data[row * len..(row + 1) * len]).copied().collect()
    }

    pub fn host<'a, T: Copy>(&self, data: &'a [T]) -> HostView<'a, T, 2> {
        let len = self.shape[1] as usize;
        HostView::new(data, [data.len() / len, len]).expect("whole rows")
    }

    /// These rows of the output that has a number an element.
    pub fn got(&self, context: &Context, rows: &[usize]) -> Result<Numbers> {
        let out = context.download_as(&self.out, self.dtype)?;
        Ok(Numbers { stored: self.dtype, of: self.of(&out, rows).into_iter().map(f64::from).collect() })
    }

    /// ULP of WGSL's exp where its argument is the distance of two numbers of x.
    pub fn exp_ulps(&self) -> f64 {
        3.0 + 4.0 * self.largest
    }
}

/// So many indices below `count`, the first and the last among them; all, if that is as many.
pub fn spread(count: usize, wanted: usize) -> Vec<usize> {
    let wanted = wanted.clamp(1, count);
    (0..wanted).map(|index| index * (count - 1) / (wanted - 1).max(1)).collect()
}

/// Sets a variant up, on tensors of rows or on those of a margin softmax.
pub fn cell<'t>(
    context: &Context,
    variant: &Variant,
    rows: &'t Tensors,
    margin: Option<&'t MarginTensors>,
) -> Result<Box<dyn Cell + 't>, Failure> {
    Ok(match (variant.op, variant.is_backward) {
        (Op::Softmax(kind), false) => Box::new(Forward::new(context, kind, rows)?),
        (Op::Softmax(kind), true) => Box::new(Backward::new(context, kind, rows)?),
        (Op::Gumbel(kind), false) => Box::new(Draw::new(context, kind, rows)?),
        (Op::Gumbel(kind), true) => Box::new(DrawBackward::new(context, kind, rows)?),
        (Op::Multilabel, false) => Box::new(Loss::new(context, rows)?),
        (Op::Multilabel, true) => Box::new(LossBackward::new(context, rows)?),
        (Op::Margin, is_backward) => {
            let margin = margin.ok_or_else(|| Failure::Refused("its class weights have no room".into()))?;
            let forward = MarginForward::new(context, margin)?;
            if is_backward { Box::new(MarginBackward::new(context, forward)?) } else { Box::new(forward) }
        }
    })
}

/// The numbers of a twin's outputs, in f64 or in naive f32.
macro_rules! twin {
    ($arithmetic:expr, $twin:ident($config:expr, $inputs:expr) => [$($output:ident: $stored:expr),+]) => {{
        use wgpu_attention::reference::{Real as _, SumOrder};
        use $crate::family::cells::Numbers;
        use $crate::harness::case::Arithmetic;
        match $arithmetic {
            Arithmetic::Truth => {
                let out = $twin::<f64>($config, $inputs, SumOrder::InOrder)?;
                vec![$(Numbers { stored: $stored, of: out.$output }),+]
            }
            Arithmetic::Naive(seed) => {
                let out = $twin::<f32>($config, $inputs, SumOrder::Shuffled(seed))?;
                let wide = |of: Vec<f32>| of.into_iter().map(|x| x.to_f64()).collect();
                vec![$(Numbers { stored: $stored, of: wide(out.$output) }),+]
            }
        }
    }};
}
pub(super) use twin;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_are_compared_lie_from_first_to_last() {
        assert_eq!(spread(5, 9), [0, 1, 2, 3, 4]);
        assert_eq!(spread(101, 3), [0, 50, 100]);
        assert_eq!(spread(7, 0), [0]);
    }
}
