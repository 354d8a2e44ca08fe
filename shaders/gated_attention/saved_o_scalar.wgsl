// The output, as forward wrote it; a row may start at any element, and is 0 past its end whatever lies there.
const DELTA: bool = true;
@group(0) @binding(4) var<storage, read> o: array<f32>; // [batch, q_heads, q_len, v_dim]

fn load_saved_o(base: u32, chunk: u32) -> vec4<f32> {
    let c = 4u * chunk;
    var x = vec4(o[base + c], 0.0, 0.0, 0.0);
    if (c + 1u < V_DIM) { x.y = o[base + c + 1u]; }
    if (c + 2u < V_DIM) { x.z = o[base + c + 2u]; }
    if (c + 3u < V_DIM) { x.w = o[base + c + 3u]; }
    return x;
}
