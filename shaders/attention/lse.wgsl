// Optional output: log-sum-exp, natural log, written as bits because minus infinity (no visible key) has no literal.
@group(0) @binding(5) var<storage, read_write> lse: array<u32>; // [batch, q_heads, q_len], f32

fn store_lse(batch: u32, head: u32, i: u32, row_max: f32, sum: f32) {
    let at = params.lse_start + batch * params.lse_batch + head * params.lse_head + i * params.lse_row;
    if (sum == 0.0) {
        lse[at] = 0xff800000u;
    } else {
        // NaN of a sum that is not finite: a driver's exp may have made an infinity of NaN, and its log may make a number of that.
        let is_finite = (bitcast<u32>(sum) & 0x7fffffffu) < 0x7f800000u;
        lse[at] = select(0x7fc00000u, bitcast<u32>(row_max + log(sum)), is_finite);
    }
}
