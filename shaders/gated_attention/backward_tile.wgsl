// What kernels of the backward pass own: rows of a chunk of a head, of queries or of keys; and what they read of values and outputs.
var<private> batch: u32;
var<private> own_head: u32;
var<private> chunk: u32;
var<private> own_first: u32; // rows of the tile
var<private> own_last: u32;
var<private> kv_len: u32; // keys there are

// Whether the tile has rows.
fn take_tile(index: u32) -> bool {
    let tile = index % params.row_tiles;
    chunk = (index / params.row_tiles) % params.chunks;
    batch = index / params.row_tiles / params.chunks / params.own_heads;
    own_head = (index / params.row_tiles / params.chunks) % params.own_heads;
    kv_len = kv_len_of(batch);
    let end = min((chunk + 1u) * params.own_chunk, params.own_len);
    own_first = chunk * params.own_chunk + tile * ROWS;
    own_last = min(own_first + ROWS, end) - 1u;
    return own_first < end;
}

// Four rows that this invocation brings to workgroup memory.
fn own_rows(part: u32) -> vec4<u32> {
    return min(vec4(own_first + 4u * left_group(part)) + vec4(0u, 1u, 2u, 3u), vec4(own_last));
}

// Four dims of the gradient of A v.
fn incoming(head: u32, i: u32, c: u32) -> vec4<f32> {
    let base = params.dout_start + batch * params.dout_batch + head * params.dout_head + i * params.dout_row;
    return load_dout(base, c) * gate(batch, head, i, c);
}

// Four dims of a value.
fn value(head: u32, j: u32, c: u32) -> vec4<f32> {
    return load_v(params.values_start + batch * params.values_batch + head * params.values_head + j * params.values_row, c);
}
