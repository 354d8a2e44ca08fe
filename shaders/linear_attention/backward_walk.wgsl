// Causal, in tiles: the pairs of the chunk's own queries and keys, KEYS of them a step.
@group(0) @binding(2) var<storage, read> k: array<Elem>; // [batch, heads, len, HEAD_DIM]
@group(0) @binding(3) var<storage, read> v: array<Elem>; // [batch, heads, len, V_DIM]

const ROW_MASK: bool = false; // only the diagonal hides pairs

var<private> values_at: u32; // where the rows of v start

// `at`: where the chunk begins, the rows begin and end, and the chunk ends.
fn walk_chunk(batch: u32, first_head: u32, at: vec4<u32>) {
    let rows = vec4<i32>(at);
    var walk = walk_between(rows[0], rows[2], rows[0], rows[1] + 1);
    if (REVERSE) {
        walk = walk_between(rows[1], rows[3], rows[2] - 1, rows[3]);
    }
    start_keys();
    for (var walked = 0u; walked < params.walked_heads; walked++) {
        let head = first_head + walked;
        take_head(batch, head);
        let k_base = params.k_start + batch * params.k_batch + head * params.k_head;
        values_at = params.v_start + batch * params.v_batch + head * params.v_head;
        take_steps(walk, k_base, values_at);
    }
}

// KEYS pairs of each row from j on, none past `last`. `edge`: some row does not see some of them.
fn step(j: u32, last: u32, edge: bool, k_base: u32, v_base: u32) {
    var s = weigh(j, last, k_base);
    if (edge) {
        for (var g = 0u; g < GROUPS; g++) { // unroll
            for (var i = 0u; i < OWN_KEYS; i++) { // unroll
                let other = vec4(j + key_of(i));
                let seen = select(other <= rows_of(g), (other >= rows_of(g)) & (other <= vec4(last)), REVERSE);
                s[i][g] = select(vec4(0.0), s[i][g], seen);
            }
        }
    }
    add_pairs(s, j, last, edge, v_base);
}
