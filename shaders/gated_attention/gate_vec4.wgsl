// Optional operand: the gate; every row starts and ends at a multiple of four elements.
@group(0) @binding(5) var<storage, read> u: array<vec4<f32>>; // [batch, q_heads, q_len, v_dim]

fn gate(batch: u32, head: u32, i: u32, chunk: u32) -> vec4<f32> {
    return u[(params.u_start + batch * params.u_batch + head * params.u_head + i * params.u_row) / 4u + chunk];
}
