// Which rows see which keys, and where a workgroup walks them.
// No score is below this, nor above its opposite; with a bias, what is below counts as this. The difference of two such is finite,
// in units of log2 as well.
const LOWEST: f32 = -1.0e38;

// Four rows: whose they are, and which keys they see by position.
struct Rows {
    batch: u32,
    head: vec4<u32>, // of q
    row: vec4<u32>, // query positions
    lo: vec4<i32>, // first visible key
    hi: vec4<i32>, // one past the last
}

// The rows of a tile: the queries of the heads that share a kv head, head after head, from `first` to `last`.
struct Tile {
    batch: u32,
    kv_head: u32,
    first: u32,
    last: u32,
    diagonal: i32, // how far it lies to the right of j = i
    len: i32, // keys there are
}

fn tile_of(batch_kv_head: u32, tile: u32, rows: u32) -> Tile {
    let batch = batch_kv_head / params.kv_heads;
    let first = tile * rows;
    let last = min(first + rows, params.group * params.q_len) - 1u;
    let len = i32(kv_len_of(batch));
    let diagonal = params.offset + select(0, len - i32(params.q_len), params.align_end == 1u);
    return Tile(batch, batch_kv_head % params.kv_heads, first, last, diagonal, len);
}

// Four rows of a tile from row `first` on; those past the last are the last.
fn rows_of(tile: Tile, first: u32) -> Rows {
    let at = min(vec4(first) + vec4(0u, 1u, 2u, 3u), vec4(tile.last));
    let row = at % params.q_len;
    let lo = max(vec4<i32>(row) + tile.diagonal - params.left, vec4(0));
    let hi = clamp(vec4<i32>(row) + tile.diagonal + params.right + 1, vec4(0), vec4(tile.len));
    return Rows(tile.batch, tile.kv_head * params.group + at / params.q_len, row, lo, hi);
}

// One row of a tile, four times: for four of its keys.
fn one_row_of(tile: Tile, own: u32) -> Rows {
    let at = min(own, tile.last);
    let row = at % params.q_len;
    let lo = max(i32(row) + tile.diagonal - params.left, 0);
    let hi = clamp(i32(row) + tile.diagonal + params.right + 1, 0, tile.len);
    let head = tile.kv_head * params.group + at / params.q_len;
    return Rows(tile.batch, vec4(head), vec4(row), vec4(lo), vec4(hi));
}

// Where four rows of q start.
fn q_base(rows: Rows) -> vec4<u32> {
    return params.q_start + rows.batch * params.q_batch + rows.head * params.q_head + rows.row * params.q_row;
}

// Of a tile over the keys from `least` to before `most`. A tile over several heads is taken to hold every query.
fn walk_of(tile: Tile, least: u32, most: u32) -> Walk {
    let one_head = tile.first / params.q_len == tile.last / params.q_len;
    let first_row = select(0u, tile.first % params.q_len, one_head);
    let last_row = select(params.q_len - 1u, tile.last % params.q_len, one_head);
    let diagonal = tile.diagonal;
    let len = tile.len;
    let first_key = max(i32(first_row) + diagonal - params.left, 0);
    let begin = max(first_key - first_key % i32(KEYS), i32(least));
    let end = min(clamp(i32(last_row) + diagonal + params.right + 1, 0, len), i32(min(most, params.kv_len)));
    let all_begin = select(i32(last_row) + diagonal - params.left, end, ROW_MASK);
    let all_end = clamp(i32(first_row) + diagonal + params.right + 1, 0, len);
    return walk_between(begin, end, all_begin, all_end);
}
