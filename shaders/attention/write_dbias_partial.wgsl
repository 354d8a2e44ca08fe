// What one range of terms adds to the gradient of the bias, left to the kernel that sums them.
@group(0) @binding(11) var<storage, read_write> partials: array<vec4<f32>>; // [bias rows, splits, kv_len / 4]

fn finish_dbias(batch: u32, head: u32, row: u32, split: u32, c: u32, value: vec4<f32>) {
    let rows = select(params.q_len, 1u, SUM_ROWS);
    let index = (batch * params.bias_heads + head) * rows + row;
    partials[(index * params.splits + split) * ((params.kv_len + 3u) / 4u) + c] = value;
}
