// Where q and o stay during the walk over the keys: with the invocation. Unrolled loops index the arrays by constants, and
// a driver keeps them in registers, or where it spills those to.
var<private> q_block: array<mat4x4<f32>, HEAD_CHUNKS>; // scaled
var<private> o_block: array<mat4x4<f32>, V_CHUNKS>; // not yet divided by sum

fn start_block(split: u32, scale: vec4<f32>) {
    for (var c = 0u; c < HEAD_CHUNKS; c++) { // unroll if UNROLL
        q_block[c] = scaled_queries(scale, c);
    }
    for (var c = 0u; c < V_CHUNKS; c++) { // unroll if UNROLL
        o_block[c] = mat4x4<f32>();
    }
}

fn q_chunk(c: u32) -> mat4x4<f32> {
    return q_block[c];
}

fn o_chunk(c: u32) -> mat4x4<f32> {
    return o_block[c];
}

fn set_o_chunk(c: u32, o4: mat4x4<f32>) {
    o_block[c] = o4;
}
