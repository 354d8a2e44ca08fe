// The states that the tokens start from and end with, in the workspace. S moves up by a feature at a time, so that no loop
// indexes it.
@group(0) @binding(11) var<storage, read_write> states: array<vec4<f32>>; // [heads, 2, HEAD_DIM, ROW]

const ROW: u32 = 1u + V_CHUNKS; // vec4s per feature

fn load_states(state: u32, first_v: u32) {
    for (var b = 0u; b < SHARES; b++) { // unroll
        for (var x = 0u; x < 4u; x++) { // unroll
            let f = 4u * (b * WORKGROUP + lane) + x;
            if (f < HEAD_DIM) {
                z[b][x] = states[(state * HEAD_DIM + f) * ROW].x;
            }
        }
    }
    for (var f = 0u; f < FEATURES; f++) {
        raise_s();
        for (var c = 0u; c < V_BLOCK; c++) { // unroll
            let chunk = first_v + c * WORKGROUP + lane;
            s[FEATURES - 1u][c] = vec4(0.0);
            if (f < HEAD_DIM && chunk < V_CHUNKS) {
                s[FEATURES - 1u][c] = states[(state * HEAD_DIM + f) * ROW + 1u + chunk];
            }
        }
    }
}

fn store_states(state: u32, first_v: u32) {
    for (var b = 0u; b < SHARES; b++) { // unroll
        for (var x = 0u; x < 4u; x++) { // unroll
            let f = 4u * (b * WORKGROUP + lane) + x;
            if (f < HEAD_DIM && first_v == 0u) {
                states[(state * HEAD_DIM + f) * ROW] = vec4(z[b][x], 0.0, 0.0, 0.0);
            }
        }
    }
    for (var f = 0u; f < HEAD_DIM; f++) {
        for (var c = 0u; c < V_BLOCK; c++) { // unroll
            let chunk = first_v + c * WORKGROUP + lane;
            if (chunk < V_CHUNKS) {
                states[(state * HEAD_DIM + f) * ROW + 1u + chunk] = s[0][c];
            }
        }
        raise_s();
    }
}

fn raise_s() {
    for (var f = 1u; f < FEATURES; f++) { // unroll
        s[f - 1u] = s[f];
    }
}
