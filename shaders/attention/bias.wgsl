// Optional operand: an additive bias, bound as bits so that minus infinity can be told apart without float arithmetic.
@group(0) @binding(7) var<storage, read> bias: array<u32>; // [batch, q_heads, q_len, kv_len], f32

const MINUS_INFINITY: u32 = 0xff800000u;

// Adds each row's bias for its key j to its score; read only for rows that see the key. A bias of minus infinity hides it; a
// sum below LOWEST counts as that, so that a row of nothing else still has a largest score. Not NaN: by the bits, as a driver may
// make a maximum of a comparison, and that drops it.
fn add_bias(s: ptr<function, vec4<f32>>, rows: Rows, j: vec4<u32>, see: vec4<bool>) -> vec4<bool> {
    let base = params.bias_start + rows.batch * params.bias_batch + rows.head * params.bias_head;
    let at = base + rows.row * params.bias_row + j;
    var bits = vec4(MINUS_INFINITY);
    if (see.x) { bits.x = bias[at.x]; }
    if (see.y) { bits.y = bias[at.y]; }
    if (see.z) { bits.z = bias[at.z]; }
    if (see.w) { bits.w = bias[at.w]; }
    let seen = bits != vec4(MINUS_INFINITY);
    let sum = *s + bitcast<vec4<f32>>(select(vec4(0u), bits, seen));
    let lowest = bitcast<u32>(LOWEST);
    let below = bitcast<vec4<u32>>(sum) - vec4(lowest) <= vec4(MINUS_INFINITY - lowest);
    *s = select(sum, vec4(LOWEST), below);
    return seen;
}
