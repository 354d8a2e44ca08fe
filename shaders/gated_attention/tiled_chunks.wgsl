// Mixed chunks of tokens: a row sees keys of its chunk, and q_lin times the sum of the states k_lin^T v of other chunks is added
// to o.
@group(0) @binding(7) var<storage, read> states: array<vec4<f32>>; // [batch, kv_heads, chunk, 4 * KEY_CHUNKS, state_chunks]

// Tiles start where chunks do. In the last chunk, which may be short, some have no row: their first is past their last.
fn row_tile(batch_kv_head: u32, tile: u32) -> Tile {
    var own = tile_of(batch_kv_head, 0u, ROWS);
    let chunk = (tile / params.chunk_tiles) % params.chunks;
    let begin = chunk * params.chunk;
    let end = min(begin + params.chunk, params.q_len);
    let head = tile / params.chunk_tiles / params.chunks * params.q_len;
    own.first = head + begin + (tile % params.chunk_tiles) * ROWS;
    own.last = min(own.first + ROWS, head + end) - 1u;
    own.len = min(own.len, i32(end));
    return own;
}

fn chunk_of(tile: Tile) -> u32 {
    return (tile.first % params.q_len) / params.chunk;
}

fn first_key(tile: Tile, split: u32) -> u32 {
    return chunk_of(tile) * params.chunk;
}

// The tile's length stops it.
fn end_key(split: u32) -> u32 {
    return params.kv_len;
}

// Of its chunk or of the others: 0 only where there is no key.
fn visible_keys(rows: Rows) -> vec4<f32> {
    return vec4(f32(tile.len));
}

fn add_other_chunks(tile: Tile) {
    // Causal: the sum over the chunks before this one; else the one sum of all, which stands in the first place.
    let len = kv_len_of(tile.batch);
    let causal = params.chunk_causal == 1u;
    let tokens = select(len, min(first_key(tile, 0u), len), causal);
    if (tokens == 0u) {
        return;
    }
    let factor = 1.0 / select(params.linear_divisor, f32(tokens), params.linear_tokens == 1u);
    let state_index = (tile.batch * params.kv_heads + tile.kv_head) * params.chunks + select(0u, chunk_of(tile), causal);
    let state = state_index * 4u * KEY_CHUNKS * params.state_chunks + v_first - params.state_first;
    add_state(state, factor);
}

// Of four rows that this invocation brings to workgroup memory.
fn linear_rows(part: u32, c: u32) -> mat4x4<f32> {
    let rows = rows_of(tile, tile.first + 4u * left_group(part));
    let at = params.q_lin_start + rows.batch * params.q_lin_batch + rows.head * params.q_lin_head + rows.row * params.q_lin_row;
    let gamma = affine_gamma(Q_LIN_MAP, tile.kv_head, c);
    let beta = affine_beta(Q_LIN_MAP, tile.kv_head, c);
    return transpose(mat4x4(
        load_q_lin(at.x, c) * gamma + beta,
        load_q_lin(at.y, c) * gamma + beta,
        load_q_lin(at.z, c) * gamma + beta,
        load_q_lin(at.w, c) * gamma + beta,
    ));
}
