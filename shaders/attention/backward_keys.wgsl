// Where the rows of a tile are keys, and its items queries.
// A tile of keys: as one of rows, but that `first` and `last` are keys.
fn key_tile_of(batch_kv_head: u32, index: u32) -> Tile {
    let batch = batch_kv_head / params.kv_heads;
    let first = index * ROWS;
    let len = i32(kv_len_of(batch));
    let diagonal = params.offset + select(0, len - i32(params.q_len), params.align_end == 1u);
    return Tile(batch, batch_kv_head % params.kv_heads, first, min(first + ROWS, params.kv_len) - 1u, diagonal, len);
}

// Which queries from `least` to before `most` see keys of the tile, and which see all.
fn queries_of(tile: Tile, least: u32, most: u32) -> Walk {
    let first = i32(tile.first);
    let last = min(i32(tile.last), tile.len - 1);
    let begin = max(first - tile.diagonal - params.right, i32(least));
    let end = select(i32(least), min(last - tile.diagonal + params.left + 1, i32(most)), first <= last);
    let all_begin = select(last - tile.diagonal - params.right, end, ROW_MASK);
    return walk_between(begin, end, max(all_begin, begin), first - tile.diagonal + params.left + 1);
}
