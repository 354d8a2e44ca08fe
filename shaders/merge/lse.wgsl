// Optional output: the merged lse, as bits because minus infinity has no literal.
@group(0) @binding(5) var<storage, read_write> lse: array<u32>; // [batch, heads, len], f32

fn lse_at(batch: u32, head: u32, i: u32) -> u32 {
    return params.lse_start + batch * params.lse_batch + head * params.lse_head + i * params.lse_row;
}

fn load_lse(batch: u32, head: u32, i: u32) -> u32 {
    return lse[lse_at(batch, head, i)];
}

fn store_lse(batch: u32, head: u32, i: u32, bits: u32) {
    lse[lse_at(batch, head, i)] = bits;
}
