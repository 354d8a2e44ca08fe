// When what was summed so far is rescaled: where a row's maximum grew by more than GROWTH, by a branch. Until then the
// weights are relative to the old one, and 256 at most. The subgroup is the workgroup.
// Source: Zadouri et al., "FlashAttention-4", 2026.
const GROWTH: f32 = 5.545177; // 8 log 2

fn follow_max(new_max: vec4<f32>) -> vec4<f32> {
    let grew = new_max > row_max + GROWTH;
    if (subgroupAny(any(grew))) {
        let shrink = raise_max(select(row_max, new_max, grew));
        for (var c = 0u; c < V_CHUNKS; c++) { // unroll if UNROLL
            set_o_chunk(c, by_row(o_chunk(c), shrink));
        }
    }
    return vec4(1.0);
}
