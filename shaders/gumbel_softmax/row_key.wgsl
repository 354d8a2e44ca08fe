// Rows that have nothing of their own: the key of the call, the config's tau, all classes.
@group(0) @binding(1) var<storage, read> key: array<u32>; // [5]: seed low, seed high, stream, step, row offset

fn load_row(index: u32) -> Row {
    let at = params.key_start;
    let next = params.key_stride;
    let id = index + key[at + 4u * next];
    let seed = vec2(key[at], key[at + next]);
    return Row(index, seed, id, key[at + 2u * next], key[at + 3u * next], params.tau, 0u, 0u, NONE);
}

fn keeps(row: Row, bits: vec4<u32>, chunk: u32) -> vec4<bool> {
    return vec4(true);
}
