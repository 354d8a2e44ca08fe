// Features exp(x) of keys in tiles, relative to the chunk's maximum of each.
const LOWEST: f32 = -1.0e38; // the maximum of no keys

var<private> feature_chunk: u32;
var<private> chunk_maximum: vec4<f32>;

// The invocations that bring the same features each look through every SLAB_CHUNKS-th key.
fn begin_features(first_feature: u32, k_base: u32, begin: u32, end: u32) {
    feature_chunk = first_feature / 4u;
    let group = min(left_group(0u), ROW_GROUPS - 1u);
    let share = left_chunk(0u);
    var largest = vec4(LOWEST);
    if (has_left(0u)) {
        for (var member = 0u; member < members(); member++) {
            for (var j = begin + share; j < end; j += SLAB_CHUNKS) {
                largest = max(largest, load_k(k_base + member * params.k_head + j * params.k_row, feature_chunk));
            }
        }
        left[share][0][group / HEIGHT][group % HEIGHT] = largest;
    }
    workgroupBarrier();
    chunk_maximum = vec4(LOWEST);
    for (var i = 0u; i < SLAB_CHUNKS; i++) {
        chunk_maximum = max(chunk_maximum, left[i][0][group / HEIGHT][group % HEIGHT]);
    }
}

// Four features of the key at `base`.
fn key_features(base: u32) -> vec4<f32> {
    return within(feature_chunk, exp(load_k(base, feature_chunk) - chunk_maximum), 0.0);
}

fn key_maximum() -> vec4<f32> {
    return chunk_maximum;
}
