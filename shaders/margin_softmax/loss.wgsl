// The losses as they are.
@group(0) @binding(3) var<storage, read_write> loss: array<u32>; // [rows], f32

fn store_loss(row: u32, bits: u32, weight: f32) {
    loss[params.loss_start + row * params.loss_stride] = bits;
}
