// The losses that are to be reduced, and what they count.
@group(0) @binding(3) var<storage, read_write> losses: array<vec2<u32>>; // [rows]: the loss and its weight, f32

fn store_loss(row: u32, bits: u32, weight: f32) {
    losses[params.losses_start + row] = vec2(bits, bitcast<u32>(weight));
}
