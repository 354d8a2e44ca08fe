// Optional output: the loss of the row's label, as bits because infinity has no literal.
@group(0) @binding(11) var<storage, read_write> loss: array<u32>; // [rows], f32

fn store_loss(label: Label, own: f32, is_broken: bool) {
    var bits = select(params.minus_infinity ^ 0x80000000u, bitcast<u32>(own), label.is_seen);
    bits = select(bits, params.minus_infinity | 0x400000u, label.is_outside || is_broken);
    loss[params.loss_start + row * params.loss_stride] = select(bits, 0u, label.is_ignored);
}
