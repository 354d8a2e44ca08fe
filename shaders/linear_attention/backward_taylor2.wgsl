// Gradients through the second-order Taylor map: `beside` is what the rows are before it. With y = [1, x~] and T the state as a symmetric
// matrix, dx~_a = sum over b of y_b (A T_ab + z_ab), of which the diagonal counts as often as its derivative has it.
//   o_tile: terms are value dims, for each b in turn, times y_b; then all b, of the sums of weights.
const STATE_CHUNKS: u32 = SLAB_CHUNKS * V_CHUNKS; // in a slab, four pairs each
const STATE_PARTS: u32 = (STATE_CHUNKS + WORKGROUP - 1u) / WORKGROUP; // of them, an invocation brings so many
const ROOT: f32 = 1.41421356; // of 2: the diagonal's features are squares over it

var<private> brought: vec4<u32>; // positions of the four rows that this invocation brings to workgroup memory

fn take_own(last_row: u32) {
    brought = min(vec4(first_row + 4u * left_group(0u)) + vec4(0u, 1u, 2u, 3u), vec4(last_row));
}

fn add_state(base: u32, q_base: u32, last_row: u32) {
    for (var b = 0u; b <= V_DIM; b++) {
        let y_b = row_element(b);
        for (var slab = 0u; slab < HEAD_SLABS; slab++) {
            workgroupBarrier();
            if (has_left(0u)) {
                let chunk = SLAB_CHUNKS * slab + left_chunk(0u);
                var dims = mat4x4<f32>();
                if (HEAD_SLABS * SLAB_CHUNKS == HEAD_CHUNKS || chunk < HEAD_CHUNKS) {
                    dims = mapped_rows(chunk);
                }
                put_left(0u, mat4x4(y_b * dims[0], y_b * dims[1], y_b * dims[2], y_b * dims[3]));
            }
            for (var part = 0u; part < STATE_PARTS; part++) { // unroll
                let i = part * WORKGROUP + invocation;
                if ((part + 1u) * WORKGROUP <= STATE_CHUNKS || i < STATE_CHUNKS) {
                    let c = chunk_at(i, V_CHUNKS);
                    let group = group_at(i, V_CHUNKS);
                    let chunk = HEADERS + min(SLAB_CHUNKS * slab + c, HEAD_CHUNKS - 1u);
                    var features: mat4x4<f32>;
                    for (var f = 0u; f < 4u; f++) { // unroll
                        let a = 4u * chunk_of(group) + f + 1u;
                        features[f] = states[base + feature_of(a, b) * ROW + chunk] * select(1.0, ROOT, a == b);
                    }
                    let dims = transpose(features);
                    for (var d = 0u; d < 4u; d++) { // unroll
                        right[c][d][group / WIDTH][group % WIDTH] = dims[d];
                    }
                }
            }
            workgroupBarrier();
            add_slab();
        }
    }
    add_divisors(base);
    for (var g = 0u; g < GROUPS; g++) { // unroll
        for (var r = 0u; r < 4u; r++) { // unroll
            for (var c = 0u; c < COLUMNS; c++) { // unroll
                o_tile[4u * g + r][c] = with_divisor(o_tile[4u * g + r][c], vec4(0.0), g, r);
            }
        }
    }
}

fn add_divisors(base: u32) {
    let counts = vec4(
        divisor_weight(brought.x),
        divisor_weight(brought.y),
        divisor_weight(brought.z),
        divisor_weight(brought.w),
    );
    for (var first = 0u; first <= V_DIM; first += SLAB) {
        workgroupBarrier();
        if (has_left(0u)) {
            var terms: mat4x4<f32>;
            for (var i = 0u; i < 4u; i++) { // unroll
                let b = first + 4u * left_chunk(0u) + i;
                terms[i] = select(vec4(0.0), counts * row_element(b), b <= V_DIM);
            }
            put_left(0u, terms);
        }
        for (var part = 0u; part < RIGHT_PARTS; part++) { // unroll
            let i = part * WORKGROUP + invocation;
            if (has_right(part)) {
                let b = min(first + i / V_CHUNKS, V_DIM);
                var z: vec4<f32>;
                for (var f = 0u; f < 4u; f++) { // unroll
                    let a = 4u * chunk_of(i % V_CHUNKS) + f + 1u;
                    z[f] = states[base + feature_of(a, b) * ROW + HEADERS - 1u].x * select(1.0, ROOT, a == b);
                }
                put_right(i, z);
            }
        }
        workgroupBarrier();
        add_slab();
    }
}

// Row a of the pairs holds V_DIM + 1 - a of them; none is past the last.
fn feature_of(first: u32, second: u32) -> u32 {
    let a = min(min(first, second), V_DIM);
    let b = min(max(first, second), V_DIM);
    return a * (2u * V_DIM + 3u - a) / 2u + b - a;
}

// y_e of the rows that this invocation brings; the last is repeated.
fn row_element(e: u32) -> vec4<f32> {
    if (e == 0u) {
        return vec4(1.0);
    }
    let dim = min(e, V_DIM) - 1u;
    return own_rows(dim / 4u)[dim % 4u];
}

// Four dims of x~ of those rows; a vec4 holds one for each.
fn own_rows(c: u32) -> mat4x4<f32> {
    let at = beside_at + brought * params.beside_row;
    let rows = mat4x4(load_beside(at.x, c), load_beside(at.y, c), load_beside(at.z, c), load_beside(at.w, c));
    return params.input_scale * transpose(rows);
}

fn mapped(c: u32, x: vec4<f32>) -> vec4<f32> {
    return within(c, x, 0.0);
}

fn through_map(gradient: vec4<f32>, row: u32, chunk: u32) -> vec4<f32> {
    return params.input_scale * gradient;
}
