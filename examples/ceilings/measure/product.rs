//! A matrix product of random numbers, checked on some rows against the f64 twin.

use rand::{Rng, SeedableRng, rngs::StdRng};
use rand_distr::StandardNormal;
use wgpu_attention::matmul::reference::{HostInputs, matmul_row};
use wgpu_attention::reference::SumOrder;
use wgpu_attention::{
    Context, DType, HostView, MatMul, MatMulConfig, MatMulInputs, MatMulOutputs, Matrices, Prepared, TensorView, wgpu,
};

use super::super::harness::Failure;
use super::super::harness::stored::{allocate, round, rounding};

/// Rows that are compared, spread over the product.
const ROWS: usize = 4;

/// A product [m, k] x [k, n] on the device.
pub struct Product {
    context: Context,
    size: [u32; 3],
    dtype: DType,
    matrices: Matrices,
    host: [Vec<f32>; 2],
    device: [wgpu::Buffer; 3],
}

impl Product {
    /// `[m, n, k]`, and what all three are stored as.
    pub fn new(context: &Context, size: [u32; 3], dtype: DType, matrices: Matrices) -> Result<Self, Failure> {
        let [m, n, k] = size.map(|extent| extent as usize);
        let mut rng = StdRng::seed_from_u64(1);
        let mut host = [m * k, k * n].map(|count| (0..count).map(|_| rng.sample(StandardNormal)).collect::<Vec<f32>>());
        host.iter_mut().for_each(|data| round(data, dtype));
        let (a, b) = (context.upload_as(&host[0], dtype)?, context.upload_as(&host[1], dtype)?);
        let device = [a, b, allocate(context, m * n, dtype)];
        Ok(Self { context: context.clone(), size, dtype, matrices, host, device })
    }

    pub fn prepare(&self) -> Result<Prepared<'_>, Failure> {
        let ([m, n, k], [a, b, c]) = (self.size, &self.device);
        let view = |buffer, rows, columns| TensorView::new(buffer, self.dtype, [1, 1, rows, columns]);
        let inputs = MatMulInputs::new(view(a, m, k), view(b, k, n));
        let outputs = MatMulOutputs { c: view(c, m, n) };
        Ok(MatMul::new(&self.context, MatMulConfig::new().matrices(self.matrices))?.prepare(inputs, outputs)?)
    }

    /// Runs the product and compares rows of it: an element of k terms of size about 1 may be off by the rounding of k
    /// sums of size √k, all to one side; where factors are rounded to f16, k terms are off by 2⁻¹¹ at random, and ten times that
    /// is rare enough. Then c is rounded.
    pub fn verify(&self, prepared: &Prepared<'_>) -> Result<(), Failure> {
        self.context.run(prepared)?;
        let c = self.context.download_as(&self.device[2], self.dtype)?;
        let [m, n, k] = self.size.map(|extent| extent as usize);
        let inputs =
            HostInputs::new(HostView::new(&self.host[0], [1, 1, m, k])?, HostView::new(&self.host[1], [1, 1, k, n])?);
        let of_factors = if self.matrices == Matrices::None { 0.0 } else { 10.0 / f64::from(1 << 11) };
        let allowed = f64::from(f32::EPSILON) * (k as f64).powf(1.5) + of_factors * (k as f64).sqrt();
        let [relative, absolute] = rounding(self.dtype);
        for row in (0..ROWS).map(|i| i * (m - 1) / (ROWS - 1)) {
            let want = matmul_row::<f64>(&MatMulConfig::new(), &inputs, [0, 0, row], SumOrder::InOrder)?;
            for (column, (want, got)) in want.iter().zip(&c[row * n..]).enumerate() {
                let error = (f64::from(*got) - want).abs();
                if error.is_nan() || error > allowed + relative * want.abs() + absolute {
                    let place = format!("[{row}, {column}]");
                    return Err(Failure::Failed(format!("matmul {:?} at {place}: got {got}, want {want}", self.size)));
                }
            }
        }
        Ok(())
    }
}
