// Where q and o stay during the walk over the keys: in storage, o in its own place, undivided. For compilers that take
// minutes over large arrays.
var<private> q_scale: vec4<f32>;
var<private> o_split: u32; // the range of keys whose o is summed up

fn start_block(split: u32, scale: vec4<f32>) {
    q_scale = scale;
    o_split = split;
    for (var c = 0u; c < V_CHUNKS; c++) { // unroll if UNROLL
        set_o_chunk(c, mat4x4<f32>());
    }
}

fn q_chunk(c: u32) -> mat4x4<f32> {
    return scaled_queries(q_scale, c);
}

fn o_chunk(c: u32) -> mat4x4<f32> {
    return mat4x4(o_of(first, c), o_of(first + 1u, c), o_of(first + 2u, c), o_of(first + 3u, c));
}

fn o_of(i: u32, c: u32) -> vec4<f32> {
    if (i < params.q_len) {
        return get_o(o_split, i, c);
    }
    return vec4(0.0);
}

fn set_o_chunk(c: u32, o4: mat4x4<f32>) {
    if (first < params.q_len) { put_o(o_split, first, c, o4[0]); }
    if (first + 1u < params.q_len) { put_o(o_split, first + 1u, c, o4[1]); }
    if (first + 2u < params.q_len) { put_o(o_split, first + 2u, c, o4[2]); }
    if (first + 3u < params.q_len) { put_o(o_split, first + 3u, c, o4[3]); }
}
