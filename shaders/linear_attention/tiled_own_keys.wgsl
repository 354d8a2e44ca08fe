// Causal, in tiles: the chunk's own keys up to the row, KEYS a step.
@group(0) @binding(2) var<storage, read> k: array<Elem>; // [batch, kv_heads, kv_len, head_dim]
@group(0) @binding(3) var<storage, read> v: array<Elem>; // [batch, kv_heads, kv_len, v_dim]

const ROW_MASK: bool = false; // only the diagonal hides keys

fn add_own_keys(batch: u32, kv_head: u32, begin: u32, begin_row: u32, end_row: u32) {
    let k_base = params.k_start + batch * params.k_batch + kv_head * params.k_head;
    let v_base = params.v_start + batch * params.v_batch + kv_head * params.v_head;
    start_keys();
    take_steps(walk_between(i32(begin), i32(end_row), i32(begin), i32(begin_row) + 1), k_base, v_base);
}

// KEYS keys from j on, none past `last`. `edge`: some row does not see some of them.
fn step(j: u32, last: u32, edge: bool, k_base: u32, v_base: u32) {
    var s = weigh(j, last, k_base);
    if (edge) {
        for (var g = 0u; g < GROUPS; g++) { // unroll
            for (var i = 0u; i < OWN_KEYS; i++) { // unroll
                s[i][g] = select(vec4(0.0), s[i][g], vec4(j + key_of(i)) <= rows_of(g));
            }
        }
    }
    for (var g = 0u; g < GROUPS; g++) { // unroll
        for (var i = 0u; i < OWN_KEYS; i++) { // unroll
            sum[g] += s[i][g];
        }
    }
    add_values(s, j, last, edge, v_base);
}

fn value_chunk(base: u32, c: u32) -> vec4<f32> {
    return load_v(base, min(chunk_of(c), O_CHUNKS - 1u));
}
