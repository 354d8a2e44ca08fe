// What one range of keys adds to the rows' gradients, before the scale, left to the kernel that sums them.
@group(0) @binding(11) var<storage, read_write> partials: array<vec4<f32>>; // [rows, splits, head_dim / 4], from the first pair's on

fn finish_dq(rows: Rows, r: u32, split: u32, c: u32, value: vec4<f32>, scale: f32) {
    let row = (rows.batch * params.q_heads + rows.head[r] - params.first_pair * params.group) * params.q_len + rows.row[r];
    partials[(row * params.splits + split) * HEAD_CHUNKS + c] = value;
}
