// What one range of queries adds to the keys' gradients, left to the kernel that sums them.
@group(0) @binding(11) var<storage, read_write> partials: array<vec4<f32>>; // [keys, splits, head_dim / 4 + v_dim / 4], from the first pair's on

fn record_of(batch: u32, kv_head: u32, key: u32, split: u32) -> u32 {
    let row = (batch * params.kv_heads + kv_head - params.first_pair) * params.kv_len + key;
    return (row * params.splits + split) * (HEAD_CHUNKS + OUT_CHUNKS);
}

fn finish_dk(batch: u32, kv_head: u32, key: u32, split: u32, c: u32, value: vec4<f32>) {
    partials[record_of(batch, kv_head, key, split) + c] = value;
}

fn finish_dv(batch: u32, kv_head: u32, key: u32, split: u32, c: u32, value: vec4<f32>) {
    partials[record_of(batch, kv_head, key, split) + HEAD_CHUNKS + c] = value;
}
