// What kernels of the backward pass own: rows of a chunk of a head, of queries or of keys; and what they read of values and outputs.
struct Owned {
    batch: u32,
    head: u32,
    chunk: u32,
    first: u32, // rows of the tile
    end: u32, // one past the last; `first` where the tile has none
    kv_len: u32, // keys there are
}

// The workgroup's, for functions. Control flow around barriers goes by what `owned_at` has returned, as a compiler must see that it is
// the same for all.
var<private> owned: Owned;

fn owned_at(index: u32) -> Owned {
    let chunk = (index / params.row_tiles) % params.chunks;
    let batch = index / params.row_tiles / params.chunks / params.own_heads;
    let head = (index / params.row_tiles / params.chunks) % params.own_heads;
    let first = chunk * params.own_chunk + index % params.row_tiles * ROWS;
    let end = max(min(first + ROWS, min((chunk + 1u) * params.own_chunk, params.own_len)), first);
    return Owned(batch, head, chunk, first, end, kv_len_of(batch));
}

// Four rows that this invocation brings to workgroup memory.
fn own_rows(part: u32) -> vec4<u32> {
    return min(vec4(owned.first + 4u * left_group(part)) + vec4(0u, 1u, 2u, 3u), vec4(owned.end - 1u));
}

// Four dims of the gradient of A v.
fn incoming(head: u32, i: u32, c: u32) -> vec4<f32> {
    let base = params.dout_start + owned.batch * params.dout_batch + head * params.dout_head + i * params.dout_row;
    return load_dout(base, c) * gate(owned.batch, head, i, c);
}

// Four dims of a value.
fn value(head: u32, j: u32, c: u32) -> vec4<f32> {
    return load_v(params.values_start + owned.batch * params.values_batch + head * params.values_head + j * params.values_row, c);
}
