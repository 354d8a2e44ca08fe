// Weights of eight keys for the four rows under an exponential map; keys start at k0 and k1.
//
// A step's terms exp(q_f + k_f) are products of exp(q_f + top_f - row_max) and exp(k_f - top_f): one exponential for
// eight pairs. Where all rows of the workgroup see the whole step, top_f is its largest k_f. At the edge that may belong
// to a key that a row does not see, far above those it sees; there top_f is the step's first key, which every row sees
// that sees any, and a key whose features are not all within NARROW of it is weighed by itself.
const NARROW: f32 = 40.0; // a range of exponents whose exponentials f32 holds with room to spare

var<workgroup> key_top: array<vec4<f32>, HEAD_CHUNKS>;
var<workgroup> wide_keys: atomic<u32>; // bit i: key i is weighed by itself
var<private> alone: array<vec4<f32>, KEYS>; // the weights of such

fn weigh(k0: vec4<u32>, k1: vec4<u32>, j: u32, edge: bool, invocation: u32) -> Weights {
    workgroupBarrier();
    if (invocation == 0u) {
        atomicStore(&wide_keys, 0u);
    }
    workgroupBarrier();
    for (var c = invocation; c < HEAD_CHUNKS; c += WORKGROUP) {
        let x0 = within(c, load_k(k0.x, c), 0.0);
        let x1 = within(c, load_k(k0.y, c), 0.0);
        let x2 = within(c, load_k(k0.z, c), 0.0);
        let x3 = within(c, load_k(k0.w, c), 0.0);
        let x4 = within(c, load_k(k1.x, c), 0.0);
        let x5 = within(c, load_k(k1.y, c), 0.0);
        let x6 = within(c, load_k(k1.z, c), 0.0);
        let x7 = within(c, load_k(k1.w, c), 0.0);
        if (edge) {
            key_top[c] = x0;
            var wide = select(2u, 0u, is_narrow(x1 - x0)) | select(4u, 0u, is_narrow(x2 - x0));
            wide |= select(8u, 0u, is_narrow(x3 - x0)) | select(16u, 0u, is_narrow(x4 - x0));
            wide |= select(32u, 0u, is_narrow(x5 - x0)) | select(64u, 0u, is_narrow(x6 - x0));
            wide |= select(128u, 0u, is_narrow(x7 - x0));
            if (wide != 0u) {
                atomicOr(&wide_keys, wide);
            }
        } else {
            key_top[c] = max(max(max(x0, x1), max(x2, x3)), max(max(x4, x5), max(x6, x7)));
        }
    }
    workgroupBarrier();

    // The rows' new maximum, from what they see.
    let wide = atomicLoad(&wide_keys);
    var step_max = vec4(LOWEST);
    for (var c = 0u; c < HEAD_CHUNKS; c++) {
        step_max = max(step_max, largest(q_block[c], key_top[c]));
    }
    raise_row_max(step_max, j);
    for (var i = 1u; i < KEYS; i++) {
        if (is_wide(wide, i)) {
            raise_row_max(largest_term(base_of(k0, k1, i)), j + i);
        }
    }

    // Products of both exponentials.
    var w: Weights;
    for (var first = 0u; first < HEAD_CHUNKS; first += BLOCK) {
        workgroupBarrier();
        for (var c = invocation; c < min(BLOCK, HEAD_CHUNKS - first); c += WORKGROUP) {
            let chunk = first + c;
            keys[KEYS * c] = key_exponentials(k0.x, chunk);
            keys[KEYS * c + 1u] = key_exponentials(k0.y, chunk);
            keys[KEYS * c + 2u] = key_exponentials(k0.z, chunk);
            keys[KEYS * c + 3u] = key_exponentials(k0.w, chunk);
            keys[KEYS * c + 4u] = key_exponentials(k1.x, chunk);
            keys[KEYS * c + 5u] = key_exponentials(k1.y, chunk);
            keys[KEYS * c + 6u] = key_exponentials(k1.z, chunk);
            keys[KEYS * c + 7u] = key_exponentials(k1.w, chunk);
        }
        workgroupBarrier();
        w = add_products(w, first);
    }
    if (wide != 0u) {
        for (var i = 1u; i < KEYS; i++) {
            if (is_wide(wide, i)) {
                alone[i] = sum_of_terms(base_of(k0, k1, i));
            }
        }
        w.w1 = select(w.w1, alone[1], is_wide(wide, 1u));
        w.w2 = select(w.w2, alone[2], is_wide(wide, 2u));
        w.w3 = select(w.w3, alone[3], is_wide(wide, 3u));
        w.w4 = select(w.w4, alone[4], is_wide(wide, 4u));
        w.w5 = select(w.w5, alone[5], is_wide(wide, 5u));
        w.w6 = select(w.w6, alone[6], is_wide(wide, 6u));
        w.w7 = select(w.w7, alone[7], is_wide(wide, 7u));
    }
    return seen_weights(j, w);
}

fn is_wide(wide: u32, key: u32) -> bool {
    return (wide >> key & 1u) == 1u;
}

fn base_of(k0: vec4<u32>, k1: vec4<u32>, key: u32) -> u32 {
    return select(k0[key % 4u], k1[key % 4u], key >= 4u);
}

// Not so of NaN.
fn is_narrow(x: vec4<f32>) -> bool {
    return all(abs(x) <= vec4(NARROW));
}

fn key_exponentials(base: u32, chunk: u32) -> vec4<f32> {
    return within(chunk, exp(min(load_k(base, chunk) - key_top[chunk], vec4(NARROW))), 0.0);
}

// What of the four rows multiplies the keys in workgroup memory.
fn row_features(chunk: u32) -> mat4x4<f32> {
    return exponentials(q_block[chunk], key_top[chunk]);
}

// The largest exponent of the key at `base` with each row.
fn largest_term(base: u32) -> vec4<f32> {
    var top = vec4(LOWEST);
    for (var c = 0u; c < HEAD_CHUNKS; c++) {
        top = max(top, largest(q_block[c], load_k(base, c)));
    }
    return top;
}

fn sum_of_terms(base: u32) -> vec4<f32> {
    var w = vec4(0.0);
    for (var c = 0u; c < HEAD_CHUNKS; c++) {
        let e = exponentials(q_block[c], load_k(base, c));
        w += (e[0] + e[1]) + (e[2] + e[3]);
    }
    return w;
}

// Brings what the rows have summed to a larger maximum, where it is one and they see key j.
fn raise_row_max(candidate: vec4<f32>, j: u32) {
    let raised = select(row_max, max(row_max, candidate), vec4(j) <= row);
    if (all(raised == row_max)) {
        return;
    }
    let shrink = exp(row_max - raised);
    row_max = raised;
    sum *= shrink;
    for (var c = 0u; c < V_CHUNKS; c++) {
        let o4 = o_block[c];
        o_block[c] = mat4x4(o4[0] * shrink, o4[1] * shrink, o4[2] * shrink, o4[3] * shrink);
    }
}
