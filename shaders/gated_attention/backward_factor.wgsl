// What the linear part of a chunk that starts at token `begin` is multiplied by; 0 where there is none.
fn linear_factor(len: u32, begin: u32) -> f32 {
    let tokens = select(len, min(begin, len), params.chunk_causal == 1u);
    let divisor = select(params.linear_divisor, f32(max(tokens, 1u)), params.linear_tokens == 1u);
    return select(1.0 / divisor, 0.0, tokens == 0u);
}
