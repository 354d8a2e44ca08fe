// bf16 in words of two: the upper halves of f32. Into them, to the nearest and of two the even one.

fn bf16_pair(words: vec2<u32>) -> vec4<f32> {
    return bitcast<vec4<f32>>(vec4(words.x << 16u, words.x & 0xffff0000u, words.y << 16u, words.y & 0xffff0000u));
}

// Element i, which is in this word.
fn bf16_half(word: u32, i: u32) -> f32 {
    return bitcast<f32>(bf16_bits(word, i));
}

// The same as the bits of an f32; here an infinity may be one.
fn bf16_bits(word: u32, i: u32) -> u32 {
    return (word >> (16u * (i & 1u))) << 16u;
}

// The lower 16 bits of each.
fn bf16_from(x: vec4<f32>) -> vec4<u32> {
    let bits = bitcast<vec4<u32>>(x);
    let number = bits + vec4(0x7fffu) + ((bits >> vec4(16u)) & vec4(1u));
    let nan = bits | vec4(0x400000u);
    return select(number, nan, (bits & vec4(0x7fffffffu)) > vec4(0x7f800000u)) >> vec4(16u);
}
