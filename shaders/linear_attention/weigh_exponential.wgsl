// Weights of eight keys for the four rows under an exponential map; keys start at k0 and k1.
//
// A step's terms exp(q_f + k_f) are products of exp(q_f + top_f - row_max) and exp(k_f - top_f), where top_f is the
// step's largest k_f: one exponential for eight pairs. Where a row does not see all of the step and top_f may be a hidden
// key's, far above those it sees, each term is computed for itself.
const NARROW: f32 = 40.0; // a range of exponents whose exponentials f32 still holds with room to spare

var<workgroup> key_top: array<vec4<f32>, HEAD_CHUNKS>;
var<workgroup> key_bottom: array<vec4<f32>, HEAD_CHUNKS>;

fn weigh(k0: vec4<u32>, k1: vec4<u32>, j: u32, invocation: u32) -> Weights {
    // The largest and the smallest of each feature.
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
        key_top[c] = max(max(max(x0, x1), max(x2, x3)), max(max(x4, x5), max(x6, x7)));
        key_bottom[c] = min(min(min(x0, x1), min(x2, x3)), min(min(x4, x5), min(x6, x7)));
    }
    workgroupBarrier();
    var step_max = vec4(LOWEST);
    var narrow = true;
    for (var c = 0u; c < HEAD_CHUNKS; c++) {
        step_max = max(step_max, largest(q_block[c], key_top[c]));
        narrow = narrow && all(key_top[c] - key_bottom[c] <= vec4(NARROW));
    }
    let factored = narrow || all(vec4(j + KEYS - 1u) <= row);
    if (factored) {
        raise_row_max(select(vec4(LOWEST), step_max, vec4(j) <= row));
    }

    // Products of both exponentials.
    var w: Weights;
    for (var first = 0u; first < HEAD_CHUNKS; first += BLOCK) {
        workgroupBarrier();
        for (var c = invocation; c < min(BLOCK, HEAD_CHUNKS - first); c += WORKGROUP) {
            let chunk = first + c;
            let top = key_top[chunk];
            keys[KEYS * c] = within(chunk, exp(load_k(k0.x, chunk) - top), 0.0);
            keys[KEYS * c + 1u] = within(chunk, exp(load_k(k0.y, chunk) - top), 0.0);
            keys[KEYS * c + 2u] = within(chunk, exp(load_k(k0.z, chunk) - top), 0.0);
            keys[KEYS * c + 3u] = within(chunk, exp(load_k(k0.w, chunk) - top), 0.0);
            keys[KEYS * c + 4u] = within(chunk, exp(load_k(k1.x, chunk) - top), 0.0);
            keys[KEYS * c + 5u] = within(chunk, exp(load_k(k1.y, chunk) - top), 0.0);
            keys[KEYS * c + 6u] = within(chunk, exp(load_k(k1.z, chunk) - top), 0.0);
            keys[KEYS * c + 7u] = within(chunk, exp(load_k(k1.w, chunk) - top), 0.0);
        }
        workgroupBarrier();
        if (factored) {
            w = add_products(w, first);
        }
    }
    if (!factored) {
        w = weigh_each(k0, k1, j);
    }
    return seen_weights(j, w);
}

// What of the four rows multiplies the keys in workgroup memory.
fn row_features(chunk: u32) -> mat4x4<f32> {
    return exponentials(q_block[chunk], key_top[chunk]);
}

// Every term for itself.
fn weigh_each(k0: vec4<u32>, k1: vec4<u32>, j: u32) -> Weights {
    let lowest = vec4(LOWEST);
    var top = Weights(lowest, lowest, lowest, lowest, lowest, lowest, lowest, lowest);
    for (var c = 0u; c < HEAD_CHUNKS; c++) {
        let q4 = q_block[c];
        top.w0 = max(top.w0, largest(q4, load_k(k0.x, c)));
        top.w1 = max(top.w1, largest(q4, load_k(k0.y, c)));
        top.w2 = max(top.w2, largest(q4, load_k(k0.z, c)));
        top.w3 = max(top.w3, largest(q4, load_k(k0.w, c)));
        top.w4 = max(top.w4, largest(q4, load_k(k1.x, c)));
        top.w5 = max(top.w5, largest(q4, load_k(k1.y, c)));
        top.w6 = max(top.w6, largest(q4, load_k(k1.z, c)));
        top.w7 = max(top.w7, largest(q4, load_k(k1.w, c)));
    }
    raise_row_max(select(lowest, top.w0, vec4(j) <= row));
    raise_row_max(select(lowest, top.w1, vec4(j + 1u) <= row));
    raise_row_max(select(lowest, top.w2, vec4(j + 2u) <= row));
    raise_row_max(select(lowest, top.w3, vec4(j + 3u) <= row));
    raise_row_max(select(lowest, top.w4, vec4(j + 4u) <= row));
    raise_row_max(select(lowest, top.w5, vec4(j + 5u) <= row));
    raise_row_max(select(lowest, top.w6, vec4(j + 6u) <= row));
    raise_row_max(select(lowest, top.w7, vec4(j + 7u) <= row));
    var w: Weights;
    for (var c = 0u; c < HEAD_CHUNKS; c++) {
        let q4 = q_block[c];
        w.w0 += terms(q4, load_k(k0.x, c));
        w.w1 += terms(q4, load_k(k0.y, c));
        w.w2 += terms(q4, load_k(k0.z, c));
        w.w3 += terms(q4, load_k(k0.w, c));
        w.w4 += terms(q4, load_k(k1.x, c));
        w.w5 += terms(q4, load_k(k1.y, c));
        w.w6 += terms(q4, load_k(k1.z, c));
        w.w7 += terms(q4, load_k(k1.w, c));
    }
    return w;
}

fn terms(q4: mat4x4<f32>, key: vec4<f32>) -> vec4<f32> {
    let e = exponentials(q4, key);
    return (e[0] + e[1]) + (e[2] + e[3]);
}

// Brings what the rows have summed to a larger maximum, where it is one.
fn raise_row_max(candidate: vec4<f32>) {
    if (all(candidate <= row_max)) {
        return;
    }
    let raised = max(row_max, candidate);
    let shrink = exp(row_max - raised);
    row_max = raised;
    sum *= shrink;
    for (var c = 0u; c < V_CHUNKS; c++) {
        let o4 = o_block[c];
        o_block[c] = mat4x4(o4[0] * shrink, o4[1] * shrink, o4[2] * shrink, o4[3] * shrink);
    }
}
