// Optional operand: the gate; a row may start at any element.
@group(0) @binding(5) var<storage, read> u: array<f32>; // [batch, q_heads, q_len, v_dim]

fn gate(batch: u32, head: u32, i: u32, chunk: u32) -> vec4<f32> {
    let base = params.u_start + batch * params.u_batch + head * params.u_head + i * params.u_row;
    let c = 4u * chunk;
    var x = vec4(u[base + c], 0.0, 0.0, 0.0);
    if (c + 1u < V_DIM) { x.y = u[base + c + 1u]; }
    if (c + 2u < V_DIM) { x.z = u[base + c + 2u]; }
    if (c + 3u < V_DIM) { x.w = u[base + c + 3u]; }
    return x;
}
