// Mixed chunks, off: a row sees the keys that its position lets it see.
fn row_tile(batch_kv_head: u32, tile: u32) -> Tile {
    return tile_of(batch_kv_head, tile, ROWS);
}

fn first_key(tile: Tile, split: u32) -> u32 {
    return split * params.split_keys;
}

fn end_key(split: u32) -> u32 {
    return (split + 1u) * params.split_keys;
}

// Keys that each row sees, in all ranges.
fn visible_keys(rows: Rows) -> vec4<f32> {
    return vec4<f32>(max(rows.hi - rows.lo, vec4(0)));
}

fn add_other_chunks(tile: Tile) {
}
