// Four dims of a row of another tensor that starts at any element; 0 past the row's end, whatever lies there.
@group(0) @binding(5) var<storage, read> beside: array<f32>; // [batch, heads, len, V_DIM]

fn load_beside(base: u32, chunk: u32) -> vec4<f32> {
    let c = 4u * chunk;
    var x = vec4(beside[base + c], 0.0, 0.0, 0.0);
    if (V_DIM % 4u == 0u || c + 1u < V_DIM) { x.y = beside[base + c + 1u]; }
    if (V_DIM % 4u == 0u || c + 2u < V_DIM) { x.z = beside[base + c + 2u]; }
    if (V_DIM % 4u == 0u || c + 3u < V_DIM) { x.w = beside[base + c + 3u]; }
    return x;
}
