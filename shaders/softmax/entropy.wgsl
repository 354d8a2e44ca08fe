// Optional output: the entropy of p, in nats.
@group(0) @binding(6) var<storage, read_write> entropy: array<f32>; // [rows]

fn store_entropy(nats: f32) {
    entropy[params.entropy_start + row * params.entropy_stride] = nats;
}
