// What the weights of each query have in common, of relu squared over what its place says: nothing but one over the divisor.
fn terms_of(head: u32, i: u32) -> vec4<f32> {
    let shift = params.offset + select(0, i32(owned.kv_len) - i32(params.q_len), params.align_end == 1u);
    let lo = max(i32(i) + shift - params.left, 0);
    let hi = clamp(i32(i) + shift + params.right + 1, 0, i32(owned.kv_len));
    let divisor = row_divisor(f32(max(hi - lo, 0)), 0.0);
    return vec4(0.0, 0.0, params.scale * params.scale / divisor, 0.0);
}
