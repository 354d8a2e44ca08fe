// The factors of backward_tile.wgsl where a tile's rows are queries and its items keys.
var<private> tile: Tile;
// Of the rows that this invocation brings to workgroup memory: where they start in q and in dout.
var<private> q_at: array<vec4<u32>, LEFT_PARTS>;
var<private> dout_at: array<vec4<u32>, LEFT_PARTS>;
var<private> k_first: u32; // where the first key and value of the kv head start
var<private> v_first: u32;

fn take_queries(own_tile: Tile) {
    tile = own_tile;
    k_first = params.k_start + own_tile.batch * params.k_batch + own_tile.kv_head * params.k_head;
    v_first = params.v_start + own_tile.batch * params.v_batch + own_tile.kv_head * params.v_head;
    for (var part = 0u; part < LEFT_PARTS; part++) { // unroll
        let rows = rows_of(tile, tile.first + 4u * left_group(part));
        q_at[part] = q_base(rows);
        dout_at[part] = params.dout_start + rows.batch * params.dout_batch + rows.head * params.dout_head + rows.row * params.dout_row;
    }
}

fn row_chunk(second: bool, part: u32, c: u32) -> mat4x4<f32> {
    if (second) {
        let at = dout_at[part];
        return transpose(mat4x4(load_dout(at.x, c), load_dout(at.y, c), load_dout(at.z, c), load_dout(at.w, c)));
    }
    let at = q_at[part];
    return transpose(mat4x4(load_q(at.x, c), load_q(at.y, c), load_q(at.z, c), load_q(at.w, c)));
}

fn item_at(second: bool, j: u32) -> u32 {
    return select(k_first + j * params.k_row, v_first + j * params.v_row, second);
}

fn item_chunk(second: bool, at: u32, c: u32) -> vec4<f32> {
    if (second) {
        return load_v(at, c);
    }
    return load_k(at, c);
}
