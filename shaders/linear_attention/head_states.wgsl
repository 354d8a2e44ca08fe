// The states that the tokens start from and end with, in the workspace.
@group(0) @binding(11) var<storage, read_write> states: array<vec4<f32>>; // [heads, 2, HEAD_DIM, ROW]

const ROW: u32 = 1u + O_CHUNKS; // vec4s per feature

fn load_states(state: u32, block: u32) {
    for (var r = 0u; r < 4u * GROUPS; r++) { // unroll
        let feature = row_of(r / 4u) + r % 4u;
        if (feature < HEAD_DIM) {
            if (x < V_CHUNKS && block + x < O_CHUNKS) {
                s[r][0] = states[(state * HEAD_DIM + feature) * ROW + 1u + block + x];
            }
            if (x == 0u) {
                z[feature / 4u][r % 4u] = states[(state * HEAD_DIM + feature) * ROW].x;
            }
        }
    }
}

fn store_states(state: u32, block: u32) {
    for (var r = 0u; r < 4u * GROUPS; r++) { // unroll
        let feature = row_of(r / 4u) + r % 4u;
        if (feature < HEAD_DIM) {
            if (x < V_CHUNKS && block + x < O_CHUNKS) {
                states[(state * HEAD_DIM + feature) * ROW + 1u + block + x] = s[r][0];
            }
            if (x == 0u && block == 0u) {
                states[(state * HEAD_DIM + feature) * ROW] = vec4(z[feature / 4u][r % 4u], 0.0, 0.0, 0.0);
            }
        }
    }
}
