// What kernels of the backward pass own: rows of a chunk of a head, of queries or of keys; and what they read of values and outputs.
var<private> batch: u32;
var<private> own_head: u32;
var<private> chunk: u32;
var<private> own_first: u32; // rows of the tile
var<private> own_last: u32;
var<private> kv_len: u32; // keys there are

// The same: what control flow around barriers depends on, of which a compiler must see that it is the workgroup's.
struct Owned {
    batch: u32,
    head: u32,
    chunk: u32,
    first: u32,
    end: u32, // one past the last row; `first` where the tile has none
    kv_len: u32,
}

fn owned_at(index: u32) -> Owned {
    let own_chunk = (index / params.row_tiles) % params.chunks;
    let own_batch = index / params.row_tiles / params.chunks / params.own_heads;
    let head = (index / params.row_tiles / params.chunks) % params.own_heads;
    let first = own_chunk * params.own_chunk + index % params.row_tiles * ROWS;
    let end = max(min(first + ROWS, min((own_chunk + 1u) * params.own_chunk, params.own_len)), first);
    return Owned(own_batch, head, own_chunk, first, end, kv_len_of(own_batch));
}

fn take_tile(own: Owned) {
    batch = own.batch;
    own_head = own.head;
    chunk = own.chunk;
    own_first = own.first;
    own_last = own.end - 1u;
    kv_len = own.kv_len;
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
