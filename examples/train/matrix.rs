//! A matrix as `matmul` takes it.

use wgpu_attention::{TensorView, wgpu};

pub fn matrix(buffer: &wgpu::Buffer, rows: u32, columns: u32) -> TensorView<'_, 4> {
    TensorView::f32(buffer, [1, 1, rows, columns])
}
