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
    var o4 = mat4x4<f32>();
    for (var r = 0u; r < 4u; r++) { // unroll
        if (r < count) {
            o4[r] = get_o(rows, r, o_split, c);
        }
    }
    return transpose(o4);
}

fn set_o_chunk(c: u32, dims: mat4x4<f32>) {
    let o4 = transpose(dims);
    for (var r = 0u; r < 4u; r++) { // unroll
        if (r < count) {
            put_o(rows, r, o_split, c, o4[r]);
        }
    }
}
