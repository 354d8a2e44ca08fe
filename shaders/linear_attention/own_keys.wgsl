// Causal: the chunk's own keys up to the row.
@group(0) @binding(2) var<storage, read> k: array<Elem>; // [batch, kv_heads, kv_len, head_dim]
@group(0) @binding(3) var<storage, read> v: array<Elem>; // [batch, kv_heads, kv_len, v_dim]

// What the weights of eight keys are for the four rows of this invocation.
struct Weights {
    w0: vec4<f32>,
    w1: vec4<f32>,
    w2: vec4<f32>,
    w3: vec4<f32>,
    w4: vec4<f32>,
    w5: vec4<f32>,
    w6: vec4<f32>,
    w7: vec4<f32>,
}

// Eight keys from position j on, none past `last`; where the keys of the head start.
struct EightKeys {
    k_base: u32,
    j: u32,
    last: u32,
}

// Chunk c of all keys of a step.
const SPAN: u32 = 1u;
alias Held = array<vec4<f32>, KEYS>;

// Features of a key.
fn key_chunk(base: u32, c: u32) -> vec4<f32> {
    return query_features(c, load_k(base, c));
}

// The four rows of this invocation, which every step multiplies.
var<private> q_block: array<mat4x4<f32>, HEAD_CHUNKS>;

fn add_own_keys(batch: u32, kv_head: u32, begin: u32, first_row: u32, end_row: u32) {
    let k_base = params.k_start + batch * params.k_batch + kv_head * params.k_head;
    let v_base = params.v_start + batch * params.v_batch + kv_head * params.v_head;
    for (var c = 0u; c < HEAD_CHUNKS; c++) {
        q_block[c] = load_rows(c);
    }
    for (var j = begin; j < end_row; j += KEYS) {
        let edge = j + KEYS > first_row + 1u; // some row does not see some of them
        let keys = EightKeys(k_base, j, end_row - 1u);
        let w = seen_weights(j, weigh(keys, edge));
        sum += ((w.w0 + w.w1) + (w.w2 + w.w3)) + ((w.w4 + w.w5) + (w.w6 + w.w7));

        // o += weights times values.
        for (var c = 0u; c < V_CHUNKS; c++) {
            let values = hold_values(v_base, keys.j, keys.last, c);
            var o4 = o_block[c];
            if (edge) {
                o4 += seen_product(w.w0, values[0], j);
                o4 += seen_product(w.w1, values[1], j + 1u);
                o4 += seen_product(w.w2, values[2], j + 2u);
                o4 += seen_product(w.w3, values[3], j + 3u);
                o4 += seen_product(w.w4, values[4], j + 4u);
                o4 += seen_product(w.w5, values[5], j + 5u);
                o4 += seen_product(w.w6, values[6], j + 6u);
                o4 += seen_product(w.w7, values[7], j + 7u);
            } else {
                o4 = add_product(o4, w.w0, values[0]);
                o4 = add_product(o4, w.w1, values[1]);
                o4 = add_product(o4, w.w2, values[2]);
                o4 = add_product(o4, w.w3, values[3]);
                o4 = add_product(o4, w.w4, values[4]);
                o4 = add_product(o4, w.w5, values[5]);
                o4 = add_product(o4, w.w6, values[6]);
                o4 = add_product(o4, w.w7, values[7]);
            }
            o_block[c] = o4;
        }
    }
}

// 0 where a row does not see key j, whatever the weight: a hidden key may be NaN.
fn seen(w: vec4<f32>, j: u32) -> vec4<f32> {
    return select(vec4(0.0), w, vec4(j) <= row);
}

// As product, where a row may not see the value, which may then be NaN: 0 * NaN would leak.
fn seen_product(w: vec4<f32>, value: vec4<f32>, j: u32) -> mat4x4<f32> {
    let see = vec4(j) <= row;
    let zero = vec4(0.0);
    return mat4x4(
        select(zero, w * value.x, see),
        select(zero, w * value.y, see),
        select(zero, w * value.z, see),
        select(zero, w * value.w, see),
    );
}

fn seen_weights(j: u32, w: Weights) -> Weights {
    return Weights(
        seen(w.w0, j),
        seen(w.w1, j + 1u),
        seen(w.w2, j + 2u),
        seen(w.w3, j + 3u),
        seen(w.w4, j + 4u),
        seen(w.w5, j + 5u),
        seen(w.w6, j + 6u),
        seen(w.w7, j + 7u),
    );
}
