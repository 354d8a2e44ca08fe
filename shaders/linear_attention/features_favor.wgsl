// Exponents of FAVOR+: w.x~ - |x~|^2 / 2 - log(FEATURES) / 2 for every row w of the projection, with x~ = input_scale x.
@group(0) @binding(8) var<storage, read> projection: array<f32>; // [FEATURES, head_dim]

var<private> constant: vec4<f32>;

fn begin_rows() {
    var squares = vec4(0.0);
    for (var c = 0u; c < HEAD_CHUNKS; c++) {
        let x4 = x_chunk(c);
        squares += (x4[0] * x4[0] + x4[1] * x4[1]) + (x4[2] * x4[2] + x4[3] * x4[3]);
    }
    constant = 0.5 * squares + params.log_norm;
}

// Features 4c to 4c + 3 of the four rows; the last is repeated.
fn row_features(c: u32) -> mat4x4<f32> {
    var e0 = vec4(0.0);
    var e1 = vec4(0.0);
    var e2 = vec4(0.0);
    var e3 = vec4(0.0);
    for (var d = 0u; d < HEAD_CHUNKS; d++) {
        let x4 = x_chunk(d);
        e0 += x4 * load_projection(4u * c, d);
        e1 += x4 * load_projection(4u * c + 1u, d);
        e2 += x4 * load_projection(4u * c + 2u, d);
        e3 += x4 * load_projection(4u * c + 3u, d);
    }
    return mat4x4(e0 - constant, e1 - constant, e2 - constant, e3 - constant);
}

// Four dims of one row of the projection; 0 past its end.
fn load_projection(feature: u32, chunk: u32) -> vec4<f32> {
    let c = 4u * chunk;
    let base = params.projection_start + min(feature, FEATURES - 1u) * params.projection_row + c;
    var w = vec4(projection[base], 0.0, 0.0, 0.0);
    if (c + 1u < HEAD_DIM) { w.y = projection[base + 1u]; }
    if (c + 2u < HEAD_DIM) { w.z = projection[base + 2u]; }
    if (c + 3u < HEAD_DIM) { w.w = projection[base + 3u]; }
    return w;
}
