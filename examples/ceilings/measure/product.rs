//! A matrix product of random numbers, checked on some rows against the f64 twin.

use rand::{Rng, SeedableRng, rngs::StdRng};
use rand_distr::StandardNormal;
use wgpu_attention::matmul::reference::{HostInputs, matmul_row};
use wgpu_attention::reference::SumOrder;
use wgpu_attention::{
    Context, HostView, MatMul, MatMulConfig, MatMulInputs, MatMulOutputs, Prepared, TensorView, wgpu,
};

use super::super::harness::Failure;

/// Rows that are compared, spread over the product.
const ROWS: usize = 4;

/// A product [m, k] x [k, n] on the device.
pub struct Product {
    context: Context,
    size: [u32; 3],
    host: [Vec<f32>; 2],
    device: [wgpu::Buffer; 3],
}

impl Product {
    /// `[m, n, k]`.
    pub fn new(context: &Context, size: [u32; 3]) -> Self {
        let [m, n, k] = size.map(|extent| extent as usize);
        let mut rng = StdRng::seed_from_u64(1);
        let host = [m * k, k * n].map(|count| (0..count).map(|_| rng.sample(StandardNormal)).collect::<Vec<f32>>());
        let [a, b] = host.each_ref().map(|data| context.upload(data));
        Self { context: context.clone(), size, host, device: [a, b, context.allocate(m * n)] }
    }

    pub fn prepare(&self) -> Result<Prepared<'_>, Failure> {
        let ([m, n, k], [a, b, c]) = (self.size, &self.device);
        let inputs = MatMulInputs::new(TensorView::f32(a, [1, 1, m, k]), TensorView::f32(b, [1, 1, k, n]));
        let outputs = MatMulOutputs { c: TensorView::f32(c, [1, 1, m, n]) };
        Ok(MatMul::new(&self.context, MatMulConfig::new())?.prepare(inputs, outputs)?)
    }

    /// Runs the product and compares rows of it: an element of k terms of size about 1 may be off by the rounding of k
    /// sums of size √k, all to one side.
    pub fn verify(&self, prepared: &Prepared<'_>) -> Result<(), Failure> {
        self.context.run(prepared)?;
        let c = self.context.download(&self.device[2])?;
        let [m, n, k] = self.size.map(|extent| extent as usize);
        let inputs =
            HostInputs::new(HostView::new(&self.host[0], [1, 1, m, k])?, HostView::new(&self.host[1], [1, 1, k, n])?);
        let allowed = f64::from(f32::EPSILON) * (k as f64).powf(1.5);
        for row in (0..ROWS).map(|i| i * (m - 1) / (ROWS - 1)) {
            let want = matmul_row::<f64>(&MatMulConfig::new(), &inputs, [0, 0, row], SumOrder::InOrder)?;
            for (column, (want, got)) in want.iter().zip(&c[row * n..]).enumerate() {
                let error = (f64::from(*got) - want).abs();
                if error.is_nan() || error > allowed {
                    let place = format!("[{row}, {column}]");
                    return Err(Failure::Failed(format!("matmul {:?} at {place}: got {got}, want {want}", self.size)));
                }
            }
        }
        Ok(())
    }
}
