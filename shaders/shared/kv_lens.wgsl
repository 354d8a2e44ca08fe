// Optional operand: visible keys per batch, clamped to the length of k.
@group(0) @binding(9) var<storage, read> kv_lens: array<u32>; // [batch]

fn kv_len_of(batch: u32) -> u32 {
    return min(kv_lens[params.kv_lens_start + batch * params.kv_lens_stride], params.kv_len);
}
