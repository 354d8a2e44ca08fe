// Weights of eight keys for the four rows under an exponential map.
//
// A step's terms exp(q_f + k_f) are products of exp(q_f + top_f - row_max) and exp(k_f - top_f): one exponential for
// eight pairs. Where all rows of the workgroup see the whole step, top_f is its largest k_f. At the edge that may belong
// to a key that a row does not see, far above those it sees; there top_f is the step's first key, which every row sees
// that sees any, and a key whose features are not all within NARROW of it is weighed by itself.
const NARROW: f32 = 40.0; // a range of exponents whose exponentials f32 holds with room to spare

var<private> alone: array<vec4<f32>, KEYS>; // the weights of keys that are weighed by themselves

fn weigh(keys: EightKeys, edge: bool) -> Weights {
    // Where the keys start.
    let first4 = vec4(keys.j) + vec4(0u, 1u, 2u, 3u);
    let k0 = keys.k_base + min(first4, vec4(keys.last)) * params.k_row;
    let k1 = keys.k_base + min(first4 + 4u, vec4(keys.last)) * params.k_row;
    let j = keys.j;
    // The rows' new maximum, from what they see. Bit i of `wide`: key i is weighed by itself.
    var step_max = vec4(LOWEST);
    var wide = 0u;
    for (var c = 0u; c < HEAD_CHUNKS; c++) {
        let top = top_of(k0, k1, c, edge);
        step_max = max(step_max, largest(q_block[c], top));
        if (edge) {
            wide |= select(2u, 0u, is_narrow(c, load_k(k0.y, c) - top));
            wide |= select(4u, 0u, is_narrow(c, load_k(k0.z, c) - top));
            wide |= select(8u, 0u, is_narrow(c, load_k(k0.w, c) - top));
            wide |= select(16u, 0u, is_narrow(c, load_k(k1.x, c) - top));
            wide |= select(32u, 0u, is_narrow(c, load_k(k1.y, c) - top));
            wide |= select(64u, 0u, is_narrow(c, load_k(k1.z, c) - top));
            wide |= select(128u, 0u, is_narrow(c, load_k(k1.w, c) - top));
        }
    }
    raise_row_max(step_max, j);
    for (var i = 1u; i < KEYS && wide != 0u; i++) {
        if (is_wide(wide, i)) {
            raise_row_max(largest_term(base_of(k0, k1, i)), j + i);
        }
    }

    // Products of both exponentials.
    var w: Weights;
    for (var c = 0u; c < HEAD_CHUNKS; c++) {
        let top = top_of(k0, k1, c, edge);
        let q4 = exponentials(q_block[c], top);
        w.w0 += q4 * key_exponentials(k0.x, c, top);
        w.w1 += q4 * key_exponentials(k0.y, c, top);
        w.w2 += q4 * key_exponentials(k0.z, c, top);
        w.w3 += q4 * key_exponentials(k0.w, c, top);
        w.w4 += q4 * key_exponentials(k1.x, c, top);
        w.w5 += q4 * key_exponentials(k1.y, c, top);
        w.w6 += q4 * key_exponentials(k1.z, c, top);
        w.w7 += q4 * key_exponentials(k1.w, c, top);
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
    return w;
}

// What four features of the step's keys are taken relative to.
fn top_of(k0: vec4<u32>, k1: vec4<u32>, c: u32, edge: bool) -> vec4<f32> {
    let first = load_k(k0.x, c);
    if (edge) {
        return within(c, first, 0.0);
    }
    let top0 = max(max(first, load_k(k0.y, c)), max(load_k(k0.z, c), load_k(k0.w, c)));
    let top1 = max(max(load_k(k1.x, c), load_k(k1.y, c)), max(load_k(k1.z, c), load_k(k1.w, c)));
    return within(c, max(top0, top1), 0.0);
}

fn is_wide(wide: u32, key: u32) -> bool {
    return ((wide >> key) & 1u) == 1u;
}

fn base_of(k0: vec4<u32>, k1: vec4<u32>, key: u32) -> u32 {
    return select(k0[key % 4u], k1[key % 4u], key >= 4u);
}

// Not so of NaN.
fn is_narrow(c: u32, x: vec4<f32>) -> bool {
    return all(abs(within(c, x, 0.0)) <= vec4(NARROW));
}

fn key_exponentials(base: u32, c: u32, top: vec4<f32>) -> vec4<f32> {
    return within(c, exp(min(load_k(base, c) - top, vec4(NARROW))), 0.0);
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
